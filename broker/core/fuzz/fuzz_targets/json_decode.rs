//! Any document decodes or is refused; what decodes is the same event when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::event::json;

fuzz_target!(|document: &[u8]| {
    if let Ok(event) = json::decode(document) {
        assert_eq!(json::decode(&json::encode(&event)), Ok(event));
    }
});
