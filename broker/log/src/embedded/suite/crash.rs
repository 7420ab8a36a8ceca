//! The power goes at every write of a small script, and nothing that was acknowledged is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use smallvec::SmallVec;
use waypost_core::Event;

use super::*;
use crate::clock::Timestamp;
use crate::ledger::{Attempt, AttemptOutcome, Settlement};
use crate::log::{MatchBatch, PlanRecord, PlanVersion, ReadLimit, Scope, TriggerNumber};
use crate::record::{Batch, Checkpoint, Metadata, Offset, Record};
use crate::{DeadLetterReason, Ledger};

const PLENTY: ReadLimit = ReadLimit { records: 10_000, bytes: usize::MAX };

/// What the script was told, which must be true ever after.
#[derive(Debug, Default)]
struct Told {
    /// The records whose commit resolved.
    records: BTreeMap<Offset, String>,
    /// The newest checkpoint of the source that was acknowledged.
    checkpoint: Option<u64>,
    /// The newest checkpoint that was sent.
    sent: u64,
}

fn setup() -> Setup {
    Setup { retention: Duration::ZERO, history: 0, limit: 1 << 26, ..Setup::default() }
}

fn record(id: &str, size: usize) -> Record {
    let event = Event::builder(id, "/crash", "t").data(vec![b'x'; size]).build().expect("a valid event");
    Record { metadata: Metadata::default(), event }
}

fn source() -> ResourceName {
    ResourceName::new("suite", "source")
}

fn attempt() -> Attempt {
    let outcome = AttemptOutcome::Failed {
        code: codes::SUBSCRIBER_TIMEOUT,
        status: None,
        detail: "no answer".to_owned(),
        body_excerpt: None,
    };
    Attempt { number: 1, started: Timestamp(1), ended: Timestamp(2), outcome }
}

fn given_up() -> DeadLetterReason {
    DeadLetterReason {
        code: codes::SUBSCRIBER_TIMEOUT,
        detail: "no answer".to_owned(),
        destination: "http://subscriber".to_owned(),
        status: None,
        body_excerpt: None,
    }
}

/// Opens what is there, where the power lasts so long.
fn try_open(disk: &Arc<dyn Disk>) -> Option<(Arc<EmbeddedStore>, Arc<dyn Log>)> {
    let options = EmbeddedOptions { limit: Some(1 << 26), ring_bytes: 4096, ..EmbeddedOptions::new("/data") };
    let store = EmbeddedStore::open_on(Arc::clone(disk), options, setup().clock).ok()?;
    let log = store.open_log(&name(), Retention { age: Duration::ZERO, size: 0 }).ok()?;
    Some((store, log))
}

async fn take(log: &dyn Log, ledger: &Ledger) -> Vec<Offset> {
    let owed = log.owed(0, ledger.trigger(), ledger.next(), PLENTY).await;
    let Ok(owed) = owed else { return Vec::new() };
    owed.entries.iter().filter(|entry| ledger.take(entry)).map(|entry| entry.position.offset).collect()
}

