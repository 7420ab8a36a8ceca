//! Match lists that are lost, and restored under the recorded plan.

use super::stage::{PLENTY, Stage, failed, given_up};
use super::*;
use crate::ledger::{Counts, OutcomeState, Settlement};
use crate::{Position, ReadError, Timestamp};

const BOTH: [&str; 2] = ["a", "b"];

/// A log of several sealed segments, in the first of which every place of a debt is told: what is taken below 8, and
/// there settled, in the window and in the schedule; the rest is owed.
async fn stage() -> Stage {
    let stage = Stage::open(&SimulatedDisk::new());
    for _ in 0..10 {
        stage.owe(&BOTH, 10, 9_000).await;
    }
    for entry in stage.take("a", 8).await {
        let (ledger, offset) = (stage.ledger("a"), entry.position.offset);
        match offset % 4 {
            0 => drop(ledger.settle(offset, Settlement::Delivered, None).expect("it is settled")),
            1 => {
                let reason = Settlement::DeadLettered(given_up(), None);
                ledger.settle(offset, reason, None).expect("it is settled");
            }
            2 => {
                ledger.attempted(offset, failed(1));
                ledger.wait(&entry, Timestamp(9)).expect("it waits");
            }
            _ => {}
        }
    }
    stage.flush();
    stage
}

fn lists(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "matches")).collect()
}

fn counts(stage: &Stage) -> [Counts; 2] {
    BOTH.map(|name| stage.ledger(name).counts())
}

/// Restores what is lost in batches of so many records.
fn restore(stage: &Stage, records: u64) {
    for range in stage.log.lost_matches(0) {
        let mut from = range.start;
        while from < range.end {
            let to = range.end.min(from + records);
            stage.examine(&BOTH, from..to, Scope::Restored);
            from = to;
        }
    }
    assert_eq!(stage.log.lost_matches(0), []);
}

async fn check(stage: &Stage, before: [Counts; 2]) {
    assert_eq!(counts(stage), before, "counters stay as they were");
    for name in BOTH {
        let ledger = stage.ledger(name);
        let recount = stage.log.recount(0, ledger.trigger());
        assert!(!recount.differs(), "{recount:?}");
        let owed = stage.log.owed(0, ledger.trigger(), ledger.next(), PLENTY).await.expect("nothing is lost");
        assert_eq!(owed.entries.len() as u64, ledger.untaken());
    }
    let outcome = |offset| {
        stage.log.outcomes(Position { partition: 0, offset }, stage.trigger("a")).map(|outcome| outcome.state)
    };
    assert_eq!(outcome(0), Some(OutcomeState::Delivered));
    assert_eq!(outcome(1), Some(OutcomeState::DeadLettered));
    assert_eq!(outcome(2), Some(OutcomeState::Waiting { due: Timestamp(9) }));
    assert_eq!(outcome(3), Some(OutcomeState::InFlight));
    assert_eq!(outcome(8), Some(OutcomeState::Untaken));
}

