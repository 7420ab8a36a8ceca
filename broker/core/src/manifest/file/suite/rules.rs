//! Each rule of each kind, by a manifest that breaks it.

use super::*;

#[test]
fn each_rule_of_a_trigger() {
    for (group, spec, expected) in [
        (KNATIVE, "", vec!["E0108 5 spec.broker"]),
        (KNATIVE, "  broker: ''\n", vec!["E0108 5 spec.broker"]),
        (
            KNATIVE,
            "  broker: a\n  brokerRef: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}\n",
            vec!["E0113 9 spec.brokerRef"],
        ),
        (KNATIVE, "  brokerRef: {apiVersion: v1, kind: Service, name: b}\n", vec!["E0111 8 spec.brokerRef"]),
        (
            KNATIVE,
            "  brokerRef: {name: b}\n",
            vec!["E0108 8 spec.brokerRef.apiVersion", "E0108 8 spec.brokerRef.kind"],
        ),
        (KNATIVE, "  broker: 5\n", vec!["E0110 8 spec.broker"]),
        (NATIVE, "  broker: b\n  brokr: c\n", vec!["E0109 9 spec.brokr"]),
        (KNATIVE, "  broker: b\n  brokr: c\n", vec![]),
        (NATIVE, "  broker: b\n  paused: 'true'\n", vec!["E0110 9 spec.paused"]),
        (NATIVE, "  broker: b\n  startFrom: yesterday\n", vec!["E0111 9 spec.startFrom"]),
        (NATIVE, "  broker: b\n  transformations: x\n", vec!["E0110 9 spec.transformations"]),
        (
            NATIVE,
            "  broker: b\n  transformations:\n  - name: x\n    fields: {}\n",
            vec!["E0113 11 spec.transformations[0].fields"],
        ),
        (KNATIVE, "  broker: b\n  delivery: {retry: -1}\n", vec!["E0111 9 spec.delivery.retry"]),
        (KNATIVE, "  broker: b\n  delivery: {retry: 2.5}\n", vec!["E0111 9 spec.delivery.retry"]),
        (KNATIVE, "  broker: b\n  delivery: {retry: '2'}\n", vec!["E0110 9 spec.delivery.retry"]),
        (KNATIVE, "  broker: b\n  delivery: {timeout: PT0S}\n", vec!["E0114 9 spec.delivery.timeout"]),
        (
            KNATIVE,
            "  broker: b\n  delivery: {backoffDelay: 10s}\n",
            vec!["E0114 9 spec.delivery.backoffDelay"],
        ),
        (
            KNATIVE,
            "  broker: b\n  delivery: {backoffPolicy: constant}\n",
            vec!["E0111 9 spec.delivery.backoffPolicy"],
        ),
        (KNATIVE, "  broker: b\n  delivery: {format: avro}\n", vec!["E0111 9 spec.delivery.format"]),
        (
            KNATIVE,
            "  broker: b\n  delivery: {deadLetterSink: {}}\n",
            vec!["E0108 9 spec.delivery.deadLetterSink"],
        ),
        (
            NATIVE,
            "  broker: b\n  delivery: {ratePerSecond: 0.5, orderingKey: k, holdWhenDown: 1, burst: 1}\n",
            vec![
                "E0111 9 spec.delivery.ratePerSecond",
                "E0113 9 spec.delivery.orderingKey",
                "E0110 9 spec.delivery.holdWhenDown",
            ],
        ),
        (
            NATIVE,
            "  broker: b\n  delivery: {ordering: none, orderingKey: k, burst: 1}\n",
            vec!["E0113 9 spec.delivery.burst", "E0113 9 spec.delivery.orderingKey"],
        ),
        (NATIVE, "  broker: b\n  delivery: {ordering: all}\n", vec!["E0111 9 spec.delivery.ordering"]),
        (NATIVE, "  broker: b\n  delivery: {maxInFlight: 0}\n", vec!["E0111 9 spec.delivery.maxInFlight"]),
        (
            NATIVE,
            "  broker: b\n  delivery: {maxBacklog: {}}\n",
            vec!["E0108 9 spec.delivery.maxBacklog.size"],
        ),
        (
            NATIVE,
            "  broker: b\n  delivery: {maxBacklog: {size: 0, whenExceeded: block, sise: 1}}\n",
            vec![
                "E0109 9 spec.delivery.maxBacklog.sise",
                "E0111 9 spec.delivery.maxBacklog.size",
                "E0111 9 spec.delivery.maxBacklog.whenExceeded",
            ],
        ),
        (
            NATIVE,
            "  broker: b\n  delivery: {deadlettersink: {}}\n",
            vec!["E0109 9 spec.delivery.deadlettersink"],
        ),
    ] {
        assert_eq!(told(&trigger_of(group, spec)), expected, "{group} {spec}");
    }
}

