//! The checkpoint: one redb file with the rows of every log, each row with a checksum of its own over key and value,
//! so that a body that is parked there comes back as it was or not at all.
//!
//! ```text
//! key:   namespace, name (each length u32) | kind u8 | number u64, big-endian
//! value: CRC32C u32 | content
//! ```

mod kept;
mod room;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, Durability, ReadableDatabase, ReadableTableMetadata, TableDefinition, TableStats};
use waypost_core::manifest::ResourceName;

use self::room::{Backend, Needed, Room};
use crate::embedded::codec::Put;
use crate::embedded::disk::{Disk, Opening};
use crate::embedded::note::put_name;
use crate::embedded::store::Trouble;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// The bytes of pages that are kept in memory.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// For less room than this nobody looks at what there is already.
const LOOKED_AT: u64 = 4 * 1024 * 1024;

/// What a row is about; its number says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The log as a whole; number 0.
    Log = 1,
    /// The ledger of a trigger, by its number.
    Ledger = 2,
    /// The name of a trigger, by its number.
    Name = 3,
    /// A plan, by its version.
    Plan = 4,
    /// A dead letter, by its number.
    Letter = 5,
    /// A record that is kept although its segment is gone, by its offset.
    Parked = 6,
    /// How far a source has read, by the hash of its name.
    Source = 7,
    /// Pages of the schedule of a trigger, by its number; their keys end with the number of the page, u64.
    Schedule = 8,
}

/// A change of the rows.
#[derive(Debug, Clone)]
pub(super) struct Row {
    key: Vec<u8>,
    change: RowChange,
}

#[derive(Debug, Clone)]
enum RowChange {
    Put(Vec<u8>),
    Remove,
    RemovePages,
}

impl Row {
    pub(super) fn put(log: &ResourceName, kind: Kind, number: u64, content: &[u8]) -> Self {
        Self::put_at(key_of(log, kind, number), content)
    }

    pub(super) fn remove(log: &ResourceName, kind: Kind, number: u64) -> Self {
        Self { key: key_of(log, kind, number), change: RowChange::Remove }
    }

    /// One of the pages that a number has.
    pub(super) fn put_page(log: &ResourceName, kind: Kind, number: u64, page: u64, content: &[u8]) -> Self {
        Self::put_at(page_key(log, kind, number, page), content)
    }

    pub(super) fn remove_page(log: &ResourceName, kind: Kind, number: u64, page: u64) -> Self {
        Self { key: page_key(log, kind, number, page), change: RowChange::Remove }
    }

    /// All pages of a number.
    pub(super) fn remove_pages(log: &ResourceName, kind: Kind, number: u64) -> Self {
        Self { key: key_of(log, kind, number), change: RowChange::RemovePages }
    }

    fn put_at(key: Vec<u8>, content: &[u8]) -> Self {
        let mut value = Vec::with_capacity(content.len() + 4);
        value.put_u32(checksum(&key, content));
        value.put(content);
        Self { key, change: RowChange::Put(value) }
    }
}

fn page_key(log: &ResourceName, kind: Kind, number: u64, page: u64) -> Vec<u8> {
    let mut key = key_of(log, kind, number);
    key.put(&page.to_be_bytes());
    key
}

fn key_of(log: &ResourceName, kind: Kind, number: u64) -> Vec<u8> {
    let mut key = Vec::new();
    put_name(&mut key, log);
    key.put_u8(kind as u8);
    key.put(&number.to_be_bytes());
    key
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

/// Why the checkpoint cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CheckpointError {
    #[error("the checkpoint {} is corrupt: {reason}", .file.display())]
    Corrupt { file: PathBuf, reason: String },
    #[error("the checkpoint {} cannot be used: {reason}", .file.display())]
    Failed { file: PathBuf, reason: String },
}

/// The open checkpoint.
pub(super) struct Checkpoint {
    database: Database,
    file: PathBuf,
    room: Arc<Room>,
}

