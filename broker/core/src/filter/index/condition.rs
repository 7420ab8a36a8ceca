//! Filters as the index sees them: names and paths are numbers, and each leaf is decided by one attribute or one place
//! in the data.

use std::hash::Hasher;

use super::names::{NameId, Names};
use super::paths::{PathId, Paths};
use crate::filter::Filter;
use crate::filter::jsonpath::Query;
use crate::filter::jsonpath::path::Path;
use crate::filter::jsonpath::plan::{Place, Plan, Test};
use crate::filter::jsonpath::scalar::{Comparison, Literal};
use crate::filter::like::Pattern;

/// A condition that costs no steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    Always,
    Never,
    Leaf(Leaf),
    Not(Box<Condition>),
    All(Box<[Condition]>),
    Any(Box<[Condition]>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Leaf {
    Attribute(NameId, Text),
    Data(PathId, Value),
}

/// What is asked of an attribute that is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Text {
    Present,
    Equal(Box<str>),
    Starts(Box<str>),
    Ends(Box<str>),
    Fits(Pattern),
}

/// What is asked of a place in the data.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Exists,
    /// It is an object or an array that has something in it.
    Filled,
    Compare(Comparison, Literal),
}

impl Condition {
    /// Feeds a hasher with what tells most conditions apart.
    pub(super) fn hash(&self, hasher: &mut impl Hasher) {
        match self {
            Self::Always => hasher.write_u8(0),
            Self::Never => hasher.write_u8(1),
            Self::Leaf(Leaf::Attribute(name, text)) => {
                hasher.write_u32(*name);
                match text {
                    Text::Present => hasher.write_u8(2),
                    Text::Equal(value) | Text::Starts(value) | Text::Ends(value) => {
                        hasher.write(value.as_bytes());
                    }
                    Text::Fits(pattern) => hasher.write(pattern.text().as_bytes()),
                }
            }
            Self::Leaf(Leaf::Data(path, value)) => {
                hasher.write_u32(*path);
                if let Value::Compare(_, Literal::Text(text)) = value {
                    hasher.write(text.as_bytes());
                }
            }
            Self::Not(part) => part.hash(hasher),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.hash(hasher)),
        }
    }
}

/// A filter, compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Necessary for the filter to match, and sufficient where `reference` does not say otherwise.
    pub(super) condition: Condition,
    /// When the condition does not suffice.
    pub(super) reference: Reference,
}

/// When the filter itself has to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    Never,
    /// When patterns, gone through so many times together, could use up the steps of the trigger.
    LongTexts(usize),
    Always,
}

/// What a filter is compiled with: gives numbers to names and paths that are new.
pub(super) struct Compiler<'d> {
    pub(super) names: &'d mut Names,
    pub(super) paths: &'d mut Paths,
    reference: Reference,
}

impl<'d> Compiler<'d> {
    pub(super) fn compile(names: &'d mut Names, paths: &'d mut Paths, filter: &Filter) -> Compiled {
        let mut compiler = Self { names, paths, reference: Reference::Never };
        let condition = compiler.filter(filter, true);
        Compiled { condition, reference: compiler.reference }
    }

    /// `positive`: under an even number of negations, where a weaker condition is still necessary.
    fn filter(&mut self, filter: &Filter, positive: bool) -> Condition {
        match filter {
            Filter::Everything => Condition::Always,
            Filter::Exact(clauses) => self.clauses(
                clauses.iter().map(|clause| (&**clause.attribute(), Text::Equal(clause.value().into()))),
            ),
            Filter::Prefix(clauses) => self.clauses(
                clauses.iter().map(|clause| (&**clause.attribute(), Text::Starts(clause.value().into()))),
            ),
            Filter::Suffix(clauses) => self.clauses(
                clauses.iter().map(|clause| (&**clause.attribute(), Text::Ends(clause.value().into()))),
            ),
            Filter::Like(clauses) => {
                let weight = clauses.iter().map(|clause| clause.pattern().weight()).sum();
                self.reference = self.reference.and(Reference::LongTexts(weight));
                self.clauses(clauses.iter().map(|clause| (&**clause.attribute(), fitting(clause.pattern()))))
            }
            Filter::Present(name) => self.attribute(name, Text::Present),
            Filter::All(filters) => all(filters.iter().map(|filter| self.filter(filter, positive))),
            Filter::Any(filters) => any(filters.iter().map(|filter| self.filter(filter, positive))),
            Filter::Not(negated) => not(self.filter(negated, !positive)),
            Filter::Cesql(expression) => {
                self.opaque(positive, |compiler| compiler.filter(&expression.implied(), true))
            }
            Filter::Cel(expression) => {
                self.opaque(positive, |compiler| compiler.filter(&expression.implied(), true))
            }
            Filter::Jsonpath(query) => self.query(query, positive),
        }
    }

