//! `s3`: writes events to objects of Amazon S3.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_clients::aws::s3::{Bucket, MOST_KEY, Put};
use waypost_clients::aws::{AwsConnection, AwsCredentials, AwsRole, AwsService, AwsTls};
use waypost_clients::{Problem, ProblemKind};
use waypost_core::manifest::FieldProblem;
use waypost_core::sink::{BatchUnity, Batching, ComponentContext, Outcome, Sink, SinkConfig};
use waypost_core::template::Template;
use waypost_core::{DeliveryError, Event, codes};

use self::object::Object;

mod object;

/// How long an upload may take.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(120);

/// The most events of an object.
const MOST_EVENTS: u32 = 10_000;

/// The most bytes of events of an object.
const MOST_BYTES: u32 = 64 * 1024 * 1024;

/// The longest that events wait for others of their object, in seconds.
const MOST_LINGER: u32 = 3_600;

/// The metadata that tells by which events an object was written, where one that is there is to be kept.
const WRITTEN_BY: HeaderName = HeaderName::from_static("x-amz-meta-waypost-events");

/// What stands in metadata as it is.
const NOT_PLAIN: &AsciiSet = &CONTROLS.add(b'%');

/// What stands in a part of a key as it is.
const NOT_OF_A_KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Writes events to a bucket of Amazon S3, or of what speaks its protocol (MinIO, Ceph, Cloudflare R2): each as an object
/// of its own, or many as lines of an object with `batch`.
///
/// An event counts as delivered once its object was written as a whole; an upload that was cut leaves nothing behind.
/// An event that is sent again writes the same key. A batch is named by the events in it, and after a failure
/// or a restart it is written again with the same events: as the same object, unless `key` or `batch.compression` was changed or
/// one of its events was dropped meanwhile.
/// Needs the right `s3:PutObject`, `s3:ListBucket` to tell whether the bucket serves us, and `s3:GetObject` with
/// `overwrite: false`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Config {
    /// The name of the bucket.
    bucket: String,
    /// The region; `AWS_REGION`, that of the profile, or where AWS says that the bucket is, where none is given.
    region: Option<String>,
    /// The URL of the service, as in `http://localhost:9000`; `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or AWS itself where
    /// none is given.
    endpoint: Option<String>,
    /// Whether the bucket stands in the path and not in the name of the host; so wherever it is not AWS itself, unless said
    /// otherwise.
    path_style: Option<bool>,
    /// Keys; those of the environment, the profile, the container or the machine where none are given.
    credentials: Option<AwsCredentials>,
    /// The role to assume with them.
    assume_role: Option<AwsRole>,
    /// TLS, where an own authority is to be trusted.
    tls: Option<AwsTls>,
    /// The key of the object, or how it is made of the event, as in `orders/${time:%Y/%m/%d}/${id}.json`. Where none is
    /// given it is `TYPE/SOURCE/ID`, with what could be mistaken for a slash encoded. With `batch` it is the folder:
    /// events with the same one go into one object below it; `TYPE` where none is given.
    key: Option<Template>,
    /// What becomes of an event that lacks what `key` needs; a dead letter unless said otherwise.
    #[serde(default)]
    without_key: WithoutKey,
    /// What an object holds; `structured` unless said otherwise.
    #[serde(default)]
    content: Content,
    /// Events of these types are written as their data alone, whatever `content` says.
    #[serde(default)]
    data_types: Vec<String>,
    /// The media type of the objects; that of what they hold where none is given.
    content_type: Option<String>,
    /// Metadata of the objects, by name; with `batch` made of the first event.
    #[serde(default)]
    metadata: BTreeMap<String, Template>,
    /// The storage class, as in `STANDARD_IA`.
    storage_class: Option<String>,
    /// Encryption at S3; as the bucket says where nothing is said.
    encryption: Option<Encryption>,
    /// Whether an object that has the key already is replaced. Where not, one of another event makes a dead letter.
    #[serde(default = "yes")]
    overwrite: bool,
    /// Writes many events as lines of JSON into one object.
    batch: Option<S3Batch>,
}

fn yes() -> bool {
    true
}

/// What becomes of an event that lacks what the key needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum WithoutKey {
    /// A dead letter.
    #[default]
    DeadLetter,
    /// It is written as if no `key` were given.
    DefaultKey,
}

/// What an object holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Content {
    /// The event in the JSON format.
    #[default]
    Structured,
    /// The data, with the attributes as metadata: `ce-id` and so on.
    Binary,
    /// The data alone.
    Data,
}

