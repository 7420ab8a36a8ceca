//! `kafka`: writes events to topics of Kafka.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_clients::kafka::rdkafka::ClientConfig;
use waypost_clients::kafka::rdkafka::config::FromClientConfigAndContext as _;
use waypost_clients::kafka::rdkafka::error::KafkaError;
use waypost_clients::kafka::rdkafka::message::{Header, OwnedHeaders};
use waypost_clients::kafka::rdkafka::producer::future_producer::DeliveryFuture;
use waypost_clients::kafka::rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use waypost_clients::kafka::{
    self, KafkaConnection, KafkaContext, KafkaSasl, KafkaSecretReference, KafkaTls,
};
use waypost_clients::{Problem, ProblemKind};
use waypost_core::event::http::fits_binary;
use waypost_core::event::kafka::{CONTENT_TYPE, STRUCTURED_JSON, binary_headers};
use waypost_core::event::{AttributeType, json};
use waypost_core::manifest::FieldProblem;
use waypost_core::sink::{BatchUnity, Batching, ComponentContext, Outcome, Sink, SinkConfig};
use waypost_core::template::Template;
use waypost_core::{DeliveryError, Event, codes};

/// How long the client tries to bring a record to the brokers before the attempt has failed.
const RECORD_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a topic may be unknown before that is an answer: it may be on its way through the brokers.
const TOPIC_PATIENCE: Duration = Duration::from_secs(3);

/// How long a sink that closes waits for what is on its way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Writes each event as one record to a topic of Kafka, or of what speaks its protocol (Azure Event Hubs, Redpanda).
///
/// A record counts as delivered when all replicas in sync have it (`acks=all`); the producer is idempotent. The key of
/// the record is the attribute `partitionkey`, unless `key` says otherwise. An event without data becomes a record
/// without a value in binary mode.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaConfig {
    /// The brokers to ask first, each as `HOST:PORT`.
    bootstrap_servers: Vec<String>,
    /// Who we are to Kafka.
    sasl: Option<KafkaSasl>,
    /// TLS to Kafka; `{}` trusts the certificate authorities of the system.
    tls: Option<KafkaTls>,
    /// A Secret that says who we are and how to speak, instead of `sasl` and `tls`.
    secret_ref: Option<KafkaSecretReference>,
    /// The topic, or how it is made of the event, as in `orders-${type}`. A topic is never created by Waypost. Where a
    /// topic that was made of an event is not there, that event is a dead letter.
    topic: Template,
    /// How the key of the record is made of the event; `partitionkey` as it is, where nothing is said.
    key: Option<Template>,
    /// How the event is written; `binary` unless said otherwise.
    #[serde(default)]
    format: KafkaFormat,
    /// How records are compressed on their way; `none` unless said otherwise.
    #[serde(default)]
    compression: KafkaCompression,
}

/// How an event is written into a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum KafkaFormat {
    /// The attributes as headers `ce_NAME`, the data as value.
    #[default]
    Binary,
    /// The whole event as JSON.
    Structured,
    /// The data as value, and of the attributes the content type alone.
    Data,
}

/// How records are compressed on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum KafkaCompression {
    /// Not at all.
    #[default]
    None,
    /// gzip
    Gzip,
    /// LZ4
    Lz4,
    /// Snappy
    Snappy,
}

impl KafkaConfig {
    fn connection(&self) -> KafkaConnection<'_> {
        KafkaConnection {
            bootstrap_servers: &self.bootstrap_servers,
            sasl: self.sasl.as_ref(),
            tls: self.tls.as_ref(),
            secret_ref: self.secret_ref.as_ref(),
        }
    }
}

impl SinkConfig for KafkaConfig {
    const TYPE: &'static str = "kafka";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        if self.topic.text().is_empty() {
            let message = "it is empty: name a topic".to_owned();
            problems.push(FieldProblem { path: "topic".to_owned(), message });
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        let mut client = self.connection().client_config(&context)?;
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", RECORD_TIMEOUT.as_millis().to_string())
            .set("topic.metadata.propagation.max.ms", TOPIC_PATIENCE.as_millis().to_string())
            .set("linger.ms", "0")
            .set(
                "compression.type",
                match self.compression {
                    KafkaCompression::None => "none",
                    KafkaCompression::Gzip => "gzip",
                    KafkaCompression::Lz4 => "lz4",
                    KafkaCompression::Snappy => "snappy",
                },
            );
        let heard = KafkaContext::new(context.name.clone());
        let producer = FutureProducer::from_config_and_context(&client, heard.clone())
            .map_err(|error| heard.problem(&error))?;
        Ok(Arc::new(Kafka { config: self.clone(), context, client, heard, producer }))
    }
}

