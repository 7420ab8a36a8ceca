//! What is kept, what is detached, and what the status will tell of each resource.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use waypost_core::codes;
use waypost_core::manifest::{Problem, ResourceName, Spec, Target};

use super::index::{Family, ResourceKey};
use super::planner::Planner;
use super::resolve::Issue;
use super::{
    BrokerPlan, Declared, DeclaredState, Origin, Plan, Replies, StoredChange, Subscriber, TriggerPlan,
    stored_names,
};

impl Planner<'_> {
    /// Refuses the Transformations whose sinks lead back to them.
    pub(super) fn refuse_cycles(&mut self) {
        let mut next: HashMap<ResourceName, (usize, ResourceName)> = HashMap::new();
        for (at, declaration) in self.index.declarations.iter().enumerate() {
            if let (Some(Spec::Transformation(spec)), false) =
                (&declaration.resource.spec, declaration.failed())
                && let Some(Target::Reference { reference, .. }) = spec.sink.as_ref().map(|sink| &sink.target)
                && Family::of(&reference.api_version, &reference.kind) == Family::Transformation
            {
                next.insert(declaration.key.name.clone(), (at, reference.name.clone()));
            }
        }
        let mut seen: HashMap<&ResourceName, usize> = HashMap::new();
        let mut cycles: Vec<Vec<usize>> = Vec::new();
        for (walk, start) in next.keys().enumerate() {
            let mut chain = Vec::new();
            let mut name = start;
            // Each is walked over once: a walk ends where an earlier one passed.
            while let Some((at, following)) = next.get(name) {
                match seen.insert(name, walk) {
                    Some(earlier) if earlier == walk => {
                        let begin = chain.iter().position(|known| known == at).unwrap_or(0);
                        cycles.push(chain.split_off(begin));
                        break;
                    }
                    Some(earlier) => {
                        seen.insert(name, earlier);
                        break;
                    }
                    None => {}
                }
                chain.push(*at);
                name = following;
            }
        }
        for at in cycles.into_iter().flatten() {
            let Some(Spec::Transformation(spec)) = &self.index.declarations[at].resource.spec else {
                continue;
            };
            let Some(sink) = &spec.sink else { continue };
            let name = &self.index.declarations[at].key.name;
            let issue = Issue {
                code: codes::TRANSFORMATION_CYCLE,
                mark: sink.mark,
                path: "spec.sink.ref".to_owned(),
                message: format!("the sinks that follow Transformation {name} lead back to it"),
                help: "let one of them send to a Sink or a Broker".to_owned(),
            };
            self.fail(at, issue);
        }
    }

    /// The brokers that were declared before and are no more.
    pub(super) fn find_gone_brokers(&mut self) {
        let Some(previous) = self.previous else { return };
        let detached = previous.declared.iter().filter(|declared| declared.state == DeclaredState::Detached);
        let planned = previous.origins.keys().filter(|key| key.family == Family::Broker).cloned();
        let known = planned.chain(detached.map(|declared| ResourceKey::of(&declared.id)));
        let gone = known.filter(|key| {
            key.family == Family::Broker
                && self.index.get(key).is_none()
                && !self.plan.brokers.contains_key(&key.name)
        });
        self.gone_brokers = gone.map(|key| key.name).collect();
    }

    /// What a kept resource needs runs on with it, and a trigger whose broker is gone is detached with it.
    pub(super) fn keep_needed(&mut self) {
        let gone: Vec<ResourceName> = self
            .plan
            .triggers
            .iter()
            .filter(|(_, trigger)| self.gone_brokers.contains(&trigger.broker))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.plan.triggers.remove(&name);
            self.detached_triggers.insert(name);
        }
        let Some(previous) = self.previous else { return };
        let mut needed: Vec<Subscriber> = Vec::new();
        for trigger in self.plan.triggers.values() {
            let subscribers = [Some(&trigger.subscriber), trigger.dead_letter_sink.as_ref()];
            // What is outside of this process is nobody's to keep, and most triggers send there.
            let inside = |subscriber: &&Subscriber| !matches!(subscriber, Subscriber::Http(_));
            needed.extend(subscribers.into_iter().flatten().filter(inside).cloned());
            if let Replies::To(broker) = &trigger.replies {
                needed.push(Subscriber::Broker(broker.clone()));
            }
        }
        needed.extend(self.plan.brokers.values().filter_map(|broker| broker.dead_letter_sink.clone()));
        needed.extend(self.plan.replays.values().flat_map(|replay| replay.subscribers().cloned()));
        needed.extend(self.plan.sources.values().map(|source| Subscriber::Broker(source.broker.clone())));
        let results = self.plan.transformations.values().filter_map(|kept| kept.broker.clone());
        needed.extend(results.map(Subscriber::Broker));
        while let Some(subscriber) = needed.pop() {
            match subscriber {
                Subscriber::Sink(name) if !self.plan.sinks.contains_key(&name) => {
                    self.plan.sinks.extend(previous.sinks.get(&name).map(|sink| (name, Arc::clone(sink))));
                }
                Subscriber::Transformation(name) if !self.plan.transformations.contains_key(&name) => {
                    if let Some(kept) = previous.transformations.get(&name) {
                        needed.extend(kept.broker.clone().map(Subscriber::Broker));
                        self.plan.transformations.insert(name, Arc::clone(kept));
                    }
                }
                Subscriber::Broker(name) if !self.plan.brokers.contains_key(&name) => {
                    let owner = declared_for(&name);
                    if owner.family != Family::Broker && self.keep_implicit(previous, &owner) {
                        needed.extend(previous.implicit_triggers(&owner).flat_map(refers_to));
                    }
                }
                _ => {}
            }
        }
    }

    /// Takes over the implicit brokers that were made for a resource, with their triggers. Says whether there are any.
    pub(super) fn keep_implicit(&mut self, previous: &Plan, owner: &ResourceKey) -> bool {
        let brokers: Vec<_> = previous.implicit_brokers(owner).collect();
        let kept = !brokers.is_empty();
        self.plan
            .brokers
            .extend(brokers.into_iter().map(|(name, broker)| (name.clone(), Arc::clone(broker))));
        for trigger in previous.implicit_triggers(owner) {
            self.plan.triggers.insert(trigger.id.resource_name(), Arc::clone(trigger));
        }
        kept
    }

    pub(super) fn finish(mut self) -> Plan {
        self.plan.services = std::mem::take(&mut self.addressables.services);
        self.declare();
        self.detach();
        self.plan.problems.sort_by(|a, b| a.location.cmp(&b.location));
        self.plan
    }

    /// What was planned before, or kept although it was not, and is not planned any more.
    fn detach(&mut self) {
        let Some(previous) = self.previous else { return };
        let plan = &mut self.plan;
        let brokers = previous.detached.brokers.iter().chain(&previous.brokers);
        plan.detached.brokers = brokers
            .filter(|(name, _)| !plan.brokers.contains_key(*name))
            .map(|(name, broker)| (name.clone(), Arc::clone(broker)))
            .collect();
        let triggers = previous.detached.triggers.iter().chain(&previous.triggers);
        plan.detached.triggers = triggers
            .filter(|(name, _)| !plan.triggers.contains_key(*name))
            .map(|(name, trigger)| (name.clone(), Arc::clone(trigger)))
            .collect();
        let detached = plan.declared.iter().filter(|declared| declared.state == DeclaredState::Detached);
        plan.detached.since = detached
            .map(|declared| ResourceKey::of(&declared.id))
            .filter_map(|key| previous.detached.since.get(&key).map(|since| (key, *since)))
            .collect();
    }

    fn declare(&mut self) {
        let mut present = HashSet::with_capacity(self.index.declarations.len());
        self.plan.declared.reserve(self.index.declarations.len());
        self.plan.origins.reserve(self.index.declarations.len());
        for declaration in &self.index.declarations {
            let key = &declaration.key;
            present.insert(key.clone());
            let id = &declaration.resource.id;
            let earlier = self.previous.and_then(|previous| previous.origins.get(key));
            let detached = key.family == Family::Trigger && self.detached_triggers.contains(&key.name);
            let origin = match declaration.error {
                None => {
                    let digest = declaration.resource.document.as_ref().map_or(0, |document| document.digest);
                    let unchanged = earlier.filter(|earlier| digest != 0 && earlier.digest == digest);
                    Some(Origin {
                        id: id.clone(),
                        file: Arc::clone(&declaration.file.path),
                        line: declaration.resource.mark.line,
                        version: unchanged.map_or(self.version, |earlier| earlier.version),
                        digest,
                    })
                }
                Some(_) => earlier.cloned(),
            };
            let state = match &declaration.error {
                _ if detached => DeclaredState::Detached,
                None => DeclaredState::Valid,
                Some(problem) => DeclaredState::Invalid {
                    problem: Box::new(problem.clone()),
                    running: earlier.map(|origin| origin.version),
                },
            };
            self.plan.declared.push(Declared { id: id.clone(), state });
            if let Some(origin) = origin {
                self.plan.origins.insert(key.clone(), origin);
            }
        }
        for (resource, problem) in &self.index.duplicates {
            // A resource that is declared twice under the same kind is in the list already.
            let key = ResourceKey::of(&resource.id);
            if self.index.get(&key).is_some_and(|first| first.resource.id != resource.id) {
                let state = DeclaredState::Invalid { problem: Box::new(problem.clone()), running: None };
                self.plan.declared.push(Declared { id: resource.id.clone(), state });
            }
        }
        let Some(previous) = self.previous else { return };
        for (key, file) in &self.unread {
            present.insert(key.clone());
            let Some(origin) = previous.origins.get(key) else { continue };
            let problem = file.problems.iter().find(|problem| problem.is_error());
            let state = match problem {
                _ if key.family == Family::Trigger && self.detached_triggers.contains(&key.name) => {
                    DeclaredState::Detached
                }
                Some(problem) => DeclaredState::Invalid {
                    problem: Box::new(Problem { resource: Some(origin.id.clone()), ..problem.clone() }),
                    running: Some(origin.version),
                },
                None => DeclaredState::Valid,
            };
            self.plan.declared.push(Declared { id: origin.id.clone(), state });
            self.plan.origins.insert(key.clone(), origin.clone());
        }
        self.declare_detached(previous, &present);
    }

    /// What no manifest declares any more stays in the status until it is declared again or forgotten.
    fn declare_detached(&mut self, previous: &Plan, present: &HashSet<ResourceKey>) {
        let had_state = |family: &Family| {
            matches!(
                family,
                Family::Broker
                    | Family::Trigger
                    | Family::Source
                    | Family::Sink
                    | Family::Transformation
                    | Family::Sequence
                    | Family::Parallel
            )
        };
        // A part of a flow may have come back with the flow, which is all that is declared.
        let runs = |key: &ResourceKey| {
            self.plan
                .brokers
                .get(&key.name)
                .is_some_and(|broker| key.family == Family::Broker && broker.implicit)
        };
        let is_gone = |key: &ResourceKey| had_state(&key.family) && !present.contains(key) && !runs(key);
        let gone = previous.origins.iter().filter(|(key, _)| is_gone(key));
        let gone = gone.map(|(key, origin)| (key.clone(), &origin.id));
        let before = previous.declared.iter().filter(|declared| declared.state == DeclaredState::Detached);
        let before = before.map(|declared| (ResourceKey::of(&declared.id), &declared.id));
        // What was made for a resource that is declared still, and for which it is made no more.
        let left_over = previous.brokers.iter().filter(|(name, broker)| {
            broker.implicit && !self.plan.brokers.contains_key(*name) && present.contains(&declared_for(name))
        });
        let left_over = left_over.map(|(_, broker)| (ResourceKey::of(&broker.id), &broker.id));
        let before = before.filter(|(key, _)| is_gone(key));
        let detached: HashMap<ResourceKey, _> = gone.chain(before).chain(left_over).collect();
        let mut detached: Vec<_> = detached.into_values().collect();
        detached.sort();
        let state = DeclaredState::Detached;
        self.plan
            .declared
            .extend(detached.into_iter().map(|id| Declared { id: id.clone(), state: state.clone() }));
    }
}

