//! What a log costs: frames under load, starts, searches, and logs in which nothing happens.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::stage::{PLENTY, Stage};
use super::*;
use crate::Timestamp;

/// More than the first segment takes.
const RECORDS: u64 = 300;

#[tokio::test]
async fn what_is_parked_is_found() {
    let retention = Retention { age: Duration::ZERO, size: 0 };
    let stage = Stage::open_with(&SimulatedDisk::new(), retention).expect("the directory can be opened");
    for _ in 0..RECORDS / 10 {
        stage.owe(&["t"], 10, 1_000).await;
    }
    let ledger = stage.ledger("t");
    for entry in stage.take("t", usize::MAX).await {
        match entry.position.offset {
            7 => ledger.wait(&entry, Timestamp(i64::MAX)).expect("it is written down"),
            offset => drop(ledger.settle(offset, Settlement::Delivered, None).expect("it is settled")),
        }
    }
    stage.log.trim().await;
    assert!(stage.log.bounds(0).start > 7, "the first segment is given up");
    for _ in 0..2 {
        let found = stage.log.find("/suite", "7", 10).await.expect("it is searched");
        assert_eq!(found, [crate::Position { partition: 0, offset: 7 }]);
        assert_eq!(stage.log.find("/suite", "8", 10).await.expect("it is searched"), []);
    }
    drop(ledger);
    let stage = stage.restart().await;
    let found = stage.log.find("/suite", "7", 10).await.expect("it is searched");
    assert_eq!(found, [crate::Position { partition: 0, offset: 7 }]);
}

/// A segment that lost a frame has fewer records than offsets: its index is complete all the same.
#[tokio::test]
async fn the_index_of_a_damaged_segment_is_built_once() {
    let stage = Stage::open(&SimulatedDisk::new());
    for _ in 0..RECORDS / 10 {
        stage.owe(&["t"], 10, 1_000).await;
    }
    stage.flush();
    let Stage { disk, store, log } = stage;
    drop((store, log));
    let first = |(path, _): &(PathBuf, Vec<u8>)| path.ends_with("00000000000000000000.log");
    let (path, mut bytes) = disk.files().into_iter().find(first).expect("it is there");
    bytes[100_000] ^= 1;
    disk.overwrite(&path, bytes);
    disk.remove(&path.with_extension("ids")).expect("the disk works");
    let stage = Stage::open(&disk);
    let mut found = 0;
    for offset in 0..RECORDS {
        found += stage.log.find("/suite", &offset.to_string(), 10).await.expect("it is searched").len();
    }
    assert_eq!(found as u64, RECORDS - 10, "one frame is lost");
    let operations = disk.operations();
    stage.log.find("/suite", "3", 10).await.expect("it is searched");
    assert_eq!(disk.operations(), operations, "a search writes nothing");
}

/// Memory is given back for what nobody reads, and kept for those who are behind.
#[tokio::test]
async fn a_sealed_segment_is_forgotten_unless_someone_reads_behind() {
    let stage = Stage::open(&SimulatedDisk::new());
    let fill = async |behind: bool| {
        let before = stage.disk.files().len();
        // Several segments, since they grow.
        for _ in 0..RECORDS / 10 * 4 {
            stage.owe(&["t"], 10, 1_000).await;
            if behind {
                let read = stage.log.read(0, 0, PLENTY).await.expect("records are readable");
                assert_eq!(read[0].position.offset, 0);
            }
        }
        stage.flush();
        assert!(stage.disk.files().len() > before + 1, "another segment was sealed");
        stage.disk.forgotten()
    };
    let first = fill(false).await;
    assert!(first > 0);
    assert_eq!(fill(true).await, first);
    fill(false).await;
    assert!(fill(false).await > first);
}

/// What is written at once in large pieces goes past the memory of the system, until someone would read it there.
#[tokio::test]
async fn a_large_frame_is_written_past_the_cache_unless_someone_reads_behind() {
    let stage = Stage::open(&SimulatedDisk::new());
    let past_cache = async |records| {
        let before = stage.disk.past_cache();
        stage.owe(&["t"], records, 1_000).await;
        stage.disk.past_cache() - before
    };
    assert_eq!(past_cache(10).await, 0);
    assert_eq!(past_cache(RECORDS).await, 1);
    let read = stage.log.read(0, 0, PLENTY).await.expect("records are readable");
    assert_eq!(read.len() as u64, RECORDS + 10);
    assert_eq!(past_cache(RECORDS).await, 0);
    // Twice other segments are sealed: meanwhile nobody read behind.
    for _ in 0..2 {
        for _ in 0..RECORDS / 10 * 4 {
            assert_eq!(past_cache(10).await, 0);
        }
        stage.flush();
    }
    assert_eq!(past_cache(RECORDS).await, 1);
}

