//! One segment: a preallocated file of frames, written by one writer and read by many.
//!
//! A sealed segment ends with a footer frame that holds its sparse index, and with a trailer of 16 bytes (place of
//! the footer u64, magic u32, CRC32C u32). It is never cut.

mod read;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::clock::Timestamp;
use crate::embedded::batch::{self, Item};
use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::embedded::disk::{Disk, DiskFile, Opening};
use crate::embedded::frame::{
    FILE_HEADER, FRAME_HEADER, FileHeader, FileKind, FrameHead, FrameReader, Gap, Scanned, Step, scan,
};
use crate::embedded::ids::{self, Ids};
use crate::record::{Checkpoint, Offset};

pub(super) use read::Damage;

/// The bytes of the first segment of a log.
pub(super) const SMALLEST: u64 = 256 * 1024;
/// The bytes of a segment at most, unless one batch is larger.
pub(super) const LARGEST: u64 = 64 * 1024 * 1024;
/// What is between two entries of the sparse index, at least.
const INDEX_EVERY: u64 = 64 * 1024;

/// Frames that hold records.
pub(super) const RECORDS: u32 = 1;
/// The last frame of a sealed segment.
const FOOTER: u32 = 2;
const TRAILER: usize = 16;
const TRAILER_MAGIC: u32 = 0x5441_4c57;

/// A segment.
pub(super) struct Segment {
    base: Offset,
    generation: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    state: RwLock<State>,
    ids: Mutex<IdIndex>,
}

#[derive(Debug)]
struct State {
    /// The first offset that is not in it.
    end: Offset,
    /// The bytes that hold synced frames.
    length: u64,
    capacity: u64,
    next_number: u64,
    sealed: bool,
    newest: Timestamp,
    index: Vec<Point>,
}

/// An entry of the sparse index: where a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    offset: Offset,
    at: u64,
    /// When its first record arrived.
    arrived: Timestamp,
}

#[derive(Debug)]
enum IdIndex {
    /// In memory, while the segment grows.
    Growing(Ids),
    /// In a file beside the segment, opened when it is first searched.
    Stored(Option<Arc<dyn DiskFile>>),
}

/// What was found in a segment that was not sealed.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) segment: Segment,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// The range of a last write that was cut off, if there was one.
    pub(super) torn: Option<Gap>,
    pub(super) gaps: Vec<Gap>,
}

/// A frame that was synced and is to be shown.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) first: Offset,
    pub(super) end: Offset,
    pub(super) bytes: u64,
    pub(super) oldest: Timestamp,
    pub(super) newest: Timestamp,
    /// The hash of each record's source and id.
    pub(super) hashes: Vec<u64>,
}

/// The file of a segment.
pub(super) fn path_of(directory: &Path, base: Offset) -> PathBuf {
    directory.join(format!("{base:020}.log"))
}

impl Segment {
    /// Makes a new segment and makes it durable. Room for all of it is taken here.
    pub(super) fn create(
        disk: &dyn Disk,
        directory: &Path,
        base: Offset,
        capacity: u64,
        newest: Timestamp,
    ) -> io::Result<Self> {
        let path = path_of(directory, base);
        let file = disk.open(&path, Opening::New)?;
        let header = FileHeader::new(base);
        let prepare = || {
            file.allocate(capacity)?;
            file.write_at(&header.encode(FileKind::Segment), 0)?;
            file.sync()?;
            disk.sync_directory(directory)
        };
        if let Err(error) = prepare() {
            // What cannot be removed either is found at the next start, empty.
            let _ = disk.remove(&path);
            return Err(error);
        }
        let state = State {
            end: base,
            length: FILE_HEADER as u64,
            capacity,
            next_number: 0,
            sealed: false,
            newest,
            index: Vec::new(),
        };
        Ok(Self::of(path, file, header, state, IdIndex::Growing(Ids::new())))
    }

    fn of(path: PathBuf, file: Arc<dyn DiskFile>, header: FileHeader, state: State, ids: IdIndex) -> Self {
        let FileHeader { generation, base } = header;
        Self { base, generation, path, file, state: RwLock::new(state), ids: Mutex::new(ids) }
    }

