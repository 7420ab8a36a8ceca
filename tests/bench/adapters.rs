//! The command `adapters`: how fast sources and sinks are beside what their systems give without Waypost, or beside one
//! event in each request. Everything is a ratio within one run against real servers; both sides take turns.

mod kafka;
mod requests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::kafka::Records;
use crate::clock::{self, SECOND};
use crate::failure::Failure;
use crate::figures::Spread;
use crate::goals::{Goal, at_least};
use crate::machine::Machine;
use crate::measure::{progress, style, version};
use crate::stage::{self, Generator, INGRESS_PATH, Load, Log, Stage, Waypost};
use crate::table::{Table, grouped, spread};

/// How often it is asked how far the broker is.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long there may be no progress before a run counts as failed.
const PROGRESS_LIMIT_SECONDS: u64 = 30;

/// The metric that counts what the logs took.
const RECEIVED: &str = "waypost_events_received_total";

/// The metric that counts deliveries that succeeded.
const DELIVERED: &str = "kn_eventing_dispatch_duration_seconds_count";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Adapter {
    /// The Kafka source beside the same client that reads and drops.
    KafkaSource,
    /// The same with records that carry no CloudEvent.
    KafkaSourcePlain,
    /// The Kafka sink beside a bare producer of the same client.
    KafkaSink,
    /// Documents in bulk requests of many beside requests of one.
    Elasticsearch,
    /// Objects of many events beside objects of one.
    S3,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The binary to measure; the one beside this one by default.
    #[arg(long, value_name = "PATH")]
    waypost: Option<PathBuf>,

    /// The adapters to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["kafka-source", "kafka-source-plain", "kafka-sink", "elasticsearch", "s3"])]
    adapters: Vec<Adapter>,

    /// How often each is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// How many records the Kafka source reads.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    records: u32,

    /// For how many seconds events are taken before a sink drains them, and single requests are made.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,

    /// One round of a moment: shows that the harness runs, and nothing else.
    #[arg(long, conflicts_with_all = ["rounds", "records", "seconds"])]
    short: bool,

    /// Where data directories are made, each new; beside this binary by default. Take the disk that is to be measured.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Where the figures are written; nowhere by default.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Print the tables as Markdown.
    #[arg(long)]
    markdown: bool,

    /// Exit with 1 when a goal is missed, or a server is not there.
    #[arg(long)]
    check: bool,
}

/// How often and for how long.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    rounds: u16,
    records: u32,
    seconds: f64,
}

/// What was found of an adapter: events per second, one figure for each round.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trial {
    name: &'static str,
    /// What it is held against.
    beside: &'static str,
    /// What its rate is to be at least, as a multiple of the other.
    wanted_ratio: f64,
    other: Vec<f64>,
    ours: Vec<f64>,
}

impl Trial {
    fn ratio(&self) -> Spread {
        Spread::of(self.ours.iter().zip(&self.other).map(|(ours, other)| ours / other).collect())
    }

    fn goal(&self) -> Goal {
        let name = self.name.to_lowercase().replace(' ', "-");
        let wanted =
            format!("{}: at least {} times the rate of {}", self.name, self.wanted_ratio, self.beside);
        at_least(&name, &wanted, self.wanted_ratio, self.ratio().median)
    }

