//! Values of JSON that queries compare: RFC 9535, section 2.3.5.2.2.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value as Json;

/// A number as its mathematical value: an integer wherever it is one, so that equal numbers are equal values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::filter) enum Number {
    Integer(i128),
    /// Not an integer, or one of at least 2^100.
    Fraction(f64),
}

impl Number {
    pub(in crate::filter) fn new(number: &serde_json::Number) -> Self {
        if let Some(integer) = number.as_i128() {
            return Self::Integer(integer);
        }
        Self::of(number.as_f64().unwrap_or(f64::NAN))
    }

    fn of(float: f64) -> Self {
        const LARGE: f64 = (1_u128 << 100) as f64;
        if float.fract() == 0.0 && float.abs() < LARGE {
            return Self::Integer(float as i128);
        }
        Self::Fraction(float)
    }

    /// Reads a number of checked JSON.
    pub(in crate::filter) fn read(text: &str) -> Option<Self> {
        if text.len() < 16 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Self::Integer);
        }
        serde_json::from_str(text).ok().map(|number| Self::new(&number))
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(one), Self::Integer(two)) => Some(one.cmp(&two)),
            _ => self.float().partial_cmp(&other.float()),
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Fraction(fraction) => fraction,
        }
    }

    /// Bytes that are equal where the numbers are.
    pub(in crate::filter) fn bytes(self) -> [u8; 16] {
        match self {
            Self::Integer(integer) => integer.to_le_bytes(),
            // No integer below 2^100 has these in its upper half.
            Self::Fraction(fraction) => {
                let bits = u128::from(fraction.to_bits());
                (bits | (0x5a_u128 << 120)).to_le_bytes()
            }
        }
    }
}

/// A value as far as it can be compared with a literal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::filter) enum Scalar<'a> {
    Null,
    Boolean(bool),
    Number(Number),
    Text(&'a str),
    /// An object or an array: equal to no literal, and in no order with one.
    Container,
}

impl<'a> Scalar<'a> {
    pub(in crate::filter) fn of(value: &'a Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(boolean) => Self::Boolean(*boolean),
            Json::Number(number) => Self::Number(Number::new(number)),
            Json::String(text) => Self::Text(text),
            Json::Array(_) | Json::Object(_) => Self::Container,
        }
    }
}

/// A literal of a query.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::filter) enum Literal {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Box<str>),
}

impl Literal {
    pub(in crate::filter) fn as_scalar(&self) -> Scalar<'_> {
        match self {
            Self::Null => Scalar::Null,
            Self::Boolean(boolean) => Scalar::Boolean(*boolean),
            Self::Number(number) => Scalar::Number(*number),
            Self::Text(text) => Scalar::Text(text),
        }
    }

    pub(in crate::filter) fn float(float: f64) -> Self {
        Self::Number(Number::of(float))
    }
}

/// How a value is compared with a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::filter) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// The same with its sides exchanged.
    pub(in crate::filter) fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }

    /// Whether it holds between what a path selects, if anything, and a literal.
    pub(in crate::filter) fn holds(self, value: Option<Scalar<'_>>, literal: &Literal) -> bool {
        let order = value.and_then(|value| order(value, literal.as_scalar()));
        match self {
            Self::Equal => order == Some(Order::Equal),
            Self::NotEqual => order != Some(Order::Equal),
            Self::Less => order == Some(Order::Less),
            Self::LessOrEqual => matches!(order, Some(Order::Less | Order::Equal)),
            Self::Greater => order == Some(Order::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Order::Greater | Order::Equal)),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

type Order = Ordering;

/// Numbers and texts have an order, null and Booleans are equal or not, values of two types are neither.
fn order(one: Scalar<'_>, two: Scalar<'_>) -> Option<Order> {
    match (one, two) {
        (Scalar::Number(one), Scalar::Number(two)) => one.compare(two),
        (Scalar::Text(one), Scalar::Text(two)) => Some(one.cmp(two)),
        (Scalar::Null, Scalar::Null) => Some(Order::Equal),
        (Scalar::Boolean(one), Scalar::Boolean(two)) if one == two => Some(Order::Equal),
        _ => None,
    }
}
