//! TriggerMesh's kinds from the manifest to the event that comes out: their documented and measured behaviour, and what
//! is decided otherwise.

use serde_json::{Value, json};
use waypost_core::Event;
use waypost_core::manifest::{ManifestFile, Spec};
use waypost_core::transformation::{Chain, Moment, Step, Transformed};

use crate::TRANSFORMATIONS;

/// The chain of a manifest.
fn chain(kind: &str, spec: &Value) -> Chain {
    let group = if matches!(kind, "Splitter" | "Filter") { "routing" } else { "flow" };
    let manifest = json!({
        "apiVersion": format!("{group}.triggermesh.io/v1alpha1"), "kind": kind, "metadata": {"name": "t"}, "spec": spec,
    });
    let file = ManifestFile::read("a.yaml", manifest.to_string().as_bytes());
    let resource = &file.resources[0];
    let Some(Spec::Transformation(spec)) = &resource.spec else { panic!("{:?}", resource.problems) };
    let (type_name, settings) = &spec.component.candidates[0];
    let row = TRANSFORMATIONS.iter().find(|row| row.name == type_name).unwrap();
    let transformation =
        (row.configure)(&settings.to_json()).unwrap_or_else(|problems| panic!("{problems:?}"));
    Chain::new(vec![Step { name: "t".to_owned(), transformation, on_error: spec.on_error }])
}

fn event(data: &str) -> Event {
    Event::builder("A-1", "/shop", "order")
        .subject("s")
        .attribute("tier", "gold")
        .json_data(data.to_owned())
        .build()
        .unwrap()
}

fn outputs(kind: &str, spec: &Value, event: &Event) -> Vec<Event> {
    match chain(kind, spec).apply(event, Moment { arrived_nanoseconds: 0 }).unwrap() {
        Transformed::Events(events) => events,
        Transformed::Nothing(_) => Vec::new(),
    }
}

fn texts(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| String::from_utf8(event.data().unwrap_or_default().to_vec()).unwrap();
    events.iter().map(text).collect()
}

