//! What ledgers write down: outcomes and dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use waypost_core::manifest::ResourceName;

use crate::clock::{Clock, Timestamp};
use crate::dead_letter::{DeadLetters, Forwarding};
use crate::error::WriteError;
use crate::ledger::{
    AcceptedOutputs, Attempt, Debt, Delivered, DropReason, Journal, Key, OutcomeState, Settlement, Settling,
};
use crate::log::TriggerNumber;
use crate::memory::dead_letters::{DeadLetterStore, NewDeadLetter};
use crate::memory::outcomes::Outcomes;
use crate::record::{Charge, Entry, Offset};

/// What a delivery that waits costs besides the event: its places in the schedule.
const WAITING_OVERHEAD: u64 = 160;

/// The books of a log.
#[derive(Debug)]
pub(super) struct Books {
    clock: Clock,
    used: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    outcomes: Vec<Mutex<Outcomes>>,
    dead_letters: Arc<DeadLetterStore>,
}

impl Books {
    pub(super) fn new(partitions: u16, clock: Clock, used: Arc<AtomicU64>) -> Self {
        let closed = Arc::new(AtomicBool::new(false));
        Self {
            clock,
            outcomes: (0..partitions).map(|_| Mutex::new(Outcomes::of_one_in(partitions))).collect(),
            dead_letters: Arc::new(DeadLetterStore::new(Arc::clone(&used), Arc::clone(&closed))),
            used,
            closed,
        }
    }

    /// Lets nothing be written any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn check_open(&self) -> Result<(), WriteError> {
        if self.closed() { Err(WriteError::Closed) } else { Ok(()) }
    }

    pub(super) fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::clone(&self.dead_letters) as Arc<dyn DeadLetters>
    }

    /// How a debt was settled and the last attempts at it, as far as they are still known.
    pub(super) fn outcome(&self, debt: Debt) -> (Option<OutcomeState>, Vec<Attempt>) {
        self.of(debt.position.partition).lock().find(debt.position.offset, debt.trigger)
    }

    fn of(&self, partition: u16) -> &Mutex<Outcomes> {
        &self.outcomes[usize::from(partition)]
    }
}

/// The books as one trigger's ledgers write in them.
#[derive(Debug)]
pub(super) struct TriggerBooks {
    trigger: Arc<ResourceName>,
    books: Arc<Books>,
}

impl TriggerBooks {
    pub(super) fn new(trigger: Arc<ResourceName>, books: Arc<Books>) -> Self {
        Self { trigger, books }
    }
}

impl Journal for TriggerBooks {
    fn attempted(&self, debt: Debt, attempt: Attempt) {
        let mut outcomes = self.books.of(debt.position.partition).lock();
        outcomes.note(debt.position.offset, debt.trigger, Some(attempt), None, true);
    }

    fn accepted(&self, _debt: Debt, _outputs: AcceptedOutputs) {}

    fn waiting(
        &self,
        _debt: Debt,
        _entry: &Arc<Entry>,
        _due: Timestamp,
        _attempts_made: u32,
        _key: Option<Key>,
    ) -> Result<Option<Charge>, WriteError> {
        self.books.check_open()?;
        Ok(Some(Charge::take(&self.books.used, WAITING_OVERHEAD)))
    }

    fn held(&self, _debt: Debt, _entry: &Arc<Entry>, _key: Key) -> Result<Option<Charge>, WriteError> {
        self.books.check_open()?;
        Ok(Some(Charge::take(&self.books.used, WAITING_OVERHEAD)))
    }

    fn settled(&self, settling: Settling<'_>) -> Result<(), WriteError> {
        self.books.check_open()?;
        let Settling { debt, entry, accepted, settlement, attempt, attempts_made, .. } = settling;
        let offset = debt.position.offset;
        let state = match &settlement {
            Settlement::Delivered => OutcomeState::Delivered,
            Settlement::Dropped(reason) => OutcomeState::Dropped(*reason),
            Settlement::DeadLettered(..) => OutcomeState::DeadLettered,
        };
        let failed_before = attempts_made > u32::from(attempt.is_some());
        let link = failed_before || state == OutcomeState::DeadLettered;
        let mut outcomes = self.books.of(debt.position.partition).lock();
        outcomes.note(offset, debt.trigger, attempt, Some(state), link);
        let Settlement::DeadLettered(reason, due) = settlement else { return Ok(()) };
        let (_, attempts) = outcomes.find(offset, debt.trigger);
        drop(outcomes);
        // What has no body cannot be sent anywhere.
        let due = due.filter(|_| entry.is_some());
        self.books.dead_letters.put(NewDeadLetter {
            trigger: ResourceName::clone(&self.trigger),
            position: debt.position,
            entry: entry.cloned(),
            reason,
            attempts,
            attempts_made,
            at: self.books.clock.now(),
            forwarding: due.map_or(Forwarding::Kept, |due| Forwarding::Waiting { attempts: 0, due }),
            accepted,
        });
        Ok(())
    }

    fn delivered(&self, all: Vec<Delivered>) -> Result<(), WriteError> {
        self.books.check_open()?;
        for Delivered { debt, attempt, attempts_made } in all {
            let mut outcomes = self.books.of(debt.position.partition).lock();
            let state = Some(OutcomeState::Delivered);
            outcomes.note(debt.position.offset, debt.trigger, Some(attempt), state, attempts_made > 1);
        }
        Ok(())
    }

    fn passed_over(
        &self,
        _partition: u16,
        _trigger: TriggerNumber,
        _reason: DropReason,
        _untaken: u64,
        _next: Offset,
    ) -> Result<(), WriteError> {
        self.books.check_open()
    }

    fn unsaid(&self, _trigger: TriggerNumber) {}

    fn changed(&self, _trigger: TriggerNumber) {}

    fn written_down(&self) {}

    fn attempts(&self, debt: Debt) -> Vec<Attempt> {
        self.books.outcome(debt).1
    }

    fn keeps_bodies_in_memory(&self) -> bool {
        true
    }
}
