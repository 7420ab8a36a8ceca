//! Events as they come.

use serde_json::{Value, json};
use waypost_tests::binary::run;
use waypost_tests::client::event;
use waypost_tests::process::Setup;
use waypost_tests::subscriber::Subscriber;

use crate::manifests::{default_broker, only, trigger};

const INGRESS: &str = "/default/default";

fn ids(lines: &str) -> Vec<String> {
    let read =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"]["id"].as_str().unwrap().to_owned();
    lines.lines().map(read).collect()
}

#[tokio::test]
async fn events_are_shown_as_they_come_and_nothing_is_changed_by_it() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Setup::new(&default_broker(&[trigger("a", &subscriber.url("/"), only("a"))])).start().await;
    let admin = format!("http://{}", waypost.admin);
    let tail = async |arguments: &[&str]| {
        run(&[&["tail", "--admin", &admin, "-o", "json"], arguments].concat()).await
    };
    let send = async |ids: &[&str]| {
        for id in ids {
            waypost.accept(event(INGRESS, id, &id[..1], &[], "")).await;
        }
    };
    // What is there already is shown from a position on; without one only what comes.
    send(&["a1", "b1"]).await;
    waypost.settled().await;
    let told = tail(&["default/default", "--from", "0:0", "--count", "2"]).await;
    assert_eq!((told.code, ids(&told.stdout)), (Some(0), vec!["a1".to_owned(), "b1".to_owned()]), "{told:?}");

    let later = async {
        tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
        send(&["a2", "b2", "a3"]).await;
    };
    let (all, of_trigger, filtered, ()) = tokio::join!(
        tail(&["default/default", "--count", "3"]),
        tail(&["--trigger", "default/a", "--count", "2"]),
        tail(&["default/default", "--type", "b", "--filter", r#"{"prefix": {"id": "b"}}"#, "--count", "1"]),
        later,
    );
    assert_eq!(ids(&all.stdout), ["a2", "b2", "a3"], "{all:?}");
    assert_eq!(ids(&of_trigger.stdout), ["a2", "a3"], "{of_trigger:?}");
    assert_eq!(ids(&filtered.stdout), ["b2"], "{filtered:?}");
    let text = run(&["tail", "--admin", &admin, "default/default", "--from", "0:4", "--count", "1"]).await;
    assert!(text.stdout.contains("0:4  a  ") && text.stdout.trim_end().ends_with("  a3"), "{text:?}");

    let row = waypost.settled().await;
    assert_eq!(row["triggers"][0]["delivered"], json!(3), "{row}");
    waypost.stop().await;
}

#[tokio::test]
async fn what_cannot_be_shown_is_a_problem_that_says_why() {
    let waypost = Setup::new(&default_broker(&[])).start().await;
    for (query, status, code) in [
        ("broker=other", 404, "E0807"),
        ("trigger=other", 404, "E0807"),
        ("", 400, "E0804"),
        ("broker=default&trigger=t", 400, "E0804"),
        ("broker=default&from=7", 400, "E0804"),
        ("broker=default&from=0:7", 400, "E0804"),
        ("broker=default&from=0:0,1:0", 400, "E0804"),
        ("broker=default&filter=x", 400, "E0804"),
        ("broker=default&filter=%7B%22no%22%3A1%7D", 400, "E0804"),
        ("broker=default&wait=x", 400, "E0804"),
    ] {
        let answer = waypost.admin_get(&format!("/api/v1/tail?{query}")).await;
        assert_eq!(answer.problem(status)["code"], code, "{query}");
    }
    let empty = waypost.admin_get("/api/v1/tail?broker=default").await.json();
    assert_eq!(empty, json!({"events": [], "next": "0:0", "skipped": 0}));
    let admin = format!("http://{}", waypost.admin);
    let refused = run(&["tail", "--admin", &admin, "default/other"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("E0807"), "{refused:?}");
    waypost.stop().await;
}
