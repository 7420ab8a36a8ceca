//! The log of one broker: what the contract asks, put together of segments, lists, ledgers and journal.
//!
//! Locks are taken in one order: writer, rounds of the store, lists, segments, one ledger, letters, journal. What waits
//! for the disk under one: the writer, whoever flushes, a recount, the lists of a trigger that starts in the past, and,
//! for a bounded piece of the journal, a dead letter.

mod append;
mod damage;
mod dead_letters;
mod flush;
mod read;
mod recover;
mod restore;
mod trim;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tokio::sync::Notify;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::commit::Commit;
use crate::dead_letter::DeadLetters;
use crate::embedded::books::Books;
use crate::embedded::checkpoint::{Kind, Row};
use crate::embedded::ids;
use crate::embedded::lists::{Chunk, Lists, Piece, offsets_of};
use crate::embedded::registry::Registry;
use crate::embedded::ring::Tail;
use crate::embedded::rows::{self, Accepted};
use crate::embedded::segment::Segment;
use crate::embedded::store::Shared;
use crate::error::{AppendError, ReadError, WriteError};
use crate::ledger::{Ledger, Outcome, OutcomeState, Place, Recount};
use crate::log::{
    Bounds, Durability, Epoch, Ledgers, MatchBatch, Matches, Owed, PlanRecord, ReadLimit, Records, Scope,
    TriggerNumber, Usage,
};
use crate::record::{Batch, Checkpoint, Entry, Offset, Position};

use append::Queue;
pub(super) use append::Scratch;

/// The only partition: one broker's events stand in one order on one disk.
pub(super) const PARTITION: u16 = 0;

/// What is kept although nobody is owed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long.
    pub age: Duration,
    /// How many bytes of segments; the oldest go first.
    pub size: u64,
}

/// A broker's log on this machine's disk.
pub(super) struct BrokerLog {
    me: Weak<Self>,
    name: ResourceName,
    directory: PathBuf,
    shared: Arc<Shared>,
    retention: Mutex<Retention>,
    epoch: u64,
    queue: Mutex<Queue>,
    /// Held by whoever writes to the last segment.
    writing: Mutex<()>,
    /// Oldest first; only the last may be open.
    segments: RwLock<Vec<Live>>,
    tail: Arc<Tail>,
    start: AtomicU64,
    end: AtomicU64,
    /// Whether something was read that the ring did not hold, since segments were last sealed.
    read_behind: AtomicBool,
    /// Below this offset no match is taken any more: its segment is being given up.
    given_up: AtomicU64,
    /// What an operator accepted as lost.
    accepted: RwLock<Accepted>,
    damage: Mutex<Vec<String>>,
    grown: Notify,
    lists: Mutex<Lists>,
    books: Arc<Books>,
    registry: Registry,
    plans: Mutex<Vec<PlanRecord>>,
    sources: Mutex<Sources>,
    /// The records that are kept outside the log.
    parked: Mutex<BTreeMap<Offset, Parked>>,
    /// Until when it is not looked for parked records that nobody needs.
    parked_rest_until: Mutex<Option<Instant>>,
    /// All changes below this place are in the checkpoint that is or will be committed next.
    covered: AtomicU64,
    /// The records below this offset came with no checkpoint of a source that the checkpoint lacks.
    captured_synced: AtomicU64,
    /// The first offset whose match list need not be in the lists on the disk yet.
    flushed_matched: AtomicU64,
    /// Whether the checkpoint lacks something.
    behind: AtomicBool,
    /// Whether the process before this one ended without closing the log.
    ended_uncleanly: bool,
    /// Whether the log is closed and nothing changes any more.
    all_written: AtomicBool,
    /// Whether batches are refused for want of room, which is told once.
    refusing: AtomicBool,
}

/// A segment, and the bytes of the limit that it takes.
#[derive(Debug)]
struct Live {
    segment: Arc<Segment>,
    bytes: AtomicU64,
}

/// A record that is kept outside the log.
#[derive(Debug, Clone, Copy)]
struct Parked {
    /// What it takes in the checkpoint.
    bytes: u64,
    /// Of its source and id.
    hash: u64,
}

impl Parked {
    fn of(entry: &Entry, stored: &[u8]) -> Self {
        let hash = ids::hash(entry.event.source(), entry.event.id());
        Self { bytes: stored.len() as u64, hash }
    }
}

#[derive(Debug, Default)]
struct Sources {
    all: HashMap<ResourceName, Bytes>,
    /// Changed since the last checkpoint.
    fresh: HashSet<ResourceName>,
}

impl Sources {
    fn put(&mut self, checkpoint: Checkpoint) {
        self.fresh.insert(checkpoint.source.clone());
        self.all.insert(checkpoint.source, checkpoint.value);
    }
}

