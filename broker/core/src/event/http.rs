//! The HTTP binding: binary, structured and batch content mode, in requests and in responses.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::draft::Draft;
pub use super::error::DecodeError;
use super::error::excerpt;
pub use super::json::{encode as encode_structured, encode_batch};
use super::media_type::MediaType;
use super::{AttributeType, DataForm, Event, header_text, json};
use crate::codes;

/// The media type of one event in JSON.
pub const STRUCTURED_JSON: &str = "application/cloudevents+json";

/// The media type of a batch in JSON.
pub const BATCH_JSON: &str = "application/cloudevents-batch+json";

const PREFIX: &str = "ce-";

/// How a message carries its events (section 3 of the binding).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentMode {
    /// One event: attributes in headers, data in the body.
    Binary,
    /// One event, all in the body.
    Structured,
    /// Several events, all in the body.
    Batch,
}

/// What a message carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// One event, by itself.
    Event(Event),
    /// A batch, which may be empty.
    Batch(Vec<Event>),
}

/// How to read where the norm is silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Refuse header values with a stray `%`, raw bytes from 0x80 or malformed quotes, instead of taking them as they
    /// are.
    pub strict: bool,
}

/// Tells the content mode from the content type (H1). A structured message in a format that is not JSON counts as
/// binary when its headers hold a whole event, which is then passed on without a look into it (H2).
///
/// # Errors
/// 415 for an event format that is not JSON, or JSON that is not UTF-8.
pub fn content_mode(headers: &HeaderMap) -> Result<ContentMode, DecodeError> {
    let Some(content_type) = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) else {
        return Ok(ContentMode::Binary);
    };
    let Some((mode, format)) = claimed_mode(content_type) else { return Ok(ContentMode::Binary) };
    let format = String::from_utf8_lossy(format);
    let name = format.split([';', ' ', '\t']).next().unwrap_or_default();
    if !name.eq_ignore_ascii_case("+json") {
        if ["ce-id", "ce-source", "ce-specversion", "ce-type"].iter().all(|name| headers.contains_key(*name))
        {
            return Ok(ContentMode::Binary);
        }
        return Err(DecodeError::unsupported(format!(
            "the event format of content type `{}` is not supported: send `{STRUCTURED_JSON}`, `{BATCH_JSON}`, or \
             binary mode",
            excerpt(&String::from_utf8_lossy(content_type))
        )));
    }
    let media_type = String::from_utf8_lossy(content_type);
    if MediaType::parse(&media_type).is_some_and(|media_type| media_type.is_utf8()) {
        Ok(mode)
    } else {
        let shown = excerpt(&media_type);
        Err(DecodeError::unsupported(format!(
            "the content type `{shown}` has another charset than UTF-8, or malformed parameters: send `{STRUCTURED_JSON}`"
        )))
    }
}

/// The mode that a content type claims by its prefix, and what follows the prefix.
pub(super) fn claimed_mode(content_type: &[u8]) -> Option<(ContentMode, &[u8])> {
    [
        ("application/cloudevents-batch", ContentMode::Batch),
        ("application/cloudevents", ContentMode::Structured),
    ]
    .into_iter()
    .find_map(|(prefix, mode)| {
        let (start, rest) = content_type.split_at_checked(prefix.len())?;
        let ends_here = matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
        (ends_here && start.eq_ignore_ascii_case(prefix.as_bytes())).then_some((mode, rest))
    })
}

/// Whether a message claims to carry CloudEvents: by its content type or by a `ce-specversion` header. Tells a reply
/// event from a plain response.
pub fn carries_event(headers: &HeaderMap) -> bool {
    headers.contains_key("ce-specversion")
        || headers
            .get(CONTENT_TYPE)
            .is_some_and(|content_type| claimed_mode(content_type.as_bytes()).is_some())
}

/// Reads the events of a message, with one copy of the body.
///
/// A body without bytes is no data: HTTP does not tell it from empty data.
///
/// # Errors
/// The first fault found, with the status that answers it. A batch is taken as a whole or not at all.
pub fn decode(headers: &HeaderMap, body: &[u8], options: &DecodeOptions) -> Result<Decoded, DecodeError> {
    match content_mode(headers)? {
        ContentMode::Binary => decode_binary(headers, body, options).map(Decoded::Event),
        ContentMode::Structured => json::decode(body).map(Decoded::Event),
        ContentMode::Batch => json::decode_batch(body).map(Decoded::Batch),
    }
}

