//! CloudEvents in records of Kafka (the Kafka protocol binding, version 1.0.2).
//!
//! Names and values are UTF-8 as they are: nothing is percent-encoded, unlike in HTTP. A record without a value carries
//! an event without data; a value of no bytes is empty data.

use std::borrow::Cow;

use super::draft::Draft;
use super::http::{ContentMode, claimed_mode};
use super::{AttributeType, DataForm, DecodeError, Event, json};
use crate::codes;

pub use precedent::Precedent;

mod precedent;

/// The header that tells the content mode, and in binary mode carries `datacontenttype`.
pub const CONTENT_TYPE: &str = "content-type";

/// The content type of a structured record.
pub const STRUCTURED_JSON: &str = "application/cloudevents+json; charset=UTF-8";

/// What the header of an attribute begins with in binary mode.
const PREFIX: &str = "ce_";

/// A header of a record. Its value may be null.
pub type Header<'r> = (&'r str, Option<&'r [u8]>);

/// Reads the event of a record; none where the record does not claim to be one (section 3).
///
/// # Errors
/// The first fault of a record that claims to be an event.
pub fn decode(headers: &[Header<'_>], value: Option<&[u8]>) -> Result<Option<Event>, DecodeError> {
    if let Some(format) = structured(headers) {
        let name = format.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
        if !name.eq_ignore_ascii_case(b"+json") {
            return Err(DecodeError::unsupported(format!(
                "the event format `application/cloudevents{}` is not supported: send `{STRUCTURED_JSON}`, or binary mode",
                String::from_utf8_lossy(name)
            )));
        }
        return json::decode(value.unwrap_or_default()).map(Some);
    }
    if headers.iter().any(|(name, value)| *name == "ce_specversion" && value.is_some()) {
        return decode_binary(headers, value).map(Some);
    }
    Ok(None)
}

fn content_type<'h>(headers: &[Header<'h>]) -> Option<&'h [u8]> {
    let (_, value) =
        headers.iter().find(|(name, value)| name.eq_ignore_ascii_case(CONTENT_TYPE) && value.is_some())?;
    *value
}

/// What follows `application/cloudevents` in the content type of a record that claims to be in structured mode.
fn structured<'h>(headers: &[Header<'h>]) -> Option<&'h [u8]> {
    match content_type(headers).and_then(claimed_mode) {
        Some((ContentMode::Structured, format)) => Some(format),
        _ => None,
    }
}

fn decode_binary(headers: &[Header<'_>], value: Option<&[u8]>) -> Result<Event, DecodeError> {
    let mut draft = Draft::default();
    for (header, text) in headers {
        let (Some(name), Some(text)) = (header.strip_prefix(PREFIX), text) else { continue };
        if name != "datacontenttype" {
            draft.add(name, Cow::Borrowed(utf8(header, text)?), AttributeType::Untyped)?;
        }
    }
    if let Some(content_type) = content_type(headers) {
        let text = Cow::Borrowed(utf8(CONTENT_TYPE, content_type)?);
        draft.add("datacontenttype", text, AttributeType::Untyped)?;
    }
    if let Some(value) = value {
        draft.set_data(Cow::Borrowed(value), DataForm::Raw);
    }
    Ok(draft.finish()?)
}

fn utf8<'t>(header: &str, text: &'t [u8]) -> Result<&'t str, DecodeError> {
    std::str::from_utf8(text).map_err(|_| {
        DecodeError::bad_request(
            codes::HEADER_VALUE_INVALID,
            format!("the header `{header}` of the record is not UTF-8"),
        )
    })
}

/// The headers of an event in binary mode; the value is [`Event::data`], none where there is no data.
pub fn binary_headers(event: &Event) -> impl Iterator<Item = (Cow<'static, str>, &str)> {
    let version = (Cow::Borrowed("ce_specversion"), event.spec_version().as_str());
    let attributes = event.attributes().map(|(name, value)| match name {
        "datacontenttype" => (Cow::Borrowed(CONTENT_TYPE), value.text),
        name => (Cow::Owned(format!("{PREFIX}{name}")), value.text),
    });
    std::iter::once(version).chain(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [Header<'_>; 4] = [
        ("ce_specversion", Some(b"1.0")),
        ("ce_id", Some(b"1")),
        ("ce_source", Some(b"/s")),
        ("ce_type", Some(b"t")),
    ];

    fn with<'r>(more: &[Header<'r>]) -> Vec<Header<'r>> {
        [&REQUIRED[..], more].concat()
    }

    #[test]
    fn a_record_without_marks_is_no_event() {
        assert_eq!(decode(&[], Some(b"{}")), Ok(None));
        assert_eq!(decode(&[("content-type", Some(b"application/json")), ("x", None)], None), Ok(None));
        assert_eq!(decode(&[("ce_specversion", None)], None), Ok(None));
    }

    #[test]
    fn binary_mode_takes_text_as_it_is_and_tells_no_value_from_an_empty_one() {
        let headers = with(&[
            ("ce_subject", Some("ä%20\"".as_bytes())),
            ("ce_gone", None),
            ("other", None),
            ("content-type", Some(b"text/plain")),
        ]);
        let event = decode(&headers, Some(b"")).unwrap().unwrap();
        assert_eq!(event.subject(), Some("ä%20\""));
        assert_eq!(event.data_content_type(), Some("text/plain"));
        assert_eq!(event.attribute("gone"), None);
        assert_eq!(event.data_bytes(), Some(&b""[..]));
        assert_eq!(decode(&REQUIRED, None).unwrap().unwrap().data_bytes(), None);
    }

    #[test]
    fn structured_mode_goes_by_the_content_type_whatever_its_case() {
        let json = br#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}"#;
        for content_type in ["application/cloudevents+json", "Application/CloudEvents+JSON; charset=UTF-8"] {
            let headers = [("content-type", Some(content_type.as_bytes()))];
            assert_eq!(decode(&headers, Some(json)).unwrap().unwrap().id(), "1");
            assert!(decode(&headers, None).is_err());
        }
        assert!(decode(&[("content-type", Some(b"application/cloudevents+avro"))], Some(json)).is_err());
    }

    #[test]
    fn a_record_that_claims_to_be_an_event_and_is_none_is_an_error() {
        assert!(decode(&REQUIRED[..3], None).is_err());
        assert!(decode(&with(&[("ce_bad name", Some(b"x"))]), None).is_err());
        assert!(decode(&with(&[("ce_subject", Some(b"\xff"))]), None).is_err());
        assert!(decode(&with(&[("ce_id", Some(b"2"))]), None).is_err());
    }

    #[test]
    fn what_is_encoded_is_decoded_to_the_same() {
        let event = Event::builder("1", "/s", "t")
            .subject("ä b")
            .data_content_type("application/json")
            .attribute("partitionkey", "k")
            .data("{}")
            .build()
            .unwrap();
        let headers: Vec<_> = binary_headers(&event).collect();
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(name, value)| (&**name, Some(value.as_bytes()))).collect();
        assert_eq!(decode(&headers, event.data_bytes()).unwrap().unwrap(), event);
        assert!(headers.contains(&("ce_partitionkey", Some(b"k"))));
    }
}
