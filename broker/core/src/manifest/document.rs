//! Text to trees whose every node knows its place.

mod parse;
mod scalar;

use serde::{Serialize, Serializer};

use super::Mark;

pub use self::parse::{MAX_ALIAS_WEIGHT, MAX_DEPTH, SyntaxProblem, parse};

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// The place: that of the key for a field, that of the item for an item of a list.
    pub mark: Mark,
}

/// A value of YAML's core schema, which is JSON's with more ways to write it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// `true` or `false`; `yes`, `no`, `on` and `off` are strings.
    Bool(bool),
    /// A number that JSON can hold. One that is too large for 64 bits is the nearest floating-point number.
    Number(serde_json::Number),
    /// Text.
    String(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping with strings as keys.
    Map(Map),
}

impl Value {
    /// What the value is, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a Boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Fields in the order in which they were written, each name once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map(Vec<(String, Node)>);

impl Map {
    /// A map of these fields, each name once.
    pub(super) fn of(fields: Vec<(String, Node)>) -> Self {
        Self(fields)
    }

    /// The field, unless it is absent or null, which are the same in a manifest.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, node)| node)
            .filter(|node| node.value != Value::Null)
    }

    /// The fields.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Node)> {
        self.0.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Node {
    /// The same tree with every node at one place, for text that stands in a value of another text.
    pub(super) fn moved_to(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self.value = match self.value {
            Value::List(items) => Value::List(items.into_iter().map(|node| node.moved_to(mark)).collect()),
            Value::Map(Map(fields)) => {
                Value::Map(Map(fields.into_iter().map(|(name, node)| (name, node.moved_to(mark))).collect()))
            }
            scalar => scalar,
        };
        self
    }

    /// The tree of a JSON value, every node at one place. Recursion is bounded by the reader of the JSON.
    pub(super) fn from_json(value: serde_json::Value, mark: Mark) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => Value::Number(number),
            serde_json::Value::String(text) => Value::String(text),
            serde_json::Value::Array(items) => {
                Value::List(items.into_iter().map(|item| Self::from_json(item, mark)).collect())
            }
            serde_json::Value::Object(fields) => Value::Map(Map(fields
                .into_iter()
                .map(|(name, field)| (name, Self::from_json(field, mark)))
                .collect())),
        };
        Self { value, mark }
    }

    /// The same value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => serde_json::Value::Bool(*value),
            Value::Number(value) => serde_json::Value::Number(value.clone()),
            Value::String(value) => serde_json::Value::String(value.clone()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(map) => serde_json::Value::Object(
                map.iter().map(|(key, node)| (key.to_owned(), node.to_json())).collect(),
            ),
        }
    }

    /// The place of the node that a path such as `filters[1].exact.type` leads to, or of the nearest node above
    /// it that exists. A key that holds a dot is found as well.
    pub fn locate(&self, path: &str) -> Mark {
        let mut node = self;
        let mut rest = path;
        while !rest.is_empty() {
            let Some((child, remaining)) = step(node, rest) else { break };
            node = child;
            rest = remaining;
        }
        node.mark
    }
}

/// Writes what [`Node::to_json`] gives, without making it. Recursion is bounded by [`MAX_DEPTH`].
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(value) => value.serialize(serializer),
            Value::String(value) => serializer.serialize_str(value),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(map) => serializer.collect_map(map.iter()),
        }
    }
}

/// What text without quotes means.
pub(super) fn plain(text: &str) -> Value {
    scalar::resolve(text)
}

/// The child that the first segments of `path` name, and what follows of the path.
fn step<'n, 'p>(node: &'n Node, path: &'p str) -> Option<(&'n Node, &'p str)> {
    let path = path.trim_start_matches('.');
    match &node.value {
        Value::List(items) => {
            let (index, rest) = match path.strip_prefix('[') {
                Some(bracketed) => bracketed.split_once(']')?,
                None => path.split_once('.').unwrap_or((path, "")),
            };
            Some((items.get(index.parse::<usize>().ok()?)?, rest))
        }
        Value::Map(map) => {
            // The longest key that the path begins with, since a key may hold dots itself.
            let matching = |key: &&str| {
                path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            let (key, child) =
                map.iter().filter(|(key, _)| matching(key)).max_by_key(|(key, _)| key.len())?;
            Some((child, &path[key.len()..]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod suite;
