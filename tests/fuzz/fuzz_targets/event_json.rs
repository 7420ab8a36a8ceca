//! A document is an event, a batch, or refused. What is an event is the same event when it is written and read again in
//! each format: structured, batch, binary in HTTP, Kafka and NATS, and packed.
#![no_main]

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use waypost_core::Event;
use waypost_core::event::http::{DecodeOptions, Decoded, fits_binary};
use waypost_core::event::{http as binary, json, kafka, nats};
use waypost_fuzz::texts;

fuzz_target!(|document: &[u8]| {
    let events = match json::decode_batch(document) {
        Ok(events) => events,
        Err(_) => json::decode(document).into_iter().collect(),
    };
    assert_eq!(json::decode_batch(&json::encode_batch(&events)).as_ref(), Ok(&events));
    for event in &events {
        assert_eq!(json::decode(&json::encode(event)).as_ref(), Ok(event));
        assert_eq!(Event::from_packed(event.packed().clone()).as_ref(), Ok(event));
        assert_eq!(event.to_builder().build().as_ref(), Ok(event));
        through_headers(event);
    }
});

/// Headers have no types and no order, and HTTP and NATS do not tell empty data from none. Data that is JSON without
/// saying so gets a content type.
fn through_headers(event: &Event) {
    if !fits_binary(event) || event.data_bytes() == Some(b"") {
        return;
    }
    let by_http = |event: &Event| {
        let mut headers = HeaderMap::new();
        binary::encode_binary(event, &mut headers);
        let body = event.data().unwrap_or_default();
        match binary::decode(&headers, &body, &DecodeOptions { strict: true }) {
            Ok(Decoded::Event(event)) => event,
            other => panic!("{other:?}"),
        }
    };
    let by_kafka = |event: &Event| {
        let headers: Vec<_> = kafka::binary_headers(event).collect();
        let headers: Vec<_> = headers.iter().map(|(name, text)| (&**name, Some(text.as_bytes()))).collect();
        kafka::decode(&headers, event.data_bytes()).expect("it was encoded").expect("it is an event")
    };
    let by_nats = |event: &Event| {
        let headers: Vec<_> = nats::binary_headers(event).collect();
        let headers: Vec<_> = headers.iter().map(|(name, text)| (&**name, &**text)).collect();
        nats::decode(&headers, event.data_bytes().unwrap_or_default())
            .expect("it was encoded")
            .expect("it is an event")
    };
    let trips: [&dyn Fn(&Event) -> Event; 3] = [&by_http, &by_kafka, &by_nats];
    for trip in trips {
        let once = trip(event);
        assert!(texts(&once).is_superset(&texts(event)), "{event:?} {once:?}");
        assert_eq!(once.data_bytes(), event.data_bytes());
        let twice = trip(&once);
        assert_eq!(texts(&twice), texts(&once));
        assert_eq!(twice.data_bytes(), once.data_bytes());
    }
}
