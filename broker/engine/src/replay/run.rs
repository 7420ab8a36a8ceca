//! What a replay does: counts, matches its range for itself alone, and waits until all of it is settled.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use waypost_core::filter::Filter;
use waypost_core::manifest::{ReplayBound, ResourceName};
use waypost_log::{Clock, Entry, Log, Offset, Position, ReadError, ReadLimit, Timestamp, WriteError};

use super::record::{Outcomes, ReplayState, kept_name};
use super::{Ended, Replay, ReplayError, ReplayRecord};
use crate::broker::reader::Past;
use crate::deduplication::LaterJudge;
use crate::logs::{Logs, NotedPast, PastRange};
use crate::matching::recorded::UnreadableRecord;
use crate::plan::ReplayPlan;
use crate::subscription::Subscription;

/// How much is read at once where matches are counted.
const CHUNK: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024 };

/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is looked whether everything is settled.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The range of a replay, as it is found in a log.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) ranges: Vec<PastRange>,
    /// What is not as was asked for, in sentences.
    pub(crate) notices: Vec<String>,
}

/// What runs of a replay, while its broker does.
pub(crate) struct Running {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) log: Arc<dyn Log>,
    /// Tells what delivers from what would deliver otherwise.
    pub(crate) fingerprint: String,
    /// Ends what reads the log.
    pub(crate) stop: CancellationToken,
    /// Cancelled once that has ended.
    pub(crate) ended: CancellationToken,
}

/// Finds the range of a replay in a log as it is now.
pub(crate) async fn resolve(
    log: &dyn Log,
    planned: &ReplayPlan,
    now: Timestamp,
) -> Result<Resolved, ReplayError> {
    let named = |bound: ReplayBound| match bound {
        ReplayBound::Position { partition, .. } => Some(partition),
        ReplayBound::Open | ReplayBound::Time(_) => None,
    };
    let only = named(planned.from).or(named(planned.to));
    if let Some(partition) = only.filter(|partition| *partition >= log.partitions()) {
        return Err(ReplayError::Range(format!(
            "the log of {} has no partition {partition}: its partitions count from 0, and it has {}",
            planned.broker,
            log.partitions()
        )));
    }
    let mut resolved = Resolved::default();
    for partition in (0..log.partitions()).filter(|partition| only.is_none_or(|only| only == *partition)) {
        resolve_in(log, planned, partition, &mut resolved).await?;
    }
    if let ReplayBound::Time(to) = planned.to
        && to > now.0
    {
        resolved.notices.push("`to` is later than now: the range ends with the newest event".to_owned());
    }
    if resolved.ranges.is_empty() {
        resolved.notices.push("the log holds no event of the range".to_owned());
    }
    Ok(resolved)
}

async fn resolve_in(
    log: &dyn Log,
    planned: &ReplayPlan,
    partition: u16,
    resolved: &mut Resolved,
) -> Result<(), ReplayError> {
    let unreadable = |error: ReadError| ReplayError::Unreadable(error.to_string());
    let bounds = log.bounds(partition);
    let from = match planned.from {
        ReplayBound::Open => bounds.start,
        ReplayBound::Time(time) => log.first_since(partition, Timestamp(time)).await.map_err(unreadable)?,
        ReplayBound::Position { offset, .. } => offset,
    };
    let to = match planned.to {
        ReplayBound::Open => bounds.end,
        ReplayBound::Time(time) => log.first_since(partition, Timestamp(time)).await.map_err(unreadable)?,
        ReplayBound::Position { offset, .. } => offset,
    };
    let begins_later = match planned.from {
        ReplayBound::Open => false,
        // What was before the first event that is left may have been part of it.
        ReplayBound::Time(_) => bounds.start > 0 && from <= bounds.start,
        ReplayBound::Position { offset, .. } => offset < bounds.start,
    };
    if begins_later {
        resolved.notices.push(begins(log, Position { partition, offset: bounds.start }).await);
    }
    if to > bounds.end {
        let end = Position { partition, offset: bounds.end };
        resolved.notices.push(format!("the log ends before {end}: there are no events up to {}", planned.to));
    }
    let (from, to) = (from.max(bounds.start), to.min(bounds.end));
    if from < to {
        resolved.ranges.push(PastRange { partition, from, to });
    }
    Ok(())
}

