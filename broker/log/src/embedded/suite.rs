use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use proptest::prelude::*;
use smallvec::SmallVec;
use waypost_core::Event;
use waypost_core::manifest::ResourceName;

use super::disk::simulated::{Loss, SimulatedDisk};
use super::disk::{Disk, SystemDisk};
use super::*;
use crate::Log;
use crate::ledger::Settlement;
use crate::log::{MatchBatch, PlanRecord, PlanVersion, ReadLimit, Scope, TriggerNumber};
use crate::record::{Batch, Metadata, Record};
use crate::suite::{self, Bench, Setup, Step};

mod crash;
mod damage;
mod ends;
mod full;
mod letters;
mod load;
mod lost;
mod prefix;
mod stage;
mod verify;

/// Opens logs on one disk.
struct EmbeddedBench {
    /// None: a new simulated disk for each log.
    directory: Option<tempfile::TempDir>,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    setup: Setup,
    store: Arc<EmbeddedStore>,
}

impl EmbeddedBench {
    fn simulated() -> Self {
        Self { directory: None, opened: Mutex::new(None) }
    }

    fn on_the_system() -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        Self { directory: Some(directory), opened: Mutex::new(None) }
    }
}

fn name() -> ResourceName {
    ResourceName::new("suite", "broker")
}

fn open_store(disk: &Arc<dyn Disk>, directory: &Path, setup: &Setup) -> Arc<EmbeddedStore> {
    let limit = Some(setup.limit);
    let options = EmbeddedOptions { limit, ring_bytes: 16 * 1024, ..EmbeddedOptions::new(directory) };
    EmbeddedStore::open_on(Arc::clone(disk), options, setup.clock.clone())
        .expect("the directory can be opened")
}

fn open_broker(store: &EmbeddedStore, setup: &Setup) -> Arc<dyn Log> {
    let retention = Retention { age: setup.retention, size: setup.history };
    store.open_log(&name(), retention).expect("the log can be opened")
}

#[async_trait]
impl Bench for EmbeddedBench {
    async fn open(&self, setup: Setup) -> Arc<dyn Log> {
        let (disk, directory): (Arc<dyn Disk>, PathBuf) = match &self.directory {
            None => (Arc::new(SimulatedDisk::new()), PathBuf::from("/data")),
            Some(directory) => {
                let fresh = tempfile::tempdir_in(directory.path()).expect("there is room for a directory");
                (Arc::new(SystemDisk), fresh.keep())
            }
        };
        let store = open_store(&disk, &directory, &setup);
        let log = open_broker(&store, &setup);
        *self.opened.lock() = Some(Opened { disk, directory, setup, store });
        log
    }

    async fn reopen(&self) -> Option<Arc<dyn Log>> {
        let Opened { disk, directory, setup, store } = self.opened.lock().take()?;
        store.close().await;
        drop(store);
        let store = open_store(&disk, &directory, &setup);
        let log = open_broker(&store, &setup);
        *self.opened.lock() = Some(Opened { disk, directory, setup, store });
        Some(log)
    }
}

