//! A file system without room: producers are refused, the rest goes on, and nothing is lost.

use std::process::Command;

use super::stage::{Stage, failed, record};
use super::*;
use crate::ledger::Settlement;
use crate::record::Offset;
use crate::{AppendError, CommitError};

/// Appends one record after the other until one is refused. Returns the offsets of those that were acknowledged.
async fn fill(log: &dyn Log, from_reserve: bool, most: usize) -> (Vec<Offset>, Option<CommitError>) {
    let mut acknowledged = Vec::new();
    for _ in 0..most {
        let batch = Batch { from_reserve, ..Batch::of([record("fill", 20_000)]) };
        let commit = match log.append(batch) {
            Ok(commit) => commit.await,
            Err(AppendError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        };
        match commit {
            Ok(committed) => acknowledged.push(committed.first.offset),
            Err(error) => return (acknowledged, Some(error)),
        }
    }
    (acknowledged, None)
}

async fn settle_all(stage: &Stage) {
    let ledger = stage.ledger("t");
    for entry in stage.take("t", usize::MAX).await {
        ledger.settle(entry.position.offset, Settlement::Delivered, None).expect("it is settled");
    }
}

#[tokio::test]
async fn producers_are_refused_and_the_rest_goes_on() {
    let stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["t"], 40, 9_000).await;
    stage.flush();
    stage.disk.set_room(stage.disk.taken());
    let (_, error) = fill(&*stage.log, false, 1_000).await;
    let error = error.expect("there is no room");
    assert!(error.full && error.code() == codes::LOG_FULL, "{error}");
    let (replies, _) = fill(&*stage.log, true, 5).await;
    assert_eq!(replies.len(), 5, "there is room kept for replies");
    let (refused, error) = fill(&*stage.log, false, 1).await;
    assert!(refused.is_empty() || error.is_none(), "what the reply's segment has room for is taken");

    let end = stage.log.bounds(0).end;
    stage.examine(&["t"], 40..end, Scope::All);
    settle_all(&stage).await;
    stage.flush();
    assert_eq!(*stage.store.poisoned().borrow(), None, "nothing is lost, so nothing stops");
    stage.disk.set_room(0);
    let (taken, error) = fill(&*stage.log, false, 50).await;
    assert_eq!((taken.len(), error), (50, None), "there is room again");
    let stage = stage.lose_power();
    let counts = stage.ledger("t").counts();
    assert_eq!((counts.delivered, counts.matched), (end, end));
    assert_eq!(stage.log.bounds(0).end, end + 50);
}

/// Whatever lacks room, and whenever: nothing is poisoned, what was acknowledged is there, and it goes on.
#[tokio::test]
async fn it_goes_on_wherever_the_room_ends() {
    for pages in (0..700).step_by(9) {
        let mut stage = Stage::open(&SimulatedDisk::new());
        stage.owe(&["t"], 10, 9_000).await;
        stage.flush();
        stage.disk.set_room(stage.disk.taken() + pages * 4096);
        let mut acknowledged = Vec::new();
        for round in 0..4 {
            for _ in 0..8 {
                let (offsets, _) = fill(&*stage.log, round == 3, 4).await;
                acknowledged.extend(offsets);
                let (from, to) = (stage.log.matched(0), stage.log.bounds(0).end);
                stage.examine(&["t"], from..to, Scope::All);
                settle_all(&stage).await;
                let _ = stage.store.shared.round(true);
            }
            stage.log.trim().await;
            assert_eq!(*stage.store.poisoned().borrow(), None, "{pages} pages");
        }
        let counts = stage.ledger("t").counts();
        assert_eq!(counts.delivered, 10 + acknowledged.len() as u64);
        stage.disk.set_room(0);
        stage.flush();
        let (offsets, error) = fill(&*stage.log, false, 20).await;
        assert_eq!((offsets.len(), error), (20, None), "{pages} pages: there is room again");
        stage = stage.lose_power();
        assert_eq!(stage.store.damage(&name()), Vec::<String>::new());
        assert_eq!(stage.ledger("t").counts(), counts);
        assert!(!stage.log.recount(0, stage.trigger("t")).differs());
        // What was delivered may go when there is no room.
        let start = stage.log.bounds(0).start;
        for offset in acknowledged.into_iter().chain(offsets).filter(|offset| *offset >= start) {
            let position = crate::Position { partition: 0, offset };
            stage.log.fetch(position).await.expect("it was acknowledged");
        }
    }
}

