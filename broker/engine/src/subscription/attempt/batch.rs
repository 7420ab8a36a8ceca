//! One call with several events, for a sink that takes them.

use std::sync::Arc;

use waypost_core::error::DeliveryError;
use waypost_core::sink::{BatchUnity, Outcome};
use waypost_core::transformation::Transformed;
use waypost_core::{Class, Event, codes};
use waypost_log::{AcceptedOutputs, Ledger, Timestamp};

use super::super::window::Item;
use super::super::{Delivering, Subscription};
use super::{InHand, Kept, Sent, transform};
use crate::subscriber::{Causing, Sending, Subscriber};
use crate::tasks::caught;

/// An event of the batch, with what the transformations made of it.
pub(super) struct Part<'s> {
    pub(super) in_hand: InHand<'s>,
    events: Vec<Event>,
    /// How many of them were accepted before.
    accepted: u32,
}

impl Part<'_> {
    /// What is to be sent, each with its number.
    fn to_send(&self) -> impl Iterator<Item = (u32, &Event)> {
        (0..).zip(&self.events).skip(self.accepted as usize)
    }
}

/// What came of a call: each event is in one of these.
#[derive(Default)]
pub(super) struct Called<'s> {
    /// What of each is known.
    pub(super) concluded: Vec<(InHand<'s>, Sent)>,
    /// Those behind the one at which an ordered or atomic batch ended, and those of a call that was cut or not made.
    pub(super) not_tried: Vec<InHand<'s>>,
    /// Those of an atomic batch that was refused: which of them is at fault is not known.
    pub(super) refused: Vec<InHand<'s>>,
}

/// What came of one part.
enum Came {
    Sent(Sent),
    /// It was behind the one at which an ordered or atomic batch ended.
    NotTried,
}

impl Subscription {
    /// Attempts several events in one call, and writes down what became of each. What a shutdown cuts goes back into the
    /// window as if nothing had been tried.
    pub(in crate::subscription) async fn attempt_batch(&self, kept: &mut Kept, items: Vec<Item>) {
        let delivering = self.delivering();
        let Subscriber::Sink(_) = &delivering.subscriber else {
            // The trigger was changed since they were taken.
            for item in items {
                self.attempt(kept, item).await;
            }
            return;
        };
        let unity = delivering.subscriber.batching(&self.context).map(|batching| batching.unity);
        // Of a sink that has not started it is not known, and nothing is lost if it is taken to be so.
        let unity = unity.unwrap_or(BatchUnity::Atomic);
        let in_hands = items.into_iter().map(|item| InHand::new(self, item)).collect();
        if unity == BatchUnity::Atomic {
            return self.attempt_atomic(kept, &delivering, in_hands).await;
        }
        self.let_go_of_bounds(&in_hands);
        let started = self.context.clock.now();
        let suspected =
            |in_hand: &InHand<'_>| self.ledger_of(in_hand).crashes(in_hand.entry().position.offset) > 0;
        let (suspects, in_hands): (Vec<_>, Vec<_>) = in_hands.into_iter().partition(suspected);
        let in_hands = in_hands.into_iter().filter_map(|in_hand| {
            let ledger = self.ledger_of(&in_hand);
            let in_hand = self.to_be_attempted(in_hand, ledger, &delivering, started)?;
            ledger.started(in_hand.entry().position.offset);
            Some(in_hand)
        });
        let parts = self.prepare(&delivering, in_hands.collect(), started);
        if !parts.is_empty() {
            let called = self.call(&delivering, parts, unity, started).await;
            self.put_back(called.not_tried);
            for (in_hand, sent) in called.concluded {
                let ledger = self.ledger_of(&in_hand);
                self.conclude(in_hand, ledger, &delivering, sent, started);
            }
        }
        for in_hand in suspects {
            self.attempt_in_hand(kept, in_hand).await;
        }
    }