    /// Opens a segment that was sealed. None where its footer does not stand or is damaged.
    pub(super) fn open_sealed(disk: &dyn Disk, path: &Path) -> io::Result<Option<Self>> {
        let file = disk.open(path, Opening::Existing)?;
        let Some(header) = read_header(&*file)? else { return Ok(None) };
        let length = file.length()?;
        let mut trailer = [0; TRAILER];
        let Some(at) = length.checked_sub(TRAILER as u64) else { return Ok(None) };
        file.read_at(&mut trailer, at)?;
        let Ok(footer_at) = decode_trailer(&trailer) else { return Ok(None) };
        let mut reader = FrameReader::new(&*file, header.generation, footer_at, at);
        let footer = match reader.next()? {
            Step::Frame { head, body, .. } if head.kind == FOOTER => decode_footer(body, &head),
            _ => return Ok(None),
        };
        let Ok(mut state) = footer else { return Ok(None) };
        state.length = length;
        state.capacity = length;
        Ok(Some(Self::of(path.to_owned(), file, header, state, IdIndex::Stored(None))))
    }

    /// Reads through a segment that is not sealed, or whose footer is lost. `Err` in the result says that the file
    /// has no valid header.
    pub(super) fn recover(disk: &dyn Disk, path: &Path) -> io::Result<Result<Recovered, Corrupt>> {
        let file = disk.open(path, Opening::Existing)?;
        let Some(header) = read_header(&*file)? else {
            return Ok(Err(Corrupt("the file header is damaged")));
        };
        let mut state = State {
            end: header.base,
            length: 0,
            capacity: file.length()?,
            next_number: 0,
            sealed: false,
            newest: Timestamp(i64::MIN),
            index: Vec::new(),
        };
        let mut ids = Ids::new();
        let mut checkpoints = Vec::new();
        let scanned = scan(&*file, header.generation, FILE_HEADER as u64, 0, |at, head, body| {
            if head.kind == FOOTER {
                return Ok(());
            }
            visit_frame(&mut state, &mut ids, &mut checkpoints, at, &head, body, header.base)
        })?;
        let Scanned { end, next_number, gaps, torn } = scanned;
        state.length = end;
        state.next_number = next_number;
        let segment = Self::of(path.to_owned(), file, header, state, IdIndex::Growing(ids));
        Ok(Ok(Recovered { segment, checkpoints, torn, gaps }))
    }

    /// Cuts what stands behind the last intact frame, and makes the file as long again.
    pub(super) fn cut(&self) -> io::Result<()> {
        let (length, capacity) = {
            let state = self.state.read();
            (state.length, state.capacity)
        };
        self.file.set_length(length)?;
        self.file.allocate(capacity)?;
        self.file.sync()
    }

    pub(super) fn base(&self) -> Offset {
        self.base
    }

    pub(super) fn end(&self) -> Offset {
        self.state.read().end
    }

    pub(super) fn newest(&self) -> Timestamp {
        self.state.read().newest
    }

    /// The bytes that its records take.
    pub(super) fn length(&self) -> u64 {
        self.state.read().length
    }

    pub(super) fn capacity(&self) -> u64 {
        self.state.read().capacity
    }

    pub(super) fn sealed(&self) -> bool {
        self.state.read().sealed
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether so many more bytes go in.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let state = self.state.read();
        !state.sealed && state.length + bytes + footer_size(state.index.len() + 1) <= state.capacity
    }

    /// Makes a frame for the end of the segment in `buffer`.
    pub(super) fn encode(
        &self,
        buffer: &mut Vec<u8>,
        first: Offset,
        count: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let number = self.state.read().next_number;
        buffer.clear();
        FrameHead::encode(buffer, self.generation, (RECORDS, number), (first, count), write);
    }

    /// Writes a frame and syncs it. Only the writer calls this, and nothing is shown before [`Segment::publish`].
    pub(super) fn write(&self, frame: &[u8]) -> io::Result<()> {
        let at = self.state.read().length;
        self.file.write_at(frame, at)?;
        self.file.sync()
    }

