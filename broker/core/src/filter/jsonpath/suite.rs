use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::plan::{Plan, selects_any};
use super::*;
use crate::Event;
use crate::filter::MAX_STEPS;

fn event(data: &str) -> Event {
    Event::builder("1", "/shop", "t")
        .attribute("datacontenttype", "application/json")
        .data(data.as_bytes().to_vec())
        .build()
        .unwrap()
}

fn asked(query: &str, data: &str) -> Result<bool, BudgetSpent> {
    let event = event(data);
    Query::parse(query).unwrap().selects(&Candidate::new(&event))
}

/// What `jsonpath-rust` says without our plans.
fn reference(query: &str, data: &Json) -> bool {
    selects_any(&jsonpath_rust::parser::parse_json_path(query).unwrap(), data)
}

#[test]
fn a_number_of_many_digits_equals_itself_however_it_is_read() {
    for number in ["73.37777777777773", "0.1234567890123456", "8.41e21", "123456789.01234567"] {
        let data = format!(r#"{{"order": {{"amount": {number}}}}}"#);
        // The first is read by a scan of the text, the second by way of a tree.
        assert_eq!(asked(&format!("$[?$.order.amount == {number}]"), &data), Ok(true), "{number}");
        assert_eq!(asked(&format!("$..[?@.amount == {number}]"), &data), Ok(true), "{number}");
    }
}

#[test]
fn a_query_selects_what_rfc_9535_says() {
    let data = r#"{"order": {"id": "a'b", "amount": 700, "none": null, "off": false, "big": 1e2}, "empty": {},
                   "items": [{"sku": "x", "n": 1}, {"sku": "y", "n": 2.5}], "x y": 1, "twice": 1, "twice": 2}"#;
    for (query, selects) in [
        ("$", true),
        ("$.order.id", true),
        ("$.order.none", true),
        ("$.order.off", true),
        ("$.order.missing", false),
        ("$.order.id.more", false),
        ("$['x y']", true),
        ("$.items[0].sku", true),
        ("$.items[-2].sku", true),
        ("$.items[2]", false),
        ("$.items[-3]", false),
        ("$.order[0]", false),
        ("$[?@.amount > 500]", true),
        ("$[?@.amount > 700]", false),
        ("$[?$.order.amount >= 700]", true),
        ("$[?500 < $.order.amount]", true),
        ("$[?$.order.id == 'a\\'b']", true),
        ("$[?$.order.id == \"a'b\"]", true),
        ("$.items[?@.sku == 'y' && @.n > 2]", true),
        ("$.items[?@.sku == 'y' && @.n < 2]", false),
        ("$.items[?!@.sku]", false),
        ("$.items[?!(@.sku == 'x')]", true),
        ("$.items[?@.missing != 1]", true),
        ("$.items[?@.missing == 1]", false),
        ("$.items[?@.missing <= 1]", false),
        ("$[?$.order.none == null]", true),
        ("$[?$.order.missing == null]", false),
        ("$[?$.order.off == false]", true),
        ("$[?$.order.off <= false]", true),
        ("$[?$.order.off < true]", false),
        ("$[?$.order.big == 100]", true),
        ("$[?$.order.big == 100.0]", true),
        ("$[?$.order == 'order']", false),
        ("$[?$.order != 'order']", true),
        ("$.empty[?$.order]", false),
        ("$.order.id[?$.order]", false),
        ("$[?$.twice == 2]", true),
        ("$[?$.twice == 1]", false),
        ("$..sku", true),
        ("$..[?@.n == 2.5]", true),
        ("$.items[*].missing", false),
        ("$.items[0:1]", true),
        ("$['order','nothing']", true),
        ("$[?count(@.*) == 2]", true),
        ("$.items[?match(@.sku, '[x-z]')]", true),
        ("$.items[?search(@.sku, 'q')]", false),
        ("$[?length($.order.id) == 3]", true),
        ("$.items[?@.n == $.items[1].n]", true),
    ] {
        assert_eq!(asked(query, data), Ok(selects), "{query}");
    }
}

