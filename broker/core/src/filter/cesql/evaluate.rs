//! A tree and an event to a value and errors (sections 3.2 to 3.7).
//!
//! There is one evaluator with two modes (section 4.1): the complete one collects every error and every value on the
//! way; the other one stops at the first error, since no event passes a filter with an error. In both, what is made of
//! something erroneous has the zero value of its own type.

use std::ops::Range;

use smallvec::SmallVec;

use super::functions::{CallError, Called, Function};
use super::tree::{ArithmeticOperator, Chain, ComparisonOperator, Kind, LogicOperator, Node};
use super::value::{Type, Value};
use crate::filter::candidate::{BudgetSpent, Candidate};

/// Something that went wrong while an expression was evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Error {
    reason: Reason,
    span: Range<u32>,
    /// The number of the node.
    pub(crate) node: u32,
}

impl Error {
    /// The type of the error (section 3.3).
    pub fn class(&self) -> ErrorClass {
        match self.reason {
            Reason::DivisionByZero | Reason::Overflow => ErrorClass::Math,
            Reason::Cast { .. } => ErrorClass::Cast,
            Reason::MissingAttribute(_) => ErrorClass::MissingAttribute,
            Reason::MissingFunction { .. } => ErrorClass::MissingFunction,
            Reason::NegativeLength | Reason::OutsideOfText => ErrorClass::FunctionEvaluation,
        }
    }

    /// Where in the expression, in bytes.
    pub fn span(&self) -> Range<usize> {
        self.span.start as usize..self.span.end as usize
    }
}

/// The types of errors (section 3.3); a parse error has a type of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// _MathError_
    Math,
    /// _CastError_
    Cast,
    /// _MissingAttributeError_
    MissingAttribute,
    /// _MissingFunctionError_
    MissingFunction,
    /// _FunctionEvaluationError_
    FunctionEvaluation,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("a division by 0")]
    DivisionByZero,
    #[error("the result is not a number of 32 bits")]
    Overflow,
    #[error("{value} cannot be read as {to}")]
    Cast { value: String, to: Type },
    #[error("the event has no attribute `{0}`")]
    MissingAttribute(String),
    #[error("there is no function `{name}` with {arguments} arguments")]
    MissingFunction { name: String, arguments: usize },
    #[error("the number of characters is negative")]
    NegativeLength,
    #[error("the position is outside of the text")]
    OutsideOfText,
}

/// What an expression yields for an event: always a value, and every error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The value.
    pub value: Value<'static>,
    /// What went wrong, in the order of the evaluation.
    pub errors: Vec<Error>,
}

impl Evaluation {
    /// Whether the event passes the expression as a filter: there is no error, and the value is true, cast to a Boolean
    /// where it is none.
    pub fn passes(&self) -> bool {
        self.errors.is_empty() && self.value.as_boolean() == Some(true)
    }
}

/// What each node came to, by its number; nothing for those that were not evaluated.
pub(crate) type Trace = Vec<Option<Value<'static>>>;

/// Evaluates in complete mode.
pub(super) fn completely(root: &Node, candidate: &Candidate<'_>) -> Result<(Evaluation, Trace), BudgetSpent> {
    let trace = vec![None; root.number as usize + 1];
    let mut evaluator = Evaluator { candidate, mode: Complete { errors: Vec::new(), trace } };
    let value = evaluator.node(root)?.value.into_owned();
    let Complete { errors, trace } = evaluator.mode;
    Ok((Evaluation { value, errors }, trace))
}

/// Evaluates up to the first error.
pub(super) fn passes(root: &Node, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
    match (Evaluator { candidate, mode: FailFast }).node(root) {
        Ok(outcome) => Ok(outcome.value.as_boolean() == Some(true)),
        Err(Stop::Error) => Ok(false),
        Err(Stop::Budget(spent)) => Err(spent),
    }
}

/// Why an evaluation that ends at the first error does not reach the end.
enum Stop {
    Error,
    Budget(BudgetSpent),
}

impl From<BudgetSpent> for Stop {
    fn from(spent: BudgetSpent) -> Self {
        Self::Budget(spent)
    }
}

