use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use proptest::prelude::*;
use waypost_core::manifest::ResourceName;

use super::disk::simulated::{Loss, SimulatedDisk};
use super::disk::{Disk, SystemDisk};
use super::*;
use crate::Log;
use crate::suite::{self, Bench, Setup, Step};

mod crash;
mod damage;

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
    assert_eq!(error.code(), codes::LOG_IN_USE);
    drop(first);
    open().expect("it is free again");
}

#[test]
fn a_later_version_is_refused() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    std::fs::write(directory.path().join("VERSION"), "waypost data 2\n").expect("there is room");
    let error = EmbeddedStore::open(EmbeddedOptions::new(directory.path()), Clock::system());
    let error = error.expect_err("it is of a later version");
    assert!(matches!(&error, OpenError::Version { found, .. } if found == "waypost data 2"), "{error}");
}
