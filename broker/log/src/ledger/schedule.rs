//! Deliveries that wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::record::{Charge, Entry, Offset};

/// Deliveries that wait, by offset and by the moment when they are due. Trees, not hash tables: a million may wait,
/// and none of them may pay for the growth of a table.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    waiting: BTreeMap<Offset, Waiting>,
    order: BTreeSet<(Timestamp, Offset)>,
}

/// One delivery that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) due: Timestamp,
    pub(super) attempts: u32,
    pub(super) entry: Option<Arc<Entry>>,
    /// Its share of the log's limit, given back when it leaves.
    pub(super) _charge: Option<Charge>,
}

impl Schedule {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn get(&self, offset: Offset) -> Option<&Waiting> {
        self.waiting.get(&offset)
    }

    /// The lowest offset that waits.
    pub(super) fn first(&self) -> Option<Offset> {
        self.waiting.keys().next().copied()
    }

    /// Every delivery that waits, by offset.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Offset, &Waiting)> {
        self.waiting.iter().map(|(offset, waiting)| (*offset, waiting))
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
        self.order.insert((waiting.due, offset));
        if let Some(before) = self.waiting.insert(offset, waiting)
            && self.waiting[&offset].due != before.due
        {
            self.order.remove(&(before.due, offset));
        }
    }

    pub(super) fn remove(&mut self, offset: Offset) -> Option<Waiting> {
        let waiting = self.waiting.remove(&offset)?;
        self.order.remove(&(waiting.due, offset));
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
