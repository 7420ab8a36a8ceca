//! What event a message of Pub/Sub becomes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;
use waypost_clients::google::PubsubMessage;
use waypost_core::event::kafka::{Header, decode};
use waypost_core::event::{AttributeValue, EventBuilder};
use waypost_core::manifest::ResourceName;
use waypost_core::{Code, Event, codes};

use super::{GooglePubSubConfig, PubSubPayload};

/// When the topic got a message.
pub(crate) fn time_of(message: &PubsubMessage) -> Option<Timestamp> {
    message.publish_time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
}

/// The event that a message becomes. There is always one: what cannot be taken over is left out.
pub(super) fn event_of(config: &GooglePubSubConfig, name: &ResourceName, message: &PubsubMessage) -> Event {
    let fault = match (config.payload, carried(message)) {
        (PubSubPayload::Message, _) | (PubSubPayload::Data, Ok(None)) => None,
        (PubSubPayload::Data, Ok(Some(event))) => return with_key(event, &message.ordering_key),
        (PubSubPayload::Data, Err(fault)) => Some(fault),
    };
    let plain = Plain { config, name, message, fault };
    plain.event(true).or_else(|| plain.event(false)).unwrap_or_else(|| plain.bare())
}

/// The event that a message carries. The binding has the rules of that for Kafka, but for the prefix: nothing is encoded,
/// and the content type stands without it.
fn carried(message: &PubsubMessage) -> Result<Option<Event>, Code> {
    let named: Vec<_> = message
        .attributes
        .iter()
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let name = name.strip_prefix("ce-").map_or(name.clone(), |name| format!("ce_{name}"));
            (name, value)
        })
        .collect();
    let headers: Vec<Header<'_>> =
        named.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect();
    // Pub/Sub does not tell no data from empty data.
    let data = (!message.data.is_empty()).then_some(message.data.as_slice());
    decode(&headers, data).map_err(|error| error.code)
}

/// Adds the ordering key where the event says nothing about it.
fn with_key(event: Event, key: &str) -> Event {
    if key.is_empty() || event.attribute("partitionkey").is_some() {
        return event;
    }
    event.with_attribute("partitionkey", value_of(key)).unwrap_or(event)
}

/// Text as an attribute: as it is where events can hold it, else in base64.
fn value_of(text: &str) -> AttributeValue {
    if text.contains(char::is_control) {
        AttributeValue::binary(text.as_bytes())
    } else {
        AttributeValue::from(text.to_owned())
    }
}

/// A message that carries no event.
struct Plain<'m> {
    config: &'m GooglePubSubConfig,
    name: &'m ResourceName,
    message: &'m PubsubMessage,
    fault: Option<Code>,
}

impl Plain<'_> {
    /// The event, with or without the attributes of the message; none where that breaks a rule of events.
    fn event(&self, with_attributes: bool) -> Option<Event> {
        let message = self.message;
        let source = self.config.event_source.clone().unwrap_or_else(|| {
            let ResourceName { namespace, name } = self.name;
            format!("/apis/waypost.dev/v1alpha1/namespaces/{namespace}/sources/{name}")
        });
        let mut builder = Event::builder(message.message_id.clone(), source, self.config.event_type.clone());
        if let Some(time) = time_of(message) {
            builder = builder.time(time.to_string());
        }
        if let Some(fault) = self.fault {
            builder = builder.attribute("pubsubfault", fault.id().to_owned());
        }
        if !message.ordering_key.is_empty() {
            builder = builder.attribute("partitionkey", value_of(&message.ordering_key));
        }
        if with_attributes {
            let mut attributes: Vec<_> = message.attributes.iter().collect();
            attributes.sort_unstable();
            for (name, value) in attributes {
                if name.eq_ignore_ascii_case("Content-Type") && self.config.payload == PubSubPayload::Data {
                    // What claims to be an event and is none is not called one again.
                    if self.fault.is_none() {
                        builder = builder.data_content_type(value.clone());
                    }
                } else if let Some(name) = attribute_name(name) {
                    builder = builder.attribute(name, value_of(value));
                }
            }
        }
        self.with_data(builder).build().ok()
    }

    /// What no producer can break, with the data as it is.
    fn bare(&self) -> Event {
        let builder = Event::builder(
            self.message.message_id.clone(),
            "/googlePubSub",
            "dev.waypost.googlepubsub.message",
        );
        let fault = self.fault.unwrap_or(codes::SOURCE_MISCONFIGURED).id().to_owned();
        let bare = self.with_data(builder.attribute("pubsubfault", fault)).build();
        bare.unwrap_or_else(|_| {
            let id = uuid::Uuid::now_v7().to_string();
            let builder = Event::builder(id, "/googlePubSub", "dev.waypost.googlepubsub.message");
            self.with_data(builder)
                .build()
                .expect("an id, a constant source and a constant type are an event")
        })
    }

    fn with_data(&self, builder: EventBuilder) -> EventBuilder {
        match self.config.payload {
            PubSubPayload::Message => {
                builder.data_content_type("application/json").data(whole(self.message).into_bytes())
            }
            PubSubPayload::Data if self.message.data.is_empty() => builder,
            PubSubPayload::Data => builder.data(self.message.data.clone()),
        }
    }
}

/// A message as TriggerMesh has it: as Go's client writes it in JSON.
fn whole(message: &PubsubMessage) -> String {
    let attributes: std::collections::BTreeMap<_, _> = message.attributes.iter().collect();
    json!({
        "ID": message.message_id,
        "Data": STANDARD.encode(&message.data),
        "Attributes": attributes,
        "PublishTime": time_of(message).map(|time| time.to_string()),
        "DeliveryAttempt": null,
        "OrderingKey": message.ordering_key,
    })
    .to_string()
}

/// The attribute of an event for one of a message: a-z and 0-9 of its name.
fn attribute_name(name: &str) -> Option<String> {
    let letters: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    (!letters.is_empty()).then(|| format!("pubsubmsg{letters}"))
}
