//! Kinds of others that become a native Source or Sink: one row and one pure function for each.
//!
//! A translated kind keeps its apiVersion, kind and place of fields. What it has and cannot be honoured is told by name:
//! a warning where events come and go all the same, an error where they would not.

mod aws;
mod elasticsearch;
mod google;
mod http;
mod kafka;
mod webhook;

use std::cell::RefCell;

use super::document::{Map, Node, Value};
use super::reader::{Path, Reader};
use super::{Component, Mark, SourceSpec, destination::destination};
use crate::codes;

/// What a kind becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// A Source.
    Source,
    /// A Sink.
    Sink,
}

/// One kind.
pub(super) struct Translation {
    api_version: &'static str,
    kind: &'static str,
    becomes: Becomes,
    /// The type of the native kind.
    type_name: &'static str,
    /// The settings of that type.
    translate: fn(&mut Reader<'_>, &Foreign<'_>) -> Option<Settings>,
}

/// The settings of a native type, in the making.
type Settings = Vec<(String, Node)>;

/// The group and version of TriggerMesh's sources.
pub(super) const SOURCES: &str = "sources.triggermesh.io/v1alpha1";
/// The group and version of TriggerMesh's targets.
pub(super) const TARGETS: &str = "targets.triggermesh.io/v1alpha1";

/// Every kind that is translated.
const TRANSLATIONS: [Translation; 14] = [
    Translation {
        api_version: SOURCES,
        kind: "AWSSQSSource",
        becomes: Becomes::Source,
        type_name: "awsSqs",
        translate: aws::sqs_source,
    },
    Translation {
        api_version: TARGETS,
        kind: "AWSS3Target",
        becomes: Becomes::Sink,
        type_name: "s3",
        translate: aws::s3_target,
    },
    Translation {
        api_version: SOURCES,
        kind: "GoogleCloudPubSubSource",
        becomes: Becomes::Source,
        type_name: "googlePubSub",
        translate: google::pub_sub_source,
    },
    Translation {
        api_version: SOURCES,
        kind: "GoogleCloudStorageSource",
        becomes: Becomes::Source,
        type_name: "googleCloudStorage",
        translate: google::storage_source,
    },
    Translation {
        api_version: SOURCES,
        kind: "WebhookSource",
        becomes: Becomes::Source,
        type_name: "webhook",
        translate: webhook::webhook_source,
    },
    Translation {
        api_version: SOURCES,
        kind: "CloudEventsSource",
        becomes: Becomes::Source,
        type_name: "webhook",
        translate: webhook::cloud_events_source,
    },
    Translation {
        api_version: TARGETS,
        kind: "ElasticsearchTarget",
        becomes: Becomes::Sink,
        type_name: "elasticsearch",
        translate: elasticsearch::target,
    },
    Translation {
        api_version: TARGETS,
        kind: "HTTPTarget",
        becomes: Becomes::Sink,
        type_name: "http",
        translate: http::http_target,
    },
    Translation {
        api_version: TARGETS,
        kind: "CloudEventsTarget",
        becomes: Becomes::Sink,
        type_name: "http",
        translate: http::cloud_events_target,
    },
    Translation {
        api_version: SOURCES,
        kind: "KafkaSource",
        becomes: Becomes::Source,
        type_name: "kafka",
        translate: kafka::triggermesh_source,
    },
    Translation {
        api_version: TARGETS,
        kind: "KafkaTarget",
        becomes: Becomes::Sink,
        type_name: "kafka",
        translate: kafka::triggermesh_target,
    },
    Translation {
        api_version: "sources.knative.dev/v1",
        kind: "KafkaSource",
        becomes: Becomes::Source,
        type_name: "kafka",
        translate: kafka::knative_source,
    },
    Translation {
        api_version: "sources.knative.dev/v1beta1",
        kind: "KafkaSource",
        becomes: Becomes::Source,
        type_name: "kafka",
        translate: kafka::knative_source,
    },
    Translation {
        api_version: "eventing.knative.dev/v1alpha1",
        kind: "KafkaSink",
        becomes: Becomes::Sink,
        type_name: "kafka",
        translate: kafka::knative_sink,
    },
];

