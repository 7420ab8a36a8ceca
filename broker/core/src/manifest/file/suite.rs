//! One file at a time: what each kind accepts, and the problem, place and path of what it refuses.

mod any;
mod rules;

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde_json::{Value as Json, json};

use super::*;
use crate::delivery::{BackoffPolicy, Format, MaxBacklog, Ordering, Rate, WhenExceeded};
use crate::filter::Filter;
use crate::manifest::document::Map;
use crate::manifest::{BrokerSpec, RetentionSpec, StartFrom, Target, TransformationUse, TriggerSpec, native};

fn read(text: &str) -> ManifestFile {
    ManifestFile::read("test.yaml", text.as_bytes())
}

fn problems(file: &ManifestFile) -> Vec<&Problem> {
    file.problems.iter().chain(file.resources.iter().flat_map(|resource| &resource.problems)).collect()
}

/// `code line path` of each problem.
fn told(text: &str) -> Vec<String> {
    let file = read(text);
    let told = problems(&file).into_iter().map(|problem| {
        let line = problem.location.as_ref().expect("a place").mark.line;
        format!("{} {line} {}", problem.code, problem.path)
    });
    told.collect()
}

fn only(text: &str) -> (ResourceId, Spec) {
    let mut file = read(text);
    assert_eq!(problems(&file), Vec::<&Problem>::new(), "{text}");
    assert_eq!(file.resources.len(), 1, "{text}");
    let resource = file.resources.remove(0);
    (resource.id, resource.spec.expect("no error"))
}

fn broker_of(group: &str, spec: &str) -> String {
    format!("apiVersion: {group}\nkind: Broker\nmetadata:\n  name: b\nspec:\n{spec}")
}

/// A Trigger whose spec begins on line 6 with the subscriber (two lines).
fn trigger_of(group: &str, spec: &str) -> String {
    format!(
        "apiVersion: {group}\nkind: Trigger\nmetadata:\n  name: t\nspec:\n  subscriber:\n    uri: http://localhost\n{spec}"
    )
}

const KNATIVE: &str = "eventing.knative.dev/v1";

fn trigger(text: &str) -> TriggerSpec {
    match only(text).1 {
        Spec::Trigger(spec) => *spec,
        other => panic!("not a trigger: {other:?}"),
    }
}

fn broker(text: &str) -> BrokerSpec {
    match only(text).1 {
        Spec::Broker(spec) => *spec,
        other => panic!("not a broker: {other:?}"),
    }
}

#[test]
fn knative_kinds_are_read_unmodified() {
    let text = "apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata:
  name: my.trigger
  namespace: shop
  labels: {any: thing}
  annotations:
    knative.dev/dependency: '{\"kind\":\"PingSource\"}'
    rabbitmq.eventing.knative.dev/parallelism: \"10\"
spec:
  broker: default
  unknown: {kept: true}
  filter:
    attributes:
      type: a
      tenant: \"\"
  subscriber:
    ref:
      apiVersion: serving.knative.dev/v1
      kind: Service
      name: svc
      more: x
    uri: /path
  delivery:
    retry: 3
    timeout: PT5S
    backoffPolicy: linear
    backoffDelay: PT0.5S
    retryAfterMax: PT0S
    format: json
    someday: 1
    deadLetterSink:
      ref: {apiVersion: v1, kind: Service, name: dls, namespace: other}
      CACerts: |
        -----BEGIN CERTIFICATE-----
        MIIB
        -----END CERTIFICATE-----
      audience: me
";
    let (id, _) = only(text);
    assert_eq!(id.to_string(), "Trigger shop/my.trigger");
    let spec = trigger(text);
    assert_eq!(spec.broker.name, ResourceName::new("shop", "default"));
    let filter = serde_json::to_value(&spec.filter).expect("JSON");
    assert_eq!(filter, json!({"all": [{"exact": {"type": "a"}}, {"present": "tenant"}]}));
    let Target::Reference { reference, relative } = &spec.subscriber.target else { panic!("a reference") };
    assert_eq!((reference.name.to_string().as_str(), relative.as_deref()), ("shop/svc", Some("/path")));
    let delivery = spec.delivery.expect("a delivery");
    assert_eq!((delivery.retry, delivery.format), (Some(3), Some(Format::Json)));
    assert_eq!(delivery.timeout, Some(Duration::from_secs(5)));
    assert_eq!(delivery.backoff.policy, Some(BackoffPolicy::Linear));
    assert_eq!(delivery.backoff.delay, Some(Duration::from_millis(500)));
    assert_eq!(delivery.retry_after_max, Some(Duration::ZERO));
    let sink = delivery.dead_letter_sink.expect("a dead-letter sink");
    assert_eq!(sink.audience.as_deref(), Some("me"));
    assert!(sink.ca_certificates.is_some());
    let Target::Reference { reference, .. } = sink.target else { panic!("a reference") };
    assert_eq!(reference.name.to_string(), "other/dls");

    let text = "apiVersion: eventing.knative.dev/v1
kind: Broker
metadata:
  name: default
  annotations: {eventing.knative.dev/broker.class: MTChannelBasedBroker}
spec:
  config: {apiVersion: v1, kind: ConfigMap, name: config-br-default-channel, namespace: knative-eventing}
";
    let spec = broker(text);
    assert_eq!(spec.class.expect("a class").value, "MTChannelBasedBroker");
    assert_eq!(
        spec.config.expect("a config").value,
        "v1 ConfigMap knative-eventing/config-br-default-channel"
    );
    assert_eq!(
        broker("apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: b}\n"),
        BrokerSpec::default()
    );
}

