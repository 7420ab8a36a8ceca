//! What a trigger's delivery is held to: rate, order of keys, holding while the subscriber is away; and what operators do.

use std::collections::BTreeMap;

use waypost_log::Position;

use super::*;
use crate::{OperateError, SeekTo};

fn with(hand: &str, delivery: &str) -> String {
    [BROKER, &sink(hand), &trigger("t", hand, &format!("delivery: {delivery}"))].concat()
}

fn keyed(id: usize, key: &str) -> Event {
    Event::builder(id.to_string(), "/test", "t").attribute("partitionkey", key).build().expect("it is valid")
}

fn at(offset: u64) -> Position {
    Position { partition: 0, offset }
}

async fn reason(stage: &Stage) -> (bool, String, String) {
    let status = stage.engine.status(&StatusQuery::default()).await;
    let line = status.resources.into_iter().find(|line| line.kind == "Trigger").expect("it is told of");
    (line.ready, line.reason, line.message)
}

#[test]
fn a_rate_holds_over_ten_seconds() {
    for (per_second, burst) in [(100, 10), (7, 1), (20_000, 2_000)] {
        on_one_thread(async move {
            let name = format!("crate{per_second}");
            let hand = Hand::takes_all(&name);
            let stage = Stage::of(&with(&name, &format!("{{ratePerSecond: {per_second}}}"))).await;
            let wanted = if per_second > 1_000 { per_second / 10 } else { per_second * 10 };
            stage.publish("b", 0..wanted + burst + 50).await;
            let time = Duration::from_millis(u64::try_from(wanted * 1_000 / per_second).unwrap());
            tokio::time::sleep(time).await;
            let sent = hand.sent().len();
            assert!(sent >= wanted * 95 / 100 && sent <= wanted + burst + wanted / 20, "{sent} of {wanted}");
            stage.until("t", |line| line.pending == 0).await;
            stage.shut_down().await;
        });
    }
}

#[test]
fn retries_count_against_the_rate_and_what_is_dropped_does_not() {
    on_one_thread(async {
        let hand = Hand::on("cretry", |_, before| if before < 3 { retryable() } else { Outcome::Delivered });
        let delivery = "{ratePerSecond: 2, retry: 5, backoffPolicy: constant, backoffDelay: PT0.001S}";
        let stage = Stage::of(&with("cretry", delivery)).await;
        let started = Instant::now();
        stage.publish("b", 0..5).await;
        stage.until("t", |line| line.delivered == 5).await;
        let took = started.elapsed();
        assert!(took > Duration::from_secs(9) && took < Duration::from_secs(11), "{took:?} for 20 attempts");

        let gone = |id: usize| {
            let event = Event::builder(format!("gone{id}"), "/test", "t");
            event.attribute("expirytime", "2001-01-01T00:00:00Z").build().expect("it is valid")
        };
        let started = Instant::now();
        for id in 0..100 {
            stage.publish_event("b", gone(id)).await;
        }
        let line = stage.until("t", |line| line.dropped == 100).await;
        assert_eq!(line.dropped_by_reason.get("expired"), Some(&100));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(hand.sent().len(), 20);
        stage.shut_down().await;
    });
}

/// The ids of each key in the order in which they were first attempted.
fn first_attempts(hand: &Hand, key_of: impl Fn(usize) -> usize) -> BTreeMap<usize, Vec<usize>> {
    let mut seen = std::collections::HashSet::new();
    let mut keys: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for id in hand.sent() {
        if seen.insert(id.clone()) {
            let id = id.parse().unwrap();
            keys.entry(key_of(id)).or_default().push(id);
        }
    }
    keys
}

