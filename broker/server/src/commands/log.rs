//! `waypost log`: what operators do about damage.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use waypost_log::embedded::{VerifiedLog, verify_directory};

use super::run::DEFAULT_DATA_DIRECTORY;
use crate::call::admin::AdminApi;
use crate::cli::{AcceptDamage, Log, Output, Verify};
use crate::failure::Failure;
use crate::present;

/// The time for accepting damage: every record of the log is read for it.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Does what the subcommand says.
pub(crate) fn log(command: &Log) -> Result<ExitCode, Failure> {
    match command {
        Log::Verify(arguments) => verify(arguments),
        Log::AcceptDamage(arguments) => accept_damage(arguments),
    }
}

/// Reads everything in a data directory that no process uses, and changes nothing. Exit code 1 where something is
/// damaged.
fn verify(arguments: &Verify) -> Result<ExitCode, Failure> {
    let directory = arguments.data_dir.as_deref().unwrap_or(Path::new(DEFAULT_DATA_DIRECTORY));
    let logs = verify_directory(directory).map_err(|error| Failure::new(error.code(), error.to_string()))?;
    let text = match arguments.output {
        Output::Json => present::json(&logs),
        Output::Text => verified_text(&logs),
    };
    present::print(&text)?;
    let sound = logs.iter().all(|log| log.damage.is_empty());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verified_text(logs: &[VerifiedLog]) -> String {
    let rows: Vec<Vec<String>> = logs
        .iter()
        .map(|log| {
            let found = if log.damage.is_empty() { "sound" } else { "damaged" };
            vec![
                format!("{}/{}", log.namespace, log.name),
                log.segments.to_string(),
                log.records.to_string(),
                log.bytes.to_string(),
                found.to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "there is no log in it\n".to_owned();
    }
    let mut text = present::table(&["LOG OF", "SEGMENTS", "RECORDS", "BYTES", "FOUND"], &rows);
    for log in logs {
        for (kind, sentences) in [("damage", &log.damage), ("harmless", &log.harmless)] {
            for sentence in sentences {
                text.push_str(&format!("{kind} in {}/{}: {sentence}\n", log.namespace, log.name));
            }
        }
    }
    text
}

/// Has a running broker take events again although a part of its log is lost.
fn accept_damage(arguments: &AcceptDamage) -> Result<ExitCode, Failure> {
    let api = AdminApi::new(&arguments.admin)?;
    let broker = &arguments.broker;
    let path = format!("/api/v1/logs/{}/{}/accept-damage", broker.namespace, broker.name);
    let answer = api.call(Method::POST, &path, ACCEPT_TIMEOUT)?;
    let text = match arguments.output {
        Output::Json => present::json(&answer),
        Output::Text => accepted_text(&broker.to_string(), &answer),
    };
    present::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn accepted_text(broker: &str, answer: &Value) -> String {
    let accepted = answer["accepted"].as_array().map_or(&[][..], Vec::as_slice);
    if accepted.is_empty() {
        return format!("the log of {broker} is not damaged: there was nothing to accept\n");
    }
    let mut text = format!("{broker} takes events again. What was accepted as lost:\n");
    for sentence in accepted.iter().filter_map(Value::as_str) {
        text.push_str(&format!("  {sentence}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn damage_is_told_below_the_table() {
        let log = VerifiedLog {
            namespace: "default".to_owned(),
            name: "orders".to_owned(),
            segments: 2,
            records: 7,
            bytes: 4096,
            damage: vec!["a.log is corrupt at byte 9".to_owned()],
            harmless: vec!["b.log: torn tail".to_owned()],
        };
        let expected = "\
LOG OF          SEGMENTS  RECORDS  BYTES  FOUND
default/orders  2         7        4096   damaged
damage in default/orders: a.log is corrupt at byte 9
harmless in default/orders: b.log: torn tail
";
        assert_eq!(verified_text(&[log]), expected);
    }

    #[test]
    fn what_was_accepted_is_told() {
        let text = accepted_text("n/b", &json!({"accepted": ["a.log is corrupt"]}));
        assert_eq!(text, "n/b takes events again. What was accepted as lost:\n  a.log is corrupt\n");
        assert!(accepted_text("n/b", &json!({"accepted": []})).contains("nothing to accept"));
    }
}