/// The translation of a kind, with both names as they are written properly.
pub(super) fn find(api_version: &str, kind: &str) -> Option<(&'static str, &'static str)> {
    let row = row(api_version, kind)?;
    Some((row.api_version, row.kind))
}

/// What a kind of others becomes, where it is translated.
pub fn becomes(api_version: &str, kind: &str) -> Option<Becomes> {
    row(api_version, kind).map(|row| row.becomes)
}

fn row(api_version: &str, kind: &str) -> Option<&'static Translation> {
    TRANSLATIONS.iter().find(|row| row.api_version == api_version && row.kind == kind)
}

/// A translated kind.
pub(super) enum Translated {
    Source(SourceSpec),
    Sink(Component),
}

/// Reads the spec of a kind that is translated.
pub(super) fn translate(
    reader: &mut Reader<'_>,
    (map, mark): (&Map, Mark),
    path: &Path<'_>,
    id: &super::ResourceId,
) -> Option<Translated> {
    let row = row(&id.api_version, &id.kind)?;
    let sink = match row.becomes {
        Becomes::Sink => None,
        Becomes::Source => {
            let help = "write the Broker or the destination that takes the events";
            let sink = reader.required((map, mark), path, "sink", help, |reader, node, path| {
                destination(reader, node, path, &id.namespace)
            });
            Some(sink)
        }
    };
    let known = RefCell::new(if sink.is_some() { vec!["sink"] } else { Vec::new() });
    let own = Foreign { map, mark, path, known, namespace: &id.namespace, name: &id.name };
    let settings = (row.translate)(reader, &own);
    own.tell_of_others(reader);
    let node = Node { value: Value::Map(Map::of(settings?)), mark };
    let component = Component { candidates: vec![(row.type_name.to_owned(), node)], mark, flat: true };
    match sink {
        None => Some(Translated::Sink(component)),
        Some(sink) => Some(Translated::Source(SourceSpec { component, sink: sink? })),
    }
}

/// A map of a kind of others, which knows which of its fields were looked at.
pub(super) struct Foreign<'m> {
    map: &'m Map,
    mark: Mark,
    path: &'m Path<'m>,
    known: RefCell<Vec<&'static str>>,
    namespace: &'m str,
    name: &'m str,
}

impl<'m> Foreign<'m> {
    /// A field, where it is there and says something.
    fn get(&self, name: &'static str) -> Option<&'m Node> {
        self.known.borrow_mut().push(name);
        self.map.get(name).filter(|node| node.value != Value::Null)
    }

    /// A field that must be there.
    fn required(&self, reader: &mut Reader<'_>, name: &'static str, help: &str) -> Option<&'m Node> {
        let node = self.get(name);
        if node.is_none() {
            reader.missing(self.mark, &self.path.field(name), help);
        }
        node
    }

    /// A field that is a map; what is read of it is told like the map itself.
    fn map<T>(
        &self,
        reader: &mut Reader<'_>,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'_>, &Foreign<'_>) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(name)?;
        let path = self.path.field(name);
        let map = reader.map(node, &path)?;
        let own = Foreign {
            map,
            mark: node.mark,
            path: &path,
            known: RefCell::default(),
            namespace: self.namespace,
            name: self.name,
        };
        let read = read(reader, &own);
        own.tell_of_others(reader);
        read
    }

