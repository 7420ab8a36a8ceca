//! The making of a plan, kind by kind, each after those that it refers to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use waypost_core::codes;
use waypost_core::delivery::DeliveryPolicy;
use waypost_core::filter::Filter;
use waypost_core::manifest::{
    BrokerSpec, Deduplication, Location, ManifestFile, Manifests, NATIVE, Problem, Resource, ResourceId,
    ResourceName, Secrets, Severity, SourceSpec, Spec, TransformationSpec,
};
use waypost_core::secret::KeyValues;
use waypost_core::transformation::{Chain, Step, Transformation};

use super::component::{Configured, Place, Type, configure};
use super::delivery::{effective, policy};
use super::index::{Family, Index, ResourceKey};
use super::resolve::{Addressables, Issue};
use super::triggers::fingerprint;
use super::{
    BrokerPlan, DEFAULT_ACCEPTED_STATUS, DEFAULT_RETENTION, Fingerprint, LogKind, Plan, Registry, Replies,
    SinkPlan, SourcePlan, StartFrom, Subscriber, TransformationPlan, TriggerPlan,
};

/// A plan in the making.
pub(super) struct Planner<'m> {
    registry: &'m Registry,
    pub(super) previous: Option<&'m Plan>,
    pub(super) version: u64,
    pub(super) index: Index<'m>,
    pub(super) addressables: Addressables,
    pub(super) plan: Plan,
    /// Resources of `previous` that a file which could not be read whole may still declare.
    pub(super) unread: Vec<(ResourceKey, &'m ManifestFile)>,
    /// Brokers that were declared before and are not any more.
    pub(super) gone_brokers: HashSet<ResourceName>,
    /// What was found to be detached with its broker.
    pub(super) detached_triggers: HashSet<ResourceName>,
}

type Compiled = Configured<Arc<dyn Transformation>>;

impl<'m> Planner<'m> {
    pub(super) fn new(registry: &'m Registry, previous: Option<&'m Plan>, version: u64) -> Self {
        Self {
            registry,
            previous,
            version,
            index: Index::default(),
            addressables: Addressables::default(),
            plan: Plan::default(),
            unread: Vec::new(),
            gone_brokers: HashSet::new(),
            detached_triggers: HashSet::new(),
        }
    }

    pub(super) fn plan(mut self, manifests: &'m Manifests) -> Plan {
        self.index = Index::new(manifests);
        self.own_problems(manifests);
        self.find_unread(manifests);
        self.values();
        self.sinks();
        let compiled = self.compile();
        self.settle(&compiled);
        self.brokers();
        self.transformations(compiled);
        self.flows();
        self.find_gone_brokers();
        self.unplanned_destinations();
        self.triggers();
        self.sources();
        self.replays();
        self.keep_needed();
        self.finish()
    }

    /// The declarations of one family that a step works on.
    pub(super) fn positions(&self, family: &Family) -> Vec<usize> {
        let matching = |at: &usize| self.index.declarations[*at].key.family == *family;
        (0..self.index.declarations.len()).filter(matching).collect()
    }

    /// A declaration and its spec, or `None` where it has an error.
    pub(super) fn sound(&self, at: usize) -> Option<(&'m Resource, &'m Spec)> {
        let declaration = &self.index.declarations[at];
        if declaration.failed() {
            return None;
        }
        let resource = declaration.resource;
        resource.spec.as_ref().map(|spec| (resource, spec))
    }

    pub(super) fn fail(&mut self, at: usize, issue: Issue) {
        let problem = self.problem(at, Severity::Error, issue);
        self.index.declarations[at].error.get_or_insert_with(|| problem.clone());
        self.plan.problems.push(problem);
    }

    pub(super) fn problem(&self, at: usize, severity: Severity, issue: Issue) -> Problem {
        let declaration = &self.index.declarations[at];
        Problem {
            code: issue.code,
            severity,
            message: issue.message,
            help: issue.help,
            location: Some(Location { file: Arc::clone(&declaration.file.path), mark: issue.mark }),
            path: issue.path,
            resource: Some(declaration.resource.id.clone()),
        }
    }

