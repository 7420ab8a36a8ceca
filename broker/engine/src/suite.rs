//! The engine as a whole, with sinks whose answers the test decides, on a clock that the test moves.

mod backlog;
mod batches;
mod budget;
mod chaos;
mod control;
mod dead_letters;
mod deduplication;
mod delivery;
mod explain;
mod reload;
mod replay;
mod restart;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use waypost_core::error::DeliveryError;
use waypost_core::manifest::{ManifestFile, Manifests};
use waypost_core::sink::{BatchUnity, Batching, ComponentContext, Outcome, Sink, SinkConfig, SinkType};
use waypost_core::{Event, codes};
use waypost_log::{Clock, Metadata, Record};

use crate::matching::spending::MAX_SPENT_IN_A_ROW;
use crate::plan::{Plan, Registry, plan};
use crate::{DEFAULT_DETACHED_RETENTION, Engine, EngineOptions, Limits, StatusQuery, TriggerStatus};

const REGISTRY: Registry =
    Registry { sources: &[], sinks: &[SinkType::of::<Scripted>()], transformations: &[] };

/// How a scripted sink answers: the event, and how many times it has been sent this event before.
type Script = Box<dyn Fn(&Event, usize) -> Outcome + Send + Sync>;

/// The test's hand on a scripted sink.
struct Hand {
    script: Mutex<Script>,
    /// A permit for each delivery that may end.
    gate: Semaphore,
    sent: Mutex<Vec<String>>,
    /// The events of each call.
    calls: Mutex<Vec<usize>>,
    /// The ids of each call, those too that never ended.
    begun: Mutex<Vec<Vec<String>>>,
    at_once: Mutex<(usize, usize)>,
}

static HANDS: LazyLock<Mutex<HashMap<String, Arc<Hand>>>> = LazyLock::new(Mutex::default);

impl Hand {
    /// A hand on the sinks that say `scripted: {hand: NAME}`.
    fn on(name: &str, script: impl Fn(&Event, usize) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        let hand = Arc::new(Self {
            script: Mutex::new(Box::new(script)),
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            sent: Mutex::default(),
            calls: Mutex::default(),
            begun: Mutex::default(),
            at_once: Mutex::default(),
        });
        HANDS.lock().insert(name.to_owned(), Arc::clone(&hand));
        hand
    }

    fn takes_all(name: &str) -> Arc<Self> {
        Self::on(name, |_, _| Outcome::Delivered)
    }

    /// From now on every delivery hangs until [`Hand::open`].
    fn shut(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn answer(&self, script: impl Fn(&Event, usize) -> Outcome + Send + Sync + 'static) {
        *self.script.lock() = Box::new(script);
    }

    /// The ids that were sent, in order, repeats included.
    fn sent(&self) -> Vec<String> {
        self.sent.lock().clone()
    }

    /// How many events each call held.
    fn calls(&self) -> Vec<usize> {
        self.calls.lock().clone()
    }

    /// The ids of each call that was begun.
    fn begun(&self) -> Vec<Vec<String>> {
        self.begun.lock().clone()
    }

    /// How many deliveries are under way, and the most that ever were.
    fn at_once(&self) -> (usize, usize) {
        *self.at_once.lock()
    }
}

/// A sink that does what its hand says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scripted {
    /// Which hand.
    hand: String,
    /// The most events in one call; one where nothing is said.
    batch: Option<usize>,
    /// Whether its batches are `atomic`, atomic in `parts` of which one may be refused, or `ordered`; independent where
    /// nothing is said.
    unity: Option<String>,
}

impl SinkConfig for Scripted {
    const TYPE: &'static str = "scripted";

    async fn build(&self, _context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Sink for Scripted {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let hand = Arc::clone(&HANDS.lock()[&self.hand]);
        {
            let mut at_once = hand.at_once.lock();
            at_once.0 += 1;
            at_once.1 = at_once.1.max(at_once.0);
        }
        hand.begun.lock().push(events.iter().map(|event| event.id().to_owned()).collect());
        hand.gate.acquire().await.expect("the gate is never closed").forget();
        hand.at_once.lock().0 -= 1;
        hand.calls.lock().push(events.len());
        let mut outcomes = Vec::new();
        for event in events {
            let before = {
                let mut sent = hand.sent.lock();
                let before = sent.iter().filter(|id| *id == event.id()).count();
                sent.push(event.id().to_owned());
                before
            };
            outcomes.push((hand.script.lock())(event, before));
        }
        match self.batching().unity {
            BatchUnity::Independent => {}
            BatchUnity::Ordered => {
                let failed = outcomes.iter().position(|outcome| matches!(outcome, Outcome::Failed(_)));
                outcomes.truncate(failed.map_or(events.len(), |at| at + 1));
            }
            BatchUnity::Atomic if self.unity.as_deref() == Some("parts") => {}
            BatchUnity::Atomic => {
                let failed = outcomes.iter().find(|outcome| matches!(outcome, Outcome::Failed(_))).cloned();
                outcomes = vec![failed.unwrap_or(Outcome::Delivered); events.len()];
            }
        }
        outcomes
    }

    fn batching(&self) -> Batching {
        Batching {
            max_events: self.batch.unwrap_or(1),
            linger: Duration::from_secs(if self.batch.is_some() { 3 } else { 0 }),
            unity: match self.unity.as_deref() {
                Some("atomic" | "parts") => BatchUnity::Atomic,
                Some("ordered") => BatchUnity::Ordered,
                _ => BatchUnity::Independent,
            },
            ..Batching::SINGLE
        }
    }
}

/// An engine under test, and the manifests that it follows.
struct Stage {
    engine: Engine,
    plan: Plan,
    version: u64,
}

impl Stage {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let engine = Engine::new(EngineOptions {
            clock: Clock::runtime(),
            limits,
            store: None,
            detached_retention: DEFAULT_DETACHED_RETENTION,
        });
        Self { engine, plan: Plan::default(), version: 0 }
    }

