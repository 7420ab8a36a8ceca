//! Reading a stream by a durable consumer: messages are asked for as the broker takes them, acknowledged after their
//! commit, and reported as in progress until then.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use waypost_clients::nats::async_nats::jetstream::consumer::pull::{Batch, Config};
use waypost_clients::nats::async_nats::jetstream::consumer::{
    self, AckPolicy, DeliverPolicy, FromConsumer as _, PullConsumer,
};
use waypost_clients::nats::async_nats::jetstream::context::ConsumerInfoErrorKind;
use waypost_clients::nats::async_nats::jetstream::message::{AckKind, Acker};
use waypost_clients::nats::async_nats::jetstream::stream::{ConsumerError, Stream};
use waypost_clients::nats::async_nats::{self, jetstream};
use waypost_clients::nats::{self, Standing};
use waypost_clients::{Problem, ProblemKind};
use waypost_core::Event;
use waypost_core::manifest::ResourceName;
use waypost_core::sink::BoxFuture;
use waypost_core::source::{EmitError, Emitter, SourceError};

use super::message::{Incoming, Place, event_of};
use super::{MOST_BYTES, MOST_COMMITS, Nats, NatsDeliver, NatsStream};

/// The most messages that are asked for at once, and at first.
const MOST_MESSAGES: usize = 1_000;
const FIRST_MESSAGES: usize = 64;

/// The most bytes that are asked for at once, judged by the messages before.
const MOST_BYTES_ASKED: usize = 8 * MOST_BYTES;

/// How long a question for messages stands at the server.
const QUESTION_STANDS: Duration = Duration::from_secs(20);

/// How long a consumer that we make gives us for an acknowledgement; this long others wait for what a process had that
/// was killed.
const ACK_WAIT: Duration = Duration::from_secs(10);

/// The pause before a question that failed is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Reads until `shutdown`, or until the server has not what the settings name.
pub(super) async fn run(
    source: &Nats,
    stream: &NatsStream,
    connection: &nats::Nats,
    emitter: &Emitter,
    shutdown: &CancellationToken,
) -> Result<(), SourceError> {
    // Before anything that may change it.
    let standing = connection.standing();
    let finder = Finder { source, stream, connection };
    let Some(found) = shutdown.run_until_cancelled(finder.consumer()).await else { return Ok(()) };
    let consumer = found?;
    let wait = consumer.cached_info().config.ack_wait;
    // A third of the wait, so that a report that is late, or lost, costs nothing.
    let mut reports = tokio::time::interval((wait / 3).max(Duration::from_millis(100)));
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    emitter.ready();
    let mut reading = Reading {
        finder,
        consumer,
        emitter,
        standing,
        reports,
        question: None,
        most: FIRST_MESSAGES,
        ahead: VecDeque::new(),
        committing: VecDeque::new(),
        held: VecDeque::new(),
    };
    let ended = reading.run(shutdown).await;
    reading.finish().await;
    ended
}

/// Whether the stream is there, and our place in it could be ours. Makes none.
pub(super) async fn check(
    source: &Nats,
    stream: &NatsStream,
    connection: &nats::Nats,
) -> Result<(), Problem> {
    let finder = Finder { source, stream, connection };
    let (found, name) = (finder.stream().await?, finder.consumer_name());
    match found.consumer_info(&name).await {
        Ok(info) => finder.suits(&name, &info.config),
        // A run makes it.
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(()),
        Err(error) => Err(connection.problem(&error)),
    }
}

/// Finds the stream and our place in it.
struct Finder<'r> {
    source: &'r Nats,
    stream: &'r NatsStream,
    connection: &'r nats::Nats,
}

impl Finder<'_> {
    async fn stream(&self) -> Result<Stream, Problem> {
        let context = jetstream::new(self.connection.client().clone());
        let name = &self.stream.stream;
        context.get_stream(name).await.map_err(|error| {
            let problem = self.connection.problem(&error);
            Problem { detail: format!("the stream `{name}`: {}", problem.detail), ..problem }
        })
    }

    fn consumer_name(&self) -> String {
        self.stream.consumer.clone().unwrap_or_else(|| {
            let ResourceName { namespace, name } = &self.source.name;
            // Names of consumers have no dots.
            format!("waypost-{namespace}-{name}").replace('.', "_")
        })
    }

    /// Whether a consumer is one of the kind that we read by.
    fn suits(&self, name: &str, config: &consumer::Config) -> Result<(), Problem> {
        if config.ack_policy == AckPolicy::Explicit && config.deliver_subject.is_none() {
            return Ok(());
        }
        let detail = format!(
            "the consumer `{name}` of the stream `{}` is no pull consumer with explicit acknowledgement: name another, \
             or remove it",
            self.stream.stream
        );
        Err(Problem::new(ProblemKind::Settings, detail))
    }

    async fn consumer(&self) -> Result<PullConsumer, Problem> {
        let (stream, name) = (self.stream().await?, self.consumer_name());
        let subjects = &self.source.config.subjects;
        let wanted = Config {
            durable_name: Some(name.clone()),
            deliver_policy: match self.stream.deliver {
                NatsDeliver::All => DeliverPolicy::All,
                NatsDeliver::New => DeliverPolicy::New,
            },
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: i64::try_from(MOST_MESSAGES * (MOST_COMMITS + 2)).unwrap_or(i64::MAX),
            filter_subjects: subjects.clone(),
            ..Config::default()
        };
        let found: Result<PullConsumer, ConsumerError> = stream.get_or_create_consumer(&name, wanted).await;
        let found = found.map_err(|error| self.connection.problem(&error))?;
        let mut config = found.cached_info().config.clone();
        self.suits(&name, &config)?;
        let one = (!config.filter_subject.is_empty()).then_some(&config.filter_subject);
        let now: Vec<_> = config.filter_subjects.iter().chain(one).collect();
        if subjects.is_empty() || now.iter().copied().eq(subjects) {
            return Ok(found);
        }
        config.filter_subject.clear();
        config.filter_subjects.clone_from(subjects);
        let refused = |reason: String| {
            let detail =
                format!("the consumer `{name}` does not take the `subjects` as its filter: {reason}");
            Problem::new(ProblemKind::Settings, detail)
        };
        let config = Config::try_from_consumer_config(config).map_err(|error| refused(error.to_string()))?;
        stream.update_consumer(config).await.map_err(|error| refused(error.to_string()))
    }
}

