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

/// Deliveries that wait, by offset and by the moment when they are due. Trees, not hash tables: a million may wait,
/// and none of them may pay for the growth of a table.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    waiting: BTreeMap<Offset, Waiting>,
    order: BTreeSet<(Timestamp, Offset)>,
    /// How many wait for their next attempt and keep a key closed.
    blocking: usize,
    /// The pages that changed since they were last written down. None where nobody writes them down.
    changed: Option<BTreeSet<u64>>,
}

/// One delivery that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    due: Timestamp,
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
    pub(super) fn in_page(&self, page: u64) -> impl Iterator<Item = (Offset, &Waiting)> {
        let from = page.saturating_mul(PAGE);
        self.waiting.range(from..=from.saturating_add(PAGE - 1)).map(|(offset, waiting)| (*offset, waiting))
    }

    fn touch(&mut self, offset: Offset) {
        if let Some(changed) = &mut self.changed {
            changed.insert(page_of(offset));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many keys are closed by one that waits for its next attempt.
    pub(super) fn blocking(&self) -> usize {
        self.blocking
    }

    pub(super) fn get(&self, offset: Offset) -> Option<&Waiting> {
        self.waiting.get(&offset)
    }

    /// The lowest offset that waits.
    pub(super) fn first(&self) -> Option<Offset> {
        self.waiting.keys().next().copied()
    }

    /// The offsets in a range that wait.
    pub(super) fn range(&self, range: std::ops::Range<Offset>) -> impl Iterator<Item = Offset> {
        self.waiting.range(range).map(|(offset, _)| *offset)
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Puts one in, in place of what waited at the same offset.
    pub(super) fn put(&mut self, offset: Offset, waiting: Waiting) {
        self.remove(offset);
        self.touch(offset);
        self.blocking += usize::from(waiting.blocks());
        self.order.extend(waiting.due().map(|due| (due, offset)));
        self.waiting.insert(offset, waiting);
    }

    pub(super) fn remove(&mut self, offset: Offset) -> Option<Waiting> {
        let waiting = self.waiting.remove(&offset)?;
        self.blocking -= usize::from(waiting.blocks());
        if let Some(due) = waiting.due() {
            self.order.remove(&(due, offset));
        }
        self.touch(offset);
        Some(waiting)
    }

    /// Takes out the one that has been due for the longest at `now`.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<(Offset, Waiting)> {
        let &(due, offset) = self.order.first()?;
        if due > now {
            return None;
        }
        self.remove(offset).map(|waiting| (offset, waiting))
    }
}

impl Waiting {
    /// One that waits until `due`, or for the one ahead of it under its key.
    pub(super) fn new(due: Option<Timestamp>, attempts: u32, crashes: u8, key: Option<Key>) -> Self {
        Self { due: due.unwrap_or(Timestamp(0)), held: due.is_none(), crashes, attempts, key, body: None }
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

    /// Whether it waits for its next attempt and keeps its key closed meanwhile.
    fn blocks(&self) -> bool {
        self.key.is_some() && !self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million of them may wait.
    #[test]
    fn one_that_waits_is_small() {
        assert!(size_of::<Waiting>() <= 32, "{}", size_of::<Waiting>());
    }
}
