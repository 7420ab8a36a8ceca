//! Files of frames: segments, match lists and outcome journals have the same outer form.
//!
//! ```text
//! file:   header | frame | frame | … | zeros to the end
//! header: magic 8 | kind u32 | format version u32 | generation u64 | base u64 | CRC32C u32
//! frame:  magic u32 | kind u32 | generation u64 | number u64 | first u64 | count u32 | length u32
//!         | CRC32C of the body u32 | CRC32C of the header u32 | body
//! ```
//!
//! Numbers are little-endian. Frames are numbered from 0, and one is written only after the one before it was
//! synced. So a frame with a valid header proves that all before it were durable, and that damage in them is
//! damage, not a write that the power's end cut off.

use std::io;
use std::ops::RangeInclusive;

use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::embedded::disk::DiskFile;

const FILE_MAGIC: &[u8; 8] = b"WAYPOST\n";
/// The version of all file formats below. A file of a higher one is refused.
pub(super) const FORMAT_VERSION: u32 = 1;
/// The bytes of a file's header.
pub(super) const FILE_HEADER: usize = 36;

const FRAME_MAGIC: u32 = 0x4d52_4657;
/// The bytes of a frame's header.
pub(super) const FRAME_HEADER: usize = 48;
/// The most bytes of a frame's body: one batch is never split, and a request is far smaller.
pub(super) const MAX_BODY: usize = 256 * 1024 * 1024;
/// The bytes that are read at once.
const CHUNK: usize = 256 * 1024;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment = 1,
    Matches = 2,
    Outcomes = 3,
}

/// The first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// Differs from file to file, so that left-over bytes of another are never taken for this one's.
    pub(super) generation: u64,
    /// The first offset of a segment, or the number of a journal.
    pub(super) base: u64,
}

impl FileHeader {
    /// A header with a new generation.
    pub(super) fn new(base: u64) -> Self {
        Self { generation: fastrand::u64(..), base }
    }

    pub(super) fn encode(self, kind: FileKind) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FILE_HEADER);
        bytes.put(FILE_MAGIC);
        bytes.put_u32(kind as u32);
        bytes.put_u32(FORMAT_VERSION);
        bytes.put_u64(self.generation);
        bytes.put_u64(self.base);
        let checksum = crc32c::crc32c(&bytes);
        bytes.put_u32(checksum);
        bytes
    }

    pub(super) fn decode(bytes: &[u8], kind: FileKind) -> Result<Self, Corrupt> {
        let mut reader = Reader(bytes);
        let covered = reader.take(FILE_HEADER - 4)?;
        if reader.u32()? != crc32c::crc32c(covered) {
            return Err(Corrupt("the file header fails its checksum"));
        }
        let mut reader = Reader(covered);
        if reader.take(FILE_MAGIC.len())? != FILE_MAGIC || reader.u32()? != kind as u32 {
            return Err(Corrupt("the file is of another kind"));
        }
        if reader.u32()? != FORMAT_VERSION {
            return Err(Corrupt("the file is of a format that this version does not know"));
        }
        Ok(Self { generation: reader.u64()?, base: reader.u64()? })
    }
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// What is in it; each kind of file has its own numbers.
    pub(super) kind: u32,
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) length: u32,
    checksum: u32,
}

impl FrameHead {
    /// Appends a frame whose body `write` makes, and returns the bytes that it takes.
    pub(super) fn encode(
        into: &mut Vec<u8>,
        generation: u64,
        (kind, number): (u32, u64),
        (first, count): (u64, u32),
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let start = into.len();
        into.resize(start + FRAME_HEADER, 0);
        write(into);
        let body = &into[start + FRAME_HEADER..];
        let length = u32::try_from(body.len()).expect("a frame is far below 4 GiB");
        let checksum = crc32c::crc32c(body);
        let mut head = Vec::with_capacity(FRAME_HEADER);
        head.put_u32(FRAME_MAGIC);
        head.put_u32(kind);
        head.put_u64(generation);
        head.put_u64(number);
        head.put_u64(first);
        head.put_u32(count);
        head.put_u32(length);
        head.put_u32(checksum);
        let own = crc32c::crc32c(&head);
        head.put_u32(own);
        into[start..start + FRAME_HEADER].copy_from_slice(&head);
        into.len() - start
    }

    /// Reads a header of a file of this generation.
    pub(super) fn decode(bytes: &[u8], generation: u64) -> Result<Self, Corrupt> {
        let mut reader = Reader(bytes);
        let covered = reader.take(FRAME_HEADER - 4)?;
        if reader.u32()? != crc32c::crc32c(covered) {
            return Err(Corrupt("a frame header fails its checksum"));
        }
        let mut reader = Reader(covered);
        if reader.u32()? != FRAME_MAGIC {
            return Err(Corrupt("a frame header is none"));
        }
        let kind = reader.u32()?;
        if reader.u64()? != generation {
            return Err(Corrupt("a frame belongs to another file"));
        }
        let head = Self {
            kind,
            number: reader.u64()?,
            first: reader.u64()?,
            count: reader.u32()?,
            length: reader.u32()?,
            checksum: reader.u32()?,
        };
        if head.length as usize > MAX_BODY {
            return Err(Corrupt("a frame is too long"));
        }
        Ok(head)
    }

