//! Templates: names, keys and bodies that are made of an event.
//!
//! | Piece | Stands for |
//! |---|---|
//! | `${type}` | the attribute |
//! | `${subject\|none}` | the attribute, or the text behind the bar where the event does not have it |
//! | `${time:%Y.%m.%d}` | the attribute `time` in UTC, in a format of strftime |
//! | `${$.order.id}` | the value at a single place in the data (RFC 9535); a string as it is, all else as JSON |
//! | `$${` | the text `${` |
//!
//! All else is text that stands for itself.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::fmt::strtime;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::event::{Event, instant};
use crate::filter::Candidate;
use crate::filter::jsonpath::Query;

mod request;

pub use self::request::RequestTemplate;

/// The longest template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 16 * 1024;

/// A text with places that an event fills in. Read once, rendered for each event.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Attribute { name: Box<str>, otherwise: Option<Box<str>> },
    Time { format: Box<str> },
    Data(Query),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct InvalidTemplate {
    detail: String,
}

impl InvalidTemplate {
    fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

/// Why a template says nothing about an event. It depends on the values of the event: others may do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unrendered {
    detail: String,
}

impl Unrendered {
    fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`InvalidTemplate`] where a place is not closed or names nothing that an event can have, or where the text is
    /// longer than [`MAX_TEMPLATE_BYTES`].
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let pieces = spans(text)?.into_iter().map(|span| match span {
            Span::Text(text) => Ok(Piece::Text(text.into())),
            Span::Place(place) => Piece::parse(place),
        });
        let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.into(), pieces: pieces.into() })
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether every event gives the same: it has no places.
    pub fn is_constant(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// What the template says about an event.
    ///
    /// # Errors
    /// [`Unrendered`] where the event lacks what a place names.
    pub fn render(&self, event: &Event) -> Result<String, Unrendered> {
        let candidate = Candidate::new(event);
        let mut rendered = String::new();
        for piece in &self.pieces {
            rendered.push_str(&piece.render(&candidate)?);
        }
        Ok(rendered)
    }
}

/// A part of a template.
enum Span<'t> {
    /// Text that stands for itself.
    Text(String),
    /// What stands between `${` and `}`.
    Place(&'t str),
}

/// Takes a template apart into its text and its places.
fn spans(text: &str) -> Result<Vec<Span<'_>>, InvalidTemplate> {
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(InvalidTemplate::new(format!("the template is longer than {MAX_TEMPLATE_BYTES} bytes")));
    }
    let mut spans = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            plain.push_str(&rest[..at]);
            plain.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        if !plain.is_empty() {
            spans.push(Span::Text(std::mem::take(&mut plain)));
        }
        let inner = &rest[at + 2..];
        let end = closing(inner).ok_or_else(|| {
            InvalidTemplate::new(format!(
                "`{}` is not closed: write `}}` behind it, or `$${{` for the text itself",
                &rest[at..]
            ))
        })?;
        spans.push(Span::Place(&inner[..end]));
        rest = &inner[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        spans.push(Span::Text(plain));
    }
    Ok(spans)
}

/// Reads the path to a single place in data.
fn single_place(text: &str) -> Result<Query, InvalidTemplate> {
    let query = Query::parse(text)
        .map_err(|invalid| InvalidTemplate::new(format!("`{text}` is no JSONPath: {invalid}")))?;
    if !query.is_singular() {
        return Err(InvalidTemplate::new(format!(
            "`{text}` may select several values: name a single place, such as `$.order.lines[0].id`"
        )));
    }
    Ok(query)
}

/// A value of the data as text: a string as it is, all else as JSON.
fn text_of(value: &serde_json::Value) -> Cow<'_, str> {
    match value {
        serde_json::Value::String(text) => Cow::Borrowed(text.as_str()),
        other => Cow::Owned(other.to_string()),
    }
}

/// Where the place ends: at the first `}` that stands in no quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => drop(bytes.next()),
            (Some(open), _) if byte == open => quote = None,
            (None, b'\'' | b'"') if text.starts_with('$') => quote = Some(byte),
            (None, b'}') => return Some(at),
            _ => {}
        }
    }
    None
}

