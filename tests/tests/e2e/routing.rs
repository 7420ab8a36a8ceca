//! Which trigger gets what: the routing matrix of Knative's conformance tests, and events among many triggers.

use serde_json::{Value, json};
use waypost_tests::client::{event, structured};
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Subscriber, reply};

use crate::manifests::{broker, default_broker, file, only, sink, sink_ref, trigger, trigger_to};

const INGRESS: &str = "/default/default";

/// Sends one event of type `t` and returns the paths that were reached, sorted, once all is settled.
async fn reached(subscriber: &Subscriber, triggers: &[Value]) -> Vec<String> {
    let waypost = Waypost::start(&default_broker(triggers)).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    waypost.stop().await;
    let mut paths: Vec<_> = subscriber.received().into_iter().map(|received| received.path).collect();
    paths.sort_unstable();
    paths
}

#[tokio::test]
async fn no_filter() {
    let subscriber = Subscriber::accepting().await;
    assert_eq!(reached(&subscriber, &[trigger("t1", &subscriber.url("/t1"), json!({}))]).await, ["/t1"]);
}

#[tokio::test]
async fn a_filter_that_does_not_match() {
    let subscriber = Subscriber::accepting().await;
    assert_eq!(reached(&subscriber, &[trigger("t1", &subscriber.url("/t1"), only("other"))]).await, [""; 0]);
}

#[tokio::test]
async fn a_filter_that_matches() {
    let subscriber = Subscriber::accepting().await;
    assert_eq!(reached(&subscriber, &[trigger("t1", &subscriber.url("/t1"), only("t"))]).await, ["/t1"]);
}

#[tokio::test]
async fn two_triggers_that_match() {
    let subscriber = Subscriber::accepting().await;
    let triggers =
        [trigger("t1", &subscriber.url("/t1"), only("t")), trigger("t2", &subscriber.url("/t2"), only("t"))];
    assert_eq!(reached(&subscriber, &triggers).await, ["/t1", "/t2"]);
}

#[tokio::test]
async fn one_of_two_triggers_matches() {
    let subscriber = Subscriber::accepting().await;
    let triggers = [
        trigger("t1", &subscriber.url("/t1"), only("t")),
        trigger("t2", &subscriber.url("/t2"), only("other")),
    ];
    assert_eq!(reached(&subscriber, &triggers).await, ["/t1"]);
}

#[tokio::test]
async fn two_triggers_without_filters() {
    let subscriber = Subscriber::accepting().await;
    let triggers = [
        trigger("t1", &subscriber.url("/t1"), json!({})),
        trigger("t2", &subscriber.url("/t2"), json!({"filter": {}})),
    ];
    assert_eq!(reached(&subscriber, &triggers).await, ["/t1", "/t2"]);
}

#[tokio::test]
async fn the_reply_of_one_trigger_matches_only_the_other() {
    let subscriber = Subscriber::new(|received| match received.path.as_str() {
        "/t1" => reply("2", "answer", &[], ""),
        _ => 200.into(),
    })
    .await;
    let triggers = [
        trigger("t1", &subscriber.url("/t1"), only("t")),
        trigger("t2", &subscriber.url("/t2"), only("answer")),
    ];
    assert_eq!(reached(&subscriber, &triggers).await, ["/t1", "/t2"]);
}

#[tokio::test]
async fn many_triggers_and_many_events_meet_as_a_naive_evaluation_says() {
    const TYPES: usize = 10;
    let subscriber = Subscriber::accepting().await;
    let triggers: Vec<_> = (0..60)
        .map(|number| {
            let (event_type, source) =
                (format!("type.{}", number % TYPES), format!("/source/{}", number % 3));
            let filters = json!([{"exact": {"type": event_type}}, {"prefix": {"source": source}}]);
            trigger(
                &format!("t{number}"),
                &subscriber.url(&format!("/{number}")),
                json!({"filters": filters}),
            )
        })
        .collect();
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    let mut expected = Vec::new();
    for number in 0..30 {
        let (event_type, source) = (number * 7 % TYPES, number % 4);
        let event = json!({
            "specversion": "1.0", "id": number.to_string(), "source": format!("/source/{source}/x"),
            "type": format!("type.{event_type}"),
        });
        waypost.accept(structured(INGRESS, event.to_string())).await;
        let matching = (0..60).filter(|trigger| trigger % TYPES == event_type && trigger % 3 == source);
        expected.extend(matching.map(|trigger| (format!("/{trigger}"), number.to_string())));
    }
    waypost.settled().await;
    let mut received: Vec<_> =
        subscriber.received().into_iter().map(|received| (received.path.clone(), received.id())).collect();
    received.sort_unstable();
    expected.sort_unstable();
    assert!(!expected.is_empty());
    assert_eq!(received, expected);
    waypost.stop().await;
}

#[tokio::test]
async fn a_trigger_may_send_to_another_broker_of_the_process() {
    let subscriber = Subscriber::accepting().await;
    let to_second =
        json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "second"}});
    let mut last = trigger("last", &subscriber.url("/last"), json!({}));
    last["spec"]["broker"] = json!("second");
    let documents = [
        broker("default", json!({})),
        broker("second", json!({})),
        trigger_to("bridge", to_second, json!({})),
        last,
    ];
    let waypost = Waypost::start(&file(&documents)).await;
    waypost.accept(event(INGRESS, "1", "t", &[("ce-extension", "kept")], "data")).await;
    let received = &subscriber.wait_for(1).await[0];
    assert_eq!((received.header("ce-extension"), received.body.as_ref()), ("kept", &b"data"[..]));
    let status = waypost.settled().await;
    assert_eq!(status["triggers"].as_array().unwrap().len(), 2);
    waypost.stop().await;
}

#[tokio::test]
async fn a_sink_gets_events_from_its_triggers_and_at_its_own_url() {
    let documents = [
        broker("default", json!({})),
        sink("console", json!({"stdout": {"format": "json"}})),
        trigger_to("all", sink_ref("console"), json!({})),
    ];
    let waypost = Waypost::start(&file(&documents)).await;
    waypost.accept(event(INGRESS, "by-trigger", "t", &[], "")).await;
    waypost.accept(event("/default/sinks/console", "directly", "t", &[], "")).await;
    waypost_tests::eventually("both events on the standard output", async || {
        let printed = waypost.stdout();
        let ids = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut ids: Vec<_> = ids.map(|event| event["id"].as_str().unwrap_or_default().to_owned()).collect();
        ids.sort_unstable();
        (ids == ["by-trigger", "directly"]).then_some(())
    })
    .await;
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_sink_whose_reader_went_away_fails_its_deliveries_and_nothing_else() {
    let subscriber = Subscriber::accepting().await;
    let documents = [
        broker("default", json!({})),
        sink("console", json!({"stdout": {}})),
        trigger_to("printed", sink_ref("console"), json!({"delivery": {"retry": 1}})),
        trigger("sent", &subscriber.url("/"), json!({})),
    ];
    let waypost = Setup::new(&file(&documents)).unread().start().await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    assert_eq!(waypost.trigger("sent").await["delivered"], 1);
    assert_eq!(waypost.trigger("printed").await["deadLettered"], 1);
    waypost.stop().await;
}
