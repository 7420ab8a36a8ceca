//! From the tree of a chain to the values of jq, and back.

use jaq_json::{Map, Num, Rc, Val};
use waypost_core::transformation::TransformationError;
use waypost_core::transformation::json::{Json, Number, Object, Text};

use super::value::{MAX_VALUE_BYTES, Value};

/// The longest number that jq takes, in characters: whole numbers are read digit by digit.
const MAX_NUMBER_TEXT: usize = 1_000;

/// A value of jq. Costs a copy of every text.
pub(super) fn value_of(json: &Json) -> Result<Value, TransformationError> {
    let mut bounds = Bounds { bytes: 0 };
    let (val, depth) = bounds.val(json)?;
    if bounds.bytes > MAX_VALUE_BYTES {
        return Err(TransformationError::limit("the data is too large for jq: it takes 16 MiB at most"));
    }
    Ok(Value::bounded(val, bounds.bytes, depth))
}

struct Bounds {
    bytes: u32,
}

impl Bounds {
    fn val(&mut self, json: &Json) -> Result<(Val, u16), TransformationError> {
        self.bytes = self.bytes.saturating_add(16);
        Ok(match json {
            Json::Null => (Val::Null, 0),
            Json::Bool(value) => (Val::Bool(*value), 0),
            Json::Number(number) => (Val::Num(self.number(number.text())?), 0),
            Json::Text(text) => (self.text(text), 0),
            Json::Array(items) => {
                let mut depth = 0;
                let items = items.iter().map(|item| {
                    let (val, below) = self.val(item)?;
                    depth = depth.max(below);
                    Ok(val)
                });
                let items: Vec<Val> = items.collect::<Result<_, TransformationError>>()?;
                (Val::Arr(Rc::new(items)), depth + 1)
            }
            Json::Object(members) => {
                let mut depth = 0;
                let mut map = Map::with_capacity_and_hasher(members.len(), Default::default());
                for (name, value) in members.iter() {
                    let (val, below) = self.val(value)?;
                    depth = depth.max(below);
                    self.bytes = self.bytes.saturating_add(16);
                    map.insert(self.text(name), val);
                }
                (Val::obj(map), depth + 1)
            }
        })
    }

    fn text(&mut self, text: &str) -> Val {
        self.bytes = self.bytes.saturating_add(u32::try_from(text.len()).unwrap_or(u32::MAX));
        Val::utf8_str(bytes::Bytes::copy_from_slice(text.as_bytes()))
    }

    fn number(&mut self, text: &str) -> Result<Num, TransformationError> {
        if let Ok(number) = text.parse::<isize>()
            && text != "-0"
        {
            return Ok(Num::Int(number));
        }
        if text.len() > MAX_NUMBER_TEXT {
            let reason = format!("a number of more than {MAX_NUMBER_TEXT} characters is too long for jq");
            return Err(TransformationError::limit(reason));
        }
        self.bytes = self.bytes.saturating_add(u32::try_from(text.len()).unwrap_or(u32::MAX));
        match jaq_json::read::parse_single_num(text.as_bytes()) {
            // Minus zero keeps its sign as a decimal.
            Some(number) if text != "-0" => Ok(number),
            _ => Ok(Num::Dec(text.to_owned().into())),
        }
    }
}

/// The tree of a chain. The value was bounded before. What is no text of UTF-8 is replaced as jq does, what is no
/// number of JSON becomes `null` or the largest number.
pub(super) fn json_of(val: Val) -> Json {
    match val {
        Val::Null => Json::Null,
        Val::Bool(value) => Json::Bool(value),
        Val::Num(number) => number_of(&number),
        Val::TStr(text) | Val::BStr(text) => Json::Text(text_of(&text)),
        Val::Arr(items) => Json::Array(match Rc::try_unwrap(items) {
            Ok(items) => items.into_iter().map(json_of).collect(),
            Err(items) => items.iter().cloned().map(json_of).collect(),
        }),
        Val::Obj(members) => {
            let member = |(name, value): (Val, Val)| (name_of(&name), json_of(value));
            let members: Object = match Rc::try_unwrap(members) {
                Ok(members) => members.into_iter().map(member).collect(),
                Err(members) => {
                    members.iter().map(|(name, value)| member((name.clone(), value.clone()))).collect()
                }
            };
            Json::Object(members)
        }
    }
}

fn text_of(bytes: &[u8]) -> Text {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned().into(),
    }
}

fn name_of(val: &Val) -> Text {
    match val {
        Val::TStr(text) | Val::BStr(text) => text_of(text),
        // No object with other names is made or read.
        other => other.to_string().into(),
    }
}

fn number_of(number: &Num) -> Json {
    match number {
        Num::Int(value) => Number::parse(&value.to_string()).map_or(Json::Null, Json::Number),
        Num::BigInt(value) => Number::parse(&value.to_string()).map_or(Json::Null, Json::Number),
        Num::Float(value) => of_float(*value),
        Num::Dec(text) => match Number::parse(text) {
            Some(number) => Json::Number(number),
            // A literal of the program may be written as JSON's are not, such as `1.` or `.5`.
            None => of_float(text.parse().unwrap_or(f64::NAN)),
        },
    }
}

/// As jq writes them: whole numbers without a fraction, infinities as the largest number, NaN as `null`.
fn of_float(value: f64) -> Json {
    if value.is_nan() {
        return Json::Null;
    }
    let value = value.clamp(f64::MIN, f64::MAX);
    if value.fract() == 0.0 && value.abs() < 1e17 {
        return Number::parse(&format!("{value:.0}")).map_or(Json::Null, Json::Number);
    }
    Number::of_f64(value).map_or(Json::Null, Json::Number)
}

/// The text of a value.
pub(super) fn json_text(val: &Val) -> Vec<u8> {
    let mut text = Vec::new();
    json_of(val.clone()).write(&mut text);
    text
}
