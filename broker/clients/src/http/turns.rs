//! Turns to open a connection. Thousands of senders behind one host that is down would otherwise hold a socket each while
//! they wait for it, and no file could be opened in this process any more.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::target::Authority;

/// Who opens connections at the moment.
pub(super) struct Turns {
    per_authority: usize,
    in_all: Arc<Semaphore>,
    /// Of authorities to which somebody opens a connection, or waits to.
    by_authority: Mutex<HashMap<Authority, Arc<Semaphore>>>,
}

/// The right to open one connection.
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    authority: &'t Authority,
    /// None once it is over.
    place: Option<Arc<Semaphore>>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Turns {
    /// So many at a time to one authority, and so many in all; at least one each.
    pub(super) fn new(per_authority: usize, in_all: usize) -> Self {
        Self {
            per_authority: per_authority.max(1),
            in_all: Arc::new(Semaphore::new(in_all.max(1))),
            by_authority: Mutex::default(),
        }
    }

    /// Waits for a turn, in the order of asking. Cancel-safe: whoever is dropped while it waits loses its place only.
    pub(super) async fn turn<'t>(&'t self, authority: &'t Authority) -> Turn<'t> {
        let place = {
            let mut all = self.by_authority.lock();
            match all.get(authority) {
                Some(place) => Arc::clone(place),
                None => {
                    let place = Arc::new(Semaphore::new(self.per_authority));
                    all.insert(authority.clone(), Arc::clone(&place));
                    place
                }
            }
        };
        let of_authority = Arc::clone(&place);
        let mut turn = Turn { turns: self, authority, place: Some(place), permits: Vec::with_capacity(2) };
        // That of the authority first, so that those behind one host wait for each other and not for all.
        for semaphore in [of_authority, Arc::clone(&self.in_all)] {
            turn.permits.push(semaphore.acquire_owned().await.expect("no semaphore is ever closed"));
        }
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permits.clear();
        let mut all = self.turns.by_authority.lock();
        // Under the lock, so that the last one to go sees that it is.
        drop(self.place.take());
        if all.get(self.authority).is_some_and(|place| Arc::strong_count(place) == 1) {
            all.remove(self.authority);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::http::target::Security;

    fn authority(host: &str) -> Authority {
        Authority { host: host.into(), port: 80, security: Security::Plain }
    }

    fn is_waiting<T>(turn: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
        turn.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn those_behind_one_authority_wait_for_each_other_only() {
        let turns = Turns::new(2, 4);
        let (down, up) = (authority("down"), authority("up"));
        let first = turns.turn(&down).await;
        let _second = turns.turn(&down).await;
        let mut third = pin!(turns.turn(&down));
        assert!(is_waiting(third.as_mut()));
        let _others = (turns.turn(&up).await, turns.turn(&up).await);
        drop(first);
        let _third = third.await;
    }

    #[tokio::test]
    async fn there_are_no_more_in_all_than_allowed() {
        let turns = Turns::new(2, 1);
        let (one, other) = (authority("one"), authority("other"));
        let first = turns.turn(&one).await;
        let mut second = pin!(turns.turn(&other));
        assert!(is_waiting(second.as_mut()));
        drop(first);
        drop(second.await);
        assert!(turns.by_authority.lock().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_left_of_those_that_gave_up() {
        let turns = Turns::new(1, 1);
        let one = authority("one");
        let first = turns.turn(&one).await;
        {
            let mut second = pin!(turns.turn(&one));
            assert!(is_waiting(second.as_mut()));
        }
        assert_eq!(turns.by_authority.lock().len(), 1);
        drop(first);
        assert!(turns.by_authority.lock().is_empty());
        let first = turns.turn(&one).await;
        let mut second = Box::pin(turns.turn(&one));
        assert!(is_waiting(second.as_mut()));
        drop(first);
        // It had the turn, but never heard of it.
        drop(second);
        assert!(turns.by_authority.lock().is_empty());
    }
}
