//! Times as events and people write them.

use jiff::Timestamp;

/// The digits of a fraction of a second that count.
const DIGITS: usize = 9;

/// Reads a time as RFC 3339 writes it, with a fraction of any length: the norm sets no limit, and nine digits of it
/// count.
///
/// # Errors
///
/// The text is no time.
pub fn instant(text: &str) -> Result<Timestamp, jiff::Error> {
    if let Some((seconds, rest)) = text.split_once('.') {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > DIGITS {
            return format!("{seconds}.{}{}", &rest[..DIGITS], &rest[digits..]).parse();
        }
    }
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_may_have_any_number_of_digits() {
        let cases = [
            ("2026-01-31T08:00:00Z", 0),
            ("2026-01-31T08:00:00.5Z", 500_000_000),
            ("2026-01-31T08:00:00.123456789Z", 123_456_789),
            ("2026-01-31T08:00:00.1234567899Z", 123_456_789),
            ("2026-01-31T09:00:00.0000000000000000001+01:00", 0),
        ];
        let whole: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        for (text, nanoseconds) in cases {
            let expected = whole.as_nanosecond() + nanoseconds;
            assert_eq!(instant(text).unwrap().as_nanosecond(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "soon", "2026-01-31", "2026-01-31T08:00:00.12345678901", "2026-01-31T08:00:00.Z"] {
            assert!(instant(text).is_err(), "{text}");
        }
    }
}
