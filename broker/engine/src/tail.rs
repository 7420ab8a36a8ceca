//! The events of a broker, or those that a trigger matches, as they come.
//!
//! Whoever looks asks again and again, and says where to go on: nothing is kept for them here, and one that is slow only
//! finds that the log has given up what it did not read in time. Nothing is delivered, counted or changed by it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use waypost_core::filter::Filter;
use waypost_core::manifest::ResourceName;
use waypost_core::{Code, codes};
use waypost_log::{Entry, Log, Position, ReadError, ReadLimit, TriggerNumber};

use crate::broker::Broker;
use crate::context::Context;
use crate::explain::{rfc3339, structured};
use crate::supervisor::Supervisor;

/// So many look at one time.
pub const MAX_TAILS: usize = 32;
/// The longest that one question waits for events.
pub const MAX_TAIL_WAIT: Duration = Duration::from_secs(30);
/// The most events in one answer.
pub const MAX_TAIL_EVENTS: usize = 1_000;

/// How much is read at once; an answer has hardly more bytes of events.
const CHUNK: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024 };
/// So many records are looked at for one answer: where a filter takes none of them, the answer says how far it got.
const LOOKED_AT: usize = 16_384;
/// How long to wait before looking again how far triggers have been matched.
const MATCHED_PAUSE: Duration = Duration::from_millis(20);

/// What is looked at.
#[derive(Debug, Clone)]
pub struct TailQuery {
    /// Whose events.
    pub of: TailOf,
    /// Where to go on; with the next event where absent.
    pub from: Option<TailFrom>,
    /// Only events that it matches.
    pub filter: Option<Filter>,
    /// The most events; counts as 1 at least, and [`MAX_TAIL_EVENTS`] at most.
    pub limit: usize,
    /// How long to wait for the first event; [`MAX_TAIL_WAIT`] at most.
    pub wait: Duration,
}

/// Whose events are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailOf {
    /// All events of a broker.
    Broker(ResourceName),
    /// Those that a trigger matches.
    Trigger(ResourceName),
}

/// Where to go on in each partition: positions with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailFrom(Vec<Position>);

/// Events, and where to go on.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tailed {
    /// In the order of each partition.
    pub events: Vec<TailedEvent>,
    /// To be given as `from` the next time.
    pub next: String,
    /// How many events the log had given up before they were read.
    pub skipped: u64,
}

/// An event.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TailedEvent {
    /// Its position, `partition:offset`.
    pub position: String,
    /// When it arrived, RFC 3339.
    pub arrived_at: String,
    /// The event in structured JSON.
    pub event: Box<RawValue>,
}

/// Why nothing can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// No such broker or trigger runs.
    #[error("no {what} {name} runs here: see `waypost status`")]
    Unknown {
        /// `broker` or `trigger`.
        what: &'static str,
        /// Its name.
        name: ResourceName,
    },
    /// The place to go on at is not one of this log.
    #[error("`from` names a place that the log does not have: leave it out to begin with the next event")]
    From,
    /// As many look as may.
    #[error("{MAX_TAILS} others are looking at events at this moment: ask again")]
    Busy,
    /// The log cannot be read.
    #[error("{0}; see `waypost status`")]
    Unreadable(ReadError),
}

impl TailError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => codes::ADMIN_RESOURCE_UNKNOWN,
            Self::From => codes::ADMIN_QUERY_INVALID,
            Self::Busy => codes::ADMIN_TAIL_BUSY,
            Self::Unreadable(error) => error.code(),
        }
    }
}

/// Lets a bounded number look.
#[derive(Debug)]
pub(crate) struct Tailing {
    context: Arc<Context>,
    at_once: Semaphore,
}

