//! Text to trees: values, places, limits.

use proptest::prelude::*;

use super::*;
use crate::codes;

fn documents(text: &str) -> Result<Vec<Node>, SyntaxProblem> {
    let mut documents = Vec::new();
    parse(text, 1, |node| documents.push(node)).map(|()| documents)
}

fn only(text: &str) -> Node {
    let mut documents = documents(text).expect(text);
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

fn json(text: &str) -> serde_json::Value {
    let node = only(text);
    let json = node.to_json();
    assert_eq!(serde_json::to_string(&node).expect("a tree is JSON"), json.to_string(), "{text}");
    json
}

#[test]
fn scalars_follow_the_core_schema() {
    for (text, expected) in [
        ("yes", r#""yes""#),
        ("no", r#""no""#),
        ("on", r#""on""#),
        ("off", r#""off""#),
        ("true", "true"),
        ("False", "false"),
        ("tRUE", r#""tRUE""#),
        ("12", "12"),
        ("-12", "-12"),
        ("+12", "12"),
        ("007", "7"),
        ("0o17", "15"),
        ("0x1F", "31"),
        ("0x", r#""0x""#),
        ("0x+1", r#""0x+1""#),
        ("1_000", r#""1_000""#),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("1e3", "1000.0"),
        ("1e", r#""1e""#),
        (".", r#"".""#),
        ("1.2.3", r#""1.2.3""#),
        ("18446744073709551615", "18446744073709551615"),
        ("1e999", r#""1e999""#),
        (".inf", r#"".inf""#),
        ("12s", r#""12s""#),
        ("2026-01-01", r#""2026-01-01""#),
        ("'12'", r#""12""#),
        ("\"true\"", r#""true""#),
        ("!!str 12", r#""12""#),
        ("!!int '12'", "12"),
        ("! 12", r#""12""#),
    ] {
        let value = json(&format!("a: {text}"))["a"].clone();
        assert_eq!(value.to_string(), expected, "{text}");
    }
    for null in ["a:", "a: ~", "a: null", "a: Null"] {
        assert!(json(null)["a"].is_null(), "{null}");
    }
}

#[test]
fn json_is_read_as_it_is() {
    let text = r#"{"a": [1, -2.5, true, null, "x\n\"é", {"b": {}}], "c": ""}"#;
    let expected: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(json(text), expected);
}

#[test]
fn several_documents_and_empty_ones() {
    let read = documents("---\n# nothing\n---\na: 1\n---\n\n---\nb: 2\n...\n").expect("valid");
    assert_eq!(
        read.iter().map(|node| node.to_json().to_string()).collect::<Vec<_>>(),
        [r#"{"a":1}"#, r#"{"b":2}"#]
    );
    assert_eq!(read[1].mark.line, 8);
    assert_eq!(documents(""), Ok(Vec::new()));
    assert_eq!(documents("# a comment\n"), Ok(Vec::new()));
}

#[test]
fn a_path_leads_to_its_place() {
    let node = only(
        "metadata:\n  name: x\nspec:\n  filters:\n    - exact:\n        type: a\n    - prefix: {source: b}\n  a.b: 1\n",
    );
    for (path, line, column) in [
        ("", 1, 1),
        ("metadata.name", 2, 3),
        ("spec", 3, 1),
        ("spec.filters[0]", 5, 7),
        ("spec.filters[0].exact.type", 6, 9),
        ("spec.filters[1].prefix.source", 7, 16),
        ("spec.filters[1].prefix.missing", 7, 7),
        ("spec.filters[9]", 4, 3),
        ("spec.filters.1.prefix", 7, 7),
        ("spec.a.b", 8, 3),
        ("nothing.here", 1, 1),
        ("spec.filters[", 4, 3),
        ("spec..", 3, 1),
    ] {
        assert_eq!(node.locate(path), Mark { line, column }, "{path}");
    }
}

#[test]
fn anchors_and_merge_keys_copy_values() {
    let text = "base: &base {a: 1, b: 2}\nlist: &list [x]\nmerged:\n  <<: *base\n  b: 3\nagain: *list\nseveral:\n  <<: [*base, {c: 4}]\n'<<': plain\n";
    let expected = serde_json::json!({
        "base": {"a": 1, "b": 2},
        "list": ["x"],
        "merged": {"b": 3, "a": 1},
        "again": ["x"],
        "several": {"a": 1, "b": 2, "c": 4},
        "<<": "plain",
    });
    assert_eq!(json(text), expected);
}

#[test]
fn what_is_no_manifest_is_refused_with_its_place() {
    for (text, line, hint) in [
        ("a: [1, 2", 1, ""),
        ("a: 1\n b: 2\n", 2, ""),
        ("a: 'x\n", 1, ""),
        ("a: 1\nb: 2\na: 3\n", 3, "`a` is given twice"),
        ("x: {a: 1, a: 2}", 1, "`a` is given twice"),
        ("? [a]\n: 1\n", 1, "name of a field is a string"),
        ("? {a: 1}\n: 1\n", 1, "name of a field is a string"),
        ("~: 1", 1, "name of a field is a string"),
        ("a: *b", 1, ""),
        ("a: &a [*a]", 1, ""),
        ("a: !custom x", 1, "has no meaning"),
        ("a: !custom {b: 1}", 1, "has no meaning"),
        ("a: !!int x", 1, "is not what its tag"),
        ("a:\n  <<: 1\n", 2, "merge key"),
        ("a: \"\\q\"", 1, ""),
        ("{\"a\": 1,, }", 1, ""),
        ("a:\n\tb: 1\n", 2, ""),
    ] {
        let problem = documents(text).expect_err(text);
        assert_eq!(problem.code, codes::MANIFEST_SYNTAX, "{text}");
        assert_eq!(problem.mark.line, line, "{text}: {problem}");
        assert!(problem.reason.contains(hint), "{text}: {problem}");
    }
}

#[test]
fn many_fields_are_told_apart_too() {
    let mut text: String = (0..100).map(|number| format!("f{number}: 1\n")).collect();
    assert_eq!(json(&text).as_object().map(serde_json::Map::len), Some(100));
    text.push_str("f50: 2\n");
    let problem = documents(&text).expect_err("a duplicate");
    assert_eq!((problem.mark.line, problem.reason.as_str()), (101, "the field `f50` is given twice"));
}

#[test]
fn expansion_and_depth_have_limits() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..10 {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert_eq!(documents(&laughs).expect_err("too much").code, codes::MANIFEST_TOO_LARGE);

    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(documents(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(documents(&nested(MAX_DEPTH + 1)).expect_err("too deep").code, codes::MANIFEST_TOO_LARGE);
    assert!(documents(&nested(100_000)).is_err());

    let half = MAX_DEPTH / 2;
    let through_alias = |more: usize| {
        format!("a: &a {}\nb: {}*a{}\n", nested(half), "[".repeat(half + more), "]".repeat(half + more))
    };
    assert!(documents(&through_alias(0).replace("b: [", "b: ").replacen("*a]", "*a", 1)).is_ok());
    assert_eq!(documents(&through_alias(1)).expect_err("too deep").code, codes::MANIFEST_TOO_LARGE);
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        "[ -~]{0,12}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-zA-Z0-9 .-]{1,6}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_exactly(value in any_json()) {
        let wrapped = serde_json::json!({"value": value});
        let compact = wrapped.to_string();
        let pretty = serde_json::to_string_pretty(&wrapped).expect("JSON");
        prop_assert_eq!(&json(&compact), &wrapped);
        prop_assert_eq!(&json(&pretty), &wrapped);
    }

    #[test]
    fn any_text_is_read_or_refused_within_it(text in "([a-c:{}\\[\\]&*!|>'\"#,?\n -]|\\PC){0,60}") {
        let lines = u32::try_from(text.lines().count().max(1)).expect("few lines");
        if let Err(problem) = documents(&text) {
            prop_assert!((1..=lines).contains(&problem.mark.line), "{problem:?} of {lines} lines");
        }
    }
}
