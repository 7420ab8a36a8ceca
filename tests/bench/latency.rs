//! Latency at a constant rate, measured from the time at which each event was due: a stall is felt by all events that
//! it holds up.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::figures::Spread;
use crate::histogram::Quantiles;
use crate::rounds::{Case, Throughput};
use crate::stage::{Load, Log, Run, Scene, Stage};

/// The part of the highest rate at which latency is measured.
const LOAD: f64 = 0.5;

/// The latency of one kind of log at half of its highest rate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Latency {
    pub(crate) log: Log,
    /// Events per second.
    pub(crate) rate: f64,
    pub(crate) rounds: Vec<Run>,
}

impl Latency {
    /// The spread of a quantile from the time when an event was due until the producer had its answer.
    pub(crate) fn acknowledged(&self, quantile: impl Fn(&Quantiles) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|run| quantile(&run.generated.acknowledged)).collect())
    }

    /// How much of the machine went to other processes, in per cent.
    pub(crate) fn others(&self) -> Spread {
        Spread::of(self.rounds.iter().map(|run| run.others_share * 100.0).collect())
    }

    /// The spread of a quantile from the time when an event was due until the subscriber had it.
    pub(crate) fn end_to_end(&self, quantile: impl Fn(&Quantiles) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|run| quantile(&run.received.latency)).collect())
    }
}

/// Measures every log whose highest rate at fan-out 1 is known, in turns.
pub(crate) fn latency(
    stage: &Stage,
    throughput: &[Throughput],
    count: usize,
    seconds: f64,
    warm_up: f64,
) -> Result<Vec<Latency>, Failure> {
    let mut all: Vec<_> = throughput
        .iter()
        .filter_map(|measured| match measured.case {
            Case { log: Some(log), fan_out: 1 } => {
                let rate = (measured.deliveries_per_second().median * LOAD).round();
                Some(Latency { log, rate, rounds: Vec::new() })
            }
            _ => None,
        })
        .collect();
    for round in 0..count {
        for latency in &mut all {
            let mut scene = Scene::broker(stage, latency.log, 1, &[])?;
            let rate = Some(latency.rate);
            scene.run(stage, Load { seconds: warm_up, rate, run: 1, types: None })?;
            let run = scene.run(stage, Load { seconds, rate, run: 2, types: None })?;
            crate::measure::progress(&format!(
                "latency {} of {count}: {} at {:.0} events/s: p50 {:.0} us, p99 {:.0} us end to end",
                round + 1,
                latency.log.name(),
                latency.rate,
                run.received.latency.p50,
                run.received.latency.p99
            ));
            latency.rounds.push(run);
        }
    }
    Ok(all)
}
