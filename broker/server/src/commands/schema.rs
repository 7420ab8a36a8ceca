//! `waypost schema`: the JSON schema of the manifests.

use std::process::ExitCode;

use crate::failure::Failure;
use crate::present;
use crate::registry::REGISTRY;

/// Prints the schema of every native kind, the settings of all components included.
pub(crate) fn schema() -> Result<ExitCode, Failure> {
    let schema = waypost_engine::plan::schema(&REGISTRY);
    present::print(&(serde_json::to_string_pretty(&schema).expect("a JSON value is JSON") + "\n"))?;
    Ok(ExitCode::SUCCESS)
}
