//! What a key leads to: the triggers to be checked.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::condition::Condition;
use crate::filter::{Filter, MAX_STEPS, candidate};

/// More entries than this are kept in chunks of so many, so that a change copies one chunk; and a key that leads to more
/// is split by another one. Tests reach it with a few.
pub(super) const CHUNK: usize = if cfg!(test) { 3 } else { 256 };

/// A trigger under a key.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) slot: u32,
    /// What remains to be decided; none where the key decides.
    pub(super) check: Option<Arc<Check>>,
}

/// What remains to be decided.
#[derive(Debug, PartialEq)]
pub(super) struct Check {
    pub(super) condition: Condition,
    pub(super) reference: Option<Arc<ByReference>>,
}

/// The filter itself, where the condition may not suffice.
#[derive(Debug, PartialEq)]
pub(super) struct ByReference {
    pub(super) filter: Filter,
    /// Only if patterns, gone through so many times, could use up the steps.
    pub(super) unless_short: Option<usize>,
}

impl ByReference {
    /// Whether the filter has to be asked about an event whose longest attribute has so many bytes.
    pub(super) fn is_needed(&self, longest: usize) -> bool {
        self.unless_short.is_none_or(|weight| {
            let steps = weight.saturating_mul(longest / candidate::BYTES_PER_STEP + 1);
            steps > MAX_STEPS as usize
        })
    }
}

/// Checks that were made lately. Many triggers are left with the same small check, and share it here.
#[derive(Debug, Clone)]
pub(super) struct Checks(Vec<Option<Arc<Check>>>);

const CHECKS: usize = 256;

impl Default for Checks {
    fn default() -> Self {
        Self(vec![None; CHECKS])
    }
}

impl Checks {
    pub(super) fn share(&mut self, check: Check) -> Arc<Check> {
        if check.reference.is_some() {
            return Arc::new(check);
        }
        let mut hasher = FixedState::default().build_hasher();
        check.condition.hash(&mut hasher);
        let place = &mut self.0[hasher.finish() as usize % CHECKS];
        match place {
            Some(known) if **known == check => Arc::clone(known),
            _ => Arc::clone(place.insert(Arc::new(check))),
        }
    }
}

/// Entries, in no order.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries {
    few: SmallVec<[Entry; 2]>,
    chunks: Vec<Arc<Vec<Entry>>>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.few.len() + self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.chunks.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.few.iter().chain(self.chunks.iter().flat_map(|chunk| chunk.iter()))
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if self.few.len() >= CHUNK {
            self.chunks.push(Arc::new(std::mem::take(&mut self.few).into_vec()));
        }
        self.few.push(entry);
    }

    pub(super) fn holds(&self, slot: u32) -> bool {
        self.iter().any(|entry| entry.slot == slot)
    }

    /// Removes the entries of a slot.
    pub(super) fn remove(&mut self, slot: u32) {
        self.few.retain(|entry| entry.slot != slot);
        for chunk in &mut self.chunks {
            if chunk.iter().any(|entry| entry.slot == slot) {
                Arc::make_mut(chunk).retain(|entry| entry.slot != slot);
            }
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
    }

    /// Takes all entries out.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        let taken = self.iter().cloned().collect();
        *self = Self::default();
        taken
    }
}
