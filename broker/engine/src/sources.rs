//! Sources that run: each in its own task, started again when it fails.

mod oversize;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use waypost_core::manifest::{ResourceName, Secrets};
use waypost_core::receive::Receive;
use waypost_core::sink::{BoxFuture, ComponentContext};
use waypost_core::source::{BuildSource, Commit, Emit, EmitError, Emitter, SourceError};
use waypost_core::{Class, Code, Event, codes};
use waypost_log::{Batch, Checkpoint, Hold, Metadata, Origin, Record};

use self::oversize::in_place_of;
use crate::context::Context;
use crate::subscriber::take_hops;
use crate::tasks::caught;

/// The first wait before a source that failed is started again; it doubles.
const FIRST_RESTART: Duration = Duration::from_secs(1);

/// The longest wait before a source is started again.
const LAST_RESTART: Duration = Duration::from_secs(30);

/// The first wait before events that the broker refused are offered to it again; it doubles.
const FIRST_OFFER_PAUSE: Duration = Duration::from_millis(50);

/// The longest wait before events are offered again.
const LAST_OFFER_PAUSE: Duration = Duration::from_secs(2);

/// A source that ran this long without failing starts again after the first wait.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// A source of the plan.
#[derive(Debug)]
pub struct RunningSource {
    name: ResourceName,
    broker: ResourceName,
    context: Arc<Context>,
    state: Mutex<State>,
    receiving: Mutex<Receiving>,
    stop: CancellationToken,
    ended: CancellationToken,
}

#[derive(Debug, Clone)]
pub(crate) enum State {
    Starting,
    Running,
    /// It said that it has nothing more to say.
    Finished,
    Failed(SourceError),
}

/// Whether a source takes requests.
#[derive(Debug, Clone)]
pub enum Receiving {
    /// It does not run now; whether it takes any is not known.
    NotRunning,
    /// It fetches its events itself.
    Nothing,
    /// Requests are for this one.
    Requests(Arc<dyn Receive>),
}

impl RunningSource {
    /// Whether the source takes requests now.
    pub fn receiving(&self) -> Receiving {
        self.receiving.lock().clone()
    }

    /// The broker that takes the events of the source.
    pub fn broker(&self) -> &ResourceName {
        &self.broker
    }

