//! An event on its way through a chain of transformations.

use bytes::Bytes;
use smallvec::SmallVec;

use super::json::{Builder, Json, Query, Text, Wanted};
use super::{Discard, TransformationError};
use crate::codes;
use crate::event::{AttributeValue, DataForm, Event, Value, declares_json, validate};

/// An event that transformations change, one after the other.
///
/// Data that is JSON is parsed when the first step asks for it and written when the chain has ended; data that no
/// step asks to change stays byte for byte. Attributes that are set are checked when the step ends, so that a step may
/// take one away and set it again.
#[derive(Debug, Clone)]
pub struct Document {
    event: Event,
    /// What differs from the event's attributes: the new value, or none where it was taken away.
    changes: SmallVec<[(Text, Option<AttributeValue>); 2]>,
    /// So many of the changes, the first ones, are known to be valid.
    checked: usize,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    /// As the event has it.
    Same,
    /// As the event has it, parsed.
    Parsed(Json),
    /// Changed JSON.
    Json(Json),
    /// Changed JSON that is a part of what was read, byte for byte.
    Part(Bytes),
    /// Changed bytes.
    Bytes(Bytes, DataForm),
    /// Taken away.
    Absent,
}

/// What was known of JSON that was taken out of a document.
#[derive(Debug, Clone, Copy)]
pub struct Taken(Was);

#[derive(Debug, Clone, Copy)]
enum Was {
    Absent,
    Unchanged,
    Changed,
}

impl Document {
    /// The event, with nothing changed. Costs a reference count.
    pub fn new(event: &Event) -> Self {
        Self { event: event.clone(), changes: SmallVec::new(), checked: 0, data: Data::Same }
    }

