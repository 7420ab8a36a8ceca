//! Rules of [`crate::Ledger`] and [`crate::Ledgers`].

use std::time::Duration;

use crate::clock::Timestamp;
use crate::dead_letter::Forwarding;
use crate::error::WriteError;
use crate::ledger::{
    ATTEMPTS_KEPT, BatchBounds, Counts, DropReason, Key, Ledger, Opened, OutcomeState, Settled, Settlement,
    Turn,
};
use crate::record::{Offset, Position};
use crate::suite::stage::{
    PARTITION, PLENTY, delivered, examine, failed, fill, given_up, name, offsets, open, owing, take,
};
use crate::suite::{Bench, Hands, Setup};

pub(super) async fn a_debt_is_taken_once_and_settled_once(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 4).await;
    assert_eq!((ledger.untaken(), ledger.next(), ledger.floor()), (4, 0, Some(0)));
    let entries = take(&*log, &ledger, 3).await;
    assert!(!ledger.take(&entries[1]), "it was taken before");
    assert_eq!((ledger.untaken(), ledger.next(), ledger.floor()), (1, 3, Some(0)));
    assert_eq!(ledger.window(), [(0, 0), (1, 0), (2, 0)]);

    assert_eq!(ledger.settle(1, Settlement::Delivered, Some(delivered(1))), Ok(Settled::Now));
    assert_eq!(ledger.settle(1, Settlement::Dropped(DropReason::Operator), None), Ok(Settled::Already));
    assert_eq!(ledger.settle(3, Settlement::Delivered, None), Ok(Settled::Already), "it was not taken");
    assert_eq!(ledger.settle(0, Settlement::Dropped(DropReason::Expired), None), Ok(Settled::Now));
    assert_eq!(ledger.settle(2, Settlement::DeadLettered(given_up(), None), None), Ok(Settled::Now));
    let counts = ledger.counts();
    assert!(counts.holds());
    assert_eq!((counts.delivered, counts.dead_lettered, counts.dropped.total()), (1, 1, 1));
    assert_eq!((counts.dropped.by(DropReason::Expired), counts.pending, counts.untaken), (1, 1, 1));
    assert_eq!((ledger.floor(), ledger.window()), (Some(3), vec![]));

    let last = take(&*log, &ledger, 9).await;
    assert_eq!(offsets(&last), [3]);
    assert_eq!(ledger.settle(3, Settlement::Delivered, None), Ok(Settled::Now));
    assert_eq!((ledger.floor(), ledger.counts().pending), (None, 0));
    assert!(!ledger.take(&last[0]));

    // What does not match cannot be taken.
    let range = fill(&*log, 1).await;
    examine(&*log, range.clone(), |_| vec![]);
    let position = Position { partition: PARTITION, offset: range.start };
    let foreign = log.fetch(position).await.expect("it is there");
    assert!(!ledger.take(&foreign));
    assert!(ledger.counts().holds());
}

pub(super) async fn the_oldest_debt_is_told_wherever_it_stands(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 4).await;
    assert_eq!(ledger.oldest(), Some(0));
    let entries = take(&*log, &ledger, 3).await;
    assert_eq!(ledger.oldest(), Some(0));
    ledger.wait(&entries[0], Timestamp(i64::MAX)).expect("the ledger is written");
    assert_eq!((ledger.oldest(), ledger.floor()), (Some(0), Some(1)));
    assert_eq!((ledger.waiting_below(1, 9), ledger.waiting_below(0, 9)), (vec![0], vec![]));
    for offset in [0, 1] {
        ledger.settle(offset, Settlement::Delivered, None).expect("it is settled");
    }
    assert_eq!(ledger.oldest(), Some(2));
    ledger.settle(2, Settlement::Delivered, None).expect("it is settled");
    assert_eq!(ledger.oldest(), Some(3));
    ledger.drop_all(DropReason::Operator, log.matched(PARTITION)).expect("it is dropped");
    assert_eq!(ledger.oldest(), None);
    let bytes = |offset| log.bytes_from(PARTITION, offset);
    assert!(bytes(0) > bytes(2) && bytes(2) > bytes(3) && bytes(3) > 0, "{:?}", [0, 2, 3].map(bytes));
    assert_eq!(bytes(4), 0);
}

