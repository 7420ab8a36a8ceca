//! `schema`: JSON data must follow a JSON Schema (draft 2020-12).
//!
//! Nothing is fetched: references are to places of the schema itself. The crate validates without limits; what could
//! take time without end goes over references, so that every reference gets a keyword of ours before it, which counts.

use std::sync::Arc;

use jsonschema::{Draft, Keyword, PatternOptions, ValidationError, Validator};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::{
    Discard, Document, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

use crate::meter::{self, Stop};

/// The longest schema, in bytes of its text.
const MAX_SCHEMA_BYTES: usize = 256 * 1024;

/// The references that the validation of one event may follow.
const MAX_REFERENCES: u64 = 200_000;

/// The size of a compiled pattern, in bytes.
const MAX_PATTERN_SIZE: usize = 256 * 1024;

/// The longest text of a reason: it may hold values of the event.
const MAX_REASON_CHARACTERS: usize = 512;

/// The stack for a validation, where less is left.
const VALIDATION_STACK: usize = 2 * 1024 * 1024;

/// The stack for compiling a schema.
const COMPILER_STACK: usize = 64 * 1024 * 1024;

/// The keyword of ours that counts.
const COUNTER: &str = "x-waypost-counter";

/// Lets events go on whose data follows a JSON Schema; all others fail, or are dropped.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchemaConfig {
    /// The schema, of JSON Schema 2020-12. References are to places of the schema itself.
    schema: Value,
    /// What becomes of an event whose data does not follow the schema, or is no JSON.
    #[serde(default)]
    otherwise: Otherwise,
}

/// What becomes of an event whose data does not follow the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Otherwise {
    /// The step fails with the place that is wrong: a dead letter, unless `onError` says otherwise.
    #[default]
    Fail,
    /// The event is dropped, and counted as dropped with the reason `schema`.
    Drop,
}

impl TransformationConfig for SchemaConfig {
    const TYPE: &'static str = "schema";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        let validator = compile(&self.schema).map_err(|(place, message)| {
            vec![FieldProblem { path: format!("schema{}", dotted(&place)), message }]
        })?;
        Ok(Arc::new(Schema { validator, otherwise: self.otherwise }))
    }
}

#[derive(Debug)]
struct Schema {
    validator: Validator,
    otherwise: Otherwise,
}

impl Transformation for Schema {
    fn apply(&self, mut document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        match (self.check(&mut document, run)?, self.otherwise) {
            (Ok(()), _) => Ok(document.into()),
            (Err(_), Otherwise::Drop) => Ok(Outputs::Nothing(Discard::Schema)),
            (Err(error), Otherwise::Fail) => Err(error),
        }
    }
}

impl Schema {
    /// Whether the data follows the schema, and if not, why. The outer error is that of a limit.
    fn check(
        &self,
        document: &mut Document,
        run: &mut Run,
    ) -> Result<Result<(), TransformationError>, TransformationError> {
        let value = match document.json() {
            Ok(Some(json)) => {
                run.make(json.weight())?;
                json.to_value()
            }
            Ok(None) => {
                return Ok(Err(TransformationError::new("the event has no data to follow the schema")));
            }
            Err(error) => return Ok(Err(error)),
        };
        let steps = MAX_REFERENCES.min(run.steps_left());
        let validate = || {
            meter::metered(steps, usize::MAX, || {
                self.validator.validate(&value).map_err(|error| told(&error))
            })
        };
        let (taken, result) = stacker::maybe_grow(VALIDATION_STACK, 2 * VALIDATION_STACK, validate);
        run.spend(taken.steps)?;
        result.map_err(|why| {
            TransformationError::limit(match why {
                Stop::Panic => "the validation met a defect of the crate that does it",
                Stop::Stack => "the schema refers to itself without end",
                _ => "the schema follows more references than one event may take",
            })
        })
    }
}

fn told(error: &ValidationError<'_>) -> TransformationError {
    let reason: String = error.to_string().chars().take(MAX_REASON_CHARACTERS).collect();
    let path = error.instance_path().as_str();
    let path = if path.is_empty() { "/" } else { path };
    TransformationError::new(format!("the data does not follow the schema: {reason}")).at(path)
}

