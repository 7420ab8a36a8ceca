//! The bridges of `deploy/examples`, as they stand there but for addresses and secrets: from one real system to another,
//! read back at the far end by clients that are not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::binary::root;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::servers::elasticmq::ElasticMq;
use waypost_tests::servers::google::{CloudStorage, PROJECT, PubSub};
use waypost_tests::servers::kafka::{Kafka, record};
use waypost_tests::servers::nats::Nats;
use waypost_tests::servers::opensearch::{self, OpenSearch};
use waypost_tests::servers::s3s::{self, S3s};

/// How long a whole bridge may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// An example with other words in the place of some, each of which it must have.
fn example(name: &str, replaced: &[(&str, &str)]) -> String {
    let path = root().join(format!("deploy/examples/{name}.yaml"));
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in replaced {
        assert!(text.contains(from), "{name} does not say {from}");
        text = text.replace(from, to);
    }
    assert!(!text.contains("example.com:"), "an address of {name} is left: {text}");
    text
}

/// Who we are to AWS, told by the environment.
fn as_amazon(setup: Setup) -> Setup {
    setup
        .environment("AWS_ACCESS_KEY_ID", s3s::KEY_ID)
        .environment("AWS_SECRET_ACCESS_KEY", s3s::KEY)
        .environment("AWS_EC2_METADATA_DISABLED", "true")
}

/// Waits until a trigger has delivered so many, and nothing is a dead letter.
async fn delivered(waypost: &Waypost, trigger: &str, wanted: u64) {
    let all = tokio::time::timeout(PATIENCE, async {
        while count(&waypost.trigger(trigger).await, "delivered") < wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if all.await.is_err() {
        panic!("not all events of {trigger} came: {:#}", waypost.status().await);
    }
    let row = waypost.trigger(trigger).await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (wanted, 0), "{row}");
}

/// The data of the orders of these numbers.
fn orders(numbers: std::ops::Range<usize>) -> BTreeSet<String> {
    numbers.map(|number| json!({"order": number, "total": "12.50"}).to_string()).collect()
}

#[tokio::test]
async fn from_sqs_to_kafka() {
    let (Some(queues), Some(kafka)) = (ElasticMq::start().await, Kafka::start().await) else { return };
    let url = queues.create("orders.fifo", json!({"FifoQueue": "true"})).await;
    kafka.create("orders", 3).await;
    let manifests = example("bridge-sqs-to-kafka", &[("kafka.example.com:9092", &kafka.address())]);
    let setup = as_amazon(Setup::new(&manifests)).environment("AWS_ENDPOINT_URL", &queues.endpoint());
    let waypost = setup.start().await;
    let wanted = orders(0..200);
    let messages: Vec<_> = wanted
        .iter()
        .enumerate()
        .map(|(place, order)| {
            json!({
                "MessageBody": order, "MessageGroupId": format!("customer-{}", place % 7),
                "MessageDeduplicationId": place.to_string(),
            })
        })
        .collect();
    queues.send(&url, &messages).await;
    delivered(&waypost, "orders-to-kafka", 200).await;

    let records = kafka.read("orders").await;
    let values: Vec<_> =
        records.iter().map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap()).collect();
    assert_eq!(values.len(), 200, "{:#}", waypost.status().await);
    assert_eq!(values.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    // Each group is in one partition, in the order in which it was sent.
    let mut groups: BTreeMap<Vec<u8>, (u64, Vec<&String>)> = BTreeMap::new();
    for (record, value) in records.iter().zip(&values) {
        let group = groups.entry(record.key.clone().unwrap()).or_insert((record.partition, Vec::new()));
        assert_eq!(group.0, record.partition);
        group.1.push(value);
    }
    assert_eq!(groups.len(), 7);
    for (place, (_, values)) in groups.into_values().enumerate() {
        assert_eq!(values, wanted.iter().skip(place).step_by(7).collect::<Vec<_>>());
    }
    let first = &records[0];
    assert_eq!(first.header("ce_type").as_deref(), Some("com.example.order"));
    assert_eq!(
        first.header("ce_source").as_deref(),
        Some("arn:aws:sqs:elasticmq:000000000000:orders.fifo"),
        "{first:?}"
    );
    assert_eq!(first.header("content-type").as_deref(), Some("application/json"));
    // Kafka has them maybe sooner than SQS is told that they are taken.
    waypost_tests::eventually("all messages to be deleted", async || {
        (queues.held(&url).await == 0).then_some(())
    })
    .await;
    waypost.stop().await;
}

/// What `gzip` makes of a compressed file.
fn decompressed(body: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("every machine has gzip");
    // It reads all before it writes more than a pipe holds, since the objects of this test are small.
    gzip.stdin.take().unwrap().write_all(body).unwrap();
    let output = gzip.wait_with_output().unwrap();
    assert!(output.status.success(), "no gzip");
    output.stdout
}

#[tokio::test]
async fn from_kafka_to_nats_to_s3() {
    let (Some(nats), Some(s3), Some(kafka)) = (Nats::start().await, S3s::start().await, Kafka::start().await)
    else {
        return;
    };
    kafka.create("orders", 3).await;
    nats.stream("ORDERS", &["orders.>"]).await;
    s3.create("order-archive").await;
    let manifests = example(
        "bridge-kafka-to-nats-to-s3",
        &[
            ("kafka.example.com:9092", &kafka.address()),
            ("nats://nats.example.com:4222", &nats.url()),
            ("lingerSeconds: 60", "lingerSeconds: 1"),
        ],
    );
    let setup = as_amazon(Setup::new(&manifests)).environment("AWS_ENDPOINT_URL", &s3.endpoint());
    let waypost = setup.start().await;
    let wanted = orders(0..500);
    let json: [(&str, Option<&[u8]>); 1] = [("content-type", Some(b"application/json"))];
    let sent = wanted.iter().enumerate().map(|(place, order)| {
        record(Some(format!("customer-{}", place % 7).as_bytes()), Some(order.as_bytes()), &json)
    });
    kafka.send("orders", sent).await;
    delivered(&waypost, "orders-to-nats", 500).await;
    delivered(&waypost, "orders-to-archive", 500).await;

    // Half way: the stream has each record once, as an event that tells where it is from.
    let messages = nats.read("ORDERS").await;
    let data = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(messages.len(), 500);
    assert_eq!(messages.iter().map(|message| data(&message.data)).collect::<BTreeSet<_>>(), wanted);
    assert!(messages.iter().all(|message| message.subject == "orders.com.example.order"));
    // At the far end: the same events, in a few objects.
    let objects = s3.objects("order-archive");
    assert!(objects.len() < 100, "{} objects", objects.len());
    assert!(objects.keys().all(|key| key.starts_with("com.example.order/") && key.ends_with(".jsonl.gz")));
    let lines: Vec<u8> = objects.values().flat_map(|body| decompressed(body)).collect();
    let lines = String::from_utf8(lines).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 500);
    assert_eq!(events.iter().map(|event| event["data"].to_string()).collect::<BTreeSet<_>>(), wanted);
    let ids: BTreeSet<_> = events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 500);
    let one = &events[0];
    assert_eq!((&one["type"], &one["kafkatopic"]), (&json!("com.example.order"), &json!("orders")), "{one}");
    assert!(one["partitionkey"].as_str().is_some_and(|key| key.starts_with("customer-")), "{one}");
    // Upstream knows that all of it is taken.
    waypost_tests::eventually("all records to be committed", async || {
        let committed = kafka.committed("waypost.default.orders-topic", "orders").await;
        (committed == (500, 500)).then_some(())
    })
    .await;
    waypost_tests::eventually("all messages to be acknowledged", async || {
        let state = nats.state("ORDERS", "waypost-default-orders-stream").await;
        (state["acknowledged"] == 500 && state["last"] == 500).then_some(())
    })
    .await;
    waypost.stop().await;
}

