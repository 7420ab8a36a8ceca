//! The contract of a transformation, and how a transformation type is registered.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::event::Event;
use crate::manifest::{Configured, FieldProblem, decode_config};

/// Turns one event into none, one or several.
///
/// Pure and deterministic: the same event at the same log time gives the same events. Compiled when the
/// manifest is read, so that a bad program is refused there.
pub trait Transformation: Send + Sync + fmt::Debug {
    /// Applies the transformation. An error is permanent for this event.
    fn apply(&self, event: &Event, moment: &Moment) -> Result<Vec<Event>, TransformationError>;
}

/// What a transformation may know besides the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The event's time in the log in nanoseconds since 1970, which is a transformation's "now".
    pub arrived_nanoseconds: i64,
}

/// Why a transformation failed on an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", .path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default())]
pub struct TransformationError {
    /// What is wrong, for people.
    pub reason: String,
    /// Where in the event it is wrong, where that is known.
    pub path: Option<String>,
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
