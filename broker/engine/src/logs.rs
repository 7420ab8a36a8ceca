//! Where the logs of brokers come from.

use std::fmt;
use std::sync::Arc;

use waypost_core::Code;
use waypost_core::codes;
use waypost_core::manifest::ResourceName;
use waypost_log::embedded::{EmbeddedStore, OpenError, Retention};
use waypost_log::memory::{MemoryLog, MemoryOptions};
use waypost_log::{Clock, Log, WriteError};

use crate::plan::{BrokerPlan, LogKind};

/// Opens logs, and tells of their damage.
#[derive(Debug)]
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
        let retention = Retention { age: planned.retention, size: u64::MAX };
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

    /// What is damaged in the log of a broker, in sentences. Nothing where it is in memory.
    pub(crate) fn damage(&self, name: &ResourceName) -> Vec<String> {
        self.store.as_ref().map_or_else(Vec::new, |store| store.damage(name))
    }

    /// Passes over what is damaged in the log of a broker from now on. Blocks.
    pub(crate) fn accept_damage(&self, name: &ResourceName) -> Result<(), WriteError> {
        self.store.as_ref().map_or(Ok(()), |store| store.accept_damage(name))
    }
}
