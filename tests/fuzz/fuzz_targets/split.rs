//! A query of the transformation `jsonpath` is read or refused. What is read selects and splits what `jsonpath-rust`
//! selects, cut out of the text or not.
//!
//! Input: the query, a blank line, data.
#![no_main]

use jsonpath_rust::JsonPath;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use waypost_core::transformation::json::{Json, Query};
use waypost_fuzz::transformation::{Outcome, apply, compile, data, event};
use waypost_fuzz::{has_plain_numbers, parts};

fuzz_target!(|input: &str| {
    let [text, written] = parts(input);
    let Ok(query) = Query::parse(text) else { return };
    let settings =
        [json!({"select": text}), json!({"project": {"p": text}}), json!({"split": {"path": text}})];
    let [select, project, split] =
        settings.map(|settings| compile("jsonpath", &settings).expect("the query is one"));
    let event = event(written);
    let [selected, projected, split] = [select, project, split].map(|one| apply(&one, &event));
    let (Ok(tree), Ok(value)) = (Json::read(written), serde_json::from_str::<Value>(written)) else { return };
    if written.is_empty() || !has_plain_numbers(text) || !has_plain_numbers(written) {
        return;
    }
    if [&selected, &projected, &split].contains(&&Outcome::Limit) {
        return;
    }
    assert_eq!(tree, Json::from(&value));
    let places: Vec<Json> =
        value.query(text).expect("what we read it reads").into_iter().map(Json::from).collect();
    let all = match places.as_slice() {
        [only] if query.is_singular() => Some(only.clone()),
        [] => None,
        places => Some(Json::Array(places.to_vec())),
    };
    let events = |outcome: Outcome| match outcome {
        Outcome::Events(events) => data(&events),
        other => panic!("{other:?}"),
    };
    assert_eq!(events(selected), all.clone().into_iter().map(Ok).collect::<Vec<_>>());
    let [Ok(projected)] = &events(projected)[..] else { panic!("one object is projected") };
    match all {
        Some(all) => assert_eq!(projected.member("p"), Some(&all)),
        None => assert!(query.is_singular() == projected.member("p").is_none()),
    }
    let parts = match places.as_slice() {
        [Json::Array(elements)] if query.is_singular() => elements.clone(),
        places => places.to_vec(),
    };
    assert_eq!(events(split), parts.into_iter().map(Ok).collect::<Vec<_>>());
});
