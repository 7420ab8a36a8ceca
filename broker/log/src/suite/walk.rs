//! A random walk through a log, compared with a model at every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::ledger::{Counts, DropReason, Ledger, OutcomeState, Settled, Settlement};
use crate::log::{Log, MatchBatch, ReadLimit, Scope, TriggerNumber};
use crate::record::{Batch, Offset, Position};
use crate::suite::stage::{PLAN, PLENTY, delivered, failed, given_up, name, offsets, open, record};
use crate::suite::{Bench, Setup};

/// How many triggers take part.
const TRIGGERS: u8 = 4;

/// One step. Its numbers choose among what there is, modulo how much that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Append a batch of so many records.
    Append(u8),
    /// Examine at most so many records of a partition; the bits say who matches.
    Examine(u8, u8, u64),
    /// A trigger takes at most so many of what it is owed.
    Take(u8, u8),
    /// An attempt at one delivery in the window fails.
    Fail(u8, u8),
    /// One delivery goes from the window to the schedule, due after so much.
    Wait(u8, u8, u8),
    /// So much time goes by, and a trigger takes at most so many of what is due.
    Due(u8, u8, u8),
    /// So many deliveries in the window are bound to a batch, from one of them on.
    Bind(u8, u8, u8),
    /// What is left of a batch is delivered.
    DeliverBatch(u8, u8),
    /// One delivery in the window or the schedule is settled; the last number says how.
    Settle(u8, u8, u8),
    /// All that a trigger is owed is dropped.
    DropAll(u8),
    /// The log is trimmed.
    Trim,
    /// The log is closed and opened again; for backends that survive it.
    Reopen,
}

/// The steps that a seed stands for.
pub(super) fn random_steps(seed: u64, count: usize) -> Vec<Step> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let step = || {
        let [a, b, c, ..] = next().to_le_bytes();
        match next() >> 59 {
            0..5 => Step::Append(a),
            5..10 => Step::Examine(a, b, next()),
            10..15 => Step::Take(a, b),
            15..18 => Step::Fail(a, b),
            18..21 => Step::Wait(a, b, c),
            21..24 => Step::Due(a, b, c),
            24..28 => Step::Settle(a, b, c),
            28 => Step::Bind(a, b, c),
            29 => Step::DeliverBatch(a, b),
            30 if a < 40 => Step::DropAll(b),
            _ => Step::Trim,
        }
    };
    std::iter::repeat_with(step).take(count).collect()
}

/// What one trigger is owed from one partition, as anyone would write it down.
#[derive(Default)]
struct Model {
    counts: Counts,
    untaken: VecDeque<Offset>,
    window: BTreeMap<Offset, u32>,
    schedule: BTreeMap<Offset, (Timestamp, u32)>,
    /// The batches, in the order in which they were bound.
    batches: Vec<Vec<Offset>>,
    /// What once waited: its body is kept outside the log.
    parked: BTreeSet<Offset>,
    settled: BTreeMap<Offset, OutcomeState>,
}

impl Model {
    fn counts(&self) -> Counts {
        let (window, scheduled) = (self.window.len() as u64, self.schedule.len() as u64);
        let untaken = self.untaken.len() as u64;
        Counts { window, scheduled, untaken, pending: window + scheduled + untaken, ..self.counts }
    }

    fn settle(&mut self, offset: Offset, state: OutcomeState) {
        self.window.remove(&offset);
        self.schedule.remove(&offset);
        self.leave_batch(offset);
        self.settled.insert(offset, state);
        match state {
            OutcomeState::Dropped(reason) => self.counts.dropped.add(reason, 1),
            OutcomeState::DeadLettered => self.counts.dead_lettered += 1,
            _ => self.counts.delivered += 1,
        }
    }

    fn leave_batch(&mut self, offset: Offset) {
        self.batches.iter_mut().for_each(|batch| batch.retain(|member| *member != offset));
        self.batches.retain(|batch| !batch.is_empty());
    }

    /// What comes into the window when so many are due by now: with each comes what waits in its batch.
    fn due(&self, now: Timestamp, count: usize) -> Vec<Offset> {
        let waiting = self.schedule.iter().map(|(offset, (due, _))| (*due, *offset));
        let due: BTreeSet<_> = waiting.filter(|(due, _)| *due <= now).collect();
        let mut expected: Vec<Offset> = Vec::new();
        for (_, offset) in due {
            if expected.len() < count && !expected.contains(&offset) {
                expected.push(offset);
                let others = self.batches.iter().find(|batch| batch.contains(&offset)).into_iter().flatten();
                expected
                    .extend(others.filter(|other| **other != offset && self.schedule.contains_key(other)));
            }
        }
        expected
    }

    /// The oldest offset that the log must keep.
    fn floor(&self) -> Option<Offset> {
        let flying = self.window.keys().filter(|offset| !self.parked.contains(offset));
        flying.chain(&self.untaken).min().copied()
    }

    fn taken(&self) -> Vec<Offset> {
        self.window.keys().chain(self.schedule.keys()).copied().collect()
    }
}

