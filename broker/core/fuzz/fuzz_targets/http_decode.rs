//! Any head and body decode or are refused; what decodes is the same event after a trip through binary mode.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use waypost_core::event::http::{DecodeOptions, Decoded, decode, encode_binary, fits_binary};

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
            headers.append(name, value);
        }
    }
    let _ = decode(&headers, body, &DecodeOptions { strict: true });
    let Ok(Decoded::Event(event)) = decode(&headers, body, &DecodeOptions::default()) else { return };
    // HTTP does not tell empty data from none, and an event within an event goes structured.
    if !fits_binary(&event) || event.data_bytes() == Some(b"") {
        return;
    }
    let mut headers = HeaderMap::new();
    encode_binary(&event, &mut headers);
    let body = event.data().unwrap_or_default();
    assert_eq!(decode(&headers, &body, &DecodeOptions { strict: true }), Ok(Decoded::Event(event)));
});
