//! One redrive at work.

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use waypost_core::delivery::{DeliveryPolicy, Format, Rate};
use waypost_core::error::{Class, DeliveryError};
use waypost_log::{
    AcceptedOutputs, Attempt, AttemptOutcome, DeadLetter, DeadLetterReason, Entry, FailedAgain, LetterClaim,
    LetterRecord, LetterSelection, RedriveId, Timestamp, TriggerNumber, WriteError,
};

use super::record::{Part, RedriveRecord, RedriveState, RedriveStatus};
use super::{Redrives, open_ids, redrive_name};
use crate::broker::Broker;
use crate::context::Context;
use crate::delivery::{self, Verdict};
use crate::plan::{self, HttpDestination};
use crate::rate::TokenBucket;
use crate::subscriber::{Answer, Causing, Lane, Sending, Subscriber, Terms};
use crate::subscription::{Mark, NotNow, Subscription, WRITE_RETRY};
use crate::supervisor::Supervisor;

/// The extension attribute that says which redrive sent an event.
const MARK: &str = "waypostredrive";
/// The most dead letters that one redrive sends at one time, whatever triggers allow.
const AT_ONCE: usize = 64;
/// The dead letters that are looked up at once.
const PAGE: usize = 256;
/// How often it is written down how far a redrive has come.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// How long it waits before it looks for what it left out: what someone else was sending.
const PASS_PAUSE: Duration = Duration::from_millis(500);
/// How long a letter waits for the trigger's live events before it asks again for its turn.
const TURN_PAUSE: Duration = Duration::from_millis(10);
/// The first wait while nothing can be sent; it doubles.
const FIRST_HOLD: Duration = Duration::from_secs(1);
/// The longest such wait.
const LAST_HOLD: Duration = Duration::from_secs(30);

/// A redrive, running or ended.
#[derive(Debug)]
pub(super) struct Job {
    context: Arc<Context>,
    /// Whose it is; it keeps its jobs.
    redrives: Weak<Redrives>,
    supervisor: Supervisor,
    cancelled: CancellationToken,
    ended: CancellationToken,
    other: Option<Other>,
    state: Mutex<State>,
}

/// Another destination than the triggers' own.
#[derive(Debug)]
struct Other {
    subscriber: Subscriber,
    terms: Terms,
}

#[derive(Debug)]
struct State {
    record: RedriveRecord,
    /// Whether the record says more than what was kept.
    changed: bool,
    bucket: Option<TokenBucket>,
    hold: Option<Hold>,
    /// Whether a failure that may pass is worth waiting for: not after one letter has waited in vain, until something is
    /// taken again. Else each of very many letters would wait as long for a subscriber that is gone.
    patient: bool,
}

/// Nothing can be sent for now.
#[derive(Debug)]
struct Hold {
    why: String,
    until: Timestamp,
    pause: Duration,
}

/// What ended the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Cancelled,
    /// The process stops: the next one goes on.
    Stopped,
}

/// What became of one dead letter.
enum Fate {
    Sent,
    Failed(FailedAgain),
    /// It was not its fault, or no time for it: it is tried again.
    Later,
}

impl Job {
    pub(super) fn new(redrives: &Arc<Redrives>, supervisor: Supervisor, record: RedriveRecord) -> Arc<Self> {
        let context = Arc::clone(&redrives.context);
        let redrives = Arc::downgrade(redrives);
        let other = record.to.clone().map(|url| {
            let namespace = record.parts.first().map(|part| part.broker.namespace.clone());
            let terms = Terms {
                namespace: namespace.unwrap_or_default(),
                format: Format::Binary,
                timeout: DeliveryPolicy::default().timeout,
                strict_replies: false,
            };
            let destination = HttpDestination { url, ca_certificates: None, audience: None };
            let subscriber = Subscriber::resolve(&plan::Subscriber::Http(destination), &terms, &context);
            Other { subscriber, terms }
        });
        let now = context.clock.now();
        let rate = record.rate.and_then(NonZeroU32::new).map(|rate| Rate::new(rate, None));
        let bucket = rate.map(|rate| TokenBucket::new(rate, now));
        let state = State { record, changed: false, bucket, hold: None, patient: true };
        let (cancelled, ended) = (CancellationToken::new(), CancellationToken::new());
        if state.record.state != RedriveState::Running {
            ended.cancel();
        }
        Arc::new(Self { context, redrives, supervisor, cancelled, ended, other, state: Mutex::new(state) })
    }

