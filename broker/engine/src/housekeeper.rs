//! What has to be done every now and then: trimming logs, and forgetting what was detached long ago.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::supervisor::Supervisor;

/// How often logs are trimmed.
const TRIM_EVERY: Duration = Duration::from_millis(250);

/// How often the backlogs of triggers are looked at.
const BACKLOG_EVERY: Duration = Duration::from_secs(1);

/// How often detached brokers and triggers are looked at.
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// How often a set of triggers that could not be recorded is tried again.
const SWITCH_AGAIN_EVERY: Duration = Duration::from_secs(10);

/// How often workers that rest are looked at: one that was not needed between two looks ends.
const LOOK_AT_REST_EVERY: Duration = Duration::from_secs(1);

/// How often idle connections that are too old are closed.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Runs until `stop`. What was detached is kept for `detached_retention`.
pub(crate) async fn run(supervisor: Supervisor, detached_retention: Duration, stop: CancellationToken) {
    let mut trim = tokio::time::interval(TRIM_EVERY);
    trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forget =
        tokio::time::interval((detached_retention / 8).clamp(FORGET_AT_MOST_EVERY, FORGET_EVERY));
    forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut backlog = tokio::time::interval(BACKLOG_EVERY);
    backlog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut switch = tokio::time::interval(SWITCH_AGAIN_EVERY);
    switch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rest = tokio::time::interval(LOOK_AT_REST_EVERY);
    rest.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = trim.tick() => supervisor.trim().await,
            _ = backlog.tick() => supervisor.limit_backlogs().await,
            _ = switch.tick() => supervisor.switch_again().await,
            _ = rest.tick() => supervisor.look_at_rest(),
            _ = sweep.tick() => supervisor.sweep_connections(),
            _ = forget.tick() => supervisor.forget_detached().await,
        }
    }
}
