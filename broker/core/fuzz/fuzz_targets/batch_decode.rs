//! Any batch decodes or is refused; what decodes is the same batch when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::event::json;

fuzz_target!(|document: &[u8]| {
    if let Ok(events) = json::decode_batch(document) {
        assert_eq!(json::decode_batch(&json::encode_batch(&events)), Ok(events));
    }
});
