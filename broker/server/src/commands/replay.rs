//! `waypost replay`: ranges of logs that are sent again.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use waypost_core::manifest::ResourceName;

use crate::call::admin::{AdminApi, TIMEOUT};
use crate::cli::{ListReplays, OneReplay, Output, Replay, StartReplay};
use crate::failure::Failure;
use crate::present::{self, cell, rows};

const REPLAYS: &str = "/api/v1/replays";

/// The time for counting a range: all of it is read.
const COUNT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// How often it is looked how far a replay has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Does what the subcommand says.
pub(crate) fn replay(command: &Replay) -> Result<ExitCode, Failure> {
    match command {
        Replay::Start(arguments) => start(arguments),
        Replay::List(arguments) => list(arguments),
        Replay::Show(arguments) => one(arguments, Method::GET, ""),
        Replay::Pause(arguments) => one(arguments, Method::POST, "/pause"),
        Replay::Resume(arguments) => one(arguments, Method::POST, "/resume"),
        Replay::Cancel(arguments) => one(arguments, Method::POST, "/cancel"),
    }
}

/// Starts a replay and waits for its end. Exit code 1 where it was cancelled, or left dead letters.
fn start(arguments: &StartReplay) -> Result<ExitCode, Failure> {
    let api = AdminApi::new(&arguments.admin)?;
    let timeout = if arguments.dry_run { COUNT_TIMEOUT } else { TIMEOUT };
    let answer = api.post(REPLAYS, &arguments.body(), timeout)?;
    if arguments.dry_run {
        let text = match arguments.output {
            Output::Json => present::json(&answer),
            Output::Text => estimate_text(&answer),
        };
        present::print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let waits = !arguments.detach && answer["paused"] != Value::Bool(true);
    let ended = if waits { follow(&api, &answer, arguments.output)? } else { answer };
    present::print(&line_text(&ended, arguments.output))?;
    let well = !waits || (ended["state"] == "Completed" && ended["deadLettered"] == 0);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until a replay has ended, and says now and then how far it is.
#[expect(clippy::disallowed_methods, reason = "there is no runtime here whose worker it could block")]
fn follow(api: &AdminApi, started: &Value, output: Output) -> Result<Value, Failure> {
    let path = path_of(&ResourceName::new(cell(&started["namespace"]), cell(&started["name"])), "");
    if output == Output::Text {
        let name = named(started);
        present::complain(&format!(
            "replay {name} has started; it goes on if this command ends (waypost replay pause|cancel {name})"
        ));
    }
    let mut said = String::new();
    loop {
        let line = api.call(Method::GET, &path, TIMEOUT)?;
        if line["endedAt"].is_string() {
            return Ok(line);
        }
        let message = cell(&line["message"]);
        if output == Output::Text && message != said {
            present::complain(&message);
            said = message;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn list(arguments: &ListReplays) -> Result<ExitCode, Failure> {
    let replays = AdminApi::new(&arguments.admin)?.call(Method::GET, REPLAYS, TIMEOUT)?;
    let text = match arguments.output {
        Output::Json => present::json(&replays),
        Output::Text => list_text(&replays),
    };
    present::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn one(arguments: &OneReplay, method: Method, action: &str) -> Result<ExitCode, Failure> {
    let line = AdminApi::new(&arguments.admin)?.call(method, &path_of(&arguments.name, action), TIMEOUT)?;
    present::print(&line_text(&line, arguments.output))?;
    Ok(ExitCode::SUCCESS)
}

fn path_of(name: &ResourceName, action: &str) -> String {
    let encode = |part: &str| {
        percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    format!("{REPLAYS}/{}/{}{action}", encode(&name.namespace), encode(&name.name))
}

fn estimate_text(estimate: &Value) -> String {
    let mut told = format!(
        "{} events of {}/{} would be sent\n",
        cell(&estimate["expected"]),
        cell(&estimate["namespace"]),
        cell(&estimate["broker"])
    );
    for range in rows(&estimate["ranges"]) {
        told.push_str(&format!("range    {}\n", range_text(range)));
    }
    for notice in rows(&estimate["notices"]) {
        told.push_str(&format!("notice   {}\n", cell(notice)));
    }
    told
}

fn line_text(line: &Value, output: Output) -> String {
    if output == Output::Json {
        return present::json(line);
    }
    let to = match line["trigger"].as_str() {
        Some(trigger) => format!("as trigger {trigger}"),
        None => cell(&line["subscriber"]),
    };
    let counts = ["matched", "delivered", "deadLettered", "dropped", "pending"];
    let counts = counts.map(|name| format!("{} {name}", cell(&line[name]))).join(", ");
    let mut told = format!(
        "replay   {}\nbroker   {}\nto       {to}\nfrom     {}\nup to    {}\n",
        named(line),
        cell(&line["broker"]),
        cell(&line["from"]),
        cell(&line["to"])
    );
    for range in rows(&line["ranges"]) {
        told.push_str(&format!("range    {}\n", range_text(range)));
    }
    told.push_str(&format!(
        "state    {}: {}\n",
        cell(&line["state"]),
        present::visible(&cell(&line["message"]))
    ));
    told.push_str(&format!("expected {}\ncounts   {counts}\n", cell(&line["expected"])));
    if line["position"].is_string() {
        told.push_str(&format!("at       {}\n", cell(&line["position"])));
    }
    told
}

fn range_text(range: &Value) -> String {
    let (partition, from, to) = (cell(&range["partition"]), cell(&range["from"]), cell(&range["to"]));
    format!("{partition}:{from} up to, but not with {partition}:{to}")
}

fn list_text(replays: &Value) -> String {
    let cells =
        ["state", "broker", "expected", "delivered", "deadLettered", "dropped", "pending", "startedAt"];
    let rows: Vec<Vec<String>> = rows(replays)
        .iter()
        .map(|line| std::iter::once(named(line)).chain(cells.iter().map(|name| cell(&line[*name]))).collect())
        .collect();
    if rows.is_empty() {
        return "there is no replay\n".to_owned();
    }
    let header =
        ["REPLAY", "STATE", "BROKER", "EXPECTED", "DELIVERED", "DEAD", "DROPPED", "PENDING", "STARTED"];
    present::table(&header, &rows)
}

fn named(line: &Value) -> String {
    format!("{}/{}", cell(&line["namespace"]), cell(&line["name"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replay_is_told_in_lines() {
        let line = json!({
            "namespace": "default", "name": "again", "broker": "b", "trigger": "t", "subscriber": "http://h/",
            "state": "Running", "message": "3 of 5 events are settled", "from": "0:1", "to": "latest",
            "ranges": [{"partition": 0, "from": 1, "to": 6}], "expected": 5, "matched": 5, "delivered": 3,
            "deadLettered": 0, "dropped": 0, "pending": 2, "position": "0:4", "startedAt": "2026-11-21T12:00:00Z",
        });
        let expected = "\
replay   default/again
broker   b
to       as trigger t
from     0:1
up to    latest
range    0:1 up to, but not with 0:6
state    Running: 3 of 5 events are settled
expected 5
counts   5 matched, 3 delivered, 0 deadLettered, 0 dropped, 2 pending
at       0:4
";
        assert_eq!(line_text(&line, Output::Text), expected);
        let listed = list_text(&json!([line]));
        assert!(listed.contains("default/again  Running  b       5"), "{listed}");
        assert_eq!(list_text(&json!([])), "there is no replay\n");
    }

    #[test]
    fn an_estimate_is_told_with_its_notices() {
        let estimate = json!({
            "namespace": "default", "broker": "b", "expected": 7,
            "ranges": [{"partition": 0, "from": 1, "to": 9}], "notices": ["the log begins at 0:1"],
        });
        let expected = "7 events of default/b would be sent\nrange    0:1 up to, but not with 0:9\nnotice   the log begins at 0:1\n";
        assert_eq!(estimate_text(&estimate), expected);
    }
}
