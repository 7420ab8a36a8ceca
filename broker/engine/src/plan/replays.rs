//! Replays: where each sends to and how, once everything that it may refer to is planned.

use std::sync::Arc;

use waypost_core::codes;
use waypost_core::delivery::DeliveryPolicy;
use waypost_core::filter::Filter;
use waypost_core::manifest::{
    DeliverySpec, Problem, ReplayBound, ReplayDestination, ReplaySpec, Resource, ResourceId, ResourceName,
    Severity, Spec,
};

use super::delivery::overlaid;
use super::index::{Family, Index, ResourceKey};
use super::planner::Planner;
use super::resolve::{Addressables, Issue};
use super::{Plan, Subscriber};

/// A replay, as it is declared.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayPlan {
    /// Its resource.
    pub id: ResourceId,
    /// The broker whose log is read.
    pub broker: ResourceName,
    /// Where the range begins.
    pub from: ReplayBound,
    /// Where the range ends.
    pub to: ReplayBound,
    /// Which events; those of the trigger, or all, where absent.
    pub filter: Option<Filter>,
    /// Where they go.
    pub target: ReplayTarget,
    /// What is different from the delivery of the trigger, or else of the broker.
    pub delivery: Option<DeliverySpec>,
    /// Where dead letters go, instead of where those of the trigger or the broker do.
    pub dead_letter_sink: Option<Subscriber>,
    /// Whether it makes no attempts for now.
    pub paused: bool,
}

/// Where a replay sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplayTarget {
    /// As this trigger does.
    Trigger(ResourceName),
    /// To this subscriber.
    Subscriber(Subscriber),
}

impl ReplayPlan {
    /// What may not change once a replay has started, each with the field that says so.
    pub(crate) fn fixed(&self) -> [(&'static str, String); 5] {
        let filter = self.filter.as_ref();
        let filter =
            filter.map(|filter| serde_json::to_string(filter).expect("a filter is maps and strings"));
        let (field, target) = match &self.target {
            ReplayTarget::Trigger(name) => ("trigger", format!("trigger {name}")),
            ReplayTarget::Subscriber(subscriber) => ("subscriber", format!("{subscriber:?}")),
        };
        [
            ("broker", self.broker.to_string()),
            ("from", self.from.to_string()),
            ("to", self.to.to_string()),
            ("filters", filter.unwrap_or_default()),
            (field, target),
        ]
    }

    /// How it delivers: as the trigger or the broker does, but for the fields that the replay says itself.
    pub(crate) fn policy(&self, base: &DeliveryPolicy) -> DeliveryPolicy {
        let mut policy = match &self.delivery {
            Some(own) => overlaid(base, own),
            None => base.clone(),
        };
        // All events of a replay are old, and all that it will ever be owed comes at once.
        (policy.deadline, policy.max_backlog) = (None, None);
        policy
    }

    /// The subscribers that it names itself.
    pub(super) fn subscribers(&self) -> impl Iterator<Item = &Subscriber> {
        let own = match &self.target {
            ReplayTarget::Subscriber(subscriber) => Some(subscriber),
            ReplayTarget::Trigger(_) => None,
        };
        own.into_iter().chain(&self.dead_letter_sink)
    }
}

/// What was found of a replay: its plan where it has no error, and what is wrong or doubtful.
struct Found {
    planned: Option<ReplayPlan>,
    issues: Vec<(Severity, Issue)>,
}

impl Planner<'_> {
    pub(super) fn replays(&mut self) {
        for at in self.positions(&Family::Replay) {
            if let Some((resource, Spec::Replay(spec))) = self.sound(at) {
                let Found { planned, issues } =
                    find(&resource.id, spec, &self.plan, &self.addressables, &self.index);
                let name = resource.id.resource_name();
                let earlier = self.previous.and_then(|previous| previous.replays.get(&name));
                let changed = planned.as_ref().zip(earlier).and_then(|(now, was)| changed(now, was, spec));
                for (severity, issue) in issues {
                    match severity {
                        Severity::Error => self.fail(at, issue),
                        Severity::Warning => {
                            let problem = self.problem(at, severity, issue);
                            self.plan.problems.push(problem);
                        }
                    }
                }
                match (planned, changed) {
                    (_, Some(issue)) => self.fail(at, issue),
                    (Some(planned), None) => drop(self.plan.replays.insert(name, Arc::new(planned))),
                    (None, None) => {}
                }
            }
            if self.index.declarations[at].failed() {
                let key = self.index.declarations[at].key.clone();
                self.keep(&key);
            }
        }
    }
}

