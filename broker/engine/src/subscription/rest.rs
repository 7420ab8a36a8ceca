//! Workers that have nothing to do for the moment.
//!
//! A worker that finds no work rests for a little while before it ends, since to start one and to find it a connection
//! costs several times what waking it does. The one that began to rest last is called first, so that those at the
//! bottom can be let go: at every look, as many as were not needed since the look before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Where a worker rests.
#[derive(Debug, Default)]
pub(super) struct Rest {
    bell: Notify,
    dismissed: AtomicBool,
}

impl Rest {
    /// Waits until the worker is called, true, or let go, false.
    pub(super) async fn wait(&self) -> bool {
        self.bell.notified().await;
        !self.dismissed.load(Ordering::Acquire)
    }

    fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.bell.notify_one();
    }
}

/// The workers of a subscription that rest.
#[derive(Debug, Default)]
pub(super) struct Resting {
    /// The longest resting first.
    workers: Vec<Arc<Rest>>,
    /// The fewest that rested at one time since the last look.
    not_needed: usize,
    /// Whether someone will look.
    pub(super) watched: bool,
}

impl Resting {
    pub(super) fn add(&mut self, worker: Arc<Rest>) {
        self.workers.push(worker);
    }

    /// Calls a worker back. False where none rests.
    pub(super) fn call(&mut self) -> bool {
        let Some(worker) = self.workers.pop() else { return false };
        self.not_needed = self.not_needed.min(self.workers.len());
        worker.bell.notify_one();
        true
    }

    /// Lets go of those that were not needed since the last look. True while others rest.
    pub(super) fn look(&mut self) -> bool {
        self.workers.drain(..self.not_needed).for_each(|worker| worker.dismiss());
        self.not_needed = self.workers.len();
        !self.workers.is_empty()
    }

    /// Lets go of all.
    pub(super) fn dismiss(&mut self) {
        self.workers.drain(..).for_each(|worker| worker.dismiss());
        self.not_needed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resting(count: usize) -> (Resting, Vec<Arc<Rest>>) {
        let workers: Vec<_> = (0..count).map(|_| Arc::new(Rest::default())).collect();
        let mut resting = Resting::default();
        workers.iter().for_each(|worker| resting.add(Arc::clone(worker)));
        (resting, workers)
    }

    #[tokio::test]
    async fn the_last_that_came_is_called_first() {
        let (mut resting, workers) = resting(2);
        assert!(resting.call());
        assert!(workers[1].wait().await);
        resting.dismiss();
        assert!(!workers[0].wait().await);
        assert!(!resting.call());
    }

    #[tokio::test]
    async fn those_that_were_not_needed_between_two_looks_go() {
        let (mut resting, workers) = resting(3);
        assert!(resting.look());
        assert!(resting.call() && workers[2].wait().await);
        resting.add(Arc::clone(&workers[2]));
        assert!(resting.look());
        assert!(!workers[0].wait().await && !workers[1].wait().await);
        assert!(!resting.look());
        assert!(!workers[2].wait().await);
    }
}
