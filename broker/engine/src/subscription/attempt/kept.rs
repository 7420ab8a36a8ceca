//! What a worker keeps from one attempt to the next.

use std::future::Future;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::subscriber::Lane;
use crate::subscription::Delivering;

/// What a worker keeps from one attempt to the next.
pub(in crate::subscription) struct Kept {
    lane: Option<OwnLane>,
    /// Ends when attempts are cut. It waits once for all attempts of the worker, and is looked at only where it was woken:
    /// to wait anew for each attempt takes a lock that all workers share.
    cut: FuturesUnordered<WaitForCancellationFutureOwned>,
}

/// A worker's lane and the version of the trigger that it was made for.
struct OwnLane {
    made_for: Arc<Delivering>,
    lane: Lane,
}

impl Kept {
    /// Nothing yet. Attempts are cut when `cut` is cancelled.
    pub(in crate::subscription) fn new(cut: &CancellationToken) -> Self {
        Self { lane: None, cut: FuturesUnordered::from_iter([cut.clone().cancelled_owned()]) }
    }

    /// Lets go of the connection.
    pub(in crate::subscription) fn let_go(&mut self) {
        self.lane = None;
    }

    /// The worker's lane, made anew where the trigger was changed since it was made, and what ends when attempts are cut,
    /// at once where they were cut before. Both are cancel-safe.
    pub(super) fn for_attempt(
        &mut self,
        delivering: &Arc<Delivering>,
    ) -> (&mut Lane, impl Future<Output = ()>) {
        let Self { lane, cut } = self;
        if lane.as_ref().is_none_or(|lane| !Arc::ptr_eq(&lane.made_for, delivering)) {
            *lane = None;
        }
        let lane =
            lane.get_or_insert_with(|| OwnLane { made_for: Arc::clone(delivering), lane: Lane::default() });
        // Without another future in it, it is at its end once that has come.
        (&mut lane.lane, async {
            let _ = cut.next().await;
        })
    }
}
