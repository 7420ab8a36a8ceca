//! The sources of Google Cloud against Google's own Pub/Sub fake and a Cloud Storage stand-in, written by Google's own
//! client and by plain HTTP.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::servers::google::{CloudStorage, PROJECT, PubSub, message};
use waypost_tests::subscriber::{Received, Subscriber};
use waypost_tests::{eventually, outage};

use crate::manifests::{default_broker, native_trigger, trigger};

#[allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of the argument")]
fn source(name: &str, settings: Value) -> Value {
    let sink = json!({"ref": {"apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "name": "default"}});
    let mut spec = json!({"sink": sink});
    spec.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    json!({
        "apiVersion": "waypost.dev/v1alpha1",
        "kind": "Source",
        "metadata": {"name": name},
        "spec": spec,
    })
}

fn subscription(name: &str) -> String {
    format!("projects/{PROJECT}/subscriptions/{name}")
}

fn orders(pub_sub: &PubSub) -> Value {
    let settings = json!({"endpoint": pub_sub.endpoint(), "subscription": subscription("orders")});
    source("in", json!({"googlePubSub": settings}))
}

fn reading(pub_sub: &PubSub, subscriber: &Subscriber) -> String {
    default_broker(&[trigger("all", &subscriber.url("/"), json!({})), orders(pub_sub)])
}

/// Numbered plain messages.
fn numbered(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Value> {
    numbers.map(|number| message(number.to_string().as_bytes(), &[], ""))
}

fn bodies(received: &[Received]) -> HashSet<Vec<u8>> {
    received.iter().map(|one| one.body.to_vec()).collect()
}

async fn distinct(subscriber: &Subscriber, wanted: usize) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while bodies(&subscriber.received()).len() < wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "{} of {wanted} came", bodies(&subscriber.received()).len());
}

async fn ready(waypost: &Waypost, name: &str) {
    eventually("the source to be ready", async || {
        (waypost.resource("Source", name).await["ready"] == true).then_some(())
    })
    .await;
}

/// Waits until the source is not ready, with this code, which may take ten seconds.
async fn not_ready(waypost: &Waypost, code: &str) {
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let row = waypost.resource("Source", "in").await;
            if row["ready"] == false && row["reason"] == code {
                return row["message"].as_str().unwrap_or_default().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let Ok(message) = told.await else {
        panic!("not told within ten seconds: {}", waypost.resource("Source", "in").await)
    };
    assert!(message.len() > 20, "a sentence: {message}");
}

async fn acknowledged(pub_sub: &PubSub, wanted: u64) -> Value {
    eventually("everything to be acknowledged", async || {
        let state = pub_sub.state().await;
        (state["acknowledged"] == wanted && state["messages"] == wanted).then_some(state)
    })
    .await
}

async fn started() -> Option<PubSub> {
    let pub_sub = PubSub::start().await?;
    pub_sub.topic("orders").await;
    pub_sub.subscription("orders", "orders").await;
    Some(pub_sub)
}

#[tokio::test]
async fn events_plain_messages_ordering_keys_and_poison_all_arrive_and_are_acknowledged() {
    let Some(pub_sub) = started().await else { return };
    let required = [("ce-specversion", "1.0"), ("ce-id", "binary"), ("ce-source", "/s"), ("ce-type", "t")];
    let structured =
        br#"{"specversion": "1.0", "id": "structured", "source": "/s", "type": "t", "data": {"a": 1}}"#;
    let content_type = [("Content-Type", "application/cloudevents+json")];
    let mut messages = vec![
        message(b"data", &[&required[..], &[("Content-Type", "text/plain")]].concat(), "k"),
        message(structured, &content_type, ""),
        message(b"plain", &[("X-Trace", "7")], "key"),
        message(b"", &[("only", "attributes")], ""),
        // A poison message: it claims to be an event, and is none.
        message(b"{", &content_type, ""),
    ];
    messages.extend((0..20).map(|number| message(number.to_string().as_bytes(), &[], "ordered")));
    pub_sub.publish("orders", messages).await;
    let subscriber = Subscriber::accepting().await;
    let delivery = json!({"delivery": {"ordering": "key"}});
    let all = native_trigger("all", &subscriber.url("/"), delivery);
    let waypost = Waypost::start(&default_broker(&[all, orders(&pub_sub)])).await;
    let received = subscriber.wait_for(25).await;
    let by = |wanted: &dyn Fn(&Received) -> bool| {
        received.iter().find(|one| wanted(one)).cloned().unwrap_or_else(|| panic!("{received:#?}"))
    };
    let binary = by(&|one| one.id() == "binary");
    assert_eq!((&binary.body[..], binary.header("ce-partitionkey")), (&b"data"[..], "k"));
    assert_eq!(binary.header("content-type"), "text/plain");
    assert_eq!(by(&|one| one.id() == "structured").json(), json!({"a": 1}));
    let plain = by(&|one| one.body == "plain");
    assert_eq!(plain.header("ce-type"), "dev.waypost.googlepubsub.message");
    assert_eq!((plain.header("ce-partitionkey"), plain.header("ce-pubsubmsgxtrace")), ("key", "7"));
    assert!(!plain.id().is_empty() && !plain.header("ce-time").is_empty());
    assert_eq!(by(&|one| one.header("ce-pubsubmsgonly") == "attributes").body, "");
    assert_eq!(by(&|one| one.body == "{").header("ce-pubsubfault"), "E0615");
    let ordered: Vec<_> = received
        .iter()
        .filter(|one| one.header("ce-partitionkey") == "ordered")
        .map(|one| String::from_utf8_lossy(&one.body).into_owned())
        .collect();
    assert_eq!(ordered, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    ready(&waypost, "in").await;
    acknowledged(&pub_sub, 25).await;
    // A clean end acknowledges what was read, so that nothing comes twice.
    let waypost = waypost.restart(|setup| setup).await;
    pub_sub.publish("orders", [message(b"last", &[], "")]).await;
    let received = subscriber.wait_for(26).await;
    assert_eq!((received.len(), &received[25].body[..]), (26, &b"last"[..]));
    waypost.stop().await;
}

#[tokio::test]
async fn ten_thousand_messages_all_arrive_though_waypost_is_killed_and_pub_sub_goes_away() {
    let Some(mut pub_sub) = started().await else { return };
    pub_sub.publish("orders", numbered(0..10_000)).await;
    let subscriber = Subscriber::accepting().await;
    let setup = Setup::new(&reading(&pub_sub, &subscriber));
    let waypost = setup.allow("the source is not ready").allow("E0304").start().await;
    distinct(&subscriber, 2_000).await;
    let waypost = waypost.kill(|setup| setup).await;
    distinct(&subscriber, 10_000).await;
    acknowledged(&pub_sub, 10_000).await;
    // The stand-in keeps nothing: the subscription has to be made again.
    pub_sub.kill().await;
    not_ready(&waypost, "E0302").await;
    outage(Duration::ZERO).await;
    pub_sub.start_again().await;
    not_ready(&waypost, "E0304").await;
    pub_sub.topic("orders").await;
    pub_sub.subscription("orders", "orders").await;
    pub_sub.publish("orders", numbered(10_000..10_100)).await;
    distinct(&subscriber, 10_100).await;
    ready(&waypost, "in").await;
    acknowledged(&pub_sub, 100).await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_full_holds_the_source_up_and_no_message_comes_twice() {
    hold_up("googlePubSub").await;
}

#[tokio::test]
async fn a_broker_that_is_full_holds_up_the_source_of_objects_too() {
    hold_up("googleCloudStorage").await;
}

async fn hold_up(kind: &str) {
    let Some(pub_sub) = started().await else { return };
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let subscriber =
        Subscriber::new(move |_| if opened.load(Ordering::Relaxed) { 200 } else { 503 }.into()).await;
    let delivery = json!({"delivery": {
        "retry": 1000, "backoffPolicy": "constant", "backoffDelay": "PT0.5S", "maxBacklog": {"size": "16KiB"},
    }});
    let all = native_trigger("all", &subscriber.url("/"), delivery);
    let settings = json!({"endpoint": pub_sub.endpoint(), "subscription": subscription("orders")});
    let source = source("in", json!({kind: settings}));
    let waypost = Waypost::start(&default_broker(&[all, source])).await;
    ready(&waypost, "in").await;
    pub_sub.publish("orders", numbered(0..200)).await;
    eventually("the backlog to be full", async || {
        (count(&waypost.trigger("all").await, "matched") == 200).then_some(())
    })
    .await;
    // It is looked at once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    pub_sub.publish("orders", numbered(200..2_000)).await;
    not_ready(&waypost, "E0510").await;
    // Longer than the deadline of the subscription and what it is extended by at first.
    outage(Duration::from_secs(17)).await;
    assert!(pub_sub.state().await["acknowledged"].as_u64().unwrap() < 2_000);
    open.store(true, Ordering::Relaxed);
    eventually("all to be delivered", async || {
        (count(&waypost.trigger("all").await, "delivered") == 2_000).then_some(())
    })
    .await;
    ready(&waypost, "in").await;
    let state = acknowledged(&pub_sub, 2_000).await;
    assert_eq!(state["deliveries"], 2_000, "{state}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_not_there_is_told_or_made_and_who_is_refused_is_told() {
    let Some(pub_sub) = PubSub::start().await else { return };
    let subscriber = Subscriber::accepting().await;
    pub_sub.deny(true).await;
    let setup = Setup::new(&reading(&pub_sub, &subscriber)).allow("E0303").allow("E0304");
    let waypost = setup.start().await;
    not_ready(&waypost, "E0303").await;
    pub_sub.deny(false).await;
    not_ready(&waypost, "E0304").await;
    pub_sub.topic("orders").await;
    // With its topic the subscription is made.
    let settings = json!({
        "endpoint": pub_sub.endpoint(), "subscription": subscription("made"),
        "topic": format!("projects/{PROJECT}/topics/orders"), "payload": "message", "eventType": "wrapped",
        "eventSource": "projects/waypost/topics/orders",
    });
    let made = source("in", json!({"googlePubSub": settings}));
    let manifests = default_broker(&[trigger("all", &subscriber.url("/"), json!({})), made]);
    waypost.write("manifests.yaml", &manifests).await;
    ready(&waypost, "in").await;
    pub_sub.publish("orders", [message(b"x", &[("a", "b")], "k")]).await;
    let received = subscriber.wait_for(1).await;
    let (one, json) = (&received[0], received[0].json());
    assert_eq!(
        (one.header("ce-type"), one.header("ce-source")),
        ("wrapped", "projects/waypost/topics/orders")
    );
    assert_eq!((&json["Data"], &json["OrderingKey"]), (&json!("eA=="), &json!("k")));
    assert_eq!((&json["ID"], &json["Attributes"]), (&json!(one.id()), &json!({"a": "b"})));
    assert_eq!(one.header("ce-pubsubmsga"), "b");
    waypost.stop().await;
}

/// Numbered notifications of new objects.
fn uploaded(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Value> {
    numbers.map(|number| {
        let object = format!("reports/{number}");
        let attributes = [
            ("eventType", "OBJECT_FINALIZE"),
            ("bucketId", "photos"),
            ("objectId", object.as_str()),
            ("objectGeneration", "1700000000000001"),
            ("payloadFormat", "JSON_API_V1"),
        ];
        message(json!({"name": object, "bucket": "photos"}).to_string().as_bytes(), &attributes, "")
    })
}

#[tokio::test]
async fn ten_thousand_notifications_all_arrive_though_waypost_is_killed_and_pub_sub_goes_away() {
    let Some(mut pub_sub) = started().await else { return };
    pub_sub.publish("orders", uploaded(0..10_000)).await;
    let subscriber = Subscriber::accepting().await;
    let settings = json!({
        "endpoint": pub_sub.endpoint(), "subscription": subscription("orders"),
        "topic": format!("projects/{PROJECT}/topics/orders"),
    });
    let manifests = default_broker(&[
        trigger("all", &subscriber.url("/"), json!({})),
        source("in", json!({"googleCloudStorage": settings})),
    ]);
    let setup = Setup::new(&manifests).allow("the source is not ready").allow("E0303").allow("E0304");
    let waypost = setup.start().await;
    distinct(&subscriber, 2_000).await;
    let waypost = waypost.kill(|setup| setup).await;
    distinct(&subscriber, 10_000).await;
    acknowledged(&pub_sub, 10_000).await;
    let ids: HashSet<_> = subscriber.received().iter().map(Received::id).collect();
    assert_eq!(ids.len(), 10_000);
    assert!(ids.contains("photos/reports/9999/1700000000000001/OBJECT_FINALIZE"));
    // What Pub/Sub told twice, since the kill came before the acknowledgement, is delivered twice.
    eventually("all to be delivered", async || {
        (count(&waypost.trigger("all").await, "pending") == 0).then_some(())
    })
    .await;
    // A clean end acknowledges what was read, so that nothing comes twice.
    let before = subscriber.received().len();
    let waypost = waypost.restart(|setup| setup).await;
    pub_sub.publish("orders", uploaded(10_000..10_001)).await;
    distinct(&subscriber, 10_001).await;
    assert_eq!(subscriber.received().len(), before + 1);
    // The stand-in keeps nothing: the subscription is made again once its topic is there.
    pub_sub.kill().await;
    not_ready(&waypost, "E0302").await;
    outage(Duration::ZERO).await;
    pub_sub.start_again().await;
    not_ready(&waypost, "E0304").await;
    pub_sub.deny(true).await;
    not_ready(&waypost, "E0303").await;
    pub_sub.deny(false).await;
    pub_sub.topic("orders").await;
    ready(&waypost, "in").await;
    pub_sub.publish("orders", uploaded(10_001..10_101)).await;
    distinct(&subscriber, 10_101).await;
    acknowledged(&pub_sub, 100).await;
    waypost.stop().await;
}

#[tokio::test]
async fn what_happens_to_objects_is_told_by_kind_with_an_id_of_its_own() {
    let Some(pub_sub) = PubSub::start().await else { return };
    pub_sub.topic("objects").await;
    pub_sub.subscription("objects", "objects").await;
    pub_sub.subscription("new", "objects").await;
    let Some(storage) = CloudStorage::start(&pub_sub, "objects").await else { return };
    let subscriber = Subscriber::accepting().await;
    let settings = |name: &str, more: Value| {
        let mut settings = json!({"endpoint": pub_sub.endpoint(), "subscription": subscription(name)});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        source(name, json!({"googleCloudStorage": settings}))
    };
    let chosen = json!({"bucket": "photos", "eventTypes": ["OBJECT_FINALIZE"], "objectNamePrefix": "new/"});
    let second = Subscriber::accepting().await;
    let mut new = settings("new", chosen);
    new["spec"]["sink"]["ref"]["name"] = json!("second");
    let broker =
        json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "second"}});
    let mut to_second = trigger("new", &second.url("/"), json!({}));
    to_second["spec"]["broker"] = json!("second");
    let manifests = default_broker(&[
        trigger("all", &subscriber.url("/"), json!({})),
        settings("objects", json!({})),
        broker,
        to_second,
        new,
    ]);
    let waypost = Waypost::start(&manifests).await;
    storage.request("POST", &format!("/storage/v1/b?project={PROJECT}"), r#"{"name": "photos"}"#).await;
    let upload = |name: &'static str, body: &'static str| {
        let path = format!("/upload/storage/v1/b/photos/o?uploadType=media&name={name}");
        let storage = &storage;
        async move { storage.request("POST", &path, body).await }
    };
    upload("new%2Fcat.txt", "meow").await;
    upload("new%2Fcat.txt", "purr").await;
    upload("old.txt", "x").await;
    storage.request("DELETE", "/storage/v1/b/photos/o/old.txt", "").await;
    // Two are new, an overwrite is a new one and the end of another, and one is deleted.
    let received = subscriber.wait_for(5).await;
    let kinds = |wanted: &str| received.iter().filter(|one| one.header("ce-type").ends_with(wanted)).count();
    assert_eq!((kinds(".objectfinalize"), kinds(".objectdelete")), (3, 2), "{received:#?}");
    let ids: HashSet<_> = received.iter().map(Received::id).collect();
    assert_eq!(ids.len(), 5, "{ids:?}");
    let cat = received
        .iter()
        .find(|one| one.header("ce-subject") == "new/cat.txt" && one.header("ce-type").ends_with("finalize"))
        .unwrap();
    let generation = cat.header("ce-gcsobjectgeneration");
    assert_eq!(cat.id(), format!("photos/new/cat.txt/{generation}/OBJECT_FINALIZE"));
    assert_eq!((cat.header("ce-source"), cat.header("content-type")), ("gs://photos", "application/json"));
    assert_eq!((&cat.json()["name"], &cat.json()["bucket"]), (&json!("new/cat.txt"), &json!("photos")));
    assert_eq!(second.wait_for(2).await.len(), 2);
    // What is left out is acknowledged too: five messages for each of the two subscriptions.
    acknowledged(&pub_sub, 5).await;
    pub_sub.publish("objects", [message(b"no notification", &[], "")]).await;
    let received = subscriber.wait_for(6).await;
    assert_eq!(
        (&received[5].body[..], received[5].header("ce-gcsfault")),
        (&b"no notification"[..], "E0601")
    );
    assert_eq!(received[5].header("ce-type"), "com.google.cloud.storage.notification");
    assert!(second.received().iter().all(|one| one.header("ce-subject") != "old.txt"));
    waypost.stop().await;
}