impl Plan {
    /// Says that what is detached has been so since `now`, where that was not said before. In nanoseconds since 1970.
    pub fn date_detached(&mut self, now: i64) {
        let detached = self.declared.iter().filter(|declared| declared.state == DeclaredState::Detached);
        for declared in detached {
            self.detached.since.entry(ResourceKey::of(&declared.id)).or_insert(now);
        }
    }

    /// Whether there is anything that no manifest declares any more.
    pub fn has_detached(&self) -> bool {
        !self.detached.since.is_empty()
            || self.declared.iter().any(|declared| declared.state == DeclaredState::Detached)
    }

    /// Since when a broker has been detached: an implicit one as long as the resource that it was made for.
    pub fn broker_detached_since(&self, name: &ResourceName) -> Option<i64> {
        let own = self.detached.since.get(&ResourceKey::new(Family::Broker, name.clone()));
        own.or_else(|| self.detached.since.get(&declared_for(name))).copied()
    }

    /// What is declared with an error.
    pub(crate) fn invalid(&self) -> HashSet<ResourceKey> {
        let invalid = |declared: &&Declared| matches!(declared.state, DeclaredState::Invalid { .. });
        self.declared.iter().filter(invalid).map(|declared| ResourceKey::of(&declared.id)).collect()
    }

