//! The newest records of all logs of the process, in memory and bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::record::{Entry, Offset};

/// What an entry takes besides its event.
const ENTRY_OVERHEAD: usize = 256;

/// The bound over all logs.
#[derive(Debug)]
pub(super) struct Ring {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    /// What was shown, oldest first: whose it is, up to which offset, and its bytes.
    shown: VecDeque<(Weak<Tail>, Offset, usize)>,
}

/// The newest records of one log, without a gap up to its end.
#[derive(Debug, Default)]
pub(super) struct Tail(RwLock<VecDeque<Arc<Entry>>>);

impl Ring {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Shows new records at the end of a log, and lets the oldest of all logs go.
    pub(super) fn show(&self, tail: &Arc<Tail>, entries: Vec<Arc<Entry>>) {
        let Some(last) = entries.last() else { return };
        let end = last.position.offset + 1;
        let bytes = entries.iter().map(|entry| entry.size() + ENTRY_OVERHEAD).sum();
        tail.0.write().extend(entries);
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            state.bytes += bytes;
            state.shown.push_back((Arc::downgrade(tail), end, bytes));
            while state.bytes > self.limit {
                let Some((tail, to, bytes)) = state.shown.pop_front() else { break };
                state.bytes -= bytes;
                gone.extend(tail.upgrade().map(|tail| (tail, to)));
            }
        }
        for (tail, to) in gone {
            tail.forget(to);
        }
    }
}

impl Tail {
    fn forget(&self, to: Offset) {
        let mut entries = self.0.write();
        // Offsets follow each other without a gap.
        let first = entries.front().map_or(to, |first| first.position.offset);
        let count = usize::try_from(to.saturating_sub(first)).unwrap_or(usize::MAX).min(entries.len());
        let gone: Vec<_> = entries.drain(..count).collect();
        drop(entries);
        // The bodies are freed here, outside the lock.
        drop(gone);
    }

    pub(super) fn get(&self, offset: Offset) -> Option<Arc<Entry>> {
        let entries = self.0.read();
        let index = offset.checked_sub(entries.front()?.position.offset)?;
        entries.get(usize::try_from(index).ok()?).cloned()
    }

    /// The first of these records, which come in increasing order, as far as they are here.
    pub(super) fn first_of(&self, offsets: &[Offset]) -> Vec<Arc<Entry>> {
        let entries = self.0.read();
        let Some(first) = entries.front().map(|first| first.position.offset) else { return Vec::new() };
        let here = |offset: &Offset| entries.get(usize::try_from(offset.checked_sub(first)?).ok()?).cloned();
        offsets.iter().map_while(here).collect()
    }

    /// At most `limit` records from `from` on; none where they are not here any more.
    pub(super) fn range(&self, from: Offset, limit: usize) -> Vec<Arc<Entry>> {
        let entries = self.0.read();
        let first = entries.front().and_then(|first| from.checked_sub(first.position.offset));
        let Some(index) = first.and_then(|index| usize::try_from(index).ok()) else { return Vec::new() };
        entries.iter().skip(index).take(limit).cloned().collect()
    }
}
