use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use smallvec::SmallVec;
use waypost_core::Event;
use waypost_core::manifest::ResourceName;

use super::*;
use crate::clock::Clock;
use crate::ledger::{DropReason, Settlement};
use crate::record::{Metadata, Record};
use crate::suite::{self, Bench, Setup, Step};
use crate::{DeadLetterReason, Log};

struct MemoryBench {
    partitions: u16,
}

#[async_trait]
impl Bench for MemoryBench {
    async fn open(&self, setup: Setup) -> Arc<dyn Log> {
        let Setup { clock, limit, history, retention } = setup;
        MemoryLog::new(MemoryOptions { partitions: self.partitions, limit, history, retention }, clock)
    }

    async fn reopen(&self) -> Option<Arc<dyn Log>> {
        None
    }
}

#[tokio::test]
async fn it_conforms_with_one_partition() {
    suite::all(&MemoryBench { partitions: 1 }).await;
}

#[tokio::test]
async fn it_conforms_with_three_partitions() {
    suite::all(&MemoryBench { partitions: 3 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_conforms_on_several_threads() {
    suite::all(&MemoryBench { partitions: 2 }).await;
}

fn step() -> impl Strategy<Value = Step> {
    let byte = any::<u8>;
    prop_oneof![
        4 => byte().prop_map(Step::Append),
        4 => (byte(), byte(), any::<u64>()).prop_map(|(a, b, c)| Step::Examine(a, b, c)),
        4 => (byte(), byte()).prop_map(|(a, b)| Step::Take(a, b)),
        2 => (byte(), byte()).prop_map(|(a, b)| Step::Fail(a, b)),
        3 => (byte(), byte(), byte()).prop_map(|(a, b, c)| Step::Wait(a, b, c)),
        3 => (byte(), byte(), byte()).prop_map(|(a, b, c)| Step::Due(a, b, c)),
        5 => (byte(), byte(), byte()).prop_map(|(a, b, c)| Step::Settle(a, b, c)),
        1 => byte().prop_map(Step::DropAll),
        2 => Just(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_walk_agrees_with_the_model(
        partitions in 1_u16..4,
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(suite::walk(&MemoryBench { partitions }, &steps));
    }
}

fn record(size: usize) -> Record {
    let event = Event::builder("1", "/memory", "t").data(vec![b'x'; size]).build().expect("a valid event");
    Record { metadata: Metadata::default(), event }
}

fn log(options: MemoryOptions) -> Arc<MemoryLog> {
    MemoryLog::new(options, Clock::from_fn(|| Timestamp(1)))
}

async fn examine(log: &MemoryLog, triggers: &[TriggerNumber]) {
    if log.plans().is_empty() {
        let plan = PlanRecord {
            version: PlanVersion(1),
            effective: vec![0],
            triggers: Vec::new(),
            body: Bytes::new(),
        };
        log.record_plan(plan).await.expect("the plan is recorded");
    }
    let (from, to) = (log.matched(0), log.bounds(0).end);
    let matches = (from..to).map(|offset| (offset, SmallVec::from_slice(triggers))).collect();
    let batch = MatchBatch { partition: 0, from, to, version: PlanVersion(1), scope: Scope::All, matches };
    log.record_matches(&batch).expect("the matches are recorded");
}

fn nothing_kept() -> MemoryOptions {
    MemoryOptions { history: 0, retention: Duration::ZERO, ..MemoryOptions::default() }
}

#[tokio::test]
async fn what_is_used_is_given_back_whoever_held_it() {
    let log = log(nothing_kept());
    let many: Vec<TriggerNumber> =
        (0..20).map(|number| log.trigger(&ResourceName::new("n", format!("t{number}")))).collect();
    for size in [10, 1_000, 100_000] {
        let _ = log.append(Batch::of([record(size), record(size)])).expect("there is room").await;
    }
    let appended = log.usage().used;
    assert!(appended > 2 * 101_010);
    examine(&log, &many).await;
    assert_eq!(log.usage().used, appended + 6 * 20 * 4, "long match lists count");

    let limit = ReadLimit { records: 100, bytes: usize::MAX };
    for (number, trigger) in many.iter().enumerate() {
        let ledger = log.ledger(0, *trigger);
        for entry in log.owed(0, *trigger, 0, limit).await.expect("it is readable").entries {
            assert!(ledger.take(&entry));
            if number == 0 {
                ledger.wait(&entry, Timestamp(5)).expect("it waits");
            }
        }
        if number > 1 {
            ledger.drop_all(DropReason::Operator, 6).expect("all is dropped");
        }
    }
    let reason = DeadLetterReason {
        code: waypost_core::codes::SUBSCRIBER_TIMEOUT,
        detail: "no".to_owned(),
        destination: String::new(),
        status: None,
        body_excerpt: None,
    };
    for offset in 0..6 {
        let settlement = Settlement::DeadLettered(reason.clone(), None);
        log.ledger(0, many[1]).settle(offset, settlement, None).expect("it is settled");
    }
    log.trim().await;
    assert_eq!(log.bounds(0).start, 6);
    assert!(log.usage().used > appended, "a schedule and the dead letters hold the events");
    let held = log.find("/memory", "1", 100).await.expect("it is searched");
    assert_eq!(held.len(), 6, "what is parked is found");

    log.ledger(0, many[0]).drop_all(DropReason::Operator, 6).expect("all is dropped");
    for letter in log.dead_letters().list(None, None, 100).await {
        assert_eq!(log.dead_letters().remove(letter.id), Ok(true));
    }
    assert_eq!(log.usage(), Usage { used: 0, limit: DEFAULT_LIMIT, held_by: None });
    assert!(matches!(log.fetch(held[0]).await, Err(ReadError::Trimmed { start: 6 })));
}

#[tokio::test]
async fn history_goes_first_when_the_limit_is_met() {
    let log = log(MemoryOptions { limit: 100_000, ..MemoryOptions::default() });
    for _ in 0..1_000 {
        let _ = log.append(Batch::of([record(1_000)])).expect("history makes room").await;
        examine(&log, &[]).await;
    }
    let bounds = log.bounds(0);
    assert_eq!(bounds.end, 1_000);
    assert!(bounds.start > 900 && bounds.end - bounds.start > 50, "{bounds:?}");
    assert!(log.usage().used <= 100_000);
}

#[tokio::test]
async fn history_is_bounded_by_bytes() {
    let log = log(MemoryOptions { history: 50_000, ..MemoryOptions::default() });
    for _ in 0..100 {
        let _ = log.append(Batch::of([record(1_000)])).expect("there is room").await;
    }
    examine(&log, &[]).await;
    log.trim().await;
    let used = log.usage().used;
    assert!((45_000..=50_000).contains(&used), "{used}");
}

#[tokio::test]
async fn a_trim_asks_each_trigger_about_each_record_once() {
    let log = log(nothing_kept());
    let (first, last) =
        (log.trigger(&ResourceName::new("n", "a")), log.trigger(&ResourceName::new("n", "b")));
    let _ = log.append(Batch::of([record(1)])).expect("there is room").await;
    examine(&log, &[last, first]).await;
    let take = |trigger| {
        let entry = log.partition(0).ring.lock().fetch(0).expect("it is there");
        assert!(log.ledger(0, trigger).take(&entry));
        log.ledger(0, trigger).settle(0, Settlement::Delivered, None).expect("it is settled");
    };
    take(first);
    log.trim().await;
    // Whoever is asked now says yes: it is the second, for the first has answered.
    let holder = log.partition(0).ring.lock().front_holder(|_, _| true);
    assert_eq!(holder, Some(last));
    take(last);
    log.trim().await;
    assert_eq!(log.bounds(0), Bounds { start: 1, end: 1 });
}

#[tokio::test]
async fn a_match_that_comes_late_holds_the_record_too() {
    let log = log(nothing_kept());
    let [late, first, last] = ["a", "b", "c"].map(|name| log.trigger(&ResourceName::new("n", name)));
    let _ = log.append(Batch::of([record(1)])).expect("there is room").await;
    examine(&log, &[first, last]).await;
    let settle = |trigger| {
        let entry = log.partition(0).ring.lock().fetch(0).expect("it is there");
        assert!(log.ledger(0, trigger).take(&entry));
        log.ledger(0, trigger).settle(0, Settlement::Delivered, None).expect("it is settled");
    };
    settle(first);
    log.trim().await;
    let matches = vec![(0, SmallVec::from_slice(&[late]))];
    let scope = Scope::Trigger(late);
    let batch = MatchBatch { partition: 0, from: 0, to: 1, version: PlanVersion(1), scope, matches };
    log.record_matches(&batch).expect("the match is recorded");
    settle(last);
    log.trim().await;
    assert_eq!(log.usage().held_by, Some(late));
    assert_eq!(log.bounds(0).start, 0);
    settle(late);
    log.trim().await;
    assert_eq!(log.bounds(0).start, 1);
}

/// Appending, matching, taking and settling on several threads at once: every count adds up at every look, and
/// nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_hold_under_concurrency() {
    const RECORDS: u64 = 2_000;
    let log = log(MemoryOptions { partitions: 1, ..nothing_kept() });
    let triggers: Vec<TriggerNumber> =
        (0..3).map(|number| log.trigger(&ResourceName::new("n", format!("t{number}")))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    let appender = Arc::clone(&log);
    tasks.spawn(async move {
        for _ in 0..RECORDS {
            let _ = appender.append(Batch::of([record(10)])).expect("there is room").await;
        }
    });
    let (reader, numbers) = (Arc::clone(&log), triggers.clone());
    tasks.spawn(async move {
        while reader.matched(0) < RECORDS {
            reader.wait_for(0, reader.matched(0)).await;
            examine(&reader, &numbers).await;
            reader.trim().await;
        }
    });
    for trigger in triggers.clone() {
        let log = Arc::clone(&log);
        tasks.spawn(async move {
            let ledger = log.ledger(0, trigger);
            let limit = ReadLimit { records: 10, bytes: usize::MAX };
            while ledger.counts().delivered < RECORDS {
                let owed = log.owed(0, trigger, ledger.next(), limit).await.expect("it is readable");
                for entry in owed.entries {
                    assert!(ledger.take(&entry));
                    assert!(ledger.counts().holds());
                    ledger.settle(entry.position.offset, Settlement::Delivered, None).expect("it is settled");
                }
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no task fails");
    }
    for trigger in triggers {
        assert!(!log.recount(0, trigger).differs());
        assert_eq!(log.ledger(0, trigger).counts().delivered, RECORDS);
    }
    log.trim().await;
    assert_eq!(log.usage().used, 0);
}
