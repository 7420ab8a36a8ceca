//! What is told of a replay. Members may be added, never renamed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ReplayRange;

/// How one replay stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayStatus {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The broker whose log is read.
    pub broker: String,
    /// The trigger that it sends as, where it does.
    pub trigger: Option<String>,
    /// Where it sends; none before that is known.
    pub subscriber: Option<String>,
    /// `Waiting`, `Counting`, `Running`, `Paused`, `Completed` or `Cancelled`.
    pub state: &'static str,
    /// Whether it does what it was asked for, or has done it.
    pub ready: bool,
    /// One word for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// `manifest` or `api`: where it was asked for.
    pub origin: &'static str,
    /// Whether its manifest or an operator says that it makes no attempts for now.
    pub paused: bool,
    /// The first event of the range, as it was written.
    pub from: String,
    /// The first event behind it, as it was written.
    pub to: String,
    /// The range as it was found when the replay started.
    pub ranges: Vec<ReplayRange>,
    /// The events that it will match, once they are counted.
    pub expected: Option<u64>,
    /// The events that it has matched.
    pub matched: u64,
    /// Of these, those that the subscriber has.
    pub delivered: u64,
    /// Of these, those that were given up.
    pub dead_lettered: u64,
    /// Of these, those that someone asked to drop.
    pub dropped: u64,
    /// The same by reason; reasons without any are left out.
    pub dropped_by_reason: BTreeMap<String, u64>,
    /// Of these, those that are still to be delivered, counted.
    pub pending: u64,
    /// Of the pending, those that are with the subscriber at this moment.
    pub in_flight: u64,
    /// The position of the oldest event that is still to be delivered or matched; none once all are settled.
    pub position: Option<String>,
    /// Its dead letters in the built-in store.
    pub dead_letters_stored: u64,
    /// When it started, RFC 3339; none before that.
    pub started_at: Option<String>,
    /// When it was completed or cancelled, RFC 3339.
    pub ended_at: Option<String>,
    /// What is not as was asked for, in sentences.
    pub notices: Vec<String>,
}
