//! `has(subject)`: CEL asks `has` for members only, so that the question is put to a map with a member for every
//! variable that is there.

use super::ParseError;

/// The variable that holds the map. No attribute can have its name.
pub(super) const VARIABLE: &str = "_event";

/// How the question for the data itself is put.
pub(super) const OF_DATA: &str = "_event.data";

const PREFIX: &str = "_event.";

/// Where text was inserted: line and column in the text that came of it, from 1.
#[derive(Debug, Default)]
pub(super) struct Insertions(Vec<(usize, usize)>);

impl Insertions {
    /// The error with its place in the text as it was written.
    pub(super) fn undo(&self, mut error: ParseError) -> ParseError {
        let before = self.0.iter().filter(|(line, column)| *line == error.line && *column < error.column);
        error.column = error.column.saturating_sub(before.count() * PREFIX.len()).max(1);
        error
    }
}

/// Puts the question of each `has` with a lone name to the map. Text in quotes and comments stays as it is.
pub(super) fn rewrite(text: &str) -> (String, Insertions) {
    let mut rewritten = String::with_capacity(text.len());
    let mut insertions = Insertions::default();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => quoted(rest, rewritten.ends_with(['r', 'R'])),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if is_word(first) => rest.find(|character| !is_word(character)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let member = rewritten.trim_end().ends_with('.');
        rewritten.push_str(&rest[..length]);
        let has = &rest[..length] == "has" && !member;
        rest = &rest[length..];
        if let Some(start) = has.then(|| lone_name(rest)).flatten() {
            rewritten.push_str(&rest[..start]);
            rest = &rest[start..];
            let line_start = rewritten.rfind('\n').map_or(0, |at| at + 1);
            let line = 1 + rewritten.matches('\n').count();
            insertions.0.push((line, 1 + rewritten[line_start..].chars().count()));
            rewritten.push_str(PREFIX);
        }
    }
    (rewritten, insertions)
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Where the name starts, if `text` is one in parentheses.
fn lone_name(text: &str) -> Option<usize> {
    let inner = text.trim_start().strip_prefix('(')?.trim_start();
    let name = inner.find(|character| !is_word(character)).filter(|length| *length > 0)?;
    let closed = inner[name..].trim_start().starts_with(')');
    (closed && !inner.starts_with(|first: char| first.is_ascii_digit())).then(|| text.len() - inner.len())
}

/// How long the literal at the beginning of `text` is; all of it where it has no end.
fn quoted(text: &str, raw: bool) -> usize {
    let quote = &text[..1];
    let triple = quote.repeat(3);
    let end = if text.starts_with(&triple) { triple.as_str() } else { quote };
    let mut at = end.len();
    while let Some(character) = text[at..].chars().next() {
        if text[at..].starts_with(end) {
            return at + end.len();
        }
        at += character.len_utf8();
        if character == '\\' && !raw {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    text.len()
}
