//! Brings what runs into line with the plan, and tells how it stands.

mod dead_letters;
mod expiry;
mod known;
mod opening;
mod replays;
mod report;
mod subscriptions;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;
use waypost_core::manifest::ResourceName;
use waypost_log::{Durability, Log, PlanVersion, Position, Timestamp, WriteError};

use self::replays::Replays;
use crate::broker::Broker;
use crate::context::Context;
use crate::engine::RecountLine;
use crate::matching::recorded;
use crate::plan::{Plan, SinkPlan, SourcePlan, TransformationPlan, TriggerPlan};
use crate::replay::replay_of;
use crate::sinks::RunningSink;
use crate::sources::RunningSource;
use crate::subscription::{OperateError, SeekTo, Subscription};
use crate::tasks::Tasks;

/// Owns everything that runs.
#[derive(Clone)]
pub(crate) struct Supervisor(Arc<Inner>);

struct Inner {
    context: Arc<Context>,
    // One change at a time: held over awaits, and never on the way of an event.
    applying: tokio::sync::Mutex<()>,
    /// Nothing is applied any more.
    stopped: AtomicBool,
    running: Mutex<Running>,
    applied: ArcSwap<Applied>,
    sources: Tasks,
    sinks: Tasks,
    replays: Replays,
}

/// The plan in force, for the status.
pub(crate) struct Applied {
    pub(crate) plan: Arc<Plan>,
    pub(crate) version: u64,
    pub(crate) at: Timestamp,
}

#[derive(Default)]
struct Running {
    brokers: BTreeMap<ResourceName, RunningBroker>,
    sinks: BTreeMap<ResourceName, (Arc<SinkPlan>, Arc<RunningSink>)>,
    sources: BTreeMap<ResourceName, (Arc<SourcePlan>, Arc<RunningSource>)>,
    /// Sources that were told to stop and may not have ended yet.
    ending: Vec<Arc<RunningSource>>,
}

struct RunningBroker {
    broker: Arc<Broker>,
    detached_since: Option<Timestamp>,
    /// What each trigger that is in force was planned as.
    in_force: BTreeMap<ResourceName, Arc<TriggerPlan>>,
    triggers_detached_since: BTreeMap<ResourceName, Timestamp>,
}

/// What triggers may send to until they have changed.
#[derive(Default)]
struct Gone {
    /// Also those that others of the same name replace.
    sinks: Vec<(ResourceName, Arc<RunningSink>)>,
    transformations: BTreeMap<ResourceName, Arc<TransformationPlan>>,
}

/// A broker whose newest set of triggers is in force.
struct Switched {
    broker: Arc<Broker>,
    wanted: BTreeMap<ResourceName, Arc<TriggerPlan>>,
}

