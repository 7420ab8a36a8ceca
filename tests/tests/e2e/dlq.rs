//! `waypost dlq` and its admin API: dead letters that are listed, shown, sent again and deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use waypost_tests::binary::{self, Finished};
use waypost_tests::client::event;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};

use crate::crash::crash;
use crate::manifests::{default_broker, retry, trigger};

const INGRESS: &str = "/default/default";

/// Runs `waypost dlq` against a broker.
async fn dlq(waypost: &Waypost, arguments: &[&str]) -> Finished {
    let admin = format!("http://{}", waypost.admin);
    binary::run(&[&["dlq"], arguments, &["--admin", &admin]].concat()).await
}

/// As [`dlq`], with JSON and a good end.
async fn dlq_json(waypost: &Waypost, arguments: &[&str]) -> Value {
    let finished = dlq(waypost, &[arguments, &["-o", "json"]].concat()).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.json()
}

async fn ids(waypost: &Waypost, arguments: &[&str]) -> Vec<String> {
    let list = dlq_json(waypost, &[&["list"], arguments].concat()).await;
    list.as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

/// A subscriber that refuses everything until it is mended.
struct Mendable {
    subscriber: Subscriber,
    mended: Arc<AtomicBool>,
}

impl Mendable {
    async fn start() -> Self {
        let mended = Arc::new(AtomicBool::new(false));
        let looks = Arc::clone(&mended);
        let subscriber = Subscriber::new(move |_| match looks.load(Ordering::SeqCst) {
            true => 200.into(),
            false => Behaviour::Answer(answer(422, &[], "no such order")),
        })
        .await;
        Self { subscriber, mended }
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }
}

/// A broker with a trigger `orders`, and so many dead letters of it, with types `even` and `odd`.
async fn with_dead_letters(setup: impl FnOnce(Setup) -> Setup, url: &str, letters: usize) -> Waypost {
    let manifests = default_broker(&[trigger("orders", url, json!({"delivery": retry(1)}))]);
    let waypost = setup(Setup::new(&manifests)).start().await;
    for id in 0..letters {
        let event_type = if id % 2 == 0 { "even" } else { "odd" };
        let headers = [("content-type", "application/json"), ("ce-extension", "kept")];
        waypost
            .accept(event(INGRESS, &id.to_string(), event_type, &headers, format!("{{\"n\": {id}}}")))
            .await;
        // One after the other, so that the letters lie in the store in this order.
        waypost.settled().await;
    }
    assert_eq!(stored(&waypost).await, letters as u64);
    waypost
}

async fn stored(waypost: &Waypost) -> u64 {
    count(&waypost.trigger("orders").await, "deadLettersStored")
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown() {
    let orders = Mendable::start().await;
    let waypost = with_dead_letters(|setup| setup, &orders.subscriber.url("/orders"), 5).await;
    let list = dlq_json(&waypost, &["list"]).await;
    assert_eq!(list.as_array().unwrap().len(), 5);
    let first = &list[0];
    assert_eq!(first["trigger"], "default/orders");
    assert_eq!(first["event"], json!({"id": "0", "source": "/tests", "type": "even"}));
    assert_eq!((&first["code"], &first["attempts"]), (&json!("E0402"), &json!(1)));
    assert!(first["reason"].as_str().is_some_and(|reason| reason.contains("422")), "{first}");
    assert!(first["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{first}");
    let all = ids(&waypost, &[]).await;
    for (arguments, expected) in [
        (&["--trigger", "default/orders"][..], &all[..]),
        (&["--trigger", "orders", "--namespace", "default"], &all),
        (&["--type", "odd"], &[all[1].clone(), all[3].clone()]),
        (&["--code", "E0402", "--since", "1h"], &all),
        (&["--code", "E0404"], &[]),
        (&["--until", "1h"], &[]),
        (&["--limit", "2", "--after", &all[1]], &all[2..4]),
        (&["--broker", "other"], &[]),
    ] {
        assert_eq!(ids(&waypost, arguments).await, expected, "{arguments:?}");
    }
    let shown = dlq_json(&waypost, &["show", &all[3]]).await;
    assert_eq!((&shown["event"]["id"], &shown["event"]["data"]), (&json!("3"), &json!({"n": 3})));
    assert_eq!((&shown["event"]["extension"], &shown["attemptsMade"]), (&json!("kept"), &json!(1)));
    let attempt = &shown["attempts"][0];
    assert_eq!((&attempt["code"], &attempt["status"]), (&json!("E0402"), &json!(422)));
    assert_eq!(attempt["bodyExcerpt"], "no such order");
    assert_eq!(shown["forwarding"], json!({"state": "kept"}));

    let table = dlq(&waypost, &["list", "--limit", "2"]).await;
    assert!(table.stdout.contains("ATTEMPTS") && table.stdout.contains(&format!("--after {}", all[1])));
    let told = dlq(&waypost, &["show", &all[0]]).await;
    assert!(told.stdout.contains("no such order") && told.stdout.contains("\"n\": 0"), "{told:?}");
    for (arguments, code) in [
        (&["show", "default.default.99"][..], "E0830"),
        (&["show", "99"], "E0804"),
        (&["redrive", "default.default.99"], "E0830"),
        (&["redrive", "--to", "ftp://h/"], "E0210"),
        (&["cancel", "nothing"], "E0833"),
        (&["list", "--code", "E9999"], "E0804"),
        (&["purge"], "E0832"),
    ] {
        let refused = dlq(&waypost, arguments).await;
        assert!(refused.code == Some(1) && refused.stderr.contains(code), "{arguments:?}: {refused:?}");
    }
    waypost.admin_post("/api/v1/dead-letters/purge").await.problem(400);
    assert_eq!(stored(&waypost).await, 5, "nothing was changed");
    waypost.stop().await;
}

#[tokio::test]
async fn a_redrive_sends_them_as_the_trigger_does() {
    let orders = Mendable::start().await;
    let waypost = with_dead_letters(|setup| setup, &orders.subscriber.url("/orders"), 6).await;
    let sent_before = orders.subscriber.received().len();
    let preview = dlq_json(&waypost, &["redrive", "--type", "odd", "--dry-run"]).await;
    assert_eq!((&preview["dryRun"], &preview["selected"]), (&json!(true), &json!(3)));
    assert_eq!(preview["triggers"], json!({"default/orders": 3}));
    assert_eq!((stored(&waypost).await, orders.subscriber.received().len()), (6, sent_before));
    assert_eq!(dlq_json(&waypost, &["jobs"]).await, json!([]));

    // It fails again: all stay, with one attempt more.
    let failed = dlq(&waypost, &["redrive", "--trigger", "default/orders", "-o", "json"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let ended = failed.json();
    assert_eq!((&ended["state"], &ended["failed"], &ended["sent"]), (&json!("done"), &json!(6), &json!(0)));
    let all = ids(&waypost, &[]).await;
    assert_eq!((all.len(), orders.subscriber.received().len()), (6, sent_before + 6));
    let shown = dlq_json(&waypost, &["show", &all[0]]).await;
    assert_eq!((&shown["attemptsMade"], &shown["redrive"]), (&json!(2), &ended["id"]));
    assert_eq!(shown["attempts"][1]["bodyExcerpt"], "no such order");

    orders.mend();
    let one = dlq_json(&waypost, &["redrive", &all[2], &all[3]]).await;
    assert_eq!((&one["selected"], &one["sent"], &one["left"]), (&json!(2), &json!(2), &json!(0)));
    let rest = dlq_json(&waypost, &["redrive"]).await;
    assert_eq!((&rest["selected"], &rest["sent"], &rest["state"]), (&json!(4), &json!(4), &json!("done")));
    let received = orders.subscriber.received();
    let last = received.last().unwrap();
    assert_eq!(last.header("ce-waypostredrive"), rest["id"]);
    assert_eq!((last.header("ce-extension"), last.header("content-type")), ("kept", "application/json"));
    let row = waypost.trigger("orders").await;
    assert_eq!((count(&row, "deadLettered"), count(&row, "deadLettersStored")), (6, 0), "{row}");
    assert_eq!(dlq_json(&waypost, &["list"]).await, json!([]));
    let jobs = dlq_json(&waypost, &["jobs"]).await;
    assert_eq!((jobs.as_array().unwrap().len(), &jobs[0]["id"]), (3, &rest["id"]));
    let metrics = waypost.admin_get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let redriven = metrics.lines().find(|line| line.starts_with("waypost_dead_letters_redriven"));
    assert!(
        redriven.is_some_and(|line| line.split(' ').nth(1).is_some_and(|n| n.parse() == Ok(6.0))),
        "{metrics}"
    );
    waypost.stop().await;
}

#[tokio::test]
async fn another_destination_gets_them_as_they_are_also_when_their_trigger_is_gone() {
    let (orders, other) = (Mendable::start().await, Subscriber::accepting().await);
    let kept = |setup: Setup| setup.arguments(&["--detached-retention", "100ms"]);
    let waypost = with_dead_letters(kept, &orders.subscriber.url("/orders"), 5).await;
    waypost.write("manifests.yaml", &default_broker(&[])).await;
    waypost_tests::eventually("the trigger to be forgotten", async || {
        (waypost.status().await["triggers"] == json!([])).then_some(())
    })
    .await;
    let all = ids(&waypost, &["--trigger", "default/orders"]).await;
    assert_eq!(all.len(), 5, "dead letters outlive their trigger");
    let refused = dlq(&waypost, &["redrive"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("E0835"), "{refused:?}");
    let to = other.url("/rescued");
    let sent = dlq_json(&waypost, &["redrive", "--to", &to, "--rate", "100", "--type", "even"]).await;
    assert_eq!((&sent["sent"], &sent["to"], &sent["rate"]), (&json!(3), &json!(to), &json!(100)));
    let received = other.received();
    assert_eq!(received.len(), 3);
    let first = received.iter().find(|event| event.header("ce-id") == "0").unwrap();
    assert_eq!(&first.body[..], b"{\"n\": 0}");
    assert_eq!(first.header("ce-waypostredrive"), sent["id"]);
    let purged = dlq_json(&waypost, &["purge", "--trigger", "default/orders"]).await;
    assert_eq!(purged, json!({"purged": 2}));
    assert_eq!(ids(&waypost, &[]).await, [] as [String; 0]);
    assert_eq!(dlq_json(&waypost, &["purge", "--yes"]).await, json!({"purged": 0}));
    waypost.stop().await;
}

#[tokio::test]
async fn a_redrive_goes_on_after_a_kill_and_ends_when_it_is_cancelled() {
    let orders = Mendable::start().await;
    let waypost = with_dead_letters(|setup| setup, &orders.subscriber.url("/orders"), 40).await;
    orders.mend();
    let before = orders.subscriber.received().len();
    let started = dlq_json(&waypost, &["redrive", "--rate", "20", "--detach"]).await;
    assert_eq!((&started["state"], &started["selected"]), (&json!("running"), &json!(40)));
    orders.subscriber.wait_for(before + 10).await;
    let waypost = waypost.kill(|setup| setup).await;
    waypost_tests::eventually("the redrive to end", async || {
        let jobs = dlq_json(&waypost, &["jobs"]).await;
        assert_eq!(jobs[0]["id"], started["id"]);
        (jobs[0]["state"] == "done").then_some(())
    })
    .await;
    let received = orders.subscriber.received();
    for id in 0..40 {
        assert!(received[before..].iter().any(|event| event.header("ce-id") == id.to_string()), "{id}");
    }
    let row = waypost.trigger("orders").await;
    assert_eq!((count(&row, "deadLettered"), count(&row, "deadLettersStored")), (40, 0), "{row}");
    let jobs = dlq_json(&waypost, &["jobs"]).await;
    assert_eq!((&jobs[0]["sent"], &jobs[0]["left"]), (&json!(40), &json!(0)), "{jobs}");

    orders.mended.store(false, Ordering::SeqCst);
    for id in 0..3 {
        waypost.accept(event(INGRESS, &id.to_string(), "late", &[], "")).await;
    }
    waypost.settled().await;
    let started = dlq_json(&waypost, &["redrive", "--rate", "1", "--detach"]).await;
    let id = started["id"].as_str().unwrap();
    let cancelled = dlq_json(&waypost, &["cancel", id]).await;
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(stored(&waypost).await, 3, "nothing is lost");
    let waypost = waypost.restart(|setup| setup).await;
    assert_eq!(dlq_json(&waypost, &["jobs"]).await[0]["state"], "cancelled");
    waypost.stop().await;
}

#[test]
fn each_of_thousands_is_delivered_over_a_kill_in_the_middle() {
    crash(&["redrive", "--count", "2000"]);
}