#[test]
fn extras_of_a_knative_trigger_are_annotations() {
    let annotated = |annotation: &str| {
        format!(
            "apiVersion: {KNATIVE}\nkind: Trigger\nmetadata:\n  name: t\n  annotations:\n    {annotation}\nspec:\n  broker: default\n  subscriber:\n    uri: http://localhost\n"
        )
    };
    let own = |name: &str, value: &str| trigger(&annotated(&format!("waypost.dev/{name}: {value}")));
    assert!(own("paused", "'true'").paused);
    assert!(!own("paused", "'false'").paused);
    assert_eq!(own("maxInFlight", "'7'").extras.max_in_flight, Some(7));
    assert_eq!(own("backoffMax", "PT1M").extras.backoff_max, Some(Duration::from_secs(60)));
    assert_eq!(own("deadline", "P1D").extras.deadline, Some(Duration::from_secs(86_400)));
    assert_eq!(own("startFrom", "earliest").start_from, StartFrom::Earliest);
    assert_eq!(own("startFrom", "1970-01-01T00:00:01Z").start_from, StartFrom::Time(1_000_000_000));
    let rate = |per_second, burst| {
        Some(Rate::new(NonZeroU32::new(per_second).expect("it is not 0"), NonZeroU32::new(burst)))
    };
    assert_eq!(own("ratePerSecond", "'25'").extras.rate, rate(25, 2));
    let both = "waypost.dev/ratePerSecond: '5'\n    waypost.dev/burst: '9'";
    assert_eq!(trigger(&annotated(both)).extras.rate, rate(5, 9));
    assert_eq!(own("ordering", "key").extras.ordering, by("partitionkey"));
    let both = "waypost.dev/ordering: key\n    waypost.dev/orderingKey: subject";
    assert_eq!(trigger(&annotated(both)).extras.ordering, by("subject"));
    assert_eq!(own("holdWhenDown", "'true'").extras.hold_when_down, Some(true));
    let transformations =
        own("transformations", "'[{\"name\": \"x\"}, {\"fields\": {\"a\": 1}}]'").transformations;
    let [TransformationUse::Named { name, .. }, TransformationUse::Inline { component: inline, .. }] =
        transformations.as_slice()
    else {
        panic!("{transformations:?}")
    };
    assert_eq!((name.as_str(), inline.candidates[0].0.as_str()), ("x", "fields"));

    for (annotation, expected) in [
        ("waypost.dev/paused: 'yes'", "E0110 6 metadata.annotations[waypost.dev/paused]"),
        ("waypost.dev/paused: true", "E0110 6 metadata.annotations[waypost.dev/paused]"),
        ("waypost.dev/maxInFlight: '0'", "E0111 6 metadata.annotations[waypost.dev/maxInFlight]"),
        ("waypost.dev/backoffMax: 10s", "E0114 6 metadata.annotations[waypost.dev/backoffMax]"),
        ("waypost.dev/startFrom: soon", "E0111 6 metadata.annotations[waypost.dev/startFrom]"),
        ("waypost.dev/transformations: '['", "E0111 6 metadata.annotations[waypost.dev/transformations]"),
        ("waypost.dev/transformations: '{}'", "E0110 6 metadata.annotations[waypost.dev/transformations]"),
        ("waypost.dev/pausd: 'true'", "E0109 6 metadata.annotations[waypost.dev/pausd]"),
        ("waypost.dev/ratePerSecond: '0'", "E0111 6 metadata.annotations[waypost.dev/ratePerSecond]"),
        ("waypost.dev/burst: '5'", "E0113 6 metadata.annotations[waypost.dev/burst]"),
        ("waypost.dev/ordering: keys", "E0111 6 metadata.annotations[waypost.dev/ordering]"),
        ("waypost.dev/orderingKey: subject", "E0113 6 metadata.annotations[waypost.dev/orderingKey]"),
        ("waypost.dev/orderingKey: Order Id", "E0111 6 metadata.annotations[waypost.dev/orderingKey]"),
        ("waypost.dev/holdWhenDown: 'yes'", "E0110 6 metadata.annotations[waypost.dev/holdWhenDown]"),
        (
            "eventing.knative.dev/injection: maybe",
            "E0111 6 metadata.annotations[eventing.knative.dev/injection]",
        ),
        (
            "kafka.eventing.knative.dev/delivery.order: ordered",
            "E0116 6 metadata.annotations[kafka.eventing.knative.dev/delivery.order]",
        ),
    ] {
        assert_eq!(told(&annotated(annotation)), [expected], "{annotation}");
    }
    let other =
        annotated("eventing.knative.dev/injection: enabled").replace("broker: default", "broker: other");
    assert_eq!(told(&other), ["E0113 6 metadata.annotations[eventing.knative.dev/injection]"]);
}

