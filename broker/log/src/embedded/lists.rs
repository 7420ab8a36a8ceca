//! The match lists of a partition: in memory until they are flushed, then in one file beside each segment.
//!
//! ```text
//! frame of lists: summary: last sequence u64 | from u64 | to u64 | of all triggers: from u64 | to u64 | restored: from u64
//!                 | to u64 | unordered u8; then chunks
//! footer:         summary of all | blocks: (at u64 | end u64 | from u64 | to u64) × n | at u64 | magic u32 | CRC32C u32
//! ```
//!
//! Once a segment is sealed and examined to its end, the file ends with a footer, so that a start reads no more than
//! that of it. What is written behind a footer gets another. Files are opened for each use.

mod chunk;
mod lost;
mod stored;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::embedded::disk::{Disk, Opening};
use crate::embedded::frame::{
    FILE_HEADER, FileHeader, FileKind, FrameHead, FrameReader, Gap, Step, put_trailer,
};
use crate::log::{Scope, TriggerNumber};
use crate::record::Offset;

pub(super) use chunk::Chunk;
use lost::{Coverage, Lost};
use stored::{Block, Read, Stored, Summary, read_stored, scan_stored};

const CHUNKS: u32 = 1;
const FOOTER: u32 = 2;
/// The matches that may wait for the disk.
const WAITING_MATCHES: usize = 4 * 1024 * 1024;
/// The frames that are read and kept together, in bytes, unless one is larger.
const BLOCK_BYTES: u64 = 16 * 1024;
/// The decoded blocks that are kept for triggers that lag.
const CACHED: usize = 16;
/// The lists in memory that are looked at in one go.
const HELD_AT_ONCE: usize = 64;

/// All match lists of a partition.
#[derive(Debug)]
pub(super) struct Lists {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// The first offset that was not examined.
    matched: Offset,
    /// The matches that were recorded and are not on the disk.
    fresh_matches: usize,
    segments: BTreeMap<Offset, OfSegment>,
    cache: VecDeque<(BlockKey, Arc<Vec<Chunk>>)>,
    /// Whether files are read whole when they are taken in.
    thorough: bool,
}

/// The base of a segment, and where a block begins and ends in the file of its lists.
pub(super) type BlockKey = (Offset, u64, u64);

#[derive(Debug, Default)]
struct OfSegment {
    stored: Option<Stored>,
    /// Recorded, and not on its way to the disk yet.
    fresh: Vec<Arc<Chunk>>,
    /// On its way to the disk.
    leaving: Vec<Arc<Chunk>>,
    /// Whether lists of single triggers stand among the others, so that offsets may run backwards.
    unordered: bool,
    /// What was found damaged in the file.
    damage: Option<String>,
    /// What the file was found to tell of.
    coverage: Coverage,
    lost: Option<Lost>,
}

/// Something that holds match lists, to be looked at without the lock.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Here(Held),
    Stored { key: BlockKey, path: PathBuf, disk: Arc<dyn Disk>, generation: u64 },
}

/// Match lists in memory.
#[derive(Debug, Clone)]
pub(super) enum Held {
    /// As they were recorded.
    Chunk(Arc<Chunk>),
    /// As they were read from a file.
    Block(Arc<Vec<Chunk>>),
}

/// Where to look for the lists of a range.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) pieces: Vec<Piece>,
    /// Everything that matches below is in the pieces.
    pub(super) to: Offset,
}

/// What is to be written for one segment.
#[derive(Debug)]
pub(super) struct Leaving {
    base: Offset,
    chunks: Vec<Arc<Chunk>>,
    stored: Option<Stored>,
    /// Whether a footer ends it.
    seal: bool,
}

/// A file of match lists as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) torn: Option<String>,
    /// The bytes of the file.
    pub(super) length: u64,
    /// The place of the last list in it.
    pub(super) last: Option<u64>,
}

impl Lists {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: PathBuf, matched: Offset) -> Self {
        let (segments, cache) = (BTreeMap::new(), VecDeque::new());
        Self { disk, directory, matched, fresh_matches: 0, segments, cache, thorough: false }
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

