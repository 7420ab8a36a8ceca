//! Records: what is appended, and what is read back.

mod metadata;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use smallvec::SmallVec;
use waypost_core::Event;
use waypost_core::event::http::{Head, binary_head};
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::log::TriggerNumber;

pub use metadata::CorruptMetadata;

/// The place of a record within its partition, counted from 0 and never reused.
pub type Offset = u64;

/// The place of a record in a broker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: u16,
    /// The place within it.
    pub offset: Offset,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// The text is not that of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a position as PARTITION:OFFSET, such as 0:42")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (partition, offset) = text.split_once(':').ok_or(InvalidPosition)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(partition) || !digits(offset) {
            return Err(InvalidPosition);
        }
        let partition = partition.parse().map_err(|_| InvalidPosition)?;
        Ok(Self { partition, offset: offset.parse().map_err(|_| InvalidPosition)? })
    }
}

/// An event and what the log must know about it, ready to be appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What travels with the event and is not part of it.
    pub metadata: Metadata,
    /// The event, byte for byte as it was accepted.
    pub event: Event,
}

/// What travels with an event in the log and is not part of it.
///
/// Stored as tagged fields. A tag that this version does not know is kept and written back unchanged. What most records
/// have none of stands elsewhere, so that a record is small where it is moved and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// How many more times an event may be caused by this one.
    pub hops: u8,
    /// How the event came in.
    pub origin: Origin,
    /// The delivery that caused the event, where one did.
    pub cause: Option<Box<Cause>>,
    /// Request headers that are passed on to subscribers: `x-request-id` and `knative-*`.
    pub headers: Box<[(Bytes, Bytes)]>,
    /// Fields of later versions: tag and value.
    pub unknown: Box<[(u16, Bytes)]>,
}

/// The hops of an event that nothing caused.
pub const DEFAULT_HOPS: u8 = 255;

impl Default for Metadata {
    fn default() -> Self {
        Self {
            hops: DEFAULT_HOPS,
            origin: Origin::Ingress,
            cause: None,
            headers: Box::default(),
            unknown: Box::default(),
        }
    }
}

/// How an event came into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer posted it.
    Ingress,
    /// A source emitted it.
    Source,
    /// A subscriber replied with it, or a trigger of another broker of this process sent it.
    Delivery,
}

/// The delivery that caused an event: unique, so that a repeat after a crash is recognisable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cause {
    /// The broker in whose log the causing event stands.
    pub broker: ResourceName,
    /// Where it stands.
    pub position: Position,
    /// The trigger whose delivery it was.
    pub trigger: TriggerNumber,
    /// Which of the events of that delivery this is, counted from 0.
    pub output: u32,
}

/// What one commit appends: all of it or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records, in order. They stand one after the other in one partition.
    pub records: SmallVec<[Record; 1]>,
    /// A source's checkpoint that becomes durable with the records, or alone where there are none.
    pub checkpoint: Option<Checkpoint>,
    /// Batches with the same key go to the same partition; without a key the log chooses. A batch with a checkpoint
    /// needs one, for checkpoints of different partitions do not commit in order.
    pub key: Option<u64>,
    /// Whether the batch may use the reserve above the size limit: replies may, so that a full log drains.
    pub from_reserve: bool,
    /// Whether whoever waits for the commit does nothing else until it has resolved. It may then be left to them to tell the
    /// others whose batches share the frame: one who waits for something else meanwhile would keep it from them.
    pub only_waits: bool,
    /// Kept until the log no longer holds the batch for its commit, then dropped.
    pub hold: Option<Hold>,
}

impl Batch {
    /// A batch without checkpoint, within the size limit.
    pub fn of(records: impl IntoIterator<Item = Record>) -> Self {
        Self { records: records.into_iter().collect(), ..Self::default() }
    }

    /// The same batch, keeping `held` until the log no longer holds it for its commit: the share of a budget that
    /// must not be given back when the one who waits for the commit goes away.
    #[must_use]
    pub fn holding(mut self, held: impl Send + Sync + 'static) -> Self {
        self.hold = Some(Hold::of(held));
        self
    }

