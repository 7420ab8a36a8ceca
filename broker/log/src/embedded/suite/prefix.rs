//! The power goes anywhere in a random script, and what is found is the state of one moment, not older than what was
//! last made durable.

use std::collections::BTreeMap;

use super::stage::{Stage, delivered, failed, given_up, record};
use super::*;
use crate::Timestamp;
use crate::ledger::{Counts, OutcomeState, Settlement};
use crate::record::Offset;

/// One step. Its numbers choose among what there is, modulo how much that is.
#[derive(Debug, Clone, Copy)]
enum Move {
    Append(u8),
    Examine(u8),
    Take(u8),
    Fail(u8),
    Wait(u8),
    Due(u8),
    Deliver(u8),
    GiveUp(u8),
    /// So many in the window go out together, from one of them on, and are delivered in one step.
    DeliverBatch(u8),
    /// So many are bound, and only that.
    Bind(u8),
    DropAll,
    /// Lists and journal become durable; with the checkpoint, or without.
    Flush(bool),
    Trim,
}

fn moves() -> impl Strategy<Value = Move> {
    let byte = any::<u8>;
    prop_oneof![
        4 => byte().prop_map(Move::Append),
        4 => byte().prop_map(Move::Examine),
        4 => byte().prop_map(Move::Take),
        2 => byte().prop_map(Move::Fail),
        3 => byte().prop_map(Move::Wait),
        2 => byte().prop_map(Move::Due),
        5 => byte().prop_map(Move::Deliver),
        2 => byte().prop_map(Move::GiveUp),
        2 => byte().prop_map(Move::DeliverBatch),
        2 => byte().prop_map(Move::Bind),
        1 => Just(Move::DropAll),
        3 => any::<bool>().prop_map(Move::Flush),
        1 => Just(Move::Trim),
    ]
}

/// What the journal and the lists tell of the ledger at one moment: what was matched, and what became of it. That a
/// delivery is taken is told by what becomes of it, or by the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Moment {
    matched: u64,
    delivered: u64,
    dead_lettered: u64,
    dropped: u64,
    /// The attempts at what is pending and was tried.
    attempts: BTreeMap<Offset, u32>,
    /// The end of what an outcome is known of, or was passed over.
    settled: BTreeMap<Offset, OutcomeState>,
}

impl Moment {
    fn same_outcomes(&self, other: &Self) -> bool {
        let told = |moment: &Self| (moment.delivered, moment.dead_lettered, moment.dropped);
        told(self) == told(other) && self.attempts == other.attempts
    }
}

struct Script {
    stage: Stage,
    /// The moments so far, the newest last, and which of them is certainly durable.
    moments: Vec<Moment>,
    durable: usize,
    /// All batches that were ever bound, and those that were so when the checkpoint was last forced.
    bound: Vec<Vec<Offset>>,
    bounds_durable: Vec<Vec<Offset>>,
    acknowledged: BTreeMap<Offset, String>,
    window: BTreeMap<Offset, Arc<crate::Entry>>,
    waiting: BTreeMap<Offset, Arc<crate::Entry>>,
    now: i64,
}

fn pick<T: Clone>(all: &BTreeMap<Offset, T>, choice: u8) -> Option<(Offset, T)> {
    let index = usize::from(choice).checked_rem(all.len())?;
    all.iter().nth(index).map(|(offset, value)| (*offset, value.clone()))
}

impl Script {
    /// Some of the window in another order than it stands there.
    fn some_of_window(&self, choice: u8) -> Vec<Offset> {
        let mut some: Vec<Offset> = self.window.keys().copied().collect();
        let first = usize::from(choice / 4).checked_rem(some.len()).unwrap_or(0);
        some.rotate_left(first);
        some.truncate(usize::from(choice % 4) + 1);
        some
    }

