//! The dead letters of a log: their contents, and the events that they are about.

use std::sync::Arc;

use async_trait::async_trait;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::dead_letter::{
    DeadLetter, DeadLetterId, DeadLetters, FailedAgain, Forwarding, LetterClaims, LetterRecord,
    LetterSelection, RedriveId,
};
use crate::embedded::checkpoint::Kind;
use crate::embedded::letters::{Content, Found};
use crate::embedded::log::BrokerLog;
use crate::embedded::note::StoredLetter;
use crate::error::{ReadError, WriteError};

impl BrokerLog {
    async fn letter(&self, id: DeadLetterId) -> Option<Arc<DeadLetter>> {
        let stored = self.stored_letter(id)?;
        let record = match stored.readable {
            true => match self.fetch_one(stored.offset).await {
                Ok(entry) => LetterRecord::Readable(entry),
                Err(error @ ReadError::Failed { .. }) => LetterRecord::Unreadable(error),
                Err(_) => LetterRecord::Lost,
            },
            false => LetterRecord::Lost,
        };
        let StoredLetter {
            trigger,
            offset,
            reason,
            attempts,
            attempts_made,
            at,
            forwarding,
            redriven,
            accepted,
            ..
        } = stored;
        let position = self.position(offset);
        if let LetterRecord::Readable(entry) = &record {
            self.books.letters.learn_type(id, entry.event.event_type());
        }
        Some(Arc::new(DeadLetter {
            id,
            trigger,
            position,
            record,
            reason,
            attempts,
            attempts_made,
            at,
            forwarding,
            redriven,
            accepted,
        }))
    }

    fn stored_letter(&self, id: DeadLetterId) -> Option<StoredLetter> {
        let content = match self.books.letters.content(id) {
            Content::Held(content) => content.to_vec(),
            Content::Gone => return None,
            Content::InCheckpoint => match self.shared.checkpoint.get(&self.name, Kind::Letter, id.0) {
                Ok(content) => content?,
                Err(error) => {
                    tracing::error!(log = %self.name.name, letter = id.0, %error, "a dead letter cannot be read");
                    return None;
                }
            },
        };
        StoredLetter::decode(&content)
            .inspect_err(|corrupt| {
                tracing::error!(log = %self.name.name, letter = id.0, %corrupt, "a dead letter is corrupt");
            })
            .ok()
    }
}

#[async_trait]
impl DeadLetters for BrokerLog {
    async fn list(
        &self,
        trigger: Option<&ResourceName>,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Vec<Arc<DeadLetter>> {
        let mut all = Vec::new();
        let selection = LetterSelection { trigger: trigger.cloned(), ..LetterSelection::default() };
        for id in self.select(&selection, after, limit).await {
            all.extend(self.letter(id).await);
        }
        all
    }

    async fn select(
        &self,
        selection: &LetterSelection,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Vec<DeadLetterId> {
        let letters = &self.books.letters;
        let (mut selected, mut after) = (Vec::new(), after);
        loop {
            let judged = letters.judge(selection, after);
            for found in judged.found {
                if selected.len() >= limit {
                    return selected;
                }
                match found {
                    Found::Selected(id) => selected.push(id),
                    Found::OfUnknownType(id, offset) => {
                        let entry = self.fetch_one(offset).await;
                        if let Err(error @ ReadError::Failed { .. }) = &entry {
                            tracing::warn!(log = %self.name.name, letter = id.0, %error, "a dead letter is passed over: its type cannot be read now");
                        }
                        let entry = entry.ok();
                        let event_type = entry.as_ref().map(|entry| entry.event.event_type());
                        if let Some(event_type) = event_type {
                            letters.learn_type(id, event_type);
                        }
                        selected.extend(selection.admits_type(event_type).then_some(id));
                    }
                }
            }
            if judged.more_after.is_none() || selected.len() >= limit {
                return selected;
            }
            after = judged.more_after;
            tokio::task::yield_now().await;
        }
    }

    async fn get(&self, id: DeadLetterId) -> Option<Arc<DeadLetter>> {
        self.letter(id).await
    }

    fn triggers(&self) -> Vec<ResourceName> {
        self.books.letters.triggers()
    }

    fn count(&self, trigger: &ResourceName) -> u64 {
        self.books.letters.count(trigger)
    }

    fn count_failed(&self, redrive: RedriveId) -> u64 {
        self.books.letters.count_failed(redrive)
    }

    fn claims(&self) -> &LetterClaims {
        self.books.letters.claims()
    }

    fn due(&self, trigger: &ResourceName, now: Timestamp, limit: usize) -> Vec<DeadLetterId> {
        self.books.letters.due(trigger, now, limit)
    }

    fn next_due(&self, trigger: &ResourceName) -> Option<Timestamp> {
        self.books.letters.next_due(trigger)
    }

    fn set_forwarding(&self, id: DeadLetterId, forwarding: Forwarding) -> Result<bool, WriteError> {
        self.books.check_open()?;
        let Some(letter) = self.stored_letter(id) else { return Ok(false) };
        self.books.change_letter(id, &StoredLetter { forwarding, ..letter })
    }

    fn failed_again(&self, id: DeadLetterId, failure: &FailedAgain) -> Result<bool, WriteError> {
        self.books.check_open()?;
        let Some(mut letter) = self.stored_letter(id) else { return Ok(false) };
        letter.attempts_made = failure.add_attempts(&mut letter.attempts, letter.attempts_made);
        letter.redriven = letter.redriven.max(Some(failure.redrive));
        (letter.reason, letter.at) = (failure.reason.clone(), failure.at);
        letter.accepted = failure.accepted.or(letter.accepted);
        self.books.change_letter(id, &letter)
    }

    fn remove(&self, id: DeadLetterId) -> Result<bool, WriteError> {
        self.books.remove_letter(id)
    }
}
