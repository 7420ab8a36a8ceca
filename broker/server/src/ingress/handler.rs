//! One request of a producer, from its head to its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use smallvec::SmallVec;
use waypost_core::event::http::{ContentMode, DecodeError, DecodeOptions, Decoded, content_mode, decode};
use waypost_core::manifest::ResourceName;
use waypost_core::transformation::Moment;
use waypost_core::{Event, codes};
use waypost_engine::plan::{Family, entrance};
use waypost_engine::{Broker, PublishError};
use waypost_log::{Origin, Record};

use super::body::{self, Held};
use super::route::{Addressable, Route, route};
use super::{GateState, Inner, direct, metadata, source};
use crate::problem::Problem;

/// The time that a sink has for events that are posted to it directly. A trigger's timeout does not apply, and a sink
/// that hangs must not keep what the request holds of the ingest budget.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What may be done at a path that takes events.
const METHODS: &str = "POST, OPTIONS";
/// When a producer that came too early or too late may come again.
pub(super) const NOT_READY_RETRY_AFTER: Duration = Duration::from_secs(1);
const DECODE: DecodeOptions = DecodeOptions { strict: false };

/// An answer without refusal.
pub(super) type Answer = Response<Full<Bytes>>;

/// The most headers whose room an answer hands back.
const MOST_HANDED_BACK: usize = 64;

/// Answers a request. What it accepts is in the log when this returns.
pub(super) async fn handle(ingress: &Inner, request: Request<Incoming>) -> Answer {
    let (head, mut body) = request.into_parts();
    let mut response = match answer(ingress, &head, &mut body).await {
        Ok(response) => response,
        Err(problem) => {
            tracing::debug!(
                path = head.uri.path(), status = problem.status.as_u16(), code = problem.code.id(),
                detail = %problem.detail, "a request was refused"
            );
            body::discard(&mut body, head.version, &head.headers).await;
            let mut response = problem.response();
            if ingress.gate.state() == GateState::Closing && head.version != Version::HTTP_2 {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    };
    ingress.counters.count(response.status());
    hand_back(head.headers, &mut response);
    response
}

/// Lets an answer without headers have the room of the request's: hyper keeps that of an answer for the next request of
/// the connection.
fn hand_back(mut headers: HeaderMap, response: &mut Answer) {
    if response.headers().is_empty() && headers.capacity() <= MOST_HANDED_BACK {
        headers.clear();
        *response.headers_mut() = headers;
    }
}

async fn answer(ingress: &Inner, head: &Parts, body: &mut Incoming) -> Result<Answer, Problem> {
    let path = head.uri.path();
    let Some(route) = route(path) else { return Err(nothing_here(path)) };
    if route.kind == Addressable::Source {
        check_gate(ingress)?;
        // Large, and seldom needed where the rate is high.
        return Box::pin(source::answer(ingress, &route, head, body)).await;
    }
    if head.method != Method::POST && head.method != Method::OPTIONS {
        return Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            codes::INGRESS_METHOD_NOT_ALLOWED,
            format!("{} does nothing here: POST an event", head.method),
        )
        .allow(METHODS));
    }
    check_gate(ingress)?;
    if head.method == Method::OPTIONS {
        exists(ingress, &route)?;
        return Ok(consent());
    }
    match route.kind {
        Addressable::Broker => {
            let broker = ingress
                .engine
                .broker(&route.namespace, &route.name)
                .ok_or_else(|| no_broker(ingress, &route))?;
            let received = receive(ingress, head, body).await?;
            publish(&broker, received, &head.headers, Origin::Ingress).await?;
            let status = StatusCode::from_u16(broker.accepted_status()).unwrap_or(StatusCode::ACCEPTED);
            Ok(empty(status))
        }
        Addressable::Sequence | Addressable::Parallel => {
            let broker = flow(ingress, &route)?;
            let received = receive(ingress, head, body).await?;
            publish(&broker, received, &head.headers, Origin::Ingress).await?;
            Ok(empty(StatusCode::ACCEPTED))
        }
        Addressable::Sink => {
            let sink =
                ingress.engine.sink(&route.namespace, &route.name).ok_or_else(|| absent("sink", &route))?;
            let Received { events, held, batch } = receive(ingress, head, body).await?;
            let expected = events.len();
            let delivering = tokio::time::timeout(DIRECT_TIMEOUT, sink.deliver(&events));
            let outcomes = delivering.await.map_err(|_| sink_slow())?;
            drop(held);
            direct::delivered(outcomes, expected, batch)
        }
        Addressable::Transformation => {
            let chain = ingress
                .engine
                .transformation(&route.namespace, &route.name)
                .ok_or_else(|| absent("transformation", &route))?;
            let received = receive(ingress, head, body).await?;
            let moment = Moment { arrived_nanoseconds: ingress.clock.now().0 };
            let (results, mut received) = direct::transform(chain, received, moment).await?;
            let name = ingress.engine.transformation_broker(&route.namespace, &route.name);
            let Some(name) = name.filter(|_| !results.is_empty()) else {
                return Ok(direct::events_response(&results));
            };
            received.held.cover(results.iter().map(Event::size).sum())?;
            received.events = SmallVec::from_vec(results);
            let broker =
                ingress.engine.broker(&name.namespace, &name.name).ok_or_else(|| sink_away(&name))?;
            publish(&broker, received, &head.headers, Origin::Ingress).await?;
            Ok(empty(StatusCode::ACCEPTED))
        }
        Addressable::Source => Err(nothing_here(path)),
    }
}

