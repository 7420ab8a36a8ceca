//! What the rules of this backend have in common: a store on a simulated disk, and a log that owes something.

use smallvec::SmallVec;
use waypost_core::Event;

use super::*;
use crate::ledger::{Attempt, AttemptOutcome, Ledger};
use crate::log::{MatchBatch, PlanRecord, PlanVersion, ReadLimit, Scope, TriggerNumber};
use crate::record::{Batch, Metadata, Offset, Record};
use crate::{DeadLetterReason, Timestamp};

/// No limit that a rule would meet.
pub(super) const PLENTY: ReadLimit = ReadLimit { records: 1_000_000, bytes: usize::MAX };
/// The bytes that a store may take.
pub(super) const LIMIT: u64 = 64 * 1024 * 1024;

/// A store with one log, open.
pub(super) struct Stage {
    pub(super) disk: SimulatedDisk,
    pub(super) store: Arc<EmbeddedStore>,
    pub(super) log: Arc<dyn Log>,
}

impl Stage {
    /// Opens what is on the disk. Nothing that is owed to nobody is given up, unless `retention` says so.
    pub(super) fn open_with(disk: &SimulatedDisk, retention: Retention) -> Result<Self, OpenError> {
        let on: Arc<dyn Disk> = Arc::new(disk.clone());
        let options =
            EmbeddedOptions { limit: Some(LIMIT), ring_bytes: 4096, ..EmbeddedOptions::new("/data") };
        let store = EmbeddedStore::open_on(on, options, Setup::default().clock)?;
        let log = store.open_log(&name(), retention)?;
        Ok(Self { disk: disk.clone(), store, log })
    }

    pub(super) fn open(disk: &SimulatedDisk) -> Self {
        let retention = Retention { age: std::time::Duration::MAX, size: u64::MAX };
        Self::open_with(disk, retention).expect("the directory can be opened")
    }

    /// The process ends as it is, and another one begins.
    pub(super) fn kill(self) -> Self {
        let Self { disk, store, log } = self;
        drop((store, log));
        Self::open(&disk)
    }

    /// The process ends as it should, and another one begins.
    pub(super) async fn restart(self) -> Self {
        let Self { disk, store, log } = self;
        store.close().await;
        drop((store, log));
        Self::open(&disk)
    }

    /// The power goes, and comes back.
    pub(super) fn lose_power(self) -> Self {
        let disk = self.disk.after_power_loss(Loss::All);
        drop(self);
        Self::open(&disk)
    }

    /// Writes everything out, the checkpoint with it.
    pub(super) fn flush(&self) {
        self.store.shared.round(true).expect("the disk works");
    }

    pub(super) fn trigger(&self, trigger: &str) -> TriggerNumber {
        self.log.trigger(&ResourceName::new("suite", trigger))
    }

    pub(super) fn ledger(&self, trigger: &str) -> Arc<Ledger> {
        self.log.ledger(0, self.trigger(trigger))
    }

    /// Puts plan 1 in force, where none is.
    pub(super) async fn plan(&self, triggers: &[&str]) {
        if !self.log.plans().is_empty() {
            return;
        }
        let triggers =
            triggers.iter().map(|name| (self.trigger(name), ResourceName::new("suite", *name))).collect();
        let (version, effective) = (PlanVersion(1), vec![self.log.bounds(0).end]);
        let plan = PlanRecord { version, effective, triggers, body: "plan".into() };
        self.log.record_plan(plan).await.expect("the plan is recorded");
    }

    /// Appends so many records in one batch, and says that each matches these triggers.
    pub(super) async fn owe(&self, triggers: &[&str], count: u64, size: usize) {
        self.plan(triggers).await;
        let end = self.log.bounds(0).end;
        let batch = Batch::of((end..end + count).map(|id| record(&id.to_string(), size)));
        self.log.append(batch).expect("there is room").await.expect("it is durable");
        self.examine(triggers, self.log.matched(0)..end + count, Scope::All);
    }

    /// Says that each record in a range matches these triggers.
    pub(super) fn examine(&self, triggers: &[&str], range: std::ops::Range<Offset>, scope: Scope) {
        self.try_examine(triggers, range, scope).expect("the matches are recorded");
    }

    pub(super) fn try_examine(
        &self,
        triggers: &[&str],
        range: std::ops::Range<Offset>,
        scope: Scope,
    ) -> Result<(), WriteError> {
        let triggers: SmallVec<[TriggerNumber; 4]> = triggers.iter().map(|name| self.trigger(name)).collect();
        let matches = range.clone().map(|offset| (offset, triggers.clone())).collect();
        let (from, to) = (range.start, range.end);
        let batch = MatchBatch { partition: 0, from, to, version: PlanVersion(1), scope, matches };
        self.log.record_matches(&batch)
    }

    /// Takes at most so many of what is owed.
    pub(super) async fn take(&self, trigger: &str, records: usize) -> Vec<Arc<crate::Entry>> {
        let ledger = self.ledger(trigger);
        let limit = ReadLimit { records, ..PLENTY };
        let owed = self.log.owed(0, ledger.trigger(), ledger.next(), limit).await;
        let entries = owed.expect("debts are readable").entries;
        entries.into_iter().filter(|entry| ledger.take(entry)).collect()
    }
}

pub(super) fn record(id: &str, size: usize) -> Record {
    let event = Event::builder(id, "/suite", "t").data(vec![b'x'; size]).build().expect("a valid event");
    Record { metadata: Metadata::default(), event }
}

pub(super) fn failed(number: u32) -> Attempt {
    let outcome = AttemptOutcome::Failed {
        code: codes::SUBSCRIBER_TIMEOUT,
        status: None,
        detail: "no answer".to_owned(),
        body_excerpt: None,
    };
    Attempt { number, started: Timestamp(1), ended: Timestamp(2), outcome }
}

pub(super) fn delivered(number: u32) -> Attempt {
    Attempt { outcome: AttemptOutcome::Delivered { status: None }, ..failed(number) }
}

pub(super) fn given_up() -> DeadLetterReason {
    DeadLetterReason {
        code: codes::SUBSCRIBER_TIMEOUT,
        detail: "no answer".to_owned(),
        destination: "http://subscriber".to_owned(),
        status: None,
        body_excerpt: None,
    }
}
