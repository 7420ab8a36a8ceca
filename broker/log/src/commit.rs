//! What an append waits for, and what resolves it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::CommitError;
use crate::record::Position;

/// Where a batch was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The position of the first record.
    pub first: Position,
    /// The number of records.
    pub count: u32,
}

/// Resolves once the batch is durable, as [`Durability`](crate::Durability) says. Cancel-safe; dropping it does not undo
/// the append.
#[must_use = "the batch is not durable until the commit resolves"]
#[derive(Debug)]
pub struct Commit(State);

#[derive(Debug)]
enum State {
    Done(Result<Committed, CommitError>),
    Pending(oneshot::Receiver<Told>),
}

impl Commit {
    /// A commit that is resolved already.
    pub fn done(result: Result<Committed, CommitError>) -> Self {
        Self(State::Done(result))
    }
}

impl Future for Commit {
    type Output = Result<Committed, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Done(result) => Poll::Ready(result.clone()),
            State::Pending(receiver) => Pin::new(receiver).poll(context).map(|told| match told {
                Ok(Told { result, others }) => {
                    drop(others);
                    result
                }
                Err(_) => {
                    Err(CommitError { reason: "the log stopped before it answered".to_owned(), full: false })
                }
            }),
        }
    }
}

/// The other end of a commit.
#[derive(Debug)]
pub(crate) struct Answer(oneshot::Sender<Told>);

/// What comes of a commit.
#[derive(Debug)]
struct Told {
    result: Result<Committed, CommitError>,
    others: Others,
}

/// Commits that are resolved when this is dropped, by whoever was told first. Where nobody takes it, it is dropped at once.
#[derive(Debug, Default)]
struct Others(Vec<(Answer, Committed)>);

impl Drop for Others {
    fn drop(&mut self) {
        for (answer, committed) in self.0.drain(..) {
            answer.send(Ok(committed));
        }
    }
}

impl Answer {
    /// A commit, and what resolves it.
    pub(crate) fn channel() -> (Self, Commit) {
        let (answer, commit) = oneshot::channel();
        (Self(answer), Commit(State::Pending(commit)))
    }

    /// Resolves the commit. Nobody may be waiting: the batch is what it is all the same.
    pub(crate) fn send(self, result: Result<Committed, CommitError>) {
        let _ = self.0.send(Told { result, others: Others::default() });
    }

    /// Resolves commits of those who do nothing but wait. The first to be told tells the others, from its own thread: to
    /// wake each of them from here is a system call each.
    pub(crate) fn send_together(answers: Vec<(Self, Committed)>) {
        let mut answers = answers.into_iter();
        let Some((first, committed)) = answers.next() else { return };
        let _ = first.0.send(Told { result: Ok(committed), others: Others(answers.collect()) });
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn commits() -> (Vec<(Answer, Committed)>, Vec<Commit>) {
        let committed = |offset| Committed { first: Position { partition: 0, offset }, count: 1 };
        (0..3)
            .map(|offset| {
                let (answer, commit) = Answer::channel();
                ((answer, committed(offset)), commit)
            })
            .unzip()
    }

    fn offset_of(commit: &mut Commit) -> Option<u64> {
        match Pin::new(commit).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result.expect("it is durable").first.offset),
            Poll::Pending => None,
        }
    }

    #[test]
    fn whoever_is_told_first_tells_the_others() {
        let (answers, mut commits) = commits();
        Answer::send_together(answers);
        assert_eq!(offset_of(&mut commits[2]), None);
        assert_eq!(offset_of(&mut commits[0]), Some(0));
        assert_eq!(offset_of(&mut commits[2]), Some(2));
        assert_eq!(offset_of(&mut commits[1]), Some(1));
    }

    #[test]
    fn the_others_are_told_where_the_first_has_gone() {
        for told_before in [false, true] {
            let (answers, mut commits) = commits();
            let mut answers = Some(answers);
            if told_before {
                answers.take().into_iter().for_each(Answer::send_together);
            }
            drop(commits.remove(0));
            answers.into_iter().for_each(Answer::send_together);
            assert_eq!(offset_of(&mut commits[1]), Some(2));
            assert_eq!(offset_of(&mut commits[0]), Some(1));
        }
    }
}
