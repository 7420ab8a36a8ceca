//! `awsSqs`: receives messages from a queue of Amazon SQS.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost_clients::aws::sqs::{self, Message, Queue, QueueName};
use waypost_clients::aws::{AwsClient, AwsConnection, AwsCredentials, AwsRole, AwsService, AwsTls};
use waypost_clients::{Problem, ProblemKind};
use waypost_core::manifest::{FieldProblem, ResourceName};
use waypost_core::sink::ComponentContext;
use waypost_core::source::{EmitError, Emitter, Source, SourceConfig, SourceError};

mod message;
mod unwrapped;

/// The most calls that receive at a time.
const MOST_RECEIVERS: u16 = 64;

/// The first wait after a failure that may pass; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest wait after a failure that may pass.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// For how long a failed deletion is tried again at least. After it the message comes once more, with the same id.
const DELETE_PATIENCE: Duration = Duration::from_secs(30);

/// The most calls of one receiver that delete, under way.
const MOST_DELETIONS: usize = 4;

/// The least time between two calls that keep the same messages from others.
const LEAST_EXTENSION: Duration = Duration::from_millis(300);

/// The longest that SQS keeps a message from others.
const MOST_VISIBILITY: u32 = 43_200;

/// Receives messages from a queue of Amazon SQS, and of what speaks its JSON protocol (ElasticMQ, LocalStack).
///
/// A message becomes an event of the type `eventType` with the id of the message, the ARN of the queue as its source, the
/// body as data (JSON where it is JSON, else text), the time at which it was sent, and the attributes `sqsreceivecount`,
/// `sqsmsgNAME` for each attribute of the message that is no bytes, and for a FIFO queue the group as `partitionkey`,
/// `sqssequencenumber` and `sqsdeduplicationid`. What `unwrap` names is taken out of the body: one event for each record.
/// A body that is not what it should be becomes the event of a plain message, with the reason as `sqsfault`.
///
/// A message is deleted only after its events are in the broker's log. While the broker takes nothing the message is kept
/// from others by extending its visibility time-out, and nothing more is received. Order within a message group is kept:
/// SQS hands out no message of a group before those ahead of it are deleted. Needs the rights `sqs:GetQueueUrl`,
/// `sqs:ReceiveMessage`, `sqs:DeleteMessage` and `sqs:ChangeMessageVisibility`, and better `sqs:GetQueueAttributes` too.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsSqsConfig {
    /// The queue: its name, its ARN (of another account too), or its URL.
    queue: String,
    /// The region; that of the queue's ARN or URL, of `AWS_REGION` or of the profile where none is given.
    region: Option<String>,
    /// The URL of the service, as in `http://localhost:9324`; `AWS_ENDPOINT_URL_SQS`, `AWS_ENDPOINT_URL` or AWS itself
    /// where none is given.
    endpoint: Option<String>,
    /// Keys; those of the environment, the profile, the container or the machine where none are given.
    credentials: Option<AwsCredentials>,
    /// The role to assume with them.
    assume_role: Option<AwsRole>,
    /// TLS, where an own authority is to be trusted.
    tls: Option<AwsTls>,
    /// For how many seconds a received message is kept from others before that is renewed; as the queue says where
    /// nothing is said.
    visibility_timeout_seconds: Option<u32>,
    /// The most calls that receive at a time, each of up to ten messages. There is one while the queue is empty.
    #[serde(default = "default_receivers")]
    receivers: u16,
    /// What the bodies are wrapped in, from the outside in, as in `[sns, s3]`.
    #[serde(default)]
    unwrap: Vec<Wrapping>,
    /// What the data of an event is; `body` unless said otherwise.
    #[serde(default)]
    data: DataShape,
    /// The `type` of events that are made of plain messages.
    #[serde(default = "default_event_type")]
    event_type: String,
    /// The `source` of events that are made of plain messages, a URI-reference; the ARN of the queue where none is given.
    event_source: Option<String>,
}

fn default_receivers() -> u16 {
    8
}

fn default_event_type() -> String {
    "com.amazon.sqs.message".to_owned()
}

/// What wraps what the event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Wrapping {
    /// An envelope of Amazon SNS: its `Message` is what counts.
    Sns,
    /// A notification of Amazon S3: each record becomes an event of the type `com.amazon.s3.KIND`, such as
    /// `com.amazon.s3.objectcreated`, with the ARN of the bucket as source and the key of the object as subject.
    S3,
    /// An event of Amazon EventBridge: it becomes an event of the type `com.amazon.events.event` with its id, time and
    /// resource, and `awseventssource` and `awseventsdetailtype`.
    EventBridge,
}

