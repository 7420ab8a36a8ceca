//! Rules of [`crate::Matches`] and of the numbers of triggers.

use smallvec::smallvec;

use crate::error::WriteError;
use crate::ledger::Settlement;
use crate::log::{MatchBatch, PlanVersion, ReadLimit, Scope, TriggerNumber};
use crate::record::Position;
use crate::suite::stage::{PARTITION, PLAN, PLENTY, examine, fill, name, offsets, open, owing, plan, take};
use crate::suite::{Bench, Setup};

fn batch(range: std::ops::Range<u64>) -> MatchBatch {
    MatchBatch {
        partition: PARTITION,
        from: range.start,
        to: range.end,
        version: PLAN,
        scope: Scope::All,
        matches: Vec::new(),
    }
}

pub(super) async fn a_plan_comes_before_its_matches(bench: &dyn Bench) {
    let log = bench.open(Setup::default()).await;
    assert_eq!(log.plans(), []);
    fill(&*log, 2).await;
    assert!(matches!(log.record_matches(&batch(0..1)), Err(WriteError::Failed { .. })));
    assert_eq!(log.matched(PARTITION), 0);

    let first = plan(&*log, 1);
    log.record_plan(first.clone()).await.expect("the first plan is recorded");
    log.record_plan(first.clone()).await.expect("the same plan again changes nothing");
    log.record_matches(&batch(0..1)).expect("its plan is recorded");
    let third = plan(&*log, 3);
    log.record_plan(third.clone()).await.expect("a later plan is recorded");
    assert!(log.record_plan(plan(&*log, 2)).await.is_err(), "versions grow");
    assert_eq!(log.plans(), [first, third.clone()]);

    // Once nothing readable was matched under it, a plan goes.
    fill(&*log, 4).await;
    for partition in 0..log.partitions() {
        let to = log.bounds(partition).end;
        let from = log.matched(partition);
        let batch = MatchBatch { partition, version: PlanVersion(3), ..batch(from..to) };
        log.record_matches(&batch).expect("its plan is recorded");
    }
    log.trim().await;
    assert_eq!(log.plans().last(), Some(&third));
}

pub(super) async fn each_record_is_examined_once_and_in_order(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let trigger = log.trigger(&name("t"));
    let ledger = log.ledger(PARTITION, trigger);
    fill(&*log, 6).await;
    let one = |offset: u64| (offset, smallvec![trigger]);

    let gap = MatchBatch { matches: vec![one(1)], ..batch(1..2) };
    assert!(log.record_matches(&gap).is_err(), "record 0 was not examined");
    let beyond = MatchBatch { matches: vec![one(1)], ..batch(0..7) };
    assert!(log.record_matches(&beyond).is_err(), "record 6 is not there");
    let outside = MatchBatch { matches: vec![one(3)], ..batch(0..3) };
    assert!(log.record_matches(&outside).is_err(), "a match outside its range");
    let unordered = MatchBatch { matches: vec![one(2), one(1)], ..batch(0..3) };
    assert!(log.record_matches(&unordered).is_err(), "matches out of order");
    assert_eq!((ledger.counts().matched, log.matched(PARTITION)), (0, 0), "what is refused changes nothing");

    let doubled = (0, smallvec![trigger, trigger, TriggerNumber(77)]);
    let first = MatchBatch { matches: vec![doubled, one(2)], ..batch(0..3) };
    log.record_matches(&first).expect("it is in order");
    assert_eq!((ledger.counts().matched, log.matched(PARTITION)), (2, 3));
    log.record_matches(&first).expect("again changes nothing");
    assert_eq!((ledger.counts().matched, log.matched(PARTITION)), (2, 3));
    let overlapping = MatchBatch { matches: vec![one(1), one(2), one(3)], ..batch(1..5) };
    log.record_matches(&overlapping).expect("what is new in it counts");
    assert_eq!((ledger.counts().matched, log.matched(PARTITION)), (3, 5));

    let owed = log.owed(PARTITION, trigger, 0, PLENTY).await.expect("it is readable");
    assert_eq!((offsets(&owed.entries), owed.next), (vec![0, 2, 3], 5));
    let unknown = log.owed(PARTITION, TriggerNumber(77), 0, PLENTY).await.expect("it is readable");
    assert!(unknown.entries.is_empty(), "a number that nobody has is owed nothing");
    assert_eq!(log.ledger(PARTITION, TriggerNumber(77)).counts().matched, 0);
}

pub(super) async fn owed_is_told_in_pages(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let (often, rarely) = (log.trigger(&name("often")), log.trigger(&name("rarely")));
    let range = fill(&*log, 3_000).await;
    examine(&*log, range, |offset| if offset % 1_000 == 500 { vec![rarely, often] } else { vec![often] });
    fill(&*log, 5).await;

    for (trigger, records, expected) in [
        (rarely, 1, (0..3).map(|turn| turn * 1_000 + 500).collect::<Vec<_>>()),
        (often, 700, (0..3_000).collect()),
    ] {
        let mut all = Vec::new();
        let mut from = 0;
        loop {
            let page = log.owed(PARTITION, trigger, from, ReadLimit { records, ..PLENTY }).await;
            let page = page.expect("it is readable");
            assert!(page.entries.len() <= records && page.unreadable.is_empty());
            assert!(page.entries.iter().all(|entry| (from..page.next).contains(&entry.position.offset)));
            if page.entries.is_empty() {
                assert_eq!(page.next, 3_000, "it ends with the examined range");
                break;
            }
            all.extend(offsets(&page.entries));
            from = page.next;
        }
        assert_eq!(all, expected);
    }
    let tight = ReadLimit { records: 10, bytes: 1 };
    let page = log.owed(PARTITION, rarely, 0, tight).await.expect("it is readable");
    assert_eq!(offsets(&page.entries), [500], "one that is larger than the limit comes alone");
}

