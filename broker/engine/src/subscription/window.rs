//! What a subscription has taken and not settled, and what keeps it from going on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::error::DeliveryError;
use waypost_log::{Entry, Ledger, Offset, Position, Timestamp};

use super::Delivering;
use super::rest::Resting;
use crate::alarm::Alarms;
use crate::congestion::CongestionWindow;

/// A window holds this many times what may be in flight, so that workers find the next event ready.
const WINDOW_PER_IN_FLIGHT: usize = 2;

/// The fewest events that a window holds.
const SMALLEST_WINDOW: usize = 16;

/// What a subscription has taken and not settled.
#[derive(Debug)]
pub(super) struct Window {
    /// Taken, waiting for a worker.
    pub(super) ready: VecDeque<Item>,
    /// Bytes of what is ready or in hand.
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
    capacity: usize,
}

/// An event that the trigger is owed, in the window.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) entry: Arc<Entry>,
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

/// The subscriber accepts nothing until someone changes something.
#[derive(Debug)]
pub(super) struct Misconfigured {
    pub(super) error: DeliveryError,
    /// When the next probe may be made; none while one is allowed.
    pub(super) until: Option<Timestamp>,
    /// The wait before the probe after that.
    pub(super) pause: Duration,
}

/// What a worker does next.
pub(super) enum Next {
    Attempt(Item),
    Refill,
    Rest,
    Done,
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
    /// When a halt ends by itself; the earliest, where there are two.
    pub(super) fn until(&self) -> Option<Timestamp> {
        let probe = self.misconfigured.as_ref().and_then(|misconfigured| misconfigured.until);
        self.log_until.into_iter().chain(probe).min()
    }
}

impl Window {
    pub(super) fn new(delivering: &Delivering, ledgers: &[Arc<Ledger>]) -> Self {
        let mut window = Self {
            ready: VecDeque::new(),
            bytes: 0,
            in_hand: 0,
            workers: 0,
            resting: Resting::default(),
            congestion: CongestionWindow::new(delivering.policy.max_in_flight),
            // A ledger that was there before may owe something.
            places: ledgers
                .iter()
                .map(|ledger| Place { lagging: ledger.untaken() > 0, read_to: 0, crowded: false })
                .collect(),
            refilling: false,
            look_for_due: true,
            alarms: Alarms::default(),
            unread: ledgers.iter().flat_map(|ledger| in_flight_before(ledger)).collect(),
            backlog_exceeded: None,
            last_failure: None,
            halt: Halt { detached: true, ..Halt::default() },
            capacity: 0,
        };
        window.set_policy(delivering);
        window
    }

    pub(super) fn set_policy(&mut self, delivering: &Delivering) {
        let in_flight = delivering.policy.max_in_flight;
        self.congestion.set_max(in_flight);
        self.capacity = (in_flight as usize).saturating_mul(WINDOW_PER_IN_FLIGHT).max(SMALLEST_WINDOW);
        self.halt.paused = delivering.paused;
        // Whatever was wrong with the subscriber may be mended: try at once.
        self.halt.misconfigured = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.in_hand == 0
    }

    /// How many more events the window takes.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.ready.len() + self.in_hand + self.unread.len())
    }

    /// How many due events the window takes: never all of it while new events wait too.
    pub(super) fn room_for_due(&self) -> usize {
        let room = self.room();
        if self.places.iter().any(|place| place.lagging) { room.div_ceil(2) } else { room }
    }

    /// Whether an event of `size` bytes fits, where the trigger's part of the budget is `part` bytes.
    pub(super) fn has_room(&self, size: usize, part: usize) -> bool {
        self.room() > 0 && (self.is_empty() || self.bytes.saturating_add(size) <= part)
    }

    /// Whether a worker should read more before it goes on.
    pub(super) fn wants_refill(&self) -> bool {
        let more = self.look_for_due || self.places.iter().any(|place| place.lagging && !place.crowded);
        !self.refilling
            && self.ready.len() <= self.capacity / 4
            && (!self.unread.is_empty() || (self.room() > 0 && more))
    }

    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.wants_refill()
    }
}
