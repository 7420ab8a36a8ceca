//! The one validator of all bindings: rules C1 to C7, that is sections "Context attributes" and "Type system" of
//! the core specification. What passes is packed, and trusted from then on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iri_string::spec::UriSpec;

use super::error::{InvalidEvent, excerpt};
use super::media_type::MediaType;
use super::{AttributeType, SpecVersion};
use crate::codes;

/// The longest attribute name that is accepted, in bytes. The norm advises 20.
pub const MAX_NAME_BYTES: usize = 255;

/// Checks the name of an attribute: `a` to `z` and `0` to `9`, not `data` (C3).
pub(crate) fn name(name: &str) -> Result<(), InvalidEvent> {
    let fault = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "is longer than 255 bytes"
    } else if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        "has other characters than a-z and 0-9"
    } else if name == "data" {
        "is reserved for the data"
    } else {
        return Ok(());
    };
    let shown = excerpt(name);
    Err(InvalidEvent {
        code: codes::ATTRIBUTE_NAME_INVALID,
        detail: format!("the attribute name `{shown}` {fault}: use lower-case letters and digits only"),
        attribute: Some(shown),
    })
}

/// Reads the version of the norm (C2).
pub(super) fn spec_version(text: &str) -> Result<SpecVersion, InvalidEvent> {
    match text {
        "1.0" => Ok(SpecVersion::V1),
        "0.3" => Ok(SpecVersion::V03),
        other => Err(InvalidEvent::of(
            codes::SPEC_VERSION_UNKNOWN,
            "specversion",
            format!("the `specversion` `{}` is not supported: send `1.0` or `0.3`", excerpt(other)),
        )),
    }
}

/// The type that the norm itself gives to an attribute; `None` for extensions.
pub(super) fn core_type(version: SpecVersion, name: &str) -> Option<AttributeType> {
    match (name, version) {
        ("id" | "type" | "subject" | "datacontenttype" | "specversion", _) => Some(AttributeType::String),
        ("datacontentencoding", SpecVersion::V03) => Some(AttributeType::String),
        ("source", _) | ("schemaurl", SpecVersion::V03) => Some(AttributeType::UriReference),
        ("dataschema", SpecVersion::V1) => Some(AttributeType::Uri),
        ("time", _) => Some(AttributeType::Timestamp),
        _ => None,
    }
}

/// Checks one attribute whose name is known to be good, and gives the type under which it is kept: that of the
/// norm for its own attributes, the given one for extensions.
pub(crate) fn attribute(
    version: SpecVersion,
    name: &str,
    text: &str,
    given: AttributeType,
) -> Result<AttributeType, InvalidEvent> {
    let kept = match core_type(version, name) {
        None => given,
        Some(own) => {
            if !matches!(given, AttributeType::String | AttributeType::Untyped) && given != own {
                return Err(InvalidEvent::of(
                    codes::ATTRIBUTE_TYPE_INVALID,
                    name,
                    format!("`{name}` is a string in CloudEvents: do not give it as another type"),
                ));
            }
            if text.is_empty() {
                return Err(InvalidEvent::of(
                    codes::ATTRIBUTE_EMPTY,
                    name,
                    format!("`{name}` is empty: give it a value, or leave it out if it is optional"),
                ));
            }
            own
        }
    };
    if !is_allowed_text(text) {
        return Err(InvalidEvent::of(
            codes::ATTRIBUTE_VALUE_INVALID,
            name,
            format!("`{name}` holds a control character or a Unicode noncharacter: remove it"),
        ));
    }
    if is_of_type(text, kept) && (name != "datacontenttype" || is_media_type(text)) {
        return Ok(kept);
    }
    Err(wrong_value(name, text, kept))
}

fn is_media_type(text: &str) -> bool {
    text == "application/json" || MediaType::parse(text).is_some()
}

