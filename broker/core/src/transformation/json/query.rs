//! Queries of RFC 9535 over our tree, by `jsonpath-rust`.

use std::ops::Range;

use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::query::js_path_process;
use jsonpath_rust::query::queryable::Queryable;

use super::Json;
use crate::filter::jsonpath::json_text::{self, JsonText, Kind, NotJson};
use crate::filter::jsonpath::{self, InvalidQuery};
use crate::transformation::{Run, TransformationError};

impl Queryable for Json {
    fn get(&self, key: &str) -> Option<&Self> {
        self.member(key)
    }

    fn as_array(&self) -> Option<&Vec<Self>> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    fn as_object(&self) -> Option<Vec<(&str, &Self)>> {
        Some(self.as_members()?.iter().map(|(name, value)| (&**name, value)).collect())
    }

    fn as_str(&self) -> Option<&str> {
        self.as_text()
    }

    fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number.as_f64()),
            _ => None,
        }
    }

    fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn null() -> Self {
        Self::Null
    }
}

/// A query of RFC 9535 over our tree.
#[derive(Debug, Clone)]
pub struct Query {
    text: Box<str>,
    plan: Plan,
}

#[derive(Debug, Clone)]
enum Plan {
    /// Names, indexes and wildcards only: walked by our own code.
    Walk(Vec<Hop>),
    Other {
        query: JpQuery,
        cost: Cost,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hop {
    Name(Box<str>),
    Index(i64),
    Each,
}

/// What the evaluation may cost, as an upper bound: a power of the number of values, times what a test of one takes.
#[derive(Debug, Clone, Copy)]
struct Cost {
    power: u32,
    test: u64,
}

/// A comparison or test of a filter, in steps.
const TEST_STEPS: u64 = 4;

/// Compiling a regular expression, which `jsonpath-rust` does anew for each value, in steps.
const PATTERN_STEPS: u64 = 500;

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`InvalidQuery`] as the filter dialect `jsonpath` refuses it: what is no query, is too long or too deep, or has a
    /// function or a regular expression that is not admitted.
    pub fn parse(text: &str) -> Result<Self, InvalidQuery> {
        jsonpath::Query::parse(text)?;
        let query = jsonpath_rust::parser::parse_json_path(text).map_err(|error| InvalidQuery {
            offset: 0,
            message: format!("this is not a query of RFC 9535: {error}"),
        })?;
        let hops: Option<Vec<Hop>> = query.segments.iter().map(hop).collect();
        let plan = match hops {
            Some(hops) => Plan::Walk(hops),
            None => {
                let cost = cost(&query.segments, text);
                Plan::Other { query, cost }
            }
        };
        Ok(Self { text: text.into(), plan })
    }

    /// The query `$[SELECTOR]` for a selector of another one, which was read from `text`.
    pub fn of_selector(selector: Selector, text: &str) -> Self {
        let query = JpQuery::new(vec![Segment::Selector(selector)]);
        let cost = cost(&query.segments, text);
        Self { text: text.into(), plan: Plan::Other { query, cost } }
    }

    /// The query as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it names one place, so that it selects one value at most.
    pub fn is_singular(&self) -> bool {
        matches!(&self.plan, Plan::Walk(hops) if !hops.contains(&Hop::Each))
    }

    /// The values that it selects, in order. One may come several times, as RFC 9535 has it.
    ///
    /// # Errors
    /// [`TransformationError`] where the steps that are left do not suffice.
    pub fn select<'j>(&self, data: &'j Json, run: &mut Run) -> Result<Vec<&'j Json>, TransformationError> {
        match &self.plan {
            Plan::Walk(hops) => walk(hops, data, run),
            Plan::Other { query, cost } => {
                let values = (data.weight() / size_of::<Json>()) as u64;
                run.spend(values.max(2).saturating_pow(cost.power).saturating_mul(cost.test))?;
                let selected = js_path_process(query, data)
                    .map_err(|error| TransformationError::new(format!("the query failed: {error}")))?;
                Ok(selected.into_iter().map(|found| found.val).collect())
            }
        }
    }
}

impl Query {
    /// The places, in the text of JSON, of the elements of the array at the single place that the query names, or of the
    /// value there where it is no array; none where there is nothing. No tree is made. Nothing where the query names more
    /// than one place or counts from an end, or where the text is not JSON.
    pub fn parts(&self, text: &str) -> Option<Vec<Range<usize>>> {
        let Plan::Walk(hops) = &self.plan else { return None };
        if hops.iter().any(|hop| matches!(hop, Hop::Each | Hop::Index(..0))) {
            return None;
        }
        let mut reader = JsonText::with_any_number(text);
        let found = find(text, &mut reader, hops).ok()?;
        reader.end().ok()?;
        Some(found)
    }
}

