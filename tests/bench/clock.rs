//! The one clock of all processes of a measurement.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since some moment that is the same for every process of the machine; never goes back.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Neither part of the monotonic clock is ever negative.
    time.tv_sec.unsigned_abs() * SECOND + time.tv_nsec.unsigned_abs()
}

/// Does nothing for a while.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no runtime in this process whose worker could be blocked"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