    /// Since when a trigger has been detached, alone or with its broker.
    pub fn trigger_detached_since(&self, name: &ResourceName) -> Option<i64> {
        let own = self.detached.since.get(&ResourceKey::new(Family::Trigger, name.clone()));
        own.copied().or_else(|| self.broker_detached_since(name))
    }

    /// Drops what has been detached since `before` or longer from the status and from the next plan, but for what a
    /// last valid version still needs. Returns what is to be taken out of the store: that of brokers and triggers goes
    /// when their logs have gone.
    pub fn forget_detached(&mut self, before: i64) -> Vec<StoredChange> {
        let gone: Vec<ResourceKey> = self
            .detached
            .since
            .iter()
            .filter(|(key, since)| **since <= before && !self.still_needs(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.detached.since.remove(key);
            match key.family {
                Family::Broker => drop(self.detached.brokers.remove(&key.name)),
                Family::Trigger => drop(self.detached.triggers.remove(&key.name)),
                Family::Source | Family::Transformation | Family::Sequence | Family::Parallel => {
                    self.detached.brokers.retain(|name, _| declared_for(name) != *key);
                    self.detached.triggers.retain(|name, _| declared_for(name) != *key);
                }
                _ => {}
            }
        }
        let gone: HashSet<_> = gone.into_iter().collect();
        self.declared.retain(|declared| {
            declared.state != DeclaredState::Detached || !gone.contains(&ResourceKey::of(&declared.id))
        });
        let with_log = |key: &&ResourceKey| matches!(key.family, Family::Broker | Family::Trigger);
        let names = gone.iter().filter(|key| !with_log(key)).flat_map(stored_names);
        names.map(|name| (name, None)).collect()
    }

    fn still_needs(&self, key: &ResourceKey) -> bool {
        match key.family {
            Family::Sink => self.sinks.contains_key(&key.name),
            Family::Transformation => self.transformations.contains_key(&key.name),
            Family::Sequence | Family::Parallel => self.implicit_brokers(key).next().is_some(),
            _ => false,
        }
    }
}

impl Plan {
    /// The brokers that were made for a resource: of a flow several, in the order of its parts' names.
    pub(crate) fn implicit_brokers(
        &self,
        owner: &ResourceKey,
    ) -> impl Iterator<Item = (&ResourceName, &Arc<BrokerPlan>)> {
        implicit(&self.brokers, owner)
    }