    pub(super) fn redrive(&self) -> RedriveId {
        self.state.lock().record.redrive()
    }

    pub(super) fn kept_name(&self) -> String {
        self.state.lock().record.kept_name()
    }

    pub(super) fn status(&self) -> RedriveStatus {
        let state = self.state.lock();
        RedriveStatus::of(&state.record, state.hold.as_ref().map(|hold| hold.why.clone()))
    }

    /// Ends it, and waits until what is under way has ended.
    pub(super) async fn cancel(&self) {
        self.cancelled.cancel();
        self.ended.cancelled().await;
    }

    /// Counts anew what an earlier process did: the store knows more than what it wrote down last.
    pub(super) async fn take_up(&self) {
        let record = self.state.lock().record.clone();
        if record.state != RedriveState::Running {
            return;
        }
        let (mut open, mut failed) = (0, 0);
        for part in &record.parts {
            let Some(broker) = self.supervisor.broker(&part.broker) else { return };
            let store = broker.log().dead_letters();
            open += open_ids(&*store, part, &self.selection(), None, usize::MAX).await.len() as u64;
            failed += store.count_failed(record.redrive());
        }
        let mut state = self.state.lock();
        state.record.failed = failed.max(record.failed).min(record.selected);
        let settled = record.selected.saturating_sub(open + state.record.failed);
        state.record.sent = settled.max(record.sent);
        tracing::info!(
            redrive = redrive_name(record.redrive()),
            left = open,
            sent = state.record.sent,
            failed = state.record.failed,
            "a redrive of the process before goes on"
        );
    }

    pub(super) async fn run(self: Arc<Self>) {
        let end = tokio::select! {
            biased;
            end = self.drive() => end,
            () = self.keep_now_and_then() => End::Stopped,
        };
        self.end(end).await;
        self.ended.cancel();
    }

    /// Never ends.
    async fn keep_now_and_then(&self) {
        loop {
            sleep(KEEP_EVERY).await;
            self.keep(Vec::new()).await;
        }
    }

