//! Paths into data, and what is done at the place that one leads to.

use std::fmt;

use waypost_core::transformation::TransformationError;
use waypost_core::transformation::json::{Json, MAX_DEPTH, Object, Text};

/// The highest index of an array that a path may have: one beyond the end is filled up with nulls.
pub(super) const MAX_INDEX: usize = 9_999;

/// The most segments of a path.
const MAX_SEGMENTS: usize = 64;

/// A place in data, such as `order.items[2].sku`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Name(Text),
    Index(usize),
    /// `[]`: after the last element.
    End,
}

impl Path {
    /// Reads a path. Empty segments stand for the place itself, so that `.` is the whole data.
    pub(super) fn parse(text: &str, separator: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        for part in text.split(separator) {
            let (name, indexes) = match part.find('[') {
                Some(at) => part.split_at(at),
                None => (part, ""),
            };
            if !name.is_empty() {
                segments.push(Segment::Name(name.into()));
            }
            read_indexes(indexes, &mut segments)
                .map_err(|fault| format!("`{part}` in the path `{text}` {fault}"))?;
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("the path `{text}` has more than {MAX_SEGMENTS} segments"));
        }
        Ok(Self { segments })
    }

    /// Whether it is that of the whole data.
    pub(super) fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    /// The name that it begins with; none where it begins with none.
    pub(super) fn first_name(&self) -> Option<&Text> {
        match self.segments.first()? {
            Segment::Name(name) => Some(name),
            Segment::Index(_) | Segment::End => None,
        }
    }

    /// Whether it names a place after the last element of an array, which holds nothing that could be read.
    pub(super) fn appends(&self) -> bool {
        self.segments.contains(&Segment::End)
    }

    /// The names, where it has no index.
    pub(super) fn names(&self) -> Option<Vec<&str>> {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Name(name) => Some(&**name),
                Segment::Index(_) | Segment::End => None,
            })
            .collect()
    }

    /// What is there.
    pub(super) fn read<'j>(&self, data: &'j Json) -> Option<&'j Json> {
        self.segments.iter().try_fold(data, |at, segment| match (segment, at) {
            (Segment::Name(name), Json::Object(object)) => object.get(name),
            (Segment::Index(index), Json::Array(elements)) => elements.get(*index),
            _ => None,
        })
    }

    /// Takes out what is there; the elements behind it close up.
    pub(super) fn take(&self, data: &mut Json) -> Option<Removed> {
        let (last, before) = self.segments.split_last()?;
        let parent = walk(data, before)?;
        match (last, parent) {
            (Segment::Name(name), Json::Object(object)) => {
                object.take(name).map(|(at, value)| Removed { at, value })
            }
            (Segment::Index(index), Json::Array(elements)) if *index < elements.len() => {
                Some(Removed { at: *index, value: elements.remove(*index) })
            }
            _ => None,
        }
    }

    /// Puts back what was taken out.
    pub(super) fn restore(&self, data: &mut Json, removed: Removed) {
        let Some((last, before)) = self.segments.split_last() else { return };
        match (last, walk(data, before)) {
            (Segment::Name(name), Some(Json::Object(object))) => {
                object.put(removed.at, name.clone(), removed.value);
            }
            (Segment::Index(_), Some(Json::Array(elements))) => {
                elements.insert(removed.at.min(elements.len()), removed.value);
            }
            _ => {}
        }
    }

    /// Merges a value into what is there. Parents that are not there are made, and plain values in the way replaced; an
    /// array that is too short is filled up with nulls.
    ///
    /// Gives the value back where an array stands where an object would have to be; nothing is changed then.
    pub(super) fn add(&self, data: &mut Json, value: Json) -> Result<(), (TransformationError, Json)> {
        if let Some(blocked) = self.blocked(data) {
            return Err((blocked, value));
        }
        if matches!(value, Json::Array(_) | Json::Object(_))
            && self.segments.len() + value.depth() > MAX_DEPTH
        {
            let reason = format!("the data would be nested deeper than {MAX_DEPTH} levels");
            return Err((TransformationError::limit(reason).at(self.to_string()), value));
        }
        let place = self.segments.iter().fold(data, make);
        merge(place, value);
        Ok(())
    }

    /// Whether a member is asked of an array.
    fn blocked(&self, data: &Json) -> Option<TransformationError> {
        let mut at = data;
        for (number, segment) in self.segments.iter().enumerate() {
            at = match (segment, at) {
                (Segment::Name(name), Json::Array(_)) => {
                    let place = Self { segments: self.segments[..number].to_vec() };
                    let reason =
                        format!("`{name}` cannot be added to an array: give the index of an element");
                    return Some(TransformationError::new(reason).at(place.to_string()));
                }
                (Segment::Name(name), Json::Object(object)) => object.get(name)?,
                (Segment::Index(index), Json::Array(elements)) => elements.get(*index)?,
                _ => return None,
            };
        }
        None
    }
}

