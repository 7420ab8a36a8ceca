//! Plans of small sets of manifests: what runs, what is told, and what a reload keeps.

mod components;
mod reload;

use std::sync::Arc;

use proptest::prelude::*;
use waypost_core::delivery::BackoffPolicy;
use waypost_core::manifest::ManifestFile;

use self::components::{Identity, Silence, Void};
use super::*;

const REGISTRY: Registry = Registry {
    sources: &[SourceType::of::<Silence>()],
    sinks: &[SinkType::of::<Void>()],
    transformations: &[TransformationType::of::<Identity>()],
};

fn manifests(files: &[(&str, &str)]) -> Manifests {
    let files = files.iter().map(|(path, text)| ManifestFile::read(*path, text.as_bytes()));
    Manifests { files: files.collect() }
}

fn first(text: &str) -> Plan {
    plan(&manifests(&[("a.yaml", text)]), &REGISTRY, None, 1)
}

fn next(previous: &Plan, version: u64, text: &str) -> Plan {
    plan(&manifests(&[("a.yaml", text)]), &REGISTRY, Some(previous), version)
}

fn told(plan: &Plan) -> Vec<String> {
    let place = |problem: &Problem| problem.location.as_ref().map_or(0, |location| location.mark.line);
    plan.problems
        .iter()
        .map(|problem| format!("{} {} {}", problem.code, place(problem), problem.path))
        .collect()
}

fn name(name: &str) -> ResourceName {
    ResourceName::new("default", name)
}

fn state<'p>(plan: &'p Plan, id: &str) -> &'p DeclaredState {
    let mut found = plan.declared.iter().filter(|declared| declared.id.to_string() == id);
    let declared = found.next().unwrap_or_else(|| panic!("{id} is not declared"));
    assert_eq!(found.next(), None, "{id}");
    &declared.state
}

fn running(plan: &Plan, id: &str) -> Option<u64> {
    match state(plan, id) {
        DeclaredState::Invalid { running, .. } => *running,
        other => panic!("{id} is {other:?}"),
    }
}

fn resource(group: &str, kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn native(kind: &str, name: &str, spec: &str) -> String {
    resource("waypost.dev/v1alpha1", kind, name, spec)
}

fn broker(name: &str) -> String {
    native("Broker", name, "{}")
}

fn reference(kind: &str, name: &str) -> String {
    format!("{{ref: {{apiVersion: waypost.dev/v1alpha1, kind: {kind}, name: {name}}}}}")
}

fn sink(name: &str) -> String {
    native("Sink", name, "{void: {}}")
}

fn trigger(name: &str, subscriber: &str, more: &str) -> String {
    native("Trigger", name, &format!("{{broker: b, subscriber: {subscriber}{more}}}"))
}

#[test]
fn a_whole_set_is_planned() {
    let text = [
        broker("b"),
        sink("s"),
        native("Source", "direct", &format!("{{silence: {{}}, sink: {}}}", reference("Broker", "b"))),
        native("Source", "tick", &format!("{{silence: {{}}, sink: {}}}", reference("Sink", "s"))),
        native("Transformation", "t", "{identity: {}}"),
        native(
            "Transformation",
            "onward",
            &format!("{{identity: {{}}, sink: {}}}", reference("Broker", "b")),
        ),
        trigger("to-sink", &reference("Sink", "s"), ", transformations: [{name: t}, {identity: {label: x}}]"),
        trigger("to-url", "{uri: 'http://localhost:1/x'}", ""),
        trigger("to-transformation", &reference("Transformation", "t"), ""),
        trigger(
            "to-broker",
            &reference("Broker", "b").replace("waypost.dev/v1alpha1", "eventing.knative.dev/v1"),
            "",
        ),
    ]
    .concat();
    let plan = first(&text);
    assert_eq!(told(&plan), Vec::<String>::new());
    assert!(plan.is_free_of_errors());
    assert_eq!(plan.declared.len(), 10);
    assert!(plan.declared.iter().all(|declared| declared.state == DeclaredState::Valid));
    assert_eq!(plan.triggers[&name("to-sink")].subscriber, Subscriber::Sink(name("s")));
    let names: Vec<_> =
        plan.triggers[&name("to-sink")].transformations.steps().iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["t", "transformations[1] (identity)"]);
    let http = HttpDestination { url: "http://localhost:1/x".into(), ca_certificates: None, audience: None };
    assert_eq!(plan.triggers[&name("to-url")].subscriber, Subscriber::Http(http));
    assert_eq!(plan.triggers[&name("to-transformation")].subscriber, Subscriber::Transformation(name("t")));
    assert_eq!(plan.triggers[&name("to-broker")].subscriber, Subscriber::Broker(name("b")));
    assert_eq!(plan.transformations[&name("t")].broker, None);
    assert_eq!(plan.transformations[&name("onward")].broker, Some(name("b")));
    assert_eq!(plan.sources[&name("direct")].broker, name("b"));
    // A source whose sink is no broker has an implicit one with one trigger.
    let implicit = &plan.sources[&name("tick")].broker;
    assert!(plan.brokers[implicit].implicit);
    assert_eq!(plan.triggers[implicit].subscriber, Subscriber::Sink(name("s")));
    assert_eq!((plan.brokers.len(), plan.triggers.len()), (2, 5));
}

