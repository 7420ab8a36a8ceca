//! What an engine makes of a log that an earlier one left.

use bytes::Bytes;
use waypost_core::manifest::ResourceName;
use waypost_log::embedded::{EmbeddedOptions, EmbeddedStore, Retention};
use waypost_log::{Batch, PlanRecord, PlanVersion};

use super::*;

const DURABLE: &str = "
apiVersion: waypost.dev/v1alpha1
kind: Broker
metadata: {name: b}
---";

fn open(directory: &std::path::Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(EmbeddedOptions::new(directory), Clock::system())
        .expect("the directory can be opened")
}

#[tokio::test]
async fn a_broker_whose_recorded_plan_cannot_be_read_takes_nothing_and_matches_nothing() {
    let directory = tempfile::tempdir().expect("there is room");
    let name = ResourceName::new("default", "b");
    let store = open(directory.path());
    let retention = Retention { age: Duration::from_secs(3600), size: u64::MAX };
    let log = store.open_log(&name, retention).expect("it can be opened");
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
    let engine = Engine::new(EngineOptions {
        clock: Clock::system(),
        limits: Limits::default(),
        store: Some(Arc::clone(&store)),
        detached_retention: DEFAULT_DETACHED_RETENTION,
    });
    let text = [DURABLE, &sink("runreadable"), &trigger("t", "runreadable", "")].concat();
    let manifests = Manifests { files: vec![ManifestFile::read("test.yaml", text.as_bytes())] };
    engine.apply(plan(&manifests, &REGISTRY, None, 2), 2).await;
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
