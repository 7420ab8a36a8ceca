//! Whether what comes out of transformations is what a test expects, and where it differs.

use std::collections::BTreeSet;

use serde_json::Value;
use waypost_core::Event;
use waypost_core::manifest::{Emission, Emitted, Emitter};
use waypost_core::transformation::json::Json;
use waypost_engine::explain::{ExplainedChain, transformed_by, transformed_by_trigger};
use waypost_engine::plan::Plan;

use super::Emission as Outcome;

/// Attributes that are only compared where the test names them.
const OPTIONAL: [&str; 4] = ["specversion", "id", "source", "datacontenttype"];

/// The most differences that are told of one test.
const MAX_DIFFERENCES: usize = 20;

/// What came out of transformations; none where there is no such trigger or Transformation.
pub(super) fn emission(emission: &Emission, event: &Event, plan: &Plan) -> Option<Outcome> {
    let (kind, name) = match &emission.of {
        Emitter::Trigger(name) => ("Trigger", name),
        Emitter::Transformation(name) => ("Transformation", name),
    };
    let made = match &emission.of {
        Emitter::Trigger(name) => transformed_by_trigger(plan, name, event),
        Emitter::Transformation(name) => transformed_by(plan, name, event),
    }?;
    let mut differences = differences(&emission.emitted, &made);
    differences.truncate(MAX_DIFFERENCES);
    Some(Outcome {
        kind,
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        line: emission.mark.line,
        passed: differences.is_empty(),
        differences,
        emitted: made,
    })
}

/// Each difference in a line; none where all is as expected.
fn differences(expected: &Emitted, made: &ExplainedChain) -> Vec<String> {
    match expected {
        Emitted::Events(expected) if made.failed.is_none() => {
            let mut told = Vec::new();
            if expected.len() != made.events.len() {
                let dropped = made.dropped.map(|why| format!(" (dropped: {why})")).unwrap_or_default();
                told.push(format!(
                    "events: expected {}, there are {}{dropped}",
                    expected.len(),
                    made.events.len()
                ));
            }
            for (number, (expected, event)) in expected.iter().zip(&made.events).enumerate() {
                let text = serde_json::to_string(event).unwrap_or_default();
                let actual = Json::read(&text).unwrap_or_default();
                compare_events(number, expected, &actual, &mut told);
            }
            told
        }
        Emitted::Dropped(reason) => match (made.dropped, reason) {
            (Some(_), None) => Vec::new(),
            (Some(why), Some(reason)) if why == reason => Vec::new(),
            (_, reason) => {
                let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                vec![format!("expected that nothing comes out{reason}; {}", became(made))]
            }
        },
        Emitted::Fails(part) => match &made.failed {
            Some(failed) if told(failed).contains(part) => Vec::new(),
            _ => vec![format!("expected a failure with `{part}`; {}", became(made))],
        },
        Emitted::Events(expected) => vec![format!("expected {} events; {}", expected.len(), became(made))],
    }
}

fn told(failed: &waypost_engine::explain::ExplainedFailure) -> String {
    let path = failed.path.as_ref().map(|path| format!(" (at {path})")).unwrap_or_default();
    format!("{}: {}{path}", failed.step, failed.reason)
}

fn became(made: &ExplainedChain) -> String {
    match (&made.failed, made.dropped) {
        (Some(failed), _) => format!("it failed: {}", told(failed)),
        (None, Some(why)) => format!("it was dropped: {why}"),
        (None, None) => format!("{} events came out", made.events.len()),
    }
}

fn compare_events(number: usize, expected: &Value, actual: &Json, told: &mut Vec<String>) {
    let expected = Json::from(expected);
    let (Some(wanted), Some(found)) = (expected.as_members(), actual.as_members()) else { return };
    let names: BTreeSet<&str> = wanted.iter().chain(found.iter()).map(|(name, _)| &**name).collect();
    for name in names {
        let (wanted, found) = (wanted.get(name), found.get(name));
        if wanted.is_none() && OPTIONAL.contains(&name) {
            continue;
        }
        compare(&format!("events[{number}].{name}"), wanted, found, told);
    }
}

