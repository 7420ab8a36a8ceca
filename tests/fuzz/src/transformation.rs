//! Trying out transformations as a chain applies them.

use std::sync::Arc;

use serde_json::Value;
use waypost_core::transformation::json::Json;
use waypost_core::transformation::{Chain, Moment, OnError, Step, Transformation, Transformed};
use waypost_core::{Event, codes};
use waypost_transformations::TRANSFORMATIONS;

const MOMENT: Moment = Moment { arrived_nanoseconds: 1_795_309_323_500_000_000 };

/// What came of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// These events; none where it was dropped.
    Events(Vec<Event>),
    /// It failed, for this reason.
    Failed(String),
    /// A limit was reached, which another way to the same may not reach.
    Limit,
}

/// Compiles the settings of a registered type; nothing where they are refused.
pub fn compile(name: &str, settings: &Value) -> Option<Arc<dyn Transformation>> {
    let row = TRANSFORMATIONS.iter().find(|row| row.name == name).expect("a registered type");
    match (row.configure)(settings) {
        Ok(transformation) => Some(transformation),
        Err(problems) => {
            assert!(problems.iter().all(|problem| !problem.message.is_empty()));
            None
        }
    }
}

/// Applies a transformation twice, which must come to the same.
pub fn apply(transformation: &Arc<dyn Transformation>, event: &Event) -> Outcome {
    let once = || {
        let step = Step {
            name: "step".to_owned(),
            transformation: Arc::clone(transformation),
            on_error: OnError::Fail,
        };
        match Chain::new(vec![step]).apply(event, MOMENT) {
            Ok(Transformed::Events(events)) => Outcome::Events(events),
            Ok(Transformed::Nothing(_)) => Outcome::Events(Vec::new()),
            Err(failed) if failed.error.code == codes::TRANSFORMATION_LIMIT => Outcome::Limit,
            Err(failed) => Outcome::Failed(failed.error.to_string()),
        }
    };
    let first = once();
    assert_eq!(first, once());
    first
}

/// An event with JSON data.
pub fn event(data: &str) -> Event {
    Event::builder("1", "/shop", "order")
        .data_content_type("application/json")
        .subject("s")
        .data(data.to_owned())
        .build()
        .expect("the attributes are valid, and data is never refused")
}

/// The data of events, read as JSON; what is none as text.
pub fn data(events: &[Event]) -> Vec<Result<Json, String>> {
    let read = |event: &Event| {
        let text = String::from_utf8_lossy(event.data_bytes().unwrap_or_default()).into_owned();
        Json::read(&text).map_err(|_| text)
    };
    events.iter().map(read).collect()
}
