//! Comparisons of attributes, and why there is no such filter.

use std::fmt;
use std::ops::Deref;

use serde::{Serialize, Serializer};

use super::like::{Pattern, PatternTooLong};
use super::{MAX_FILTER_CLAUSES, MAX_FILTER_DEPTH};

/// The name of an attribute as Knative admits it in a filter: `^[a-z][a-z0-9]*$`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct AttributeName(Box<str>);

impl AttributeName {
    /// Checks the name.
    pub fn new(name: &str) -> Result<Self, InvalidFilter> {
        let mut bytes = name.bytes();
        let valid = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if valid { Ok(Self(name.into())) } else { Err(InvalidFilter::AttributeName(excerpt(name))) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for AttributeName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One comparison of an attribute with text or a pattern that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clause<V = Box<str>> {
    attribute: AttributeName,
    value: V,
}

impl<V> Clause<V> {
    /// The attribute.
    pub fn attribute(&self) -> &AttributeName {
        &self.attribute
    }

    fn checked(attribute: &str, text: &str, value: V) -> Result<Self, InvalidFilter> {
        let attribute = AttributeName::new(attribute)?;
        if text.is_empty() {
            return Err(InvalidFilter::EmptyValue(attribute.0.into()));
        }
        Ok(Self { attribute, value })
    }
}

impl Clause {
    /// Compares `attribute` with `value`.
    pub fn new(attribute: &str, value: &str) -> Result<Self, InvalidFilter> {
        Self::checked(attribute, value, value.into())
    }

    /// What the attribute is compared with; never empty.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl Clause<Pattern> {
    /// Compares `attribute` with a pattern.
    pub fn like(attribute: &str, pattern: Pattern) -> Result<Self, InvalidFilter> {
        Self::checked(attribute, pattern.clone().text(), pattern)
    }

    /// What the attribute is compared with; never empty.
    pub fn pattern(&self) -> &Pattern {
        &self.value
    }
}

/// At least one clause, sorted by attribute, each attribute once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clauses<V = Box<str>>(Box<[Clause<V>]>);

impl<V> Clauses<V> {
    /// The clauses in the order of their attributes.
    pub fn new(mut clauses: Vec<Clause<V>>) -> Result<Self, InvalidFilter> {
        if clauses.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        if clauses.len() > MAX_FILTER_CLAUSES {
            return Err(InvalidFilter::TooManyClauses);
        }
        clauses.sort_by(|a, b| a.attribute.cmp(&b.attribute));
        if let Some(pair) = clauses.windows(2).find(|pair| pair[0].attribute == pair[1].attribute) {
            return Err(InvalidFilter::AttributeTwice(pair[0].attribute.0.to_string()));
        }
        Ok(Self(clauses.into()))
    }
}

impl<V> Deref for Clauses<V> {
    type Target = [Clause<V>];

    fn deref(&self) -> &[Clause<V>] {
        &self.0
    }
}

/// Why there is no such filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// The name breaks `^[a-z][a-z0-9]*$`.
    #[error("`{0}` is not an attribute name: use a lower-case letter, then lower-case letters and digits")]
    AttributeName(String),
    /// The value is empty.
    #[error("the value of `{0}` is empty: write a value, or `filter.attributes` with `\"\"` for any value")]
    EmptyValue(String),
    /// An attribute stands twice in one map.
    #[error("the attribute `{0}` is given twice")]
    AttributeTwice(String),
    /// The pattern is beyond its limit.
    #[error(transparent)]
    Pattern(#[from] PatternTooLong),
    /// No condition at all.
    #[error("it holds no condition: write one, or leave it out to take every event")]
    Empty,
    /// Nested deeper than [`MAX_FILTER_DEPTH`].
    #[error("it is nested deeper than {MAX_FILTER_DEPTH} levels")]
    TooDeep,
    /// More than [`MAX_FILTER_CLAUSES`].
    #[error("it compares more than {MAX_FILTER_CLAUSES} attributes: split the trigger")]
    TooManyClauses,
}

fn excerpt(name: &str) -> String {
    name.chars().take(64).collect()
}

impl Serialize for Clauses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|clause| (&clause.attribute, &*clause.value)))
    }
}

impl Serialize for Clauses<Pattern> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|clause| (&clause.attribute, clause.value.text())))
    }
}
