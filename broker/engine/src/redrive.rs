//! Redrives: dead letters that are sent again.
//!
//! A redrive is a job that is kept like other durable state: what it chose when it started, where it sends, and how far
//! it has come. Each dead letter leaves the store when it was taken, so that a later process goes on with what is left;
//! one that fails again stays, is marked with the redrive, and is not tried by it any more. A letter is sent by one at a
//! time, be it a redrive or the forwarder: whoever sends holds its claim.

mod job;
mod record;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use waypost_core::manifest::{InvalidUrl, ResourceName, check_url};
use waypost_core::{Code, codes};
use waypost_log::{DeadLetterId, DeadLetters, LetterRecord, LetterSelection, RedriveId, WriteError};

use self::job::Job;
use self::record::{Part, REDRIVES, RedriveRecord};
pub use self::record::{RedrivePreview, RedriveState, RedriveStatus};
pub(crate) use self::record::{redrive_id, redrive_name};
use crate::broker::Broker;
use crate::context::Context;
use crate::dead_letter::{KeptQuery, LetterChoice, LetterName, MAX_NAMED_LETTERS};
use crate::supervisor::Supervisor;

/// The most redrives that run at one time.
const MAX_RUNNING: usize = 16;

/// The redrives that have ended and are still told of, the newest.
const ENDED_KEPT: usize = 16;

/// A redrive that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveRequest {
    /// What it sends.
    pub choice: LetterChoice,
    /// Where to, instead of to the subscriber of each trigger: an `http` or `https` URL. It gets the events as they are
    /// in the store, without transformations, and its answers are not routed.
    pub to: Option<String>,
    /// The most that it sends per second. Without it, what the triggers allow.
    pub rate: Option<NonZeroU32>,
}

/// Why a redrive is not started, or not found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RedriveError {
    /// There is no such dead letter.
    #[error(
        "there is no dead letter {0}: it was redriven, forwarded or purged, or never was; see `waypost dlq list`"
    )]
    LetterUnknown(LetterName),
    /// More dead letters are named than may be.
    #[error(
        "{0} dead letters are named, and at most {MAX_NAMED_LETTERS} may be: choose them by trigger, type, code or time"
    )]
    TooManyNamed(usize),
    /// Triggers whose dead letters were chosen are not declared any more.
    #[error(
        "no manifest declares the trigger {}, so that its dead letters have no subscriber: say with `--to` where they go, \
         or choose others with `--trigger`",
        .0.join(", ")
    )]
    NoDestination(Vec<String>),
    /// The other destination is no URL that events can be sent to.
    #[error("the destination cannot be used: {0}")]
    Destination(InvalidUrl),
    /// As many run as may.
    #[error("{MAX_RUNNING} redrives run already: wait for one, or cancel one with `waypost dlq cancel`")]
    TooMany,
    /// There is no such redrive.
    #[error("there is no redrive {0}, or it ended long ago: see `waypost dlq jobs`")]
    Unknown(String),
    /// It cannot be written down, and so is not started.
    #[error("the redrive cannot be kept for a later process, and is not started: {0}")]
    NotKept(WriteError),
}

impl RedriveError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::LetterUnknown(_) => codes::DEAD_LETTER_UNKNOWN,
            Self::TooManyNamed(_) => codes::DEAD_LETTERS_TOO_MANY,
            Self::NoDestination(_) => codes::REDRIVE_DESTINATION_MISSING,
            Self::Destination(_) => codes::URL_INVALID,
            Self::TooMany => codes::REDRIVES_TOO_MANY,
            Self::Unknown(_) => codes::REDRIVE_UNKNOWN,
            Self::NotKept(error) => error.code(),
        }
    }
}

/// The redrives that are known here.
#[derive(Debug)]
pub(crate) struct Redrives {
    context: Arc<Context>,
    jobs: Mutex<BTreeMap<RedriveId, Arc<Job>>>,
    /// Held while one is started: it must not be among those that are taken up.
    starting: Arc<tokio::sync::Mutex<()>>,
    taken_up: AtomicBool,
}

/// What a redrive would be about.
#[derive(Debug, Default)]
struct Chosen {
    parts: Vec<Part>,
    triggers: BTreeMap<ResourceName, u64>,
    /// Triggers that have no subscriber.
    gone: Vec<String>,
    unreadable: u64,
}

