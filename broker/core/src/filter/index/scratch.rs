//! Memory that evaluations use again and again.

use super::paths::PathId;
use crate::filter::jsonpath::json_text::{Kind, unescape};
use crate::filter::jsonpath::scalar::{Number, Scalar};

/// Memory for matching events one after the other: once it has grown, matching allocates nothing. Belongs to one
/// reader; it may be used with any index.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) matched: Vec<u32>,
    pub(super) over_budget: Vec<u32>,
    pub(super) within_budget: Vec<u32>,
    pub(super) literals: Vec<u32>,
    pub(super) data: DataScratch,
}

impl Scratch {
    /// Forgets what is known of the last event.
    pub(super) fn begin(&mut self) {
        self.matched.clear();
        self.over_budget.clear();
        self.within_budget.clear();
    }

    /// The slots that matched the last event, in ascending order.
    pub fn matched(&self) -> &[u32] {
        &self.matched
    }

    /// The slots whose steps were used up by the last event, in ascending order; none of them matched.
    pub fn over_budget(&self) -> &[u32] {
        &self.over_budget
    }

    /// The slots whose filters had to be evaluated as a whole for the last event, and were, whether or not they matched;
    /// in ascending order.
    pub fn within_budget(&self) -> &[u32] {
        &self.within_budget
    }
}

/// What was found in the data of one event.
#[derive(Debug, Default)]
pub(super) struct DataScratch {
    /// By path; what another event left has another stamp.
    places: Vec<(u64, Found)>,
    stamp: u64,
    /// The paths of this event.
    found: Vec<PathId>,
    text: String,
}

/// A value within the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
    /// Whether it is an object or an array that has something in it.
    pub(super) filled: bool,
}

impl DataScratch {
    pub(super) fn begin(&mut self, paths: usize) {
        self.stamp += 1;
        self.found.clear();
        if self.places.len() < paths {
            let nothing = Found { start: 0, end: 0, kind: Kind::Null, filled: false };
            self.places.resize(paths, (0, nothing));
        }
    }

    pub(super) fn set(&mut self, path: PathId, found: Found) {
        let place = &mut self.places[path as usize];
        if place.0 != self.stamp {
            self.found.push(path);
        }
        *place = (self.stamp, found);
    }

    #[inline]
    pub(super) fn get(&self, path: PathId) -> Option<Found> {
        let (stamp, found) = self.places.get(path as usize)?;
        (*stamp == self.stamp).then_some(*found)
    }

    /// One of the paths that were found, by its place in their list.
    pub(super) fn path(&self, place: usize) -> Option<PathId> {
        self.found.get(place).copied()
    }

    /// The value as a scalar; a text with escapes is unescaped into `buffer`.
    pub(super) fn scalar<'t>(found: Found, text: &'t str, buffer: &'t mut String) -> Scalar<'t> {
        let value = &text[found.start..found.end];
        match found.kind {
            Kind::Null => Scalar::Null,
            Kind::True => Scalar::Boolean(true),
            Kind::False => Scalar::Boolean(false),
            Kind::Number => Number::read(value).map_or(Scalar::Container, Scalar::Number),
            Kind::Text => {
                let quoted = &value[1..value.len() - 1];
                if memchr::memchr(b'\\', quoted.as_bytes()).is_none() {
                    return Scalar::Text(quoted);
                }
                unescape(quoted, buffer);
                Scalar::Text(buffer)
            }
            Kind::Object | Kind::Array => Scalar::Container,
        }
    }

    pub(super) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    pub(super) fn put_text(&mut self, text: String) {
        self.text = text;
    }
}
