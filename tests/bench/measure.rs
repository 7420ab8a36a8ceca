//! The commands `measure` and `show`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::figures::{Figures, Settings};
use crate::machine::Machine;
use crate::request::DATA_BYTES;
use crate::stage::{self, Log, Stage};
use crate::table::{Style, render};
use crate::{goals, idle, isolation, latency, rounds, startup};

/// The numbers of triggers that match every event.
const FAN_OUTS: [u32; 2] = [1, 10];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Raw limit and broker in alternating rounds: rate, CPU per event, memory.
    Throughput,
    /// Latency at half of the highest rate; needs the throughput.
    Latency,
    /// A healthy trigger beside failing ones.
    Isolation,
    /// Times from the start of the process until it is ready.
    Startup,
    /// Disk and memory of brokers that do nothing.
    Idle,
}

#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// The binary to measure; the one beside this one by default.
    #[arg(long, value_name = "PATH")]
    waypost: Option<PathBuf>,

    /// The parts to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["throughput", "latency", "isolation", "startup", "idle"])]
    parts: Vec<Part>,

    /// The logs to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["memory", "durable"])]
    logs: Vec<Log>,

    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// How long one measurement generates events.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// How long it does before, without being measured.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,

    /// Two rounds of a moment each: shows that the harness runs, not how fast anything is.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "warm_up"])]
    short: bool,

    /// The connections of the generator.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,

    /// Where data directories are made, each new; beside this binary by default. Take the disk that is to be measured.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Where the figures are written; waypost-bench.json beside this binary by default.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Print the tables as Markdown.
    #[arg(long)]
    markdown: bool,

    /// Exit with 1 when one of these goals is missed or was not measured; without names, when any that was measured is
    /// missed.
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 0.., value_parser = clap::builder::PossibleValuesParser::new(goals::NAMES))]
    check: Option<Vec<String>>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// What `measure` has written.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Print the tables as Markdown.
    #[arg(long)]
    markdown: bool,
}

/// Tells on the standard error how far it is.
pub(crate) fn progress(text: &str) {
    // Whoever does not want to know may close it.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

pub(crate) fn measure(arguments: &Measure) -> Result<ExitCode, Failure> {
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
    let mut figures = figures(arguments, &stage)?;
    figures.goals = goals::judge(&figures);

    let json = arguments.json.clone().unwrap_or_else(|| beside.join("waypost-bench.json"));
    let text = serde_json::to_string_pretty(&figures).expect("numbers and names can be written as JSON");
    std::fs::write(&json, text + "\n").map_err(Failure::io(format!("writing {}", json.display())))?;
    crate::print(&render(&figures, style(arguments.markdown)))?;
    progress(&format!("all figures are in {}", json.display()));
    Ok(arguments.check.as_deref().map_or(ExitCode::SUCCESS, |names| checked(&figures, names)))
}

pub(crate) fn show(arguments: &Show) -> Result<ExitCode, Failure> {
    let doing = format!("reading {}", arguments.file.display());
    let text = std::fs::read(&arguments.file).map_err(Failure::io(doing.clone()))?;
    let figures = serde_json::from_slice(&text).map_err(|error| Failure::io(doing)(error.into()))?;
    crate::print(&render(&figures, style(arguments.markdown)))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn style(markdown: bool) -> Style {
    if markdown { Style::Markdown } else { Style::Plain }
}

fn figures(arguments: &Measure, stage: &Stage) -> Result<Figures, Failure> {
    let (count, seconds, warm_up) = if arguments.short {
        (2, 0.5, 0.2)
    } else {
        (usize::from(arguments.rounds), arguments.seconds, arguments.warm_up)
    };
    let logs = &arguments.logs;
    let with = |part| arguments.parts.contains(&part);
    let mut figures = Figures {
        machine: Machine::look(&stage.scratch)?,
        settings: Settings {
            rounds: count,
            seconds,
            warm_up_seconds: warm_up,
            connections: stage.connections,
            batch: stage.batch,
            data_bytes: DATA_BYTES,
            waypost: version(&stage.waypost)?,
        },
        throughput: Vec::new(),
        latency: Vec::new(),
        isolation: Vec::new(),
        startup: Vec::new(),
        idle: Vec::new(),
        goals: Vec::new(),
    };
    if with(Part::Throughput) || with(Part::Latency) {
        figures.throughput = rounds::rounds(stage, logs, &FAN_OUTS, count, seconds, warm_up)?;
    }
    if with(Part::Latency) {
        figures.latency = latency::latency(stage, &figures.throughput, count, seconds, warm_up)?;
    }
    if with(Part::Isolation) {
        figures.isolation = isolation::isolation(stage, logs, count, seconds, warm_up)?;
    }
    if with(Part::Startup) {
        figures.startup = startup::startup(stage, logs, count, seconds)?;
    }
    if with(Part::Idle) {
        figures.idle = idle::idle(stage, logs, seconds)?;
    }
    Ok(figures)
}

/// What the binary says of itself.
pub(crate) fn version(waypost: &Path) -> Result<String, Failure> {
    let doing = format!("asking {} for its version", waypost.display());
    let output = Command::new(waypost).arg("--version").output().map_err(Failure::io(doing))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The goals with these names, or all without names.
fn checked(figures: &Figures, names: &[String]) -> ExitCode {
    let met = |name: &String| figures.goals.iter().any(|goal| goal.name == *name && goal.met);
    let all =
        if names.is_empty() { figures.goals.iter().all(|goal| goal.met) } else { names.iter().all(met) };
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
