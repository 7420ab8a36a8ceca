//! Knative's Sequence and Parallel.
//!
//! Each becomes hidden brokers and triggers; reading one is as pure as reading any other kind.

use super::delivery::delivery;
use super::destination::destination;
use super::document::{Map, Node, Value};
use super::reader::{Path, Reader};
use super::{DeliverySpec, Destination, Mark};
use crate::codes;

/// The group and version of Knative's flows.
pub const KNATIVE_FLOWS: &str = "flows.knative.dev/v1";

/// The most steps of a Sequence, and the most branches of a Parallel. A step costs one of an event's 255 hops.
const MAX_PARTS: usize = 100;

/// What a Sequence declares: each step takes what the one before it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceSpec {
    /// The steps, at least one.
    pub steps: Vec<StepSpec>,
    /// What takes the answers of the last step; they are dropped where it is absent.
    pub reply: Option<Destination>,
}

/// One step of a Sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSpec {
    /// What takes the event.
    pub subscriber: Destination,
    /// How it is sent there.
    pub delivery: Option<DeliverySpec>,
}

/// What a Parallel declares: each branch takes every event.
#[derive(Debug, Clone, PartialEq)]
pub struct ParallelSpec {
    /// The branches, at least one.
    pub branches: Vec<BranchSpec>,
    /// What takes the answers of branches without a `reply` of their own.
    pub reply: Option<Destination>,
}

/// One branch of a Parallel.
#[derive(Debug, Clone, PartialEq)]
pub struct BranchSpec {
    /// What is asked first: the branch goes on with what it answers, and ends where that is nothing.
    pub filter: Option<Destination>,
    /// What takes the event.
    pub subscriber: Destination,
    /// What takes the subscriber's answers.
    pub reply: Option<Destination>,
    /// How the event is sent to the subscriber.
    pub delivery: Option<DeliverySpec>,
}

impl SequenceSpec {
    /// Everything that it refers to, each with its field.
    pub fn destinations(&self) -> Vec<(String, &Destination)> {
        let mut all = Vec::with_capacity(2 * self.steps.len() + 1);
        for (index, step) in self.steps.iter().enumerate() {
            all.push((format!("spec.steps[{index}]"), &step.subscriber));
            all.extend(dead_letter_sink(&format!("spec.steps[{index}]"), step.delivery.as_ref()));
        }
        all.extend(self.reply.as_ref().map(|reply| ("spec.reply".to_owned(), reply)));
        all
    }
}

impl ParallelSpec {
    /// Everything that it refers to, each with its field.
    pub fn destinations(&self) -> Vec<(String, &Destination)> {
        let mut all = Vec::with_capacity(4 * self.branches.len() + 1);
        for (index, branch) in self.branches.iter().enumerate() {
            let path = format!("spec.branches[{index}]");
            all.extend(branch.filter.as_ref().map(|filter| (format!("{path}.filter"), filter)));
            all.push((format!("{path}.subscriber"), &branch.subscriber));
            all.extend(branch.reply.as_ref().map(|reply| (format!("{path}.reply"), reply)));
            all.extend(dead_letter_sink(&path, branch.delivery.as_ref()));
        }
        all.extend(self.reply.as_ref().map(|reply| ("spec.reply".to_owned(), reply)));
        all
    }
}

fn dead_letter_sink<'s>(path: &str, delivery: Option<&'s DeliverySpec>) -> Option<(String, &'s Destination)> {
    let sink = delivery?.dead_letter_sink.as_ref()?;
    Some((format!("{path}.delivery.deadLetterSink"), sink))
}

