//! Bytes that may be under way at one time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A limit on the bytes between acceptance and commit, shared by everything that brings events in.
///
/// One request larger than the whole limit is let through when it is alone, so that a small budget slows
/// large events down and never refuses them for ever.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    limit: usize,
    used: AtomicUsize,
    released: Notify,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, used: AtomicUsize::new(0), released: Notify::new() }))
    }

    /// Takes `bytes` at once, or nothing.
    pub fn try_take(&self, bytes: usize) -> Option<Share> {
        self.0.try_add(bytes).then(|| Share { budget: Arc::clone(&self.0), bytes })
    }

    /// Waits until `bytes` can be taken. Cancel-safe. Waiters are not served in order: a source that waits for
    /// much may be overtaken by one that waits for little.
    pub async fn take(&self, bytes: usize) -> Share {
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            // Registered before the try, so that a release between the two is not missed.
            released.as_mut().enable();
            if let Some(share) = self.try_take(bytes) {
                return share;
            }
            released.await;
        }
    }

    /// The bytes taken.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The bytes that may be taken.
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("used", &self.used()).field("limit", &self.0.limit).finish()
    }
}

impl Inner {
    fn try_add(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let wanted = used.checked_add(bytes)?;
                (wanted <= self.limit || used == 0).then_some(wanted)
            })
            .is_ok()
    }
}

/// A taken part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Inner>,
    bytes: usize,
}

impl Share {
    /// Takes `bytes` more, or nothing. A body whose length is not announced grows its share as it arrives.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        // The share itself is in `used`, so "alone" means that nobody else holds any.
        let alone = self.budget.used.load(Ordering::Relaxed) == self.bytes;
        let grown = if alone {
            self.budget.used.fetch_add(bytes, Ordering::Relaxed);
            true
        } else {
            self.budget.try_add(bytes)
        };
        if grown {
            self.bytes += bytes;
        }
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.released.notify_waiters();
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_taken() {
        let budget = Budget::new(100);
        let first = budget.try_take(60).unwrap();
        assert!(budget.try_take(60).is_none());
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_take(60).is_some());
    }

    #[test]
    fn lets_one_large_request_through_alone() {
        let budget = Budget::new(100);
        let large = budget.try_take(500).unwrap();
        assert!(budget.try_take(1).is_none());
        drop(large);
        let small = budget.try_take(1);
        assert!(budget.try_take(500).is_none());
        drop(small);
    }

    #[test]
    fn a_share_grows_within_the_limit_and_beyond_it_only_alone() {
        let budget = Budget::new(100);
        let mut share = budget.try_take(10).unwrap();
        assert!(share.try_grow(1_000));
        drop(share);
        let mut share = budget.try_take(50).unwrap();
        let other = budget.try_take(40).unwrap();
        assert!(!share.try_grow(20));
        assert!(share.try_grow(10));
        drop((share, other));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_waiter_is_woken() {
        let budget = Budget::new(10);
        let held = budget.try_take(10).unwrap();
        let waiting = {
            let budget = budget.clone();
            async move { budget.take(5).await }
        };
        let (share, ()) = tokio::join!(waiting, async move {
            tokio::task::yield_now().await;
            drop(held);
        });
        drop(share);
        assert_eq!(budget.used(), 0);
    }
}
