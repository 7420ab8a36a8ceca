//! Templates over a request that was posted to a source, in the language of the templates over events.
//!
//! | Piece | Stands for |
//! |---|---|
//! | `${header.x-github-event}` | the header |
//! | `${query.tenant}` | the parameter of the query |
//! | `${path}`, `${path.0}` | what follows the URL of the source, or one segment of it |
//! | `${method}` | the method |
//! | `${$.order.id}` | the value at a single place in the body |
//! | `${header.x\|none}` | any of these, or the text behind the bar where the request does not have it |
//! | `$${` | the text `${` |

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{InvalidTemplate, Span, Unrendered, single_place, spans, text_of};
use crate::filter::jsonpath::Query;
use crate::receive::Posted;

/// A text with places that a request fills in. Read once, rendered for each request.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestTemplate {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Place { place: Place, otherwise: Option<Box<str>> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Header(HeaderName),
    Query(Box<str>),
    Path(Option<usize>),
    Method,
    Body(Query),
}

impl RequestTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// [`InvalidTemplate`] where a place is not closed or names nothing that a request can have, or where the text is
    /// longer than [`MAX_TEMPLATE_BYTES`](super::MAX_TEMPLATE_BYTES).
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

    /// Whether every request gives the same: it has no places.
    pub fn is_constant(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Whether the header stands in it.
    pub fn names_header(&self, name: &HeaderName) -> bool {
        let names = |piece: &Piece| matches!(piece, Piece::Place { place: Place::Header(known), .. } if known == name);
        self.pieces.iter().any(names)
    }

    /// What the template says about a request.
    ///
    /// # Errors
    /// [`Unrendered`] where the request lacks what a place names.
    pub fn render(&self, posted: &Posted) -> Result<String, Unrendered> {
        let mut rendered = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => rendered.push_str(text),
                Piece::Place { place, otherwise } => {
                    let value = place.value(posted).or(otherwise.as_deref().map(Cow::Borrowed));
                    rendered.push_str(&value.ok_or_else(|| {
                        Unrendered::new(format!("the request has no {place}, which the template needs"))
                    })?);
                }
            }
        }
        Ok(rendered)
    }
}

impl Piece {
    fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let (place, otherwise) = match bar(text) {
            Some(at) => (&text[..at], Some(text[at + 1..].into())),
            None => (text, None),
        };
        Ok(Self::Place { place: Place::parse(place)?, otherwise })
    }
}

/// Where the first bar stands that is in no quotes.
fn bar(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => drop(bytes.next()),
            (Some(open), _) if byte == open => quote = None,
            (None, b'\'' | b'"') if text.starts_with('$') => quote = Some(byte),
            (None, b'|') => return Some(at),
            _ => {}
        }
    }
    None
}

impl Place {
    fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        if text.starts_with('$') {
            return single_place(text).map(Self::Body);
        }
        let unknown = || {
            InvalidTemplate::new(format!(
                "`{text}` is nothing that a request has: write `header.NAME`, `query.NAME`, `path`, `path.0`, `method` \
                 or a place in the body (`$.name`)"
            ))
        };
        match text.split_once('.') {
            None if text == "path" => Ok(Self::Path(None)),
            None if text == "method" => Ok(Self::Method),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| unknown()),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.into())),
            Some(("path", number)) => {
                number.parse().map(|number| Self::Path(Some(number))).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }

    fn value<'p>(&self, posted: &'p Posted) -> Option<Cow<'p, str>> {
        match self {
            Self::Header(name) => posted.header(name).map(Cow::Borrowed),
            Self::Query(name) => posted.queries().find(|(known, _)| *known == **name).map(|(_, value)| value),
            Self::Path(None) => Some(Cow::Borrowed(&posted.path)),
            Self::Path(Some(number)) => {
                let segment = posted.path.split('/').filter(|segment| !segment.is_empty()).nth(*number);
                segment.map(Cow::Borrowed)
            }
            Self::Method => Some(Cow::Borrowed(posted.method.as_str())),
            Self::Body(query) => query.value_in(posted.json()?).map(text_of),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header `{name}`"),
            Self::Query(name) => write!(f, "parameter `{name}` in its query"),
            Self::Path(None) => f.write_str("path"),
            Self::Path(Some(number)) => write!(f, "segment {number} in its path"),
            Self::Method => f.write_str("method"),
            Self::Body(query) => write!(f, "JSON with `{query}` as its body"),
        }
    }
}

