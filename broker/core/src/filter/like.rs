//! Patterns with wildcards, as CESQL's `LIKE` has them (section 3.4.3 of CESQL 1.0) and the dialect `like` as well.
//!
//! `%` stands for any number of characters, `_` for exactly one, `\%` and `\_` for the two themselves; every other
//! character, `\` included, stands for itself. Characters are Unicode scalar values, not bytes. Matching is linear in
//! the text for every pattern: there is nothing to go back to, since the first place where a part between two `%` fits
//! is as good as any.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use memchr::memmem;
use smallvec::SmallVec;

/// The longest pattern, in bytes. It bounds the work for each character of a text.
pub const MAX_PATTERN_BYTES: usize = 4_096;

/// A pattern, ready to match. A clone is a reference count; two are equal when they are written alike.
#[derive(Clone)]
pub struct Pattern(Arc<Compiled>);

/// The pattern has more than [`MAX_PATTERN_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pattern is longer than {MAX_PATTERN_BYTES} bytes: shorten it, or split the trigger")]
pub struct PatternTooLong;

struct Compiled {
    text: Box<str>,
    shape: Shape,
}

enum Shape {
    /// No `%`: the whole text is the part.
    Whole(Part),
    /// At least one `%`: the text starts with the first part, ends with the last, and holds the others in between.
    Around { first: Part, between: Box<[Search]>, last: Part },
}

/// What stands between two `%`: literals and single-character wildcards.
#[derive(Debug, Default, Clone)]
struct Part {
    items: SmallVec<[Item; 1]>,
    /// How many characters it takes.
    characters: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Item {
    Literal(Box<str>),
    /// So many characters, whatever they are; never none.
    Any(usize),
}

/// A part whose place in the text is not known.
enum Search {
    Literal(Box<str>),
    Automaton(Automaton),
}

/// Finds a part with wildcards in one pass: bit `n` of the state says whether its first `n + 1` characters fit the
/// text up to here.
struct Automaton {
    characters: usize,
    /// The longest literal of the part.
    longest: Box<str>,
    /// The bits of the wildcards.
    wild: Words,
    /// For each character of the part the bits where it fits, wildcards included; sorted by character.
    fitting: Box<[(char, Words)]>,
}

type Words = SmallVec<[u64; 1]>;

const WORD_BITS: usize = u64::BITS as usize;

impl Pattern {
    /// Compiles a pattern; every text is one.
    ///
    /// # Errors
    /// [`PatternTooLong`]
    pub fn new(text: &str) -> Result<Self, PatternTooLong> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternTooLong);
        }
        Ok(Self(Arc::new(Compiled { text: text.into(), shape: compile(text) })))
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether the whole of `text` fits the pattern. Linear in the text; see [`Pattern::weight`].
    pub fn matches(&self, text: &str) -> bool {
        match &self.0.shape {
            Shape::Whole(part) => part.strip_from(text) == Some(""),
            Shape::Around { first, between, last } => {
                let Some(mut rest) = first.strip_from(text) else { return false };
                // What the last part takes is cut off first, so that no other part uses it.
                let Some(end) = last.place_at_end(rest) else { return false };
                if last.strip_from(&rest[end..]) != Some("") {
                    return false;
                }
                rest = &rest[..end];
                between.iter().all(|search| {
                    let found = search.end_of_first(rest);
                    if let Some(end) = found {
                        rest = &rest[end..];
                    }
                    found.is_some()
                })
            }
        }
    }

    /// How many times the text is gone through at most, which is what one match costs: 1 unless a part between two `%`
    /// has both a `_` and more than 64 characters.
    pub fn weight(&self) -> usize {
        match &self.0.shape {
            Shape::Whole(_) => 1,
            Shape::Around { between, .. } => between.iter().map(Search::weight).max().unwrap_or(1),
        }
    }

    /// The only text that fits, where there is but one.
    pub fn exact(&self) -> Option<&str> {
        match &self.0.shape {
            Shape::Whole(part) => match part.items.as_slice() {
                [] => Some(""),
                [Item::Literal(literal)] => Some(literal),
                _ => None,
            },
            Shape::Around { .. } => None,
        }
    }

    /// What every text that fits starts with; may be empty.
    pub fn prefix(&self) -> &str {
        let (Shape::Whole(first) | Shape::Around { first, .. }) = &self.0.shape;
        first.items.first().map_or("", Item::literal)
    }

    /// What every text that fits ends with; may be empty.
    pub fn suffix(&self) -> &str {
        let (Shape::Whole(last) | Shape::Around { last, .. }) = &self.0.shape;
        last.items.last().map_or("", Item::literal)
    }

    /// The longest of the literals without a wildcard that every text that fits holds somewhere; empty where the
    /// pattern is all wildcards.
    pub fn longest_literal(&self) -> &str {
        let mut longest = "";
        for literal in self.literals() {
            if literal.len() > longest.len() {
                longest = literal;
            }
        }
        longest
    }

    /// Whether the pattern is nothing but its prefix and one `%`.
    pub fn is_prefix(&self) -> bool {
        matches!(&self.0.shape, Shape::Around { first, between, last }
            if between.is_empty() && last.items.is_empty() && first.is_literal())
    }

    /// Whether the pattern is nothing but one `%` and its suffix.
    pub fn is_suffix(&self) -> bool {
        matches!(&self.0.shape, Shape::Around { first, between, last }
            if between.is_empty() && first.items.is_empty() && last.is_literal())
    }

    /// The literals without a wildcard that every text that fits holds somewhere; some may be empty.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &str> {
        let (first, between, last) = match &self.0.shape {
            Shape::Whole(part) => (part, [].as_slice(), None),
            Shape::Around { first, between, last } => (first, &**between, Some(last)),
        };
        let between = between.iter().map(|search| match search {
            Search::Literal(literal) => &**literal,
            Search::Automaton(automaton) => &automaton.longest,
        });
        first
            .items
            .iter()
            .chain(last.into_iter().flat_map(|part| &part.items))
            .map(Item::literal)
            .chain(between)
    }
}

