//! What can go wrong with a log, one type per operation.

use waypost_core::Code;
use waypost_core::codes;

use crate::log::Epoch;
use crate::record::{Offset, Position};

/// Why a batch was not taken. Nothing of it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The size limit is reached, and nothing that is held can be given up.
    #[error(
        "the log is full: {used} of {limit} bytes are owed to triggers or held as dead letters; see in the status which trigger holds it, or raise the limit"
    )]
    Full {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// As much as may wait for the disk waits already. Nothing is wrong; a little later there is room.
    #[error("too many batches wait for the disk; send it again a little later")]
    Busy,
    /// The log is closed, or closing.
    #[error("the log is closed: the process is stopping")]
    Closed,
    /// A write or sync failed earlier; the log takes nothing until the process is started again.
    #[error(
        "the log stopped after a storage error ({reason}); repair the storage and start the process again"
    )]
    Failed {
        /// What failed.
        reason: String,
    },
}

impl AppendError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Full { .. } => codes::LOG_FULL,
            Self::Busy => codes::LOG_BUSY,
            Self::Closed => codes::LOG_CLOSED,
            Self::Failed { .. } => codes::LOG_FAILED,
        }
    }
}

/// Why a batch that was taken did not become durable. It may or may not be found in the log after a restart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the batch was not made durable: {reason}")]
pub struct CommitError {
    /// What failed.
    pub reason: String,
    /// Whether all that is wrong is that there was no room: then the batch is not in the log and never will be, and
    /// the log takes others once there is room.
    pub full: bool,
}

impl CommitError {
    /// The stable code.
    pub fn code(&self) -> Code {
        if self.full { codes::LOG_FULL } else { codes::LOG_FAILED }
    }
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The record is gone: retention trimmed it.
    #[error("the record is no longer in the log, which starts at offset {start}")]
    Trimmed {
        /// The oldest offset that can be read.
        start: Offset,
    },
    /// Nothing stands at this position yet.
    #[error("nothing stands at {position} yet")]
    Beyond {
        /// The position that was asked for.
        position: Position,
    },
    /// The record is damaged.
    #[error("the record at {position} is corrupt: {reason}")]
    Corrupt {
        /// The damaged position.
        position: Position,
        /// File, place and kind of the damage.
        reason: String,
    },
    /// Who matches these records is not known until their match lists are restored
    /// ([`crate::Matches::lost_matches`]).
    #[error("the match lists of records {from}..{to} are lost and not restored yet: {reason}")]
    MatchesLost {
        /// The first of them.
        from: Offset,
        /// The offset after the last.
        to: Offset,
        /// File, place and kind of the damage.
        reason: String,
    },
    /// The storage did not answer as it should.
    #[error("the log cannot be read: {reason}")]
    Failed {
        /// What failed.
        reason: String,
    },
}

impl ReadError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Trimmed { .. } => codes::LOG_TRIMMED,
            Self::Beyond { .. } => codes::LOG_BEYOND_END,
            Self::Corrupt { .. } | Self::MatchesLost { .. } => codes::LOG_CORRUPT,
            Self::Failed { .. } => codes::LOG_FAILED,
        }
    }
}

/// Why a match list, a plan or a change of the ledger was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Another node holds the partition now.
    #[error("the partition is held under epoch {current:?}, not {held:?}")]
    Fenced {
        /// The epoch of the writer.
        held: Epoch,
        /// The epoch in force.
        current: Epoch,
    },
    /// The log is closed, or closing.
    #[error("the log is closed: the process is stopping")]
    Closed,
    /// The storage refused.
    #[error("the log cannot be written: {reason}")]
    Failed {
        /// What failed.
        reason: String,
    },
}

impl WriteError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Fenced { .. } => codes::LOG_FENCED,
            Self::Closed => codes::LOG_CLOSED,
            Self::Failed { .. } => codes::LOG_FAILED,
        }
    }
}
