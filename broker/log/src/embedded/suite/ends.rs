//! How processes end, and what the next one knows of it.

use super::stage::{LIMIT, Stage, failed};
use super::*;
use crate::Timestamp;
use crate::embedded::checkpoint::{Kind, Row};
use crate::embedded::rows::LogRow;
use crate::ledger::{
    AcceptedOutputs, BLOCKED_KEYS_LIMIT, Crowding, Due, Key, Opened, Settlement, WAITING_LIMIT,
};
use crate::record::Entry;

#[tokio::test]
async fn an_open_attempt_at_an_unclean_end_is_a_crash() {
    let mut stage = Stage::open(&SimulatedDisk::new());
    assert!(!stage.log.ended_uncleanly(), "there was no process before");
    stage.owe(&["t"], 4, 10).await;
    let entries = stage.take("t", 3).await;
    let ledger = stage.ledger("t");
    ledger.started(0);
    ledger.started(1);
    ledger.started(1);
    ledger.cut(1);
    ledger.started(9);
    stage.log.secure().await.expect("the disk works");
    drop((entries, ledger));

    for crashes in 1..=3 {
        stage = stage.kill();
        assert!(stage.log.ended_uncleanly());
        let ledger = stage.ledger("t");
        assert_eq!(ledger.window(), [(0, 0), (1, 0), (2, 0)], "taken is taken");
        assert_eq!([0, 1, 2, 3].map(|offset| ledger.crashes(offset)), [crashes, 0, 0, 0]);
        ledger.started(0);
        stage.log.secure().await.expect("the disk works");
    }
    // Nobody started it again: the count is durable and does not grow.
    stage.ledger("t").cut(0);
    stage.log.secure().await.expect("the disk works");
    for _ in 0..2 {
        stage = stage.lose_power();
        assert_eq!(stage.ledger("t").crashes(0), 3);
    }
    // What waits keeps its count, and an outcome ends it.
    let entry = stage.log.fetch(crate::Position { partition: 0, offset: 0 }).await.expect("it is readable");
    stage.ledger("t").wait(&entry, Timestamp(5)).expect("it waits");
    drop(entry);
    stage.flush();
    stage = stage.kill();
    let ledger = stage.ledger("t");
    assert_eq!(ledger.crashes(0), 3);
    assert_eq!(ledger.due(Timestamp(5), 9).len(), 1);
    ledger.started(0);
    ledger.attempted(0, failed(1));
    assert_eq!(ledger.crashes(0), 0);
    drop(ledger);
    stage.flush();
    stage = stage.kill();
    assert_eq!(stage.ledger("t").crashes(0), 0, "the outcome came before the end");
}

#[tokio::test]
async fn what_our_own_end_cuts_is_no_crash() {
    let mut stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["t"], 2, 10).await;
    drop(stage.take("t", 2).await);
    stage.ledger("t").started(0);
    stage = stage.restart().await;
    assert!(!stage.log.ended_uncleanly());
    assert_eq!(stage.ledger("t").crashes(0), 0);
    // Nor is it one when the process after that ends before it wrote anything, and yet that end is unclean.
    stage = stage.kill();
    assert!(stage.log.ended_uncleanly());
    assert_eq!(stage.ledger("t").crashes(0), 0);
}

/// A crash is counted once, whenever the power goes while the log is opened.
#[tokio::test]
async fn a_crash_is_counted_once() {
    let before = Stage::open(&SimulatedDisk::new());
    before.owe(&["t"], 2, 10).await;
    drop(before.take("t", 2).await);
    before.ledger("t").started(1);
    before.flush();
    let disk = before.disk.after_power_loss(Loss::All);
    drop(before);
    let mut counted = 0;
    for operation in 1..40 {
        let failing = disk.after_power_loss(Loss::Nothing);
        failing.end_power_at(operation);
        let on: Arc<dyn Disk> = Arc::new(failing.clone());
        let options =
            EmbeddedOptions { limit: Some(LIMIT), ring_bytes: 4096, ..EmbeddedOptions::new("/data") };
        let opened = EmbeddedStore::open_on(on, options, Setup::default().clock);
        let retention = Retention { age: std::time::Duration::MAX, size: u64::MAX };
        let opened = opened.and_then(|store| store.open_log(&name(), retention).map(|log| (store, log)));
        counted += u32::from(opened.is_ok());
        drop(opened);
        let stage = Stage::open(&failing.after_power_loss(Loss::All));
        assert_eq!(stage.ledger("t").crashes(1), 1, "the power went at {operation}");
    }
    assert!(counted > 0, "the last time it was open before the power went");
}

