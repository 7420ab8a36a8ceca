//! Tells how everything stands.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use waypost_core::filter::MAX_STEPS;
use waypost_core::manifest::{ResourceId, ResourceName};
use waypost_core::{Class, codes};
use waypost_log::{BLOCKED_KEYS_LIMIT, Crowding, Durability, Log, Position, TriggerNumber, WAITING_LIMIT};

use super::{Applied, RunningBroker, Supervisor};
use crate::broker::Broker;
use crate::matching::spending::MAX_SPENT_IN_A_ROW;
use crate::metrics::TriggerSample;
use crate::plan::{Declared, DeclaredState, Family, ResourceKey};
use crate::replay::ReplayStatus;
use crate::sources;
use crate::status::{LogStatus, PlanStatus, ResourceStatus, Status, StatusQuery, TriggerStatus};
use crate::subscription::{Standing, Subscription};

/// What the status names in the place of a trigger where stored dead letters hold a log.
const DEAD_LETTERS: &str = "dead letters";

/// One word and one sentence on how a resource stands.
pub(super) struct Verdict {
    pub(super) ready: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Verdict {
    fn ready(message: impl Into<String>) -> Self {
        Self { ready: true, reason: "Ready".to_owned(), message: message.into() }
    }

    pub(super) fn not_ready(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { ready: false, reason: reason.into(), message: message.into() }
    }
}

/// One subscription as it stood when the report was begun.
struct Row {
    broker: Arc<Broker>,
    subscription: Arc<Subscription>,
    standing: Standing,
}

impl Supervisor {
    /// See [`crate::Engine::status`].
    pub(crate) async fn status(&self, query: &StatusQuery) -> Status {
        let applied = self.0.applied.load_full();
        let rows = self.rows();
        let verdicts: HashMap<&ResourceName, Verdict> = rows
            .iter()
            .filter(|row| !row.standing.detached)
            .map(|row| (&row.subscription.name, trigger(row)))
            .collect();
        let kept: HashSet<&ResourceName> = rows.iter().map(|row| &row.subscription.name).collect();
        let known = applied.plan.declared.iter().filter(|declared| self.is_known(declared, &kept));
        let resources = known.map(|declared| self.resource(declared, &applied, &verdicts));
        let resources =
            select(resources.collect(), query, |line: &ResourceStatus| (&line.namespace, &line.name));
        let mut chosen: Vec<&Row> = rows.iter().collect();
        chosen.sort_by(|one, other| one.subscription.name.cmp(&other.subscription.name));
        let chosen =
            select(chosen, query, |row| (&row.subscription.name.namespace, &row.subscription.name.name));
        let invalid = applied.plan.declared.iter().filter(|declared| {
            declared.id.kind == "Trigger" && matches!(declared.state, DeclaredState::Invalid { .. })
        });
        let invalid: HashSet<_> = invalid.map(|declared| declared.id.resource_name()).collect();
        let mut triggers = Vec::with_capacity(chosen.len());
        for row in chosen {
            triggers.push(self.trigger_line(row, &verdicts, &invalid).await);
        }
        Status {
            version: env!("CARGO_PKG_VERSION"),
            plan: PlanStatus {
                version: applied.version,
                applied_at: rfc3339(applied.at.0),
                problems: applied.plan.problems.clone(),
            },
            resources: resources
                .into_iter()
                .filter(|line| {
                    query.trigger.as_ref().is_none_or(|name| line.kind == "Trigger" && line.name == *name)
                })
                .collect(),
            triggers,
            replays: self.replays_of(query),
            logs: self.log_lines().await,
        }
    }

    /// How each log stands, and who keeps it from getting smaller: a trigger, or else the dead letters.
    async fn log_lines(&self) -> Vec<LogStatus> {
        let mut lines = Vec::new();
        for broker in self.brokers() {
            let mut line = log_line(&broker);
            if line.held_by.is_none()
                && let Some(number) = broker.usage().held_by
            {
                line.held_by = self.replay_holding(broker.name(), number);
            }
            if line.held_by.is_none() && !broker.log().dead_letters().list(None, None, 1).await.is_empty() {
                line.held_by = Some(DEAD_LETTERS.to_owned());
            }
            lines.push(line);
        }
        lines
    }

    /// The replays that a query asks for; none where it asks for one trigger.
    fn replays_of(&self, query: &StatusQuery) -> Vec<ReplayStatus> {
        let replays = if query.trigger.is_none() { self.replays() } else { Vec::new() };
        select(replays, query, |line| (&line.namespace, &line.name))
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for broker in self.brokers() {
            for subscription in broker.subscriptions() {
                let standing = subscription.standing();
                rows.push(Row { broker: Arc::clone(&broker), subscription, standing });
            }
        }
        rows
    }

