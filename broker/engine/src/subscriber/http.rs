//! Subscribers behind a URL: one POST for each attempt.

mod answer;

use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use tokio::time::{Instant, Sleep};
use waypost_clients::http::{Lane, Pool, SendError, Target, classify};
use waypost_core::delivery::Format;
use waypost_core::error::DeliveryError;
use waypost_core::event::http::{Head, STRUCTURED_JSON, binary_headers, encode_structured, fits_binary};
use waypost_core::{Event, codes};
use waypost_log::Timestamp;

pub(crate) use self::answer::Answer;
use super::is_passed_header;
use crate::plan::HttpDestination;

static PREFER: HeaderName = HeaderName::from_static("prefer");
static KN_NAMESPACE: HeaderName = HeaderName::from_static("kn-namespace");
static AGENT: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// The headers that every request has besides those of the event: `Host`, `User-Agent`, `Kn-Namespace`, `Prefer`, and
/// the `Content-Type` and `Content-Length` that are added last.
const OWN_HEADERS: usize = 6;

/// What an HTTP subscriber must know about the trigger that it serves.
#[derive(Debug, Clone)]
pub(crate) struct HttpOptions {
    /// The trigger's namespace, for `Kn-Namespace`.
    pub(crate) namespace: String,
    /// How events are written.
    pub(crate) format: Format,
    /// The time for one attempt, from the connection to the last byte of the answer.
    pub(crate) timeout: Duration,
    /// Whether an answer must be an event or empty.
    pub(crate) strict_replies: bool,
    /// The most bytes that one event of a reply may take.
    pub(crate) max_reply_bytes: usize,
}

/// A URL that takes events.
pub(crate) struct HttpSubscriber {
    pool: Arc<Pool>,
    terms: Arc<Terms>,
}

/// What all lanes of a subscriber share, prepared once.
#[derive(Debug)]
struct Terms {
    target: Target,
    namespace: HeaderValue,
    options: HttpOptions,
}

/// One event on its way.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    /// The event.
    pub(crate) event: &'a Event,
    /// The headers of exactly this event in binary mode, where they are built already.
    pub(crate) head: Option<&'a Head>,
    /// Request headers of the producer that are passed on.
    pub(crate) passed_headers: &'a [(Bytes, Bytes)],
    /// Whether an event in the answer is wanted. Without it every 2xx is a delivery, whatever it brings.
    pub(crate) want_reply: bool,
    /// The time, which a date in `Retry-After` is told against.
    pub(crate) now: Timestamp,
}

impl HttpSubscriber {
    /// Prepares a destination. Nothing is connected yet.
    ///
    /// # Errors
    /// A misconfiguration, where URL, certificates or namespace cannot be used.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        destination: &HttpDestination,
        options: HttpOptions,
    ) -> Result<Self, DeliveryError> {
        let target = Target::parse(&destination.url, destination.ca_certificates.as_deref())
            .map_err(|error| DeliveryError::misconfigured(error.code(), error.to_string()))?;
        let namespace = HeaderValue::from_str(&options.namespace).map_err(|_| {
            let detail =
                format!("the namespace `{}` cannot be sent as a header", options.namespace.escape_debug());
            DeliveryError::misconfigured(codes::NAME_INVALID, detail)
        })?;
        Ok(Self { pool: Arc::clone(pool), terms: Arc::new(Terms { target, namespace, options }) })
    }

    /// A lane for one worker. It connects at its first attempt.
    pub(crate) fn lane(&self) -> HttpLane {
        HttpLane {
            lane: self.pool.lane(&self.terms.target),
            terms: Arc::clone(&self.terms),
            timer: None,
            lengths: Lengths::default(),
        }
    }

    /// The URL as it was declared.
    pub(crate) fn destination(&self) -> &str {
        self.terms.target.as_str()
    }
}

impl fmt::Debug for HttpSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpSubscriber").field(&self.terms.target).finish()
    }
}

/// One worker's way to an HTTP subscriber: at most one connection, one attempt at a time.
pub(crate) struct HttpLane {
    lane: Lane,
    terms: Arc<Terms>,
    /// Kept between attempts: to put a running timer off is cheaper than to set a new one.
    timer: Option<Pin<Box<Sleep>>>,
    lengths: Lengths,
}

