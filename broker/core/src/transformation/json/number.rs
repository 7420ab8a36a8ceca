//! Numbers as they were written.

use std::fmt;

use super::Text;
use super::read;

/// A number of JSON with its text. Two are equal when their values are.
#[derive(Clone)]
pub struct Number(Text);

impl Number {
    /// Reads the text of a number.
    pub fn parse(text: &str) -> Option<Self> {
        read::is_number(text).then(|| Self(text.into()))
    }

    /// `text` was checked.
    pub(super) fn checked(text: Text) -> Self {
        Self(text)
    }

    /// The number for a float; none for infinities and NaN.
    pub fn of_f64(value: f64) -> Option<Self> {
        serde_json::Number::from_f64(value).as_ref().map(Self::of_serde)
    }

    pub(super) fn of_serde(number: &serde_json::Number) -> Self {
        Self(number.to_string().into())
    }

    /// What lies beyond the range of binary64 becomes the nearest number in it.
    pub(super) fn to_serde(&self) -> Option<serde_json::Number> {
        let nearest = || serde_json::Number::from_f64(self.as_f64().clamp(f64::MIN, f64::MAX));
        serde_json::from_str(&self.0).ok().or_else(nearest)
    }

    /// The text as it was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value where it is a whole number of 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// The closest binary64.
    pub fn as_f64(&self) -> f64 {
        // The grammar of JSON's numbers is a part of Rust's.
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// Sign, digits without zeros at either end, and the power of ten of the last digit: the same for equal values.
    fn normal(&self) -> (bool, String, i64) {
        let (negative, rest) = match self.0.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, &*self.0),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let beyond = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
                (mantissa, exponent.parse().unwrap_or(beyond))
            }
            None => (rest, 0_i64),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: String = [whole, fraction].concat();
        let digits = all.trim_end_matches('0');
        let dropped = all.len() - digits.len();
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return (false, String::new(), 0);
        }
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let power = exponent.saturating_sub(count(fraction.len())).saturating_add(count(dropped));
        (negative, digits.to_owned(), power)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.normal() == other.normal()
    }
}

impl Eq for Number {}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! from_integers {
    ($($integer:ty),*) => {
        $(impl From<$integer> for Number {
            fn from(value: $integer) -> Self {
                Self(value.to_string().into())
            }
        })*
    };
}

from_integers!(i32, i64, u32, u64, usize);
