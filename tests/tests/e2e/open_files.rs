//! A process that may open few files, or none any more.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use waypost_tests::client::{Connection, event, send};
use waypost_tests::eventually;
use waypost_tests::process::Setup;
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};

use crate::manifests::{default_broker, trigger};

const INGRESS: &str = "/default/default";

#[tokio::test]
async fn few_open_files_are_enough_for_all_who_want_some() {
    const EVENTS: usize = 150;
    const TRIGGERS: usize = 8;
    const AT_A_TIME: usize = 40;
    const PAUSE: Duration = Duration::from_millis(20);
    let subscriber = Subscriber::new(|_| Behaviour::Later(PAUSE, answer(200, &[], ""))).await;
    let triggers: Vec<_> = (0..TRIGGERS)
        .map(|number| trigger(&format!("t{number}"), &subscriber.url(&format!("/{number}")), json!({})))
        .collect();
    // Of these 80 are for producers and 40 for connections to subscribers; each trigger has 64 in flight when it may.
    let waypost = Setup::new(&default_broker(&triggers)).open_files(160).start().await;
    let address = waypost.ingress;
    let mut sending: JoinSet<_> =
        (0..EVENTS).map(|id| send(address, event(INGRESS, &id.to_string(), "t", &[], ""))).collect();
    while let Some(answer) = sending.join_next().await {
        assert_eq!(answer.unwrap().status, 202);
    }
    subscriber.wait_for(EVENTS * TRIGGERS).await;
    let status = waypost.settled().await;
    assert!(status["triggers"].as_array().unwrap().iter().all(|row| row["delivered"] == EVENTS), "{status}");
    assert_eq!(subscriber.count(), EVENTS * TRIGGERS, "none was sent twice");
    let most = subscriber.most_within(PAUSE);
    assert!(most <= AT_A_TIME, "{most}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_log_waits_for_a_free_descriptor_and_goes_on() {
    const NONE_FREE: &str = "no file descriptor is free for the log";
    // More than the first segment holds, and the second.
    const EVENTS: usize = 1_000;
    let subscriber = Subscriber::accepting().await;
    let all = trigger("all", &subscriber.url("/"), json!({}));
    // Whoever else needs a file says so too, and tries again.
    let setup = Setup::new(&default_broker(&[all])).allow(NONE_FREE).allow("Too many open files");
    let waypost = setup.start().await;
    let mut producer = Connection::http1(waypost.ingress).await;
    assert_eq!(producer.send(event(INGRESS, "first", "t", &[], "")).await.status, 202);
    subscriber.wait_for(1).await;
    let before = waypost.limit_open_files(1);
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        for id in 0..EVENTS {
            let answer = producer.send(event(INGRESS, &id.to_string(), "t", &[], "x".repeat(1024))).await;
            assert_eq!(answer.status, 202, "{id}: {answer:?}");
        }
    });
    eventually("the log to wait", async || {
        waypost.log().iter().any(|line| line.to_string().contains(NONE_FREE)).then_some(())
    })
    .await;
    assert!(sending.try_join_next().is_none(), "what it waits for is needed");
    waypost.limit_open_files(before);
    sending.join_next().await.unwrap().unwrap();
    subscriber.wait_for(EVENTS + 1).await;
    waypost.settled().await;
    assert_eq!(subscriber.count(), EVENTS + 1);
    waypost.stop().await;
}
