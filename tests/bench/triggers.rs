//! The command `triggers`: what many triggers on a running broker cost beside few. Everything is a ratio or a difference
//! within one run; few and many take turns.

mod crowd;
mod down;
mod manifests;
mod pair;
mod rate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::crowd::Crowd;
use self::down::Down;
use self::pair::Pair;
use self::rate::Rate;
use crate::failure::Failure;
use crate::figures::Spread;
use crate::goals::{Goal, at_least, at_most};
use crate::machine::Machine;
use crate::measure::{style, version};
use crate::stage::{self, Stage};
use crate::table::{Table, grouped};

/// What many triggers are held against.
const FEW: u32 = 10;

/// How many triggers there are beside the one that matches where the rate is measured.
const RATE_TRIGGERS: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Start from one file, clean stop, second start, memory, and the latency of events that match one trigger each.
    Start,
    /// The highest rate with 1,000 triggers of which one matches.
    Rate,
    /// The CPU of triggers whose subscribers are all behind one host that refuses connections.
    Down,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The binary to measure; the one beside this one by default.
    #[arg(long, value_name = "PATH")]
    waypost: Option<PathBuf>,

    /// The parts to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["start", "rate", "down"])]
    parts: Vec<Part>,

    /// How many triggers many are.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(i64::from(FEW)..))]
    triggers: u32,

    /// How often everything is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// How long latency and rate are measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// How long before, without being measured.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,

    /// Events per second while latency is measured.
    #[arg(long, default_value_t = 500.0)]
    latency_rate: f64,

    /// Events per second for the host that is down.
    #[arg(long, default_value_t = 10_000.0)]
    down_rate: f64,

    /// How long they come, in seconds.
    #[arg(long, default_value_t = 60.0)]
    down_seconds: f64,

    /// One round of a moment with 2,000 triggers: shows that the harness runs, and nothing else.
    #[arg(long, conflicts_with_all = ["triggers", "rounds", "seconds", "warm_up", "latency_rate", "down_rate", "down_seconds"])]
    short: bool,

    /// The connections of the generator.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,

    /// Where data directories are made, each new; beside this binary by default. Take the disk that is to be measured.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

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

/// What is measured how often and for how long.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    triggers: u32,
    rounds: u16,
    seconds: f64,
    warm_up_seconds: f64,
    latency_rate: f64,
    down_rate: f64,
    down_seconds: f64,
}

impl Settings {
    fn of(arguments: &Arguments) -> Self {
        if arguments.short {
            return Self {
                triggers: 2_000,
                rounds: 1,
                seconds: 0.5,
                warm_up_seconds: 0.2,
                latency_rate: 200.0,
                down_rate: 500.0,
                down_seconds: 2.0,
            };
        }
        Self {
            triggers: arguments.triggers,
            rounds: arguments.rounds,
            seconds: arguments.seconds,
            warm_up_seconds: arguments.warm_up,
            latency_rate: arguments.latency_rate,
            down_rate: arguments.down_rate,
            down_seconds: arguments.down_seconds,
        }
    }
}

