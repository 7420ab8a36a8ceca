//! The packed form: one buffer that is the event in memory, in the log and between processes.
//!
//! ```text
//! format u8 · version u8 · data form u8 · attributes u16 · block length u32 | attribute block | data to the end
//! attribute: name length u8 · type u8 · text length u32 | name | text
//! ```
//!
//! Numbers are little-endian. `id`, `source` and `type` stand first, in this order; the others as they came.
//! `specversion` is in the header alone.

use bytes::Bytes;
use smallvec::SmallVec;

use super::draft::Attribute;
use super::error::{CorruptEvent, InvalidEvent};
use super::{AttributeType, DataForm, MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES, SpecVersion, Value, validate};
use crate::codes;

/// The number of this layout. A change of the layout takes the next one.
const FORMAT: u8 = 1;
const HEADER: usize = 9;
const ATTRIBUTE_HEAD: usize = 6;
const FIRST: [&str; 3] = ["id", "source", "type"];

// The numbers of the values are their places here, which a test keeps equal to their discriminants.
const VERSIONS: [SpecVersion; 2] = [SpecVersion::V1, SpecVersion::V03];
const FORMS: [Option<DataForm>; 4] = [None, Some(DataForm::Raw), Some(DataForm::Json), Some(DataForm::Text)];
const TYPES: [AttributeType; 8] = [
    AttributeType::Boolean,
    AttributeType::Integer,
    AttributeType::String,
    AttributeType::Binary,
    AttributeType::Uri,
    AttributeType::UriReference,
    AttributeType::Timestamp,
    AttributeType::Untyped,
];

fn form_number(form: Option<DataForm>) -> u8 {
    form.map_or(0, |form| form as u8 + 1)
}

/// Writes a valid event into one buffer of exactly its size. The first three attributes are id, source and type.
pub(super) fn pack<'a, I>(
    version: SpecVersion,
    attributes: I,
    data: Option<(&[u8], DataForm)>,
) -> Result<Bytes, InvalidEvent>
where
    I: Iterator<Item = &'a Attribute<'a>> + Clone,
{
    let mut count: u16 = 0;
    let mut block: usize = 0;
    for attribute in attributes.clone() {
        count = count.saturating_add(1);
        block =
            block.saturating_add(ATTRIBUTE_HEAD + attribute.name.len()).saturating_add(attribute.text.len());
    }
    if usize::from(count) > MAX_ATTRIBUTES || block > MAX_ATTRIBUTE_BYTES {
        return Err(too_large());
    }
    let block_length = u32::try_from(block).map_err(|_| too_large())?;
    let (bytes, form) = data.map_or((&[][..], None), |(bytes, form)| (bytes, Some(form)));

    let mut packed = Vec::with_capacity(HEADER + block + bytes.len());
    packed.extend_from_slice(&[FORMAT, version as u8, form_number(form)]);
    packed.extend_from_slice(&count.to_le_bytes());
    packed.extend_from_slice(&block_length.to_le_bytes());
    for attribute in attributes {
        packed.push(u8::try_from(attribute.name.len()).expect("a name has at most 255 bytes"));
        packed.push(attribute.attribute_type as u8);
        let length = u32::try_from(attribute.text.len()).expect("a text is shorter than its block");
        packed.extend_from_slice(&length.to_le_bytes());
        packed.extend_from_slice(attribute.name.as_bytes());
        packed.extend_from_slice(attribute.text.as_bytes());
    }
    packed.extend_from_slice(bytes);
    Ok(Bytes::from(packed))
}

/// An attribute that is to stand in an event, checked.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) attribute_type: AttributeType,
}

