//! Which deliveries go out together: the bounds of batches that a subscriber takes whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::Offset;

/// The number of a batch in its ledger. After a restart the same batch may have another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchNumber(u64);

/// A batch whose bounds were set: an attempt at one of its deliveries is an attempt at all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchBounds {
    /// What of it is pending, in the order in which it stands in the batch.
    pub offsets: Vec<Offset>,
    /// Whether an attempt was started of which nothing is known since: the subscriber may have the batch as it is.
    pub open: bool,
}

/// All batches of a ledger. Each delivery is in one of them at most, and a batch without deliveries is gone. There are
/// never more members than deliveries in the window and the schedule, which are bounded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batches {
    all: BTreeMap<BatchNumber, Batch>,
    of: BTreeMap<Offset, BatchNumber>,
    next: u64,
}

#[derive(Debug, Clone)]
struct Batch {
    /// As they were bound; those that are not of this batch any more are passed over.
    offsets: Vec<Offset>,
    left: usize,
    open: bool,
}

impl Batches {
    /// Makes a batch of these, which leave the batches that they were in.
    pub(crate) fn bind(&mut self, offsets: Vec<Offset>, open: bool) {
        let number = BatchNumber(self.next);
        self.next += 1;
        for &offset in &offsets {
            self.remove(offset);
            self.of.insert(offset, number);
        }
        // Once each, whatever was stored.
        let distinct: BTreeSet<Offset> = offsets.iter().copied().collect();
        if !distinct.is_empty() {
            self.all.insert(number, Batch { offsets, left: distinct.len(), open });
        }
    }

    /// The deliveries of a batch are on their own from now on.
    pub(crate) fn unbind(&mut self, number: BatchNumber) {
        for offset in self.all.remove(&number).map(|batch| batch.offsets).unwrap_or_default() {
            if self.of.get(&offset) == Some(&number) {
                self.of.remove(&offset);
            }
        }
    }

    /// Takes a delivery out of its batch.
    pub(crate) fn remove(&mut self, offset: Offset) {
        let Some(number) = self.of.remove(&offset) else { return };
        if let Some(batch) = self.all.get_mut(&number) {
            batch.left -= 1;
            if batch.left == 0 {
                self.all.remove(&number);
            }
        }
    }

    /// Notes that an attempt at the batch of a delivery was started, or that it is known what came of it.
    pub(crate) fn set_open(&mut self, offset: Offset, open: bool) {
        if let Some(batch) = self.of.get(&offset).and_then(|number| self.all.get_mut(number)) {
            batch.open = open;
        }
    }

    /// The batch of a delivery, and how many are left in it.
    pub(crate) fn of(&self, offset: Offset) -> Option<(BatchNumber, usize)> {
        let number = *self.of.get(&offset)?;
        self.all.get(&number).map(|batch| (number, batch.left))
    }

    pub(crate) fn get(&self, number: BatchNumber) -> Option<BatchBounds> {
        self.all.get(&number).map(|batch| self.bounds(number, batch))
    }

    /// All of them, the oldest first.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = BatchBounds> {
        self.all.iter().map(|(number, batch)| self.bounds(*number, batch))
    }

    fn bounds(&self, number: BatchNumber, batch: &Batch) -> BatchBounds {
        let left = batch.offsets.iter().copied().filter(|offset| self.of.get(offset) == Some(&number));
        BatchBounds { offsets: left.collect(), open: batch.open }
    }
}

/// Numbers do not count.
impl PartialEq for Batches {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Batches {}

impl FromIterator<BatchBounds> for Batches {
    fn from_iter<I: IntoIterator<Item = BatchBounds>>(all: I) -> Self {
        let mut batches = Self::default();
        for BatchBounds { offsets, open } in all {
            batches.bind(offsets, open);
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(batches: &Batches) -> Vec<Vec<Offset>> {
        batches.iter().map(|bounds| bounds.offsets).collect()
    }

    #[test]
    fn a_delivery_is_in_one_batch_and_an_empty_batch_is_gone() {
        let mut batches = Batches::default();
        batches.bind(vec![5, 3, 9], true);
        batches.bind(vec![4, 8], false);
        assert_eq!(all(&batches), [vec![5, 3, 9], vec![4, 8]]);
        batches.remove(3);
        batches.remove(7);
        batches.bind(vec![8, 5], false);
        assert_eq!(all(&batches), [vec![9], vec![4], vec![8, 5]]);
        let (number, left) = batches.of(5).expect("it is in the last");
        assert_eq!((left, batches.of(3)), (2, None));
        batches.remove(9);
        batches.unbind(number);
        assert_eq!((all(&batches), batches.of(8), batches.get(number)), (vec![vec![4]], None, None));
        batches.remove(4);
        assert_eq!((batches.iter().len(), batches.of.len()), (0, 0));
    }

    #[test]
    fn what_is_known_of_an_attempt_is_known_of_the_whole_batch() {
        let mut batches: Batches =
            [BatchBounds { offsets: vec![1, 2], open: true }, BatchBounds { offsets: vec![3], open: true }]
                .into_iter()
                .collect();
        batches.set_open(2, false);
        batches.set_open(7, false);
        assert_eq!(batches.iter().map(|bounds| bounds.open).collect::<Vec<_>>(), [false, true]);
        let (number, _) = batches.of(1).expect("it is bound");
        assert_eq!(batches.get(number), Some(BatchBounds { offsets: vec![1, 2], open: false }));
    }
}
