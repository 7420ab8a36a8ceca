//! The handshake of the CloudEvents specification for web hooks: permission, and a rate, before the first event.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};
use waypost_clients::http::{Answered, Site};
use waypost_clients::{Problem, ProblemKind};

/// The most bytes of an answer that nobody reads.
const ANSWER_LIMIT: usize = 4 * 1024;

/// Asks for permission before the first event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HttpHandshake {
    /// Who asks: the DNS name of the system that sends, such as `events.example.com`.
    pub(super) origin: String,
    /// The requests per minute that are asked for; what is granted is kept to. For a rate of a few a minute set also
    /// `maxInFlight: 1` in the delivery of the trigger: a request waits its turn within the time of its attempt.
    #[schemars(range(min = 1))]
    rate: Option<u32>,
}

/// The permission, once it is granted.
#[derive(Debug)]
pub(super) struct Handshake {
    terms: HttpHandshake,
    /// Held while it is asked for, so that it is asked for once.
    granted: Mutex<Option<Grant>>,
    /// The earliest moment of the next request.
    next: Mutex<Instant>,
}

/// What was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grant {
    /// Between two requests.
    pause: Duration,
}

impl Handshake {
    pub(super) fn new(terms: HttpHandshake) -> Self {
        Self { terms, granted: Mutex::new(None), next: Mutex::new(Instant::now()) }
    }

    /// Asks for the permission where there is none yet. Cancel-safe.
    pub(super) async fn granted(
        &self,
        site: &Site,
        authorization: Option<&HeaderValue>,
    ) -> Result<(), Problem> {
        let mut granted = self.granted.lock().await;
        if granted.is_none() {
            *granted = Some(self.ask(site, authorization).await?);
        }
        Ok(())
    }

    /// Waits until the granted rate allows a request, in the order of asking. Cancel-safe: who gives up takes no turn.
    pub(super) async fn turn(&self) {
        let Some(Grant { pause }) = *self.granted.lock().await else { return };
        if pause.is_zero() {
            return;
        }
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + pause;
    }

    /// The other side wants no more: the permission is asked for anew before anything else is sent.
    pub(super) async fn revoke(&self) {
        *self.granted.lock().await = None;
    }

    async fn ask(&self, site: &Site, authorization: Option<&HeaderValue>) -> Result<Grant, Problem> {
        let mut headers = HeaderMap::new();
        let origin = HeaderValue::from_str(&self.terms.origin).map_err(|_| {
            let detail = "`handshake.origin` has characters that no header can hold; write a DNS name";
            Problem::new(ProblemKind::Settings, detail)
        })?;
        headers.insert(HeaderName::from_static("webhook-request-origin"), origin);
        if let Some(rate) = self.terms.rate {
            headers.insert(HeaderName::from_static("webhook-request-rate"), HeaderValue::from(rate));
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let uri = site.target().uri().clone();
        let answer = site.call(Method::OPTIONS, uri, headers, Bytes::new(), ANSWER_LIMIT).await;
        grant(&answer.map_err(|error| site.problem(&error))?, &self.terms)
    }
}

/// What an answer to the request for permission grants.
fn grant(answer: &Answered, terms: &HttpHandshake) -> Result<Grant, Problem> {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let refused = |kind, why: &str| {
        let detail = format!("the server grants no permission to send events: {why}");
        Problem { retry_after: answer.retry_after(), ..Problem::new(kind, detail) }
    };
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => return Err(refused(ProblemKind::Overloaded, "it answered 429")),
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            return Err(refused(ProblemKind::Unavailable, &format!("it answered {}", status.as_u16())));
        }
        status if !status.is_success() => {
            let why = format!(
                "it answered {} to OPTIONS; allow it there, or leave out `handshake`",
                status.as_u16()
            );
            return Err(refused(ProblemKind::Unauthorized, &why));
        }
        _ => {}
    }
    let allowed = header("webhook-allowed-origin").unwrap_or_default();
    if allowed != "*" && !allowed.eq_ignore_ascii_case(&terms.origin) {
        let why = format!(
            "it does not allow the origin `{}`; allow it there, or leave out `handshake`",
            terms.origin
        );
        return Err(refused(ProblemKind::Unauthorized, &why));
    }
    let per_minute = match header("webhook-allowed-rate") {
        // Not to answer to a rate that was asked for is to grant none in particular.
        None | Some("*") => None,
        Some(rate) => match rate.parse::<u32>() {
            Ok(rate) if rate > 0 => Some(rate),
            _ => {
                let why = "its `WebHook-Allowed-Rate` is no number of requests per minute";
                return Err(refused(ProblemKind::Unauthorized, why));
            }
        },
    };
    Ok(Grant { pause: per_minute.map_or(Duration::ZERO, |rate| Duration::from_secs(60) / rate) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(status: u16, headers: &[(&'static str, &'static str)]) -> Result<Duration, ProblemKind> {
        let terms = HttpHandshake { origin: "events.example.com".to_owned(), rate: Some(120) };
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let answer = Answered {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: Bytes::new(),
            is_cut: false,
        };
        grant(&answer, &terms).map(|grant| grant.pause).map_err(|problem| problem.kind)
    }

    #[test]
    fn only_what_is_allowed_is_granted() {
        use ProblemKind::{Overloaded, Unauthorized, Unavailable};
        let origin = ("webhook-allowed-origin", "Events.example.com");
        let any = ("webhook-allowed-origin", "*");
        let rate = |rate| ("webhook-allowed-rate", rate);
        for (status, headers, expected) in [
            (200, &[origin, rate("120")][..], Ok(Duration::from_millis(500))),
            (204, &[any, rate("*")], Ok(Duration::ZERO)),
            (200, &[any], Ok(Duration::ZERO)),
            (200, &[rate("120")], Err(Unauthorized)),
            (200, &[("webhook-allowed-origin", "other.example.com")], Err(Unauthorized)),
            (200, &[any, rate("0")], Err(Unauthorized)),
            (200, &[any, rate("many")], Err(Unauthorized)),
            (405, &[any], Err(Unauthorized)),
            (301, &[any], Err(Unauthorized)),
            (429, &[any], Err(Overloaded)),
            (503, &[any], Err(Unavailable)),
        ] {
            assert_eq!(granted(status, headers), expected, "{status} {headers:?}");
        }
    }
}