    /// Applies the manifests as a reload does.
    async fn apply(&mut self, yaml: &str) {
        self.version += 1;
        let manifests = Manifests { files: vec![ManifestFile::read("test.yaml", yaml.as_bytes())] };
        let planned = plan(&manifests, &REGISTRY, Some(&self.plan), self.version);
        self.plan = planned.clone();
        self.engine.apply(planned, self.version).await;
    }

    async fn of(yaml: &str) -> Self {
        let mut stage = Self::new();
        stage.apply(yaml).await;
        assert_eq!(stage.plan.problems, []);
        stage
    }

    async fn publish(&self, broker: &str, ids: impl IntoIterator<Item = usize>) {
        for id in ids {
            self.publish_event(broker, event(&id.to_string(), "t")).await;
        }
    }

    async fn publish_event(&self, broker: &str, event: Event) {
        let broker = self.engine.broker("default", broker).expect("the broker runs");
        let record = Record { metadata: Metadata::default(), event };
        broker.publish([record], None).expect("it is taken").await.expect("it is committed");
    }

    async fn trigger(&self, name: &str) -> TriggerStatus {
        let status = self.engine.status(&StatusQuery::default()).await;
        let line =
            status.triggers.into_iter().find(|line| line.name == name).expect("the status tells of it");
        assert!(holds(&line), "{line:?}");
        line
    }

    /// Waits until the trigger's status is as wanted.
    async fn until(&self, name: &str, wanted: impl Fn(&TriggerStatus) -> bool) -> TriggerStatus {
        let end = Instant::now() + Duration::from_secs(4 * 60 * 60);
        loop {
            let line = self.trigger(name).await;
            if wanted(&line) {
                return line;
            }
            assert!(Instant::now() < end, "never came: {line:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn shut_down(self) {
        let left = self.engine.shutdown(Instant::now() + Duration::from_secs(30)).await;
        assert_eq!(left, [] as [String; 0]);
        assert_eq!(self.engine.recount().iter().filter(|line| line.differed).count(), 0);
    }
}

/// Promise P2.
fn holds(line: &TriggerStatus) -> bool {
    line.matched == line.delivered + line.dead_lettered + line.dropped + line.pending
        && line.in_flight <= line.pending
}

fn event(id: &str, event_type: &str) -> Event {
    Event::builder(id, "/test", event_type).build().expect("the event is valid")
}

fn retryable() -> Outcome {
    Outcome::Failed(DeliveryError::retryable(codes::SINK_UNAVAILABLE, "not now"))
}

fn congested() -> Outcome {
    Outcome::Failed(DeliveryError::retryable(codes::SINK_UNAVAILABLE, "too much").congested())
}

fn permanent() -> Outcome {
    Outcome::Failed(DeliveryError::permanent(codes::SINK_REFUSED, "never"))
}

fn misconfigured() -> Outcome {
    Outcome::Failed(DeliveryError::misconfigured(codes::SINK_MISCONFIGURED, "no such bucket"))
}

const BROKER: &str = "
apiVersion: waypost.dev/v1alpha1
kind: Broker
metadata: {name: b}
spec: {log: memory}
---";

fn sink(name: &str) -> String {
    format!(
        "
apiVersion: waypost.dev/v1alpha1
kind: Sink
metadata: {{name: {name}}}
spec: {{scripted: {{hand: {name}}}}}
---"
    )
}

/// A native trigger `name` of broker `b` that sends to the sink `to`, with more lines of its spec.
fn trigger(name: &str, to: &str, more: &str) -> String {
    let more = more.replace('\n', "\n  ");
    format!(
        "
apiVersion: waypost.dev/v1alpha1
kind: Trigger
metadata: {{name: {name}}}
spec:
  broker: b
  subscriber: {{ref: {{apiVersion: waypost.dev/v1alpha1, kind: Sink, name: {to}}}}}
  {more}
---"
    )
}

/// Runs a test on one thread with a clock that jumps from one waking to the next: hours cost nothing, and every run is
/// the same. Races show in [`chaos`], on several threads in real time.
fn on_one_thread<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime starts").block_on(test);
}