pub(super) async fn a_trigger_that_lags_loses_nothing(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let (fast, slow) = (log.trigger(&name("fast")), log.trigger(&name("slow")));
    let (fast, slow) = (log.ledger(PARTITION, fast), log.ledger(PARTITION, slow));
    for _ in 0..10 {
        let range = fill(&*log, 20).await;
        examine(&*log, range, |offset| {
            if offset % 7 == 3 { vec![slow.trigger(), fast.trigger()] } else { vec![fast.trigger()] }
        });
        for entry in take(&*log, &fast, usize::MAX).await {
            fast.settle(entry.position.offset, Settlement::Delivered, None).expect("it is settled");
        }
        log.trim().await;
    }
    assert_eq!(fast.floor(), None);
    assert_eq!(slow.floor(), Some(3));
    let mut all = Vec::new();
    while slow.untaken() > 0 {
        for entry in take(&*log, &slow, 5).await {
            all.push(entry.position.offset);
            slow.settle(entry.position.offset, Settlement::Delivered, None).expect("it is settled");
            log.trim().await;
        }
    }
    assert_eq!(all, (0..200).filter(|offset| offset % 7 == 3).collect::<Vec<_>>());
    assert!(slow.counts().holds() && fast.counts().holds());
}

pub(super) async fn a_trigger_may_start_in_the_past(bench: &dyn Bench) {
    let log = open(bench, Setup { history: super::MEBIBYTE, ..Setup::default() }).await;
    let (old, new) = (log.trigger(&name("old")), log.trigger(&name("new")));
    let range = fill(&*log, 10).await;
    examine(&*log, range, |_| vec![old]);
    let ledger = log.ledger(PARTITION, new);
    ledger.begin(2);
    // The reader goes on, and meets it before its past is examined.
    let range = fill(&*log, 2).await;
    examine(&*log, range, |_| vec![old, new]);

    let past = |range: std::ops::Range<u64>| MatchBatch {
        scope: Scope::Trigger(new),
        matches: range.clone().map(|offset| (offset, smallvec![new, old])).collect(),
        ..batch(range)
    };
    log.record_matches(&past(2..6)).expect("these were examined before");
    log.record_matches(&past(2..6)).expect("again changes nothing");
    log.record_matches(&past(6..10)).expect("these were examined before");
    assert_eq!(log.matched(PARTITION), 12, "the shared reader's place is its own");
    assert!(log.record_matches(&past(12..13)).is_err(), "only what was examined before");

    assert_eq!(log.ledger(PARTITION, old).counts().matched, 12);
    assert_eq!(ledger.counts().matched, 10);
    assert_eq!(offsets(&take(&*log, &ledger, usize::MAX).await), (2..12).collect::<Vec<_>>());
}

pub(super) async fn a_trigger_starts_where_it_begins(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let trigger = log.trigger(&name("t"));
    let ledger = log.ledger(PARTITION, trigger);
    assert_eq!((ledger.trigger(), ledger.partition(), ledger.floor()), (trigger, PARTITION, None));
    ledger.begin(3);
    ledger.begin(1);
    assert_eq!(ledger.next(), 3, "it has a place");
    let range = fill(&*log, 5).await;
    examine(&*log, range, |_| vec![trigger]);
    assert_eq!(ledger.counts().matched, 2, "what is before its place is not its own");
    assert_eq!(offsets(&take(&*log, &ledger, usize::MAX).await), [3, 4]);
    ledger.begin(0);
    assert_eq!(ledger.next(), 5);
}

pub(super) async fn numbers_stay_with_their_triggers(bench: &dyn Bench) {
    let log = open(bench, Setup::default()).await;
    let (a, b) = (log.trigger(&name("a")), log.trigger(&name("b")));
    assert_ne!(a, b);
    assert_eq!((log.trigger(&name("a")), log.trigger(&name("b"))), (a, b));
    log.forget(a);
    assert_eq!(log.triggers(), [(b, name("b"))]);
    let again = log.trigger(&name("a"));
    assert!(again != a && again != b, "a number is never used again");
    let mut triggers = log.triggers();
    triggers.sort();
    assert_eq!(triggers, [(b, name("b")), (again, name("a"))]);
}

pub(super) async fn a_forgotten_trigger_is_owed_nothing(bench: &dyn Bench) {
    let (log, ledger) = owing(bench, Setup::default(), 6).await;
    let trigger = ledger.trigger();
    let taken = take(&*log, &ledger, 2).await;
    ledger.wait(&taken[0], crate::Timestamp(0)).expect("it waits");
    log.forget(trigger);

    let settled = ledger.settle(taken[1].position.offset, Settlement::Delivered, None);
    assert_eq!(settled, Ok(crate::Settled::Already), "what was under way changes nothing");
    assert!(ledger.due(crate::Timestamp(1), 10).is_empty());
    let owed = log.owed(PARTITION, trigger, 0, PLENTY).await.expect("it is readable");
    assert!(owed.entries.is_empty());
    assert_eq!(log.ledger(PARTITION, trigger).counts(), crate::Counts::default());
    assert_eq!(log.outcomes(Position { partition: PARTITION, offset: 3 }, trigger), None);

    let range = fill(&*log, 1).await;
    examine(&*log, range, |_| vec![trigger]);
    assert_eq!(log.ledger(PARTITION, trigger).counts(), crate::Counts::default());
    assert_eq!(log.usage().held_by, None);
}