pub(super) async fn what_cannot_be_read_can_be_settled(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 3).await;
    let entries = take(&*log, &ledger, 1).await;
    assert!(ledger.take_unreadable(1));
    assert!(!ledger.take_unreadable(1) && !ledger.take_unreadable(0));
    assert_eq!((ledger.next(), ledger.window()), (2, vec![(0, 0), (1, 0)]));
    let settlement = Settlement::DeadLettered(given_up(), Some(Timestamp(1)));
    assert_eq!(ledger.settle(1, settlement, None), Ok(Settled::Now));
    let letters = log.dead_letters().list(None, None, 10).await;
    assert_eq!(letters[0].position, Position { partition: PARTITION, offset: 1 });
    assert!(letters[0].entry().is_none());
    assert_eq!(letters[0].forwarding, Forwarding::Kept, "what has no body cannot be sent anywhere");
    assert_eq!(offsets(&take(&*log, &ledger, 9).await), [2]);
    assert!(!ledger.take_unreadable(3), "nothing is left to take");
    assert_eq!(ledger.counts().pending, 2);
    assert!(ledger.counts().holds());
    assert_eq!(offsets(&entries), [0]);
}

pub(super) async fn attempts_are_counted_and_kept(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 2).await;
    let entries = take(&*log, &ledger, 2).await;
    for number in 1..=20 {
        assert_eq!(ledger.attempted(0, failed(number)), number);
    }
    assert_eq!((ledger.attempts_made(0), ledger.attempts_made(1), ledger.attempts_made(9)), (20, 0, 0));
    ledger.wait(&entries[0], Timestamp(5)).expect("it waits");
    assert_eq!(ledger.attempted(0, failed(21)), 20, "it is not in the window");
    let due = ledger.due(Timestamp(5), 1);
    assert_eq!((due[0].offset, due[0].attempts), (0, 20), "waiting keeps the count");
    assert_eq!(ledger.attempted(0, failed(21)), 21);
    assert_eq!(ledger.window(), [(0, 21), (1, 0)]);
    ledger.settle(0, Settlement::Delivered, Some(delivered(22))).expect("it is settled");
    assert_eq!(ledger.attempts_made(0), 0);

    let attempts = ledger.attempts(0);
    assert_eq!(attempts.len(), ATTEMPTS_KEPT);
    assert_eq!(attempts[ATTEMPTS_KEPT - 1], delivered(22));
    assert_eq!(attempts[0], failed(7));
    assert_eq!(ledger.attempts(1), []);
}

pub(super) async fn the_schedule_gives_back_what_is_due_in_order(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 6).await;
    let entries = take(&*log, &ledger, 5).await;
    assert_eq!(ledger.next_due(), None);
    for (entry, due) in entries.iter().zip([50, 10, 30, 10, 40]) {
        ledger.wait(entry, Timestamp(due)).expect("it waits");
    }
    ledger.wait(&entries[4], Timestamp(20)).expect("it waits for less");
    let untaken = log.fetch(Position { partition: PARTITION, offset: 5 }).await.expect("it is there");
    ledger.wait(&untaken, Timestamp(1)).expect("of what was not taken nothing changes");
    assert_eq!(ledger.next_due(), Some(Timestamp(10)));
    assert_eq!((ledger.counts().scheduled, ledger.counts().window), (5, 0));
    assert!(ledger.due(Timestamp(9), 10).is_empty());

    let due = |now, limit| {
        let due = ledger.due(Timestamp(now), limit);
        due.into_iter().map(|due| due.offset).collect::<Vec<_>>()
    };
    assert_eq!(due(25, 2), [1, 3]);
    assert_eq!(due(25, 9), [4]);
    assert_eq!(ledger.next_due(), Some(Timestamp(30)));
    assert_eq!(ledger.settle(2, Settlement::Delivered, None), Ok(Settled::Now), "from the schedule");
    assert_eq!(due(100, 9), [0]);
    assert_eq!(ledger.next_due(), None);
    assert_eq!(ledger.window(), [(0, 0), (1, 0), (3, 0), (4, 0)]);
    assert!(ledger.counts().holds());
}

