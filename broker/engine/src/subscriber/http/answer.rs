//! What an HTTP answer means for the delivery.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::timeout;
use waypost_clients::http::{DRAIN_TIME, Received, classify};
use waypost_core::error::{BODY_EXCERPT_LIMIT, DeliveryError};
use waypost_core::event::http::{ContentMode, DecodeOptions, Decoded, carries_event, content_mode, decode};
use waypost_core::{Event, codes};
use waypost_log::Timestamp;

use super::{HttpOptions, Outgoing};

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The subscriber has the event.
    Delivered {
        /// The status that it answered, where it speaks HTTP.
        status: Option<u16>,
        /// Whether it answered with a body that is no event, which nobody reads.
        body_ignored: bool,
    },
    /// The subscriber has the event and answered with one or more events.
    Replied {
        /// The status that it answered, where it speaks HTTP.
        status: Option<u16>,
        /// The events, at least one.
        events: Vec<Event>,
    },
    /// The subscriber does not have the event, or it is not known whether it has.
    Failed(DeliveryError),
}

/// How much longer than the events that it holds the text of a reply may be, and how many events of the largest size
/// a batch may hold.
const REPLY_BODY_FACTOR: usize = 8;

/// Reads the answer and says what it means.
pub(super) async fn read(received: Received<'_>, options: &HttpOptions, outgoing: &Outgoing<'_>) -> Answer {
    let status = received.status();
    if !status.is_success() {
        return Answer::Failed(refusal(received, outgoing.now).await);
    }
    if outgoing.want_reply && carries_event(received.headers()) {
        return reply(received, options.max_reply_bytes).await;
    }
    if !(outgoing.want_reply && options.strict_replies) {
        let body_ignored = received.discard().await;
        return Answer::Delivered { status: Some(status.as_u16()), body_ignored };
    }
    match excerpt(received).await {
        Excerpt::Empty => Answer::Delivered { status: Some(status.as_u16()), body_ignored: false },
        excerpt => Answer::Failed(DeliveryError {
            status: Some(status.as_u16()),
            body_excerpt: excerpt.into_bytes(),
            ..DeliveryError::retryable(
                codes::REPLY_NOT_AN_EVENT,
                format!(
                    "the subscriber answered {status} with a body that is no CloudEvent, which this broker does not \
                     accept; answer with an empty body or an event, or turn off `strictReplies`"
                ),
            )
        }),
    }
}

/// Reads the events of a reply.
async fn reply(received: Received<'_>, max_event_bytes: usize) -> Answer {
    let status = received.status().as_u16();
    let fail = |error| Answer::Failed(DeliveryError { status: Some(status), ..error });
    let limit = match content_mode(received.headers()) {
        Ok(ContentMode::Binary) => max_event_bytes,
        Ok(ContentMode::Structured | ContentMode::Batch) => max_event_bytes.saturating_mul(REPLY_BODY_FACTOR),
        // Of no use, but short ones are read, for the connection's sake.
        Err(_) => 0,
    };
    let (head, body) = match received.read(limit).await {
        Ok(read) => read,
        Err(error) => return fail(classify(&error)),
    };
    if body.is_cut && limit > 0 {
        return fail(too_large(max_event_bytes));
    }
    let events = match decode(&head.headers, &body.bytes, &DecodeOptions::default()) {
        Ok(Decoded::Event(event)) => vec![event],
        Ok(Decoded::Batch(events)) => events,
        Err(error) => {
            let detail = format!(
                "the subscriber answered {status} with a CloudEvent that is not valid: {error}; mend the reply, or \
                 answer without `ce-` headers and CloudEvents content type"
            );
            return fail(DeliveryError::retryable(codes::REPLY_MALFORMED, detail));
        }
    };
    if events.iter().any(|event| event.size() > max_event_bytes) {
        return fail(too_large(max_event_bytes));
    }
    if events.is_empty() {
        return Answer::Delivered { status: Some(status), body_ignored: false };
    }
    Answer::Replied { status: Some(status), events }
}

fn too_large(max_event_bytes: usize) -> DeliveryError {
    DeliveryError::permanent(
        codes::REPLY_TOO_LARGE,
        format!(
            "the subscriber answered with an event of more than {max_event_bytes} bytes; reply with less"
        ),
    )
}

/// The failure that a status other than 2xx stands for.
async fn refusal(received: Received<'_>, now: Timestamp) -> DeliveryError {
    let status = received.status();
    let retry_after = asks_for_less(status).then(|| retry_after(received.headers(), now)).flatten();
    let body_excerpt = excerpt(received).await.into_bytes();
    DeliveryError { status: Some(status.as_u16()), retry_after, body_excerpt, ..status_failure(status) }
}

