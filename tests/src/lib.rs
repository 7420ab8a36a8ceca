//! The harness of the end-to-end tests: the binary as a user runs it, and everything it speaks to.
//!
//! - [`binary`] builds `waypost` once and runs its commands to their end.
//! - [`process::Waypost`] is a running broker on free ports with a directory of its own. It fails the test over any
//!   warning in its log that the test did not allow, and over any way to stop but a clean one.
//! - [`subscriber::Subscriber`] is an HTTP server that answers as the test wants and notes what it was sent.
//! - [`client`] sends over HTTP/1.1, HTTP/2 and a bare socket.
//! - [`servers`] are the real counterparts of sources and sinks, such as Kafka.
//! - [`tls`] puts a certificate in front of any of them.
//! - [`ledger`] checks the equation of promise P2, wherever a test looks at the status.
//!
//! Nothing here measures time. Waits end when what they wait for is there, and [`PATIENCE`] only ends a test that
//! would hang.

use std::time::Duration;

pub mod binary;
pub mod client;
pub mod ledger;
pub mod process;
pub mod servers;
pub mod subscriber;
pub mod tls;

/// How long a test waits for something that should be there at once, before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits while something is away or full: this long, or as many seconds as `WAYPOST_TEST_OUTAGE` says, for those who want
/// to see a longer outage than a test has time for.
///
/// # Panics
/// If that is no number.
pub async fn outage(short: Duration) {
    let asked = std::env::var("WAYPOST_TEST_OUTAGE").ok();
    let asked = asked.map(|seconds| seconds.parse().expect("WAYPOST_TEST_OUTAGE is a number of seconds"));
    tokio::time::sleep(asked.map_or(short, Duration::from_secs).max(short)).await;
}

/// Waits until `condition` gives a value.
///
/// # Panics
/// Once [`PATIENCE`] is at its end, with `what` was waited for.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waited).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}
