//! The shared reader of a partition: matches each record once for all triggers, in log order.
//!
//! It holds one set of triggers for each stretch of the log that it has not examined: what was acknowledged before a
//! change is matched by the set that was in force then, however far behind the reader is.

mod past;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use waypost_core::filter::Candidate;
use waypost_core::filter::index::Scratch;
use waypost_core::manifest::ResourceName;
use waypost_log::{Entry, Log, MatchBatch, Offset, PlanVersion, ReadError, ReadLimit, Scope, WriteError};

pub(crate) use self::past::Past;
use crate::deduplication::Judge;
use crate::matching::Matcher;

/// How much a reader examines at once.
const CHUNK: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024 };

/// The most matches in one match list that is handed to the log. A record that matches more has a list of its own.
const MATCHES_AT_ONCE: usize = 65_536;

/// How long a reader waits before it reads again what it could not read.
const READ_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// A set of triggers, and the first offset that it decides.
pub(super) type From = (Offset, Arc<Matcher>);

/// What a reader is told.
pub(super) enum Order {
    /// The sets that an earlier process recorded, oldest first. Comes first, and once.
    GoOn(Vec<From>),
    /// A change to another set of triggers.
    Switch {
        /// Told the first offset that the new set will decide: the end of the log, for what is acknowledged by now is
        /// decided by the old one. The very first set decides all there is.
        at: oneshot::Sender<Offset>,
        /// The new set, once it is recorded. Dropped without an answer: the old one stays in force.
        matcher: oneshot::Receiver<Arc<Matcher>>,
    },
}

/// The shared reader of a partition.
pub(super) struct Reader {
    broker: ResourceName,
    partition: u16,
    log: Arc<dyn Log>,
    orders: mpsc::Receiver<Order>,
    next: Offset,
    /// In the order of what they decide; the first one decides what is next.
    matchers: VecDeque<From>,
    scratch: Scratch,
    /// Judges which records are repeats, where the set that decides wants to know.
    judge: Judge,
    /// Counts those that are.
    repeated: Arc<AtomicU64>,
}

impl Reader {
    pub(super) fn new(
        broker: ResourceName,
        partition: u16,
        log: Arc<dyn Log>,
        orders: mpsc::Receiver<Order>,
        repeated: Arc<AtomicU64>,
    ) -> Self {
        let next = log.matched(partition);
        let judge = Judge::new(Arc::clone(&log));
        Self {
            broker,
            partition,
            log,
            orders,
            next,
            matchers: VecDeque::new(),
            scratch: Scratch::default(),
            judge,
            repeated,
        }
    }

    /// Reads until `stop`. Nothing is examined before the first set of triggers is in force.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                order = self.orders.recv() => match order {
                    Some(Order::GoOn(matchers)) => self.matchers = matchers.into(),
                    Some(Order::Switch { at, matcher }) => self.switch(at, matcher).await,
                    None => return,
                },
                () = self.log.wait_for(self.partition, self.next), if !self.matchers.is_empty() => {
                    if self.log.bounds(self.partition).end <= self.next {
                        // The log is closed: nothing more will come.
                        return;
                    }
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

    async fn switch(&mut self, at: oneshot::Sender<Offset>, matcher: oneshot::Receiver<Arc<Matcher>>) {
        let from = match self.matchers.back() {
            Some(_) => self.log.bounds(self.partition).end.max(self.next),
            None => self.next,
        };
        if at.send(from).is_err() {
            return;
        }
        if let Ok(matcher) = matcher.await {
            // One that decides nothing is in nobody's way, and need not be kept.
            self.matchers.retain(|(earlier, _)| *earlier < from);
            self.matchers.push_back((from, matcher));
        }
    }

    /// The set that decides what is next, and the first offset that another one decides.
    fn matcher(&mut self) -> Option<(Arc<Matcher>, Offset)> {
        while self.matchers.get(1).is_some_and(|(from, _)| *from <= self.next) {
            self.matchers.pop_front();
            if let Some((_, matcher)) = self.matchers.front() {
                matcher.forget_spending();
            }
        }
        let border = self.matchers.get(1).map_or(Offset::MAX, |(from, _)| *from);
        self.matchers.front().map(|(_, matcher)| (Arc::clone(matcher), border))
    }

    /// Examines the next chunk. An error is the time to wait before the next try.
    async fn examine(&mut self) -> Result<(), std::time::Duration> {
        let Some((matcher, border)) = self.matcher() else { return Ok(()) };
        let entries = match self.log.read(self.partition, self.next, CHUNK).await {
            Ok(entries) => entries,
            Err(ReadError::Trimmed { start }) => {
                // Nobody is owed what was never matched, so a log may give it up.
                self.next = start;
                return Ok(());
            }
            Err(error) => return Err(self.not_read(&error)),
        };
        let decided = entries.partition_point(|entry| entry.position.offset < border);
        let mut rest = &entries[..decided];
        let repeats =
            self.judge.repeats(matcher.deduplication, rest).await.map_err(|error| self.not_read(&error))?;
        while !rest.is_empty() {
            let examined =
                self.match_some(&matcher, rest, &repeats).map_err(|error| self.not_recorded(&error))?;
            rest = &rest[examined..];
            tokio::task::consume_budget().await;
        }
        if decided < entries.len() && self.next < border {
            // What lies between is lost, and accepted as that: nobody can match it.
            self.pass_over(matcher.version, border).map_err(|error| self.not_recorded(&error))?;
        }
        Ok(())
    }

    fn not_read(&self, error: &ReadError) -> std::time::Duration {
        tracing::warn!(
            broker = %self.broker, partition = self.partition, code = error.code().id(), %error,
            "the log cannot be read; trying again in {READ_RETRY:?}"
        );
        READ_RETRY
    }

    fn not_recorded(&self, error: &WriteError) -> std::time::Duration {
        tracing::error!(
            broker = %self.broker, partition = self.partition, code = error.code().id(), %error,
            "what triggers are owed cannot be written down; trying again in {READ_RETRY:?}"
        );
        READ_RETRY
    }

    /// Goes on at `to`, with nothing that matches before.
    fn pass_over(&mut self, version: PlanVersion, to: Offset) -> Result<(), WriteError> {
        let (partition, from) = (self.partition, self.next);
        self.log.record_matches(&MatchBatch {
            partition,
            from,
            to,
            version,
            scope: Scope::All,
            matches: Vec::new(),
        })?;
        self.next = to;
        Ok(())
    }

    /// Matches entries until the match list is long enough, records it, and offers each match. Returns how many
    /// entries were examined. `repeats` are those that match nobody, in order.
    fn match_some(
        &mut self,
        matcher: &Matcher,
        entries: &[Arc<Entry>],
        repeats: &[Offset],
    ) -> Result<usize, WriteError> {
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
        let mut repeated = 0;
        for (index, entry) in entries.iter().enumerate() {
            if repeats.binary_search(&entry.position.offset).is_ok() {
                batch.to = entry.position.offset + 1;
                examined = index + 1;
                repeated += 1;
                continue;
            }
            let rows = matcher.matches(&Candidate::new(&entry.event), &mut self.scratch);
            matcher.count_spending(&self.scratch);
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
        self.repeated.fetch_add(repeated, Ordering::Relaxed);
        for (index, rows) in found {
            for row in rows {
                if let Some(subscription) = matcher.subscription(row) {
                    subscription.offer(&entries[index]);
                }
            }
        }
        Ok(examined)
    }
}