/// Whether a status says that fewer attempts should be made.
fn asks_for_less(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// The table of Knative's delivery contract: what is retried and what is not.
fn status_failure(status: StatusCode) -> DeliveryError {
    let name = status.canonical_reason().unwrap_or("");
    let sentence = format!("the subscriber answered {} {name}", status.as_u16());
    let sentence = match advice(status) {
        Some(advice) => format!("{}; {advice}", sentence.trim_end()),
        None => sentence.trim_end().to_owned(),
    };
    let retried = match status.as_u16() {
        404 | 408 | 409 | 429 => true,
        // From 600 on a status is not valid and counts as 5xx (RFC 9110, section 15).
        code => code >= 500,
    };
    let failure = if retried {
        DeliveryError::retryable(codes::SUBSCRIBER_STATUS_RETRYABLE, sentence)
    } else {
        DeliveryError::permanent(codes::SUBSCRIBER_STATUS_PERMANENT, sentence)
    };
    if asks_for_less(status) { failure.congested() } else { failure }
}

fn advice(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        300..=399 => "redirects are not followed, so give the URL that it leads to",
        401 | 403 => "it wants credentials, or does not take events from here",
        404 => "check the path of the URL, and whether the service is deployed",
        405 => "it does not take POST at this path",
        413 => "the event is larger than it takes",
        415 => "it does not take this content type; `format: json` sends events as JSON",
        _ => return None,
    })
}

/// The wait that an answer asks for, by either form of `Retry-After`. A time that has passed asks for none.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    headers.get(RETRY_AFTER).and_then(|value| wait_asked(value, now))
}

fn wait_asked(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that are no u64 are too many.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let now = Duration::from_nanos(u64::try_from(now.0).unwrap_or(0));
    Some(date.saturating_sub(now))
}

/// The beginning of a body that is kept for people.
enum Excerpt {
    /// There is no body.
    Empty,
    /// There is one, and it did not come in time or not whole.
    Lost,
    /// At most [`BODY_EXCERPT_LIMIT`] bytes of it.
    Begins(Bytes),
}

impl Excerpt {
    fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Empty | Self::Lost => None,
            Self::Begins(bytes) => Some(bytes),
        }
    }
}

/// Reads the beginning of a body. The status stands whatever becomes of the body, so it is not waited for long.
async fn excerpt(received: Received<'_>) -> Excerpt {
    match timeout(DRAIN_TIME, received.read(BODY_EXCERPT_LIMIT)).await {
        Ok(Ok((_, body))) if body.bytes.is_empty() => Excerpt::Empty,
        // A copy, since the bytes share the connection's read buffer.
        Ok(Ok((_, body))) => Excerpt::Begins(Bytes::copy_from_slice(&body.bytes)),
        Ok(Err(_)) | Err(_) => Excerpt::Lost,
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::Class;

    use super::*;

    #[test]
    fn every_status_has_its_class() {
        for code in 100..=999_u16 {
            let status = StatusCode::from_u16(code).expect("three digits");
            if status.is_success() {
                continue;
            }
            let failure = status_failure(status);
            let retried = matches!(code, 404 | 408 | 409 | 429 | 500..);
            assert_eq!(failure.class, if retried { Class::Retryable } else { Class::Permanent }, "{code}");
            assert_eq!(failure.congested, code == 429 || code == 503, "{code}");
            assert!(failure.detail.contains(&code.to_string()), "{failure}");
            assert!(!failure.detail.ends_with(['.', ' ']), "{failure}");
        }
    }

    #[test]
    fn retry_after_has_two_forms() {
        // 2023-11-14T22:13:20Z
        let now = Timestamp(1_700_000_000_000_000_000);
        let seconds = |text: &str| {
            wait_asked(&HeaderValue::from_str(text).expect("a value"), now).map(|wait| wait.as_secs())
        };
        for (text, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 120 ", Some(120)),
            ("99999999999999999999999999", Some(u64::MAX)),
            ("Tue, 14 Nov 2023 22:15:20 GMT", Some(120)),
            ("Tuesday, 14-Nov-23 22:15:20 GMT", Some(120)),
            ("Tue Nov 14 22:15:20 2023", Some(120)),
            ("Tue, 14 Nov 2023 22:13:19 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("+5", None),
            ("soon", None),
            ("Tue, 14 Nov 2023", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        let binary = HeaderValue::from_bytes(b"\xff").expect("opaque bytes");
        assert_eq!(wait_asked(&binary, now), None);
    }
}