/// A message as an event, and what acknowledges it.
struct Taken {
    event: Event,
    message: Acker,
}

/// What comes next.
enum Next {
    Stop,
    Committed(Result<(), EmitError>),
    Standing(Standing),
    Report,
    Taken,
    Failed,
}

/// One stay at the consumer.
struct Reading<'r> {
    finder: Finder<'r>,
    consumer: PullConsumer,
    emitter: &'r Emitter,
    standing: tokio::sync::watch::Receiver<Standing>,
    reports: Interval,
    /// What the server was asked for, as far as it has not come yet.
    question: Option<Batch>,
    /// How many messages the next question asks for.
    most: usize,
    /// What has come and was not handed over: at most what was asked for.
    ahead: VecDeque<Taken>,
    committing: VecDeque<BoxFuture<'static, Result<(), EmitError>>>,
    /// The messages of each commit under way.
    held: VecDeque<Vec<Acker>>,
}

impl Reading<'_> {
    async fn run(&mut self, shutdown: &CancellationToken) -> Result<(), SourceError> {
        loop {
            let full = self.committing.len() >= MOST_COMMITS;
            if self.question.is_none() && !full {
                // Not within a wait that may be given up: what is asked for comes, and is held for us.
                if self.ask().await.is_err() {
                    self.look(shutdown).await?;
                    continue;
                }
            }
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => Next::Stop,
                committed = oldest(&mut self.committing) => Next::Committed(committed),
                Ok(()) = self.standing.changed() => Next::Standing(self.standing.borrow_and_update().clone()),
                _ = self.reports.tick() => Next::Report,
                took = take(self.finder.source, &mut self.question, &mut self.ahead), if !full => match took {
                    Ok(()) => Next::Taken,
                    Err(_) => Next::Failed,
                },
            };
            match next {
                Next::Stop => return Ok(()),
                Next::Committed(Ok(())) => self.acknowledge().await,
                Next::Committed(Err(error)) => return error.end(),
                Next::Standing(None) => {
                    // The server forgot what we asked for.
                    drain(self.finder.source, &mut self.question, &mut self.ahead);
                    self.question = None;
                    self.emitter.ready();
                }
                Next::Standing(Some(problem)) if problem.may_pass() => self.emitter.not_ready(problem.into()),
                Next::Standing(Some(problem)) => return Err(problem.into()),
                Next::Report => self.report().await,
                Next::Taken => {
                    if let Err(error) = self.emit().await {
                        return error.end();
                    }
                }
                Next::Failed => self.look(shutdown).await?,
            }
        }
    }

    async fn ask(&mut self) -> Result<(), async_nats::Error> {
        let question = self.consumer.batch().max_messages(self.most).expires(QUESTION_STANDS);
        self.question = Some(question.messages().await?);
        Ok(())
    }

    /// Looks for the stream and the consumer after the server did not do as it was asked.
    async fn look(&mut self, shutdown: &CancellationToken) -> Result<(), SourceError> {
        drain(self.finder.source, &mut self.question, &mut self.ahead);
        self.question = None;
        let looked = async {
            tokio::time::sleep(ASK_AGAIN).await;
            self.finder.consumer().await
        };
        match shutdown.run_until_cancelled(looked).await {
            None => Ok(()),
            Some(Ok(consumer)) => {
                self.consumer = consumer;
                self.emitter.ready();
                Ok(())
            }
            Some(Err(problem)) if problem.may_pass() => {
                self.emitter.not_ready(problem.into());
                Ok(())
            }
            Some(Err(problem)) => Err(problem.into()),
        }
    }

    /// Hands what has come to the broker. While it takes none, nothing more is asked for, and the server hears of us all
    /// the same.
    async fn emit(&mut self) -> Result<(), EmitError> {
        let (mut events, mut messages, mut bytes) = (Vec::new(), Vec::new(), 0);
        while events.len() < MOST_MESSAGES && bytes < MOST_BYTES {
            let Some(Taken { event, message }) = self.ahead.pop_front() else { break };
            bytes += event.size();
            events.push(event);
            messages.push(message);
        }
        if events.is_empty() {
            return Ok(());
        }
        self.most = (MOST_BYTES_ASKED / (bytes / events.len()).max(1)).clamp(1, MOST_MESSAGES);
        let commit = {
            let mut emitting = std::pin::pin!(self.emitter.emit(events, None));
            loop {
                tokio::select! {
                    biased;
                    emitted = &mut emitting => break emitted,
                    _ = self.reports.tick() => {
                        // What was asked for before comes all the same.
                        drain(self.finder.source, &mut self.question, &mut self.ahead);
                        let held = self.held.iter().flatten();
                        for message in held.chain(&messages).chain(self.ahead.iter().map(|taken| &taken.message)) {
                            in_progress(message).await;
                        }
                    }
                }
            }
        };
        match commit {
            Ok(commit) => {
                self.committing.push_back(Box::pin(commit.resolved()));
                self.held.push_back(messages);
                Ok(())
            }
            Err(error) => {
                give_back(messages.iter()).await;
                Err(error)
            }
        }
    }

    /// Tells the server that we are at work on all that we hold.
    async fn report(&mut self) {
        drain(self.finder.source, &mut self.question, &mut self.ahead);
        let held = self.held.iter().flatten();
        for message in held.chain(self.ahead.iter().map(|taken| &taken.message)) {
            in_progress(message).await;
        }
    }

    /// Acknowledges the messages of the commit that has resolved: the oldest.
    async fn acknowledge(&mut self) {
        let messages = self.held.pop_front();
        for message in messages.into_iter().flatten() {
            // Where this fails the message comes once more, with the same id.
            if let Err(error) = message.ack().await {
                tracing::debug!(source = %self.finder.source.name, %error, "a message was not acknowledged");
            }
        }
    }

    /// Waits for the commits under way, and gives back what was not handed over: the engine bounds that.
    async fn finish(&mut self) {
        drain(self.finder.source, &mut self.question, &mut self.ahead);
        while let Some(commit) = self.committing.pop_front() {
            if commit.await.is_err() {
                break;
            }
            self.acknowledge().await;
        }
        give_back(self.ahead.iter().map(|taken| &taken.message)).await;
        let _ = tokio::time::timeout(nats::ANSWER_PATIENCE, self.finder.connection.round_trip()).await;
    }
}