/// Where a log begins, in a sentence.
async fn begins(log: &dyn Log, start: Position) -> String {
    let arrived = log.fetch(start).await.ok().and_then(|entry| {
        let arrived = jiff::Timestamp::from_nanosecond(i128::from(entry.arrived.0)).ok()?;
        Some(format!(", with an event that arrived at {arrived}"))
    });
    let arrived = arrived.unwrap_or_default();
    format!("the log begins at {start}{arrived}: retention has given up what was before")
}

/// Counts what of some ranges matches, without what was a repeat when it came.
///
/// # Errors
/// The log cannot be read; what retention gave up meanwhile is no error, and not counted. Cancel-safe.
pub(crate) async fn count(
    log: &Arc<dyn Log>,
    ranges: &[PastRange],
    filter: &Filter,
) -> Result<u64, ReadError> {
    let mut expected = 0;
    let unreadable = |error: UnreadableRecord| ReadError::Failed { reason: error.to_string() };
    let mut judge = LaterJudge::new(Arc::clone(log)).map_err(unreadable)?;
    for range in ranges {
        let mut next: Offset = range.from;
        while next < range.to {
            let entries = match log.read(range.partition, next, CHUNK).await {
                Ok(entries) => entries,
                Err(ReadError::Trimmed { start }) => {
                    next = start.max(next + 1);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(last) = entries.last() else { break };
            next = last.position.offset + 1;
            let within = &entries[..entries.partition_point(|entry| entry.position.offset < range.to)];
            let repeats = judge.repeats(within).await?;
            let matches = |entry: &&Arc<Entry>| {
                repeats.binary_search(&entry.position.offset).is_err() && filter.matches_event(&entry.event)
            };
            expected += within.iter().filter(matches).count() as u64;
            tokio::task::consume_budget().await;
        }
    }
    Ok(expected)
}

/// One replay from where it is to its end.
pub(crate) struct Run {
    pub(crate) replay: Arc<Replay>,
    pub(crate) broker: ResourceName,
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) logs: Logs,
    pub(crate) clock: Clock,
    pub(crate) filter: Filter,
    pub(crate) stop: CancellationToken,
    /// So many replays count at one time.
    pub(crate) counting: Arc<Semaphore>,
}

impl Run {
    /// Goes on until everything is settled, or it is told to stop. A later process goes on where it was.
    pub(crate) async fn run(self, _ended: Ended) {
        let (stop, replay) = (self.stop.clone(), Arc::clone(&self.replay));
        if replay.state() == ReplayState::Counting {
            let counted = tokio::select! {
                expected = self.expected() => expected,
                () = stop.cancelled() => return,
            };
            let begun = |record: &mut ReplayRecord| {
                record.expected = Some(counted);
                record.state = ReplayState::Running;
            };
            if !self.change(begun).await {
                return;
            }
            tracing::info!(replay = %replay.name, broker = %self.broker, expected = counted, "a replay begins");
        }
        let Some(noted) = self.past().await else { return };
        let past = Past {
            broker: self.broker.clone(),
            filter: self.filter.clone(),
            subscription: Arc::clone(&self.subscription),
            noted,
        };
        let (log, logs) = (Arc::clone(&self.log), self.logs.clone());
        if !past.run(log, logs, stop.clone()).await {
            return;
        }
        self.replay.release_log();
        if !self.tell_of_missing().await {
            return;
        }
        tokio::select! {
            () = self.settled() => {}
            () = stop.cancelled() => return,
        }
        self.complete().await;
    }

    /// How many events match. What cannot be read is tried again.
    async fn expected(&self) -> u64 {
        loop {
            let ranges = self.replay.record().ranges;
            let counted = {
                let _one_of_few = self.counting.acquire().await;
                count(&self.log, &ranges, &self.filter).await
            };
            match counted {
                Ok(expected) => return expected,
                Err(error) => {
                    tracing::warn!(
                        replay = %self.replay.name, code = error.code().id(), %error,
                        "the range of the replay cannot be counted; trying again in {RETRY:?}"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// What is left to be matched. None where that cannot be told.
    async fn past(&self) -> Option<NotedPast> {
        let (log, logs) = (Arc::clone(&self.log), self.logs.clone());
        let (broker, name) = (self.broker.clone(), self.subscription.name.clone());
        let reading = move || logs.noted_past(&*log, &broker, &name);
        let found = match tokio::task::spawn_blocking(reading).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::error!(replay = %self.replay.name, code = error.code.id(), %error, "the replay cannot go on");
                return None;
            }
            // The runtime ends.
            Err(_) => return None,
        };
        // Its filter is its own, so that any plan will do that is recorded.
        let version = self.log.plans().last()?.version;
        let number = self.subscription.number;
        if let Some(mut noted) = found.filter(|noted| noted.trigger() == number) {
            noted.set_version(version);
            return Some(noted);
        }
        let ReplayRecord { ranges, filter, .. } = self.replay.record();
        let noted = NotedPast::of_replay(number, version, ranges, filter);
        match self.logs.note_past(&*self.log, &self.broker, &self.subscription.name, &noted).await {
            Ok(()) => Some(noted),
            Err(error) => {
                self.not_written(&error);
                None
            }
        }
    }

    /// Says so where less matched than was counted: the log gave up some of it in between.
    async fn tell_of_missing(&self) -> bool {
        let matched = self.subscription.standing().counts.matched;
        let expected = self.replay.record().expected.unwrap_or(matched);
        let told = |record: &mut ReplayRecord| {
            let missing = expected.saturating_sub(matched);
            if missing > 0 && !record.notices.iter().any(|notice| notice.ends_with(MISSING)) {
                tracing::warn!(replay = %self.replay.name, missing, "events of a replay {MISSING}");
                record.notices.push(format!("{missing} of the events that were counted {MISSING}"));
            }
        };
        if expected <= matched { true } else { self.change(told).await }
    }

    async fn settled(&self) {
        while self.subscription.standing().counts.pending > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn complete(&self) {
        let outcomes = Outcomes::of(&self.subscription.standing().counts);
        let Outcomes { delivered, dead_lettered, dropped, .. } = outcomes;
        let now = self.clock.now().0;
        let completed = |record: &mut ReplayRecord| {
            record.state = ReplayState::Completed;
            record.outcomes = outcomes.clone();
            record.ended_at = Some(now);
        };
        if self.change(completed).await {
            let replay = &self.replay.name;
            tracing::info!(%replay, broker = %self.broker, delivered, dead_lettered, dropped, "a replay is complete");
        }
    }

    /// Changes what is durable of it, again and again until that is written. False where it is told to stop first, or
    /// the storage failed.
    async fn change(&self, change: impl Fn(&mut ReplayRecord)) -> bool {
        while let Err(error) = self.replay.change(&self.logs, &change).await {
            self.not_written(&error);
            if matches!(error, WriteError::Closed) || self.logs.have_failed() {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = self.stop.cancelled() => return false,
            }
        }
        true
    }

    fn not_written(&self, error: &WriteError) {
        tracing::error!(
            replay = %self.replay.name, code = error.code().id(), %error,
            "how far a replay has come cannot be written down"
        );
    }
}

/// How the sentence ends that tells of events that are not sent.
const MISSING: &str = "are not sent: retention gave them up before they were matched, or they cannot be read";

impl Replay {
    /// Changes what is durable of it: nothing is changed on an error. Changes are worked off one after the other.
    pub(crate) async fn change(
        &self,
        logs: &Logs,
        change: impl Fn(&mut ReplayRecord),
    ) -> Result<(), WriteError> {
        let _one_at_a_time = self.changing.lock().await;
        let mut record = self.record();
        change(&mut record);
        let value = serde_json::to_vec(&record).expect("strings, numbers and JSON can be written");
        logs.keep(vec![(kept_name(&self.name), Some(value))]).await?;
        *self.record.lock() = record;
        Ok(())
    }
}
