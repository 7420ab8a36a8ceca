//! What manifests would do with an event.

use waypost_core::Event;
use waypost_core::filter::Candidate;
use waypost_core::filter::explain::Explanation;
use waypost_core::manifest::{Problem, ResourceName};

use super::judged::Judged;
use super::transformed::{moment_of, transformed};
use super::{
    AfterUnknown, ExplainSelection, Explained, ExplainedTrigger, Page, clauses_of, page, structured,
};
use crate::plan::{DeclaredState, Plan, TriggerPlan};

/// A trigger of the plan, or one that has an error.
enum Asked<'p> {
    Planned(&'p ResourceName, &'p TriggerPlan),
    Invalid(ResourceName, &'p Problem),
}

impl Asked<'_> {
    fn name(&self) -> &ResourceName {
        match self {
            Self::Planned(name, _) => name,
            Self::Invalid(name, _) => name,
        }
    }
}

/// Tells which triggers of a plan match an event: those of every broker, or of one. Triggers with an error have no broker
/// that is known, and are told for each broker of their namespace. What an implicit broker does is told where it is named.
/// Pure.
///
/// # Errors
/// [`AfterUnknown`] where the selection goes on after a trigger that is none of these.
pub fn explain_event(
    plan: &Plan,
    event: &Event,
    broker: Option<&ResourceName>,
    selection: &ExplainSelection,
) -> Result<Explained, AfterUnknown> {
    let candidate = Candidate::new(event);
    let told = |trigger: &TriggerPlan| match broker {
        Some(broker) => trigger.broker == *broker,
        None => plan.brokers.get(&trigger.broker).is_none_or(|broker| !broker.implicit),
    };
    let planned = plan.triggers.iter().filter(|(_, trigger)| told(trigger));
    let planned = planned.map(|(name, trigger)| Asked::Planned(name, trigger));
    let invalid = invalid(plan)
        .filter(|(name, _)| broker.is_none_or(|broker| broker.namespace == name.namespace))
        .map(|(name, problem)| Asked::Invalid(name, problem));
    let asked = planned.chain(invalid).filter(|asked| selection.takes(asked.name()));
    let judged = asked.map(|asked| match asked {
        Asked::Planned(_, trigger) => (Judged::by(&trigger.filter, &candidate), asked),
        Asked::Invalid(..) => (Judged::NEVER, asked),
    });
    let Page { rows, matched, not_matched, left_out } = page(judged.collect(), Asked::name, selection)?;
    let line = |(_, asked): (Judged, Asked<'_>)| match asked {
        Asked::Planned(name, trigger) => line(name, trigger, &candidate),
        Asked::Invalid(name, problem) => invalid_line(name, problem),
    };
    let triggers = rows.into_iter().map(line).collect();
    Ok(Explained { event: structured(event), record: None, matched, not_matched, left_out, triggers })
}

/// What one trigger of a plan makes of an event; nothing where the plan has no such trigger, not even with an error.
/// Pure.
pub fn judge(plan: &Plan, trigger: &ResourceName, candidate: &Candidate<'_>) -> Option<ExplainedTrigger> {
    if let Some(planned) = plan.triggers.get(trigger) {
        return Some(line(trigger, planned, candidate));
    }
    let (name, problem) = invalid(plan).find(|(name, _)| name == trigger)?;
    Some(invalid_line(name, problem))
}

/// The triggers that have an error and no version that is in force.
pub(super) fn invalid(plan: &Plan) -> impl Iterator<Item = (ResourceName, &Problem)> {
    plan.declared.iter().filter_map(|declared| match &declared.state {
        DeclaredState::Invalid { problem, running: None } if declared.id.kind == "Trigger" => {
            Some((declared.id.resource_name(), &**problem))
        }
        _ => None,
    })
}

fn line(name: &ResourceName, trigger: &TriggerPlan, candidate: &Candidate<'_>) -> ExplainedTrigger {
    let explanation = Explanation::new(&trigger.filter, candidate);
    ExplainedTrigger {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        broker: trigger.broker.to_string(),
        transformations: explanation
            .matched()
            .then(|| transformed(&trigger.transformations, candidate.event(), moment_of(candidate.event())))
            .flatten(),
        matched: explanation.matched(),
        reason: explanation.reason(),
        distance: Some(explanation.distance()),
        clauses: clauses_of(explanation),
        deliveries: Vec::new(),
        plan: None,
        note: None,
        problem: None,
    }
}

