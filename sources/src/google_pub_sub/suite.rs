use serde_json::json;
use waypost_clients::google::PubsubMessage;
use waypost_core::Event;

use super::*;

fn config(more: &serde_json::Value) -> GooglePubSubConfig {
    let mut settings = json!({"subscription": "projects/p/subscriptions/s"});
    let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) else { unreachable!() };
    all.extend(more.clone());
    serde_json::from_value(settings).unwrap()
}

fn message(data: &[u8], attributes: &[(&str, &str)], ordering_key: &str) -> PubsubMessage {
    PubsubMessage {
        data: data.to_vec(),
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        message_id: "17".to_owned(),
        publish_time: None,
        ordering_key: ordering_key.to_owned(),
    }
}

fn event_of(more: &serde_json::Value, message: &PubsubMessage) -> Event {
    message::event_of(&config(more), &ResourceName::new("shop", "in"), message)
}

fn text<'e>(event: &'e Event, name: &str) -> Option<&'e str> {
    event.attribute(name).map(|value| value.text)
}

#[test]
fn a_plain_message_is_wrapped_with_its_own_id() {
    let attributes = [("Content-Type", "text/plain"), ("X-Trace", "abc"), ("bell", "\u{7}")];
    let event = event_of(&json!({}), &message(b"data", &attributes, "k"));
    assert_eq!((event.id(), event.event_type()), ("17", "dev.waypost.googlepubsub.message"));
    assert_eq!(event.source(), "/apis/waypost.dev/v1alpha1/namespaces/shop/sources/in");
    assert_eq!(event.data_content_type(), Some("text/plain"));
    assert_eq!(event.data_bytes(), Some(&b"data"[..]));
    for (name, expected) in [
        ("partitionkey", Some("k")),
        ("pubsubmsgxtrace", Some("abc")),
        ("pubsubmsgbell", Some("Bw==")),
        ("pubsubfault", None),
    ] {
        assert_eq!(text(&event, name), expected, "{name}");
    }
    assert_eq!(event_of(&json!({}), &message(b"", &[], "")).data_bytes(), None);
}

const REQUIRED: [(&str, &str); 4] =
    [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

#[test]
fn a_message_that_is_an_event_becomes_it_and_gains_only_its_key() {
    let event = event_of(&json!({}), &message(b"x", &REQUIRED, "k"));
    assert_eq!((event.id(), event.event_type(), text(&event, "partitionkey")), ("1", "t", Some("k")));
    assert_eq!(event.attribute_count(), 4);
    let own = [&REQUIRED[..], &[("ce-partitionkey", "own"), ("ce-subject", "50%25")]].concat();
    let event = event_of(&json!({}), &message(b"x", &own, "k"));
    assert_eq!((text(&event, "partitionkey"), event.subject()), (Some("own"), Some("50%25")));
    let json = br#"{"specversion": "1.0", "id": "2", "source": "/s", "type": "t"}"#;
    let structured = [("content-type", "application/cloudevents+json")];
    assert_eq!(event_of(&json!({}), &message(json, &structured, "")).id(), "2");
}

#[test]
fn a_message_that_claims_to_be_an_event_and_is_none_is_wrapped_with_its_fault() {
    let event = event_of(&json!({}), &message(b"data", &REQUIRED[..3], ""));
    assert_eq!((event.id(), text(&event, "pubsubfault")), ("17", Some("E0602")));
    assert_eq!(event.data_bytes(), Some(&b"data"[..]));
}

#[test]
fn attributes_that_no_event_can_have_cost_only_the_attributes() {
    let event = event_of(&json!({}), &message(b"x", &[("a", "1"), ("Content-Type", "a thing")], "k"));
    let kept = (event.id(), event.data_bytes(), text(&event, "partitionkey"), text(&event, "pubsubmsga"));
    assert_eq!(kept, ("17", Some(&b"x"[..]), Some("k"), None));
    // Of two that come to the same name one is kept.
    let event = event_of(&json!({}), &message(b"x", &[("a-b", "1"), ("ab", "2")], ""));
    assert_eq!(text(&event, "pubsubmsgab"), Some("2"));
    let nameless = PubsubMessage { message_id: String::new(), ..message(b"x", &[], "") };
    assert!(!event_of(&json!({}), &nameless).id().is_empty());
}

#[test]
fn all_of_a_message_can_be_the_data() {
    let event = event_of(&json!({"payload": "message"}), &message(b"x", &[("a", "b")], "k"));
    let data: serde_json::Value = serde_json::from_slice(event.data_bytes().unwrap()).unwrap();
    let expected = json!({
        "ID": "17", "Data": "eA==", "Attributes": {"a": "b"}, "PublishTime": null, "DeliveryAttempt": null,
        "OrderingKey": "k",
    });
    assert_eq!((data, event.data_content_type()), (expected, Some("application/json")));
    assert_eq!(event_of(&json!({"payload": "message"}), &message(b"x", &REQUIRED, "")).id(), "17");
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    for (more, path) in [
        (json!({"subscription": "s"}), "subscription"),
        (json!({"subscription": "projects/p/topics/s"}), "subscription"),
        (json!({"subscription": "projects/p/subscriptions/a b"}), "subscription"),
        (json!({"topic": "orders"}), "topic"),
        (json!({"endpoint": "localhost:8085"}), "endpoint"),
        (json!({"eventType": ""}), "eventType"),
    ] {
        let problems = config(&more).validate();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, [path], "{more}");
    }
    let more = json!({"topic": "projects/example.com:p/topics/orders", "endpoint": "http://localhost:8085"});
    assert!(config(&more).validate().is_empty());
}