/// Records of which the larger make segments roll, matches, every way to settle, flushes and trims. Ends where the
/// power does.
async fn script(store: &EmbeddedStore, log: &dyn Log, told: &mut Told) -> Option<()> {
    let triggers: Vec<TriggerNumber> =
        ["a", "b"].map(|trigger| log.trigger(&ResourceName::new("suite", trigger))).into();
    if log.plans().is_empty() {
        let triggers = triggers.iter().copied().zip(["a", "b"].map(|name| ResourceName::new("suite", name)));
        let (version, effective) = (PlanVersion(1), vec![log.bounds(0).end]);
        let plan = PlanRecord { version, effective, triggers: triggers.collect(), body: "plan".into() };
        log.record_plan(plan).await.ok()?;
    }
    for round in 0..6_u64 {
        let mut commits = Vec::new();
        for part in 0..3_u64 {
            let end = log.bounds(0).end;
            let ids = [format!("{end}-{round}-{part}-0"), format!("{end}-{round}-{part}-1")];
            let value = told.sent + 1;
            told.sent = value;
            let checkpoint = Checkpoint { source: source(), value: value.to_string().into() };
            let records = ids.iter().map(|id| record(id, 10 + 30_000 * usize::try_from(part).unwrap_or(0)));
            let batch = Batch { checkpoint: Some(checkpoint), key: Some(1), ..Batch::of(records) };
            commits.push((log.append(batch).ok()?, ids, value));
        }
        for (commit, ids, value) in commits {
            let committed = commit.await.ok()?;
            told.records.extend((committed.first.offset..).zip(ids));
            told.checkpoint = Some(value);
        }
        let (from, to) = (log.matched(0), log.bounds(0).end);
        let matches = (from..to).map(|offset| (offset, SmallVec::from_slice(&triggers))).collect();
        let batch =
            MatchBatch { partition: 0, from, to, version: PlanVersion(1), scope: Scope::All, matches };
        log.record_matches(&batch).ok()?;
        for (index, trigger) in triggers.iter().enumerate() {
            let ledger = log.ledger(0, *trigger);
            for offset in take(log, &ledger).await {
                let position = crate::Position { partition: 0, offset };
                match (offset + index as u64) % 5 {
                    0 => {
                        ledger.attempted(offset, attempt());
                        ledger.wait(&log.fetch(position).await.ok()?, Timestamp(9)).ok()?;
                    }
                    1 => drop(ledger.settle(offset, Settlement::DeadLettered(given_up(), None), None).ok()?),
                    2 if round < 3 => {}
                    _ => drop(ledger.settle(offset, Settlement::Delivered, Some(attempt())).ok()?),
                }
            }
            if round >= 3 {
                for (offset, _) in ledger.window() {
                    ledger.settle(offset, Settlement::Delivered, None).ok()?;
                }
            }
            if round == 4 && index == 0 {
                ledger.drop_all(crate::DropReason::Operator, log.matched(0)).ok()?;
            }
        }
        if round % 2 == 1 {
            store.shared.round(round == 3).ok()?;
        }
        log.trim().await;
    }
    store.shared.poison.reason().is_none().then_some(())
}

/// Looks whether all that was told is true.
async fn check(store: &EmbeddedStore, log: &dyn Log, told: &Told) {
    assert_eq!(store.damage(&name()), Vec::<String>::new(), "a crash is no damage");
    let bounds = log.bounds(0);
    let entries = log.read(0, bounds.start, PLENTY).await.expect("what is left is readable");
    assert_eq!(entries.len() as u64, bounds.end - bounds.start);
    let found: BTreeMap<Offset, &str> =
        entries.iter().map(|entry| (entry.position.offset, entry.event.id())).collect();
    for (offset, id) in told.records.range(bounds.start..) {
        assert_eq!(found.get(offset), Some(&id.as_str()), "record {offset} was acknowledged");
        let positions = log.find("/crash", id, 10).await.expect("it is searched");
        assert!(positions.iter().any(|position| position.offset == *offset), "{id} is found");
    }
    let checkpoint =
        log.checkpoint(&source()).and_then(|value| std::str::from_utf8(&value).ok()?.parse::<u64>().ok());
    assert!(checkpoint >= told.checkpoint, "{checkpoint:?} is before {:?}", told.checkpoint);
    assert!(checkpoint <= Some(told.sent));
    assert!(log.matched(0) >= bounds.start && log.matched(0) <= bounds.end);

    for (trigger, trigger_name) in log.triggers() {
        let ledger = log.ledger(0, trigger);
        let counts = ledger.counts();
        assert!(counts.holds(), "{counts:?}");
        let recount = log.recount(0, trigger);
        assert!(!recount.differs(), "{recount:?}");
        let letters = log.dead_letters().list(Some(&trigger_name), None, 10_000).await;
        assert_eq!(letters.len() as u64, counts.dead_lettered);
        for letter in letters {
            assert!(letter.entry().is_some(), "the body of dead letter {:?} is kept", letter.id);
        }
        // Every match is in exactly one place.
        let mut open: BTreeSet<Offset> = ledger.window().into_iter().map(|(offset, _)| offset).collect();
        open.extend(ledger.due(Timestamp(i64::MAX), 10_000).into_iter().map(|due| due.offset));
        for offset in &open {
            let position = crate::Position { partition: 0, offset: *offset };
            log.fetch(position).await.expect("what is pending is readable");
        }
        let untaken = take(log, &ledger).await;
        assert_eq!(open.len() as u64 + untaken.len() as u64, counts.pending);
        assert!(untaken.iter().all(|offset| !open.contains(offset)));
    }
}

