//! `GET /api/v1/explain`: what became of an event that a broker has.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::codes;
use waypost_core::manifest::ResourceName;
use waypost_engine::explain::{
    DEFAULT_EXPLAIN_LIMIT, ExplainError, ExplainQuery, ExplainSelection, RecordKey,
};
use waypost_log::Position;

use super::{Parameters, Shared};
use crate::problem::Problem;

/// The most triggers in one answer, whatever the query says: of each the outcomes are looked up.
const MAX_LIMIT: usize = 10_000;
/// When it is worth asking again where too many ask.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// The namespace of a broker where none is given.
const DEFAULT_NAMESPACE: &str = "default";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainParameters {
    namespace: Option<String>,
    broker: Option<String>,
    source: Option<String>,
    id: Option<String>,
    position: Option<String>,
    trigger: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl TryFrom<ExplainParameters> for ExplainQuery {
    type Error = Problem;

    fn try_from(parameters: ExplainParameters) -> Result<Self, Problem> {
        let refused =
            |detail: String| Problem::new(StatusCode::BAD_REQUEST, codes::ADMIN_QUERY_INVALID, detail);
        let ExplainParameters { namespace, broker, source, id, position, trigger, limit, after } = parameters;
        let broker = broker.ok_or_else(|| refused("name the broker with `broker`".to_owned()))?;
        let record = match (source, id, position) {
            (Some(source), Some(id), None) => RecordKey::Event { source, id },
            (None, None, Some(position)) => {
                let position = position.parse::<Position>();
                RecordKey::Position(position.map_err(|error| refused(format!("`position`: {error}")))?)
            }
            _ => {
                let detail = "name the event with `source` and `id`, or with `position`";
                return Err(refused(detail.to_owned()));
            }
        };
        let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let limit = limit.unwrap_or(DEFAULT_EXPLAIN_LIMIT).min(MAX_LIMIT);
        let selection = ExplainSelection { namespace: None, trigger, limit, after };
        Ok(Self { broker: ResourceName::new(namespace, broker), record, selection })
    }
}

pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    Parameters(parameters): Parameters<ExplainParameters>,
) -> Response {
    let query = match ExplainQuery::try_from(parameters) {
        Ok(query) => query,
        Err(problem) => return problem.into_response(),
    };
    match shared.engine.explain(query).await {
        Ok(explained) => Json(explained).into_response(),
        Err(error) => refusal(&error).into_response(),
    }
}

fn refusal(error: &ExplainError) -> Problem {
    let status = match error {
        ExplainError::BrokerUnknown { .. }
        | ExplainError::EventUnknown { .. }
        | ExplainError::Trimmed { .. }
        | ExplainError::Beyond { .. } => StatusCode::NOT_FOUND,
        ExplainError::After(_) => StatusCode::BAD_REQUEST,
        ExplainError::Busy => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, error.code(), error.to_string());
    if status == StatusCode::TOO_MANY_REQUESTS { problem.retry_after(BUSY_PAUSE) } else { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(parameters: &str) -> Result<ExplainQuery, Problem> {
        let uri: http::Uri = format!("/?{parameters}").parse().unwrap();
        let parameters = axum::extract::Query::<ExplainParameters>::try_from_uri(&uri).unwrap();
        ExplainQuery::try_from(parameters.0)
    }

    #[test]
    fn an_event_is_named_in_one_of_two_ways() {
        let by = query("broker=b&source=%2Fs&id=1&limit=1000000000").unwrap();
        assert_eq!(by.broker, ResourceName::new("default", "b"));
        assert_eq!(by.record, RecordKey::Event { source: "/s".to_owned(), id: "1".to_owned() });
        assert_eq!(by.selection.limit, MAX_LIMIT);
        let at = query("namespace=n&broker=b&position=0:7&trigger=t").unwrap();
        assert_eq!(at.record, RecordKey::Position(Position { partition: 0, offset: 7 }));
        assert_eq!((at.broker.namespace.as_str(), at.selection.trigger.as_deref()), ("n", Some("t")));
        for half in
            ["position=0:7", "broker=b", "broker=b&id=1", "broker=b&position=7", "broker=b&position=0:7&id=1"]
        {
            assert_eq!(query(half).unwrap_err().status, StatusCode::BAD_REQUEST, "{half}");
        }
    }
}