/// Reads a Sequence.
pub(super) fn sequence(
    reader: &mut Reader<'_>,
    own: (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
) -> Option<SequenceSpec> {
    channel_template(reader, own.0, path);
    let reply = optional_destination(reader, own.0, path, "reply", namespace);
    let steps = parts(reader, own, path, "steps", |reader, node, path| {
        let map = reader.map(node, path)?;
        let delivery = optional_delivery(reader, map, path, namespace);
        // The step is the destination itself.
        Some(StepSpec { subscriber: destination(reader, node, path, namespace)?, delivery })
    });
    Some(SequenceSpec { steps: steps?, reply })
}

/// Reads a Parallel.
pub(super) fn parallel(
    reader: &mut Reader<'_>,
    own: (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
) -> Option<ParallelSpec> {
    channel_template(reader, own.0, path);
    let reply = optional_destination(reader, own.0, path, "reply", namespace);
    let branches = parts(reader, own, path, "branches", |reader, node, path| {
        let own = (reader.map(node, path)?, node.mark);
        let help = "write `ref` (apiVersion, kind, name) or `uri` of what takes the events of the branch";
        let filter = optional_destination(reader, own.0, path, "filter", namespace);
        let reply = optional_destination(reader, own.0, path, "reply", namespace);
        let delivery = optional_delivery(reader, own.0, path, namespace);
        let subscriber = reader.required(own, path, "subscriber", help, |reader, node, path| {
            destination(reader, node, path, namespace)
        });
        Some(BranchSpec { filter, subscriber: subscriber?, reply, delivery })
    });
    Some(ParallelSpec { branches: branches?, reply })
}

/// A list that holds at least one part. What is wrong with any of them is told.
fn parts<T>(
    reader: &mut Reader<'_>,
    own: (&Map, Mark),
    path: &Path<'_>,
    name: &'static str,
    mut read: impl FnMut(&mut Reader<'_>, &Node, &Path<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    reader.required(own, path, name, "write at least one", |reader, node, path| {
        let items = reader.list(node, path)?;
        let complaint = match items.len() {
            0 => Some((format!("`{path}` is empty"), "write at least one".to_owned())),
            count if count > MAX_PARTS => {
                let help = format!("{MAX_PARTS} are allowed: let one flow send to the next");
                Some((format!("`{path}` holds {count} items"), help))
            }
            _ => None,
        };
        if let Some((message, help)) = complaint {
            reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
            return None;
        }
        let read: Vec<_> =
            items.iter().enumerate().map(|(index, item)| read(reader, item, &path.item(index))).collect();
        read.into_iter().collect()
    })
}

fn optional_destination(
    reader: &mut Reader<'_>,
    map: &Map,
    path: &Path<'_>,
    name: &'static str,
    namespace: &str,
) -> Option<Destination> {
    reader.optional(map, path, name, |reader, node, path| destination(reader, node, path, namespace))
}

fn optional_delivery(
    reader: &mut Reader<'_>,
    map: &Map,
    path: &Path<'_>,
    namespace: &str,
) -> Option<DeliverySpec> {
    reader.optional(map, path, "delivery", |reader, node, path| delivery(reader, node, path, namespace))
}

/// What the channels between the parts would be. Ours are durable logs, which keep what an InMemoryChannel promises and
/// more; what a template asks for beyond that is named.
fn channel_template(reader: &mut Reader<'_>, map: &Map, path: &Path<'_>) {
    reader.optional(map, path, "channelTemplate", |reader, node, path| {
        let template = reader.map(node, path)?;
        let help = "write the kind of a channel, such as InMemoryChannel of messaging.knative.dev/v1, or leave the \
                    template out";
        let own = (template, node.mark);
        let api_version = reader.required(own, path, "apiVersion", help, Reader::text);
        let kind = reader.required(own, path, "kind", help, Reader::text)?;
        api_version?;
        let asks = |node: &&Node| !matches!(&node.value, Value::Map(map) if map.is_empty());
        let asked = template.get("spec").filter(asks);
        if kind != "InMemoryChannel" || asked.is_some() {
            let spec = path.field("spec");
            let path = if asked.is_some() { &spec } else { path };
            let message = format!("`{path}` has no effect here: what waits between the parts is kept in durable logs");
            reader.warning(codes::FIELD_NOT_SUPPORTED, node.mark, path, message, "leave it out to silence this");
        }
        Some(())
    });
}

#[cfg(test)]
mod suite;
