//! Dead letters that are sent again, and dead-letter sinks that do not take them.

use waypost_core::manifest::ResourceName;

use super::*;
use crate::{LetterChoice, LetterQuery, RedriveError, RedriveRequest, RedriveState, RedriveStatus};

fn everything() -> RedriveRequest {
    RedriveRequest { choice: LetterChoice::Query(LetterQuery::default()), to: None, rate: None }
}

fn is_redriven(event: &Event) -> bool {
    event.attribute("waypostredrive").is_some()
}

impl Stage {
    async fn redriven(&self, request: RedriveRequest) -> RedriveStatus {
        let started = self.engine.redrive(request).await.expect("it starts");
        self.ended(&started.id).await
    }

    async fn ended(&self, id: &str) -> RedriveStatus {
        let end = Instant::now() + Duration::from_secs(60 * 60);
        loop {
            let redrive = self.engine.find_redrive(id).expect("it is known");
            if redrive.ended_at.is_some() {
                return redrive;
            }
            assert!(Instant::now() < end, "never ends: {redrive:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A trigger with so many dead letters.
    async fn with_dead_letters(hand: &str, count: usize, more: &str) -> Self {
        let stage = Self::of(&[BROKER, &sink(hand), &trigger("t", hand, more)].concat()).await;
        stage.publish("b", 0..count).await;
        let count = count as u64;
        stage.until("t", |line| line.dead_lettered == count && line.dead_letters_stored == count).await;
        stage
    }
}

fn counts(redrive: &RedriveStatus) -> [u64; 5] {
    [redrive.selected, redrive.sent, redrive.failed, redrive.gone, redrive.left]
}

#[test]
fn a_redrive_sends_what_was_given_up_with_its_mark() {
    on_one_thread(async {
        let takes = |event: &Event, _| if is_redriven(event) { Outcome::Delivered } else { permanent() };
        let hand = Hand::on("qtakes", takes);
        let stage = Stage::with_dead_letters("qtakes", 300, "delivery: {maxInFlight: 3}").await;
        let preview = stage.engine.preview_redrive(&everything()).await.expect("it is told");
        assert_eq!((preview.selected, preview.triggers.get("default/t")), (300, Some(&300)));
        assert_eq!((stage.trigger("t").await.dead_letters_stored, hand.sent().len()), (300, 300));

        let redrive = stage.redriven(everything()).await;
        assert_eq!((redrive.state, counts(&redrive)), (RedriveState::Done, [300, 300, 0, 0, 0]));
        let line = stage.trigger("t").await;
        assert_eq!((line.dead_lettered, line.dead_letters_stored, line.delivered), (300, 0, 0), "{line:?}");
        assert_eq!(hand.sent().len(), 600, "none twice");
        assert!(hand.at_once().1 <= 3, "{:?}", hand.at_once());
        let again = stage.redriven(everything()).await;
        assert_eq!(counts(&again), [0; 5]);
        assert!(again.id > redrive.id);
        stage.shut_down().await;
    });
}

#[test]
fn what_fails_again_stays_and_is_not_tried_again_by_the_same_redrive() {
    on_one_thread(async {
        let hand = Hand::on("qagain", |event, _| match event.id() {
            "2" | "3" => retryable(),
            _ if is_redriven(event) => Outcome::Delivered,
            _ => permanent(),
        });
        let spec = "delivery: {retry: 1, backoffPolicy: constant, backoffDelay: PT1S}";
        let stage = Stage::with_dead_letters("qagain", 6, spec).await;
        let before = stage.engine.dead_letters(&LetterQuery::default(), None, 10).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let redrive = stage.redriven(everything()).await;
        assert_eq!(counts(&redrive), [6, 4, 2, 0, 0]);
        let left = stage.engine.dead_letters(&LetterQuery::default(), None, 10).await;
        assert_eq!(left.len(), 2);
        for line in &left {
            let was = before.iter().find(|was| was.id == line.id).expect("it keeps its name");
            assert!(line.attempts > was.attempts && line.at > was.at, "{line:?} {was:?}");
            let name = line.id.parse().expect("it is a name");
            let letter = stage.engine.dead_letter(&name).await.expect("it is there");
            assert_eq!(letter.redrive.as_ref(), Some(&redrive.id));
            assert_eq!(letter.attempts.len(), letter.attempts_made as usize);
            assert!(letter.attempts.is_sorted_by_key(|attempt| attempt.number));
        }
        hand.answer(|_, _| Outcome::Delivered);
        assert_eq!(counts(&stage.redriven(everything()).await), [2, 2, 0, 0, 0]);
        assert_eq!(stage.trigger("t").await.dead_lettered, 6);
        stage.shut_down().await;
    });
}

#[test]
fn a_redrive_keeps_to_its_rate() {
    on_one_thread(async {
        let hand = Hand::on("qrate", |_, _| permanent());
        let stage = Stage::with_dead_letters("qrate", 20, "").await;
        hand.answer(|_, _| Outcome::Delivered);
        let begun = Instant::now();
        let redrive =
            stage.redriven(RedriveRequest { rate: std::num::NonZeroU32::new(2), ..everything() }).await;
        assert_eq!(counts(&redrive), [20, 20, 0, 0, 0]);
        assert!(begun.elapsed() >= Duration::from_millis(9_500), "{:?}", begun.elapsed());
        stage.shut_down().await;
    });
}

#[test]
fn redrives_that_overlap_send_each_dead_letter_once() {
    on_one_thread(async {
        let hand = Hand::on("qtwo", |_, _| permanent());
        let stage = Stage::with_dead_letters("qtwo", 100, "").await;
        hand.answer(|_, _| Outcome::Delivered);
        hand.shut();
        let first = stage.engine.redrive(everything()).await.expect("it starts");
        let second = stage.engine.redrive(everything()).await.expect("it starts");
        tokio::time::sleep(Duration::from_secs(10)).await;
        hand.open();
        let (first, second) = (stage.ended(&first.id).await, stage.ended(&second.id).await);
        assert_eq!(first.sent + second.sent, 100, "{first:?} {second:?}");
        assert_eq!((first.left, second.left), (0, 0));
        assert_eq!(hand.sent().len(), 200);
        stage.shut_down().await;
    });
}

#[test]
fn a_paused_trigger_is_waited_for_and_a_cancelled_redrive_leaves_the_rest() {
    on_one_thread(async {
        let hand = Hand::on("qpause", |_, _| permanent());
        let mut stage = Stage::with_dead_letters("qpause", 10, "").await;
        hand.answer(|_, _| Outcome::Delivered);
        let text = |more: &str| [BROKER, &sink("qpause"), &trigger("t", "qpause", more)].concat();
        stage.apply(&text("paused: true")).await;
        let started = stage.engine.redrive(everything()).await.expect("it starts");
        tokio::time::sleep(Duration::from_secs(30)).await;
        let waiting = stage.engine.find_redrive(&started.id).expect("it is known");
        assert!(waiting.waiting.as_ref().is_some_and(|why| why.contains("paused")), "{waiting:?}");
        assert_eq!(counts(&waiting), [10, 0, 0, 0, 10]);
        let cancelled = stage.engine.cancel_redrive(&started.id).await.expect("it is known");
        assert_eq!((cancelled.state, counts(&cancelled)), (RedriveState::Cancelled, [10, 0, 0, 0, 10]));
        assert_eq!(stage.trigger("t").await.dead_letters_stored, 10);

        let started = stage.engine.redrive(everything()).await.expect("it starts");
        tokio::time::sleep(Duration::from_secs(30)).await;
        stage.apply(&text("")).await;
        assert_eq!(counts(&stage.ended(&started.id).await), [10, 10, 0, 0, 0]);
        stage.shut_down().await;
    });
}

#[test]
fn dead_letters_of_a_trigger_that_is_gone_need_a_destination_and_can_be_purged() {
    on_one_thread(async {
        let _refuses = Hand::on("qgone", |_, _| permanent());
        let mut stage = Stage::with_dead_letters("qgone", 10, "").await;
        stage.apply(&[BROKER, &sink("qgone")].concat()).await;
        let refused = stage.engine.redrive(everything()).await.expect_err("there is no subscriber");
        assert!(matches!(&refused, RedriveError::NoDestination(of) if of == &["default/t"]), "{refused:?}");
        let of_other =
            LetterQuery { trigger: Some(ResourceName::new("default", "u")), ..LetterQuery::default() };
        assert_eq!(stage.engine.purge(&LetterChoice::Query(of_other)).await, Ok(0));
        let all = stage.engine.dead_letters(&LetterQuery::default(), None, 100).await;
        let page =
            stage.engine.dead_letters(&LetterQuery::default(), all[3].id.parse().ok().as_ref(), 2).await;
        assert_eq!(page, all[4..6]);
        let named = all[..4].iter().map(|line| line.id.parse().expect("it is a name")).collect();
        assert_eq!(stage.engine.purge(&LetterChoice::Named(named)).await, Ok(4));
        let of_it =
            LetterQuery { trigger: Some(ResourceName::new("default", "t")), ..LetterQuery::default() };
        assert_eq!(stage.engine.purge(&LetterChoice::Query(of_it)).await, Ok(6));
        assert_eq!(stage.engine.dead_letters(&LetterQuery::default(), None, 100).await, []);
        stage.shut_down().await;
    });
}

#[test]
fn a_dead_letter_sink_that_is_the_own_broker_goes_round_once() {
    on_one_thread(async {
        let hand = Hand::on("qround", |_, _| permanent());
        let spec =
            "delivery: {deadLetterSink: {ref: {apiVersion: waypost.dev/v1alpha1, kind: Broker, name: b}}}";
        let stage = Stage::of(&[BROKER, &sink("qround"), &trigger("t", "qround", spec)].concat()).await;
        stage.publish("b", 0..3).await;
        stage.until("t", |line| line.matched == 6 && line.dead_lettered == 6).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let line = stage.trigger("t").await;
        assert_eq!((line.matched, line.dead_letters_stored, line.pending), (6, 3, 0), "{line:?}");
        assert_eq!(hand.sent().len(), 6);
        stage.shut_down().await;
    });
}

#[test]
fn a_dead_letter_sink_that_is_down_holds_neither_the_window_nor_a_key() {
    on_one_thread(async {
        let bad = |event: &Event| event.id().parse::<u32>().expect("a number").is_multiple_of(2);
        let hand =
            Hand::on("qdown", move |event, _| if bad(event) { permanent() } else { Outcome::Delivered });
        let dead = Hand::takes_all("qdowndls");
        dead.shut();
        let spec = "delivery: {maxInFlight: 1, ordering: key, orderingKey: source, deadLetterSink: \
                    {ref: {apiVersion: waypost.dev/v1alpha1, kind: Sink, name: qdowndls}}}";
        let yaml = [BROKER, &sink("qdown"), &sink("qdowndls"), &trigger("t", "qdown", spec)];
        let stage = Stage::of(&yaml.concat()).await;
        stage.publish("b", 0..200).await;
        let line = stage.until("t", |line| line.delivered == 100 && line.dead_lettered == 100).await;
        assert_eq!((line.pending, line.dead_letters_stored), (0, 100));
        assert_eq!(hand.sent(), (0..200).map(|id| id.to_string()).collect::<Vec<_>>(), "in order");
        // A redrive and the forwarder send none at the same time.
        hand.answer(|_, _| Outcome::Delivered);
        let redrive = stage.engine.redrive(everything()).await.expect("it starts");
        tokio::time::sleep(Duration::from_secs(20)).await;
        dead.open();
        let ended = stage.ended(&redrive.id).await;
        stage.until("t", |line| line.dead_letters_stored == 0).await;
        assert_eq!(ended.sent + dead.sent().len() as u64, 100, "{ended:?}");
        stage.shut_down().await;
    });
}
