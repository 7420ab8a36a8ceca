//! Writing the JSON format.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::is_base64;
use crate::event::media_type::MediaType;
use crate::event::{AttributeType, DataForm, Event, SpecVersion};

/// One event in JSON. JSON data is spliced in byte for byte; data that cannot stand in JSON is written as base64.
pub fn encode(event: &Event) -> Bytes {
    let mut out = Vec::with_capacity(room_for(event));
    write_event(&mut out, event);
    out.into()
}

/// A batch in JSON. The norm wants one version of CloudEvents in a batch: group events by
/// [`Event::spec_version`] first.
pub fn encode_batch(events: &[Event]) -> Bytes {
    let mut out = Vec::with_capacity(2 + events.iter().map(room_for).sum::<usize>());
    out.push(b'[');
    for (place, event) in events.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_event(&mut out, event);
    }
    out.push(b']');
    out.into()
}

/// About as much as the event takes in JSON, so that the buffer seldom grows.
fn room_for(event: &Event) -> usize {
    let data = event.data_bytes().map_or(0, <[u8]>::len);
    let base64 = if event.data_form() == DataForm::Raw { data / 2 } else { data / 8 };
    event.size() + base64 + 64
}

/// How the data stands in the document.
pub(in crate::event) enum Member<'a> {
    Json(&'a [u8]),
    Text(&'a str),
    Base64(&'a [u8]),
}

fn write_event(out: &mut Vec<u8>, event: &Event) {
    let data = data_member(event);
    let base64_of_0_3 = matches!(data, Some(Member::Base64(_))) && event.spec_version() == SpecVersion::V03;
    out.extend_from_slice(b"{\"specversion\":");
    write_string(out, event.spec_version().as_str());
    for (name, value) in event.attributes() {
        if base64_of_0_3 && name == "datacontentencoding" && !is_base64(value.text) {
            continue;
        }
        write_name(out, name);
        match value.attribute_type {
            AttributeType::Boolean | AttributeType::Integer => out.extend_from_slice(value.text.as_bytes()),
            _ => write_string(out, value.text),
        }
    }
    // Version 0.3 has no other way to tell the reader that the string is base64.
    if base64_of_0_3 && !declares_base64(event) {
        write_name(out, "datacontentencoding");
        write_string(out, "base64");
    }
    match data {
        Some(Member::Json(json)) => {
            write_name(out, "data");
            out.extend_from_slice(json);
        }
        Some(Member::Text(text)) => {
            write_name(out, "data");
            write_string(out, text);
        }
        Some(Member::Base64(bytes)) => {
            write_name(out, if base64_of_0_3 { "data" } else { "data_base64" });
            write_string(out, &STANDARD.encode(bytes));
        }
        None => {}
    }
    out.push(b'}');
}

fn declares_base64(event: &Event) -> bool {
    event.attribute("datacontentencoding").is_some_and(|encoding| is_base64(encoding.text))
}

/// Chooses the member by form and content type (J9).
pub(in crate::event) fn data_member(event: &Event) -> Option<Member<'_>> {
    let data = event.data_bytes()?;
    if event.spec_version() == SpecVersion::V03 && declares_base64(event) {
        return Some(Member::Base64(data));
    }
    let text = || std::str::from_utf8(data).map_or(Member::Base64(data), Member::Text);
    Some(match event.data_form() {
        DataForm::Json => Member::Json(data),
        DataForm::Text => text(),
        DataForm::Raw => match event.data_content_type().and_then(MediaType::parse) {
            Some(media_type) if media_type.declares_json() => {
                match serde_json::from_slice::<&RawValue>(data) {
                    Ok(_) => Member::Json(data),
                    Err(_) => Member::Base64(data),
                }
            }
            Some(media_type) if media_type.declares_text() && media_type.is_utf8() => text(),
            _ => Member::Base64(data),
        },
    })
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string into memory cannot fail");
}