#[test]
fn each_problem_of_a_reference() {
    let b = broker("b");
    for (more, expected, hint) in [
        (trigger("t", &reference("Sink", "s"), ""), "E0203 10 spec.subscriber.ref", "declare the Sink"),
        (
            sink("print") + &trigger("t", &reference("Sink", "pirnt"), ""),
            "E0203 15 spec.subscriber.ref",
            "did you mean `print`?",
        ),
        (
            sink("a") + &sink("c") + &trigger("t", &reference("Sink", "zzz"), ""),
            "E0203 20 spec.subscriber.ref",
            "has a, c",
        ),
        (
            trigger("t", &reference("Broker", "other"), ""),
            "E0203 10 spec.subscriber.ref",
            "namespace `default` has b",
        ),
        (trigger("t", &reference("Source", "x"), ""), "E0205 10 spec.subscriber.ref", "refer to a Sink"),
        (trigger("t", &reference("sink", "x"), ""), "E0205 10 spec.subscriber.ref", "did you mean `Sink`"),
        (
            trigger("t", &reference("Service", "svc").replace("waypost.dev/v1alpha1", "v1"), ""),
            "E0209 10 spec.subscriber.ref",
            "waypost.dev/url",
        ),
        (
            trigger(
                "t",
                "{uri: 'http://x'}",
                &format!(", delivery: {{deadLetterSink: {}}}", reference("Sink", "s")),
            ),
            "E0203 10 spec.delivery.deadLetterSink.ref",
            "declare the Sink",
        ),
        (
            trigger("t", "{uri: 'http://x'}", ", transformations: [{name: x}]"),
            "E0203 10 spec.transformations[0].name",
            "declare",
        ),
        (
            trigger("t", "{uri: 'http://x'}", ", transformations: [{nope: {}}]"),
            "E0213 10 spec.transformations[0].nope",
            "identity",
        ),
        (
            trigger("t", "{uri: 'http://x'}", ", transformations: [{}]"),
            "E0108 10 spec.transformations[0]",
            "identity",
        ),
        (
            trigger("t", "{uri: 'http://x'}", ", transformations: [{identity: {label: bad}}]"),
            "E0214 10 spec.transformations[0].identity.label",
            "",
        ),
        (
            native("Source", "x", &format!("{{silence: {{}}, sink: {}}}", reference("Broker", "c"))),
            "E0203 10 spec.sink.ref",
            "b",
        ),
        (native("Sink", "x", "{vod: {}}"), "E0213 10 spec.vod", "did you mean `void`?"),
        (native("Sink", "x", "{}"), "E0108 10 spec", "the types of Sink are void"),
        (native("Sink", "x", "{void: {}, extra: 1}"), "E0109 10 spec.extra", "below `void`"),
        (native("Sink", "x", "{void: {batch: 0}}"), "E0214 10 spec.void.batch", ""),
        (native("Sink", "x", "{void: {batch: no}}"), "E0214 10 spec.void.batch", ""),
        (native("Sink", "x", "{void: {bach: 1}}"), "E0214 10 spec.void.bach", ""),
        (
            native("Sink", "x", "{void: {password: {secretKeyRef: {name: n, key: k}}}}"),
            "E0215 10 spec.void.password.secretKeyRef",
            "declare the Secret",
        ),
        (broker("b"), "E0202 9 metadata.name", "remove one"),
        (resource("eventing.knative.dev/v1", "Broker", "b", "{}"), "E0202 9 metadata.name", "remove one"),
    ] {
        let plan = first(&(b.clone() + &more));
        assert_eq!(told(&plan), [expected], "{more}");
        assert!(plan.problems[0].help.contains(hint), "{more}: {}", plan.problems[0].help);
        assert!(!plan.is_free_of_errors());
        assert!(plan.triggers.is_empty() && plan.sources.is_empty(), "{more}");
        assert_eq!(plan.brokers.len(), 1);
    }
}

