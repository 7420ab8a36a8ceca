//! `http`: sends events as requests to a server, with whatever it wants to know who we are.

mod handshake;
mod request;
mod signature;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_clients::http::{
    Answered, BasicCredentials, GoogleIdentity, GoogleIdentityCredentials, HttpTls, OAuth2,
    OAuth2Credentials, Site, Target, TokenCredentials,
};
use waypost_clients::{Problem, ProblemKind};
use waypost_core::error::BODY_EXCERPT_LIMIT;
use waypost_core::event::http::{DecodeOptions, Decoded, carries_event, decode};
use waypost_core::manifest::FieldProblem;
use waypost_core::sink::{ComponentContext, Outcome, Sink, SinkConfig};
use waypost_core::template::Template;
use waypost_core::{DeliveryError, Event, codes};

use self::handshake::{Handshake, HttpHandshake};
use self::request::Written;
use self::signature::{HttpSignature, Signer};

/// The most bytes of an answer that becomes a reply.
const REPLY_LIMIT: usize = 1024 * 1024;

/// Sends each event as a request to a server: a webhook, a function, an API.
///
/// Any 2xx is a delivery. 404, 408, 409, 429, every 5xx, and a server that is away are retried; 429 and 503 with `Retry-After`
/// no sooner than asked. Redirects are not followed. Any other status refuses the event, but for 401 and 403 where
/// credentials are set (`auth`, `signature` or a certificate in `tls`): then nothing is lost, the trigger pauses until they are
/// taken, and secrets are read again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpConfig {
    /// Where requests go.
    url: String,
    /// The method; `POST` where nothing is said.
    method: Option<String>,
    /// What is appended to the path of the URL, as in `orders/${$.order.id}`. Characters that a path cannot hold are encoded;
    /// `/` stays.
    path: Option<Template>,
    /// Headers of every request, by name. They win over those of the event.
    #[serde(default)]
    headers: BTreeMap<String, Template>,
    /// How the event is written; `binary` where nothing is said.
    #[serde(default)]
    format: HttpFormat,
    /// Who we are to the server.
    auth: Option<HttpAuth>,
    /// TLS to a URL that begins with `https`.
    tls: Option<HttpTls>,
    /// How requests are signed.
    signature: Option<HttpSignature>,
    /// Asks the server for permission, and for a rate, before the first event (the handshake of the CloudEvents
    /// specification for web hooks). With it, 410 ends the permission: the trigger pauses until it is granted again.
    handshake: Option<HttpHandshake>,
    /// What becomes of the answer; `none` where nothing is said.
    #[serde(default)]
    replies: HttpReplies,
    /// The type of events whose data describe the request: a JSON object with `query_string`, `path_suffix`, `headers` and
    /// `body` (any JSON), each of which may be missing. All other events are written as `format` says.
    request_events: Option<String>,
}

/// How an event is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum HttpFormat {
    /// The attributes as headers `ce-NAME`, the data as body.
    #[default]
    Binary,
    /// The whole event as JSON.
    Structured,
    /// The data as body, and of the attributes the content type alone.
    Data,
}

/// Who we are to the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum HttpAuth {
    /// A name and a password.
    Basic(BasicCredentials),
    /// A token that does not change by itself.
    Bearer(TokenCredentials),
    /// Tokens that are fetched.
    #[serde(rename = "oauth2")]
    OAuth2(Box<OAuth2Credentials>),
    /// Identity tokens of Google Cloud, as Cloud Run and Cloud Functions want them.
    GoogleIdentity(GoogleIdentityCredentials),
}

/// What becomes of the answer to a delivered event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum HttpReplies {
    /// Nothing: it is not looked at.
    #[default]
    None,
    /// CloudEvents in it go to the broker of the trigger; all else is not looked at.
    Events,
    /// Whatever it is, it goes to the broker of the trigger as an event.
    Answer(HttpAnswerEvent),
}

/// The event that is made of an answer. Its data and content type are those of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpAnswerEvent {
    /// Its type.
    #[serde(rename = "type")]
    event_type: String,
    /// Its source; the URL where nothing is said.
    source: Option<String>,
}

/// Headers that are ours to write.
const OWN_HEADERS: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "keep-alive"];

impl HttpConfig {
    fn method(&self) -> Result<Method, ()> {
        let method = self.method.as_deref().unwrap_or("POST");
        match Method::from_bytes(method.as_bytes()) {
            Ok(method) if method != Method::CONNECT => Ok(method),
            _ => Err(()),
        }
    }

    fn has_credentials(&self) -> bool {
        self.auth.is_some()
            || self.signature.is_some()
            || self.tls.as_ref().is_some_and(HttpTls::shows_certificate)
    }

    fn header_problem(&self, name: &str) -> Option<&'static str> {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            return Some("it is no name of a header");
        };
        if OWN_HEADERS.contains(&header.as_str()) {
            return Some("it is written by Waypost: leave it out");
        }
        if header == AUTHORIZATION && self.auth.is_some() {
            return Some("`auth` says it: leave one of them out");
        }
        None
    }
}

