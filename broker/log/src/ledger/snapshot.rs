//! A ledger as it is written down, and what becomes of it when later changes are applied again.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Timestamp;
use crate::ledger::schedule::page_of;
use crate::ledger::{
    AcceptedOutputs, Batches, Counted, DropReason, Dropped, Flight, Key, Ledger, Order, Schedule, State,
    Waiting,
};
use crate::record::Offset;

/// All that a ledger knows, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) next: Offset,
    pub(crate) matched_end: Offset,
    pub(crate) oldest_untaken: Offset,
    pub(crate) placed: bool,
    pub(crate) matched: u64,
    pub(crate) delivered: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) dropped: Dropped,
    pub(crate) untaken: u64,
    pub(crate) window: BTreeMap<Offset, Flying>,
    pub(crate) schedule: BTreeMap<Offset, Delayed>,
    /// The outputs that the subscriber has of what is in the window or waits.
    pub(crate) accepted: BTreeMap<Offset, AcceptedOutputs>,
    /// What goes out together.
    pub(crate) batches: Batches,
    /// The pages of the schedule that are not as they were written down.
    pub(crate) changed_pages: BTreeSet<u64>,
}

/// A delivery in the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flying {
    pub(crate) attempts: u32,
    /// Whether the body is kept outside the log.
    pub(crate) parked: bool,
    /// Whether an attempt was started whose outcome is not known.
    pub(crate) open: bool,
    pub(crate) crashes: u8,
}

/// A delivery that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delayed {
    /// When its next attempt is due; none where it waits for the one ahead of it under its key.
    pub(crate) due: Option<Timestamp>,
    pub(crate) attempts: u32,
    pub(crate) crashes: u8,
    pub(crate) key: Option<Key>,
}

/// What is to be written down of a ledger that changed: its schedule in pages, and only those that changed.
#[derive(Debug)]
pub(crate) struct Changed {
    /// All but the schedule.
    pub(crate) ledger: Snapshot,
    /// The numbers of the pages with all that waits in them; an empty one is gone.
    pub(crate) pages: Vec<(u64, Vec<(Offset, Delayed)>)>,
}

impl Snapshot {
    /// A match was added.
    pub(crate) fn matched(&mut self, offset: Offset) {
        self.oldest_untaken = if self.untaken == 0 { offset } else { self.oldest_untaken.min(offset) };
        self.matched_end = self.matched_end.max(offset + 1);
        self.placed = true;
        self.matched += 1;
        self.untaken += 1;
    }

    /// Whether a change at `offset` says that everything up to it was taken.
    pub(crate) fn lags(&self, offset: Offset) -> bool {
        offset >= self.next
    }

    /// The matches in `listed`, those from `next` up to `offset`, were taken.
    pub(crate) fn taken(&mut self, offset: Offset, listed: impl IntoIterator<Item = Offset>) {
        for match_at in listed {
            self.window.insert(match_at, Flying::default());
            self.untaken = self.untaken.saturating_sub(1);
        }
        self.next = self.next.max(offset + 1);
        self.placed = true;
    }

    /// An attempt at what is in the window failed.
    pub(crate) fn attempted(&mut self, offset: Offset) {
        if let Some(Delayed { attempts, .. }) = self.unschedule(offset) {
            self.window.insert(offset, Flying { attempts, parked: true, ..Flying::default() });
        }
        if let Some(flying) = self.window.get_mut(&offset) {
            flying.attempts = flying.attempts.saturating_add(1);
            (flying.open, flying.crashes) = (false, 0);
        }
        self.batches.set_open(offset, false);
    }

    /// The subscriber has outputs of what is pending.
    pub(crate) fn accept(&mut self, offset: Offset, outputs: AcceptedOutputs) {
        if self.window.contains_key(&offset) || self.schedule.contains_key(&offset) {
            self.accepted.insert(offset, outputs);
        }
    }

    /// A delivery went to the schedule.
    pub(crate) fn waiting(&mut self, offset: Offset, due: Timestamp, attempts: u32, key: Option<Key>) {
        if let Some((_, crashes)) = self.leave_window(offset) {
            self.schedule.insert(offset, Delayed { due: Some(due), attempts, crashes, key });
        }
    }

    /// A delivery went to the schedule, behind another of its key.
    pub(crate) fn held(&mut self, offset: Offset, key: Key) {
        if let Some((attempts, crashes)) = self.leave_window(offset) {
            self.schedule.insert(offset, Delayed { due: None, attempts, crashes, key: Some(key) });
        }
    }

    /// The attempts and crashes of a delivery that goes to the schedule, or stays there.
    fn leave_window(&mut self, offset: Offset) -> Option<(u32, u8)> {
        let left = match (self.window.remove(&offset), self.schedule.get(&offset)) {
            (Some(flying), _) => (flying.attempts, flying.crashes),
            (None, Some(delayed)) => (delayed.attempts, delayed.crashes),
            (None, None) => return None,
        };
        self.changed_pages.insert(page_of(offset));
        Some(left)
    }

    /// A delivery was settled.
    pub(crate) fn settled(&mut self, offset: Offset, outcome: Counted) {
        if self.window.remove(&offset).is_some() || self.unschedule(offset).is_some() {
            self.accepted.remove(&offset);
            self.batches.remove(offset);
            self.count(outcome, 1);
        }
    }

