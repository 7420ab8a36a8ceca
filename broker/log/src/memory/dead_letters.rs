//! The store of dead letters in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::dead_letter::{
    DeadLetter, DeadLetterId, DeadLetterReason, DeadLetters, FailedAgain, Forwarding, LetterClaims,
    LetterRecord, LetterSelection, RedriveId, Traits,
};
use crate::error::WriteError;
use crate::ledger::{AcceptedOutputs, Attempt};
use crate::record::{Charge, Entry, Position};

/// What a dead letter costs besides its event and its attempts.
const DEAD_LETTER_OVERHEAD: usize = 512;

/// Dead letters by number, by trigger, and by the moment when they are to be forwarded. They and the events that
/// they hold count against the log's limit.
#[derive(Debug)]
pub(super) struct DeadLetterStore {
    used: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    letters: Mutex<Letters>,
    /// Who sends which; locked after the letters.
    claims: LetterClaims,
}

#[derive(Debug, Default)]
struct Letters {
    next: u64,
    all: BTreeMap<DeadLetterId, Stored>,
    triggers: HashMap<ResourceName, OfTrigger>,
}

#[derive(Debug)]
struct Stored {
    letter: Arc<DeadLetter>,
    charge: Charge,
}

#[derive(Debug, Default)]
struct OfTrigger {
    ids: BTreeSet<DeadLetterId>,
    due: BTreeSet<(Timestamp, DeadLetterId)>,
}

/// A dead letter that has no number yet.
#[derive(Debug)]
pub(super) struct NewDeadLetter {
    pub(super) trigger: ResourceName,
    pub(super) position: Position,
    pub(super) entry: Option<Arc<Entry>>,
    pub(super) reason: DeadLetterReason,
    pub(super) attempts: Vec<Attempt>,
    pub(super) attempts_made: u32,
    pub(super) at: Timestamp,
    pub(super) forwarding: Forwarding,
    pub(super) accepted: Option<AcceptedOutputs>,
}

impl NewDeadLetter {
    fn cost(&self) -> u64 {
        cost(&self.reason, &self.attempts)
    }
}

/// What a dead letter costs besides its event.
fn cost(reason: &DeadLetterReason, attempts: &[Attempt]) -> u64 {
    let attempts: usize = attempts.iter().map(|attempt| size_of::<Attempt>() + attempt.heap_size()).sum();
    let reason =
        reason.detail.len() + reason.destination.len() + reason.body_excerpt.as_ref().map_or(0, Bytes::len);
    (DEAD_LETTER_OVERHEAD + attempts + reason) as u64
}

impl DeadLetterStore {
    pub(super) fn new(used: Arc<AtomicU64>, closed: Arc<AtomicBool>) -> Self {
        Self { used, closed, letters: Mutex::default(), claims: LetterClaims::default() }
    }

    pub(super) fn put(&self, new: NewDeadLetter) -> DeadLetterId {
        let charge = Charge::take(&self.used, new.cost());
        let NewDeadLetter {
            trigger,
            position,
            entry,
            reason,
            attempts,
            attempts_made,
            at,
            forwarding,
            accepted,
        } = new;
        let mut letters = self.letters.lock();
        let id = DeadLetterId(letters.next);
        letters.next += 1;
        let of_trigger = letters.triggers.entry(trigger.clone()).or_default();
        of_trigger.ids.insert(id);
        of_trigger.due.extend(due(&forwarding).map(|due| (due, id)));
        let redriven = None;
        let record = entry.map_or(LetterRecord::Lost, LetterRecord::Readable);
        let letter = DeadLetter {
            id,
            trigger,
            position,
            record,
            reason,
            attempts,
            attempts_made,
            at,
            forwarding,
            redriven,
            accepted,
        };
        letters.all.insert(id, Stored { letter: Arc::new(letter), charge });
        id
    }

    fn check_open(&self) -> Result<(), WriteError> {
        if self.closed.load(Ordering::Acquire) { Err(WriteError::Closed) } else { Ok(()) }
    }
}

fn due(forwarding: &Forwarding) -> Option<Timestamp> {
    match forwarding {
        Forwarding::Waiting { due, .. } => Some(*due),
        Forwarding::Kept | Forwarding::GivenUp { .. } => None,
    }
}

/// The most dead letters that are looked at under one lock.
const JUDGED_AT_ONCE: usize = 4_096;

impl Letters {
    fn of(&self, ids: impl Iterator<Item = DeadLetterId>) -> Vec<Arc<DeadLetter>> {
        ids.filter_map(|id| self.all.get(&id)).map(|stored| Arc::clone(&stored.letter)).collect()
    }

    /// Looks at some of those above `after`: those that are selected, and the last that was looked at where others come
    /// after it.
    fn judge(
        &self,
        selection: &LetterSelection,
        after: Option<DeadLetterId>,
    ) -> (Vec<DeadLetterId>, Option<DeadLetterId>) {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let (mut selected, mut last, mut looked_at) = (Vec::new(), None, 0);
        for (id, stored) in self.all.range(range).take(JUDGED_AT_ONCE) {
            selected.extend(is_selected(&stored.letter, selection).then_some(*id));
            (last, looked_at) = (Some(*id), looked_at + 1);
        }
        (selected, last.filter(|_| looked_at == JUDGED_AT_ONCE))
    }
}

