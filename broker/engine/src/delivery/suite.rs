use proptest::prelude::*;
use waypost_core::codes;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const ARRIVED: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn backoff(policy: BackoffPolicy, delay_ms: u64, max_s: u64) -> Backoff {
    Backoff { policy, delay: Duration::from_millis(delay_ms), max: Duration::from_secs(max_s) }
}

fn policy(retry: u32) -> DeliveryPolicy {
    DeliveryPolicy { retry, ..DeliveryPolicy::default() }
}

fn retryable() -> DeliveryError {
    DeliveryError::retryable(codes::SUBSCRIBER_UNREACHABLE, "away")
}

fn asking(retry_after: Duration) -> DeliveryError {
    DeliveryError { retry_after: Some(retry_after), ..retryable() }
}

fn judged(policy: &DeliveryPolicy, attempts_made: u32, error: &DeliveryError) -> Verdict {
    judge(policy, attempts_made, ARRIVED, ARRIVED.after(SECOND), 0.0, error)
}

fn retry_in(wait: Duration) -> Verdict {
    Verdict::Retry { due: ARRIVED.after(SECOND).after(wait) }
}

#[test]
fn waits_follow_the_law_of_growth() {
    use BackoffPolicy::{Constant, Exponential, Linear};
    let seconds = |backoff: &Backoff, retries: &[u32]| -> Vec<f64> {
        retries.iter().map(|retry| wait(backoff, *retry, 0.0).as_secs_f64()).collect()
    };
    assert_eq!(seconds(&backoff(Exponential, 200, 600), &[1, 2, 3, 4, 10]), [0.2, 0.4, 0.8, 1.6, 102.4]);
    assert_eq!(seconds(&backoff(Linear, 200, 600), &[1, 2, 3, 10]), [0.2, 0.4, 0.6, 2.0]);
    assert_eq!(seconds(&backoff(Constant, 200, 600), &[1, 2, 100]), [0.2, 0.2, 0.2]);
    for policy in [Exponential, Linear] {
        let far = backoff(policy, 200, 600);
        assert_eq!(seconds(&far, &[1 << 20, 1 << 31, u32::MAX]), [600.0; 3]);
    }
    assert_eq!(seconds(&backoff(Exponential, 0, 600), &[1, 1 << 31]), [0.0; 2]);
    assert_eq!(seconds(&backoff(Constant, 5000, 1), &[1]), [1.0]);
}

#[test]
fn chance_adds_up_to_a_tenth_below_the_longest_wait() {
    let constant = backoff(BackoffPolicy::Constant, 1000, 600);
    assert_eq!(wait(&constant, 1, 0.0), SECOND);
    assert_eq!(wait(&constant, 1, 0.5), Duration::from_millis(1050));
    let capped = backoff(BackoffPolicy::Constant, 1000, 1);
    assert_eq!(wait(&capped, 1, 0.9), SECOND);
}

#[test]
fn retries_are_attempts_after_the_first() {
    assert_eq!(judged(&policy(0), 1, &retryable()), Verdict::DeadLetter);
    assert_eq!(judged(&policy(2), 1, &retryable()), retry_in(Duration::from_millis(200)));
    assert_eq!(judged(&policy(2), 2, &retryable()), retry_in(Duration::from_millis(400)));
    assert_eq!(judged(&policy(2), 3, &retryable()), Verdict::DeadLetter);
    assert_eq!(judged(&policy(2), u32::MAX, &retryable()), Verdict::DeadLetter);
}

#[test]
fn the_class_decides_before_the_count() {
    let permanent = DeliveryError::permanent(codes::SUBSCRIBER_STATUS_PERMANENT, "no");
    let misconfigured = DeliveryError::misconfigured(codes::SUBSCRIBER_NOT_RESOLVED, "nowhere");
    assert_eq!(judged(&policy(10), 1, &permanent), Verdict::DeadLetter);
    assert_eq!(judged(&policy(10), 1, &misconfigured), Verdict::Pause);
    assert_eq!(judged(&policy(0), 5, &misconfigured), Verdict::Pause);
}

#[test]
fn retry_after_lengthens_the_wait_up_to_its_limit() {
    let policy = DeliveryPolicy { retry_after_max: Duration::from_secs(30), ..policy(10) };
    assert_eq!(judged(&policy, 1, &asking(Duration::from_secs(7))), retry_in(Duration::from_secs(7)));
    assert_eq!(judged(&policy, 1, &asking(Duration::from_secs(31))), retry_in(Duration::from_secs(30)));
    assert_eq!(judged(&policy, 1, &asking(Duration::MAX)), retry_in(Duration::from_secs(30)));
    assert_eq!(judged(&policy, 3, &asking(Duration::from_millis(1))), retry_in(Duration::from_millis(800)));
    let off = DeliveryPolicy { retry_after_max: Duration::ZERO, ..policy };
    assert_eq!(judged(&off, 1, &asking(Duration::from_secs(7))), retry_in(Duration::from_millis(200)));
}

