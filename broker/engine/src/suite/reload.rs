//! What a change of the manifests does to what runs.

use super::*;

#[test]
fn what_is_in_flight_is_untouched_and_the_ledger_holds() {
    on_one_thread(async {
        let hand = Hand::takes_all("rflight");
        hand.shut();
        let unchanged = trigger("t", "rflight", "delivery: {maxInFlight: 8}");
        let base = [BROKER, &sink("rflight"), &unchanged].concat();
        let mut stage = Stage::of(&base).await;
        stage.publish("b", 0..40).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = stage.trigger("t").await;
        assert_eq!(before.in_flight, 1);
        stage.apply(&[base.as_str(), &trigger("new", "rflight", "")].concat()).await;
        assert_eq!(stage.trigger("t").await.in_flight, before.in_flight);
        assert_eq!(hand.sent().len(), 0, "the delivery that hung still hangs");
        hand.open();
        stage.until("t", |line| line.delivered == 40).await;
        assert_eq!(hand.sent().len(), 40);
        assert_eq!(stage.trigger("new").await.matched, 0, "a new trigger starts with new events");
        stage.publish("b", 40..50).await;
        stage.until("new", |line| line.delivered == 10).await;
        stage.shut_down().await;
    });
}

#[test]
fn a_changed_filter_decides_from_one_position_on() {
    on_one_thread(async {
        let hand = Hand::takes_all("rfilter");
        let with = |kind: &str| {
            let filter = format!("filters: [{{exact: {{type: {kind}}}}}]");
            [BROKER, &sink("rfilter"), &trigger("t", "rfilter", &filter)].concat()
        };
        let mut stage = Stage::of(&with("one")).await;
        stage.publish_event("b", event("a", "one")).await;
        stage.publish_event("b", event("b", "two")).await;
        stage.until("t", |line| line.delivered == 1).await;
        stage.apply(&with("two")).await;
        stage.publish_event("b", event("c", "one")).await;
        stage.publish_event("b", event("d", "two")).await;
        stage.until("t", |line| line.delivered == 2).await;
        assert_eq!(hand.sent(), ["a", "d"]);
        stage.shut_down().await;
    });
}

#[test]
fn a_new_subscriber_gets_what_is_pending() {
    on_one_thread(async {
        let (old, new) = (Hand::on("rold", |_, _| retryable()), Hand::takes_all("rnew"));
        let with = |to: &str| {
            let spec = "delivery: {retry: 1000, backoffPolicy: constant, backoffDelay: PT5S}";
            [BROKER, &sink("rold"), &sink("rnew"), &trigger("t", to, spec)].concat()
        };
        let mut stage = Stage::of(&with("rold")).await;
        stage.publish("b", 0..20).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(stage.trigger("t").await.pending, 20);
        stage.apply(&with("rnew")).await;
        stage.until("t", |line| line.delivered == 20).await;
        assert_eq!(new.sent().len(), 20);
        assert!(old.sent().len() >= 20);
        stage.shut_down().await;
    });
}

#[test]
fn a_paused_trigger_holds_what_it_matches() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpause");
        let with = |paused: bool| {
            [BROKER, &sink("rpause"), &trigger("t", "rpause", &format!("paused: {paused}"))].concat()
        };
        let mut stage = Stage::of(&with(true)).await;
        stage.publish("b", 0..100).await;
        let line = stage.until("t", |line| line.matched == 100).await;
        assert!(line.paused && line.pending == 100);
        stage.apply(&with(false)).await;
        stage.until("t", |line| line.delivered == 100).await;
        stage.apply(&with(true)).await;
        stage.publish("b", 100..110).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(hand.sent().len(), 100);
        stage.shut_down().await;
    });
}

#[test]
fn what_disappears_is_detached_and_resumes_with_its_counters() {
    on_one_thread(async {
        let hand = Hand::takes_all("rdetach");
        let base = [BROKER, &sink("rdetach")].concat();
        let whole = [base.as_str(), &trigger("t", "rdetach", "")].concat();
        let mut stage = Stage::of(&whole).await;
        stage.publish("b", 0..5).await;
        stage.until("t", |line| line.delivered == 5).await;
        hand.shut();
        stage.publish("b", 5..8).await;
        stage.until("t", |line| line.pending == 3).await;
        stage.apply(&base).await;
        hand.open();
        stage.publish("b", 100..105).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let status = stage.engine.status(&StatusQuery::default()).await;
        let resource = status.resources.iter().find(|line| line.name == "t").unwrap();
        assert_eq!((resource.ready, resource.reason.as_str()), (false, "Detached"));
        assert_eq!(stage.trigger("t").await.matched, 8, "what came while it was detached is not matched");
        stage.apply(&whole).await;
        stage.publish("b", 8..10).await;
        let line = stage.until("t", |line| line.delivered == 10).await;
        assert_eq!(line.matched, 10);
        stage.shut_down().await;
    });
}

