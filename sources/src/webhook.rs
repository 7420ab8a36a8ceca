//! `webhook`: takes what others post.

mod event;
mod settings;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap,
    HeaderValue,
};
use http::{Method, StatusCode};
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use waypost_clients::{Problem, ProblemKind};
use waypost_core::codes;
use waypost_core::event::MAX_NAME_BYTES;
use waypost_core::manifest::FieldProblem;
use waypost_core::receive::{Posted, Receive, Received, Refusal};
use waypost_core::sink::ComponentContext;
use waypost_core::source::{Emitter, Source, SourceConfig, SourceError};

use self::event::Naming;
pub use self::settings::WebhookConfig;
use self::settings::{Verification, WebhookBody};
use self::verify::{Unverified, Verifier};

/// How often secrets are read again.
const RENEW_EVERY: Duration = Duration::from_secs(2);

impl SourceConfig for WebhookConfig {
    const TYPE: &'static str = "webhook";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let verify = self.verify.as_ref().map(Verification::problems).unwrap_or_default();
        problems.extend(
            verify
                .into_iter()
                .map(|problem| FieldProblem { path: format!("verify.{}", problem.path), ..problem }),
        );
        let mut problem =
            |path: String, message: &str| problems.push(FieldProblem { path, message: message.to_owned() });
        if self.path.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains(['?', '#'])) {
            problem("path".to_owned(), "a path begins with `/` and has no query");
        }
        if self.answer_status.is_some_and(|status| !(200..=299).contains(&status)) {
            problem("answerStatus".to_owned(), "what was taken is answered with a status from 200 to 299");
        }
        if self.requests_per_second == Some(0) {
            problem("requestsPerSecond".to_owned(), "none would be taken: remove the field, or the source");
        }
        if self.allow_origin.as_ref().is_some_and(|origin| HeaderValue::from_str(origin).is_err()) {
            problem("allowOrigin".to_owned(), "it is no origin: write it as `https://HOST`, or `*`");
        }
        for name in self.event_extensions.keys() {
            let reserved = [
                "id",
                "source",
                "type",
                "specversion",
                "time",
                "subject",
                "datacontenttype",
                "dataschema",
                "data",
            ];
            if reserved.contains(&name.as_str()) || !is_name(name) {
                problem(
                    format!("eventExtensions.{name}"),
                    "an extension is called by a-z and 0-9, and not as an attribute of the norm",
                );
            }
        }
        if self.body == WebhookBody::CloudEvents {
            for (field, given) in [
                ("eventId", self.event_id.is_some()),
                ("eventType", self.event_type.is_some()),
                ("eventSource", self.event_source.is_some()),
                ("eventSubject", self.event_subject.is_some()),
                ("eventExtensions", !self.event_extensions.is_empty()),
                ("requestExtensions", !self.request_extensions.is_empty()),
            ] {
                if given {
                    problem(
                        field.to_owned(),
                        "events that come as CloudEvents are taken as they are: remove the field",
                    );
                }
            }
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Box<dyn Source>, SourceError> {
        let mut headers = HeaderMap::new();
        let mut methods: Vec<Method> = self.methods.iter().map(|method| method.method()).collect();
        if methods.is_empty() {
            methods.push(Method::POST);
        }
        if let Some(origin) = &self.allow_origin {
            let value = |text: &str| {
                let problem =
                    |_| Problem::new(ProblemKind::Settings, format!("`{text}` can be in no header"));
                HeaderValue::from_str(text).map_err(problem)
            };
            let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value(origin)?);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, value(&names.join(", "))?);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Authorization, *"));
        }
        let receiver = Receiver {
            verifier: RwLock::new(Arc::new(self.verifier(&context)?)),
            naming: Naming::new(self),
            allowance: self
                .requests_per_second
                .map(|most| Mutex::new(Allowance { most, second: 0, taken: 0 })),
            config: self.clone(),
            context,
            methods,
            headers,
        };
        Ok(Box::new(Webhook(Arc::new(receiver))))
    }
}

