//! The counts of a ledger (promise P2).

use std::fmt;

/// The counts of a ledger at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Debts that ever were.
    pub matched: u64,
    /// Debts that the subscriber has.
    pub delivered: u64,
    /// Debts that were given up. Never falls: a dead letter that is sent again is counted for itself.
    pub dead_lettered: u64,
    /// Debts that were dropped because someone asked for it.
    pub dropped: Dropped,
    /// Debts that are open: counted in the three places below, never the result of a subtraction.
    pub pending: u64,
    /// Open debts that are taken and being delivered.
    pub window: u64,
    /// Open debts that wait.
    pub scheduled: u64,
    /// Open debts that are not taken yet.
    pub untaken: u64,
}

impl Counts {
    /// Whether `matched = delivered + deadLettered + dropped + pending`.
    pub fn holds(&self) -> bool {
        self.pending == self.window + self.scheduled + self.untaken
            && self.matched == self.delivered + self.dead_lettered + self.dropped.total() + self.pending
    }

    /// Both together: a trigger's counts are those of its partitions.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.matched += other.matched;
        self.delivered += other.delivered;
        self.dead_lettered += other.dead_lettered;
        for (reason, count) in other.dropped.iter() {
            self.dropped.add(reason, count);
        }
        self.pending += other.pending;
        self.window += other.window;
        self.scheduled += other.scheduled;
        self.untaken += other.untaken;
        self
    }
}

/// Why a debt was dropped: what a manifest, an operator or the event itself asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The trigger's `deadline` had passed.
    Deadline,
    /// The event's own `expirytime` had passed.
    Expired,
    /// An operator skipped it.
    Operator,
    /// The trigger or its broker was detached for longer than detached data is kept.
    Detached,
    /// The trigger's transformations gave no event.
    Filtered,
    /// The trigger's `maxBacklog` says so.
    Backlog,
    /// The data did not follow the schema of a transformation that says to drop.
    Schema,
    /// A transformation failed whose `onError` says to drop.
    Failed,
}

impl DropReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Deadline,
        Self::Expired,
        Self::Operator,
        Self::Detached,
        Self::Filtered,
        Self::Backlog,
        Self::Schema,
        Self::Failed,
    ];

    /// The reason as metrics and the status name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Expired => "expired",
            Self::Operator => "operator",
            Self::Detached => "detached",
            Self::Filtered => "filtered",
            Self::Backlog => "backlog",
            Self::Schema => "schema",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many debts were dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped([u64; DropReason::ALL.len()]);

impl Dropped {
    /// How many were dropped for `reason`.
    pub fn by(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were dropped in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.by(reason)))
    }

    pub(crate) fn add(&mut self, reason: DropReason, count: u64) {
        self.0[reason as usize] += count;
    }
}

/// What counting anew found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    /// What the ledger said before.
    pub recorded: Counts,
    /// What was counted, and what the ledger says now.
    pub counted: Counts,
}

impl Recount {
    /// Whether the ledger was wrong.
    pub fn differs(&self) -> bool {
        self.recorded != self.counted
    }
}
