//! How a query is evaluated: by single places where it asks about those only, by `jsonpath-rust` otherwise.

use jsonpath_rust::parser::errors::JsonPathError;
use jsonpath_rust::parser::model::{
    Comparable, Comparison as Compared, Filter, FilterAtom, JpQuery, Literal as Written, Segment, Selector,
    SingularQuery, SingularQuerySegment, Test as Tested,
};
use pest::error::InputLocation;
use serde_json::Value as Json;

use super::cost::Other;
use super::path::{Path, Step};
use super::scalar::{Comparison, Literal, Number, Scalar};
use super::{InvalidQuery, MAX_QUERY_BYTES, MAX_QUERY_DEPTH};
use crate::filter::{BudgetSpent, Candidate};

/// How a query is evaluated.
pub(in crate::filter) enum Plan {
    /// `$.a.b[0]`: something is there.
    Path(Path),
    /// `$.a[?@.b > 1]`: a child of what the path leads to passes the test.
    Children(Path, Test),
    Other(Box<Other>),
}

/// A test of a child.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::filter) enum Test {
    Exists(Place),
    Compare(Place, Comparison, Literal),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
}

/// A path from the root (`$`) or from the child that is tested (`@`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::filter) enum Place {
    Root(Path),
    Child(Path),
}

impl Plan {
    pub(super) fn selects(&self, data: &Json, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
        match self {
            Self::Path(path) => Ok(path.find(data).is_some()),
            Self::Children(base, test) => match base.find(data) {
                Some(Json::Array(elements)) => any(elements.iter(), test, data, candidate),
                Some(Json::Object(members)) => any(members.values(), test, data, candidate),
                _ => Ok(false),
            },
            Self::Other(other) => other.selects(data, candidate),
        }
    }
}

fn any<'v>(
    mut children: impl Iterator<Item = &'v Json>,
    test: &Test,
    root: &'v Json,
    candidate: &Candidate<'_>,
) -> Result<bool, BudgetSpent> {
    if !test.asks_children() {
        // The test says the same of each child.
        return Ok(children.next().is_some_and(|child| test.holds(root, child)));
    }
    let steps = test.steps();
    for child in children {
        candidate.spend(steps)?;
        if test.holds(root, child) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Test {
    fn holds(&self, root: &Json, child: &Json) -> bool {
        match self {
            Self::Exists(place) => place.find(root, child).is_some(),
            Self::Compare(place, comparison, literal) => {
                comparison.holds(place.find(root, child).map(Scalar::of), literal)
            }
            Self::Not(test) => !test.holds(root, child),
            Self::All(tests) => tests.iter().all(|test| test.holds(root, child)),
            Self::Any(tests) => tests.iter().any(|test| test.holds(root, child)),
        }
    }

    /// The steps of one evaluation.
    fn steps(&self) -> u32 {
        match self {
            Self::Exists(_) | Self::Compare(..) => 1,
            Self::Not(test) => test.steps(),
            Self::All(tests) | Self::Any(tests) => tests.iter().map(Self::steps).sum(),
        }
    }

    /// Whether it depends on the child.
    pub(in crate::filter) fn asks_children(&self) -> bool {
        match self {
            Self::Exists(place) | Self::Compare(place, ..) => matches!(place, Place::Child(_)),
            Self::Not(test) => test.asks_children(),
            Self::All(tests) | Self::Any(tests) => tests.iter().any(Self::asks_children),
        }
    }
}

impl Place {
    fn find<'v>(&self, root: &'v Json, child: &'v Json) -> Option<&'v Json> {
        match self {
            Self::Root(path) => path.find(root),
            Self::Child(path) => path.find(child),
        }
    }
}

/// Reads a query.
pub(super) fn parse(text: &str) -> Result<Plan, InvalidQuery> {
    if text.len() > MAX_QUERY_BYTES {
        let message = format!("the query is longer than {MAX_QUERY_BYTES} bytes: split the filter");
        return Err(InvalidQuery::new(MAX_QUERY_BYTES, message));
    }
    within_depth(text)?;
    let query = jsonpath_rust::parser::parse_json_path(text).map_err(|error| explained(text, &error))?;
    if let Some(plan) = plan_of(&query.segments) {
        return Ok(plan);
    }
    Other::new(query).map(|other| Plan::Other(Box::new(other))).map_err(|refused| {
        let offset = refused.near.iter().find_map(|near| text.find(near.as_str())).unwrap_or(0);
        InvalidQuery::new(offset, refused.message)
    })
}

/// Checks the nesting, since reading is recursive.
fn within_depth(text: &str) -> Result<(), InvalidQuery> {
    let (mut brackets, mut parentheses) = (0_usize, 0_usize);
    let mut quote = None;
    let mut bytes = text.bytes().enumerate();
    while let Some((offset, byte)) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => drop(bytes.next()),
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'[') => brackets += 1,
            (None, b'(') => parentheses += 1,
            (None, b']') => brackets = brackets.saturating_sub(1),
            (None, b')') => parentheses = parentheses.saturating_sub(1),
            (None, _) => {}
        }
        if brackets.max(parentheses) > MAX_QUERY_DEPTH {
            let message = format!("it is nested deeper than {MAX_QUERY_DEPTH} levels: simplify it");
            return Err(InvalidQuery::new(offset, message));
        }
    }
    Ok(())
}

