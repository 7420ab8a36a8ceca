//! The log that lives in memory: bounded, and honest about surviving nothing.
//!
//! Each partition is a ring of reference-counted entries with the match list of each in its slot. A body lives as
//! long as anyone holds its entry (the ring, a window, a schedule, a dead letter), and its share of the size limit
//! with it.
//!
//! Locks are taken in one order: ring, names, ledgers of the partition, one ledger, books (outcomes, dead letters).
//! Nothing waits under a lock.

mod books;
mod dead_letters;
mod outcomes;
mod registry;
mod ring;
#[cfg(test)]
mod suite;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use waypost_core::manifest::ResourceName;

use crate::clock::{Clock, Timestamp};
use crate::commit::{Commit, Committed};
use crate::dead_letter::DeadLetters;
use crate::error::{AppendError, ReadError, WriteError};
use crate::ledger::{Debt, Ledger, Outcome, OutcomeState, Place, Recount};
use crate::log::{
    Bounds, Durability, Epoch, Ledgers, MatchBatch, Matches, Owed, PlanRecord, PlanVersion, ReadLimit,
    Records, Scope, TriggerNumber, Usage,
};
use crate::record::{Batch, Charge, Entry, Offset, Position};

use books::Books;
use registry::Registry;
use ring::{Ring, Room};

/// The bytes that a log may hold when nothing else is said.
pub const DEFAULT_LIMIT: u64 = 256 * 1024 * 1024;
/// The bytes that are kept for replay although nobody is owed them, when nothing else is said.
pub const DEFAULT_HISTORY: u64 = 16 * 1024 * 1024;
/// How long a record is kept although nobody is owed it, when nothing else is said and `history` allows.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// The part of the limit that batches from the reserve may use above it: one in this many.
pub const RESERVE_SHARE: u64 = 10;

/// The slots that are looked at under one hold of a partition's lock, so that appends never wait for long.
const SLOTS_AT_ONCE: usize = 1024;
/// The matches that are recorded under one hold of a partition's lock.
const MATCHES_AT_ONCE: usize = 1024;
/// The records of a partition that go before it is looked whether more must, when the limit is met.
const SLOTS_UNDER_PRESSURE: usize = 4;
/// What is freed beyond need when the limit is met, as a part of the limit, so that not every append must.
const SLACK_SHARE: u64 = 64;

/// The limits of a memory log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The number of partitions; 0 counts as 1.
    pub partitions: u16,
    /// The bytes that may be held, whoever holds them.
    pub limit: u64,
    /// The bytes of records that are kept although nobody is owed them. Under pressure they go first.
    pub history: u64,
    /// How long a record is kept although nobody is owed it.
    pub retention: Duration,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { partitions: 1, limit: DEFAULT_LIMIT, history: DEFAULT_HISTORY, retention: DEFAULT_RETENTION }
    }
}

/// A log in memory.
pub struct MemoryLog {
    options: MemoryOptions,
    clock: Clock,
    partitions: Vec<Partition>,
    /// Which partition takes the next batch, modulo their number.
    turn: AtomicUsize,
    used: Arc<AtomicU64>,
    books: Arc<Books>,
    registry: Registry,
    plans: Mutex<Vec<PlanRecord>>,
    checkpoints: Mutex<HashMap<ResourceName, Bytes>>,
}

struct Partition {
    ring: Mutex<Ring>,
    /// The ring's end, to be read without its lock.
    end: AtomicU64,
    grown: Notify,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(options: MemoryOptions, clock: Clock) -> Arc<Self> {
        let options = MemoryOptions { partitions: options.partitions.max(1), ..options };
        let used = Arc::new(AtomicU64::new(0));
        let books = Arc::new(Books::new(options.partitions, clock.clone(), Arc::clone(&used)));
        let partition = |number| Partition {
            ring: Mutex::new(Ring::new(number)),
            end: AtomicU64::new(0),
            grown: Notify::new(),
        };
        Arc::new(Self {
            options,
            clock,
            partitions: (0..options.partitions).map(partition).collect(),
            turn: AtomicUsize::new(0),
            used,
            registry: Registry::new(options.partitions, Arc::clone(&books)),
            books,
            plans: Mutex::default(),
            checkpoints: Mutex::default(),
        })
    }

    fn partition(&self, partition: u16) -> &Partition {
        &self.partitions[usize::from(partition)]
    }

