//! The limit of open files: every connection is one, and logs, manifests, sources and the admin API need some too.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Producers' connections take at most one of so many open files.
const OF_PRODUCERS: u64 = 2;
/// The connections to subscribers take at most one of so many open files. What is left is for all else.
const OF_DELIVERIES: u64 = 4;

/// How many connections may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connections {
    /// Of producers.
    pub(crate) producers: usize,
    /// To subscribers.
    pub(crate) deliveries: usize,
}

/// Raises the limit as far as this process may, and says how many connections there may be: of producers what is asked
/// for, or half of the limit where that is less, and of deliveries a quarter.
pub(crate) fn raise(producers: usize) -> Connections {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files cannot be raised");
        }
    }
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Connections { producers, deliveries: usize::MAX };
    };
    let connections = shares(limit, producers);
    if connections.producers < producers {
        tracing::info!(
            connections = connections.producers,
            deliveries = connections.deliveries,
            open_files = limit,
            "fewer connections than asked for, because of the limit of open files"
        );
    }
    connections
}

fn shares(limit: u64, producers: usize) -> Connections {
    let share = |part: u64| usize::try_from(limit / part).unwrap_or(usize::MAX).max(1);
    Connections { producers: share(OF_PRODUCERS).min(producers), deliveries: share(OF_DELIVERIES) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_open_files_are_left_for_all_else() {
        let connections = |producers, deliveries| Connections { producers, deliveries };
        assert_eq!(shares(1024, 10_000), connections(512, 256));
        assert_eq!(shares(1_048_576, 10_000), connections(10_000, 262_144));
        assert_eq!(shares(1, 10), connections(1, 1));
    }
}
