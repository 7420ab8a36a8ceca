//! `jq`: a program of jq over the data, by the crates of jaq.
//!
//! The crates evaluate without any limit. Their two openings, the table of terms and the values, are ours here
//! ([`meter`](crate::meter), [`value`]), so that a program is ended wherever it loops, and however it makes what is too large.

use std::sync::Arc;

use jaq_core::data::HasLut;
use jaq_core::load::{Arena, File, Loader, lex, parse};
use jaq_core::{Ctx, DataT, Filter, Lut, ValT as _, Vars, compile};
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::event::AttributeType;
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::json::Json;
use waypost_core::transformation::{
    Discard, Document, MAX_OUTPUTS, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

use self::natives::Patterns;
use self::projection::Projection;
use self::value::{Value, excerpt};
use crate::meter::{self, Stop};
use crate::position::Position;

mod convert;
mod natives;
mod projection;
mod value;

/// The longest program, in bytes.
const MAX_PROGRAM_BYTES: usize = 16 * 1024;

/// The steps that a program may take for one event: terms that it evaluates, and values that it works on.
const MAX_PROGRAM_STEPS: u64 = 1_000_000;

/// The bytes that a program may make for one event, whether or not it keeps them.
const MAX_PROGRAM_BYTES_MADE: usize = 64 * 1024 * 1024;

/// The stack for reading a program. Memory that it does not touch is not taken.
const COMPILER_STACK: usize = 256 * 1024 * 1024;

/// The stack that is left for a program, or made for it.
const PROGRAM_STACK: usize = 1024 * 1024;

/// The stack for a program with definitions of its own: they may nest closures as deep as there are steps, and what is
/// nested is dropped by recursion.
const RECURSIVE_STACK: usize = 512 * 1024 * 1024;

/// Makes the data anew by a program of jq.
///
/// The program sees the data as its input (`null` where there is none), and the attributes as `$attributes`. Each of its
/// outputs becomes the data of an event of its own, with the attributes of the event that came in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JqConfig {
    /// The program.
    query: String,
    /// Which outputs become events.
    #[serde(default)]
    outputs: JqOutputs,
}

/// Which outputs of a program become events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JqOutputs {
    /// All: none drops the event, one replaces its data, of several each is an event of its own.
    #[default]
    All,
    /// The last one, or `null` where there is none, as TriggerMesh's `JQTransformation`.
    Last,
}

impl JqConfig {
    /// The settings for this program.
    pub fn new(query: impl Into<String>, outputs: JqOutputs) -> Self {
        Self { query: query.into(), outputs }
    }
}

impl TransformationConfig for JqConfig {
    const TYPE: &'static str = "jq";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        let program = Program::compile(&self.query)
            .map_err(|message| vec![FieldProblem { path: "query".to_owned(), message }])?;
        Ok(Arc::new(Jq { program, outputs: self.outputs }))
    }
}

#[derive(Debug)]
struct Jq {
    program: Program,
    outputs: JqOutputs,
}

impl Transformation for Jq {
    fn apply(&self, mut document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        if let Some(projection) = &self.program.projection {
            let made = match document.read_wanted(projection.wanted())? {
                Some(data) => projection.apply(&data, run)?,
                None => projection.apply(document.json()?.unwrap_or(&Json::Null), run)?,
            };
            if let Some(json) = made {
                document.set_json(json);
                return Ok(document.into());
            }
        }
        let input = match convert::value_of_data(&document)? {
            Some(value) => value,
            None => match document.json()? {
                Some(json) => convert::value_of(json)?,
                None => Value::from_null(),
            },
        };
        let attributes = self.program.reads_attributes.then(|| attributes(&document)).transpose()?;
        let mut outputs = self.program.run(input, attributes, self.outputs, run)?;
        let changed = |mut document: Document, json: Json| {
            document.set_json(json);
            document
        };
        Ok(match (self.outputs, outputs.pop()) {
            (JqOutputs::All, None) => Outputs::Nothing(Discard::Filtered),
            (JqOutputs::Last, None) => changed(document, Json::Null).into(),
            (_, Some(only)) if outputs.is_empty() => changed(document, only).into(),
            (_, Some(last)) => {
                outputs.push(last);
                // The data that came in is not copied with the attributes.
                document.remove_data();
                Outputs::Several(outputs.into_iter().map(|json| changed(document.clone(), json)).collect())
            }
        })
    }
}