impl WebhookConfig {
    fn verifier(&self, context: &ComponentContext) -> Result<Verifier, Problem> {
        self.verify.as_ref().map_or(Ok(Verifier::Anyone), |verify| verify.verifier(context))
    }
}

fn is_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    letters && (1..=MAX_NAME_BYTES).contains(&name.len())
}

#[derive(Debug)]
struct Webhook(Arc<Receiver>);

/// Takes the requests.
#[derive(Debug)]
struct Receiver {
    config: WebhookConfig,
    context: ComponentContext,
    naming: Naming,
    verifier: RwLock<Arc<Verifier>>,
    allowance: Option<Mutex<Allowance>>,
    methods: Vec<Method>,
    headers: HeaderMap,
}

/// How many requests may still come in this second.
#[derive(Debug)]
struct Allowance {
    most: u32,
    second: u64,
    taken: u32,
}

impl Allowance {
    fn take(&mut self, now: u64) -> bool {
        if self.second != now {
            (self.second, self.taken) = (now, 0);
        }
        self.taken = self.taken.saturating_add(1);
        self.taken <= self.most
    }
}

#[async_trait]
impl Source for Webhook {
    fn receiver(&self) -> Option<Arc<dyn Receive>> {
        Some(Arc::clone(&self.0) as Arc<dyn Receive>)
    }

    /// Keeps the secrets fresh: requests are taken elsewhere.
    async fn run(self: Box<Self>, emitter: Emitter, shutdown: CancellationToken) -> Result<(), SourceError> {
        emitter.ready();
        let mut known = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            let receiver = Arc::clone(&self.0);
            // Secrets may lie on a slow disk.
            let renewed =
                tokio::task::spawn_blocking(move || receiver.config.verifier(&receiver.context)).await;
            match renewed {
                Ok(Ok(verifier)) => {
                    *self.0.verifier.write() = Arc::new(verifier);
                    if !std::mem::replace(&mut known, true) {
                        emitter.ready();
                    }
                }
                // The secrets that were read last are good until then.
                Ok(Err(problem)) => {
                    known = false;
                    emitter.not_ready(problem.into());
                }
                Err(_) => {}
            }
        }
    }
}

impl Receive for Receiver {
    fn receive(&self, posted: &Posted, now: u64) -> Result<Received, Refusal> {
        if self
            .config
            .path
            .as_ref()
            .is_some_and(|path| path.trim_end_matches('/') != posted.path.trim_end_matches('/'))
        {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                codes::INGRESS_PATH_UNKNOWN,
                "the source takes requests at another path: see `path` in its settings",
            ));
        }
        if self.allowance.as_ref().is_some_and(|allowance| !allowance.lock().take(now)) {
            let detail =
                "more requests came in this second than the source takes: send it again after the pause";
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, codes::REQUESTS_TOO_MANY, detail);
            return Err(Refusal { retry_after: Some(Duration::from_secs(1)), ..refusal });
        }
        let verifier = Arc::clone(&self.verifier.read());
        verifier.verify(posted, now).map_err(|unverified| {
            let code = match unverified {
                Unverified::Expired(_) => codes::REQUEST_EXPIRED,
                Unverified::Missing(_) | Unverified::Malformed(_) | Unverified::Wrong(_) => {
                    codes::REQUEST_UNVERIFIED
                }
            };
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, code, unverified.to_string());
            Refusal { challenge: verifier.challenge(), ..refusal }
        })?;
        if matches!(self.config.verify, Some(Verification::Slack(_)))
            && let Some(challenge) = event::slack_challenge(posted)
        {
            let body = Bytes::copy_from_slice(challenge.as_bytes());
            let body = Some((HeaderValue::from_static("text/plain; charset=utf-8"), body));
            return Ok(Received { events: Vec::new(), status: StatusCode::OK, body });
        }
        let events = match self.config.body {
            WebhookBody::CloudEvents => event::carried(posted)?,
            WebhookBody::Data => {
                vec![event::wrapped(&self.config, &self.naming, &self.context.name, posted, now)?]
            }
        };
        let status = self.config.answer_status.and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Received { events, status: status.unwrap_or(StatusCode::ACCEPTED), body: None })
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

#[cfg(test)]
mod suite;