    /// Takes a share of the limit for a batch, and gives up what nobody is owed where there is none left.
    fn charge(&self, bytes: u64, from_reserve: bool) -> Result<Charge, AppendError> {
        let reserve = if from_reserve { self.options.limit / RESERVE_SHARE } else { 0 };
        let limit = self.options.limit.saturating_add(reserve);
        if let Ok(charge) = Charge::within(&self.used, bytes, limit) {
            return Ok(charge);
        }
        if bytes <= limit {
            self.make_room((limit - bytes).saturating_sub(limit / SLACK_SHARE));
        }
        Charge::within(&self.used, bytes, limit)
            .map_err(|used| AppendError::Full { used, limit: self.options.limit })
    }

    /// Gives up records that nobody is owed until no more than `target` bytes are in use, or none is left to go.
    fn make_room(&self, target: u64) {
        let room = Room { now: self.clock.now(), retention: Duration::ZERO, history: 0 };
        let mut going = true;
        while going && self.used.load(Ordering::Relaxed) > target {
            going = false;
            for number in 0..self.options.partitions {
                going |= self.trim_some(number, room, SLOTS_UNDER_PRESSURE);
            }
        }
    }

    /// Gives up at most `limit` records of a partition. False where none could go.
    fn trim_some(&self, partition: u16, room: Room, limit: usize) -> bool {
        let mut ring = self.partition(partition).ring.lock();
        let ledgers = self.registry.of(partition);
        let gone = ring.trim(room, limit, |trigger, offset| ledgers.holds(trigger, offset));
        drop(ledgers);
        drop(ring);
        // The bodies are freed here, outside the lock.
        !gone.is_empty()
    }

    /// Forgets the plans under which nothing readable was or will be matched.
    fn trim_plans(&self) {
        let starts: Vec<Offset> =
            self.partitions.iter().map(|partition| partition.ring.lock().start()).collect();
        let mut plans = self.plans.lock();
        let superseded =
            |plan: &PlanRecord| plan.effective.iter().zip(&starts).all(|(from, start)| from <= start);
        let useless = plans.iter().skip(1).take_while(|next| superseded(next)).count();
        plans.drain(..useless);
    }

    fn check_version(&self, version: PlanVersion) -> Result<(), WriteError> {
        if self.plans.lock().iter().any(|plan| plan.version == version) {
            return Ok(());
        }
        Err(WriteError::Failed { reason: format!("plan {} was not recorded before its matches", version.0) })
    }
}

#[async_trait]
impl Records for MemoryLog {
    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn partitions(&self) -> u16 {
        self.options.partitions
    }

    fn offer(&self, batch: &mut Batch) -> Result<Commit, AppendError> {
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        let number = batch.key.map_or_else(turn, |key| key as usize) % self.partitions.len();
        let partition = &self.partitions[number];
        if self.books.closed() {
            return Err(AppendError::Closed);
        }
        let bytes = batch.records.iter().map(ring::charge_of).sum();
        let mut charge = self.charge(bytes, batch.from_reserve)?;

        let mut ring = partition.ring.lock();
        // Again, now that `close` waits for this lock.
        if self.books.closed() {
            return Err(AppendError::Closed);
        }
        let batch = std::mem::take(batch);
        let first = Position { partition: ring.partition(), offset: ring.end() };
        let arrived = self.clock.now();
        let count = u32::try_from(batch.records.len()).unwrap_or(u32::MAX);
        for record in batch.records {
            let share = charge.split(ring::charge_of(&record));
            ring.push(arrived, record, share);
        }
        if let Some(checkpoint) = batch.checkpoint {
            self.checkpoints.lock().insert(checkpoint.source, checkpoint.value);
        }
        partition.end.store(ring.end(), Ordering::Release);
        drop(ring);
        partition.grown.notify_waiters();
        Ok(Commit::done(Ok(Committed { first, count })))
    }

    fn bounds(&self, partition: u16) -> Bounds {
        let ring = self.partition(partition).ring.lock();
        Bounds { start: ring.start(), end: ring.end() }
    }

    fn bytes_from(&self, partition: u16, offset: Offset) -> u64 {
        self.partition(partition).ring.lock().bytes_from(offset)
    }

    async fn wait_for(&self, partition: u16, offset: Offset) {
        let partition = self.partition(partition);
        loop {
            let grown = partition.grown.notified();
            tokio::pin!(grown);
            // Enlisted before looking, so that what is appended after the look wakes us.
            grown.as_mut().enable();
            if partition.end.load(Ordering::Acquire) > offset || self.books.closed() {
                return;
            }
            grown.await;
        }
    }

