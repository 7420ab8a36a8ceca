//! `template`: text or JSON from a template, in the language of Jinja as the crate `minijinja` has it.
//!
//! A template has loops, conditions and expressions, but no variables of its own, macros or other templates: nothing that
//! grows can be kept from one round of a loop to the next. What it evaluates is bounded by the fuel of the crate, what it
//! writes by a writer of ours.

use std::io;
use std::sync::Arc;

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, filters, functions, tests};
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::event::{AttributeType, declares_json};
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::json::{Json, Number, Text};
use waypost_core::transformation::{
    Document, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

use crate::meter::{self, Stop};
use crate::position::Position;

mod syntax;

/// The longest template, in bytes.
const MAX_TEMPLATE_BYTES: usize = 64 * 1024;

/// The instructions that a template may take for one event.
const MAX_INSTRUCTIONS: u64 = 100_000;

/// The longest text that a template may write for one event, in bytes.
const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// The bytes that filters may make for one event.
const MAX_MADE_BYTES: usize = 16 * 1024 * 1024;

/// The deepest nesting of what a template evaluates.
const MAX_RECURSION: usize = 64;

/// The stack for compiling and rendering.
const STACK: usize = 4 * 1024 * 1024;

/// Makes the data anew by a template: text for people, or JSON.
///
/// The template sees JSON data as `data` (other data as text), and the attributes as `attributes`. A value that is not
/// there fails, unless a condition or `default` asks for it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateConfig {
    /// A template of text. Values are written as they are.
    text: Option<String>,
    /// A template of JSON. Values are written as JSON, so that strings come with their quotes.
    json: Option<String>,
    /// The content type of the result: `text/plain; charset=utf-8` for text and `application/json` for JSON, where it is
    /// not given.
    content_type: Option<String>,
}

impl TransformationConfig for TemplateConfig {
    const TYPE: &'static str = "template";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        let problem = |path: &str, message: &str| {
            Err(vec![FieldProblem { path: path.to_owned(), message: message.to_owned() }])
        };
        let (path, source, form, content_type) = match (&self.text, &self.json) {
            (Some(text), None) => ("text", text, Form::Text, "text/plain; charset=utf-8"),
            (None, Some(json)) => ("json", json, Form::Json, "application/json"),
            _ => return problem("", "write a template: one of `text` and `json`"),
        };
        let content_type = self.content_type.as_deref().unwrap_or(content_type);
        if form == Form::Json && !declares_json(content_type) {
            return problem(
                "contentType",
                "a template of JSON has a content type of JSON, such as `application/json`",
            );
        }
        if content_type.trim().is_empty() || !content_type.contains('/') {
            return problem("contentType", "write a media type, such as `text/plain`");
        }
        match environment(source, form) {
            Ok(environment) => {
                Ok(Arc::new(Template { environment, form, content_type: content_type.to_owned() }))
            }
            Err(message) => problem(path, &message),
        }
    }
}

/// What a template writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// The name of the one template of an environment.
const NAME: &str = "template";

struct Template {
    environment: Environment<'static>,
    form: Form,
    content_type: String,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("form", &self.form).finish_non_exhaustive()
    }
}

impl Transformation for Template {
    fn apply(&self, mut document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        let context = context(&mut document, run)?;
        let steps = MAX_INSTRUCTIONS.min(run.steps_left());
        let render = || meter::metered(steps, MAX_MADE_BYTES, || self.render(context));
        let (taken, result) = stacker::maybe_grow(STACK / 2, STACK, render);
        run.spend(taken.steps)?;
        let text = result.map_err(|why| {
            TransformationError::limit(match why {
                Stop::Steps => "the template takes more steps than one event may take",
                Stop::Bytes => "the template makes more text than one event may take",
                _ => "the template met a defect of the crate that renders it",
            })
        })??;
        run.make(text.len())?;
        match self.form {
            Form::Text => document.set_text(text),
            Form::Json => {
                let json = Json::read(&text).map_err(|error| {
                    TransformationError::new(format!("what the template writes is no JSON: {error}"))
                })?;
                document.set_json(json);
            }
        }
        document.set_attribute("datacontenttype", self.content_type.as_str());
        Ok(document.into())
    }
}

