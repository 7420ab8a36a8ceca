//! One attempt at one event, from the window to its outcome in the ledger.

mod atomic;
mod batch;
mod in_hand;
mod kept;
mod redriven;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use waypost_core::error::DeliveryError;
use waypost_core::transformation::{Discard, Moment, Transformed};
use waypost_core::{Class, Event, codes};
use waypost_log::{
    AcceptedOutputs, AppendError, Attempt, AttemptOutcome, Batch, DeadLetterReason, DropReason, Entry,
    Ledger, Log, Offset, Position, ReadError, Settlement, Timestamp, WriteError,
};

use self::in_hand::InHand;
pub(super) use self::kept::Kept;
pub(crate) use self::redriven::{Mark, NotNow, RedriveSlot};
use super::window::{Item, Misconfigured};
use super::{Delivering, Subscription, WRITE_RETRY};
use crate::congestion::Signal;
use crate::delivery::{self, Verdict};
use crate::plan::Replies;
use crate::subscriber::{Answer, Causing, Lane, Sending, absent, caused_batch};
use crate::tasks::caught;

/// The first wait before a misconfigured subscriber is probed; it doubles.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// The longest wait between two probes.
const LAST_PROBE: Duration = Duration::from_secs(60);

/// How long a reply waits for room in a full log, before the delivery counts as failed.
const REPLY_PATIENCE: Duration = Duration::from_secs(10);

/// The first wait before a reply that the full log refused is offered again; it doubles.
const FIRST_REPLY_WAIT: Duration = Duration::from_millis(50);

/// An event whose attempt was open at so many unclean ends of the process in a row is given up.
const MOST_CRASHES: u32 = 3;

/// For so long after a start that follows an unclean end, each attempt is made known to the disk before it is made: an
/// event that ends the process at once is known by that.
const CAREFUL_FOR: Duration = Duration::from_secs(10);

/// How long after the start an event waits whose attempt was open at one unclean end, or at two: whoever ends the
/// process from outside hits it again only by chance, and the events beside it are delivered before it is tried.
const SUSPECT_WAITS: [Duration; MOST_CRASHES as usize - 1] =
    [Duration::from_millis(500), Duration::from_secs(2)];

/// How long such an event waits for its turn to be attempted alone; without that, those beside the one that ends the
/// process would be given up with it. A subscriber that does not answer holds them up no longer than this.
const ALONE_PATIENCE: Duration = Duration::from_secs(2);

/// Until when attempts are made known to the disk before they are made.
pub(super) fn careful_until(log: &dyn Log, now: Timestamp) -> Timestamp {
    if log.ended_uncleanly() { now.after(CAREFUL_FOR) } else { Timestamp(i64::MIN) }
}

/// What came of sending an event.
enum Sent {
    Delivered {
        status: Option<u16>,
    },
    /// The transformations gave no event.
    Nothing(Discard),
    Failed(DeliveryError),
}

impl Subscription {
    /// Attempts one event and writes down what became of it. A panic is a failed attempt. A shutdown that cuts the
    /// attempt puts the event back into the window as if nothing had been tried.
    pub(super) async fn attempt(&self, kept: &mut Kept, item: Item) {
        self.attempt_in_hand(kept, InHand::new(self, item)).await;
    }

    async fn attempt_in_hand(&self, kept: &mut Kept, in_hand: InHand<'_>) {
        let entry = Arc::clone(in_hand.entry());
        let delivering = self.delivering();
        let ledger = &self.ledgers[usize::from(entry.position.partition)];
        let started = self.context.clock.now();
        let crashes = ledger.crashes(entry.position.offset);
        let Some(in_hand) = self.to_be_attempted(in_hand, ledger, &delivering, started) else { return };
        let alone = if crashes > 0 { self.alone().await } else { None };
        ledger.started(entry.position.offset);
        if (crashes > 0 || started < self.careful_until)
            && let Err(error) = self.log.secure().await
        {
            return self.storage_failed(in_hand, &error);
        }
        let (lane, cut) = kept.for_attempt(&delivering);
        let sent = {
            // Where it stays: to move it costs the copy of some kilobytes.
            let sending = pin!(self.send(&delivering, lane, &entry));
            tokio::select! {
                biased;
                sent = caught(sending) => sent,
                () = cut => return,
            }
        };
        let sent = sent.unwrap_or_else(|| {
            // What the panic left of the connection is not to be used again.
            kept.let_go();
            Sent::Failed(DeliveryError::retryable(
                codes::ATTEMPT_PANICKED,
                "the attempt panicked; please report this with the lines of the log before it",
            ))
        });
        self.signal_for_all(&delivering, std::iter::once(&sent));
        self.conclude(in_hand, ledger, &delivering, sent, started);
        if crashes > 0 {
            // So that an end of the process before the next flush is not held against this one. Where that finds no
            // room now, the next suspect's own commit, without which it is not attempted, takes the outcome along.
            let _ = self.log.secure().await;
        }
        drop(alone);
    }

