use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::Event;
use crate::filter::cesql::generated::events;
use crate::filter::generated::filters;

fn event() -> Event {
    Event::builder("1", "/shop", "com.example.order")
        .attribute("subject", "orders/42")
        .data_content_type("application/json")
        .data(br#"{"total": 5}"#.to_vec())
        .build()
        .unwrap()
}

fn read(filter: serde_json::Value) -> Filter {
    crate::manifest::read_filter(filter).unwrap()
}

fn explained(filter: serde_json::Value) -> Explanation {
    Explanation::new(&read(filter), &Candidate::new(&event()))
}

#[test]
fn the_clause_that_decided_is_told_in_a_sentence() {
    for (filter, reason) in [
        (json!({"exact": {"type": "x"}}), "`type` is `com.example.order`, which is not `x`"),
        (
            json!({"prefix": {"type": "org."}}),
            "`type` is `com.example.order`, which does not start with `org.`",
        ),
        (json!({"suffix": {"type": ".x"}}), "`type` is `com.example.order`, which does not end with `.x`"),
        (json!({"like": {"type": "%x"}}), "`type` is `com.example.order`, which is not like `%x`"),
        (json!({"exact": {"tenant": "x"}}), "the event has no attribute `tenant`"),
        (json!({"present": "tenant"}), "the event has no attribute `tenant`"),
        (
            json!({"exact": {"source": "/shop", "type": "x"}}),
            "`type` is `com.example.order`, which is not `x`",
        ),
        (
            json!({"all": [{"prefix": {"type": "com."}}, {"exact": {"subject": "x"}}]}),
            "`subject` is `orders/42`, which is not `x`",
        ),
        (
            json!({"any": [{"exact": {"type": "x", "source": "y"}}, {"exact": {"subject": "x"}}]}),
            "none of 2 alternatives matches, the nearest since `subject` is `orders/42`, which is not `x`",
        ),
        (json!({"not": {"present": "subject"}}), r#"what is under `not` matches: {"present":"subject"}"#),
        (json!({"cesql": "type = 'x'"}), "the expression `type = 'x'` is false"),
        (
            json!({"cesql": "type = 'x' OR tenant = 'y'"}),
            "the expression cannot be evaluated: the event has no attribute `tenant`, in `tenant`",
        ),
        (json!({"cesql": "type"}), "the expression `type` is 'com.example.order'"),
        (json!({"cel": "data.total > 6"}), "the expression `data.total > 6` is false"),
        (
            json!({"cel": "data.total"}),
            "the expression yields a value of type int, which is neither true nor false",
        ),
        (
            json!({"cel": "tenant == 'x'"}),
            "the expression cannot be evaluated: Undeclared reference to 'tenant'",
        ),
        (json!({"jsonpath": "$.name"}), "`$.name` selects nothing of the data"),
    ] {
        let explanation = explained(filter.clone());
        assert!(!explanation.matched(), "{filter}");
        assert_eq!(explanation.reason().as_deref(), Some(reason), "{filter}");
    }
    let without_data = Event::builder("1", "/", "t").build().unwrap();
    let explanation = Explanation::new(&read(json!({"jsonpath": "$.name"})), &Candidate::new(&without_data));
    assert_eq!(explanation.reason().as_deref(), Some("the event has no data"));
    let taken = explained(json!({"all": [{"prefix": {"type": "com."}}, {"cel": "data.total == 5"}]}));
    assert_eq!((taken.matched(), taken.reason(), taken.distance()), (true, None, 0));
}

#[test]
fn each_part_of_an_expression_is_told() {
    let explanation = explained(json!({"cesql": "type = 'x' AND EXISTS subject OR LENGTH(subject) > 10"}));
    assert_eq!(
        serde_json::to_value(&explanation).unwrap(),
        json!({
            "predicate": "type = 'x' AND EXISTS subject OR LENGTH(subject) > 10",
            "expected": "true",
            "actual": "false",
            "verdict": "noMatch",
            "reason": "the expression `type = 'x' AND EXISTS subject OR LENGTH(subject) > 10` is false",
            "clauses": [
                {"predicate": "type = 'x'", "actual": "false", "verdict": "noMatch", "clauses": [
                    {"predicate": "type", "actual": "'com.example.order'", "verdict": "value"},
                ]},
                {"predicate": "EXISTS subject", "verdict": "notEvaluated"},
                {"predicate": "LENGTH(subject) > 10", "actual": "false", "verdict": "noMatch", "clauses": [
                    {"predicate": "LENGTH(subject)", "actual": "9", "verdict": "value", "clauses": [
                        {"predicate": "subject", "actual": "'orders/42'", "verdict": "value"},
                    ]},
                ]},
            ],
        })
    );
    let wide = format!("TRUE{}", " OR EXISTS a".repeat(2 * MAX_SUB_EXPRESSIONS));
    assert_eq!(explained(json!({"cesql": wide})).clauses.len(), MAX_SUB_EXPRESSIONS);
}

#[test]
fn the_distance_counts_what_is_missing() {
    for (filter, distance) in [
        (json!({"exact": {"type": "x", "source": "y", "subject": "orders/42"}}), 2),
        (json!({"any": [{"exact": {"type": "x", "source": "y"}}, {"exact": {"type": "x"}}]}), 1),
        (json!({"all": [{"cesql": "FALSE"}, {"not": {"present": "id"}}, {"exact": {"type": "x"}}]}), 3),
    ] {
        assert_eq!(explained(filter.clone()).distance(), distance, "{filter}");
    }
}

#[test]
fn a_spent_budget_is_the_verdict_of_the_whole() {
    let long = Event::builder("1", "/", "t").attribute("long", "x".repeat(4 << 20)).build().unwrap();
    let costly = json!({"cesql": "UPPER(UPPER(UPPER(long))) = 'x'"});
    for filter in [costly.clone(), json!({"not": costly}), json!({"any": [costly, {"present": "id"}]})] {
        let filter = read(filter);
        let candidate = Candidate::new(&long);
        assert_eq!(filter.matches(&candidate), Err(BudgetSpent));
        let explanation = Explanation::new(&filter, &candidate);
        assert_eq!((explanation.verdict, explanation.distance() > 0), (Verdict::Error, true));
        assert!(explanation.reason().unwrap().contains("steps"));
    }
}

proptest! {
    #[test]
    fn the_verdict_is_that_of_the_filter(filter in filters(), event in events()) {
        let candidate = Candidate::new(&event);
        let explanation = Explanation::new(&filter, &candidate);
        let matched = filter.matches(&candidate) == Ok(true);
        prop_assert_eq!(explanation.matched(), matched);
        prop_assert_eq!(explanation.reason().is_none(), matched);
        prop_assert_eq!(explanation.distance() == 0, matched);
    }
}
