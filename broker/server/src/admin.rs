//! The admin listener: health, metrics, and the API that the command line speaks to.

mod dead_letters;
mod explain;
mod replays;
mod tail;
mod token;
mod triggers;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use waypost_core::codes;
use waypost_core::manifest::ResourceName;
use waypost_engine::{DEFAULT_STATUS_LIMIT, Engine, StatusQuery};

pub(crate) use self::token::{AdminToken, TOKEN_VARIABLE};
use crate::failure::Failure;
use crate::ingress::Ingress;
use crate::listener::Handle;
use crate::problem::Problem;

/// The text format of Prometheus.
const METRICS_TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// The most triggers or resources in one answer, whatever the query says.
const MAX_STATUS_LIMIT: usize = 100_000;

/// Answers the requests of the admin listener.
#[derive(Debug, Clone)]
pub(crate) struct Admin(Router);

#[derive(Debug)]
struct Shared {
    engine: Engine,
    ingress: Ingress,
    token: Option<AdminToken>,
}

impl Admin {
    /// The admin API over an engine and its ingress. With a token, all but the probes demand it.
    pub(crate) fn new(engine: Engine, ingress: Ingress, token: Option<AdminToken>) -> Self {
        let shared = Arc::new(Shared { engine, ingress, token });
        let guarded = Router::new()
            .route("/metrics", get(metrics))
            .route("/api/v1/status", get(status))
            .route("/api/v1/explain", get(explain::explain))
            .route("/api/v1/tail", get(tail::tail))
            .route("/api/v1/recount", post(recount))
            .route("/api/v1/triggers/{namespace}/{name}/skip", post(triggers::skip))
            .route("/api/v1/triggers/{namespace}/{name}/seek", post(triggers::seek))
            .route("/api/v1/logs/{namespace}/{broker}/accept-damage", post(accept_damage))
            .merge(dead_letters::routes())
            .merge(replays::routes())
            .layer(middleware::from_fn_with_state(Arc::clone(&shared), demand_token));
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .merge(guarded)
            .method_not_allowed_fallback(method_not_allowed)
            .fallback(path_unknown)
            .with_state(shared);
        Self(router)
    }
}

impl Handle for Admin {
    type Body = Body;

    async fn handle(&self, request: http::Request<Incoming>) -> http::Response<Self::Body> {
        match TowerToHyperService::new(self.0.clone()).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Refuses an admin listener that others can reach and nothing guards.
pub(crate) fn check_exposure(address: SocketAddr, token: Option<&AdminToken>) -> Result<(), Failure> {
    if address.ip().is_loopback() || token.is_some() {
        return Ok(());
    }
    Err(Failure::new(
        codes::ADMIN_TOKEN_MISSING,
        format!(
            "the admin listener at {address} can be reached from outside this machine: give it a token with \
             --admin-token-file or {TOKEN_VARIABLE}, or listen on 127.0.0.1"
        ),
    ))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.response()
    }
}

async fn demand_token(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let Some(token) = &shared.token else { return next.run(request).await };
    if token.admits(request.headers()) {
        return next.run(request).await;
    }
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        codes::ADMIN_UNAUTHORIZED,
        "send the admin token as `Authorization: Bearer ...`; the command line takes it from --admin-token-file or \
         WAYPOST_ADMIN_TOKEN",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.ingress.is_open() {
        return "ready\n".into_response();
    }
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        codes::ADMIN_NOT_READY,
        "the process is starting or shutting down and takes no events",
    )
    .into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = shared.engine.metrics();
    // The end mark of OpenMetrics, where the engine writes one, would hide what follows.
    text.truncate(text.trim_end_matches("# EOF\n").len());
    text.push_str(&shared.ingress.metrics());
    ([(CONTENT_TYPE, METRICS_TEXT)], text).into_response()
}

/// The parameters of the status.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusParameters {
    namespace: Option<String>,
    trigger: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl From<StatusParameters> for StatusQuery {
    fn from(parameters: StatusParameters) -> Self {
        let StatusParameters { namespace, trigger, limit, after } = parameters;
        let limit = limit.unwrap_or(DEFAULT_STATUS_LIMIT).min(MAX_STATUS_LIMIT);
        Self { namespace, trigger, limit, after }
    }
}

/// The parameters of a query, with a problem where they are not valid.
struct Parameters<T>(T);

impl<S, T> FromRequestParts<S> for Parameters<T>
where
    S: Send + Sync,
    Query<T>: FromRequestParts<S, Rejection = QueryRejection>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                codes::ADMIN_QUERY_INVALID,
                format!("{}; see the reference of the admin API", rejection.body_text()),
            )),
        }
    }
}

async fn status(
    State(shared): State<Arc<Shared>>,
    Parameters(parameters): Parameters<StatusParameters>,
) -> Response {
    Json(shared.engine.status(&StatusQuery::from(parameters)).await).into_response()
}

async fn recount(State(shared): State<Arc<Shared>>) -> Response {
    // Counting takes long where triggers are many; it must not hold up a thread that serves deliveries.
    let recounting = tokio::task::spawn_blocking(move || shared.engine.recount());
    match recounting.await {
        Ok(lines) => Json(lines).into_response(),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn accept_damage(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let broker = ResourceName::new(namespace, name);
    let absent = format!("the broker {broker} does not run here: see `waypost status`");
    // Every record is read for it.
    let accepting = tokio::task::spawn_blocking(move || shared.engine.accept_damage(&broker));
    match accepting.await {
        Ok(Some(Ok(accepted))) => Json(serde_json::json!({ "accepted": accepted })).into_response(),
        Ok(Some(Err(error))) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error.to_string()).into_response()
        }
        Ok(None) => {
            Problem::new(StatusCode::NOT_FOUND, codes::ADMIN_RESOURCE_UNKNOWN, absent).into_response()
        }
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn path_unknown(request: Request) -> Problem {
    let detail = if request.uri().path().len() <= 100 {
        format!("there is no {}: see the reference of the admin API", request.uri().path())
    } else {
        "there is no such path: see the reference of the admin API".to_owned()
    };
    Problem::new(StatusCode::NOT_FOUND, codes::ADMIN_PATH_UNKNOWN, detail)
}

async fn method_not_allowed(request: Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        codes::ADMIN_METHOD_NOT_ALLOWED,
        format!("{} is not known here: see the reference of the admin API", request.method()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_admin_listener_is_refused() {
        let token = AdminToken::new("t0ken").unwrap();
        for (address, token, allowed) in [
            ("127.0.0.1:8081", None, true),
            ("[::1]:8081", None, true),
            ("0.0.0.0:8081", None, false),
            ("192.0.2.1:8081", None, false),
            ("0.0.0.0:8081", Some(&token), true),
        ] {
            let checked = check_exposure(address.parse().unwrap(), token);
            assert_eq!(checked.is_ok(), allowed, "{address}");
        }
    }
}
