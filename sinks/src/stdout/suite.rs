use serde_json::json;
use waypost_core::event::http::{DecodeOptions, Decoded, STRUCTURED_JSON, decode};

use super::*;

fn sink(format: StdoutFormat) -> Stdout {
    Stdout { name: "shop/console".to_owned(), format }
}

fn printed(format: StdoutFormat, event: &Event) -> String {
    String::from_utf8(sink(format).render(std::slice::from_ref(event))).unwrap()
}

fn event() -> Event {
    Event::builder("1", "/orders", "order.placed").subject("4711").json_data(r#"{"n":1.00}"#).build().unwrap()
}

#[test]
fn pretty_shows_what_the_event_says_and_which_sink_prints_it() {
    let expected = concat!(
        "── order.placed  →  shop/console\n",
        "   id               1\n",
        "   source           /orders\n",
        "   subject          4711\n",
        "   datacontenttype  application/json\n",
        "   data             {\"n\":1.00}\n",
        "\n",
    );
    assert_eq!(printed(StdoutFormat::Pretty, &event()), expected);
}

#[test]
fn pretty_is_bounded_and_shows_nothing_that_a_terminal_obeys() {
    let text = format!("one\u{1b}[2Jtwo\nthree{}", "x".repeat(100_000));
    let event =
        Event::builder("i".repeat(5_000), "/s", "t").data_content_type("text/plain").text_data(text).build();
    let shown = printed(StdoutFormat::Pretty, &event.unwrap());
    assert!(shown.len() < 3_000, "{}", shown.len());
    assert!(!shown.contains('\u{1b}') && shown.contains("one\u{fffd}[2Jtwo\n"), "{shown}");
    assert!(shown.contains("bytes more)"));

    let binary = Event::builder("1", "/s", "t").data(vec![0xff, 0, 1]).build().unwrap();
    assert!(printed(StdoutFormat::Pretty, &binary).contains("(3 bytes that are not text)"));
    let empty = Event::builder("1", "/s", "t").data(Vec::new()).build().unwrap();
    assert!(printed(StdoutFormat::Pretty, &empty).contains("(empty)"));
}

#[test]
fn json_is_one_line_per_event_that_reads_back_as_the_event() {
    let spread = Event::builder("1", "/s", "t").json_data("{\n  \"a\": [1,\r\n 2.50]\n}").build().unwrap();
    let text = sink(StdoutFormat::Json).render(&[event(), spread]);
    let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 2);
    let headers = http::HeaderMap::from_iter([(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(STRUCTURED_JSON),
    )]);
    let read = |line| match decode(&headers, line, &DecodeOptions::default()).unwrap() {
        Decoded::Event(event) => event,
        Decoded::Batch(events) => panic!("{events:?} is a batch"),
    };
    assert_eq!(read(lines[0]), event());
    assert_eq!(read(lines[1]).data_bytes(), Some(&b"{   \"a\": [1,   2.50] }"[..]));
}

#[test]
fn settings_are_strict_and_pretty_is_the_default() {
    let read = |value| serde_json::from_value::<StdoutConfig>(value).map(|config| config.format);
    assert_eq!(read(json!({})).unwrap(), StdoutFormat::Pretty);
    assert_eq!(read(json!({"format": "json"})).unwrap(), StdoutFormat::Json);
    assert!(read(json!({"format": "xml"})).is_err());
    assert!(read(json!({"colour": true})).is_err());
}

#[tokio::test]
async fn every_event_has_its_outcome() {
    let outcomes = sink(StdoutFormat::Json).deliver(&[event(), event(), event()]).await;
    assert_eq!(outcomes, vec![Outcome::Delivered; 3]);
}