#[test]
fn a_service_is_resolved_by_its_mapping() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: svc, annotations: {waypost.dev/url: 'http://h:1/a/b'}}\n";
    let unmapped = "---\napiVersion: v1\nkind: Service\nmetadata: {name: bare}\nspec: {selector: {a: b}}\n";
    let to = |name: &str, uri: &str| {
        trigger("t", &format!("{{ref: {{apiVersion: v1, kind: Service, name: {name}}}{uri}}}"), "")
    };
    for (uri, expected) in
        [("", "http://h:1/a/b"), (", uri: c", "http://h:1/a/c"), (", uri: /c?d", "http://h:1/c?d")]
    {
        let plan = first(&[broker("b"), service.to_owned(), to("svc", uri)].concat());
        assert_eq!(told(&plan), Vec::<String>::new());
        let Subscriber::Http(http) = &plan.triggers[&name("t")].subscriber else { panic!("a URL") };
        assert_eq!(http.url, expected);
    }
    let plan = first(&[unmapped.to_owned(), broker("b"), to("bare", "")].concat());
    assert_eq!(told(&plan), ["E0209 15 spec.subscriber.ref"]);
}

#[test]
fn a_trigger_may_come_before_its_broker() {
    let plan = first(&trigger("t", "{uri: 'http://x'}", ""));
    assert_eq!(told(&plan), ["E0207 5 spec.broker"]);
    assert!(plan.is_free_of_errors());
    assert_eq!(plan.triggers.len(), 1);
}

#[test]
fn a_reference_to_what_has_an_error_says_where() {
    let text = [
        broker("b"),
        native("Sink", "s", "{void: {batch: 0}}"),
        trigger("t", &reference("Sink", "s"), ""),
        native(
            "Transformation",
            "onward",
            &format!("{{identity: {{}}, sink: {}}}", reference("Transformation", "bad")),
        ),
        native("Transformation", "bad", "{identity: {label: bad}}"),
        native(
            "Broker",
            "dead",
            &format!("{{delivery: {{deadLetterSink: {}}}}}", reference("Transformation", "onward")),
        ),
    ]
    .concat();
    let plan = first(&text);
    assert_eq!(
        told(&plan),
        [
            "E0214 10 spec.void.batch",
            "E0206 15 spec.subscriber.ref",
            "E0206 20 spec.sink.ref",
            "E0214 25 spec.identity.label",
            "E0206 30 spec.delivery.deadLetterSink.ref",
        ]
    );
    assert!(plan.problems[1].help.contains("a.yaml:9"), "{}", plan.problems[1].help);
}