#[test]
fn a_closed_key_holds_its_own_events_and_no_others() {
    on_one_thread(async {
        let hand = Hand::on("cclosed", |event, before| {
            if event.id() == "0" && before < 2 { retryable() } else { Outcome::Delivered }
        });
        let delivery =
            "{ordering: key, retry: 5, backoffPolicy: constant, backoffDelay: PT1H, backoffMax: PT1H}";
        let mut stage = Stage::of(&with("cclosed", delivery)).await;
        // More of the closed key than the window holds, and others between.
        for id in 0..2_000_usize {
            let event =
                if id.is_multiple_of(2) { keyed(id, "hot") } else { keyed(id, &format!("k{}", id % 7)) };
            stage.publish_event("b", event).await;
        }
        let line = stage.until("t", |line| line.delivered == 1_000).await;
        assert_eq!((line.pending, line.in_flight), (1_000, 0));
        assert!(hand.sent().iter().all(|id| id == "0" || id.parse::<usize>().unwrap() % 2 == 1));
        // An event without a key is not ordered.
        stage.publish_event("b", event("9999", "t")).await;
        stage.until("t", |line| line.delivered == 1_001).await;
        tokio::time::sleep(Duration::from_secs(3 * 60 * 60)).await;
        stage.until("t", |line| line.pending == 0).await;
        let keys = first_attempts(&hand, |id| if id.is_multiple_of(2) { 0 } else { 1 + id % 7 });
        assert!(keys.values().all(|ids| ids.is_sorted()), "{keys:?}");
        assert_eq!(hand.sent().len(), 2_003);

        // Nothing is kept of an order that is given up.
        hand.answer(|_, _| Outcome::Delivered);
        stage.apply(&with("cclosed", "{retry: 1}")).await;
        stage.publish_event("b", keyed(10_000, "hot")).await;
        stage.until("t", |line| line.pending == 0).await;
        stage.shut_down().await;
    });
}

#[test]
fn a_key_goes_on_after_a_dead_letter_a_drop_and_a_skip() {
    on_one_thread(async {
        let hand = Hand::on("cgoeson", |event, _| match event.id() {
            "0" => permanent(),
            "3" => retryable(),
            _ => Outcome::Delivered,
        });
        let delivery = "{ordering: key, orderingKey: subject, retry: 1000, backoffPolicy: constant, \
                        backoffDelay: PT1H, backoffMax: PT1H}";
        let stage = Stage::of(&with("cgoeson", delivery)).await;
        let of_subject = |id: usize| Event::builder(id.to_string(), "/test", "t").attribute("subject", "one");
        for id in 0..6 {
            let event = of_subject(id);
            let event = if id == 1 { event.attribute("expirytime", "2001-01-01T00:00:00Z") } else { event };
            stage.publish_event("b", event.build().expect("it is valid")).await;
        }
        let line = stage.until("t", |line| line.delivered == 1 && line.in_flight == 0).await;
        assert_eq!((line.dead_lettered, line.dropped, line.pending), (1, 1, 3));
        assert_eq!(hand.sent(), ["0", "2", "3"]);
        let name = waypost_core::manifest::ResourceName::new("default", "t");
        // One behind the first, and then the first itself.
        stage.engine.skip(&name, at(4)).await.expect("it waits behind another");
        assert_eq!(stage.trigger("t").await.pending, 2);
        stage.engine.skip(&name, at(3)).await.expect("it waits for its next attempt");
        let line = stage.until("t", |line| line.pending == 0).await;
        assert_eq!((line.delivered, line.dropped_by_reason.get("operator")), (2, Some(&2)));
        assert_eq!(hand.sent(), ["0", "2", "3", "5"]);
        assert_eq!(stage.engine.skip(&name, at(3)).await, Err(OperateError::NotPending(at(3))));
        assert_eq!(stage.engine.skip(&name, at(77)).await, Err(OperateError::NotPending(at(77))));
        stage.shut_down().await;
    });
}

