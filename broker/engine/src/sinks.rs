//! Sinks that run: built in the background, built again until it works, closed after their last delivery.
//!
//! A sink that says that its target accepts nothing is built anew with its secrets read again, so that what was
//! renewed outside is found; the one before it serves until then.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock};
use tokio_util::sync::CancellationToken;
use waypost_core::error::DeliveryError;
use waypost_core::manifest::{ResourceName, Secrets};
use waypost_core::sink::{BatchUnity, Batching, BuildSink, ComponentContext, Outcome, Sink};
use waypost_core::{Class, Event, codes};

use crate::tasks::caught;

/// The first wait before a sink that could not be built is built again; it doubles.
const FIRST_REBUILD: Duration = Duration::from_secs(1);

/// The longest wait before a sink is built again.
const LAST_REBUILD: Duration = Duration::from_secs(60);

/// The first wait before a target that could not be reached is looked at again; it doubles.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// The longest wait before it is looked at again.
const LAST_LOOK: Duration = Duration::from_secs(15);

/// How long a look at the target may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(8);

/// How long a delivery waits for a sink that is being started.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// A sink of the plan, whether it could be built yet or not.
pub struct RunningSink {
    name: ResourceName,
    state: ArcSwap<State>,
    /// Why the target would not take a delivery, as far as the sink found out.
    trouble: ArcSwapOption<DeliveryError>,
    /// Rung when the target has refused everything.
    refused: Notify,
    // Held for reading by every delivery, so that closing waits for those under way.
    in_use: Arc<RwLock<()>>,
    retired: CancellationToken,
    /// Told at every change of the state.
    settled: Notify,
}

enum State {
    Building,
    Ready(Arc<dyn Sink>),
    Failed(DeliveryError),
    Closed,
}

impl RunningSink {
    pub(crate) fn new(name: ResourceName) -> Arc<Self> {
        Arc::new(Self {
            name,
            state: ArcSwap::from_pointee(State::Building),
            trouble: ArcSwapOption::empty(),
            refused: Notify::new(),
            in_use: Arc::new(RwLock::new(())),
            retired: CancellationToken::new(),
            settled: Notify::new(),
        })
    }

    /// The resource.
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    /// Builds the sink, and again until it works, then waits until it is retired and closes it after its last
    /// delivery.
    pub(crate) async fn run(self: Arc<Self>, config: Arc<dyn BuildSink>, secrets: Secrets) {
        let retired = self.retired.clone();
        tokio::select! {
            () = self.keep_built(&*config, &secrets) => {}
            () = retired.cancelled() => {}
        }
        self.close().await;
    }

    async fn keep_built(&self, config: &dyn BuildSink, secrets: &Secrets) {
        let mut pause = FIRST_LOOK;
        loop {
            self.build(config, secrets).await;
            tokio::select! {
                () = self.look(&mut pause) => self.refused.notified().await,
                () = self.refused.notified() => {}
            }
        }
    }

    /// Looks at the target until it would take a delivery. Where someone has to change something it rings for a sink that
    /// is built anew, and waits for that.
    async fn look(&self, pause: &mut Duration) {
        loop {
            let sink = match &**self.state.load() {
                State::Ready(sink) => Arc::clone(sink),
                State::Building | State::Failed(_) | State::Closed => return,
            };
            let looked = tokio::time::timeout(LOOK_PATIENCE, caught(sink.check())).await;
            let error = match looked {
                Ok(Some(Ok(()))) => {
                    *pause = FIRST_LOOK;
                    self.trouble.store(None);
                    return;
                }
                Ok(Some(Err(error))) => error,
                Ok(None) => DeliveryError::retryable(
                    codes::ATTEMPT_PANICKED,
                    "looking at the target panicked; please report this with the lines of the log before it",
                ),
                Err(_) => DeliveryError::retryable(
                    codes::SINK_UNAVAILABLE,
                    format!("the target gave no answer within {LOOK_PATIENCE:?}"),
                ),
            };
            let known = self.trouble.load().as_ref().is_some_and(|known| known.code == error.code);
            if !known {
                tracing::warn!(
                    sink = %self.name, code = error.code.id(), detail = error.detail,
                    "the target of the sink would take nothing now; looking again until it does"
                );
            }
            let misconfigured = error.class == Class::Misconfigured;
            self.trouble.store(Some(Arc::new(error)));
            tokio::time::sleep(*pause).await;
            *pause = pause.saturating_mul(2).min(LAST_LOOK);
            if misconfigured {
                self.refused.notify_one();
                return std::future::pending().await;
            }
        }
    }

    async fn build(&self, config: &dyn BuildSink, secrets: &Secrets) {
        let mut pause = FIRST_REBUILD;
        loop {
            let context = ComponentContext { name: self.name.clone(), secrets: secrets.clone() };
            let built = caught(config.build(context)).await.unwrap_or_else(|| {
                Err(DeliveryError::misconfigured(
                    codes::ATTEMPT_PANICKED,
                    "starting the sink panicked; please report this with the lines of the log before it",
                ))
            });
            match built {
                Ok(sink) => return self.replace(sink).await,
                Err(error) if matches!(&**self.state.load(), State::Ready(_)) => {
                    // The one that runs goes on: whoever uses it is told by its target what is wrong.
                    self.trouble.store(Some(Arc::new(error)));
                }
                Err(error) => {
                    tracing::warn!(
                        sink = %self.name, code = error.code.id(), detail = error.detail,
                        "the sink cannot be started; trying again in {pause:?}"
                    );
                    self.set(State::Failed(error));
                }
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LAST_REBUILD);
        }
    }

