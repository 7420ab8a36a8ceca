//! Triggers: everything that they refer to is planned by now.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::sync::Arc;

use waypost_core::codes;
use waypost_core::manifest::{
    Problem, Resource, ResourceName, Severity, Spec, TransformationUse, TriggerSpec,
};
use waypost_core::transformation::{Chain, Step, Transformation};

use super::component::{Configured, Type, configure};
use super::delivery::effective;
use super::index::{Family, ResourceKey};
use super::planner::Planner;
use super::resolve::Issue;
use super::{Fingerprint, Replies, TriggerPlan};

impl Planner<'_> {
    pub(super) fn triggers(&mut self) {
        let types = self.transformation_types();
        for at in 0..self.index.declarations.len() {
            if self.index.declarations[at].key.family != Family::Trigger {
                continue;
            }
            if let Some((resource, Spec::Trigger(spec))) = self.sound(at) {
                self.trigger(at, resource, spec, &types);
            }
            if self.index.declarations[at].failed() {
                let key = self.index.declarations[at].key.clone();
                self.keep(&key);
            }
        }
    }

    fn trigger(
        &mut self,
        at: usize,
        resource: &Resource,
        spec: &TriggerSpec,
        types: &[Type<Arc<dyn Transformation>>],
    ) {
        let name = resource.id.resource_name();
        let before = self.plan.problems.len();
        self.refuse_other_broker(at, &name, spec);
        self.tell_of_absent_broker(at, spec);
        let subscriber = self.addressables.resolve(&spec.subscriber, "spec.subscriber", &self.index);
        let own_dead_letter_sink = spec
            .delivery
            .as_ref()
            .and_then(|delivery| delivery.dead_letter_sink.as_ref())
            .map(|sink| self.addressables.resolve(sink, "spec.delivery.deadLetterSink", &self.index))
            .transpose();
        let (transformations, digests) = self.trigger_transformations(at, resource, spec, types);
        let (Ok(subscriber), Ok(own_dead_letter_sink)) = (&subscriber, &own_dead_letter_sink) else {
            let issues = [subscriber.err(), own_dead_letter_sink.err()];
            issues.into_iter().flatten().for_each(|issue| self.fail(at, issue));
            return;
        };
        if self.plan.problems[before..].iter().any(Problem::is_error) {
            return;
        }
        let broker = self.plan.brokers.get(&spec.broker.name);
        let mut planned = TriggerPlan {
            id: resource.id.clone(),
            broker: spec.broker.name.clone(),
            filter: spec.filter.clone(),
            transformations,
            subscriber: subscriber.clone(),
            replies: Replies::Own,
            delivery: effective(
                spec.delivery.as_ref(),
                broker.and_then(|broker| broker.delivery.as_ref()),
                &spec.extras,
            ),
            dead_letter_sink: own_dead_letter_sink
                .clone()
                .or_else(|| broker.and_then(|broker| broker.dead_letter_sink.clone())),
            paused: spec.paused,
            start_from: spec.start_from,
            fingerprint: Fingerprint { matching: String::new(), delivering: String::new() },
        };
        if let Some(capacity) = self.addressables.capacity(&spec.subscriber) {
            planned.delivery.max_in_flight = planned.delivery.max_in_flight.min(capacity);
        }
        planned.fingerprint = fingerprint(&planned, &digests);
        self.plan.triggers.insert(name, Arc::new(planned));
    }

    /// A trigger's position is one in its broker's log, so the broker is fixed (and Knative has it so).
    fn refuse_other_broker(&mut self, at: usize, name: &ResourceName, spec: &TriggerSpec) {
        let Some(earlier) = self.previous.and_then(|previous| previous.triggers.get(name)) else { return };
        if earlier.broker != spec.broker.name {
            let issue = Issue {
                code: codes::FIELD_IMMUTABLE,
                mark: spec.broker.mark,
                path: spec.broker.path.to_owned(),
                message: format!("the broker of a Trigger cannot change: it is {}", earlier.broker),
                help: "restore it, or declare a Trigger of another name".to_owned(),
            };
            self.fail(at, issue);
        }
    }

    /// A trigger may be declared before its broker, so that its absence is no error.
    fn tell_of_absent_broker(&mut self, at: usize, spec: &TriggerSpec) {
        let broker = &spec.broker.name;
        if self.plan.brokers.contains_key(broker) {
            return;
        }
        let declared = self.index.get(&ResourceKey::new(Family::Broker, broker.clone()));
        let (code, message, help) = if self.gone_brokers.contains(broker) {
            let message =
                format!("Broker {broker} is no longer declared, so that the trigger is detached with it");
            (codes::BROKER_DETACHED, message, "declare the Broker again, or remove the trigger".to_owned())
        } else if let Some(declared) = declared {
            let message = format!("Broker {broker} has an error itself and does not run");
            let help = format!("correct it at {}:{}", declared.file.path, declared.resource.mark.line);
            (codes::BROKER_ABSENT, message, help)
        } else {
            let message = format!("no Broker {broker} is declared; the trigger waits for it");
            let names = self.addressables.of(&Family::Broker).expect("brokers are addressable");
            (codes::BROKER_ABSENT, message, self.addressables.nearby("Broker", broker, names))
        };
        let issue = Issue { code, mark: spec.broker.mark, path: spec.broker.path.to_owned(), message, help };
        let problem = self.problem(at, Severity::Warning, issue);
        self.plan.problems.push(problem);
    }

    /// The transformations of a trigger, and the digest of each.
    fn trigger_transformations(
        &mut self,
        at: usize,
        resource: &Resource,
        spec: &TriggerSpec,
        types: &[Type<Arc<dyn Transformation>>],
    ) -> (Chain, Vec<String>) {
        let mut chain = Chain::default();
        let mut digests = Vec::with_capacity(spec.transformations.len());
        for (position, one) in spec.transformations.iter().enumerate() {
            let path = format!("spec.transformations[{position}]");
            match one {
                TransformationUse::Inline { component, on_error } => {
                    let place = self.place(&path, "Transformation", &["name", "onError"], resource);
                    let configured = configure(component, types, place);
                    match configured {
                        Ok(Configured { type_name, config, fingerprint }) => {
                            let name = format!("transformations[{position}] ({type_name})");
                            chain.push(Step { name, transformation: config, on_error: *on_error });
                            digests.push(format!("{fingerprint} {on_error:?}"));
                        }
                        Err(issues) => issues.into_iter().for_each(|issue| self.fail(at, issue)),
                    }
                }
                TransformationUse::Named { name, mark, on_error } => {
                    let full = ResourceName::new(resource.id.namespace.clone(), name.clone());
                    if let Some(planned) = self.plan.transformations.get(&full) {
                        digests.push(format!("{} {on_error:?}", planned.fingerprint));
                        for step in planned.chain.steps() {
                            let on_error = on_error.unwrap_or(step.on_error);
                            chain.push(Step { name: name.clone(), on_error, ..step.clone() });
                        }
                        continue;
                    }
                    let names = self
                        .addressables
                        .of(&Family::Transformation)
                        .expect("transformations are addressable");
                    let declared = self.index.get(&ResourceKey::new(Family::Transformation, full.clone()));
                    let (code, message, help) = match declared {
                        Some(declared) => (
                            codes::REFERENCE_INVALID,
                            format!(
                                "Transformation {full} has an error itself and no earlier version that runs"
                            ),
                            format!("correct it at {}:{}", declared.file.path, declared.resource.mark.line),
                        ),
                        None => (
                            codes::REFERENCE_DANGLING,
                            format!("no Transformation {full} is declared"),
                            self.addressables.nearby("Transformation", &full, names),
                        ),
                    };
                    self.fail(at, Issue { code, mark: *mark, path: format!("{path}.name"), message, help });
                }
            }
        }
        let mut hasher = DefaultHasher::new();
        digests.hash(&mut hasher);
        (chain.with_digest(hasher.finish()), digests)
    }
}

/// What tells two versions of a trigger apart.
pub(super) fn fingerprint(trigger: &TriggerPlan, transformations: &[String]) -> Fingerprint {
    let filter = serde_json::to_string(&trigger.filter).expect("a filter is maps and strings");
    let TriggerPlan { broker, start_from, subscriber, replies, delivery, dead_letter_sink, paused, .. } =
        trigger;
    let mut digest = Digest(DefaultHasher::new());
    write!(
        digest,
        "{subscriber:?} {replies:?} {delivery:?} {dead_letter_sink:?} {paused} {transformations:?}"
    )
    .expect("a digest takes any text");
    Fingerprint {
        matching: format!("{broker} {start_from:?} {filter}"),
        delivering: format!("{:016x}", digest.0.finish()),
    }
}

/// Text that is hashed instead of kept.
struct Digest(DefaultHasher);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
