//! Where the logs of brokers come from.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use waypost_core::Code;
use waypost_core::codes;
use waypost_core::manifest::ResourceName;
use waypost_log::embedded::{EmbeddedStore, KeptChange, OpenError, Retention};
use waypost_log::memory::{MemoryLog, MemoryOptions};
use waypost_log::{Clock, Durability, Log, Offset, PlanVersion, TriggerNumber, WriteError};

use crate::matching::recorded::UnreadableRecord;
use crate::plan::{BrokerPlan, LogKind};

/// Opens logs, and tells of their damage.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    clock: Clock,
    /// The bytes that one log in memory may hold.
    memory_bytes: u64,
    /// None where all logs are in memory.
    store: Option<Arc<EmbeddedStore>>,
}

/// Why the log of a broker cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unopened {
    /// The stable code.
    pub(crate) code: Code,
    /// Why, for people.
    pub(crate) reason: String,
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A part of the log that is still to be matched for a trigger that starts in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PastRange {
    pub(crate) partition: u16,
    pub(crate) from: Offset,
    /// The offset after the last.
    pub(crate) to: Offset,
}

/// The past in which one trigger started, and what of it is still to be matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotedPast {
    trigger: u32,
    version: u64,
    /// All of it: what is told again when match lists are lost.
    pub(crate) all: Vec<PastRange>,
    /// What an earlier process did not come to the end of.
    pub(crate) left: Vec<PastRange>,
    /// The filter of a replay, which is in no plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<serde_json::Value>,
}

impl NotedPast {
    pub(crate) fn new(trigger: TriggerNumber, version: PlanVersion, all: Vec<PastRange>) -> Self {
        Self { trigger: trigger.0, version: version.0, left: all.clone(), all, filter: None }
    }

    /// The range of a replay, which has a filter of its own.
    pub(crate) fn of_replay(
        trigger: TriggerNumber,
        version: PlanVersion,
        all: Vec<PastRange>,
        filter: serde_json::Value,
    ) -> Self {
        Self { filter: Some(filter), ..Self::new(trigger, version, all) }
    }

    /// The filter of a replay; none where the plan of its version has it.
    pub(crate) fn own_filter(&self) -> Option<&serde_json::Value> {
        self.filter.as_ref()
    }

    /// Has what is left matched under this plan.
    pub(crate) fn set_version(&mut self, version: PlanVersion) {
        self.version = version.0;
    }

    pub(crate) fn trigger(&self) -> TriggerNumber {
        TriggerNumber(self.trigger)
    }

    /// The plan whose filter matches it.
    pub(crate) fn version(&self) -> PlanVersion {
        PlanVersion(self.version)
    }
}

/// Where the pasts of triggers are kept.
const PAST: &str = "past/";

impl From<UnreadableRecord> for Unopened {
    fn from(error: UnreadableRecord) -> Self {
        Self { code: codes::LOG_VERSION_UNKNOWN, reason: error.to_string() }
    }
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        Self { code: error.code(), reason: error.to_string() }
    }
}

impl Logs {
    pub(crate) fn new(clock: Clock, memory_bytes: u64, store: Option<Arc<EmbeddedStore>>) -> Self {
        Self { clock, memory_bytes, store }
    }

    /// Opens the log of a broker, as an earlier process left it where it is durable. It may take a while: what blocks
    /// runs apart from the runtime's threads.
    pub(crate) async fn open(
        &self,
        name: &ResourceName,
        planned: &BrokerPlan,
    ) -> Result<Arc<dyn Log>, Unopened> {
        let store = match (planned.log, &self.store) {
            (LogKind::Embedded, Some(store)) => Arc::clone(store),
            (LogKind::Memory, _) | (LogKind::Embedded, None) => {
                let options = MemoryOptions {
                    limit: self.memory_bytes,
                    retention: planned.retention,
                    ..MemoryOptions::default()
                };
                return Ok(MemoryLog::new(options, self.clock.clone()));
            }
        };
        let retention = retention_of(planned);
        let name = name.clone();
        let opening = tokio::task::spawn_blocking(move || store.open_log(&name, retention));
        match opening.await {
            Ok(opened) => Ok(opened?),
            Err(error) => Err(Unopened {
                code: codes::LOG_FAILED,
                reason: format!("opening the log panicked ({error}); please report this"),
            }),
        }
    }

