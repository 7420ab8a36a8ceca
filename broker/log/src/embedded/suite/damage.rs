//! One flipped bit or one zeroed page anywhere in a small data directory is reported, or harmless, or in what was
//! never acknowledged; never a changed event, a panic, or silence.

use smallvec::SmallVec;
use waypost_core::Event;

use super::*;
use crate::ledger::Settlement;
use crate::log::{MatchBatch, PlanRecord, PlanVersion, ReadLimit, Scope};
use crate::record::{Batch, Metadata, Offset, Record};
use crate::{Position, ReadError};

const PLENTY: ReadLimit = ReadLimit { records: 10_000, bytes: usize::MAX };
const RECORDS: Offset = 60;

fn record(offset: Offset) -> Record {
    let data = vec![u8::try_from(offset % 251).unwrap_or(0); 9_000];
    let event = Event::builder(offset.to_string(), "/damage", "t").data(data).build().expect("a valid event");
    Record { metadata: Metadata::default(), event }
}

fn open(disk: &SimulatedDisk) -> Result<(Arc<EmbeddedStore>, Arc<dyn Log>), OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = EmbeddedOptions { limit: Some(1 << 26), ring_bytes: 0, ..EmbeddedOptions::new("/data") };
    let store = EmbeddedStore::open_on(disk, options, Setup::default().clock)?;
    let retention = Retention { age: std::time::Duration::MAX, size: u64::MAX };
    let log = store.open_log(&name(), retention)?;
    Ok((store, log))
}

fn trigger() -> ResourceName {
    ResourceName::new("suite", "t")
}

/// A directory with a sealed and an open segment, match lists, outcomes, a dead letter and a delivery that waits.
async fn directory() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let (store, log) = open(&disk).expect("the disk works");
    let number = log.trigger(&trigger());
    let plan = PlanRecord {
        version: PlanVersion(1),
        effective: vec![0],
        triggers: vec![(number, trigger())],
        body: "plan".into(),
    };
    log.record_plan(plan).await.expect("it is recorded");
    let ledger = log.ledger(0, number);
    for from in (0..RECORDS).step_by(6) {
        let batch = Batch::of((from..from + 6).map(record));
        log.append(batch).expect("there is room").await.expect("it is durable");
        let matches = (from..from + 6).map(|offset| (offset, SmallVec::from_slice(&[number]))).collect();
        let batch = MatchBatch {
            partition: 0,
            from,
            to: from + 6,
            version: PlanVersion(1),
            scope: Scope::All,
            matches,
        };
        log.record_matches(&batch).expect("it is recorded");
        let owed = log.owed(0, number, from, PLENTY).await.expect("it is readable");
        for entry in owed.entries {
            assert!(ledger.take(&entry));
            if entry.position.offset % 2 == 0 {
                ledger.settle(entry.position.offset, Settlement::Delivered, None).expect("it is settled");
            }
        }
        store.shared.round(from == 30).expect("the disk works");
    }
    drop((log, ledger));
    drop(store);
    disk
}

/// Whether something was said. Panics where what is told differs from what was written.
async fn look(disk: &SimulatedDisk) -> bool {
    let (store, log) = match open(disk) {
        Ok(opened) => opened,
        Err(error) => {
            let told = error.to_string();
            assert!(told.contains("corrupt") || matches!(error, OpenError::Version { .. }), "{told}");
            return true;
        }
    };
    let mut told = !store.damage(&name()).is_empty();
    assert!(store.damage(&name()).iter().all(|damage| damage.contains("corrupt")));
    for offset in log.bounds(0).start..log.bounds(0).end {
        match log.fetch(Position { partition: 0, offset }).await {
            Ok(entry) => assert_eq!(entry.event, record(offset).event, "record {offset} is changed"),
            Err(ReadError::Corrupt { reason, .. }) => {
                assert!(reason.contains("corrupt"), "{reason}");
                told = true;
            }
            Err(error) => panic!("record {offset}: {error}"),
        }
        if !told {
            let found = log.find("/damage", &offset.to_string(), 10).await.expect("it is searched");
            assert_eq!(found, [Position { partition: 0, offset }], "record {offset} is found");
        }
    }
    told |= !log.lost_matches(0).is_empty();
    for (number, found) in log.triggers() {
        assert_eq!(found, trigger());
        let counts = log.ledger(0, number).counts();
        assert!(counts.holds(), "{counts:?}");
        match log.owed(0, number, 0, PLENTY).await {
            Ok(owed) if !told => assert!(owed.entries.len() as u64 <= RECORDS),
            Ok(_) => {}
            Err(error) => told |= error.to_string().contains("corrupt"),
        }
        if !told {
            assert_eq!(counts.matched, log.matched(0), "every record matches");
            assert_eq!(log.bounds(0).end, RECORDS);
        }
    }
    told || log.triggers().len() == 1
}

