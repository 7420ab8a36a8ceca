//! The records of one partition with their match lists.

use std::collections::{BTreeMap, VecDeque, vec_deque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::error::{ReadError, WriteError};
use crate::log::{MatchBatch, Scope, TriggerNumber};
use crate::record::{Charge, Entry, Offset, Position, Record};

/// What a record costs besides its event: the entry, its slot, and the headers that are built of it.
const ENTRY_OVERHEAD: u64 = 512;
/// The triggers that a slot lists without memory of its own.
const INLINE_TRIGGERS: usize = 4;
/// The parked entries below which none are swept.
const SWEEP_FROM: usize = 1024;

/// The bytes of the limit that a record takes.
pub(super) fn charge_of(record: &Record) -> u64 {
    let headers: usize = record.metadata.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    ENTRY_OVERHEAD + (record.event.size() + headers) as u64
}

/// The records of one partition, oldest first.
#[derive(Debug)]
pub(super) struct Ring {
    partition: u16,
    start: Offset,
    slots: VecDeque<Slot>,
    matched: Offset,
    /// When the newest record arrived.
    newest: Timestamp,
    /// The bytes that the slots take of the limit.
    bytes: u64,
    /// What was trimmed while someone held it: a schedule, a window, a dead letter. It stays readable as long as
    /// they do.
    parked: BTreeMap<Offset, Weak<Entry>>,
    /// How many parked entries there may be before those that nobody holds any more are swept out.
    sweep_at: usize,
}

/// A record and who matches it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) entry: Arc<Entry>,
    /// The match list, sorted.
    triggers: SmallVec<[TriggerNumber; INLINE_TRIGGERS]>,
    /// How many of the first of them are known not to hold the record: they never will again, so that each match
    /// is asked about once, not once per trim.
    passed: u32,
    /// The share of the limit that a long match list takes.
    charge: Option<Charge>,
}

/// What a trim leaves of what nobody is owed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) now: Timestamp,
    /// Whatever is older goes.
    pub(super) retention: Duration,
    /// The oldest go until the ring takes no more bytes.
    pub(super) history: u64,
}

impl Ring {
    pub(super) fn new(partition: u16) -> Self {
        Self {
            partition,
            start: 0,
            slots: VecDeque::new(),
            matched: 0,
            newest: Timestamp(i64::MIN),
            bytes: 0,
            parked: BTreeMap::new(),
            sweep_at: SWEEP_FROM,
        }
    }

    pub(super) fn partition(&self) -> u16 {
        self.partition
    }

    pub(super) fn start(&self) -> Offset {
        self.start
    }

    pub(super) fn end(&self) -> Offset {
        self.start + self.slots.len() as u64
    }

    /// The first offset that the shared reader has not examined.
    pub(super) fn matched(&self) -> Offset {
        self.matched
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// About how many bytes the records from `offset` on take: as if all were of one size.
    pub(super) fn bytes_from(&self, offset: Offset) -> u64 {
        let (from, end) = (offset.max(self.start), self.end());
        share_of(self.bytes, end.saturating_sub(from), end - self.start)
    }

    /// Appends a record. It arrived now, or with the newest where the clock says that this was later.
    pub(super) fn push(&mut self, now: Timestamp, record: Record, charge: Charge) {
        self.newest = self.newest.max(now);
        self.bytes += charge.bytes();
        let position = Position { partition: self.partition, offset: self.end() };
        let entry = Arc::new(Entry::new(position, self.newest, record, Some(charge)));
        self.slots.push_back(Slot { entry, triggers: SmallVec::new(), passed: 0, charge: None });
    }

    /// At most `limit` slots from `from` on.
    pub(super) fn slots(&self, from: Offset, limit: usize) -> vec_deque::Iter<'_, Slot> {
        let begin = self.index_or_edge(from);
        self.slots.range(begin..begin.saturating_add(limit).min(self.slots.len()))
    }

