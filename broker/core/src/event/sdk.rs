//! Conversion from and to the event of `cloudevents-sdk`, for programs that embed Waypost's types.
//!
//! The SDK's model is narrower: it keeps `time` as an instant, `dataschema` as a normalised URL, JSON data as a tree,
//! and extensions as text, Boolean or number. What it does not keep is lost on the way there.

use cloudevents::event::SpecVersion as SdkVersion;
use cloudevents::event::{AttributesReader, AttributesWriter, Data, ExtensionValue};
use cloudevents::{EventBuilder as _, EventBuilderV03, EventBuilderV10};

use super::error::InvalidEvent;
use super::json::{Member, data_member};
use super::{AttributeType, AttributeValue, Event, SpecVersion, declares_json};
use crate::codes;

impl TryFrom<&Event> for cloudevents::Event {
    type Error = InvalidEvent;

    /// # Errors
    /// [`InvalidEvent`] for a `time` or a `dataschema` that is valid by the norm and not for the SDK.
    fn try_from(event: &Event) -> Result<Self, InvalidEvent> {
        let refused = |error: cloudevents::event::EventBuilderError| {
            InvalidEvent::new(
                codes::ATTRIBUTE_VALUE_INVALID,
                format!("cloudevents-sdk cannot hold the event: {error}"),
            )
        };
        let mut builder = EventBuilderV10::new().id(event.id()).source(event.source()).ty(event.event_type());
        if let Some(subject) = event.subject() {
            builder = builder.subject(subject);
        }
        if let Some(time) = event.time() {
            builder = builder.time(time);
        }
        // The SDK takes a schema as text only beside data, so data stands in until the schema is read.
        if let Some(schema) = event.data_schema() {
            builder = builder.data_with_schema("text/plain", schema, "");
        }
        let mut converted = builder.build().map_err(refused)?;
        if event.spec_version() == SpecVersion::V03 {
            converted = EventBuilderV03::from(converted).build().map_err(refused)?;
        }
        let (_, schema, _) = converted.take_data();
        if let Some(member) = data_member(event) {
            converted.set_data_unchecked(sdk_data(&member));
        }
        converted.set_datacontenttype(event.data_content_type());
        converted.set_dataschema(schema);
        for (name, value) in event.attributes() {
            if !is_sdk_attribute(event.spec_version(), name) {
                converted.set_extension(name, extension(value.text, value.attribute_type));
            }
        }
        Ok(converted)
    }
}

/// Whether the SDK has a field for the attribute.
fn is_sdk_attribute(version: SpecVersion, name: &str) -> bool {
    matches!(
        (name, version),
        ("id" | "source" | "type" | "subject" | "time" | "datacontenttype", _)
            | ("dataschema", SpecVersion::V1)
            | ("schemaurl", SpecVersion::V03)
    )
}

fn sdk_data(member: &Member<'_>) -> Data {
    match member {
        Member::Json(json) => {
            serde_json::from_slice(json).map_or_else(|_| Data::Binary(json.to_vec()), Data::Json)
        }
        Member::Text(text) => Data::String((*text).to_owned()),
        Member::Base64(bytes) => Data::Binary(bytes.to_vec()),
    }
}

fn extension(text: &str, attribute_type: AttributeType) -> ExtensionValue {
    match attribute_type {
        AttributeType::Boolean => ExtensionValue::Boolean(text == "true"),
        AttributeType::Integer => {
            text.parse().map_or_else(|_| ExtensionValue::String(text.to_owned()), ExtensionValue::Integer)
        }
        _ => ExtensionValue::String(text.to_owned()),
    }
}

impl TryFrom<cloudevents::Event> for Event {
    type Error = InvalidEvent;

    /// # Errors
    /// [`InvalidEvent`] for what the SDK lets pass and the norm does not.
    fn try_from(event: cloudevents::Event) -> Result<Self, InvalidEvent> {
        let mut builder = Event::builder(event.id(), event.source().as_str(), event.ty()).spec_version(
            match event.specversion() {
                SdkVersion::V10 => SpecVersion::V1,
                SdkVersion::V03 => SpecVersion::V03,
            },
        );
        if let Some(subject) = event.subject() {
            builder = builder.subject(subject);
        }
        if let Some(time) = event.time() {
            // The JSON form ends in `Z`, as the SDK itself writes it; its display form does not.
            let text = serde_json::to_value(time).ok();
            builder = builder.time(text.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default());
        }
        if let Some(schema) = event.dataschema() {
            builder = builder.data_schema(schema.as_str());
        }
        if let Some(content_type) = event.datacontenttype() {
            builder = builder.data_content_type(content_type);
        }
        for (name, value) in event.iter_extensions() {
            builder = builder.attribute(name, attribute_value(name, value)?);
        }
        match event.data() {
            Some(Data::Json(json)) => {
                // Under another content type the tree is still what the sender meant by its data.
                let text = json.to_string();
                builder = match event.datacontenttype() {
                    Some(content_type) if !declares_json(content_type) => builder.data(text),
                    _ => builder.json_data(text),
                };
            }
            Some(Data::String(text)) => builder = builder.text_data(text.as_str()),
            Some(Data::Binary(bytes)) => builder = builder.data(bytes.clone()),
            None => {}
        }
        builder.build()
    }
}

fn attribute_value(name: &str, value: &ExtensionValue) -> Result<AttributeValue, InvalidEvent> {
    Ok(match value {
        ExtensionValue::String(text) => text.as_str().into(),
        ExtensionValue::Boolean(value) => (*value).into(),
        ExtensionValue::Integer(number) => i32::try_from(*number)
            .map_err(|_| {
                InvalidEvent::of(
                    codes::ATTRIBUTE_VALUE_INVALID,
                    name,
                    format!("`{name}` is {number}: an Integer of CloudEvents has 32 bits, send a string"),
                )
            })?
            .into(),
    })
}

#[cfg(test)]
mod suite;
