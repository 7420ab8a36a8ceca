//! Calls of the admin API.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};
use serde_json::Value;
use waypost_core::codes;

use super::Answer;
use crate::admin::AdminToken;
use crate::cli::Admin;
use crate::failure::Failure;

/// The time for a call that answers from memory.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The admin API of a running broker.
pub(crate) struct AdminApi {
    base: String,
    headers: HeaderMap,
}

impl AdminApi {
    /// The API that the flags name.
    ///
    /// # Errors
    /// The token cannot be read.
    pub(crate) fn new(arguments: &Admin) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(token) = AdminToken::load(arguments.token.admin_token_file.as_deref())? {
            headers.insert(AUTHORIZATION, token.header());
        }
        Ok(Self { base: arguments.url.trim_end_matches('/').to_owned(), headers })
    }

    /// Calls it, and gives the JSON of a good answer.
    ///
    /// # Errors
    /// The problem that it answers with, or what kept it from answering.
    pub(crate) fn call(&self, method: Method, path: &str, timeout: Duration) -> Result<Value, Failure> {
        self.send(method, path, Bytes::new(), timeout)
    }

    /// Posts JSON to it, and gives the JSON of a good answer.
    ///
    /// # Errors
    /// The problem that it answers with, or what kept it from answering.
    pub(crate) fn post(&self, path: &str, body: &Value, timeout: Duration) -> Result<Value, Failure> {
        self.send(Method::POST, path, Bytes::from(body.to_string()), timeout)
    }

    fn send(&self, method: Method, path: &str, body: Bytes, timeout: Duration) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.base);
        let answer = super::call(method, &url, self.headers.clone(), body, timeout)?;
        understood(&self.base, &answer)
    }
}

/// The JSON of a good answer; otherwise what the problem says.
fn understood(base: &str, answer: &Answer) -> Result<Value, Failure> {
    let body = serde_json::from_slice::<Value>(&answer.body);
    match body {
        Ok(body) if answer.status == StatusCode::OK => Ok(body),
        Ok(body) if body["code"].is_string() && body["detail"].is_string() => {
            let known = codes::ALL.iter().find(|known| body["code"] == known.id());
            let detail = body["detail"].as_str().unwrap_or_default();
            Err(Failure::new(known.copied().unwrap_or(codes::ADMIN_ANSWER_UNKNOWN), detail))
        }
        _ => {
            let content_type = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            Err(Failure::new(
                codes::ADMIN_ANSWER_UNKNOWN,
                format!(
                    "{base} answered {} with {}, which is no answer of the admin API: name the admin address of a \
                     running broker with --admin",
                    answer.status.as_u16(),
                    content_type.unwrap_or("no content type")
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, body: &'static str) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_refusal_keeps_its_code() {
        let refused = answer(StatusCode::UNAUTHORIZED, r#"{"code": "E0801", "detail": "no token"}"#);
        assert_eq!(
            understood("http://h", &refused),
            Err(Failure::new(codes::ADMIN_UNAUTHORIZED, "no token"))
        );
        let foreign = answer(StatusCode::OK, "<html>");
        assert_eq!(understood("http://h", &foreign).unwrap_err().code, codes::ADMIN_ANSWER_UNKNOWN);
    }
}
