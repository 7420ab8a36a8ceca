//! What a running broker did with an event that it has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use waypost_core::filter::explain::Explanation;
use waypost_core::filter::{Candidate, Filter};
use waypost_core::manifest::{Problem, ResourceName};
use waypost_core::transformation::Moment;
use waypost_core::{Code, codes};
use waypost_log::{Durability, Entry, Log, PlanRecord, PlanVersion, Position, ReadError, TriggerNumber};

use super::delivery::ExplainedDelivery;
use super::judged::Judged;
use super::offline::{invalid, invalid_line};
use super::transformed::transformed;
use super::{
    AfterUnknown, ExplainSelection, Explained, ExplainedRecord, ExplainedTrigger, MAX_POSITIONS, Page,
    clauses_of, page, rfc3339, structured,
};
use crate::broker::Broker;
use crate::context::Context;
use crate::deduplication::repeated_by;
use crate::logs::Logs;
use crate::matching::recorded;
use crate::plan::StartFrom;
use crate::supervisor::{Applied, Supervisor};

/// So many events are explained at one time; each may read from the disk.
pub const MAX_EXPLAINS: usize = 4;

/// Which record of which broker is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainQuery {
    /// The broker.
    pub broker: ResourceName,
    /// The record.
    pub record: RecordKey,
    /// The triggers.
    pub selection: ExplainSelection,
}

/// How a record is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKey {
    /// By its position.
    Position(Position),
    /// By its event. Where several records have the same source and id, the newest is told.
    Event {
        /// The source.
        source: String,
        /// The id.
        id: String,
    },
}

/// Why nothing can be told of a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// No such broker runs.
    #[error("the broker {broker} does not run here: see `waypost status`")]
    BrokerUnknown {
        /// The broker.
        broker: ResourceName,
    },
    /// As many events as may be are being explained.
    #[error("{MAX_EXPLAINS} events are being explained at this moment: ask again")]
    Busy,
    /// No record of the broker has this source and id.
    #[error(
        "the broker {broker} has no event with source `{source_text}` and id `{id}`: compare both letter by letter; it was never \
         accepted here, or retention has given it up"
    )]
    EventUnknown {
        /// The broker.
        broker: ResourceName,
        /// The source.
        source_text: String,
        /// The id.
        id: String,
    },
    /// Retention has given the record up.
    #[error(
        "{position} is no longer in the log of {broker}, which starts at offset {start}: its retention has given it up"
    )]
    Trimmed {
        /// The broker.
        broker: ResourceName,
        /// The position that was asked for.
        position: Position,
        /// The oldest offset that can be read.
        start: u64,
    },
    /// Nothing stands at the position yet.
    #[error(
        "nothing stands at {position} in the log of {broker} yet, which ends before offset {end}: name a position \
         below it, as PARTITION:OFFSET"
    )]
    Beyond {
        /// The broker.
        broker: ResourceName,
        /// The position that was asked for.
        position: Position,
        /// The first offset that is not written.
        end: u64,
    },
    /// The record cannot be read.
    #[error("{0}; see `waypost status`")]
    Unreadable(ReadError),
    /// The set of triggers that was in force cannot be read.
    #[error("{0}")]
    PlanUnreadable(String),
    /// The selection goes on after a trigger that is not in the answer.
    #[error(transparent)]
    After(#[from] AfterUnknown),
    /// The process ends.
    #[error("the process is shutting down: ask again when it runs")]
    Stopping,
}

impl ExplainError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::BrokerUnknown { .. } => codes::ADMIN_RESOURCE_UNKNOWN,
            Self::Busy => codes::ADMIN_EXPLAIN_BUSY,
            Self::EventUnknown { .. } => codes::ADMIN_EVENT_UNKNOWN,
            Self::Trimmed { .. } => codes::LOG_TRIMMED,
            Self::Beyond { .. } => codes::LOG_BEYOND_END,
            Self::Unreadable(error) => error.code(),
            Self::PlanUnreadable(_) => codes::LOG_VERSION_UNKNOWN,
            Self::After(_) => codes::ADMIN_QUERY_INVALID,
            Self::Stopping => codes::ADMIN_NOT_READY,
        }
    }
}

/// Explains records, a bounded number at one time.
#[derive(Debug)]
pub(crate) struct Explaining {
    context: Arc<Context>,
    at_once: Arc<Semaphore>,
}

