//! The rows of the filter table, in the norm's reading.

use proptest::prelude::*;

use super::*;

fn event(attributes: &[(&str, &str)]) -> Event {
    let mut builder = Event::builder("1", "/shop", "com.example.order.created");
    for (name, value) in attributes {
        builder = builder.attribute(*name, *value);
    }
    builder.build().expect("a valid event")
}

fn clauses(pairs: &[(&str, &str)]) -> Clauses {
    let clauses = pairs.iter().map(|(name, value)| Clause::new(name, value).expect("a valid clause"));
    Clauses::new(clauses.collect()).expect("valid clauses")
}

fn exact(pairs: &[(&str, &str)]) -> Filter {
    Filter::Exact(clauses(pairs))
}

fn present(name: &str) -> Filter {
    Filter::Present(AttributeName::new(name).expect("a valid name"))
}

fn not(filter: Filter) -> Filter {
    Filter::negate(filter).expect("a valid filter")
}

fn all(filters: &[Filter]) -> Filter {
    Filter::all(filters.to_vec()).expect("a valid filter")
}

fn any(filters: &[Filter]) -> Filter {
    Filter::any(filters.to_vec()).expect("a valid filter")
}

#[test]
fn each_row_of_the_table() {
    let plain = event(&[]);
    let rich = event(&[
        ("subject", "orders/42"),
        ("tenant", "acme"),
        ("empty", ""),
        ("time", "2026-01-01T00:00:00+00:00"),
    ]);
    let type_is = |value| exact(&[("type", value)]);
    for (name, filter, event, expected) in [
        ("everything", Filter::Everything, &plain, true),
        ("value equal", type_is("com.example.order.created"), &plain, true),
        ("value differs", type_is("com.example.order"), &plain, false),
        ("case matters", type_is("com.example.order.Created"), &plain, false),
        (
            "several keys are ANDed",
            exact(&[("type", "com.example.order.created"), ("source", "/shop")]),
            &plain,
            true,
        ),
        (
            "one of several differs",
            exact(&[("type", "com.example.order.created"), ("source", "/x")]),
            &plain,
            false,
        ),
        ("exact on a missing attribute", exact(&[("tenant", "acme")]), &plain, false),
        ("not of a missing attribute", not(exact(&[("tenant", "acme")])), &plain, true),
        ("an extension", exact(&[("tenant", "acme")]), &rich, true),
        ("specversion", exact(&[("specversion", "1.0")]), &plain, true),
        ("id", exact(&[("id", "1")]), &plain, true),
        ("time compares its original text", exact(&[("time", "2026-01-01T00:00:00+00:00")]), &rich, true),
        ("time is not normalised", exact(&[("time", "2026-01-01T00:00:00Z")]), &rich, false),
        ("prefix", Filter::Prefix(clauses(&[("type", "com.example.")])), &plain, true),
        ("prefix differs", Filter::Prefix(clauses(&[("type", "example.")])), &plain, false),
        ("suffix", Filter::Suffix(clauses(&[("type", ".created")])), &plain, true),
        ("suffix differs", Filter::Suffix(clauses(&[("type", ".deleted")])), &plain, false),
        ("prefix on a missing subject", Filter::Prefix(clauses(&[("subject", "orders/")])), &plain, false),
        ("suffix on a missing subject", Filter::Suffix(clauses(&[("subject", "42")])), &plain, false),
        (
            "not of prefix on a missing subject",
            not(Filter::Prefix(clauses(&[("subject", "o")]))),
            &plain,
            true,
        ),
        ("present", present("tenant"), &rich, true),
        ("present with an empty value", present("empty"), &rich, true),
        ("present, missing", present("tenant"), &plain, false),
        ("all", all(&[present("tenant"), type_is("com.example.order.created")]), &rich, true),
        ("all, one fails", all(&[present("tenant"), type_is("x")]), &rich, false),
        ("any", any(&[type_is("x"), present("tenant")]), &rich, true),
        ("any, none matches", any(&[type_is("x"), type_is("y")]), &rich, false),
        ("any of nots", any(&[not(type_is("x")), type_is("y")]), &rich, true),
        ("not of all", not(all(&[present("tenant"), type_is("x")])), &rich, true),
        ("double negation", not(not(type_is("x"))), &rich, false),
    ] {
        assert_eq!(filter.matches_event(event), expected, "{name}");
    }
}

