//! The specs of the native kinds as users write them: the JSON schema and the reference documentation are
//! generated from these types.
//!
//! Manifests are read by hand, so that every problem is found with its place; a test holds the two together.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use crate::duration::IsoDuration;
use crate::transformation::OnError;

/// Takes events, makes them durable, and offers them to its triggers.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct BrokerSpec {
    /// The delivery of triggers that have none of their own. Without it, ten retries with exponential backoff
    /// from `PT0.2S`.
    pub delivery: Option<DeliverySpec>,
    /// Which log holds the events.
    pub log: Option<Log>,
    /// What is kept although no trigger is owed it. Seven days by default.
    pub retention: Option<Retention>,
    /// Whether a subscriber's answer with a body that is no CloudEvent is a failed delivery, as Knative has it.
    pub strict_replies: Option<bool>,
    /// The status for an event that was accepted: 202, or 200 for producers that insist on it.
    #[schemars(range(min = 200, max = 202))]
    pub accepted_status: Option<u16>,
}

/// Which log holds a broker's events.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub enum Log {
    /// On disk, in the data directory: what was accepted was synced. The default.
    Embedded,
    /// In memory: fast, and nothing survives the process.
    Memory,
}

/// How long events are kept.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// The age from which an event may go, once no trigger is owed it.
    pub age: Option<IsoDuration>,
    /// The bytes of events beyond which the oldest may go, once no trigger is owed them, such as `10GiB`.
    pub size: Option<ByteSize>,
}

/// A size in bytes: a number, or text with one of the units `KiB`, `MiB`, `GiB` and `TiB`.
#[derive(Debug, Clone, JsonSchema)]
#[serde(untagged)]
pub enum ByteSize {
    /// Bytes.
    Bytes(u64),
    /// A number and a unit.
    Text(String),
}

/// Sends the events of a broker that pass its filter to a subscriber.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct TriggerSpec {
    /// The broker, in the trigger's namespace. Exactly one of `broker` and `brokerRef` is given.
    pub broker: Option<String>,
    /// The broker, in any namespace.
    pub broker_ref: Option<Reference>,
    /// Knative's older filter; `filters` wins over it.
    pub filter: Option<AttributesFilter>,
    /// Which events the trigger takes: all items must match. Every event where it is empty or absent.
    pub filters: Option<Vec<Filter>>,
    /// What is applied to an event before it is sent, in order.
    pub transformations: Option<Vec<NamedTransformation>>,
    /// Where the events go.
    pub subscriber: Destination,
    /// How the events are delivered. It replaces the broker's as a whole; only the dead-letter sink falls back.
    pub delivery: Option<DeliverySpec>,
    /// Where a new trigger starts in the broker's log: `latest`, `earliest` or a time (RFC 3339).
    pub start_from: Option<String>,
    /// Whether the trigger takes nothing for now. What arrives meanwhile waits for it.
    pub paused: Option<bool>,
}

/// Knative's older filter.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttributesFilter {
    /// Attributes and the values that they must have; an empty value stands for any.
    pub attributes: Option<BTreeMap<String, String>>,
}

/// A condition on an event.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub enum Filter {
    /// Each attribute is there and equals its value.
    Exact(BTreeMap<String, String>),
    /// Each attribute is there and starts with its value.
    Prefix(BTreeMap<String, String>),
    /// Each attribute is there and ends with its value.
    Suffix(BTreeMap<String, String>),
    /// Each attribute is there and fits its pattern: `%` stands for any number of characters, `_` for one.
    Like(BTreeMap<String, String>),
    /// The expression of CESQL 1.0 yields true without an error.
    Cesql(String),
    /// The expression of CEL yields true. Its variables are the attributes, and `data` where that is JSON.
    Cel(String),
    /// The query of RFC 9535 selects at least one node of the data, which is JSON.
    Jsonpath(String),
    /// All of the filters match.
    All(Vec<Filter>),
    /// At least one of the filters matches.
    Any(Vec<Filter>),
    /// The filter does not match.
    Not(Box<Filter>),
}

/// A transformation by its name. Written out inline, it is a map with its type as the only key.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct NamedTransformation {
    /// The name of a Transformation in the trigger's namespace.
    pub name: Option<String>,
    /// What is done where the transformation fails on an event, if not what the Transformation says.
    pub on_error: Option<OnError>,
}

/// Where events are sent: a resource, or a URL.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// A Sink, Transformation, Broker or Service.
    #[schemars(rename = "ref")]
    pub reference: Option<Reference>,
    /// An absolute URL; beside `ref` of a Service, one relative to its URL.
    pub uri: Option<String>,
    /// Certificates (PEM) to trust instead of the platform's.
    #[schemars(rename = "CACerts")]
    pub ca_certificates: Option<String>,
    /// The audience that a token is made out for.
    pub audience: Option<String>,
}

/// Names a resource.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reference {
    /// The group and version, such as `waypost.dev/v1alpha1`.
    pub api_version: String,
    /// The kind, such as `Sink`.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace; that of the referring resource by default.
    pub namespace: Option<String>,
    /// Knative's choice among the addresses of the resource.
    pub address: Option<String>,
}

