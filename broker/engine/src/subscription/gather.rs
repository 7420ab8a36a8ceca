//! How events come together for one call to a sink that takes several: what is ready, and how long the first of it waits
//! for others. What went out together before, and is to again, waits for the last of its batch and for nothing else.

use std::collections::{BTreeMap, VecDeque};

use smallvec::SmallVec;
use waypost_core::sink::{BatchUnity, Batching};
use waypost_log::{BatchNumber, Clock, Timestamp};

use super::window::Item;

/// What waits for a worker, and how it goes out.
#[derive(Debug)]
pub(super) struct Ready {
    items: VecDeque<Item>,
    bytes: usize,
    /// None where the sink did not say yet.
    batching: Option<Batching>,
    linger: Linger,
    /// Batches whose bounds are set, and of which all is here.
    whole: VecDeque<Vec<Item>>,
    in_whole: usize,
    /// Batches whose bounds are set, and of which some is elsewhere, by partition and number.
    partial: BTreeMap<(u16, BatchNumber), Together>,
    in_partial: usize,
}

/// What is here of a batch.
#[derive(Debug, Default)]
struct Together {
    items: Vec<Item>,
    /// How much there is of it in all, as the ledger said.
    of: usize,
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
        Self {
            items: VecDeque::new(),
            bytes: 0,
            batching: Some(Batching::SINGLE),
            linger: Linger::Unset,
            whole: VecDeque::new(),
            in_whole: 0,
            partial: BTreeMap::new(),
            in_partial: 0,
        }
    }
}

impl Ready {
    /// Takes over what the sink asks for; none where it did not say yet.
    pub(super) fn set_batching(&mut self, batching: Option<Batching>) {
        self.batching = batching;
    }

    /// Single events until the sink says otherwise.
    fn batching(&self) -> Batching {
        self.batching.unwrap_or(Batching::SINGLE)
    }

    /// The most events in one call.
    pub(super) fn batch_events(&self) -> usize {
        self.batching().max_events.max(1)
    }

    /// Whether a call is taken whole or not at all, as far as is known.
    pub(super) fn is_atomic(&self) -> bool {
        self.batching.is_none_or(|batching| batching.unity == BatchUnity::Atomic)
    }

    pub(super) fn len(&self) -> usize {
        self.may_be_taken() + self.in_partial
    }

    /// All but what waits for the rest of its batch.
    pub(super) fn may_be_taken(&self) -> usize {
        self.items.len() + self.in_whole
    }

    /// Whether something waits for the rest of its batch.
    pub(super) fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts one in that goes out with the others of its batch, which has so many.
    pub(super) fn push_bound(&mut self, batch: BatchNumber, of: usize, item: Item) {
        let key = (item.entry.position.partition, batch);
        let together = self.partial.entry(key).or_default();
        together.items.push(item);
        together.of = of;
        self.in_partial += 1;
        self.look_whether_whole(key);
    }

    fn look_whether_whole(&mut self, key: (u16, BatchNumber)) {
        if self.partial.get(&key).is_some_and(|together| together.items.len() >= together.of)
            && let Some(together) = self.partial.remove(&key)
        {
            self.in_partial -= together.items.len();
            self.in_whole += together.items.len();
            self.whole.push_back(together.items);
        }
    }

    /// Looks again how much there is of the batches of a partition: something of them may have been settled elsewhere, and
    /// what is of no batch any more goes out as what never was.
    pub(super) fn review(&mut self, partition: u16, of: impl Fn(BatchNumber) -> Option<usize>) {
        let keys: Vec<_> = self.partial.keys().copied().filter(|(of, _)| *of == partition).collect();
        for key in keys {
            match (of(key.1), self.partial.get_mut(&key)) {
                (Some(of), Some(together)) => {
                    together.of = of;
                    self.look_whether_whole(key);
                }
                _ => {
                    let items = self.partial.remove(&key).map(|together| together.items).unwrap_or_default();
                    self.in_partial -= items.len();
                    self.extend(items);
                }
            }
        }
    }

    /// Whether there is a batch whose bounds were set before.
    pub(super) fn has_whole(&self) -> bool {
        !self.whole.is_empty()
    }

    /// Takes a batch whose bounds were set before.
    pub(super) fn take_whole(&mut self) -> Option<Vec<Item>> {
        let items = self.whole.pop_front()?;
        self.in_whole -= items.len();
        Some(items)
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
        self.whole.clear();
        self.in_whole = 0;
        self.partial.clear();
        self.in_partial = 0;
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Item) -> bool) {
        self.items.retain(&mut keep);
        self.whole.iter_mut().for_each(|items| items.retain(&mut keep));
        self.whole.retain(|items| !items.is_empty());
        self.in_whole = self.whole.iter().map(Vec::len).sum();
        self.partial.values_mut().for_each(|together| together.items.retain(&mut keep));
        self.partial.retain(|_, together| !together.items.is_empty());
        self.in_partial = self.partial.values().map(|together| together.items.len()).sum();
        self.bytes = self.items.iter().map(|item| item.entry.size()).sum();
    }

    /// Whether there may be something to send now, as far as is known without the time.
    pub(super) fn may_go(&self) -> bool {
        let lingers = !self.is_full() && matches!(self.linger, Linger::Until(_));
        !self.whole.is_empty() || (!self.items.is_empty() && !lingers)
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.batch_events() || self.bytes >= self.batching().max_bytes
    }

    /// Whether the next batch may go, or until when it waits for more.
    pub(super) fn wait(&mut self, clock: &Clock) -> Result<(), Timestamp> {
        let linger = self.batching().linger;
        if self.is_full() || linger.is_zero() {
            return Ok(());
        }
        let now = clock.now();
        match self.linger {
            Linger::Over => Ok(()),
            Linger::Until(until) if until <= now => Ok(()),
            Linger::Until(until) => Err(until),
            Linger::Unset => {
                let until = now.after(linger);
                self.linger = Linger::Until(until);
                Err(until)
            }
        }
    }

    /// Takes the events of one call that were not bound before, at most `most`: as many as `admits` lets through. Those
    /// of an atomic call are of one partition, whose ledger keeps its bounds.
    pub(super) fn take(&mut self, most: usize, mut admits: impl FnMut() -> bool) -> SmallVec<[Item; 1]> {
        let partition = |item: &Item| item.entry.position.partition;
        let only = self.items.front().map(partition).filter(|_| self.is_atomic());
        let fits = |item: &Item| only.is_none_or(|only| only == partition(item));
        let sizes = self.items.iter().filter(|item| fits(item)).map(|item| item.entry.size());
        let most = self.batching().most_of(sizes).min(most);
        let (mut taken, mut at) = (SmallVec::<[Item; 1]>::new(), 0);
        while let Some(item) = self.items.get(at).filter(|_| taken.len() < most) {
            if !fits(item) {
                at += 1;
            } else if admits() {
                taken.extend(self.items.remove(at));
            } else {
                break;
            }
        }
        self.bytes -= taken.iter().map(|item| item.entry.size()).sum::<usize>();
        self.linger = Linger::Unset;
        taken
    }

    /// Until when less than a batch waits.
    pub(super) fn until(&self) -> Option<Timestamp> {
        match self.linger {
            Linger::Until(until) if !self.items.is_empty() => Some(until),
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
