//! `kafka`: reads topics of Kafka in a consumer group.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;
use waypost_clients::Problem;
use waypost_clients::kafka::rdkafka::config::FromClientConfigAndContext as _;
use waypost_clients::kafka::rdkafka::consumer::{CommitMode, Consumer as _, MessageStream, StreamConsumer};
use waypost_clients::kafka::rdkafka::error::KafkaError;
use waypost_clients::kafka::rdkafka::message::BorrowedMessage;
use waypost_clients::kafka::rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use waypost_clients::kafka::{
    self, KafkaConnection, KafkaContext, KafkaSasl, KafkaSecretReference, KafkaTls,
};
use waypost_core::Event;
use waypost_core::event::Filled;
use waypost_core::manifest::{FieldProblem, ResourceName};
use waypost_core::prefetch::{TOGETHER, prefetch};
use waypost_core::sink::{BoxFuture, ComponentContext};
use waypost_core::source::{EmitError, Emitter, Source, SourceConfig, SourceError};

use self::pattern::Before;

mod pattern;
mod record;

/// The most records in one commit.
const MOST_RECORDS: usize = 1_000;

/// The most bytes of events in one commit, beyond its last event. Two such commits of small records fit into the largest frame
/// of the embedded log, which is what makes syncs few.
const MOST_BYTES: usize = 900 * 1000;

/// The most commits under way.
const MOST_COMMITS: usize = 16;

/// What the client reads ahead, in KiB.
const READ_AHEAD_KIB: u32 = 16 * 1024;

/// How soon the client looks whether there is room for more, in milliseconds.
const REFILL_PAUSE_MS: u32 = 5;

/// A broker that takes nothing for this long makes the source tell Kafka that it reads nothing more for now, so that it
/// stays in its group.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often Kafka is asked whether it is back.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long the last commit of offsets and the leave from the group may take.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// Reads topics of Kafka in a consumer group, and of what speaks its protocol (Azure Event Hubs, Redpanda).
///
/// Records that carry a CloudEvent, in binary or structured mode, become that event; the key of the record is added as
/// `partitionkey` where the event has none. Any other record becomes an event of the type `eventType` with the id
/// `TOPIC/PARTITION/OFFSET`, the value as data (none where the value is null), the time of the record, and the
/// attributes `kafkatopic`, `kafkapartition`, `kafkaoffset`, and `kafkaheaderNAME` for each header that has a value. So
/// does a record that claims to be a CloudEvent and is none, with the code of its fault as `kafkafault`.
///
/// An offset is committed to Kafka only after the event is in the broker's log. A key or header value that is not text
/// is an attribute in base64.
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
    /// The topics to read.
    #[serde(default)]
    topics: Vec<String>,
    /// Reads every topic whose name matches this regular expression, those that come later too. Instead of `topics`.
    topic_pattern: Option<String>,
    /// The consumer group; `waypost.NAMESPACE.NAME` where none is given.
    consumer_group: Option<String>,
    /// Where to begin in a partition in which the group has no offset yet; `earliest` unless said otherwise.
    #[serde(default)]
    initial_offset: InitialOffset,
    /// The `type` of events that are made of plain records.
    /// `dev.waypost.kafka.record` where none is given.
    event_type: Option<String>,
    /// The `source` of events that are made of plain records, a URI-reference;
    /// `/apis/waypost.dev/v1alpha1/namespaces/NAMESPACE/sources/NAME` where none is given.
    event_source: Option<String>,
    /// How events that are made of plain records are called; `waypost` unless said otherwise.
    #[serde(default)]
    record_naming: RecordNaming,
}

/// How events that are made of plain records are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum RecordNaming {
    /// As the head of this page says.
    #[default]
    Waypost,
    /// As Knative's KafkaSource calls them: `dev.knative.kafka.event` where no `eventType` is given, the id
    /// `partition:P/offset:O`, the subject `partition:P#O`, `eventSource` with `#TOPIC` behind it, the key as `key`.
    Knative,
    /// As TriggerMesh's KafkaSource does: the topic as `source`, the subject `kafka/event`, the data as JSON; but the id
    /// is the place of the record, since keys come again.
    TriggerMesh,
}