/// Encryption at S3.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Encryption {
    /// How it is encrypted.
    algorithm: Algorithm,
    /// The key of KMS; that of AWS for the account where none is given.
    key_id: Option<String>,
}

/// How objects are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
enum Algorithm {
    /// With keys of S3.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of KMS.
    #[serde(rename = "aws:kms")]
    Kms,
    /// Twice, with a key of KMS.
    #[serde(rename = "aws:kms:dsse")]
    KmsTwice,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
            Self::KmsTwice => "aws:kms:dsse",
        }
    }
}

/// Many events in one object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct S3Batch {
    /// The most events of an object.
    #[serde(default = "default_max_events")]
    max_events: u32,
    /// The most bytes of events of an object, before it is compressed.
    #[serde(default = "default_max_bytes")]
    max_bytes: u32,
    /// How many seconds the first event of an object waits for others.
    #[serde(default = "default_linger")]
    linger_seconds: u32,
    /// How objects are compressed; `none` unless said otherwise.
    #[serde(default)]
    compression: Compression,
}

fn default_max_events() -> u32 {
    5_000
}

fn default_max_bytes() -> u32 {
    8 * 1024 * 1024
}

fn default_linger() -> u32 {
    30
}

/// How objects are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}

impl S3Config {
    fn connection(&self) -> AwsConnection<'_> {
        AwsConnection {
            region: self.region.as_deref(),
            endpoint: self.endpoint.as_deref(),
            credentials: self.credentials.as_ref(),
            assume_role: self.assume_role.as_ref(),
            tls: self.tls.as_ref(),
        }
    }
}

impl SinkConfig for S3Config {
    const TYPE: &'static str = "s3";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        let mut problem =
            |path: &str, message: String| problems.push(FieldProblem { path: path.to_owned(), message });
        if !Bucket::is_name(&self.bucket) {
            problem("bucket", format!("`{}` is no name of a bucket", self.bucket));
        }
        if self.key.as_ref().is_some_and(|key| key.text().is_empty()) {
            problem("key", "it is empty: write it, or remove the field".to_owned());
        }
        if self.key.as_ref().is_some_and(Template::is_constant) && self.batch.is_none() {
            let message =
                "all events would write the same object: put something of the event into it, as in `${id}`";
            problem("key", message.to_owned());
        }
        for name in self.metadata.keys() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if name.is_empty() || !name.bytes().all(plain) {
                problem(
                    "metadata",
                    format!("`{name}` is no name for metadata: use a-z, 0-9, `-`, `_` and `.`"),
                );
            }
        }
        let header = |text: &Option<String>| text.as_ref().is_some_and(|text| object::value(text).is_none());
        for (path, text) in [("contentType", &self.content_type), ("storageClass", &self.storage_class)] {
            if header(text) || text.as_ref().is_some_and(String::is_empty) {
                problem(path, "it is empty or holds what no header can".to_owned());
            }
        }
        if let Some(encryption) = &self.encryption
            && encryption.key_id.is_some()
            && encryption.algorithm == Algorithm::Aes256
        {
            problem(
                "encryption.keyId",
                "`AES256` has no key of yours: use `aws:kms`, or remove it".to_owned(),
            );
        }
        if let Some(batch) = &self.batch {
            for (path, given, most) in [
                ("batch.maxEvents", batch.max_events, MOST_EVENTS),
                ("batch.maxBytes", batch.max_bytes, MOST_BYTES),
                ("batch.lingerSeconds", batch.linger_seconds, MOST_LINGER),
            ] {
                if !(1..=most).contains(&given) {
                    problem(path, format!("write a number from 1 to {most}"));
                }
            }
            if self.content != Content::Structured || !self.data_types.is_empty() {
                let path = if self.content == Content::Structured { "dataTypes" } else { "content" };
                problem(path, "a batch holds structured events: remove this, or `batch`".to_owned());
            }
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        let client = self.connection().client(AwsService::S3, &context)?;
        let bucket = Bucket::new(client, self.bucket.clone(), self.path_style);
        Ok(Arc::new(S3 { config: self.clone(), bucket }))
    }
}

#[derive(Debug)]
struct S3 {
    config: S3Config,
    bucket: Bucket,
}

