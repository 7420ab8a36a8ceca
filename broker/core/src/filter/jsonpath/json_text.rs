//! A reader of JSON text that builds nothing: it checks and skips.
//!
//! It takes exactly what `serde_json` takes for a tree, so that it never depends on the way of evaluation whether data
//! is JSON: the same numbers, escapes and depth. Who keeps the text of numbers may ask for those beyond binary64 as well.

use crate::filter::candidate::MAX_DATA_DEPTH;

/// The text is not JSON, or too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotJson;

/// What a value is, by its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Text,
    Number,
    True,
    False,
    Null,
}

/// A string within the text: where it is, without its quotes, and whether it has escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quoted {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) escaped: bool,
}

/// A place in JSON text. UTF-8 was checked before: it is a `str`.
#[derive(Debug, Clone)]
pub(crate) struct JsonText<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    any_number: bool,
}

impl<'t> JsonText<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, at: 0, depth: 0, any_number: false }
    }

    /// The same, with numbers beyond the range of binary64, such as `1e400`.
    pub(crate) fn with_any_number(text: &'t str) -> Self {
        Self { any_number: true, ..Self::new(text) }
    }

    pub(crate) fn place(&self) -> usize {
        self.at
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    /// Checks that nothing follows but blanks.
    pub(crate) fn end(&mut self) -> Result<(), NotJson> {
        self.blanks();
        if self.at == self.text.len() { Ok(()) } else { Err(NotJson) }
    }

    /// Goes to the value that comes next and says what it is; does not pass it.
    #[inline]
    pub(crate) fn kind(&mut self) -> Result<Kind, NotJson> {
        self.blanks();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(NotJson),
        }
    }

    /// Enters the object or array that comes next. Says whether it has anything in it; an empty one is left again.
    #[inline]
    pub(crate) fn enter(&mut self, kind: Kind) -> Result<bool, NotJson> {
        if self.depth == MAX_DATA_DEPTH {
            return Err(NotJson);
        }
        self.at += 1;
        self.blanks();
        let end = if kind == Kind::Object { b'}' } else { b']' };
        if self.byte() == Some(end) {
            self.at += 1;
            return Ok(false);
        }
        self.depth += 1;
        Ok(true)
    }

    /// Passes the name of a member and the colon after it.
    #[inline]
    pub(crate) fn name(&mut self) -> Result<Quoted, NotJson> {
        self.blanks();
        if self.byte() != Some(b'"') {
            return Err(NotJson);
        }
        let name = self.quoted()?;
        self.blanks();
        if self.byte() != Some(b':') {
            return Err(NotJson);
        }
        self.at += 1;
        Ok(name)
    }

    /// After a member or an element: whether another one follows. Leaves the object or array where none does.
    #[inline]
    pub(crate) fn more(&mut self, kind: Kind) -> Result<bool, NotJson> {
        self.blanks();
        let end = if kind == Kind::Object { b'}' } else { b']' };
        match self.byte() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ => Err(NotJson),
        }
    }

    /// Checks and passes the value that comes next, of this kind.
    #[inline]
    pub(crate) fn skip(&mut self, kind: Kind) -> Result<(), NotJson> {
        match kind {
            Kind::Object | Kind::Array => self.skip_nested(kind),
            plain => self.skip_plain(plain),
        }
    }

    #[inline]
    fn skip_plain(&mut self, kind: Kind) -> Result<(), NotJson> {
        match kind {
            Kind::Text => self.quoted().map(drop),
            Kind::Number => self.number(),
            Kind::True => self.word("true"),
            Kind::False => self.word("false"),
            Kind::Null => self.word("null"),
            Kind::Object | Kind::Array => Err(NotJson),
        }
    }

    /// Without recursion: whether each of the open ones is an object is a bit, that of the innermost the lowest.
    fn skip_nested(&mut self, mut kind: Kind) -> Result<(), NotJson> {
        const { assert!(MAX_DATA_DEPTH <= u128::BITS as usize) };
        let bottom = self.depth;
        let mut objects: u128 = 0;
        loop {
            if matches!(kind, Kind::Object | Kind::Array) {
                if self.enter(kind)? {
                    objects = (objects << 1) | u128::from(kind == Kind::Object);
                    if kind == Kind::Object {
                        self.name()?;
                    }
                    kind = self.kind()?;
                    continue;
                }
            } else {
                self.skip_plain(kind)?;
            }
            loop {
                if self.depth == bottom {
                    return Ok(());
                }
                let around = if objects & 1 == 1 { Kind::Object } else { Kind::Array };
                if self.more(around)? {
                    if around == Kind::Object {
                        self.name()?;
                    }
                    break;
                }
                objects >>= 1;
            }
            kind = self.kind()?;
        }
    }

    #[inline]
    pub(crate) fn word(&mut self, word: &str) -> Result<(), NotJson> {
        let end = self.at + word.len();
        if self.text.as_bytes().get(self.at..end) != Some(word.as_bytes()) {
            return Err(NotJson);
        }
        self.at = end;
        Ok(())
    }

    /// Passes a string.
    #[inline]
    pub(crate) fn quoted(&mut self) -> Result<Quoted, NotJson> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = plain_until(self.text.as_bytes(), self.at);
            match self.byte() {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(Quoted { start, end, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(NotJson),
            }
        }
    }

    /// Passes an escape. Surrogates come in pairs.
    fn escape(&mut self) -> Result<(), NotJson> {
        self.at += 2;
        match self.text.as_bytes().get(self.at - 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => match self.hexadecimal()? {
                0xDC00..=0xDFFF => Err(NotJson),
                0xD800..=0xDBFF => {
                    if self.text.as_bytes().get(self.at..self.at + 2) != Some(b"\\u") {
                        return Err(NotJson);
                    }
                    self.at += 2;
                    match self.hexadecimal()? {
                        0xDC00..=0xDFFF => Ok(()),
                        _ => Err(NotJson),
                    }
                }
                _ => Ok(()),
            },
            _ => Err(NotJson),
        }
    }

    fn hexadecimal(&mut self) -> Result<u32, NotJson> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(NotJson)?;
        self.at += 4;
        digits.iter().try_fold(0, |number, digit| {
            char::from(*digit).to_digit(16).map(|digit| number * 16 + digit).ok_or(NotJson)
        })
    }

    /// Passes a number.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(NotJson),
        }
        if matches!(self.byte(), Some(b'0'..=b'9')) {
            return Err(NotJson);
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        let exponent = matches!(self.byte(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        // Only such numbers may be beyond the range of binary64, which `serde_json` refuses by rules of its own.
        if !self.any_number
            && (exponent || self.at - start > 300)
            && serde_json::from_str::<serde_json::Number>(&self.text[start..self.at]).is_err()
        {
            return Err(NotJson);
        }
        Ok(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        self.digits();
        if self.at > start { Ok(()) } else { Err(NotJson) }
    }
}

/// The first byte from `at` on that a string cannot hold as it is: a quote, a backslash or a control character; or the
/// end of the text. Looks at eight bytes at a time.
#[inline]
pub(crate) fn plain_until(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is zero; a byte above one may be marked by mistake, but never the lowest one.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found =
            zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) | controls;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        at += 1;
    }
    at
}

