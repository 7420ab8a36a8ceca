//! The JSON format: one event, and the batch format. Data is never parsed into a tree: it is checked to be JSON and
//! copied byte for byte, however deep it is nested, without recursion.

mod encode;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

pub(super) use self::encode::{Member, data_member};
pub use self::encode::{encode, encode_batch};
use super::draft::{Draft, DraftData};
use super::error::{DecodeError, InvalidEvent, excerpt};
use super::media_type::declares_json;
use super::{AttributeType, DataForm, Event, MAX_ATTRIBUTES, SpecVersion, packed, validate};
use crate::codes;

/// The most events that a batch may hold.
pub const MAX_BATCH_EVENTS: usize = 10_000;

/// The most members of one event: its attributes, `specversion`, `data`, `data_base64`.
const MAX_MEMBERS: usize = MAX_ATTRIBUTES + 3;

/// Reads one event in JSON.
///
/// # Errors
/// 400, with the first fault found.
pub fn decode(document: &[u8]) -> Result<Event, DecodeError> {
    decode_event(text_of(document)?)
}

/// Reads a batch in JSON, as a whole or not at all; it may be empty.
///
/// # Errors
/// 400 with the index of the first event at fault; 413 for more than [`MAX_BATCH_EVENTS`].
pub fn decode_batch(document: &[u8]) -> Result<Vec<Event>, DecodeError> {
    let Elements { elements, overflow } = serde_json::from_str(text_of(document)?)
        .map_err(|error| malformed(&error, "send a JSON array of events"))?;
    if overflow {
        return Err(DecodeError {
            status: 413,
            ..DecodeError::bad_request(
                codes::BATCH_TOO_LONG,
                format!("the batch has more than {MAX_BATCH_EVENTS} events: send several batches"),
            )
        });
    }
    let mut events: Vec<Event> = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        let event = decode_event(element.get()).map_err(|error| error.at(index))?;
        if events.first().is_some_and(|first| first.spec_version() != event.spec_version()) {
            let detail = "its `specversion` is not that of the first: send one batch for each version";
            return Err(DecodeError::bad_request(codes::BATCH_VERSIONS_MIXED, detail).at(index));
        }
        events.push(event);
    }
    Ok(events)
}

fn text_of(document: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(document).map_err(|_| {
        DecodeError::bad_request(codes::JSON_MALFORMED, "the body is not UTF-8: send JSON in UTF-8")
    })
}

fn malformed(error: &serde_json::Error, hint: &str) -> DecodeError {
    DecodeError::bad_request(codes::JSON_MALFORMED, format!("the JSON cannot be read: {error}; {hint}"))
}

fn decode_event(document: &str) -> Result<Event, DecodeError> {
    let Members { members, overflow } = serde_json::from_str(document)
        .map_err(|error| malformed(&error, "send a JSON object with the event"))?;
    if overflow {
        return Err(packed::too_large().into());
    }
    Ok(event_of(&members)?)
}

/// Members in their order, `null` ones included. A name that is written with escapes is owned.
struct Members<'a> {
    members: SmallVec<[(Cow<'a, str>, &'a str); 12]>,
    overflow: bool,
}

fn event_of<'a>(members: &'a [(Cow<'a, str>, &'a str)]) -> Result<Event, InvalidEvent> {
    let mut draft = Draft::default();
    let mut data = None;
    let mut base64 = None;
    for (place, (name, json)) in members.iter().enumerate() {
        if members[..place].iter().any(|(earlier, _)| earlier == name) {
            return Err(InvalidEvent::repeated(name));
        }
        match &**name {
            "data" => data = Some(*json),
            "data_base64" => base64 = Some(*json).filter(|json| *json != "null"),
            name => add_attribute(&mut draft, name, json)?,
        }
    }
    let version = draft.version().ok_or_else(|| InvalidEvent::missing("specversion"))?;
    let data = match (data, base64) {
        (Some(_), Some(_)) => {
            return Err(data_invalid("`data` and `data_base64` exclude each other: send one of them"));
        }
        (None, Some(_)) if version == SpecVersion::V03 => {
            return Err(data_invalid(
                "`data_base64` is not part of CloudEvents 0.3: send `data` with `datacontentencoding` `base64`",
            ));
        }
        (None, Some(json)) => Some((Cow::Owned(bytes_of_base64(json)?), DataForm::Raw)),
        (Some(json), None) => data_of(&draft, version, json)?,
        (None, None) => None,
    };
    if let Some((bytes, form)) = data {
        draft.set_data(bytes, form);
    }
    draft.finish()
}

fn data_invalid(detail: &str) -> InvalidEvent {
    InvalidEvent::new(codes::DATA_INVALID, detail)
}

