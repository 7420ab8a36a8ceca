//! What all logs of the process share: the directory, the checkpoint, the ring, the limit, and the threads that
//! write.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use waypost_core::manifest::ResourceName;

use crate::clock::Clock;
use crate::embedded::books::{Alarm, Poison};
use crate::embedded::checkpoint::{Checkpoint, CheckpointError, Row};
use crate::embedded::disk::Disk;
use crate::embedded::disk::reserve::{Reserve, is_full};
use crate::embedded::log::{BrokerLog, Scratch};
use crate::embedded::ring::Ring;
use crate::error::AppendError;
use crate::record::Charge;

/// How long changes wait for the disk at most, where the disk keeps up.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// The checkpoint is committed again only after so many times what the last commit took.
const COMMIT_PAUSE: u32 = 20;
/// But no later than after this: a start works off what is not in the checkpoint.
const LONGEST_COMMIT_PAUSE: Duration = Duration::from_secs(5);
/// The part of the limit that batches from the reserve may use above it: one in this many.
const RESERVE_SHARE: u64 = 10;

/// What the logs share.
#[derive(Debug)]
pub(super) struct Shared {
    /// What is written here uses the reserve where there is no other room.
    pub(super) disk: Arc<dyn Disk>,
    /// The disk without its reserve, for what may be refused.
    pub(super) plain_disk: Arc<dyn Disk>,
    pub(super) reserve: Arc<Reserve>,
    pub(super) directory: PathBuf,
    pub(super) clock: Clock,
    pub(super) checkpoint: Checkpoint,
    pub(super) ring: Ring,
    pub(super) poison: Poison,
    pub(super) limit: u64,
    pub(super) used: Arc<AtomicU64>,
    pub(super) logs: Mutex<HashMap<ResourceName, Arc<BrokerLog>>>,
    pub(super) work: Arc<Work>,
    rounds: Mutex<Rounds>,
    /// For reading from segments: a new buffer for each reading would cost more than the reading.
    pub(super) buffers: Mutex<Vec<Vec<u8>>>,
    /// How many rounds were begun by whoever waits for them.
    secures: AtomicU64,
    _lock: DirectoryLock,
}

/// The lock on the directory, kept for its drop.
struct DirectoryLock(#[expect(dead_code, reason = "kept for its drop")] Box<dyn Any + Send + Sync>);

impl std::fmt::Debug for DirectoryLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectoryLock")
    }
}

#[derive(Debug)]
struct Rounds {
    next_commit: Instant,
    /// How many rounds were forced and are done.
    secured: u64,
    /// What was captured and could not be committed yet, for want of room.
    unwritten: Unwritten,
    /// Whether the last one found no room, which is told once.
    full: bool,
}

/// Rows, and the logs that they were captured from.
#[derive(Debug, Default)]
struct Unwritten {
    rows: Vec<Row>,
    logs: Vec<Arc<BrokerLog>>,
}

/// Why something was not written.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no room. Nothing was written, and what was to be waits.
    NoRoom(String),
    /// Nobody knows what is on the disk now.
    Broken(String),
}

impl Trouble {
    /// The trouble that an operation had, told in a sentence.
    pub(super) fn of(reason: String, error: &std::io::Error) -> Self {
        if is_full(error) { Self::NoRoom(reason) } else { Self::Broken(reason) }
    }
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NoRoom(reason) | Trouble::Broken(reason) => reason,
        }
    }
}

/// What the threads wait for.
#[derive(Debug, Default)]
pub(super) struct Work {
    state: Mutex<WorkState>,
    for_writers: Condvar,
    for_flusher: Condvar,
}

#[derive(Debug, Default)]
struct WorkState {
    logs: VecDeque<Arc<BrokerLog>>,
    dirty: bool,
    stopping: bool,
}

impl Alarm for Work {
    fn something_waits(&self) {
        self.state.lock().dirty = true;
        self.for_flusher.notify_one();
    }
}

impl Work {
    /// Has a writer look at a log's queue.
    pub(super) fn schedule(&self, log: Arc<BrokerLog>) {
        let mut state = self.state.lock();
        if state.stopping {
            // Nobody would take it out again.
            return;
        }
        state.logs.push_back(log);
        drop(state);
        self.for_writers.notify_one();
    }

    /// Lets all threads end.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        state.logs.clear();
        drop(state);
        self.for_writers.notify_all();
        self.for_flusher.notify_all();
    }

    /// Whether another log waits for a writer, or it is time to end.
    fn others_wait(&self) -> bool {
        let state = self.state.lock();
        state.stopping || !state.logs.is_empty()
    }

    fn next_log(&self) -> Option<Arc<BrokerLog>> {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(log) = state.logs.pop_front() {
                return Some(log);
            }
            self.for_writers.wait(&mut state);
        }
    }

    /// Waits until something is to be flushed, and then a little more. False where it is time to end.
    fn wait_to_flush(&self) -> bool {
        let mut state = self.state.lock();
        while !state.dirty && !state.stopping {
            self.for_flusher.wait(&mut state);
        }
        let until = Instant::now() + FLUSH_EVERY;
        while !state.stopping && !self.for_flusher.wait_until(&mut state, until).timed_out() {}
        state.dirty = false;
        !state.stopping
    }
}