    /// The item again where it is to be attempted now; else what is to become of it is written down.
    fn to_be_attempted<'s>(
        &self,
        in_hand: InHand<'s>,
        ledger: &Ledger,
        delivering: &Delivering,
        started: Timestamp,
    ) -> Option<InHand<'s>> {
        let entry = Arc::clone(in_hand.entry());
        let expiry = entry.event.attribute("expirytime").map(|value| value.text);
        let dropped = delivery::before_attempt(&delivering.policy, entry.arrived, started, expiry);
        if let Some(reason) = dropped.or(self.is_given_up(entry.position).then_some(DropReason::Operator)) {
            self.lock().pace.put_back();
            self.settled(in_hand, ledger, Settlement::Dropped(reason), None);
            return None;
        }
        let crashes = ledger.crashes(entry.position.offset);
        if crashes >= MOST_CRASHES {
            self.lock().pace.put_back();
            self.give_up_crashed(in_hand, ledger, delivering, crashes);
            return None;
        }
        if let Some(due) = self.put_off_until(crashes).filter(|due| started < *due) {
            self.lock().pace.put_back();
            self.wait_until(in_hand, ledger, due);
            return None;
        }
        Some(in_hand)
    }

    /// Whether a failure says that the subscriber is away, and the trigger is to hold its events meanwhile.
    fn is_away(delivering: &Delivering, error: &DeliveryError) -> bool {
        delivering.policy.hold_when_down && delivery::says_away(error)
    }

    /// Takes note of what one call said about the other side.
    fn signal_for_all<'s>(&self, delivering: &Delivering, sent: impl Iterator<Item = &'s Sent>) {
        let (mut congested, mut failed, mut delivered) = (None, None, false);
        for sent in sent {
            match sent {
                Sent::Failed(error) if error.congested || Self::is_away(delivering, error) => {
                    congested.get_or_insert(error);
                }
                Sent::Failed(error) => {
                    failed.get_or_insert(error);
                }
                Sent::Delivered { .. } => delivered = true,
                Sent::Nothing(_) => {}
            }
        }
        match (congested, failed) {
            (Some(error), _) => self.signal(Signal::Congested, Some(error)),
            (None, Some(error)) => self.signal(Signal::Answered, Some(error)),
            (None, None) if delivered => self.signal(Signal::Answered, None),
            (None, None) => {}
        }
    }

    /// Writes down what became of an attempt, and does what follows from it.
    fn conclude(
        &self,
        in_hand: InHand<'_>,
        ledger: &Ledger,
        delivering: &Delivering,
        sent: Sent,
        started: Timestamp,
    ) {
        let entry = Arc::clone(in_hand.entry());
        let ended = self.context.clock.now();
        let number = ledger.attempts_made(entry.position.offset).saturating_add(1);
        let attempt = |outcome| Attempt { number, started, ended, outcome };
        match &sent {
            Sent::Failed(error)
                if error.class == Class::Misconfigured || Self::is_away(delivering, error) => {}
            Sent::Nothing(_) => {}
            Sent::Delivered { .. } | Sent::Failed(_) => self.mended(),
        }
        match sent {
            Sent::Delivered { status } => {
                self.context.metrics.delivered(ended.since(started));
                let attempt = attempt(AttemptOutcome::Delivered { status });
                self.settled(in_hand, ledger, Settlement::Delivered, Some(attempt));
            }
            Sent::Nothing(why) => self.settled(in_hand, ledger, Settlement::Dropped(drop_reason(why)), None),
            Sent::Failed(error) if Self::is_away(delivering, &error) => {
                self.context.metrics.failed(error.class, error.code);
                self.hold_while_away(in_hand, ledger, delivering, error);
            }
            Sent::Failed(error) => {
                self.context.metrics.failed(error.class, error.code);
                let verdict = delivery::judge(
                    &delivering.policy,
                    number,
                    entry.arrived,
                    ended,
                    fastrand::f64(),
                    &error,
                );
                let attempt = attempt(failed_outcome(&error));
                self.act(in_hand, ledger, delivering, verdict, error, attempt);
            }
        }
    }

    /// Until when an event is put off at whose attempts the process ended so many times.
    fn put_off_until(&self, crashes: u32) -> Option<Timestamp> {
        let wait = *SUSPECT_WAITS.get(crashes.checked_sub(1)? as usize)?;
        Some(self.careful_until.before(CAREFUL_FOR).after(wait))
    }

    /// The right to attempt an event that is suspected to end the process, which one has at a time; none where it
    /// does not come soon.
    async fn alone(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        tokio::time::timeout(ALONE_PATIENCE, self.context.suspects.lock()).await.ok()
    }

    /// Whether an operator has given up what stands at a position.
    fn is_given_up(&self, at: Position) -> bool {
        let sought = self.sought.get(usize::from(at.partition));
        sought.is_some_and(|sought| at.offset < sought.load(Ordering::Relaxed))
    }

    /// Makes nothing of an attempt that says that the subscriber is away, and holds all events until it is back.
    fn hold_while_away(
        &self,
        mut in_hand: InHand<'_>,
        ledger: &Ledger,
        delivering: &Delivering,
        error: DeliveryError,
    ) {
        ledger.cut(in_hand.entry().position.offset);
        // The next probe is another event, where there is one: this one may be what the subscriber cannot answer.
        in_hand.to_the_back = self.lock().halt.probes();
        drop(in_hand);
        let asked = error.retry_after.unwrap_or_default().min(delivering.policy.retry_after_max);
        self.pause_until_mended(error, Some(asked));
    }

    /// Leaves an event to the schedule.
    fn wait_until(&self, in_hand: InHand<'_>, ledger: &Ledger, due: Timestamp) {
        match ledger.wait(in_hand.entry(), due) {
            Ok(()) => {
                let key = in_hand.key();
                in_hand.done();
                if let Some(key) = key {
                    self.close(ledger, key);
                }
                self.wake_at(due);
            }
            Err(error) => self.storage_failed(in_hand, &error),
        }
    }

    /// Does what the delivery state machine decided about a failed attempt.
    fn act(
        &self,
        in_hand: InHand<'_>,
        ledger: &Ledger,
        delivering: &Delivering,
        verdict: Verdict,
        error: DeliveryError,
        attempt: Attempt,
    ) {
        let entry = Arc::clone(in_hand.entry());
        match verdict {
            Verdict::Retry { due } => {
                ledger.attempted(entry.position.offset, attempt);
                self.wait_until(in_hand, ledger, due);
            }
            Verdict::DeadLetter => {
                let reason = dead_letter_reason(error, delivering);
                tracing::debug!(
                    trigger = %self.name, position = %entry.position, code = reason.code.id(), detail = reason.detail,
                    "dead-lettered"
                );
                let forward = delivering.dead_letter_sink.is_some().then(|| self.context.clock.now());
                self.settled(in_hand, ledger, Settlement::DeadLettered(reason, forward), Some(attempt));
                self.forwarder.kick();
            }
            Verdict::Drop(reason) => {
                self.settled(in_hand, ledger, Settlement::Dropped(reason), Some(attempt));
            }
            Verdict::Pause => {
                ledger.cut(entry.position.offset);
                // Back to the window first: the probe takes it from there.
                drop(in_hand);
                self.pause_until_mended(error, None);
            }
        }
    }

    /// Applies the transformations and sends what comes out, in order.
    async fn send(&self, delivering: &Delivering, lane: &mut Lane, entry: &Arc<Entry>) -> Sent {
        if delivering.transformations.is_empty() {
            return self.send_one(delivering, lane, entry, &entry.event, 0).await;
        }
        let events = match transform(delivering, entry) {
            Ok(Transformed::Events(events)) => events,
            Ok(Transformed::Nothing(why)) => return Sent::Nothing(why),
            Err(error) => return Sent::Failed(error),
        };
        let (offset, chain) = (entry.position.offset, delivering.transformations.digest());
        let ledger = &self.ledgers[usize::from(entry.position.partition)];
        let accepted = match events.len() {
            1 => 0,
            _ => ledger.accepted(offset).map_or(0, |outputs| outputs.by(chain)),
        };
        let last = events.len().saturating_sub(1);
        let mut sent = Sent::Delivered { status: None };
        for (output, event) in (0..).zip(&events).skip(accepted as usize) {
            sent = self.send_one(delivering, lane, entry, event, output).await;
            if let Sent::Failed(_) = sent {
                return sent;
            }
            if (output as usize) < last {
                // At once, so that neither an attempt that is cut nor another process sends it again.
                ledger.accept(offset, AcceptedOutputs { chain, outputs: output + 1 });
            }
        }
        sent
    }

    async fn send_one(
        &self,
        delivering: &Delivering,
        lane: &mut Lane,
        entry: &Arc<Entry>,
        event: &Event,
        output: u32,
    ) -> Sent {
        let cause = Causing { broker: &self.broker, position: entry.position, trigger: self.number, output };
        let sending = Sending { entry, event, cause, want_reply: delivering.replies != Replies::Ignored };
        let answer = delivering.subscriber.send(lane, &sending, &delivering.terms, &self.context).await;
        match answer {
            Answer::Delivered { status, body_ignored } => {
                if body_ignored {
                    self.context.metrics.reply_body_ignored();
                }
                Sent::Delivered { status }
            }
            Answer::Replied { status, events } => {
                match self.append_replies(&events, &sending, delivering).await {
                    Ok(()) => Sent::Delivered { status },
                    Err(error) => Sent::Failed(error),
                }
            }
            Answer::Failed(error) => Sent::Failed(error),
        }
    }

    /// Appends the replies of a delivery to the broker that they are for, as one commit. While the log is full the reply waits here,
    /// for the subscriber has done its work; only after a while does the delivery count as failed.
    async fn append_replies(
        &self,
        events: &[Event],
        sending: &Sending<'_>,
        delivering: &Delivering,
    ) -> Result<(), DeliveryError> {
        let other = match &delivering.replies {
            Replies::Own => None,
            Replies::To(name) => Some(
                self.context
                    .directory
                    .broker(&name.namespace, &name.name)
                    .ok_or_else(|| absent("Broker", name))?,
            ),
            Replies::Ignored => return Ok(()),
        };
        let log = other.as_ref().map_or(&self.log, |broker| broker.log());
        let give_up = tokio::time::Instant::now() + REPLY_PATIENCE.min(delivering.terms.timeout / 2);
        let mut pause = FIRST_REPLY_WAIT;
        let mut batch = Batch { from_reserve: true, ..caused_batch(events, sending)? };
        loop {
            let refused = match log.offer(&mut batch) {
                Ok(commit) => {
                    return commit.await.map(|_| self.context.metrics.replied()).map_err(|error| {
                        DeliveryError::retryable(codes::REPLY_NOT_APPENDED, error.to_string())
                    });
                }
                Err(refused @ (AppendError::Full { .. } | AppendError::Busy)) => refused,
                Err(refused) => {
                    return Err(
                        DeliveryError::retryable(codes::REPLY_NOT_APPENDED, refused.to_string()).congested()
                    );
                }
            };
            if tokio::time::Instant::now() + pause > give_up {
                return Err(DeliveryError::retryable(
                    codes::REPLY_NOT_APPENDED,
                    format!("the broker did not take the reply: {refused}"),
                )
                .congested());
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(Duration::from_secs(1));
        }
    }

    fn settled(
        &self,
        in_hand: InHand<'_>,
        ledger: &Ledger,
        settlement: Settlement,
        attempt: Option<Attempt>,
    ) {
        match ledger.settle(in_hand.entry().position.offset, settlement, attempt) {
            Ok(_) => {
                let key = in_hand.key();
                in_hand.done();
                if key.is_some() {
                    self.open(&mut self.lock(), ledger);
                }
            }
            Err(error) => self.storage_failed(in_hand, &error),
        }
    }

    /// An event that the process did not survive, again and again: it becomes a dead letter.
    fn give_up_crashed(&self, in_hand: InHand<'_>, ledger: &Ledger, delivering: &Delivering, crashes: u32) {
        let reason = DeadLetterReason {
            code: codes::DELIVERY_CRASHED,
            detail: format!(
                "crash: the process ended uncleanly {crashes} times in a row while the event was being delivered"
            ),
            destination: delivering.subscriber.destination(),
            status: None,
            body_excerpt: None,
        };
        tracing::error!(
            trigger = %self.name, broker = %self.broker, position = %in_hand.entry().position, code = reason.code.id(),
            "{}; it is dead-lettered", reason.detail
        );
        let forward = delivering.dead_letter_sink.is_some().then(|| self.context.clock.now());
        self.settled(in_hand, ledger, Settlement::DeadLettered(reason, forward), None);
        self.forwarder.kick();
    }

    /// What became of a delivery, or that it is made, cannot be written down: it stays pending. Where the log only has
    /// no room for it now the trigger goes on a little later; where it failed or is closed nothing more is attempted.
    fn storage_failed(&self, in_hand: InHand<'_>, error: &WriteError) {
        self.not_written(error);
        drop(in_hand);
    }

    pub(super) fn not_written(&self, error: &WriteError) {
        if matches!(error, WriteError::Closed) || self.context.logs.have_failed() {
            tracing::error!(
                trigger = %self.name, broker = %self.broker, code = error.code().id(), %error,
                "what became of a delivery cannot be written down; the trigger stops, and goes on after a restart"
            );
            self.stop();
        } else {
            tracing::warn!(
                trigger = %self.name, broker = %self.broker, code = error.code().id(), %error,
                "what became of a delivery cannot be written down now; it is made again in {WRITE_RETRY:?}"
            );
            self.wait_for_log(WRITE_RETRY);
        }
    }

    /// A record that is owed and can never be read again: it becomes a dead letter, so that its debt is settled.
    pub(super) fn give_up_unreadable(&self, ledger: &Ledger, offset: Offset, error: &ReadError) {
        let reason = DeadLetterReason {
            code: error.code(),
            detail: error.to_string(),
            destination: self.delivering().subscriber.destination(),
            status: None,
            body_excerpt: None,
        };
        tracing::error!(
            trigger = %self.name, broker = %self.broker, offset, code = error.code().id(), %error,
            "an event that the trigger is owed cannot be read; it is dead-lettered"
        );
        if let Err(error) = ledger.settle(offset, Settlement::DeadLettered(reason, None), None) {
            // It is owed as before. Where the log goes on, it is read again and given up then.
            self.lock().unread.push_back(Position { partition: ledger.partition(), offset });
            self.not_written(&error);
        } else {
            let mut window = self.lock();
            self.open(&mut window, ledger);
            self.kick(&mut window);
        }
    }

    fn signal(&self, signal: Signal, failure: Option<&DeliveryError>) {
        let mut window = self.lock();
        window.congestion.on(signal);
        if failure.is_some() || window.last_failure.is_some() {
            window.last_failure = failure.cloned();
        }
    }

    /// The subscriber answered: whatever was misconfigured is not any more.
    fn mended(&self) {
        let mut window = self.lock();
        if window.halt.probes() {
            tracing::info!(trigger = %self.name, "the subscriber accepts events again");
            window.halt.misconfigured = None;
        }
    }

    /// Stops attempts until the next probe. The wait doubles from probe to probe. Of a subscriber that is away it is
    /// `away`, where that is longer.
    fn pause_until_mended(&self, error: DeliveryError, away: Option<Duration>) {
        let mut window = self.lock();
        let pause = match &window.halt.misconfigured {
            // Others that were in flight say the same; the wait is set already.
            Some(halted) if halted.until.is_some() => return,
            // The probe failed too.
            Some(halted) => halted.pause.saturating_mul(2).min(LAST_PROBE),
            None => {
                let told = match away {
                    None => "the subscriber is misconfigured; the trigger pauses and looks again by itself",
                    Some(_) => {
                        "the subscriber is away; the trigger holds its events and looks again by itself"
                    }
                };
                tracing::warn!(trigger = %self.name, code = error.code.id(), detail = error.detail, "{told}");
                FIRST_PROBE
            }
        };
        let until = self.context.clock.now().after(pause.max(away.unwrap_or_default()));
        // One probe at a time.
        window.congestion.start_anew();
        window.halt.misconfigured =
            Some(Misconfigured { error, until: Some(until), pause, away: away.is_some() });
        drop(window);
        self.wake_at(until);
    }
}

fn transform(delivering: &Delivering, entry: &Entry) -> Result<Transformed, DeliveryError> {
    let moment = Moment { arrived_nanoseconds: entry.arrived.0 };
    delivering
        .transformations
        .apply(&entry.event, moment)
        .map_err(|error| DeliveryError::permanent(error.error.code, error.to_string()))
}

/// How a drop by the transformations is counted.
fn drop_reason(why: Discard) -> DropReason {
    match why {
        Discard::Filtered => DropReason::Filtered,
        Discard::Schema => DropReason::Schema,
        Discard::Failed => DropReason::Failed,
    }
}

fn failed_outcome(error: &DeliveryError) -> AttemptOutcome {
    AttemptOutcome::Failed {
        code: error.code,
        status: error.status,
        detail: error.detail.clone(),
        body_excerpt: error.body_excerpt.clone(),
    }
}

fn dead_letter_reason(error: DeliveryError, delivering: &Delivering) -> DeadLetterReason {
    DeadLetterReason {
        code: error.code,
        detail: error.detail,
        destination: delivering.subscriber.destination(),
        status: error.status,
        body_excerpt: error.body_excerpt,
    }
}
