//! The log on this machine's disk: what a resolved commit speaks of was synced.
//!
//! ```text
//! VERSION, LOCK                        of the directory
//! checkpoint.redb                      ledgers, names, plans, dead letters, parked records, sources
//! logs/NAMESPACE/NAME/BASE.log         a segment: frames of records
//!                     BASE.matches     its match lists
//!                     BASE.ids         who is found in it by source and id, once it is sealed
//!                     NUMBER.outcomes  the outcome journal
//! ```
//!
//! A batch is durable when its frame is synced. Match lists and outcomes are written every 100 ms, in this order, and
//! the checkpoint after both; each change has its place in one sequence, and the checkpoint says for each ledger up
//! to which place it covers them. So what is found after a crash is the state at one moment, at most a little old:
//! deliveries of that little are made again.
//!
//! A write or sync that fails poisons the store: nothing is acknowledged any more ([`EmbeddedStore::poisoned`]).

mod batch;
mod books;
mod checkpoint;
mod codec;
mod disk;
mod frame;
mod ids;
mod journal;
mod kept;
mod letters;
mod lists;
mod log;
mod note;
mod registry;
mod ring;
mod rows;
mod segment;
mod store;
#[cfg(test)]
mod suite;
mod verify;
mod version;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use waypost_core::Code;
use waypost_core::codes;
use waypost_core::manifest::ResourceName;

use crate::clock::Clock;
use crate::error::{ReadError, WriteError};
use crate::log::Log;

use checkpoint::Checkpoint;
use disk::reserve::{Reserve, Reserved};
use disk::{Disk, SystemDisk};
pub use kept::KeptChange;
use log::BrokerLog;
pub use log::Retention;
use store::{Parts, Shared, flush_until_stopped, write_until_stopped};
pub use verify::{VerifiedLog, verify_directory};

/// The bytes of the newest records that are kept in memory when nothing else is said.
pub const DEFAULT_RING_BYTES: usize = 32 * 1024 * 1024;
/// The bytes that a data directory may take at most when nothing else is said.
pub const DEFAULT_LIMIT: u64 = 64 * 1024 * 1024 * 1024;
/// The version of the data directory that this version writes.
pub const DATA_VERSION: u32 = 4;

/// The threads that write.
const WRITERS: usize = 2;

/// How a data directory is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The data directory; it is made where it does not exist.
    pub directory: PathBuf,
    /// The bytes that all logs may take together. None: 80 % of the file system or [`DEFAULT_LIMIT`], the smaller.
    pub limit: Option<u64>,
    /// The bytes of the newest records that are kept in memory, over all logs.
    pub ring_bytes: usize,
}

impl EmbeddedOptions {
    /// The defaults.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), limit: None, ring_bytes: DEFAULT_RING_BYTES }
    }
}

/// Why a data directory or a log in it cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file system refused.
    #[error(
        "{} cannot be used: {reason}; give this user the right to write there and room, or name another data directory",
        .path.display()
    )]
    Failed {
        /// What was used.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// Another process has the directory open.
    #[error("the data directory {} is used by another process; stop it, or name another directory", .directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory was written by a version that this one does not know.
    #[error(
        "the data directory {} is of format {found}, and this version knows {known}; use the version that wrote it, or a later one",
        .directory.display()
    )]
    Version {
        /// The directory.
        directory: PathBuf,
        /// Its format, as it is written there.
        found: String,
        /// The formats that this version knows.
        known: String,
    },
    /// What is stored is not what was written.
    #[error("{} is corrupt: {reason}; restore it from a copy, or move the data directory away to start anew", .file.display())]
    Corrupt {
        /// The file, or the directory where no single file is damaged.
        file: PathBuf,
        /// Place and kind of the damage.
        reason: String,
    },
}

impl OpenError {
    fn of(path: &Path, error: &io::Error) -> Self {
        Self::Failed { path: path.to_owned(), reason: error.to_string() }
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Failed { .. } => codes::DATA_DIRECTORY_UNUSABLE,
            Self::InUse { .. } => codes::DATA_DIRECTORY_LOCKED,
            Self::Version { .. } => codes::LOG_VERSION_UNKNOWN,
            Self::Corrupt { .. } => codes::LOG_CORRUPT,
        }
    }
}

