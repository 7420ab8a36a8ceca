//! Sinks that take several events in one call.

use super::*;

fn batching_sink(hand: &str, more: &str) -> String {
    format!(
        "
apiVersion: waypost.dev/v1alpha1
kind: Sink
metadata: {{name: {hand}}}
spec: {{scripted: {{hand: {hand}, {more}}}}}
---"
    )
}

async fn staged(hand: &str, more: &str, spec: &str) -> Stage {
    Stage::of(&[BROKER, &batching_sink(hand, more), &trigger("t", hand, spec)].concat()).await
}

#[test]
fn a_backlog_goes_out_in_full_batches_and_the_rest_after_a_while() {
    on_one_thread(async {
        let hand = Hand::takes_all("bfull");
        let stage = staged("bfull", "batch: 10", "delivery: {maxInFlight: 2}").await;
        hand.shut();
        stage.publish("b", 0..105).await;
        hand.open();
        stage.until("t", |line| line.delivered == 105).await;
        let calls = hand.calls();
        assert_eq!(calls.iter().sum::<usize>(), 105);
        assert!(calls.iter().all(|call| *call <= 10), "{calls:?}");
        assert!(calls.iter().filter(|call| **call == 10).count() >= 9, "{calls:?}");
        let mut sent = hand.sent();
        sent.sort_by_key(|id| id.parse::<usize>().unwrap());
        assert!(sent.into_iter().eq((0..105).map(|id| id.to_string())), "none twice");
        assert!(hand.at_once().1 <= 2, "maxInFlight counts calls");
        stage.shut_down().await;
    });
}

#[test]
fn less_than_a_batch_waits_for_others_no_longer_than_the_sink_says() {
    on_one_thread(async {
        let hand = Hand::takes_all("blinger");
        let stage = staged("blinger", "batch: 10", "").await;
        let begun = Instant::now();
        stage.publish("b", 0..4).await;
        stage.until("t", |line| line.delivered == 4).await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
        assert_eq!(hand.calls(), [4]);
        // A full one does not wait.
        let begun = Instant::now();
        stage.publish("b", 4..14).await;
        stage.until("t", |line| line.delivered == 14).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        stage.shut_down().await;
    });
}

#[test]
fn of_a_batch_with_mixed_outcomes_only_what_may_pass_is_tried_again() {
    on_one_thread(async {
        let hand = Hand::on("bmixed", |event, before| match event.id() {
            "3" => permanent(),
            "5" if before < 2 => retryable(),
            _ => Outcome::Delivered,
        });
        let stage = staged("bmixed", "batch: 10", "delivery: {retry: 5, backoffDelay: PT1S}").await;
        stage.publish("b", 0..10).await;
        let line = stage.until("t", |line| line.pending == 0 && line.matched == 10).await;
        assert_eq!((line.delivered, line.dead_lettered), (9, 1));
        for id in 0..10 {
            let times = hand.sent().iter().filter(|sent| **sent == id.to_string()).count();
            assert_eq!(times, if id == 5 { 3 } else { 1 }, "{id}");
        }
        stage.shut_down().await;
    });
}

#[test]
fn events_of_a_batch_are_answered_one_by_one_also_where_others_of_it_are_tried_again() {
    on_one_thread(async {
        let hand = Hand::on("breplies", |event, before| match event.id() {
            "3" => Outcome::Replied(vec![super::event("r3", "t"), super::event("r3b", "t")]),
            "5" if before < 2 => retryable(),
            "5" => Outcome::Replied(vec![super::event("r5", "t")]),
            "7" => permanent(),
            _ => Outcome::Delivered,
        });
        let stage = staged("breplies", "batch: 10", "delivery: {retry: 5, backoffDelay: PT1S}").await;
        stage.publish("b", 0..10).await;
        let line = stage.until("t", |line| line.pending == 0 && line.matched == 13).await;
        assert_eq!((line.delivered, line.dead_lettered), (12, 1));
        for (id, times) in [("3", 1), ("5", 3), ("7", 1), ("r3", 1), ("r3b", 1), ("r5", 1)] {
            assert_eq!(hand.sent().iter().filter(|sent| **sent == id).count(), times, "{id}");
        }
        stage.shut_down().await;
    });
}