impl fmt::Debug for RequestTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestTemplate").field(&self.text).finish()
    }
}

impl<'de> Deserialize<'de> for RequestTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for RequestTemplate {
    fn schema_name() -> Cow<'static, str> {
        "RequestTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A text with places that a request fills in: `${header.x-event}`, `${query.tenant}`, `${path}` \
                            (what follows the URL of the source), `${path.0}` (one segment of it), `${method}`, \
                            `${$.order.id}` (a place in the body); `${header.x|none}` has a text for requests without it; \
                            `$${` is the text itself."
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};
    use proptest::prelude::*;

    use super::*;

    fn posted(content_type: &'static str, body: &'static str) -> Posted {
        let mut headers = HeaderMap::new();
        headers.insert("x-event", HeaderValue::from_static("push"));
        headers.insert("content-type", HeaderValue::from_static(content_type));
        let body = Bytes::from_static(body.as_bytes());
        Posted::new(Method::POST, "/a/b%20c".to_owned(), "tenant=t%201&x=1+2".to_owned(), headers, body)
    }

    fn rendered(text: &str) -> Result<String, String> {
        let template = RequestTemplate::parse(text).map_err(|error| error.to_string())?;
        let json = posted("application/json", r#"{"order": {"id": "A-1", "n": 7, "a|b}": true}}"#);
        template.render(&json).map_err(|error| error.to_string())
    }

    #[test]
    fn places_are_filled_in() {
        for (text, expected) in [
            ("com.github.${header.X-Event}", "com.github.push"),
            ("${query.tenant}/${query.x}", "t 1/1 2"),
            ("${path}", "/a/b%20c"),
            ("${path.1}|${path.0}", "b%20c|a"),
            ("${method}", "POST"),
            ("${$.order.id}-${$.order.n}", "A-1-7"),
            ("${$.order['a|b}']}", "true"),
            ("${$.order.none|-}", "-"),
            ("${header.none|}", ""),
            ("${header.none|a|b}", "a|b"),
            ("$${method}", "${method}"),
        ] {
            assert_eq!(rendered(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn fields_of_a_form_are_a_body_too_and_its_payload_is_the_body_where_it_is_json() {
        let template = RequestTemplate::parse("${$.command} ${$.text}").unwrap();
        let form = posted("application/x-www-form-urlencoded", "command=%2Frun&text=a+b");
        assert_eq!(template.render(&form).as_deref(), Ok("/run a b"));
        let template = RequestTemplate::parse("${$.action}").unwrap();
        let payload =
            posted("application/x-www-form-urlencoded", "payload=%7B%22action%22%3A%22opened%22%7D");
        assert_eq!(template.render(&payload).as_deref(), Ok("opened"));
    }

    #[test]
    fn what_the_request_lacks_is_told() {
        for text in ["${header.none}", "${query.none}", "${path.2}", "${$.none}"] {
            assert!(rendered(text).unwrap_err().contains("the request has no"), "{text}");
        }
        let template = RequestTemplate::parse("${$.a}").unwrap();
        assert!(template.render(&posted("text/plain", "no JSON")).is_err());
    }

    #[test]
    fn what_no_request_has_is_refused_when_it_is_read() {
        for text in
            ["${", "${}", "${type}", "${header.}", "${header.a b}", "${query.}", "${path.x}", "${$..a}"]
        {
            assert!(RequestTemplate::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[${}a-z.|:%\\[\\]'\"0-9]{0,40}") {
            drop(rendered(&text));
        }
    }
}
