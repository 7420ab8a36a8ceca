//! What can be wrong with an event, its encoding, or its stored form.

use crate::codes::{self, Code};

/// An event that breaks a rule of CloudEvents. The rules are the same for every binding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct InvalidEvent {
    /// The stable code of the rule.
    pub code: Code,
    /// The attribute that breaks it, if it is one.
    pub attribute: Option<String>,
    /// A sentence that names the fault and what to do.
    pub detail: String,
}

impl InvalidEvent {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, attribute: None, detail: detail.into() }
    }

    pub(super) fn of(code: Code, attribute: &str, detail: impl Into<String>) -> Self {
        Self { code, attribute: Some(attribute.to_owned()), detail: detail.into() }
    }

    pub(super) fn missing(attribute: &str) -> Self {
        Self::of(
            codes::ATTRIBUTE_MISSING,
            attribute,
            format!(
                "the event has no `{attribute}`: set `id`, `source`, `specversion` and `type`, none of them empty"
            ),
        )
    }

    pub(super) fn repeated(attribute: &str) -> Self {
        Self::of(
            codes::ATTRIBUTE_REPEATED,
            attribute,
            format!("`{}` is given more than once: send it once", excerpt(attribute)),
        )
    }
}

/// A request, a reply or a document from which no event can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{detail}", position(*.index))]
pub struct DecodeError {
    /// The stable code of the fault.
    pub code: Code,
    /// The HTTP status that answers it: 400, 413 (a batch of too many events) or 415.
    pub status: u16,
    /// The event within a batch, from 0; absent where the fault is not one event's.
    pub index: Option<usize>,
    /// A sentence that names the fault and what to do.
    pub detail: String,
}

fn position(index: Option<usize>) -> String {
    index.map(|index| format!("event {index} of the batch: ")).unwrap_or_default()
}

impl DecodeError {
    pub(super) fn bad_request(code: Code, detail: impl Into<String>) -> Self {
        Self { code, status: 400, index: None, detail: detail.into() }
    }

    pub(super) fn unsupported(detail: impl Into<String>) -> Self {
        Self { code: codes::FORMAT_UNSUPPORTED, status: 415, index: None, detail: detail.into() }
    }

    pub(super) fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl From<InvalidEvent> for DecodeError {
    fn from(invalid: InvalidEvent) -> Self {
        Self::bad_request(invalid.code, invalid.detail)
    }
}

/// Bytes that are not the packed form of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored event is corrupt at byte {offset}: {detail}; check the log with `waypost log verify`")]
pub struct CorruptEvent {
    /// Where in the bytes of the event the fault was seen.
    pub offset: usize,
    /// What was seen.
    pub detail: &'static str,
}

impl CorruptEvent {
    /// The stable code: `E0620`.
    pub const fn code(&self) -> Code {
        codes::EVENT_CORRUPT
    }
}

/// The longest part of a foreign text that an error repeats, in characters.
const EXCERPT: usize = 80;

/// As much of a foreign text as an error may repeat, with what a terminal would act on made visible.
pub(super) fn excerpt(text: &str) -> String {
    let mut shown: String = text.chars().take(EXCERPT).flat_map(char::escape_debug).collect();
    if text.chars().nth(EXCERPT).is_some() {
        shown.push('…');
    }
    shown
}