    /// A part that only the reference evaluator can decide.
    fn opaque(&mut self, positive: bool, implied: impl FnOnce(&mut Self) -> Condition) -> Condition {
        self.reference = Reference::Always;
        if positive { implied(self) } else { Condition::Never }
    }

    fn clauses<'f>(&mut self, clauses: impl Iterator<Item = (&'f str, Text)>) -> Condition {
        all(clauses.map(|(name, text)| self.attribute(name, text)))
    }

    fn attribute(&mut self, name: &str, text: Text) -> Condition {
        Condition::Leaf(Leaf::Attribute(self.names.number(name), text))
    }

    fn query(&mut self, query: &Query, positive: bool) -> Condition {
        let decided = match query.plan() {
            Plan::Path(path) => self.place(path, Value::Exists),
            Plan::Children(base, test) => {
                let base = self.place(base, Value::Filled);
                let test = self.test(test);
                match (base, test) {
                    (Some(base), Some(test)) => Some(all([base, test])),
                    (Some(base), None) => return self.opaque(positive, |_| base),
                    (None, _) => None,
                }
            }
            Plan::Other(_) => None,
        };
        decided.unwrap_or_else(|| self.opaque(positive, |_| Condition::Always))
    }

    /// A test that says the same of each child.
    fn test(&mut self, test: &Test) -> Option<Condition> {
        match test {
            Test::Exists(Place::Root(path)) => self.place(path, Value::Exists),
            Test::Compare(Place::Root(path), comparison, literal) => {
                self.place(path, Value::Compare(*comparison, literal.clone()))
            }
            Test::Exists(Place::Child(_)) | Test::Compare(Place::Child(_), ..) => None,
            Test::Not(test) => self.test(test).map(not),
            Test::All(tests) => {
                let tests: Option<Vec<_>> = tests.iter().map(|test| self.test(test)).collect();
                tests.map(all)
            }
            Test::Any(tests) => {
                let tests: Option<Vec<_>> = tests.iter().map(|test| self.test(test)).collect();
                tests.map(any)
            }
        }
    }

    fn place(&mut self, path: &Path, value: Value) -> Option<Condition> {
        self.paths.number(path).map(|path| Condition::Leaf(Leaf::Data(path, value)))
    }
}

impl Reference {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, _) | (_, Self::Always) => Self::Always,
            (Self::Never, other) | (other, Self::Never) => other,
            (Self::LongTexts(one), Self::LongTexts(two)) => Self::LongTexts(one.saturating_add(two)),
        }
    }
}

/// A pattern as the simplest test that says the same.
fn fitting(pattern: &Pattern) -> Text {
    if let Some(exact) = pattern.exact() {
        return Text::Equal(exact.into());
    }
    if pattern.is_prefix() {
        return if pattern.prefix().is_empty() {
            Text::Present
        } else {
            Text::Starts(pattern.prefix().into())
        };
    }
    if pattern.is_suffix() {
        return Text::Ends(pattern.suffix().into());
    }
    Text::Fits(pattern.clone())
}

pub(super) fn all(parts: impl IntoIterator<Item = Condition>) -> Condition {
    let mut kept = Vec::new();
    for part in parts {
        match part {
            Condition::Always => {}
            Condition::Never => return Condition::Never,
            Condition::All(parts) => kept.extend(parts),
            part => kept.push(part),
        }
    }
    match kept.len() {
        0 => Condition::Always,
        1 => kept.remove(0),
        _ => Condition::All(kept.into()),
    }
}

pub(super) fn any(parts: impl IntoIterator<Item = Condition>) -> Condition {
    let mut kept = Vec::new();
    for part in parts {
        match part {
            Condition::Never => {}
            Condition::Always => return Condition::Always,
            Condition::Any(parts) => kept.extend(parts),
            part => kept.push(part),
        }
    }
    match kept.len() {
        0 => Condition::Never,
        1 => kept.remove(0),
        _ => Condition::Any(kept.into()),
    }
}

pub(super) fn not(part: Condition) -> Condition {
    match part {
        Condition::Always => Condition::Never,
        Condition::Never => Condition::Always,
        Condition::Not(part) => *part,
        part => Condition::Not(Box::new(part)),
    }
}
