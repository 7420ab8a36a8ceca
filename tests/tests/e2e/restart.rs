//! What a process finds of the one before it: after a clean end, and after none.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::client::event;
use waypost_tests::eventually;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Received, Subscriber};

use crate::manifests::{
    broker, default_broker, file, native_broker, native_trigger, only, sink, sink_ref, trigger, trigger_to,
};

const INGRESS: &str = "/default/default";
const FILE: &str = "manifests.yaml";

/// How long the ledger may wait for the disk: what happens within it before a kill may be done again.
const LEDGER_DELAY: Duration = Duration::from_millis(500);

async fn started(manifests: &str) -> Waypost {
    Setup::new(manifests).start().await
}

/// Nothing is changed between two processes.
fn as_it_was(setup: Setup) -> Setup {
    setup
}

fn ids(subscriber: &Subscriber, path: &str) -> Vec<String> {
    let mut ids: Vec<_> =
        subscriber.received().iter().filter(|received| received.path == path).map(Received::id).collect();
    ids.sort();
    ids
}

fn retrying(delay: &str) -> Value {
    json!({"delivery": {"retry": 3, "backoffPolicy": "constant", "backoffDelay": delay}})
}

async fn settled(waypost: &Waypost, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the trigger to be as wanted", async || {
        let row = waypost.trigger(name).await;
        wanted(&row).then_some(row)
    })
    .await
}

#[tokio::test]
async fn counters_and_what_is_pending_go_on_after_a_clean_end_and_after_a_kill() {
    let subscriber = Subscriber::accepting().await;
    let down = "http://127.0.0.1:9/";
    let with = |url: &str| default_broker(&[trigger("all", url, json!({}))]);
    let waypost = started(&with(&subscriber.url("/"))).await;
    for id in 0..5 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    waypost.settled().await;
    waypost.write(FILE, &with(down)).await;
    for id in 5..10 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    settled(&waypost, "all", |row| count(row, "matched") == 10).await;
    tokio::time::sleep(LEDGER_DELAY).await;
    let waypost = waypost.kill(as_it_was).await;
    let row = settled(&waypost, "all", |row| count(row, "lagEvents") == 0).await;
    assert_eq!(
        (count(&row, "matched"), count(&row, "delivered"), count(&row, "pending")),
        (10, 5, 5),
        "{row}"
    );
    let waypost = waypost.restart(|setup| setup.file(FILE, &with(&subscriber.url("/")))).await;
    let row = settled(&waypost, "all", |row| count(row, "delivered") == 10).await;
    assert_eq!((count(&row, "matched"), count(&row, "pending")), (10, 0), "{row}");
    assert_eq!(ids(&subscriber, "/").len(), 10);
    waypost.stop().await;
}

#[tokio::test]
async fn attempts_are_counted_over_restarts() {
    let subscriber = Subscriber::new(|_| 503.into()).await;
    let manifests = default_broker(&[native_trigger("all", &subscriber.url("/"), retrying("PT1.5S"))]);
    let waypost = started(&manifests).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    subscriber.wait_for(1).await;
    // An attempt whose outcome did not reach the disk within this time would be made again.
    tokio::time::sleep(LEDGER_DELAY).await;
    let waypost = waypost.kill(as_it_was).await;
    subscriber.wait_for(2).await;
    tokio::time::sleep(LEDGER_DELAY).await;
    let waypost = waypost.restart(as_it_was).await;
    let row = settled(&waypost, "all", |row| count(row, "deadLettered") == 1).await;
    assert_eq!((count(&row, "matched"), count(&row, "pending")), (1, 0), "{row}");
    assert_eq!(subscriber.received().len(), 4, "retry: 3 means four attempts in all");
    waypost.stop().await;
}

#[tokio::test]
async fn an_emptied_folder_loses_nothing() {
    let subscriber = Subscriber::accepting().await;
    let manifests = |url: &str| default_broker(&[trigger("all", url, json!({}))]);
    let waypost = started(&manifests(&subscriber.url("/"))).await;
    waypost.accept(event(INGRESS, "0", "t", &[], "")).await;
    waypost.settled().await;
    waypost.write(FILE, &manifests("http://127.0.0.1:9/")).await;
    for id in 1..20 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    settled(&waypost, "all", |row| count(row, "matched") == 20).await;

    let emptied = |setup: Setup| {
        std::fs::remove_file(setup.manifests().join(FILE)).unwrap();
        setup.allow("the manifests declare nothing")
    };
    let waypost = waypost.restart(emptied).await;
    let row = waypost.resource("Broker", "default").await;
    assert_eq!((&row["ready"], &row["reason"]), (&json!(false), &json!("Detached")), "{row}");
    let row = waypost.resource("Trigger", "all").await;
    assert_eq!((&row["ready"], &row["reason"]), (&json!(false), &json!("Detached")), "{row}");
    let row = waypost.trigger("all").await;
    assert_eq!(
        (count(&row, "matched"), count(&row, "delivered"), count(&row, "pending")),
        (20, 1, 19),
        "{row}"
    );
    assert_eq!(waypost.send(event(INGRESS, "x", "t", &[], "")).await.status, 404);
    // Once more, so that what is detached is known from what is stored alone.
    let waypost = waypost.kill(as_it_was).await;
    assert_eq!(count(&waypost.trigger("all").await, "pending"), 19);

    waypost.write(FILE, &manifests(&subscriber.url("/"))).await;
    waypost.accept(event(INGRESS, "20", "t", &[], "")).await;
    let row = settled(&waypost, "all", |row| count(row, "delivered") == 21).await;
    assert_eq!((count(&row, "matched"), count(&row, "pending")), (21, 0), "{row}");
    assert_eq!(ids(&subscriber, "/").len(), 21);
    waypost.stop().await;
}

