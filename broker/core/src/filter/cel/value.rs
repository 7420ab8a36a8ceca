//! The value of an expression as JSON, for what is made of events rather than matched.

use ::cel::Value;
use ::cel::objects::Key;

use super::Expression;
use crate::filter::candidate::{BudgetSpent, Candidate};
use crate::transformation::json::{Json, MAX_DEPTH, Object, Text};

impl Expression {
    /// What the expression yields, as JSON: a timestamp in RFC 3339, a duration in seconds with an `s` after them, bytes
    /// in base64. The error is a sentence.
    ///
    /// # Errors
    /// [`BudgetSpent`] where it may take more steps than the candidate has left.
    pub fn value(&self, candidate: &Candidate<'_>) -> Result<Result<Json, String>, BudgetSpent> {
        let value = self.resolve(candidate, |value| {
            let value = Value::try_from(value).map_err(|error| error.to_string())?;
            json_of(&value, 0)
        })?;
        Ok(value.and_then(|made| made))
    }
}

fn json_of(value: &Value, depth: usize) -> Result<Json, String> {
    if depth > MAX_DEPTH {
        return Err(format!("the value is nested deeper than {MAX_DEPTH} levels"));
    }
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::Int(number) => (*number).into(),
        Value::UInt(number) => Json::from(&serde_json::Value::from(*number)),
        Value::Float(number) if number.is_finite() => (*number).into(),
        Value::Float(number) => return Err(format!("{number} is no number of JSON")),
        Value::String(text) => text.as_str().into(),
        Value::Bytes(bytes) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(bytes.as_slice()).into()
        }
        Value::Timestamp(time) => time.to_rfc3339().replace("+00:00", "Z").into(),
        Value::Duration(duration) => {
            let (seconds, nanoseconds) = (duration.num_seconds(), duration.subsec_nanos().unsigned_abs());
            let sign = if seconds == 0 && duration.subsec_nanos() < 0 { "-" } else { "" };
            let fraction = format!("{nanoseconds:09}");
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            format!("{sign}{seconds}{dot}{fraction}s").into()
        }
        Value::List(items) => {
            Json::Array(items.iter().map(|item| json_of(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Value::Map(members) => {
            let mut named: Vec<(Text, Json)> = Vec::with_capacity(members.map.len());
            for (key, value) in members.map.iter() {
                let name: Text = match key {
                    Key::String(text) => text.as_str().into(),
                    Key::Int(number) => number.to_string().into(),
                    Key::Uint(number) => number.to_string().into(),
                    Key::Bool(truth) => truth.to_string().into(),
                };
                named.push((name, json_of(value, depth + 1)?));
            }
            // The crate keeps them in an order that is another one each time.
            named.sort_by(|(one, _), (other, _)| one.cmp(other));
            Json::Object(named.into_iter().collect::<Object>())
        }
        other => return Err(format!("a value of the type {} is no JSON", other.type_of())),
    })
}
