//! Kafka, and what speaks its protocol (Azure Event Hubs, Redpanda): connections, and what failures mean.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
pub use rdkafka;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, Producer as _};
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::manifest::{FieldProblem, ResourceName};
use waypost_core::secret::SecretValue;
use waypost_core::sink::ComponentContext;

use crate::problem::{Problem, ProblemKind};

/// How long a probe waits for an answer of the brokers.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a probe waits before it looks whether the brokers refused us meanwhile.
const PROBE_LOOK: Duration = Duration::from_millis(500);

/// A trouble that the client told of explains failures for this long.
const TROUBLE_LASTS: Duration = Duration::from_secs(60);

/// Who we are to Kafka (SASL).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSasl {
    /// How the password is proved.
    mechanism: Option<KafkaSaslMechanism>,
    /// Where the name of the mechanism stands, instead of `mechanism`: Knative keeps it in a Secret.
    mechanism_from: Option<SecretValue>,
    /// The name; `$ConnectionString` for Azure Event Hubs.
    username: SecretValue,
    /// The password; the connection string for Azure Event Hubs.
    password: SecretValue,
}

/// How the password is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum KafkaSaslMechanism {
    /// The password itself is sent: only with `tls`.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl KafkaSaslMechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    fn of_name(name: &str) -> Result<Self, Problem> {
        let all = [Self::Plain, Self::ScramSha256, Self::ScramSha512];
        all.into_iter().find(|mechanism| mechanism.name() == name.trim()).ok_or_else(|| {
            let names = all.map(Self::name).join(", ");
            let detail = format!("the mechanism that the secret names is not one of {names}");
            Problem::new(ProblemKind::Settings, detail)
        })
    }
}

/// A Secret in the form that Knative's KafkaSink and Broker take: `protocol` (`PLAINTEXT`, `SASL_PLAINTEXT`, `SSL`,
/// `SASL_SSL`), `sasl.mechanism`, `user`, `password`, `ca.crt`, `user.crt` and `user.key`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSecretReference {
    /// The name of the Secret, in the namespace of the resource.
    name: String,
}

/// TLS to Kafka. `{}` trusts the certificate authorities of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaTls {
    /// The certificate authorities to trust instead of those of the system, as PEM.
    ca: Option<SecretValue>,
    /// The certificate that we show, as PEM, with those that lead to its authority. Needs `key`.
    certificate: Option<SecretValue>,
    /// The key of the certificate, as PEM. Needs `certificate`.
    key: Option<SecretValue>,
}

/// How to reach a Kafka: what the settings of a source or sink say.
#[derive(Debug, Clone, Copy)]
pub struct KafkaConnection<'c> {
    /// The brokers to ask first.
    pub bootstrap_servers: &'c [String],
    /// Who we are, where it asks.
    pub sasl: Option<&'c KafkaSasl>,
    /// TLS, where it has it.
    pub tls: Option<&'c KafkaTls>,
    /// A Secret that says all of that, instead.
    pub secret_ref: Option<&'c KafkaSecretReference>,
}

impl KafkaConnection<'_> {
    /// What is wrong with the settings, whatever Kafka says to them.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut problem =
            |path: &str, message: String| problems.push(FieldProblem { path: path.to_owned(), message });
        if self.bootstrap_servers.is_empty() {
            problem("bootstrapServers", "there is none: name at least one broker as `HOST:PORT`".to_owned());
        }
        for (index, server) in self.bootstrap_servers.iter().enumerate() {
            let port = server.rsplit_once(':').map(|(host, port)| (!host.is_empty(), port.parse::<u16>()));
            if !matches!(port, Some((true, Ok(1..)))) || server.contains([',', '/', ' ']) {
                let message = format!("`{server}` is no broker: write it as `HOST:PORT`, one per item");
                problem(&format!("bootstrapServers[{index}]"), message);
            }
        }
        if let Some(tls) = self.tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            problem("tls", "`certificate` and `key` go together: give both, or none".to_owned());
        }
        if let Some(sasl) = self.sasl
            && sasl.mechanism.is_some() == sasl.mechanism_from.is_some()
        {
            problem("sasl.mechanism", "give either `mechanism` or `mechanismFrom`".to_owned());
        }
        if self.secret_ref.is_some() && (self.sasl.is_some() || self.tls.is_some()) {
            problem(
                "secretRef",
                "the Secret says who we are and how: remove `sasl` and `tls`, or this".to_owned(),
            );
        }
        problems
    }

    /// The configuration of a client, with all secrets in it: not for a log.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where a secret is not there.
    pub fn client_config(&self, context: &ComponentContext) -> Result<ClientConfig, Problem> {
        let secret = |value: &SecretValue| {
            let resolved = value.resolve(&context.name.namespace, &context.secrets);
            resolved.map_err(|error| Problem::new(ProblemKind::Settings, error.to_string()))
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.bootstrap_servers.join(","))
            .set("client.id", format!("waypost/{}", context.name))
            .set("security.protocol", self.protocol())
            .set("socket.keepalive.enable", "true")
            .set("socket.connection.setup.timeout.ms", "10000")
            // An idle connection that the brokers cut is no failure.
            .set("log.connection.close", "false")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "5000")
            .set("topic.metadata.refresh.interval.ms", "30000");
        if let Some(sasl) = self.sasl {
            let mechanism = match (sasl.mechanism, &sasl.mechanism_from) {
                (Some(mechanism), _) => mechanism,
                (None, Some(from)) => KafkaSaslMechanism::of_name(secret(from)?.expose())?,
                (None, None) => KafkaSaslMechanism::Plain,
            };
            config
                .set("sasl.mechanism", mechanism.name())
                .set("sasl.username", secret(&sasl.username)?.expose())
                .set("sasl.password", secret(&sasl.password)?.expose());
        }
        if let Some(tls) = self.tls {
            match &tls.ca {
                Some(ca) => config.set("ssl.ca.pem", secret(ca)?.expose()),
                None => config.set("ssl.ca.location", "probe"),
            };
            if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
                config
                    .set("ssl.certificate.pem", secret(certificate)?.expose())
                    .set("ssl.key.pem", secret(key)?.expose());
            }
        }
        if let Some(reference) = self.secret_ref {
            set_by_secret(&mut config, reference, context)?;
        }
        Ok(config)
    }

    fn protocol(&self) -> &'static str {
        match (self.sasl, self.tls) {
            (None, None) => "plaintext",
            (None, Some(_)) => "ssl",
            (Some(_), None) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }
}