    /// Takes over what a resource was planned as before. Says whether there was anything.
    pub(super) fn keep(&mut self, key: &ResourceKey) -> bool {
        let Some(previous) = self.previous else { return false };
        let name = &key.name;
        macro_rules! keep {
            ($field:ident) => {
                previous.$field.get(name).map(|planned| {
                    self.plan.$field.insert(name.clone(), Arc::clone(planned));
                })
            };
        }
        let kept = match key.family {
            Family::Broker => keep!(brokers),
            Family::Trigger => keep!(triggers),
            Family::Source => keep!(sources),
            Family::Sink => keep!(sinks),
            Family::Transformation => keep!(transformations),
            Family::Replay => keep!(replays),
            Family::Sequence | Family::Parallel => self.keep_implicit(previous, key).then_some(()),
            _ => None,
        };
        kept.is_some()
    }

    fn own_problems(&mut self, manifests: &Manifests) {
        for file in &manifests.files {
            self.plan.problems.extend(file.problems.iter().cloned());
            self.plan.problems.extend(file.resources.iter().flat_map(|resource| &resource.problems).cloned());
        }
        self.plan.problems.extend(self.index.duplicates.iter().map(|(_, problem)| problem.clone()));
    }

    /// A file that could not be read whole may still declare what it declared last.
    fn find_unread(&mut self, manifests: &'m Manifests) {
        let Some(previous) = self.previous else { return };
        let incomplete: HashMap<&str, &ManifestFile> =
            manifests.files.iter().filter(|file| !file.complete).map(|file| (&*file.path, file)).collect();
        if incomplete.is_empty() {
            return;
        }
        for (key, origin) in &previous.origins {
            if let Some(file) = incomplete.get(&*origin.file).filter(|_| self.index.get(key).is_none()) {
                self.unread.push((key.clone(), file));
            }
        }
        self.unread.sort_by(|a, b| a.0.cmp(&b.0));
        for at in 0..self.unread.len() {
            let key = self.unread[at].0.clone();
            if self.keep(&key) {
                self.addressables.add(&key);
            }
        }
    }

    /// Secrets, ConfigMaps and Services.
    fn values(&mut self) {
        let mut secrets: HashMap<ResourceName, Arc<KeyValues>> = HashMap::new();
        let mut config_maps = HashMap::new();
        let mut services = HashMap::new();
        let mut capacities = HashMap::new();
        for declaration in &self.index.declarations {
            let name = || declaration.key.name.clone();
            match &declaration.resource.spec {
                Some(Spec::Secret(values)) => drop(secrets.insert(name(), Arc::clone(values))),
                Some(Spec::ConfigMap(values)) => drop(config_maps.insert(name(), Arc::clone(values))),
                Some(Spec::Service { url, capacity }) => {
                    services.insert(declaration.key.clone(), url.clone());
                    capacities.extend(capacity.map(|capacity| (declaration.key.clone(), capacity)));
                }
                _ => {}
            }
        }
        if let Some(previous) = self.previous {
            let failed = self.index.declarations.iter().filter(|declaration| declaration.failed());
            for key in
                failed.map(|declaration| &declaration.key).chain(self.unread.iter().map(|(key, _)| key))
            {
                let name = &key.name;
                match key.family {
                    Family::Secret => {
                        secrets.extend(
                            previous.secrets.secret_values(name).map(|kept| (name.clone(), Arc::clone(kept))),
                        );
                    }
                    Family::ConfigMap => {
                        let kept = previous.secrets.config_map_values(name);
                        config_maps.extend(kept.map(|kept| (name.clone(), Arc::clone(kept))));
                    }
                    Family::CoreService
                    | Family::KnativeService
                    | Family::Channel
                    | Family::InMemoryChannel => {
                        services.extend(previous.services.get(key).map(|url| (key.clone(), url.clone())));
                    }
                    _ => {}
                }
            }
        }
        self.plan.secrets = Secrets::new(secrets, config_maps);
        self.addressables.services = services;
        self.addressables.capacities = capacities;
    }

    fn sinks(&mut self) {
        let types: Vec<Type<_>> =
            self.registry.sinks.iter().map(|kind| (kind.name, kind.configure)).collect();
        for at in self.positions(&Family::Sink) {
            if let Some((resource, Spec::Sink(component))) = self.sound(at) {
                let place = self.place("spec", "Sink", &[], resource);
                match configure(component, &types, place) {
                    Ok(Configured { config, fingerprint, .. }) => {
                        let planned = SinkPlan { id: resource.id.clone(), config, fingerprint };
                        self.plan.sinks.insert(resource.id.resource_name(), Arc::new(planned));
                    }
                    Err(issues) => issues.into_iter().for_each(|issue| self.fail(at, issue)),
                }
            }
            self.admit(at);
        }
    }

