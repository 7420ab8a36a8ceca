//! What a trigger's delivery is held to, through the binary: rate, order, holding while the subscriber is away, and what
//! operators do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use waypost_tests::binary::{Finished, run};
use waypost_tests::client::event;
use waypost_tests::eventually;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};

use crate::manifests::{broker, default_broker, file, native_trigger, trigger};

const INGRESS: &str = "/default/default";

async fn keyed(waypost: &Waypost, id: usize, key: &str) {
    waypost.accept(event(INGRESS, &id.to_string(), "t", &[("ce-partitionkey", key)], "")).await;
}

async fn command(waypost: &Waypost, arguments: &[&str]) -> Finished {
    let admin = format!("http://{}", waypost.admin);
    run(&[&["trigger"], arguments, &["--admin", &admin, "-o", "json"]].concat()).await
}

#[tokio::test]
async fn no_more_attempts_come_than_the_rate_allows() {
    let subscriber = Subscriber::accepting().await;
    // By a field of the native kind, and by an annotation of Knative's.
    let native = native_trigger(
        "native",
        &subscriber.url("/native"),
        json!({"delivery": {"ratePerSecond": 50, "burst": 5}}),
    );
    let mut knative = trigger("knative", &subscriber.url("/knative"), json!({}));
    knative["metadata"]["annotations"] = json!({"waypost.dev/ratePerSecond": "50"});
    let waypost = Waypost::start(&default_broker(&[native, knative])).await;
    let started = Instant::now();
    for id in 0..105 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    waypost.settled().await;
    // At 50 per second 100 take two seconds, however busy the machine is; a little is forgiven for lateness.
    assert!(started.elapsed() > Duration::from_millis(1_800), "{:?}", started.elapsed());
    for path in ["/native", "/knative"] {
        assert_eq!(subscriber.received().iter().filter(|received| received.path == path).count(), 105);
    }
    waypost.stop().await;
}

#[tokio::test]
async fn one_in_flight_is_never_exceeded() {
    const PAUSE: Duration = Duration::from_millis(5);
    let subscriber = Subscriber::new(|_| Behaviour::Later(PAUSE, answer(200, &[], ""))).await;
    let one = native_trigger("one", &subscriber.url("/"), json!({"delivery": {"maxInFlight": 1}}));
    let waypost = Waypost::start(&default_broker(&[one])).await;
    for id in 0..100 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    waypost.settled().await;
    assert_eq!((subscriber.count(), subscriber.most_within(PAUSE)), (100, 1));
    waypost.stop().await;
}

#[tokio::test]
async fn a_key_keeps_its_order_through_failures_and_a_kill() {
    let status = Arc::new(AtomicU16::new(503));
    let script = Arc::clone(&status);
    let subscriber = Subscriber::new(move |received| {
        let first_of_a = received.id() == "0";
        if first_of_a { script.load(Ordering::SeqCst).into() } else { 200.into() }
    })
    .await;
    let delivery = json!({
        "ordering": "key", "retry": 1000, "backoffPolicy": "constant", "backoffDelay": "PT0.1S", "maxInFlight": 4
    });
    let ordered = native_trigger("ordered", &subscriber.url("/"), json!({"delivery": delivery}));
    let waypost = Waypost::start(&default_broker(&[ordered])).await;
    for id in 0..200 {
        keyed(&waypost, id, if id % 2 == 0 { "a" } else { "b" }).await;
    }
    let others = |subscriber: &Subscriber| {
        let ids = subscriber
            .received()
            .iter()
            .map(|received| received.id().parse().unwrap())
            .collect::<Vec<usize>>();
        ids.into_iter().filter(|id| *id != 0).collect::<Vec<_>>()
    };
    eventually("the other key to go on", async || (others(&subscriber).len() == 100).then_some(())).await;
    let held = waypost.admin_get("/api/v1/explain?broker=default&position=0:2").await.json();
    assert_eq!(held["triggers"][0]["deliveries"][0]["place"], "held", "{held:#}");
    // Made durable before the kill, so that nothing is repeated after it.
    let waypost = waypost.restart(|setup| setup).await;
    assert_eq!(count(&waypost.trigger("ordered").await, "pending"), 100);
    let waypost = waypost.kill(|setup| setup).await;
    assert_eq!(others(&subscriber).len(), 100);
    status.store(200, Ordering::SeqCst);
    waypost.settled().await;
    let mut seen = std::collections::BTreeSet::new();
    let mut firsts = others(&subscriber);
    firsts.retain(|id| seen.insert(*id));
    let of = |rest: usize| firsts.iter().copied().filter(|id| id % 2 == rest).collect::<Vec<_>>();
    assert_eq!((of(0).len(), of(1).len()), (99, 100));
    assert!(of(0).is_sorted() && of(1).is_sorted(), "{firsts:?}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_is_away_gets_everything_when_it_is_back() {
    let status = Arc::new(AtomicU16::new(503));
    let script = Arc::clone(&status);
    let subscriber = Subscriber::new(move |_| script.load(Ordering::SeqCst).into()).await;
    let holds = json!({"delivery": {"holdWhenDown": true, "retry": 0}});
    let gives_up = json!({"delivery": {"retry": 0}});
    let manifests = file(&[
        broker("default", json!({})),
        native_trigger("holds", &subscriber.url("/holds"), holds),
        native_trigger("givesup", &subscriber.url("/givesup"), gives_up),
    ]);
    let waypost = Setup::new(&manifests).allow("the subscriber is away").start().await;
    for id in 0..50 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    eventually("the other trigger to give up", async || {
        (count(&waypost.trigger("givesup").await, "deadLettered") == 50).then_some(())
    })
    .await;
    let row = waypost.trigger("holds").await;
    assert_eq!((count(&row, "pending"), count(&row, "deadLettered")), (50, 0));
    let resource = waypost.resource("Trigger", "holds").await;
    assert_eq!((&resource["ready"], &resource["reason"]), (&json!(false), &json!("E0401")), "{resource}");
    status.store(200, Ordering::SeqCst);
    let row = eventually("everything to be delivered", async || {
        let row = waypost.trigger("holds").await;
        (count(&row, "pending") == 0).then_some(row)
    })
    .await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (50, 0));
    assert_eq!(waypost.resource("Trigger", "holds").await["ready"], json!(true));
    waypost.stop().await;
}