/// Sets what a Secret in Knative's form says.
fn set_by_secret(
    config: &mut ClientConfig,
    reference: &KafkaSecretReference,
    context: &ComponentContext,
) -> Result<(), Problem> {
    let settings = |detail: String| Problem::new(ProblemKind::Settings, detail);
    let (namespace, name) = (&context.name.namespace, &reference.name);
    let Some(keys) = context.secrets.secret_values(&ResourceName::new(namespace, name)) else {
        return Err(settings(format!(
            "no Secret {namespace}/{name} is declared: declare it, or correct the name"
        )));
    };
    let text = |key: &str| keys.get(key).and_then(|value| std::str::from_utf8(value).ok());
    let needed =
        |key: &str| text(key).ok_or_else(|| settings(format!("Secret {namespace}/{name} has no `{key}`")));
    let protocol = needed("protocol")?.trim();
    let (sasl, tls) = match protocol {
        "PLAINTEXT" => (false, false),
        "SASL_PLAINTEXT" => (true, false),
        "SSL" => (false, true),
        "SASL_SSL" => (true, true),
        _ => {
            return Err(settings(format!(
                "the `protocol` in Secret {namespace}/{name} is none of PLAINTEXT, SASL_PLAINTEXT, SSL and SASL_SSL"
            )));
        }
    };
    config.set("security.protocol", protocol.to_lowercase());
    if sasl {
        let mechanism = KafkaSaslMechanism::of_name(needed("sasl.mechanism")?)?;
        config
            .set("sasl.mechanism", mechanism.name())
            .set("sasl.username", needed("user")?)
            .set("sasl.password", needed("password")?);
    }
    if tls {
        match text("ca.crt") {
            Some(ca) => config.set("ssl.ca.pem", ca),
            None => config.set("ssl.ca.location", "probe"),
        };
        if text("user.crt").is_some() {
            config.set("ssl.certificate.pem", needed("user.crt")?).set("ssl.key.pem", needed("user.key")?);
        }
    }
    Ok(())
}

/// Listens to what a client tells beside its results: the reason of a failure often comes only this way.
#[derive(Clone)]
pub struct KafkaContext(Arc<Heard>);

struct Heard {
    name: ResourceName,
    trouble: Mutex<Option<Trouble>>,
}

/// Why the brokers do not serve us, as the client told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    code: RDKafkaErrorCode,
    reason: String,
    at: Instant,
}

impl KafkaContext {
    /// A context for the client of this resource.
    pub fn new(name: ResourceName) -> Self {
        Self(Arc::new(Heard { name, trouble: Mutex::default() }))
    }

    /// What a failure means, in the light of what the client told before.
    pub fn problem(&self, error: &KafkaError) -> Problem {
        let trouble = self.trouble();
        classify(error, trouble.as_ref().map(|trouble| (trouble.code, trouble.reason.as_str())))
    }