/// A data directory, open: all logs of the process share its threads, its checkpoint and its limit.
///
/// Dropping it stops the threads as they are; what was acknowledged is on the disk. [`EmbeddedStore::close`] writes
/// everything out first.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// The logs that are being opened.
    opening: Mutex<HashSet<ResourceName>>,
    /// Notified when one of them is open, or is not.
    opened: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens a data directory, or makes one.
    pub fn open(options: EmbeddedOptions, clock: Clock) -> Result<Arc<Self>, OpenError> {
        Self::open_on(Arc::new(SystemDisk), options, clock)
    }

    fn open_on(disk: Arc<dyn Disk>, options: EmbeddedOptions, clock: Clock) -> Result<Arc<Self>, OpenError> {
        let EmbeddedOptions { directory, limit, ring_bytes } = options;
        let failed = |error: io::Error| OpenError::of(&directory, &error);
        disk.create_directory(&directory).map_err(failed)?;
        let lock = disk.lock(&directory.join("LOCK")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { directory: directory.clone() },
            _ => failed(error),
        })?;
        let limit = limit.unwrap_or_else(|| {
            let capacity = disk.capacity(&directory).unwrap_or(u64::MAX);
            DEFAULT_LIMIT.min(capacity / 5 * 4)
        });
        let plain_disk = disk;
        let reserve = Reserve::open(Arc::clone(&plain_disk), &directory, limit).map_err(failed)?;
        let disk: Arc<dyn Disk> =
            Arc::new(Reserved { disk: Arc::clone(&plain_disk), reserve: Arc::clone(&reserve) });
        let checkpoint = open_directory(&*disk, &directory)?;
        let parts =
            Parts { disk, plain_disk, reserve, directory, clock, checkpoint, ring_bytes, limit, lock };
        let shared = Arc::new(Shared::new(parts));
        let mut threads = Vec::with_capacity(WRITERS + 1);
        for number in 0..WRITERS {
            let work = Arc::clone(&shared.work);
            threads.push(spawn(&shared, format!("log-write-{number}"), move || write_until_stopped(&work))?);
        }
        let flushing = Arc::clone(&shared);
        threads.push(spawn(&shared, "log-flush".to_owned(), move || flush_until_stopped(&flushing))?);
        let (opening, opened) = (Mutex::default(), Condvar::new());
        Ok(Arc::new(Self { shared, opening, opened, threads: Mutex::new(threads) }))
    }

    /// Opens the log of a broker, as the last process left it, or a new one. Opening what is open already gives the
    /// same log; whoever asks while it is being opened waits for that. Blocks.
    pub fn open_log(&self, name: &ResourceName, retention: Retention) -> Result<Arc<dyn Log>, OpenError> {
        // Two that recover the same files at once would cut and write over each other.
        let _turn = Turn::wait_for(self, name);
        if let Some(log) = self.shared.logs.lock().get(name) {
            return Ok(Arc::clone(log) as Arc<dyn Log>);
        }
        let directory = directory_of(&self.shared.directory, name);
        let log = BrokerLog::open(&self.shared, name, &directory, retention)?;
        self.shared.logs.lock().insert(name.clone(), Arc::clone(&log));
        Ok(log as Arc<dyn Log>)
    }

    /// The brokers that have a log in the directory, open or not.
    pub fn logs(&self) -> Result<Vec<ResourceName>, OpenError> {
        let directory = self.shared.directory.join("logs");
        let failed = |error: io::Error| OpenError::of(&directory, &error);
        let mut names = Vec::new();
        for namespace in self.shared.disk.list(&directory).map_err(failed)? {
            for name in self.shared.disk.list(&directory.join(&namespace)).map_err(failed)? {
                names.push(ResourceName::new(unescape(&namespace), unescape(&name)));
            }
        }
        Ok(names)
    }

    /// Says why nothing is acknowledged any more, once that is so. The process should end then: what is on the disk
    /// is known only after a new start.
    pub fn poisoned(&self) -> watch::Receiver<Option<String>> {
        self.shared.poison.watch()
    }

    /// What is damaged in a log that is open, in sentences with file and place. While there is any, its broker
    /// should not be ready.
    pub fn damage(&self, name: &ResourceName) -> Vec<String> {
        self.shared.logs.lock().get(name).map_or_else(Vec::new, |log| log.damage())
    }

    /// Reads every record of an open log, and says what is damaged, as [`EmbeddedStore::damage`] does from then on.
    /// It reads from the disk: not for the threads of a runtime.
    pub fn verify(&self, name: &ResourceName) -> Result<Vec<String>, ReadError> {
        let log = self.shared.logs.lock().get(name).cloned();
        log.map_or_else(|| Ok(Vec::new()), |log| log.verify())
    }

    /// Passes over what is damaged in an open log from now on: an operator accepts that it is lost.
    /// Every record is read for it: not for the threads of a runtime.
    pub fn accept_damage(&self, name: &ResourceName) -> Result<(), WriteError> {
        let log = self.shared.logs.lock().get(name).cloned();
        log.map_or(Ok(()), |log| log.accept_damage())
    }

    /// Closes all logs, writes everything out, and stops the threads.
    pub async fn close(&self) {
        let logs: Vec<_> = self.shared.logs.lock().values().cloned().collect();
        for log in logs {
            log.stop().await;
        }
        self.stop();
    }

    fn stop(&self) {
        self.shared.work.stop();
        for thread in self.threads.lock().drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
        let logs = std::mem::take(&mut *self.shared.logs.lock());
        logs.values().for_each(|log| log.abandon());
    }
}

