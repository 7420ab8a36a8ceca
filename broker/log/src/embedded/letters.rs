//! The dead letters of a log: in memory what is needed to find them; what they say is in the checkpoint, or on its
//! way there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use waypost_core::Code;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::dead_letter::{DeadLetterId, Forwarding, LetterClaims, LetterSelection, RedriveId, Traits};
use crate::embedded::note::StoredLetter;
use crate::record::Offset;

/// The most dead letters that are looked at under one lock.
const JUDGED_AT_ONCE: usize = 4_096;

/// The most types of events that are remembered; letters with others are read again to tell their type.
const TYPES_KEPT: usize = 10_000;

/// All dead letters of a log.
#[derive(Debug, Default)]
pub(super) struct Letters {
    state: Mutex<State>,
    /// Who sends which; locked after the state.
    claims: LetterClaims,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    all: BTreeMap<DeadLetterId, Head>,
    triggers: HashMap<Arc<ResourceName>, OfTrigger>,
    /// The types that events are known to have.
    types: HashSet<Arc<str>>,
    /// Those whose event can be read, by the record.
    readable: BTreeSet<(Offset, DeadLetterId)>,
    /// Changed since the last checkpoint; no content means that it is gone.
    fresh: BTreeMap<DeadLetterId, Option<Bytes>>,
    /// On its way to the checkpoint.
    leaving: BTreeMap<DeadLetterId, Option<Bytes>>,
}

#[derive(Debug)]
struct Head {
    trigger: Arc<ResourceName>,
    offset: Offset,
    readable: bool,
    due: Option<Timestamp>,
    at: Timestamp,
    code: Code,
    redriven: Option<RedriveId>,
    /// The type of its event, once that was read.
    event_type: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct OfTrigger {
    ids: BTreeSet<DeadLetterId>,
    due: BTreeSet<(Timestamp, DeadLetterId)>,
}

/// What one look at the dead letters found.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// In order of numbers.
    pub(super) found: Vec<Found>,
    /// The last that was looked at, where others come after it.
    pub(super) more_after: Option<DeadLetterId>,
}