/// The events of a request, and their part of the ingest budget.
pub(super) struct Received {
    pub(super) events: SmallVec<[Event; 1]>,
    pub(super) held: Held,
    /// Whether they came as a batch, so that errors tell which of them is meant.
    pub(super) batch: bool,
}

/// Reads and checks the events of a request, within all limits.
async fn receive(ingress: &Inner, head: &Parts, body: &mut Incoming) -> Result<Received, Problem> {
    let headers = &head.headers;
    refuse_compressed(headers)?;
    let limits = &ingress.limits;
    let limit = match content_mode(headers).map_err(refused)? {
        ContentMode::Binary => limits.event_bytes,
        ContentMode::Structured | ContentMode::Batch => limits.request_bytes,
    };
    let body::Read { bytes, share: mut held } =
        body::read(body, limit, limits.body_timeout, ingress.engine.budget()).await?;
    let (events, batch) = match decode(headers, &bytes, &DECODE).map_err(refused)? {
        Decoded::Event(event) => (SmallVec::from_buf([event]), false),
        Decoded::Batch(events) => (SmallVec::from_vec(events), true),
    };
    // From here on the events are all that is held.
    drop(bytes);
    let mut size = 0;
    for (index, event) in events.iter().enumerate() {
        if event.size() > limits.event_bytes {
            return Err(event_too_large(limits.event_bytes).at(batch.then_some(index)));
        }
        size += event.size();
    }
    held.cover(size)?;
    Ok(Received { events, held, batch })
}

pub(super) fn refuse_compressed(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            codes::CONTENT_ENCODING_UNSUPPORTED,
            "the body is compressed: send it without `Content-Encoding`, or name the coding inside the event's data",
        ));
    }
    Ok(())
}

/// Puts the events into the broker's log, all or none, and waits until it has them.
pub(super) async fn publish(
    broker: &Broker,
    received: Received,
    headers: &HeaderMap,
    origin: Origin,
) -> Result<(), Problem> {
    let Received { events, held, batch } = received;
    let passed = metadata::passed_headers(headers);
    let mut records: SmallVec<[Record; 1]> = SmallVec::with_capacity(events.len());
    for (index, event) in events.into_iter().enumerate() {
        let record = metadata::record(event, passed.clone(), origin);
        records.push(record.map_err(|problem| problem.at(batch.then_some(index)))?);
    }
    let commit = broker.publish(records, Some(held.into_share())).map_err(|error| not_published(&error))?;
    commit.await.map_err(|error| {
        broker.not_committed(&error);
        if error.full {
            return Problem::new(StatusCode::INSUFFICIENT_STORAGE, error.code(), error.to_string());
        }
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error.to_string())
            .retry_after(NOT_READY_RETRY_AFTER)
    })?;
    Ok(())
}

fn not_published(error: &PublishError) -> Problem {
    match error {
        PublishError::Full(_) | PublishError::Backlog(_) => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, error.code(), error.to_string())
        }
        PublishError::Busy(_) => Problem::new(StatusCode::TOO_MANY_REQUESTS, error.code(), error.to_string())
            .retry_after(NOT_READY_RETRY_AFTER),
        PublishError::NotReady { .. } => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error.to_string())
                .retry_after(NOT_READY_RETRY_AFTER)
        }
    }
}

fn sink_slow() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        codes::SUBSCRIBER_TIMEOUT,
        format!(
            "the sink did not finish within {DIRECT_TIMEOUT:?}; it may have the events: send them again later"
        ),
    )
    .retry_after(Duration::from_secs(1))
}

fn sink_away(broker: &ResourceName) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        codes::INGRESS_NOT_READY,
        format!("the sink of the transformation needs broker {broker}, which does not run: see its status"),
    )
    .retry_after(NOT_READY_RETRY_AFTER)
}