#[tokio::test]
async fn manifests_edited_while_the_process_was_down_decide_nothing_about_what_was_acknowledged() {
    let subscriber = Subscriber::accepting().await;
    let one = |name: &str, more: Value| trigger(name, &subscriber.url(&format!("/{name}")), more);
    let before = default_broker(&[one("changed", only("a")), one("gone", json!({}))]);
    let after = default_broker(&[one("changed", only("b")), one("new", json!({}))]);
    let waypost = started(&before).await;
    for round in 0..11 {
        for kind in ["a", "b"] {
            waypost.accept(event(INGRESS, &format!("{round}-{kind}"), kind, &[], "")).await;
        }
    }
    // Some of them are examined by the process that took them, some perhaps by the next one.
    let waypost = waypost.kill(|setup| setup.file(FILE, &after)).await;
    waypost.accept(event(INGRESS, "late", "b", &[], "")).await;
    let status = waypost.settled().await;
    let row = |name: &str| {
        status["triggers"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
    };
    assert_eq!(count(&row("changed"), "matched"), 11 + 1, "{status}");
    assert_eq!(count(&row("new"), "matched"), 1, "{status}");
    assert_eq!(count(&row("gone"), "matched"), 22, "what it was owed before is written down: {status}");
    let unique = |path: &str| {
        let mut ids = ids(&subscriber, path);
        ids.dedup();
        ids
    };
    assert_eq!(unique("/new"), ["late"]);
    assert!(unique("/changed").iter().all(|id| id.ends_with("-a") || id == "late"));
    assert_eq!(unique("/changed").len(), 12);
    waypost.stop().await;
}

#[tokio::test]
async fn a_broken_resource_keeps_its_last_valid_version_over_a_restart() {
    let subscriber = Subscriber::accepting().await;
    let one = |name: &str, more: Value| trigger(name, &subscriber.url(&format!("/{name}")), more);
    let waypost = started(&default_broker(&[one("t", only("a"))])).await;
    let version = waypost.plan_version().await;
    let broken = json!({"filters": [{"exact": {"Type": "b"}}]});
    let manifests = default_broker(&[one("t", broken), one("other", json!({}))]);
    let waypost = waypost.restart(|setup| setup.allow("E0204").file(FILE, &manifests)).await;
    assert!(waypost.plan_version().await > version, "versions go on");
    let row = waypost.resource("Trigger", "t").await;
    assert_eq!((&row["ready"], &row["reason"]), (&json!(false), &json!("E0204")), "{row}");
    assert!(row["message"].as_str().unwrap().contains(&format!("plan {version} stays in force")), "{row}");
    // And once more: what is stored is the valid version, not the broken one.
    let waypost = waypost.kill(as_it_was).await;
    waypost.accept(event(INGRESS, "1", "a", &[], "")).await;
    waypost.accept(event(INGRESS, "2", "b", &[], "")).await;
    waypost.settled().await;
    assert_eq!(ids(&subscriber, "/t"), ["1"]);
    assert_eq!(ids(&subscriber, "/other"), ["1", "2"]);
    waypost.stop().await;
}

#[tokio::test]
async fn what_may_not_change_may_not_change_over_a_restart() {
    let waypost = started(&file(&[native_broker("b", json!({}))])).await;
    let waypost = waypost
        .restart(|setup| {
            setup.allow("E0212").file(FILE, &file(&[native_broker("b", json!({"log": "memory"}))]))
        })
        .await;
    let row = waypost.resource("Broker", "b").await;
    assert_eq!((&row["ready"], &row["reason"]), (&json!(false), &json!("E0212")), "{row}");
    assert_eq!(waypost.send(event("/default/b", "1", "t", &[], "")).await.status, 202);
    waypost.stop().await;
}

#[tokio::test]
async fn a_removed_sink_runs_on_over_a_restart_while_a_last_valid_version_needs_it() {
    let whole = file(&[
        broker("default", json!({})),
        sink("out", json!({"stdout": {}})),
        trigger_to("t", sink_ref("out"), json!({})),
    ]);
    let waypost = started(&whole).await;
    let without = file(&[broker("default", json!({})), trigger_to("t", sink_ref("out"), json!({}))]);
    let mut waypost = waypost.restart(|setup| setup.allow("E0203").file(FILE, &without)).await;
    for round in 0..2 {
        waypost.accept(event(INGRESS, &format!("event-{round}"), "t", &[], "")).await;
        waypost.settled().await;
        let printed = waypost.stdout();
        assert!(printed.contains(&format!("event-{round}")), "{printed}");
        waypost = waypost.kill(as_it_was).await;
    }
    waypost.stop().await;
}

#[tokio::test]
async fn what_is_detached_for_too_long_is_deleted() {
    let manifests = file(&[
        broker("kept", json!({})),
        broker("default", json!({})),
        trigger("all", "http://127.0.0.1:9/", json!({})),
    ]);
    let setup = Setup::new(&manifests).arguments(&["--detached-retention", "3s"]);
    let waypost = setup.start().await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    settled(&waypost, "all", |row| count(row, "pending") == 1).await;
    let logs = |waypost: &Waypost| waypost.directory().join("data/logs/default");
    waypost.write(FILE, &file(&[broker("kept", json!({}))])).await;
    // The time of the detachment is stored: a restart does not count anew.
    let waypost = waypost.restart(as_it_was).await;
    assert!(logs(&waypost).join("default").exists());
    eventually("the log to be deleted", async || (!logs(&waypost).join("default").exists()).then_some(()))
        .await;
    assert!(logs(&waypost).join("kept").exists());
    let rows = waypost.status().await;
    assert!(!rows.to_string().contains("\"all\""), "{rows}");
    let waypost = waypost.restart(|setup| setup.file(FILE, &manifests)).await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "matched"), count(&row, "pending")), (0, 0), "{row}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_start_in_the_past_that_was_cut_off_goes_on() {
    let subscriber = Subscriber::accepting().await;
    let waypost = started(&default_broker(&[])).await;
    let total = 3_000;
    for batch in 0..total / 100 {
        let events: Vec<_> = (0..100)
            .map(|id| json!({"specversion": "1.0", "id": format!("{batch}-{id}"), "source": "/s", "type": "t"}))
            .collect();
        waypost.accept(waypost_tests::client::batch(INGRESS, json!(events).to_string())).await;
    }
    let all = native_trigger("all", &subscriber.url("/"), json!({"startFrom": "earliest"}));
    let with = default_broker(std::slice::from_ref(&all));
    std::fs::write(waypost.directory().join("manifests").join(FILE), &with).unwrap();
    // Wherever the kill hits: before the change is seen, while the past is matched, or after.
    subscriber.wait_for(1).await;
    let waypost = waypost.kill(as_it_was).await;
    let row = settled(&waypost, "all", |row| count(row, "delivered") == total).await;
    assert_eq!((count(&row, "matched"), count(&row, "pending")), (total, 0), "{row}");
    let mut seen = ids(&subscriber, "/");
    seen.dedup();
    assert_eq!(seen.len() as u64, total);
    // One that was in force goes on where it was: it does not start in the past again.
    let waypost = waypost.restart(as_it_was).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(count(&waypost.trigger("all").await, "matched"), total);
    waypost.stop().await;
}