    /// Makes one step. None where the power is gone.
    async fn step(&mut self, step: Move) -> Option<()> {
        let ledger = self.stage.ledger("t");
        let log = Arc::clone(&self.stage.log);
        let mut moment = self.moments.last().cloned().unwrap_or_default();
        match step {
            Move::Append(count) => {
                let end = log.bounds(0).end;
                let ids: Vec<String> =
                    (0..u64::from(count % 4) + 1).map(|id| format!("{}", end + id)).collect();
                let size = usize::from(count) * 300;
                let commit = log.append(Batch::of(ids.iter().map(|id| record(id, size)))).ok()?;
                let first = commit.await.ok()?.first.offset;
                self.acknowledged.extend((first..).zip(ids));
            }
            Move::Examine(count) => {
                let from = log.matched(0);
                let to = log.bounds(0).end.min(from + u64::from(count % 9));
                self.stage.try_examine(&["t"], from..to, Scope::All).ok()?;
                // The lists of each segment have a file of their own, and one may be durable before the others.
                for _ in from..to {
                    moment.matched += 1;
                    self.moments.push(moment.clone());
                }
            }
            Move::Take(count) => {
                let limit = ReadLimit { records: usize::from(count % 6) + 1, bytes: usize::MAX };
                for entry in log.owed(0, ledger.trigger(), ledger.next(), limit).await.ok()?.entries {
                    assert!(ledger.take(&entry));
                    self.window.insert(entry.position.offset, entry);
                }
            }
            Move::Fail(choice) => {
                let (offset, _) = pick(&self.window, choice)?;
                ledger.started(offset);
                let made = ledger.attempted(offset, failed(1));
                moment.attempts.insert(offset, made);
            }
            Move::Wait(choice) => {
                let (offset, entry) = pick(&self.window, choice)?;
                ledger.wait(&entry, Timestamp(self.now + i64::from(choice))).ok()?;
                self.window.remove(&offset);
                self.waiting.insert(offset, entry);
            }
            Move::Due(after) => {
                self.now += i64::from(after);
                for due in ledger.due(Timestamp(self.now), 2) {
                    let entry = self.waiting.remove(&due.offset).expect("it waits");
                    self.window.insert(due.offset, entry);
                }
            }
            Move::Deliver(choice) | Move::GiveUp(choice) => {
                let (offset, _) = pick(&self.window, choice)?;
                let (settlement, state) = match step {
                    Move::Deliver(_) => (Settlement::Delivered, OutcomeState::Delivered),
                    _ => (Settlement::DeadLettered(given_up(), None), OutcomeState::DeadLettered),
                };
                ledger.settle(offset, settlement, None).ok()?;
                self.window.remove(&offset);
                moment.attempts.remove(&offset);
                moment.settled.insert(offset, state);
                match state {
                    OutcomeState::Delivered => moment.delivered += 1,
                    _ => moment.dead_lettered += 1,
                }
            }
            Move::Bind(choice) => {
                let batch = self.some_of_window(choice);
                ledger.start_batch(&batch);
                self.bound.push(batch);
            }
            Move::DeliverBatch(choice) => {
                let batch = self.some_of_window(choice);
                ledger.start_batch(&batch);
                self.bound.push(batch.clone());
                let attempts = batch.iter().map(|offset| (*offset, delivered(1)));
                ledger.delivered(attempts.collect()).ok()?;
                for offset in &batch {
                    self.window.remove(offset);
                    moment.attempts.remove(offset);
                    moment.settled.insert(*offset, OutcomeState::Delivered);
                }
                // In one moment: none of it is found without the others.
                moment.delivered += batch.len() as u64;
            }
            Move::DropAll => {
                let dropped = ledger.drop_all(crate::DropReason::Operator, log.matched(0)).ok()?;
                let all = moment.dropped + dropped;
                // One after the other, so that some may be durable before the others.
                let window = std::mem::take(&mut self.window).into_keys();
                for offset in window.chain(std::mem::take(&mut self.waiting).into_keys()) {
                    moment.dropped += 1;
                    moment.attempts.remove(&offset);
                    self.moments.push(moment.clone());
                }
                moment.dropped = all;
            }
            Move::Flush(force) => {
                self.stage.store.shared.round(force).ok()?;
                if force {
                    self.bounds_durable = self.bound.clone();
                }
                self.durable = self.moments.len() - 1;
            }
            Move::Trim => log.trim().await,
        }
        self.moments.push(moment);
        Some(())
    }
}

