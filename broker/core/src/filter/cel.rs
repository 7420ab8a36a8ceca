//! The dialect `cel`: the Common Expression Language, by the crate of that name.
//!
//! An expression sees every attribute as a variable of its name: an Integer as `int`, a Boolean as `bool`, all others as
//! `string` in the text in which they came (`timestamp(time)` makes a timestamp). Data that is JSON is the variable
//! `data`; whole numbers in it are `int`. An absent attribute is an undeclared variable, an error unless `||` or `&&`
//! need not know it; `has(subject)` and `has(data)` ask whether it is there, as `has(data.order.id)` does for members.
//! An error, and a result that is no `bool`, is no match. A loop over a map is over its keys in their order.
//!
//! The crate has neither steps nor a bound of its stack, so that both are added here: the length of an expression, the
//! depth of its tree, and before an evaluation an estimate of what it may cost with the data at hand.

mod cost;
mod implied;
mod order;
mod presence;
mod value;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use ::cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use ::cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use ::cel::common::value::{CowVal, Val};
use ::cel::context::VariableResolver;
use ::cel::{Context, Env, ExecutionError};
use serde_json::Value as Json;

use super::Filter;
use super::candidate::{BudgetSpent, Candidate};
use crate::codes::{self, Code};
use crate::event::{AttributeType, Event};

/// The longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 4_096;

/// The deepest tree of an expression; operators of one kind in a row are one level each.
pub const MAX_DEPTH: usize = 64;

/// The size of a compiled pattern of `matches`, in bytes.
pub const MAX_PATTERN_SIZE: usize = 64 * 1024;

/// The stack that the parser may use. It takes up to 200 KiB for a parenthesis without optimisation, and refuses none for
/// the depth of some operators; memory that it does not touch is not taken.
const PARSER_STACK: usize = 256 * 1024 * 1024;

/// How many levels of parentheses the parser follows.
const PARSER_DEPTH: u16 = 32;

/// What an evaluation may need of the stack, and what it gets where less is left.
const EVALUATION_STACK: usize = 2 * 1024 * 1024;

/// The longest error of the crate that is repeated, in characters: it may hold values.
const EXCERPT: usize = 256;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    order::declare(&mut environment);
    Arc::new(environment)
});

/// An expression that was parsed. A clone is a reference count; two are equal when they are written alike.
#[derive(Clone)]
pub struct Expression(Arc<Parsed>);

struct Parsed {
    text: Box<str>,
    root: IdedExpr,
    reads_data: bool,
}