    /// A field that is text, where it is not empty.
    fn said(&self, reader: &mut Reader<'_>, name: &'static str) -> Option<&'m Node> {
        let node = self.get(name)?;
        let text = reader.string(node, &self.path.field(name))?;
        (!text.is_empty()).then_some(node)
    }

    /// Whether a field is `true`.
    fn is_true(&self, reader: &mut Reader<'_>, name: &'static str) -> bool {
        let node = self.get(name);
        node.is_some_and(|node| reader.boolean(node, &self.path.field(name)).unwrap_or_default())
    }

    /// A secret as TriggerMesh writes it (`value`, `valueFromSecret`) or as Knative does (`secretKeyRef`), as ours.
    fn secret(&self, reader: &mut Reader<'_>, name: &'static str) -> Option<Node> {
        let node = self.get(name)?;
        self.secret_of(reader, node, name)
    }

    fn secret_of(&self, reader: &mut Reader<'_>, node: &Node, name: &'static str) -> Option<Node> {
        let path = self.path.field(name);
        let map = reader.map(node, &path)?;
        let said = |name: &str| map.get(name).filter(|node| node.value != Value::Null).cloned();
        let reference = said("valueFromSecret").or_else(|| said("secretKeyRef"));
        let field = match (said("value"), reference) {
            (_, Some(reference)) => {
                let all = reader.map(&reference, &path)?;
                // `optional` says nothing to us.
                let keys = ["name", "key"].into_iter();
                let kept = keys.filter_map(|key| Some((key.to_owned(), all.get(key)?.clone()))).collect();
                ("secretKeyRef".to_owned(), Node { value: Value::Map(Map::of(kept)), mark: reference.mark })
            }
            (Some(value), None) => ("value".to_owned(), value),
            (None, None) => {
                let message = format!("`{path}` names no secret");
                reader.error(
                    codes::FIELD_MISSING,
                    node.mark,
                    &path,
                    message,
                    "write `value` or a reference to a Secret",
                );
                return None;
            }
        };
        Some(Node { value: Value::Map(Map::of(vec![field])), mark: node.mark })
    }

    /// Says that a field would change how events go, and cannot be honoured.
    fn cannot(&self, reader: &mut Reader<'_>, name: &'static str, help: &str) {
        if let Some(node) = self.get(name) {
            let path = self.path.field(name);
            let message = format!("`{path}` cannot be honoured by this version");
            reader.error(codes::FIELD_NOT_SUPPORTED, node.mark, &path, message, help);
        }
    }

    /// Says that a field has no effect, and what to know about that.
    fn without_effect(&self, reader: &mut Reader<'_>, name: &'static str, help: &str) {
        if let Some(node) = self.get(name) {
            let path = self.path.field(name);
            let message = format!("`{path}` has no effect here");
            reader.warning(codes::FIELD_NOT_SUPPORTED, node.mark, &path, message, help);
        }
    }

    /// Nothing is dropped in silence: a field that has no counterpart is named.
    fn tell_of_others(&self, reader: &mut Reader<'_>) {
        let known = self.known.borrow();
        for (name, node) in self.map.iter().filter(|(name, _)| !known.contains(name)) {
            let path = self.path.field(name);
            let message = format!("`{path}` has no effect here");
            reader.warning(
                codes::FIELD_NOT_SUPPORTED,
                node.mark,
                &path,
                message,
                "leave it out to silence this",
            );
        }
    }
}

fn text(value: impl Into<String>, mark: Mark) -> Node {
    Node { value: Value::String(value.into()), mark }
}

fn list(items: Vec<Node>, mark: Mark) -> Node {
    Node { value: Value::List(items), mark }
}

fn map(fields: Settings, mark: Mark) -> Node {
    Node { value: Value::Map(Map::of(fields)), mark }
}

/// What is written out where a native setting takes a secret.
fn as_secret(value: &Node) -> Node {
    map(vec![("value".to_owned(), value.clone())], value.mark)
}

/// TLS from the fields for an authority, of this name, and for none. The authority wins, as in the adapters.
fn tls(reader: &mut Reader<'_>, own: &Foreign<'_>, authority: &'static str) -> Settings {
    let skip_verify = own.is_true(reader, "skipVerify");
    let (setting, mark) = match own.said(reader, authority) {
        Some(pem) => (("ca".to_owned(), as_secret(pem)), pem.mark),
        None if skip_verify => {
            let skip = Node { value: Value::Bool(true), mark: own.mark };
            (("insecureSkipVerify".to_owned(), skip), own.mark)
        }
        None => return Settings::new(),
    };
    vec![("tls".to_owned(), map(vec![setting], mark))]
}

/// A text as a template that says just that.
fn literal(node: &Node) -> Node {
    match &node.value {
        Value::String(text) => Node { value: Value::String(text.replace("${", "$${")), mark: node.mark },
        _ => node.clone(),
    }
}

#[cfg(test)]
mod suite;
