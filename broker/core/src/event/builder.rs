//! Building an event in code.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::draft::Draft;
use super::error::InvalidEvent;
use super::{AttributeType, DataForm, Event, SpecVersion, Value};
use crate::codes;

/// The value of an attribute with its type, as text in canonical form. Texts are checked when the event is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeValue {
    text: String,
    attribute_type: AttributeType,
}

impl AttributeValue {
    /// A text of a type that is decided at run time.
    pub fn new(text: impl Into<String>, attribute_type: AttributeType) -> Self {
        Self { text: text.into(), attribute_type }
    }

    /// The text, in canonical form if the value is valid.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The type.
    pub fn attribute_type(&self) -> AttributeType {
        self.attribute_type
    }

    /// Bytes, which are written as base64.
    pub fn binary(bytes: &[u8]) -> Self {
        Self::new(STANDARD.encode(bytes), AttributeType::Binary)
    }

    /// An RFC 3339 timestamp; its text is kept as it is.
    pub fn timestamp(text: impl Into<String>) -> Self {
        Self::new(text, AttributeType::Timestamp)
    }

    /// An absolute URI.
    pub fn uri(text: impl Into<String>) -> Self {
        Self::new(text, AttributeType::Uri)
    }

    /// A URI-reference.
    pub fn uri_reference(text: impl Into<String>) -> Self {
        Self::new(text, AttributeType::UriReference)
    }
}

impl From<bool> for AttributeValue {
    fn from(value: bool) -> Self {
        Self::new(value.to_string(), AttributeType::Boolean)
    }
}

impl From<i32> for AttributeValue {
    fn from(value: i32) -> Self {
        Self::new(value.to_string(), AttributeType::Integer)
    }
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::new(text, AttributeType::String)
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::new(text, AttributeType::String)
    }
}

impl From<Value<'_>> for AttributeValue {
    fn from(value: Value<'_>) -> Self {
        Self::new(value.text, value.attribute_type)
    }
}

/// Collects what an event says; [`build`](Self::build) checks it all. Setting an attribute again replaces it.
#[derive(Debug, Clone)]
#[must_use]
pub struct EventBuilder {
    attributes: Vec<(String, AttributeValue)>,
    data_schema: Option<String>,
    data: Option<(Bytes, DataForm)>,
}

impl EventBuilder {
    pub(super) fn new(id: String, source: String, event_type: String) -> Self {
        Self { attributes: Vec::with_capacity(8), data_schema: None, data: None }
            .spec_version(SpecVersion::V1)
            .attribute("id", id)
            .attribute("source", source)
            .attribute("type", event_type)
    }

    pub(super) fn of(event: &Event) -> Self {
        let version = ("specversion".to_owned(), event.spec_version().as_str().into());
        let attributes = event.attributes().map(|(name, value)| (name.to_owned(), value.into()));
        Self {
            attributes: std::iter::once(version).chain(attributes).collect(),
            data_schema: None,
            data: event.data().map(|data| (data, event.data_form())),
        }
    }

    /// The version of the norm; 1.0 where nothing is said.
    pub fn spec_version(self, version: SpecVersion) -> Self {
        self.attribute("specversion", version.as_str())
    }

    /// Any attribute by its name, those of the norm included.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.attributes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.attributes.push((name, value)),
        }
        self
    }

    /// `subject`, not empty.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.attribute("subject", subject.into())
    }

    /// `time` by RFC 3339, with seconds and offset; the text is kept as it is.
    pub fn time(self, time: impl Into<String>) -> Self {
        self.attribute("time", time.into())
    }

    /// `datacontenttype`, a media type.
    pub fn data_content_type(self, content_type: impl Into<String>) -> Self {
        self.attribute("datacontenttype", content_type.into())
    }

    /// `dataschema`, an absolute URI; `schemaurl` for an event of version 0.3.
    pub fn data_schema(mut self, schema: impl Into<String>) -> Self {
        self.data_schema = Some(schema.into());
        self
    }

    /// Data as bytes, whatever they are.
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = Some((data.into(), DataForm::Raw));
        self
    }

    /// Data as JSON text, which is kept byte for byte. Without a content type it gets `application/json`.
    pub fn json_data(mut self, json: impl Into<Bytes>) -> Self {
        self.data = Some((json.into(), DataForm::Json));
        self
    }

    /// Data as text. Give it a content type, such as `text/plain`: text without one is kept as bytes.
    pub fn text_data(mut self, text: impl Into<String>) -> Self {
        self.data = Some((Bytes::from(text.into()), DataForm::Text));
        self
    }

    /// Checks the event by the rules of the norm and packs it.
    ///
    /// # Errors
    /// [`InvalidEvent`] names the first attribute that breaks a rule, or data that is not the JSON it is said to be.
    pub fn build(&self) -> Result<Event, InvalidEvent> {
        let mut draft = Draft::default();
        for (name, value) in &self.attributes {
            draft.add(name, Cow::Borrowed(&value.text), value.attribute_type)?;
        }
        if let Some(schema) = &self.data_schema {
            let name = match draft.version() {
                Some(SpecVersion::V03) => "schemaurl",
                _ => "dataschema",
            };
            draft.set(name, Cow::Borrowed(schema), AttributeType::String)?;
        }
        if let Some((bytes, form)) = &self.data {
            if *form == DataForm::Json && serde_json::from_slice::<&RawValue>(bytes).is_err() {
                let detail = "the data is not valid JSON: give it as bytes, or mend it";
                return Err(InvalidEvent::new(codes::DATA_INVALID, detail));
            }
            draft.set_data(Cow::Borrowed(bytes), *form);
        }
        draft.finish()
    }
}
