//! From text to a tree.

use std::ops::Range;
use std::sync::Arc;

use super::{Json, Number, Object, Text};
use crate::filter::jsonpath::json_text::{self, JsonText, Kind, Quoted};
use crate::transformation::TransformationError;

/// The text is not JSON, or nested too deep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotJson {
    /// What is wrong and where.
    pub detail: String,
}

pub(super) fn read(text: &str) -> Result<Json, NotJson> {
    let whole: Arc<str> = text.into();
    let mut reader = Reader { whole: &whole, text: JsonText::with_any_number(&whole) };
    let read = reader.value();
    read.and_then(|value| reader.text.end().map(|()| value)).map_err(|_| describe(text))
}

/// Reads an object whose members stay unread where they are arrays or objects and `wanted` does not ask for them; all else
/// as [`read`] does.
pub(super) fn read_some(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Json, NotJson> {
    let whole: Arc<str> = text.into();
    let mut reader = Reader { whole: &whole, text: JsonText::with_any_number(&whole) };
    let read = reader.members(wanted);
    read.and_then(|value| reader.text.end().map(|()| value)).map_err(|_| describe(text))
}

pub(super) fn is_number(text: &str) -> bool {
    let mut reader = JsonText::with_any_number(text);
    // A blank before it would be passed over by `kind`, and is no part of a number.
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && reader.number().is_ok()
        && reader.place() == text.len()
}

/// What `serde_json` says of the same text: it takes nothing that we refuse.
fn describe(text: &str) -> NotJson {
    let detail = match serde_json::from_str::<serde_json::Value>(text) {
        Err(error) => format!("it is not JSON: {error}"),
        Ok(_) => "it is not JSON".to_owned(),
    };
    NotJson { detail }
}

/// Makes values of another kind of the text of JSON, without a tree between.
pub trait Builder {
    /// What a value becomes.
    type Value;

    /// `null`, `true` or `false`.
    fn plain(&mut self, value: Option<bool>) -> Self::Value;

    /// A number: where it stands in the text, and how it was written.
    ///
    /// # Errors
    /// [`TransformationError`] where it cannot be kept.
    fn number(&mut self, at: Range<usize>, text: &str) -> Result<Self::Value, TransformationError>;

    /// A string: where it stands in the text where that says what it is, else what it denotes.
    fn text(&mut self, at: Range<usize>, denoted: Option<String>) -> Self::Value;

    /// An array.
    fn array(&mut self, elements: Vec<Self::Value>) -> Self::Value;

    /// An object. Of a name that comes twice the last value counts, at the place of the first.
    fn object(&mut self, members: Vec<(Self::Value, Self::Value)>) -> Self::Value;
}

/// What of a value is looked at. What is not is passed over where the value is built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Which kind of value it is, and a plain value as it is: an array or object may be empty.
    #[default]
    Kind,
    /// All of it.
    Whole,
    /// Of an object some members, and whether a value is one.
    Members(Vec<(Box<str>, Self)>),
    /// Of an array some elements, and whether a value is one: what stands before one of them may be `null`.
    Elements(Vec<(usize, Self)>),
}

impl Wanted {
    /// What is wanted of a member, to be changed.
    pub fn member(&mut self, name: &str) -> &mut Self {
        if *self == Self::Kind {
            *self = Self::Members(Vec::new());
        }
        let Self::Members(members) = self else { return self.all() };
        let at = members.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
            members.push((name.into(), Self::Kind));
            members.len() - 1
        });
        &mut members[at].1
    }

    /// What is wanted of an element, to be changed.
    pub fn element(&mut self, index: usize) -> &mut Self {
        if *self == Self::Kind {
            *self = Self::Elements(Vec::new());
        }
        let Self::Elements(elements) = self else { return self.all() };
        let at = elements.iter().position(|(known, _)| *known == index).unwrap_or_else(|| {
            elements.push((index, Self::Kind));
            elements.len() - 1
        });
        &mut elements[at].1
    }

    fn all(&mut self) -> &mut Self {
        *self = Self::Whole;
        self
    }

    /// Of a member; nothing where it is not looked at.
    fn of_member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Whole => Some(self),
            Self::Members(members) => {
                members.iter().find(|(known, _)| **known == *name).map(|(_, wanted)| wanted)
            }
            Self::Kind | Self::Elements(_) => None,
        }
    }

    /// Of an element; nothing where it is not looked at.
    fn of_element(&self, index: usize) -> Option<&Self> {
        match self {
            Self::Whole => Some(self),
            Self::Elements(elements) => {
                elements.iter().find(|(known, _)| *known == index).map(|(_, wanted)| wanted)
            }
            Self::Kind | Self::Members(_) => None,
        }
    }
}

