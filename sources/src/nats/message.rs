//! What event a message of NATS becomes.

use jiff::Timestamp;
use waypost_clients::nats::async_nats::HeaderMap;
use waypost_core::event::nats::{Header, decode};
use waypost_core::event::{AttributeValue, EventBuilder};
use waypost_core::manifest::ResourceName;
use waypost_core::{Code, Event, codes};

use super::NatsConfig;

/// Where a message stands in its stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'m> {
    pub(super) stream: &'m str,
    pub(super) sequence: u64,
    /// When the stream got it.
    pub(super) time: Option<Timestamp>,
}

/// A message, from a stream or without one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'m> {
    pub(super) subject: &'m str,
    pub(super) headers: Option<&'m HeaderMap>,
    pub(super) payload: &'m [u8],
    pub(super) place: Option<Place<'m>>,
}

/// The event that a message becomes. There is always one: what cannot be taken over is left out.
pub(super) fn event_of(config: &NatsConfig, name: &ResourceName, message: &Incoming<'_>) -> Event {
    let headers: Vec<Header<'_>> = message
        .headers
        .into_iter()
        .flat_map(|map| map.iter())
        .flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())))
        .collect();
    let fault = match decode(&headers, message.payload) {
        Ok(Some(event)) => return event,
        Ok(None) => None,
        Err(error) => Some(error.code),
    };
    let plain = Plain { config, name, message, headers: &headers, fault };
    plain.event(true).or_else(|| plain.event(false)).unwrap_or_else(|| plain.bare())
}

/// A message that carries no event.
struct Plain<'m> {
    config: &'m NatsConfig,
    name: &'m ResourceName,
    message: &'m Incoming<'m>,
    headers: &'m [Header<'m>],
    fault: Option<Code>,
}

impl Plain<'_> {
    fn id(&self) -> String {
        if let Some(place) = &self.message.place {
            return format!("{}/{}", place.stream, place.sequence);
        }
        let given = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Nats-Msg-Id"));
        match given {
            Some((_, id)) if !id.is_empty() && !id.contains(char::is_control) => (*id).to_owned(),
            _ => uuid::Uuid::now_v7().to_string(),
        }
    }

    /// The event, with or without what the producer decided; none where that breaks a rule of events.
    fn event(&self, with_headers: bool) -> Option<Event> {
        let source = self.config.event_source.clone().unwrap_or_else(|| {
            let ResourceName { namespace, name } = self.name;
            format!("/apis/waypost.dev/v1alpha1/namespaces/{namespace}/sources/{name}")
        });
        let mut builder = Event::builder(self.id(), source, self.config.event_type.clone())
            .attribute("natssubject", self.message.subject.to_owned());
        if let Some(place) = &self.message.place {
            builder = builder
                .attribute("natsstream", place.stream.to_owned())
                .attribute("natssequence", place.sequence.to_string());
            if let Some(time) = place.time {
                builder = builder.time(time.to_string());
            }
        }
        if let Some(fault) = self.fault {
            builder = builder.attribute("natsfault", fault.id().to_owned());
        }
        if with_headers {
            for (name, value) in self.headers {
                if name.eq_ignore_ascii_case("Content-Type") {
                    // What claims to be an event and is none is not called one again.
                    if self.fault.is_none() {
                        builder = builder.data_content_type((*value).to_owned());
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
        let builder = Event::builder(self.id(), "/nats", "dev.waypost.nats.message")
            .attribute("natsfault", self.fault.unwrap_or(codes::SOURCE_MISCONFIGURED).id().to_owned());
        self.with_data(builder).build().expect("an id, a constant source and a constant type are an event")
    }

    fn with_data(&self, builder: EventBuilder) -> EventBuilder {
        if self.message.payload.is_empty() { builder } else { builder.data(self.message.payload.to_vec()) }
    }
}

/// A header value as an attribute: text where events can hold it, else base64.
fn value_of(text: &str) -> AttributeValue {
    if text.contains(char::is_control) {
        AttributeValue::binary(text.as_bytes())
    } else {
        AttributeValue::from(text.to_owned())
    }
}

/// The attribute of a header: a-z and 0-9 of its name.
fn attribute_name(header: &str) -> Option<String> {
    let letters: String = header
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    (!letters.is_empty()).then(|| format!("natsheader{letters}"))
}
