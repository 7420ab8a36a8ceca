//! Tests of the HTTP binding.

use http::header::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::event::suite::{allowed_text, any_event};
use crate::event::{AttributeType, SpecVersion};

type Headers<'a> = &'a [(&'a str, &'a [u8])];

fn map(headers: Headers<'_>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        map.append(name, HeaderValue::from_bytes(value).expect("a header value"));
    }
    map
}

const REQUIRED: Headers<'static> =
    &[("ce-id", b"1"), ("CE-Source", b"/s"), ("Ce-SpecVersion", b"1.0"), ("cE-tYpE", b"t")];

fn with(more: Headers<'_>) -> HeaderMap {
    map(&[REQUIRED, more].concat())
}

fn decode_one(headers: &HeaderMap, body: &[u8]) -> Result<Event, DecodeError> {
    match decode(headers, body, &DecodeOptions::default())? {
        Decoded::Event(event) => Ok(event),
        Decoded::Batch(_) => panic!("a batch where one event was sent"),
    }
}

fn refusal(headers: &HeaderMap, body: &[u8]) -> (u16, codes::Code) {
    let error = decode_one(headers, body).expect_err("a refusal");
    (error.status, error.code)
}

#[test]
fn a_binary_request_is_an_event() {
    let headers = with(&[
        ("content-type", b"application/vnd.x+json; charset=\"utf-8\""),
        ("ce-time", b"2018-04-05T03:56:24.1200+02:00"),
        ("ce-subject", b"Euro%20%E2%82%AC"),
        ("ce-count", b"3"),
        ("ce-datacontenttype", b"text/plain"),
        ("accept", b"*/*"),
    ]);
    let event = decode_one(&headers, b" {\"a\": 1e2}\n").expect("an event");
    assert_eq!((event.id(), event.source(), event.event_type()), ("1", "/s", "t"));
    assert_eq!(event.data_content_type(), Some("application/vnd.x+json; charset=\"utf-8\""));
    assert_eq!(event.time(), Some("2018-04-05T03:56:24.1200+02:00"));
    assert_eq!(event.subject(), Some("Euro €"));
    assert_eq!(event.attribute("count").map(|count| count.attribute_type), Some(AttributeType::Untyped));
    assert_eq!(event.attribute("time").map(|time| time.attribute_type), Some(AttributeType::Timestamp));
    assert_eq!(event.data_bytes(), Some(&b" {\"a\": 1e2}\n"[..]));
    assert_eq!(event.attribute_count(), 7);
}

#[test]
fn a_body_without_bytes_is_no_data() {
    let event = decode_one(&with(&[("content-type", b"text/plain")]), b"").expect("an event");
    assert_eq!((event.data(), event.data_content_type()), (None, Some("text/plain")));
}

#[test]
fn the_content_type_decides_the_mode() {
    use ContentMode::*;
    let mode = |content_type: &str| content_mode(&map(&[("content-type", content_type.as_bytes())]));
    for (content_type, expected) in [
        ("application/cloudevents+json", Structured),
        ("Application/CloudEvents+JSON", Structured),
        ("application/cloudevents+json; charset=UTF-8", Structured),
        ("application/cloudevents+json;charset=utf-8", Structured),
        ("application/cloudevents+json ; charset=\"utf-8\"", Structured),
        ("application/cloudevents-batch+json", Batch),
        ("APPLICATION/CLOUDEVENTS-BATCH+JSON; charset=us-ascii", Batch),
        ("application/cloudeventsfoo", Binary),
        ("application/cloudevents-batchfoo", Binary),
        ("application/cloudevents-x+json", Binary),
        ("application/json", Binary),
        ("", Binary),
    ] {
        assert_eq!(mode(content_type), Ok(expected), "{content_type}");
    }
    for content_type in [
        "application/cloudevents",
        "application/cloudevents; charset=utf-8",
        "application/cloudevents+avro",
        "application/cloudevents-batch",
        "application/cloudevents-batch+protobuf",
        "application/cloudevents+jsonx",
        "application/cloudevents+json; charset=utf-16",
        "application/cloudevents+json; charset",
    ] {
        let error = mode(content_type).expect_err(content_type);
        assert_eq!((error.status, error.code), (415, codes::FORMAT_UNSUPPORTED), "{content_type}");
    }
    assert_eq!(content_mode(&HeaderMap::new()), Ok(Binary));
}

#[test]
fn an_unknown_format_passes_when_the_headers_hold_the_event() {
    let event =
        decode_one(&with(&[("content-type", b"application/cloudevents+avro")]), b"\x00").expect("an event");
    assert_eq!(event.data_content_type(), Some("application/cloudevents+avro"));
    assert_eq!(event.data_bytes(), Some(&b"\x00"[..]));
    let partial = map(&[("content-type", b"application/cloudevents+avro"), ("ce-id", b"1")]);
    assert_eq!(refusal(&partial, b"\x00").0, 415);
}

