//! What one trigger is owed from one partition, and what became of each debt.
//!
//! A [`Ledger`] holds counts and places, never history: how each attempt ended goes to the backend's journal,
//! which may forget the oldest (memory) or keep them on disk. So a debt costs the same however often it was tried.

mod accepted;
mod attempt;
mod batches;
mod counts;
mod journal;
mod order;
mod outcome;
mod schedule;
mod snapshot;
mod state;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::dead_letter::DeadLetterReason;
use crate::error::WriteError;
use crate::log::TriggerNumber;
use crate::record::{Entry, Offset, Position};

pub use accepted::{ACCEPTED_LIMIT, AcceptedOutputs};
pub use attempt::{ATTEMPTS_KEPT, Attempt, AttemptOutcome};
pub(crate) use batches::Batches;
pub use batches::{BatchBounds, BatchNumber};
pub use counts::{Counts, DropReason, Dropped, Recount};
pub(crate) use journal::{Debt, Delivered, Journal, Settling};
use order::Order;
pub use order::{Key, Opened, Turn};
pub use outcome::{Outcome, OutcomeState};
use schedule::{Schedule, Waiting};
pub(crate) use snapshot::{Delayed, Flying, Snapshot};
use state::{Flight, State, StateGuard};

/// What became of a debt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The subscriber has the event.
    Delivered,
    /// A manifest, an operator or the event's own `expirytime` asked to drop it.
    Dropped(DropReason),
    /// It was given up, and goes to the store of dead letters in the same step. With a moment, it is forwarded to
    /// the dead-letter sink from then on.
    DeadLettered(DeadLetterReason, Option<Timestamp>),
}

/// Whether a settlement changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The debt was pending and is settled now.
    Now,
    /// The debt was settled before, or there never was one: nothing changed.
    Already,
}

/// A delivery whose wait is over.
#[derive(Debug, Clone)]
pub struct Due {
    /// Where the event stands.
    pub offset: Offset,
    /// The attempts made so far.
    pub attempts: u32,
    /// The key under which it stays in order, where it has one.
    pub key: Option<Key>,
    /// The event, where the schedule keeps it in memory; otherwise [`crate::Records::fetch`] has it.
    pub entry: Option<Arc<Entry>>,
}

/// How many deliveries of one trigger may wait in one partition before it should take no more
/// ([`Ledger::has_room`]): each takes about 40 bytes of memory where they lie close
/// together.
pub const WAITING_LIMIT: usize = 100_000;

/// How many keys of one trigger may be closed by a delivery that waits for its next attempt, in one partition, before it
/// should take no more ([`Ledger::has_room`]).
pub const BLOCKED_KEYS_LIMIT: usize = 1_024;

/// What keeps a trigger from taking more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowding {
    /// As many deliveries wait as may: [`WAITING_LIMIT`].
    Waiting,
    /// As many keys are closed as may be: [`BLOCKED_KEYS_LIMIT`].
    Keys,
}

/// What one trigger is owed from one partition: the debts that are pending, each in one place, and the counts of
/// those that are settled.
///
/// Every method is one atomic step and blocks for no longer than the backend's journal takes to note it.
pub struct Ledger {
    trigger: TriggerNumber,
    partition: u16,
    journal: Arc<dyn Journal>,
    state: Mutex<State>,
}

/// Where a debt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Untaken,
    Window,
    Waiting(Timestamp),
    /// Behind another of its key.
    Held,
    /// Settled, or never a debt.
    Gone,
}

impl Ledger {
    /// An empty ledger whose changes go to `journal`.
    pub(crate) fn new(partition: u16, trigger: TriggerNumber, journal: Arc<dyn Journal>) -> Self {
        // What keeps the bodies itself is never written down.
        let state = State::empty(!journal.keeps_bodies_in_memory());
        Self { trigger, partition, journal, state: Mutex::new(state) }
    }

