//! The plan: manifests that were validated and resolved against each other, ready to run.
//!
//! Making one is pure: no I/O, no clock. The supervisor brings the running process into line with it.

mod component;
mod delivery;
mod detach;
mod flows;
mod index;
mod planner;
mod replays;
mod resolve;
mod schema;
mod stored;
mod triggers;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use waypost_core::delivery::DeliveryPolicy;
use waypost_core::filter::Filter;
pub use waypost_core::manifest::StartFrom;
use waypost_core::manifest::{Deduplication, Manifests, Problem, ResourceId, ResourceName, Secrets};
use waypost_core::sink::{BuildSink, SinkType};
use waypost_core::source::{BuildSource, SourceType};
use waypost_core::transformation::{Chain, TransformationType};

pub(crate) use self::detach::declared_for;
pub use self::flows::entrance;
pub use self::index::{Family, ResourceKey};
use self::planner::Planner;
pub use self::replays::{ReplayPlan, ReplayTarget};
pub use self::schema::schema;
pub(crate) use self::stored::stored_names;
pub use self::stored::{StoredChange, StoredPlan, UnreadablePlan};

/// How long a broker keeps events that nobody is owed, when its manifest says nothing.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The status for an accepted event, when the manifest says nothing.
pub const DEFAULT_ACCEPTED_STATUS: u16 = 202;

/// Makes the plan of `manifests`. Never fails: what is wrong is in [`Plan::problems`], and what it is wrong with
/// keeps the form that it has in `previous`, or is absent.
///
/// Pure and linear in the size of the manifests. `version` is the number of the new plan, greater than that of
/// `previous`.
pub fn plan(manifests: &Manifests, registry: &Registry, previous: Option<&Plan>, version: u64) -> Plan {
    Planner::new(registry, previous, version).plan(manifests)
}

/// The component types that this build knows.
#[derive(Debug, Clone, Copy)]
pub struct Registry {
    /// What a `kind: Source` may be.
    pub sources: &'static [SourceType],
    /// What a `kind: Sink` may be.
    pub sinks: &'static [SinkType],
    /// What a `kind: Transformation` may be.
    pub transformations: &'static [TransformationType],
}

/// Everything that should run, and every problem that was found on the way.
///
/// A resource with an error is here in its last valid version where it has one (its [`Declared`] then names
/// the version and the error), and absent where it never had one.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The brokers, implicit ones included.
    pub brokers: BTreeMap<ResourceName, Arc<BrokerPlan>>,
    /// The triggers, those of implicit brokers included.
    pub triggers: BTreeMap<ResourceName, Arc<TriggerPlan>>,
    /// The sources.
    pub sources: BTreeMap<ResourceName, Arc<SourcePlan>>,
    /// The sinks.
    pub sinks: BTreeMap<ResourceName, Arc<SinkPlan>>,
    /// The transformations.
    pub transformations: BTreeMap<ResourceName, Arc<TransformationPlan>>,
    /// The replays that manifests declare.
    pub replays: BTreeMap<ResourceName, Arc<ReplayPlan>>,
    /// Every resource that was declared, valid or not, and those that are detached, in the order of the status.
    pub declared: Vec<Declared>,
    /// Every problem, sorted by file and line.
    pub problems: Vec<Problem>,
    /// The Secrets and ConfigMaps that components resolve their references against.
    pub secrets: Secrets,
    /// The URLs of Services, where they have one.
    pub services: HashMap<ResourceKey, Option<String>>,
    /// Where each planned resource was declared last without an error.
    pub origins: HashMap<ResourceKey, Origin>,
    /// What no manifest declares any more and is still kept.
    pub detached: Detached,
}

/// What no manifest declares any more, in its last valid version.
#[derive(Debug, Clone, Default)]
pub struct Detached {
    /// The brokers whose logs are kept.
    pub brokers: BTreeMap<ResourceName, Arc<BrokerPlan>>,
    /// The triggers whose ledgers are kept.
    pub triggers: BTreeMap<ResourceName, Arc<TriggerPlan>>,
    /// Since when each resource has been detached, in nanoseconds since 1970: of all that
    /// [`Plan::date_detached`] was called for.
    pub since: HashMap<ResourceKey, i64>,
}

impl Plan {
    /// Whether no problem is an error: what `check` asks, and what a first start on empty data demands.
    pub fn is_free_of_errors(&self) -> bool {
        !self.problems.iter().any(Problem::is_error)
    }
}

/// Where a resource was declared last without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The resource as its manifest named it.
    pub id: ResourceId,
    /// The file.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The first plan that took the declaration as it is now.
    pub version: u64,
    /// Tells two declarations apart; 0 for what is not kept for a later process.
    pub digest: u64,
}

/// One declared resource, as the status tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// The resource as its manifest names it: original apiVersion and kind.
    pub id: ResourceId,
    /// What the manifests say about it.
    pub state: DeclaredState,
}

