//! The seam to the file system. Everything that the log and its checkpoint write goes through here, so that a test
//! can stop it at any write and see what a machine finds that lost its power there.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use descriptors::with_descriptor;
use direct::Direct;
pub(super) use direct::place;

mod descriptors;
mod direct;
pub(super) mod overlay;
pub(super) mod reserve;
#[cfg(test)]
pub(super) mod simulated;

/// Files and directories are for their owner alone: events and manifests may hold what is nobody else's business.
const OWNERS_FILE: u32 = 0o600;
const OWNERS_DIRECTORY: u32 = 0o700;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It must not exist.
    New,
    /// It must exist.
    Existing,
    /// It must exist, and is only read.
    Reading,
    /// It must exist, and what waits for the disk is written to it.
    Writing,
    /// It is made where it does not exist.
    Either,
}

/// Where files are.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Makes a directory with all above it, so that it is there after a loss of power.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory; none where it does not exist.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing. What is to be written waits for a free file descriptor, and blocks the thread
    /// for as long.
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file; one that is gone already is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory; one that is gone already is no error.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes what was made and removed in a directory durable. It may wait as [`Disk::open`] does.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes a lock that no other process gets as long as what is returned lives.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// The bytes that the file system has in all, where it says so.
    fn capacity(&self, path: &Path) -> Option<u64>;

    /// The bytes that are free for us there, where it says so.
    fn free(&self, path: &Path) -> Option<u64>;
}

/// An open file.
pub(super) trait DiskFile: fmt::Debug + Send + Sync {
    fn length(&self) -> io::Result<u64>;

    /// Reads what there is, at most the length of the buffer: less only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Writes as [`DiskFile::write_at`] does, past the memory of the system where that can be done: for much that nobody
    /// reads soon. It can be done for whole blocks of a file that are blocks of memory too, see [`place`]; what is before
    /// and behind them goes the usual way.
    fn write_past_cache(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let (before, blocks, behind) = direct::split(bytes, at);
        let (blocks_at, behind_at) = (at + before.len() as u64, at + (before.len() + blocks.len()) as u64);
        if blocks.is_empty() || !self.write_blocks(blocks, blocks_at)? {
            return self.write_at(bytes, at);
        }
        self.write_at(before, at)?;
        self.write_at(behind, behind_at)
    }

    /// Writes whole blocks past the memory of the system; false where that cannot be done, and they are to be written the
    /// usual way.
    fn write_blocks(&self, _blocks: &[u8], _at: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Takes room on the disk up to `length`, so that writes below it need none; new bytes are zero.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Takes room as [`DiskFile::allocate`] does, and leaves the length as it is.
    fn take_room(&self, length: u64) -> io::Result<()>;

    /// Sets the length: cuts, or adds zeros without taking room for them.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes everything written before durable, the length with it.
    fn sync(&self) -> io::Result<()>;

    /// Tells the system that nobody will read soon what is synced, so that it may use the memory for something else.
    fn forget(&self);
}

/// The file system of this machine.
#[derive(Debug)]
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_directory(parent)?;
        }
        match fs::DirBuilder::new().mode(OWNERS_DIRECTORY).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        parent.map_or(Ok(()), |parent| self.sync_directory(parent))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Opening::Reading).mode(OWNERS_FILE);
        match how {
            Opening::New => options.create_new(true),
            Opening::Existing | Opening::Reading | Opening::Writing => &mut options,
            Opening::Either => options.create(true).truncate(false),
        };
        let file = match how {
            Opening::New | Opening::Writing | Opening::Either => with_descriptor(|| options.open(path)),
            // Whoever reads tries again by itself, or does without.
            Opening::Existing | Opening::Reading => options.open(path),
        }?;
        Ok(Arc::new(SystemFile { file, direct: Direct::new(path) }))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
        path.parent().map_or(Ok(()), |parent| self.sync_directory(parent))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        with_descriptor(|| File::open(path))?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(OWNERS_FILE).open(path)?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::Error(error) => error,
            fs::TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        })?;
        Ok(Box::new(file))
    }

    fn capacity(&self, path: &Path) -> Option<u64> {
        let about = rustix::fs::statvfs(path).ok()?;
        about.f_frsize.checked_mul(about.f_blocks)
    }

    fn free(&self, path: &Path) -> Option<u64> {
        let about = rustix::fs::statvfs(path).ok()?;
        about.f_frsize.checked_mul(about.f_bavail)
    }
}

#[derive(Debug)]
struct SystemFile {
    file: File,
    direct: Direct,
}

impl DiskFile for SystemFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], at + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn write_blocks(&self, blocks: &[u8], at: u64) -> io::Result<bool> {
        self.direct.write_at(&self.file, blocks, at)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            // A file system that cannot promise room: it is met at the write.
            Err(rustix::io::Errno::OPNOTSUPP) => self.file.set_len(length),
            result => Ok(result?),
        }
    }

    fn take_room(&self, length: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length) {
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget(&self) {
        // A system that takes no such hints, or does not take this one, keeps the memory until others need it.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }
}
