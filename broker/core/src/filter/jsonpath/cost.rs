//! Queries that `jsonpath-rust` evaluates, and what that may cost.
//!
//! It copies the path of each node that it visits, compiles a regular expression anew for each node, and evaluates an
//! absolute query within a filter anew for each node. So the cost is estimated from the shape of the data before
//! anything is evaluated: an upper bound of nodes visited, in steps.

use jsonpath_rust::parser::model::{
    Comparable, Filter, FilterAtom, FnArg, JpQuery, Literal, Segment, Selector, SingularQuery, Test,
    TestFunction,
};
use regex::RegexBuilder;
use serde_json::Value as Json;

use super::plan::selects_any;
use crate::filter::candidate::BYTES_PER_STEP;
use crate::filter::{BudgetSpent, Candidate};

/// A visit of a node takes as long as some steps of other dialects: it allocates.
const STEPS_PER_NODE: u64 = 4;

/// The sizes that a compiled regular expression may have, with the visits of nodes that compiling it is
/// worth. A larger one is refused.
const PATTERN_CLASSES: [(usize, u64); 3] = [(16 * 1024, 64), (128 * 1024, 512), (1024 * 1024, 4_096)];

/// A query that is evaluated by `jsonpath-rust`.
pub(in crate::filter) struct Other {
    query: JpQuery,
    patterns: Patterns,
}

/// The regular expressions of a query, with the steps that compiling each one takes.
type Patterns = Vec<(String, u64)>;

/// Why a query that RFC 9535 admits is refused.
pub(super) struct Refused {
    /// How the text may go on where it is.
    pub(super) near: Vec<String>,
    pub(super) message: String,
}

impl Other {
    pub(super) fn new(query: JpQuery) -> Result<Self, Refused> {
        let mut patterns = Patterns::new();
        check_segments(&query.segments, &mut patterns)?;
        Ok(Self { query, patterns })
    }

    pub(super) fn selects(&self, data: &Json, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
        let size = Size::of(data, &self.patterns, candidate)?;
        let root = Contexts { count: 1, size: size.weight };
        let steps = size.segments(&self.query.segments, root).0.saturating_mul(STEPS_PER_NODE);
        candidate.spend(u32::try_from(steps).unwrap_or(u32::MAX))?;
        Ok(selects_any(&self.query, data))
    }

    /// Whether it visits all descendants, or evaluates more than comparisons for each node.
    pub(in crate::filter) fn visits_much(&self) -> bool {
        self.query.segments.iter().any(|segment| match segment {
            Segment::Descendant(_) => true,
            Segment::Selector(selector) => selector_visits_much(selector),
            Segment::Selectors(selectors) => selectors.iter().any(selector_visits_much),
        })
    }
}

fn selector_visits_much(selector: &Selector) -> bool {
    let Selector::Filter(filter) = selector else { return false };
    let mut much = false;
    let _ = each_test(filter, &mut |test| {
        much |= match test {
            Test::Function(_) => true,
            Test::AbsQuery(query) => !is_singular(&query.segments),
            Test::RelQuery(segments) => !is_singular(segments),
        };
        Ok::<_, ()>(())
    });
    much
}

fn is_singular(segments: &[Segment]) -> bool {
    let single =
        |segment: &Segment| matches!(segment, Segment::Selector(Selector::Name(_) | Selector::Index(_)));
    segments.iter().all(single)
}

/// Calls back for each test of a filter, those that are compared included.
fn each_test<E>(filter: &Filter, visit: &mut impl FnMut(&Test) -> Result<(), E>) -> Result<(), E> {
    match filter {
        Filter::Or(filters) | Filter::And(filters) => {
            filters.iter().try_for_each(|filter| each_test(filter, visit))
        }
        Filter::Atom(FilterAtom::Filter { expr, .. }) => each_test(expr, visit),
        Filter::Atom(FilterAtom::Test { expr, .. }) => visit(expr),
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            let (one, two) = comparison.vals();
            [one, two].into_iter().try_for_each(|side| match side {
                Comparable::Function(function) => visit(&Test::Function(Box::new(function.clone()))),
                Comparable::Literal(_) | Comparable::SingularQuery(_) => Ok(()),
            })
        }
    }
}

fn check_segments(segments: &[Segment], patterns: &mut Patterns) -> Result<(), Refused> {
    segments.iter().try_for_each(|segment| match segment {
        Segment::Descendant(inner) => check_segments(std::slice::from_ref(inner), patterns),
        Segment::Selector(selector) => check_selector(selector, patterns),
        Segment::Selectors(selectors) => {
            selectors.iter().try_for_each(|selector| check_selector(selector, patterns))
        }
    })
}

fn check_selector(selector: &Selector, patterns: &mut Patterns) -> Result<(), Refused> {
    match selector {
        Selector::Filter(filter) => each_test(filter, &mut |test| check_test(test, patterns)),
        _ => Ok(()),
    }
}