/// The right to open a log, which one has at a time.
struct Turn<'a> {
    store: &'a EmbeddedStore,
    name: &'a ResourceName,
}

impl<'a> Turn<'a> {
    fn wait_for(store: &'a EmbeddedStore, name: &'a ResourceName) -> Self {
        let mut opening = store.opening.lock();
        while !opening.insert(name.clone()) {
            store.opened.wait(&mut opening);
        }
        Self { store, name }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.store.opening.lock().remove(self.name);
        self.store.opened.notify_all();
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(
    shared: &Shared,
    name: String,
    action: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name).spawn(action).map_err(|error| {
        shared.work.stop();
        OpenError::of(&shared.directory, &error)
    })
}

/// Checks the version of the directory, or writes it into a new one, and opens the checkpoint.
fn open_directory(disk: &dyn Disk, directory: &Path) -> Result<Checkpoint, OpenError> {
    let failed = |error: io::Error| OpenError::of(directory, &error);
    let checkpoint = directory.join("checkpoint.redb");
    if let Some(found) = version::read(disk, directory)? {
        version::upgrade(disk, directory, &found)?;
        if !disk.list(directory).map_err(failed)?.iter().any(|name| name == "checkpoint.redb") {
            let reason = "the file is missing".to_owned();
            return Err(OpenError::Corrupt { file: checkpoint, reason });
        }
        return Ok(Checkpoint::open(disk, &checkpoint)?);
    }
    if !disk.list(&directory.join("logs")).map_err(failed)?.is_empty() {
        let reason = "the file is missing or empty".to_owned();
        return Err(OpenError::Corrupt { file: directory.join("VERSION"), reason });
    }
    // Without a version nothing was ever acknowledged from here: the start that made it was cut off.
    disk.remove(&checkpoint).map_err(failed)?;
    let opened = Checkpoint::open(disk, &checkpoint)?;
    disk.sync_directory(directory).map_err(failed)?;
    version::write(disk, directory, DATA_VERSION)?;
    Ok(opened)
}

/// Where the log of a broker is.
fn directory_of(directory: &Path, name: &ResourceName) -> PathBuf {
    directory.join("logs").join(escape(&name.namespace)).join(escape(&name.name))
}

/// A name as the name of a file: bytes other than `a-z 0-9 -` and inner dots as `%` and two digits.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for (index, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => escaped.push(char::from(byte)),
            b'.' if index > 0 => escaped.push('.'),
            _ => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    if escaped.is_empty() { "%".to_owned() } else { escaped }
}

fn unescape(escaped: &str) -> String {
    percent_encoding::percent_decode_str(escaped.strip_suffix('%').unwrap_or(escaped))
        .decode_utf8_lossy()
        .into_owned()
}
