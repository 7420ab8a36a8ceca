//! The functions of jq that are not written in jq: those of the crates that are pure and bounded by what they are given,
//! and ours in place of the others.

use jaq_core::load::parse::Def;
use jaq_core::native::{Filter, Fun, bome, run, v};
use jaq_core::{Cv, DataT, Error, RunPtr, ValR, ValT as _};
use jaq_json::Val;
use jaq_std::ValT as _;
use regex::{Regex, RegexBuilder};

use super::convert;
use super::value::{Value, excerpt};
use super::{Kind, Session};
use crate::meter::{make, step};

/// The size of a compiled pattern, in bytes.
const MAX_PATTERN_SIZE: usize = 256 * 1024;

/// What compiling a pattern counts for.
const STEPS_OF_A_PATTERN: u64 = 500;

/// Functions of the crates that are left out: they see the clock, the environment or the time zone of the machine, end
/// the process, write to its log, or are not bounded.
const LEFT_OUT: [&str; 11] = [
    "now",
    "env",
    "halt",
    "debug_empty",
    "stderr_empty",
    "localtime",
    "strflocaltime",
    "matches",
    "split_matches",
    "split_",
    "implode",
];

/// Definitions of the crates that are left out, since they need such functions, or are ours.
const DEFINITIONS_LEFT_OUT: [&str; 6] = ["halt", "halt_error", "debug", "stderr", "nan", "infinite"];

pub(super) fn functions() -> impl Iterator<Item = Fun<Kind>> {
    let theirs = jaq_core::funs::<Kind>().chain(jaq_std::funs::<Kind>());
    theirs.filter(|(name, ..)| !LEFT_OUT.contains(name)).chain(ours::<Kind>())
}

pub(super) fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    let theirs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let ours = jaq_core::load::parse(include_str!("definitions.jq"), |parser| parser.defs());
    theirs
        .filter(|definition| !DEFINITIONS_LEFT_OUT.contains(&definition.name))
        .chain(ours.expect("a test compiles our definitions"))
}

/// Generic, as the compiler cannot see that the pointers of one kind are those of the crate.
fn ours<D>() -> impl Iterator<Item = Fun<D>>
where
    D: for<'a> DataT<V<'a> = Value, Data<'a> = Session<'a>>,
{
    rows().into_vec().into_iter().map(run)
}

fn rows<D>() -> Box<[Filter<RunPtr<D>>]>
where
    D: for<'a> DataT<V<'a> = Value, Data<'a> = Session<'a>>,
{
    Box::new([
        ("now", v(0), |cv| bome(Ok(Value::from(cv.0.data().now)))),
        ("nan", v(0), |_| bome(Ok(Value::from(f64::NAN)))),
        ("infinite", v(0), |_| bome(Ok(Value::from(f64::INFINITY)))),
        ("length", v(0), |cv| bome(cv.1.length())),
        ("has", v(1), |mut cv| {
            let key = cv.0.pop_var();
            bome(cv.1.has(&key).map(Value::from))
        }),
        ("contains", v(1), |mut cv| {
            let other = cv.0.pop_var();
            bome(contains(cv.1.val(), other.val()).map(Value::from))
        }),
        ("indices", v(1), |mut cv| {
            let of = cv.0.pop_var();
            bome(indices(&cv.1, &of))
        }),
        ("bsearch", v(1), |mut cv| {
            let of = cv.0.pop_var();
            bome(bsearch(cv.1, &of))
        }),
        ("tojson", v(0), |cv| {
            cv.1.look_at_all();
            let text = convert::json_text(cv.1.val());
            bome(Ok(Value::from_utf8_bytes(text)))
        }),
        ("fromjson", v(0), |cv| bome(from_json(&cv.1))),
        ("implode", v(0), |cv| bome(implode(cv.1))),
        ("matches", v(2), |cv| bome(matches(cv, Parts { between: false, matched: true }))),
        ("split_matches", v(2), |cv| bome(matches(cv, Parts { between: true, matched: true }))),
        ("split_", v(2), |cv| bome(matches(cv, Parts { between: true, matched: false }))),
    ])
}