fn is_selected(letter: &DeadLetter, selection: &LetterSelection) -> bool {
    let DeadLetter { id, at, redriven, ref trigger, ref reason, .. } = *letter;
    let entry = letter.entry();
    let traits = Traits { id, trigger, code: reason.code, at, readable: entry.is_some(), redriven };
    let event_type = entry.map(|entry| entry.event.event_type());
    selection.admits(&traits) && selection.admits_type(event_type)
}

#[async_trait]
impl DeadLetters for DeadLetterStore {
    async fn list(
        &self,
        trigger: Option<&ResourceName>,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Vec<Arc<DeadLetter>> {
        let letters = self.letters.lock();
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        match trigger {
            None => letters.of(letters.all.range(range).map(|(id, _)| *id).take(limit)),
            Some(trigger) => letters.triggers.get(trigger).map_or_else(Vec::new, |of_trigger| {
                letters.of(of_trigger.ids.range(range).copied().take(limit))
            }),
        }
    }

    async fn select(
        &self,
        selection: &LetterSelection,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Vec<DeadLetterId> {
        let (mut all, mut after) = (Vec::new(), after);
        loop {
            let (selected, more_after) = self.letters.lock().judge(selection, after);
            all.extend(selected);
            if more_after.is_none() || all.len() >= limit {
                all.truncate(limit);
                return all;
            }
            after = more_after;
            tokio::task::yield_now().await;
        }
    }

    async fn get(&self, id: DeadLetterId) -> Option<Arc<DeadLetter>> {
        self.letters.lock().all.get(&id).map(|stored| Arc::clone(&stored.letter))
    }

    fn triggers(&self) -> Vec<ResourceName> {
        let mut triggers: Vec<_> = self.letters.lock().triggers.keys().cloned().collect();
        triggers.sort();
        triggers
    }

    fn count(&self, trigger: &ResourceName) -> u64 {
        self.letters.lock().triggers.get(trigger).map_or(0, |of_trigger| of_trigger.ids.len() as u64)
    }

    fn count_failed(&self, redrive: RedriveId) -> u64 {
        let letters = self.letters.lock();
        letters.all.values().filter(|stored| stored.letter.redriven.is_some_and(|at| at >= redrive)).count()
            as u64
    }

    fn claims(&self) -> &LetterClaims {
        &self.claims
    }

    fn due(&self, trigger: &ResourceName, now: Timestamp, limit: usize) -> Vec<DeadLetterId> {
        let letters = self.letters.lock();
        letters.triggers.get(trigger).map_or_else(Vec::new, |of_trigger| {
            let due = of_trigger.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id);
            due.filter(|id| !self.claims.has(*id)).take(limit).collect()
        })
    }

    fn next_due(&self, trigger: &ResourceName) -> Option<Timestamp> {
        self.letters.lock().triggers.get(trigger)?.due.first().map(|(due, _)| *due)
    }

    fn set_forwarding(&self, id: DeadLetterId, forwarding: Forwarding) -> Result<bool, WriteError> {
        self.check_open()?;
        let mut letters = self.letters.lock();
        let Letters { all, triggers, .. } = &mut *letters;
        let Some(stored) = all.get_mut(&id) else { return Ok(false) };
        if let Some(of_trigger) = triggers.get_mut(&stored.letter.trigger) {
            if let Some(before) = due(&stored.letter.forwarding) {
                of_trigger.due.remove(&(before, id));
            }
            of_trigger.due.extend(due(&forwarding).map(|due| (due, id)));
        }
        stored.letter = Arc::new(DeadLetter { forwarding, ..DeadLetter::clone(&stored.letter) });
        Ok(true)
    }

    fn failed_again(&self, id: DeadLetterId, failure: &FailedAgain) -> Result<bool, WriteError> {
        self.check_open()?;
        let mut letters = self.letters.lock();
        let Some(stored) = letters.all.get_mut(&id) else { return Ok(false) };
        let mut letter = DeadLetter::clone(&stored.letter);
        letter.attempts_made = failure.add_attempts(&mut letter.attempts, letter.attempts_made);
        letter.redriven = letter.redriven.max(Some(failure.redrive));
        (letter.reason, letter.at) = (failure.reason.clone(), failure.at);
        letter.accepted = failure.accepted.or(letter.accepted);
        stored.charge = Charge::take(&self.used, cost(&letter.reason, &letter.attempts));
        stored.letter = Arc::new(letter);
        Ok(true)
    }

    fn remove(&self, id: DeadLetterId) -> Result<bool, WriteError> {
        self.check_open()?;
        let mut letters = self.letters.lock();
        let Some(stored) = letters.all.remove(&id) else { return Ok(false) };
        let letter = &stored.letter;
        if let Some(of_trigger) = letters.triggers.get_mut(&letter.trigger) {
            of_trigger.ids.remove(&id);
            if let Some(due) = due(&letter.forwarding) {
                of_trigger.due.remove(&(due, id));
            }
            if of_trigger.ids.is_empty() {
                letters.triggers.remove(&letter.trigger);
            }
        }
        Ok(true)
    }
}