/// What becomes of errors and values on the way.
trait Mode {
    /// Why an evaluation ends early.
    type Stop: From<BudgetSpent>;

    fn fail(&mut self, node: &Node, reason: impl FnOnce() -> Reason) -> Result<(), Self::Stop>;

    fn evaluated(&mut self, node: &Node, value: &Value<'_>);
}

struct FailFast;

impl Mode for FailFast {
    type Stop = Stop;

    fn fail(&mut self, _: &Node, _: impl FnOnce() -> Reason) -> Result<(), Stop> {
        Err(Stop::Error)
    }

    fn evaluated(&mut self, _: &Node, _: &Value<'_>) {}
}

struct Complete {
    errors: Vec<Error>,
    trace: Trace,
}

impl Mode for Complete {
    type Stop = BudgetSpent;

    fn fail(&mut self, node: &Node, reason: impl FnOnce() -> Reason) -> Result<(), BudgetSpent> {
        self.errors.push(Error { reason: reason(), span: node.span.clone(), node: node.number });
        Ok(())
    }

    fn evaluated(&mut self, node: &Node, value: &Value<'_>) {
        self.trace[node.number as usize] = Some(excerpt(value));
    }
}

/// The longest text that is repeated in an explanation or an error, in characters.
const EXCERPT: usize = 256;

fn excerpt(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::String(text) => match text.char_indices().nth(EXCERPT) {
            Some((end, _)) => Value::String(format!("{}…", &text[..end]).into()),
            None => value.clone().into_owned(),
        },
        _ => value.clone().into_owned(),
    }
}

struct Outcome<'v> {
    value: Value<'v>,
    /// Whether no error led to the value.
    valid: bool,
}

impl<'v> Outcome<'v> {
    /// A valid value, or the zero value of the type.
    fn of(value: Option<impl Into<Value<'v>>>, zero: Type) -> Self {
        let valid = value.is_some();
        Self { value: value.map_or_else(|| zero.zero(), Into::into), valid }
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Boolean(truth)
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Self::Integer(number)
    }
}

/// How many attributes are looked at in one step.
const ATTRIBUTES_PER_STEP: usize = 16;

struct Evaluator<'c, 'e, M> {
    candidate: &'c Candidate<'e>,
    mode: M,
}