fn contains(one: &Val, other: &Val) -> Result<bool, Error<Value>> {
    step(1);
    Ok(match (one, other) {
        (Val::TStr(one) | Val::BStr(one), Val::TStr(other) | Val::BStr(other)) => {
            step(one.len() as u64 / 64);
            memchr::memmem::find(one, other).is_some()
        }
        (Val::Arr(one), Val::Arr(other)) => {
            for other in other.iter() {
                let mut found = false;
                for one in one.iter() {
                    // Values of two kinds do not contain one another; only at the top it is an error.
                    if contains(one, other).unwrap_or(false) {
                        found = true;
                        break;
                    }
                }
                if !found {
                    return Ok(false);
                }
            }
            true
        }
        (Val::Obj(one), Val::Obj(other)) => {
            for (name, other) in other.iter() {
                match one.get(name) {
                    Some(one) if contains(one, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (one, other) if std::mem::discriminant(one) == std::mem::discriminant(other) => one == other,
        (one, other) => {
            let (one, other) = (Value::measured(one.clone()), Value::measured(other.clone()));
            return Err(Error::str(format!("{one} and {other} cannot be checked for containment")));
        }
    })
}

/// Where a string or an array holds another, or an array a value. As jq counts, in characters.
fn indices(value: &Value, of: &Value) -> ValR<Value> {
    match (value.val(), of.val()) {
        (Val::Null, _) => Ok(Value::from_null()),
        (Val::TStr(text), Val::TStr(part)) => {
            if part.is_empty() {
                return Ok(Value::from_null());
            }
            step(text.len() as u64 / 8);
            let (mut characters, mut seen, mut start) = (0_usize, 0, 0);
            let mut found = Vec::new();
            while let Some(at) = memchr::memmem::find(&text[start..], part).map(|at| start + at) {
                step(1);
                make(16);
                characters += String::from_utf8_lossy(&text[seen..at]).chars().count();
                seen = at;
                found.push(Value::from(characters));
                start = at + 1;
            }
            Ok(found.into_iter().collect())
        }
        (Val::Arr(_), Val::Arr(part)) if part.is_empty() => Ok(Value::from_null()),
        (Val::Arr(items), Val::Arr(part)) => {
            step((items.len() as u64).saturating_mul(part.len() as u64) / 4);
            value.look_at_all();
            let windows = items.windows(part.len()).enumerate();
            Ok(windows.filter(|(_, window)| *window == &part[..]).map(|(at, _)| Value::from(at)).collect())
        }
        (Val::Arr(items), _) => {
            value.look_at_all();
            let items = items.iter().enumerate();
            Ok(items.filter(|(_, item)| *item == of.val()).map(|(at, _)| Value::from(at)).collect())
        }
        _ => Err(Error::index(value.clone(), of.clone())),
    }
}

fn bsearch(value: Value, of: &Value) -> ValR<Value> {
    let items: Vec<Value> = value.into_seq().map_err(|value| Error::typ(value, "array"))?;
    let place = items.binary_search(of);
    Ok(match place {
        Ok(at) => Value::from(at),
        Err(at) => Value::from(-1 - isize::try_from(at).unwrap_or(isize::MAX - 1)),
    })
}

fn from_json(value: &Value) -> ValR<Value> {
    let text = value.as_bytes().filter(|_| value.is_utf8_str());
    let text = text.ok_or_else(|| Error::typ(value.clone(), "string"))?;
    step(text.len() as u64 / 16);
    make(text.len().saturating_mul(2));
    let failed = |why: String| Error::str(format!("{} cannot be parsed as JSON: {why}", excerpt(value)));
    let text = std::str::from_utf8(text).map_err(|_| failed("it is not UTF-8".to_owned()))?;
    if text.trim() == "nan" {
        return Ok(Value::from(f64::NAN));
    }
    let json =
        waypost_core::transformation::json::Json::read(text).map_err(|error| failed(error.to_string()))?;
    convert::value_of(&json).map_err(|error| failed(error.to_string()))
}

fn implode(value: Value) -> ValR<Value> {
    let points: Vec<Value> = value.into_seq().map_err(|value| Error::typ(value, "array"))?;
    let mut text = String::new();
    for point in &points {
        step(1);
        let character = point.as_isize().and_then(|point| u32::try_from(point).ok()).and_then(char::from_u32);
        text.push(character.ok_or_else(|| Error::str(format!("{point} is no code point of a character")))?);
    }
    Ok(Value::from(text))
}

/// What of a text that was matched is told.
#[derive(Clone, Copy)]
struct Parts {
    between: bool,
    matched: bool,
}

/// Patterns, by the crate that takes a time proportional to the text whatever the pattern.
fn matches<D>(mut cv: Cv<'_, D>, parts: Parts) -> ValR<Value>
where
    D: for<'a> DataT<V<'a> = Value, Data<'a> = Session<'a>>,
{
    let flags = cv.0.pop_var();
    let pattern = cv.0.pop_var();
    let text_of = |value: &Value| match value.val() {
        Val::TStr(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        _ => Err(Error::typ(value.clone(), "string")),
    };
    let flags = match flags.val() {
        Val::Null => Flags::default(),
        _ => Flags::of(&text_of(&flags)?)?,
    };
    let pattern = cv.0.data().pattern(&text_of(&pattern)?, flags)?;
    let Some(bytes) = cv.1.as_bytes().filter(|_| cv.1.is_utf8_str()) else {
        return Err(Error::str(format!("{} cannot be matched, as it is not a string", cv.1)));
    };
    step(bytes.len() as u64 / 4);
    // Places are counted in characters, which only text has.
    let text = std::str::from_utf8(bytes).map_err(|_| Error::str("what is not UTF-8 cannot be matched"))?;
    let place = |string: &str| cv.1.as_sub_str(string.as_bytes());
    let mut found: Vec<Value> = Vec::new();
    let (mut last, mut counted, mut characters) = (0, 0, 0_usize);
    for captures in pattern.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        step(2 + captures.len() as u64);
        if flags.no_empty && whole.is_empty() {
            continue;
        }
        characters += text[counted..whole.start()].chars().count();
        counted = whole.start();
        if parts.between {
            found.push(place(&text[last..whole.start()]));
            last = whole.end();
        }
        if parts.matched {
            let groups = captures.iter().zip(pattern.capture_names()).map(|(group, name)| {
                let mut members: Vec<(Value, Value)> = Vec::with_capacity(4);
                match group {
                    Some(group) => {
                        let before = text[counted..group.start()].chars().count();
                        members.push((Value::text("offset"), Value::from(characters + before)));
                        members.push((Value::text("length"), Value::from(group.as_str().chars().count())));
                        members.push((Value::text("string"), place(group.as_str())));
                    }
                    None => {
                        members.push((Value::text("offset"), Value::from(-1_isize)));
                        members.push((Value::text("length"), Value::from(0_usize)));
                        members.push((Value::text("string"), Value::from_null()));
                    }
                }
                if let Some(name) = name {
                    members.push((Value::text("name"), Value::from(name.to_owned())));
                }
                Value::from_map(members)
            });
            found.push(groups.collect::<Result<Value, _>>()?);
        }
        if !flags.global {
            break;
        }
    }
    if parts.between {
        found.push(place(&text[last..]));
    }
    Ok(found.into_iter().collect())
}

/// The flags of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    global: bool,
    no_empty: bool,
    any_case: bool,
    lines: bool,
    dot_all: bool,
    lazy: bool,
    extended: bool,
}

impl Flags {
    fn of(text: &str) -> Result<Self, Error<Value>> {
        let mut flags = Self::default();
        for flag in text.chars() {
            match flag {
                'g' => flags.global = true,
                'n' => flags.no_empty = true,
                'i' => flags.any_case = true,
                'm' => flags.lines = true,
                's' => flags.dot_all = true,
                'l' => flags.lazy = true,
                'x' => flags.extended = true,
                'p' => (flags.lines, flags.dot_all) = (true, true),
                other => return Err(Error::str(format!("{other} is no flag of a pattern"))),
            }
        }
        Ok(flags)
    }
}

/// The patterns that a program has used, compiled. Bounded: a program that makes patterns of data starts over.
#[derive(Debug, Default)]
pub(super) struct Patterns(std::sync::Mutex<Vec<(String, Flags, Regex)>>);

const MAX_PATTERNS: usize = 64;

impl Session<'_> {
    fn pattern(&self, pattern: &str, flags: Flags) -> Result<Regex, Error<Value>> {
        // Kept patterns count for the same, so that a program takes as many steps every time.
        step(STEPS_OF_A_PATTERN);
        let mut kept = self.patterns.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let same = |(known, with, _): &&(String, Flags, Regex)| known == pattern && *with == flags;
        if let Some((.., compiled)) = kept.iter().find(same) {
            return Ok(compiled.clone());
        }
        let compiled = RegexBuilder::new(pattern)
            .case_insensitive(flags.any_case)
            .multi_line(flags.lines)
            .dot_matches_new_line(flags.dot_all)
            .swap_greed(flags.lazy)
            .ignore_whitespace(flags.extended)
            .size_limit(MAX_PATTERN_SIZE)
            .dfa_size_limit(MAX_PATTERN_SIZE)
            .build()
            .map_err(|error| Error::str(format!("the pattern is not valid: {error}")))?;
        if kept.len() >= MAX_PATTERNS {
            kept.clear();
        }
        kept.push((pattern.to_owned(), flags, compiled.clone()));
        Ok(compiled)
    }
}
