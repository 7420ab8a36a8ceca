//! The log and the ledger: what a broker has accepted, whom it owes each event, and what became of each debt.
//!
//! A broker has one [`Log`] of one or more partitions. In each partition records stand in the order of their
//! commit:
//!
//! ```text
//!        start                     matched                end
//!          |                          |                    |
//!   - - - -[====|====|====|===========|====|====|====|====)- - - ->  offset
//!     trimmed     every record has     committed, not yet     appended, not
//!                 its match list       seen by the reader     yet committed
//! ```
//!
//! The broker's shared reader examines records in that order and writes for each the numbers of the triggers
//! that match it ([`Matches::record_matches`]). From then on the pair (position, trigger) is a debt, and the
//! trigger's [`Ledger`] knows at every moment in which one of four places it is:
//!
//! ```text
//!                      take                    settle
//!   matched ─▶ untaken ────▶ window ─────────────────▶ delivered | deadLettered | dropped
//!                              │  ▲
//!                         wait ▼  │ due
//!                            schedule
//! ```
//!
//! `matched = delivered + deadLettered + dropped + pending` holds at every moment, where `pending` is the count of
//! what stands in the first three places, never the result of a subtraction.
//!
//! Every backend runs the same conformance suite (module `suite`, feature `suite`).

pub mod clock;
mod commit;
pub mod dead_letter;
pub mod embedded;
pub mod error;
pub mod ledger;
pub mod log;
pub mod memory;
pub mod record;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use clock::{Clock, Timestamp};
pub use commit::{Commit, Committed};
pub use dead_letter::{
    DeadLetter, DeadLetterId, DeadLetterReason, DeadLetters, FailedAgain, Forwarding, LetterClaim,
    LetterClaims, LetterRecord, LetterSelection, RedriveId,
};
pub use error::{AppendError, CommitError, ReadError, WriteError};
pub use ledger::{
    AcceptedOutputs, Attempt, AttemptOutcome, BLOCKED_KEYS_LIMIT, BatchBounds, BatchNumber, Counts, Crowding,
    DropReason, Dropped, Due, Key, Ledger, Opened, Outcome, OutcomeState, Recount, Settled, Settlement, Turn,
    WAITING_LIMIT,
};
pub use log::{
    Bounds, Durability, Epoch, Ledgers, Log, MatchBatch, Matches, Owed, PlanRecord, PlanVersion, ReadLimit,
    Records, Scope, TriggerNumber, Usage,
};
pub use record::{
    Batch, Cause, Checkpoint, Entry, Hold, InvalidPosition, Metadata, Offset, Origin, Position, Record,
};
