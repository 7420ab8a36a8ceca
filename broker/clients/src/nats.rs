//! NATS, core and JetStream: connections, and what failures mean.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use async_nats;
use async_nats::jetstream::context::{
    GetStreamByNameErrorKind, GetStreamErrorKind, PublishErrorKind as StreamPublishErrorKind,
    RequestErrorKind,
};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{ClientError, ConnectErrorKind, ConnectOptions, Event, PublishErrorKind, ServerError};
use parking_lot::Mutex;
use rustls::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use waypost_core::manifest::{FieldProblem, ResourceName};
use waypost_core::secret::{SecretValue, Sensitive};
use waypost_core::sink::ComponentContext;

use crate::problem::{Problem, ProblemKind};
use crate::tls;

/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long NATS may take for an answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How long after an answer a refusal before it may be heard.
const HEARD_AFTER: Duration = Duration::from_millis(10);

/// A refusal that the server told beside its answers explains failures for this long.
const REFUSAL_LASTS: Duration = Duration::from_secs(15);

/// The most refusals that are kept.
const MOST_REFUSALS: usize = 16;

/// Who we are to NATS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum NatsAuth {
    /// A name and a password.
    User(NatsUser),
    /// A token.
    Token(SecretValue),
    /// The seed of a user's NKey (`SU...`): the server's nonce is signed with it.
    Nkey(SecretValue),
    /// The text of a credentials file (`.creds`): the user's JWT and the seed that signs for it.
    Credentials(SecretValue),
}

/// A name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsUser {
    /// The name.
    username: SecretValue,
    /// The password.
    password: SecretValue,
}

/// TLS to NATS. `{}` trusts the certificate authorities of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsTls {
    /// The certificate authorities to trust instead of those of the system, as PEM.
    ca: Option<SecretValue>,
    /// The certificate that we show, as PEM, with those that lead to its authority. Needs `key`.
    certificate: Option<SecretValue>,
    /// The key of the certificate, as PEM. Needs `certificate`.
    key: Option<SecretValue>,
}

/// How to reach a NATS: what the settings of a source or sink say.
#[derive(Debug, Clone, Copy)]
pub struct NatsConnection<'c> {
    /// The servers, as URLs.
    pub servers: &'c [String],
    /// Who we are, where it asks.
    pub auth: Option<&'c NatsAuth>,
    /// TLS, where it has it.
    pub tls: Option<&'c NatsTls>,
}

impl NatsConnection<'_> {
    /// What is wrong with the settings, whatever NATS says to them.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut problem =
            |path: &str, message: String| problems.push(FieldProblem { path: path.to_owned(), message });
        if self.servers.is_empty() {
            problem("servers", "there is none: name at least one server as `nats://HOST:PORT`".to_owned());
        }
        for (index, server) in self.servers.iter().enumerate() {
            let host = server.strip_prefix("nats://").or_else(|| server.strip_prefix("tls://"));
            let named = host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '/', ',', ' ']));
            if !named || server.parse::<async_nats::ServerAddr>().is_err() {
                let message = "it is no server: write it as `nats://HOST:PORT`, or `tls://HOST:PORT`, one per item and \
                               without a name or password";
                problem(&format!("servers[{index}]"), message.to_owned());
            }
        }
        if let Some(tls) = self.tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            problem("tls", "`certificate` and `key` go together: give both, or none".to_owned());
        }
        problems
    }

    /// The settings with their secrets. Waits for no server.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where a secret is not there or cannot be used.
    pub async fn access(&self, context: &ComponentContext) -> Result<NatsAccess, Problem> {
        let secret = |value: &SecretValue| {
            let resolved = value.resolve(&context.name.namespace, &context.secrets);
            resolved.map_err(|error| Problem::new(ProblemKind::Settings, error.to_string()))
        };
        let auth = match self.auth {
            None => Auth::None,
            Some(NatsAuth::User(user)) => Auth::User(secret(&user.username)?, secret(&user.password)?),
            Some(NatsAuth::Token(token)) => Auth::Token(secret(token)?),
            Some(NatsAuth::Nkey(seed)) => Auth::Nkey(secret(seed)?),
            Some(NatsAuth::Credentials(credentials)) => Auth::Credentials(secret(credentials)?),
        };
        let tls = match self.tls {
            None => None,
            Some(tls) => {
                let ca = tls.ca.as_ref().map(secret).transpose()?;
                let certificate = tls.certificate.as_ref().map(secret).transpose()?;
                let key = tls.key.as_ref().map(secret).transpose()?;
                let identity = certificate.as_ref().zip(key.as_ref()).map(|(certificate, key)| {
                    tls::Identity { certificate: certificate.expose(), key: key.expose() }
                });
                Some(tls::client_config(ca.as_ref().map(Sensitive::expose), identity).await?)
            }
        };
        let servers: Result<_, _> = self.servers.iter().map(|server| server.parse()).collect();
        let servers =
            servers.map_err(|error| Problem::new(ProblemKind::Settings, format!("NATS: {error}")))?;
        Ok(NatsAccess { name: context.name.clone(), servers, auth, tls })
    }
}