#[tokio::test]
async fn from_cloud_storage_to_elasticsearch() {
    let Some(pub_sub) = PubSub::start().await else { return };
    pub_sub.topic("uploads").await;
    // The subscription is made by the source, since the example names the topic: whatever is told before is not heard.
    let (Some(storage), Some(node)) =
        (CloudStorage::start(&pub_sub, "uploads").await, OpenSearch::start().await)
    else {
        return;
    };
    let setup = Setup::empty();
    let authority = setup.directory().join("ca.pem");
    std::fs::write(&authority, node.certificate()).unwrap();
    let manifests = example(
        "bridge-gcs-to-elasticsearch",
        &[
            ("projects/example/", &format!("projects/{PROJECT}/")),
            ("https://elasticsearch.example.com:9200", &node.url()),
            ("/etc/waypost/elasticsearch-ca.pem", authority.to_str().unwrap()),
            ("value: waypost", &format!("value: {}", opensearch::USER)),
            ("change-me", opensearch::PASSWORD),
        ],
    );
    let host = pub_sub.endpoint().trim_start_matches("http://").to_owned();
    let waypost =
        setup.file("manifests.yaml", &manifests).environment("PUBSUB_EMULATOR_HOST", &host).start().await;
    waypost_tests::eventually("the subscription to be made", async || {
        (waypost.resource("Source", "uploads").await["ready"] == true).then_some(())
    })
    .await;
    for bucket in ["example-uploads", "another"] {
        let body = json!({"name": bucket}).to_string();
        storage.request("POST", &format!("/storage/v1/b?project={PROJECT}"), body).await;
    }
    let upload = async |bucket: &str, name: &str, body: String| {
        let path = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}");
        storage.request("POST", &path, body).await;
    };
    for number in 0..20 {
        upload("example-uploads", &format!("reports%2F{number}.txt"), "x".repeat(number + 1)).await;
    }
    // Neither what happens elsewhere nor the end of an object is asked for.
    upload("another", "x.txt", "x".to_owned()).await;
    storage.request("DELETE", "/storage/v1/b/example-uploads/o/reports%2F0.txt", "").await;
    delivered(&waypost, "uploads-to-search", 20).await;

    let documents = node.documents("uploads").await;
    let told: BTreeMap<_, _> = documents
        .iter()
        .map(|document| {
            let event = &document["_source"];
            assert_eq!(event["type"], "com.google.cloud.storage.objectfinalize", "{event}");
            assert_eq!(event["source"], "gs://example-uploads", "{event}");
            let size = event["data"]["size"].as_str().unwrap().to_owned();
            (event["subject"].as_str().unwrap().to_owned(), size)
        })
        .collect();
    let wanted: BTreeMap<_, _> =
        (0..20).map(|number| (format!("reports/{number}.txt"), (number + 1).to_string())).collect();
    assert_eq!((documents.len(), told), (20, wanted));
    // All that was told is acknowledged, also what was left out.
    waypost_tests::eventually("everything to be acknowledged", async || {
        let state = pub_sub.state().await;
        (state["acknowledged"] == state["messages"] && state["messages"] == 22).then_some(())
    })
    .await;
    waypost.stop().await;
}