impl Explaining {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, at_once: Arc::new(Semaphore::new(MAX_EXPLAINS)) }
    }

    /// See [`crate::Engine::explain`].
    pub(crate) async fn explain(
        &self,
        supervisor: &Supervisor,
        query: ExplainQuery,
    ) -> Result<Explained, ExplainError> {
        let ExplainQuery { broker: name, record, selection } = query;
        let permit = Arc::clone(&self.at_once).try_acquire_owned().map_err(|_| ExplainError::Busy)?;
        let broker =
            supervisor.broker(&name).ok_or_else(|| ExplainError::BrokerUnknown { broker: name.clone() })?;
        let log = Arc::clone(broker.log());
        let (source, id, position) = match record {
            RecordKey::Event { source, id } => (source, id, None),
            RecordKey::Position(position) => {
                let entry = fetch(&*log, &name, position).await?;
                (entry.event.source().to_owned(), entry.event.id().to_owned(), Some(entry))
            }
        };
        let positions = log.find(&source, &id, MAX_POSITIONS).await.map_err(ExplainError::Unreadable)?;
        let entry = match (position, positions.first()) {
            (Some(entry), _) => entry,
            (None, Some(newest)) => fetch(&*log, &name, *newest).await?,
            (None, None) => {
                return Err(ExplainError::EventUnknown { broker: name, source_text: source, id });
            }
        };
        let repeats = repeats(&broker, &entry).await?;
        let asking = Asking {
            applied: supervisor.applied(),
            logs: self.context.logs.clone(),
            broker,
            log,
            entry,
            positions,
            repeats,
            selection,
        };
        self.off_runtime(asking, permit).await
    }

    /// What became of deliveries is read from the disk, and the filters of many triggers take a while: both go on a
    /// thread that serves no event. The task is the engine's, so that a stop waits for it.
    async fn off_runtime(
        &self,
        asking: Asking,
        permit: OwnedSemaphorePermit,
    ) -> Result<Explained, ExplainError> {
        let (tell, told) = oneshot::channel();
        let stop = self.context.dispatch.stop().clone();
        self.context.dispatch.spawn("explanations", async move {
            let explaining = move || {
                let _one_of_few = permit;
                asking.explain(&|| stop.is_cancelled())
            };
            match tokio::task::spawn_blocking(explaining).await {
                // Whoever asked may have gone.
                Ok(explained) => drop(tell.send(explained)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_cancelled) => {}
            }
        });
        told.await.unwrap_or(Err(ExplainError::Stopping))
    }
}

async fn fetch(log: &dyn Log, broker: &ResourceName, position: Position) -> Result<Arc<Entry>, ExplainError> {
    let broker = broker.clone();
    if position.partition >= log.partitions() {
        return Err(ExplainError::Beyond { broker, position, end: 0 });
    }
    log.fetch(position).await.map_err(|error| match error {
        ReadError::Trimmed { start } => ExplainError::Trimmed { broker, position, start },
        ReadError::Beyond { .. } => {
            ExplainError::Beyond { broker, position, end: log.bounds(position.partition).end }
        }
        error => ExplainError::Unreadable(error),
    })
}

/// The record that this one repeats, by the plan that decides about it.
async fn repeats(broker: &Broker, entry: &Entry) -> Result<Option<Position>, ExplainError> {
    let log = broker.log();
    let plans = log.plans();
    let Some(plan) = deciding(&plans, entry) else { return Ok(None) };
    let newest = broker.newest_matcher().filter(|matcher| matcher.version == plan.version);
    let rule = match newest {
        Some(matcher) => matcher.deduplication,
        None => {
            recorded::deduplication(plan).map_err(|error| ExplainError::PlanUnreadable(error.to_string()))?
        }
    };
    let Some(rule) = rule else { return Ok(None) };
    repeated_by(&**log, rule, entry).await.map_err(ExplainError::Unreadable)
}

/// The plan that decides which triggers match a record.
fn deciding<'p>(plans: &'p [PlanRecord], entry: &Entry) -> Option<&'p PlanRecord> {
    let Position { partition, offset } = entry.position;
    // In the order of versions, and so of what they decide.
    plans.iter().take_while(|plan| plan.effective[usize::from(partition)] <= offset).last()
}

/// One question, with all that is needed to answer it.
struct Asking {
    applied: Arc<Applied>,
    logs: Logs,
    broker: Arc<Broker>,
    log: Arc<dyn Log>,
    entry: Arc<Entry>,
    positions: Vec<Position>,
    /// The record that it repeats, so that it matches nobody.
    repeats: Option<Position>,
    selection: ExplainSelection,
}

