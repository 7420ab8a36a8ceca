//! Flows: Knative's Sequence and Parallel, each as hidden brokers and triggers.
//!
//! ```text
//! Sequence s:  sequence:s ─▶ steps[0] ─replies▶ sequence:s:1 ─▶ steps[1] ─replies▶ … ─replies▶ reply
//! Parallel p:  parallel:p ─┬▶ branches[0].filter ─replies▶ parallel:p:0 ─▶ branches[0].subscriber ─replies▶ reply
//!                          └▶ branches[1] …
//! ```
//!
//! So a flow has a log in front of each of its parts, and retries, dead letters, counters and explanations for each as any
//! trigger has. Which brokers there are depends on the number of parts only, so that a filter that comes or goes moves
//! no event. A `reply` that is no broker has an implicit one before it: an answer that is kept is not asked for again.

use waypost_core::delivery::DeliveryPolicy;
use waypost_core::manifest::{DeliverySpec, Destination, ParallelSpec, ResourceName, SequenceSpec, Spec};

use super::delivery::effective;
use super::detach::implicit_prefix;
use super::index::Family;
use super::planner::{ImplicitTrigger, Planner};
use super::resolve::Issue;
use super::{Replies, Subscriber};

/// The broker that takes the events of a Sequence or Parallel.
pub fn entrance(family: &Family, flow: &ResourceName) -> ResourceName {
    let prefix = implicit_prefix(family).unwrap_or_default();
    ResourceName::new(flow.namespace.clone(), format!("{prefix}:{}", flow.name))
}

/// A part of a flow.
fn part(entrance: &ResourceName, name: impl std::fmt::Display) -> ResourceName {
    ResourceName::new(entrance.namespace.clone(), format!("{}:{name}", entrance.name))
}

impl Planner<'_> {
    /// Whether all of these resolve, or the first that does not.
    pub(super) fn all_resolve(&self, destinations: &[(String, &Destination)]) -> Result<(), Issue> {
        let mut resolved =
            destinations.iter().map(|(path, one)| self.addressables.resolve(one, path, &self.index));
        resolved.try_for_each(|one| one.map(drop))
    }

    /// Plans the flows, all of whose references resolve by now.
    pub(super) fn flows(&mut self) {
        for family in [Family::Sequence, Family::Parallel] {
            for at in self.positions(&family) {
                let Some((resource, spec)) = self.sound(at) else { continue };
                let entrance = entrance(&family, &resource.id.resource_name());
                let planned = match spec {
                    Spec::Sequence(spec) => self.sequence(&entrance, spec),
                    Spec::Parallel(spec) => self.parallel(&entrance, spec),
                    _ => Ok(()),
                };
                if let Err(issue) = planned {
                    self.fail(at, issue);
                }
            }
        }
    }

    fn sequence(&mut self, entrance: &ResourceName, spec: &SequenceSpec) -> Result<(), Issue> {
        let broker_of = |index: usize| match index {
            0 => entrance.clone(),
            index => part(entrance, index),
        };
        let last = spec.steps.len().saturating_sub(1);
        for (index, step) in spec.steps.iter().enumerate() {
            let path = format!("spec.steps[{index}]");
            let (policy, dead_letter_sink) = self.part_delivery(step.delivery.as_ref(), &path)?;
            let replies = if index < last {
                Replies::To(broker_of(index + 1))
            } else {
                let reply = spec.reply.as_ref().map(|reply| ("spec.reply", reply));
                self.reply(reply, part(entrance, "reply"), &policy, dead_letter_sink.as_ref())?
            };
            let subscriber = self.addressables.resolve(&step.subscriber, &path, &self.index)?;
            self.implicit_broker(broker_of(index));
            self.implicit_trigger(ImplicitTrigger {
                name: part(entrance, index),
                broker: broker_of(index),
                subscriber,
                replies,
                delivery: policy,
                dead_letter_sink,
            });
        }
        Ok(())
    }

    fn parallel(&mut self, entrance: &ResourceName, spec: &ParallelSpec) -> Result<(), Issue> {
        self.implicit_broker(entrance.clone());
        for (index, branch) in spec.branches.iter().enumerate() {
            let path = format!("spec.branches[{index}]");
            let own = part(entrance, index);
            let (policy, dead_letter_sink) = self.part_delivery(branch.delivery.as_ref(), &path)?;
            let (asked, kept) = match &branch.filter {
                Some(filter) => {
                    let filter = self.addressables.resolve(filter, &format!("{path}.filter"), &self.index)?;
                    (filter, Replies::To(own.clone()))
                }
                None => (Subscriber::Broker(own.clone()), Replies::Ignored),
            };
            // `delivery` is the subscriber's alone, as in Knative; what a filter fails on stays in the built-in store.
            self.implicit_trigger(ImplicitTrigger {
                name: part(&own, "filter"),
                broker: entrance.clone(),
                subscriber: asked,
                replies: kept,
                delivery: effective(None, None, &Default::default()),
                dead_letter_sink: None,
            });
            let own_path = format!("{path}.reply");
            let reply = branch.reply.as_ref().map(|reply| (&*own_path, reply));
            let reply = reply.or(spec.reply.as_ref().map(|reply| ("spec.reply", reply)));
            let replies = self.reply(reply, part(&own, "reply"), &policy, dead_letter_sink.as_ref())?;
            let subscriber =
                self.addressables.resolve(&branch.subscriber, &format!("{path}.subscriber"), &self.index)?;
            self.implicit_broker(own.clone());
            self.implicit_trigger(ImplicitTrigger {
                name: own.clone(),
                broker: own,
                subscriber,
                replies,
                delivery: policy,
                dead_letter_sink,
            });
        }
        Ok(())
    }

    /// The delivery of a part, with every default filled in, and its dead-letter sink.
    fn part_delivery(
        &self,
        delivery: Option<&DeliverySpec>,
        path: &str,
    ) -> Result<(DeliveryPolicy, Option<Subscriber>), Issue> {
        let path = format!("{path}.delivery.deadLetterSink");
        let sink = delivery.and_then(|delivery| delivery.dead_letter_sink.as_ref());
        let sink = sink.map(|sink| self.addressables.resolve(sink, &path, &self.index)).transpose()?;
        Ok((effective(delivery, None, &Default::default()), sink))
    }

    /// What becomes of the answers at the end of a flow. They reach what is no broker by the delivery of the part that
    /// gave them, as in Knative.
    fn reply(
        &mut self,
        reply: Option<(&str, &Destination)>,
        broker: ResourceName,
        policy: &DeliveryPolicy,
        dead_letter_sink: Option<&Subscriber>,
    ) -> Result<Replies, Issue> {
        let Some((path, reply)) = reply else { return Ok(Replies::Ignored) };
        let subscriber = match self.addressables.resolve(reply, path, &self.index)? {
            Subscriber::Broker(name) => return Ok(Replies::To(name)),
            subscriber => subscriber,
        };
        self.implicit_broker(broker.clone());
        self.implicit_trigger(ImplicitTrigger {
            name: broker.clone(),
            broker: broker.clone(),
            subscriber,
            replies: Replies::Ignored,
            delivery: policy.clone(),
            dead_letter_sink: dead_letter_sink.cloned(),
        });
        Ok(Replies::To(broker))
    }
}
