//! `nats`: writes events to streams of JetStream, or publishes them by core NATS.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use waypost_clients::nats::async_nats::jetstream::context::{
    PublishAckFuture, PublishError, PublishErrorKind,
};
use waypost_clients::nats::async_nats::jetstream::message::PublishMessage;
use waypost_clients::nats::async_nats::{HeaderMap, HeaderName, HeaderValue, jetstream};
use waypost_clients::nats::{Nats as Connection, NatsAccess, NatsAuth, NatsConnection, NatsTls};
use waypost_clients::{Problem, ProblemKind};
use waypost_core::event::http::fits_binary;
use waypost_core::event::nats::{CONTENT_TYPE, STRUCTURED_JSON, binary_headers};
use waypost_core::event::{header_text, json};
use waypost_core::manifest::FieldProblem;
use waypost_core::sink::{BatchUnity, Batching, ComponentContext, Outcome, Sink, SinkConfig};
use waypost_core::template::Template;
use waypost_core::{DeliveryError, Event, codes};

/// How long a stream may take to acknowledge a message.
const ACK_PATIENCE: Duration = Duration::from_secs(10);

/// The header by which a stream recognises what it has already.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Writes each event as one message to a stream of JetStream, or publishes it by core NATS.
///
/// With JetStream an event counts as delivered when its stream has acknowledged it; the header `Nats-Msg-Id` is made of
/// `source` and `id`, so that the stream drops what comes twice within its duplicate window. By core NATS it counts as
/// delivered when the server has it, whoever listens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsConfig {
    /// The servers to connect to, each as `nats://HOST:PORT` or `tls://HOST:PORT`. Others of their cluster are found.
    servers: Vec<String>,
    /// Who we are to NATS.
    auth: Option<NatsAuth>,
    /// TLS to NATS; `{}` trusts the certificate authorities of the system.
    tls: Option<NatsTls>,
    /// The subject, or how it is made of the event, as in `orders.${type}`. Where no stream takes a subject that was made
    /// of an event, that event is a dead letter. A stream is never created by Waypost.
    subject: Template,
    /// Who takes the messages; `jetStream` unless said otherwise.
    #[serde(default)]
    delivery: NatsDelivery,
    /// How the event is written; `binary` unless said otherwise.
    #[serde(default)]
    format: NatsFormat,
}

/// Who takes the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum NatsDelivery {
    /// The stream that the subject belongs to, which acknowledges each message.
    #[default]
    JetStream,
    /// Whoever listens at the moment.
    Core,
}

/// How an event is written into a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum NatsFormat {
    /// The attributes as headers `ce-NAME`, the data as payload.
    #[default]
    Binary,
    /// The whole event as JSON.
    Structured,
    /// The data as payload, and of the attributes the content type alone.
    Data,
}

impl NatsConfig {
    fn connection(&self) -> NatsConnection<'_> {
        NatsConnection { servers: &self.servers, auth: self.auth.as_ref(), tls: self.tls.as_ref() }
    }
}

/// Whether messages can be published under a subject: one without wildcards.
fn is_subject(subject: &str) -> bool {
    let wrong = |letter: char| letter.is_whitespace() || letter.is_control() || matches!(letter, '*' | '>');
    subject.split('.').all(|part| !part.is_empty() && !part.contains(wrong))
}

const SUBJECT_HELP: &str = "parts with dots between them, without blanks, `*` and `>`";

impl SinkConfig for NatsConfig {
    const TYPE: &'static str = "nats";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        if self.subject.is_constant() && !is_subject(self.subject.text()) {
            let message = format!("it is no subject: write {SUBJECT_HELP}");
            problems.push(FieldProblem { path: "subject".to_owned(), message });
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        let access = self.connection().access(&context).await?;
        Ok(Arc::new(Nats { config: self.clone(), access, link: Mutex::new(None) }))
    }
}

struct Nats {
    config: NatsConfig,
    access: NatsAccess,
    /// Made by the first call that needs it, and kept.
    link: Mutex<Option<Link>>,
}

