//! What a worker keeps from one attempt to the next.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use waypost_core::aside::Aside;

use crate::subscriber::Lane;
use crate::subscription::Delivering;

/// What a worker keeps from one attempt to the next.
pub(in crate::subscription) struct Kept {
    lane: Option<OwnLane>,
    /// Ends when attempts are cut. It waits once for all attempts of the worker: to wait anew for each takes a lock that
    /// all workers share.
    cut: Aside<WaitForCancellationFutureOwned>,
    /// What is cut stays cut, and a future that has ended is not asked again.
    was_cut: bool,
}

/// A worker's lane and the version of the trigger that it was made for.
struct OwnLane {
    made_for: Arc<Delivering>,
    lane: Lane,
}

impl Kept {
    /// Nothing yet. Attempts are cut when `cut` is cancelled.
    pub(in crate::subscription) fn new(cut: &CancellationToken) -> Self {
        Self { lane: None, cut: Aside::new(cut.clone().cancelled_owned()), was_cut: false }
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
        let Self { lane, cut, was_cut } = self;
        if lane.as_ref().is_none_or(|lane| !Arc::ptr_eq(&lane.made_for, delivering)) {
            *lane = None;
        }
        let lane =
            lane.get_or_insert_with(|| OwnLane { made_for: Arc::clone(delivering), lane: Lane::default() });
        (&mut lane.lane, async {
            if !*was_cut {
                cut.await;
                *was_cut = true;
            }
        })
    }
}
