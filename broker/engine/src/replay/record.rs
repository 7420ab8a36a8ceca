//! What is kept of a replay for a later process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use waypost_core::manifest::ResourceName;
use waypost_log::Counts;

use crate::logs::PastRange;

/// The names under which replays are kept begin with this.
pub(crate) const REPLAYS: &str = "replay/";

/// What the name of a replay's subscription begins with. The colon can be in no declared name.
const SUBSCRIPTION: &str = "replay:";

/// A replay as it is kept: from its start on, until its manifest is gone and its ledger forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplayRecord {
    pub(crate) origin: ReplayOrigin,
    pub(crate) broker: ResourceName,
    /// The trigger that it sends as.
    pub(crate) trigger: Option<ResourceName>,
    /// What it was started as, in one text: a manifest that says something else asks for another replay.
    pub(crate) fixed: String,
    /// The range as it was written.
    pub(crate) from: String,
    pub(crate) to: String,
    /// The range as it was found when the replay started.
    pub(crate) ranges: Vec<PastRange>,
    /// The filter that decides about all of it, whatever becomes of the trigger's.
    pub(crate) filter: serde_json::Value,
    pub(crate) state: ReplayState,
    /// The events that match, once they are counted.
    pub(crate) expected: Option<u64>,
    /// Whether an operator paused it.
    pub(crate) paused: bool,
    /// What is not as was asked for, in sentences.
    pub(crate) notices: Vec<String>,
    /// In nanoseconds since 1970.
    pub(crate) started_at: i64,
    pub(crate) ended_at: Option<i64>,
    /// What became of its events, as it was when it ended.
    pub(crate) outcomes: Outcomes,
    /// Whether its ledger is forgotten: nothing of it is left but this.
    pub(crate) forgotten: bool,
    /// Whether its broker's log does not survive the process.
    pub(crate) in_memory: bool,
}

/// Where a replay was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ReplayOrigin {
    /// In a manifest, which the plan has.
    Manifest,
    /// Through the admin API: the document that was asked for.
    Api { document: serde_json::Value },
}

/// How far a replay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ReplayState {
    /// What matches is being counted; nothing is sent before that is known.
    Counting,
    /// It matches and delivers.
    Running,
    /// Everything it matched is settled.
    Completed,
    /// It was cancelled; what was left is dropped.
    Cancelled,
}

impl ReplayState {
    /// The state as the status names it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Counting => "Counting",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub(crate) const fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// The counts of a replay's ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcomes {
    pub(crate) matched: u64,
    pub(crate) delivered: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) dropped: u64,
    /// By the name of the reason; those without any are left out.
    pub(crate) dropped_by_reason: BTreeMap<String, u64>,
    pub(crate) pending: u64,
}

impl Outcomes {
    pub(crate) fn of(counts: &Counts) -> Self {
        let dropped = counts.dropped.iter().filter(|(_, count)| *count > 0);
        Self {
            matched: counts.matched,
            delivered: counts.delivered,
            dead_lettered: counts.dead_lettered,
            dropped: counts.dropped.total(),
            dropped_by_reason: dropped.map(|(reason, count)| (reason.as_str().to_owned(), count)).collect(),
            pending: counts.pending,
        }
    }
}

/// The name under which a replay is kept.
pub(crate) fn kept_name(replay: &ResourceName) -> String {
    format!("{REPLAYS}{replay}")
}

/// The name under which its broker's log knows a replay.
pub(crate) fn subscription_name(replay: &ResourceName) -> ResourceName {
    ResourceName::new(&replay.namespace, format!("{SUBSCRIPTION}{}", replay.name))
}

/// The name of the replay that a log knows under this name; none of a trigger.
pub(crate) fn replay_of(subscription: &ResourceName) -> Option<ResourceName> {
    let name = subscription.name.strip_prefix(SUBSCRIPTION)?;
    Some(ResourceName::new(&subscription.namespace, name))
}
