//! What becomes of events.

use super::*;

#[test]
fn an_event_goes_to_every_trigger_that_matches_it_and_to_no_other() {
    on_one_thread(async {
        let (all, some) = (Hand::takes_all("dall"), Hand::takes_all("dsome"));
        let yaml = [
            BROKER,
            &sink("dall"),
            &sink("dsome"),
            &trigger("all", "dall", ""),
            &trigger("some", "dsome", "filters: [{exact: {type: wanted}}]"),
        ];
        let stage = Stage::of(&yaml.concat()).await;
        stage.publish("b", 0..50).await;
        stage.publish_event("b", event("w", "wanted")).await;
        stage.until("all", |line| line.delivered == 51).await;
        let line = stage.until("some", |line| line.delivered == 1).await;
        assert_eq!((line.matched, line.pending), (1, 0));
        assert_eq!(some.sent(), ["w"]);
        let mut sent = all.sent();
        sent.sort();
        sent.dedup();
        assert_eq!(sent.len(), 51);
        stage.shut_down().await;
    });
}

#[test]
fn a_retry_waits_and_counts() {
    on_one_thread(async {
        let hand = Hand::on("dretry", |_, before| if before < 3 { retryable() } else { Outcome::Delivered });
        let spec = "delivery: {retry: 3, backoffPolicy: exponential, backoffDelay: PT10S}";
        let stage = Stage::of(&[BROKER, &sink("dretry"), &trigger("t", "dretry", spec)].concat()).await;
        let begun = Instant::now();
        stage.publish("b", 0..1).await;
        stage.until("t", |line| line.delivered == 1).await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(70) && took < Duration::from_secs(79), "{took:?}");
        assert_eq!(hand.sent().len(), 4);
        stage.shut_down().await;
    });
}

#[test]
fn what_is_exhausted_or_refused_is_a_dead_letter() {
    on_one_thread(async {
        let hand = Hand::on("ddead", |event, _| if event.id() == "0" { permanent() } else { retryable() });
        let spec = "delivery: {retry: 2, backoffPolicy: constant, backoffDelay: PT1S}";
        let stage = Stage::of(&[BROKER, &sink("ddead"), &trigger("t", "ddead", spec)].concat()).await;
        stage.publish("b", 0..2).await;
        let line = stage.until("t", |line| line.dead_lettered == 2).await;
        assert_eq!((line.dead_letters_stored, line.pending), (2, 0));
        assert_eq!(hand.sent().iter().filter(|id| *id == "0").count(), 1);
        assert_eq!(hand.sent().iter().filter(|id| *id == "1").count(), 3);
        stage.shut_down().await;
    });
}

#[test]
fn dead_letters_are_forwarded_by_the_trigger_s_own_retries() {
    on_one_thread(async {
        let _refuses = Hand::on("dfwd", |_, _| permanent());
        let dead = Hand::on("dfwddls", |_, before| if before < 2 { retryable() } else { Outcome::Delivered });
        let spec = "delivery: {retry: 2, backoffPolicy: constant, backoffDelay: PT1S, deadLetterSink: \
                    {ref: {apiVersion: waypost.dev/v1alpha1, kind: Sink, name: dfwddls}}}";
        let yaml = [BROKER, &sink("dfwd"), &sink("dfwddls"), &trigger("t", "dfwd", spec)];
        let stage = Stage::of(&yaml.concat()).await;
        stage.publish("b", 0..20).await;
        stage.until("t", |line| line.dead_lettered == 20 && line.dead_letters_stored == 0).await;
        assert_eq!(dead.sent().len(), 60);
        // One that the dead-letter sink refuses stays.
        dead.answer(|_, _| permanent());
        stage.publish("b", 20..21).await;
        stage.until("t", |line| line.dead_lettered == 21).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.trigger("t").await.dead_letters_stored, 1);
        stage.shut_down().await;
    });
}

