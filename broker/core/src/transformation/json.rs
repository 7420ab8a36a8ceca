//! The tree of JSON that transformations work on.
//!
//! It keeps the text of every number, so that no digit is lost, and the order of members. Texts share the buffer that
//! they were read from: a copy of one is a reference count.

mod number;
mod query;
mod read;
mod write;

use std::fmt;
use std::sync::Arc;

use super::TransformationError;

pub use self::number::Number;
pub use self::query::Query;
pub use self::read::{Builder, NotJson, Wanted};

/// The deepest nesting of arrays and objects. Deeper text is not read, and a program that builds deeper data fails.
pub const MAX_DEPTH: usize = crate::filter::candidate::MAX_DATA_DEPTH;

/// A value of JSON.
///
/// Two are equal as RFC 9535 compares: numbers by value whatever their text, objects whatever the order of members.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, with its text.
    Number(Number),
    /// A string.
    Text(Text),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Object),
    /// An array or object that was not looked into: its text, which was checked. Only members of an object that
    /// [`Document::take_json_where`](super::Document::take_json_where) gave are such, and whoever took it leaves them alone or
    /// [opens](Json::open) them.
    Unread(Text),
}

impl Json {
    /// Reads text. Takes what `serde_json` takes; of a member that is given twice the last counts.
    ///
    /// # Errors
    /// [`NotJson`] where it is none, or nested deeper than [`MAX_DEPTH`].
    pub fn read(text: &str) -> Result<Self, NotJson> {
        read::read(text)
    }

    /// As [`read`](Self::read), where only some members of an object are asked for.
    pub(super) fn read_some(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Self, NotJson> {
        read::read_some(text, wanted)
    }

    /// As [`read`](Self::read), of what is wanted; for the data of an event.
    pub(super) fn read_wanted(text: &str, wanted: &Wanted) -> Result<Self, TransformationError> {
        read::read_wanted(text, wanted)
    }

    /// Has the value of a text built, as far as it is wanted.
    pub(super) fn build<B: Builder>(
        text: &str,
        wanted: &Wanted,
        builder: &mut B,
    ) -> Result<B::Value, TransformationError> {
        read::build(text, wanted, builder)
    }

    /// Makes a tree of what was not looked into.
    pub fn open(&mut self) {
        if let Self::Unread(text) = self
            && let Ok(tree) = read::read(text)
        {
            *self = tree;
        }
    }

    /// Makes trees of the members that were not looked into and whose names are `wanted`.
    pub(super) fn open_members(&mut self, wanted: impl Fn(&str) -> bool) {
        let Self::Object(object) = self else { return };
        for (name, value) in object.iter_mut() {
            if matches!(value, Self::Unread(_)) && wanted(name) {
                value.open();
            }
        }
    }

    /// Appends the text of the value, without blanks.
    pub fn write(&self, into: &mut Vec<u8>) {
        write::write(self, into);
    }

    /// The string that it is.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The object that it is.
    pub fn as_members(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The member of an object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        self.as_members()?.get(name)
    }

    /// The levels of arrays and objects: none for a plain value, 1 for `[]`.
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(elements) => 1 + elements.iter().map(Self::depth).max().unwrap_or_default(),
            Self::Object(object) => {
                1 + object.iter().map(|(_, value)| value.depth()).max().unwrap_or_default()
            }
            Self::Unread(text) => read::read(text).map_or(MAX_DEPTH, |tree| tree.depth()),
            _ => 0,
        }
    }

    /// About how many bytes the value takes in memory, beside the text that it shares.
    pub fn weight(&self) -> usize {
        let below: usize = match self {
            Self::Array(elements) => elements.iter().map(Self::weight).sum(),
            Self::Object(object) => {
                object.iter().map(|(_, value)| value.weight() + size_of::<Text>()).sum::<usize>()
            }
            // No value takes less than a character with what separates it from the next.
            Self::Unread(text) => text.len() / 2 * size_of::<Self>(),
            _ => 0,
        };
        below + size_of::<Self>()
    }

    /// What it is, for messages: `null`, `a boolean`, `a number`, `a string`, `an array` or `an object`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
            Self::Unread(text) if text.starts_with('[') => "an array",
            Self::Unread(_) => "an object",
        }
    }

    /// The value for programs that know `serde_json` only. Numbers beyond 64 bits lose digits.
    pub fn to_value(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Number(number) => {
                number.to_serde().map_or(serde_json::Value::Null, serde_json::Value::Number)
            }
            Self::Text(text) => serde_json::Value::String(text.as_ref().to_owned()),
            Self::Array(elements) => elements.iter().map(Self::to_value).collect(),
            Self::Object(object) => {
                object.iter().map(|(name, value)| (name.as_ref().to_owned(), value.to_value())).collect()
            }
            Self::Unread(text) => read::read(text).map_or(serde_json::Value::Null, |tree| tree.to_value()),
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => Self::Number(Number::of_serde(number)),
            serde_json::Value::String(text) => Self::Text(text.as_str().into()),
            serde_json::Value::Array(elements) => Self::Array(elements.iter().map(Self::from).collect()),
            serde_json::Value::Object(members) => Self::Object(
                members.iter().map(|(name, value)| (Text::from(name.as_str()), Self::from(value))).collect(),
            ),
        }
    }
}

impl From<Text> for Json {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Self {
        Self::Number(value.into())
    }
}