/// Where to begin in a partition in which the group has no offset yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum InitialOffset {
    /// With the oldest record.
    #[default]
    Earliest,
    /// With what comes after the source has started for the first time.
    Latest,
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

    fn group(&self, name: &ResourceName) -> String {
        let of_name = || format!("waypost.{}.{}", name.namespace, name.name);
        self.consumer_group.clone().unwrap_or_else(of_name)
    }

    /// What to subscribe to; what begins with `^` is a pattern to the client.
    fn subscription(&self) -> Vec<&str> {
        self.topics.iter().map(String::as_str).chain(self.topic_pattern.as_deref()).collect()
    }
}

impl SourceConfig for KafkaConfig {
    const TYPE: &'static str = "kafka";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        let mut problem =
            |path: String, message: &str| problems.push(FieldProblem { path, message: message.to_owned() });
        match &self.topic_pattern {
            None if self.topics.is_empty() => {
                problem("topics".to_owned(), "there is none: name a topic, or give a `topicPattern`");
            }
            Some(_) if !self.topics.is_empty() => problem(
                "topicPattern".to_owned(),
                "`topics` and `topicPattern` exclude each other: write the names into the pattern, or remove one",
            ),
            Some(pattern) if !pattern.starts_with('^') => problem(
                "topicPattern".to_owned(),
                "a pattern begins with `^`, so that it says where a name begins",
            ),
            _ => {}
        }
        for (index, topic) in self.topics.iter().enumerate() {
            let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            if topic.is_empty() || topic.len() > 249 || !topic.bytes().all(named) {
                problem(
                    format!("topics[{index}]"),
                    "Kafka has topics of a-z, A-Z, 0-9, `.`, `_` and `-` only",
                );
            }
        }
        for (field, given) in
            [("eventType", self.event_type.as_ref()), ("eventSource", self.event_source.as_ref())]
        {
            if given.is_some_and(String::is_empty) {
                problem(field.to_owned(), "it is empty: write it, or remove the field");
            }
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Box<dyn Source>, SourceError> {
        let mut client = self.connection().client_config(&context)?;
        client
            .set("group.id", self.group(&context.name))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set(
                "auto.offset.reset",
                match self.initial_offset {
                    InitialOffset::Earliest => "earliest",
                    InitialOffset::Latest => "latest",
                },
            )
            // So long others wait for the partitions of a process that was killed, itself after its restart too.
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000")
            // What is stored is committed by the client now and then; stored is only what is in the log.
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("queued.max.messages.kbytes", READ_AHEAD_KIB.to_string())
            // Once as much was read ahead as may be: otherwise nothing is asked for during a whole second.
            .set("fetch.queue.backoff.ms", REFILL_PAUSE_MS.to_string())
            .set("fetch.wait.max.ms", "100");
        Ok(Box::new(Kafka { config: self.clone(), name: context.name, client }))
    }
}

struct Kafka {
    config: KafkaConfig,
    name: ResourceName,
    client: ClientConfig,
}

impl fmt::Debug for Kafka {
    // Without the configuration of the client, which holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

type Consumer = StreamConsumer<KafkaContext>;

/// The offset that follows what was read, by topic and partition.
type Offsets = BTreeMap<(String, i32), i64>;

/// Records that were read, as events in their order.
#[derive(Default)]
struct Taken {
    events: Filled,
    offsets: Offsets,
    bytes: usize,
    /// Of the last record, which mostly is beside the next.
    last: Option<((String, i32), i64)>,
    /// What the next records are made of.
    before: Before,
}

impl Taken {
    fn take(&mut self, config: &KafkaConfig, name: &ResourceName, records: &[impl Message]) {
        let Self { events, bytes, before, .. } = self;
        events.extend(records.iter().map(|record| {
            let event = record::event_of(config, name, record, before);
            *bytes += event.size();
            event
        }));
        for record in records {
            self.note(record.topic(), record.partition(), record.offset() + 1);
        }
    }

    fn note(&mut self, topic: &str, partition: i32, next_offset: i64) {
        match &mut self.last {
            Some(((last, of), offset)) if last == topic && *of == partition => *offset = next_offset,
            last => {
                let before = last.replace(((topic.to_owned(), partition), next_offset));
                self.offsets.extend(before);
            }
        }
    }

