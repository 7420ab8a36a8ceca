//! A bound on how many attempts are made per second.

use std::time::Duration;

use waypost_core::delivery::Rate;
use waypost_log::Timestamp;

/// How far a taker who waited may be late without losing what came in meanwhile. Timers are late by a millisecond or
/// two, and by more where the processors are busy; without this a rate with a small burst would never be reached.
const LATENESS: i64 = 20_000_000;

/// Tokens that come in at an even pace: one is taken for each attempt. Pure: the time is an argument.
///
/// Kept as one moment, the one at which the bucket would be full again, so that nothing is added up over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    rate: Rate,
    /// When the bucket is full, in nanoseconds since 1970.
    full: i64,
    /// Whether someone waits for a token, since the last one who asked got none.
    waited_for: bool,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn new(rate: Rate, now: Timestamp) -> Self {
        Self { rate, full: now.0, waited_for: false }
    }

    /// The pace and the size.
    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token, or says when there will be one, which is later than `now`. A clock that was set back empties the
    /// bucket and does not stop it.
    pub(crate) fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let interval = self.interval();
        let whole = interval.saturating_mul(i64::from(self.rate.burst.get()));
        let earliest = if self.waited_for { now.0.saturating_sub(LATENESS) } else { now.0 };
        let full = self.full.clamp(earliest, now.0.saturating_add(whole));
        let filled_by_one = full.saturating_sub(whole - interval);
        if filled_by_one > now.0 {
            (self.full, self.waited_for) = (full, true);
            return Err(Timestamp(filled_by_one));
        }
        self.full = full.saturating_add(interval);
        // Until all that came in meanwhile is taken.
        self.waited_for &= self.full <= now.0;
        Ok(())
    }

    /// Puts a token back that was not used.
    pub(crate) fn put_back(&mut self) {
        self.full = self.full.saturating_sub(self.interval());
    }

    /// Nanoseconds from one token to the next.
    fn interval(&self) -> i64 {
        let second = i64::try_from(Duration::from_secs(1).as_nanos()).expect("a second is 10^9 nanoseconds");
        (second / i64::from(self.rate.per_second.get())).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn bucket(per_second: u32, burst: u32) -> TokenBucket {
        let number = |number| NonZeroU32::new(number).expect("it is not 0");
        TokenBucket::new(Rate::new(number(per_second), NonZeroU32::new(burst)), Timestamp(0))
    }

    /// Takes all that there is at a moment.
    fn all(bucket: &mut TokenBucket, now: i64) -> usize {
        (0..).take_while(|_| bucket.take(Timestamp(now)).is_ok()).count()
    }

    #[test]
    fn a_tenth_of_the_rate_comes_at_once_and_the_rest_at_an_even_pace() {
        let mut bucket = bucket(100, 0);
        assert_eq!(all(&mut bucket, 0), 10);
        assert_eq!(bucket.take(Timestamp(0)), Err(Timestamp(SECOND / 100)));
        assert_eq!(all(&mut bucket, SECOND / 100), 1);
        assert_eq!(all(&mut bucket, SECOND / 20), 4);
        assert_eq!(all(&mut bucket, 100 * SECOND), 12, "the burst, and what waited for the late one");
    }

    #[test]
    fn what_was_not_asked_for_does_not_add_up() {
        let mut bucket = bucket(10, 1);
        assert_eq!(bucket.take(Timestamp(0)), Ok(()));
        assert_eq!(bucket.take(Timestamp(50 * SECOND)), Ok(()));
        assert_eq!(bucket.take(Timestamp(50 * SECOND)), Err(Timestamp(50 * SECOND + SECOND / 10)));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_it() {
        let mut bucket = bucket(10, 1);
        assert_eq!(bucket.take(Timestamp(1_000 * SECOND)), Ok(()));
        assert_eq!(bucket.take(Timestamp(0)), Err(Timestamp(SECOND / 10)));
        assert_eq!(bucket.take(Timestamp(SECOND / 10)), Ok(()));
    }

    proptest! {
        /// A taker who sleeps until he is told, and a little longer.
        #[test]
        fn a_late_taker_keeps_the_rate(per_second in 1_u32..20_000, burst in 1_u32..50, late in 0..LATENESS / 2) {
            let mut bucket = bucket(per_second, burst);
            let (mut now, mut taken) = (0, 0_u32);
            let seconds = 10 + 20 / i64::from(per_second);
            while now < seconds * SECOND {
                match bucket.take(Timestamp(now)) {
                    Ok(()) => taken += 1,
                    Err(next) => {
                        prop_assert!(next.0 > now);
                        now = next.0 + late;
                    }
                }
            }
            let wanted = f64::from(per_second) * seconds as f64;
            prop_assert!(f64::from(taken) <= wanted * 1.01 + f64::from(burst) + 1.0, "{taken} of {wanted}");
            prop_assert!(f64::from(taken) >= wanted * 0.95, "{taken} of {wanted}");
        }
    }
}