enum Auth {
    None,
    User(Sensitive, Sensitive),
    Token(Sensitive),
    Nkey(Sensitive),
    Credentials(Sensitive),
}

/// Everything that a connection needs, secrets included.
pub struct NatsAccess {
    name: ResourceName,
    servers: Vec<async_nats::ServerAddr>,
    auth: Auth,
    tls: Option<ClientConfig>,
}

impl fmt::Debug for NatsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsAccess").field("name", &self.name).finish_non_exhaustive()
    }
}

impl NatsAccess {
    /// Connects. The connection is taken up again by itself when it is lost.
    ///
    /// # Errors
    /// Why no server takes us.
    pub async fn connect(&self) -> Result<Nats, Problem> {
        let heard = Arc::new(Heard::default());
        let listener = Arc::clone(&heard);
        let mut options = ConnectOptions::new()
            .name(format!("waypost/{}", self.name))
            .connection_timeout(CONNECT_PATIENCE)
            .request_timeout(Some(ANSWER_PATIENCE))
            .event_callback(move |event| {
                listener.hear(&event);
                std::future::ready(())
            });
        if let Some(tls) = &self.tls {
            options = options.tls_client_config(tls.clone()).require_tls(true);
        }
        options = match &self.auth {
            Auth::None => options,
            Auth::User(name, password) => {
                options.user_and_password(name.expose().to_owned(), password.expose().to_owned())
            }
            Auth::Token(token) => options.token(token.expose().to_owned()),
            Auth::Nkey(seed) => options.nkey(seed.expose().trim().to_owned()),
            Auth::Credentials(text) => options.credentials(text.expose()).map_err(|_| {
                let detail = "the `credentials` cannot be read: give the text of a `.creds` file, with its JWT and its \
                              seed";
                Problem::new(ProblemKind::Settings, detail)
            })?,
        };
        let client = options.connect(self.servers.clone()).await.map_err(|error| classify(&error, None))?;
        Ok(Nats { client, heard })
    }
}

/// A connection to NATS.
#[derive(Clone)]
pub struct Nats {
    client: async_nats::Client,
    heard: Arc<Heard>,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("state", &self.client.connection_state()).finish_non_exhaustive()
    }
}

/// How a connection stands: why it does not, where it does not.
pub type Standing = Option<Problem>;

/// What the client told beside its answers.
#[derive(Default)]
struct Heard {
    standing: watch::Sender<Standing>,
    /// Rung at each refusal.
    refused: Notify,
    refusals: Mutex<Vec<(String, Instant)>>,
}