    /// Applies the transformations, and writes down what is settled by that.
    pub(super) fn prepare<'s>(
        &'s self,
        delivering: &Arc<Delivering>,
        in_hands: Vec<InHand<'s>>,
        started: Timestamp,
    ) -> Vec<Part<'s>> {
        let mut parts = Vec::with_capacity(in_hands.len());
        for in_hand in in_hands {
            let ledger = self.ledger_of(&in_hand);
            let offset = in_hand.entry().position.offset;
            let transformed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                transform(delivering, in_hand.entry())
            }));
            match transformed {
                Ok(Ok(Transformed::Events(events))) => {
                    let chain = delivering.transformations.digest();
                    let noted = if events.len() > 1 { ledger.accepted(offset) } else { None };
                    let accepted = noted.map_or(0, |outputs| outputs.by(chain));
                    parts.push(Part { in_hand, events, accepted });
                }
                Ok(Ok(Transformed::Nothing(why))) => {
                    self.conclude(in_hand, ledger, delivering, Sent::Nothing(why), started);
                }
                Ok(Err(error)) => self.conclude(in_hand, ledger, delivering, Sent::Failed(error), started),
                Err(_) => self.conclude(in_hand, ledger, delivering, Sent::Failed(panicked()), started),
            }
        }
        parts
    }

    pub(super) fn ledger_of(&self, in_hand: &InHand<'_>) -> &Ledger {
        &self.ledgers[usize::from(in_hand.entry().position.partition)]
    }

    /// Sends the parts in one call. Those of an atomic one are in the ledger, on the disk, before that.
    pub(super) async fn call<'s>(
        &'s self,
        delivering: &Arc<Delivering>,
        parts: Vec<Part<'s>>,
        unity: BatchUnity,
        started: Timestamp,
    ) -> Called<'s> {
        let not_made = |parts: Vec<Part<'s>>| Called {
            not_tried: parts.into_iter().map(|part| part.in_hand).collect(),
            ..Called::default()
        };
        if (unity == BatchUnity::Atomic || started < self.careful_until)
            && let Err(error) = self.log.secure().await
        {
            self.not_written(&error);
            return not_made(parts);
        }
        let events: Vec<Event> =
            parts.iter().flat_map(Part::to_send).map(|(_, event)| event.clone()).collect();
        let sending = delivering.subscriber.send_batch(&events, &delivering.terms, &self.context);
        let outcomes = tokio::select! {
            biased;
            sent = caught(sending) => sent,
            () = self.context.cut.cancelled() => return not_made(parts),
        };
        let outcomes = outcomes.unwrap_or_else(|| vec![Outcome::Failed(panicked()); events.len()]);
        let refused =
            |outcome: &Outcome| matches!(outcome, Outcome::Failed(error) if error.class == Class::Permanent);
        let one_is_at_fault = unity == BatchUnity::Atomic && parts.len() > 1 && outcomes.iter().any(refused);
        let mut outcomes = outcomes.into_iter();
        let mut failed = false;
        let mut called = Called::default();
        for part in parts {
            let came = self.came_of(delivering, &part, &mut outcomes, unity, failed).await;
            match came {
                // A sink may have made several batches of it, of which others were taken.
                Came::Sent(Sent::Failed(_)) if one_is_at_fault => called.refused.push(part.in_hand),
                Came::Sent(sent) => {
                    failed |= matches!(sent, Sent::Failed(_));
                    called.concluded.push((part.in_hand, sent));
                }
                Came::NotTried => {
                    self.ledger_of(&part.in_hand).cut(part.in_hand.entry().position.offset);
                    called.not_tried.push(part.in_hand);
                }
            }
        }
        self.signal_for_all(delivering, called.concluded.iter().map(|(_, sent)| sent));
        called
    }

    /// What came of a part: its first failure, if one of its events has one.
    async fn came_of(
        &self,
        delivering: &Delivering,
        part: &Part<'_>,
        outcomes: &mut impl Iterator<Item = Outcome>,
        unity: BatchUnity,
        failed_before: bool,
    ) -> Came {
        let mut failure = None;
        let mut accepted = part.accepted;
        for (output, event) in part.to_send() {
            let error = match outcomes.next() {
                Some(Outcome::Delivered) => {
                    accepted += u32::from(failure.is_none());
                    continue;
                }
                Some(Outcome::Replied(events)) => {
                    let entry = part.in_hand.entry();
                    let position = entry.position;
                    let cause = Causing { broker: &self.broker, position, trigger: self.number, output };
                    let sending = Sending { entry, event, cause, want_reply: true };
                    match self.append_replies(&events, &sending, delivering).await {
                        Ok(()) => {
                            accepted += u32::from(failure.is_none());
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Some(Outcome::Failed(error)) => error,
                None if unity != BatchUnity::Independent && failed_before => return Came::NotTried,
                None => DeliveryError::retryable(
                    codes::SINK_UNAVAILABLE,
                    "the sink gave no outcome for the event",
                ),
            };
            failure.get_or_insert(error);
        }
        if failure.is_some() && part.events.len() > 1 {
            let chain = delivering.transformations.digest();
            let outputs = AcceptedOutputs { chain, outputs: accepted };
            self.ledger_of(&part.in_hand).accept(part.in_hand.entry().position.offset, outputs);
        }
        Came::Sent(failure.map_or(Sent::Delivered { status: None }, Sent::Failed))
    }

    /// Lets go of items so that they stand in the window in the order in which they were taken.
    pub(super) fn put_back(&self, mut items: Vec<InHand<'_>>) {
        while items.pop().is_some() {}
        self.kick(&mut self.lock());
    }
}

fn panicked() -> DeliveryError {
    DeliveryError::retryable(
        codes::ATTEMPT_PANICKED,
        "the attempt panicked; please report this with the lines of the log before it",
    )
}
