//! An expression is read or refused at a place in it. What is read yields the same in both modes, in parentheses and in
//! the explanation, and what it implies holds wherever it does.
//!
//! Input: the expression, a blank line, attributes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::filter::cesql::Expression;
use waypost_core::filter::explain::Explanation;
use waypost_core::filter::{Candidate, Filter};
use waypost_fuzz::{event, parts};

/// Text that is shorter than this is far from every limit.
const SHORT: usize = 48;

fuzz_target!(|input: &str| {
    let [text, attributes] = parts(input);
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => return assert!(text.is_char_boundary(error.offset())),
    };
    let warnings = expression.warnings();
    assert_eq!(expression.text(), text);
    for event in [event("", ""), event(attributes, "")] {
        let candidate = Candidate::new(&event);
        let holds = expression.holds(&candidate);
        candidate.begin();
        let evaluation = expression.evaluate(&candidate);
        if let Ok(evaluation) = &evaluation {
            assert_eq!(holds, Ok(evaluation.passes()));
        }
        if text.len() < SHORT {
            let wrapped =
                Expression::parse(&format!(" ( {text}\t)")).expect("an expression may stand in parentheses");
            assert_eq!(wrapped.warnings().len(), warnings.len());
            candidate.begin();
            if let (Ok(evaluation), Ok(wrapped)) = (&evaluation, wrapped.evaluate(&candidate)) {
                assert_eq!(wrapped.value, evaluation.value);
                assert_eq!(wrapped.errors.len(), evaluation.errors.len());
            }
        }
        if holds == Ok(true) {
            assert!(expression.implied().matches_event(&event));
        }
        let filter = Filter::Cesql(expression.clone());
        let explanation = Explanation::new(&filter, &candidate);
        assert_eq!(explanation.matched(), holds == Ok(true));
        assert_eq!(explanation.reason().is_none(), holds == Ok(true));
    }
    let _ = Filter::Cesql(expression).doubts();
});
