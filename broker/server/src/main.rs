//! The command line of Waypost: `run` is the broker, the other commands prepare it or speak with it.

mod admin;
mod call;
mod cli;
mod commands;
mod failure;
mod files;
mod ingress;
mod input;
mod listener;
mod logging;
mod open_files;
mod present;
mod problem;
mod registry;
mod secret_sources;
mod shutdown;

use std::process::ExitCode;

use clap::Parser;

use self::cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 0 done, 1 a problem was found or the command failed, 2 wrong usage (by the argument parser).
fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(arguments) => commands::run::run(&arguments),
        Command::Check(arguments) => commands::check::check(&arguments),
        Command::Send(arguments) => commands::send::send(&arguments),
        Command::Status(arguments) => commands::status::status(&arguments),
        Command::Test(arguments) => commands::test::test(&arguments),
        Command::Explain(arguments) => commands::explain::explain(&arguments),
        Command::Dlq(command) => commands::dlq::dlq(&command),
        Command::Replay(command) => commands::replay::replay(&command),
        Command::Trigger(command) => commands::trigger::trigger(&command),
        Command::Tail(arguments) => commands::tail::tail(&arguments),
        Command::Log(command) => commands::log::log(&command),
        Command::Schema => commands::schema::schema(),
        Command::Completions { shell } => commands::completions::completions(shell),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
