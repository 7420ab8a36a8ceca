//! `POST /api/v1/triggers/{namespace}/{name}/skip` and `/seek`: what operators do to what a trigger is owed.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Json, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use waypost_core::codes;
use waypost_core::event::instant;
use waypost_core::manifest::ResourceName;
use waypost_engine::{OperateError, SeekTo};
use waypost_log::{Position, Timestamp};

use super::{Parameters, Shared};
use crate::problem::Problem;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SkipParameters {
    position: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeekParameters {
    to: String,
}

pub(super) async fn skip(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name)): Path<(String, String)>,
    Parameters(SkipParameters { position }): Parameters<SkipParameters>,
) -> Response {
    let at: Position = match position.parse() {
        Ok(at) => at,
        Err(error) => return refused(format!("`position`: {error}")).into_response(),
    };
    let trigger = ResourceName::new(namespace, name);
    match shared.engine.skip(&trigger, at).await {
        Ok(()) => {
            let ResourceName { namespace, name } = trigger;
            Json(json!({"namespace": namespace, "name": name, "position": at.to_string(), "dropped": 1}))
                .into_response()
        }
        Err(error) => refusal(&error).into_response(),
    }
}

pub(super) async fn seek(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name)): Path<(String, String)>,
    Parameters(SeekParameters { to }): Parameters<SeekParameters>,
) -> Response {
    let Some(place) = place(&to) else {
        let detail = "`to` is `end`, a position such as 0:42, or a time such as 2026-01-31T08:00:00Z";
        return refused(detail.to_owned()).into_response();
    };
    let trigger = ResourceName::new(namespace, name);
    match shared.engine.seek(&trigger, place).await {
        Ok(dropped) => {
            let ResourceName { namespace, name } = trigger;
            Json(json!({"namespace": namespace, "name": name, "to": to, "dropped": dropped})).into_response()
        }
        Err(error) => refusal(&error).into_response(),
    }
}

/// What `to` names.
fn place(to: &str) -> Option<SeekTo> {
    if to == "end" {
        return Some(SeekTo::End);
    }
    if let Ok(position) = to.parse() {
        return Some(SeekTo::Position(position));
    }
    let time = instant(to).ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(|time| SeekTo::Time(Timestamp(time)))
}

fn refused(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, codes::ADMIN_QUERY_INVALID, detail)
}

fn refusal(error: &OperateError) -> Problem {
    let status = match error {
        OperateError::TriggerUnknown => StatusCode::NOT_FOUND,
        OperateError::NotPending(_) | OperateError::NotTaken { .. } | OperateError::Backwards { .. } => {
            StatusCode::CONFLICT
        }
        OperateError::PartitionUnknown(_) => StatusCode::BAD_REQUEST,
        OperateError::Stopping | OperateError::Read(_) | OperateError::Write(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    Problem::new(status, error.code(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let position = SeekTo::Position(Position { partition: 0, offset: 42 });
        assert_eq!((place("end"), place("0:42")), (Some(SeekTo::End), Some(position)));
        assert_eq!(place("1970-01-01T00:00:01Z"), Some(SeekTo::Time(Timestamp(1_000_000_000))));
        assert_eq!((place(""), place("latest"), place("42")), (None, None, None));
    }
}