impl Redrives {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            jobs: Mutex::default(),
            starting: Arc::default(),
            taken_up: AtomicBool::new(false),
        })
    }

    /// Goes on with what an earlier process left, once. What cannot be read is told, and left alone.
    pub(crate) async fn take_up(self: &Arc<Self>, supervisor: &Supervisor) {
        let _turn = self.starting.lock().await;
        if self.taken_up.swap(true, Ordering::Relaxed) {
            return;
        }
        let logs = self.context.logs.clone();
        let kept = match tokio::task::spawn_blocking(move || logs.kept(REDRIVES)).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => {
                tracing::error!(code = error.code().id(), %error, "the redrives of the process before cannot be read");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "reading the redrives of the process before panicked");
                return;
            }
        };
        for (name, value) in kept {
            match serde_json::from_slice::<RedriveRecord>(&value) {
                Ok(record) => {
                    let job = Job::new(self, supervisor.clone(), record);
                    job.take_up().await;
                    self.enter(job);
                }
                Err(error) => tracing::error!(
                    name, %error, "a redrive cannot be read by this version, and does not go on; use the version that wrote it"
                ),
            }
        }
    }

    fn enter(&self, job: Arc<Job>) {
        self.jobs.lock().insert(job.redrive(), Arc::clone(&job));
        if job.status().state == RedriveState::Running {
            self.context.dispatch.spawn("redrives", job.run());
        }
    }

    /// See [`crate::Engine::redrive`].
    pub(crate) async fn start(
        self: &Arc<Self>,
        supervisor: &Supervisor,
        request: RedriveRequest,
    ) -> Result<RedriveStatus, RedriveError> {
        let turn = Arc::clone(&self.starting).lock_owned().await;
        if let Some(to) = &request.to {
            check_url(to).map_err(RedriveError::Destination)?;
        }
        let jobs = self.jobs.lock().clone();
        let running = jobs.values().filter(|job| job.status().state == RedriveState::Running).count();
        if running >= MAX_RUNNING {
            return Err(RedriveError::TooMany);
        }
        let now = self.context.clock.now();
        let newest = jobs.last_key_value().map_or(0, |(newest, _)| newest.0 + 1);
        let redrive = RedriveId(newest.max(u64::try_from(now.0 / 1_000_000).unwrap_or(0)));
        let chosen = choose(supervisor, &request.choice, redrive).await?;
        if request.to.is_none() && !chosen.gone.is_empty() {
            return Err(RedriveError::NoDestination(chosen.gone));
        }
        let query = match &request.choice {
            LetterChoice::Query(query) => KeptQuery::of(query),
            LetterChoice::Named(_) => KeptQuery::default(),
        };
        let record = RedriveRecord {
            id: redrive.0,
            state: RedriveState::Running,
            query,
            parts: chosen.parts,
            to: request.to,
            rate: request.rate.map(NonZeroU32::get),
            selected: chosen.triggers.values().sum(),
            sent: 0,
            failed: 0,
            gone: 0,
            started_at: now.0,
            ended_at: None,
        };
        // In a task of its own: what is kept must run, also where whoever asked does not wait.
        let (told, started) = oneshot::channel();
        let (redrives, supervisor) = (Arc::clone(self), supervisor.clone());
        self.context.dispatch.spawn("starts of redrives", async move {
            let started = redrives.keep_and_run(supervisor, record).await;
            drop(turn);
            // Nobody waits any more.
            let _ = told.send(started);
        });
        started.await.unwrap_or(Err(RedriveError::NotKept(WriteError::Closed)))
    }

    async fn keep_and_run(
        self: &Arc<Self>,
        supervisor: Supervisor,
        record: RedriveRecord,
    ) -> Result<RedriveStatus, RedriveError> {
        let kept = vec![(record.kept_name(), Some(record.encode()))];
        self.context.logs.keep(kept).await.map_err(RedriveError::NotKept)?;
        let job = Job::new(self, supervisor, record);
        let status = job.status();
        tracing::info!(redrive = status.id, selected = status.selected, to = status.to, "a redrive starts");
        self.enter(job);
        Ok(status)
    }

    /// See [`crate::Engine::preview_redrive`].
    pub(crate) async fn preview(
        supervisor: &Supervisor,
        request: &RedriveRequest,
    ) -> Result<RedrivePreview, RedriveError> {
        if let Some(to) = &request.to {
            check_url(to).map_err(RedriveError::Destination)?;
        }
        let Chosen { triggers, gone, unreadable, .. } =
            choose(supervisor, &request.choice, RedriveId(u64::MAX)).await?;
        Ok(RedrivePreview {
            dry_run: true,
            selected: triggers.values().sum(),
            triggers: triggers.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            unreadable,
            without_destination: if request.to.is_none() { gone } else { Vec::new() },
        })
    }

    /// Every redrive that runs, and the newest that have ended; the newest first.
    pub(crate) fn all(&self) -> Vec<RedriveStatus> {
        self.jobs.lock().values().rev().map(|job| job.status()).collect()
    }

    pub(crate) fn find(&self, name: &str) -> Result<RedriveStatus, RedriveError> {
        self.job(name).map(|job| job.status())
    }

    /// Ends a redrive: what it sends at the moment is still noted, the rest stays in the store.
    pub(crate) async fn cancel(&self, name: &str) -> Result<RedriveStatus, RedriveError> {
        let job = self.job(name)?;
        job.cancel().await;
        Ok(job.status())
    }

    fn job(&self, name: &str) -> Result<Arc<Job>, RedriveError> {
        let found = redrive_id(name).and_then(|id| self.jobs.lock().get(&id).cloned());
        found.ok_or_else(|| RedriveError::Unknown(name.chars().take(100).collect()))
    }

    /// Forgets those that ended before the newest that are kept. Returns the names under which they are kept.
    fn forget_ended(&self) -> Vec<String> {
        let mut jobs = self.jobs.lock();
        let ended = jobs.iter().rev().filter(|(_, job)| job.status().state != RedriveState::Running);
        let old: Vec<RedriveId> = ended.skip(ENDED_KEPT).map(|(id, _)| *id).collect();
        let forgotten = old.into_iter().filter_map(|id| jobs.remove(&id));
        forgotten.map(|job| job.kept_name()).collect()
    }
}