#[tokio::test]
async fn the_data_directory_is_for_its_owner_alone() {
    let waypost = started(&default_broker(&[])).await;
    let data = waypost.directory().join("data");
    assert!(mode(&data) == 0o700 && mode(&data.join("checkpoint.redb")) == 0o600);
    waypost.stop().await;
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn an_event_that_ends_the_process_again_and_again_is_dead_lettered() {
    // The kill while the attempt is open stands for a process that the delivery brings down.
    let subscriber = Subscriber::new(|received| match received.id().as_str() {
        "poison" => Behaviour::Hang,
        _ => 200.into(),
    })
    .await;
    let manifests = default_broker(&[trigger("all", &subscriber.url("/"), json!({}))]);
    let mut waypost = Setup::new(&manifests).allow("E0415").start().await;
    waypost.accept(event(INGRESS, "before", "t", &[], "")).await;
    waypost.settled().await;
    waypost.accept(event(INGRESS, "poison", "t", &[], "")).await;
    for start in 1..=3 {
        waypost.accept(event(INGRESS, &format!("after-{start}"), "t", &[], "")).await;
        eventually("the attempt at the event", async || {
            (ids(&subscriber, "/").iter().filter(|id| *id == "poison").count() == start).then_some(())
        })
        .await;
        tokio::time::sleep(LEDGER_DELAY).await;
        assert_eq!(count(&waypost.trigger("all").await, "deadLettered"), 0);
        waypost = waypost.kill(as_it_was).await;
    }
    let row = settled(&waypost, "all", |row| count(row, "pending") == 0).await;
    assert_eq!(
        (count(&row, "matched"), count(&row, "delivered"), count(&row, "deadLettered")),
        (5, 4, 1),
        "{row}"
    );
    let seen = ids(&subscriber, "/");
    assert_eq!(seen.iter().filter(|id| *id == "poison").count(), 3, "{seen:?}");
    waypost.stop().await;
}

#[tokio::test]
async fn lost_match_lists_are_recorded_again_under_the_plan_of_their_time() {
    let subscriber = Subscriber::accepting().await;
    let one = |url: &str, kind: &str| default_broker(&[trigger("all", url, only(kind))]);
    let waypost = started(&one("http://127.0.0.1:9/", "a")).await;
    for id in 0..10 {
        let kind = if id % 2 == 0 { "a" } else { "b" };
        waypost.accept(event(INGRESS, &format!("{id}-{kind}"), kind, &[], "")).await;
    }
    settled(&waypost, "all", |row| count(row, "matched") == 5).await;
    let lose = |setup: Setup| {
        let log = setup.directory().join("data/logs/default/default");
        let files = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
        let lists: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|kind| kind == "matches")).collect();
        assert!(!lists.is_empty());
        lists.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        // The filter is another one by now: it must not decide about what was examined.
        setup.file(FILE, &one(&subscriber.url("/"), "b")).allow("match list")
    };
    let waypost = waypost.restart(lose).await;
    waypost.accept(event(INGRESS, "late-b", "b", &[], "")).await;
    let row = settled(&waypost, "all", |row| count(row, "delivered") == 6).await;
    assert_eq!((count(&row, "matched"), count(&row, "pending")), (6, 0), "{row}");
    let seen = ids(&subscriber, "/");
    assert!(seen.iter().all(|id| id.ends_with("-a") || id == "late-b"), "{seen:?}");
    let recounted = waypost.admin_post("/api/v1/recount").await;
    assert_eq!(recounted.status, 200, "{recounted:?}");
    assert_eq!(count(&waypost.trigger("all").await, "matched"), 6);
    waypost.stop().await;
}

