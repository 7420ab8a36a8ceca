//! The dead letters of all brokers, as operators see them.

use std::sync::Arc;
use std::time::Duration;

use waypost_log::{DeadLetterId, DeadLetters, WriteError};

use super::Supervisor;
use crate::broker::Broker;
use crate::dead_letter::{LetterChoice, LetterDetails, LetterLine, LetterName, LetterQuery};

/// The dead letters that are looked up at once.
const PAGE: usize = 1_024;
/// How long a purge waits where too many changes wait for the disk.
const PURGE_PAUSE: Duration = Duration::from_millis(100);
/// How often it waits before it says so.
const PURGE_TRIES: u32 = 100;

impl Supervisor {
    /// See [`crate::Engine::dead_letters`].
    pub(crate) async fn dead_letters(
        &self,
        query: &LetterQuery,
        after: Option<&LetterName>,
        limit: usize,
    ) -> Vec<LetterLine> {
        let (mut lines, selection) = (Vec::new(), query.selection());
        for broker in self.brokers_of(query) {
            let after = match after {
                Some(after) if after.broker > *broker.name() => continue,
                Some(after) if after.broker == *broker.name() => Some(after.id),
                _ => None,
            };
            let store = broker.log().dead_letters();
            let room = limit.saturating_sub(lines.len());
            for id in store.select(&selection, after, room).await {
                // One at a time: no more than one body is held.
                if let Some(letter) = store.get(id).await {
                    lines.push(LetterLine::of(broker.name(), &letter));
                }
            }
        }
        lines
    }

    /// See [`crate::Engine::dead_letter`].
    pub(crate) async fn dead_letter(&self, name: &LetterName) -> Option<LetterDetails> {
        let broker = self.broker(&name.broker)?;
        let letter = broker.log().dead_letters().get(name.id).await?;
        let chain =
            broker.subscription(&letter.trigger).map(|trigger| trigger.delivering().transformations.clone());
        Some(LetterDetails::of(&name.broker, &letter, chain.as_ref()))
    }

    /// See [`crate::Engine::purge`].
    pub(crate) async fn purge(&self, choice: &LetterChoice) -> Result<u64, WriteError> {
        let mut purged = 0;
        match choice {
            LetterChoice::Named(names) => {
                for name in names {
                    if let Some(broker) = self.broker(&name.broker) {
                        purged += u64::from(remove(&*broker.log().dead_letters(), name.id).await?);
                    }
                }
            }
            LetterChoice::Query(query) => {
                for broker in self.brokers_of(query) {
                    purged += purge_of(&broker, query).await?;
                }
            }
        }
        tracing::info!(purged, "dead letters were purged");
        Ok(purged)
    }

    fn brokers_of(&self, query: &LetterQuery) -> Vec<Arc<Broker>> {
        self.brokers().into_iter().filter(|broker| query.admits_broker(broker.name())).collect()
    }
}

async fn purge_of(broker: &Broker, query: &LetterQuery) -> Result<u64, WriteError> {
    let (store, mut selection) = (broker.log().dead_letters(), query.selection());
    // What dies meanwhile was not meant.
    let newest = store.select(&selection, None, usize::MAX).await.last().copied();
    let Some(newest) = newest else { return Ok(0) };
    selection.through = Some(newest);
    let (mut purged, mut after) = (0, None);
    loop {
        let page = store.select(&selection, after, PAGE).await;
        let Some(last) = page.last() else { return Ok(purged) };
        after = Some(*last);
        for id in page {
            purged += u64::from(remove(&*store, id).await?);
        }
        tokio::task::yield_now().await;
    }
}

/// Removes one, later where too much waits for the disk.
async fn remove(store: &dyn DeadLetters, id: DeadLetterId) -> Result<bool, WriteError> {
    let mut tries = 0;
    loop {
        match store.remove(id) {
            Err(WriteError::Failed { .. }) if tries < PURGE_TRIES => tries += 1,
            removed => return removed,
        }
        tokio::time::sleep(PURGE_PAUSE).await;
    }
}
