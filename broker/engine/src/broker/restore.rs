//! Match lists that were lost, recorded again under the plans that were in force.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use waypost_core::filter::index::Scratch;
use waypost_core::filter::{Candidate, Filter};
use waypost_core::manifest::{ResourceName, read_filter};
use waypost_log::{Entry, Log, MatchBatch, Offset, PlanRecord, ReadError, ReadLimit, Scope, TriggerNumber};

use super::Broker;
use crate::context::Context;
use crate::deduplication::Judge;
use crate::logs::NotedPast;
use crate::matching::recorded::{self, RecordedPlan, UnreadableRecord};
use crate::matching::{Matcher, Row};

/// How much is read at once.
const CHUNK: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024 };

/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

impl Broker {
    /// Has match lists that are lost recorded again, where there are any and nobody does it yet.
    pub(crate) fn restore_lost(&self) {
        let lost = |partition| !self.log.lost_matches(partition).is_empty();
        if !(0..self.log.partitions()).any(lost) || self.restoring.swap(true, Ordering::Relaxed) {
            return;
        }
        let done = Done(Arc::clone(&self.restoring));
        let restoring = Restoring {
            name: self.name.clone(),
            log: Arc::clone(&self.log),
            context: Arc::clone(&self.context),
        };
        let stop = self.context.dispatch.stop().clone();
        self.context.dispatch.spawn("restorers of match lists", async move {
            let _done = done;
            tokio::select! {
                () = stop.cancelled() => {}
                () = restoring.run() => {}
            }
        });
    }
}

/// Lets the next one begin, however this one ends.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct Restoring {
    name: ResourceName,
    log: Arc<dyn Log>,
    context: Arc<Context>,
}

/// What decides about a stretch of the log.
struct Deciding {
    matcher: Matcher,
    /// The first offset that another plan decides.
    border: Offset,
}

/// A trigger that started in the past, with the filter that it started with.
type LaterStart = (NotedPast, Filter);

impl Restoring {
    async fn run(&self) {
        for partition in 0..self.log.partitions() {
            for range in self.log.lost_matches(partition) {
                let Range { start, end } = range.clone();
                tracing::warn!(
                    broker = %self.name, partition, from = start, to = end,
                    "match lists are lost or corrupt; the events are matched again under the plans of their time"
                );
                if let Err(reason) = self.restore(partition, range).await {
                    tracing::error!(
                        broker = %self.name, partition, from = start, to = end, reason,
                        "lost match lists cannot be recorded again; triggers wait there, and it is tried again"
                    );
                    tokio::time::sleep(RETRY).await;
                    return;
                }
            }
        }
    }

    async fn restore(&self, partition: u16, range: Range<Offset>) -> Result<(), String> {
        let plans = self.log.plans();
        let later = self.later_starts(&plans)?;
        let mut scratch = Scratch::default();
        let mut judge = Judge::new(Arc::clone(&self.log));
        let mut deciding: Option<Deciding> = None;
        let mut next = range.start;
        while next < range.end {
            let current = match deciding.take() {
                Some(current) if next < current.border => current,
                _ => Deciding::at(&plans, partition, next).await?,
            };
            let to = range.end.min(current.border);
            let entries = match self.log.read(partition, next, CHUNK).await {
                Ok(entries) => entries,
                // What was trimmed was owed to nobody.
                Err(ReadError::Trimmed { start }) => {
                    next = start.max(next + 1);
                    continue;
                }
                Err(error) => return Err(error.to_string()),
            };
            let entries = &entries[..entries.partition_point(|entry| entry.position.offset < to)];
            let examined = entries.last().map_or(to, |entry| entry.position.offset + 1);
            let rule = current.matcher.deduplication;
            let repeats = judge.repeats(rule, entries).await.map_err(|error| error.to_string())?;
            let batch = MatchBatch {
                partition,
                from: next,
                to: examined,
                version: current.matcher.version,
                scope: Scope::Restored,
                matches: entries
                    .iter()
                    .filter(|entry| repeats.binary_search(&entry.position.offset).is_err())
                    .filter_map(|entry| matches(&current.matcher, &later, entry, &mut scratch))
                    .collect(),
            };
            self.log.record_matches(&batch).map_err(|error| error.to_string())?;
            next = examined;
            deciding = Some(current);
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    fn later_starts(&self, plans: &[PlanRecord]) -> Result<Vec<LaterStart>, String> {
        let pasts =
            self.context.logs.noted_pasts(&*self.log, &self.name).map_err(|error| error.to_string())?;
        let mut later = Vec::new();
        for past in pasts {
            if let Some(filter) = past.own_filter() {
                let filter = read_filter(filter.clone()).map_err(|error| error.to_string())?;
                later.push((past, filter));
                continue;
            }
            let Some(record) = plans.iter().find(|record| record.version == past.version()) else { continue };
            let plan = recorded::read(record).map_err(|error| error.to_string())?;
            let filter = plan.filters.into_iter().find(|(number, _)| *number == past.trigger());
            later.extend(filter.map(|(_, filter)| (past, filter)));
        }
        Ok(later)
    }
}

impl Deciding {
    async fn at(plans: &[PlanRecord], partition: u16, offset: Offset) -> Result<Self, String> {
        let from = |plan: &PlanRecord| plan.effective[usize::from(partition)];
        // In the order of versions, and so of what they decide.
        let after = plans.partition_point(|plan| from(plan) <= offset);
        let Some(newest) = after.checked_sub(1).map(|index| &plans[index]) else {
            return Err(format!("no plan is recorded that decides about offset {offset}"));
        };
        let border = plans.get(after).map_or(Offset::MAX, from);
        let newest = newest.clone();
        let reading = move || {
            let RecordedPlan { version, filters, deduplication, .. } = recorded::read(&newest)?;
            let row = |(number, filter)| Row { filter, number, subscription: None };
            Ok(Matcher::next(None, version, deduplication, filters.into_iter().map(row).collect()))
        };
        let read = tokio::task::spawn_blocking(reading).await.map_err(|error| error.to_string())?;
        let matcher = read.map_err(|error: UnreadableRecord| error.to_string())?;
        Ok(Self { matcher, border })
    }
}

/// The triggers that an entry matches, where there are any.
fn matches(
    matcher: &Matcher,
    later: &[LaterStart],
    entry: &Entry,
    scratch: &mut Scratch,
) -> Option<(Offset, SmallVec<[TriggerNumber; 4]>)> {
    let candidate = Candidate::new(&entry.event);
    let taking = matcher.matches(&candidate, scratch);
    let mut triggers: SmallVec<[TriggerNumber; 4]> =
        taking.into_iter().map(|place| matcher.number(place)).collect();
    for (past, filter) in later {
        let within = past.all.iter().any(|range| {
            range.partition == entry.position.partition
                && (range.from..range.to).contains(&entry.position.offset)
        });
        if within && filter.matches(&candidate) == Ok(true) {
            triggers.push(past.trigger());
        }
    }
    (!triggers.is_empty()).then_some((entry.position.offset, triggers))
}
