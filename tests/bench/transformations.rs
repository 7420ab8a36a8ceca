//! The command `transformations`: how many events one thread transforms.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use waypost_core::Event;
use waypost_core::transformation::{Chain, Moment, OnError, Step, Transformed};

use crate::clock::{SECOND, now};
use crate::failure::Failure;
use crate::figures::Spread;
use crate::goals::{Goal, at_least};
use crate::machine::Machine;
use crate::measure::{progress, style};
use crate::table::{Table, grouped, spread};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// How long one round takes, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,

    /// Where the figures are written; nowhere by default.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Print the tables as Markdown.
    #[arg(long)]
    markdown: bool,

    /// Exit with 1 when a goal is missed.
    #[arg(long)]
    check: bool,
}

/// What is measured.
struct Case {
    name: &'static str,
    /// Each step: the type, and its settings.
    steps: Vec<(&'static str, Value)>,
    /// The rate of events in, or of those out.
    counts_out: bool,
    goal: f64,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trial {
    name: &'static str,
    data_bytes: usize,
    /// Events out of one in.
    outputs: usize,
    /// Of events in, or out, as the goal counts; one figure for each round.
    events_per_second: Vec<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    machine: Machine,
    trials: Vec<Trial>,
    goals: Vec<Goal>,
}

fn cases() -> Vec<Case> {
    let operation = |list: &str, operation: &str, key: &str, value: &str| {
        ("fields", json!({list: [{"operation": operation, "paths": [{"key": key, "value": value}]}]}))
    };
    let five = vec![
        operation("context", "add", "type", "com.example.order.changed"),
        operation("data", "add", "status", "accepted"),
        operation("data", "delete", "customer.email", ""),
        operation("data", "shift", "customer.name:name", ""),
        (
            "fields",
            json!({"data": [
                {"operation": "store", "paths": [{"key": "$id", "value": "id"}]},
                {"operation": "add", "paths": [{"key": "text", "value": "order $id is on its way"}]},
            ]}),
        ),
    ];
    vec![
        Case { name: "five steps of fields", steps: five, counts_out: false, goal: 120_000.0 },
        Case {
            name: "jsonpath split into ten",
            steps: vec![("jsonpath", json!({"split": {"path": "$.items", "type": "item"}}))],
            counts_out: true,
            goal: 1_000_000.0,
        },
        Case {
            name: "projection by jq",
            steps: vec![("jq", json!({"query": "{id, total, name: .customer.name, first: .items[0].sku}"}))],
            counts_out: false,
            goal: 100_000.0,
        },
    ]
}

/// An order with ten items: 1 KiB of JSON.
fn event() -> Event {
    let item = |number: u32| json!({"sku": format!("SKU-{number:06}"), "quantity": number, "price": 12.5, "gift": false});
    let items: Vec<Value> = (0..10).map(item).collect();
    let mut data = json!({
        "id": 4711, "placed": "2026-11-21T12:00:00Z", "items": items, "total": 125.0,
        "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "tier": "gold"},
    });
    let missing = 1_024_usize.saturating_sub(data.to_string().len() + r#","note":"""#.len());
    data["note"] = json!("x".repeat(missing));
    Event::builder("4711", "/shop", "com.example.order.placed")
        .time("2026-11-21T12:00:00Z")
        .subject("orders/4711")
        .json_data(data.to_string())
        .build()
        .expect("the event is valid")
}

fn chain(case: &Case) -> Chain {
    let steps = case.steps.iter().enumerate().map(|(number, (kind, settings))| {
        let row = waypost_transformations::TRANSFORMATIONS.iter().find(|row| row.name == *kind);
        let transformation = row.and_then(|row| (row.configure)(settings).ok());
        let transformation = transformation.expect("the types are built in, and the settings valid");
        Step { name: format!("transformations[{number}] ({kind})"), transformation, on_error: OnError::Fail }
    });
    Chain::new(steps.collect())
}

fn trial(case: &Case, rounds: usize, seconds: f64) -> Trial {
    let (chain, event) = (chain(case), event());
    let apply = || match chain.apply(&event, Moment { arrived_nanoseconds: 0 }) {
        Ok(Transformed::Events(events)) => std::hint::black_box(events).len(),
        other => unreachable!("the chain makes events of this event: {other:?}"),
    };
    let outputs = apply();
    let round = || {
        let (started, mut transformed) = (now(), 0_u64);
        loop {
            for _ in 0..64 {
                apply();
            }
            transformed += 64;
            let passed = (now() - started) as f64 / SECOND as f64;
            if passed >= seconds {
                let counted = if case.counts_out { transformed * outputs as u64 } else { transformed };
                return counted as f64 / passed;
            }
        }
    };
    // The first one warms up.
    let events_per_second = (0..=rounds).map(|_| round()).skip(1).collect();
    Trial {
        name: case.name,
        data_bytes: event.data_bytes().map_or(0, <[u8]>::len),
        outputs,
        events_per_second,
    }
}

pub(crate) fn measure(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let machine = Machine::look(&std::env::temp_dir())?;
    let (mut trials, mut goals) = (Vec::new(), Vec::new());
    for case in cases() {
        progress(case.name);
        let trial = trial(&case, usize::from(arguments.rounds), arguments.seconds);
        let way = if case.counts_out { "out" } else { "in" };
        let wanted = format!("{}: at least {} events/s {way}", case.name, grouped(case.goal, 0));
        let rate = Spread::of(trial.events_per_second.clone()).median;
        goals.push(at_least(&case.name.replace(' ', "-"), &wanted, case.goal, rate));
        trials.push(trial);
    }
    let found = Found { machine, trials, goals };
    if let Some(json) = &arguments.json {
        let text = serde_json::to_string_pretty(&found).expect("numbers and names can be written as JSON");
        std::fs::write(json, text + "\n").map_err(Failure::io(format!("writing {}", json.display())))?;
    }
    let mut text = format!(
        "{} ({} cores), Linux {}. Load average before: {:.2}.\n\n",
        found.machine.cpu, found.machine.cores, found.machine.kernel, found.machine.load_before
    );
    let mut table =
        Table::new(&["transformation", "data bytes", "events out of one", "events/s", "goal", ""]);
    for (trial, goal) in found.trials.iter().zip(&found.goals) {
        let rate = Spread::of(trial.events_per_second.clone());
        let stands = if goal.met { "met" } else { "MISSED" };
        table.rows.push(vec![
            trial.name.to_owned(),
            trial.data_bytes.to_string(),
            trial.outputs.to_string(),
            spread(rate, 0),
            goal.wanted.clone(),
            stands.to_owned(),
        ]);
    }
    table.write(style(arguments.markdown), &mut text);
    crate::print(&text)?;
    let missed = arguments.check && found.goals.iter().any(|goal| !goal.met);
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases_are_as_they_say() {
        let outputs: Vec<usize> = cases().iter().map(|case| trial(case, 1, 0.001).outputs).collect();
        assert_eq!(outputs, [1, 10, 1]);
        let data = event().data_bytes().map_or(0, <[u8]>::len);
        assert_eq!(data, 1_024);
    }
}
