//! The contents of the checkpoint's rows.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::embedded::note::{put_name, take_key, take_name};
use crate::ledger::{AcceptedOutputs, BatchBounds, Batches, Delayed, DropReason, Dropped, Flying, Snapshot};
use crate::log::{PlanRecord, PlanVersion, TriggerNumber};
use crate::record::{Checkpoint, Offset};

/// A log as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LogRow {
    /// Counts the openings of the log.
    pub(super) epoch: u64,
    /// All changes below this place are in the checkpoint.
    pub(super) sequence: u64,
    /// The first offset that was not trimmed.
    pub(super) start: Offset,
    /// The first offset that was not known to be synced.
    pub(super) synced: Offset,
    /// The first offset whose match list was not known to be synced.
    pub(super) matched: Offset,
    pub(super) next_trigger: u32,
    pub(super) next_letter: u64,
    /// Whether the process that wrote this closed the log with it.
    pub(super) closed: bool,
    /// The damage that an operator accepted.
    pub(super) accepted: Accepted,
}

/// Damage that an operator accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The records that are lost, as ranges of offsets in increasing order.
    pub(super) lost: Vec<(Offset, Offset)>,
    /// The records whose match lists are lost, as ranges.
    pub(super) lists: Vec<(Offset, Offset)>,
    /// The sentences in which the damage was told.
    pub(super) told: Vec<String>,
}

impl Accepted {
    /// Whether the record is known to be lost.
    pub(super) fn has(&self, offset: Offset) -> bool {
        let index = self.lost.partition_point(|(from, _)| *from <= offset);
        index.checked_sub(1).is_some_and(|index| offset < self.lost[index].1)
    }

    fn encode(&self, into: &mut Vec<u8>) {
        for ranges in [&self.lost, &self.lists] {
            into.put_varint(ranges.len() as u64);
            for (from, to) in ranges {
                into.put_u64(*from);
                into.put_u64(*to);
            }
        }
        into.put_varint(self.told.len() as u64);
        for told in &self.told {
            into.put_counted(told.as_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut accepted = Self::default();
        for ranges in [&mut accepted.lost, &mut accepted.lists] {
            for _ in 0..reader.varint()? {
                ranges.push((reader.u64()?, reader.u64()?));
            }
        }
        for _ in 0..reader.varint()? {
            accepted.told.push(reader.text()?.to_owned());
        }
        Ok(accepted)
    }
}

impl LogRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut into = Vec::new();
        for number in [self.epoch, self.sequence, self.start, self.synced, self.matched] {
            into.put_u64(number);
        }
        into.put_u32(self.next_trigger);
        into.put_u64(self.next_letter);
        into.put_u8(u8::from(self.closed));
        self.accepted.encode(&mut into);
        into
    }

    pub(super) fn decode(stored: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader(stored);
        let row = Self {
            epoch: reader.u64()?,
            sequence: reader.u64()?,
            start: reader.u64()?,
            synced: reader.u64()?,
            matched: reader.u64()?,
            next_trigger: reader.u32()?,
            next_letter: reader.u64()?,
            closed: reader.u8()? != 0,
            accepted: Accepted::decode(&mut reader)?,
        };
        reader.end()?;
        Ok(row)
    }
}

/// A ledger with the place up to which changes are in it; its schedule is in rows of its own.
pub(super) fn encode_ledger(covered: u64, ledger: &Snapshot) -> Vec<u8> {
    let mut into = Vec::new();
    into.put_u64(covered);
    for number in [ledger.next, ledger.matched_end, ledger.oldest_untaken] {
        into.put_u64(number);
    }
    into.put_u8(u8::from(ledger.placed));
    for number in [ledger.matched, ledger.delivered, ledger.dead_lettered, ledger.untaken] {
        into.put_u64(number);
    }
    for reason in &DropReason::ALL[..FIRST_REASONS] {
        into.put_u64(ledger.dropped.by(*reason));
    }
    into.put_varint(ledger.window.len() as u64);
    for (offset, flying) in &ledger.window {
        into.put_u64(*offset);
        into.put_u32(flying.attempts);
        into.put_u8(u8::from(flying.parked) | u8::from(flying.open) << 1);
        into.put_u8(flying.crashes);
    }
    for reason in &DropReason::ALL[FIRST_REASONS..] {
        into.put_u64(ledger.dropped.by(*reason));
    }
    into.put_varint(ledger.accepted.len() as u64);
    for (offset, accepted) in &ledger.accepted {
        into.put_u64(*offset);
        into.put_u64(accepted.chain);
        into.put_u32(accepted.outputs);
    }
    into.put_varint(ledger.batches.iter().len() as u64);
    for batch in ledger.batches.iter() {
        put_bounds(&mut into, &batch);
    }
    into
}

