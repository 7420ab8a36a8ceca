//! A server that a component calls: one answer, read whole, for each call.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;

use super::error::SendError;
use super::pool::{Pool, PoolOptions};
use super::target::Target;
use crate::problem::{Problem, ProblemKind};

static AGENT: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// The most connections of one component that wait for use.
const IDLE_CONNECTIONS: usize = 32;

/// A server that a component calls, with connections of its own that are used again. A clone shares them.
#[derive(Clone)]
pub struct Site {
    pool: Arc<Pool>,
    target: Target,
}

impl Answered {
    /// How long the other side asks to be left alone: seconds, or a date.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or its beginning.
    pub body: Bytes,
    /// Whether there is more than `body`.
    pub is_cut: bool,
}

impl Site {
    /// The server behind a URL. Nothing is connected yet.
    pub fn new(target: Target) -> Self {
        let options = PoolOptions {
            idle_per_authority: IDLE_CONNECTIONS,
            idle_in_all: IDLE_CONNECTIONS,
            ..PoolOptions::default()
        };
        Self { pool: Arc::new(Pool::new(options)), target }
    }

    /// The URL.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The path and query of the URL, with `more` behind the path: that may begin a query of its own where the URL
    /// has none.
    ///
    /// # Errors
    /// [`ProblemKind::Refused`] where `more` cannot stand in a URL.
    pub fn path(&self, more: &str) -> Result<Uri, Problem> {
        let path = self.target.uri().path().trim_end_matches('/');
        format!("{path}/{}", more.trim_start_matches('/')).parse().map_err(|_| {
            Problem::new(ProblemKind::Refused, format!("`{}` cannot stand in a URL", more.escape_debug()))
        })
    }

    /// Makes one call and reads its answer, of which `limit` bytes are kept. `Host` and `User-Agent` are added.
    ///
    /// Cancel safety: of a dropped call it is not known whether it was received.
    ///
    /// # Errors
    /// [`SendError`], of which [`problem`](Self::problem) knows what it means.
    pub async fn call(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
        limit: usize,
    ) -> Result<Answered, SendError> {
        let mut headers = headers;
        headers.insert(HOST, self.target.host_header().clone());
        headers.entry(USER_AGENT).or_insert(AGENT.clone());
        if body.is_empty() && matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            // hyper leaves it out, and some servers answer such a request with 411.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let mut lane = self.pool.lane(&self.target);
        let (head, body) = lane.send(request).await?.read(limit).await?;
        Ok(Answered { status: head.status, headers: head.headers, body: body.bytes, is_cut: body.is_cut })
    }

    /// Opens a connection where none is open, and asks for nothing.
    ///
    /// # Errors
    /// [`SendError`], of which [`problem`](Self::problem) knows what it means.
    pub async fn reach(&self) -> Result<(), SendError> {
        self.pool.lane(&self.target).connect().await
    }

    /// What it means that no answer came. Distrust needs someone to change something; all else may pass.
    pub fn problem(&self, error: &SendError) -> Problem {
        let kind = match error {
            SendError::PlatformRoots { .. } => ProblemKind::Settings,
            error if error.is_distrust() => ProblemKind::Unauthorized,
            _ => ProblemKind::Unavailable,
        };
        Problem::new(kind, error.sentence("`tls.ca`"))
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Site").field(&self.target).finish()
    }
}