    /// A delivery was settled of which no match list tells any more.
    pub(crate) fn settled_unlisted(&mut self, outcome: Counted) {
        self.untaken = match self.untaken.checked_sub(1) {
            Some(left) => left,
            None => {
                self.matched += 1;
                0
            }
        };
        self.count(outcome, 1);
    }

    /// What was not taken below `next` was dropped.
    pub(crate) fn passed_over(&mut self, reason: DropReason, untaken: u64, next: Offset) {
        let dropped = untaken.min(self.untaken);
        self.untaken -= dropped;
        self.dropped.add(reason, dropped);
        self.next = self.next.max(next);
        self.placed = true;
    }

    /// The process ended. Uncleanly, that is one more crash of each delivery with an open attempt. Returns whether
    /// there was one.
    pub(crate) fn process_ended(&mut self, cleanly: bool) -> bool {
        let mut crashed = false;
        for flying in self.window.values_mut().filter(|flying| flying.open) {
            flying.open = false;
            if !cleanly {
                flying.crashes = flying.crashes.saturating_add(1);
                crashed = true;
            }
        }
        crashed
    }

    fn unschedule(&mut self, offset: Offset) -> Option<Delayed> {
        let delayed = self.schedule.remove(&offset)?;
        self.changed_pages.insert(page_of(offset));
        Some(delayed)
    }

    fn count(&mut self, outcome: Counted, by: u64) {
        match outcome {
            Counted::Delivered => self.delivered += by,
            Counted::DeadLettered => self.dead_lettered += by,
            Counted::Dropped(reason) => self.dropped.add(reason, by),
        }
    }
}

impl Ledger {
    /// What changed since this was last asked, and with it what `with` says at the same moment. Whoever asks writes
    /// it down.
    pub(crate) fn changed<T>(&self, with: impl FnOnce() -> T) -> (Changed, T) {
        let mut state = self.state();
        self.journal.written_down();
        let pages = state.schedule.changed_pages();
        let delayed = |(offset, waiting): (Offset, &Waiting)| (offset, waiting.written());
        let pages = pages
            .into_iter()
            .map(|page| (page, state.schedule.in_page(page).map(delayed).collect()))
            .collect();
        let ledger = Snapshot {
            next: state.next,
            matched_end: state.matched_end,
            oldest_untaken: state.oldest_untaken,
            placed: state.placed,
            matched: state.matched,
            delivered: state.delivered,
            dead_lettered: state.dead_lettered,
            dropped: state.dropped,
            untaken: state.untaken,
            window: state.window.iter().map(|(offset, flight)| (*offset, flight.written())).collect(),
            schedule: BTreeMap::new(),
            accepted: state.accepted.clone(),
            batches: state.batches.clone(),
            changed_pages: BTreeSet::new(),
        };
        (Changed { ledger, pages }, with())
    }

    /// Makes the ledger what a snapshot says. That is no change: what must be written down for it is for the caller to say,
    /// by [`Ledger::write_down`].
    pub(crate) fn restore(&self, snapshot: Snapshot) {
        let mut state = self.state();
        let mut schedule = Schedule::new(state.schedule.tracks());
        let mut order = Order::default();
        for (offset, Delayed { due, attempts, crashes, key }) in snapshot.schedule {
            schedule.put(offset, Waiting::new(due, attempts, crashes, key));
            if let Some(key) = key {
                order.insert(key, offset);
            }
        }
        // The one ahead may have been settled just before the process ended.
        order.look_at_all();
        schedule.set_changed_pages(snapshot.changed_pages);
        let flying = |(offset, flying)| (offset, Flight::restored(flying));
        *state = State {
            next: snapshot.next,
            matched_end: snapshot.matched_end,
            oldest_untaken: snapshot.oldest_untaken,
            placed: snapshot.placed,
            matched: snapshot.matched,
            delivered: snapshot.delivered,
            dead_lettered: snapshot.dead_lettered,
            dropped: snapshot.dropped,
            untaken: snapshot.untaken,
            window: snapshot.window.into_iter().map(flying).collect(),
            schedule,
            order,
            accepted: snapshot.accepted,
            batches: snapshot.batches,
            reserved: None,
            changes: state.changes,
        };
    }

    /// The offsets in a range whose bodies must be kept although the log may be trimmed above them.
    pub(crate) fn kept_outside(&self, range: std::ops::Range<Offset>) -> Vec<Offset> {
        let state = self.state();
        let flying = state.window.range(range.clone()).filter(|(_, flight)| flight.parked);
        flying.map(|(offset, _)| *offset).chain(state.schedule.range(range)).collect()
    }
}

impl Flight {
    fn written(&self) -> Flying {
        let Self { attempts, open, crashes, parked, .. } = *self;
        Flying { attempts, parked, open, crashes }
    }

    fn restored(flying: Flying) -> Self {
        let Flying { attempts, parked, open, crashes } = flying;
        // Its key is read from the event again.
        Self { attempts, open, crashes, parked, readable: true, key: None, entry: None }
    }
}

impl Waiting {
    fn written(&self) -> Delayed {
        Delayed { due: self.due(), attempts: self.attempts, crashes: self.crashes, key: self.key }
    }
}
