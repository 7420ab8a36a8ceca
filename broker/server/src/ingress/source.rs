//! Requests to the URL of a source that is sent to: answered when the log has what they mean.

use std::borrow::Cow;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use smallvec::SmallVec;
use waypost_core::event::http::{ContentMode, content_mode};
use waypost_core::receive::{Posted, Receive, Refusal};
use waypost_core::{Event, codes};
use waypost_engine::Receiving;
use waypost_log::Origin;

use super::handler::{
    Answer, NOT_READY_RETRY_AFTER, Received, absent, consent, empty, event_too_large, publish,
    refuse_compressed,
};
use super::route::Route;
use super::{Inner, body};
use crate::problem::{Problem, Told};

/// Answers a request to the URL of a source.
pub(super) async fn answer(
    ingress: &Inner,
    route: &Route<'_>,
    head: &Parts,
    body: &mut Incoming,
) -> Result<Answer, Problem> {
    let source =
        ingress.engine.source(&route.namespace, &route.name).ok_or_else(|| absent("source", route))?;
    let receiver = match source.receiving() {
        Receiving::Requests(receiver) => receiver,
        Receiving::NotRunning => {
            let detail = format!("source {} does not run now: see its status", source.name());
            return Err(not_ready(detail));
        }
        Receiving::Nothing => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                codes::INGRESS_PATH_UNKNOWN,
                format!("source {} takes no requests: it fetches its events itself", source.name()),
            ));
        }
    };
    let mut answer = if head.method == Method::OPTIONS {
        let mut answer = consent();
        answer.headers_mut().insert(ALLOW, allowed(&*receiver));
        answer
    } else {
        let methods = receiver.methods();
        if !methods.contains(&head.method) {
            let detail = format!("the source takes no {}", head.method);
            let allow = allowed(&*receiver).to_str().unwrap_or_default().to_owned();
            return Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                codes::INGRESS_METHOD_NOT_ALLOWED,
                detail,
            )
            .allow(allow));
        }
        refuse_compressed(&head.headers)?;
        let broker = source.broker().clone();
        let limits = &ingress.limits;
        let budget = ingress.engine.budget();
        // Only what holds its events itself may hold several.
        let limit = match content_mode(&head.headers) {
            Ok(ContentMode::Structured | ContentMode::Batch) => limits.request_bytes,
            Ok(ContentMode::Binary) | Err(_) => limits.event_bytes,
        };
        let body::Read { bytes, share: mut held } =
            body::read(body, limit, limits.body_timeout, budget).await?;
        let posted = Posted::new(
            head.method.clone(),
            route.rest.to_owned(),
            head.uri.query().unwrap_or_default().to_owned(),
            head.headers.clone(),
            bytes,
        );
        let now = u64::try_from(ingress.clock.now().0 / 1_000_000_000).unwrap_or_default();
        let received = receiver.receive(&posted, now).map_err(refused)?;
        drop(posted);
        let events: SmallVec<[Event; 1]> = SmallVec::from_vec(received.events);
        if !events.is_empty() {
            let batch = events.len() > 1;
            for (index, event) in events.iter().enumerate() {
                if event.size() > limits.event_bytes {
                    return Err(event_too_large(limits.event_bytes).at(batch.then_some(index)));
                }
            }
            held.cover(events.iter().map(Event::size).sum())?;
            let broker = ingress.engine.broker(&broker.namespace, &broker.name).ok_or_else(|| {
                not_ready(format!("broker {broker} of the source does not run: see its status"))
            })?;
            publish(&broker, Received { events, held, batch }, &head.headers, Origin::Source).await?;
        }
        match received.body {
            None => empty(received.status),
            Some((content_type, body)) => {
                let mut answer = Response::new(Full::new(body));
                *answer.status_mut() = received.status;
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
                answer
            }
        }
    };
    answer.headers_mut().extend(receiver.headers().clone());
    Ok(answer)
}

fn allowed(receiver: &dyn Receive) -> HeaderValue {
    let mut methods: Vec<&str> = receiver.methods().iter().map(Method::as_str).collect();
    methods.push("OPTIONS");
    HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static("POST, OPTIONS"))
}

fn not_ready(detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, codes::INGRESS_NOT_READY, detail)
        .retry_after(NOT_READY_RETRY_AFTER)
}

fn refused(refusal: Refusal) -> Problem {
    let Refusal { status, code, detail, retry_after, challenge } = refusal;
    Problem {
        retry_after,
        told: challenge.map(Told::Challenge),
        ..Problem::new(status, code, Cow::Owned(detail))
    }
}
