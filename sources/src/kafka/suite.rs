use proptest::prelude::*;
use serde_json::json;
use waypost_clients::kafka::rdkafka::Timestamp;
use waypost_clients::kafka::rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use waypost_core::event::AttributeType;

use super::*;

fn config(more: &serde_json::Value) -> KafkaConfig {
    let mut settings = json!({"bootstrapServers": ["a:9092"], "topics": ["orders"]});
    let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) else { unreachable!() };
    all.extend(more.clone());
    all.retain(|_, value| !value.is_null());
    serde_json::from_value(settings).unwrap()
}

fn record(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> OwnedMessage {
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }));
    let (key, value) = (key.map(Vec::from), value.map(Vec::from));
    let time = Timestamp::CreateTime(1_700_000_000_000);
    OwnedMessage::new(value, key, "orders".to_owned(), time, 3, 42, Some(headers))
}

fn event_of(record: &OwnedMessage) -> Event {
    record::event_of(&config(&json!({})), &ResourceName::new("shop", "in"), record, &mut Before::default())
        .into()
}

fn text<'e>(event: &'e Event, name: &str) -> Option<&'e str> {
    event.attribute(name).map(|value| value.text)
}

#[test]
fn a_plain_record_is_wrapped_with_an_id_that_is_its_place() {
    let headers: [(&str, Option<&[u8]>); 4] = [
        ("content-type", Some(b"application/json")),
        ("X-Trace", Some(b"abc")),
        ("nothing", None),
        ("raw", Some(b"\xff")),
    ];
    let event = event_of(&record(Some(b"k1"), Some(b"{}"), &headers));
    assert_eq!(event.id(), "orders/3/42");
    assert_eq!(event.source(), "/apis/waypost.dev/v1alpha1/namespaces/shop/sources/in");
    assert_eq!(event.event_type(), "dev.waypost.kafka.record");
    assert_eq!(event.time(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(event.data_content_type(), Some("application/json"));
    assert_eq!(event.data_bytes(), Some(&b"{}"[..]));
    for (name, expected) in [
        ("partitionkey", Some("k1")),
        ("kafkatopic", Some("orders")),
        ("kafkapartition", Some("3")),
        ("kafkaoffset", Some("42")),
        ("kafkaheaderxtrace", Some("abc")),
        ("kafkaheadernothing", None),
        ("kafkaheaderraw", Some("/w==")),
        ("kafkafault", None),
    ] {
        assert_eq!(text(&event, name), expected, "{name}");
    }
}

#[test]
fn null_and_empty_values_and_keys_that_are_no_text_survive() {
    assert_eq!(event_of(&record(None, None, &[])).data_bytes(), None);
    assert_eq!(event_of(&record(Some(b""), Some(b""), &[])).data_bytes(), Some(&b""[..]));
    let event = event_of(&record(Some(b"\x00\xff"), None, &[]));
    let key = event.attribute("partitionkey").unwrap();
    assert_eq!((key.text, key.attribute_type), ("AP8=", AttributeType::Binary));
}

const REQUIRED: [(&str, Option<&[u8]>); 4] = [
    ("ce_specversion", Some(b"1.0")),
    ("ce_id", Some(b"1")),
    ("ce_source", Some(b"/s")),
    ("ce_type", Some(b"t")),
];

#[test]
fn a_record_that_is_an_event_becomes_it_and_gains_only_its_key() {
    let event = event_of(&record(Some(b"k"), Some(b"x"), &REQUIRED));
    assert_eq!((event.id(), event.source(), event.event_type()), ("1", "/s", "t"));
    assert_eq!(event.attribute_count(), 4);
    assert_eq!(text(&event, "partitionkey"), Some("k"));
    let own = [&REQUIRED[..], &[("ce_partitionkey", Some(b"own"))]].concat();
    assert_eq!(text(&event_of(&record(Some(b"k"), None, &own)), "partitionkey"), Some("own"));
}

#[test]
fn a_record_that_claims_to_be_an_event_and_is_none_is_wrapped_with_its_fault() {
    let event = event_of(&record(None, Some(b"data"), &REQUIRED[..3]));
    assert_eq!(event.id(), "orders/3/42");
    assert_eq!(text(&event, "kafkafault"), Some("E0602"));
    assert_eq!(event.data_bytes(), Some(&b"data"[..]));
    let json: [(&str, Option<&[u8]>); 1] = [("content-type", Some(b"application/cloudevents+json"))];
    let event = event_of(&record(None, Some(b"{"), &json));
    assert_eq!(text(&event, "kafkafault"), Some("E0615"));
}

#[test]
fn headers_that_no_event_can_have_cost_only_the_headers() {
    let same: [(&str, Option<&[u8]>); 3] =
        [("a-b", Some(b"1")), ("ab", Some(b"2")), ("content-type", Some(b"\n"))];
    let event = event_of(&record(None, Some(b"x"), &same));
    assert_eq!((event.id(), event.data_bytes()), ("orders/3/42", Some(&b"x"[..])));
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    for (more, path) in [
        (json!({"topics": []}), "topics"),
        (json!({"topics": ["a b"]}), "topics[0]"),
        (json!({"topicPattern": "^a"}), "topicPattern"),
        (json!({"topics": null, "topicPattern": "a"}), "topicPattern"),
        (json!({"eventType": ""}), "eventType"),
        (json!({"bootstrapServers": []}), "bootstrapServers"),
    ] {
        let problems = config(&more).validate();
        assert_eq!(
            problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(),
            [path],
            "{more}"
        );
    }
    assert!(config(&json!({"topics": null, "topicPattern": "^orders-.*"})).validate().is_empty());
}

#[test]
fn the_group_is_named_after_the_source() {
    let name = ResourceName::new("shop", "in");
    assert_eq!(config(&json!({})).group(&name), "waypost.shop.in");
    assert_eq!(config(&json!({"consumerGroup": "g"})).group(&name), "g");
}

#[test]
fn the_offset_of_each_partition_is_that_behind_its_last_record() {
    let (config, name) = (config(&json!({})), ResourceName::new("shop", "in"));
    let at = |(topic, partition, offset): (&str, i32, i64)| {
        let (value, time) = (Some(offset.to_string().into_bytes()), Timestamp::NotAvailable);
        OwnedMessage::new(value, None, topic.to_owned(), time, partition, offset, None)
    };
    let records = [("a", 0, 4), ("a", 0, 5), ("a", 1, 2), ("b", 0, 8), ("a", 0, 6), ("a", 1, 3), ("a", 1, 4)];
    let records = records.map(at);
    let mut taken = Taken::default();
    for together in records.chunks(3) {
        taken.take(&config, &name, together);
    }
    let bytes = taken.bytes;
    let (events, offsets) = taken.into_parts();
    let alone = |record| Event::from(record::event_of(&config, &name, record, &mut Before::default()));
    assert_eq!(events, records.iter().map(alone).collect::<Vec<_>>());
    assert_eq!(bytes, events.iter().map(Event::size).sum::<usize>());
    let place = |topic: &str, partition| (topic.to_owned(), partition);
    assert_eq!(offsets, Offsets::from([(place("a", 0), 7), (place("a", 1), 5), (place("b", 0), 9)]));
    assert_eq!(Taken::default().into_parts(), (Vec::new(), Offsets::new()));
}

/// What a producer may write: a partition, key, value, time in milliseconds, and headers.
type Written = (i32, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Vec<(&'static str, String)>);

fn written() -> impl Strategy<Value = Written> {
    let key = prop_oneof![
        Just(None),
        Just(Some(Vec::new())),
        Just(Some(b"k1".to_vec())),
        Just(Some(b"a\nb".to_vec())),
        Just(Some("\u{fdd0}".into())),
        proptest::collection::vec(any::<u8>(), 1..4).prop_map(Some),
    ];
    let value = prop_oneof![Just(None), proptest::collection::vec(any::<u8>(), 0..9).prop_map(Some)];
    let time = prop_oneof![
        Just(None),
        Just(Some(1_700_000_000_000)),
        (0..2_000_i64).prop_map(|at| Some(1_700_000_000_000 + at)),
        any::<i64>().prop_map(Some)
    ];
    (0..2_i32, key, value, time, headers())
}

/// None, one that is no attribute of an event, or those of an event, which may be wrong.
fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let event = ("[a-c]{0,2}", "/[ab]", "[a-z\n]{0,2}", proptest::option::of("[a-b]"));
    let event = event.prop_map(|(id, source, subject, key)| {
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", id),
            ("ce_source", source),
            ("ce_type", "t".to_owned()),
            ("ce_subject", subject),
        ];
        headers.extend(key.map(|key| ("ce_partitionkey", key)));
        headers
    });
    prop_oneof![3 => Just(Vec::new()), 1 => Just(vec![("h", "v".to_owned())]), 3 => event]
}

proptest! {
    /// What was kept of the record before changes nothing.
    #[test]
    fn each_record_becomes_what_it_becomes_alone(
        all in proptest::collection::vec(written(), 1..20),
        first in 0..i64::MAX - 20,
        naming in prop_oneof![Just("waypost"), Just("knative"), Just("triggerMesh")],
    ) {
        let config = config(&json!({"recordNaming": naming}));
        let name = ResourceName::new("shop", "in");
        let mut before = Before::default();
        for (offset, (partition, key, value, time, headers)) in (first..).zip(all) {
            let time = time.map_or(Timestamp::NotAvailable, Timestamp::CreateTime);
            let add = |all: OwnedHeaders, (key, value): (&str, String)| {
                all.insert(Header { key, value: Some(&value) })
            };
            let headers = (!headers.is_empty()).then(|| headers.into_iter().fold(OwnedHeaders::new(), add));
            let topic = "orders".to_owned();
            let record = OwnedMessage::new(value, key, topic, time, partition, offset, headers);
            let after = Event::from(record::event_of(&config, &name, &record, &mut before));
            let alone = Event::from(record::event_of(&config, &name, &record, &mut Before::default()));
            prop_assert_eq!(&after, &alone);
            let types = |event: &Event| -> BTreeMap<String, AttributeType> {
                event.attributes().map(|(name, value)| (name.to_owned(), value.attribute_type)).collect()
            };
            prop_assert_eq!(types(&after), types(&alone));
        }
    }
}
