//! Replies: events that subscribers answer with.

use serde_json::json;
use waypost_tests::client::event;
use waypost_tests::ledger::count;
use waypost_tests::process::Waypost;
use waypost_tests::subscriber::{Behaviour, Subscriber, answer, reply};

use crate::manifests::{default_broker, file, native_broker, only, retry, trigger};

const INGRESS: &str = "/default/default";

/// A subscriber that answers events of the type `t` with `answer`, and takes everything else.
async fn answering(behaviour: impl Fn(usize) -> Behaviour + Send + Sync + 'static) -> Subscriber {
    Subscriber::new(move |received| match received.path.as_str() {
        "/asks" => behaviour(received.attempt),
        _ => 200.into(),
    })
    .await
}

/// A broker whose trigger `asks` takes the type `t` with two retries, and whose trigger `hears` takes all others.
async fn asking(subscriber: &Subscriber) -> Waypost {
    let mut asks = only("t");
    asks["delivery"] = retry(2);
    let hears = json!({"filters": [{"not": {"exact": {"type": "t"}}}]});
    let triggers =
        [trigger("asks", &subscriber.url("/asks"), asks), trigger("hears", &subscriber.url("/hears"), hears)];
    Waypost::start(&default_broker(&triggers)).await
}

#[tokio::test]
async fn an_event_in_the_answer_goes_to_the_broker_in_any_mode() {
    let structured =
        r#"{"specversion":"1.0","id":"s","source":"/reply","type":"answer","data":{"b":1.0,"a":2}}"#;
    let batch = r#"[{"specversion":"1.0","id":"b1","source":"/reply","type":"answer"},{"specversion":"1.0","id":"b2","source":"/reply","type":"answer"}]"#;
    let large = "x".repeat(36_000);
    let subscriber =
        Subscriber::new(move |received| match (received.path.as_str(), received.id().as_str()) {
            ("/asks", "binary") => reply("b", "answer", &[("ce-extension", "kept")], large.clone()),
            ("/asks", "structured") => Behaviour::Answer(answer(
                202,
                &[("content-type", "application/cloudevents+json")],
                structured,
            )),
            ("/asks", "batch") => Behaviour::Answer(answer(
                200,
                &[("content-type", "application/cloudevents-batch+json")],
                batch,
            )),
            _ => 200.into(),
        })
        .await;
    let waypost = asking(&subscriber).await;
    for (id, replies) in [("binary", 1), ("structured", 2), ("batch", 4)] {
        waypost.accept(event(INGRESS, id, "t", &[], "")).await;
        waypost.settled().await;
        let heard: Vec<_> =
            subscriber.received().into_iter().filter(|received| received.path == "/hears").collect();
        assert_eq!(heard.len(), replies, "{id}: {heard:#?}");
        let last = &heard[replies - 1];
        match id {
            "binary" => assert_eq!((last.header("ce-extension"), last.body.len()), ("kept", 36_000)),
            "structured" => assert_eq!(last.body, r#"{"b":1.0,"a":2}"#),
            _ => assert!(last.id().starts_with('b')),
        }
        assert_eq!(last.header("ce-source"), "/reply");
        assert!(!last.headers.contains_key("ce-knativebrokerttl"), "{last:?}");
    }
    waypost.stop().await;
}

#[tokio::test]
async fn an_answer_that_claims_to_be_an_event_and_is_none_is_a_failed_delivery() {
    let subscriber = answering(|attempt| match attempt {
        1 => Behaviour::Answer(answer(200, &[("ce-specversion", "1.0"), ("ce-id", "1")], "")),
        2 => Behaviour::Answer(answer(200, &[("content-type", "application/cloudevents+json")], "{}")),
        _ => 200.into(),
    })
    .await;
    let waypost = asking(&subscriber).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    assert_eq!(count(&waypost.trigger("asks").await, "delivered"), 1);
    assert_eq!(subscriber.received().len(), 3);
    waypost.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_no_event_is_ignored_unless_the_broker_is_strict() {
    let plain = || Behaviour::Answer(answer(200, &[("content-type", "application/json")], r#"{"ok":true}"#));
    let subscriber = answering(move |_| plain()).await;
    let waypost = asking(&subscriber).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    assert_eq!(count(&waypost.trigger("asks").await, "delivered"), 1);
    waypost.stop().await;

    let subscriber = answering(move |_| plain()).await;
    let documents = [
        native_broker("default", json!({"strictReplies": true})),
        trigger("asks", &subscriber.url("/asks"), json!({"delivery": retry(2)})),
    ];
    let waypost = Waypost::start(&file(&documents)).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    assert_eq!(count(&waypost.trigger("asks").await, "deadLettered"), 1);
    assert_eq!(subscriber.received().len(), 3);
    waypost.stop().await;
}

#[tokio::test]
async fn a_chain_of_replies_goes_through_its_triggers() {
    let subscriber = Subscriber::new(|received| match received.path.as_str() {
        "/first" => reply("2", "second", &[], received.body.clone()),
        "/second" => reply("3", "third", &[], received.body.clone()),
        _ => 200.into(),
    })
    .await;
    let triggers = ["first", "second", "third"]
        .map(|name| trigger(name, &subscriber.url(&format!("/{name}")), only(name)));
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    waypost.accept(event(INGRESS, "1", "first", &[], "the data")).await;
    let received = subscriber.wait_for(3).await;
    let paths: Vec<_> = received.iter().map(|received| received.path.as_str()).collect();
    assert_eq!(paths, ["/first", "/second", "/third"]);
    assert_eq!(received[2].body, "the data");
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_loop_ends_when_its_hops_are_spent() {
    let subscriber = Subscriber::new(|_| reply("again", "t", &[], "")).await;
    let waypost = Waypost::start(&default_broker(&[trigger("loops", &subscriber.url("/"), json!({}))])).await;
    waypost.accept(event(INGRESS, "1", "t", &[("ce-knativebrokerttl", "4")], "")).await;
    waypost.settled().await;
    let row = waypost.trigger("loops").await;
    assert_eq!(count(&row, "deadLettered"), 1, "{row}");
    let short = count(&row, "matched");
    assert!((3..=5).contains(&short), "{row}");
    assert_eq!(subscriber.received().len() as u64, short);

    // Nothing says how often: as often as Knative's default allows.
    waypost.accept(event(INGRESS, "2", "t", &[], "")).await;
    waypost.settled().await;
    let row = waypost.trigger("loops").await;
    assert_eq!(count(&row, "deadLettered"), 2, "{row}");
    assert!((254..=257).contains(&(count(&row, "matched") - short)), "{row}");
    waypost.stop().await;
}