struct Kafka {
    config: KafkaConfig,
    context: ComponentContext,
    client: ClientConfig,
    heard: KafkaContext,
    producer: FutureProducer<KafkaContext>,
}

impl fmt::Debug for Kafka {
    // Without the configuration of the client, which holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("name", &self.context.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for Kafka {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        // All are handed to the client before the first is waited for: it makes requests of them.
        let sent: Vec<_> = events.iter().map(|event| self.send(event)).collect();
        let mut outcomes = Vec::with_capacity(events.len());
        for sent in sent {
            let reported = match sent {
                Ok(sent) => match sent.await {
                    Ok(report) => report.map(drop).map_err(|(error, _)| self.failed(&error)),
                    Err(_) => Err(self.failed(&KafkaError::Canceled)),
                },
                Err(error) => Err(error),
            };
            outcomes.push(match reported {
                Ok(()) => {
                    self.heard.works();
                    Outcome::Delivered
                }
                Err(error) => Outcome::Failed(error),
            });
        }
        outcomes
    }

    async fn check(&self) -> Result<(), DeliveryError> {
        let topics = kafka::topics(&self.client, &self.context.name).await?;
        let topic = self.config.topic.text();
        if self.config.topic.is_constant() && !topics.contains_key(topic) {
            return Err(kafka::absent(topic).into());
        }
        Ok(())
    }

    async fn close(&self) -> Result<(), DeliveryError> {
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(CLOSE_PATIENCE)).await;
        match flushed {
            Ok(Err(error)) => Err(self.failed(&error)),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn batching(&self) -> Batching {
        Batching {
            max_events: 1_000,
            max_bytes: 1024 * 1024,
            linger: Duration::from_millis(5),
            unity: BatchUnity::Independent,
        }
    }
}

/// An event as a record.
#[derive(Debug, PartialEq)]
struct Written {
    topic: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
}

impl Kafka {
    /// Hands an event to the client.
    fn send(&self, event: &Event) -> Result<DeliveryFuture, DeliveryError> {
        let Written { topic, key, value, headers } = self.config.write(event)?;
        let mut written = OwnedHeaders::new_with_capacity(headers.len());
        for (name, value) in &headers {
            written = written.insert(Header { key: name, value: Some(value) });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&topic).headers(written);
        record.key = key.as_deref();
        record.payload = value.as_deref();
        self.producer.send_result(record).map_err(|(error, _)| self.failed(&error))
    }

    fn failed(&self, error: &KafkaError) -> DeliveryError {
        let problem = match error {
            KafkaError::Canceled => Problem::new(ProblemKind::Unavailable, "the Kafka client was closed"),
            error if self.config.topic.is_constant() => self.heard.problem(error),
            error => self.heard.problem_of_event(error),
        };
        problem.into()
    }
}

impl KafkaConfig {
    fn write(&self, event: &Event) -> Result<Written, DeliveryError> {
        let render = |template: &Template| {
            let rendered = template.render(event);
            rendered
                .map_err(|error| DeliveryError::permanent(codes::TEMPLATE_NOT_RENDERED, error.to_string()))
        };
        let topic = render(&self.topic)?;
        let key = match &self.key {
            Some(key) => Some(render(key)?.into_bytes()),
            None => event.attribute("partitionkey").map(|key| match key.attribute_type {
                // What came as bytes goes as bytes.
                AttributeType::Binary => STANDARD.decode(key.text).unwrap_or_else(|_| key.text.into()),
                _ => key.text.into(),
            }),
        };
        let data = event.data_bytes().map(<[u8]>::to_vec);
        let (value, headers) = match self.format {
            KafkaFormat::Binary if fits_binary(event) => {
                let headers =
                    binary_headers(event).map(|(name, value)| (name.into_owned(), value.to_owned()));
                (data, headers.collect())
            }
            KafkaFormat::Binary | KafkaFormat::Structured => {
                let headers = vec![(CONTENT_TYPE.to_owned(), STRUCTURED_JSON.to_owned())];
                (Some(json::encode(event).to_vec()), headers)
            }
            KafkaFormat::Data => {
                let content_type = event.data_content_type();
                let headers = content_type.map(|value| (CONTENT_TYPE.to_owned(), value.to_owned()));
                (data, headers.into_iter().collect())
            }
        };
        Ok(Written { topic, key, value, headers })
    }
}

#[cfg(test)]
mod suite;
