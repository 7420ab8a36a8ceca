//! What is known of a file of the journal without reading it.

use super::BLOCK_BYTES;
use super::told::Told;
use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::record::Offset;

#[derive(Debug)]
pub(super) struct File {
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) length: u64,
    pub(super) next_number: u64,
    pub(super) summary: Summary,
    pub(super) blocks: Vec<Block>,
    /// Whether it ends with a footer.
    pub(super) sealed: bool,
}

/// What the notes of a frame or file tell of, in a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// The place of the last.
    pub(super) last: u64,
    /// The range of the offsets whose outcomes they tell of; where there are none, `lowest` is above `highest`.
    pub(super) lowest: Offset,
    pub(super) highest: Offset,
}

/// Frames that stand one after the other.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) told: Told,
}

impl Default for Summary {
    fn default() -> Self {
        Self { last: 0, lowest: Offset::MAX, highest: 0 }
    }
}

impl Summary {
    pub(super) fn new(last: u64, told: &Told) -> Self {
        Self { last, lowest: told.lowest, highest: told.highest }
    }

    pub(super) fn tells_of(&self, offset: Offset) -> bool {
        (self.lowest..=self.highest).contains(&offset)
    }

    pub(super) fn encode(self, into: &mut Vec<u8>) {
        [self.last, self.lowest, self.highest].into_iter().for_each(|number| into.put_u64(number));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self { last: reader.u64()?, lowest: reader.u64()?, highest: reader.u64()? })
    }
}

impl File {
    pub(super) fn new(number: u64, generation: u64) -> Self {
        let summary = Summary::default();
        Self { number, generation, length: 0, next_number: 0, summary, blocks: Vec::new(), sealed: false }
    }

    pub(super) fn without_blocks(&self) -> Self {
        let Self { number, generation, length, next_number, summary, sealed, .. } = *self;
        Self { number, generation, length, next_number, summary, blocks: Vec::new(), sealed }
    }

    /// Enters a frame whose last note has the place `last`.
    pub(super) fn add(&mut self, last: u64, told: &Told, at: u64, end: u64) {
        self.summary.last = self.summary.last.max(last);
        self.summary.lowest = self.summary.lowest.min(told.lowest);
        self.summary.highest = self.summary.highest.max(told.highest);
        match self.blocks.last_mut().filter(|block| block.end == at && end - block.at <= BLOCK_BYTES) {
            Some(block) => {
                block.end = end;
                block.told.join(told);
            }
            None => {
                if let Some(block) = self.blocks.last_mut() {
                    block.told.close();
                }
                self.blocks.push(Block { at, end, told: told.clone() });
            }
        }
    }

    pub(super) fn encode_footer(&self, into: &mut Vec<u8>) {
        self.summary.encode(into);
        for block in &self.blocks {
            into.put_u64(block.at);
            into.put_u64(block.end);
            block.told.encode(into);
        }
    }

    /// With what its footer says; `decode` reads of what a block tells.
    pub(super) fn with_footer(
        mut self,
        body: &[u8],
        decode: fn(&mut Reader<'_>) -> Result<Told, Corrupt>,
    ) -> Result<Self, Corrupt> {
        let mut reader = Reader(body);
        self.summary = Summary::decode(&mut reader)?;
        while !reader.is_empty() {
            let (at, end) = (reader.u64()?, reader.u64()?);
            self.blocks.push(Block { at, end, told: decode(&mut reader)? });
        }
        self.blocks.shrink_to_fit();
        self.sealed = true;
        Ok(self)
    }
}