impl HttpLane {
    /// Makes one attempt, within the timeout.
    ///
    /// Cancel safety: of a dropped attempt it is not known whether it was received. The lane can be used again.
    pub(crate) async fn deliver(&mut self, outgoing: &Outgoing<'_>) -> Answer {
        let Self { lane, terms, timer, lengths } = self;
        let limit = terms.options.timeout;
        let timer = set(timer, limit);
        tokio::select! {
            biased;
            answer = terms.attempt(lane, lengths, outgoing) => return answer,
            () = timer => {}
        }
        let error = lane.crowded_out().unwrap_or(SendError::Timeout { limit });
        Answer::Failed(classify(&error))
    }
}

impl fmt::Debug for HttpLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpLane").field(&self.lane).finish()
    }
}

/// Timeouts beyond this are as good as this one, and times that far can be told by every clock.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn set(timer: &mut Option<Pin<Box<Sleep>>>, limit: Duration) -> Pin<&mut Sleep> {
    let deadline = Instant::now() + limit.min(LONGEST_TIMEOUT);
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
    timer.as_mut().reset(deadline);
    timer.as_mut()
}

impl Terms {
    async fn attempt(&self, lane: &mut Lane, lengths: &mut Lengths, outgoing: &Outgoing<'_>) -> Answer {
        let request = self.request(lane, lengths, outgoing);
        match lane.send(request).await {
            Ok(received) => answer::read(received, &self.options, outgoing).await,
            Err(error) => Answer::Failed(classify(&error)),
        }
    }

    fn request(
        &self,
        lane: &mut Lane,
        lengths: &mut Lengths,
        outgoing: &Outgoing<'_>,
    ) -> Request<Full<Bytes>> {
        let event = outgoing.event;
        let (mut headers, body) = if self.options.format == Format::Json || !fits_binary(event) {
            let mut headers = self.headers(lane, outgoing, 0);
            headers.append(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED_JSON));
            (headers, encode_structured(event))
        } else {
            let mut headers = self.headers(lane, outgoing, event.attribute_count() + 1);
            match outgoing.head {
                Some(head) => head.iter().for_each(|(name, value)| {
                    headers.append(name, value.clone());
                }),
                None => binary_headers(event).for_each(|(name, value)| {
                    headers.append(name, value);
                }),
            }
            (headers, event.data().unwrap_or_default())
        };
        // hyper would leave it out of a request without body, and some servers answer such a POST with 411.
        headers.append(CONTENT_LENGTH, lengths.of(body.len()));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.uri().clone();
        *request.headers_mut() = headers;
        request
    }

    /// The headers that do not depend on the event, with room for `more`.
    fn headers(&self, lane: &mut Lane, outgoing: &Outgoing<'_>, more: usize) -> HeaderMap {
        let mut headers = lane.headers(OWN_HEADERS + outgoing.passed_headers.len() + more);
        headers.append(HOST, self.target.host_header().clone());
        headers.append(USER_AGENT, AGENT.clone());
        headers.append(KN_NAMESPACE.clone(), self.namespace.clone());
        if outgoing.want_reply {
            headers.append(PREFER.clone(), HeaderValue::from_static("reply"));
        }
        for (name, value) in outgoing.passed_headers {
            if let (Some(name), Ok(value)) =
                (passed_name(name), HeaderValue::from_maybe_shared(value.clone()))
            {
                headers.append(name, value);
            }
        }
        headers
    }
}

/// Writes lengths of bodies one after the other into memory that is used again once the requests before are gone.
#[derive(Debug, Default)]
struct Lengths(BytesMut);

impl Lengths {
    /// What is taken at a time: three lengths of any size, or some of the usual.
    const ROOM: usize = 64;

    fn of(&mut self, length: usize) -> HeaderValue {
        if self.0.capacity() < usize::MAX.ilog10() as usize + 1 {
            self.0.reserve(Self::ROOM);
        }
        // Into memory that grows this cannot fail.
        let _ = write!(self.0, "{length}");
        HeaderValue::from_maybe_shared(self.0.split().freeze()).expect("digits stand in every header")
    }
}

/// The name of a header that goes from the producer to the subscriber. Looked at again here: what an earlier version
/// wrote into the log may hold others.
fn passed_name(name: &[u8]) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name).ok()?;
    is_passed_header(name.as_str()).then_some(name)
}

#[cfg(test)]
mod suite;
