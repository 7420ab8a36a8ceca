//! An event as a block of lines for people.

use std::borrow::Cow;
use std::fmt::Write as _;

use waypost_core::Event;

/// The most bytes of an event's data that are shown.
const SHOWN_DATA_BYTES: usize = 2048;

/// The most bytes of one attribute that are shown.
const SHOWN_ATTRIBUTE_BYTES: usize = 256;

/// The event in lines: what it is and which sink prints it, its attributes, and the beginning of its data.
pub(super) fn block(sink: &str, event: &Event) -> String {
    let mut text = String::with_capacity(512);
    line(&mut text, format_args!("── {}  →  {sink}", cut(event.event_type(), SHOWN_ATTRIBUTE_BYTES)));
    let width = event.attributes().map(|(name, _)| name.len()).max().unwrap_or_default().min(24);
    for (name, value) in event.attributes().filter(|(name, _)| *name != "type") {
        line(&mut text, format_args!("   {name:width$}  {}", cut(value.text, SHOWN_ATTRIBUTE_BYTES)));
    }
    match event.data_bytes() {
        None => {}
        Some([]) => line(&mut text, format_args!("   {:width$}  (empty)", "data")),
        Some(data) => data_lines(&mut text, data, width),
    }
    text.push('\n');
    text
}

fn data_lines(text: &mut String, data: &[u8], width: usize) {
    let Ok(whole) = std::str::from_utf8(data) else {
        return line(text, format_args!("   {:width$}  ({} bytes that are not text)", "data", data.len()));
    };
    let shown = cut(whole, SHOWN_DATA_BYTES);
    for (number, part) in shown.lines().enumerate() {
        let label = if number == 0 { "data" } else { "" };
        line(text, format_args!("   {label:width$}  {}", harmless(part)));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing to a String does not fail");
    text.push('\n');
}

/// The beginning of a text, and how much is left out.
fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(limit);
    Cow::Owned(format!("{}… ({} bytes more)", &text[..end], text.len() - end))
}

/// A line without what a terminal would obey: data comes from strangers.
fn harmless(line: &str) -> Cow<'_, str> {
    let obeyed = |character: char| character.is_control() && character != '\t';
    if line.contains(obeyed) {
        Cow::Owned(line.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect())
    } else {
        Cow::Borrowed(line)
    }
}