#[test]
fn an_atomic_batch_that_is_refused_goes_out_one_by_one() {
    on_one_thread(async {
        let hand = Hand::on("batomic", |event, before| match (event.id(), before) {
            ("3", _) => permanent(),
            (_, 0) => retryable(),
            _ => Outcome::Delivered,
        });
        let stage = staged("batomic", "batch: 5, unity: atomic", "").await;
        stage.publish("b", 0..5).await;
        let line = stage.until("t", |line| line.pending == 0 && line.matched == 5).await;
        assert_eq!((line.delivered, line.dead_lettered), (4, 1));
        assert_eq!(hand.calls(), [5, 5, 1, 1, 1, 1, 1], "as it was, and then each for itself");
        stage.shut_down().await;
    });
}

#[test]
fn what_a_sink_took_although_it_refused_another_part_of_the_call_is_not_sent_again() {
    on_one_thread(async {
        let hand =
            Hand::on("bparts", |event, _| if event.id() == "3" { permanent() } else { Outcome::Delivered });
        let stage = staged("bparts", "batch: 5, unity: parts", "").await;
        stage.publish("b", 0..5).await;
        let line = stage.until("t", |line| line.pending == 0 && line.matched == 5).await;
        assert_eq!((line.delivered, line.dead_lettered), (4, 1));
        assert_eq!(hand.calls(), [5, 1]);
        stage.shut_down().await;
    });
}

#[test]
fn behind_the_first_failure_of_an_ordered_batch_nothing_counts_as_tried() {
    on_one_thread(async {
        let hand = Hand::on("bordered", |event, before| {
            if event.id() == "1" && before < 3 { retryable() } else { Outcome::Delivered }
        });
        // One attempt more than the event that fails needs: one that counted for the others would not suffice.
        let spec = "delivery: {retry: 3, backoffPolicy: constant, backoffDelay: PT1S}";
        let stage = staged("bordered", "batch: 4, unity: ordered", spec).await;
        stage.publish("b", 0..8).await;
        let line = stage.until("t", |line| line.pending == 0 && line.matched == 8).await;
        assert_eq!((line.delivered, line.dead_lettered), (8, 0));
        assert_eq!(hand.sent().iter().filter(|id| *id == "1").count(), 4);
        stage.shut_down().await;
    });
}

#[test]
fn with_order_by_key_a_batch_holds_one_event_of_each_key() {
    on_one_thread(async {
        let hand = Hand::takes_all("bkeys");
        let stage = staged("bkeys", "batch: 10", "delivery: {ordering: key}").await;
        hand.shut();
        for id in 0..30 {
            let key = format!("k{}", id % 3);
            stage
                .publish_event("b", event(&id.to_string(), "t").with_attribute("partitionkey", key).unwrap())
                .await;
        }
        hand.open();
        stage.until("t", |line| line.delivered == 30).await;
        assert!(hand.calls().iter().all(|call| *call <= 3), "{:?}", hand.calls());
        for key in 0..3 {
            let of_key = |id: &String| id.parse::<usize>().unwrap() % 3 == key;
            let sent: Vec<_> = hand.sent().into_iter().filter(of_key).collect();
            let expected: Vec<_> = (0..30).filter(|id| id % 3 == key).map(|id| id.to_string()).collect();
            assert_eq!(sent, expected);
        }
        stage.shut_down().await;
    });
}

/// The calls of a hand in which these events stood.
fn calls_with(hand: &Hand, id: &str) -> Vec<Vec<String>> {
    hand.begun().into_iter().filter(|call| call.iter().any(|of_call| of_call == id)).collect()
}

#[test]
fn an_atomic_batch_that_fails_goes_out_again_as_it_was_whatever_comes_meanwhile() {
    on_one_thread(async {
        let hand = Hand::on("bagain", |event, before| match event.id() {
            "3" | "4" if before < 3 => retryable(),
            _ => Outcome::Delivered,
        });
        let spec = "delivery: {retry: 5, backoffPolicy: linear, backoffDelay: PT10S, maxInFlight: 4}";
        let stage = staged("bagain", "batch: 4, unity: atomic", spec).await;
        // The last of them go out after a while, less than a batch.
        stage.publish("b", 0..6).await;
        stage.until("t", |line| line.pending > 0 && hand.calls().len() == 2 && line.in_flight == 0).await;
        stage.publish("b", 6..20).await;
        let line = stage.until("t", |line| line.delivered == 20).await;
        assert_eq!((line.dead_lettered, line.dropped), (0, 0));
        assert_eq!(calls_with(&hand, "3"), vec![["0", "1", "2", "3"]; 4]);
        assert_eq!(calls_with(&hand, "4"), vec![["4", "5"]; 4]);
        for id in 6..20 {
            assert_eq!(calls_with(&hand, &id.to_string()).len(), 1, "{id}");
        }
        stage.shut_down().await;
    });
}

