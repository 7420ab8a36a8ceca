//! Reading fields of a located tree: every problem is kept, with its place and path, and reading goes on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::document::{Map, Node, Value};
use super::{Destination, Location, Mark, Problem, ResourceId, Severity};
use crate::Code;
use crate::codes;
use crate::{duration, size};

/// The way from the root of a document to a field, kept on the stack and written out only for a problem.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub(super) fn field(&'p self, name: &'p str) -> Self {
        Path::Field(self, name)
    }

    pub(super) fn item(&'p self, index: usize) -> Self {
        Path::Item(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            // The name of an annotation holds dots and a slash.
            Path::Field(parent, name) if name.contains(['.', '/', '[']) => write!(f, "{parent}[{name}]"),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Collects the problems of one document.
#[derive(Debug)]
pub(super) struct Reader<'f> {
    file: &'f Arc<str>,
    /// Whether fields that are not known are errors (native kinds) or tolerated (everyone else's).
    pub(super) strict: bool,
    /// Whether a filter is read as an earlier process recorded it.
    pub(super) recorded: bool,
    /// The resource that the problems belong to, once it is known.
    pub(super) resource: Option<ResourceId>,
    pub(super) problems: Vec<Problem>,
    /// Every destination that could be read, with the field that holds it.
    pub(super) destinations: Vec<(String, Destination)>,
}

impl<'f> Reader<'f> {
    pub(super) fn new(file: &'f Arc<str>) -> Self {
        Self {
            file,
            strict: false,
            recorded: false,
            resource: None,
            problems: Vec::new(),
            destinations: Vec::new(),
        }
    }

    /// The path of the file.
    pub(super) fn file(&self) -> &'f Arc<str> {
        self.file
    }

    /// Whether a problem keeps the resource from being applied.
    pub(super) fn failed(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }

    pub(super) fn error(
        &mut self,
        code: Code,
        mark: Mark,
        path: &Path<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problem(Severity::Error, code, mark, path, message.into(), help.into());
    }

    pub(super) fn warning(
        &mut self,
        code: Code,
        mark: Mark,
        path: &Path<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problem(Severity::Warning, code, mark, path, message.into(), help.into());
    }

    fn problem(
        &mut self,
        severity: Severity,
        code: Code,
        mark: Mark,
        path: &Path<'_>,
        message: String,
        help: String,
    ) {
        self.problems.push(Problem {
            code,
            severity,
            message,
            help,
            location: Some(Location { file: Arc::clone(self.file), mark }),
            path: path.to_string(),
            resource: self.resource.clone(),
        });
    }

    /// Reads a field that may be absent.
    pub(super) fn optional<'n, T>(
        &mut self,
        map: &'n Map,
        path: &Path<'_>,
        name: &str,
        read: impl FnOnce(&mut Self, &'n Node, &Path<'_>) -> Option<T>,
    ) -> Option<T> {
        let node = map.get(name)?;
        read(self, node, &path.field(name))
    }

    /// Reads a field that must be there. `mark` is the place of the map.
    pub(super) fn required<'n, T>(
        &mut self,
        (map, mark): (&'n Map, Mark),
        path: &Path<'_>,
        name: &str,
        help: &str,
        read: impl FnOnce(&mut Self, &'n Node, &Path<'_>) -> Option<T>,
    ) -> Option<T> {
        match map.get(name) {
            Some(node) => read(self, node, &path.field(name)),
            None => {
                self.missing(mark, &path.field(name), help);
                None
            }
        }
    }

    pub(super) fn missing(&mut self, mark: Mark, path: &Path<'_>, help: &str) {
        self.error(codes::FIELD_MISSING, mark, path, format!("`{path}` is missing"), help);
    }

    pub(super) fn map<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n Map> {
        match &node.value {
            Value::Map(map) => Some(map),
            other => self.wrong_type(
                node.mark,
                path,
                other,
                "a map of fields",
                "write its fields indented below it",
            ),
        }
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            other => self.wrong_type(node.mark, path, other, "a list", "begin each item with `- `"),
        }
    }

    pub(super) fn string<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n str> {
        match &node.value {
            Value::String(text) => Some(text),
            other @ (Value::Bool(_) | Value::Number(_)) => {
                self.wrong_type(node.mark, path, other, "a string", "put the value in quotes")
            }
            other => self.wrong_type(node.mark, path, other, "a string", "write text"),
        }
    }

    /// Text that must not be empty.
    pub(super) fn text<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n str> {
        let text = self.string(node, path)?;
        if text.is_empty() {
            self.error(codes::FIELD_VALUE, node.mark, path, format!("`{path}` is empty"), "write a value");
            return None;
        }
        Some(text)
    }

    pub(super) fn boolean(&mut self, node: &Node, path: &Path<'_>) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            other => {
                self.wrong_type(node.mark, path, other, "a Boolean", "write `true` or `false` without quotes")
            }
        }
    }

    /// A whole number within bounds, both included.
    pub(super) fn integer(&mut self, node: &Node, path: &Path<'_>, least: u32, most: u32) -> Option<u32> {
        let help = format!("write a whole number from {least} to {most}");
        let Value::Number(number) = &node.value else {
            return self.wrong_type(node.mark, path, &node.value, "a number", &help);
        };
        let value = number.as_u64().and_then(|number| u32::try_from(number).ok());
        let value = value.filter(|value| (least..=most).contains(value));
        if value.is_none() {
            self.error(codes::FIELD_VALUE, node.mark, path, format!("`{path}` cannot be {number}"), help);
        }
        value
    }

    /// An ISO 8601 duration; zero only where `zero` allows it.
    pub(super) fn duration(&mut self, node: &Node, path: &Path<'_>, zero: bool) -> Option<Duration> {
        let text = self.string(node, path)?;
        self.duration_text(text, node.mark, path, zero)
    }

    pub(super) fn duration_text(
        &mut self,
        text: &str,
        mark: Mark,
        path: &Path<'_>,
        zero: bool,
    ) -> Option<Duration> {
        match duration::parse(text) {
            Ok(duration) if duration.is_zero() && !zero => {
                let message = format!("`{path}` must be longer than nothing");
                self.error(codes::DURATION_INVALID, mark, path, message, "write a duration such as `PT10S`");
                None
            }
            Ok(duration) => Some(duration),
            Err(invalid) => {
                let help = "write an ISO 8601 duration such as `PT0.2S`, `PT5M` or `P1DT2H`";
                self.error(codes::DURATION_INVALID, mark, path, invalid.to_string(), help);
                None
            }
        }
    }

    /// A size in bytes, above 0: a number, or text with a unit.
    pub(super) fn size(&mut self, node: &Node, path: &Path<'_>) -> Option<u64> {
        let size = match &node.value {
            Value::Number(number) => size::parse(&number.to_string()),
            Value::String(text) => size::parse(text),
            other => {
                let help = "write a size such as `512MiB` or `10GiB`";
                return self.wrong_type(node.mark, path, other, "a size", help);
            }
        };
        size.map_err(|invalid| {
            let message = format!("`{path}` is not a size");
            self.error(codes::FIELD_VALUE, node.mark, path, message, invalid.to_string());
        })
        .ok()
    }

    /// Refuses fields that a native kind does not have. `known` are the fields it has, `planned` those that it
    /// will have.
    pub(super) fn only(&mut self, map: &Map, path: &Path<'_>, known: &[&str], planned: &[&str]) {
        if !self.strict {
            return;
        }
        for (name, node) in map.iter().filter(|(name, _)| !known.contains(name)) {
            let path = path.field(name);
            if planned.contains(&name) {
                self.not_supported(node.mark, &path);
            } else {
                let help = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("its fields are {}", known.join(", ")),
                };
                self.error(
                    codes::FIELD_UNKNOWN,
                    node.mark,
                    &path,
                    format!("there is no field `{path}`"),
                    help,
                );
            }
        }
    }

    /// Refuses fields that a map of ours does not have, whatever the kind that it stands in.
    pub(super) fn all_known(&mut self, map: &Map, path: &Path<'_>, known: &[&str]) {
        let strict = std::mem::replace(&mut self.strict, true);
        self.only(map, path, known, &[]);
        self.strict = strict;
    }

    /// A field that the documentation names and this version does not honour.
    pub(super) fn not_supported(&mut self, mark: Mark, path: &Path<'_>) {
        let message = format!("`{path}` is not supported by this version");
        self.error(codes::FIELD_NOT_SUPPORTED, mark, path, message, "leave it out, or use a newer version");
    }

    fn wrong_type<T>(
        &mut self,
        mark: Mark,
        path: &Path<'_>,
        found: &Value,
        expected: &str,
        help: &str,
    ) -> Option<T> {
        let name = if matches!(path, Path::Root) { "the document".to_owned() } else { format!("`{path}`") };
        let message = format!("{name} must be {expected}, not {}", found.describe());
        self.error(codes::FIELD_TYPE, mark, path, message, help);
        None
    }
}

