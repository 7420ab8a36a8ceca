//! The events of records that follow each other in a partition, which mostly differ in few attributes.

use std::fmt::Write as _;

use jiff::Timestamp;
use waypost_clients::kafka::rdkafka::Message;
use waypost_core::Event;
use waypost_core::event::kafka::{Header, Precedent};
use waypost_core::event::{AttributeType, Unfilled};

use super::RecordNaming;
use super::record::{PARTITION_KEY, value_of};

/// How often the records of one commit may each be kept as what the next ones are like: where none is like the one before
/// it, keeping them all would cost more than it saves.
const MOST_PRECEDENTS: u8 = 16;

/// What is kept of the records before, of which the events of those behind them are made.
#[derive(Default)]
pub(super) struct Before {
    plain: Option<Box<Pattern>>,
    event: Option<Precedent>,
    precedents: u8,
}

impl Before {
    /// The event of a record that is like one before it.
    pub(super) fn event_of<'r>(
        &mut self,
        record: &'r impl Message,
        headers: &[Header<'_>],
    ) -> Option<Unfilled<'r>> {
        if headers.is_empty() {
            return self.plain.as_mut()?.event_of(record);
        }
        let precedent = self.event.as_ref()?;
        let key = record.key().filter(|key| !key.is_empty()).map(value_of);
        let key = key.as_ref().map(|key| (PARTITION_KEY, (key.text(), key.attribute_type())));
        precedent.decode(headers, record.payload(), key)
    }

    /// Keeps a plain record without headers, which became `event` by `naming`.
    pub(super) fn keep_plain(&mut self, naming: RecordNaming, record: &impl Message, event: &Event) {
        self.plain = Some(Box::new(Pattern::of(naming, record, event.clone())));
    }

    /// Keeps a record that carries `event`.
    pub(super) fn keep_event(&mut self, headers: &[Header<'_>], event: &Event) {
        if self.precedents < MOST_PRECEDENTS {
            self.precedents += 1;
            self.event = Precedent::of(headers, event.clone());
        }
    }
}

/// The event of a plain record without headers, of which those of the records behind it are made: they have most
/// of it in common.
struct Pattern {
    naming: RecordNaming,
    topic: String,
    partition: i32,
    event: Event,
    id: Numbered,
    knative_subject: Numbered,
    /// That of the record before, where it had one.
    time: Option<Time>,
}

impl Pattern {
    /// `event` is that of `record`, made by `naming`.
    fn of(naming: RecordNaming, record: &impl Message, event: Event) -> Self {
        let (topic, partition) = (record.topic().to_owned(), record.partition());
        Self {
            naming,
            id: Numbered::new(naming.id_prefix(&topic, partition)),
            knative_subject: Numbered::new(RecordNaming::knative_subject_prefix(partition)),
            topic,
            partition,
            event,
            time: None,
        }
    }

    /// The event of a record without headers; none where it is of another partition, or holds what no event may.
    fn event_of<'r>(&mut self, record: &'r impl Message) -> Option<Unfilled<'r>> {
        if record.partition() != self.partition || record.topic() != self.topic {
            return None;
        }
        let mut digits = itoa::Buffer::new();
        let offset = digits.format(record.offset());
        let string = |text| Some((text, AttributeType::String));
        let key = record.key().filter(|key| !key.is_empty()).map(value_of);
        let key = key.as_ref().map(|key| (key.text(), key.attribute_type()));
        let at = record.timestamp().to_millis().and_then(|at| Timestamp::from_millisecond(at).ok());
        let id = ("id", string(self.id.with(offset)));
        let number = ("kafkaoffset", string(offset));
        let time = ("time", at.and_then(|at| string(Time::text(&mut self.time, at))));
        let partition_key = (PARTITION_KEY, key);
        let data = record.payload();
        let event = match self.naming {
            RecordNaming::Waypost | RecordNaming::TriggerMesh => {
                self.event.like(&[id, number, time, partition_key], data)
            }
            RecordNaming::Knative => {
                let subject = ("subject", string(self.knative_subject.with(offset)));
                self.event.like(&[id, subject, number, time, partition_key, ("key", key)], data)
            }
        };
        event.ok()
    }
}

/// A text that ends with a number.
struct Numbered {
    text: String,
    prefix: usize,
}

impl Numbered {
    fn new(prefix: String) -> Self {
        Self { prefix: prefix.len(), text: prefix }
    }

    fn with(&mut self, digits: &str) -> &str {
        self.text.truncate(self.prefix);
        self.text.push_str(digits);
        &self.text
    }
}

/// The time of a record as text: many have the same.
struct Time {
    at: Timestamp,
    text: String,
}

impl Time {
    fn text(last: &mut Option<Self>, at: Timestamp) -> &str {
        let last = last.get_or_insert_with(|| Self { at, text: at.to_string() });
        if last.at != at {
            last.at = at;
            last.text.clear();
            write!(last.text, "{at}").expect("a string takes what is written to it");
        }
        &last.text
    }
}
