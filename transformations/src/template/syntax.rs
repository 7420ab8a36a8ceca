//! What of the language of Jinja a template may use.

use crate::position::Position;

/// The most operators that put texts together (`~` and `+`) in one template.
const MAX_JOINS: usize = 64;

/// The statements that there are. Those that keep values, define macros or load other templates are left out.
const STATEMENTS: [&str; 7] = ["if", "elif", "else", "endif", "for", "endfor", "raw"];

/// The filters that there are.
pub(super) const FILTERS: [&str; 27] = [
    "abs",
    "capitalize",
    "d",
    "default",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lower",
    "max",
    "min",
    "replace",
    "reverse",
    "round",
    "sort",
    "string",
    "sum",
    "times",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
];

/// Refuses what a template may not use. Everything else is for the parser of the crate to refuse.
pub(super) fn check(source: &str) -> Result<(), String> {
    let mut joins = 0;
    let mut at = 0;
    while let Some(start) = source[at..].find('{').map(|start| at + start) {
        at = match source[start + 1..].chars().next() {
            Some('#') => after(source, start + 2, "#}"),
            Some('{') => expression(source, start + 2, "}}", &mut joins)?,
            Some('%') => {
                let inside = source[start + 2..].trim_start_matches(['-', '+']).trim_start();
                let word: String = inside.chars().take_while(char::is_ascii_alphabetic).collect();
                if !STATEMENTS.contains(&word.as_str()) {
                    let place = Position::of_part(source, inside);
                    return Err(format!(
                        "templates have no statement `{word}`: there are if, elif, else, for and raw{place}"
                    ));
                }
                let end = expression(source, start + 2, "%}", &mut joins)?;
                if word == "raw" { end_of_raw(source, end) } else { end }
            }
            _ => start + 1,
        };
    }
    Ok(())
}

/// The place after an expression that begins at `at`, whose strings are passed over.
fn expression(source: &str, at: usize, end: &str, joins: &mut usize) -> Result<usize, String> {
    let mut quote: Option<char> = None;
    let mut characters = source[at..].char_indices();
    while let Some((offset, one)) = characters.next() {
        let here = at + offset;
        match (quote, one) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), one) if one == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(one),
            (None, _) if source[here..].starts_with(end) => return Ok(here + end.len()),
            (None, '|') => {
                let inside = source[here + 1..].trim_start();
                let name: String =
                    inside.chars().take_while(|one| one.is_alphanumeric() || *one == '_').collect();
                // No name at all is for the parser to refuse.
                if !name.is_empty() && !FILTERS.contains(&name.as_str()) {
                    let place = Position::of_part(source, inside);
                    return Err(format!("templates have no filter `{name}`{place}"));
                }
            }
            (None, '*') => {
                let place = Position::of_offset(source, here);
                return Err(format!("templates have no `*`: write `a | times(b)` for numbers{place}"));
            }
            (None, '~' | '+') => {
                *joins += 1;
                if *joins > MAX_JOINS {
                    let place = Position::of_offset(source, here);
                    return Err(format!("a template has at most {MAX_JOINS} of `~` and `+`{place}"));
                }
            }
            (None, _) => {}
        }
    }
    // Not closed, which the parser tells.
    Ok(source.len())
}

fn after(source: &str, at: usize, end: &str) -> usize {
    source[at..].find(end).map_or(source.len(), |offset| at + offset + end.len())
}

/// The place after the statement that ends what is raw.
fn end_of_raw(source: &str, mut at: usize) -> usize {
    while let Some(start) = source[at..].find("{%").map(|start| at + start + 2) {
        let inside = source[start..].trim_start_matches(['-', '+']).trim_start();
        if inside.starts_with("endraw") {
            return after(source, start, "%}");
        }
        at = start;
    }
    source.len()
}
