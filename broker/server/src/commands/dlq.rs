//! `waypost dlq`: dead letters that are listed, looked at, sent again and deleted.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use waypost_core::codes;

use crate::call::admin::{AdminApi, TIMEOUT};
use crate::cli::{
    CancelRedrive, Dlq, ListLetters, ListRedrives, Output, PurgeLetters, RedriveLetters, ShowLetter,
};
use crate::failure::Failure;
use crate::present::{self, cell, rows};

const LETTERS: &str = "/api/v1/dead-letters";
const REDRIVES: &str = "/api/v1/redrives";

/// The time for what may look at very many dead letters, or delete them.
const LONG_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How often it is looked how far a redrive has come.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Does what the subcommand says.
pub(crate) fn dlq(command: &Dlq) -> Result<ExitCode, Failure> {
    match command {
        Dlq::List(arguments) => list(arguments),
        Dlq::Show(arguments) => show(arguments),
        Dlq::Redrive(arguments) => redrive(arguments),
        Dlq::Purge(arguments) => purge(arguments),
        Dlq::Jobs(arguments) => jobs(arguments),
        Dlq::Cancel(arguments) => cancel(arguments),
    }
}

fn list(arguments: &ListLetters) -> Result<ExitCode, Failure> {
    let mut path = format!("{LETTERS}?limit={}", arguments.limit);
    let after = arguments.after.as_deref().map(|after| ("after", after));
    for (name, value) in arguments.selection.given().into_iter().chain(after) {
        path.push_str(&format!("&{name}={}", encoded(value)));
    }
    let letters = AdminApi::new(&arguments.admin)?.call(Method::GET, &path, LONG_TIMEOUT)?;
    print(&letters, arguments.output, |letters| list_text(letters, arguments.limit))
}

fn show(arguments: &ShowLetter) -> Result<ExitCode, Failure> {
    let path = format!("{LETTERS}/{}", encoded(&arguments.id));
    let letter = AdminApi::new(&arguments.admin)?.call(Method::GET, &path, TIMEOUT)?;
    print(&letter, arguments.output, letter_text)
}

