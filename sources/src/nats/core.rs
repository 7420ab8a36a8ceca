//! Listening to subjects of core NATS: what is not taken at once is lost, which is how core NATS is.

use std::collections::VecDeque;

use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};
use tokio_util::sync::CancellationToken;
use waypost_clients::nats::async_nats::{Message, Subscriber};
use waypost_clients::nats::{self, Standing};
use waypost_clients::{Problem, ProblemKind};
use waypost_core::Event;
use waypost_core::sink::BoxFuture;
use waypost_core::source::{EmitError, Emitter, SourceError};

use super::message::{Incoming, event_of};
use super::{MOST_BYTES, MOST_COMMITS, Nats};

/// The most messages in one commit.
const MOST_MESSAGES: usize = 1_000;

/// Whether the subjects may be listened to. In a group nobody listens for it: what came would be missing to the others.
pub(super) async fn check(source: &Nats, connection: &nats::Nats) -> Result<(), Problem> {
    match source.config.queue_group {
        Some(_) => connection.round_trip().await,
        None => listen(source, connection).await.map(drop),
    }
}

/// Listens until `shutdown`, or until the server refuses us.
pub(super) async fn run(
    source: &Nats,
    connection: &nats::Nats,
    emitter: &Emitter,
    shutdown: &CancellationToken,
) -> Result<(), SourceError> {
    let mut standing = connection.standing();
    let Some(listening) = shutdown.run_until_cancelled(listen(source, connection)).await else {
        return Ok(());
    };
    let mut messages = listening?;
    emitter.ready();
    let mut committing: VecDeque<BoxFuture<'static, Result<(), EmitError>>> = VecDeque::new();
    let ended = loop {
        let full = committing.len() >= MOST_COMMITS;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            committed = oldest(&mut committing) => {
                if let Err(error) = committed {
                    return error.end();
                }
            }
            () = connection.refused() => {
                if let Some(refused) = refusal(source, connection) {
                    break Err(refused.into());
                }
            }
            changed = standing.changed() => {
                let now: Standing = if changed.is_ok() { standing.borrow_and_update().clone() } else { None };
                match now {
                    None => emitter.ready(),
                    Some(problem) if problem.may_pass() => emitter.not_ready(problem.into()),
                    Some(problem) => break Err(problem.into()),
                }
            }
            events = take(source, &mut messages), if !full => match emitter.emit(events, None).await {
                Ok(commit) => committing.push_back(Box::pin(commit.resolved())),
                Err(error) => break error.end(),
            },
        }
    };
    while let Some(commit) = committing.pop_front() {
        if commit.await.is_err() {
            break;
        }
    }
    ended
}

/// Subscribes, and waits until the server has taken that or refused it.
async fn listen(source: &Nats, connection: &nats::Nats) -> Result<SelectAll<Subscriber>, Problem> {
    let mut subscribers = Vec::with_capacity(source.config.subjects.len());
    for subject in &source.config.subjects {
        let client = connection.client();
        let subscribed = match &source.config.queue_group {
            Some(group) => client.queue_subscribe(subject.clone(), group.clone()).await,
            None => client.subscribe(subject.clone()).await,
        };
        subscribers.push(subscribed.map_err(|error| {
            Problem::new(ProblemKind::Settings, format!("NATS: `{subject}` cannot be listened to: {error}"))
        })?);
    }
    connection.round_trip().await?;
    match refusal(source, connection) {
        Some(refused) => Err(refused),
        None => Ok(select_all(subscribers)),
    }
}

/// Why we may not listen to one of the subjects.
fn refusal(source: &Nats, connection: &nats::Nats) -> Option<Problem> {
    source.config.subjects.iter().find_map(|subject| connection.refusal_of(subject))
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

/// Waits for a message and takes what has come with it. Cancel-safe: it waits only before the first.
async fn take(source: &Nats, messages: &mut SelectAll<Subscriber>) -> Vec<Event> {
    // The subscriptions end with the connection, which does not end before this source.
    let Some(first) = messages.next().await else { return std::future::pending().await };
    let mut events = vec![event(source, &first)];
    let mut bytes = events[0].size();
    while events.len() < MOST_MESSAGES && bytes < MOST_BYTES {
        tokio::select! {
            biased;
            Some(message) = messages.next() => {
                let event = event(source, &message);
                bytes += event.size();
                events.push(event);
            }
            () = std::future::ready(()) => break,
        }
    }
    events
}

fn event(source: &Nats, message: &Message) -> Event {
    let incoming = Incoming {
        subject: message.subject.as_str(),
        headers: message.headers.as_ref(),
        payload: &message.payload,
        place: None,
    };
    event_of(&source.config, &source.name, &incoming)
}
