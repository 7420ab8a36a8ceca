//! Refusals over HTTP: `application/problem+json` (RFC 9457) with our code.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use waypost_core::Code;

/// The media type of a problem.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    /// One sentence for people: what was wrong with this request, and what to do.
    pub(crate) detail: Cow<'static, str>,
    /// The event of a batch that is to blame, counted from 0.
    pub(crate) index: Option<usize>,
    /// When it is worth trying again.
    pub(crate) retry_after: Option<Duration>,
    /// The header that its status asks for.
    pub(crate) told: Option<Told>,
}

/// A header that an answer of one status must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// `Allow`, of 405: the methods that the path knows.
    Methods(Cow<'static, str>),
    /// `WWW-Authenticate`, of 401: how to prove who one is, in visible ASCII.
    Challenge(&'static str),
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    problem_type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), index: None, retry_after: None, told: None }
    }

    #[must_use]
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    #[must_use]
    pub(crate) fn allow(mut self, methods: impl Into<Cow<'static, str>>) -> Self {
        self.told = Some(Told::Methods(methods.into()));
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, index: Option<usize>) -> Self {
        self.index = index;
        self
    }

    /// The document, as it goes over the wire.
    pub(crate) fn body(&self) -> Vec<u8> {
        let document = Document {
            problem_type: format!("urn:waypost:error:{}", self.code),
            title: self.code.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code.id(),
            index: self.index,
        };
        serde_json::to_vec(&document).expect("strings and numbers are always JSON")
    }

    /// The refusal as an answer, with the headers that its status demands.
    pub(crate) fn response<B: From<Bytes>>(&self) -> Response<B> {
        let mut response = Response::new(B::from(Bytes::from(self.body())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up, so that nobody comes back too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        match &self.told {
            Some(Told::Methods(methods)) => {
                if let Ok(methods) = HeaderValue::from_str(methods) {
                    headers.insert(ALLOW, methods);
                }
            }
            Some(Told::Challenge(challenge)) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            None => {}
        }
        response
    }
}

impl From<&Problem> for Response<Full<Bytes>> {
    fn from(problem: &Problem) -> Self {
        problem.response()
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::codes;

    use super::*;

    #[test]
    fn the_document_has_the_members_that_programs_rely_on() {
        let problem =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, codes::INGEST_OVER_BUDGET, "later, \"please\"")
                .retry_after(Duration::from_millis(1_200))
                .at(Some(3));
        let document: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
        assert_eq!(document["type"], "urn:waypost:error:E0654");
        assert_eq!(document["title"], codes::INGEST_OVER_BUDGET.title());
        assert_eq!(document["status"], 429);
        assert_eq!(document["detail"], "later, \"please\"");
        assert_eq!(document["code"], "E0654");
        assert_eq!(document["index"], 3);
        let response: Response<Full<Bytes>> = problem.response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn a_problem_of_no_batch_has_no_index() {
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, codes::INGRESS_METHOD_NOT_ALLOWED, "no")
            .allow("POST, OPTIONS");
        assert!(!String::from_utf8(problem.body()).unwrap().contains("index"));
        let response: Response<Full<Bytes>> = problem.response();
        assert_eq!(response.headers()[ALLOW], "POST, OPTIONS");
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }
}
