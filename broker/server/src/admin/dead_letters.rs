//! `/api/v1/dead-letters` and `/api/v1/redrives`: events that could not be delivered, and what operators do with them.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use waypost_core::event::instant;
use waypost_core::manifest::ResourceName;
use waypost_core::{Code, codes};
use waypost_engine::{
    LetterChoice, LetterName, LetterQuery, MAX_NAMED_LETTERS, RedriveError, RedriveRequest,
};
use waypost_log::Timestamp;

use super::{Parameters, Shared};
use crate::problem::Problem;

/// The dead letters in one answer, where the query says nothing.
const DEFAULT_LIMIT: usize = 1_000;
/// The most dead letters in one answer, whatever the query says.
const MAX_LIMIT: usize = 10_000;
/// The most bytes of a request: the names of as many dead letters as may be named.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// The namespace of a trigger where none is given.
const DEFAULT_NAMESPACE: &str = "default";

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/dead-letters", get(list))
        .route("/api/v1/dead-letters/redrive", post(redrive))
        .route("/api/v1/dead-letters/purge", post(purge))
        .route("/api/v1/dead-letters/{id}", get(show))
        .route("/api/v1/redrives", get(redrives))
        .route("/api/v1/redrives/{id}", get(show_redrive).delete(cancel_redrive))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// The parameters of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    namespace: Option<String>,
    broker: Option<String>,
    trigger: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    code: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// What is redriven or purged.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChoiceBody {
    namespace: Option<String>,
    broker: Option<String>,
    trigger: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    code: Option<String>,
    since: Option<String>,
    until: Option<String>,
    ids: Option<Vec<String>>,
    /// That a purge without any choice is meant.
    #[serde(default)]
    all: bool,
    to: Option<String>,
    rate: Option<NonZeroU32>,
    /// Whether it is only told what would be sent.
    #[serde(default)]
    dry_run: bool,
}

/// The choice as it is written.
struct Written {
    namespace: Option<String>,
    broker: Option<String>,
    trigger: Option<String>,
    event_type: Option<String>,
    code: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

impl TryFrom<Written> for LetterQuery {
    type Error = Problem;

    fn try_from(written: Written) -> Result<Self, Problem> {
        let Written { namespace, broker, trigger, event_type, code, since, until } = written;
        let trigger = trigger.map(|trigger| match trigger.split_once('/') {
            Some((namespace, name)) => ResourceName::new(namespace, name),
            None => ResourceName::new(namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), trigger),
        });
        Ok(Self {
            namespace,
            broker,
            trigger,
            event_type,
            code: code.map(|code| known_code(&code)).transpose()?,
            since: since.map(|time| moment("since", &time)).transpose()?,
            until: until.map(|time| moment("until", &time)).transpose()?,
        })
    }
}

fn known_code(id: &str) -> Result<Code, Problem> {
    let found = codes::ALL.iter().copied().find(|code| code.id() == id);
    found.ok_or_else(|| refused("`code` is none of the error codes, such as E0402".to_owned()))
}

fn moment(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let time = instant(text).ok();
    let nanoseconds = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    let wanted = || refused(format!("`{name}` is a time such as 2026-01-31T08:00:00Z"));
    nanoseconds.map(Timestamp).ok_or_else(wanted)
}

fn letter_name(text: &str) -> Result<LetterName, Problem> {
    text.parse().map_err(|error: waypost_engine::InvalidLetterName| refused(error.to_string()))
}

impl ChoiceBody {
    fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| {
            refused(format!("the body is not what is asked for: {error}; see the reference of dead letters"))
        })
    }

    /// What is chosen, and whether it is chosen by more than being there.
    fn choice(self) -> Result<(LetterChoice, bool), Problem> {
        let Self { namespace, broker, trigger, event_type, code, since, until, ids, .. } = self;
        let written = Written { namespace, broker, trigger, event_type, code, since, until };
        let query = LetterQuery::try_from(written)?;
        let by_query = query != LetterQuery::default();
        match ids {
            Some(_) if by_query => Err(refused(
                "name dead letters with `ids`, or choose them by what they are: not both".to_owned(),
            )),
            Some(ids) if ids.len() > MAX_NAMED_LETTERS => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                codes::DEAD_LETTERS_TOO_MANY,
                RedriveError::TooManyNamed(ids.len()).to_string(),
            )),
            Some(ids) => {
                let names = ids.iter().map(|id| letter_name(id)).collect::<Result<_, _>>()?;
                Ok((LetterChoice::Named(names), true))
            }
            None => Ok((LetterChoice::Query(query), by_query)),
        }
    }
}

