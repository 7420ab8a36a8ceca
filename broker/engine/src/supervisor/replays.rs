//! Replays: started once each, by a manifest or through the admin API, and brought into line with the plan.

mod asked;
mod report;
mod sending;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use waypost_core::manifest::{ResourceName, read_filter};
use waypost_log::{DropReason, Durability, WriteError};

use self::sending::{filter_of, fixed_of, planned_of, sending, written};
use super::known::unknown;
use super::{RecountLine, Supervisor, recount_of};
use crate::broker::Broker;
use crate::logs::past_name;
use crate::plan::{Family, Plan, ReplayPlan, ReplayTarget, ResourceKey};
use crate::replay::{
    Ended, MAX_REPLAYS, Outcomes, REPLAYS, Replay, ReplayError, ReplayOrigin, ReplayRecord, ReplayState,
    Resolved, Run, Running, kept_name, resolve, subscription_name,
};
use crate::subscription::{Delivering, Subscription};

/// So many replays count what matches at one time.
const COUNTED_AT_ONCE: usize = 2;

/// The replays that are known here.
pub(super) struct Replays {
    known: Mutex<BTreeMap<ResourceName, Arc<Replay>>>,
    /// Why each that a manifest declares has not started.
    unstarted: Mutex<BTreeMap<ResourceName, String>>,
    /// Whether those of earlier processes have been read.
    read: AtomicBool,
    counting: Arc<Semaphore>,
}

impl Default for Replays {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            unstarted: Mutex::default(),
            read: AtomicBool::default(),
            counting: Arc::new(Semaphore::new(COUNTED_AT_ONCE)),
        }
    }
}

impl Replays {
    fn all(&self) -> Vec<Arc<Replay>> {
        self.known.lock().values().cloned().collect()
    }

    fn get(&self, name: &ResourceName) -> Option<Arc<Replay>> {
        self.known.lock().get(name).cloned()
    }

    fn find(&self, name: &ResourceName) -> Result<Arc<Replay>, ReplayError> {
        self.get(name).ok_or_else(|| ReplayError::Unknown(name.clone()))
    }
}

impl Supervisor {
    /// Starts the replays that the plan has for the first time, changes how the others deliver, and cancels those whose
    /// manifest is gone. With the triggers of the plan in force.
    pub(super) async fn apply_replays(&self, plan: &Plan) {
        self.read_replays().await;
        let replays = &self.0.replays;
        let invalid = plan.invalid();
        for replay in replays.all() {
            let key = ResourceKey::new(Family::Replay, replay.name.clone());
            let record = replay.record();
            let planned = match &record.origin {
                ReplayOrigin::Manifest => plan.replays.get(&replay.name).cloned(),
                ReplayOrigin::Api { document } => self.planned_again(plan, &replay, document),
            };
            let gone =
                record.origin == ReplayOrigin::Manifest && planned.is_none() && !invalid.contains(&key);
            if gone && !record.state.has_ended() {
                tracing::info!(replay = %replay.name, "no manifest declares the replay any more: it is cancelled");
                if let Err(error) = self.cancel(&replay).await {
                    tracing::error!(replay = %replay.name, code = error.code().id(), %error, "the replay cannot be cancelled");
                }
            }
            self.bring_into_line(plan, &replay, planned.as_deref()).await;
        }
        let mut unstarted = BTreeMap::new();
        for (name, planned) in plan.replays.iter().filter(|(name, _)| replays.get(name).is_none()) {
            if let Err(error) = self.begin(plan, planned, ReplayOrigin::Manifest).await {
                unstarted.insert(name.clone(), error.to_string());
            }
        }
        *replays.unstarted.lock() = unstarted;
    }

    /// Tries again to start what could not be started.
    pub(super) async fn begin_again(&self, plan: &Plan) {
        if !self.0.replays.unstarted.lock().is_empty() {
            self.apply_replays(plan).await;
        }
    }

