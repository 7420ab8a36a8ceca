//! Dead letters: what they say about the delivery that failed, and where they go.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use waypost_tests::client::event;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Received, Subscriber, answer};

use crate::manifests::{broker, default_broker, file, retry, sink, sink_ref, trigger};

const INGRESS: &str = "/default/default";

/// The one dead letter that comes of sending one event to `url` with these retries.
async fn dead_letter(url: &str, retries: u32) -> Received {
    let letters = Subscriber::accepting().await;
    let mut delivery = retry(retries);
    delivery["deadLetterSink"] = json!({"uri": letters.url("/letters")});
    let waypost =
        Waypost::start(&default_broker(&[trigger("failing", url, json!({"delivery": delivery}))])).await;
    waypost
        .accept(event(
            INGRESS,
            "1",
            "t",
            &[("ce-extension", "kept"), ("content-type", "text/plain")],
            "the data",
        ))
        .await;
    letters.wait_for(1).await;
    waypost.settled().await;
    waypost_tests::eventually("the copy in the store to go", async || {
        (count(&waypost.trigger("failing").await, "deadLettersStored") == 0).then_some(())
    })
    .await;
    assert_eq!(count(&waypost.trigger("failing").await, "deadLettered"), 1);
    waypost.stop().await;
    let received = letters.received();
    assert_eq!(received.len(), 1, "exactly one dead letter: {received:#?}");
    let letter = received[0].clone();
    assert_eq!((letter.header("ce-extension"), letter.body.as_ref()), ("kept", &b"the data"[..]));
    assert_eq!((letter.header("ce-id"), letter.header("content-type")), ("1", "text/plain"));
    assert_eq!(letter.header("ce-knativeerrordest"), url);
    letter
}

fn error_data(letter: &Received) -> Vec<u8> {
    let text = letter.header("ce-knativeerrordata");
    assert!(text.len() <= 1024, "{}", text.len());
    STANDARD.decode(text).unwrap()
}

#[tokio::test]
async fn a_permanent_answer_with_a_body() {
    let subscriber = Subscriber::new(|_| Behaviour::Answer(answer(422, &[], "no such order"))).await;
    let letter = dead_letter(&subscriber.url("/orders"), 3).await;
    assert_eq!(letter.header("ce-knativeerrorcode"), "422");
    assert_eq!(error_data(&letter), b"no such order");
    assert_eq!(subscriber.received().len(), 1);
}

#[tokio::test]
async fn a_permanent_answer_without_a_body() {
    let subscriber = Subscriber::new(|_| 422.into()).await;
    let letter = dead_letter(&subscriber.url("/orders"), 3).await;
    assert_eq!(letter.header("ce-knativeerrorcode"), "422");
}

#[tokio::test]
async fn an_answer_that_is_tried_again_until_the_retries_are_spent() {
    let subscriber = Subscriber::new(|_| 404.into()).await;
    let letter = dead_letter(&subscriber.url("/orders"), 2).await;
    assert_eq!(letter.header("ce-knativeerrorcode"), "404");
    assert_eq!(subscriber.received().len(), 3);
}

#[tokio::test]
async fn a_long_body_is_cut_so_that_what_is_left_can_be_read() {
    let subscriber = Subscriber::new(|_| Behaviour::Answer(answer(400, &[], vec![b'\xe2'; 36_864]))).await;
    let letter = dead_letter(&subscriber.url("/"), 0).await;
    assert_eq!(error_data(&letter), vec![b'\xe2'; 768]);
}

#[tokio::test]
async fn a_subscriber_that_cannot_be_reached() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let letter = dead_letter(&url, 1).await;
    assert_eq!(letter.header("ce-knativeerrorcode"), "500");
    assert!(!error_data(&letter).is_empty());
}

#[tokio::test]
async fn without_a_sink_they_stay_in_the_store() {
    let subscriber = Subscriber::new(|_| 400.into()).await;
    let waypost =
        Waypost::start(&default_broker(&[trigger("failing", &subscriber.url("/"), json!({}))])).await;
    for id in 0..5 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    waypost.settled().await;
    let row = waypost.trigger("failing").await;
    assert_eq!((count(&row, "deadLettered"), count(&row, "deadLettersStored")), (5, 5), "{row}");
    waypost.stop().await;
}

#[tokio::test]
async fn one_that_its_sink_refuses_stays_in_the_store() {
    let subscriber = Subscriber::new(|_| 400.into()).await;
    let mut delivery = retry(1);
    delivery["deadLetterSink"] = json!({"uri": subscriber.url("/letters")});
    let more = json!({"delivery": delivery});
    let setup = Setup::new(&default_broker(&[trigger("failing", &subscriber.url("/orders"), more)]));
    let waypost = setup.allow("it stays in the store").start().await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    subscriber.wait_for(2).await;
    waypost.settled().await;
    let row = waypost.trigger("failing").await;
    assert_eq!((count(&row, "deadLettered"), count(&row, "deadLettersStored")), (1, 1), "{row}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_native_sink_takes_them_too() {
    let subscriber = Subscriber::new(|_| 400.into()).await;
    let documents = [
        broker("default", json!({"delivery": {"deadLetterSink": sink_ref("console")}})),
        sink("console", json!({"stdout": {"format": "json"}})),
        trigger("failing", &subscriber.url("/"), json!({})),
    ];
    let waypost = Waypost::start(&file(&documents)).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost_tests::eventually("the dead letter on the standard output", async || {
        let printed = waypost.stdout();
        let letter = printed.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())?;
        assert_eq!((&letter["id"], &letter["knativeerrorcode"]), (&json!("1"), &json!(400)));
        Some(())
    })
    .await;
    waypost.settled().await;
    waypost.stop().await;
}