fn add_attribute<'a>(draft: &mut Draft<'a>, name: &'a str, json: &'a str) -> Result<(), InvalidEvent> {
    let (text, attribute_type) = match json.as_bytes().first() {
        Some(b'"') => (string_of(name, json)?, AttributeType::String),
        Some(b't' | b'f') => (Cow::Borrowed(json), AttributeType::Boolean),
        Some(b'-' | b'0'..=b'9') if validate::is_integer(json) => {
            (Cow::Borrowed(json), AttributeType::Integer)
        }
        // Null is unset (J3); its name must be one nevertheless.
        Some(b'n') => return validate::name(name),
        _ => {
            validate::name(name)?;
            return Err(InvalidEvent::of(
                codes::ATTRIBUTE_TYPE_INVALID,
                name,
                format!(
                    "`{name}` is `{}`: an attribute is a string, a Boolean, or a whole number of 32 bits",
                    excerpt(json)
                ),
            ));
        }
    };
    if name == "specversion" && attribute_type != AttributeType::String {
        return Err(InvalidEvent::of(
            codes::ATTRIBUTE_TYPE_INVALID,
            name,
            "`specversion` is a string: send `\"1.0\"` with its quotes",
        ));
    }
    draft.add(name, text, attribute_type)
}

/// The text of a JSON string, borrowed where it has no escapes.
fn string_of<'a>(name: &str, json: &'a str) -> Result<Cow<'a, str>, InvalidEvent> {
    if !json.contains('\\')
        && let Some(text) = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'))
    {
        return Ok(Cow::Borrowed(text));
    }
    serde_json::from_str(json).map(Cow::Owned).map_err(|_| {
        InvalidEvent::of(
            codes::ATTRIBUTE_VALUE_INVALID,
            name,
            format!("`{}` is a string with an unpaired surrogate: send Unicode characters", excerpt(name)),
        )
    })
}

fn bytes_of_base64(json: &str) -> Result<Vec<u8>, InvalidEvent> {
    if json.starts_with('"')
        && let Ok(text) = string_of("data_base64", json)
        && let Ok(bytes) = STANDARD.decode(&*text)
    {
        return Ok(bytes);
    }
    Err(data_invalid("the data is not a string of base64: encode it by RFC 4648, section 4, with padding"))
}

/// The data of the member `data` (J5, J6, J8), and of version 0.3 with its encoding.
fn data_of<'a>(
    draft: &Draft<'_>,
    version: SpecVersion,
    json: &'a str,
) -> Result<Option<DraftData<'a>>, InvalidEvent> {
    let encoded = version == SpecVersion::V03 && draft.text("datacontentencoding").is_some_and(is_base64);
    let is_json = draft.text("datacontenttype").is_none_or(declares_json);
    match json.as_bytes().first() {
        Some(b'n') if encoded || !is_json => Ok(None),
        _ if encoded => Ok(Some((Cow::Owned(bytes_of_base64(json)?), DataForm::Raw))),
        _ if is_json => Ok(Some((Cow::Borrowed(json.as_bytes()), DataForm::Json))),
        Some(b'"') => {
            let bytes = match string_of("data", json)? {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
            Ok(Some((bytes, DataForm::Text)))
        }
        _ => Err(data_invalid(
            "`data` is not a string although `datacontenttype` does not declare JSON: send a string, \
             `data_base64`, or a JSON content type",
        )),
    }
}

/// Whether a `datacontentencoding` of version 0.3 is base64.
fn is_base64(encoding: &str) -> bool {
    encoding.eq_ignore_ascii_case("base64")
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Members { members: SmallVec::new(), overflow: false };
                while let Some(Name(name)) = map.next_key()? {
                    if found.members.len() >= MAX_MEMBERS {
                        found.overflow = true;
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        found.members.push((name, map.next_value::<&'de RawValue>()?.get()));
                    }
                }
                Ok(found)
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The name of a member, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// The elements of a batch.
struct Elements<'a> {
    elements: Vec<&'a RawValue>,
    overflow: bool,
}

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementsVisitor;

        impl<'de> Visitor<'de> for ElementsVisitor {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut found = Elements { elements: Vec::new(), overflow: false };
                while found.elements.len() < MAX_BATCH_EVENTS {
                    let Some(element) = sequence.next_element()? else { return Ok(found) };
                    found.elements.push(element);
                }
                while sequence.next_element::<IgnoredAny>()?.is_some() {
                    found.overflow = true;
                }
                Ok(found)
            }
        }

        deserializer.deserialize_seq(ElementsVisitor)
    }
}

#[cfg(test)]
mod suite;