impl Part {
    fn is_literal(&self) -> bool {
        matches!(self.items.as_slice(), [] | [Item::Literal(_)])
    }

    fn push(&mut self, literal: &mut String) {
        if !literal.is_empty() {
            self.characters += literal.chars().count();
            self.items.push(Item::Literal(std::mem::take(literal).into()));
        }
    }

    fn push_any(&mut self) {
        self.characters += 1;
        match self.items.last_mut() {
            Some(Item::Any(count)) => *count += 1,
            _ => self.items.push(Item::Any(1)),
        }
    }

    /// What follows of `text` after the part, if the text starts with it.
    fn strip_from<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.items.iter().try_fold(text, |rest, item| match item {
            Item::Literal(literal) => rest.strip_prefix(&**literal),
            Item::Any(count) => {
                let mut characters = rest.chars();
                characters.nth(count - 1)?;
                Some(characters.as_str())
            }
        })
    }

    /// Where the part would have to start to end with `text`.
    fn place_at_end(&self, text: &str) -> Option<usize> {
        match self.items.as_slice() {
            [] => Some(text.len()),
            [Item::Literal(literal)] => text.ends_with(&**literal).then(|| text.len() - literal.len()),
            _ => text.char_indices().rev().nth(self.characters - 1).map(|(start, _)| start),
        }
    }

    fn longest(&self) -> &str {
        self.items.iter().map(Item::literal).max_by_key(|literal| literal.len()).unwrap_or_default()
    }
}

impl Item {
    /// The literal, or nothing of a wildcard.
    fn literal(&self) -> &str {
        match self {
            Self::Literal(literal) => literal,
            Self::Any(_) => "",
        }
    }
}

impl Search {
    fn new(part: &Part) -> Self {
        match part.items.as_slice() {
            [Item::Literal(literal)] => Self::Literal(literal.clone()),
            _ => Self::Automaton(Automaton::new(part)),
        }
    }

    /// Where the first occurrence ends.
    fn end_of_first(&self, text: &str) -> Option<usize> {
        match self {
            Self::Literal(literal) => {
                memmem::find(text.as_bytes(), literal.as_bytes()).map(|start| start + literal.len())
            }
            Self::Automaton(automaton) => automaton.end_of_first(text),
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Literal(_) => 1,
            Self::Automaton(automaton) => automaton.wild.len(),
        }
    }
}

impl Automaton {
    fn new(part: &Part) -> Self {
        let words = part.characters.div_ceil(WORD_BITS);
        let mut wild = Words::from_elem(0, words);
        let mut literals: Vec<(char, usize)> = Vec::new();
        let mut at = 0;
        for item in &part.items {
            match item {
                Item::Literal(literal) => {
                    literals.extend(literal.chars().zip(at..));
                    at += literal.chars().count();
                }
                Item::Any(count) => {
                    (at..at + count).for_each(|place| set(&mut wild, place));
                    at += count;
                }
            }
        }
        literals.sort_unstable();
        let mut fitting: Vec<(char, Words)> = Vec::new();
        for (character, place) in literals {
            if fitting.last().is_none_or(|(last, _)| *last != character) {
                fitting.push((character, wild.clone()));
            }
            if let Some((_, bits)) = fitting.last_mut() {
                set(bits, place);
            }
        }
        Self { characters: part.characters, longest: part.longest().into(), wild, fitting: fitting.into() }
    }

    fn end_of_first(&self, text: &str) -> Option<usize> {
        let last = self.characters - 1;
        let mut state = Words::from_elem(0, self.wild.len());
        for (start, character) in text.char_indices() {
            let found = self.fitting.binary_search_by_key(&character, |(fitting, _)| *fitting);
            let bits = found.map_or(&self.wild, |index| &self.fitting[index].1);
            let mut carried = 1;
            for (word, bits) in state.iter_mut().zip(bits) {
                let next = *word >> (WORD_BITS - 1);
                *word = ((*word << 1) | carried) & bits;
                carried = next;
            }
            if state[last / WORD_BITS] >> (last % WORD_BITS) & 1 == 1 {
                return Some(start + character.len_utf8());
            }
        }
        None
    }
}