#[test]
fn a_retry_past_the_deadline_waits_for_the_deadline_and_is_dropped_there() {
    let deadline = Duration::from_millis(1100);
    let policy = DeliveryPolicy { deadline: Some(deadline), ..policy(10) };
    let end = ARRIVED.after(deadline);
    assert_eq!(judged(&policy, 1, &retryable()), Verdict::Retry { due: end });
    assert_eq!(before_attempt(&policy, ARRIVED, end, None), Some(DropReason::Deadline));
    assert_eq!(before_attempt(&policy, ARRIVED, Timestamp(end.0 - 1), None), None);
    let late = judge(&policy, 1, ARRIVED, end, 0.0, &retryable());
    assert_eq!(late, Verdict::Drop(DropReason::Deadline));
    let exhausted = judge(&policy, 11, ARRIVED, end, 0.0, &retryable());
    assert_eq!(exhausted, Verdict::DeadLetter, "a deadline does not hide that all attempts failed");
}

#[test]
fn an_event_expires_by_its_own_time() {
    // ARRIVED is 2023-11-14T22:13:20Z.
    for (expiry, expected) in [
        ("2023-11-14T22:13:19Z", Some(DropReason::Expired)),
        ("2023-11-14T22:13:19.999999999Z", Some(DropReason::Expired)),
        ("2023-11-14T22:13:19.9999999999Z", Some(DropReason::Expired)),
        ("2023-11-14T22:13:20Z", None),
        ("2023-11-14T22:13:20.0000000001Z", None),
        ("2023-11-14T23:13:19+01:00", Some(DropReason::Expired)),
        ("2023-11-14T23:13:21+01:00", None),
        ("9999-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", Some(DropReason::Expired)),
        ("tomorrow", None),
        ("", None),
    ] {
        assert_eq!(before_attempt(&policy(1), ARRIVED, ARRIVED, Some(expiry)), expected, "{expiry}");
    }
    assert_eq!(before_attempt(&policy(1), ARRIVED, ARRIVED, None), None);
}

fn any_backoff() -> impl Strategy<Value = Backoff> {
    let law = prop_oneof![
        Just(BackoffPolicy::Exponential),
        Just(BackoffPolicy::Linear),
        Just(BackoffPolicy::Constant)
    ];
    let duration = || {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0..100_000_u64).prop_map(Duration::from_millis)
        ]
    };
    (law, duration(), duration()).prop_map(|(policy, delay, max)| Backoff { policy, delay, max })
}

fn any_error() -> impl Strategy<Value = DeliveryError> {
    let class = prop_oneof![Just(Class::Retryable), Just(Class::Permanent), Just(Class::Misconfigured)];
    let retry_after = prop::option::of((0..u64::MAX).prop_map(Duration::from_secs));
    (class, retry_after).prop_map(|(class, retry_after)| DeliveryError { class, retry_after, ..retryable() })
}

proptest! {
    #[test]
    fn a_wait_is_never_shorter_than_the_law_nor_longer_than_the_limit(
        backoff in any_backoff(), retry in 1_u32.., jitter in 0.0..1.0_f64,
    ) {
        let (exact, jittered) = (wait(&backoff, retry, 0.0), wait(&backoff, retry, jitter));
        prop_assert!(jittered >= exact);
        prop_assert!(jittered <= backoff.max);
        prop_assert!(jittered.as_secs_f64() <= exact.as_secs_f64() * 1.1 + 1e-6);
        prop_assert!(exact >= backoff.delay.min(backoff.max));
    }

    #[test]
    fn waits_never_shrink(backoff in any_backoff(), retry in 1..u32::MAX) {
        prop_assert!(wait(&backoff, retry + 1, 0.0) >= wait(&backoff, retry, 0.0));
    }

    #[test]
    fn every_failure_ends_within_the_retries(
        backoff in any_backoff(),
        retry in 0..50_u32,
        deadline in prop::option::of((0..1_000_000_u64).prop_map(Duration::from_millis)),
        errors in prop::collection::vec(any_error(), 60),
        jitter in 0.0..1.0_f64,
    ) {
        let policy = DeliveryPolicy { backoff, deadline, ..policy(retry) };
        let mut now = ARRIVED;
        let mut attempts = 0;
        for error in &errors {
            if before_attempt(&policy, ARRIVED, now, None).is_some() {
                break;
            }
            attempts += 1;
            prop_assert!(attempts <= retry + 1, "one more attempt than allowed");
            match judge(&policy, attempts, ARRIVED, now, jitter, error) {
                Verdict::Retry { due } => {
                    prop_assert!(error.class == Class::Retryable && due >= now);
                    if let Some(deadline) = deadline {
                        prop_assert!(due <= ARRIVED.after(deadline));
                    }
                    now = due;
                }
                Verdict::DeadLetter => {
                    prop_assert!(error.class == Class::Permanent || attempts == retry + 1);
                    break;
                }
                Verdict::Drop(reason) => {
                    prop_assert!(deadline.is_some() && reason == DropReason::Deadline);
                    break;
                }
                Verdict::Pause => {
                    prop_assert_eq!(error.class, Class::Misconfigured);
                    attempts -= 1;
                }
            }
        }
    }

    #[test]
    fn no_expiry_text_makes_it_panic(text in ".*") {
        let _ = before_attempt(&policy(0), ARRIVED, ARRIVED, Some(&text));
    }
}
