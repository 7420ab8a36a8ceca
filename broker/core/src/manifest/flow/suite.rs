use super::super::{ManifestFile, Severity, Spec, Target};
use super::*;

fn read(kind: &str, spec: &str) -> ManifestFile {
    let text = format!("apiVersion: {KNATIVE_FLOWS}\nkind: {kind}\nmetadata: {{name: f}}\nspec: {spec}\n");
    ManifestFile::read("a.yaml", text.as_bytes())
}

#[test]
fn a_sequence_as_knatives_users_have_it() {
    let file = read(
        "Sequence",
        "
  channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}
  steps:
  - ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: first}
  - uri: http://x/y
    delivery: {retry: 3, backoffPolicy: linear, backoffDelay: PT1S, deadLetterSink: {uri: 'http://dead'}}
  reply:
    ref: {apiVersion: flows.knative.dev/v1, kind: Sequence, name: next}
",
    );
    let resource = &file.resources[0];
    assert_eq!(resource.problems, []);
    let Some(Spec::Sequence(spec)) = &resource.spec else { panic!("{file:?}") };
    let fields: Vec<_> = spec.destinations().into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        fields,
        ["spec.steps[0]", "spec.steps[1]", "spec.steps[1].delivery.deadLetterSink", "spec.reply"]
    );
    let Target::Reference { reference, .. } = &spec.steps[0].subscriber.target else { panic!("{spec:?}") };
    assert_eq!((&*reference.kind, &*reference.name.name), ("Service", "first"));
    assert_eq!(spec.steps[1].subscriber.target, Target::Url("http://x/y".to_owned()));
    assert_eq!(spec.steps[1].delivery.as_ref().and_then(|delivery| delivery.retry), Some(3));
}

#[test]
fn a_parallel_as_knatives_users_have_it() {
    let file = read(
        "Parallel",
        "
  branches:
  - filter: {uri: 'http://f'}
    subscriber: {uri: 'http://s'}
    reply: {uri: 'http://r'}
    delivery: {retry: 1, deadLetterSink: {uri: 'http://d'}}
  - subscriber: {uri: 'http://other'}
  reply: {uri: 'http://all'}
",
    );
    assert_eq!(file.resources[0].problems, []);
    let Some(Spec::Parallel(spec)) = &file.resources[0].spec else { panic!("{file:?}") };
    let fields: Vec<_> = spec.destinations().into_iter().map(|(path, _)| path).collect();
    let own = ["filter", "subscriber", "reply", "delivery.deadLetterSink"];
    let mut expected: Vec<_> = own.iter().map(|field| format!("spec.branches[0].{field}")).collect();
    expected.extend(["spec.branches[1].subscriber".to_owned(), "spec.reply".to_owned()]);
    assert_eq!(fields, expected);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let many = format!("{{steps: [{}]}}", "{uri: 'http://x'}, ".repeat(MAX_PARTS + 1));
    for (kind, spec, code, path) in [
        ("Sequence", "{}", "E0108", "spec.steps"),
        ("Sequence", "{steps: null}", "E0108", "spec.steps"),
        ("Sequence", "{steps: []}", "E0111", "spec.steps"),
        ("Sequence", "{steps: {uri: 'http://x'}}", "E0110", "spec.steps"),
        ("Sequence", "{steps: [http://x]}", "E0110", "spec.steps[0]"),
        ("Sequence", "{steps: [{}]}", "E0108", "spec.steps[0]"),
        ("Sequence", "{steps: [{uri: 'http://x'}, {uri: x}]}", "E0210", "spec.steps[1].uri"),
        ("Sequence", "{steps: [{ref: {kind: Service, name: s}}]}", "E0108", "spec.steps[0].ref.apiVersion"),
        (
            "Sequence",
            "{steps: [{uri: 'http://x', delivery: {retry: -1}}]}",
            "E0111",
            "spec.steps[0].delivery.retry",
        ),
        ("Sequence", "{steps: [{uri: 'http://x'}], reply: {}}", "E0108", "spec.reply"),
        ("Sequence", &many, "E0111", "spec.steps"),
        (
            "Sequence",
            "{steps: [{uri: 'http://x'}], channelTemplate: {kind: X}}",
            "E0108",
            "spec.channelTemplate.apiVersion",
        ),
        (
            "Sequence",
            "{steps: [{uri: 'http://x'}], channelTemplate: {apiVersion: v1}}",
            "E0108",
            "spec.channelTemplate.kind",
        ),
        ("Parallel", "{}", "E0108", "spec.branches"),
        ("Parallel", "{branches: []}", "E0111", "spec.branches"),
        ("Parallel", "{branches: [{}]}", "E0108", "spec.branches[0].subscriber"),
        ("Parallel", "{branches: [{uri: 'http://x'}]}", "E0108", "spec.branches[0].subscriber"),
        (
            "Parallel",
            "{branches: [{subscriber: {uri: 'http://x'}, filter: {}}]}",
            "E0108",
            "spec.branches[0].filter",
        ),
        (
            "Parallel",
            "{branches: [{subscriber: {uri: 'http://x'}, reply: {uri: y}}]}",
            "E0210",
            "spec.branches[0].reply.uri",
        ),
        (
            "Parallel",
            "{branches: [{subscriber: {uri: 'http://x'}, delivery: {backoffDelay: soon}}]}",
            "E0114",
            "spec.branches[0].delivery.backoffDelay",
        ),
    ] {
        let file = read(kind, spec);
        let resource = &file.resources[0];
        let problems: Vec<_> =
            resource.problems.iter().map(|problem| (problem.code.id(), &*problem.path)).collect();
        assert_eq!(problems, [(code, path)], "{kind} {spec}: {:?}", resource.problems);
        assert!(resource.spec.is_none(), "{spec}");
    }
}

#[test]
fn every_part_is_looked_at() {
    let file = read("Sequence", "{steps: [{uri: x}, {uri: 'http://x'}, {}], reply: {uri: y}}");
    let paths: Vec<_> = file.resources[0].problems.iter().map(|problem| &*problem.path).collect();
    assert_eq!(paths, ["spec.reply.uri", "spec.steps[0].uri", "spec.steps[2]"]);
}

#[test]
fn a_channel_that_is_more_than_a_channel_is_named() {
    for (template, path) in [
        ("{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}", None),
        ("{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, spec: {}}", None),
        (
            "{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, spec: {delivery: {retry: 3}}}",
            Some("spec.channelTemplate.spec"),
        ),
        ("{apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel}", Some("spec.channelTemplate")),
        (
            "{apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel, spec: {numPartitions: 3}}",
            Some("spec.channelTemplate.spec"),
        ),
    ] {
        let file =
            read("Sequence", &format!("{{channelTemplate: {template}, steps: [{{uri: 'http://x'}}]}}"));
        let resource = &file.resources[0];
        assert!(resource.spec.is_some(), "{template}");
        let warnings: Vec<_> =
            resource.problems.iter().map(|problem| (problem.severity, &*problem.path)).collect();
        assert_eq!(warnings, path.map(|path| (Severity::Warning, path)).into_iter().collect::<Vec<_>>());
    }
}