#[test]
fn a_slow_trigger_lags_alone_and_catches_up_without_loss() {
    on_one_thread(async {
        let (slow, fast) = (Hand::takes_all("dslow"), Hand::takes_all("dfast"));
        slow.shut();
        let spec = "delivery: {maxInFlight: 4}";
        let yaml = [
            BROKER,
            &sink("dslow"),
            &sink("dfast"),
            &trigger("slow", "dslow", spec),
            &trigger("fast", "dfast", ""),
        ];
        let stage = Stage::of(&yaml.concat()).await;
        stage.publish("b", 0..500).await;
        stage.until("fast", |line| line.delivered == 500).await;
        let line = stage.trigger("slow").await;
        assert_eq!((line.matched, line.delivered, line.pending), (500, 0, 500));
        slow.open();
        stage.until("slow", |line| line.delivered == 500).await;
        let mut sent = slow.sent();
        assert_eq!(sent.len(), 500, "none twice");
        sent.sort_by_key(|id| id.parse::<usize>().unwrap());
        sent.dedup();
        assert_eq!(sent.len(), 500);
        // Back on the hot path.
        stage.publish("b", 500..600).await;
        stage.until("slow", |line| line.delivered == 600).await;
        assert!(slow.at_once().1 <= 4, "{:?}", slow.at_once());
        drop(fast);
        stage.shut_down().await;
    });
}

#[test]
fn congestion_makes_attempts_fewer_and_an_answer_makes_them_more() {
    on_one_thread(async {
        let hand = Hand::on("dcong", |_, before| if before < 1 { congested() } else { Outcome::Delivered });
        let spec = "delivery: {retry: 5, backoffPolicy: constant, backoffDelay: PT1S, maxInFlight: 16}";
        let stage = Stage::of(&[BROKER, &sink("dcong"), &trigger("t", "dcong", spec)].concat()).await;
        hand.shut();
        stage.publish("b", 0..200).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(hand.at_once().0, 1, "it starts with one");
        hand.open();
        stage.until("t", |line| line.delivered == 200).await;
        assert_eq!(hand.sent().len(), 400);
        assert!(hand.at_once().1 <= 16);
        stage.shut_down().await;
    });
}

#[test]
fn a_misconfigured_sink_pauses_the_trigger_and_loses_nothing() {
    on_one_thread(async {
        let hand = Hand::on("dmis", |_, _| misconfigured());
        let stage =
            Stage::of(&[BROKER, &sink("dmis"), &trigger("t", "dmis", "delivery: {retry: 0}")].concat()).await;
        stage.publish("b", 0..30).await;
        stage.until("t", |line| !line.ready).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        let line = stage.trigger("t").await;
        assert_eq!((line.pending, line.dead_lettered), (30, 0));
        let probes = hand.sent().len();
        assert!((2..20).contains(&probes), "{probes} probes in five minutes");
        hand.answer(|_, _| Outcome::Delivered);
        let line = stage.until("t", |line| line.delivered == 30).await;
        assert!(line.ready);
        stage.shut_down().await;
    });
}

#[test]
fn a_reply_is_an_event_of_the_broker_until_its_hops_are_spent() {
    on_one_thread(async {
        let hand = Hand::on("dloop", |event, _| {
            let next = event.id().parse::<usize>().unwrap() + 1;
            Outcome::Replied(vec![super::event(&next.to_string(), "t")])
        });
        let stage = Stage::of(&[BROKER, &sink("dloop"), &trigger("t", "dloop", "")].concat()).await;
        stage.publish("b", 0..1).await;
        let line = stage.until("t", |line| line.dead_lettered == 1).await;
        assert_eq!((line.delivered, line.pending), (254, 0));
        assert_eq!(hand.sent().len(), 255);
        // A reply that says so itself is spent too.
        hand.answer(|_, _| {
            let reply = Event::builder("spent", "/test", "t").attribute("knativebrokerttl", 0);
            Outcome::Replied(vec![reply.build().unwrap()])
        });
        stage.publish("b", 1_000..1_001).await;
        let line = stage.until("t", |line| line.dead_lettered == 2).await;
        assert_eq!(line.delivered, 254);
        stage.shut_down().await;
    });
}

