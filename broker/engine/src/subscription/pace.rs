//! How fast a trigger may make attempts: its `ratePerSecond`.

use std::time::Duration;

use waypost_core::delivery::Rate;
use waypost_log::{Clock, Timestamp};

use crate::rate::TokenBucket;

/// The shortest wait for tokens. At high rates several come at once, for the alarm is not finer than this.
const GRAIN: Duration = Duration::from_millis(1);

/// How fast attempts may be made; as fast as they come where there is no rate.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bucket: Option<TokenBucket>,
    /// When there will be tokens, where there are none.
    until: Option<Timestamp>,
}

impl Pace {
    /// Takes over the rate of a new version of the trigger.
    pub(super) fn set(&mut self, rate: Option<Rate>, now: Timestamp) {
        if self.bucket.as_ref().map(TokenBucket::rate) != rate {
            *self = Self { bucket: rate.map(|rate| TokenBucket::new(rate, now)), until: None };
        }
    }

    /// Takes the right to one attempt, or says when to ask again.
    pub(super) fn take(&mut self, clock: &Clock) -> Result<(), Timestamp> {
        let Some(bucket) = &mut self.bucket else { return Ok(()) };
        let now = clock.now();
        let taken = bucket.take(now).map_err(|next| next.max(now.after(GRAIN)));
        self.until = taken.err();
        taken
    }

    /// Gives the right to an attempt back that was not made.
    pub(super) fn put_back(&mut self) {
        if let Some(bucket) = &mut self.bucket {
            bucket.put_back();
        }
    }

    /// Whether an attempt may be made, as far as is known.
    pub(super) fn may_go(&self) -> bool {
        self.until.is_none()
    }

    /// When to look again, where no attempt may be made.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Lets go of what was to wait until now.
    pub(super) fn time_passes(&mut self, now: Timestamp) {
        self.until = self.until.filter(|until| *until > now);
    }
}