#[tokio::test]
async fn an_operator_skips_one_event_and_moves_a_trigger_on() {
    let subscriber =
        Subscriber::new(|received| if received.id() == "1" { 500.into() } else { 200.into() }).await;
    let delivery = json!({"ordering": "key", "retry": 1000, "backoffPolicy": "constant", "backoffDelay": "PT1H",
        "backoffMax": "PT1H"});
    let manifests = |paused: bool| {
        let more = json!({"delivery": delivery.clone(), "paused": paused});
        default_broker(&[native_trigger("t", &subscriber.url("/"), more)])
    };
    let waypost = Setup::new(&manifests(false)).allow("an operator").start().await;
    for id in 0..5 {
        keyed(&waypost, id, "a").await;
    }
    eventually("the first to wait", async || {
        let row = waypost.trigger("t").await;
        (count(&row, "delivered") == 1 && count(&row, "inFlight") == 0 && count(&row, "pending") == 4)
            .then_some(())
    })
    .await;
    subscriber.wait_for(2).await;
    let skipped = command(&waypost, &["skip", "default/t", "--position", "0:1"]).await;
    assert_eq!(skipped.json(), json!({"namespace": "default", "name": "t", "position": "0:1", "dropped": 1}));
    waypost.settled().await;
    let again = command(&waypost, &["skip", "default/t", "--position", "0:1"]).await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("E0820"), "{}", again.stderr);

    waypost.write("manifests.yaml", &manifests(true)).await;
    for id in 5..15 {
        keyed(&waypost, id, "a").await;
    }
    let sought = command(&waypost, &["seek", "default/t", "--to", "0:10"]).await;
    assert_eq!(sought.json()["dropped"], 5);
    let back = command(&waypost, &["seek", "default/t", "--to", "2001-01-01T00:00:00Z"]).await;
    assert_eq!(back.code, Some(1));
    assert!(back.stderr.contains("E0822"), "{}", back.stderr);
    let wrong = waypost.admin_post("/api/v1/triggers/default/t/seek?to=somewhere").await;
    assert_eq!(wrong.problem(400)["code"], "E0804");
    let nobody = waypost.admin_post("/api/v1/triggers/default/nobody/seek?to=end").await;
    assert_eq!(nobody.problem(404)["code"], "E0807");
    waypost.write("manifests.yaml", &manifests(false)).await;
    let status = waypost.settled().await;
    let row = &status["triggers"][0];
    assert_eq!((count(row, "delivered"), count(row, "dropped")), (9, 6), "{row}");
    assert_eq!(row["droppedByReason"]["operator"], 6, "{row}");
    waypost.stop().await;
}