impl Template {
    fn render(&self, context: Value) -> Result<String, TransformationError> {
        let mut text = Limited(Vec::new());
        let result = self
            .environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut text).map(drop));
        match result {
            Ok(()) => String::from_utf8(text.0)
                .map_err(|_| TransformationError::new("the template writes what is not UTF-8")),
            Err(error) => Err(told(&error)),
        }
    }
}

/// A writer that takes so much and no more.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn told(error: &Error) -> TransformationError {
    let line = error.line().map(|line| format!("line {line} of the template"));
    let error = match error.kind() {
        ErrorKind::OutOfFuel => {
            TransformationError::limit("the template takes more steps than one event may take")
        }
        ErrorKind::WriteFailure => {
            TransformationError::limit(format!("the template writes more than {MAX_TEXT_BYTES} bytes"))
        }
        ErrorKind::UndefinedError => TransformationError::new(
            "the template uses a value that is not there: ask `if` for it, or write `| default('')` after it",
        ),
        kind => {
            let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            let reason: String = format!("the template fails: {kind}{detail}").chars().take(256).collect();
            TransformationError::new(reason)
        }
    };
    match line {
        Some(line) => error.at(line),
        None => error,
    }
}

/// What a template sees.
fn context(document: &mut Document, run: &mut Run) -> Result<Value, TransformationError> {
    let version = document.attribute("specversion").map(|version| ("specversion".to_owned(), version.into()));
    let others = document.attributes().map(|(name, value)| (name.to_owned(), typed(value)));
    let attributes = Value::from_pairs(version.into_iter().chain(others));
    let is_json = document.attribute("datacontenttype").is_none_or(declares_json);
    let data = if is_json {
        match document.json()? {
            Some(json) => {
                run.make(json.weight())?;
                value_of(json)
            }
            None => Value::UNDEFINED,
        }
    } else {
        match document.bytes().map(|bytes| String::from_utf8(bytes.to_vec())) {
            Some(Ok(text)) => Value::from(text),
            Some(Err(_)) | None => Value::UNDEFINED,
        }
    };
    Ok(Value::from_pairs([("attributes", attributes), ("data", data)]))
}

fn typed(value: waypost_core::event::Value<'_>) -> Value {
    match value.attribute_type {
        AttributeType::Integer => value.text.parse::<i64>().map_or_else(|_| value.text.into(), Value::from),
        AttributeType::Boolean => value.text.parse::<bool>().map_or_else(|_| value.text.into(), Value::from),
        _ => value.text.into(),
    }
}

/// A value of the crate. Whole numbers keep up to 38 digits; other numbers are binary64.
fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match (number.as_i64(), number.text().parse::<i128>()) {
            (Some(number), _) => Value::from(number),
            (None, Ok(number)) => Value::from(number),
            (None, Err(_)) => Value::from(number.as_f64()),
        },
        Json::Text(text) => Value::from(&**text),
        // Whoever asks a document for all of its data gets no such value.
        Json::Unread(text) => Json::read(text).map_or_else(|_| Value::from(()), |tree| value_of(&tree)),
        Json::Array(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        Json::Object(members) => {
            Value::from_pairs(members.iter().map(|(name, value)| (name.to_string(), value_of(value))))
        }
    }
}

/// Compiles a template, or tells what is wrong and where.
fn environment(source: &str, form: Form) -> Result<Environment<'static>, String> {
    if source.len() > MAX_TEMPLATE_BYTES {
        return Err(format!("the template is longer than {MAX_TEMPLATE_BYTES} bytes"));
    }
    syntax::check(source)?;
    let mut environment = Environment::empty();
    environment.set_fuel(Some(MAX_INSTRUCTIONS));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(move |_| match form {
        Form::Text => AutoEscape::None,
        Form::Json => AutoEscape::Json,
    });
    if form == Form::Text {
        environment.set_formatter(|out, _, value| out.write_str(&text_of(value)).map_err(Error::from));
    }
    add_functions(&mut environment);
    let add = || {
        let result = environment.add_template_owned(NAME, source.to_owned());
        result.map(|()| environment).map_err(|error| {
            let detail = error.detail().unwrap_or("it cannot be read").to_owned();
            let place = match (error.range(), error.line()) {
                (Some(range), _) => Position::of_offset(source, range.start).to_string(),
                (None, Some(line)) => format!(", at line {line}"),
                (None, None) => String::new(),
            };
            format!("the template is not valid: {detail}{place}")
        })
    };
    stacker::grow(STACK, add)
}