#[tokio::test]
async fn an_intact_directory_is_told_as_it_is() {
    let disk = directory().await;
    assert!(
        disk.files().iter().any(|(path, _)| path.extension().is_some_and(|e| e == "ids")),
        "a segment is sealed"
    );
    assert!(look(&disk).await);
    let (store, log) = open(&disk).expect("it is intact");
    assert_eq!(store.damage(&name()), Vec::<String>::new());
    let counts = log.ledger(0, log.trigger(&trigger())).counts();
    assert_eq!((counts.matched, counts.delivered, counts.pending), (RECORDS, RECORDS / 2, RECORDS / 2));
}

/// Puts the same damage into a fresh copy of the directory each time.
async fn damage_each(step: usize, damage: impl Fn(&mut [u8], usize)) {
    let disk = directory().await;
    for (path, bytes) in disk.files() {
        if path.ends_with("LOCK") || path.ends_with("RESERVE") {
            continue;
        }
        let mut at = 0;
        while at < bytes.len() {
            let copy = disk.after_power_loss(Loss::Nothing);
            let mut damaged = bytes.clone();
            damage(&mut damaged, at);
            if damaged != bytes {
                copy.overwrite(&path, damaged);
                assert!(look(&copy).await, "damage at {at} of {} is not told", path.display());
            }
            // Dense where the small structures are, and then ever so often.
            at += if at < 512 { step / 16 + 1 } else { step };
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_is_told_or_harmless() {
    damage_each(9_973, |bytes, at| bytes[at] ^= 1 << (at % 8)).await;
}

#[tokio::test]
async fn a_zeroed_page_is_told_or_harmless() {
    damage_each(16_384, |bytes, at| {
        let from = at / 4096 * 4096;
        let to = (from + 4096).min(bytes.len());
        bytes[from..to].fill(0);
    })
    .await;
}

/// Nothing but the last segment knows of what was appended last.
#[tokio::test]
async fn a_last_segment_without_its_header_is_told_and_kept() {
    let disk = SimulatedDisk::new();
    let (store, log) = open(&disk).expect("the disk works");
    log.append(Batch::of([record(0)])).expect("there is room").await.expect("it is durable");
    drop((store, log));
    let (path, mut bytes) =
        disk.files().into_iter().find(|(path, _)| path.extension().is_some_and(|e| e == "log")).expect("one");
    bytes[20] ^= 1;
    disk.overwrite(&path, bytes.clone());
    let (store, log) = open(&disk).expect("the disk works");
    assert!(store.damage(&name()).iter().any(|damage| damage.contains("corrupt at byte 0")));
    assert!(disk.files().contains(&(path, bytes)), "nothing of it is cut away");
    store.accept_damage(&name()).expect("the disk works");
    drop((store, log));
    for restart in 1..3 {
        let (store, log) = open(&disk).expect("it is intact but for what is accepted");
        assert_eq!(store.damage(&name()), Vec::<String>::new());
        let committed = log.append(Batch::of([record(restart)])).expect("there is room").await;
        assert_eq!(committed.expect("it is durable").first.offset, restart);
    }
}

#[tokio::test]
async fn a_segment_that_is_gone_is_told_and_its_records_are_owed() {
    let disk = directory().await;
    let (path, _) =
        disk.files().into_iter().find(|(path, _)| path.extension().is_some_and(|e| e == "log")).expect("one");
    disk.remove(&path).expect("the disk works");
    let (store, log) = open(&disk).expect("the disk works");
    let told = store.damage(&name());
    assert!(told.len() == 1 && told[0].contains("are missing"), "{told:?}");
    let owed = log.owed(0, log.trigger(&trigger()), 0, PLENTY).await.expect("the lists are intact");
    assert!(!owed.unreadable.is_empty(), "those who are owed them are told");
    assert_eq!(owed.entries.len() + owed.unreadable.len(), usize::try_from(RECORDS).unwrap_or(0));
}

#[tokio::test]
async fn accepted_damage_is_passed_over() {
    let disk = directory().await;
    let (path, mut bytes) = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with("00000000000000000000.log"))
        .expect("it is there");
    bytes[100_000] ^= 1;
    disk.overwrite(&path, bytes);
    let (store, log) = open(&disk).expect("the footer is intact");
    let told = store.verify(&name()).expect("the disk works");
    assert!(told.len() == 1 && told[0].contains("corrupt at byte"), "{told:?}");
    let number = log.trigger(&trigger());
    let owed = log.owed(0, number, 0, PLENTY).await.expect("the lists are intact");
    let lost: Vec<Offset> = owed.unreadable.iter().map(|(offset, _)| *offset).collect();
    assert!(!lost.is_empty() && lost.len() <= 6, "a frame is lost: {lost:?}");
    assert_eq!(owed.entries.len() + lost.len(), usize::try_from(RECORDS).unwrap_or(0));
    let error = log.read(0, lost[0], PLENTY).await.map(drop).expect_err("it is damaged");
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");

    store.accept_damage(&name()).expect("the disk works");
    assert_eq!(store.damage(&name()), Vec::<String>::new());
    drop((store, log));
    let (store, log) = open(&disk).expect("it is intact but for what is accepted");
    assert_eq!(store.verify(&name()), Ok(vec![]));
    let entries = log.read(0, lost[0], PLENTY).await.expect("what is lost is passed over");
    assert_eq!(entries[0].position.offset, lost[lost.len() - 1] + 1);
}