    /// Measures both sides, each round in the other order.
    fn measure(
        mut self,
        settings: Settings,
        mut other: impl FnMut(u16) -> Result<f64, Failure>,
        mut ours: impl FnMut(u16) -> Result<f64, Failure>,
    ) -> Result<Self, Failure> {
        for round in 0..settings.rounds {
            if round % 2 == 0 {
                self.other.push(other(round)?);
                self.ours.push(ours(round)?);
            } else {
                self.ours.push(ours(round)?);
                self.other.push(other(round)?);
            }
            let last = |all: &[f64]| all.last().copied().unwrap_or_default();
            progress(&format!(
                "{}, round {}: {:.0} events/s beside {:.0}",
                self.name,
                round + 1,
                last(&self.ours),
                last(&self.other)
            ));
        }
        Ok(self)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    machine: Machine,
    waypost: String,
    settings: Settings,
    trials: Vec<Trial>,
    /// The adapters whose servers are not installed.
    skipped: Vec<String>,
    goals: Vec<Goal>,
}

pub(crate) fn measure(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let bench = std::env::current_exe().map_err(Failure::io("finding this binary"))?;
    let beside = bench.parent().unwrap_or(Path::new(".")).to_owned();
    let scratch = tempfile::Builder::new()
        .prefix("waypost-bench-")
        .tempdir_in(arguments.scratch.as_ref().unwrap_or(&beside))
        .map_err(Failure::io("making a directory for data"))?;
    let stage = Stage {
        waypost: arguments.waypost.clone().unwrap_or_else(|| beside.join("waypost")),
        bench,
        scratch: scratch.path().to_owned(),
        connections: 64,
        batch: stage::can_batch(),
    };
    let settings = if arguments.short {
        Settings { rounds: 1, records: 5_000, seconds: 0.5 }
    } else {
        Settings { rounds: arguments.rounds, records: arguments.records, seconds: arguments.seconds }
    };
    let mut found = Found {
        machine: Machine::look(&stage.scratch)?,
        waypost: version(&stage.waypost)?,
        settings,
        trials: Vec::new(),
        skipped: Vec::new(),
        goals: Vec::new(),
    };
    let runtime = Runtime::new().map_err(Failure::io("starting a runtime for the servers"))?;
    for adapter in &arguments.adapters {
        let trial = match adapter {
            Adapter::KafkaSource => kafka::source(&stage, &runtime, settings, Records::Events)?,
            Adapter::KafkaSourcePlain => kafka::source(&stage, &runtime, settings, Records::Plain)?,
            Adapter::KafkaSink => kafka::sink(&stage, &runtime, settings)?,
            Adapter::Elasticsearch => requests::elasticsearch(&stage, &runtime, settings)?,
            Adapter::S3 => requests::s3(&stage, &runtime, settings)?,
        };
        match trial {
            Some(trial) => found.trials.push(trial),
            None => found.skipped.push(format!("{adapter:?}")),
        }
    }
    found.goals = found.trials.iter().map(Trial::goal).collect();
    if let Some(json) = &arguments.json {
        let text = serde_json::to_string_pretty(&found).expect("numbers and names can be written as JSON");
        std::fs::write(json, text + "\n").map_err(Failure::io(format!("writing {}", json.display())))?;
    }
    crate::print(&text(&found, arguments.markdown))?;
    let missed = !found.skipped.is_empty() || found.goals.iter().any(|goal| !goal.met);
    Ok(if arguments.check && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(found: &Found, markdown: bool) -> String {
    let Machine { cpu, cores, kernel, load_before, .. } = &found.machine;
    let mut text = format!(
        "{} on {cpu} ({cores} cores), Linux {kernel}. Load average before: {load_before:.2}. {} rounds.\n\n",
        found.waypost, found.settings.rounds
    );
    let mut table = Table::new(&["adapter", "events/s", "beside", "events/s", "ratio", "goal", ""]);
    for (trial, goal) in found.trials.iter().zip(&found.goals) {
        table.rows.push(vec![
            trial.name.to_owned(),
            spread(Spread::of(trial.ours.clone()), 0),
            trial.beside.to_owned(),
            spread(Spread::of(trial.other.clone()), 0),
            spread(trial.ratio(), 2),
            grouped(trial.wanted_ratio, 1),
            if goal.met { "met" } else { "MISSED" }.to_owned(),
        ]);
    }
    table.write(style(markdown), &mut text);
    for skipped in &found.skipped {
        text.push_str(&format!(
            "\n!!! SKIPPED: {skipped}: its server is not installed: run tests/servers/install\n"
        ));
    }
    text
}

/// A resource of the native group in the namespace that the generator sends to.
fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({"namespace": "bench", "name": name});
    json!({"apiVersion": "waypost.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// A broker, and more.
fn with_broker(more: &[Value]) -> String {
    let broker = resource("Broker", "default", &json!({}));
    std::iter::once(&broker).chain(more).map(|document| format!("---\n{document:#}\n")).collect()
}

/// A broker with a sink and a trigger that sends all to it, or holds all for now.
fn with_sink(sink: &Value, paused: bool) -> String {
    let to = json!({"ref": {"apiVersion": "waypost.dev/v1alpha1", "kind": "Sink", "name": "out"}});
    let trigger = json!({"broker": "default", "subscriber": to, "paused": paused});
    with_broker(&[resource("Trigger", "all", &trigger), resource("Sink", "out", sink)])
}

/// Events per second while a metric grows to `all`; what it says at the first look does not count, nor the time before.
fn rate_of(waypost: &Waypost, metric: &str, all: u64) -> Result<f64, Failure> {
    let mut first = None;
    let (mut last, mut progress) = (0, clock::now());
    loop {
        let count = waypost.metric(metric)?;
        let now = clock::now();
        if count > last {
            (last, progress) = (count, now);
        }
        let (begun, before) = match first {
            None if count > 0 => *first.insert((now, count)),
            None => (now, count),
            Some(first) => first,
        };
        if count >= all {
            let passed = (now - begun).max(1) as f64 / SECOND as f64;
            return Ok((count - before) as f64 / passed);
        }
        if now > progress + PROGRESS_LIMIT_SECONDS * SECOND {
            let detail = format!("`{metric}` stays at {count} of {all}: {}", waypost.log_tail());
            return Err(Failure::Protocol { what: "Waypost", detail });
        }
        clock::pause(LOOK_INTERVAL);
    }
}

/// How fast a sink drains a backlog, and how many events that was.
fn drained(stage: &Stage, sink: &Value, seconds: f64) -> Result<(f64, u64), Failure> {
    let waypost = Waypost::start(stage, Log::Durable, &with_sink(sink, true))?;
    let load = Load { seconds, rate: None, run: 1, types: None };
    let connections = u64::from(stage.connections);
    let generated = Generator::start(stage, waypost.ingress, INGRESS_PATH, load, connections)?.ended()?;
    if generated.accepted == 0 {
        let detail = format!("refused {:?}, unanswered {}", generated.refused, generated.unanswered);
        return Err(Failure::NothingAccepted { case: "a backlog for a sink".to_owned(), detail });
    }
    waypost.rewrite(&with_sink(sink, false))?;
    Ok((rate_of(&waypost, DELIVERED, generated.accepted)?, generated.accepted))
}
