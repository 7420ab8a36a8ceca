//! Deliveries that wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::ledger::Key;
use crate::record::{Charge, Entry, Offset};

/// The offsets of a page, the unit in which a schedule is written down: about as much as a page of the checkpoint
/// holds where each of them waits.
const PAGE: Offset = 128;

/// The number of the page that holds an offset.
pub(super) fn page_of(offset: Offset) -> u64 {
    offset / PAGE
}

/// Deliveries that wait, by offset and by the moment when they are due. A million may wait, so they lie close to each
/// other in their pages, and only the pages are ordered by when the first of them is due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// None of them is empty.
    pages: BTreeMap<u64, Page>,
    /// The pages in which something is due at a moment, by the earliest.
    order: BTreeSet<(Timestamp, u64)>,
    waiting: usize,
    /// How many wait for their next attempt and keep a key closed.
    blocking: usize,
    /// The pages that changed since they were last written down. None where nobody writes them down.
    changed: Option<BTreeSet<u64>>,
}

/// The deliveries of a page that wait, by offset.
#[derive(Debug, Default)]
struct Page(Vec<Waiting>);

/// One delivery that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    due: Timestamp,
    /// The last part of its offset, which it has from its page.
    place: u8,
    /// Whether it waits for the one ahead of it under its key, and `due` says nothing.
    held: bool,
    pub(super) crashes: u8,
    pub(super) attempts: u32,
    pub(super) key: Option<Key>,
    /// What a log in memory keeps of it. Apart, for the others are a million.
    body: Option<Box<Body>>,
}

#[derive(Debug)]
struct Body {
    entry: Option<Arc<Entry>>,
    /// Its share of the log's limit, given back when it leaves.
    _charge: Option<Charge>,
}

impl Page {
    /// Where the delivery at an offset stands, or where it would.
    fn find(&self, offset: Offset) -> Result<usize, usize> {
        self.0.binary_search_by_key(&place_of(offset), |waiting| waiting.place)
    }

    /// When the first of them is due.
    fn earliest(&self) -> Option<Timestamp> {
        self.0.iter().filter_map(Waiting::due).min()
    }

    fn put(&mut self, offset: Offset, waiting: Waiting) -> Option<Waiting> {
        let waiting = Waiting { place: place_of(offset), ..waiting };
        match self.find(offset) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at], waiting)),
            Err(at) => {
                // Where few of a page wait, there is no room for more than these.
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, waiting);
                None
            }
        }
    }

    fn remove(&mut self, offset: Offset) -> Option<Waiting> {
        let at = self.find(offset).ok()?;
        let removed = self.0.remove(at);
        if self.0.len() <= self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(removed)
    }
}

/// The part of an offset that says where in its page it stands.
fn place_of(offset: Offset) -> u8 {
    u8::try_from(offset % PAGE).expect("a page has fewer than 256 offsets")
}

impl Schedule {
    /// An empty one, which keeps in mind what changes where it `tracks`.
    pub(super) fn new(tracks: bool) -> Self {
        Self { changed: tracks.then(BTreeSet::new), ..Self::default() }
    }

    pub(super) fn tracks(&self) -> bool {
        self.changed.is_some()
    }

    /// The pages that changed since this was last asked.
    pub(super) fn changed_pages(&mut self) -> BTreeSet<u64> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Says which pages are not as they were written down.
    pub(super) fn set_changed_pages(&mut self, pages: BTreeSet<u64>) {
        if let Some(changed) = &mut self.changed {
            *changed = pages;
        }
    }

    /// Every delivery of a page, by offset.
    pub(super) fn in_page(&self, number: u64) -> impl Iterator<Item = (Offset, &Waiting)> {
        let page = self.pages.get(&number).into_iter();
        page.flat_map(move |page| page.0.iter().map(move |waiting| (waiting.offset(number), waiting)))
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// How many keys are closed by one that waits for its next attempt.
    pub(super) fn blocking(&self) -> usize {
        self.blocking
    }

    pub(super) fn get(&self, offset: Offset) -> Option<&Waiting> {
        let page = self.pages.get(&page_of(offset))?;
        page.find(offset).ok().map(|at| &page.0[at])
    }

    /// The lowest offset that waits.
    pub(super) fn first(&self) -> Option<Offset> {
        let (number, page) = self.pages.first_key_value()?;
        page.0.first().map(|waiting| waiting.offset(*number))
    }

    /// The offsets in a range that wait.
    pub(super) fn range(&self, range: std::ops::Range<Offset>) -> impl Iterator<Item = Offset> {
        let pages = self.pages.range(page_of(range.start)..=page_of(range.end.max(range.start)));
        pages
            .flat_map(|(number, page)| page.0.iter().map(|waiting| waiting.offset(*number)))
            .filter(move |offset| range.contains(offset))
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Puts one in, in place of what waited at the same offset.
    pub(super) fn put(&mut self, offset: Offset, waiting: Waiting) {
        self.blocking += usize::from(waiting.blocks());
        let replaced = self.change(offset, |page| page.put(offset, waiting));
        self.blocking -= replaced.as_ref().map_or(0, |waiting| usize::from(waiting.blocks()));
        self.waiting += usize::from(replaced.is_none());
    }

    pub(super) fn remove(&mut self, offset: Offset) -> Option<Waiting> {
        self.get(offset)?;
        let waiting = self.change(offset, |page| page.remove(offset))?;
        self.blocking -= usize::from(waiting.blocks());
        self.waiting -= 1;
        Some(waiting)
    }

    /// Changes the page of an offset, which is made and given up as needed, and keeps the pages in order.
    fn change(
        &mut self,
        offset: Offset,
        change: impl FnOnce(&mut Page) -> Option<Waiting>,
    ) -> Option<Waiting> {
        let number = page_of(offset);
        let page = self.pages.entry(number).or_default();
        let before = page.earliest();
        let changed = change(page);
        let after = page.earliest();
        if page.0.is_empty() {
            self.pages.remove(&number);
        }
        if before != after {
            before.map(|due| self.order.remove(&(due, number)));
            after.map(|due| self.order.insert((due, number)));
        }
        if let Some(pages) = &mut self.changed {
            pages.insert(number);
        }
        changed
    }

    /// Takes out the one that has been due for the longest at `now`.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<(Offset, Waiting)> {
        let &(due, number) = self.order.first()?;
        if due > now {
            return None;
        }
        let (offset, _) = self.in_page(number).find(|(_, waiting)| waiting.due() == Some(due))?;
        self.remove(offset).map(|waiting| (offset, waiting))
    }
}

impl Waiting {
    /// One that waits until `due`, or for the one ahead of it under its key.
    pub(super) fn new(due: Option<Timestamp>, attempts: u32, crashes: u8, key: Option<Key>) -> Self {
        let (held, due) = (due.is_none(), due.unwrap_or(Timestamp(0)));
        Self { due, place: 0, held, crashes, attempts, key, body: None }
    }

