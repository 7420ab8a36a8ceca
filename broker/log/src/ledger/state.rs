//! The state behind a [`Ledger`]'s lock, and the guard that tells the journal of changes.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::order::{Key, Order, Turn};
use super::schedule::{Schedule, Waiting};
use super::{AcceptedOutputs, Batches, Counted, Counts, Dropped, Due, Ledger};
use crate::record::{Entry, Offset};

/// What the lock of a ledger guards.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Every match below was taken.
    pub(super) next: Offset,
    /// The end of the matches: the highest offset that ever matched, and one.
    pub(super) matched_end: Offset,
    /// A lower bound of the oldest match that was not taken. Of use while `untaken` is not zero.
    pub(super) oldest_untaken: Offset,
    /// Whether `next` means anything yet.
    pub(super) placed: bool,
    pub(super) matched: u64,
    pub(super) delivered: u64,
    pub(super) dead_lettered: u64,
    pub(super) dropped: Dropped,
    pub(super) untaken: u64,
    pub(super) window: BTreeMap<Offset, Flight>,
    pub(super) schedule: Schedule,
    pub(super) order: Order,
    /// The outputs of debts that are pending that the subscriber has.
    pub(super) accepted: BTreeMap<Offset, AcceptedOutputs>,
    /// What goes out together.
    pub(super) batches: Batches,
    /// From where on the log is to be kept for matches that are still to be found in it.
    pub(super) reserved: Option<Offset>,
    /// Grows with every change, so that what is unchanged need not be written down again.
    pub(super) changes: u64,
}

/// A debt in the window.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) attempts: u32,
    /// Whether an attempt was started whose outcome is not known.
    pub(super) open: bool,
    pub(super) crashes: u8,
    /// Whether the body is kept outside the log, so that the log may be trimmed above it.
    pub(super) parked: bool,
    /// Whether its record can be read, as far as is known.
    pub(super) readable: bool,
    /// The key under which it stays in order, as far as is known.
    pub(super) key: Option<Key>,
    pub(super) entry: Option<Arc<Entry>>,
}

impl State {
    pub(super) fn empty(tracks: bool) -> Self {
        Self { schedule: Schedule::new(tracks), ..Self::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        let window = self.window.len() as u64;
        let scheduled = self.schedule.len() as u64;
        Counts {
            matched: self.matched,
            delivered: self.delivered,
            dead_lettered: self.dead_lettered,
            dropped: self.dropped,
            pending: window + scheduled + self.untaken,
            window,
            scheduled,
            untaken: self.untaken,
        }
    }

    pub(super) fn count(&mut self, outcome: Counted, by: u64) {
        match outcome {
            Counted::Delivered => self.delivered += by,
            Counted::DeadLettered => self.dead_lettered += by,
            Counted::Dropped(reason) => self.dropped.add(reason, by),
        }
    }

    /// The attempts made at what was taken and is not settled.
    pub(super) fn attempts(&self, offset: Offset) -> Option<u32> {
        match self.window.get(&offset) {
            Some(flight) => Some(flight.attempts),
            None => self.schedule.get(offset).map(|waiting| waiting.attempts),
        }
    }

    pub(super) fn entry(&self, offset: Offset) -> Option<&Arc<Entry>> {
        match self.window.get(&offset) {
            Some(flight) => flight.entry.as_ref(),
            None => self.schedule.get(offset).and_then(Waiting::entry),
        }
    }

    /// Whether the record of what was taken can be read, as far as is known.
    pub(super) fn readable(&self, offset: Offset) -> bool {
        self.window.get(&offset).is_none_or(|flight| flight.readable)
    }

    /// The key of what was taken and is not settled, where it has one.
    pub(super) fn key(&self, offset: Offset) -> Option<Key> {
        match self.window.get(&offset) {
            Some(flight) => flight.key,
            None => self.schedule.get(offset).and_then(|waiting| waiting.key),
        }
    }

    /// Moves a delivery from the schedule to the window.
    pub(super) fn unschedule(&mut self, offset: Offset) -> Option<Due> {
        let waiting = self.schedule.remove(offset)?;
        let (attempts, crashes, key, entry) =
            (waiting.attempts, waiting.crashes, waiting.key, waiting.entry().cloned());
        let due = Due { offset, attempts, key, entry: entry.clone() };
        let flight = Flight { attempts, open: false, crashes, parked: true, readable: true, key, entry };
        self.window.insert(offset, flight);
        self.changes += 1;
        Some(due)
    }

    /// Moves what is in one batch with a delivery from the schedule to the window. Where the order of a key keeps one back
    /// there is no such batch any more.
    pub(super) fn unschedule_batch_of(&mut self, offset: Offset) -> Vec<Due> {
        let Some((number, _)) = self.batches.of(offset) else { return Vec::new() };
        let others = self.batches.get(number).map(|bounds| bounds.offsets).unwrap_or_default();
        let waits = |offset: &Offset| self.schedule.get(*offset).map(|waiting| (*offset, waiting.key));
        let others: Vec<_> = others.iter().filter_map(waits).collect();
        let kept_back = |&(offset, key): &(Offset, Option<Key>)| {
            key.is_some_and(|key| self.order.turn(key, offset) != Turn::Now)
        };
        if others.iter().any(kept_back) {
            self.batches.unbind(number);
            return Vec::new();
        }
        others.into_iter().filter_map(|(offset, _)| self.unschedule(offset)).collect()
    }

    pub(super) fn remove(&mut self, offset: Offset) {
        self.changes += 1;
        if let Some(key) = self.key(offset) {
            self.order.remove(key, offset);
        }
        self.accepted.remove(&offset);
        self.batches.remove(offset);
        if self.window.remove(&offset).is_none() {
            self.schedule.remove(offset);
        }
    }

    pub(super) fn first_taken(&self) -> Option<Offset> {
        self.window.keys().next().copied().or_else(|| self.schedule.first())
    }
}

/// The state of a ledger while it is held. The journal hears of it before it is let go where it was changed.
pub(super) struct StateGuard<'l> {
    ledger: &'l Ledger,
    state: MutexGuard<'l, State>,
    /// What there was when it was taken.
    changes: u64,
}

impl<'l> StateGuard<'l> {
    /// Waits for whoever holds the state.
    pub(super) fn lock(ledger: &'l Ledger) -> Self {
        let state = ledger.state.lock();
        let changes = state.changes;
        Self { ledger, state, changes }
    }
}

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for StateGuard<'_> {
    fn drop(&mut self) {
        if self.state.changes != self.changes {
            self.ledger.journal.changed(self.ledger.trigger);
        }
    }
}
