//! Durations, sizes and times are read or refused. A duration is what jiff says that it is, and is read back as it is
//! written; a time that an event may have is one that jiff reads.
#![no_main]

use std::time::Duration;

use jiff::{SpanTotal, Timestamp, Unit};
use libfuzzer_sys::fuzz_target;
use waypost_core::{Event, duration, size};

fuzz_target!(|text: &str| {
    match duration::parse(text) {
        Ok(duration) => {
            assert_eq!(duration::parse(&duration::format(duration)), Ok(duration));
            reference(text, duration);
        }
        Err(invalid) => {
            // What it suggests instead can be read.
            let told = invalid.to_string();
            assert!(!told.is_empty());
        }
    }
    if let Ok(bytes) = size::parse(text) {
        assert!(bytes > 0);
        assert_eq!(size::parse(&bytes.to_string()), Ok(bytes));
        assert_eq!(size::parse(&format!("{bytes}B")), Ok(bytes));
    }
    if let Ok(event) = Event::builder("1", "/", "t").time(text).build() {
        assert_eq!(event.time(), Some(text));
        // A leap second may stand at the end of any minute, and a fraction may be longer than what jiff counts.
        let time: Result<Timestamp, _> = text.parse();
        let longer = text.split(|one: char| !one.is_ascii_digit()).any(|digits| digits.len() > 9);
        assert!(time.is_ok() || longer || text.contains(":60"), "{text}: {time:?}");
    }
});

/// What jiff reads, as far as it reads the same language: it has fractions of hours, minutes and seconds only, and limits
/// of its own.
fn reference(text: &str, duration: Duration) {
    let (date, _) = text.split_once('T').unwrap_or((text, ""));
    let long = text.split(|one: char| !one.is_ascii_digit()).any(|digits| digits.len() > 6);
    if long || date.contains(['.', ',']) {
        return;
    }
    let Ok(span) = text.replace(',', ".").parse::<jiff::Span>() else {
        panic!("{text} is taken, and jiff refuses it")
    };
    let total =
        span.total(SpanTotal::from(Unit::Nanosecond).days_are_24_hours()).expect("a short span has a total");
    let ours = duration.as_nanos() as f64;
    // Each fraction is cut off once.
    assert!((total - ours).abs() <= 1.0 + ours * 1e-12, "{text}: {total} {ours}");
}
