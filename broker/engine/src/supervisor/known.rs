//! Triggers that a log knows from an earlier process.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use waypost_core::codes;
use waypost_core::delivery::{DeliveryPolicy, Format};
use waypost_core::error::DeliveryError;
use waypost_core::manifest::ResourceName;
use waypost_core::transformation::Chain;

use super::Supervisor;
use crate::broker::Broker;
use crate::plan::{Plan, Replies, StartFrom, TriggerPlan};
use crate::subscriber::{Subscriber, Terms};
use crate::subscription::{Delivering, Subscription};

impl Supervisor {
    /// Gives every trigger that the log knows and nobody runs its subscription: it holds what the trigger is owed, and
    /// what the recorded plans still find for it. Those that go on get theirs with all others.
    pub(super) fn take_up(
        &self,
        plan: &Plan,
        broker: &Arc<Broker>,
        known: &HashSet<ResourceName>,
        recorded: &HashSet<ResourceName>,
        wanted: &BTreeMap<ResourceName, Arc<TriggerPlan>>,
    ) {
        for trigger in known {
            let delivering = match wanted.get(trigger) {
                Some(planned) if recorded.contains(trigger) || planned.start_from == StartFrom::Latest => {
                    continue;
                }
                // It was detached when the earlier process ended, and is to start over.
                Some(planned) => self.delivering(planned, broker),
                None => match plan.detached.triggers.get(trigger) {
                    Some(planned) if planned.broker == *broker.name() => self.delivering(planned, broker),
                    _ => unknown(trigger),
                },
            };
            if broker.subscription(trigger).is_none() {
                let subscription = Subscription::new(
                    trigger.clone(),
                    broker.name().clone(),
                    Arc::clone(broker.log()),
                    Arc::clone(&self.0.context),
                    delivering,
                );
                broker.add_subscription(subscription);
            }
        }
    }
}

/// How a trigger of which nothing but its ledger is known delivers: not at all.
pub(super) fn unknown(trigger: &ResourceName) -> Delivering {
    let policy = DeliveryPolicy::default();
    let error =
        DeliveryError::misconfigured(codes::SUBSCRIBER_NOT_RESOLVED, "no manifest declares the trigger");
    Delivering {
        terms: Terms {
            namespace: trigger.namespace.clone(),
            format: Format::Binary,
            timeout: policy.timeout,
            strict_replies: false,
        },
        policy,
        transformations: Chain::default(),
        subscriber: Subscriber::Unresolved { destination: "unknown".to_owned(), error },
        replies: Replies::Ignored,
        dead_letter_sink: None,
        paused: false,
    }
}