/// What the data of an event is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum DataShape {
    /// The body of the message.
    #[default]
    Body,
    /// The message as the SDKs of AWS have it: an object with `Body`, `MessageId`, `Attributes` and so on.
    Message,
}

impl AwsSqsConfig {
    fn connection(&self) -> AwsConnection<'_> {
        let of_queue = || QueueName::parse(&self.queue).and_then(|name| name.region());
        AwsConnection {
            region: self.region.as_deref().or_else(of_queue),
            endpoint: self.endpoint.as_deref(),
            credentials: self.credentials.as_ref(),
            assume_role: self.assume_role.as_ref(),
            tls: self.tls.as_ref(),
        }
    }
}

impl SourceConfig for AwsSqsConfig {
    const TYPE: &'static str = "awsSqs";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        let mut problem =
            |path: &str, message: String| problems.push(FieldProblem { path: path.to_owned(), message });
        if QueueName::parse(&self.queue).is_none() {
            problem("queue", format!("`{}` is no queue: write its name, its ARN or its URL", self.queue));
        }
        if !(1..=MOST_RECEIVERS).contains(&self.receivers) {
            problem("receivers", format!("write a number from 1 to {MOST_RECEIVERS}"));
        }
        if self.visibility_timeout_seconds.is_some_and(|seconds| !(1..=MOST_VISIBILITY).contains(&seconds)) {
            problem("visibilityTimeoutSeconds", format!("SQS takes 1 to {MOST_VISIBILITY} seconds"));
        }
        let of_records = |wrapping: &Wrapping| *wrapping != Wrapping::Sns;
        if self.unwrap.iter().position(of_records).is_some_and(|index| index + 1 < self.unwrap.len()) {
            problem("unwrap", "nothing is wrapped in `s3` or `eventBridge`: write those last".to_owned());
        }
        for (field, given) in
            [("eventType", Some(&self.event_type)), ("eventSource", self.event_source.as_ref())]
        {
            if given.is_some_and(String::is_empty) {
                problem(field, "it is empty: write it, or remove the field".to_owned());
            }
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Box<dyn Source>, SourceError> {
        let client = self.connection().client(AwsService::Sqs, &context)?;
        Ok(Box::new(AwsSqs { config: self.clone(), name: context.name, client: Arc::new(client) }))
    }
}

struct AwsSqs {
    config: AwsSqsConfig,
    name: ResourceName,
    client: Arc<AwsClient>,
}

impl AwsSqs {
    async fn find(&self) -> Result<Queue, Problem> {
        let Some(name) = QueueName::parse(&self.config.queue) else {
            return Err(Problem::new(ProblemKind::Settings, "`queue` is no queue"));
        };
        sqs::find(Arc::clone(&self.client), name).await
    }
}

impl fmt::Debug for AwsSqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSqs")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for AwsSqs {
    async fn check(&self) -> Result<(), SourceError> {
        self.find().await?;
        Ok(())
    }

    async fn run(self: Box<Self>, emitter: Emitter, shutdown: CancellationToken) -> Result<(), SourceError> {
        let Some(queue) = Box::pin(shutdown.run_until_cancelled(self.find())).await else {
            return Ok(());
        };
        let queue = queue?;
        let Self { config, name, client: _ } = *self;
        emitter.ready();
        let asked = config.visibility_timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let receiving = Receiving {
            name,
            visibility: asked.unwrap_or(queue.visibility()),
            asked,
            queue,
            emitter,
            away: AtomicBool::new(false),
            turn: Mutex::new(()),
            wanted: watch::channel(1).0,
            stop: shutdown.child_token(),
            config,
        };
        Arc::new(receiving).run().await
    }
}

/// One stay at the queue.
struct Receiving {
    config: AwsSqsConfig,
    name: ResourceName,
    queue: Queue,
    emitter: Emitter,
    /// For how long SQS is asked to keep a message from others.
    asked: Option<Duration>,
    /// For how long it does.
    visibility: Duration,
    /// Whether it was told that SQS does not serve us.
    away: AtomicBool,
    /// One hands over at a time: what the broker says to one of several must not be told as what it says to all.
    turn: Mutex<()>,
    /// How many calls are to receive at a time: all while there is much, one while there is nothing.
    wanted: watch::Sender<u16>,
    /// Cancelled by the engine, or by a receiver that failed for good.
    stop: CancellationToken,
}