pub(super) async fn a_key_is_worked_off_in_order(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 8).await;
    let (a, b) = (Key::of("a"), Key::of("b"));
    let owed = log.owed(PARTITION, ledger.trigger(), 0, PLENTY).await.expect("they are readable").entries;
    // a: 0 2 3 5 6, b: 1 4, and 7 without a key.
    let turns =
        [a, b, a, a, b, a, a].into_iter().zip(&owed).map(|(key, entry)| ledger.take_in_order(entry, key));
    let (now, later) = (Some(Turn::Now), Some(Turn::Later));
    assert_eq!(turns.collect::<Vec<_>>(), [now, now, later, later, later, later, later]);
    assert!(ledger.take(&owed[7]));
    assert_eq!(ledger.take_in_order(&owed[2], a), None, "it was taken before");
    for offset in [3, 5, 6] {
        ledger.hold(&owed[offset]).expect("it is written down");
    }
    ledger.hold(&owed[7]).expect("what has no key is left where it is");
    let counts = ledger.counts();
    assert_eq!((counts.window, counts.scheduled, counts.pending), (5, 3, 8));
    assert_eq!((ledger.next_due(), ledger.due(Timestamp(i64::MAX), 9).len()), (None, 0));
    assert!(
        log.outcomes(owed[3].position, ledger.trigger()).is_some_and(|told| told.state == OutcomeState::Held)
    );
    assert!(!ledger.is_closed(a) && !ledger.has_opened() && ledger.opened(9).is_empty());

    // The first waits: the key is closed until it is due and settled.
    ledger.attempted(0, failed(1));
    ledger.wait(&owed[0], Timestamp(50)).expect("it waits");
    assert!(ledger.is_closed(a) && !ledger.is_closed(b) && ledger.opened(9).is_empty());
    ledger.settle(1, Settlement::Delivered, None).expect("it is settled");
    assert!(matches!(ledger.opened(9)[..], [Opened::Window(key, 4)] if key == b));
    let due = ledger.due(Timestamp(50), 9);
    assert_eq!((due[0].offset, due[0].attempts, due[0].key), (0, 1, Some(a)));
    ledger.settle(0, Settlement::DeadLettered(given_up(), None), None).expect("it is settled");
    assert!(ledger.has_opened());
    assert!(matches!(ledger.opened(9)[..], [Opened::Window(key, 2)] if key == a));
    // Whatever settles the first opens the key, and what is settled meanwhile is passed over.
    ledger.settle(3, Settlement::Dropped(DropReason::Operator), None).expect("it is settled");
    ledger.settle(2, Settlement::Dropped(DropReason::Operator), None).expect("it is settled");
    let opened = ledger.opened(9);
    let [Opened::Held(due)] = opened.as_slice() else { panic!("{opened:?}") };
    assert_eq!((due.offset, due.attempts, due.key), (5, 0, Some(a)));
    ledger.hold(&owed[5]).expect("it is written down");
    assert!(ledger.is_closed(a), "it was put back");
    assert_eq!(ledger.settle(5, Settlement::Delivered, None), Ok(Settled::Now));
    assert_eq!(ledger.opened(0).len(), 0);
    assert_eq!(ledger.opened(9).len(), 1);
    assert_eq!(ledger.drop_all(DropReason::Operator, log.matched(PARTITION)), Ok(3));
    assert!(ledger.counts().holds() && ledger.opened(9).is_empty());
}

pub(super) async fn what_waits_does_not_hold_the_log(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 3).await;
    let entries = take(&*log, &ledger, 3).await;
    ledger.wait(&entries[0], Timestamp(10)).expect("it waits");
    ledger.wait(&entries[1], Timestamp(10)).expect("it waits");
    assert_eq!(ledger.floor(), Some(2));
    ledger.settle(2, Settlement::Delivered, None).expect("it is settled");
    assert_eq!(ledger.floor(), None);
    drop(entries);
    log.trim().await;

    for due in ledger.due(Timestamp(10), 1) {
        let position = Position { partition: PARTITION, offset: due.offset };
        let entry = log.fetch(position).await.expect("what waits is kept");
        assert_eq!(entry.position, position);
        assert!(due.entry.is_none_or(|kept| kept.event == entry.event));
        assert_eq!(ledger.floor(), None, "its body is kept elsewhere");
        ledger.wait(&entry, Timestamp(20)).expect("it waits again");
    }
    assert_eq!(ledger.due(Timestamp(30), 9).len(), 2);
    for offset in 0..2 {
        ledger.settle(offset, Settlement::Delivered, None).expect("it is settled");
    }
    assert!(ledger.counts().holds());
    assert_eq!(ledger.counts().delivered, 3);
}

