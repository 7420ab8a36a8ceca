//! A Trigger's `filter` and `filters`.

use std::sync::Arc;

use super::document::{Map, Node, Value};
use super::reader::{Path, Reader, nearest};
use super::{Mark, NATIVE};
use crate::codes;
use crate::filter::like::Pattern;
use crate::filter::{AttributeName, Clause, Clauses, Filter, InvalidFilter, cel, cesql, jsonpath};

/// The dialects of every Trigger, which are Knative's.
const DIALECTS: [&str; 7] = ["exact", "prefix", "suffix", "all", "any", "not", "cesql"];

/// The dialects that only the native Trigger has besides.
const NATIVE_DIALECTS: [&str; 3] = ["like", "cel", "jsonpath"];

/// What a recorded filter may say besides: the empty value of `filter.attributes`.
const PRESENT: &str = "present";

/// Reads which events the trigger takes, and warns of a filter that is valid and doubtful.
pub(super) fn filter(reader: &mut Reader<'_>, spec: &Map, path: &Path<'_>) -> Option<Filter> {
    let filter = either(reader, spec, path)?;
    let used = ["filters", "filter"].into_iter().find_map(|name| Some((name, spec.get(name)?)));
    if let Some((name, node)) = used {
        for doubt in filter.doubts() {
            reader.warning(doubt.code(), node.mark, &path.field(name), doubt.to_string(), doubt.help());
        }
    }
    Some(filter)
}

/// `filters` wins over `filter`, and an empty list is as good as none; what is written is checked either way.
fn either(reader: &mut Reader<'_>, spec: &Map, path: &Path<'_>) -> Option<Filter> {
    let legacy = match spec.get("filter") {
        Some(node) => legacy(reader, node, &path.field("filter")),
        None => Some(Filter::Everything),
    };
    let Some(node) = spec.get("filters") else { return legacy };
    let path = path.field("filters");
    if matches!(node.value, Value::Map(_)) {
        let message = format!("`{path}` must be a list, not a map");
        reader.error(
            codes::FIELD_TYPE,
            node.mark,
            &path,
            message,
            "begin each dialect with `- `, all must match",
        );
        return None;
    }
    let items = reader.list(node, &path)?;
    if items.is_empty() {
        return legacy;
    }
    let filters = nested(reader, items, &path);
    build(reader, node, &path, Filter::all(filters?))
}

/// Why a recorded filter cannot be read, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnreadableFilter(String);

/// Reads a filter that an earlier process wrote down, which is what a [`Filter`] serialises to: as an item of `filters`,
/// with `{}` for every event and `present` besides.
pub fn read_filter(written: serde_json::Value) -> Result<Filter, UnreadableFilter> {
    let place: Arc<str> = "the recorded filter".into();
    let mut reader = Reader::new(&place);
    reader.recorded = true;
    let root = Path::Root;
    let filter = item(&mut reader, &Node::from_json(written, Mark::START), &root.field("filter"));
    filter.ok_or_else(|| {
        let first = reader.problems.first();
        UnreadableFilter(first.map_or_else(String::new, |problem| problem.message.clone()))
    })
}

