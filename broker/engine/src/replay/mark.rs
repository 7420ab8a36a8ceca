//! The mark on what a replay sends.

use waypost_core::Event;
use waypost_core::transformation::{Moment, Transformation, TransformationError};

/// The extension attribute that says which replay sent an event.
pub(crate) const MARK: &str = "waypostreplay";

/// Says on each event which replay sends it. The last of the transformations, so that none takes it away.
#[derive(Debug)]
pub(crate) struct Mark {
    name: String,
}

impl Mark {
    /// The mark of the replay of this name.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

impl Transformation for Mark {
    fn apply(&self, event: &Event, _moment: &Moment) -> Result<Vec<Event>, TransformationError> {
        // One that would break a limit of events goes without: the event itself matters more.
        let marked = event.with_attribute(MARK, self.name.as_str());
        Ok(vec![marked.unwrap_or_else(|_| event.clone())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_all_that_is_added() {
        let event =
            Event::builder("1", "/s", "t").json_data(&b"{\"n\": 1.0}"[..]).build().expect("it is valid");
        let moment = Moment { arrived_nanoseconds: 0 };
        let marked = Mark::new("again").apply(&event, &moment).expect("it never fails").remove(0);
        assert_eq!(marked.attribute(MARK).map(|value| value.text), Some("again"));
        assert_eq!(marked.without_attribute(MARK).expect("it is optional"), event);
        let twice = Mark::new("later").apply(&marked, &moment).expect("it never fails").remove(0);
        assert_eq!(twice.attribute(MARK).map(|value| value.text), Some("later"));
    }
}
