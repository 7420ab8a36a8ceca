//! The NATS source and sink against a real NATS, read and written by NATS' own client.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::client::{batch, event};
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::servers::nats::{Message, Nats, message};
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
        "spec": {"nats": settings, "sink": sink},
    })
}

fn sink(settings: &Value) -> Value {
    json!({
        "apiVersion": "waypost.dev/v1alpha1",
        "kind": "Sink",
        "metadata": {"name": "out"},
        "spec": {"nats": settings},
    })
}

fn reading(nats: &Nats, subscriber: &Subscriber) -> String {
    let settings = json!({"servers": [nats.url()], "jetStream": {"stream": "ORDERS"}});
    default_broker(&[trigger("all", &subscriber.url("/"), json!({})), source(&settings)])
}

fn writing(settings: &Value) -> String {
    default_broker(&[trigger_to("all", sink_ref("out"), json!({})), sink(settings)])
}

/// Numbered plain messages.
fn numbered(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Value> {
    numbers.map(|number| message("orders.new", number.to_string().as_bytes(), &[]))
}

fn ids(received: &[Received]) -> HashSet<String> {
    received.iter().map(Received::id).collect()
}

async fn distinct(subscriber: &Subscriber, wanted: usize) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while ids(&subscriber.received()).len() < wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "{} of {wanted} came", ids(&subscriber.received()).len());
}

async fn ready(waypost: &Waypost, kind: &str, name: &str) {
    eventually("the resource to be ready", async || {
        (waypost.resource(kind, name).await["ready"] == true).then_some(())
    })
    .await;
}

/// Waits until a resource is not ready, with this code, which may take ten seconds.
async fn not_ready(waypost: &Waypost, kind: &str, name: &str, code: &str) -> String {
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
    message
}

async fn acknowledged(nats: &Nats, wanted: u64) -> Value {
    eventually("everything to be acknowledged", async || {
        let state = nats.state("ORDERS", "waypost-default-in").await;
        (state["acknowledged"] == wanted && state["last"] == wanted).then_some(state)
    })
    .await
}

#[tokio::test]
async fn events_plain_messages_and_poison_all_arrive_and_are_acknowledged() {
    let Some(nats) = Nats::start().await else { return };
    nats.stream("ORDERS", &["orders.>"]).await;
    let structured =
        br#"{"specversion": "1.0", "id": "structured", "source": "/s", "type": "t", "data": {"a": 1}}"#;
    let alone = br#"{"specversion": "1.0", "id": "alone", "source": "/s", "type": "t", "data": {"a": 2}}"#;
    let binary =
        |id: &'static str| [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/s"), ("ce-type", "t")];
    nats.send([
        message(
            "orders.new",
            b"data",
            &[&binary("binary")[..], &[("ce-datacontenttype", "text/plain"), ("CE-Subject", "%C3%A4")]]
                .concat(),
        ),
        // As sdk-go writes it for JetStream.
        message(
            "orders.new",
            b"data",
            &[&binary("go")[..], &[("content-type", "text/plain"), ("ce-subject", "50%25")]].concat(),
        ),
        message("orders.new", structured, &[("Content-Type", "application/cloudevents+json")]),
        message("orders.new", alone, &[]),
        message("orders.eu.new", b"plain", &[("X-Trace", "7")]),
        message("orders.new", b"", &[]),
        // A poison message: it claims to be an event, and is none.
        message("orders.new", b"{", &[("Content-Type", "application/cloudevents+json")]),
    ])
    .await;
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&reading(&nats, &subscriber)).await;
    let received = subscriber.wait_for(7).await;
    let by = |wanted: &dyn Fn(&Received) -> bool| {
        received.iter().find(|one| wanted(one)).cloned().unwrap_or_else(|| panic!("{received:#?}"))
    };
    let binary = by(&|one| one.id() == "binary");
    assert_eq!((binary.header("ce-subject"), binary.header("content-type")), ("%C3%A4", "text/plain"));
    let go = by(&|one| one.id() == "go");
    assert_eq!((go.header("ce-subject"), go.header("content-type")), ("50%2525", "text/plain"));
    assert_eq!(by(&|one| one.id() == "structured").json(), json!({"a": 1}));
    assert_eq!(by(&|one| one.id() == "alone").json(), json!({"a": 2}));
    let plain = by(&|one| one.body == "plain");
    assert_eq!((plain.id().as_str(), plain.header("ce-type")), ("ORDERS/5", "dev.waypost.nats.message"));
    assert_eq!((plain.header("ce-natssubject"), plain.header("ce-natsheaderxtrace")), ("orders.eu.new", "7"));
    assert_eq!(by(&|one| one.id() == "ORDERS/6").body, "");
    assert_eq!(by(&|one| one.body == "{").header("ce-natsfault"), "E0615");
    ready(&waypost, "Source", "in").await;
    acknowledged(&nats, 7).await;
    // A clean end acknowledges what was read, so that nothing comes twice.
    let waypost = waypost.restart(|setup| setup).await;
    nats.send([message("orders.new", b"last", &[])]).await;
    let received = subscriber.wait_for(8).await;
    assert_eq!((received.len(), &received[7].body[..]), (8, &b"last"[..]));
    waypost.stop().await;
}