#[test]
fn what_leaves_a_batch_leaves_the_rest_together() {
    on_one_thread(async {
        let hand = Hand::on("bleaves", |event, before| match event.id() {
            "0" if before < 1 => retryable(),
            _ => Outcome::Delivered,
        });
        let spec = "delivery: {retry: 5, backoffDelay: PT60S}";
        let stage = staged("bleaves", "batch: 4, unity: atomic", spec).await;
        for id in 0..4 {
            // One is of no use any more when the batch goes out again.
            let expiry = if id == 2 { "2023-11-14T22:13:50Z" } else { "2030-01-01T00:00:00Z" };
            let event = event(&id.to_string(), "t").with_attribute("expirytime", expiry).unwrap();
            stage.publish_event("b", event).await;
        }
        stage.until("t", |line| line.pending == 4 && line.in_flight == 0 && !hand.calls().is_empty()).await;
        stage.publish("b", 4..6).await;
        let line = stage.until("t", |line| line.matched == 6 && line.pending == 0).await;
        assert_eq!((line.delivered, line.dropped), (5, 1));
        assert_eq!(calls_with(&hand, "1"), [vec!["0", "1", "2", "3"], vec!["0", "1", "3"]]);
        assert_eq!(calls_with(&hand, "5"), [["4", "5"]]);
        stage.shut_down().await;
    });
}

#[test]
fn what_was_attempted_alone_comes_to_no_batch_later() {
    on_one_thread(async {
        let hand = Hand::on("balone", |event, before| match (event.id(), before) {
            ("3", _) => permanent(),
            // Alone and in a batch it is another object.
            ("1", 1) => retryable(),
            _ => Outcome::Delivered,
        });
        let spec = "delivery: {retry: 5, backoffDelay: PT60S}";
        let stage = staged("balone", "batch: 4, unity: atomic", spec).await;
        stage.publish("b", 0..4).await;
        stage.until("t", |line| line.pending == 1 && line.in_flight == 0).await;
        stage.publish("b", 4..7).await;
        let line = stage.until("t", |line| line.matched == 7 && line.pending == 0).await;
        assert_eq!((line.delivered, line.dead_lettered), (6, 1));
        assert_eq!(calls_with(&hand, "1"), [vec!["0", "1", "2", "3"], vec!["1"], vec!["1"]]);
        stage.shut_down().await;
    });
}

#[test]
fn a_batch_waits_as_a_whole_for_a_sink_that_accepts_nothing() {
    on_one_thread(async {
        let hand = Hand::on("bmended", |event, before| match event.id() {
            "0" if before < 2 => misconfigured(),
            _ => Outcome::Delivered,
        });
        let stage = staged("bmended", "batch: 3, unity: atomic", "delivery: {ratePerSecond: 30}").await;
        stage.publish("b", 0..5).await;
        stage.until("t", |line| line.delivered == 5).await;
        assert_eq!(calls_with(&hand, "0"), vec![["0", "1", "2"]; 3]);
        stage.shut_down().await;
    });
}

#[test]
fn a_sink_that_takes_each_event_for_itself_gets_no_bounds_of_before() {
    on_one_thread(async {
        let hand = Hand::on("bchanged", |event, before| match event.id() {
            "0" if before == 0 => retryable(),
            _ => Outcome::Delivered,
        });
        let spec = "delivery: {retry: 5, backoffDelay: PT60S}";
        let manifests =
            |more: &str| [BROKER, &batching_sink("bchanged", more), &trigger("t", "bchanged", spec)].concat();
        let mut stage = Stage::of(&manifests("batch: 5, unity: atomic")).await;
        stage.publish("b", 0..5).await;
        stage.until("t", |line| line.pending == 5 && line.in_flight == 0 && !hand.calls().is_empty()).await;
        stage.apply(&manifests("batch: 2")).await;
        stage.until("t", |line| line.delivered == 5).await;
        assert!(hand.calls()[1..].iter().all(|call| *call <= 2), "{:?}", hand.calls());
        stage.shut_down().await;
    });
}