fn by(attribute: &str) -> Option<Ordering> {
    Some(Ordering::Key { attribute: attribute.into() })
}

#[test]
fn native_kinds_are_supersets() {
    let spec = broker(&broker_of(
        NATIVE,
        "  log: memory\n  retention: {age: P1D, size: 10GiB}\n  strictReplies: true\n  acceptedStatus: 200\n  delivery: {retry: 1, backoffPolicy: constant}\n",
    ));
    assert!(spec.memory.is_some() && spec.strict_replies);
    let retention = RetentionSpec { age: Some(Duration::from_secs(86_400)), size: Some(10 << 30) };
    assert_eq!((spec.accepted_status, spec.retention), (Some(200), retention));
    assert_eq!(spec.delivery.expect("a delivery").backoff.policy, Some(BackoffPolicy::Constant));
    let spec = trigger(&trigger_of(
        NATIVE,
        "  brokerRef: {apiVersion: waypost.dev/v1alpha1, kind: Broker, name: b, namespace: other}\n  paused: true\n  startFrom: earliest\n  delivery: {maxInFlight: 3, deadline: PT1H, backoffMax: PT9S, ordering: key, orderingKey: subject, ratePerSecond: 7, burst: 3, holdWhenDown: true}\n  transformations: [{name: x}]\n",
    ));
    assert_eq!((spec.broker.name.to_string().as_str(), spec.broker.path), ("other/b", "spec.brokerRef"));
    assert!(spec.paused && spec.start_from == StartFrom::Earliest && spec.transformations.len() == 1);
    let extras = spec.delivery.expect("a delivery").extras;
    assert_eq!((extras.max_in_flight, extras.deadline), (Some(3), Some(Duration::from_secs(3600))));
    assert_eq!(extras.backoff_max, Some(Duration::from_secs(9)));
    let rate = extras.rate.expect("a rate");
    assert_eq!((rate.per_second.get(), rate.burst.get()), (7, 3));
    assert_eq!((extras.ordering, extras.hold_when_down), (by("subject"), Some(true)));
}