/// A trigger that is asked about.
struct Asked<'a> {
    name: ResourceName,
    number: Option<TriggerNumber>,
    by: By<'a>,
}

/// What decided about a trigger.
enum By<'a> {
    /// Its filter, as the plan of this version has it.
    Filter(Filter, PlanVersion),
    /// The plan that decided does not have it; the first plan after that which does, where there is one, had this
    /// version and began at this offset.
    Later(Option<(PlanVersion, u64)>),
    /// Its manifest has an error, and it never had a version without.
    Invalid(&'a Problem),
}

/// How sure the match lists are about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    /// What they do not list does not match.
    Known,
    /// They are not written yet, or being written again.
    Open { restoring: bool },
    /// They are gone; the record is only kept for those that are still owed it.
    Gone,
}

impl Asking {
    fn explain(&self, stopping: &dyn Fn() -> bool) -> Result<Explained, ExplainError> {
        // Before the look at outcomes: what is examined between the two is then not taken for a miss.
        let lists = self.lists();
        let plans = self.log.plans();
        let deciding = deciding(&plans, &self.entry);
        let candidate = Candidate::new(&self.entry.event);
        let mut ranked = Vec::new();
        for asked in self.asked(&plans, deciding)? {
            if stopping() {
                return Err(ExplainError::Stopping);
            }
            let judged = match &asked.by {
                By::Filter(filter, _) => Judged::by(filter, &candidate),
                By::Later(_) | By::Invalid(_) => Judged::NEVER,
            };
            ranked.push((judged, asked));
        }
        let Page { rows, mut matched, left_out, not_matched } =
            page(ranked, |asked| &asked.name, &self.selection)?;
        let all = matched + not_matched;
        let mut triggers = Vec::with_capacity(rows.len());
        for (judged, asked) in rows {
            if stopping() {
                return Err(ExplainError::Stopping);
            }
            let line = self.line(asked, lists, deciding, &candidate);
            // The match lists have the last word, and only those that are told are looked up in them.
            matched = matched - usize::from(judged.matched) + usize::from(line.matched);
            triggers.push(line);
        }
        let record = ExplainedRecord {
            broker: self.broker.name().to_string(),
            position: self.entry.position.to_string(),
            positions: self.positions.iter().map(ToString::to_string).collect(),
            arrived_at: rfc3339(self.entry.arrived.0),
            repeats: self.repeats.map(|position| position.to_string()),
            plan: deciding.map(|plan| plan.version.0),
            present_plan: self.applied.version,
        };
        let event = structured(&self.entry.event);
        Ok(Explained { event, record: Some(record), matched, not_matched: all - matched, left_out, triggers })
    }

    fn lists(&self) -> Lists {
        let Position { partition, offset } = self.entry.position;
        if offset < self.log.bounds(partition).start {
            Lists::Gone
        } else if self.log.lost_matches(partition).iter().any(|range| range.contains(&offset)) {
            Lists::Open { restoring: true }
        } else if offset >= self.log.matched(partition) {
            Lists::Open { restoring: false }
        } else {
            Lists::Known
        }
    }