/// The filters, tests and functions of templates: those of the crate whose results are about as large as what they are
/// given, and ours, which ask the meter, in place of others.
fn add_functions(environment: &mut Environment<'_>) {
    environment.add_filter("lower", filters::lower);
    environment.add_filter("upper", filters::upper);
    environment.add_filter("title", filters::title);
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("length", filters::length);
    environment.add_filter("default", filters::default);
    environment.add_filter("d", filters::default);
    environment.add_filter("first", filters::first);
    environment.add_filter("last", filters::last);
    environment.add_filter("round", filters::round);
    environment.add_filter("abs", filters::abs);
    environment.add_filter("int", filters::int);
    environment.add_filter("float", filters::float);
    environment.add_filter("string", filters::string);
    environment.add_filter("min", filters::min);
    environment.add_filter("max", filters::max);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("unique", filters::unique);
    environment.add_filter("sum", filters::sum);
    environment.add_filter("items", filters::items);
    environment.add_filter("reverse", filters::reverse);
    environment.add_filter("tojson", tojson);
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("truncate", truncate);
    environment.add_filter("times", times);
    environment.add_function("range", functions::range);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("string", tests::is_string);
    environment.add_test("number", tests::is_number);
    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("even", tests::is_even);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("endingwith", tests::is_endingwith);
}

/// A value in text: a string as it is, a number, everything else as JSON.
fn text_of(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if value.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => json_of(value).to_string(),
        _ => value.to_string(),
    }
}

/// A value as JSON. Recursion is bounded by the depth of data, and by that of literals.
fn json_of(value: &Value) -> Json {
    meter::step(1);
    meter::make(size_of::<Json>());
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => Json::Null,
        ValueKind::Bool => value.is_true().into(),
        ValueKind::Number => {
            let text = value.to_string();
            Number::parse(&text).map_or_else(|| text.into(), Json::Number)
        }
        ValueKind::Seq | ValueKind::Iterable => match value.try_iter() {
            Ok(items) => Json::Array(items.map(|item| json_of(&item)).collect()),
            Err(_) => Json::Null,
        },
        ValueKind::Map => match value.try_iter() {
            Ok(names) => {
                let members = names.map(|name| {
                    let member = value.get_item(&name).unwrap_or_default();
                    (Text::from(name.to_string()), json_of(&member))
                });
                Json::Object(members.collect())
            }
            Err(_) => Json::Null,
        },
        _ => value.to_string().into(),
    }
}

/// `value | tojson`, which is not quoted again in a template of JSON.
fn tojson(value: &Value) -> Value {
    Value::from_safe_string(json_of(value).to_string())
}

/// `list | join(', ')`
fn join(items: &Value, separator: Option<String>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    let mut joined = String::new();
    for (at, item) in items.try_iter()?.enumerate() {
        let text = text_of(&item);
        meter::step(1);
        meter::make(text.len() + separator.len());
        if at > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&text);
    }
    Ok(joined)
}

/// `text | replace('a', 'b')`
fn replace(text: &Value, from: &str, to: &str) -> Result<String, Error> {
    let text = text.to_string();
    meter::step(text.len() as u64 / 64);
    if from.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "`replace` needs what to replace"));
    }
    meter::make(text.len().saturating_add(text.matches(from).count().saturating_mul(to.len())));
    Ok(text.replace(from, to))
}

/// `text | truncate(80)`: so many characters at most, the last of them `…` where some are left out.
fn truncate(text: &Value, length: usize) -> String {
    let text = text.to_string();
    meter::step(text.len() as u64 / 64);
    if text.chars().count() <= length {
        return text;
    }
    let mut cut: String = text.chars().take(length.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// `number | times(number)`, as `*` would repeat texts and lists.
fn times(one: &Value, other: &Value) -> Result<Value, Error> {
    let number = |value: &Value| {
        if value.kind() == ValueKind::Number {
            return f64::try_from(value.clone());
        }
        Err(Error::new(ErrorKind::InvalidOperation, "`times` takes two numbers"))
    };
    if let (Ok(one), Ok(other)) = (i64::try_from(one.clone()), i64::try_from(other.clone()))
        && let Some(product) = one.checked_mul(other)
    {
        return Ok(Value::from(product));
    }
    Ok(Value::from(number(one)? * number(other)?))
}

#[cfg(test)]
mod suite;
