//! Real servers, each started by its test on free ports with a data folder of its own.
//!
//! `tests/servers/install` puts them into a cache folder. A server that is not there skips its test with a line that
//! says how to get it, and fails it where `CI=true`. A server is ready once a real operation works, and is stopped by
//! its own process when it is dropped.

use std::net::TcpListener;
use std::path::PathBuf;

use crate::binary::root;

pub mod elasticmq;
pub mod google;
pub mod kafka;
pub mod nats;
pub mod opensearch;
pub mod s3s;

/// The folder of an installed server; none where it is not there, which is said aloud.
///
/// # Panics
/// In CI, where every server must be there.
pub fn installed(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("WAYPOST_SERVERS")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/waypost-servers")));
    if let Some(cache) = cache
        && cache.join(format!("{name}.stamp")).exists()
    {
        return Some(cache.join(name));
    }
    let script = root().join("tests/servers/install");
    let told = format!("the server `{name}` is not installed: run {} {name}", script.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{told}");
    // libtest shows this beside the name of the test.
    #[expect(clippy::print_stderr)]
    {
        eprintln!("!!! SKIPPED: {told}");
    }
    None
}

/// Ports that are free now, all different.
///
/// # Panics
/// If the machine has none.
pub fn free_ports<const N: usize>() -> [u16; N] {
    // Held all at once, so that none is given twice.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port"));
    listeners.map(|listener| listener.local_addr().expect("a listener has an address").port())
}