/// Finds what is chosen, as it is at this moment.
async fn choose(
    supervisor: &Supervisor,
    choice: &LetterChoice,
    redrive: RedriveId,
) -> Result<Chosen, RedriveError> {
    let mut chosen = Chosen::default();
    match choice {
        LetterChoice::Query(query) => {
            for broker in supervisor.brokers() {
                if query.admits_broker(broker.name()) {
                    chosen.add_selected(&broker, &query.selection(), redrive).await;
                }
            }
        }
        LetterChoice::Named(names) if names.len() > MAX_NAMED_LETTERS => {
            return Err(RedriveError::TooManyNamed(names.len()));
        }
        LetterChoice::Named(names) => {
            for name in names {
                chosen.add_named(supervisor, name).await?;
            }
            for part in &mut chosen.parts {
                part.named.iter_mut().for_each(|named| named.sort_unstable());
            }
        }
    }
    for trigger in chosen.triggers.keys() {
        let declared = |broker: &Arc<Broker>| {
            broker.subscription(trigger).is_some_and(|subscription| !subscription.is_detached())
        };
        if !supervisor.brokers().iter().any(declared) {
            chosen.gone.push(trigger.to_string());
        }
    }
    Ok(chosen)
}

impl Chosen {
    async fn add_selected(&mut self, broker: &Broker, selection: &LetterSelection, redrive: RedriveId) {
        let store = broker.log().dead_letters();
        let mut through = None;
        for trigger in store.triggers() {
            if selection.trigger.as_ref().is_some_and(|wanted| *wanted != trigger) {
                continue;
            }
            let all = LetterSelection { trigger: Some(trigger.clone()), ..selection.clone() };
            let open = LetterSelection { open_to: Some(redrive), ..all.clone() };
            let ids = store.select(&open, None, usize::MAX).await;
            let count = ids.len() as u64;
            if redrive == RedriveId(u64::MAX) {
                // Only a preview tells of these.
                let all = store.select(&all, None, usize::MAX).await.len() as u64;
                self.unreadable += all.saturating_sub(count);
            }
            if let Some(last) = ids.last() {
                through = through.max(Some(last.0));
                *self.triggers.entry(trigger).or_default() += count;
            }
        }
        if let Some(through) = through {
            self.parts.push(Part { broker: broker.name().clone(), through, named: None });
        }
    }

    async fn add_named(&mut self, supervisor: &Supervisor, name: &LetterName) -> Result<(), RedriveError> {
        let unknown = || RedriveError::LetterUnknown(name.clone());
        let broker = supervisor.broker(&name.broker).ok_or_else(unknown)?;
        let letter = broker.log().dead_letters().get(name.id).await.ok_or_else(unknown)?;
        let DeadLetterId(number) = name.id;
        let place = self.parts.iter().position(|part| part.broker == name.broker);
        let place = place.unwrap_or_else(|| {
            let broker = name.broker.clone();
            self.parts.push(Part { broker, through: 0, named: Some(Vec::new()) });
            self.parts.len() - 1
        });
        let part = &mut self.parts[place];
        let named = part.named.get_or_insert_default();
        if named.contains(&number) {
            return Ok(());
        }
        if matches!(letter.record, LetterRecord::Lost) {
            self.unreadable += 1;
            return Ok(());
        }
        part.through = part.through.max(number);
        named.push(number);
        *self.triggers.entry(letter.trigger.clone()).or_default() += 1;
        Ok(())
    }
}

/// The dead letters of a part that are still open to a redrive, above `after`.
async fn open_ids(
    store: &dyn DeadLetters,
    part: &Part,
    selection: &LetterSelection,
    after: Option<DeadLetterId>,
    limit: usize,
) -> Vec<DeadLetterId> {
    let Some(named) = &part.named else {
        let selection = LetterSelection { through: Some(DeadLetterId(part.through)), ..selection.clone() };
        return store.select(&selection, after, limit).await;
    };
    let mut open = Vec::new();
    let above = named.partition_point(|number| after.is_some_and(|after| *number <= after.0));
    for number in &named[above..] {
        if open.len() == limit {
            break;
        }
        let this = LetterSelection { through: Some(DeadLetterId(*number)), ..selection.clone() };
        open.extend(store.select(&this, number.checked_sub(1).map(DeadLetterId), 1).await);
    }
    open
}
