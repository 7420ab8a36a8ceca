use serde_json::json;
use waypost_core::Class;

use super::*;

fn config(more: &serde_json::Value) -> NatsConfig {
    let mut settings = json!({"servers": ["nats://a:4222"], "subject": "orders"});
    let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) else { unreachable!() };
    all.extend(more.clone());
    serde_json::from_value(settings).unwrap()
}

fn event() -> Event {
    Event::builder("1 a", "/s", "placed")
        .subject("ä")
        .data_content_type("application/json")
        .data(r#"{"id": "A"}"#)
        .build()
        .unwrap()
}

fn header(written: &Written, name: &str) -> Option<String> {
    written.headers.get(name).map(ToString::to_string)
}

#[test]
fn binary_mode_is_the_default_and_a_stream_can_tell_repeats() {
    let written = config(&json!({})).write(&event()).unwrap();
    assert_eq!((written.subject.as_str(), &*written.payload), ("orders", &br#"{"id": "A"}"#[..]));
    assert_eq!(header(&written, "Nats-Msg-Id").as_deref(), Some("/s 1%20a"));
    assert_eq!(header(&written, "ce-subject").as_deref(), Some("%C3%A4"));
    assert_eq!(header(&written, "ce-datacontenttype").as_deref(), Some("application/json"));
    assert_eq!(header(&written, "Content-Type"), None);
    let written = config(&json!({"delivery": "core"})).write(&event()).unwrap();
    assert_eq!(header(&written, "Nats-Msg-Id"), None);
    let empty = Event::builder("1", "/s", "t").build().unwrap();
    assert!(config(&json!({})).write(&empty).unwrap().payload.is_empty());
}

#[test]
fn the_other_formats() {
    let written = config(&json!({"format": "structured"})).write(&event()).unwrap();
    assert_eq!(header(&written, "Content-Type").as_deref(), Some(STRUCTURED_JSON));
    assert_eq!(json::decode(&written.payload).unwrap(), event());
    let written = config(&json!({"format": "data"})).write(&event()).unwrap();
    assert_eq!(header(&written, "Content-Type").as_deref(), Some("application/json"));
    assert_eq!(header(&written, "ce-id"), None);
    // An event within an event would be taken for a structured one.
    let nested = event().with_attribute("datacontenttype", "application/cloudevents+json").unwrap();
    let written = config(&json!({})).write(&nested).unwrap();
    assert_eq!(header(&written, "Content-Type").as_deref(), Some(STRUCTURED_JSON));
}

#[test]
fn a_subject_that_the_event_cannot_make_is_permanent() {
    let config = config(&json!({"subject": "orders.${$.id}.${type}"}));
    assert_eq!(config.write(&event()).unwrap().subject, "orders.A.placed");
    let error = config.write(&Event::builder("1", "/s", "t").build().unwrap()).unwrap_err();
    assert_eq!((error.class, error.code), (Class::Permanent, codes::TEMPLATE_NOT_RENDERED));
    for wrong in ["a b", "", ".a", ">", "a*"] {
        let event = event().with_attribute("type", "x").unwrap();
        let config: NatsConfig = self::config(&json!({"subject": format!("orders.{wrong}${{subject|}}")}));
        let event = if wrong.is_empty() { Event::builder("1", "/s", "t").build().unwrap() } else { event };
        let error = config.write(&event).unwrap_err();
        assert_eq!((error.class, error.code), (Class::Permanent, codes::SINK_REFUSED), "{wrong}");
    }
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    for (more, path) in [
        (json!({"subject": ""}), "subject"),
        (json!({"subject": "a.>"}), "subject"),
        (json!({"servers": []}), "servers"),
        (json!({"servers": ["nats://u:p@a"]}), "servers[0]"),
        (json!({"tls": {"key": {"value": "x"}}}), "tls"),
    ] {
        let problems = config(&more).validate();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, [path], "{more}");
    }
    assert!(config(&json!({"subject": "a.${type}", "tls": {}})).validate().is_empty());
}