/// Starts a redrive and waits for its end. Exit code 1 where some failed again, or it was cancelled.
fn redrive(arguments: &RedriveLetters) -> Result<ExitCode, Failure> {
    let api = AdminApi::new(&arguments.admin)?;
    let answer = api.post(&format!("{LETTERS}/redrive"), &arguments.body(), LONG_TIMEOUT)?;
    if arguments.dry_run {
        return print(&answer, arguments.output, preview_text);
    }
    if arguments.detach {
        return print(&answer, arguments.output, redrive_text);
    }
    let ended = follow(&api, &answer, arguments.output)?;
    print(&ended, arguments.output, redrive_text)?;
    let well = ended["state"] == "done" && ended["failed"] == 0;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until a redrive has ended, and says now and then why it does not go on.
fn follow(api: &AdminApi, started: &Value, output: Output) -> Result<Value, Failure> {
    let id = cell(&started["id"]);
    let path = format!("{REDRIVES}/{}", encoded(&id));
    if output == Output::Text {
        let selected = cell(&started["selected"]);
        present::complain(&format!(
            "redrive {id} sends {selected} dead letters; it goes on if this command ends (waypost dlq cancel {id})"
        ));
    }
    let mut said = String::new();
    loop {
        let redrive = api.call(Method::GET, &path, TIMEOUT)?;
        if redrive["endedAt"].is_string() {
            return Ok(redrive);
        }
        let waiting = cell(&redrive["waiting"]);
        if output == Output::Text && !waiting.is_empty() && waiting != said {
            present::complain(&format!("it waits: {}", present::visible(&waiting)));
            said = waiting;
        }
        pause();
    }
}

/// Waits a little. This command has no runtime whose threads it could block.
#[expect(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

fn purge(arguments: &PurgeLetters) -> Result<ExitCode, Failure> {
    if !arguments.is_chosen() && !arguments.yes {
        return Err(Failure::new(
            codes::PURGE_UNCONFIRMED,
            "this would delete every dead letter of every broker: choose which (waypost dlq purge --help), or say --yes",
        ));
    }
    let api = AdminApi::new(&arguments.admin)?;
    let answer = api.post(&format!("{LETTERS}/purge"), &arguments.body(), LONG_TIMEOUT)?;
    print(&answer, arguments.output, |answer| {
        format!("{} dead letters were deleted\n", cell(&answer["purged"]))
    })
}

fn jobs(arguments: &ListRedrives) -> Result<ExitCode, Failure> {
    let redrives = AdminApi::new(&arguments.admin)?.call(Method::GET, REDRIVES, TIMEOUT)?;
    print(&redrives, arguments.output, jobs_text)
}

fn cancel(arguments: &CancelRedrive) -> Result<ExitCode, Failure> {
    let path = format!("{REDRIVES}/{}", encoded(&arguments.id));
    let redrive = AdminApi::new(&arguments.admin)?.call(Method::DELETE, &path, LONG_TIMEOUT)?;
    print(&redrive, arguments.output, redrive_text)
}

fn print(value: &Value, output: Output, told: impl FnOnce(&Value) -> String) -> Result<ExitCode, Failure> {
    let text = match output {
        Output::Json => present::json(value),
        Output::Text => told(value),
    };
    present::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn list_text(letters: &Value, limit: usize) -> String {
    let letters = rows(letters);
    let cells = |letter: &Value| {
        let event = &letter["event"];
        vec![
            cell(&letter["id"]),
            cell(&letter["at"]),
            cell(&letter["trigger"]),
            cell(&event["type"]),
            cell(&event["id"]),
            cell(&letter["code"]),
            cell(&letter["attempts"]),
            cell(&letter["reason"]),
        ]
    };
    let rows: Vec<Vec<String>> = letters.iter().map(cells).collect();
    let Some(last) = letters.last() else { return "there is no such dead letter\n".to_owned() };
    let header = ["ID", "AT", "TRIGGER", "TYPE", "EVENT", "CODE", "ATTEMPTS", "REASON"];
    let mut told = present::table(&header, &rows);
    if letters.len() >= limit {
        told.push_str(&format!("there may be more: --after {}\n", cell(&last["id"])));
    }
    told
}

fn letter_text(letter: &Value) -> String {
    let mut told = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            told.push_str(&format!("{name:<12}{}\n", present::visible(&value)));
        }
    };
    line("id", cell(&letter["id"]));
    line("trigger", cell(&letter["trigger"]));
    line("given up", cell(&letter["at"]));
    line("reason", format!("{} {}", cell(&letter["code"]), cell(&letter["reason"])));
    line("destination", cell(&letter["destination"]));
    line("status", cell(&letter["status"]));
    line("answer", cell(&letter["bodyExcerpt"]));
    line("position", cell(&letter["position"]));
    let forwarding = &letter["forwarding"];
    line(
        "forwarding",
        match cell(&forwarding["state"]).as_str() {
            "waiting" => format!("waits until {} for its dead-letter sink", cell(&forwarding["dueAt"])),
            "givenUp" => format!("its dead-letter sink did not take it: {}", cell(&forwarding["detail"])),
            _ => "no dead-letter sink is named".to_owned(),
        },
    );
    line("redrive", cell(&letter["redrive"]));
    if letter["outputs"].is_object() {
        let owed = present::count(rows(&letter["outputs"]["owed"]).len(), "event");
        line("outputs", format!("{} accepted, {owed} owed", cell(&letter["outputs"]["accepted"])));
    }
    let attempts: Vec<Vec<String>> = rows(&letter["attempts"])
        .iter()
        .map(|attempt| {
            ["number", "at", "outcome", "code", "status", "detail", "bodyExcerpt"]
                .map(|name| cell(&attempt[name]))
                .to_vec()
        })
        .collect();
    let (made, shown) = (cell(&letter["attemptsMade"]), attempts.len());
    if shown > 0 {
        if made != shown.to_string() {
            line("attempts", format!("{made}, of which the last {shown} are kept"));
        }
        told.push('\n');
        let header = ["ATTEMPT", "AT", "OUTCOME", "CODE", "STATUS", "DETAIL", "ANSWER"];
        told.push_str(&present::table(&header, &attempts));
    }
    told.push('\n');
    match &letter["event"] {
        Value::Null => told.push_str("its event cannot be read any more\n"),
        event => told.push_str(&present::json(event)),
    }
    told
}

