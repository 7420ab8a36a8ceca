//! Tells how replays stand.

use std::sync::Arc;

use waypost_core::codes;
use waypost_core::manifest::ResourceName;
use waypost_log::Position;

use super::super::Supervisor;
use super::super::report::{Verdict, rfc3339};
use super::sending::written;
use crate::plan::{Plan, ReplayPlan, ReplayTarget};
use crate::replay::{Outcomes, Replay, ReplayOrigin, ReplayRange, ReplayState, ReplayStatus};
use crate::subscription::Standing;

impl Supervisor {
    /// Every replay that is declared or kept, by name.
    pub(crate) fn replays(&self) -> Vec<ReplayStatus> {
        let applied = self.applied();
        let known = self.0.replays.all();
        let mut lines: Vec<_> = known.iter().map(|replay| self.replay_line(replay)).collect();
        let unstarted = applied.plan.replays.iter().filter(|(name, _)| self.0.replays.get(name).is_none());
        lines.extend(unstarted.map(|(name, planned)| self.waiting_line(name, planned)));
        lines.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        lines
    }

    /// How one replay stands, where there is one of this name.
    pub(crate) fn replay(&self, name: &ResourceName) -> Option<ReplayStatus> {
        if let Some(replay) = self.0.replays.get(name) {
            return Some(self.replay_line(&replay));
        }
        let applied = self.applied();
        let plan: &Plan = &applied.plan;
        plan.replays.get(name).map(|planned| self.waiting_line(name, planned))
    }

    /// How the replay of a manifest stands, for the list of resources.
    pub(in crate::supervisor) fn replay_verdict(&self, name: &ResourceName) -> Verdict {
        match self.replay(name) {
            Some(line) => Verdict { ready: line.ready, reason: line.reason, message: line.message },
            None => Verdict::not_ready("NotRunning", "the replay is not known"),
        }
    }

    /// The replay that a log knows under this number.
    pub(in crate::supervisor) fn replay_holding(
        &self,
        broker: &ResourceName,
        number: waypost_log::TriggerNumber,
    ) -> Option<String> {
        let all = self.0.replays.all();
        let holds = |replay: &&Arc<Replay>| {
            let subscription = replay.subscription();
            replay.broker() == *broker
                && subscription.is_some_and(|subscription| subscription.number == number)
        };
        all.iter().find(holds).map(|replay| format!("replay {}", replay.name))
    }

    fn waiting_line(&self, name: &ResourceName, planned: &ReplayPlan) -> ReplayStatus {
        let reason = self.0.replays.unstarted.lock().get(name).cloned();
        let message =
            format!("it has not started: {}", reason.unwrap_or_else(|| "it is about to".to_owned()));
        ReplayStatus {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            broker: planned.broker.name.clone(),
            trigger: trigger_of(planned),
            subscriber: None,
            state: "Waiting",
            ready: false,
            reason: "Waiting".to_owned(),
            message,
            origin: "manifest",
            paused: planned.paused,
            from: written(planned.from, "earliest"),
            to: written(planned.to, "latest"),
            ranges: Vec::new(),
            expected: None,
            matched: 0,
            delivered: 0,
            dead_lettered: 0,
            dropped: 0,
            dropped_by_reason: Default::default(),
            pending: 0,
            in_flight: 0,
            position: None,
            dead_letters_stored: 0,
            started_at: None,
            ended_at: None,
            notices: Vec::new(),
        }
    }