#[test]
fn splitter() {
    for (path, data, expected) in [
        ("items", r#"{"items":[1,2,3]}"#, vec!["1", "2", "3"]),
        ("items", r#"{"items":["a"]}"#, vec!["\"a\""]),
        ("items", r#"{"items":[{"x":1},{"x":2}]}"#, vec![r#"{"x":1}"#, r#"{"x":2}"#]),
        ("items", r#"{"items":[[1],[2,3]]}"#, vec!["[1]", "[2,3]"]),
        ("items", r#"{"items":[null,true,false]}"#, vec!["null", "true", "false"]),
        ("items", r#"{"items":[9007199254740993]}"#, vec!["9007199254740993"]),
        ("items", r#"{"items":[1.10,1e3,-0.5]}"#, vec!["1.10", "1e3", "-0.5"]),
        ("items", r#"{"items":["\u00e9\n"]}"#, vec![r#""\u00e9\n""#]),
        // What is no array is one event; what is not there is none.
        ("items", r#"{"items":{"a":1}}"#, vec![r#"{"a":1}"#]),
        ("items", r#"{"items":"text"}"#, vec!["\"text\""]),
        ("items", r#"{"items":7}"#, vec!["7"]),
        ("items", r#"{"items":true}"#, vec!["true"]),
        ("items", r#"{"items":[]}"#, vec![]),
        ("items", r#"{"other":[1]}"#, vec![]),
        ("items", "{}", vec![]),
        ("items", "[1,2]", vec![]),
        // Paths.
        ("order.items", r#"{"order":{"items":[1,2]}}"#, vec!["1", "2"]),
        ("a.b.c.d", r#"{"a":{"b":{"c":{"d":[5]}}}}"#, vec!["5"]),
        ("a.0", r#"{"a":[[1,2],[3]]}"#, vec!["1", "2"]),
        ("a.1", r#"{"a":[[1,2],[3]]}"#, vec!["3"]),
        ("a.0.b", r#"{"a":[{"b":[1]},{"b":[2]}]}"#, vec!["1"]),
        ("a.9", r#"{"a":[[1]]}"#, vec![]),
        ("a.b", r#"{"a":[{"b":1}]}"#, vec![]),
        ("a.b", r#"{"a":"text"}"#, vec![]),
        (r"a\.b", r#"{"a.b":[1],"a":{"b":[2]}}"#, vec!["1"]),
        ("0", "[[1,2]]", vec!["1", "2"]),
        ("it's", r#"{"it's":[1]}"#, vec!["1"]),
        ("with space", r#"{"with space":[1]}"#, vec!["1"]),
        ("ключ", r#"{"ключ":[1]}"#, vec!["1"]),
        ("Items", r#"{"items":[1]}"#, vec![]),
        ("items", r#"{"items":[1],"items":[2]}"#, vec!["2"]),
        ("dash-ed", r#"{"dash-ed":[1]}"#, vec!["1"]),
    ] {
        let spec = json!({"path": path, "ceContext": {"type": "part", "source": "/split"}});
        let parts = outputs("Splitter", &spec, &event(data));
        assert_eq!(texts(&parts), expected, "{path} {data}");
        for (number, part) in parts.iter().enumerate() {
            assert_eq!(
                (part.id(), part.event_type(), part.source()),
                (&*format!("A-1-{number}"), "part", "/split")
            );
            assert_eq!((part.subject(), part.attribute("tier")), (None, None), "they are not taken over");
        }
    }
}

#[test]
fn splitter_context() {
    let spec = json!({"path": "items", "ceContext": {"type": "t", "source": "/s", "extensions": {"a": "1", "b": "x"}}});
    let parts = outputs("Splitter", &spec, &event(r#"{"items":[1,2]}"#));
    let text = |name: &str| parts[1].attribute(name).map(|value| value.text.to_owned());
    assert_eq!((text("a").as_deref(), text("b").as_deref()), (Some("1"), Some("x")));
    assert_eq!((text("splitindex").as_deref(), text("splitcount").as_deref()), (Some("1"), Some("2")));
    assert_eq!(
        (text("splitparentid").as_deref(), text("datacontenttype").as_deref()),
        (Some("A-1"), Some("application/json"))
    );
}

#[test]
fn filter() {
    let user = r#"{"user":{"age":19,"name":"Ada","tags":["a"],"vip":true,"score":1.5},"n":0,"a_b":"under","kind":"x"}"#;
    for (expression, expected) in [
        ("$user.age.(int64) > 18", true),
        ("$user.age.(int64) > 19", false),
        ("$user.age.(int64) == 19", true),
        ("$user.age.(uint64) == 19u", true),
        ("$user.age.(double) == 19.0", true),
        ("$user.score.(double) > 1.0", true),
        ("$user.score.(int64) == 1", true),
        ("$user.name.(string) == \"Ada\"", true),
        ("$user.name.(string) == 'Bob'", false),
        ("$user.name.(string) != 'Bob'", true),
        ("$user.name.(string).startsWith('A')", true),
        ("$user.name.(string).contains('x')", false),
        ("$user.name.(string).matches('^A')", true),
        ("size($user.name.(string)) == 3", true),
        ("$user.vip.(bool)", true),
        ("!$user.vip.(bool)", false),
        ("$user.vip.(bool) == true", true),
        ("$user.age.(int64) > 18 && $kind.(string) == \"x\"", true),
        ("$user.age.(int64) > 20 || $kind.(string) == \"x\"", true),
        ("$user.age.(int64) > 20 && $kind.(string) == \"x\"", false),
        ("($user.age.(int64) + 1) * 2 == 40", true),
        ("$n.(int64) == 0", true),
        // What is not there is the zero of its type.
        ("$missing.(int64) == 0", true),
        ("$missing.(int64) < 30", true),
        ("$missing.(uint64) == 0u", true),
        ("$missing.(double) == 0.0", true),
        ("$missing.(string) == \"\"", true),
        ("$missing.(bool)", false),
        ("$user.missing.deeper.(string) == ''", true),
        // A dot and an underscore are two things here.
        ("$a_b.(string) == 'under' && $a.b.(string) == ''", true),
        ("$a.b.(string) == 'under'", false),
        // What is quoted is text.
        ("'$user.age.(int64)' != $kind.(string)", true),
        ("true", true),
        ("false", false),
    ] {
        let event = event(user);
        let out = outputs("Filter", &json!({"expression": expression}), &event);
        assert_eq!(out.len(), usize::from(expected), "{expression}");
        assert!(out.iter().all(|one| *one == event), "it passes as it is: {expression}");
    }
}

/// As TriggerMesh's adapter does it, or as was decided where it loses data, panics or depends on chance.
#[test]
fn transformation() {
    let place = |operation: &str, key: &str, value: &str| json!({"operation": operation, "paths": [{"key": key, "value": value}]});
    let store = |name: &str, path: &str| place("store", name, path);
    let add = |key: &str, value: &str| place("add", key, value);
    let shift = |key: &str| place("shift", key, "");
    for (data, operations, expected) in [
        (r#"{"id":9007199254740993}"#, json!([shift("id:key")]), r#"{"key":9007199254740993}"#),
        (
            r#"{"n":1000000}"#,
            json!([store("$n", "n"), add("t", "total $n")]),
            r#"{"n":1000000,"t":"total 1000000"}"#,
        ),
        (r#"{"a":"(x)"}"#, json!([store("$a", "a"), add("t", "<$a>")]), r#"{"a":"(x)","t":"<(x)>"}"#),
        (
            r#"{"a":"$b","b":"B"}"#,
            json!([store("$a", "a"), store("$b", "b"), add("t", "$a!")]),
            r#"{"a":"$b","b":"B","t":"$b!"}"#,
        ),
        (
            r#"{"i":"1","k":"2"}"#,
            json!([store("$id", "i"), store("$identity", "k"), add("t", "$identity/$id")]),
            r#"{"i":"1","k":"2","t":"2/1"}"#,
        ),
        (
            r#"{"o":{"k":[1]}}"#,
            json!([store("$o", "o"), add("t", "is $o")]),
            r#"{"o":{"k":[1]},"t":"is {\"k\":[1]}"}"#,
        ),
        (r#"{"a":[1,2,3]}"#, json!([place("delete", "a[1]", "")]), r#"{"a":[1,3]}"#),
        (r#"{"a":[1,2,3]}"#, json!([shift("a[1]:b")]), r#"{"a":[1,3],"b":2}"#),
        (r#"{"n":5}"#, json!([place("shift", "n:m", "5")]), r#"{"m":5}"#),
        (r#"{"ok":true}"#, json!([place("shift", "ok:yes", "true")]), r#"{"yes":true}"#),
        (r#"{"a":[7]}"#, json!([store("$a", "a[0]"), add("b", "$a")]), r#"{"a":[7],"b":7}"#),
        // A failed operation is passed over, and the others apply.
        (r#"{"a":1}"#, json!([place("parse", "a", "json"), add("b", "x")]), r#"{"a":1,"b":"x"}"#),
        (
            r#"{"a":"no json"}"#,
            json!([place("parse", "a", "json"), add("b", "x")]),
            r#"{"a":"no json","b":"x"}"#,
        ),
        (r#"{"a":[1],"v":2}"#, json!([shift("v:a.b"), add("c", "x")]), r#"{"a":[1],"v":2,"c":"x"}"#),
    ] {
        let out = outputs("Transformation", &json!({"data": operations}), &event(data));
        assert_eq!(texts(&out), [expected], "{data} {operations}");
    }
}

#[test]
fn transformation_goes_on_where_it_cannot_apply() {
    let spec = json!({"context": [{"operation": "add", "paths": [{"key": "type", "value": ""}]}]});
    let before = event("{ \"a\": 1 }");
    assert_eq!(outputs("Transformation", &spec, &before), [before], "an event without a type is none");
    // A condition by a variable is that of each event, not of the first.
    let spec = json!({"data": [
        {"operation": "store", "paths": [{"key": "$v", "value": "v"}]},
        {"operation": "delete", "paths": [{"key": "a", "value": "$v"}]},
    ]});
    let chain = chain("Transformation", &spec);
    for (data, expected) in [
        (r#"{"a":"x","v":"x"}"#, r#"{"v":"x"}"#),
        (r#"{"a":"y","v":"y"}"#, r#"{"v":"y"}"#),
        (r#"{"a":"x","v":"y"}"#, r#"{"a":"x","v":"y"}"#),
    ] {
        let Ok(Transformed::Events(out)) = chain.apply(&event(data), Moment { arrived_nanoseconds: 0 })
        else {
            panic!("{data}")
        };
        assert_eq!(texts(&out), [expected]);
    }
}