impl<'e, M: Mode> Evaluator<'_, 'e, M> {
    fn node<'v>(&mut self, node: &'v Node) -> Result<Outcome<'v>, M::Stop>
    where
        'e: 'v,
    {
        self.candidate.spend(1)?;
        let outcome = match &node.kind {
            Kind::Literal(value) => Outcome { value: value.by_ref(), valid: true },
            Kind::Attribute(name) => self.attribute(node, name)?,
            Kind::Exists(name) => Outcome::of(Some(self.find(name)?.is_some()), Type::Boolean),
            Kind::Not(operand) => Outcome::of(self.boolean(operand)?.map(|truth| !truth), Type::Boolean),
            Kind::Negative(operand) => {
                let number = self.integer(operand)?;
                Outcome::of(self.checked(node, number.map(i32::checked_neg))?, Type::Integer)
            }
            Kind::Like { value, negated, pattern } => {
                let text = self.cast(value, Type::String)?;
                let matches = match &text {
                    Some(Value::String(text)) => {
                        self.candidate.spend_on_text(text.len().saturating_mul(pattern.weight()))?;
                        Some(pattern.matches(text) != *negated)
                    }
                    _ => None,
                };
                Outcome::of(matches, Type::Boolean)
            }
            Kind::In { value, negated, set } => {
                Outcome::of(self.is_in(value, set)?.map(|found| found != *negated), Type::Boolean)
            }
            Kind::Arithmetic(chain) => Outcome::of(self.arithmetic(node, chain)?, Type::Integer),
            Kind::Comparison(chain) => self.comparison(chain)?,
            Kind::Logic(chain) => Outcome::of(self.logic(chain)?, Type::Boolean),
            Kind::Call { name, function, arguments } => self.call(node, name, *function, arguments)?,
        };
        self.mode.evaluated(node, &outcome.value);
        Ok(outcome)
    }

    fn find(&self, name: &str) -> Result<Option<crate::event::Value<'e>>, M::Stop> {
        let event = self.candidate.event();
        let steps = event.attribute_count() / ATTRIBUTES_PER_STEP;
        self.candidate.spend(u32::try_from(steps).unwrap_or(u32::MAX))?;
        Ok(event.attribute(name))
    }

    fn attribute<'v>(&mut self, node: &Node, name: &str) -> Result<Outcome<'v>, M::Stop>
    where
        'e: 'v,
    {
        if let Some(value) = self.find(name)? {
            return Ok(Outcome { value: Value::of_attribute(value), valid: true });
        }
        self.mode.fail(node, || Reason::MissingAttribute(name.to_owned()))?;
        Ok(Outcome { value: Type::Boolean.zero(), valid: false })
    }

    /// The valid value of a sub-expression under a type.
    fn cast<'v>(&mut self, node: &'v Node, to: Type) -> Result<Option<Value<'v>>, M::Stop>
    where
        'e: 'v,
    {
        let outcome = self.node(node)?;
        if !outcome.valid {
            return Ok(None);
        }
        self.cast_value(node, outcome.value, to)
    }

    fn cast_value<'v>(
        &mut self,
        node: &Node,
        value: Value<'v>,
        to: Type,
    ) -> Result<Option<Value<'v>>, M::Stop> {
        if value.type_of() == to {
            return Ok(Some(value));
        }
        let cast = match to {
            Type::String => return Ok(Some(Value::String(value.into_text()))),
            Type::Integer => value.as_integer().map(Value::Integer),
            Type::Boolean => value.as_boolean().map(Value::Boolean),
        };
        if cast.is_none() {
            self.mode.fail(node, || Reason::Cast { value: excerpt(&value).to_string(), to })?;
        }
        Ok(cast)
    }

    fn boolean(&mut self, node: &Node) -> Result<Option<bool>, M::Stop> {
        Ok(self.cast(node, Type::Boolean)?.and_then(|value| value.as_boolean()))
    }

    fn integer(&mut self, node: &Node) -> Result<Option<i32>, M::Stop> {
        Ok(self.cast(node, Type::Integer)?.and_then(|value| value.as_integer()))
    }

    /// The result of an operation with numbers that were valid; nothing within is an overflow.
    fn checked(&mut self, node: &Node, result: Option<Option<i32>>) -> Result<Option<i32>, M::Stop> {
        if result == Some(None) {
            self.mode.fail(node, || Reason::Overflow)?;
        }
        Ok(result.flatten())
    }

    fn logic(&mut self, chain: &Chain<LogicOperator>) -> Result<Option<bool>, M::Stop> {
        let mut left = self.boolean(&chain.first)?;
        for (operator, node) in &chain.rest {
            // The value of what failed is false.
            let decided = match operator {
                LogicOperator::And => !left.unwrap_or(false),
                LogicOperator::Or => left.unwrap_or(false),
                LogicOperator::Xor => false,
            };
            if decided {
                continue;
            }
            let right = self.boolean(node)?;
            left = left.zip(right).map(|(left, right)| match operator {
                LogicOperator::And => left && right,
                LogicOperator::Or => left || right,
                LogicOperator::Xor => left != right,
            });
        }
        Ok(left)
    }

    fn arithmetic(&mut self, node: &Node, chain: &Chain<ArithmeticOperator>) -> Result<Option<i32>, M::Stop> {
        let mut left = self.integer(&chain.first)?;
        for (operator, operand) in &chain.rest {
            let right = self.integer(operand)?;
            let Some((x, y)) = left.zip(right) else {
                left = None;
                continue;
            };
            let result = match operator {
                ArithmeticOperator::Multiply => x.checked_mul(y),
                ArithmeticOperator::Add => x.checked_add(y),
                ArithmeticOperator::Subtract => x.checked_sub(y),
                ArithmeticOperator::Divide | ArithmeticOperator::Modulo if y == 0 => {
                    self.mode.fail(node, || Reason::DivisionByZero)?;
                    left = None;
                    continue;
                }
                ArithmeticOperator::Divide => x.checked_div(y),
                ArithmeticOperator::Modulo => x.checked_rem(y),
            };
            left = self.checked(node, Some(result))?;
        }
        Ok(left)
    }

    fn comparison<'v>(&mut self, chain: &'v Chain<ComparisonOperator>) -> Result<Outcome<'v>, M::Stop>
    where
        'e: 'v,
    {
        let mut left = self.node(&chain.first)?;
        for (operator, node) in &chain.rest {
            let right = self.node(node)?;
            let result = if left.valid && right.valid {
                self.compare(*operator, (&chain.first, left.value), (node, right.value))?
            } else {
                None
            };
            left = Outcome::of(result, Type::Boolean);
        }
        Ok(left)
    }

    fn compare(
        &mut self,
        operator: ComparisonOperator,
        (left_node, left): (&Node, Value<'_>),
        (right_node, right): (&Node, Value<'_>),
    ) -> Result<Option<bool>, M::Stop> {
        if matches!(operator, ComparisonOperator::Equal | ComparisonOperator::NotEqual) {
            let Some(left) = self.cast_value(left_node, left, right.type_of())? else { return Ok(None) };
            let equal = self.equal(&left, &right)?;
            return Ok(Some(equal == (operator == ComparisonOperator::Equal)));
        }
        let left = self.cast_value(left_node, left, Type::Integer)?.and_then(|value| value.as_integer());
        let right = self.cast_value(right_node, right, Type::Integer)?.and_then(|value| value.as_integer());
        Ok(left.zip(right).map(|(left, right)| match operator {
            ComparisonOperator::Less => left < right,
            ComparisonOperator::LessOrEqual => left <= right,
            ComparisonOperator::Greater => left > right,
            _ => left >= right,
        }))
    }

    fn equal(&self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, BudgetSpent> {
        if let (Value::String(left), Value::String(right)) = (left, right)
            && left.len() == right.len()
        {
            self.candidate.spend_on_text(left.len())?;
        }
        Ok(left == right)
    }

    /// Whether an element equals the value, cast to its type. As both reference implementations do, it stops at the
    /// first one that does, as if the comparisons were joined by OR.
    fn is_in(&mut self, value: &Node, set: &[Node]) -> Result<Option<bool>, M::Stop> {
        let left = self.node(value)?;
        let mut valid = left.valid;
        for element in set {
            let right = self.node(element)?;
            valid &= right.valid;
            if !valid {
                continue;
            }
            let Some(right) = self.cast_value(element, right.value, left.value.type_of())? else {
                valid = false;
                continue;
            };
            if self.equal(&left.value, &right)? {
                return Ok(Some(true));
            }
        }
        Ok(valid.then_some(false))
    }

    fn call<'v>(
        &mut self,
        node: &Node,
        name: &str,
        function: Option<Function>,
        arguments: &'v [Node],
    ) -> Result<Outcome<'v>, M::Stop>
    where
        'e: 'v,
    {
        let Some(function) = function else {
            let reason = || Reason::MissingFunction { name: name.to_owned(), arguments: arguments.len() };
            self.mode.fail(node, reason)?;
            return Ok(Outcome { value: Type::Boolean.zero(), valid: false });
        };
        let mut values: SmallVec<[Value<'v>; 4]> = SmallVec::new();
        for (place, argument) in arguments.iter().enumerate() {
            values.extend(self.cast(argument, function.parameter(place))?);
        }
        if values.len() < arguments.len() {
            return Ok(Outcome { value: function.returns().zero(), valid: false });
        }
        match function.call(&mut values, self.candidate)? {
            Called::Value(value) => Ok(Outcome { value, valid: true }),
            Called::Failed(value, error) => {
                self.mode.fail(node, || match error {
                    CallError::Overflow => Reason::Overflow,
                    CallError::NegativeLength => Reason::NegativeLength,
                    CallError::OutsideOfText => Reason::OutsideOfText,
                })?;
                Ok(Outcome { value, valid: false })
            }
        }
    }
}