impl BrokerLog {
    fn position(&self, offset: Offset) -> Position {
        Position { partition: PARTITION, offset }
    }

    fn end(&self) -> Offset {
        self.end.load(Ordering::Acquire)
    }

    fn start(&self) -> Offset {
        self.start.load(Ordering::Acquire)
    }

    /// The end of the segment that an offset lies in, or the end of the log.
    fn segment_end(&self, offset: Offset) -> Offset {
        let segments = self.segments.read();
        let index = segments.partition_point(|live| live.segment.base() <= offset);
        segments.get(index).map_or(Offset::MAX, |live| live.segment.base())
    }

    /// The base of the segment that an offset lies in.
    fn segment_base(&self, offset: Offset) -> Option<Offset> {
        let segments = self.segments.read();
        let index = segments.partition_point(|live| live.segment.base() <= offset);
        index.checked_sub(1).map(|index| segments[index].segment.base())
    }

    /// Whether a match list may be recorded now.
    fn check_range(&self, lists: &Lists, batch: &MatchBatch) -> Result<(), WriteError> {
        let limit = match batch.scope {
            Scope::All => self.end(),
            Scope::Trigger(_) | Scope::Restored => lists.matched(),
        };
        let gap = batch.scope == Scope::All && batch.from > lists.matched();
        let ordered = batch.matches.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let inside = |(offset, _): &(Offset, _)| (batch.from..batch.to).contains(offset);
        if !gap && batch.from <= batch.to && batch.to <= limit && ordered && batch.matches.iter().all(inside)
        {
            return Ok(());
        }
        let reason = format!(
            "the match list of {}..{} does not follow what was examined: up to {} of {}",
            batch.from,
            batch.to,
            lists.matched(),
            self.end()
        );
        Err(WriteError::Failed { reason })
    }

    /// The offsets in a range that list a trigger, in order. What cannot be read is an error.
    fn listed(
        &self,
        lists: &Lists,
        trigger: TriggerNumber,
        range: Range<Offset>,
    ) -> Result<Vec<Offset>, String> {
        let mut all = Vec::new();
        let mut from = range.start;
        while from < range.end {
            if let Some((_, lost)) = lists.lost_around(from)
                && lost.range.start < range.end
                && lost.range.end > from
            {
                return Err(lost.reason.clone());
            }
            let pieces = lists.pieces(from, self.segment_end(from).min(range.end));
            if pieces.to <= from {
                break;
            }
            let to = pieces.to.min(range.end);
            let chunks: Result<Vec<_>, String> = pieces.pieces.into_iter().map(Piece::read).collect();
            all.extend(offsets_of(&chunks?, trigger, from..to, usize::MAX).0);
            from = to;
        }
        Ok(all)
    }

    /// Records the part of a batch that lies in one segment.
    fn record_part(
        &self,
        lists: &mut Lists,
        batch: &MatchBatch,
        range: Range<Offset>,
        matches: &[(Offset, SmallVec<[TriggerNumber; 4]>)],
    ) -> Result<(), WriteError> {
        let Some(base) = self.segment_base(range.start) else { return Ok(()) };
        let known = match batch.scope {
            Scope::All | Scope::Restored => Vec::new(),
            Scope::Trigger(trigger) => {
                self.listed(lists, trigger, range.clone()).map_err(|reason| WriteError::Failed { reason })?
            }
        };
        let place = self.books.journal.take_place();
        let mut chunk = Chunk::new(place, batch.version, batch.scope, range.start, range.end);
        for (offset, triggers) in matches {
            let wanted = |trigger: &TriggerNumber| match batch.scope {
                Scope::All | Scope::Restored => true,
                Scope::Trigger(only) => only == *trigger && known.binary_search(offset).is_err(),
            };
            let mut triggers: SmallVec<[TriggerNumber; 4]> =
                triggers.iter().copied().filter(wanted).collect();
            triggers.sort_unstable();
            triggers.dedup();
            triggers.retain(|trigger| {
                self.registry.assigned(*trigger).is_some_and(|ledger| ledger.matched(*offset))
            });
            chunk.push(*offset, triggers);
        }
        lists.add(base, chunk);
        Ok(())
    }
}

#[async_trait]
impl Records for BrokerLog {
    fn durability(&self) -> Durability {
        Durability::Synced
    }

    fn partitions(&self) -> u16 {
        1
    }

    fn offer(&self, batch: &mut Batch) -> Result<Commit, AppendError> {
        self.enqueue(batch)
    }

    fn bounds(&self, _partition: u16) -> Bounds {
        Bounds { start: self.start(), end: self.end() }
    }

