//! Pulling a subscription: messages are acknowledged after the commit of their events, and their deadlines extended until
//! then. What event a message becomes is the caller's.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use waypost_clients::google::{PubsubMessage, ReceivedMessage, Subscriber};
use waypost_clients::{Problem, ProblemKind};
use waypost_core::Event;
use waypost_core::sink::BoxFuture;
use waypost_core::source::{EmitError, Emitter, SourceError};

/// The most messages of one pull, which is one commit.
const MOST_MESSAGES: usize = 1_000;

/// The most bytes that are pulled at once, judged by the pull before.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// How many messages the first pull asks for.
const FIRST_MESSAGES: usize = 100;

/// The most commits under way.
const MOST_COMMITS: usize = 4;

/// The deadline of a subscription that we may not look at, and of one that we make: Google's own.
const DEADLINE: Duration = Duration::from_secs(10);

/// How much longer than its deadline a message is left to us at once: so long others wait for what a process had that was
/// killed.
const EXTENDED: Duration = Duration::from_secs(15);

/// The pause after a pull that failed, for the first time and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Makes the event of a message; none where the settings leave it out.
type EventOf<'u> = dyn Fn(PubsubMessage) -> Option<Event> + Send + Sync + 'u;

/// What is read, and what becomes of it.
pub(crate) struct Upstream<'u> {
    pub(crate) subscriber: &'u Subscriber,
    /// The topic of a subscription that is created where it is not there.
    pub(crate) topic: Option<&'u str>,
    pub(crate) event_of: &'u EventOf<'u>,
}

/// Reads until `shutdown`, or until Google refuses us.
pub(crate) async fn run(
    upstream: &Upstream<'_>,
    emitter: &Emitter,
    shutdown: &CancellationToken,
) -> Result<(), SourceError> {
    let Some(found) = shutdown.run_until_cancelled(find(upstream)).await else { return Ok(()) };
    let (deadline, first) = found?;
    emitter.ready();
    let mut extensions = tokio::time::interval(deadline / 3);
    extensions.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reading = Reading {
        upstream,
        emitter,
        extensions,
        deadline: deadline.max(EXTENDED),
        most: FIRST_MESSAGES,
        pull: None,
        pause: FIRST_PAUSE,
        committing: VecDeque::new(),
        held: VecDeque::new(),
    };
    let ended = match reading.emit(first).await {
        Ok(()) => reading.run(shutdown).await,
        Err(error) => error.end(),
    };
    reading.finish().await;
    ended
}

/// Whether the subscription is there, or could be made, and whether we may consume it. Takes no message, since that would
/// keep it from others.
pub(crate) async fn check(subscriber: &Subscriber, topic: Option<&str>) -> Result<(), Problem> {
    let checked = match subscriber.find().await {
        Err(problem) if problem.kind == ProblemKind::Absent && topic.is_some() => return Ok(()),
        Err(problem) => Err(problem),
        Ok(_) => subscriber.check_rights().await,
    };
    checked.map_err(|problem| of_subscription(subscriber, problem))
}

fn of_subscription(subscriber: &Subscriber, mut problem: Problem) -> Problem {
    problem.detail = format!("the subscription `{}`: {}", subscriber.subscription(), problem.detail);
    problem
}

/// Finds the subscription, or makes it, and pulls for the first time, which tells whether we may. Returns the deadline of
/// its messages and what was pulled.
async fn find(upstream: &Upstream<'_>) -> Result<(Duration, Vec<ReceivedMessage>), Problem> {
    let subscriber = upstream.subscriber;
    let found = match (subscriber.find().await, upstream.topic) {
        (Err(problem), Some(topic)) if problem.kind == ProblemKind::Absent => {
            subscriber.create(topic, DEADLINE).await?;
            None
        }
        (found, _) => found.map_err(|problem| of_subscription(subscriber, problem))?,
    };
    let seconds = found.map_or(0, |found| u64::try_from(found.ack_deadline_seconds).unwrap_or(0));
    let deadline = if seconds == 0 { DEADLINE } else { Duration::from_secs(seconds) };
    Ok((deadline, subscriber.pull(FIRST_MESSAGES, false).await?))
}

/// What comes next.
enum Next {
    Stop,
    Committed(Result<(), EmitError>),
    Extend,
    Pulled(Result<Vec<ReceivedMessage>, Problem>),
}

type Pull = BoxFuture<'static, Result<Vec<ReceivedMessage>, Problem>>;

/// One stay at the subscription.
struct Reading<'r> {
    upstream: &'r Upstream<'r>,
    emitter: &'r Emitter,
    extensions: Interval,
    /// How long messages are left to us at a time.
    deadline: Duration,
    /// How many messages the next pull asks for.
    most: usize,
    /// The pull under way, which is not given up before the end: it may have taken messages.
    pull: Option<Pull>,
    /// How long to wait where the next pull fails.
    pause: Duration,
    committing: VecDeque<BoxFuture<'static, Result<(), EmitError>>>,
    /// What acknowledges the messages of each commit under way.
    held: VecDeque<Vec<String>>,
}

