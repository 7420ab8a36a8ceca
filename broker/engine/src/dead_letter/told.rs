//! Dead letters as operators name them, choose them and read them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use waypost_core::Code;
use waypost_core::event::json;
use waypost_core::manifest::ResourceName;
use waypost_core::transformation::{Chain, Moment, Transformed};
use waypost_log::{
    Attempt, AttemptOutcome, DeadLetter, DeadLetterId, Forwarding, LetterSelection, Timestamp,
};

use crate::explain::{StructuredEvent, rfc3339};
use crate::redrive::redrive_name;

/// The name of a dead letter: `NAMESPACE.BROKER.NUMBER`, such as `default.orders.42`. It is unique in a process and its
/// data directory, never given to another dead letter, and one argument or one segment of a path as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterName {
    /// The broker in whose log it is. A namespace holds no dot, so that the first one ends it.
    pub broker: ResourceName,
    /// Its number there.
    pub id: DeadLetterId,
}

/// The text is not that of a dead letter's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write the id of a dead letter as NAMESPACE.BROKER.NUMBER, as `waypost dlq list` shows it")]
pub struct InvalidLetterName;

impl fmt::Display for LetterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.broker.namespace, self.broker.name, self.id.0)
    }
}

impl FromStr for LetterName {
    type Err = InvalidLetterName;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, InvalidLetterName> {
        let (namespace, rest) = text.split_once('.').ok_or(InvalidLetterName)?;
        let (name, number) = rest.rsplit_once('.').ok_or(InvalidLetterName)?;
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if namespace.is_empty() || name.is_empty() || !digits {
            return Err(InvalidLetterName);
        }
        let id = DeadLetterId(number.parse().map_err(|_| InvalidLetterName)?);
        Ok(Self { broker: ResourceName::new(namespace, name), id })
    }
}

/// Which dead letters are asked for; the default: all of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterQuery {
    /// Only those of brokers in this namespace.
    pub namespace: Option<String>,
    /// Only those of brokers of this name.
    pub broker: Option<String>,
    /// Only those of this trigger.
    pub trigger: Option<ResourceName>,
    /// Only those whose event has this type.
    pub event_type: Option<String>,
    /// Only those that were given up with this code.
    pub code: Option<Code>,
    /// Only those that were given up at this moment or later.
    pub since: Option<Timestamp>,
    /// Only those that were given up before this moment.
    pub until: Option<Timestamp>,
}

impl LetterQuery {
    pub(crate) fn admits_broker(&self, broker: &ResourceName) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == broker.namespace)
            && self.broker.as_ref().is_none_or(|name| *name == broker.name)
            // A trigger is in the namespace of its broker.
            && self.trigger.as_ref().is_none_or(|trigger| trigger.namespace == broker.namespace)
    }

    pub(crate) fn selection(&self) -> LetterSelection {
        LetterSelection {
            trigger: self.trigger.clone(),
            event_type: self.event_type.clone(),
            code: self.code,
            since: self.since,
            until: self.until,
            ..LetterSelection::default()
        }
    }
}

/// The dead letters that something is done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterChoice {
    /// Those that a query finds.
    Query(LetterQuery),
    /// These; at most [`MAX_NAMED_LETTERS`].
    Named(Vec<LetterName>),
}

/// The most dead letters that are named in one request; more are chosen by a query.
pub const MAX_NAMED_LETTERS: usize = 10_000;

/// One dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterLine {
    /// Its name, [`LetterName`].
    pub id: String,
    /// The trigger, `NAMESPACE/NAME`.
    pub trigger: String,
    /// The event; none where its record cannot be read any more.
    pub event: Option<LetterEvent>,
    /// Why it was given up, a sentence.
    pub reason: String,
    /// The same as a code.
    pub code: Code,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it was given up, RFC 3339; after a redrive that failed, when that did.
    pub at: String,
}

/// What a list tells of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterEvent {
    /// Its id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
}

