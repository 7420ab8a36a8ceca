//! The engine: what the binary holds in its hand.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost_clients::http::{Pool, PoolOptions};
use waypost_core::manifest::ResourceName;
use waypost_core::transformation::Chain;
use waypost_log::embedded::EmbeddedStore;
use waypost_log::{Clock, Position, WriteError};

use crate::alarm::Alarm;
use crate::broker::{Broker, PublishError};
use crate::budget::Budget;
use crate::context::{Context, Directory, WindowBudget};
use crate::dead_letter::{LetterChoice, LetterDetails, LetterLine, LetterName, LetterQuery};
use crate::explain::{ExplainError, ExplainQuery, Explained, Explaining};
use crate::housekeeper;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::redrive::{RedriveError, RedrivePreview, RedriveRequest, RedriveStatus, Redrives};
use crate::replay::{ReplayError, ReplayEstimate, ReplayRequest, ReplayStatus};
use crate::sinks::RunningSink;
use crate::sources::RunningSource;
use crate::status::{Status, StatusQuery};
use crate::subscription::{OperateError, SeekTo};
use crate::supervisor::Supervisor;
use crate::tail::{TailError, TailQuery, Tailed, Tailing};
use crate::tasks::Tasks;

/// What an engine is made from.
#[derive(Debug)]
pub struct EngineOptions {
    /// Where the time comes from.
    pub clock: Clock,
    /// What may be held at one time.
    pub limits: Limits,
    /// Where the logs of brokers are kept. None: all of them are in memory, whatever their manifests say.
    pub store: Option<Arc<EmbeddedStore>>,
    /// How long what was detached is kept.
    pub detached_retention: Duration,
}

/// What was detached is kept this long unless set otherwise.
pub const DEFAULT_DETACHED_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What may be held at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest event that is taken, in bytes, attributes included.
    pub max_event_bytes: usize,
    /// The largest request that is taken, in bytes: a batch holds several events.
    pub max_request_bytes: usize,
    /// Bytes between acceptance and commit, of all producers and sources together.
    pub ingest_budget_bytes: usize,
    /// Bytes that the windows of all triggers should hold at most.
    pub delivery_budget_bytes: usize,
    /// Bytes that one broker's log in memory may hold.
    pub memory_log_bytes: u64,
    /// HTTP connections to subscribers that may be open, idle ones included.
    pub connections: usize,
}

/// One event may be this large unless set otherwise.
pub const DEFAULT_MAX_EVENT_BYTES: usize = 1024 * 1024;
/// One request may be this large unless set otherwise.
pub const DEFAULT_MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;
/// So many bytes may be on their way into the logs unless set otherwise.
pub const DEFAULT_INGEST_BUDGET_BYTES: usize = 64 * 1024 * 1024;
/// So many bytes should be in windows unless set otherwise.
pub const DEFAULT_DELIVERY_BUDGET_BYTES: usize = 64 * 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_event_bytes: DEFAULT_MAX_EVENT_BYTES,
            max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
            ingest_budget_bytes: DEFAULT_INGEST_BUDGET_BYTES,
            delivery_budget_bytes: DEFAULT_DELIVERY_BUDGET_BYTES,
            memory_log_bytes: waypost_log::memory::DEFAULT_LIMIT,
            connections: usize::MAX,
        }
    }
}

/// The running engine. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Arc<Context>,
    supervisor: Supervisor,
    explaining: Explaining,
    redrives: Arc<Redrives>,
    tailing: Tailing,
}

/// What counting a trigger's pending events anew found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecountLine {
    /// The trigger's namespace.
    pub namespace: String,
    /// The trigger's name.
    pub name: String,
    /// What the ledger said was pending.
    pub before: u64,
    /// What was counted, and what the ledger says now.
    pub after: u64,
    /// Whether the two differ in any of their counts.
    pub differed: bool,
}

/// The part of the shutdown's time that is kept for closing sinks and logs after attempts were cut.
const CLOSING_TIME: Duration = Duration::from_secs(5);

impl Engine {
    /// An engine that runs nothing yet. Must be called within a runtime.
    pub fn new(options: EngineOptions) -> Self {
        let EngineOptions { clock, limits, store, detached_retention } = options;
        let context = Arc::new(Context {
            alarm: Alarm::new(clock.clone()),
            logs: Logs::new(clock.clone(), limits.memory_log_bytes, store),
            clock,
            disk_full: false.into(),
            detached_retention,
            pool: Arc::new(Pool::new(PoolOptions::with_open_in_all(limits.connections))),
            directory: Directory::default(),
            metrics: Metrics::default(),
            ingest: Budget::new(limits.ingest_budget_bytes),
            windows: WindowBudget::new(limits.delivery_budget_bytes),
            max_event_bytes: limits.max_event_bytes,
            resting: Mutex::default(),
            suspects: tokio::sync::Mutex::default(),
            dispatch: Tasks::new(),
            cut: CancellationToken::new(),
        });
        let stop = context.dispatch.stop().clone();
        context.dispatch.spawn("alarm", context.alarm.clone().run(stop.clone()));
        let supervisor = Supervisor::new(Arc::clone(&context));
        context.dispatch.spawn("housekeeper", housekeeper::run(supervisor.clone(), detached_retention, stop));
        let redrives = Redrives::new(Arc::clone(&context));
        let explaining = Explaining::new(Arc::clone(&context));
        let tailing = Tailing::new(Arc::clone(&context));
        Self(Arc::new(Inner { context, supervisor, explaining, redrives, tailing }))
    }

