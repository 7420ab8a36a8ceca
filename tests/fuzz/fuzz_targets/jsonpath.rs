//! A query is read or refused at a place in it. What is read selects what `jsonpath-rust` says, by our own evaluation of
//! single places and by the index as well, or costs too much.
//!
//! Input: the query, a blank line, data.
#![no_main]

use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use libfuzzer_sys::fuzz_target;
use waypost_core::filter::index::{Index, Scratch};
use waypost_core::filter::jsonpath::Query;
use waypost_core::filter::{Candidate, Filter};
use waypost_fuzz::{event, has_plain_numbers, parts};

fuzz_target!(|input: &str| {
    let [text, data] = parts(input);
    let query = match Query::parse(text) {
        Ok(query) => query,
        Err(invalid) => return assert!(invalid.offset <= text.len() && !invalid.message.is_empty()),
    };
    let event = event("", data);
    let candidate = Candidate::new(&event);
    let selects = query.selects(&candidate);
    let filter = Filter::Jsonpath(query.clone());
    let _ = filter.doubts();
    let index = Index::build([(7, &filter)].into_iter());
    let mut scratch = Scratch::default();
    index.matches(&candidate, &mut scratch);
    assert_eq!(scratch.matched() == [7], selects == Ok(true));
    let Ok(json) = candidate.data() else { return assert_eq!(selects, Ok(false)) };
    // The reference compares all numbers as binary64.
    if selects.is_ok() && has_plain_numbers(text) && has_plain_numbers(data) {
        let read = parse_json_path(text).expect("what we read it reads");
        let selected = js_path_process(&read, json).unwrap_or_default();
        assert_eq!(selects, Ok(!selected.is_empty()));
        if query.is_singular() {
            assert_eq!(query.value_in(json), selected.first().map(|place| place.clone().val()));
        }
    }
});
