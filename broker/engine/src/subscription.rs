//! A trigger's way through its broker's log: what it is owed is taken into a window and worked off.
//!
//! The shared reader offers each match as it finds it. As long as the window has room the match is taken at
//! once, with the entry that the reader holds: the hot path. When the window is full the subscription *lags*:
//! offers only wake it, and it pages through what it is owed by itself until it has caught up.
//!
//! Workers exist only while there is work, and a moment longer. Each owns its lane (for HTTP its connection), takes one
//! item after the other, and calls or starts the next worker when there is more to do and the congestion window allows
//! it. A worker rests and ends under the same lock under which work is offered, so no wake-up is lost.

mod attempt;
mod backlog;
mod gather;
mod operator;
mod order;
mod pace;
mod refill;
mod rest;
mod window;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use waypost_core::delivery::DeliveryPolicy;
use waypost_core::error::DeliveryError;
use waypost_core::manifest::ResourceName;
use waypost_core::transformation::Chain;
use waypost_log::{
    Counts, Crowding, DropReason, Entry, Ledger, Log, Offset, Position, Timestamp, TriggerNumber, WriteError,
};

use self::attempt::Kept;
pub(crate) use self::attempt::{Mark, NotNow, RedriveSlot};
pub use self::operator::{OperateError, SeekTo};
use self::rest::Rest;
use self::window::{Halt, Item, Next, Window};
use crate::alarm::Wake;
use crate::context::Context;
use crate::forwarder::Forwarder;
use crate::matching::spending::Spending;
use crate::plan::Replies;
use crate::subscriber::{Subscriber, Terms};

/// A trigger's way through its broker's log.
pub(crate) struct Subscription {
    pub(crate) name: ResourceName,
    pub(crate) broker: ResourceName,
    pub(crate) number: TriggerNumber,
    log: Arc<dyn Log>,
    ledgers: Vec<Arc<Ledger>>,
    context: Arc<Context>,
    delivering: ArcSwap<Delivering>,
    forwarder: Arc<Forwarder>,
    window: Mutex<Window>,
    spending: Spending,
    /// Until when attempts are made known to the disk before they are made.
    careful_until: Timestamp,
    /// Counts refills.
    turn: AtomicUsize,
    /// For each partition the offset below which an operator gave everything up.
    sought: Vec<AtomicU64>,
    me: Weak<Self>,
}

/// How the newest valid version of a trigger delivers: applies to all that is pending.
#[derive(Debug)]
pub(crate) struct Delivering {
    pub(crate) policy: DeliveryPolicy,
    pub(crate) transformations: Chain,
    pub(crate) subscriber: Subscriber,
    pub(crate) replies: Replies,
    pub(crate) dead_letter_sink: Option<Arc<Subscriber>>,
    pub(crate) terms: Terms,
    pub(crate) paused: bool,
}

/// What the status tells of a subscription besides its ledger.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) counts: Counts,
    pub(crate) in_flight: u64,
    pub(crate) paused: bool,
    pub(crate) detached: bool,
    pub(crate) misconfigured: Option<DeliveryError>,
    /// Why the subscriber is taken to be away, where the trigger holds its events until it is back.
    pub(crate) away: Option<DeliveryError>,
    /// Why the trigger takes no more for now.
    pub(crate) crowding: Option<Crowding>,
    /// Committed records that the shared reader has not examined yet.
    pub(crate) lag_events: u64,
    /// Where the trigger sends.
    pub(crate) subscriber: String,
    /// The ledger could not be written: nothing is attempted any more.
    pub(crate) failed: bool,
    /// Why the broker refuses events for the trigger's sake, where it does.
    pub(crate) backlog_exceeded: Option<String>,
    /// The newest attempt that failed since the last one that succeeded.
    pub(crate) last_failure: Option<DeliveryError>,
    /// Evaluations of the filter that used up their steps, since the start of the process.
    pub(crate) over_budget: u64,
    /// Whether the last ones did, one after the other.
    pub(crate) filter_too_costly: bool,
}

/// How long a subscription waits before it reads again what could not be read.
pub(crate) const READ_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// How long it waits before it goes on where the log takes no changes for the moment.
pub(crate) const WRITE_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

