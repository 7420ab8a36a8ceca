//! `redact`: takes values out of JSON data, or makes them unreadable.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonpath_rust::parser::model::{Filter, Segment, Selector};
use jsonpath_rust::parser::parse_json_path;
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::Sha256;
use waypost_core::manifest::FieldProblem;
use waypost_core::secret::{SecretValue, Secrets};
use waypost_core::transformation::json::{Json, Query};
use waypost_core::transformation::{
    Document, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

/// The most paths of one transformation.
const MAX_PATHS: usize = 256;

/// The shortest key, in bytes: what is shorter can be guessed, and with it the values.
const MIN_KEY_BYTES: usize = 16;

/// What stands in place of what is masked.
const MASK: &str = "***";

/// Removes, masks or hashes values of JSON data. Data in which no path selects anything stays byte for byte.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedactConfig {
    /// What to redact.
    paths: Vec<RedactPath>,
    /// The key for `hash`, of at least 16 bytes: a `value`, or a `secretKeyRef`.
    key: Option<SecretValue>,
}

/// Values to redact, and how.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RedactPath {
    /// A JSONPath of RFC 9535, without filters (`?`).
    path: String,
    /// What becomes of each value that the path selects.
    #[serde(default)]
    action: Action,
    /// For `mask`: how many characters at the end stay readable, of a text that is at least twice as long.
    #[serde(default)]
    keep_last: u8,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Action {
    /// It is taken out: a member with its name, and elements of arrays close up.
    #[default]
    Remove,
    /// It becomes `***`.
    Mask,
    /// It becomes the HMAC-SHA-256 of its text under the key, in hexadecimal digits: equal values stay equal.
    Hash,
}

impl TransformationConfig for RedactConfig {
    const TYPE: &'static str = "redact";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: String| problems.push(FieldProblem { path, message });
        if self.paths.is_empty() || self.paths.len() > MAX_PATHS {
            problem("paths".to_owned(), format!("write between 1 and {MAX_PATHS} paths"));
        }
        let mut rules = Vec::new();
        for (at, rule) in self.paths.iter().enumerate() {
            match segments(&rule.path) {
                Ok((segments, filters)) => {
                    rules.push(Rule { segments, filters, action: rule.action, keep_last: rule.keep_last });
                }
                Err(message) => problem(format!("paths[{at}].path"), message),
            }
            if rule.keep_last > 0 && rule.action != Action::Mask {
                problem(format!("paths[{at}].keepLast"), "`keepLast` is for `action: mask`".to_owned());
            }
        }
        let hashes = self.paths.iter().any(|rule| rule.action == Action::Hash);
        let mut hasher = None;
        match &self.key {
            None if hashes => problem("key".to_owned(), "`action: hash` needs a `key`".to_owned()),
            None => {}
            Some(key) => match hasher_of(key) {
                Ok(made) => hasher = Some(made),
                Err(message) => problem("key".to_owned(), message),
            },
        }
        if problems.is_empty() { Ok(Arc::new(Redact { rules, hasher })) } else { Err(problems) }
    }
}

/// The key as it is used. A reference to a Secret was resolved when the plan was made.
fn hasher_of(key: &SecretValue) -> Result<Hmac<Sha256>, String> {
    if let SecretValue::File(_) | SecretValue::Env(_) = key {
        return Err("a transformation reads no file and no environment: write a `secretKeyRef`".to_owned());
    }
    let key = key.resolve("", &Secrets::default()).map_err(|error| error.to_string())?;
    let key = key.expose().as_bytes();
    if key.len() < MIN_KEY_BYTES {
        return Err(format!("the key is shorter than {MIN_KEY_BYTES} bytes"));
    }
    Hmac::new_from_slice(key).map_err(|_| "the key cannot be used".to_owned())
}

/// The filters of a path, each as a query for the children of a value that it selects.
type Filters = Vec<(Filter, Query)>;

/// Reads a path, and refuses what would select by the values of others.
fn segments(path: &str) -> Result<(Vec<Segment>, Filters), String> {
    // Our own reader bounds what that of the crate may take, and tells the place of an error.
    Query::parse(path).map_err(|error| error.to_string())?;
    let query = parse_json_path(path).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for segment in &query.segments {
        collect_filters(segment, &mut found);
    }
    if !found.is_empty() && looks_at_the_root(path) {
        return Err("a filter of `redact` looks at the value itself (`@`), and not at `$`".to_owned());
    }
    let filters = found
        .into_iter()
        .map(|filter| (filter.clone(), Query::of_selector(Selector::Filter(filter), path)))
        .collect();
    Ok((query.segments, filters))
}

