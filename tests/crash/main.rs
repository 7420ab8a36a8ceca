//! Tests of the whole process that take it down: kills, loss of power, storage that fails or is full, damage, and a
//! backlog of millions of events. Each is a command; `docs/testing.md` describes them.
//!
//! The exit code is 0 where all held, and where a part could not be tested and said so; else 1.

mod away;
mod backlog;
mod broker;
mod chance;
mod damage;
mod event;
mod explained;
mod failure;
mod faults;
mod kills;
mod load;
mod manifests;
mod order;
mod power;
mod redrive;
mod strace;
mod subscriber;
mod waiting;
mod wire;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Takes Waypost down in many ways, and looks whether anything acknowledged is lost.
#[derive(Debug, Parser)]
#[command(name = "waypost-crash", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where data is kept meanwhile; a directory of its own is made in it, and kept where a test fails.
    #[arg(long, global = true)]
    directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill the process under load again and again, on the same data.
    Kills(kills::Kills),
    /// Kill the process at every write of a small script, each time on fresh data.
    Writes(kills::Writes),
    /// Take the power away under load; needs root and loop devices.
    PowerLoss(power::PowerLoss),
    /// Have writes, syncs and allocations fail under load; needs strace.
    Faults(faults::Faults),
    /// Fill the storage while a subscriber is away.
    Full(faults::Full),
    /// Damage stored data at sampled places, and start on it.
    Damage(damage::Damage),
    /// Kill the process again and again while a trigger keeps the order of keys.
    Order(order::Order),
    /// Have very many events arrive for a destination that is away, and bring it back.
    Away(away::Away),
    /// Let very many deliveries wait for their next attempt, kill the process, and wait for them.
    Waiting(waiting::Waiting),
    /// Let millions of events wait, start, and deliver them.
    Backlog(backlog::Backlog),
    /// Kill the process in the middle of a redrive of very many dead letters.
    Redrive(redrive::Redrive),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let parent = cli.directory.unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new()
        .prefix("waypost-crash-")
        .tempdir_in(parent)
        .map_err(Failure::io("making a directory"))?;
    let path = directory.path();
    let ended = match &cli.command {
        Command::Kills(arguments) => kills::kills(arguments, path),
        Command::Writes(arguments) => kills::writes(arguments, path),
        Command::PowerLoss(arguments) => power::power_loss(arguments, path),
        Command::Faults(arguments) => faults::faults(arguments, path),
        Command::Full(arguments) => faults::full(arguments, path),
        Command::Damage(arguments) => damage::damage(arguments, path),
        Command::Order(arguments) => order::order(arguments, path),
        Command::Away(arguments) => away::away(arguments, path),
        Command::Waiting(arguments) => waiting::waiting(arguments, path),
        Command::Backlog(arguments) => backlog::backlog(arguments, path),
        Command::Redrive(arguments) => redrive::redrive(arguments, path),
    };
    if ended.is_err() {
        note(&format!("what the test left is in {}", directory.keep().display()));
    }
    ended
}

/// Prints a result.
fn report(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).map_err(Failure::io("writing to the standard output"))?;
    output.flush().map_err(Failure::io("writing to the standard output"))
}

/// Says something to whoever looks on.
fn note(text: &str) {
    // Nobody need look on.
    drop(writeln!(std::io::stderr().lock(), "waypost-crash: {text}"));
}