fn decode_binary(headers: &HeaderMap, body: &[u8], options: &DecodeOptions) -> Result<Event, DecodeError> {
    let mut draft = Draft::default();
    let mut found = false;
    for (header, value) in headers {
        let name = match header.as_str().strip_prefix(PREFIX) {
            // The content type alone says it in this binding (H3).
            Some("datacontenttype") => continue,
            Some(name) => name,
            None if header == CONTENT_TYPE => "datacontenttype",
            None => continue,
        };
        let text = if header == CONTENT_TYPE {
            std::str::from_utf8(value.as_bytes())
                .map(Cow::Borrowed)
                .map_err(|_| header_text::HeaderTextError::NotUtf8)
        } else {
            found = true;
            header_text::decode(value.as_bytes(), options.strict)
        };
        let text = text.map_err(|error| {
            DecodeError::bad_request(
                codes::HEADER_VALUE_INVALID,
                format!("the header `{header}` cannot be read: {error}"),
            )
        })?;
        draft.add(name, text, AttributeType::Untyped)?;
    }
    if !found {
        return Err(DecodeError::bad_request(
            codes::NOT_AN_EVENT,
            format!(
                "there is no CloudEvent: send the headers `ce-id`, `ce-source`, `ce-specversion` and `ce-type`, or \
                 one event with `content-type: {STRUCTURED_JSON}`"
            ),
        ));
    }
    if !body.is_empty() {
        draft.set_data(Cow::Borrowed(body), DataForm::Raw);
    }
    Ok(draft.finish()?)
}

/// Whether an event can go out in binary mode: its content type must not be taken for a structured message, as that
/// of an event within an event would be (H13). Send such an event with [`encode_structured`].
pub fn fits_binary(event: &Event) -> bool {
    event.data_content_type().is_none_or(|content_type| {
        !claimed_mode(content_type.as_bytes()).is_some_and(|(_, format)| {
            format.get(..5).is_some_and(|format| format.eq_ignore_ascii_case(b"+json"))
        })
    })
}

/// Headers in the order in which they are written.
pub type Head = Box<[(HeaderName, HeaderValue)]>;

/// The headers of an event in binary mode, one more than it has attributes; the body is [`Event::data`]. Values that need
/// no escape share the buffer of the event.
pub fn binary_headers(event: &Event) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let version = HeaderValue::from_static(event.spec_version().as_str());
    let attributes = event.attributes().map(|(name, value)| {
        if name == "datacontenttype" {
            (CONTENT_TYPE, shared_value(event, value.text))
        } else {
            (header_name(name), encoded_value(event, value.text))
        }
    });
    std::iter::once((SPEC_VERSION, version)).chain(attributes)
}

/// The headers of an event in binary mode, to be sent several times.
pub fn binary_head(event: &Event) -> Head {
    let mut head = Vec::with_capacity(event.attribute_count() + 1);
    head.extend(binary_headers(event));
    head.into_boxed_slice()
}

/// Puts the headers of an event in binary mode into a map, replacing those of the same names.
pub fn encode_binary(event: &Event, headers: &mut HeaderMap) {
    for (name, value) in binary_headers(event) {
        headers.insert(name, value);
    }
}

fn encoded_value(event: &Event, text: &str) -> HeaderValue {
    match header_text::encode(text) {
        Cow::Borrowed(_) => shared_value(event, text),
        Cow::Owned(encoded) => HeaderValue::try_from(encoded).expect("the encoded form is printable ASCII"),
    }
}

fn shared_value(event: &Event, text: &str) -> HeaderValue {
    let shared: Bytes = event.packed().slice_ref(text.as_bytes());
    HeaderValue::from_maybe_shared(shared).expect("no text of an event has control characters")
}

const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");

fn header_name(attribute: &str) -> HeaderName {
    match attribute {
        "id" => const { HeaderName::from_static("ce-id") },
        "source" => const { HeaderName::from_static("ce-source") },
        "type" => const { HeaderName::from_static("ce-type") },
        "subject" => const { HeaderName::from_static("ce-subject") },
        "time" => const { HeaderName::from_static("ce-time") },
        "dataschema" => const { HeaderName::from_static("ce-dataschema") },
        "traceparent" => const { HeaderName::from_static("ce-traceparent") },
        "tracestate" => const { HeaderName::from_static("ce-tracestate") },
        "partitionkey" => const { HeaderName::from_static("ce-partitionkey") },
        other => HeaderName::try_from(format!("{PREFIX}{other}")).expect("attribute names are a-z and 0-9"),
    }
}

#[cfg(test)]
mod suite;
