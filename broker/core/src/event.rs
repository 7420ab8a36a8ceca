//! CloudEvents: the envelope, its rules, and the codecs of its bindings.
//!
//! An [`Event`] is immutable and lies packed in one buffer, which is also what the log stores. Data passes byte for
//! byte, attributes keep their text, and an event of version 0.3 stays one.

mod builder;
pub(crate) mod draft;
mod error;
pub mod header_text;
pub mod http;
mod instant;
pub mod json;
pub mod kafka;
mod media_type;
pub mod nats;
mod packed;
mod sdk;
mod unfilled;
pub(crate) mod validate;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

pub use self::builder::{AttributeValue, EventBuilder};
use self::draft::{Draft, IMPLIED_CONTENT_TYPE, settled_form};
pub use self::error::{CorruptEvent, DecodeError, InvalidEvent};
pub use self::instant::instant;
pub use self::media_type::declares_json;
use self::packed::View;
pub use self::unfilled::{Filled, Unfilled};
pub use self::validate::MAX_NAME_BYTES;

/// The most attributes that an event may have.
pub const MAX_ATTRIBUTES: usize = 512;

/// The most bytes that the attributes of an event may take in its packed form.
pub const MAX_ATTRIBUTE_BYTES: usize = 16 * 1024 * 1024;

/// The version of the norm that an event follows. The one is never turned into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecVersion {
    /// 1.0
    V1,
    /// 0.3
    V03,
}

impl SpecVersion {
    /// The value of `specversion`: `1.0` or `0.3`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V03 => "0.3",
        }
    }
}

/// The type under which a value came (section "Type System" of the norm). The attributes of the norm have their own
/// type in every binding; extensions have that of the wire, where it has types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttributeType {
    /// `true` or `false`
    Boolean,
    /// 32 bits, signed
    Integer,
    /// Unicode text
    String,
    /// base64
    Binary,
    /// An absolute URI
    Uri,
    /// A URI or a relative reference
    UriReference,
    /// RFC 3339
    Timestamp,
    /// Text whose type the binding does not tell, such as an HTTP header
    Untyped,
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// The canonical string form, or the original text where several texts say the same (`time`, `source`).
    pub text: &'a str,
    /// The type under which it came.
    pub attribute_type: AttributeType,
}

/// What is known about the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataForm {
    /// Bytes as they came; whether they are what the content type says is not known.
    Raw,
    /// JSON text that was parsed and is valid; the content type declares JSON.
    Json,
    /// Text that came as a JSON string; the content type does not declare JSON.
    Text,
}

/// A CloudEvent, valid by the norm, immutable. A clone is one reference count.
///
/// Two events are equal when they have the same version, the same attributes with the same text, in any order, and
/// the same data, byte for byte. The type of an attribute does not count: the norm lets every binding present it as
/// text.
#[derive(Clone)]
pub struct Event {
    packed: Bytes,
}

impl Event {
    /// Starts an event with the attributes that every event has.
    pub fn builder(
        id: impl Into<String>,
        source: impl Into<String>,
        event_type: impl Into<String>,
    ) -> EventBuilder {
        EventBuilder::new(id.into(), source.into(), event_type.into())
    }

    /// Starts an event that says what this one says.
    pub fn to_builder(&self) -> EventBuilder {
        EventBuilder::of(self)
    }

    /// The version of the norm.
    pub fn spec_version(&self) -> SpecVersion {
        self.view().version()
    }

    /// Identifies the event within its source.
    pub fn id(&self) -> &str {
        self.view().first(0)
    }

    /// A URI-reference, as it was written.
    pub fn source(&self) -> &str {
        self.view().first(1)
    }

    /// Bytes that two events have in common exactly where their `id` and `source` are the same.
    pub(crate) fn identity(&self) -> &[u8] {
        self.view().identity()
    }

    /// The `type` of the event.
    pub fn event_type(&self) -> &str {
        self.view().first(2)
    }

    /// `subject`
    pub fn subject(&self) -> Option<&str> {
        self.text("subject")
    }