#[test]
fn documents_that_are_no_resource_or_not_ours() {
    for (text, expected) in [
        ("hello\n", vec!["E0103 1 "]),
        ("- a\n", vec!["E0103 1 "]),
        ("a: 1\n", vec!["E0108 1 apiVersion", "E0108 1 kind"]),
        ("apiVersion: v1\nkind: Foo\nmetadata: {name: a}\n", vec!["E0105 2 kind"]),
        ("apiVersion: eventing.knative.dev/v1\nkind: broker\nmetadata: {name: a}\n", vec!["E0105 2 kind"]),
        (
            "kind: Broker\napiVersion: eventing.knative.dev/v1beta1\nmetadata: {name: a}\n",
            vec!["E0104 2 apiVersion"],
        ),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", vec!["E0107 2 kind"]),
        ("apiVersion: sources.knative.dev/v1\nkind: PingSource\nmetadata: {name: a}\n", vec!["E0106 2 kind"]),
        ("apiVersion: waypost.dev/v1alpha1\nkind: Replay\nmetadata: {name: a}\n", vec!["E0108 1 spec"]),
        ("apiVersion: v1\nkind: Secret\n", vec!["E0108 1 metadata"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {namespace: b}\n", vec!["E0108 3 metadata.name"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: A_b}\n", vec!["E0201 3 metadata.name"]),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b.c}\n",
            vec!["E0201 3 metadata.namespace"],
        ),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: 5}\n", vec!["E0110 3 metadata.name"]),
        ("apiVersion: waypost.dev/v1alpha1\nkind: Sink\nmetadata: {name: a}\n", vec!["E0108 1 spec"]),
        (
            "apiVersion: waypost.dev/v1alpha1\nkind: Sink\nmetadata: {name: a, lables: {}}\nspec: {x: {}}\n",
            vec!["E0109 3 metadata.lables"],
        ),
        (
            "apiVersion: waypost.dev/v1alpha1\nkind: Sink\nmetadata: {name: a}\nspec: {x: {}}\nspek: 1\n",
            vec!["E0109 5 spek"],
        ),
        (
            "apiVersion: waypost.dev/v1alpha1\nkind: Source\nmetadata: {name: a}\nspec: {x: {}}\n",
            vec!["E0108 4 spec.sink"],
        ),
        ("apiVersion: v1\nkind: List\nitems: x\n", vec!["E0103 1 "]),
        ("a: 1\na: 2\n", vec!["E0101 2 "]),
        ("a: [\n", vec!["E0101 1 "]),
    ] {
        assert_eq!(told(text), expected, "{text}");
    }
    assert_eq!(problems(&ManifestFile::read("f", b"a: \xff\n")).len(), 1);
    assert!(ManifestFile::read("f", "\u{feff}# nothing\n".as_bytes()).complete);
}

#[test]
fn a_problem_keeps_to_its_resource() {
    let text = format!(
        "{}---\n{}---\napiVersion: v1\nkind: Foo\n",
        broker_of(KNATIVE, "  delivery: {retry: x}\n"),
        trigger_of(KNATIVE, "  broker: b\n")
    );
    let file = read(&text);
    assert!(!file.complete);
    assert_eq!(
        file.resources.iter().map(|resource| resource.spec.is_some()).collect::<Vec<_>>(),
        [false, true]
    );
    let problem = &file.resources[0].problems[0];
    assert_eq!(problem.resource.as_ref().map(ToString::to_string).as_deref(), Some("Broker default/b"));
    assert_eq!(
        serde_json::to_value(problem).expect("JSON"),
        json!({
            "code": "E0110",
            "severity": "error",
            "message": "`spec.delivery.retry` must be a number, not a string",
            "help": "write a whole number from 0 to 2147483647",
            "file": "test.yaml",
            "line": 6,
            "column": 14,
            "path": "spec.delivery.retry",
        })
    );
    let broken = read(&format!("{text}---\na: [\n"));
    assert_eq!((broken.resources.len(), broken.problems.len(), broken.complete), (0, 1, false));
}

#[test]
fn a_list_of_kubectl_is_unfolded() {
    let text = "apiVersion: v1\nkind: List\nmetadata: {}\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: B}\n";
    let file = read(text);
    assert_eq!(file.resources.len(), 1);
    assert_eq!(told(text), ["E0201 10 metadata.name"]);
}

