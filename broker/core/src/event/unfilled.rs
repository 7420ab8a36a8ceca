//! Events that are made many at a time.

use bytes::Bytes;
use smallvec::SmallVec;

use super::Event;
use crate::prefetch::TOGETHER;

/// An event whose data is still to be copied into it.
#[derive(Debug)]
pub struct Unfilled<'d> {
    /// The packed form up to the data, with room for it.
    pub(super) packed: Vec<u8>,
    pub(super) data: &'d [u8],
}

impl Unfilled<'_> {
    /// The bytes that the event will take, as [`Event::size`] tells them.
    pub fn size(&self) -> usize {
        self.packed.len() + self.data.len()
    }
}

impl From<Unfilled<'_>> for Event {
    fn from(unfilled: Unfilled<'_>) -> Self {
        let Unfilled { mut packed, data } = unfilled;
        packed.extend_from_slice(data);
        Self { packed: Bytes::from(packed) }
    }
}

impl From<Event> for Unfilled<'static> {
    /// Without a copy where nobody else has the event.
    fn from(event: Event) -> Self {
        Self { packed: Vec::from(event.packed), data: &[] }
    }
}

/// Events that were made many at a time, and are not shared yet.
///
/// What is copied into new memory leaves the processor a while later. Who reads a neighbour of the last bytes in larger pieces
/// than they were written in, as a move of an event that was just made does, waits for all of it, and so does who takes a
/// lock. So the data of many is copied in one go, into memory that stays where it is, and they become events once all have
/// been made.
#[derive(Debug, Default)]
pub struct Filled(Vec<Vec<u8>>);

impl Filled {
    /// Adds events behind those that are there. Their data is copied once all of them were asked for; [`TOGETHER`] at a time
    /// is enough.
    pub fn extend<'d>(&mut self, events: impl IntoIterator<Item = Unfilled<'d>>) {
        let before = self.0.len();
        let mut data: SmallVec<[&[u8]; TOGETHER]> = SmallVec::new();
        for event in events {
            data.push(event.data);
            self.0.push(event.packed);
        }
        for (packed, data) in self.0[before..].iter_mut().zip(data) {
            packed.extend_from_slice(data);
        }
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The events, in their order.
    pub fn into_events(self) -> Vec<Event> {
        self.0.into_iter().map(|packed| Event { packed: Bytes::from(packed) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::AttributeType;

    #[test]
    fn what_was_filled_are_the_events_that_were_given() {
        let event = Event::builder("1", "/s", "t").data(vec![b'x'; 100]).build().expect("it is valid");
        let id = |id| ("id", Some((id, AttributeType::String)));
        let mut filled = Filled::default();
        assert!(filled.is_empty());
        let mut wanted = Vec::new();
        for data in [None, Some(&b""[..]), Some(&b"yy"[..])] {
            let like = || event.like(&[id("2")], data).expect("it is valid");
            assert_eq!(like().size(), Event::from(like()).size());
            filled.extend([like(), event.clone().into(), like()]);
            wanted.extend([like().into(), event.clone(), like().into()]);
        }
        assert_eq!(filled.len(), wanted.len());
        assert_eq!(filled.into_events(), wanted);
    }
}