/// The attributes as an object: an Integer as a number, a Boolean as one, all others as strings.
fn attributes(document: &Document) -> Result<Value, TransformationError> {
    let version = document.attribute("specversion").map(|version| ("specversion", Json::from(version)));
    let others = document.attributes().map(|(name, value)| {
        let value = match value.attribute_type {
            AttributeType::Integer => value.text.parse::<i64>().ok().map(Json::from),
            AttributeType::Boolean => value.text.parse::<bool>().ok().map(Json::from),
            _ => None,
        }
        .unwrap_or_else(|| value.text.into());
        (name, value)
    });
    let members = version.into_iter().chain(others).map(|(name, value)| (name.into(), value));
    convert::value_of(&Json::Object(members.collect()))
}

/// What our functions may see: the kind of values and of what is beside them.
struct Kind;

impl DataT for Kind {
    type V<'a> = Value;
    type Data<'a> = Session<'a>;
}

/// One event's run of a program.
#[derive(Clone, Copy)]
struct Session<'a> {
    table: &'a Lut<Kind>,
    patterns: &'a Patterns,
    /// The log time in seconds.
    now: f64,
}

impl<'a> HasLut<'a, Kind> for Session<'a> {
    /// Called for every term that is evaluated.
    #[inline]
    fn lut(&self) -> &'a Lut<Kind> {
        meter::term();
        self.table
    }
}

/// A compiled program.
struct Program {
    filter: Filter<Kind>,
    patterns: Patterns,
    reads_attributes: bool,
    /// Whether it has definitions of its own, which may call themselves.
    defines: bool,
    /// What it is where it needs no crate.
    projection: Option<Projection>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl Program {
    /// Compiles a program, or says what is wrong and where.
    fn compile(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("the program is empty: write `.` to leave the data as it is".to_owned());
        }
        if text.len() > MAX_PROGRAM_BYTES {
            return Err(format!("the program is longer than {MAX_PROGRAM_BYTES} bytes"));
        }
        // A crate that contradicts itself refuses the program; what it held is dropped.
        let compile =
            || std::panic::catch_unwind(|| filter(text).map(|filter| (filter, Projection::of(text))));
        let (filter, projection) = stacker::grow(COMPILER_STACK, compile)
            .unwrap_or_else(|_| Err("the program cannot be read".to_owned()))?;
        Ok(Self {
            filter,
            patterns: Patterns::default(),
            reads_attributes: text.contains("$attributes"),
            defines: text.contains("def"),
            projection,
        })
    }

    fn run(
        &self,
        input: Value,
        attributes: Option<Value>,
        outputs: JqOutputs,
        run: &mut Run,
    ) -> Result<Vec<Json>, TransformationError> {
        #[expect(clippy::cast_precision_loss, reason = "jq has a float for the time")]
        let now = run.moment().arrived_nanoseconds as f64 / 1e9;
        let session = Session { table: &self.filter.lut, patterns: &self.patterns, now };
        let steps = MAX_PROGRAM_STEPS.min(run.steps_left());
        let program = || {
            let environment = Value::from_map([]).unwrap_or_else(|_| Value::from_null());
            let attributes = attributes.unwrap_or_else(Value::from_null);
            let context = Ctx::<Kind>::new(session, Vars::new([attributes, environment]));
            collect(self.filter.id.run((context, input)), outputs)
        };
        let metered = || meter::metered(steps, MAX_PROGRAM_BYTES_MADE, program);
        let (taken, result) = if self.defines {
            stacker::grow(RECURSIVE_STACK, metered)
        } else {
            stacker::maybe_grow(PROGRAM_STACK, 2 * PROGRAM_STACK, metered)
        };
        let values = result.map_err(stopped)??;
        run.spend(taken.steps)?;
        run.make(taken.bytes)?;
        Ok(values)
    }
}

