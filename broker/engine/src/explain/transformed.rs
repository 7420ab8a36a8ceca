//! What transformations make of an event, step by step.

use serde::{Serialize, Serializer};
use waypost_core::Event;
use waypost_core::event::instant;
use waypost_core::manifest::ResourceName;
use waypost_core::transformation::{Chain, Moment, Transformed};

use super::structured;
use crate::plan::Plan;

/// What transformations make of an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedChain {
    /// The steps that were reached and passed.
    pub steps: Vec<ExplainedStep>,
    /// What is sent.
    pub events: Vec<StructuredEvent>,
    /// Why nothing is sent: `filtered`, `schema` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<&'static str>,
    /// Why it becomes a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<ExplainedFailure>,
}

/// The events after a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedStep {
    /// `transformations[0] (fields)`, or the name of the Transformation.
    pub name: String,
    /// The events.
    pub events: Vec<StructuredEvent>,
    /// The failures that `onError` passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// A failure that is permanent for the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedFailure {
    /// The step.
    pub step: String,
    /// The code.
    pub code: String,
    /// Why.
    pub reason: String,
    /// Where in the event, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// An event that is written in structured JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StructuredEvent(pub Event);

impl Serialize for StructuredEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        structured(&self.0).serialize(serializer)
    }
}

/// Applies a chain; nothing where it has no step. Pure.
pub(super) fn transformed(chain: &Chain, event: &Event, moment: Moment) -> Option<ExplainedChain> {
    if chain.is_empty() {
        return None;
    }
    let structured = |events: Vec<Event>| events.into_iter().map(StructuredEvent).collect::<Vec<_>>();
    let (traces, result) = chain.trace(event, moment);
    let steps = traces.into_iter().map(|trace| ExplainedStep {
        name: trace.step,
        events: structured(trace.events),
        passed_over: trace.passed_over.iter().map(ToString::to_string).collect(),
    });
    let steps = steps.collect();
    let nothing = ExplainedChain { steps, events: Vec::new(), dropped: None, failed: None };
    Some(match result {
        Ok(Transformed::Events(events)) => ExplainedChain { events: structured(events), ..nothing },
        Ok(Transformed::Nothing(why)) => ExplainedChain { dropped: Some(why.as_str()), ..nothing },
        Err(error) => {
            let (code, reason) = (error.error.code.to_string(), error.error.reason);
            let failed = ExplainedFailure { step: error.step, code, reason, path: error.error.path };
            ExplainedChain { failed: Some(failed), ..nothing }
        }
    })
}

/// What the transformations of a trigger make of an event, whether or not its filter takes it; nothing where the plan has
/// no such trigger. Pure: now is the event's `time`.
pub fn transformed_by_trigger(plan: &Plan, trigger: &ResourceName, event: &Event) -> Option<ExplainedChain> {
    Some(whole(&plan.triggers.get(trigger)?.transformations, event))
}

/// What a Transformation makes of an event; nothing where the plan has none of that name. Pure: now is the event's
/// `time`.
pub fn transformed_by(plan: &Plan, transformation: &ResourceName, event: &Event) -> Option<ExplainedChain> {
    Some(whole(&plan.transformations.get(transformation)?.chain, event))
}

fn whole(chain: &Chain, event: &Event) -> ExplainedChain {
    transformed(chain, event, moment_of(event)).unwrap_or_else(|| ExplainedChain {
        steps: Vec::new(),
        events: vec![StructuredEvent(event.clone())],
        dropped: None,
        failed: None,
    })
}

/// The moment of an event that never arrived: its `time`, or 1970.
pub(super) fn moment_of(event: &Event) -> Moment {
    let time = event.time().and_then(|time| instant(time).ok()).unwrap_or_default();
    Moment { arrived_nanoseconds: i64::try_from(time.as_nanosecond()).unwrap_or_default() }
}
