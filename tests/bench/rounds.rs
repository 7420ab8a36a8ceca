//! Throughput and CPU: the raw limit and the broker in turns, so that all meet the same disturbances.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::figures::Spread;
use crate::stage::{Load, Log, Run, Scene, Stage};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Case {
    /// The generator straight into the subscriber where absent.
    pub(crate) log: Option<Log>,
    /// Triggers that match every event.
    pub(crate) fan_out: u32,
}

impl Case {
    pub(crate) const RAW: Self = Self { log: None, fan_out: 1 };

    pub(crate) fn name(self) -> &'static str {
        self.log.map_or("raw", Log::name)
    }
}

/// All rounds of one case.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Throughput {
    #[serde(flatten)]
    pub(crate) case: Case,
    /// In the order in which they were measured.
    pub(crate) rounds: Vec<Run>,
}

impl Throughput {
    /// The spread of a figure over the rounds.
    pub(crate) fn spread(&self, figure: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(figure).collect())
    }

    /// The spread of the ratio of a figure to that of another case in the same round.
    pub(crate) fn ratio(&self, to: &Self, figure: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(
            self.rounds.iter().zip(&to.rounds).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect(),
        )
    }

    pub(crate) fn deliveries_per_second(&self) -> Spread {
        self.spread(|run| run.deliveries_per_second)
    }
}

/// Measures every case once per round; every second round in reverse order.
pub(crate) fn rounds(
    stage: &Stage,
    logs: &[Log],
    fan_outs: &[u32],
    count: usize,
    seconds: f64,
    warm_up: f64,
) -> Result<Vec<Throughput>, Failure> {
    let of_logs = fan_outs
        .iter()
        .flat_map(|fan_out| logs.iter().map(|log| Case { log: Some(*log), fan_out: *fan_out }));
    let mut cases: Vec<_> = std::iter::once(Case::RAW)
        .chain(of_logs)
        .map(|case| Throughput { case, rounds: Vec::new() })
        .collect();
    for round in 0..count {
        for place in 0..cases.len() {
            let place = if round % 2 == 0 { place } else { cases.len() - 1 - place };
            let case = &mut cases[place];
            let run = measure(stage, case.case, seconds, warm_up)?;
            crate::measure::progress(&format!(
                "round {} of {count}: {}, fan-out {}: {:.0} deliveries/s",
                round + 1,
                case.case.name(),
                case.case.fan_out,
                run.deliveries_per_second
            ));
            case.rounds.push(run);
        }
    }
    Ok(cases)
}

fn measure(stage: &Stage, case: Case, seconds: f64, warm_up: f64) -> Result<Run, Failure> {
    let mut scene = match case.log {
        None => Scene::raw(stage)?,
        Some(log) => Scene::broker(stage, log, case.fan_out, &[])?,
    };
    scene.run(stage, Load { seconds: warm_up, rate: None, run: 1, types: None })?;
    scene.run(stage, Load { seconds, rate: None, run: 2, types: None })
}
