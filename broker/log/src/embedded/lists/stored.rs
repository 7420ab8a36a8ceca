//! A file of match lists: what is known of it, and how it is read.

use std::io;

use super::chunk::{self, Chunk};
use super::{BLOCK_BYTES, CHUNKS, FOOTER};
use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::embedded::disk::DiskFile;
use crate::embedded::frame::{FILE_HEADER, Gap, Scanned, read_footer, scan};
use crate::log::Scope;
use crate::record::Offset;

/// A file of match lists.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) generation: u64,
    pub(super) length: u64,
    pub(super) next_number: u64,
    pub(super) summary: Summary,
    pub(super) blocks: Vec<Block>,
    /// Whether it ends with a footer.
    pub(super) sealed: bool,
}

/// What frames hold, in a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// The place of the last list among the changes of the ledgers.
    pub(super) last: u64,
    pub(super) from: Offset,
    pub(super) to: Offset,
    /// What was examined for all triggers, from here on.
    pub(super) all_from: Offset,
    /// The end of what was examined for all triggers.
    pub(super) matched: Offset,
    /// What was examined once more for all triggers.
    pub(super) restored: (Offset, Offset),
    pub(super) unordered: bool,
}

/// Frames that stand one after the other, and the range that they tell of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) from: Offset,
    pub(super) to: Offset,
}

impl Stored {
    pub(super) fn new(generation: u64) -> Self {
        let summary = Summary::NOTHING;
        Self { generation, length: 0, next_number: 0, summary, blocks: Vec::new(), sealed: false }
    }

    /// The place of the last list in it, where there is one.
    pub(super) fn last(&self) -> Option<u64> {
        (!self.blocks.is_empty()).then_some(self.summary.last)
    }

    /// Enters a frame.
    pub(super) fn add(&mut self, frame: Summary, at: u64, end: u64) {
        self.summary = self.summary.and(frame);
        match self.blocks.last_mut().filter(|block| block.end == at && end - block.at <= BLOCK_BYTES) {
            Some(block) => {
                block.end = end;
                block.from = block.from.min(frame.from);
                block.to = block.to.max(frame.to);
            }
            None => self.blocks.push(Block { at, end, from: frame.from, to: frame.to }),
        }
    }
}

impl Summary {
    pub(super) const NOTHING: Self = Self {
        last: 0,
        from: Offset::MAX,
        to: 0,
        all_from: Offset::MAX,
        matched: 0,
        restored: (Offset::MAX, 0),
        unordered: false,
    };

    pub(super) fn of(chunk: &Chunk) -> Self {
        let Chunk { sequence: last, from, to, .. } = *chunk;
        let told = Self { last, from, to, ..Self::NOTHING };
        match chunk.scope {
            Scope::All => Self { all_from: from, matched: to, ..told },
            Scope::Restored => Self { restored: (from, to), unordered: true, ..told },
            Scope::Trigger(_) => Self { unordered: true, ..told },
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            last: self.last.max(other.last),
            from: self.from.min(other.from),
            to: self.to.max(other.to),
            all_from: self.all_from.min(other.all_from),
            matched: self.matched.max(other.matched),
            restored: (self.restored.0.min(other.restored.0), self.restored.1.max(other.restored.1)),
            unordered: self.unordered | other.unordered,
        }
    }

    pub(super) fn encode(self, into: &mut Vec<u8>) {
        let (restored_from, restored_to) = self.restored;
        for number in [self.last, self.from, self.to, self.all_from, self.matched, restored_from, restored_to]
        {
            into.put_u64(number);
        }
        into.put_u8(u8::from(self.unordered));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self {
            last: reader.u64()?,
            from: reader.u64()?,
            to: reader.u64()?,
            all_from: reader.u64()?,
            matched: reader.u64()?,
            restored: (reader.u64()?, reader.u64()?),
            unordered: reader.u8()? != 0,
        })
    }
}

/// What the footer says of a file, where there is one.
pub(super) fn read_stored(file: &dyn DiskFile, generation: u64) -> io::Result<Option<Stored>> {
    let length = file.length()?;
    read_footer(file, generation, FOOTER..=FOOTER, |head, body| {
        let (summary, blocks) = decode_footer(body)?;
        Ok(Stored { generation, length, next_number: head.number + 1, summary, blocks, sealed: true })
    })
}

/// A whole file that was read.
pub(super) struct Read {
    /// What is intact.
    pub(super) stored: Stored,
    /// The frames that are intact, by their places.
    pub(super) frames: Vec<(u64, Summary)>,
    pub(super) gaps: Vec<Gap>,
    /// What is left of a last write that was cut off.
    pub(super) torn: Option<Gap>,
}

/// Reads a whole file, and hands each list with a place from `covered` on to `visit`.
pub(super) fn scan_stored(
    file: &dyn DiskFile,
    generation: u64,
    covered: u64,
    visit: &mut dyn FnMut(&Chunk),
) -> io::Result<Read> {
    let mut stored = Stored::new(generation);
    let mut frames = Vec::new();
    let scanned = scan(file, generation, FILE_HEADER as u64, 0, |at, head, body| {
        stored.sealed = head.kind == FOOTER;
        if head.kind != CHUNKS {
            return Ok(());
        }
        let mut reader = Reader(body);
        let summary = Summary::decode(&mut reader)?;
        if summary.last >= covered {
            let chunks = chunk::decode_all(reader.0)?;
            chunks.iter().filter(|chunk| chunk.sequence >= covered).for_each(&mut *visit);
        }
        stored.add(summary, at, at + head.size());
        frames.push((at, summary));
        Ok(())
    })?;
    let Scanned { end, next_number, gaps, torn } = scanned;
    (stored.length, stored.next_number) = (end, next_number);
    Ok(Read { stored, frames, gaps, torn })
}

pub(super) fn decode_footer(body: &[u8]) -> Result<(Summary, Vec<Block>), Corrupt> {
    let mut reader = Reader(body);
    let summary = Summary::decode(&mut reader)?;
    let mut blocks = Vec::with_capacity(reader.0.len() / 32);
    while !reader.is_empty() {
        let (at, end) = (reader.u64()?, reader.u64()?);
        blocks.push(Block { at, end, from: reader.u64()?, to: reader.u64()? });
    }
    Ok((summary, blocks))
}