impl LetterLine {
    pub(crate) fn of(broker: &ResourceName, letter: &DeadLetter) -> Self {
        let event = letter.entry().map(|entry| LetterEvent {
            id: entry.event.id().to_owned(),
            source: entry.event.source().to_owned(),
            event_type: entry.event.event_type().to_owned(),
        });
        Self {
            id: LetterName { broker: broker.clone(), id: letter.id }.to_string(),
            trigger: letter.trigger.to_string(),
            event,
            reason: letter.reason.detail.clone(),
            code: letter.reason.code,
            attempts: letter.attempts_made,
            at: rfc3339(letter.at.0),
        }
    }
}

/// All that is known of one dead letter.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterDetails {
    /// Its name, [`LetterName`].
    pub id: String,
    /// The trigger, `NAMESPACE/NAME`.
    pub trigger: String,
    /// The broker, `NAMESPACE/NAME`.
    pub broker: String,
    /// Where the record stands, or stood, in the log.
    pub position: String,
    /// The event in structured JSON; none where its record cannot be read any more.
    pub event: Option<Box<RawValue>>,
    /// Why it was given up, a sentence.
    pub reason: String,
    /// The same as a code.
    pub code: Code,
    /// Where the event could not be sent.
    pub destination: String,
    /// The last status that the subscriber answered.
    pub status: Option<u16>,
    /// The beginning of the body that it answered with, as text.
    pub body_excerpt: Option<String>,
    /// How many attempts were made.
    pub attempts_made: u32,
    /// The newest of them, the last one last.
    pub attempts: Vec<LetterAttempt>,
    /// When it was given up, RFC 3339.
    pub at: String,
    /// What became of its way to the dead-letter sink.
    pub forwarding: LetterForwarding,
    /// The newest redrive at which it failed again.
    pub redrive: Option<String>,
    /// Where the transformations made several events of it, and the subscriber has some of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<LetterOutputs>,
}

/// The events that transformations made of the event of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterOutputs {
    /// How many of them the subscriber has: the first ones.
    pub accepted: u32,
    /// The others, which a redrive sends.
    pub owed: Vec<StructuredEvent>,
}

/// One attempt at the event of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterAttempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began, RFC 3339.
    pub at: String,
    /// When its outcome was known, RFC 3339.
    pub ended_at: String,
    /// `failed`, or `delivered` where what came after the delivery failed.
    pub outcome: &'static str,
    /// The code of a failure.
    pub code: Option<Code>,
    /// The status that the subscriber answered.
    pub status: Option<u16>,
    /// A failure, as a sentence.
    pub detail: Option<String>,
    /// The beginning of the body that the subscriber answered with, as text.
    pub body_excerpt: Option<String>,
}

/// What became of a dead letter's way to the dead-letter sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum LetterForwarding {
    /// No dead-letter sink was named.
    Kept,
    /// It waits to be forwarded.
    #[serde(rename_all = "camelCase")]
    Waiting {
        /// The attempts made so far.
        attempts: u32,
        /// When the next one is due, RFC 3339.
        due_at: String,
    },
    /// The dead-letter sink did not take it.
    GivenUp {
        /// The attempts made.
        attempts: u32,
        /// What the last one said.
        detail: String,
    },
}

impl LetterDetails {
    /// `chain` is what the trigger does with events now, where it is still there.
    pub(crate) fn of(broker: &ResourceName, letter: &DeadLetter, chain: Option<&Chain>) -> Self {
        let event = letter.entry().map(|entry| {
            let text = String::from_utf8(json::encode(&entry.event).to_vec()).expect("JSON is UTF-8");
            RawValue::from_string(text).expect("the codec writes JSON")
        });
        let reason = &letter.reason;
        Self {
            id: LetterName { broker: broker.clone(), id: letter.id }.to_string(),
            trigger: letter.trigger.to_string(),
            broker: broker.to_string(),
            position: letter.position.to_string(),
            event,
            reason: reason.detail.clone(),
            code: reason.code,
            destination: reason.destination.clone(),
            status: reason.status,
            body_excerpt: reason.body_excerpt.as_deref().map(text_of),
            attempts_made: letter.attempts_made,
            attempts: letter.attempts.iter().map(LetterAttempt::of).collect(),
            at: rfc3339(letter.at.0),
            forwarding: match &letter.forwarding {
                Forwarding::Kept => LetterForwarding::Kept,
                Forwarding::Waiting { attempts, due } => {
                    LetterForwarding::Waiting { attempts: *attempts, due_at: rfc3339(due.0) }
                }
                Forwarding::GivenUp { attempts, detail } => {
                    LetterForwarding::GivenUp { attempts: *attempts, detail: detail.clone() }
                }
            },
            redrive: letter.redriven.map(redrive_name),
            outputs: outputs_of(letter, chain),
        }
    }
}

