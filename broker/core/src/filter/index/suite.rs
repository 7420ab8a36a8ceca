use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::Event;
use crate::filter::cesql::Expression;
use crate::filter::jsonpath::{self, Query};
use crate::filter::like::Pattern;
use crate::filter::{AttributeName, Clause, Clauses, MAX_STEPS};

/// What the reference evaluator says of all filters: the slots that match, and those whose steps are used up.
fn naive(filters: &BTreeMap<u32, Filter>, event: &Event) -> (Vec<u32>, Vec<u32>) {
    let candidate = Candidate::new(event);
    let (mut matched, mut over_budget) = (Vec::new(), Vec::new());
    for (slot, filter) in filters {
        match filter.matches(&candidate) {
            Ok(true) => matched.push(*slot),
            Ok(false) => {}
            Err(_) => over_budget.push(*slot),
        }
    }
    (matched, over_budget)
}

fn asked(index: &Index, event: &Event) -> Vec<u32> {
    let mut scratch = Scratch::default();
    index.matches(&Candidate::new(event), &mut scratch);
    scratch.matched().to_vec()
}

fn exact(clauses: &[(&str, &str)]) -> Filter {
    Filter::Exact(
        Clauses::new(clauses.iter().map(|(name, value)| Clause::new(name, value).unwrap()).collect())
            .unwrap(),
    )
}

fn like(name: &str, pattern: &str) -> Filter {
    Filter::Like(Clauses::new(vec![Clause::like(name, Pattern::new(pattern).unwrap()).unwrap()]).unwrap())
}

fn query(text: &str) -> Filter {
    Filter::Jsonpath(Query::parse(text).unwrap())
}

fn built(filters: &[Filter]) -> Index {
    Index::build((0..).zip(filters))
}

fn event(event_type: &str, data: &str) -> Event {
    let builder = Event::builder("1", "/shop", event_type).attribute("datacontenttype", "application/json");
    builder.data(data.as_bytes().to_vec()).build().unwrap()
}

const NAMES: &str = "type|source|subject|exta|extb|specversion|id";

fn clauses() -> impl Strategy<Value = Clauses> {
    prop::collection::btree_map(NAMES, "[ab/]{1,3}|1\\.0|1|7", 1..3).prop_map(|clauses| {
        Clauses::new(clauses.iter().map(|(name, value)| Clause::new(name, value).unwrap()).collect()).unwrap()
    })
}

fn patterns() -> impl Strategy<Value = Filter> {
    prop::collection::btree_map(NAMES, "[ab%_]{1,5}|%a%|a%b%", 1..3).prop_map(|clauses| {
        let clause =
            |(name, pattern): (&String, &String)| Clause::like(name, Pattern::new(pattern).unwrap()).unwrap();
        Filter::Like(Clauses::new(clauses.iter().map(clause).collect()).unwrap())
    })
}

fn expressions() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        (NAMES, "[ab]{0,2}|1|7|true").prop_map(|(name, value)| format!("{name} = '{value}'")),
        (NAMES, "[ab]{0,2}|1|7|true").prop_map(|(name, value)| format!("'{value}' = {name}")),
        (NAMES, "[ab]{0,2}").prop_map(|(name, value)| format!("{name} != '{value}'")),
        (NAMES, "[ab%_]{0,4}").prop_map(|(name, pattern)| format!("{name} LIKE '{pattern}'")),
        (NAMES, "[ab%_]{0,4}").prop_map(|(name, pattern)| format!("{name} NOT LIKE '{pattern}'")),
        (NAMES, "'[ab]', '[ab]{2}'|7, TRUE").prop_map(|(name, set)| format!("{name} IN ({set})")),
        NAMES.prop_map(|name| format!("EXISTS {name}")),
        NAMES.prop_map(|name| format!("{name} = 7")),
        NAMES.prop_map(|name| format!("LENGTH({name}) > 1")),
        NAMES.prop_map(|name| name),
    ];
    let expression = leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), "AND|OR|XOR", inner.clone())
                .prop_map(|(one, operator, two)| format!("({one} {operator} {two})")),
            inner.prop_map(|inner| format!("NOT ({inner})")),
        ]
    });
    expression.prop_map(|text| Filter::Cesql(Expression::parse(&text).unwrap()))
}

fn queries() -> impl Strategy<Value = Filter> {
    let place = jsonpath::suite::singular("$");
    let equal =
        (place, "-?[0-2]|'[ab]{0,2}'|true|null").prop_map(|(place, value)| format!("$[?{place} == {value}]"));
    let other = Just("$..a").prop_map(str::to_owned);
    prop_oneof![4 => jsonpath::suite::planned(), 4 => equal, 1 => other].prop_map(|text| query(&text))
}