    /// Writes down how far it has come, and takes others out of what is kept.
    async fn keep(&self, forgotten: Vec<String>) {
        let (name, record) = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.changed) && forgotten.is_empty() {
                return;
            }
            (state.record.kept_name(), state.record.encode())
        };
        let mut changes = vec![(name, Some(record))];
        changes.extend(forgotten.into_iter().map(|name| (name, None)));
        if let Err(error) = self.context.logs.keep(changes).await {
            self.state.lock().changed = true;
            tracing::warn!(
                redrive = redrive_name(self.redrive()), code = error.code().id(), %error,
                "how far a redrive has come cannot be written down now; the store of dead letters knows it too"
            );
        }
    }

    async fn end(&self, end: End) {
        let now = self.context.clock.now();
        {
            let mut state = self.state.lock();
            let record = &mut state.record;
            match end {
                End::Stopped => {}
                End::Cancelled => (record.state, record.ended_at) = (RedriveState::Cancelled, Some(now.0)),
                End::Done => {
                    (record.state, record.ended_at) = (RedriveState::Done, Some(now.0));
                    record.gone = record.selected.saturating_sub(record.sent + record.failed);
                }
            }
            state.changed = true;
            state.hold = None;
        }
        let status = self.status();
        let RedriveStatus { id, sent, failed, gone, left, .. } = status;
        match end {
            End::Stopped => {
                tracing::info!(redrive = id, sent, failed, left, "a redrive goes on after the restart");
            }
            _ if failed > 0 => {
                tracing::info!(
                    redrive = id,
                    sent,
                    failed,
                    gone,
                    left,
                    "a redrive has ended; what failed again stays"
                );
            }
            _ => tracing::info!(redrive = id, sent, failed, gone, left, "a redrive has ended"),
        }
        let redrives = self.redrives.upgrade();
        self.keep(redrives.map_or_else(Vec::new, |redrives| redrives.forget_ended())).await;
    }

    /// What is open to this redrive.
    fn selection(&self) -> LetterSelection {
        let state = self.state.lock();
        LetterSelection { open_to: Some(state.record.redrive()), ..state.record.query.selection() }
    }

    async fn drive(self: &Arc<Self>) -> End {
        let mut workers = JoinSet::new();
        let end = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => End::Cancelled,
            () = self.context.dispatch.stop().cancelled() => End::Stopped,
            () = self.send_all(&mut workers) => End::Done,
        };
        // What is under way ends by itself, or is cut at the end of the shutdown.
        while workers.join_next().await.is_some() {}
        end
    }

    /// Goes over what is open until nothing is. Dropped, it leaves those that it has started in `workers`.
    async fn send_all(self: &Arc<Self>, workers: &mut JoinSet<()>) {
        let parts = self.state.lock().record.parts.clone();
        loop {
            let mut left = false;
            for part in &parts {
                left |= self.send_part(part, workers).await;
            }
            while workers.join_next().await.is_some() {}
            if !left && !self.is_open(&parts).await {
                return;
            }
            sleep(PASS_PAUSE).await;
        }
    }

    /// Whether anything is left to do.
    async fn is_open(&self, parts: &[Part]) -> bool {
        for part in parts {
            let Some(broker) = self.supervisor.broker(&part.broker) else { continue };
            let store = broker.log().dead_letters();
            if !open_ids(&*store, part, &self.selection(), None, 1).await.is_empty() {
                return true;
            }
        }
        false
    }

    /// Starts sending what is open in one log, in order. True where the log is not there now.
    async fn send_part(self: &Arc<Self>, part: &Part, workers: &mut JoinSet<()>) -> bool {
        let Some(broker) = self.supervisor.broker(&part.broker) else {
            // A broker that is forgotten takes its dead letters along; one whose log cannot be opened may come back.
            let directory = &self.context.directory;
            let unopened = directory.unopened(&part.broker.namespace, &part.broker.name);
            return unopened.is_some_and(|unopened| {
                self.hold(format!("the broker {} does not run: {unopened}", part.broker));
                true
            });
        };
        let store = broker.log().dead_letters();
        let mut after = None;
        loop {
            let page = open_ids(&*store, part, &self.selection(), after, PAGE).await;
            let Some(last) = page.last() else { return false };
            after = Some(*last);
            for id in page {
                self.turn(workers).await;
                // Someone else is sending it: the next pass sees what came of that.
                let Some(claim) = store.claims().take(id) else { continue };
                workers.spawn(Arc::clone(self).send_one(Arc::clone(&broker), claim));
            }
        }
    }

    /// Waits until one more may be sent: for the hold to end, for one of those under way, and for the rate.
    async fn turn(&self, workers: &mut JoinSet<()>) {
        while workers.try_join_next().is_some() {}
        if workers.len() >= AT_ONCE {
            workers.join_next().await;
        }
        let clock = &self.context.clock;
        loop {
            let now = clock.now();
            let until = {
                let mut state = self.state.lock();
                match &state.hold {
                    Some(hold) if hold.until > now => hold.until,
                    _ => match state.bucket.as_mut().map_or(Ok(()), |bucket| bucket.take(now)) {
                        Ok(()) => return,
                        Err(next) => next,
                    },
                }
            };
            sleep(until.since(now)).await;
        }
    }

    /// Sends nothing for a while, each time for twice as long.
    fn hold(&self, why: String) {
        let now = self.context.clock.now();
        let mut state = self.state.lock();
        let pause = match &state.hold {
            Some(hold) if hold.until > now => return,
            Some(hold) => hold.pause.saturating_mul(2).min(LAST_HOLD),
            None => FIRST_HOLD,
        };
        state.hold = Some(Hold { why, until: now.after(pause), pause });
    }

    async fn send_one(self: Arc<Self>, broker: Arc<Broker>, claim: LetterClaim) {
        let store = broker.log().dead_letters();
        let Some(letter) = store.get(claim.id()).await else { return };
        let open = letter.redriven < Some(self.redrive());
        let entry = match &letter.record {
            LetterRecord::Readable(entry) if open => Arc::clone(entry),
            LetterRecord::Unreadable(error) if open => return self.hold(error.to_string()),
            _ => return,
        };
        let context = &self.context;
        let fate = tokio::select! {
            biased;
            fate = self.send_until_known(&broker, &letter, &entry) => fate,
            () = context.cut.cancelled() => return,
        };
        match fate {
            Fate::Sent => {
                context.metrics.dead_letter_redriven();
                if self.written(|| store.remove(letter.id)).await {
                    self.note(|state| {
                        (state.hold, state.patient) = (None, true);
                        state.record.sent += 1;
                    });
                }
            }
            Fate::Failed(failure) => {
                context.metrics.redrive_failed();
                if self.written(|| store.failed_again(letter.id, &failure)).await {
                    self.note(|state| {
                        state.hold = None;
                        state.record.failed += 1;
                    });
                }
            }
            Fate::Later => {}
        }
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.changed = true;
    }

    /// Writes down what became of a letter, again and again while the log has no room for that. False where the letter was
    /// gone, or the log takes nothing more: then it is sent again after a restart.
    async fn written(&self, write: impl Fn() -> Result<bool, WriteError>) -> bool {
        let context = &self.context;
        loop {
            match write() {
                Ok(was_there) => return was_there,
                Err(error) if matches!(error, WriteError::Closed) || context.logs.have_failed() => {
                    self.hold(error.to_string());
                    return false;
                }
                Err(error) => {
                    self.hold(error.to_string());
                    tokio::select! {
                        () = sleep(WRITE_RETRY) => {}
                        () = context.cut.cancelled() => return false,
                    }
                }
            }
        }
    }

    /// Attempts one letter until it is taken, or its retries are used up.
    async fn send_until_known(&self, broker: &Arc<Broker>, letter: &DeadLetter, entry: &Arc<Entry>) -> Fate {
        let clock = &self.context.clock;
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut accepted = letter.accepted;
        loop {
            let Some(way) = self.way(broker, letter).await else { return Fate::Later };
            let started = clock.now();
            let Err(error) = way.send(self, letter, entry, &mut accepted).await else { return Fate::Sent };
            let ended = clock.now();
            let destination = way.destination(self);
            let policy = way.policy();
            drop(way);
            if error.class == Class::Misconfigured || policy.hold_when_down && delivery::says_away(&error) {
                self.hold(error.to_string());
                return Fate::Later;
            }
            let made = u32::try_from(attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
            let number = letter.attempts_made.saturating_add(made);
            attempts.push(Attempt { number, started, ended, outcome: failed(&error) });
            let verdict = delivery::judge(&policy, made, ended, ended, fastrand::f64(), &error);
            match verdict {
                Verdict::Retry { due } if self.state.lock().patient => {
                    tokio::select! {
                        () = sleep(due.since(ended)) => {}
                        () = self.cancelled.cancelled() => return Fate::Later,
                        () = self.context.dispatch.stop().cancelled() => return Fate::Later,
                    }
                }
                _ => {
                    if error.class == Class::Retryable {
                        self.state.lock().patient = false;
                    }
                    let reason = reason(error, destination);
                    return Fate::Failed(FailedAgain {
                        redrive: self.redrive(),
                        reason,
                        attempts,
                        at: ended,
                        accepted,
                    });
                }
            }
        }
    }

    /// The way on which a letter goes, once there is room on it. None where there is none now.
    async fn way(&self, broker: &Arc<Broker>, letter: &DeadLetter) -> Option<Way> {
        let subscription = broker.subscription(&letter.trigger);
        if self.other.is_some() {
            return Some(Way::Other(subscription));
        }
        let Some(subscription) = subscription else {
            self.hold(format!("the trigger {} is not there any more", letter.trigger));
            return None;
        };
        let context = &self.context;
        loop {
            let pause = match subscription.redrive_slot() {
                Ok(slot) => return Some(Way::Own(subscription, slot)),
                Err(NotNow::Busy) => TURN_PAUSE,
                Err(NotNow::Until(until)) => until.since(context.clock.now()),
                Err(NotNow::Halted(why)) => {
                    self.hold(format!("{}: {why}", letter.trigger));
                    return None;
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.cancelled.cancelled() => return None,
                () = context.dispatch.stop().cancelled() => return None,
            }
        }
    }
}

/// The way of one attempt.
enum Way {
    /// As the trigger sends its events.
    Own(Arc<Subscription>, crate::subscription::RedriveSlot),
    /// To the other destination, by the retry policy of the trigger where it is still there.
    Other(Option<Arc<Subscription>>),
}

impl Way {
    async fn send(
        &self,
        job: &Job,
        letter: &DeadLetter,
        entry: &Arc<Entry>,
        accepted: &mut Option<AcceptedOutputs>,
    ) -> Result<(), DeliveryError> {
        let name = redrive_name(job.redrive());
        let mark = Mark { name: MARK, value: &name };
        let other = match self {
            Self::Own(_, slot) => return slot.send(entry, &mark, accepted).await,
            Self::Other(_) => {
                job.other.as_ref().expect("a way to another destination is taken where there is one")
            }
        };
        let event = mark.put_on(&entry.event);
        let cause = Causing {
            broker: &letter.trigger,
            position: letter.position,
            trigger: TriggerNumber(u32::MAX),
            output: 0,
        };
        // What it answers goes nowhere: the trigger that would route it may be gone.
        let sending = Sending { entry, event: &event, cause, want_reply: false };
        let mut lane = Lane::default();
        match other.subscriber.send(&mut lane, &sending, &other.terms, &job.context).await {
            Answer::Delivered { .. } | Answer::Replied { .. } => Ok(()),
            Answer::Failed(error) => Err(error),
        }
    }

    fn destination(&self, job: &Job) -> String {
        match (self, &job.other) {
            (Self::Own(subscription, _), _) => subscription.delivering().subscriber.destination(),
            (Self::Other(_), other) => {
                other.as_ref().map_or_else(String::new, |other| other.subscriber.destination())
            }
        }
    }

    /// The retry policy, without the deadline: that was for the delivery.
    fn policy(&self) -> DeliveryPolicy {
        let own = match self {
            Self::Own(subscription, _) => Some(subscription),
            Self::Other(subscription) => subscription.as_ref(),
        };
        let policy = own.map_or_else(DeliveryPolicy::default, |own| own.delivering().policy.clone());
        DeliveryPolicy { deadline: None, ..policy }
    }
}

fn failed(error: &DeliveryError) -> AttemptOutcome {
    AttemptOutcome::Failed {
        code: error.code,
        status: error.status,
        detail: error.detail.clone(),
        body_excerpt: error.body_excerpt.clone(),
    }
}

fn reason(error: DeliveryError, destination: String) -> DeadLetterReason {
    let DeliveryError { code, detail, status, body_excerpt, .. } = error;
    DeadLetterReason { code, detail, destination, status, body_excerpt }
}
