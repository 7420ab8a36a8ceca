//! A broker: its log, its shared readers, its subscriptions.

pub(crate) mod reader;
mod restore;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use waypost_core::error::DeliveryError;
use waypost_core::filter::Filter;
use waypost_core::manifest::{Deduplication, ResourceName};
use waypost_core::{Code, codes};
use waypost_log::{
    AppendError, Batch, Commit, CommitError, DropReason, Durability, Log, PlanRecord, PlanVersion, Record,
    Timestamp, Usage, WriteError,
};

use self::reader::{Order, Past, Reader};
use crate::budget::Share;
use crate::context::Context;
use crate::logs::{NotedPast, PastRange, Unopened};
use crate::matching::recorded::{self, RecordedPlan};
use crate::matching::{Matcher, Row};
use crate::plan::{BrokerPlan, StartFrom};
use crate::subscription::Subscription;

/// A broker that takes events.
pub struct Broker {
    name: ResourceName,
    plan: ArcSwap<BrokerPlan>,
    log: Arc<dyn Log>,
    context: Arc<Context>,
    readers: Vec<mpsc::Sender<Order>>,
    subscriptions: Mutex<BTreeMap<ResourceName, Arc<Subscription>>>,
    accepting: AtomicBool,
    /// Whether the log is damaged and nobody has accepted it: nothing is taken until then.
    damaged: AtomicBool,
    received: AtomicU64,
    refused: AtomicU64,
    /// Events that matched nobody because they repeat earlier ones.
    repeated: Arc<AtomicU64>,
    /// Whether a trigger is owed so much that no more events are taken, and which and why.
    refusing: AtomicBool,
    /// The subscriptions whose backlog is to be looked at; none once these may have changed. Of a hundred thousand,
    /// every second, deliveries would feel the look.
    limited: Mutex<Option<Vec<Arc<Subscription>>>>,
    backlog: Mutex<Option<String>>,
    /// Why the newest set of triggers is not in force, where it is not.
    switch_failure: Mutex<Option<String>>,
    /// What an earlier process recorded, until the readers go on with it.
    recorded: Mutex<Option<Recorded>>,
    /// The triggers that were in force when an earlier process ended, until a set of this one is.
    in_force_before: Mutex<HashSet<ResourceName>>,
    /// The text of the newest recorded set of triggers; none before the first.
    newest: Mutex<Option<Bytes>>,
    /// The newest set of triggers of this process, which the next one is made from.
    matcher: Mutex<Option<Arc<Matcher>>>,
    /// Lost match lists are being recorded again.
    restoring: Arc<AtomicBool>,
    /// When detached triggers were last asked to make room.
    gave_up: Mutex<Timestamp>,
}

/// How often a full log looks for detached triggers that can make room.
const GIVE_UP_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// Why a broker did not take events. None of them is in its log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The log is at its size limit.
    #[error(
        "{0}; it goes on when triggers have worked off what they are owed and dead letters have gone to a dead-letter \
         sink, or when the limit is raised"
    )]
    Full(AppendError),
    /// A trigger is owed more than its `maxBacklog`, which says to refuse events then.
    #[error("{0}; the broker takes events again when it is owed less")]
    Backlog(String),
    /// More waits for the log's commit than may: the producer should come again soon.
    #[error("{0}; send the events again after a pause")]
    Busy(AppendError),
    /// The broker takes nothing now.
    #[error("the broker takes no events now: {reason}")]
    NotReady {
        /// Why, for people.
        reason: String,
        /// The stable code.
        code: Code,
    },
}

impl PublishError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Full(error) | Self::Busy(error) => error.code(),
            Self::Backlog(_) => codes::BACKLOG_EXCEEDED,
            Self::NotReady { code, .. } => *code,
        }
    }
}

/// What an earlier process recorded of how the log is to be matched.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// The sets of triggers that decide about what is not examined yet, oldest first.
    plans: Vec<RecordedPlan>,
    /// The triggers of the newest.
    triggers: HashSet<ResourceName>,
    pasts: Vec<(NotedPast, Filter)>,
    newest: Option<Bytes>,
}

