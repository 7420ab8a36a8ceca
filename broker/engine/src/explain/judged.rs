//! The verdict on one trigger, before it is told in full.

use waypost_core::filter::explain::Explanation;
use waypost_core::filter::{Candidate, Filter};

use super::Rank;

/// Whether a trigger matches, and where that puts it in the answer. Triggers may be many and the answer is short, so
/// that this is all that is kept of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) matched: bool,
    pub(super) rank: Rank,
}

impl Judged {
    /// What a filter says.
    pub(super) fn by(filter: &Filter, candidate: &Candidate<'_>) -> Self {
        if filter.matches(candidate) == Ok(true) {
            return Self::MATCHED;
        }
        Self { matched: false, rank: Some(Explanation::new(filter, candidate).distance()) }
    }

    /// A match.
    pub(super) const MATCHED: Self = Self { matched: true, rank: Some(0) };
    /// A trigger that takes no event.
    pub(super) const NEVER: Self = Self { matched: false, rank: None };
}