/// A connection and its use.
#[derive(Clone)]
struct Link {
    connection: Connection,
    streams: jetstream::Context,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("access", &self.access).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for Nats {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let link = match self.link().await {
            Ok(link) => link,
            Err(problem) => {
                let error = DeliveryError::from(problem);
                return events.iter().map(|_| Outcome::Failed(error.clone())).collect();
            }
        };
        let delivered = match self.config.delivery {
            NatsDelivery::JetStream => self.deliver_to_streams(&link, events).await,
            NatsDelivery::Core => self.publish(&link, events).await,
        };
        let outcomes = delivered.into_iter();
        outcomes.map(|result| result.map_or_else(Outcome::Failed, |()| Outcome::Delivered)).collect()
    }

    async fn check(&self) -> Result<(), DeliveryError> {
        let link = self.link().await?;
        let subject = self.config.subject.text();
        match self.config.delivery {
            NatsDelivery::JetStream if self.config.subject.is_constant() => {
                self.find_stream(&link, subject).await?;
            }
            NatsDelivery::JetStream | NatsDelivery::Core => link.connection.round_trip().await?,
        }
        Ok(())
    }

    fn batching(&self) -> Batching {
        Batching {
            max_events: 500,
            max_bytes: 1024 * 1024,
            linger: Duration::from_millis(5),
            unity: BatchUnity::Independent,
        }
    }
}

/// An event as a message.
#[derive(Debug)]
struct Written {
    subject: String,
    payload: Vec<u8>,
    headers: HeaderMap,
}

impl Nats {
    /// The connection, made where there is none yet.
    ///
    /// # Errors
    /// Why it does not stand. It is taken up again by itself.
    async fn link(&self) -> Result<Link, Problem> {
        let mut link = self.link.lock().await;
        let link = match &*link {
            Some(link) => link.clone(),
            None => {
                let connection = self.access.connect().await?;
                let mut streams = jetstream::new(connection.client().clone());
                streams.set_timeout(ACK_PATIENCE);
                link.insert(Link { connection, streams }).clone()
            }
        };
        // What is published now would wait for the connection, and might be sent when nobody waits for it any more.
        match link.connection.standing().borrow().clone() {
            Some(problem) => Err(problem),
            None => Ok(link),
        }
    }

    async fn deliver_to_streams(&self, link: &Link, events: &[Event]) -> Vec<Result<(), DeliveryError>> {
        // All are sent before the first is waited for.
        let mut sent = Vec::with_capacity(events.len());
        for event in events {
            sent.push(match self.config.write(event) {
                Ok(written) => {
                    let subject = written.subject.clone();
                    let message =
                        PublishMessage::build().payload(written.payload.into()).headers(written.headers);
                    (
                        subject.clone(),
                        link.streams.send_publish(subject, message).await.map_err(Failure::Nats),
                    )
                }
                Err(error) => (String::new(), Err(Failure::OfEvent(error))),
            });
        }
        let mut results = Vec::with_capacity(sent.len());
        for (subject, sent) in sent {
            results.push(match acknowledged(sent).await {
                Ok(()) => Ok(()),
                Err(Failure::OfEvent(error)) => Err(error),
                Err(Failure::Nats(error)) => Err(self.failed(link, &subject, &error).await),
            });
        }
        results
    }

    /// Why a stream did not take a message.
    async fn failed(&self, link: &Link, subject: &str, error: &PublishError) -> DeliveryError {
        let problem = if let Some(refused) = link.connection.refusal_of(subject) {
            refused
        } else if error.kind() == PublishErrorKind::StreamNotFound {
            // Nobody answers for a stream without a leader either.
            match self.find_stream(link, subject).await {
                Ok(()) => {
                    let detail = format!(
                        "NATS: the stream of `{subject}` does not answer; check that its servers run"
                    );
                    Problem::new(ProblemKind::Unavailable, detail)
                }
                Err(problem) => problem,
            }
        } else {
            link.connection.problem(error)
        };
        self.of_subject(problem).into()
    }

    /// A failure that has to do with the subject, which may be made of the event: then it concerns that event alone.
    fn of_subject(&self, problem: Problem) -> Problem {
        if self.config.subject.is_constant() { problem } else { problem.of_this_event() }
    }

