//! What the figures are held against. Ratios, where they can be: then another machine may judge too.

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::isolation;
use crate::rounds::{Case, Throughput};
use crate::stage::Log;

/// A goal, and how it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Goal {
    /// As `--check` takes it.
    pub(crate) name: String,
    /// What is wanted, in words.
    pub(crate) wanted: String,
    pub(crate) measured: f64,
    pub(crate) met: bool,
}

/// The names of all goals.
pub(crate) const NAMES: [&str; 15] = [
    "durable-throughput",
    "durable-cpu",
    "durable-cpu-ratio",
    "fan-out",
    "start-empty",
    "start-killed",
    "isolation-memory",
    "isolation-durable",
    "held-away-memory",
    "held-back-memory",
    "held-away-durable",
    "held-back-durable",
    "idle-disk",
    "idle-memory",
    "idle-one",
];

pub(crate) fn at_most(name: &str, wanted: &str, limit: f64, measured: f64) -> Goal {
    Goal { name: name.to_owned(), wanted: wanted.to_owned(), measured, met: measured <= limit }
}

pub(crate) fn at_least(name: &str, wanted: &str, limit: f64, measured: f64) -> Goal {
    Goal { name: name.to_owned(), wanted: wanted.to_owned(), measured, met: measured >= limit }
}

/// All goals for which there are figures.
pub(crate) fn judge(figures: &Figures) -> Vec<Goal> {
    let mut goals = throughput(&figures.throughput);
    for startup in figures.startup.iter().filter(|startup| startup.log == Log::Durable) {
        goals.push(at_most("start-empty", "start on empty data under 100 ms", 100.0, startup.empty().median));
        if let Some(killed) = startup.killed() {
            goals.push(at_most("start-killed", "start after kill -9 under 300 ms", 300.0, killed.median));
        }
    }
    for measured in &figures.isolation {
        let alone = isolation::p99(&measured.alone).median;
        let limit = (alone * 1.5).max(alone + 2_000.0);
        goals.push(at_most(
            &format!("isolation-{}", measured.log.name()),
            &format!(
                "{}: p99 beside failing subscribers at most 1.5 times that alone, or 2 ms more: {limit:.0} us",
                measured.log.name()
            ),
            limit,
            isolation::p99(&measured.beside).median,
        ));
        for (when, rounds) in [("away", &measured.away), ("back", &measured.back)] {
            if rounds.is_empty() {
                continue;
            }
            goals.push(at_most(
                &format!("held-{when}-{}", measured.log.name()),
                &format!(
                    "{}: p99 beside a held subscriber that is {when} at most 1.5 times that alone, or 2 ms more: \
                     {limit:.0} us",
                    measured.log.name()
                ),
                limit,
                isolation::p99(rounds).median,
            ));
        }
    }
    for idle in figures.idle.iter().filter(|idle| idle.log == Log::Durable) {
        let mebibytes = idle.resident_kibibytes as f64 / 1024.0;
        if idle.brokers == 1 {
            goals.push(at_most("idle-one", "one idle broker under 30 MiB of memory", 30.0, mebibytes));
        } else {
            let disk = idle.disk_bytes as f64 / 1e6;
            goals.push(at_most("idle-disk", "300 idle brokers under 300 MB of disk", 300.0, disk));
            goals.push(at_most("idle-memory", "300 idle brokers under 60 MiB of memory", 60.0, mebibytes));
        }
    }
    goals
}

fn throughput(all: &[Throughput]) -> Vec<Goal> {
    let find = |case: Case| all.iter().find(|measured| measured.case == case);
    let mut goals = Vec::new();
    if let (Some(raw), Some(durable)) = (find(Case::RAW), find(Case { log: Some(Log::Durable), fan_out: 1 }))
    {
        let share = durable.ratio(raw, |run| run.deliveries_per_second).median * 100.0;
        goals.push(at_least("durable-throughput", "durable at least 30 % of the raw limit", 30.0, share));
        let cpu = durable.spread(|run| run.cpu_per_event.waypost).median;
        goals.push(at_most("durable-cpu", "durable at most 34 us of CPU per event", 34.0, cpu));
        if let Some(memory) = find(Case { log: Some(Log::Memory), fan_out: 1 }) {
            let ratio = durable.ratio(memory, |run| run.cpu_per_event.waypost).median;
            let wanted = "durable at most 1.35 times the CPU per event of memory";
            goals.push(at_most("durable-cpu-ratio", wanted, 1.35, ratio));
        }
    }
    if let Some(ten) = find(Case { log: Some(Log::Durable), fan_out: 10 }) {
        let wanted = "durable at least 60,000 deliveries/s with ten triggers";
        goals.push(at_least("fan-out", wanted, 60_000.0, ten.deliveries_per_second().median));
    }
    goals
}