    /// Makes a declaration known to references, in its earlier version where it has an error.
    fn admit(&mut self, at: usize) {
        let key = self.index.declarations[at].key.clone();
        if !self.index.declarations[at].failed() || self.keep(&key) {
            self.addressables.add(&key);
        }
    }

    pub(super) fn place<'p>(
        &'p self,
        path: &'p str,
        kind: &'static str,
        beside: &'static [&'static str],
        resource: &'p Resource,
    ) -> Place<'p> {
        Place { path, kind, beside, namespace: &resource.id.namespace, secrets: &self.plan.secrets }
    }

    pub(super) fn transformation_types(&self) -> Vec<Type<Arc<dyn Transformation>>> {
        self.registry.transformations.iter().map(|kind| (kind.name, kind.configure)).collect()
    }

    /// Compiles the Transformations, by position.
    fn compile(&mut self) -> HashMap<usize, Compiled> {
        let types = self.transformation_types();
        let mut compiled = HashMap::new();
        for at in self.positions(&Family::Transformation) {
            if let Some((resource, Spec::Transformation(spec))) = self.sound(at) {
                let place = self.place("spec", "Transformation", &["sink", "onError"], resource);
                match configure(&spec.component, &types, place) {
                    Ok(configured) => drop(compiled.insert(at, configured)),
                    Err(issues) => issues.into_iter().for_each(|issue| self.fail(at, issue)),
                }
            }
        }
        self.refuse_cycles();
        compiled
    }

    /// Brokers, Transformations and flows refer to each other, so which of them hold is found in rounds: each round
    /// drops those whose reference no longer resolves, until none does.
    fn settle(&mut self, compiled: &HashMap<usize, Compiled>) {
        let brokers = self.positions(&Family::Broker);
        for &at in &brokers {
            self.refuse_changes(at);
        }
        let others = [Family::Transformation, Family::Sequence, Family::Parallel];
        let all = [brokers, others.iter().flat_map(|family| self.positions(family)).collect()].concat();
        for &at in &all {
            self.admit(at);
        }
        loop {
            let mut dropped = false;
            for &at in &all {
                let Some((_, spec)) = self.sound(at) else { continue };
                let refers = match spec {
                    Spec::Broker(spec) => self.dead_letter_sink(spec).map(drop),
                    Spec::Transformation(spec) if compiled.contains_key(&at) => {
                        self.transformation_sink(spec).map(drop)
                    }
                    Spec::Sequence(spec) => self.all_resolve(&spec.destinations()),
                    Spec::Parallel(spec) => self.all_resolve(&spec.destinations()),
                    _ => Ok(()),
                };
                if let Err(issue) = refers {
                    self.fail(at, issue);
                    let key = self.index.declarations[at].key.clone();
                    if !self.keep(&key) {
                        self.addressables.remove(&key);
                        dropped = true;
                    }
                }
            }
            if !dropped {
                break;
            }
        }
    }

    fn dead_letter_sink(&self, spec: &BrokerSpec) -> Result<Option<Subscriber>, Issue> {
        let sink = spec.delivery.as_ref().and_then(|delivery| delivery.dead_letter_sink.as_ref());
        sink.map(|sink| self.addressables.resolve(sink, "spec.delivery.deadLetterSink", &self.index))
            .transpose()
    }

    fn transformation_sink(&self, spec: &TransformationSpec) -> Result<Option<Subscriber>, Issue> {
        spec.sink.as_ref().map(|sink| self.addressables.resolve(sink, "spec.sink", &self.index)).transpose()
    }

    fn brokers(&mut self) {
        for at in self.positions(&Family::Broker) {
            let Some((resource, Spec::Broker(spec))) = self.sound(at) else { continue };
            let Ok(dead_letter_sink) = self.dead_letter_sink(spec) else { continue };
            let retention = spec.retention.age.unwrap_or(DEFAULT_RETENTION);
            let too_long = |(rule, _): &(Deduplication, _)| rule.window > retention;
            if let Some((_, mark)) = spec.deduplication.filter(too_long) {
                let issue = Issue {
                    code: codes::FIELD_VALUE,
                    mark,
                    path: "spec.deduplication.window".to_owned(),
                    message: "events are to be remembered for longer than the broker keeps them".to_owned(),
                    help: "shorten `window`, or lengthen `spec.retention.age` (7 days where it is absent)"
                        .to_owned(),
                };
                self.fail(at, issue);
                continue;
            }
            let name = resource.id.resource_name();
            let earlier = self.previous.and_then(|previous| previous.brokers.get(&name));
            // What is fixed stays known while a manifest leaves it out, so that it cannot change in two steps.
            let fixed = |new: Option<String>, old: fn(&BrokerPlan) -> &Option<String>| {
                new.or_else(|| earlier.and_then(|earlier| old(earlier).clone()))
            };
            let planned = BrokerPlan {
                id: resource.id.clone(),
                log: if spec.memory.is_some() { LogKind::Memory } else { LogKind::Embedded },
                retention,
                retention_bytes: spec.retention.size,
                strict_replies: spec.strict_replies,
                accepted_status: spec.accepted_status.unwrap_or(DEFAULT_ACCEPTED_STATUS),
                implicit: false,
                delivery: spec.delivery.as_ref().map(policy),
                dead_letter_sink,
                class: fixed(spec.class.as_ref().map(|class| class.value.clone()), |plan| &plan.class),
                config: fixed(spec.config.as_ref().map(|config| config.value.clone()), |plan| &plan.config),
                deduplication: spec.deduplication.map(|(rule, _)| rule),
            };
            self.plan.brokers.insert(name, Arc::new(planned));
        }
    }

    /// Knative's immutable fields of a Broker.
    fn refuse_changes(&mut self, at: usize) {
        self.refuse_another_log(at);
        let Some((resource, Spec::Broker(spec))) = self.sound(at) else { return };
        let name = resource.id.resource_name();
        let Some(earlier) = self.previous.and_then(|previous| previous.brokers.get(&name)) else { return };
        let class = "metadata.annotations[eventing.knative.dev/broker.class]";
        for (new, old, path) in
            [(&spec.class, &earlier.class, class), (&spec.config, &earlier.config, "spec.config")]
        {
            let (Some(new), Some(old)) = (new, old) else { continue };
            if new.value != *old {
                let issue = Issue {
                    code: codes::FIELD_IMMUTABLE,
                    mark: new.mark,
                    path: path.to_owned(),
                    message: format!("`{path}` of a Broker cannot change: it is `{old}`"),
                    help: "restore it, or declare another Broker".to_owned(),
                };
                self.fail(at, issue);
            }
        }
    }

    /// A log cannot move: what is pending in one would not be in the other.
    fn refuse_another_log(&mut self, at: usize) {
        let Some((resource, Spec::Broker(spec))) = self.sound(at) else { return };
        let name = resource.id.resource_name();
        let Some(earlier) = self.previous.and_then(|previous| previous.brokers.get(&name)) else { return };
        let (mark, was, now) = match (earlier.log, spec.memory) {
            (LogKind::Embedded, Some(mark)) => (mark, "on disk", "in memory"),
            (LogKind::Memory, None) => (resource.mark, "in memory", "on disk"),
            (LogKind::Embedded, None) | (LogKind::Memory, Some(_)) => return,
        };
        let issue = Issue {
            code: codes::FIELD_IMMUTABLE,
            mark,
            path: "spec.log".to_owned(),
            message: format!("the log of a Broker cannot change: it is {was}, and would be {now}"),
            help: "restore it, or declare another Broker".to_owned(),
        };
        self.fail(at, issue);
    }

    fn transformations(&mut self, mut compiled: HashMap<usize, Compiled>) {
        for at in self.positions(&Family::Transformation) {
            let Some((resource, Spec::Transformation(spec))) = self.sound(at) else { continue };
            let (Some(configured), Ok(sink)) = (compiled.remove(&at), self.transformation_sink(spec)) else {
                continue;
            };
            let name = resource.id.resource_name();
            let broker = sink.map(|sink| self.broker_before(sink, "transformation", &name));
            let on_error = spec.on_error;
            let step = Step { name: name.name.clone(), transformation: configured.config, on_error };
            let planned = TransformationPlan {
                id: resource.id.clone(),
                fingerprint: format!("{} {on_error:?} {broker:?}", configured.fingerprint),
                chain: Chain::new(vec![step]),
                broker,
            };
            self.plan.transformations.insert(name, Arc::new(planned));
        }
    }

    /// What is wrong with the destinations of resources that have other errors too.
    fn unplanned_destinations(&mut self) {
        for at in 0..self.index.declarations.len() {
            let resource = self.index.declarations[at].resource;
            for (path, destination) in &resource.destinations {
                if let Err(issue) = self.addressables.resolve(destination, path, &self.index) {
                    self.fail(at, issue);
                }
            }
        }
    }

    fn sources(&mut self) {
        let types: Vec<Type<_>> =
            self.registry.sources.iter().map(|kind| (kind.name, kind.configure)).collect();
        for at in self.positions(&Family::Source) {
            if let Some((resource, Spec::Source(spec))) = self.sound(at) {
                self.source(at, resource, spec, &types);
            }
            if self.index.declarations[at].failed() {
                let key = self.index.declarations[at].key.clone();
                self.keep(&key);
            }
        }
    }

    fn source(
        &mut self,
        at: usize,
        resource: &Resource,
        spec: &SourceSpec,
        types: &[Type<Arc<dyn waypost_core::source::BuildSource>>],
    ) {
        let sink = self.addressables.resolve(&spec.sink, "spec.sink", &self.index);
        let configured = configure(&spec.component, types, self.place("spec", "Source", &["sink"], resource));
        match (sink, configured) {
            (Ok(sink), Ok(Configured { config, fingerprint, .. })) => {
                let name = resource.id.resource_name();
                let broker = self.broker_before(sink, "source", &name);
                let fingerprint = format!("{fingerprint} {broker}");
                let planned = SourcePlan { id: resource.id.clone(), config, broker, fingerprint };
                self.plan.sources.insert(name, Arc::new(planned));
            }
            (sink, configured) => {
                let issues = configured.err().into_iter().flatten().chain(sink.err());
                issues.for_each(|issue| self.fail(at, issue));
            }
        }
    }

    /// The broker in front of a sink: the sink itself where it is one, else an implicit one with one trigger.
    /// Its name holds a colon, which no declared name can.
    fn broker_before(&mut self, sink: Subscriber, what: &str, of: &ResourceName) -> ResourceName {
        let subscriber = match sink {
            Subscriber::Broker(name) => return name,
            subscriber => subscriber,
        };
        let name = ResourceName::new(of.namespace.clone(), format!("{what}:{}", of.name));
        self.implicit_broker(name.clone());
        self.implicit_trigger(ImplicitTrigger {
            name: name.clone(),
            broker: name.clone(),
            subscriber,
            // On its own broker an answer would be sent to whoever gave it, again and again.
            replies: Replies::Ignored,
            delivery: effective(None, None, &Default::default()),
            dead_letter_sink: None,
        });
        name
    }

    /// Plans a broker that no manifest declares.
    pub(super) fn implicit_broker(&mut self, name: ResourceName) {
        let broker = BrokerPlan {
            id: ResourceId::new(NATIVE, "Broker", name.clone()),
            log: LogKind::Embedded,
            retention: DEFAULT_RETENTION,
            retention_bytes: None,
            strict_replies: false,
            accepted_status: DEFAULT_ACCEPTED_STATUS,
            implicit: true,
            delivery: None,
            dead_letter_sink: None,
            class: None,
            config: None,
            deduplication: None,
        };
        self.plan.brokers.insert(name, Arc::new(broker));
    }

    /// Plans a trigger of an implicit broker, which takes every event.
    pub(super) fn implicit_trigger(&mut self, trigger: ImplicitTrigger) {
        let ImplicitTrigger { name, broker, subscriber, replies, delivery, dead_letter_sink } = trigger;
        let mut planned = TriggerPlan {
            id: ResourceId::new(NATIVE, "Trigger", name.clone()),
            broker,
            filter: Filter::Everything,
            transformations: Chain::default(),
            subscriber,
            replies,
            delivery,
            dead_letter_sink,
            paused: false,
            start_from: StartFrom::Latest,
            fingerprint: Fingerprint { matching: String::new(), delivering: String::new() },
        };
        planned.fingerprint = fingerprint(&planned, &[]);
        self.plan.triggers.insert(name, Arc::new(planned));
    }
}

/// A trigger that no manifest declares.
pub(super) struct ImplicitTrigger {
    pub(super) name: ResourceName,
    pub(super) broker: ResourceName,
    pub(super) subscriber: Subscriber,
    pub(super) replies: Replies,
    pub(super) delivery: DeliveryPolicy,
    pub(super) dead_letter_sink: Option<Subscriber>,
}