/// What an expression yields for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// True or false.
    Boolean(bool),
    /// A value of another type, which is named.
    NotBoolean(String),
    /// An error, in a sentence.
    Failed(String),
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// [`ParseError`] with the place, for text that is no expression of CEL or beyond a limit.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let whole = |reason: &str| ParseError { message: reason.to_owned(), line: 1, column: 1 };
        if text.trim().is_empty() {
            return Err(whole("the expression is empty"));
        }
        if text.len() > MAX_EXPRESSION_BYTES {
            return Err(whole(&format!("the expression is longer than {MAX_EXPRESSION_BYTES} bytes")));
        }
        let (rewritten, insertions) = presence::rewrite(text);
        let parsed = stacker::grow(PARSER_STACK, || compile(&rewritten));
        let root = parsed.map_err(|error| insertions.undo(error))?;
        let reads_data = root.references().has_variable("data") || rewritten.contains(presence::OF_DATA);
        Ok(Self(Arc::new(Parsed { text: text.into(), root, reads_data })))
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether the event passes: the expression yields true.
    ///
    /// # Errors
    /// [`BudgetSpent`] where it may take more steps than the candidate has left.
    pub fn holds(&self, candidate: &Candidate<'_>) -> Result<bool, BudgetSpent> {
        self.evaluate(candidate).map(|outcome| outcome == Outcome::Boolean(true))
    }

    /// What the expression yields.
    ///
    /// # Errors
    /// [`BudgetSpent`] where it may take more steps than the candidate has left.
    pub fn evaluate(&self, candidate: &Candidate<'_>) -> Result<Outcome, BudgetSpent> {
        let outcome = self.resolve(candidate, |value| match value.downcast_ref::<CelBool>() {
            Some(truth) => Outcome::Boolean(*truth.inner()),
            None => Outcome::NotBoolean(value.get_type().name().to_owned()),
        })?;
        Ok(outcome.unwrap_or_else(Outcome::Failed))
    }

    /// Makes something of what the expression yields, or tells in a sentence why it yields nothing.
    fn resolve<T>(
        &self,
        candidate: &Candidate<'_>,
        make: impl FnOnce(&dyn Val) -> T,
    ) -> Result<Result<T, String>, BudgetSpent> {
        let root = &self.0.root;
        cost::charge(root, candidate, self.0.reads_data)?;
        let data = if self.0.reads_data { candidate.data_for_cel() } else { None };
        let variables = Variables { event: candidate.event(), data };
        let evaluate = || {
            let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
            context.set_variable_resolver(&variables);
            match ::cel::Value::resolve_val(root, &context) {
                Ok(value) => Ok(make(value.as_ref())),
                Err(error) => Err(told(&error).chars().take(EXCERPT).collect()),
            }
        };
        // The crate has places that panic when it contradicts itself; one filter must not end the process for that. What
        // it held is dropped with the context, so that nothing is left in between.
        let result = catch_unwind(AssertUnwindSafe(|| {
            stacker::maybe_grow(EVALUATION_STACK, 2 * EVALUATION_STACK, evaluate)
        }));
        Ok(match result {
            Ok(Err(error)) => Err(match self.0.reads_data.then(|| candidate.data()) {
                Some(Err(reason)) => format!("{error}; {reason}"),
                _ => error,
            }),
            Ok(made) => made,
            Err(_) => Err("the evaluation ended in a panic".to_owned()),
        })
    }

    /// A filter of the plain dialects that matches every event which this expression matches.
    /// [`Filter::Everything`] where nothing is known.
    pub fn implied(&self) -> Filter {
        implied::of(&self.0.root)
    }

    /// Whether it asks about anything of the event.
    pub(crate) fn asks(&self) -> bool {
        !self.0.root.references().variables().is_empty()
    }

    /// Whether it holds a loop over data, so that data decides about its cost.
    pub fn loops(&self) -> bool {
        fn any(expression: &IdedExpr) -> bool {
            matches!(expression.expr, Expr::Comprehension(_)) || parts(expression).into_iter().any(any)
        }
        any(&self.0.root)
    }
}

/// Why there is no such expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at line {line}, column {column} of the expression")]
pub struct ParseError {
    message: String,
    line: usize,
    column: usize,
}

impl ParseError {
    /// The code of every error of this kind.
    pub fn code(&self) -> Code {
        codes::EXPRESSION_INVALID
    }

    /// The line in the expression, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in the line, in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        "write an expression of CEL that yields a bool, such as `type == 'order' && data.total > 10`"
            .to_owned()
    }
}

/// The error in a sentence. Where the crate tells whole values, their types are told: the members of a map would stand
/// there in an order of chance, and what is evaluated again must come to the same.
fn told(error: &ExecutionError) -> String {
    match error {
        ExecutionError::UnsupportedTargetType { target } => {
            format!("Invalid argument type: {}", target.type_of())
        }
        ExecutionError::NotSupportedAsMethod { method, target } => {
            format!("Method '{method}' not supported on type '{}'", target.type_of())
        }
        ExecutionError::UnsupportedKeyType(value) => {
            format!("Unable to use a value of type '{}' as a key", value.type_of())
        }
        ExecutionError::ValuesNotComparable(one, other) => {
            format!("Type '{}' can not be compared to type '{}'", one.type_of(), other.type_of())
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("Unsupported binary operator '{operator}': '{}', '{}'", left.type_of(), right.type_of())
        }
        ExecutionError::UnsupportedIndex(index, value) => {
            format!("Cannot use type '{}' to index type '{}'", index.type_of(), value.type_of())
        }
        other => other.to_string(),
    }
}