struct Walk {
    log: Arc<dyn Log>,
    triggers: Vec<TriggerNumber>,
    models: BTreeMap<(u16, TriggerNumber), Model>,
    now: Timestamp,
    dead_letters: u64,
}

/// Walks through a new log and compares it with a model after each step.
pub async fn walk(bench: &dyn Bench, steps: &[Step]) {
    let log = open(bench, Setup { limit: 1 << 26, ..Setup::default() }).await;
    let triggers = (0..TRIGGERS).map(|number| log.trigger(&name(&format!("t{number}")))).collect();
    let mut walk = Walk { log, triggers, models: BTreeMap::new(), now: Timestamp(0), dead_letters: 0 };
    for step in steps {
        if *step == Step::Reopen {
            walk.log.close().await;
            walk.log = bench.reopen().await.expect("only a backend that survives is opened again");
        }
        walk.step(*step).await;
        walk.compare().await;
    }
}

fn pick<T: Copy>(all: &[T], choice: u8) -> Option<T> {
    all.get(usize::from(choice).checked_rem(all.len())?).copied()
}

impl Walk {
    /// One of the ledgers, with its model.
    fn ledger(&mut self, choice: u8) -> (Arc<Ledger>, &mut Model) {
        let partition = u16::from(choice / TRIGGERS) % self.log.partitions();
        let trigger = self.triggers[usize::from(choice % TRIGGERS)];
        (self.log.ledger(partition, trigger), self.models.entry((partition, trigger)).or_default())
    }

    async fn step(&mut self, step: Step) {
        let (now, log) = (self.now, Arc::clone(&self.log));
        match step {
            Step::Append(count) => {
                let batch = Batch::of((0..count % 5).map(record));
                log.append(batch).expect("there is room").await.expect("it is durable");
            }
            Step::Examine(partition, count, bits) => self.examine(partition, count, bits),
            Step::Take(choice, count) => {
                let (ledger, model) = self.ledger(choice);
                let limit = ReadLimit { records: usize::from(count % 8) + 1, ..PLENTY };
                let owed = log.owed(ledger.partition(), ledger.trigger(), ledger.next(), limit).await;
                for entry in owed.expect("debts are readable").entries {
                    assert!(ledger.take(&entry));
                    assert_eq!(model.untaken.pop_front(), Some(entry.position.offset));
                    model.window.insert(entry.position.offset, 0);
                }
            }
            Step::Fail(choice, which) => {
                let (ledger, model) = self.ledger(choice);
                let offsets: Vec<Offset> = model.window.keys().copied().collect();
                if let Some(attempts) = pick(&offsets, which).and_then(|offset| model.window.get_mut(&offset))
                {
                    *attempts += 1;
                    let offset = pick(&offsets, which).unwrap_or_default();
                    assert_eq!(ledger.attempted(offset, failed(*attempts)), *attempts);
                }
            }
            Step::Wait(choice, which, after) => {
                let (ledger, model) = self.ledger(choice);
                let offsets: Vec<Offset> = model.window.keys().copied().collect();
                let Some(offset) = pick(&offsets, which) else { return };
                let position = Position { partition: ledger.partition(), offset };
                let entry = log.fetch(position).await.expect("what is taken is readable");
                let due = Timestamp(now.0 + i64::from(after));
                ledger.wait(&entry, due).expect("it waits");
                let attempts = model.window.remove(&offset).unwrap_or_default();
                model.schedule.insert(offset, (due, attempts));
                model.parked.insert(offset);
            }
            Step::Due(choice, after, count) => {
                let now = Timestamp(now.0 + i64::from(after));
                self.now = now;
                let (ledger, model) = self.ledger(choice);
                let expected = model.due(now, usize::from(count % 4));
                let given = ledger.due(now, usize::from(count % 4));
                assert_eq!(given.len(), expected.len());
                for (given, offset) in given.into_iter().zip(expected) {
                    let (_, attempts) = model.schedule.remove(&offset).expect("it waits");
                    assert_eq!((given.offset, given.attempts), (offset, attempts));
                    model.window.insert(offset, attempts);
                }
            }
            Step::Bind(choice, which, count) => {
                let (ledger, model) = self.ledger(choice);
                let mut bound: Vec<Offset> = model.window.keys().copied().collect();
                let first = usize::from(which).checked_rem(bound.len()).unwrap_or(0);
                bound.rotate_left(first);
                bound.truncate(usize::from(count % 4) + 1);
                ledger.start_batch(&bound);
                bound.iter().for_each(|offset| model.leave_batch(*offset));
                model.batches.extend(Some(bound).filter(|bound| !bound.is_empty()));
            }
            Step::DeliverBatch(choice, which) => {
                let (ledger, model) = self.ledger(choice);
                let Some(index) = usize::from(which).checked_rem(model.batches.len()) else { return };
                let batch = model.batches[index].clone();
                ledger
                    .delivered(batch.iter().map(|offset| (*offset, delivered(1))).collect())
                    .expect("it is settled");
                batch.into_iter().for_each(|offset| model.settle(offset, OutcomeState::Delivered));
            }
            Step::Settle(choice, which, how) => self.settle(choice, which, how),
            Step::DropAll(choice) => {
                let (ledger, model) = self.ledger(choice);
                let dropped = ledger.drop_all(DropReason::Operator, log.matched(ledger.partition()));
                assert_eq!(dropped, Ok(model.counts().pending));
                for offset in model.taken() {
                    model.settle(offset, OutcomeState::Dropped(DropReason::Operator));
                }
                model.counts.dropped.add(DropReason::Operator, model.untaken.len() as u64);
                model.untaken.clear();
            }
            Step::Trim => log.trim().await,
            Step::Reopen => {}
        }
    }