    fn state(&self) -> StateGuard<'_> {
        StateGuard::lock(self)
    }

    /// Has the ledger written down although nothing changed.
    pub(crate) fn write_down(&self) {
        self.state().changes += 1;
    }

    /// The trigger that is owed.
    pub fn trigger(&self) -> TriggerNumber {
        self.trigger
    }

    /// The partition that it is owed from.
    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// All counts at one moment.
    pub fn counts(&self) -> Counts {
        self.state().counts()
    }

    /// Where taking goes on: every match below was taken.
    pub fn next(&self) -> Offset {
        self.state().next
    }

    /// The matches that were not taken yet.
    pub fn untaken(&self) -> u64 {
        self.state().untaken
    }

    /// Whether another match should be taken. False while as many deliveries wait as may ([`WAITING_LIMIT`]): the log
    /// holds the others as well, and a schedule is held in memory.
    pub fn has_room(&self) -> bool {
        self.crowding().is_none()
    }

    /// Why no other match should be taken, where none should.
    pub fn crowding(&self) -> Option<Crowding> {
        let state = self.state();
        if state.schedule.len() >= WAITING_LIMIT {
            return Some(Crowding::Waiting);
        }
        (state.schedule.blocking() >= BLOCKED_KEYS_LIMIT).then_some(Crowding::Keys)
    }

    /// Says where a new trigger starts. Ignored once the ledger has a match or a place.
    pub fn begin(&self, offset: Offset) {
        let mut state = self.state();
        if !state.placed {
            state.placed = true;
            state.next = offset;
            state.changes += 1;
        }
    }

    /// Takes a match into the window. False where it was taken before, or where no match is left to take: then
    /// there is nothing to deliver. Offsets come in increasing order, none is left out.
    pub fn take(&self, entry: &Arc<Entry>) -> bool {
        self.take_into_window(entry.position.offset, Some(Arc::clone(entry)), None).is_some()
    }

    /// Takes a match whose record cannot be read ([`crate::Owed::unreadable`]), so that it can be settled. As with
    /// [`Ledger::take`], offsets come in increasing order.
    pub fn take_unreadable(&self, offset: Offset) -> bool {
        self.take_into_window(offset, None, None).is_some()
    }

    fn take_into_window(&self, offset: Offset, entry: Option<Arc<Entry>>, key: Option<Key>) -> Option<Turn> {
        let mut state = self.state();
        if offset < state.next || state.untaken == 0 {
            return None;
        }
        state.next = offset + 1;
        state.untaken -= 1;
        state.changes += 1;
        let readable = entry.is_some();
        let flight = Flight { attempts: 0, open: false, crashes: 0, parked: false, readable, key, entry };
        state.window.insert(offset, flight);
        Some(key.map_or(Turn::Now, |key| state.order.insert(key, offset)))
    }

    /// Notes that an attempt at what is in the window is being started. Should the process end uncleanly before the
    /// outcome is known, that counts as a crash of the delivery ([`Ledger::crashes`]). It is known in time where the
    /// checkpoint had it: [`crate::Ledgers::secure`] makes sure. Of what is not in the window nothing is noted.
    pub fn started(&self, offset: Offset) {
        self.set_open(offset, true);
    }

    /// Notes that an attempt was cut by ourselves, so that no crash is counted for it: the trigger was paused, say.
    /// What a clean end of the process cuts need not be noted.
    pub fn cut(&self, offset: Offset) {
        self.set_open(offset, false);
    }

    fn set_open(&self, offset: Offset, open: bool) {
        let mut state = self.state();
        if let Some(flight) = state.window.get_mut(&offset)
            && flight.open != open
        {
            flight.open = open;
            if open {
                state.batches.set_open(offset, true);
            }
            state.changes += 1;
            self.journal.unsaid(self.trigger);
        }
    }

    /// Sets the bounds of a batch and notes that an attempt at it is being started: from now on these deliveries go out
    /// together and in this order, until their batch is settled, bound anew or let go. As [`Ledger::started`] it is known
    /// after an end of the process where the checkpoint had it: [`crate::Ledgers::secure`] makes sure. What is not in the
    /// window is left out.
    pub fn start_batch(&self, offsets: &[Offset]) {
        let mut state = self.state();
        let mut bound = Vec::with_capacity(offsets.len());
        for offset in offsets {
            if let Some(flight) = state.window.get_mut(offset) {
                flight.open = true;
                bound.push(*offset);
            }
        }
        state.batches.bind(bound, true);
        state.changes += 1;
        self.journal.unsaid(self.trigger);
    }

    /// Makes each of these a batch of its own, so that it goes out alone from now on. What is neither in the window nor
    /// waits is left out.
    pub fn bind_alone(&self, offsets: &[Offset]) {
        let mut state = self.state();
        for offset in offsets {
            if state.attempts(*offset).is_some() {
                state.batches.bind(vec![*offset], false);
            }
        }
        state.changes += 1;
        self.journal.unsaid(self.trigger);
    }

    /// Lets the deliveries of a batch go out as those that were never bound.
    pub fn unbind(&self, batch: BatchNumber) {
        let mut state = self.state();
        state.batches.unbind(batch);
        state.changes += 1;
        self.journal.unsaid(self.trigger);
    }

    /// The batch that a delivery is bound to, and how many deliveries that has.
    pub fn batch_of(&self, offset: Offset) -> Option<(BatchNumber, usize)> {
        self.state().batches.of(offset)
    }

    /// What is in a batch; none where all of it is settled, or it was bound anew.
    pub fn bounds(&self, batch: BatchNumber) -> Option<BatchBounds> {
        self.state().batches.get(batch)
    }

    /// Settles deliveries that the subscriber took together, each with the attempt at it: all in one step, so that after
    /// an end of the process all are settled or none is. What is neither in the window nor waits is left out.
    ///
    /// On an error nothing changed.
    pub fn delivered(&self, all: Vec<(Offset, Attempt)>) -> Result<(), WriteError> {
        let mut state = self.state();
        let pending: Vec<_> =
            all.into_iter().filter(|(offset, _)| state.attempts(*offset).is_some()).collect();
        let offsets: Vec<Offset> = pending.iter().map(|(offset, _)| *offset).collect();
        let attempts_made = |offset| state.attempts(offset).unwrap_or(0).saturating_add(1);
        let delivered = pending.into_iter().map(|(offset, attempt)| Delivered {
            debt: self.debt(offset),
            attempt,
            attempts_made: attempts_made(offset),
        });
        self.journal.delivered(delivered.collect())?;
        for offset in offsets {
            state.remove(offset);
            state.count(Counted::Delivered, 1);
        }
        Ok(())
    }

    /// At how many unclean ends of the process in a row an attempt at the delivery was open, with no outcome in
    /// between. 0 of what is neither in the window nor waits. It is durable before the log is open.
    pub fn crashes(&self, offset: Offset) -> u32 {
        let state = self.state();
        let crashes = match state.window.get(&offset) {
            Some(flight) => flight.crashes,
            None => state.schedule.get(offset).map_or(0, |waiting| waiting.crashes),
        };
        u32::from(crashes)
    }

    /// Notes a failed attempt at what is in the window, and returns how many were made in all. Of what is not in
    /// the window nothing is noted.
    pub fn attempted(&self, offset: Offset, attempt: Attempt) -> u32 {
        let mut state = self.state();
        let Some(flight) = state.window.get_mut(&offset) else {
            return state.schedule.get(offset).map_or(0, |waiting| waiting.attempts);
        };
        flight.attempts = flight.attempts.saturating_add(1);
        (flight.open, flight.crashes) = (false, 0);
        let made = flight.attempts;
        state.batches.set_open(offset, false);
        state.changes += 1;
        self.journal.attempted(self.debt(offset), attempt);
        made
    }

    /// Moves a delivery from the window to the schedule, or changes when it is due where it stands there already.
    /// From then on the log may be trimmed above it: the body is kept elsewhere. Of what is in neither nothing
    /// changes.
    pub fn wait(&self, entry: &Arc<Entry>, due: Timestamp) -> Result<(), WriteError> {
        let offset = entry.position.offset;
        let mut state = self.state();
        let Some(attempts) = state.attempts(offset) else { return Ok(()) };
        let key = state.key(offset);
        let charge = self.journal.waiting(self.debt(offset), entry, due, attempts, key)?;
        let crashes = match state.window.remove(&offset) {
            Some(flight) => flight.crashes,
            None => state.schedule.get(offset).map_or(0, |waiting| waiting.crashes),
        };
        state.changes += 1;
        let entry = self.journal.keeps_bodies_in_memory().then(|| Arc::clone(entry));
        let waiting = Waiting::new(Some(due), attempts, crashes, key).with_body(entry, charge);
        state.schedule.put(offset, waiting);
        Ok(())
    }

    /// Moves the deliveries whose wait is over at `now` from the schedule to the window, the longest due first. With one
    /// of a batch come the others of it, whenever they are due: only then it may be more than `limit`.
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        let mut state = self.state();
        let mut all = Vec::new();
        while all.len() < limit {
            let Some((offset, waiting)) = state.schedule.pop_due(now) else { break };
            let key = waiting.key;
            state.schedule.put(offset, waiting.hold());
            // It waited before its trigger was to keep the order, where another of its key is ahead.
            if key.is_none_or(|key| state.order.turn(key, offset) == Turn::Now) {
                all.extend(state.unschedule(offset));
                all.extend(state.unschedule_batch_of(offset));
            }
        }
        all
    }

    /// When the next wait is over.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.state().schedule.next_due()
    }

    /// Settles what is in the window or waits, with the attempt that decided it where one was made. A dead letter
    /// is put into the store in the same step.
    ///
    /// On an error nothing changed: the debt stays pending, and is delivered again after a restart.
    pub fn settle(
        &self,
        offset: Offset,
        settlement: Settlement,
        attempt: Option<Attempt>,
    ) -> Result<Settled, WriteError> {
        let mut state = self.state();
        let Some(made) = state.attempts(offset) else { return Ok(Settled::Already) };
        let attempts_made = made.saturating_add(u32::from(attempt.is_some()));
        let outcome = Counted::of(&settlement);
        let entry = state.entry(offset);
        self.journal.settled(Settling {
            debt: self.debt(offset),
            entry,
            readable: state.readable(offset),
            accepted: state.accepted.get(&offset).copied(),
            settlement,
            attempt,
            attempts_made,
        })?;
        state.remove(offset);
        state.count(outcome, 1);
        Ok(Settled::Now)
    }

    /// Drops everything that is pending, and what is not taken up to `examined`, the end of the examined range
    /// ([`crate::Matches::matched`]), with it. Returns how many were dropped; on an error the rest stays pending.
    pub fn drop_all(&self, reason: DropReason, examined: Offset) -> Result<u64, WriteError> {
        let mut state = self.state();
        let mut dropped = 0;
        while let Some(offset) = state.first_taken() {
            self.journal.settled(Settling {
                debt: self.debt(offset),
                entry: state.entry(offset),
                readable: state.readable(offset),
                accepted: None,
                settlement: Settlement::Dropped(reason),
                attempt: None,
                attempts_made: state.attempts(offset).unwrap_or(0),
            })?;
            state.remove(offset);
            state.count(Counted::Dropped(reason), 1);
            dropped += 1;
        }
        // A match is never beyond `matched_end`, so none of those dropped here is taken later, whatever the
        // reader recorded since `examined` was read.
        let next = state.next.max(examined).max(state.matched_end);
        let untaken = state.untaken;
        self.journal.passed_over(self.partition, self.trigger, reason, untaken, next)?;
        state.untaken = 0;
        state.placed = true;
        state.next = next;
        state.changes += 1;
        state.count(Counted::Dropped(reason), untaken);
        Ok(dropped + untaken)
    }

    /// Notes which outputs of a delivery's transformations the subscriber has, in the place of what was noted before. Of
    /// what is neither in the window nor waits nothing is noted, nor where as many deliveries have such a note as may
    /// ([`ACCEPTED_LIMIT`]): all of its outputs are sent again then.
    pub fn accept(&self, offset: Offset, outputs: AcceptedOutputs) {
        let mut state = self.state();
        let full = state.accepted.len() >= ACCEPTED_LIMIT && !state.accepted.contains_key(&offset);
        if full || state.attempts(offset).is_none() {
            return;
        }
        state.accepted.insert(offset, outputs);
        state.changes += 1;
        self.journal.accepted(self.debt(offset), outputs);
    }

    /// Which outputs of a delivery that is pending the subscriber has, where that was noted.
    pub fn accepted(&self, offset: Offset) -> Option<AcceptedOutputs> {
        self.state().accepted.get(&offset).copied()
    }

    /// How many attempts were made at a delivery that is in the window or waits; 0 of any other.
    pub fn attempts_made(&self, offset: Offset) -> u32 {
        self.state().attempts(offset).unwrap_or(0)
    }

    /// The last attempts at a delivery, the newest last: at most [`ATTEMPTS_KEPT`], fewer where the journal has
    /// forgotten some.
    pub fn attempts(&self, offset: Offset) -> Vec<Attempt> {
        self.journal.attempts(self.debt(offset))
    }

    /// What was taken and neither settled nor put into the schedule, with the attempts made, in order of offsets.
    /// At the start of the process these are delivered again.
    pub fn window(&self) -> Vec<(Offset, u32)> {
        self.state().window.iter().map(|(offset, flight)| (*offset, flight.attempts)).collect()
    }

    /// The oldest offset that is owed, whether it was taken, waits or is not taken yet. None where nothing is pending.
    pub fn oldest(&self) -> Option<Offset> {
        let state = self.state();
        let untaken = (state.untaken > 0).then(|| state.oldest_untaken.max(state.next));
        let taken = state.window.keys().next().copied();
        [taken, state.schedule.first(), untaken].into_iter().flatten().min()
    }

    /// The oldest that wait, in order of offsets, from those below `before`.
    pub fn waiting_below(&self, before: Offset, limit: usize) -> Vec<Offset> {
        self.state().schedule.range(0..before).take(limit).collect()
    }

    /// The oldest offset that must stay readable in the log for this trigger. None where it holds nothing.
    pub fn floor(&self) -> Option<Offset> {
        let state = self.state();
        let flying = state.window.iter().find(|(_, flight)| !flight.parked).map(|(offset, _)| *offset);
        let untaken = (state.untaken > 0).then(|| state.oldest_untaken.max(state.next));
        [flying, untaken, state.reserved].into_iter().flatten().min()
    }

    /// Keeps the log from `from` on although nothing there is owed: what reads it will find matches there. It holds as long
    /// as the process, or until `None` is said. A log in memory takes no heed of it.
    pub fn reserve(&self, from: Option<Offset>) {
        self.state().reserved = from;
    }

    /// Adds a match, in the same step in which the log puts it into its match list. False where it cannot become
    /// a debt any more because taking has passed it: then it must not be in the match list either.
    pub(crate) fn matched(&self, offset: Offset) -> bool {
        let mut state = self.state();
        if offset < state.next {
            return false;
        }
        state.oldest_untaken = if state.untaken == 0 { offset } else { state.oldest_untaken.min(offset) };
        state.matched_end = state.matched_end.max(offset + 1);
        state.placed = true;
        state.matched += 1;
        state.untaken += 1;
        state.changes += 1;
        true
    }

    /// Whether this trigger needs the record at `offset`, which it matched, to stay readable in the log. Once this
    /// was false for an offset it stays so.
    pub(crate) fn holds(&self, offset: Offset) -> bool {
        let state = self.state();
        if offset >= state.next {
            return state.untaken > 0;
        }
        state.window.get(&offset).is_some_and(|flight| !flight.parked)
    }

    /// Where the debt stands, if it is one.
    pub(crate) fn place(&self, offset: Offset) -> Place {
        let state = self.state();
        if offset >= state.next {
            return if state.untaken > 0 { Place::Untaken } else { Place::Gone };
        }
        if state.window.contains_key(&offset) {
            return Place::Window;
        }
        let waiting = |waiting: &Waiting| waiting.due().map_or(Place::Held, Place::Waiting);
        state.schedule.get(offset).map_or(Place::Gone, waiting)
    }

    /// Puts in the number of matches from `next` on, as `count_from(next)` finds it in the match lists, and what
    /// follows from it. The caller sees to it that no match is added meanwhile.
    pub(crate) fn recount(&self, count_from: impl FnOnce(Offset) -> u64) -> Recount {
        let mut state = self.state();
        let recorded = state.counts();
        state.untaken = count_from(state.next);
        state.oldest_untaken = state.next;
        state.changes += 1;
        let pending = state.counts().pending;
        state.matched = state.delivered + state.dead_lettered + state.dropped.total() + pending;
        Recount { recorded, counted: state.counts() }
    }

    /// Forgets everything: the trigger is gone. What is settled later changes nothing.
    pub(crate) fn clear(&self) {
        *self.state() = State::empty(false);
    }

    fn debt(&self, offset: Offset) -> Debt {
        Debt { position: Position { partition: self.partition, offset }, trigger: self.trigger }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("trigger", &self.trigger)
            .field("partition", &self.partition)
            .field("next", &self.next())
            .field("counts", &self.counts())
            .finish()
    }
}

/// Which counter a settlement moves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted {
    Delivered,
    DeadLettered,
    Dropped(DropReason),
}

impl Counted {
    fn of(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Delivered => Self::Delivered,
            Settlement::Dropped(reason) => Self::Dropped(*reason),
            Settlement::DeadLettered(..) => Self::DeadLettered,
        }
    }
}
