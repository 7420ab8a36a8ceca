//! Random answers, random reloads, several threads: whatever happens, no event is lost and the ledger holds.

use super::*;

const EVENTS: usize = 3_000;
const TRIGGERS: usize = 4;
const A_MINUTE: Duration = Duration::from_secs(60);

/// An answer that depends on nothing but the event and the try, so that a failure can be repeated.
fn fickle(event: &Event, before: usize) -> Outcome {
    let number =
        event.id().bytes().fold(before.wrapping_mul(7), |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
    match number % 11 {
        0 | 1 => retryable(),
        2 => congested(),
        // Rare, for each costs a real second.
        _ if number % 1_009 == 3 && before == 0 => misconfigured(),
        _ if event.id().ends_with("13") => permanent(),
        _ => Outcome::Delivered,
    }
}

fn manifests(round: usize) -> String {
    let mut yaml = BROKER.to_owned();
    for number in 0..TRIGGERS {
        yaml += &sink(&format!("chaos{number}"));
        let delivery = format!(
            "delivery: {{retry: 50, backoffPolicy: constant, backoffDelay: PT0.01S, maxInFlight: {}}}",
            1 + (round + number) % 7
        );
        // The last trigger comes and goes; the others change how they deliver.
        if number + 1 < TRIGGERS || round.is_multiple_of(2) {
            yaml += &trigger(&format!("t{number}"), &format!("chaos{number}"), &delivery);
        }
    }
    yaml
}

#[test]
fn nothing_is_lost_whatever_sinks_answer_and_manifests_say() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let hands: Vec<_> = (0..TRIGGERS).map(|number| Hand::on(&format!("chaos{number}"), fickle)).collect();
        let mut stage = Stage::new();
        stage.apply(&manifests(0)).await;
        for round in 1..=20 {
            let part = EVENTS / 20;
            stage.publish("b", (round - 1) * part..round * part).await;
            stage.apply(&manifests(round)).await;
            for number in 0..TRIGGERS {
                stage.trigger(&format!("t{number}")).await;
            }
        }
        for (number, hand) in hands.iter().enumerate().take(TRIGGERS - 1) {
            let name = format!("t{number}");
            let settled = tokio::time::timeout(A_MINUTE, stage.until(&name, |line| line.pending == 0)).await;
            let Ok(line) = settled else { panic!("not settled: {:?}", stage.trigger(&name).await) };
            assert_eq!(line.matched, EVENTS as u64);
            assert_eq!(line.dropped, 0);
            let mut sent = hand.sent();
            sent.sort();
            sent.dedup();
            assert_eq!(sent.len(), EVENTS, "every event reached the sink");
        }
        let line = stage.until("t3", |line| line.pending == 0).await;
        assert!(line.matched > 0 && line.matched < EVENTS as u64);
        stage.shut_down().await;
    });
}
