//! What a manifest asks of a delivery: retries, backoff, timeouts and limits.

use std::time::Duration;

/// How a trigger delivers. Every field has a value: defaults are filled in when the plan is made.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryPolicy {
    /// Attempts after the first. `retry: 3` means four attempts.
    pub retry: u32,
    /// How the wait before a retry grows.
    pub backoff: Backoff,
    /// The time for one attempt, from the connection to the last byte of the answer.
    pub timeout: Duration,
    /// The most of a `Retry-After` that is honoured; zero turns it off.
    pub retry_after_max: Duration,
    /// How events are written to an HTTP subscriber.
    pub format: Format,
    /// The most calls to the subscriber at one time.
    pub max_in_flight: u32,
    /// The age, from the event's arrival in the log, after which it is dropped instead of attempted.
    pub deadline: Option<Duration>,
    /// How much the trigger may be owed before something is done about it; as much as the log holds where absent.
    pub max_backlog: Option<MaxBacklog>,
}

/// How much a trigger may be owed, and what is done when it is more. At least one of the limits is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxBacklog {
    /// The bytes of the log from the oldest event on that the trigger is owed.
    pub size: Option<u64>,
    /// How long that event has been in the log.
    pub age: Option<Duration>,
    /// What is done.
    pub when_exceeded: WhenExceeded,
}

/// What is done when a trigger is owed more than its `maxBacklog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenExceeded {
    /// The broker takes no more events from producers.
    #[default]
    Refuse,
    /// The oldest are dead-lettered.
    DeadLetter,
    /// The oldest are dropped.
    Drop,
}

/// Knative's retry when a manifest says nothing about delivery.
pub const DEFAULT_RETRY: u32 = 10;
/// Knative's backoff delay when a manifest says nothing.
pub const DEFAULT_BACKOFF_DELAY: Duration = Duration::from_millis(200);
/// The longest wait between attempts when a manifest says nothing.
pub const DEFAULT_BACKOFF_MAX: Duration = Duration::from_secs(600);
/// Knative Serving's request timeout, which leaves room for cold starts and long functions.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// The most of a `Retry-After` that is honoured when a manifest says nothing.
pub const DEFAULT_RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// The most calls at one time when a manifest says nothing.
pub const DEFAULT_MAX_IN_FLIGHT: u32 = 64;

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            retry: DEFAULT_RETRY,
            backoff: Backoff::default(),
            timeout: DEFAULT_TIMEOUT,
            retry_after_max: DEFAULT_RETRY_AFTER_MAX,
            format: Format::Binary,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            deadline: None,
            max_backlog: None,
        }
    }
}

/// How the wait before a retry grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The law of growth.
    pub policy: BackoffPolicy,
    /// The unit of the law.
    pub delay: Duration,
    /// The longest wait, jitter included.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { policy: BackoffPolicy::Exponential, delay: DEFAULT_BACKOFF_DELAY, max: DEFAULT_BACKOFF_MAX }
    }
}

/// The law by which the wait before retry `n`, counted from 1, grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackoffPolicy {
    /// `delay * 2^(n-1)`
    Exponential,
    /// `delay * n`
    Linear,
    /// `delay`
    Constant,
}

/// How events are written to an HTTP subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Attributes as headers, data as the body.
    Binary,
    /// One JSON document (`format: json`).
    Json,
}