    /// The bytes that the batch's events take.
    pub fn size(&self) -> usize {
        self.records.iter().map(|record| record.event.size()).sum()
    }
}

/// Something that is kept for as long as a batch is on its way.
pub struct Hold(#[expect(dead_code, reason = "kept for its drop")] Box<dyn std::any::Any + Send + Sync>);

impl Hold {
    /// Keeps `held`.
    pub fn of(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// How far a source has read upstream, in its own terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The source.
    pub source: ResourceName,
    /// Its place, opaque to the log.
    pub value: Bytes,
}

/// A committed record.
#[derive(Debug)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// When it arrived. Within a partition this never runs backwards.
    pub arrived: Timestamp,
    /// What travels with the event.
    pub metadata: Metadata,
    /// The event.
    pub event: Event,
    head: OnceLock<Head>,
    /// Whether the head was asked for.
    head_asked: AtomicBool,
    charge: Option<Charge>,
}

impl Entry {
    /// An entry as a backend reads it. `charge` is given back when the last reference to the entry goes.
    pub fn new(position: Position, arrived: Timestamp, record: Record, charge: Option<Charge>) -> Self {
        Self {
            position,
            arrived,
            metadata: record.metadata,
            event: record.event,
            head: OnceLock::new(),
            head_asked: AtomicBool::new(false),
            charge,
        }
    }

    /// The event's attributes as HTTP headers in binary mode, from the second time on that they are asked for: they are then
    /// built once, whatever the number of subscribers. For a single one they are not worth the memory.
    pub fn head(&self) -> Option<&Head> {
        if !self.head_asked.load(Ordering::Relaxed) {
            self.head_asked.store(true, Ordering::Relaxed);
            return None;
        }
        Some(self.head.get_or_init(|| binary_head(&self.event)))
    }

    /// The bytes that the entry counts for in budgets.
    pub fn size(&self) -> usize {
        self.event.size()
    }

    /// The bytes that the entry holds of its log's limit; 0 where the log keeps no bodies in memory.
    pub fn charged(&self) -> u64 {
        self.charge.as_ref().map_or(0, |charge| charge.bytes)
    }
}

/// A share of a log's size limit, given back when dropped.
#[derive(Debug)]
pub struct Charge {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Charge {
    /// Takes `bytes` of the limit that `used` counts against, whether or not they are left.
    pub fn take(used: &Arc<AtomicU64>, bytes: u64) -> Self {
        used.fetch_add(bytes, Ordering::Relaxed);
        Self { used: Arc::clone(used), bytes }
    }

    /// Takes `bytes` unless more than `limit` would then be in use; the error is what is in use.
    pub fn within(used: &Arc<AtomicU64>, bytes: u64, limit: u64) -> Result<Self, u64> {
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)?;
        Ok(Self { used: Arc::clone(used), bytes })
    }

    /// Splits off `bytes`, or what there is.
    #[must_use = "the part is given back when it is dropped"]
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { used: Arc::clone(&self.used), bytes }
    }

    /// The bytes that it stands for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for position in [Position { partition: 0, offset: 42 }, Position { partition: 7, offset: u64::MAX }] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for wrong in ["", "42", ":", "0:", ":1", "0:-1", "0:+1", "0:1:2", "70000:0", "0-42", " 0:1"] {
            assert_eq!(wrong.parse::<Position>(), Err(InvalidPosition), "{wrong}");
        }
    }

    #[test]
    fn a_head_is_kept_from_the_second_time_on() {
        let event = Event::builder("1", "/shop", "order").build().expect("it is valid");
        let record = Record { metadata: Metadata::default(), event };
        let entry = Entry::new(Position { partition: 0, offset: 0 }, Timestamp(0), record, None);
        assert_eq!(entry.head(), None);
        let head = entry.head().expect("it is asked for the second time");
        assert_eq!(*head, binary_head(&entry.event));
        assert!(std::ptr::eq(head, entry.head().expect("it was kept")));
    }
}