/// A dead letter that is selected, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Selected(DeadLetterId),
    /// The type of its event decides, which is not known: it is that of the record at this offset.
    OfUnknownType(DeadLetterId, Offset),
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
        let mut state = self.state.lock();
        let id = DeadLetterId(state.next);
        note(id, content.clone())?;
        state.enter(id, letter);
        state.fresh.insert(id, Some(content));
        Some(id)
    }

    /// Puts in what the journal tells of.
    pub(super) fn replay(&self, id: DeadLetterId, letter: &StoredLetter) {
        let mut state = self.state.lock();
        state.leave(id);
        state.enter(id, letter);
        state.fresh.insert(id, Some(letter.encode()));
    }

    /// Enters what the checkpoint has.
    pub(super) fn restore(&self, id: DeadLetterId, letter: &StoredLetter) {
        self.state.lock().enter(id, letter);
    }

    /// Goes on with numbers from `next`.
    pub(super) fn go_on_at(&self, next: u64) {
        let mut state = self.state.lock();
        state.next = state.next.max(next);
    }

    pub(super) fn next(&self) -> u64 {
        self.state.lock().next
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
        let mut state = self.state.lock();
        if !state.all.contains_key(&id) {
            return Some(false);
        }
        note(content.clone())?;
        let event_type = state.all.get(&id).and_then(|head| head.event_type.clone());
        state.leave(id);
        state.enter(id, letter);
        if let Some(head) = state.all.get_mut(&id) {
            head.event_type = event_type;
        }
        state.fresh.insert(id, Some(content));
        Some(true)
    }

    /// Takes one out, once `note` has written it down: false where it is gone, None where it was not written down.
    pub(super) fn remove(&self, id: DeadLetterId, note: impl FnOnce() -> Option<u64>) -> Option<bool> {
        let mut state = self.state.lock();
        if !state.all.contains_key(&id) {
            return Some(false);
        }
        note()?;
        state.leave(id);
        state.fresh.insert(id, None);
        Some(true)
    }

    pub(super) fn content(&self, id: DeadLetterId) -> Content {
        let state = self.state.lock();
        if !state.all.contains_key(&id) {
            return Content::Gone;
        }
        match state.fresh.get(&id).or_else(|| state.leaving.get(&id)) {
            Some(Some(content)) => Content::Held(content.clone()),
            Some(None) => Content::Gone,
            None => Content::InCheckpoint,
        }
    }

    /// Looks at some of those above `after` and tells which are selected.
    pub(super) fn judge(&self, selection: &LetterSelection, after: Option<DeadLetterId>) -> Judged {
        let state = self.state.lock();
        let end = selection.through.map_or(Bound::Unbounded, Bound::Included);
        // An empty range from a bound beyond the end would be a panic of the map.
        if let (Some(after), Some(through)) = (after, selection.through)
            && after >= through
        {
            return Judged::default();
        }
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), end);
        let mut judged = Judged::default();
        let mut look = |id: DeadLetterId, head: &Head| {
            judged.found.extend(head.judge(id, selection));
            judged.more_after = Some(id);
        };
        let looked_at = match &selection.trigger {
            None => {
                let heads = state.all.range(range).take(JUDGED_AT_ONCE);
                heads.map(|(id, head)| look(*id, head)).count()
            }
            Some(trigger) => {
                let ids = state.triggers.get(trigger).into_iter().flat_map(|of| of.ids.range(range));
                let heads = ids.filter_map(|id| Some((*id, state.all.get(id)?))).take(JUDGED_AT_ONCE);
                heads.map(|(id, head)| look(id, head)).count()
            }
        };
        if looked_at < JUDGED_AT_ONCE {
            judged.more_after = None;
        }
        judged
    }

    /// The type of the event of a dead letter was read.
    pub(super) fn learn_type(&self, id: DeadLetterId, event_type: &str) {
        let mut state = self.state.lock();
        let State { all, types, .. } = &mut *state;
        let Some(head) = all.get_mut(&id) else { return };
        let known = types.get(event_type).cloned();
        head.event_type = known.or_else(|| {
            let new: Arc<str> = event_type.into();
            (types.len() < TYPES_KEPT).then(|| {
                types.insert(Arc::clone(&new));
                new
            })
        });
    }

    /// How many failed again at this redrive, or at a later one.
    pub(super) fn count_failed(&self, redrive: RedriveId) -> u64 {
        let state = self.state.lock();
        state.all.values().filter(|head| head.redriven.is_some_and(|at| at >= redrive)).count() as u64
    }

    pub(super) fn claims(&self) -> &LetterClaims {
        &self.claims
    }

    pub(super) fn triggers(&self) -> Vec<ResourceName> {
        let mut triggers: Vec<_> =
            self.state.lock().triggers.keys().map(|trigger| ResourceName::clone(trigger)).collect();
        triggers.sort();
        triggers
    }

    pub(super) fn count(&self, trigger: &ResourceName) -> u64 {
        self.state.lock().triggers.get(trigger).map_or(0, |of_trigger| of_trigger.ids.len() as u64)
    }

    pub(super) fn due(&self, trigger: &ResourceName, now: Timestamp, limit: usize) -> Vec<DeadLetterId> {
        let state = self.state.lock();
        state.triggers.get(trigger).map_or_else(Vec::new, |of_trigger| {
            let due = of_trigger.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id);
            due.filter(|id| !self.claims.has(*id)).take(limit).collect()
        })
    }

    pub(super) fn next_due(&self, trigger: &ResourceName) -> Option<Timestamp> {
        self.state.lock().triggers.get(trigger)?.due.first().map(|(due, _)| *due)
    }

    /// The records in a range whose events dead letters need.
    pub(super) fn offsets(&self, range: Range<Offset>) -> Vec<Offset> {
        let state = self.state.lock();
        let (from, to) = ((range.start, DeadLetterId(0)), (range.end, DeadLetterId(0)));
        state.readable.range(from..to).map(|(offset, _)| *offset).collect()
    }

    /// Takes out what is to be written to the checkpoint.
    pub(super) fn leave(&self) -> Vec<(DeadLetterId, Option<Bytes>)> {
        let mut state = self.state.lock();
        state.leaving = std::mem::take(&mut state.fresh);
        state.leaving.iter().map(|(id, content)| (*id, content.clone())).collect()
    }

    /// What was taken out is in the checkpoint.
    pub(super) fn left(&self) {
        self.state.lock().leaving.clear();
    }
}

impl State {
    fn enter(&mut self, id: DeadLetterId, letter: &StoredLetter) {
        self.next = self.next.max(id.0 + 1);
        let due = match letter.forwarding {
            Forwarding::Waiting { due, .. } => Some(due),
            Forwarding::Kept | Forwarding::GivenUp { .. } => None,
        };
        let known = self.triggers.get_key_value(&letter.trigger).map(|(name, _)| Arc::clone(name));
        let trigger = known.unwrap_or_else(|| Arc::new(letter.trigger.clone()));
        let of_trigger = self.triggers.entry(Arc::clone(&trigger)).or_default();
        of_trigger.ids.insert(id);
        of_trigger.due.extend(due.map(|due| (due, id)));
        if letter.readable {
            self.readable.insert((letter.offset, id));
        }
        let StoredLetter { offset, readable, at, redriven, .. } = *letter;
        let code = letter.reason.code;
        let head = Head { trigger, offset, readable, due, at, code, redriven, event_type: None };
        self.all.insert(id, head);
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

impl Head {
    /// Whether it is selected, as far as that is known; none where it is not.
    fn judge(&self, id: DeadLetterId, selection: &LetterSelection) -> Option<Found> {
        let Self { at, code, readable, redriven, .. } = *self;
        let traits = Traits { id, trigger: &self.trigger, code, at, readable, redriven };
        if !selection.admits(&traits) {
            return None;
        }
        match (&selection.event_type, &self.event_type) {
            (None, _) => Some(Found::Selected(id)),
            (Some(_), None) if readable => Some(Found::OfUnknownType(id, self.offset)),
            (Some(_), known) => selection.admits_type(known.as_deref()).then_some(Found::Selected(id)),
        }
    }
}