    /// Reads what earlier processes kept, once.
    async fn read_replays(&self) {
        if self.0.replays.read.swap(true, Ordering::Relaxed) {
            return;
        }
        let logs = self.0.context.logs.clone();
        let kept = match tokio::task::spawn_blocking(move || logs.kept(REPLAYS)).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => {
                tracing::error!(code = error.code().id(), %error, "the replays of earlier processes cannot be read");
                return;
            }
            // The runtime ends.
            Err(_) => return,
        };
        for (key, value) in kept {
            let name = key.strip_prefix(REPLAYS).and_then(|name| name.split_once('/'));
            let read = serde_json::from_slice::<ReplayRecord>(&value);
            let (Some((namespace, name)), Ok(record)) = (name, read) else {
                tracing::error!(
                    key,
                    "a replay that was kept cannot be read by this version; it does not go on"
                );
                continue;
            };
            let name = ResourceName::new(namespace, name);
            let lost = record.in_memory && !record.state.has_ended();
            let replay = Replay::new(name.clone(), record);
            if lost {
                self.end_lost(&replay, "the log was in memory, and is lost with the process before").await;
            }
            self.0.replays.known.lock().insert(name, replay);
        }
    }

    /// Ends a replay whose log is gone.
    async fn end_lost(&self, replay: &Replay, why: &str) {
        let now = self.0.context.clock.now().0;
        let outcomes = replay.counts();
        let ended = |record: &mut ReplayRecord| {
            record.forgotten = true;
            record.outcomes = outcomes.clone();
            if !record.state.has_ended() {
                record.state = ReplayState::Cancelled;
                record.ended_at = Some(now);
                record.notices.push(why.to_owned());
            }
        };
        if let Err(error) = replay.change(&self.0.context.logs, ended).await {
            tracing::error!(replay = %replay.name, code = error.code().id(), %error, "the end of a replay cannot be written down");
        }
    }

    /// What the admin API was asked for, as the plan of now has it.
    fn planned_again(
        &self,
        plan: &Plan,
        replay: &Replay,
        document: &serde_json::Value,
    ) -> Option<Arc<ReplayPlan>> {
        match planned_of(plan, document) {
            Ok(planned) => Some(Arc::new(planned)),
            Err(error) => {
                replay.set_waits_for(Some(error.to_string()));
                None
            }
        }
    }

    /// Has a replay that was started deliver as the plan says now, or halts it while that cannot be said.
    async fn bring_into_line(&self, plan: &Plan, replay: &Arc<Replay>, planned: Option<&ReplayPlan>) {
        let record = replay.record();
        let fixed = planned.map(fixed_of);
        let of_manifest = record.origin == ReplayOrigin::Manifest;
        // Whoever declares one that the admin API was asked for asks for something else, too.
        let declared = plan.replays.get(&replay.name).filter(|_| !of_manifest);
        let fixed = if declared.is_some() { Some(String::new()) } else { fixed };
        replay.set_planned(planned, fixed.as_deref());
        if record.forgotten {
            return;
        }
        let Some(broker) = self.broker(&record.broker) else {
            replay.set_waits_for(Some(format!("its broker {} does not run", record.broker)));
            return;
        };
        let sending = match planned {
            Some(planned) => sending(plan, planned, replay.is_paused()),
            None => Err(replay.waits_for().unwrap_or_else(|| "no manifest declares it any more".to_owned())),
        };
        let (delivering, fingerprint) = match &sending {
            Ok(trigger) => {
                let fingerprint = format!("{:?} {}", trigger.fingerprint, broker.strict_replies());
                (self.delivering(trigger, &broker), fingerprint)
            }
            Err(_) => (unknown(&replay.name), String::new()),
        };
        if let Some(subscription) = replay.subscription() {
            if sending.is_ok() && replay.set_fingerprint(&fingerprint) {
                subscription.set_delivering(delivering);
            }
        } else if let Err(error) = self.go_on(replay, &record, &broker, delivering, fingerprint).await {
            replay.set_waits_for(Some(error));
            return;
        }
        let Some(subscription) = replay.subscription() else { return };
        let waits_for = sending.err();
        if waits_for.is_some() && !record.state.has_ended() {
            subscription.detach();
        } else {
            subscription.attach();
        }
        replay.set_waits_for(waits_for.filter(|_| !record.state.has_ended()));
    }

    /// Gives a replay its subscription in this process, and has it go on where it was.
    async fn go_on(
        &self,
        replay: &Arc<Replay>,
        record: &ReplayRecord,
        broker: &Arc<Broker>,
        delivering: Delivering,
        fingerprint: String,
    ) -> Result<(), String> {
        let filter = read_filter(record.filter.clone()).map_err(|error| error.to_string())?;
        let context = &self.0.context;
        let log = Arc::clone(broker.log());
        let name = subscription_name(&replay.name);
        let subscription =
            Subscription::new(name, broker.name().clone(), Arc::clone(&log), Arc::clone(context), delivering);
        let (stop, ended) = (context.dispatch.stop().child_token(), CancellationToken::new());
        let running = Running {
            subscription: Arc::clone(&subscription),
            log: Arc::clone(&log),
            fingerprint,
            stop: stop.clone(),
            ended: ended.clone(),
        };
        replay.set_running(running);
        if record.state.has_ended() {
            ended.cancel();
            if record.state == ReplayState::Cancelled {
                // A process that ended in between may not have dropped all of it.
                self.give_up_replay(replay).await.map_err(|error| error.to_string())?;
            }
            return Ok(());
        }
        // Nothing is taken before all of the range is matched.
        subscription.hold();
        for range in &record.ranges {
            log.ledger(range.partition, subscription.number).reserve(Some(range.from));
            subscription.begin(range.partition, range.from);
        }
        let run = Run {
            replay: Arc::clone(replay),
            broker: broker.name().clone(),
            subscription,
            log,
            logs: context.logs.clone(),
            clock: context.clock.clone(),
            filter,
            stop,
            counting: Arc::clone(&self.0.replays.counting),
        };
        context.dispatch.spawn("replays", run.run(Ended(ended)));
        Ok(())
    }

    /// Starts a replay for the first and only time.
    async fn begin(
        &self,
        plan: &Plan,
        planned: &ReplayPlan,
        origin: ReplayOrigin,
    ) -> Result<Arc<Replay>, ReplayError> {
        let name = planned.id.resource_name();
        let (broker, resolved) = self.resolve_replay(plan, planned).await?;
        if self.0.replays.known.lock().len() >= MAX_REPLAYS {
            return Err(ReplayError::TooMany);
        }
        let filter = filter_of(plan, planned)?;
        let record = ReplayRecord {
            paused: origin != ReplayOrigin::Manifest && planned.paused,
            origin,
            broker: planned.broker.clone(),
            trigger: match &planned.target {
                ReplayTarget::Trigger(name) => Some(name.clone()),
                ReplayTarget::Subscriber(_) => None,
            },
            fixed: fixed_of(planned),
            from: written(planned.from, "earliest"),
            to: written(planned.to, "latest"),
            ranges: resolved.ranges,
            filter: serde_json::to_value(&filter).expect("a filter is maps and strings"),
            state: ReplayState::Counting,
            expected: None,
            notices: resolved.notices,
            started_at: self.0.context.clock.now().0,
            ended_at: None,
            outcomes: Outcomes::default(),
            forgotten: false,
            in_memory: broker.log().durability() == Durability::Memory,
        };
        for notice in &record.notices {
            tracing::info!(replay = %name, "{notice}");
        }
        let replay = Replay::new(name.clone(), record);
        // Durable before anything is done for it: it never starts twice.
        replay.change(&self.0.context.logs, |_| {}).await.map_err(ReplayError::Unwritten)?;
        self.0.replays.known.lock().insert(name, Arc::clone(&replay));
        self.bring_into_line(plan, &replay, Some(planned)).await;
        Ok(replay)
    }

    async fn resolve_replay(
        &self,
        plan: &Plan,
        planned: &ReplayPlan,
    ) -> Result<(Arc<Broker>, Resolved), ReplayError> {
        let stopped = || ReplayError::BrokerStopped(planned.broker.clone());
        let broker = self.broker(&planned.broker).filter(|_| plan.brokers.contains_key(&planned.broker));
        let broker = broker.ok_or_else(stopped)?;
        let now = self.0.context.clock.now();
        let resolved = resolve(&**broker.log(), planned, now).await?;
        // Without its trigger there is nothing to send as, and no filter.
        sending(plan, planned, false).map_err(ReplayError::Range)?;
        Ok((broker, resolved))
    }

    async fn cancel(&self, replay: &Replay) -> Result<(), ReplayError> {
        replay.stop_reading().await;
        // It may have come to its end meanwhile.
        if replay.state().has_ended() {
            return Ok(());
        }
        let now = self.0.context.clock.now().0;
        let cancelled = |record: &mut ReplayRecord| {
            record.state = ReplayState::Cancelled;
            record.ended_at = Some(now);
        };
        replay.change(&self.0.context.logs, cancelled).await.map_err(ReplayError::Unwritten)?;
        replay.set_waits_for(None);
        self.give_up_replay(replay).await.map_err(ReplayError::Unwritten)?;
        tracing::info!(replay = %replay.name, "the replay is cancelled");
        Ok(())
    }

    /// Drops what a cancelled replay has left.
    async fn give_up_replay(&self, replay: &Replay) -> Result<(), WriteError> {
        if let Some(subscription) = replay.subscription() {
            subscription.detach();
            subscription.drop_pending(DropReason::Operator)?;
            replay.release_log();
        }
        let outcomes = replay.counts();
        let dropped = |record: &mut ReplayRecord| record.outcomes = outcomes.clone();
        replay.change(&self.0.context.logs, dropped).await
    }

    /// Forgets the ledgers of replays that ended long ago, and all of those that nothing declares.
    pub(super) async fn forget_replays(&self) {
        let now = self.0.context.clock.now();
        let retention = self.0.context.detached_retention;
        let applied = self.applied();
        let invalid = applied.plan.invalid();
        for replay in self.0.replays.all() {
            let record = replay.record();
            let ended = record.ended_at.map(waypost_log::Timestamp);
            if ended.is_none_or(|ended| now.since(ended) < retention) {
                continue;
            }
            if !record.forgotten && !self.forget_ledger(&replay).await {
                continue;
            }
            let key = ResourceKey::new(Family::Replay, replay.name.clone());
            let declared = applied.plan.replays.contains_key(&replay.name) || invalid.contains(&key);
            if declared && record.origin == ReplayOrigin::Manifest {
                continue;
            }
            match self.0.context.logs.keep(vec![(kept_name(&replay.name), None)]).await {
                Ok(()) => drop(self.0.replays.known.lock().remove(&replay.name)),
                Err(error) => {
                    tracing::error!(replay = %replay.name, code = error.code().id(), %error, "a replay cannot be forgotten");
                }
            }
        }
    }

    async fn forget_ledger(&self, replay: &Replay) -> bool {
        // Where its broker does not run its log may run later.
        let Some(running) = replay.take_running() else { return false };
        running.subscription.stop();
        let outcomes = Outcomes::of(&running.subscription.standing().counts);
        let forgotten = |record: &mut ReplayRecord| {
            record.outcomes = outcomes.clone();
            record.forgotten = true;
        };
        let logs = &self.0.context.logs;
        let past = past_name(&replay.broker(), &running.subscription.name);
        let written = match replay.change(logs, forgotten).await {
            Ok(()) => logs.keep(vec![(past, None)]).await,
            error => error,
        };
        if let Err(error) = written {
            tracing::error!(replay = %replay.name, code = error.code().id(), %error, "the ledger of a replay cannot be forgotten");
            return false;
        }
        running.log.forget(running.subscription.number);
        true
    }

    /// Ends the replays of a broker that is forgotten with its events. Returns what is to be taken out of what is kept.
    pub(super) async fn end_replays_of(&self, broker: &ResourceName) -> Vec<String> {
        let mut pasts = Vec::new();
        for replay in self.0.replays.all().into_iter().filter(|replay| replay.broker() == *broker) {
            pasts.push(past_name(broker, &subscription_name(&replay.name)));
            replay.stop_reading().await;
            if let Some(subscription) = replay.subscription() {
                subscription.stop();
                if let Err(error) = subscription.drop_pending(DropReason::Detached) {
                    tracing::error!(replay = %replay.name, code = error.code().id(), %error, "a replay cannot be dropped");
                }
            }
            self.end_lost(&replay, "its broker was detached for too long, and is forgotten").await;
            replay.take_running();
        }
        pasts
    }

    /// Makes no more attempts for the rest of the process.
    pub(super) fn stop_replays(&self) {
        for subscription in self.0.replays.all().iter().filter_map(|replay| replay.subscription()) {
            subscription.stop();
        }
    }

    /// Counts anew what replays are owed.
    pub(super) fn recount_replays(&self) -> Vec<RecountLine> {
        let running = self.0.replays.all();
        running
            .iter()
            .filter_map(|replay| replay.with_running(|run| recount_of(&run.log, &run.subscription)))
            .collect()
    }
}
