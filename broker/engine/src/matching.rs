//! Which triggers take an event.

pub(crate) mod recorded;
pub(crate) mod spending;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use waypost_core::filter::index::{Index, Scratch};
use waypost_core::filter::{Candidate, Filter};
use waypost_core::manifest::Deduplication;
use waypost_log::{PlanVersion, TriggerNumber};

use crate::subscription::Subscription;

/// The triggers of a broker at one version of the plan. A reader matches a record by exactly one of these.
pub(crate) struct Matcher {
    pub(crate) version: PlanVersion,
    /// Which records match nobody because they repeat earlier ones.
    pub(crate) deduplication: Option<Deduplication>,
    /// In the order in which they are recorded.
    rows: Vec<Row>,
    /// The slot of each row in the index: it keeps its slot from one version to the next.
    slots: Vec<u32>,
    /// The place of the row with a slot; slots that are free have none.
    places: Vec<u32>,
    /// The places of rows whose filter is another one than in the version before.
    changed: Vec<usize>,
    index: Index,
}

/// One trigger.
pub(crate) struct Row {
    pub(crate) filter: Filter,
    pub(crate) number: TriggerNumber,
    /// None where the trigger has none in this process: what it matches is written down all the same.
    pub(crate) subscription: Option<Arc<Subscription>>,
}

const NO_PLACE: u32 = u32::MAX;

impl Matcher {
    /// The triggers in the order in which they are recorded. Changes the index of the version before where there is one, and
    /// builds one anew where there is none or that one has changed a lot. Computes for a second where there are hundreds
    /// of thousands of triggers.
    pub(crate) fn next(
        previous: Option<&Self>,
        version: PlanVersion,
        deduplication: Option<Deduplication>,
        rows: Vec<Row>,
    ) -> Self {
        let next = match previous {
            Some(previous) if !previous.index.is_worn() => previous.changed_to(version, rows),
            _ => Self::built(version, rows),
        };
        Self { deduplication, ..next }
    }

    fn built(version: PlanVersion, rows: Vec<Row>) -> Self {
        let slots: Vec<u32> = (0..).take(rows.len()).collect();
        let index = Index::build(slots.iter().copied().zip(rows.iter().map(|row| &row.filter)));
        let changed = (0..rows.len()).collect();
        Self { version, deduplication: None, rows, places: slots.clone(), slots, changed, index }
    }

