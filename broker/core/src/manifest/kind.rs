//! Which kinds there are, and what becomes of each.

use super::flow::KNATIVE_FLOWS;
use super::nearest;
use super::translated;
use super::triggermesh::{FLOW, ROUTING};
use crate::Code;
use crate::codes;

/// The group and version of the native kinds.
pub const NATIVE: &str = "waypost.dev/v1alpha1";
/// The group and version of Knative's Broker and Trigger.
pub const KNATIVE_EVENTING: &str = "eventing.knative.dev/v1";
/// The group and version of Knative's Service.
pub const KNATIVE_SERVING: &str = "serving.knative.dev/v1";
/// The group and version of Knative's channels.
pub const KNATIVE_MESSAGING: &str = "messaging.knative.dev/v1";
/// The version of Kubernetes' own Secret, ConfigMap and Service.
pub(super) const CORE: &str = "v1";

/// What becomes of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Broker,
    Trigger,
    Source,
    Sink,
    Transformation,
    /// A kind of TriggerMesh that becomes a Transformation.
    TriggerMesh,
    /// Knative's Sequence.
    Sequence,
    /// Knative's Parallel.
    Parallel,
    /// A kind of others that becomes a Source or a Sink.
    Translated,
    Replay,
    Service,
    /// A channel that runs elsewhere: like a Service the name of a URL.
    Channel,
    Secret,
    ConfigMap,
    /// What `waypost test` looks at, and nothing else.
    Test,
    /// A list of resources, as kubectl prints it.
    List,
    /// Known, would move events, and cannot be honoured yet.
    NotYet,
    /// Moves no events, and is not ours to run.
    Ignored,
}

/// Why a kind is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownKind {
    pub(super) code: Code,
    /// `apiVersion` or `kind`.
    pub(super) field: &'static str,
    pub(super) message: String,
    pub(super) help: String,
}

/// The kinds that are read.
const READ: [(&str, &str, Class); 23] = [
    (KNATIVE_EVENTING, "Broker", Class::Broker),
    (KNATIVE_EVENTING, "Trigger", Class::Trigger),
    (NATIVE, "Broker", Class::Broker),
    (NATIVE, "Trigger", Class::Trigger),
    (NATIVE, "Source", Class::Source),
    (NATIVE, "Sink", Class::Sink),
    (NATIVE, "Transformation", Class::Transformation),
    (NATIVE, "Replay", Class::Replay),
    (NATIVE, "Test", Class::Test),
    (CORE, "Secret", Class::Secret),
    (CORE, "ConfigMap", Class::ConfigMap),
    (CORE, "Service", Class::Service),
    (CORE, "List", Class::List),
    (KNATIVE_SERVING, "Service", Class::Service),
    (KNATIVE_MESSAGING, "Channel", Class::Channel),
    (KNATIVE_MESSAGING, "InMemoryChannel", Class::Channel),
    (FLOW, "Transformation", Class::TriggerMesh),
    (FLOW, "JQTransformation", Class::TriggerMesh),
    (FLOW, "XMLToJSONTransformation", Class::TriggerMesh),
    (ROUTING, "Splitter", Class::TriggerMesh),
    (ROUTING, "Filter", Class::TriggerMesh),
    (KNATIVE_FLOWS, "Sequence", Class::Sequence),
    (KNATIVE_FLOWS, "Parallel", Class::Parallel),
];

