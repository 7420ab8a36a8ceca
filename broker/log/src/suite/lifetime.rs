//! Rules of trimming, of the size limit, and of closing.

use std::pin::pin;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{AppendError, ReadError, WriteError};
use crate::ledger::Settlement;
use crate::log::Log;
use crate::record::{Batch, Checkpoint, Position};
use crate::suite::stage::{
    PARTITION, PLENTY, examine, failed, fill, given_up, name, open, owing, pends, plan, record, record_of,
    take,
};
use crate::suite::{Bench, Hands, MEBIBYTE, Setup};
use waypost_core::codes;

pub(super) async fn only_what_nobody_is_owed_is_trimmed(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 5).await;
    log.trim().await;
    assert_eq!(log.bounds(PARTITION).start, 0, "all is owed");
    assert_eq!(log.usage().held_by, Some(ledger.trigger()));
    let taken = take(&*log, &ledger, 5).await;
    for offset in [0, 1, 3, 4] {
        ledger.settle(offset, Settlement::Delivered, None).expect("it is settled");
    }
    drop(taken);
    log.trim().await;
    assert!(log.bounds(PARTITION).start <= 2);
    let position = Position { partition: PARTITION, offset: 2 };
    log.fetch(position).await.expect("what is in the window is readable");

    ledger.settle(2, Settlement::Delivered, None).expect("it is settled");
    fill(&*log, 3).await;
    log.trim().await;
    let start = log.bounds(PARTITION).start;
    assert!(start <= 5, "what is not examined is kept");
    log.read(PARTITION, 5, PLENTY).await.expect("what is not examined is readable");
    if start > 0 {
        let position = Position { partition: PARTITION, offset: start - 1 };
        assert_eq!(log.fetch(position).await.map(drop), Err(ReadError::Trimmed { start }));
        let error = log.read(PARTITION, 0, PLENTY).await.map(drop);
        assert_eq!(error, Err(ReadError::Trimmed { start }));
    }
}

pub(super) async fn records_are_kept_as_long_as_the_history_allows(bench: &dyn Bench) {
    let hands = Hands::at(1_000);
    let retention = Duration::from_secs(60);
    let setup = Setup { clock: hands.clock(), history: 8 * MEBIBYTE, retention, ..Setup::default() };
    let log = open(bench, setup).await;
    let range = fill(&*log, 5).await;
    examine(&*log, range, |_| vec![]);
    hands.set(1_059);
    log.trim().await;
    assert_eq!(log.bounds(PARTITION).start, 0, "history is kept");
    let range = fill(&*log, 5).await;
    examine(&*log, range, |_| vec![]);
    hands.set(1_100);
    log.trim().await;
    assert!(log.bounds(PARTITION).start <= 5, "what is young is kept");
}

/// Appends until the log is full, and says how many fitted.
async fn stuff(log: &dyn Log, from_reserve: bool) -> (u32, AppendError) {
    for appended in 0..100_000 {
        let batch = Batch { from_reserve, ..Batch::of([record_of(appended, 16 * 1024)]) };
        match log.append(batch) {
            Ok(commit) => drop(commit.await.expect("it is durable")),
            Err(error) => return (appended, error),
        }
    }
    panic!("the log has no limit");
}

/// A log of 4 MiB, all of which is owed to trigger `t`.
async fn full(bench: &dyn Bench) -> std::sync::Arc<dyn Log> {
    let log = open(bench, Setup { limit: 4 * MEBIBYTE, ..Setup::default() }).await;
    let (fitted, error) = stuff(&*log, false).await;
    assert!(fitted > 16, "{fitted} records of 16 KiB fit into 4 MiB");
    assert_eq!(error.code(), codes::LOG_FULL);
    log
}