async fn crash_at(operation: u64, loss: Loss) -> bool {
    let simulated = SimulatedDisk::new();
    simulated.end_power_at(operation);
    let disk: Arc<dyn Disk> = Arc::new(simulated.clone());
    let mut told = Told::default();
    let mut finished = false;
    if let Some((store, log)) = try_open(&disk) {
        finished = script(&store, &*log, &mut told).await.is_some();
    }
    let left = simulated.after_power_loss(loss);
    let disk: Arc<dyn Disk> = Arc::new(left.clone());
    let (store, log) = try_open(&disk).unwrap_or_else(|| panic!("it opens after a crash at {operation}"));
    check(&store, &*log, &told).await;
    // It goes on, and what was true stays true.
    assert_eq!(script(&store, &*log, &mut told).await, Some(()), "it goes on after a crash at {operation}");
    check(&store, &*log, &told).await;
    drop((store, log));
    let (store, log) = try_open(&disk).expect("it opens again");
    check(&store, &*log, &told).await;
    finished
}

/// The operations after which the script is over.
async fn operations() -> u64 {
    let simulated = SimulatedDisk::new();
    simulated.end_power_at(u64::MAX);
    let disk: Arc<dyn Disk> = Arc::new(simulated.clone());
    let (store, log) = try_open(&disk).expect("the disk works");
    assert_eq!(script(&store, &*log, &mut Told::default()).await, Some(()));
    assert!(log.bounds(0).start > 0, "a segment was given up");
    drop(store);
    simulated.operations()
}

#[tokio::test]
async fn nothing_is_lost_whenever_the_power_goes() {
    let last = operations().await;
    assert!(last > 100, "{last}");
    for operation in 1..=last {
        let loss = match operation % 3 {
            0 => Loss::All,
            1 => Loss::Some(operation),
            _ => Loss::Nothing,
        };
        crash_at(operation, loss).await;
    }
}

#[tokio::test]
async fn a_broken_device_stops_acknowledgement() {
    let last = operations().await;
    for operation in (1..=last).step_by(7) {
        let simulated = SimulatedDisk::new();
        simulated.fail_at(operation);
        let disk: Arc<dyn Disk> = Arc::new(simulated.clone());
        let mut told = Told::default();
        if let Some((store, log)) = try_open(&disk) {
            let finished = script(&store, &*log, &mut told).await;
            if let Some(reason) = store.poisoned().borrow().clone() {
                assert!(finished.is_none());
                let error = log.append(Batch::of([record("late", 1)])).map(drop).expect_err("it is poisoned");
                assert_eq!(error, crate::AppendError::Failed { reason });
            }
        }
        let disk: Arc<dyn Disk> = Arc::new(simulated.after_power_loss(Loss::All));
        let (store, log) = try_open(&disk).expect("it opens on a new device");
        check(&store, &*log, &told).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on() {
    let simulated = SimulatedDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(simulated.clone());
    let (store, log) = try_open(&disk).expect("the disk works");
    simulated.set_room(1024);
    let refused = log.append(Batch::of([record("1", 10)])).expect("the limit is not met").await;
    let error = refused.expect_err("no segment can be made");
    assert!(error.reason.contains("no segment"), "{error}");
    assert_eq!(*store.poisoned().borrow(), None, "nothing is lost, so nothing stops");
    simulated.set_room(0);
    log.append(Batch::of([record("2", 10)]))
        .expect("the limit is not met")
        .await
        .expect("there is room again");
    assert_eq!(log.read(0, 0, PLENTY).await.expect("it is readable")[0].event.id(), "2");
}