#[test]
fn each_rule_of_a_destination() {
    let subscriber = |text: &str| {
        format!(
            "apiVersion: {KNATIVE}\nkind: Trigger\nmetadata: {{name: t}}\nspec:\n  broker: b\n  subscriber: {text}\n"
        )
    };
    let reference = "{apiVersion: v1, kind: Service, name: s}";
    for (text, expected) in [
        ("{}".to_owned(), vec!["E0108 6 spec.subscriber"]),
        ("~".to_owned(), vec!["E0108 4 spec.subscriber"]),
        ("http://localhost".to_owned(), vec!["E0110 6 spec.subscriber"]),
        ("{uri: /relative}".to_owned(), vec!["E0210 6 spec.subscriber.uri"]),
        ("{uri: 'ftp://host'}".to_owned(), vec!["E0210 6 spec.subscriber.uri"]),
        ("{uri: 'http://'}".to_owned(), vec!["E0210 6 spec.subscriber.uri"]),
        (format!("{{ref: {reference}, uri: 'http://host'}}"), vec!["E0113 6 spec.subscriber.uri"]),
        (format!("{{ref: {reference}, uri: 'a b'}}"), vec!["E0210 6 spec.subscriber.uri"]),
        (format!("{{ref: {reference}, uri: /x}}"), vec![]),
        ("{ref: {kind: Service, name: s}}".to_owned(), vec!["E0108 6 spec.subscriber.ref.apiVersion"]),
        ("{ref: {apiVersion: v1, kind: Service}}".to_owned(), vec!["E0108 6 spec.subscriber.ref.name"]),
        (format!("{{ref: {reference}, CACerts: abc}}"), vec!["E0115 6 spec.subscriber.CACerts"]),
        ("{uri: 'http://a', weight: 1}".to_owned(), vec![]),
    ] {
        assert_eq!(told(&subscriber(&text)), expected, "{text}");
    }
}

#[test]
fn each_rule_of_filters() {
    let filtered = |text: &str| trigger_of(KNATIVE, &format!("  broker: b\n{text}"));
    for (text, expected) in [
        ("  filter:\n    attributes:\n      Type: a\n", vec!["E0204 11 spec.filter.attributes.Type"]),
        ("  filter:\n    attributes:\n      type: 5\n", vec!["E0110 11 spec.filter.attributes.type"]),
        ("  filter:\n    type: a\n", vec!["E0204 9 spec.filter"]),
        ("  filters:\n    exact: {type: a}\n", vec!["E0110 9 spec.filters"]),
        ("  filters:\n  - {}\n", vec!["E0204 10 spec.filters[0]"]),
        ("  filters:\n  - exact: {type: a}\n    suffix: {type: b}\n", vec!["E0204 10 spec.filters[0]"]),
        ("  filters:\n  - exact: {type: ''}\n", vec!["E0204 10 spec.filters[0].exact.type"]),
        ("  filters:\n  - exact: {}\n", vec!["E0204 10 spec.filters[0].exact"]),
        ("  filters:\n  - prefix: {my-ext: a}\n", vec!["E0204 10 spec.filters[0].prefix.my-ext"]),
        ("  filters:\n  - all: []\n", vec!["E0204 10 spec.filters[0].all"]),
        (
            "  filters:\n  - any: [{}, {exact: {type: ''}}]\n",
            vec!["E0204 10 spec.filters[0].any[0]", "E0204 10 spec.filters[0].any[1].exact.type"],
        ),
        ("  filters:\n  - not: {}\n", vec!["E0204 10 spec.filters[0].not"]),
        ("  filters:\n  - cesql: type =\n", vec!["E0216 10 spec.filters[0].cesql"]),
        ("  filters:\n  - cesql: ''\n", vec!["E0216 10 spec.filters[0].cesql"]),
        ("  filters:\n  - cesql: 5\n", vec!["E0110 10 spec.filters[0].cesql"]),
        ("  filters:\n  - like: {type: 'a%'}\n", vec!["E0204 10 spec.filters[0].like"]),
        ("  filters:\n  - jsonpath: $.a\n", vec!["E0204 10 spec.filters[0].jsonpath"]),
        ("  filters:\n  - cel: 'true'\n", vec!["E0204 10 spec.filters[0].cel"]),
        ("  filters:\n  - exakt: {type: a}\n", vec!["E0204 10 spec.filters[0].exakt"]),
        // Both are checked, although only one counts.
        (
            "  filter: {attributes: {A: b}}\n  filters: [{exact: {B: c}}]\n",
            vec!["E0204 9 spec.filter.attributes.A", "E0204 10 spec.filters[0].exact.B"],
        ),
    ] {
        assert_eq!(told(&filtered(text)), expected, "{text}");
    }
    for (text, expected) in [
        ("", json!({})),
        ("  filter: {}\n", json!({})),
        ("  filter: {attributes: {}}\n", json!({})),
        ("  filters: []\n", json!({})),
        ("  filters: []\n  filter: {attributes: {type: a}}\n", json!({"exact": {"type": "a"}})),
        (
            "  filters: [{exact: {type: b}}]\n  filter: {attributes: {type: a}}\n",
            json!({"exact": {"type": "b"}}),
        ),
        ("  filter: {attributes: {tenant: ''}}\n", json!({"present": "tenant"})),
        (
            "  filters: [{exact: {type: b}}, {not: {any: [{prefix: {id: x}}, {suffix: {id: y}}]}}]\n",
            json!({"all": [{"exact": {"type": "b"}}, {"not": {"any": [{"prefix": {"id": "x"}}, {"suffix": {"id": "y"}}]}}]}),
        ),
    ] {
        let filter: Filter = trigger(&filtered(text)).filter;
        assert_eq!(serde_json::to_value(&filter).expect("JSON"), expected, "{text}");
    }
}