/// A part of the attribute block of an event that is packed anew.
enum Piece<'a> {
    /// Attributes that stay, as they stand.
    Kept(&'a [u8]),
    Changed(Checked<'a>),
}

/// An event with other attributes or data, of one that was valid: what is kept is copied and not checked again. A change
/// without a value takes the attribute away; `id`, `source` and `type` stay. No name is changed twice. The data, of this form
/// and length, is the caller's to append; without a form there is none.
pub(super) fn repack(
    view: View<'_>,
    changes: &[(&str, Option<Checked<'_>>)],
    form: Option<DataForm>,
    data_length: usize,
) -> Result<Vec<u8>, InvalidEvent> {
    let (block, mut count) = (view.entries().block, view.count());
    let mut pieces: SmallVec<[Piece<'_>; 12]> = SmallVec::new();
    let mut placed: SmallVec<[bool; 16]> = SmallVec::from_elem(false, changes.len());
    let (mut entries, mut kept, mut place) = (view.entries(), 0, 0);
    while let Some(entry) = entries.next() {
        let after = block.len() - entries.block.len();
        if let Some(at) = changes.iter().position(|(name, _)| name.as_bytes() == entry.name) {
            placed[at] = true;
            pieces.push(Piece::Kept(&block[kept..place]));
            match changes[at].1 {
                Some(changed) => pieces.push(Piece::Changed(changed)),
                None => count -= 1,
            }
            kept = after;
        }
        place = after;
    }
    pieces.push(Piece::Kept(&block[kept..]));
    let added =
        changes.iter().zip(&placed).filter(|(_, placed)| !**placed).filter_map(|(change, _)| change.1);
    for added in added {
        pieces.push(Piece::Changed(added));
        count += 1;
    }
    let size = |piece: &Piece<'_>| match piece {
        Piece::Kept(bytes) => bytes.len(),
        Piece::Changed(Checked { name, text, .. }) => ATTRIBUTE_HEAD + name.len() + text.len(),
    };
    let block: usize = pieces.iter().map(size).sum();
    if count > MAX_ATTRIBUTES || block > MAX_ATTRIBUTE_BYTES {
        return Err(too_large());
    }
    let count = u16::try_from(count).map_err(|_| too_large())?;
    let block_length = u32::try_from(block).map_err(|_| too_large())?;
    let mut packed = Vec::with_capacity(HEADER + block + data_length);
    packed.extend_from_slice(&[FORMAT, view.version() as u8, form_number(form)]);
    packed.extend_from_slice(&count.to_le_bytes());
    packed.extend_from_slice(&block_length.to_le_bytes());
    for piece in &pieces {
        match piece {
            Piece::Kept(bytes) => packed.extend_from_slice(bytes),
            Piece::Changed(Checked { name, text, attribute_type }) => {
                packed.push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
                packed.push(*attribute_type as u8);
                let length = u32::try_from(text.len()).expect("a text is shorter than its block");
                packed.extend_from_slice(&length.to_le_bytes());
                packed.extend_from_slice(name.as_bytes());
                packed.extend_from_slice(text.as_bytes());
            }
        }
    }
    Ok(packed)
}

/// The refusal of an event whose attributes exceed [`MAX_ATTRIBUTES`] or [`MAX_ATTRIBUTE_BYTES`].
pub(super) fn too_large() -> InvalidEvent {
    InvalidEvent::new(
        codes::ATTRIBUTES_TOO_LARGE,
        format!(
            "the attributes are too many or too long: send at most {MAX_ATTRIBUTES} of them and \
             {MAX_ATTRIBUTE_BYTES} bytes, and put the rest into the data"
        ),
    )
}

/// Reads a buffer that [`pack`] wrote or [`check`] accepted.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    packed: &'a [u8],
}

impl<'a> View<'a> {
    pub(super) fn new(packed: &'a [u8]) -> Self {
        Self { packed }
    }

    pub(super) fn version(self) -> SpecVersion {
        VERSIONS[usize::from(self.packed[1])]
    }

    pub(super) fn form(self) -> Option<DataForm> {
        FORMS[usize::from(self.packed[2])]
    }

    pub(super) fn count(self) -> usize {
        usize::from(u16::from_le_bytes([self.packed[3], self.packed[4]]))
    }

    /// Where the data begins, whether or not there is any.
    pub(super) fn data_offset(self) -> usize {
        let [_, _, _, _, _, a, b, c, d, ..] = *self.packed else { return self.packed.len() };
        HEADER.saturating_add(u32::from_le_bytes([a, b, c, d]) as usize)
    }

    pub(super) fn entries(self) -> Entries<'a> {
        Entries { block: &self.packed[HEADER..self.data_offset()] }
    }

    /// The bytes of the first two attributes, which are `id` and `source`.
    pub(super) fn identity(self) -> &'a [u8] {
        let (block, mut entries) = (self.entries().block, self.entries());
        entries.by_ref().take(2).for_each(drop);
        &block[..block.len() - entries.block.len()]
    }

    /// The text of one of the first three attributes.
    pub(super) fn first(self, place: usize) -> &'a str {
        self.entries().nth(place).expect("id, source and type stand first").text()
    }
}

/// One attribute in the packed form.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) text: &'a [u8],
    pub(super) attribute_type: AttributeType,
}

impl<'a> Entry<'a> {
    pub(super) fn name(self) -> &'a str {
        std::str::from_utf8(self.name).expect("names are checked to be ASCII")
    }

    pub(super) fn text(self) -> &'a str {
        std::str::from_utf8(self.text).expect("texts are checked to be UTF-8")
    }

    pub(super) fn value(self) -> Value<'a> {
        Value { text: self.text(), attribute_type: self.attribute_type }
    }
}