fn set(bits: &mut Words, place: usize) {
    bits[place / WORD_BITS] |= 1 << (place % WORD_BITS);
}

fn compile(text: &str) -> Shape {
    let mut parts = Vec::new();
    let mut part = Part::default();
    let mut literal = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '%' => {
                part.push(&mut literal);
                parts.push(std::mem::take(&mut part));
            }
            '_' => {
                part.push(&mut literal);
                part.push_any();
            }
            '\\' => literal.push(characters.next_if(|next| matches!(next, '%' | '_')).unwrap_or('\\')),
            other => literal.push(other),
        }
    }
    part.push(&mut literal);
    let mut parts = parts.into_iter();
    match parts.next() {
        None => Shape::Whole(part),
        Some(first) => {
            let between = parts.filter(|part| part.characters > 0).map(|part| Search::new(&part)).collect();
            Shape::Around { first, between, last: part }
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    /// The definition, tried in every way: exponential, for short texts.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|taken| fits(rest, &text[taken..])),
            ['_', rest @ ..] => !text.is_empty() && fits(rest, &text[1..]),
            ['\\', escaped @ ('%' | '_'), rest @ ..] => {
                text.first() == Some(escaped) && fits(rest, &text[1..])
            }
            [literal, rest @ ..] => text.first() == Some(literal) && fits(rest, &text[1..]),
        }
    }

    #[test]
    fn each_rule() {
        for (text, like, expected) in [
            ("abc", "abc", true),
            ("abc", "ab", false),
            ("abc", "abcd", false),
            ("", "", true),
            ("a", "", false),
            ("", "%", true),
            ("", "_", false),
            ("ab\\c", "ab\\c", true),
            ("a%c", "a\\%c", true),
            ("abc", "a\\%c", false),
            ("a_c", "a\\_c", true),
            ("abc", "a\\_c", false),
            ("\\", "\\", true),
            ("\\%", "\\\\%", true),
            ("ABC", "abc", false),
            ("é", "_", true),
            ("aé😀b", "a__b", true),
            ("xé😀y", "x%_y", true),
            ("aba", "ab%ba", false),
            ("abba", "ab%ba", true),
            ("zzaxbzz", "%a_b%", true),
            ("zzaabb", "%a_b", true),
            ("aaab", "%a_b%b", false),
            ("tenants/7/orders/9N1", "tenants/%/orders/%N%", true),
        ] {
            assert_eq!(pattern(like).matches(text), expected, "{text:?} LIKE {like:?}");
        }
    }

    #[test]
    fn a_part_longer_than_a_word_is_found() {
        let part = format!("{}_{}", "a".repeat(70), "b".repeat(70));
        let long = pattern(&format!("%{part}%"));
        let fitting = format!("aaaa{}x{}bbbb", "a".repeat(70), "b".repeat(70));
        assert!(long.matches(&fitting));
        assert!(!long.matches(&fitting.replace("xb", "xxb")));
        assert_eq!(long.weight(), 3);
    }

    #[test]
    fn what_is_necessary_is_known() {
        let example = pattern("com.example.%order_%.created");
        assert_eq!((example.prefix(), example.suffix()), ("com.example.", ".created"));
        assert_eq!(example.longest_literal(), "com.example.");
        assert_eq!(pattern("%a_long_one%").longest_literal(), "long");
        assert_eq!(pattern("%_%").longest_literal(), "");
        assert_eq!(pattern("a\\%").exact(), Some("a%"));
        assert_eq!(pattern("").exact(), Some(""));
        assert_eq!(pattern("a_").exact(), None);
        assert!(pattern("a%").is_prefix() && !pattern("a%b").is_prefix() && !pattern("a_%").is_prefix());
        assert!(pattern("%a").is_suffix() && !pattern("%a%").is_suffix() && !pattern("a").is_suffix());
    }

    #[test]
    fn a_pattern_is_bounded() {
        assert!(Pattern::new(&"%".repeat(MAX_PATTERN_BYTES)).is_ok());
        assert_eq!(Pattern::new(&"%".repeat(MAX_PATTERN_BYTES + 1)), Err(PatternTooLong));
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(like in "[ab%_é\\\\]{0,9}", text in "[abé%_\\\\]{0,10}") {
            let (characters, of_text): (Vec<_>, Vec<_>) = (like.chars().collect(), text.chars().collect());
            let pattern = pattern(&like);
            let matches = pattern.matches(&text);
            prop_assert_eq!(matches, fits(&characters, &of_text));
            if matches {
                prop_assert!(text.starts_with(pattern.prefix()) && text.ends_with(pattern.suffix()));
                prop_assert!(text.contains(pattern.longest_literal()));
                prop_assert!(pattern.exact().is_none_or(|exact| exact == text));
            }
            prop_assert!(!pattern.is_prefix() || matches == text.starts_with(pattern.prefix()));
            prop_assert!(!pattern.is_suffix() || matches == text.ends_with(pattern.suffix()));
        }
    }
}