/// A plan that is recorded when there is room again speaks of no change that could not be written before.
#[tokio::test]
async fn a_plan_goes_behind_what_found_no_room() {
    for pages in (0..60).step_by(7) {
        let stage = Stage::open(&SimulatedDisk::new());
        stage.owe(&["t"], 2, 10).await;
        stage.flush();
        stage.disk.set_room(stage.disk.taken() + pages * 4096);
        // Until neither the reserve is left nor what was taken ahead.
        for round in 0..40 {
            stage.owe(&["t"], 20, 10).await;
            let ledger = stage.ledger("t");
            for entry in stage.take("t", 20).await {
                for number in 1..50 {
                    ledger.attempted(entry.position.offset, failed(number));
                }
            }
            if stage.store.shared.round(true).is_err() && round > 2 {
                break;
            }
        }
        let counts = stage.ledger("t").counts();
        let matched = counts.matched;
        stage.disk.set_room(0);
        let (version, effective) = (PlanVersion(2), vec![stage.log.bounds(0).end]);
        let triggers = vec![(stage.trigger("t"), ResourceName::new("suite", "t"))];
        let plan = PlanRecord { version, effective, triggers, body: "plan".into() };
        stage.log.record_plan(plan).await.expect("there is room again");
        let stage = stage.lose_power();
        let counts = stage.ledger("t").counts();
        assert!(counts.holds() && counts.matched == matched, "{counts:?} of {matched}");
        assert!(!stage.log.recount(0, stage.trigger("t")).differs());
    }
}

/// As above, on a file system in memory that is really full. Mounts one: for root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a file system"]
async fn a_small_file_system_is_filled_and_goes_on() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let path = directory.path();
    let mount = ["-t", "tmpfs", "-o", "size=100m", "tmpfs"];
    assert!(Command::new("mount").args(mount).arg(path).status().expect("mount is there").success());
    let options = || EmbeddedOptions { ring_bytes: 1 << 20, ..EmbeddedOptions::new(path.join("data")) };
    let retention = Retention { age: std::time::Duration::ZERO, size: 0 };
    let store = EmbeddedStore::open(options(), Clock::system()).expect("it can be opened");
    let log = store.open_log(&name(), retention).expect("it can be opened");
    // Another's file takes half of it, so that the disk is full before the limit is met.
    std::fs::write(path.join("other"), vec![1; 50 << 20]).expect("there is room");
    let stage = Stage { disk: SimulatedDisk::new(), store, log };
    stage.owe(&["t"], 1, 10).await;
    let (mut acknowledged, error) = fill(&*stage.log, false, 10_000).await;
    assert!(error.is_some_and(|error| error.full), "it is full");
    acknowledged.extend(fill(&*stage.log, true, 10).await.0);
    let end = stage.log.bounds(0).end;
    assert_eq!(acknowledged.len() as u64, end - 1);
    for from in (1..end).step_by(100) {
        stage.examine(&["t"], from..end.min(from + 100), Scope::All);
    }
    settle_all(&stage).await;
    stage.log.secure().await.expect("the ledger goes on");
    stage.log.trim().await;
    assert_eq!(*stage.store.poisoned().borrow(), None);
    assert!(stage.log.bounds(0).start > 0, "what nobody is owed makes room");
    let (more, error) = fill(&*stage.log, false, 100).await;
    assert_eq!((more.len(), error), (100, None), "there is room again");
    let Stage { store, log, .. } = stage;
    let bounds = log.bounds(0);
    drop((store, log));
    let store = EmbeddedStore::open(options(), Clock::system()).expect("it can be opened");
    let log = store.open_log(&name(), retention).expect("it can be opened");
    assert_eq!(log.bounds(0), bounds);
    assert_eq!(log.ledger(0, log.trigger(&ResourceName::new("suite", "t"))).counts().delivered, end);
    drop((store, log));
    assert!(Command::new("umount").arg(path).status().expect("umount is there").success());
}

/// Many changes at once take the room that they need, and not the way to each of them.
#[tokio::test]
async fn many_changes_take_no_room_for_a_path_each() {
    const COUNT: u64 = 20_000;
    let stage = Stage::open(&SimulatedDisk::new());
    let before = stage.disk.taken();
    let kept: Vec<_> =
        (0..COUNT).rev().map(|number| (format!("resource/{number:06}"), Some(vec![b'k'; 200]))).collect();
    stage.store.keep(&kept).expect("there is room");
    let kept_bytes = COUNT * (15 + 200);
    let taken = stage.disk.taken() - before;
    assert!(taken < 5 * kept_bytes, "{taken} bytes for {kept_bytes}");

    let before = stage.disk.taken();
    for number in 0..COUNT {
        stage.log.trigger(&ResourceName::new("suite", format!("trigger-{number}")));
    }
    stage.flush();
    let names_bytes = COUNT * 60;
    let taken = stage.disk.taken() - before;
    assert!(taken < 8 * names_bytes, "{taken} bytes for {names_bytes}");
    assert_eq!(stage.restart().await.log.triggers().len() as u64, COUNT);
}

/// What is to be kept for a later process is refused without room, and nothing else is hurt.
#[tokio::test]
async fn nothing_is_kept_without_room() {
    let stage = Stage::open(&SimulatedDisk::new());
    let kept: Vec<_> = (0..2_000).map(|number| (format!("{number:06}"), Some(vec![b'k'; 2_000]))).collect();
    stage.disk.set_room(stage.disk.taken());
    let error = stage.store.keep(&kept).expect_err("there is no room");
    assert!(error.to_string().contains("room"), "{error}");
    assert_eq!(*stage.store.poisoned().borrow(), None);
    assert_eq!(stage.store.kept("").expect("it is readable"), []);
    stage.disk.set_room(0);
    stage.store.keep(&kept).expect("there is room again");
    assert_eq!(stage.lose_power().store.kept("").expect("it is readable").len(), kept.len());
}
