//! What `maxBacklog` does when a trigger is owed too much.

use super::*;
use crate::PublishError;

fn with(hand: &str, more: &str) -> String {
    [BROKER, &sink(hand), &trigger("t", hand, more)].concat()
}

#[test]
fn refuse_keeps_producers_out_until_it_is_owed_less() {
    on_one_thread(async {
        let hand = Hand::takes_all("brefuse");
        hand.shut();
        let stage = Stage::of(&with("brefuse", "delivery: {maxBacklog: {age: PT10S}}")).await;
        stage.publish("b", [0]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.publish("b", [1]).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let broker = stage.engine.broker("default", "b").expect("the broker runs");
        let record = Record { metadata: Metadata::default(), event: event("2", "t") };
        let refused = broker.publish([record], None).expect_err("the oldest is older than ten seconds");
        assert!(
            matches!(&refused, PublishError::Backlog(_)) && refused.to_string().contains("default/t"),
            "{refused}"
        );
        assert_eq!(refused.code(), codes::BACKLOG_EXCEEDED);
        let status = stage.engine.status(&StatusQuery::default()).await;
        let resource = status.resources.iter().find(|line| line.kind == "Trigger").expect("it is told of");
        assert_eq!(resource.reason, "BacklogExceeded");
        hand.open();
        stage.until("t", |line| line.delivered == 2).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        stage.publish("b", [2]).await;
        stage.until("t", |line| line.delivered == 3).await;
        stage.shut_down().await;
    });
}

#[test]
fn drop_gives_up_the_oldest_and_counts_them() {
    on_one_thread(async {
        let hand = Hand::takes_all("bdrop");
        let limited = "delivery: {maxBacklog: {size: 8KiB, whenExceeded: drop}}";
        let mut stage = Stage::of(&with("bdrop", &format!("paused: true\n{limited}"))).await;
        stage.publish("b", 0..500).await;
        let line = stage.until("t", |line| line.dropped > 0).await;
        assert_eq!(line.matched, 500);
        assert_eq!(line.dropped_by_reason.get("backlog"), Some(&line.dropped));
        assert!(line.pending > 5 && line.pending < 100, "{line:?}");
        stage.apply(&with("bdrop", limited)).await;
        let kept = line.pending;
        stage.until("t", |line| line.delivered == kept).await;
        let newest: Vec<_> = (500 - usize::try_from(kept).unwrap()..500).map(|id| id.to_string()).collect();
        let mut sent = hand.sent();
        sent.sort_by_key(|id| id.parse::<usize>().unwrap());
        assert_eq!(sent, newest, "the oldest went");
        stage.shut_down().await;
    });
}

#[test]
fn dead_letter_gives_up_what_waits_for_its_next_attempt_too() {
    on_one_thread(async {
        let _hand = Hand::on("bletter", |_, _| retryable());
        let spec = "delivery: {retry: 100, backoffPolicy: constant, backoffDelay: PT1H, backoffMax: PT1H, maxBacklog: \
                    {age: PT1M, whenExceeded: deadLetter}}";
        let stage = Stage::of(&with("bletter", spec)).await;
        stage.publish("b", 0..5).await;
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(stage.trigger("t").await.dead_lettered, 0);
        stage.publish("b", 5..8).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let line = stage.trigger("t").await;
        assert_eq!((line.dead_lettered, line.pending), (5, 3), "{line:?}");
        assert_eq!(line.dead_letters_stored, 5);
        let status = stage.engine.status(&StatusQuery::default()).await;
        assert!(status.logs[0].held_by.is_some());
        stage.shut_down().await;
    });
}