fn wrong_value(name: &str, text: &str, kept: AttributeType) -> InvalidEvent {
    let code = match name {
        "source" => codes::SOURCE_INVALID,
        "time" => codes::TIME_INVALID,
        "dataschema" | "schemaurl" => codes::DATA_SCHEMA_INVALID,
        "datacontenttype" => codes::DATA_CONTENT_TYPE_INVALID,
        _ => codes::ATTRIBUTE_VALUE_INVALID,
    };
    let expected = match kept {
        AttributeType::Boolean => "`true` or `false`",
        AttributeType::Integer => "a whole number from -2147483648 to 2147483647",
        AttributeType::Binary => "base64 with padding (RFC 4648, section 4)",
        AttributeType::Uri => "an absolute URI such as `https://example.com/schema` (RFC 3986)",
        AttributeType::UriReference => {
            "a URI-reference such as `/orders` or `https://example.com/orders` (RFC 3986)"
        }
        AttributeType::Timestamp => {
            "a time with seconds and offset such as `2018-04-05T17:31:00Z` (RFC 3339)"
        }
        AttributeType::String | AttributeType::Untyped => {
            "a media type such as `application/json` (RFC 2046)"
        }
    };
    InvalidEvent::of(code, name, format!("`{name}` is `{}`: send {expected}", excerpt(text)))
}

fn is_of_type(text: &str, attribute_type: AttributeType) -> bool {
    match attribute_type {
        AttributeType::String | AttributeType::Untyped => true,
        AttributeType::Boolean => matches!(text, "true" | "false"),
        AttributeType::Integer => is_integer(text),
        AttributeType::Binary => STANDARD.decode(text).is_ok(),
        AttributeType::Uri => iri_string::validate::iri::<UriSpec>(text).is_ok(),
        AttributeType::UriReference => iri_string::validate::iri_reference::<UriSpec>(text).is_ok(),
        AttributeType::Timestamp => is_timestamp(text),
    }
}

/// The canonical form of an Integer: digits with an optional minus, within 32 bits.
pub(super) fn is_integer(text: &str) -> bool {
    !text.starts_with('+') && text.parse::<i32>().is_ok()
}

/// Whether all characters may stand in a String (C5): no control characters, no noncharacters.
pub(super) fn is_allowed_text(text: &str) -> bool {
    // Without an early exit the compiler makes vector code of it; nearly every text is printable ASCII.
    let is_printable_ascii = text.bytes().fold(true, |all, byte| all & (byte.wrapping_sub(0x20) < 0x5f));
    is_printable_ascii || text.chars().all(is_allowed_character)
}

fn is_allowed_character(character: char) -> bool {
    let point = u32::from(character);
    !(character.is_control() || (0xfdd0..=0xfdef).contains(&point) || point & 0xfffe == 0xfffe)
}

/// A date and time by RFC 3339, section 5.6, `T` and `Z` in either case, with a leap second allowed.
pub(super) fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((date_and_time, rest)) = bytes.split_at_checked("2018-04-05T17:31:00".len()) else {
        return false;
    };
    let shape = date_and_time.iter().zip(b"0000-00-00T00:00:00").all(|(&byte, &form)| match form {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        _ => byte == form,
    });
    if !shape {
        return false;
    }
    let number = |from: usize, to: usize| {
        date_and_time[from..to].iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'))
    };
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && number(11, 13) <= 23
        && number(14, 16) <= 59
        && number(17, 19) <= 60
        && is_offset(without_fraction(rest))
}

/// Takes `.` and its digits off the front; what has a `.` without digits is left as it is, and is no offset.
fn without_fraction(rest: &[u8]) -> &[u8] {
    let Some(fraction) = rest.strip_prefix(b".") else { return rest };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 { rest } else { &fraction[digits..] }
}

