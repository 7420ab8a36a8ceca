//! The body of a request, read within its limits.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use waypost_core::codes;
use waypost_engine::{Budget, Share};

use crate::problem::Problem;

/// What a share counts for a request besides its body: the head, roughly. What is more is taken when the event is
/// known.
const HEAD_ALLOWANCE: usize = 1024;
/// The most that is taken for an announced body before it arrives.
const FIRST_SHARE: usize = 64 * 1024;
/// The most of a refused body that is read, so that a client which writes before it reads gets its answer.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
/// The time that reading a refused body may take.
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// When a producer that was refused for want of budget may come again.
const BUDGET_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A body that was read whole, and its part of the ingest budget, which is held until the events are in the log.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Bytes,
    pub(super) share: Held,
}

/// A part of the ingest budget and its size.
#[derive(Debug)]
pub(super) struct Held {
    share: Share,
    bytes: usize,
}

impl Held {
    fn take(budget: &Budget, bytes: usize) -> Result<Self, Problem> {
        budget.try_take(bytes).map(|share| Self { share, bytes }).ok_or_else(over_budget)
    }

    /// The part itself, for the log to hold.
    pub(super) fn into_share(self) -> Share {
        self.share
    }

    /// Holds at least `bytes`.
    pub(super) fn cover(&mut self, bytes: usize) -> Result<(), Problem> {
        let missing = bytes.saturating_sub(self.bytes);
        if missing > 0 {
            if !self.share.try_grow(missing) {
                return Err(over_budget());
            }
            self.bytes += missing;
        }
        Ok(())
    }
}

fn over_budget() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        codes::INGEST_OVER_BUDGET,
        "as many bytes as may be are on their way into the log: send the event again after the pause, or raise the \
         ingest budget",
    )
    .retry_after(BUDGET_RETRY_AFTER)
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        codes::REQUEST_TOO_LARGE,
        format!(
            "the body is larger than {limit} bytes: send less at a time, or raise the limit of the broker"
        ),
    )
}

fn too_slow(timeout: Duration) -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        codes::BODY_TIMEOUT,
        format!("the body did not arrive within {timeout:?}: send it faster or in smaller requests"),
    )
}

/// Reads a body of at most `limit` bytes. Its announced length is checked before a byte is read; its share is taken
/// as it arrives, so that what is announced and never sent takes nothing from others.
pub(super) async fn read(
    body: &mut Incoming,
    limit: usize,
    timeout: Duration,
    budget: &Budget,
) -> Result<Read, Problem> {
    let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let share = Held::take(budget, HEAD_ALLOWANCE + announced.unwrap_or(0).min(FIRST_SHARE))?;
    let mut collecting = pin!(collect(body, announced, limit, share));
    // Most bodies came with their head, and need no timer.
    match poll_fn(|context| Poll::Ready(collecting.as_mut().poll(context))).await {
        Poll::Ready(collected) => collected,
        Poll::Pending => tokio::time::timeout(timeout, collecting).await.map_err(|_| too_slow(timeout))?,
    }
}

async fn collect(
    body: &mut Incoming,
    announced: Option<usize>,
    limit: usize,
    mut share: Held,
) -> Result<Read, Problem> {
    let Some(first) = next_data(body).await? else { return Ok(Read { bytes: Bytes::new(), share }) };
    if body.is_end_stream() && first.len() <= limit {
        // The common case: it came in one piece, and is used where it lies.
        share.cover(HEAD_ALLOWANCE + first.len())?;
        return Ok(Read { bytes: first, share });
    }
    let mut whole = BytesMut::with_capacity(
        announced.map_or(first.len(), |length| length.min(FIRST_SHARE).max(first.len())),
    );
    let mut piece = Some(first);
    while let Some(data) = piece {
        let length = whole.len() + data.len();
        if length > limit {
            return Err(too_large(limit));
        }
        share.cover(HEAD_ALLOWANCE + length)?;
        whole.extend_from_slice(&data);
        piece = next_data(body).await?;
    }
    Ok(Read { bytes: whole.freeze(), share })
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                codes::BODY_INCOMPLETE,
                format!("the body ended early or is malformed: {error}"),
            )
        })?;
        // Trailers carry nothing of an event.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Reads the rest of the body of a refused request, within bounds, so that the answer reaches a client that writes
/// all before it reads. A client that waits for `100 Continue`, or speaks HTTP/2, needs no such help.
pub(super) async fn discard(body: &mut Incoming, version: Version, headers: &HeaderMap) {
    let announced = body.size_hint().lower();
    if body.is_end_stream()
        || version == Version::HTTP_2
        || headers.contains_key(header::EXPECT)
        || announced > DISCARD_BYTES as u64
    {
        return;
    }
    let reading = async {
        let mut discarded = 0;
        while let Ok(Some(data)) = next_data(body).await {
            discarded += data.len();
            if discarded > DISCARD_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_covers_what_is_asked_and_never_shrinks() {
        let budget = Budget::new(1_000);
        let other = budget.try_take(100).unwrap();
        let mut held = Held::take(&budget, 500).unwrap();
        held.cover(200).unwrap();
        assert_eq!(budget.used(), 600);
        held.cover(900).unwrap();
        assert_eq!(budget.used(), 1_000);
        let refused = held.cover(901).unwrap_err();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.retry_after, Some(BUDGET_RETRY_AFTER));
        drop((held, other));
        assert_eq!(budget.used(), 0);
    }
}
