//! A disk in memory that can lose its power: what was not synced is then gone, or there in part.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Disk, DiskFile, Opening};

/// What the power's loss does to writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// They are gone.
    All,
    /// They are all there.
    Nothing,
    /// Each block of 512 bytes is there or not, as the seed says.
    Some(u64),
}

/// The disk. Clones see the same files.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<Files>,
    /// Writes, syncs and changes of directories so far.
    operations: AtomicU64,
    /// The operation at which the power goes, or `u64::MAX`.
    power_ends: AtomicU64,
    /// The operation that fails alone, with the error of a broken device.
    fails_at: AtomicU64,
    /// The bytes that were written so far.
    written: AtomicU64,
    /// The bytes that may be allocated in all; 0 for any number.
    room: AtomicU64,
    /// How often it was told that a file is not read soon.
    forgotten: AtomicU64,
    /// How often it was asked to write past the memory of the system.
    past_cache: AtomicU64,
}

#[derive(Debug, Default, Clone)]
struct Files {
    directories: BTreeSet<PathBuf>,
    now: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    durable: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// The bytes that it takes of the room.
    taken: u64,
}

#[derive(Debug)]
struct SimulatedFile {
    content: Arc<Mutex<Content>>,
    shared: Arc<Shared>,
}

impl Shared {
    fn step(&self) -> io::Result<()> {
        let step = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        if step >= self.power_ends.load(Ordering::SeqCst) {
            return Err(io::Error::other("the power is gone"));
        }
        if step == self.fails_at.load(Ordering::SeqCst) {
            return Err(io::Error::other("the device failed"));
        }
        Ok(())
    }
}

impl Shared {
    /// The bytes that all files take.
    fn taken(&self) -> u64 {
        self.files.lock().now.values().map(|content| content.lock().taken).sum()
    }

    /// Lets a file take so many bytes in all, where there is room.
    fn take(&self, content: &Mutex<Content>, length: u64) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        let more = length.saturating_sub(content.lock().taken);
        if more > 0 && room > 0 && self.taken() + more > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.lock().taken += more;
        Ok(())
    }
}

impl SimulatedDisk {
    /// The bytes that all files take.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken()
    }

    pub(crate) fn new() -> Self {
        let disk = Self::default();
        disk.0.power_ends.store(u64::MAX, Ordering::SeqCst);
        disk
    }

    /// Writes, syncs and changes of directories so far.
    pub(crate) fn operations(&self) -> u64 {
        self.0.operations.load(Ordering::SeqCst)
    }

    /// The bytes that were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.0.written.load(Ordering::SeqCst)
    }

    /// How often it was told that a file is not read soon.
    pub(crate) fn forgotten(&self) -> u64 {
        self.0.forgotten.load(Ordering::SeqCst)
    }

    /// How often it was asked to write past the memory of the system.
    pub(crate) fn past_cache(&self) -> u64 {
        self.0.past_cache.load(Ordering::SeqCst)
    }

    pub(crate) fn end_power_at(&self, operation: u64) {
        self.0.power_ends.store(operation, Ordering::SeqCst);
    }

    pub(crate) fn fail_at(&self, operation: u64) {
        self.0.fails_at.store(operation, Ordering::SeqCst);
    }

    /// Bounds what can be allocated; 0 takes the bound away.
    pub(crate) fn set_room(&self, bytes: u64) {
        self.0.room.store(bytes, Ordering::SeqCst);
    }

    /// The disk as a machine finds it that lost its power now.
    pub(crate) fn after_power_loss(&self, loss: Loss) -> Self {
        let files = self.0.files.lock();
        let after = Self::new();
        let mut left = after.0.files.lock();
        left.directories.clone_from(&files.directories);
        let mut seed = match loss {
            Loss::Some(seed) => fastrand::Rng::with_seed(seed),
            _ => fastrand::Rng::with_seed(0),
        };
        let entries = if loss == Loss::Nothing { &files.now } else { &files.durable };
        for (path, content) in entries {
            let content = content.lock();
            let bytes = match loss {
                Loss::All => content.durable.clone(),
                Loss::Nothing => content.now.clone(),
                Loss::Some(_) => mix(&content, &mut seed),
            };
            let content = Arc::new(Mutex::new(Content {
                taken: bytes.len() as u64,
                now: bytes.clone(),
                durable: bytes,
            }));
            left.now.insert(path.clone(), Arc::clone(&content));
            left.durable.insert(path.clone(), content);
        }
        drop(left);
        after
    }

    /// Every file with its bytes.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.0.files.lock();
        files.now.iter().map(|(path, content)| (path.clone(), content.lock().now.clone())).collect()
    }

    /// Puts other bytes into a file.
    pub(crate) fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let files = self.0.files.lock();
        let mut content = files.now[path].lock();
        content.now.clone_from(&bytes);
        content.durable = bytes;
    }
}

