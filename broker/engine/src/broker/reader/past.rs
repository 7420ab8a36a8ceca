//! The part of the log before the place where a plan took effect, for one trigger that starts in the past.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;
use waypost_core::codes;
use waypost_core::filter::Filter;
use waypost_core::manifest::ResourceName;
use waypost_log::{Log, MatchBatch, Offset, ReadError, Scope, WriteError};

use super::{CHUNK, READ_RETRY};
use crate::deduplication::LaterJudge;
use crate::logs::{Logs, NotedPast, PastRange};
use crate::subscription::Subscription;

/// How long to wait before looking again whether the shared reader has come so far.
const READER_PAUSE: Duration = Duration::from_millis(20);

/// After so many records how far it got is written down.
const NOTE_EVERY: u64 = 1_000_000;

/// The part of the log before the place where a plan took effect, for one trigger that starts in the past.
pub(crate) struct Past {
    pub(crate) broker: ResourceName,
    pub(crate) filter: Filter,
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) noted: NotedPast,
}

impl Past {
    /// Matches the past for the trigger alone, and lets it go when all of it is matched. What is left at `stop` is
    /// noted, and a later process goes on with it. What was a repeat when it came matches nobody now. Returns whether
    /// nothing is left.
    pub(crate) async fn run(mut self, log: Arc<dyn Log>, logs: Logs, stop: CancellationToken) -> bool {
        let mut judge = match LaterJudge::new(Arc::clone(&log)) {
            Ok(judge) => judge,
            Err(error) => {
                let code = codes::LOG_VERSION_UNKNOWN.id();
                tracing::error!(trigger = %self.subscription.name, code, %error, "the past of the trigger cannot be matched");
                return false;
            }
        };
        while let Some(range) = self.noted.left.first().copied() {
            let next = tokio::select! {
                next = self.read(&*log, range, &mut judge) => next,
                () = stop.cancelled() => return false,
            };
            // A log that is closed matches nothing more: what is left is noted.
            let Some(next) = next else { return false };
            if next < range.to {
                self.noted.left[0].from = next;
            } else {
                self.noted.left.remove(0);
            }
            if let Err(error) = self.note(&*log, &logs).await {
                // The storage failed, which ends the process; a later one goes on from what was noted before.
                tracing::error!(trigger = %self.subscription.name, code = error.code().id(), %error, "how far the past is matched cannot be noted");
                return false;
            }
        }
        self.subscription.release();
        true
    }

    async fn note(&self, log: &dyn Log, logs: &Logs) -> Result<(), WriteError> {
        logs.note_past(log, &self.broker, &self.subscription.name, &self.noted).await
    }

    /// Matches until the range ends or it is time to note how far it got. Returns the first offset that is left; none
    /// where the log is closed. What cannot be read or written down is tried again: nothing of it is passed over.
    async fn read(&self, log: &dyn Log, range: PastRange, judge: &mut LaterJudge) -> Option<Offset> {
        let PastRange { partition, from, to } = range;
        let (mut next, number) = (from, self.subscription.number);
        while next < to && next - from < NOTE_EVERY {
            // The shared reader may still have to examine what was there when the plan took effect.
            let examined = log.matched(partition).min(to);
            if next >= examined {
                tokio::time::sleep(READER_PAUSE).await;
                continue;
            }
            let read = async {
                let entries = log.read(partition, next, CHUNK).await?;
                let repeats = judge.repeats(&entries).await?;
                Ok((entries, repeats))
            };
            let (entries, repeats) = match read.await {
                Ok(read) => read,
                Err(ReadError::Trimmed { start }) => {
                    next = start.max(next + 1);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(
                        trigger = %self.subscription.name, partition, code = error.code().id(), %error,
                        "the past of the trigger cannot be read; trying again in {READ_RETRY:?}"
                    );
                    tokio::time::sleep(READ_RETRY).await;
                    continue;
                }
            };
            let mut batch = MatchBatch {
                partition,
                from: next,
                to: next,
                version: self.noted.version(),
                scope: Scope::Trigger(number),
                matches: Vec::new(),
            };
            for entry in entries.iter().take_while(|entry| entry.position.offset < examined) {
                batch.to = entry.position.offset + 1;
                let repeat = repeats.binary_search(&entry.position.offset).is_ok();
                if !repeat && self.filter.matches_event(&entry.event) {
                    batch.matches.push((entry.position.offset, SmallVec::from_slice(&[number])));
                }
            }
            if batch.to == next {
                // Nothing readable is left below what was examined.
                next = examined;
                continue;
            }
            match log.record_matches(&batch) {
                Ok(()) => next = batch.to,
                Err(WriteError::Closed) => return None,
                Err(error) => {
                    tracing::warn!(
                        trigger = %self.subscription.name, partition, code = error.code().id(), %error,
                        "what the trigger is owed cannot be written down; trying again in {READ_RETRY:?}"
                    );
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
            tokio::task::consume_budget().await;
        }
        Some(next.min(to))
    }
}
