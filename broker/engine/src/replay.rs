//! Replays: a range of a broker's log, sent again once.
//!
//! A replay is a subscription with a number and a ledger of its own, which is in no set of triggers: nothing live is ever
//! offered to it. It counts what it will send, matches its range once for itself alone, and delivers as any subscription
//! does. What it has come to is a row of its own among what is kept for a later process.

mod mark;
mod record;
mod run;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use waypost_core::manifest::{Problem, ResourceName};
use waypost_core::{Code, codes};
use waypost_log::{Counts, WriteError};

pub(crate) use self::mark::Mark;
pub(crate) use self::record::{Outcomes, ReplayOrigin, ReplayRecord, ReplayState, kept_name, replay_of};
pub(crate) use self::record::{REPLAYS, subscription_name};
pub(crate) use self::run::{Resolved, Run, Running, count, resolve};
pub use self::status::ReplayStatus;
use crate::logs::PastRange;
use crate::plan::ReplayPlan;
use crate::subscription::Subscription;

/// So many replays are known at one time, those that have ended and are still told of included.
pub const MAX_REPLAYS: usize = 1_000;

/// A replay that is asked for through the admin API.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayRequest {
    /// Its namespace, which is that of its broker and trigger.
    pub namespace: String,
    /// Its name; one is made where there is none.
    pub name: Option<String>,
    /// The spec of `kind: Replay`.
    pub spec: serde_json::Value,
}

/// Why a replay cannot be started or changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// What is asked for is not valid.
    #[error("the replay is not valid: {}", told(.0))]
    Invalid(Vec<Problem>),
    /// Its broker does not run.
    #[error("the broker {0} does not run here: see `waypost status`")]
    BrokerStopped(ResourceName),
    /// The log has no such range.
    #[error("{0}")]
    Range(String),
    /// There is a replay of this name.
    #[error("there is a replay {0} already, and each runs once: name a new one")]
    Exists(ResourceName),
    /// There is no replay of this name.
    #[error("there is no replay {0}: see `waypost replay list`")]
    Unknown(ResourceName),
    /// The replay has ended.
    #[error("the replay {name} is {state} and cannot be changed any more: start a new one")]
    Ended {
        /// The replay.
        name: ResourceName,
        /// What became of it.
        state: &'static str,
    },
    /// Its manifest says that it is paused.
    #[error("the manifest of the replay {0} says that it is paused: take `paused` out of it")]
    PausedByManifest(ResourceName),
    /// There are as many as may be.
    #[error(
        "there are {MAX_REPLAYS} replays, which is the most: remove manifests of those that have ended, or wait"
    )]
    TooMany,
    /// The range cannot be read.
    #[error("the range cannot be read: {0}")]
    Unreadable(String),
    /// What is to be kept for a later process cannot be written.
    #[error("what becomes of the replay cannot be written down: {0}")]
    Unwritten(WriteError),
    /// The process ends.
    #[error("the process is shutting down: ask again when it runs")]
    Stopping,
}

impl ReplayError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::Range(_) => codes::REPLAY_INVALID,
            Self::BrokerStopped(_) => codes::REPLAY_BROKER_STOPPED,
            Self::Exists(_) => codes::REPLAY_EXISTS,
            Self::Unknown(_) => codes::REPLAY_UNKNOWN,
            Self::Ended { .. } => codes::REPLAY_ENDED,
            Self::PausedByManifest(_) => codes::REPLAY_PAUSED_BY_MANIFEST,
            Self::TooMany => codes::REPLAYS_TOO_MANY,
            Self::Unreadable(_) => codes::LOG_FAILED,
            Self::Unwritten(error) => error.code(),
            Self::Stopping => codes::ADMIN_NOT_READY,
        }
    }
}

/// The first problems, as sentences with their fields.
fn told(problems: &[Problem]) -> String {
    const MOST: usize = 5;
    let sentence = |problem: &Problem| match problem.help.as_str() {
        "" => format!("{} ({})", problem.message, problem.path),
        help => format!("{} ({}): {help}", problem.message, problem.path),
    };
    problems.iter().take(MOST).map(sentence).collect::<Vec<_>>().join("; ")
}

/// What a replay would send, without sending anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayEstimate {
    /// The namespace.
    pub namespace: String,
    /// The broker.
    pub broker: String,
    /// The events of the range that match.
    pub expected: u64,
    /// The range.
    pub ranges: Vec<ReplayRange>,
    /// What is not as was asked for, in sentences.
    pub notices: Vec<String>,
}

/// A part of a log, by offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayRange {
    /// The partition.
    pub partition: u16,
    /// The first offset.
    pub from: u64,
    /// The first offset behind it.
    pub to: u64,
}