/// `filter.attributes`: each attribute equals its value, or is there where the value is empty.
fn legacy(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<Filter> {
    let map = reader.map(node, path)?;
    reader.only(map, path, &["attributes"], &[]);
    let Some(attributes) = map.get("attributes") else {
        if !map.is_empty() && !reader.strict {
            let message = format!("`{path}` has no `attributes`, so that it takes every event");
            reader.warning(
                codes::FILTER_INVALID,
                node.mark,
                path,
                message,
                "write the attributes below `attributes`",
            );
        }
        return Some(Filter::Everything);
    };
    let path = path.field("attributes");
    let fields = reader.map(attributes, &path)?;
    let mut filters = Vec::new();
    let mut clauses = Vec::new();
    let mut valid = true;
    for (name, node) in fields.iter() {
        let path = path.field(name);
        let Some(value) = reader.string(node, &path) else {
            valid = false;
            continue;
        };
        let added = if value.is_empty() {
            AttributeName::new(name).map(|name| filters.push(Filter::Present(name)))
        } else {
            Clause::new(name, value).map(|clause| clauses.push(clause))
        };
        valid &= build(reader, node, &path, added).is_some();
    }
    if !valid {
        return None;
    }
    if !clauses.is_empty() {
        let exact = build(reader, attributes, &path, Clauses::new(clauses))?;
        filters.insert(0, Filter::Exact(exact));
    }
    if filters.is_empty() {
        return Some(Filter::Everything);
    }
    build(reader, attributes, &path, Filter::all(filters))
}

/// Reads each item of a list, or none of them.
fn nested(reader: &mut Reader<'_>, items: &[Node], path: &Path<'_>) -> Option<Vec<Filter>> {
    // Every item is read, so that the problems of all are found.
    let read: Vec<_> =
        items.iter().enumerate().map(|(index, node)| item(reader, node, &path.item(index))).collect();
    read.into_iter().collect()
}

/// Reads one item: a map with exactly one dialect.
fn item(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<Filter> {
    let map = reader.map(node, path)?;
    if reader.recorded && map.is_empty() {
        return Some(Filter::Everything);
    }
    let native = reader.strict || reader.recorded;
    let known = |name: &str| {
        DIALECTS.contains(&name)
            || (native && NATIVE_DIALECTS.contains(&name))
            || (reader.recorded && name == PRESENT)
    };
    let (dialects, unknown): (Vec<_>, Vec<_>) = map.iter().partition(|(name, _)| known(name));
    let valid = unknown.is_empty();
    for (name, node) in unknown {
        unknown_dialect(reader, name, node, &path.field(name));
    }
    match dialects.as_slice() {
        [] if valid => {
            let help = format!("write one of {}, or leave the item out", DIALECTS.join(", "));
            reader.error(codes::FILTER_INVALID, node.mark, path, format!("`{path}` holds no dialect"), help);
            None
        }
        [(name, node)] => dialect(reader, name, node, &path.field(name)).filter(|_| valid),
        [] => None,
        [(first, _), (second, _), ..] => {
            let message = format!("`{path}` holds more than one dialect: `{first}` and `{second}`");
            let help = "write each as an item of its own, which must all match";
            reader.error(codes::FILTER_INVALID, node.mark, path, message, help);
            None
        }
    }
}

fn unknown_dialect(reader: &mut Reader<'_>, name: &str, node: &Node, path: &Path<'_>) {
    if NATIVE_DIALECTS.contains(&name) {
        let message = format!("`{name}` is not a filter dialect of Knative's Trigger");
        let help =
            format!("write the Trigger with apiVersion {NATIVE}, which has it besides Knative's dialects");
        reader.error(codes::FILTER_INVALID, node.mark, path, message, help);
        return;
    }
    let native = if reader.strict { NATIVE_DIALECTS.as_slice() } else { &[] };
    let dialects: Vec<_> = DIALECTS.iter().chain(native).copied().collect();
    let help = match nearest(name, dialects.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write one of {}", dialects.join(", ")),
    };
    let message = format!("`{name}` is not a filter dialect");
    reader.error(codes::FILTER_INVALID, node.mark, path, message, help);
}

fn dialect(reader: &mut Reader<'_>, name: &str, node: &Node, path: &Path<'_>) -> Option<Filter> {
    match name {
        "exact" => clauses(reader, node, path, Clause::new).map(Filter::Exact),
        "prefix" => clauses(reader, node, path, Clause::new).map(Filter::Prefix),
        "suffix" => clauses(reader, node, path, Clause::new).map(Filter::Suffix),
        "like" => clauses(reader, node, path, |name, pattern| Clause::like(name, Pattern::new(pattern)?))
            .map(Filter::Like),
        "cesql" => cesql(reader, node, path).map(Filter::Cesql),
        "cel" => cel(reader, node, path).map(Filter::Cel),
        "jsonpath" => jsonpath(reader, node, path).map(Filter::Jsonpath),
        PRESENT => {
            let name = reader.string(node, path)?;
            build(reader, node, path, AttributeName::new(name)).map(Filter::Present)
        }
        "not" => {
            let inner = item(reader, node, path)?;
            build(reader, node, path, Filter::negate(inner))
        }
        any_or_all => {
            let items = reader.list(node, path)?;
            let filters = nested(reader, items, path)?;
            let combined = if any_or_all == "any" { Filter::any(filters) } else { Filter::all(filters) };
            build(reader, node, path, combined)
        }
    }
}

fn clauses<V>(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &Path<'_>,
    clause: fn(&str, &str) -> Result<Clause<V>, InvalidFilter>,
) -> Option<Clauses<V>> {
    let map = reader.map(node, path)?;
    let mut clauses = Vec::with_capacity(map.len());
    let mut valid = true;
    for (name, node) in map.iter() {
        let path = path.field(name);
        let value = reader.string(node, &path);
        match value.and_then(|value| build(reader, node, &path, clause(name, value))) {
            Some(clause) => clauses.push(clause),
            None => valid = false,
        }
    }
    if !valid {
        return None;
    }
    build(reader, node, path, Clauses::new(clauses))
}

fn cesql(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<cesql::Expression> {
    let text = reader.string(node, path)?;
    let expression = match cesql::Expression::parse(text) {
        Ok(expression) => expression,
        Err(invalid) => {
            reader.error(invalid.code(), node.mark, path, invalid.to_string(), invalid.help());
            return None;
        }
    };
    // What an earlier process recorded is not to be doubted again.
    if !reader.recorded {
        for warning in expression.warnings() {
            reader.warning(warning.code(), node.mark, path, warning.to_string(), warning.help());
        }
    }
    Some(expression)
}

fn cel(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<cel::Expression> {
    let text = reader.string(node, path)?;
    let expression = cel::Expression::parse(text);
    if let Err(invalid) = &expression {
        reader.error(invalid.code(), node.mark, path, invalid.to_string(), invalid.help());
    }
    expression.ok()
}

fn jsonpath(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<jsonpath::Query> {
    let text = reader.string(node, path)?;
    let query = jsonpath::Query::parse(text);
    if let Err(invalid) = &query {
        let column = 1 + text.get(..invalid.offset).map_or(0, |before| before.chars().count());
        let message = format!("{invalid}, at column {column} of the query");
        let help = "see RFC 9535 for what a query may say";
        reader.error(codes::EXPRESSION_INVALID, node.mark, path, message, help);
    }
    query.ok()
}

fn build<T>(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &Path<'_>,
    built: Result<T, InvalidFilter>,
) -> Option<T> {
    match built {
        Ok(built) => Some(built),
        Err(invalid) => {
            let help = match &invalid {
                InvalidFilter::AttributeName(name) => {
                    let lower: String =
                        name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
                    match AttributeName::new(&lower) {
                        Ok(lower) => format!("did you mean `{lower}`?"),
                        Err(_) => "attribute names are like `type`, `source` or `partitionkey`".to_owned(),
                    }
                }
                _ => "see the filters of Trigger in the reference".to_owned(),
            };
            reader.error(codes::FILTER_INVALID, node.mark, path, invalid.to_string(), help);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clauses() -> impl Strategy<Value = Clauses> {
        let clause = ("[a-z][a-z0-9]{0,4}", "[ -~]{1,6}");
        prop::collection::btree_map(clause.0, clause.1, 1..4).prop_map(|map| {
            let clauses = map.iter().map(|(name, value)| Clause::new(name, value).unwrap());
            Clauses::new(clauses.collect()).unwrap()
        })
    }

    fn filters() -> impl Strategy<Value = Filter> {
        let leaf = prop_oneof![
            Just(Filter::Everything),
            clauses().prop_map(Filter::Exact),
            clauses().prop_map(Filter::Prefix),
            clauses().prop_map(Filter::Suffix),
            "[a-z][a-z0-9]{0,4}".prop_map(|name| Filter::Present(AttributeName::new(&name).unwrap())),
            ("[a-z][a-z0-9]{0,4}", "[ -~]{1,6}").prop_map(|(name, pattern)| {
                let clause = Clause::like(&name, Pattern::new(&pattern).unwrap()).unwrap();
                Filter::Like(Clauses::new(vec![clause]).unwrap())
            }),
            // The second is one that a reader would warn of.
            prop::sample::select(vec!["type = 'a'", "NOT subject LIKE \"it's%\" OR TRUE AND X(1)"])
                .prop_map(|text| Filter::Cesql(cesql::Expression::parse(text).unwrap())),
            Just(Filter::Cel(cel::Expression::parse("has(subject) && data.a == 'b'").unwrap())),
            Just(Filter::Jsonpath(jsonpath::Query::parse("$.a[?@.b == 'c']").unwrap())),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 2..4).prop_map(|all| Filter::all(all).unwrap()),
                prop::collection::vec(inner.clone(), 2..4).prop_map(|any| Filter::any(any).unwrap()),
                inner.prop_map(|one| Filter::negate(one).unwrap()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_filter_is_read_as_it_was_written(filter in filters()) {
            let written = serde_json::to_value(&filter).unwrap();
            prop_assert_eq!(read_filter(written), Ok(filter));
        }
    }

    #[test]
    fn what_is_not_known_is_told_and_never_left_out() {
        for written in [
            serde_json::json!({"cesql": "type ="}),
            serde_json::json!({"cel": "type =="}),
            serde_json::json!({"jsonpath": "$["}),
            serde_json::json!({"exact": {"type": "a"}, "later": {}}),
            serde_json::json!({"all": [{"exact": {"type": "a"}}, {"any": [{"later": {}}]}]}),
            serde_json::json!({"present": ""}),
            serde_json::json!([]),
        ] {
            let unreadable = read_filter(written.clone()).expect_err("this version does not know it");
            assert!(!unreadable.to_string().is_empty(), "{written}");
        }
    }
}
