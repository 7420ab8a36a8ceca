//! Signals, and the way down.
//!
//! Five phases under one deadline: intake, appends, dispatch, sinks, logs. The first is here; the other four are the
//! engine's, in that order. What is cut at the deadline is not settled, so that a log which outlives the process has
//! it delivered again: a stop in time is always a good one.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval_at, timeout_at};
use waypost_engine::Engine;

use crate::ingress::Ingress;
use crate::listener::Server;

/// The longest that requests under way are waited for, so that time is left for deliveries.
const LONGEST_INTAKE: Duration = Duration::from_secs(10);
/// Signals within this time of the first are the same request.
const SAME_REQUEST: Duration = Duration::from_millis(500);
/// How often the log says that the stop is still going on.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// What the engine may take beyond the deadline to say what it left.
const GRACE: Duration = Duration::from_secs(1);

/// The signals that ask the process to stop.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Catches them from now on. Must be called within a runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one that was meant as a second one, and returns its name. Cancel-safe.
    ///
    /// A shell, a supervisor or `timeout` may send the first one to the process and to its group, which is one request
    /// that arrives twice.
    pub(crate) async fn second(&mut self, first: Instant) -> &'static str {
        loop {
            let name = self.next().await;
            if first.elapsed() >= SAME_REQUEST {
                return name;
            }
        }
    }

    /// Waits for the next one and returns its name. Cancel-safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Takes the running parts down in order, until the deadline.
pub(crate) async fn shut_down(
    engine: &Engine,
    ingress: &Ingress,
    producers: Server,
    admin: Server,
    time: Duration,
) {
    let deadline = Instant::now() + time;
    let mut reports = interval_at(Instant::now() + REPORT_INTERVAL, REPORT_INTERVAL);
    let left = {
        let mut phases = pin!(phases(engine, ingress, &producers, time, deadline));
        loop {
            tokio::select! {
                left = &mut phases => break left,
                _ = reports.tick() => tracing::info!(
                    seconds = deadline.saturating_duration_since(Instant::now()).as_secs(),
                    "still stopping; the seconds are those left"
                ),
            }
        }
    };
    producers.stop().await;
    admin.stop().await;
    if left.is_empty() {
        tracing::info!("stopped");
    } else {
        tracing::warn!(
            left = left.join(", "),
            "stopped at the deadline; what was cut is not settled, and lost where the log is in memory"
        );
    }
}

async fn phases(
    engine: &Engine,
    ingress: &Ingress,
    producers: &Server,
    time: Duration,
    deadline: Instant,
) -> Vec<String> {
    let mut left = Vec::new();
    ingress.close();
    let intake_end = Instant::now() + LONGEST_INTAKE.min(time / 3);
    if timeout_at(intake_end, producers.drain()).await.is_err() {
        left.push(format!("{} connections of producers", producers.connections()));
    }
    tracing::info!("intake is closed; finishing deliveries");
    match timeout_at(deadline + GRACE, engine.shutdown(deadline)).await {
        Ok(unfinished) => left.extend(unfinished),
        Err(_) => left.push("the engine".to_owned()),
    }
    left
}
