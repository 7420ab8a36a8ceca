//! Our readers of JSON take what `serde_json` takes, and read the same values: the one of the index, which builds nothing,
//! and the one of the transformations, which keeps numbers as they are written.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use waypost_core::filter::index::{Index, Scratch};
use waypost_core::filter::jsonpath::Query as FilterQuery;
use waypost_core::filter::{Candidate, Filter};
use waypost_core::transformation::Document;
use waypost_core::transformation::json::{Json, NotJson, Query, Wanted};
use waypost_fuzz::{event, has_plain_numbers, transformation};

/// Places that the index is asked for.
static PLACES: LazyLock<(Vec<Filter>, Index)> = LazyLock::new(|| {
    let places = ["$", "$.a", "$.a.b", "$[0]", "$.a[1]", "$[?$.a == 1]"];
    let filter = |path: &str| Filter::Jsonpath(FilterQuery::parse(path).expect("a query"));
    let filters: Vec<Filter> = places.into_iter().map(filter).collect();
    let index = Index::build((0..).zip(&filters));
    (filters, index)
});

/// The arrays that are split, with the names that lead to them.
static SPLIT: LazyLock<[Query; 2]> =
    LazyLock::new(|| ["$", "$.a"].map(|path| Query::parse(path).expect("a query")));

fuzz_target!(|text: &str| {
    let reference: Option<Value> = serde_json::from_str(text).ok();
    let ours = Json::read(text);
    match (&reference, &ours) {
        (Some(reference), Ok(ours)) => {
            let written = ours.to_string();
            assert_eq!(serde_json::from_str::<Value>(&written).ok().as_ref(), Some(reference));
            assert_eq!(&ours.to_value(), reference);
            assert_eq!(Json::read(&written).as_ref(), Ok(ours));
            assert!(ours.depth() <= 128);
        }
        // A number beyond binary64 is the one thing that only we take. It may stand in a member that comes twice.
        (None, Ok(_)) => assert!(!has_plain_numbers(text), "{text}"),
        (Some(_), Err(error)) => panic!("{text:?} is refused: {error}"),
        (None, Err(error)) => assert!(!error.detail.is_empty()),
    }
    wanted(text, &ours);
    parts(text, ours.as_ref().ok());
    places(text, reference.as_ref());
});

/// Whether text is JSON does not depend on what is wanted of it.
fn wanted(text: &str, ours: &Result<Json, NotJson>) {
    let event = transformation::event(text);
    let document = Document::new(&event);
    let mut some = Wanted::Kind;
    *some.member("a").element(1) = Wanted::Whole;
    for wanted in [Wanted::Whole, Wanted::Kind, some] {
        let read = document.read_wanted(&wanted);
        assert_eq!(read.is_ok(), ours.is_ok());
        match (&wanted, read, ours) {
            (Wanted::Whole, Ok(Some(read)), Ok(ours)) => assert_eq!(&read, ours),
            (Wanted::Members(_), Ok(Some(read)), Ok(ours)) => {
                let second = |json: &Json| match json.member("a") {
                    Some(Json::Array(elements)) => elements.get(1).cloned(),
                    _ => None,
                };
                assert_eq!(second(&read), second(ours));
            }
            _ => {}
        }
    }
}

/// The parts that a split cuts out of the text are what stands at that place in the tree.
fn parts(text: &str, tree: Option<&Json>) {
    let root = tree.cloned();
    let member = tree.and_then(|tree| tree.member("a")).cloned();
    for (query, place) in SPLIT.iter().zip([root, member]) {
        let Some(parts) = query.parts(text) else {
            assert!(tree.is_none(), "{query:?} is not cut out of {text}");
            continue;
        };
        assert!(tree.is_some());
        let expected = match place {
            Some(Json::Array(elements)) => elements,
            Some(value) => vec![value],
            None => Vec::new(),
        };
        let parts: Vec<_> =
            parts.into_iter().map(|range| Json::read(&text[range]).expect("a part is JSON")).collect();
        assert_eq!(parts, expected);
    }
}

/// The index finds in the text what is in the tree.
fn places(text: &str, tree: Option<&Value>) {
    let (filters, index) = &*PLACES;
    let event = event("", text);
    let mut scratch = Scratch::default();
    index.matches(&Candidate::new(&event), &mut scratch);
    let candidate = Candidate::new(&event);
    assert_eq!(candidate.data().ok(), tree);
    let selects = |filter: &Filter| filter.matches(&candidate) == Ok(true);
    let naive: Vec<u32> =
        (0..).zip(filters).filter(|(_, filter)| selects(filter)).map(|(slot, _)| slot).collect();
    assert_eq!(scratch.matched(), naive);
}