/// The text that a string of checked JSON denotes.
pub(crate) fn unescape(quoted: &str, into: &mut String) {
    into.clear();
    let mut rest = quoted;
    while let Some(place) = rest.find('\\') {
        into.push_str(&rest[..place]);
        let (denoted, length) = denoted(&rest[place..]);
        into.push(denoted);
        rest = &rest[place + length..];
    }
    into.push_str(rest);
}

/// What the escape at the start of checked text denotes, and how long it is.
fn denoted(escape: &str) -> (char, usize) {
    let unit = |at: usize| {
        escape.get(at..at + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
    };
    match escape.as_bytes().get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => match unit(2) {
            high @ 0xD800..=0xDBFF => {
                let code = 0x1_0000 + ((high - 0xD800) << 10) + unit(8).saturating_sub(0xDC00);
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
            }
            code => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
        },
        other => (other.map_or(char::REPLACEMENT_CHARACTER, |byte| char::from(*byte)), 2),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn is_json(text: &str) -> bool {
        let mut reader = JsonText::new(text);
        let whole = reader.kind().and_then(|kind| reader.skip(kind)).and_then(|()| reader.end());
        whole.is_ok()
    }

    #[test]
    fn what_serde_json_takes_is_taken() {
        for text in [
            "1e999",
            "[1e-999]",
            "1.7976931348623157e308",
            "1.7976931348623159e308",
            "0e99999999999",
            "1e99999999999",
            "-0",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "nul",
            "truee",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\ud83d\\ude00\"",
            "\"\\udc00\"",
            "\"\\u00g0\"",
            "\"\\x\"",
            "\"\u{7f}é\"",
            "\"\n\"",
            "\"12345678\u{1}\"",
            "\"1234567\\\"89\"",
            "\"",
            "\"\\",
            "\"\\u12",
            "",
            " ",
            " 1 ",
            "1 2",
            "[]]",
            "[[]",
            "{\"a\":{}}",
            "{\"a\":[1,{\"b\":null}],\"c\":false}",
            "\u{feff}1",
            "\u{a0}1",
            "{\"\\u0061\":1}",
        ] {
            assert_eq!(is_json(text), serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
        for digits in [300, 308, 309, 310, 400] {
            for text in ["9".repeat(digits), "1".repeat(digits), format!("0.{}", "9".repeat(digits))] {
                assert_eq!(is_json(&text), serde_json::from_str::<Value>(&text).is_ok(), "{text}");
            }
        }
        for depth in [MAX_DATA_DEPTH, MAX_DATA_DEPTH + 1] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                assert_eq!(is_json(&text), serde_json::from_str::<Value>(&text).is_ok(), "{depth}");
                let empty = format!("{}[]{}", open.repeat(depth - 1), close.repeat(depth - 1));
                assert_eq!(is_json(&empty), serde_json::from_str::<Value>(&empty).is_ok(), "{depth}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json(text in "[\\[\\]{}:,\"\\\\ 0-9eE.+untrfalse\u{1}é-]{0,24}") {
            prop_assert_eq!(is_json(&text), serde_json::from_str::<Value>(&text).is_ok());
        }

        #[test]
        fn a_broken_string_is_found(text in "(\\PC|[\"\\\\\u{0}\u{1f}ud8]){0,24}") {
            let text = format!("\"{text}\"");
            prop_assert_eq!(is_json(&text), serde_json::from_str::<Value>(&text).is_ok());
        }

        #[test]
        fn strings_are_unescaped(text in "(\\PC|[\"\\\\\u{0}\n\t\r\u{8}\u{c}/]){0,16}", ascii in any::<bool>()) {
            let mut quoted = serde_json::to_string(&text).unwrap();
            if ascii {
                let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
                quoted = format!("\"{}\"", units.collect::<String>());
            }
            let mut reader = JsonText::new(&quoted);
            prop_assert!(reader.kind() == Ok(Kind::Text));
            let found = reader.quoted().unwrap();
            prop_assert_eq!(found.escaped, quoted.contains('\\'));
            let mut unescaped = String::new();
            unescape(&quoted[found.start..found.end], &mut unescaped);
            prop_assert_eq!(unescaped, text);
        }
    }
}
