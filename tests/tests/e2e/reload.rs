//! Changed manifests: what is changed takes effect, what is broken keeps its last valid version, and nothing else
//! moves.

use serde_json::{Value, json};
use waypost_tests::client::event;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};

use crate::manifests::{broker, default_broker, file, only, trigger};

const INGRESS: &str = "/default/default";
const FILE: &str = "manifests.yaml";

/// How many requests came to each of these paths.
fn counts<const N: usize>(subscriber: &Subscriber, paths: [&str; N]) -> [usize; N] {
    let received = subscriber.received();
    paths.map(|path| received.iter().filter(|received| received.path == path).count())
}

#[tokio::test]
async fn a_trigger_that_is_added_or_changed_takes_the_events_from_then_on() {
    let subscriber = Subscriber::accepting().await;
    let one = |name: &str, more: Value| trigger(name, &subscriber.url(&format!("/{name}")), more);
    let waypost = Waypost::start(&default_broker(&[one("first", json!({}))])).await;
    waypost.accept(event(INGRESS, "1", "a", &[], "")).await;
    waypost.settled().await;
    assert_eq!(counts(&subscriber, ["/first", "/second"]), [1, 0]);

    waypost.write(FILE, &default_broker(&[one("first", json!({})), one("second", only("b"))])).await;
    waypost.accept(event(INGRESS, "2", "a", &[], "")).await;
    waypost.accept(event(INGRESS, "3", "b", &[], "")).await;
    waypost.settled().await;
    assert_eq!(counts(&subscriber, ["/first", "/second"]), [3, 1]);

    waypost.write(FILE, &default_broker(&[one("first", only("b")), one("second", only("a"))])).await;
    waypost.accept(event(INGRESS, "4", "a", &[], "")).await;
    waypost.settled().await;
    assert_eq!(counts(&subscriber, ["/first", "/second"]), [3, 2]);
    // Its counters go on: it is the same trigger.
    assert_eq!(count(&waypost.trigger("first").await, "matched"), 3);
    assert_eq!(count(&waypost.trigger("second").await, "matched"), 2);
    waypost.stop().await;
}

#[tokio::test]
async fn a_trigger_that_is_removed_is_detached_and_the_same_name_resumes() {
    let subscriber = Subscriber::new(|received| match received.id().as_str() {
        "held" => Behaviour::Held(answer(200, &[], "")),
        _ => 200.into(),
    })
    .await;
    let all = trigger("all", &subscriber.url("/"), json!({}));
    let waypost = Waypost::start(&default_broker(std::slice::from_ref(&all))).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;

    waypost.write(FILE, &default_broker(&[])).await;
    let row = waypost.resource("Trigger", "all").await;
    assert_eq!((&row["ready"], &row["reason"]), (&json!(false), &json!("Detached")), "{row}");
    let row = waypost.trigger("all").await;
    assert_eq!((&row["ready"], count(&row, "matched")), (&json!(false), 1), "{row}");
    waypost.accept(event(INGRESS, "2", "t", &[], "")).await;
    assert_eq!(waypost.resource("Broker", "default").await["ready"], true);

    waypost.write(FILE, &default_broker(&[all])).await;
    waypost.accept(event(INGRESS, "3", "t", &[], "")).await;
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "matched"), count(&row, "delivered")), (2, 2), "{row}");
    let ids: Vec<_> = subscriber.received().iter().map(|received| received.id()).collect();
    assert_eq!(ids, ["1", "3"]);
    waypost.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_removed_takes_no_events_and_its_triggers_are_detached_with_it() {
    let subscriber = Subscriber::accepting().await;
    let all = trigger("all", &subscriber.url("/"), json!({}));
    let setup = Setup::empty()
        .file("broker.yaml", &file(&[broker("default", json!({}))]))
        .file("triggers.yaml", &file(std::slice::from_ref(&all)));
    // That the trigger goes with its broker is worth a warning.
    let waypost = setup.allow("E0208").start().await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;

    waypost.remove("broker.yaml").await;
    waypost.send(event(INGRESS, "2", "t", &[], "")).await.problem(404);
    assert_eq!(waypost.resource("Broker", "default").await["reason"], "Detached");
    assert_eq!(waypost.resource("Trigger", "all").await["ready"], false);

    waypost.write("broker.yaml", &file(&[broker("default", json!({}))])).await;
    waypost.accept(event(INGRESS, "3", "t", &[], "")).await;
    waypost.settled().await;
    assert_eq!(count(&waypost.trigger("all").await, "delivered"), 2);
    waypost.stop().await;
}

#[tokio::test]
async fn a_trigger_may_come_before_its_broker() {
    let subscriber = Subscriber::accepting().await;
    let setup =
        Setup::empty().file("trigger.yaml", &file(&[trigger("early", &subscriber.url("/"), json!({}))]));
    let waypost = setup.allow("E02").start().await;
    let row = waypost.resource("Trigger", "early").await;
    assert_eq!((&row["ready"], &row["reason"]), (&json!(false), &json!("BrokerDoesNotExist")), "{row}");
    waypost.write("broker.yaml", &file(&[broker("default", json!({}))])).await;
    assert_eq!(waypost.resource("Trigger", "early").await["ready"], true);
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    assert_eq!(subscriber.received().len(), 1);
    waypost.stop().await;
}

