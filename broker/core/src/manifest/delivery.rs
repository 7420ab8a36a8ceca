//! Knative's DeliverySpec and what the native kinds add to it.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::destination::destination;
use super::document::{Map, Node};
use super::reader::{Path, Reader};
use super::{BackoffSpec, DeliveryExtras, DeliverySpec, Mark};
use crate::codes;
use crate::delivery::{
    BackoffPolicy, DEFAULT_ORDERING_KEY, Format, MaxBacklog, Ordering, Rate, WhenExceeded,
};
use crate::event::MAX_NAME_BYTES;

/// The most retries, Knative's `int32`.
const MAX_RETRY: u32 = i32::MAX as u32;

/// The most calls to one subscriber at one time.
pub(super) const MAX_IN_FLIGHT: u32 = 10_000;

/// The most attempts per second that can be asked for, and the most at once.
pub(super) const MAX_RATE: u32 = 1_000_000;

/// The fields of a delivery. The second half is of native kinds only.
const KNOWN: [&str; 16] = [
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
    "ratePerSecond",
    "burst",
    "ordering",
    "orderingKey",
    "holdWhenDown",
    "maxBacklog",
];

/// Reads `delivery`.
pub(super) fn delivery(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &Path<'_>,
    namespace: &str,
) -> Option<DeliverySpec> {
    let map = reader.map(node, path)?;
    reader.only(map, path, &KNOWN, &[]);
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
    let rate_of = |reader: &mut Reader<'_>, node: &Node, path: &Path<'_>| {
        reader.integer(node, path, 1, MAX_RATE).map(|number| (number, node.mark))
    };
    let per_second = reader.optional(map, path, "ratePerSecond", rate_of);
    let burst = reader.optional(map, path, "burst", rate_of);
    // What is wrong with the rate is told already.
    let burst = burst.filter(|_| per_second.is_some() || map.get("ratePerSecond").is_none());
    let keeps_order = reader.optional(map, path, "ordering", |reader, node, path| {
        let text = reader.string(node, path)?;
        keeps_order(reader, text, node.mark, path)
    });
    let attribute = reader.optional(map, path, "orderingKey", |reader, node, path| {
        let text = reader.string(node, path)?;
        ordering_key(reader, text, node.mark, path).map(|attribute| (attribute, node.mark))
    });
    DeliveryExtras {
        max_in_flight: reader.optional(map, path, "maxInFlight", |reader, node, path| {
            reader.integer(node, path, 1, MAX_IN_FLIGHT)
        }),
        rate: rate(reader, per_second.map(|(number, _)| number), burst, &path.field("burst")),
        ordering: ordering(reader, keeps_order, attribute, &path.field("orderingKey")),
        hold_when_down: reader.optional(map, path, "holdWhenDown", Reader::boolean),
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

/// The rate that `ratePerSecond` and `burst` ask for together; `path` is that of `burst`.
pub(super) fn rate(
    reader: &mut Reader<'_>,
    per_second: Option<u32>,
    burst: Option<(u32, Mark)>,
    path: &Path<'_>,
) -> Option<Rate> {
    let Some(per_second) = per_second.and_then(NonZeroU32::new) else {
        if let Some((_, mark)) = burst {
            let message = format!("`{path}` is given without `ratePerSecond`");
            reader.error(codes::FIELD_CONFLICT, mark, path, message, "write `ratePerSecond` as well");
        }
        return None;
    };
    Some(Rate::new(per_second, burst.and_then(|(burst, _)| NonZeroU32::new(burst))))
}

/// Whether `ordering` asks for an order.
pub(super) fn keeps_order(reader: &mut Reader<'_>, text: &str, mark: Mark, path: &Path<'_>) -> Option<bool> {
    match text {
        "none" => Some(false),
        "key" => Some(true),
        _ => {
            let message = format!("`{path}` is neither `none` nor `key`");
            reader.error(codes::FIELD_VALUE, mark, path, message, "write `none` or `key`");
            None
        }
    }
}

/// The name of the attribute that `orderingKey` gives.
pub(super) fn ordering_key(
    reader: &mut Reader<'_>,
    text: &str,
    mark: Mark,
    path: &Path<'_>,
) -> Option<Arc<str>> {
    if attribute_name(text) {
        return Some(Arc::from(text));
    }
    let message = format!("`{path}` is not the name of an attribute");
    let help = "write an attribute such as `partitionkey` or `subject`: letters a-z and digits only";
    reader.error(codes::FIELD_VALUE, mark, path, message, help);
    None
}

/// Whether an attribute can have the name; `data` is none.
fn attribute_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text != "data" && text.bytes().all(allowed)
}

/// What `ordering` and `orderingKey` ask for together; `path` is that of `orderingKey`.
pub(super) fn ordering(
    reader: &mut Reader<'_>,
    keeps_order: Option<bool>,
    attribute: Option<(Arc<str>, Mark)>,
    path: &Path<'_>,
) -> Option<Ordering> {
    match (keeps_order, attribute) {
        (Some(true), attribute) => {
            let attribute =
                attribute.map_or_else(|| Arc::from(DEFAULT_ORDERING_KEY), |(attribute, _)| attribute);
            Some(Ordering::Key { attribute })
        }
        (keeps_order, Some((_, mark))) => {
            let message = format!("`{path}` is given without `ordering: key`");
            reader.error(codes::FIELD_CONFLICT, mark, path, message, "write `ordering: key` as well");
            keeps_order.map(|_| Ordering::None)
        }
        (keeps_order, None) => keeps_order.map(|_| Ordering::None),
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
