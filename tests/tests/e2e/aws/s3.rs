use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use waypost_tests::client::{batch, event};
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::servers::s3s::{KEY, KEY_ID, S3s};
use waypost_tests::tls::TlsFront;
use waypost_tests::{eventually, outage};

use super::{not_ready, ready};
use crate::manifests::{default_broker, only, sink, sink_ref, trigger_to};

const INGRESS: &str = "/default/default";

fn settings(server: &S3s, more: &Value) -> Value {
    let mut settings = json!({
        "bucket": "events", "region": "us-east-1", "endpoint": server.endpoint(),
        "credentials": {"accessKeyId": {"value": KEY_ID}, "secretAccessKey": {"value": KEY}},
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

fn writing(settings: &Value) -> String {
    default_broker(&[trigger_to("all", sink_ref("out"), json!({})), sink("out", json!({"s3": settings}))])
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

/// The ids of the events in these objects, each line an event.
fn ids(objects: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let lines =
        objects.values().flat_map(|body| body.split(|byte| *byte == b'\n')).filter(|line| !line.is_empty());
    let id = |line: &[u8]| serde_json::from_slice::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    lines.map(id).collect()
}

/// The events that stand in several objects, with the keys of these.
fn standing_twice(objects: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, body) in objects {
        for id in ids(&BTreeMap::from([(key.clone(), body.clone())])) {
            keys.entry(id).or_default().push(key.clone());
        }
    }
    keys.retain(|_, keys| keys.len() > 1);
    keys
}

async fn delivered(waypost: &Waypost, trigger: &str, wanted: u64) {
    let all = tokio::time::timeout(Duration::from_secs(90), async {
        while count(&waypost.trigger(trigger).await, "delivered") < wanted {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    if all.await.is_err() {
        panic!("not all events were written: {}", waypost.trigger(trigger).await);
    }
    let row = waypost.trigger(trigger).await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (wanted, 0), "{row}");
}

#[tokio::test]
async fn ten_thousand_events_are_all_written_though_s3_goes_away_and_waypost_is_killed() {
    let Some(mut server) = S3s::start().await else { return };
    server.create("events").await;
    let more = json!({"key": "all/${type}", "batch": {"maxEvents": 1000, "lingerSeconds": 1}});
    let setup = Setup::new(&writing(&settings(&server, &more))).allow("E0420");
    let waypost = setup.start().await;
    accept_many(&waypost, 0..2_000).await;
    delivered(&waypost, "all", 2_000).await;
    server.kill().await;
    accept_many(&waypost, 2_000..10_000).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waypost = waypost.kill(|setup| setup).await;
    outage(Duration::from_secs(3)).await;
    server.start_again().await;
    delivered(&waypost, "all", 10_000).await;
    let objects = server.objects("events");
    assert!(
        objects.keys().all(|key| key.starts_with("all/t/") && key.ends_with(".jsonl")),
        "{:?}",
        objects.keys()
    );
    assert_eq!(standing_twice(&objects), BTreeMap::new());
    assert_eq!(ids(&objects).len(), 10_000);
    assert!(objects.len() < 1_000, "{} objects", objects.len());
    waypost.stop().await;
}

/// Stands before S3, passes all requests on, and can keep the answers back.
struct Between {
    endpoint: String,
    holds: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Between {
    async fn start(server: &S3s) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let holds = watch::Sender::new(false);
        let (behind, held) = (server.endpoint().replace("http://", ""), holds.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, behind.clone(), held.clone()));
            }
        });
        Self { endpoint, holds, _tasks: tasks }
    }
}

/// Passes on what goes through a connection, answers only while they are not held.
async fn pass(client: TcpStream, behind: String, mut held: watch::Receiver<bool>) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(behind).await?.into_split();
    let answers = async {
        let mut answer = vec![0; 16 * 1024];
        loop {
            let length = from_server.read(&mut answer).await?;
            let _ = held.wait_for(|holds| !holds).await;
            if length == 0 {
                return Ok(());
            }
            to_client.write_all(&answer[..length]).await?;
        }
    };
    tokio::select! {
        copied = tokio::io::copy(&mut from_client, &mut to_server) => copied.map(drop),
        answered = answers => answered,
    }
}