#[tokio::test]
async fn it_conforms() {
    suite::all(&EmbeddedBench::simulated()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_a_real_disk() {
    suite::all(&EmbeddedBench::on_the_system()).await;
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
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn every_walk_agrees_with_the_model(steps in proptest::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(suite::walk(&EmbeddedBench::simulated(), &steps));
    }
}

/// Appending, matching, taking, settling, flushing and trimming on several threads at once: every count adds up at
/// every look, nothing is lost, and a new process finds it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_hold_under_concurrency() {
    const RECORDS: u64 = 2_000;
    let bench = EmbeddedBench::simulated();
    let setup = Setup { retention: std::time::Duration::ZERO, ..Setup::default() };
    let log = bench.open(setup).await;
    let triggers: Vec<TriggerNumber> =
        (0..3).map(|number| log.trigger(&ResourceName::new("n", format!("t{number}")))).collect();
    let plan =
        PlanRecord { version: PlanVersion(1), effective: vec![0], triggers: Vec::new(), body: "p".into() };
    log.record_plan(plan).await.expect("it is recorded");
    let mut tasks = tokio::task::JoinSet::new();
    let appender = Arc::clone(&log);
    tasks.spawn(async move {
        for id in 0..RECORDS {
            let event = Event::builder(id.to_string(), "/s", "t").data(vec![b'x'; 1_000]).build();
            let record = Record { metadata: Metadata::default(), event: event.expect("a valid event") };
            let commit = appender.append(Batch::of([record])).expect("there is room");
            if id % 50 == 0 {
                commit.await.expect("it is durable");
            }
        }
    });
    let (reader, numbers) = (Arc::clone(&log), triggers.clone());
    tasks.spawn(async move {
        while reader.matched(0) < RECORDS {
            let from = reader.matched(0);
            reader.wait_for(0, from).await;
            let to = reader.bounds(0).end;
            let matches = (from..to).map(|offset| (offset, SmallVec::from_slice(&numbers))).collect();
            let (version, scope) = (PlanVersion(1), Scope::All);
            let batch = MatchBatch { partition: 0, from, to, version, scope, matches };
            reader.record_matches(&batch).expect("the matches are recorded");
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
    log.close().await;
    drop(log);
    let log = bench.reopen().await.expect("it is there again");
    for trigger in triggers {
        assert!(!log.recount(0, trigger).differs());
        assert_eq!(log.ledger(0, trigger).counts().delivered, RECORDS);
    }
    log.trim().await;
    assert!(log.bounds(0).start > 0, "what nobody is owed is given up");
}

#[tokio::test]
async fn what_is_reserved_is_kept_although_nobody_is_owed_it() {
    const RECORDS: u64 = 2_000;
    let bench = EmbeddedBench::simulated();
    let setup = Setup { retention: std::time::Duration::ZERO, ..Setup::default() };
    let log = bench.open(setup).await;
    let ledger = log.ledger(0, log.trigger(&ResourceName::new("n", "t")));
    let version = PlanVersion(1);
    let plan = PlanRecord { version, effective: vec![0], triggers: Vec::new(), body: "p".into() };
    log.record_plan(plan).await.expect("it is recorded");
    for id in 0..RECORDS {
        let event = Event::builder(id.to_string(), "/s", "t").data(vec![b'x'; 1_000]).build();
        let record = Record { metadata: Metadata::default(), event: event.expect("a valid event") };
        let commit = log.append(Batch::of([record])).expect("there is room");
        if id % 50 == 0 || id == RECORDS - 1 {
            commit.await.expect("it is durable");
        }
    }
    let batch =
        MatchBatch { partition: 0, from: 0, to: RECORDS, version, scope: Scope::All, matches: Vec::new() };
    log.record_matches(&batch).expect("that nothing matches is recorded");
    let start_with = async |reserved: Option<u64>| {
        ledger.reserve(reserved);
        log.trim().await;
        log.bounds(0).start
    };
    assert_eq!(start_with(Some(0)).await, 0);
    let start = start_with(Some(RECORDS / 2)).await;
    assert!(start > 0 && start <= RECORDS / 2, "{start}");
    assert!(start_with(None).await > RECORDS / 2);
}

#[test]
fn names_stand_for_directories_and_back() {
    for name in ["a", "a-b.c", "..", "a/b", "Ä%", "", "%", "a.", "con%2e"] {
        let escaped = escape(name);
        assert!(!escaped.contains('/') && !escaped.starts_with('.') && !escaped.is_empty(), "{escaped}");
        assert_eq!(unescape(&escaped), name);
    }
}

#[test]
fn a_directory_is_used_once_at_a_time() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let open = || EmbeddedStore::open(EmbeddedOptions::new(directory.path()), Clock::system());
    let first = open().expect("it is free");
    let error = open().expect_err("it is in use");
    assert_eq!(error, OpenError::InUse { directory: directory.path().to_owned() });
    assert_eq!(error.code(), codes::DATA_DIRECTORY_LOCKED);
    drop(first);
    open().expect("it is free again");
}

#[test]
fn a_later_version_is_refused() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let later = format!("waypost data {}", DATA_VERSION + 1);
    std::fs::write(directory.path().join("VERSION"), format!("{later}\n")).expect("there is room");
    let error = EmbeddedStore::open(EmbeddedOptions::new(directory.path()), Clock::system());
    let error = error.expect_err("it is of a later version");
    assert!(matches!(&error, OpenError::Version { found, .. } if *found == later), "{error}");
}
