use serde_json::{Value, json};

use crate::trial;

const KEY: &str = "0123456789abcdef";

fn redacted(paths: &Value, data: &str) -> Result<String, String> {
    trial::data("redact", &json!({ "paths": paths, "key": {"value": KEY} }), data)
}

#[test]
fn removes() {
    for (path, data, expected) in [
        ("$.a", r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
        ("$['a']['b']", r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"c":2}}"#),
        ("$.a.b", r#"{"a":  1}"#, r#"{"a":  1}"#),
        ("$.none", r#"{ "a" : 1.50 }"#, r#"{ "a" : 1.50 }"#),
        ("$[0]", "[1,2,3]", "[2,3]"),
        ("$[-1]", "[1,2,3]", "[1,2]"),
        ("$[-4]", "[1,2,3]", "[1,2,3]"),
        ("$[0,2]", "[1,2,3]", "[2]"),
        ("$[1:]", "[1,2,3]", "[1]"),
        ("$[::2]", "[1,2,3]", "[2]"),
        ("$[::-2]", "[1,2,3,4]", "[1,3]"),
        ("$[2:0:-1]", "[1,2,3,4]", "[1,4]"),
        ("$[-2:]", "[1,2,3]", "[1]"),
        ("$[::0]", "[1,2]", "[1,2]"),
        ("$.*", r#"{"a":1,"b":2}"#, "{}"),
        ("$[*].s", r#"[{"s":1,"t":2},{"s":3},5]"#, r#"[{"t":2},{},5]"#),
        ("$..s", r#"{"s":{"s":1},"a":[{"s":2,"n":9007199254740993}]}"#, r#"{"a":[{"n":9007199254740993}]}"#),
        ("$..[0]", "[[1,2],[3]]", "[[]]"),
        ("$..*", r#"{"a":[1,{"b":2}]}"#, "{}"),
        ("$.a['b','c']", r#"{"a":{"b":1,"c":2,"d":3}}"#, r#"{"a":{"d":3}}"#),
        ("$['ä b']", r#"{"ä b":1}"#, "{}"),
        ("$", "1", ""),
    ] {
        assert_eq!(redacted(&json!([{ "path": path }]), data).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn masks() {
    for (rule, data, expected) in [
        (json!({"path": "$.a"}), r#"{"a":"secret"}"#, r#"{"a":"***"}"#),
        (json!({"path": "$.a", "keepLast": 4}), r#"{"a":"4111111111111111"}"#, r#"{"a":"***1111"}"#),
        (json!({"path": "$.a", "keepLast": 4}), r#"{"a":"4111111"}"#, r#"{"a":"***"}"#),
        (json!({"path": "$.a", "keepLast": 2}), r#"{"a":"äöüß"}"#, r#"{"a":"***üß"}"#),
        (json!({"path": "$.a", "keepLast": 2}), r#"{"a":123456}"#, r#"{"a":"***56"}"#),
        (json!({"path": "$.a", "keepLast": 2}), r#"{"a":[1,2,3]}"#, r#"{"a":"***"}"#),
        (json!({"path": "$.a"}), r#"{"a":null}"#, r#"{"a":"***"}"#),
        (json!({"path": "$..a"}), r#"{"a":{"a":1}}"#, r#"{"a":"***"}"#),
        (json!({"path": "$"}), r#""x""#, r#""***""#),
    ] {
        let mut rule = rule;
        rule["action"] = "mask".into();
        assert_eq!(redacted(&json!([rule]), data).as_deref(), Ok(expected), "{rule}");
    }
}

#[test]
fn hashes_by_hmac() {
    let hash = |data: &str| redacted(&json!([{"path": "$..a", "action": "hash"}]), data).expect("hashed");
    // By another implementation: HMAC-SHA-256 of `bob@example.com` under the key.
    let digest = "bbc8434fd179b429f14ccaf6cb6053ca";
    let hashed: Value = serde_json::from_str(&hash(r#"{"a":"bob@example.com","b":1}"#)).expect("JSON");
    let text = hashed["a"].as_str().expect("a string");
    assert_eq!(text.len(), 64);
    assert!(text.chars().all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase()));
    assert_eq!(&text[..32], digest);
    assert_eq!(hashed["b"], 1);
    assert_eq!(hash(r#"{"a":"x"}"#), hash(r#"{"a":"x"}"#));
    assert_ne!(hash(r#"{"a":"x"}"#), hash(r#"{"a":"y"}"#));
    let other = json!({"paths": [{"path": "$.a", "action": "hash"}], "key": {"value": "another key, long"}});
    assert_ne!(trial::data("redact", &other, r#"{"a":"x"}"#), Ok(hash(r#"{"a":"x"}"#)));
}

#[test]
fn filters_select_by_what_is_in_a_value() {
    for (path, data, expected) in [
        (
            "$.p[?@.k == 'card'].v",
            r#"{"p":[{"k":"card","v":1},{"k":"name","v":2}]}"#,
            r#"{"p":[{"k":"card"},{"k":"name","v":2}]}"#,
        ),
        ("$[?@.secret]", r#"{"a":{"secret":true},"b":{"c":1},"d":{"secret":1}}"#, r#"{"b":{"c":1}}"#),
        (
            "$..[?@.k == '$'].v",
            r#"{"a":[{"k":"$","v":1}],"k":"$","v":2}"#,
            r#"{"a":[{"k":"$"}],"k":"$","v":2}"#,
        ),
        ("$.n[?@.a > 1, 0]", r#"{"n":[{"a":1},{"a":2},{"a":1}]}"#, r#"{"n":[{"a":1}]}"#),
        ("$.n[?!@.public]", r#"{"n":[{"public":1},{"a":2},3]}"#, r#"{"n":[{"public":1}]}"#),
        ("$.n[?@.a == 9]", r#"{ "n": [1, 2] }"#, r#"{ "n": [1, 2] }"#),
        ("$[?@.a]", "7", "7"),
    ] {
        assert_eq!(redacted(&json!([{"path": path}]), data).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn rules_apply_one_after_the_other() {
    let rules = json!([{"path": "$.a"}, {"path": "$.*", "action": "mask"}]);
    assert_eq!(redacted(&rules, r#"{"a":1,"b":2}"#).as_deref(), Ok(r#"{"b":"***"}"#));
}

#[test]
fn what_cannot_be_looked_into_fails() {
    let settings = json!({"paths": [{"path": "$.a"}]});
    for event in [trial::event("{"), trial::event_of("text/plain", "secret")] {
        assert!(trial::events("redact", &settings, &event).is_err());
    }
    let bare = waypost_core::Event::builder("1", "/shop", "order").build().expect("valid");
    assert_eq!(trial::events("redact", &settings, &bare), Ok(vec![bare]));
}

#[test]
fn what_visits_too_much_is_stopped() {
    let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    let error = redacted(&json!([{"path": "$..*..*..*..*..*..*"}]), &deep).expect_err("stopped");
    assert!(error.contains("one event may take"), "{error}");
}

#[test]
fn bad_settings_are_refused_with_their_place() {
    for (settings, told) in [
        (json!({"paths": []}), "paths: write between 1 and 256 paths"),
        (json!({"paths": [{"path": "a"}]}), "paths[0].path: "),
        (json!({"paths": [{"path": "$.a"}, {"path": "$.b["}]}), "paths[1].path: "),
        (json!({"paths": [{"path": "$[?@.a == $.b]"}]}), "and not at `$`"),
        (json!({"paths": [{"path": "$..[?@.a == 1, ?$.b].c"}]}), "and not at `$`"),
        (json!({"paths": [{"path": "$.a", "action": "hash"}]}), "key: `action: hash` needs a `key`"),
        (
            json!({"paths": [{"path": "$.a", "action": "hash"}], "key": {"value": "short"}}),
            "shorter than 16 bytes",
        ),
        (json!({"paths": [{"path": "$.a"}], "key": {"env": "X"}}), "write a `secretKeyRef`"),
        (json!({"paths": [{"path": "$.a", "keepLast": 2}]}), "paths[0].keepLast: "),
        (json!({"paths": [{"path": "$.a", "action": "burn"}]}), "burn"),
    ] {
        let error = trial::compile("redact", &settings).map(drop).expect_err("refused");
        assert!(error.contains(told), "{settings}: {error}");
    }
    let printed = format!(
        "{:?}",
        serde_json::from_value::<super::RedactConfig>(json!({
            "paths": [{"path": "$.a"}], "key": {"value": KEY}
        }))
    );
    assert!(!printed.contains(KEY), "{printed}");
}