impl Tailing {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, at_once: Semaphore::new(MAX_TAILS) }
    }

    /// See [`crate::Engine::tail`].
    pub(crate) async fn tail(&self, supervisor: &Supervisor, query: TailQuery) -> Result<Tailed, TailError> {
        let _one_of_few = self.at_once.try_acquire().map_err(|_| TailError::Busy)?;
        let (broker, trigger) = find(supervisor, &query.of)?;
        let log = Arc::clone(broker.log());
        let next = match query.from {
            Some(TailFrom(positions)) if are_of(&*log, &positions) => positions,
            Some(_) => return Err(TailError::From),
            None => ends(&*log, trigger),
        };
        let limit = query.limit.clamp(1, MAX_TAIL_EVENTS);
        let mut look =
            Look { log, trigger, filter: query.filter, limit, next, events: Vec::new(), skipped: 0 };
        let end = Instant::now() + query.wait.min(MAX_TAIL_WAIT);
        let stop = self.context.dispatch.stop();
        loop {
            let examined = look.read().await.map_err(TailError::Unreadable)?;
            if !look.events.is_empty()
                || examined >= LOOKED_AT
                || Instant::now() >= end
                || stop.is_cancelled()
            {
                return Ok(look.told());
            }
            tokio::select! {
                () = look.more() => {}
                () = tokio::time::sleep_until(end) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// The broker, and the trigger's number where one is looked at.
fn find(supervisor: &Supervisor, of: &TailOf) -> Result<(Arc<Broker>, Option<TriggerNumber>), TailError> {
    let name = match of {
        TailOf::Broker(name) => {
            let unknown = || TailError::Unknown { what: "broker", name: name.clone() };
            return Ok((supervisor.broker(name).ok_or_else(unknown)?, None));
        }
        TailOf::Trigger(name) => name,
    };
    let applied = supervisor.applied();
    let broker = applied.plan.triggers.get(name).and_then(|trigger| supervisor.broker(&trigger.broker));
    let subscribed = broker.and_then(|broker| {
        let number = broker.subscription(name)?.number;
        Some((broker, Some(number)))
    });
    subscribed.ok_or_else(|| TailError::Unknown { what: "trigger", name: name.clone() })
}

fn are_of(log: &dyn Log, positions: &[Position]) -> bool {
    let partitions = (0..log.partitions()).eq(positions.iter().map(|position| position.partition));
    partitions && positions.iter().all(|position| position.offset <= log.bounds(position.partition).end)
}

/// Where the next event will be; for a trigger the next that is matched.
fn ends(log: &dyn Log, trigger: Option<TriggerNumber>) -> Vec<Position> {
    let end = |partition| match trigger {
        Some(_) => log.matched(partition),
        None => log.bounds(partition).end,
    };
    (0..log.partitions()).map(|partition| Position { partition, offset: end(partition) }).collect()
}

/// One question on its way.
struct Look {
    log: Arc<dyn Log>,
    trigger: Option<TriggerNumber>,
    filter: Option<Filter>,
    limit: usize,
    next: Vec<Position>,
    events: Vec<TailedEvent>,
    skipped: u64,
}

impl Look {
    /// Reads what there is in each partition, until there are enough events. Returns how many records were looked at.
    async fn read(&mut self) -> Result<usize, ReadError> {
        let mut examined = 0;
        for index in 0..self.next.len() {
            while self.events.len() < self.limit && examined < LOOKED_AT {
                let (entries, next) = self.chunk(self.next[index]).await?;
                if next == self.next[index].offset {
                    break;
                }
                examined += entries.len();
                self.take(index, &entries, next);
                tokio::task::consume_budget().await;
            }
        }
        Ok(examined)
    }

    /// The next entries of a partition and where to go on; at the same place where there is nothing yet.
    async fn chunk(&mut self, from: Position) -> Result<(Vec<Arc<Entry>>, u64), ReadError> {
        let Position { partition, offset } = from;
        let read = match self.trigger {
            Some(trigger) => {
                let owed = self.log.owed(partition, trigger, offset, CHUNK).await;
                owed.map(|owed| (owed.entries, owed.next))
            }
            None => self.log.read(partition, offset, CHUNK).await.map(|entries| {
                let next = entries.last().map_or(offset, |entry| entry.position.offset + 1);
                (entries, next)
            }),
        };
        match read {
            Err(ReadError::Trimmed { start }) => {
                self.skipped += start.saturating_sub(offset);
                Ok((Vec::new(), start.max(offset)))
            }
            // They come when they are restored.
            Err(ReadError::MatchesLost { .. }) => Ok((Vec::new(), offset)),
            read => read,
        }
    }

    fn take(&mut self, index: usize, entries: &[Arc<Entry>], next: u64) {
        for entry in entries {
            if self.filter.as_ref().is_some_and(|filter| !filter.matches_event(&entry.event)) {
                continue;
            }
            if self.events.len() == self.limit {
                self.next[index].offset = entry.position.offset;
                return;
            }
            self.events.push(TailedEvent {
                position: entry.position.to_string(),
                arrived_at: rfc3339(entry.arrived.0),
                event: structured(&entry.event),
            });
        }
        self.next[index].offset = next;
    }

    /// Waits until there may be more.
    async fn more(&self) {
        if self.trigger.is_some() {
            while self.next.iter().all(|next| self.log.matched(next.partition) <= next.offset) {
                tokio::time::sleep(MATCHED_PAUSE).await;
            }
            return;
        }
        let mut waits: Vec<_> =
            self.next.iter().map(|next| self.log.wait_for(next.partition, next.offset)).collect();
        std::future::poll_fn(|context| {
            let ready = waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready());
            if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        if self.next.iter().all(|next| self.log.bounds(next.partition).end <= next.offset) {
            // The log is closed: nothing more will come.
            std::future::pending::<()>().await;
        }
    }

    fn told(self) -> Tailed {
        Tailed { events: self.events, next: TailFrom(self.next).to_string(), skipped: self.skipped }
    }
}

impl fmt::Display for TailFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, position) in self.0.iter().enumerate() {
            write!(f, "{}{position}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for TailFrom {
    type Err = waypost_log::InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}
