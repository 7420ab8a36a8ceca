//! The Kafka source and sink against a real Kafka, read and written by Kafka's own client.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::client::{batch, event};
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::servers::kafka::{Kafka, PASSWORD, Record, USER, record};
use waypost_tests::subscriber::{Received, Subscriber};
use waypost_tests::{eventually, outage};

use crate::manifests::{default_broker, file, native_trigger, sink_ref, trigger, trigger_to};

const INGRESS: &str = "/default/default";

fn source(settings: &Value) -> Value {
    let sink = json!({"ref": {"apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "name": "default"}});
    json!({
        "apiVersion": "waypost.dev/v1alpha1",
        "kind": "Source",
        "metadata": {"name": "in"},
        "spec": {"kafka": settings, "sink": sink},
    })
}

fn sink(settings: &Value) -> Value {
    json!({
        "apiVersion": "waypost.dev/v1alpha1",
        "kind": "Sink",
        "metadata": {"name": "out"},
        "spec": {"kafka": settings},
    })
}

fn reading(kafka: &Kafka, subscriber: &Subscriber) -> String {
    let settings = json!({"bootstrapServers": [kafka.address()], "topics": ["orders"]});
    default_broker(&[trigger("all", &subscriber.url("/"), json!({})), source(&settings)])
}

fn writing(settings: &Value) -> String {
    default_broker(&[trigger_to("all", sink_ref("out"), json!({})), sink(settings)])
}

/// Numbered plain records.
fn numbered(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Value> {
    numbers.map(|number| {
        record(Some(format!("k{}", number % 10).as_bytes()), Some(number.to_string().as_bytes()), &[])
    })
}

fn ids(received: &[Received]) -> HashSet<String> {
    received.iter().map(Received::id).collect()
}

async fn distinct(subscriber: &Subscriber, wanted: usize) {
    // A kill and the return of the group take their time.
    for _ in 0..4 {
        let waited = tokio::time::timeout(Duration::from_secs(25), async {
            while ids(&subscriber.received()).len() < wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if waited.await.is_ok() {
            return;
        }
    }
    panic!("{} of {wanted} came", ids(&subscriber.received()).len());
}

async fn ready(waypost: &Waypost, kind: &str, name: &str) {
    eventually("the resource to be ready", async || {
        (waypost.resource(kind, name).await["ready"] == true).then_some(())
    })
    .await;
}

/// Waits until a resource is not ready, with this code, which may take ten seconds.
async fn not_ready(waypost: &Waypost, kind: &str, name: &str, code: &str) {
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let row = waypost.resource(kind, name).await;
            if row["ready"] == false && row["reason"] == code {
                return row["message"].as_str().unwrap_or_default().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let Ok(message) = told.await else {
        panic!("not told within ten seconds: {}", waypost.resource(kind, name).await)
    };
    assert!(message.len() > 20, "a sentence: {message}");
}

async fn committed(kafka: &Kafka, wanted: u64) {
    eventually("the group to have committed everything", async || {
        (kafka.committed("waypost.default.in", "orders").await == (wanted, wanted)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_plain_records_nulls_and_poison_all_arrive_and_are_committed() {
    let Some(kafka) = Kafka::start().await else { return };
    kafka.create("orders", 2).await;
    let required: [(&str, Option<&[u8]>); 4] = [
        ("ce_specversion", Some(b"1.0")),
        ("ce_id", Some(b"binary")),
        ("ce_source", Some(b"/s")),
        ("ce_type", Some(b"t")),
    ];
    let structured =
        br#"{"specversion": "1.0", "id": "structured", "source": "/s", "type": "t", "data": {"a": 1}}"#;
    let structured_type: [(&str, Option<&[u8]>); 1] =
        [("content-type", Some(b"application/cloudevents+json"))];
    kafka
        .send(
            "orders",
            [
                record(Some(b"k"), Some(b"data"), &[&required[..], &[("nothing", None)]].concat()),
                record(None, Some(structured), &structured_type),
                record(Some(b"key"), Some(b"plain"), &[("nothing", None), ("X-Trace", Some(b"7"))]),
                record(None, None, &[]),
                // A poison record: it claims to be an event, and is none.
                record(None, Some(b"{"), &structured_type),
            ],
        )
        .await;
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&reading(&kafka, &subscriber)).await;
    let received = subscriber.wait_for(5).await;
    let by = |wanted: &dyn Fn(&Received) -> bool| {
        received.iter().find(|one| wanted(one)).cloned().unwrap_or_else(|| panic!("{received:#?}"))
    };
    let binary = by(&|one| one.id() == "binary");
    assert_eq!((&binary.body[..], binary.header("ce-partitionkey")), (&b"data"[..], "k"));
    assert_eq!(by(&|one| one.id() == "structured").json(), json!({"a": 1}));
    let plain = by(&|one| one.body == "plain");
    assert_eq!(plain.header("ce-type"), "dev.waypost.kafka.record");
    assert_eq!((plain.header("ce-partitionkey"), plain.header("ce-kafkaheaderxtrace")), ("key", "7"));
    let place = format!("orders/{}/{}", plain.header("ce-kafkapartition"), plain.header("ce-kafkaoffset"));
    assert_eq!(plain.id(), place);
    assert_eq!(by(&|one| one.body == "{").header("ce-kafkafault"), "E0615");
    assert!(by(&|one| one.body.is_empty()).id().starts_with("orders/"));
    assert_eq!(waypost.resource("Source", "in").await["ready"], true);
    committed(&kafka, 5).await;
    // A clean end commits what was read, so that nothing comes twice.
    let waypost = waypost.restart(|setup| setup).await;
    kafka.send("orders", [record(None, Some(b"last"), &[])]).await;
    let received = subscriber.wait_for(6).await;
    assert_eq!(received[5].body, "last");
    assert_eq!(received.len(), 6);
    waypost.stop().await;
}

#[tokio::test]
async fn ten_thousand_records_all_arrive_though_waypost_is_killed_and_kafka_goes_away() {
    let Some(mut kafka) = Kafka::start().await else { return };
    kafka.create("orders", 3).await;
    kafka.send("orders", numbered(0..10_000)).await;
    let subscriber = Subscriber::accepting().await;
    let waypost = Setup::new(&reading(&kafka, &subscriber)).allow("the source is not ready").start().await;
    distinct(&subscriber, 2_000).await;
    let waypost = waypost.kill(|setup| setup).await;
    distinct(&subscriber, 10_000).await;
    committed(&kafka, 10_000).await;
    kafka.kill().await;
    not_ready(&waypost, "Source", "in", "E0302").await;
    outage(Duration::ZERO).await;
    kafka.start_again().await;
    kafka.send("orders", numbered(10_000..10_100)).await;
    distinct(&subscriber, 10_100).await;
    ready(&waypost, "Source", "in").await;
    committed(&kafka, 10_100).await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_full_holds_the_source_up_and_nothing_is_lost() {
    let Some(kafka) = Kafka::start().await else { return };
    kafka.create("orders", 2).await;
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let subscriber =
        Subscriber::new(move |_| if opened.load(Ordering::Relaxed) { 200 } else { 503 }.into()).await;
    let delivery = json!({"delivery": {
        "retry": 1000, "backoffPolicy": "constant", "backoffDelay": "PT0.5S", "maxBacklog": {"size": "16KiB"},
    }});
    let settings = json!({"bootstrapServers": [kafka.address()], "topics": ["orders"]});
    let all = native_trigger("all", &subscriber.url("/"), delivery);
    let waypost = Setup::new(&default_broker(&[all, source(&settings)])).start().await;
    ready(&waypost, "Source", "in").await;
    kafka.send("orders", numbered(0..200)).await;
    eventually("the backlog to be full", async || {
        (count(&waypost.trigger("all").await, "matched") == 200).then_some(())
    })
    .await;
    // It is looked at once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    kafka.send("orders", numbered(200..3_000)).await;
    not_ready(&waypost, "Source", "in", "E0510").await;
    // Long enough for the source to tell Kafka that it reads nothing for now.
    outage(Duration::from_secs(4)).await;
    let (committed_meanwhile, _) = kafka.committed("waypost.default.in", "orders").await;
    assert!(committed_meanwhile < 3_000, "{committed_meanwhile}");
    open.store(true, Ordering::Relaxed);
    eventually("all to be delivered", async || {
        (count(&waypost.trigger("all").await, "delivered") == 3_000).then_some(())
    })
    .await;
    ready(&waypost, "Source", "in").await;
    committed(&kafka, 3_000).await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_second_member_takes_its_part_and_the_first_takes_it_back() {
    let Some(kafka) = Kafka::start().await else { return };
    kafka.create("orders", 4).await;
    let (one, two) = (Subscriber::accepting().await, Subscriber::accepting().await);
    let first = Waypost::start(&reading(&kafka, &one)).await;
    kafka.send("orders", numbered(0..100)).await;
    distinct(&one, 100).await;
    let second = Waypost::start(&reading(&kafka, &two)).await;
    let mut sent = 100;
    eventually("the second member to get a part", async || {
        kafka.send("orders", numbered(sent..sent + 100)).await;
        sent += 100;
        (!two.received().is_empty()).then_some(())
    })
    .await;
    second.stop().await;
    kafka.send("orders", numbered(sent..sent + 100)).await;
    let all = sent + 100;
    eventually("all to have come to one of the two", async || {
        let mut all_ids = ids(&one.received());
        all_ids.extend(ids(&two.received()));
        (all_ids.len() == all).then_some(())
    })
    .await;
    committed(&kafka, all as u64).await;
    assert_eq!(first.resource("Source", "in").await["ready"], true);
    first.stop().await;
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_told_and_found_once_it_is() {
    let Some(kafka) = Kafka::start().await else { return };
    let subscriber = Subscriber::accepting().await;
    let out = json!({"bootstrapServers": [kafka.address()], "topic": "results"});
    let manifests =
        [reading(&kafka, &subscriber), file(&[trigger_to("write", sink_ref("out"), json!({})), sink(&out)])];
    let setup = Setup::new(&manifests[0]).file("more.yaml", &manifests[1]);
    let setup = setup.allow("E0304").allow("E0424");
    let waypost = setup.start().await;
    not_ready(&waypost, "Source", "in", "E0304").await;
    not_ready(&waypost, "Sink", "out", "E0424").await;
    waypost.accept(event(INGRESS, "held", "t", &[], "x")).await;
    eventually("the trigger to pause", async || {
        (waypost.resource("Trigger", "write").await["ready"] == false).then_some(())
    })
    .await;
    kafka.create("orders", 1).await;
    kafka.create("results", 1).await;
    kafka.send("orders", numbered(0..1)).await;
    distinct(&subscriber, 2).await;
    waypost.settled().await;
    let row = waypost.trigger("write").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (2, 0), "{row}");
    assert_eq!(kafka.read("results").await.len(), 2);
    ready(&waypost, "Source", "in").await;
    ready(&waypost, "Sink", "out").await;
    waypost.stop().await;
}

#[tokio::test]
async fn credentials_that_are_wrong_are_told_and_a_renewed_file_is_found() {
    let Some(kafka) = Kafka::start().await else { return };
    kafka.create("orders", 1).await;
    kafka.create("results", 1).await;
    kafka.send("orders", numbered(0..1)).await;
    let setup = Setup::empty();
    let password = setup.directory().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let secured = |mechanism: &str, more: Value| {
        let mut settings = json!({
            "bootstrapServers": [kafka.secure_address()],
            "sasl": {"mechanism": mechanism, "username": {"value": USER}, "password": {"file": password}},
            "tls": {"ca": {"value": kafka.certificate()}},
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let manifests = default_broker(&[
        trigger_to("write", sink_ref("out"), json!({})),
        source(&secured("SCRAM-SHA-512", json!({"topics": ["orders"]}))),
        sink(&secured("PLAIN", json!({"topic": "results"}))),
    ]);
    let setup = setup.file("manifests.yaml", &manifests).allow("E0303").allow("E0423");
    let waypost = setup.start().await;
    not_ready(&waypost, "Source", "in", "E0303").await;
    not_ready(&waypost, "Sink", "out", "E0423").await;
    waypost.accept(event(INGRESS, "held", "t", &[], "x")).await;
    let log: String = waypost.log().iter().map(Value::to_string).collect();
    assert!(!log.contains(PASSWORD) && !log.contains("wrong"), "a secret in the log");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    ready(&waypost, "Source", "in").await;
    ready(&waypost, "Sink", "out").await;
    eventually("both events to be written", async || {
        (count(&waypost.trigger("write").await, "delivered") == 2).then_some(())
    })
    .await;
    assert_eq!(count(&waypost.trigger("write").await, "deadLettered"), 0);
    assert_eq!(kafka.read("results").await.len(), 2);
    waypost.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told() {
    let Some(kafka) = Kafka::start().await else { return };
    let settings = json!({"bootstrapServers": [kafka.secure_address()], "topic": "results", "tls": {}});
    let waypost = Setup::new(&writing(&settings)).allow("E0423").start().await;
    not_ready(&waypost, "Sink", "out", "E0423").await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_record_that_is_too_large_for_an_event_is_told_and_holds_nothing_up() {
    let Some(kafka) = Kafka::start().await else { return };
    kafka.create("orders", 1).await;
    let large = vec![b'x'; 200_000];
    kafka.send("orders", [record(None, Some(&large), &[]), record(None, Some(b"small"), &[])]).await;
    let subscriber = Subscriber::accepting().await;
    let setup = Setup::new(&reading(&kafka, &subscriber)).arguments(&["--max-event-bytes", "131072"]);
    let waypost = setup.allow("E0653").start().await;
    let received = subscriber.wait_for(2).await;
    let told = &received[0];
    assert_eq!(
        (told.header("ce-type"), told.id().as_str()),
        ("dev.waypost.source.event.toolarge", "orders/0/0")
    );
    assert_eq!((&told.json()["code"], &told.json()["limit"]), (&json!("E0653"), &json!(131_072)));
    assert_eq!(received[1].body, "small");
    committed(&kafka, 2).await;
    assert_eq!(waypost.resource("Source", "in").await["ready"], true);
    waypost.stop().await;
}

fn numbers(records: &[Record]) -> HashSet<String> {
    records.iter().filter_map(|record| record.header("ce_id")).collect()
}

/// Sends events with the ids of these numbers, in requests of many.
async fn accept_many(waypost: &Waypost, numbers: std::ops::Range<usize>) {
    for start in numbers.clone().step_by(500) {
        let events: Vec<_> = (start..(start + 500).min(numbers.end))
            .map(|number| {
                json!({
                    "specversion": "1.0", "id": number.to_string(), "source": "/s", "type": "t",
                    "partitionkey": format!("k{}", number % 10), "data": {"number": number},
                })
            })
            .collect();
        waypost.accept(batch(INGRESS, Value::from(events).to_string())).await;
    }
}

#[tokio::test]
async fn ten_thousand_events_are_all_written_though_kafka_goes_away_and_waypost_is_killed() {
    let Some(mut kafka) = Kafka::start().await else { return };
    kafka.create("results", 3).await;
    let settings = json!({"bootstrapServers": [kafka.address()], "topic": "results"});
    let setup = Setup::new(&writing(&settings)).allow("E0420");
    let waypost = setup.start().await;
    accept_many(&waypost, 0..2_000).await;
    waypost.settled().await;
    kafka.kill().await;
    accept_many(&waypost, 2_000..10_000).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waypost = waypost.kill(|setup| setup).await;
    outage(Duration::from_secs(5)).await;
    kafka.start_again().await;
    tokio::time::timeout(Duration::from_secs(90), async {
        while count(&waypost.trigger("all").await, "delivered") < 10_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("not all events were written"));
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (10_000, 0), "{row}");
    let records = kafka.read("results").await;
    assert_eq!(numbers(&records).len(), 10_000);
    // All of a key are in one partition.
    let partitions: HashSet<_> =
        records.iter().map(|record| (record.key.clone(), record.partition)).collect();
    assert_eq!(partitions.len(), 10);
    waypost.stop().await;
}

#[tokio::test]
async fn a_topic_of_the_event_that_is_not_there_is_a_dead_letter_of_that_event_alone() {
    let Some(kafka) = Kafka::start().await else { return };
    kafka.create("results-known", 1).await;
    let settings = json!({"bootstrapServers": [kafka.address()], "topic": "results-${type}"});
    let waypost = Waypost::start(&writing(&settings)).await;
    waypost.accept(event(INGRESS, "1", "unknown", &[], "")).await;
    waypost.accept(event(INGRESS, "2", "known", &[("content-type", "text/plain")], "x")).await;
    waypost.accept(event(INGRESS, "3", "unknown", &[], "")).await;
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (1, 2), "{row}");
    let records = kafka.read("results-known").await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].value.as_deref(), Some(&b"x"[..]));
    assert_eq!(records[0].header("content-type").as_deref(), Some("text/plain"));
    assert_eq!(waypost.resource("Sink", "out").await["ready"], true);
    waypost.stop().await;
}

/// A manifest of a kind of others, as its users have it.
#[allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of the argument")]
fn foreign(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn kinds_of_knative_and_triggermesh_run_unmodified_over_every_way_to_prove_who_one_is() {
    let Some(kafka) = Kafka::start().await else { return };
    for topic in ["of-knative", "of-triggermesh", "pattern-1", "to-knative", "to-triggermesh", "to-native"] {
        kafka.create(topic, 1).await;
    }
    let subscriber = Subscriber::accepting().await;
    let broker =
        json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default"}});
    let to = |api_version: &str, kind: &str, name: &str| json!({"ref": {"apiVersion": api_version, "kind": kind, "name": name}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kafka"}, "stringData": {
        "protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-256", "user": USER, "password": PASSWORD,
        "ca.crt": kafka.certificate(),
    }});
    let of_secret = |key: &str| json!({"secretKeyRef": {"name": "kafka", "key": key}});
    let (certificate, key) = kafka.client_certificate();
    let certified = json!({
        "ca": {"value": kafka.certificate()}, "certificate": {"value": certificate}, "key": {"value": key},
    });
    let auth = json!({
        "saslEnable": true, "tlsEnable": true, "securityMechanism": "SCRAM-SHA-512", "username": USER,
        "password": {"valueFromSecret": {"name": "kafka", "key": "password"}},
        "tls": {"ca": {"valueFromSecret": {"name": "kafka", "key": "ca.crt"}}},
    });
    let only = |source_type: &str| json!({"filter": {"attributes": {"type": source_type}}});
    let manifests = default_broker(&[
        secret,
        foreign(
            "sources.knative.dev/v1",
            "KafkaSource",
            "knative",
            json!({
                "bootstrapServers": [kafka.secure_address()], "topics": ["of-knative"], "initialOffset": "earliest",
                "consumerGroup": "knative", "sink": broker,
                "net": {
                    "sasl": {
                        "enable": true, "user": of_secret("user"), "password": of_secret("password"),
                        "type": of_secret("sasl.mechanism"),
                    },
                    "tls": {"enable": true, "caCert": of_secret("ca.crt")},
                },
            }),
        ),
        foreign(
            "sources.triggermesh.io/v1alpha1",
            "KafkaSource",
            "triggermesh",
            json!({
                "bootstrapServers": [kafka.secure_address()], "topic": "of-triggermesh", "groupID": "triggermesh",
                "auth": auth, "sink": broker,
            }),
        ),
        json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Source", "metadata": {"name": "in"}, "spec": {
            "kafka": {
                "bootstrapServers": [kafka.certified_address()], "topicPattern": "^pattern-.*", "tls": certified,
            },
            "sink": broker,
        }}),
        foreign(
            "eventing.knative.dev/v1alpha1",
            "KafkaSink",
            "to-knative",
            json!({
                "bootstrapServers": [kafka.secure_address()], "topic": "to-knative",
                "auth": {"secret": {"ref": {"name": "kafka"}}},
            }),
        ),
        foreign(
            "targets.triggermesh.io/v1alpha1",
            "KafkaTarget",
            "to-triggermesh",
            json!({
                "bootstrapServers": [kafka.secure_address()], "topic": "to-triggermesh", "auth": auth,
                "discardCloudEventContext": true,
            }),
        ),
        sink(
            &json!({"bootstrapServers": [kafka.certified_address()], "topic": "to-native", "tls": certified}),
        ),
        trigger("all", &subscriber.url("/"), json!({})),
        trigger_to(
            "k",
            to("eventing.knative.dev/v1alpha1", "KafkaSink", "to-knative"),
            only("dev.knative.kafka.event"),
        ),
        trigger_to(
            "t",
            to("targets.triggermesh.io/v1alpha1", "KafkaTarget", "to-triggermesh"),
            only("io.triggermesh.kafka.event"),
        ),
        trigger_to("n", sink_ref("out"), only("dev.waypost.kafka.record")),
    ]);
    let waypost = Setup::new(&manifests).start().await;
    for (kind, name) in
        [("KafkaSource", "knative"), ("KafkaSource", "triggermesh"), ("KafkaTarget", "to-triggermesh")]
    {
        ready(&waypost, kind, name).await;
    }
    ready(&waypost, "Source", "in").await;
    kafka.send("of-knative", [record(Some(b"k"), Some(b"1"), &[("X-Y", Some(b"z"))])]).await;
    kafka.send("pattern-1", [record(None, Some(b"3"), &[])]).await;
    // TriggerMesh's source begins with what comes once its group has its partitions.
    let mut sent = 0;
    eventually("a record to come through the source of TriggerMesh", async || {
        kafka.send("of-triggermesh", [record(Some(b"k"), Some(b"2"), &[])]).await;
        sent += 1;
        let received = subscriber.received();
        received.iter().any(|one| one.header("ce-type") == "io.triggermesh.kafka.event").then_some(())
    })
    .await;
    // A pattern finds a topic that comes later.
    kafka.create("pattern-2", 1).await;
    kafka.send("pattern-2", [record(None, Some(b"4"), &[])]).await;
    let come = |event_type: &str| -> Vec<Received> {
        let received = subscriber.received();
        received.into_iter().filter(|one| one.header("ce-type") == event_type).collect()
    };
    tokio::time::timeout(Duration::from_secs(60), async {
        while come("dev.waypost.kafka.record").len() < 2 || come("dev.knative.kafka.event").is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{:#?}", subscriber.received()));
    let knative = &come("dev.knative.kafka.event")[0];
    let attributes = ["ce-id", "ce-source", "ce-subject", "ce-key", "ce-kafkaheaderxy"];
    assert_eq!(
        attributes.map(|name| knative.header(name)),
        [
            "partition:0/offset:0",
            "/apis/v1/namespaces/default/kafkasources/knative#of-knative",
            "partition:0#0",
            "k",
            "z",
        ]
    );
    let triggermesh = &come("io.triggermesh.kafka.event")[0];
    let attributes = ["ce-source", "ce-subject", "content-type"].map(|name| triggermesh.header(name));
    assert_eq!(attributes, ["of-triggermesh", "kafka/event", "application/json"]);
    assert!(triggermesh.id().starts_with("of-triggermesh/0/"), "not the key, which comes again");
    waypost.settled().await;
    let structured = kafka.read("to-knative").await;
    let event: Value = serde_json::from_slice(structured[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(event["id"], "partition:0/offset:0", "{event}");
    let data = kafka.read("to-triggermesh").await;
    assert_eq!(data[0].value.as_deref(), Some(&b"2"[..]));
    assert!(
        data[0].key.as_ref().is_some_and(|key| key.starts_with(b"of-triggermesh/0/")),
        "the id is the key"
    );
    assert_eq!(kafka.read("to-native").await.len(), 2);
    waypost.stop().await;
}

#[tokio::test]
async fn check_connect_reaches_every_system_and_changes_nothing() {
    let Some(kafka) = Kafka::start().await else { return };
    kafka.create("orders", 1).await;
    let subscriber = Subscriber::accepting().await;
    let out = |topic: &str| json!({"bootstrapServers": [kafka.address()], "topic": topic});
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("manifests.yaml");
    let check = |manifests: String, format: &'static str| {
        std::fs::write(&manifest, manifests).unwrap();
        let arguments = ["check", "--connect", "-o", format, "-f"];
        let ended =
            Command::new(waypost_tests::binary::path()).args(arguments).arg(&manifest).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stdout).unwrap())
    };
    let (code, told) = check(reading(&kafka, &subscriber) + &file(&[sink(&out("orders"))]), "text");
    assert_eq!(code, Some(0), "{told}");
    for line in ["Source default/in: reached", "Sink default/out: reached", "Trigger default/all: reached"] {
        assert!(told.contains(line), "{told}");
    }
    let away = trigger("all", "http://127.0.0.1:9/", json!({}));
    let absent = source(&json!({"bootstrapServers": [kafka.address()], "topics": ["none"]}));
    let (code, told) = check(default_broker(&[away, absent, sink(&out("none"))]), "json");
    assert_eq!(code, Some(1), "{told}");
    let problems: Value = serde_json::from_str(&told).unwrap();
    let codes: Vec<_> = problems.as_array().unwrap().iter().map(|problem| problem["code"].clone()).collect();
    assert_eq!(codes, ["E0304", "E0424", "E0403"], "{told}");
    assert_eq!(problems[0]["line"].as_u64().map(|line| line > 0), Some(true), "{told}");
    // No group was joined.
    assert_eq!(kafka.committed("waypost.default.in", "orders").await.0, 0);
}
