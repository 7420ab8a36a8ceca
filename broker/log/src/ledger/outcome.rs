//! What is known of one debt, for whoever asks why.

use crate::clock::Timestamp;
use crate::ledger::{Attempt, DropReason};

/// What became of one event for one trigger that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where the debt stands, or how it was settled.
    pub state: OutcomeState,
    /// The last attempts that are still known, the newest last; at most [`crate::ledger::ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
}

/// Where a debt stands, or how it was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeState {
    /// Pending: the trigger has not come to it.
    Untaken,
    /// Pending: it is being delivered.
    InFlight,
    /// Pending: it waits.
    Waiting {
        /// When the next attempt is due.
        due: Timestamp,
    },
    /// Pending: it waits for the one ahead of it under its key.
    Held,
    /// The subscriber has it.
    Delivered,
    /// It was given up.
    DeadLettered,
    /// It was dropped.
    Dropped(DropReason),
    /// It was settled, and the log no longer knows how.
    Unknown,
}

impl OutcomeState {
    /// The state as `explain` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untaken => "untaken",
            Self::InFlight => "inFlight",
            Self::Waiting { .. } => "waiting",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::DeadLettered => "deadLettered",
            Self::Dropped(_) => "dropped",
            Self::Unknown => "unknown",
        }
    }
}