    fn into_parts(mut self) -> (Vec<Event>, Offsets) {
        self.offsets.extend(self.last);
        (self.events.into_events(), self.offsets)
    }
}

#[async_trait]
impl Source for Kafka {
    async fn check(&self) -> Result<(), SourceError> {
        Ok(self.find_topics().await?)
    }

    async fn run(self: Box<Self>, emitter: Emitter, shutdown: CancellationToken) -> Result<(), SourceError> {
        let Some(found) = shutdown.run_until_cancelled(self.find_topics()).await else { return Ok(()) };
        found?;
        let context = KafkaContext::new(self.name.clone());
        let consumer = Consumer::from_config_and_context(&self.client, context.clone())
            .map_err(|error| context.problem(&error))?;
        consumer.subscribe(&self.config.subscription()).map_err(|error| context.problem(&error))?;
        emitter.ready();
        let consumer = Arc::new(consumer);
        let reading = Reading {
            kafka: &self,
            consumer: &consumer,
            context: &context,
            emitter: &emitter,
            committing: VecDeque::new(),
            ahead: None,
        };
        let ended = reading.run(&shutdown).await;
        // Leaving the group waits for the network.
        let leave = tokio::task::spawn_blocking(move || {
            // Where this fails the records are read once more, with the same ids.
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
            drop(consumer);
        });
        let _ = tokio::time::timeout(LEAVE_PATIENCE, leave).await;
        ended
    }
}

impl Kafka {
    /// Finds the topics that are to be read; of those that a pattern names none need be there yet.
    async fn find_topics(&self) -> Result<(), Problem> {
        let topics = kafka::topics(&self.client, &self.name).await?;
        match self.config.topics.iter().find(|topic| !topics.contains_key(*topic)) {
            Some(topic) => Err(kafka::absent(topic)),
            None => Ok(()),
        }
    }
}

/// One stay in the group.
struct Reading<'k> {
    kafka: &'k Kafka,
    consumer: &'k Arc<Consumer>,
    context: &'k KafkaContext,
    emitter: &'k Emitter,
    /// Commits under way, the oldest first, each with what to store once it has resolved.
    committing: VecDeque<BoxFuture<'static, Result<Offsets, EmitError>>>,
    /// What came although nothing more was asked for.
    ahead: Option<Taken>,
}

/// What a wait for records ended with.
enum Next {
    Stop,
    Committed(Result<Offsets, EmitError>),
    Taken(Result<Taken, KafkaError>),
    Look,
}

impl Reading<'_> {
    async fn run(mut self, shutdown: &CancellationToken) -> Result<(), SourceError> {
        let mut away = false;
        loop {
            let full = self.committing.len() >= MOST_COMMITS;
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => Next::Stop,
                committed = oldest(&mut self.committing) => Next::Committed(committed),
                taken = take(self.kafka, self.consumer, &mut self.ahead), if !full => Next::Taken(taken),
                () = tokio::time::sleep(LOOK_EVERY), if away => Next::Look,
            };
            match next {
                Next::Stop => break,
                Next::Committed(committed) => match committed {
                    Ok(offsets) => self.store(&offsets),
                    Err(error) => return error.end(),
                },
                Next::Taken(Ok(taken)) => {
                    if std::mem::take(&mut away) {
                        self.context.works();
                        self.emitter.ready();
                    }
                    if let Err(error) = self.emit(taken).await {
                        self.finish().await;
                        return error.end();
                    }
                }
                Next::Taken(Err(error)) => {
                    let problem = self.context.problem(&error);
                    if !problem.may_pass() {
                        self.finish().await;
                        return Err(problem.into());
                    }
                    away = true;
                    self.emitter.not_ready(problem.into());
                }
                Next::Look => {
                    let looked = shutdown.run_until_cancelled(self.kafka.find_topics()).await;
                    match looked {
                        None => break,
                        Some(Ok(())) => {
                            away = false;
                            self.context.works();
                            self.emitter.ready();
                        }
                        Some(Err(problem)) if problem.may_pass() => {}
                        Some(Err(problem)) => {
                            self.finish().await;
                            return Err(problem.into());
                        }
                    }
                }
            }
        }
        self.finish().await;
        Ok(())
    }

    /// Hands events to the broker. While it takes none, nothing more is read, and the group hears of us all the same.
    async fn emit(&mut self, taken: Taken) -> Result<(), EmitError> {
        let (events, offsets) = taken.into_parts();
        let Kafka { config, name, .. } = self.kafka;
        let mut emitting = std::pin::pin!(self.emitter.emit(events, None));
        let mut paused = None;
        let commit = loop {
            tokio::select! {
                biased;
                emitted = &mut emitting => break emitted?,
                () = tokio::time::sleep(PATIENCE), if paused.is_none() => paused = self.pause(),
                message = self.consumer.recv(), if paused.is_some() => {
                    // A partition that came meanwhile is not paused; what could not be read is told again later.
                    if let Ok(message) = message {
                        self.ahead.get_or_insert_default().take(config, name, slice::from_ref(&message));
                        paused = self.pause();
                    }
                }
            }
        };
        if paused.is_some()
            && let Ok(assigned) = self.consumer.assignment()
        {
            let _ = self.consumer.resume(&assigned);
        }
        self.committing.push_back(Box::pin(async move { commit.resolved().await.map(|()| offsets) }));
        Ok(())
    }

    /// Reads nothing more for now.
    fn pause(&self) -> Option<()> {
        let assigned = self.consumer.assignment().ok()?;
        self.consumer.pause(&assigned).ok()
    }

    /// Waits for the commits under way: the engine bounds that.
    async fn finish(&mut self) {
        while let Some(commit) = self.committing.pop_front() {
            match commit.await {
                Ok(offsets) => self.store(&offsets),
                Err(_) => return,
            }
        }
    }

    fn store(&self, offsets: &Offsets) {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in offsets {
            // Of a partition that went to another member meanwhile nothing is stored: that one reads it again.
            let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
        }
        if let Err(error) = self.consumer.store_offsets(&list) {
            tracing::debug!(source = %self.kafka.name, %error, "not all offsets were stored");
        }
    }
}

