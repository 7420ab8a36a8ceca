//! From a tree to text.

use super::Json;
use crate::filter::jsonpath::json_text::plain_until;

/// Recursion is bounded by the depth of trees, which all that builds them keeps within `MAX_DEPTH`.
pub(super) fn write(value: &Json, into: &mut Vec<u8>) {
    match value {
        Json::Null => into.extend_from_slice(b"null"),
        Json::Bool(true) => into.extend_from_slice(b"true"),
        Json::Bool(false) => into.extend_from_slice(b"false"),
        Json::Number(number) => into.extend_from_slice(number.text().as_bytes()),
        Json::Text(text) => write_text(text, into),
        Json::Unread(text) => into.extend_from_slice(text.as_bytes()),
        Json::Array(elements) => {
            into.push(b'[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    into.push(b',');
                }
                write(element, into);
            }
            into.push(b']');
        }
        Json::Object(object) => {
            into.push(b'{');
            for (at, (name, value)) in object.iter().enumerate() {
                if at > 0 {
                    into.push(b',');
                }
                write_text(name, into);
                into.push(b':');
                write(value, into);
            }
            into.push(b'}');
        }
    }
}

fn write_text(text: &str, into: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    into.push(b'"');
    let mut from = 0;
    loop {
        let at = plain_until(bytes, from);
        into.extend_from_slice(&bytes[from..at]);
        let Some(byte) = bytes.get(at) else { break };
        match byte {
            b'"' => into.extend_from_slice(b"\\\""),
            b'\\' => into.extend_from_slice(b"\\\\"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\t' => into.extend_from_slice(b"\\t"),
            0x8 => into.extend_from_slice(b"\\b"),
            0xc => into.extend_from_slice(b"\\f"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                into.extend_from_slice(b"\\u00");
                into.push(DIGITS[usize::from(control >> 4)]);
                into.push(DIGITS[usize::from(control & 0xf)]);
            }
        }
        from = at + 1;
    }
    into.push(b'"');
}
