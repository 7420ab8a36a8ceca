//! What a subscription has taken and not settled, and what keeps it from going on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use waypost_core::delivery::Ordering;
use waypost_core::error::DeliveryError;
use waypost_log::{Clock, Entry, Key, Ledger, Offset, Position, Timestamp};

use super::Delivering;
use super::gather::Ready;
use super::pace::Pace;
use super::rest::Resting;
use crate::alarm::Alarms;
use crate::congestion::CongestionWindow;

/// A window holds this many times what may be in flight, so that workers find the next event ready, and what is read for
/// one that lags is read in pages that are worth it.
const WINDOW_PER_IN_FLIGHT: usize = 4;

/// A window holds this many batches of a sink that takes several events at once: one on its way, and one that fills.
const WINDOW_BATCHES: usize = 2;

/// The fewest events that a window holds.
const SMALLEST_WINDOW: usize = 16;

/// What a subscription has taken and not settled.
#[derive(Debug)]
pub(super) struct Window {
    /// Taken, waiting for a worker.
    pub(super) ready: Ready,
    /// Taken, and behind another of its key: by partition, key and offset.
    pub(super) behind: BTreeMap<(u16, Key, Offset), Item>,
    /// The attribute by whose text events stay in order, where they do.
    order_by: Option<Arc<str>>,
    /// What was in flight when the process before ended is still to be read, and its keys with it: nothing else is taken.
    pub(super) recovering: bool,
    pub(super) pace: Pace,
    /// Bytes of what is ready, behind another or in hand.
    pub(super) bytes: usize,
    /// Items that workers hold.
    pub(super) in_hand: usize,
    /// Workers that run.
    pub(super) workers: u32,
    /// Workers that have nothing to do; they are not counted.
    pub(super) resting: Resting,
    pub(super) congestion: CongestionWindow,
    /// One per partition.
    pub(super) places: Vec<Place>,
    /// A worker is refilling.
    pub(super) refilling: bool,
    /// The schedule may hold something that is due.
    pub(super) look_for_due: bool,
    /// The wakings that are set.
    pub(super) alarms: Alarms,
    /// In the ledger's window, and still to be read.
    pub(super) unread: VecDeque<Position>,
    /// Why the broker should refuse events for the trigger's sake.
    pub(super) backlog_exceeded: Option<String>,
    /// The newest failure since the last success.
    pub(super) last_failure: Option<DeliveryError>,
    pub(super) halt: Halt,
    /// The most events, as far as the policy of the trigger asks for them.
    policy_capacity: usize,
}

/// An event that the trigger is owed, in the window.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) entry: Arc<Entry>,
    /// The key under which it stays in order.
    pub(super) key: Option<Key>,
}

/// How the subscription stands in one partition.
#[derive(Debug)]
pub(super) struct Place {
    /// There are matches that the reader's offers did not bring into the window.
    pub(super) lagging: bool,
    /// Every match below was read while catching up.
    pub(super) read_to: Offset,
    /// As many deliveries wait as may: nothing is taken until some are due.
    pub(super) crowded: bool,
    pub(super) offered: Offered,
}

/// The most offers that are kept in mind while a subscription lags.
const MOST_OFFERED: usize = 32;

/// What was offered while a subscription lags, so that the few events of one among very many triggers are not looked for in
/// the match lists of all.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// In order.
    offsets: VecDeque<Offset>,
    /// There are others that were offered.
    more: bool,
}

/// What keeps a subscription from making attempts.
#[derive(Debug, Default)]
pub(super) struct Halt {
    pub(super) paused: bool,
    pub(super) detached: bool,
    pub(super) stopping: bool,
    pub(super) catching_up: bool,
    /// The log could not be read, or took no changes.
    pub(super) log_until: Option<Timestamp>,
    pub(super) misconfigured: Option<Misconfigured>,
}

/// The subscriber accepts nothing: until someone changes something, or, where it is away, until it is back.
#[derive(Debug)]
pub(super) struct Misconfigured {
    pub(super) error: DeliveryError,
    /// When the next probe may be made; none while one is allowed.
    pub(super) until: Option<Timestamp>,
    /// The wait before the probe after that.
    pub(super) pause: Duration,
    /// Whether it is away, and the trigger is to hold its events meanwhile.
    pub(super) away: bool,
}

/// What a worker does next.
pub(super) enum Next {
    Attempt(Item),
    /// In one call; also a single one that others may not come to later.
    AttemptBatch(Vec<Item>),
    Refill,
    Rest,
    Done,
}