/// The offsets of a batch lie close to each other, in most cases in order: each is written as its distance from the one
/// before it, whose last bit says whether it lies below.
fn put_bounds(into: &mut Vec<u8>, batch: &BatchBounds) {
    into.put_u8(u8::from(batch.open));
    into.put_varint(batch.offsets.len() as u64);
    let mut before = 0;
    for offset in &batch.offsets {
        let distance = offset.wrapping_sub(before).cast_signed();
        into.put_varint(((distance << 1) ^ (distance >> 63)).cast_unsigned());
        before = *offset;
    }
}

fn take_bounds(reader: &mut Reader<'_>) -> Result<BatchBounds, Corrupt> {
    let open = reader.u8()? != 0;
    let (mut offsets, mut before) = (Vec::new(), 0_u64);
    for _ in 0..reader.varint()? {
        let distance = reader.varint()?;
        before = before.wrapping_add((distance >> 1) ^ (distance & 1).wrapping_neg());
        offsets.push(before);
    }
    Ok(BatchBounds { offsets, open })
}

/// The reasons that the first version of the rows knew, in their place; later ones stand at the end, where an earlier
/// version wrote nothing.
const FIRST_REASONS: usize = 6;

/// Stands among the crashes of a delivery that waits: it has a key, which follows.
const HAS_KEY: u8 = 0x80;
/// Stands there as well: it waits for the one ahead of it under its key, and not for a moment.
const HELD: u8 = 0x40;
/// The most crashes that are written down.
const MOST_CRASHES: u8 = 0x3f;

/// A page of a trigger's schedule. Deliveries without a key are written as format 1 wrote them all.
pub(super) fn encode_page(trigger: TriggerNumber, waiting: &[(Offset, Delayed)]) -> Vec<u8> {
    let mut into = Vec::with_capacity(4 + waiting.len() * 29);
    into.put_u32(trigger.0);
    for (offset, delayed) in waiting {
        into.put_u64(*offset);
        into.put_i64(delayed.due.map_or(0, |due| due.0));
        into.put_u32(delayed.attempts);
        let held = if delayed.due.is_none() { HELD } else { 0 };
        let keyed = if delayed.key.is_some() { HAS_KEY } else { 0 };
        into.put_u8(delayed.crashes.min(MOST_CRASHES) | held | keyed);
        if let Some(key) = delayed.key {
            into.put_u64(key.number());
        }
    }
    into
}

pub(super) fn decode_page(stored: &[u8]) -> Result<(TriggerNumber, Vec<(Offset, Delayed)>), Corrupt> {
    let mut reader = Reader(stored);
    let trigger = TriggerNumber(reader.u32()?);
    let mut waiting = Vec::new();
    while !reader.is_empty() {
        let offset = reader.u64()?;
        let (due, attempts, marks) = (Timestamp(reader.i64()?), reader.u32()?, reader.u8()?);
        let key = if marks & HAS_KEY != 0 { Some(take_key(&mut reader)?) } else { None };
        let due = (marks & HELD == 0).then_some(due);
        waiting.push((offset, Delayed { due, attempts, crashes: marks & MOST_CRASHES, key }));
    }
    Ok((trigger, waiting))
}

pub(super) fn decode_ledger(stored: &[u8]) -> Result<(u64, Snapshot), Corrupt> {
    let mut reader = Reader(stored);
    let covered = reader.u64()?;
    let mut ledger = Snapshot {
        next: reader.u64()?,
        matched_end: reader.u64()?,
        oldest_untaken: reader.u64()?,
        placed: reader.u8()? != 0,
        matched: reader.u64()?,
        delivered: reader.u64()?,
        dead_lettered: reader.u64()?,
        untaken: reader.u64()?,
        ..Snapshot::default()
    };
    let mut dropped = Dropped::default();
    for reason in &DropReason::ALL[..FIRST_REASONS] {
        dropped.add(*reason, reader.u64()?);
    }
    for _ in 0..reader.varint()? {
        let (offset, attempts, marks) = (reader.u64()?, reader.u32()?, reader.u8()?);
        let (parked, open) = (marks & 1 != 0, marks & 2 != 0);
        ledger.window.insert(offset, Flying { attempts, parked, open, crashes: reader.u8()? });
    }
    for reason in &DropReason::ALL[FIRST_REASONS..] {
        if reader.is_empty() {
            break;
        }
        dropped.add(*reason, reader.u64()?);
    }
    ledger.dropped = dropped;
    if !reader.is_empty() {
        for _ in 0..reader.varint()? {
            let (offset, chain, outputs) = (reader.u64()?, reader.u64()?, reader.u32()?);
            ledger.accepted.insert(offset, AcceptedOutputs { chain, outputs });
        }
    }
    if !reader.is_empty() {
        let count = reader.varint()?;
        ledger.batches = (0..count).map(|_| take_bounds(&mut reader)).collect::<Result<Batches, _>>()?;
    }
    reader.end()?;
    Ok((covered, ledger))
}

