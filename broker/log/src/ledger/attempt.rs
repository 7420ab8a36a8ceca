//! One try to deliver an event.

use bytes::Bytes;
use waypost_core::Code;

use crate::clock::Timestamp;

/// The most attempts that are kept of one delivery, the newest.
pub const ATTEMPTS_KEPT: usize = 16;

/// One try to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began.
    pub started: Timestamp,
    /// When its outcome was known.
    pub ended: Timestamp,
    /// How it ended.
    pub outcome: AttemptOutcome,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The subscriber has the event.
    Delivered {
        /// The status that it answered, where it speaks HTTP.
        status: Option<u16>,
    },
    /// The subscriber does not have it, as far as is known.
    Failed {
        /// The stable code.
        code: Code,
        /// The status that it answered, where it answered.
        status: Option<u16>,
        /// One sentence for people.
        detail: String,
        /// The beginning of the body that it answered with.
        body_excerpt: Option<Bytes>,
    },
}

impl Attempt {
    /// The bytes that the attempt takes beside its own structure.
    pub(crate) fn heap_size(&self) -> usize {
        match &self.outcome {
            AttemptOutcome::Delivered { .. } => 0,
            AttemptOutcome::Failed { detail, body_excerpt, .. } => {
                detail.len() + body_excerpt.as_ref().map_or(0, Bytes::len)
            }
        }
    }
}