    /// `time`, as it was written: RFC 3339 with any offset and precision.
    pub fn time(&self) -> Option<&str> {
        self.text("time")
    }

    /// `datacontenttype`, as it was written.
    pub fn data_content_type(&self) -> Option<&str> {
        self.text("datacontenttype")
    }

    /// `dataschema`, or `schemaurl` of an event of version 0.3.
    pub fn data_schema(&self) -> Option<&str> {
        match self.spec_version() {
            SpecVersion::V1 => self.text("dataschema"),
            SpecVersion::V03 => self.text("schemaurl"),
        }
    }

    /// Any attribute by its name, `specversion` included.
    pub fn attribute(&self, name: &str) -> Option<Value<'_>> {
        if name == "specversion" {
            let text = self.spec_version().as_str();
            return Some(Value { text, attribute_type: AttributeType::String });
        }
        self.view().entries().find(|entry| entry.name == name.as_bytes()).map(packed::Entry::value)
    }

    /// All attributes but `specversion`: `id`, `source`, `type`, then the others in the order in which they came.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.view().entries().map(|entry| (entry.name(), entry.value()))
    }

    /// The names and texts of [`Event::attributes`], as bytes that are not checked again.
    pub(crate) fn attribute_bytes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.view().entries().map(|entry| (entry.name, entry.text))
    }

    /// How many attributes there are, `specversion` apart.
    pub fn attribute_count(&self) -> usize {
        self.view().count()
    }

    /// The data, sharing the buffer of the event. No data, empty data and the JSON `null` are three things.
    pub fn data(&self) -> Option<Bytes> {
        let view = self.view();
        view.form().map(|_| self.packed.slice(view.data_offset()..))
    }

    /// The data, borrowed.
    pub fn data_bytes(&self) -> Option<&[u8]> {
        let view = self.view();
        view.form().map(|_| &self.packed[view.data_offset()..])
    }

    /// What is known about the data; [`DataForm::Raw`] where there is none.
    pub fn data_form(&self) -> DataForm {
        self.view().form().unwrap_or(DataForm::Raw)
    }

    /// Whether the content type declares JSON (section 3.1 of the JSON format).
    pub fn declares_json(&self) -> bool {
        self.data_content_type().is_some_and(declares_json)
    }

    /// The bytes that the event takes, in memory and in the log: what budgets count.
    pub fn size(&self) -> usize {
        self.packed.len()
    }

    /// The same event with one attribute replaced or added.
    ///
    /// # Errors
    /// [`InvalidEvent`] if the name or the value breaks a rule of the norm.
    pub fn with_attribute(&self, name: &str, value: impl Into<AttributeValue>) -> Result<Self, InvalidEvent> {
        let value = value.into();
        let mut draft = Draft::of(self)?;
        draft.set(name, Cow::Borrowed(value.text()), value.attribute_type())?;
        draft.finish()
    }

    /// The same event without an attribute, whether or not it has it. Without `datacontenttype` its data is bytes.
    ///
    /// # Errors
    /// [`InvalidEvent`] for an attribute that every event has.
    pub fn without_attribute(&self, name: &str) -> Result<Self, InvalidEvent> {
        let mut draft = Draft::of(self)?;
        draft.remove(name);
        draft.finish()
    }

    /// An event that is like this one but for some attributes and its data: a change sets an attribute, or takes it away where
    /// it has no value. Data is bytes as they come. What is not changed is not checked again.
    ///
    /// # Errors
    /// [`InvalidEvent`] for the first change that breaks a rule of the norm, or whose name was changed before.
    pub fn like<'d>(
        &self,
        changes: &[(&str, Option<(&str, AttributeType)>)],
        data: Option<&'d [u8]>,
    ) -> Result<Unfilled<'d>, InvalidEvent> {
        let twice = |number: usize| changes[..number].iter().any(|(name, _)| *name == changes[number].0);
        if let Some(number) = (1..changes.len()).find(|number| twice(*number)) {
            return Err(InvalidEvent::repeated(changes[number].0));
        }
        self.unfilled(changes, 0, data.map(|data| (data, DataForm::Raw)))
    }

    /// The same event with attributes and data changed, each name once. Only the changed are checked, and of these not the
    /// first ones, `known` by number to be valid. The content type and the form of the data are kept true to each other, as
    /// in every event. Who takes `id`, `source` or `type` away sets it again.
    pub(crate) fn changed(
        &self,
        changes: &[(&str, Option<(&str, AttributeType)>)],
        known: usize,
        data: Option<(&[u8], DataForm)>,
    ) -> Result<Self, InvalidEvent> {
        self.unfilled(changes, known, data).map(Self::from)
    }

    fn unfilled<'d>(
        &self,
        changes: &[(&str, Option<(&str, AttributeType)>)],
        known: usize,
        data: Option<(&'d [u8], DataForm)>,
    ) -> Result<Unfilled<'d>, InvalidEvent> {
        let version = self.spec_version();
        let mut checked: SmallVec<[(&str, Option<packed::Checked<'_>>); 8]> = SmallVec::new();
        for (number, &(name, value)) in changes.iter().enumerate() {
            if name == "specversion" {
                continue;
            }
            let value = match value {
                Some((text, given)) if number < known => {
                    let attribute_type = validate::core_type(version, name).unwrap_or(given);
                    Some(packed::Checked { name, text, attribute_type })
                }
                None if matches!(name, "id" | "source" | "type") => return Err(InvalidEvent::missing(name)),
                None => None,
                Some((text, given)) => {
                    validate::name(name)?;
                    let attribute_type = validate::attribute(version, name, text, given)?;
                    Some(packed::Checked { name, text, attribute_type })
                }
            };
            checked.push((name, value));
        }
        let content_type = match changes.iter().find(|(name, _)| *name == "datacontenttype") {
            Some((_, value)) => value.map(|(text, _)| text),
            None => self.data_content_type(),
        };
        let (form, implied) = match data {
            Some((_, form)) => settled_form(form, content_type),
            None => (DataForm::Raw, false),
        };
        if implied {
            let attribute_type = AttributeType::String;
            let name = "datacontenttype";
            checked.retain(|(known, _)| *known != name);
            checked.push((name, Some(packed::Checked { name, text: IMPLIED_CONTENT_TYPE, attribute_type })));
        }
        let form = data.is_some().then_some(form);
        let data = data.map_or(&[][..], |(bytes, _)| bytes);
        let packed = packed::repack(self.view(), &checked, form, data.len())?;
        Ok(Unfilled { packed, data })
    }

    /// The packed form: what the log stores.
    pub fn packed(&self) -> &Bytes {
        &self.packed
    }

    /// Takes a packed form back, without a copy.
    ///
    /// # Errors
    /// [`CorruptEvent`] for bytes that are not one packed event. Structure is checked, so that no later read fails;
    /// the rules of the norm are not, since an event was checked before it was packed.
    pub fn from_packed(packed: Bytes) -> Result<Self, CorruptEvent> {
        packed::check(&packed)?;
        Ok(Self { packed })
    }

    fn view(&self) -> View<'_> {
        View::new(&self.packed)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.view().entries().find(|entry| entry.name == name.as_bytes()).map(packed::Entry::text)
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (self.view(), other.view());
        // Names are unique within an event, so equal counts and one inclusion are equality.
        one.version() == two.version()
            && one.count() == two.count()
            && self.data_bytes() == other.data_bytes()
            && one.entries().all(|entry| {
                two.entries().any(|candidate| candidate.name == entry.name && candidate.text == entry.text)
            })
    }
}

impl Eq for Event {}

impl fmt::Debug for Event {
    /// Attributes, and of the data only how long it is (section "Privacy and Security" of the norm).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Event");
        debug.field("specversion", &self.spec_version().as_str());
        for (name, value) in self.attributes() {
            debug.field(name, &value.text);
        }
        match self.data_bytes() {
            Some(data) => debug.field("data", &format_args!("{} bytes", data.len())),
            None => debug.field("data", &format_args!("none")),
        };
        debug.finish()
    }
}

#[cfg(test)]
mod suite;
