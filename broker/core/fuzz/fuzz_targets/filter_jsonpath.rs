//! Any query is read or refused at a place in it; what is read selects or costs too much, whatever the data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::Event;
use waypost_core::filter::Candidate;
use waypost_core::filter::jsonpath::Query;

fuzz_target!(|input: (&str, &str)| {
    let (text, data) = input;
    let query = match Query::parse(text) {
        Ok(query) => query,
        Err(invalid) => return assert!(invalid.offset <= text.len()),
    };
    let Ok(event) = Event::builder("1", "/", "t").data(data.to_owned()).build() else { return };
    let _ = query.selects(&Candidate::new(&event));
});
