//! The match lists of a partition: in memory until they are flushed, then in one file beside each segment.

mod chunk;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::embedded::codec::{Corrupt, Put};
use crate::embedded::disk::{Disk, DiskFile, Opening};
use crate::embedded::frame::{
    FILE_HEADER, FileHeader, FileKind, FrameHead, FrameReader, Scanned, Step, scan,
};
use crate::log::{Scope, TriggerNumber};
use crate::record::Offset;

pub(super) use chunk::Chunk;

const CHUNKS: u32 = 1;
/// The matches that may wait for the disk.
const WAITING_MATCHES: usize = 4 * 1024 * 1024;
/// The decoded frames that are kept for triggers that lag.
const CACHED: usize = 4;
/// The pieces that are looked at in one go.
const PIECES_AT_ONCE: usize = 64;

/// All match lists of a partition.
#[derive(Debug)]
pub(super) struct Lists {
    directory: PathBuf,
    /// The first offset that was not examined.
    matched: Offset,
    /// The matches that were recorded and are not on their way to the disk.
    fresh_matches: usize,
    segments: BTreeMap<Offset, OfSegment>,
    cache: VecDeque<(FrameKey, Arc<Vec<Chunk>>)>,
}

/// The base of a segment, and where a frame begins in the file of its lists.
pub(super) type FrameKey = (Offset, u64);

#[derive(Debug, Default)]
struct OfSegment {
    file: Option<Stored>,
    frames: Vec<Frame>,
    /// Recorded, and not on its way to the disk yet.
    fresh: Vec<Arc<Chunk>>,
    /// On its way to the disk.
    leaving: Vec<Arc<Chunk>>,
    /// Whether lists of single triggers stand among the others, so that offsets may run backwards.
    unordered: bool,
    /// What is damaged in the file.
    damage: Option<String>,
}

#[derive(Debug, Clone)]
struct Stored {
    file: Arc<dyn DiskFile>,
    generation: u64,
    length: u64,
    next_number: u64,
}

/// A frame of a file of match lists.
#[derive(Debug, Clone, Copy)]
struct Frame {
    at: u64,
    from: Offset,
    to: Offset,
}

/// Something that holds match lists, to be looked at without the lock.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Held(Arc<Chunk>),
    Cached(Arc<Vec<Chunk>>),
    Stored { key: FrameKey, path: PathBuf, file: Arc<dyn DiskFile>, generation: u64, end: u64 },
}

/// Where to look for the lists of a range.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) pieces: Vec<Piece>,
    /// Everything that matches below is in the pieces.
    pub(super) to: Offset,
    pub(super) damage: Option<String>,
}

/// What is to be written for one segment.
#[derive(Debug)]
pub(super) struct Leaving {
    base: Offset,
    chunks: Vec<Arc<Chunk>>,
    stored: Option<Stored>,
}

/// A file of match lists as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) torn: Option<String>,
    pub(super) damage: Option<String>,
    /// The bytes of the file.
    pub(super) length: u64,
}

impl Lists {
    pub(super) fn new(directory: PathBuf, matched: Offset) -> Self {
        Self { directory, matched, fresh_matches: 0, segments: BTreeMap::new(), cache: VecDeque::new() }
    }

    pub(super) fn matched(&self) -> Offset {
        self.matched
    }

    pub(super) fn examined(&mut self, to: Offset) {
        self.matched = self.matched.max(to);
    }

    /// Adds the lists of a range that lies within the segment that begins at `base`.
    pub(super) fn add(&mut self, base: Offset, chunk: Chunk) {
        if chunk.scope == Scope::All {
            self.examined(chunk.to);
        }
        let of_segment = self.segments.entry(base).or_default();
        of_segment.unordered |= chunk.scope != Scope::All;
        self.fresh_matches += chunk.matches();
        of_segment.fresh.push(Arc::new(chunk));
    }

    /// Whether more matches wait for the disk than may.
    pub(super) fn full(&self) -> bool {
        self.fresh_matches > WAITING_MATCHES
    }

    /// What holds the lists from `from` on, up to the end of one segment at most. `end_of` gives the end of the segment
    /// that an offset lies in.
    pub(super) fn pieces(&self, from: Offset, end_of_segment: Offset) -> Pieces {
        let to = end_of_segment.min(self.matched);
        let Some((base, of_segment)) = self.segments.range(..=from).next_back() else {
            return Pieces { to, ..Pieces::default() };
        };
        let covers = |begin: Offset, end: Offset| end > from && begin < to;
        let mut pieces = Pieces { pieces: Vec::new(), to, damage: None };
        pieces.damage.clone_from(&of_segment.damage);
        let bound = if of_segment.unordered { usize::MAX } else { PIECES_AT_ONCE };
        let first = if of_segment.unordered {
            0
        } else {
            of_segment.frames.partition_point(|frame| frame.to <= from)
        };
        for frame in of_segment.frames[first..].iter().filter(|frame| covers(frame.from, frame.to)) {
            if pieces.pieces.len() == bound {
                pieces.to = frame.from;
                return pieces;
            }
            pieces.pieces.extend(self.piece(*base, of_segment, frame));
        }
        for chunk in of_segment.leaving.iter().chain(&of_segment.fresh) {
            if !covers(chunk.from, chunk.to) {
                continue;
            }
            if pieces.pieces.len() == bound {
                pieces.to = chunk.from;
                return pieces;
            }
            pieces.pieces.push(Piece::Held(Arc::clone(chunk)));
        }
        pieces
    }

