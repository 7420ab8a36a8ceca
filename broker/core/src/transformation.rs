//! The contract of a transformation, the chain that applies one after the other, and how a transformation type is
//! registered.
//!
//! A chain makes a [`Document`] of the event, hands it from step to step, and makes events of what comes out: data
//! that is JSON is parsed once, by the first step that asks for it, and written once.

pub mod chain;
mod document;
pub mod json;

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use self::chain::{Chain, ChainError, OnError, Step, Transformed};
pub use self::document::{Document, Outputs, Taken};
use crate::codes::{self, Code};
use crate::manifest::{Configured, FieldProblem, decode_config};

/// The most events that a chain may make of one, after any step.
pub const MAX_OUTPUTS: usize = 1_000;

/// The steps that a chain may take for one event. A step is about as much work as looking at one value: 50 to 200
/// nanoseconds.
pub const MAX_STEPS: u64 = 5_000_000;

/// The bytes of values and texts that a chain may make for one event, whether or not it keeps them.
pub const MAX_MADE_BYTES: usize = 64 * 1024 * 1024;

/// Turns one event into none, one or several.
///
/// Pure and deterministic: the same event at the same log time gives the same events. Compiled when the manifest is
/// read, so that a bad program is refused there. Bounded: what takes time or memory that does not follow from the size
/// of the manifest asks [`Run`] for it.
pub trait Transformation: Send + Sync + fmt::Debug {
    /// Applies the transformation. The attributes of what comes out are checked by the caller. An error is permanent
    /// for this event.
    fn apply(&self, document: Document, run: &mut Run) -> Result<Outputs, TransformationError>;
}

/// What a transformation may know besides the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The event's time in the log in nanoseconds since 1970, which is a transformation's "now".
    pub arrived_nanoseconds: i64,
}

/// One event's way through a chain: the moment, and what is left of its limits.
#[derive(Debug)]
pub struct Run {
    moment: Moment,
    steps: u64,
    bytes: usize,
}

impl Run {
    /// A run with all that an event may take: [`MAX_STEPS`] and [`MAX_MADE_BYTES`].
    pub fn new(moment: Moment) -> Self {
        Self { moment, steps: MAX_STEPS, bytes: MAX_MADE_BYTES }
    }

    /// What "now" is.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// How many steps are left, for engines that count by themselves.
    pub fn steps_left(&self) -> u64 {
        self.steps
    }

    /// Takes steps.
    ///
    /// # Errors
    /// [`TransformationError`] where fewer are left.
    pub fn spend(&mut self, steps: u64) -> Result<(), TransformationError> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => {
                self.steps = 0;
                Err(TransformationError::limit(format!(
                    "it takes more than the {MAX_STEPS} steps that one event may take"
                )))
            }
        }
    }

    /// Takes memory for values or texts that are about to be made.
    ///
    /// # Errors
    /// [`TransformationError`] where less is left.
    pub fn make(&mut self, bytes: usize) -> Result<(), TransformationError> {
        match self.bytes.checked_sub(bytes) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => {
                self.bytes = 0;
                Err(TransformationError::limit(format!(
                    "it makes more than the {MAX_MADE_BYTES} bytes that one event may take"
                )))
            }
        }
    }
}

/// Why no event came of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Discard {
    /// A step selected nothing, or says that the event is not to go on.
    Filtered,
    /// The data does not follow a schema, and the manifest says to drop it.
    Schema,
    /// A step failed, and its `onError` is `drop`.
    Failed,
}

impl Discard {
    /// The reason in a word, as it is counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Schema => "schema",
            Self::Failed => "failed",
        }
    }
}

/// Why a transformation failed on an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", .path.as_ref().map(|path| format!(" (at {path})")).unwrap_or_default())]
pub struct TransformationError {
    /// The class of the failure: `E0410` where nothing more particular is known.
    pub code: Code,
    /// What is wrong, for people.
    pub reason: String,
    /// Where in the event or in the program it is wrong, where that is known.
    pub path: Option<String>,
}

impl TransformationError {
    /// A failure for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { code: codes::TRANSFORMATION_FAILED, reason: reason.into(), path: None }
    }

    /// A limit of time, memory, depth or number was reached.
    pub fn limit(reason: impl Into<String>) -> Self {
        Self::new(reason).coded(codes::TRANSFORMATION_LIMIT)
    }

    /// The same with the place where it is wrong.
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// The same with a more particular code.
    pub fn coded(self, code: Code) -> Self {
        Self { code, ..self }
    }
}

/// The configuration of a transformation type. The documentation comments of its fields are the user
/// reference.
pub trait TransformationConfig: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The key under `spec`.
    const TYPE: &'static str;

    /// Compiles the configuration. No I/O.
    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>>;
}

/// One row of the list of transformation types.
#[derive(Debug, Clone, Copy)]
pub struct TransformationType {
    /// The key under `spec`.
    pub name: &'static str,
    /// Reads, validates and compiles the value under that key.
    pub configure: fn(&serde_json::Value) -> Configured<Arc<dyn Transformation>>,
    /// The JSON schema of the value under that key.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

impl TransformationType {
    /// The row for `C`.
    pub const fn of<C: TransformationConfig>() -> Self {
        Self {
            name: C::TYPE,
            configure: |value| decode_config::<C>(value)?.compile(),
            schema: |generator| generator.subschema_for::<C>(),
        }
    }
}
