//! Manifests from the first reading to the last change, and the stored plan.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use waypost_core::codes;
use waypost_engine::Engine;
use waypost_engine::plan::{Plan, StoredChange, StoredPlan, plan};
use waypost_log::Clock;
use waypost_log::embedded::EmbeddedStore;

use super::{log_applied, log_problems};
use crate::failure::Failure;
use crate::files::{Files, Reading, Watch};
use crate::registry::REGISTRY;
use crate::secret_sources::ProcessSecrets;

/// Reads the manifests, again whenever they change, and plans.
#[derive(Debug)]
pub(super) struct ManifestFollower {
    files: Files,
    stored: Stored,
    /// Whether no earlier process left a plan.
    first_start: bool,
    /// The last plan, and its version.
    plan: Arc<Plan>,
    version: u64,
    /// The last reading could not be kept, and is not applied.
    unkept: bool,
}

/// The wait before manifests that could not be kept are read again.
const KEEP_RETRY: Duration = Duration::from_secs(10);

/// Where the plan is kept for a later process.
#[derive(Debug)]
pub(super) struct Stored {
    /// None where nothing survives the process.
    store: Option<Arc<EmbeddedStore>>,
    clock: Clock,
    detached_retention: Duration,
}

/// What an earlier process left.
enum Before {
    Nothing,
    /// What the files say now as well; with the plan that comes next.
    Same(Box<Plan>),
    /// The plan that was in force.
    Other(Box<Plan>),
}

impl Stored {
    pub(super) fn new(store: Option<Arc<EmbeddedStore>>, clock: Clock, detached_retention: Duration) -> Self {
        Self { store, clock, detached_retention }
    }

    pub(super) fn store(&self) -> Option<Arc<EmbeddedStore>> {
        self.store.clone()
    }

    /// What an earlier process kept.
    pub(super) fn read(&self) -> Result<StoredPlan, Failure> {
        let Some(store) = &self.store else { return Ok(StoredPlan::default()) };
        let kept = store.kept("").map_err(|error| Failure::new(error.code(), error.to_string()))?;
        StoredPlan::read(kept).map_err(|error| Failure::new(codes::LOG_VERSION_UNKNOWN, error.to_string()))
    }

    /// The plan that was in force when the earlier process ended.
    fn before(&self, stored: &StoredPlan, reading: &Reading) -> Result<Before, Failure> {
        let Some(store) = &self.store else { return Ok(Before::Nothing) };
        let logs = store.logs().map_err(|error| Failure::new(error.code(), error.to_string()))?;
        if stored.is_empty() && logs.is_empty() {
            return Ok(Before::Nothing);
        }
        if let Some(plan) = stored.still_in_force(&reading.manifests, &REGISTRY, &logs) {
            return Ok(Before::Same(Box::new(plan)));
        }
        let previous = stored.previous(&reading.manifests, &REGISTRY, &logs);
        for problem in previous.problems.iter().filter(|problem| problem.is_error()) {
            tracing::warn!(
                code = problem.code.id(),
                resource = problem.resource.as_ref().map(ToString::to_string),
                "the stored version of a resource is of no use any more: {}",
                problem.message
            );
        }
        Ok(Before::Other(Box::new(previous)))
    }

    fn keep(&self, changes: &[StoredChange]) -> Result<(), Failure> {
        let Some(store) = &self.store else { return Ok(()) };
        store.keep(changes).map_err(|error| Failure::new(error.code(), error.to_string()))
    }

    /// Dates what is detached, and drops what has been so for too long. Returns what is to be kept of that.
    fn date(&self, plan: &mut Arc<Plan>) -> Vec<StoredChange> {
        if !plan.has_detached() {
            return Vec::new();
        }
        let plan = Arc::make_mut(plan);
        let now = self.clock.now().0;
        let retention = i64::try_from(self.detached_retention.as_nanos()).unwrap_or(i64::MAX);
        plan.date_detached(now);
        plan.forget_detached(now.saturating_sub(retention))
    }
}

