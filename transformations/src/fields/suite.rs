use serde_json::{Value, json};
use waypost_core::Event;
use waypost_core::event::json as event_json;
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::{
    Chain, ChainError, Moment, OnError, Step, TransformationConfig, Transformed,
};

use super::Fields;

fn fields(spec: &Value) -> Result<Fields, serde_json::Error> {
    serde_json::from_value(spec.clone())
}

fn compile(spec: &Value) -> Result<Chain, Vec<FieldProblem>> {
    let transformation = fields(spec).unwrap().compile()?;
    let step = Step { name: "fields".to_owned(), transformation, on_error: OnError::Fail };
    Ok(Chain::new(vec![step]))
}

fn event(data: &str) -> Event {
    let mut builder = Event::builder("A-1", "/shop", "order").subject("s").attribute("tier", "gold");
    if !data.is_empty() {
        builder = builder.json_data(data.to_owned());
    }
    builder.build().unwrap()
}

fn apply(spec: &Value, event: &Event) -> Result<Event, ChainError> {
    match compile(spec).unwrap().apply(event, Moment { arrived_nanoseconds: 0 })? {
        Transformed::Events(events) => Ok(events[0].clone()),
        Transformed::Nothing(why) => panic!("nothing came out: {why}"),
    }
}

/// The data after the operations, as text; `none` without data.
fn data(input: &str, spec: &Value) -> String {
    let out = apply(spec, &event(input)).unwrap_or_else(|error| panic!("{error}: {spec}"));
    out.data().map_or("none".to_owned(), |data| String::from_utf8(data.to_vec()).unwrap())
}