    /// A source that stops when `stop` is cancelled.
    pub(crate) fn new(
        name: ResourceName,
        broker: ResourceName,
        context: Arc<Context>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            broker,
            context,
            state: Mutex::new(State::Starting),
            receiving: Mutex::new(Receiving::NotRunning),
            stop,
            ended: CancellationToken::new(),
        })
    }

    /// Tells the source to stop: it finishes the batch in hand.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the source has ended. Cancel-safe.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// The resource.
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Runs the source until it is told to stop or has nothing more to say.
    pub(crate) async fn run(self: Arc<Self>, config: Arc<dyn BuildSource>, secrets: Secrets) {
        // Cancelled also when the source panics, so that its successor is not kept waiting.
        let _ended = self.ended.clone().drop_guard();
        let mut pause = FIRST_RESTART;
        while !self.stop.is_cancelled() {
            let started = tokio::time::Instant::now();
            let ended = caught(self.run_once(&*config, secrets.clone())).await;
            *self.receiving.lock() = Receiving::NotRunning;
            let ended = ended.unwrap_or_else(|| {
                Err(SourceError {
                    code: codes::SOURCE_PANICKED,
                    class: Class::Retryable,
                    detail: "the source panicked; please report this with the lines of the log before it"
                        .to_owned(),
                })
            });
            match ended {
                Ok(()) => {
                    *self.state.lock() = State::Finished;
                    return;
                }
                Err(error) => {
                    if started.elapsed() >= HEALTHY_AFTER {
                        pause = FIRST_RESTART;
                    }
                    tracing::warn!(
                        source = %self.name, code = error.code.id(), detail = error.detail,
                        "the source failed; starting it again in {pause:?}"
                    );
                    *self.state.lock() = State::Failed(error);
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = pause.saturating_mul(2).min(LAST_RESTART);
        }
    }

    async fn run_once(
        self: &Arc<Self>,
        config: &dyn BuildSource,
        secrets: Secrets,
    ) -> Result<(), SourceError> {
        let context = ComponentContext { name: self.name.clone(), secrets };
        let source = tokio::select! {
            source = config.build(context) => source?,
            () = self.stop.cancelled() => return Ok(()),
        };
        *self.receiving.lock() = source.receiver().map_or(Receiving::Nothing, Receiving::Requests);
        let emitter = Emitter::new(Arc::new(BrokerEmit { source: Arc::clone(self) }));
        source.run(emitter, self.stop.clone()).await
    }
}

/// A source's way into its broker.
struct BrokerEmit {
    source: Arc<RunningSource>,
}

impl Emit for BrokerEmit {
    fn emit(
        &self,
        events: Vec<Event>,
        checkpoint: Option<Bytes>,
    ) -> BoxFuture<'_, Result<Commit, EmitError>> {
        Box::pin(async move {
            let mut batch = self.source.batch(events, checkpoint);
            let stop = &self.source.stop;
            let mut pause = FIRST_OFFER_PAUSE;
            // What the source itself said before the broker refused its events.
            let mut before = None;
            loop {
                if stop.is_cancelled() {
                    return Err(EmitError::Closed);
                }
                let offered = tokio::select! {
                    offered = self.source.offer(&mut batch) => offered,
                    () = stop.cancelled() => return Err(EmitError::Closed),
                };
                match offered {
                    Ok(commit) => {
                        if let Some(before) = before {
                            *self.source.state.lock() = before;
                        }
                        return Ok(commit);
                    }
                    Err(refused) => {
                        let detail = format!("its broker takes no events for now: {}", refused.detail);
                        tracing::debug!(source = %self.source.name, code = refused.code.id(), detail, "not taken");
                        let told = State::Failed(SourceError { detail, ..refused });
                        let was = std::mem::replace(&mut *self.source.state.lock(), told);
                        before.get_or_insert(was);
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
                pause = pause.saturating_mul(2).min(LAST_OFFER_PAUSE);
            }
        })
    }

    fn checkpoint(&self) -> Option<Bytes> {
        let RunningSource { name, broker, context, .. } = &*self.source;
        context.directory.broker(&broker.namespace, &broker.name)?.checkpoint(name)
    }

    fn report(&self, problem: Option<SourceError>) {
        let state = problem.map_or(State::Running, State::Failed);
        let was = std::mem::replace(&mut *self.source.state.lock(), state.clone());
        if let State::Failed(error) = state
            && !matches!(&was, State::Failed(known) if known.code == error.code)
        {
            let SourceError { code, detail, .. } = error;
            tracing::warn!(source = %self.source.name, code = code.id(), detail, "the source is not ready");
        }
    }
}

impl RunningSource {
    /// One commit of these events and the checkpoint behind them.
    fn batch(&self, events: Vec<Event>, checkpoint: Option<Bytes>) -> Batch {
        let records = self.within_limits(events).into_iter().map(|event| {
            let (event, hops) = take_hops(event);
            let metadata = Metadata { origin: Origin::Source, ..Metadata::default() };
            let hops = hops.unwrap_or(metadata.hops);
            Record { metadata: Metadata { hops, ..metadata }, event }
        });
        Batch {
            checkpoint: checkpoint.map(|value| Checkpoint { source: self.name.clone(), value }),
            // One partition for one source: its checkpoints commit in the order in which it emits.
            key: Some(key_of(&self.name)),
            ..Batch::of(records)
        }
    }

    /// The events, with those that are too large told of instead.
    fn within_limits(&self, mut events: Vec<Event>) -> Vec<Event> {
        let limit = self.context.max_event_bytes;
        for event in &mut events {
            if let Some(told) = in_place_of(event, limit) {
                tracing::warn!(
                    source = %self.name, code = codes::EVENT_TOO_LARGE.id(), id = told.id(), size = event.size(), limit,
                    "an event is too large; an event that tells of it takes its place"
                );
                *event = told;
            }
        }
        events
    }

    /// Offers a batch to the broker once. Where that refuses it, nothing is taken out of it. Cancel-safe.
    async fn offer(&self, batch: &mut Batch) -> Result<Commit, SourceError> {
        let Self { broker, context, .. } = self;
        let share = context.ingest.take(batch.size()).await;
        let refused = |code: Code, detail: String| SourceError { code, class: Class::Retryable, detail };
        let Some(broker) = context.directory.broker(&broker.namespace, &broker.name) else {
            let detail =
                format!("the broker {broker} does not exist; declare it, or change the source's sink");
            return Err(refused(codes::SUBSCRIBER_NOT_RESOLVED, detail));
        };
        batch.hold = Some(Hold::of(share));
        let commit = broker.offer(batch).map_err(|error| {
            // While the broker takes nothing, others may use the budget.
            batch.hold = None;
            refused(error.code(), error.to_string())
        })?;
        Ok(Commit::new(async move {
            commit.await.map(|_| ()).map_err(|error| {
                broker.not_committed(&error);
                EmitError::Refused { code: error.code(), detail: error.to_string() }
            })
        }))
    }
}

/// A number that is always the same for the same name.
fn key_of(name: &ResourceName) -> u64 {
    let bytes = name.namespace.bytes().chain([b'/']).chain(name.name.bytes());
    // FNV-1a: the key must not change from one build to the next, which the standard hasher does not promise.
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