/// The longest name that is compared with known ones.
const LONGEST_COMPARED: usize = 64;

/// The candidate that a mistyped name most likely stands for, if one is near.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if name.len() > LONGEST_COMPARED {
        return None;
    }
    let folded = name.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST_COMPARED)
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().min(name.len()) / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let fields = ["subscriber", "broker", "delivery", "deadLetterSink"];
        assert_eq!(nearest("subscribers", fields), Some("subscriber"));
        assert_eq!(nearest("Broker", fields), Some("broker"));
        assert_eq!(nearest("deadLettersink", fields), Some("deadLetterSink"));
        assert_eq!(nearest("delviery", fields), Some("delivery"));
        assert_eq!(nearest("filter", fields), None);
        assert_eq!(nearest(&"x".repeat(1000), fields), None);
    }

    #[test]
    fn a_path_is_written_as_users_write_it() {
        let root = Path::Root;
        let (spec, metadata) = (root.field("spec"), root.field("metadata"));
        let filters = spec.field("filters");
        let (item, annotations) = (filters.item(1), metadata.field("annotations"));
        assert_eq!(item.field("exact").to_string(), "spec.filters[1].exact");
        assert_eq!(
            annotations.field("waypost.dev/paused").to_string(),
            "metadata.annotations[waypost.dev/paused]"
        );
    }
}
