//! What a subscriber that never answers and one that always fails do to the latency of a healthy one.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::figures::Spread;
use crate::stage::{Load, Log, Run, Scene, Stage, Subscriber};

/// Events per second.
const RATE: f64 = 2_000.0;

/// A healthy trigger alone, and beside two that are not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Isolation {
    pub(crate) log: Log,
    pub(crate) rate: f64,
    pub(crate) alone: Vec<Healthy>,
    /// One subscriber never answers, one always answers 500.
    pub(crate) beside: Vec<Healthy>,
}

/// The healthy trigger in one round.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Healthy {
    pub(crate) run: Run,
    /// The broker's memory at the end, in KiB.
    pub(crate) resident_kibibytes: u64,
}

/// The 99th percentile from the time when an event was due until the healthy subscriber had it, in microseconds.
pub(crate) fn p99(rounds: &[Healthy]) -> Spread {
    Spread::of(rounds.iter().map(|healthy| healthy.run.received.latency.p99).collect())
}

pub(crate) fn resident(rounds: &[Healthy]) -> Spread {
    Spread::of(rounds.iter().map(|healthy| healthy.resident_kibibytes as f64).collect())
}

/// How much of the machine went to other processes in these rounds, in per cent.
pub(crate) fn others(rounds: &[Healthy]) -> Spread {
    Spread::of(rounds.iter().map(|healthy| healthy.run.others_share * 100.0).collect())
}

pub(crate) fn isolation(
    stage: &Stage,
    logs: &[Log],
    count: usize,
    seconds: f64,
    warm_up: f64,
) -> Result<Vec<Isolation>, Failure> {
    let mut all = Vec::new();
    for log in logs {
        let mut isolation = Isolation { log: *log, rate: RATE, alone: Vec::new(), beside: Vec::new() };
        for round in 0..count {
            let never = Subscriber::start(stage, &["--never"])?;
            let failing = Subscriber::start(stage, &["--answer", "500"])?;
            let others = [never.address, failing.address].map(|address| format!("http://{address}/0"));
            // In turns, so that neither is always the first.
            if round % 2 == 0 {
                isolation.alone.push(measure(stage, *log, &[], seconds, warm_up)?);
                isolation.beside.push(measure(stage, *log, &others, seconds, warm_up)?);
            } else {
                isolation.beside.push(measure(stage, *log, &others, seconds, warm_up)?);
                isolation.alone.push(measure(stage, *log, &[], seconds, warm_up)?);
            }
            crate::measure::progress(&format!(
                "isolation {} of {count}: {}: p99 {:.0} us alone, {:.0} us beside failing ones",
                round + 1,
                log.name(),
                isolation.alone[round].run.received.latency.p99,
                isolation.beside[round].run.received.latency.p99
            ));
        }
        all.push(isolation);
    }
    Ok(all)
}

fn measure(
    stage: &Stage,
    log: Log,
    others: &[String],
    seconds: f64,
    warm_up: f64,
) -> Result<Healthy, Failure> {
    let mut scene = Scene::broker(stage, log, 1, others)?;
    let rate = Some(RATE);
    scene.run(stage, Load { seconds: warm_up, rate, run: 1, types: None })?;
    let run = scene.run(stage, Load { seconds, rate, run: 2, types: None })?;
    let waypost = scene.waypost.as_ref().expect("this scene has a broker");
    Ok(Healthy { run, resident_kibibytes: waypost.resident_kibibytes()? })
}
