use super::*;
use crate::Timestamp;
use crate::embedded::disk::simulated::SimulatedDisk;
use crate::ledger::AttemptOutcome;

const TRIGGER: TriggerNumber = TriggerNumber(0);

fn journal(disk: &Arc<SimulatedDisk>) -> Journal {
    Journal::new(Arc::clone(disk) as Arc<dyn Disk>, PathBuf::from("/"))
}

fn attempted(journal: &Journal, offset: Offset, number: u32) {
    let outcome = AttemptOutcome::Failed {
        code: waypost_core::codes::SUBSCRIBER_TIMEOUT,
        status: None,
        detail: "the destination did not answer in time".to_owned(),
        body_excerpt: None,
    };
    let attempt = Attempt { number, started: Timestamp(0), ended: Timestamp(1), outcome };
    journal.note(offset, TRIGGER, Change::Attempted(attempt)).expect("there is room");
}

fn flush(journal: &Journal) {
    let notes = journal.leave().expect("something waits");
    journal.write(&notes).expect("the disk works");
}

fn numbers(journal: &Journal, offset: Offset, most: u64) -> Vec<u32> {
    journal.find_within(offset, TRIGGER, most).attempts.into_iter().map(|attempt| attempt.number).collect()
}

/// Many deliveries are tried again and again, so that every block tells of all of them.
#[test]
fn no_more_is_read_than_may_be() {
    const DELIVERIES: u64 = 200;
    let journal = journal(&Arc::new(SimulatedDisk::new()));
    for number in 1..=10 {
        (0..DELIVERIES).for_each(|offset| attempted(&journal, offset, number));
        if number < 10 {
            flush(&journal);
        }
    }
    assert_eq!(numbers(&journal, 7, 0), [10], "what waits for the disk is at hand");
    let some = numbers(&journal, 7, BLOCK_BYTES * 5);
    assert!(some.len() > 1 && some.len() < 10, "{some:?}");
    assert_eq!(some.last(), Some(&10), "the newest come first");
    assert!(some.is_sorted());
    assert_eq!(journal.find(7, TRIGGER).attempts.len(), 10);
}

/// Deliveries of all offsets are tried at once, so that the ranges of the blocks tell nothing: the marks find the few
/// blocks with attempts at one of them, also in files that were closed and after a start.
#[test]
fn attempts_are_found_among_very_many_others() {
    const DELIVERIES: u64 = 30_000;
    const ATTEMPTS: u32 = 4;
    /// What the blocks of its own attempts take, and a few that are taken for such.
    const FEW: u64 = BLOCK_BYTES * 10;
    let disk = Arc::new(SimulatedDisk::new());
    let journal_before = journal(&disk);
    for number in 1..=ATTEMPTS {
        for place in 0..DELIVERIES {
            // Neighbours lie far from each other, and each attempt comes in another order.
            let offset = (place * 7_919 + u64::from(number) * 1_001) % DELIVERIES;
            attempted(&journal_before, offset, number);
            if place % 100 == 99 {
                flush(&journal_before);
            }
        }
    }
    let sealed = journal_before.state.lock().files.iter().filter(|file| file.sealed).count();
    assert!(sealed > 1, "there are files with a footer");
    let total = journal_before.state.lock().files.iter().map(|file| file.length).sum::<u64>();
    assert!(total > FEW * 50);
    let journal_after = journal(&disk);
    journal_after.recover(0, &mut |_| {}).expect("it can be read");
    let by_footers = journal(&disk);
    by_footers.recover(u64::MAX, &mut |_| {}).expect("it can be read");
    for offset in (0..DELIVERIES).step_by(997) {
        for journal in [&journal_before, &journal_after, &by_footers] {
            let found = numbers(journal, offset, FEW);
            assert_eq!(found, [1, 2, 3, 4], "of {offset}");
        }
    }
}

/// What a file tells of blocks without marks is read as it was written.
#[test]
fn a_footer_of_before_there_were_marks_is_read() {
    let mut body = Vec::new();
    [9_u64, 3, 8, 36, 136, 3, 8].into_iter().for_each(|number| body.put_u64(number));
    let file = File::new(1, 2).with_footer(&body, Told::decode_range).expect("it is intact");
    assert_eq!((file.summary, file.blocks.len()), (Summary { last: 9, lowest: 3, highest: 8 }, 1));
    let block = &file.blocks[0];
    assert_eq!((block.at, block.end), (36, 136));
    assert!((3..=8).all(|offset| block.told.may_tell_of(Sought::new(offset, TRIGGER))));
    assert!(!block.told.may_tell_of(Sought::new(9, TRIGGER)));
    // Such a block goes on with one that has marks, and is written anew.
    let mut told = Told::default();
    told.add(20, TRIGGER);
    let mut both = block.told.clone();
    both.join(&told);
    let mut stored = Vec::new();
    both.encode(&mut stored);
    let again = Told::decode(&mut Reader(&stored)).expect("it is intact");
    assert_eq!(again, both);
    assert!(again.may_tell_of(Sought::new(12, TRIGGER)));
}