impl Receiving {
    async fn run(self: Arc<Self>) -> Result<(), SourceError> {
        let mut receivers = JoinSet::new();
        for index in 0..self.config.receivers {
            receivers.spawn(Arc::clone(&self).receive(index));
        }
        let mut ended = Ok(());
        while let Some(receiver) = receivers.join_next().await {
            // The others finish what they have in hand.
            self.stop.cancel();
            match receiver {
                Ok(result) => ended = ended.and(result),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        ended
    }

    /// Receives, hands over and deletes, until it is to stop or nothing of it will do.
    async fn receive(self: Arc<Self>, index: u16) -> Result<(), SourceError> {
        let mut wanted = self.wanted.subscribe();
        let mut deleting = JoinSet::new();
        let mut pause = FIRST_PAUSE;
        let ended = loop {
            let receiving = async {
                // The sender is ours, so that there is always one.
                let _ = wanted.wait_for(|wanted| *wanted > index).await;
                self.queue.receive(self.asked).await
            };
            match Box::pin(self.stop.run_until_cancelled(receiving)).await {
                None => break Ok(()),
                Some(Ok(messages)) => {
                    pause = FIRST_PAUSE;
                    self.received(messages.len());
                    if messages.is_empty() {
                        continue;
                    }
                    match self.hand_over(messages).await {
                        Ok(handles) => {
                            if deleting.len() >= MOST_DELETIONS {
                                deleting.join_next().await;
                            }
                            deleting.spawn(Arc::clone(&self).delete(handles));
                        }
                        Err(error) => break error.end(),
                    }
                }
                Some(Err(problem)) if problem.may_pass() => {
                    self.away.store(true, Ordering::Relaxed);
                    self.emitter.not_ready(problem.into());
                    let _ = self.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
                Some(Err(problem)) => break Err(problem.into()),
            }
        };
        self.stop.cancel();
        while deleting.join_next().await.is_some() {}
        ended
    }

    /// Notes that SQS serves us, and how much there is.
    fn received(&self, messages: usize) {
        if self.away.swap(false, Ordering::Relaxed) {
            self.emitter.ready();
        }
        let most = self.config.receivers;
        let more = |wanted: u16| match messages {
            0 => 1,
            sqs::MOST_MESSAGES.. => wanted.saturating_mul(2).min(most),
            _ => wanted,
        };
        self.wanted.send_if_modified(|wanted| {
            let next = more(*wanted);
            std::mem::replace(wanted, next) != next
        });
    }

    /// Hands messages to the broker, and keeps them from others until it has them. Returns what deletes them.
    async fn hand_over(&self, messages: Vec<Message>) -> Result<Vec<String>, EmitError> {
        let events = messages
            .iter()
            .flat_map(|message| message::events_of(&self.config, self.queue.arn(), message))
            .collect();
        let handles: Vec<_> = messages.into_iter().map(|message| message.receipt_handle).collect();
        let handing = async {
            let commit = {
                let _turn = self.turn.lock().await;
                self.emitter.emit(events, None).await?
            };
            commit.resolved().await
        };
        let mut handing = std::pin::pin!(handing);
        // Three times before it would be over, so that one that fails does no harm.
        let every = (self.visibility / 3).max(LEAST_EXTENSION);
        let handed = loop {
            tokio::select! {
                biased;
                handed = &mut handing => break handed,
                () = tokio::time::sleep(every) => self.extend(&handles, self.visibility).await,
            }
        };
        if let Err(error) = handed {
            // Others, or we ourselves when we are back, need not wait for them.
            self.extend(&handles, Duration::ZERO).await;
            return Err(error);
        }
        Ok(handles)
    }

    async fn extend(&self, handles: &[String], visibility: Duration) {
        let left = match self.queue.extend(handles, visibility).await {
            Ok(left) => left.to_retry.len() + left.refused.len(),
            Err(problem) => {
                tracing::debug!(source = %self.name, %problem, "the visibility of messages was not changed");
                return;
            }
        };
        if left > 0 {
            tracing::debug!(source = %self.name, left, "the visibility of some messages was not changed");
        }
    }

    /// Deletes messages; what fails is tried again for a while, alone.
    async fn delete(self: Arc<Self>, mut handles: Vec<String>) {
        let until = Instant::now() + self.visibility.max(DELETE_PATIENCE);
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match self.queue.delete(&handles).await {
                Ok(left) => {
                    for (_, code) in left.refused {
                        tracing::debug!(source = %self.name, code, "a message is not deleted: it comes once more");
                    }
                    handles = left.to_retry;
                    if handles.is_empty() {
                        return;
                    }
                    "SQS did not delete it".to_owned()
                }
                Err(problem) if problem.may_pass() => problem.to_string(),
                Err(problem) => {
                    // To receive will fail too, or someone has to give the right to delete.
                    tracing::warn!(source = %self.name, %problem, messages = handles.len(), "messages are not deleted: they come once more");
                    return;
                }
            };
            if Instant::now() >= until || self.stop.is_cancelled() {
                tracing::warn!(source = %self.name, why, messages = handles.len(), "messages are not deleted: they come once more");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

#[cfg(test)]
mod suite;