impl Subscription {
    pub(crate) fn new(
        name: ResourceName,
        broker: ResourceName,
        log: Arc<dyn Log>,
        context: Arc<Context>,
        delivering: Delivering,
    ) -> Arc<Self> {
        let number = log.trigger(&name);
        let ledgers: Vec<_> = (0..log.partitions()).map(|partition| log.ledger(partition, number)).collect();
        let forwarder =
            Forwarder::new(name.clone(), broker.clone(), number, log.dead_letters(), Arc::clone(&context));
        forwarder.set_destination(&delivering);
        let window = Window::new(&delivering, &ledgers, context.clock.now());
        let sought = ledgers.iter().map(|_| AtomicU64::new(0)).collect();
        let careful_until = attempt::careful_until(&*log, context.clock.now());
        Arc::new_cyclic(|me| Self {
            name,
            broker,
            number,
            log,
            ledgers,
            context,
            delivering: ArcSwap::from_pointee(delivering),
            forwarder,
            window: Mutex::new(window),
            spending: Spending::default(),
            careful_until,
            turn: AtomicUsize::new(0),
            sought,
            me: me.clone(),
        })
    }

    /// Takes over a new version of how the trigger delivers. Attempts in flight end as they began.
    pub(crate) fn set_delivering(&self, delivering: Delivering) {
        self.forwarder.set_destination(&delivering);
        let mut window = self.lock();
        window.set_policy(&delivering, self.context.clock.now());
        self.delivering.store(Arc::new(delivering));
        self.kick(&mut window);
    }

    pub(crate) fn delivering(&self) -> Arc<Delivering> {
        self.delivering.load_full()
    }

    /// Starts, or goes on after having been detached.
    pub(crate) fn attach(&self) {
        // Of many triggers hardly any has something that waits: the others need no worker to find that out.
        let waits = self.ledgers.iter().any(|ledger| ledger.next_due().is_some() || ledger.has_opened());
        let mut window = self.lock();
        window.halt.detached = false;
        window.look_for_due = waits;
        self.kick(&mut window);
        drop(window);
        self.forwarder.resume();
    }

    /// Makes no more attempts. What is pending stays pending, attempts in flight end as they end.
    pub(crate) fn detach(&self) {
        let mut window = self.lock();
        window.halt.detached = true;
        window.resting.dismiss();
        drop(window);
        self.forwarder.halt();
    }

    /// Makes no more attempts for the rest of the process.
    pub(crate) fn stop(&self) {
        let mut window = self.lock();
        window.halt.stopping = true;
        window.resting.dismiss();
        drop(window);
        self.forwarder.halt();
    }

    /// Keeps a trigger that starts in the past from taking anything while its past is being matched.
    pub(crate) fn hold(&self) {
        self.lock().halt.catching_up = true;
    }

    /// The past has been matched.
    pub(crate) fn release(&self) {
        let mut window = self.lock();
        window.halt.catching_up = false;
        for place in &mut window.places {
            place.lagging = true;
        }
        self.kick(&mut window);
    }

    /// The first offset that the trigger takes in a partition, where it has none yet.
    pub(crate) fn begin(&self, partition: u16, offset: u64) {
        self.ledgers[usize::from(partition)].begin(offset);
    }

    /// Offers a match, right after it was recorded. Offers come in log order per partition.
    pub(crate) fn offer(&self, entry: &Arc<Entry>) {
        let partition = usize::from(entry.position.partition);
        let part = self.context.windows.part();
        let mut taken = Ok(());
        let mut window = self.lock();
        if window.places[partition].lagging {
            window.places[partition].falls_behind(entry.position.offset);
        } else {
            let room = window.has_room(entry.size(), part) && self.ledgers[partition].has_room();
            if window.halt.any() || window.recovering || !room {
                window.places[partition].falls_behind(entry.position.offset);
            } else {
                taken = self.take(&mut window, &self.ledgers[partition], entry);
            }
        }
        self.kick(&mut window);
        drop(window);
        if let Err(error) = taken {
            self.not_written(&error);
        }
    }

    /// Counts all that is pending as dropped: an operator, or the retention of what is detached, gave it up.
    pub(crate) fn drop_pending(&self, reason: DropReason) -> Result<u64, WriteError> {
        let mut window = self.lock();
        let in_use = !window.is_empty();
        window.ready.clear();
        window.behind.clear();
        window.unread.clear();
        window.bytes = 0;
        if in_use && window.is_empty() {
            self.context.windows.used(false);
        }
        drop(window);
        let mut dropped = 0;
        for ledger in &self.ledgers {
            dropped += ledger.drop_all(reason, self.log.matched(ledger.partition()))?;
        }
        Ok(dropped)
    }