    fn bytes_from(&self, _partition: u16, offset: Offset) -> u64 {
        let segments = self.segments.read();
        let wanted =
            segments.iter().rev().map(|live| &live.segment).take_while(|segment| segment.end() > offset);
        wanted
            .map(|segment| {
                // As if all of its records were of one size.
                let (base, end) = (segment.base(), segment.end());
                let part = u128::from(segment.length()) * u128::from(end - offset.max(base).min(end));
                u64::try_from(part / u128::from((end - base).max(1))).unwrap_or(u64::MAX)
            })
            .sum()
    }

    async fn wait_for(&self, _partition: u16, offset: Offset) {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            // Enlisted before looking, so that what is shown after the look wakes us.
            grown.as_mut().enable();
            if self.end() > offset || self.books.closed() {
                return;
            }
            grown.await;
        }
    }

    async fn read(
        &self,
        _partition: u16,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        self.read_from(from, limit).await
    }

    async fn fetch(&self, position: Position) -> Result<Arc<Entry>, ReadError> {
        if position.partition != PARTITION {
            return Err(ReadError::Beyond { position });
        }
        self.fetch_one(position.offset).await
    }

    async fn find(&self, source: &str, id: &str, limit: usize) -> Result<Vec<Position>, ReadError> {
        self.find_all(source, id, limit).await
    }

    async fn first_since(&self, _partition: u16, arrived: Timestamp) -> Result<Offset, ReadError> {
        self.first_arrived(arrived).await
    }

    fn checkpoint(&self, source: &ResourceName) -> Option<Bytes> {
        self.sources.lock().all.get(source).cloned()
    }

    fn usage(&self) -> Usage {
        let ledgers = self.registry.ledgers();
        let holding = |held: fn(&Ledger) -> Option<Offset>| {
            let held = ledgers.iter().filter_map(|ledger| Some((held(ledger)?, ledger.trigger())));
            held.min().map(|(_, trigger)| trigger)
        };
        Usage {
            used: self.shared.used.load(Ordering::Relaxed),
            limit: self.shared.limit,
            // The bodies of what waits are kept elsewhere, and take room there.
            held_by: holding(Ledger::floor).or_else(|| holding(Ledger::oldest)),
        }
    }

    async fn trim(&self) {
        if let Some(log) = self.me.upgrade().filter(|log| log.may_trim()) {
            // A trim that is not waited for goes on; one that panics has said so.
            let _ = tokio::task::spawn_blocking(move || log.trim_now()).await;
        }
    }

    async fn close(&self) {
        self.stop().await;
    }
}

#[async_trait]
impl Matches for BrokerLog {
    fn plans(&self) -> Vec<PlanRecord> {
        self.plans.lock().clone()
    }

    async fn record_plan(&self, plan: PlanRecord) -> Result<(), WriteError> {
        self.books.check_open()?;
        let failed = |reason: String| Err(WriteError::Failed { reason });
        if plan.effective.len() != 1 {
            return failed(format!("plan {} does not name one offset per partition", plan.version.0));
        }
        {
            let plans = self.plans.lock();
            match plans.last() {
                Some(last) if *last == plan => return Ok(()),
                Some(last) if last.version >= plan.version => {
                    return failed(format!("plan {} comes after plan {}", plan.version.0, last.version.0));
                }
                _ => {}
            }
        }
        let Some(log) = self.me.upgrade() else { return Err(WriteError::Closed) };
        let written = tokio::task::spawn_blocking(move || log.write_plan(plan)).await;
        written.unwrap_or_else(|_| failed("writing the plan failed unexpectedly".to_owned()))
    }

    fn matched(&self, _partition: u16) -> Offset {
        self.lists.lock().matched()
    }

    fn lost_matches(&self, _partition: u16) -> Vec<Range<Offset>> {
        self.lists.lock().lost()
    }

    fn record_matches(&self, batch: &MatchBatch) -> Result<(), WriteError> {
        self.books.check_open()?;
        if !self.plans.lock().iter().any(|plan| plan.version == batch.version) {
            let reason = format!("plan {} was not recorded before its matches", batch.version.0);
            return Err(WriteError::Failed { reason });
        }
        let mut lists = self.lists.lock();
        self.check_range(&lists, batch)?;
        if lists.full() {
            let reason = "too many matches wait for the disk; try again a little later".to_owned();
            return Err(WriteError::Failed { reason });
        }
        if batch.scope == Scope::Restored {
            return self.restore_matches(lists, batch);
        }
        let mut from = batch.from.max(self.given_up.load(Ordering::Acquire));
        if batch.scope == Scope::All {
            from = from.max(lists.matched());
        }
        let first = batch.matches.partition_point(|(offset, _)| *offset < from);
        let mut rest = &batch.matches[first..];
        while from < batch.to {
            let to = self.segment_end(from).min(batch.to);
            let (part, others) = rest.split_at(rest.partition_point(|(offset, _)| *offset < to));
            self.record_part(&mut lists, batch, from..to, part)?;
            rest = others;
            from = to;
        }
        if batch.scope == Scope::All {
            lists.examined(batch.to);
        }
        drop(lists);
        self.books.mark();
        Ok(())
    }