#[test]
fn cycles_of_transformations_are_refused() {
    let to = |from: &str, to: &str| {
        native(
            "Transformation",
            from,
            &format!("{{identity: {{}}, sink: {}}}", reference("Transformation", to)),
        )
    };
    let plan = first(
        &[
            to("a", "c"),
            to("c", "a"),
            to("self", "self"),
            to("into", "a"),
            to("fine", "end"),
            native("Transformation", "end", "{identity: {}}"),
        ]
        .concat(),
    );
    assert_eq!(
        told(&plan),
        [
            "E0211 5 spec.sink.ref",
            "E0211 10 spec.sink.ref",
            "E0211 15 spec.sink.ref",
            "E0206 20 spec.sink.ref"
        ]
    );
    assert_eq!(plan.transformations.len(), 2);
}

#[test]
fn which_delivery_applies() {
    let dead = reference("Sink", "s");
    let with_broker = |broker_delivery: &str, trigger_delivery: &str| {
        let spec = if broker_delivery.is_empty() {
            "{}".to_owned()
        } else {
            format!("{{delivery: {broker_delivery}}}")
        };
        let more = if trigger_delivery.is_empty() {
            String::new()
        } else {
            format!(", delivery: {trigger_delivery}")
        };
        let plan = first(
            &[sink("s"), native("Broker", "b", &spec), trigger("t", "{uri: 'http://x'}", &more)].concat(),
        );
        assert_eq!(told(&plan), Vec::<String>::new());
        let planned = &plan.triggers[&name("t")];
        (planned.delivery.clone(), planned.dead_letter_sink.clone())
    };
    let default = DeliveryPolicy::default();
    assert_eq!((default.retry, default.backoff.policy), (10, BackoffPolicy::Exponential));
    let only_sink = format!("{{deadLetterSink: {dead}}}");
    let stored = Some(Subscriber::Sink(name("s")));
    let retries = |retry| DeliveryPolicy { retry, ..DeliveryPolicy::default() };
    for (of_broker, of_trigger, expected) in [
        ("", "", (default, None)),
        // A delivery without `retry` has none.
        (only_sink.as_str(), "", (retries(0), stored.clone())),
        // The trigger's replaces the broker's as a whole; only the dead-letter sink falls back.
        ("{retry: 3}", "{timeout: PT300S}", (retries(0), None)),
        (&only_sink, "{retry: 2}", (retries(2), stored)),
        ("{retry: 3}", "", (retries(3), None)),
        ("", "{retry: 1, maxInFlight: 64}", (retries(1), None)),
    ] {
        assert_eq!(with_broker(of_broker, of_trigger), expected, "{of_broker} {of_trigger}");
    }
    let knative = "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: t, annotations: {waypost.dev/maxInFlight: '2'}}\nspec: {broker: b, subscriber: {uri: 'http://x'}}\n";
    let plan = first(&(native("Broker", "b", "{delivery: {retry: 5}}") + knative));
    let expected = DeliveryPolicy { retry: 5, max_in_flight: 2, ..DeliveryPolicy::default() };
    assert_eq!(plan.triggers[&name("t")].delivery, expected);
}

#[test]
fn a_service_gets_no_more_at_one_time_than_it_is_made_for() {
    let service = "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: s, annotations: {waypost.dev/url: 'http://s'}}\nspec: {template: {metadata: {annotations: {autoscaling.knative.dev/max-scale: '2'}}, spec: {containerConcurrency: 4}}}\n";
    let subscriber = "{ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: s}}";
    for (more, expected) in
        [("", 8), (", delivery: {maxInFlight: 3}", 3), (", delivery: {maxInFlight: 30}", 8)]
    {
        let plan = first(&[broker("b"), service.to_owned(), trigger("t", subscriber, more)].concat());
        assert_eq!(plan.triggers[&name("t")].delivery.max_in_flight, expected, "{more}");
    }
}

