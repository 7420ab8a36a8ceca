//! What a failure of an outside system means, whichever system it is: the one answer that each client file gives.

use std::time::Duration;

use waypost_core::source::SourceError;
use waypost_core::{Class, Code, DeliveryError, codes};

/// What went wrong, as far as it matters for what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The system cannot be reached, does not answer in time, or is not itself for the moment. It may pass.
    Unavailable,
    /// The system asks for less. It may pass.
    Overloaded,
    /// The system refuses who we are, what we may do, or we do not trust it. Someone has to change something.
    Unauthorized,
    /// What the settings name is not there: a topic, a queue, a bucket. Someone has to change something.
    Absent,
    /// The settings cannot work, or a secret that they name is not there. Someone has to change something.
    Settings,
    /// The system will never take this event; it may take others.
    Refused,
}

/// A failure of an outside system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// What it means.
    pub kind: ProblemKind,
    /// One sentence for people, with what to do where that is known. No trailing full stop.
    pub detail: String,
    /// The least time to wait, where the system named one.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A failure that names no time to wait.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    /// The same failure where it depends on values of the event, such as a topic that a template named: others may
    /// be taken, so that nothing that someone could change is said to be wrong.
    #[must_use]
    pub fn of_this_event(mut self) -> Self {
        if matches!(self.kind, ProblemKind::Absent | ProblemKind::Settings) {
            self.kind = ProblemKind::Refused;
        }
        self
    }

    /// Whether it may pass without anyone changing anything.
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, ProblemKind::Unavailable | ProblemKind::Overloaded)
    }

    fn class(&self) -> Class {
        match self.kind {
            ProblemKind::Unavailable | ProblemKind::Overloaded => Class::Retryable,
            ProblemKind::Unauthorized | ProblemKind::Absent | ProblemKind::Settings => Class::Misconfigured,
            ProblemKind::Refused => Class::Permanent,
        }
    }

    fn code(&self, codes: [Code; 5]) -> Code {
        let [unavailable, unauthorized, absent, settings, refused] = codes;
        match self.kind {
            ProblemKind::Unavailable | ProblemKind::Overloaded => unavailable,
            ProblemKind::Unauthorized => unauthorized,
            ProblemKind::Absent => absent,
            ProblemKind::Settings => settings,
            ProblemKind::Refused => refused,
        }
    }
}

impl From<Problem> for DeliveryError {
    fn from(problem: Problem) -> Self {
        let code = problem.code([
            codes::SINK_UNAVAILABLE,
            codes::SINK_UNAUTHORIZED,
            codes::SINK_TARGET_ABSENT,
            codes::SINK_MISCONFIGURED,
            codes::SINK_REFUSED,
        ]);
        let (class, congested) = (problem.class(), problem.may_pass());
        let error = match class {
            Class::Retryable => Self::retryable(code, problem.detail),
            Class::Permanent => Self::permanent(code, problem.detail),
            Class::Misconfigured => Self::misconfigured(code, problem.detail),
        };
        Self { retry_after: problem.retry_after, congested, ..error }
    }
}

impl From<Problem> for SourceError {
    fn from(problem: Problem) -> Self {
        let code = problem.code([
            codes::SOURCE_UNAVAILABLE,
            codes::SOURCE_UNAUTHORIZED,
            codes::SOURCE_UPSTREAM_ABSENT,
            codes::SOURCE_MISCONFIGURED,
            codes::SOURCE_MISCONFIGURED,
        ]);
        Self { code, class: problem.class(), detail: problem.detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_retried_and_what_someone_must_change_pauses() {
        for (kind, class, congested) in [
            (ProblemKind::Unavailable, Class::Retryable, true),
            (ProblemKind::Overloaded, Class::Retryable, true),
            (ProblemKind::Unauthorized, Class::Misconfigured, false),
            (ProblemKind::Absent, Class::Misconfigured, false),
            (ProblemKind::Settings, Class::Misconfigured, false),
            (ProblemKind::Refused, Class::Permanent, false),
        ] {
            let error = DeliveryError::from(Problem::new(kind, "x"));
            assert_eq!((error.class, error.congested), (class, congested), "{kind:?}");
            assert_eq!(SourceError::from(Problem::new(kind, "x")).class, class, "{kind:?}");
        }
    }

    #[test]
    fn what_depends_on_the_event_is_permanent_and_never_misconfigured() {
        for (kind, expected) in [
            (ProblemKind::Absent, ProblemKind::Refused),
            (ProblemKind::Settings, ProblemKind::Refused),
            (ProblemKind::Unauthorized, ProblemKind::Unauthorized),
            (ProblemKind::Unavailable, ProblemKind::Unavailable),
        ] {
            assert_eq!(Problem::new(kind, "x").of_this_event().kind, expected);
        }
    }
}