/// Its parts are written one after the other: wherever the power goes it is there as a whole, or not at all.
#[tokio::test]
async fn a_large_frame_is_whole_or_not_there() {
    for loss in [Loss::All, Loss::Nothing, Loss::Some(1), Loss::Some(2)] {
        for operation in 1.. {
            let stage = Stage::open(&SimulatedDisk::new());
            stage.owe(&["t"], 10, 1_000).await;
            stage.disk.end_power_at(stage.disk.operations() + operation);
            let records = (10..10 + RECORDS).map(|id| stage::record(&id.to_string(), 1_000));
            let acknowledged = match stage.log.append(Batch::of(records)) {
                Ok(commit) => commit.await.is_ok(),
                Err(_) => false,
            };
            let disk = stage.disk.after_power_loss(loss);
            drop(stage);
            let stage = Stage::open(&disk);
            let end = stage.log.bounds(0).end;
            assert!(end == 10 + RECORDS || (end == 10 && !acknowledged), "{end} after {operation}");
            let read = stage.log.read(0, 0, PLENTY).await.expect("records are readable");
            assert_eq!(read.len() as u64, end);
            if acknowledged {
                assert!(operation > 4, "three parts and a sync");
                break;
            }
        }
    }
}

/// Sealed files are opened by their footers, and tell the same as before.
#[tokio::test]
async fn a_start_finds_what_sealed_files_hold() {
    let mut stage = Stage::open(&SimulatedDisk::new());
    for round in 0..4 {
        for _ in 0..10 {
            stage.owe(&["t", "u"], RECORDS / 10, 1_000).await;
            stage.flush();
        }
        let ledger = stage.ledger("t");
        for entry in stage.take("t", 200).await {
            ledger.settle(entry.position.offset, Settlement::Delivered, None).expect("it is settled");
        }
        drop(ledger);
        stage = if round % 2 == 0 { stage.restart().await } else { stage.kill() };
    }
    let number = stage.trigger("u");
    let owed = stage.log.owed(0, number, 0, PLENTY).await.expect("debts are readable");
    let offsets: Vec<u64> = owed.entries.iter().map(|entry| entry.position.offset).collect();
    assert_eq!(offsets, (0..4 * RECORDS).collect::<Vec<_>>());
    let trigger = stage.trigger("t");
    let recount = stage.log.recount(0, trigger);
    assert_eq!(recount.recorded, recount.counted);
    assert_eq!(recount.counted.matched, 4 * RECORDS);
}

#[tokio::test]
async fn nothing_is_written_while_nothing_happens() {
    let stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["t"], 3, 100).await;
    stage.flush();
    let operations = stage.disk.operations();
    for _ in 0..3 {
        stage.store.shared.round(false).expect("the disk works");
    }
    assert_eq!(stage.disk.operations(), operations);
}

#[tokio::test]
async fn an_idle_log_takes_less_than_a_mebibyte() {
    const LOGS: u64 = 10;
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let store = EmbeddedStore::open(EmbeddedOptions::new(directory.path()), Setup::default().clock)
        .expect("the directory can be opened");
    let retention = Retention { age: Duration::MAX, size: u64::MAX };
    for number in 0..LOGS {
        let name = ResourceName::new("n", format!("b{number}"));
        let log = store.open_log(&name, retention).expect("the log can be opened");
        let record = stage::record("1", 1_000);
        log.append(Batch::of([record])).expect("there is room").await.expect("it is durable");
    }
    store.shared.round(true).expect("the disk works");
    let taken = blocks(&directory.path().join("logs")) * 512;
    assert!(taken <= LOGS * 512 * 1024, "{LOGS} logs take {taken} bytes");
}

fn blocks(path: &Path) -> u64 {
    let about = path.metadata().expect("it is there");
    let inside = if about.is_dir() { path.read_dir().expect("it is readable").collect() } else { Vec::new() };
    about.blocks()
        + inside.into_iter().map(|entry| blocks(&entry.expect("it is readable").path())).sum::<u64>()
}

#[tokio::test]
async fn a_start_writes_no_ledger_that_did_not_change() {
    const COUNT: u64 = 5_000;
    let stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["busy"], 3, 10).await;
    for number in 0..COUNT {
        let idle = format!("idle-{number}");
        stage.ledger(&idle).begin(0);
    }
    let stage = stage.restart().await;
    let before = stage.disk.written();
    stage.flush();
    let stage = stage.restart().await;
    stage.flush();
    let written = stage.disk.written() - before;
    assert!(written < COUNT * 40, "{written} bytes for two starts with {COUNT} idle triggers");
    assert_eq!(stage.take("busy", 10).await.len(), 3);
}