    /// Asks which stream takes a subject, which changes nothing.
    async fn find_stream(&self, link: &Link, subject: &str) -> Result<(), Problem> {
        let found = link.streams.stream_by_subject(subject).await;
        found.map(drop).map_err(|error| {
            let problem = link.connection.problem(&error);
            match problem.kind {
                ProblemKind::Absent => {
                    let detail = format!(
                        "no stream of NATS takes `{subject}`; create the stream, or correct the subject"
                    );
                    Problem { detail, ..problem }
                }
                _ => problem,
            }
        })
    }

    /// Publishes by core NATS, and waits until the server has seen it.
    async fn publish(&self, link: &Link, events: &[Event]) -> Vec<Result<(), DeliveryError>> {
        let mut published = Vec::with_capacity(events.len());
        for event in events {
            published.push(match self.config.write(event) {
                Ok(Written { subject, payload, headers }) => {
                    let client = link.connection.client();
                    let sent = client.publish_with_headers(subject.clone(), headers, payload.into()).await;
                    let sent = sent.map(|()| subject);
                    sent.map_err(|error| self.of_subject(link.connection.problem(&error)).into())
                }
                Err(error) => Err(error),
            });
        }
        let seen = link.connection.round_trip().await;
        let outcome = |subject: String| match (link.connection.refusal_of(&subject), &seen) {
            // Rights to a subject that was made of the event are a matter of this event alone.
            (Some(refused), _) if !self.config.subject.is_constant() => {
                Err(Problem { kind: ProblemKind::Refused, ..refused }.into())
            }
            (Some(refused), _) => Err(refused.into()),
            (None, Err(problem)) => Err(problem.clone().into()),
            (None, Ok(())) => Ok(()),
        };
        published.into_iter().map(|published| published.and_then(outcome)).collect()
    }
}

/// Why a message is not in its stream.
enum Failure {
    OfEvent(DeliveryError),
    Nats(PublishError),
}

async fn acknowledged(sent: Result<PublishAckFuture, Failure>) -> Result<(), Failure> {
    sent?.await.map(drop).map_err(Failure::Nats)
}

impl NatsConfig {
    fn write(&self, event: &Event) -> Result<Written, DeliveryError> {
        let subject = self.subject.render(event);
        let subject = subject
            .map_err(|error| DeliveryError::permanent(codes::TEMPLATE_NOT_RENDERED, error.to_string()))?;
        if !is_subject(&subject) {
            let detail =
                format!("the event makes `{subject}`, which is no subject of NATS: it needs {SUBJECT_HELP}");
            return Err(DeliveryError::permanent(codes::SINK_REFUSED, detail));
        }
        let mut headers = HeaderMap::new();
        let mut put = |name: &str, value: &str| {
            let pair = (name.parse::<HeaderName>(), value.parse::<HeaderValue>());
            if let (Ok(name), Ok(value)) = pair {
                headers.insert(name, value);
            }
        };
        if self.delivery == NatsDelivery::JetStream {
            put(MESSAGE_ID, &message_id(event));
        }
        let data = event.data_bytes().map(<[u8]>::to_vec).unwrap_or_default();
        let payload = match self.format {
            NatsFormat::Binary if fits_binary(event) => {
                for (name, value) in binary_headers(event) {
                    put(&name, &value);
                }
                data
            }
            NatsFormat::Binary | NatsFormat::Structured => {
                put(CONTENT_TYPE, STRUCTURED_JSON);
                json::encode(event).to_vec()
            }
            NatsFormat::Data => {
                if let Some(content_type) = event.data_content_type() {
                    put(CONTENT_TYPE, content_type);
                }
                data
            }
        };
        Ok(Written { subject, payload, headers })
    }
}

/// The same for the same event, and for no other: neither part holds a blank once it is encoded.
fn message_id(event: &Event) -> String {
    format!("{} {}", header_text::encode(event.source()), header_text::encode(event.id()))
}

#[cfg(test)]
mod suite;