/// Whichever file of lists is hurt, and however: it is told, waited for, restored, and stays so.
#[tokio::test]
async fn lost_lists_are_restored() {
    let whole = stage().await;
    let before = counts(&whole);
    let files = lists(&whole.disk);
    assert!(files.len() > 2, "there are several segments");
    let hurts: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[3] ^= 1,
        |bytes| bytes.truncate(0),
        |bytes| bytes[70] ^= 1,
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
    ];
    let mut restored = 0;
    for (path, bytes) in &files[..files.len() - 1] {
        for hurt in hurts {
            let disk = whole.disk.after_power_loss(Loss::All);
            let mut hurt_bytes = bytes.clone();
            hurt(&mut hurt_bytes);
            disk.overwrite(path, hurt_bytes);
            let stage = Stage::open(&disk);
            assert_eq!(counts(&stage), before);
            // What is hurt behind an intact footer is met when it is read.
            let ledger = stage.ledger("b");
            let _ = stage.log.owed(0, ledger.trigger(), 0, PLENTY).await.map(drop);
            let _ = stage.log.owed(0, ledger.trigger(), 60, PLENTY).await.map(drop);
            let Some(lost) = stage.log.lost_matches(0).first().cloned() else {
                check(&stage, before).await;
                continue;
            };
            restored += 1;
            assert_eq!(stage.store.damage(&name()), Vec::<String>::new(), "nobody need accept it");
            let error = stage.log.owed(0, ledger.trigger(), lost.start, PLENTY).await.map(drop);
            let error = error.expect_err("who matches is not known");
            assert!(
                matches!(&error, ReadError::MatchesLost { from, to, reason }
                    if (*from, *to) == (lost.start, lost.end) && reason.contains("corrupt at byte")),
                "{error}"
            );
            if lost.start > 0 {
                let owed =
                    stage.log.owed(0, ledger.trigger(), 0, PLENTY).await.expect("what comes before stands");
                assert_eq!(owed.next, lost.start);
            }
            assert!(
                !stage.log.recount(0, ledger.trigger()).differs(),
                "nothing is counted that is not known"
            );
            restore(&stage, 7);
            check(&stage, before).await;
            stage.flush();
            drop(ledger);
            let stage = stage.lose_power();
            assert_eq!(stage.log.lost_matches(0), [], "restored is restored");
            check(&stage, before).await;
        }
    }
    assert!(restored >= 6, "{restored}");
}

/// What was settled after the checkpoint is not owed again, although nothing tells any more what was taken before.
#[tokio::test]
async fn what_the_journal_settled_is_not_owed_again() {
    let before = stage().await;
    for entry in before.take("b", 12).await {
        if entry.position.offset != 5 {
            before
                .ledger("b")
                .settle(entry.position.offset, Settlement::Delivered, None)
                .expect("it is settled");
        }
    }
    before.store.shared.round(false).expect("the disk works");
    let disk = before.disk.after_power_loss(Loss::All);
    let (path, _) = lists(&disk).swap_remove(0);
    disk.overwrite(&path, Vec::new());
    let mut stage = Stage::open(&disk);
    for _ in 0..2 {
        let counts = stage.ledger("b").counts();
        assert!(counts.holds(), "{counts:?}");
        assert_eq!((counts.delivered, counts.matched), (11, 100));
        stage.flush();
        stage = stage.lose_power();
    }
    restore(&stage, 100);
    let counts = stage.ledger("b").counts();
    assert_eq!((counts.delivered, counts.matched, counts.pending), (11, 100, 89));
    let owed = stage.take("b", 3).await;
    assert_eq!(owed.iter().map(|entry| entry.position.offset).collect::<Vec<_>>(), [5, 12, 13]);
}

#[tokio::test]
async fn only_what_is_lost_is_restored() {
    let stage = stage().await;
    let batch = |from, to| MatchBatch {
        partition: 0,
        from,
        to,
        version: PlanVersion(1),
        scope: Scope::Restored,
        matches: Vec::new(),
    };
    assert!(stage.log.record_matches(&batch(0, 5)).is_err(), "nothing is lost");
    let (path, _) = lists(&stage.disk).swap_remove(0);
    let disk = stage.disk.after_power_loss(Loss::All);
    disk.overwrite(&path, Vec::new());
    let stage = Stage::open(&disk);
    let lost = stage.log.lost_matches(0);
    assert_eq!(lost.len(), 1);
    assert!(stage.log.record_matches(&batch(1, 5)).is_err(), "not from its start");
    assert!(stage.log.record_matches(&batch(0, lost[0].end + 1)).is_err(), "beyond its end");
    stage.examine(&BOTH, 0..5, Scope::Restored);
    stage.examine(&BOTH, 0..5, Scope::Restored);
    assert_eq!(stage.log.lost_matches(0).first(), Some(&(5..lost[0].end)));
    stage.flush();
    let stage = stage.lose_power();
    assert_eq!(stage.log.lost_matches(0), lost, "half restored is lost");
    // An operator may go on with what there is.
    stage.store.accept_damage(&name()).expect("the disk works");
    assert_eq!(stage.log.lost_matches(0), []);
    assert!(stage.ledger("b").counts().holds());
    let stage = stage.lose_power();
    assert_eq!(stage.log.lost_matches(0), []);
}
