//! One call with events that a sink takes whole or not at all, as one object say.
//!
//! Its bounds are in the ledger, on the disk, before the call: a sink that names what it writes by the events in it writes
//! the very same again where the call is made again, after a failure or an end of the process. So the bounds hold until all
//! of the batch is settled. What is settled alone meanwhile (an operator drops it, its deadline comes between two
//! attempts) leaves them, and the rest stays together.

use std::collections::HashMap;
use std::sync::Arc;

use waypost_core::sink::BatchUnity;
use waypost_log::{Attempt, AttemptOutcome, BatchBounds, DropReason, Ledger, Offset, Settlement, Timestamp};

use super::super::{Delivering, Subscription};
use super::{InHand, Kept, Sent};

/// How often the process may end uncleanly at a batch in a row until its events go out alone, so that the one that ends it
/// is found.
const MOST_CRASHES_TOGETHER: u32 = 1;

impl Subscription {
    /// Attempts events in one call, in the bounds of an earlier attempt where there was one, and writes down what became
    /// of them: of all that the sink took in one step.
    pub(super) async fn attempt_atomic<'s>(
        &'s self,
        kept: &mut Kept,
        delivering: &Arc<Delivering>,
        mut in_hands: Vec<InHand<'s>>,
    ) {
        let Some(ledger) = in_hands.first().map(|in_hand| self.ledger_of(in_hand)) else { return };
        let started = self.context.clock.now();
        let bounds = bounds_of(ledger, &in_hands);
        if let Some(bounds) = &bounds {
            let places: HashMap<Offset, usize> = bounds.offsets.iter().copied().zip(0..).collect();
            in_hands.sort_by_key(|in_hand| places.get(&offset_of(in_hand)).copied());
        }
        let crashes = in_hands.iter().map(|in_hand| ledger.crashes(offset_of(in_hand))).max().unwrap_or(0);
        if crashes > MOST_CRASHES_TOGETHER {
            return self.attempt_alone(kept, ledger, in_hands).await;
        }
        if let Some(due) = self.put_off_until(crashes).filter(|due| started < *due) {
            for in_hand in in_hands {
                self.lock().pace.put_back();
                self.wait_until(in_hand, ledger, due);
            }
            return;
        }
        let alone = if crashes > 0 { self.alone().await } else { None };
        let again = bounds.is_some_and(|bounds| bounds.open);
        let in_hands = self.to_be_attempted_together(in_hands, ledger, delivering, started, again);
        ledger.start_batch(&in_hands.iter().map(offset_of).collect::<Vec<_>>());
        let parts = self.prepare(delivering, in_hands, started);
        if !parts.is_empty() {
            let called = self.call(delivering, parts, BatchUnity::Atomic, started).await;
            let taken = |(_, sent): &(InHand<'_>, Sent)| matches!(sent, Sent::Delivered { .. });
            let (taken, others): (Vec<_>, Vec<_>) = called.concluded.into_iter().partition(taken);
            self.conclude_together(ledger, taken.into_iter().map(|(in_hand, _)| in_hand).collect(), started);
            for (in_hand, sent) in others {
                self.conclude(in_hand, ledger, delivering, sent, started);
            }
            self.put_back(called.not_tried);
            if crashes > 0 {
                // As of a single event.
                let _ = self.log.secure().await;
            }
            drop(alone);
            if !called.refused.is_empty() {
                self.attempt_alone(kept, ledger, called.refused).await;
            }
        }
        self.review(&mut self.lock(), ledger);
    }

    /// The items that are to be attempted now; what is to become of the others is written down. Where the last attempt at
    /// them was cut, by an end of the process say, the subscriber may have them all: then nothing but an operator takes one
    /// out before it is known.
    fn to_be_attempted_together<'s>(
        &'s self,
        in_hands: Vec<InHand<'s>>,
        ledger: &Ledger,
        delivering: &Delivering,
        started: Timestamp,
        again: bool,
    ) -> Vec<InHand<'s>> {
        let to_be_attempted = |in_hand: InHand<'s>| {
            if !again {
                return self.to_be_attempted(in_hand, ledger, delivering, started);
            }
            if self.is_given_up(in_hand.entry().position) {
                self.settled(in_hand, ledger, Settlement::Dropped(DropReason::Operator), None);
                return None;
            }
            Some(in_hand)
        };
        in_hands.into_iter().filter_map(to_be_attempted).collect()
    }

    /// Attempts events one by one, each from now on a batch of its own: none of them comes to others later.
    async fn attempt_alone(&self, kept: &mut Kept, ledger: &Ledger, in_hands: Vec<InHand<'_>>) {
        ledger.bind_alone(&in_hands.iter().map(offset_of).collect::<Vec<_>>());
        if let Err(error) = self.log.secure().await {
            self.not_written(&error);
            return self.put_back(in_hands);
        }
        for in_hand in in_hands {
            self.attempt_in_hand(kept, in_hand).await;
        }
    }

    /// Writes down that the subscriber has these: of all of them in one step, so that no rest of them goes out again after
    /// an end of the process.
    fn conclude_together(&self, ledger: &Ledger, delivered: Vec<InHand<'_>>, started: Timestamp) {
        if delivered.is_empty() {
            return;
        }
        self.mended();
        let ended = self.context.clock.now();
        let attempt = |in_hand: &InHand<'_>| {
            let offset = offset_of(in_hand);
            let number = ledger.attempts_made(offset).saturating_add(1);
            (offset, Attempt { number, started, ended, outcome: AttemptOutcome::Delivered { status: None } })
        };
        match ledger.delivered(delivered.iter().map(attempt).collect()) {
            Ok(()) => {
                for in_hand in delivered {
                    self.context.metrics.delivered(ended.since(started));
                    in_hand.done();
                }
                self.open(&mut self.lock(), ledger);
            }
            Err(error) => {
                self.not_written(&error);
                self.put_back(delivered);
            }
        }
    }

    /// The sink takes each event for itself: nothing has to go out together.
    pub(super) fn let_go_of_bounds(&self, in_hands: &[InHand<'_>]) {
        for in_hand in in_hands {
            let ledger = self.ledger_of(in_hand);
            if let Some((batch, _)) = ledger.batch_of(offset_of(in_hand)) {
                ledger.unbind(batch);
                self.review(&mut self.lock(), ledger);
            }
        }
    }
}

fn offset_of(in_hand: &InHand<'_>) -> Offset {
    in_hand.entry().position.offset
}

/// The bounds in which the items went out before, if they did.
fn bounds_of(ledger: &Ledger, in_hands: &[InHand<'_>]) -> Option<BatchBounds> {
    let (batch, _) = ledger.batch_of(offset_of(in_hands.first()?))?;
    ledger.bounds(batch)
}