/// Tells the innermost places that differ. Recursion is bounded by the depth of both.
fn compare(path: &str, expected: Option<&Json>, actual: Option<&Json>, told: &mut Vec<String>) {
    match (expected, actual) {
        (expected, actual) if expected == actual => {}
        (Some(Json::Object(wanted)), Some(Json::Object(found))) => {
            let names: BTreeSet<&str> = wanted.iter().chain(found.iter()).map(|(name, _)| &**name).collect();
            for name in names {
                compare(&format!("{path}.{name}"), wanted.get(name), found.get(name), told);
            }
        }
        (Some(Json::Array(wanted)), Some(Json::Array(found))) => {
            for index in 0..wanted.len().max(found.len()) {
                compare(&format!("{path}[{index}]"), wanted.get(index), found.get(index), told);
            }
        }
        (expected, actual) => {
            let show = |value: Option<&Json>| value.map_or("nothing".to_owned(), ToString::to_string);
            told.push(format!("{path}: expected {}, is {}", show(expected), show(actual)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_engine::explain::{ExplainedFailure, StructuredEvent};

    use super::*;

    fn made(events: Vec<Event>) -> ExplainedChain {
        let events = events.into_iter().map(StructuredEvent).collect();
        ExplainedChain { steps: Vec::new(), events, dropped: None, failed: None }
    }

    fn event() -> Event {
        let data = r#"{"total":9007199254740993,"items":[1,{"a":"x"}]}"#;
        Event::builder("1", "/s", "order").subject("x").json_data(data).build().unwrap()
    }

    #[test]
    fn each_place_that_differs_is_a_line() {
        let expected = |event: Value| differences(&Emitted::Events(vec![event]), &made(vec![self::event()]));
        let same = json!({"type": "order", "subject": "x", "data": {"items": [1.0, {"a": "x"}], "total": 9_007_199_254_740_993_u64}});
        assert!(expected(same).is_empty());
        let other = json!({"id": "2", "type": "order", "tier": "g", "data": {"items": [1, {"a": "y"}, 3], "total": 1}});
        assert_eq!(
            expected(other),
            [
                "events[0].data.items[1].a: expected \"y\", is \"x\"",
                "events[0].data.items[2]: expected 3, is nothing",
                "events[0].data.total: expected 1, is 9007199254740993",
                "events[0].id: expected \"2\", is \"1\"",
                "events[0].subject: expected nothing, is \"x\"",
                "events[0].tier: expected \"g\", is nothing",
            ]
        );
    }

    #[test]
    fn drops_and_failures_are_told_apart() {
        let nothing = made(Vec::new());
        let dropped = ExplainedChain { dropped: Some("schema"), ..nothing.clone() };
        let failure = ExplainedFailure {
            step: "a".to_owned(),
            code: "E0410".to_owned(),
            reason: "no".to_owned(),
            path: Some("data.x".to_owned()),
        };
        let failed = ExplainedChain { failed: Some(failure), ..nothing };
        let drop = |reason: Option<&str>| Emitted::Dropped(reason.map(str::to_owned));
        assert!(differences(&drop(None), &dropped).is_empty());
        assert!(differences(&drop(Some("schema")), &dropped).is_empty());
        assert_eq!(
            differences(&drop(Some("filtered")), &dropped),
            ["expected that nothing comes out (filtered); it was dropped: schema"]
        );
        assert_eq!(
            differences(&Emitted::Events(vec![json!({})]), &failed),
            ["expected 1 events; it failed: a: no (at data.x)"]
        );
        assert_eq!(
            differences(&Emitted::Events(vec![json!({})]), &dropped),
            ["events: expected 1, there are 0 (dropped: schema)"]
        );
        assert!(differences(&Emitted::Fails("data.x".to_owned()), &failed).is_empty());
        assert_eq!(
            differences(&Emitted::Fails("z".to_owned()), &made(vec![event()])),
            ["expected a failure with `z`; 1 events came out"]
        );
    }
}
