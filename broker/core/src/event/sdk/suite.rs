//! The SDK as an independent reader and writer, on what it gets right: no JSON type with parameters, no bytes
//! without a content type that happen to be JSON, no encodings of 0.3.

use proptest::prelude::*;

use super::*;
use crate::event::suite::any_event;
use crate::event::{DataForm, json};

fn sdk_reads_it_rightly(event: &Event) -> bool {
    let content_type = event.data_content_type();
    content_type.is_none_or(|content_type| !declares_json(content_type) || content_type == "application/json")
        && (event.spec_version() == SpecVersion::V1 || event.data_form() != DataForm::Raw || event.data().is_none())
        && event.attribute("datacontentencoding").is_none()
        // Its tree refuses unpaired surrogates and numbers beyond a double.
        && (event.data_form() != DataForm::Json
            || event.data_bytes().is_some_and(|json| serde_json::from_slice::<serde_json::Value>(json).is_ok()))
        // Its URL type is not the URI of RFC 3986.
        && event.data_schema().is_none_or(|schema| {
            EventBuilderV10::new().id("1").source("/").ty("t").data_with_schema("a/b", schema, "").build().is_ok()
        })
}

#[test]
fn the_sdk_gets_everything_it_can_hold() {
    let event = Event::builder("1", "/s", "t")
        .subject("x")
        .time("2018-04-05T17:31:00.5+02:00")
        .data_schema("https://example.com/schema")
        .attribute("count", 3)
        .attribute("paid", true)
        .attribute("text", "x")
        .json_data("{\"a\":1}")
        .build()
        .expect("a valid event");
    let sdk = cloudevents::Event::try_from(&event).expect("the SDK can hold it");
    assert_eq!((sdk.id(), sdk.source().as_str(), sdk.ty(), sdk.subject()), ("1", "/s", "t", Some("x")));
    assert_eq!(sdk.time().map(ToString::to_string).as_deref(), Some("2018-04-05 15:31:00.500 UTC"));
    assert_eq!(sdk.dataschema().map(ToString::to_string).as_deref(), Some("https://example.com/schema"));
    assert_eq!(sdk.datacontenttype(), Some("application/json"));
    assert_eq!(sdk.data(), Some(&Data::Json(serde_json::json!({"a": 1}))));
    assert_eq!(sdk.extension("count"), Some(&ExtensionValue::Integer(3)));
    assert_eq!(sdk.extension("paid"), Some(&ExtensionValue::Boolean(true)));
    assert_eq!(sdk.extension("text"), Some(&ExtensionValue::String("x".to_owned())));
    assert_eq!(sdk.iter_extensions().count(), 3);

    let bare = Event::builder("1", "/s", "t").build().expect("a valid event");
    let sdk = cloudevents::Event::try_from(&bare).expect("the SDK can hold it");
    assert_eq!((sdk.time(), sdk.data(), sdk.datacontenttype(), sdk.dataschema()), (None, None, None, None));
    assert_eq!(Event::try_from(sdk), Ok(bare));
}

#[test]
fn what_the_norm_forbids_does_not_come_from_the_sdk() {
    let builder = || EventBuilderV10::new().id("1").source("/s").ty("t");
    let code = |builder: EventBuilderV10| {
        Event::try_from(builder.build().expect("the SDK lets it pass")).unwrap_err().code
    };
    assert_eq!(code(builder().id("")), codes::ATTRIBUTE_EMPTY);
    assert_eq!(code(builder().source("a b")), codes::SOURCE_INVALID);
    assert_eq!(code(builder().extension("my-ext", "x")), codes::ATTRIBUTE_NAME_INVALID);
    assert_eq!(code(builder().extension("big", i64::MAX)), codes::ATTRIBUTE_VALUE_INVALID);
    assert_eq!(code(builder().extension("control", "a\nb")), codes::ATTRIBUTE_VALUE_INVALID);
    assert_eq!(code(builder().data("xyz", "x")), codes::DATA_CONTENT_TYPE_INVALID);
}

proptest! {
    #[test]
    fn the_sdk_reads_what_we_write(event in any_event().prop_filter("right in the SDK", sdk_reads_it_rightly)) {
        let document = json::encode(&event);
        let read: cloudevents::Event = serde_json::from_slice(&document).expect("the SDK reads it");
        let converted = cloudevents::Event::try_from(&event).expect("the SDK can hold it");
        prop_assert_eq!(read, converted);
    }

    #[test]
    fn we_read_what_the_sdk_writes(event in any_event().prop_filter("right in the SDK", sdk_reads_it_rightly)) {
        let sdk = cloudevents::Event::try_from(&event).expect("the SDK can hold it");
        let document = serde_json::to_vec(&sdk).expect("the SDK writes it");
        let read = json::decode(&document);
        prop_assert_eq!(read.map_err(|error| error.code), Event::try_from(sdk).map_err(|error| error.code));
    }
}