fn attribute(name: &str, operations: &Value) -> Option<String> {
    let out = apply(&json!({"context": operations}), &event(r#"{"a":1}"#)).unwrap();
    out.attribute(name).map(|value| value.text.to_owned())
}

fn step(operation: &str, key: &str, value: &str) -> Value {
    json!({"operation": operation, "paths": [{"key": key, "value": value}]})
}

fn add(key: &str, value: &str) -> Value {
    step("add", key, value)
}

fn store(name: &str, path: &str) -> Value {
    step("store", name, path)
}

/// Behaviour of TriggerMesh's adapter as it is documented and was measured, with what is decided otherwise.
#[test]
fn operations_on_data() {
    let shift = |key: &str| step("shift", key, "");
    let delete = |key: &str| step("delete", key, "");
    let cases = [
        // add
        ("{}", json!([add("a", "x")]), r#"{"a":"x"}"#),
        ("{}", json!([add("a.b.c", "x")]), r#"{"a":{"b":{"c":"x"}}}"#),
        (r#"{"a":1}"#, json!([add("a", "2")]), r#"{"a":"2"}"#),
        (r#"{"a":1}"#, json!([add("a.b", "x")]), r#"{"a":{"b":"x"}}"#),
        ("{}", json!([add("a[2]", "x")]), r#"{"a":[null,null,"x"]}"#),
        ("{}", json!([add("a[1].b", "x")]), r#"{"a":[null,{"b":"x"}]}"#),
        (r#"{"a":[1,2]}"#, json!([add("a[0]", "x")]), r#"{"a":["x",2]}"#),
        (r#"{"a":[1]}"#, json!([add("a[]", "x"), add("a[]", "y")]), r#"{"a":[1,"x","y"]}"#),
        (r#"[{"n":1}]"#, json!([add("[0].n", "x")]), r#"[{"n":"x"}]"#),
        (
            r#"{"a/b":{"x.y":1}}"#,
            json!([{"operation": "add", "paths": [{"key": "a/x.y", "value": "v", "separator": "/"}]}]),
            r#"{"a/b":{"x.y":1},"a":{"x.y":"v"}}"#,
        ),
        (
            "{}",
            json!([{"operation": "add", "paths": [{"key": "n", "value": 1.50}, {"key": "b", "value": true}]}]),
            r#"{"n":1.5,"b":true}"#,
        ),
        ("{}", json!([{"operation": "add", "paths": [{"key": "e"}]}]), r#"{"e":""}"#),
        // variables
        (
            r#"{"a":12345678901234567890}"#,
            json!([store("$a", "a"), add("b", "$a")]),
            r#"{"a":12345678901234567890,"b":12345678901234567890}"#,
        ),
        (r#"{"a":1000000}"#, json!([store("$a", "a"), add("b", "n=$a")]), r#"{"a":1000000,"b":"n=1000000"}"#),
        (
            r#"{"a":{"x":[1]}}"#,
            json!([store("$a", "a"), add("b", "o: $a")]),
            r#"{"a":{"x":[1]},"b":"o: {\"x\":[1]}"}"#,
        ),
        (
            r#"{"a":{"x":1},"b":{"y":2}}"#,
            json!([store("$a", "a"), add("b", "$a")]),
            r#"{"a":{"x":1},"b":{"y":2,"x":1}}"#,
        ),
        (r#"{"a":[9],"b":[1,2]}"#, json!([store("$a", "a"), add("b", "$a")]), r#"{"a":[9],"b":[9,2]}"#),
        ("{}", json!([add("b", "$nobody")]), r#"{"b":"$nobody"}"#),
        ("{}", json!([store("$x", "x"), add("b", "<$x>")]), r#"{"b":"<$x>"}"#),
        ("{}", json!([store("$x", "x"), add("b", "$x")]), r#"{"b":"$x"}"#),
        // a store runs first wherever it stands, and sees the value before changes
        (
            r#"{"a":"old"}"#,
            json!([add("a", "new"), add("b", "$a"), store("$a", "a")]),
            r#"{"a":"new","b":"old"}"#,
        ),
        (
            r#"{"i":"1","identity":"2"}"#,
            json!([store("$id", "i"), store("$identity", "identity"), add("t", "$id-$identity")]),
            r#"{"i":"1","identity":"2","t":"1-2"}"#,
        ),
        (
            r#"{"a":"$b (x) $a","b":"B"}"#,
            json!([store("$a", "a"), store("$b", "b"), add("t", "$a|$b")]),
            r#"{"a":"$b (x) $a","b":"B","t":"$b (x) $a|B"}"#,
        ),
        (r#"{"a":[5,6]}"#, json!([store("v", "a[1]"), add("t", "v")]), r#"{"a":[5,6],"t":6}"#),
        (r#"[1,{"n":2}]"#, json!([store("$n", "[1].n"), add("[0]", "$n")]), r#"[2,{"n":2}]"#),
        // parentheses
        (
            r#"{"n":7}"#,
            json!([store("$n", "n"), add("t", "made (order $n)")]),
            r#"{"n":7,"t":"made order 7"}"#,
        ),
        ("{}", json!([store("$n", "n"), add("t", "made (order $n)!")]), r#"{"t":"made !"}"#),
        (
            r#"{"n":7}"#,
            json!([store("$n", "n"), store("$m", "m"), add("t", "a (x $n $m)b")]),
            r#"{"n":7,"t":"a b"}"#,
        ),
        (r#"{"n":7}"#, json!([store("$n", "n"), add("t", "f(x) $n (y)")]), r#"{"n":7,"t":"f(x) 7 (y)"}"#),
        ("{}", json!([store("$n", "n"), add("t", r"\($n\)")]), r#"{"t":"\\($n\\)"}"#),
        // delete
        (r#"{"a":1,"b":2}"#, json!([delete("a")]), r#"{"b":2}"#),
        (r#"{"a":{"b":1,"c":2}}"#, json!([delete("a.b")]), r#"{"a":{"c":2}}"#),
        (r#"{"a":[1,2,3]}"#, json!([delete("a[1]")]), r#"{"a":[1,3]}"#),
        ("[1,2,3]", json!([delete("[0]")]), "[2,3]"),
        (r#"{"a":"x","b":"x"}"#, json!([step("delete", "a", "x"), step("delete", "b", "y")]), r#"{"b":"x"}"#),
        (r#"{"a":"x","b":["x",{"c":"x","d":1}]}"#, json!([step("delete", "", "x")]), r#"{"b":[{"d":1}]}"#),
        (r#"{"a":1.0,"b":"1","c":10,"d":true}"#, json!([step("delete", "", "1")]), r#"{"c":10,"d":true}"#),
        (r#"{"a":1}"#, json!([step("delete", "", "")]), "null"),
        (r#"{"a":5,"b":5}"#, json!([store("$b", "b"), step("delete", "a", "$b")]), r#"{"b":5}"#),
        (
            r#"{"a":{"b":1}}"#,
            json!([{"operation": "delete", "paths": [{"key": "a/b", "separator": "/"}]}]),
            r#"{"a":{}}"#,
        ),
        // shift
        (r#"{"a":1,"b":2}"#, json!([shift("a:c")]), r#"{"b":2,"c":1}"#),
        (r#"{"a":{"b":1}}"#, json!([shift("a.b:c.d")]), r#"{"a":{},"c":{"d":1}}"#),
        (r#"{"a":[1,2,3]}"#, json!([shift("a[1]:b")]), r#"{"a":[1,3],"b":2}"#),
        (r#"{"a":[{"x":1}],"b":[]}"#, json!([shift("a[0].x:b[]")]), r#"{"a":[{}],"b":[1]}"#),
        (r#"{"a":1}"#, json!([shift("a:a.b")]), r#"{"a":{"b":1}}"#),
        (
            r#"{"a":"x","b":"y"}"#,
            json!([step("shift", "a:c", "x"), step("shift", "b:d", "x")]),
            r#"{"b":"y","c":"x"}"#,
        ),
        (
            r#"{"n":5,"t":true}"#,
            json!([step("shift", "n:m", "5.0"), step("shift", "t:u", "true")]),
            r#"{"m":5,"u":true}"#,
        ),
        (
            r#"{"a":"v","b":"v"}"#,
            json!([store("$b", "b"), step("shift", "a:c", "$b")]),
            r#"{"b":"v","c":"v"}"#,
        ),
        // parse
        (
            r#"{"a":"{\"n\":10000000000000000001}"}"#,
            json!([step("parse", "a", "json")]),
            r#"{"a":{"n":10000000000000000001}}"#,
        ),
        (
            r#"{"a":"[1,2]"}"#,
            json!([add("b", "$x"), store("$x", "a"), step("parse", "a", "JSON")]),
            r#"{"a":[1,2],"b":"[1,2]"}"#,
        ),
        (
            r#"{"a":"[1,2]"}"#,
            json!([add("b", "$x"), step("parse", "a", "JSON"), store("$x", "a[1]")]),
            r#"{"a":[1,2],"b":2}"#,
        ),
        // without data, and data that is plain
        ("", json!([add("a", "x")]), r#"{"a":"x"}"#),
        (r#""text""#, json!([add("a", "x")]), r#"{"a":"x"}"#),
    ];
    for (input, operations, expected) in cases {
        assert_eq!(data(input, &json!({"data": operations})), expected, "{input} {operations}");
    }
}

#[test]
fn what_changes_nothing_leaves_the_data_byte_for_byte() {
    let input = r#"{ "a" : 1.0e0, "n": null }"#;
    for operations in [
        json!([step("shift", "x:y", "")]),
        json!([step("shift", "n:y", "")]),
        json!([step("shift", "a:y", "2")]),
        json!([step("shift", "a.b.c:y", "")]),
        json!([step("delete", "a.b", ""), step("delete", "a[0]", ""), step("delete", ".", "")]),
        json!([step("delete", "", "nothing is this")]),
        json!([store("$a", "a")]),
    ] {
        assert_eq!(data(input, &json!({"data": operations})), input, "{operations}");
    }
    assert_eq!(data(input, &json!({"context": [add("type", "new")]})), input);
}

#[test]
fn operations_on_attributes() {
    let cases = [
        ("type", json!([add("type", "new")]), Some("new")),
        ("type", json!([add("Type", "new")]), Some("new")),
        ("new", json!([add("extensions.new", "1")]), Some("1")),
        ("new", json!([add("Extensions.New", "1")]), Some("1")),
        ("new", json!([add("new", "1")]), Some("1")),
        ("subject", json!([store("$t", "type"), add("subject", "of $t")]), Some("of order")),
        ("subject", json!([step("delete", "subject", "")]), None),
        ("subject", json!([step("delete", "subject", "other")]), Some("s")),
        ("tier", json!([step("delete", "extensions", "")]), None),
        ("tier", json!([step("delete", "", "gold")]), None),
        ("subject", json!([step("shift", "tier:subject", "")]), Some("gold")),
        ("tier", json!([step("shift", "extensions.tier:extensions.rank", "")]), None),
        ("rank", json!([step("shift", "extensions.tier:extensions.rank", "gold")]), Some("gold")),
        ("rank", json!([step("shift", "tier:rank", "silver")]), None),
        ("subject", json!([store("$x", "time"), add("subject", "at (the $x) end")]), Some("at  end")),
        ("time", json!([add("subject", "y")]), None),
    ];
    for (name, operations, expected) in cases {
        assert_eq!(attribute(name, &operations).as_deref(), expected, "{name} {operations}");
    }
}

#[test]
fn variables_are_shared_by_both_lists() {
    let spec = json!({
        "context": [add("type", "$n"), add("id", "$flag"), add("subject", "$o"), store("$s", "source")],
        "data": [store("$n", "n"), store("$flag", "flag"), store("$o", "o"), add("from", "$s")],
    });
    let out = apply(&spec, &event(r#"{"n":9007199254740993,"flag":true,"o":{"k":[1]}}"#)).unwrap();
    assert_eq!(
        (out.event_type(), out.id(), out.subject()),
        ("9007199254740993", "true", Some(r#"{"k":[1]}"#))
    );
    assert!(out.data().unwrap().ends_with(br#""from":"/shop"}"#));
}

#[test]
fn a_parsed_attribute_is_for_variables() {
    let spec = json!({
        "context": [add("subject", r#"{"a":[1,2]}"#)],
    });
    let with_json = apply(&spec, &event("{}")).unwrap();
    let spec = json!({
        "context": [step("parse", "subject", "json"), store("$o", "subject")],
        "data": [add("o", "$o")],
    });
    let out = apply(&spec, &with_json).unwrap();
    assert_eq!(out.data().unwrap(), r#"{"o":{"a":[1,2]}}"#);
}

#[test]
fn version_and_absent_attributes_stay() {
    let old = r#"{"specversion":"0.3","id":"1","source":"/s","type":"t","schemaurl":"/x","data":{"a":1}}"#;
    let old = event_json::decode(old.as_bytes()).unwrap();
    let out = apply(&json!({"data": [add("b", "x")]}), &old).unwrap();
    assert_eq!(out.attribute("specversion").unwrap().text, "0.3");
    assert_eq!(
        (out.data_schema(), out.time(), &*out.data().unwrap()),
        (Some("/x"), None, &br#"{"a":1,"b":"x"}"#[..])
    );
}

#[test]
fn any_json_media_type_is_json_and_attributes_need_none() {
    let of = |content_type: &str, data: &str| {
        Event::builder("1", "/s", "t").data_content_type(content_type).data(data.to_owned()).build().unwrap()
    };
    for content_type in ["application/vnd.x+json", "APPLICATION/JSON; charset=utf-8", "text/json"] {
        let out = apply(&json!({"data": [add("b", "x")]}), &of(content_type, "{}")).unwrap();
        assert_eq!(
            (&*out.data().unwrap(), out.data_content_type()),
            (&br#"{"b":"x"}"#[..], Some(content_type))
        );
    }
    let text = of("text/plain", "no json");
    let out = apply(&json!({"context": [add("type", "new")]}), &text).unwrap();
    assert_eq!((out.event_type(), out.data()), ("new", text.data()));
    let error = apply(&json!({"data": [add("b", "x")]}), &text).unwrap_err();
    assert!(error.to_string().contains("text/plain"), "{error}");
}

#[test]
fn failures_tell_their_place() {
    for (input, spec, part) in [
        (r#"{"a":[1]}"#, json!({"data": [add("a.b", "x")]}), "at data.a"),
        (r#"{"a":1}"#, json!({"data": [step("parse", "a", "json")]}), "at data.a"),
        (r#"{"a":"{"}"#, json!({"data": [step("parse", "a", "json")]}), "at data.a"),
        ("{}", json!({"data": [step("parse", "a", "json")]}), "nothing to parse"),
        ("{}", json!({"context": [step("delete", "type", "")]}), "attribute type"),
        ("{}", json!({"context": [add("source", "")]}), "`source` is empty"),
        ("{}", json!({"context": [step("delete", "", "")]}), "every event has"),
        ("{}", json!({"context": [add("time", "soon")]}), "attribute time"),
        ("{}", json!({"context": [add("specversion", "0.3")]}), "specversion"),
    ] {
        let error = apply(&spec, &event(input)).unwrap_err().to_string();
        assert!(error.starts_with("fields: ") && error.contains(part), "{error}: {spec}");
    }
}

#[test]
fn a_failed_operation_changes_nothing_and_may_be_passed_over() {
    let spec = json!({"lenient": true, "data": [
        step("shift", "v:a.b", ""), step("parse", "v", "json"), add("w", "x"),
    ]});
    assert_eq!(data(r#"{"v":1,"a":[1]}"#, &spec), r#"{"v":1,"a":[1],"w":"x"}"#);
    let error =
        apply(&json!({"data": [step("shift", "v:a.b", "")]}), &event(r#"{"v":1,"a":[1]}"#)).unwrap_err();
    assert!(error.to_string().contains("array"), "{error}");
}

#[test]
fn bad_programs_are_refused_with_their_place() {
    for (spec, place) in [
        (json!({"data": [step("move", "a", "")]}), "data[0].operation"),
        (json!({"data": [step("shift", "a", "")]}), "data[0].paths[0].key"),
        (json!({"data": [step("shift", "a:b:c", "")]}), "data[0].paths[0].key"),
        (json!({"data": [step("shift", ":b", "")]}), "data[0].paths[0].key"),
        (json!({"data": [add("a", "x"), store("", "a")]}), "data[1].paths[0].key"),
        (json!({"data": [add("a[x]", "x")]}), "data[0].paths[0].key"),
        (json!({"data": [add("a[-1]", "x")]}), "data[0].paths[0].key"),
        (json!({"data": [add("a[1", "x")]}), "data[0].paths[0].key"),
        (json!({"data": [add("a[50000000]", "x")]}), "data[0].paths[0].key"),
        (json!({"data": [step("delete", "a[]", "")]}), "data[0].paths[0].key"),
        (json!({"data": [step("parse", "a", "xml")]}), "data[0].paths[0].value"),
        (json!({"context": [add("a[0]", "x")]}), "context[0].paths[0].key"),
        (json!({"context": [add("a_b", "x")]}), "context[0].paths[0].key"),
        (json!({"context": [add("a.b.c", "x")]}), "context[0].paths[0].key"),
    ] {
        let problems = compile(&spec).unwrap_err();
        assert_eq!(problems[0].path, place, "{spec}: {}", problems[0].message);
    }
    assert!(fields(&json!({"date": []})).is_err());
}

#[test]
fn growth_is_bounded() {
    // Each round doubles the data: a program that does so again and again is stopped, and nothing overflows.
    let double = json!({"data": [store("$a", "."), add("a.b", "$a"), add("c.d", "$a")]});
    let step = compile(&double).unwrap().steps()[0].clone();
    let chain = Chain::new(vec![step; 40]);
    let error = chain.apply(&event(r#"{"a":{"x":1}}"#), Moment { arrived_nanoseconds: 0 }).unwrap_err();
    assert_eq!(error.error.code.id(), "E0901", "{error}");
    let mut deeper = vec![store("$a", ".")];
    deeper.extend((0..3).map(|_| add(&["a"; 60].join("."), "$a")));
    let error =
        apply(&json!({"data": deeper}), &event(&format!("{{\"x\":{}{}}}", "[".repeat(100), "]".repeat(100))))
            .unwrap_err();
    assert_eq!(error.error.code.id(), "E0901", "{error}");
}

#[test]
fn the_same_event_gives_the_same_result() {
    let spec =
        json!({"data": [store("$a", "a"), store("$ab", "b"), store("$abc", "c"), add("t", "$abc$ab$a")]});
    let first = data(r#"{"a":1,"b":2,"c":3}"#, &spec);
    for _ in 0..50 {
        assert_eq!(data(r#"{"a":1,"b":2,"c":3}"#, &spec), first);
    }
    assert!(first.ends_with(r#""t":"321"}"#), "{first}");
}

/// A program is compiled once and keeps nothing of one event for the next.
#[test]
fn a_condition_is_that_of_each_event() {
    let spec = json!({"data": [store("$secret", "secret"), step("delete", "", "$secret")]});
    let chain = compile(&spec).unwrap();
    for (input, expected) in [
        (r#"{"secret":"x","a":"x","b":"y"}"#, r#"{"b":"y"}"#),
        (r#"{"secret":"y","a":"x","b":"y"}"#, r#"{"a":"x"}"#),
        (r#"{"secret":"x","a":"x","b":"y"}"#, r#"{"b":"y"}"#),
    ] {
        let out = match chain.apply(&event(input), Moment { arrived_nanoseconds: 0 }).unwrap() {
            Transformed::Events(events) => events[0].clone(),
            Transformed::Nothing(why) => panic!("nothing came out: {why}"),
        };
        assert_eq!(
            out.data().map(|data| String::from_utf8_lossy(&data).into_owned()).as_deref(),
            Some(expected)
        );
    }
}
