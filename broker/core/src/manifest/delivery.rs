//! Knative's DeliverySpec and what the native kinds add to it.

use super::destination::destination;
use super::document::{Map, Node, Value};
use super::reader::{Path, Reader};
use super::{BackoffSpec, DeliveryExtras, DeliverySpec};
use crate::codes;
use crate::delivery::{BackoffPolicy, Format, MaxBacklog, WhenExceeded};

/// The most retries, Knative's `int32`.
const MAX_RETRY: u32 = i32::MAX as u32;

/// The most calls to one subscriber at one time.
pub(super) const MAX_IN_FLIGHT: u32 = 10_000;

/// The fields of a delivery. The second half is of native kinds only.
const KNOWN: [&str; 12] = [
    "deadLetterSink",
    "retry",
    "timeout",
    "backoffPolicy",
    "backoffDelay",
    "retryAfterMax",
    "format",
    "maxInFlight",
    "backoffMax",
    "deadline",
    "ordering",
    "maxBacklog",
];

/// What the native delivery will have. As annotations of a Knative Trigger they are refused as well.
pub(super) const PLANNED: [&str; 3] = ["ratePerSecond", "orderingKey", "holdWhenDown"];

/// Reads `delivery`.
pub(super) fn delivery(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &Path<'_>,
    namespace: &str,
) -> Option<DeliverySpec> {
    let map = reader.map(node, path)?;
    reader.only(map, path, &KNOWN, &PLANNED);
    let strict = reader.strict;
    Some(DeliverySpec {
        dead_letter_sink: reader.optional(map, path, "deadLetterSink", |reader, node, path| {
            destination(reader, node, path, namespace)
        }),
        retry: reader
            .optional(map, path, "retry", |reader, node, path| reader.integer(node, path, 0, MAX_RETRY)),
        timeout: reader
            .optional(map, path, "timeout", |reader, node, path| reader.duration(node, path, false)),
        backoff: BackoffSpec {
            policy: reader.optional(map, path, "backoffPolicy", policy),
            delay: reader
                .optional(map, path, "backoffDelay", |reader, node, path| reader.duration(node, path, true)),
        },
        retry_after_max: reader
            .optional(map, path, "retryAfterMax", |reader, node, path| reader.duration(node, path, true)),
        format: reader.optional(map, path, "format", format),
        extras: if strict { extras(reader, map, path) } else { DeliveryExtras::default() },
    })
}

fn extras(reader: &mut Reader<'_>, map: &Map, path: &Path<'_>) -> DeliveryExtras {
    if let Some(node) = map.get("ordering") {
        ordering(reader, node, &path.field("ordering"));
    }
    DeliveryExtras {
        max_in_flight: reader.optional(map, path, "maxInFlight", |reader, node, path| {
            reader.integer(node, path, 1, MAX_IN_FLIGHT)
        }),
        backoff_max: reader
            .optional(map, path, "backoffMax", |reader, node, path| reader.duration(node, path, false)),
        deadline: reader
            .optional(map, path, "deadline", |reader, node, path| reader.duration(node, path, false)),
        max_backlog: reader.optional(map, path, "maxBacklog", max_backlog),
    }
}

/// Reads how much a trigger may be owed.
pub(super) fn max_backlog(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<MaxBacklog> {
    let map = reader.map(node, path)?;
    reader.all_known(map, path, &["size", "age", "whenExceeded"]);
    let size = reader.optional(map, path, "size", Reader::size);
    let age = reader.optional(map, path, "age", |reader, node, path| reader.duration(node, path, false));
    if map.get("size").is_none() && map.get("age").is_none() {
        reader.missing(node.mark, &path.field("size"), "write `size`, `age` or both");
        return None;
    }
    let when_exceeded = match map.get("whenExceeded") {
        None => WhenExceeded::default(),
        Some(node) => when_exceeded(reader, node, &path.field("whenExceeded"))?,
    };
    Some(MaxBacklog { size, age, when_exceeded })
}

fn when_exceeded(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<WhenExceeded> {
    match reader.string(node, path)? {
        "refuse" => Some(WhenExceeded::Refuse),
        "deadLetter" => Some(WhenExceeded::DeadLetter),
        "drop" => Some(WhenExceeded::Drop),
        other => {
            let message = format!("`{other}` is not something to do when the backlog is too large");
            let help = "write `refuse`, `deadLetter` or `drop`";
            reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
            None
        }
    }
}

/// `none` is what this version does; `key` is not supported yet.
fn ordering(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) {
    match &node.value {
        Value::String(text) if text == "none" => {}
        Value::String(text) if text == "key" => reader.not_supported(node.mark, path),
        _ => {
            let message = format!("`{path}` is neither `none` nor `key`");
            reader.error(codes::FIELD_VALUE, node.mark, path, message, "write `none`, or leave it out");
        }
    }
}

fn policy(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<BackoffPolicy> {
    let strict = reader.strict;
    match reader.string(node, path)? {
        "linear" => Some(BackoffPolicy::Linear),
        "exponential" => Some(BackoffPolicy::Exponential),
        "constant" if strict => Some(BackoffPolicy::Constant),
        other => {
            let (choices, message) = (
                if strict { "`exponential`, `linear` or `constant`" } else { "`exponential` or `linear`" },
                format!("`{other}` is not a backoff policy"),
            );
            let help = if other == "constant" {
                format!("write {choices}; `constant` is for the Trigger of waypost.dev")
            } else {
                format!("write {choices}")
            };
            reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
            None
        }
    }
}

fn format(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) -> Option<Format> {
    match reader.string(node, path)? {
        "json" => Some(Format::Json),
        "binary" => Some(Format::Binary),
        other => {
            let message = format!("`{other}` is not a format");
            reader.error(codes::FIELD_VALUE, node.mark, path, message, "write `binary` or `json`");
            None
        }
    }
}