#[test]
fn values_and_services() {
    let (_, secret) = only(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: aGVs\n bG8=}\nstringData: {b: x}\n",
    );
    let Spec::Secret(values) = secret else { panic!("a secret") };
    assert_eq!(values.get("a").map(Vec::as_slice), Some(b"hello".as_slice()));
    assert_eq!(values.get("b").map(Vec::as_slice), Some(b"x".as_slice()));
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: 'hunter2!'}\nstringData: {b: [hunter2]}\n";
    assert_eq!(told(secret), ["E0111 4 data.a", "E0110 5 stringData.b"]);
    assert!(!format!("{:?}", problems(&read(secret))).contains("hunter2"));

    let service =
        |text: &str| match only(&format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n{text}")).1 {
            Spec::Service { url, .. } => url,
            other => panic!("not a service: {other:?}"),
        };
    for (text, expected) in [
        ("spec: {selector: {app: x}}\n", None),
        ("spec: {type: ExternalName, externalName: example.com}\n", Some("http://example.com")),
        (
            "spec: {type: ExternalName, externalName: example.com, ports: [{port: 8080}]}\n",
            Some("http://example.com:8080"),
        ),
        ("  annotations: {waypost.dev/url: 'http://localhost:1/x'}\n", Some("http://localhost:1/x")),
        ("status: {address: {url: 'http://s.default'}}\n", Some("http://s.default")),
    ] {
        assert_eq!(service(text).as_deref(), expected, "{text}");
    }
    let wrong =
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n  annotations: {waypost.dev/url: localhost}\n";
    assert_eq!(told(wrong), ["E0210 5 metadata.annotations[waypost.dev/url]"]);
}

#[test]
fn a_knative_service_says_how_much_it_takes_at_one_time() {
    let service = |template: &str| {
        let text = format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{template: {template}}}\n"
        );
        match only(&text).1 {
            Spec::Service { capacity, .. } => capacity,
            other => panic!("not a service: {other:?}"),
        }
    };
    let scale = |name: &str, most: &str| {
        format!("metadata: {{annotations: {{autoscaling.knative.dev/{name}: {most}}}}}")
    };
    for (template, expected) in [
        (format!("{{{}, spec: {{containerConcurrency: 10}}}}", scale("max-scale", "'3'")), Some(30)),
        (format!("{{{}, spec: {{containerConcurrency: 1}}}}", scale("maxScale", "'1'")), Some(1)),
        // No limit, or one that only the cluster knows.
        (format!("{{{}, spec: {{containerConcurrency: 0}}}}", scale("max-scale", "'3'")), None),
        (format!("{{{}, spec: {{containerConcurrency: 10}}}}", scale("max-scale", "'0'")), None),
        ("{spec: {containerConcurrency: 10}}".to_owned(), None),
        (format!("{{{}, spec: {{}}}}", scale("max-scale", "'3'")), None),
    ] {
        assert_eq!(service(&template), expected, "{template}");
    }
}

/// The fields of a schema, by the path that leads to them; `*` stands for items.
fn schema_fields(schema: &Json, definitions: &Json, path: &str, found: &mut Vec<String>) {
    let schema = match schema.get("$ref").and_then(Json::as_str) {
        Some(reference) => &definitions[reference.rsplit('/').next().expect("a name")],
        None => schema,
    };
    if let Some(choice) = schema.get("anyOf").and_then(|choices| choices.get(0)) {
        schema_fields(choice, definitions, path, found);
    }
    for (name, field) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(
            field.get("description").is_some() || field.get("anyOf").is_some(),
            "{path} has no description"
        );
        found.push(path.clone());
        schema_fields(field, definitions, &path, found);
    }
}

fn node_fields(map: &Map, path: &str, found: &mut Vec<String>) {
    for (name, node) in map.iter() {
        let path = format!("{path}.{name}");
        found.push(path.clone());
        if let Value::Map(map) = &node.value {
            node_fields(map, &path, found);
        }
    }
}