#[tokio::test]
async fn a_broken_resource_keeps_its_last_valid_version_and_all_others_are_applied() {
    let subscriber = Subscriber::new(|received| match received.id().as_str() {
        "held" => Behaviour::Held(answer(200, &[], "")),
        _ => 200.into(),
    })
    .await;
    let one = |name: &str, more: Value| trigger(name, &subscriber.url(&format!("/{name}")), more);
    let setup = Setup::new(&default_broker(&[one("broken", only("a")), one("other", only("a"))]))
        .allow("E01")
        .allow("E02");
    let waypost = setup.start().await;
    let version = waypost.plan_version().await;
    // The first answer opens the window to two calls at a time.
    waypost.accept(event(INGRESS, "first", "a", &[], "")).await;
    waypost.settled().await;
    // On its way when the manifests change.
    waypost.accept(event(INGRESS, "held", "a", &[], "")).await;
    subscriber.wait_for(4).await;

    let mut bad = one("broken", only("b"));
    bad["spec"]["filters"] = json!([{"exact": {"NOT VALID": "x"}}]);
    let new = json!({"filters": [{"nonsense": {}}]});
    waypost
        .write(
            FILE,
            &default_broker(&[bad, one("other", only("b")), one("new", new), one("fine", only("a"))]),
        )
        .await;

    let row = waypost.resource("Trigger", "broken").await;
    assert_eq!(row["ready"], false, "{row}");
    let message = row["message"].as_str().unwrap();
    assert!(message.contains(&version.to_string()), "names the version that runs: {row}");
    assert_eq!(waypost.resource("Trigger", "new").await["ready"], false);
    assert_eq!(waypost.resource("Trigger", "fine").await["ready"], true);
    let status = waypost.status().await;
    let problems = status["plan"]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{status}");
    assert!(problems.iter().all(|problem| problem["line"].as_u64().is_some_and(|line| line > 0)), "{status}");

    waypost.accept(event(INGRESS, "1", "a", &[], "")).await;
    waypost.accept(event(INGRESS, "2", "b", &[], "")).await;
    // `broken` still takes `a`, `other` takes `b` by now, `fine` takes `a` and `new` nothing.
    subscriber.wait_for(7).await;
    subscriber.release();
    waypost.settled().await;
    assert_eq!(counts(&subscriber, ["/broken", "/other", "/fine", "/new"]), [3, 3, 1, 0]);
    let held = subscriber.received().into_iter().filter(|received| received.id() == "held");
    assert!(held.map(|received| received.attempt).eq([1, 1]), "what was in flight was sent again");

    waypost.write(FILE, &default_broker(&[one("broken", only("b")), one("other", only("b"))])).await;
    assert_eq!(waypost.resource("Trigger", "broken").await["ready"], true);
    waypost.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_all_its_resources_and_others_follow_their_changes() {
    let subscriber = Subscriber::accepting().await;
    let one = |name: &str| file(&[trigger(name, &subscriber.url(&format!("/{name}")), json!({}))]);
    let setup = Setup::empty()
        .file("broker.yaml", &file(&[broker("default", json!({}))]))
        .file("first.yaml", &one("first"))
        .file("second.yaml", &one("second"));
    let waypost = setup.allow("E01").allow("E02").start().await;
    waypost.write("first.yaml", "kind: Trigger\n  metadata: [").await;
    waypost.write("second.yaml", &one("third")).await;
    let status = waypost.status().await;
    assert_eq!(status["plan"]["problems"].as_array().unwrap().len(), 1, "{status}");
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    assert_eq!(counts(&subscriber, ["/first", "/second", "/third"]), [1, 0, 1]);
    waypost.stop().await;
}

#[tokio::test]
async fn what_knative_forbids_to_change_keeps_running_as_it_was() {
    let subscriber = Subscriber::accepting().await;
    let all = trigger("all", &subscriber.url("/"), json!({}));
    let setup = Setup::new(&file(&[broker("default", json!({})), broker("other", json!({})), all.clone()]));
    let waypost = setup.allow("E02").start().await;
    let mut moved = all;
    moved["spec"]["broker"] = json!("other");
    waypost.write(FILE, &file(&[broker("default", json!({})), broker("other", json!({})), moved])).await;
    assert_eq!(waypost.resource("Trigger", "all").await["ready"], false);
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.accept(event("/default/other", "2", "t", &[], "")).await;
    waypost.settled().await;
    let ids: Vec<_> = subscriber.received().iter().map(|received| received.id()).collect();
    assert_eq!(ids, ["1"]);
    waypost.stop().await;
}

#[tokio::test]
async fn a_hangup_signal_reads_the_manifests_again_without_a_change() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    waypost.signal("HUP");
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    assert_eq!(count(&waypost.trigger("all").await, "delivered"), 1);
    waypost.stop().await;
}

#[tokio::test]
async fn changes_under_load_lose_and_repeat_nothing() {
    let subscriber = Subscriber::accepting().await;
    let manifests = |round: usize| {
        // `steady` never changes, `moving` changes its subscriber each time.
        default_broker(&[
            trigger("steady", &subscriber.url("/steady"), json!({})),
            trigger("moving", &subscriber.url(&format!("/moving?{round}")), json!({})),
        ])
    };
    let waypost = Waypost::start(&manifests(0)).await;
    for round in 1..=8 {
        for id in 0..20 {
            waypost.accept(event(INGRESS, &format!("{round}.{id}"), "t", &[], "")).await;
        }
        waypost.write(FILE, &manifests(round)).await;
    }
    let status = waypost.settled().await;
    for row in status["triggers"].as_array().unwrap() {
        assert_eq!((count(row, "matched"), count(row, "delivered")), (160, 160), "{row}");
    }
    let received = subscriber.received();
    for prefix in ["/steady", "/moving"] {
        let mut ids: Vec<_> = received
            .iter()
            .filter(|received| received.path.starts_with(prefix))
            .map(|received| received.id())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 160, "{prefix}");
    }
    assert_eq!(counts(&subscriber, ["/steady"]), [160]);
    waypost.stop().await;
}