fn mix(content: &Content, seed: &mut fastrand::Rng) -> Vec<u8> {
    let length = if seed.bool() { content.now.len() } else { content.durable.len() };
    let mut bytes = content.durable.clone();
    bytes.resize(length, 0);
    for (index, block) in bytes.chunks_mut(512).enumerate() {
        let from = index * 512;
        if let Some(new) = content.now.get(from..(from + block.len()).min(content.now.len()))
            && seed.bool()
        {
            block[..new.len()].copy_from_slice(new);
        }
    }
    bytes
}

impl Disk for SimulatedDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        self.0.files.lock().directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let files = self.0.files.lock();
        let all = files.now.keys().chain(&files.directories);
        let below = all.filter_map(|entry| entry.strip_prefix(path).ok());
        let names: BTreeSet<String> = below
            .filter_map(|rest| rest.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.0.files.lock();
        let content = match (files.now.get(path), how) {
            (Some(_), Opening::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(content), _) => Arc::clone(content),
            (None, Opening::Existing | Opening::Reading | Opening::Writing) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (None, _) => {
                self.0.step()?;
                let content = Arc::<Mutex<Content>>::default();
                files.now.insert(path.to_owned(), Arc::clone(&content));
                content
            }
        };
        Ok(Arc::new(SimulatedFile { content, shared: Arc::clone(&self.0) }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        self.0.files.lock().now.remove(path);
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        self.0.files.lock().directories.remove(path);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        let mut files = self.0.files.lock();
        let Files { now, durable, .. } = &mut *files;
        durable.retain(|entry, _| entry.parent() != Some(path));
        let inside = now.iter().filter(|(entry, _)| entry.parent() == Some(path));
        durable.extend(inside.map(|(entry, content)| (entry.clone(), Arc::clone(content))));
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn capacity(&self, _path: &Path) -> Option<u64> {
        None
    }

    fn free(&self, _path: &Path) -> Option<u64> {
        let room = self.0.room.load(Ordering::SeqCst);
        (room > 0).then(|| room.saturating_sub(self.0.taken()))
    }
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.content.lock().now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let there = content.now.get(at..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let stopped = self.shared.step();
        self.shared.written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        self.shared.take(&self.content, at + bytes.len() as u64)?;
        let mut content = self.content.lock();
        let at = usize::try_from(at).map_err(io::Error::other)?;
        // A write that the power's end stops may have got half way.
        let written = if stopped.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        if content.now.len() < at + written.len() {
            content.now.resize(at + written.len(), 0);
        }
        content.now[at..at + written.len()].copy_from_slice(written);
        stopped
    }

    fn write_blocks(&self, blocks: &[u8], at: u64) -> io::Result<bool> {
        self.shared.past_cache.fetch_add(1, Ordering::SeqCst);
        self.write_at(blocks, at).map(|()| true)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.shared.step()?;
        self.shared.take(&self.content, length)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut content = self.content.lock();
        if content.now.len() < length {
            content.now.resize(length, 0);
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.shared.step()?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut content = self.content.lock();
        content.now.resize(length, 0);
        content.taken = content.taken.min(length as u64);
        Ok(())
    }

    fn take_room(&self, length: u64) -> io::Result<()> {
        self.shared.step()?;
        self.shared.take(&self.content, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.step()?;
        let mut content = self.content.lock();
        let Content { now, durable, .. } = &mut *content;
        durable.clone_from(now);
        Ok(())
    }

    fn forget(&self) {
        self.shared.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}