/// Many wait and few change: only what changed is written again.
#[tokio::test]
async fn a_long_schedule_costs_what_changes() {
    const WAITING: u64 = 20_000;
    const CHANGES: u64 = 200;
    let stage = Stage::open(&SimulatedDisk::new());
    for _ in 0..WAITING / 1_000 {
        stage.owe(&["t"], 1_000, 10).await;
    }
    let ledger = stage.ledger("t");
    let entries = stage.take("t", usize::MAX).await;
    for entry in &entries {
        ledger
            .wait(entry, Timestamp(100 + i64::try_from(entry.position.offset).unwrap_or(0)))
            .expect("it waits");
    }
    stage.flush();
    let before = stage.disk.written();
    for due in ledger.due(Timestamp(i64::MAX), usize::try_from(CHANGES).unwrap_or(0)) {
        let index = usize::try_from(due.offset).unwrap_or(0);
        ledger.attempted(due.offset, failed(1));
        ledger.wait(&entries[index], Timestamp(1_000_000)).expect("it waits again");
    }
    stage.flush();
    let written = stage.disk.written() - before;
    // The whole schedule is 420,000 bytes; the notes of the changes themselves are some 200 bytes each.
    assert!(written < 200_000, "{written} bytes for {CHANGES} changes");
    drop((entries, ledger));

    let stage = stage.lose_power();
    let ledger = stage.ledger("t");
    assert_eq!(ledger.counts().scheduled, WAITING);
    assert_eq!(ledger.next_due(), Some(Timestamp(100 + i64::try_from(CHANGES).unwrap_or(0))));
    let last = ledger.due(Timestamp(i64::MAX), usize::MAX);
    assert!(last[last.len() - usize::try_from(CHANGES).unwrap_or(0)..].iter().all(|due| due.attempts == 1));
    for due in &last {
        ledger.settle(due.offset, Settlement::Delivered, None).expect("it is settled");
    }
    drop(ledger);
    stage.flush();
    let stage = stage.lose_power();
    let counts = stage.ledger("t").counts();
    assert_eq!((counts.delivered, counts.pending), (WAITING, 0));
}

/// A schedule that is changed after the checkpoint comes back from it and the journal, page by page.
#[tokio::test]
async fn pages_follow_the_journal() {
    let mut stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["t"], 300, 10).await;
    for entry in stage.take("t", 300).await {
        stage.ledger("t").wait(&entry, Timestamp(9)).expect("it waits");
    }
    stage.flush();
    for offset in 0..150 {
        stage.ledger("t").settle(offset, Settlement::Delivered, None).expect("it is settled");
    }
    // The journal without the checkpoint.
    stage.store.shared.round(false).expect("the disk works");
    for _ in 0..2 {
        stage = stage.lose_power();
        let counts = stage.ledger("t").counts();
        assert_eq!((counts.delivered, counts.scheduled), (150, 150));
        stage.log.secure().await.expect("the disk works");
    }
    stage.log.forget(stage.trigger("t"));
    stage.flush();
    stage = stage.lose_power();
    assert_eq!(stage.log.triggers(), []);
    assert_eq!(stage.ledger("t").counts().pending, 0);
}

#[tokio::test]
async fn a_schedule_has_a_limit() {
    let stage = Stage::open(&SimulatedDisk::new());
    let count = u64::try_from(WAITING_LIMIT).unwrap_or(0);
    for _ in 0..count / 10_000 {
        stage.owe(&["t"], 10_000, 1).await;
    }
    let ledger = stage.ledger("t");
    let entries = stage.take("t", usize::MAX).await;
    for entry in &entries {
        assert!(ledger.has_room());
        ledger.wait(entry, Timestamp(9)).expect("it waits");
    }
    assert!(!ledger.has_room());
    ledger.settle(7, Settlement::Delivered, None).expect("it is settled");
    assert!(ledger.has_room());
}

/// What a trigger is owed, taken under the keys that `key` gives.
async fn take_in_order(stage: &Stage, key: impl Fn(u64) -> Key) -> Vec<Arc<Entry>> {
    let ledger = stage.ledger("t");
    let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX };
    let owed = stage.log.owed(0, ledger.trigger(), ledger.next(), limit).await.expect("it is readable");
    for entry in &owed.entries {
        ledger.take_in_order(entry, key(entry.position.offset)).expect("it is owed");
    }
    owed.entries
}

#[tokio::test]
async fn only_so_many_keys_may_be_closed() {
    let stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["t"], u64::try_from(BLOCKED_KEYS_LIMIT).unwrap_or(0), 1).await;
    let ledger = stage.ledger("t");
    for entry in take_in_order(&stage, |offset| Key::of(&offset.to_string())).await {
        assert_eq!(ledger.crowding(), None);
        ledger.wait(&entry, Timestamp(9)).expect("it waits");
    }
    assert_eq!((ledger.crowding(), ledger.has_room()), (Some(Crowding::Keys), false));
    assert_eq!(ledger.due(Timestamp(9), 1).len(), 1);
    assert_eq!(ledger.crowding(), None);
}