#[test]
fn an_event_past_its_deadline_is_dropped_and_counted() {
    on_one_thread(async {
        let hand = Hand::on("ddeadline", |_, _| retryable());
        let spec = "delivery: {retry: 100, backoffPolicy: constant, backoffDelay: PT10S, deadline: PT1M}";
        let stage = Stage::of(&[BROKER, &sink("ddeadline"), &trigger("t", "ddeadline", spec)].concat()).await;
        stage.publish("b", 0..3).await;
        let line = stage.until("t", |line| line.dropped == 3).await;
        assert_eq!(line.dropped_by_reason.get("deadline"), Some(&3));
        assert!(hand.sent().len() >= 15);
        stage.shut_down().await;
    });
}

#[test]
fn a_full_log_refuses_producers_and_goes_on_when_there_is_room() {
    on_one_thread(async {
        let hand = Hand::takes_all("dfull");
        hand.shut();
        let mut stage = Stage::with(Limits { memory_log_bytes: 64 * 1024, ..Limits::default() });
        stage.apply(&[BROKER, &sink("dfull"), &trigger("t", "dfull", "")].concat()).await;
        let broker = stage.engine.broker("default", "b").unwrap();
        let mut taken = 0;
        let refused = loop {
            let record = Record { metadata: Metadata::default(), event: event(&taken.to_string(), "t") };
            match broker.publish([record], None) {
                Ok(commit) => commit.await.unwrap(),
                Err(refused) => break refused,
            };
            taken += 1;
        };
        assert_eq!(refused.code(), codes::LOG_FULL);
        stage.until("t", |line| line.pending == taken).await;
        hand.open();
        stage.until("t", |line| line.delivered == taken).await;
        stage.publish("b", 1000..1010).await;
        stage.until("t", |line| line.delivered == taken + 10).await;
        stage.shut_down().await;
    });
}

#[test]
fn a_trigger_may_send_to_a_broker() {
    on_one_thread(async {
        let hand = Hand::takes_all("dbridge");
        let second = "
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: second}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: bridge}
spec:
  broker: b
  subscriber: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: second}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: far}
spec:
  broker: second
  subscriber: {ref: {apiVersion: waypost.dev/v1alpha1, kind: Sink, name: dbridge}}
---";
        let stage = Stage::of(&[BROKER, &sink("dbridge"), second].concat()).await;
        stage.publish("b", 0..10).await;
        stage.until("far", |line| line.delivered == 10).await;
        assert_eq!(stage.trigger("bridge").await.delivered, 10);
        assert_eq!(hand.sent().len(), 10);
        stage.shut_down().await;
    });
}

#[test]
fn a_panic_of_a_sink_costs_nobody_anything() {
    on_one_thread(async {
        let hand = Hand::on("dpanic", |event, before| {
            assert!(event.id() != "3" || before > 0, "on purpose");
            Outcome::Delivered
        });
        let stage = Stage::of(&[BROKER, &sink("dpanic"), &trigger("t", "dpanic", "")].concat()).await;
        stage.publish("b", 0..10).await;
        stage.until("t", |line| line.delivered == 10).await;
        assert_eq!(hand.sent().len(), 11);
        // One that panics every time is given up like any other, and the rest goes on.
        hand.answer(|event, _| {
            assert!(event.id() != "11", "on purpose");
            Outcome::Delivered
        });
        stage.publish("b", 10..20).await;
        let line = stage.until("t", |line| line.dead_lettered == 1).await;
        assert_eq!((line.delivered, line.pending), (19, 0));
        stage.shut_down().await;
    });
}

#[test]
fn a_shutdown_cuts_what_hangs_and_does_not_count_it() {
    on_one_thread(async {
        let hand = Hand::takes_all("dcut");
        hand.shut();
        let stage = Stage::of(&[BROKER, &sink("dcut"), &trigger("t", "dcut", "")].concat()).await;
        stage.publish("b", 0..10).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let left = stage.engine.shutdown(Instant::now() + Duration::from_secs(30)).await;
        assert_eq!(left, [] as [String; 0]);
        assert!(begun.elapsed() < Duration::from_secs(30));
        let line = stage.trigger("t").await;
        assert_eq!((line.pending, line.delivered, line.in_flight), (10, 0, 0));
    });
}