    /// Shows what was written and synced.
    pub(super) fn publish(&self, written: &Written) {
        if let IdIndex::Growing(ids) = &mut *self.ids.lock() {
            ids.extend(
                (written.first..).zip(&written.hashes).map(|(offset, hash)| (*hash, self.record(offset))),
            );
        }
        let mut state = self.state.write();
        if written.end > written.first {
            let at = state.length;
            state.note(written.first, at, written.oldest);
            state.newest = written.newest;
        }
        state.end = written.end;
        state.length += written.bytes;
        state.next_number += 1;
    }

    fn record(&self, offset: Offset) -> u32 {
        u32::try_from(offset - self.base).expect("a segment has fewer than 2^32 records")
    }

    /// Writes footer and index of ids, and gives back the room that was not needed. The directory is the caller's to
    /// sync.
    pub(super) fn seal(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut state = self.state.write();
        if state.sealed {
            return Ok(());
        }
        let at = state.length;
        let mut bytes = Vec::new();
        FrameHead::encode(&mut bytes, self.generation, (FOOTER, state.next_number), (state.end, 0), |into| {
            encode_footer(&state, into);
        });
        let start = bytes.len();
        bytes.put_u64(at);
        bytes.put_u32(TRAILER_MAGIC);
        let checksum = crc32c::crc32c(&bytes[start..]);
        bytes.put_u32(checksum);
        let length = at + bytes.len() as u64;
        if length > state.capacity {
            self.file.allocate(length)?;
        }
        self.file.write_at(&bytes, at)?;
        self.file.set_length(length)?;
        self.file.sync()?;
        let mut ids = self.ids.lock();
        if let IdIndex::Growing(growing) = &*ids {
            match ids::write(disk, &self.ids_path(), growing) {
                Ok(()) => *ids = IdIndex::Stored(None),
                // It stays in memory: a file that cannot be written now is made when it is missed.
                Err(error) => {
                    tracing::warn!(file = %self.ids_path().display(), %error, "the index of ids cannot be written");
                }
            }
        }
        state.sealed = true;
        state.length = length;
        state.capacity = length;
        Ok(())
    }

    /// Takes a damaged segment as it is: nothing is written to it any more.
    pub(super) fn quarantine(&self) {
        self.state.write().sealed = true;
    }

    /// The offsets that may have this source and id, the newest first; the caller compares.
    pub(super) fn candidates(&self, disk: &dyn Disk, hash: u64) -> io::Result<Vec<Offset>> {
        let mut index = self.ids.lock();
        let records: Vec<u32> = match &mut *index {
            IdIndex::Growing(ids) => of_hash(ids, hash),
            IdIndex::Stored(file) => match self.search_stored(disk, file, hash) {
                Ok(records) => records,
                Err(ids::SearchError::Io(error)) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error);
                }
                Err(error) => {
                    let file = self.ids_path();
                    tracing::warn!(file = %file.display(), %error, "the index of ids is corrupt or missing; building it anew");
                    let ids = self.collect_ids()?;
                    let records = of_hash(&ids, hash);
                    // Kept in memory where it cannot be written: it is only a shortcut.
                    *index = match ids::write(disk, &file, &ids) {
                        Ok(()) => IdIndex::Stored(None),
                        Err(_) => IdIndex::Growing(ids),
                    };
                    records
                }
            },
        };
        let mut offsets: Vec<Offset> =
            records.into_iter().map(|record| self.base + u64::from(record)).collect();
        offsets.sort_unstable_by(|a, b| b.cmp(a));
        Ok(offsets)
    }

    fn search_stored(
        &self,
        disk: &dyn Disk,
        file: &mut Option<Arc<dyn DiskFile>>,
        hash: u64,
    ) -> Result<Vec<u32>, ids::SearchError> {
        let file = match file {
            Some(file) => file,
            None => file.insert(disk.open(&self.ids_path(), Opening::Existing)?),
        };
        let length = file.length()?;
        // Every record has an entry; a damaged segment may have fewer records than offsets.
        let entries = self.end() - self.base;
        if length == 0 && entries > 0 {
            return Err(Corrupt("the index of ids is empty").into());
        }
        ids::search(&**file, entries, hash)
    }

    fn collect_ids(&self) -> io::Result<Ids> {
        let mut ids = Ids::new();
        let base = self.base;
        scan(&*self.file, self.generation, FILE_HEADER as u64, 0, |_, head, body| {
            if head.kind != RECORDS {
                return Ok(());
            }
            let body = Bytes::copy_from_slice(body);
            for item in batch::items(&body) {
                if let Item::Record(record) = item? {
                    let event = record.event_in(&body)?;
                    let number = u32::try_from(record.offset.saturating_sub(base)).unwrap_or(u32::MAX);
                    ids.insert((ids::hash(event.source(), event.id()), number));
                }
            }
            Ok(())
        })?;
        Ok(ids)
    }

    fn ids_path(&self) -> PathBuf {
        self.path.with_extension("ids")
    }

    /// Removes its files. The directory is the caller's to sync.
    pub(super) fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.remove(&self.ids_path())?;
        disk.remove(&self.path)
    }
}