    /// How often the evaluation of its filter used up its steps.
    pub(crate) fn spending(&self) -> &Spending {
        &self.spending
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.lock().halt.detached
    }

    pub(crate) fn standing(&self) -> Standing {
        let window = self.lock();
        let lag_events = (0..self.log.partitions())
            .map(|partition| self.log.bounds(partition).end.saturating_sub(self.log.matched(partition)))
            .sum();
        let mut counts = Counts::default();
        for ledger in &self.ledgers {
            counts = counts.and(&ledger.counts());
        }
        let halted = |away| {
            let halted = window.halt.misconfigured.as_ref().filter(|halted| halted.away == away);
            halted.map(|halted| halted.error.clone())
        };
        Standing {
            counts,
            in_flight: window.in_hand as u64,
            paused: window.halt.paused,
            detached: window.halt.detached,
            misconfigured: halted(false),
            away: halted(true),
            crowding: self.ledgers.iter().find_map(|ledger| ledger.crowding()),
            lag_events,
            subscriber: self.delivering.load().subscriber.destination(),
            failed: window.halt.stopping,
            backlog_exceeded: window.backlog_exceeded.clone(),
            last_failure: window.last_failure.clone(),
            over_budget: self.spending.total(),
            filter_too_costly: self.spending.is_excessive(),
        }
    }

    /// For each partition the oldest offset that waits to be taken or is being delivered, where one is.
    pub(crate) fn floors(&self) -> Vec<(u16, u64)> {
        let floor = |ledger: &Arc<Ledger>| ledger.floor().map(|offset| (ledger.partition(), offset));
        self.ledgers.iter().filter_map(floor).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock()
    }

    fn push(&self, window: &mut Window, item: Item) {
        self.account(window, &item);
        self.put(window, item, false);
    }

    /// As [`Self::push`], for what was taken just now and so is in no batch.
    fn push_fresh(&self, window: &mut Window, item: Item) {
        self.account(window, &item);
        window.ready.push_back(item);
    }

    /// Puts an item among those that are ready: with the others of its batch, where it is in one.
    fn put(&self, window: &mut Window, item: Item, in_front: bool) {
        let position = item.entry.position;
        match self.ledgers[usize::from(position.partition)].batch_of(position.offset) {
            Some((batch, of)) => window.ready.push_bound(batch, of, item),
            None if in_front => window.ready.push_front(item),
            None => window.ready.push_back(item),
        }
    }

    /// Looks at the batches of which not all is ready: some of them may have been settled, or let go.
    fn review(&self, window: &mut Window, ledger: &Ledger) {
        if window.ready.has_partial() {
            let of = |batch| ledger.bounds(batch).map(|bounds| bounds.offsets.len());
            window.ready.review(ledger.partition(), of);
        }
    }

    /// Counts an item that comes into the window.
    fn account(&self, window: &mut Window, item: &Item) {
        if window.is_empty() {
            self.context.windows.used(true);
        }
        window.bytes += item.entry.size();
    }

    /// Takes an item that has left the window out of the count.
    fn discount(&self, window: &mut Window, item: &Item) {
        window.bytes = window.bytes.saturating_sub(item.entry.size());
        if window.is_empty() {
            self.context.windows.used(false);
        }
    }

    /// Takes what waits in the window out of it, and gives the offsets.
    fn withdraw(&self, window: &mut Window, partition: u16, goes: impl Fn(Offset) -> bool) -> Vec<Offset> {
        let goes = |position: Position| position.partition == partition && goes(position.offset);
        let in_use = !window.is_empty();
        let (mut offsets, mut freed) = (Vec::new(), 0);
        let mut keep = |item: &Item| {
            let position = item.entry.position;
            if goes(position) {
                offsets.push(position.offset);
                freed += item.entry.size();
            }
            !goes(position)
        };
        window.ready.retain(&mut keep);
        window.behind.retain(|_, item| keep(item));
        window.bytes = window.bytes.saturating_sub(freed);
        if in_use && window.is_empty() {
            self.context.windows.used(false);
        }
        offsets
    }