fn preview_text(preview: &Value) -> String {
    let mut told = format!("{} dead letters would be sent\n", cell(&preview["selected"]));
    for (trigger, count) in preview["triggers"].as_object().into_iter().flatten() {
        told.push_str(&format!("  {trigger}: {}\n", cell(count)));
    }
    if preview["unreadable"] != 0 {
        told.push_str(&format!(
            "{} cannot be sent: their events cannot be read any more\n",
            cell(&preview["unreadable"])
        ));
    }
    for trigger in rows(&preview["withoutDestination"]) {
        told.push_str(&format!(
            "no manifest declares {}: say with --to where its dead letters go\n",
            cell(trigger)
        ));
    }
    told
}

fn redrive_text(redrive: &Value) -> String {
    let count = |name: &str| cell(&redrive[name]);
    let mut told = format!(
        "redrive {} is {}: of {} dead letters {} were taken, {} failed again and stay, {} were gone, {} are left\n",
        count("id"),
        count("state"),
        count("selected"),
        count("sent"),
        count("failed"),
        count("gone"),
        count("left")
    );
    if redrive["waiting"].is_string() {
        told.push_str(&format!("it waits: {}\n", present::visible(&count("waiting"))));
    }
    told
}

fn jobs_text(redrives: &Value) -> String {
    let cells = ["id", "state", "selected", "sent", "failed", "gone", "left", "startedAt", "to", "waiting"];
    let rows: Vec<Vec<String>> =
        rows(redrives).iter().map(|redrive| cells.map(|name| cell(&redrive[name])).to_vec()).collect();
    if rows.is_empty() {
        return "there is no redrive\n".to_owned();
    }
    let header =
        ["REDRIVE", "STATE", "SELECTED", "SENT", "FAILED", "GONE", "LEFT", "STARTED", "TO", "WAITS FOR"];
    present::table(&header, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_a_table_and_says_how_to_go_on() {
        let letters = json!([{"id": "n.b.7", "trigger": "n/t", "event": {"id": "1", "source": "/s", "type": "order"},
            "reason": "no\u{1b}", "code": "E0402", "attempts": 3, "at": "2026-01-31T08:00:00Z"}]);
        let expected = "\
ID     AT                    TRIGGER  TYPE   EVENT  CODE   ATTEMPTS  REASON
n.b.7  2026-01-31T08:00:00Z  n/t      order  1      E0402  3         no\\u{1b}
there may be more: --after n.b.7
";
        assert_eq!(list_text(&letters, 1), expected);
        assert!(!list_text(&letters, 2).contains("more"));
        assert_eq!(list_text(&json!([]), 2), "there is no such dead letter\n");
    }

    #[test]
    fn a_dead_letter_is_told_with_each_attempt() {
        let letter = json!({"id": "n.b.7", "trigger": "n/t", "at": "2026-01-31T08:00:00Z", "code": "E0402",
            "reason": "refused", "destination": "http://h/", "status": 422, "bodyExcerpt": "no such order",
            "position": "0:3", "forwarding": {"state": "kept"}, "redrive": null, "attemptsMade": 20,
            "attempts": [{"number": 20, "at": "2026-01-31T08:00:00Z", "outcome": "failed", "code": "E0402",
                "status": 422, "detail": "refused", "bodyExcerpt": "no such order"}],
            "event": {"id": "1"}});
        let told = letter_text(&letter);
        for part in [
            "answer      no such order",
            "20, of which the last 1 are kept",
            "20       2026",
            "\"id\": \"1\"",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
