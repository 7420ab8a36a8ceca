//! Media types as RFC 2045 and RFC 2046 write them, as far as the norm asks about them.

/// A media type whose grammar was checked. Type, subtype and parameter names compare case-insensitively (C7).
#[derive(Debug, Clone, Copy)]
pub(super) struct MediaType<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: &'a str,
}

impl<'a> MediaType<'a> {
    /// Reads `type/subtype` and parameters. Empty parameters (`text/plain;`) are tolerated, as most readers do.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (essence, parameters) = match text.find(';') {
            Some(end) => (text[..end].trim_end_matches(is_blank), &text[end..]),
            None => (text.trim_end_matches(is_blank), ""),
        };
        let (kind, subtype) = essence.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let media_type = Self { kind, subtype, parameters };
        let mut rest = parameters;
        while !rest.is_empty() {
            (_, rest) = parameter(rest)?;
        }
        Some(media_type)
    }

    /// `*/json` or `*/*+json` (J5).
    pub(super) fn declares_json(&self) -> bool {
        self.is_or_ends_with("json", "+json")
    }

    /// A type whose data is text: `text/*` or XML.
    pub(super) fn declares_text(&self) -> bool {
        self.kind.eq_ignore_ascii_case("text") || self.is_or_ends_with("xml", "+xml")
    }

    /// Whether text of this type is UTF-8: it says so, says ASCII, or says nothing.
    pub(super) fn is_utf8(&self) -> bool {
        self.charset().is_none_or(|charset| {
            ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
        })
    }

    fn charset(&self) -> Option<&'a str> {
        let mut rest = self.parameters;
        while let Some((found, after)) = parameter(rest) {
            match found {
                Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                    return Some(value.trim_matches('"'));
                }
                _ => rest = after,
            }
        }
        None
    }

    fn is_or_ends_with(&self, whole: &str, suffix: &str) -> bool {
        let subtype = self.subtype.as_bytes();
        self.subtype.eq_ignore_ascii_case(whole)
            || subtype
                .len()
                .checked_sub(suffix.len())
                .is_some_and(|at| at > 0 && subtype[at..].eq_ignore_ascii_case(suffix.as_bytes()))
    }
}

/// Whether a content type declares JSON data: `*/json` or `*/*+json`, parameters apart (section 3.1 of the JSON
/// format).
pub fn declares_json(content_type: &str) -> bool {
    content_type == "application/json"
        || MediaType::parse(content_type).is_some_and(|media_type| media_type.declares_json())
}

type Parameter<'a> = Option<(&'a str, &'a str)>;

/// Takes `;` and one parameter, which may be empty, off the front. `None` when the text is no such thing.
fn parameter(text: &str) -> Option<(Parameter<'_>, &str)> {
    let text = text.strip_prefix(';')?.trim_start_matches(is_blank);
    if text.is_empty() || text.starts_with(';') {
        return Some((None, text));
    }
    let (name, rest) = text.split_once('=')?;
    if !is_token(name) {
        return None;
    }
    let end = value_end(rest)?;
    let (value, rest) = rest.split_at(end);
    Some((Some((name, value)), rest.trim_start_matches(is_blank)))
        .filter(|(_, rest)| rest.is_empty() || rest.starts_with(';'))
}

/// The length of the token or the quoted string at the front.
fn value_end(text: &str) -> Option<usize> {
    if !text.starts_with('"') {
        let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
        return (end > 0).then_some(end);
    }
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if !(byte == b'\t' || (0x20..0x7f).contains(&byte)) => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_declared_by_subtype_and_suffix_in_any_case() {
        for yes in [
            "application/json",
            "Application/JSON",
            "text/json",
            "application/vnd.x+json; charset=utf-8",
            "application/cloudevents+JSON",
            "application/json;",
            "application/json ;charset=\"utf;-8\"",
        ] {
            assert!(declares_json(yes), "{yes}");
        }
        for no in
            ["application/jsonp", "application/json-seq", "text/plain", "application/xml", "json", "x/+json"]
        {
            assert!(!declares_json(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_media_type_is_refused() {
        for bad in [
            "",
            "xyz",
            "text/",
            "/plain",
            "text/plain x",
            "text/pla in",
            "text /plain",
            "text/plain; charset",
            "text/plain; charset=",
            "text/plain; charset=\"utf-8",
            "text/plain; =x",
            "text/plain; a=é",
            "text/plain; a=\"\u{7f}\"",
            "text/plain; a=b c",
            "text/plain/x",
        ] {
            assert!(MediaType::parse(bad).is_none(), "{bad}");
        }
        for good in ["text/plain", "text/plain;;a=b", "a/b; c=\"d\\\"e; f=g\" ; h=i", "text/plain; "] {
            assert!(MediaType::parse(good).is_some(), "{good}");
        }
    }

    #[test]
    fn the_charset_is_found_behind_other_parameters() {
        let utf8 = |text| MediaType::parse(text).expect("a media type").is_utf8();
        assert!(utf8("text/plain"));
        assert!(utf8("text/plain; a=\"x;charset=latin1\"; Charset=\"UTF-8\""));
        assert!(utf8("text/plain; charset=us-ascii"));
        assert!(!utf8("text/plain;; charset=iso-8859-1"));
    }
}
