//! `waypost test`: whether triggers match the events that they should, and transformations make of them what they
//! should, without running anything.

mod cases;
mod emitted;
mod text;

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use waypost_core::Event;
use waypost_core::codes;
use waypost_core::event::json;
use waypost_core::filter::Candidate;
use waypost_core::filter::explain::Explanation;
use waypost_core::manifest::{Expectation, Problem, TestCase, TestEvent};
use waypost_engine::explain::{ExplainedChain, judge};
use waypost_engine::plan::{Plan, plan};

pub(crate) use self::cases::problems;
use crate::cli::{Output, Test};
use crate::failure::Failure;
use crate::files::Files;
use crate::input;
use crate::present;
use crate::registry::REGISTRY;

/// What became of all tests. Members may be added, never renamed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    passed: usize,
    failed: usize,
    /// What is wrong with the manifests, the tests among them.
    problems: Vec<Problem>,
    tests: Vec<Outcome>,
}

/// What became of one test.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    namespace: String,
    name: String,
    file: String,
    line: u32,
    passed: bool,
    /// One for each trigger that the test names, but for those that do not exist.
    triggers: Vec<Verdict>,
    /// One for each item of `emits`, but for those whose trigger or Transformation does not exist.
    emissions: Vec<Emission>,
}

/// What came out of transformations.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Emission {
    /// `Trigger` or `Transformation`.
    kind: &'static str,
    namespace: String,
    name: String,
    /// The line of the item.
    line: u32,
    passed: bool,
    /// Each difference from what was expected, in a line.
    differences: Vec<String>,
    /// What came out, step by step.
    emitted: ExplainedChain,
}

/// What one trigger did with the event of a test.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    namespace: String,
    name: String,
    /// The line where the test names it.
    line: u32,
    /// Whether it must match.
    expected: bool,
    /// Whether it matches.
    matched: bool,
    passed: bool,
    /// Why it does not match, in a sentence.
    reason: Option<String>,
    /// The clauses of its filter.
    clauses: Vec<Explanation>,
}

/// Runs every test of the manifests and prints how they ended. The exit code is 1 if one failed, if there is none, or if
/// the manifests have an error.
pub(crate) fn test(arguments: &Test) -> Result<ExitCode, Failure> {
    let reading = Files::new(&arguments.manifests.paths)?.read();
    let plan = plan(&reading.manifests, &REGISTRY, None, 1);
    let mut found: Vec<Problem> =
        plan.problems.iter().cloned().chain(problems(&reading.manifests, &plan)).collect();
    let mut tests = Vec::new();
    for case in reading.manifests.files.iter().flat_map(|file| &file.tests) {
        let event = event_of(case).map_err(|problem| found.push(*problem)).ok();
        tests.push(outcome(case, event.as_ref(), &plan));
    }
    if tests.is_empty() && !found.iter().any(Problem::is_error) {
        let detail = "no manifest holds a test: write one with `kind: Test` beside the triggers, or in a file such as \
                      orders.test.yaml";
        return Err(Failure::new(codes::TESTS_ABSENT, detail));
    }
    let passed = tests.iter().filter(|test| test.passed).count();
    let report = Report { passed, failed: tests.len() - passed, problems: found, tests };
    present::print(&match arguments.output {
        Output::Json => present::json(&report),
        Output::Text => text::report(&report),
    })?;
    let good = report.failed == 0 && !report.problems.iter().any(Problem::is_error);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Without an event, or with a trigger that does not exist, a test fails: the problem is told apart.
fn outcome(case: &TestCase, event: Option<&Event>, plan: &Plan) -> Outcome {
    let verdicts: Vec<Option<Verdict>> = match event {
        None => vec![None],
        Some(event) => {
            let candidate = Candidate::new(event);
            case.expectations.iter().map(|expectation| verdict(expectation, &candidate, plan)).collect()
        }
    };
    let emissions: Vec<Option<Emission>> = match event {
        None => Vec::new(),
        Some(event) => case.emissions.iter().map(|one| emitted::emission(one, event, plan)).collect(),
    };
    let emitted = emissions.iter().all(|one| one.as_ref().is_some_and(|one| one.passed));
    Outcome {
        namespace: case.name.namespace.clone(),
        name: case.name.name.clone(),
        file: case.location.file.to_string(),
        line: case.location.mark.line,
        passed: emitted
            && verdicts.iter().all(|verdict| verdict.as_ref().is_some_and(|verdict| verdict.passed)),
        triggers: verdicts.into_iter().flatten().collect(),
        emissions: emissions.into_iter().flatten().collect(),
    }
}

/// What a trigger did with the event; none where there is no such trigger.
fn verdict(expectation: &Expectation, candidate: &Candidate<'_>, plan: &Plan) -> Option<Verdict> {
    let told = judge(plan, &expectation.trigger, candidate)?;
    Some(Verdict {
        line: expectation.mark.line,
        expected: expectation.matches,
        // That a trigger with an error matches nothing is not what anybody wants to see confirmed.
        passed: told.matched == expectation.matches && told.problem.is_none(),
        namespace: told.namespace,
        name: told.name,
        matched: told.matched,
        reason: told.reason,
        clauses: told.clauses,
    })
}

/// The event of a test, which may lie in a file beside the manifest.
fn event_of(case: &TestCase) -> Result<Event, Box<Problem>> {
    let (path, mark) = match &case.event {
        TestEvent::Inline(event) => return Ok(event.clone()),
        TestEvent::File { path, mark } => (path, *mark),
    };
    let at = (mark, "spec.eventFile");
    let directory = Path::new(&*case.location.file).parent().unwrap_or(Path::new(""));
    let content = input::read_beside(directory, Path::new(path)).map_err(|failure| {
        let help = "write the path relative to the directory of the manifest".to_owned();
        Box::new(case.problem(failure.code, at, failure.detail, help))
    })?;
    json::decode(&content).map_err(|error| {
        let message = format!("{path} is no event: {}", error.detail);
        let help = "write one event in structured JSON to the file".to_owned();
        Box::new(case.problem(error.code, at, message, help))
    })
}