/// The attributes, in order. Ends early at bytes that are no attribute, which [`check`] rules out.
#[derive(Clone)]
pub(super) struct Entries<'a> {
    block: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (&[name_length, kind, a, b, c, d], rest) = self.block.split_first_chunk::<ATTRIBUTE_HEAD>()?;
        let (name, rest) = rest.split_at_checked(usize::from(name_length))?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize)?;
        let attribute_type = *TYPES.get(usize::from(kind))?;
        self.block = rest;
        Some(Entry { name, text, attribute_type })
    }
}

/// Checks that every read of the buffer will succeed: lengths, numbers, names and texts. Whether the event keeps
/// the rules of the norm was decided before it was packed, and is not decided again.
pub(super) fn check(packed: &[u8]) -> Result<(), CorruptEvent> {
    let corrupt = |offset, detail| Err(CorruptEvent { offset, detail });
    let Some((&[format, version, form, ..], rest)) = packed.split_first_chunk::<HEADER>() else {
        return corrupt(packed.len(), "it ends within its header");
    };
    if format != FORMAT {
        return corrupt(0, "its format number is unknown");
    }
    if usize::from(version) >= VERSIONS.len() {
        return corrupt(1, "its CloudEvents version is unknown");
    }
    if usize::from(form) >= FORMS.len() {
        return corrupt(2, "its data form is unknown");
    }
    let view = View::new(packed);
    let Some(data) = packed.get(view.data_offset()..) else {
        return corrupt(packed.len(), "it ends within its attributes");
    };
    if view.count() > MAX_ATTRIBUTES || rest.len() - data.len() > MAX_ATTRIBUTE_BYTES {
        return corrupt(3, "it has more attributes than an event may have");
    }
    check_attributes(view)?;
    match view.form() {
        None if !data.is_empty() => {
            corrupt(view.data_offset(), "it has data where its header says that it has none")
        }
        Some(DataForm::Text) if std::str::from_utf8(data).is_err() => {
            corrupt(view.data_offset(), "its text data is not UTF-8")
        }
        _ => Ok(()),
    }
}

fn check_attributes(view: View<'_>) -> Result<(), CorruptEvent> {
    let end = view.data_offset();
    let mut entries = view.entries();
    for place in 0..view.count() {
        let offset = end - entries.block.len();
        let corrupt = |detail| Err(CorruptEvent { offset, detail });
        let Some(entry) = entries.next() else {
            return corrupt("an attribute is cut off or of an unknown type");
        };
        let Ok(name) = std::str::from_utf8(entry.name) else { return corrupt("a name is not ASCII") };
        if validate::name(name).is_err() || name == "specversion" {
            return corrupt("a name is not allowed");
        }
        if FIRST.get(place).is_some_and(|first| *first != name) {
            return corrupt("id, source and type do not stand first");
        }
        if !std::str::from_utf8(entry.text).is_ok_and(validate::is_allowed_text) {
            return corrupt("a text is not UTF-8 or holds characters that are not allowed");
        }
        if view.entries().take(place).any(|earlier| earlier.name == entry.name) {
            return corrupt("an attribute stands twice");
        }
    }
    if view.count() < FIRST.len() || !entries.block.is_empty() {
        return Err(CorruptEvent { offset: 3, detail: "its number of attributes is wrong" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_format_stay() {
        for (number, version) in VERSIONS.into_iter().enumerate() {
            assert_eq!(version as usize, number);
        }
        for (number, form) in FORMS.into_iter().enumerate() {
            assert_eq!(usize::from(form_number(form)), number);
        }
        for (number, attribute_type) in TYPES.into_iter().enumerate() {
            assert_eq!(attribute_type as usize, number);
        }
    }

    /// The layout of format 1, which stored events have: it may be added to under a new number, never changed.
    #[test]
    fn the_layout_stays() {
        let event = super::super::Event::builder("i", "/s", "t")
            .attribute("n", 7)
            .text_data("d")
            .data_content_type("a/b");
        let packed = event.build().expect("a valid event");
        let mut expected = vec![1, 0, 3, 5, 0, 0, 0, 0, 0];
        for (name, attribute_type, text) in [
            ("id", 2, "i"),
            ("source", 5, "/s"),
            ("type", 2, "t"),
            ("n", 1, "7"),
            ("datacontenttype", 2, "a/b"),
        ] {
            expected.extend([name.len() as u8, attribute_type, text.len() as u8, 0, 0, 0]);
            expected.extend(name.bytes().chain(text.bytes()));
        }
        expected.push(b'd');
        expected[5] = (expected.len() - HEADER - 1) as u8;
        assert_eq!(packed.packed(), &expected);
    }
}
