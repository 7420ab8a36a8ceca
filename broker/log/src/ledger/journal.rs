//! Through what a ledger tells its backend of changes that must survive.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::WriteError;
use crate::ledger::{AcceptedOutputs, Attempt, DropReason, Key, Settlement};
use crate::log::TriggerNumber;
use crate::record::{Charge, Entry, Offset, Position};

/// One debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Debt {
    pub(crate) position: Position,
    pub(crate) trigger: TriggerNumber,
}

/// A settlement on its way into the journal.
#[derive(Debug)]
pub(crate) struct Settling<'a> {
    pub(crate) debt: Debt,
    /// The event, where the ledger has it at hand.
    pub(crate) entry: Option<&'a Arc<Entry>>,
    /// Whether the record can be read, as far as is known.
    pub(crate) readable: bool,
    /// The outputs that the subscriber has.
    pub(crate) accepted: Option<AcceptedOutputs>,
    pub(crate) settlement: Settlement,
    /// The attempt that decided it, where one was made.
    pub(crate) attempt: Option<Attempt>,
    /// All attempts, that one included.
    pub(crate) attempts_made: u32,
}

/// A delivery on its way into the journal, that the subscriber took together with others.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) debt: Debt,
    pub(crate) attempt: Attempt,
    /// All attempts, that one included.
    pub(crate) attempts_made: u32,
}

/// Notes the changes of ledgers. Each call is made under the ledger's lock, in the order of the changes and before
/// the ledger shows the change; after an error the ledger is as before. An implementation never calls a ledger.
pub(crate) trait Journal: fmt::Debug + Send + Sync {
    /// A failed attempt at what stays in the window.
    fn attempted(&self, debt: Debt, attempt: Attempt);

    /// The subscriber has these outputs of what is pending. What cannot be noted is sent again.
    fn accepted(&self, debt: Debt, outputs: AcceptedOutputs);

    /// A delivery goes to the schedule until `due`. What is returned is held as long as it waits there.
    fn waiting(
        &self,
        debt: Debt,
        entry: &Arc<Entry>,
        due: Timestamp,
        attempts_made: u32,
        key: Option<Key>,
    ) -> Result<Option<Charge>, WriteError>;

    /// A delivery goes to the schedule until those ahead of it under its key are settled.
    fn held(&self, debt: Debt, entry: &Arc<Entry>, key: Key) -> Result<Option<Charge>, WriteError>;

    /// A debt is settled; a dead letter is put into the store.
    fn settled(&self, settling: Settling<'_>) -> Result<(), WriteError>;

    /// Debts are settled that the subscriber took together: after an end of the process all are, or none.
    fn delivered(&self, all: Vec<Delivered>) -> Result<(), WriteError>;

    /// `untaken` debts below `next` are dropped without having been taken.
    fn passed_over(
        &self,
        partition: u16,
        trigger: TriggerNumber,
        reason: DropReason,
        untaken: u64,
        next: Offset,
    ) -> Result<(), WriteError>;

    /// Something changed in the ledger of this trigger that only the checkpoint tells of, and soon should.
    fn unsaid(&self, trigger: TriggerNumber);

    /// The ledger of this trigger is no longer what was written down of it. Told with every change, while the ledger is
    /// held, but for those of which the journal hears anyway.
    fn changed(&self, trigger: TriggerNumber);

    /// The ledger is being written down as it is now, while it is held.
    fn written_down(&self);

    /// The last attempts at a delivery, the newest last.
    fn attempts(&self, debt: Debt) -> Vec<Attempt>;

    /// Whether the schedule itself must keep the events that wait.
    fn keeps_bodies_in_memory(&self) -> bool;
}
