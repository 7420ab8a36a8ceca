//! One attempt at a dead letter, beside the trigger's own deliveries and within the same limits.

use std::sync::Arc;

use waypost_core::error::DeliveryError;
use waypost_core::transformation::{Discard, Transformed};
use waypost_core::{Class, codes};
use waypost_log::{AcceptedOutputs, Entry, Timestamp};

use super::super::Subscription;
use super::{Sent, transform};
use crate::congestion::Signal;
use crate::subscriber::Lane;
use crate::tasks::caught;

/// Why no attempt may be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotNow {
    /// As many attempts are under way as may be: live events go first.
    Busy,
    /// The trigger's rate allows the next one at this time.
    Until(Timestamp),
    /// The trigger makes no attempts, and this is why.
    Halted(String),
}

/// The right to make one attempt: it counts among the trigger's workers until it is dropped.
#[derive(Debug)]
pub(crate) struct RedriveSlot(Arc<Subscription>);

impl Drop for RedriveSlot {
    fn drop(&mut self) {
        let mut window = self.0.lock();
        window.workers -= 1;
        self.0.kick(&mut window);
    }
}

impl Subscription {
    /// Takes the right to make one attempt at a dead letter, where the trigger's limits have room for it: `maxInFlight`
    /// and the congestion window, its rate, and what halts it.
    pub(crate) fn redrive_slot(self: &Arc<Self>) -> Result<RedriveSlot, NotNow> {
        let mut window = self.lock();
        if window.halt.any() {
            let halt = &window.halt;
            let why = match &halt.misconfigured {
                _ if halt.paused => "the trigger is paused".to_owned(),
                _ if halt.detached => "no manifest declares the trigger".to_owned(),
                _ if halt.stopping => "the trigger has stopped: see `waypost status`".to_owned(),
                Some(misconfigured) => misconfigured.error.to_string(),
                None => "the trigger waits for its log".to_owned(),
            };
            return Err(NotNow::Halted(why));
        }
        if window.workers >= window.congestion.limit() {
            return Err(NotNow::Busy);
        }
        window.pace.take(&self.context.clock).map_err(NotNow::Until)?;
        window.workers += 1;
        drop(window);
        Ok(RedriveSlot(Arc::clone(self)))
    }
}

impl RedriveSlot {
    /// Sends the event of a dead letter as the trigger sends its events, each output of the transformations with a mark;
    /// of several only those that were not `accepted`, which tells afterwards what the subscriber has.
    /// A panic is a failed attempt. Not cancel-safe: a dropped attempt may have been received.
    pub(crate) async fn send(
        &self,
        entry: &Arc<Entry>,
        mark: &Mark<'_>,
        accepted: &mut Option<AcceptedOutputs>,
    ) -> Result<(), DeliveryError> {
        let subscription = &self.0;
        let sent = caught(subscription.redeliver(entry, mark, accepted)).await.unwrap_or_else(|| {
            Sent::Failed(DeliveryError::retryable(
                codes::ATTEMPT_PANICKED,
                "the attempt panicked; please report this with the lines of the log before it",
            ))
        });
        match sent {
            Sent::Delivered { .. } => {
                subscription.signal(Signal::Answered, None);
                Ok(())
            }
            Sent::Nothing(_) => Ok(()),
            Sent::Failed(error) => {
                if error.class != Class::Misconfigured {
                    let signal = if error.congested { Signal::Congested } else { Signal::Answered };
                    subscription.lock().congestion.on(signal);
                }
                subscription.context.metrics.failed(error.class, error.code);
                Err(error)
            }
        }
    }
}

/// An extension attribute that says who sent an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub(crate) name: &'static str,
    pub(crate) value: &'a str,
}

impl Mark<'_> {
    /// The event with the mark. One that would break a limit of events goes without: the event itself matters more.
    pub(crate) fn put_on(&self, event: &waypost_core::Event) -> waypost_core::Event {
        event.with_attribute(self.name, self.value).unwrap_or_else(|_| event.clone())
    }
}

impl Subscription {
    async fn redeliver(
        &self,
        entry: &Arc<Entry>,
        mark: &Mark<'_>,
        accepted: &mut Option<AcceptedOutputs>,
    ) -> Sent {
        let delivering = self.delivering();
        let events = match transform(&delivering, entry) {
            Ok(Transformed::Events(events)) => events,
            Ok(Transformed::Nothing(why)) => return Sent::Nothing(why),
            Err(error) => return Sent::Failed(error),
        };
        let mut lane = Lane::default();
        let chain = delivering.transformations.digest();
        let before = if events.len() > 1 { accepted.map_or(0, |outputs| outputs.by(chain)) } else { 0 };
        let mut sent = Sent::Nothing(Discard::Filtered);
        for (output, event) in (0..).zip(&events).skip(before as usize) {
            sent = self.send_one(&delivering, &mut lane, entry, &mark.put_on(event), output).await;
            if let Sent::Failed(_) = sent {
                return sent;
            }
            if events.len() > 1 {
                *accepted = Some(AcceptedOutputs { chain, outputs: output + 1 });
            }
        }
        sent
    }
}