/// Compiles a schema, or tells what is wrong at which place of it (a JSON pointer).
fn compile(schema: &Value) -> Result<Validator, (String, String)> {
    let problem = |message: &str| (String::new(), message.to_owned());
    if !schema.is_object() && !schema.is_boolean() {
        return Err(problem("a schema is an object, or true or false"));
    }
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(problem(&format!("the schema is longer than {MAX_SCHEMA_BYTES} bytes")));
    }
    if let Some(other) = schema.get("$schema").filter(|given| !is_2020_12(given)) {
        let message =
            format!("the schema is of {other}, not of 2020-12: leave `$schema` away, or rewrite the schema");
        return Err(("/$schema".to_owned(), message));
    }
    let mut counted = schema.clone();
    count_references(&mut counted, &mut String::new())?;
    let options = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(
            PatternOptions::regex().size_limit(MAX_PATTERN_SIZE).dfa_size_limit(MAX_PATTERN_SIZE),
        )
        .with_keyword(COUNTER, |_, _, _| Ok(Box::new(Counter)));
    let build = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| options.build(&counted)));
    match stacker::grow(COMPILER_STACK, build) {
        Ok(Ok(validator)) => Ok(validator),
        Ok(Err(error)) => {
            let reason: String = error.to_string().chars().take(MAX_REASON_CHARACTERS).collect();
            Err((error.instance_path().as_str().to_owned(), format!("the schema is not valid: {reason}")))
        }
        Err(_) => Err(problem("the schema cannot be compiled")),
    }
}

fn is_2020_12(given: &Value) -> bool {
    given
        .as_str()
        .is_some_and(|given| given.trim_end_matches('#') == "https://json-schema.org/draft/2020-12/schema")
}

/// Keywords whose values are data, not schemas.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "$vocabulary"];

/// Keywords whose values are objects of schemas by names of any kind.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Puts the counting keyword before every reference: a reference is the same as an item of `allOf`, whose items are
/// evaluated in order. Items are added at the end, so that every place of the schema stays where it was.
fn count_references(schema: &mut Value, place: &mut String) -> Result<(), (String, String)> {
    let length = place.len();
    match schema {
        Value::Object(members) => {
            if !place.is_empty() && members.get("$id").is_some_and(Value::is_string) {
                place.push_str("/$id");
                let message = "a part of a schema cannot have an `$id`: refer to it by `#/…` or `#anchor`";
                return Err((place.clone(), message.to_owned()));
            }
            let mut added = Vec::new();
            for keyword in ["$ref", "$dynamicRef"] {
                let Some(target) = members.get(keyword).and_then(Value::as_str).map(str::to_owned) else {
                    continue;
                };
                if !target.starts_with('#') {
                    place.push('/');
                    place.push_str(keyword);
                    let message = format!(
                        "`{target}` is outside of the schema, and nothing is fetched: put it under `$defs` and refer \
                         to `#/$defs/…`"
                    );
                    return Err((place.clone(), message));
                }
                members.shift_remove(keyword);
                let mut counter = Map::new();
                counter.insert(COUNTER.to_owned(), true.into());
                let mut reference = Map::new();
                reference.insert(keyword.to_owned(), target.into());
                added.extend([Value::Object(counter), Value::Object(reference)]);
            }
            for (name, value) in members.iter_mut() {
                if DATA.contains(&name.as_str()) {
                    continue;
                }
                place.push('/');
                place.push_str(&name.replace('~', "~0").replace('/', "~1"));
                match value {
                    Value::Object(named) if NAMED.contains(&name.as_str()) => {
                        for (name, value) in named.iter_mut() {
                            let length = place.len();
                            place.push('/');
                            place.push_str(&name.replace('~', "~0").replace('/', "~1"));
                            count_references(value, place)?;
                            place.truncate(length);
                        }
                    }
                    value => count_references(value, place)?,
                }
                place.truncate(length);
            }
            if !added.is_empty() {
                let all = members.entry("allOf").or_insert_with(|| Value::Array(Vec::new()));
                // What is no array is refused by the compiler.
                if let Value::Array(all) = all {
                    all.extend(added);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                place.push('/');
                place.push_str(&at.to_string());
                count_references(item, place)?;
                place.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A pointer as the path of a field.
fn dotted(pointer: &str) -> String {
    pointer.replace('/', ".").replace("~1", "/").replace("~0", "~")
}

/// The keyword that counts references and never fails.
struct Counter;

impl<'i> Keyword<'i> for Counter {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        meter::term();
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        meter::term();
        true
    }
}

#[cfg(test)]
mod suite;