pub(super) fn invalid_line(name: ResourceName, problem: &Problem) -> ExplainedTrigger {
    ExplainedTrigger {
        namespace: name.namespace,
        name: name.name,
        broker: String::new(),
        matched: false,
        reason: Some(format!("the trigger has an error and matches nothing: {}", problem.message)),
        distance: None,
        clauses: Vec::new(),
        transformations: None,
        deliveries: Vec::new(),
        plan: None,
        note: None,
        problem: Some(problem.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use waypost_core::manifest::{ManifestFile, Manifests};

    use super::*;
    use crate::plan::{Registry, plan};

    const MANIFESTS: &str = "\
apiVersion: waypost.dev/v1alpha1
kind: Broker
metadata: {name: shop}
---
apiVersion: waypost.dev/v1alpha1
kind: Broker
metadata: {name: other}
---
apiVersion: waypost.dev/v1alpha1
kind: Trigger
metadata: {name: all}
spec: {broker: other, subscriber: {uri: 'http://x'}}
---
apiVersion: waypost.dev/v1alpha1
kind: Trigger
metadata: {name: broken}
spec: {broker: shop, subscriber: {uri: 'http://x'}, filters: [{cesql: 'type ='}]}
---
apiVersion: waypost.dev/v1alpha1
kind: Trigger
metadata: {name: far}
spec: {broker: shop, subscriber: {uri: 'http://x'}, filters: [{exact: {type: other, tier: gold}}]}
---
apiVersion: waypost.dev/v1alpha1
kind: Trigger
metadata: {name: near}
spec: {broker: shop, subscriber: {uri: 'http://x'}, filters: [{exact: {type: order, tier: gold}}]}
---
apiVersion: waypost.dev/v1alpha1
kind: Trigger
metadata: {name: orders}
spec: {broker: shop, subscriber: {uri: 'http://x'}, filters: [{exact: {type: order}}]}
";

    fn explained(broker: Option<&str>, selection: &ExplainSelection) -> Result<Value, AfterUnknown> {
        let manifests = Manifests { files: vec![ManifestFile::read("a.yaml", MANIFESTS.as_bytes())] };
        let plan = plan(&manifests, &Registry { sources: &[], sinks: &[], transformations: &[] }, None, 1);
        let event = Event::builder("1", "/shop", "order").build().unwrap();
        let broker = broker.map(|name| ResourceName::new("default", name));
        let explained = explain_event(&plan, &event, broker.as_ref(), selection)?;
        Ok(serde_json::to_value(explained).unwrap())
    }

    fn names(explained: &Value) -> Vec<&str> {
        let triggers = explained["triggers"].as_array().unwrap();
        triggers.iter().map(|trigger| trigger["name"].as_str().unwrap()).collect()
    }

    #[test]
    fn matches_come_first_and_then_the_nearest_misses() {
        let all = explained(None, &ExplainSelection::default()).unwrap();
        assert_eq!(names(&all), ["all", "orders", "near", "far", "broken"]);
        assert_eq!((&all["matched"], &all["notMatched"], &all["leftOut"]), (&json!(2), &json!(3), &json!(0)));
        assert_eq!(all["event"]["type"], "order");
        assert!(all.get("position").is_none());
        let near = &all["triggers"][2];
        assert_eq!(near["reason"], "the event has no attribute `tier`");
        assert_eq!((&near["matched"], &near["distance"]), (&json!(false), &json!(1)));
        assert_eq!(near["clauses"].as_array().unwrap().len(), 2);
        assert_eq!(all["triggers"][1]["reason"], Value::Null);
        let broken = &all["triggers"][4];
        assert_eq!(broken["problem"]["code"], "E0216");
        assert!(broken["reason"].as_str().unwrap().contains("has an error"));
    }

    #[test]
    fn the_answer_is_of_one_broker_and_comes_in_pages() {
        let default = ExplainSelection::default;
        assert_eq!(names(&explained(Some("other"), &default()).unwrap()), ["all", "broken"]);
        let page = ExplainSelection { limit: 2, after: Some("default/all".to_owned()), ..default() };
        let page = explained(None, &page).unwrap();
        assert_eq!((names(&page), &page["leftOut"]), (vec!["orders", "near"], &json!(3)));
        for trigger in ["near", "default/near"] {
            let one = ExplainSelection { trigger: Some(trigger.to_owned()), ..default() };
            assert_eq!(names(&explained(None, &one).unwrap()), ["near"]);
        }
        let elsewhere = ExplainSelection { namespace: Some("elsewhere".to_owned()), ..default() };
        assert!(names(&explained(None, &elsewhere).unwrap()).is_empty());
        let unknown = ExplainSelection { after: Some("default/x".to_owned()), ..default() };
        assert!(explained(None, &unknown).unwrap_err().to_string().contains("default/x"));
    }
}