#[test]
fn a_channel_that_runs_elsewhere_is_the_name_of_a_url() {
    let channel = |annotation: &str| {
        format!(
            "---\napiVersion: messaging.knative.dev/v1\nkind: Channel\nmetadata: {{name: c{annotation}}}\n"
        )
    };
    let subscriber = "{ref: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: c}}";
    let mapped = channel(", annotations: {waypost.dev/url: 'http://c.default'}");
    let plan = first(&[broker("b"), mapped, trigger("t", subscriber, "")].concat());
    let Subscriber::Http(destination) = &plan.triggers[&name("t")].subscriber else { panic!("{plan:?}") };
    assert_eq!(destination.url, "http://c.default");
    // Without one it would have to be run here.
    let plan = first(&[broker("b"), channel("")].concat());
    assert_eq!(plan.problems[0].code.id(), "E0106", "{:?}", plan.problems);
}

#[test]
fn a_fingerprint_changes_with_what_it_stands_for() {
    let text = [broker("b"), trigger("t", "{uri: 'http://x'}", ", filters: [{exact: {type: a}}]")].concat();
    let base = first(&text).triggers[&name("t")].fingerprint.clone();
    let of = |from: &str, to: &str| first(&text.replace(from, to)).triggers[&name("t")].fingerprint.clone();
    assert_eq!(of("{type: a}", "{ type:  a }"), base);
    let filter = of("{type: a}", "{type: b}");
    assert!(filter.matching != base.matching && filter.delivering == base.delivering);
    for (from, to) in [
        ("http://x", "http://y"),
        ("broker: b,", "broker: b, paused: true,"),
        ("broker: b,", "broker: b, delivery: {retry: 1},"),
    ] {
        let other = of(from, to);
        assert!(other.matching == base.matching && other.delivering != base.delivering, "{to}");
    }
    // A component whose Secret changes is another one, and no digest tells the secret.
    let secret = |value: &str| {
        let sink = native("Sink", "s", "{void: {password: {secretKeyRef: {name: n, key: k}}}}");
        let text = format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: n}}\nstringData: {{k: {value}}}\n{sink}"
        );
        let plan = first(&text);
        assert_eq!(told(&plan), Vec::<String>::new());
        assert!(!format!("{plan:?}").contains("hunter"));
        plan.sinks[&name("s")].fingerprint.clone()
    };
    assert_eq!(secret("hunter2"), secret("hunter2"));
    assert_ne!(secret("hunter2"), secret("hunter3"));
}

#[test]
fn a_transformation_is_compiled_with_its_secrets() {
    let identity = "{identity: {secret: {secretKeyRef: {name: n, key: k}}}}";
    let text = [
        broker("b"),
        native("Transformation", "t", identity),
        trigger("inline", "{uri: 'http://x'}", &format!(", transformations: [{identity}]")),
    ]
    .concat();
    let secret = |value: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: n}}\nstringData: {{k: {value}}}\n{text}"
        )
    };
    let plan = first(&secret("hunter2"));
    assert_eq!(told(&plan), Vec::<String>::new());
    assert!(!format!("{plan:?}").contains("hunter"));
    let places: Vec<_> = told(&first(&secret("hunter3"))).into_iter().collect();
    assert!(places.iter().all(|place| place.starts_with("E0214 ")) && places.len() == 2, "{places:?}");
    let places = told(&first(&text));
    assert!(places.iter().all(|place| place.starts_with("E0215 ")) && places.len() == 2, "{places:?}");
}

