//! How events come together for one call to a sink that takes several: what is ready, and how long the first of it waits
//! for others.

use std::collections::VecDeque;

use waypost_core::sink::Batching;
use waypost_log::{Clock, Timestamp};

use super::window::Item;

/// What waits for a worker, and how it goes out.
#[derive(Debug)]
pub(super) struct Ready {
    items: VecDeque<Item>,
    bytes: usize,
    batching: Batching,
    linger: Linger,
}

/// How long what is less than a batch waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linger {
    /// Nothing was found waiting yet.
    Unset,
    Until(Timestamp),
    Over,
}

impl Default for Ready {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0, batching: Batching::SINGLE, linger: Linger::Unset }
    }
}

impl Ready {
    /// Takes over what the sink asks for.
    pub(super) fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    /// The most events in one call.
    pub(super) fn batch_events(&self) -> usize {
        self.batching.max_events.max(1)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn push_back(&mut self, item: Item) {
        self.bytes += item.entry.size();
        self.items.push_back(item);
    }

    pub(super) fn push_front(&mut self, item: Item) {
        self.bytes += item.entry.size();
        self.items.push_front(item);
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Item) -> bool) {
        self.items.retain(keep);
        self.bytes = self.items.iter().map(|item| item.entry.size()).sum();
    }

    /// Whether there may be something to send now, as far as is known without the time.
    pub(super) fn may_go(&self) -> bool {
        !self.is_empty() && (self.is_full() || !matches!(self.linger, Linger::Until(_)))
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.batch_events() || self.bytes >= self.batching.max_bytes
    }

    /// Whether the next batch may go, or until when it waits for more.
    pub(super) fn wait(&mut self, clock: &Clock) -> Result<(), Timestamp> {
        if self.is_full() || self.batching.linger.is_zero() {
            return Ok(());
        }
        let now = clock.now();
        match self.linger {
            Linger::Over => Ok(()),
            Linger::Until(until) if until <= now => Ok(()),
            Linger::Until(until) => Err(until),
            Linger::Unset => {
                let until = now.after(self.batching.linger);
                self.linger = Linger::Until(until);
                Err(until)
            }
        }
    }

    /// Takes the events of one call, at most `most`: as many as `admits` lets through.
    pub(super) fn take(&mut self, most: usize, mut admits: impl FnMut() -> bool) -> Vec<Item> {
        let most = self.batching.most_of(self.items.iter().map(|item| item.entry.size())).min(most);
        let mut taken = Vec::new();
        while taken.len() < most && !self.items.is_empty() && admits() {
            taken.extend(self.items.pop_front());
        }
        self.bytes -= taken.iter().map(|item| item.entry.size()).sum::<usize>();
        self.linger = Linger::Unset;
        taken
    }

    /// Until when less than a batch waits.
    pub(super) fn until(&self) -> Option<Timestamp> {
        match self.linger {
            Linger::Until(until) if !self.is_empty() => Some(until),
            Linger::Until(_) | Linger::Unset | Linger::Over => None,
        }
    }

    /// Lets go of what was to wait until now.
    pub(super) fn time_passes(&mut self, now: Timestamp) {
        if matches!(self.linger, Linger::Until(until) if until <= now) {
            self.linger = Linger::Over;
        }
    }
}

impl Extend<Item> for Ready {
    fn extend<I: IntoIterator<Item = Item>>(&mut self, items: I) {
        for item in items {
            self.push_back(item);
        }
    }
}
