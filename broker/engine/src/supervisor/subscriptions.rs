//! The subscriptions of a broker's triggers: those that go on, and those that are new.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZero;
use std::sync::Arc;

use waypost_core::manifest::ResourceName;
use waypost_log::DropReason;

use super::Supervisor;
use crate::broker::{Broker, Taking};
use crate::plan::{StartFrom, TriggerPlan};
use crate::subscriber::{Subscriber, Terms};
use crate::subscription::{Delivering, Subscription};

/// The least new subscriptions for which another thread is worth its start.
const LEAST_FOR_A_THREAD: usize = 1_000;
/// The most threads that make subscriptions.
const MAX_THREADS: usize = 8;

type Triggers = BTreeMap<ResourceName, Arc<TriggerPlan>>;

/// A wanted trigger, and what there is of it.
struct Row<'p> {
    name: &'p ResourceName,
    planned: &'p TriggerPlan,
    start: Option<StartFrom>,
    /// None until the new ones are made.
    subscription: Option<Arc<Subscription>>,
}

impl Supervisor {
    /// What a broker's wanted triggers take, in their order. Those that go on get what changed in how they deliver; each
    /// that is new to the process gets its subscription.
    pub(super) fn taking(
        &self,
        broker: &Arc<Broker>,
        wanted: &Triggers,
        in_force: &Triggers,
        known: &HashSet<ResourceName>,
        recorded: &HashSet<ResourceName>,
    ) -> Vec<Taking> {
        let mut rows = Vec::with_capacity(wanted.len());
        for (name, planned) in wanted {
            let was = in_force.get(name);
            let goes_on = was.is_some() || recorded.contains(name);
            let (subscription, start) = going_on(broker, name, planned, known, goes_on);
            match &subscription {
                Some(subscription) => {
                    let changed = was
                        .is_none_or(|was| was.fingerprint.delivering != planned.fingerprint.delivering)
                        || subscription.delivering().terms.strict_replies != broker.strict_replies();
                    if changed {
                        subscription.set_delivering(self.delivering(planned, broker));
                        broker.limits_changed();
                    }
                }
                // In order, so that the numbers do not depend on who is made first.
                None => {
                    broker.log().trigger(name);
                }
            }
            rows.push(Row { name, planned, start, subscription });
        }
        self.make_new(broker, &mut rows);
        let taking = rows.into_iter().map(|row| Taking {
            filter: row.planned.filter.clone(),
            subscription: row.subscription.expect("all that were new are made"),
            start: row.start,
        });
        taking.collect()
    }

    /// Makes the subscriptions that are missing, very many on as many threads as there are processors: after a start with
    /// a hundred thousand triggers events wait for it.
    fn make_new(&self, broker: &Arc<Broker>, rows: &mut [Row<'_>]) {
        let mut missing: Vec<_> = rows.iter_mut().filter(|row| row.subscription.is_none()).collect();
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        let threads = (missing.len() / LEAST_FOR_A_THREAD).clamp(1, processors);
        let make = |rows: &mut [&mut Row<'_>]| {
            for row in rows {
                row.subscription = Some(self.new_subscription(broker, row.name, row.planned));
            }
        };
        let each = missing.len().div_ceil(threads);
        let (first, others) = missing.split_at_mut(each);
        std::thread::scope(|scope| {
            for part in others.chunks_mut(each.max(1)) {
                scope.spawn(move || make(part));
            }
            make(first);
        });
        for row in missing {
            if let Some(subscription) = &row.subscription {
                broker.add_subscription(Arc::clone(subscription));
            }
        }
    }

    fn new_subscription(
        &self,
        broker: &Arc<Broker>,
        trigger: &ResourceName,
        planned: &TriggerPlan,
    ) -> Arc<Subscription> {
        Subscription::new(
            trigger.clone(),
            broker.name().clone(),
            Arc::clone(broker.log()),
            Arc::clone(&self.0.context),
            self.delivering(planned, broker),
        )
    }

    pub(super) fn delivering(&self, planned: &TriggerPlan, broker: &Broker) -> Delivering {
        let terms = Terms {
            namespace: planned.id.namespace.clone(),
            format: planned.delivery.format,
            timeout: planned.delivery.timeout,
            strict_replies: broker.strict_replies(),
        };
        let context = &self.0.context;
        Delivering {
            policy: planned.delivery.clone(),
            transformations: planned.transformations.clone(),
            subscriber: Subscriber::resolve(&planned.subscriber, &terms, context),
            replies: planned.replies.clone(),
            dead_letter_sink: planned
                .dead_letter_sink
                .as_ref()
                .map(|sink| Arc::new(Subscriber::resolve(sink, &terms, context))),
            terms,
            paused: planned.paused,
        }
    }
}

/// The trigger's subscription where the process has it, and where it starts if it is new to the broker. One that was
/// detached goes on where it was, unless its manifest now says where to start: then it starts over, with new counters.
fn going_on(
    broker: &Arc<Broker>,
    trigger: &ResourceName,
    planned: &TriggerPlan,
    known: &HashSet<ResourceName>,
    in_force: bool,
) -> (Option<Arc<Subscription>>, Option<StartFrom>) {
    let Some(subscription) = broker.subscription(trigger) else {
        // A durable log knows the triggers of earlier processes: those go on where they were.
        return (None, (!known.contains(trigger)).then_some(planned.start_from));
    };
    if in_force || planned.start_from == StartFrom::Latest || !give_up(broker, trigger) {
        return (Some(subscription), None);
    }
    (None, Some(planned.start_from))
}

/// Drops what a trigger that is gone for good was owed, and forgets it. False where that cannot be written down.
pub(super) fn give_up(broker: &Broker, trigger: &ResourceName) -> bool {
    let Some(subscription) = broker.subscription(trigger) else { return true };
    match subscription.drop_pending(DropReason::Detached) {
        Ok(dropped) => {
            tracing::info!(%trigger, broker = %broker.name(), dropped, "a trigger that was detached is forgotten");
            broker.forget_subscription(trigger);
            true
        }
        Err(error) => {
            tracing::error!(%trigger, code = error.code().id(), %error, "a detached trigger cannot be forgotten");
            false
        }
    }
}
