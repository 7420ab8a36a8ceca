//! `waypost explain`: why triggers match an event or do not, and what became of it.

mod text;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;
use serde_json::value::RawValue;
use waypost_core::Event;
use waypost_core::codes;
use waypost_core::event::json;
use waypost_core::manifest::{Problem, ResourceName};
use waypost_engine::explain::{ExplainSelection, Explained, explain_event};
use waypost_engine::plan::plan;

use crate::call::admin::{AdminApi, TIMEOUT};
use crate::cli::{Asked, Explain, Output};
use crate::failure::Failure;
use crate::files::Files;
use crate::input;
use crate::present;
use crate::registry::REGISTRY;

/// Prints the explanation. The exit code is 1 where a trigger that is told of has an error, or a manifest cannot be read.
pub(crate) fn explain(arguments: &Explain) -> Result<ExitCode, Failure> {
    match arguments.asked() {
        Asked::File { event, manifests } => from_file(arguments, event, manifests),
        Asked::Position { broker, position } => {
            recorded(arguments, broker, &[("position", &position.to_string())])
        }
        Asked::Event { broker, source, id } => recorded(arguments, broker, &[("source", source), ("id", id)]),
    }
}

/// What the manifests would do with the event of a file.
fn from_file(arguments: &Explain, event: &Path, manifests: &[PathBuf]) -> Result<ExitCode, Failure> {
    if event == Path::new(input::STDIN) && manifests.iter().any(|path| path == Path::new(input::STDIN)) {
        let detail = "stdin cannot be both the manifests and the event: give one of them as a file";
        return Err(Failure::new(codes::INPUT_UNREADABLE, detail));
    }
    let event = read_event(event)?;
    let reading = Files::new(manifests)?.read();
    let plan = plan(&reading.manifests, &REGISTRY, None, 1);
    let selection = ExplainSelection {
        namespace: None,
        trigger: arguments.trigger.clone(),
        limit: arguments.limit,
        after: arguments.after.clone(),
    };
    let explained = explain_event(&plan, &event, arguments.broker.as_ref(), &selection)
        .map_err(|error| Failure::new(codes::ADMIN_QUERY_INVALID, error.to_string()))?;
    // What belongs to no resource may hide triggers.
    let hidden: Vec<&Problem> =
        plan.problems.iter().filter(|problem| problem.is_error() && problem.resource.is_none()).collect();
    let shown = match arguments.output {
        Output::Json => present::json(&explained),
        Output::Text => {
            // Data may be nested deeper than a tree of JSON is read, and is not shown.
            let shown = Explained { event: named(&event), ..explained.clone() };
            let shown = serde_json::to_value(shown).expect("an explanation is strings, numbers and lists");
            text::explained(&shown, arguments.tells_all())
        }
    };
    present::print(&shown)?;
    for problem in &hidden {
        present::complain(&problem.to_string());
    }
    let broken = explained.triggers.iter().any(|trigger| trigger.problem.is_some());
    Ok(if broken || !hidden.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The attributes that an event is known by.
fn named(event: &Event) -> Box<RawValue> {
    let named = serde_json::json!({"id": event.id(), "source": event.source(), "type": event.event_type()});
    serde_json::value::to_raw_value(&named).expect("an object of strings is JSON")
}

/// One event in structured JSON.
fn read_event(path: &Path) -> Result<Event, Failure> {
    let content = input::read_file(path)?;
    if content.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Failure::new(
            codes::FORMAT_UNSUPPORTED,
            format!(
                "{} holds a batch, and one event is explained at a time: write one of its events to a file",
                path.display()
            ),
        ));
    }
    json::decode(&content).map_err(|error| {
        let detail = format!("{} is no event in structured JSON: {}", path.display(), error.detail);
        Failure::new(error.code, detail)
    })
}

/// What a running broker did with an event that it has.
fn recorded(
    arguments: &Explain,
    broker: &ResourceName,
    record: &[(&str, &str)],
) -> Result<ExitCode, Failure> {
    let api = AdminApi::new(&arguments.admin)?;
    let limit = arguments.limit.to_string();
    let mut parameters = vec![
        ("namespace", broker.namespace.as_str()),
        ("broker", broker.name.as_str()),
        ("limit", limit.as_str()),
    ];
    parameters.extend_from_slice(record);
    parameters.extend(arguments.trigger.as_deref().map(|trigger| ("trigger", trigger)));
    parameters.extend(arguments.after.as_deref().map(|after| ("after", after)));
    let mut path = "/api/v1/explain?".to_owned();
    for (place, (name, value)) in parameters.into_iter().enumerate() {
        let separator = if place == 0 { "" } else { "&" };
        let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        let _infallible = write!(path, "{separator}{name}={value}");
    }
    let explained = api.call(Method::GET, &path, TIMEOUT)?;
    present::print(&match arguments.output {
        Output::Json => present::json(&explained),
        Output::Text => text::explained(&explained, arguments.tells_all()),
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Explain {
    /// Whether every clause is shown: asked for, or there is but one trigger to show.
    fn tells_all(&self) -> bool {
        self.verbose || self.trigger.is_some()
    }
}