/// Kinds by group that are known without being read. `*` stands for any kind or version of the group.
const NOT_READ: [(&str, &str, Class); 32] = [
    ("eventing.knative.dev/*", "EventType", Class::Ignored),
    ("eventing.knative.dev/*", "EventPolicy", Class::Ignored),
    ("eventing.knative.dev/*", "EventTransform", Class::NotYet),
    ("eventing.knative.dev/*", "RequestReply", Class::NotYet),
    ("eventing.knative.dev/*", "KafkaSink", Class::NotYet),
    ("sources.knative.dev/*", "*", Class::NotYet),
    ("sinks.knative.dev/*", "*", Class::NotYet),
    ("flows.knative.dev/*", "*", Class::NotYet),
    ("messaging.knative.dev/*", "*", Class::NotYet),
    (KNATIVE_SERVING, "Configuration", Class::Ignored),
    (KNATIVE_SERVING, "Route", Class::Ignored),
    (KNATIVE_SERVING, "Revision", Class::Ignored),
    ("serving.knative.dev/*", "DomainMapping", Class::Ignored),
    ("operator.knative.dev/*", "*", Class::Ignored),
    ("networking.internal.knative.dev/*", "*", Class::Ignored),
    (CORE, "Namespace", Class::Ignored),
    (CORE, "ServiceAccount", Class::Ignored),
    (CORE, "Pod", Class::Ignored),
    (CORE, "PersistentVolume", Class::Ignored),
    (CORE, "PersistentVolumeClaim", Class::Ignored),
    (CORE, "Endpoints", Class::Ignored),
    (CORE, "LimitRange", Class::Ignored),
    (CORE, "ResourceQuota", Class::Ignored),
    (CORE, "ReplicationController", Class::Ignored),
    (CORE, "Node", Class::Ignored),
    (CORE, "Event", Class::Ignored),
    ("apps/*", "*", Class::Ignored),
    ("batch/*", "*", Class::Ignored),
    ("policy/*", "*", Class::Ignored),
    ("autoscaling/*", "*", Class::Ignored),
    ("extensions/*", "*", Class::Ignored),
    ("monitoring.coreos.com/*", "*", Class::Ignored),
];

/// Groups whose suffix is enough to know them.
const NOT_READ_SUFFIXES: [(&str, Class); 3] =
    [(".triggermesh.io", Class::NotYet), (".k8s.io", Class::Ignored), (".cert-manager.io", Class::Ignored)];

/// What becomes of a resource of this apiVersion and kind, with both as they are written properly.
pub(super) fn classify<'t>(api_version: &'t str, kind: &'t str) -> Result<(Class, Names<'t>), UnknownKind> {
    if let Some(&(api_version, kind, class)) =
        READ.iter().find(|(known, name, _)| *known == api_version && *name == kind)
    {
        return Ok((class, Names::Known { api_version, kind }));
    }
    if let Some((api_version, kind)) = translated::find(api_version, kind) {
        return Ok((Class::Translated, Names::Known { api_version, kind }));
    }
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let by_suffix =
        NOT_READ_SUFFIXES.iter().find(|(suffix, _)| group.ends_with(suffix) || group == &suffix[1..]);
    let not_read = NOT_READ
        .iter()
        .find(|(known, name, _)| covers(known, api_version) && (*name == "*" || *name == kind))
        .map(|(_, _, class)| *class)
        .or(by_suffix.map(|(_, class)| *class));
    match not_read {
        Some(class) => Ok((class, Names::AsWritten { api_version, kind })),
        None => Err(unknown(api_version, group, kind)),
    }
}

/// The apiVersion and kind of a resource; those that are read need no copy.
#[derive(Debug, Clone, Copy)]
pub(super) enum Names<'t> {
    Known { api_version: &'static str, kind: &'static str },
    AsWritten { api_version: &'t str, kind: &'t str },
}

fn covers(known: &str, api_version: &str) -> bool {
    match known.strip_suffix('*') {
        Some(group) => api_version.starts_with(group),
        None => known == api_version,
    }
}

