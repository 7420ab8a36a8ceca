//! What the process takes of its machine.

use serde_json::json;
use waypost_tests::client::event;
use waypost_tests::process::Waypost;

use crate::manifests::{broker, file};

/// What an idle broker may take, in bytes, besides the pages of its own binary: those of a build with debug information
/// are several times those that users run, and `tests/bench` measures these.
const IDLE_LIMIT: u64 = 20 * 1024 * 1024;

/// The memory of a process in bytes that is not backed by a file, as Linux counts it.
#[cfg(target_os = "linux")]
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_broker_takes_little_memory() {
    let waypost = Waypost::start(&file(&[broker("default", json!({}))])).await;
    waypost.accept(event("/default/default", "1", "t", &[], "{}")).await;
    waypost.settled().await;
    let resident = resident(waypost.id());
    assert!(resident < IDLE_LIMIT, "{resident} bytes");
    waypost.stop().await;
}