impl Recorded {
    /// Reads it. What cannot be read keeps the broker from running: nothing is matched by a guess. Blocks.
    pub(crate) fn read(name: &ResourceName, log: &dyn Log, context: &Context) -> Result<Self, Unopened> {
        let records = log.plans();
        let matched: Vec<_> = (0..log.partitions()).map(|partition| log.matched(partition)).collect();
        let plans = recorded::in_force(&records, &matched);
        let plans = plans.iter().map(recorded::read).collect::<Result<_, _>>()?;
        let mut pasts = Vec::new();
        for past in context.logs.noted_pasts(log, name)? {
            if past.own_filter().is_some() {
                // Of a replay, which goes on with it itself.
                continue;
            }
            // Noted before the plan was recorded: without one there is no such trigger.
            let Some(record) = records.iter().find(|record| record.version == past.version()) else {
                continue;
            };
            let filters = recorded::read(record)?.filters;
            let filter = filters.into_iter().find(|(number, _)| *number == past.trigger());
            pasts.extend(filter.map(|(_, filter)| (past, filter)));
        }
        let newest = records.last();
        let triggers = newest.map_or(&[][..], |record| &record.triggers);
        Ok(Self {
            plans,
            triggers: triggers.iter().map(|(_, name)| name.clone()).collect(),
            pasts,
            newest: newest.map(|record| record.body.clone()),
        })
    }
}

/// A trigger's part of a switch to a new plan.
pub(crate) struct Taking {
    pub(crate) filter: Filter,
    pub(crate) subscription: Arc<Subscription>,
    /// Where a trigger that is new to the broker starts; none for one that goes on.
    pub(crate) start: Option<StartFrom>,
}

impl Broker {
    /// Starts a broker over its log: a reader for each partition, and no trigger yet.
    pub(crate) fn start(
        plan: Arc<BrokerPlan>,
        name: ResourceName,
        log: Arc<dyn Log>,
        mut recorded: Recorded,
        context: Arc<Context>,
    ) -> Arc<Self> {
        let damaged = !context.logs.damage(&name).is_empty();
        let mut readers = Vec::new();
        let repeated = Arc::<AtomicU64>::default();
        for partition in 0..log.partitions() {
            // One switch at a time: the supervisor waits for each.
            let (orders, receiver) = mpsc::channel(1);
            let reader =
                Reader::new(name.clone(), partition, Arc::clone(&log), receiver, Arc::clone(&repeated));
            context.dispatch.spawn("log readers", reader.run(context.dispatch.stop().clone()));
            readers.push(orders);
        }
        Arc::new(Self {
            name,
            plan: ArcSwap::new(plan),
            log,
            context,
            readers,
            subscriptions: Mutex::default(),
            accepting: AtomicBool::new(true),
            damaged: AtomicBool::new(damaged),
            received: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            repeated,
            refusing: AtomicBool::new(false),
            limited: Mutex::default(),
            backlog: Mutex::default(),
            switch_failure: Mutex::default(),
            newest: Mutex::new(recorded.newest.clone()),
            matcher: Mutex::default(),
            in_force_before: Mutex::new(std::mem::take(&mut recorded.triggers)),
            recorded: Mutex::new(Some(recorded)),
            restoring: Arc::default(),
            gave_up: Mutex::new(Timestamp(i64::MIN)),
        })
    }

    /// The resource.
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    /// The status with which ingress answers an accepted event.
    pub fn accepted_status(&self) -> u16 {
        self.plan.load().accepted_status
    }

    /// Why the newest set of triggers is not in force, where it is not.
    pub(crate) fn switch_failure(&self) -> Option<String> {
        self.switch_failure.lock().clone()
    }

    /// Whether every partition has its reader. One that is gone has panicked: its events are kept and not matched.
    pub(crate) fn is_reading(&self) -> bool {
        self.readers.iter().all(|reader| !reader.is_closed())
    }

    /// Looks whether the log is damaged.
    pub(crate) fn look_for_damage(&self) {
        let damaged = !self.context.logs.damage(&self.name).is_empty();
        self.damaged.store(damaged, Ordering::Relaxed);
    }