    /// What a failure means where values of the event named the topic: what is wrong with that topic, rights to it
    /// included, is a matter of this event alone.
    pub fn problem_of_event(&self, error: &KafkaError) -> Problem {
        let problem = self.problem(error).of_this_event();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Problem { kind: ProblemKind::Refused, ..problem }
            }
            _ => problem,
        }
    }

    /// Something worked: what was wrong is not any more.
    pub fn works(&self) {
        *self.0.trouble.lock() = None;
    }

    fn trouble(&self) -> Option<Trouble> {
        self.0.trouble.lock().clone().filter(|trouble| trouble.at.elapsed() < TROUBLE_LASTS)
    }
}

impl fmt::Debug for KafkaContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaContext").field(&self.0.name).finish()
    }
}

impl ClientContext for KafkaContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(resource = %self.0.name, level = ?level, facility, message, "the Kafka client says");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        tracing::debug!(resource = %self.0.name, code = ?code, reason, "the Kafka client has an error");
        let mut trouble = self.0.trouble.lock();
        // That no broker is left says less than why the last one went.
        let known = trouble.as_ref().is_some_and(|known| known.at.elapsed() < TROUBLE_LASTS);
        if !(known && code == RDKafkaErrorCode::AllBrokersDown) {
            *trouble = Some(Trouble { code, reason: reason.to_owned(), at: Instant::now() });
        }
    }
}

impl ConsumerContext for KafkaContext {}

/// What a failure means. `trouble` is what the client told last about its brokers: a time-out says nothing by itself.
fn classify(error: &KafkaError, trouble: Option<(RDKafkaErrorCode, &str)>) -> Problem {
    let Some(code) = error.rdkafka_error_code() else {
        return Problem::new(ProblemKind::Settings, format!("the Kafka client cannot be made: {error}"));
    };
    let kind = kind_of(code);
    match trouble {
        // The brokers do not serve us at all, and the client said why.
        Some((why, reason)) if kind == ProblemKind::Unavailable => {
            let kind = kind_of(why);
            Problem::new(kind, format!("Kafka: {reason}{}", advice(kind, why)))
        }
        _ => Problem::new(kind, format!("Kafka: {code}{}", advice(kind, code))),
    }
}

fn kind_of(code: RDKafkaErrorCode) -> ProblemKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed => ProblemKind::Unauthorized,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic => {
            ProblemKind::Absent
        }
        Code::InvalidArgument
        | Code::InvalidConfig
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::SecurityDisabled
        // A producer that came to its end is made anew only where nothing of it will do.
        | Code::Fatal
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch => ProblemKind::Settings,
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation => ProblemKind::Refused,
        Code::QueueFull | Code::ThrottlingQuotaExceeded => ProblemKind::Overloaded,
        _ => ProblemKind::Unavailable,
    }
}

fn advice(kind: ProblemKind, code: RDKafkaErrorCode) -> &'static str {
    match kind {
        ProblemKind::Unauthorized if code == RDKafkaErrorCode::SSL => {
            "; check `tls`: its `ca` must have signed the certificates of the brokers"
        }
        ProblemKind::Unauthorized => "; check `sasl`, and what the user may do",
        ProblemKind::Absent => "; create the topic, or correct its name",
        ProblemKind::Unavailable => "; check `bootstrapServers`, and that the brokers run",
        ProblemKind::Settings | ProblemKind::Refused | ProblemKind::Overloaded => "",
    }
}

/// The topics that there are, with the number of their partitions. Reaches Kafka by a client of its own and changes
/// nothing: asking for a topic by its name could create it.
///
/// Not cancel-safe in that the question is asked to its end, which comes within seconds.
///
/// # Errors
/// Why Kafka does not answer.
pub async fn topics(config: &ClientConfig, name: &ResourceName) -> Result<BTreeMap<String, usize>, Problem> {
    let (config, name) = (config.clone(), name.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let context = KafkaContext::new(name);
        let client = FutureProducer::<KafkaContext>::from_config_and_context(&config, context.clone())
            .map_err(|error| context.problem(&error))?;
        let begun = Instant::now();
        loop {
            match client.client().fetch_metadata(None, PROBE_LOOK) {
                Ok(metadata) => {
                    let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
                    return Ok(topics
                        .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
                        .collect());
                }
                Err(error) => {
                    let problem = context.problem(&error);
                    if !problem.may_pass() || begun.elapsed() >= PROBE_PATIENCE {
                        return Err(problem);
                    }
                }
            }
        }
    });
    asked.await.unwrap_or_else(|_| {
        Err(Problem::new(ProblemKind::Unavailable, "asking Kafka for its topics stopped; see the log"))
    })
}

/// Says that a topic is not there.
pub fn absent(topic: &str) -> Problem {
    Problem::new(
        ProblemKind::Absent,
        format!("Kafka has no topic `{topic}`, or the user may not see it; create it, or correct its name"),
    )
}

#[cfg(test)]
mod suite;
