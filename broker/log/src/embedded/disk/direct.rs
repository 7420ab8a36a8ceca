//! Writes past the memory of the system (`O_DIRECT`): the processor copies nothing, and nothing of others is displaced
//! there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use waypost_core::error::is_out_of_files;

/// What has to be whole and in its place, in the file and in memory. A device that wants more refuses the first write.
const BLOCK: usize = 4096;

/// How a file is opened for such writes; none where a system has no such way.
#[cfg(target_os = "linux")]
const FLAGS: Option<i32> = Some(rustix::fs::OFlags::DIRECT.bits().cast_signed());
#[cfg(not(target_os = "linux"))]
const FLAGS: Option<i32> = None;

/// A second handle on a file, for such writes.
#[derive(Debug)]
pub(super) struct Direct {
    path: PathBuf,
    handle: Mutex<Handle>,
}

#[derive(Debug)]
enum Handle {
    Untried,
    Open(File),
    /// There is none, or the file system or the device takes no such writes: from now on all of this file goes the usual
    /// way, and what is wrong beyond that shows there.
    Refused,
}

impl Direct {
    /// The handle is opened with the first write.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), handle: Mutex::new(Handle::Untried) }
    }

    /// Writes whole blocks to `file`, of which this is the second handle. False where that cannot be done here: then they
    /// are to be written the usual way, all of them.
    pub(super) fn write_at(&self, file: &File, blocks: &[u8], at: u64) -> io::Result<bool> {
        let mut handle = self.handle.lock();
        if matches!(*handle, Handle::Untried) {
            *handle = match self.open(file) {
                Ok(file) => Handle::Open(file),
                // The next write may find one.
                Err(error) if is_out_of_files(&error) => Handle::Untried,
                Err(_) => Handle::Refused,
            };
        }
        let Handle::Open(direct) = &*handle else { return Ok(false) };
        match direct.write_all_at(blocks, at) {
            // What such a write wants of places and lengths is known only when it is tried.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                *handle = Handle::Refused;
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    fn open(&self, file: &File) -> io::Result<File> {
        let flags = FLAGS.ok_or(io::ErrorKind::Unsupported)?;
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(&self.path)?;
        let (one, other) = (file.metadata()?, direct.metadata()?);
        // Somebody may have put another file there.
        if (one.dev(), one.ino()) == (other.dev(), other.ino()) {
            Ok(direct)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// What is before the whole blocks of a write, the blocks, and what is behind them. There are no blocks where those of the
/// file are not those of memory; see [`place`].
pub(super) fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8], &[u8]) {
    let before = usize::try_from(at.next_multiple_of(BLOCK as u64) - at).expect("it is less than a block");
    let (before, rest) = bytes.split_at(before.min(bytes.len()));
    let (blocks, behind) = rest.split_at(rest.len() / BLOCK * BLOCK);
    if blocks.as_ptr().addr().is_multiple_of(BLOCK) { (before, blocks, behind) } else { (bytes, &[], &[]) }
}

/// Empties a buffer, and fills it up to the place from which on blocks of memory are blocks of a file, where what is
/// appended is written to the file at `at`. Returns that place. It holds for as long as at most `room` bytes are appended.
pub(in crate::embedded) fn place(buffer: &mut Vec<u8>, at: u64, room: usize) -> usize {
    buffer.clear();
    buffer.reserve(room + BLOCK);
    let in_file = usize::try_from(at % BLOCK as u64).expect("it is less than a block");
    let in_memory = buffer.as_ptr().addr() % BLOCK;
    buffer.resize((BLOCK + in_file - in_memory) % BLOCK, 0);
    buffer.len()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::embedded::disk::{Disk, Opening, SystemDisk};

    proptest! {
        #[test]
        fn a_write_is_all_its_parts_and_blocks_are_in_their_place(
            at in 0_u64..100_000,
            length in 0_usize..50_000,
            off in prop_oneof![Just(0_usize), 0..BLOCK],
        ) {
            let mut buffer = Vec::new();
            let start = place(&mut buffer, at, length + off);
            buffer.extend((0..length + off).map(|byte| byte as u8));
            let bytes = &buffer[start + off..];
            let (before, blocks, behind) = split(bytes, at);
            prop_assert_eq!([before, blocks, behind].concat(), bytes);
            prop_assert_eq!(blocks.len() % BLOCK, 0);
            if off == 0 {
                prop_assert!(before.len() < BLOCK && behind.len() < BLOCK);
            }
            if !blocks.is_empty() {
                prop_assert_eq!(blocks.as_ptr().addr() % BLOCK, 0);
                prop_assert_eq!((at + before.len() as u64) % BLOCK as u64, 0);
            }
        }
    }

    /// Writes of all lengths one after the other, every third of them the usual way; and what the file holds then.
    fn written(path: &Path, prepare: impl FnOnce()) -> (Vec<u8>, Vec<u8>) {
        let file = SystemDisk.open(path, Opening::New).expect("it can be made");
        file.allocate(1024 * 1024).expect("there is room");
        prepare();
        let mut expected = Vec::new();
        let mut buffer = Vec::new();
        for (number, length) in
            [36, 5_000, 10, 8_192, 70_000, 4_096, 1, 200_000, 12_345].into_iter().enumerate()
        {
            let at = expected.len() as u64;
            let start = place(&mut buffer, at, length);
            buffer.resize(start + length, number as u8 + 1);
            let bytes = &buffer[start..];
            if number % 3 == 0 { file.write_at(bytes, at) } else { file.write_past_cache(bytes, at) }
                .expect("it can be written");
            expected.extend(bytes);
        }
        file.sync().expect("it can be synced");
        let mut read = vec![0; expected.len()];
        file.read_at(&mut read, 0).expect("it can be read");
        (expected, read)
    }

    #[test]
    fn what_was_written_both_ways_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let (expected, read) = written(&path, || ());
        assert!(expected == read);
        assert!(fs::read(&path).expect("it is there").starts_with(&expected));
    }

    #[test]
    fn a_file_that_was_put_in_its_place_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let (expected, read) = written(&path, || {
            fs::remove_file(&path).expect("it is there");
            fs::write(&path, "of others").expect("it can be written");
        });
        assert!(expected == read);
        assert_eq!(fs::read(&path).expect("it is there"), b"of others");
    }

    #[test]
    fn without_a_second_handle_all_goes_the_usual_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let (expected, read) = written(&path, || fs::remove_file(&path).expect("it is there"));
        assert!(expected == read);
    }
}
