//! Producers that send one event after the other, and the book of what was acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use crate::broker::pause;
use crate::event;
use crate::wire::Connection;

/// How long a producer waits after it was refused.
const AFTER_REFUSAL: Duration = Duration::from_millis(5);

/// What was sent and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Book {
    next: AtomicU64,
    acknowledged: Mutex<Vec<u64>>,
    refused: Mutex<BTreeMap<(u16, String), u64>>,
}

impl Book {
    /// The events that were acknowledged.
    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.lock().clone()
    }

    /// How many events were sent, whatever became of them.
    pub(crate) fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// How often events were refused, by status and code.
    pub(crate) fn refused(&self) -> BTreeMap<(u16, String), u64> {
        self.refused.lock().clone()
    }

    /// Sends the next event. False where no answer came: the broker is gone.
    pub(crate) fn send(&self, connection: &mut Connection, to: SocketAddr) -> bool {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Ok(answer) = connection.send(&event::request(to, number)) else { return false };
        match answer.status() {
            200..300 => self.acknowledged.lock().push(number),
            status => {
                let code = answer.json()["code"].as_str().unwrap_or("no code").to_owned();
                *self.refused.lock().entry((status, code)).or_default() += 1;
                pause(AFTER_REFUSAL);
            }
        }
        true
    }
}

/// Producers at work. They end with the broker, or when this is dropped.
#[derive(Debug)]
pub(crate) struct Producers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Producers {
    /// Starts so many, each of which waits for every answer, and then for `rest`.
    pub(crate) fn start(count: usize, rest: Duration, book: &Arc<Book>, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|_| {
                let (stop, book) = (Arc::clone(&stop), Arc::clone(book));
                thread::spawn(move || {
                    let Ok(mut connection) = Connection::open(to) else { return };
                    while !stop.load(Ordering::Relaxed) && book.send(&mut connection, to) {
                        pause(rest);
                    }
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// Waits until all have their last answer.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Producers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}
