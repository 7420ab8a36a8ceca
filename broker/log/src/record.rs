//! Records: what is appended, and what is read back.

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use smallvec::SmallVec;
use waypost_core::Event;
use waypost_core::event::http::{Head, binary_head};
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::log::TriggerNumber;

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
/// Stored as tagged fields. A tag that this version does not know is kept and written back unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// How many more times an event may be caused by this one.
    pub hops: u8,
    /// How the event came in.
    pub origin: Origin,
    /// The delivery that caused the event, where one did.
    pub cause: Option<Cause>,
    /// Request headers that are passed on to subscribers: `x-request-id` and `knative-*`.
    pub headers: SmallVec<[(Bytes, Bytes); 1]>,
    /// Fields of later versions: tag and value.
    pub unknown: SmallVec<[(u16, Bytes); 0]>,
}

/// The hops of an event that nothing caused.
pub const DEFAULT_HOPS: u8 = 255;

impl Default for Metadata {
    fn default() -> Self {
        Self {
            hops: DEFAULT_HOPS,
            origin: Origin::Ingress,
            cause: None,
            headers: SmallVec::new(),
            unknown: SmallVec::new(),
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
#[derive(Debug, Clone)]
pub struct Batch {
    /// The records, in order. They get consecutive offsets in one partition.
    pub records: SmallVec<[Record; 1]>,
    /// A source's checkpoint that becomes durable with the records.
    pub checkpoint: Option<Checkpoint>,
    /// Whether the batch may use the reserve above the size limit: replies may, so that a full log drains.
    pub from_reserve: bool,
}

impl Batch {
    /// A batch without checkpoint, within the size limit.
    pub fn of(records: impl IntoIterator<Item = Record>) -> Self {
        Self { records: records.into_iter().collect(), checkpoint: None, from_reserve: false }
    }

    /// The bytes that the batch's events take.
    pub fn size(&self) -> usize {
        self.records.iter().map(|record| record.event.size()).sum()
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
            charge,
        }
    }

    /// The event's attributes as HTTP headers in binary mode: built once, whatever the number of subscribers.
    pub fn head(&self) -> &Head {
        self.head.get_or_init(|| binary_head(&self.event))
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
    used: std::sync::Arc<std::sync::atomic::AtomicU64>,
    bytes: u64,
}

impl Charge {
    /// Takes `bytes` of the limit that `used` counts against.
    pub fn take(used: &std::sync::Arc<std::sync::atomic::AtomicU64>, bytes: u64) -> Self {
        used.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        Self { used: std::sync::Arc::clone(used), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, std::sync::atomic::Ordering::Relaxed);
    }
}
