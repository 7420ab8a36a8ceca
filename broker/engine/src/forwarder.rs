//! Sends a trigger's dead letters on to its dead-letter sink.
//!
//! The store keeps every dead letter until the sink has it. One that the sink does not take is tried again by the
//! trigger's own retry policy; when that is used up it stays in the store for an operator.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use waypost_core::codes;
use waypost_core::delivery::DeliveryPolicy;
use waypost_core::error::DeliveryError;
use waypost_core::manifest::ResourceName;
use waypost_log::{
    DeadLetter, DeadLetters, Entry, Forwarding, LetterClaim, LetterRecord, Metadata, ReadError, Record,
    Timestamp, TriggerNumber, WriteError,
};

use crate::alarm::{Alarms, Wake};
use crate::context::Context;
use crate::dead_letter::dead_letter_event;
use crate::delivery::{self, Verdict};
use crate::subscriber::{Answer, Causing, Lane, OUTPUTS_APART, Sending, Subscriber, Terms};
use crate::subscription::{Delivering, READ_RETRY, WRITE_RETRY};
use crate::tasks::caught;

/// The most dead letters of one trigger that are sent at one time.
const FORWARDS_AT_ONCE: usize = 4;

/// Sends a trigger's dead letters on to its dead-letter sink.
pub(crate) struct Forwarder {
    trigger: ResourceName,
    broker: ResourceName,
    number: TriggerNumber,
    store: Arc<dyn DeadLetters>,
    context: Arc<Context>,
    destination: ArcSwapOption<Destination>,
    state: Mutex<State>,
    me: Weak<Self>,
}

#[derive(Debug)]
struct Destination {
    subscriber: Arc<Subscriber>,
    policy: DeliveryPolicy,
    terms: Terms,
}

#[derive(Debug, Default)]
struct State {
    halted: bool,
    /// Until when nothing is forwarded, because the log could not read a dead letter or write down what became of it.
    rests_until: Option<Timestamp>,
    workers: usize,
    /// Dead letters that are being sent.
    under_way: usize,
    alarms: Alarms,
}

