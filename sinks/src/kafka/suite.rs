use serde_json::json;
use waypost_core::Class;
use waypost_core::event::AttributeValue;

use super::*;

fn config(more: &serde_json::Value) -> KafkaConfig {
    let mut settings = json!({"bootstrapServers": ["a:9092"], "topic": "orders"});
    let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) else { unreachable!() };
    all.extend(more.clone());
    serde_json::from_value(settings).unwrap()
}

fn event() -> Event {
    Event::builder("1", "/s", "placed")
        .data_content_type("application/json")
        .attribute("partitionkey", "k")
        .data(r#"{"id": "A"}"#)
        .build()
        .unwrap()
}

fn header<'w>(written: &'w Written, name: &str) -> Option<&'w str> {
    written.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

#[test]
fn binary_mode_is_the_default_and_the_key_is_the_partition_key() {
    let written = config(&json!({})).write(&event()).unwrap();
    assert_eq!(written.topic, "orders");
    assert_eq!(written.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(written.value.as_deref(), Some(&br#"{"id": "A"}"#[..]));
    assert_eq!(header(&written, "ce_id"), Some("1"));
    assert_eq!(header(&written, "ce_partitionkey"), Some("k"));
    assert_eq!(header(&written, "content-type"), Some("application/json"));
    let empty = Event::builder("1", "/s", "t").build().unwrap();
    let written = config(&json!({})).write(&empty).unwrap();
    assert_eq!((written.key, written.value), (None, None));
}

#[test]
fn the_other_formats() {
    let written = config(&json!({"format": "structured"})).write(&event()).unwrap();
    assert_eq!(written.headers, [("content-type".to_owned(), STRUCTURED_JSON.to_owned())]);
    assert_eq!(json::decode(&written.value.unwrap()).unwrap(), event());
    let written = config(&json!({"format": "data"})).write(&event()).unwrap();
    assert_eq!(written.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    assert_eq!(written.value.as_deref(), event().data_bytes());
    // An event within an event would be taken for a structured one.
    let nested = event().with_attribute("datacontenttype", "application/cloudevents+json").unwrap();
    let written = config(&json!({})).write(&nested).unwrap();
    assert_eq!(header(&written, "content-type"), Some(STRUCTURED_JSON));
}

#[test]
fn topic_and_key_come_from_templates_and_what_the_event_lacks_is_permanent() {
    let config = config(&json!({"topic": "orders-${type}", "key": "${$.id}"}));
    let written = config.write(&event()).unwrap();
    assert_eq!((written.topic.as_str(), written.key.as_deref()), ("orders-placed", Some(&b"A"[..])));
    let error = config.write(&Event::builder("1", "/s", "t").build().unwrap()).unwrap_err();
    assert_eq!((error.class, error.code), (Class::Permanent, codes::TEMPLATE_NOT_RENDERED));
}

#[test]
fn a_key_that_came_as_bytes_goes_as_bytes() {
    let event = event().with_attribute("partitionkey", AttributeValue::binary(b"\x00\xff")).unwrap();
    assert_eq!(config(&json!({})).write(&event).unwrap().key.as_deref(), Some(&b"\x00\xff"[..]));
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    let problems = config(&json!({"topic": "", "bootstrapServers": ["a"]})).validate();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["bootstrapServers[0]", "topic"]);
}
