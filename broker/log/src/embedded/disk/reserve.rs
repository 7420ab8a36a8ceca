//! Room that is kept for what must go on when the file system is full: a file of its own, given up when an allocation
//! finds no room, and made again when there is some.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, Opening};

/// The file that holds the room.
const FILE: &str = "RESERVE";
/// The reserve is this part of what a store may take, within the bounds below.
const SHARE: u64 = 64;
const SMALLEST: u64 = 1024 * 1024;
const LARGEST: u64 = 32 * 1024 * 1024;
/// The reserve is made again when so many times its size is free or taken ahead, so that it is not taken from those who
/// need it.
const FREE_FOR_NEW: u64 = 2;

/// Whether an error says that there is no room. Nothing was written then, and later there may be room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The reserve of a data directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes: u64,
    held: Mutex<bool>,
}

impl Reserve {
    /// Takes the reserve of a store that may take `limit` bytes. Where there is no room for it, the store begins
    /// without.
    pub(crate) fn open(disk: Arc<dyn Disk>, directory: &Path, limit: u64) -> io::Result<Arc<Self>> {
        let bytes = (limit / SHARE).clamp(SMALLEST, LARGEST);
        let reserve = Self { disk, path: directory.join(FILE), bytes, held: Mutex::new(false) };
        reserve.take(&mut reserve.held.lock())?;
        Ok(Arc::new(reserve))
    }

    /// Whether it is held, or can be taken again now. Those who need what is beside it have taken `ahead` bytes already.
    pub(crate) fn is_held(&self, ahead: u64) -> bool {
        let mut held = self.held.lock();
        if !*held {
            let free = self.path.parent().and_then(|directory| self.disk.free(directory));
            if free.is_some_and(|free| free.saturating_add(ahead) / FREE_FOR_NEW < self.bytes) {
                return false;
            }
            // What fails here is met again where it matters.
            if matches!(self.take(&mut held), Ok(true)) {
                tracing::info!(file = %self.path.display(), "there is room again: the reserve is taken");
            }
        }
        *held
    }

    /// Whether it is held after trying to take it.
    fn take(&self, held: &mut bool) -> io::Result<bool> {
        let file = self.disk.open(&self.path, Opening::Either)?;
        *held = match file.allocate(self.bytes) {
            Ok(()) => true,
            Err(error) if is_full(&error) => false,
            Err(error) => return Err(error),
        };
        if !*held {
            file.set_length(0)?;
        }
        Ok(*held)
    }

    /// Gives the room up. False where it was given up before.
    fn give_up(&self) -> io::Result<bool> {
        let mut held = self.held.lock();
        if !std::mem::replace(&mut *held, false) {
            return Ok(false);
        }
        tracing::warn!(file = %self.path.display(), "the file system is full: the reserve is given up");
        self.disk.open(&self.path, Opening::Either)?.set_length(0)?;
        Ok(true)
    }
}

/// A disk whose files use the reserve where there is no other room.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) reserve: Arc<Reserve>,
}

#[derive(Debug)]
struct ReservedFile {
    file: Arc<dyn DiskFile>,
    reserve: Arc<Reserve>,
}

impl Disk for Reserved {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(ReservedFile { file, reserve: Arc::clone(&self.reserve) }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_directory(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.disk.lock(path)
    }

    fn capacity(&self, path: &Path) -> Option<u64> {
        self.disk.capacity(path)
    }

    fn free(&self, path: &Path) -> Option<u64> {
        self.disk.free(path)
    }
}

impl ReservedFile {
    fn with_room(&self, action: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match action() {
            Err(error) if is_full(&error) && self.reserve.give_up()? => action(),
            result => result,
        }
    }

    /// Takes room for what goes beyond the end, so that nothing is written where there is none.
    fn make_room(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        if end > self.file.length()? {
            self.with_room(|| self.file.take_room(end))?;
        }
        Ok(())
    }
}

impl DiskFile for ReservedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.make_room(bytes, at)?;
        self.file.write_at(bytes, at)
    }

    fn write_blocks(&self, blocks: &[u8], at: u64) -> io::Result<bool> {
        self.make_room(blocks, at)?;
        self.file.write_blocks(blocks, at)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.with_room(|| self.file.allocate(length))
    }

    fn take_room(&self, length: u64) -> io::Result<()> {
        self.with_room(|| self.file.take_room(length))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn forget(&self) {
        self.file.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::disk::simulated::SimulatedDisk;

    #[test]
    fn it_is_taken_again_where_enough_is_free_or_taken_by_those_who_need_it() {
        let disk = SimulatedDisk::new();
        let directory = Path::new("/data");
        disk.create_directory(directory).expect("the disk works");
        let limit = 4 * SHARE * SMALLEST;
        let reserve = Reserve::open(Arc::new(disk.clone()), directory, limit).expect("the disk works");
        let bytes = reserve.bytes;
        assert!(reserve.is_held(0));
        assert!(reserve.give_up().expect("the disk works"));
        disk.set_room(disk.taken() + 2 * bytes - 1);
        assert!(!reserve.is_held(0), "it would be taken from those who need the rest");
        assert!(reserve.is_held(1));
        assert!(reserve.give_up().expect("the disk works"));
        disk.set_room(disk.taken() + bytes - 1);
        assert!(!reserve.is_held(u64::MAX), "there is no room for it at all");
        disk.set_room(disk.taken() + 2 * bytes);
        assert!(reserve.is_held(0));
    }
}
