//! The operations, compiled and in the order in which they run.

use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::json::{Json, Number, Text};
use waypost_core::transformation::{Document, Run, TransformationError};

use super::context::Attribute;
use super::path::Path;
use super::value::{Condition, Names, Value, Variables};
use super::{Fields, Place, Written};

/// All operations, in the order in which they run.
#[derive(Debug)]
pub(super) struct Program {
    variables: usize,
    first_context: Vec<Step<Attribute>>,
    first_data: Vec<Step<Path>>,
    context: Vec<Step<Attribute>>,
    data: Vec<Step<Path>>,
    /// The members of data that the operations may look into; none where they look at all of it.
    looks_into: Option<Vec<Text>>,
}

/// One operation at one place; `P` is what a place is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step<P> {
    Add {
        to: P,
        value: Value,
    },
    /// Without a place: everywhere. Without a condition: whatever is there.
    Delete {
        at: Option<P>,
        only: Option<Condition>,
    },
    Shift {
        from: P,
        to: P,
        only: Option<Condition>,
    },
    Store {
        variable: usize,
        from: P,
    },
    Parse {
        at: P,
    },
}

/// A kind of place.
pub(super) trait At: Sized {
    fn parse(text: &str, separator: &str) -> Result<Self, String>;
    /// Whether something can be taken from there.
    fn check_source(&self, text: &str) -> Result<(), String>;
}

impl At for Path {
    fn parse(text: &str, separator: &str) -> Result<Self, String> {
        Self::parse(text, separator)
    }

    fn check_source(&self, text: &str) -> Result<(), String> {
        if self.appends() {
            return Err(format!("`{text}` names no element: write its index"));
        }
        Ok(())
    }
}

impl Program {
    pub(super) fn compile(fields: &Fields) -> Result<Self, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let mut names = Names::new();
        let lists = [("context", &fields.context), ("data", &fields.data)];
        for operation in lists.iter().flat_map(|(_, list)| *list).filter(|list| list.operation == "store") {
            for place in operation.paths.iter().filter(|place| !place.key.is_empty()) {
                if !names.iter().any(|name| **name == *place.key) {
                    names.push(place.key.as_str().into());
                }
            }
        }
        let context: Vec<Step<Attribute>> = steps(fields, "context", &names, &mut problems);
        let data: Vec<Step<Path>> = steps(fields, "data", &names, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let (first_context, context) = context.into_iter().partition(Step::is_first);
        let (first_data, data): (Vec<_>, Vec<_>) = data.into_iter().partition(Step::is_first);
        let looks_into = data_members(first_data.iter().chain(&data));
        Ok(Self { variables: names.len(), first_context, first_data, context, data, looks_into })
    }

    pub(super) fn run(
        &self,
        document: &mut Document,
        lenient: bool,
        run: &mut Run,
    ) -> Result<(), TransformationError> {
        let passed = |result: Result<(), TransformationError>| if lenient { Ok(()) } else { result };
        let mut variables: Variables = vec![None; self.variables];
        let mut parsed = Vec::new();
        for step in &self.first_context {
            passed(step.apply_first(document, &mut parsed, &mut variables, run))?;
        }
        // A context that is changed does not ask for JSON, so the data is taken once, and only where it is needed.
        let mut data = None;
        if !self.first_data.is_empty() || !self.data.is_empty() {
            let wanted = |name: &str| {
                self.looks_into.as_ref().is_none_or(|names| names.iter().any(|known| **known == *name))
            };
            match document.take_json_where(wanted) {
                Ok((json, was)) => data = Some((json, was, false)),
                Err(error) => passed(Err(error))?,
            }
        }
        let mut outcome = Ok(());
        if let Some((json, _, changed)) = &mut data {
            outcome = run_data(&self.first_data, json, changed, &mut variables, lenient, run);
        }
        if outcome.is_ok() {
            outcome = self.context.iter().try_for_each(|step| passed(step.apply(document, &variables, run)));
        }
        if let (Some((json, _, changed)), true) = (&mut data, outcome.is_ok()) {
            outcome = run_data(&self.data, json, changed, &mut variables, lenient, run);
        }
        match data {
            Some((json, _, true)) => document.set_json(json),
            Some((json, was, false)) => document.put_back(json, was),
            None => {}
        }
        outcome
    }
}

