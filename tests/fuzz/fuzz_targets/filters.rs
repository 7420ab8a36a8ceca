//! Filters are read or refused. For those that are read the index, however it came to be, says what each filter says by
//! itself, and so does the explanation; a filter that is written down is read back as it was.
//!
//! Input: a list of filters in YAML, a blank line, attributes, a blank line, data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::filter::explain::Explanation;
use waypost_core::filter::index::{Index, Scratch};
use waypost_core::filter::{Candidate, Filter};
use waypost_core::manifest::{document, read_filter};
use waypost_fuzz::{event, forgive_dependencies, parts};

/// The most filters of one input.
const MOST: usize = 16;

fuzz_target!(init: forgive_dependencies(), |input: &str| {
    let [text, attributes, data] = parts(input);
    let mut filters = Vec::new();
    let read = document::parse(text, 1, |node| {
        let document::Value::List(items) = &node.value else { return };
        filters.extend(items.iter().filter_map(|item| read_filter(item.to_json()).ok()));
    });
    let _ = read;
    filters.truncate(MOST);
    if filters.is_empty() {
        return;
    }
    for filter in &filters {
        let written = serde_json::to_value(filter).expect("a filter can be written");
        assert_eq!(read_filter(written).as_ref(), Ok(filter));
        let _ = filter.doubts();
    }
    let slots = || (0_u32..).zip(&filters);
    let built = Index::build(slots());
    let mut changed = Index::default();
    // Each slot twice, with another filter at first.
    for ((slot, filter), first) in slots().zip(filters.iter().rev()) {
        changed.insert(slot, first);
        changed.remove(slot, first);
        changed.insert(slot, filter);
    }
    let mut scratch = Scratch::default();
    for event in [event(attributes, data), event(attributes, ""), event("", data)] {
        let candidate = Candidate::new(&event);
        let naive: Vec<u32> = slots().filter(|(_, filter)| says(filter, &candidate)).map(|(slot, _)| slot).collect();
        // Nothing that was found out about the data before may help the index.
        for index in [&built, &changed] {
            index.matches(&Candidate::new(&event), &mut scratch);
            assert_eq!(scratch.matched(), naive);
            let over_budget = |slot: &u32| filters[*slot as usize].matches(&candidate).is_err();
            assert!(scratch.over_budget().iter().all(over_budget));
        }
    }
    for (slot, filter) in slots() {
        changed.remove(slot, filter);
    }
    changed.matches(&Candidate::new(&event(attributes, data)), &mut scratch);
    assert!(changed.is_empty() && scratch.matched().is_empty());
});

/// What the filter says of the event, in both ways.
fn says(filter: &Filter, candidate: &Candidate<'_>) -> bool {
    let matched = filter.matches(candidate) == Ok(true);
    let explanation = Explanation::new(filter, candidate);
    assert_eq!(explanation.matched(), matched);
    assert_eq!(explanation.reason().is_none(), matched);
    assert_eq!(explanation.distance() == 0, matched);
    matched
}
