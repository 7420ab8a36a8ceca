//! Replays through the binary: by manifest, by command and over the admin API; with restarts and kills in between.

use serde_json::{Value, json};
use waypost_tests::binary::{Finished, run};
use waypost_tests::client::event;
use waypost_tests::eventually;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Received, Subscriber};

use crate::manifests::{broker, default_broker, file, native_trigger, only};

const INGRESS: &str = "/default/default";
const FILE: &str = "manifests.yaml";

/// A Replay of the broker `default`.
#[expect(clippy::needless_pass_by_value, reason = "`json!` stands in the place of the argument")]
fn replay(name: &str, spec: Value) -> Value {
    let mut whole = json!({"broker": "default"});
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Replay", "metadata": {"name": name}, "spec": whole})
}

/// A broker whose trigger `all` was sent `count` events, every second one an order.
async fn with_past(subscriber: &Subscriber, count: usize) -> (Waypost, Vec<Value>) {
    with_past_allowing("no warning at all", subscriber, count).await
}

/// As [`with_past`], with lines in the log that hold this text.
async fn with_past_allowing(allowed: &str, subscriber: &Subscriber, count: usize) -> (Waypost, Vec<Value>) {
    let manifests =
        vec![broker("default", json!({})), native_trigger("all", &subscriber.url("/"), json!({}))];
    let waypost = Setup::new(&file(&manifests)).allow(allowed).start().await;
    for id in 0..count {
        let kind = if id % 2 == 0 { "order" } else { "other" };
        waypost.accept(event(INGRESS, &id.to_string(), kind, &[], "")).await;
    }
    waypost.settled().await;
    (waypost, manifests)
}

async fn command(waypost: &Waypost, arguments: &[&str]) -> Finished {
    let admin = format!("http://{}", waypost.admin);
    run(&[&["replay"], arguments, &["--admin", &admin, "-o", "json"]].concat()).await
}

/// What the admin API tells of a replay; its counts add up.
async fn line(waypost: &Waypost, name: &str) -> Value {
    let line = waypost.admin_get(&format!("/api/v1/replays/default/{name}")).await.json();
    let [matched, delivered, dead, dropped, pending] =
        ["matched", "delivered", "deadLettered", "dropped", "pending"].map(|name| count(&line, name));
    assert_eq!(matched, delivered + dead + dropped + pending, "the ledger does not add up: {line:#}");
    line
}

async fn until(waypost: &Waypost, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the replay to be as wanted", async || {
        let line = line(waypost, name).await;
        wanted(&line).then_some(line)
    })
    .await
}

async fn completed(waypost: &Waypost, name: &str) -> Value {
    until(waypost, name, |line| line["state"] == "Completed").await
}

/// The requests that a replay sent, in the order of their ids.
fn replayed(subscriber: &Subscriber, name: &str) -> Vec<usize> {
    let sent = subscriber.received();
    let marked = sent.iter().filter(|received| received.header("ce-waypostreplay") == name);
    let mut ids: Vec<usize> = marked.map(|received| received.id().parse().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_command_sends_a_range_again_as_its_trigger_does() {
    let subscriber = Subscriber::accepting().await;
    let (waypost, _) = with_past(&subscriber, 10).await;
    let range = ["start", "default", "--from", "0:2", "--to", "0:7", "--trigger", "all", "--name", "again"];
    let estimate = command(&waypost, &[&range[..], &["--dry-run"]].concat()).await;
    assert_eq!((estimate.code, &estimate.json()["expected"]), (Some(0), &json!(5)), "{estimate:?}");
    assert_eq!(command(&waypost, &["list"]).await.json(), json!([]));

    let ended = command(&waypost, &range).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = ended.json();
    assert_eq!((&ended["state"], &ended["origin"]), (&json!("Completed"), &json!("api")), "{ended:#}");
    assert_eq!((count(&ended, "expected"), count(&ended, "delivered")), (5, 5), "{ended:#}");
    assert_eq!(replayed(&subscriber, "again"), [2, 3, 4, 5, 6]);
    // Nothing but the mark is added.
    let received = subscriber.received();
    let of = |marked: bool| {
        let found = received
            .iter()
            .find(|one| one.id() == "3" && one.header("ce-waypostreplay").is_empty() != marked);
        let found: &Received = found.unwrap();
        (found.attribute_names().into_iter().map(str::to_owned).collect::<Vec<_>>(), found.body.clone())
    };
    let (mut names, body) = of(true);
    names.retain(|name| name != "waypostreplay");
    assert_eq!((names, body), of(false));
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "matched"), count(&row, "delivered")), (10, 10), "{row}");

    let twice = command(&waypost, &range).await;
    assert!(twice.code == Some(1) && twice.stderr.contains("error[E0850]"), "{twice:?}");
    for (arguments, code) in [
        (&["show", "absent"][..], "E0851"),
        (&["cancel", "again"], "E0852"),
        (&["start", "default", "--from", "yesterday", "--trigger", "all"], "E0853"),
        (&["start", "default", "--from", "earliest", "--trigger", "absent"], "E0853"),
    ] {
        let refused = command(&waypost, arguments).await;
        assert!(refused.code == Some(1) && refused.stderr.contains(code), "{arguments:?}: {refused:?}");
    }
    waypost.stop().await;
}

