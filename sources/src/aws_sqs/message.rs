//! What events a message of SQS becomes.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use waypost_clients::aws::sqs::Message;
use waypost_core::Event;
use waypost_core::event::AttributeValue;

use super::{AwsSqsConfig, DataShape, unwrapped};

/// What an event is made of.
pub(super) struct Draft {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) event_type: String,
    pub(super) subject: Option<String>,
    pub(super) time: Option<String>,
    pub(super) attributes: Vec<(String, AttributeValue)>,
    /// JSON where it is JSON, else text.
    pub(super) data: String,
}

impl Draft {
    /// The event. What someone else decided and that breaks a rule of events is left out, so that there is always one.
    pub(super) fn event(self) -> Event {
        let built = |draft: &Self, whole: bool| {
            let mut builder = Event::builder(&*draft.id, &*draft.source, &*draft.event_type);
            if whole {
                if let Some(subject) = &draft.subject {
                    builder = builder.subject(subject);
                }
                if let Some(time) = &draft.time {
                    builder = builder.time(time);
                }
                for (name, value) in &draft.attributes {
                    builder = builder.attribute(name, value.clone());
                }
            }
            let is_json = serde_json::from_str::<&RawValue>(&draft.data).is_ok();
            builder = if is_json {
                builder.data_content_type("application/json").json_data(draft.data.clone())
            } else if draft.data.is_empty() {
                builder
            } else {
                builder.data_content_type("text/plain").text_data(&*draft.data)
            };
            builder.build().ok()
        };
        built(&self, true).or_else(|| built(&self, false)).unwrap_or_else(|| {
            let builder = Event::builder(safe_id(&self.id), "/aws/sqs", "com.amazon.sqs.message");
            let builder = builder.attribute("sqsfault", "its type or source is no attribute of an event");
            builder.data(self.data.into_bytes()).build().expect("a plain id and constants are an event")
        })
    }
}

/// An id without what an attribute must not hold.
fn safe_id(id: &str) -> String {
    let safe: String = id.chars().filter(char::is_ascii_graphic).collect();
    if safe.is_empty() { "unknown".to_owned() } else { safe }
}

/// The events that a message becomes: at least one.
pub(super) fn events_of(config: &AwsSqsConfig, arn: &str, message: &Message) -> Vec<Event> {
    let fault = match unwrapped::unwrap(&config.unwrap, arn, message) {
        Ok(drafts) if !drafts.is_empty() => return drafts.into_iter().map(Draft::event).collect(),
        Ok(_) => None,
        Err(fault) => Some(fault),
    };
    vec![plain(config, arn, message, fault).event()]
}

fn plain(config: &AwsSqsConfig, arn: &str, message: &Message, fault: Option<String>) -> Draft {
    let system = |name: &str| message.attributes.get(name).map(String::as_str);
    let mut attributes = message_attributes(message);
    if let Some(count) = system("ApproximateReceiveCount").and_then(|count| count.parse::<i32>().ok()) {
        attributes.push(("sqsreceivecount".to_owned(), count.into()));
    }
    for (name, attribute) in [
        ("MessageGroupId", "partitionkey"),
        ("SequenceNumber", "sqssequencenumber"),
        ("MessageDeduplicationId", "sqsdeduplicationid"),
    ] {
        if let Some(value) = system(name).filter(|value| !value.is_empty()) {
            attributes.push((attribute.to_owned(), value.into()));
        }
    }
    if let Some(fault) = fault {
        attributes.push(("sqsfault".to_owned(), fault.into()));
    }
    let sent = system("SentTimestamp").and_then(|at| at.parse().ok());
    let sent = sent.and_then(|at| Timestamp::from_millisecond(at).ok());
    Draft {
        id: message.message_id.clone(),
        source: config.event_source.clone().unwrap_or_else(|| arn.to_owned()),
        event_type: config.event_type.clone(),
        subject: None,
        time: sent.map(|at| at.to_string()),
        attributes,
        data: match config.data {
            DataShape::Body => message.body.clone().unwrap_or_default(),
            DataShape::Message => as_sdk(message),
        },
    }
}

fn message_attributes(message: &Message) -> Vec<(String, AttributeValue)> {
    let attributes = message.message_attributes.iter().filter_map(|(name, value)| {
        let text = value.string_value.as_deref()?;
        Some((attribute_name("sqsmsg", name)?, AttributeValue::from(text)))
    });
    attributes.collect()
}

/// The attribute of a name: a-z and 0-9 of it behind a prefix.
pub(super) fn attribute_name(prefix: &str, name: &str) -> Option<String> {
    let letters: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    (!letters.is_empty()).then(|| format!("{prefix}{letters}"))
}

/// The message as AWS's SDK for Go prints it, with a body that is JSON as it is.
fn as_sdk(message: &Message) -> String {
    let attributes: serde_json::Map<String, Value> = message
        .message_attributes
        .iter()
        .map(|(name, value)| {
            let shape = json!({
                "BinaryListValues": null,
                "BinaryValue": value.binary_value,
                "DataType": value.data_type,
                "StringListValues": null,
                "StringValue": value.string_value,
            });
            (name.clone(), shape)
        })
        .collect();
    let rest = json!({
        "Attributes": message.attributes,
        "MD5OfBody": message.md5_of_body,
        "MD5OfMessageAttributes": message.md5_of_message_attributes,
        "MessageAttributes": if attributes.is_empty() { Value::Null } else { Value::Object(attributes) },
        "MessageId": message.message_id,
        "ReceiptHandle": message.receipt_handle,
    });
    let body = match &message.body {
        None => "null".to_owned(),
        // Byte for byte: numbers keep their digits.
        Some(body) if serde_json::from_str::<&RawValue>(body).is_ok() => body.clone(),
        Some(body) => Value::from(body.as_str()).to_string(),
    };
    let mut text = String::with_capacity(body.len() + 512);
    text.push_str("{\"Body\":");
    text.push_str(&body);
    let rest = rest.to_string();
    // Behind the brace that opens the rest.
    write!(text, ",{}", &rest[1..]).expect("a string takes all");
    text
}
