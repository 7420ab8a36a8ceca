//! What the rules have in common: logs with records, triggers and debts.

use std::sync::Arc;

use smallvec::SmallVec;
use waypost_core::manifest::ResourceName;
use waypost_core::{Event, codes};

use crate::clock::Timestamp;
use crate::dead_letter::DeadLetterReason;
use crate::ledger::{Attempt, AttemptOutcome, Ledger};
use crate::log::{Log, MatchBatch, PlanRecord, PlanVersion, ReadLimit, Scope, TriggerNumber};
use crate::record::{Batch, Entry, Metadata, Offset, Record};
use crate::suite::{Bench, Setup};

/// The partition that rules of a single partition look at.
pub(super) const PARTITION: u16 = 0;
/// The plan under which the rules match.
pub(super) const PLAN: PlanVersion = PlanVersion(1);
/// No limit that a rule would meet.
pub(super) const PLENTY: ReadLimit = ReadLimit { records: 1_000_000, bytes: usize::MAX };
/// How many appends may go elsewhere before one must have come to a partition, for each partition.
const PATIENCE: usize = 64;

pub(super) fn record(id: impl ToString + Copy) -> Record {
    record_of(id, 16)
}

pub(super) fn record_of(id: impl ToString + Copy, size: usize) -> Record {
    let event = Event::builder(id.to_string(), "/suite", "suite.record").data(vec![b'x'; size]).build();
    Record { metadata: Metadata::default(), event: event.expect("the suite's event is valid") }
}

pub(super) fn name(name: &str) -> ResourceName {
    ResourceName::new("suite", name)
}

/// A log with plan 1 in force from the start.
pub(super) async fn open(bench: &dyn Bench, setup: Setup) -> Arc<dyn Log> {
    let log = bench.open(setup).await;
    log.record_plan(plan(&*log, 1)).await.expect("the first plan is recorded");
    log
}

pub(super) fn plan(log: &dyn Log, version: u64) -> PlanRecord {
    let effective = (0..log.partitions()).map(|partition| log.bounds(partition).end).collect();
    PlanRecord {
        version: PlanVersion(version),
        effective,
        triggers: Vec::new(),
        body: bytes::Bytes::from_static(b"plan"),
    }
}

/// Appends one record alone and says where it stands.
pub(super) async fn append(log: &dyn Log, record: Record) -> crate::record::Position {
    let commit = log.append(Batch::of([record])).expect("there is room");
    commit.await.expect("the batch is durable").first
}

/// Appends records, each alone, until [`PARTITION`] has `count` more, and gives the range of those.
pub(super) async fn fill(log: &dyn Log, count: u64) -> std::ops::Range<Offset> {
    let from = log.bounds(PARTITION).end;
    for _ in 0..usize::from(log.partitions()) * PATIENCE * usize::try_from(count).expect("a small number") {
        let end = log.bounds(PARTITION).end;
        if end == from + count {
            return from..end;
        }
        append(log, record(end)).await;
    }
    panic!("no batch comes to partition {PARTITION}");
}

/// Says of each offset in a range of [`PARTITION`] which triggers match it.
pub(super) fn examine(
    log: &dyn Log,
    range: std::ops::Range<Offset>,
    matching: impl Fn(Offset) -> Vec<TriggerNumber>,
) {
    let matches = range.clone().map(|offset| (offset, SmallVec::from_vec(matching(offset))));
    let batch = MatchBatch {
        partition: PARTITION,
        from: range.start,
        to: range.end,
        version: PLAN,
        scope: Scope::All,
        matches: matches
            .filter(|(_, triggers): &(_, SmallVec<[TriggerNumber; 4]>)| !triggers.is_empty())
            .collect(),
    };
    log.record_matches(&batch).expect("the matches are recorded");
}

/// A log in which one trigger is owed `count` records of [`PARTITION`].
pub(super) async fn owing(bench: &dyn Bench, setup: Setup, count: u64) -> (Arc<dyn Log>, Arc<Ledger>) {
    let log = open(bench, setup).await;
    let trigger = log.trigger(&name("t"));
    let range = fill(&*log, count).await;
    examine(&*log, range, |_| vec![trigger]);
    let ledger = log.ledger(PARTITION, trigger);
    (log, ledger)
}

/// Takes what a trigger is owed, up to `limit`.
pub(super) async fn take(log: &dyn Log, ledger: &Ledger, limit: usize) -> Vec<Arc<Entry>> {
    let page = ReadLimit { records: limit, ..PLENTY };
    let owed = log
        .owed(ledger.partition(), ledger.trigger(), ledger.next(), page)
        .await
        .expect("debts are readable");
    for entry in &owed.entries {
        assert!(ledger.take(entry), "{} is owed and cannot be taken", entry.position);
    }
    owed.entries
}

pub(super) fn failed(number: u32) -> Attempt {
    let outcome = AttemptOutcome::Failed {
        code: codes::SUBSCRIBER_STATUS_RETRYABLE,
        status: Some(503),
        detail: format!("attempt {number} failed"),
        body_excerpt: Some(bytes::Bytes::from_static(b"busy")),
    };
    Attempt { number, started: Timestamp(1), ended: Timestamp(2), outcome }
}

pub(super) fn delivered(number: u32) -> Attempt {
    let outcome = AttemptOutcome::Delivered { status: Some(202) };
    Attempt { number, started: Timestamp(3), ended: Timestamp(4), outcome }
}

pub(super) fn given_up() -> DeadLetterReason {
    DeadLetterReason {
        code: codes::SUBSCRIBER_STATUS_PERMANENT,
        detail: "the subscriber refused it".to_owned(),
        destination: "http://subscriber".to_owned(),
        status: Some(400),
        body_excerpt: None,
    }
}

pub(super) fn offsets(entries: &[Arc<Entry>]) -> Vec<Offset> {
    entries.iter().map(|entry| entry.position.offset).collect()
}

/// Whether a future is not ready, having been polled and everyone else having had a turn.
pub(super) async fn pends(future: std::pin::Pin<&mut (impl Future<Output = ()> + ?Sized)>) -> bool {
    tokio::select! {
        biased;
        () = future => false,
        () = tokio::task::yield_now() => true,
    }
}
