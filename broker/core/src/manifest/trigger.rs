//! Trigger, of Knative's group and of ours.

use super::annotations::{Annotations, with_path};
use super::component::transformations;
use super::delivery::{
    MAX_IN_FLIGHT, MAX_RATE, delivery, keeps_order, max_backlog, ordering, ordering_key, rate,
};
use super::destination::{destination, reference};
use super::document::{self, Map, Node, Value};
use super::filters::filter;
use super::reader::{Path, Reader};
use super::{
    BrokerReference, DeliveryExtras, KNATIVE_EVENTING, Mark, NATIVE, ResourceName, StartFrom,
    TransformationUse, TriggerSpec,
};
use crate::codes;
use crate::event::instant;

const KNOWN: [&str; 9] = [
    "broker",
    "brokerRef",
    "filter",
    "filters",
    "subscriber",
    "delivery",
    "transformations",
    "startFrom",
    "paused",
];

/// What a Knative Trigger may say by annotation, since its spec has no such fields.
const ANNOTATIONS: [&str; 12] = [
    "transformations",
    "maxInFlight",
    "ratePerSecond",
    "burst",
    "ordering",
    "orderingKey",
    "holdWhenDown",
    "backoffMax",
    "deadline",
    "maxBacklog",
    "startFrom",
    "paused",
];

/// Knative's annotation that lets the broker `default` be made when it is needed.
const INJECTION: &str = "eventing.knative.dev/injection";

/// The annotation of Knative's Kafka broker that asks for order.
const KAFKA_ORDER: &str = "kafka.eventing.knative.dev/delivery.order";

/// Reads a Trigger. `mark` is the place of its spec.
pub(super) fn trigger(
    reader: &mut Reader<'_>,
    (spec, mark): (&Map, Mark),
    path: &Path<'_>,
    annotations: &Annotations<'_>,
    namespace: &str,
) -> Option<TriggerSpec> {
    reader.only(spec, path, &KNOWN, &[]);
    let broker = broker(reader, (spec, mark), path, namespace);
    let filter = filter(reader, spec, path);
    let help = "write `ref` (apiVersion, kind, name) or `uri` of what takes the events";
    let subscriber = reader.required((spec, mark), path, "subscriber", help, |reader, node, path| {
        destination(reader, node, path, namespace)
    });
    let delivery =
        reader.optional(spec, path, "delivery", |reader, node, path| delivery(reader, node, path, namespace));
    let extras = if reader.strict {
        annotations.only(reader, &[], &[]);
        fields(reader, spec, path)
    } else {
        annotations.only(reader, &ANNOTATIONS, &[]);
        from_annotations(reader, annotations)
    };
    knative_annotations(reader, annotations, broker.as_ref());
    Some(TriggerSpec {
        broker: broker?,
        filter: filter?,
        transformations: extras.transformations,
        subscriber: subscriber?,
        delivery,
        extras: extras.delivery,
        paused: extras.paused,
        start_from: extras.start_from,
    })
}

/// Exactly one of `broker` and `brokerRef`.
fn broker(
    reader: &mut Reader<'_>,
    (spec, mark): (&Map, Mark),
    path: &Path<'_>,
    namespace: &str,
) -> Option<BrokerReference> {
    let (name_path, reference_path) = (path.field("broker"), path.field("brokerRef"));
    let name = spec.get("broker").filter(|node| node.value != Value::String(String::new()));
    match (name, spec.get("brokerRef")) {
        (None, None) => {
            reader.missing(mark, &name_path, "write the name of the Broker whose events the trigger takes");
            None
        }
        (Some(_), Some(node)) => {
            let message = "`spec.broker` and `spec.brokerRef` are both given";
            reader.error(codes::FIELD_CONFLICT, node.mark, &reference_path, message, "keep one of them");
            None
        }
        (Some(node), None) => {
            let name = reader.text(node, &name_path)?;
            Some(BrokerReference {
                name: ResourceName::new(namespace, name),
                mark: node.mark,
                path: "spec.broker",
            })
        }
        (None, Some(node)) => {
            let reference = reference(reader, node, &reference_path, namespace)?;
            if reference.kind != "Broker"
                || ![KNATIVE_EVENTING, NATIVE].contains(&reference.api_version.as_str())
            {
                let message = format!("a trigger takes events from a Broker, not from a {}", reference.kind);
                let help = format!("write kind Broker of {KNATIVE_EVENTING} or {NATIVE}");
                reader.error(codes::FIELD_VALUE, node.mark, &reference_path, message, help);
                return None;
            }
            Some(BrokerReference { name: reference.name, mark: node.mark, path: "spec.brokerRef" })
        }
    }
}

/// What this API adds to Knative's Trigger.
#[derive(Debug, Default)]
struct Extras {
    transformations: Vec<TransformationUse>,
    delivery: DeliveryExtras,
    paused: bool,
    start_from: StartFrom,
}

fn fields(reader: &mut Reader<'_>, spec: &Map, path: &Path<'_>) -> Extras {
    let start = |reader: &mut Reader<'_>, node: &Node, path: &Path<'_>| {
        let text = reader.string(node, path)?;
        start_from(reader, text, node.mark, path)
    };
    Extras {
        transformations: reader.optional(spec, path, "transformations", transformations).unwrap_or_default(),
        // They stand in `delivery` here.
        delivery: DeliveryExtras::default(),
        paused: reader.optional(spec, path, "paused", Reader::boolean).unwrap_or_default(),
        start_from: reader.optional(spec, path, "startFrom", start).unwrap_or_default(),
    }
}

