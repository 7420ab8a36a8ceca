//! The mark on what a replay sends.

use waypost_core::event::MAX_ATTRIBUTES;
use waypost_core::transformation::{Document, Outputs, Run, Transformation, TransformationError};

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
    fn apply(&self, mut document: Document, _run: &mut Run) -> Result<Outputs, TransformationError> {
        // One that would break a limit of events goes without: the event itself matters more.
        if document.attribute(MARK).is_some() || document.attributes().count() < MAX_ATTRIBUTES {
            document.set_attribute(MARK, self.name.as_str());
        }
        Ok(document.into())
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::Event;
    use waypost_core::transformation::Moment;

    use super::*;

    #[test]
    fn the_mark_is_all_that_is_added() {
        let event =
            Event::builder("1", "/s", "t").json_data(&b"{\"n\": 1.0}"[..]).build().expect("it is valid");
        let marked = |name: &str, event: &Event| {
            let moment = Moment { arrived_nanoseconds: 0 };
            match Mark::new(name).apply(Document::new(event), &mut Run::new(moment)) {
                Ok(Outputs::One(document)) => document.to_event().expect("it is valid"),
                other => panic!("{other:?}"),
            }
        };
        let again = marked("again", &event);
        assert_eq!(again.attribute(MARK).map(|value| value.text), Some("again"));
        assert_eq!(again.without_attribute(MARK).expect("it is optional"), event);
        assert_eq!(marked("later", &again).attribute(MARK).map(|value| value.text), Some("later"));
    }
}
