//! The events of the YAML parser to trees, without recursion and within limits.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::scalar;
use super::{Map, Node, Value};
use crate::Code;
use crate::codes;
use crate::manifest::Mark;

/// The deepest nesting of maps and lists.
pub const MAX_DEPTH: usize = 64;

/// The most that anchors and aliases may copy in one file: 64 per node and one per byte of text.
pub const MAX_ALIAS_WEIGHT: usize = 16 * 1024 * 1024;

/// Beyond this number of fields, a duplicate is looked for by hash instead of by comparison.
const FEW_FIELDS: usize = 16;

/// The plain key under which YAML 1.1 merges another map; kubectl honours it.
const MERGE_KEY: &str = "<<";

/// Why a text cannot be read, and where reading stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SyntaxProblem {
    /// [`codes::MANIFEST_SYNTAX`] or [`codes::MANIFEST_TOO_LARGE`].
    pub code: Code,
    /// What is wrong.
    pub reason: String,
    /// Where.
    pub mark: Mark,
}

/// Reads a stream of YAML documents, or one JSON document, and hands over each that is not empty. The first
/// error ends the reading. The text may be a piece of a file, which begins on its line `first_line`.
pub fn parse(text: &str, first_line: u32, mut document: impl FnMut(Node)) -> Result<(), SyntaxProblem> {
    let before = first_line.saturating_sub(1);
    let lines = Lines { before, last: before.saturating_add(count_lines(text)) };
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some((event, span)) = next(&mut parser, lines)? {
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) => builder = Builder { weight: builder.weight, ..Builder::default() },
            Event::DocumentEnd => {
                if let Some(node) = builder.root.take().filter(|node| node.value != Value::Null) {
                    document(node);
                }
            }
            Event::Nothing | Event::StreamStart => {}
            event => builder.event(event, lines.mark(span.start))?,
        }
    }
    Ok(())
}

fn next<'t>(
    parser: &mut Parser<'t, StrInput<'t>>,
    lines: Lines,
) -> Result<Option<(Event<'t>, Span)>, SyntaxProblem> {
    parser.next_event().transpose().map_err(|error| syntax(lines.mark(*error.marker()), error.info()))
}

/// Where a text stands in its file.
#[derive(Debug, Clone, Copy)]
struct Lines {
    before: u32,
    last: u32,
}

impl Lines {
    /// The parser counts columns from 0, and puts the end of the text on the line behind the last.
    fn mark(self, marker: Marker) -> Mark {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let line = number(marker.line()).max(1).saturating_add(self.before).min(self.last);
        Mark { line, column: number(marker.col()).saturating_add(1) }
    }
}

fn count_lines(text: &str) -> u32 {
    let breaks = memchr::memchr_iter(b'\n', text.as_bytes()).count();
    let lines = breaks + usize::from(!text.ends_with('\n'));
    u32::try_from(lines).unwrap_or(u32::MAX).max(1)
}

fn syntax(mark: Mark, reason: impl Into<String>) -> SyntaxProblem {
    SyntaxProblem { code: codes::MANIFEST_SYNTAX, reason: reason.into(), mark }
}

fn too_large(mark: Mark, reason: impl Into<String>) -> SyntaxProblem {
    SyntaxProblem { code: codes::MANIFEST_TOO_LARGE, reason: reason.into(), mark }
}

/// A map or list that is not closed yet.
#[derive(Debug)]
struct Open {
    mark: Mark,
    anchor: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Debug, Default)]
struct OpenMap {
    fields: Vec<(String, Node)>,
    /// The names so far, once they are many.
    names: HashSet<String>,
    key: Option<Key>,
    /// What `<<` refers to, merged in when the map ends, behind the map's own fields.
    merged: Vec<Node>,
}

#[derive(Debug)]
enum Key {
    Field(String, Mark),
    Merge,
}