pub(super) fn encode_plan(plan: &PlanRecord) -> Vec<u8> {
    let mut into = Vec::new();
    into.put_u64(plan.version.0);
    into.put_varint(plan.effective.len() as u64);
    for offset in &plan.effective {
        into.put_u64(*offset);
    }
    into.put_varint(plan.triggers.len() as u64);
    for (number, name) in &plan.triggers {
        into.put_u32(number.0);
        put_name(&mut into, name);
    }
    into.put(&plan.body);
    into
}

pub(super) fn decode_plan(stored: &[u8]) -> Result<PlanRecord, Corrupt> {
    let mut reader = Reader(stored);
    let version = PlanVersion(reader.u64()?);
    let mut effective = Vec::new();
    for _ in 0..reader.varint()? {
        effective.push(reader.u64()?);
    }
    let mut triggers = Vec::new();
    for _ in 0..reader.varint()? {
        triggers.push((TriggerNumber(reader.u32()?), take_name(&mut reader)?));
    }
    Ok(PlanRecord { version, effective, triggers, body: Bytes::copy_from_slice(reader.0) })
}

pub(super) fn encode_source(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut into = Vec::new();
    put_name(&mut into, &checkpoint.source);
    into.put(&checkpoint.value);
    into
}

pub(super) fn decode_source(stored: &[u8]) -> Result<Checkpoint, Corrupt> {
    let mut reader = Reader(stored);
    let source = take_name(&mut reader)?;
    Ok(Checkpoint { source, value: Bytes::copy_from_slice(reader.0) })
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, hash_set, vec};
    use proptest::prelude::*;
    use waypost_core::manifest::ResourceName;

    use super::*;
    use crate::ledger::Key;

    /// As format 1 wrote them: no delivery had a key.
    #[test]
    fn pages_of_format_1_are_read() {
        let mut stored = Vec::new();
        stored.put_u32(7);
        for (offset, crashes) in [(3_u64, 0_u8), (9, 2)] {
            stored.put_u64(offset);
            stored.put_i64(-5);
            stored.put_u32(4);
            stored.put_u8(crashes);
        }
        let delayed = |crashes| Delayed { due: Some(Timestamp(-5)), attempts: 4, crashes, key: None };
        let (trigger, waiting) = decode_page(&stored).expect("it is read");
        assert_eq!(
            (trigger, waiting.as_slice()),
            (TriggerNumber(7), &[(3, delayed(0)), (9, delayed(2))][..])
        );
        assert_eq!(encode_page(trigger, &waiting), stored);
    }

    /// Rows of before the last two reasons to drop were known end with the window; those of before outputs that
    /// subscribers have were noted, with the reasons.
    #[test]
    fn ledgers_of_earlier_versions_are_read() {
        let mut first = Vec::new();
        for number in [40_u64, 9, 12, 0] {
            first.put_u64(number);
        }
        first.put_u8(1);
        // matched, delivered, deadLettered, untaken, and the six first reasons.
        for number in [12_u64, 4, 1, 0, 1, 0, 2, 0, 3, 0] {
            first.put_u64(number);
        }
        first.put_varint(1);
        first.put_u64(8);
        first.put_u32(2);
        first.put_u8(2);
        first.put_u8(0);
        let (covered, ledger) = decode_ledger(&first).expect("it is read");
        let dropped = |reason| ledger.dropped.by(reason);
        assert_eq!((covered, ledger.next, ledger.matched, ledger.delivered), (40, 9, 12, 4));
        assert_eq!((dropped(DropReason::Deadline), dropped(DropReason::Filtered)), (1, 3));
        assert_eq!((dropped(DropReason::Schema), dropped(DropReason::Failed)), (0, 0));
        assert_eq!(ledger.window[&8], Flying { attempts: 2, parked: false, open: true, crashes: 0 });
        assert!(ledger.accepted.is_empty());

        let mut second = first.clone();
        second.put_u64(5);
        second.put_u64(6);
        let (_, mut later) = decode_ledger(&second).expect("it is read");
        assert_eq!((later.dropped.by(DropReason::Schema), later.dropped.by(DropReason::Failed)), (5, 6));
        later.accepted.insert(8, AcceptedOutputs { chain: 7, outputs: 3 });
        let third = encode_ledger(40, &later);
        assert!(third.starts_with(&second));
        assert_eq!(decode_ledger(&third), Ok((40, later.clone())));

        // Before the bounds of batches were known a ledger ended here.
        let earlier = third.strip_suffix(&[0]).expect("there are no batches");
        assert_eq!(decode_ledger(earlier), Ok((40, later.clone())));
        later.batches.bind(vec![9, 8, 300], true);
        let fourth = encode_ledger(40, &later);
        assert!(fourth.starts_with(earlier));
        assert_eq!(fourth[earlier.len()..], [1, 1, 3, 18, 1, 0xc8, 4]);
        assert_eq!(decode_ledger(&fourth), Ok((40, later)));
    }

    proptest! {
        #[test]
        fn ledgers_come_back(
            numbers in any::<[u64; 8]>(),
            placed: bool,
            dropped in vec(any::<u64>(), 8),
            window in btree_map(any::<u64>(), any::<(u32, bool, bool, u8)>(), 0..9),
            accepted in btree_map(any::<u64>(), any::<(u64, u32)>(), 0..9),
            batches in vec((hash_set(any::<u64>(), 0..9), any::<bool>()), 0..4),
        ) {
            let flying = |(offset, (attempts, parked, open, crashes))|
                (offset, Flying { attempts, parked, open, crashes });
            let window = window.into_iter().map(flying).collect();
            let [covered, next, matched_end, oldest_untaken, matched, delivered, dead_lettered, untaken] = numbers;
            let mut by_reason = Dropped::default();
            for (reason, count) in DropReason::ALL.into_iter().zip(dropped) {
                by_reason.add(reason, count);
            }
            let ledger = Snapshot {
                next, matched_end, oldest_untaken, placed, matched, delivered, dead_lettered, untaken,
                dropped: by_reason, window,
                accepted: accepted.into_iter().map(|(offset, (chain, outputs))| (offset, AcceptedOutputs { chain, outputs })).collect(),
                batches: batches
                    .into_iter()
                    .map(|(offsets, open)| BatchBounds { offsets: offsets.into_iter().collect(), open })
                    .collect(),
                ..Snapshot::default()
            };
            prop_assert_eq!(decode_ledger(&encode_ledger(covered, &ledger)), Ok((covered, ledger)));
        }

        #[test]
        fn pages_come_back(
            trigger: u32,
            waiting in vec((any::<(u64, Option<i64>, u32)>(), 0..=MOST_CRASHES, any::<Option<u64>>()), 0..9),
        ) {
            let delayed = |((offset, due, attempts), crashes, key): ((_, Option<i64>, _), _, Option<u64>)| {
                let key = key.and_then(Key::from_number);
                (offset, Delayed { due: due.map(Timestamp), attempts, crashes, key })
            };
            let waiting: Vec<_> = waiting.into_iter().map(delayed).collect();
            let stored = encode_page(TriggerNumber(trigger), &waiting);
            prop_assert_eq!(decode_page(&stored), Ok((TriggerNumber(trigger), waiting)));
        }

        #[test]
        fn plans_come_back(version: u64, effective: Vec<u64>, names in vec((any::<u32>(), "[a-z]{0,9}"), 0..5), body: Vec<u8>) {
            let triggers =
                names.into_iter().map(|(n, name)| (TriggerNumber(n), ResourceName::new("n", name))).collect();
            let plan = PlanRecord { version: PlanVersion(version), effective, triggers, body: body.into() };
            prop_assert_eq!(decode_plan(&encode_plan(&plan)), Ok(plan));
        }

        #[test]
        fn logs_come_back(n in any::<[u64; 6]>(), next_trigger: u32, closed: bool, lost: Vec<(u64, u64)>, lists: Vec<(u64, u64)>, told in vec(".{0,20}", 0..3)) {
            let [epoch, sequence, start, synced, matched, next_letter] = n;
            let accepted = Accepted { lost, lists, told };
            let row = LogRow {
                epoch, sequence, start, synced, matched, next_trigger, next_letter, closed, accepted,
            };
            let stored = row.encode();
            prop_assert_eq!(LogRow::decode(&stored), Ok(row));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (LogRow::decode(&bytes), decode_ledger(&bytes), decode_page(&bytes));
            let _ = (decode_plan(&bytes), decode_source(&bytes));
        }
    }
}