/// What is found must be what was at one moment: matches may be a little newer, since they are written first.
async fn check(stage: &Stage, script: &Script) {
    let log = &stage.log;
    assert_eq!(stage.store.damage(&name()), Vec::<String>::new(), "a loss of power is no damage");
    assert_eq!(log.lost_matches(0), []);
    let bounds = log.bounds(0);
    for (offset, id) in script.acknowledged.range(bounds.start..) {
        let entry = log.fetch(crate::Position { partition: 0, offset: *offset }).await;
        assert_eq!(entry.expect("it was acknowledged").event.id(), id);
    }
    let ledger = stage.ledger("t");
    let counts: Counts = ledger.counts();
    assert!(counts.holds(), "{counts:?}");
    let recount = log.recount(0, ledger.trigger());
    assert!(!recount.differs(), "{recount:?}");
    let found = Moment {
        matched: counts.matched,
        delivered: counts.delivered,
        dead_lettered: counts.dead_lettered,
        dropped: counts.dropped.total(),
        attempts: (bounds.start.min(1)..bounds.end)
            .chain(0..bounds.start)
            .map(|offset| (offset, ledger.attempts_made(offset)))
            .filter(|(_, made)| *made > 0)
            .collect(),
        settled: BTreeMap::new(),
    };
    let since = &script.moments[script.durable..];
    let place = since.iter().rposition(|moment| moment.same_outcomes(&found));
    let Some(place) = place else { panic!("{found:?} never was since {:?}, but {since:?}", since[0]) };
    let from = since.iter().position(|moment| moment.same_outcomes(&found)).unwrap_or(place);
    assert!(
        since[from..].iter().any(|moment| moment.matched == found.matched),
        "{found:?} has matches of no moment since its outcomes: {since:?}"
    );
    check_bounds(&ledger, script);
    let letters = log.dead_letters().list(None, None, 10_000).await;
    assert_eq!(letters.len() as u64, counts.dead_lettered);
    for (offset, state) in &since[from].settled {
        let position = crate::Position { partition: 0, offset: *offset };
        if let Some(outcome) = log.outcomes(position, ledger.trigger()) {
            assert_eq!(outcome.state, *state, "what became of {offset}");
        }
    }
}

/// What is bound was bound so, and what was bound when the checkpoint was forced still is, as far as it is pending.
fn check_bounds(ledger: &crate::Ledger, script: &Script) {
    let bounds = |offset| ledger.batch_of(offset).and_then(|(batch, _)| ledger.bounds(batch));
    let window = ledger.window().into_iter().map(|(offset, _)| offset);
    let pending: Vec<Offset> = window.chain(ledger.waiting_below(Offset::MAX, usize::MAX)).collect();
    for found in pending.iter().filter_map(|offset| bounds(*offset)) {
        let once = |batch: &Vec<Offset>| found.offsets.iter().all(|offset| batch.contains(offset));
        assert!(script.bound.iter().any(once), "{found:?} was never bound");
    }
    for (number, batch) in script.bounds_durable.iter().enumerate() {
        // By number: the same may have been bound once more, and what it took from another one need not be durable.
        let last = script.bound.iter().rposition(|later| later.iter().any(|offset| batch.contains(offset)));
        let left: Vec<Offset> = batch.iter().copied().filter(|offset| pending.contains(offset)).collect();
        if last == Some(number)
            && let Some(first) = left.first()
        {
            assert_eq!(bounds(*first).map(|bounds| bounds.offsets), Some(left), "of {batch:?}");
        }
    }
}

async fn run(steps: &[Move], operation: u64, loss: Loss) {
    let disk = SimulatedDisk::new();
    let stage = Stage::open(&disk);
    stage.plan(&["t"]).await;
    stage.flush();
    disk.end_power_at(disk.operations() + operation);
    let mut script = Script {
        stage,
        moments: vec![Moment::default()],
        durable: 0,
        bound: Vec::new(),
        bounds_durable: Vec::new(),
        acknowledged: BTreeMap::new(),
        window: BTreeMap::new(),
        waiting: BTreeMap::new(),
        now: 0,
    };
    for step in steps {
        if script.stage.store.poisoned().borrow().is_some() {
            break;
        }
        // What has nothing to choose from is passed over.
        script.step(*step).await;
    }
    let left = Stage::open(&disk.after_power_loss(loss));
    check(&left, &script).await;
    // The flusher may have been at work besides: what is found once is what is found from then on.
    let counts = left.ledger("t").counts();
    let left = left.lose_power();
    assert_eq!(left.ledger("t").counts(), counts);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_found_was_once_so(
        steps in proptest::collection::vec(moves(), 1..90),
        operation in 1_u64..160,
        loss in prop_oneof![Just(Loss::All), Just(Loss::Nothing), any::<u64>().prop_map(Loss::Some)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(&steps, operation, loss));
    }
}