    fn changed_to(&self, version: PlanVersion, rows: Vec<Row>) -> Self {
        let mut index = self.index.clone();
        let mut known: HashMap<TriggerNumber, usize> =
            self.rows.iter().enumerate().map(|(place, row)| (row.number, place)).collect();
        let mut slots = vec![NO_PLACE; rows.len()];
        let mut changed = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let Some(before) = known.remove(&row.number) else { continue };
            slots[place] = self.slots[before];
            let old = &self.rows[before].filter;
            if *old != row.filter {
                index.remove(self.slots[before], old);
                index.insert(self.slots[before], &row.filter);
                changed.push(place);
            }
        }
        for gone in known.into_values() {
            index.remove(self.slots[gone], &self.rows[gone].filter);
        }
        let mut places = vec![NO_PLACE; self.places.len()];
        for (place, slot) in (0_u32..).zip(&slots).filter(|(_, slot)| **slot != NO_PLACE) {
            places[*slot as usize] = place;
        }
        let mut free: Vec<u32> =
            (0..).zip(&places).filter(|(_, place)| **place == NO_PLACE).map(|(slot, _)| slot).collect();
        // The lowest first.
        free.reverse();
        for (place, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| **slot == NO_PLACE) {
            let at = u32::try_from(place).expect("a broker has fewer triggers than an index has slots");
            *slot = free.pop().unwrap_or_else(|| {
                places.push(NO_PLACE);
                u32::try_from(places.len() - 1).expect("there are as many slots as triggers at most")
            });
            places[*slot as usize] = at;
            index.insert(*slot, &rows[place].filter);
            changed.push(place);
        }
        Self { version, deduplication: None, rows, slots, places, changed, index }
    }

    /// The rows of the triggers that take the event, as places in this matcher, in their order. What `scratch` tells of
    /// steps is to be passed to [`Matcher::count_spending`].
    pub(crate) fn matches(&self, candidate: &Candidate<'_>, scratch: &mut Scratch) -> SmallVec<[usize; 4]> {
        self.index.matches(candidate, scratch);
        let mut places: SmallVec<[usize; 4]> =
            scratch.matched().iter().map(|slot| self.place(*slot)).collect();
        places.sort_unstable();
        places
    }

    fn place(&self, slot: u32) -> usize {
        self.places[slot as usize] as usize
    }

    /// Counts for each trigger how often the evaluation of its filter used up its steps.
    pub(crate) fn count_spending(&self, scratch: &Scratch) {
        for slot in scratch.over_budget() {
            if let Some(subscription) = self.subscription(self.place(*slot)) {
                subscription.spending().spent();
            }
        }
        for slot in scratch.within_budget() {
            if let Some(subscription) = self.subscription(self.place(*slot)) {
                subscription.spending().forget();
            }
        }
    }

    /// What was counted of filters that this version no longer has says nothing about the ones that it has.
    pub(crate) fn forget_spending(&self) {
        for place in &self.changed {
            if let Some(subscription) = self.subscription(*place) {
                subscription.spending().forget();
            }
        }
    }

    pub(crate) fn subscription(&self, place: usize) -> Option<&Arc<Subscription>> {
        self.rows[place].subscription.as_ref()
    }

    pub(crate) fn number(&self, place: usize) -> TriggerNumber {
        self.rows[place].number
    }

    /// The filter of each trigger.
    pub(crate) fn filters(&self) -> impl Iterator<Item = (TriggerNumber, &Filter)> {
        self.rows.iter().map(|row| (row.number, &row.filter))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").field("version", &self.version).field("triggers", &self.rows.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use waypost_core::Event;
    use waypost_core::filter::{Clause, Clauses};

    use super::*;

    fn rows(triggers: &[(u32, u8)]) -> Vec<Row> {
        let row = |(number, value): &(u32, u8)| {
            let clause = Clause::new("type", &format!("t{value}")).unwrap();
            let filter = match value {
                0 => Filter::Everything,
                _ => Filter::Exact(Clauses::new(vec![clause]).unwrap()),
            };
            Row { filter, number: TriggerNumber(*number), subscription: None }
        };
        triggers.iter().map(row).collect()
    }

    fn taking(matcher: &Matcher, event: &Event) -> Vec<TriggerNumber> {
        let places = matcher.matches(&Candidate::new(event), &mut Scratch::default());
        places.into_iter().map(|place| matcher.number(place)).collect()
    }

    fn triggers() -> impl Strategy<Value = Vec<(u32, u8)>> {
        prop::collection::hash_map(0..12_u32, 0..4_u8, 0..10)
            .prop_map(|triggers| triggers.into_iter().collect())
    }

    proptest! {
        #[test]
        fn each_version_matches_as_if_it_were_the_first(versions in prop::collection::vec(triggers(), 1..6)) {
            let mut matchers: Vec<Matcher> = Vec::new();
            for (number, triggers) in (1..).zip(&versions) {
                let next = Matcher::next(matchers.last(), PlanVersion(number), None, rows(triggers));
                matchers.push(next);
            }
            for value in 0..4 {
                let event = Event::builder("1", "/s", format!("t{value}")).build().unwrap();
                for (matcher, triggers) in matchers.iter().zip(&versions) {
                    let expected = triggers.iter().filter(|(_, asked)| *asked == 0 || *asked == value);
                    let expected: Vec<_> = expected.map(|(number, _)| TriggerNumber(*number)).collect();
                    prop_assert_eq!(taking(matcher, &event), expected);
                }
            }
        }
    }

    #[test]
    fn rows_that_change_are_told() {
        let first = Matcher::next(None, PlanVersion(1), None, rows(&[(1, 1), (2, 2), (3, 3)]));
        let second = Matcher::next(Some(&first), PlanVersion(2), None, rows(&[(3, 3), (4, 1), (2, 1)]));
        let mut changed = second.changed;
        changed.sort_unstable();
        assert_eq!(changed, [1, 2]);
    }
}
