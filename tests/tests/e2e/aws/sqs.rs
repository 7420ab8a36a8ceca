use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::servers::elasticmq::ElasticMq;
use waypost_tests::subscriber::{Behaviour, Received, Subscriber, answer};
use waypost_tests::tls::TlsFront;
use waypost_tests::{eventually, outage};

use super::{keys, not_ready, ready};
use crate::manifests::{default_broker, native_trigger, trigger};

fn source(name: &str, settings: &Value) -> Value {
    let sink = json!({"ref": {"apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "name": "default"}});
    json!({
        "apiVersion": "waypost.dev/v1alpha1",
        "kind": "Source",
        "metadata": {"name": name},
        "spec": {"awsSqs": settings, "sink": sink},
    })
}

fn reading(queues: &ElasticMq, subscriber: &Subscriber) -> String {
    let settings = json!({
        "queue": "orders", "region": "us-east-1", "endpoint": queues.endpoint(), "credentials": keys(),
    });
    default_broker(&[trigger("all", &subscriber.url("/"), json!({})), source("in", &settings)])
}

fn numbered(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.map(|number| json!({"MessageBody": number.to_string()})).collect()
}

fn bodies(received: &[Received]) -> HashSet<String> {
    received.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect()
}

async fn distinct(subscriber: &Subscriber, wanted: usize) {
    let waited = tokio::time::timeout(Duration::from_secs(100), async {
        while bodies(&subscriber.received()).len() < wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if waited.await.is_err() {
        panic!("{} of {wanted} came", bodies(&subscriber.received()).len());
    }
}

async fn empty(queues: &ElasticMq, url: &str) {
    let emptied = tokio::time::timeout(Duration::from_secs(40), async {
        while queues.held(url).await > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert!(emptied.await.is_ok(), "{} messages are left", queues.held(url).await);
}

/// The region, the address and the keys come from the environment.
#[tokio::test]
async fn messages_of_every_form_arrive_and_a_queue_that_is_not_there_is_found_once_it_is() {
    let Some(queues) = ElasticMq::start().await else { return };
    let orders = queues.create("orders", json!({"VisibilityTimeout": "5"})).await;
    let ordered = queues.create("ordered.fifo", json!({"FifoQueue": "true"})).await;
    let notified = queues.create("notified", json!({})).await;
    let record = |key: &str| {
        json!({
            "eventName": "ObjectCreated:Put", "eventTime": "2024-01-02T03:04:05.678Z",
            "s3": {"bucket": {"name": "b", "arn": "arn:aws:s3:::b"}, "object": {"key": key, "sequencer": key}},
        })
    };
    let records = json!({"Records": [record("a+b"), record("c")]}).to_string();
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}).to_string();
    queues.send(&notified, &[json!({"MessageBody": records}), json!({"MessageBody": test})]).await;
    let attributes = json!({"Trace": {"DataType": "String", "StringValue": "t-1"}});
    let poison = json!({"Bad": {"DataType": "String", "StringValue": "ü\u{fffd}"}});
    queues
        .send(
            &orders,
            &[
                json!({"MessageBody": "{\"n\": 1.10}", "MessageAttributes": attributes}),
                json!({"MessageBody": "{\"Records", "MessageAttributes": poison}),
            ],
        )
        .await;
    let ordered_messages: Vec<_> = (0..60)
        .map(|number: usize| {
            json!({
                "MessageBody": format!("o{number}"), "MessageGroupId": format!("g{}", number % 3),
                "MessageDeduplicationId": number.to_string(),
            })
        })
        .collect();
    queues.send(&ordered, &ordered_messages).await;

    let subscriber = Subscriber::accepting().await;
    let in_order = native_trigger("all", &subscriber.url("/"), json!({"delivery": {"ordering": "key"}}));
    let arn = "arn:aws:sqs:elasticmq:000000000000:ordered.fifo";
    let manifests = default_broker(&[
        in_order,
        source("plain", &json!({"queue": "orders"})),
        source("ordered", &json!({"queue": arn, "region": "us-east-1"})),
        source("notified", &json!({"queue": notified, "unwrap": ["s3"]})),
        source("missing", &json!({"queue": "missing", "data": "message", "eventSource": "/missing"})),
    ]);
    let setup = Setup::new(&manifests).allow("E0304");
    let waypost = setup
        .environment("AWS_ENDPOINT_URL", &queues.endpoint())
        .environment("AWS_REGION", "us-east-1")
        .environment("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .environment("AWS_SECRET_ACCESS_KEY", "example-secret")
        .start()
        .await;
    let message = not_ready(&waypost, "Source", "missing", "E0304").await;
    assert!(message.contains("QueueDoesNotExist"), "{message}");

    let received = subscriber.wait_for(65).await;
    let by = |wanted: &dyn Fn(&Received) -> bool| {
        received.iter().find(|one| wanted(one)).cloned().unwrap_or_else(|| panic!("{received:#?}"))
    };
    let plain = by(&|one| one.body == "{\"n\": 1.10}");
    assert_eq!(plain.header("ce-type"), "com.amazon.sqs.message");
    assert_eq!(plain.header("ce-source"), "arn:aws:sqs:elasticmq:000000000000:orders");
    assert_eq!((plain.header("ce-sqsmsgtrace"), plain.header("ce-sqsreceivecount")), ("t-1", "1"));
    by(&|one| one.body == "{\"Records");
    let created = by(&|one| one.header("ce-subject") == "a%20b");
    assert_eq!(created.header("ce-type"), "com.amazon.s3.objectcreated");
    assert_eq!((created.id(), created.json()), ("b/a+b/a+b/ObjectCreated:Put".to_owned(), record("a+b")));
    by(&|one| one.header("ce-type") == "com.amazon.s3.testevent");
    // Each group came in its order.
    let mut last: HashMap<String, usize> = HashMap::new();
    for one in received.iter().filter(|one| one.body.starts_with(b"o")) {
        let number: usize = String::from_utf8_lossy(&one.body[1..]).parse().unwrap();
        let before = last.insert(one.header("ce-partitionkey").to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "{last:?}");
    }
    assert_eq!(last.len(), 3);

    let url = queues.create("missing", json!({})).await;
    queues.send(&url, &[json!({"MessageBody": "{\"found\": true}"})]).await;
    ready(&waypost, "Source", "missing").await;
    let found = subscriber.wait_for(66).await[65].clone();
    let told = found.json();
    assert_eq!((&told["Body"], &told["MessageId"]), (&json!({"found": true}), &json!(found.id())));
    for queue in [&orders, &ordered, &notified, &url] {
        empty(&queues, queue).await;
    }
    assert_eq!(subscriber.received().len(), 66);
    // A clean end deletes what was read, so that nothing comes twice. What the queue gives to a question of before, which
    // nobody waits for any more, comes once it is visible again.
    let waypost = waypost.restart(|setup| setup).await;
    queues.send(&orders, &[json!({"MessageBody": "last"})]).await;
    let received = subscriber.wait_for(67).await;
    assert_eq!((received.len(), &received[66].body[..]), (67, &b"last"[..]));
    waypost.stop().await;
}

#[tokio::test]
async fn ten_thousand_messages_all_arrive_though_waypost_is_killed_and_the_queue_goes_away() {
    let Some(mut queues) = ElasticMq::start().await else { return };
    let url = queues.create("orders", json!({"VisibilityTimeout": "5"})).await;
    queues.send(&url, &numbered(0..10_000)).await;
    let subscriber = Subscriber::accepting().await;
    let waypost = Setup::new(&reading(&queues, &subscriber)).allow("the source is not ready").start().await;
    distinct(&subscriber, 2_000).await;
    let waypost = waypost.kill(|setup| setup).await;
    distinct(&subscriber, 10_000).await;
    empty(&queues, &url).await;
    queues.stop().await;
    not_ready(&waypost, "Source", "in", "E0302").await;
    outage(Duration::ZERO).await;
    queues.start_again().await;
    queues.send(&url, &numbered(10_000..10_100)).await;
    distinct(&subscriber, 10_100).await;
    ready(&waypost, "Source", "in").await;
    empty(&queues, &url).await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_full_keeps_messages_from_others_and_gets_each_once() {
    let Some(queues) = ElasticMq::start().await else { return };
    let url = queues.create("orders", json!({"VisibilityTimeout": "5"})).await;
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let subscriber =
        Subscriber::new(move |_| if opened.load(Ordering::Relaxed) { 200 } else { 503 }.into()).await;
    let delivery = json!({"delivery": {
        "retry": 1000, "backoffPolicy": "constant", "backoffDelay": "PT0.5S", "maxBacklog": {"size": "16KiB"},
    }});
    let settings = json!({
        "queue": "orders", "region": "us-east-1", "endpoint": queues.endpoint(), "credentials": keys(),
    });
    let all = native_trigger("all", &subscriber.url("/"), delivery);
    let waypost = Setup::new(&default_broker(&[all, source("in", &settings)])).start().await;
    ready(&waypost, "Source", "in").await;
    queues.send(&url, &numbered(0..600)).await;
    eventually("the broker to be full", async || {
        (waypost.resource("Source", "in").await["ready"] == false).then_some(())
    })
    .await;
    // Longer than the queue keeps a message from others.
    outage(Duration::from_secs(8)).await;
    assert!(count(&waypost.trigger("all").await, "matched") < 600);
    open.store(true, Ordering::Relaxed);
    eventually("all to be delivered", async || {
        (count(&waypost.trigger("all").await, "delivered") >= 600).then_some(())
    })
    .await;
    empty(&queues, &url).await;
    ready(&waypost, "Source", "in").await;
    assert_eq!(count(&waypost.trigger("all").await, "delivered"), 600);
    let received = subscriber.received();
    assert_eq!(bodies(&received).len(), 600);
    // Nobody, ourselves included, was given a message a second time.
    assert!(received.iter().all(|one| one.header("ce-sqsreceivecount") == "1"));
    waypost.stop().await;
}

/// What no server that is at hand does: keys that are checked, and a deletion of which a part fails.
async fn strict_queue(deleted: Arc<AtomicUsize>) -> Subscriber {
    let given = AtomicBool::new(false);
    Subscriber::new(move |request| {
        let json = |status: u16, body: Value| {
            Behaviour::Answer(answer(
                status,
                &[("content-type", "application/x-amz-json-1.0")],
                body.to_string(),
            ))
        };
        if !request.header("authorization").contains("Credential=AKIDRIGHT/") {
            let type_name = "com.amazon.coral.service#UnrecognizedClientException";
            return json(400, json!({"__type": type_name, "message": "The security token is invalid."}));
        }
        let asked = request.json();
        match request.header("x-amz-target") {
            "AmazonSQS.GetQueueUrl" => json(200, json!({"QueueUrl": "http://queue/1/orders"})),
            "AmazonSQS.GetQueueAttributes" => {
                let arn = "arn:aws:sqs:us-east-1:1:orders";
                json(200, json!({"Attributes": {"QueueArn": arn, "VisibilityTimeout": "30"}}))
            }
            "AmazonSQS.ReceiveMessage" if !given.swap(true, Ordering::Relaxed) => {
                let message = |id: &str| json!({"MessageId": id, "ReceiptHandle": id, "Body": id});
                json(200, json!({"Messages": [message("a"), message("b"), message("c")]}))
            }
            "AmazonSQS.ReceiveMessage" => Behaviour::Later(
                Duration::from_millis(200),
                answer(200, &[("content-type", "application/x-amz-json-1.0")], "{}"),
            ),
            "AmazonSQS.DeleteMessageBatch" => {
                let entries = asked["Entries"].as_array().unwrap();
                // The second of three fails once, and is to come again alone.
                let failed: Vec<_> = (entries.len() == 3)
                    .then(|| json!({"Id": entries[1]["Id"], "SenderFault": false, "Code": "InternalError"}))
                    .into_iter()
                    .collect();
                deleted.fetch_add(entries.len() - failed.len(), Ordering::Relaxed);
                json(200, json!({"Successful": [], "Failed": failed}))
            }
            other => panic!("{other} is not asked for"),
        }
    })
    .await
}

fn deletions(queue: &Subscriber) -> Vec<Vec<String>> {
    let received = queue.received();
    let asked = received.iter().filter(|one| one.header("x-amz-target") == "AmazonSQS.DeleteMessageBatch");
    asked
        .map(|one| {
            let asked = one.json();
            let entries = asked["Entries"].as_array().unwrap().iter();
            entries.map(|entry| entry["ReceiptHandle"].as_str().unwrap().to_owned()).collect()
        })
        .collect()
}

#[tokio::test]
async fn keys_that_are_wrong_are_told_a_renewed_file_is_found_and_only_what_failed_is_deleted_again() {
    let deleted = Arc::new(AtomicUsize::new(0));
    let queue = strict_queue(Arc::clone(&deleted)).await;
    let subscriber = Subscriber::accepting().await;
    let setup = Setup::empty();
    let key = setup.directory().join("key");
    std::fs::write(&key, "AKIDWRONG\n").unwrap();
    let settings = json!({
        "queue": "orders", "region": "us-east-1", "endpoint": queue.url(""), "receivers": 1,
        "credentials": {"accessKeyId": {"file": key}, "secretAccessKey": {"value": "very-secret"}},
    });
    let manifests =
        default_broker(&[trigger("all", &subscriber.url("/"), json!({})), source("in", &settings)]);
    let waypost: Waypost = setup.file("manifests.yaml", &manifests).allow("E0303").start().await;
    let message = not_ready(&waypost, "Source", "in", "E0303").await;
    assert!(message.contains("UnrecognizedClientException") && !message.contains("very-secret"), "{message}");
    std::fs::write(&key, "AKIDRIGHT\n").unwrap();
    ready(&waypost, "Source", "in").await;
    subscriber.wait_for(3).await;
    eventually("all to be deleted", async || (deleted.load(Ordering::Relaxed) == 3).then_some(())).await;
    let expected = [vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], vec!["b".to_owned()]];
    assert_eq!(deletions(&queue), expected);
    waypost.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_and_its_authority_mends_it_without_a_restart() {
    let Some(queues) = ElasticMq::start().await else { return };
    let url = queues.create("orders", json!({})).await;
    queues.send(&url, &numbered(0..1)).await;
    let subscriber = Subscriber::accepting().await;
    let front = TlsFront::before(&queues.endpoint()).await;
    let setup = Setup::empty();
    let authority = setup.directory().join("authority.pem");
    std::fs::write(&authority, TlsFront::strange_certificate()).unwrap();
    let settings = json!({
        "queue": "orders", "region": "us-east-1", "endpoint": front.endpoint(), "credentials": keys(),
        "tls": {"ca": {"file": authority}},
    });
    let manifests =
        default_broker(&[trigger("all", &subscriber.url("/"), json!({})), source("in", &settings)]);
    let waypost = setup.file("manifests.yaml", &manifests).allow("E0303").start().await;
    let message = not_ready(&waypost, "Source", "in", "E0303").await;
    assert!(message.contains("not trusted") && message.contains("tls.ca"), "{message}");
    std::fs::write(&authority, front.certificate()).unwrap();
    ready(&waypost, "Source", "in").await;
    distinct(&subscriber, 1).await;
    empty(&queues, &url).await;
    waypost.stop().await;
}