    /// Starts a worker where there is work and room for one more. Each worker that finds more work starts the
    /// next, so that a burst wakes as many as it needs and not more.
    fn kick(&self, window: &mut Window) {
        if window.halt.any() || !window.has_work() || window.workers >= window.congestion.limit() {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        window.workers += 1;
        if window.resting.call() {
            return;
        }
        self.context.dispatch.spawn("delivery workers", me.work());
    }

    async fn work(self: Arc<Self>) {
        let mut worker = Worker { subscription: &self, ended: false };
        let mut kept = Kept::new(&self.context.cut);
        let mut attempts = 0_u64;
        let rest = Arc::new(Rest::default());
        loop {
            match self.next(&rest) {
                Next::Attempt(item) => {
                    attempts += 1;
                    self.attempt(&mut kept, item).await;
                }
                Next::AttemptBatch(items) => {
                    attempts += 1;
                    self.attempt_batch(&mut kept, items).await;
                }
                Next::Refill => self.refill().await,
                Next::Rest => {
                    // Of many triggers that have an event now and then, each would keep a connection from the others.
                    if attempts < 2 || self.context.pool.is_crowded() {
                        kept.let_go();
                    }
                    // Not counted from here until it is called.
                    worker.ended = true;
                    if !rest.wait().await {
                        return;
                    }
                    worker.ended = false;
                }
                Next::Done => break,
            }
        }
        worker.ended = true;
    }

    /// Lets go of workers that rested for too long. True while others rest.
    pub(crate) fn look_at_rest(&self) -> bool {
        let mut window = self.lock();
        window.resting.watched = window.resting.look();
        window.resting.watched
    }

    /// What a worker does next. When it says [`Next::Done`] or [`Next::Rest`], the worker is no longer counted.
    fn next(&self, rest: &Arc<Rest>) -> Next {
        let batching = self.delivering.load().subscriber.batching(&self.context);
        let mut window = self.lock();
        window.ready.set_batching(batching);
        if window.halt.any() || window.workers > window.congestion.limit() {
            window.workers -= 1;
            return Next::Done;
        }
        if window.wants_refill() {
            window.refilling = true;
            self.kick(&mut window);
            return Next::Refill;
        }
        let (mut items, pause) = window.take_ready(&self.context.clock);
        if items.is_empty() {
            window.workers -= 1;
            window.resting.add(Arc::clone(rest));
            if !std::mem::replace(&mut window.resting.watched, true) {
                self.context.resting.lock().push(self.me.clone());
            }
            drop(window);
            if let Some(until) = pause {
                self.wake_at(until);
            }
            return Next::Rest;
        }
        window.in_hand += items.len();
        self.kick(&mut window);
        let alone = !window.ready.is_atomic();
        match items.pop() {
            Some(item) if items.is_empty() && alone => Next::Attempt(item),
            last => {
                items.extend(last);
                Next::AttemptBatch(items.into_vec())
            }
        }
    }

    /// Makes no attempts for a moment: the log cannot do now what they need.
    fn wait_for_log(&self, pause: std::time::Duration) {
        let until = self.context.clock.now().after(pause);
        self.lock().halt.log_until = Some(until);
        self.wake_at(until);
    }

    fn wake_at(&self, due: Timestamp) {
        let needed = self.lock().alarms.needs(due);
        if needed {
            self.context.alarm.set(due, self.me.clone());
        }
    }
}

impl Wake for Subscription {
    fn wake(self: Arc<Self>, due: Timestamp) {
        // What was set for this moment is over, also where the clock has been set back since.
        let now = self.context.clock.now().max(due);
        let mut window = self.lock();
        window.alarms.rang(due);
        window.halt.time_passes(now);
        window.pace.time_passes(now);
        window.ready.time_passes(now);
        window.look_for_due = true;
        self.kick(&mut window);
        let (halted, until) = (window.halt.any(), window.halt.until());
        let waits = [window.pace.until(), window.ready.until()];
        drop(window);
        for wait in waits.into_iter().flatten() {
            self.wake_at(wait);
        }
        match until {
            Some(until) => self.wake_at(until),
            // Whoever ends the halt looks for what is due.
            None if halted => {}
            None => self.set_alarm_beyond(now),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.window.get_mut().is_empty() {
            self.context.windows.used(false);
        }
    }
}

/// Keeps a worker counted until it ends, also when it panics.
struct Worker<'a> {
    subscription: &'a Subscription,
    ended: bool,
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let mut window = self.subscription.lock();
            window.workers -= 1;
            self.subscription.kick(&mut window);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("name", &self.name)
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

impl Halt {
    /// Lets go of what was to wait until now.
    fn time_passes(&mut self, now: Timestamp) {
        if self.log_until.is_some_and(|until| until <= now) {
            self.log_until = None;
        }
        if let Some(misconfigured) = &mut self.misconfigured
            && misconfigured.until.is_some_and(|until| until <= now)
        {
            misconfigured.until = None;
        }
    }
}
