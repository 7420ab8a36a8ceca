//! Values and casts (sections 3.1, 3.2 and 3.7).

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::event::{self, AttributeType};

/// What an expression yields. Text borrows from the event or the expression where it can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value<'v> {
    /// Unicode text.
    String(Cow<'v, str>),
    /// 32 bits, signed.
    Integer(i32),
    /// `true` or `false`
    Boolean(bool),
}

/// The type of a [`Value`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Unicode text.
    String,
    /// 32 bits, signed.
    Integer,
    /// `true` or `false`
    Boolean,
}

impl Type {
    /// The zero value: `""`, `0` or `false`.
    pub(crate) const fn zero(self) -> Value<'static> {
        match self {
            Self::String => Value::String(Cow::Borrowed("")),
            Self::Integer => Value::Integer(0),
            Self::Boolean => Value::Boolean(false),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "String",
            Self::Integer => "Integer",
            Self::Boolean => "Boolean",
        })
    }
}

impl<'v> Value<'v> {
    /// The type.
    pub fn type_of(&self) -> Type {
        match self {
            Self::String(_) => Type::String,
            Self::Integer(_) => Type::Integer,
            Self::Boolean(_) => Type::Boolean,
        }
    }

    /// The value without what it borrows.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::String(text) => Value::String(Cow::Owned(text.into_owned())),
            Self::Integer(number) => Value::Integer(number),
            Self::Boolean(truth) => Value::Boolean(truth),
        }
    }

    /// The same value, borrowed from this one.
    pub(crate) fn by_ref(&self) -> Value<'_> {
        match self {
            Self::String(text) => Value::String(Cow::Borrowed(text)),
            Self::Integer(number) => Value::Integer(*number),
            Self::Boolean(truth) => Value::Boolean(*truth),
        }
    }

    /// An attribute under the type of the wire: types that CESQL has not are text, as it was written (section 3.2).
    pub(crate) fn of_attribute(attribute: event::Value<'v>) -> Self {
        match attribute.attribute_type {
            AttributeType::Integer => attribute.text.parse().ok().map(Self::Integer),
            AttributeType::Boolean => attribute.text.parse().ok().map(Self::Boolean),
            _ => None,
        }
        .unwrap_or(Self::String(Cow::Borrowed(attribute.text)))
    }

    /// The value as text, which every value has.
    pub(crate) fn into_text(self) -> Cow<'v, str> {
        match self {
            Self::String(text) => text,
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::Boolean(truth) => Cow::Borrowed(if truth { "true" } else { "false" }),
        }
    }

    /// The value as a number, unless it is text that is none.
    pub(crate) fn as_integer(&self) -> Option<i32> {
        match self {
            // Rust reads an optional sign and decimal digits, which is what the norm says.
            Self::String(text) => text.parse().ok(),
            Self::Integer(number) => Some(*number),
            Self::Boolean(truth) => Some(i32::from(*truth)),
        }
    }

    /// The value as a truth value, unless it is text that is none.
    pub(crate) fn as_boolean(&self) -> Option<bool> {
        match self {
            Self::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Self::String(_) => None,
            Self::Integer(number) => Some(*number != 0),
            Self::Boolean(truth) => Some(*truth),
        }
    }
}

impl fmt::Display for Value<'_> {
    /// As a literal of an expression.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write!(f, "'{}'", text.replace('\'', "\\'")),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(truth) => write!(f, "{truth}"),
        }
    }
}
