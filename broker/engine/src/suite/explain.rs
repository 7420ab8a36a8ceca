//! What an engine tells of events that it has.

use std::collections::BTreeSet;

use waypost_core::manifest::ResourceName;
use waypost_log::Position;

use super::*;
use crate::explain::{
    ExplainError, ExplainQuery, ExplainSelection, Explained, ExplainedDelivery, MAX_EXPLAINS, RecordKey,
};

fn by_id(id: &str) -> ExplainQuery {
    query(RecordKey::Event { source: "/test".to_owned(), id: id.to_owned() })
}

fn query(record: RecordKey) -> ExplainQuery {
    let broker = ResourceName::new("default", "b");
    ExplainQuery { broker, record, selection: ExplainSelection::default() }
}

fn at(offset: u64) -> ExplainQuery {
    query(RecordKey::Position(Position { partition: 0, offset }))
}

fn delivery<'e>(explained: &'e Explained, trigger: &str) -> &'e ExplainedDelivery {
    let line = explained.triggers.iter().find(|line| line.name == trigger).expect("it is told of");
    assert!(line.matched && line.reason.is_none(), "{line:?}");
    assert_eq!(line.deliveries.len(), 1, "{line:?}");
    &line.deliveries[0]
}

fn reason<'e>(explained: &'e Explained, trigger: &str) -> &'e str {
    delivery(explained, trigger).reason.as_deref().expect("a pending delivery says why")
}

#[test]
fn a_pending_delivery_says_why() {
    on_one_thread(async {
        let hand = Hand::takes_all("held");
        hand.shut();
        Hand::on("away", |_, _| retryable());
        Hand::on("wrong", |_, _| misconfigured());
        let stage = Stage::of(
            &[
                BROKER,
                &sink("held"),
                &sink("away"),
                &sink("wrong"),
                &trigger("held", "held", ""),
                &trigger("paused", "held", "paused: true"),
                &trigger("away", "away", "delivery: {retry: 3, backoffPolicy: linear, backoffDelay: PT1H}"),
                &trigger("wrong", "wrong", ""),
            ]
            .concat(),
        )
        .await;
        stage.publish("b", [1]).await;
        stage.until("held", |line| line.in_flight == 1).await;
        stage.until("wrong", |line| !line.ready).await;
        let explained = loop {
            let explained = stage.engine.explain(by_id("1")).await.expect("it is there");
            if delivery(&explained, "away").place == Some("waiting") {
                break explained;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        for (trigger, place, why) in [
            ("held", "inFlight", "in the window"),
            ("paused", "untaken", "is paused"),
            ("away", "waiting", "it waits until"),
            ("wrong", "inFlight", "no such bucket"),
        ] {
            let delivery = delivery(&explained, trigger);
            assert_eq!((delivery.state, delivery.place), ("pending", Some(place)), "{trigger}: {delivery:?}");
            assert!(reason(&explained, trigger).contains(why), "{trigger}: {delivery:?}");
            assert_eq!(delivery.due.is_some(), trigger == "away", "{delivery:?}");
        }
        assert_eq!(delivery(&explained, "away").attempts[0].code, Some(codes::SINK_UNAVAILABLE));
        hand.open();
        stage.until("held", |line| line.delivered == 1).await;
        let explained = stage.engine.explain(by_id("1")).await.expect("it is there");
        assert_eq!(delivery(&explained, "held").state, "delivered");
        stage.shut_down().await;
    });
}

#[test]
fn what_is_told_to_match_is_what_was_delivered() {
    on_one_thread(async {
        let filters = [
            "",
            "filters: [{exact: {type: a}}]",
            "filters: [{not: {exact: {type: a}}}]",
            "filters: [{any: [{prefix: {id: '1'}}, {cesql: \"type = 'c'\"}]}]",
            "filters: [{jsonpath: '$.a'}]",
        ];
        let sinks: Vec<_> = (0..filters.len()).map(|number| format!("taken{number}")).collect();
        let hands: Vec<_> = sinks.iter().map(|name| Hand::takes_all(name)).collect();
        let mut yaml = BROKER.to_owned();
        for (name, filter) in sinks.iter().zip(filters) {
            yaml.push_str(&sink(name));
            yaml.push_str(&trigger(name, name, filter));
        }
        let stage = Stage::of(&yaml).await;
        for number in 0..12 {
            let event = event(&number.to_string(), ["a", "b", "c"][number % 3]);
            stage.publish_event("b", event).await;
        }
        for name in &sinks {
            stage.until(name, |line| line.pending == 0 && line.lag_events == 0).await;
        }
        for number in 0..12_u64 {
            let id = number.to_string();
            let explained = stage.engine.explain(at(number)).await.expect("it is there");
            let told: BTreeSet<_> =
                explained.triggers.iter().filter(|line| line.matched).map(|line| &line.name).collect();
            for line in &explained.triggers {
                assert_eq!(line.reason.is_none(), line.matched, "{line:?}");
                assert_eq!(line.deliveries.len(), usize::from(line.matched), "{line:?}");
            }
            let taken: BTreeSet<_> = sinks
                .iter()
                .zip(&hands)
                .filter(|(_, hand)| hand.sent().contains(&id))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(told, taken, "event {id}");
            assert_eq!((explained.matched, explained.not_matched), (told.len(), filters.len() - told.len()));
        }
        stage.shut_down().await;
    });
}

#[test]
fn only_a_few_are_explained_at_one_time() {
    on_one_thread(async {
        let stage = Stage::of(BROKER).await;
        stage.publish("b", [1]).await;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..=MAX_EXPLAINS {
            let engine = stage.engine.clone();
            asking.spawn(async move { engine.explain(by_id("1")).await });
        }
        let told = asking.join_all().await;
        let busy = told.iter().filter(|told| matches!(told, Err(ExplainError::Busy))).count();
        assert_eq!((busy, told.iter().filter(|told| told.is_ok()).count()), (1, MAX_EXPLAINS));
        assert!(stage.engine.explain(by_id("1")).await.is_ok(), "the next one is answered");
        stage.shut_down().await;
    });
}

#[test]
fn what_retention_has_given_up_is_said_to_be_gone() {
    on_one_thread(async {
        let stage = Stage::of(&BROKER.replace("log: memory", "log: memory, retention: {age: PT1M}")).await;
        stage.publish("b", [1]).await;
        assert!(stage.engine.explain(at(0)).await.is_ok());
        tokio::time::sleep(Duration::from_secs(600)).await;
        stage.publish("b", [2]).await;
        let gone = stage.engine.explain(at(0)).await.expect_err("it is gone");
        assert!(matches!(gone, ExplainError::Trimmed { start: 1, .. }), "{gone}");
        assert!(matches!(stage.engine.explain(by_id("1")).await, Err(ExplainError::EventUnknown { .. })));
        assert!(stage.engine.explain(by_id("2")).await.is_ok());
        stage.shut_down().await;
    });
}
