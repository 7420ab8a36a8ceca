//! Events as lines of JSON, one structured event each.

use waypost_core::Event;
use waypost_core::event::http::encode_structured;

/// Appends the line of an event, with its line end.
pub(crate) fn push_line(text: &mut Vec<u8>, event: &Event) {
    let start = text.len();
    text.extend_from_slice(&encode_structured(event));
    // Line ends stand in JSON only between tokens, where a blank says the same.
    for byte in &mut text[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.push(b'\n');
}
