//! Singular paths: names and indices, which lead to one value at most.

use serde_json::Value as Json;

/// One step of a singular path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::filter) enum Step {
    Name(Box<str>),
    /// Counted from the end where it is negative.
    Index(i64),
}

/// A singular path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(in crate::filter) struct Path(Box<[Step]>);

impl Path {
    pub(in crate::filter) fn new(steps: Vec<Step>) -> Self {
        Self(steps.into())
    }

    pub(in crate::filter) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether it counts from the start only, so that one pass over the text finds what it leads to.
    pub(in crate::filter) fn counts_forwards(&self) -> bool {
        !self.0.iter().any(|step| matches!(step, Step::Index(..0)))
    }

    /// The value that it leads to.
    pub(in crate::filter) fn find<'v>(&self, value: &'v Json) -> Option<&'v Json> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Name(name) => value.as_object()?.get(&**name),
            Step::Index(index) => {
                let elements = value.as_array()?;
                let place = usize::try_from(index.unsigned_abs()).ok()?;
                elements.get(if *index < 0 { elements.len().checked_sub(place)? } else { place })
            }
        })
    }
}
