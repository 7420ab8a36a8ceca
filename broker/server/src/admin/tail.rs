//! `GET /api/v1/tail`: the events of a broker, or those that a trigger matches, as they come.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::codes;
use waypost_core::duration;
use waypost_core::filter::Filter;
use waypost_core::manifest::{ResourceName, read_filter};
use waypost_engine::tail::{TailError, TailFrom, TailOf, TailQuery};

use super::{Parameters, Shared};
use crate::problem::Problem;

/// When it is worth asking again where too many ask.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// The most events in one answer unless asked otherwise.
const DEFAULT_LIMIT: usize = 100;
/// The namespace where none is given.
const DEFAULT_NAMESPACE: &str = "default";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TailParameters {
    namespace: Option<String>,
    broker: Option<String>,
    trigger: Option<String>,
    from: Option<String>,
    filter: Option<String>,
    limit: Option<usize>,
    wait: Option<String>,
}

impl TryFrom<TailParameters> for TailQuery {
    type Error = Problem;

    fn try_from(parameters: TailParameters) -> Result<Self, Problem> {
        let refused =
            |detail: String| Problem::new(StatusCode::BAD_REQUEST, codes::ADMIN_QUERY_INVALID, detail);
        let TailParameters { namespace, broker, trigger, from, filter, limit, wait } = parameters;
        let named = |name| ResourceName::new(namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), name);
        let of = match (broker, trigger) {
            (Some(broker), None) => TailOf::Broker(named(broker)),
            (None, Some(trigger)) => TailOf::Trigger(named(trigger)),
            _ => {
                return Err(refused(
                    "name one broker with `broker`, or one trigger with `trigger`".to_owned(),
                ));
            }
        };
        let from = from.map(|from| from.parse::<TailFrom>()).transpose();
        let wait = wait.map(|wait| duration::parse(&wait)).transpose();
        Ok(Self {
            of,
            from: from.map_err(|error| refused(format!("`from`: {error}")))?,
            filter: filter
                .map(|text| read(&text))
                .transpose()
                .map_err(|error| refused(format!("`filter`: {error}")))?,
            limit: limit.unwrap_or(DEFAULT_LIMIT),
            wait: wait.map_err(|error| refused(format!("`wait`: {error}")))?.unwrap_or_default(),
        })
    }
}

/// A filter as an item of a trigger's `filters`.
fn read(text: &str) -> Result<Filter, String> {
    let json = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    read_filter(json).map_err(|error| error.to_string())
}

pub(super) async fn tail(
    State(shared): State<Arc<Shared>>,
    Parameters(parameters): Parameters<TailParameters>,
) -> Response {
    let query = match TailQuery::try_from(parameters) {
        Ok(query) => query,
        Err(problem) => return problem.into_response(),
    };
    match shared.engine.tail(query).await {
        Ok(tailed) => Json(tailed).into_response(),
        Err(error) => refusal(&error).into_response(),
    }
}

fn refusal(error: &TailError) -> Problem {
    let status = match error {
        TailError::Unknown { .. } => StatusCode::NOT_FOUND,
        TailError::From => StatusCode::BAD_REQUEST,
        TailError::Busy => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, error.code(), error.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS { problem.retry_after(BUSY_PAUSE) } else { problem }
}