/// Takes outputs until there are too many.
fn collect<'a>(
    outputs: impl Iterator<Item = jaq_core::ValX<'a, Value>>,
    which: JqOutputs,
) -> Result<Vec<Json>, TransformationError> {
    let mut kept = Vec::new();
    for output in outputs {
        let value = match output {
            Ok(value) => value,
            Err(exception) => {
                return Err(TransformationError::new(match exception.get_err() {
                    Ok(error) => {
                        let message = error.into_val();
                        format!("the program of jq fails: {}", message_of(&message))
                    }
                    // A `break` without its label is refused when the program is compiled.
                    Err(_) => "the program of jq ends early".to_owned(),
                }));
            }
        };
        if which == JqOutputs::Last {
            kept.clear();
        }
        if kept.len() >= MAX_OUTPUTS {
            let reason = format!("the program of jq has more than {MAX_OUTPUTS} outputs");
            return Err(TransformationError::limit(reason));
        }
        kept.push(value);
    }
    Ok(kept
        .into_iter()
        .map(|value: Value| {
            value.look_at_all();
            convert::json_of(value.into_val())
        })
        .collect())
}

fn message_of(value: &Value) -> String {
    match jaq_std::ValT::as_utf8_bytes(value) {
        Some(text) => String::from_utf8_lossy(text).chars().take(256).collect(),
        None => excerpt(value),
    }
}

fn stopped(why: Stop) -> TransformationError {
    let why = match why {
        Stop::Steps => "it takes more steps than one event may take".to_owned(),
        Stop::Bytes => format!("it makes more than {MAX_PROGRAM_BYTES_MADE} bytes"),
        Stop::Value(what) => format!("it makes a value that is {what}"),
        Stop::Stack => "it calls itself too deeply".to_owned(),
        Stop::Panic => "it met a defect of the crate that runs it".to_owned(),
    };
    TransformationError::limit(format!("the program of jq was stopped: {why}"))
}

/// Parses and compiles. No module can be loaded: there is nothing to load from.
fn filter(text: &str) -> Result<Filter<Kind>, String> {
    let arena = Arena::default();
    let loaded = Loader::new(natives::definitions()).load(&arena, File { code: text, path: () });
    let modules = loaded.map_err(|errors| {
        let first = errors.into_iter().next().map(|(_, error)| unread(text, error));
        first.unwrap_or_else(|| "the program cannot be read".to_owned())
    })?;
    let compiler = compile::Compiler::default()
        .with_funs(natives::functions())
        .with_global_vars(["$attributes", "$ENV"]);
    compiler.compile(modules).map_err(|errors| {
        let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
        first.map_or_else(
            || "the program cannot be compiled".to_owned(),
            |(name, what)| {
                let place = Position::of_part(text, name);
                match what {
                    compile::Undefined::Filter(0) => format!("there is no function `{name}`{place}"),
                    compile::Undefined::Filter(arity) => {
                        format!("there is no function `{name}` that takes {arity} arguments{place}")
                    }
                    compile::Undefined::Var => format!("there is no variable `{name}`{place}"),
                    compile::Undefined::Label => format!("there is no label `{name}`{place}"),
                    _ => format!("`{name}` is not known{place}"),
                }
            },
        )
    })
}

fn unread(text: &str, error: jaq_core::load::Error<&str>) -> String {
    let unread = || "the program cannot be read".to_owned();
    match error {
        jaq_core::load::Error::Io(modules) => modules.first().map_or_else(unread, |(module, _)| {
            let place = Position::of_part(text, module);
            format!("there are no modules to load, not `{module}` either{place}")
        }),
        jaq_core::load::Error::Lex(errors) => errors.first().map_or_else(unread, |(expected, found)| {
            let expected = match expected {
                lex::Expect::Delim("(" | "[" | "{" | "\"") => expected.as_str(),
                lex::Expect::Delim(_) => "the end of what was opened",
                expected => expected.as_str(),
            };
            format!("{expected} expected{}", Position::of_part(text, found))
        }),
        jaq_core::load::Error::Parse(errors) => errors.first().map_or_else(unread, |(expected, found)| {
            let place = Position::of_part(text, found);
            let expected: &parse::Expect<&str> = expected;
            let found: String = found.chars().take(32).collect();
            if found.trim().is_empty() {
                format!("the program ends too early: {} expected{place}", expected.as_str())
            } else {
                format!("{} expected, but there is `{found}`{place}", expected.as_str())
            }
        }),
    }
}

#[cfg(test)]
mod suite;
