//! Filters of every dialect, for what must hold for all of them.

use proptest::prelude::*;

use super::cesql::generated::expressions;
use super::like::Pattern;
use super::{AttributeName, Clause, Clauses, Filter, cel, cesql, jsonpath};

/// Filters about the attributes `a`, `b` and `c`.
pub(in crate::filter) fn filters() -> impl Strategy<Value = Filter> {
    let text = "[ab%_1]{1,3}";
    let clauses = |dialect: fn(Clauses) -> Filter| {
        prop::collection::btree_map("[abc]", text, 1..3).prop_map(move |map| {
            let clauses = map.iter().map(|(name, value)| Clause::new(name, value).unwrap());
            dialect(Clauses::new(clauses.collect()).unwrap())
        })
    };
    let leaf = prop_oneof![
        Just(Filter::Everything),
        clauses(Filter::Exact),
        clauses(Filter::Prefix),
        clauses(Filter::Suffix),
        ("[abc]", text).prop_map(|(name, pattern)| {
            let clause = Clause::like(&name, Pattern::new(&pattern).unwrap()).unwrap();
            Filter::Like(Clauses::new(vec![clause]).unwrap())
        }),
        "[abc]".prop_map(|name| Filter::Present(AttributeName::new(&name).unwrap())),
        expressions().prop_map(|text| Filter::Cesql(cesql::Expression::parse(&text).unwrap())),
        prop::sample::select(vec!["a == 'b'", "has(a) && b == 1", "data.x > 1 || c", "a"])
            .prop_map(|text| Filter::Cel(cel::Expression::parse(text).unwrap())),
        prop::sample::select(vec!["$.x", "$[?@.y == 1]"])
            .prop_map(|text| Filter::Jsonpath(jsonpath::Query::parse(text).unwrap())),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|all| Filter::all(all).unwrap()),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|any| Filter::any(any).unwrap()),
            inner.prop_map(|one| Filter::negate(one).unwrap()),
        ]
    })
}
