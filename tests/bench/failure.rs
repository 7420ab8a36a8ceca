//! Why a measurement has no result.

use std::io;

/// Why a measurement has no result, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{doing} failed: {source}")]
    Io { doing: String, source: io::Error },
    #[error("{what} does not speak as expected: {detail}")]
    Protocol { what: &'static str, detail: String },
    #[error("Waypost was not ready after {seconds} s; its log ends with:\n{log}")]
    NotReady { seconds: u64, log: String },
    #[error("Waypost did not stop cleanly ({status}); its log ends with:\n{log}")]
    NotStopped { status: String, log: String },
    #[error(
        "this waypost acknowledges events without writing them to its data directory, so there is no durable log to \
         measure: build a newer one, or pass --logs memory"
    )]
    NotDurable,
    #[error(
        "{accepted} events were accepted, but of the {expected} deliveries that they make only {delivered} came \
         within {seconds} s without progress ({case})"
    )]
    Lost { case: String, accepted: u64, expected: u64, delivered: u64, seconds: u64 },
    #[error("nothing was accepted ({case}): {detail}")]
    NothingAccepted { case: String, detail: String },
}

impl Failure {
    /// For `map_err`: what was being done when the operating system refused.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// For `map_err`, with an error of rustix.
    pub(crate) fn os(doing: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |error| Self::Io { doing: doing.to_owned(), source: error.into() }
    }
}