    /// At most `limit` slots of the examined range from `from` on.
    pub(super) fn examined_slots(&self, from: Offset, limit: usize) -> vec_deque::Iter<'_, Slot> {
        let end = self.index_or_edge(self.matched);
        let begin = self.index_or_edge(from).min(end);
        self.slots.range(begin..begin.saturating_add(limit).min(end))
    }

    /// Reads one record that is here or that someone outside still holds.
    pub(super) fn fetch(&self, offset: Offset) -> Result<Arc<Entry>, ReadError> {
        if let Some(slot) = self.slot(offset) {
            return Ok(Arc::clone(&slot.entry));
        }
        if offset >= self.end() {
            return Err(ReadError::Beyond { position: Position { partition: self.partition, offset } });
        }
        let parked = self.parked.get(&offset).and_then(Weak::upgrade);
        parked.ok_or(ReadError::Trimmed { start: self.start })
    }

    /// Up to `limit` entries below `before`, the newest first; after those in the ring those that are parked.
    pub(super) fn newest_before(&self, before: Offset, limit: usize) -> Vec<Arc<Entry>> {
        let ring = self.slots.range(..self.index_or_edge(before)).rev().map(|slot| Arc::clone(&slot.entry));
        let parked = self.parked.range(..before).rev().filter_map(|(_, entry)| entry.upgrade());
        ring.chain(parked).take(limit).collect()
    }

    /// The first offset whose record arrived at `arrived` or later.
    pub(super) fn first_since(&self, arrived: Timestamp) -> Offset {
        self.start + self.slots.partition_point(|slot| slot.entry.arrived < arrived) as u64
    }

    /// Whether the match list of a record that is still here has the trigger.
    pub(super) fn lists(&self, offset: Offset, trigger: TriggerNumber) -> bool {
        self.slot(offset).is_some_and(|slot| slot.lists(trigger))
    }

    /// Whether a match list may be recorded now: each record is examined once, in order, and for a single trigger
    /// only what was examined before.
    pub(super) fn check_range(&self, batch: &MatchBatch) -> Result<(), WriteError> {
        let limit = match batch.scope {
            Scope::All => self.end(),
            Scope::Trigger(_) | Scope::Restored => self.matched,
        };
        // Nothing is ever lost here that could be restored.
        let gap = match batch.scope {
            Scope::All => batch.from > self.matched,
            Scope::Restored => true,
            Scope::Trigger(_) => false,
        };
        let ordered = batch.matches.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let inside = |(offset, _): &(Offset, _)| (batch.from..batch.to).contains(offset);
        if gap || batch.from > batch.to || batch.to > limit || !ordered || !batch.matches.iter().all(inside) {
            let reason = format!(
                "the match list of {}..{} does not follow what was examined: up to {} of {}",
                batch.from,
                batch.to,
                self.matched,
                self.end()
            );
            return Err(WriteError::Failed { reason });
        }
        Ok(())
    }

    /// Puts into the match list of a record those of `triggers` that are not in it and that `matched` makes a debt
    /// of. Nothing happens to a record that was examined before (`Scope::All`) or is gone.
    pub(super) fn record(
        &mut self,
        scope: Scope,
        offset: Offset,
        triggers: &[TriggerNumber],
        used: &Arc<AtomicU64>,
        matched: impl Fn(TriggerNumber) -> bool,
    ) {
        if scope == Scope::All && offset < self.matched {
            return;
        }
        let Some(index) = self.index(offset) else { return };
        let slot = &mut self.slots[index];
        let before = slot.charge.as_ref().map_or(0, Charge::bytes);
        let wanted = |trigger: &TriggerNumber| match scope {
            Scope::All | Scope::Restored => true,
            Scope::Trigger(only) => only == *trigger,
        };
        let mut triggers: SmallVec<[TriggerNumber; INLINE_TRIGGERS]> =
            triggers.iter().copied().filter(wanted).collect();
        triggers.sort_unstable();
        triggers.dedup();
        triggers.retain(|trigger| slot.triggers.binary_search(trigger).is_err() && matched(*trigger));
        if slot.triggers.is_empty() {
            slot.triggers = triggers;
        } else {
            for trigger in triggers {
                let place = slot.triggers.partition_point(|listed| *listed < trigger);
                slot.triggers.insert(place, trigger);
                slot.passed = slot.passed.min(u32::try_from(place).unwrap_or(u32::MAX));
            }
        }
        slot.charge_list(used);
        let after = slot.charge.as_ref().map_or(0, Charge::bytes);
        self.bytes += after - before;
    }

    /// Moves the end of the examined range.
    pub(super) fn examined(&mut self, to: Offset) {
        self.matched = self.matched.max(to);
    }

    /// The first trigger that needs the oldest record.
    pub(super) fn front_holder(
        &mut self,
        holds: impl Fn(TriggerNumber, Offset) -> bool,
    ) -> Option<TriggerNumber> {
        let slot = self.slots.front_mut()?;
        while let Some(trigger) = slot.triggers.get(slot.passed as usize).copied() {
            if holds(trigger, self.start) {
                return Some(trigger);
            }
            slot.passed += 1;
        }
        None
    }

    /// Gives up at most `limit` records from the front that nobody is owed and for which there is no room. They are
    /// handed out to be freed elsewhere.
    pub(super) fn trim(
        &mut self,
        room: Room,
        limit: usize,
        holds: impl Fn(TriggerNumber, Offset) -> bool,
    ) -> Vec<Slot> {
        let mut gone = Vec::new();
        while gone.len() < limit && self.start < self.matched {
            let Some(front) = self.slots.front() else { break };
            let old = room.now.since(front.entry.arrived) >= room.retention;
            if (!old && self.bytes <= room.history) || self.front_holder(&holds).is_some() {
                break;
            }
            let Some(slot) = self.slots.pop_front() else { break };
            if Arc::strong_count(&slot.entry) > 1 {
                self.parked.insert(self.start, Arc::downgrade(&slot.entry));
            }
            self.start += 1;
            self.bytes -= slot.entry.charged() + slot.charge.as_ref().map_or(0, Charge::bytes);
            gone.push(slot);
        }
        if self.parked.len() > self.sweep_at {
            self.sweep_parked();
        }
        gone
    }

    /// Forgets the parked entries that nobody holds any more.
    pub(super) fn sweep_parked(&mut self) {
        self.parked.retain(|_, entry| entry.strong_count() > 0);
        self.sweep_at = SWEEP_FROM.max(2 * self.parked.len());
    }

    fn slot(&self, offset: Offset) -> Option<&Slot> {
        self.slots.get(self.index(offset)?)
    }

    fn index(&self, offset: Offset) -> Option<usize> {
        let index = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        (index < self.slots.len()).then_some(index)
    }

    /// The index of an offset, or the nearest edge of the ring.
    fn index_or_edge(&self, offset: Offset) -> usize {
        let index = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        index.min(self.slots.len())
    }
}

/// `part` of `whole` records' share of the bytes that all of them take.
fn share_of(bytes: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

impl Slot {
    /// Whether the trigger matches the record.
    pub(super) fn lists(&self, trigger: TriggerNumber) -> bool {
        self.triggers.binary_search(&trigger).is_ok()
    }

    /// Charges for the match list where it has memory of its own.
    fn charge_list(&mut self, used: &Arc<AtomicU64>) {
        self.triggers.shrink_to_fit();
        if self.triggers.spilled() {
            let bytes = (self.triggers.len() * size_of::<TriggerNumber>()) as u64;
            self.charge = Some(Charge::take(used, bytes));
        }
    }
}