/// Has the value of the text built, as far as it is wanted.
pub(super) fn build<B: Builder>(
    text: &str,
    wanted: &Wanted,
    builder: &mut B,
) -> Result<B::Value, TransformationError> {
    let mut reader = JsonText::with_any_number(text);
    let value = build_one(text, &mut reader, wanted, builder)?;
    reader.end().map_err(|_| cannot_be_read(text))?;
    Ok(value)
}

/// Reads a tree as far as it is wanted.
pub(super) fn read_wanted(text: &str, wanted: &Wanted) -> Result<Json, TransformationError> {
    build(text, wanted, &mut Tree { whole: text.into() })
}

struct Tree {
    whole: Arc<str>,
}

impl Builder for Tree {
    type Value = Json;

    fn plain(&mut self, value: Option<bool>) -> Json {
        value.map_or(Json::Null, Json::Bool)
    }

    fn number(&mut self, at: Range<usize>, _text: &str) -> Result<Json, TransformationError> {
        Ok(Json::Number(Number::checked(Text::part(&self.whole, at.start, at.end))))
    }

    fn text(&mut self, at: Range<usize>, denoted: Option<String>) -> Json {
        Json::Text(denoted.map_or_else(|| Text::part(&self.whole, at.start, at.end), Text::from))
    }

    fn array(&mut self, elements: Vec<Json>) -> Json {
        Json::Array(elements)
    }

    fn object(&mut self, members: Vec<(Json, Json)>) -> Json {
        let named = members.into_iter().filter_map(|(name, value)| match name {
            Json::Text(name) => Some((name, value)),
            _ => None,
        });
        Json::Object(named.collect())
    }
}

fn cannot_be_read(text: &str) -> TransformationError {
    TransformationError::new(format!("the data cannot be read: {}", describe(text)))
}

/// Recursion is bounded by the depth that `enter` admits.
fn build_one<B: Builder>(
    text: &str,
    reader: &mut JsonText<'_>,
    wanted: &Wanted,
    builder: &mut B,
) -> Result<B::Value, TransformationError> {
    let refused = |_| cannot_be_read(text);
    let kind = reader.kind().map_err(refused)?;
    let start = reader.place();
    Ok(match kind {
        Kind::Object => {
            let mut members = Vec::new();
            if reader.enter(kind).map_err(refused)? {
                members.reserve(8);
                loop {
                    let name = reader.name().map_err(refused)?;
                    let here = match wanted {
                        Wanted::Whole => Some(wanted),
                        _ if name.escaped => wanted.of_member(&denoted(text, name)),
                        _ => wanted.of_member(&text[name.start..name.end]),
                    };
                    match here {
                        Some(wanted) => {
                            let name = build_text(text, name, builder);
                            members.push((name, build_one(text, reader, wanted, builder)?));
                        }
                        None => pass(reader).map_err(refused)?,
                    }
                    if !reader.more(kind).map_err(refused)? {
                        break;
                    }
                }
            }
            builder.object(members)
        }
        Kind::Array => {
            let mut elements = Vec::new();
            if reader.enter(kind).map_err(refused)? {
                let mut place = 0;
                loop {
                    match wanted.of_element(place) {
                        Some(wanted) => {
                            elements.resize_with(place, || builder.plain(None));
                            elements.push(build_one(text, reader, wanted, builder)?);
                        }
                        None => pass(reader).map_err(refused)?,
                    }
                    place += 1;
                    if !reader.more(kind).map_err(refused)? {
                        break;
                    }
                }
            }
            builder.array(elements)
        }
        Kind::Text => {
            let quoted = reader.quoted().map_err(refused)?;
            build_text(text, quoted, builder)
        }
        Kind::Number => {
            reader.number().map_err(refused)?;
            builder.number(start..reader.place(), &text[start..reader.place()])?
        }
        Kind::True => reader.word("true").map(|()| builder.plain(Some(true))).map_err(refused)?,
        Kind::False => reader.word("false").map(|()| builder.plain(Some(false))).map_err(refused)?,
        Kind::Null => reader.word("null").map(|()| builder.plain(None)).map_err(refused)?,
    })
}

