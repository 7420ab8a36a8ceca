//! The limit of open files: every connection is one, and subscribers, manifests and the admin API need some too.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The part of the open files that is kept from producers' connections: one of this many.
const KEPT_BACK: u64 = 2;

/// Raises the limit as far as this process may, and returns how many connections of producers there may be: what is
/// asked for, or half of the limit where that is less.
pub(crate) fn raise(connections: usize) -> usize {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files cannot be raised");
        }
    }
    let Some(limit) = getrlimit(Resource::Nofile).current else { return connections };
    let most = usize::try_from(limit / KEPT_BACK).unwrap_or(usize::MAX).max(1);
    if most < connections {
        tracing::info!(
            connections = most,
            open_files = limit,
            "fewer connections than asked for, because of the limit of open files"
        );
    }
    connections.min(most)
}