/// A manifest that uses each field of the schema is read without a problem, and holds no field beside them.
#[test]
fn the_schema_and_the_reader_agree() {
    let destination = "{ref: {apiVersion: v1, kind: Service, name: s, namespace: n, address: http}, uri: /x, CACerts: \"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\", audience: a}";
    let delivery = format!(
        "{{deadLetterSink: {destination}, retry: 1, timeout: PT1S, backoffPolicy: linear, backoffDelay: PT1S, backoffMax: PT1S, retryAfterMax: PT1S, format: json, maxInFlight: 1, deadline: PT1S, ratePerSecond: 1, burst: 1, ordering: key, orderingKey: k, holdWhenDown: true, maxBacklog: {{size: 1MiB, age: PT1S, whenExceeded: drop}}}}"
    );
    let broker = format!(
        "  delivery: {delivery}\n  log: memory\n  retention: {{age: PT1S, size: 1}}\n  strictReplies: true\n  acceptedStatus: 202\n"
    );
    let trigger = format!(
        "  broker: b\n  filter: {{attributes: {{}}}}\n  filters: []\n  transformations: []\n  subscriber: {destination}\n  delivery: {delivery}\n  startFrom: latest\n  paused: false\n"
    );
    let trigger_text = format!("apiVersion: {NATIVE}\nkind: Trigger\nmetadata:\n  name: t\nspec:\n{trigger}");
    let reference = ["", ".apiVersion", ".kind", ".name", ".namespace", ".address"]
        .map(|field| format!(".brokerRef{field}"));
    compare::<native::BrokerSpec>(&broker_of(NATIVE, &broker), &[]);
    // `broker` and `brokerRef` exclude each other.
    compare::<native::TriggerSpec>(&trigger_text, &reference);
}

fn compare<T: JsonSchema>(text: &str, but: &[String]) {
    only(text);
    let mut generator = schemars::SchemaGenerator::default();
    let schema = generator.root_schema_for::<T>().to_value();
    let mut described = Vec::new();
    schema_fields(&schema, &schema["$defs"], "", &mut described);
    described.retain(|path| !but.contains(path));
    described.sort();
    let mut written = Vec::new();
    document::parse(text, 1, |node| {
        let Value::Map(root) = node.value else { panic!("a map") };
        let Some(Value::Map(spec)) = root.get("spec").map(|node| node.value.clone()) else {
            panic!("a spec")
        };
        node_fields(&spec, "", &mut written);
    })
    .expect("valid");
    written.sort();
    assert_eq!(written, described);
}

#[test]
fn what_is_kept_of_a_file_is_read_as_the_file_is() {
    let text = [
        trigger_of(
            KNATIVE,
            "  broker: b\n  filter: {attributes: {type: a, x: ''}}\n  delivery: {retry: 3}\n",
        ),
        trigger_of(NATIVE, "  broker: b\n  filters: [{not: {prefix: {type: a.}}}]\n  paused: true\n"),
        broker_of(NATIVE, "  log: memory\n"),
        "apiVersion: waypost.dev/v1alpha1\nkind: Sink\nmetadata: {name: s}\nspec: {stdout: {}}\n".to_owned(),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n".to_owned(),
    ]
    .join("\n---\n");
    let file = read(&text);
    assert_eq!(problems(&file), Vec::<&Problem>::new());
    let documents: Vec<_> = file.resources.iter().filter_map(|resource| resource.document.as_ref()).collect();
    assert_eq!(documents.len(), 4, "a Secret is not kept");
    let stored = ManifestFile::stored(
        "test.yaml",
        documents.iter().map(|document| StoredDocument { line: 7, text: &document.text }),
    );
    for (was, is) in file.resources.iter().zip(&stored.resources) {
        assert_eq!((&was.id, &was.document, is.mark.line), (&is.id, &is.document, 7));
        if let (Some(Spec::Trigger(was)), Some(Spec::Trigger(is))) = (&was.spec, &is.spec) {
            assert_eq!((&was.filter, &was.delivery, was.paused), (&is.filter, &is.delivery, is.paused));
        }
    }
}

#[test]
fn a_backlog_may_be_limited_by_field_and_by_annotation() {
    let wanted = MaxBacklog {
        size: Some(1 << 30),
        age: Some(Duration::from_secs(3600)),
        when_exceeded: WhenExceeded::DeadLetter,
    };
    let text = "{size: 1GiB, age: PT1H, whenExceeded: deadLetter}";
    let native = trigger(&trigger_of(NATIVE, &format!("  broker: b\n  delivery: {{maxBacklog: {text}}}\n")));
    assert_eq!(native.delivery.expect("a delivery").extras.max_backlog, Some(wanted));
    let knative = trigger_of(KNATIVE, "  broker: b\n").replacen(
        "  name: t\n",
        &format!("  name: t\n  annotations: {{waypost.dev/maxBacklog: '{text}'}}\n"),
        1,
    );
    assert_eq!(trigger(&knative).extras.max_backlog, Some(wanted));
}
