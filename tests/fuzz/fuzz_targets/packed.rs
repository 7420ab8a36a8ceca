//! Whatever bytes are accepted as a packed event can be read, written and changed without a panic.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use waypost_core::event::{Event, http, json};

fuzz_target!(|packed: &[u8]| {
    let Ok(event) = Event::from_packed(Bytes::copy_from_slice(packed)) else { return };
    assert_eq!(Event::from_packed(event.packed().clone()).as_ref(), Ok(&event));
    let _ = format!("{event:?}");
    let _ = (event.id(), event.source(), event.event_type(), event.data());
    let _ = http::binary_head(&event);
    let _ = json::encode(&event);
    let _ = event.to_builder().build();
    let _ = event.with_attribute("subject", "x");
});