    /// Whether the log was found damaged, and nobody has accepted it.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn strict_replies(&self) -> bool {
        self.plan.load().strict_replies
    }

    /// Takes events, as one commit. `share` is their part of the ingest budget, given back when the log no longer
    /// holds them for the commit. They are accepted only when the commit resolves; dropping it undoes nothing. Whoever calls
    /// does nothing else until it has: others may be told by them ([`Batch::only_waits`]).
    pub fn publish(
        &self,
        records: impl IntoIterator<Item = Record>,
        share: Option<Share>,
    ) -> Result<Commit, PublishError> {
        let batch = Batch { only_waits: true, ..Batch::of(records) };
        self.offer(&mut match share {
            Some(share) => batch.holding(share),
            None => batch,
        })
    }

    /// Takes a batch as a producer's. Where it is refused, nothing is taken out of it.
    pub(crate) fn offer(&self, batch: &mut Batch) -> Result<Commit, PublishError> {
        let count = batch.records.len() as u64;
        if !self.accepting.load(Ordering::Relaxed) {
            return Err(PublishError::NotReady {
                reason: "it is detached or shutting down".to_owned(),
                code: codes::LOG_CLOSED,
            });
        }
        if self.damaged.load(Ordering::Relaxed) {
            return Err(PublishError::NotReady {
                reason: format!(
                    "its log is corrupt; see `waypost status`, and accept what is lost with `waypost log \
                     accept-damage {}`",
                    self.name
                ),
                code: codes::LOG_CORRUPT,
            });
        }
        if self.refusing.load(Ordering::Relaxed)
            && let Some(reason) = self.backlog.lock().clone()
        {
            self.refused.fetch_add(count, Ordering::Relaxed);
            return Err(PublishError::Backlog(reason));
        }
        match self.log.offer(batch) {
            Ok(commit) => {
                self.received.fetch_add(count, Ordering::Relaxed);
                Ok(commit)
            }
            Err(error) => {
                self.refused.fetch_add(count, Ordering::Relaxed);
                Err(match error {
                    AppendError::Full { .. } => {
                        self.make_room();
                        PublishError::Full(error)
                    }
                    AppendError::Busy => PublishError::Busy(error),
                    _ => PublishError::NotReady { reason: error.to_string(), code: error.code() },
                })
            }
        }
    }

    /// Takes events that a delivery of another broker caused, and waits until they are durable.
    pub(crate) async fn append_caused(&self, mut batch: Batch) -> Result<(), DeliveryError> {
        let refused =
            |detail: String| DeliveryError::retryable(codes::REPLY_NOT_APPENDED, detail).congested();
        let commit = self.offer(&mut batch).map_err(|error| refused(error.to_string()))?;
        commit.await.map(|_| ()).map_err(|error| {
            self.not_committed(&error);
            refused(error.to_string())
        })
    }

    /// To be told of every commit that failed: where there was no room, what is detached makes some.
    pub fn not_committed(&self, error: &CommitError) {
        if error.full {
            self.make_room();
        }
    }

    /// Gives up what is detached, which is the first to go.
    fn make_room(&self) {
        self.give_up_detached();
        if self.log.durability() != Durability::Memory {
            // All logs on disk share one limit: what is detached elsewhere goes as well.
            self.context.disk_full.store(true, Ordering::Relaxed);
        }
    }

    /// The newest checkpoint of a source.
    pub(crate) fn checkpoint(&self, source: &ResourceName) -> Option<Bytes> {
        self.log.checkpoint(source)
    }

    pub(crate) fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// The newest set of triggers of this process, where there is one.
    pub(crate) fn newest_matcher(&self) -> Option<Arc<Matcher>> {
        self.matcher.lock().clone()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.log.usage()
    }

    /// Events taken and refused since the start of the process.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Events that matched nobody because they repeat earlier ones, since the start of the process.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Which events the newest plan takes for repeats.
    pub(crate) fn deduplication(&self) -> Option<Deduplication> {
        self.plan.load().deduplication
    }

    pub(crate) fn set_plan(&self, plan: Arc<BrokerPlan>) {
        self.context.logs.set_retention(&self.name, &plan);
        self.plan.store(plan);
        self.accepting.store(true, Ordering::Relaxed);
    }

    /// Takes no more events; whatever is committed stays.
    pub(crate) fn close_intake(&self) {
        self.accepting.store(false, Ordering::Relaxed);
    }

    /// Every subscription that the broker ever had in this process, detached ones included.
    pub(crate) fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        self.subscriptions.lock().values().cloned().collect()
    }

    pub(crate) fn subscription(&self, trigger: &ResourceName) -> Option<Arc<Subscription>> {
        self.subscriptions.lock().get(trigger).cloned()
    }

    pub(crate) fn add_subscription(&self, subscription: Arc<Subscription>) {
        self.subscriptions.lock().insert(subscription.name.clone(), subscription);
        self.limits_changed();
    }

    /// Forgets a subscription that was detached for longer than detached data is kept.
    pub(crate) fn forget_subscription(&self, trigger: &ResourceName) {
        let subscription = self.subscriptions.lock().remove(trigger);
        self.limits_changed();
        if let Some(subscription) = subscription {
            subscription.stop();
            self.log.forget(subscription.number);
        }
    }

    /// A subscription came, went or delivers otherwise: it may have another `maxBacklog`.
    pub(crate) fn limits_changed(&self) {
        *self.limited.lock() = None;
    }

    fn limited(&self) -> Vec<Arc<Subscription>> {
        let mut limited = self.limited.lock();
        let look = || {
            let all = self.subscriptions.lock();
            all.values().filter(|subscription| subscription.limits_backlog()).cloned().collect()
        };
        limited.get_or_insert_with(look).clone()
    }

    /// Keeps triggers within their `maxBacklog`, and refuses events while one asks for that.
    pub(crate) async fn limit_backlogs(&self) {
        let mut refused = None;
        for subscription in self.limited() {
            subscription.limit_backlog().await;
            refused = refused.or_else(|| subscription.refuses());
        }
        let refuses = refused.is_some();
        *self.backlog.lock() = refused;
        self.refusing.store(refuses, Ordering::Relaxed);
    }

    /// Makes room by giving up what detached triggers are owed: they are the first to go at the limit.
    pub(crate) fn give_up_detached(&self) {
        let now = self.context.clock.now();
        {
            let mut gave_up = self.gave_up.lock();
            if now.since(*gave_up) < GIVE_UP_EVERY {
                return;
            }
            *gave_up = now;
        }
        for subscription in self.subscriptions() {
            if subscription.is_detached() && subscription.standing().counts.pending > 0 {
                match subscription.drop_pending(DropReason::Detached) {
                    Ok(dropped) => tracing::warn!(
                        trigger = %subscription.name, broker = %self.name, dropped,
                        "the log is full: what a detached trigger was owed is dropped"
                    ),
                    Err(error) => tracing::error!(
                        trigger = %subscription.name, code = error.code().id(), %error,
                        "what a detached trigger was owed cannot be dropped"
                    ),
                }
            }
        }
    }

    /// The triggers that were in force when an earlier process ended; none once a set of this one is in force.
    pub(crate) fn in_force_before(&self) -> HashSet<ResourceName> {
        self.in_force_before.lock().clone()
    }

    /// The newest set of triggers is in force, or is not and the one before stays, for this reason.
    pub(crate) fn switched(&self, failure: Option<String>) {
        if failure.is_none() {
            self.in_force_before.lock().clear();
        }
        *self.switch_failure.lock() = failure;
    }

    /// Lets the readers go on where an earlier process stopped, by the sets of triggers that it recorded. Once every
    /// trigger that the log knows has its subscription, and before the first [`Broker::switch`].
    pub(crate) async fn go_on(&self) {
        let Some(Recorded { plans, pasts, .. }) = self.recorded.lock().take() else { return };
        let by_number: BTreeMap<_, _> = self
            .subscriptions()
            .into_iter()
            .map(|subscription| (subscription.number, subscription))
            .collect();
        let mut matchers = vec![Vec::new(); self.readers.len()];
        for RecordedPlan { version, effective, filters, deduplication } in plans {
            let row =
                |(number, filter)| Row { filter, number, subscription: by_number.get(&number).cloned() };
            let rows = filters.into_iter().map(row).collect();
            let Some(matcher) = self.matcher(version, deduplication, rows).await else { return };
            *self.matcher.lock() = Some(Arc::clone(&matcher));
            for (matchers, from) in matchers.iter_mut().zip(effective) {
                matchers.push((from, Arc::clone(&matcher)));
            }
        }
        for (noted, filter) in pasts {
            // Without one the trigger is forgotten.
            let Some(subscription) = by_number.get(&noted.trigger()) else { continue };
            if noted.left.is_empty() {
                continue;
            }
            subscription.hold();
            let (subscription, broker) = (Arc::clone(subscription), self.name.clone());
            self.match_past(Past { broker, filter, subscription, noted });
        }
        for (reader, matchers) in self.readers.iter().zip(matchers) {
            // A reader that is gone has been stopped with the process.
            let _gone = reader.send(Order::GoOn(matchers)).await;
        }
    }

    fn match_past(&self, past: Past) {
        let stop = self.context.dispatch.stop().clone();
        let run = past.run(Arc::clone(&self.log), self.context.logs.clone(), stop);
        self.context.dispatch.spawn("readers of the past", async move {
            // What is left of it at a stop is noted.
            let _whether_all = run.await;
        });
    }

    /// Whether the newest set of triggers that was recorded matches as this text says.
    pub(crate) fn matches_by(&self, body: &Bytes) -> bool {
        self.newest.lock().as_ref() == Some(body)
    }

    /// Brings a new set of triggers into force, at one position of each partition (P5).
    ///
    /// The readers stop and say from where on the new set decides: from the end of the log on. The plan is recorded with
    /// those places; only then do they go on, and by the new set once they come there. When it cannot be recorded
    /// they go on by the old one.
    pub(crate) async fn switch(
        &self,
        version: PlanVersion,
        body: Bytes,
        deduplication: Option<Deduplication>,
        taking: Vec<Taking>,
    ) -> Result<(), WriteError> {
        let row = |row: &Taking| {
            let subscription = Some(Arc::clone(&row.subscription));
            Row { filter: row.filter.clone(), number: row.subscription.number, subscription }
        };
        // Made first, for the readers stand still from then on.
        let matcher = self.matcher(version, deduplication, taking.iter().map(row).collect()).await;
        let matcher = matcher.ok_or(WriteError::Closed)?;
        let mut effective = Vec::with_capacity(self.readers.len());
        let mut stopped = Vec::with_capacity(self.readers.len());
        for reader in &self.readers {
            let (at, offset) = oneshot::channel();
            let (go, matcher) = oneshot::channel();
            if reader.send(Order::Switch { at, matcher }).await.is_err() {
                return Err(WriteError::Closed);
            }
            effective.push(offset.await.map_err(|_| WriteError::Closed)?);
            stopped.push(go);
        }
        let triggers =
            taking.iter().map(|row| (row.subscription.number, row.subscription.name.clone())).collect();
        let mut starts = Vec::new();
        for row in &taking {
            if let Some(start) = row.start {
                starts.push((row, self.starts(row, start, &effective).await));
            }
        }
        let mut pasts = Vec::new();
        for (row, starts) in &starts {
            // Noted before the plan is recorded, so that no crash lets it be forgotten.
            pasts.extend(self.past(row, starts, &effective, version).await?);
        }
        let record = PlanRecord { version, effective: effective.clone(), triggers, body: body.clone() };
        self.log.record_plan(record).await?;
        *self.newest.lock() = Some(body);
        for (row, starts) in starts {
            for (partition, from) in (0..).zip(starts) {
                row.subscription.begin(partition, from);
            }
        }
        for past in &pasts {
            past.subscription.hold();
        }
        matcher.forget_spending();
        *self.matcher.lock() = Some(Arc::clone(&matcher));
        for go in stopped {
            // A reader that is gone has been stopped with the process.
            let _gone = go.send(Arc::clone(&matcher));
        }
        pasts.into_iter().for_each(|past| self.match_past(past));
        Ok(())
    }

    /// Makes the next set of triggers from the newest one. None where the process ends meanwhile.
    async fn matcher(
        &self,
        version: PlanVersion,
        deduplication: Option<Deduplication>,
        rows: Vec<Row>,
    ) -> Option<Arc<Matcher>> {
        let previous = self.matcher.lock().clone();
        let making = move || Matcher::next(previous.as_deref(), version, deduplication, rows);
        match tokio::task::spawn_blocking(making).await {
            Ok(matcher) => Some(Arc::new(matcher)),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_cancelled) => None,
        }
    }

    /// Where a new trigger starts in each partition.
    async fn starts(&self, row: &Taking, start: StartFrom, effective: &[u64]) -> Vec<u64> {
        let mut starts = Vec::with_capacity(effective.len());
        for (partition, effective) in (0..).zip(effective) {
            let from = match start {
                StartFrom::Latest => *effective,
                StartFrom::Earliest => self.log.bounds(partition).start,
                StartFrom::Time(nanoseconds) => {
                    match self.log.first_since(partition, Timestamp(nanoseconds)).await {
                        Ok(offset) => offset,
                        Err(error) => {
                            tracing::warn!(
                                trigger = %row.subscription.name, code = error.code().id(), %error,
                                "the start of the trigger cannot be found by time; it starts with new events"
                            );
                            *effective
                        }
                    }
                }
            };
            starts.push(from.min(*effective));
        }
        starts
    }

    /// What lies between a trigger's start and the place where the plan takes effect has to be matched for it alone.
    /// It is noted here.
    async fn past(
        &self,
        row: &Taking,
        starts: &[u64],
        effective: &[u64],
        version: PlanVersion,
    ) -> Result<Option<Past>, WriteError> {
        let range =
            |(partition, (from, to)): (u16, (&u64, &u64))| PastRange { partition, from: *from, to: *to };
        let ranges = (0..).zip(starts.iter().zip(effective)).map(range).filter(|range| range.from < range.to);
        let ranges: Vec<PastRange> = ranges.collect();
        if ranges.is_empty() {
            return Ok(None);
        }
        let subscription = Arc::clone(&row.subscription);
        let noted = NotedPast::new(subscription.number, version, ranges);
        self.context.logs.note_past(&*self.log, &self.name, &subscription.name, &noted).await?;
        Ok(Some(Past { broker: self.name.clone(), filter: row.filter.clone(), subscription, noted }))
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("name", &self.name).finish_non_exhaustive()
    }
}