/// Passes the value that comes next. Recursion is bounded by the depth that the reader admits.
fn find(text: &str, reader: &mut JsonText<'_>, hops: &[Hop]) -> Result<Vec<Range<usize>>, NotJson> {
    let kind = reader.kind()?;
    let start = reader.place();
    let mut found = Vec::new();
    match (hops.split_first(), kind) {
        (None, Kind::Array) => {
            if reader.enter(kind)? {
                loop {
                    let element = reader.kind()?;
                    let start = reader.place();
                    reader.skip(element)?;
                    found.push(start..reader.place());
                    if !reader.more(kind)? {
                        break;
                    }
                }
            }
        }
        (None, _) => {
            reader.skip(kind)?;
            found.push(start..reader.place());
        }
        (Some((Hop::Name(name), rest)), Kind::Object) => {
            if reader.enter(kind)? {
                loop {
                    let quoted = reader.name()?;
                    let written = &text[quoted.start..quoted.end];
                    if *written == **name || quoted.escaped && unescaped(written) == **name {
                        // Of a member that is given twice the last counts.
                        found = find(text, reader, rest)?;
                    } else {
                        let other = reader.kind()?;
                        reader.skip(other)?;
                    }
                    if !reader.more(kind)? {
                        break;
                    }
                }
            }
        }
        (Some((Hop::Index(index), rest)), Kind::Array) => {
            if reader.enter(kind)? {
                let mut at = 0;
                loop {
                    if at == *index {
                        found = find(text, reader, rest)?;
                    } else {
                        let other = reader.kind()?;
                        reader.skip(other)?;
                    }
                    at += 1;
                    if !reader.more(kind)? {
                        break;
                    }
                }
            }
        }
        _ => reader.skip(kind)?,
    }
    Ok(found)
}

fn unescaped(written: &str) -> String {
    let mut text = String::new();
    json_text::unescape(written, &mut text);
    text
}

fn hop(segment: &Segment) -> Option<Hop> {
    match segment {
        Segment::Selector(Selector::Name(name)) => Some(Hop::Name(name.as_str().into())),
        Segment::Selector(Selector::Index(index)) => Some(Hop::Index(*index)),
        Segment::Selector(Selector::Wildcard) => Some(Hop::Each),
        _ => None,
    }
}

fn walk<'j>(hops: &[Hop], data: &'j Json, run: &mut Run) -> Result<Vec<&'j Json>, TransformationError> {
    let mut found = vec![data];
    for hop in hops {
        let mut next = Vec::with_capacity(found.len());
        for value in found {
            match (hop, value) {
                (Hop::Name(name), Json::Object(object)) => next.extend(object.get(name)),
                (Hop::Index(index), Json::Array(elements)) => next.extend(element(elements, *index)),
                (Hop::Each, Json::Array(elements)) => next.extend(elements),
                (Hop::Each, Json::Object(object)) => next.extend(object.iter().map(|(_, value)| value)),
                _ => {}
            }
        }
        run.spend(1 + next.len() as u64)?;
        found = next;
    }
    Ok(found)
}

/// An index below zero counts from the end.
fn element(elements: &[Json], index: i64) -> Option<&Json> {
    match usize::try_from(index) {
        Ok(index) => elements.get(index),
        Err(_) => {
            let back = usize::try_from(index.unsigned_abs()).ok()?;
            elements.get(elements.len().checked_sub(back)?)
        }
    }
}

/// Each descendant segment, and each list of selectors beside it, may give every value as often as there are values; so
/// may a filter, that looks at all values anew for each one.
fn cost(segments: &[Segment], text: &str) -> Cost {
    let descendants = segments.iter().filter(|segment| matches!(segment, Segment::Descendant(_))).count();
    let filters = text.matches('?').count();
    let inner = text.matches("..").count().saturating_sub(descendants) + text.matches('*').count();
    // What stands within a filter is looked at for each value: that is one power more.
    let within = usize::from(filters > 0 && (inner > 0 || filters > 1 || text[1..].contains('$')));
    let power = u32::try_from(descendants.max(1) + within).unwrap_or(u32::MAX);
    let patterns = text.matches("match(").count() + text.matches("search(").count();
    let test = TEST_STEPS * (1 + filters as u64 + text.matches(',').count() as u64)
        + PATTERN_STEPS * patterns as u64;
    Cost { power, test }
}
