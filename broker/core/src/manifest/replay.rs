//! `kind: Replay`: a range of a broker's log that is sent again.

use std::fmt;

use super::delivery::delivery;
use super::destination::destination;
use super::document::{Map, Node, Value};
use super::filters::filter;
use super::reader::{Path, Reader};
use super::{BrokerReference, DeliverySpec, Destination, Mark, ResourceName};
use crate::codes;
use crate::event::instant;
use crate::filter::Filter;

/// The fields of a Replay's spec.
const FIELDS: [&str; 8] = ["broker", "from", "to", "filters", "trigger", "subscriber", "delivery", "paused"];

/// What a Replay declares.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySpec {
    /// The broker whose log is read.
    pub broker: BrokerReference,
    /// Where the range begins.
    pub from: ReplayBound,
    /// Where the range ends: the first event that is not part of it.
    pub to: ReplayBound,
    /// Which events of the range; those of the trigger, or all, where absent.
    pub filter: Option<Filter>,
    /// Where they go.
    pub destination: ReplayDestination,
    /// What is different from the delivery of the trigger, or of the broker.
    pub delivery: Option<DeliverySpec>,
    /// Whether it makes no attempts for now.
    pub paused: bool,
    /// The fields that are written, each with its place.
    marks: Vec<(&'static str, Mark)>,
    /// The place of the spec.
    mark: Mark,
}

impl ReplaySpec {
    /// The place of a field; that of the spec where the field is not written.
    pub fn mark_of(&self, field: &str) -> Mark {
        self.marks.iter().find(|(name, _)| *name == field).map_or(self.mark, |(_, mark)| *mark)
    }
}

/// An end of the range of a Replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayBound {
    /// The oldest event that the log holds, or behind the newest one at the moment when the replay starts.
    Open,
    /// The first event that arrived at this time or later, in nanoseconds since 1970.
    Time(i64),
    /// The event at this offset of one partition; only that partition is part of the range.
    Position {
        /// The partition.
        partition: u16,
        /// The offset.
        offset: u64,
    },
}

impl fmt::Display for ReplayBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Time(nanoseconds) => {
                let time = jiff::Timestamp::from_nanosecond(i128::from(*nanoseconds)).unwrap_or_default();
                write!(f, "{time}")
            }
            Self::Position { partition, offset } => write!(f, "{partition}:{offset}"),
        }
    }
}

/// Where a Replay sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplayDestination {
    /// As this trigger does: with its transformations, to its subscriber.
    Trigger(ResourceName),
    /// Somewhere else.
    Subscriber(Destination),
}

