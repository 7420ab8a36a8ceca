//! `waypost check`: reads, validates and plans; with `--connect` it reaches what the manifests name, too.

use std::process::ExitCode;

use waypost_core::manifest::Problem;
use waypost_engine::plan::plan;

use super::connect::{Reached, connect};
use crate::cli::{Check, Output};
use crate::failure::Failure;
use crate::files::Files;
use crate::present;
use crate::registry::REGISTRY;

/// Prints every problem of the manifests, and of the tests that they hold. The exit code is 1 if one of them is an error.
pub(crate) fn check(arguments: &Check) -> Result<ExitCode, Failure> {
    let reading = Files::new(&arguments.manifests.paths)?.read();
    let plan = plan(&reading.manifests, &REGISTRY, None, 1);
    let mut problems = plan.problems.clone();
    problems.extend(super::test::problems(&reading.manifests, &plan));
    // What cannot be planned would not be reached either.
    let reached = if arguments.connect && plan.is_free_of_errors() { connect(&plan)? } else { Vec::new() };
    problems.extend(reached.iter().filter_map(|row| row.problem.clone()));
    let text = match arguments.output {
        Output::Json => {
            serde_json::to_string_pretty(&problems).expect("problems have no keys but strings") + "\n"
        }
        Output::Text if !reached.is_empty() => {
            let lines = reached.iter().map(|Reached { id, problem }| {
                let name = format!("{} {}/{}", id.kind, id.namespace, id.name);
                match problem {
                    None => format!("{name}: reached\n"),
                    Some(Problem { code, message, .. }) => format!("{name}: {code} {message}\n"),
                }
            });
            lines.collect::<String>() + &present::problems(&problems)
        }
        Output::Text if problems.is_empty() => format!("no problems: {}\n", present::resources(&plan)),
        Output::Text => present::problems(&problems),
    };
    present::print(&text)?;
    Ok(if problems.iter().any(Problem::is_error) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
