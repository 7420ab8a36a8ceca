//! How many filters mention a key, which tells how selective it is before any bucket is filled.

use std::sync::Arc;

const COUNTERS: usize = 1 << 16;
const COUNTERS_PER_PAGE: usize = 128;

/// Counts by the hash of the key. Two keys with the same counter look more common than they are, which costs time and
/// never an answer.
#[derive(Debug, Clone)]
pub(super) struct Mentions {
    pages: Vec<Option<Arc<[u32; COUNTERS_PER_PAGE]>>>,
}

impl Default for Mentions {
    fn default() -> Self {
        Self { pages: vec![None; COUNTERS / COUNTERS_PER_PAGE] }
    }
}

impl Mentions {
    fn place(hash: u64) -> (usize, usize) {
        let counter = (hash as usize) % COUNTERS;
        (counter / COUNTERS_PER_PAGE, counter % COUNTERS_PER_PAGE)
    }

    pub(super) fn of(&self, hash: u64) -> u64 {
        let (page, counter) = Self::place(hash);
        self.pages[page].as_ref().map_or(0, |page| u64::from(page[counter]))
    }

    pub(super) fn add(&mut self, hash: u64) {
        let (page, counter) = Self::place(hash);
        let page = self.pages[page].get_or_insert_with(|| Arc::new([0; COUNTERS_PER_PAGE]));
        let counter = &mut Arc::make_mut(page)[counter];
        *counter = counter.saturating_add(1);
    }

    pub(super) fn remove(&mut self, hash: u64) {
        let (page, counter) = Self::place(hash);
        if let Some(page) = &mut self.pages[page] {
            let counter = &mut Arc::make_mut(page)[counter];
            *counter = counter.saturating_sub(1);
        }
    }
}