fn pass(reader: &mut JsonText<'_>) -> Result<(), json_text::NotJson> {
    let kind = reader.kind()?;
    reader.skip(kind)
}

fn build_text<B: Builder>(text: &str, quoted: Quoted, builder: &mut B) -> B::Value {
    builder.text(quoted.start..quoted.end, quoted.escaped.then(|| denoted(text, quoted)))
}

fn denoted(text: &str, quoted: Quoted) -> String {
    let mut denoted = String::new();
    json_text::unescape(&text[quoted.start..quoted.end], &mut denoted);
    denoted
}

struct Reader<'t> {
    whole: &'t Arc<str>,
    text: JsonText<'t>,
}

impl Reader<'_> {
    /// Recursion is bounded by the depth that `enter` admits.
    fn value(&mut self) -> Result<Json, json_text::NotJson> {
        let kind = self.text.kind()?;
        let start = self.text.place();
        Ok(match kind {
            Kind::Object => {
                let mut members = Vec::new();
                if self.text.enter(kind)? {
                    members.reserve(8);
                    loop {
                        let name = self.text.name()?;
                        let name = self.part(name);
                        members.push((name, self.value()?));
                        if !self.text.more(kind)? {
                            break;
                        }
                    }
                }
                Json::Object(Object::of_members(members))
            }
            Kind::Array => {
                let mut elements = Vec::new();
                if self.text.enter(kind)? {
                    loop {
                        elements.push(self.value()?);
                        if !self.text.more(kind)? {
                            break;
                        }
                    }
                }
                Json::Array(elements)
            }
            Kind::Text => {
                let quoted = self.text.quoted()?;
                Json::Text(self.part(quoted))
            }
            Kind::Number => {
                self.text.number()?;
                Json::Number(Number::checked(Text::part(self.whole, start, self.text.place())))
            }
            Kind::True => self.text.word("true").map(|()| Json::Bool(true))?,
            Kind::False => self.text.word("false").map(|()| Json::Bool(false))?,
            Kind::Null => self.text.word("null").map(|()| Json::Null)?,
        })
    }

    fn members(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Json, json_text::NotJson> {
        let kind = self.text.kind()?;
        if kind != Kind::Object {
            return self.value();
        }
        let mut members = Vec::new();
        if self.text.enter(kind)? {
            members.reserve(8);
            loop {
                let name = self.text.name()?;
                let name = self.part(name);
                let of_member = self.text.kind()?;
                let value = if matches!(of_member, Kind::Object | Kind::Array) && !wanted(&name) {
                    let start = self.text.place();
                    self.text.skip(of_member)?;
                    Json::Unread(Text::part(self.whole, start, self.text.place()))
                } else {
                    self.value()?
                };
                members.push((name, value));
                if !self.text.more(kind)? {
                    break;
                }
            }
        }
        Ok(Json::Object(Object::of_members(members)))
    }

    fn part(&self, quoted: Quoted) -> Text {
        if !quoted.escaped {
            return Text::part(self.whole, quoted.start, quoted.end);
        }
        let mut text = String::new();
        json_text::unescape(&self.whole[quoted.start..quoted.end], &mut text);
        text.into()
    }
}
