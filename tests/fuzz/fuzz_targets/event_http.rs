//! A head and a body are an event, a batch, something else, or refused. What is an event is the same after a trip through
//! binary mode and through JSON, and a strict reader takes nothing that the other does not.
//!
//! Input: headers, a blank line, the body.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use waypost_core::Event;
use waypost_core::event::http::{
    DecodeOptions, Decoded, carries_event, content_mode, decode, encode_binary, fits_binary,
};
use waypost_core::event::{header_text, json};
use waypost_fuzz::texts;

fuzz_target!(|input: &[u8]| {
    let (head, body) = match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &[][..]),
    };
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[colon + 1..])) {
            text(value.as_bytes());
            headers.append(name, value);
        }
    }
    let mode = content_mode(&headers);
    let _ = carries_event(&headers);
    let strict = decode(&headers, body, &DecodeOptions { strict: true });
    let decoded = decode(&headers, body, &DecodeOptions::default());
    assert!(strict.is_err() || strict == decoded, "{strict:?} {decoded:?}");
    assert!(mode.is_ok() || decoded.is_err());
    match decoded {
        Ok(Decoded::Event(event)) => trips(&event),
        Ok(Decoded::Batch(events)) => events.iter().for_each(trips),
        Err(refused) => assert!((400..500).contains(&refused.status)),
    }
});

/// Text in a header is the same when it is encoded and decoded again.
fn text(value: &[u8]) {
    for strict in [true, false] {
        let Ok(text) = header_text::decode(value, strict) else { continue };
        let encoded = header_text::encode(&text);
        assert!(encoded.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'"'));
        assert_eq!(header_text::decode(encoded.as_bytes(), true).as_deref(), Ok(&*text));
    }
}

fn trips(event: &Event) {
    assert_eq!(json::decode(&json::encode(event)).map(|event| texts(&event)), Ok(texts(event)));
    // HTTP does not tell empty data from none, and an event within an event goes structured.
    if !fits_binary(event) || event.data_bytes() == Some(b"") {
        return;
    }
    let mut headers = HeaderMap::new();
    encode_binary(event, &mut headers);
    let body = event.data().unwrap_or_default();
    match decode(&headers, &body, &DecodeOptions { strict: true }) {
        Ok(Decoded::Event(again)) => {
            // Data that is JSON without saying so gets a content type.
            assert!(texts(&again).is_superset(&texts(event)));
            assert_eq!(again.data_bytes(), event.data_bytes());
        }
        other => panic!("{event:?} becomes {other:?}"),
    }
}