    /// The triggers that were made for a resource.
    pub(crate) fn implicit_triggers(&self, owner: &ResourceKey) -> impl Iterator<Item = &Arc<TriggerPlan>> {
        implicit(&self.triggers, owner).map(|(_, trigger)| trigger)
    }
}

/// What was made for a resource: its name, behind the kind and a colon, is the name or is followed by a colon.
fn implicit<'p, V>(
    all: &'p BTreeMap<ResourceName, V>,
    owner: &ResourceKey,
) -> impl Iterator<Item = (&'p ResourceName, &'p V)> {
    let prefix = implicit_prefix(&owner.family);
    let first = prefix.map(|prefix| {
        ResourceName::new(owner.name.namespace.clone(), format!("{prefix}:{}", owner.name.name))
    });
    let own = first.as_ref().and_then(|name| all.get_key_value(name));
    let parts = first.map(|first| {
        let begin = ResourceName::new(first.namespace.clone(), format!("{}:", first.name));
        let (namespace, name) = (begin.namespace.clone(), begin.name.clone());
        all.range(begin..)
            .take_while(move |(known, _)| known.namespace == namespace && known.name.starts_with(&name))
    });
    own.into_iter().chain(parts.into_iter().flatten())
}

/// What the names of the implicit brokers begin with that are made for resources of a family.
pub(super) fn implicit_prefix(family: &Family) -> Option<&'static str> {
    match family {
        Family::Source => Some("source"),
        Family::Transformation => Some("transformation"),
        Family::Sequence => Some("sequence"),
        Family::Parallel => Some("parallel"),
        _ => None,
    }
}

/// What of this process an implicit trigger needs.
fn refers_to(trigger: &Arc<TriggerPlan>) -> impl Iterator<Item = Subscriber> {
    let replies = match &trigger.replies {
        Replies::To(broker) => Some(Subscriber::Broker(broker.clone())),
        Replies::Own | Replies::Ignored => None,
    };
    [Some(trigger.subscriber.clone()), trigger.dead_letter_sink.clone(), replies].into_iter().flatten()
}

/// The resource that a broker or trigger is there for: itself, taken for a broker, or what an implicit one was made for.
/// A declared name holds no colon.
pub(crate) fn declared_for(broker: &ResourceName) -> ResourceKey {
    let (family, own) = match broker.name.split_once(':') {
        Some(("source", own)) => (Family::Source, own),
        Some(("sequence", own)) => (Family::Sequence, own),
        Some(("parallel", own)) => (Family::Parallel, own),
        Some((_, own)) => (Family::Transformation, own),
        None => (Family::Broker, broker.name.as_str()),
    };
    // What follows is a part of a flow.
    let own = own.split(':').next().unwrap_or(own);
    ResourceKey::new(family, ResourceName::new(&broker.namespace, own))
}
