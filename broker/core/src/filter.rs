//! Which events a trigger takes.
//!
//! A [`Filter`] is plain data that cannot be built invalid, so that evaluating one cannot fail: an index and an
//! explanation are made from the same value. The dialects are those of Knative's Trigger and of the
//! CloudEvents Subscriptions API, read as the norm does where the implementations differ.

pub mod candidate;
pub mod cel;
pub mod cesql;
mod clause;
mod doubt;
pub mod explain;
pub mod index;
pub mod jsonpath;
pub mod like;
mod necessary;

use std::ops::Deref;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

pub use self::candidate::{BudgetSpent, Candidate, MAX_STEPS, NoData};
pub use self::clause::{AttributeName, Clause, Clauses, InvalidFilter};
pub use self::doubt::Doubt;
use self::like::Pattern;
use crate::event::Event;

/// The deepest nesting of `all`, `any` and `not` in one filter.
pub const MAX_FILTER_DEPTH: usize = 32;

/// The most clauses (comparisons of one attribute) in one filter, which bounds the work of one evaluation.
pub const MAX_FILTER_CLAUSES: usize = 4_096;

/// A condition on an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Every event.
    Everything,
    /// Each named attribute is there and equals its value, case-sensitively.
    Exact(Clauses),
    /// Each named attribute is there and starts with its value.
    Prefix(Clauses),
    /// Each named attribute is there and ends with its value.
    Suffix(Clauses),
    /// Each named attribute is there and fits its pattern.
    Like(Clauses<Pattern>),
    /// The CESQL expression yields true without an error.
    Cesql(cesql::Expression),
    /// The CEL expression yields true.
    Cel(cel::Expression),
    /// The query selects at least one node of the data.
    Jsonpath(jsonpath::Query),
    /// The attribute is there, whatever its value (`""` in a Trigger's `filter.attributes`).
    Present(AttributeName),
    /// Each of the filters matches.
    All(Filters),
    /// At least one of the filters matches.
    Any(Filters),
    /// The filter does not match; a missing attribute is no match, so that the negation of it is one.
    Not(Negated),
}

impl Filter {
    /// Whether the filter takes the event, with steps of its own: this is what an index must agree with.
    ///
    /// # Errors
    /// [`BudgetSpent`] where it takes more than [`MAX_STEPS`], so that the trigger does not match.
    pub fn matches(&self, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
        candidate.begin();
        self.holds(candidate)
    }

    /// Whether the filter takes an event that nothing else is asked about; a spent budget is no match.
    pub fn matches_event(&self, event: &Event) -> bool {
        self.matches(&Candidate::new(event)) == Ok(true)
    }

    /// Whether the filter holds for the event, as a part of what is being evaluated: it takes its steps from those that
    /// are left.
    ///
    /// # Errors
    /// [`BudgetSpent`] where they do not suffice.
    pub fn holds(&self, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
        let each = |clauses: &Clauses, test: fn(&str, &str) -> bool| {
            clauses.iter().all(|clause| {
                let value = candidate.event().attribute(clause.attribute());
                value.is_some_and(|value| test(value.text, clause.value()))
            })
        };
        let first = |filters: &Filters, wanted: bool| {
            for filter in filters.iter() {
                if filter.holds(candidate)? == wanted {
                    return Ok(wanted);
                }
            }
            Ok(!wanted)
        };
        match self {
            Self::Everything => Ok(true),
            Self::Exact(clauses) => Ok(each(clauses, |text, value| text == value)),
            Self::Prefix(clauses) => Ok(each(clauses, |text, value| text.starts_with(value))),
            Self::Suffix(clauses) => Ok(each(clauses, |text, value| text.ends_with(value))),
            Self::Like(clauses) => like(clauses, candidate),
            Self::Cesql(expression) => expression.holds(candidate),
            Self::Cel(expression) => expression.holds(candidate),
            Self::Jsonpath(query) => query.selects(candidate),
            Self::Present(attribute) => Ok(candidate.event().attribute(attribute).is_some()),
            Self::All(filters) => first(filters, false),
            Self::Any(filters) => first(filters, true),
            Self::Not(negated) => negated.holds(candidate).map(|holds| !holds),
        }
    }

    /// What is valid and most likely not meant: that it can never match, or that nobody can say what it costs. No doubt
    /// is no proof.
    pub fn doubts(&self) -> Vec<Doubt> {
        doubt::of(self)
    }