/// What the manifests say about a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum DeclaredState {
    /// Valid, and planned as declared.
    Valid,
    /// Invalid. `running` says whether an earlier valid version stays planned; the first error explains.
    Invalid {
        /// The first error.
        problem: Box<Problem>,
        /// The plan version whose declaration of this resource still runs.
        running: Option<u64>,
    },
    /// No manifest declares it any more.
    Detached,
}

/// A broker.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerPlan {
    /// Its resource.
    pub id: ResourceId,
    /// Which log holds its events.
    pub log: LogKind,
    /// How long an event is kept although nobody is owed it.
    pub retention: Duration,
    /// How many bytes of such events it keeps; as many as there is room for where absent.
    pub retention_bytes: Option<u64>,
    /// Whether a reply must be an event or empty (Knative's reading).
    pub strict_replies: bool,
    /// The status with which ingress answers an accepted event: 202, or 200 for producers that insist.
    pub accepted_status: u16,
    /// A broker that no manifest declares, made for a source or transformation whose sink is no broker, or for a part of a
    /// flow.
    pub implicit: bool,
    /// The delivery of triggers that have none of their own; Knative's default where this is absent too.
    pub delivery: Option<DeliveryPolicy>,
    /// The dead-letter sink of triggers that have none of their own.
    pub dead_letter_sink: Option<Subscriber>,
    /// Knative's broker class, which may not change.
    pub class: Option<String>,
    /// Knative's `spec.config` in normalised form, which may not change.
    pub config: Option<String>,
    /// Which events match nobody because they repeat earlier ones.
    pub deduplication: Option<Deduplication>,
}

/// Which log holds a broker's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// On this machine's disk: what was accepted was synced.
    Embedded,
    /// In memory: nothing survives the process.
    Memory,
}

/// A trigger.
#[derive(Debug, Clone)]
pub struct TriggerPlan {
    /// Its resource.
    pub id: ResourceId,
    /// The broker whose events it takes.
    pub broker: ResourceName,
    /// Which events it takes.
    pub filter: Filter,
    /// What is applied to an event before it is sent, in order.
    pub transformations: Chain,
    /// What it sends to.
    pub subscriber: Subscriber,
    /// What becomes of events that the subscriber answers with.
    pub replies: Replies,
    /// How it sends.
    pub delivery: DeliveryPolicy,
    /// Where dead letters are forwarded to; without one they stay in the built-in store.
    pub dead_letter_sink: Option<Subscriber>,
    /// Whether it takes nothing for now.
    pub paused: bool,
    /// Where it starts in the log when it is new.
    pub start_from: StartFrom,
    /// The validated spec, for telling whether a new plan changes it. Equal specs need no restart.
    pub fingerprint: Fingerprint,
}

/// What tells two versions of a trigger apart: what it matches and how it delivers, kept apart because only matching is
/// versioned (a filter change takes effect at a position, any other change at once).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The normalised text of broker, filter and start.
    pub matching: String,
    /// A digest of subscriber, replies, delivery, transformations and pause.
    pub delivering: String,
}

/// What becomes of events that a subscriber answers with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Replies {
    /// They go to the trigger's own broker, as Knative has it.
    #[default]
    Own,
    /// They go to this broker of the process: the next part of a flow.
    To(ResourceName),
    /// Nobody asks for them.
    Ignored,
}

/// What a trigger sends to, resolved.
#[derive(Debug, Clone, PartialEq)]
pub enum Subscriber {
    /// A URL outside this process.
    Http(HttpDestination),
    /// A sink of this process.
    Sink(ResourceName),
    /// A broker of this process.
    Broker(ResourceName),
    /// A transformation of this process, which replies.
    Transformation(ResourceName),
}

/// A URL outside this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpDestination {
    /// An absolute `http` or `https` URL.
    pub url: String,
    /// Certificates (PEM) to trust instead of the platform's.
    pub ca_certificates: Option<String>,
    /// The audience that a token would be made out for.
    pub audience: Option<String>,
}

/// A source.
#[derive(Debug, Clone)]
pub struct SourcePlan {
    /// Its resource.
    pub id: ResourceId,
    /// Its validated settings.
    pub config: Arc<dyn BuildSource>,
    /// The broker that takes its events.
    pub broker: ResourceName,
    /// The normalised spec, for telling whether a new plan changes it.
    pub fingerprint: String,
}

/// A sink.
#[derive(Debug, Clone)]
pub struct SinkPlan {
    /// Its resource.
    pub id: ResourceId,
    /// Its validated settings.
    pub config: Arc<dyn BuildSink>,
    /// The normalised spec, for telling whether a new plan changes it.
    pub fingerprint: String,
}

/// A transformation.
#[derive(Debug, Clone)]
pub struct TransformationPlan {
    /// Its resource.
    pub id: ResourceId,
    /// The compiled transformation, as the only step.
    pub chain: Chain,
    /// The broker that takes the results, where the manifest names a sink: the sink itself, or the implicit
    /// broker whose trigger sends to it. Without one the results go back to the caller.
    pub broker: Option<ResourceName>,
    /// The normalised spec, for telling whether a new plan changes it.
    pub fingerprint: String,
}

#[cfg(test)]
mod suite;