#[test]
fn each_row_of_the_table_for_expressions() {
    let read = |filter: serde_json::Value| crate::manifest::read_filter(filter).expect("a valid filter");
    let data = Event::builder("1", "/shop", "com.example.order.created").attribute("count", 5);
    let data = data.json_data(r#"{"total": 5}"#).build().expect("a valid event");
    let not_json = data.to_builder().attribute("datacontenttype", "text/plain").text_data("5").build();
    let not_json = not_json.expect("a valid event");
    for (name, filter, expected) in [
        ("cesql true", serde_json::json!({"cesql": "type LIKE '%.created'"}), true),
        ("cesql false", serde_json::json!({"cesql": "type LIKE '%.deleted'"}), false),
        ("cesql, a missing attribute", serde_json::json!({"cesql": "tenant != 'acme'"}), false),
        ("cesql, a bad cast", serde_json::json!({"cesql": "type > 5"}), false),
        ("cesql, no Boolean is cast", serde_json::json!({"cesql": "count"}), true),
        ("cesql, no Boolean that cannot be cast", serde_json::json!({"cesql": "type"}), false),
        ("not of a cesql error is a match", serde_json::json!({"not": {"cesql": "tenant = 'acme'"}}), true),
        ("like", serde_json::json!({"like": {"type": "com.%._reated", "source": "/shop"}}), true),
        ("like, one differs", serde_json::json!({"like": {"type": "com.%", "source": "/x%"}}), false),
        ("not of like on a missing attribute", serde_json::json!({"not": {"like": {"tenant": "%"}}}), true),
        ("a count compares its canonical text", serde_json::json!({"exact": {"count": "5"}}), true),
        ("cel", serde_json::json!({"cel": "data.total == 5 && count == 5"}), true),
        ("cel, no bool", serde_json::json!({"cel": "data.total"}), false),
        ("not of a cel error is a match", serde_json::json!({"not": {"cel": "data.name == 'x'"}}), true),
        ("jsonpath", serde_json::json!({"jsonpath": "$.total"}), true),
        ("jsonpath, nothing there", serde_json::json!({"jsonpath": "$.name"}), false),
    ] {
        assert_eq!(read(filter).matches_event(&data), expected, "{name}");
    }
    for of_data in [serde_json::json!({"cel": "data == 5"}), serde_json::json!({"jsonpath": "$"})] {
        assert!(!read(of_data.clone()).matches_event(&not_json), "{of_data}");
        assert!(read(serde_json::json!({"not": of_data})).matches_event(&not_json));
    }
}

#[test]
fn an_invalid_filter_cannot_be_built() {
    for name in ["", "Type", "SOURCE", "souRce", "1a", "123", "a b", "a_b", "a-b", "é", "a.b", "😀", "!"] {
        assert!(matches!(AttributeName::new(name), Err(InvalidFilter::AttributeName(_))), "{name:?}");
    }
    for name in ["type", "c1d2e3", "a", "abcdefghijklmnopqrst"] {
        assert!(AttributeName::new(name).is_ok(), "{name}");
    }
    assert_eq!(Clause::new("type", ""), Err(InvalidFilter::EmptyValue("type".into())));
    assert_eq!(<Clauses>::new(Vec::new()), Err(InvalidFilter::Empty));
    assert_eq!(Filter::all(Vec::new()), Err(InvalidFilter::Empty));
    assert_eq!(Filter::any(Vec::new()), Err(InvalidFilter::Empty));
    let twice = ["a", "b"].map(|value| Clause::new("type", value).expect("a valid clause"));
    assert_eq!(Clauses::new(twice.to_vec()), Err(InvalidFilter::AttributeTwice("type".into())));
}

#[test]
fn the_limits_hold_at_the_edge() {
    let mut filter = present("type");
    for _ in 1..MAX_FILTER_DEPTH {
        filter = not(filter);
    }
    assert_eq!(Filter::negate(filter), Err(InvalidFilter::TooDeep));
    let wide = |count: usize| Filter::any(vec![present("type"); count]);
    assert!(wide(MAX_FILTER_CLAUSES).is_ok());
    assert_eq!(wide(MAX_FILTER_CLAUSES + 1), Err(InvalidFilter::TooManyClauses));
}

#[test]
fn serialises_as_knative_writes_it() {
    let filter = all(&[
        exact(&[("type", "a"), ("source", "/s")]),
        not(Filter::Prefix(clauses(&[("subject", "x")]))),
        any(&[Filter::Suffix(clauses(&[("type", ".y")])), present("tenant")]),
    ]);
    let json = serde_json::to_value(&filter).expect("serialises");
    let expected = serde_json::json!({"all": [
        {"exact": {"source": "/s", "type": "a"}},
        {"not": {"prefix": {"subject": "x"}}},
        {"any": [{"suffix": {"type": ".y"}}, {"present": "tenant"}]},
    ]});
    assert_eq!(json, expected);
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let clause = ("[a-c]", "[xy]{1,2}");
    let leaf = prop_oneof![
        clause.prop_map(|(name, value)| exact(&[(&name, &value)])),
        clause.prop_map(|(name, value)| Filter::Prefix(clauses(&[(&name, &value)]))),
        clause.prop_map(|(name, value)| Filter::Suffix(clauses(&[(&name, &value)]))),
        "[a-c]".prop_map(|name| present(&name)),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|filters| all(&filters)),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|filters| any(&filters)),
            inner.prop_map(not),
        ]
    })
}

proptest! {
    #[test]
    fn the_laws_of_logic_hold(
        filters in prop::collection::vec(any_filter(), 1..4),
        values in prop::collection::btree_map("[a-c]", "[xy]{0,3}", 0..3),
    ) {
        let pairs: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let event = event(&pairs);
        let one_by_one: Vec<bool> = filters.iter().map(|filter| filter.matches_event(&event)).collect();
        prop_assert_eq!(all(&filters).matches_event(&event), one_by_one.iter().all(|matched| *matched));
        prop_assert_eq!(any(&filters).matches_event(&event), one_by_one.iter().any(|matched| *matched));
        let negated: Vec<_> = filters.iter().cloned().map(not).collect();
        prop_assert_eq!(not(any(&filters)).matches_event(&event), all(&negated).matches_event(&event));
    }
}