fn check_gate(ingress: &Inner) -> Result<(), Problem> {
    let detail = match ingress.gate.state() {
        GateState::Open => return Ok(()),
        GateState::Starting => "the process is starting: send the event again in a moment",
        GateState::Closing => {
            "the process is shutting down: send the event again, to another instance or later"
        }
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, codes::INGRESS_NOT_READY, detail)
        .retry_after(NOT_READY_RETRY_AFTER))
}

fn exists(ingress: &Inner, route: &Route<'_>) -> Result<(), Problem> {
    let (engine, namespace, name) = (&ingress.engine, &route.namespace, &route.name);
    let (kind, found) = match route.kind {
        Addressable::Broker if engine.broker(namespace, name).is_none() => {
            return Err(no_broker(ingress, route));
        }
        Addressable::Broker => return Ok(()),
        Addressable::Sequence | Addressable::Parallel => return flow(ingress, route).map(drop),
        Addressable::Sink => ("sink", engine.sink(namespace, name).is_some()),
        Addressable::Transformation => ("transformation", engine.transformation(namespace, name).is_some()),
        Addressable::Source => ("source", engine.source(namespace, name).is_some()),
    };
    if found { Ok(()) } else { Err(absent(kind, route)) }
}

/// The broker that takes the events of a Sequence or Parallel.
fn flow(ingress: &Inner, route: &Route<'_>) -> Result<Arc<Broker>, Problem> {
    let (kind, family) = match route.kind {
        Addressable::Parallel => ("parallel", Family::Parallel),
        _ => ("sequence", Family::Sequence),
    };
    let name = entrance(&family, &ResourceName::new(&*route.namespace, &*route.name));
    let engine = &ingress.engine;
    engine.broker(&name.namespace, &name.name).ok_or_else(|| {
        match engine.unavailable(&name.namespace, &name.name) {
            Some(error) => not_published(&error),
            None => absent(kind, route),
        }
    })
}

/// The webhook handshake: any origin may send, at any rate (section 4 of the webhook specification).
pub(super) fn consent() -> Answer {
    const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
    const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(ALLOWED_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ALLOWED_RATE, HeaderValue::from_static("*"));
    response
}

/// An answer that says all by its status.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn refused(error: DecodeError) -> Problem {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    Problem::new(status, error.code, error.detail).at(error.index)
}

pub(super) fn event_too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        codes::EVENT_TOO_LARGE,
        format!(
            "the event is larger than {limit} bytes: keep large data elsewhere and send a link to it, or raise the \
             limit of the broker"
        ),
    )
}

/// A broker that does not take events: unknown, or unable to open its log.
fn no_broker(ingress: &Inner, route: &Route<'_>) -> Problem {
    let unavailable = ingress.engine.unavailable(&route.namespace, &route.name);
    unavailable.map_or_else(|| absent("broker", route), |error| not_published(&error))
}

fn nothing_here(path: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        codes::INGRESS_PATH_UNKNOWN,
        format!(
            "`{}` is no path of ingress: post to /NAMESPACE/BROKER, /NAMESPACE/sinks/NAME, \
             /NAMESPACE/transformations/NAME or /NAMESPACE/sources/NAME",
            shown(path)
        ),
    )
}

pub(super) fn absent(kind: &str, route: &Route<'_>) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        codes::INGRESS_PATH_UNKNOWN,
        format!(
            "there is no {kind} `{}` in namespace `{}`: declare it, or correct the URL",
            shown(&route.name),
            shown(&route.namespace)
        ),
    )
}

/// As much of a foreign text as an answer repeats.
fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_and_made_visible() {
        assert_eq!(shown("a\u{1b}[31m"), "a\\u{1b}[31m");
        assert_eq!(shown(&"é".repeat(101)).chars().count(), 101);
    }

    #[test]
    fn an_answer_without_headers_has_the_room_of_the_request_s_and_nothing_of_what_was_in_it() {
        let of = |count: usize| -> HeaderMap {
            let name = |number| HeaderName::try_from(format!("ce-{number}")).unwrap();
            (0..count).map(|number| (name(number), HeaderValue::from_static("x"))).collect()
        };
        let mut response = empty(StatusCode::ACCEPTED);
        hand_back(of(12), &mut response);
        assert!(response.headers().is_empty());
        assert!(response.headers().capacity() >= 12);
        let mut response = empty(StatusCode::ACCEPTED);
        hand_back(of(200), &mut response);
        assert_eq!(response.headers().capacity(), 0);
        let mut response = consent();
        hand_back(of(12), &mut response);
        assert_eq!(response.headers().len(), 3);
    }

    #[test]
    fn the_handshake_lets_every_origin_send() {
        let response = consent();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[ALLOW], "POST, OPTIONS");
        assert_eq!(response.headers()["webhook-allowed-origin"], "*");
        assert_eq!(response.headers()["webhook-allowed-rate"], "*");
    }
}