impl Heard {
    fn hear(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.standing.send_replace(None);
            }
            Event::Disconnected | Event::Closed => {
                self.standing.send_if_modified(|standing| {
                    let first = standing.is_none();
                    if first {
                        *standing = Some(Problem::new(ProblemKind::Unavailable, AWAY));
                    }
                    first
                });
            }
            Event::ServerError(ServerError::AuthorizationViolation) => {
                self.refused("authorization violation");
            }
            Event::ServerError(ServerError::Other(text)) if refuses(text) => self.refused(text),
            // What an attempt to connect again ended with.
            Event::ClientError(ClientError::Other(text)) if refuses(text) => self.refused(text),
            Event::SlowConsumer(_) => tracing::warn!(
                "NATS brings messages faster than the broker takes them, and some were lost: read them by JetStream"
            ),
            other => tracing::debug!(event = %other, "the NATS client says"),
        }
    }

    fn refused(&self, text: &str) {
        let mut refusals = self.refusals.lock();
        refusals.retain(|(_, at)| at.elapsed() < REFUSAL_LASTS);
        if refusals.len() == MOST_REFUSALS {
            refusals.remove(0);
        }
        refusals.push((text.to_owned(), Instant::now()));
        drop(refusals);
        self.refused.notify_one();
        // A refusal of one subject leaves the connection as it is.
        if !text.to_ascii_lowercase().contains("permissions violation") {
            self.standing.send_replace(Some(refusal(text)));
        }
    }

    /// The last refusal for which this holds.
    fn refusal(&self, holds: impl Fn(&str) -> bool) -> Option<String> {
        let refusals = self.refusals.lock();
        let of_now = refusals.iter().rev().filter(|(_, at)| at.elapsed() < REFUSAL_LASTS);
        of_now.map(|(text, _)| text).find(|text| holds(text)).cloned()
    }
}

const AWAY: &str = "NATS: the connection is lost; check `servers`, and that they run";

fn refuses(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["authorization", "authentication", "permissions violation", "tls error", "credentials", "user jwt"]
        .iter()
        .any(|word| text.contains(word))
}

fn refusal(text: &str) -> Problem {
    Problem::new(ProblemKind::Unauthorized, format!("NATS: {text}; check `auth`, and what the user may do"))
}

impl Nats {
    /// The client.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// How the connection stands, and each change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.heard.standing.subscribe()
    }

    /// What a failure means, in the light of what the server told beside.
    pub fn problem(&self, error: &(dyn StdError + 'static)) -> Problem {
        if let Some(problem) = self.heard.standing.borrow().clone() {
            return problem;
        }
        classify(error, self.heard.refusal(|_| true).as_deref())
    }

    /// Why the server refused to take something under this subject, or to let us listen to it, just now.
    pub fn refusal_of(&self, subject: &str) -> Option<Problem> {
        let quoted = format!("\"{subject}\"");
        self.heard.refusal(|text| text.contains(&quoted)).map(|text| refusal(&text))
    }

    /// Waits until the server refuses something, now or since the last call. Cancel-safe.
    pub async fn refused(&self) {
        self.heard.refused.notified().await;
    }

    /// Waits until the server has seen all that was published before on this connection, and has answered what it
    /// refuses of it.
    ///
    /// # Errors
    /// Why it does not answer.
    pub async fn round_trip(&self) -> Result<(), Problem> {
        let inbox = self.client.new_inbox();
        let asked = async {
            use futures_util::StreamExt as _;
            let mut answers =
                self.client.subscribe(inbox.clone()).await.map_err(|error| self.problem(&error))?;
            self.client.publish(inbox, "".into()).await.map_err(|error| self.problem(&error))?;
            answers.next().await.ok_or_else(|| Problem::new(ProblemKind::Unavailable, AWAY))
        };
        match tokio::time::timeout(ANSWER_PATIENCE, asked).await {
            Ok(answered) => {
                answered?;
                // Refusals that came before the answer are told by another task of the client.
                tokio::time::sleep(HEARD_AFTER).await;
                Ok(())
            }
            Err(elapsed) => Err(self.problem(&elapsed)),
        }
    }
}

/// What a failure means. `refusal` is what the server refused last: who is refused gets no answer.
fn classify(error: &(dyn StdError + 'static), refusal_before: Option<&str>) -> Problem {
    let kind = kind_of(error);
    match refusal_before {
        Some(text) if kind == ProblemKind::Unavailable => refusal(text),
        _ => Problem::new(kind, format!("NATS: {error}{}", advice(kind))),
    }
}

fn advice(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Unauthorized => "; check `auth` and `tls`, and what the user may do",
        ProblemKind::Absent => "; create the stream, or correct its name",
        ProblemKind::Unavailable => "; check `servers`, and that they run",
        ProblemKind::Settings | ProblemKind::Refused | ProblemKind::Overloaded => "",
    }
}