    /// The bytes that the frame takes, its header with it.
    pub(super) fn size(&self) -> u64 {
        FRAME_HEADER as u64 + u64::from(self.length)
    }

    fn check(&self, body: &[u8]) -> Result<(), Corrupt> {
        if crc32c::crc32c(body) == self.checksum {
            Ok(())
        } else {
            Err(Corrupt("the body of a frame fails its checksum"))
        }
    }
}

/// What stands at a place of a file.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A frame, intact.
    Frame { at: u64, head: FrameHead, body: &'a [u8] },
    /// Nothing: the end of what was written.
    End,
    /// Something that is no intact frame.
    Bad(Corrupt),
}

/// Reads frames one after the other, in large pieces.
pub(super) struct FrameReader<'a> {
    file: &'a dyn DiskFile,
    generation: u64,
    /// Where the next frame begins.
    position: u64,
    /// Nothing is read from here on.
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    /// The bytes to read at once where one frame does not need more.
    chunk: usize,
}

impl<'a> FrameReader<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, generation: u64, position: u64, end: u64) -> Self {
        Self { file, generation, position, end, buffer: Vec::new(), buffer_at: position, chunk: CHUNK }
    }

    /// Reads no more at once than this, where only a few frames are wanted.
    pub(super) fn in_pieces_of(mut self, chunk: usize) -> Self {
        self.chunk = chunk;
        self
    }

    /// Reads into this buffer, whatever is in it.
    pub(super) fn into(mut self, buffer: Vec<u8>) -> Self {
        self.buffer = buffer;
        self.buffer_at = u64::MAX;
        self
    }

    /// Gives the buffer back.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Where the next frame begins.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// The header of the next frame without its body; the place stays where it is.
    pub(super) fn peek(&mut self) -> io::Result<Option<Result<FrameHead, Corrupt>>> {
        let (position, generation) = (self.position, self.generation);
        let header = self.bytes(position, FRAME_HEADER)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Ok(Some(FrameHead::decode(header, generation)))
    }

    /// Passes over the next frame, whose header is `head`.
    pub(super) fn skip(&mut self, head: &FrameHead) {
        self.position += head.size();
    }

    /// Reads the next frame and goes on behind it. On [`Step::Bad`] the place stays where it is.
    pub(super) fn next(&mut self) -> io::Result<Step<'_>> {
        let head = match self.peek()? {
            None => return Ok(Step::End),
            Some(Err(corrupt)) => return Ok(Step::Bad(corrupt)),
            Some(Ok(head)) => head,
        };
        let at = self.position;
        let body = self.bytes(at + FRAME_HEADER as u64, head.length as usize)?;
        if body.len() < head.length as usize {
            return Ok(Step::Bad(Corrupt("a frame is cut off")));
        }
        if let Err(corrupt) = head.check(body) {
            return Ok(Step::Bad(corrupt));
        }
        self.position = at + head.size();
        // Borrowed again, since the place could not be moved under the first borrow.
        let from = usize::try_from(at + FRAME_HEADER as u64 - self.buffer_at).unwrap_or(usize::MAX);
        let body = self.buffer.get(from..from + head.length as usize).unwrap_or_default();
        Ok(Step::Frame { at, head, body })
    }

    /// Looks behind a bad place for the next frame with a valid header and a number of at least `number`.
    pub(super) fn find_later(&mut self, number: u64) -> io::Result<Option<u64>> {
        let magic = FRAME_MAGIC.to_le_bytes();
        let mut at = self.position + 1;
        loop {
            let generation = self.generation;
            let window = self.bytes(at, CHUNK)?;
            if window.len() < FRAME_HEADER {
                return Ok(None);
            }
            let places = window.len() - FRAME_HEADER + 1;
            let found =
                memchr::memmem::find_iter(&window[..places + magic.len() - 1], &magic).find(|place| {
                    FrameHead::decode(&window[*place..], generation).is_ok_and(|head| head.number >= number)
                });
            if let Some(place) = found {
                return Ok(Some(at + place as u64));
            }
            at += places as u64;
        }
    }

    /// The bytes at a place: fewer only at the end.
    fn bytes(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let length = length.min(usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX));
        let held = at.checked_sub(self.buffer_at).and_then(|from| usize::try_from(from).ok());
        let held = held.filter(|from| from + length <= self.buffer.len());
        if let Some(from) = held {
            return Ok(&self.buffer[from..from + length]);
        }
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        self.buffer.resize(length.max(self.chunk).min(left), 0);
        let read = self.file.read_at(&mut self.buffer, at)?;
        self.buffer.truncate(read);
        self.buffer_at = at;
        Ok(&self.buffer[..length.min(read)])
    }
}