fn check_test(test: &Test, patterns: &mut Patterns) -> Result<(), Refused> {
    match test {
        Test::AbsQuery(query) => check_segments(&query.segments, patterns),
        Test::RelQuery(segments) => {
            // `jsonpath-rust` tests `@` itself there, where RFC 9535 asks for its children.
            let directly = |segment: &Segment| match segment {
                Segment::Selector(selector) => matches!(selector, Selector::Filter(_)),
                Segment::Selectors(selectors) => {
                    selectors.iter().any(|selector| matches!(selector, Selector::Filter(_)))
                }
                Segment::Descendant(_) => false,
            };
            if segments.first().is_some_and(directly) {
                return Err(Refused {
                    near: vec!["@[?".to_owned()],
                    message: "a filter directly on `@` is not supported: name a member first, as in \
                              `$.orders[?@.items[?@.price > 5]]`"
                        .to_owned(),
                });
            }
            check_segments(segments, patterns)
        }
        Test::Function(function) => check_function(function, patterns),
    }
}

fn check_function(function: &TestFunction, patterns: &mut Patterns) -> Result<(), Refused> {
    match function {
        TestFunction::Custom(name, _) => Err(Refused {
            near: vec![format!("{name}(")],
            message: format!(
                "RFC 9535 has no function `{name}`: use `length`, `count`, `value`, `match` or `search`"
            ),
        }),
        TestFunction::Length(argument) => check_argument(argument, patterns),
        TestFunction::Value(argument) | TestFunction::Count(argument) => check_argument(argument, patterns),
        TestFunction::Search(text, pattern) | TestFunction::Match(text, pattern) => {
            check_argument(text, patterns)?;
            patterns.push(pattern_steps(pattern)?);
            Ok(())
        }
    }
}

fn check_argument(argument: &FnArg, patterns: &mut Patterns) -> Result<(), Refused> {
    match argument {
        FnArg::Literal(_) => Ok(()),
        FnArg::Test(test) => check_test(test, patterns),
        FnArg::Filter(filter) => each_test(filter, &mut |test| check_test(test, patterns)),
    }
}

/// What compiling the pattern takes. The expressions are those of the `regex` crate, linear in the text.
fn pattern_steps(pattern: &FnArg) -> Result<(String, u64), Refused> {
    let FnArg::Literal(Literal::String(pattern)) = pattern else {
        return Err(Refused {
            near: vec!["match(".to_owned(), "search(".to_owned()],
            message:
                "the pattern of `match` and `search` must be a literal: what an event brings could take \
                      any time to compile"
                    .to_owned(),
        });
    };
    let near = vec![format!("'{pattern}'"), format!("\"{pattern}\"")];
    for (size, steps) in PATTERN_CLASSES {
        match RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(size).build() {
            Ok(_) => return Ok((pattern.clone(), steps)),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(_) => {
                let message = format!("`{pattern}` is not a regular expression of RFC 9485: correct it");
                return Err(Refused { near, message });
            }
        }
    }
    let message =
        format!("the regular expression `{pattern}` is too large: repeat less, or name fewer characters");
    Err(Refused { near, message })
}

/// The shape of data, as far as it decides what a query costs.
struct Size<'q> {
    patterns: &'q Patterns,
    /// Nodes, and in steps the text that they hold and the paths that lead to them.
    weight: u64,
    depth: u64,
}

/// A bound of the nodes that a segment begins with: how many, and the weight of all that is below them together.
#[derive(Clone, Copy)]
struct Contexts {
    count: u64,
    size: u64,
}

impl<'q> Size<'q> {
    /// Measures the data, a step for each four nodes.
    fn of(data: &Json, patterns: &'q Patterns, candidate: &Candidate<'_>) -> Result<Self, BudgetSpent> {
        let mut size = Self { patterns, weight: 1, depth: 1 };
        size.add(data, 1, 1, candidate)?;
        Ok(size)
    }

