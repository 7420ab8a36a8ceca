//! Of which deliveries notes tell, in a few bytes: enough to pass over nearly all notes on others.

use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::log::TriggerNumber;
use crate::record::Offset;

/// One delivery, as notes are searched for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought {
    pub(super) offset: Offset,
    pub(super) trigger: TriggerNumber,
    mark: u16,
}

impl Sought {
    pub(super) fn new(offset: Offset, trigger: TriggerNumber) -> Self {
        Self { offset, trigger, mark: mark_of(offset, trigger) }
    }
}

/// Two bytes that two deliveries seldom share.
fn mark_of(offset: Offset, trigger: TriggerNumber) -> u16 {
    let mixed = (offset ^ (u64::from(trigger.0) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u16::try_from(mixed >> 48).expect("16 bits are left")
}

/// The deliveries whose outcomes notes tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// The range of their offsets; where there are none, `lowest` is above `highest`.
    pub(super) lowest: Offset,
    pub(super) highest: Offset,
    /// The mark of each of them, where marks were taken.
    marks: Option<Vec<u16>>,
}

impl Default for Told {
    fn default() -> Self {
        Self { lowest: Offset::MAX, highest: 0, marks: Some(Vec::new()) }
    }
}

impl Told {
    pub(super) fn add(&mut self, offset: Offset, trigger: TriggerNumber) {
        self.lowest = self.lowest.min(offset);
        self.highest = self.highest.max(offset);
        if let Some(marks) = &mut self.marks {
            marks.push(mark_of(offset, trigger));
        }
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
        match (&mut self.marks, &other.marks) {
            (Some(marks), Some(others)) => marks.extend_from_slice(others),
            _ => self.marks = None,
        }
    }

    /// Whether they may tell of it: sure where not.
    pub(super) fn may_tell_of(&self, sought: Sought) -> bool {
        (self.lowest..=self.highest).contains(&sought.offset)
            && self.marks.as_ref().is_none_or(|marks| marks.contains(&sought.mark))
    }

    /// Gives back the room for more.
    pub(super) fn close(&mut self) {
        self.marks.iter_mut().for_each(Vec::shrink_to_fit);
    }

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.put_u64(self.lowest);
        into.put_u64(self.highest);
        let marks = self.marks.as_deref();
        // No marks at all is told apart from the marks of no delivery.
        into.put_u32(marks.map_or(u32::MAX, |marks| u32::try_from(marks.len()).unwrap_or(u32::MAX)));
        marks.into_iter().flatten().for_each(|mark| into.put_u16(*mark));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let (lowest, highest) = (reader.u64()?, reader.u64()?);
        let marks = match reader.u32()? {
            u32::MAX => None,
            count => Some((0..count).map(|_| reader.u16()).collect::<Result<_, _>>()?),
        };
        Ok(Self { lowest, highest, marks })
    }

    /// As files told of it before there were marks.
    pub(super) fn decode_range(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self { lowest: reader.u64()?, highest: reader.u64()?, marks: None })
    }
}
