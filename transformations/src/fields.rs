//! `fields`: adds, deletes, moves and parses attributes and members of data, as TriggerMesh's Transformation does.

mod context;
mod operation;
mod path;
mod value;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::{
    Document, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

use self::operation::Program;

/// Adds, deletes, moves and parses attributes (`context`) and members of JSON data (`data`).
///
/// First all `store` and `parse` operations run, those of `context` before those of `data`; then the others of
/// `context`, then the others of `data`, each list in its order. A stored value can be used in both lists.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Fields {
    /// Operations on attributes. A key is the name of an attribute; extensions may also be written
    /// `extensions.NAME`.
    #[serde(default)]
    context: Vec<Operation>,
    /// Operations on data, which must be JSON. A key is a path such as `order.items[0].sku`; `[]` stands for a new
    /// last element, `.` for the data as a whole.
    #[serde(default)]
    data: Vec<Operation>,
    /// Whether an operation that fails on an event is passed over and the others apply. By default the whole
    /// transformation fails.
    #[serde(default)]
    lenient: bool,
}

/// One kind of operation at a number of places.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Operation {
    /// `add`, `delete`, `shift`, `store` or `parse`.
    operation: String,
    /// Where, each place one step.
    #[serde(default)]
    paths: Vec<Place>,
}

/// A place and what is done there.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Place {
    /// The path; for `shift` `OLD:NEW`; for `store` the name of the variable.
    #[serde(default)]
    key: String,
    /// `add`: the value, text in which variables stand by their names. `delete` and `shift`: only what equals it.
    /// `store`: the path that is read. `parse`: `json`.
    value: Option<Written>,
    /// What separates the names in paths, `.` by default.
    separator: Option<String>,
}

/// A value as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bool(bool),
    Number(serde_json::Number),
}

impl TransformationConfig for Fields {
    const TYPE: &'static str = "fields";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        Ok(Arc::new(Compiled { program: Program::compile(self)?, lenient: self.lenient }))
    }
}

#[derive(Debug)]
struct Compiled {
    program: Program,
    lenient: bool,
}

impl Transformation for Compiled {
    fn apply(&self, mut document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        self.program.run(&mut document, self.lenient, run)?;
        Ok(document.into())
    }
}

#[cfg(test)]
mod suite;
