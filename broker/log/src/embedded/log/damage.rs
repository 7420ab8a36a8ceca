//! What is damaged, and what becomes of it.

use crate::embedded::log::BrokerLog;
use crate::embedded::rows::Accepted;
use crate::error::{ReadError, WriteError};
use crate::log::Ledgers;
use crate::record::Offset;

/// The sentences about damage that are kept.
const SENTENCES: usize = 64;

impl BrokerLog {
    /// What is damaged, in sentences.
    pub(crate) fn damage(&self) -> Vec<String> {
        self.damage.lock().clone()
    }

    /// Which match lists are lost, in sentences.
    pub(in crate::embedded) fn lost_lists(&self) -> Vec<String> {
        self.lists.lock().lost_sentences()
    }

    /// Whether an operator accepted what a sentence tells.
    pub(in crate::embedded) fn has_accepted(&self, sentence: &String) -> bool {
        self.accepted.read().told.contains(sentence)
    }

    /// Keeps what was found damaged, and says so once.
    pub(super) fn note_damage(&self, sentence: &str) {
        let mut damage = self.damage.lock();
        if damage.len() < SENTENCES && !damage.iter().any(|known| known == sentence) {
            tracing::error!(log = %self.name.name, damage = sentence, "the log is corrupt");
            damage.push(sentence.to_owned());
        }
    }

    /// Reads every record, and notes what is damaged.
    pub(crate) fn verify(&self) -> Result<Vec<String>, ReadError> {
        self.lost()?;
        Ok(self.damage())
    }

    /// The ranges of records that cannot be read.
    fn lost(&self) -> Result<Vec<(Offset, Offset)>, ReadError> {
        let mut lost: Vec<(Offset, Offset)> = Vec::new();
        self.visit(self.start()..self.end(), |offset, entry| {
            if let Err(damage) = entry {
                if !self.accepted.read().has(offset) {
                    self.note_damage(&damage.reason);
                }
                match lost.last_mut() {
                    Some((_, to)) if *to == offset => *to += 1,
                    _ => lost.push((offset, offset + 1)),
                }
            }
            true
        })?;
        Ok(lost)
    }

    /// Passes over from now on what cannot be read now, and counts anew what the match lists still tell.
    pub(crate) fn accept_damage(&self) -> Result<(), WriteError> {
        self.books.check_open()?;
        let failed = |reason: String| WriteError::Failed { reason };
        let lost = self.lost().map_err(|error| failed(error.to_string()))?;
        let mut told = self.accepted.read().told.clone();
        told.extend(self.damage.lock().iter().cloned());
        self.shared
            .exclusively(|flusher| {
                flusher.prepare()?;
                let lists = self.lists.lock().accept_damage();
                let (sentences, lists) =
                    lists.map_err(|error| format!("a match list cannot be read: {error}"))?;
                told.extend(sentences);
                let mut accepted = self.accepted.write();
                let lists = accepted.lists.iter().copied().chain(lists).collect();
                *accepted = Accepted { lost, lists, told };
                drop(accepted);
                // What was found meanwhile is not accepted.
                self.damage.lock().retain(|sentence| !self.has_accepted(sentence));
                flusher.commit(&[self.row()])
            })
            .map_err(failed)?;
        for (trigger, _) in self.triggers() {
            self.recount(super::PARTITION, trigger);
        }
        Ok(())
    }
}
