//! The delivery state machine: what follows from a failed attempt. Pure: time and chance are arguments.
//!
//! ```text
//!            before_attempt                       judge
//!   event ─────────────────▶ attempt ──failed──┬─ permanent, or no retry left ─▶ dead letter
//!     ▲          │                             ├─ misconfigured ───────────────▶ pause
//!     │          └─▶ dropped                   ├─ past its deadline ───────────▶ dropped
//!     └───────────── wait ◀────────────────────┴─ otherwise
//! ```

use std::time::Duration;

use waypost_core::codes;
use waypost_core::delivery::{Backoff, BackoffPolicy, DeliveryPolicy};
use waypost_core::error::{Class, DeliveryError};
use waypost_core::event::instant;
use waypost_log::{DropReason, Timestamp};

/// What follows from a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another attempt, no sooner than `due`.
    Retry {
        /// When.
        due: Timestamp,
    },
    /// No other attempt: the event goes to the store of dead letters.
    DeadLetter,
    /// No other attempt, because the manifest asked for none after this time.
    Drop(DropReason),
    /// The trigger stops until its configuration is mended. The attempt does not count.
    Pause,
}

/// The most that is added to a wait by chance, as a share of it.
const JITTER: f64 = 0.1;

/// Decides what follows from a failed attempt.
///
/// `attempts_made` counts this one; `jitter` is drawn evenly from 0 to 1, 1 left out. A retry that would be due after
/// the trigger's deadline is due at the deadline, where [`before_attempt`] drops it: it is not known sooner that no
/// attempt will be made, since the deadline may be raised.
pub(crate) fn judge(
    policy: &DeliveryPolicy,
    attempts_made: u32,
    arrived: Timestamp,
    now: Timestamp,
    jitter: f64,
    error: &DeliveryError,
) -> Verdict {
    match error.class {
        Class::Misconfigured => return Verdict::Pause,
        Class::Permanent => return Verdict::DeadLetter,
        Class::Retryable if attempts_made > policy.retry => return Verdict::DeadLetter,
        Class::Retryable => {}
    }
    let asked = error.retry_after.unwrap_or_default().min(policy.retry_after_max);
    let due = now.after(wait(&policy.backoff, attempts_made, jitter).max(asked));
    match policy.deadline.map(|deadline| arrived.after(deadline)) {
        Some(end) if now >= end => Verdict::Drop(DropReason::Deadline),
        Some(end) => Verdict::Retry { due: due.min(end) },
        None => Verdict::Retry { due },
    }
}

/// Whether a failure says that the subscriber is away: a connection error, a timeout, 429 or 503. Such an attempt does
/// not count where the trigger says `holdWhenDown`. A reply that finds no room is our own affair.
pub(crate) fn says_away(error: &DeliveryError) -> bool {
    error.class == Class::Retryable && error.congested && error.code != codes::REPLY_NOT_APPENDED
}

/// Whether an event is dropped instead of attempted: because the trigger's deadline has come, or because the event says
/// by its extension `expirytime` (RFC 3339) that it is of no use any more. A text that is no time says nothing.
pub(crate) fn before_attempt(
    policy: &DeliveryPolicy,
    arrived: Timestamp,
    now: Timestamp,
    expiry: Option<&str>,
) -> Option<DropReason> {
    if policy.deadline.is_some_and(|deadline| now >= arrived.after(deadline)) {
        return Some(DropReason::Deadline);
    }
    let expiry = instant(expiry?).ok()?;
    (i128::from(now.0) > expiry.as_nanosecond()).then_some(DropReason::Expired)
}

/// The wait before a retry, which is counted from 1: what the law of growth says and up to a tenth more, and never more
/// than the longest wait.
pub(crate) fn wait(backoff: &Backoff, retry_number: u32, jitter: f64) -> Duration {
    let delay = backoff.delay.as_nanos();
    let factor = match backoff.policy {
        BackoffPolicy::Exponential => 1_u128.checked_shl(retry_number.saturating_sub(1)).unwrap_or(u128::MAX),
        BackoffPolicy::Linear => u128::from(retry_number.max(1)),
        BackoffPolicy::Constant => 1,
    };
    let max = backoff.max.as_nanos();
    let least = delay.saturating_mul(factor).min(max);
    // Rounding is harmless here: the exact wait is `least`, and only what chance adds goes through a float.
    let added = (least as f64 * JITTER * jitter.clamp(0.0, 1.0)) as u128;
    let nanoseconds = least.saturating_add(added).min(max);
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanoseconds / SECOND).unwrap_or(u64::MAX);
    Duration::new(seconds, u32::try_from(nanoseconds % SECOND).expect("a remainder of 10^9 has 30 bits"))
}

#[cfg(test)]
mod suite;
