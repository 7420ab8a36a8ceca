//! The shared reader of a partition: matches each record once for all triggers, in log order.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use waypost_core::filter::Filter;
use waypost_core::manifest::ResourceName;
use waypost_log::{Entry, Log, MatchBatch, Offset, PlanVersion, ReadError, ReadLimit, Scope, WriteError};

use crate::matching::Matcher;
use crate::subscription::Subscription;

/// How much a reader examines at once.
const CHUNK: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024 };

/// The most matches in one match list that is handed to the log. A record that matches more has a list of its own.
const MATCHES_AT_ONCE: usize = 65_536;

/// How long a reader waits before it reads again what it could not read.
const READ_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// A change to another set of triggers.
pub(super) struct Switch {
    /// Told where the reader stands: the first offset that the new set will decide.
    pub(super) at: oneshot::Sender<Offset>,
    /// The new set, once it is recorded. Dropped without an answer: the old one stays in force.
    pub(super) matcher: oneshot::Receiver<Arc<Matcher>>,
}

/// The shared reader of a partition.
pub(super) struct Reader {
    broker: ResourceName,
    partition: u16,
    log: Arc<dyn Log>,
    switches: mpsc::Receiver<Switch>,
    next: Offset,
    matcher: Option<Arc<Matcher>>,
}

impl Reader {
    pub(super) fn new(
        broker: ResourceName,
        partition: u16,
        log: Arc<dyn Log>,
        switches: mpsc::Receiver<Switch>,
    ) -> Self {
        let next = log.matched(partition);
        Self { broker, partition, log, switches, next, matcher: None }
    }

    /// Reads until `stop`. Nothing is examined before the first set of triggers is in force.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                switch = self.switches.recv() => match switch {
                    Some(switch) => self.switch(switch).await,
                    None => return,
                },
                () = self.log.wait_for(self.partition, self.next), if self.matcher.is_some() => {
                    if let Err(pause) = self.examine().await {
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                }
            }
        }
    }

    async fn switch(&mut self, switch: Switch) {
        if switch.at.send(self.next).is_err() {
            return;
        }
        if let Ok(matcher) = switch.matcher.await {
            self.matcher = Some(matcher);
        }
    }

    /// Examines the next chunk. An error is the time to wait before the next try.
    async fn examine(&mut self) -> Result<(), std::time::Duration> {
        let Some(matcher) = self.matcher.clone() else { return Ok(()) };
        let entries = match self.log.read(self.partition, self.next, CHUNK).await {
            Ok(entries) => entries,
            Err(ReadError::Trimmed { start }) => {
                // Nobody is owed what was never matched, so a log may give it up.
                self.next = start;
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(
                    broker = %self.broker, partition = self.partition, code = error.code().id(), %error,
                    "the log cannot be read; trying again in {READ_RETRY:?}"
                );
                return Err(READ_RETRY);
            }
        };
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let examined = self.match_some(&matcher, rest).map_err(|error| {
                tracing::error!(
                    broker = %self.broker, partition = self.partition, code = error.code().id(), %error,
                    "what triggers are owed cannot be written down; trying again in {READ_RETRY:?}"
                );
                READ_RETRY
            })?;
            rest = &rest[examined..];
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    /// Matches entries until the match list is long enough, records it, and offers each match. Returns how many
    /// entries were examined.
    fn match_some(&mut self, matcher: &Matcher, entries: &[Arc<Entry>]) -> Result<usize, WriteError> {
        let mut batch = MatchBatch {
            partition: self.partition,
            from: self.next,
            to: self.next,
            version: matcher.version,
            scope: Scope::All,
            matches: Vec::new(),
        };
        let mut found: Vec<(usize, SmallVec<[usize; 4]>)> = Vec::new();
        let mut count = 0;
        let mut examined = 0;
        for (index, entry) in entries.iter().enumerate() {
            let rows = matcher.matches(&entry.event);
            batch.to = entry.position.offset + 1;
            examined = index + 1;
            if rows.is_empty() {
                continue;
            }
            count += rows.len();
            let numbers = rows.iter().map(|row| matcher.number(*row)).collect();
            batch.matches.push((entry.position.offset, numbers));
            found.push((index, rows));
            if count >= MATCHES_AT_ONCE {
                break;
            }
        }
        self.log.record_matches(&batch)?;
        self.next = batch.to;
        for (index, rows) in found {
            for row in rows {
                matcher.subscription(row).offer(&entries[index]);
            }
        }
        Ok(examined)
    }
}

/// The part of the log before the place where a plan took effect, for one trigger that starts in the past.
pub(super) struct Past {
    pub(super) filter: Filter,
    pub(super) subscription: Arc<Subscription>,
    pub(super) version: PlanVersion,
    /// Partition, first offset, and the offset after the last.
    pub(super) ranges: Vec<(u16, Offset, Offset)>,
}

impl Past {
    /// Matches the past for the trigger alone, and lets it go when all of it is matched.
    ///
    /// Stops at `stop`; the trigger then starts over with the process.
    pub(super) async fn run(self, log: Arc<dyn Log>, stop: CancellationToken) {
        for (partition, from, to) in &self.ranges {
            let read = tokio::select! {
                read = self.read(&*log, *partition, *from, *to) => read,
                () = stop.cancelled() => return,
            };
            if let Err(reason) = read {
                tracing::error!(
                    trigger = %self.subscription.name, partition, reason,
                    "a part of the past cannot be matched; the trigger starts without it"
                );
            }
        }
        self.subscription.release();
    }

    async fn read(&self, log: &dyn Log, partition: u16, from: Offset, to: Offset) -> Result<(), String> {
        let mut next = from;
        while next < to {
            let entries = match log.read(partition, next, CHUNK).await {
                Ok(entries) if entries.is_empty() => return Ok(()),
                Ok(entries) => entries,
                Err(ReadError::Trimmed { start }) => {
                    next = start.max(next + 1);
                    continue;
                }
                Err(error) => return Err(error.to_string()),
            };
            let mut batch = MatchBatch {
                partition,
                from: next,
                to: next,
                version: self.version,
                scope: Scope::Trigger(self.subscription.number),
                matches: Vec::new(),
            };
            for entry in entries.iter().take_while(|entry| entry.position.offset < to) {
                batch.to = entry.position.offset + 1;
                if self.filter.matches(&entry.event) {
                    let number = self.subscription.number;
                    batch.matches.push((entry.position.offset, SmallVec::from_slice(&[number])));
                }
            }
            if batch.to == next {
                return Ok(());
            }
            next = batch.to;
            log.record_matches(&batch).map_err(|error| error.to_string())?;
            tokio::task::consume_budget().await;
        }
        Ok(())
    }
}
