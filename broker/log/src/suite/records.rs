//! Rules of [`crate::Records`], but for those of trimming and closing.

use std::pin::pin;

use bytes::Bytes;
use waypost_core::Event;

use crate::error::ReadError;
use crate::log::{Log, ReadLimit, TriggerNumber};
use crate::record::{Batch, Cause, Checkpoint, Metadata, Origin, Position, Record};
use crate::suite::stage::{PARTITION, PLENTY, append, fill, name, offsets, open, pends, record, record_of};
use crate::suite::{Bench, Hands, Setup};

pub(super) async fn a_batch_is_one_commit(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    for round in 0..5 {
        let batch = Batch::of((0..5).map(|index| record(10 * round + index)));
        let committed = log.append(batch).expect("there is room").await.expect("it is durable");
        assert_eq!(committed.count, 5);
        let Position { partition, offset } = committed.first;
        let entries = log.read(partition, offset, PLENTY).await.expect("it is readable");
        assert_eq!(offsets(&entries), (offset..offset + 5).collect::<Vec<_>>());
        for (index, entry) in entries.iter().enumerate() {
            assert_eq!(entry.event.id(), (10 * round + index).to_string());
            assert_eq!(entry.event, record(10 * round + index).event);
        }
    }
}

pub(super) async fn no_part_of_a_batch_is_seen(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let appending = async {
        for round in 0..50 {
            let batch = Batch::of((0..7).map(|index| record(10 * round + index)));
            log.append(batch).expect("there is room").await.expect("it is durable");
            tokio::task::yield_now().await;
        }
    };
    let looking = async {
        let mut seen = 0;
        while seen < 50 * 7 {
            let ends: Vec<u64> = (0..log.partitions()).map(|partition| log.bounds(partition).end).collect();
            assert!(ends.iter().all(|end| end % 7 == 0), "a part of a batch of 7 is seen: {ends:?}");
            seen = ends.iter().sum();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(appending, looking);
}

pub(super) async fn an_empty_batch_commits(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let committed = log.append(Batch::of([])).expect("it needs no room").await.expect("it is durable");
    assert_eq!(committed.count, 0);
    assert!((0..log.partitions()).all(|partition| log.bounds(partition).end == 0));
}

pub(super) async fn batches_stand_in_the_order_of_their_appends(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    // All are appended before the first commit is awaited.
    let commits: Vec<_> =
        (0..200).map(|id| log.append(Batch::of([record(id)])).expect("there is room")).collect();
    let mut positions = Vec::new();
    for commit in commits {
        positions.push(commit.await.expect("it is durable").first);
    }
    let mut ids: Vec<u32> = Vec::new();
    for partition in 0..log.partitions() {
        let entries = log.read(partition, 0, PLENTY).await.expect("all are readable");
        let of_partition: Vec<u32> =
            entries.iter().map(|entry| entry.event.id().parse().expect("ids are numbers")).collect();
        assert!(of_partition.is_sorted(), "partition {partition} is out of order: {of_partition:?}");
        for entry in &entries {
            assert_eq!(positions[entry.event.id().parse::<usize>().expect("a number")], entry.position);
        }
        ids.extend(of_partition);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
}

pub(super) async fn reading_keeps_to_its_limits(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    fill(&*log, 10).await;
    let size = log.fetch(Position { partition: PARTITION, offset: 0 }).await.expect("it is there").size();
    let read = async |records, bytes| {
        let entries = log.read(PARTITION, 2, ReadLimit { records, bytes }).await.expect("it is readable");
        offsets(&entries)
    };
    assert_eq!(read(3, usize::MAX).await, [2, 3, 4]);
    assert_eq!(read(100, usize::MAX).await, (2..10).collect::<Vec<_>>());
    assert_eq!(read(100, 2 * size).await, [2, 3]);
    assert_eq!(read(100, 3 * size - 1).await, [2, 3]);
    assert_eq!(read(100, 1).await, [2], "one larger record is read alone");
    assert_eq!(read(0, 0).await, [2], "at least one is read");
}

/// Large and small batches in turns, each with data of its own, read at once and by the next process.
pub(super) async fn batches_of_all_sizes_come_back_whole(bench: &dyn Bench) {
    const SIZES: [(usize, usize); 7] =
        [(1, 10), (300, 1_000), (3, 100), (1, 700_000), (1_000, 1_000), (1, 1), (20, 20_000)];
    let record = |batch: usize, index: usize, size: usize| {
        let data: Vec<u8> = (0..size).map(|byte| (batch * 31 + index * 7 + byte) as u8).collect();
        let event = Event::builder(format!("{batch}/{index}"), "/suite", "suite.record").data(data).build();
        Record { metadata: Metadata::default(), event: event.expect("the suite's event is valid") }
    };
    let log = open(bench, Setup::default()).await;
    let mut written = Vec::new();
    let read = async |log: &dyn Log, written: &[(Position, Vec<Record>)]| {
        for (first, records) in written {
            let limit = ReadLimit { records: records.len(), bytes: usize::MAX };
            let entries = log.read(first.partition, first.offset, limit).await.expect("it is readable");
            let same =
                entries.iter().map(|entry| &entry.event).eq(records.iter().map(|record| &record.event));
            assert!(same, "{first:?} came back as it was");
        }
    };
    for round in 0..3 {
        for (number, (count, size)) in SIZES.into_iter().enumerate() {
            let records: Vec<_> =
                (0..count).map(|index| record(round * SIZES.len() + number, index, size)).collect();
            let commit = log.append(Batch::of(records.clone())).expect("there is room");
            written.push((commit.await.expect("it is durable").first, records));
        }
        read(&*log, &written).await;
    }
    log.close().await;
    drop(log);
    let Some(log) = bench.reopen().await else { return };
    read(&*log, &written).await;
}

pub(super) async fn what_is_not_there_cannot_be_read(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    fill(&*log, 3).await;
    assert!(log.read(PARTITION, 3, PLENTY).await.expect("the end is readable").is_empty());
    let beyond = Position { partition: PARTITION, offset: 4 };
    let error = log.read(PARTITION, 4, PLENTY).await.expect_err("nothing stands there");
    assert_eq!(error, ReadError::Beyond { position: beyond });
    for position in [Position { offset: 3, ..beyond }, Position { partition: log.partitions(), offset: 0 }] {
        let error = log.fetch(position).await.expect_err("nothing stands there");
        assert_eq!(error, ReadError::Beyond { position });
    }
}

pub(super) async fn waiting_ends_with_the_record(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    fill(&*log, 2).await;
    log.wait_for(PARTITION, 0).await;
    log.wait_for(PARTITION, 1).await;

    let mut waiting = pin!(log.wait_for(PARTITION, 3));
    assert!(pends(waiting.as_mut()).await);
    {
        let mut cancelled = pin!(log.wait_for(PARTITION, 2));
        assert!(pends(cancelled.as_mut()).await);
    }
    fill(&*log, 1).await;
    assert!(pends(waiting.as_mut()).await, "offset 2 is not offset 3");
    fill(&*log, 1).await;
    waiting.await;
}

pub(super) async fn no_waiter_is_forgotten(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let mut waiters = tokio::task::JoinSet::new();
    for partition in 0..log.partitions() {
        for _ in 0..8 {
            let log = std::sync::Arc::clone(&log);
            waiters.spawn(async move {
                for offset in 0..100 {
                    log.wait_for(partition, offset).await;
                    assert!(log.bounds(partition).end > offset);
                }
            });
        }
    }
    while (0..log.partitions()).any(|partition| log.bounds(partition).end < 100) {
        append(&*log, record("e")).await;
        tokio::task::yield_now().await;
    }
    while let Some(waiter) = waiters.join_next().await {
        waiter.expect("the waiter saw what it waited for");
    }
}

pub(super) async fn arrival_never_runs_backwards(bench: &dyn Bench) {
    let hands = Hands::at(1_000);
    let log = open(bench, Setup { clock: hands.clock(), ..Setup::default() }).await;
    for seconds in [1_000, 1_010, 500, 505, 1_005, 1_020, 1] {
        hands.set(seconds);
        fill(&*log, 2).await;
    }
    for partition in 0..log.partitions() {
        let entries = log.read(partition, 0, PLENTY).await.expect("all are readable");
        assert!(entries.is_sorted_by_key(|entry| entry.arrived));
    }
    let entries = log.read(PARTITION, 0, PLENTY).await.expect("all are readable");
    let seconds: Vec<i64> = entries.iter().step_by(2).map(|entry| entry.arrived.0 / 1_000_000_000).collect();
    assert_eq!(seconds, [1_000, 1_010, 1_010, 1_010, 1_010, 1_020, 1_020]);
}

pub(super) async fn records_are_found_by_source_and_id(bench: &dyn Bench) {
    let hands = Hands::at(1_000);
    let log = open(bench, Setup { clock: hands.clock(), ..Setup::default() }).await;
    let mut positions = Vec::new();
    for seconds in 1_000..1_030 {
        hands.set(seconds);
        let id = if seconds % 10 == 0 { "wanted" } else { "other" };
        let position = append(&*log, record(id)).await;
        if id == "wanted" {
            positions.insert(0, position);
        }
    }
    assert_eq!(log.find("/suite", "wanted", 10).await.expect("it is searched"), positions);
    assert_eq!(log.find("/suite", "wanted", 2).await.expect("it is searched"), positions[..2]);
    assert_eq!(log.find("/suite", "unheard", 10).await.expect("it is searched"), []);
    assert_eq!(log.find("/elsewhere", "wanted", 10).await.expect("it is searched"), []);
}

pub(super) async fn records_are_found_by_arrival(bench: &dyn Bench) {
    let hands = Hands::at(1_000);
    let log = open(bench, Setup { clock: hands.clock(), ..Setup::default() }).await;
    for seconds in [1_000, 1_010, 1_020] {
        hands.set(seconds);
        fill(&*log, 2).await;
    }
    for (seconds, offset) in [(0, 0), (1_000, 0), (1_001, 2), (1_010, 2), (1_020, 4), (1_021, 6)] {
        let arrived = Hands::at(seconds).now();
        let first = log.first_since(PARTITION, arrived).await.expect("it is searched");
        assert_eq!(first, offset, "first since {seconds}");
    }
}

pub(super) async fn a_checkpoint_comes_with_its_batch(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let checkpoint = |value: &'static str| Checkpoint {
        source: name("source"),
        value: Bytes::from_static(value.as_bytes()),
    };
    let batch =
        |records: Vec<Record>, value| Batch { checkpoint: Some(checkpoint(value)), ..Batch::of(records) };
    assert_eq!(log.checkpoint(&name("source")), None);
    log.append(batch(vec![record(1)], "1")).expect("there is room").await.expect("it is durable");
    assert_eq!(log.checkpoint(&name("source")), Some(Bytes::from_static(b"1")));
    log.append(batch(vec![], "2")).expect("there is room").await.expect("it is durable");
    assert_eq!(log.checkpoint(&name("source")), Some(Bytes::from_static(b"2")));
    assert_eq!(log.checkpoint(&name("other")), None);
    // One that is refused leaves the checkpoint alone.
    let large = record_of("large", usize::try_from(Setup::default().limit).expect("it fits") + 1);
    let refused = log.append(batch(vec![large], "3"));
    assert!(refused.is_err());
    assert_eq!(log.checkpoint(&name("source")), Some(Bytes::from_static(b"2")));
}

pub(super) async fn metadata_comes_back_unchanged(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let metadata = Metadata {
        hops: 7,
        origin: Origin::Delivery,
        cause: Some(Box::new(Cause {
            broker: name("broker"),
            position: Position { partition: 3, offset: 1 << 40 },
            trigger: TriggerNumber(9),
            output: 2,
        })),
        headers: [(Bytes::from_static(b"x-request-id"), Bytes::from_static(b"\xff"))].into_iter().collect(),
        unknown: [(999, Bytes::from_static(b"later"))].into_iter().collect(),
    };
    let position = append(&*log, Record { metadata: metadata.clone(), ..record(1) }).await;
    assert_eq!(log.fetch(position).await.expect("it is there").metadata, metadata);
}
