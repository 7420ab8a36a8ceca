//! From text to a tree.

use std::sync::Arc;

use super::{Json, Number, Object, Text};
use crate::filter::jsonpath::json_text::{self, JsonText, Kind, Quoted};

/// The text is not JSON, or nested too deep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotJson {
    /// What is wrong and where.
    pub detail: String,
}

pub(super) fn read(text: &str) -> Result<Json, NotJson> {
    let whole: Arc<str> = text.into();
    let mut reader = Reader { whole: &whole, text: JsonText::new(&whole) };
    let read = reader.value();
    read.and_then(|value| reader.text.end().map(|()| value)).map_err(|_| describe(text))
}

pub(super) fn is_number(text: &str) -> bool {
    let mut reader = JsonText::new(text);
    // A blank before it would be passed over by `kind`, and is no part of a number.
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && reader.number().is_ok()
        && reader.place() == text.len()
}

/// What `serde_json` says of the same text: it takes what we take.
fn describe(text: &str) -> NotJson {
    let detail = match serde_json::from_str::<serde_json::Value>(text) {
        Err(error) => format!("it is not JSON: {error}"),
        Ok(_) => "it is not JSON".to_owned(),
    };
    NotJson { detail }
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

    fn part(&self, quoted: Quoted) -> Text {
        if !quoted.escaped {
            return Text::part(self.whole, quoted.start, quoted.end);
        }
        let mut text = String::new();
        json_text::unescape(&self.whole[quoted.start..quoted.end], &mut text);
        text.into()
    }
}