impl Plan {
    /// Plans a replay that no manifest declares, against what is planned here.
    ///
    /// # Errors
    /// Everything that is wrong with it; what a manifest may be ahead of is wrong here as well.
    pub(crate) fn replay(&self, resource: &Resource) -> Result<ReplayPlan, Vec<Problem>> {
        let Some(Spec::Replay(spec)) = &resource.spec else { return Err(resource.problems.clone()) };
        let mut addressables = Addressables::default();
        addressables.services.clone_from(&self.services);
        let families = [
            (Family::Broker, self.brokers.keys().collect::<Vec<_>>()),
            (Family::Sink, self.sinks.keys().collect()),
            (Family::Transformation, self.transformations.keys().collect()),
        ];
        for (family, names) in families {
            for name in names {
                addressables.add(&ResourceKey::new(family.clone(), name.clone()));
            }
        }
        let found = find(&resource.id, spec, self, &addressables, &Index::default());
        let problem = |(_, issue): (Severity, Issue)| Problem {
            code: issue.code,
            severity: Severity::Error,
            message: issue.message,
            help: issue.help,
            location: None,
            path: issue.path,
            resource: Some(resource.id.clone()),
        };
        match (found.planned, found.issues) {
            (Some(planned), issues) if issues.is_empty() => Ok(planned),
            (_, issues) => Err(issues.into_iter().map(problem).collect()),
        }
    }
}

/// The plan of a replay. Its trigger and its broker may be declared after it: their absence is no error.
fn find(
    id: &ResourceId,
    spec: &ReplaySpec,
    plan: &Plan,
    addressables: &Addressables,
    index: &Index<'_>,
) -> Found {
    let mut issues = Vec::new();
    let broker = &spec.broker.name;
    if !plan.brokers.contains_key(broker) {
        let issue = Issue {
            code: codes::BROKER_ABSENT,
            mark: spec.broker.mark,
            path: spec.broker.path.to_owned(),
            message: format!("no Broker {broker} runs; the replay waits for it"),
            help: "declare the Broker, or correct the name".to_owned(),
        };
        issues.push((Severity::Warning, issue));
    }
    let target = match &spec.destination {
        ReplayDestination::Trigger(name) => {
            issues.extend(trigger_issue(name, spec, plan));
            Ok(ReplayTarget::Trigger(name.clone()))
        }
        ReplayDestination::Subscriber(destination) => {
            addressables.resolve(destination, "spec.subscriber", index).map(ReplayTarget::Subscriber)
        }
    };
    let sink = spec.delivery.as_ref().and_then(|delivery| delivery.dead_letter_sink.as_ref());
    let sink = sink.map(|sink| addressables.resolve(sink, "spec.delivery.deadLetterSink", index)).transpose();
    let (target, dead_letter_sink) = match (target, sink) {
        (Ok(target), Ok(sink)) => (target, sink),
        (target, sink) => {
            let errors = target.err().into_iter().chain(sink.err());
            issues.extend(errors.map(|issue| (Severity::Error, issue)));
            return Found { planned: None, issues };
        }
    };
    if issues.iter().any(|(severity, _)| *severity == Severity::Error) {
        return Found { planned: None, issues };
    }
    let planned = ReplayPlan {
        id: id.clone(),
        broker: broker.clone(),
        from: spec.from,
        to: spec.to,
        filter: spec.filter.clone(),
        target,
        delivery: spec.delivery.clone(),
        dead_letter_sink,
        paused: spec.paused,
    };
    Found { planned: Some(planned), issues }
}

fn trigger_issue(name: &ResourceName, spec: &ReplaySpec, plan: &Plan) -> Option<(Severity, Issue)> {
    let issue = |code, message: String, help: &str| Issue {
        code,
        mark: spec.mark_of("trigger"),
        path: "spec.trigger".to_owned(),
        message,
        help: help.to_owned(),
    };
    match plan.triggers.get(name) {
        Some(trigger) if trigger.broker == spec.broker.name => None,
        Some(trigger) => {
            let message = format!("Trigger {name} takes the events of {}", trigger.broker);
            let help = "name that broker, or a trigger of this one";
            Some((Severity::Error, issue(codes::REPLAY_TRIGGER_ELSEWHERE, message, help)))
        }
        None => {
            let message = format!("no Trigger {name} runs; the replay waits for it");
            let help = "declare the Trigger, correct the name, or write `subscriber`";
            Some((Severity::Warning, issue(codes::REFERENCE_DANGLING, message, help)))
        }
    }
}

