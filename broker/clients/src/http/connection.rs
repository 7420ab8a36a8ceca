//! One connection, driven by whoever uses it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::SendError;
use super::places::Place;
use super::target::Authority;

/// The most headers that an answer may have: those of an event with as many attributes as one may have, and
/// as many again as hyper expects of any answer.
const MAX_HEADERS: usize = waypost_core::event::MAX_ATTRIBUTES + 128;

/// The most bytes that the head of an answer may have: twice the attributes of an event at the ingress's default
/// limit.
const MAX_HEAD_BYTES: usize = 2 * 1024 * 1024;

/// The most of a body that is read although nobody wants it, so that the connection can be used again.
pub const DRAIN_BYTES: usize = 64 * 1024;

/// The longest that a body that nobody wants is waited for.
pub const DRAIN_TIME: Duration = Duration::from_secs(1);

/// How much sooner than the other side announced (`Keep-Alive: timeout`) a connection counts as too old, so that a
/// request does not cross its end.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// How long a connection is used again and again although others wait for its place. Each that we close takes a port for a
/// minute more (TIME_WAIT), so that to close one after each request would leave none.
const LEAST_USE: Duration = Duration::from_secs(1);

type Driver = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// A connection that is open, as far as is known.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// None once the connection has ended.
    driver: Option<Pin<Box<Driver>>>,
    /// How long the other side keeps the connection when idle, where it said so.
    keep_alive: Option<Duration>,
    opened: Instant,
    /// Behind the driver: it is free once the connection is closed.
    _place: Place,
}

/// Why an exchange gave no answer.
pub(super) enum ExchangeError {
    /// Nothing of the request was written; here it is again.
    Unsent(Box<Request<Full<Bytes>>>, hyper::Error),
    /// Some of the request may have been received.
    Failed(hyper::Error),
}

/// What was read of a body.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// The beginning of the body, or all of it.
    pub bytes: Bytes,
    /// Whether there is more than `bytes`.
    pub is_cut: bool,
}

impl Connection {
    /// Opens a connection in its place, trying every address of the host, before `deadline` for all of them together, of
    /// which `limit` is told.
    pub(super) async fn open(
        authority: &Authority,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        place: Place,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Self, SendError> {
        let timed_out = || SendError::ConnectTimeout { authority: authority.to_string(), limit };
        let stream = connect(authority, deadline).await.map_err(|error| error.unwrap_or_else(timed_out))?;
        let stream = match tls {
            None => Stream::Plain(stream),
            Some((config, name)) => {
                let handshake = TlsConnector::from(config).connect(name, stream);
                let stream = timeout_at(deadline, handshake).await.map_err(|_| timed_out())?;
                let stream =
                    stream.map_err(|source| SendError::of_handshake(authority.to_string(), source))?;
                Stream::Tls(Box::new(stream))
            }
        };
        let (sender, driver) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::of_exchange)?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver)),
            keep_alive: None,
            opened: Instant::now(),
            _place: place,
        })
    }

    /// Sends a request and waits for the head of its answer. A connection that the other side has closed meanwhile is
    /// noticed before anything is written, and the request given back.
    ///
    /// Dropped half way, the connection must not be used again.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let Self { sender, driver, keep_alive, .. } = self;
        let mut sending = pin!(sender.try_send_request(request));
        let sent = poll_fn(|cx| {
            drive(driver, cx);
            sending.as_mut().poll(cx)
        });
        match sent.await {
            Ok(response) => {
                *keep_alive = announced_keep_alive(response.headers());
                Ok(response)
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => ExchangeError::Unsent(Box::new(request), error.into_error()),
                None => ExchangeError::Failed(error.into_error()),
            }),
        }
    }

    /// Reads a body up to `keep` bytes, and on to its end where little is left. The second value says whether its end
    /// was seen.
    pub(super) async fn read(
        &mut self,
        body: &mut Incoming,
        keep: usize,
    ) -> Result<(Body, bool), hyper::Error> {
        let mut kept = Kept::default();
        let mut seen = 0_usize;
        let ended = loop {
            let Some(data) = self.next_data(body).await? else { break true };
            seen = seen.saturating_add(data.len());
            kept.add(data, keep);
            if seen > keep.max(DRAIN_BYTES) {
                break false;
            }
        };
        Ok((Body { bytes: kept.into_bytes(), is_cut: seen > keep }, ended))
    }

    async fn next_data(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
        loop {
            if body.is_end_stream() {
                return Ok(None);
            }
            let frame = poll_fn(|cx| {
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                    return Poll::Ready(frame);
                }
                drive(&mut self.driver, cx);
                Pin::new(&mut *body).poll_frame(cx)
            });
            match frame.await.transpose()?.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) => return Ok(Some(data)),
                // Trailers, which mean nothing here.
                Some(Err(_)) => {}
            }
        }
    }

    /// Whether the next request can be sent: the last answer was read to its end and the connection stays open.
    pub(super) fn is_reusable(&mut self) -> bool {
        if !self.sender.is_ready() {
            self.glance();
        }
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Looks whether the connection has ended, without waiting.
    pub(super) fn glance(&mut self) {
        drive(&mut self.driver, &mut Context::from_waker(std::task::Waker::noop()));
    }

    /// Whether the connection was used long enough for another to have its place.
    pub(super) fn may_make_place(&self) -> bool {
        self.opened.elapsed() >= LEAST_USE
    }

    /// How long the connection may be idle, at most `limit`.
    pub(super) fn idle_limit(&self, limit: Duration) -> Duration {
        self.keep_alive.map_or(limit, |announced| announced.saturating_sub(KEEP_ALIVE_MARGIN).min(limit))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_open", &self.driver.is_some()).finish_non_exhaustive()
    }
}

