//! The command `matcher`: how many events one thread matches with an index of triggers, and what the index costs.

mod mix;
mod trial;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum as _};
use serde::Serialize;

use crate::failure::Failure;
use crate::figures::Spread;
use crate::goals::{Goal, at_least, at_most};
use crate::machine::Machine;
use crate::measure::{progress, style};
use crate::table::{Table, grouped, spread};

use self::mix::Mix;
use self::trial::{Trial, bytes_per_trigger, trial};

/// The wildcards that are measured.
const WILDCARDS: usize = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The numbers of triggers.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 100_000, 1_000_000])]
    triggers: Vec<usize>,

    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// How long one round takes, in seconds of CPU time.
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

    /// Print only what an index of this mix and the first number of triggers takes: what the measurement itself starts a
    /// process for.
    #[arg(long, value_enum, hide = true)]
    memory_of: Option<Mix>,
}

/// An index of fewer triggers is too small for its memory to be told.
const COUNTED_FROM: usize = 10_000;

/// All that was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    machine: Machine,
    trials: Vec<Trial>,
    goals: Vec<Goal>,
}

pub(crate) fn measure(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let (Some(mix), Some(triggers)) = (arguments.memory_of, arguments.triggers.first()) {
        crate::print(&format!("{}\n", bytes_per_trigger(mix, *triggers)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let machine = Machine::look(&std::env::temp_dir())?;
    let cases = [Mix::Attributes, Mix::Data]
        .into_iter()
        .flat_map(|mix| arguments.triggers.iter().map(move |triggers| (mix, *triggers)))
        .chain([(Mix::Wildcards, WILDCARDS)]);
    let mut trials = Vec::new();
    for (mix, triggers) in cases {
        progress(&format!("{triggers} triggers, {}", mix.name()));
        let mut trial = trial(mix, triggers, usize::from(arguments.rounds), arguments.seconds);
        if triggers >= COUNTED_FROM {
            trial.bytes_per_trigger = Some(memory_of(mix, triggers)?);
        }
        trials.push(trial);
    }
    let goals = judge(&trials);
    let found = Found { machine, trials, goals };
    if let Some(json) = &arguments.json {
        let text = serde_json::to_string_pretty(&found).expect("numbers and names can be written as JSON");
        std::fs::write(json, text + "\n").map_err(Failure::io(format!("writing {}", json.display())))?;
    }
    let mut text = format!(
        "{} ({} cores), Linux {}. Load average before: {:.2}.\n\n",
        found.machine.cpu, found.machine.cores, found.machine.kernel, found.machine.load_before
    );
    for table in tables(&found) {
        table.write(style(arguments.markdown), &mut text);
        text.push('\n');
    }
    crate::print(&text)?;
    let missed = arguments.check && found.goals.iter().any(|goal| !goal.met);
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Asks a process of its own.
fn memory_of(mix: Mix, triggers: usize) -> Result<f64, Failure> {
    let bench = std::env::current_exe().map_err(Failure::io("finding this binary"))?;
    let mix = mix.to_possible_value().expect("no mix is skipped");
    let output = Command::new(bench)
        .args(["matcher", "--memory-of", mix.get_name(), "--triggers", &triggers.to_string()])
        .output()
        .map_err(Failure::io("measuring the memory of an index"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().map_err(|_| Failure::Protocol { what: "the memory of an index", detail: text })
}

/// What the figures are held against.
fn judge(trials: &[Trial]) -> Vec<Goal> {
    const RATES: [(Mix, usize, f64); 6] = [
        (Mix::Attributes, 10, 2e6),
        (Mix::Attributes, 1_000, 1e6),
        (Mix::Attributes, 100_000, 4e5),
        (Mix::Data, 1_000, 3e5),
        (Mix::Data, 100_000, 2e5),
        (Mix::Wildcards, WILDCARDS, 1.5e5),
    ];
    let mut goals = Vec::new();
    for trial in trials {
        let name = format!("{}-{}", trial.mix.replace(' ', "-"), trial.triggers);
        let wanted =
            RATES.iter().find(|(mix, triggers, _)| mix.name() == trial.mix && *triggers == trial.triggers);
        if let Some((_, _, rate)) = wanted {
            let sentence = format!(
                "{} triggers, {}: at least {} events/s",
                grouped(trial.triggers as f64, 0),
                trial.mix,
                grouped(*rate, 0)
            );
            goals.push(at_least(&name, &sentence, *rate, trial.rate().median));
        }
        if trial.triggers == 100_000 {
            let of = |what: &str| format!("100,000 triggers, {}: {what}", trial.mix);
            let build = trial.build_milliseconds;
            goals.push(at_most(&format!("{name}-build"), &of("built in under 1,000 ms"), 1e3, build));
            let change = trial.change_microseconds.p99;
            goals.push(at_most(
                &format!("{name}-change"),
                &of("99 % of changes in under 1,000 us"),
                1e3,
                change,
            ));
        }
        if let Some(bytes) = trial.bytes_per_trigger {
            let sentence = format!(
                "{} triggers, {}: at most 500 bytes each",
                grouped(trial.triggers as f64, 0),
                trial.mix
            );
            goals.push(at_most(&format!("{name}-bytes"), &sentence, 500.0, bytes));
        }
    }
    goals
}

impl Trial {
    fn rate(&self) -> Spread {
        Spread::of(self.events_per_second.clone())
    }
}

fn tables(found: &Found) -> [Table; 2] {
    let mut trials = Table::new(&[
        "triggers ask about",
        "triggers",
        "matches per event",
        "events/s",
        "one by one",
        "times as many",
        "build ms",
        "bytes per trigger",
        "change us: median",
        "p99",
        "highest",
        "events/s beside changes",
    ]);
    for trial in &found.trials {
        let rate = trial.rate();
        trials.rows.push(vec![
            trial.mix.clone(),
            grouped(trial.triggers as f64, 0),
            format!("{:.1}", trial.matches_per_event),
            spread(rate, 0),
            grouped(trial.naive_events_per_second, 0),
            grouped(rate.median / trial.naive_events_per_second, 1),
            grouped(trial.build_milliseconds, 1),
            trial.bytes_per_trigger.map_or_else(|| "-".to_owned(), |bytes| grouped(bytes, 0)),
            grouped(trial.change_microseconds.median, 0),
            grouped(trial.change_microseconds.p99, 0),
            grouped(trial.change_microseconds.highest, 0),
            grouped(trial.events_per_second_beside_changes, 0),
        ]);
    }
    let mut goals = Table::new(&["goal", "measured", ""]);
    for goal in &found.goals {
        let stands = if goal.met { "met" } else { "MISSED" };
        goals.rows.push(vec![goal.wanted.clone(), grouped(goal.measured, 0), stands.to_owned()]);
    }
    [trials, goals]
}

#[cfg(test)]
mod tests {
    use waypost_core::filter::Candidate;
    use waypost_core::filter::index::{Index, Scratch};

    use super::*;

    #[test]
    fn the_mix_is_as_it_says() {
        for mix in [Mix::Attributes, Mix::Data] {
            let filters = mix::filters(1_000, mix).unwrap();
            let events = mix::events(1_000);
            let index = Index::build((0..).zip(&filters));
            let mut scratch = Scratch::default();
            let mut matches = 0;
            for event in &events {
                index.matches(&Candidate::new(event), &mut scratch);
                matches += scratch.matched().len();
            }
            let per_event = matches as f64 / events.len() as f64;
            assert!((3.5..=5.5).contains(&per_event), "{per_event}");
            let size = events.iter().map(|event| event.size()).sum::<usize>() / events.len();
            assert!((550..=700).contains(&size), "{size}");
        }
    }

    #[test]
    fn goals_are_judged_by_the_figures() {
        let trial = trial(Mix::Wildcards, WILDCARDS, 1, 0.01);
        let goals = judge(&[trial.clone(), Trial { events_per_second: vec![1.0], ..trial }]);
        assert_eq!(goals.len(), 2);
        assert!(!goals[1].met);
    }
}