#[test]
fn a_detached_broker_takes_nothing_and_comes_back() {
    on_one_thread(async {
        let hand = Hand::takes_all("rbroker");
        let whole = [BROKER, &sink("rbroker"), &trigger("t", "rbroker", "")].concat();
        let mut stage = Stage::of(&whole).await;
        stage.publish("b", 0..5).await;
        stage.until("t", |line| line.delivered == 5).await;
        stage.apply("").await;
        assert!(stage.engine.broker("default", "b").is_none());
        assert_eq!(stage.trigger("t").await.matched, 5);
        stage.apply(&whole).await;
        stage.publish("b", 5..10).await;
        stage.until("t", |line| line.delivered == 10).await;
        assert_eq!(hand.sent().len(), 10);
        stage.shut_down().await;
    });
}

#[test]
fn a_broken_resource_keeps_its_last_valid_version_while_others_are_applied() {
    on_one_thread(async {
        let (one, two) = (Hand::takes_all("rbroken1"), Hand::takes_all("rbroken2"));
        let base = [BROKER, &sink("rbroken1"), &sink("rbroken2")].concat();
        let good = trigger("one", "rbroken1", "filters: [{exact: {type: t}}]");
        let mut stage = Stage::of(&[base.as_str(), &good].concat()).await;
        let broken = trigger("one", "rbroken1", "filters: [{exact: {Type: t}}]");
        stage.apply(&[base.as_str(), &broken, &trigger("two", "rbroken2", "")].concat()).await;
        assert!(!stage.plan.problems.is_empty());
        stage.publish("b", 0..5).await;
        stage.until("one", |line| line.delivered == 5).await;
        stage.until("two", |line| line.delivered == 5).await;
        let status = stage.engine.status(&StatusQuery::default()).await;
        let resource = status.resources.iter().find(|line| line.name == "one").unwrap();
        assert!(!resource.ready);
        assert!(resource.message.contains("plan 1 stays in force"), "{}", resource.message);
        drop((one, two));
        stage.shut_down().await;
    });
}

#[test]
fn a_trigger_that_starts_at_the_earliest_gets_the_past_once() {
    on_one_thread(async {
        let _first = Hand::takes_all("rpast1");
        let past = Hand::takes_all("rpast2");
        let base = [BROKER, &sink("rpast1"), &sink("rpast2"), &trigger("first", "rpast1", "")].concat();
        let mut stage = Stage::of(&base).await;
        stage.publish("b", 0..2_000).await;
        stage.until("first", |line| line.delivered == 2_000).await;
        stage.apply(&[base.as_str(), &trigger("late", "rpast2", "startFrom: earliest")].concat()).await;
        stage.publish("b", 2_000..2_100).await;
        let line = stage.until("late", |line| line.delivered == 2_100).await;
        assert_eq!(line.matched, 2_100);
        let mut sent: Vec<usize> = past.sent().iter().map(|id| id.parse().unwrap()).collect();
        sent.sort_unstable();
        assert_eq!(sent, (0..2_100).collect::<Vec<_>>());
        stage.shut_down().await;
    });
}

#[test]
fn a_trigger_may_come_before_its_broker() {
    on_one_thread(async {
        let hand = Hand::takes_all("rearly");
        let early = [sink("rearly"), trigger("t", "rearly", "")].concat();
        let mut stage = Stage::new();
        stage.apply(&early).await;
        let status = stage.engine.status(&StatusQuery::default()).await;
        let resource = status.resources.iter().find(|line| line.name == "t").unwrap();
        assert_eq!((resource.ready, resource.reason.as_str()), (false, "BrokerDoesNotExist"));
        stage.apply(&[BROKER, &early].concat()).await;
        stage.publish("b", 0..3).await;
        stage.until("t", |line| line.delivered == 3).await;
        assert_eq!(hand.sent().len(), 3);
        stage.shut_down().await;
    });
}

