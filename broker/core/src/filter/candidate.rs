//! What filters are evaluated against.

use std::cell::{Cell, OnceCell};

use ::cel::common::value::Val;
use serde_json::Value as Json;

use super::cel;
use crate::event::{DataForm, Event};

/// The steps that the evaluation of one trigger's filter on one event may take. A step is one node of an expression,
/// or [`BYTES_PER_STEP`] bytes of text that are compared, copied or searched. Clauses of the dialects of Knative take
/// none, since [`super::MAX_FILTER_CLAUSES`] bounds them.
pub const MAX_STEPS: u32 = 100_000;

/// How much text is handled in one step.
pub const BYTES_PER_STEP: usize = 64;

/// The deepest nesting of arrays and objects in data that filters look into; deeper data is none to them.
pub const MAX_DATA_DEPTH: usize = 127;

/// An event as filters see it: its attributes, and its data, which is parsed at most once for all filters and only
/// when one of them asks for it.
///
/// It also holds what is left of the steps of the trigger that is being evaluated; [`Candidate::begin`] starts those
/// of the next one.
#[derive(Debug)]
pub struct Candidate<'e> {
    event: &'e Event,
    data: OnceCell<Result<Json, NoData>>,
    data_for_cel: OnceCell<Option<Box<dyn Val>>>,
    steps: Cell<u32>,
}

impl<'e> Candidate<'e> {
    /// Looks at the event; costs nothing.
    pub fn new(event: &'e Event) -> Self {
        Self { event, data: OnceCell::new(), data_for_cel: OnceCell::new(), steps: Cell::new(MAX_STEPS) }
    }

    /// The event.
    pub fn event(&self) -> &'e Event {
        self.event
    }

    /// The data as text that should be JSON, which is not checked: the content type says that it is JSON, or there is
    /// no content type.
    ///
    /// # Errors
    /// [`NoData`] where there is nothing to parse.
    pub fn json_text(&self) -> Result<&'e str, NoData> {
        let data = self.event.data_bytes().ok_or(NoData::Absent)?;
        let may_be_json = match self.event.data_form() {
            DataForm::Json => true,
            DataForm::Text => false,
            DataForm::Raw => self.event.data_content_type().is_none() || self.event.declares_json(),
        };
        if !may_be_json {
            return Err(NoData::NotDeclared);
        }
        std::str::from_utf8(data).map_err(|_| NoData::NotUtf8)
    }

    /// The data as a tree. Of a member that is given twice the last counts.
    ///
    /// # Errors
    /// [`NoData`] where it is not JSON, which is the same for every filter.
    pub fn data(&self) -> Result<&Json, NoData> {
        let parsed = self.data.get_or_init(|| {
            let text = self.json_text()?;
            serde_json::from_str(text)
                .map_err(|error| NoData::Malformed { line: error.line(), column: error.column() })
        });
        parsed.as_ref().map_err(|absent| *absent)
    }

    /// The data as a value of CEL, made at most once.
    pub(super) fn data_for_cel(&self) -> Option<&dyn Val> {
        self.data_for_cel.get_or_init(|| self.data().ok().map(cel::value_of)).as_deref()
    }

    /// Starts the steps of the next trigger.
    pub fn begin(&self) {
        self.steps.set(MAX_STEPS);
    }

    /// Takes steps of the trigger that is being evaluated.
    ///
    /// # Errors
    /// [`BudgetSpent`] where fewer are left; then none are left.
    pub fn spend(&self, steps: u32) -> Result<(), BudgetSpent> {
        let left = self.steps.get().checked_sub(steps);
        self.steps.set(left.unwrap_or(0));
        left.map(drop).ok_or(BudgetSpent)
    }

    /// Takes the steps of handling so much text.
    ///
    /// # Errors
    /// As [`Candidate::spend`].
    pub fn spend_on_text(&self, bytes: usize) -> Result<(), BudgetSpent> {
        self.spend(u32::try_from(bytes / BYTES_PER_STEP).unwrap_or(u32::MAX))
    }
}

/// The steps of a trigger are used up: the trigger as a whole does not match, also under `not`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the filter needs more than {MAX_STEPS} steps for this event: simplify it, or split the trigger")]
pub struct BudgetSpent;

/// Why an event has no data that filters could look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoData {
    /// There is none.
    #[error("the event has no data")]
    Absent,
    /// The content type is not that of JSON.
    #[error("the content type of the data is not JSON")]
    NotDeclared,
    /// The bytes are not UTF-8, as JSON must be.
    #[error("the data is not UTF-8 text")]
    NotUtf8,
    /// The text is not JSON, or nested deeper than [`MAX_DATA_DEPTH`]; counted from 1.
    #[error("the data is not JSON that can be read: line {line}, column {column}")]
    Malformed {
        /// The line.
        line: usize,
        /// The column, in bytes.
        column: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(content_type: Option<&str>, data: Option<&[u8]>) -> Event {
        let mut builder = Event::builder("1", "/shop", "t");
        if let Some(content_type) = content_type {
            builder = builder.attribute("datacontenttype", content_type);
        }
        if let Some(data) = data {
            builder = builder.data(data.to_vec());
        }
        builder.build().unwrap()
    }

    fn data_of(content_type: Option<&str>, data: Option<&[u8]>) -> Result<Json, NoData> {
        Candidate::new(&event(content_type, data)).data().cloned()
    }

    #[test]
    fn data_is_json_where_the_content_type_says_so_or_is_silent() {
        let json = Ok(serde_json::json!({"a": 1}));
        assert_eq!(data_of(Some("application/json"), Some(br#"{"a":1}"#)), json);
        assert_eq!(data_of(Some("application/vnd.shop+json; charset=utf-8"), Some(br#"{"a":1}"#)), json);
        assert_eq!(data_of(None, Some(br#"{"a":1}"#)), json);
        assert_eq!(data_of(Some("text/plain"), Some(br#"{"a":1}"#)), Err(NoData::NotDeclared));
        assert_eq!(data_of(Some("application/json"), None), Err(NoData::Absent));
        assert_eq!(data_of(None, Some(b"\xff")), Err(NoData::NotUtf8));
    }

    #[test]
    fn what_is_not_json_is_told_with_its_place() {
        let malformed = |line, column| Err(NoData::Malformed { line, column });
        assert_eq!(data_of(None, Some(b"{\n\"a\": }")), malformed(2, 6));
        assert_eq!(data_of(None, Some(b"")), malformed(1, 0));
    }

    #[test]
    fn data_is_bounded_in_depth() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
        assert!(data_of(None, Some(&nested(MAX_DATA_DEPTH))).is_ok());
        let deeper = data_of(None, Some(&nested(MAX_DATA_DEPTH + 1)));
        assert!(matches!(deeper, Err(NoData::Malformed { .. })), "{deeper:?}");
    }

    #[test]
    fn steps_end_and_begin_anew() {
        let event = event(None, None);
        let candidate = Candidate::new(&event);
        assert_eq!(candidate.spend(MAX_STEPS), Ok(()));
        assert_eq!(candidate.spend(1), Err(BudgetSpent));
        candidate.begin();
        assert_eq!(candidate.spend_on_text(BYTES_PER_STEP * 10), Ok(()));
        assert_eq!(candidate.spend(MAX_STEPS - 9), Err(BudgetSpent));
        assert_eq!(candidate.spend(1), Err(BudgetSpent), "what could not be paid leaves nothing");
    }
}
