//! Text to tokens (sections 2.2 to 2.4).

use std::ops::Range;

use super::parse::Reason;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Letters, digits and underscores of ASCII.
    Word,
    /// What stands between quotes, the escaped ones without their backslash.
    Text(String),
    Symbol(&'static str),
    End,
}

/// Two characters before one, so that the longest symbol is taken.
const SYMBOLS: [&str; 15] = ["!=", "<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ","];

/// The token at or after `from`.
///
/// # Errors
/// The reason and the place where no token starts.
pub(super) fn next(text: &str, from: usize) -> Result<Token, (Reason, usize)> {
    let rest = text[from..].trim_start_matches([' ', '\t', '\r', '\n']);
    let start = text.len() - rest.len();
    let token = |kind, length: usize| Ok(Token { kind, span: start..start + length });
    let Some(first) = rest.chars().next() else { return token(TokenKind::End, 0) };
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if is_word(first) {
        return token(TokenKind::Word, rest.find(|character| !is_word(character)).unwrap_or(rest.len()));
    }
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
        return token(TokenKind::Symbol(symbol), symbol.len());
    }
    if matches!(first, '\'' | '"') {
        let (content, length) = quoted(rest, first).ok_or((Reason::StringOpen, start))?;
        return token(TokenKind::Text(content), length);
    }
    Err((Reason::Character(first), start))
}

/// The content and the length of what stands in quotes at the beginning of `text`. A backslash keeps the next character
/// from ending it, and stays unless that is the quote.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == quote {
            return Some((content, at + 1));
        }
        if character != '\\' {
            content.push(character);
            continue;
        }
        let (_, escaped) = characters.next()?;
        if escaped != quote {
            content.push('\\');
        }
        content.push(escaped);
    }
    None
}