    pub(super) fn replay_line(&self, replay: &Replay) -> ReplayStatus {
        // The record first: one that has ended since is told as it was.
        let record = replay.record();
        let standing = replay.subscription().map(|subscription| subscription.standing());
        let outcomes = match &standing {
            Some(standing) => Outcomes::of(&standing.counts),
            None => record.outcomes.clone(),
        };
        let verdict = verdict(replay, record.state, record.expected, &outcomes, standing.as_ref());
        let paused = replay.is_paused() && !record.state.has_ended();
        let stored =
            replay.with_running(|running| running.log.dead_letters().count(&running.subscription.name));
        let mut message = verdict.message;
        for notice in &record.notices {
            message.push_str("; ");
            message.push_str(notice);
        }
        ReplayStatus {
            namespace: replay.name.namespace.clone(),
            name: replay.name.name.clone(),
            broker: record.broker.name.clone(),
            trigger: record.trigger.as_ref().map(|trigger| trigger.name.clone()),
            subscriber: standing.as_ref().map(|standing| standing.subscriber.clone()),
            state: if paused && record.state == ReplayState::Running {
                "Paused"
            } else {
                record.state.as_str()
            },
            ready: verdict.ready,
            reason: verdict.reason,
            message,
            origin: match record.origin {
                ReplayOrigin::Manifest => "manifest",
                ReplayOrigin::Api { .. } => "api",
            },
            paused,
            from: record.from,
            to: record.to,
            expected: record.expected,
            matched: outcomes.matched,
            delivered: outcomes.delivered,
            dead_lettered: outcomes.dead_lettered,
            dropped: outcomes.dropped,
            dropped_by_reason: outcomes.dropped_by_reason,
            pending: outcomes.pending,
            in_flight: standing.as_ref().map_or(0, |standing| standing.in_flight.min(outcomes.pending)),
            position: if record.state.has_ended() { None } else { position(replay, &record.ranges) },
            ranges: record.ranges.iter().map(ReplayRange::of).collect(),
            dead_letters_stored: stored.unwrap_or(0),
            started_at: Some(rfc3339(record.started_at)),
            ended_at: record.ended_at.map(rfc3339),
            notices: record.notices,
        }
    }
}

fn trigger_of(planned: &ReplayPlan) -> Option<String> {
    match &planned.target {
        ReplayTarget::Trigger(trigger) => Some(trigger.name.clone()),
        ReplayTarget::Subscriber(_) => None,
    }
}

/// The oldest position that is still owed; where nothing is matched yet, that of the range.
fn position(replay: &Replay, ranges: &[crate::logs::PastRange]) -> Option<String> {
    let oldest = replay.with_running(|running| {
        let number = running.subscription.number;
        let ledgers = (0..running.log.partitions()).map(|partition| running.log.ledger(partition, number));
        ledgers.filter_map(|ledger| Some((ledger.partition(), ledger.oldest()?))).next()
    });
    let first = ranges.first().map(|range| (range.partition, range.from));
    let (partition, offset) = oldest.flatten().or(first)?;
    Some(Position { partition, offset }.to_string())
}

fn verdict(
    replay: &Replay,
    state: ReplayState,
    expected: Option<u64>,
    outcomes: &Outcomes,
    standing: Option<&Standing>,
) -> Verdict {
    let done = outcomes.delivered + outcomes.dead_lettered + outcomes.dropped;
    let so_far = match expected {
        Some(expected) => format!("{done} of {expected} events are settled"),
        None => "the events are being counted".to_owned(),
    };
    if replay.differs() {
        return Verdict::not_ready(
            codes::FIELD_IMMUTABLE.id(),
            format!("what runs under this name was started as something else ({so_far}): name a new Replay"),
        );
    }
    if let Some(waits_for) = replay.waits_for() {
        return Verdict::not_ready("Waiting", format!("{so_far}; it waits: {waits_for}"));
    }
    match state {
        ReplayState::Completed => Verdict { ready: true, reason: "Completed".to_owned(), message: so_far },
        ReplayState::Cancelled => {
            Verdict::not_ready("Cancelled", format!("{so_far}; what was left is dropped"))
        }
        ReplayState::Counting => Verdict { ready: true, reason: "Counting".to_owned(), message: so_far },
        ReplayState::Running => match standing {
            Some(Standing { misconfigured: Some(error), .. }) => Verdict::not_ready(
                error.code.id(),
                format!("{so_far}; paused until it is mended: {}", error.detail),
            ),
            Some(Standing { failed: true, .. }) => {
                Verdict::not_ready("StorageFailed", "the ledger cannot be written; restart the process")
            }
            _ if replay.is_paused() => {
                let by =
                    if replay.is_paused_by_manifest() { "its manifest says" } else { "an operator said" };
                let message = format!("{so_far}; paused: {by} so");
                Verdict { ready: true, reason: "Paused".to_owned(), message }
            }
            Some(Standing { last_failure: Some(error), .. }) => Verdict {
                ready: true,
                reason: "Running".to_owned(),
                message: format!("{so_far}; its last attempt failed: {error}"),
            },
            _ => Verdict { ready: true, reason: "Running".to_owned(), message: so_far },
        },
    }
}
