//! Places for open connections. Each takes a file descriptor, of which a process has so many only, and the log needs some.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// As many connections as may be open at one time, idle ones included.
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// How many wait for one.
    waiting: AtomicUsize,
}

/// The right to have one connection open.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Somebody waits for a place, as long as this lives.
struct Waiting<'p>(&'p Places);

impl Places {
    /// So many; at least one.
    pub(super) fn new(count: usize) -> Self {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(count)), waiting: AtomicUsize::new(0) }
    }

    /// Whether somebody waits for a place: whoever has a connection that is not in use closes it then.
    pub(super) fn are_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes a place. Where none is free it has an idle connection closed, if there is one, and waits for its turn.
    ///
    /// `close_idle` takes the lock under which connections become idle. Whoever makes one idle under it after this has
    /// looked therefore sees that places are wanted.
    ///
    /// Cancel-safe: whoever is dropped while it waits loses its turn only.
    pub(super) async fn take(&self, close_idle: impl FnOnce()) -> Place {
        let free = Arc::clone(&self.free);
        if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
            return Place { _permit: permit };
        }
        let _waiting = Waiting::new(self);
        close_idle();
        Place { _permit: free.acquire_owned().await.expect("no semaphore is ever closed") }
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("free", &self.free.available_permits()).finish_non_exhaustive()
    }
}

impl<'p> Waiting<'p> {
    fn new(places: &'p Places) -> Self {
        places.waiting.fetch_add(1, Ordering::Relaxed);
        Self(places)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn who_waits_is_seen_and_gets_the_next_place() {
        let places = Places::new(1);
        let closed = Cell::new(0);
        let first = places.take(|| closed.set(closed.get() + 1)).await;
        assert_eq!((closed.get(), places.are_wanted()), (0, false), "there was one");
        {
            let mut second = pin!(places.take(|| closed.set(closed.get() + 1)));
            assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!((closed.get(), places.are_wanted()), (1, true));
            drop(first);
            drop(second.await);
        }
        assert!(!places.are_wanted());
        let _again = places.take(|| panic!("one is free")).await;
    }

    #[tokio::test]
    async fn who_gives_up_waits_no_longer() {
        let places = Places::new(0);
        let _only = places.take(|| ()).await;
        {
            let mut second = pin!(places.take(|| ()));
            assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert!(!places.are_wanted());
    }
}