#[test]
fn one_hot_key_does_not_starve_the_others() {
    on_one_thread(async {
        let hand = Hand::takes_all("chot");
        let stage =
            Stage::of(&with("chot", "{ordering: key, maxInFlight: 4, ratePerSecond: 100, burst: 1}")).await;
        for id in 0..5_000_usize {
            stage.publish_event("b", keyed(id, "hot")).await;
        }
        for id in 5_000..5_010 {
            stage.publish_event("b", keyed(id, &format!("k{id}"))).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let others = hand.sent().iter().filter(|id| id.parse::<usize>().unwrap() >= 5_000).count();
        assert_eq!(others, 10);
        assert!(hand.sent().len() < 400);
        stage.until("t", |line| line.pending == 0).await;
        let keys = first_attempts(&hand, |id| id.max(4_999));
        assert!(keys.values().all(|ids| ids.is_sorted()));
        stage.shut_down().await;
    });
}

#[test]
fn as_many_keys_as_may_wait_and_the_status_says_so() {
    on_one_thread(async {
        let hand = Hand::on("cmany", |_, _| retryable());
        let delivery =
            "{ordering: key, retry: 1000, backoffPolicy: constant, backoffDelay: PT1H, backoffMax: PT1H}";
        let stage = Stage::of(&with("cmany", delivery)).await;
        for id in 0..1_500 {
            stage.publish_event("b", keyed(id, &id.to_string())).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        // What was in the window, four times what may be in flight, when the last key closed goes on.
        let sent = hand.sent().len();
        assert!((1_024..1_024 + 4 * 64).contains(&sent), "{sent}");
        let (ready, code, message) = reason(&stage).await;
        assert_eq!((ready, code.as_str()), (false, codes::KEYS_CLOSED.id()));
        assert!(message.contains("1024 keys") && message.contains("not now"), "{message}");
        hand.answer(|_, _| Outcome::Delivered);
        tokio::time::sleep(Duration::from_secs(2 * 60 * 60)).await;
        stage.until("t", |line| line.delivered == 1_500).await;
        assert!(reason(&stage).await.0);
        stage.shut_down().await;
    });
}

/// An answer that depends on nothing but the event and the try.
fn fickle(event: &Event, before: usize) -> Outcome {
    let number =
        event.id().bytes().fold(before.wrapping_mul(7), |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
    match number % 13 {
        0..3 => retryable(),
        3 => congested(),
        _ if event.id().ends_with("13") => permanent(),
        _ => Outcome::Delivered,
    }
}

/// Checks promise P3 as the subscriber sees it: no event of a key is first attempted before the one ahead of it was
/// attempted for the last time.
fn in_order(sent: &[String], key_of: impl Fn(usize) -> usize) {
    let mut last = BTreeMap::new();
    for (index, id) in sent.iter().enumerate() {
        last.insert(id.parse::<usize>().unwrap(), index);
    }
    let mut first = BTreeMap::new();
    for (index, id) in sent.iter().enumerate().rev() {
        first.insert(id.parse::<usize>().unwrap(), index);
    }
    let mut ahead: BTreeMap<usize, usize> = BTreeMap::new();
    for id in first.keys() {
        if let Some(before) = ahead.insert(key_of(*id), *id) {
            assert!(last[&before] < first[id], "{id} was attempted before {before} was settled");
        }
    }
}

#[test]
fn keys_stay_in_order_whatever_the_sink_answers() {
    const EVENTS: usize = 2_000;
    const KEYS: usize = 100;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let hand = Hand::on("cchaos", fickle);
        let delivery = |in_flight: usize| {
            format!(
                "{{ordering: key, retry: 4, backoffPolicy: constant, backoffDelay: PT0.01S, maxInFlight: {in_flight}}}"
            )
        };
        let mut stage = Stage::of(&with("cchaos", &delivery(8))).await;
        for round in 0..10 {
            let part = EVENTS / 10;
            for id in round * part..(round + 1) * part {
                stage.publish_event("b", keyed(id, &format!("k{}", id * 7 % KEYS))).await;
            }
            stage.apply(&with("cchaos", &delivery(1 + round * 5))).await;
        }
        let settled = tokio::time::timeout(Duration::from_secs(60), stage.until("t", |line| line.pending == 0));
        let line = settled.await.expect("it is settled");
        assert_eq!((line.matched, line.dropped), (EVENTS as u64, 0));
        assert!(line.dead_lettered > 0, "{line:?}");
        in_order(&hand.sent(), |id| id * 7 % KEYS);
        stage.shut_down().await;
    });
}

#[test]
fn a_subscriber_that_is_away_costs_no_attempt_and_is_probed() {
    on_one_thread(async {
        let hand = Hand::on("caway", |_, _| congested());
        let stage = Stage::of(&with("caway", "{holdWhenDown: true, retry: 0, maxInFlight: 32}")).await;
        stage.publish("b", 0..1_000).await;
        tokio::time::sleep(Duration::from_secs(10 * 60)).await;
        let line = stage.trigger("t").await;
        assert_eq!((line.pending, line.dead_lettered, line.delivered), (1_000, 0, 0));
        let probes = hand.sent().len();
        assert!((10..30).contains(&probes), "1 s, 2 s, ... 60 s: {probes}");
        let (ready, code, message) = reason(&stage).await;
        assert_eq!((ready, code.as_str()), (false, codes::SINK_UNAVAILABLE.id()));
        assert!(message.contains("holds its events"), "{message}");

        hand.answer(|_, _| Outcome::Delivered);
        hand.shut();
        // The probe alone, however many wait.
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(hand.at_once().0, 1);
        hand.gate.add_permits(1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(hand.at_once().0, 2, "no herd");
        hand.open();
        let line = stage.until("t", |line| line.pending == 0).await;
        assert_eq!((line.delivered, line.dead_lettered), (1_000, 0));
        assert!(reason(&stage).await.0);
        stage.shut_down().await;
    });
}

#[test]
fn one_event_that_cannot_be_answered_does_not_hold_the_others_for_ever() {
    on_one_thread(async {
        let hand =
            Hand::on("cpoison", |event, _| if event.id() == "3" { congested() } else { Outcome::Delivered });
        let delivery = "{holdWhenDown: true, deadline: PT1H}";
        let stage = Stage::of(&with("cpoison", delivery)).await;
        stage.publish("b", 0..50).await;
        stage.until("t", |line| line.delivered == 49).await;
        tokio::time::sleep(Duration::from_secs(60 * 60)).await;
        let line = stage.until("t", |line| line.pending == 0).await;
        assert_eq!(line.dropped_by_reason.get("deadline"), Some(&1));
        // Any other failure is as usual.
        hand.answer(|_, _| permanent());
        stage.publish("b", 50..51).await;
        stage.until("t", |line| line.dead_lettered == 1).await;
        stage.shut_down().await;
    });
}

#[test]
fn a_trigger_starts_at_a_time() {
    on_one_thread(async {
        let hand = Hand::takes_all("ctime");
        let mut stage = Stage::of(&[BROKER, &sink("ctime")].concat()).await;
        stage.publish("b", 0..5).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        stage.publish("b", 5..8).await;
        let from = jiff::Timestamp::from_second(1_700_000_005).expect("it is in range");
        let yaml = [BROKER, &sink("ctime"), &trigger("t", "ctime", &format!("startFrom: {from}"))].concat();
        stage.apply(&yaml).await;
        assert_eq!(stage.plan.problems, []);
        let line = stage.until("t", |line| line.delivered == 3).await;
        assert_eq!((line.matched, line.pending), (3, 0));
        let mut sent = hand.sent();
        sent.sort();
        assert_eq!(sent, ["5", "6", "7"]);
        stage.shut_down().await;
    });
}

#[test]
fn an_operator_moves_a_trigger_on() {
    on_one_thread(async {
        let hand = Hand::takes_all("cseek");
        hand.shut();
        let stage = Stage::of(&with("cseek", "{maxInFlight: 2}")).await;
        let name = waypost_core::manifest::ResourceName::new("default", "t");
        stage.publish("b", 0..500).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let later = waypost_log::Timestamp(1_700_000_000_000_000_000).after(Duration::from_secs(5));
        stage.publish("b", 500..600).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            stage.engine.skip(&name, at(400)).await,
            Err(OperateError::NotTaken { at: at(400), oldest: at(16) })
        );
        stage.engine.skip(&name, at(16)).await.expect("it is the oldest that is not taken");
        // The one that is with the subscriber goes on.
        assert_eq!(stage.engine.seek(&name, SeekTo::Position(at(100))).await, Ok(98));
        let line = stage.trigger("t").await;
        assert_eq!((line.pending, line.dropped), (501, 99), "{line:?}");
        let back = stage.engine.seek(&name, SeekTo::Position(at(0))).await;
        assert_eq!(back.map_err(|error| error.code()), Ok(0), "something is still with the subscriber there");
        assert_eq!(stage.engine.seek(&name, SeekTo::Time(later)).await, Ok(400));
        hand.open();
        stage.until("t", |line| line.pending == 0).await;
        let back = stage.engine.seek(&name, SeekTo::Position(at(7))).await;
        assert_eq!(back, Err(OperateError::Backwards { at: at(600), to: at(7) }));
        let mut sent: Vec<usize> = hand.sent().iter().map(|id| id.parse().unwrap()).collect();
        sent.sort_unstable();
        assert_eq!(sent, [0].into_iter().chain(500..600).collect::<Vec<_>>());
        assert_eq!(stage.engine.seek(&name, SeekTo::End).await, Ok(0));
        let nobody = waypost_core::manifest::ResourceName::new("default", "nobody");
        assert_eq!(stage.engine.seek(&nobody, SeekTo::End).await, Err(OperateError::TriggerUnknown));
        stage.shut_down().await;
    });
}
