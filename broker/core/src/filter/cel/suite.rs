use super::*;
use crate::filter::candidate::MAX_STEPS;

const DATA: &str = r#"{"order": {"id": "42", "total": 12.5, "items": [{"sku": "a", "count": 1}, {"sku": "b", "count": 5}]},
    "count": 7, "large": 18446744073709551615, "nothing": null, "tags": ["x", "y"]}"#;

fn event(data: Option<&str>) -> Event {
    let mut builder = Event::builder("1", "/shop", "com.example.order")
        .attribute("subject", "orders/42")
        .attribute("time", "2018-04-26T14:48:09+02:00")
        .attribute("myint", 7)
        .attribute("mybool", true)
        .attribute("has", "x");
    if let Some(data) = data {
        builder = builder.data_content_type("application/json").data(data.to_owned());
    }
    builder.build().unwrap()
}

fn evaluate(text: &str) -> Outcome {
    Expression::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .evaluate(&Candidate::new(&event(Some(DATA))))
        .unwrap()
}

fn failed(text: &str, part: &str) {
    match evaluate(text) {
        Outcome::Failed(error) if error.contains(part) => {}
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn attributes_and_data_are_variables_of_their_types() {
    for text in [
        "true",
        "type == 'com.example.order' && source.startsWith('/')",
        "specversion == '1.0' && id == \"1\"",
        "myint + 1 == 8 && myint > 6.5",
        "mybool",
        "time == '2018-04-26T14:48:09+02:00'",
        "timestamp('2018-04-26T12:48:09Z').getHours() == 12",
        "timestamp(time) < timestamp('2019-01-01T00:00:00Z')",
        "data.order.id == '42' && data['count'] == 7",
        "data.count + 1 == 8",
        "data.large == 18446744073709551615u",
        "data.order.total > 12",
        "data.nothing == null",
        "'x' in data.tags && 'count' in data",
        "data.order.items.exists(item, item.count > 4)",
        "data.order.items.all(item, item.sku.matches('^[ab]$'))",
        "data.order.items.map(item, item.count)[1] == 5",
        "size(data.order.items.filter(item, item.count == 1)) == 1",
        "data.tags.exists_one(type, type == 'x')",
        "subject.contains('42') ? type.endsWith('order') : false",
        "has == 'x' // a comment",
    ] {
        assert_eq!(evaluate(text), Outcome::Boolean(true), "{text}");
    }
}

#[test]
fn a_loop_over_a_map_has_an_order() {
    let text = |keys: &[String]| keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
    let keys: Vec<_> = (0..15).map(|key| format!("{}{key:02}", ["a", "é", "z"][key % 3])).collect();
    let members: Vec<_> = keys.iter().map(|key| format!(r#""{key}": {{"it": "{key}"}}"#)).collect();
    let event = event(Some(&format!("{{{}}}", members.join(", "))));
    let mut sorted = keys;
    sorted.sort_unstable();
    let (first, sorted) = (sorted[0].clone(), text(&sorted));
    let numbers = "{3: 'c', 1: 'a', 7: 'g', 2: 'b', 5: 'e', 4: 'd', 6: 'f'}";
    for expression in [
        format!("data.map(key, key) == [{sorted}]"),
        format!("data.map(key, data[key].it) == [{sorted}]"),
        format!("data.filter(key, key != '').map(key, key) == [{sorted}]"),
        format!("[data].all(of, of.map(key, of[key].it)[0] == '{first}')"),
        format!("(mybool ? data : {{}}).map(key, key)[0] == '{first}'"),
        format!("{numbers}.map(key, {numbers}[key]) == ['a', 'b', 'c', 'd', 'e', 'f', 'g']"),
        "{true: 1, false: 2}.map(key, key) == [false, true]".to_owned(),
        "data.exists_one(key, key == 'a00') && !data.all(key, key == 'a00')".to_owned(),
    ] {
        let expression = Expression::parse(&expression).unwrap();
        for _ in 0..10 {
            let outcome = expression.evaluate(&Candidate::new(&event));
            assert_eq!(outcome, Ok(Outcome::Boolean(true)), "{expression}");
        }
    }
    assert!(Expression::parse("@in_order(data) == data").is_err());
}

#[test]
fn absence_is_asked_with_has_and_an_error_otherwise() {
    for (text, expected) in [
        ("has(subject)", true),
        ("has( absent )", false),
        ("!has(absent) && has(data)", true),
        ("has(data.order.id) && !has(data.order.name)", true),
        ("has(specversion)", true),
        ("has(absent) && absent == 'x'", false),
        ("absent == 'x' || mybool", true),
        ("type == 'has(subject)' || r'\\' == '\\\\' && has(subject)", true),
        ("data.tags.exists(has, has == 'x' && has(\n subject ))", true),
    ] {
        assert_eq!(evaluate(text), Outcome::Boolean(expected), "{text}");
    }
    failed("absent == 'x'", "absent");
    failed("data.order.name == 'x'", "name");
    failed("data.count + 'a' == 'b'", "");
    failed("data.count / 0 == 1", "zero");
    assert_eq!(evaluate("type"), Outcome::NotBoolean("string".into()));
    assert_eq!(evaluate("myint"), Outcome::NotBoolean("int".into()));
}

#[test]
fn without_data_that_is_json_there_is_no_variable() {
    let of = |text: &str, event: &Event| {
        Expression::parse(text).unwrap().evaluate(&Candidate::new(event)).unwrap()
    };
    let none = event(None);
    assert_eq!(of("has(data)", &none), Outcome::Boolean(false));
    let Outcome::Failed(error) = of("data.order.id == '42'", &none) else { panic!("an error") };
    assert!(error.contains("the event has no data"), "{error}");
    let broken = event(Some("{"));
    let Outcome::Failed(error) = of("data == 1", &broken) else { panic!("an error") };
    assert!(error.contains("not JSON"), "{error}");
    // An expression that does not speak of data does not parse it.
    let candidate = Candidate::new(&broken);
    assert_eq!(Expression::parse("myint == 7").unwrap().holds(&candidate), Ok(true));
}

#[test]
fn an_error_has_its_place() {
    for (text, line, column) in [
        ("", 1, 1),
        ("type ==", 1, 8),
        ("has(subject) && type ==", 1, 24),
        ("true &&\n  has(subject) && ) ", 2, 19),
        ("type == 'a' type", 1, 13),
        ("has(data.tags[0])", 1, 14),
    ] {
        let error = Expression::parse(text).expect_err(text);
        assert_eq!((error.line(), error.column()), (line, column), "{text}: {error}");
        assert_eq!(error.code(), codes::EXPRESSION_INVALID);
        assert!(!error.help().is_empty());
    }
    for (text, message) in [
        ("type ==", "the expression ends too early, at line 1, column 8 of the expression"),
        ("type = 'a'", "'= ' has no meaning here, at line 1, column 6 of the expression"),
        ("type == )", "')' is not expected here, at line 1, column 9 of the expression"),
    ] {
        assert_eq!(Expression::parse(text).expect_err(text).to_string(), message);
    }
    for text in ["subject.matches(type)", "subject.matches('(')", "subject.matches('(a{1,200}){1,200}')"] {
        let error = Expression::parse(text).expect_err(text).to_string();
        assert!(error.contains("the pattern of `matches`"), "{error}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let error = |text: String| Expression::parse(&text).expect_err("beyond a limit").to_string();
    for (start, middle, end) in [("(", "1", ")"), ("[", "1", "]"), ("size(", "1", ")"), ("{1:", "1", "}")] {
        let nested = |depth: usize| format!("{}{middle}{}", start.repeat(depth), end.repeat(depth));
        assert!(Expression::parse(&nested(20)).is_ok(), "{start}");
        error(nested(400));
    }
    // As long as an expression may be, and as deep as that can be.
    error("true?1:".repeat(MAX_EXPRESSION_BYTES / 7 - 1) + "1");
    for part in ["1+", "1=="] {
        assert!(
            error(format!("{}1", part.repeat(MAX_EXPRESSION_BYTES / part.len() - 1)))
                .contains("nested deeper"),
            "{part}"
        );
    }
    for part in [".a", "[0]"] {
        assert!(
            error(format!("a{}", part.repeat(MAX_EXPRESSION_BYTES / part.len() - 1)))
                .contains("nested deeper"),
            "{part}"
        );
    }
    assert!(error("a".repeat(MAX_EXPRESSION_BYTES + 1)).contains("longer than"));
    let deepest = format!("1{} > 0", "+1".repeat(MAX_DEPTH - 2));
    assert_eq!(evaluate(&deepest), Outcome::Boolean(true));
    let _ = Expression::parse(&"!".repeat(MAX_EXPRESSION_BYTES));
    let _ = Expression::parse(&"-".repeat(MAX_EXPRESSION_BYTES));
}

fn list_of(count: usize) -> String {
    let items: Vec<_> = (0..count).map(|item| item.to_string()).collect();
    format!(r#"{{"list": [{}], "text": "{}"}}"#, items.join(","), "x".repeat(count))
}

#[test]
fn what_an_evaluation_may_cost_is_known_before() {
    let holds = |text: &str, count| {
        let event = event(Some(&list_of(count)));
        Expression::parse(text).unwrap().holds(&Candidate::new(&event))
    };
    for text in [
        "data.list.exists(x, x == 999)",
        "data.list.map(x, x + 1).filter(x, x > 500).size() == 500",
        "data.text.contains('x') && data.list[7] == 7",
        "[1, 2].all(x, data.list.exists(y, x == y))",
    ] {
        assert_eq!(holds(text, 1_000), Ok(true), "{text}");
    }
    for text in [
        "data.list.all(x, data.list.exists(y, x == y))",
        "data.list.map(x, data.list).exists(l, l.exists(x, x < 0))",
        "data.list.exists(x, data.text.matches('^(xx)+y$'))",
        "data.list.map(x, data.text + data.text).exists(t, t == 'x')",
        "[1,2,3].exists(a, data.list.exists(b, data.list.exists(c, a == b && b == c)))",
    ] {
        assert_eq!(holds(text, 1_000), Err(BudgetSpent), "{text}");
        assert!(holds(text, 5).is_ok(), "{text}");
    }
    let candidate_event = event(Some(&list_of(10)));
    let candidate = Candidate::new(&candidate_event);
    candidate.spend(MAX_STEPS).unwrap();
    assert_eq!(Expression::parse("true").unwrap().holds(&candidate), Err(BudgetSpent));
    assert!(Expression::parse("data.list.all(x, true)").unwrap().loops());
    assert!(!Expression::parse("data.list[0] == 1").unwrap().loops());
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[ a-c()\\[\\]{}'\"=<>!&|?:.,%*/+0-9xhas\\\\-]{0,30}") {
        let event = event(Some(DATA));
        if let Ok(expression) = Expression::parse(&text) {
            let _ = expression.evaluate(&Candidate::new(&event));
        }
    }
}

#[test]
fn what_an_expression_implies_is_known() {
    let implied = |text: &str| {
        let filter = Expression::parse(text).unwrap().implied();
        assert!(filter.matches_event(&event(Some(DATA))), "{text}");
        serde_json::to_value(filter).unwrap()
    };
    for (text, expected) in [
        (
            "type == 'com.example.order' && data.count == 7",
            serde_json::json!({"exact": {"type": "com.example.order"}}),
        ),
        (
            "'1' == id || subject in ['a', 'orders/42']",
            serde_json::json!({"any": [
                {"exact": {"id": "1"}},
                {"any": [{"exact": {"subject": "a"}}, {"exact": {"subject": "orders/42"}}]},
            ]}),
        ),
        (
            "mybool && myint == 7 && has(subject) && has(data)",
            serde_json::json!({"all": [
                {"all": [{"exact": {"mybool": "true"}}, {"exact": {"myint": "7"}}]},
                {"present": "subject"},
            ]}),
        ),
        (
            "type.startsWith('com.') && type.endsWith('.order')",
            serde_json::json!({"all": [
                {"prefix": {"type": "com."}}, {"suffix": {"type": ".order"}},
            ]}),
        ),
        ("type == 'a' || data.count == 7", serde_json::json!({})),
        ("!(type == 'a')", serde_json::json!({})),
    ] {
        assert_eq!(implied(text), expected, "{text}");
    }
}

#[test]
fn an_error_names_types_where_values_have_no_order() {
    let event = event(Some(DATA));
    let failed = |text: &str| Expression::parse(text).unwrap().evaluate(&Candidate::new(&event));
    for (text, told) in [
        ("data + id", "Unsupported binary operator 'add': 'map', 'string'"),
        ("data < data", "found no matching overload for '_<_' applied to '(map, map)'"),
    ] {
        assert_eq!(failed(text), Ok(Outcome::Failed(told.to_owned())), "{text}");
    }
}

#[test]
fn values_become_json() {
    let value = |text: &str| {
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let value = expression.value(&Candidate::new(&event(Some(DATA)))).expect("within its steps");
        value.map(|json| json.to_string())
    };
    for (text, expected) in [
        ("data.order.items[0]", r#"{"count":1,"sku":"a"}"#),
        ("data.large", "18446744073709551615"),
        ("data.order.total", "12.5"),
        ("[data.nothing, mybool, myint + 1, subject]", r#"[null,true,8,"orders/42"]"#),
        ("timestamp(time)", r#""2018-04-26T14:48:09+02:00""#),
        ("duration('-1500ms')", r#""-1.5s""#),
        ("b'a'", r#""YQ==""#),
    ] {
        assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
    }
    for text in ["data.none", "1 / 0", "0.0 / 0.0"] {
        assert!(value(text).is_err(), "{text}");
    }
}
