//! Which triggers take an event.

pub(crate) mod recorded;

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use waypost_core::Event;
use waypost_core::filter::{Candidate, Filter};
use waypost_log::{PlanVersion, TriggerNumber};

use crate::subscription::Subscription;

/// The triggers of a broker at one version of the plan. A reader matches a record by exactly one of these.
pub(crate) struct Matcher {
    pub(crate) version: PlanVersion,
    rows: Vec<Row>,
}

/// One trigger.
pub(crate) struct Row {
    pub(crate) filter: Filter,
    pub(crate) number: TriggerNumber,
    /// None where the trigger has none in this process: what it matches is written down all the same.
    pub(crate) subscription: Option<Arc<Subscription>>,
}

impl Matcher {
    pub(crate) fn new(version: PlanVersion, rows: Vec<Row>) -> Self {
        Self { version, rows }
    }

    /// The rows of the triggers that take the event, as places in this matcher.
    pub(crate) fn matches(&self, event: &Event) -> SmallVec<[usize; 4]> {
        let candidate = Candidate::new(event);
        self.rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.filter.matches(&candidate) == Ok(true))
            .map(|(place, _)| place)
            .collect()
    }

    pub(crate) fn subscription(&self, place: usize) -> Option<&Arc<Subscription>> {
        self.rows[place].subscription.as_ref()
    }

    pub(crate) fn number(&self, place: usize) -> TriggerNumber {
        self.rows[place].number
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").field("version", &self.version).field("triggers", &self.rows.len()).finish()
    }
}
