use serde_json::{Value, json};
use waypost_core::transformation::{Discard, Transformed};

use crate::trial;

fn check(schema: &Value, data: &str) -> Result<String, String> {
    trial::data("schema", &json!({ "schema": schema }), data)
}

#[test]
fn lets_go_on_what_follows_the_schema() {
    for (schema, data) in [
        (json!(true), "1"),
        (json!({}), "[1, 2]"),
        (json!({"type": "object", "required": ["id"]}), r#"{"id":  1.50}"#),
        (json!({"properties": {"n": {"type": "integer", "minimum": 1}}}), r#"{"n": 9007199254740993}"#),
        (json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}), r#""x""#),
        (json!({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "const": 1}}}), "1"),
        (json!({"prefixItems": [{"type": "string"}], "items": {"type": "number"}}), r#"["a", 1, 2]"#),
        (json!({"unevaluatedProperties": false, "allOf": [{"properties": {"a": true}}]}), r#"{"a": 1}"#),
        (
            json!({"$defs": {"p": {"properties": {"a": true}}}, "$ref": "#/$defs/p", "unevaluatedProperties": false}),
            r#"{"a":1}"#,
        ),
        (json!({"allOf": [{"type": "object"}], "$ref": "#/allOf/0"}), "{}"),
        (
            json!({"properties": {"$ref": {"type": "string"}, "const": {"$ref": "#/properties/$ref"}}}),
            r#"{"const": "x"}"#,
        ),
        (json!({"dependentRequired": {"a": ["b"]}}), r#"{"b": 1}"#),
        (json!({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "number"}}), "1"),
        (json!({"enum": [{"$ref": "x"}]}), r#"{"$ref": "x"}"#),
        (
            json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/x", "type": "null"}),
            "null",
        ),
    ] {
        // The data stays byte for byte.
        assert_eq!(check(&schema, data).as_deref(), Ok(data), "{schema}");
    }
}

#[test]
fn refuses_what_does_not_with_the_place() {
    for (schema, data, path) in [
        (json!(false), "1", "(at /)"),
        (json!({"type": "object"}), "1", "(at /)"),
        (json!({"required": ["id"]}), "{}", "(at /)"),
        (
            json!({"properties": {"a": {"properties": {"b": {"type": "string"}}}}}),
            r#"{"a": {"b": 1}}"#,
            "(at /a/b)",
        ),
        (json!({"items": {"maximum": 3}}), "[1, 2, 7]", "(at /2)"),
        (
            json!({"properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}),
            r#"{"n": 1.5}"#,
            "(at /n)",
        ),
        (json!({"additionalProperties": false}), r#"{"a": 1}"#, "(at /)"),
        (json!({"properties": {"a/b": {"const": 1}}}), r#"{"a/b": 2}"#, "(at /a~1b)"),
        (json!({"pattern": "^a+$"}), r#""b""#, "(at /)"),
        (
            json!({"properties": {"const": {"$ref": "#/$defs/s"}}, "$defs": {"s": {"type": "string"}}}),
            r#"{"const": 1}"#,
            "(at /const)",
        ),
        (json!({"uniqueItems": true}), "[1, 1.0]", "(at /)"),
        (json!({"oneOf": [{"type": "string"}, {"minLength": 1}]}), r#""a""#, "(at /)"),
    ] {
        let error = check(&schema, data).expect_err(data);
        assert!(
            error.starts_with("the data does not follow the schema: ") && error.ends_with(path),
            "{schema}: {error}"
        );
    }
    let error = check(&json!(true), "not json").expect_err("not JSON");
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn drops_where_the_manifest_says_so() {
    let drops = json!({"schema": {"type": "object"}, "otherwise": "drop"});
    let transformation = trial::compile("schema", &drops).expect("compiles");
    for event in [trial::event("1"), trial::event("not json"), trial::event_of("text/plain", "{}")] {
        assert_eq!(trial::apply(&transformation, &event), Ok(Transformed::Nothing(Discard::Schema)));
    }
    assert!(matches!(trial::apply(&transformation, &trial::event("{}")), Ok(Transformed::Events(_))));
}

#[test]
fn bad_schemas_are_refused_with_their_place() {
    for (schema, told) in [
        (json!(1), "schema: a schema is an object"),
        (json!({"type": "strin"}), "schema.type: the schema is not valid"),
        (
            json!({"properties": {"a": {"minimum": "1"}}}),
            "schema.properties.a.minimum: the schema is not valid",
        ),
        (json!({"$ref": "#/$defs/none"}), "the schema is not valid"),
        (
            json!({"$ref": "https://example.com/schema"}),
            "schema.$ref: `https://example.com/schema` is outside",
        ),
        (json!({"$ref": "file:///etc/passwd"}), "is outside of the schema"),
        (json!({"$ref": "other.json#/a"}), "is outside of the schema"),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "schema.$schema: "),
        (json!({"properties": {"a": {"$id": "b"}}}), "schema.properties.a.$id: "),
        (json!({"pattern": "("}), "schema.pattern"),
        (json!({"pattern": "(?=a)"}), "schema.pattern"),
        (json!({"pattern": "a{1000}{1000}{1000}"}), "schema.pattern"),
    ] {
        let error = trial::compile("schema", &json!({ "schema": schema })).map(drop).expect_err("refused");
        assert!(error.contains(told), "{schema}: {error}");
    }
}

#[test]
fn what_refers_without_end_is_stopped() {
    let twice = json!({"allOf": [
        {"properties": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#"}}},
    ]});
    let deep = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
    let error = check(&twice, &deep).expect_err("exponential");
    assert!(error.contains("more references than one event may take"), "{error}");
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}),
        json!({"not": {"$ref": "#"}}),
    ] {
        // Stopped, or seen to mean nothing; in any case answered.
        drop(check(&schema, "{}"));
    }
}