    /// What holds the lists from `from` on, but for those that are lost, up to the end of one segment at most. `end_of` gives the end of the segment
    /// that an offset lies in.
    pub(super) fn pieces(&self, from: Offset, end_of_segment: Offset) -> Pieces {
        let to = end_of_segment.min(self.matched);
        let Some((base, of_segment)) = self.segments.range(..=from).next_back() else {
            return Pieces { to, ..Pieces::default() };
        };
        let covers = |begin: Offset, end: Offset| end > from && begin < to;
        let mut pieces = Pieces { pieces: Vec::new(), to };
        // In order one block is enough for one go; out of order all that may tell of the range are needed.
        let all = of_segment.unordered;
        if let Some(stored) = &of_segment.stored {
            let first = if all { 0 } else { stored.blocks.partition_point(|block| block.to <= from) };
            for block in stored.blocks[first..].iter().filter(|block| covers(block.from, block.to)) {
                if !all && !pieces.pieces.is_empty() {
                    pieces.to = block.from;
                    return pieces;
                }
                pieces.pieces.push(self.piece(*base, stored, block));
            }
        }
        let bound = if all { usize::MAX } else { HELD_AT_ONCE };
        for chunk in of_segment.leaving.iter().chain(&of_segment.fresh) {
            if !covers(chunk.from, chunk.to) {
                continue;
            }
            if pieces.pieces.len() == bound {
                pieces.to = chunk.from;
                return pieces;
            }
            pieces.pieces.push(Piece::Here(Held::Chunk(Arc::clone(chunk))));
        }
        pieces
    }

    fn piece(&self, base: Offset, stored: &Stored, block: &Block) -> Piece {
        let key = (base, block.at, block.end);
        match self.cache.iter().find(|(cached, _)| *cached == key) {
            Some((_, chunks)) => Piece::Here(Held::Block(Arc::clone(chunks))),
            None => Piece::Stored {
                key,
                path: path_of(&self.directory, base),
                disk: Arc::clone(&self.disk),
                generation: stored.generation,
            },
        }
    }

    /// Keeps what was read, for who comes next.
    pub(super) fn keep(&mut self, key: BlockKey, chunks: Arc<Vec<Chunk>>) {
        if self.cache.iter().any(|(cached, _)| *cached == key) {
            return;
        }
        if self.cache.len() == CACHED {
            self.cache.pop_front();
        }
        self.cache.push_back((key, chunks));
    }

    /// Reads whole files from now on when they are taken in, not their footers alone: some damage was accepted.
    pub(super) fn read_whole(&mut self) {
        self.thorough = true;
    }

    /// Takes out what is to be written. `end_of_sealed` gives the end of the segment with a base, if it is sealed.
    pub(super) fn leave(&mut self, end_of_sealed: impl Fn(Offset) -> Option<Offset>) -> Vec<Leaving> {
        let mut all = Vec::new();
        for (base, of_segment) in &mut self.segments {
            let stored = of_segment.stored.as_ref();
            let open = !of_segment.fresh.is_empty() || stored.is_some_and(|stored| !stored.sealed);
            let complete = || end_of_sealed(*base).is_some_and(|end| end <= self.matched);
            let seal = open && of_segment.lost.is_none() && complete();
            if of_segment.fresh.is_empty() && of_segment.leaving.is_empty() && !seal {
                continue;
            }
            // With what there was no room for before.
            of_segment.leaving.append(&mut of_segment.fresh);
            let (chunks, stored) = (of_segment.leaving.clone(), of_segment.stored.clone());
            all.push(Leaving { base: *base, chunks, stored, seal });
        }
        all
    }

    /// Notes that what [`Leaving::write`] returned is on the disk.
    pub(super) fn left(&mut self, written: Written) {
        let Some(of_segment) = self.segments.get_mut(&written.base) else { return };
        let gone: usize = of_segment.leaving.drain(..).map(|chunk| chunk.matches()).sum();
        self.fresh_matches = self.fresh_matches.saturating_sub(gone);
        of_segment.stored = Some(written.stored);
    }

