use jiff::Timestamp;
use serde_json::json;
use waypost_clients::nats::async_nats::HeaderMap;
use waypost_core::Event;

use super::message::{Incoming, Place};
use super::*;

fn config(more: &serde_json::Value) -> NatsConfig {
    let mut settings = json!({"servers": ["nats://a:4222"], "subjects": ["orders"]});
    let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) else { unreachable!() };
    all.extend(more.clone());
    all.retain(|_, value| !value.is_null());
    serde_json::from_value(settings).unwrap()
}

fn event_of(headers: &[(&str, &str)], payload: &[u8], in_stream: bool) -> Event {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    let time = Timestamp::from_second(1_700_000_000).ok();
    let place = in_stream.then_some(Place { stream: "ORDERS", sequence: 42, time });
    let headers = (!headers.is_empty()).then_some(&map);
    let message = Incoming { subject: "orders.eu", headers, payload, place };
    message::event_of(&config(&json!({})), &ResourceName::new("shop", "in"), &message)
}

fn text<'e>(event: &'e Event, name: &str) -> Option<&'e str> {
    event.attribute(name).map(|value| value.text)
}

#[test]
fn a_plain_message_is_wrapped_with_an_id_that_is_its_place() {
    let headers = [("Content-Type", "text/plain"), ("X-Trace", "abc"), ("Nats-Msg-Id", "given")];
    let event = event_of(&headers, b"data", true);
    assert_eq!(event.id(), "ORDERS/42");
    assert_eq!(event.source(), "/apis/waypost.dev/v1alpha1/namespaces/shop/sources/in");
    assert_eq!(event.event_type(), "dev.waypost.nats.message");
    assert_eq!(event.time(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(event.data_content_type(), Some("text/plain"));
    assert_eq!(event.data_bytes(), Some(&b"data"[..]));
    for (name, expected) in [
        ("natssubject", Some("orders.eu")),
        ("natsstream", Some("ORDERS")),
        ("natssequence", Some("42")),
        ("natsheaderxtrace", Some("abc")),
        ("natsfault", None),
    ] {
        assert_eq!(text(&event, name), expected, "{name}");
    }
    let event = event_of(&[], b"", true);
    assert_eq!((event.id(), event.data_bytes()), ("ORDERS/42", None));
}

#[test]
fn without_a_stream_the_producer_names_the_message_or_nobody_does() {
    assert_eq!(event_of(&[("nats-msg-id", "given")], b"x", false).id(), "given");
    let (one, two) = (event_of(&[], b"x", false), event_of(&[], b"x", false));
    assert_ne!(one.id(), two.id());
}

#[test]
fn a_message_that_is_an_event_becomes_it_and_gains_nothing() {
    let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    let event = event_of(&required, b"x", true);
    assert_eq!((event.id(), event.attribute_count()), ("1", 3));
    let event = event_of(&required[..3], b"data", true);
    assert_eq!((event.id(), text(&event, "natsfault")), ("ORDERS/42", Some("E0602")));
    assert_eq!(event.data_bytes(), Some(&b"data"[..]));
    let event = event_of(&[("Content-Type", "application/cloudevents+json")], b"{", true);
    assert_eq!(text(&event, "natsfault"), Some("E0615"));
    assert_eq!(event.data_content_type(), None);
}

#[test]
fn headers_that_no_event_can_have_cost_only_the_headers() {
    let event = event_of(&[("a-b", "1"), ("ab", "2"), ("Content-Type", "\u{7}")], b"x", true);
    assert_eq!((event.id(), event.data_bytes()), ("ORDERS/42", Some(&b"x"[..])));
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    let stream = |stream: &str| json!({"stream": stream});
    for (more, path) in [
        (json!({"subjects": []}), "subjects"),
        (json!({"subjects": ["a b"]}), "subjects[0]"),
        (json!({"subjects": ["a", "a..b"]}), "subjects[1]"),
        (json!({"subjects": ["a.>.b"]}), "subjects[0]"),
        (json!({"subjects": ["a*"]}), "subjects[0]"),
        (json!({"jetStream": stream("a.b")}), "jetStream.stream"),
        (json!({"jetStream": {"stream": "A", "consumer": ""}}), "jetStream.consumer"),
        (json!({"jetStream": stream("A"), "queueGroup": "g"}), "queueGroup"),
        (json!({"eventType": ""}), "eventType"),
        (json!({"servers": ["a:4222"]}), "servers[0]"),
        (json!({"servers": ["http://a:4222"]}), "servers[0]"),
    ] {
        let problems = config(&more).validate();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, [path], "{more}");
    }
    for more in [
        json!({"subjects": ["a.*.b", "a.>", ">"], "queueGroup": "g"}),
        json!({"subjects": null, "jetStream": stream("A")}),
    ] {
        assert!(config(&more).validate().is_empty(), "{more}");
    }
}