    async fn read(
        &self,
        partition: u16,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        let mut entries = Vec::new();
        let mut room = limit;
        let mut next = from;
        loop {
            let ring = self.partition(partition).ring.lock();
            if next < ring.start() {
                // What was read before the trim stands; only the first step can say that nothing is there.
                return if entries.is_empty() {
                    Err(ReadError::Trimmed { start: ring.start() })
                } else {
                    Ok(entries)
                };
            }
            if next > ring.end() {
                return Err(ReadError::Beyond { position: Position { partition, offset: next } });
            }
            for slot in ring.slots(next, SLOTS_AT_ONCE) {
                if !take_room(&mut room, &slot.entry, entries.is_empty()) {
                    return Ok(entries);
                }
                entries.push(Arc::clone(&slot.entry));
                next += 1;
            }
            if next == ring.end() {
                return Ok(entries);
            }
        }
    }

    async fn fetch(&self, position: Position) -> Result<Arc<Entry>, ReadError> {
        let Some(partition) = self.partitions.get(usize::from(position.partition)) else {
            return Err(ReadError::Beyond { position });
        };
        partition.ring.lock().fetch(position.offset)
    }

    async fn find(&self, source: &str, id: &str, limit: usize) -> Result<Vec<Position>, ReadError> {
        let mut found: Vec<Arc<Entry>> = Vec::new();
        for partition in &self.partitions {
            let mut of_partition = 0;
            let mut before = Offset::MAX;
            while of_partition < limit {
                // Compared outside the lock, a chunk at a time.
                let chunk = partition.ring.lock().newest_before(before, SLOTS_AT_ONCE);
                let Some(oldest) = chunk.last() else { break };
                before = oldest.position.offset;
                let hits = chunk
                    .into_iter()
                    .filter(|entry| entry.event.id() == id && entry.event.source() == source);
                let known = found.len();
                found.extend(hits.take(limit - of_partition));
                of_partition += found.len() - known;
                tokio::task::yield_now().await;
            }
        }
        found.sort_by_key(|entry| std::cmp::Reverse((entry.arrived, entry.position)));
        found.truncate(limit);
        Ok(found.iter().map(|entry| entry.position).collect())
    }

    async fn first_since(&self, partition: u16, arrived: Timestamp) -> Result<Offset, ReadError> {
        Ok(self.partition(partition).ring.lock().first_since(arrived))
    }

    fn checkpoint(&self, source: &ResourceName) -> Option<Bytes> {
        self.checkpoints.lock().get(source).cloned()
    }

    fn usage(&self) -> Usage {
        let holder = |partition: &Partition| {
            let mut ring = partition.ring.lock();
            let ledgers = self.registry.of(ring.partition());
            let holder = ring.front_holder(|trigger, offset| ledgers.holds(trigger, offset));
            holder.map(|trigger| (ring.bytes(), trigger))
        };
        let most = self.partitions.iter().filter_map(holder).max_by_key(|(bytes, _)| *bytes);
        Usage {
            used: self.used.load(Ordering::Relaxed),
            limit: self.options.limit,
            held_by: most.map(|(_, trigger)| trigger),
        }
    }

    async fn trim(&self) {
        let MemoryOptions { retention, history, .. } = self.options;
        let room =
            Room { now: self.clock.now(), retention, history: history / u64::from(self.options.partitions) };
        for number in 0..self.options.partitions {
            while self.trim_some(number, room, SLOTS_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            self.partition(number).ring.lock().sweep_parked();
        }
        self.trim_plans();
    }

    async fn close(&self) {
        self.books.close();
        for partition in &self.partitions {
            // Whoever appends now holds this lock and is done when we get it; whoever comes later sees the mark.
            drop(partition.ring.lock());
            partition.grown.notify_waiters();
        }
    }
}

/// Whether another entry fits; the first always does.
fn take_room(room: &mut ReadLimit, entry: &Entry, first: bool) -> bool {
    if !first && (room.records == 0 || entry.size() > room.bytes) {
        return false;
    }
    room.records = room.records.saturating_sub(1);
    room.bytes = room.bytes.saturating_sub(entry.size());
    true
}

#[async_trait]
impl Matches for MemoryLog {
    fn plans(&self) -> Vec<PlanRecord> {
        self.plans.lock().clone()
    }

    async fn record_plan(&self, plan: PlanRecord) -> Result<(), WriteError> {
        self.books.check_open()?;
        if plan.effective.len() != self.partitions.len() {
            let reason = format!("plan {} does not name one offset per partition", plan.version.0);
            return Err(WriteError::Failed { reason });
        }
        let mut plans = self.plans.lock();
        match plans.last() {
            Some(last) if *last == plan => Ok(()),
            Some(last) if last.version >= plan.version => {
                let reason = format!("plan {} comes after plan {}", plan.version.0, last.version.0);
                Err(WriteError::Failed { reason })
            }
            _ => {
                plans.push(plan);
                Ok(())
            }
        }
    }

