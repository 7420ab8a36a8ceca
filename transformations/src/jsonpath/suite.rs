use serde_json::{Value, json};
use waypost_core::Event;
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::{
    Chain, ChainError, Discard, Moment, OnError, Step, TransformationConfig, Transformed,
};

use super::JsonPath;

fn compile(spec: &Value) -> Result<Chain, Vec<FieldProblem>> {
    let config: JsonPath = serde_json::from_value(spec.clone()).unwrap();
    let transformation = config.compile()?;
    Ok(Chain::new(vec![Step { name: "jsonpath".to_owned(), transformation, on_error: OnError::Fail }]))
}

fn apply(spec: &Value, data: &str) -> Result<Transformed, ChainError> {
    let mut builder = Event::builder("A", "/s", "order").subject("x").attribute("tier", "gold");
    if !data.is_empty() {
        builder = builder.json_data(data.to_owned());
    }
    compile(spec).unwrap().apply(&builder.build().unwrap(), Moment { arrived_nanoseconds: 0 })
}

fn events(spec: &Value, data: &str) -> Vec<Event> {
    match apply(spec, data).unwrap_or_else(|error| panic!("{error}: {spec}")) {
        Transformed::Events(events) => events,
        Transformed::Nothing(why) => {
            assert_eq!(why, Discard::Filtered);
            Vec::new()
        }
    }
}

/// The data of each event that comes out.
fn data_of(spec: &Value, data: &str) -> Vec<String> {
    let text = |event: &Event| String::from_utf8(event.data().unwrap().to_vec()).unwrap();
    events(spec, data).iter().map(text).collect()
}

#[test]
fn data_is_selected_and_projected() {
    let order = r#"{"id":9007199254740993,"items":[{"sku":"a","n":1.10},{"sku":"b","n":2}],"none":null}"#;
    for (spec, expected) in [
        (json!({"select": "$.id"}), vec!["9007199254740993"]),
        (json!({"select": "$.items[0]"}), vec![r#"{"sku":"a","n":1.10}"#]),
        (json!({"select": "$.items[*].sku"}), vec![r#"["a","b"]"#]),
        (json!({"select": "$.items[?@.n > 1.5].sku"}), vec![r#"["b"]"#]),
        (json!({"select": "$.none"}), vec!["null"]),
        (json!({"select": "$.absent"}), vec![]),
        (json!({"select": "$.items[?@.n > 9]"}), vec![]),
        (
            json!({"project": {"z": "$.id", "a": "$.items[-1].sku"}}),
            vec![r#"{"a":"b","z":9007199254740993}"#],
        ),
        (
            json!({"project": {"x": "$.absent", "all": "$..sku", "no": "$.absent[*]"}}),
            vec![r#"{"all":["a","b"],"no":[]}"#],
        ),
    ] {
        assert_eq!(data_of(&spec, order), expected, "{spec}");
    }
    assert_eq!(data_of(&json!({"project": {"x": "$.a"}}), ""), ["{}"]);
    assert!(data_of(&json!({"select": "$"}), "").is_empty());
}

#[test]
fn data_is_split() {
    let split = |path: &str| json!({"split": {"path": path}});
    for (path, data, expected) in [
        ("$.a", r#"{"a":[1,"x",{"b":2.0},[3],null]}"#, vec!["1", "\"x\"", r#"{"b":2.0}"#, "[3]", "null"]),
        ("$.a[*]", r#"{"a":[1,2]}"#, vec!["1", "2"]),
        ("$", "[1,2]", vec!["1", "2"]),
        ("$.a", r#"{"a":{"b":1}}"#, vec![r#"{"b":1}"#]),
        ("$.a", r#"{"a":7}"#, vec!["7"]),
        ("$.a[?@.n > 1]", r#"{"a":[{"n":1},{"n":2},{"n":3}]}"#, vec![r#"{"n":2}"#, r#"{"n":3}"#]),
        ("$.*", r#"{"x":[1],"y":2}"#, vec!["[1]", "2"]),
        ("$.b", r#"{"a":[1]}"#, vec![]),
        ("$.a", r#"{"a":[]}"#, vec![]),
    ] {
        assert_eq!(data_of(&split(path), data), expected, "{path} {data}");
    }
}

#[test]
fn parts_say_where_they_come_from() {
    let parts =
        events(&json!({"split": {"path": "$", "type": "part", "extensions": {"kind": "line"}}}), "[1,2]");
    let attribute = |event: &Event, name: &str| event.attribute(name).map(|value| value.text.to_owned());
    for (number, part) in parts.iter().enumerate() {
        assert_eq!((part.id(), part.event_type()), (&*format!("A-{number}"), "part"));
        assert_eq!((part.source(), part.subject()), ("/s", Some("x")));
        assert_eq!(attribute(part, "splitparentid").as_deref(), Some("A"));
        assert_eq!(attribute(part, "splitindex"), Some(number.to_string()));
        assert_eq!(attribute(part, "splitcount").as_deref(), Some("2"));
        assert_eq!(
            (attribute(part, "tier").as_deref(), attribute(part, "kind").as_deref()),
            (Some("gold"), Some("line"))
        );
    }
    let bare = json!({"split": {"path": "$", "dropAttributes": true, "mark": false}});
    let names: Vec<String> = events(&bare, "[1]")[0].attributes().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["id", "source", "type", "datacontenttype"]);
}

#[test]
fn failures_have_a_reason() {
    let many = format!("[{}1]", "1,".repeat(1_000));
    let error = apply(&json!({"split": {"path": "$"}}), &many).unwrap_err();
    assert_eq!(error.error.code.id(), "E0901", "{error}");
    let error = apply(&json!({"split": {"path": "$", "type": ""}}), "[1]").unwrap_err();
    assert!(error.to_string().contains("`type` is empty"), "{error}");
}

#[test]
fn bad_programs_are_refused_with_their_place() {
    for (spec, place) in [
        (json!({}), ""),
        (json!({"select": "$", "split": {"path": "$"}}), ""),
        (json!({"select": "a.b"}), "select"),
        (json!({"project": {"x": "$["}}), "project.x"),
        (json!({"split": {"path": "$.a[?"}}), "split.path"),
    ] {
        let problems = compile(&spec).unwrap_err();
        assert_eq!(problems[0].path, place, "{spec}: {}", problems[0].message);
    }
}
