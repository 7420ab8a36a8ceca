//! Any expression is read or refused; what is read is evaluated or costs too much, and implies what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::Event;
use waypost_core::filter::cel::Expression;
use waypost_core::filter::{Candidate, Filter};

fuzz_target!(|input: (&str, &str, &str)| {
    let (text, value, data) = input;
    let Ok(expression) = Expression::parse(text) else { return };
    let event = Event::builder("1", "/", "t").attribute("a", value).attribute("b", 7).data(data.to_owned()).build();
    let Ok(event) = event else { return };
    let holds = expression.holds(&Candidate::new(&event));
    if holds == Ok(true) {
        assert!(expression.implied().matches_event(&event));
    }
    let _ = Filter::Cel(expression).doubts();
});