impl From<f64> for Json {
    /// What is no number of JSON (infinities, NaN) is `null`.
    fn from(value: f64) -> Self {
        Number::of_f64(value).map_or(Self::Null, Self::Number)
    }
}

impl From<Vec<Self>> for Json {
    fn from(elements: Vec<Self>) -> Self {
        Self::Array(elements)
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

/// Text that may be a part of a larger one. A clone is a reference count.
#[derive(Clone)]
pub struct Text {
    whole: Arc<str>,
    start: u32,
    end: u32,
}

impl Text {
    /// A part of `whole`. The caller keeps to places below 4 GiB that lie between characters.
    fn part(whole: &Arc<str>, start: usize, end: usize) -> Self {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { whole: Arc::clone(whole), start, end },
            // Data of an event is far shorter; a longer text is kept by a copy of the part.
            _ => whole[start..end].into(),
        }
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.whole[self.start as usize..self.end as usize]
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl std::borrow::Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&str> for Text {
    /// Text beyond 4 GiB is cut there; every limit of events is far below.
    fn from(text: &str) -> Self {
        let end = u32::try_from(text.len()).unwrap_or_else(|_| {
            let cut = text.floor_char_boundary(u32::MAX as usize);
            u32::try_from(cut).unwrap_or(0)
        });
        Self { whole: text.into(), start: 0, end }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl std::hash::Hash for Text {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

/// From so many members on, repeated names are looked for by a set and not one by one.
const MANY_MEMBERS: usize = 16;

/// The members of an object, in order, each name once. A look-up goes over them one by one.
#[derive(Debug, Clone, Default)]
pub struct Object {
    members: Vec<(Text, Json)>,
}

impl Object {
    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.members.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// The value of a member, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Json> {
        self.members.iter_mut().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// Replaces a member in its place, or adds it at the end. To build a large object collect its members instead.
    pub fn insert(&mut self, name: Text, value: Json) -> Option<Json> {
        match self.get_mut(&name) {
            Some(known) => Some(std::mem::replace(known, value)),
            None => {
                self.members.push((name, value));
                None
            }
        }
    }

    /// The value of a member, which is added as `null` where it is not there.
    pub fn entry(&mut self, name: &Text) -> &mut Json {
        let at = self.members.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.members.push((name.clone(), Json::Null));
            self.members.len() - 1
        });
        &mut self.members[at].1
    }

    /// Takes a member out; the others keep their order.
    pub fn remove(&mut self, name: &str) -> Option<Json> {
        let at = self.members.iter().position(|(known, _)| **known == *name)?;
        Some(self.members.remove(at).1)
    }

    /// Takes a member out with its place among the others, which keep their order.
    pub fn take(&mut self, name: &str) -> Option<(usize, Json)> {
        let at = self.members.iter().position(|(known, _)| **known == *name)?;
        Some((at, self.members.remove(at).1))
    }

    /// Puts a member at a place, or at the end where there are fewer; one of that name goes.
    pub fn put(&mut self, at: usize, name: Text, value: Json) {
        self.remove(&name);
        self.members.insert(at.min(self.members.len()), (name, value));
    }

    /// The members in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Text, &Json)> {
        self.members.iter().map(|(name, value)| (name, value))
    }

    /// The members in order, their values to be changed.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&Text, &mut Json)> {
        self.members.iter_mut().map(|(name, value)| (&*name, value))
    }

    /// Keeps the members of which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&Text, &mut Json) -> bool) {
        self.members.retain_mut(|(name, value)| keep(name, value));
    }

    /// Of a name that is there twice keeps the first place and the last value.
    fn of_members(mut members: Vec<(Text, Json)>) -> Self {
        if members.len() < 2 || !has_repeats(&members) {
            return Self { members };
        }
        let mut places = std::collections::HashMap::with_capacity(members.len());
        let mut kept: Vec<(Text, Json)> = Vec::with_capacity(members.len());
        for (name, value) in members.drain(..) {
            match places.entry(name.clone()) {
                std::collections::hash_map::Entry::Occupied(place) => {
                    let place: usize = *place.get();
                    kept[place].1 = value;
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(kept.len());
                    kept.push((name, value));
                }
            }
        }
        Self { members: kept }
    }
}

fn has_repeats(members: &[(Text, Json)]) -> bool {
    if members.len() <= MANY_MEMBERS {
        return (1..members.len()).any(|at| members[..at].iter().any(|(name, _)| *name == members[at].0));
    }
    let mut seen = std::collections::HashSet::with_capacity(members.len());
    !members.iter().all(|(name, _)| seen.insert(&**name))
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        if self.len() <= MANY_MEMBERS {
            return self.iter().all(|(name, value)| other.get(name) == Some(value));
        }
        let members: std::collections::HashMap<&str, &Json> =
            other.iter().map(|(name, value)| (&**name, value)).collect();
        self.iter().all(|(name, value)| members.get(&**name) == Some(&value))
    }
}

impl FromIterator<(Text, Json)> for Object {
    /// Of a name that comes twice the last value counts.
    fn from_iter<I: IntoIterator<Item = (Text, Json)>>(members: I) -> Self {
        Self::of_members(members.into_iter().collect())
    }
}

impl IntoIterator for Object {
    type Item = (Text, Json);
    type IntoIter = std::vec::IntoIter<(Text, Json)>;

    fn into_iter(self) -> Self::IntoIter {
        self.members.into_iter()
    }
}

#[cfg(test)]
mod suite;