/// Reads a Replay. `mark` is the place of its spec.
pub(super) fn replay(
    reader: &mut Reader<'_>,
    (spec, mark): (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
) -> Option<ReplaySpec> {
    reader.only(spec, path, &FIELDS, &[]);
    let help = "write the name of the Broker whose events are sent again";
    let broker = reader.required((spec, mark), path, "broker", help, |reader, node, path| {
        let name = ResourceName::new(namespace, reader.text(node, path)?);
        Some(BrokerReference { name, mark: node.mark, path: "spec.broker" })
    });
    let help = "write `earliest`, a time or a position, so that no replay is larger than was meant";
    let from = reader.required((spec, mark), path, "from", help, |reader, node, path| {
        bound(reader, node, path, "earliest")
    });
    let to = match spec.get("to") {
        Some(node) => bound(reader, node, &path.field("to"), "latest"),
        None => Some(ReplayBound::Open),
    };
    if let (Some(from), Some(to), Some(node)) = (from, to, spec.get("to")) {
        order(reader, (from, to), node.mark, &path.field("to"));
    }
    let own_filter = spec.get("filters").filter(|node| node.value != Value::List(Vec::new()));
    let filter = if own_filter.is_some() { filter(reader, spec, path).map(Some) } else { Some(None) };
    let destination = where_to(reader, (spec, mark), path, namespace);
    let delivery = reader.optional(spec, path, "delivery", |reader, node, path| {
        let read = delivery(reader, node, path, namespace);
        refuse_limits(reader, node, path);
        read
    });
    let paused = reader.optional(spec, path, "paused", Reader::boolean).unwrap_or_default();
    let marks = FIELDS.iter().filter_map(|name| Some((*name, spec.get(name)?.mark))).collect();
    Some(ReplaySpec {
        broker: broker?,
        from: from?,
        to: to?,
        filter: filter?,
        destination: destination?,
        delivery,
        paused,
        marks,
        mark,
    })
}

/// Exactly one of `trigger` and `subscriber`.
fn where_to(
    reader: &mut Reader<'_>,
    (spec, mark): (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
) -> Option<ReplayDestination> {
    let (trigger_path, subscriber_path) = (path.field("trigger"), path.field("subscriber"));
    match (spec.get("trigger"), spec.get("subscriber")) {
        (Some(node), None) => {
            let name = reader.text(node, &trigger_path)?;
            Some(ReplayDestination::Trigger(ResourceName::new(namespace, name)))
        }
        (None, Some(node)) => {
            destination(reader, node, &subscriber_path, namespace).map(ReplayDestination::Subscriber)
        }
        (Some(_), Some(node)) => {
            let message = "`spec.trigger` and `spec.subscriber` are both given";
            let help = "keep `trigger` to send as that trigger does, or `subscriber` to send elsewhere";
            reader.error(codes::FIELD_CONFLICT, node.mark, &subscriber_path, message, help);
            None
        }
        (None, None) => {
            let help = "write the name of the trigger to send as, or `subscriber` to send elsewhere";
            reader.missing(mark, &trigger_path, help);
            None
        }
    }
}

/// Reads an end of the range; `open` is the word for the end of the log itself.
fn bound(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>, open: &str) -> Option<ReplayBound> {
    let text = reader.string(node, path)?;
    let bound = parse_bound(text, open);
    if bound.is_none() {
        let message = format!("`{path}` is neither `{open}`, a time nor a position");
        let help =
            "write a time as RFC 3339, such as `2026-01-31T08:00:00Z`, or PARTITION:OFFSET, such as `0:1500`";
        reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
    }
    bound
}

fn parse_bound(text: &str, open: &str) -> Option<ReplayBound> {
    if text == open {
        return Some(ReplayBound::Open);
    }
    if let Ok(time) = instant(text) {
        return i64::try_from(time.as_nanosecond()).ok().map(ReplayBound::Time);
    }
    let (partition, offset) = text.split_once(':')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(partition) || !digits(offset) {
        return None;
    }
    Some(ReplayBound::Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
}

/// A range that ends before it begins is a mistake.
fn order(reader: &mut Reader<'_>, range: (ReplayBound, ReplayBound), mark: Mark, path: &Path<'_>) {
    use ReplayBound::{Position, Time};
    let wrong = match range {
        (Time(from), Time(to)) if to <= from => "it must be later than `spec.from`",
        (Position { partition, .. }, Position { partition: other, .. }) if partition != other => {
            "both positions must be of one partition"
        }
        (Position { offset: from, .. }, Position { offset: to, .. }) if to <= from => {
            "it must be greater than `spec.from`"
        }
        _ => return,
    };
    let message = format!("`{path}` leaves nothing to send: {wrong}");
    let help = "`from` is the first event of the range, `to` the first one behind it";
    reader.error(codes::FIELD_VALUE, mark, path, message, help);
}

/// What limits a delivery by the age of events has no meaning where all of them are old.
fn refuse_limits(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>) {
    let Value::Map(map) = &node.value else { return };
    for name in ["deadline", "maxBacklog"] {
        if let Some(node) = map.get(name) {
            let path = path.field(name);
            let message = format!("`{path}` has no meaning: all events of a Replay are old");
            let help = "leave it out; that of the trigger does not count for a Replay either";
            reader.error(codes::FIELD_CONFLICT, node.mark, &path, message, help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{ManifestFile, Problem, Spec};

    fn read(spec: &str) -> (Option<ReplaySpec>, Vec<Problem>) {
        let text =
            format!("apiVersion: waypost.dev/v1alpha1\nkind: Replay\nmetadata: {{name: r}}\nspec: {spec}\n");
        let resource = ManifestFile::read("r.yaml", text.as_bytes()).resources.remove(0);
        let spec = resource.spec.map(|spec| match spec {
            Spec::Replay(spec) => *spec,
            other => panic!("{other:?}"),
        });
        (spec, resource.problems)
    }

    #[test]
    fn a_range_is_read_by_time_and_by_position() {
        let (spec, problems) = read("{broker: b, trigger: t, from: earliest}");
        let spec = spec.expect("it is valid");
        assert_eq!(
            (spec.from, spec.to, spec.filter, problems),
            (ReplayBound::Open, ReplayBound::Open, None, vec![])
        );
        assert_eq!(spec.destination, ReplayDestination::Trigger(ResourceName::new("default", "t")));
        let (spec, _) =
            read("{broker: b, subscriber: {uri: 'http://x/'}, from: '0:7', to: '0:9', filters: []}");
        let spec = spec.expect("it is valid");
        assert_eq!(spec.from, ReplayBound::Position { partition: 0, offset: 7 });
        assert_eq!((spec.to.to_string(), spec.filter), ("0:9".to_owned(), None));
        let (spec, _) = read(
            "{broker: b, trigger: t, from: '2026-01-01T00:00:00Z', to: latest, paused: true, filters: [{exact: {type: x}}], \
             delivery: {retry: 3}}",
        );
        let spec = spec.expect("it is valid");
        assert_eq!((spec.from.to_string().as_str(), spec.paused), ("2026-01-01T00:00:00Z", true));
        assert!(spec.filter.is_some() && spec.delivery.is_some());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        for (spec, path) in [
            ("{trigger: t, from: earliest}", "spec.broker"),
            ("{broker: b, trigger: t}", "spec.from"),
            ("{broker: b, trigger: t, from: latest}", "spec.from"),
            ("{broker: b, trigger: t, from: '1:-2'}", "spec.from"),
            ("{broker: b, trigger: t, from: '+1:2'}", "spec.from"),
            ("{broker: b, trigger: t, from: '99999:2'}", "spec.from"),
            ("{broker: b, trigger: t, from: earliest, to: earliest}", "spec.to"),
            ("{broker: b, trigger: t, from: '0:5', to: '0:5'}", "spec.to"),
            ("{broker: b, trigger: t, from: '0:5', to: '1:9'}", "spec.to"),
            ("{broker: b, trigger: t, from: '2026-01-02T00:00:00Z', to: '2026-01-01T00:00:00Z'}", "spec.to"),
            ("{broker: b, from: earliest}", "spec.trigger"),
            ("{broker: b, from: earliest, trigger: t, subscriber: {uri: 'http://x/'}}", "spec.subscriber"),
            ("{broker: b, from: earliest, trigger: t, filters: [{exact: {}}]}", "spec.filters[0].exact"),
            ("{broker: b, from: earliest, trigger: t, delivery: {deadline: PT1S}}", "spec.delivery.deadline"),
            ("{broker: b, from: earliest, trigger: t, pausd: true}", "spec.pausd"),
        ] {
            let (read, problems) = read(spec);
            assert!(read.is_none(), "{spec}");
            let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
            assert_eq!(paths, [path], "{spec}");
        }
    }
}