fn collect_filters(segment: &Segment, found: &mut Vec<Filter>) {
    let mut look = |selector: &Selector| {
        if let Selector::Filter(filter) = selector {
            found.push(filter.clone());
        }
    };
    match segment {
        Segment::Descendant(segment) => collect_filters(segment, found),
        Segment::Selector(selector) => look(selector),
        Segment::Selectors(selectors) => selectors.iter().for_each(look),
    }
}

/// Whether there is a `$` behind the first one, outside of texts.
fn looks_at_the_root(path: &str) -> bool {
    let mut quote = None;
    let mut escaped = false;
    path.chars().skip(1).any(|character| {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None, '$') => return true,
            _ => {}
        }
        false
    })
}

#[derive(Debug)]
struct Rule {
    segments: Vec<Segment>,
    filters: Filters,
    action: Action,
    keep_last: u8,
}

struct Redact {
    rules: Vec<Rule>,
    hasher: Option<Hmac<Sha256>>,
}

impl std::fmt::Debug for Redact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redact").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Transformation for Redact {
    fn apply(&self, mut document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        let Some(json) = document.json()? else { return Ok(document.into()) };
        // The data is copied when the first path selects something.
        let mut changed: Option<Json> = None;
        for rule in &self.rules {
            let mut selected = Selected { places: BTreeSet::new(), filters: &rule.filters, run };
            selected.visit(changed.as_ref().unwrap_or(json), &rule.segments, &mut Vec::new())?;
            let places = selected.places;
            if places.is_empty() {
                continue;
            }
            if changed.is_none() {
                run.make(json.weight())?;
            }
            let data = changed.get_or_insert_with(|| json.clone());
            // From the last to the first, and what is within before what it is in, so that places stay where they are.
            for place in places.iter().rev() {
                match (place.split_last(), rule.action) {
                    (None, Action::Remove) => {
                        document.remove_data();
                        return Ok(document.into());
                    }
                    (Some((last, parents)), Action::Remove) => {
                        if let Some(parent) = at(data, parents) {
                            remove(parent, *last);
                        }
                    }
                    (_, Action::Mask | Action::Hash) => {
                        if let Some(value) = at(data, place) {
                            *value = self.unreadable(value, rule).into();
                        }
                    }
                }
            }
        }
        if let Some(changed) = changed {
            document.set_json(changed);
        }
        Ok(document.into())
    }
}

impl Redact {
    fn unreadable(&self, value: &Json, rule: &Rule) -> String {
        let text = match value {
            Json::Text(text) => text.to_string(),
            other => other.to_string(),
        };
        match (&self.hasher, rule.action) {
            (Some(hasher), Action::Hash) => {
                let mut hasher = hasher.clone();
                hasher.update(text.as_bytes());
                hasher.finalize().into_bytes().iter().fold(String::with_capacity(64), |mut digits, byte| {
                    // Writing into a String does not fail.
                    let _ = write!(digits, "{byte:02x}");
                    digits
                })
            }
            _ => {
                let keep = usize::from(rule.keep_last);
                let length = text.chars().count();
                let plain = !matches!(value, Json::Array(_) | Json::Object(_));
                let kept: String = if plain && length >= 2 * keep {
                    text.chars().skip(length - keep).collect()
                } else {
                    String::new()
                };
                format!("{MASK}{kept}")
            }
        }
    }
}

/// A place in data: of each array or object on the way, which element or member.
type Place = Vec<usize>;

/// Collects the places that a path selects, each once.
struct Selected<'r> {
    places: BTreeSet<Place>,
    filters: &'r Filters,
    run: &'r mut Run,
}

