//! One sender's place on the wire.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::connection::{Body, Connection, DRAIN_TIME, ExchangeError};
use super::error::SendError;
use super::pool::Pool;
use super::target::Target;

/// One sender's place on the wire: at most one connection, one request at a time. When it is dropped its connection
/// goes back to the pool.
pub struct Lane {
    pool: Arc<Pool>,
    target: Target,
    /// Between requests, and only if the next one can use it.
    connection: Option<Connection>,
    /// What it waits for before it opens a connection, or waited for when the call was dropped.
    waits_for: Option<WaitsFor>,
    /// Empty, with the room of the headers of an answer that nobody wanted, which hyper read into the room of its request's.
    room: HeaderMap,
}

/// The most headers whose room a lane keeps.
const MOST_KEPT: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// Others open connections to the same authority, or wait for places.
    Turn,
    Place,
}

impl Lane {
    pub(super) fn new(pool: Arc<Pool>, target: Target) -> Self {
        Self { pool, target, connection: None, waits_for: None, room: HeaderMap::new() }
    }

    /// Where the lane leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Headers for the next request: none, with room for at least `count`.
    pub fn headers(&mut self, count: usize) -> HeaderMap {
        let mut headers = std::mem::take(&mut self.room);
        headers.reserve(count);
        headers
    }

    /// Sends a request and waits for the head of its answer: on the lane's connection, on an idle one of the pool, or
    /// on a new one. The request holds path and `Host` ([`Target::uri`], [`Target::host_header`]).
    ///
    /// A request of which nothing was written, because the other side had closed the idle connection meanwhile, is
    /// sent again on another connection. One that may have been received is not. There is no time limit but that of
    /// opening a connection: the attempt's is the caller's.
    ///
    /// Cancel safety: a dropped call closes its connection, and the request may or may not have been received. The
    /// lane can be used again.
    ///
    /// # Errors
    /// [`SendError`], for all of which [`classify`](super::classify) knows what they mean for a delivery.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Received<'_>, SendError> {
        self.waits_for = None;
        let mut request = request;
        while let Some(mut connection) = self.open_connection() {
            match connection.exchange(request).await {
                Ok(response) => return Ok(Received::new(self, connection, response.into_parts())),
                Err(ExchangeError::Unsent(unsent, _)) => request = *unsent,
                Err(ExchangeError::Failed(error)) => return Err(SendError::of_exchange(error)),
            }
        }
        // Large, and seldom needed.
        let mut connection = Box::pin(self.open()).await?;
        match connection.exchange(request).await {
            Ok(response) => Ok(Received::new(self, connection, response.into_parts())),
            Err(ExchangeError::Unsent(_, error) | ExchangeError::Failed(error)) => {
                Err(SendError::of_exchange(error))
            }
        }
    }

    /// Opens a connection where the lane has none and none is idle, for the next request.
    ///
    /// # Errors
    /// [`SendError`], where none can be opened.
    pub async fn connect(&mut self) -> Result<(), SendError> {
        if self.connection.is_none() {
            self.connection = match self.pool.check_out(self.target.authority()) {
                Some(connection) => Some(connection),
                None => Some(self.open().await?),
            };
        }
        Ok(())
    }

    /// Where the last call was dropped while it waited because too many connections were open: that. It had sent nothing.
    pub fn crowded_out(&self) -> Option<SendError> {
        let was_crowded = match self.waits_for? {
            WaitsFor::Turn => self.pool.is_crowded(),
            WaitsFor::Place => true,
        };
        was_crowded.then(|| SendError::Crowded { authority: self.target.authority().to_string() })
    }

    async fn open(&mut self) -> Result<Connection, SendError> {
        let authority = self.target.authority();
        self.waits_for = Some(WaitsFor::Turn);
        let _turn = self.pool.turn(authority).await;
        self.waits_for = Some(WaitsFor::Place);
        let place = self.pool.place().await;
        self.waits_for = None;
        self.pool.open(authority, place).await
    }

    /// The lane's connection, else one of the pool. Each that turns out to be closed is gone, so asking again ends.
    fn open_connection(&mut self) -> Option<Connection> {
        self.connection.take().or_else(|| self.pool.check_out(self.target.authority()))
    }

    fn keep_room(&mut self, mut headers: HeaderMap) {
        if headers.capacity() <= MOST_KEPT {
            headers.clear();
            self.room = headers;
        }
    }

    /// Keeps a connection whose answer was read, if it is fit for another request and need not make place for another.
    fn keep(&mut self, mut connection: Connection, ended: bool) {
        let makes_place = self.pool.is_crowded() && connection.may_make_place();
        if ended && connection.is_reusable() && !makes_place {
            self.connection = Some(connection);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_reusable()
        {
            self.pool.check_in(self.target.authority(), connection);
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("target", &self.target)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// The head of an answer, with its body still on the wire. Dropped before the body was read, it closes the connection.
pub struct Received<'a> {
    lane: &'a mut Lane,
    connection: Connection,
    parts: Parts,
    body: Incoming,
}

impl<'a> Received<'a> {
    fn new(lane: &'a mut Lane, connection: Connection, (parts, body): (Parts, Incoming)) -> Self {
        Self { lane, connection, parts, body }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Reads the body, of which at most `limit` bytes are kept. A longer body is cut; a little more of it is read for
    /// the connection's sake ([`DRAIN_BYTES`](super::DRAIN_BYTES)), and given up where that is not its end.
    ///
    /// Cancel safety: as [`Lane::send`].
    ///
    /// # Errors
    /// [`SendError::Broken`] or [`SendError::NotHttp`] where the body does not arrive whole.
    pub async fn read(self, limit: usize) -> Result<(Parts, Body), SendError> {
        let Self { lane, mut connection, parts, mut body } = self;
        let (read, ended) = connection.read(&mut body, limit).await.map_err(SendError::of_exchange)?;
        lane.keep(connection, ended);
        Ok((parts, read))
    }

    /// Does without the body, and says whether there is one. Of a short one the end is awaited for a moment
    /// ([`DRAIN_BYTES`](super::DRAIN_BYTES), [`DRAIN_TIME`]), so that the connection can be used again.
    pub async fn discard(self) -> bool {
        let Self { lane, mut connection, mut body, parts } = self;
        lane.keep_room(parts.headers);
        if body.is_end_stream() {
            lane.keep(connection, true);
            return false;
        }
        // Whether the body arrives whole is of no interest: if it does not, the connection is closed.
        let Ok(Ok((read, ended))) = timeout(DRAIN_TIME, connection.read(&mut body, 0)).await else {
            return true;
        };
        lane.keep(connection, ended);
        read.is_cut
    }
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("status", &self.parts.status).finish_non_exhaustive()
    }
}
