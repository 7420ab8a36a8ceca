//! A broker with some number of triggers from one file: start, memory, stop, second start, and how long events take that
//! match one trigger each.

use std::time::Duration;

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
pub(super) struct Crowd {
    pub(super) file_bytes: u64,
    /// From the start of the process on empty data until it is ready.
    pub(super) start_milliseconds: f64,
    /// Memory then, and the most there was on the way.
    pub(super) resident_kibibytes: u64,
    pub(super) peak_kibibytes: u64,
    /// From SIGTERM to the end of the process.
    pub(super) stop_milliseconds: f64,
    pub(super) second_start_milliseconds: f64,
    pub(super) second_resident_kibibytes: u64,
    /// What the data directory took after the second start.
    pub(super) disk_bytes: u64,
    /// Events at a constant rate, whose types come in turn, after the second start.
    pub(super) run: Run,
}

impl Crowd {
    /// The 99th percentile from the time when an event was due until the subscriber had it.
    pub(super) fn p99_milliseconds(&self) -> f64 {
        self.run.received.latency.p99 / 1_000.0
    }
}

pub(super) const COLUMNS: [Column<Crowd>; 11] = [
    Column { heading: "MB of manifests", decimals: 1, figure: |crowd| crowd.file_bytes as f64 / 1e6 },
    Column { heading: "start ms", decimals: 0, figure: |crowd| crowd.start_milliseconds },
    Column { heading: "MiB then", decimals: 0, figure: |crowd| crowd.resident_kibibytes as f64 / 1024.0 },
    Column { heading: "peak MiB", decimals: 0, figure: |crowd| crowd.peak_kibibytes as f64 / 1024.0 },
    Column { heading: "stop ms", decimals: 0, figure: |crowd| crowd.stop_milliseconds },
    Column { heading: "second start ms", decimals: 0, figure: |crowd| crowd.second_start_milliseconds },
    Column {
        heading: "MiB then",
        decimals: 0,
        figure: |crowd| crowd.second_resident_kibibytes as f64 / 1024.0,
    },
    Column { heading: "MB of data", decimals: 0, figure: |crowd| crowd.disk_bytes as f64 / 1e6 },
    Column { heading: "us end to end: p50", decimals: 0, figure: |crowd| crowd.run.received.latency.p50 },
    Column { heading: "p99", decimals: 0, figure: |crowd| crowd.run.received.latency.p99 },
    Column { heading: "% CPU of others", decimals: 0, figure: |crowd| crowd.run.others_share * 100.0 },
];

pub(super) fn crowd(stage: &Stage, triggers: u32, settings: Settings) -> Result<Crowd, Failure> {
    let mut file_bytes = 0;
    let mut scene = Scene::of(stage, &format!("{triggers} triggers"), |subscriber| {
        let text = manifests(triggers, |_| format!("http://{subscriber}/0"));
        file_bytes = text.len() as u64;
        text
    })?;
    let waypost = scene.waypost.as_mut().expect("this scene has a broker");
    let start = waypost.started_in;
    let (resident_kibibytes, peak_kibibytes) =
        (waypost.resident_kibibytes()?, waypost.resident_peak_kibibytes()?);
    let stop = waypost.stop()?;
    waypost.start_again(stage)?;
    let second_start = waypost.started_in;
    let (second_resident_kibibytes, disk_bytes) = (waypost.resident_kibibytes()?, waypost.disk_bytes()?);
    let load = |seconds, run| Load { seconds, rate: Some(settings.latency_rate), run, types: Some(triggers) };
    scene.run(stage, load(settings.warm_up_seconds, 1))?;
    let run = scene.run(stage, load(settings.seconds, 2))?;
    let crowd = Crowd {
        file_bytes,
        start_milliseconds: milliseconds(start),
        resident_kibibytes,
        peak_kibibytes,
        stop_milliseconds: milliseconds(stop),
        second_start_milliseconds: milliseconds(second_start),
        second_resident_kibibytes,
        disk_bytes,
        run,
    };
    progress(&format!(
        "{triggers} triggers: start {:.0} ms, {} MiB, stop {:.0} ms, second start {:.0} ms; p99 {:.1} ms",
        crowd.start_milliseconds,
        crowd.resident_kibibytes / 1024,
        crowd.stop_milliseconds,
        crowd.second_start_milliseconds,
        crowd.p99_milliseconds(),
    ));
    Ok(crowd)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
