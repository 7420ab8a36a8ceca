//! The match lists of one range, as they were recorded.
//!
//! ```text
//! sequence u64 | plan version u64 | scope: u32, the trigger and one, 0 for all, or 2^32-1 for all once more | from u64 | to u64 | lists varint
//! list: offset, as the distance from the one before | triggers varint | trigger varint × triggers
//! ```

use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::log::{PlanVersion, Scope, TriggerNumber};
use crate::record::Offset;

const RESTORED: u32 = u32::MAX;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Its place among the changes of the ledgers.
    pub(crate) sequence: u64,
    pub(crate) version: PlanVersion,
    pub(crate) scope: Scope,
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    /// Each offset with the end of its triggers in `triggers`.
    offsets: Vec<(Offset, u32)>,
    triggers: Vec<TriggerNumber>,
}

impl Chunk {
    pub(crate) fn new(sequence: u64, version: PlanVersion, scope: Scope, from: Offset, to: Offset) -> Self {
        Self { sequence, version, scope, from, to, offsets: Vec::new(), triggers: Vec::new() }
    }

    /// Adds the list of a record; offsets come in increasing order.
    pub(crate) fn push(&mut self, offset: Offset, triggers: impl IntoIterator<Item = TriggerNumber>) {
        self.triggers.extend(triggers);
        self.end_list(offset);
    }

    /// The triggers that were added since the last list are those of `offset`.
    fn end_list(&mut self, offset: Offset) {
        let end = u32::try_from(self.triggers.len()).expect("a chunk has fewer than 2^32 matches");
        if self.offsets.last().map_or(0, |(_, end)| *end) < end {
            self.offsets.push((offset, end));
        }
    }

    /// The number of matches in it.
    pub(crate) fn matches(&self) -> usize {
        self.triggers.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Offset, &[TriggerNumber])> {
        let mut begin = 0;
        self.offsets.iter().map(move |(offset, end)| {
            let triggers = &self.triggers[begin..*end as usize];
            begin = *end as usize;
            (*offset, triggers)
        })
    }

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.put_u64(self.sequence);
        into.put_u64(self.version.0);
        into.put_u32(match self.scope {
            Scope::All => 0,
            Scope::Restored => RESTORED,
            Scope::Trigger(trigger) => trigger.0 + 1,
        });
        into.put_u64(self.from);
        into.put_u64(self.to);
        into.put_varint(self.offsets.len() as u64);
        let mut before = self.from;
        for (offset, triggers) in self.iter() {
            into.put_varint(offset - before);
            into.put_varint(triggers.len() as u64);
            for trigger in triggers {
                into.put_varint(u64::from(trigger.0));
            }
            before = offset;
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (sequence, version) = (reader.u64()?, PlanVersion(reader.u64()?));
        let scope = match reader.u32()? {
            0 => Scope::All,
            RESTORED => Scope::Restored,
            trigger => Scope::Trigger(TriggerNumber(trigger - 1)),
        };
        let mut chunk = Self::new(sequence, version, scope, reader.u64()?, reader.u64()?);
        let mut offset = chunk.from;
        for _ in 0..reader.varint()? {
            offset = offset.checked_add(reader.varint()?).ok_or(Corrupt("an offset is too large"))?;
            if offset >= chunk.to {
                return Err(Corrupt("a match is outside its range"));
            }
            for _ in 0..reader.varint()? {
                chunk.triggers.push(TriggerNumber(reader.varint_u32()?));
            }
            chunk.end_list(offset);
        }
        Ok(chunk)
    }
}

/// All lists of a frame's body.
pub(super) fn decode_all(body: &[u8]) -> Result<Vec<Chunk>, Corrupt> {
    let mut reader = Reader(body);
    let mut all = Vec::new();
    while !reader.is_empty() {
        all.push(Chunk::decode(&mut reader)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_come_back(
            all in vec((any::<u64>(), any::<u64>(), proptest::option::of(0..u32::MAX - 1),
                btree_map(0_u64..5_000, vec(any::<u32>(), 1..6), 0..40)), 0..5),
        ) {
            let mut chunks = Vec::new();
            let mut body = Vec::new();
            for (sequence, version, trigger, lists) in all {
                let scope = trigger.map_or(Scope::All, |trigger| Scope::Trigger(TriggerNumber(trigger)));
                let mut chunk = Chunk::new(sequence, PlanVersion(version), scope, 0, 5_000);
                for (offset, triggers) in &lists {
                    chunk.push(*offset, triggers.iter().copied().map(TriggerNumber));
                }
                prop_assert_eq!(chunk.iter().count(), lists.len());
                chunk.encode(&mut body);
                chunks.push(chunk);
            }
            prop_assert_eq!(decode_all(&body), Ok(chunks));
        }

        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>) {
            let _ = decode_all(&body);
        }
    }
}