fn filters() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        1 => Just(Filter::Everything),
        4 => clauses().prop_map(Filter::Exact),
        2 => clauses().prop_map(Filter::Prefix),
        2 => clauses().prop_map(Filter::Suffix),
        2 => patterns(),
        2 => expressions(),
        3 => queries(),
        1 => NAMES.prop_map(|name| Filter::Present(AttributeName::new(&name).unwrap())),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|all| Filter::all(all).unwrap()),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|any| Filter::any(any).unwrap()),
            inner.prop_map(|one| Filter::negate(one).unwrap()),
        ]
    })
}

fn events() -> impl Strategy<Value = Event> {
    let text = "[ab/]{1,4}|1|7|true";
    let data = prop_oneof![
        4 => jsonpath::suite::data().prop_map(|data| Some(data.to_string())),
        1 => "\\{\"[ab]\":[01],\"[ab]\": ?(\\{\"a\":1\\}|1|\"a\"),\"a\":[12]\\}".prop_map(Some),
        1 => "[\\[\\]{}\"a:1,]{0,6}".prop_map(Some),
        1 => Just(None),
    ];
    let optional = |text: &'static str| prop::option::of(text.prop_map(|text: String| text));
    let exta = prop_oneof![
        Just(None),
        text.prop_map(|text| Some(crate::event::AttributeValue::from(text))),
        Just(Some(7.into())),
        any::<bool>().prop_map(|boolean| Some(boolean.into())),
    ];
    let json = any::<bool>();
    (text, text, optional(text), exta, optional(text), data, json).prop_map(
        |(event_type, source, subject, exta, extb, data, json)| {
            let mut builder = Event::builder("a", source, event_type);
            if let Some(subject) = subject {
                builder = builder.attribute("subject", subject);
            }
            if let Some(exta) = exta {
                builder = builder.attribute("exta", exta);
            }
            if let Some(extb) = extb {
                builder = builder.attribute("extb", extb);
            }
            if json {
                builder = builder.attribute("datacontenttype", "application/json");
            }
            if let Some(data) = data {
                builder = builder.data(data.into_bytes());
            }
            builder.build().unwrap()
        },
    )
}

/// A change of the filter of a slot, or its removal.
fn changes() -> impl Strategy<Value = Vec<(u32, Option<Filter>)>> {
    let change = (0..40_u32, prop::option::weighted(0.7, filters()));
    prop::collection::vec(change, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 3 / 4))]

    #[test]
    fn the_index_agrees_with_the_reference(
        at_first in prop::collection::vec(filters(), 0..40),
        changes in changes(),
        events in prop::collection::vec(events(), 1..8),
    ) {
        let mut filters: BTreeMap<u32, Filter> = (0..).zip(at_first).collect();
        let mut index = Index::build(filters.iter().map(|(slot, filter)| (*slot, filter)));
        let mut scratch = Scratch::default();
        let mut agree = |index: &Index, filters: &BTreeMap<u32, Filter>| {
            for event in &events {
                let (matched, over_budget) = naive(filters, event);
                index.matches(&Candidate::new(event), &mut scratch);
                prop_assert_eq!(scratch.matched(), matched, "{:?}\n{:?}", event, filters);
                prop_assert!(scratch.over_budget().iter().all(|slot| over_budget.contains(slot)));
            }
            prop_assert_eq!(index.len(), filters.len());
            Ok(())
        };
        agree(&index, &filters)?;
        let (before, filters_before) = (index.clone(), filters.clone());
        for (slot, filter) in changes {
            if let Some(old) = filters.remove(&slot) {
                index.remove(slot, &old);
            }
            if let Some(filter) = filter {
                index.insert(slot, &filter);
                filters.insert(slot, filter);
            }
        }
        agree(&index, &filters)?;
        agree(&before, &filters_before)?;
        for (slot, filter) in &filters {
            index.remove(*slot, filter);
        }
        agree(&index, &BTreeMap::new())?;
        prop_assert!(index.table.holds_nothing(), "{:?}", index.table);
    }
}

#[test]
fn one_filter_of_each_kind_is_found() {
    let filters = [
        exact(&[("type", "order.created")]),
        like("type", "order.%"),
        like("type", "%created"),
        like("type", "o%er_cr%d"),
        query("$.order.id"),
        query("$[?$.order.tier == 'gold']"),
        query("$[?$.order.total > 500]"),
        query("$.items[?@.sku == 'x']"),
        Filter::Cesql(Expression::parse("type = 'order.created' AND LENGTH(id) = 1").unwrap()),
        Filter::negate(exact(&[("type", "other")])).unwrap(),
        Filter::any(vec![exact(&[("type", "a")]), exact(&[("type", "order.created")])]).unwrap(),
        Filter::Everything,
        exact(&[("type", "order.created"), ("source", "/elsewhere")]),
        query("$[?$.order.total > 1000]"),
    ];
    let event = event(
        "order.created",
        r#"{"order": {"id": 1, "tier": "go\u006cd", "total": 501.5}, "items": [{"sku": "x"}]}"#,
    );
    assert_eq!(asked(&built(&filters), &event), (0..12).collect::<Vec<_>>());
}