/// Moves bytes. A driver that has ended is dropped at once, since that is what gives an unsent request back; what it
/// ended with reaches whoever waits for the answer.
fn drive(driver: &mut Option<Pin<Box<Driver>>>, cx: &mut Context<'_>) {
    if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
        *driver = None;
    }
}

/// The seconds of `Keep-Alive: timeout=5, max=100`.
fn announced_keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let announced = headers.get("keep-alive")?.to_str().ok()?;
    let parameters = announced.split(',').filter_map(|parameter| parameter.split_once('='));
    let mut timeouts = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
    timeouts.next()?.1.trim().parse().ok().map(Duration::from_secs)
}

/// The first `limit` bytes of what was added. One piece is not copied.
#[derive(Default)]
struct Kept {
    first: Bytes,
    all: BytesMut,
}

impl Kept {
    fn add(&mut self, mut data: Bytes, limit: usize) {
        data.truncate(limit.saturating_sub(self.first.len().max(self.all.len())));
        if data.is_empty() {
            return;
        }
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("length", &self.bytes.len()).field("is_cut", &self.is_cut).finish()
    }
}

/// Connects to the first address that takes a connection. `Err(None)` when the time is up.
async fn connect(authority: &Authority, deadline: Instant) -> Result<TcpStream, Option<SendError>> {
    let resolve = tokio::net::lookup_host((&*authority.host, authority.port));
    let addresses = timeout_at(deadline, resolve).await.map_err(|_| None)?;
    let unresolved = |source| SendError::Resolve { host: authority.host.to_string(), source };
    let addresses: Vec<SocketAddr> = addresses.map_err(unresolved)?.take(MAX_ADDRESSES).collect();
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        // Each address has an equal share of the time that is left, so that one that drops packets does not hide
        // the others.
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = now + deadline.saturating_duration_since(now) / left;
        match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match stream.set_nodelay(true) {
                Ok(()) => return Ok(stream),
                Err(error) => last = Some(error),
            },
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
    }
    Err(match last {
        Some(source) => Some(SendError::Connect { authority: authority.to_string(), source }),
        None if addresses.is_empty() => Some(unresolved(io::Error::other("it has no address"))),
        None => None,
    })
}

/// The most addresses of one host that are tried.
const MAX_ADDRESSES: usize = 16;

/// Bytes to and from the other side.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The most bytes of a request that are copied together before they are written: for so few a write of several slices
/// costs the kernel more than the copy.
const GATHERED: usize = 4 * 1024;

/// Puts the slices together where they are few bytes. False where they are not.
fn gather(slices: &[io::IoSlice<'_>], into: &mut SmallVec<[u8; GATHERED]>) -> bool {
    if slices.iter().map(|slice| slice.len()).sum::<usize>() > GATHERED {
        return false;
    }
    slices.iter().for_each(|slice| into.extend_from_slice(slice));
    true
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => {
                let mut gathered = SmallVec::new();
                if gather(slices, &mut gathered) {
                    Pin::new(stream).poll_write(cx, &gathered)
                } else {
                    Pin::new(stream).poll_write_vectored(cx, slices)
                }
            }
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