#[async_trait]
impl Sink for S3 {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let mut outcomes: Vec<_> = events.iter().map(|_| None).collect();
        // By key, in the order of the first event of each.
        let mut objects: Vec<(String, Vec<usize>)> = Vec::new();
        for (index, event) in events.iter().enumerate() {
            match self.config.key_of(event) {
                Ok(key) => {
                    match objects.iter_mut().find(|(known, _)| *known == key && self.config.batch.is_some()) {
                        Some((_, indexes)) => indexes.push(index),
                        None => objects.push((key, vec![index])),
                    }
                }
                Err(error) => outcomes[index] = Some(Outcome::Failed(error)),
            }
        }
        for (key, indexes) in objects {
            let of_object = indexes.iter().map(|index| events[*index].clone()).collect();
            let outcome = match self.write(key, of_object).await {
                Ok(()) => Outcome::Delivered,
                Err(error) => Outcome::Failed(error),
            };
            for index in indexes {
                outcomes[index] = Some(outcome.clone());
            }
        }
        // Each event has a key or a failure.
        outcomes.into_iter().flatten().collect()
    }

    async fn check(&self) -> Result<(), DeliveryError> {
        Ok(self.bucket.probe().await?)
    }

    fn batching(&self) -> Batching {
        let Some(batch) = &self.config.batch else { return Batching::SINGLE };
        Batching {
            max_events: batch.max_events as usize,
            max_bytes: batch.max_bytes as usize,
            linger: Duration::from_secs(batch.linger_seconds.into()),
            unity: BatchUnity::Atomic,
        }
    }
}

impl S3 {
    async fn write(&self, key: String, events: Vec<Event>) -> Result<(), DeliveryError> {
        let config = self.config.clone();
        let made = tokio::task::spawn_blocking(move || Object::of(&config, key, &events)).await;
        let Object { key, headers, body, written_by } = made.map_err(|_| {
            DeliveryError::retryable(codes::SINK_UNAVAILABLE, "making the object stopped; see the log")
        })??;
        if key.len() > MOST_KEY || key.is_empty() {
            let detail = format!("S3 has keys of 1 to {MOST_KEY} bytes, and this one has {}", key.len());
            return Err(Problem::new(ProblemKind::Refused, detail).into());
        }
        let Put::Kept = self.bucket.put(&key, headers, body, UPLOAD_PATIENCE).await? else { return Ok(()) };
        // An earlier attempt may have written it.
        let there = self.bucket.header(&key, &WRITTEN_BY).await?;
        if there.as_deref() == Some(&written_by) {
            return Ok(());
        }
        let detail =
            format!("the bucket has another object `{key}`, which is not to be replaced; make keys differ");
        Err(Problem::new(ProblemKind::Refused, detail).into())
    }
}

impl S3Config {
    /// The key of an event's object, or its folder.
    fn key_of(&self, event: &Event) -> Result<String, DeliveryError> {
        let Some(template) = &self.key else { return Ok(self.default_key(event)) };
        match (template.render(event), self.without_key) {
            (Ok(key), _) => Ok(key),
            (Err(_), WithoutKey::DefaultKey) => Ok(self.default_key(event)),
            (Err(error), WithoutKey::DeadLetter) => {
                Err(DeliveryError::permanent(codes::TEMPLATE_NOT_RENDERED, error.to_string()))
            }
        }
    }

    fn default_key(&self, event: &Event) -> String {
        let part = |text| utf8_percent_encode(text, NOT_OF_A_KEY).to_string();
        let event_type = part(event.event_type());
        if self.batch.is_some() {
            return event_type;
        }
        format!("{event_type}/{}/{}", part(event.source()), part(event.id()))
    }

    fn is_data_alone(&self, event: &Event) -> bool {
        self.content == Content::Data || self.data_types.iter().any(|known| known == event.event_type())
    }

    /// The headers that every object has.
    fn constant_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        let mut add = |name: &'static str, text: &str| {
            // Validation saw that these can be values.
            headers.extend(object::value(text).map(|value| (HeaderName::from_static(name), value)));
        };
        if let Some(class) = &self.storage_class {
            add("x-amz-storage-class", class);
        }
        if let Some(encryption) = &self.encryption {
            add("x-amz-server-side-encryption", encryption.algorithm.name());
            if let Some(key) = &encryption.key_id {
                add("x-amz-server-side-encryption-aws-kms-key-id", key);
            }
        }
        if !self.overwrite {
            add("if-none-match", "*");
        }
        headers
    }
}

#[cfg(test)]
mod suite;
