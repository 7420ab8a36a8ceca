//! The dead letters of a log: in memory what is needed to find them; what they say is in the checkpoint, or on its
//! way there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, Range};

use bytes::Bytes;
use parking_lot::Mutex;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::dead_letter::{DeadLetterId, Forwarding};
use crate::embedded::note::StoredLetter;
use crate::record::Offset;

/// All dead letters of a log.
#[derive(Debug, Default)]
pub(super) struct Letters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    all: BTreeMap<DeadLetterId, Head>,
    triggers: HashMap<ResourceName, OfTrigger>,
    /// Those whose event can be read, by the record.
    readable: BTreeSet<(Offset, DeadLetterId)>,
    /// Changed since the last checkpoint; no content means that it is gone.
    fresh: BTreeMap<DeadLetterId, Option<Bytes>>,
    /// On its way to the checkpoint.
    leaving: BTreeMap<DeadLetterId, Option<Bytes>>,
}

#[derive(Debug)]
struct Head {
    trigger: ResourceName,
    offset: Offset,
    readable: bool,
    due: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct OfTrigger {
    ids: BTreeSet<DeadLetterId>,
    due: BTreeSet<(Timestamp, DeadLetterId)>,
}

/// Where the content of a dead letter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Held(Bytes),
    InCheckpoint,
    Gone,
}

impl Letters {
    /// Puts one in under a new number, once `note` has written it down. None where it was not.
    pub(super) fn put(
        &self,
        letter: &StoredLetter,
        note: impl FnOnce(DeadLetterId, Bytes) -> Option<u64>,
    ) -> Option<DeadLetterId> {
        let content = letter.encode();
        let mut state = self.0.lock();
        let id = DeadLetterId(state.next);
        note(id, content.clone())?;
        state.enter(id, letter);
        state.fresh.insert(id, Some(content));
        Some(id)
    }

    /// Puts in what the journal tells of.
    pub(super) fn replay(&self, id: DeadLetterId, letter: &StoredLetter) {
        let mut state = self.0.lock();
        state.leave(id);
        state.enter(id, letter);
        state.fresh.insert(id, Some(letter.encode()));
    }

    /// Enters what the checkpoint has.
    pub(super) fn restore(&self, id: DeadLetterId, letter: &StoredLetter) {
        self.0.lock().enter(id, letter);
    }

    /// Goes on with numbers from `next`.
    pub(super) fn go_on_at(&self, next: u64) {
        let mut state = self.0.lock();
        state.next = state.next.max(next);
    }

    pub(super) fn next(&self) -> u64 {
        self.0.lock().next
    }

    /// Changes one, once `note` has written it down: false where it is gone, None where it was not written down.
    /// `letter` must be what it says now.
    pub(super) fn change(
        &self,
        id: DeadLetterId,
        letter: &StoredLetter,
        note: impl FnOnce(Bytes) -> Option<u64>,
    ) -> Option<bool> {
        let content = letter.encode();
        let mut state = self.0.lock();
        if !state.all.contains_key(&id) {
            return Some(false);
        }
        note(content.clone())?;
        state.leave(id);
        state.enter(id, letter);
        state.fresh.insert(id, Some(content));
        Some(true)
    }

    /// Takes one out, once `note` has written it down: false where it is gone, None where it was not written down.
    pub(super) fn remove(&self, id: DeadLetterId, note: impl FnOnce() -> Option<u64>) -> Option<bool> {
        let mut state = self.0.lock();
        if !state.all.contains_key(&id) {
            return Some(false);
        }
        note()?;
        state.leave(id);
        state.fresh.insert(id, None);
        Some(true)
    }

    pub(super) fn content(&self, id: DeadLetterId) -> Content {
        let state = self.0.lock();
        if !state.all.contains_key(&id) {
            return Content::Gone;
        }
        match state.fresh.get(&id).or_else(|| state.leaving.get(&id)) {
            Some(Some(content)) => Content::Held(content.clone()),
            Some(None) => Content::Gone,
            None => Content::InCheckpoint,
        }
    }

    /// Numbers above `after`, in order.
    pub(super) fn ids(
        &self,
        trigger: Option<&ResourceName>,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Vec<DeadLetterId> {
        let state = self.0.lock();
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        match trigger {
            None => state.all.range(range).map(|(id, _)| *id).take(limit).collect(),
            Some(trigger) => state
                .triggers
                .get(trigger)
                .map_or_else(Vec::new, |of| of.ids.range(range).copied().take(limit).collect()),
        }
    }

    pub(super) fn count(&self, trigger: &ResourceName) -> u64 {
        self.0.lock().triggers.get(trigger).map_or(0, |of_trigger| of_trigger.ids.len() as u64)
    }

    pub(super) fn due(&self, trigger: &ResourceName, now: Timestamp, limit: usize) -> Vec<DeadLetterId> {
        let state = self.0.lock();
        state.triggers.get(trigger).map_or_else(Vec::new, |of_trigger| {
            let due = of_trigger.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id);
            due.take(limit).collect()
        })
    }

    pub(super) fn next_due(&self, trigger: &ResourceName) -> Option<Timestamp> {
        self.0.lock().triggers.get(trigger)?.due.first().map(|(due, _)| *due)
    }

    /// The records in a range whose events dead letters need.
    pub(super) fn offsets(&self, range: Range<Offset>) -> Vec<Offset> {
        let state = self.0.lock();
        let (from, to) = ((range.start, DeadLetterId(0)), (range.end, DeadLetterId(0)));
        state.readable.range(from..to).map(|(offset, _)| *offset).collect()
    }

    /// Takes out what is to be written to the checkpoint.
    pub(super) fn leave(&self) -> Vec<(DeadLetterId, Option<Bytes>)> {
        let mut state = self.0.lock();
        state.leaving = std::mem::take(&mut state.fresh);
        state.leaving.iter().map(|(id, content)| (*id, content.clone())).collect()
    }

    /// What was taken out is in the checkpoint.
    pub(super) fn left(&self) {
        self.0.lock().leaving.clear();
    }
}

impl State {
    fn enter(&mut self, id: DeadLetterId, letter: &StoredLetter) {
        self.next = self.next.max(id.0 + 1);
        let due = match letter.forwarding {
            Forwarding::Waiting { due, .. } => Some(due),
            Forwarding::Kept | Forwarding::GivenUp { .. } => None,
        };
        let of_trigger = self.triggers.entry(letter.trigger.clone()).or_default();
        of_trigger.ids.insert(id);
        of_trigger.due.extend(due.map(|due| (due, id)));
        if letter.readable {
            self.readable.insert((letter.offset, id));
        }
        let StoredLetter { offset, readable, .. } = *letter;
        self.all.insert(id, Head { trigger: letter.trigger.clone(), offset, readable, due });
    }

    fn leave(&mut self, id: DeadLetterId) {
        let Some(head) = self.all.remove(&id) else { return };
        if head.readable {
            self.readable.remove(&(head.offset, id));
        }
        let Some(of_trigger) = self.triggers.get_mut(&head.trigger) else { return };
        of_trigger.ids.remove(&id);
        if let Some(due) = head.due {
            of_trigger.due.remove(&(due, id));
        }
        if of_trigger.ids.is_empty() {
            self.triggers.remove(&head.trigger);
        }
    }
}
