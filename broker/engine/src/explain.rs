//! Why an event is matched by a trigger or not, and what became of it (design, section 10). Members may be added,
//! never renamed.
//!
//! Two questions have the same answer: what manifests would do with an event ([`explain_event`], pure), and what a running
//! broker did with one that it has ([`crate::Engine::explain`]).

mod delivery;
mod judged;
mod offline;
mod record;
mod transformed;

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::value::RawValue;
use waypost_core::Event;
use waypost_core::event::json;
use waypost_core::filter::explain::Explanation;
use waypost_core::manifest::{Problem, ResourceName};

pub use self::delivery::{ExplainedAttempt, ExplainedDelivery};
use self::judged::Judged;
pub use self::offline::{explain_event, judge};
pub(crate) use self::record::Explaining;
pub use self::record::{ExplainError, ExplainQuery, MAX_EXPLAINS, RecordKey};
pub use self::transformed::{
    ExplainedChain, ExplainedFailure, ExplainedStep, StructuredEvent, transformed_by, transformed_by_trigger,
};

/// The most triggers in one answer unless asked otherwise.
pub const DEFAULT_EXPLAIN_LIMIT: usize = 1_000;

/// Which triggers are asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainSelection {
    /// Only triggers of this namespace.
    pub namespace: Option<String>,
    /// Only this trigger: `name` in any namespace, or `namespace/name`.
    pub trigger: Option<String>,
    /// The most triggers in one answer.
    pub limit: usize,
    /// Only what comes after this `namespace/name`, in the order of the answer.
    pub after: Option<String>,
}

impl Default for ExplainSelection {
    fn default() -> Self {
        Self { namespace: None, trigger: None, limit: DEFAULT_EXPLAIN_LIMIT, after: None }
    }
}

impl ExplainSelection {
    fn takes(&self, name: &ResourceName) -> bool {
        let wanted = |asked: &String| match asked.split_once('/') {
            Some((namespace, own)) => name.namespace == namespace && name.name == own,
            None => name.name == *asked,
        };
        self.namespace.as_ref().is_none_or(|namespace| *namespace == name.namespace)
            && self.trigger.as_ref().is_none_or(wanted)
    }
}

/// `after` names no trigger that the answer tells of, so that nobody can say what comes after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{after} is no trigger of this answer: give the last trigger of the page before, as NAMESPACE/NAME")]
pub struct AfterUnknown {
    after: String,
}

/// What triggers make of an event: those that match first, then the nearest misses.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The event in structured JSON.
    pub event: Box<RawValue>,
    /// Where it stands; nothing for an event from a file.
    #[serde(flatten)]
    pub record: Option<ExplainedRecord>,
    /// How many of the triggers that were asked about match.
    pub matched: usize,
    /// How many do not.
    pub not_matched: usize,
    /// How many of both are not in this answer: before it, or beyond its limit.
    pub left_out: usize,
    /// The triggers.
    pub triggers: Vec<ExplainedTrigger>,
}

/// Where an event stands in the log of a running broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedRecord {
    /// The broker, `namespace/name`.
    pub broker: String,
    /// The position, `partition:offset`.
    pub position: String,
    /// The positions of all records with the same source and id, the newest first; at most [`MAX_POSITIONS`].
    pub positions: Vec<String>,
    /// When it arrived, RFC 3339.
    pub arrived_at: String,
    /// The position of the event that it repeats, so that it matches no trigger (`spec.deduplication` of the broker);
    /// nothing where it repeats none.
    pub repeats: Option<String>,
    /// The plan that decides which triggers match it; nothing before the first.
    pub plan: Option<u64>,
    /// The plan in force now.
    pub present_plan: u64,
}

/// The most positions of records with the same source and id that are told.
pub const MAX_POSITIONS: usize = 100;

/// What one trigger makes of an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedTrigger {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The broker whose events it takes, `namespace/name`; empty where an error leaves that open.
    pub broker: String,
    /// Whether it matches.
    pub matched: bool,
    /// Why it does not, in a sentence; nothing where it does.
    pub reason: Option<String>,
    /// How many clauses would have to be otherwise for a match; nothing where no event would change the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<usize>,
    /// The clauses of its filter, all of which have to hold. Nothing for a filter that takes every event, and where no
    /// filter was asked.
    pub clauses: Vec<Explanation>,
    /// What its transformations make of the event, as they are now; nothing where it has none or does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transformations: Option<ExplainedChain>,
    /// What became of the event; nothing for an event from a file, and where it does not match.
    pub deliveries: Vec<ExplainedDelivery>,
    /// The plan whose filter decided, where it is not that of the whole answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<u64>,
    /// What is otherwise now, or out of the ordinary, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What is wrong with its manifest, where it has an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Where a trigger stands in the answer: matches, then misses with few clauses that fail, then what no event changes.
type Rank = Option<usize>;

fn by_rank(one: (Rank, &ResourceName), other: (Rank, &ResourceName)) -> Ordering {
    let rank = |rank: Rank| rank.unwrap_or(usize::MAX);
    rank(one.0).cmp(&rank(other.0)).then_with(|| one.1.cmp(other.1))
}

/// A part of the answer, in its order.
struct Page<T> {
    rows: Vec<T>,
    matched: usize,
    not_matched: usize,
    left_out: usize,
}

/// Puts the triggers in their order, and takes the part that is asked for.
fn page<T>(
    mut ranked: Vec<(Judged, T)>,
    name: impl Fn(&T) -> &ResourceName,
    selection: &ExplainSelection,
) -> Result<Page<(Judged, T)>, AfterUnknown> {
    ranked.sort_by(|(one, row), (other, next)| by_rank((one.rank, name(row)), (other.rank, name(next))));
    let skipped = match &selection.after {
        None => 0,
        Some(after) => {
            let found = ranked.iter().position(|(_, row)| name(row).to_string() == *after);
            found.ok_or_else(|| AfterUnknown { after: after.clone() })? + 1
        }
    };
    let matched = ranked.iter().filter(|(judged, _)| judged.matched).count();
    let all = ranked.len();
    let rows: Vec<_> = ranked.into_iter().skip(skipped).take(selection.limit).collect();
    Ok(Page { matched, not_matched: all - matched, left_out: all - rows.len(), rows })
}

/// The event as it is written in an answer.
pub(crate) fn structured(event: &Event) -> Box<RawValue> {
    let text = String::from_utf8(json::encode(event).to_vec()).expect("an event is encoded in UTF-8");
    RawValue::from_string(text).expect("an event is encoded as JSON")
}

/// A moment, RFC 3339.
pub(crate) fn rfc3339(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default().to_string()
}

/// The clauses of a filter, all of which have to hold.
fn clauses_of(explanation: Explanation) -> Vec<Explanation> {
    if explanation.predicate == "{}" {
        return Vec::new();
    }
    if explanation.predicate == "all" { explanation.clauses } else { vec![explanation] }
}
