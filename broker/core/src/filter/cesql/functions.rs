//! The functions (sections 3.5.1 and 3.5.2), and the three casts that the norm uses without defining them.

use std::borrow::Cow;

use super::value::{Type, Value};
use crate::filter::candidate::{BudgetSpent, Candidate};

/// A function with the number of its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Length,
    Concat,
    ConcatWs,
    Lower,
    Upper,
    Trim,
    Left,
    Right,
    /// Two parameters or three.
    Substring,
    Abs,
    Int,
    Bool,
    String,
}

/// What a call yields.
pub(crate) enum Called<'v> {
    Value(Value<'v>),
    /// A value all the same, and what is wrong with it.
    Failed(Value<'v>, CallError),
}

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallError {
    Overflow,
    NegativeLength,
    OutsideOfText,
}

/// The name, how many parameters it has at least and at most, and the function.
const FUNCTIONS: [(&str, usize, usize, Function); 13] = [
    ("LENGTH", 1, 1, Function::Length),
    ("CONCAT", 0, usize::MAX, Function::Concat),
    ("CONCAT_WS", 1, usize::MAX, Function::ConcatWs),
    ("LOWER", 1, 1, Function::Lower),
    ("UPPER", 1, 1, Function::Upper),
    ("TRIM", 1, 1, Function::Trim),
    ("LEFT", 2, 2, Function::Left),
    ("RIGHT", 2, 2, Function::Right),
    ("SUBSTRING", 2, 3, Function::Substring),
    ("ABS", 1, 1, Function::Abs),
    ("INT", 1, 1, Function::Int),
    ("BOOL", 1, 1, Function::Bool),
    ("STRING", 1, 1, Function::String),
];

/// The names of all functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, ..)| *name)
}

/// How many parameters the function of that name has, at least and at most.
pub(crate) fn parameters(name: &str) -> Option<(usize, usize)> {
    let row = FUNCTIONS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
    Some((row.1, row.2))
}

impl Function {
    /// The function of that name, in any case, with so many parameters.
    pub(crate) fn find(name: &str, arguments: usize) -> Option<Self> {
        FUNCTIONS
            .iter()
            .find(|(known, least, most, _)| {
                known.eq_ignore_ascii_case(name) && (*least..=*most).contains(&arguments)
            })
            .map(|(.., function)| *function)
    }

    pub(crate) const fn returns(self) -> Type {
        match self {
            Self::Length | Self::Abs | Self::Int => Type::Integer,
            Self::Bool => Type::Boolean,
            _ => Type::String,
        }
    }

    /// The type of the parameter at that place, from 0.
    pub(crate) const fn parameter(self, place: usize) -> Type {
        match (self, place) {
            (Self::Left | Self::Right | Self::Substring, 1..) | (Self::Abs | Self::Int, _) => Type::Integer,
            (Self::Bool, _) => Type::Boolean,
            _ => Type::String,
        }
    }