/// Waits for the oldest commit, for ever where none is under way. Cancel-safe.
async fn oldest(
    committing: &mut VecDeque<BoxFuture<'static, Result<Offsets, EmitError>>>,
) -> Result<Offsets, EmitError> {
    let Some(commit) = committing.front_mut() else { return std::future::pending().await };
    let committed = commit.await;
    committing.pop_front();
    committed
}

/// Waits for a record and takes what has come with it. Cancel-safe: it waits only before the first.
async fn take(kafka: &Kafka, consumer: &Consumer, ahead: &mut Option<Taken>) -> Result<Taken, KafkaError> {
    if let Some(ahead) = ahead.take() {
        return Ok(ahead);
    }
    let mut taken = Taken::default();
    // One for all of them: each is entered among those who wait for records.
    let mut messages = consumer.stream();
    let mut together: Together<'_> = SmallVec::new();
    together.push(next(&mut messages).await?);
    loop {
        let records = MOST_RECORDS.saturating_sub(taken.events.len());
        let more = gather(&mut messages, &mut together, records, MOST_BYTES.saturating_sub(taken.bytes));
        // The client put them where they are in a thread of its own. The headers stand behind the last byte.
        prefetch(together.iter().filter_map(|record| record.payload()));
        taken.take(&kafka.config, &kafka.name, &together);
        together.clear();
        if !more {
            return Ok(taken);
        }
    }
}

/// Records that are looked at before they are decoded.
type Together<'c> = SmallVec<[BorrowedMessage<'c>; TOGETHER]>;

/// Adds what has come, at most as many records and, but for the last, bytes as are given. Whether there may be more to take.
fn gather<'c>(
    messages: &mut MessageStream<'c, KafkaContext>,
    together: &mut Together<'c>,
    records: usize,
    bytes: usize,
) -> bool {
    let mut size: usize = together.iter().map(BorrowedMessage::payload_len).sum();
    while together.len() < TOGETHER {
        if together.len() >= records || size >= bytes {
            return false;
        }
        match next(messages).now_or_never() {
            Some(Ok(message)) => {
                size += message.payload_len();
                together.push(message);
            }
            // An error is told again by the next call.
            Some(Err(_)) | None => return false,
        }
    }
    true
}

async fn next<'c>(messages: &mut MessageStream<'c, KafkaContext>) -> Result<BorrowedMessage<'c>, KafkaError> {
    messages.next().await.expect("the stream of a consumer has no end")
}

#[cfg(test)]
mod suite;