pub(super) async fn a_full_log_goes_on_when_there_is_room(bench: &dyn Bench) {
    let log = full(bench).await;
    assert!(log.usage().used <= log.usage().limit);
    let trigger = log.trigger(&name("t"));
    let range = 0..log.bounds(PARTITION).end;
    examine(&*log, range, |_| vec![trigger]);
    for other in 1..log.partitions() {
        let (from, to) = (0, log.bounds(other).end);
        let matches = (from..to).map(|offset| (offset, smallvec::smallvec![trigger])).collect();
        let scope = crate::Scope::All;
        let version = crate::suite::stage::PLAN;
        log.record_matches(&crate::MatchBatch { partition: other, from, to, version, scope, matches })
            .expect("the matches are recorded");
    }
    log.trim().await;
    let mut batch = Batch::of([record_of("one more", 16 * 1024)]);
    assert!(log.offer(&mut batch).is_err(), "all is owed");
    assert_eq!(batch.records.len(), 1, "nothing is taken out of it");
    assert_eq!(log.usage().held_by, Some(trigger));
    for partition in 0..log.partitions() {
        let ledger = log.ledger(partition, trigger);
        for entry in take(&*log, &ledger, usize::MAX).await {
            ledger.settle(entry.position.offset, Settlement::Delivered, None).expect("it is settled");
        }
    }
    // No trim in between: the append itself makes room.
    log.offer(&mut batch).expect("there is room").await.expect("it is durable");
    assert!(batch.records.is_empty());
}

pub(super) async fn the_reserve_is_for_replies(bench: &dyn Bench) {
    let log = full(bench).await;
    let (replies, error) = stuff(&*log, true).await;
    assert!(replies > 0, "replies go on when the log is full");
    assert!(matches!(error, AppendError::Full { .. }), "but not for ever");
    assert!(log.append(Batch::of([record_of("no reply", 16 * 1024)])).is_err());
}

pub(super) async fn a_closed_log_takes_nothing(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 3).await;
    let entries = take(&*log, &ledger, 2).await;
    let mut waiting = pin!(log.wait_for(PARTITION, 10));
    assert!(pends(waiting.as_mut()).await);
    log.close().await;
    waiting.await;
    log.wait_for(PARTITION, 10).await;

    assert!(matches!(log.append(Batch::of([record(1)])), Err(AppendError::Closed)));
    assert!(matches!(log.append(Batch::of([])), Err(AppendError::Closed)));
    assert_eq!(log.record_plan(plan(&*log, 2)).await, Err(WriteError::Closed));
    let before = ledger.counts();
    assert_eq!(ledger.settle(0, Settlement::Delivered, None), Err(WriteError::Closed));
    assert_eq!(ledger.wait(&entries[1], Timestamp(1)), Err(WriteError::Closed));
    assert_eq!(ledger.drop_all(crate::DropReason::Operator, 3), Err(WriteError::Closed));
    assert_eq!(ledger.counts(), before, "what is refused changes nothing");
    assert_eq!(log.read(PARTITION, 0, PLENTY).await.map(|entries| entries.len()), Ok(3));
    log.close().await;
}

pub(super) async fn what_was_written_is_there_again(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 8).await;
    let trigger = ledger.trigger();
    let entries = take(&*log, &ledger, 5).await;
    ledger.attempted(0, failed(1));
    ledger.wait(&entries[1], Timestamp(9)).expect("it waits");
    ledger.settle(2, Settlement::Delivered, None).expect("it is settled");
    ledger.settle(3, Settlement::DeadLettered(given_up(), None), None).expect("it is settled");
    let source = name("source");
    let checkpoint = Checkpoint { source: source.clone(), value: bytes::Bytes::from_static(b"7") };
    let batch = Batch { checkpoint: Some(checkpoint), ..Batch::of([record("last")]) };
    log.append(batch).expect("there is room").await.expect("it is durable");
    let bounds: Vec<_> = (0..log.partitions()).map(|partition| log.bounds(partition)).collect();
    let (counts, plans, matched) = (ledger.counts(), log.plans(), log.matched(PARTITION));
    log.close().await;
    drop((entries, ledger, log));

    let Some(log) = bench.reopen().await else { return };
    let ledger = log.ledger(PARTITION, trigger);
    assert_eq!((0..log.partitions()).map(|partition| log.bounds(partition)).collect::<Vec<_>>(), bounds);
    assert_eq!((log.trigger(&name("t")), log.plans(), log.matched(PARTITION)), (trigger, plans, matched));
    assert_eq!((ledger.counts(), ledger.window()), (counts, vec![(0, 1), (4, 0)]));
    assert_eq!((ledger.next(), ledger.next_due()), (5, Some(Timestamp(9))));
    assert!(!log.recount(PARTITION, trigger).differs());
    assert_eq!(log.dead_letters().count(&name("t")), 1);
    assert_eq!(log.checkpoint(&source), Some(bytes::Bytes::from_static(b"7")));
    for offset in 0..8 {
        log.fetch(Position { partition: PARTITION, offset }).await.expect("it is still owed or in the log");
    }
}