/// What a writer thread does.
pub(super) fn write_until_stopped(work: &Work) {
    let mut scratch = Scratch::default();
    while let Some(log) = work.next_log() {
        // One goes on with its log while no other waits: a change of threads costs more than a frame.
        while write_some_or_poison(&log, &mut scratch) {
            // Whoever waits for a processor goes first: what they append makes the next frame larger. Where nobody
            // waits this costs nothing.
            thread::yield_now();
            if work.others_wait() {
                work.schedule(log);
                break;
            }
        }
    }
}

/// As [`BrokerLog::write_some`]. Without its thread nothing would be acknowledged any more and nobody would know why, so
/// that a panic is a failure of the storage like any other.
fn write_some_or_poison(log: &BrokerLog, scratch: &mut Scratch) -> bool {
    let written = catch_unwind(AssertUnwindSafe(|| log.write_some(scratch)));
    written.unwrap_or_else(|_| {
        // Those whose batches were on their way are told with it.
        *scratch = Scratch::default();
        log.poison("writing to a log panicked; please report this");
        true
    })
}

/// What the flushing thread does.
pub(super) fn flush_until_stopped(shared: &Shared) {
    while shared.work.wait_to_flush() {
        // What fails poisons the store, which is where everyone sees it.
        if catch_unwind(AssertUnwindSafe(|| shared.round(false))).is_err() {
            shared.poison.set("writing the ledgers panicked; please report this");
        }
    }
}

pub(super) struct Parts {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) plain_disk: Arc<dyn Disk>,
    pub(super) reserve: Arc<Reserve>,
    pub(super) directory: PathBuf,
    pub(super) clock: Clock,
    pub(super) checkpoint: Checkpoint,
    pub(super) ring_bytes: usize,
    pub(super) limit: u64,
    pub(super) lock: Box<dyn Any + Send + Sync>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { disk, plain_disk, reserve, directory, clock, checkpoint, ring_bytes, limit, lock } =
            parts;
        Self {
            disk,
            plain_disk,
            reserve,
            directory,
            clock,
            checkpoint,
            ring: Ring::new(ring_bytes),
            poison: Poison::new(),
            limit,
            used: Arc::default(),
            logs: Mutex::default(),
            work: Arc::default(),
            rounds: Mutex::new(Rounds {
                next_commit: Instant::now(),
                secured: 0,
                unwritten: Unwritten::default(),
                full: false,
            }),
            buffers: Mutex::default(),
            secures: AtomicU64::new(0),
            _lock: DirectoryLock(lock),
        }
    }

    fn logs(&self) -> Vec<Arc<BrokerLog>> {
        self.logs.lock().values().cloned().collect()
    }

    /// Takes a share of the limit for a batch. What nobody is owed counts as free: it goes before the batch is
    /// written.
    pub(super) fn admit(&self, bytes: u64, from_reserve: bool) -> Result<Charge, AppendError> {
        let reserve = if from_reserve { self.limit / RESERVE_SHARE } else { 0 };
        let limit = self.limit.saturating_add(reserve);
        if let Ok(charge) = Charge::within(&self.used, bytes, limit) {
            return Ok(charge);
        }
        let free: u64 = self.logs().iter().map(|log| log.reclaimable()).sum();
        Charge::within(&self.used, bytes, limit.saturating_add(free))
            .map_err(|used| AppendError::Full { used: used.saturating_sub(free), limit: self.limit })
    }

    /// Gives up what nobody is owed while more is in use than may be.
    pub(super) fn make_room(&self, asking: &BrokerLog) {
        let excess = || self.used.load(Ordering::Relaxed).saturating_sub(self.limit);
        if excess() == 0 {
            return;
        }
        for log in self.logs() {
            let excess = excess();
            if excess == 0 {
                return;
            }
            log.release_under_pressure(excess, std::ptr::eq(Arc::as_ptr(&log), asking));
        }
    }

    /// Whether the reserve is held, or can be taken again now.
    pub(super) fn reserve_is_held(&self) -> bool {
        // The checkpoint takes room for the most that a commit may need. Where nothing is left to be given up, that room would
        // lack for ever.
        self.reserve.is_held(self.checkpoint.spare_room())
    }

    pub(super) fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Writes out what changed, and commits the checkpoint where it is time, or where `force` says so.
    pub(super) fn round(&self, force: bool) -> Result<(), String> {
        self.exclusively(|shared| shared.flush(force))
    }

    /// As [`Shared::round`] with `force`, where those who ask at the same time share one.
    pub(super) fn secure(&self) -> Result<(), String> {
        // What has begun by now may lack what we ask for; what begins later has it.
        let begun = self.secures.load(Ordering::SeqCst);
        let mut rounds = self.rounds.lock();
        if rounds.secured > begun {
            return self.poison.reason().map_or(Ok(()), Err);
        }
        let number = self.secures.fetch_add(1, Ordering::SeqCst) + 1;
        let result = self.act(&mut rounds, |flusher| flusher.flush(true));
        if result.is_ok() {
            rounds.secured = number;
        }
        result
    }

    /// Commits what a log that nobody uses yet has to write.
    pub(super) fn commit_of(&self, log: &Arc<BrokerLog>) -> Result<(), String> {
        self.exclusively(|flusher| {
            flusher.write_unwritten()?;
            // What is captured is captured once: where it finds no room, it waits.
            *flusher.unwritten.borrow_mut() = Unwritten { rows: log.capture(), logs: vec![Arc::clone(log)] };
            flusher.commit_unwritten()
        })
    }

    /// Does something while nothing is flushed. A failure poisons the store, unless all that lacks is room.
    pub(super) fn exclusively<T, E: Into<Trouble>>(
        &self,
        action: impl FnOnce(&Flusher<'_>) -> Result<T, E>,
    ) -> Result<T, String> {
        self.act(&mut self.rounds.lock(), action)
    }

    fn act<T, E: Into<Trouble>>(
        &self,
        rounds: &mut Rounds,
        action: impl FnOnce(&Flusher<'_>) -> Result<T, E>,
    ) -> Result<T, String> {
        if let Some(reason) = self.poison.reason() {
            return Err(reason);
        }
        let unwritten = RefCell::new(std::mem::take(&mut rounds.unwritten));
        let flusher = Flusher { shared: self, next_commit: Cell::new(rounds.next_commit), unwritten };
        let result = action(&flusher).map_err(Into::into);
        rounds.next_commit = flusher.next_commit.get();
        rounds.unwritten = flusher.unwritten.into_inner();
        match result {
            Ok(done) => {
                rounds.full = false;
                Ok(done)
            }
            Err(Trouble::NoRoom(reason)) => {
                if !std::mem::replace(&mut rounds.full, true) {
                    tracing::warn!(
                        reason,
                        "the file system is full: changes wait in memory until there is room"
                    );
                }
                // It is tried again.
                self.work.something_waits();
                Err(reason)
            }
            Err(Trouble::Broken(reason)) => {
                self.poison.set(&reason);
                Err(reason)
            }
        }
    }
}

/// The right to flush.
#[derive(Debug)]
pub(super) struct Flusher<'a> {
    shared: &'a Shared,
    next_commit: Cell<Instant>,
    unwritten: RefCell<Unwritten>,
}

