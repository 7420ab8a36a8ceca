//! CESQL, the expression language of CloudEvents, version 1.0.0.
//!
//! The norm is followed to the letter. Where it is silent, contradicts itself, or differs from what the reference
//! implementations do:
//!
//! - AND, OR and XOR are one level and apply from left to right (section 3.6); the reference grammar reads them from
//!   the right, so that [`Expression::warnings`] names mixtures without parentheses.
//! - `NOT 10` is false: every Integer but 0 is true (section 3.7).
//! - A sign that touches digits belongs to them only where a value is expected: `a-1` and `4-1` are subtractions.
//! - A result that is no Integer of 32 bits is 0 with a _MathError_.
//! - Quotes within strings are escaped by a backslash only; doubling them is an error (section 2.2). Every other
//!   backslash is itself.
//! - Text is counted in Unicode scalar values.
//! - What is made of something erroneous is the zero value of its own type, as of a missing attribute (section 3.2).
//! - `IN` stops at the first element that is equal.
//! - An attribute has the type of the wire, so that an Integer or a Boolean from JSON is text from an HTTP header.

mod evaluate;
mod functions;
mod implied;
mod parse;
mod token;
pub(crate) mod tree;
mod value;
mod warnings;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(crate) use self::evaluate::Trace;
pub use self::evaluate::{Error, ErrorClass, Evaluation};
pub use self::parse::ParseError;
pub use self::value::{Type, Value};
pub use self::warnings::Warning;
use super::Filter;
use super::candidate::{BudgetSpent, Candidate};

/// The longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 32 * 1024;

/// The deepest nesting of parentheses, unary operators and arguments in an expression.
pub const MAX_DEPTH: usize = 64;

/// An expression that was parsed. A clone is a reference count; two are equal when they are written alike.
#[derive(Clone)]
pub struct Expression(Arc<Parsed>);

struct Parsed {
    text: Box<str>,
    root: tree::Node,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// [`ParseError`] with the place, for text that is no expression of CESQL or beyond [`MAX_EXPRESSION_BYTES`] or
    /// [`MAX_DEPTH`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let root = parse::parse(text)?;
        Ok(Self(Arc::new(Parsed { text: text.into(), root })))
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether the event passes the expression as a filter: it yields true without an error, cast to a Boolean where it
    /// is none. Stops at the first error; allocates only where a function or a cast builds text.
    ///
    /// # Errors
    /// [`BudgetSpent`] where the steps of the candidate do not suffice.
    pub fn holds(&self, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
        evaluate::passes(self.root(), candidate)
    }

    /// The value of the expression and every error.
    ///
    /// # Errors
    /// [`BudgetSpent`] where the steps of the candidate do not suffice.
    pub fn evaluate(&self, candidate: &Candidate<'_>) -> Result<Evaluation, BudgetSpent> {
        evaluate::completely(self.root(), candidate).map(|(evaluation, _)| evaluation)
    }

    /// The value of the expression, every error, and what each sub-expression came to.
    pub(crate) fn trace(&self, candidate: &Candidate<'_>) -> Result<(Evaluation, Trace), BudgetSpent> {
        evaluate::completely(self.root(), candidate)
    }

    /// What is valid and most likely not meant, or read otherwise by other implementations.
    pub fn warnings(&self) -> Vec<Warning> {
        warnings::of(self.root(), self.text())
    }

    /// A filter of the plain dialects that matches every event which this expression matches: what an index may rely
    /// on. [`Filter::Everything`] where nothing is known.
    pub fn implied(&self) -> Filter {
        implied::of(self.root())
    }

    /// Whether it asks about anything of the event.
    pub(crate) fn asks(&self) -> bool {
        self.root().asks()
    }

    pub(crate) fn root(&self) -> &tree::Node {
        &self.0.root
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text()).finish()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
pub(in crate::filter) mod generated;
#[cfg(test)]
mod suite;
