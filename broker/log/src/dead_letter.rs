//! The built-in store of dead letters.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use waypost_core::Code;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::error::{ReadError, WriteError};
use crate::ledger::{ATTEMPTS_KEPT, AcceptedOutputs, Attempt};
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
    /// The record.
    pub record: LetterRecord,
    /// Why it was given up.
    pub reason: DeadLetterReason,
    /// The last attempts, the newest last; at most [`crate::ledger::ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
    /// How many attempts were made in all.
    pub attempts_made: u32,
    /// When it was given up; where it was redriven since and failed again, when it did.
    pub at: Timestamp,
    /// What became of its way to the dead-letter sink.
    pub forwarding: Forwarding,
    /// The newest redrive at which it failed again.
    pub redriven: Option<RedriveId>,
    /// The outputs of the trigger's transformations that the subscriber has: the others are owed.
    pub accepted: Option<AcceptedOutputs>,
}

/// The record of a dead letter.
#[derive(Debug, Clone)]
pub enum LetterRecord {
    /// It is there.
    Readable(Arc<Entry>),
    /// It is damaged: nothing is left to send again.
    Lost,
    /// It cannot be read for the moment.
    Unreadable(ReadError),
}

impl DeadLetter {
    /// The record, where it can be read.
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        match &self.record {
            LetterRecord::Readable(entry) => Some(entry),
            LetterRecord::Lost | LetterRecord::Unreadable(_) => None,
        }
    }
}

/// The number of a redrive: each has a higher one than those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedriveId(pub u64);

/// Which dead letters are meant; the default: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterSelection {
    /// Only those of this trigger.
    pub trigger: Option<ResourceName>,
    /// Only those whose event has this type. One whose event cannot be read has none.
    pub event_type: Option<String>,
    /// Only those that were given up with this code.
    pub code: Option<Code>,
    /// Only those that were given up at this moment or later.
    pub since: Option<Timestamp>,
    /// Only those that were given up before this moment.
    pub until: Option<Timestamp>,
    /// Only those up to this number.
    pub through: Option<DeadLetterId>,
    /// Only those whose event can be read and that did not fail again at this redrive or at a later one.
    pub open_to: Option<RedriveId>,
}

/// What is looked at to tell whether a dead letter is selected, but for the type of its event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits<'a> {
    pub(crate) id: DeadLetterId,
    pub(crate) trigger: &'a ResourceName,
    pub(crate) code: Code,
    pub(crate) at: Timestamp,
    pub(crate) readable: bool,
    pub(crate) redriven: Option<RedriveId>,
}

impl LetterSelection {
    /// Whether a dead letter is selected as far as the type of its event has no say.
    pub(crate) fn admits(&self, letter: &Traits<'_>) -> bool {
        self.trigger.as_ref().is_none_or(|trigger| trigger == letter.trigger)
            && self.code.is_none_or(|code| code == letter.code)
            && self.since.is_none_or(|since| letter.at >= since)
            && self.until.is_none_or(|until| letter.at < until)
            && self.through.is_none_or(|through| letter.id <= through)
            && self.open_to.is_none_or(|redrive| {
                letter.readable && letter.redriven.is_none_or(|failed_at| failed_at < redrive)
            })
    }

    /// Whether an event of this type may be that of a selected dead letter; no type: it cannot be read.
    pub(crate) fn admits_type(&self, event_type: Option<&str>) -> bool {
        self.event_type.as_deref().is_none_or(|wanted| event_type == Some(wanted))
    }
}

/// That a dead letter was redriven, and failed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAgain {
    /// The redrive, which does not try it again.
    pub redrive: RedriveId,
    /// Why it was given up, in the place of the reason before.
    pub reason: DeadLetterReason,
    /// The attempts that were made, the newest last; their numbers go on from those before.
    pub attempts: Vec<Attempt>,
    /// When it was given up.
    pub at: Timestamp,
    /// The outputs that the subscriber has by now, where that is not what it was.
    pub accepted: Option<AcceptedOutputs>,
}

impl FailedAgain {
    /// Adds the attempts to those before, of which the newest are kept. Returns how many there were in all.
    pub(crate) fn add_attempts(&self, attempts: &mut Vec<Attempt>, made: u32) -> u32 {
        attempts.extend_from_slice(&self.attempts);
        let excess = attempts.len().saturating_sub(ATTEMPTS_KEPT);
        attempts.drain(..excess);
        made.saturating_add(u32::try_from(self.attempts.len()).unwrap_or(u32::MAX))
    }
}

/// Who is sending which dead letter: one at a time, be it a forwarder or a redrive. Not durable, since what sends ends
/// with the process.
#[derive(Debug, Clone, Default)]
pub struct LetterClaims(Arc<Mutex<HashSet<DeadLetterId>>>);

impl LetterClaims {
    /// The right to send a dead letter, until it is dropped. None while someone else has it.
    pub fn take(&self, id: DeadLetterId) -> Option<LetterClaim> {
        self.0.lock().insert(id).then(|| LetterClaim { claims: self.clone(), id })
    }

    /// Whether someone sends it now.
    pub fn has(&self, id: DeadLetterId) -> bool {
        self.0.lock().contains(&id)
    }
}

/// The right to send one dead letter, given back when it is dropped.
#[derive(Debug)]
#[must_use = "the right is given back when this is dropped"]
pub struct LetterClaim {
    claims: LetterClaims,
    id: DeadLetterId,
}

impl LetterClaim {
    /// Whose it is.
    pub fn id(&self) -> DeadLetterId {
        self.id
    }
}

impl Drop for LetterClaim {
    fn drop(&mut self) {
        self.claims.0.lock().remove(&self.id);
    }
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

    /// The numbers of those that are selected, above `after`, in order; at most `limit`. Reads no contents, except
    /// where a type is asked for: then each event is read once in the life of the process, for its type.
    async fn select(
        &self,
        selection: &LetterSelection,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Vec<DeadLetterId>;

    /// One of them.
    async fn get(&self, id: DeadLetterId) -> Option<Arc<DeadLetter>>;

    /// The triggers that have any, in the order of their names.
    fn triggers(&self) -> Vec<ResourceName>;

    /// How many a trigger has.
    fn count(&self, trigger: &ResourceName) -> u64;

    /// How many a redrive left behind because they failed again at it, or at a later one.
    fn count_failed(&self, redrive: RedriveId) -> u64;

    /// The rights to send them.
    fn claims(&self) -> &LetterClaims;

    /// Those of `trigger` whose forwarding is due at `now` and that nobody sends, the longest due first.
    fn due(&self, trigger: &ResourceName, now: Timestamp, limit: usize) -> Vec<DeadLetterId>;

    /// When the next forwarding of `trigger` is due, be it one that is being sent.
    fn next_due(&self, trigger: &ResourceName) -> Option<Timestamp>;

    /// Notes what became of a forwarding. False where the dead letter is gone.
    fn set_forwarding(&self, id: DeadLetterId, forwarding: Forwarding) -> Result<bool, WriteError>;

    /// Notes that one failed again at a redrive. False where the dead letter is gone.
    fn failed_again(&self, id: DeadLetterId, failure: &FailedAgain) -> Result<bool, WriteError>;

    /// Takes one out: it was forwarded, redriven or purged. False where it was gone already.
    fn remove(&self, id: DeadLetterId) -> Result<bool, WriteError>;
}
