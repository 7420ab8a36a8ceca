//! The values that operations are given: text in which stored variables stand by their names.

use waypost_core::transformation::json::{Json, Number, Text};
use waypost_core::transformation::{Run, TransformationError};

/// What was stored, by the number of the variable. Nothing, and null, are an unset variable.
pub(super) type Variables = Vec<Option<Json>>;

/// Names in the order in which they were declared.
pub(super) type Names = Vec<Text>;

/// A value, compiled.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A number or a boolean that was written as such.
    Plain(Json),
    /// Exactly one variable: its type is kept. Its name, where it is unset.
    Variable(usize, Text),
    /// Text with variables in it.
    Text(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Literal(Text),
    Variable(usize, Text),
    /// What stood in parentheses: it goes, with its parentheses, where a variable in it is unset.
    Group(Vec<Part>),
}

impl Value {
    /// Reads text. At each place the longest name counts; what a variable holds is not looked into again.
    pub(super) fn of_text(text: &str, names: &[Text]) -> Self {
        if let Some(number) = names.iter().position(|name| **name == *text) {
            return Self::Variable(number, text.into());
        }
        Self::Text(parts(text, names))
    }

    /// The value for an event.
    pub(super) fn expand(&self, variables: &Variables, run: &mut Run) -> Result<Json, TransformationError> {
        match self {
            Self::Plain(value) => Ok(value.clone()),
            Self::Variable(number, name) => match set(variables, *number) {
                Some(value) => {
                    run.make(value.weight())?;
                    Ok(value.clone())
                }
                None => Ok(Json::Text(name.clone())),
            },
            Self::Text(parts) => match parts.as_slice() {
                [Part::Literal(text)] => Ok(Json::Text(text.clone())),
                parts => {
                    let mut text = String::new();
                    write(parts, variables, &mut text);
                    run.make(text.len())?;
                    Ok(text.into())
                }
            },
        }
    }
}

fn set(variables: &Variables, number: usize) -> Option<&Json> {
    variables.get(number)?.as_ref().filter(|value| **value != Json::Null)
}

fn write(parts: &[Part], variables: &Variables, text: &mut String) {
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Variable(number, name) => match set(variables, *number) {
                Some(value) => text.push_str(&as_text(value)),
                None => text.push_str(name),
            },
            Part::Group(inner) => {
                let is_set = |part: &Part| match part {
                    Part::Variable(number, _) => set(variables, *number).is_some(),
                    Part::Literal(_) | Part::Group(_) => true,
                };
                if inner.iter().all(is_set) {
                    write(inner, variables, text);
                }
            }
        }
    }
}

/// A value as it stands within text and in attributes: strings as they are, all else as JSON.
pub(super) fn as_text(value: &Json) -> std::borrow::Cow<'_, str> {
    match value {
        Json::Text(text) => std::borrow::Cow::Borrowed(text),
        other => std::borrow::Cow::Owned(other.to_string()),
    }
}

/// Cuts text at variables and at parentheses that hold one.
fn parts(text: &str, names: &[Text]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('(') {
        let screened = rest[..open].ends_with('\\');
        let end = rest[open + 1..].find(['(', ')']).map(|at| open + 1 + at);
        let inner = end.filter(|end| rest.as_bytes()[*end] == b')').map(|end| &rest[open + 1..end]);
        match inner
            .filter(|inner| !screened && !inner.ends_with('\\'))
            .map(|inner| (inner, cut(inner, names)))
        {
            Some((inner, group)) if group.iter().any(|part| matches!(part, Part::Variable(..))) => {
                parts.extend(cut(&rest[..open], names));
                parts.push(Part::Group(group));
                rest = &rest[open + inner.len() + 2..];
            }
            _ => {
                parts.extend(cut(&rest[..=open], names));
                rest = &rest[open + 1..];
            }
        }
    }
    parts.extend(cut(rest, names));
    if parts.is_empty() {
        parts.push(Part::Literal(text.into()));
    }
    joined(parts)
}

/// Neighbouring literals become one.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Literal(before)), Part::Literal(text)) => *before = format!("{before}{text}").into(),
            (_, part) => joined.push(part),
        }
    }
    joined
}

/// Cuts text at variables.
fn cut(text: &str, names: &[Text]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut literal = 0;
    let mut at = 0;
    while at < text.len() {
        let here = names.iter().enumerate().filter(|(_, name)| text[at..].starts_with(&***name));
        match here.max_by_key(|(_, name)| name.len()) {
            Some((number, name)) => {
                if literal < at {
                    parts.push(Part::Literal(text[literal..at].into()));
                }
                parts.push(Part::Variable(number, name.clone()));
                at += name.len();
                literal = at;
            }
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    if literal < text.len() {
        parts.push(Part::Literal(text[literal..].into()));
    }
    parts
}

/// A value that another is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// What a variable holds; its name, where it is unset.
    Variable(usize, Text),
    /// The text of a string, a number or a boolean.
    Text(Text),
}

impl Condition {
    pub(super) fn of_text(text: &str, names: &[Text]) -> Self {
        match names.iter().position(|name| **name == *text) {
            Some(number) => Self::Variable(number, text.into()),
            None => Self::Text(text.into()),
        }
    }

    /// Whether a value is equal, by value: text that is a number equals that number.
    pub(super) fn holds(&self, value: &Json, variables: &Variables) -> bool {
        match self {
            Self::Variable(number, name) => match set(variables, *number) {
                Some(Json::Text(text)) => reads_as(value, text),
                Some(stored) => stored == value || value.as_text().is_some_and(|text| reads_as(stored, text)),
                None => reads_as(value, name),
            },
            Self::Text(text) => reads_as(value, text),
        }
    }
}

fn reads_as(value: &Json, text: &str) -> bool {
    match value {
        Json::Text(own) => **own == *text,
        Json::Number(number) => Number::parse(text).is_some_and(|other| other == *number),
        Json::Bool(own) => text == if *own { "true" } else { "false" },
        Json::Null | Json::Array(_) | Json::Object(_) | Json::Unread(_) => false,
    }
}
