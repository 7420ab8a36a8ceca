//! From the tree of a chain to the values of jq, and back.

use std::ops::Range;

use bytes::Bytes;
use jaq_json::{Map, Num, Rc, Val};
use waypost_core::transformation::json::{Builder, Json, Number, Object, Text, Wanted};
use waypost_core::transformation::{Document, TransformationError};

use super::value::{MAX_VALUE_BYTES, Value};

/// The longest number that jq takes, in characters: whole numbers are read digit by digit.
pub(super) const MAX_NUMBER_TEXT: usize = 1_000;

/// A value of jq. Costs a copy of every text.
pub(super) fn value_of(json: &Json) -> Result<Value, TransformationError> {
    let mut bounds = Bounds { bytes: 0 };
    let (val, depth) = bounds.val(json)?;
    if bounds.bytes > MAX_VALUE_BYTES {
        return Err(too_large());
    }
    Ok(Value::bounded(val, bounds.bytes, depth))
}

/// The data of a document that no step before has parsed, without a tree between: texts share its bytes.
pub(super) fn value_of_data(document: &Document) -> Result<Option<Value>, TransformationError> {
    let begin = |whole| Direct { whole, bounds: Bounds { bytes: 0 } };
    let Some((direct, (val, depth))) = document.build(&Wanted::Whole, begin)? else { return Ok(None) };
    if direct.bounds.bytes > MAX_VALUE_BYTES {
        return Err(too_large());
    }
    Ok(Some(Value::bounded(val, direct.bounds.bytes, depth)))
}

fn too_large() -> TransformationError {
    TransformationError::limit("the data is too large for jq: it takes 16 MiB at most")
}

struct Direct {
    whole: Bytes,
    bounds: Bounds,
}

impl Builder for Direct {
    /// With its depth.
    type Value = (Val, u16);

    fn plain(&mut self, value: Option<bool>) -> Self::Value {
        self.bounds.place();
        (value.map_or(Val::Null, Val::Bool), 0)
    }

    fn number(&mut self, _at: Range<usize>, text: &str) -> Result<Self::Value, TransformationError> {
        self.bounds.place();
        Ok((Val::Num(self.bounds.number(text)?), 0))
    }

    fn text(&mut self, at: Range<usize>, denoted: Option<String>) -> Self::Value {
        self.bounds.place();
        let text = denoted.map_or_else(|| self.whole.slice(at), Bytes::from);
        self.bounds.count(text.len());
        (Val::utf8_str(text), 0)
    }

    fn array(&mut self, elements: Vec<Self::Value>) -> Self::Value {
        self.bounds.place();
        let depth = elements.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
        (Val::Arr(Rc::new(elements.into_iter().map(|(val, _)| val).collect())), depth + 1)
    }

    fn object(&mut self, members: Vec<(Self::Value, Self::Value)>) -> Self::Value {
        self.bounds.place();
        let depth = members.iter().map(|(_, (_, depth))| *depth).max().unwrap_or(0);
        let mut map = Map::with_capacity_and_hasher(members.len(), Default::default());
        for ((name, _), (val, _)) in members {
            map.insert(name, val);
        }
        (Val::obj(map), depth + 1)
    }
}

struct Bounds {
    bytes: u32,
}

impl Bounds {
    /// A value, or the name of a member, takes a place.
    fn place(&mut self) {
        self.bytes = self.bytes.saturating_add(16);
    }

    fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn val(&mut self, json: &Json) -> Result<(Val, u16), TransformationError> {
        self.place();
        Ok(match json {
            Json::Null => (Val::Null, 0),
            Json::Bool(value) => (Val::Bool(*value), 0),
            Json::Number(number) => (Val::Num(self.number(number.text())?), 0),
            Json::Text(text) => (self.text(text), 0),
            // Whoever asks a document for all of its data gets no such value.
            Json::Unread(text) => return Json::read(text).map_or(Ok((Val::Null, 0)), |tree| self.val(&tree)),
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
                    self.place();
                    map.insert(self.text(name), val);
                }
                (Val::obj(map), depth + 1)
            }
        })
    }

    fn text(&mut self, text: &str) -> Val {
        self.count(text.len());
        Val::utf8_str(Bytes::copy_from_slice(text.as_bytes()))
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
        self.count(text.len());
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
