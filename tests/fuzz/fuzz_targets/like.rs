//! A pattern matches exactly the texts that the definition says, and what is known of its texts is true of them.
//!
//! Input: the pattern, a blank line, the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::filter::like::Pattern;
use waypost_fuzz::parts;

/// The definition, by dynamic programming over what is left of the pattern.
fn fits(pattern: &str, text: &str) -> bool {
    let (mut characters, mut parts) = (pattern.chars().peekable(), Vec::new());
    while let Some(character) = characters.next() {
        parts.push(match character {
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => Part::Is(characters.next_if(|next| matches!(next, '%' | '_')).unwrap_or('\\')),
            other => Part::Is(other),
        });
    }
    // `reached[n]`: the first `n` parts fit the text so far.
    let mut reached = vec![false; parts.len() + 1];
    reached[0] = true;
    let skip = |reached: &mut Vec<bool>| {
        for (place, part) in parts.iter().enumerate() {
            if matches!(part, Part::Any) && reached[place] {
                reached[place + 1] = true;
            }
        }
    };
    skip(&mut reached);
    for character in text.chars() {
        let mut next = vec![false; parts.len() + 1];
        for (place, part) in parts.iter().enumerate().filter(|(place, _)| reached[*place]) {
            match part {
                Part::Any => next[place] = true,
                Part::One => next[place + 1] = true,
                Part::Is(wanted) => next[place + 1] |= *wanted == character,
            }
        }
        skip(&mut next);
        reached = next;
    }
    reached[parts.len()]
}

enum Part {
    Any,
    One,
    Is(char),
}

fuzz_target!(|input: &str| {
    let [like, text] = parts(input);
    let Ok(pattern) = Pattern::new(like) else { return };
    let matches = pattern.matches(text);
    assert_eq!(matches, fits(like, text));
    if matches {
        assert!(text.starts_with(pattern.prefix()) && text.ends_with(pattern.suffix()));
        assert!(text.contains(pattern.longest_literal()));
        assert!(pattern.exact().is_none_or(|exact| exact == text));
    }
    assert!(!pattern.is_prefix() || matches == text.starts_with(pattern.prefix()));
    assert!(!pattern.is_suffix() || matches == text.ends_with(pattern.suffix()));
    if let Some(exact) = pattern.exact() {
        assert!(pattern.matches(exact));
    }
});
