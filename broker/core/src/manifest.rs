//! Manifests: what users declare, as they are read from files or from Kubernetes.
//!
//! Reading is pure. [`ManifestFile::read`] turns the text of one file into resources and problems, each with its
//! place; what depends on several resources is the plan's to judge.

mod address;
mod annotations;
mod broker;
mod certificates;
mod component;
mod delivery;
mod destination;
pub mod document;
mod file;
mod filters;
mod flow;
mod kind;
pub mod native;
mod reader;
mod replay;
mod service;
mod spec;
mod test_case;
mod translated;
mod trigger;
mod triggermesh;
mod values;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::Code;

pub use self::address::{InvalidUrl, check_url, resolve_relative};
pub use self::file::{Document, MAX_FILE_BYTES, ManifestFile, Manifests, Piece, Resource, StoredDocument};
pub use self::filters::{UnreadableFilter, read_filter};
pub use self::flow::{BranchSpec, KNATIVE_FLOWS, ParallelSpec, SequenceSpec, StepSpec};
pub use self::kind::{KNATIVE_EVENTING, KNATIVE_MESSAGING, KNATIVE_SERVING, NATIVE};
pub use self::reader::nearest;
pub use self::replay::{ReplayBound, ReplayDestination, ReplaySpec};
pub use self::spec::{
    BackoffSpec, BrokerReference, BrokerSpec, Component, Deduplication, DeliveryExtras, DeliverySpec,
    Destination, Reference, RetentionSpec, SourceSpec, Spec, StartFrom, Target, TransformationSpec,
    TransformationUse, TriggerSpec,
};
pub use self::test_case::{Emission, Emitted, Emitter, Expectation, TestCase, TestEvent};
pub use self::translated::{Becomes, becomes};
pub use self::triggermesh::{filter_expression, is_transformation};
pub use crate::secret::Secrets;

/// The namespace and name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceName {
    /// The namespace; `default` where a manifest names none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ResourceName {
    /// The name within the namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A resource as its manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceId {
    /// The group and version, such as `eventing.knative.dev/v1`.
    pub api_version: Cow<'static, str>,
    /// The kind, such as `Trigger`.
    pub kind: Cow<'static, str>,
    /// The namespace; `default` where the manifest names none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ResourceId {
    /// A resource of this kind.
    pub fn new(
        api_version: impl Into<Cow<'static, str>>,
        kind: impl Into<Cow<'static, str>>,
        name: ResourceName,
    ) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: name.namespace,
            name: name.name,
        }
    }

    /// The namespace and name alone.
    pub fn resource_name(&self) -> ResourceName {
        ResourceName::new(self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A place in a text. Lines and columns count from 1, columns in characters. A field stands where its key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Mark {
    /// The beginning of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The path of the file as it was given.
    pub file: Arc<str>,
    /// The place in the file.
    pub mark: Mark,
}

/// Whether a problem keeps its resource from being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The resource is not applied.
    Error,
    /// The resource is applied, and may not do what was meant.
    Warning,
}

/// Something wrong with a manifest.
///
/// Serialises to the members `code`, `severity`, `message`, `help`, `file`, `line`, `column` and `path`, which
/// programs rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// Whether the resource is applied all the same.
    pub severity: Severity,
    /// One sentence: what is wrong.
    pub message: String,
    /// One sentence: what to do.
    pub help: String,
    /// Where the field stands; `None` for a resource that comes from no file.
    pub location: Option<Location>,
    /// The field, such as `spec.filters[1].exact.type`; empty for the document as a whole.
    pub path: String,
    /// The resource that the problem belongs to, where that much could be read.
    pub resource: Option<ResourceId>,
}

impl Problem {
    /// Whether the problem keeps its resource from being applied.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(8))?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("severity", &self.severity)?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("help", &self.help)?;
        map.serialize_entry("file", &self.location.as_ref().map(|location| &*location.file))?;
        map.serialize_entry("line", &self.location.as_ref().map(|location| location.mark.line))?;
        map.serialize_entry("column", &self.location.as_ref().map(|location| location.mark.column))?;
        map.serialize_entry("path", &self.path)?;
        map.end()
    }
}

impl fmt::Display for Problem {
    /// `file:line:column: error[E0203]: message (path)` and the help on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Location { file, mark }) = &self.location {
            write!(f, "{file}:{}:{}: ", mark.line, mark.column)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        if !self.path.is_empty() {
            write!(f, " ({})", self.path)?;
        }
        if !self.help.is_empty() {
            write!(f, "\n  help: {}", self.help)?;
        }
        Ok(())
    }
}

/// What is wrong with one field of a component's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field, relative to the component's settings, such as `interval` or `tls.caCert`; empty for the whole.
    pub path: String,
    /// One sentence: what is wrong and what to write instead.
    pub message: String,
}

/// A component's settings, read and validated, or everything that is wrong with them.
pub type Configured<T> = Result<T, Vec<FieldProblem>>;

/// Reads a component's settings and checks what its types cannot express.
pub fn decode_valid<C: DeserializeOwned>(
    value: &serde_json::Value,
    validate: impl FnOnce(&C) -> Vec<FieldProblem>,
) -> Configured<C> {
    let config = decode_config(value)?;
    match validate(&config) {
        problems if problems.is_empty() => Ok(config),
        problems => Err(problems),
    }
}

/// Reads a component's settings, naming the field that does not fit.
pub fn decode_config<C: DeserializeOwned>(value: &serde_json::Value) -> Configured<C> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        vec![FieldProblem { path, message: error.into_inner().to_string() }]
    })
}
