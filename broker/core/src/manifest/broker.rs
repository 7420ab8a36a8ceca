//! Broker, of Knative's group and of ours.

use super::annotations::Annotations;
use super::delivery::delivery;
use super::destination::reference;
use super::document::{Map, Node, Value};
use super::reader::{Path, Reader};
use super::spec::{Deduplication, Fixed, RetentionSpec};
use super::{BrokerSpec, Mark};
use crate::codes;

const KNOWN: [&str; 6] = ["delivery", "log", "retention", "strictReplies", "acceptedStatus", "deduplication"];

/// How many events are looked back at where a manifest does not say.
const DEFAULT_DEDUPLICATION_EVENTS: u32 = 1_000_000;
/// The most: each takes up to 48 bytes of memory.
const MAX_DEDUPLICATION_EVENTS: u32 = 20_000_000;

/// Knative's annotation that selects the implementation; any is taken, none may change.
const CLASS: &str = "eventing.knative.dev/broker.class";

/// Reads a Broker, whose spec may be absent.
pub(super) fn broker(
    reader: &mut Reader<'_>,
    spec: Option<&Map>,
    path: &Path<'_>,
    annotations: &Annotations<'_>,
    namespace: &str,
) -> BrokerSpec {
    annotations.only(reader, &[], &[]);
    let class = annotations.get(CLASS).map(|(value, mark)| Fixed { value: value.to_owned(), mark });
    let Some(spec) = spec else { return BrokerSpec { class, ..BrokerSpec::default() } };
    reader.only(spec, path, &KNOWN, &[]);
    let delivery =
        reader.optional(spec, path, "delivery", |reader, node, path| delivery(reader, node, path, namespace));
    if reader.strict {
        BrokerSpec {
            delivery,
            class,
            retention: reader.optional(spec, path, "retention", retention).unwrap_or_default(),
            memory: reader.optional(spec, path, "log", log).flatten(),
            strict_replies: reader.optional(spec, path, "strictReplies", Reader::boolean).unwrap_or_default(),
            accepted_status: reader.optional(spec, path, "acceptedStatus", accepted_status),
            config: None,
            deduplication: reader.optional(spec, path, "deduplication", deduplication),
        }
    } else {
        let config = |reader: &mut Reader<'_>, node: &Node, path: &Path<'_>| {
            let reference = reference(reader, node, path, namespace)?;
            let value = format!("{} {} {}", reference.api_version, reference.kind, reference.name);
            Some(Fixed { value, mark: node.mark })
        };
        BrokerSpec {
            delivery,
            class,
            config: reader.optional(spec, path, "config", config),
            ..BrokerSpec::default()
        }
    }
}

fn retention(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<RetentionSpec> {
    let map = reader.map(node, path)?;
    reader.only(map, path, &["age", "size"], &[]);
    Some(RetentionSpec {
        age: reader.optional(map, path, "age", |reader, node, path| reader.duration(node, path, false)),
        size: reader.optional(map, path, "size", Reader::size),
    })
}

fn deduplication(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<(Deduplication, Mark)> {
    let map = reader.map(node, path)?;
    reader.only(map, path, &["window", "maxEvents"], &[]);
    let help = "write how long an event is remembered, such as `PT10M`";
    let window = reader.required((map, node.mark), path, "window", help, |reader, node, path| {
        reader.duration(node, path, false)
    });
    let events = reader.optional(map, path, "maxEvents", |reader, node, path| {
        reader.integer(node, path, 1, MAX_DEDUPLICATION_EVENTS)
    });
    let events = u64::from(events.unwrap_or(DEFAULT_DEDUPLICATION_EVENTS));
    Some((Deduplication { window: window?, events }, node.mark))
}

/// The place where the memory mode is asked for; none inside for the log on disk, which is also what an absent field
/// means.
fn log(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<Option<Mark>> {
    match &node.value {
        Value::String(text) if text == "memory" => Some(Some(node.mark)),
        Value::String(text) if text == "embedded" => Some(None),
        Value::String(text) if ["kafka", "nats"].contains(&text.as_str()) => {
            reader.not_supported(node.mark, path);
            None
        }
        Value::Map(map) if map.iter().any(|(name, _)| ["kafka", "nats"].contains(&name)) => {
            reader.not_supported(node.mark, path);
            None
        }
        _ => {
            let message = format!("`{path}` names no log");
            reader.error(
                codes::FIELD_VALUE,
                node.mark,
                path,
                message,
                "write `memory` or `embedded`, or leave it out for the log on disk",
            );
            None
        }
    }
}

fn accepted_status(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<u16> {
    match reader.integer(node, path, 0, 999)? {
        200 => Some(200),
        202 => Some(202),
        other => {
            let message = format!("`{path}` cannot be {other}");
            reader.error(codes::FIELD_VALUE, node.mark, path, message, "write 200 or 202");
            None
        }
    }
}
