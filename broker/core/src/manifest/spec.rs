//! The typed form of manifests: valid each by itself, not yet resolved against each other.

use std::sync::Arc;
use std::time::Duration;

use super::document::Node;
use super::{Mark, ParallelSpec, ReplaySpec, ResourceName, SequenceSpec};
use crate::delivery::{BackoffPolicy, Format, MaxBacklog, Ordering, Rate};
use crate::filter::Filter;
use crate::secret::KeyValues;
use crate::transformation::OnError;

/// What a resource declares.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// A Broker of Knative's group or of ours.
    Broker(Box<BrokerSpec>),
    /// A Trigger of Knative's group or of ours.
    Trigger(Box<TriggerSpec>),
    /// A Source.
    Source(SourceSpec),
    /// A Sink.
    Sink(Component),
    /// A Transformation.
    Transformation(TransformationSpec),
    /// Knative's Sequence.
    Sequence(SequenceSpec),
    /// Knative's Parallel.
    Parallel(ParallelSpec),
    /// A Replay.
    Replay(Box<ReplaySpec>),
    /// A `v1` or Knative Service, with the URL that it maps to, where it has one.
    Service {
        /// The URL, checked.
        url: Option<String>,
        /// The most requests that it takes at one time, where it says so.
        capacity: Option<u32>,
    },
    /// A Secret, decoded.
    Secret(Arc<KeyValues>),
    /// A ConfigMap.
    ConfigMap(Arc<KeyValues>),
}

/// What a Broker declares.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BrokerSpec {
    /// The delivery of triggers that have none of their own.
    pub delivery: Option<DeliverySpec>,
    /// What is kept although nobody is owed it.
    pub retention: RetentionSpec,
    /// Where `log: memory` asks for the memory mode.
    pub memory: Option<Mark>,
    /// Whether a reply must be an event or empty.
    pub strict_replies: bool,
    /// The status for an accepted event, 200 or 202.
    pub accepted_status: Option<u16>,
    /// The annotation `eventing.knative.dev/broker.class`, which may not change.
    pub class: Option<Fixed>,
    /// Knative's `spec.config` in normalised form, which may not change.
    pub config: Option<Fixed>,
    /// Which events are taken for repeats; none where absent.
    pub deduplication: Option<(Deduplication, Mark)>,
}

/// When an event repeats an earlier one with its source and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deduplication {
    /// The longest time after the earlier one.
    pub window: Duration,
    /// So many events of the broker before it are looked at, replies included.
    pub events: u64,
}

/// What a broker keeps although nobody is owed it, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionSpec {
    /// How long.
    pub age: Option<Duration>,
    /// How many bytes.
    pub size: Option<u64>,
}

/// A value that is fixed for the life of its resource, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The value.
    pub value: String,
    /// Its place.
    pub mark: Mark,
}

/// What a Trigger declares.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerSpec {
    /// The broker.
    pub broker: BrokerReference,
    /// Which events.
    pub filter: Filter,
    /// What is applied before an event is sent, in order.
    pub transformations: Vec<TransformationUse>,
    /// Where to.
    pub subscriber: Destination,
    /// How; replaces the broker's as a whole.
    pub delivery: Option<DeliverySpec>,
    /// What annotations add to whichever delivery applies.
    pub extras: DeliveryExtras,
    /// Whether it takes nothing for now.
    pub paused: bool,
    /// Where it starts when it is new.
    pub start_from: StartFrom,
}

/// A trigger's broker and the field that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerReference {
    /// The broker.
    pub name: ResourceName,
    /// The place of the field.
    pub mark: Mark,
    /// `spec.broker` or `spec.brokerRef`.
    pub path: &'static str,
}

/// Where a new trigger starts in its broker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartFrom {
    /// With the first event after the trigger takes effect.
    #[default]
    Latest,
    /// With the oldest event that the log still holds.
    Earliest,
    /// With the first event that arrived at this time or later, in nanoseconds since 1970.
    Time(i64),
}

/// A transformation of a trigger.
#[derive(Debug, Clone, PartialEq)]
pub enum TransformationUse {
    /// A Transformation of the trigger's namespace.
    Named {
        /// Its name.
        name: String,
        /// The place of the name.
        mark: Mark,
        /// What is done where it fails, if not what the Transformation says.
        on_error: Option<OnError>,
    },
    /// Written out in the trigger.
    Inline {
        /// Type and settings.
        component: Component,
        /// What is done where it fails.
        on_error: OnError,
    },
}

/// An externally tagged component: the type is the key, its settings the value. Which types there are is the
/// registry's to say, so every key that is no field of the kind is kept here.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The keys that may be the type, each with its settings.
    pub candidates: Vec<(String, Node)>,
    /// The place of the map that holds the key.
    pub mark: Mark,
    /// Whether the settings stand where the key would be, so that paths are told without it: a kind of others, which was
    /// translated.
    pub flat: bool,
}

/// What a Source declares.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpec {
    /// Type and settings.
    pub component: Component,
    /// Where its events go.
    pub sink: Destination,
}

/// What a Transformation declares.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformationSpec {
    /// Type and settings.
    pub component: Component,
    /// Where its results go, instead of back to the caller.
    pub sink: Option<Destination>,
    /// What is done where it fails.
    pub on_error: OnError,
}

/// Where events are sent, not yet resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// What it names.
    pub target: Target,
    /// Certificates (PEM) to trust instead of the platform's.
    pub ca_certificates: Option<String>,
    /// The audience that a token would be made out for.
    pub audience: Option<String>,
    /// The place of the destination.
    pub mark: Mark,
}

/// What a destination names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A resource, and a relative URI to resolve against its URL.
    Reference {
        /// The resource.
        reference: Reference,
        /// The URI, relative to the resource's URL (RFC 3986, section 5).
        relative: Option<String>,
    },
    /// An absolute URL, checked.
    Url(String),
}

/// A reference to a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The group and version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The resource; its namespace is the referring one's where none is written.
    pub name: ResourceName,
    /// The place of the reference.
    pub mark: Mark,
}

/// How events are delivered, as written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeliverySpec {
    /// Where dead letters go.
    pub dead_letter_sink: Option<Destination>,
    /// Attempts after the first; none where absent.
    pub retry: Option<u32>,
    /// The time for one attempt.
    pub timeout: Option<Duration>,
    /// The wait between attempts.
    pub backoff: BackoffSpec,
    /// The most of a `Retry-After` that is honoured.
    pub retry_after_max: Option<Duration>,
    /// How events are written.
    pub format: Option<Format>,
    /// What only the native kinds write here.
    pub extras: DeliveryExtras,
}

/// The wait between attempts, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackoffSpec {
    /// The law of growth.
    pub policy: Option<BackoffPolicy>,
    /// The unit of the law.
    pub delay: Option<Duration>,
}

/// What this API adds to Knative's delivery; fields of native kinds, annotations of Knative's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryExtras {
    /// The most calls to the subscriber at one time.
    pub max_in_flight: Option<u32>,
    /// The most attempts per second.
    pub rate: Option<Rate>,
    /// Whether events of one key stay in order.
    pub ordering: Option<Ordering>,
    /// Whether events wait while the subscriber is away.
    pub hold_when_down: Option<bool>,
    /// The longest wait between attempts.
    pub backoff_max: Option<Duration>,
    /// The age after which an event is dropped instead of attempted.
    pub deadline: Option<Duration>,
    /// How much the trigger may be owed.
    pub max_backlog: Option<MaxBacklog>,
}
