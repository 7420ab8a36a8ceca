//! What is kept of a redrive for a later process, and what is told of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use waypost_core::manifest::ResourceName;
use waypost_log::RedriveId;

use crate::dead_letter::KeptQuery;
use crate::explain::rfc3339;

/// Where redrives are kept.
pub(super) const REDRIVES: &str = "redrive/";

/// Digits of the names of redrives.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The name of a redrive: its number in 36 digits, of one length for thousands of years.
pub(crate) fn redrive_name(redrive: RedriveId) -> String {
    let mut left = redrive.0;
    let mut digits = Vec::new();
    while left > 0 || digits.is_empty() {
        digits.push(char::from(DIGITS[usize::try_from(left % 36).expect("it is below 36")]));
        left /= 36;
    }
    digits.into_iter().rev().collect()
}

/// The redrive of a name; none where it is no such name.
pub(crate) fn redrive_id(name: &str) -> Option<RedriveId> {
    let valid = name.bytes().all(|byte| DIGITS.contains(&byte));
    u64::from_str_radix(name, 36).ok().filter(|_| valid).map(RedriveId)
}

/// How a redrive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedriveState {
    /// It sends, or waits until it may.
    Running,
    /// All that it chose was sent, failed again, or was gone.
    Done,
    /// An operator ended it.
    Cancelled,
}

/// The dead letters of one broker that a redrive is about: chosen when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) broker: ResourceName,
    /// The highest number there was.
    pub(super) through: u64,
    /// These, in order; those of the query where none are named.
    pub(super) named: Option<Vec<u64>>,
}

/// A redrive as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RedriveRecord {
    pub(super) id: u64,
    pub(super) state: RedriveState,
    pub(super) query: KeptQuery,
    pub(super) parts: Vec<Part>,
    pub(super) to: Option<String>,
    pub(super) rate: Option<u32>,
    pub(super) selected: u64,
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) gone: u64,
    pub(super) started_at: i64,
    pub(super) ended_at: Option<i64>,
}

impl RedriveRecord {
    pub(super) fn redrive(&self) -> RedriveId {
        RedriveId(self.id)
    }

    pub(super) fn kept_name(&self) -> String {
        format!("{REDRIVES}{}", redrive_name(self.redrive()))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers can be written")
    }

    pub(super) fn left(&self) -> u64 {
        match self.state {
            RedriveState::Done => 0,
            _ => self.selected.saturating_sub(self.sent + self.failed + self.gone),
        }
    }
}

/// What is told of a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedriveStatus {
    /// Its name, which the extension `waypostredrive` of what it sends holds.
    pub id: String,
    /// How it stands.
    pub state: RedriveState,
    /// Why it does not send at the moment, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Where it sends, where that is not the trigger's own subscriber.
    pub to: Option<String>,
    /// The most that it sends per second.
    pub rate: Option<u32>,
    /// The dead letters that it chose.
    pub selected: u64,
    /// Of these, those that were taken, and left the store.
    pub sent: u64,
    /// Of these, those that failed again, and stay.
    pub failed: u64,
    /// Of these, those that left the store by another way: purged, forwarded, or redriven beside it.
    pub gone: u64,
    /// Of these, those that it has not come to.
    pub left: u64,
    /// When it was started, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
}

impl RedriveStatus {
    pub(super) fn of(record: &RedriveRecord, waiting: Option<String>) -> Self {
        Self {
            id: redrive_name(record.redrive()),
            state: record.state,
            waiting: waiting.filter(|_| record.state == RedriveState::Running),
            to: record.to.clone(),
            rate: record.rate,
            selected: record.selected,
            sent: record.sent,
            failed: record.failed,
            gone: record.gone,
            left: record.left(),
            started_at: rfc3339(record.started_at),
            ended_at: record.ended_at.map(rfc3339),
        }
    }
}

/// What a redrive would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedrivePreview {
    /// Always true: nothing was changed.
    pub dry_run: bool,
    /// The dead letters that would be sent.
    pub selected: u64,
    /// The same by trigger, `NAMESPACE/NAME`.
    pub triggers: BTreeMap<String, u64>,
    /// Dead letters that were chosen and cannot be sent, because their events cannot be read any more.
    pub unreadable: u64,
    /// Triggers that cannot take theirs, because no manifest declares them: these need another destination.
    pub without_destination: Vec<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_come_back_and_sort_as_numbers_of_one_length(one: u64, other: u64) {
            let (first, second) = (redrive_name(RedriveId(one)), redrive_name(RedriveId(other)));
            prop_assert_eq!(redrive_id(&first), Some(RedriveId(one)));
            prop_assert_eq!((first.len(), &first).cmp(&(second.len(), &second)), one.cmp(&other));
        }
    }

    #[test]
    fn what_is_no_name_of_a_redrive_is_none() {
        for name in ["", "+1", "A", "a b", "zzzzzzzzzzzzzzzz", "-"] {
            assert_eq!(redrive_id(name), None, "{name}");
        }
    }
}
