//! Trying a transformation out, as a chain of one step applies it.

use std::sync::Arc;

use serde_json::Value;
use waypost_core::Event;
use waypost_core::transformation::{
    Chain, ChainError, Moment, OnError, Step, Transformation, TransformationType, Transformed,
};

/// The log time of all trials: 2026-11-22T01:02:03.5Z.
pub(crate) const MOMENT: Moment = Moment { arrived_nanoseconds: 1_795_309_323_500_000_000 };

/// Compiles the settings of a type of the registry.
pub(crate) fn compile(name: &str, settings: &Value) -> Result<Arc<dyn Transformation>, String> {
    let row: &TransformationType =
        crate::TRANSFORMATIONS.iter().find(|row| row.name == name).expect("a registered type");
    (row.configure)(settings).map_err(|problems| {
        let told = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message));
        told.collect::<Vec<_>>().join("; ")
    })
}

/// An event with JSON data.
pub(crate) fn event(data: &str) -> Event {
    event_of("application/json", data)
}

/// An event with data of this content type.
pub(crate) fn event_of(content_type: &str, data: &str) -> Event {
    let event = Event::builder("1", "/shop", "order")
        .attribute("datacontenttype", content_type)
        .attribute("subject", "s")
        .data(data.to_owned());
    event.build().expect("a valid event")
}

/// Applies a transformation.
pub(crate) fn apply(
    transformation: &Arc<dyn Transformation>,
    event: &Event,
) -> Result<Transformed, ChainError> {
    let step =
        Step { name: "step".to_owned(), transformation: Arc::clone(transformation), on_error: OnError::Fail };
    Chain::new(vec![step]).apply(event, MOMENT)
}

/// The events that settings make of an event.
pub(crate) fn events(name: &str, settings: &Value, event: &Event) -> Result<Vec<Event>, String> {
    let transformation = compile(name, settings)?;
    match apply(&transformation, event) {
        Ok(Transformed::Events(events)) => Ok(events),
        Ok(Transformed::Nothing(_)) => Ok(Vec::new()),
        Err(error) => Err(error.error.to_string()),
    }
}

/// The data that settings make of JSON data, separated by blanks.
pub(crate) fn data(name: &str, settings: &Value, data: &str) -> Result<String, String> {
    let events = events(name, settings, &event(data))?;
    Ok(events.iter().map(text_of).collect::<Vec<_>>().join(" "))
}

/// The data of an event as text.
pub(crate) fn text_of(event: &Event) -> String {
    String::from_utf8(event.data_bytes().unwrap_or_default().to_vec()).expect("UTF-8")
}