#[derive(Debug, Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    /// What was copied so far in the file.
    weight: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, mark: Mark) -> Result<(), SyntaxProblem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merge_key = style == ScalarStyle::Plain && text == MERGE_KEY;
                if let (true, Some(Open { content: Content::Map(map), .. })) =
                    (merge_key, self.open.last_mut())
                    && map.key.is_none()
                {
                    map.key = Some(Key::Merge);
                    return Ok(());
                }
                let value = scalar_value(text, style, tag.as_deref(), mark)?;
                self.complete(Node { value, mark }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq", mark)?;
                self.begin(Content::List(Vec::new()), anchor, mark)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map", mark)?;
                self.begin(Content::Map(OpenMap::default()), anchor, mark)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(syntax(mark, "the alias stands inside of what it refers to"));
                };
                self.charge(&node, mark)?;
                self.complete(Node { mark, ..node }, 0)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, content: Content, anchor: usize, mark: Mark) -> Result<(), SyntaxProblem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_large(mark, format!("maps and lists are nested deeper than {MAX_DEPTH} levels")));
        }
        if let Some(Open { content: Content::Map(OpenMap { key: None, .. }), .. }) = self.open.last() {
            return Err(syntax(mark, "the name of a field is a string, not a map or a list"));
        }
        self.open.push(Open { mark, anchor, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxProblem> {
        let Open { mark, anchor, content } = self.open.pop().expect("the parser balances starts and ends");
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map(map) if map.merged.is_empty() => Value::Map(Map(map.fields)),
            Content::Map(map) => Value::Map(merge(map)?),
        };
        self.complete(Node { value, mark }, anchor)
    }

    /// Puts a finished node where it belongs.
    fn complete(&mut self, mut node: Node, anchor: usize) -> Result<(), SyntaxProblem> {
        if anchor != 0 {
            self.charge(&node, node.mark)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map(map) => match map.key.take() {
                None => {
                    let name = field_name(&node)?;
                    if map.has(&name) {
                        return Err(syntax(node.mark, format!("the field `{name}` is given twice")));
                    }
                    map.key = Some(Key::Field(name, node.mark));
                }
                Some(Key::Merge) => map.merged.push(node),
                Some(Key::Field(name, mark)) => {
                    node.mark = mark;
                    map.fields.push((name, node));
                }
            },
        }
        Ok(())
    }

    /// Counts what is copied, and keeps an alias from nesting deeper than text may.
    fn charge(&mut self, node: &Node, mark: Mark) -> Result<(), SyntaxProblem> {
        let Measure { weight, depth } = measure(node);
        self.weight = self.weight.saturating_add(weight);
        if self.weight > MAX_ALIAS_WEIGHT {
            return Err(too_large(
                mark,
                "anchors and aliases expand to more than 16 MiB: write the values out",
            ));
        }
        if self.open.len() + depth > MAX_DEPTH {
            return Err(too_large(mark, format!("maps and lists are nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }
}

impl OpenMap {
    /// Whether the map has a field of this name. Remembers the name where the names are many.
    fn has(&mut self, name: &str) -> bool {
        if self.fields.len() < FEW_FIELDS {
            return self.fields.iter().any(|(known, _)| known == name);
        }
        if self.names.is_empty() {
            self.names.extend(self.fields.iter().map(|(known, _)| known.clone()));
        }
        !self.names.insert(name.to_owned())
    }
}

fn field_name(node: &Node) -> Result<String, SyntaxProblem> {
    match &node.value {
        Value::String(name) => Ok(name.clone()),
        Value::Bool(name) => Ok(name.to_string()),
        Value::Number(name) => Ok(name.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(syntax(node.mark, format!("the name of a field is a string, not {}", node.value.describe())))
        }
    }
}

/// The map with the fields of what it merges; its own win over merged ones, and earlier ones over later ones.
fn merge(map: OpenMap) -> Result<Map, SyntaxProblem> {
    let mut fields = map.fields;
    let mut names: HashSet<String> = fields.iter().map(|(name, _)| name.clone()).collect();
    for node in map.merged {
        let mark = node.mark;
        let sources = match node.value {
            Value::List(nodes) => nodes,
            _ => vec![node],
        };
        for source in sources {
            let Value::Map(Map(more)) = source.value else {
                return Err(syntax(mark, "the merge key `<<` takes a map or a list of maps"));
            };
            fields.extend(more.into_iter().filter(|(name, _)| names.insert(name.clone())));
        }
    }
    Ok(Map(fields))
}

/// What a copy of a node costs, and how many levels of maps and lists it has.
#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    weight: usize,
    depth: usize,
}

fn measure(node: &Node) -> Measure {
    let inner = |names: usize, children: &mut dyn Iterator<Item = &Node>| {
        let all = children.map(measure).fold(Measure::default(), |all, child| Measure {
            weight: all.weight.saturating_add(child.weight),
            depth: all.depth.max(child.depth),
        });
        Measure { weight: all.weight.saturating_add(names), depth: all.depth + 1 }
    };
    let Measure { weight, depth } = match &node.value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Measure::default(),
        Value::String(text) => Measure { weight: text.len(), depth: 0 },
        Value::List(items) => inner(0, &mut items.iter()),
        Value::Map(map) => {
            inner(map.iter().map(|(name, _)| name.len()).sum(), &mut map.iter().map(|(_, node)| node))
        }
    };
    Measure { weight: weight.saturating_add(64), depth }
}

fn scalar_value(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    mark: Mark,
) -> Result<Value, SyntaxProblem> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain {
            scalar::resolve(&text)
        } else {
            Value::String(text.into_owned())
        });
    };
    let resolved = scalar::resolve(&text);
    let value = match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str") => Some(Value::String(text.into_owned())),
        (true, "null") => Some(resolved).filter(|value| *value == Value::Null),
        (true, "bool") => Some(resolved).filter(|value| matches!(value, Value::Bool(_))),
        (true, "int" | "float") => scalar::number(&text).map(Value::Number),
        // The non-specific tag `!` makes a string of any scalar.
        (false, "") if tag.handle.is_empty() || tag.handle == "!" => Some(Value::String(text.into_owned())),
        (false, "!") if tag.handle.is_empty() => Some(Value::String(text.into_owned())),
        _ => return Err(unknown_tag(tag, mark)),
    };
    value.ok_or_else(|| syntax(mark, format!("the value is not what its tag `{tag}` says")))
}

fn check_tag(tag: Option<&Tag>, expected: &str, mark: Mark) -> Result<(), SyntaxProblem> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) => Err(unknown_tag(tag, mark)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, mark: Mark) -> SyntaxProblem {
    syntax(mark, format!("the tag `{tag}` has no meaning in a manifest"))
}
