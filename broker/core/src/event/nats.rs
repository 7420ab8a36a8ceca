//! CloudEvents in messages of NATS (the NATS protocol binding, version 1.0.3), and as sdk-go writes them for JetStream.
//!
//! In binary mode every attribute is a header `ce-NAME`, `datacontenttype` too, percent-encoded as in HTTP. sdk-go
//! writes the content type without the prefix and encodes nothing: a message with an unprefixed content type and no
//! `ce-datacontenttype` is read that way.

use std::borrow::Cow;

use super::draft::Draft;
use super::http::{ContentMode, claimed_mode};
use super::{AttributeType, DataForm, DecodeError, Event, header_text, json};
use crate::codes;

/// The header that tells structured mode.
pub const CONTENT_TYPE: &str = "Content-Type";

/// The content type of a structured message.
pub const STRUCTURED_JSON: &str = "application/cloudevents+json";

/// What the header of an attribute begins with in binary mode.
const PREFIX: &str = "ce-";

/// A header of a message. Names are compared without case.
pub type Header<'m> = (&'m str, &'m str);

/// Reads the event of a message; none where the message does not claim to be one.
///
/// A message without headers is read as structured JSON where it is an object with a `specversion`: servers and clients
/// without headers can send no other.
///
/// # Errors
/// The first fault of a message that claims to be an event.
pub fn decode(headers: &[Header<'_>], payload: &[u8]) -> Result<Option<Event>, DecodeError> {
    let value_of = |wanted: &str| {
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    };
    let content_type = value_of(CONTENT_TYPE);
    let claimed = content_type.and_then(|content_type| claimed_mode(content_type.as_bytes()));
    if let Some((ContentMode::Structured, format)) = claimed {
        let name = format.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
        if !name.eq_ignore_ascii_case(b"+json") {
            return Err(DecodeError::unsupported(format!(
                "the event format `application/cloudevents{}` is not supported: send `{STRUCTURED_JSON}`, or binary mode",
                String::from_utf8_lossy(name)
            )));
        }
        return json::decode(payload).map(Some);
    }
    if value_of("ce-specversion").is_some() {
        let verbatim = content_type.filter(|_| value_of("ce-datacontenttype").is_none());
        return decode_binary(headers, verbatim, payload).map(Some);
    }
    if headers.is_empty() && claims_json(payload) {
        return json::decode(payload).map(Some);
    }
    Ok(None)
}

/// Whether a payload is an object that says which version of CloudEvents it follows.
fn claims_json(payload: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Claim {
        specversion: Option<serde::de::IgnoredAny>,
    }
    payload.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<Claim>(payload).is_ok_and(|claim| claim.specversion.is_some())
}

/// `verbatim` is the content type that stands without the prefix, as sdk-go has it: then no value is encoded.
fn decode_binary(
    headers: &[Header<'_>],
    verbatim: Option<&str>,
    payload: &[u8],
) -> Result<Event, DecodeError> {
    let mut names = Vec::with_capacity(headers.len());
    for (header, value) in headers {
        let Some((prefix, name)) = header.split_at_checked(PREFIX.len()) else { continue };
        if prefix.eq_ignore_ascii_case(PREFIX) {
            names.push((name.to_ascii_lowercase(), *header, *value));
        }
    }
    let mut draft = Draft::default();
    for (name, header, value) in &names {
        let text = if verbatim.is_some() {
            Cow::Borrowed(*value)
        } else {
            header_text::decode(value.as_bytes(), false).map_err(|error| {
                DecodeError::bad_request(
                    codes::HEADER_VALUE_INVALID,
                    format!("the header `{header}` of the message cannot be read: {error}"),
                )
            })?
        };
        draft.add(name, text, AttributeType::Untyped)?;
    }
    if let Some(content_type) = verbatim {
        draft.add("datacontenttype", Cow::Borrowed(content_type), AttributeType::Untyped)?;
    }
    // NATS does not tell no payload from an empty one.
    if !payload.is_empty() {
        draft.set_data(Cow::Borrowed(payload), DataForm::Raw);
    }
    Ok(draft.finish()?)
}

/// The headers of an event in binary mode; the payload is [`Event::data`], nothing where there is no data.
pub fn binary_headers(event: &Event) -> impl Iterator<Item = (Cow<'static, str>, Cow<'_, str>)> {
    let version = (Cow::Borrowed("ce-specversion"), Cow::Borrowed(event.spec_version().as_str()));
    let attributes = event
        .attributes()
        .map(|(name, value)| (Cow::Owned(format!("{PREFIX}{name}")), header_text::encode(value.text)));
    std::iter::once(version).chain(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [Header<'_>; 4] =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

    fn with<'m>(more: &[Header<'m>]) -> Vec<Header<'m>> {
        [&REQUIRED[..], more].concat()
    }

    fn decoded(headers: &[Header<'_>], payload: &[u8]) -> Event {
        decode(headers, payload).unwrap().unwrap()
    }

    #[test]
    fn a_message_without_marks_is_no_event() {
        assert_eq!(decode(&[], b"{}"), Ok(None));
        assert_eq!(decode(&[], b"not json {"), Ok(None));
        assert_eq!(decode(&[], br#"{"specversion": null}"#), Ok(None));
        assert_eq!(decode(&[("Content-Type", "application/json"), ("x", "1")], b"{}"), Ok(None));
    }

    #[test]
    fn binary_mode_decodes_percent_and_takes_names_in_any_case() {
        let event = decoded(
            &with(&[
                ("CE-Subject", "%C3%A4%20b"),
                ("ce-datacontenttype", "text/plain"),
                ("Nats-Msg-Id", "x"),
            ]),
            b"data",
        );
        assert_eq!(event.subject(), Some("ä b"));
        assert_eq!(event.data_content_type(), Some("text/plain"));
        assert_eq!(event.data_bytes(), Some(&b"data"[..]));
        assert_eq!(event.attribute_count(), 5);
        assert_eq!(decoded(&REQUIRED, b"").data_bytes(), None);
    }

    #[test]
    fn what_sdk_go_writes_is_taken_as_it_stands() {
        let event = decoded(&with(&[("content-type", "application/json"), ("ce-subject", "50%25 ä")]), b"{}");
        assert_eq!(event.subject(), Some("50%25 ä"));
        assert_eq!(event.data_content_type(), Some("application/json"));
    }

    #[test]
    fn structured_mode_goes_by_the_content_type_or_stands_alone() {
        let json = br#" {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}"#;
        assert_eq!(
            decoded(&[("content-type", "Application/CloudEvents+JSON; charset=utf-8")], json).id(),
            "1"
        );
        assert_eq!(decoded(&[], json).id(), "1");
        assert_eq!(decode(&[("x", "1")], json), Ok(None));
        assert!(decode(&[("Content-Type", "application/cloudevents+avro")], json).is_err());
    }

    #[test]
    fn a_message_that_claims_to_be_an_event_and_is_none_is_an_error() {
        assert!(decode(&REQUIRED[..3], b"").is_err());
        assert!(decode(&with(&[("ce-id", "2")]), b"").is_err());
        assert!(decode(&with(&[("ce-subject", "%FF")]), b"").is_err());
        assert!(decode(&[], br#"{"specversion": "1.0"}"#).is_err());
        assert!(decode(&[("Content-Type", "application/cloudevents+json")], b"{").is_err());
    }

    #[test]
    fn what_is_encoded_is_decoded_to_the_same() {
        let event = Event::builder("1 %", "/s", "t")
            .subject("ä \"b\"")
            .data_content_type("application/json; charset=utf-8")
            .attribute("partitionkey", "k")
            .data("{}")
            .build()
            .unwrap();
        let headers: Vec<_> = binary_headers(&event).collect();
        let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(decoded(&headers, event.data_bytes().unwrap()), event);
        assert!(headers.contains(&("ce-datacontenttype", "application/json;%20charset=utf-8")));
    }
}