    /// The text of an attribute, `specversion` included.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attribute_value(name).map(|value| value.text)
    }

    /// An attribute with its type.
    pub fn attribute_value(&self, name: &str) -> Option<Value<'_>> {
        match self.changes.iter().find(|(changed, _)| **changed == *name) {
            Some((_, value)) => value.as_ref().map(value_of),
            None => self.event.attribute(name),
        }
    }

    /// All attributes but `specversion`: those of the event in their order, then those that were added.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let kept = self.event.attributes().filter_map(|(name, value)| {
            match self.changes.iter().find(|(changed, _)| **changed == *name) {
                Some((_, changed)) => changed.as_ref().map(|value| (name, value_of(value))),
                None => Some((name, value)),
            }
        });
        let added = self.changes.iter().filter_map(|(name, value)| {
            let value = value.as_ref().filter(|_| self.event.attribute(name).is_none())?;
            Some((&**name, value_of(value)))
        });
        kept.chain(added)
    }

    /// Sets an attribute. It is checked when the step ends.
    pub fn set_attribute(&mut self, name: impl Into<Text>, value: impl Into<AttributeValue>) {
        self.change(name.into(), Some(value.into()));
    }

    /// Takes an attribute away, whether or not the event has it. One that every event has must be set again before the
    /// step ends.
    pub fn remove_attribute(&mut self, name: &str) {
        self.change(name.into(), None);
    }

    fn change(&mut self, name: Text, value: Option<AttributeValue>) {
        match self.changes.iter().position(|(changed, _)| *changed == name) {
            Some(at) => {
                self.changes[at].1 = value;
                self.checked = self.checked.min(at);
            }
            None => self.changes.push((name, value)),
        }
    }

    /// Whether there is data.
    pub fn has_data(&self) -> bool {
        match self.data {
            Data::Same => self.event.data_bytes().is_some(),
            Data::Parsed(_) | Data::Json(_) | Data::Part(_) | Data::Bytes(..) => true,
            Data::Absent => false,
        }
    }

    /// The data as JSON; none where the event has no data.
    ///
    /// Data is JSON where the content type says so (`*/json`, `*/*+json`), or where there is no content type.
    ///
    /// # Errors
    /// [`TransformationError`] where the data is not JSON.
    pub fn json(&mut self) -> Result<Option<&Json>, TransformationError> {
        self.parse(|_| true)?;
        Ok(match &self.data {
            Data::Parsed(json) | Data::Json(json) => Some(json),
            Data::Same | Data::Part(_) | Data::Bytes(..) | Data::Absent => None,
        })
    }

    /// The data as JSON as far as it is wanted; nothing where it was parsed before, so that nothing is saved, and where
    /// there is none. It is not kept.
    ///
    /// # Errors
    /// As [`Document::json`].
    pub fn read_wanted(&self, wanted: &Wanted) -> Result<Option<Json>, TransformationError> {
        self.unparsed()?.map(|text| Json::read_wanted(text, wanted)).transpose()
    }

    /// Has a value of another kind built of the data, as far as it is wanted, where it was not parsed before; `begin` is
    /// given the bytes in which the places of texts lie.
    ///
    /// # Errors
    /// As [`Document::json`].
    pub fn build<B: Builder>(
        &self,
        wanted: &Wanted,
        begin: impl FnOnce(Bytes) -> B,
    ) -> Result<Option<(B, B::Value)>, TransformationError> {
        let Some(text) = self.unparsed()? else { return Ok(None) };
        let Some(bytes) = self.bytes() else { return Ok(None) };
        let mut builder = begin(bytes);
        let value = Json::build(text, wanted, &mut builder)?;
        Ok(Some((builder, value)))
    }

    /// Takes the data out as JSON, `null` where there is none, to be changed and [set](Self::set_json), or [put
    /// back](Self::put_back) as it was. The
    /// document has no data meanwhile.
    ///
    /// # Errors
    /// As [`Document::json`]; the document is unchanged then.
    pub fn take_json(&mut self) -> Result<(Json, Taken), TransformationError> {
        self.take_json_where(|_| true)
    }

    /// As [`take_json`](Self::take_json), for whoever leaves alone those members of an object that are not `wanted`: they stay
    /// [unread](Json::Unread) where that saves work, and byte for byte what they were.
    ///
    /// # Errors
    /// As [`Document::json`]; the document is unchanged then.
    pub fn take_json_where(
        &mut self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(Json, Taken), TransformationError> {
        self.parse(wanted)?;
        Ok(match std::mem::replace(&mut self.data, Data::Absent) {
            Data::Parsed(json) => (json, Taken(Was::Unchanged)),
            Data::Json(json) => (json, Taken(Was::Changed)),
            Data::Same | Data::Part(_) | Data::Bytes(..) | Data::Absent => (Json::Null, Taken(Was::Absent)),
        })
    }

    /// Puts back, unchanged, what [`take_json`](Self::take_json) gave: the data stays byte for byte what it was.
    pub fn put_back(&mut self, json: Json, was: Taken) {
        self.data = match was.0 {
            Was::Absent => Data::Absent,
            Was::Unchanged => Data::Parsed(json),
            Was::Changed => Data::Json(json),
        };
    }

    /// The data as the text of JSON, where it was not parsed yet. What it says is not looked at.
    fn unparsed(&self) -> Result<Option<&str>, TransformationError> {
        let bytes = match &self.data {
            Data::Same => match self.event.data_bytes() {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
            Data::Bytes(bytes, _) | Data::Part(bytes) => bytes,
            Data::Parsed(_) | Data::Json(_) | Data::Absent => return Ok(None),
        };
        if let Some(content_type) = self.attribute("datacontenttype").filter(|given| !declares_json(given)) {
            return Err(TransformationError::new(format!(
                "the data is `{content_type}` and not JSON: use this step for events with JSON data only"
            )));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| TransformationError::new("the data is not JSON: it is not UTF-8"))?;
        Ok(Some(text))
    }

    /// Parts of the data, byte for byte, as a query finds them in the text; see [`Query::parts`]. None where the data was
    /// parsed before, is absent or is not JSON, or where the query needs a tree.
    ///
    /// # Errors
    /// As [`Document::json`].
    pub fn parts(&self, query: &Query) -> Result<Option<Vec<Bytes>>, TransformationError> {
        let Some(text) = self.unparsed()? else { return Ok(None) };
        let Some(ranges) = query.parts(text) else { return Ok(None) };
        let whole = match &self.data {
            Data::Bytes(bytes, _) | Data::Part(bytes) => Some(bytes.clone()),
            _ => self.event.data(),
        };
        Ok(whole.map(|whole| ranges.into_iter().map(|range| whole.slice(range)).collect()))
    }

    /// Replaces the data by one of its [parts](Self::parts).
    pub fn set_part(&mut self, part: Bytes) {
        self.data = Data::Part(part);
    }

    fn parse(&mut self, wanted: impl Fn(&str) -> bool) -> Result<(), TransformationError> {
        if let Data::Parsed(json) | Data::Json(json) = &mut self.data {
            json.open_members(wanted);
            return Ok(());
        }
        let Some(text) = self.unparsed()? else { return Ok(()) };
        let json = Json::read_some(text, wanted)
            .map_err(|error| TransformationError::new(format!("the data cannot be read: {error}")))?;
        self.data = match self.data {
            Data::Same => Data::Parsed(json),
            _ => Data::Json(json),
        };
        Ok(())
    }

    /// The data as bytes: as they came where nothing changed them, written where they are changed JSON.
    pub fn bytes(&self) -> Option<Bytes> {
        match &self.data {
            Data::Same | Data::Parsed(_) => self.event.data(),
            Data::Json(json) => Some(self.written(json).into()),
            Data::Bytes(bytes, _) | Data::Part(bytes) => Some(bytes.clone()),
            Data::Absent => None,
        }
    }

    /// Replaces the data by JSON. The content type is for the caller to set where it does not declare JSON; without one
    /// the event gets `application/json` in the end.
    pub fn set_json(&mut self, json: Json) {
        self.data = Data::Json(json);
    }

    /// Replaces the data by bytes. The content type is for the caller to set.
    pub fn set_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.data = Data::Bytes(bytes.into(), DataForm::Raw);
    }

    /// Replaces the data by text. The content type is for the caller to set.
    pub fn set_text(&mut self, text: impl Into<String>) {
        self.data = Data::Bytes(Bytes::from(text.into()), DataForm::Text);
    }

    /// Takes the data away.
    pub fn remove_data(&mut self) {
        self.data = Data::Absent;
    }

    /// Whether anything was changed.
    fn is_changed(&self) -> bool {
        !self.changes.is_empty() || !matches!(self.data, Data::Same | Data::Parsed(_))
    }

    /// Checks the attributes that were changed, at the end of a step.
    pub(super) fn check(&mut self) -> Result<(), TransformationError> {
        for (name, value) in &self.changes[self.checked..] {
            let at = |error: crate::event::InvalidEvent| {
                TransformationError::new(error.detail).coded(error.code).at(format!("attribute {name}"))
            };
            match (&**name, value) {
                ("specversion", value) => {
                    let same = value
                        .as_ref()
                        .is_some_and(|value| value.text() == self.event.spec_version().as_str());
                    if !same {
                        let reason = "the version of an event stays what it is: leave `specversion` alone";
                        return Err(TransformationError::new(reason).at("attribute specversion"));
                    }
                }
                ("id" | "source" | "type", None) => {
                    let reason = format!("every event has `{name}`: set it in the step that takes it away");
                    let error = TransformationError::new(reason).coded(codes::ATTRIBUTE_MISSING);
                    return Err(error.at(format!("attribute {name}")));
                }
                (_, None) => {}
                (name, Some(value)) => {
                    validate::name(name).map_err(at)?;
                    let version = self.event.spec_version();
                    validate::attribute(version, name, value.text(), value.attribute_type()).map_err(at)?;
                }
            }
        }
        self.checked = self.changes.len();
        Ok(())
    }

    /// The event that the document has become.
    ///
    /// # Errors
    /// [`TransformationError`] where the result breaks a rule of the norm.
    pub fn to_event(&self) -> Result<Event, TransformationError> {
        if !self.is_changed() {
            return Ok(self.event.clone());
        }
        self.packed().map_err(|error| {
            let told = TransformationError::new(error.detail).coded(error.code);
            match error.attribute {
                Some(name) => told.at(format!("attribute {name}")),
                None => told,
            }
        })
    }

    /// As [`to_event`](Self::to_event).
    ///
    /// # Errors
    /// As [`to_event`](Self::to_event).
    pub fn into_event(self) -> Result<Event, TransformationError> {
        self.to_event()
    }

    fn packed(&self) -> Result<Event, crate::event::InvalidEvent> {
        let changes: SmallVec<[_; 8]> = self
            .changes
            .iter()
            .map(|(name, value)| {
                (&**name, value.as_ref().map(|value| (value.text(), value.attribute_type())))
            })
            .collect();
        let text;
        let data = match &self.data {
            // Without its content type it is bytes and nothing more.
            Data::Same | Data::Parsed(_) if changes.contains(&("datacontenttype", None)) => {
                self.event.data_bytes().map(|bytes| (bytes, DataForm::Raw))
            }
            Data::Same | Data::Parsed(_) => {
                self.event.data_bytes().map(|bytes| (bytes, self.event.data_form()))
            }
            Data::Json(json) => {
                text = self.written(json);
                Some((&*text, DataForm::Json))
            }
            Data::Part(bytes) => Some((&**bytes, DataForm::Json)),
            Data::Bytes(bytes, form) => Some((&**bytes, *form)),
            Data::Absent => None,
        };
        self.event.changed(&changes, self.checked, data)
    }

    fn written(&self, json: &Json) -> Vec<u8> {
        // Most changes add little; of large data a small part may be left.
        let mut text = Vec::with_capacity((self.event.size() + 256).min(4_096));
        json.write(&mut text);
        text
    }
}

fn value_of(value: &AttributeValue) -> Value<'_> {
    Value { text: value.text(), attribute_type: value.attribute_type() }
}

/// What a transformation makes of a document.
#[derive(Debug)]
pub enum Outputs {
    /// One document, which keeps its id unless the transformation sets another.
    One(Box<Document>),
    /// Each of a number of documents, one included: number n, from 0, gets the id `<parent>-<n>` unless the
    /// transformation sets another than the parent's.
    Several(Vec<Document>),
    /// None, and why.
    Nothing(Discard),
}

impl From<Document> for Outputs {
    fn from(document: Document) -> Self {
        Self::One(Box::new(document))
    }
}
