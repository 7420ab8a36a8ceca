//! The built-in store of dead letters.

use std::sync::Arc;

use async_trait::async_trait;
use waypost_core::Code;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::error::WriteError;
use crate::ledger::Attempt;
use crate::record::{Entry, Position};

/// The number of a dead letter, unique within its broker's log and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeadLetterId(pub u64);

/// An event that a trigger could not deliver, with all that is known of the tries.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its number.
    pub id: DeadLetterId,
    /// The trigger, by name: dead letters outlive their trigger.
    pub trigger: ResourceName,
    /// Where its record stands, or stood, in the log.
    pub position: Position,
    /// The record. None where it is damaged: then nothing is left to send again.
    pub entry: Option<Arc<Entry>>,
    /// Why it was given up.
    pub reason: DeadLetterReason,
    /// The last attempts, the newest last; at most [`crate::ledger::ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
    /// How many attempts were made in all.
    pub attempts_made: u32,
    /// When it was given up.
    pub at: Timestamp,
    /// What became of its way to the dead-letter sink.
    pub forwarding: Forwarding,
}

/// Why a delivery was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterReason {
    /// The stable code.
    pub code: Code,
    /// One sentence for people.
    pub detail: String,
    /// Where the event could not be sent.
    pub destination: String,
    /// The last status that the subscriber answered, where it answered.
    pub status: Option<u16>,
    /// The beginning of the body that it answered with.
    pub body_excerpt: Option<bytes::Bytes>,
}

/// What became of a dead letter's way to the dead-letter sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarding {
    /// No dead-letter sink was named: it stays here.
    Kept,
    /// It waits to be forwarded.
    Waiting {
        /// The attempts made so far.
        attempts: u32,
        /// When the next one is due.
        due: Timestamp,
    },
    /// The dead-letter sink did not take it; it stays here until an operator decides.
    GivenUp {
        /// The attempts made.
        attempts: u32,
        /// What the last one said.
        detail: String,
    },
}

/// The store of dead letters of one broker. Putting one in is part of settling its delivery
/// ([`crate::Settlement::DeadLettered`]).
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Those of `trigger`, or of all, with an id above `after`, in order of ids.
    async fn list(
        &self,
        trigger: Option<&ResourceName>,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Vec<Arc<DeadLetter>>;

    /// One of them.
    async fn get(&self, id: DeadLetterId) -> Option<Arc<DeadLetter>>;

    /// How many a trigger has.
    fn count(&self, trigger: &ResourceName) -> u64;

    /// Those of `trigger` whose forwarding is due at `now`, the longest due first.
    fn due(&self, trigger: &ResourceName, now: Timestamp, limit: usize) -> Vec<DeadLetterId>;

    /// When the next forwarding of `trigger` is due.
    fn next_due(&self, trigger: &ResourceName) -> Option<Timestamp>;

    /// Notes what became of a forwarding. False where the dead letter is gone.
    fn set_forwarding(&self, id: DeadLetterId, forwarding: Forwarding) -> Result<bool, WriteError>;

    /// Takes one out: it was forwarded, redriven or purged. False where it was gone already.
    fn remove(&self, id: DeadLetterId) -> Result<bool, WriteError>;
}