    /// Takes over what a changed manifest says about the log of a broker.
    pub(crate) fn set_retention(&self, name: &ResourceName, planned: &BrokerPlan) {
        if let (LogKind::Embedded, Some(store)) = (planned.log, &self.store) {
            store.set_retention(name, retention_of(planned));
        }
    }

    /// Notes a trigger's past, durably and after all matches that were recorded before. Nothing is noted where nothing
    /// survives the process anyway.
    pub(crate) async fn note_past(
        &self,
        log: &dyn Log,
        broker: &ResourceName,
        trigger: &ResourceName,
        past: &NotedPast,
    ) -> Result<(), WriteError> {
        if log.durability() == Durability::Memory {
            return Ok(());
        }
        let value = serde_json::to_vec(past).expect("numbers can be written");
        self.keep(vec![(past_name(broker, trigger), Some(value))]).await
    }

    /// The pasts in which triggers of the broker started.
    pub(crate) fn noted_pasts(
        &self,
        log: &dyn Log,
        broker: &ResourceName,
    ) -> Result<Vec<NotedPast>, Unopened> {
        let Some(store) = self.store.as_ref().filter(|_| log.durability() != Durability::Memory) else {
            return Ok(Vec::new());
        };
        let read = |(name, value): (String, Vec<u8>)| read_past(&name, &value);
        store.kept(&past_of(broker))?.into_iter().map(read).collect()
    }

    /// The past of one trigger of the broker. Blocks.
    pub(crate) fn noted_past(
        &self,
        log: &dyn Log,
        broker: &ResourceName,
        trigger: &ResourceName,
    ) -> Result<Option<NotedPast>, Unopened> {
        if log.durability() == Durability::Memory {
            return Ok(None);
        }
        let name = past_name(broker, trigger);
        let found = self.kept(&name)?.into_iter().find(|(known, _)| *known == name);
        found.map(|(name, value)| read_past(&name, &value)).transpose()
    }

    /// What was kept under names that begin with `prefix`. Nothing where nothing survives the process. Blocks.
    pub(crate) fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, OpenError> {
        self.store.as_ref().map_or_else(|| Ok(Vec::new()), |store| store.kept(prefix))
    }

    /// Deletes the log of a broker for good.
    pub(crate) async fn forget(&self, name: &ResourceName) -> Result<(), WriteError> {
        match &self.store {
            Some(store) => store.forget_log(name).await,
            None => Ok(()),
        }
    }

    /// Changes what is kept for a later process. Nothing where nothing is.
    pub(crate) async fn keep(&self, changes: Vec<KeptChange>) -> Result<(), WriteError> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        let kept = tokio::task::spawn_blocking(move || store.keep(&changes)).await;
        kept.unwrap_or_else(|error| Err(WriteError::Failed { reason: format!("a write panicked: {error}") }))
    }

    /// Whether the storage failed: then no log on disk takes anything until the process is started again.
    pub(crate) fn have_failed(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.poisoned().borrow().is_some())
    }

    /// What is damaged in the log of a broker, in sentences. Nothing where it is in memory.
    pub(crate) fn damage(&self, name: &ResourceName) -> Vec<String> {
        self.store.as_ref().map_or_else(Vec::new, |store| store.damage(name))
    }

    /// Passes over what is damaged in the log of a broker from now on. Blocks.
    pub(crate) fn accept_damage(&self, name: &ResourceName) -> Result<(), WriteError> {
        self.store.as_ref().map_or(Ok(()), |store| store.accept_damage(name))
    }
}

fn retention_of(planned: &BrokerPlan) -> Retention {
    Retention { age: planned.retention, size: planned.retention_bytes.unwrap_or(u64::MAX) }
}

fn read_past(name: &str, value: &[u8]) -> Result<NotedPast, Unopened> {
    serde_json::from_slice(value).map_err(|error| Unopened {
        code: codes::LOG_VERSION_UNKNOWN,
        reason: format!("{name} cannot be read by this version: {error}; use the version that wrote it"),
    })
}

/// The name under which a trigger's past is kept.
pub(crate) fn past_name(broker: &ResourceName, trigger: &ResourceName) -> String {
    format!("{}{trigger}", past_of(broker))
}

fn past_of(broker: &ResourceName) -> String {
    format!("{PAST}{broker}/")
}