    /// With what the schedule itself keeps of the event.
    pub(super) fn with_body(mut self, entry: Option<Arc<Entry>>, charge: Option<Charge>) -> Self {
        if entry.is_some() || charge.is_some() {
            self.body = Some(Box::new(Body { entry, _charge: charge }));
        }
        self
    }

    /// One that waits for the one ahead of it from now on.
    pub(super) fn hold(self) -> Self {
        Self { held: true, ..self }
    }

    /// When its next attempt is due; none where it waits for the one ahead of it under its key.
    pub(super) fn due(&self) -> Option<Timestamp> {
        (!self.held).then_some(self.due)
    }

    /// The event, where the schedule keeps it.
    pub(super) fn entry(&self) -> Option<&Arc<Entry>> {
        self.body.as_ref().and_then(|body| body.entry.as_ref())
    }

    /// Its offset, in the page with this number.
    fn offset(&self, page: u64) -> Offset {
        page * PAGE + Offset::from(self.place)
    }

    /// Whether it waits for its next attempt and keeps its key closed meanwhile.
    fn blocks(&self) -> bool {
        self.key.is_some() && !self.held
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A million of them may wait.
    #[test]
    fn one_that_waits_is_small() {
        assert!(size_of::<Waiting>() <= 32, "{}", size_of::<Waiting>());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(Offset, Option<i64>),
        Remove(Offset),
        Pop(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let offset = prop_oneof![0..300_u64, 100_000..100_400_u64];
        prop_oneof![
            4 => (offset.clone(), prop::option::weighted(0.8, 0..50_i64)).prop_map(|(at, due)| Step::Put(at, due)),
            2 => offset.prop_map(Step::Remove),
            2 => (0..50_i64).prop_map(Step::Pop),
        ]
    }

    proptest! {
        /// It does what a map of all of them would.
        #[test]
        fn the_pages_are_a_map(steps in vec(step(), 1..400)) {
            let mut schedule = Schedule::new(true);
            let mut model: BTreeMap<Offset, Option<i64>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Put(offset, due) => {
                        schedule.put(offset, Waiting::new(due.map(Timestamp), 1, 0, None));
                        model.insert(offset, due);
                        prop_assert!(schedule.changed_pages().contains(&page_of(offset)));
                    }
                    Step::Remove(offset) => {
                        let removed = schedule.remove(offset).map(|waiting| waiting.due().map(|due| due.0));
                        prop_assert_eq!(removed, model.remove(&offset));
                    }
                    Step::Pop(now) => {
                        let due = model.iter().filter_map(|(offset, due)| Some(((*due)?, *offset)));
                        let expected = due.min().filter(|(due, _)| *due <= now);
                        let popped = schedule.pop_due(Timestamp(now)).map(|(offset, waiting)| (waiting.due, offset));
                        prop_assert_eq!(popped.map(|(due, _)| due.0), expected.map(|(due, _)| due));
                        if let Some((Timestamp(due), offset)) = popped {
                            prop_assert_eq!(model.remove(&offset), Some(Some(due)));
                        }
                    }
                }
                prop_assert_eq!(schedule.len(), model.len());
                prop_assert_eq!(schedule.first(), model.keys().next().copied());
                prop_assert_eq!(schedule.next_due().map(|due| due.0), model.values().flatten().min().copied());
            }
            let all: Vec<Offset> = schedule.range(0..Offset::MAX).collect();
            prop_assert_eq!(&all, &model.keys().copied().collect::<Vec<_>>());
            let some: Vec<Offset> = schedule.range(100..100_100).collect();
            prop_assert_eq!(some, model.range(100..100_100).map(|(offset, _)| *offset).collect::<Vec<_>>());
            let in_pages: usize = [0, 1, 2, 781, 782, 783, 784].map(|page| schedule.in_page(page).count()).iter().sum();
            prop_assert_eq!(in_pages, all.len());
        }
    }
}
