//! The room that the checkpoint takes on the file system before it writes, so that a full one is met then and never in
//! a commit.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{StorageBackend, TableStats};

use crate::embedded::disk::DiskFile;

/// The room that is taken at once.
const ROOM_STEP: u64 = 256 * 1024;
/// The room that any commit may need beside its rows.
const HEADROOM: u64 = 128 * 1024;
/// The bytes of a page.
const PAGE: u64 = 4096;
/// The pages that a row may need beside its value: one of its own, and one above it on the way.
const PAGES_OF_A_ROW: u64 = 2 * PAGE;
/// What is noted of pages that a commit frees is less than this part of them.
const FREED_NOTES: u64 = 256;

/// What the rows of a commit may need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needed {
    /// Where each goes to another place of the tree: the pages on the way to it as well.
    by_paths: u64,
    /// What they make the tree larger by.
    growth: u64,
}

impl Needed {
    /// Counts a row, or the removal of one, which has no value.
    pub(super) fn count(&mut self, key: usize, value: Option<usize>) {
        let value = value.map(|value| value as u64);
        self.by_paths += value.map_or(PAGES_OF_A_ROW, |value| 2 * (value + PAGES_OF_A_ROW));
        self.growth += value.map_or(0, |value| {
            let row = value + key as u64;
            // A page is divided when it is full: of small rows both halves are nearly half full. A large one has a page
            // of its own, of the next power of two.
            if row <= PAGE / 4 { 3 * row } else { 2 * (row + PAGES_OF_A_ROW) }
        });
    }

    /// What a commit needs at most, whatever the tree holds.
    pub(super) fn anywhere(self) -> u64 {
        self.by_paths.saturating_add(HEADROOM)
    }

    /// What a commit needs at most where `tree` is written to: each page that the tree had is written anew once at most,
    /// however many rows go there.
    pub(super) fn within(self, tree: Option<&TableStats>) -> u64 {
        let held =
            tree.map_or(0, |tree| tree.stored_bytes() + tree.metadata_bytes() + tree.fragmented_bytes());
        let anew = held.saturating_add(held / FREED_NOTES).saturating_add(self.growth);
        self.anywhere().min(anew.saturating_add(HEADROOM))
    }
}

/// The file, and the room that was taken for it ahead of what is written.
#[derive(Debug)]
pub(super) struct Room {
    file: Arc<dyn DiskFile>,
    /// The end of what was ever written.
    used: AtomicU64,
    /// The end of the room.
    taken: AtomicU64,
}

impl Room {
    /// The room of a file. What a process that was killed took ahead and did not write is given back: nobody knows how much
    /// it was, and what is not known to be there lacks elsewhere, see [`Room::spare`].
    pub(super) fn open(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let length = file.length()?;
        file.set_length(length)?;
        Ok(Self { file, used: AtomicU64::new(length), taken: AtomicU64::new(length) })
    }

    /// Whether there is room for so many bytes more than were ever written.
    pub(super) fn has(&self, more: u64) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(more) <= self.taken.load(Ordering::Relaxed)
    }

    /// What was taken and is not written.
    pub(super) fn spare(&self) -> u64 {
        self.taken.load(Ordering::Relaxed).saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Takes room for so many bytes more than were ever written.
    pub(super) fn take(&self, more: u64) -> io::Result<()> {
        let needed = self.used.load(Ordering::Relaxed).saturating_add(more);
        if needed > self.taken.load(Ordering::Relaxed) {
            let taken = needed.next_multiple_of(ROOM_STEP);
            self.file.take_room(taken)?;
            self.taken.store(taken, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The file as redb uses it.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<Room>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.file.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.file.read_at(out, offset)? == out.len() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the file is shorter than it says"))
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // It grows by doubling: room is taken for what is written, not for what may be.
        self.0.file.set_length(len)?;
        self.0.taken.fetch_min(len.max(self.0.used.load(Ordering::Relaxed)), Ordering::Relaxed);
        self.0.used.fetch_min(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        if end > self.0.used.fetch_max(end, Ordering::Relaxed) {
            self.0.take(0)?;
        }
        self.0.file.write_at(data, offset)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::embedded::disk::simulated::SimulatedDisk;
    use crate::embedded::disk::{Disk, Opening};

    #[test]
    fn room_that_was_taken_ahead_is_given_back_by_the_next_process() {
        let disk = SimulatedDisk::new();
        let open = |how| disk.open(Path::new("/checkpoint"), how).expect("the disk works");
        let room = Room::open(open(Opening::New)).expect("the disk works");
        let room = Arc::new(room);
        Backend(Arc::clone(&room)).write(0, &[1; 5_000]).expect("there is room");
        room.take(10 * ROOM_STEP).expect("there is room");
        assert!(room.spare() >= 10 * ROOM_STEP);
        assert_eq!(disk.taken(), 5_000 + room.spare());
        drop(room);
        let room = Room::open(open(Opening::Existing)).expect("the disk works");
        assert_eq!((room.spare(), disk.taken()), (0, 5_000));
        let mut written = [0; 5_000];
        Backend(Arc::new(room)).read(0, &mut written).expect("it is there");
        assert_eq!(written, [1; 5_000]);
    }

    #[test]
    fn few_rows_need_their_paths_and_many_no_more_than_a_new_tree() {
        let (mut few, mut many) = (Needed::default(), Needed::default());
        few.count(40, Some(100));
        for _ in 0..100_000 {
            many.count(40, Some(100));
        }
        assert_eq!(few.anywhere(), HEADROOM + 2 * (100 + PAGES_OF_A_ROW));
        assert_eq!(many.within(None), HEADROOM + 3 * 140 * 100_000);
        assert!(many.within(None) < many.anywhere() / 20);
    }

    #[test]
    fn a_removal_needs_its_path() {
        let mut needed = Needed::default();
        needed.count(40, None);
        assert_eq!(needed.anywhere(), HEADROOM + PAGES_OF_A_ROW);
        assert_eq!(needed.within(None), HEADROOM);
    }
}