    /// Brings what runs into line with the plan. Calls are worked off one after the other.
    ///
    /// What the plan does not change goes on untouched. Not cancel-safe.
    pub async fn apply(&self, plan: impl Into<Arc<Plan>>, version: u64) {
        self.0.supervisor.apply(plan.into(), version).await;
        self.0.redrives.take_up(&self.0.supervisor).await;
    }

    /// A broker that takes events; none where it is unknown or detached.
    pub fn broker(&self, namespace: &str, name: &str) -> Option<Arc<Broker>> {
        self.0.context.directory.broker(namespace, name)
    }

    /// Why a broker that is declared does not run, where its log cannot be opened.
    pub fn unavailable(&self, namespace: &str, name: &str) -> Option<PublishError> {
        let unopened = self.0.context.directory.unopened(namespace, name)?;
        Some(PublishError::NotReady { reason: unopened.to_string(), code: unopened.code })
    }

    /// A sink, for events that are posted to it directly.
    pub fn sink(&self, namespace: &str, name: &str) -> Option<Arc<RunningSink>> {
        self.0.context.directory.sink(namespace, name)
    }

    /// A source, for requests to its URL.
    pub fn source(&self, namespace: &str, name: &str) -> Option<Arc<RunningSource>> {
        self.0.context.directory.source(namespace, name)
    }

    /// A transformation, for events that are posted to it directly.
    pub fn transformation(&self, namespace: &str, name: &str) -> Option<Chain> {
        let planned = self.0.context.directory.transformation(namespace, name)?;
        Some(planned.chain.clone())
    }

    /// The broker that takes the results of a transformation whose manifest names a sink.
    pub fn transformation_broker(&self, namespace: &str, name: &str) -> Option<ResourceName> {
        self.0.context.directory.transformation(namespace, name)?.broker.clone()
    }

    /// The bytes between acceptance and commit.
    pub fn budget(&self) -> &Budget {
        &self.0.context.ingest
    }

    /// What runs, how it stands, and what is wrong.
    pub async fn status(&self, query: &StatusQuery) -> Status {
        self.0.supervisor.status(query).await
    }

    /// Why the triggers of a broker match an event that it has, or do not, and what became of it: as its match lists and
    /// ledgers say. At most [`crate::explain::MAX_EXPLAINS`] are told at one time.
    pub async fn explain(&self, query: ExplainQuery) -> Result<Explained, ExplainError> {
        self.0.explaining.explain(&self.0.supervisor, query).await
    }

    /// Starts a replay that no manifest declares; it counts what it will send first. What was started goes on in later
    /// processes. Dropped, it starts all the same.
    pub async fn start_replay(&self, request: ReplayRequest) -> Result<ReplayStatus, ReplayError> {
        self.0.supervisor.start_replay(request).await
    }

    /// How many events a replay would send. Reads all of its range, and changes nothing.
    pub async fn estimate_replay(&self, request: ReplayRequest) -> Result<ReplayEstimate, ReplayError> {
        self.0.supervisor.estimate_replay(request).await
    }

    /// Every replay that is declared or was started, by name.
    pub fn replays(&self) -> Vec<ReplayStatus> {
        self.0.supervisor.replays()
    }

    /// How one replay stands, where there is one of this name.
    pub fn replay(&self, name: &ResourceName) -> Option<ReplayStatus> {
        self.0.supervisor.replay(name)
    }

    /// Has a replay make no attempts until it is resumed, or go on. Dropped, it is done all the same.
    pub async fn pause_replay(&self, name: &ResourceName, paused: bool) -> Result<ReplayStatus, ReplayError> {
        self.0.supervisor.pause_replay(name, paused).await
    }

    /// Ends a replay; what it has not delivered is dropped. Dropped, this is done all the same.
    pub async fn cancel_replay(&self, name: &ResourceName) -> Result<ReplayStatus, ReplayError> {
        self.0.supervisor.cancel_replay(name).await
    }

    /// The events of a broker, or those that a trigger matches, from a place on: what there is, or the first that come
    /// within the wait. At most [`crate::tail::MAX_TAILS`] look at one time. Cancel-safe.
    pub async fn tail(&self, query: TailQuery) -> Result<Tailed, TailError> {
        self.0.tailing.tail(&self.0.supervisor, query).await
    }