#[test]
fn of_a_member_that_is_given_twice_the_last_counts_with_all_that_is_in_it() {
    let filters =
        [query("$.a.b"), query("$.a.c"), query("$[?$.a.c == 2]"), query("$[?$.a.b == 1]"), query("$.a[0]")];
    for (data, expected) in [
        (r#"{"a": {"b": 1}, "a": {"c": 2}}"#, vec![1, 2]),
        (r#"{"a": {"b": 1}, "a": [7]}"#, vec![4]),
        (r#"{"a": {"b": 1}, "a": 7}"#, vec![]),
        (r#"{"a": {"c": 1, "c": 2}}"#, vec![1, 2]),
        (r#"{"a": {"b": 1, "c": 2}, "a": {"b": 1}}"#, vec![0, 3]),
        (r#"{"a": {"b": 1}, "a": {"c": 2}"#, vec![]),
    ] {
        assert_eq!(asked(&built(&filters), &event("t", data)), expected, "{data}");
    }
}

#[test]
fn what_could_use_up_its_steps_is_left_to_the_reference() {
    // One that goes through its text twice for each character, so that a long text is too much.
    let heavy = format!("%{}_{}%", "a".repeat(100), "b".repeat(100));
    let filters = [
        like("subject", &heavy),
        Filter::negate(like("subject", &heavy)).unwrap(),
        Filter::any(vec![like("subject", &heavy), exact(&[("type", "t")])]).unwrap(),
        exact(&[("type", "t")]),
    ];
    let steps_of = |bytes: usize| bytes * 4 / candidate_bytes_per_step();
    for (bytes, matched) in [(1_000, vec![1, 2, 3]), (3_000_000, vec![3])] {
        assert_eq!(steps_of(bytes) > MAX_STEPS as usize, bytes > 1_000);
        let event = Event::builder("1", "/s", "t").attribute("subject", "b".repeat(bytes)).build().unwrap();
        let index = built(&filters);
        let mut scratch = Scratch::default();
        index.matches(&Candidate::new(&event), &mut scratch);
        assert_eq!(scratch.matched(), matched);
        let (naive, over_budget) = naive(&(0..).zip(filters.clone()).collect(), &event);
        assert_eq!(scratch.matched(), naive);
        assert!(scratch.over_budget().iter().all(|slot| over_budget.contains(slot)));
        assert_eq!(scratch.over_budget().is_empty(), bytes == 1_000);
    }
}

fn candidate_bytes_per_step() -> usize {
    crate::filter::candidate::BYTES_PER_STEP
}

#[test]
fn data_is_not_looked_at_for_attributes_alone() {
    let filters = [exact(&[("type", "t")]), exact(&[("type", "u"), ("source", "/shop")])];
    let event = event("t", "{}");
    let index = built(&filters);
    let candidate = Candidate::new(&event);
    let mut scratch = Scratch::default();
    index.matches(&candidate, &mut scratch);
    assert_eq!(scratch.matched(), [0]);
    assert_eq!(scratch.data.path(0), None);
    assert_eq!(index.table.data_buckets, 0);
}

#[test]
fn an_older_version_stays_as_it_was() {
    let filters: Vec<_> = (0..200).map(|number| exact(&[("type", &format!("t{}", number % 50))])).collect();
    let old = built(&filters);
    let mut new = old.clone();
    new.remove(7, &filters[7]);
    new.insert(500, &exact(&[("type", "t7"), ("source", "/shop")]));
    assert_eq!(asked(&old, &event("t7", "")), [7, 57, 107, 157]);
    assert_eq!(asked(&new, &event("t7", "")), [57, 107, 157, 500]);
}

#[test]
fn the_key_that_the_fewest_filters_mention_is_taken() {
    let filters: Vec<_> =
        (0..100).map(|number| exact(&[("source", "/shop"), ("type", &format!("t{number}"))])).collect();
    let index = built(&filters);
    let source = index.names.find(b"source").unwrap();
    assert!(index.table.field(source).is_none_or(|field| field.equal == 0));
}

#[test]
fn an_index_is_worn_once_it_changed_as_much_as_it_holds() {
    let mut index = Index::default();
    for _ in 0..=FEW_CHANGES / 2 {
        assert!(!index.is_worn());
        index.insert(1, &Filter::Everything);
        index.remove(1, &Filter::Everything);
    }
    assert!(index.is_worn());
    assert!(index.is_empty());
}
