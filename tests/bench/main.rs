//! Measures Waypost against the raw limit of the machine: the same generator straight into the same subscriber.
//!
//! One binary plays all parts, each in a process of its own, so that the CPU of each can be told apart:
//!
//! - `waypost-bench generate` sends events over plain sockets, as fast as they are accepted or at a constant rate.
//! - `waypost-bench subscribe` takes them, counts them and measures how long they were on their way.
//! - `waypost-bench measure` starts these and `waypost`, and writes what it found as JSON and as a table.
//! - `waypost-bench matcher` measures the matching of events by itself, in this process.
//! - `waypost-bench triggers` measures what many triggers of a running broker cost beside few.
//! - `waypost-bench adapters` measures sources and sinks against real servers.
//! - `waypost-bench transformations` measures transformations by themselves, in this process.
//! - `waypost-bench show` prints the table of an earlier measurement again.
//!
//! `tests/bench/run.sh` builds everything and measures. Nothing here is a test: times depend on the machine.

mod adapters;
mod clock;
mod connection;
mod failure;
mod figures;
mod generate;
mod goals;
mod histogram;
mod idle;
mod isolation;
mod latency;
mod machine;
mod matcher;
mod measure;
mod procfs;
mod request;
mod rounds;
mod stage;
mod startup;
mod subscribe;
mod table;
mod tally;
mod transformations;
mod triggers;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Measures Waypost: throughput, CPU per event, latency, isolation, start and idle cost.
#[derive(Debug, Parser)]
#[command(name = "waypost-bench", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure everything, or some parts of it.
    Measure(measure::Measure),
    /// Measure the matching of events by itself: one thread, events that are decoded already.
    Matcher(matcher::Arguments),
    /// Measure many triggers on a running broker beside few: start, latency, rate, and a host that is down.
    Triggers(triggers::Arguments),
    /// Measure transformations by themselves: one thread, events of 1 KiB of JSON.
    Transformations(transformations::Arguments),
    /// Measure sources and sinks against real servers: beside bare clients, and batches beside single requests.
    Adapters(adapters::Arguments),
    /// Print the table of an earlier measurement.
    Show(measure::Show),
    /// Send events to a server until the time is over, then print one line of JSON.
    Generate(generate::Generate),
    /// Take events; answers the lines `count`, `report`, `listen` and `reset RUN` on stdin with a line of JSON each.
    Subscribe(subscribe::Subscribe),
}

/// That of the product: what is measured in this process is measured as it runs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Measure(arguments) => measure::measure(&arguments),
        Command::Matcher(arguments) => matcher::measure(&arguments),
        Command::Triggers(arguments) => triggers::measure(&arguments),
        Command::Transformations(arguments) => transformations::measure(&arguments),
        Command::Adapters(arguments) => adapters::measure(&arguments),
        Command::Show(arguments) => measure::show(&arguments),
        Command::Generate(arguments) => generate::generate(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Subscribe(arguments) => subscribe::subscribe(&arguments).map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|failure| {
        let _ = writeln!(std::io::stderr().lock(), "waypost-bench: {failure}");
        ExitCode::FAILURE
    })
}

/// Prints to the standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).map_err(Failure::io("writing to the standard output"))?;
    output.flush().map_err(Failure::io("writing to the standard output"))
}
