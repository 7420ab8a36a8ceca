//! Notes that wait for the disk.

use super::told::{Sought, Told};
use crate::embedded::codec::Corrupt;
use crate::embedded::note::{self, Change, Note};

/// Notes as they are stored.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Notes {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
    /// The place of the first.
    pub(super) first: u64,
    /// The place of the last.
    pub(super) last: u64,
    pub(super) told: Told,
}

impl Notes {
    pub(super) fn push(&mut self, note: &Note) {
        if self.count == 0 {
            self.first = note.sequence;
        }
        note.encode(&mut self.bytes);
        self.count = self.count.saturating_add(1);
        self.last = note.sequence;
        if note.change.tells_of_outcome() {
            self.told.add(note.offset, note.trigger);
        }
    }

    /// These and others behind them.
    pub(super) fn followed_by(&self, others: &Self) -> Self {
        let (first, last) =
            if others.count == 0 { (self.first, self.last) } else { (self.first, others.last) };
        let mut told = self.told.clone();
        told.join(&others.told);
        let bytes = [self.bytes.as_slice(), &others.bytes].concat();
        Self { bytes, count: self.count.saturating_add(others.count), first, last, told }
    }

    /// Hands the changes of one delivery to `learn`, in order.
    pub(super) fn about(&self, sought: Sought, learn: impl FnMut(Change)) -> Result<(), Corrupt> {
        if self.told.may_tell_of(sought) {
            note::about(&self.bytes, sought.offset, sought.trigger, learn)
        } else {
            Ok(())
        }
    }
}
