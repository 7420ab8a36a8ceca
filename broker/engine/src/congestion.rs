//! How many attempts of one trigger may be under way at one time.

/// What an attempt said about the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It answered, whatever it answered, and did not ask for less.
    Answered,
    /// It is away or overloaded: a connection error, a timeout, 429 or 503.
    Congested,
}

/// A limit that finds out how much the other side takes: it starts at 1, doubles with every answer and halves with
/// every sign of congestion. At 1 it is the probe of a subscriber that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CongestionWindow {
    limit: u32,
    max: u32,
}

impl CongestionWindow {
    /// A window that has seen nothing yet. `max` below 1 counts as 1, since a limit of 0 would never end.
    pub(crate) fn new(max: u32) -> Self {
        Self { limit: 1, max: max.max(1) }
    }

    /// Takes note of how an attempt went.
    pub(crate) fn on(&mut self, signal: Signal) {
        self.limit = match signal {
            Signal::Answered => self.limit.saturating_mul(2).min(self.max),
            Signal::Congested => (self.limit / 2).max(1),
        };
    }

    /// Forgets what it found out: the next attempt is a probe again.
    pub(crate) fn start_anew(&mut self) {
        self.limit = 1;
    }

    /// The most attempts at one time.
    pub(crate) fn limit(self) -> u32 {
        self.limit
    }

    /// Changes the upper bound (`maxInFlight`); a limit above it comes down at once.
    pub(crate) fn set_max(&mut self, max: u32) {
        self.max = max.max(1);
        self.limit = self.limit.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(max: u32, signals: &[Signal]) -> u32 {
        let mut window = CongestionWindow::new(max);
        for signal in signals {
            window.on(*signal);
        }
        window.limit()
    }

    #[test]
    fn answers_double_it_and_congestion_halves_it() {
        use Signal::{Answered, Congested};
        assert_eq!(after(64, &[]), 1);
        assert_eq!(after(64, &[Answered; 3]), 8);
        assert_eq!(after(64, &[Answered; 100]), 64);
        assert_eq!(after(10, &[Answered; 5]), 10);
        assert_eq!(after(10, &[Answered, Answered, Answered, Answered, Congested]), 5);
        assert_eq!(after(64, &[Answered, Congested, Congested, Congested]), 1);
        assert_eq!(after(64, &[Congested, Answered]), 2);
        assert_eq!(after(0, &[Answered]), 1);
        assert_eq!(after(u32::MAX, &[Answered; 40]), u32::MAX);
    }

    #[test]
    fn a_lower_maximum_applies_at_once() {
        let mut window = CongestionWindow::new(64);
        for _ in 0..6 {
            window.on(Signal::Answered);
        }
        window.set_max(10);
        assert_eq!(window.limit(), 10);
        window.set_max(0);
        assert_eq!(window.limit(), 1);
        window.set_max(64);
        assert_eq!(window.limit(), 1);
        window.on(Signal::Answered);
        assert_eq!(window.limit(), 2);
    }

    proptest! {
        #[test]
        fn it_stays_between_one_and_its_maximum(max: u32, answered in prop::collection::vec(any::<bool>(), 0..80)) {
            let mut window = CongestionWindow::new(max);
            for answered in answered {
                let before = window.limit();
                window.on(if answered { Signal::Answered } else { Signal::Congested });
                prop_assert!((1..=max.max(1)).contains(&window.limit()));
                if answered {
                    prop_assert!(window.limit() >= before);
                } else {
                    prop_assert!(window.limit() <= before);
                }
            }
        }
    }
}