    /// Whether a detached broker or trigger is still kept. What was detached for too long is forgotten here before the
    /// next plan knows of it.
    fn is_known(&self, declared: &Declared, triggers: &HashSet<&ResourceName>) -> bool {
        let name = declared.id.resource_name();
        match (&declared.state, &*declared.id.kind) {
            (DeclaredState::Detached, "Broker") => self.0.running.lock().brokers.contains_key(&name),
            (DeclaredState::Detached, "Trigger") => triggers.contains(&name),
            _ => true,
        }
    }

    fn resource(
        &self,
        declared: &Declared,
        applied: &Applied,
        triggers: &HashMap<&ResourceName, Verdict>,
    ) -> ResourceStatus {
        let verdict = match &declared.state {
            DeclaredState::Detached => {
                let told = applied
                    .plan
                    .problems
                    .iter()
                    .find(|problem| problem.resource.as_ref() == Some(&declared.id));
                let reason =
                    told.map_or("no manifest declares it any more", |problem| problem.message.as_str());
                Verdict::not_ready(
                    "Detached",
                    format!("{reason}; it is kept, and goes on when it is declared again"),
                )
            }
            DeclaredState::Invalid { problem, running } => {
                let runs = match running {
                    Some(version) => format!("the version of plan {version} stays in force"),
                    None => "it does not run".to_owned(),
                };
                Verdict::not_ready(problem.code.id(), format!("{}: {runs}", problem.message))
            }
            DeclaredState::Valid => self.valid(&declared.id, applied, triggers),
        };
        ResourceStatus {
            api_version: declared.id.api_version.to_string(),
            kind: declared.id.kind.to_string(),
            namespace: declared.id.namespace.clone(),
            name: declared.id.name.clone(),
            ready: verdict.ready,
            reason: verdict.reason,
            message: verdict.message,
        }
    }

    fn valid(
        &self,
        id: &ResourceId,
        applied: &Applied,
        triggers: &HashMap<&ResourceName, Verdict>,
    ) -> Verdict {
        let name = ResourceName::new(&id.namespace, &id.name);
        let running = self.0.running.lock();
        // Kinds of others stand as what they became.
        let kind = match Family::of(&id.api_version, &id.kind) {
            Family::Source => "Source",
            Family::Sink => "Sink",
            _ => &*id.kind,
        };
        match kind {
            "Broker" => match running.brokers.get(&name) {
                Some(broker) if !broker.broker.is_reading() => Verdict::not_ready(
                    "ReaderStopped",
                    "takes events and keeps them, but its reader panicked: restart the process, and report this",
                ),
                Some(RunningBroker { broker, .. }) if broker.switch_failure().is_some() => {
                    Verdict::not_ready(
                        "PlanNotRecorded",
                        format!(
                            "the newest triggers are not in force, those before are: {}",
                            broker.switch_failure().unwrap_or_default()
                        ),
                    )
                }
                Some(RunningBroker { broker, .. }) if broker.is_damaged() => {
                    let damage = self.0.context.logs.damage(&name);
                    Verdict::not_ready(codes::LOG_CORRUPT.id(), damaged(&name, &damage))
                }
                Some(broker) => match broker.broker.log().durability() {
                    Durability::Memory => Verdict::ready(
                        "takes events; they are kept in memory only, and nothing survives the process",
                    ),
                    Durability::Synced | Durability::Replicated => Verdict::ready("takes events"),
                },
                None => match self.0.context.directory.unopened(&id.namespace, &id.name) {
                    Some(unopened) => Verdict::not_ready(unopened.code.id(), unopened.reason.clone()),
                    None => Verdict::not_ready("NotRunning", "the broker does not run"),
                },
            },
            "Trigger" => match triggers.get(&name) {
                Some(verdict) => Verdict {
                    ready: verdict.ready,
                    reason: verdict.reason.clone(),
                    message: verdict.message.clone(),
                },
                None => {
                    let broker = applied.plan.triggers.get(&name).map(|trigger| &trigger.broker);
                    let directory = &self.0.context.directory;
                    match broker.and_then(|broker| directory.unopened(&broker.namespace, &broker.name)) {
                        Some(unopened) => Verdict::not_ready(
                            unopened.code.id(),
                            format!("its broker does not run: {}", unopened.reason),
                        ),
                        None => Verdict::not_ready(
                            "BrokerDoesNotExist",
                            format!(
                                "the broker {} does not exist",
                                broker.map(ToString::to_string).unwrap_or_default()
                            ),
                        ),
                    }
                }
            },
            "Sink" => match running.sinks.get(&name).map(|(_, sink)| sink.problem()) {
                Some(None) => Verdict::ready("takes events"),
                Some(Some(error)) => Verdict::not_ready(error.code.id(), error.detail),
                None => Verdict::not_ready("NotRunning", "the sink does not run"),
            },
            "Source" => match running.sources.get(&name).map(|(_, source)| source.state()) {
                Some(sources::State::Running) => Verdict::ready("emits events"),
                Some(sources::State::Finished) => Verdict::ready("has emitted all its events"),
                Some(sources::State::Starting) => {
                    Verdict::not_ready("Starting", "the source is being started")
                }
                Some(sources::State::Failed(error)) => Verdict::not_ready(error.code.id(), error.detail),
                None => Verdict::not_ready("NotRunning", "the source does not run"),
            },
            "Sequence" | "Parallel" => flow(&ResourceKey::of(id), applied, triggers),
            "Replay" => {
                drop(running);
                self.replay_verdict(&name)
            }
            _ => Verdict::ready("read"),
        }
    }