/// What of a replay is not as it was, of that which may not change.
fn changed(now: &ReplayPlan, was: &ReplayPlan, spec: &ReplaySpec) -> Option<Issue> {
    let (now, was) = (now.fixed(), was.fixed());
    let ((field, _), _) = now.iter().zip(&was).find(|(now, was)| now.1 != was.1)?;
    Some(Issue {
        code: codes::FIELD_IMMUTABLE,
        mark: spec.mark_of(field),
        path: format!("spec.{field}"),
        message: format!("`spec.{field}` of a Replay cannot change: it runs once, as it was declared first"),
        help: "restore it, and name a new Replay".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use waypost_core::manifest::{ManifestFile, Manifests};

    use super::*;
    use crate::plan::{Registry, plan};

    const NO_COMPONENTS: Registry = Registry { sources: &[], sinks: &[], transformations: &[] };

    fn manifests(replay: &str) -> Manifests {
        let text = format!(
            "apiVersion: waypost.dev/v1alpha1\nkind: Broker\nmetadata: {{name: b}}\n---\n\
             apiVersion: waypost.dev/v1alpha1\nkind: Broker\nmetadata: {{name: c}}\n---\n\
             apiVersion: waypost.dev/v1alpha1\nkind: Trigger\nmetadata: {{name: t}}\n\
             spec: {{broker: b, subscriber: {{uri: 'http://x/'}}, delivery: {{retry: 7, deadline: PT1H}}}}\n---\n\
             apiVersion: waypost.dev/v1alpha1\nkind: Replay\nmetadata: {{name: r}}\nspec: {replay}\n"
        );
        Manifests { files: vec![ManifestFile::read("a.yaml", text.as_bytes())] }
    }

    fn planned(replay: &str, previous: Option<&Plan>) -> Plan {
        plan(&manifests(replay), &NO_COMPONENTS, previous, 1)
    }

    fn codes_of(plan: &Plan) -> Vec<(&str, &str)> {
        plan.problems.iter().map(|problem| (problem.code.id(), problem.path.as_str())).collect()
    }

    #[test]
    fn what_it_refers_to_is_looked_at() {
        for (replay, expected) in [
            ("{broker: b, trigger: t, from: earliest}", &[][..]),
            ("{broker: b, trigger: absent, from: earliest}", &[("E0203", "spec.trigger")]),
            ("{broker: absent, subscriber: {uri: 'http://x/'}, from: earliest}", &[("E0207", "spec.broker")]),
            ("{broker: c, trigger: t, from: earliest}", &[("E0856", "spec.trigger")]),
            (
                "{broker: b, subscriber: {ref: {apiVersion: waypost.dev/v1alpha1, kind: Sink, name: s}}, from: earliest}",
                &[("E0203", "spec.subscriber.ref")],
            ),
        ] {
            let plan = planned(replay, None);
            assert_eq!(codes_of(&plan), expected, "{replay}");
            assert_eq!(plan.replays.is_empty(), !plan.is_free_of_errors(), "{replay}");
        }
    }

    #[test]
    fn only_delivery_and_pause_may_change() {
        let first = planned("{broker: b, trigger: t, from: '0:1', to: '0:9'}", None);
        let same = "{broker: b, trigger: t, from: '0:1', to: '0:9', paused: true, delivery: {retry: 1}}";
        let next = planned(same, Some(&first));
        assert_eq!(codes_of(&next), []);
        for (changed, path) in [
            ("{broker: b, trigger: t, from: '0:2', to: '0:9'}", "spec.from"),
            ("{broker: b, trigger: t, from: '0:1'}", "spec.to"),
            (
                "{broker: b, trigger: t, from: '0:1', to: '0:9', filters: [{exact: {type: a}}]}",
                "spec.filters",
            ),
            ("{broker: b, subscriber: {uri: 'http://y/'}, from: '0:1', to: '0:9'}", "spec.subscriber"),
        ] {
            let refused = planned(changed, Some(&first));
            assert_eq!(codes_of(&refused), [("E0212", path)], "{changed}");
            assert_eq!(refused.replays, first.replays, "it goes on as it was");
        }
    }

    #[test]
    fn its_delivery_is_that_of_the_trigger_but_for_what_it_says() {
        let plan = planned("{broker: b, trigger: t, from: earliest, delivery: {maxInFlight: 2}}", None);
        let base = &plan.triggers[&ResourceName::new("default", "t")].delivery;
        let policy = plan.replays[&ResourceName::new("default", "r")].policy(base);
        assert_eq!((policy.retry, policy.max_in_flight, policy.deadline), (7, 2, None));
        assert!(base.deadline.is_some());
    }
}
