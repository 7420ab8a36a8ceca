//! How long the broker takes from the start of its process until it is ready.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::failure::Failure;
use crate::figures::Spread;
use crate::stage::{Generator, INGRESS_PATH, Load, Log, Stage, Subscriber, Waypost, manifests};

/// Starts of one kind of log, in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Startup {
    pub(crate) log: Log,
    pub(crate) empty_milliseconds: Vec<f64>,
    /// After `kill -9` under full load, on the data that was left; each time there is more. Empty where the log does
    /// not survive the process.
    pub(crate) killed_milliseconds: Vec<f64>,
    /// What the data directory took at the last start.
    pub(crate) disk_bytes: u64,
}

impl Startup {
    pub(crate) fn empty(&self) -> Spread {
        Spread::of(self.empty_milliseconds.clone())
    }

    /// None where nothing was killed.
    pub(crate) fn killed(&self) -> Option<Spread> {
        (!self.killed_milliseconds.is_empty()).then(|| Spread::of(self.killed_milliseconds.clone()))
    }
}

pub(crate) fn startup(
    stage: &Stage,
    logs: &[Log],
    count: usize,
    seconds: f64,
) -> Result<Vec<Startup>, Failure> {
    let mut all = Vec::new();
    for log in logs {
        let mut startup = Startup {
            log: *log,
            empty_milliseconds: Vec::new(),
            killed_milliseconds: Vec::new(),
            disk_bytes: 0,
        };
        for _ in 0..count {
            let waypost = Waypost::start(stage, *log, &manifests(&[]))?;
            startup.empty_milliseconds.push(milliseconds(waypost.started_in));
        }
        if *log == Log::Durable {
            killed(stage, count, seconds, &mut startup)?;
        }
        crate::measure::progress(&format!(
            "start, {}: {:?} ms on empty data, {:?} ms after kill -9",
            log.name(),
            startup.empty_milliseconds,
            startup.killed_milliseconds
        ));
        all.push(startup);
    }
    Ok(all)
}

/// The broker is killed while events come in and go out.
fn killed(stage: &Stage, count: usize, seconds: f64, startup: &mut Startup) -> Result<(), Failure> {
    let subscriber = Subscriber::start(stage, &[])?;
    let triggers = manifests(&[format!("http://{}/0", subscriber.address)]);
    let mut waypost = Waypost::start(stage, Log::Durable, &triggers)?;
    for run in 0..count {
        // Longer than the broker lives: it is killed under load, and the generator with it.
        let load = Load { seconds: seconds * 10.0, rate: None, run: run as u32, types: None };
        let generator =
            Generator::start(stage, waypost.ingress, INGRESS_PATH, load, stage.connections.into())?;
        clock::pause(Duration::from_secs_f64(seconds));
        startup.disk_bytes = waypost.disk_bytes()?;
        waypost.kill_and_start_again(stage)?;
        drop(generator);
        startup.killed_milliseconds.push(milliseconds(waypost.started_in));
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}
