//! One HTTP call of a command.

pub(crate) mod admin;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use waypost_clients::http::{Pool, PoolOptions, Target, classify};
use waypost_core::codes;

use crate::failure::Failure;

/// The most bytes of an answer that a command reads.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Calls a URL and waits for the whole answer, at most for `limit`. Blocks, so not for use within a runtime.
pub(crate) fn call(
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> Result<Answer, Failure> {
    let target =
        Target::parse(url, None).map_err(|error| Failure::new(codes::CALL_URL_INVALID, error.to_string()))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().map_err(
            |error| {
                Failure::new(codes::PROCESS_RESOURCE_MISSING, format!("no runtime can be started: {error}"))
            },
        )?;
    let answered = runtime
        .block_on(async { tokio::time::timeout(limit, exchange(method, &target, headers, body)).await });
    // A name that is still being resolved must not hold the command up.
    runtime.shutdown_background();
    answered.unwrap_or_else(|_| {
        Err(Failure::new(
            codes::CALL_FAILED,
            format!("{url} did not answer within {limit:?}: see whether it is running, or allow more time"),
        ))
    })
}

async fn exchange(
    method: Method,
    target: &Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, Failure> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target.uri().clone();
    *request.headers_mut() = headers;
    request.headers_mut().insert(HOST, target.host_header().clone());
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION"))));
    let failed = |error: &_| {
        let detail = classify(error).detail;
        Failure::new(codes::CALL_FAILED, format!("{target} could not be called: {detail}"))
    };
    let mut lane = Arc::new(Pool::new(PoolOptions::default())).lane(target);
    let received = lane.send(request).await.map_err(|error| failed(&error))?;
    let (head, body) = received.read(MAX_ANSWER_BYTES).await.map_err(|error| failed(&error))?;
    Ok(Answer { status: head.status, headers: head.headers, body: body.bytes })
}
