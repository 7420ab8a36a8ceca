//! One timer for the whole process: wakes subscriptions and forwarders when something they wait for is due.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use waypost_log::{Clock, Timestamp};

/// Something that can be woken at a time.
pub(crate) trait Wake: Send + Sync {
    /// The time that was set has come. Must not block; may set the alarm again.
    fn wake(self: Arc<Self>, due: Timestamp);
}

/// The wakings that a sleeper has set: it sets one only where none that is set comes sooner, for at that one it looks
/// what it waits for.
#[derive(Debug, Default)]
pub(crate) struct Alarms(BTreeSet<Timestamp>);

impl Alarms {
    /// Whether a waking at `due` must be set; then it counts as set.
    pub(crate) fn needs(&mut self, due: Timestamp) -> bool {
        let needed = self.0.first().is_none_or(|first| due < *first);
        if needed {
            self.0.insert(due);
        }
        needed
    }

    /// A waking has come.
    pub(crate) fn rang(&mut self, due: Timestamp) {
        self.0.remove(&due);
    }
}

/// The longest sleep of the timer, so that a wall clock that is set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Sets alarms by the wall clock, since what is due is written down in its terms.
#[derive(Clone)]
pub(crate) struct Alarm(Arc<Inner>);

struct Inner {
    clock: Clock,
    queue: Mutex<Queue>,
    earlier: Notify,
}

#[derive(Default)]
struct Queue {
    heap: BinaryHeap<Reverse<Setting>>,
    settings: u64,
}

struct Setting {
    due: Timestamp,
    // Breaks ties in the order of setting, and keeps the sleeper out of the comparison.
    number: u64,
    sleeper: Weak<dyn Wake>,
}

impl Alarm {
    pub(crate) fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, queue: Mutex::default(), earlier: Notify::new() }))
    }

    /// Wakes `sleeper` at `due` or soon after, unless it is gone by then. Setting it again for the same sleeper
    /// adds a second waking; sleepers keep [`Alarms`] of what they have set.
    pub(crate) fn set(&self, due: Timestamp, sleeper: Weak<dyn Wake>) {
        let mut queue = self.0.queue.lock();
        let first = queue.heap.peek().is_none_or(|Reverse(next)| due < next.due);
        let number = queue.settings;
        queue.settings += 1;
        queue.heap.push(Reverse(Setting { due, number, sleeper }));
        drop(queue);
        if first {
            self.0.earlier.notify_one();
        }
    }

    /// Runs the timer until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let next = self.ring();
            let pause = next.map_or(LONGEST_SLEEP, |due| due.since(self.0.clock.now()).min(LONGEST_SLEEP));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.earlier.notified() => {}
                () = tokio::time::sleep(pause), if next.is_some() => {}
            }
        }
    }

    /// Wakes all that are due and returns when the next one is.
    fn ring(&self) -> Option<Timestamp> {
        loop {
            let mut queue = self.0.queue.lock();
            let due = queue.heap.peek()?.0.due;
            if due > self.0.clock.now() {
                return Some(due);
            }
            let setting = queue.heap.pop();
            drop(queue);
            if let Some(sleeper) = setting.and_then(|Reverse(setting)| setting.sleeper.upgrade()) {
                sleeper.wake(due);
            }
        }
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("set", &self.0.queue.lock().heap.len()).finish_non_exhaustive()
    }
}

impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Setting {}

impl PartialOrd for Setting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Setting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::tasks::Tasks;

    #[derive(Default)]
    struct Sleeper(AtomicUsize);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>, _due: Timestamp) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wakes_in_order_and_not_early() {
        let clock = Clock::runtime();
        let alarm = Alarm::new(clock.clone());
        let tasks = Tasks::new();
        tasks.spawn("alarm", alarm.clone().run(tasks.stop().clone()));
        let (late, early, gone) =
            (Arc::new(Sleeper::default()), Arc::new(Sleeper::default()), Arc::new(Sleeper::default()));
        let weak = |sleeper: &Arc<Sleeper>| Arc::downgrade(sleeper) as Weak<dyn Wake>;
        let now = clock.now();
        alarm.set(now.after(Duration::from_secs(20)), weak(&late));
        tokio::time::sleep(Duration::from_millis(10)).await;
        alarm.set(now.after(Duration::from_secs(5)), weak(&early));
        alarm.set(now.after(Duration::from_secs(5)), weak(&gone));
        drop(gone);
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(4_900)).await;
        assert_eq!((early.0.load(Ordering::Relaxed), late.0.load(Ordering::Relaxed)), (0, 0));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!((early.0.load(Ordering::Relaxed), late.0.load(Ordering::Relaxed)), (1, 0));
        tokio::time::sleep(Duration::from_secs(16)).await;
        assert_eq!((early.0.load(Ordering::Relaxed), late.0.load(Ordering::Relaxed)), (1, 1));
    }
}