/// All that was found. Parts that were not asked for are absent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    machine: Machine,
    waypost: String,
    settings: Settings,
    start: Option<Pair<Crowd>>,
    rate: Option<Pair<Rate>>,
    down: Option<Pair<Down>>,
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
        connections: arguments.connections,
        batch: stage::can_batch(),
    };
    let found = find(&stage, Settings::of(arguments), &arguments.parts)?;
    if let Some(json) = &arguments.json {
        let text = serde_json::to_string_pretty(&found).expect("numbers and names can be written as JSON");
        std::fs::write(json, text + "\n").map_err(Failure::io(format!("writing {}", json.display())))?;
    }
    let mut text = heading(&found);
    for table in tables(&found) {
        text.push('\n');
        table.write(style(arguments.markdown), &mut text);
    }
    crate::print(&text)?;
    let missed = arguments.check && found.goals.iter().any(|goal| !goal.met);
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn find(stage: &Stage, settings: Settings, parts: &[Part]) -> Result<Found, Failure> {
    let with = |part| parts.contains(&part);
    let Settings { triggers: many, rounds, .. } = settings;
    let mut found = Found {
        machine: Machine::look(&stage.scratch)?,
        waypost: version(&stage.waypost)?,
        settings,
        start: None,
        rate: None,
        down: None,
        goals: Vec::new(),
    };
    if with(Part::Start) {
        found.start =
            Some(Pair::measure(FEW, many, rounds, |triggers| crowd::crowd(stage, triggers, settings))?);
    }
    if with(Part::Rate) {
        let most = RATE_TRIGGERS.min(many);
        found.rate = Some(Pair::measure(1, most, rounds, |triggers| rate::rate(stage, triggers, settings))?);
    }
    if with(Part::Down) {
        found.down = Some(Pair::measure(1, many, rounds, |triggers| down::down(stage, triggers, settings))?);
    }
    found.goals = judge(&found);
    Ok(found)
}

/// What the figures are held against.
fn judge(found: &Found) -> Vec<Goal> {
    let mut goals = Vec::new();
    if let Some(start) = &found.start {
        let many = grouped(f64::from(start.many_triggers), 0);
        for (name, what, figure) in [
            ("start", "start", (|crowd| crowd.start_milliseconds) as fn(&Crowd) -> f64),
            ("second-start", "second start", |crowd| crowd.second_start_milliseconds),
        ] {
            let measured = Spread::of(start.many.iter().map(figure).collect()).median;
            goals.push(at_most(
                name,
                &format!("{what} with {many} triggers under 5,000 ms"),
                5_000.0,
                measured,
            ));
        }
        let more = start.compare(Crowd::p99_milliseconds, |few, many| many - few).median;
        let wanted = format!("p99 with {many} triggers at most 5 ms above that with {}", start.few_triggers);
        goals.push(at_most("latency", &wanted, 5.0, more));
    }
    if let Some(rate) = &found.rate {
        let ratio = rate.compare(Rate::events_per_second, |few, many| many / few).median;
        let many = grouped(f64::from(rate.many_triggers), 0);
        let wanted = format!("{many} triggers of which one matches: at least 0.9 times the rate of one");
        goals.push(at_least("rate", &wanted, 0.9, ratio));
    }
    if let Some(down) = &found.down {
        let ratio = down.compare(Down::cpu_microseconds_per_event, |few, many| many / few).median;
        let many = grouped(f64::from(down.many_triggers), 0);
        let wanted =
            format!("one of {many} triggers behind a host that is down: at most twice the CPU of one such");
        goals.push(at_most("down", &wanted, 2.0, ratio));
    }
    goals
}

fn heading(found: &Found) -> String {
    let Machine { cpu, cores, kernel, load_before, .. } = &found.machine;
    let Settings { rounds, seconds, warm_up_seconds, .. } = found.settings;
    format!(
        "{} on {cpu} ({cores} cores), Linux {kernel}. Load average before: {load_before:.2}. {rounds} rounds of \
         {seconds} s after {warm_up_seconds} s to warm up.\n",
        found.waypost
    )
}

fn tables(found: &Found) -> Vec<Table> {
    let start = found.start.as_ref().map(|start| start.table(&crowd::COLUMNS));
    let rate = found.rate.as_ref().map(|rate| rate.table(&rate::COLUMNS));
    let down = found.down.as_ref().map(|down| down.table(&down::COLUMNS));
    let mut goals = Table::new(&["goal", "measured", ""]);
    for goal in &found.goals {
        let stands = if goal.met { "met" } else { "MISSED" };
        goals.rows.push(vec![goal.wanted.clone(), grouped(goal.measured, 2), stands.to_owned()]);
    }
    [start, rate, down].into_iter().flatten().chain([goals]).collect()
}