/// The first names of all paths; none where one of them has none.
fn data_members<'s>(mut steps: impl Iterator<Item = &'s Step<Path>>) -> Option<Vec<Text>> {
    let mut members = Vec::new();
    steps.try_for_each(|step| {
        let paths = match step {
            Step::Add { to: path, .. }
            | Step::Delete { at: Some(path), .. }
            | Step::Store { from: path, .. }
            | Step::Parse { at: path } => [Some(path), None],
            Step::Shift { from, to, .. } => [Some(from), Some(to)],
            Step::Delete { at: None, .. } => return None,
        };
        for path in paths.into_iter().flatten() {
            members.push(path.first_name()?.clone());
        }
        Some(())
    })?;
    Some(members)
}

fn run_data(
    steps: &[Step<Path>],
    data: &mut Json,
    changed: &mut bool,
    variables: &mut Variables,
    lenient: bool,
    run: &mut Run,
) -> Result<(), TransformationError> {
    for step in steps {
        match step.apply(data, variables, run) {
            Ok(did) => *changed |= did,
            Err(_) if lenient => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl<P> Step<P> {
    /// Whether it runs before all that change values.
    fn is_first(&self) -> bool {
        matches!(self, Self::Store { .. } | Self::Parse { .. })
    }
}

impl Step<Path> {
    /// Applies the step. Changes nothing where it fails; says whether it changed anything.
    fn apply(
        &self,
        data: &mut Json,
        variables: &mut Variables,
        run: &mut Run,
    ) -> Result<bool, TransformationError> {
        match self {
            Self::Add { to, value } => {
                let value = value.expand(variables, run)?;
                run.spend(1)?;
                to.add(data, value).map_err(|(error, _)| error)?;
                Ok(true)
            }
            Self::Delete { at: Some(path), only } => {
                if path.is_root() {
                    return Ok(false);
                }
                let holds = |value: &Json| only.as_ref().is_none_or(|only| only.holds(value, variables));
                Ok(path.read(data).is_some_and(holds) && path.take(data).is_some())
            }
            Self::Delete { at: None, only: None } => {
                let changed = *data != Json::Null;
                *data = Json::Null;
                Ok(changed)
            }
            Self::Delete { at: None, only: Some(only) } => {
                run.spend(data.weight() as u64 / 64)?;
                if only.holds(data, variables) {
                    *data = Json::Null;
                    return Ok(true);
                }
                Ok(delete_everywhere(data, only, variables))
            }
            Self::Shift { from, to, only } => {
                let holds = |value: &Json| only.as_ref().is_none_or(|only| only.holds(value, variables));
                if !from.read(data).is_some_and(|value| *value != Json::Null && holds(value)) {
                    return Ok(false);
                }
                let Some(mut removed) = from.take(data) else { return Ok(false) };
                match to.add(data, std::mem::take(&mut removed.value)) {
                    Ok(()) => Ok(true),
                    Err((error, value)) => {
                        removed.value = value;
                        from.restore(data, removed);
                        Err(error)
                    }
                }
            }
            Self::Store { variable, from } => {
                let value = from.read(data).cloned();
                run.make(value.as_ref().map_or(0, Json::weight))?;
                variables[*variable] = value;
                Ok(false)
            }
            Self::Parse { at } => {
                let failed = |reason: String| TransformationError::new(reason).at(at.to_string());
                let Some(value) = at.read(data) else {
                    return Err(failed("there is nothing to parse".to_owned()));
                };
                let Json::Text(text) = value else {
                    return Err(failed(format!("a string is parsed, and this is {}", value.kind())));
                };
                run.make(text.len() * 2)?;
                let parsed = Json::read(text).map_err(|error| failed(error.to_string()))?;
                // It takes the place of the text: nothing is merged into a string.
                at.add(data, parsed).map_err(|(error, _)| error)?;
                Ok(true)
            }
        }
    }
}

/// Recursion is bounded by the depth of data.
fn delete_everywhere(data: &mut Json, only: &Condition, variables: &Variables) -> bool {
    let mut changed = false;
    match data {
        Json::Array(elements) => elements.retain_mut(|element| {
            let gone = only.holds(element, variables);
            changed |= gone || delete_everywhere(element, only, variables);
            !gone
        }),
        Json::Object(object) => object.retain(|_, value| {
            let gone = only.holds(value, variables);
            changed |= gone || delete_everywhere(value, only, variables);
            !gone
        }),
        _ => {}
    }
    changed
}

/// Compiles the steps of a list.
fn steps<P: At>(
    fields: &Fields,
    list: &'static str,
    names: &Names,
    problems: &mut Vec<FieldProblem>,
) -> Vec<Step<P>> {
    let operations = if list == "context" { &fields.context } else { &fields.data };
    let mut steps = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        let at = format!("{list}[{number}]");
        if !matches!(&*operation.operation, "add" | "delete" | "shift" | "store" | "parse") {
            let message = format!(
                "there is no operation `{}`: the operations are add, delete, shift, store and parse",
                operation.operation
            );
            problems.push(FieldProblem { path: format!("{at}.operation"), message });
            continue;
        }
        for (number, place) in operation.paths.iter().enumerate() {
            match step(&operation.operation, place, names) {
                Ok(step) => steps.push(step),
                Err((field, message)) => {
                    problems.push(FieldProblem { path: format!("{at}.paths[{number}]{field}"), message });
                }
            }
        }
    }
    steps
}

/// The field of a place that is wrong, with what is wrong.
type Fault = (&'static str, String);

fn step<P: At>(operation: &str, place: &Place, names: &Names) -> Result<Step<P>, Fault> {
    let separator = match place.separator.as_deref() {
        None | Some("") => ".",
        Some(separator) => separator,
    };
    let at = |field, text: &str| P::parse(text, separator).map_err(|fault| (field, fault));
    let source = |field, text: &str| {
        let place = at(field, text)?;
        place.check_source(text).map_err(|fault| (field, fault))?;
        Ok(place)
    };
    let text = match &place.value {
        None => String::new(),
        Some(Written::Text(text)) => text.clone(),
        Some(Written::Bool(value)) => value.to_string(),
        Some(Written::Number(number)) => number.to_string(),
    };
    let only = (!text.is_empty()).then(|| Condition::of_text(&text, names));
    match operation {
        "add" => {
            let value = match &place.value {
                Some(Written::Bool(value)) => Value::Plain((*value).into()),
                Some(Written::Number(number)) => {
                    Value::Plain(Number::parse(&number.to_string()).map_or(Json::Null, Json::Number))
                }
                _ => Value::of_text(&text, names),
            };
            Ok(Step::Add { to: at(".key", &place.key)?, value })
        }
        "delete" if place.key.is_empty() => Ok(Step::Delete { at: None, only }),
        "delete" => Ok(Step::Delete { at: Some(source(".key", &place.key)?), only }),
        "shift" => {
            let (from, to) = match place.key.split_once(':') {
                Some((from, to)) if !from.is_empty() && !to.is_empty() && !to.contains(':') => (from, to),
                _ => {
                    let message = format!("`{}` is no move: write `OLD:NEW`, two paths", place.key);
                    return Err((".key", message));
                }
            };
            Ok(Step::Shift { from: source(".key", from)?, to: at(".key", to)?, only })
        }
        "store" => {
            let variable = names.iter().position(|name| **name == *place.key);
            let Some(variable) = variable else {
                return Err((".key", "a variable needs a name, such as `$id`".to_owned()));
            };
            Ok(Step::Store { variable, from: source(".value", &text)? })
        }
        _ => {
            if !matches!(&*text, "json" | "JSON") {
                let message = format!("`{text}` cannot be parsed: the only format is `json`");
                return Err((".value", message));
            }
            Ok(Step::Parse { at: source(".key", &place.key)? })
        }
    }
}

/// Texts of attributes that were parsed, for variables.
pub(super) type Parsed = Vec<(Text, Json)>;