#[tokio::test]
async fn a_detached_trigger_that_comes_back_with_a_start_starts_over() {
    let subscriber = Subscriber::accepting().await;
    let with = |more: Value| default_broker(&[native_trigger("t", &subscriber.url("/"), more)]);
    let waypost = started(&with(json!({}))).await;
    for id in 0..3 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    waypost.settled().await;
    waypost.write(FILE, &default_broker(&[])).await;
    waypost.accept(event(INGRESS, "3", "t", &[], "")).await;
    let waypost = waypost.restart(|setup| setup.file(FILE, &with(json!({"startFrom": "earliest"})))).await;
    let row = settled(&waypost, "t", |row| count(row, "delivered") == 4).await;
    assert_eq!((count(&row, "matched"), count(&row, "pending")), (4, 0), "{row}");
    assert_eq!(ids(&subscriber, "/"), ["0", "0", "1", "1", "2", "2", "3"]);
    waypost.stop().await;
}

#[tokio::test]
async fn a_trigger_that_is_owed_too_much_keeps_producers_out_as_its_manifest_asks() {
    let subscriber = Subscriber::accepting().await;
    let limit = |url: &str| {
        let backlog = json!({"delivery": {"retry": 1000, "maxBacklog": {"size": "4KiB"}}});
        default_broker(&[native_trigger("slow", url, backlog)])
    };
    let waypost = started(&limit("http://127.0.0.1:9/")).await;
    let refused = eventually("a refusal", async || {
        let answer = waypost.send(event(INGRESS, "x", "t", &[], vec![b'x'; 1024])).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    let problem = refused.problem(507);
    assert_eq!(problem["code"], "E0510");
    assert!(problem["detail"].as_str().unwrap().contains("default/slow"), "{problem}");
    let row = waypost.resource("Trigger", "slow").await;
    assert_eq!(row["reason"], "BacklogExceeded", "{row}");
    // It holds over a restart, and ends with the backlog.
    let waypost = waypost.kill(as_it_was).await;
    eventually("a refusal", async || {
        (waypost.send(event(INGRESS, "y", "t", &[], "")).await.status == 507).then_some(())
    })
    .await;
    waypost.write(FILE, &limit(&subscriber.url("/"))).await;
    eventually("room", async || {
        (waypost.send(event(INGRESS, "z", "t", &[], "")).await.status == 202).then_some(())
    })
    .await;
    waypost.settled().await;
    waypost.stop().await;
}
