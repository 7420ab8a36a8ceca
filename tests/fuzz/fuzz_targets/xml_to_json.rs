//! XML becomes JSON or is refused. What becomes JSON becomes the same within an element around it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use waypost_core::Event;
use waypost_core::transformation::json::{Json, MAX_DEPTH};
use waypost_fuzz::transformation::{Outcome, apply, compile, data};

fuzz_target!(|text: &str| {
    let Some(made) = converted(text) else { return };
    assert!(made.depth() <= MAX_DEPTH);
    // A prologue may stand at the beginning only.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains("<?") || text.contains("<!D") || made.depth() >= MAX_DEPTH - 1 {
        return;
    }
    let around = converted(&format!("<x>{text}</x>")).expect("an element may stand in another");
    assert_eq!(around.member("x"), Some(&made));
});

fn converted(text: &str) -> Option<Json> {
    let transformation = compile("xmlToJson", &json!({})).expect("it has no settings");
    let event = Event::builder("1", "/shop", "order")
        .data_content_type("application/xml")
        .data(text.to_owned())
        .build()
        .expect("the attributes are valid, and data is never refused");
    match apply(&transformation, &event) {
        Outcome::Events(events) => {
            assert_eq!(events.len(), 1);
            Some(data(&events).remove(0).expect("what it makes is JSON"))
        }
        Outcome::Failed(_) | Outcome::Limit => None,
    }
}
