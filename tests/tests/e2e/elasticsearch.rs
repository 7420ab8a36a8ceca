//! The Elasticsearch sink against a real OpenSearch, read back by `curl`, and against a script where it matters what is
//! answered.
#![allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of each argument")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::binary::run;
use waypost_tests::client::{batch, event};
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::servers::opensearch::{OpenSearch, PASSWORD, USER};
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};
use waypost_tests::{eventually, outage};

use crate::manifests::{default_broker, file, sink_ref, trigger_to};

const INGRESS: &str = "/default/default";

fn sink(name: &str, settings: &Value) -> Value {
    json!({
        "apiVersion": "waypost.dev/v1alpha1",
        "kind": "Sink",
        "metadata": {"name": name},
        "spec": {"elasticsearch": settings},
    })
}

/// A sink and a trigger of its name that sends it the events of the type of that name.
fn writing(name: &str, settings: &Value) -> [Value; 2] {
    let filter = json!({"filter": {"attributes": {"type": name}}});
    [trigger_to(name, sink_ref(name), filter), sink(name, settings)]
}

fn settings(node: &OpenSearch, more: Value) -> Value {
    let mut settings = json!({
        "urls": [node.url()],
        "auth": {"basic": {"username": {"value": USER}, "password": {"value": PASSWORD}}},
        "tls": {"ca": {"value": node.certificate()}},
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
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

/// Sends events with the ids of these numbers, in requests of many.
async fn accept_many(waypost: &Waypost, event_type: &str, numbers: std::ops::Range<usize>) {
    for start in numbers.clone().step_by(500) {
        let events: Vec<_> = (start..(start + 500).min(numbers.end))
            .map(|number| {
                json!({
                    "specversion": "1.0", "id": number.to_string(), "source": "/s", "type": event_type,
                    "time": "2026-11-22T01:02:03Z", "data": {"number": number},
                })
            })
            .collect();
        waypost.accept(batch(INGRESS, Value::from(events).to_string())).await;
    }
}

async fn delivered(waypost: &Waypost, trigger: &str, wanted: u64) {
    let waited = tokio::time::timeout(Duration::from_secs(90), async {
        while count(&waypost.trigger(trigger).await, "delivered") < wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if waited.await.is_err() {
        panic!("not all events were written: {}", waypost.trigger(trigger).await);
    }
}

#[tokio::test]
async fn ten_thousand_events_are_there_once_each_though_the_cluster_goes_away_and_waypost_is_killed() {
    let Some(mut node) = OpenSearch::start().await else { return };
    let manifests =
        default_broker(&writing("many", &settings(&node, json!({"index": "many-${time:%Y.%m.%d}"}))));
    let waypost = Setup::new(&manifests).allow("E0420").start().await;
    ready(&waypost, "Sink", "many").await;
    accept_many(&waypost, "many", 0..2_000).await;
    delivered(&waypost, "many", 2_000).await;
    node.kill().await;
    accept_many(&waypost, "many", 2_000..10_000).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let waypost = waypost.kill(|setup| setup).await;
    // The node takes its time to start, too.
    outage(Duration::ZERO).await;
    node.start_again().await;
    delivered(&waypost, "many", 10_000).await;
    let row = waypost.trigger("many").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (10_000, 0), "{row}");
    let documents = node.documents("many-2026.11.22").await;
    assert_eq!(documents.len(), 10_000);
    let numbers: HashSet<_> =
        documents.iter().map(|document| document["_source"]["data"]["number"].as_u64()).collect();
    assert_eq!(numbers.len(), 10_000);
    assert!(documents.iter().any(|document| document["_id"] == "/s 7"), "{}", documents[0]);
    waypost.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_and_mended_without_a_restart_and_a_poison_document_costs_no_other() {
    let Some(node) = OpenSearch::start().await else { return };
    node.ask("PUT", "/_cluster/settings", r#"{"persistent": {"action.auto_create_index": "false"}}"#).await;
    let mapping = r#"{"mappings": {"properties": {"number": {"type": "integer"}}}}"#;
    node.ask("PUT", "/poison", mapping).await;
    let template = r#"{"index_patterns": ["stream*"], "data_stream": {}}"#;
    node.ask("PUT", "/_index_template/stream", template).await;
    node.ask("PUT", "/_data_stream/stream", "").await;
    node.ask("PUT", "/rights", "").await;
    let limited = r#"{"password": "Wp-Strong#Passw0rd-8"}"#;
    node.ask("PUT", "/_plugins/_security/api/internalusers/limited", limited).await;

    let setup = Setup::empty();
    let password = setup.directory().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let auth = |username: &str, password: Value| json!({"basic": {"username": {"value": username}, "password": password}});
    let documents = [
        writing("absent", &settings(&node, json!({"index": "absent"}))),
        writing(
            "password",
            &settings(&node, json!({"index": "poison", "auth": auth(USER, json!({"file": password}))})),
        ),
        writing(
            "rights",
            &settings(
                &node,
                json!({"index": "rights", "auth": auth("limited", json!({"value": "Wp-Strong#Passw0rd-8"}))}),
            ),
        ),
        writing("trust", &settings(&node, json!({"index": "poison", "tls": {}}))),
        writing("pipeline", &settings(&node, json!({"index": "poison", "pipeline": "none"}))),
        writing("poison", &settings(&node, json!({"index": "poison", "document": "data"}))),
        writing("named", &settings(&node, json!({"index": "${$.index}"}))),
        writing("stream", &settings(&node, json!({"index": "stream", "dataStream": true}))),
    ];
    let setup = setup
        .file("manifests.yaml", &default_broker(&[]))
        .file("sinks.yaml", &file(documents.as_flattened()))
        .allow("E0423")
        .allow("E0424");
    let checked = run(&["check", "--connect", "-f", setup.manifests().to_str().unwrap()]).await;
    for (name, said) in [
        ("absent", "E0424"),
        ("password", "E0423"),
        ("trust", "E0423"),
        ("pipeline", "E0424"),
        ("poison", "reached"),
        ("stream", "reached"),
    ] {
        assert!(checked.stdout.contains(&format!("Sink default/{name}: {said}")), "{name}: {checked:?}");
    }
    let waypost = setup.start().await;
    not_ready(&waypost, "Sink", "absent", "E0424").await;
    not_ready(&waypost, "Sink", "password", "E0423").await;
    not_ready(&waypost, "Sink", "trust", "E0423").await;
    not_ready(&waypost, "Sink", "pipeline", "E0424").await;
    for name in ["absent", "password", "rights", "poison", "named", "stream"] {
        accept_many(&waypost, name, 0..3).await;
    }
    // Only a delivery finds this out.
    not_ready(&waypost, "Trigger", "rights", "E0423").await;

    // What does not fit the mapping, and an index that an event names, are matters of those events.
    let poison =
        event(INGRESS, "bad", "poison", &[("content-type", "application/json")], r#"{"number": "x"}"#);
    waypost.accept(poison).await;
    delivered(&waypost, "poison", 3).await;
    eventually("the poison to be a dead letter", async || {
        (count(&waypost.trigger("poison").await, "deadLettered") == 1).then_some(())
    })
    .await;
    let poison = node.documents("poison").await;
    assert_eq!(poison.len(), 3, "{poison:?}");
    assert!(poison.iter().all(|document| document["_source"].as_object().unwrap().len() == 1), "{poison:?}");
    let unknown =
        event(INGRESS, "unknown", "named", &[("content-type", "application/json")], r#"{"index": "none"}"#);
    waypost.accept(unknown).await;
    eventually("those whose index is not there, or not said, to be dead letters", async || {
        (count(&waypost.trigger("named").await, "deadLettered") == 4).then_some(())
    })
    .await;
    ready(&waypost, "Sink", "named").await;

    // The same events again are there already.
    accept_many(&waypost, "stream", 0..3).await;
    delivered(&waypost, "stream", 6).await;
    let stream = node.documents("stream").await;
    assert_eq!(stream.len(), 3, "{stream:?}");
    assert_eq!(stream[0]["_source"]["@timestamp"], "2026-11-22T01:02:03Z", "{stream:?}");

    node.ask("PUT", "/absent", "").await;
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let may = r#"{"password": "Wp-Strong#Passw0rd-8", "opendistro_security_roles": ["all_access"]}"#;
    node.ask("PUT", "/_plugins/_security/api/internalusers/limited", may).await;
    for name in ["absent", "password", "rights"] {
        delivered(&waypost, name, 3).await;
        ready(&waypost, "Sink", name).await;
        assert_eq!(count(&waypost.trigger(name).await, "deadLettered"), 0, "{name}");
    }
    assert_eq!(node.documents("absent").await.len(), 3);
    let log: String = waypost.log().iter().map(Value::to_string).collect();
    assert!(!log.contains(PASSWORD) && !log.contains("Passw0rd-8"), "a secret in the log");
    waypost.stop().await;
}

/// The actions and documents of a bulk request.
fn lines(body: &[u8]) -> Vec<(Value, Value)> {
    let text = std::str::from_utf8(body).unwrap();
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    values.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

fn number(document: &Value) -> u64 {
    document["data"]["number"].as_u64().unwrap()
}

/// An answer to a bulk request in which each document has the status that `status` gives it.
fn bulk_answer(body: &[u8], status: impl Fn(&Value) -> u16) -> Behaviour {
    let items: Vec<_> = lines(body)
        .iter()
        .map(|(_, document)| match status(document) {
            status @ 200..300 => json!({"index": {"status": status}}),
            429 => json!({"index": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "full"}}}),
            status => json!({"index": {"status": status, "error": {"type": "document_parsing_exception", "reason": "no"}}}),
        })
        .collect();
    let body = json!({"errors": true, "items": items}).to_string();
    Behaviour::Answer(answer(200, &[("content-type", "application/json")], body))
}

fn empty() -> Behaviour {
    let body =
        r#"{"error": {"type": "parse_exception", "reason": "request body is required"}, "status": 400}"#;
    Behaviour::Answer(answer(400, &[("content-type", "application/json")], body))
}

fn scripted(cluster: &Subscriber) -> String {
    let settings = json!({
        "urls": [cluster.url("/prefix")], "index": "orders-${type}", "auth": {"apiKey": {"value": "a2V5"}},
    });
    let delivery = json!({"delivery": {"retry": 20, "backoffPolicy": "linear", "backoffDelay": "PT0.05S"}});
    default_broker(&[trigger_to("all", sink_ref("out"), delivery), sink("out", &settings)])
}

#[tokio::test]
async fn of_a_mixed_answer_one_is_retried_another_is_a_dead_letter_and_none_is_lost() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refusals);
    let cluster = Subscriber::new(move |request| {
        if request.body.is_empty() {
            return empty();
        }
        bulk_answer(&request.body, |document| match number(document) % 3 {
            1 if counted.fetch_add(1, Ordering::Relaxed) < 40 => 429,
            2 => 400,
            _ => 201,
        })
    })
    .await;
    let waypost = Waypost::start(&scripted(&cluster)).await;
    accept_many(&waypost, "t", 0..30).await;
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (20, 10), "{row}");
    let bulks: Vec<_> = cluster.received().into_iter().filter(|request| !request.body.is_empty()).collect();
    assert!(bulks.iter().all(|request| request.path.starts_with("/prefix/_bulk?")), "{bulks:#?}");
    assert!(bulks.iter().all(|request| request.header("authorization") == "ApiKey a2V5"));
    // What was taken or refused for good came once, what there was no room for came again.
    let sent: Vec<_> = bulks.iter().flat_map(|request| lines(&request.body)).collect();
    for wanted in 0..30 {
        let times = sent.iter().filter(|(_, document)| number(document) == wanted).count();
        assert!(if wanted % 3 == 1 { times > 1 } else { times == 1 }, "{wanted} came {times} times");
    }
    assert_eq!(sent[0].0["index"]["_index"], "orders-t");
    waypost.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_sent_in_parts_and_one_that_cannot_be_read_costs_one_event() {
    let cluster = Subscriber::new(move |request| {
        if request.body.is_empty() {
            return empty();
        }
        let sent = lines(&request.body);
        if sent.len() > 7 {
            return 413.into();
        }
        if sent.iter().any(|(_, document)| number(document) == 13) {
            let body = r#"{"error": {"type": "action_request_validation_exception", "reason": "no"}, "status": 400}"#;
            return Behaviour::Answer(answer(400, &[], body));
        }
        bulk_answer(&request.body, |_| 201)
    })
    .await;
    let waypost = Waypost::start(&scripted(&cluster)).await;
    accept_many(&waypost, "t", 0..40).await;
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (39, 1), "{row}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_page_that_is_no_answer_of_a_cluster_is_no_success() {
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let cluster = Subscriber::new(move |request| match opened.load(Ordering::Relaxed) {
        true if request.body.is_empty() => empty(),
        true => bulk_answer(&request.body, |_| 201),
        false => Behaviour::Answer(answer(200, &[("content-type", "text/html")], "<html>log in</html>")),
    })
    .await;
    let waypost = Setup::new(&scripted(&cluster)).allow("E0422").start().await;
    not_ready(&waypost, "Sink", "out", "E0422").await;
    accept_many(&waypost, "t", 0..3).await;
    not_ready(&waypost, "Trigger", "all", "E0422").await;
    open.store(true, Ordering::Relaxed);
    delivered(&waypost, "all", 3).await;
    ready(&waypost, "Sink", "out").await;
    assert_eq!(count(&waypost.trigger("all").await, "deadLettered"), 0);
    waypost.stop().await;
}
