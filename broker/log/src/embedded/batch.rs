//! What a frame of a segment holds: the records of one or more batches, and the checkpoints of sources that came
//! with them.
//!
//! ```text
//! item:       tag u8 | length u32 | content
//! record:     offset u64 | arrived i64 | metadata (length u32) | event, packed
//! checkpoint: namespace, name (each length u32) | value to the end
//! ```

use bytes::Bytes;
use waypost_core::Event;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::record::{Checkpoint, Entry, Metadata, Offset, Position, Record};

const RECORD: u8 = 1;
const CHECKPOINT: u8 = 2;
/// What a record takes in a frame besides its metadata and its event.
pub(super) const RECORD_OVERHEAD: usize = 5 + 8 + 8 + 4;

/// A part of a frame's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Record(StoredRecord<'a>),
    Checkpoint { source: (&'a str, &'a str), value: &'a [u8] },
}

/// A record as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredRecord<'a> {
    pub(super) offset: Offset,
    pub(super) arrived: Timestamp,
    metadata: &'a [u8],
    event: &'a [u8],
}

fn item(into: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    into.put_u8(tag);
    let at = into.len();
    into.put_u32(0);
    write(into);
    let length = u32::try_from(into.len() - at - 4).expect("an item is smaller than a request");
    into[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends a record.
pub(super) fn put_record(into: &mut Vec<u8>, offset: Offset, arrived: Timestamp, record: &Record) {
    item(into, RECORD, |into| put_content(into, offset, arrived, &record.metadata, &record.event));
}

fn put_content(into: &mut Vec<u8>, offset: Offset, arrived: Timestamp, metadata: &Metadata, event: &Event) {
    into.put_u64(offset);
    into.put_i64(arrived.0);
    let at = into.len();
    into.put_u32(0);
    metadata.encode(into);
    let length = u32::try_from(into.len() - at - 4).expect("metadata is smaller than a request");
    into[at..at + 4].copy_from_slice(&length.to_le_bytes());
    into.put(event.packed());
}

/// Appends a source's checkpoint.
pub(super) fn put_checkpoint(into: &mut Vec<u8>, checkpoint: &Checkpoint) {
    item(into, CHECKPOINT, |into| {
        into.put_counted(checkpoint.source.namespace.as_bytes());
        into.put_counted(checkpoint.source.name.as_bytes());
        into.put(&checkpoint.value);
    });
}

/// The items of a frame's body, in order. After damage there are no more.
pub(super) fn items(body: &[u8]) -> impl Iterator<Item = Result<Item<'_>, Corrupt>> {
    let mut rest = Reader(body);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = take_item(&mut rest);
        if item.is_err() {
            rest = Reader(&[]);
        }
        Some(item)
    })
}

fn take_item<'a>(rest: &mut Reader<'a>) -> Result<Item<'a>, Corrupt> {
    let tag = rest.u8()?;
    let mut content = Reader(rest.counted()?);
    match tag {
        RECORD => Ok(Item::Record(StoredRecord::read(content)?)),
        CHECKPOINT => {
            let source = (content.text()?, content.text()?);
            Ok(Item::Checkpoint { source, value: content.0 })
        }
        _ => Err(Corrupt("an item is of an unknown kind")),
    }
}

/// The stored form of one entry alone, for the parked store.
pub(super) fn park(entry: &Entry) -> Vec<u8> {
    let mut stored = Vec::with_capacity(RECORD_OVERHEAD + entry.size());
    put_content(&mut stored, entry.position.offset, entry.arrived, &entry.metadata, &entry.event);
    stored
}

impl<'a> StoredRecord<'a> {
    pub(super) fn read(mut content: Reader<'a>) -> Result<Self, Corrupt> {
        Ok(Self {
            offset: content.u64()?,
            arrived: Timestamp(content.i64()?),
            metadata: content.counted()?,
            event: content.0,
        })
    }

    /// An entry with memory of its own, exactly as much as it needs.
    pub(super) fn entry(&self, partition: u16) -> Result<Entry, Corrupt> {
        let metadata = Metadata::decode(&Bytes::copy_from_slice(self.metadata))
            .map_err(|_| Corrupt("the metadata of a record is damaged"))?;
        let event = Event::from_packed(Bytes::copy_from_slice(self.event))
            .map_err(|_| Corrupt("the event of a record is damaged"))?;
        let position = Position { partition, offset: self.offset };
        Ok(Entry::new(position, self.arrived, Record { metadata, event }, None))
    }

    /// The event, as a part of the body that the record was read from.
    pub(super) fn event_in(&self, body: &Bytes) -> Result<Event, Corrupt> {
        Event::from_packed(body.slice_ref(self.event))
            .map_err(|_| Corrupt("the event of a record is damaged"))
    }
}

/// A checkpoint out of its stored parts.
pub(super) fn checkpoint_of(source: (&str, &str), value: &[u8]) -> Checkpoint {
    Checkpoint { source: ResourceName::new(source.0, source.1), value: Bytes::copy_from_slice(value) }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::record::Origin;

    fn record(id: &str, data: Vec<u8>, hops: u8) -> Record {
        let event = Event::builder(id, "/s", "t").data(data).build().expect("a valid event");
        let unknown = [(900, Bytes::from_static(b"later"))].into_iter().collect();
        let metadata = Metadata { hops, origin: Origin::Source, unknown, ..Metadata::default() };
        Record { metadata, event }
    }

    proptest! {
        #[test]
        fn records_come_back(all in vec(("[a-z]{1,20}", vec(any::<u8>(), 0..200), any::<u8>(), any::<i64>()), 0..8)) {
            let mut body = Vec::new();
            for (offset, (id, data, hops, arrived)) in (5..).zip(&all) {
                put_record(&mut body, offset, Timestamp(*arrived), &record(id, data.clone(), *hops));
            }
            let checkpoint = Checkpoint { source: ResourceName::new("n", "s"), value: Bytes::from_static(b"7") };
            put_checkpoint(&mut body, &checkpoint);
            let read: Result<Vec<Item<'_>>, Corrupt> = items(&body).collect();
            let read = read.expect("it is intact");
            prop_assert_eq!(read.len(), all.len() + 1);
            for ((offset, (id, data, hops, arrived)), item) in (5..).zip(&all).zip(&read) {
                let Item::Record(stored) = item else { panic!("a record comes back as a record") };
                let entry = stored.entry(3).expect("it is intact");
                let expected = record(id, data.clone(), *hops);
                prop_assert_eq!((&entry.event, &entry.metadata), (&expected.event, &expected.metadata));
                prop_assert_eq!((entry.position, entry.arrived), (Position { partition: 3, offset }, Timestamp(*arrived)));
                let parked = park(&entry);
                prop_assert_eq!(&StoredRecord::read(Reader(&parked)).expect("it is intact"), stored);
            }
            prop_assert_eq!(read.last(), Some(&Item::Checkpoint { source: ("n", "s"), value: b"7" }));
        }

        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>) {
            for item in items(&body) {
                if let Ok(Item::Record(record)) = item {
                    let _ = record.entry(0);
                }
            }
        }
    }
}
