use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use waypost_core::transformation::{Chain, OnError, Step, Transformed};

use super::Projection;
use crate::trial;

fn made(query: &str, data: &str) -> Result<String, String> {
    trial::data("jq", &json!({ "query": query }), data)
}

/// The same by the crates, whatever the program.
fn made_by_the_crates(query: &str, data: &str) -> Result<String, String> {
    let query = format!("({query}) | first(.)");
    assert!(Projection::of(&query).is_none(), "{query}");
    made(&query, data)
}

#[test]
fn what_only_puts_parts_together_is_a_projection() {
    for query in [
        ".",
        ".a",
        ".a.b[0].c",
        ".[\"a b\"]",
        ".\"a\\u0062\"",
        "{id, total, name: .customer.name, first: .items[0].sku}",
        "{a: {b: .c, d: [.e, .f, [], {}]}, n: 1, t: \"x\", z: null, y: true}",
        ".a | {b, c: .d | .e}",
        "(.a) | (.b)",
        "# why\n.a",
        "\"x\"",
    ] {
        assert!(Projection::of(query).is_some(), "{query}");
        for data in ["{}", r#"{"a":{"b":[{"c":1}]},"customer":{"name":"x"},"items":[]}"#, "null", "[1]", "1"]
        {
            assert_eq!(made(query, data), made_by_the_crates(query, data), "{query} {data}");
        }
    }
}

#[test]
fn what_does_more_is_none() {
    for query in [
        ".a?",
        ".[]",
        ".[1:]",
        ".[-1]",
        ".[1.0]",
        ".[.a]",
        ".a, .b",
        "..",
        "{(.a): 1}",
        "{\"a\\(.b)\": 1}",
        "{$x}",
        "$attributes",
        "@base64",
        "@json \"x\"",
        "length",
        ".a // 1",
        ".a + .b",
        "1.50",
        "1e2",
        "123456789012345678901",
        ".a | 1",
        ".a | {}",
        "{a: .b | [1]}",
        "1 | .a",
        "def null: 1; null",
        ".a as $x | .b",
        "try .a",
        ".a |= 1",
    ] {
        assert!(Projection::of(query).is_none(), "{query}");
    }
}

#[test]
fn limits_are_those_of_the_crates() {
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let long = format!("[1{}]", "0".repeat(1_000));
    for (query, data) in [
        ("{a: .}", deep(126)),
        ("{a: .}", deep(127)),
        ("[[.]]", deep(126)),
        (".", deep(127)),
        (".", deep(128)),
        (".[0]", long),
    ] {
        let made = made(query, &data);
        assert_eq!(made, made_by_the_crates(query, &data), "{query}");
    }
    assert!(made("[[.]]", &deep(126)).is_err());
    assert!(made("[.]", &deep(126)).is_ok());
}

#[test]
fn what_is_not_looked_at_is_checked() {
    for data in [r#"{"a":1,"b":[1,}"#, r#"{"a":1,"b":"\x"}"#, r#"{"a":1} x"#, r#"{"b":01,"a":1}"#] {
        let refused = made(".a", data);
        assert!(refused.as_ref().is_err_and(|reason| reason.contains("cannot be read")), "{refused:?}");
        assert_eq!(refused, made_by_the_crates(".a", data));
    }
    assert_eq!(
        made("{a, c: .b[1]}", r#"{ "b": [ {}, 1.50 ], "\u0061": 9007199254740993, "a": 2 }"#),
        Ok(r#"{"a":2,"c":1.50}"#.to_owned())
    );
}

#[test]
fn data_that_a_step_before_has_changed_is_taken() {
    let step = |query| Step {
        name: "step".to_owned(),
        transformation: trial::compile("jq", &json!({ "query": query })).unwrap(),
        on_error: OnError::Fail,
    };
    let event = trial::event(r#"{"b":[1,{"d":2}]}"#);
    for first in ["{a: .b}", "{a: (.b | first(.))}"] {
        let chain = Chain::new(vec![step(first), step("{c: .a[1]}")]);
        let Ok(Transformed::Events(events)) = chain.apply(&event, trial::MOMENT) else {
            panic!("it makes an event")
        };
        assert_eq!(trial::text_of(&events[0]), r#"{"c":{"d":2}}"#);
    }
}

/// The text of JSON, with blanks, escapes, repeated names and all sorts of numbers.
fn any_data() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(
            &[
                "null",
                "true",
                "false",
                "1.50",
                "-0",
                "9007199254740993",
                "1e400",
                "\"\\u00e9\\n\"",
                "[]",
                "{ }"
            ][..]
        )
        .prop_map(str::to_owned),
        any::<f64>()
            .prop_filter("a number", |number| number.is_finite())
            .prop_map(|number| number.to_string()),
        ".{0,4}".prop_map(|text| json!(text).to_string()),
    ];
    let name = prop::sample::select(&["\"a\"", "\"b\"", " \"c\" ", "\"\\u0061\"", "\"\""][..]);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|elements| format!("[{}]", elements.join(" ,"))),
            vec((name.clone(), inner), 0..5).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    })
}

fn any_query() -> impl Strategy<Value = String> {
    let hop = prop::sample::select(&[".a", ".b", ".c", "[0]", "[1]", "[\"\"]"][..]);
    let place = vec(hop, 0..4).prop_map(|hops| match hops.concat() {
        path if path.is_empty() => ".".to_owned(),
        path if path.starts_with('[') => format!(".{path}"),
        path => path,
    });
    let leaf = prop_oneof![
        4 => place,
        1 => prop::sample::select(&["null", "true", "7", "\"x\\n\"", "{}", "[]"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let name = prop::sample::select(&["a", "b", "\"c d\""][..]);
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(|forms| format!("[{}]", forms.join(", "))),
            vec((name, inner.clone(), any::<bool>()), 0..4).prop_map(|members| {
                let members = members.into_iter().map(|(name, form, short)| {
                    if short { name.to_owned() } else { format!("{name}: ({form})") }
                });
                format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
            }),
            (inner.clone(), inner).prop_map(|(first, then)| format!("({first}) | {then}")),
        ]
    })
}

proptest! {
    #[test]
    fn it_does_as_the_crates_do(query in any_query(), data in any_data()) {
        prop_assert_eq!(made(&query, &data), made_by_the_crates(&query, &data), "{} {}", query, data);
    }
}