#[tokio::test]
async fn ten_thousand_messages_all_arrive_though_waypost_is_killed_and_nats_goes_away() {
    let Some(mut nats) = Nats::start().await else { return };
    nats.stream("ORDERS", &["orders.>"]).await;
    nats.send(numbered(0..10_000)).await;
    let subscriber = Subscriber::accepting().await;
    let waypost = Setup::new(&reading(&nats, &subscriber)).allow("the source is not ready").start().await;
    distinct(&subscriber, 2_000).await;
    let waypost = waypost.kill(|setup| setup).await;
    distinct(&subscriber, 10_000).await;
    acknowledged(&nats, 10_000).await;
    nats.kill().await;
    not_ready(&waypost, "Source", "in", "E0302").await;
    outage(Duration::from_secs(3)).await;
    nats.start_again().await;
    nats.send(numbered(10_000..10_100)).await;
    distinct(&subscriber, 10_100).await;
    ready(&waypost, "Source", "in").await;
    acknowledged(&nats, 10_100).await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_full_holds_the_source_up_and_no_message_comes_twice() {
    let Some(nats) = Nats::start().await else { return };
    nats.stream("ORDERS", &["orders.>"]).await;
    // Less time than the broker is full: the server is told that work goes on.
    nats.done(&["consumer", "ORDERS", "waypost-default-in", "4s"], "").await;
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let subscriber =
        Subscriber::new(move |_| if opened.load(Ordering::Relaxed) { 200 } else { 503 }.into()).await;
    let delivery = json!({"delivery": {
        "retry": 1000, "backoffPolicy": "constant", "backoffDelay": "PT0.5S", "maxBacklog": {"size": "16KiB"},
    }});
    let settings = json!({"servers": [nats.url()], "jetStream": {"stream": "ORDERS"}});
    let all = native_trigger("all", &subscriber.url("/"), delivery);
    let waypost = Setup::new(&default_broker(&[all, source(&settings)])).start().await;
    ready(&waypost, "Source", "in").await;
    nats.send(numbered(0..200)).await;
    eventually("the backlog to be full", async || {
        (count(&waypost.trigger("all").await, "matched") == 200).then_some(())
    })
    .await;
    // It is looked at once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    nats.send(numbered(200..1_000)).await;
    not_ready(&waypost, "Source", "in", "E0510").await;
    outage(Duration::from_secs(9)).await;
    let state = nats.state("ORDERS", "waypost-default-in").await;
    assert!(state["acknowledged"].as_u64().unwrap() < 1_000, "{state}");
    open.store(true, Ordering::Relaxed);
    eventually("all to be delivered", async || {
        (count(&waypost.trigger("all").await, "delivered") == 1_000).then_some(())
    })
    .await;
    ready(&waypost, "Source", "in").await;
    let state = acknowledged(&nats, 1_000).await;
    assert_eq!(state["deliveries"], 1_000, "{state}");
    waypost.stop().await;
}

#[tokio::test]
async fn subjects_are_listened_to_in_a_group_and_again_after_nats_was_away() {
    let Some(mut nats) = Nats::start().await else { return };
    let (one, two) = (Subscriber::accepting().await, Subscriber::accepting().await);
    let settings = json!({"servers": [nats.url()], "subjects": ["orders.*", "bills.>"], "queueGroup": "g"});
    let start = async |subscriber: &Subscriber| {
        let manifests = [trigger("all", &subscriber.url("/"), json!({})), source(&settings)];
        let waypost = Setup::new(&default_broker(&manifests)).allow("the source is not ready").start().await;
        ready(&waypost, "Source", "in").await;
        waypost
    };
    let (first, second) = (start(&one).await, start(&two).await);
    nats.publish(numbered(0..200)).await;
    nats.publish([message("bills.eu.new", b"bill", &[("Nats-Msg-Id", "bill-1")])]).await;
    nats.publish([message("other", b"x", &[])]).await;
    eventually("each message to have come to one of the two", async || {
        let all: Vec<_> = one.received().into_iter().chain(two.received()).collect();
        (all.len() == 201).then_some(())
    })
    .await;
    assert!(!one.received().is_empty() && !two.received().is_empty());
    let all = [one.received(), two.received()].concat();
    let bill = all.iter().find(|one| one.body == "bill").unwrap();
    assert_eq!((bill.id().as_str(), bill.header("ce-natssubject")), ("bill-1", "bills.eu.new"));
    assert_eq!(ids(&all).len(), 201);
    second.stop().await;
    nats.kill().await;
    not_ready(&first, "Source", "in", "E0302").await;
    nats.start_again().await;
    ready(&first, "Source", "in").await;
    nats.publish([message("orders.again", b"again", &[])]).await;
    eventually("the message to come", async || {
        one.received().iter().find(|one| one.body == "again").map(drop)
    })
    .await;
    first.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_told_and_found_once_it_is() {
    let Some(nats) = Nats::start().await else { return };
    let subscriber = Subscriber::accepting().await;
    let out = json!({"servers": [nats.url()], "subject": "results"});
    let manifests =
        [reading(&nats, &subscriber), file(&[trigger_to("write", sink_ref("out"), json!({})), sink(&out)])];
    let setup = Setup::new(&manifests[0]).file("more.yaml", &manifests[1]);
    let waypost = setup.allow("E0304").allow("E0424").start().await;
    assert!(not_ready(&waypost, "Source", "in", "E0304").await.contains("ORDERS"));
    assert!(not_ready(&waypost, "Sink", "out", "E0424").await.contains("results"));
    waypost.accept(event(INGRESS, "held", "t", &[], "x")).await;
    eventually("the trigger to pause", async || {
        (waypost.resource("Trigger", "write").await["ready"] == false).then_some(())
    })
    .await;
    nats.stream("ORDERS", &["orders.>"]).await;
    nats.stream("RESULTS", &["results"]).await;
    nats.send(numbered(0..1)).await;
    distinct(&subscriber, 2).await;
    eventually("both events to be written", async || {
        (count(&waypost.trigger("write").await, "delivered") == 2).then_some(())
    })
    .await;
    let row = waypost.trigger("write").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (2, 0), "{row}");
    assert_eq!(nats.read("RESULTS").await.len(), 2);
    ready(&waypost, "Source", "in").await;
    ready(&waypost, "Sink", "out").await;
    waypost.stop().await;
}

#[tokio::test]
async fn credentials_that_are_wrong_are_told_and_a_renewed_file_is_found_over_tls() {
    let configuration = "authorization { user: alice, password: alice-secret }\n\
                         tls { cert_file: \"$FOLDER/server.pem\", key_file: \"$FOLDER/server.key\" }";
    let Some(nats) = Nats::start_with(configuration).await else { return };
    let subscriber = Subscriber::accepting().await;
    let setup = Setup::empty();
    let password = setup.directory().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let secured = |more: Value| {
        let mut settings = json!({
            "servers": [nats.url()],
            "auth": {"user": {"username": {"value": "alice"}, "password": {"file": password}}},
            "tls": {"ca": {"value": nats.certificate()}},
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let manifests = default_broker(&[
        trigger(
            "all",
            &subscriber.url("/"),
            json!({"filter": {"attributes": {"type": "dev.waypost.nats.message"}}}),
        ),
        trigger_to("write", sink_ref("out"), json!({"filter": {"attributes": {"type": "t"}}})),
        source(&secured(json!({"subjects": ["results"]}))),
        sink(&secured(json!({"subject": "results", "delivery": "core", "format": "data"}))),
    ]);
    let setup = setup.file("manifests.yaml", &manifests).allow("E0303").allow("E0423");
    let waypost = setup.start().await;
    not_ready(&waypost, "Source", "in", "E0303").await;
    not_ready(&waypost, "Sink", "out", "E0423").await;
    let log: String = waypost.log().iter().map(Value::to_string).collect();
    assert!(!log.contains("alice-secret") && !log.contains("wrong"), "a secret in the log");
    std::fs::write(&password, "alice-secret\n").unwrap();
    ready(&waypost, "Source", "in").await;
    ready(&waypost, "Sink", "out").await;
    waypost.accept(event(INGRESS, "1", "t", &[("content-type", "text/plain")], "x")).await;
    let received = subscriber.wait_for(1).await;
    assert_eq!((received[0].header("ce-natssubject"), &received[0].body[..]), ("results", &b"x"[..]));
    waypost.stop().await;
    // Without its authority the certificate is not believed.
    let untrusted = json!({
        "servers": [nats.url()], "subject": "results", "tls": {},
        "auth": {"token": {"value": "alice"}},
    });
    let waypost = Setup::new(&writing(&untrusted)).allow("E0423").start().await;
    not_ready(&waypost, "Sink", "out", "E0423").await;
    waypost.stop().await;
}

#[tokio::test]
async fn keys_and_credentials_files_are_proved_and_rights_are_told() {
    let Some(maker) = Nats::start().await else { return };
    let line = maker.done(&["nkey"], "").await;
    let (seed, public) = line.trim().split_once(' ').unwrap();
    maker.done(&["operator", &maker.folder().display().to_string()], "").await;
    let operator = std::fs::read_to_string(maker.folder().join("operator.conf")).unwrap();
    let credentials = std::fs::read_to_string(maker.folder().join("user.creds")).unwrap();
    let with_key = format!(
        "authorization {{ users: [\
         {{ nkey: {public}, permissions: {{ publish: {{ deny: [\"secret.>\"] }}, subscribe: {{ deny: [\"secret.>\"] }} }} }},\
         {{ user: reader, password: reader }} ] }}"
    );
    let nats = Nats::start_with(&with_key).await.unwrap();
    let core = |auth: Value, nats: &Nats, more: Value| {
        let mut settings = json!({"servers": [nats.url()], "auth": auth});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let out =
        core(json!({"nkey": {"value": seed}}), &nats, json!({"subject": "${type}", "delivery": "core"}));
    let secret = core(json!({"nkey": {"value": seed}}), &nats, json!({"subjects": ["secret.things"]}));
    let manifests =
        default_broker(&[trigger_to("all", sink_ref("out"), json!({})), sink(&out), source(&secret)]);
    let waypost = Setup::new(&manifests).allow("E0303").start().await;
    assert!(not_ready(&waypost, "Source", "in", "E0303").await.contains("secret.things"));
    ready(&waypost, "Sink", "out").await;
    // Rights to a subject that the event made are a matter of that event.
    let two = json!([
        {"specversion": "1.0", "id": "1", "source": "/s", "type": "secret.a"},
        {"specversion": "1.0", "id": "2", "source": "/s", "type": "open.a"},
    ]);
    waypost.accept(batch(INGRESS, two.to_string())).await;
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (1, 1), "{row}");
    waypost.stop().await;

    let nats = Nats::start_with(&operator).await.unwrap();
    let auth = json!({"credentials": {"value": credentials}});
    let subscriber = Subscriber::accepting().await;
    let manifests = default_broker(&[
        trigger(
            "all",
            &subscriber.url("/"),
            json!({"filter": {"attributes": {"type": "dev.waypost.nats.message"}}}),
        ),
        trigger_to("write", sink_ref("out"), json!({"filter": {"attributes": {"type": "t"}}})),
        source(&core(auth.clone(), &nats, json!({"subjects": ["results"]}))),
        sink(&core(auth, &nats, json!({"subject": "results", "delivery": "core", "format": "data"}))),
    ]);
    let waypost = Waypost::start(&manifests).await;
    ready(&waypost, "Source", "in").await;
    waypost.accept(event(INGRESS, "1", "t", &[("content-type", "text/plain")], "x")).await;
    let received = subscriber.wait_for(1).await;
    assert_eq!((&received[0].body[..], received[0].header("content-type")), (&b"x"[..], "text/plain"));
    waypost.stop().await;
}

fn numbers(messages: &[Message]) -> HashSet<String> {
    messages.iter().filter_map(|message| message.header("ce-id").map(str::to_owned)).collect()
}

/// Sends events with the ids of these numbers, in requests of many.
async fn accept_many(waypost: &Waypost, numbers: std::ops::Range<usize>) {
    for start in numbers.clone().step_by(500) {
        let events: Vec<_> = (start..(start + 500).min(numbers.end))
            .map(|number| {
                json!({
                    "specversion": "1.0", "id": number.to_string(), "source": "/s", "type": "t",
                    "data": {"number": number},
                })
            })
            .collect();
        waypost.accept(batch(INGRESS, Value::from(events).to_string())).await;
    }
}

#[tokio::test]
async fn ten_thousand_events_are_all_written_once_though_nats_goes_away_and_waypost_is_killed() {
    let Some(mut nats) = Nats::start().await else { return };
    nats.stream("RESULTS", &["results"]).await;
    let settings = json!({"servers": [nats.url()], "subject": "results"});
    let waypost = Setup::new(&writing(&settings)).allow("E0420").start().await;
    accept_many(&waypost, 0..2_000).await;
    nats.kill().await;
    accept_many(&waypost, 2_000..10_000).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let waypost = waypost.kill(|setup| setup).await;
    outage(Duration::from_secs(3)).await;
    nats.start_again().await;
    let written = tokio::time::timeout(Duration::from_secs(60), async {
        while count(&waypost.trigger("all").await, "delivered") < 10_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(written.await.is_ok(), "not all events were written: {}", waypost.trigger("all").await);
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (10_000, 0), "{row}");
    // The stream knows what it has already.
    let messages = nats.read("RESULTS").await;
    assert_eq!((messages.len(), numbers(&messages).len()), (10_000, 10_000));
    assert_eq!(messages[0].header("ce-datacontenttype"), Some("application/json"));
    waypost.stop().await;
}

#[tokio::test]
async fn what_no_stream_takes_is_a_dead_letter_of_that_event_alone() {
    let Some(nats) = Nats::start_with("max_payload: 4096").await else { return };
    nats.stream("RESULTS", &["results.>"]).await;
    let settings = json!({"servers": [nats.url()], "subject": "${type}", "format": "structured"});
    let waypost = Waypost::start(&writing(&settings)).await;
    let events: Vec<_> = [
        ("1", "results.a", "x".to_owned()),
        ("2", "elsewhere", "x".to_owned()),
        ("3", "results.a", "x".repeat(5_000)),
        ("4", "no subject", "x".to_owned()),
        ("5", "results.b", "x".to_owned()),
    ]
    .into_iter()
    .map(|(id, kind, data)| json!({"specversion": "1.0", "id": id, "source": "/s", "type": kind, "data": data}))
    .collect();
    waypost.accept(batch(INGRESS, Value::from(events).to_string())).await;
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (2, 3), "{row}");
    let messages = nats.read("RESULTS").await;
    let subjects: Vec<_> = messages.iter().map(|message| message.subject.as_str()).collect();
    assert_eq!(subjects, ["results.a", "results.b"]);
    let written: Value = serde_json::from_slice(&messages[1].data).unwrap();
    assert_eq!((&written["id"], &written["data"]), (&json!("5"), &json!("x")));
    assert_eq!(messages[1].header("Nats-Msg-Id"), Some("/s 5"));
    assert_eq!(waypost.resource("Sink", "out").await["ready"], true);
    // By core NATS an event is delivered when the server has it.
    let settings = json!({"servers": [nats.url()], "subject": "live", "delivery": "core"});
    waypost.write("manifests.yaml", &writing(&settings)).await;
    ready(&waypost, "Sink", "out").await;
    let mut listener = nats.listen("live", 1).await;
    waypost.accept(event(INGRESS, "6", "t", &[("content-type", "text/plain")], "x")).await;
    let heard = listener.join_next().await.unwrap().unwrap();
    assert_eq!((heard[0].header("ce-id"), &heard[0].data[..]), (Some("6"), &b"x"[..]));
    waypost.stop().await;
}
