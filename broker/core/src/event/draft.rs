//! An event in the making: what decoders and the builder fill in, borrowed where it can be, before it is checked
//! once and packed.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::error::InvalidEvent;
use super::media_type::declares_json;
use super::{AttributeType, DataForm, Event, MAX_ATTRIBUTES, SpecVersion, packed, validate};

/// One attribute, its name already checked.
#[derive(Debug, Clone)]
pub(crate) struct Attribute<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: Cow<'a, str>,
    pub(crate) attribute_type: AttributeType,
}

/// As many attributes as most events have beside the required four.
type Others<'a> = SmallVec<[Attribute<'a>; 8]>;

/// The content type that the JSON format implies for `data` (C11).
pub(super) const IMPLIED_CONTENT_TYPE: &str = "application/json";

/// Data with what is known about it.
pub(crate) type DraftData<'a> = (Cow<'a, [u8]>, DataForm);

#[derive(Debug, Default)]
pub(crate) struct Draft<'a> {
    version: Option<SpecVersion>,
    id: Option<Attribute<'a>>,
    source: Option<Attribute<'a>>,
    event_type: Option<Attribute<'a>>,
    others: Others<'a>,
    data: Option<DraftData<'a>>,
}

impl<'a> Draft<'a> {
    /// A draft that says what `event` says.
    pub(crate) fn of(event: &'a Event) -> Result<Self, InvalidEvent> {
        let mut draft = Self { version: Some(event.spec_version()), ..Self::default() };
        for (name, value) in event.attributes() {
            draft.add(name, Cow::Borrowed(value.text), value.attribute_type)?;
        }
        draft.data = event.data_bytes().map(|bytes| (Cow::Borrowed(bytes), event.data_form()));
        Ok(draft)
    }

    /// Adds an attribute; its name is checked here, its text by [`finish`](Self::finish). Refuses a second one of
    /// that name (C4).
    pub(crate) fn add(
        &mut self,
        name: &'a str,
        text: Cow<'a, str>,
        attribute_type: AttributeType,
    ) -> Result<(), InvalidEvent> {
        let attribute = Attribute { name, text, attribute_type };
        let slot = match name {
            "specversion" => {
                let version = validate::spec_version(&attribute.text)?;
                return if self.version.replace(version).is_some() {
                    Err(InvalidEvent::repeated(name))
                } else {
                    Ok(())
                };
            }
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            _ => {
                validate::name(name)?;
                if self.others.iter().any(|other| other.name == name) {
                    return Err(InvalidEvent::repeated(name));
                }
                if self.others.len() >= MAX_ATTRIBUTES {
                    return Err(packed::too_large());
                }
                self.others.push(attribute);
                return Ok(());
            }
        };
        if slot.replace(attribute).is_some() { Err(InvalidEvent::repeated(name)) } else { Ok(()) }
    }

    /// Takes an attribute out. Without its content type the data is bytes and nothing more (J7).
    pub(crate) fn remove(&mut self, name: &str) {
        match name {
            "specversion" => self.version = None,
            "id" => self.id = None,
            "source" => self.source = None,
            "type" => self.event_type = None,
            _ => self.others.retain(|other| other.name != name),
        }
        if name == "datacontenttype" {
            self.set_form(DataForm::Raw);
        }
    }

    /// Replaces the text of an attribute in its place, or adds it at the end.
    pub(crate) fn set(
        &mut self,
        name: &'a str,
        text: Cow<'a, str>,
        attribute_type: AttributeType,
    ) -> Result<(), InvalidEvent> {
        match self.others.iter_mut().find(|other| other.name == name) {
            Some(other) => *other = Attribute { name, text, attribute_type },
            None => {
                match name {
                    "specversion" => self.version = None,
                    "id" => self.id = None,
                    "source" => self.source = None,
                    "type" => self.event_type = None,
                    _ => {}
                }
                self.add(name, text, attribute_type)?;
            }
        }
        Ok(())
    }

    pub(crate) fn set_data(&mut self, bytes: Cow<'a, [u8]>, form: DataForm) {
        self.data = Some((bytes, form));
    }

    /// The version, as far as it is known.
    pub(crate) fn version(&self) -> Option<SpecVersion> {
        self.version
    }

    /// The text of an attribute other than the required four.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.others.iter().find(|other| other.name == name).map(|other| &*other.text)
    }

    /// Checks the whole event and packs it.
    pub(crate) fn finish(mut self) -> Result<Event, InvalidEvent> {
        self.settle_data_form();
        let version = self.version.ok_or_else(|| InvalidEvent::missing("specversion"))?;
        let mut first = [
            self.id.ok_or_else(|| InvalidEvent::missing("id"))?,
            self.source.ok_or_else(|| InvalidEvent::missing("source"))?,
            self.event_type.ok_or_else(|| InvalidEvent::missing("type"))?,
        ];
        for attribute in first.iter_mut().chain(&mut self.others) {
            attribute.attribute_type =
                validate::attribute(version, attribute.name, &attribute.text, attribute.attribute_type)?;
        }
        let data = self.data.as_ref().map(|(bytes, form)| (&**bytes, *form));
        packed::pack(version, first.iter().chain(&self.others), data).map(|packed| Event { packed })
    }

    /// Keeps the form true to the content type, the implied one written out if need be.
    fn settle_data_form(&mut self) {
        let Some((_, form)) = self.data else { return };
        let (settled, implied) = settled_form(form, self.text("datacontenttype"));
        self.set_form(settled);
        if implied {
            self.others.push(Attribute {
                name: "datacontenttype",
                text: Cow::Borrowed(IMPLIED_CONTENT_TYPE),
                attribute_type: AttributeType::String,
            });
        }
    }

    fn set_form(&mut self, new: DataForm) {
        if let Some((_, form)) = &mut self.data {
            *form = new;
        }
    }
}

/// The form of data under a content type, and whether the implied one is to be written: JSON data has a content type that
/// declares JSON; text has one that does not. Everything else is bytes.
pub(super) fn settled_form(form: DataForm, content_type: Option<&str>) -> (DataForm, bool) {
    match (form, content_type) {
        (DataForm::Json, None) => (DataForm::Json, true),
        (DataForm::Json, Some(content_type)) if !declares_json(content_type) => (DataForm::Raw, false),
        (DataForm::Text, None) => (DataForm::Raw, false),
        (DataForm::Text, Some(content_type)) if declares_json(content_type) => (DataForm::Raw, false),
        _ => (form, false),
    }
}
