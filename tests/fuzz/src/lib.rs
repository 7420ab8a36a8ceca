//! What the fuzz targets share: how an input is divided, and the events that it describes.

use std::collections::BTreeSet;
use std::panic;

use waypost_core::Event;

pub mod transformation;

/// The most attributes that an input sets.
const MOST_ATTRIBUTES: usize = 8;

/// Divides an input at its first blank lines; what is not there is empty. Only the last part may hold a blank line.
pub fn parts<const N: usize>(input: &str) -> [&str; N] {
    let mut parts = [""; N];
    for (part, text) in parts.iter_mut().zip(input.splitn(N, "\n\n")) {
        *part = text;
    }
    parts
}

/// An event with these attributes, one on each line: `name=text`, or `name:value` for an Integer or a Boolean. A line
/// that says nothing valid is passed over. Data that is empty is none.
pub fn event(attributes: &str, data: &str) -> Event {
    let mut builder = Event::builder("1", "/shop", "com.example.order");
    if !data.is_empty() {
        builder = builder.data(data.to_owned());
    }
    let mut event = builder.build().expect("the attributes are valid, and data is never refused");
    for line in attributes.lines().take(MOST_ATTRIBUTES) {
        let changed = if let Some((name, text)) = line.split_once('=') {
            event.with_attribute(name, text)
        } else if let Some((name, value)) = line.split_once(':') {
            match (value.parse::<i32>(), value.parse::<bool>()) {
                (Ok(number), _) => event.with_attribute(name, number),
                (_, Ok(truth)) => event.with_attribute(name, truth),
                _ => continue,
            }
        } else {
            continue;
        };
        if let Ok(changed) = changed {
            event = changed;
        }
    }
    event
}

/// The attributes without their types and their order, which headers do not have. How 0.3 encodes data in JSON is no part
/// of the event, though an attribute there.
pub fn texts(event: &Event) -> BTreeSet<(String, String)> {
    let attributes = event.attributes().filter(|(name, _)| *name != "datacontentencoding");
    attributes.map(|(name, value)| (name.to_owned(), value.text.to_owned())).collect()
}

/// Whether every number in the text is the same however it is read: none has more digits than binary64 tells apart, and
/// none has an exponent.
pub fn has_plain_numbers(text: &str) -> bool {
    let bytes = text.as_bytes();
    let exponent = bytes.windows(2).any(|pair| pair[0].is_ascii_digit() && matches!(pair[1], b'e' | b'E'));
    let long = bytes.split(|byte| !byte.is_ascii_digit() && *byte != b'.').any(|digits| digits.len() > 15);
    !exponent && !long
}

/// Lets the panics of dependencies unwind, which our code catches and makes errors of. Those of our own code still end
/// the process at once, and those that nobody catches as well.
pub fn forgive_dependencies() {
    let ends_the_process = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| place.file().contains("/registry/src/")) {
            ends_the_process(panic);
        }
    }));
}
