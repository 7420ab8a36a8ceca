//! One segment: a preallocated file of frames, written by one writer and read by many.
//!
//! A sealed segment ends with a footer frame that holds its sparse index. It is never cut.

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
use crate::embedded::disk::{Disk, DiskFile, Opening, place};
use crate::embedded::frame::{
    FILE_HEADER, FRAME_HEADER, FileHeader, FileKind, FrameHead, Gap, Scanned, end_of_zeros, put_trailer,
    read_footer, scan,
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
/// After some frames of at most so many bytes zeros are written ahead.
const SMALL_FRAME: usize = 16 * 1024;
/// How many such frames in a row it takes: zeros that a large frame overwrites soon were written in vain.
const SMALL_FRAMES: u32 = 4;
/// The zeros that are written behind a small frame: what follows overwrites them, and its sync need not make the
/// file system note that its blocks are in use now.
const ZEROS_AHEAD: u64 = 64 * 1024;
const PAGE: u64 = 4096;
static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// Frames that hold records.
pub(super) const RECORDS: u32 = 1;
/// The last frame of a sealed segment.
const FOOTER: u32 = 2;
/// What ends the body of the footer.
const TRAILER: usize = 16;

/// A segment.
pub(super) struct Segment {
    base: Offset,
    generation: u64,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// Open while it grows. A sealed one is opened for each reading: there may be a thousand.
    growing: Mutex<Option<Arc<dyn DiskFile>>>,
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
    /// The bytes that were written, zeros among them.
    touched: u64,
    /// How many small frames were written in a row.
    small_frames: u32,
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
    /// In memory, while the segment grows and until the file is written.
    Growing(Ids),
    /// In memory, because the file could not be written.
    Held(Ids),
    /// In a file beside the segment; its shape, unless nobody has looked.
    Stored(Option<ids::Shape>),
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
        disk: &Arc<dyn Disk>,
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
            touched: FILE_HEADER as u64,
            small_frames: 0,
            next_number: 0,
            sealed: false,
            newest,
            index: Vec::new(),
        };
        let growing = Mutex::new(Some(file));
        let (disk, ids) = (Arc::clone(disk), Mutex::new(IdIndex::Growing(Ids::new())));
        let FileHeader { generation, base } = header;
        Ok(Self { base, generation, path, disk, growing, state: RwLock::new(state), ids })
    }

    /// The file, opened anew where it is not kept open.
    fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        // Not under the lock: others read as well.
        let growing = self.growing.lock().clone();
        match growing {
            Some(file) => Ok(file),
            None => self.disk.open(&self.path, Opening::Existing),
        }
    }

    /// Opens a segment that was sealed. None where its footer does not stand or is damaged.
    pub(super) fn open_sealed(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Option<Self>> {
        let file = disk.open(path, Opening::Existing)?;
        let Some(header) = read_header(&*file)? else { return Ok(None) };
        let length = file.length()?;
        let Some(mut state) =
            read_footer(&*file, header.generation, FOOTER..=FOOTER, |head, body| decode_footer(body, head))?
        else {
            return Ok(None);
        };
        state.length = length;
        state.capacity = length;
        let FileHeader { generation, base } = header;
        let (path, disk) = (path.to_owned(), Arc::clone(disk));
        let (state, ids) = (RwLock::new(state), Mutex::new(IdIndex::Stored(None)));
        Ok(Some(Self { base, generation, path, disk, growing: Mutex::default(), state, ids }))
    }

    /// Reads through a segment that is not sealed, or whose footer is lost. `Err` in the result says that the file
    /// has no valid header.
    pub(super) fn recover(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Result<Recovered, Corrupt>> {
        let file = disk.open(path, Opening::Existing)?;
        let Some(header) = read_header(&*file)? else {
            return Ok(Err(Corrupt("the file header is damaged")));
        };
        let mut state = State {
            end: header.base,
            length: 0,
            capacity: file.length()?,
            touched: 0,
            small_frames: 0,
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
        state.touched = end;
        state.next_number = next_number;
        let FileHeader { generation, base } = header;
        let (path, disk, growing) = (path.to_owned(), Arc::clone(disk), Mutex::new(Some(file)));
        let (state, ids) = (RwLock::new(state), Mutex::new(IdIndex::Growing(ids)));
        let segment = Self { base, generation, path, disk, growing, state, ids };
        Ok(Ok(Recovered { segment, checkpoints, torn, gaps }))
    }

    /// Whether a file holds nothing behind the place of its header: no frame was ever written.
    pub(super) fn is_unused(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
        let file = disk.open(path, Opening::Existing)?;
        Ok(end_of_zeros(&*file, FILE_HEADER as u64, file.length()?)?.is_none())
    }

    /// No record is to be older than `newest`, that of the segment before.
    pub(super) fn follow(&self, newest: Timestamp) {
        let mut state = self.state.write();
        state.newest = state.newest.max(newest);
    }

    /// Cuts what stands behind the last intact frame, and makes the file as long again.
    pub(super) fn cut(&self) -> io::Result<()> {
        let (length, capacity) = {
            let state = self.state.read();
            (state.length, state.capacity)
        };
        let file = self.file()?;
        file.set_length(length)?;
        file.allocate(capacity)?;
        file.sync()
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

    #[cfg(test)]
    pub(super) fn frames(&self) -> u64 {
        self.state.read().next_number
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

    /// Makes a frame of at most about `room` bytes for the end of the segment, and says from where on it stands in
    /// `buffer`.
    pub(super) fn encode(
        &self,
        buffer: &mut Vec<u8>,
        room: usize,
        (first, count): (Offset, u32),
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let (number, at) = {
            let state = self.state.read();
            (state.next_number, state.length)
        };
        let start = place(buffer, at, room);
        FrameHead::encode(buffer, self.generation, (RECORDS, number), (first, count), write);
        start
    }

    /// Writes a frame and syncs it, past the memory of the system where nobody is to read it soon. Only the writer
    /// calls this, and nothing is shown before [`Segment::publish`].
    pub(super) fn write(&self, frame: &[u8], past_cache: bool) -> io::Result<()> {
        let (at, touched, capacity, before) = {
            let state = self.state.read();
            (state.length, state.touched, state.capacity, state.small_frames)
        };
        let small_frames = if frame.len() <= SMALL_FRAME { before.saturating_add(1) } else { 0 };
        let end = at + frame.len() as u64;
        let file = self.file()?;
        if past_cache {
            file.write_past_cache(frame, at)?;
        } else {
            file.write_at(frame, at)?;
        }
        let mut zeros = end;
        if small_frames >= SMALL_FRAMES && end > touched {
            let to = (end + ZEROS_AHEAD).min(capacity);
            while zeros < to {
                // Page by page: what is written in one piece the kernel may write back in one piece, ever again.
                let next = (zeros / PAGE + 1).saturating_mul(PAGE).min(to);
                file.write_at(&ZEROS[..usize::try_from(next - zeros).unwrap_or(ZEROS.len())], zeros)?;
                zeros = next;
            }
        }
        file.sync()?;
        let mut state = self.state.write();
        state.touched = touched.max(zeros);
        state.small_frames = small_frames;
        Ok(())
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

    /// Writes the footer, and gives back the room that was not needed. The directory is the caller's to sync.
    pub(super) fn seal(&self) -> io::Result<()> {
        let mut state = self.state.write();
        if state.sealed {
            return Ok(());
        }
        let at = state.length;
        let mut bytes = Vec::new();
        FrameHead::encode(&mut bytes, self.generation, (FOOTER, state.next_number), (state.end, 0), |into| {
            encode_footer(&state, into);
            put_trailer(into, at);
        });
        let length = at + bytes.len() as u64;
        let file = self.file()?;
        if length > state.capacity {
            file.allocate(length)?;
        }
        file.write_at(&bytes, at)?;
        file.set_length(length)?;
        file.sync()?;
        state.sealed = true;
        state.length = length;
        state.capacity = length;
        *self.growing.lock() = None;
        Ok(())
    }

    /// Writes the index of ids of a sealed segment where that was not done yet; true where it was not. It is only a shortcut:
    /// what fails is told, and the index stays in memory.
    pub(super) fn store_ids(&self) -> bool {
        if !self.sealed() {
            return false;
        }
        let mut index = self.ids.lock();
        let IdIndex::Growing(ids) = &mut *index else { return false };
        let ids = std::mem::take(ids);
        *index = self.stored_or_held(ids);
        true
    }

    /// Tells the system that its records are not read soon.
    pub(super) fn forget(&self) {
        // One that cannot be opened is met by whoever reads it.
        if let Ok(file) = self.file() {
            file.forget();
        }
    }

    fn stored_or_held(&self, ids: Ids) -> IdIndex {
        let path = self.ids_path();
        match ids::write(&*self.disk, &path, &ids) {
            Ok(shape) => IdIndex::Stored(Some(shape)),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the index of ids cannot be written");
                IdIndex::Held(ids)
            }
        }
    }

    /// Takes a damaged segment as it is: nothing is written to it any more.
    pub(super) fn quarantine(&self) {
        self.state.write().sealed = true;
    }

    /// The offsets that may have this source and id; the caller compares.
    pub(super) fn candidates(&self, hash: u64) -> io::Result<Vec<Offset>> {
        let mut index = self.ids.lock();
        let records: Vec<u32> = match &mut *index {
            IdIndex::Growing(ids) | IdIndex::Held(ids) => of_hash(ids, hash),
            IdIndex::Stored(shape) => match self.search_stored(shape, hash) {
                Ok(records) => records,
                Err(error) => {
                    let file = self.ids_path();
                    match error {
                        // It was not written before the process ended, or it is gone.
                        ids::SearchError::Io(error) if error.kind() == io::ErrorKind::NotFound => {}
                        ids::SearchError::Io(error) => return Err(error),
                        ids::SearchError::Corrupt(reason) => {
                            tracing::warn!(file = %file.display(), %reason, "the index of ids is corrupt; building it anew");
                        }
                    }
                    let ids = self.collect_ids()?;
                    let records = of_hash(&ids, hash);
                    *index = self.stored_or_held(ids);
                    records
                }
            },
        };
        Ok(records.into_iter().map(|record| self.base + u64::from(record)).collect())
    }

    fn search_stored(&self, shape: &mut Option<ids::Shape>, hash: u64) -> Result<Vec<u32>, ids::SearchError> {
        let file = self.disk.open(&self.ids_path(), Opening::Existing)?;
        let shape = match *shape {
            Some(shape) => shape,
            None => *shape.insert(ids::shape(&*file)?),
        };
        ids::search(&*file, shape, hash)
    }

    fn collect_ids(&self) -> io::Result<Ids> {
        let mut ids = Ids::new();
        let base = self.base;
        scan(&*self.file()?, self.generation, FILE_HEADER as u64, 0, |_, head, body| {
            if head.kind != RECORDS {
                return Ok(());
            }
            let body = Bytes::copy_from_slice(body);
            for item in batch::items(&body) {
                if let Item::Record(record) = item? {
                    let event = record.event_in(&body)?;
                    let number = u32::try_from(record.offset.saturating_sub(base)).unwrap_or(u32::MAX);
                    ids.push((ids::hash(event.source(), event.id()), number));
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
    pub(super) fn remove(&self) -> io::Result<()> {
        self.disk.remove(&self.ids_path())?;
        self.disk.remove(&self.path)
    }
}

fn of_hash(ids: &Ids, hash: u64) -> Vec<u32> {
    ids.iter().filter(|(of, _)| *of == hash).map(|(_, record)| *record).collect()
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
                ids.push((ids::hash(event.source(), event.id()), number));
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
    Ok(State {
        end,
        length: 0,
        capacity: 0,
        touched: 0,
        small_frames: 0,
        next_number: head.number + 1,
        sealed: true,
        newest,
        index,
    })
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("path", &self.path).finish_non_exhaustive()
    }
}
