//! What an engine makes of a log that an earlier one left.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use smallvec::SmallVec;
use waypost_core::filter::Filter;
use waypost_core::manifest::ResourceName;
use waypost_log::embedded::{EmbeddedOptions, EmbeddedStore, Retention};
use waypost_log::{Batch, MatchBatch, Offset, PlanRecord, PlanVersion, Scope};

use super::*;
use crate::matching::recorded;

const DURABLE: &str = "
apiVersion: waypost.dev/v1alpha1
kind: Broker
metadata: {name: b}
---";

const RETENTION: Retention = Retention { age: Duration::from_secs(3600), size: u64::MAX };

fn open(directory: &Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(EmbeddedOptions::new(directory), Clock::system())
        .expect("the directory can be opened")
}

/// An engine over a store that an earlier one left.
async fn start(store: &Arc<EmbeddedStore>, version: u64, hand: &str, more: &str) -> Stage {
    let engine = Engine::new(EngineOptions {
        clock: Clock::system(),
        limits: Limits::default(),
        store: Some(Arc::clone(store)),
        detached_retention: DEFAULT_DETACHED_RETENTION,
    });
    let mut stage = Stage { engine, plan: Plan::default(), version };
    stage.apply(&[DURABLE, &sink(hand), &trigger("t", hand, more)].concat()).await;
    stage
}

fn marked(id: u64) -> Record {
    let data = format!("mark {id:04} {}", "x".repeat(2_000));
    let event = Event::builder(id.to_string(), "/test", "t").data(data).build().expect("the event is valid");
    Record { metadata: Metadata::default(), event }
}

/// A log of ten records that all match trigger `t`. The first `examined` are told so; from `border` on a second plan
/// decides, which says the same. Then some records are damaged.
async fn left(directory: &Path, examined: Offset, border: Offset, damaged: Range<Offset>) {
    let (broker, name) = (ResourceName::new("default", "b"), ResourceName::new("default", "t"));
    let store = open(directory);
    let log = store.open_log(&broker, RETENTION).expect("it can be opened");
    let number = log.trigger(&name);
    for (version, effective) in [(1, 0), (2, border)] {
        let record = PlanRecord {
            version: PlanVersion(version),
            effective: vec![effective],
            triggers: vec![(number, name.clone())],
            body: recorded::write([(number, &Filter::Everything)], None),
        };
        log.record_plan(record).await.expect("the disk works");
    }
    for id in 0..10 {
        log.append(Batch::of([marked(id)])).expect("it is taken").await.expect("it is committed");
    }
    log.record_matches(&MatchBatch {
        partition: 0,
        from: 0,
        to: examined,
        version: PlanVersion(1),
        scope: Scope::All,
        matches: (0..examined).map(|offset| (offset, SmallVec::from_slice(&[number]))).collect(),
    })
    .expect("it is recorded");
    drop(log);
    store.close().await;
    drop(store);
    let files = std::fs::read_dir(directory.join("logs/default/b")).expect("the log is there");
    let files = files.map(|file| file.expect("it can be listed").path());
    for file in files.filter(|file| file.extension().is_some_and(|kind| kind == "log")) {
        let mut bytes = std::fs::read(&file).expect("it can be read");
        for id in damaged.clone() {
            let mark = format!("mark {id:04} ");
            let at = bytes.windows(mark.len()).position(|window| window == mark.as_bytes());
            bytes[at.expect("it is in the only segment")] ^= 1;
        }
        std::fs::write(&file, bytes).expect("it can be written");
    }
}

#[tokio::test]
async fn a_plan_that_takes_effect_within_what_is_lost_is_reached() {
    let directory = tempfile::tempdir().expect("there is room");
    left(directory.path(), 2, 5, 3..8).await;
    let store = open(directory.path());
    let name = ResourceName::new("default", "b");
    store.open_log(&name, RETENTION).expect("it can be opened");
    store.accept_damage(&name).expect("the disk works");
    let hand = Hand::takes_all("rhole");
    let stage = start(&store, 2, "rhole", "").await;
    let line =
        tokio::time::timeout(Duration::from_secs(30), stage.until("t", |line| line.delivered == 5)).await;
    assert_eq!(line.expect("the reader goes on").pending, 0);
    let mut sent = hand.sent();
    sent.sort();
    assert_eq!(sent, ["0", "1", "2", "8", "9"]);
    stage.shut_down().await;
}

#[tokio::test]
async fn what_a_full_backlog_gives_up_leaves_out_nothing_that_cannot_be_read() {
    let directory = tempfile::tempdir().expect("there is room");
    left(directory.path(), 10, 10, 2..4).await;
    let store = open(directory.path());
    let _hand = Hand::takes_all("rbacklog");
    let limited = "paused: true\ndelivery: {maxBacklog: {size: 8KiB, whenExceeded: drop}}";
    let stage = start(&store, 2, "rbacklog", limited).await;
    let line = tokio::time::timeout(Duration::from_secs(30), stage.until("t", |line| line.dropped > 0)).await;
    let line = line.expect("the limit is looked at");
    assert_eq!((line.matched, line.dead_lettered), (10, 2), "{line:?}");
    assert!(line.pending > 1 && line.pending < 6, "{line:?}");
    stage.shut_down().await;
}