impl ManifestFollower {
    /// Makes the first plan of the process, and keeps it for a later one unless it is refused: an error in the very
    /// first plan of all refuses it. `kept` is what `stored` has of an earlier process, and `first` the plan of the
    /// reading where nothing was before it, if it was made already.
    pub(super) fn start(
        files: Files,
        reading: &Reading,
        stored: Stored,
        kept: &StoredPlan,
        first: Option<Plan>,
    ) -> Result<(Self, Arc<Plan>), Failure> {
        let before = stored.before(kept, reading)?;
        let mut follower = Self {
            files,
            stored,
            first_start: kept.is_empty(),
            plan: Arc::default(),
            version: kept.version(),
            unkept: false,
        };
        // The first tick of the housekeeper gives up what has been detached for too long.
        let (plan, changes) = match before {
            Before::Nothing => {
                let first = first.unwrap_or_else(|| follower.plan(reading, None));
                follower.take(first, reading, None)
            }
            Before::Same(next) => (follower.take_over(*next), vec![kept.next_version()]),
            Before::Other(previous) => {
                let next = follower.plan(reading, Some(&previous));
                follower.take(next, reading, Some(&previous))
            }
        };
        if !follower.first_start || plan.is_free_of_errors() {
            follower.stored.keep(&changes)?;
        }
        Ok((follower, plan))
    }

    /// Whether no earlier process left a plan.
    pub(super) fn is_first_start(&self) -> bool {
        self.first_start
    }

    /// The version of the last plan.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The plan that comes next.
    fn plan(&self, reading: &Reading, previous: Option<&Plan>) -> Plan {
        plan(&reading.manifests, &REGISTRY, previous, self.version + 1)
    }

    /// Takes over the plan that comes next, and says what is to be kept of it.
    fn take(
        &mut self,
        plan: Plan,
        reading: &Reading,
        previous: Option<&Plan>,
    ) -> (Arc<Plan>, Vec<StoredChange>) {
        let plan = self.take_over(plan);
        let changes = plan.to_store(&reading.manifests, previous, self.version);
        (plan, changes)
    }

    fn take_over(&mut self, mut plan: Plan) -> Arc<Plan> {
        self.version += 1;
        plan.secrets = plan.secrets.with_outside(Arc::new(ProcessSecrets));
        if self.stored.store.is_some() {
            plan.date_detached(self.stored.clock.now().0);
        }
        self.plan = Arc::new(plan);
        Arc::clone(&self.plan)
    }

    /// Reads again. None where nothing changed, unless told to plan all the same: what secrets refer to may have.
    fn again(&mut self, all_the_same: bool) -> Option<Result<Arc<Plan>, Failure>> {
        let reading = self.files.read();
        if !reading.changed && !all_the_same && !self.unkept {
            return None;
        }
        let mut previous = std::mem::take(&mut self.plan);
        let forgotten = self.stored.date(&mut previous);
        let planned = self.plan(&reading, Some(&previous));
        let (plan, changes) = self.take(planned, &reading, Some(&previous));
        // Durable before anything is done by it. What is declared anew follows what is forgotten of it.
        self.unkept = false;
        if let Err(failure) = self.stored.keep(&[forgotten, changes].concat()) {
            self.plan = previous;
            self.unkept = true;
            return Some(Err(failure));
        }
        Some(Ok(plan))
    }

    /// Applies every change to the engine until told to stop. A change that is being applied is finished.
    pub(super) async fn follow(mut self, engine: Engine, mut reload: Signal, stop: CancellationToken) {
        let (mut watch, started) = Watch::start(self.files.watched());
        log_watch(started);
        // A change between the first reading and the first watch would go unseen.
        watch.touch();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = watch.changed() => false,
                _ = reload.recv() => true,
            };
            // Watched anew first, so that no change falls between the reading and the watching.
            log_watch(watch.renew());
            // Reading blocks, and planning a hundred thousand triggers takes its time.
            let reading = tokio::task::spawn_blocking(move || {
                let plan = self.again(asked);
                (self, plan)
            });
            let plan;
            (self, plan) = match reading.await {
                Ok(read) => read,
                // The runtime ends.
                Err(error) if error.is_cancelled() => return,
                Err(error) => {
                    tracing::error!(%error, "reading the manifests panicked; they are not followed any more, please report this");
                    return;
                }
            };
            match plan {
                Some(Ok(plan)) => {
                    log_problems(&plan.problems);
                    log_applied(&plan, self.version);
                    engine.apply(plan, self.version).await;
                }
                Some(Err(failure)) => {
                    tracing::error!(
                        code = failure.code.id(),
                        "the changed manifests cannot be kept for a later process, and are not applied; it is tried \
                         again in {KEEP_RETRY:?}: {}",
                        failure.detail
                    );
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(KEEP_RETRY) => watch.touch(),
                    }
                }
                None => {}
            }
        }
    }
}

fn log_watch(started: Result<(), notify::Error>) {
    if let Err(error) = started {
        tracing::warn!(
            code = codes::MANIFESTS_NOT_WATCHED.id(), %error,
            "changes of the manifests may go unseen; send SIGHUP after each, or raise fs.inotify.max_user_watches"
        );
    }
}
