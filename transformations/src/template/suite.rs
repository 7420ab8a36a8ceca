use serde_json::{Value, json};

use crate::trial;

const ORDER: &str = r#"{"id": 7, "who": "Ann \"A\"", "items": [{"n": "a", "q": 2}, {"n": "b", "q": 3}], "big": 9007199254740993}"#;

fn text(template: &str) -> Result<String, String> {
    trial::data("template", &json!({ "text": template }), ORDER)
}

fn json_of(template: &str) -> Result<String, String> {
    trial::data("template", &json!({ "json": template }), ORDER)
}

#[test]
fn writes_text() {
    let mut wrong = Vec::new();
    for (template, expected) in [
        ("plain", "plain"),
        ("", ""),
        ("Order {{ data.id }} of {{ data.who }}\n", "Order 7 of Ann \"A\""),
        (
            "{{ attributes.type }} from {{ attributes.source }} ({{ attributes.specversion }})",
            "order from /shop (1.0)",
        ),
        ("{% for i in data['items'] %}{{ i.n }}x{{ i.q }} {% endfor %}", "ax2 bx3 "),
        ("{% for i in data['items'] %}{{ loop.index }}{% if not loop.last %},{% endif %}{% endfor %}", "1,2"),
        ("{% if data.none %}a{% elif data.id > 6 %}b{% else %}c{% endif %}", "b"),
        ("{{ data.none | default('nobody') }}", "nobody"),
        ("{{ data.big }}", "9007199254740993"),
        ("{{ data.who | upper | trim }}", "ANN \"A\""),
        (
            "{{ data['items'] | length }} {{ data['items'] | tojson }}",
            r#"2 [{"n":"a","q":2},{"n":"b","q":3}]"#,
        ),
        ("{{ [1, 2, 3] | join(', ') }}", "1, 2, 3"),
        ("{{ 'a-b-c' | replace('-', '+') }}", "a+b+c"),
        ("{{ 'abcdef' | truncate(4) }}|{{ 'ab' | truncate(4) }}", "abc…|ab"),
        ("{{ data.id | times(6) }} {{ 1.5 | times(2) }} {{ 7 // 2 }} {{ 7 % 4 }}", "42 3.0 3 3"),
        ("{{ 'a' ~ data.id ~ \"*\" }}", "a7*"),
        (
            "{# not * shown #}*bold* {% raw %}{{ x * y }} {% set %}{% endraw %}",
            "*bold* {{ x * y }} {% set %}",
        ),
        ("{{ '<b> & c' }}", "<b> & c"),
        ("{% for n in range(3) %}{{ n }}{% endfor %}", "012"),
        ("{{ [true, none, 'x', 1.5] }} {{ none }} {{ {'a': [1]} }}", r#"[true,null,"x",1.5] null {"a":[1]}"#),
        ("{{ [true, none, 'x', [1]] | join(' ') }}", "true null x [1]"),
        ("{{ data.id is defined }} {{ data.none is undefined }}", "true true"),
        ("{{ 'ja' if data.id else 'nein' }}", "ja"),
        ("{%- if true -%}  x  {%- endif -%}", "x"),
        ("{'a': {1}}", "{'a': {1}}"),
        ("ü {{ 'ö' }}", "ü ö"),
    ] {
        let written = text(template);
        if written.as_deref() != Ok(expected) {
            wrong.push((template, expected, written));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn writes_json() {
    for (template, expected) in [
        (r#"{"text": {{ data.who }}, "n": {{ data.id }}}"#, r#"{"text":"Ann \"A\"","n":7}"#),
        ("{{ data['items'] }}", r#"[{"n":"a","q":2},{"n":"b","q":3}]"#),
        (r#"{"t": {{ "*" ~ data.who ~ "*" }}}"#, r#"{"t":"*Ann \"A\"*"}"#),
        (
            r#"[{% for i in data['items'] %}{{ i.q }}{% if not loop.last %}, {% endif %}{% endfor %}]"#,
            "[2,3]",
        ),
        (
            r#"{"a": 1.50, "b": 123456789012345678901234567890}"#,
            r#"{"a":1.50,"b":123456789012345678901234567890}"#,
        ),
        (r#"{"items": {{ data['items'] | tojson }}}"#, r#"{"items":[{"n":"a","q":2},{"n":"b","q":3}]}"#),
        (r#"{"id": {{ data.none | default(none) }}}"#, r#"{"id":null}"#),
    ] {
        assert_eq!(json_of(template).as_deref(), Ok(expected), "{template}");
    }
    let error = json_of("{{ data.id }},").expect_err("no JSON");
    assert!(error.contains("what the template writes is no JSON"), "{error}");
}

#[test]
fn sets_the_content_type() {
    for (settings, expected) in [
        (json!({"text": "x"}), "text/plain; charset=utf-8"),
        (json!({"text": "x", "contentType": "text/markdown"}), "text/markdown"),
        (json!({"json": "1"}), "application/json"),
        (json!({"json": "1", "contentType": "application/problem+json"}), "application/problem+json"),
    ] {
        let events = trial::events("template", &settings, &trial::event("{}")).expect("events");
        assert_eq!(events[0].data_content_type(), Some(expected));
    }
}

#[test]
fn sees_text_and_no_data() {
    let settings = json!({"text": "{{ data | default('nothing') }}"});
    let events =
        trial::events("template", &settings, &trial::event_of("text/plain", "hello")).expect("events");
    assert_eq!(trial::text_of(&events[0]), "hello");
    let bare = waypost_core::Event::builder("1", "/shop", "order").build().expect("valid");
    let events = trial::events("template", &settings, &bare).expect("events");
    assert_eq!(trial::text_of(&events[0]), "nothing");
}

#[test]
fn failures_tell_the_line() {
    for (template, told) in [
        ("\n{{ data.none }}", "a value that is not there"),
        ("a\n{{ data.none.more }}", "(at line 2 of the template)"),
        ("{{ 'a' + 1 }}", "the template fails: "),
        ("{{ 'a' | times(2) }}", "`times` takes two numbers"),
        ("{{ 'a' | replace('', 'b') }}", "needs what to replace"),
    ] {
        let error = text(template).expect_err(template);
        assert!(error.contains(told), "{template}: {error}");
    }
}

#[test]
fn what_loops_or_grows_is_stopped() {
    let long = "x".repeat(100_000);
    for template in [
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
        "{% for a in range(10000) %}{{ data }}{% endfor %}",
        "{{ data | replace('x', data) }}",
        "{{ range(10000) | join(data) }}",
        "{% for a in range(10000) %}{{ data | replace('x', 'yy') | length }}{% endfor %}",
        "{{ range(1000000000) | join }}",
    ] {
        let event = trial::event(&json!(long).to_string());
        let error = trial::events("template", &json!({ "text": template }), &event).expect_err(template);
        assert!(error.contains("more") || error.contains("range"), "{template}: {error}");
    }
}

#[test]
fn bad_templates_are_refused_with_their_place() {
    for (settings, told) in [
        (json!({}), "write a template: one of `text` and `json`"),
        (json!({"text": "a", "json": "b"}), "one of `text` and `json`"),
        (json!({"text": "{{ a"}), "text: the template is not valid: "),
        (json!({"text": "a\n{% if %}"}), "at line 2, column"),
        (json!({"text": "{% if a %}"}), "text: "),
        (json!({"text": "x {% set a = 1 %}"}), "text: templates have no statement `set`"),
        (json!({"text": "x {% set a = 1 %}"}), "at line 1, column 6"),
        (json!({"text": "{%- macro a() %}{% endmacro %}"}), "no statement `macro`"),
        (json!({"text": "{% include 'a' %}"}), "no statement `include`"),
        (json!({"text": "{% import 'a' as b %}"}), "no statement `import`"),
        (json!({"text": "{% with a = 1 %}{% endwith %}"}), "no statement `with`"),
        (
            json!({"text": "{{ 'x' * 3 }}"}),
            "templates have no `*`: write `a | times(b)` for numbers, at line 1, column 8",
        ),
        (json!({"text": "{{ a | upper |\n nope }}"}), "templates have no filter `nope`, at line 2, column 2"),
        (json!({"json": format!("{{{{ {} }}}}", "a ~ ".repeat(65) + "a")}), "at most 64 of `~` and `+`"),
        (json!({"json": "1", "contentType": "text/plain"}), "contentType: "),
        (json!({"text": "1", "contentType": "plain"}), "contentType: "),
    ] {
        let error = trial::compile("template", &settings).map(drop).expect_err("refused");
        assert!(error.contains(told), "{settings}: {error}");
    }
    let deep: Value = json!({"text": format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000))});
    assert!(trial::compile("template", &deep).is_err());
}

#[test]
fn every_filter_is_there() {
    for filter in super::syntax::FILTERS {
        // A filter that does not take what it is given fails otherwise.
        let error = text(&format!("{{{{ 'a' | {filter} }}}}")).err().unwrap_or_default();
        assert!(!error.contains("unknown filter"), "{filter}: {error}");
    }
}