fn from_annotations(reader: &mut Reader<'_>, annotations: &Annotations<'_>) -> Extras {
    let duration = |reader: &mut Reader<'_>, text: &str, mark: Mark, path: &Path<'_>| {
        reader.duration_text(text, mark, path, false)
    };
    let whole = |reader: &mut Reader<'_>, text: &str, mark: Mark, path: &Path<'_>| {
        let number = scalar(text, mark).and_then(|node| reader.integer(&node, path, 1, MAX_RATE))?;
        Some((number, mark))
    };
    let boolean = |reader: &mut Reader<'_>, text: &str, mark: Mark, path: &Path<'_>| {
        scalar(text, mark).and_then(|node| reader.boolean(&node, path))
    };
    let per_second = annotations.own(reader, "ratePerSecond", whole).map(|(number, _)| number);
    let burst = annotations.own(reader, "burst", whole);
    // What is wrong with the rate is told already.
    let told = per_second.is_none() && annotations.get("waypost.dev/ratePerSecond").is_some();
    let burst = burst.filter(|_| !told);
    let keeps_order = annotations.own(reader, "ordering", keeps_order);
    let attribute = annotations.own(reader, "orderingKey", |reader, text, mark, path| {
        ordering_key(reader, text, mark, path).map(|attribute| (attribute, mark))
    });
    Extras {
        transformations: annotations
            .own(reader, "transformations", |reader, text, mark, path| {
                let node = embedded(reader, text, mark, path)?;
                transformations(reader, &node, path)
            })
            .unwrap_or_default(),
        delivery: DeliveryExtras {
            max_in_flight: annotations.own(reader, "maxInFlight", |reader, text, mark, path| {
                scalar(text, mark).and_then(|node| reader.integer(&node, path, 1, MAX_IN_FLIGHT))
            }),
            rate: with_path("waypost.dev/burst", |path| rate(reader, per_second, burst, path)),
            ordering: with_path("waypost.dev/orderingKey", |path| {
                ordering(reader, keeps_order, attribute, path)
            }),
            hold_when_down: annotations.own(reader, "holdWhenDown", boolean),
            backoff_max: annotations.own(reader, "backoffMax", duration),
            deadline: annotations.own(reader, "deadline", duration),
            max_backlog: annotations.own(reader, "maxBacklog", |reader, text, mark, path| {
                let node = embedded(reader, text, mark, path)?;
                max_backlog(reader, &node, path)
            }),
        },
        paused: annotations.own(reader, "paused", boolean).unwrap_or_default(),
        start_from: annotations.own(reader, "startFrom", start_from).unwrap_or_default(),
    }
}

/// The text of an annotation read as a plain YAML value; nothing for empty text, which is as good as none.
fn scalar(text: &str, mark: Mark) -> Option<Node> {
    Some(Node { value: document::plain(text), mark }).filter(|node| node.value != Value::Null)
}

/// What is written as JSON or YAML in an annotation.
fn embedded(reader: &mut Reader<'_>, text: &str, mark: Mark, path: &Path<'_>) -> Option<Node> {
    let mut documents = Vec::new();
    if let Err(problem) = document::parse(text, 1, |node| documents.push(node)) {
        let message = format!("`{path}` is not valid JSON: {problem}");
        reader.error(codes::FIELD_VALUE, mark, path, message, "write it as JSON");
        return None;
    }
    // The places inside of the text would be taken for places in the file.
    Some(documents.into_iter().next()?.moved_to(mark))
}

fn start_from(reader: &mut Reader<'_>, text: &str, mark: Mark, path: &Path<'_>) -> Option<StartFrom> {
    match text {
        "latest" => return Some(StartFrom::Latest),
        "earliest" => return Some(StartFrom::Earliest),
        _ => {}
    }
    let time = instant(text).ok();
    let start = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).map(StartFrom::Time);
    if start.is_none() {
        let message = format!("`{path}` is neither `latest`, `earliest` nor a time");
        let help = "write a time as RFC 3339, such as `2026-01-31T08:00:00Z`";
        reader.error(codes::FIELD_VALUE, mark, path, message, help);
    }
    start
}

/// The annotations that Knative itself knows.
fn knative_annotations(
    reader: &mut Reader<'_>,
    annotations: &Annotations<'_>,
    broker: Option<&BrokerReference>,
) {
    if let Some((text, mark)) = annotations.get(INJECTION) {
        with_path(INJECTION, |path| {
            if !["enabled", "disabled"].contains(&text) {
                let message = format!("the annotation is neither `enabled` nor `disabled`, but `{text}`");
                reader.error(codes::FIELD_VALUE, mark, path, message, "write `enabled` or `disabled`");
            }
            if broker.is_some_and(|broker| broker.name.name != "default") {
                let message = "the annotation is only for triggers of the broker `default`";
                reader.error(codes::FIELD_CONFLICT, mark, path, message, "leave the annotation out");
            }
        });
    }
    if let Some(("ordered", mark)) = annotations.get(KAFKA_ORDER) {
        with_path(KAFKA_ORDER, |path| {
            let message =
                "this annotation of Knative's Kafka broker is not honoured: events may overtake each other";
            let help = "write `waypost.dev/ordering: key`, which keeps events of one `partitionkey` in order";
            reader.warning(codes::ANNOTATION_IGNORED, mark, path, message, help);
        });
    }
}
