//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost_core::aside::Aside;

use super::activity::{Activity, Counted, Finding, Sweep};
use super::{ConnectionLimits, Handle};

/// The most headers of a request. An event may have more than 200 attributes, and each is a header.
const MAX_HEADERS: usize = 640;
/// The most bytes that the head of a request may take: an attribute of 64 KiB whose every byte is percent-encoded
/// takes 192 KiB.
const MAX_HEAD_BYTES: usize = 512 * 1024;
/// The most requests of one HTTP/2 connection that are in flight at one time.
const MAX_STREAMS: u32 = 256;
/// What a client may send ahead, per HTTP/2 connection and per stream of it.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// How often an HTTP/2 client is asked whether it is still there, and how long it has to answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// The pause before another look at a connection whose first bytes do not yet tell its protocol.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// Serves the requests of a connection until it ends, is idle for too long, or has drained.
pub(super) async fn serve<H: Handle>(
    stream: TcpStream,
    handler: H,
    limits: ConnectionLimits,
    drain: CancellationToken,
    streams: TaskTracker,
) {
    // Answers are small and nothing follows them: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let protocol = tokio::select! {
        protocol = tokio::time::timeout(limits.head_timeout, protocol(&stream)) => protocol,
        () = drain.cancelled() => return,
    };
    let Ok(Some(protocol)) = protocol else { return };
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Counted { stream, activity: Arc::clone(&activity) });
    let in_flight = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let (handler, in_flight) = (handler.clone(), in_flight.request());
        async move {
            let response = handler.handle(request).await;
            drop(in_flight);
            Ok::<_, Infallible>(response)
        }
    });
    let sweep = Sweep::new(&limits, protocol == Protocol::Http1);
    match protocol {
        Protocol::Http1 => drive(http1().serve_connection(io, service), &activity, sweep, &drain).await,
        Protocol::Http2 => {
            drive(http2(streams).serve_connection(io, service), &activity, sweep, &drain).await;
        }
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The sweep times heads out, without a timer per request. A client may close its side and still be answered. Answers
    // are short, so that to write them as one slice costs less than what a write of several costs the kernel.
    builder
        .header_read_timeout(None)
        .half_close(true)
        .writev(false)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
}

fn http2(streams: TaskTracker) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams(streams));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).expect("half a MiB fits into 32 bits"))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES);
    builder
}

/// Drives a connection, and looks now and then whether it is worth keeping.
async fn drive<C>(connection: C, activity: &Activity, mut sweep: Sweep, drain: &CancellationToken)
where
    C: GracefulConnection,
{
    let mut connection = pin!(connection);
    let mut ticks = interval(sweep.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once and would count as a sweep.
    ticks.reset();
    let mut closing = false;
    // Timer and drain cost nothing while requests come.
    let mut aside = Aside::new(next_news(ticks, drain, closing));
    loop {
        let (ticks, news) = tokio::select! {
            biased;
            _ended = connection.as_mut() => return,
            came = &mut aside => came,
        };
        match news {
            News::Drain => {
                closing = true;
                connection.as_mut().close_gracefully();
            }
            News::Tick => match sweep.judge(activity.look()) {
                Finding::Busy => {}
                Finding::Idle if !closing => {
                    closing = true;
                    connection.as_mut().close_gracefully();
                }
                Finding::Idle | Finding::StuckInHead => return,
            },
        }
        aside.replace(next_news(ticks, drain, closing));
    }
}

/// What comes beside the connection's own bytes.
enum News {
    Drain,
    Tick,
}

/// Waits for the drain, unless the connection closes already, and for the next tick.
async fn next_news(mut ticks: Interval, drain: &CancellationToken, closing: bool) -> (Interval, News) {
    let news = tokio::select! {
        biased;
        () = drain.cancelled(), if !closing => News::Drain,
        _ = ticks.tick() => News::Tick,
    };
    (ticks, news)
}

/// A connection that can be told to end after the requests in flight.
trait GracefulConnection: Future {
    fn close_gracefully(self: Pin<&mut Self>);
}

impl<S, B> GracefulConnection for http1::Connection<TokioIo<Counted<TcpStream>>, S>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn close_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S, B, F> GracefulConnection for http2::Connection<TokioIo<Counted<TcpStream>>, S, Streams>
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Future = F>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Future<Output = Result<http::Response<B>, S::Error>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn close_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs the streams of HTTP/2 connections. A stream ends with its connection.
#[derive(Clone, Debug)]
struct Streams(TaskTracker);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Looks at the first bytes without taking them. None where the connection ended before they told anything.
async fn protocol(stream: &TcpStream) -> Option<Protocol> {
    let mut first = [0; 3];
    loop {
        let seen = stream.peek(&mut first).await.ok()?;
        if seen == 0 {
            return None;
        }
        if let Some(protocol) = judge(&first[..seen]) {
            return Some(protocol);
        }
        // The rest of a split preface: readiness would be reported at once, so wait a little instead.
        tokio::time::sleep(PEEK_PAUSE).await;
    }
}

/// The preface of HTTP/2 begins with `PRI`, which is no method of HTTP/1 (section 3.4 of RFC 9113).
fn judge(first: &[u8]) -> Option<Protocol> {
    const PREFACE: &[u8] = b"PRI";
    if !PREFACE.starts_with(&first[..first.len().min(PREFACE.len())]) {
        return Some(Protocol::Http1);
    }
    (first.len() >= PREFACE.len()).then_some(Protocol::Http2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_bytes_tell_the_protocol() {
        assert_eq!(judge(b"PRI"), Some(Protocol::Http2));
        for start in ["G", "POS", "PO", "PROPFIND", "\0", "OPT"] {
            assert_eq!(judge(start.as_bytes()), Some(Protocol::Http1), "{start}");
        }
        for start in ["", "P", "PR"] {
            assert_eq!(judge(start.as_bytes()), None, "{start}");
        }
    }
}
