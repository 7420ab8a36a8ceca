//! Places in programs that manifests hold.

use std::fmt;

/// A line and a column, both from 1, the column in characters; or nothing where the place is not known. Displayed with
/// a comma before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position(Option<(usize, usize)>);

impl Position {
    /// Where a slice of `whole` begins. A slice of something else has no place.
    pub(crate) fn of_part(whole: &str, part: &str) -> Self {
        let offset = part.as_ptr().addr().checked_sub(whole.as_ptr().addr());
        Self::of_offset(whole, offset.unwrap_or(usize::MAX))
    }

    /// The place of a byte.
    pub(crate) fn of_offset(whole: &str, offset: usize) -> Self {
        Self(whole.get(..offset).map(|before| {
            let line = before.rsplit('\n').next().unwrap_or_default();
            (before.matches('\n').count() + 1, line.chars().count() + 1)
        }))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((line, column)) => write!(f, ", at line {line}, column {column}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_characters_from_one() {
        let text = "äb\ncd";
        assert_eq!(Position::of_part(text, &text[2..]).to_string(), ", at line 1, column 2");
        assert_eq!(Position::of_part(text, &text[4..]).to_string(), ", at line 2, column 1");
        assert_eq!(Position::of_part(text, &text[6..]).to_string(), ", at line 2, column 3");
        assert_eq!(Position::of_part(text, &String::from("elsewhere")).to_string(), "");
    }
}
