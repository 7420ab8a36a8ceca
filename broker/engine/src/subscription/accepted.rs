//! Which outputs of a delivery's transformations the subscriber has accepted.
//!
//! Outputs are sent in order, so that a number tells it: a retry goes on with the first that was not accepted. It is
//! remembered as long as the process lives; after a restart all outputs are sent again, as at least once allows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use waypost_log::Position;

/// The most deliveries of one trigger that are remembered; of others all outputs are sent again.
const MAX_REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct AcceptedOutputs {
    deliveries: Mutex<HashMap<Position, Accepted>>,
    /// How many there are, so that a trigger without any takes no lock.
    count: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
struct Accepted {
    chain: u64,
    outputs: u32,
}

impl AcceptedOutputs {
    /// How many outputs of a delivery were accepted that this chain made; a changed chain starts over.
    pub(super) fn of(&self, at: Position, chain: u64) -> u32 {
        if self.count.load(Ordering::Acquire) == 0 {
            return 0;
        }
        self.deliveries
            .lock()
            .get(&at)
            .filter(|accepted| accepted.chain == chain)
            .map_or(0, |one| one.outputs)
    }

    /// The first outputs, so many, of a delivery were accepted.
    pub(super) fn remember(&self, at: Position, chain: u64, outputs: u32) {
        let mut deliveries = self.deliveries.lock();
        if outputs > 0 && (deliveries.len() < MAX_REMEMBERED || deliveries.contains_key(&at)) {
            deliveries.insert(at, Accepted { chain, outputs });
            self.count.store(deliveries.len(), Ordering::Release);
        }
    }

    /// The delivery is settled.
    pub(super) fn forget(&self, at: Position) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut deliveries = self.deliveries.lock();
            deliveries.remove(&at);
            self.count.store(deliveries.len(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_chain_and_a_settled_delivery_start_over() {
        let accepted = AcceptedOutputs::default();
        let (one, other) = (Position { partition: 0, offset: 1 }, Position { partition: 0, offset: 2 });
        assert_eq!(accepted.of(one, 7), 0);
        accepted.remember(one, 7, 2);
        accepted.remember(other, 7, 0);
        assert_eq!((accepted.of(one, 7), accepted.of(one, 8), accepted.of(other, 7)), (2, 0, 0));
        accepted.forget(one);
        assert_eq!(accepted.of(one, 7), 0);
    }

    #[test]
    fn no_more_is_remembered_than_may_be() {
        let accepted = AcceptedOutputs::default();
        let at = |offset| Position { partition: 0, offset };
        for offset in 0..=MAX_REMEMBERED as u64 {
            accepted.remember(at(offset), 1, 1);
        }
        accepted.remember(at(0), 1, 2);
        assert_eq!((accepted.of(at(0), 1), accepted.of(at(MAX_REMEMBERED as u64), 1)), (2, 0));
    }
}