#[test]
fn what_is_no_json_is_no_match() {
    for data in ["", "{", "{\"a\":1} 2", "{\"a\":1,}", "\"\\ud800\"", "{\"a\":1e999}"] {
        assert_eq!(asked("$", data), Ok(false), "{data}");
        assert_eq!(asked("$..*", data), Ok(false), "{data}");
    }
}

#[test]
fn numbers_compare_by_their_value() {
    for (left, comparison, right, holds) in [
        ("9007199254740993", "==", "9.007199254740992e15", false),
        ("9007199254740993", ">", "9007199254740991", true),
        ("18446744073709551615", ">", "9007199254740991", true),
        ("1e30", ">", "1", true),
        ("-0.0", "==", "0", true),
        ("0.5", "<", "1", true),
        ("-0.5", "<", "0", true),
        ("1e-17", "==", "0", false),
    ] {
        let query = format!("$[?$[0] {comparison} {right}]");
        assert_eq!(asked(&query, &format!("[{left}]")), Ok(holds), "{left} {query}");
    }
}

#[test]
fn an_invalid_query_tells_where_and_what_to_do() {
    for (query, offset, told) in [
        ("a.b", 0, "begin with `$`"),
        ("$.a[?@.b = 1]", 9, "write `==`"),
        ("$.a[?@.b =~ 'x']", 9, "match(@.name"),
        ("$.a[?@.b == 1 and @.c]", 14, "`&&`"),
        ("$.a[", 4, "ends too early"),
        ("$.a[?in(@.b, $.c)]", 5, "no function `in`"),
        ("$.a[?match(@.b, $.c)]", 5, "must be a literal"),
        ("$.a[?match(@.b, '(')]", 16, "not a regular expression"),
        ("$.a[?match(@.b, '(.{1000}){100}')]", 16, "too large"),
        ("$.a[?@[?@.b == 1]]", 5, "directly on `@`"),
        ("$[?@.a == 99999999999999999999]", 10, "cannot be read"),
    ] {
        let Err(invalid) = Query::parse(query) else { panic!("{query} is taken") };
        assert_eq!(invalid.offset, offset, "{query}: {invalid}");
        assert!(invalid.message.contains(told), "{query}: {invalid}");
    }
}

#[test]
fn queries_are_bounded_in_length_and_depth() {
    let named = |bytes: usize| format!("$.{}", "a".repeat(bytes - 2));
    assert!(Query::parse(&named(MAX_QUERY_BYTES)).is_ok());
    assert_eq!(Query::parse(&named(MAX_QUERY_BYTES + 1)).unwrap_err().offset, MAX_QUERY_BYTES);
    let nested = |depth: usize| format!("$[?{}@.a{}]", "(".repeat(depth), ")".repeat(depth));
    assert!(Query::parse(&nested(MAX_QUERY_DEPTH)).is_ok());
    assert_eq!(Query::parse(&nested(MAX_QUERY_DEPTH + 1)).unwrap_err().offset, 3 + MAX_QUERY_DEPTH);
    let quoted = format!("$['{}\\'((']", "[".repeat(100));
    assert!(Query::parse(&quoted).is_ok(), "what is quoted nests nothing");
}

#[test]
fn a_costly_query_is_not_evaluated() {
    let wide = format!("[{}]", vec!["[0,1]"; 500].join(","));
    let deep = format!("{}1{}", "[1,".repeat(100), "]".repeat(100));
    let long_name = format!("{{\"{}\":[{}]}}", "n".repeat(100_000), vec!["0"; 1_000].join(","));
    for (query, data, outcome) in [
        ("$..*", &wide, Ok(true)),
        ("$..[?@ == 7]", &wide, Ok(false)),
        ("$[?$..[?@ == 7]]", &wide, Err(BudgetSpent)),
        ("$..*..*..*..*", &deep, Err(BudgetSpent)),
        ("$.*.*", &long_name, Err(BudgetSpent)),
        ("$[*,*,*,*,*][*,*,*,*,*][*,*,*,*,*]", &wide, Err(BudgetSpent)),
        ("$.*[?match(@, 'y{100}')]", &wide, Err(BudgetSpent)),
        ("$[?count($..*) == 1]", &wide, Err(BudgetSpent)),
        ("$[?@[0] == 7]", &wide, Ok(false)),
    ] {
        assert_eq!(asked(query, data), outcome, "{query}");
    }
    let children = format!("[{}]", vec!["0"; MAX_STEPS as usize + 1].join(","));
    assert_eq!(asked("$[?@ == 7]", &children), Err(BudgetSpent));
    assert_eq!(asked("$[?$[0] == 7]", &children), Ok(false), "one place is one step, however large the data");
    assert_eq!(asked("$[*][0]", &children), Err(BudgetSpent));
}

