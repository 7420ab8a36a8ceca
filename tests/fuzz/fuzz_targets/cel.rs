//! An expression is read or refused. What is read yields the same each time and in the explanation, or costs too much,
//! and what it implies holds wherever it does.
//!
//! Input: the expression, a blank line, attributes, a blank line, data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::filter::cel::{Expression, Outcome};
use waypost_core::filter::explain::Explanation;
use waypost_core::filter::{Candidate, Filter};
use waypost_fuzz::{event, forgive_dependencies, parts};

fuzz_target!(init: forgive_dependencies(), |input: &str| {
    let [text, attributes, data] = parts(input);
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(error.line() >= 1 && error.line() <= text.split('\n').count() + 1, "{error:?}");
            return assert!(error.column() >= 1);
        }
    };
    let event = event(attributes, data);
    let candidate = Candidate::new(&event);
    let outcome = expression.evaluate(&candidate);
    candidate.begin();
    let holds = expression.holds(&candidate);
    assert_eq!(holds, outcome.map(|outcome| outcome == Outcome::Boolean(true)));
    if holds == Ok(true) {
        assert!(expression.implied().matches_event(&event));
    }
    candidate.begin();
    let _ = expression.value(&candidate);
    let filter = Filter::Cel(expression);
    assert_eq!(Explanation::new(&filter, &candidate).matched(), holds == Ok(true));
    let _ = filter.doubts();
});