impl SinkConfig for HttpConfig {
    const TYPE: &'static str = "http";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.tls.as_ref().map(|tls| tls.problems("tls")).unwrap_or_default();
        if let Some(HttpAuth::OAuth2(oauth)) = &self.auth {
            problems.extend(oauth.problems("auth.oauth2"));
        }
        if let Some(signature) = &self.signature {
            problems.extend(signature.problems("signature"));
        }
        let mut problem = |path: String, message: String| problems.push(FieldProblem { path, message });
        if let Err(error) = Target::parse(&self.url, None) {
            problem("url".to_owned(), error.to_string());
        }
        if self.method().is_err() {
            problem("method".to_owned(), "it is no method: write `POST`, `PUT`, `PATCH` ...".to_owned());
        }
        for name in self.headers.keys() {
            if let Some(message) = self.header_problem(name) {
                problem(format!("headers.{name}"), message.to_owned());
            }
        }
        if let Some(handshake) = &self.handshake
            && handshake.origin.is_empty()
        {
            let message =
                "it is empty: write the name by which the server knows us, such as `events.example.com`";
            problem("handshake.origin".to_owned(), message.to_owned());
        }
        if let HttpReplies::Answer(answer) = &self.replies
            && (answer.event_type.is_empty() || answer.source.as_deref() == Some(""))
        {
            problem("replies.answer".to_owned(), "`type` and `source` of an event are not empty".to_owned());
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        let unusable = |detail: &str| Problem::new(ProblemKind::Settings, detail);
        let credentials = match &self.auth {
            None => Credentials::None,
            Some(HttpAuth::Basic(basic)) => Credentials::Fixed(basic.authorization(&context)?),
            Some(HttpAuth::Bearer(token)) => Credentials::Fixed(token.authorization("Bearer", &context)?),
            Some(HttpAuth::OAuth2(oauth)) => Credentials::OAuth2(Box::new(oauth.open(&context)?)),
            Some(HttpAuth::GoogleIdentity(google)) => {
                Credentials::GoogleIdentity(Box::new(google.open(&self.url, &context)?))
            }
        };
        let signer = self.signature.as_ref().map(|signature| signature.open(&context)).transpose()?;
        Ok(Arc::new(HttpSink {
            site: Site::new(HttpTls::target(self.tls.as_ref(), &self.url, &context)?),
            method: self.method().map_err(|()| unusable("`method` is no method"))?,
            handshake: self.handshake.clone().map(Handshake::new),
            credentials,
            signer,
            config: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct HttpSink {
    config: HttpConfig,
    method: Method,
    site: Site,
    credentials: Credentials,
    signer: Option<Signer>,
    handshake: Option<Handshake>,
}

#[derive(Debug)]
enum Credentials {
    None,
    Fixed(HeaderValue),
    OAuth2(Box<OAuth2>),
    GoogleIdentity(Box<GoogleIdentity>),
}

impl Credentials {
    /// The value of `Authorization`; not the one that was refused, where another can be had.
    async fn authorization(&self, spoiled: Option<&HeaderValue>) -> Result<Option<HeaderValue>, Problem> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::OAuth2(oauth) => oauth.authorization(spoiled).await.map(Some),
            Self::GoogleIdentity(google) => google.authorization(spoiled).await.map(Some),
        }
    }

    fn can_be_renewed(&self) -> bool {
        matches!(self, Self::OAuth2(_) | Self::GoogleIdentity(_))
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            outcomes.push(self.send(event).await.unwrap_or_else(Outcome::Failed));
        }
        outcomes
    }

    async fn check(&self) -> Result<(), DeliveryError> {
        let authorization = self.credentials.authorization(None).await?;
        match &self.handshake {
            Some(handshake) => Ok(handshake.granted(&self.site, authorization.as_ref()).await?),
            None => Ok(self.site.reach().await.map_err(|error| self.site.problem(&error))?),
        }
    }
}

impl HttpSink {
    async fn send(&self, event: &Event) -> Result<Outcome, DeliveryError> {
        let written = self.config.write(event, &self.site)?;
        let authorization = self.credentials.authorization(None).await?;
        if let Some(handshake) = &self.handshake {
            handshake.granted(&self.site, authorization.as_ref()).await?;
            handshake.turn().await;
        }
        let mut answer = self.call(&written, event, authorization.as_ref()).await?;
        if answer.status == StatusCode::UNAUTHORIZED && self.credentials.can_be_renewed() {
            // The token may have been taken back before its end.
            let renewed = self.credentials.authorization(authorization.as_ref()).await?;
            answer = self.call(&written, event, renewed.as_ref()).await?;
        }
        if answer.status.is_success() {
            return self.outcome(event, &answer);
        }
        if answer.status == StatusCode::GONE
            && let Some(handshake) = &self.handshake
        {
            handshake.revoke().await;
        }
        let problem = classify(answer.status, self.config.has_credentials(), self.handshake.is_some());
        let asks = matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let problem = Problem { retry_after: asks.then(|| answer.retry_after()).flatten(), ..problem };
        let kept = answer.body.len().min(BODY_EXCERPT_LIMIT);
        let excerpt = Bytes::copy_from_slice(&answer.body[..kept]);
        Err(DeliveryError {
            status: Some(answer.status.as_u16()),
            body_excerpt: (!excerpt.is_empty()).then_some(excerpt),
            ..problem.into()
        })
    }

    async fn call(
        &self,
        written: &Written,
        event: &Event,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answered, DeliveryError> {
        let mut headers = written.headers.clone();
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(signer) = &self.signer {
            signer.sign(&mut headers, event, &written.body, Timestamp::now());
        }
        let limit = match self.config.replies {
            HttpReplies::None => BODY_EXCERPT_LIMIT,
            HttpReplies::Events | HttpReplies::Answer(_) => REPLY_LIMIT,
        };
        let (uri, body) = (written.uri.clone(), written.body.clone());
        let called = self.site.call(self.method.clone(), uri, headers, body, limit).await;
        called.map_err(|error| self.site.problem(&error).into())
    }

    /// What a 2xx means: by then the server has the event.
    fn outcome(&self, event: &Event, answer: &Answered) -> Result<Outcome, DeliveryError> {
        let status = Some(answer.status.as_u16());
        let events = match &self.config.replies {
            HttpReplies::None => return Ok(Outcome::Delivered),
            HttpReplies::Events if !carries_event(&answer.headers) => return Ok(Outcome::Delivered),
            _ if answer.is_cut => {
                let detail =
                    format!("the server answered with more than {REPLY_LIMIT} bytes; reply with less");
                return Err(DeliveryError {
                    status,
                    ..DeliveryError::permanent(codes::REPLY_TOO_LARGE, detail)
                });
            }
            HttpReplies::Events => match decode(&answer.headers, &answer.body, &DecodeOptions::default()) {
                Ok(Decoded::Event(event)) => vec![event],
                Ok(Decoded::Batch(events)) => events,
                Err(error) => {
                    let detail = format!(
                        "the server answered with a CloudEvent that is not valid: {error}; mend the reply, or set \
                         `replies: none`"
                    );
                    return Err(DeliveryError {
                        status,
                        ..DeliveryError::retryable(codes::REPLY_MALFORMED, detail)
                    });
                }
            },
            HttpReplies::Answer(terms) => vec![self.answer_event(terms, event, answer)?],
        };
        Ok(if events.is_empty() { Outcome::Delivered } else { Outcome::Replied(events) })
    }

    fn answer_event(
        &self,
        terms: &HttpAnswerEvent,
        event: &Event,
        answer: &Answered,
    ) -> Result<Event, DeliveryError> {
        let source = terms.source.as_deref().unwrap_or(&self.config.url);
        // Of the event alone, so that the same answer to a repeated request is the same event.
        let mut reply = Event::builder(format!("{}-reply", event.id()), source, terms.event_type.clone());
        let content_type = answer.headers.get(http::header::CONTENT_TYPE);
        if let Some(content_type) = content_type.and_then(|value| value.to_str().ok()) {
            reply = reply.data_content_type(content_type);
        }
        if self.config.request_events.is_some() {
            // What tells a chain of requests apart goes along.
            for name in ["statefulid", "statestep"] {
                if let Some(value) = event.attribute(name) {
                    reply = reply.attribute(name, value.text);
                }
            }
        }
        if !answer.body.is_empty() {
            reply = reply.data(answer.body.clone());
        }
        reply.build().map_err(|error| {
            let detail = format!("the answer cannot be made an event: {error}; correct `replies.answer`");
            DeliveryError::permanent(codes::REPLY_MALFORMED, detail)
        })
    }
}

/// What a status other than 2xx means.
fn classify(status: StatusCode, has_credentials: bool, has_handshake: bool) -> Problem {
    let (kind, advice) = match status.as_u16() {
        401 | 403 if has_credentials => {
            (ProblemKind::Unauthorized, "; check the credentials, and what they may do")
        }
        401 | 403 => {
            (ProblemKind::Refused, "; it wants credentials: set `auth`, or does not take events from here")
        }
        410 if has_handshake => (
            ProblemKind::Absent,
            "; it wants no more events: nothing is sent until it grants the permission again",
        ),
        429 | 503 => (ProblemKind::Overloaded, ""),
        404 => (ProblemKind::Unavailable, "; check the path of the URL, and whether the service is deployed"),
        408 | 409 | 500.. => (ProblemKind::Unavailable, ""),
        300..=399 => (ProblemKind::Refused, "; redirects are not followed, so give the URL that it leads to"),
        _ => (ProblemKind::Refused, ""),
    };
    let name = status.canonical_reason().map(|name| format!(" {name}")).unwrap_or_default();
    Problem::new(kind, format!("the server answered {}{name}{advice}", status.as_u16()))
}

#[cfg(test)]
mod suite;
