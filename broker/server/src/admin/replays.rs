//! `/api/v1/replays`: ranges of logs that are sent again.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::codes;
use waypost_core::manifest::ResourceName;
use waypost_engine::{ReplayError, ReplayRequest, ReplayStatus};

use super::Shared;
use crate::problem::Problem;

/// The most bytes of a request: a spec with a long filter.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The namespace of a replay where none is given.
const DEFAULT_NAMESPACE: &str = "default";

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/replays", get(list).post(start))
        .route("/api/v1/replays/{namespace}/{name}", get(show))
        .route("/api/v1/replays/{namespace}/{name}/pause", post(pause))
        .route("/api/v1/replays/{namespace}/{name}/resume", post(resume))
        .route("/api/v1/replays/{namespace}/{name}/cancel", post(cancel))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StartBody {
    namespace: Option<String>,
    name: Option<String>,
    /// As in a manifest of `kind: Replay`.
    spec: serde_json::Value,
    /// Whether it is only counted.
    #[serde(default)]
    dry_run: bool,
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.engine.replays()).into_response()
}

async fn start(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let body = match serde_json::from_slice::<StartBody>(&body) {
        Ok(body) => body,
        Err(error) => {
            let detail = format!("the body is not what is asked for: {error}; see the reference of replays");
            return Problem::new(StatusCode::BAD_REQUEST, codes::ADMIN_QUERY_INVALID, detail).into_response();
        }
    };
    let StartBody { namespace, name, spec, dry_run } = body;
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let request = ReplayRequest { namespace, name, spec };
    if dry_run {
        return match shared.engine.estimate_replay(request).await {
            Ok(estimate) => Json(estimate).into_response(),
            Err(error) => refusal(&error).into_response(),
        };
    }
    answer(shared.engine.start_replay(request).await)
}

async fn show(State(shared): State<Arc<Shared>>, Path(name): Path<(String, String)>) -> Response {
    let name = named(name);
    let found = shared.engine.replay(&name);
    answer(found.ok_or(ReplayError::Unknown(name)))
}

async fn pause(State(shared): State<Arc<Shared>>, Path(name): Path<(String, String)>) -> Response {
    answer(shared.engine.pause_replay(&named(name), true).await)
}

async fn resume(State(shared): State<Arc<Shared>>, Path(name): Path<(String, String)>) -> Response {
    answer(shared.engine.pause_replay(&named(name), false).await)
}

async fn cancel(State(shared): State<Arc<Shared>>, Path(name): Path<(String, String)>) -> Response {
    answer(shared.engine.cancel_replay(&named(name)).await)
}

fn named((namespace, name): (String, String)) -> ResourceName {
    ResourceName::new(namespace, name)
}

fn answer(result: Result<ReplayStatus, ReplayError>) -> Response {
    match result {
        Ok(line) => Json(line).into_response(),
        Err(error) => refusal(&error).into_response(),
    }
}

fn refusal(error: &ReplayError) -> Problem {
    let status = match error {
        ReplayError::Invalid(_) | ReplayError::Range(_) => StatusCode::BAD_REQUEST,
        ReplayError::Unknown(_) | ReplayError::BrokerStopped(_) => StatusCode::NOT_FOUND,
        ReplayError::Exists(_)
        | ReplayError::Ended { .. }
        | ReplayError::PausedByManifest(_)
        | ReplayError::TooMany => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.code(), error.to_string())
}
