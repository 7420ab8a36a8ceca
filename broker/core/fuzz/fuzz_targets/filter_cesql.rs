//! Any expression is read or refused at a place in it; what is read yields the same in both modes, and implies what it
//! says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::Event;
use waypost_core::filter::cesql::Expression;
use waypost_core::filter::explain::Explanation;
use waypost_core::filter::{Candidate, Filter};

fuzz_target!(|input: (&str, &str, i32, bool)| {
    let (text, value, number, truth) = input;
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => return assert!(text.is_char_boundary(error.offset())),
    };
    let _ = expression.warnings();
    let event = Event::builder("1", "/", "t")
        .attribute("a", value)
        .attribute("b", number)
        .attribute("c", truth)
        .build();
    let Ok(event) = event else { return };
    let candidate = Candidate::new(&event);
    let holds = expression.holds(&candidate);
    candidate.begin();
    if let Ok(evaluation) = expression.evaluate(&candidate) {
        assert_eq!(holds, Ok(evaluation.passes()));
    }
    if holds == Ok(true) {
        assert!(expression.implied().matches_event(&event));
    }
    let filter = Filter::Cesql(expression);
    assert_eq!(Explanation::new(&filter, &candidate).matched(), holds == Ok(true));
    let _ = filter.doubts();
});
