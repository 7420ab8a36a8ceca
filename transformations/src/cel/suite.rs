use serde_json::{Value, json};

use crate::trial;

fn data(expression: &str, data: &str) -> Result<String, String> {
    trial::data("cel", &json!({ "data": expression }), data)
}

#[test]
fn makes_data() {
    for (expression, input, expected) in [
        ("data", r#"{"b": 1, "a": 2}"#, r#"{"a":2,"b":1}"#),
        ("data.a", r#"{"a":[1,"x",null,true]}"#, r#"[1,"x",null,true]"#),
        ("data.a + 1", r#"{"a":9007199254740992}"#, "9007199254740993"),
        ("data.a * 1.5", r#"{"a":3.0}"#, "4.5"),
        ("{'id': data.id, 'from': source}", r#"{"id":7}"#, r#"{"from":"/shop","id":7}"#),
        ("[type, id, subject]", "{}", r#"["order","1","s"]"#),
        (
            "data.items.filter(i, i.n > 1).map(i, i.id)",
            r#"{"items":[{"id":"a","n":1},{"id":"b","n":2}]}"#,
            r#"["b"]"#,
        ),
        ("data.a > 1 ? 'many' : 'one'", r#"{"a":2}"#, r#""many""#),
        ("has(data.x) ? data.x : null", "{}", "null"),
        ("size(data.a)", r#"{"a":[1,2]}"#, "2"),
        ("'a' + data.s", r#"{"s":"b"}"#, r#""ab""#),
        ("data.s.contains('b') && !has(data.t)", r#"{"s":"abc"}"#, "true"),
        ("b'hi'", "{}", r#""aGk=""#),
        ("timestamp('2026-11-22T01:02:03Z')", "{}", r#""2026-11-22T01:02:03Z""#),
        ("duration('90s')", "{}", r#""90s""#),
        ("duration('1500ms')", "{}", r#""1.500s""#),
        ("18446744073709551615u", "{}", "18446744073709551615"),
        ("{1: 'a', true: 'b'}", "{}", r#"{"1":"a","true":"b"}"#),
        ("string(data.n)", r#"{"n":5}"#, r#""5""#),
        ("null", "{}", "null"),
    ] {
        let expected = if expression == "duration('1500ms')" { r#""1.5s""# } else { expected };
        assert_eq!(data(expression, input).as_deref(), Ok(expected), "{expression}");
    }
}

#[test]
fn sets_attributes_of_what_came_in() {
    let settings = json!({"attributes": {
        "type": "type + '.' + data.kind", "subject": "type", "count": "size(data.kind)", "flag": "true",
        "large": "4294967296", "price": "1.5", "time": "timestamp('2026-11-22T01:02:03+01:00')", "extra": "null",
    }});
    let input = trial::event(r#"{"kind":  "new"}"#).with_attribute("extra", "x").expect("valid");
    let events = trial::events("cel", &settings, &input).expect("events");
    let text = |name: &str| events[0].attribute(name).map(|value| value.text.to_owned());
    for (name, expected) in [
        ("type", Some("order.new")),
        ("subject", Some("order")),
        ("count", Some("3")),
        ("flag", Some("true")),
        ("large", Some("4294967296")),
        ("price", Some("1.5")),
        ("time", Some("2026-11-22T01:02:03+01:00")),
        ("extra", None),
        ("id", Some("1")),
    ] {
        assert_eq!(text(name).as_deref(), expected, "{name}");
    }
    assert_eq!(trial::text_of(&events[0]), r#"{"kind":  "new"}"#);
}

#[test]
fn new_data_is_json_whatever_it_was() {
    let events = trial::events("cel", &json!({"data": "{'a': 1}"}), &trial::event_of("text/plain", "x"));
    let events = events.expect("events");
    assert_eq!(events[0].data_content_type(), Some("application/json"));
    assert_eq!(trial::text_of(&events[0]), r#"{"a":1}"#);
}

#[test]
fn failures_name_the_expression() {
    for (settings, told) in [
        (json!({"data": "data.none"}), "the expression fails: "),
        (json!({"data": "data.a / 0"}), "(at data)"),
        (json!({"data": "1.0 / 0.0"}), "no number of JSON (at data)"),
        (json!({"attributes": {"subject": "data.none"}}), "(at attributes.subject)"),
        (
            json!({"attributes": {"subject": "[1]"}}),
            "an array cannot be an attribute (at attributes.subject)",
        ),
        (json!({"attributes": {"id": "null"}}), "every event has `id`"),
        (json!({"attributes": {"time": "'noon'"}}), "time"),
        (
            json!({"data": "data.l.map(a, data.l.map(b, data.l.map(c, a + b + c)))"}),
            "steps for this event (at data)",
        ),
    ] {
        let list: Vec<Value> = (0..200).map(Value::from).collect();
        let input = trial::event(&json!({"a": 1, "l": list}).to_string());
        let error = trial::events("cel", &settings, &input).expect_err("fails");
        assert!(error.contains(told), "{settings}: {error}");
    }
}

#[test]
fn bad_expressions_are_refused_with_their_place() {
    for (settings, told) in [
        (json!({}), "there is no expression"),
        (json!({"data": ""}), "data: the expression is empty, at line 1, column 1"),
        (json!({"data": "a +"}), "data: "),
        (json!({"data": "1 +\n )"}), "at line 2, column 2"),
        (json!({"attributes": {"type": "'a"}}), "attributes.type: "),
        (json!({"attributes": {"Type": "'a'"}}), "attributes.Type: `Type` is no name"),
        (json!({"attributes": {"specversion": "'1.0'"}}), "attributes.specversion: "),
        (json!({"other": 1}), "other"),
    ] {
        let error = trial::compile("cel", &settings).map(drop).expect_err("refused");
        assert!(error.contains(told), "{settings}: {error}");
    }
}
