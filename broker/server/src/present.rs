//! What people read: problems, and what `run` has loaded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;
use waypost_core::codes;
use waypost_core::manifest::Problem;
use waypost_engine::plan::{DeclaredState, Plan};

use crate::failure::Failure;

/// A value as indented JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("what is printed has text for keys") + "\n"
}

/// Writes to stdout. A closed pipe is no failure: the reader has seen enough.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(codes::OUTPUT_UNWRITABLE, format!("stdout cannot be written to: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr. Where that is gone there is nobody left to tell.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Problems, one after the other, and their number.
pub(crate) fn problems(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        let _infallible = writeln!(text, "{problem}");
    }
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let _infallible =
        writeln!(text, "{}, {}", count(errors, "error"), count(problems.len() - errors, "warning"));
    text
}

/// What a plan holds, such as `1 Broker, 2 Triggers`.
pub(crate) fn resources(plan: &Plan) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for declared in plan.declared.iter().filter(|declared| declared.state != DeclaredState::Detached) {
        *kinds.entry(&declared.id.kind).or_default() += 1;
    }
    if kinds.is_empty() {
        return "nothing".to_owned();
    }
    let kinds: Vec<String> = kinds.into_iter().map(|(kind, number)| count(number, kind)).collect();
    kinds.join(", ")
}

/// Where a running process is reached.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) ingress: std::net::SocketAddr,
    pub(crate) admin: std::net::SocketAddr,
}

/// The most brokers that the welcome lists.
const LISTED_BROKERS: usize = 10;

/// What `run` shows on a terminal when it is ready.
pub(crate) fn welcome(plan: &Plan, addresses: &Addresses) -> String {
    let Addresses { ingress, admin } = addresses;
    let mut text = format!(
        "\nWaypost {} is ready\n  loaded   {}\n  events   http://{ingress}\n  admin    http://{admin}\n  log      in \
         memory: what is not delivered is lost with this process\n",
        env!("CARGO_PKG_VERSION"),
        resources(plan),
    );
    let brokers: Vec<_> = plan.brokers.iter().filter(|(_, broker)| !broker.implicit).collect();
    for (name, _) in brokers.iter().take(LISTED_BROKERS) {
        let _infallible = writeln!(text, "  broker   POST http://{ingress}/{}/{}", name.namespace, name.name);
    }
    if brokers.len() > LISTED_BROKERS {
        let _infallible =
            writeln!(text, "  broker   and {} more: waypost status", brokers.len() - LISTED_BROKERS);
    }
    text.push('\n');
    text
}

/// A number with its noun, such as `1 error` or `2 Triggers`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The items of an answer's list; none where it is no list.
pub(crate) fn rows(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// A value of an answer as text; nothing for what is not there.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Columns of text, each as wide as its widest cell. Cells hold foreign text, so control characters are made visible.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&header).chain(&rows);
        cells.filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _infallible = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Foreign text with its control characters made visible.
pub(crate) fn visible(cell: &str) -> String {
    if cell.chars().any(char::is_control) { cell.escape_debug().to_string() } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "é\u{1b}".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME    N\na       1\nlonger  é\\u{1b}\n");
    }

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!(count(1, "error"), "1 error");
        assert_eq!(count(0, "error"), "0 errors");
    }
}