pub(super) async fn dropping_all_settles_all(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 10).await;
    let entries = take(&*log, &ledger, 5).await;
    ledger.settle(0, Settlement::Delivered, None).expect("it is settled");
    ledger.wait(&entries[1], Timestamp(10)).expect("it waits");
    assert_eq!(ledger.drop_all(DropReason::Detached, log.matched(PARTITION)), Ok(9));
    let counts = ledger.counts();
    assert!(counts.holds());
    assert_eq!((counts.delivered, counts.dropped.by(DropReason::Detached), counts.pending), (1, 9, 0));
    assert_eq!((ledger.next(), ledger.floor(), ledger.next_due()), (10, None, None));
    assert_eq!(ledger.settle(2, Settlement::Delivered, None), Ok(Settled::Already));

    let range = fill(&*log, 1).await;
    examine(&*log, range, |_| vec![ledger.trigger()]);
    assert_eq!(offsets(&take(&*log, &ledger, 9).await), [10], "what comes later is owed");
    assert_eq!(ledger.drop_all(DropReason::Operator, 0), Ok(1));
    assert_eq!(ledger.next(), 11, "it never goes back");
}

pub(super) async fn a_recount_finds_what_the_ledger_says(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let (a, b) = (log.trigger(&name("a")), log.trigger(&name("b")));
    let range = fill(&*log, 30).await;
    examine(&*log, range, |offset| if offset % 3 == 0 { vec![a, b] } else { vec![b] });
    let ledger = log.ledger(PARTITION, a);
    let entries = take(&*log, &ledger, 4).await;
    ledger.wait(&entries[0], Timestamp(10)).expect("it waits");
    ledger.settle(3, Settlement::Delivered, None).expect("it is settled");
    let recount = log.recount(PARTITION, a);
    assert!(!recount.differs(), "{recount:?}");
    assert_eq!(recount.counted, ledger.counts());
    assert_eq!((recount.counted.untaken, recount.counted.window, recount.counted.scheduled), (6, 2, 1));
    assert_eq!(log.recount(PARTITION, crate::TriggerNumber(77)).counted, Counts::default());
}

pub(super) async fn each_outcome_is_told(bench: &dyn Bench) {
    let hands = Hands::at(1_000);
    let setup = Setup { clock: hands.clock(), history: super::MEBIBYTE, ..Setup::default() };
    let (log, ledger) = owing(bench, setup, 7).await;
    let trigger = ledger.trigger();
    let entries = take(&*log, &ledger, 6).await;
    let due = hands.now().after(Duration::from_secs(5));
    ledger.attempted(1, failed(1));
    ledger.attempted(2, failed(1));
    ledger.wait(&entries[2], due).expect("it waits");
    ledger.settle(3, Settlement::Delivered, Some(delivered(1))).expect("it is settled");
    ledger.attempted(4, failed(1));
    ledger.settle(4, Settlement::DeadLettered(given_up(), None), Some(failed(2))).expect("it is settled");
    ledger.settle(5, Settlement::Dropped(DropReason::Deadline), None).expect("it is settled");

    let outcome = |offset| log.outcomes(Position { partition: PARTITION, offset }, trigger);
    let told = |offset| {
        let outcome = outcome(offset).expect("it is a debt");
        (outcome.state, outcome.attempts)
    };
    assert_eq!(told(0), (OutcomeState::InFlight, vec![]));
    assert_eq!(told(1), (OutcomeState::InFlight, vec![failed(1)]));
    assert_eq!(told(2), (OutcomeState::Waiting { due }, vec![failed(1)]));
    assert_eq!(told(3), (OutcomeState::Delivered, vec![delivered(1)]));
    assert_eq!(told(4), (OutcomeState::DeadLettered, vec![failed(1), failed(2)]));
    assert_eq!(told(5), (OutcomeState::Dropped(DropReason::Deadline), vec![]));
    assert_eq!(told(6), (OutcomeState::Untaken, vec![]));
    let range = fill(&*log, 1).await;
    assert_eq!(outcome(range.start), None, "it is not examined yet");
    examine(&*log, range.clone(), |_| vec![]);
    assert_eq!(outcome(range.start), None, "it does not match");
    assert_eq!(outcome(99), None);
    assert_eq!(log.outcomes(Position { partition: log.partitions(), offset: 0 }, trigger), None);
    ledger.drop_all(DropReason::Operator, log.matched(PARTITION)).expect("all is dropped");
    assert_eq!(told(0).0, OutcomeState::Dropped(DropReason::Operator));
}

