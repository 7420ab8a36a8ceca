//! `waypost trigger`: what operators do to what a trigger is owed.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use waypost_core::manifest::ResourceName;

use crate::call::admin::{AdminApi, TIMEOUT};
use crate::cli::{Admin, Output, Seek, Skip, Trigger};
use crate::failure::Failure;
use crate::present;

/// The time for moving a trigger on: each event that it drops is written down.
const SEEK_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Does what the subcommand says.
pub(crate) fn trigger(command: &Trigger) -> Result<ExitCode, Failure> {
    match command {
        Trigger::Skip(Skip { trigger, position, admin, output }) => {
            let answer = call(admin, trigger, "skip", ("position", position), TIMEOUT)?;
            print(*output, &answer, &format!("{trigger} skips the event at {position}\n"))
        }
        Trigger::Seek(Seek { trigger, to, admin, output }) => {
            let answer = call(admin, trigger, "seek", ("to", to), SEEK_TIMEOUT)?;
            let dropped = answer["dropped"].as_u64().unwrap_or_default();
            print(*output, &answer, &format!("{trigger} goes on at {to}: {dropped} events are dropped\n"))
        }
    }
}

fn call(
    admin: &Admin,
    trigger: &ResourceName,
    action: &str,
    (name, value): (&str, &str),
    timeout: Duration,
) -> Result<Value, Failure> {
    let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
    let path = format!("/api/v1/triggers/{}/{}/{action}?{name}={value}", trigger.namespace, trigger.name);
    AdminApi::new(admin)?.call(Method::POST, &path, timeout)
}

fn print(output: Output, answer: &Value, text: &str) -> Result<ExitCode, Failure> {
    match output {
        Output::Json => present::print(&present::json(answer))?,
        Output::Text => present::print(text)?,
    }
    Ok(ExitCode::SUCCESS)
}