fn is_offset(offset: &[u8]) -> bool {
    match *offset {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].iter().all(u8::is_ascii_digit) && [h1, h2] <= *b"23" && [m1, m2] <= *b"59"
        }
        _ => false,
    }
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_need_seconds_and_an_offset() {
        for good in [
            "2018-04-05T17:31:00Z",
            "2018-04-05t17:31:00z",
            "2018-04-05T17:31:00.1200+02:00",
            "2020-02-29T23:59:60-00:00",
            "2000-02-29T00:00:00+23:59",
        ] {
            assert!(is_timestamp(good), "{good}");
        }
        for bad in [
            "lunchtime",
            "",
            "2018-04-05T18:31Z",
            "2018-04-05T18:31:00",
            "2018-04-05T18:31:00X",
            "2018-04-05T18:31:00+25:00",
            "2018-04-05T18:31:00+05:60",
            "2018-04-05T18:31:00+xx:00",
            "2018-04-05T18:31:00+05",
            "2018-04-05T18:31:00.Z",
            "2018-04-05 18:31:00Z",
            "2018-04-05T24:00:00Z",
            "2018-04-05T18:60:00Z",
            "2018-04-05T18:31:61Z",
            "2019-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2018-13-05T00:00:00Z",
            "2018-00-05T00:00:00Z",
            "2018-04-31T00:00:00Z",
            "2018-04-00T00:00:00Z",
            "2018-04-05T18:31:00Zé",
            "２018-04-05T18:31:00Z",
        ] {
            assert!(!is_timestamp(bad), "{bad}");
        }
    }

    #[test]
    fn names_are_lower_case_letters_and_digits() {
        for good in ["a", "1abc", "comexampleextension1", &"a".repeat(255)] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "my-ext", "my_ext", "my.ext", "é", "data", " a", &"a".repeat(256)] {
            assert_eq!(name(bad).unwrap_err().code, codes::ATTRIBUTE_NAME_INVALID, "{bad}");
        }
    }

    #[test]
    fn each_attribute_is_held_to_its_type() {
        use AttributeType::*;
        let check = |name, text, given| attribute(SpecVersion::V1, name, text, given).map_err(|e| e.code);
        assert_eq!(check("source", "#fragment", Untyped), Ok(UriReference));
        assert_eq!(check("source", "a b", String), Err(codes::SOURCE_INVALID));
        assert_eq!(check("source", "http://[::1", String), Err(codes::SOURCE_INVALID));
        assert_eq!(check("dataschema", "/relative", String), Err(codes::DATA_SCHEMA_INVALID));
        assert_eq!(check("dataschema", "urn:x#part", String), Ok(Uri));
        assert_eq!(check("dataschema", "", String), Err(codes::ATTRIBUTE_EMPTY));
        assert_eq!(check("datacontenttype", "xyz", String), Err(codes::DATA_CONTENT_TYPE_INVALID));
        assert_eq!(check("time", "lunchtime", String), Err(codes::TIME_INVALID));
        assert_eq!(check("id", "25", Integer), Err(codes::ATTRIBUTE_TYPE_INVALID));
        assert_eq!(check("ext", "", String), Ok(String));
        assert_eq!(check("ext", "2147483648", Integer), Err(codes::ATTRIBUTE_VALUE_INVALID));
        assert_eq!(check("ext", "+1", Integer), Err(codes::ATTRIBUTE_VALUE_INVALID));
        assert_eq!(check("ext", "-2147483648", Integer), Ok(Integer));
        assert_eq!(check("ext", "True", Boolean), Err(codes::ATTRIBUTE_VALUE_INVALID));
        assert_eq!(check("ext", "TWE", Binary), Err(codes::ATTRIBUTE_VALUE_INVALID));
        assert_eq!(check("ext", "TWE=", Binary), Ok(Binary));
        for bad in ["\u{0}", "a\nb", "\u{7f}", "\u{85}", "\u{fffe}", "\u{1ffff}", "\u{fdd0}"] {
            assert_eq!(check("ext", bad, Untyped), Err(codes::ATTRIBUTE_VALUE_INVALID), "{bad:?}");
        }
        assert_eq!(check("ext", "Euro € 😀", Untyped), Ok(Untyped));
    }

    #[test]
    fn version_0_3_has_its_own_attributes() {
        let check =
            |name, text| attribute(SpecVersion::V03, name, text, AttributeType::String).map_err(|e| e.code);
        assert_eq!(check("schemaurl", "/relative"), Ok(AttributeType::UriReference));
        assert_eq!(check("schemaurl", "a b"), Err(codes::DATA_SCHEMA_INVALID));
        assert_eq!(check("dataschema", "any text"), Ok(AttributeType::String));
    }
}