#[tokio::test]
async fn a_range_by_time_with_a_filter_goes_to_another_url() {
    let (subscriber, other) = (Subscriber::accepting().await, Subscriber::accepting().await);
    let (waypost, _) = with_past(&subscriber, 6).await;
    let explained = async |id: &str| {
        let path = format!("/api/v1/explain?namespace=default&broker=default&source=%2Ftests&id={id}");
        waypost.admin_get(&path).await.json()
    };
    let arrived = async |id: &str| explained(id).await["arrivedAt"].as_str().unwrap().to_owned();
    let (from, to) = (arrived("2").await, arrived("5").await);
    let filter = r#"{"exact": {"type": "order"}}"#;
    let arguments = [
        "start",
        "default/default",
        "--from",
        &from,
        "--to",
        &to,
        "--to-url",
        &other.url("/x"),
        "--filter",
        filter,
    ];
    let ended = command(&waypost, &arguments).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = ended.json();
    let name = ended["name"].as_str().unwrap();
    assert!(name.starts_with("replay-"), "{ended:#}");
    assert_eq!((count(&ended, "expected"), count(&ended, "delivered")), (2, 2), "{ended:#}");
    assert_eq!((replayed(&other, name), subscriber.received().len()), (vec![2, 4], 6));
    // What became of an event at its trigger is told as before.
    let told = explained("2").await;
    assert_eq!(told["triggers"].as_array().unwrap().len(), 1, "{told:#}");
    assert_eq!(told["triggers"][0]["deliveries"][0]["state"], "delivered", "{told:#}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_manifest_runs_once_whatever_is_reloaded_and_is_checked_with_the_others() {
    let subscriber = Subscriber::accepting().await;
    let (waypost, manifests) = with_past_allowing("E0212", &subscriber, 4).await;
    let with = |spec: Value| file(&[&manifests[..], &[replay("again", spec)]].concat());
    let declared = with(json!({"trigger": "all", "from": "earliest"}));
    waypost.write(FILE, &declared).await;
    completed(&waypost, "again").await;
    let row = waypost.resource("Replay", "again").await;
    assert_eq!((&row["ready"], &row["reason"]), (&json!(true), &json!("Completed")), "{row}");

    waypost.write(FILE, &with(json!({"trigger": "all", "from": "0:1"}))).await;
    let row = waypost.resource("Replay", "again").await;
    assert_eq!(row["reason"], "E0212", "{row}");
    waypost.write(FILE, &file(&manifests)).await;
    waypost.write(FILE, &declared).await;
    let waypost = waypost.restart(|setup| setup).await;
    let waypost = waypost.kill(|setup| setup).await;
    assert_eq!(completed(&waypost, "again").await["delivered"], 4);
    waypost.accept(event(INGRESS, "4", "other", &[], "")).await;
    waypost.settled().await;
    assert_eq!(replayed(&subscriber, "again"), [0, 1, 2, 3]);
    waypost.stop().await;

    let wrong = file(&[replay("wrong", json!({"from": "soon", "trigger": "all"}))]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wrong.yaml");
    std::fs::write(&path, wrong).unwrap();
    let checked = run(&["check", "-f", path.to_str().unwrap(), "-o", "json"]).await;
    assert_eq!((checked.code, &checked.json()[0]["path"]), (Some(1), &json!("spec.from")), "{checked:?}");
}

#[tokio::test]
async fn it_is_paused_resumed_and_cancelled_by_command() {
    let subscriber = Subscriber::new(|received| {
        let held = !received.header("ce-waypostreplay").is_empty();
        if held { Behaviour::Held(waypost_tests::subscriber::answer(200, &[], "")) } else { 200.into() }
    })
    .await;
    let (waypost, _) = with_past(&subscriber, 8).await;
    let range = ["--from", "earliest", "--trigger", "all", "--detach"];
    let started =
        command(&waypost, &[&["start", "default", "--name", "held", "--paused"], &range[..]].concat()).await;
    assert_eq!(started.code, Some(0), "{started:?}");
    until(&waypost, "held", |line| line["state"] == "Paused" && line["matched"] == 8).await;
    assert_eq!(command(&waypost, &["cancel", "held"]).await.json()["dropped"], 8);

    command(&waypost, &[&["start", "default", "--name", "again"], &range[..]].concat()).await;
    until(&waypost, "again", |line| count(line, "inFlight") > 0).await;
    let paused = command(&waypost, &["pause", "default/again"]).await.json();
    assert_eq!((&paused["state"], &paused["paused"]), (&json!("Paused"), &json!(true)), "{paused:#}");
    subscriber.release();
    let waypost = waypost.restart(|setup| setup).await;
    let paused = line(&waypost, "again").await;
    assert_eq!((&paused["state"], &paused["matched"]), (&json!("Paused"), &json!(8)), "{paused:#}");
    assert!(count(&paused, "pending") > 0, "{paused:#}");
    command(&waypost, &["resume", "again"]).await;
    completed(&waypost, "again").await;
    assert_eq!(
        replayed(&subscriber, "again").iter().copied().collect::<std::collections::BTreeSet<_>>().len(),
        8
    );
    let listed = command(&waypost, &["list"]).await.json();
    let states: Vec<_> =
        listed.as_array().unwrap().iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["Completed", "Cancelled"], "by name: {listed:#}");
    waypost.stop().await;
}

#[tokio::test]
async fn kills_in_every_state_leave_nothing_of_the_range_out() {
    const COUNT: usize = 300;
    let subscriber = Subscriber::new(|received| {
        let replayed = !received.header("ce-waypostreplay").is_empty();
        let slow = std::time::Duration::from_millis(20);
        if replayed {
            Behaviour::Later(slow, waypost_tests::subscriber::answer(200, &[], ""))
        } else {
            200.into()
        }
    })
    .await;
    let (mut waypost, _) = with_past(&subscriber, COUNT).await;
    let body = json!({"name": "again", "spec": {"broker": "default", "trigger": "all", "from": "earliest",
        "delivery": {"maxInFlight": 4}}});
    let started = waypost_tests::client::send(
        waypost.admin,
        waypost_tests::client::request(http::Method::POST, "/api/v1/replays", &[], body.to_string()),
    )
    .await;
    assert_eq!(started.status, 200, "{started:?}");
    // The first one falls into the counting or soon after it.
    for before in [0, 30, 120, 200] {
        until(&waypost, "again", |line| count(line, "delivered") >= before).await;
        waypost = waypost.kill(|setup| setup).await;
    }
    let line = completed(&waypost, "again").await;
    assert_eq!(
        (count(&line, "expected"), count(&line, "delivered")),
        (COUNT as u64, COUNT as u64),
        "{line:#}"
    );
    let mut ids = replayed(&subscriber, "again");
    ids.dedup();
    assert_eq!(ids, (0..COUNT).collect::<Vec<_>>());
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "matched"), count(&row, "delivered")), (COUNT as u64, COUNT as u64), "{row}");
    let waypost = waypost.kill(|setup| setup).await;
    assert_eq!(line_state(&waypost).await, "Completed");
    waypost.stop().await;
}

