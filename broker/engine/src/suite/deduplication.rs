//! Events that repeat earlier ones.

use waypost_core::manifest::ResourceName;

use super::*;
use crate::explain::{ExplainQuery, ExplainSelection, RecordKey};

const DEDUPLICATING: &str = "
apiVersion: waypost.dev/v1alpha1
kind: Broker
metadata: {name: b}
spec: {log: memory, deduplication: {window: PT10M, maxEvents: 4}}
---";

fn with_source(id: &str, source: &str) -> Event {
    Event::builder(id, source, "t").build().expect("the event is valid")
}

async fn repeated(stage: &Stage) -> u64 {
    let status = stage.engine.status(&StatusQuery::default()).await;
    status.logs.iter().find(|log| log.name == "b").expect("the broker has a log").repeated
}

#[test]
fn a_repeat_within_the_window_matches_nobody_and_is_counted() {
    on_one_thread(async {
        let hand = Hand::takes_all("unlike-1");
        let stage =
            Stage::of(&[DEDUPLICATING, &sink("unlike-1"), &trigger("all", "unlike-1", "")].concat()).await;
        stage.publish("b", [1, 1, 2]).await;
        // The same id of another source is another event.
        stage.publish_event("b", with_source("1", "/other")).await;
        stage.until("all", |line| line.delivered == 3).await;
        let mut sent = hand.sent();
        sent.sort();
        assert_eq!(sent, ["1", "1", "2"]);
        assert_eq!(repeated(&stage).await, 1);

        // After the window, counted from the newest one, it is an event again.
        tokio::time::advance(Duration::from_secs(9 * 60)).await;
        stage.publish("b", [2]).await;
        tokio::time::advance(Duration::from_secs(9 * 60)).await;
        stage.publish("b", [2]).await;
        tokio::time::advance(Duration::from_secs(11 * 60)).await;
        stage.publish("b", [2, 7]).await;
        let line = stage.until("all", |line| line.delivered == 5).await;
        assert_eq!((line.matched, repeated(&stage).await), (5, 3));

        // So is one with as many events between.
        stage.publish("b", [8, 9, 7, 10, 11, 12, 13, 7]).await;
        let line = stage.until("all", |line| line.lag_events == 0 && line.pending == 0).await;
        assert_eq!((line.matched, repeated(&stage).await), (12, 4));
        stage.shut_down().await;
    });
}

#[test]
fn explain_tells_what_a_repeat_repeats() {
    on_one_thread(async {
        let _hand = Hand::takes_all("unlike-2");
        let stage =
            Stage::of(&[DEDUPLICATING, &sink("unlike-2"), &trigger("all", "unlike-2", "")].concat()).await;
        stage.publish("b", [1, 2, 1]).await;
        stage.until("all", |line| line.delivered == 2 && line.lag_events == 0).await;
        let record = RecordKey::Event { source: "/test".to_owned(), id: "1".to_owned() };
        let broker = ResourceName::new("default", "b");
        let query = ExplainQuery { broker, record, selection: ExplainSelection::default() };
        let explained = stage.engine.explain(query).await.expect("it is explained");
        let record = explained.record.expect("it is a record");
        assert_eq!((record.position.as_str(), record.repeats.as_deref()), ("0:2", Some("0:0")));
        let line = &explained.triggers[0];
        assert!(!line.matched && line.deliveries.is_empty(), "{line:?}");
        assert!(
            line.reason.as_ref().is_some_and(|reason| reason.contains("repeats the event at 0:0")),
            "{line:?}"
        );
        stage.shut_down().await;
    });
}

#[test]
fn replies_are_neither_repeats_nor_repeated() {
    on_one_thread(async {
        // It answers with the event that it got.
        Hand::on("echoing-3", |event, call| {
            if call < 3 { Outcome::Replied(vec![event.clone()]) } else { Outcome::Delivered }
        });
        let stage =
            Stage::of(&[DEDUPLICATING, &sink("echoing-3"), &trigger("echoing-3", "echoing-3", "")].concat())
                .await;
        stage.publish("b", [1]).await;
        let line = stage.until("echoing-3", |line| line.delivered >= 3 && line.pending == 0).await;
        assert!(line.matched >= 3, "{line:?}");
        assert_eq!(repeated(&stage).await, 0);
        stage.publish("b", [1]).await;
        stage.until("echoing-3", |line| line.lag_events == 0 && line.pending == 0).await;
        assert_eq!(repeated(&stage).await, 1);
        stage.shut_down().await;
    });
}

#[test]
fn the_rule_of_the_plan_decides_and_looks_back_beyond_it() {
    on_one_thread(async {
        let _hand = Hand::takes_all("unlike-4");
        let rest = [sink("unlike-4"), trigger("all", "unlike-4", "")].concat();
        let mut stage = Stage::of(&format!("{BROKER}{rest}")).await;
        stage.publish("b", [1, 1]).await;
        stage.until("all", |line| line.delivered == 2).await;
        stage.apply(&format!("{DEDUPLICATING}{rest}")).await;
        stage.publish("b", [1, 2]).await;
        stage.until("all", |line| line.delivered == 3 && line.lag_events == 0).await;
        assert_eq!(repeated(&stage).await, 1);
        stage.apply(&format!("{BROKER}{rest}")).await;
        stage.publish("b", [2]).await;
        stage.until("all", |line| line.delivered == 4).await;
        assert_eq!(repeated(&stage).await, 1);
        stage.shut_down().await;
    });
}

#[test]
fn a_start_in_the_past_leaves_out_what_was_a_repeat_then() {
    on_one_thread(async {
        let _first = Hand::takes_all("unlike-5");
        let late = Hand::takes_all("unlike-6");
        let base =
            [DEDUPLICATING, &sink("unlike-5"), &sink("unlike-6"), &trigger("first", "unlike-5", "")].concat();
        let mut stage = Stage::of(&base).await;
        stage.publish("b", [1, 2, 1]).await;
        stage.until("first", |line| line.delivered == 2 && line.lag_events == 0).await;
        // Under a plan without the rule all of them match.
        stage.apply(&base.replace("window: PT10M", "window: PT0.001S")).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        stage.publish("b", [2]).await;
        stage.until("first", |line| line.delivered == 3).await;
        stage.apply(&[base.as_str(), &trigger("late", "unlike-6", "startFrom: earliest")].concat()).await;
        stage.until("late", |line| line.delivered == 3 && line.lag_events == 0).await;
        let mut sent = late.sent();
        sent.sort();
        assert_eq!(sent, ["1", "2", "2"]);
        stage.shut_down().await;
    });
}
