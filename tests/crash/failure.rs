//! Why a test of this program failed or could not be made.

use std::io;

/// A test that failed, or could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The operating system refused something that the test needs.
    #[error("{doing} failed: {source}")]
    Io { doing: String, source: io::Error },
    /// Waypost did something that it must not do.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    /// For `map_err`: what was being done when the operating system refused.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// Fails with a sentence unless something holds.
pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Broken(otherwise())) }
}