    fn piece(&self, base: Offset, of_segment: &OfSegment, frame: &Frame) -> Option<Piece> {
        let key = (base, frame.at);
        if let Some((_, chunks)) = self.cache.iter().find(|(cached, _)| *cached == key) {
            return Some(Piece::Cached(Arc::clone(chunks)));
        }
        let stored = of_segment.file.as_ref()?;
        Some(Piece::Stored {
            key,
            path: path_of(&self.directory, base),
            file: Arc::clone(&stored.file),
            generation: stored.generation,
            end: stored.length,
        })
    }

    /// Keeps what was read, for who comes next.
    pub(super) fn keep(&mut self, key: FrameKey, chunks: Arc<Vec<Chunk>>) {
        if self.cache.iter().any(|(cached, _)| *cached == key) {
            return;
        }
        if self.cache.len() == CACHED {
            self.cache.pop_front();
        }
        self.cache.push_back((key, chunks));
    }

    /// Goes on with the lists that can be read.
    pub(super) fn accept_damage(&mut self) {
        self.segments.values_mut().for_each(|of_segment| of_segment.damage = None);
    }

    /// Takes out what is to be written.
    pub(super) fn leave(&mut self) -> Vec<Leaving> {
        self.fresh_matches = 0;
        let mut all = Vec::new();
        for (base, of_segment) in &mut self.segments {
            if of_segment.fresh.is_empty() {
                continue;
            }
            of_segment.leaving = std::mem::take(&mut of_segment.fresh);
            let chunks = of_segment.leaving.clone();
            all.push(Leaving { base: *base, chunks, stored: of_segment.file.clone() });
        }
        all
    }

    /// Notes that what [`Leaving::write`] returned is on the disk.
    pub(super) fn left(&mut self, written: Written) {
        let Some(of_segment) = self.segments.get_mut(&written.base) else { return };
        of_segment.leaving.clear();
        of_segment.file = Some(written.stored);
        of_segment.frames.push(written.frame);
    }

    /// Takes in the file beside the segment that begins at `base`, as it is found at the start, and hands each list
    /// in it to `visit`.
    pub(super) fn recover(
        &mut self,
        disk: &dyn Disk,
        base: Offset,
        visit: &mut dyn FnMut(&Chunk),
    ) -> io::Result<Found> {
        let path = path_of(&self.directory, base);
        let file = disk.open(&path, Opening::Existing)?;
        let mut of_segment = OfSegment::default();
        let mut header = [0; FILE_HEADER];
        file.read_at(&mut header, 0)?;
        let length = file.length()?;
        let Ok(header) = FileHeader::decode(&header, FileKind::Matches) else {
            if length <= FILE_HEADER as u64 || header.iter().all(|byte| *byte == 0) {
                // The power went while it was made.
                disk.remove(&path)?;
                return Ok(Found { torn: None, damage: None, length: 0 });
            }
            let damage = format!("{} is corrupt at byte 0: the file header is damaged", path.display());
            of_segment.damage = Some(damage.clone());
            self.segments.insert(base, of_segment);
            return Ok(Found { torn: None, damage: Some(damage), length });
        };
        let matched = &mut self.matched;
        let scanned = scan(&*file, header.generation, FILE_HEADER as u64, 0, |at, head, body| {
            let chunks = chunk::decode_all(body)?;
            of_segment.frames.push(frame_of(at, &chunks).ok_or(Corrupt("a frame has no match list"))?);
            for chunk in &chunks {
                visit(chunk);
                of_segment.unordered |= chunk.scope != Scope::All;
                if chunk.scope == Scope::All {
                    *matched = chunk.to.max(*matched);
                }
            }
            debug_assert_eq!(head.kind, CHUNKS);
            Ok(())
        })?;
        let Scanned { end, next_number, gaps, torn } = scanned;
        let generation = header.generation;
        let damage = gaps.first().map(|gap| {
            format!("{} is corrupt at bytes {}..{}: {}", path.display(), gap.from, gap.to, gap.reason)
        });
        of_segment.damage.clone_from(&damage);
        let torn = match torn {
            Some(gap) => {
                file.set_length(end)?;
                file.sync()?;
                Some(format!("{} at bytes {}..{}: {}", path.display(), gap.from, gap.to, gap.reason))
            }
            None => None,
        };
        of_segment.file = Some(Stored { file, generation, length: end, next_number });
        self.segments.insert(base, of_segment);
        Ok(Found { torn, damage, length: end })
    }