#[tokio::test]
async fn what_cannot_be_recorded_at_first_drops_nothing() {
    let directory = tempfile::tempdir().expect("there is room");
    left(directory.path(), 10, 10, 0..0).await;
    let store = open(directory.path());
    let _hand = Hand::takes_all("rfailed");
    let changed = "paused: true\nstartFrom: earliest\nfilters: [{exact: {type: t}}]";
    // The log refuses a version that it has passed.
    let mut stage = start(&store, 0, "rfailed", changed).await;
    let text = [DURABLE, &sink("rfailed"), &trigger("t", "rfailed", changed)].concat();
    for failed in [true, false] {
        let status = stage.engine.status(&StatusQuery::default()).await;
        let broker = status.resources.iter().find(|line| line.kind == "Broker").expect("it is told of");
        assert_eq!(broker.reason == "PlanNotRecorded", failed, "{broker:?}");
        let line = stage.trigger("t").await;
        assert_eq!((line.matched, line.pending), (10, 10), "{line:?}");
        stage.version = 2;
        stage.apply(&text).await;
    }
    stage.shut_down().await;
}

#[tokio::test]
async fn a_broker_whose_recorded_plan_cannot_be_read_takes_nothing_and_matches_nothing() {
    let directory = tempfile::tempdir().expect("there is room");
    let name = ResourceName::new("default", "b");
    let store = open(directory.path());
    let log = store.open_log(&name, RETENTION).expect("it can be opened");
    let later = PlanRecord {
        version: PlanVersion(1),
        effective: vec![0],
        triggers: vec![(log.trigger(&ResourceName::new("default", "t")), ResourceName::new("default", "t"))],
        body: Bytes::from_static(br#"{"format": 99, "rules": "of a later version"}"#),
    };
    log.record_plan(later).await.expect("the disk works");
    let record = Record { metadata: Metadata::default(), event: event("1", "t") };
    log.append(Batch::of([record])).expect("it is taken").await.expect("it is committed");
    drop(log);
    store.close().await;
    drop(store);

    let hand = Hand::takes_all("runreadable");
    let store = open(directory.path());
    let stage = start(&store, 2, "runreadable", "").await;
    let engine = &stage.engine;
    assert!(engine.broker("default", "b").is_none());
    let unavailable = engine.unavailable("default", "b").expect("it is declared");
    assert_eq!(unavailable.code(), codes::LOG_VERSION_UNKNOWN);
    let status = engine.status(&StatusQuery::default()).await;
    let broker = status.resources.iter().find(|line| line.kind == "Broker").expect("it is told of");
    assert!(!broker.ready && broker.reason == codes::LOG_VERSION_UNKNOWN.id(), "{broker:?}");
    assert!(broker.message.contains("plan 1"), "{broker:?}");
    assert_eq!(hand.sent(), [] as [String; 0]);
    engine.shutdown(Instant::now() + Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_batch_that_the_end_of_the_process_cut_goes_out_again_as_it_was() {
    let directory = tempfile::tempdir().expect("there is room");
    let manifests = |hand: &str, batch: usize| {
        let settings = format!("{{hand: {hand}, batch: {batch}, unity: atomic}}");
        let sink = sink("out").replace("{hand: out}", &settings);
        [DURABLE, &sink, &trigger("t", "out", "delivery: {deadline: PT2S}")].concat()
    };
    let before = Hand::takes_all("rcut");
    before.shut();
    let store = open(directory.path());
    let options = |store: &Arc<EmbeddedStore>| EngineOptions {
        clock: Clock::system(),
        limits: Limits::default(),
        store: Some(Arc::clone(store)),
        detached_retention: DEFAULT_DETACHED_RETENTION,
    };
    let mut stage = Stage { engine: Engine::new(options(&store)), plan: Plan::default(), version: 1 };
    stage.apply(&manifests("rcut", 4)).await;
    let started = |line: &crate::ResourceStatus| line.kind == "Sink" && line.ready;
    while !stage.engine.status(&StatusQuery::default()).await.resources.iter().any(started) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.publish("b", 0..9).await;
    stage.until("t", |line| line.matched == 9 && before.at_once().0 == 1).await;
    let cut = before.begun();
    assert_eq!(cut, [["0", "1", "2", "3"]]);
    // Longer than until its deadline.
    let left = stage.engine.shutdown(Instant::now() + Duration::from_secs(4)).await;
    assert_eq!(left, [] as [String; 0], "what hangs is cut");
    store.close().await;

    // The sink would take more at once now, and the deadline has come: but it may have these already.
    let after = Hand::takes_all("rcut2");
    let directory = replay::copied(directory.path());
    let store = open(directory.path());
    let mut stage = Stage { engine: Engine::new(options(&store)), plan: Plan::default(), version: 2 };
    stage.apply(&manifests("rcut2", 100)).await;
    let line = stage.until("t", |line| line.pending == 0).await;
    assert_eq!(after.begun(), cut);
    assert_eq!((line.delivered, line.dropped), (4, 5), "{line:?}");
    stage.shut_down().await;
}
