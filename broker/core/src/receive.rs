//! Sources that are sent to: what a request to the URL of a source is, and what becomes of it.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::Code;
use crate::event::{Event, declares_json};

/// The most fields of a form that are read.
const MOST_FIELDS: usize = 1_000;

/// A request to the URL of a source, read whole.
pub struct Posted {
    /// The method.
    pub method: Method,
    /// What follows the URL of the source: empty, or from a slash on, as it was sent.
    pub path: String,
    /// The query without its question mark, as it was sent.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    json: OnceLock<Option<Value>>,
}

impl Posted {
    /// A request from its parts.
    pub fn new(method: Method, path: String, query: String, headers: HeaderMap, body: Bytes) -> Self {
        Self { method, path, query, headers, body, json: OnceLock::new() }
    }

    /// The value of a header, where it is there and is text.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The parameters of the query, in their order, decoded.
    pub fn queries(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query.as_bytes()).take(MOST_FIELDS)
    }

    /// The body as JSON: as it is, or the fields of a form, or the field `payload` of a form where that is JSON. Read
    /// once.
    pub fn json(&self) -> Option<&Value> {
        let content_type = || self.header(&CONTENT_TYPE).unwrap_or_default();
        let read = || {
            if content_type().starts_with("application/x-www-form-urlencoded") {
                return Some(form(&self.body));
            }
            // Senders call their JSON many names; what is declared to be JSON and is none is none.
            serde_json::from_slice(&self.body).ok().filter(|value: &Value| {
                value.is_object() || value.is_array() || declares_json(content_type())
            })
        };
        self.json.get_or_init(read).as_ref()
    }
}

fn form(body: &[u8]) -> Value {
    let mut fields = serde_json::Map::new();
    for (name, value) in form_urlencoded::parse(body).take(MOST_FIELDS) {
        if name == "payload"
            && let Ok(payload @ Value::Object(_)) = serde_json::from_str(&value)
        {
            return payload;
        }
        fields.entry(name).or_insert_with(|| value.into());
    }
    Value::Object(fields)
}

impl fmt::Debug for Posted {
    // Neither headers nor query nor body, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posted")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Takes the requests to the URL of a source.
///
/// It decides what a request means and changes nothing outside; whoever calls it puts the events into the log, all or
/// none, and answers only then.
pub trait Receive: Send + Sync + fmt::Debug {
    /// What becomes of a request that came at `now` (seconds since 1970-01-01T00:00:00Z).
    ///
    /// # Errors
    /// [`Refusal`], which is the answer.
    fn receive(&self, posted: &Posted, now: u64) -> Result<Received, Refusal>;

    /// The methods that are taken.
    fn methods(&self) -> &[Method];

    /// Headers that go with every answer.
    fn headers(&self) -> &HeaderMap;
}

/// What a request means.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The events, in order; none for a request that only wants its answer.
    pub events: Vec<Event>,
    /// The status of the answer once the events are in the log.
    pub status: StatusCode,
    /// The body of the answer with its content type, where it has one.
    pub body: Option<(HeaderValue, Bytes)>,
}

/// Why a request is refused: the answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// The stable code.
    pub code: Code,
    /// One sentence for people, with what to do. It tells nothing that helps to guess a secret.
    pub detail: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
    /// How to prove who one is (`WWW-Authenticate`), in visible ASCII.
    pub challenge: Option<&'static str>,
}

impl Refusal {
    /// A refusal that names neither a time nor a challenge.
    pub fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None, challenge: None }
    }
}
