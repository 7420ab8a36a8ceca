//! What event a record of Kafka becomes.

use jiff::Timestamp;
use smallvec::SmallVec;
use waypost_clients::kafka::rdkafka::Message;
use waypost_clients::kafka::rdkafka::message::Headers as _;
use waypost_core::event::kafka::{Header, decode};
use waypost_core::event::{AttributeValue, EventBuilder, Unfilled};
use waypost_core::manifest::ResourceName;
use waypost_core::{Code, Event, codes};

use super::pattern::Before;
use super::{KafkaConfig, RecordNaming};

/// The attribute that the key of a record is.
pub(super) const PARTITION_KEY: &str = "partitionkey";

/// As many headers as most records have.
type Headers<'r> = SmallVec<[Header<'r>; 8]>;

/// The event that a record becomes. There is always one: what cannot be taken over is left out. `before` is kept from one
/// record to the next, and changes nothing but the time that it takes.
pub(super) fn event_of<'r>(
    config: &KafkaConfig,
    name: &ResourceName,
    record: &'r impl Message,
    before: &mut Before,
) -> Unfilled<'r> {
    let headers: Headers<'_> = record
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key, header.value)).collect())
        .unwrap_or_default();
    if let Some(event) = before.event_of(record, &headers) {
        return event;
    }
    let fault = match decode(&headers, record.payload()) {
        Ok(Some(event)) => {
            before.keep_event(&headers, &event);
            return with_key(event, record.key()).into();
        }
        Ok(None) => None,
        Err(error) => Some(error.code),
    };
    let plain = Plain { config, name, record, headers: &headers, fault };
    let event = plain.event(true);
    // Headers may make any attribute differ from that of the record before.
    if headers.is_empty()
        && let Some(event) = &event
    {
        before.keep_plain(config.record_naming, record, event);
    }
    event.or_else(|| plain.event(false)).unwrap_or_else(|| plain.bare()).into()
}

/// Adds the key of the record where the event says nothing about it.
fn with_key(event: Event, key: Option<&[u8]>) -> Event {
    let Some(key) = key.filter(|key| !key.is_empty()) else { return event };
    if event.attribute(PARTITION_KEY).is_some() {
        return event;
    }
    event.with_attribute(PARTITION_KEY, value_of(key)).unwrap_or(event)
}

/// Bytes as an attribute: text where they are text, else base64.
pub(super) fn value_of(bytes: &[u8]) -> AttributeValue {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => AttributeValue::from(text.to_owned()),
        _ => AttributeValue::binary(bytes),
    }
}

impl RecordNaming {
    /// What the id of an event begins with; the offset follows.
    pub(super) fn id_prefix(self, topic: &str, partition: i32) -> String {
        match self {
            Self::Waypost | Self::TriggerMesh => format!("{topic}/{partition}/"),
            Self::Knative => format!("partition:{partition}/offset:"),
        }
    }

    /// What the subject of an event begins with under Knative's names; the offset follows.
    pub(super) fn knative_subject_prefix(partition: i32) -> String {
        format!("partition:{partition}#")
    }
}

/// A record that carries no event.
struct Plain<'r, M> {
    config: &'r KafkaConfig,
    name: &'r ResourceName,
    record: &'r M,
    headers: &'r [Header<'r>],
    fault: Option<Code>,
}

impl<M: Message> Plain<'_, M> {
    fn builder(&self) -> EventBuilder {
        let (topic, partition, offset) = (self.record.topic(), self.record.partition(), self.record.offset());
        let source = || {
            self.config.event_source.clone().unwrap_or_else(|| {
                let ResourceName { namespace, name } = self.name;
                format!("/apis/waypost.dev/v1alpha1/namespaces/{namespace}/sources/{name}")
            })
        };
        let named = |default: &str| self.config.event_type.clone().unwrap_or_else(|| default.to_owned());
        let naming = self.config.record_naming;
        let id = naming.id_prefix(topic, partition) + &offset.to_string();
        match naming {
            RecordNaming::Waypost => Event::builder(id, source(), named("dev.waypost.kafka.record")),
            RecordNaming::Knative => {
                Event::builder(id, format!("{}#{topic}", source()), named("dev.knative.kafka.event"))
                    .subject(RecordNaming::knative_subject_prefix(partition) + &offset.to_string())
            }
            RecordNaming::TriggerMesh => {
                let source = self.config.event_source.clone().unwrap_or_else(|| topic.to_owned());
                Event::builder(id, source, named("io.triggermesh.kafka.event"))
                    .subject("kafka/event")
                    .data_content_type("application/json")
            }
        }
    }

    /// The event, with or without what the producer decided; none where that breaks a rule of events.
    fn event(&self, with_headers: bool) -> Option<Event> {
        let record = self.record;
        let mut builder = self
            .builder()
            .attribute("kafkatopic", record.topic().to_owned())
            .attribute("kafkapartition", record.partition())
            .attribute("kafkaoffset", record.offset().to_string());
        if let Some(time) = record.timestamp().to_millis().and_then(|at| Timestamp::from_millisecond(at).ok())
        {
            builder = builder.time(time.to_string());
        }
        if let Some(fault) = self.fault {
            builder = builder.attribute("kafkafault", fault.id().to_owned());
        }
        if with_headers {
            if let Some(key) = record.key().filter(|key| !key.is_empty()) {
                builder = builder.attribute(PARTITION_KEY, value_of(key));
                if self.config.record_naming == RecordNaming::Knative {
                    builder = builder.attribute("key", value_of(key));
                }
            }
            for (name, value) in self.headers {
                let Some(value) = value else { continue };
                if name.eq_ignore_ascii_case("content-type") {
                    // What claims to be an event and is none is not called one again.
                    if self.fault.is_none()
                        && let Ok(content_type) = std::str::from_utf8(value)
                    {
                        builder = builder.data_content_type(content_type.to_owned());
                    }
                } else if let Some(name) = attribute_name(name) {
                    builder = builder.attribute(name, value_of(value));
                }
            }
        }
        if let Some(data) = record.payload() {
            builder = builder.data(data.to_vec());
        }
        builder.build().ok()
    }

    /// What no producer can break, with the data as it is.
    fn bare(&self) -> Event {
        let builder = Event::builder(self.builder_id(), "/kafka", "dev.waypost.kafka.record")
            .attribute("kafkafault", self.fault.unwrap_or(codes::SOURCE_MISCONFIGURED).id().to_owned());
        let builder = match self.record.payload() {
            Some(data) => builder.data(data.to_vec()),
            None => builder,
        };
        builder.build().expect("an id, a constant source and a constant type are an event")
    }

    fn builder_id(&self) -> String {
        format!("{}/{}/{}", self.record.topic(), self.record.partition(), self.record.offset())
    }
}

/// The attribute of a header: a-z and 0-9 of its name.
fn attribute_name(header: &str) -> Option<String> {
    let letters: String = header
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    (!letters.is_empty()).then(|| format!("kafkaheader{letters}"))
}