impl Reading<'_> {
    async fn run(&mut self, shutdown: &CancellationToken) -> Result<(), SourceError> {
        loop {
            if self.committing.len() < MOST_COMMITS && self.pull.is_none() {
                self.pull = Some(pull(self.upstream.subscriber.clone(), self.most, Duration::ZERO));
            }
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => Next::Stop,
                committed = oldest(&mut self.committing) => Next::Committed(committed),
                _ = self.extensions.tick() => Next::Extend,
                pulled = pulled(&mut self.pull) => Next::Pulled(pulled),
            };
            match next {
                Next::Stop => return Ok(()),
                Next::Committed(Ok(())) => self.acknowledge().await,
                Next::Committed(Err(error)) => return error.end(),
                Next::Extend => extend(self.upstream.subscriber, &self.held, &[], self.deadline).await,
                Next::Pulled(Ok(messages)) => {
                    if self.pause > FIRST_PAUSE {
                        self.emitter.ready();
                    }
                    self.pause = FIRST_PAUSE;
                    if let Err(error) = self.emit(messages).await {
                        return error.end();
                    }
                }
                Next::Pulled(Err(problem)) if problem.may_pass() => {
                    self.emitter.not_ready(problem.into());
                    self.pull = Some(pull(self.upstream.subscriber.clone(), self.most, self.pause));
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
                Next::Pulled(Err(problem)) => return Err(problem.into()),
            }
        }
    }

    /// Hands messages to the broker. While it takes none, nothing more is emitted, and the deadlines are extended.
    async fn emit(&mut self, messages: Vec<ReceivedMessage>) -> Result<(), EmitError> {
        if messages.is_empty() {
            return Ok(());
        }
        let (mut events, mut ack_ids, mut bytes) = (Vec::with_capacity(messages.len()), Vec::new(), 0);
        for received in messages {
            ack_ids.push(received.ack_id);
            if let Some(event) = received.message.and_then(|message| (self.upstream.event_of)(message)) {
                bytes += event.size();
                events.push(event);
            }
        }
        self.most = (MOST_BYTES / (bytes / ack_ids.len()).max(1)).clamp(1, MOST_MESSAGES);
        if events.is_empty() {
            // The settings leave all of them out.
            self.committing.push_back(Box::pin(std::future::ready(Ok(()))));
            self.held.push_back(ack_ids);
            return Ok(());
        }
        let emitted = {
            let mut emitting = std::pin::pin!(self.emitter.emit(events, None));
            loop {
                tokio::select! {
                    biased;
                    emitted = &mut emitting => break emitted,
                    _ = self.extensions.tick() => {
                        extend(self.upstream.subscriber, &self.held, &ack_ids, self.deadline).await;
                    }
                }
            }
        };
        match emitted {
            Ok(commit) => {
                self.committing.push_back(Box::pin(commit.resolved()));
                self.held.push_back(ack_ids);
                Ok(())
            }
            Err(error) => {
                give_back(self.upstream.subscriber, &ack_ids).await;
                Err(error)
            }
        }
    }

    /// Acknowledges the messages of the commit that has resolved: the oldest.
    async fn acknowledge(&mut self) {
        let Some(ack_ids) = self.held.pop_front() else { return };
        // Where this fails the messages come once more, with the same ids.
        if let Err(problem) = self.upstream.subscriber.acknowledge(&ack_ids).await {
            tracing::debug!(subscription = self.upstream.subscriber.subscription(), %problem, "not acknowledged");
        }
    }

    /// Waits for the commits under way, and gives back what a pull has brought meanwhile: the engine bounds that.
    async fn finish(&mut self) {
        if let Some(Some(Ok(messages))) = self.pull.take().map(futures_util::FutureExt::now_or_never) {
            let ack_ids: Vec<_> = messages.into_iter().map(|message| message.ack_id).collect();
            give_back(self.upstream.subscriber, &ack_ids).await;
        }
        while let Some(commit) = self.committing.pop_front() {
            if commit.await.is_err() {
                break;
            }
            self.acknowledge().await;
        }
        for ack_ids in &self.held {
            give_back(self.upstream.subscriber, ack_ids).await;
        }
    }
}

/// Leaves to us what we hold, and more.
async fn extend(subscriber: &Subscriber, held: &VecDeque<Vec<String>>, more: &[String], deadline: Duration) {
    for ack_ids in held.iter().map(Vec::as_slice).chain([more]) {
        // Where this fails the messages may come once more, with the same ids.
        if let Err(problem) = subscriber.extend(ack_ids, deadline).await {
            tracing::debug!(subscription = subscriber.subscription(), %problem, "deadlines were not extended");
        }
    }
}

/// Lets others have messages at once.
async fn give_back(subscriber: &Subscriber, ack_ids: &[String]) {
    // Where this fails they have to wait for the deadline.
    let _ = subscriber.extend(ack_ids, Duration::ZERO).await;
}

fn pull(subscriber: Subscriber, most: usize, pause: Duration) -> Pull {
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        subscriber.pull(most, true).await
    })
}

/// Waits for the pull under way, for ever where there is none. Cancel-safe.
async fn pulled(pull: &mut Option<Pull>) -> Result<Vec<ReceivedMessage>, Problem> {
    let Some(under_way) = pull else { return std::future::pending().await };
    let pulled = under_way.await;
    *pull = None;
    pulled
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