    /// Forgets the lists of a segment and removes their file; the directory is the caller's to sync. Returns the
    /// bytes that go.
    pub(super) fn remove(&mut self, disk: &dyn Disk, base: Offset) -> io::Result<u64> {
        self.cache.retain(|((of, _), _)| *of != base);
        let of_segment = self.segments.remove(&base);
        disk.remove(&path_of(&self.directory, base))?;
        Ok(of_segment.and_then(|gone| gone.file).map_or(0, |stored| stored.length))
    }
}

fn frame_of(at: u64, chunks: &[Chunk]) -> Option<Frame> {
    let from = chunks.iter().map(|chunk| chunk.from).min()?;
    let to = chunks.iter().map(|chunk| chunk.to).max()?;
    Some(Frame { at, from, to })
}

fn path_of(directory: &Path, base: Offset) -> PathBuf {
    directory.join(format!("{base:020}.matches"))
}

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    base: Offset,
    stored: Stored,
    frame: Frame,
    /// The bytes that the files grew by.
    pub(super) bytes: u64,
    /// Whether the file is new, so that its directory must be synced.
    pub(super) made: bool,
}

impl Leaving {
    /// Writes the lists to their file and makes them durable; a new file's directory entry is the caller's to sync.
    pub(super) fn write(self, disk: &dyn Disk, directory: &Path) -> io::Result<Written> {
        let made = self.stored.is_none();
        let mut bytes = Vec::new();
        let mut stored = match self.stored {
            Some(stored) => stored,
            None => {
                let header = FileHeader::new(self.base);
                bytes.put(&header.encode(FileKind::Matches));
                let file = disk.open(&path_of(directory, self.base), Opening::New)?;
                Stored { file, generation: header.generation, length: 0, next_number: 0 }
            }
        };
        let at = stored.length + bytes.len() as u64;
        let count = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        let frame =
            Frame { at, from: self.chunks[0].from, to: self.chunks.iter().map(|c| c.to).max().unwrap_or(0) };
        let from = self.chunks.iter().map(|chunk| chunk.from).min().unwrap_or(frame.from);
        let numbered = (CHUNKS, stored.next_number);
        FrameHead::encode(&mut bytes, stored.generation, numbered, (from, count), |into| {
            for chunk in &self.chunks {
                chunk.encode(into);
            }
        });
        stored.file.write_at(&bytes, stored.length)?;
        stored.file.sync()?;
        stored.length += bytes.len() as u64;
        stored.next_number += 1;
        let frame = Frame { from, ..frame };
        Ok(Written { base: self.base, stored, frame, bytes: bytes.len() as u64, made })
    }
}

impl Piece {
    /// The key under which the lists in it are worth keeping, where they are only on the disk.
    pub(super) fn key(&self) -> Option<FrameKey> {
        match self {
            Self::Held(_) | Self::Cached(_) => None,
            Self::Stored { key, .. } => Some(*key),
        }
    }

    /// The lists in it, read from the disk where they are only there.
    pub(super) fn chunks(self) -> Result<Arc<Vec<Chunk>>, String> {
        match self {
            Self::Held(chunk) => Ok(Arc::new(vec![Chunk::clone(&chunk)])),
            Self::Cached(chunks) => Ok(chunks),
            Self::Stored { key, path, file, generation, end } => {
                let corrupt =
                    |reason: Corrupt| format!("{} is corrupt at byte {}: {reason}", path.display(), key.1);
                let mut reader = FrameReader::new(&*file, generation, key.1, end).in_pieces_of(32 * 1024);
                let step =
                    reader.next().map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
                let chunks = match step {
                    Step::Frame { body, .. } => chunk::decode_all(body).map_err(corrupt)?,
                    Step::End => return Err(corrupt(Corrupt("a frame is gone"))),
                    Step::Bad(reason) => return Err(corrupt(reason)),
                };
                Ok(Arc::new(chunks))
            }
        }
    }
}

/// The offsets from `from` on up to `to` that list a trigger, sorted.
pub(super) fn offsets_of(
    chunks: &[Arc<Vec<Chunk>>],
    trigger: TriggerNumber,
    from: Offset,
    to: Offset,
) -> Vec<Offset> {
    let all = chunks.iter().flat_map(|chunks| chunks.iter()).flat_map(Chunk::iter);
    let mut offsets: Vec<Offset> = all
        .filter(|(offset, triggers)| (from..to).contains(offset) && triggers.contains(&trigger))
        .map(|(offset, _)| offset)
        .collect();
    if !offsets.is_sorted() {
        offsets.sort_unstable();
    }
    offsets.dedup();
    offsets
}
