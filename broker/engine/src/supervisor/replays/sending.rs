//! What a replay sends, where to and how, as a plan has it. Pure.

use std::sync::Arc;

use waypost_core::delivery::DeliveryPolicy;
use waypost_core::filter::Filter;
use waypost_core::manifest::{ManifestFile, NATIVE, ReplayBound, ResourceId, ResourceName, StoredDocument};
use waypost_core::transformation::{Chain, OnError, Step};

use crate::plan::{Fingerprint, Plan, ReplayPlan, ReplayTarget, Replies, StartFrom, TriggerPlan};
use crate::replay::{Mark, ReplayError};

/// Where a replay is from that no file declares.
const API: &str = "the admin API";

/// What a replay was started as, in one text.
pub(super) fn fixed_of(planned: &ReplayPlan) -> String {
    let fixed = planned.fixed().map(|(field, value)| format!("{field}: {value}"));
    fixed.join("\n")
}

pub(super) fn written(bound: ReplayBound, open: &str) -> String {
    match bound {
        ReplayBound::Open => open.to_owned(),
        bound => bound.to_string(),
    }
}

/// The manifest of a replay that the admin API is asked for.
pub(super) fn document_of(name: &ResourceName, spec: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": NATIVE,
        "kind": "Replay",
        "metadata": {"namespace": name.namespace, "name": name.name},
        "spec": spec,
    })
}

/// Reads and plans such a manifest.
pub(super) fn planned_of(plan: &Plan, document: &serde_json::Value) -> Result<ReplayPlan, ReplayError> {
    let text = document.to_string();
    let mut file = ManifestFile::stored(API, [StoredDocument { line: 1, text: &text }]);
    match file.resources.pop() {
        Some(resource) => plan.replay(&resource).map_err(ReplayError::Invalid),
        None => Err(ReplayError::Invalid(file.problems)),
    }
}

/// Which events a replay sends: fixed when it starts, whatever becomes of the trigger's filter.
pub(super) fn filter_of(plan: &Plan, planned: &ReplayPlan) -> Result<Filter, ReplayError> {
    match (&planned.filter, &planned.target) {
        (Some(own), _) => Ok(own.clone()),
        (None, ReplayTarget::Subscriber(_)) => Ok(Filter::Everything),
        (None, ReplayTarget::Trigger(name)) => match plan.triggers.get(name) {
            Some(trigger) => Ok(trigger.filter.clone()),
            None => Err(ReplayError::Range(format!("its trigger {name} does not run"))),
        },
    }
}

/// How a replay sends, as if it were a trigger; or what it has to wait for.
pub(super) fn sending(plan: &Plan, planned: &ReplayPlan, paused: bool) -> Result<TriggerPlan, String> {
    let name = planned.id.resource_name();
    let broker = plan.brokers.get(&planned.broker);
    let broker = broker.ok_or_else(|| format!("its broker {} is detached", planned.broker))?;
    let mut sending = match &planned.target {
        ReplayTarget::Trigger(trigger) => {
            let found = plan.triggers.get(trigger).filter(|found| found.broker == planned.broker);
            let found = found.ok_or_else(|| format!("its trigger {trigger} does not run"))?;
            TriggerPlan { delivery: planned.policy(&found.delivery), ..TriggerPlan::clone(found) }
        }
        ReplayTarget::Subscriber(subscriber) => {
            let default = DeliveryPolicy::default();
            TriggerPlan {
                id: ResourceId::new(NATIVE, "Replay", name.clone()),
                broker: planned.broker.clone(),
                filter: Filter::Everything,
                transformations: Chain::default(),
                subscriber: subscriber.clone(),
                replies: Replies::Own,
                delivery: planned.policy(broker.delivery.as_ref().unwrap_or(&default)),
                dead_letter_sink: broker.dead_letter_sink.clone(),
                paused,
                start_from: StartFrom::Latest,
                fingerprint: Fingerprint { matching: String::new(), delivering: String::new() },
            }
        }
    };
    let mark = Arc::new(Mark::new(&name.name));
    let name = "the mark of the replay".to_owned();
    let mark = Step { name, transformation: mark, on_error: OnError::Skip };
    sending.transformations.push(mark);
    if planned.dead_letter_sink.is_some() {
        sending.dead_letter_sink.clone_from(&planned.dead_letter_sink);
    }
    sending.paused = paused;
    let TriggerPlan { subscriber, delivery, dead_letter_sink, fingerprint, .. } = &mut sending;
    // The digest of the trigger's own tells of its transformations.
    fingerprint.delivering =
        format!("{} {subscriber:?} {delivery:?} {dead_letter_sink:?} {paused}", fingerprint.delivering);
    Ok(sending)
}
