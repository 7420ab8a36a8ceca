//! The dialect `jsonpath`: RFC 9535. A filter is true when its query selects at least one node of the event's data.
//!
//! Queries that ask about single places (`$.order.id`, `$.items[?@.price > 500]`, `$[?$.order.total >= 10 && !$.test]`)
//! are evaluated by code of our own, which an index can also answer from the text without a tree. All others go to
//! `jsonpath-rust`, after an estimate of what they may cost.

mod cost;
pub(crate) mod json_text;
pub(in crate::filter) mod path;
pub(in crate::filter) mod plan;
pub(in crate::filter) mod scalar;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use self::plan::Plan;
use super::{BudgetSpent, Candidate};

/// The longest query, in bytes.
pub const MAX_QUERY_BYTES: usize = 4_096;

/// The deepest nesting of parentheses in a query, and that of brackets. Reading a query that is wrong in its innermost
/// function takes time that doubles with each parenthesis.
pub const MAX_QUERY_DEPTH: usize = 8;

/// A query of RFC 9535. Two are equal when their texts are.
#[derive(Clone)]
pub struct Query(Arc<Parsed>);

struct Parsed {
    text: Box<str>,
    plan: Plan,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`InvalidQuery`] where it is none, is longer than [`MAX_QUERY_BYTES`] or nested deeper than [`MAX_QUERY_DEPTH`], uses
    /// a function that RFC 9535 does not define, or a regular expression that is no literal or too large.
    pub fn parse(text: &str) -> Result<Self, InvalidQuery> {
        let plan = plan::parse(text)?;
        Ok(Self(Arc::new(Parsed { text: text.into(), plan })))
    }

    /// The query as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether the query selects anything. An event without data that is JSON has nothing to select.
    ///
    /// A query about single places takes one step for each child that it looks at; what any other one takes is estimated
    /// from the size of the data before it is evaluated.
    ///
    /// # Errors
    /// [`BudgetSpent`] where the steps that are left do not suffice.
    pub fn selects(&self, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
        match candidate.data() {
            Ok(data) => self.0.plan.selects(data, candidate),
            Err(_) => Ok(false),
        }
    }

    /// Whether it names a single place, such as `$.order.lines[0].id`.
    pub fn is_singular(&self) -> bool {
        matches!(self.0.plan, Plan::Path(_))
    }

    /// The value at the single place that it names; none where nothing is there, or where it names no single place.
    pub fn value_in<'v>(&self, data: &'v serde_json::Value) -> Option<&'v serde_json::Value> {
        match &self.0.plan {
            Plan::Path(path) => path.find(data),
            Plan::Children(..) | Plan::Other(_) => None,
        }
    }

    /// Whether its cost cannot be bounded by the number of places that it names: it visits all descendants, or evaluates a
    /// query anew for each node.
    pub fn visits_much(&self) -> bool {
        matches!(&self.0.plan, Plan::Other(other) if other.visits_much())
    }

    pub(in crate::filter) fn plan(&self) -> &Plan {
        &self.0.plan
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Query").field(&self.text()).finish()
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Query {}

impl Hash for Query {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl Serialize for Query {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

/// Why a text is not a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidQuery {
    /// Where, in bytes from the start of the text.
    pub offset: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl InvalidQuery {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }
}

#[cfg(test)]
pub(in crate::filter) mod suite;
