//! Events that are sent straight to a sink or a transformation, without a broker in between.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use waypost_core::error::DeliveryError;
use waypost_core::event::http::{
    BATCH_JSON, STRUCTURED_JSON, encode_batch, encode_binary, encode_structured, fits_binary,
};
use waypost_core::sink::Outcome;
use waypost_core::transformation::{Chain, Moment, Transformed};
use waypost_core::{Class, Event, codes};

use super::handler::{Answer, Received, empty};
use crate::problem::Problem;

/// What to tell a sender to wait where the sink names no time.
const SINK_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// The answer to events that a sink was given: 202 once it has all of them, the first failure otherwise.
pub(super) fn delivered(outcomes: Vec<Outcome>, expected: usize, batch: bool) -> Result<Answer, Problem> {
    let given = outcomes.len();
    for (index, outcome) in outcomes.into_iter().enumerate() {
        if let Outcome::Failed(error) = outcome {
            return Err(failed(error).at(batch.then_some(index)));
        }
    }
    if given < expected {
        let error =
            DeliveryError::retryable(codes::SINK_UNAVAILABLE, "the sink did not answer for every event");
        return Err(failed(error).at(batch.then_some(given)));
    }
    Ok(empty(StatusCode::ACCEPTED))
}

fn failed(error: DeliveryError) -> Problem {
    let status = match error.class {
        Class::Permanent => StatusCode::UNPROCESSABLE_ENTITY,
        Class::Retryable if error.status == Some(429) => StatusCode::TOO_MANY_REQUESTS,
        Class::Retryable | Class::Misconfigured => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, error.code, error.detail);
    match error.class {
        Class::Permanent => problem,
        Class::Retryable | Class::Misconfigured => {
            problem.retry_after(error.retry_after.unwrap_or(SINK_RETRY_AFTER))
        }
    }
}

/// Applies a transformation to each event, in order, off the threads that serve connections.
pub(super) async fn transform(
    chain: Chain,
    received: Received,
    moment: Moment,
) -> Result<(Vec<Event>, Received), Problem> {
    let applying = tokio::task::spawn_blocking(move || {
        let mut results = Vec::with_capacity(received.events.len());
        for (index, event) in received.events.iter().enumerate() {
            match chain.apply(event, moment) {
                Ok(Transformed::Events(events)) => results.extend(events),
                Ok(Transformed::Nothing(_)) => {}
                Err(error) => {
                    let (code, reason) = (error.error.code, error.to_string());
                    return Err((code, reason, received.batch.then_some(index)));
                }
            }
        }
        Ok((results, received))
    });
    let applied = applying.await.unwrap_or_else(|_| {
        let reason = "it stopped on this input; please report it".to_owned();
        Err((codes::TRANSFORMATION_FAILED, reason, None))
    });
    applied.map_err(|(code, reason, index)| {
        let detail = format!("the transformation failed on the event: {reason}");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail).at(index)
    })
}

/// Events as an answer: 204 for none, binary mode for one, a batch for several.
pub(super) fn events_response(events: &[Event]) -> Answer {
    match events {
        [] => empty(StatusCode::NO_CONTENT),
        [event] if fits_binary(event) => {
            let mut response = Response::new(Full::new(event.data().unwrap_or_default()));
            encode_binary(event, response.headers_mut());
            response
        }
        [event] => document(STRUCTURED_JSON, encode_structured(event)),
        several => document(BATCH_JSON, encode_batch(several)),
    }
}

fn document(content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(id: &str) -> Event {
        Event::builder(id, "/s", "t").build().unwrap()
    }

    #[test]
    fn a_sink_that_has_all_is_accepted() {
        let answer =
            delivered(vec![Outcome::Delivered, Outcome::Replied(vec![event("r")])], 2, true).unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }

    #[test]
    fn the_class_of_the_first_failure_decides() {
        let permanent = DeliveryError::permanent(codes::SINK_REFUSED, "no");
        let busy = DeliveryError {
            status: Some(429),
            retry_after: Some(Duration::from_secs(7)),
            ..DeliveryError::retryable(codes::SINK_UNAVAILABLE, "busy")
        };
        let misconfigured = DeliveryError::misconfigured(codes::SINK_MISCONFIGURED, "no such index");
        for (error, status, retry_after) in [
            (permanent, 422, None),
            (busy, 429, Some(Duration::from_secs(7))),
            (misconfigured, 503, Some(SINK_RETRY_AFTER)),
        ] {
            let problem = delivered(vec![Outcome::Delivered, Outcome::Failed(error)], 2, true).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.index), (status, Some(1)));
            assert_eq!(problem.retry_after, retry_after);
        }
    }

    #[test]
    fn a_missing_outcome_is_retryable() {
        let problem = delivered(vec![Outcome::Delivered], 2, true).unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.index), (503, Some(1)));
    }

    #[test]
    fn results_go_back_in_the_mode_that_fits() {
        assert_eq!(events_response(&[]).status(), StatusCode::NO_CONTENT);
        let one = events_response(&[event("1")]);
        assert_eq!((one.status(), &one.headers()["ce-id"]), (StatusCode::OK, &HeaderValue::from_static("1")));
        let several = events_response(&[event("1"), event("2")]);
        assert_eq!(several.headers()[CONTENT_TYPE], BATCH_JSON);
    }
}