/// The bytes with which the body of a footer ends: its place, magic and checksum.
const TRAILER: usize = 16;
const TRAILER_MAGIC: u32 = 0x5244_4c57;

/// Ends the body of a footer frame that begins at `at`, so that it is found from the end of the file.
pub(super) fn put_trailer(into: &mut Vec<u8>, at: u64) {
    let start = into.len();
    into.put_u64(at);
    into.put_u32(TRAILER_MAGIC);
    let checksum = crc32c::crc32c(&into[start..]);
    into.put_u32(checksum);
}

/// Reads the footer frame with which a file ends. None where there is none, or it is damaged.
pub(super) fn read_footer<T>(
    file: &dyn DiskFile,
    generation: u64,
    kinds: RangeInclusive<u32>,
    decode: impl FnOnce(&FrameHead, &[u8]) -> Result<T, Corrupt>,
) -> io::Result<Option<T>> {
    let end = file.length()?;
    let mut trailer = [0; TRAILER];
    let Some(trailer_at) = end.checked_sub(TRAILER as u64) else { return Ok(None) };
    file.read_at(&mut trailer, trailer_at)?;
    let Ok(at) = decode_trailer(&trailer) else { return Ok(None) };
    let mut reader = FrameReader::new(file, generation, at, end);
    Ok(match reader.next()? {
        Step::Frame { head, body, .. } if kinds.contains(&head.kind) && at + head.size() == end => {
            body.split_last_chunk::<TRAILER>().and_then(|(content, _)| decode(&head, content).ok())
        }
        _ => None,
    })
}

fn decode_trailer(bytes: &[u8; TRAILER]) -> Result<u64, Corrupt> {
    let mut reader = Reader(bytes);
    let (at, magic, stored) = (reader.u64()?, reader.u32()?, reader.u32()?);
    if magic == TRAILER_MAGIC && crc32c::crc32c(&bytes[..TRAILER - 4]) == stored {
        Ok(at)
    } else {
        Err(Corrupt("the trailer is damaged"))
    }
}

/// A part of a file that is no intact frame although frames follow it, or although it is known to have been synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) reason: Corrupt,
}

/// What a file holds in the end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Where the last intact frame ends.
    pub(super) end: u64,
    /// The number of the next frame.
    pub(super) next_number: u64,
    /// Damage with frames behind it.
    pub(super) gaps: Vec<Gap>,
    /// The range of a last write that was cut off.
    pub(super) torn: Option<Gap>,
}

/// Reads all frames of a file from `from` on, where frame `number` is expected.
pub(super) fn scan(
    file: &dyn DiskFile,
    generation: u64,
    from: u64,
    mut number: u64,
    mut visit: impl FnMut(u64, FrameHead, &[u8]) -> Result<(), Corrupt>,
) -> io::Result<Scanned> {
    let length = file.length()?;
    let mut reader = FrameReader::new(file, generation, from, length);
    let mut gaps = Vec::new();
    let mut end = from;
    loop {
        let reason = match reader.next()? {
            Step::Frame { at, head, body } if head.number >= number => {
                if head.number > number {
                    gaps.push(Gap { from: end, to: at, reason: Corrupt("frames are missing") });
                }
                match visit(at, head, body) {
                    Ok(()) => {
                        number = head.number + 1;
                        end = at + head.size();
                        continue;
                    }
                    Err(reason) => reason,
                }
            }
            Step::Frame { .. } => Corrupt("a frame stands twice"),
            Step::End => {
                // Zeros, or a page of zeros in what was written.
                let left = end_of_zeros(file, reader.position(), length)?;
                if left.is_none() || reader.find_later(number)?.is_none() {
                    return Ok(Scanned { end, next_number: number, gaps, torn: left });
                }
                Corrupt("frames are missing")
            }
            Step::Bad(reason) => reason,
        };
        // `end` is where the damage begins, whether or not the reader went beyond it.
        reader.seek(end);
        match reader.find_later(number)? {
            Some(later) => {
                gaps.push(Gap { from: end, to: later, reason });
                reader.seek(later);
                end = later;
                let Some(Ok(head)) = reader.peek()? else { continue };
                number = head.number;
            }
            None => {
                let torn = Some(Gap { from: end, to: length, reason });
                return Ok(Scanned { end, next_number: number, gaps, torn });
            }
        }
    }
}

/// What is left of a cut write behind `from`, where its first bytes are zero.
pub(super) fn end_of_zeros(file: &dyn DiskFile, from: u64, length: u64) -> io::Result<Option<Gap>> {
    let mut buffer = vec![0; CHUNK];
    let zeros = vec![0; CHUNK];
    let mut at = from;
    while at < length {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        if buffer[..read] != zeros[..read] {
            return Ok(Some(Gap { from, to: length, reason: Corrupt("a frame begins with zeros") }));
        }
        at += read as u64;
    }
    Ok(None)
}

#[cfg(test)]
#[path = "frame/suite.rs"]
mod suite;
