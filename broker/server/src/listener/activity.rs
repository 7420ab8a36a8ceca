//! What a connection is doing, and when it has done too little for too long.
//!
//! The connection counts, and a sweep every few seconds looks at the counters: no timer is set per request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ConnectionLimits;

/// The counters of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Bytes that came in.
    received: AtomicU64,
    /// Bytes that had come in when the last request ended: those beyond belong to the head of the next.
    claimed: AtomicU64,
    /// Requests that began.
    begun: AtomicU64,
    /// Requests that were answered or given up.
    ended: AtomicU64,
}

impl Activity {
    /// Notes that a request began, and at the drop of what it returns that it ended.
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        self.begun.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(super) fn look(&self) -> Look {
        let begun = self.begun.load(Ordering::Relaxed);
        Look {
            begun,
            in_flight: begun != self.ended.load(Ordering::Relaxed),
            in_head: self.received.load(Ordering::Relaxed) != self.claimed.load(Ordering::Relaxed),
        }
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.claimed.store(self.0.received.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    begun: u64,
    in_flight: bool,
    in_head: bool,
}

/// What a sweep finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// All is well.
    Busy,
    /// No request for the idle timeout.
    Idle,
    /// A head that was begun and does not come to its end.
    StuckInHead,
}

/// Judges a connection by comparing what successive sweeps see. Pure.
#[derive(Debug)]
pub(super) struct Sweep {
    head_timeout: Duration,
    idle_timeout: Duration,
    /// Whether bytes outside a request are a head. Those of HTTP/2 may be pings and settings.
    bytes_are_heads: bool,
    begun: u64,
    without_request: u32,
    in_head: u32,
}

impl Sweep {
    pub(super) fn new(limits: &ConnectionLimits, bytes_are_heads: bool) -> Self {
        Self {
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            bytes_are_heads,
            begun: 0,
            without_request: 0,
            in_head: 0,
        }
    }

    /// The time between two sweeps: half of the shorter timeout, so that none is passed by more than half.
    pub(super) fn interval(&self) -> Duration {
        self.head_timeout.min(self.idle_timeout) / 2
    }

    pub(super) fn judge(&mut self, look: Look) -> Finding {
        if look.in_flight || look.begun != self.begun {
            self.begun = look.begun;
            self.without_request = 0;
            self.in_head = 0;
            return Finding::Busy;
        }
        self.without_request += 1;
        self.in_head = if look.in_head && self.bytes_are_heads { self.in_head + 1 } else { 0 };
        // The first sweep that sees a head may have come right after its first byte.
        if self.interval() * self.in_head.saturating_sub(1) >= self.head_timeout {
            Finding::StuckInHead
        } else if self.interval() * self.without_request >= self.idle_timeout {
            Finding::Idle
        } else {
            Finding::Busy
        }
    }
}

/// A stream that counts what comes in.
#[derive(Debug)]
pub(super) struct Counted<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let received = buffer.filled().len() - before;
        if received > 0 {
            self.activity.received.fetch_add(received as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections: 1,
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
    };

    fn sweep() -> Sweep {
        Sweep::new(&LIMITS, true)
    }

    const IDLE: Look = Look { begun: 0, in_flight: false, in_head: false };

    #[test]
    fn an_idle_connection_is_found_after_the_idle_timeout() {
        let mut sweep = sweep();
        let findings: Vec<Finding> = (0..12).map(|_| sweep.judge(IDLE)).collect();
        assert_eq!(findings[..11], [Finding::Busy; 11]);
        assert_eq!(findings[11], Finding::Idle);
    }

    #[test]
    fn a_slow_head_is_found_after_its_timeout_and_not_before() {
        let mut sweep = sweep();
        let slow = Look { in_head: true, ..IDLE };
        assert_eq!(sweep.judge(slow), Finding::Busy);
        assert_eq!(sweep.judge(slow), Finding::Busy);
        assert_eq!(sweep.judge(slow), Finding::StuckInHead);
    }

    #[test]
    fn bytes_of_http2_are_no_head() {
        let mut sweep = Sweep::new(&LIMITS, false);
        let findings: Vec<Finding> = (0..12).map(|_| sweep.judge(Look { in_head: true, ..IDLE })).collect();
        assert_eq!(findings[..11], [Finding::Busy; 11]);
        assert_eq!(findings[11], Finding::Idle);
    }

    #[test]
    fn requests_start_the_count_again() {
        let mut sweep = sweep();
        for begun in 0..100 {
            assert_eq!(sweep.judge(Look { begun, ..IDLE }), Finding::Busy);
        }
        for _ in 0..100 {
            assert_eq!(sweep.judge(Look { begun: 99, in_flight: true, in_head: true }), Finding::Busy);
        }
    }

    #[tokio::test]
    async fn bytes_beyond_the_last_request_are_a_head() {
        let activity = Arc::new(Activity::default());
        let mut stream = Counted { stream: &b"head and body, next"[..], activity: Arc::clone(&activity) };
        let mut buffer = [0; 13];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut buffer).await.unwrap();
        assert!(activity.look().in_head);
        let request = activity.request();
        assert!(activity.look().in_flight);
        drop(request);
        assert_eq!(activity.look(), Look { begun: 1, in_flight: false, in_head: false });
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut buffer[..1]).await.unwrap();
        assert!(activity.look().in_head);
    }
}
