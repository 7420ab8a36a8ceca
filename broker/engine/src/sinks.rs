//! Sinks that run: built in the background, built again until it works, closed after their last delivery.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock};
use tokio_util::sync::CancellationToken;
use waypost_core::error::DeliveryError;
use waypost_core::manifest::{ResourceName, Secrets};
use waypost_core::sink::{BuildSink, ComponentContext, Outcome, Sink};
use waypost_core::{Class, Event, codes};

use crate::tasks::caught;

/// The first wait before a sink that could not be built is built again; it doubles.
const FIRST_REBUILD: Duration = Duration::from_secs(1);

/// The longest wait before a sink is built again.
const LAST_REBUILD: Duration = Duration::from_secs(60);

/// How long a delivery waits for a sink that is being started.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// A sink of the plan, whether it could be built yet or not.
pub struct RunningSink {
    name: ResourceName,
    state: ArcSwap<State>,
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
            () = self.build(&*config, secrets) => retired.cancelled().await,
            () = retired.cancelled() => {}
        }
        self.close().await;
    }

    async fn build(&self, config: &dyn BuildSink, secrets: Secrets) {
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
                Ok(sink) => return self.set(State::Ready(sink)),
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

    fn set(&self, state: State) {
        self.state.store(Arc::new(state));
        self.settled.notify_waiters();
    }

    async fn close(&self) {
        let alone = self.in_use.write().await;
        let before = self.state.swap(Arc::new(State::Closed));
        self.settled.notify_waiters();
        drop(alone);
        if let State::Ready(sink) = &*before
            && let Err(error) = sink.close().await
        {
            tracing::warn!(sink = %self.name, code = error.code.id(), detail = error.detail, "the sink did not close well");
        }
    }

    /// Sends events and returns one outcome for each, in order. A sink that is being started is waited for a while.
    /// One that does not run makes every outcome a misconfiguration: no event is lost for that. Not cancel-safe, as
    /// [`Sink::deliver`].
    pub async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let _in_use: OwnedRwLockReadGuard<()> = Arc::clone(&self.in_use).read_owned().await;
        // A start that takes longer than this is told as a problem.
        let _late = tokio::time::timeout(START_PATIENCE, self.started()).await;
        let state = self.state.load_full();
        if let State::Ready(sink) = &*state {
            return sink.deliver(events).await;
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
            State::Ready(_) => None,
            State::Failed(error) => Some(error.clone()),
            State::Building => {
                Some(DeliveryError::retryable(codes::SINK_UNAVAILABLE, "the sink is being started"))
            }
            State::Closed => Some(DeliveryError::retryable(codes::SINK_UNAVAILABLE, "the sink is closed")),
        }
    }
}

impl fmt::Debug for RunningSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningSink").field("name", &self.name).finish_non_exhaustive()
    }
}