#[test]
fn queries_without_bound_are_told() {
    for (query, much) in [
        ("$.a", false),
        ("$.a[*].b", false),
        ("$.a[?@.b == $.c]", false),
        ("$..a", true),
        ("$.a[?$..b]", true),
        ("$.a[?match(@.b, 'x')]", true),
        ("$.a[?@.b[*]]", true),
    ] {
        assert_eq!(Query::parse(query).unwrap().visits_much(), much, "{query}");
    }
}

pub(in crate::filter) fn data() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|boolean| json!(boolean)),
        (-3..4_i64).prop_map(|integer| json!(integer)),
        (-6..7_i32).prop_map(|quarters| json!(f64::from(quarters) / 4.0)),
        "[abé\"\n]{0,2}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[abcé]", inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

pub(in crate::filter) fn singular(start: &'static str) -> impl Strategy<Value = String> {
    let step = prop_oneof!["\\.[abcé]", "\\['[abcé]'\\]", (-3..3_i64).prop_map(|index| format!("[{index}]"))];
    prop::collection::vec(step, 0..4).prop_map(move |steps| format!("{start}{}", steps.concat()))
}

fn test() -> impl Strategy<Value = String> {
    let place = prop_oneof![singular("@"), singular("$")];
    let literal = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        (-3..4_i64).prop_map(|integer| integer.to_string()),
        (-6..7_i32).prop_map(|quarters| format!("{:.2}", f64::from(quarters) / 4.0)),
        "'[abé]{0,2}'",
    ];
    let compared = (place.clone(), "==|!=|<|<=|>|>=", literal, any::<bool>()).prop_map(
        |(place, comparison, literal, mirrored)| {
            if mirrored {
                format!("{literal}{comparison}{place}")
            } else {
                format!("{place} {comparison} {literal}")
            }
        },
    );
    let leaf = prop_oneof![place, compared];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..3).prop_map(|tests| format!("({})", tests.join(" && "))),
            prop::collection::vec(inner.clone(), 2..3).prop_map(|tests| format!("({})", tests.join(" || "))),
            inner.prop_map(|test| format!("!({test})")),
        ]
    })
}

/// Queries about single places.
pub(in crate::filter) fn planned() -> impl Strategy<Value = String> {
    prop_oneof![singular("$"), (singular("$"), test()).prop_map(|(base, test)| format!("{base}[?{test}]"))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8 * ProptestConfig::default().cases))]

    #[test]
    fn plans_agree_with_the_reference(query in planned(), data in data()) {
        let parsed = Query::parse(&query).unwrap();
        prop_assert!(!matches!(parsed.plan(), Plan::Other(_)));
        let event = event(&data.to_string());
        prop_assert_eq!(parsed.selects(&Candidate::new(&event)), Ok(reference(&query, &data)));
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\$?([\\[\\]?@.$()'\"*:,!=<>&|ab0-9 -]|length|match|count|\\.\\.|é){0,24}") {
        if let Err(invalid) = Query::parse(&text) {
            prop_assert!(invalid.offset <= text.len());
        }
    }

    #[test]
    fn a_query_that_is_read_never_panics(text in "\\$([\\[?@.$('\"*:,!=<>&|ab01]|\\[\\?@|\\.\\.|\\]|\\)|count\\(){0,16}", data in data()) {
        if let Ok(query) = Query::parse(&text) {
            let event = event(&data.to_string());
            let _ = query.selects(&Candidate::new(&event));
        }
    }
}
