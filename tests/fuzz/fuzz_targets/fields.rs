//! Lists of operations are compiled or refused. What is compiled makes the same each time, and the same of data that is
//! written in another way.
//!
//! Input: the settings in YAML or JSON, a blank line, data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::manifest::document;
use waypost_core::transformation::json::Json;
use waypost_fuzz::parts;
use waypost_fuzz::transformation::{Outcome, apply, compile, data, event};

fuzz_target!(|input: &str| {
    let [text, written] = parts(input);
    let mut settings = Vec::new();
    if document::parse(text, 1, |node| settings.push(node.to_json())).is_err() {
        return;
    }
    let Some(transformation) = settings.first().and_then(|settings| compile("fields", settings)) else {
        return;
    };
    let made = apply(&transformation, &event(written));
    let Ok(tree) = Json::read(written) else { return };
    let again = apply(&transformation, &event(&tree.to_string()));
    match (made, again) {
        (Outcome::Events(made), Outcome::Events(again)) => assert_eq!(data(&made), data(&again)),
        (Outcome::Failed(_), Outcome::Failed(_)) | (Outcome::Limit, _) | (_, Outcome::Limit) => {}
        (made, again) => panic!("{made:?} {again:?}"),
    }
});
