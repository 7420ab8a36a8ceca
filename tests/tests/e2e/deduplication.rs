//! Events that repeat earlier ones.

use serde_json::{Value, json};
use waypost_tests::binary;
use waypost_tests::client::event;
use waypost_tests::eventually;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Received, Subscriber};

use crate::manifests::{file, native_broker, native_trigger};

const INGRESS: &str = "/default/default";

fn manifests(url: &str) -> String {
    let broker = native_broker("default", json!({"deduplication": {"window": "PT1H"}}));
    file(&[broker, native_trigger("all", url, json!({}))])
}

async fn settled(waypost: &Waypost, matched: u64, repeated: impl Fn(u64) -> bool) -> Value {
    eventually("all events to be examined", async || {
        let status = waypost.status().await;
        let row = waypost.trigger("all").await;
        let log = status["logs"].as_array().unwrap().iter().find(|log| log["name"] == "default").unwrap();
        let done = count(&row, "lagEvents") == 0
            && count(&row, "matched") == matched
            && repeated(count(log, "repeated"));
        done.then_some(row)
    })
    .await
}

fn ids(subscriber: &Subscriber) -> Vec<String> {
    let mut ids: Vec<_> = subscriber.received().iter().map(Received::id).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_repeat_is_stored_and_delivered_to_nobody_over_a_kill_and_over_lost_match_lists() {
    let subscriber = Subscriber::accepting().await;
    // Nobody is there at first, so that everything is still owed when the match lists are lost.
    let waypost = Setup::new(&manifests("http://127.0.0.1:9/")).start().await;
    for id in ["a", "b", "a", "b", "c"] {
        waypost.accept(event(INGRESS, id, "t", &[], "")).await;
    }
    settled(&waypost, 3, |repeated| repeated == 2).await;
    let explained = waypost.admin_get("/api/v1/explain?broker=default&position=0:2").await.json();
    assert_eq!(explained["repeats"], "0:0", "{explained}");
    let reason = explained["triggers"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("repeats the event at 0:0"), "{explained}");

    // What was examined just before the kill may be examined again, and is counted then.
    let waypost = waypost.kill(|setup| setup).await;
    for id in ["c", "a", "d"] {
        waypost.accept(event(INGRESS, id, "t", &[], "")).await;
    }
    settled(&waypost, 4, |repeated| repeated >= 2).await;

    let lose = |setup: Setup| {
        let log = setup.directory().join("data/logs/default/default");
        let files = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
        let lists: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|kind| kind == "matches")).collect();
        assert!(!lists.is_empty());
        lists.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        setup.file("manifests.yaml", &manifests(&subscriber.url("/"))).allow("match list")
    };
    let waypost = waypost.restart(lose).await;
    eventually("all to be delivered", async || (ids(&subscriber).len() >= 4).then_some(())).await;
    let row = settled(&waypost, 4, |repeated| repeated == 0).await;
    assert_eq!((count(&row, "delivered"), count(&row, "pending")), (4, 0), "{row}");
    assert_eq!(ids(&subscriber), ["a", "b", "c", "d"]);
    waypost.stop().await;
}

#[tokio::test]
async fn a_window_that_is_longer_than_events_are_kept_is_refused() {
    let spec = json!({"retention": {"age": "PT1M"}, "deduplication": {"window": "PT2M"}});
    let text = file(&[native_broker("default", spec)]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("b.yaml"), text).unwrap();
    let finished = binary::run_in(directory.path(), &["check", "-f", "b.yaml", "-o", "json"], b"").await;
    let problems = finished.json();
    assert_eq!(problems.as_array().unwrap().len(), 1, "{problems}");
    assert_eq!(
        (&problems[0]["code"], &problems[0]["path"]),
        (&json!("E0111"), &json!("spec.deduplication.window"))
    );
}