    fn add(
        &mut self,
        value: &Json,
        depth: u64,
        path: usize,
        candidate: &Candidate<'_>,
    ) -> Result<(), BudgetSpent> {
        self.depth = self.depth.max(depth);
        self.weight += 1 + (path / BYTES_PER_STEP) as u64;
        match value {
            Json::String(text) => self.weight += (text.len() / BYTES_PER_STEP) as u64,
            Json::Array(elements) => {
                candidate.spend(u32::try_from(elements.len() / 4).unwrap_or(u32::MAX))?;
                for element in elements {
                    self.add(element, depth + 1, path + 8, candidate)?;
                }
            }
            Json::Object(members) => {
                candidate.spend(u32::try_from(members.len() / 4).unwrap_or(u32::MAX))?;
                for (name, member) in members {
                    self.add(member, depth + 1, path + name.len() + 4, candidate)?;
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
        Ok(())
    }

    /// The steps that segments take from there on, and what they lead to.
    fn segments(&self, segments: &[Segment], from: Contexts) -> (u64, Contexts) {
        let mut steps = from.count;
        let mut at = from;
        for segment in segments {
            let (taken, reached) = self.segment(segment, at);
            steps = steps.saturating_add(taken);
            at = reached;
        }
        (steps, at)
    }

    fn segment(&self, segment: &Segment, from: Contexts) -> (u64, Contexts) {
        match segment {
            Segment::Descendant(inner) => {
                // Each node below, and with each all that is below it: at most as often as the data is deep.
                let below = Contexts { count: from.size, size: from.size.saturating_mul(self.depth) };
                let (steps, reached) = self.segment(inner, below);
                let count = reached.count.min(reached.size);
                (steps.saturating_add(from.size), Contexts { count, ..reached })
            }
            Segment::Selector(selector) => self.selector(selector, from),
            Segment::Selectors(selectors) => {
                let mut all = (0_u64, Contexts { count: 0, size: 0 });
                for selector in selectors {
                    let (steps, reached) = self.selector(selector, from);
                    all.0 = all.0.saturating_add(steps);
                    all.1.count = all.1.count.saturating_add(reached.count);
                    all.1.size = all.1.size.saturating_add(reached.size);
                }
                all
            }
        }
    }

    fn selector(&self, selector: &Selector, from: Contexts) -> (u64, Contexts) {
        let children = Contexts { count: from.size, size: from.size };
        match selector {
            Selector::Name(_) | Selector::Index(_) => (from.count, from),
            Selector::Wildcard | Selector::Slice(..) => (children.count, children),
            Selector::Filter(filter) => {
                (self.filter(filter, children).saturating_add(children.count), children)
            }
        }
    }

    /// The steps that a filter takes for all these nodes.
    fn filter(&self, filter: &Filter, each: Contexts) -> u64 {
        match filter {
            Filter::Or(filters) | Filter::And(filters) => {
                filters.iter().fold(0, |steps, filter| steps.saturating_add(self.filter(filter, each)))
            }
            Filter::Atom(FilterAtom::Filter { expr, .. }) => self.filter(expr, each),
            Filter::Atom(FilterAtom::Test { expr, .. }) => self.test(expr, each),
            Filter::Atom(FilterAtom::Comparison(comparison)) => {
                let (one, two) = comparison.vals();
                let absolute = |side: &Comparable| {
                    matches!(
                        side,
                        Comparable::SingularQuery(SingularQuery::Root(_)) | Comparable::Function(_)
                    )
                };
                // Two values are compared no further than the smaller one reaches.
                let compared = if absolute(one) && absolute(two) {
                    each.count.saturating_mul(self.weight)
                } else {
                    each.size
                };
                [one, two].into_iter().fold(compared, |steps, side| {
                    steps.saturating_add(match side {
                        Comparable::Literal(literal) => each.count.saturating_mul(literal_steps(literal)),
                        Comparable::SingularQuery(
                            SingularQuery::Current(path) | SingularQuery::Root(path),
                        ) => each.count.saturating_mul(path.len() as u64),
                        Comparable::Function(function) => self.function(function, each),
                    })
                })
            }
        }
    }

    fn test(&self, test: &Test, each: Contexts) -> u64 {
        match test {
            Test::RelQuery(segments) => self.segments(segments, each).0,
            Test::AbsQuery(query) => {
                let root = Contexts { count: 1, size: self.weight };
                each.count.saturating_mul(self.segments(&query.segments, root).0)
            }
            Test::Function(function) => self.function(function, each),
        }
    }

    fn function(&self, function: &TestFunction, each: Contexts) -> u64 {
        match function {
            TestFunction::Custom(..) => u64::MAX,
            TestFunction::Length(argument) => self.argument(argument, each),
            TestFunction::Value(argument) | TestFunction::Count(argument) => self.argument(argument, each),
            TestFunction::Search(text, pattern) | TestFunction::Match(text, pattern) => {
                let compiled = self.compiled(pattern);
                self.argument(text, each).saturating_add(each.count.saturating_mul(compiled))
            }
        }
    }

    fn compiled(&self, pattern: &FnArg) -> u64 {
        let FnArg::Literal(Literal::String(pattern)) = pattern else { return u64::MAX };
        let known = self.patterns.iter().find(|(known, _)| known == pattern);
        known.map_or(u64::MAX, |(_, steps)| *steps)
    }

    fn argument(&self, argument: &FnArg, each: Contexts) -> u64 {
        let read = match argument {
            FnArg::Literal(literal) => each.count.saturating_mul(literal_steps(literal)),
            FnArg::Test(test) => {
                // The value itself is looked at as well: a text as a whole, and the same one for each node where the query is
                // absolute.
                let looked_at = match &**test {
                    Test::AbsQuery(_) => each.count.saturating_mul(self.weight),
                    Test::RelQuery(_) | Test::Function(_) => each.size,
                };
                self.test(test, each).saturating_add(looked_at)
            }
            FnArg::Filter(filter) => self.filter(filter, each),
        };
        read.saturating_add(each.count)
    }
}

fn literal_steps(literal: &Literal) -> u64 {
    match literal {
        Literal::String(text) => 1 + (text.len() / BYTES_PER_STEP) as u64,
        _ => 1,
    }
}