/// How events are delivered.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliverySpec {
    /// Where events go that could not be delivered. Without one they stay in the built-in store.
    pub dead_letter_sink: Option<Destination>,
    /// Attempts after the first: `retry: 3` means four attempts. None where it is absent.
    pub retry: Option<u32>,
    /// The time for one attempt, `PT5M` by default.
    pub timeout: Option<IsoDuration>,
    /// How the wait between attempts grows, `exponential` by default.
    pub backoff_policy: Option<BackoffPolicy>,
    /// The unit of the wait, `PT0.2S` by default.
    pub backoff_delay: Option<IsoDuration>,
    /// The longest wait between attempts, `PT10M` by default.
    pub backoff_max: Option<IsoDuration>,
    /// The most of a `Retry-After` that is honoured, `PT5M` by default; `PT0S` turns it off.
    pub retry_after_max: Option<IsoDuration>,
    /// How events are written to an HTTP subscriber, `binary` by default.
    pub format: Option<Format>,
    /// The most calls to the subscriber at one time, 64 by default.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_in_flight: Option<u32>,
    /// The age, from its arrival, after which an event is dropped instead of attempted.
    pub deadline: Option<IsoDuration>,
    /// How much the trigger may be owed before something is done about it.
    pub max_backlog: Option<MaxBacklog>,
    /// The most attempts per second, retries among them. No limit where it is absent.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rate_per_second: Option<u32>,
    /// The most attempts at once after a time without any; a tenth of `ratePerSecond` by default, at least 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// Whether events of one key stay in order, `none` by default.
    pub ordering: Option<Ordering>,
    /// The attribute whose value is the key, `partitionkey` by default. It is read before transformations; an event
    /// without it is not ordered.
    pub ordering_key: Option<String>,
    /// Whether events wait while the subscriber is away (a connection error, a timeout, 429 or 503), instead of using up
    /// their attempts. `false` by default.
    pub hold_when_down: Option<bool>,
}

/// How much a trigger may be owed. At least one of `size` and `age` is given.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaxBacklog {
    /// The bytes of the log from the oldest event on that the trigger is owed, such as `1GiB`.
    pub size: Option<ByteSize>,
    /// How long that event has been in the log.
    pub age: Option<IsoDuration>,
    /// What is done when it is more, `refuse` by default.
    pub when_exceeded: Option<WhenExceeded>,
}

/// What is done when a trigger is owed more than it may be.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub enum WhenExceeded {
    /// The broker answers producers with 507 until the trigger is owed less.
    Refuse,
    /// The oldest events become dead letters of the trigger.
    DeadLetter,
    /// The oldest events are dropped, and counted as such.
    Drop,
}

/// How the wait before retry `n`, counted from 1, grows.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub enum BackoffPolicy {
    /// `delay * 2^(n-1)`
    Exponential,
    /// `delay * n`
    Linear,
    /// `delay`
    Constant,
}

/// How events are written to an HTTP subscriber.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub enum Format {
    /// Attributes as headers, data as the body.
    Binary,
    /// One JSON document.
    Json,
}

/// Whether events of one key stay in order.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub enum Ordering {
    /// No order.
    None,
    /// No event is attempted before the one ahead of it with the same key is settled.
    Key,
}

/// An event, and the triggers that must match it or must not: `waypost test` looks at it, and nothing else.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestSpec {
    /// The event as the members of structured JSON: attributes, and `data` or `data_base64`. `specversion` and `id` may
    /// be left out. Exactly one of `event` and `eventFile` is given.
    pub event: Option<BTreeMap<String, serde_json::Value>>,
    /// A file with one event in structured JSON, relative to the manifest.
    pub event_file: Option<String>,
    /// The triggers that must match: `name`, or `namespace/name`.
    pub matches: Option<Vec<String>>,
    /// The triggers that must not match.
    pub misses: Option<Vec<String>>,
    /// What must come out of transformations.
    pub emits: Option<Vec<EmissionSpec>>,
}

/// What must come out of transformations. Exactly one of `trigger` and `transformation` is given, and exactly one of
/// `events`, `dropped` and `fails`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmissionSpec {
    /// A trigger, all of whose transformations are applied: `name`, or `namespace/name`.
    pub trigger: Option<String>,
    /// A Transformation: `name`, or `namespace/name`.
    pub transformation: Option<String>,
    /// The events in order, as the members of structured JSON. Of `specversion`, `id`, `source` and `datacontenttype`
    /// those that are left out are not compared.
    pub events: Option<Vec<BTreeMap<String, serde_json::Value>>>,
    /// That nothing comes out: `filtered`, `schema` or `failed`, or `true` for any reason.
    pub dropped: Option<serde_json::Value>,
    /// That it fails, with this in the text.
    pub fails: Option<String>,
}

/// Sends a range of a broker's log again, once: to a trigger's subscriber, or somewhere else. Everything but `delivery`
/// and `paused` is fixed once it has started.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplaySpec {
    /// The broker, in the replay's namespace.
    pub broker: String,
    /// The first event of the range: `earliest`, the first one that arrived at a time (RFC 3339) or later, or a position,
    /// PARTITION:OFFSET.
    pub from: String,
    /// The first event behind the range: `latest`, a time or a position. The end that the log has when the replay starts
    /// where it is absent.
    pub to: Option<String>,
    /// Which events of the range: all items must match. Those that the trigger takes, or all, where it is empty or absent.
    pub filters: Option<Vec<Filter>>,
    /// The trigger to send as: with its transformations, to its subscriber. Exactly one of `trigger` and `subscriber` is
    /// given.
    pub trigger: Option<String>,
    /// Where else the events go.
    pub subscriber: Option<Destination>,
    /// What is different from the delivery of the trigger, or else of the broker: only the fields that are given.
    pub delivery: Option<DeliverySpec>,
    /// Whether it makes no attempts for now.
    pub paused: Option<bool>,
}
