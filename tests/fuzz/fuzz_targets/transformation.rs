//! The settings of any type of transformation compile or are refused. What is compiled makes the same each time.
//!
//! Input: the type with its settings in YAML or JSON, a blank line, data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use waypost_core::manifest::document;
use waypost_fuzz::transformation::{apply, compile, event};
use waypost_fuzz::{forgive_dependencies, parts};
use waypost_transformations::TRANSFORMATIONS;

fuzz_target!(init: forgive_dependencies(), |input: &str| {
    let [text, data] = parts(input);
    let mut specs = Vec::new();
    if document::parse(text, 1, |node| specs.push(node.to_json())).is_err() {
        return;
    }
    let Some(Value::Object(spec)) = specs.first() else { return };
    for (name, settings) in spec {
        if TRANSFORMATIONS.iter().any(|row| row.name == name)
            && let Some(transformation) = compile(name, settings)
        {
            apply(&transformation, &event(data));
        }
    }
});