#[test]
fn each_rule_of_the_dialects_of_expressions() {
    for (group, item, expected) in [
        (KNATIVE, "cesql: type = 'a'", vec![]),
        (KNATIVE, "not: {cesql: type = 'a'}", vec![]),
        // Valid all the same, so that these are warnings.
        (KNATIVE, "cesql: a OR b AND c", vec!["E0217 10 spec.filters[0].cesql"]),
        (
            NATIVE,
            "any: [{cesql: LENGHT(type) > 1}, {cesql: LEFT(type) = 'a'}]",
            vec!["E0217 10 spec.filters[0].any[0].cesql", "E0217 10 spec.filters[0].any[1].cesql"],
        ),
        (NATIVE, "like: {type: 'a%', source: '_'}", vec![]),
        (NATIVE, "like: {type: ''}", vec!["E0204 10 spec.filters[0].like.type"]),
        (NATIVE, "like: {Type: 'a'}", vec!["E0204 10 spec.filters[0].like.Type"]),
        (NATIVE, "cel: has(subject) && data.total > 5", vec![]),
        (NATIVE, "cel: data.total >", vec!["E0216 10 spec.filters[0].cel"]),
        (NATIVE, "cel: true", vec!["E0110 10 spec.filters[0].cel"]),
        (NATIVE, "cel: data.items.exists(x, x > 1)", vec!["E0219 9 spec.filters"]),
        (NATIVE, "jsonpath: $..id", vec!["E0219 9 spec.filters"]),
        (KNATIVE, "exact: {specversion: '2.0'}", vec!["E0218 9 spec.filters"]),
        (NATIVE, "jsonpath: $.order.id", vec![]),
        (NATIVE, "jsonpath: $.order[", vec!["E0216 10 spec.filters[0].jsonpath"]),
        (NATIVE, "{like: {type: 'a'}, cesql: 'TRUE'}", vec!["E0204 10 spec.filters[0]"]),
        (NATIVE, "lik: {type: 'a'}", vec!["E0204 10 spec.filters[0].lik"]),
    ] {
        let text = trigger_of(group, &format!("  broker: b\n  filters:\n  - {item}\n"));
        assert_eq!(told(&text), expected, "{text}");
    }
    let text = trigger_of(KNATIVE, "  broker: b\n  filters:\n  - cesql: type = 'a\n");
    let file = read(&text);
    assert_eq!(problems(&file)[0].message, "the string has no end, at line 1, column 8 of the expression");
    let file = read(&trigger_of(KNATIVE, "  broker: b\n  filters: [{cesql: a OR b AND c}]\n"));
    let Some(Spec::Trigger(doubtful)) = &file.resources[0].spec else { panic!("a trigger: {file:?}") };
    assert_eq!(serde_json::to_value(&doubtful.filter).expect("JSON"), json!({"cesql": "a OR b AND c"}));
}

#[test]
fn each_rule_of_a_broker() {
    for (group, spec, expected) in [
        (NATIVE, "  log: embedded\n", vec![]),
        (NATIVE, "  log: {kafka: {}}\n", vec!["E0112 6 spec.log"]),
        (NATIVE, "  log: tape\n", vec!["E0111 6 spec.log"]),
        (NATIVE, "  acceptedStatus: 204\n", vec!["E0111 6 spec.acceptedStatus"]),
        (NATIVE, "  retention: {age: PT0S}\n", vec!["E0114 6 spec.retention.age"]),
        (NATIVE, "  retention: {size: 1GB}\n", vec!["E0111 6 spec.retention.size"]),
        (NATIVE, "  retention: {size: [1]}\n", vec!["E0110 6 spec.retention.size"]),
        (NATIVE, "  deduplication: {window: PT5M, maxEvents: 100}\n", vec![]),
        (NATIVE, "  deduplication: {}\n", vec!["E0108 6 spec.deduplication.window"]),
        (NATIVE, "  deduplication: {window: PT0S}\n", vec!["E0114 6 spec.deduplication.window"]),
        (
            NATIVE,
            "  deduplication: {window: PT5M, maxEvents: 0}\n",
            vec!["E0111 6 spec.deduplication.maxEvents"],
        ),
        (NATIVE, "  config: {}\n", vec!["E0109 6 spec.config"]),
        (KNATIVE, "  config: {kind: ConfigMap, name: x}\n", vec!["E0108 6 spec.config.apiVersion"]),
        (KNATIVE, "  log: anything\n", vec![]),
        (KNATIVE, "  delivery: {backoffDelay: P1M}\n", vec!["E0114 6 spec.delivery.backoffDelay"]),
        (NATIVE, "  []\n", vec!["E0110 5 spec"]),
    ] {
        assert_eq!(told(&broker_of(group, spec)), expected, "{group} {spec}");
    }
}
