//! The highest rate with some number of triggers, of which one matches every event.

use serde::Serialize;

use super::Settings;
use super::manifests::manifests;
use super::pair::Column;
use crate::failure::Failure;
use crate::measure::progress;
use crate::stage::{Load, Run, Scene, Stage};

/// One round.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rate {
    pub(super) run: Run,
}

impl Rate {
    pub(super) fn events_per_second(&self) -> f64 {
        self.run.deliveries_per_second
    }
}

pub(super) const COLUMNS: [Column<Rate>; 4] = [
    Column { heading: "deliveries/s, one match each", decimals: 0, figure: Rate::events_per_second },
    Column { heading: "CPU us per event", decimals: 1, figure: |rate| rate.run.cpu_per_event.waypost },
    Column { heading: "peak MiB", decimals: 0, figure: |rate| rate.run.peak_kibibytes as f64 / 1024.0 },
    Column { heading: "% CPU of others", decimals: 0, figure: |rate| rate.run.others_share * 100.0 },
];

pub(super) fn rate(stage: &Stage, triggers: u32, settings: Settings) -> Result<Rate, Failure> {
    let mut scene = Scene::of(stage, &format!("{triggers} triggers, one matches"), |subscriber| {
        manifests(triggers, |_| format!("http://{subscriber}/0"))
    })?;
    // All events have the first type, for which the first trigger asks.
    let load = |seconds, run| Load { seconds, rate: None, run, types: Some(1) };
    scene.run(stage, load(settings.warm_up_seconds, 1))?;
    let rate = Rate { run: scene.run(stage, load(settings.seconds, 2))? };
    progress(&format!("{triggers} triggers, one matches: {:.0} deliveries/s", rate.events_per_second()));
    Ok(rate)
}