    fn matched(&self, partition: u16) -> Offset {
        self.partition(partition).ring.lock().matched()
    }

    fn record_matches(&self, batch: &MatchBatch) -> Result<(), WriteError> {
        self.books.check_open()?;
        self.check_version(batch.version)?;
        let partition = self.partition(batch.partition);
        partition.ring.lock().check_range(batch)?;
        let triggers = batch.matches.iter().flat_map(|(_, triggers)| triggers.iter().copied());
        self.registry.prepare(batch.partition, triggers);

        let mut rest = batch.matches.as_slice();
        loop {
            let mut ring = partition.ring.lock();
            let ledgers = self.registry.of(batch.partition);
            let mut matches = 0;
            while let [(offset, triggers), others @ ..] = rest
                && matches < MATCHES_AT_ONCE
            {
                ring.record(batch.scope, *offset, triggers, &self.used, |trigger| {
                    ledgers.matched(trigger, *offset)
                });
                matches += triggers.len();
                rest = others;
            }
            let examined = rest.first().map_or(batch.to, |(offset, _)| *offset);
            if batch.scope == Scope::All {
                ring.examined(examined);
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn lost_matches(&self, _partition: u16) -> Vec<Range<Offset>> {
        Vec::new()
    }

    async fn owed(
        &self,
        partition: u16,
        trigger: TriggerNumber,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Owed, ReadError> {
        let mut owed = Owed { entries: Vec::new(), unreadable: Vec::new(), next: from };
        if !self.registry.of(partition).knows(trigger) {
            owed.next = from.max(self.matched(partition));
            return Ok(owed);
        }
        let mut room = limit;
        loop {
            {
                let ring = self.partition(partition).ring.lock();
                owed.next = owed.next.max(ring.start());
                for slot in ring.examined_slots(owed.next, SLOTS_AT_ONCE) {
                    if slot.lists(trigger) {
                        if !take_room(&mut room, &slot.entry, owed.entries.is_empty()) {
                            return Ok(owed);
                        }
                        owed.entries.push(Arc::clone(&slot.entry));
                    }
                    owed.next += 1;
                }
                if owed.next >= ring.matched() {
                    return Ok(owed);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Ledgers for MemoryLog {
    fn trigger(&self, name: &ResourceName) -> TriggerNumber {
        self.registry.number(name)
    }

    fn triggers(&self) -> Vec<(TriggerNumber, ResourceName)> {
        self.registry.triggers()
    }

    fn ledger(&self, partition: u16, trigger: TriggerNumber) -> Arc<Ledger> {
        self.registry.ledger(partition, trigger)
    }

    fn recount(&self, partition: u16, trigger: TriggerNumber) -> Recount {
        // Under the ring's lock, so that no match is added meanwhile: appends to this partition wait for one pass
        // over it.
        let ring = self.partition(partition).ring.lock();
        let ledger = self.registry.ledger(partition, trigger);
        ledger.recount(|next| {
            ring.examined_slots(next, usize::MAX).filter(|slot| slot.lists(trigger)).count() as u64
        })
    }

    fn outcomes(&self, position: Position, trigger: TriggerNumber) -> Option<Outcome> {
        let partition = self.partitions.get(usize::from(position.partition))?;
        let listed = partition.ring.lock().lists(position.offset, trigger);
        let ledger = self.registry.of(position.partition).get(trigger)?;
        // The ledger first: what it no longer has was written into the books before.
        let place = ledger.place(position.offset);
        let (settled, attempts) = self.books.outcome(Debt { position, trigger });
        let state = match place {
            Place::Untaken if listed => OutcomeState::Untaken,
            Place::Untaken => return None,
            Place::Window => OutcomeState::InFlight,
            Place::Waiting(due) => OutcomeState::Waiting { due },
            Place::Held => OutcomeState::Held,
            Place::Gone => match settled {
                Some(state) => state,
                None if listed || !attempts.is_empty() => OutcomeState::Unknown,
                None => return None,
            },
        };
        Some(Outcome { state, attempts })
    }

    fn forget(&self, trigger: TriggerNumber) {
        self.registry.forget(trigger);
    }

    fn ended_uncleanly(&self) -> bool {
        // There was no process before.
        false
    }

    async fn secure(&self) -> Result<(), WriteError> {
        self.books.check_open()
    }

    fn epoch(&self, _partition: u16) -> Epoch {
        // Nobody else can hold what lives in this process.
        Epoch(0)
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        self.books.dead_letters()
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("options", &self.options).finish_non_exhaustive()
    }
}