impl Place {
    fn new(lagging: bool) -> Self {
        Self { lagging, read_to: 0, crowded: false, offered: Offered::default() }
    }

    /// A match is offered that does not come into the window.
    pub(super) fn falls_behind(&mut self, offset: Offset) {
        if !std::mem::replace(&mut self.lagging, true) {
            self.offered = Offered::default();
        }
        let Offered { offsets, more } = &mut self.offered;
        *more |= offsets.len() >= MOST_OFFERED;
        if !*more {
            offsets.push_back(offset);
        }
    }
}

impl Offered {
    /// The first of what a ledger has not taken, where it is known without a search: then so many untaken matches from
    /// `next` on as were offered are all there are.
    pub(super) fn first(&mut self, next: Offset, untaken: u64, most: usize) -> Option<Vec<Offset>> {
        self.offsets.drain(..self.offsets.partition_point(|offset| *offset < next));
        let all = !self.more && !self.offsets.is_empty() && self.offsets.len() as u64 == untaken;
        all.then(|| self.offsets.iter().take(most).copied().collect())
    }
}

/// What a ledger says was in flight when the process ended: it is delivered again.
fn in_flight_before(ledger: &Ledger) -> impl Iterator<Item = Position> {
    let partition = ledger.partition();
    ledger.window().into_iter().map(move |(offset, _)| Position { partition, offset })
}

impl Halt {
    pub(super) fn any(&self) -> bool {
        self.paused
            || self.detached
            || self.stopping
            || self.catching_up
            || self.log_until.is_some()
            || self.misconfigured.as_ref().is_some_and(|misconfigured| misconfigured.until.is_some())
    }
}

impl Halt {
    /// Whether the next attempt is to find out whether the subscriber accepts events again.
    pub(super) fn probes(&self) -> bool {
        self.misconfigured.as_ref().is_some_and(|misconfigured| misconfigured.until.is_none())
    }

    /// When a halt ends by itself; the earliest, where there are two.
    pub(super) fn until(&self) -> Option<Timestamp> {
        let probe = self.misconfigured.as_ref().and_then(|misconfigured| misconfigured.until);
        self.log_until.into_iter().chain(probe).min()
    }
}

impl Window {
    pub(super) fn new(delivering: &Delivering, ledgers: &[Arc<Ledger>], now: Timestamp) -> Self {
        let unread: VecDeque<_> = ledgers.iter().flat_map(|ledger| in_flight_before(ledger)).collect();
        let in_order = delivering.policy.ordering != Ordering::None;
        let mut window = Self {
            ready: Ready::default(),
            behind: BTreeMap::new(),
            order_by: None,
            recovering: in_order && !unread.is_empty(),
            pace: Pace::default(),
            bytes: 0,
            in_hand: 0,
            workers: 0,
            resting: Resting::default(),
            congestion: CongestionWindow::new(delivering.policy.max_in_flight),
            // A ledger that was there before may owe something.
            places: ledgers.iter().map(|ledger| Place::new(ledger.untaken() > 0)).collect(),
            refilling: false,
            look_for_due: true,
            alarms: Alarms::default(),
            unread,
            backlog_exceeded: None,
            last_failure: None,
            halt: Halt { detached: true, ..Halt::default() },
            policy_capacity: 0,
        };
        window.set_policy(delivering, now);
        window
    }

    pub(super) fn set_policy(&mut self, delivering: &Delivering, now: Timestamp) {
        let in_flight = delivering.policy.max_in_flight;
        self.congestion.set_max(in_flight);
        self.policy_capacity = (in_flight as usize).saturating_mul(WINDOW_PER_IN_FLIGHT).max(SMALLEST_WINDOW);
        self.order_by = match &delivering.policy.ordering {
            Ordering::None => None,
            Ordering::Key { attribute } => Some(Arc::clone(attribute)),
        };
        self.pace.set(delivering.policy.rate, now);
        self.halt.paused = delivering.paused;
        // Whatever was wrong with the subscriber may be mended: try at once.
        self.halt.misconfigured = None;
    }

