//! `waypost tail`: the events of a running broker, as they come.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::call::admin::{AdminApi, TIMEOUT};
use crate::cli::{Output, Tail};
use crate::failure::Failure;
use crate::present;

/// How long one question waits for events, as the admin API reads it, and as it is waited for here.
const WAIT: (&str, Duration) = ("PT20S", Duration::from_secs(20));
/// The most events that are asked for at once.
const AT_ONCE: u64 = 100;

/// Prints events until the count is reached, or until someone ends it.
pub(crate) fn tail(arguments: &Tail) -> Result<ExitCode, Failure> {
    let api = AdminApi::new(&arguments.admin)?;
    let mut next = arguments.from.clone();
    let mut left = arguments.count;
    if arguments.output == Output::Text {
        present::complain("waiting for events; end with Ctrl-C");
    }
    while left != Some(0) {
        let path = question(arguments, next.as_deref(), left.unwrap_or(AT_ONCE).min(AT_ONCE));
        let told = api.call(Method::GET, &path, TIMEOUT + WAIT.1)?;
        if let Some(skipped) = told["skipped"].as_u64().filter(|skipped| *skipped > 0) {
            present::complain(&format!(
                "{skipped} events are not shown: the log gave them up before they were read"
            ));
        }
        let events = told["events"].as_array().map_or(&[][..], Vec::as_slice);
        let mut text = String::new();
        for event in events {
            let line = match arguments.output {
                Output::Json => event.to_string(),
                Output::Text => line(event),
            };
            let _infallible = writeln!(text, "{line}");
        }
        present::print(&text)?;
        left = left.map(|left| left.saturating_sub(events.len() as u64));
        next = told["next"].as_str().map(str::to_owned);
    }
    Ok(ExitCode::SUCCESS)
}

fn question(arguments: &Tail, from: Option<&str>, limit: u64) -> String {
    let mut path = format!("/api/v1/tail?limit={limit}&wait={}", WAIT.0);
    let mut ask = |name: &str, value: &str| {
        let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        let _infallible = write!(path, "&{name}={value}");
    };
    for (name, asked) in [("broker", &arguments.broker), ("trigger", &arguments.trigger)] {
        if let Some(asked) = asked {
            ask("namespace", &asked.namespace);
            ask(name, &asked.name);
        }
    }
    if let Some(from) = from {
        ask("from", from);
    }
    if let Some(filter) = filter(arguments) {
        ask("filter", &filter.to_string());
    }
    path
}

/// All that is asked of events as one filter.
fn filter(arguments: &Tail) -> Option<Value> {
    let exact =
        |name: &str, value: &Option<String>| value.as_ref().map(|value| json!({"exact": {name: value}}));
    let asked =
        [exact("type", &arguments.event_type), exact("source", &arguments.source), arguments.filter.clone()];
    let asked: Vec<Value> = asked.into_iter().flatten().collect();
    (!asked.is_empty()).then(|| json!({ "all": asked }))
}

/// When it came, where it stands, and what it is.
fn line(told: &Value) -> String {
    let event = &told["event"];
    let text = |value: &Value| present::visible(value.as_str().unwrap_or_default());
    let mut line = format!(
        "{}  {}  {}  {}  {}",
        text(&told["arrivedAt"]),
        text(&told["position"]),
        text(&event["type"]),
        text(&event["source"]),
        text(&event["id"])
    );
    if event["subject"].is_string() {
        let _infallible = write!(line, "  {}", text(&event["subject"]));
    }
    line
}