    /// Every filter of the list matches; one filter alone stands for itself.
    pub fn all(mut filters: Vec<Self>) -> Result<Self, InvalidFilter> {
        match filters.len() {
            1 => Ok(filters.remove(0)),
            _ => Filters::new(filters).map(Self::All),
        }
    }

    /// At least one filter of the list matches; one filter alone stands for itself.
    pub fn any(mut filters: Vec<Self>) -> Result<Self, InvalidFilter> {
        match filters.len() {
            1 => Ok(filters.remove(0)),
            _ => Filters::new(filters).map(Self::Any),
        }
    }

    /// The filter does not match.
    pub fn negate(filter: Self) -> Result<Self, InvalidFilter> {
        within_limits(std::slice::from_ref(&filter))?;
        Ok(Self::Not(Negated(Box::new(filter))))
    }

    /// How many comparisons one evaluation may take.
    pub fn clauses(&self) -> usize {
        match self {
            Self::Everything => 0,
            Self::Exact(clauses) | Self::Prefix(clauses) | Self::Suffix(clauses) => clauses.len(),
            Self::Like(clauses) => clauses.len(),
            Self::Present(_) | Self::Cesql(_) | Self::Cel(_) | Self::Jsonpath(_) => 1,
            Self::All(filters) | Self::Any(filters) => filters.iter().map(Self::clauses).sum(),
            Self::Not(negated) => negated.clauses(),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::All(filters) | Self::Any(filters) => 1 + filters.iter().map(Self::depth).max().unwrap_or(0),
            Self::Not(negated) => 1 + negated.depth(),
            _ => 1,
        }
    }
}

/// Whether each attribute is there and fits, for steps in proportion to its length.
fn like(clauses: &Clauses<Pattern>, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
    for clause in clauses.iter() {
        let Some(value) = candidate.event().attribute(clause.attribute()) else { return Ok(false) };
        candidate.spend_on_text(value.text.len().saturating_mul(clause.pattern().weight()))?;
        if !clause.pattern().matches(value.text) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn within_limits(filters: &[Filter]) -> Result<(), InvalidFilter> {
    if filters.iter().any(|filter| filter.depth() >= MAX_FILTER_DEPTH) {
        return Err(InvalidFilter::TooDeep);
    }
    if filters.iter().map(Filter::clauses).sum::<usize>() > MAX_FILTER_CLAUSES {
        return Err(InvalidFilter::TooManyClauses);
    }
    Ok(())
}

/// At least one filter, within the limits of depth and number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filters(Box<[Filter]>);

impl Filters {
    /// Checks the limits.
    pub fn new(filters: Vec<Filter>) -> Result<Self, InvalidFilter> {
        if filters.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        within_limits(&filters)?;
        Ok(Self(filters.into()))
    }
}

impl Deref for Filters {
    type Target = [Filter];

    fn deref(&self) -> &[Filter] {
        &self.0
    }
}

/// A filter under `not`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Negated(Box<Filter>);

impl Deref for Negated {
    type Target = Filter;

    fn deref(&self) -> &Filter {
        &self.0
    }
}

impl Serialize for Filter {
    /// Writes an item of a Trigger's `filters`; [`Filter::Everything`] as `{}` and [`Filter::Present`], which
    /// `filters` cannot say, as `{"present": name}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Everything => {}
            Self::Exact(clauses) => map.serialize_entry("exact", clauses)?,
            Self::Prefix(clauses) => map.serialize_entry("prefix", clauses)?,
            Self::Suffix(clauses) => map.serialize_entry("suffix", clauses)?,
            Self::Like(clauses) => map.serialize_entry("like", clauses)?,
            Self::Cesql(expression) => map.serialize_entry("cesql", expression.text())?,
            Self::Cel(expression) => map.serialize_entry("cel", expression.text())?,
            Self::Jsonpath(query) => map.serialize_entry("jsonpath", query)?,
            Self::Present(attribute) => map.serialize_entry("present", attribute)?,
            Self::All(filters) => map.serialize_entry("all", &**filters)?,
            Self::Any(filters) => map.serialize_entry("any", &**filters)?,
            Self::Not(negated) => map.serialize_entry("not", &**negated)?,
        }
        map.end()
    }
}

#[cfg(test)]
mod generated;
#[cfg(test)]
mod suite;