    /// The triggers that are asked about, each with what decided about it.
    fn asked<'a>(
        &'a self,
        plans: &[PlanRecord],
        deciding: Option<&PlanRecord>,
    ) -> Result<Vec<Asked<'a>>, ExplainError> {
        let mut all = Vec::new();
        let mut told = HashSet::new();
        let mut tell = |name: &ResourceName, number: Option<TriggerNumber>, by: By<'a>| {
            if self.selection.takes(name) && told.insert(name.clone()) {
                all.push(Asked { name: name.clone(), number, by });
            }
        };
        if let Some(plan) = deciding {
            let wanted = plan.triggers.iter().filter(|(_, name)| self.selection.takes(name));
            let mut filters = self.filters(plan, &wanted.map(|(number, _)| *number).collect())?;
            for (number, name) in &plan.triggers {
                if let Some(filter) = filters.remove(number) {
                    tell(name, Some(*number), By::Filter(filter, plan.version));
                }
            }
        }
        for (name, number, filter, version) in self.started_in_the_past(plans)? {
            tell(&name, Some(number), By::Filter(filter, version));
        }
        let later = self.first_in_force(plans, deciding);
        for subscription in self.broker.subscriptions() {
            let by = By::Later(later.get(&subscription.number).copied());
            tell(&subscription.name, Some(subscription.number), by);
        }
        for (name, problem) in invalid(&self.applied.plan) {
            if name.namespace == self.broker.name().namespace {
                tell(&name, None, By::Invalid(problem));
            }
        }
        Ok(all)
    }

    /// Since which plan, and from which offset on, each trigger is in force that the deciding one does not have.
    fn first_in_force(
        &self,
        plans: &[PlanRecord],
        deciding: Option<&PlanRecord>,
    ) -> HashMap<TriggerNumber, (PlanVersion, u64)> {
        let mut first = HashMap::new();
        for plan in plans.iter().filter(|plan| deciding.is_none_or(|before| plan.version > before.version)) {
            let from = plan.effective[usize::from(self.entry.position.partition)];
            for (number, _) in &plan.triggers {
                first.entry(*number).or_insert((plan.version, from));
            }
        }
        first
    }

    /// The filters of some triggers of a plan. Those of the plan in force are in memory.
    fn filters(
        &self,
        plan: &PlanRecord,
        wanted: &HashSet<TriggerNumber>,
    ) -> Result<HashMap<TriggerNumber, Filter>, ExplainError> {
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        if let Some(matcher) = self.broker.newest_matcher().filter(|matcher| matcher.version == plan.version)
        {
            let filters = matcher.filters().filter(|(number, _)| wanted.contains(number));
            return Ok(filters.map(|(number, filter)| (number, filter.clone())).collect());
        }
        let plan = recorded::read(plan).map_err(|error| ExplainError::PlanUnreadable(error.to_string()))?;
        Ok(plan.filters.into_iter().filter(|(number, _)| wanted.contains(number)).collect())
    }

    /// The triggers that were new after the record came and started before it, with the filter that they started with.
    fn started_in_the_past(
        &self,
        plans: &[PlanRecord],
    ) -> Result<Vec<(ResourceName, TriggerNumber, Filter, PlanVersion)>, ExplainError> {
        let Position { partition, offset } = self.entry.position;
        let unreadable = |error: crate::logs::Unopened| ExplainError::PlanUnreadable(error.to_string());
        let mut starts = Vec::new();
        for past in self.logs.noted_pasts(&*self.log, self.broker.name()).map_err(unreadable)? {
            let covers = past
                .all
                .iter()
                .any(|range| range.partition == partition && (range.from..range.to).contains(&offset));
            if covers {
                starts.push((past.trigger(), past.version()));
            }
        }
        if self.log.durability() == Durability::Memory {
            // Nothing is noted there: the manifest tells.
            for (name, trigger) in &self.applied.plan.triggers {
                let covers = match trigger.start_from {
                    StartFrom::Latest => false,
                    StartFrom::Earliest => true,
                    StartFrom::Time(from) => self.entry.arrived.0 >= from,
                };
                let started = |plan: &&PlanRecord| plan.triggers.iter().any(|(_, known)| known == name);
                if trigger.broker == *self.broker.name()
                    && covers
                    && let Some(first) = plans.iter().find(started)
                    && first.effective[usize::from(partition)] > offset
                {
                    starts.push((self.log.trigger(name), first.version));
                }
            }
        }
        let mut found = Vec::new();
        for (number, version) in starts {
            let Some(plan) = plans.iter().find(|plan| plan.version == version) else { continue };
            let Some((_, name)) = plan.triggers.iter().find(|(known, _)| *known == number) else { continue };
            if self.selection.takes(name)
                && let Some(filter) = self.filters(plan, &HashSet::from([number]))?.remove(&number)
            {
                found.push((name.clone(), number, filter, version));
            }
        }
        Ok(found)
    }

    /// What one trigger made of the event. The match list decides; where there is none (yet, or any more) the filter
    /// does.
    fn line(
        &self,
        asked: Asked<'_>,
        lists: Lists,
        deciding: Option<&PlanRecord>,
        candidate: &Candidate<'_>,
    ) -> ExplainedTrigger {
        let Asked { name, number, by } = asked;
        let outcome = number.and_then(|number| self.log.outcomes(self.entry.position, number));
        let taken = matches!(&by, By::Filter(filter, _) if filter.matches(candidate) == Ok(true));
        let taken = taken && self.repeats.is_none();
        let matched = outcome.is_some() || (taken && lists != Lists::Known);
        let deliveries = match (&outcome, lists) {
            _ if !matched => Vec::new(),
            (Some(outcome), _) => {
                let subscription = self.broker.subscription(&name);
                let standing = subscription.map(|subscription| subscription.standing());
                vec![ExplainedDelivery::new(outcome, standing.as_ref())]
            }
            (None, Lists::Open { restoring }) => vec![ExplainedDelivery::not_examined(restoring)],
            (None, Lists::Known | Lists::Gone) => vec![ExplainedDelivery::forgotten()],
        };
        let moment = Moment { arrived_nanoseconds: self.entry.arrived.0 };
        let planned = self.applied.plan.triggers.get(&name).filter(|_| matched);
        let transformations =
            planned.and_then(|planned| transformed(&planned.transformations, &self.entry.event, moment));
        let mut line = match by {
            By::Invalid(problem) => invalid_line(name, problem),
            By::Later(first) => self.without_filter(&name, matched, first, deciding),
            By::Filter(filter, version) => {
                let explanation = Explanation::new(&filter, candidate);
                let reason = match (matched, self.repeats) {
                    (true, _) => None,
                    (false, Some(repeated)) => Some(format!(
                        "it repeats the event at {repeated}, and the broker's deduplication lets repeats match no trigger"
                    )),
                    (false, None) if taken => Some(PASSED.to_owned()),
                    (false, None) => explanation.reason(),
                };
                ExplainedTrigger {
                    matched,
                    reason,
                    distance: (matched == taken).then(|| explanation.distance()),
                    clauses: clauses_of(explanation),
                    plan: deciding.is_none_or(|plan| plan.version != version).then_some(version.0),
                    note: self.differs_now(&name, &filter, version, matched, candidate),
                    ..self.named(&name)
                }
            }
        };
        line.deliveries = deliveries;
        line.transformations = transformations;
        line
    }

    fn named(&self, name: &ResourceName) -> ExplainedTrigger {
        ExplainedTrigger {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            broker: self.broker.name().to_string(),
            matched: false,
            reason: None,
            distance: None,
            clauses: Vec::new(),
            transformations: None,
            deliveries: Vec::new(),
            plan: None,
            note: None,
            problem: None,
        }
    }

    /// A trigger that the plan which decided does not have.
    fn without_filter(
        &self,
        name: &ResourceName,
        matched: bool,
        first: Option<(PlanVersion, u64)>,
        deciding: Option<&PlanRecord>,
    ) -> ExplainedTrigger {
        let partition = self.entry.position.partition;
        let reason = match (first, deciding) {
            (Some((version, from)), _) => format!(
                "the trigger is newer than the event: it is in force since plan {}, from position {partition}:{from} on",
                version.0
            ),
            (None, Some(plan)) => {
                format!("plan {}, which decided about the event, does not have the trigger", plan.version.0)
            }
            (None, None) => "no plan has decided about the event yet".to_owned(),
        };
        let note = matched.then(|| "it started in the past, and matched the event then".to_owned());
        ExplainedTrigger { matched, reason: (!matched).then_some(reason), note, ..self.named(name) }
    }

    /// What is otherwise with the present manifest.
    fn differs_now(
        &self,
        name: &ResourceName,
        decided: &Filter,
        version: PlanVersion,
        matched: bool,
        candidate: &Candidate<'_>,
    ) -> Option<String> {
        let Some(planned) = self.applied.plan.triggers.get(name) else {
            return Some(
                "no manifest declares the trigger any more: this is what it was at that time".to_owned(),
            );
        };
        if planned.broker != *self.broker.name() {
            return Some(format!("the trigger takes events of {} now", planned.broker));
        }
        if planned.filter == *decided {
            return None;
        }
        let now = Explanation::new(&planned.filter, candidate);
        let verdict = match (now.reason(), matched) {
            (None, true) => "matches the event as well".to_owned(),
            (None, false) => "would match the event".to_owned(),
            (Some(reason), true) => format!("would not match the event: {reason}"),
            (Some(reason), false) => format!("does not match the event either: {reason}"),
        };
        Some(format!(
            "plan {} decided; the filter of the present plan {} {verdict}",
            version.0, self.applied.version
        ))
    }
}

/// Why a trigger does not have what its filter takes.
const PASSED: &str = "its filter takes the event, but it was never entered for the trigger: the trigger had been moved \
                      beyond it, or forgotten";