pub(super) async fn a_clean_end_is_no_crash(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 3).await;
    let trigger = ledger.trigger();
    let entries = take(&*log, &ledger, 2).await;
    ledger.started(0);
    ledger.started(1);
    ledger.cut(1);
    ledger.started(2);
    assert_eq!([0, 1, 2].map(|offset| ledger.crashes(offset)), [0, 0, 0]);
    log.secure().await.expect("the log is open");
    assert!(ledger.has_room() && !log.ended_uncleanly());
    log.close().await;
    assert_eq!(log.secure().await, Err(WriteError::Closed));
    drop((entries, ledger, log));

    let Some(log) = bench.reopen().await else { return };
    assert!(!log.ended_uncleanly());
    let ledger = log.ledger(PARTITION, trigger);
    assert_eq!(ledger.window(), [(0, 0), (1, 0)]);
    assert_eq!([0, 1, 2].map(|offset| ledger.crashes(offset)), [0, 0, 0]);
}

pub(super) async fn a_batch_keeps_its_bounds_and_is_settled_in_one_step(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 10).await;
    let trigger = ledger.trigger();
    let entries = take(&*log, &ledger, 9).await;
    ledger.start_batch(&[4, 2, 3, 9]);
    ledger.start_batch(&[0, 1, 7]);
    ledger.start_batch(&[5, 6]);
    let bounds =
        |ledger: &Ledger, offset| ledger.batch_of(offset).and_then(|(batch, _)| ledger.bounds(batch));
    let all = |offsets: &[Offset], open| Some(BatchBounds { offsets: offsets.to_vec(), open });
    assert_eq!(bounds(&ledger, 2), all(&[4, 2, 3], true), "one was not taken");
    assert_eq!((ledger.batch_of(8), ledger.batch_of(9)), (None, None));

    // It is known what came of one: each waits, and they come back together.
    for offset in [0, 1, 7] {
        ledger.attempted(offset, failed(1));
    }
    assert_eq!(bounds(&ledger, 7), all(&[0, 1, 7], false));
    for (offset, due) in [(7, 10), (0, 20), (1, 30), (8, 10)] {
        ledger.wait(&entries[offset], Timestamp(due)).expect("it waits");
    }
    let due: Vec<_> = ledger.due(Timestamp(10), 1).into_iter().map(|due| due.offset).collect();
    assert_eq!(due, [7, 0, 1]);
    assert_eq!(ledger.due(Timestamp(10), 9).len(), 1);

    // What is settled otherwise leaves it.
    ledger.settle(2, Settlement::Dropped(DropReason::Operator), None).expect("it is settled");
    assert_eq!(bounds(&ledger, 4), all(&[4, 3], true));
    ledger
        .delivered(vec![(4, delivered(1)), (2, delivered(1)), (3, delivered(1))])
        .expect("it is written down");
    let counts = ledger.counts();
    assert_eq!((counts.delivered, counts.dropped.total(), counts.pending), (2, 1, 7));
    assert_eq!((ledger.batch_of(4), counts.holds()), (None, true));
    let told = log.outcomes(entries[3].position, trigger).expect("it was a debt");
    assert_eq!(told.state, OutcomeState::Delivered);
    ledger.bind_alone(&[5, 6, 4]);
    let (alone, _) = ledger.batch_of(6).expect("it is alone");
    assert_eq!((bounds(&ledger, 5), bounds(&ledger, 6)), (all(&[5], false), all(&[6], false)));
    ledger.unbind(alone);
    assert_eq!((ledger.batch_of(6), bounds(&ledger, 5)), (None, all(&[5], false)));

    log.close().await;
    assert_eq!(ledger.delivered(vec![(0, delivered(2))]), Err(WriteError::Closed));
    assert_eq!(bounds(&ledger, 0), all(&[0, 1, 7], false), "what is refused changes nothing");
    drop((entries, ledger, log));
    let Some(log) = bench.reopen().await else { return };
    let ledger = log.ledger(PARTITION, trigger);
    assert_eq!((bounds(&ledger, 1), bounds(&ledger, 5)), (all(&[0, 1, 7], false), all(&[5], false)));
    assert_eq!((ledger.counts().delivered, ledger.batch_of(6)), (2, None));
}
