//! What the status tells (design, section 10). Members may be added, never renamed.

use std::collections::BTreeMap;

use serde::Serialize;
use waypost_core::manifest::Problem;

use crate::replay::ReplayStatus;

/// Which part of the status is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusQuery {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only the trigger of this name.
    pub trigger: Option<String>,
    /// The most triggers and the most resources in one answer.
    pub limit: usize,
    /// Only what comes after this `namespace/name`, in the order of the answer.
    pub after: Option<String>,
}

/// The most triggers in one answer unless asked otherwise.
pub const DEFAULT_STATUS_LIMIT: usize = 1_000;

impl Default for StatusQuery {
    fn default() -> Self {
        Self { namespace: None, trigger: None, limit: DEFAULT_STATUS_LIMIT, after: None }
    }
}

/// The status of the process.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of the program.
    pub version: &'static str,
    /// The plan in force.
    pub plan: PlanStatus,
    /// Every declared resource, and those that are detached.
    pub resources: Vec<ResourceStatus>,
    /// Every trigger, with what became of the events that it matched.
    pub triggers: Vec<TriggerStatus>,
    /// Every replay, with what became of the events that it matched.
    pub replays: Vec<ReplayStatus>,
    /// The log of every broker.
    pub logs: Vec<LogStatus>,
}

/// The plan in force.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// Grows with every change.
    pub version: u64,
    /// When it was applied, RFC 3339.
    pub applied_at: String,
    /// Everything that is wrong with the manifests.
    pub problems: Vec<Problem>,
}

/// How one resource stands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// As its manifest says.
    pub api_version: String,
    /// As its manifest says.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Whether it does what it was declared for.
    pub ready: bool,
    /// One word for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
}

/// How one trigger stands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerStatus {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The broker whose events it takes.
    pub broker: String,
    /// Where it sends.
    pub subscriber: String,
    /// Whether it delivers.
    pub ready: bool,
    /// Whether its manifest says that it makes no attempts for now.
    pub paused: bool,
    /// Events that it ever matched.
    pub matched: u64,
    /// Of these, those that the subscriber has.
    pub delivered: u64,
    /// Of these, those that were given up.
    pub dead_lettered: u64,
    /// Of these, those that someone asked to drop.
    pub dropped: u64,
    /// The same by reason; reasons without any are left out.
    pub dropped_by_reason: BTreeMap<&'static str, u64>,
    /// Of these, those that are still to be delivered, counted.
    pub pending: u64,
    /// Of the pending, those that are with the subscriber at this moment.
    pub in_flight: u64,
    /// Events of the broker that were not examined yet.
    pub lag_events: u64,
    /// How long the oldest of what waits has waited, in seconds; 0 where nothing waits.
    pub lag_seconds: f64,
    /// Dead letters in the built-in store.
    pub dead_letters_stored: u64,
    /// Events that it did not match because its filter takes more steps for them than it may, since the start of the
    /// process.
    pub over_budget: u64,
}

/// How one broker's log stands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogStatus {
    /// The broker's namespace.
    pub namespace: String,
    /// The broker's name.
    pub name: String,
    /// Where events are kept: `memory` means that nothing survives the process.
    pub kind: &'static str,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes allowed.
    pub limit_bytes: u64,
    /// The trigger whose oldest event keeps the most from being trimmed; `dead letters` where none does and some are
    /// stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// Events taken since the start of the process.
    pub received: u64,
    /// Events refused since the start of the process.
    pub refused: u64,
    /// Events that matched nobody because they repeat earlier ones (`spec.deduplication`), since the start of the process.
    pub repeated: u64,
}