    async fn trigger_line(
        &self,
        row: &Row,
        verdicts: &HashMap<&ResourceName, Verdict>,
        invalid: &HashSet<ResourceName>,
    ) -> TriggerStatus {
        let Row { broker, subscription, standing } = row;
        let counts = &standing.counts;
        let ResourceName { namespace, name } = subscription.name.clone();
        TriggerStatus {
            namespace,
            name,
            broker: subscription.broker.name.clone(),
            subscriber: standing.subscriber.clone(),
            ready: !standing.detached
                && !invalid.contains(&subscription.name)
                && verdicts.get(&subscription.name).is_some_and(|verdict| verdict.ready),
            paused: standing.paused,
            matched: counts.matched,
            delivered: counts.delivered,
            dead_lettered: counts.dead_lettered,
            dropped: counts.dropped.total(),
            dropped_by_reason: counts
                .dropped
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.as_str(), count))
                .collect::<BTreeMap<_, _>>(),
            pending: counts.pending,
            in_flight: standing.in_flight.min(counts.pending),
            lag_events: standing.lag_events,
            lag_seconds: self.lag_seconds(broker.log(), subscription).await,
            dead_letters_stored: broker.log().dead_letters().count(&subscription.name),
            over_budget: standing.over_budget,
        }
    }

    /// How long the oldest event that waits to be taken or is being delivered has been in the log.
    async fn lag_seconds(&self, log: &Arc<dyn Log>, subscription: &Subscription) -> f64 {
        let mut oldest = None;
        for (partition, offset) in subscription.floors() {
            // What was delivered meanwhile may be gone: then it no longer lags.
            if let Ok(entry) = log.fetch(Position { partition, offset }).await {
                oldest = oldest.min(Some(entry.arrived)).or(Some(entry.arrived));
            }
        }
        oldest.map_or(0.0, |arrived| self.0.context.clock.now().since(arrived).as_secs_f64())
    }

    /// See [`crate::Engine::metrics`].
    pub(crate) fn metrics(&self) -> String {
        let rows = self.rows();
        let triggers = rows.iter().map(|row| TriggerSample {
            name: row.subscription.name.clone(),
            broker: row.subscription.broker.clone(),
            counts: row.standing.counts,
            in_flight: row.standing.in_flight,
            lag_events: row.standing.lag_events,
            ready: !row.standing.detached
                && row.standing.misconfigured.is_none()
                && row.standing.away.is_none()
                && !row.standing.filter_too_costly,
            over_budget: row.standing.over_budget,
            dead_letters_stored: row.broker.log().dead_letters().count(&row.subscription.name),
        });
        let context = &self.0.context;
        let logs: Vec<_> = self.brokers().iter().map(log_line).collect();
        context.metrics.encode(triggers.collect(), &logs, context.ingest.used(), context.dispatch.panics())
    }
}

/// Of a flow: how the first of its parts stands that is not ready.
fn flow(key: &ResourceKey, applied: &Applied, triggers: &HashMap<&ResourceName, Verdict>) -> Verdict {
    for trigger in applied.plan.implicit_triggers(key) {
        let name = trigger.id.resource_name();
        let part = name.name.splitn(3, ':').last().unwrap_or_default();
        match triggers.get(&name) {
            Some(verdict) if verdict.ready => {}
            Some(verdict) => {
                let message = format!("its part {part} is not ready: {}", verdict.message);
                return Verdict::not_ready(verdict.reason.clone(), message);
            }
            None => {
                let message = format!("its part {part} does not run; see the log of {}", trigger.broker);
                return Verdict::not_ready("NotRunning", message);
            }
        }
    }
    Verdict::ready("takes events")
}