impl ReplayRange {
    pub(crate) fn of(range: &PastRange) -> Self {
        Self { partition: range.partition, from: range.from, to: range.to }
    }
}

/// A replay that is known here.
pub(crate) struct Replay {
    pub(crate) name: ResourceName,
    /// What is durable of it, or about to be.
    record: Mutex<ReplayRecord>,
    /// What runs of it, while its broker does.
    running: Mutex<Option<Running>>,
    /// Held while what is durable of it is written.
    changing: tokio::sync::Mutex<()>,
    /// Why it makes no attempts although nobody paused it, where that is so.
    waits_for: Mutex<Option<String>>,
    /// Whether the newest manifest of its name asks for something else than what was started.
    differs: AtomicBool,
    paused_by_manifest: AtomicBool,
}

impl Replay {
    pub(crate) fn new(name: ResourceName, record: ReplayRecord) -> Arc<Self> {
        Arc::new(Self {
            name,
            record: Mutex::new(record),
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            waits_for: Mutex::default(),
            differs: AtomicBool::default(),
            paused_by_manifest: AtomicBool::default(),
        })
    }

    /// What is durable of it.
    pub(crate) fn record(&self) -> ReplayRecord {
        self.record.lock().clone()
    }

    pub(crate) fn state(&self) -> ReplayState {
        self.record.lock().state
    }

    pub(crate) fn broker(&self) -> ResourceName {
        self.record.lock().broker.clone()
    }

    pub(crate) fn subscription(&self) -> Option<Arc<Subscription>> {
        self.running.lock().as_ref().map(|running| Arc::clone(&running.subscription))
    }

    pub(crate) fn with_running<T>(&self, tell: impl FnOnce(&Running) -> T) -> Option<T> {
        self.running.lock().as_ref().map(tell)
    }

    /// Notes as what it delivers now. False where that is what it did before.
    pub(crate) fn set_fingerprint(&self, fingerprint: &str) -> bool {
        let mut running = self.running.lock();
        let Some(running) = running.as_mut().filter(|running| running.fingerprint != fingerprint) else {
            return false;
        };
        fingerprint.clone_into(&mut running.fingerprint);
        true
    }

    /// Lets the log give up what is not matched yet.
    pub(crate) fn release_log(&self) {
        self.with_running(|running| {
            for partition in 0..running.log.partitions() {
                running.log.ledger(partition, running.subscription.number).reserve(None);
            }
        });
    }

    pub(crate) fn set_running(&self, running: Running) {
        *self.running.lock() = Some(running);
    }

    pub(crate) fn take_running(&self) -> Option<Running> {
        self.running.lock().take()
    }

    /// Ends what reads the log for it, and waits until that has ended.
    pub(crate) async fn stop_reading(&self) {
        let tokens =
            self.running.lock().as_ref().map(|running| (running.stop.clone(), running.ended.clone()));
        if let Some((stop, ended)) = tokens {
            stop.cancel();
            ended.cancelled().await;
        }
    }

    pub(crate) fn waits_for(&self) -> Option<String> {
        self.waits_for.lock().clone()
    }

    pub(crate) fn set_waits_for(&self, reason: Option<String>) {
        *self.waits_for.lock() = reason;
    }

    /// Takes over what the newest plan says of it.
    pub(crate) fn set_planned(&self, planned: Option<&ReplayPlan>, fixed: Option<&str>) {
        let differs = fixed.is_some_and(|fixed| self.record.lock().fixed != fixed);
        self.differs.store(differs, Ordering::Relaxed);
        // What the admin API was asked for is changed by it alone.
        let of_manifest = self.record.lock().origin == ReplayOrigin::Manifest;
        let paused = of_manifest && planned.is_some_and(|planned| planned.paused);
        self.paused_by_manifest.store(paused, Ordering::Relaxed);
    }

    pub(crate) fn differs(&self) -> bool {
        self.differs.load(Ordering::Relaxed)
    }

    pub(crate) fn is_paused_by_manifest(&self) -> bool {
        self.paused_by_manifest.load(Ordering::Relaxed)
    }

    /// Whether its manifest or an operator says that it makes no attempts.
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused_by_manifest() || self.record.lock().paused
    }

    /// What became of what it matched: as its ledger says, or said last.
    pub(crate) fn counts(&self) -> Outcomes {
        let live = self.subscription().map(|subscription| subscription.standing().counts);
        live.map_or_else(|| self.record.lock().outcomes.clone(), |counts: Counts| Outcomes::of(&counts))
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Says that a task has ended, however it did.
pub(crate) struct Ended(pub(crate) CancellationToken);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