/// What waits for another of its key does so after a loss of power, with the checkpoint and without.
#[tokio::test]
async fn keys_survive() {
    for with_checkpoint in [false, true] {
        let stage = Stage::open(&SimulatedDisk::new());
        stage.owe(&["t"], 6, 10).await;
        let (a, b) = (Key::of("a"), Key::of("b"));
        let entries = take_in_order(&stage, |offset| if offset < 4 { a } else { b }).await;
        let ledger = stage.ledger("t");
        ledger.attempted(0, failed(1));
        ledger.wait(&entries[0], Timestamp(7)).expect("it waits");
        for offset in [1, 2, 3, 5] {
            ledger.hold(&entries[offset]).expect("it is written down");
        }
        stage.store.shared.round(with_checkpoint).expect("the disk works");
        // What was settled just before the end is known from the journal alone.
        ledger.settle(4, Settlement::Delivered, None).expect("it is settled");
        stage.store.shared.round(false).expect("the disk works");
        drop((ledger, entries));

        let stage = stage.lose_power();
        let ledger = stage.ledger("t");
        let counts = ledger.counts();
        assert!(counts.holds(), "{counts:?}");
        assert_eq!((counts.scheduled, counts.window, counts.delivered), (5, 0, 1));
        assert_eq!(ledger.next_due(), Some(Timestamp(7)));
        let opened = ledger.opened(9);
        let [Opened::Held(due)] = opened.as_slice() else { panic!("{opened:?}") };
        assert_eq!((due.offset, due.key), (5, Some(b)));
        assert!(ledger.is_closed(a));
        let due = ledger.due(Timestamp(7), 9);
        assert_eq!((due.len(), due[0].attempts, due[0].key), (1, 1, Some(a)));
        ledger.settle(0, Settlement::Delivered, None).expect("it is settled");
        assert!(matches!(ledger.opened(9)[..], [Opened::Held(Due { offset: 1, .. })]));
    }
}

/// With the checkpoint and without, and more than once.
#[tokio::test]
async fn accepted_outputs_survive() {
    let outputs = |number| AcceptedOutputs { chain: 7, outputs: number };
    for with_checkpoint in [false, true] {
        let mut stage = Stage::open(&SimulatedDisk::new());
        stage.owe(&["t"], 3, 10).await;
        let entries = stage.take("t", 3).await;
        let ledger = stage.ledger("t");
        ledger.accept(0, outputs(1));
        ledger.accept(1, outputs(2));
        ledger.wait(&entries[1], Timestamp(1_000_000)).expect("it waits");
        ledger.accept(2, outputs(3));
        ledger.settle(2, Settlement::Delivered, None).expect("it is settled");
        stage.store.shared.round(with_checkpoint).expect("the disk works");
        drop((entries, ledger));
        for round in 0..2 {
            stage = stage.lose_power();
            let ledger = stage.ledger("t");
            let accepted = [0, 1, 2].map(|offset| ledger.accepted(offset));
            assert_eq!(
                accepted,
                [Some(outputs(1)), Some(outputs(2)), None],
                "round {round} {with_checkpoint}"
            );
        }
    }
}

/// What a ledger says of itself counts, not the place that the checkpoint as a whole has.
#[tokio::test]
async fn each_ledger_knows_what_it_covers() {
    let stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["t"], 10, 10).await;
    let entries = stage.take("t", 6).await;
    for entry in &entries {
        stage.ledger("t").settle(entry.position.offset, Settlement::Delivered, None).expect("it is settled");
    }
    drop(entries);
    stage.flush();
    let counts = stage.ledger("t").counts();
    // The row of the log as it is where all this came while the checkpoint was being captured.
    let stored = stage.store.shared.checkpoint.get(&name(), Kind::Log, 0).expect("it is readable");
    let row = LogRow::decode(&stored.expect("it is there")).expect("it is intact");
    assert!(row.sequence > 0);
    let row = Row::put(&name(), Kind::Log, 0, &LogRow { sequence: 0, ..row }.encode());
    stage.store.shared.checkpoint.commit(&[row]).expect("the disk works");
    let stage = stage.lose_power();
    assert_eq!(stage.ledger("t").counts(), counts);
    assert!(!stage.log.recount(0, stage.trigger("t")).differs());
}

#[tokio::test]
async fn a_log_is_opened_once() {
    let stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["t"], 100, 9_000).await;
    let disk = stage.disk.after_power_loss(Loss::All);
    drop(stage);
    let alone = Stage::open(&disk.after_power_loss(Loss::Nothing));
    let used = alone.log.usage().used;
    for _ in 0..10 {
        let disk = disk.after_power_loss(Loss::Nothing);
        let on: Arc<dyn Disk> = Arc::new(disk.clone());
        let options =
            EmbeddedOptions { limit: Some(LIMIT), ring_bytes: 4096, ..EmbeddedOptions::new("/data") };
        let store = EmbeddedStore::open_on(on, options, Setup::default().clock).expect("it can be opened");
        let retention = Retention { age: std::time::Duration::MAX, size: u64::MAX };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| store.open_log(&name(), retention).expect("it can be opened"));
            }
        });
        let log = store.open_log(&name(), retention).expect("it is open");
        assert_eq!(log.usage().used, used, "it was recovered once");
    }
}
