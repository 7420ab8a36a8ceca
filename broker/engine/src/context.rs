//! What every part of the engine shares.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use waypost_clients::http::Pool;
use waypost_core::manifest::ResourceName;
use waypost_log::Clock;

use crate::alarm::Alarm;
use crate::broker::Broker;
use crate::budget::Budget;
use crate::logs::{Logs, Unopened};
use crate::metrics::Metrics;
use crate::plan::TransformationPlan;
use crate::sinks::RunningSink;
use crate::sources::RunningSource;
use crate::subscription::Subscription;
use crate::tasks::Tasks;

/// What every part of the engine shares. One per engine, behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) clock: Clock,
    pub(crate) alarm: Alarm,
    pub(crate) pool: Arc<Pool>,
    pub(crate) directory: Directory,
    pub(crate) metrics: Metrics,
    /// Bytes between acceptance and commit.
    pub(crate) ingest: Budget,
    /// The bytes that all windows together should stay within.
    pub(crate) windows: WindowBudget,
    pub(crate) max_event_bytes: usize,
    pub(crate) logs: Logs,
    /// A log on disk was full: what is detached in any of them makes room.
    pub(crate) disk_full: std::sync::atomic::AtomicBool,
    /// How long what was detached is kept.
    pub(crate) detached_retention: std::time::Duration,
    /// Subscriptions some of whose workers rest.
    pub(crate) resting: Mutex<Vec<Weak<Subscription>>>,
    /// Held during an attempt at an event that may be what ended the process before.
    pub(crate) suspects: tokio::sync::Mutex<()>,
    /// The readers, workers, forwarders and the alarm.
    pub(crate) dispatch: Tasks,
    /// Cancelled when the deadline of the shutdown has come: attempts are cut, and not counted.
    pub(crate) cut: CancellationToken,
}

impl Context {
    /// Lets go of workers that rested for too long.
    pub(crate) fn look_at_rest(&self) {
        let resting = std::mem::take(&mut *self.resting.lock());
        let mut still = resting;
        still.retain(|subscription| {
            subscription.upgrade().is_some_and(|subscription| subscription.look_at_rest())
        });
        self.resting.lock().append(&mut still);
    }
}

/// What runs now, by name. Looked up on the hot path without a lock.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    brokers: Names<Arc<Broker>>,
    /// Brokers that are declared and whose log cannot be opened.
    unopened: Names<Arc<Unopened>>,
    sinks: Names<Arc<RunningSink>>,
    transformations: Names<Arc<TransformationPlan>>,
    sources: Names<Arc<RunningSource>>,
}

/// What runs under which name: by namespace, then by name, so that a look-up needs no key of its own.
#[derive(Debug)]
struct Names<T>(ArcSwap<HashMap<String, HashMap<String, T>>>);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<T: Clone> Names<T> {
    fn get(&self, namespace: &str, name: &str) -> Option<T> {
        self.0.load().get(namespace)?.get(name).cloned()
    }

    fn set(&self, all: impl IntoIterator<Item = (ResourceName, T)>) {
        let mut namespaces: HashMap<String, HashMap<String, T>> = HashMap::new();
        for (ResourceName { namespace, name }, value) in all {
            namespaces.entry(namespace).or_default().insert(name, value);
        }
        self.0.store(Arc::new(namespaces));
    }
}

impl Directory {
    pub(crate) fn broker(&self, namespace: &str, name: &str) -> Option<Arc<Broker>> {
        self.brokers.get(namespace, name)
    }

    pub(crate) fn unopened(&self, namespace: &str, name: &str) -> Option<Arc<Unopened>> {
        self.unopened.get(namespace, name)
    }

    pub(crate) fn sink(&self, namespace: &str, name: &str) -> Option<Arc<RunningSink>> {
        self.sinks.get(namespace, name)
    }

    pub(crate) fn transformation(&self, namespace: &str, name: &str) -> Option<Arc<TransformationPlan>> {
        self.transformations.get(namespace, name)
    }

    pub(crate) fn source(&self, namespace: &str, name: &str) -> Option<Arc<RunningSource>> {
        self.sources.get(namespace, name)
    }

    pub(crate) fn set_sources(&self, sources: impl IntoIterator<Item = (ResourceName, Arc<RunningSource>)>) {
        self.sources.set(sources);
    }

    pub(crate) fn set_brokers(&self, brokers: impl IntoIterator<Item = (ResourceName, Arc<Broker>)>) {
        self.brokers.set(brokers);
    }

    pub(crate) fn set_sinks(&self, sinks: impl IntoIterator<Item = (ResourceName, Arc<RunningSink>)>) {
        self.sinks.set(sinks);
    }

    pub(crate) fn set_unopened(&self, brokers: impl IntoIterator<Item = (ResourceName, Arc<Unopened>)>) {
        self.unopened.set(brokers);
    }

    pub(crate) fn set_transformations(
        &self,
        transformations: impl IntoIterator<Item = (ResourceName, Arc<TransformationPlan>)>,
    ) {
        self.transformations.set(transformations);
    }
}

/// A limit on the bytes that windows hold, shared fairly: each trigger with a window in use may hold an equal
/// part, and always at least one event.
pub(crate) struct WindowBudget {
    limit: usize,
    in_use: std::sync::atomic::AtomicUsize,
}

impl WindowBudget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, in_use: std::sync::atomic::AtomicUsize::new(0) }
    }

    /// The bytes that one trigger's window may hold now.
    pub(crate) fn part(&self) -> usize {
        self.limit / self.in_use.load(std::sync::atomic::Ordering::Relaxed).max(1)
    }

    /// A window came into use or fell empty.
    pub(crate) fn used(&self, in_use: bool) {
        let ordering = std::sync::atomic::Ordering::Relaxed;
        if in_use {
            self.in_use.fetch_add(1, ordering);
        } else {
            self.in_use.fetch_sub(1, ordering);
        }
    }
}

impl fmt::Debug for WindowBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowBudget").field("limit", &self.limit).field("in_use", &self.in_use).finish()
    }
}
