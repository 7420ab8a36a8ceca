//! What brokers cost that do nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::failure::Failure;
use crate::stage::{Log, Stage, Waypost};

/// How many brokers there are in the one process.
pub(crate) const BROKERS: [u32; 2] = [1, 300];

/// Brokers without events and triggers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Idle {
    pub(crate) log: Log,
    pub(crate) brokers: u32,
    pub(crate) resident_kibibytes: u64,
    /// Blocks that the data directory takes.
    pub(crate) disk_bytes: u64,
    /// CPU in one second of idleness, in microseconds.
    pub(crate) cpu_microseconds_per_second: f64,
}

/// Lets each number of brokers do nothing for a while.
pub(crate) fn idle(stage: &Stage, logs: &[Log], seconds: f64) -> Result<Vec<Idle>, Failure> {
    let mut all = Vec::new();
    for log in logs {
        for brokers in BROKERS {
            let waypost = Waypost::start(stage, *log, &manifests(brokers))?;
            let before = waypost.cpu_microseconds()?;
            clock::pause(Duration::from_secs_f64(seconds));
            all.push(Idle {
                log: *log,
                brokers,
                resident_kibibytes: waypost.resident_kibibytes()?,
                disk_bytes: waypost.disk_bytes()?,
                cpu_microseconds_per_second: (waypost.cpu_microseconds()? - before) as f64 / seconds,
            });
            crate::measure::progress(&format!("idle: {brokers} brokers, {}", log.name()));
        }
    }
    Ok(all)
}

fn manifests(brokers: u32) -> String {
    let broker = |number| {
        format!(
            "---\napiVersion: eventing.knative.dev/v1\nkind: Broker\n\
             metadata: {{namespace: bench, name: broker-{number}}}\n"
        )
    };
    (0..brokers).map(broker).collect()
}