/// Waits until there are objects of an upload whose answer is kept back.
async fn uploaded(server: &S3s, before: usize, more: usize) {
    eventually("objects that are written and not answered", async || {
        (server.objects("events").len() >= before + more).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_batch_whose_upload_was_made_and_not_recorded_is_written_again_as_the_same_object() {
    let Some(server) = S3s::start().await else { return };
    server.create("events").await;
    let between = Between::start(&server).await;
    // Each batch makes two objects.
    let more = json!({
        "endpoint": between.endpoint, "key": "all/${subject}", "batch": {"maxEvents": 100, "lingerSeconds": 1},
    });
    let waypost = Waypost::start(&writing(&settings(&server, &more))).await;
    let accept = async |waypost: &Waypost, numbers: std::ops::Range<usize>| {
        let event = |number: usize| {
            json!({
                "specversion": "1.0", "id": number.to_string(), "source": "/s", "type": "t",
                "subject": if number.is_multiple_of(3) { "a" } else { "b" },
            })
        };
        waypost.accept(batch(INGRESS, numbers.map(event).collect::<Value>().to_string())).await;
    };
    // By then two batches are on their way at a time.
    accept(&waypost, 0..430).await;
    delivered(&waypost, "all", 430).await;
    let before = server.objects("events").len();
    between.holds.send_replace(true);
    accept(&waypost, 430..560).await;
    // The first objects of two batches, of which the second is not full.
    uploaded(&server, before, 2).await;
    accept(&waypost, 560..800).await;
    assert_eq!(count(&waypost.trigger("all").await, "delivered"), 430);
    let written = server.objects("events");
    let waypost = waypost
        .kill(|setup| {
            between.holds.send_replace(false);
            setup
        })
        .await;
    accept(&waypost, 800..900).await;
    delivered(&waypost, "all", 900).await;
    let objects = server.objects("events");
    assert!(
        written.iter().all(|(key, body)| objects.get(key) == Some(body)),
        "what was written is as it was"
    );
    assert_eq!(standing_twice(&objects), BTreeMap::new());
    assert_eq!(ids(&objects).len(), 900);

    // At the second end of the process in a row its events go out alone: one of them may be what ends it.
    between.holds.send_replace(true);
    accept(&waypost, 900..905).await;
    uploaded(&server, objects.len(), 1).await;
    let waypost = waypost.kill(|setup| setup).await;
    eventually("the same upload to be under way", async || {
        (count(&waypost.trigger("all").await, "inFlight") == 5).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waypost = waypost
        .kill(|setup| {
            between.holds.send_replace(false);
            setup
        })
        .await;
    delivered(&waypost, "all", 905).await;
    let alone = server.objects("events").into_iter().filter(|(key, _)| !objects.contains_key(key));
    let sizes: Vec<_> = alone.map(|(_, body)| body.split(|byte| *byte == b'\n').count() - 1).collect();
    assert_eq!(sizes.iter().filter(|size| **size == 1).count(), 5, "{sizes:?}");
    waypost.stop().await;
}

#[tokio::test]
async fn an_event_is_one_object_however_often_it_is_written() {
    let Some(mut server) = S3s::start().await else { return };
    server.create("events").await;
    let waypost = Setup::new(&writing(&settings(&server, &json!({})))).allow("E0420").start().await;
    accept_many(&waypost, 0..300).await;
    delivered(&waypost, "all", 300).await;
    server.kill().await;
    accept_many(&waypost, 0..500).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waypost = waypost.kill(|setup| setup).await;
    server.start_again().await;
    delivered(&waypost, "all", 800).await;
    let objects = server.objects("events");
    assert_eq!(objects.len(), 500);
    assert_eq!(ids(&objects).into_iter().collect::<HashSet<_>>().len(), 500);
    assert!(objects.contains_key("t/%2Fs/499"));
    waypost.stop().await;
}

#[tokio::test]
async fn objects_hold_what_is_asked_for_and_what_s3_refuses_is_a_dead_letter_of_its_event_alone() {
    let Some(server) = S3s::start().await else { return };
    server.create("events").await;
    let sinks = [
        ("binary", json!({"key": "binary/${id}", "content": "binary", "metadata": {"kind": "${type}"}})),
        ("data", json!({"key": "data/${subject}", "content": "data"})),
        ("once", json!({"key": "once/${type}", "overwrite": false})),
        ("gzip", json!({"key": "gzip", "batch": {"lingerSeconds": 1, "compression": "gzip"}})),
    ];
    let mut documents = Vec::new();
    for (name, more) in sinks {
        documents.push(trigger_to(name, sink_ref(name), only(name)));
        documents.push(sink(name, json!({"s3": settings(&server, &more)})));
    }
    let waypost = Waypost::start(&default_broker(&documents)).await;
    let json = ("content-type", "application/json");
    waypost.accept(event(INGRESS, "1", "binary", &[json, ("ce-k", "v")], "{\"n\": 1.10}")).await;
    waypost
        .accept(event(
            INGRESS,
            "1",
            "data",
            &[("ce-subject", "a%20b/c.txt"), ("content-type", "text/x")],
            "x",
        ))
        .await;
    // One without a subject, and one with a key that is too long: neither can ever be written.
    waypost.accept(event(INGRESS, "2", "data", &[], "x")).await;
    waypost.accept(event(INGRESS, "3", "data", &[("ce-subject", &"k".repeat(1100))], "x")).await;
    waypost.accept(event(INGRESS, "1", "once", &[], "first")).await;
    eventually("the first to be written", async || {
        (count(&waypost.trigger("once").await, "delivered") == 1).then_some(())
    })
    .await;
    // The same event again is written already; another one must not be lost behind it.
    waypost.accept(event(INGRESS, "1", "once", &[], "first")).await;
    waypost.accept(event(INGRESS, "2", "once", &[], "second")).await;
    waypost.accept(event(INGRESS, "1", "gzip", &[], "x")).await;
    waypost.accept(event(INGRESS, "2", "gzip", &[], "x")).await;
    waypost.settled().await;
    for (name, expected) in [("binary", (1, 0)), ("data", (1, 2)), ("once", (2, 1)), ("gzip", (2, 0))] {
        let row = waypost.trigger(name).await;
        assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), expected, "{row}");
    }
    let (head, body) = server.get("events", "binary/1").await;
    assert_eq!(body, b"{\"n\": 1.10}");
    for line in [
        "content-type: application/json",
        "x-amz-meta-ce-k: v",
        "x-amz-meta-ce-id: 1",
        "x-amz-meta-kind: binary",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert_eq!(server.get("events", "data/a%20b/c.txt").await.1, b"x");
    let (_, body) = server.get("events", "once/once").await;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["id"], "1");
    let objects = server.objects("events");
    let gzip: Vec<_> = objects.iter().filter(|(key, _)| key.starts_with("gzip/")).collect();
    let [(key, body)] = gzip.as_slice() else { panic!("{:?}", objects.keys()) };
    assert!(key.ends_with(".jsonl.gz") && body.starts_with(&[0x1f, 0x8b]), "{key}");
    assert_eq!(waypost.resource("Sink", "data").await["ready"], true);
    waypost.stop().await;
}

#[tokio::test]
async fn a_bucket_that_is_not_there_and_wrong_keys_are_told_and_mended_without_a_restart() {
    let Some(server) = S3s::start().await else { return };
    server.create("secured").await;
    let setup = Setup::empty();
    let key = setup.directory().join("key");
    std::fs::write(&key, "not-the-secret\n").unwrap();
    let credentials = json!({"accessKeyId": {"value": KEY_ID}, "secretAccessKey": {"file": key}});
    let secured = settings(&server, &json!({"bucket": "secured", "credentials": credentials}));
    let manifests = default_broker(&[
        trigger_to("all", sink_ref("out"), only("after")),
        sink("out", json!({"s3": settings(&server, &json!({}))})),
        trigger_to("more", sink_ref("secured"), only("held")),
        sink("secured", json!({"s3": secured})),
    ]);
    let setup = setup.file("manifests.yaml", &manifests).allow("E0424").allow("E0423");
    let waypost = setup.start().await;
    let message = not_ready(&waypost, "Sink", "out", "E0424").await;
    assert!(message.contains("NoSuchBucket"), "{message}");
    let message = not_ready(&waypost, "Sink", "secured", "E0423").await;
    assert!(message.contains("SignatureDoesNotMatch") && !message.contains("not-the-secret"), "{message}");
    waypost.accept(event(INGRESS, "1", "held", &[], "x")).await;
    eventually("the trigger to pause", async || {
        (waypost.resource("Trigger", "more").await["ready"] == false).then_some(())
    })
    .await;
    // Only now, since s3s-fs makes the bucket of an object that is written.
    server.create("events").await;
    waypost.accept(event(INGRESS, "2", "after", &[], "x")).await;
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    ready(&waypost, "Sink", "out").await;
    ready(&waypost, "Sink", "secured").await;
    for name in ["all", "more"] {
        delivered(&waypost, name, 1).await;
    }
    assert_eq!((server.objects("events").len(), server.objects("secured").len()), (1, 1));
    waypost.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_and_its_authority_mends_it_without_a_restart() {
    let Some(server) = S3s::start().await else { return };
    server.create("events").await;
    let front = TlsFront::before(&server.endpoint()).await;
    let setup = Setup::empty();
    let authority = setup.directory().join("authority.pem");
    std::fs::write(&authority, TlsFront::strange_certificate()).unwrap();
    let more = json!({"endpoint": front.endpoint(), "tls": {"ca": {"file": authority}}});
    let setup = setup.file("manifests.yaml", &writing(&settings(&server, &more))).allow("E0423");
    let waypost = setup.start().await;
    let message = not_ready(&waypost, "Sink", "out", "E0423").await;
    assert!(message.contains("not trusted") && message.contains("tls.ca"), "{message}");
    waypost.accept(event(INGRESS, "1", "held", &[], "x")).await;
    eventually("the trigger to pause", async || {
        (waypost.resource("Trigger", "all").await["ready"] == false).then_some(())
    })
    .await;
    std::fs::write(&authority, front.certificate()).unwrap();
    ready(&waypost, "Sink", "out").await;
    delivered(&waypost, "all", 1).await;
    assert_eq!(server.objects("events").len(), 1);
    waypost.stop().await;
}
