//! `waypost check --connect` against real systems: it says of each whether it would do, and changes nothing there. That of
//! Kafka is with the tests of Kafka.
#![allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of each argument")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waypost_tests::binary::run;
use waypost_tests::servers::elasticmq::ElasticMq;
use waypost_tests::servers::google::{PROJECT, PubSub, message};
use waypost_tests::servers::nats::{self, Nats};
use waypost_tests::servers::s3s::{KEY, KEY_ID, S3s};
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};

use crate::manifests::{default_broker, sink};

fn source(name: &str, mut spec: Value) -> Value {
    spec["sink"] =
        json!({"ref": {"apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "name": "default"}});
    json!({
        "apiVersion": "waypost.dev/v1alpha1", "kind": "Source", "metadata": {"name": name}, "spec": spec,
    })
}

/// Settings with some members beside or instead of others.
fn with(settings: &Value, more: Value) -> Value {
    let mut settings = settings.clone();
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// What is said of each source and sink, by its name: `reached`, or a code.
async fn told(documents: &[Value]) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("manifests.yaml");
    std::fs::write(&file, default_broker(documents)).unwrap();
    let finished = run(&["check", "--connect", "-f", file.to_str().unwrap()]).await;
    let lines = finished.stdout.lines().filter_map(|line| {
        let (_, rest) = line.split_once(" default/").filter(|(kind, _)| !kind.contains(' '))?;
        let (name, said) = rest.split_once(": ")?;
        Some((name.to_owned(), said.split(' ').next().unwrap().to_owned()))
    });
    let told: BTreeMap<_, _> = lines.collect();
    assert_eq!(told.len(), documents.len(), "{finished:?}");
    let all_reached = told.values().all(|said| said == "reached");
    assert_eq!(finished.code, Some(i32::from(!all_reached)), "{finished:?}");
    told
}

fn expected(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(name, said)| ((*name).to_owned(), (*said).to_owned())).collect()
}

#[tokio::test]
async fn a_queue_of_sqs_is_reached_and_none_of_its_messages_received() {
    let Some(queues) = ElasticMq::start().await else { return };
    let url = queues.create("orders", json!({})).await;
    queues.send(&url, &[json!({"MessageBody": "1"})]).await;
    // It takes the keys that no server at hand refuses.
    let refusing = Subscriber::new(|_| {
        let body = json!({"__type": "com.amazon.coral.service#UnrecognizedClientException", "message": "no"});
        let content_type = [("content-type", "application/x-amz-json-1.0")];
        Behaviour::Answer(answer(400, &content_type, body.to_string()))
    })
    .await;
    let keys = json!({"accessKeyId": {"value": "a"}, "secretAccessKey": {"value": "b"}});
    let settings = json!({
        "queue": "orders", "region": "us-east-1", "endpoint": queues.endpoint(), "credentials": keys,
    });
    let queue = |name: &str, more: Value| source(name, json!({"awsSqs": with(&settings, more)}));
    let told = told(&[
        queue("there", json!({})),
        queue("absent", json!({"queue": "none"})),
        queue("refused", json!({"endpoint": refusing.url("")})),
        queue("away", json!({"endpoint": "http://127.0.0.1:9"})),
    ])
    .await;
    let expected =
        expected(&[("there", "reached"), ("absent", "E0304"), ("refused", "E0303"), ("away", "E0302")]);
    assert_eq!(told, expected);
    let asked = json!({"QueueUrl": url, "AttributeNames": ["All"]});
    let state = queues.call("GetQueueAttributes", asked).await;
    let [waiting, received] = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        .map(|name| state["Attributes"][name].clone());
    assert_eq!((waiting, received), (json!("1"), json!("0")), "{state}");
}

#[tokio::test]
async fn a_bucket_of_s3_is_reached_and_nothing_written_to_it() {
    let Some(server) = S3s::start().await else { return };
    server.create("events").await;
    let settings = json!({
        "bucket": "events", "region": "us-east-1", "endpoint": server.endpoint(),
        "credentials": {"accessKeyId": {"value": KEY_ID}, "secretAccessKey": {"value": KEY}},
    });
    let bucket = |name: &str, more: Value| sink(name, json!({"s3": with(&settings, more)}));
    let wrong = json!({"accessKeyId": {"value": KEY_ID}, "secretAccessKey": {"value": "wrong"}});
    let told = told(&[
        bucket("there", json!({})),
        bucket("absent", json!({"bucket": "none"})),
        bucket("refused", json!({"credentials": wrong})),
        bucket("away", json!({"endpoint": "http://127.0.0.1:9"})),
    ])
    .await;
    let expected =
        expected(&[("there", "reached"), ("absent", "E0424"), ("refused", "E0423"), ("away", "E0420")]);
    assert_eq!(told, expected);
    assert!(server.objects("events").is_empty());
}

#[tokio::test]
async fn a_stream_of_nats_is_reached_and_no_consumer_made() {
    let rights = "authorization { users: [\
                  { user: all, password: all },\
                  { user: some, password: some, permissions: { subscribe: { deny: [\"secret.>\"] } } } ] }\n\
                  no_auth_user: all";
    let Some(nats) = Nats::start_with(rights).await else { return };
    nats.stream("ORDERS", &["orders.>"]).await;
    nats.send([nats::message("orders.new", b"1", &[])]).await;
    let of = |name: &str, password: &str| json!({"user": {"username": {"value": name}, "password": {"value": password}}});
    let settings = json!({"servers": [nats.url()], "auth": of("some", "some")});
    let reading = |name: &str, more: Value| source(name, json!({"nats": with(&settings, more)}));
    let writing = |name: &str, more: Value| sink(name, json!({"nats": with(&settings, more)}));
    let orders = json!({"stream": "ORDERS"});
    let told = told(&[
        reading("stream", json!({"jetStream": orders})),
        reading("subjects", json!({"subjects": ["orders.new", "open.>"]})),
        reading("group", json!({"subjects": ["open.>"], "queueGroup": "g"})),
        reading("absent", json!({"jetStream": {"stream": "NONE"}})),
        reading("denied", json!({"subjects": ["secret.things"]})),
        reading("refused", json!({"jetStream": orders, "auth": of("some", "wrong")})),
        reading("away", json!({"jetStream": orders, "servers": ["nats://127.0.0.1:9"]})),
        writing("to-stream", json!({"subject": "orders.new"})),
        writing("to-none", json!({"subject": "elsewhere"})),
        writing("to-refused", json!({"subject": "orders.new", "auth": of("some", "wrong")})),
        writing("to-away", json!({"subject": "orders.new", "servers": ["nats://127.0.0.1:9"]})),
    ])
    .await;
    let expected = expected(&[
        ("stream", "reached"),
        ("subjects", "reached"),
        ("group", "reached"),
        ("absent", "E0304"),
        ("denied", "E0303"),
        ("refused", "E0303"),
        ("away", "E0302"),
        ("to-stream", "reached"),
        ("to-none", "E0424"),
        ("to-refused", "E0423"),
        ("to-away", "E0420"),
    ]);
    assert_eq!(told, expected);
    assert_eq!(nats.read("ORDERS").await.len(), 1);
    // The server keeps each consumer in a folder, and has kept none.
    let consumers = nats.folder().join("store/jetstream/$G/streams/ORDERS/obs");
    let kept = std::fs::read_dir(&consumers).map_or(0, Iterator::count);
    assert_eq!(kept, 0, "{}", consumers.display());
    nats.done(&["consumer", "ORDERS", "waypost-default-in", "4s"], "").await;
    assert_eq!(std::fs::read_dir(consumers).unwrap().count(), 1, "the folder is where consumers are");
}

#[tokio::test]
async fn a_subscription_of_pub_sub_is_reached_and_neither_made_nor_pulled() {
    let Some(pub_sub) = PubSub::start().await else { return };
    pub_sub.topic("orders").await;
    pub_sub.subscription("orders", "orders").await;
    pub_sub.publish("orders", [message(b"1", &[], "")]).await;
    let settings = |name: &str, more: Value| {
        let subscription = format!("projects/{PROJECT}/subscriptions/{name}");
        with(&json!({"endpoint": pub_sub.endpoint(), "subscription": subscription}), more)
    };
    let topic = json!({"topic": format!("projects/{PROJECT}/topics/orders")});
    let documents = [
        source("there", json!({"googlePubSub": settings("orders", json!({}))})),
        source("of-bucket", json!({"googleCloudStorage": settings("orders", json!({}))})),
        source("absent", json!({"googlePubSub": settings("new", json!({}))})),
        source("absent-of-bucket", json!({"googleCloudStorage": settings("new", json!({}))})),
        source("to-be-made", json!({"googlePubSub": settings("new", topic)})),
        source(
            "away",
            json!({"googlePubSub": settings("orders", json!({"endpoint": "http://127.0.0.1:9"}))}),
        ),
    ];
    let mut expected = expected(&[
        ("there", "reached"),
        ("of-bucket", "reached"),
        ("absent", "E0304"),
        ("absent-of-bucket", "E0304"),
        ("to-be-made", "reached"),
        ("away", "E0302"),
    ]);
    // Twice: what could be made was not made.
    assert_eq!(told(&documents).await, expected);
    assert_eq!(told(&documents).await, expected);
    let state = pub_sub.state().await;
    assert_eq!((&state["messages"], &state["deliveries"]), (&json!(1), &json!(0)), "{state}");
    pub_sub.deny(true).await;
    expected.iter_mut().filter(|(name, _)| *name != "away").for_each(|(_, said)| "E0303".clone_into(said));
    assert_eq!(told(&documents).await, expected);
}