    /// Nothing new is delivered through this sink; it closes after the last delivery under way.
    pub(crate) fn retire(&self) {
        self.retired.cancel();
    }

    /// Takes a sink that was built into use, and closes the one before it after its last delivery.
    async fn replace(&self, sink: Arc<dyn Sink>) {
        // Where none ran, deliveries wait for this one and must not be waited for.
        let alone = match &**self.state.load() {
            State::Ready(_) => Some(self.in_use.write().await),
            State::Building | State::Failed(_) | State::Closed => None,
        };
        let before = self.set(State::Ready(sink));
        drop(alone);
        close(&self.name, &before).await;
    }

    fn set(&self, state: State) -> Arc<State> {
        let before = self.state.swap(Arc::new(state));
        self.settled.notify_waiters();
        before
    }

    async fn close(&self) {
        let alone = self.in_use.write().await;
        let before = self.set(State::Closed);
        drop(alone);
        close(&self.name, &before).await;
    }

    /// The batches that the sink asks for; not known while it does not run.
    pub(crate) fn batching(&self) -> Option<Batching> {
        match &**self.state.load() {
            State::Ready(sink) => Some(sink.batching()),
            State::Building | State::Failed(_) | State::Closed => None,
        }
    }

    /// Sends events, in as many calls as the sink's batches need, and returns one outcome for each, in order; fewer
    /// where a call gave fewer. A sink that is being started is waited for a while.
    /// One that does not run makes every outcome a misconfiguration: no event is lost for that. Not cancel-safe, as
    /// [`Sink::deliver`].
    pub async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let _in_use: OwnedRwLockReadGuard<()> = Arc::clone(&self.in_use).read_owned().await;
        // A start that takes longer than this is told as a problem.
        let _late = tokio::time::timeout(START_PATIENCE, self.started()).await;
        let state = self.state.load_full();
        if let State::Ready(sink) = &*state {
            let outcomes = deliver_in_batches(&**sink, events).await;
            let refuses = |outcome: &Outcome| matches!(outcome, Outcome::Failed(error) if error.class == Class::Misconfigured);
            match outcomes.iter().find(|outcome| refuses(outcome)) {
                Some(Outcome::Failed(error)) => {
                    self.trouble.store(Some(Arc::new(error.clone())));
                    self.refused.notify_one();
                }
                _ if self.trouble.load().is_some()
                    && outcomes.iter().any(|outcome| !matches!(outcome, Outcome::Failed(_))) =>
                {
                    self.trouble.store(None);
                }
                _ => {}
            }
            return outcomes;
        }
        let error = self.problem().unwrap_or_else(|| {
            DeliveryError::retryable(codes::SINK_UNAVAILABLE, "the sink has just been started")
        });
        let error = DeliveryError { class: Class::Misconfigured, ..error };
        events.iter().map(|_| Outcome::Failed(error.clone())).collect()
    }

    /// Waits until the first attempt to start the sink has ended. Cancel-safe.
    async fn started(&self) {
        loop {
            let settled = self.settled.notified();
            if !matches!(&**self.state.load(), State::Building) {
                return;
            }
            settled.await;
        }
    }

    /// Whether nothing is delivered through this sink any more: another one may have taken its place.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(&**self.state.load(), State::Closed)
    }

    /// Whether the sink runs, and if not, why not.
    pub(crate) fn problem(&self) -> Option<DeliveryError> {
        match &**self.state.load() {
            State::Ready(_) => self.trouble.load().as_deref().cloned(),
            State::Failed(error) => Some(error.clone()),
            State::Building => {
                Some(DeliveryError::retryable(codes::SINK_UNAVAILABLE, "the sink is being started"))
            }
            State::Closed => Some(DeliveryError::retryable(codes::SINK_UNAVAILABLE, "the sink is closed")),
        }
    }
}

async fn close(name: &ResourceName, state: &State) {
    if let State::Ready(sink) = state
        && let Err(error) = sink.close().await
    {
        tracing::warn!(sink = %name, code = error.code.id(), detail = error.detail, "the sink did not close well");
    }
}

/// Sends events in calls that keep to the sink's bounds. Behind the first failure of an ordered or atomic batch nothing
/// is sent, and those events have no outcome.
async fn deliver_in_batches(sink: &dyn Sink, events: &[Event]) -> Vec<Outcome> {
    let batching = sink.batching();
    let mut outcomes = Vec::with_capacity(events.len());
    let mut rest = events;
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(batching.most_of(rest.iter().map(Event::size)));
        let mut given = sink.deliver(batch).await;
        given.truncate(batch.len());
        let failed = given.len() < batch.len() || given.iter().any(|one| matches!(one, Outcome::Failed(_)));
        let whole = given.len() == batch.len();
        outcomes.append(&mut given);
        if failed && (batching.unity != BatchUnity::Independent || !whole) {
            break;
        }
        rest = behind;
    }
    outcomes
}

impl fmt::Debug for RunningSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningSink").field("name", &self.name).finish_non_exhaustive()
    }
}