impl Piece {
    fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        if text.starts_with('$') {
            return single_place(text).map(Self::Data);
        }
        if let Some(format) = text.strip_prefix("time:") {
            strtime::format(format, Timestamp::UNIX_EPOCH).map_err(|error| {
                InvalidTemplate::new(format!("`{format}` is no format of a time: {error}"))
            })?;
            return Ok(Self::Time { format: format.into() });
        }
        let (name, otherwise) = match text.split_once('|') {
            Some((name, otherwise)) => (name, Some(otherwise.into())),
            None => (text, None),
        };
        if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9')) {
            return Err(InvalidTemplate::new(format!(
                "`{text}` names no attribute (a-z and 0-9) and no place in the data (`$.name`)"
            )));
        }
        Ok(Self::Attribute { name: name.into(), otherwise })
    }

    fn render<'r>(&'r self, candidate: &'r Candidate<'_>) -> Result<Cow<'r, str>, Unrendered> {
        let attribute = |name: &str| candidate.event().attribute(name).map(|value| value.text);
        match self {
            Self::Text(text) => Ok(Cow::Borrowed(text)),
            Self::Attribute { name, otherwise } => {
                attribute(name).or(otherwise.as_deref()).map(Cow::Borrowed).ok_or_else(|| {
                    Unrendered::new(format!("the event has no attribute `{name}`, which the template needs"))
                })
            }
            Self::Time { format } => {
                let time = attribute("time")
                    .ok_or_else(|| Unrendered::new("the event has no `time`, which the template needs"))?;
                let time = instant(time).map_err(|error| {
                    Unrendered::new(format!("the `time` of the event cannot be used: {error}"))
                })?;
                strtime::format(format.as_ref(), time).map(Cow::Owned).map_err(|error| {
                    Unrendered::new(format!("the `time` of the event cannot be used: {error}"))
                })
            }
            Self::Data(query) => {
                let data = candidate.data().map_err(|absent| {
                    Unrendered::new(format!("the template looks for `{query}` in the data: {absent}"))
                })?;
                query.value_in(data).map(text_of).ok_or_else(|| {
                    Unrendered::new(format!("the data has nothing at `{query}`, which the template needs"))
                })
            }
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.text).finish()
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A text with places that an event fills in: `${type}` (an attribute), `${subject|none}` \
                            (with a text for events without it), `${time:%Y.%m.%d}` (in UTC), `${$.order.id}` (a place \
                            in the data); `$${` is the text itself."
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> Event {
        Event::builder("1", "/shop", "order.placed")
            .time("2026-11-22T01:02:03+02:00")
            .data_content_type("application/json")
            .data(r#"{"order": {"id": "A-1", "lines": [{"n": 7}], "a}b": true}}"#)
            .build()
            .unwrap()
    }

    fn rendered(text: &str) -> Result<String, String> {
        let template = Template::parse(text).map_err(|invalid| invalid.to_string())?;
        template.render(&event()).map_err(|unrendered| unrendered.to_string())
    }

    #[test]
    fn places_are_filled_in() {
        for (text, expected) in [
            ("", ""),
            ("plain } text", "plain } text"),
            ("orders-${type}", "orders-order.placed"),
            ("${source}${id}/", "/shop1/"),
            ("${subject|none}", "none"),
            ("${subject|}", ""),
            ("${type|none}", "order.placed"),
            ("logs-${time:%Y.%m.%d}", "logs-2026.11.21"),
            ("${$.order.id}-${$.order.lines[0].n}", "A-1-7"),
            ("${$.order['a}b']}", "true"),
            ("${$.order.lines}", r#"[{"n":7}]"#),
            ("$${type} and ${id}", "${type} and 1"),
            ("${specversion}", "1.0"),
        ] {
            assert_eq!(rendered(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_the_event_lacks_is_an_error_of_this_event() {
        for text in ["${subject}", "${$.order.none}"] {
            let template = Template::parse(text).unwrap();
            assert!(template.render(&event()).is_err(), "{text}");
        }
        let without = Event::builder("1", "/s", "t").build().unwrap();
        for text in ["${time:%Y}", "${$.a}"] {
            assert!(Template::parse(text).unwrap().render(&without).is_err(), "{text}");
        }
    }

    #[test]
    fn what_no_event_can_have_is_refused_when_it_is_read() {
        for text in
            ["${", "${type", "${}", "${Type}", "${a b}", "${$.a[*]}", "${$..a}", "${$.}", "${time:%!}"]
        {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert!(Template::parse(&"x".repeat(MAX_TEMPLATE_BYTES + 1)).is_err());
    }

    #[test]
    fn a_time_may_have_more_digits_than_are_counted() {
        for (time, expected) in [
            ("2026-11-22T01:02:03.4563367655545444+02:00", "2026-11-21 23 .456336765"),
            ("2026-11-22T01:02:03.5Z", "2026-11-22 01 .5"),
        ] {
            let event = Event::builder("1", "/s", "t").time(time).build().unwrap();
            let template = Template::parse("${time:%Y-%m-%d %H %.f}").unwrap();
            assert_eq!(template.render(&event).as_deref(), Ok(expected), "{time}");
        }
    }

    #[test]
    fn a_template_without_places_is_constant() {
        assert!(Template::parse("a $${b}").unwrap().is_constant());
        assert!(!Template::parse("a${id}").unwrap().is_constant());
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_stands_for_itself(text in "[^$]{0,60}") {
            prop_assert_eq!(rendered(&text), Ok(text));
        }

        #[test]
        fn no_text_panics(text in "[${}a-z.|:%\\[\\]'\"0-9]{0,40}") {
            drop(rendered(&text));
        }
    }
}
