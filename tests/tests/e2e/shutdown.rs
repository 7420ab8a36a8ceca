//! How the process ends: in order, within its time, and at once when told twice.

use serde_json::json;
use waypost_tests::client::{Raw, event};
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};

use crate::manifests::{default_broker, trigger};

const INGRESS: &str = "/default/default";

/// A subscriber that holds every answer until it is released.
async fn holding() -> Subscriber {
    Subscriber::new(|_| Behaviour::Held(answer(200, &[], ""))).await
}

async fn with_one_in_flight(subscriber: &Subscriber, timeout: &str) -> Waypost {
    let manifests = default_broker(&[trigger("all", &subscriber.url("/"), json!({}))]);
    // What does not finish in time is told, once.
    let setup =
        Setup::new(&manifests).arguments(&["--shutdown-timeout", timeout]).allow("stop").allow("finish");
    let waypost = setup.start().await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    subscriber.wait_for(1).await;
    waypost
}

#[tokio::test]
async fn deliveries_under_way_are_finished() {
    let subscriber = holding().await;
    let mut waypost = with_one_in_flight(&subscriber, "30s").await;
    waypost.signal("TERM");
    waypost_tests::eventually("the end to begin", async || {
        waypost.log().iter().any(|line| line.to_string().contains("stopping")).then_some(())
    })
    .await;
    subscriber.release();
    assert_eq!(waypost.ended().await.code(), Some(0));
    waypost.quiet();
    assert_eq!(subscriber.received().len(), 1);
}

#[tokio::test]
async fn an_interrupt_stops_as_well_as_a_termination() {
    let subscriber = Subscriber::accepting().await;
    let mut waypost =
        Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    waypost.signal("INT");
    assert_eq!(waypost.ended().await.code(), Some(0));
    waypost.quiet();
}

#[tokio::test]
async fn a_subscriber_that_never_answers_does_not_keep_the_process() {
    let subscriber = holding().await;
    let mut waypost = with_one_in_flight(&subscriber, "500ms").await;
    waypost.signal("TERM");
    assert_eq!(waypost.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let subscriber = holding().await;
    let mut waypost = with_one_in_flight(&subscriber, "10m").await;
    waypost.signal("TERM");
    waypost_tests::eventually("the end to begin", async || {
        waypost.log().iter().any(|line| line.to_string().contains("stopping")).then_some(())
    })
    .await;
    // The same request, arriving twice: to the process and to its group.
    waypost.signal("TERM");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_ne!(waypost.resource("Broker", "default").await, serde_json::Value::Null, "it still answers");
    waypost.signal("TERM");
    assert_eq!(waypost.ended().await.code(), Some(130));
}

#[tokio::test]
async fn what_is_sent_while_the_process_stops_is_refused_or_durably_taken_but_never_dropped_in_silence() {
    let subscriber = holding().await;
    let mut waypost = with_one_in_flight(&subscriber, "30s").await;
    // A connection from before the end.
    let mut socket = Raw::connect(waypost.ingress).await;
    let request = "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 2\r\nce-source: /s\r\nce-type: t\r\n\
                   content-length: 0\r\n\r\n";
    socket.write(request).await;
    assert!(socket.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 202 "));
    waypost.signal("TERM");
    // It is closed, or says that no events are taken now.
    let rest = socket.read_to_end().await;
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 503 "), "{rest}");
    subscriber.release();
    assert_eq!(waypost.ended().await.code(), Some(0));
    assert!(tokio::net::TcpStream::connect(waypost.ingress).await.is_err());
}