impl Forwarder {
    pub(crate) fn new(
        trigger: ResourceName,
        broker: ResourceName,
        number: TriggerNumber,
        store: Arc<dyn DeadLetters>,
        context: Arc<Context>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            trigger,
            broker,
            number,
            store,
            context,
            destination: ArcSwapOption::empty(),
            state: Mutex::new(State { halted: true, ..State::default() }),
            me: me.clone(),
        })
    }

    /// Takes over where a version of the trigger sends its dead letters.
    pub(crate) fn set_destination(&self, delivering: &Delivering) {
        let destination = delivering.dead_letter_sink.as_ref().map(|subscriber| {
            Arc::new(Destination {
                subscriber: Arc::clone(subscriber),
                policy: delivering.policy.clone(),
                terms: delivering.terms.clone(),
            })
        });
        self.destination.store(destination);
        self.kick();
    }

    /// Forwards nothing until [`Forwarder::resume`].
    pub(crate) fn halt(&self) {
        self.state.lock().halted = true;
    }

    pub(crate) fn resume(&self) {
        self.state.lock().halted = false;
        self.kick();
    }

    /// Starts a worker where something may be due and room for one more is.
    pub(crate) fn kick(&self) {
        let Some(me) = self.me.upgrade() else { return };
        if self.destination.load().is_none() {
            return;
        }
        let mut state = self.state.lock();
        if state.halted || state.workers >= FORWARDS_AT_ONCE {
            return;
        }
        state.workers += 1;
        drop(state);
        self.context.dispatch.spawn("dead-letter forwarders", me.work());
    }

    async fn work(self: Arc<Self>) {
        let mut worker = Worker { forwarder: &self, ended: false };
        while let Some(under_way) = self.next() {
            let Some(destination) = self.destination.load_full() else { continue };
            // Taken out of the store meanwhile: an operator was faster.
            let Some(letter) = self.store.get(under_way.claim.id()).await else { continue };
            tokio::select! {
                biased;
                forwarded = caught(self.forward(&letter, &destination)) => if forwarded.is_none() {
                    self.note_failure(&letter, &destination, &DeliveryError::retryable(
                        codes::ATTEMPT_PANICKED,
                        "the attempt panicked; please report this with the lines of the log before it",
                    ));
                },
                () = self.context.cut.cancelled() => {}
            }
        }
        worker.ended = true;
        self.set_alarm();
    }

    /// The longest due dead letter that nobody forwards yet. When there is none, the worker is no longer counted:
    /// decided under the lock under which workers are started, so that no wake-up is lost.
    fn next(&self) -> Option<UnderWay<'_>> {
        let now = self.context.clock.now();
        let mut state = self.state.lock();
        if state.rests_until.is_some_and(|until| until <= now) {
            state.rests_until = None;
        }
        let stopped = state.halted
            || state.rests_until.is_some()
            || self.context.cut.is_cancelled()
            || self.destination.load().is_none();
        let claim = if stopped { None } else { self.claim_due(now) };
        let Some(claim) = claim else {
            state.workers -= 1;
            return None;
        };
        state.under_way += 1;
        drop(state);
        self.kick();
        Some(UnderWay { forwarder: self, claim })
    }

    /// The right to send what is due the longest and nobody sends, be it another worker or a redrive.
    fn claim_due(&self, now: Timestamp) -> Option<LetterClaim> {
        loop {
            let due = *self.store.due(&self.trigger, now, 1).first()?;
            // A redrive may have been faster.
            if let Some(claim) = self.store.claims().take(due) {
                return Some(claim);
            }
        }
    }

    async fn forward(&self, letter: &DeadLetter, destination: &Destination) {
        let original = match &letter.record {
            LetterRecord::Readable(original) => original,
            LetterRecord::Unreadable(error) => return self.rest(letter, error),
            LetterRecord::Lost => {
                let detail = "its record is damaged, so that nothing is left to forward".to_owned();
                let forwarding = Forwarding::GivenUp { attempts: 0, detail };
                return self.written(letter, self.store.set_forwarding(letter.id, forwarding));
            }
        };
        if self.came_back(original, destination) {
            tracing::warn!(
                trigger = %self.trigger, dead_letter = letter.id.0,
                "the dead-letter sink is the trigger's own broker, and what went there failed again; it stays in the store"
            );
            let detail =
                "it had been forwarded to the trigger's own broker, and failed there again".to_owned();
            let forwarding = Forwarding::GivenUp { attempts: 0, detail };
            return self.written(letter, self.store.set_forwarding(letter.id, forwarding));
        }
        let event = dead_letter_event(letter, &original.event);
        let record = Record { metadata: Metadata::clone(&original.metadata), event: event.clone() };
        let entry = Entry::new(original.position, original.arrived, record, None);
        let cause = Causing {
            broker: &self.broker,
            position: letter.position,
            trigger: self.number,
            output: DEAD_LETTER_OUTPUT,
        };
        let sending = Sending { entry: &entry, event: &event, cause, want_reply: false };
        let mut lane = Lane::default();
        let answer =
            destination.subscriber.send(&mut lane, &sending, &destination.terms, &self.context).await;
        match answer {
            // A reply of the dead-letter sink is not wanted, and not routed.
            Answer::Delivered { .. } | Answer::Replied { .. } => {
                self.context.metrics.dead_letter_forwarded();
                self.written(letter, self.store.remove(letter.id));
            }
            Answer::Failed(error) => self.note_failure(letter, destination, &error),
        }
    }

    /// Forwards nothing for a while: the log cannot be read.
    fn rest(&self, letter: &DeadLetter, error: &ReadError) {
        tracing::warn!(
            trigger = %self.trigger, dead_letter = letter.id.0, code = error.code().id(), %error,
            "a dead letter cannot be read now; it is tried again in {READ_RETRY:?}"
        );
        self.state.lock().rests_until = Some(self.context.clock.now().after(READ_RETRY));
    }

    /// Whether the record is a dead letter of this trigger that was forwarded to the trigger's own broker, and would be
    /// again: round and round.
    fn came_back(&self, original: &Entry, destination: &Destination) -> bool {
        let own = matches!(&*destination.subscriber, Subscriber::Broker(name) if *name == self.broker);
        let cause = original.metadata.cause.as_ref();
        own && cause.is_some_and(|cause| {
            cause.broker == self.broker
                && cause.trigger == self.number
                && cause.output / OUTPUTS_APART == DEAD_LETTER_OUTPUT
        })
    }

    fn note_failure(&self, letter: &DeadLetter, destination: &Destination, error: &DeliveryError) {
        let Forwarding::Waiting { attempts, .. } = letter.forwarding else { return };
        let forwarding = self.after_failure(attempts + 1, destination, error);
        self.written(letter, self.store.set_forwarding(letter.id, forwarding));
    }

    fn written(&self, letter: &DeadLetter, outcome: Result<bool, WriteError>) {
        if let Err(error) = outcome {
            if matches!(error, WriteError::Closed) || self.context.logs.have_failed() {
                tracing::error!(
                    trigger = %self.trigger, dead_letter = letter.id.0, code = error.code().id(), %error,
                    "what became of a dead letter cannot be written down; it is forwarded again after a restart"
                );
                self.halt();
            } else {
                tracing::warn!(
                    trigger = %self.trigger, dead_letter = letter.id.0, code = error.code().id(), %error,
                    "what became of a dead letter cannot be written down now; it is forwarded again in {WRITE_RETRY:?}"
                );
                self.state.lock().rests_until = Some(self.context.clock.now().after(WRITE_RETRY));
            }
        }
    }

    fn after_failure(&self, attempts: u32, destination: &Destination, error: &DeliveryError) -> Forwarding {
        let now = self.context.clock.now();
        // The deadline was for the delivery; a dead letter has all the time that its retries take.
        let policy = DeliveryPolicy { deadline: None, ..destination.policy.clone() };
        match delivery::judge(&policy, attempts, now, now, fastrand::f64(), error) {
            Verdict::Retry { due } => Forwarding::Waiting { attempts, due },
            Verdict::Pause => {
                Forwarding::Waiting { attempts: attempts - 1, due: now.after(MISCONFIGURED_PAUSE) }
            }
            Verdict::DeadLetter | Verdict::Drop(_) => {
                tracing::debug!(
                    trigger = %self.trigger, destination = destination.subscriber.destination(), attempts,
                    code = error.code.id(), detail = error.detail,
                    "the dead-letter sink does not take a dead letter; it stays in the store"
                );
                Forwarding::GivenUp { attempts, detail: error.to_string() }
            }
        }
    }

    fn set_alarm(&self) {
        let mut state = self.state.lock();
        if state.halted {
            return;
        }
        let Some(due) = self.store.next_due(&self.trigger) else { return };
        let due = state.rests_until.map_or(due, |until| until.max(due));
        let now = self.context.clock.now();
        if due <= now && state.under_way > 0 {
            // Those that forward what is due look again when they are done.
            return;
        }
        // A redrive sends it; what becomes of that is not told here.
        let due = if due <= now { now.after(CLAIMED_PAUSE) } else { due };
        if state.alarms.needs(due) {
            drop(state);
            self.context.alarm.set(due, self.me.clone());
        }
    }
}

/// The output number under which a dead letter that goes to a broker names its cause: no transformation has as many.
const DEAD_LETTER_OUTPUT: u32 = 65_535;

/// The wait before it is looked again at what someone else is sending.
const CLAIMED_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// The wait before a misconfigured dead-letter sink is tried again.
const MISCONFIGURED_PAUSE: std::time::Duration = std::time::Duration::from_secs(10);

impl Wake for Forwarder {
    fn wake(self: Arc<Self>, due: Timestamp) {
        self.state.lock().alarms.rang(due);
        self.kick();
    }
}

/// Keeps a worker counted until it ends, also when it panics.
struct Worker<'a> {
    forwarder: &'a Forwarder,
    ended: bool,
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.forwarder.state.lock().workers -= 1;
        }
    }
}

/// Marks a dead letter as being forwarded.
struct UnderWay<'a> {
    forwarder: &'a Forwarder,
    claim: LetterClaim,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.forwarder.state.lock().under_way -= 1;
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("trigger", &self.trigger).finish_non_exhaustive()
    }
}
