//! Dead letters over restarts, and the room that they take.

use super::stage::{Stage, given_up};
use super::*;
use crate::dead_letter::{FailedAgain, LetterSelection, RedriveId};
use crate::ledger::Settlement;
use crate::{DeadLetterReason, Timestamp};

/// A log whose only segment holds three dead letters and is given up, so that their bodies are parked.
async fn parked(disk: &SimulatedDisk) -> Stage {
    let stage = Stage::open(disk);
    stage.owe(&["t"], 3, 100_000).await;
    drop(stage.take("t", 3).await);
    for offset in 0..3 {
        let settlement = Settlement::DeadLettered(given_up(), None);
        stage.ledger("t").settle(offset, settlement, None).expect("it is settled");
    }
    // Another segment, so that the first one is sealed.
    for _ in 0..20 {
        stage.owe(&["t"], 1, 100_000).await;
    }
    drop(stage.take("t", 100).await);
    for offset in 3..23 {
        stage.ledger("t").settle(offset, Settlement::Delivered, None).expect("it is settled");
    }
    stage
}

#[tokio::test]
async fn purging_gives_the_room_of_parked_bodies_back() {
    let disk = SimulatedDisk::new();
    let Stage { store, log, .. } = parked(&disk).await;
    store.close().await;
    drop((store, log));
    let retention = Retention { age: std::time::Duration::ZERO, size: 0 };
    let stage = Stage::open_with(&disk, retention).expect("the directory can be opened");
    stage.log.trim().await;
    assert!(stage.log.bounds(0).start > 3, "their segment is gone");
    let letters = stage.log.dead_letters();
    let all = letters.select(&LetterSelection::default(), None, 9).await;
    assert_eq!(all.len(), 3);
    stage.log.forget(stage.trigger("t"));
    let held = stage.log.usage().used;
    for id in &all {
        let letter = letters.get(*id).await.expect("it is there");
        assert_eq!(letter.entry().expect("its body is parked").event.event_type(), "t");
        assert_eq!(letters.remove(*id), Ok(true));
    }
    stage.log.trim().await;
    let left = stage.log.usage().used;
    assert!(left + 3 * 100_000 <= held, "{left} of {held}");
    drop(letters);
    let stage = stage.kill();
    assert_eq!(stage.log.dead_letters().select(&LetterSelection::default(), None, 9).await, []);
}

/// While one looks what is needed of the parked records, another gives up a segment and parks what is owed from it: the
/// first forgets only what it knew of.
#[tokio::test]
async fn what_is_parked_while_it_is_looked_what_is_needed_stays() {
    let stage = Stage::open(&SimulatedDisk::new());
    let ledger = stage.ledger("t");
    let settle = |range: std::ops::Range<u64>| {
        for offset in range {
            ledger.settle(offset, Settlement::Delivered, None).expect("it is settled");
        }
    };
    // In each of two segments the first record waits.
    for _ in 0..60 {
        stage.owe(&["t"], 1, 100_000).await;
    }
    for entry in stage.take("t", 60).await {
        if entry.position.offset % 20 == 0 {
            ledger.wait(&entry, Timestamp(i64::MAX)).expect("it is written down");
        } else {
            settle(entry.position.offset..entry.position.offset + 1);
        }
    }
    let log = stage.store.shared.logs.lock().get(&name()).cloned().expect("it is open");
    log.release_under_pressure(1, false);
    let first = stage.log.bounds(0).start;
    assert!(first > 0, "a segment is given up, and its first record parked");

    let needed = log.still_needed();
    log.release_under_pressure(u64::MAX, false);
    let waiting: Vec<u64> = (first..stage.log.bounds(0).start).filter(|offset| offset % 20 == 0).collect();
    assert!(!waiting.is_empty(), "more is parked meanwhile");
    log.forget_parked_but(&needed);

    for offset in waiting {
        let entry = stage.log.fetch(crate::Position { partition: 0, offset }).await.expect("it is parked");
        assert_eq!(entry.event.id(), offset.to_string());
    }
}

#[tokio::test]
async fn what_failed_again_is_known_to_the_next_process() {
    let mut stage = Stage::open(&SimulatedDisk::new());
    stage.owe(&["t"], 3, 10).await;
    drop(stage.take("t", 3).await);
    for offset in 0..3 {
        let settlement = Settlement::DeadLettered(given_up(), None);
        stage.ledger("t").settle(offset, settlement, None).expect("it is settled");
    }
    let all = stage.log.dead_letters().select(&LetterSelection::default(), None, 9).await;
    let reason = DeadLetterReason { detail: "again".to_owned(), ..given_up() };
    let failure = FailedAgain {
        redrive: RedriveId(5),
        reason: reason.clone(),
        attempts: Vec::new(),
        at: Timestamp(9),
        accepted: None,
    };
    assert_eq!(stage.log.dead_letters().failed_again(all[1], &failure), Ok(true));
    assert_eq!(stage.log.dead_letters().remove(all[2]), Ok(true));
    // From the journal, from the checkpoint, and after a clean end.
    for round in 0..3 {
        stage = match round {
            0 => {
                let log = stage.store.shared.logs.lock().values().next().cloned().expect("it is open");
                log.flush().expect("the disk works");
                drop(log);
                stage.kill()
            }
            1 => {
                stage.flush();
                stage.lose_power()
            }
            _ => stage.restart().await,
        };
        let letters = stage.log.dead_letters();
        let open = LetterSelection { open_to: Some(RedriveId(5)), ..LetterSelection::default() };
        assert_eq!(letters.select(&open, None, 9).await, all[..1], "round {round}");
        let failed = letters.get(all[1]).await.expect("it is there");
        assert_eq!((&failed.reason, failed.at, failed.redriven), (&reason, Timestamp(9), Some(RedriveId(5))));
        let by_type = LetterSelection { event_type: Some("t".to_owned()), ..LetterSelection::default() };
        assert_eq!(letters.select(&by_type, None, 9).await, all[..2]);
    }
}