    /// Dead letters that a query finds, those after a name, in the order of brokers and numbers.
    pub async fn dead_letters(
        &self,
        query: &LetterQuery,
        after: Option<&LetterName>,
        limit: usize,
    ) -> Vec<LetterLine> {
        self.0.supervisor.dead_letters(query, after, limit).await
    }

    /// All that is known of one dead letter.
    pub async fn dead_letter(&self, name: &LetterName) -> Option<LetterDetails> {
        self.0.supervisor.dead_letter(name).await
    }

    /// Deletes dead letters for good, and returns how many. What is chosen by a query is what there is now. On an error
    /// some are deleted. Not cancel-safe: what was deleted until then stays so.
    pub async fn purge(&self, choice: &LetterChoice) -> Result<u64, WriteError> {
        self.0.supervisor.purge(choice).await
    }

    /// Starts to send dead letters again. What was started goes on in later processes until it is done or cancelled.
    /// Dropped, it starts or does not.
    pub async fn redrive(&self, request: RedriveRequest) -> Result<RedriveStatus, RedriveError> {
        self.0.redrives.start(&self.0.supervisor, request).await
    }

    /// What a redrive would send. Changes nothing.
    pub async fn preview_redrive(&self, request: &RedriveRequest) -> Result<RedrivePreview, RedriveError> {
        Redrives::preview(&self.0.supervisor, request).await
    }

    /// Every redrive that runs, and the newest that have ended; the newest first.
    pub fn redrives(&self) -> Vec<RedriveStatus> {
        self.0.redrives.all()
    }

    /// How one redrive stands.
    pub fn find_redrive(&self, name: &str) -> Result<RedriveStatus, RedriveError> {
        self.0.redrives.find(name)
    }

    /// Ends a redrive once what it sends at the moment is known; the rest stays in the store. Dropped, it ends all the
    /// same.
    pub async fn cancel_redrive(&self, name: &str) -> Result<RedriveStatus, RedriveError> {
        self.0.redrives.cancel(name).await
    }

    /// The metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.0.supervisor.metrics()
    }

    /// Counts anew what every trigger is owed, and corrects the ledgers where they differ.
    pub fn recount(&self) -> Vec<RecountLine> {
        self.0.supervisor.recount()
    }

    /// Drops one event that a trigger is owed, counted as dropped by an operator. It may be any that was taken, or the
    /// oldest that was not. An attempt at it that is under way goes on, and counts for nothing. It goes to its end, also where
    /// whoever asked does not wait for it.
    pub async fn skip(&self, trigger: &ResourceName, at: Position) -> Result<(), OperateError> {
        let (supervisor, trigger) = (self.0.supervisor.clone(), trigger.clone());
        self.to_its_end(async move { supervisor.skip(&trigger, at).await }).await
    }

    /// Moves a trigger on: all that it is owed before the place is dropped, counted as dropped by an operator. Returns how
    /// much that was. It never goes back. What is with the subscriber goes on, and is dropped where that attempt fails.
    /// It goes to its end, also where whoever asked does not wait for it.
    pub async fn seek(&self, trigger: &ResourceName, to: SeekTo) -> Result<u64, OperateError> {
        let (supervisor, trigger) = (self.0.supervisor.clone(), trigger.clone());
        self.to_its_end(async move { supervisor.seek(&trigger, to).await }).await
    }

    /// Does what an operator asked for in a task of its own.
    async fn to_its_end<T: Send + 'static>(
        &self,
        order: impl Future<Output = Result<T, OperateError>> + Send + 'static,
    ) -> Result<T, OperateError> {
        let (tell, told) = oneshot::channel();
        self.0.context.dispatch.spawn("orders of operators", async move {
            // Whoever asked may have gone.
            drop(tell.send(order.await));
        });
        told.await.unwrap_or(Err(OperateError::Stopping))
    }

    /// Passes over what is damaged in a broker's log from now on, because an operator accepts that it is lost. Returns
    /// what was damaged, in sentences; none where the broker does not run. Blocks: every record is read for it.
    pub fn accept_damage(&self, broker: &ResourceName) -> Option<Result<Vec<String>, WriteError>> {
        self.0.supervisor.accept_damage(broker)
    }

    /// Stops everything in order: sources, deliveries, sinks, logs. Attempts in flight have until shortly before
    /// the deadline, then they are cut and not counted. Returns what did not finish in time.
    pub async fn shutdown(&self, deadline: Instant) -> Vec<String> {
        let now = Instant::now();
        let time = deadline.saturating_duration_since(now);
        let cut_at = now + time.saturating_sub(CLOSING_TIME.min(time / 4));
        self.0.supervisor.shutdown(cut_at, deadline).await
    }
}