async fn list(
    State(shared): State<Arc<Shared>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Response, Problem> {
    let ListParameters { namespace, broker, trigger, event_type, code, since, until, limit, after } =
        parameters;
    let written = Written { namespace, broker, trigger, event_type, code, since, until };
    let query = LetterQuery::try_from(written)?;
    let after = after.map(|after| letter_name(&after)).transpose()?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    Ok(Json(shared.engine.dead_letters(&query, after.as_ref(), limit).await).into_response())
}

async fn show(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let name = letter_name(&id)?;
    let found = shared.engine.dead_letter(&name).await;
    found
        .map(|letter| Json(letter).into_response())
        .ok_or_else(|| refusal(&RedriveError::LetterUnknown(name)))
}

async fn redrive(State(shared): State<Arc<Shared>>, body: Bytes) -> Result<Response, Problem> {
    let body = ChoiceBody::read(&body)?;
    let (to, rate, dry_run) = (body.to.clone(), body.rate, body.dry_run);
    let request = RedriveRequest { choice: body.choice()?.0, to, rate };
    if dry_run {
        let preview = shared.engine.preview_redrive(&request).await.map_err(|error| refusal(&error))?;
        return Ok(Json(preview).into_response());
    }
    let started = shared.engine.redrive(request).await.map_err(|error| refusal(&error))?;
    Ok(Json(started).into_response())
}

async fn purge(State(shared): State<Arc<Shared>>, body: Bytes) -> Result<Response, Problem> {
    let body = ChoiceBody::read(&body)?;
    if body.to.is_some() || body.rate.is_some() || body.dry_run {
        return Err(refused("`to`, `rate` and `dryRun` are for a redrive; a purge deletes".to_owned()));
    }
    let all = body.all;
    let (choice, is_chosen) = body.choice()?;
    if !is_chosen && !all {
        let detail = "this would delete every dead letter: choose which, or say `\"all\": true`";
        return Err(Problem::new(StatusCode::BAD_REQUEST, codes::PURGE_UNCONFIRMED, detail));
    }
    match shared.engine.purge(&choice).await {
        Ok(purged) => Ok(Json(json!({ "purged": purged })).into_response()),
        Err(error) => {
            let detail = format!("{error}; some may be deleted already: ask again");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), detail))
        }
    }
}

async fn redrives(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.engine.redrives()).into_response()
}

async fn show_redrive(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let found = shared.engine.find_redrive(&id).map_err(|error| refusal(&error))?;
    Ok(Json(found).into_response())
}

async fn cancel_redrive(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let cancelled = shared.engine.cancel_redrive(&id).await.map_err(|error| refusal(&error))?;
    Ok(Json(cancelled).into_response())
}

fn refused(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, codes::ADMIN_QUERY_INVALID, detail)
}

fn refusal(error: &RedriveError) -> Problem {
    let status = match error {
        RedriveError::LetterUnknown(_) | RedriveError::Unknown(_) => StatusCode::NOT_FOUND,
        RedriveError::NoDestination(_) | RedriveError::TooMany => StatusCode::CONFLICT,
        RedriveError::Destination(_) | RedriveError::TooManyNamed(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.code(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(body: &str) -> Result<(LetterChoice, bool), Problem> {
        ChoiceBody::read(body.as_bytes()).and_then(ChoiceBody::choice)
    }

    #[test]
    fn dead_letters_are_chosen_in_one_of_two_ways() {
        assert_eq!(choice(""), Ok((LetterChoice::Query(LetterQuery::default()), false)));
        let (by_query, chosen) =
            choice(r#"{"trigger": "orders", "type": "t", "code": "E0402", "since": "1970-01-01T00:00:01Z"}"#)
                .unwrap();
        let expected = LetterQuery {
            trigger: Some(ResourceName::new("default", "orders")),
            event_type: Some("t".to_owned()),
            code: Some(codes::SUBSCRIBER_STATUS_PERMANENT),
            since: Some(Timestamp(1_000_000_000)),
            ..LetterQuery::default()
        };
        assert_eq!((by_query, chosen), (LetterChoice::Query(expected), true));
        let (named, chosen) = choice(r#"{"ids": ["default.b.7"]}"#).unwrap();
        assert_eq!((named, chosen), (LetterChoice::Named(vec!["default.b.7".parse().unwrap()]), true));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_chooses_nothing() {
        for wrong in [
            r#"{"triger": "t"}"#,
            r#"{"code": "E9999"}"#,
            r#"{"since": "yesterday"}"#,
            r#"{"ids": ["7"]}"#,
            r#"{"ids": ["a.b.7"], "trigger": "t"}"#,
            r#"{"rate": 0}"#,
            "[]",
        ] {
            assert_eq!(choice(wrong).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
