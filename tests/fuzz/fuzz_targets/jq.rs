//! A program is compiled or refused. What is compiled makes the same each time, and what the crates of jaq make, which a
//! program of our own code is compared with: one that only puts parts of the data together.
//!
//! Input: the program, a blank line, data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use waypost_fuzz::transformation::{Outcome, apply, compile, data, event};
use waypost_fuzz::{forgive_dependencies, parts};

fuzz_target!(init: forgive_dependencies(), |input: &str| {
    let [text, written] = parts(input);
    let Some(program) = compile("jq", &json!({"query": text})) else { return };
    // No program with `first` is ever run by our own code.
    let by_the_crates = compile("jq", &json!({"query": format!("({text}\n) | first(.)")}));
    let event = event(written);
    let made = apply(&program, &event);
    let Some(by_the_crates) = by_the_crates else { return };
    match (made, apply(&by_the_crates, &event)) {
        (Outcome::Events(made), Outcome::Events(expected)) => assert_eq!(data(&made), data(&expected)),
        (Outcome::Failed(made), Outcome::Failed(expected)) => assert_eq!(made, expected),
        (Outcome::Limit, _) | (_, Outcome::Limit) => {}
        (made, expected) => panic!("{made:?} {expected:?}"),
    }
});