fn unknown(api_version: &str, group: &str, kind: &str) -> UnknownKind {
    let versions = || READ.iter().map(|(known, _, _)| *known);
    if versions().any(|known| known == api_version) {
        let kinds = || READ.iter().filter(|(known, _, _)| *known == api_version).map(|(_, name, _)| *name);
        let help = match nearest(kind, kinds()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the kinds of {api_version} are {}", kinds().collect::<Vec<_>>().join(", ")),
        };
        return UnknownKind {
            code: codes::KIND_UNKNOWN,
            field: "kind",
            message: format!("{api_version} has no kind `{}`", excerpt(kind)),
            help,
        };
    }
    let help = if let Some(known) =
        versions().find(|known| !group.is_empty() && known.starts_with(&format!("{group}/")))
    {
        format!("write `{known}`")
    } else if let Some(near) = nearest(api_version, versions()) {
        format!("did you mean `{near}`?")
    } else {
        let candidates: Vec<_> =
            READ.iter().filter(|(_, name, _)| *name == kind).map(|(known, _, _)| *known).collect();
        match candidates.as_slice() {
            [] => format!("the known ones are {KNATIVE_EVENTING}, {NATIVE}, {KNATIVE_SERVING} and {CORE}"),
            candidates => format!("a {kind} is of {}", candidates.join(" or ")),
        }
    };
    UnknownKind {
        code: codes::API_VERSION_UNKNOWN,
        field: "apiVersion",
        message: format!("the apiVersion `{}` is not known", excerpt(api_version)),
        help,
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_named_or_ignored() {
        for (api_version, kind, expected) in [
            ("eventing.knative.dev/v1", "Broker", Class::Broker),
            ("eventing.knative.dev/v1", "Trigger", Class::Trigger),
            ("waypost.dev/v1alpha1", "Transformation", Class::Transformation),
            ("serving.knative.dev/v1", "Service", Class::Service),
            ("v1", "Service", Class::Service),
            ("v1", "List", Class::List),
            ("waypost.dev/v1alpha1", "Test", Class::Test),
            ("waypost.dev/v1alpha1", "Replay", Class::Replay),
            ("flow.triggermesh.io/v1alpha1", "Transformation", Class::TriggerMesh),
            ("routing.triggermesh.io/v1alpha1", "Splitter", Class::TriggerMesh),
            ("flow.triggermesh.io/v1alpha1", "XSLTTransformation", Class::NotYet),
            ("flows.knative.dev/v1", "Sequence", Class::Sequence),
            ("flows.knative.dev/v1", "Parallel", Class::Parallel),
            ("flows.knative.dev/v1beta1", "Sequence", Class::NotYet),
            ("sources.knative.dev/v1", "PingSource", Class::NotYet),
            ("sources.knative.dev/v1beta1", "KafkaSource", Class::Translated),
            ("targets.triggermesh.io/v1alpha1", "KafkaTarget", Class::Translated),
            ("sources.triggermesh.io/v1alpha1", "AWSS3Source", Class::NotYet),
            ("targets.triggermesh.io/v1alpha1", "ElasticsearchTarget", Class::Translated),
            ("targets.triggermesh.io/v1alpha1", "JiraTarget", Class::NotYet),
            ("messaging.knative.dev/v1", "Channel", Class::Channel),
            ("messaging.knative.dev/v1", "InMemoryChannel", Class::Channel),
            ("messaging.knative.dev/v1", "Subscription", Class::NotYet),
            ("eventing.knative.dev/v1beta2", "EventType", Class::Ignored),
            ("eventing.knative.dev/v1alpha1", "EventPolicy", Class::Ignored),
            ("apps/v1", "Deployment", Class::Ignored),
            ("v1", "Namespace", Class::Ignored),
            ("rbac.authorization.k8s.io/v1", "ClusterRole", Class::Ignored),
        ] {
            let class = classify(api_version, kind).map(|(class, _)| class);
            assert_eq!(class, Ok(expected), "{api_version} {kind}");
        }
    }

    #[test]
    fn what_is_not_known_names_the_field_and_the_nearest() {
        for (api_version, kind, field, hint) in [
            ("eventing.knative.dev/v1", "broker", "kind", "did you mean `Broker`?"),
            ("eventing.knative.dev/v1", "Tigger", "kind", "did you mean `Trigger`?"),
            ("waypost.dev/v1alpha1", "Widget", "kind", "the kinds of waypost.dev/v1alpha1 are"),
            ("v1", "Foo", "kind", "the kinds of v1 are"),
            ("eventing.knative.dev/v1beta1", "Trigger", "apiVersion", "write `eventing.knative.dev/v1`"),
            ("waypost.dev/v1", "Sink", "apiVersion", "write `waypost.dev/v1alpha1`"),
            ("eventing.knative.de/v1", "Broker", "apiVersion", "did you mean `eventing.knative.dev/v1`?"),
            ("example.com/v1", "Broker", "apiVersion", "a Broker is of eventing.knative.dev/v1 or waypost"),
            ("example.com/v1", "Widget", "apiVersion", "the known ones are"),
        ] {
            let unknown = classify(api_version, kind).expect_err(kind);
            assert_eq!(unknown.field, field, "{api_version} {kind}");
            assert!(unknown.help.contains(hint), "{api_version} {kind}: {}", unknown.help);
        }
    }
}