impl Checkpoint {
    /// Opens the file, or makes it. Reads all of it, to know that it is intact.
    pub(super) fn open(disk: &dyn Disk, file: &Path) -> Result<Self, CheckpointError> {
        let stored = disk.open(file, Opening::Either).map_err(|error| failed(file, &error))?;
        let room = Arc::new(Room::open(stored).map_err(|error| failed(file, &error))?);
        let database = guarded(file, || {
            let backend = Backend(Arc::clone(&room));
            // A repair reads all of it as well: after an unclean end once is enough.
            let repaired = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&repaired);
            let mut database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .set_repair_callback(move |_| told.store(true, Ordering::Relaxed))
                .create_with_backend(backend)?;
            if !repaired.load(Ordering::Relaxed) && !database.check_integrity()? {
                return Err(redb::Error::Corrupted("a page failed its checksum".to_owned()));
            }
            let transaction = database.begin_write()?;
            transaction.open_table(ROWS)?;
            transaction.commit()?;
            Ok(database)
        })?;
        Ok(Self { database, file: file.to_owned(), room })
    }

    /// All rows of a kind that a log has, by their numbers; pages by theirs.
    pub(super) fn load(
        &self,
        log: &ResourceName,
        kind: Kind,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let (from, to) = (key_of(log, kind, 0), page_key(log, kind, u64::MAX, u64::MAX));
        let mut visited = Ok(());
        guarded(&self.file, || {
            let table = self.database.begin_read()?.open_table(ROWS)?;
            for row in table.range(from.as_slice()..=to.as_slice())? {
                let (key, value) = row?;
                visited = self
                    .content(key.value(), value.value())
                    .and_then(|content| visit(number_of(key.value()), content));
                if visited.is_err() {
                    break;
                }
            }
            Ok(())
        })?;
        visited
    }

    /// One row.
    pub(super) fn get(
        &self,
        log: &ResourceName,
        kind: Kind,
        number: u64,
    ) -> Result<Option<Vec<u8>>, CheckpointError> {
        let key = key_of(log, kind, number);
        let value = guarded(&self.file, || {
            let table = self.database.begin_read()?.open_table(ROWS)?;
            Ok(table.get(key.as_slice())?.map(|value| value.value().to_vec()))
        })?;
        value.map(|value| self.content(&key, &value).map(<[u8]>::to_vec)).transpose()
    }

    /// Takes room for what writing these rows may need, so that the file system has it when it is written.
    pub(super) fn make_room(&self, rows: &[Row]) -> Result<(), Trouble> {
        let mut needed = Needed::default();
        for row in rows {
            let value = match &row.change {
                RowChange::Put(value) => Some(value.len()),
                RowChange::Remove | RowChange::RemovePages => None,
            };
            needed.count(row.key.len(), value);
        }
        self.take_room(needed, || {
            guarded(&self.file, || Ok(Some(self.database.begin_read()?.open_table(ROWS)?.stats()?)))
        })
    }

    /// Takes room for rows of the tree that `tree` looks at, which takes a while where it is large; none where there is
    /// no such tree yet.
    fn take_room(
        &self,
        needed: Needed,
        tree: impl FnOnce() -> Result<Option<TableStats>, CheckpointError>,
    ) -> Result<(), Trouble> {
        let mut most = needed.anywhere();
        if most >= LOOKED_AT && !self.room.has(most) {
            let tree = tree().map_err(|error| Trouble::Broken(error.to_string()))?;
            most = needed.within(tree.as_ref());
        }
        self.room.take(most).map_err(|error| {
            Trouble::of(
                format!("there is no room for the checkpoint {}: {error}", self.file.display()),
                &error,
            )
        })
    }

    /// The bytes of room that were taken ahead of what is written.
    pub(super) fn spare_room(&self) -> u64 {
        self.room.spare()
    }

    /// Writes rows, all or none, and makes them durable.
    pub(super) fn commit(&self, rows: &[Row]) -> Result<(), CheckpointError> {
        guarded(&self.file, || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut table = transaction.open_table(ROWS)?;
                for row in rows {
                    match &row.change {
                        RowChange::Put(value) => drop(table.insert(row.key.as_slice(), value.as_slice())?),
                        RowChange::Remove => drop(table.remove(row.key.as_slice())?),
                        RowChange::RemovePages => {
                            let mut last = row.key.clone();
                            last.put(&u64::MAX.to_be_bytes());
                            table.retain_in(row.key.as_slice()..=last.as_slice(), |_, _| false)?;
                        }
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn content<'a>(&self, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], CheckpointError> {
        let intact = value
            .split_first_chunk::<4>()
            .filter(|(stored, content)| u32::from_le_bytes(**stored) == checksum(key, content));
        intact.map(|(_, content)| content).ok_or_else(|| self.corrupt("a row fails its checksum"))
    }

    /// The error for a row whose content cannot be read.
    pub(super) fn corrupt(&self, reason: impl fmt::Display) -> CheckpointError {
        CheckpointError::Corrupt { file: self.file.clone(), reason: reason.to_string() }
    }
}

fn number_of(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |number| u64::from_be_bytes(*number))
}

fn failed(file: &Path, error: &dyn fmt::Display) -> CheckpointError {
    CheckpointError::Failed { file: file.to_owned(), reason: error.to_string() }
}

/// Does something with the database. Damage that it meets with a panic is an error like any other.
fn guarded<T>(file: &Path, action: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, CheckpointError> {
    let corrupt = |reason: String| CheckpointError::Corrupt { file: file.to_owned(), reason };
    match catch_unwind(AssertUnwindSafe(action)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(redb::Error::Corrupted(reason))) => Err(corrupt(reason)),
        Ok(Err(redb::Error::Io(error))) if error.kind() == io::ErrorKind::InvalidData => {
            Err(corrupt(error.to_string()))
        }
        Ok(Err(error)) => Err(failed(file, &error)),
        Err(_) => Err(corrupt("reading it failed unexpectedly".to_owned())),
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("file", &self.file).finish_non_exhaustive()
    }
}