async fn line_state(waypost: &Waypost) -> String {
    line(waypost, "again").await["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn two_at_once_keep_to_their_own_ranges_and_a_removed_manifest_cancels() {
    let subscriber = Subscriber::accepting().await;
    let (waypost, manifests) = with_past(&subscriber, 10).await;
    let orders =
        replay("orders", json!({"trigger": "all", "from": "earliest", "filters": only("order")["filters"]}));
    let late = replay("late", json!({"trigger": "all", "from": "0:8"}));
    let never = replay("never", json!({"trigger": "all", "from": "earliest", "paused": true}));
    waypost.write(FILE, &file(&[&manifests[..], &[orders, late, never]].concat())).await;
    completed(&waypost, "orders").await;
    completed(&waypost, "late").await;
    until(&waypost, "never", |line| line["matched"] == 10).await;
    let refused = command(&waypost, &["resume", "never"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("E0854"), "{refused:?}");
    assert_eq!(replayed(&subscriber, "orders"), [0, 2, 4, 6, 8]);
    assert_eq!(replayed(&subscriber, "late"), [8, 9]);
    waypost.write(FILE, &file(&manifests)).await;
    let line = line(&waypost, "never").await;
    assert_eq!((&line["state"], &line["dropped"]), (&json!("Cancelled"), &json!(10)), "{line:#}");
    let status = waypost.status().await;
    assert_eq!(status["replays"].as_array().unwrap().len(), 3, "{status:#}");
    assert_eq!(status["triggers"].as_array().unwrap().len(), 1, "{status:#}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_start_from_beyond_the_log_says_where_the_log_begins() {
    let subscriber = Subscriber::accepting().await;
    let manifests = default_broker(&[native_trigger("all", &subscriber.url("/"), json!({}))]);
    let waypost = Setup::new(&manifests).start().await;
    for id in 0..3 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    waypost.settled().await;
    let started =
        command(&waypost, &["start", "default", "--from", "0:1", "--to", "0:50", "--trigger", "all"]).await;
    let ended = started.json();
    assert_eq!((count(&ended, "expected"), count(&ended, "delivered")), (2, 2), "{ended:#}");
    assert!(ended["notices"][0].as_str().unwrap().contains("the log ends before 0:3"), "{ended:#}");
    assert!(ended["message"].as_str().unwrap().contains("the log ends before 0:3"), "{ended:#}");
    waypost.stop().await;
}