#[test]
fn the_body_of_a_structured_request_wins() {
    let headers = with(&[("content-type", STRUCTURED_JSON.as_bytes())]);
    let event = decode_one(&headers, br#"{"specversion":"1.0","id":"body","source":"/b","type":"t"}"#);
    assert_eq!(event.map(|event| event.id().to_owned()).as_deref(), Ok("body"));
}

#[test]
fn broken_rules_are_refused_by_name() {
    for (headers, code) in [
        (map(&[]), codes::NOT_AN_EVENT),
        (map(&[("content-type", b"text/plain")]), codes::NOT_AN_EVENT),
        (map(&REQUIRED[1..]), codes::ATTRIBUTE_MISSING),
        (map(&REQUIRED[..3]), codes::ATTRIBUTE_MISSING),
        (map(&[REQUIRED[0], REQUIRED[1], REQUIRED[3]]), codes::ATTRIBUTE_MISSING),
        (map(&[REQUIRED[0], REQUIRED[2], REQUIRED[3]]), codes::ATTRIBUTE_MISSING),
        (
            map(&[REQUIRED[0], REQUIRED[1], REQUIRED[3], ("ce-specversion", b"0.9")]),
            codes::SPEC_VERSION_UNKNOWN,
        ),
        (map(&[REQUIRED[0], REQUIRED[1], REQUIRED[3], ("ce-specversion", b"")]), codes::SPEC_VERSION_UNKNOWN),
        (with(&[("ce-id", b"1")]), codes::ATTRIBUTE_REPEATED),
        (with(&[("ce-x", b"1"), ("CE-X", b"2")]), codes::ATTRIBUTE_REPEATED),
        (with(&[("ce-specversion", b"1.0")]), codes::ATTRIBUTE_REPEATED),
        (with(&[("content-type", b"a/b"), ("content-type", b"a/b")]), codes::ATTRIBUTE_REPEATED),
        (with(&[("ce-my-ext", b"1")]), codes::ATTRIBUTE_NAME_INVALID),
        (with(&[("ce-my_ext", b"1")]), codes::ATTRIBUTE_NAME_INVALID),
        (with(&[("ce-", b"1")]), codes::ATTRIBUTE_NAME_INVALID),
        (with(&[("ce-data", b"1")]), codes::ATTRIBUTE_NAME_INVALID),
        (with(&[("ce-subject", b"")]), codes::ATTRIBUTE_EMPTY),
        (with(&[("ce-subject", b"\"\"")]), codes::ATTRIBUTE_EMPTY),
        (with(&[("ce-x", b"%C0%A0")]), codes::HEADER_VALUE_INVALID),
        (with(&[("ce-x", b"\xff")]), codes::HEADER_VALUE_INVALID),
        (with(&[("ce-x", b"%0A")]), codes::ATTRIBUTE_VALUE_INVALID),
        (with(&[("ce-x", b"a\tb")]), codes::ATTRIBUTE_VALUE_INVALID),
        (with(&[("ce-time", b"2018-04-05T18:31Z")]), codes::TIME_INVALID),
        (with(&[("ce-dataschema", b"relative")]), codes::DATA_SCHEMA_INVALID),
        (with(&[("content-type", b"xyz")]), codes::DATA_CONTENT_TYPE_INVALID),
        (with(&[("content-type", b"")]), codes::ATTRIBUTE_EMPTY),
        (with(&[("content-type", b"\xff")]), codes::HEADER_VALUE_INVALID),
    ] {
        assert_eq!(refusal(&headers, b"x"), (400, code), "{headers:?}");
    }
}

#[test]
fn strictness_is_a_switch() {
    let headers = with(&[("ce-x", "100% €".as_bytes())]);
    assert_eq!(
        decode_one(&headers, b"").expect("leniently").attribute("x").map(|value| value.text),
        Some("100% €")
    );
    let error = decode(&headers, b"", &DecodeOptions { strict: true }).expect_err("strictly");
    assert_eq!((error.status, error.code), (400, codes::HEADER_VALUE_INVALID));
}

#[test]
fn replies_that_carry_events_are_told_from_others() {
    for (headers, expected) in [
        (with(&[]), true),
        (map(&[("ce-specversion", b"1.0")]), true),
        (map(&[("content-type", b"application/cloudevents+json")]), true),
        (map(&[("content-type", b"application/cloudevents-batch+json")]), true),
        (map(&[("content-type", b"application/cloudevents+avro")]), true),
        (map(&[("content-type", b"application/json")]), false),
        (map(&[("ce-id", b"1")]), false),
        (map(&[]), false),
    ] {
        assert_eq!(carries_event(&headers), expected, "{headers:?}");
    }
}

#[test]
fn a_binary_message_has_a_header_for_each_attribute() {
    let event = Event::builder("1", "/s", "t")
        .data_content_type("text/plain; x=\"100%\"")
        .subject("Euro € \"%\"")
        .attribute("paid", true)
        .data("body")
        .build()
        .expect("a valid event");
    let mut headers = map(&[("ce-id", b"old"), ("content-type", b"old/old"), ("host", b"h")]);
    encode_binary(&event, &mut headers);
    assert_eq!(
        headers,
        map(&[
            ("ce-id", b"1"),
            ("content-type", b"text/plain; x=\"100%\""),
            ("host", b"h"),
            ("ce-specversion", b"1.0"),
            ("ce-source", b"/s"),
            ("ce-type", b"t"),
            ("ce-subject", b"Euro%20%E2%82%AC%20%22%25%22"),
            ("ce-paid", b"true"),
        ])
    );
    let bare = Event::builder("1", "/s", "t").data("bytes").build().expect("a valid event");
    assert!(!binary_head(&bare).iter().any(|(name, _)| name == CONTENT_TYPE));
}

#[test]
fn an_event_within_an_event_does_not_go_in_binary_mode() {
    let fits = |content_type: &str| {
        fits_binary(
            &Event::builder("1", "/s", "t").data_content_type(content_type).build().expect("a valid event"),
        )
    };
    assert!(!fits("application/cloudevents+json"));
    assert!(!fits("Application/CloudEvents-Batch+JSON; charset=utf-8"));
    assert!(fits("application/cloudevents+avro"));
    assert!(fits("application/json"));
    assert!(fits_binary(&Event::builder("1", "/s", "t").build().expect("a valid event")));
}

#[test]
fn large_attributes_pass() {
    let long = "x".repeat(60 * 1024);
    let event = decode_one(&with(&[("ce-long", long.as_bytes())]), b"").expect("an event");
    assert_eq!(event.attribute("long").map(|value| value.text), Some(&*long));
    let names: Vec<String> = (0..200).map(|number| format!("ce-a{number}")).collect();
    let many: Vec<(&str, &[u8])> =
        names.iter().map(|name| (name.as_str(), &long.as_bytes()[..300])).collect();
    let event = decode_one(&with(&many), b"").expect("an event");
    assert_eq!(event.attribute_count(), 203);
    assert_eq!(binary_head(&event).len(), 204);
}

fn through_binary(event: &Event) -> Event {
    let mut headers = HeaderMap::new();
    encode_binary(event, &mut headers);
    let body = event.data().unwrap_or_default();
    match decode(&headers, &body, &DecodeOptions { strict: true }) {
        Ok(Decoded::Event(event)) => event,
        other => panic!("{other:?} instead of {event:?}"),
    }
}

fn through_structured(event: &Event) -> Event {
    let headers = map(&[("content-type", STRUCTURED_JSON.as_bytes())]);
    let back = decode_one(&headers, &encode_structured(event)).expect("our own document");
    without_named_encoding(event, back)
}

fn through_batch(event: &Event) -> Event {
    let headers = map(&[("content-type", BATCH_JSON.as_bytes())]);
    let batch = encode_batch(&[event.clone(), event.clone()]);
    match decode(&headers, &batch, &DecodeOptions::default()) {
        Ok(Decoded::Batch(mut events)) if events.len() == 2 => {
            without_named_encoding(event, events.pop().expect("two events"))
        }
        other => panic!("{other:?} instead of two events"),
    }
}

/// Version 0.3 names the encoding of bytes in its JSON, which its binary mode need not.
fn without_named_encoding(before: &Event, after: Event) -> Event {
    if before.spec_version() == SpecVersion::V03 && before.attribute("datacontentencoding").is_none() {
        return after.without_attribute("datacontentencoding").expect("it is optional");
    }
    after
}

proptest! {
    #[test]
    fn no_mode_changes_an_event(event in any_event()) {
        let by_json = through_structured(&event);
        prop_assert_eq!(&by_json, &event);
        prop_assert_eq!(&through_batch(&by_json), &event);
        for (name, value) in event.attributes() {
            let kept = by_json.attribute(name).map(|kept| kept.attribute_type);
            if matches!(value.attribute_type, AttributeType::Boolean | AttributeType::Integer) {
                prop_assert_eq!(kept, Some(value.attribute_type));
            }
        }
        // HTTP does not tell empty data from none.
        prop_assume!(event.data_bytes() != Some(b""));
        let binary = through_binary(&event);
        prop_assert_eq!(&binary, &event);
        let structured = through_structured(&binary);
        prop_assert_eq!(&structured, &event);
        let batch = through_batch(&structured);
        prop_assert_eq!(&batch, &event);
        prop_assert_eq!(&through_binary(&batch), &event);
    }

    #[test]
    fn any_text_passes_through_a_header(text in allowed_text()) {
        let event = Event::builder("1", "/s", "t").subject(text).build().expect("a valid event");
        prop_assert_eq!(through_binary(&event), event);
    }

    #[test]
    fn any_request_is_an_event_or_refused(
        headers in prop::collection::vec(("(ce-[a-z]{0,3}|content-type|ce-id|ce-type|ce-source|ce-specversion)", any::<Vec<u8>>()), 0..8),
        content_type in prop::sample::select(&["text/plain", STRUCTURED_JSON, BATCH_JSON, "application/cloudevents+x"][..]),
        body: Vec<u8>,
    ) {
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
                map.append(name, value);
            }
        }
        let _ = decode(&map, &body, &DecodeOptions::default());
    }
}
