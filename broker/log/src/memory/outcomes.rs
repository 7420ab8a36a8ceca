//! The newest finished attempts and settlements of a partition, found by debt.

use std::collections::{HashMap, VecDeque};

use crate::ledger::{ATTEMPTS_KEPT, Attempt, OutcomeState};
use crate::log::TriggerNumber;
use crate::record::Offset;

/// The attempts and settlements that a log keeps, over all partitions.
pub(super) const OUTCOMES_KEPT: usize = 65_536;
/// The bytes of details and answers that are kept with them, over all partitions.
pub(super) const OUTCOME_BYTES_KEPT: usize = 16 * 1024 * 1024;

type Key = (Offset, TriggerNumber);

/// A bounded list of what happened, oldest first.
///
/// Most debts are settled by their first attempt and nobody ever asks: of those a note is all there is, and whoever
/// does ask looks through the keys. What fails is asked about at every step, so notes on one debt that has several
/// are linked, and the newest is found at once.
#[derive(Debug)]
pub(super) struct Outcomes {
    notes: VecDeque<Note>,
    /// What each note is about.
    keys: VecDeque<Key>,
    /// The number of the first note.
    first: u64,
    /// The number of the newest linked note on each debt.
    newest: HashMap<Key, u64>,
    /// The bytes of details and answers.
    bytes: usize,
    notes_limit: usize,
    bytes_limit: usize,
}

#[derive(Debug)]
struct Note {
    /// Whether it is found by its debt.
    linked: bool,
    /// The number of the note before on the same debt. It may be gone.
    before: Option<u64>,
    attempt: Option<Attempt>,
    settled: Option<OutcomeState>,
}

impl Outcomes {
    /// With the share of one of so many partitions.
    pub(super) fn of_one_in(partitions: u16) -> Self {
        let partitions = usize::from(partitions).max(1);
        Self {
            notes: VecDeque::new(),
            keys: VecDeque::new(),
            first: 0,
            newest: HashMap::new(),
            bytes: 0,
            notes_limit: (OUTCOMES_KEPT / partitions).max(1),
            bytes_limit: (OUTCOME_BYTES_KEPT / partitions).max(1),
        }
    }

    /// Notes an attempt, a settlement, or both in one. `link` says that there are other notes on the same debt,
    /// or that it will be asked for.
    pub(super) fn note(
        &mut self,
        offset: Offset,
        trigger: TriggerNumber,
        attempt: Option<Attempt>,
        settled: Option<OutcomeState>,
        link: bool,
    ) {
        let key = (offset, trigger);
        let number = self.first + self.notes.len() as u64;
        let before = if link { self.newest.insert(key, number) } else { None };
        self.bytes += attempt.as_ref().map_or(0, Attempt::heap_size);
        self.keys.push_back(key);
        self.notes.push_back(Note { linked: link, before, attempt, settled });
        while self.notes.len() > self.notes_limit || (self.bytes > self.bytes_limit && self.notes.len() > 1) {
            self.forget_oldest();
        }
    }

    /// How the debt was settled and the last attempts at it, the newest last.
    pub(super) fn find(
        &self,
        offset: Offset,
        trigger: TriggerNumber,
    ) -> (Option<OutcomeState>, Vec<Attempt>) {
        let key = (offset, trigger);
        let unlinked =
            || self.keys.iter().rposition(|noted| *noted == key).map(|index| self.first + index as u64);
        let mut settled = None;
        let mut attempts = Vec::new();
        let mut number = self.newest.get(&key).copied().or_else(unlinked);
        while let Some(note) = number.and_then(|number| self.get(number))
            && attempts.len() < ATTEMPTS_KEPT
        {
            settled = settled.or(note.settled);
            attempts.extend(note.attempt.clone());
            number = note.before;
        }
        attempts.reverse();
        (settled, attempts)
    }

    fn get(&self, number: u64) -> Option<&Note> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.notes.get(index)
    }

    fn forget_oldest(&mut self) {
        let (Some(note), Some(key)) = (self.notes.pop_front(), self.keys.pop_front()) else { return };
        if note.linked && self.newest.get(&key) == Some(&self.first) {
            self.newest.remove(&key);
        }
        self.first += 1;
        self.bytes -= note.attempt.as_ref().map_or(0, Attempt::heap_size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ledger::AttemptOutcome;
    use waypost_core::codes;

    fn failed(number: u32, detail: &str) -> Attempt {
        let outcome = AttemptOutcome::Failed {
            code: codes::SUBSCRIBER_TIMEOUT,
            status: None,
            detail: detail.to_owned(),
            body_excerpt: None,
        };
        Attempt { number, started: Timestamp(1), ended: Timestamp(2), outcome }
    }

    #[test]
    fn the_attempts_at_one_debt_are_found_among_those_at_others() {
        let mut outcomes = Outcomes::of_one_in(1);
        for number in 1..=3 {
            outcomes.note(7, TriggerNumber(1), Some(failed(number, "no")), None, true);
            outcomes.note(7, TriggerNumber(2), Some(failed(10 + number, "no")), None, true);
            outcomes.note(8, TriggerNumber(1), Some(failed(20 + number, "no")), None, true);
        }
        outcomes.note(
            7,
            TriggerNumber(1),
            None,
            Some(OutcomeState::Dropped(crate::DropReason::Deadline)),
            true,
        );
        let (settled, attempts) = outcomes.find(7, TriggerNumber(1));
        assert_eq!(settled, Some(OutcomeState::Dropped(crate::DropReason::Deadline)));
        assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(outcomes.find(9, TriggerNumber(1)), (None, vec![]));
    }

    #[test]
    fn only_the_last_attempts_at_a_debt_are_told() {
        let mut outcomes = Outcomes::of_one_in(1);
        for number in 1..=40 {
            outcomes.note(7, TriggerNumber(1), Some(failed(number, "no")), None, true);
        }
        let (_, attempts) = outcomes.find(7, TriggerNumber(1));
        assert_eq!(attempts.len(), ATTEMPTS_KEPT);
        assert_eq!(attempts.last().map(|attempt| attempt.number), Some(40));
    }

    #[test]
    fn the_oldest_are_forgotten_by_number_and_by_bytes() {
        let mut outcomes = Outcomes { notes_limit: 10, ..Outcomes::of_one_in(1) };
        for offset in 0..25 {
            outcomes.note(offset, TriggerNumber(0), None, Some(OutcomeState::Delivered), offset % 2 == 0);
        }
        assert_eq!(outcomes.find(14, TriggerNumber(0)).0, None);
        assert_eq!(outcomes.find(15, TriggerNumber(0)).0, Some(OutcomeState::Delivered));
        assert_eq!((outcomes.notes.len(), outcomes.keys.len(), outcomes.newest.len()), (10, 10, 5));

        let mut outcomes = Outcomes { bytes_limit: 100, ..Outcomes::of_one_in(1) };
        for offset in 0..10 {
            outcomes.note(offset, TriggerNumber(0), Some(failed(1, &"x".repeat(30))), None, true);
        }
        assert_eq!((outcomes.notes.len(), outcomes.bytes), (3, 90));
        // One that is larger than all room is still the newest.
        outcomes.note(10, TriggerNumber(0), Some(failed(1, &"x".repeat(300))), None, true);
        assert_eq!(outcomes.find(10, TriggerNumber(0)).1.len(), 1);
    }
}