impl Supervisor {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let applied = Applied { plan: Arc::default(), version: 0, at: context.clock.now() };
        Self(Arc::new(Inner {
            context,
            applying: tokio::sync::Mutex::new(()),
            stopped: AtomicBool::new(false),
            running: Mutex::default(),
            applied: ArcSwap::from_pointee(applied),
            sources: Tasks::new(),
            sinks: Tasks::new(),
            replays: Replays::default(),
        }))
    }

    /// See [`crate::Engine::apply`].
    pub(crate) async fn apply(&self, plan: Arc<Plan>, version: u64) {
        let _one_at_a_time = self.0.applying.lock().await;
        if self.0.stopped.load(Ordering::Relaxed) {
            return;
        }
        self.stop_sources(&plan);
        let gone = Gone {
            sinks: self.apply_sinks(&plan),
            transformations: self.0.applied.load().plan.transformations.clone(),
        };
        self.publish_components(&plan, &gone);
        self.apply_brokers(&plan).await;
        let version = PlanVersion(version);
        let (there, new): (Vec<_>, Vec<_>) =
            self.broker_names().into_iter().partition(|name| self.is_published(name));
        let mut switched = Vec::new();
        for name in new {
            switched.extend(self.switch_triggers(&plan, name, version).await);
        }
        // A new broker takes events once its readers know what decides about them, and before a trigger of any broker sends
        // to it.
        self.publish_brokers(&there);
        for name in there {
            switched.extend(self.switch_triggers(&plan, name, version).await);
        }
        for switched in switched {
            self.attach_triggers(&plan, switched);
        }
        self.apply_replays(&plan).await;
        self.publish_brokers(&[]);
        self.publish_components(&plan, &Gone::default());
        for (_, sink) in gone.sinks {
            sink.retire();
        }
        self.start_sources(&plan);
        let at = self.0.context.clock.now();
        self.0.applied.store(Arc::new(Applied { plan, version: version.0, at }));
    }

    /// Starts the sinks that are new or changed. Returns those that they replace, and those that are gone, which
    /// are retired once no trigger sends to them any more.
    fn apply_sinks(&self, plan: &Plan) -> Vec<(ResourceName, Arc<RunningSink>)> {
        let mut running = self.0.running.lock();
        let mut before = std::mem::take(&mut running.sinks);
        for (name, planned) in &plan.sinks {
            let unchanged = before.get(name).is_some_and(|(was, _)| was.fingerprint == planned.fingerprint);
            // One that is changed stays among those before, which are retired.
            let kept = if unchanged { before.remove(name) } else { None };
            let sink = if let Some((_, sink)) = kept {
                sink
            } else {
                let sink = RunningSink::new(name.clone());
                let run = Arc::clone(&sink).run(Arc::clone(&planned.config), plan.secrets.clone());
                self.0.sinks.spawn("sinks", run);
                sink
            };
            running.sinks.insert(name.clone(), (Arc::clone(planned), sink));
        }
        before.into_iter().map(|(name, (_, sink))| (name, sink)).collect()
    }

    /// Lets the sinks and transformations of a plan be found, and where it has none of that name those that are gone.
    fn publish_components(&self, plan: &Plan, gone: &Gone) {
        let directory = &self.0.context.directory;
        let running = self.0.running.lock();
        let sinks = running.sinks.iter().map(|(name, (_, sink))| (name.clone(), Arc::clone(sink)));
        directory.set_sinks(gone.sinks.iter().cloned().chain(sinks));
        let transformations = gone.transformations.iter().chain(&plan.transformations);
        directory
            .set_transformations(transformations.map(|(name, planned)| (name.clone(), Arc::clone(planned))));
    }

    /// Starts new brokers, and takes those that no manifest declares out of service.
    async fn apply_brokers(&self, plan: &Plan) {
        let context = &self.0.context;
        let mut opened = self.open_logs(plan).await;
        let mut running = self.0.running.lock();
        for (name, planned) in plan.brokers.iter().chain(&plan.detached.brokers) {
            let attached = plan.brokers.contains_key(name);
            match running.brokers.get_mut(name) {
                Some(broker) if attached => {
                    broker.broker.set_plan(Arc::clone(planned));
                    broker.detached_since = None;
                }
                Some(_) => {}
                None => {
                    // One whose log cannot be opened is tried again with the next plan.
                    let Some((log, recorded)) = opened.remove(name) else { continue };
                    let (planned, context) = (Arc::clone(planned), Arc::clone(context));
                    let broker = Broker::start(planned, name.clone(), log, recorded, context);
                    running.brokers.insert(
                        name.clone(),
                        RunningBroker {
                            broker,
                            detached_since: None,
                            in_force: BTreeMap::new(),
                            triggers_detached_since: BTreeMap::new(),
                        },
                    );
                }
            }
        }
        let now = context.clock.now();
        for (name, broker) in &mut running.brokers {
            if !plan.brokers.contains_key(name) && broker.detached_since.is_none() {
                broker.broker.close_intake();
                broker.detached_since = Some(plan.broker_detached_since(name).map_or(now, Timestamp));
            }
        }
    }

    /// Lets the brokers that are in service be found, and those that are `kept`.
    fn publish_brokers(&self, kept: &[ResourceName]) {
        let running = self.0.running.lock();
        let found = running
            .brokers
            .iter()
            .filter(|(name, broker)| broker.detached_since.is_none() || kept.contains(name))
            .map(|(name, broker)| (name.clone(), Arc::clone(&broker.broker)));
        self.0.context.directory.set_brokers(found);
    }

    fn is_published(&self, name: &ResourceName) -> bool {
        self.0.context.directory.broker(&name.namespace, &name.name).is_some()
    }

    fn broker_names(&self) -> Vec<ResourceName> {
        self.0.running.lock().brokers.keys().cloned().collect()
    }

    /// Brings the triggers of one broker into line: those that changed what they match switch at one position, all
    /// others change how they deliver at once. None where the new set is not in force.
    async fn switch_triggers(
        &self,
        plan: &Plan,
        name: ResourceName,
        version: PlanVersion,
    ) -> Option<Switched> {
        let (broker, in_force, attached) = {
            let running = self.0.running.lock();
            let broker = running.brokers.get(&name)?;
            (Arc::clone(&broker.broker), broker.in_force.clone(), broker.detached_since.is_none())
        };
        let wanted: BTreeMap<_, _> = plan
            .triggers
            .iter()
            .filter(|(_, trigger)| attached && trigger.broker == name)
            .map(|(name, trigger)| (name.clone(), Arc::clone(trigger)))
            .collect();
        let known = broker.log().triggers().into_iter().map(|(_, name)| name);
        // Replays are in no set of triggers.
        let known: HashSet<_> = known.filter(|name| replay_of(name).is_none()).collect();
        let recorded = broker.in_force_before();
        self.take_up(plan, &broker, &known, &recorded, &wanted);
        let taking = self.taking(&broker, &wanted, &in_force, &known, &recorded);
        broker.go_on().await;
        let deduplication = broker.deduplication();
        let filters = taking.iter().map(|row| (row.subscription.number, &row.filter));
        let body = recorded::write(filters, deduplication);
        // The first switch starts the readers, also of a broker without triggers.
        if !broker.matches_by(&body)
            && let Err(error) = broker.switch(version, body, deduplication, taking).await
        {
            tracing::error!(
                broker = %name, code = error.code().id(), %error,
                "the new set of triggers cannot be recorded; the one before stays in force, and it is tried again"
            );
            broker.switched(Some(error.to_string()));
            return None;
        }
        broker.switched(None);
        Some(Switched { broker, wanted })
    }

    /// Lets the triggers of a broker deliver that are declared, and detaches those that are gone.
    fn attach_triggers(&self, plan: &Plan, switched: Switched) {
        let Switched { broker, wanted } = switched;
        for subscription in broker.subscriptions() {
            if wanted.contains_key(&subscription.name) {
                subscription.attach();
            } else {
                subscription.detach();
            }
        }
        self.note_in_force(plan, broker.name(), wanted);
    }

    /// Tries again to bring the newest triggers of a broker into force where they could not be recorded.
    pub(crate) async fn switch_again(&self) {
        let failed = |broker: &Arc<Broker>| broker.switch_failure().is_some();
        // Not waited for: whoever holds it applies a newer plan, or stops.
        let Ok(_one_at_a_time) = self.0.applying.try_lock() else { return };
        if self.0.stopped.load(Ordering::Relaxed) {
            return;
        }
        let applied = self.0.applied.load_full();
        for broker in self.brokers().into_iter().filter(failed) {
            let version = PlanVersion(applied.version);
            let switched = self.switch_triggers(&applied.plan, broker.name().clone(), version).await;
            if let Some(switched) = switched {
                self.attach_triggers(&applied.plan, switched);
            }
        }
        self.begin_again(&applied.plan).await;
    }

    fn note_in_force(
        &self,
        plan: &Plan,
        name: &ResourceName,
        wanted: BTreeMap<ResourceName, Arc<TriggerPlan>>,
    ) {
        let now = self.0.context.clock.now();
        let mut running = self.0.running.lock();
        let Some(broker) = running.brokers.get_mut(name) else { return };
        let subscriptions = broker.broker.subscriptions();
        for gone in subscriptions.iter().filter(|subscription| !wanted.contains_key(&subscription.name)) {
            let since = || plan.trigger_detached_since(&gone.name).map_or(now, Timestamp);
            broker.triggers_detached_since.entry(gone.name.clone()).or_insert_with(since);
        }
        broker.triggers_detached_since.retain(|trigger, _| !wanted.contains_key(trigger));
        broker.in_force = wanted;
    }

    /// Stops the sources that are gone or changed. They finish the batch in hand.
    fn stop_sources(&self, plan: &Plan) {
        for (name, (was, source)) in &self.0.running.lock().sources {
            let unchanged = plan.sources.get(name).is_some_and(|planned| same_source(was, planned));
            if !unchanged {
                source.stop();
            }
        }
    }

    /// Starts the sources that are new or changed. One that was there before starts when that one has ended, so that
    /// it reads the checkpoint of the last commit.
    fn start_sources(&self, plan: &Plan) {
        let mut running = self.0.running.lock();
        let mut before = std::mem::take(&mut running.sources);
        let mut kept = BTreeMap::new();
        for (name, planned) in &plan.sources {
            if before.get(name).is_some_and(|(was, _)| same_source(was, planned))
                && let Some(row) = before.remove(name)
            {
                kept.insert(name.clone(), row);
            }
        }
        running.ending.retain(|source| !source.has_ended());
        running.ending.extend(before.into_values().map(|(_, source)| source));
        for (name, planned) in &plan.sources {
            if kept.contains_key(name) {
                continue;
            }
            let stop = self.0.sources.stop().child_token();
            let source =
                RunningSource::new(name.clone(), planned.broker.clone(), Arc::clone(&self.0.context), stop);
            let before: Vec<_> =
                running.ending.iter().filter(|ending| ending.name() == name).cloned().collect();
            let run = Arc::clone(&source).run(Arc::clone(&planned.config), plan.secrets.clone());
            self.0.sources.spawn("sources", async move {
                for ending in before {
                    ending.ended().await;
                }
                run.await;
            });
            kept.insert(name.clone(), (Arc::clone(planned), source));
        }
        let directory = &self.0.context.directory;
        directory.set_sources(kept.iter().map(|(name, (_, source))| (name.clone(), Arc::clone(source))));
        running.sources = kept;
    }

    /// Lets go of workers that rested for too long.
    pub(crate) fn look_at_rest(&self) {
        self.0.context.look_at_rest();
    }

    /// Closes connections to subscribers that were idle for too long, and says where there are too few.
    pub(crate) fn sweep_connections(&self) {
        let pool = &self.0.context.pool;
        pool.sweep();
        if pool.is_crowded() {
            tracing::warn!(
                "deliveries wait for each other: as many connections to subscribers are open as may be; raise the limit of open files"
            );
        }
    }

    pub(crate) async fn limit_backlogs(&self) {
        for broker in self.brokers() {
            broker.limit_backlogs().await;
        }
    }

    pub(crate) async fn trim(&self) {
        let disk_full = self.0.context.disk_full.swap(false, Ordering::Relaxed);
        for broker in self.brokers() {
            if disk_full && broker.log().durability() != Durability::Memory {
                broker.give_up_detached();
            }
            broker.look_for_damage();
            broker.restore_lost();
            broker.log().trim().await;
        }
    }

    /// A broker that runs, detached or not.
    pub(crate) fn broker(&self, name: &ResourceName) -> Option<Arc<Broker>> {
        self.0.running.lock().brokers.get(name).map(|broker| Arc::clone(&broker.broker))
    }

    /// The plan in force.
    pub(crate) fn applied(&self) -> Arc<Applied> {
        self.0.applied.load_full()
    }

    /// Every broker that runs, detached or not, in the order of their names.
    pub(crate) fn brokers(&self) -> Vec<Arc<Broker>> {
        self.0.running.lock().brokers.values().map(|broker| Arc::clone(&broker.broker)).collect()
    }

    /// See [`crate::Engine::recount`].
    pub(crate) fn recount(&self) -> Vec<RecountLine> {
        let mut lines = Vec::new();
        for broker in self.brokers() {
            for subscription in broker.subscriptions() {
                lines.push(recount_of(broker.log(), &subscription));
            }
        }
        lines.extend(self.recount_replays());
        lines.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        lines
    }

    /// See [`crate::Engine::skip`].
    pub(crate) async fn skip(&self, trigger: &ResourceName, at: Position) -> Result<(), OperateError> {
        self.find_subscription(trigger)?.skip(at).await
    }

    /// See [`crate::Engine::seek`].
    pub(crate) async fn seek(&self, trigger: &ResourceName, to: SeekTo) -> Result<u64, OperateError> {
        self.find_subscription(trigger)?.seek(to).await
    }

    fn find_subscription(&self, trigger: &ResourceName) -> Result<Arc<Subscription>, OperateError> {
        let found = self.brokers().iter().find_map(|broker| broker.subscription(trigger));
        found.ok_or(OperateError::TriggerUnknown)
    }

    /// See [`crate::Engine::accept_damage`].
    pub(crate) fn accept_damage(&self, name: &ResourceName) -> Option<Result<Vec<String>, WriteError>> {
        let broker = self.broker(name)?;
        let logs = &self.0.context.logs;
        let damage = logs.damage(name);
        let accepted = logs.accept_damage(name);
        broker.look_for_damage();
        Some(accepted.map(|()| damage))
    }

    /// See [`crate::Engine::shutdown`].
    pub(crate) async fn shutdown(&self, cut_at: Instant, deadline: Instant) -> Vec<String> {
        let _one_at_a_time = self.0.applying.lock().await;
        self.0.stopped.store(true, Ordering::Relaxed);
        let mut unfinished = self.0.sources.stop_until(cut_at).await;
        let brokers = self.brokers();
        for broker in &brokers {
            broker.close_intake();
            for subscription in broker.subscriptions() {
                subscription.stop();
            }
        }
        self.stop_replays();
        if !self.0.context.dispatch.stop_until(cut_at).await.is_empty() {
            self.0.context.cut.cancel();
            unfinished.extend(self.0.context.dispatch.stop_until(deadline).await);
        }
        for (_, sink) in self.0.running.lock().sinks.values() {
            sink.retire();
        }
        unfinished.extend(self.0.sinks.stop_until(deadline).await);
        for broker in brokers {
            if tokio::time::timeout_at(deadline, broker.log().close()).await.is_err() {
                unfinished.push(format!("the log of broker {}", broker.name()));
            }
        }
        unfinished
    }
}

/// Counts anew what a subscription is owed.
fn recount_of(log: &Arc<dyn Log>, subscription: &Subscription) -> RecountLine {
    let (mut before, mut after, mut differed) = (0, 0, false);
    for partition in 0..log.partitions() {
        let recount = log.recount(partition, subscription.number);
        before += recount.recorded.pending;
        after += recount.counted.pending;
        differed |= recount.differs();
    }
    if differed {
        tracing::error!(
            trigger = %subscription.name, before, after,
            "the ledger did not agree with what was counted, and was corrected; please report this"
        );
    }
    let ResourceName { namespace, name } = subscription.name.clone();
    RecountLine { namespace, name, before, after, differed }
}

fn same_source(was: &SourcePlan, planned: &SourcePlan) -> bool {
    was.fingerprint == planned.fingerprint && was.broker == planned.broker
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("version", &self.0.applied.load().version).finish_non_exhaustive()
    }
}
