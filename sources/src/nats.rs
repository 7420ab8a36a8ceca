//! `nats`: reads a stream of JetStream by a durable consumer, or listens to subjects.

use std::fmt;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use waypost_clients::nats::{NatsAccess, NatsAuth, NatsConnection, NatsTls};
use waypost_core::manifest::{FieldProblem, ResourceName};
use waypost_core::sink::ComponentContext;
use waypost_core::source::{Emitter, Source, SourceConfig, SourceError};

mod core;
mod jet_stream;
mod message;

/// The most bytes of events in one commit, beyond its last event.
const MOST_BYTES: usize = 1024 * 1024;

/// The most commits under way.
const MOST_COMMITS: usize = 8;

/// Reads a stream of JetStream by a durable consumer, or listens to subjects of core NATS.
///
/// With `jetStream` a message is acknowledged only after its event is in the broker's log; while that takes long, the
/// server is told that work goes on. Without it, messages are what core NATS makes of them: those that come while the
/// source is away, or faster than the broker takes them, are lost.
///
/// Messages that carry a CloudEvent become that event: in binary or structured mode of the NATS binding, as sdk-go writes
/// them, or as JSON with a `specversion` in a message without headers. Any other message becomes an event of the type
/// `eventType` with the payload as data, the attributes `natssubject` and `natsheaderNAME` for each header, and the
/// header `Content-Type` as `datacontenttype`. Its id is `STREAM/SEQUENCE`, with the attributes `natsstream` and
/// `natssequence` and the time at which the stream got it; without a stream it is the header `Nats-Msg-Id`, or made up. So
/// does a message that claims to be a CloudEvent and is none, with the code of its fault as `natsfault`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsConfig {
    /// The servers to connect to, each as `nats://HOST:PORT` or `tls://HOST:PORT`. Others of their cluster are found.
    servers: Vec<String>,
    /// Who we are to NATS.
    auth: Option<NatsAuth>,
    /// TLS to NATS; `{}` trusts the certificate authorities of the system.
    tls: Option<NatsTls>,
    /// The subjects, with `*` for one part and `>` for all that follow. With `jetStream` they choose among the messages
    /// of the stream, all where none is given.
    #[serde(default)]
    subjects: Vec<String>,
    /// Shares the messages among all that listen in the group of this name. Not with `jetStream`, where those that have
    /// one consumer share.
    queue_group: Option<String>,
    /// Which stream to read.
    jet_stream: Option<NatsStream>,
    /// The `type` of events that are made of plain messages.
    #[serde(default = "default_event_type")]
    event_type: String,
    /// The `source` of events that are made of plain messages, a URI-reference;
    /// `/apis/waypost.dev/v1alpha1/namespaces/NAMESPACE/sources/NAME` where none is given.
    event_source: Option<String>,
}

/// Which stream of JetStream to read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NatsStream {
    /// The stream. It is never created by Waypost.
    stream: String,
    /// The durable consumer, which keeps our place in the stream; `waypost-NAMESPACE-NAME` where none is given. It is
    /// created where it is not there. One that is there must be a pull consumer with explicit acknowledgement; where
    /// `subjects` are given, it gets them as its filter.
    consumer: Option<String>,
    /// Where a consumer that is created begins; `all` unless said otherwise.
    #[serde(default)]
    deliver: NatsDeliver,
}

/// Where a consumer that is created begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum NatsDeliver {
    /// With the oldest message of the stream.
    #[default]
    All,
    /// With what comes after the source has started for the first time.
    New,
}

fn default_event_type() -> String {
    "dev.waypost.nats.message".to_owned()
}

/// Whether a subject can be listened to.
fn is_subject(subject: &str) -> bool {
    let parts: Vec<_> = subject.split('.').collect();
    parts.iter().enumerate().all(|(index, part)| {
        !part.is_empty()
            && !part.contains(|letter: char| letter.is_whitespace() || letter.is_control())
            && (!part.contains(['*', '>']) || *part == "*" || (*part == ">" && index + 1 == parts.len()))
    })
}

/// Whether JetStream takes this as the name of a stream or a consumer.
fn is_name(name: &str) -> bool {
    let wrong = |letter: char| {
        letter.is_whitespace() || letter.is_control() || matches!(letter, '.' | '*' | '>' | '/' | '\\')
    };
    !name.is_empty() && name.len() <= 255 && !name.contains(wrong)
}

impl NatsConfig {
    fn connection(&self) -> NatsConnection<'_> {
        NatsConnection { servers: &self.servers, auth: self.auth.as_ref(), tls: self.tls.as_ref() }
    }
}

impl SourceConfig for NatsConfig {
    const TYPE: &'static str = "nats";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        let mut problem =
            |path: String, message: &str| problems.push(FieldProblem { path, message: message.to_owned() });
        for (index, subject) in self.subjects.iter().enumerate() {
            if !is_subject(subject) {
                problem(
                    format!("subjects[{index}]"),
                    "it is no subject: write parts with dots between them, `*` for one part, `>` for the last ones",
                );
            }
        }
        let name =
            "a name holds no blanks and none of `.`, `*`, `>`, `/` and `\\`, and has at most 255 bytes";
        match &self.jet_stream {
            None if self.subjects.is_empty() => {
                problem(
                    "subjects".to_owned(),
                    "there is none: name a subject, or a stream under `jetStream`",
                );
            }
            None => {}
            Some(stream) => {
                if !is_name(&stream.stream) {
                    problem("jetStream.stream".to_owned(), name);
                }
                if stream.consumer.as_deref().is_some_and(|consumer| !is_name(consumer)) {
                    problem("jetStream.consumer".to_owned(), name);
                }
                if self.queue_group.is_some() {
                    problem(
                        "queueGroup".to_owned(),
                        "it goes without `jetStream`: sources that name the same consumer share its messages",
                    );
                }
            }
        }
        for (field, given) in [
            ("eventType", Some(&self.event_type)),
            ("eventSource", self.event_source.as_ref()),
            ("queueGroup", self.queue_group.as_ref()),
        ] {
            if given.is_some_and(String::is_empty) {
                problem(field.to_owned(), "it is empty: write it, or remove the field");
            }
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Box<dyn Source>, SourceError> {
        let access = self.connection().access(&context).await?;
        Ok(Box::new(Nats { config: self.clone(), name: context.name, access }))
    }
}

struct Nats {
    config: NatsConfig,
    name: ResourceName,
    access: NatsAccess,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for Nats {
    async fn check(&self) -> Result<(), SourceError> {
        let connection = self.access.connect().await?;
        match &self.config.jet_stream {
            Some(stream) => Box::pin(jet_stream::check(self, stream, &connection)).await?,
            None => core::check(self, &connection).await?,
        }
        Ok(())
    }

    async fn run(self: Box<Self>, emitter: Emitter, shutdown: CancellationToken) -> Result<(), SourceError> {
        let Some(connected) = shutdown.run_until_cancelled(self.access.connect()).await else {
            return Ok(());
        };
        let connection = connected?;
        match &self.config.jet_stream {
            Some(stream) => Box::pin(jet_stream::run(&self, stream, &connection, &emitter, &shutdown)).await,
            None => core::run(&self, &connection, &emitter, &shutdown).await,
        }
    }
}

#[cfg(test)]
mod suite;
