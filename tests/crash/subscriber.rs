//! A subscriber that notes which events came and whether they are unchanged. It runs as long as the process.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::event;
use crate::failure::{Failure, ensure};
use crate::wire::Message;

/// Gives the status of an answer for the path, the number of the event, and which attempt it is, from 1.
type Script = dyn Fn(&str, u64, u16) -> u16 + Send + Sync;

/// A running subscriber.
#[derive(Debug)]
pub(crate) struct Subscriber {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    requests: AtomicU64,
    paths: Mutex<BTreeMap<String, Seen>>,
    changed: Mutex<Vec<String>>,
}

/// What came to a path, by the number of the event.
#[derive(Debug, Default)]
struct Seen {
    attempts: Vec<u16>,
    taken: Vec<bool>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl Subscriber {
    /// Starts one that answers as `script` says.
    pub(crate) fn start(
        script: impl Fn(&str, u64, u16) -> u16 + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let refused = || Failure::io("listening on a free port");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(refused())?;
        let address = listener.local_addr().map_err(refused())?;
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: AtomicU64::new(0),
            paths: Mutex::default(),
            changed: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                // A broker that is killed leaves its connections: their ends are no news.
                thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Ok(Self { address, shared })
    }

    /// The URL of a path on it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests that came so far.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Those of these events that the subscriber did not take at a path.
    pub(crate) fn missing(&self, path: &str, of: &[u64]) -> Vec<u64> {
        let paths = self.shared.paths.lock();
        let taken = paths.get(path).map_or(&[][..], |seen| &seen.taken);
        of.iter().copied().filter(|number| !taken.get(*number as usize).is_some_and(|taken| *taken)).collect()
    }

    /// Fails if an event came that was changed.
    pub(crate) fn unchanged(&self) -> Result<(), Failure> {
        let changed = self.shared.changed.lock();
        ensure(changed.is_empty(), || changed.join("\n"))
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Message::read(&mut reader)? {
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let status = shared.take(&request);
        let mut writer = stream;
        write!(writer, "HTTP/1.1 {status} -\r\ncontent-length: 0\r\n\r\n")?;
    }
    Ok(())
}

impl Shared {
    fn take(&self, request: &Message) -> u16 {
        let number = match event::read(request) {
            Ok(number) => number,
            Err(changed) => {
                self.changed.lock().push(changed);
                return 400;
            }
        };
        let path = request.path();
        let index = number as usize;
        let attempt = self.seen(path, |seen| {
            if seen.attempts.len() <= index {
                seen.attempts.resize(index + 1, 0);
                seen.taken.resize(index + 1, false);
            }
            seen.attempts[index] = seen.attempts[index].saturating_add(1);
            seen.attempts[index]
        });
        // Not under the lock: one that takes its time does not hold up the others.
        let status = (self.script)(path, number, attempt);
        self.seen(path, |seen| seen.taken[index] |= (200..300).contains(&status));
        status
    }

    fn seen<T>(&self, path: &str, look: impl FnOnce(&mut Seen) -> T) -> T {
        let mut paths = self.paths.lock();
        if let Some(seen) = paths.get_mut(path) {
            return look(seen);
        }
        look(paths.entry(path.to_owned()).or_default())
    }
}