/// Lets others have messages at once.
async fn give_back(messages: impl Iterator<Item = &Acker>) {
    for message in messages {
        // Where this fails they have to wait for the time-out.
        let _ = message.ack_with(AckKind::Nak(None)).await;
    }
}

async fn in_progress(message: &Acker) {
    // Where this fails the message comes once more, with the same id.
    let _ = message.ack_with(AckKind::Progress).await;
}

/// Waits for the oldest commit, for ever where none is under way. Cancel-safe.
async fn oldest(
    committing: &mut VecDeque<BoxFuture<'static, Result<(), EmitError>>>,
) -> Result<(), EmitError> {
    let Some(commit) = committing.front_mut() else { return std::future::pending().await };
    let committed = commit.await;
    committing.pop_front();
    committed
}

/// Waits for a message and takes what has come with it. Ends the question where it was answered in full. Cancel-safe: it waits only before the first.
async fn take(
    source: &Nats,
    question: &mut Option<Batch>,
    ahead: &mut VecDeque<Taken>,
) -> Result<(), async_nats::Error> {
    if !ahead.is_empty() {
        return Ok(());
    }
    let Some(batch) = question else { return std::future::pending().await };
    match batch.next().await {
        Some(Ok(message)) => put(source, message, ahead),
        Some(Err(error)) => return Err(error),
        None => *question = None,
    }
    drain(source, question, ahead);
    Ok(())
}

/// Takes what has come without waiting: all of it, which is no more than was asked for. What stayed behind because the
/// task had done its share would not be reported as in progress, and come twice.
fn drain(source: &Nats, question: &mut Option<Batch>, ahead: &mut VecDeque<Taken>) {
    while let Some(batch) = question {
        match tokio::task::unconstrained(batch.next()).now_or_never() {
            Some(Some(Ok(message))) => put(source, message, ahead),
            // What is wrong is told again by the next question.
            Some(Some(Err(_)) | None) => *question = None,
            None => return,
        }
    }
}

fn put(source: &Nats, message: jetstream::Message, ahead: &mut VecDeque<Taken>) {
    let event = {
        let info = message.info().ok();
        let place = info.as_ref().map(|info| Place {
            stream: info.stream,
            sequence: info.stream_sequence,
            time: Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).ok(),
        });
        let incoming = Incoming {
            subject: message.subject.as_str(),
            headers: message.headers.as_ref(),
            payload: &message.payload,
            place,
        };
        event_of(&source.config, &source.name, &incoming)
    };
    ahead.push_back(Taken { event, message: message.split().1 });
}