#[test]
fn a_trigger_that_comes_back_with_a_start_starts_over() {
    on_one_thread(async {
        let _keeps = Hand::takes_all("rover1");
        let hand = Hand::takes_all("rover2");
        let base = [BROKER, &sink("rover1"), &sink("rover2"), &trigger("keeps", "rover1", "")].concat();
        let with = |start: &str| [base.as_str(), &trigger("t", "rover2", start)].concat();
        let mut stage = Stage::of(&with("")).await;
        stage.publish("b", 0..5).await;
        stage.until("t", |line| line.delivered == 5).await;
        stage.apply(&base).await;
        stage.publish("b", 5..8).await;
        stage.apply(&with("startFrom: earliest")).await;
        let line = stage.until("t", |line| line.delivered == 8).await;
        assert_eq!(line.matched, 8, "the counters are new");
        assert_eq!(hand.sent().len(), 13);
        // A reload of the same manifest is no new start.
        stage.apply(&[&with("startFrom: earliest"), sink("other").as_str()].concat()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(stage.trigger("t").await.matched, 8);
        stage.shut_down().await;
    });
}

#[test]
fn a_broker_that_becomes_strict_is_so_for_all_its_triggers() {
    on_one_thread(async {
        let _hand = Hand::takes_all("rstrict");
        let rest = [sink("rstrict"), trigger("t", "rstrict", "")].concat();
        let mut stage = Stage::of(&[BROKER, &rest].concat()).await;
        let strict = BROKER.replace("{log: memory}", "{log: memory, strictReplies: true}");
        stage.apply(&[strict.as_str(), &rest].concat()).await;
        let broker = stage.engine.broker("default", "b").unwrap();
        assert!(broker.strict_replies());
        let name = waypost_core::manifest::ResourceName::new("default", "t");
        assert!(broker.subscription(&name).unwrap().delivering().terms.strict_replies);
        stage.shut_down().await;
    });
}

/// A trigger that is led elsewhere by the change that makes the broker there finds it.
#[test]
fn a_new_broker_is_there_before_anything_is_sent_to_it() {
    on_one_thread(async {
        let hand = Hand::takes_all("rend");
        let broker = |name: &str| BROKER.replace("name: b", &format!("name: {name}"));
        let leads = |name: &str, of: &str, to: &str| {
            let trigger = trigger(name, to, "").replace("kind: Sink", "kind: Broker");
            trigger.replace("broker: b", &format!("broker: {of}"))
        };
        let paused = [BROKER, &sink("rend"), &trigger("t", "rend", "paused: true")].concat();
        let mut stage = Stage::of(&paused).await;
        stage.publish("b", 0..4).await;
        let last = trigger("last", "rend", "").replace("broker: b", "broker: d");
        let brokers = [broker("a"), broker("b"), broker("c"), broker("d")].concat();
        let triggers = [leads("t", "b", "c"), leads("on", "c", "a"), leads("off", "a", "d"), last].concat();
        let begun = Instant::now();
        stage.apply(&[brokers, sink("rend"), triggers].concat()).await;
        assert_eq!(stage.plan.problems, []);
        stage.until("last", |line| line.delivered == 4).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(500), "none was taken for one that is not there: {took:?}");
        assert_eq!(hand.sent().len(), 4);
        stage.shut_down().await;
    });
}

/// A trigger that is led away from what the same change takes away never finds it gone.
#[test]
fn what_is_gone_is_there_until_nothing_is_sent_to_it() {
    on_one_thread(async {
        let (old, new) = (Hand::takes_all("rgone"), Hand::takes_all("rcame"));
        old.shut();
        let before = [BROKER, &sink("rgone"), &trigger("t", "rgone", "delivery: {maxInFlight: 1}")].concat();
        let mut stage = Stage::of(&before).await;
        stage.publish("b", 0..1_000).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // From here on its worker goes from one event to the next whenever the reload waits for something.
        old.open();
        let another = BROKER.replace("name: b", "name: a");
        let after = [BROKER, &another, &sink("rcame"), &trigger("t", "rcame", "delivery: {maxInFlight: 1}")];
        stage.apply(&after.concat()).await;
        assert_eq!(stage.plan.problems, []);
        stage.until("t", |line| line.delivered == 1_000).await;
        let failed = stage.engine.metrics();
        let failed: Vec<_> =
            failed.lines().filter(|line| line.starts_with("waypost_attempts_failed")).collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(old.sent().len() + new.sent().len(), 1_000);
        assert!(
            old.sent().len() > 1 && !new.sent().is_empty(),
            "{} and {}",
            old.sent().len(),
            new.sent().len()
        );
        stage.shut_down().await;
    });
}
