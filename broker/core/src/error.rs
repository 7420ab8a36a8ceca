//! How a failure is classified. Adapters classify, only the engine's delivery state machine acts.

use std::io;
use std::time::Duration;

use crate::Code;

/// What a failure means for the event and for those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// The same event may succeed later, unchanged.
    Retryable,
    /// This event will never be accepted; others may be. Whatever depends on the event's own values is
    /// permanent, never misconfigured.
    Permanent,
    /// No event will be accepted until someone changes something. Nothing is dead-lettered for it.
    Misconfigured,
}

/// Whether something failed because this process, or the machine, has no file descriptor left (EMFILE, ENFILE), which says
/// nothing about what was to be opened.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23))
}

/// Why one attempt at one event failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({code})")]
pub struct DeliveryError {
    /// The stable code of the failure.
    pub code: Code,
    /// What the failure means for what happens next.
    pub class: Class,
    /// One sentence for people: what went wrong, and what to do where that is known. No trailing full stop.
    pub detail: String,
    /// The least time to wait before the next attempt, where the other side named one (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// The status that the other side answered, where it speaks HTTP.
    pub status: Option<u16>,
    /// The beginning of the body that the other side answered, at most [`BODY_EXCERPT_LIMIT`] bytes.
    pub body_excerpt: Option<bytes::Bytes>,
    /// Whether the failure says that the other side is overloaded or away, so that fewer attempts at a time
    /// should be made: a connection error, a timeout, 429 or 503.
    pub congested: bool,
}

/// The most bytes of an error body that are kept with an attempt.
pub const BODY_EXCERPT_LIMIT: usize = 4096;

impl DeliveryError {
    /// A failure that may pass.
    pub fn retryable(code: Code, detail: impl Into<String>) -> Self {
        Self::new(code, Class::Retryable, detail)
    }

    /// A failure that stays with this event.
    pub fn permanent(code: Code, detail: impl Into<String>) -> Self {
        Self::new(code, Class::Permanent, detail)
    }

    /// A failure of the configuration, whatever the event.
    pub fn misconfigured(code: Code, detail: impl Into<String>) -> Self {
        Self::new(code, Class::Misconfigured, detail)
    }

    /// Marks the failure as one of an overloaded or absent peer.
    #[must_use]
    pub fn congested(mut self) -> Self {
        self.congested = true;
        self
    }

    fn new(code: Code, class: Class, detail: impl Into<String>) -> Self {
        Self {
            code,
            class,
            detail: detail.into(),
            retry_after: None,
            status: None,
            body_excerpt: None,
            congested: false,
        }
    }
}
