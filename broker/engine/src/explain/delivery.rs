//! What became of an event that a trigger matches.

use serde::Serialize;
use waypost_core::codes;
use waypost_core::{Class, Code};
use waypost_log::{Attempt, AttemptOutcome, Outcome, OutcomeState, Timestamp};

use super::rfc3339;
use crate::subscription::Standing;

/// One event's way to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedDelivery {
    /// `pending`, `delivered`, `deadLettered`, `dropped`, or `unknown` where the log no longer knows.
    pub state: &'static str,
    /// Why it is pending, was given up or was dropped, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where a pending one stands: `notExamined`, `untaken`, `inFlight`, `waiting`, or `held` behind another of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<&'static str>,
    /// When the next attempt of a waiting one is due, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Why it was dropped, in the word of the status and the metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_by: Option<&'static str>,
    /// The last attempts that are still known, the newest last.
    pub attempts: Vec<ExplainedAttempt>,
}

/// One try to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedAttempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began, RFC 3339.
    pub at: String,
    /// When its outcome was known, RFC 3339.
    pub ended_at: String,
    /// `delivered` or `failed`.
    pub outcome: &'static str,
    /// The stable code of a failure.
    pub code: Option<Code>,
    /// The status that the subscriber answered, where it speaks HTTP and answered.
    pub status: Option<u16>,
    /// What failed, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl From<&Attempt> for ExplainedAttempt {
    fn from(attempt: &Attempt) -> Self {
        let (outcome, code, status, detail) = match &attempt.outcome {
            AttemptOutcome::Delivered { status } => ("delivered", None, *status, None),
            AttemptOutcome::Failed { code, status, detail, .. } => {
                ("failed", Some(*code), *status, Some(detail.clone()))
            }
        };
        Self {
            number: attempt.number,
            at: rfc3339(attempt.started.0),
            ended_at: rfc3339(attempt.ended.0),
            outcome,
            code,
            status,
            detail,
        }
    }
}

/// Why a pending delivery is where it is.
const NOT_EXAMINED: &str = "the broker's reader has not come to the event yet";
const RESTORING: &str = "the match lists of that part of the log are lost and being recorded again";

impl ExplainedDelivery {
    /// Of an event that matches and is not in any match list yet.
    pub(super) fn not_examined(restoring: bool) -> Self {
        let reason = if restoring { RESTORING } else { NOT_EXAMINED };
        Self { place: Some("notExamined"), ..Self::of("pending", Some(reason.to_owned()), Vec::new()) }
    }

    /// Of an event whose match list is gone.
    pub(super) fn forgotten() -> Self {
        let reason =
            "the log has given up what it knew of that time: only events that are kept for others remain";
        Self::of("unknown", Some(reason.to_owned()), Vec::new())
    }

    /// Of what the log knows. `standing` is how the trigger stands now, where it has a subscription.
    pub(super) fn new(outcome: &Outcome, standing: Option<&Standing>) -> Self {
        let attempts: Vec<_> = outcome.attempts.iter().map(ExplainedAttempt::from).collect();
        match outcome.state {
            OutcomeState::Untaken
            | OutcomeState::InFlight
            | OutcomeState::Waiting { .. }
            | OutcomeState::Held => {
                let reason = match standing.and_then(halted) {
                    Some(halted) => halted,
                    None => pending(outcome.state, &attempts),
                };
                let due = match outcome.state {
                    OutcomeState::Waiting { due: Timestamp(due) } => Some(rfc3339(due)),
                    _ => None,
                };
                let place = Some(outcome.state.as_str());
                Self { place, due, ..Self::of("pending", Some(reason), attempts) }
            }
            OutcomeState::Delivered => Self::of("delivered", None, attempts),
            OutcomeState::DeadLettered => {
                let reason = match attempts.last().and_then(|last| last.detail.clone()) {
                    Some(detail) => detail,
                    None => "it was given up without an attempt that could tell why; see its dead letter"
                        .to_owned(),
                };
                Self::of("deadLettered", Some(reason), attempts)
            }
            OutcomeState::Dropped(reason) => Self {
                dropped_by: Some(reason.as_str()),
                ..Self::of("dropped", Some(dropped(reason).to_owned()), attempts)
            },
            OutcomeState::Unknown => {
                let reason = "it was settled, and the log no longer knows how";
                Self::of("unknown", Some(reason.to_owned()), attempts)
            }
        }
    }

    fn of(state: &'static str, reason: Option<String>, attempts: Vec<ExplainedAttempt>) -> Self {
        Self { state, reason, place: None, due: None, dropped_by: None, attempts }
    }
}

/// Why a trigger makes no attempts at all, where that is so.
fn halted(standing: &Standing) -> Option<String> {
    if standing.detached {
        return Some(
            "the trigger is detached: no manifest declares it, and it goes on when it is declared again"
                .to_owned(),
        );
    }
    if standing.failed {
        return Some("the ledger cannot be written: restart the process".to_owned());
    }
    if standing.paused {
        return Some("the trigger is paused: its manifest says so".to_owned());
    }
    let misconfigured = standing.misconfigured.as_ref().filter(|error| error.class == Class::Misconfigured);
    if let Some(error) = misconfigured {
        return Some(format!("the trigger makes no attempts until this is mended: {error}"));
    }
    if let Some(error) = &standing.away {
        return Some(format!("the trigger holds its events until the subscriber is back: {error}"));
    }
    let unresolved =
        standing.misconfigured.as_ref().filter(|error| error.code == codes::SUBSCRIBER_NOT_RESOLVED);
    unresolved.map(|error| format!("the trigger has nowhere to send: {error}"))
}

fn pending(state: OutcomeState, attempts: &[ExplainedAttempt]) -> String {
    let last = attempts.last().and_then(|last| last.detail.as_deref());
    match state {
        OutcomeState::Waiting { due } => {
            let after = last.map(|detail| format!(", since the last attempt failed: {detail}"));
            format!("it waits until {}{}", rfc3339(due.0), after.unwrap_or_default())
        }
        OutcomeState::Held => "another event of its key is ahead of it and not settled".to_owned(),
        OutcomeState::InFlight => match last {
            Some(detail) => format!("it is in the window, to be tried again: {detail}"),
            None => "it is in the window: with the subscriber, or next in line".to_owned(),
        },
        _ => "the trigger lags: it has not come to the event yet".to_owned(),
    }
}

fn dropped(reason: waypost_log::DropReason) -> &'static str {
    use waypost_log::DropReason;
    match reason {
        DropReason::Deadline => "the `deadline` of the trigger had passed",
        DropReason::Expired => "the `expirytime` of the event had passed",
        DropReason::Operator => "an operator dropped it",
        DropReason::Detached => {
            "the trigger was detached for longer than detached data is kept, or the log was full"
        }
        DropReason::Filtered => "the transformations of the trigger gave no event",
        DropReason::Schema => "the data does not follow the schema of a transformation, which says to drop",
        DropReason::Failed => "a transformation failed on the event, and its `onError` says to drop",
        DropReason::Backlog => "the trigger was owed more than its `maxBacklog` allows, which says to drop",
    }
}