fn explained(text: &str, error: &JsonPathError) -> InvalidQuery {
    let JsonPathError::PestError(syntax) = error else {
        return InvalidQuery::new(0, format!("this is not a query of RFC 9535: {error}"));
    };
    let offset = match syntax.location {
        InputLocation::Pos(offset) | InputLocation::Span((offset, _)) => offset.min(text.len()),
    };
    let rest = text.get(offset..).unwrap_or_default();
    let near: String = rest.chars().take(16).collect();
    let help = if !text.starts_with('$') {
        "begin with `$`, the data as a whole".to_owned()
    } else if rest.starts_with("=~") {
        "write `match(@.name, 'pattern')` or `search(@.name, 'pattern')`".to_owned()
    } else if rest.starts_with('=') && !rest.starts_with("==") {
        "write `==`".to_owned()
    } else if rest.trim_start().starts_with("and") || rest.trim_start().starts_with("or") {
        "write `&&` or `||`".to_owned()
    } else if rest.is_empty() {
        "it ends too early".to_owned()
    } else {
        format!("it cannot be read from `{near}` on; write it like `$.order.id` or `$[?$.order.total >= 10]`")
    };
    InvalidQuery::new(offset, format!("this is not a query of RFC 9535: {help}"))
}

fn plan_of(segments: &[Segment]) -> Option<Plan> {
    if let Some(path) = path_of(segments) {
        return Some(Plan::Path(path));
    }
    let (last, base) = segments.split_last()?;
    let Segment::Selector(Selector::Filter(filter)) = last else { return None };
    Some(Plan::Children(path_of(base)?, test_of(filter)?))
}

fn path_of(segments: &[Segment]) -> Option<Path> {
    let step = |segment: &Segment| match segment {
        Segment::Selector(Selector::Name(name)) => Some(Step::Name(name.as_str().into())),
        Segment::Selector(Selector::Index(index)) => Some(Step::Index(*index)),
        _ => None,
    };
    segments.iter().map(step).collect::<Option<_>>().map(Path::new)
}

fn test_of(filter: &Filter) -> Option<Test> {
    let each = |filters: &[Filter]| filters.iter().map(test_of).collect::<Option<Vec<_>>>();
    let unless = |not: bool, test: Test| if not { Test::Not(Box::new(test)) } else { test };
    match filter {
        Filter::Or(filters) => each(filters).map(Test::Any),
        Filter::And(filters) => each(filters).map(Test::All),
        Filter::Atom(FilterAtom::Filter { expr, not }) => test_of(expr).map(|test| unless(*not, test)),
        Filter::Atom(FilterAtom::Test { expr, not }) => {
            let place = match &**expr {
                Tested::AbsQuery(query) => Place::Root(path_of(&query.segments)?),
                Tested::RelQuery(segments) => Place::Child(path_of(segments)?),
                Tested::Function(_) => return None,
            };
            Some(unless(*not, Test::Exists(place)))
        }
        Filter::Atom(FilterAtom::Comparison(compared)) => {
            let comparison = match &**compared {
                Compared::Eq(..) => Comparison::Equal,
                Compared::Ne(..) => Comparison::NotEqual,
                Compared::Gt(..) => Comparison::Greater,
                Compared::Gte(..) => Comparison::GreaterOrEqual,
                Compared::Lt(..) => Comparison::Less,
                Compared::Lte(..) => Comparison::LessOrEqual,
            };
            match compared.vals() {
                (Comparable::SingularQuery(query), Comparable::Literal(literal)) => {
                    Some(Test::Compare(place_of(query), comparison, literal_of(literal)))
                }
                (Comparable::Literal(literal), Comparable::SingularQuery(query)) => {
                    Some(Test::Compare(place_of(query), comparison.mirrored(), literal_of(literal)))
                }
                _ => None,
            }
        }
    }
}

fn place_of(query: &SingularQuery) -> Place {
    let path = |segments: &[SingularQuerySegment]| {
        let step = |segment: &SingularQuerySegment| match segment {
            SingularQuerySegment::Index(index) => Step::Index(*index),
            SingularQuerySegment::Name(name) => Step::Name(name.as_str().into()),
        };
        Path::new(segments.iter().map(step).collect())
    };
    match query {
        SingularQuery::Current(segments) => Place::Child(path(segments)),
        SingularQuery::Root(segments) => Place::Root(path(segments)),
    }
}

fn literal_of(literal: &Written) -> Literal {
    match literal {
        Written::Int(integer) => Literal::Number(Number::Integer(i128::from(*integer))),
        Written::Float(float) => Literal::float(*float),
        Written::String(text) => Literal::Text(text.as_str().into()),
        Written::Bool(boolean) => Literal::Boolean(*boolean),
        Written::Null => Literal::Null,
    }
}

/// What `jsonpath-rust` is asked: whether the query selects anything.
pub(super) fn selects_any(query: &JpQuery, data: &Json) -> bool {
    jsonpath_rust::query::js_path_process(query, data).is_ok_and(|selected| !selected.is_empty())
}