/// Parses, and checks the limits of what was read.
fn compile(text: &str) -> Result<IdedExpr, ParseError> {
    let parser = || ENVIRONMENT.parser().max_recursion_depth(PARSER_DEPTH).parse(text);
    let failed = |message: String, (line, column): (isize, isize)| {
        let from_1 = |place: isize| usize::try_from(place).unwrap_or(1).max(1);
        let message = message.chars().take(EXCERPT).collect();
        ParseError { message, line: from_1(line), column: from_1(column) }
    };
    // As for an evaluation: a parser that contradicts itself refuses the text, and holds nothing that outlives it.
    let parsed = catch_unwind(AssertUnwindSafe(parser));
    let mut root = match parsed {
        Ok(Ok(root)) => root,
        Ok(Err(errors)) => {
            let first = errors.errors.into_iter().next();
            return Err(first.map_or_else(
                || failed("the expression cannot be read".to_owned(), (1, 1)),
                |error| failed(plainly(&error.msg), error.pos),
            ));
        }
        Err(_) => return Err(failed("the expression cannot be read".to_owned(), (1, 1))),
    };
    order::put(&mut root);
    check(&root, 1).map_err(|message| failed(message, (1, 1)))?;
    Ok(root)
}

/// What the parser generator says, in words of ours where it speaks of tokens.
fn plainly(message: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let found =
        |start| message.strip_prefix(start).map(|rest| rest.split(" expecting ").next().unwrap_or(rest));
    let unexpected = ["mismatched input ", "extraneous input ", "no viable alternative at input "];
    if let Some(found) = unexpected.into_iter().find_map(found) {
        return if found == "'<EOF>'" {
            "the expression ends too early".to_owned()
        } else {
            format!("{found} is not expected here")
        };
    }
    match found("token recognition error at: ") {
        Some(found) => format!("{found} has no meaning here"),
        None => message.to_owned(),
    }
}

fn check(expression: &IdedExpr, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("the expression is nested deeper than {MAX_DEPTH} levels"));
    }
    if let Expr::Call(call) = &expression.expr
        && call.func_name == "matches"
    {
        let Some(Expr::Literal(LiteralValue::String(pattern))) = call.args.last().map(|last| &last.expr)
        else {
            return Err("the pattern of `matches` must be a literal".to_owned());
        };
        let pattern = regex::RegexBuilder::new(pattern.inner()).size_limit(MAX_PATTERN_SIZE).build();
        pattern.map_err(|error| format!("the pattern of `matches` is not valid: {error}"))?;
    }
    parts(expression).into_iter().try_for_each(|part| check(part, depth + 1))
}

/// The sub-expressions.
fn parts(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::Comprehension(of) => {
            vec![&of.iter_range, &of.accu_init, &of.loop_cond, &of.loop_step, &of.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| of_entry(&entry.expr)).collect(),
        Expr::Struct(of) => of.entries.iter().flat_map(|entry| of_entry(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
    }
}

fn of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// The variables of an expression.
struct Variables<'c> {
    event: &'c Event,
    data: Option<&'c dyn Val>,
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable {
            "data" => self.data.map(CowVal::Borrowed),
            presence::VARIABLE => Some(CowVal::owned(self.present())),
            name => self.event.attribute(name).map(|value| {
                let typed = match value.attribute_type {
                    AttributeType::Integer => {
                        value.text.parse::<i64>().ok().map(CelInt::from).map(CowVal::owned)
                    }
                    AttributeType::Boolean => {
                        value.text.parse::<bool>().ok().map(CelBool::from).map(CowVal::owned)
                    }
                    _ => None,
                };
                typed.unwrap_or_else(|| CowVal::owned(CelString::from(value.text)))
            }),
        }
    }
}

impl Variables<'_> {
    /// A map with a member for everything that is there.
    fn present(&self) -> CelMap<'_> {
        let names = self.event.attributes().map(|(name, _)| name).chain(["specversion"]);
        let names = names.chain(self.data.map(|_| "data"));
        let members: HashMap<CelMapKey<'_>, Box<dyn Val>> =
            names.map(|name| (key(name), Box::new(CelBool::from(true)) as Box<dyn Val>)).collect();
        CelMap::from(members)
    }
}

fn key(name: &str) -> CelMapKey<'static> {
    CelMapKey::String(name.to_owned().into())
}

/// JSON as a value of CEL. Recursion is bounded by the reader of the JSON.
pub(super) fn value_of(json: &Json) -> Box<dyn Val> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(truth) => Box::new(CelBool::from(*truth)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(CelUInt::from(number)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(text) => Box::new(CelString::from(text.clone())),
        Json::Array(items) => Box::new(CelList::from(items.iter().map(value_of).collect::<Vec<_>>())),
        Json::Object(members) => {
            let members: HashMap<_, _> =
                members.iter().map(|(name, value)| (key(name), value_of(value))).collect();
            Box::new(CelMap::from(members))
        }
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
mod suite;