    async fn owed(
        &self,
        _partition: u16,
        trigger: TriggerNumber,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Owed, ReadError> {
        self.owed_from(trigger, from, limit).await
    }
}

#[async_trait]
impl Ledgers for BrokerLog {
    fn trigger(&self, name: &ResourceName) -> TriggerNumber {
        self.registry.number(name)
    }

    fn triggers(&self) -> Vec<(TriggerNumber, ResourceName)> {
        self.registry.triggers()
    }

    fn ledger(&self, _partition: u16, trigger: TriggerNumber) -> Arc<Ledger> {
        self.registry.ledger(trigger)
    }

    fn recount(&self, _partition: u16, trigger: TriggerNumber) -> Recount {
        // Under the lock, so that no match is added meanwhile.
        let lists = self.lists.lock();
        let ledger = self.registry.ledger(trigger);
        let untaken = ledger.untaken();
        let recount = ledger.recount(|next| {
            let range = next.max(self.start())..lists.matched();
            match self.listed(&lists, trigger, range) {
                Ok(offsets) => offsets.len() as u64,
                Err(reason) => {
                    tracing::error!(log = %self.name.name, reason, "the match lists are corrupt: the count stays as it is");
                    untaken
                }
            }
        });
        drop(lists);
        self.books.mark();
        recount
    }

    fn outcomes(&self, position: Position, trigger: TriggerNumber) -> Option<Outcome> {
        let offset = position.offset;
        if position.partition != PARTITION {
            return None;
        }
        let listed = {
            let lists = self.lists.lock();
            let known = offset < lists.matched() && offset >= self.start();
            known && self.listed(&lists, trigger, offset..offset + 1).is_ok_and(|found| !found.is_empty())
        };
        let ledger = self.registry.assigned(trigger)?;
        // The ledger first: what it no longer has was written into the journal before.
        let place = ledger.place(offset);
        let known = self.books.journal.find(offset, trigger);
        let state = match place {
            Place::Untaken if listed => OutcomeState::Untaken,
            Place::Untaken => return None,
            Place::Window => OutcomeState::InFlight,
            Place::Waiting(due) => OutcomeState::Waiting { due },
            Place::Held => OutcomeState::Held,
            Place::Gone => match known.settled {
                Some(state) => state,
                None if listed || !known.attempts.is_empty() => OutcomeState::Unknown,
                None => return None,
            },
        };
        Some(Outcome { state, attempts: known.attempts })
    }

    fn forget(&self, trigger: TriggerNumber) {
        self.registry.forget(trigger);
    }

    fn ended_uncleanly(&self) -> bool {
        self.ended_uncleanly
    }

    async fn secure(&self) -> Result<(), WriteError> {
        self.books.check_open()?;
        let shared = Arc::clone(&self.shared);
        self.books.mark();
        let secured = tokio::task::spawn_blocking(move || shared.secure()).await;
        let secured =
            secured.unwrap_or_else(|_| Err("writing the checkpoint failed unexpectedly".to_owned()));
        secured.map_err(|reason| WriteError::Failed { reason })
    }

    fn epoch(&self, _partition: u16) -> Epoch {
        Epoch(self.epoch)
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        self.me.upgrade().expect("whoever asks holds the log")
    }
}

impl BrokerLog {
    fn write_plan(&self, plan: PlanRecord) -> Result<(), WriteError> {
        let content = Row::put(&self.name, Kind::Plan, plan.version.0, &rows::encode_plan(&plan));
        let written = self.shared.exclusively(|flusher| {
            if self.books.closed() {
                // The log may be deleted by now: nothing is written about it any more.
                return Ok(false);
            }
            flusher.prepare()?;
            let mut rows = self.name_rows();
            rows.extend([content, self.row()]);
            flusher.commit(&rows).map(|()| true)
        });
        if !written.map_err(|reason| WriteError::Failed { reason })? {
            return Err(WriteError::Closed);
        }
        self.plans.lock().push(plan);
        Ok(())
    }
}

impl fmt::Debug for BrokerLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerLog").field("name", &self.name).finish_non_exhaustive()
    }
}
