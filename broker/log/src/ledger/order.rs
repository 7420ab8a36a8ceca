//! Which debt of a key may be attempted: the lowest that is not settled (promise P3).

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::error::WriteError;
use crate::ledger::schedule::Waiting;
use crate::ledger::{Due, Ledger};
use crate::record::{Entry, Offset};

/// What the events of a trigger that stay in order have in common, as a number. Two texts that share one are ordered
/// among each other as well, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(NonZeroU64);

/// The start and the factor of FNV-1a. The numbers are written down, so they stay the same for ever.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Key {
    /// The key that a text stands for.
    pub fn of(text: &str) -> Self {
        let hash = text.bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    pub(crate) fn number(self) -> u64 {
        self.0.get()
    }
}

/// Whether a debt may be attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing of its key is ahead of it.
    Now,
    /// Another of its key is ahead of it.
    Later,
}

/// A delivery that nothing of its key is ahead of any more.
#[derive(Debug, Clone)]
pub enum Opened {
    /// It stands in the window, where it may have been before.
    Window(Key, Offset),
    /// It came from the schedule into the window.
    Held(Due),
}

/// The debts that have a key, and are taken and not settled.
#[derive(Debug, Default)]
pub(super) struct Order {
    all: BTreeSet<(Key, Offset)>,
    /// Keys whose first debt may be another one since this was last asked.
    moved: BTreeSet<Key>,
}

impl Order {
    /// Puts one in, and says whether it comes first.
    pub(super) fn insert(&mut self, key: Key, offset: Offset) -> Turn {
        self.all.insert((key, offset));
        self.turn(key, offset)
    }

    pub(super) fn remove(&mut self, key: Key, offset: Offset) {
        let was_first = self.first(key) == Some(offset);
        self.all.remove(&(key, offset));
        if was_first && self.first(key).is_some() {
            self.moved.insert(key);
        }
    }

    pub(super) fn first(&self, key: Key) -> Option<Offset> {
        self.all.range((key, 0)..=(key, Offset::MAX)).next().map(|(_, offset)| *offset)
    }

    pub(super) fn turn(&self, key: Key, offset: Offset) -> Turn {
        if self.first(key) == Some(offset) { Turn::Now } else { Turn::Later }
    }

    /// Has every key looked at once more.
    pub(super) fn look_at_all(&mut self) {
        self.moved.extend(self.all.iter().map(|(key, _)| *key));
    }

    /// A key to look at.
    pub(super) fn pop_moved(&mut self) -> Option<Key> {
        self.moved.pop_first()
    }

    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }
}

impl Ledger {
    /// As [`Ledger::take`], of a match that stays in order with others of its key: whether it may be attempted. Where it
    /// may not, [`Ledger::opened`] says when. None where `take` is false.
    pub fn take_in_order(&self, entry: &Arc<Entry>, key: Key) -> Option<Turn> {
        self.take_into_window(entry.position.offset, Some(Arc::clone(entry)), Some(key))
    }

    /// Whether what is in the window may be attempted, and its key: the one that the ledger knows, else `key`, which it
    /// keeps in mind. At the start of the process it knows no key of what was in the window. None of what is not in it.
    pub fn turn(&self, offset: Offset, key: Option<Key>) -> Option<(Turn, Option<Key>)> {
        let mut guard = self.state();
        let state = &mut *guard;
        let flight = state.window.get_mut(&offset)?;
        flight.key = flight.key.or(key);
        Some(match flight.key {
            Some(key) => (state.order.insert(key, offset), Some(key)),
            None => (Turn::Now, None),
        })
    }

    /// Whether the first of a key waits outside of the window.
    pub fn is_closed(&self, key: Key) -> bool {
        let state = self.state();
        state.order.first(key).is_some_and(|first| state.schedule.get(first).is_some())
    }

    /// Moves what is in the window and behind another of its key to the schedule, where it waits until
    /// [`Ledger::opened`] gives it back. From then on the log may be trimmed above it. Of what is not in the window, or
    /// has no key, nothing changes.
    pub fn hold(&self, entry: &Arc<Entry>) -> Result<(), WriteError> {
        let offset = entry.position.offset;
        let mut state = self.state();
        let Some(flight) = state.window.get(&offset) else { return Ok(()) };
        let (Some(key), attempts, crashes) = (flight.key, flight.attempts, flight.crashes) else {
            return Ok(());
        };
        let charge = self.journal.held(self.debt(offset), entry, key)?;
        state.window.remove(&offset);
        state.changes += 1;
        let entry = self.journal.keeps_bodies_in_memory().then(|| Arc::clone(entry));
        state.schedule.put(offset, Waiting::new(None, attempts, crashes, Some(key)).with_body(entry, charge));
        Ok(())
    }

    /// The first of each key whose first may have changed since this was last asked: what waits in the schedule behind
    /// another that is settled now comes into the window. At most `limit`; [`Ledger::has_opened`] says whether there is
    /// more.
    pub fn opened(&self, limit: usize) -> Vec<Opened> {
        let mut state = self.state();
        let mut all = Vec::new();
        while all.len() < limit {
            let Some(key) = state.order.pop_moved() else { break };
            let Some(offset) = state.order.first(key) else { continue };
            match state.schedule.get(offset).map(|waiting| waiting.due().is_some()) {
                // Its next attempt is due at its time.
                Some(true) => {}
                Some(false) => all.extend(state.unschedule(offset).map(Opened::Held)),
                None => all.push(Opened::Window(key, offset)),
            }
        }
        all
    }

    /// Whether [`Ledger::opened`] may give something.
    pub fn has_opened(&self) -> bool {
        self.state().order.has_moved()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are written down: another number for the same text would let an event overtake one that waits.
    #[test]
    fn the_numbers_of_keys_stay_as_they_are() {
        assert_eq!(Key::of("").number(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Key::of("a").number(), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Key::of("foobar").number(), 0x8594_4171_f739_67e8);
        assert_eq!(Key::from_number(Key::of("a").number()), Some(Key::of("a")));
        assert_eq!(Key::from_number(0), None);
    }

    #[test]
    fn the_lowest_of_a_key_comes_first() {
        let (mut order, a, b) = (Order::default(), Key::of("a"), Key::of("b"));
        assert_eq!(
            (order.insert(a, 1), order.insert(a, 4), order.insert(b, 2)),
            (Turn::Now, Turn::Later, Turn::Now)
        );
        order.remove(a, 4);
        assert_eq!(order.pop_moved(), None, "the first is the same");
        order.insert(a, 5);
        order.remove(a, 1);
        order.remove(b, 2);
        assert_eq!((order.pop_moved(), order.pop_moved()), (Some(a), None));
        assert_eq!((order.first(a), order.first(b)), (Some(5), None));
        assert_eq!(order.insert(a, 3), Turn::Now);
    }
}