impl Selected<'_> {
    fn visit(
        &mut self,
        json: &Json,
        segments: &[Segment],
        place: &mut Place,
    ) -> Result<(), TransformationError> {
        self.run.spend(1)?;
        let Some((segment, rest)) = segments.split_first() else {
            self.run.make(size_of_val(place.as_slice()))?;
            self.places.insert(place.clone());
            return Ok(());
        };
        match segment {
            Segment::Selector(selector) => self.select(json, selector, rest, place),
            Segment::Selectors(selectors) => {
                selectors.iter().try_for_each(|selector| self.select(json, selector, rest, place))
            }
            Segment::Descendant(inner) => self.descend(json, inner, rest, place),
        }
    }

    fn descend(
        &mut self,
        json: &Json,
        inner: &Segment,
        rest: &[Segment],
        place: &mut Place,
    ) -> Result<(), TransformationError> {
        self.run.spend(1)?;
        match inner {
            Segment::Selector(selector) => self.select(json, selector, rest, place)?,
            Segment::Selectors(selectors) => {
                selectors.iter().try_for_each(|selector| self.select(json, selector, rest, place))?;
            }
            Segment::Descendant(inner) => self.descend(json, inner, rest, place)?,
        }
        let mut below = |at: usize, child: &Json| {
            place.push(at);
            let result = self.descend(child, inner, rest, place);
            place.pop();
            result
        };
        match json {
            Json::Array(items) => items.iter().enumerate().try_for_each(|(at, child)| below(at, child)),
            Json::Object(members) => {
                members.iter().enumerate().try_for_each(|(at, (_, child))| below(at, child))
            }
            _ => Ok(()),
        }
    }

    fn select(
        &mut self,
        json: &Json,
        selector: &Selector,
        rest: &[Segment],
        place: &mut Place,
    ) -> Result<(), TransformationError> {
        if let Selector::Filter(filter) = selector {
            return self.select_by(json, filter, rest, place);
        }
        let mut visit = |at: usize, child: &Json| {
            place.push(at);
            let result = self.visit(child, rest, place);
            place.pop();
            result
        };
        match (json, selector) {
            (Json::Object(members), Selector::Name(name)) => {
                let found = members.iter().enumerate().find(|(_, (known, _))| ***known == **name);
                found.map_or(Ok(()), |(at, (_, child))| visit(at, child))
            }
            (Json::Object(members), Selector::Wildcard) => {
                members.iter().enumerate().try_for_each(|(at, (_, child))| visit(at, child))
            }
            (Json::Array(items), Selector::Wildcard) => {
                items.iter().enumerate().try_for_each(|(at, child)| visit(at, child))
            }
            (Json::Array(items), Selector::Index(index)) => {
                let at = match usize::try_from(*index) {
                    Ok(at) => Some(at),
                    Err(_) => usize::try_from(index.unsigned_abs())
                        .ok()
                        .and_then(|back| items.len().checked_sub(back)),
                };
                let found = at.and_then(|at| items.get(at).map(|child| (at, child)));
                found.map_or(Ok(()), |(at, child)| visit(at, child))
            }
            (Json::Array(items), Selector::Slice(start, end, step)) => {
                slice(items.len(), *start, *end, *step)
                    .try_for_each(|at| items.get(at).map_or(Ok(()), |child| visit(at, child)))
            }
            _ => Ok(()),
        }
    }
}

impl Selected<'_> {
    /// The children of a value that a filter selects.
    fn select_by(
        &mut self,
        json: &Json,
        filter: &Filter,
        rest: &[Segment],
        place: &mut Place,
    ) -> Result<(), TransformationError> {
        let Some((_, query)) = self.filters.iter().find(|(known, _)| known == filter) else { return Ok(()) };
        let selected = query.select(json, self.run)?;
        let mut selected = selected.into_iter().peekable();
        let children: Box<dyn Iterator<Item = &Json>> = match json {
            Json::Array(items) => Box::new(items.iter()),
            Json::Object(members) => Box::new(members.iter().map(|(_, value)| value)),
            _ => return Ok(()),
        };
        // They come in the order of the children.
        for (at, child) in children.enumerate() {
            if selected.next_if(|found| std::ptr::eq(*found, child)).is_some() {
                place.push(at);
                let result = self.visit(child, rest, place);
                place.pop();
                result?;
            }
        }
        Ok(())
    }
}

/// The places of a slice (RFC 9535, section 2.3.4.2.2), in ascending order.
fn slice(
    length: usize,
    start: Option<i64>,
    end: Option<i64>,
    step: Option<i64>,
) -> impl Iterator<Item = usize> {
    let step = step.unwrap_or(1);
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_end = |at: i64| if at >= 0 { at } else { length.saturating_add(at) };
    // The first place, and the one after the last, in ascending order.
    let (lower, upper, first) = if step >= 0 {
        let lower = from_end(start.unwrap_or(0)).clamp(0, length);
        (lower, from_end(end.unwrap_or(length)).clamp(0, length), lower)
    } else {
        let upper = from_end(start.unwrap_or(length - 1)).clamp(-1, length - 1);
        let lower = end.map_or(-1, from_end).clamp(-1, length - 1);
        (lower + 1, upper + 1, upper)
    };
    (lower..upper)
        .filter(move |at| step != 0 && (at - first) % step == 0)
        .filter_map(|at| usize::try_from(at).ok())
}

fn at<'j>(json: &'j mut Json, place: &[usize]) -> Option<&'j mut Json> {
    place.iter().try_fold(json, |json, at| match json {
        Json::Array(items) => items.get_mut(*at),
        Json::Object(members) => members.iter_mut().nth(*at).map(|(_, value)| value),
        _ => None,
    })
}

fn remove(parent: &mut Json, place: usize) {
    match parent {
        Json::Array(items) if place < items.len() => drop(items.remove(place)),
        Json::Object(members) => {
            let mut at = 0;
            members.retain(|_, _| {
                at += 1;
                at - 1 != place
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod suite;
