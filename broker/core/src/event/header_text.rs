//! Attribute values in headers: percent-encoding and quoted strings, as section 3.1.3.2 of the HTTP binding has
//! them. The NATS binding has the same rules; Kafka, MQTT and AMQP have none.

use std::borrow::Cow;

/// A header value from which no text can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderTextError {
    /// The bytes, after decoding, are not UTF-8.
    #[error("it is not UTF-8 after percent-decoding: encode the bytes of the UTF-8 form, each as %XX")]
    NotUtf8,
    /// A `%` without two hexadecimal digits (strict reading only).
    #[error("it has a `%` without two hexadecimal digits: encode the percent sign as %25")]
    StrayPercent,
    /// A byte that the sender had to encode (strict reading only).
    #[error("it has a byte outside of printable ASCII: percent-encode it")]
    RawByte,
    /// A quoted string without its end, or with text behind it (strict reading only).
    #[error("it is a malformed quoted string: percent-encode the value instead of quoting it")]
    MalformedQuotes,
}

/// Whether a value goes into a header as it is.
pub fn is_plain(text: &str) -> bool {
    text.bytes().all(is_plain_byte)
}

fn is_plain_byte(byte: u8) -> bool {
    (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%'
}

/// Encodes a value: blanks, `"`, `%` and all outside of printable ASCII, each byte of their UTF-8 form as `%XX`.
pub fn encode(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + text.len() / 2 + 8);
    for byte in text.bytes() {
        if is_plain_byte(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(hexadecimal(byte >> 4));
            encoded.push(hexadecimal(byte & 0xf));
        }
    }
    Cow::Owned(encoded)
}

fn hexadecimal(digit: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(digit & 0xf)])
}

/// Decodes a value: a quoted string is unquoted, then one pass of percent-decoding is made. A value that needs
/// neither is borrowed.
///
/// # Errors
/// [`HeaderTextError::NotUtf8`] always. The norm is silent on a stray `%`, on raw bytes from 0x80 and on malformed
/// quotes: they stand for themselves, unless `strict` refuses them.
pub fn decode(value: &[u8], strict: bool) -> Result<Cow<'_, str>, HeaderTextError> {
    if strict && !value.iter().all(|byte| *byte == b'\t' || (0x20..0x7f).contains(byte)) {
        return Err(HeaderTextError::RawByte);
    }
    let unquoted = match unquote(value) {
        Unquoted::Plain => Cow::Borrowed(value),
        Unquoted::Inner(inner) => inner,
        Unquoted::Malformed if strict => return Err(HeaderTextError::MalformedQuotes),
        Unquoted::Malformed => Cow::Borrowed(value),
    };
    let Some(first) = memchr::memchr(b'%', &unquoted) else { return into_text(unquoted) };
    let mut decoded = Vec::with_capacity(unquoted.len());
    decoded.extend_from_slice(&unquoted[..first]);
    let mut rest = &unquoted[first..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match (byte, escape(after)) {
            (b'%', Some(escaped)) => {
                rest = &after[2..];
                escaped
            }
            (b'%', None) if strict => return Err(HeaderTextError::StrayPercent),
            _ => byte,
        });
    }
    into_text(Cow::Owned(decoded))
}

fn into_text(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, HeaderTextError> {
    match bytes {
        Cow::Borrowed(bytes) => {
            std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| HeaderTextError::NotUtf8)
        }
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| HeaderTextError::NotUtf8),
    }
}

/// The byte that two hexadecimal digits at the front say.
fn escape(after: &[u8]) -> Option<u8> {
    let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

enum Unquoted<'a> {
    Plain,
    Inner(Cow<'a, [u8]>),
    Malformed,
}

/// Reads a quoted string of RFC 7230, section 3.2.6, if the value begins as one.
fn unquote(value: &[u8]) -> Unquoted<'_> {
    let Some(inner) = value.strip_prefix(b"\"") else { return Unquoted::Plain };
    let Some(inner) = inner.strip_suffix(b"\"") else { return Unquoted::Malformed };
    if memchr::memchr2(b'"', b'\\', inner).is_none() {
        return Unquoted::Inner(Cow::Borrowed(inner));
    }
    let mut unescaped = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return Unquoted::Malformed,
            b'\\' => match bytes.next() {
                Some(&escaped) => unescaped.push(escaped),
                None => return Unquoted::Malformed,
            },
            _ => unescaped.push(byte),
        }
    }
    Unquoted::Inner(Cow::Owned(unescaped))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_encoded_as_the_norm_shows() {
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode("100% \"sure\""), "100%25%20%22sure%22");
        assert!(matches!(encode("https://example.com/a?b=c"), Cow::Borrowed(_)));
    }

    #[test]
    fn escapes_and_quotes_are_decoded_once() {
        for (value, text) in [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("%e2%82%ac", "€"),
            ("%41%42c", "ABc"),
            ("%2541", "%41"),
            ("\"Euro%20%E2%82%AC\"", "Euro €"),
            ("\"a b\"", "a b"),
            ("\"a \\\"b\\\\\"", "a \"b\\"),
            ("\"\\%34\"", "4"),
            ("\"\"", ""),
            ("", ""),
            ("a (comment)", "a (comment)"),
            ("a\"b\"", "a\"b\""),
        ] {
            assert_eq!(decode(value.as_bytes(), false).as_deref(), Ok(text), "{value}");
            assert_eq!(decode(value.as_bytes(), true).as_deref(), Ok(text), "{value} strictly");
        }
        assert!(matches!(decode(b"plain text", false), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn what_is_not_utf8_is_refused() {
        for value in ["%C0%A0", "%E2%82", "%FF", "%ED%A0%80", "a%80"] {
            assert_eq!(decode(value.as_bytes(), false), Err(HeaderTextError::NotUtf8), "{value}");
        }
        assert_eq!(decode(b"\xff", false), Err(HeaderTextError::NotUtf8));
    }

    #[test]
    fn where_the_norm_is_silent_only_the_strict_reading_refuses() {
        use HeaderTextError::*;
        for (value, text, error) in [
            ("100%", "100%", StrayPercent),
            ("%zz", "%zz", StrayPercent),
            ("%4", "%4", StrayPercent),
            ("%+1", "%+1", StrayPercent),
            ("€", "€", RawByte),
            ("\"a", "\"a", MalformedQuotes),
            ("\"", "\"", MalformedQuotes),
            ("\"a\" b\"", "\"a\" b\"", MalformedQuotes),
            ("\"a\\\"", "\"a\\\"", MalformedQuotes),
        ] {
            assert_eq!(decode(value.as_bytes(), false).as_deref(), Ok(text), "{value}");
            assert_eq!(decode(value.as_bytes(), true), Err(error), "{value} strictly");
        }
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(text in any::<String>()) {
            let encoded = encode(&text);
            prop_assert!(is_plain(&encoded) || encoded.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'"'));
            let decoded = decode(encoded.as_bytes(), true);
            prop_assert_eq!(decoded.as_deref(), Ok(text.as_str()));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(value in any::<Vec<u8>>(), strict: bool) {
            let _ = decode(&value, strict);
        }
    }
}