    /// Calls the function with values of the types of its parameters, as many as it has.
    pub(crate) fn call<'v>(
        self,
        arguments: &mut [Value<'v>],
        candidate: &Candidate<'_>,
    ) -> Result<Called<'v>, BudgetSpent> {
        let bytes = arguments.iter().map(|argument| match argument {
            Value::String(text) => text.len(),
            _ => 0,
        });
        candidate.spend_on_text(bytes.sum())?;
        let text = |value: Cow<'v, str>| Called::Value(Value::String(value));
        Ok(match (self, arguments) {
            (Self::Length, [Value::String(of)]) => {
                let count = i32::try_from(of.chars().count()).unwrap_or(i32::MAX);
                Called::Value(Value::Integer(count))
            }
            (Self::Lower, [Value::String(of)]) => text(of.to_lowercase().into()),
            (Self::Upper, [Value::String(of)]) => text(of.to_uppercase().into()),
            (Self::Trim, [Value::String(of)]) => {
                let start = of.len() - of.trim_start().len();
                let length = of.trim().len();
                text(part(std::mem::take(of), start..start + length))
            }
            (Self::Concat, parts) => text(joined("", parts, candidate)?),
            (Self::ConcatWs, [Value::String(separator), parts @ ..]) => {
                text(joined(separator, parts, candidate)?)
            }
            (Self::Left, [Value::String(of), Value::Integer(count)]) => {
                let whole = std::mem::take(of);
                match usize::try_from(*count) {
                    Ok(count) => {
                        let end = place_of(&whole, count);
                        text(part(whole, 0..end))
                    }
                    Err(_) => Called::Failed(Value::String(whole), CallError::NegativeLength),
                }
            }
            (Self::Right, [Value::String(of), Value::Integer(count)]) => {
                let whole = std::mem::take(of);
                match usize::try_from(*count) {
                    Ok(count) => {
                        let start = place_from_end(&whole, count).unwrap_or(0);
                        let end = whole.len();
                        text(part(whole, start..end))
                    }
                    Err(_) => Called::Failed(Value::String(whole), CallError::NegativeLength),
                }
            }
            (Self::Substring, [Value::String(of), Value::Integer(position), length @ ..]) => {
                let length = length.first().and_then(Value::as_integer);
                substring(std::mem::take(of), *position, length)
            }
            (Self::Abs, [Value::Integer(number)]) => match number.checked_abs() {
                Some(absolute) => Called::Value(Value::Integer(absolute)),
                None => Called::Failed(Value::Integer(i32::MAX), CallError::Overflow),
            },
            // What is left are the casts, which were done with the parameters.
            (_, arguments) => {
                let value =
                    arguments.first_mut().map(|value| std::mem::replace(value, Value::Boolean(false)));
                Called::Value(value.unwrap_or_else(|| self.returns().zero()))
            }
        })
    }
}

/// `position` counts from 1, or from the end where it is negative.
fn substring(text: Cow<'_, str>, position: i32, length: Option<i32>) -> Called<'_> {
    let empty = || Value::String(Cow::Borrowed(""));
    let distance = position.unsigned_abs() as usize;
    let start = match position {
        0 => None,
        1.. => nth(&text, distance - 1),
        _ => place_from_end(&text, distance),
    };
    match (position, start, length) {
        (_, _, Some(..0)) => Called::Failed(empty(), CallError::NegativeLength),
        (0, ..) => Called::Value(empty()),
        (_, None, _) => Called::Failed(empty(), CallError::OutsideOfText),
        (_, Some(start), length) => {
            let end = match length {
                Some(length) => start + place_of(&text[start..], length.unsigned_abs() as usize),
                None => text.len(),
            };
            Called::Value(Value::String(part(text, start..end)))
        }
    }
}

/// Where the character at `place`, from 0, starts; nothing where there is none.
fn nth(text: &str, place: usize) -> Option<usize> {
    text.char_indices().nth(place).map(|(start, _)| start)
}

/// Where the first `count` characters end: at the end of the text where it has fewer.
fn place_of(text: &str, count: usize) -> usize {
    nth(text, count).unwrap_or(text.len())
}

/// Where the last `count` characters start; nothing where there are fewer.
fn place_from_end(text: &str, count: usize) -> Option<usize> {
    match count {
        0 => Some(text.len()),
        _ => text.char_indices().rev().nth(count - 1).map(|(start, _)| start),
    }
}

fn part(text: Cow<'_, str>, range: std::ops::Range<usize>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
        Cow::Owned(text) => Cow::Owned(text[range].to_owned()),
    }
}

fn joined<'v>(
    separator: &str,
    parts: &[Value<'_>],
    candidate: &Candidate<'_>,
) -> Result<Cow<'v, str>, BudgetSpent> {
    candidate.spend_on_text(separator.len() * parts.len())?;
    let mut joined = String::new();
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            joined.push_str(separator);
        }
        if let Value::String(text) = part {
            joined.push_str(text);
        }
    }
    Ok(joined.into())
}
