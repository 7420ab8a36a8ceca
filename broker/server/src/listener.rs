//! Listening sockets and the connections that come in on them: HTTP/1.1 and HTTP/2 in clear text on one port.
//!
//! A [`Server`] owns every task of its connections. It is told to drain first, which lets requests in flight
//! finish and closes what is idle, and then to stop.

mod activity;
mod connection;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost_core::{Code, codes};

/// The pause after the operating system refused to accept a connection, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers the requests of a server.
pub(crate) trait Handle: Clone + Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;

    /// Answers one request. Dropped when an HTTP/2 client gives the request up.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// What connections are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// The most connections at one time. Those beyond wait in the backlog of the socket.
    pub(crate) connections: usize,
    /// The time for the head of a request, from its first byte, and for the first bytes of a connection.
    pub(crate) head_timeout: Duration,
    /// The time that a connection may be open without a request.
    pub(crate) idle_timeout: Duration,
}

/// A socket that listens and accepts nothing yet.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: TcpListener,
    address: SocketAddr,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error(
        "cannot listen on {address} for {purpose}: another process does; stop it, or pass another address with {flag}"
    )]
    InUse { purpose: &'static str, flag: &'static str, address: String },
    #[error(
        "cannot listen on {address} for {purpose}: {reason}; pass an address such as 127.0.0.1:8080 with {flag}"
    )]
    Unusable { purpose: &'static str, flag: &'static str, address: String, reason: io::Error },
}

impl ListenError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => codes::ADDRESS_IN_USE,
            Self::Unusable { .. } => codes::ADDRESS_UNUSABLE,
        }
    }
}

impl Bound {
    /// Takes the address for this process alone: an ordinary bind, which fails while anybody else listens there,
    /// whether or not they would share the port.
    pub(crate) async fn take(
        address: &str,
        purpose: &'static str,
        flag: &'static str,
    ) -> Result<Self, ListenError> {
        let bound = async {
            let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
            let socket = TcpListener::bind(addresses.as_slice()).await?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bound.await.map_err(|reason: io::Error| {
            let address = address.to_owned();
            if reason.kind() == io::ErrorKind::AddrInUse {
                ListenError::InUse { purpose, flag, address }
            } else {
                ListenError::Unusable { purpose, flag, address, reason }
            }
        })
    }

    /// The address, with the port that the system chose where it was asked to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A running server. Dropping it cuts its connections.
#[derive(Debug)]
pub(crate) struct Server {
    drain: CancellationToken,
    /// Counts the connections that a drain waits for.
    before_drain: TaskTracker,
    /// The one task that accepts; it owns the tasks of the connections.
    accepting: JoinSet<()>,
}

impl Server {
    /// Starts to accept connections.
    pub(crate) fn start<H: Handle>(bound: Bound, handler: H, limits: ConnectionLimits) -> Self {
        let Bound { socket, .. } = bound;
        let (drain, before_drain) = (CancellationToken::new(), TaskTracker::new());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(socket, handler, limits, drain.clone(), before_drain.clone()));
        Self { drain, before_drain, accepting }
    }

    /// How many connections are open that a drain waits for.
    pub(crate) fn connections(&self) -> usize {
        self.before_drain.len()
    }

    /// Lets the requests of all open connections finish, closes those that are idle, and waits until all are
    /// closed. New connections are still accepted, so that their requests can be told to come back later.
    /// Cancel-safe: the drain goes on.
    pub(crate) async fn drain(&self) {
        self.drain.cancel();
        self.before_drain.close();
        self.before_drain.wait().await;
    }

    /// Accepts nothing more and cuts the connections that are still open.
    pub(crate) async fn stop(mut self) {
        self.accepting.shutdown().await;
    }
}

/// Accepts connections for ever. Dropping the future ends them all.
async fn accept<H: Handle>(
    socket: TcpListener,
    handler: H,
    limits: ConnectionLimits,
    drain: CancellationToken,
    before_drain: TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let streams = TaskTracker::new();
    let mut connections = JoinSet::new();
    let mut warned = None;
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let stream = next_connection(&socket, &mut connections, &mut warned).await;
        let counted = (!drain.is_cancelled()).then(|| (drain.child_token(), before_drain.token()));
        let (handler, streams) = (handler.clone(), streams.clone());
        connections.spawn(async move {
            let _slot = slot;
            match counted {
                Some((drain, _counted)) => connection::serve(stream, handler, limits, drain, streams).await,
                // Came after the drain began: its requests are answered, with a refusal, as long as it lasts.
                None => connection::serve(stream, handler, limits, CancellationToken::new(), streams).await,
            }
        });
    }
}

/// How often it is told that no connection can be accepted.
const ACCEPT_WARNING_EVERY: Duration = Duration::from_secs(60);

/// Waits for a connection and meanwhile takes note of those that ended.
async fn next_connection(
    socket: &TcpListener,
    connections: &mut JoinSet<()>,
    warned: &mut Option<Instant>,
) -> TcpStream {
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => return stream,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if warned.is_none_or(|warned| warned.elapsed() >= ACCEPT_WARNING_EVERY) {
                        *warned = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept a connection now; raise the limit of open files if this goes on");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(%error, "a connection's task panicked; please report this with the lines above");
                }
            }
        }
    }
}

/// Whether an error of `accept` speaks of the connection that was to be accepted and not of the process.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod suite;
