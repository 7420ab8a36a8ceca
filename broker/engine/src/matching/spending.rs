//! How often the evaluation of a trigger's filter used up its steps.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// After so many evaluations in a row that used up their steps the trigger is not ready.
pub(crate) const MAX_SPENT_IN_A_ROW: u32 = 16;

/// Counts evaluations that used up their steps: none of those events matched.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    total: AtomicU64,
    in_a_row: AtomicU32,
}

impl Spending {
    /// An evaluation used up its steps.
    pub(crate) fn spent(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        // A reader counts at a time, and one more or less says the same.
        let in_a_row = self.in_a_row.load(Ordering::Relaxed);
        self.in_a_row.store(in_a_row.saturating_add(1), Ordering::Relaxed);
    }

    /// An evaluation came to an end, or the filter is another one.
    pub(crate) fn forget(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Evaluations that used up their steps since the start of the process.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether so many did in a row that the trigger cannot be called ready.
    pub(crate) fn is_excessive(&self) -> bool {
        self.in_a_row.load(Ordering::Relaxed) >= MAX_SPENT_IN_A_ROW
    }
}