#[test]
fn the_schema_describes_each_kind_and_type() {
    let schema = schema(&REGISTRY);
    let kinds: Vec<_> =
        schema["oneOf"].as_array().expect("a list").iter().map(|kind| kind["title"].clone()).collect();
    assert_eq!(kinds, ["Broker", "Trigger", "Source", "Sink", "Transformation", "Replay", "Test"]);
    let text = schema.to_string();
    for part in [
        "\"void\"",
        "\"silence\"",
        "\"identity\"",
        "How many at once.",
        "deadLetterSink",
        "Takes events, makes them durable",
    ] {
        assert!(text.contains(part), "{part}");
    }
    // Every definition that is referred to is there.
    for reference in text.split("\"$ref\":\"#/$defs/").skip(1) {
        let definition = reference.split('"').next().expect("a name");
        assert!(schema["$defs"].get(definition).is_some(), "{definition}");
    }
}

/// One of a few resources in one of a few states, so that versions of a plan often meet.
fn any_resource() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["b", "c"]);
    let kind = prop::sample::select(vec!["Sink", "Broker", "Transformation"]);
    let target = (kind, name.clone()).prop_map(|(kind, name)| reference(kind, name));
    prop_oneof![
        (name.clone(), any::<bool>()).prop_map(|(name, bad)| native(
            "Sink",
            name,
            if bad { "{void: {batch: 0}}" } else { "{void: {}}" }
        )),
        name.clone().prop_map(broker),
        (name.clone(), target.clone()).prop_map(|(name, to)| native(
            "Broker",
            name,
            &format!("{{delivery: {{deadLetterSink: {to}}}}}")
        )),
        (name.clone(), target.clone()).prop_map(|(name, to)| native(
            "Transformation",
            name,
            &format!("{{identity: {{}}, sink: {to}}}")
        )),
        (name.clone(), target.clone()).prop_map(|(name, to)| native(
            "Source",
            name,
            &format!("{{silence: {{}}, sink: {to}}}")
        )),
        (name, target).prop_map(|(name, to)| trigger(name, &to, "")),
        Just("---\na: 1\n".to_owned()),
    ]
}

proptest! {
    /// Whatever follows whatever: what is planned finds what it sends to, and each declared resource has one state.
    #[test]
    fn every_plan_holds_together(versions in prop::collection::vec(prop::collection::vec(any_resource(), 0..7), 1..5)) {
        let mut previous: Option<Plan> = None;
        for (version, resources) in (1..).zip(versions) {
            let made = plan(&manifests(&[("a.yaml", &resources.concat())]), &REGISTRY, previous.as_ref(), version);
            for trigger in made.triggers.values() {
                match &trigger.subscriber {
                    Subscriber::Sink(name) => prop_assert!(made.sinks.contains_key(name)),
                    Subscriber::Transformation(name) => prop_assert!(made.transformations.contains_key(name)),
                    Subscriber::Broker(_) | Subscriber::Http(_) => {}
                }
            }
            let mut ids: Vec<_> = made.declared.iter().map(|declared| &declared.id).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), made.declared.len());
            if previous.is_none() && made.is_free_of_errors() {
                prop_assert!(made.declared.iter().all(|declared| declared.state == DeclaredState::Valid));
            }
            previous = Some(made);
        }
    }
}

#[test]
fn a_destination_is_resolved_although_the_rest_has_errors() {
    let manifests = Manifests {
        files: vec![ManifestFile::read(
            "both.yaml",
            b"apiVersion: waypost.dev/v1alpha1
kind: Trigger
metadata: {name: t}
spec:
  broker: b
  filters: [{exact: {Type: x}}]
  subscriber: {ref: {apiVersion: waypost.dev/v1alpha1, kind: Sink, name: nope}}
",
        )],
    };
    let plan = plan(&manifests, &REGISTRY, None, 1);
    let errors: Vec<_> = plan.problems.iter().filter(|problem| problem.is_error()).collect();
    let places: Vec<_> = errors.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(places, ["spec.filters[0].exact.Type", "spec.subscriber.ref"]);
}