    /// Takes in the file beside the segment that begins at `base`, as it is found at the start, and hands each list
    /// in it with a place from `covered` on to `visit`.
    pub(super) fn recover(
        &mut self,
        base: Offset,
        covered: u64,
        visit: &mut dyn FnMut(&Chunk),
    ) -> io::Result<Found> {
        let path = path_of(&self.directory, base);
        let file = self.disk.open(&path, Opening::Existing)?;
        let mut of_segment = OfSegment::default();
        let mut header = [0; FILE_HEADER];
        file.read_at(&mut header, 0)?;
        let length = file.length()?;
        let Ok(FileHeader { generation, .. }) = FileHeader::decode(&header, FileKind::Matches) else {
            if length <= FILE_HEADER as u64 || header.iter().all(|byte| *byte == 0) {
                // The power went while it was made.
                self.disk.remove(&path)?;
                return Ok(Found { torn: None, length: 0, last: None });
            }
            // Without it nothing behind it can be told from what was there before: a new file takes its place.
            of_segment.damage =
                Some(format!("{} is corrupt at byte 0: the file header is damaged", path.display()));
            self.segments.insert(base, of_segment);
            self.disk.remove(&path)?;
            return Ok(Found { torn: None, length: 0, last: None });
        };
        let mut torn = None;
        let mut frames = Vec::new();
        let footer = if self.thorough { None } else { read_stored(&*file, generation)? };
        let stored = match footer.filter(|stored| stored.summary.last < covered) {
            Some(stored) => {
                frames.push((0, stored.summary));
                stored
            }
            None => {
                let Read { mut stored, frames: read, gaps, torn: cut } =
                    scan_stored(&*file, generation, covered, visit)?;
                frames = read;
                of_segment.damage = gaps.last().map(|gap| {
                    // What comes before a gap is no use alone: nobody knows what stood in it.
                    frames.retain(|(at, _)| *at >= gap.to);
                    told(&path, gap)
                });
                if let Some(gap) = cut {
                    stored.sealed = false;
                    file.set_length(stored.length)?;
                    file.sync()?;
                    torn =
                        Some(format!("{} at bytes {}..{}: {}", path.display(), gap.from, gap.to, gap.reason));
                }
                stored
            }
        };
        self.examined(stored.summary.matched);
        frames.iter().for_each(|(_, frame)| of_segment.coverage.add(frame));
        of_segment.unordered = stored.summary.unordered;
        let found = Found { torn, length: stored.length, last: stored.last() };
        of_segment.stored = Some(stored);
        self.segments.insert(base, of_segment);
        Ok(found)
    }

    /// Forgets the lists of a segment and removes their file; the directory is the caller's to sync. Returns the
    /// bytes that go.
    pub(super) fn remove(&mut self, base: Offset) -> io::Result<u64> {
        self.cache.retain(|((of, _, _), _)| *of != base);
        let of_segment = self.segments.remove(&base);
        self.disk.remove(&path_of(&self.directory, base))?;
        Ok(of_segment.and_then(|gone| gone.stored).map_or(0, |stored| stored.length))
    }
}

fn told(path: &Path, gap: &Gap) -> String {
    format!("{} is corrupt at bytes {}..{}: {}", path.display(), gap.from, gap.to, gap.reason)
}

fn path_of(directory: &Path, base: Offset) -> PathBuf {
    directory.join(format!("{base:020}.matches"))
}

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    base: Offset,
    stored: Stored,
    /// The bytes that the files grew by.
    pub(super) bytes: u64,
    /// Whether the file is new, so that its directory must be synced.
    pub(super) made: bool,
}

impl Leaving {
    /// Writes the lists to their file and makes them durable; a new file's directory entry is the caller's to sync.
    pub(super) fn write(self, disk: &dyn Disk, directory: &Path) -> io::Result<Written> {
        let Self { base, chunks, stored, seal } = self;
        let made = stored.is_none();
        let mut bytes = Vec::new();
        let mut stored = stored.unwrap_or_else(|| {
            let header = FileHeader::new(base);
            bytes.put(&header.encode(FileKind::Matches));
            Stored::new(header.generation)
        });
        let start = stored.length;
        let summary = chunks.iter().map(|chunk| Summary::of(chunk)).reduce(Summary::and);
        if let Some(summary) = summary {
            let at = start + bytes.len() as u64;
            let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            let (number, place) = ((CHUNKS, stored.next_number), (summary.from, count));
            let size = FrameHead::encode(&mut bytes, stored.generation, number, place, |into| {
                summary.encode(into);
                chunks.iter().for_each(|chunk| chunk.encode(into));
            });
            stored.next_number += 1;
            stored.add(summary, at, at + size as u64);
            stored.sealed = false;
        }
        if seal {
            let at = start + bytes.len() as u64;
            let (number, place) = ((FOOTER, stored.next_number), (stored.summary.to, 0));
            FrameHead::encode(&mut bytes, stored.generation, number, place, |into| {
                stored.summary.encode(into);
                for block in &stored.blocks {
                    [block.at, block.end, block.from, block.to].into_iter().for_each(|n| into.put_u64(n));
                }
                put_trailer(into, at);
            });
            stored.next_number += 1;
            stored.sealed = true;
        }
        let file =
            disk.open(&path_of(directory, base), if made { Opening::Either } else { Opening::Writing })?;
        file.write_at(&bytes, start)?;
        file.sync()?;
        stored.length = start + bytes.len() as u64;
        Ok(Written { base, stored, bytes: bytes.len() as u64, made })
    }
}

impl Piece {
    /// The key under which the lists in it are worth keeping, where they are only on the disk.
    pub(super) fn key(&self) -> Option<BlockKey> {
        match self {
            Self::Here(_) => None,
            Self::Stored { key, .. } => Some(*key),
        }
    }