    fn capacity(&self) -> usize {
        match self.ready.batch_events() {
            1 => self.policy_capacity,
            most => most.saturating_mul(WINDOW_BATCHES).max(SMALLEST_WINDOW),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.behind.is_empty() && self.in_hand == 0
    }

    /// The key under which an event stays in order.
    pub(super) fn key_of(&self, entry: &Entry) -> Option<Key> {
        let value = entry.event.attribute(self.order_by.as_ref()?)?;
        Some(Key::of(value.text))
    }

    /// Whether another event may wait in the window behind one of its key.
    pub(super) fn has_room_behind(&self) -> bool {
        self.behind.len() < self.capacity()
    }

    /// How many more events the window takes.
    pub(super) fn room(&self) -> usize {
        self.capacity().saturating_sub(self.ready.len() + self.in_hand + self.unread.len())
    }

    /// How many due events the window takes: never all of it while new events wait too.
    pub(super) fn room_for_due(&self) -> usize {
        let room = self.room();
        let room = if self.places.iter().any(|place| place.lagging) { room.div_ceil(2) } else { room };
        // What fills the window may wait for what is due.
        room.max(usize::from(self.ready.has_partial()))
    }

    /// Whether an event of `size` bytes fits, where the trigger's part of the budget is `part` bytes.
    pub(super) fn has_room(&self, size: usize, part: usize) -> bool {
        self.room() > 0 && (self.is_empty() || self.bytes.saturating_add(size) <= part)
    }

    /// Whether a worker should read more before it goes on.
    pub(super) fn wants_refill(&self) -> bool {
        let more = self.look_for_due || self.places.iter().any(|place| place.lagging && !place.crowded);
        !self.refilling
            && self.ready.may_be_taken() <= (self.capacity() / 4).max(self.ready.batch_events() - 1)
            && (!self.unread.is_empty() || ((self.room() > 0 || self.ready.has_partial()) && more))
    }

    /// Takes the events of the next call; none, and when to ask again, where they wait for more or for the rate.
    pub(super) fn take_ready(&mut self, clock: &Clock) -> (SmallVec<[Item; 1]>, Option<Timestamp>) {
        if let Some(items) = self.take_bound(clock).transpose() {
            return items.map_or_else(|until| (SmallVec::new(), Some(until)), |items| (items.into(), None));
        }
        if self.ready.may_be_taken() == 0 {
            return (SmallVec::new(), None);
        }
        if let Err(until) = self.ready.wait(clock) {
            return (SmallVec::new(), Some(until));
        }
        let mut pause = None;
        // Whether the subscriber accepts events again, one event finds out.
        let most = if self.halt.probes() { 1 } else { usize::MAX };
        let pace = &mut self.pace;
        let items = self.ready.take(most, || {
            pause = pace.take(clock).err();
            pause.is_none()
        });
        (items, pause)
    }

    /// Takes a batch whose bounds are set, as a whole: all of it, though the rate would let through less, and also where
    /// one event would find out whether the subscriber accepts events again.
    ///
    /// # Errors
    /// When to ask again.
    fn take_bound(&mut self, clock: &Clock) -> Result<Option<Vec<Item>>, Timestamp> {
        if !self.ready.has_whole() {
            return Ok(None);
        }
        self.pace.take(clock)?;
        let items = self.ready.take_whole();
        for _ in items.iter().flatten().skip(1) {
            if self.pace.take(clock).is_err() {
                break;
            }
        }
        Ok(items)
    }

    pub(super) fn has_work(&self) -> bool {
        (self.ready.may_go() && self.pace.may_go()) || self.wants_refill()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_offers_are_kept_in_mind() {
        let mut place = Place::new(false);
        (10..13).for_each(|offset| place.falls_behind(offset));
        assert!(place.lagging);
        assert_eq!(place.offered.first(4, 3, 2), Some(vec![10, 11]));
        assert_eq!(place.offered.first(11, 2, 9), Some(vec![11, 12]));
        assert_eq!(place.offered.first(13, 0, 9), None);
    }

    #[test]
    fn what_was_not_offered_is_looked_for() {
        let mut place = Place::new(true);
        place.falls_behind(7);
        assert_eq!(place.offered.first(3, 2, 9), None, "another is untaken, before it or behind it");

        let mut place = Place::new(false);
        let many = MOST_OFFERED as Offset + 1;
        (0..many).for_each(|offset| place.falls_behind(offset));
        assert_eq!(place.offered.first(0, many, 9), None, "too many to be kept in mind");
        assert_eq!(place.offered.first(1, many - 1, 9), None);
        // The next time is another matter.
        place.lagging = false;
        place.falls_behind(many);
        assert_eq!(place.offered.first(many, 1, 9), Some(vec![many]));
    }
}
