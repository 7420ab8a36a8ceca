//! What jq's operators make of two values, within the bounds of values.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use jaq_core::{Error, ValR};
use jaq_json::{Num, Val};

use super::{MAX_VALUE_BYTES, Value, plainly};
use crate::meter::{Stop, make, step, stop};

/// The largest whole number, in bits.
const MAX_NUMBER_BITS: u64 = 4_096;

impl Add for Value {
    type Output = ValR<Self>;

    fn add(self, other: Self) -> Self::Output {
        step(1);
        match (&self.val, &other.val) {
            (Val::Null, _) => return Ok(other),
            (_, Val::Null) => return Ok(self),
            (Val::Num(_), Val::Num(_)) => {}
            _ => {
                self.change();
                other.append();
            }
        }
        let (bytes, depth) = (self.bytes.saturating_add(other.bytes), self.depth.max(other.depth));
        let added = plainly(self.val + other.val)?;
        Ok(if depth == 0 { Self::plain(number(added)) } else { Self::whole(added, bytes, depth) })
    }
}

impl Sub for Value {
    type Output = ValR<Self>;

    fn sub(self, other: Self) -> Self::Output {
        step(1);
        if self.depth > 0 {
            let (one, other) = (self.tight(), other.tight());
            one.look_at_all();
            other.look_at_all();
            one.change();
            let depth = one.depth;
            return Ok(Self::whole(plainly(one.val - other.val)?, one.bytes, depth));
        }
        Ok(Self::plain(number(plainly(self.val - other.val)?)))
    }
}

impl Mul for Value {
    type Output = ValR<Self>;

    fn mul(self, other: Self) -> Self::Output {
        step(1);
        let depth = self.depth.max(other.depth);
        match (&self.val, &other.val) {
            (Val::TStr(text) | Val::BStr(text), count @ Val::Num(_))
            | (count @ Val::Num(_), Val::TStr(text) | Val::BStr(text)) => {
                let times = jaq_std::ValT::as_f64(count).unwrap_or(0.0).max(0.0);
                let bytes = text.len() as f64 * times;
                if bytes > f64::from(MAX_VALUE_BYTES) {
                    stop(Stop::Value("larger than 16 MiB"));
                }
                make(bytes as usize);
                // As jq has it, a part of a time is a time.
                let count = if times > 0.0 { times.ceil() } else { 0.0 };
                return plainly(Val::TStr(text.clone()) * Val::from(count as isize)).map(Self::plain);
            }
            (Val::Num(_), Val::Num(_)) => {}
            _ => {
                let (one, other) = (self.tight(), other.tight());
                one.look_at_all();
                other.look_at_all();
                make((one.bytes as usize).saturating_add(other.bytes as usize));
                let bytes = one.bytes.saturating_add(other.bytes);
                return Ok(Self::whole(plainly(one.val * other.val)?, bytes, depth));
            }
        }
        Ok(Self::plain(number(plainly(self.val * other.val)?)))
    }
}

impl Div for Value {
    type Output = ValR<Self>;

    fn div(self, other: Self) -> Self::Output {
        step(1);
        if let (Val::TStr(text), Val::TStr(separator)) = (&self.val, &other.val) {
            step(text.len() as u64 / 64);
            let item = |part: &[u8]| jaq_std::ValT::as_sub_str(&self, part);
            if text.is_empty() {
                return Ok(std::iter::empty().collect());
            }
            if separator.is_empty() {
                let text = String::from_utf8_lossy(text);
                return Ok(text.chars().map(|one| Self::text(one.to_string())).collect());
            }
            let mut start = 0;
            let ends = memchr::memmem::find_iter(text, &separator[..]).chain([text.len()]);
            return Ok(ends
                .map(|end| {
                    let part = item(&text[start..end]);
                    start = end + separator.len();
                    part
                })
                .collect());
        }
        if let (Val::Num(_), Val::Num(_)) = (&self.val, &other.val)
            && jaq_std::ValT::as_f64(&other.val) == Some(0.0)
        {
            return Err(Error::str(format!("{self} cannot be divided by zero")));
        }
        Ok(Self::plain(number(plainly(self.val / other.val)?)))
    }
}

impl Rem for Value {
    type Output = ValR<Self>;

    fn rem(self, other: Self) -> Self::Output {
        step(1);
        Ok(Self::plain(number(plainly(self.val % other.val)?)))
    }
}

impl Neg for Value {
    type Output = ValR<Self>;

    fn neg(self) -> Self::Output {
        plainly(-self.val).map(Self::plain)
    }
}

/// Ends the program where a whole number is too long to be worked with.
fn number(val: Val) -> Val {
    if let Val::Num(Num::BigInt(number)) = &val
        && number.bits() > MAX_NUMBER_BITS
    {
        stop(Stop::Value("a number of more than 4,096 bits"));
    }
    val
}