fn trigger(row: &Row) -> Verdict {
    let standing = &row.standing;
    match &standing.misconfigured {
        Some(error) if error.class == Class::Misconfigured => {
            Verdict::not_ready(error.code.id(), format!("paused until it is mended: {}", error.detail))
        }
        Some(error) => Verdict::not_ready(error.code.id(), error.detail.clone()),
        None if standing.away.is_some() => {
            let error = standing.away.as_ref();
            Verdict::not_ready(
                error.map_or("SubscriberDown", |error| error.code.id()),
                format!(
                    "holds its events until the subscriber is back: {}",
                    error.map(ToString::to_string).unwrap_or_default()
                ),
            )
        }
        None if standing.failed => {
            Verdict::not_ready("StorageFailed", "the ledger cannot be written; restart the process")
        }
        None if standing.filter_too_costly => Verdict::not_ready(
            codes::FILTER_BUDGET_SPENT.id(),
            format!(
                "the last {MAX_SPENT_IN_A_ROW} events or more that its filter was evaluated for took more than \
                 {MAX_STEPS} steps, and so matched nothing: simplify the filter, or split the trigger"
            ),
        ),
        None if standing.crowding.is_some() => crowded(standing),
        None if standing.backlog_exceeded.is_some() => Verdict {
            ready: true,
            reason: "BacklogExceeded".to_owned(),
            message: format!(
                "{}; the broker refuses events until it is owed less",
                standing.backlog_exceeded.clone().unwrap_or_default()
            ),
        },
        None if standing.paused => Verdict {
            ready: true,
            reason: "Paused".to_owned(),
            message: "matches events and holds them: its manifest says paused".to_owned(),
        },
        None => match &standing.last_failure {
            Some(error) => Verdict::ready(format!(
                "delivers to {}; its last attempt failed: {error}",
                standing.subscriber
            )),
            None => Verdict::ready(format!("delivers to {}", standing.subscriber)),
        },
    }
}

/// Of a trigger that takes no more events for now.
fn crowded(standing: &Standing) -> Verdict {
    let failure = standing.last_failure.as_ref();
    let failure = failure.map(|error| format!("; its last attempt failed: {error}")).unwrap_or_default();
    match standing.crowding {
        Some(Crowding::Keys) => Verdict::not_ready(
            codes::KEYS_CLOSED.id(),
            format!(
                "takes no more events: {BLOCKED_KEYS_LIMIT} keys wait for the next attempt of their first event{failure}"
            ),
        ),
        _ => Verdict::not_ready(
            codes::DELIVERIES_WAITING.id(),
            format!("takes no more events: {WAITING_LIMIT} deliveries wait{failure}"),
        ),
    }
}

fn log_line(broker: &Arc<Broker>) -> LogStatus {
    let usage = broker.usage();
    let (received, refused) = broker.traffic();
    let ResourceName { namespace, name } = broker.name().clone();
    LogStatus {
        namespace,
        name,
        kind: match broker.log().durability() {
            Durability::Memory => "memory",
            Durability::Synced => "embedded",
            Durability::Replicated => "replicated",
        },
        used_bytes: usage.used,
        limit_bytes: usage.limit,
        held_by: usage.held_by.and_then(|number| name_of(broker, number)),
        received,
        refused,
        repeated: broker.repeated(),
    }
}

fn name_of(broker: &Broker, number: TriggerNumber) -> Option<String> {
    broker
        .subscriptions()
        .iter()
        .find(|subscription| subscription.number == number)
        .map(|found| found.name.to_string())
}

fn damaged(broker: &ResourceName, damage: &[String]) -> String {
    let first = damage.first().map_or("the log is corrupt", String::as_str);
    let more = damage.len().saturating_sub(1);
    let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
    format!(
        "takes no events until an operator accepts what is lost with `waypost log accept-damage {broker}`: {first}{more}"
    )
}

/// The part of an ordered list that a query asks for.
fn select<T>(lines: Vec<T>, query: &StatusQuery, name: impl Fn(&T) -> (&String, &String)) -> Vec<T> {
    let wanted = |line: &T| {
        let (namespace, own) = name(line);
        query.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && query.trigger.as_ref().is_none_or(|wanted| wanted == own)
            && query.after.as_ref().is_none_or(|after| format!("{namespace}/{own}") > *after)
    };
    lines.into_iter().filter(wanted).take(query.limit).collect()
}

pub(super) fn rfc3339(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default().to_string()
}