/// Looks for a kind that says something, from the failure itself to its last reason.
fn kind_of(error: &(dyn StdError + 'static)) -> ProblemKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(kind) = known_kind(error) {
            return kind;
        }
        next = error.source();
    }
    ProblemKind::Unavailable
}

fn known_kind(error: &(dyn StdError + 'static)) -> Option<ProblemKind> {
    if let Some(error) = error.downcast_ref::<async_nats::ConnectError>() {
        return Some(match error.kind() {
            ConnectErrorKind::Authentication
            | ConnectErrorKind::AuthorizationViolation
            | ConnectErrorKind::Tls => ProblemKind::Unauthorized,
            // Reasons that the server gives in words come as an error of the connection.
            ConnectErrorKind::Io if refuses(&error.to_string()) || mistrusts(error) => {
                ProblemKind::Unauthorized
            }
            ConnectErrorKind::ServerParse => ProblemKind::Settings,
            _ => ProblemKind::Unavailable,
        });
    }
    if let Some(error) = error.downcast_ref::<jetstream::Error>() {
        return Some(kind_of_answer(error));
    }
    if let Some(error) = error.downcast_ref::<async_nats::PublishError>() {
        return match error.kind() {
            PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
                Some(ProblemKind::Refused)
            }
            PublishErrorKind::Send => None,
        };
    }
    if let Some(error) = error.downcast_ref::<jetstream::context::PublishError>() {
        return match error.kind() {
            StreamPublishErrorKind::StreamNotFound => Some(ProblemKind::Absent),
            StreamPublishErrorKind::MaxPayloadExceeded => Some(ProblemKind::Refused),
            StreamPublishErrorKind::MaxAckPending => Some(ProblemKind::Overloaded),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<jetstream::context::GetStreamError>() {
        return match error.kind() {
            GetStreamErrorKind::JetStream(answer) => Some(kind_of_answer(&answer)),
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                Some(ProblemKind::Settings)
            }
            GetStreamErrorKind::Request => None,
        };
    }
    if let Some(error) = error.downcast_ref::<jetstream::context::GetStreamByNameError>() {
        return match error.kind() {
            GetStreamByNameErrorKind::JetStream(answer) => Some(kind_of_answer(&answer)),
            GetStreamByNameErrorKind::NotFound => Some(ProblemKind::Absent),
            GetStreamByNameErrorKind::InvalidSubject => Some(ProblemKind::Settings),
            GetStreamByNameErrorKind::Request => None,
        };
    }
    if let Some(error) = error.downcast_ref::<jetstream::stream::ConsumerError>() {
        return match error.kind() {
            ConsumerErrorKind::JetStream(answer) => Some(kind_of_answer(&answer)),
            ConsumerErrorKind::InvalidConsumerType | ConsumerErrorKind::InvalidName => {
                Some(ProblemKind::Settings)
            }
            ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request | ConsumerErrorKind::Other => None,
        };
    }
    let request = error.downcast_ref::<jetstream::context::RequestError>()?;
    // Nobody listens where JetStream would: it is off, or not for this account.
    (request.kind() == RequestErrorKind::NoResponders).then_some(ProblemKind::Absent)
}

/// Whether the handshake failed because we do not trust the server, or it not us.
fn mistrusts(error: &(dyn StdError + 'static)) -> bool {
    let mut next = error.source();
    while let Some(reason) = next {
        let rustls = reason.downcast_ref::<rustls::Error>().is_some()
            || reason
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .is_some_and(|inner| inner.is::<rustls::Error>());
        if rustls {
            return true;
        }
        next = reason.source();
    }
    false
}

fn kind_of_answer(answer: &jetstream::Error) -> ProblemKind {
    match answer.error_code() {
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::CONSUMER_NOT_FOUND
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => ProblemKind::Absent,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => ProblemKind::Refused,
        _ if answer.code() == 404 => ProblemKind::Absent,
        _ if answer.code() == 403 => ProblemKind::Unauthorized,
        _ if answer.code() == 429 => ProblemKind::Overloaded,
        _ if (400..500).contains(&answer.code()) => ProblemKind::Settings,
        // A stream that is full, a cluster without a leader.
        _ => ProblemKind::Unavailable,
    }
}

#[cfg(test)]
mod suite;