    fn examine(&mut self, partition: u8, count: u8, bits: u64) {
        let partition = u16::from(partition) % self.log.partitions();
        let from = self.log.matched(partition);
        let to = self.log.bounds(partition).end.min(from + u64::from(count % 12));
        let mut matches = Vec::new();
        for offset in from..to {
            let bits = bits >> (((offset - from) * u64::from(TRIGGERS)) % 60);
            let mut matching: SmallVec<[TriggerNumber; 4]> = SmallVec::new();
            for (number, trigger) in self.triggers.iter().copied().enumerate() {
                if bits & (1 << number) != 0 {
                    let model = self.models.entry((partition, trigger)).or_default();
                    model.untaken.push_back(offset);
                    model.counts.matched += 1;
                    matching.push(trigger);
                }
            }
            if !matching.is_empty() {
                matches.push((offset, matching));
            }
        }
        let batch = MatchBatch { partition, from, to, version: PLAN, scope: Scope::All, matches };
        self.log.record_matches(&batch).expect("the matches are recorded");
    }

    fn settle(&mut self, choice: u8, which: u8, how: u8) {
        let (ledger, model) = self.ledger(choice);
        let Some(offset) = pick(&model.taken(), which) else {
            let nothing = ledger.settle(Offset::from(which), Settlement::Delivered, None);
            assert_eq!(nothing, Ok(Settled::Already));
            return;
        };
        let (settlement, state) = match how % 4 {
            0 => (Settlement::Dropped(DropReason::Expired), OutcomeState::Dropped(DropReason::Expired)),
            1 => (Settlement::DeadLettered(given_up(), None), OutcomeState::DeadLettered),
            _ => (Settlement::Delivered, OutcomeState::Delivered),
        };
        assert_eq!(ledger.settle(offset, settlement.clone(), None), Ok(Settled::Now));
        assert_eq!(ledger.settle(offset, settlement, None), Ok(Settled::Already));
        model.settle(offset, state);
        self.dead_letters += u64::from(state == OutcomeState::DeadLettered);
    }

    async fn compare(&self) {
        let mut stored = 0;
        for number in 0..TRIGGERS {
            stored += self.log.dead_letters().count(&name(&format!("t{number}")));
        }
        assert_eq!(stored, self.dead_letters);
        for ((partition, trigger), model) in &self.models {
            let ledger = self.log.ledger(*partition, *trigger);
            let counts = ledger.counts();
            assert!(counts.holds(), "{counts:?}");
            assert_eq!(counts, model.counts());
            assert_eq!(ledger.window(), model.window.iter().map(|(o, a)| (*o, *a)).collect::<Vec<_>>());
            assert_eq!(ledger.next_due(), model.schedule.values().map(|(due, _)| *due).min());
            for batch in &model.batches {
                let (number, left) = ledger.batch_of(batch[0]).expect("it is bound");
                assert_eq!(ledger.bounds(number).map(|bounds| bounds.offsets).as_ref(), Some(batch));
                assert_eq!(left, batch.len());
            }
            let bound = model.taken().into_iter().filter(|offset| ledger.batch_of(*offset).is_some()).count();
            assert_eq!(bound, model.batches.iter().map(Vec::len).sum::<usize>());
            // It may be lower than it need be, never higher.
            assert_eq!(ledger.floor().is_some(), model.floor().is_some());
            assert!(ledger.floor() <= model.floor());

            let owed = self.log.owed(*partition, *trigger, ledger.next(), PLENTY).await;
            assert_eq!(model.untaken, offsets(&owed.expect("debts are readable").entries));
            for offset in model.taken() {
                let position = Position { partition: *partition, offset };
                self.log.fetch(position).await.expect("what is pending is readable");
                let outcome = self.log.outcomes(position, *trigger).expect("it is a debt");
                let expected = match model.schedule.get(&offset) {
                    Some((due, _)) => OutcomeState::Waiting { due: *due },
                    None => OutcomeState::InFlight,
                };
                assert_eq!(outcome.state, expected);
            }
            for (offset, state) in &model.settled {
                let position = Position { partition: *partition, offset: *offset };
                let outcome = self.log.outcomes(position, *trigger).expect("it was a debt");
                assert_eq!(outcome.state, *state);
            }
            let recount = self.log.recount(*partition, *trigger);
            assert!(!recount.differs(), "{recount:?}");
        }
    }
}