    /// The lists in it, read from the disk where they are only there.
    pub(super) fn read(self) -> Result<Held, String> {
        match self {
            Self::Here(held) => Ok(held),
            Self::Stored { key: (_, at, end), path, disk, generation } => {
                let unreadable = |error: io::Error| format!("{} cannot be read: {error}", path.display());
                let file = disk.open(&path, Opening::Existing).map_err(unreadable)?;
                let mut reader = FrameReader::new(&*file, generation, at, end);
                let mut chunks = Vec::new();
                while reader.position() < end {
                    let at = reader.position();
                    let read = match reader.next().map_err(unreadable)? {
                        Step::Frame { head, .. } if head.kind != CHUNKS => Ok(Vec::new()),
                        Step::Frame { body, .. } => {
                            let mut reader = Reader(body);
                            Summary::decode(&mut reader).and_then(|_| chunk::decode_all(reader.0))
                        }
                        Step::End => Err(Corrupt("a frame is gone")),
                        Step::Bad(reason) => Err(reason),
                    };
                    chunks.extend(
                        read.map_err(|reason| {
                            format!("{} is corrupt at byte {at}: {reason}", path.display())
                        })?,
                    );
                }
                Ok(Held::Block(Arc::new(chunks)))
            }
        }
    }
}

impl Held {
    fn chunks(&self) -> &[Chunk] {
        match self {
            Self::Chunk(chunk) => std::slice::from_ref(chunk),
            Self::Block(chunks) => chunks,
        }
    }

    /// How many matches are listed.
    pub(super) fn matches(&self) -> usize {
        self.chunks().iter().map(Chunk::matches).sum()
    }
}

/// The offsets in a range that list a trigger, sorted: all of them, or at least the first `most`, which is not 0. Also the
/// offset below which these are all.
pub(super) fn offsets_of(
    lists: &[Held],
    trigger: TriggerNumber,
    range: Range<Offset>,
    most: usize,
) -> (Vec<Offset>, Offset) {
    let chunks = || lists.iter().flat_map(Held::chunks);
    let listed = chunks()
        .flat_map(Chunk::iter)
        .filter(|(offset, triggers)| range.contains(offset) && triggers.contains(&trigger))
        .map(|(offset, _)| offset);
    // As they mostly are; what is recorded later of a range that was examined before stands among them as it came.
    if chunks().is_sorted_by(|before, after| before.to <= after.from) {
        let offsets: Vec<Offset> = listed.take(most).collect();
        let to = offsets.last().filter(|_| offsets.len() == most).map_or(range.end, |last| last + 1);
        return (offsets, to);
    }
    let mut offsets: Vec<Offset> = listed.collect();
    offsets.sort_unstable();
    offsets.dedup();
    (offsets, range.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::PlanVersion;

    const TRIGGER: TriggerNumber = TriggerNumber(7);

    fn chunk(scope: Scope, range: Range<Offset>, listed: &[Offset]) -> Chunk {
        let mut chunk = Chunk::new(0, PlanVersion(1), scope, range.start, range.end);
        listed.iter().for_each(|offset| chunk.push(*offset, [TriggerNumber(1), TRIGGER]));
        chunk
    }

    #[test]
    fn of_lists_in_order_no_more_are_looked_at_than_are_wanted() {
        let block = vec![chunk(Scope::All, 0..10, &[2, 5]), chunk(Scope::All, 10..20, &[11])];
        let fresh = chunk(Scope::All, 20..30, &[20, 29]);
        let lists = [Held::Block(Arc::new(block)), Held::Chunk(Arc::new(fresh))];
        assert_eq!(lists.iter().map(Held::matches).sum::<usize>(), 10);
        assert_eq!(offsets_of(&lists, TRIGGER, 0..30, usize::MAX), (vec![2, 5, 11, 20, 29], 30));
        assert_eq!(offsets_of(&lists, TRIGGER, 0..30, 2), (vec![2, 5], 6));
        assert_eq!(offsets_of(&lists, TRIGGER, 3..20, 2), (vec![5, 11], 12));
        assert_eq!(offsets_of(&lists, TRIGGER, 3..20, 3), (vec![5, 11], 20));
        assert_eq!(offsets_of(&lists, TriggerNumber(8), 0..30, 1), (vec![], 30));
    }

    #[test]
    fn of_lists_out_of_order_all_are_told_in_order() {
        let restored = chunk(Scope::Restored, 0..10, &[1, 4]);
        let alone = chunk(Scope::Trigger(TRIGGER), 0..20, &[4, 12]);
        let lists =
            [chunk(Scope::All, 10..20, &[11]), restored, alone].map(|chunk| Held::Chunk(Arc::new(chunk)));
        assert_eq!(offsets_of(&lists, TRIGGER, 0..20, 1), (vec![1, 4, 11, 12], 20));
    }
}