/// What was taken out, and where it was among its siblings.
pub(super) struct Removed {
    at: usize,
    pub(super) value: Json,
}

fn read_indexes(mut text: &str, segments: &mut Vec<Segment>) -> Result<(), String> {
    while !text.is_empty() {
        let inner = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let Some((index, rest)) = inner else {
            return Err("is no name with an index, such as `items[0]`".to_owned());
        };
        segments.push(match index {
            "" => Segment::End,
            digits => match digits.parse() {
                Ok(index) if index <= MAX_INDEX && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Segment::Index(index)
                }
                _ => {
                    return Err(format!(
                        "has the index `{index}`: write a whole number from 0 to {MAX_INDEX}, or nothing to append"
                    ));
                }
            },
        });
        text = rest;
    }
    Ok(())
}

fn walk<'j>(data: &'j mut Json, segments: &[Segment]) -> Option<&'j mut Json> {
    segments.iter().try_fold(data, |at, segment| match (segment, at) {
        (Segment::Name(name), Json::Object(object)) => object.get_mut(name),
        (Segment::Index(index), Json::Array(elements)) => elements.get_mut(*index),
        _ => None,
    })
}

/// The place below `at`, made where it is not there. `at` is no array where a member is asked for.
fn make<'j>(at: &'j mut Json, segment: &Segment) -> &'j mut Json {
    match segment {
        Segment::Name(name) => {
            if !matches!(at, Json::Object(_)) {
                *at = Json::Object(Object::default());
            }
            let Json::Object(object) = at else { unreachable!("it was just made an object") };
            object.entry(name)
        }
        Segment::Index(_) | Segment::End => {
            if !matches!(at, Json::Array(_)) {
                *at = Json::Array(Vec::new());
            }
            let Json::Array(elements) = at else { unreachable!("it was just made an array") };
            let index = match segment {
                Segment::Index(index) => *index,
                _ => elements.len(),
            };
            if index >= elements.len() {
                elements.resize(index + 1, Json::Null);
            }
            &mut elements[index]
        }
    }
}

/// Objects merge member by member, arrays element by element, all else replaces; null changes nothing. Recursion is
/// bounded by the depth of the value.
fn merge(place: &mut Json, value: Json) {
    match (place, value) {
        (_, Json::Null) => {}
        (Json::Object(object), Json::Object(members)) => {
            for (name, value) in members {
                merge(object.entry(&name), value);
            }
        }
        (Json::Array(elements), Json::Array(others)) => {
            for (index, other) in others.into_iter().enumerate() {
                match elements.get_mut(index) {
                    Some(element) => merge(element, other),
                    None => elements.push(other),
                }
            }
        }
        // As TriggerMesh's adapter has it: an object does not replace an array.
        (Json::Array(_), Json::Object(_)) => {}
        (place, value) => *place = value,
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data")?;
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Name(name) => write!(f, ".{name}"),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::End => f.write_str("[]"),
        })
    }
}
