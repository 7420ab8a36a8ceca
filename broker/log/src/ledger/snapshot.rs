//! A ledger as it is written down, and what becomes of it when later changes are applied again.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::ledger::{Counted, DropReason, Dropped, Flight, Ledger, Schedule, State, Waiting};
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
    /// Attempts, and whether the body is kept outside the log.
    pub(crate) window: BTreeMap<Offset, (u32, bool)>,
    /// When it is due, and the attempts.
    pub(crate) schedule: BTreeMap<Offset, (Timestamp, u32)>,
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
            self.window.insert(match_at, (0, false));
            self.untaken = self.untaken.saturating_sub(1);
        }
        self.next = self.next.max(offset + 1);
        self.placed = true;
    }

    /// An attempt at what is in the window failed.
    pub(crate) fn attempted(&mut self, offset: Offset) {
        if let Some((_, attempts)) = self.schedule.remove(&offset) {
            self.window.insert(offset, (attempts, true));
        }
        if let Some((attempts, _)) = self.window.get_mut(&offset) {
            *attempts = attempts.saturating_add(1);
        }
    }

    /// A delivery went to the schedule.
    pub(crate) fn waiting(&mut self, offset: Offset, due: Timestamp, attempts: u32) {
        if self.window.remove(&offset).is_some() || self.schedule.contains_key(&offset) {
            self.schedule.insert(offset, (due, attempts));
        }
    }

    /// A delivery was settled.
    pub(crate) fn settled(&mut self, offset: Offset, outcome: Counted) {
        if self.window.remove(&offset).is_none() && self.schedule.remove(&offset).is_none() {
            return;
        }
        match outcome {
            Counted::Delivered => self.delivered += 1,
            Counted::DeadLettered => self.dead_lettered += 1,
            Counted::Dropped(reason) => self.dropped.add(reason, 1),
        }
    }

    /// What was not taken below `next` was dropped.
    pub(crate) fn passed_over(&mut self, reason: DropReason, untaken: u64, next: Offset) {
        let dropped = untaken.min(self.untaken);
        self.untaken -= dropped;
        self.dropped.add(reason, dropped);
        self.next = self.next.max(next);
        self.placed = true;
    }
}

impl Ledger {
    /// What the ledger knows, and with it what `with` says at the same moment.
    pub(crate) fn snapshot<T>(&self, with: impl FnOnce() -> T) -> (Snapshot, T) {
        let state = self.state.lock();
        let flying = |(offset, flight): (&Offset, &Flight)| (*offset, (flight.attempts, flight.parked));
        let snapshot = Snapshot {
            next: state.next,
            matched_end: state.matched_end,
            oldest_untaken: state.oldest_untaken,
            placed: state.placed,
            matched: state.matched,
            delivered: state.delivered,
            dead_lettered: state.dead_lettered,
            dropped: state.dropped,
            untaken: state.untaken,
            window: state.window.iter().map(flying).collect(),
            schedule: state
                .schedule
                .iter()
                .map(|(o, waiting)| (o, (waiting.due, waiting.attempts)))
                .collect(),
        };
        (snapshot, with())
    }

    /// Makes the ledger what a snapshot says.
    pub(crate) fn restore(&self, snapshot: Snapshot) {
        let mut schedule = Schedule::default();
        for (offset, (due, attempts)) in snapshot.schedule {
            schedule.put(offset, Waiting { due, attempts, entry: None, _charge: None });
        }
        let flying =
            |(offset, (attempts, parked))| (offset, Flight { attempts, parked, readable: true, entry: None });
        *self.state.lock() = State {
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
            changes: 0,
        };
    }

    /// Grows with every change.
    pub(crate) fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// The offsets in a range whose bodies must be kept although the log may be trimmed above them.
    pub(crate) fn kept_outside(&self, range: std::ops::Range<Offset>) -> Vec<Offset> {
        let state = self.state.lock();
        let flying = state.window.range(range.clone()).filter(|(_, flight)| flight.parked);
        flying.map(|(offset, _)| *offset).chain(state.schedule.range(range)).collect()
    }
}