/// Other transformations than those that made the outputs start over: nothing that was accepted is one of theirs.
fn outputs_of(letter: &DeadLetter, chain: Option<&Chain>) -> Option<LetterOutputs> {
    let (entry, chain) = (letter.entry()?, chain?);
    let accepted =
        letter.accepted.map(|accepted| accepted.by(chain.digest())).filter(|accepted| *accepted > 0)?;
    let moment = Moment { arrived_nanoseconds: entry.arrived.0 };
    let Ok(Transformed::Events(events)) = chain.apply(&entry.event, moment) else { return None };
    let owed = events.into_iter().skip(accepted as usize).map(StructuredEvent).collect();
    Some(LetterOutputs { accepted, owed })
}

impl LetterAttempt {
    fn of(attempt: &Attempt) -> Self {
        let Attempt { number, started, ended, .. } = *attempt;
        let (at, ended_at) = (rfc3339(started.0), rfc3339(ended.0));
        match &attempt.outcome {
            AttemptOutcome::Delivered { status } => Self {
                number,
                at,
                ended_at,
                outcome: "delivered",
                code: None,
                status: *status,
                detail: None,
                body_excerpt: None,
            },
            AttemptOutcome::Failed { code, status, detail, body_excerpt } => Self {
                number,
                at,
                ended_at,
                outcome: "failed",
                code: Some(*code),
                status: *status,
                detail: Some(detail.clone()),
                body_excerpt: body_excerpt.as_deref().map(text_of),
            },
        }
    }
}

/// Foreign bytes as text: what is not UTF-8 shows as replacement characters.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A query as it is kept for a later process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeptQuery {
    trigger: Option<ResourceName>,
    event_type: Option<String>,
    code: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
}

impl KeptQuery {
    pub(crate) fn of(query: &LetterQuery) -> Self {
        Self {
            trigger: query.trigger.clone(),
            event_type: query.event_type.clone(),
            code: query.code.map(|code| code.id().to_owned()),
            since: query.since.map(|time| time.0),
            until: query.until.map(|time| time.0),
        }
    }

    pub(crate) fn selection(&self) -> LetterSelection {
        let code = self.code.as_ref();
        LetterSelection {
            trigger: self.trigger.clone(),
            event_type: self.event_type.clone(),
            code: code.and_then(|id| waypost_core::codes::ALL.iter().copied().find(|code| code.id() == id)),
            since: self.since.map(Timestamp),
            until: self.until.map(Timestamp),
            ..LetterSelection::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_also_with_dots_in_the_broker() {
        for text in ["default.orders.42", "a.b.c.d.0", "default.source:clock.7", "n.b.18446744073709551615"] {
            assert_eq!(text.parse::<LetterName>().expect(text).to_string(), text);
        }
        let name: LetterName = "shop.orders.eu.7".parse().expect("it is a name");
        assert_eq!((name.broker, name.id), (ResourceName::new("shop", "orders.eu"), DeadLetterId(7)));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["", "7", "a.7", "a..7", ".b.7", "a.b.", "a.b.x", "a.b.-1", "a.b.18446744073709551616", "a/b/7"]
        {
            assert_eq!(text.parse::<LetterName>(), Err(InvalidLetterName), "{text}");
        }
    }
}