fn of_hash(ids: &Ids, hash: u64) -> Vec<u32> {
    ids.range((hash, 0)..=(hash, u32::MAX)).map(|(_, record)| *record).collect()
}

fn read_header(file: &dyn DiskFile) -> io::Result<Option<FileHeader>> {
    let mut bytes = [0; FILE_HEADER];
    file.read_at(&mut bytes, 0)?;
    Ok(FileHeader::decode(&bytes, FileKind::Segment).ok())
}

fn visit_frame(
    state: &mut State,
    ids: &mut Ids,
    checkpoints: &mut Vec<Checkpoint>,
    at: u64,
    head: &FrameHead,
    body: &[u8],
    base: Offset,
) -> Result<(), Corrupt> {
    let mut offset = head.first;
    let mut oldest = None;
    let body = Bytes::copy_from_slice(body);
    for item in batch::items(&body) {
        match item? {
            Item::Record(record) if record.offset == offset && offset >= state.end => {
                let event = record.event_in(&body)?;
                let number = u32::try_from(offset - base).map_err(|_| Corrupt("an offset is too large"))?;
                ids.insert((ids::hash(event.source(), event.id()), number));
                oldest.get_or_insert(record.arrived);
                state.newest = state.newest.max(record.arrived);
                offset += 1;
            }
            Item::Record(_) => return Err(Corrupt("a record is out of order")),
            Item::Checkpoint { source, value } => checkpoints.push(batch::checkpoint_of(source, value)),
        }
    }
    if offset - head.first != u64::from(head.count) {
        return Err(Corrupt("a frame has another number of records"));
    }
    if let Some(oldest) = oldest {
        state.note(head.first, at, oldest);
    }
    state.end = offset.max(state.end);
    Ok(())
}

impl State {
    /// Enters a frame into the index where the last entry is far enough away.
    fn note(&mut self, offset: Offset, at: u64, arrived: Timestamp) {
        if self.index.last().is_none_or(|last| at - last.at >= INDEX_EVERY) {
            self.index.push(Point { offset, at, arrived });
        }
    }
}

/// The bytes that sealing takes with so many entries in the index.
pub(super) fn footer_size(points: usize) -> u64 {
    (FRAME_HEADER + 16 + 24 * points + TRAILER) as u64
}

fn encode_footer(state: &State, into: &mut Vec<u8>) {
    into.put_u64(state.end);
    into.put_i64(state.newest.0);
    for point in &state.index {
        into.put_u64(point.offset);
        into.put_u64(point.at);
        into.put_i64(point.arrived.0);
    }
}

fn decode_footer(body: &[u8], head: &FrameHead) -> Result<State, Corrupt> {
    let mut reader = Reader(body);
    let (end, newest) = (reader.u64()?, Timestamp(reader.i64()?));
    let mut index = Vec::new();
    while !reader.is_empty() {
        let (offset, at) = (reader.u64()?, reader.u64()?);
        index.push(Point { offset, at, arrived: Timestamp(reader.i64()?) });
    }
    Ok(State { end, length: 0, capacity: 0, next_number: head.number + 1, sealed: true, newest, index })
}

fn decode_trailer(bytes: &[u8]) -> Result<u64, Corrupt> {
    let mut reader = Reader(bytes);
    let (at, magic, stored) = (reader.u64()?, reader.u32()?, reader.u32()?);
    if magic == TRAILER_MAGIC && crc32c::crc32c(&bytes[..TRAILER - 4]) == stored {
        Ok(at)
    } else {
        Err(Corrupt("the trailer is damaged"))
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("path", &self.path).finish_non_exhaustive()
    }
}
