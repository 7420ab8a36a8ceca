//! `waypost status`: what a running broker has, as a table.

use std::fmt::Write;
use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use crate::call::admin::{AdminApi, TIMEOUT};
use crate::cli::{Output, Status};
use crate::failure::Failure;
use crate::present::{self, cell, rows};

/// Prints the status, and before it what a recount found where one was asked for.
pub(crate) fn status(arguments: &Status) -> Result<ExitCode, Failure> {
    let api = AdminApi::new(&arguments.admin)?;
    let recount =
        if arguments.recount { Some(api.call(Method::POST, "/api/v1/recount", TIMEOUT)?) } else { None };
    let status = api.call(Method::GET, &format!("/api/v1/status?{}", query(arguments)), TIMEOUT)?;
    let text = match (arguments.output, recount) {
        (Output::Json, None) => present::json(&status),
        (Output::Json, Some(recount)) => {
            let mut status = status;
            status["recount"] = recount;
            present::json(&status)
        }
        (Output::Text, recount) => {
            let mut text = recount.as_ref().map(recount_text).unwrap_or_default();
            text.push_str(&status_text(&status));
            text
        }
    };
    present::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The query of the status, with the names of the flags.
fn query(arguments: &Status) -> String {
    let mut query = format!("limit={}", arguments.limit);
    let given =
        [("namespace", &arguments.namespace), ("trigger", &arguments.trigger), ("after", &arguments.after)];
    for (name, value) in given {
        if let Some(value) = value {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            let _infallible = write!(query, "&{name}={value}");
        }
    }
    query
}

fn recount_text(recount: &Value) -> String {
    let lines = rows(recount);
    let different: Vec<Vec<String>> = lines
        .iter()
        .filter(|line| line["before"] != line["after"] || line["differed"] == Value::Bool(true))
        .map(|line| vec![named(line), cell(&line["before"]), cell(&line["after"])])
        .collect();
    if different.is_empty() {
        return format!("recounted {}: nothing differed\n\n", present::count(lines.len(), "trigger"));
    }
    let table = present::table(&["RECOUNTED", "PENDING BEFORE", "PENDING NOW"], &different);
    format!("{table}\n")
}

fn status_text(status: &Value) -> String {
    let mut text = format!(
        "Waypost {}, plan {} of {}\n",
        cell(&status["version"]),
        cell(&status["plan"]["version"]),
        cell(&status["plan"]["appliedAt"])
    );
    let resources: Vec<Vec<String>> = rows(&status["resources"])
        .iter()
        .map(|row| {
            vec![cell(&row["kind"]), named(row), ready(row), cell(&row["reason"]), cell(&row["message"])]
        })
        .collect();
    section(&mut text, &["KIND", "NAME", "READY", "REASON", "MESSAGE"], &resources);
    let triggers: Vec<Vec<String>> = rows(&status["triggers"])
        .iter()
        .map(|row| {
            let counts =
                ["matched", "delivered", "deadLettered", "dropped", "pending", "inFlight", "lagEvents"];
            let counts = counts.into_iter().map(|name| cell(&row[name]));
            [named(row), cell(&row["broker"]), ready(row)].into_iter().chain(counts).collect()
        })
        .collect();
    let header = [
        "TRIGGER",
        "BROKER",
        "READY",
        "MATCHED",
        "DELIVERED",
        "DEAD",
        "DROPPED",
        "PENDING",
        "IN FLIGHT",
        "LAG",
    ];
    section(&mut text, &header, &triggers);
    let logs: Vec<Vec<String>> = rows(&status["logs"])
        .iter()
        .map(|row| {
            let cells = ["kind", "usedBytes", "limitBytes", "heldBy", "received", "refused"];
            std::iter::once(named(row)).chain(cells.into_iter().map(|name| cell(&row[name]))).collect()
        })
        .collect();
    section(&mut text, &["LOG OF", "KEPT IN", "BYTES", "LIMIT", "HELD BY", "RECEIVED", "REFUSED"], &logs);
    let problems: Vec<Vec<String>> = rows(&status["plan"]["problems"])
        .iter()
        .map(|row| {
            let place = format!("{}:{}", cell(&row["file"]), cell(&row["line"]));
            vec![cell(&row["severity"]), cell(&row["code"]), place, cell(&row["path"]), cell(&row["message"])]
        })
        .collect();
    section(&mut text, &["PROBLEM", "CODE", "PLACE", "FIELD", "MESSAGE"], &problems);
    text
}

/// A table after an empty line; nothing for one without rows.
fn section(text: &mut String, header: &[&str], rows: &[Vec<String>]) {
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&present::table(header, rows));
    }
}

fn named(row: &Value) -> String {
    format!("{}/{}", cell(&row["namespace"]), cell(&row["name"]))
}

fn ready(row: &Value) -> String {
    let word = match (row["ready"].as_bool(), row["paused"].as_bool()) {
        (_, Some(true)) => "paused",
        (Some(true), _) => "yes",
        _ => "no",
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_becomes_tables() {
        let status = json!({
            "version": "0.1.0",
            "plan": {"version": 3, "appliedAt": "2026-11-21T12:00:00Z", "problems": []},
            "resources": [{"kind": "Broker", "namespace": "default", "name": "b", "ready": false,
                "reason": "Detached", "message": "no manifest declares it"}],
            "triggers": [{"namespace": "default", "name": "t", "broker": "b", "ready": true, "paused": false,
                "matched": 5, "delivered": 3, "deadLettered": 1, "dropped": 0, "pending": 1, "inFlight": 1,
                "lagEvents": 0}],
        });
        let expected = "\
Waypost 0.1.0, plan 3 of 2026-11-21T12:00:00Z

KIND    NAME       READY  REASON    MESSAGE
Broker  default/b  no     Detached  no manifest declares it

TRIGGER    BROKER  READY  MATCHED  DELIVERED  DEAD  DROPPED  PENDING  IN FLIGHT  LAG
default/t  b       yes    5        3          1     0        1        1          0
";
        assert_eq!(status_text(&status), expected);
    }

    #[test]
    fn a_recount_tells_only_what_differed() {
        let same = json!([{"namespace": "n", "name": "t", "before": 2, "after": 2}]);
        assert_eq!(recount_text(&same), "recounted 1 trigger: nothing differed\n\n");
        let different = json!([{"namespace": "n", "name": "t", "before": 2, "after": 3}]);
        assert!(recount_text(&different).contains("n/t        2               3"));
    }
}
