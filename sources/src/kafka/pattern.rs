//! The events of plain records that follow each other in a partition, which differ in few attributes.

use std::fmt::Write as _;

use jiff::Timestamp;
use waypost_clients::kafka::rdkafka::Message;
use waypost_core::Event;
use waypost_core::event::AttributeType;

use super::RecordNaming;
use super::record::value_of;

/// The event of a plain record without headers, of which those of the records behind it are made: they have most
/// of it in common.
pub(super) struct Pattern {
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
    pub(super) fn of(naming: RecordNaming, record: &impl Message, event: Event) -> Self {
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
    pub(super) fn event_of(&mut self, record: &impl Message) -> Option<Event> {
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
        let partition_key = ("partitionkey", key);
        let data = record.payload();
        let event = match self.naming {
            RecordNaming::Waypost | RecordNaming::TriggerMesh => {
                self.event.with_changes(&[id, number, time, partition_key], data)
            }
            RecordNaming::Knative => {
                let subject = ("subject", string(self.knative_subject.with(offset)));
                self.event.with_changes(&[id, subject, number, time, partition_key, ("key", key)], data)
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