impl Flusher<'_> {
    /// Writes out what changed in all logs. When this has returned after `force`, everything that changed before is in
    /// the checkpoint.
    pub(super) fn flush(&self, force: bool) -> Result<(), Trouble> {
        let logs = self.shared.logs();
        self.write_unwritten()?;
        let due = force || Instant::now() >= self.next_commit.get();
        let mut captured = Unwritten::default();
        let mut trouble = None;
        for log in logs {
            let changed = log.take_change();
            let capture = due && (changed || log.behind());
            if capture {
                captured.rows.extend(log.capture());
                captured.logs.push(Arc::clone(&log));
            }
            // What is captured may tell of something that came only now.
            match if changed || capture { log.flush() } else { Ok(()) } {
                Err(Trouble::NoRoom(reason)) => {
                    log.flush_again();
                    trouble = Some(reason);
                }
                result => result?,
            }
        }
        if !due {
            // Whoever is behind is looked at again.
            self.shared.work.something_waits();
        }
        *self.unwritten.borrow_mut() = captured;
        match trouble {
            Some(reason) => Err(Trouble::NoRoom(reason)),
            None => self.commit_unwritten(),
        }
    }

    /// Writes what was captured before and found no room then.
    fn write_unwritten(&self) -> Result<(), Trouble> {
        if self.unwritten.borrow().rows.is_empty() {
            return Ok(());
        }
        // First what the rows count on.
        for log in self.shared.logs() {
            log.flush()?;
        }
        self.commit_unwritten()
    }

    fn commit_unwritten(&self) -> Result<(), Trouble> {
        let mut unwritten = self.unwritten.borrow_mut();
        if !unwritten.rows.is_empty() {
            self.commit(&unwritten.rows)?;
            unwritten.logs.iter().for_each(|log| log.captured());
            *unwritten = Unwritten::default();
        }
        Ok(())
    }

    /// Sees to it that there is room for a commit of little, so that what is taken out for one can be written. What was
    /// captured before goes first: the row of a log speaks of it.
    pub(super) fn prepare(&self) -> Result<(), Trouble> {
        self.write_unwritten()?;
        self.shared.checkpoint.make_room(&[])
    }

    /// Commits rows to the checkpoint.
    pub(super) fn commit(&self, rows: &[Row]) -> Result<(), Trouble> {
        self.shared.checkpoint.make_room(rows)?;
        let started = Instant::now();
        let result = self.shared.checkpoint.commit(rows);
        let pause = (started.elapsed() * COMMIT_PAUSE).clamp(FLUSH_EVERY, LONGEST_COMMIT_PAUSE);
        self.next_commit.set(started + pause);
        result.map_err(|error: CheckpointError| Trouble::Broken(error.to_string()))
    }
}
