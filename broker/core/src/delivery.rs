//! What a manifest asks of a delivery: retries, backoff, timeouts and limits.

use std::num::NonZeroU32;
use std::sync::Arc;
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
    /// The most attempts per second; as many as come where absent.
    pub rate: Option<Rate>,
    /// Whether events of one key stay in order.
    pub ordering: Ordering,
    /// Whether events wait, instead of using up their attempts, while the subscriber is away.
    pub hold_when_down: bool,
    /// The age, from the event's arrival in the log, after which it is dropped instead of attempted.
    pub deadline: Option<Duration>,
    /// How much the trigger may be owed before something is done about it; as much as the log holds where absent.
    pub max_backlog: Option<MaxBacklog>,
}

/// Whether events of one key stay in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ordering {
    /// No order.
    #[default]
    None,
    /// No event is attempted before the one ahead of it with the same key was delivered, dropped or dead-lettered. An
    /// event without a key is not ordered.
    Key {
        /// The attribute whose text is the key.
        attribute: Arc<str>,
    },
}

/// The attribute whose text is the key when a manifest says nothing: the one of the extension Partitioning.
pub const DEFAULT_ORDERING_KEY: &str = "partitionkey";

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
            rate: None,
            ordering: Ordering::None,
            hold_when_down: false,
            deadline: None,
            max_backlog: None,
        }
    }
}

/// How many attempts may be made per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The most in the long run.
    pub per_second: NonZeroU32,
    /// The most at once, after a time without any.
    pub burst: NonZeroU32,
}

impl Rate {
    /// So many per second; a tenth of them at once, and at least one, where no burst is given.
    pub fn new(per_second: NonZeroU32, burst: Option<NonZeroU32>) -> Self {
        let tenth = NonZeroU32::new(per_second.get() / 10).unwrap_or(NonZeroU32::MIN);
        Self { per_second, burst: burst.unwrap_or(tenth) }
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
