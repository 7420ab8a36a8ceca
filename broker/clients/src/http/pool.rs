//! Idle connections by authority.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::Connection;
use super::error::SendError;
use super::lane::Lane;
use super::places::{Place, Places};
use super::target::{Authority, Security, Target, Trust};
use super::tls::PlatformRoots;
use super::turns::{Turn, Turns};

/// The limits of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// How long a connection that nobody uses is kept; shorter where the other side announces it.
    pub idle_timeout: Duration,
    /// The most connections to one authority that wait for use.
    pub idle_per_authority: usize,
    /// The most connections that wait for use.
    pub idle_in_all: usize,
    /// The longest that opening a connection may take: name, every address, and TLS. The wait for its turn does not
    /// count: whoever sends bounds that.
    pub connect_timeout: Duration,
    /// The most connections to one authority that are being opened: a host that is down takes no more sockets.
    pub opening_per_authority: usize,
    /// The most connections that are being opened.
    pub opening_in_all: usize,
    /// The most connections that are open, idle ones included. Whoever needs one more waits: that says nothing about the
    /// other side, and whoever sends bounds it. Meanwhile a connection is not kept idle, and used again for a moment only.
    pub open_in_all: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(90),
            idle_per_authority: 64,
            idle_in_all: 1024,
            connect_timeout: Duration::from_secs(10),
            opening_per_authority: 2048,
            opening_in_all: 4096,
            open_in_all: usize::MAX,
        }
    }
}

/// The part of open connections that may be being opened to one authority, one of so many: one that is down leaves the
/// others places.
const OPENING_SHARE: usize = 4;

impl PoolOptions {
    /// The usual limits where so many connections may be open.
    pub fn with_open_in_all(open_in_all: usize) -> Self {
        let usual = Self::default();
        let opening_per_authority = usual.opening_per_authority.min(open_in_all / OPENING_SHARE);
        Self { opening_per_authority, open_in_all, ..usual }
    }
}

/// Connections that wait for their next use. Lanes in use are bounded by whoever makes them.
///
/// A connection lives in the runtime in which it was opened: a process with several runtimes has a pool for each.
pub struct Pool {
    options: PoolOptions,
    platform_roots: PlatformRoots,
    idle: Mutex<Idle>,
    turns: Turns,
    places: Places,
}

#[derive(Default)]
struct Idle {
    /// By authority, the longest idle first. No queue is empty.
    by_authority: HashMap<Authority, VecDeque<Waiting>>,
    count: usize,
}

struct Waiting {
    connection: Connection,
    until: Instant,
}

impl Pool {
    /// A pool without connections.
    pub fn new(options: PoolOptions) -> Self {
        let turns = Turns::new(options.opening_per_authority, options.opening_in_all);
        let places = Places::new(options.open_in_all);
        Self { options, platform_roots: PlatformRoots::default(), idle: Mutex::default(), turns, places }
    }

    /// A lane to a target. It has no connection until its first request.
    pub fn lane(self: &Arc<Self>, target: &Target) -> Lane {
        Lane::new(Arc::clone(self), target.clone())
    }

    /// How many connections wait for use.
    pub fn idle_count(&self) -> usize {
        self.idle.lock().count
    }

    /// Closes the connections that were idle too long, and those that the other side has closed. A pool in use does so
    /// whenever it is full; whoever owns the pool calls this now and then, so that connections to a subscriber that
    /// gets no more events are closed too.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock();
        idle.sweep(Instant::now());
    }

    /// Whether somebody waits until one connection fewer is open. Whoever has one that is not in use lets go of it then.
    pub fn is_crowded(&self) -> bool {
        self.places.are_wanted()
    }

    /// The connection that was used last, since it is the likeliest to be open still.
    pub(super) fn check_out(&self, authority: &Authority) -> Option<Connection> {
        let now = Instant::now();
        self.idle.lock().pop(authority, now)
    }

    pub(super) fn check_in(&self, authority: &Authority, connection: Connection) {
        let now = Instant::now();
        let until = now + connection.idle_limit(self.options.idle_timeout);
        let mut idle = self.idle.lock();
        if idle.count >= self.options.idle_in_all {
            idle.sweep(now);
        }
        // Under the lock: see `Places::take`.
        if until > now && !self.is_crowded() && idle.count < self.options.idle_in_all {
            idle.push(authority, Waiting { connection, until }, self.options.idle_per_authority);
        }
    }

    /// Waits for the turn to open a connection: that says nothing about the other side, and is no failure.
    pub(super) async fn turn<'t>(&'t self, authority: &'t Authority) -> Turn<'t> {
        self.turns.turn(authority).await
    }

    /// Waits for the place of a connection, for which one that is idle is closed.
    pub(super) async fn place(&self) -> Place {
        self.places.take(|| self.idle.lock().close_oldest()).await
    }

    /// Opens a connection in its place.
    pub(super) async fn open(&self, authority: &Authority, place: Place) -> Result<Connection, SendError> {
        let limit = self.options.connect_timeout;
        let deadline = Instant::now() + limit;
        let tls = match &authority.security {
            Security::Plain => None,
            Security::Tls { name, trust } => {
                let config = match trust {
                    Trust::Own(own) => own.config(),
                    Trust::Platform => {
                        let loaded = self.platform_roots.config().await;
                        loaded.map_err(|source| SendError::PlatformRoots { source })?
                    }
                };
                Some((config, name.clone()))
            }
        };
        Connection::open(authority, tls, place, deadline, limit).await
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Idle {
    fn pop(&mut self, authority: &Authority, now: Instant) -> Option<Connection> {
        let queue = self.by_authority.get_mut(authority)?;
        let mut found = None;
        while let Some(newest) = queue.pop_back() {
            self.count -= 1;
            if newest.until > now {
                found = Some(newest.connection);
                break;
            }
        }
        if queue.is_empty() {
            self.by_authority.remove(authority);
        }
        found
    }

    fn push(&mut self, authority: &Authority, waiting: Waiting, limit: usize) {
        if limit == 0 {
            return;
        }
        if let Some(queue) = self.by_authority.get_mut(authority) {
            queue.push_back(waiting);
            if queue.len() > limit {
                queue.pop_front();
            } else {
                self.count += 1;
            }
        } else {
            self.by_authority.insert(authority.clone(), VecDeque::from([waiting]));
            self.count += 1;
        }
    }

    /// Closes the connection whose time is up first.
    fn close_oldest(&mut self) {
        let until = |queue: &VecDeque<Waiting>| queue.front().map(|waiting| waiting.until);
        let oldest = self.by_authority.iter().min_by_key(|(_, queue)| until(queue));
        let Some(authority) = oldest.map(|(authority, _)| authority.clone()) else { return };
        let Some(queue) = self.by_authority.get_mut(&authority) else { return };
        if queue.pop_front().is_some() {
            self.count -= 1;
        }
        if queue.is_empty() {
            self.by_authority.remove(&authority);
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.by_authority.retain(|_, queue| {
            queue.retain_mut(|waiting| waiting.until > now && waiting.connection.is_reusable());
            !queue.is_empty()
        });
        self.count = self.by_authority.values().map(VecDeque::len).sum();
    }
}
