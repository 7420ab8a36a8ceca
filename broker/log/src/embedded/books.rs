//! What ledgers write down, and who may still write.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use waypost_core::manifest::ResourceName;

use crate::clock::{Clock, Timestamp};
use crate::dead_letter::{DeadLetterId, Forwarding};
use crate::embedded::disk::Disk;
use crate::embedded::journal::Journal;
use crate::embedded::letters::Letters;
use crate::embedded::note::{Change, StoredLetter};
use crate::error::WriteError;
use crate::ledger::{
    self, ATTEMPTS_KEPT, AcceptedOutputs, Attempt, Debt, Delivered, DropReason, Key, Settlement, Settling,
};
use crate::log::TriggerNumber;
use crate::record::{Charge, Entry, Offset};

/// The bytes of the journal that are read for the attempts that a dead letter tells of, the newest first: far more than
/// [`ATTEMPTS_KEPT`] blocks. It is read under the lock of the ledger, by whoever delivers.
const SEARCHED_FOR_LETTER: u64 = 2 * 1024 * 1024;

/// Whether storage failed. After that nothing is acknowledged any more.
#[derive(Debug, Clone)]
pub(super) struct Poison(Arc<Poisoned>);

#[derive(Debug)]
struct Poisoned {
    /// Whether there is a reason: looked at with every change, and hardly ever set.
    set: AtomicBool,
    reason: watch::Sender<Option<String>>,
}

impl Poison {
    pub(super) fn new() -> Self {
        Self(Arc::new(Poisoned { set: AtomicBool::new(false), reason: watch::Sender::new(None) }))
    }

    /// Notes the first failure.
    pub(super) fn set(&self, reason: &str) {
        let first = self.0.reason.send_if_modified(|poisoned| {
            let first = poisoned.is_none();
            poisoned.get_or_insert_with(|| reason.to_owned());
            first
        });
        self.0.set.store(true, Ordering::SeqCst);
        if first {
            tracing::error!(reason, "storage failed: nothing is acknowledged any more");
        }
    }

    pub(super) fn reason(&self) -> Option<String> {
        if self.0.set.load(Ordering::SeqCst) { self.0.reason.borrow().clone() } else { None }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.reason.subscribe()
    }
}

/// Wakes whoever flushes.
pub(super) trait Alarm: std::fmt::Debug + Send + Sync {
    /// Something waits to be written.
    fn something_waits(&self);
}

/// The books of a log.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) journal: Journal,
    pub(super) letters: Letters,
    clock: Clock,
    poison: Poison,
    closed: AtomicBool,
    dirty: AtomicBool,
    /// The triggers whose ledgers are no longer what was written down of them. None is here twice.
    changed: Mutex<Vec<TriggerNumber>>,
    alarm: Arc<dyn Alarm>,
}

impl Books {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        clock: Clock,
        poison: Poison,
        alarm: Arc<dyn Alarm>,
    ) -> Self {
        Self {
            journal: Journal::new(disk, directory),
            letters: Letters::default(),
            clock,
            poison,
            closed: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
            changed: Mutex::default(),
            alarm,
        }
    }

    /// Lets nothing be written any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn check_open(&self) -> Result<(), WriteError> {
        if self.closed() {
            return Err(WriteError::Closed);
        }
        self.poison.reason().map_or(Ok(()), |reason| Err(WriteError::Failed { reason }))
    }

    /// Something waits to be written.
    pub(super) fn mark(&self) {
        if !self.dirty.swap(true, Ordering::SeqCst) {
            self.alarm.something_waits();
        }
    }

    /// Whether something waits; from now on nothing does.
    pub(super) fn unmark(&self) -> bool {
        self.dirty.swap(false, Ordering::SeqCst)
    }

    /// The triggers whose ledgers changed since this was last asked. Whoever asks writes them down.
    pub(super) fn take_changed(&self) -> Vec<TriggerNumber> {
        std::mem::take(&mut self.changed.lock())
    }

    /// Writes a change down.
    pub(super) fn note(&self, offset: Offset, trigger: TriggerNumber, change: Change) -> Option<u64> {
        let sequence = self.journal.note(offset, trigger, change);
        self.mark();
        sequence
    }

    /// Writes down a dead letter as it is now: false where it is gone.
    pub(super) fn change_letter(&self, id: DeadLetterId, letter: &StoredLetter) -> Result<bool, WriteError> {
        self.check_open()?;
        let note = |content: Bytes| self.note(0, NOBODY, Change::LetterChanged(id, content));
        self.letters.change(id, letter, note).ok_or_else(too_slow)
    }

    pub(super) fn remove_letter(&self, id: DeadLetterId) -> Result<bool, WriteError> {
        self.check_open()?;
        self.letters.remove(id, || self.note(0, NOBODY, Change::LetterRemoved(id))).ok_or_else(too_slow)
    }
}

/// Stands where a change is about no trigger.
pub(super) const NOBODY: TriggerNumber = TriggerNumber(u32::MAX);

fn too_slow() -> WriteError {
    WriteError::Failed { reason: "too many changes wait for the disk; try again a little later".to_owned() }
}

/// The books as one trigger's ledgers write in them.
#[derive(Debug)]
pub(super) struct TriggerBooks {
    trigger: Arc<ResourceName>,
    books: Arc<Books>,
    /// Whether the trigger stands among those whose ledgers changed. Looked at and set while the ledger is held, and only then.
    listed: AtomicBool,
}

impl TriggerBooks {
    pub(super) fn new(trigger: Arc<ResourceName>, books: Arc<Books>) -> Self {
        Self { trigger, books, listed: AtomicBool::new(false) }
    }

    /// Enters the trigger among those whose ledgers changed. Before anything is noted or marked for it: whoever writes the
    /// ledgers down takes it for granted that what was noted so far is of those that stand there.
    fn list(&self, trigger: TriggerNumber) {
        if !self.listed.load(Ordering::Relaxed) {
            self.listed.store(true, Ordering::Relaxed);
            self.books.changed.lock().push(trigger);
        }
    }

    fn write(&self, debt: Debt, change: Change) -> Result<(), WriteError> {
        self.books.check_open()?;
        self.list(debt.trigger);
        self.books.note(debt.position.offset, debt.trigger, change).map(drop).ok_or_else(too_slow)
    }
}

impl ledger::Journal for TriggerBooks {
    fn attempted(&self, debt: Debt, attempt: Attempt) {
        // An attempt that cannot be noted is only history.
        let _ = self.write(debt, Change::Attempted(attempt));
    }

    fn accepted(&self, debt: Debt, outputs: AcceptedOutputs) {
        // What cannot be noted is sent again.
        let _ = self.write(debt, Change::Accepted(outputs));
    }

    fn waiting(
        &self,
        debt: Debt,
        _entry: &Arc<Entry>,
        due: Timestamp,
        attempts: u32,
        key: Option<Key>,
    ) -> Result<Option<Charge>, WriteError> {
        self.write(debt, Change::Waiting { due, attempts, key }).map(|()| None)
    }

    fn held(&self, debt: Debt, _entry: &Arc<Entry>, key: Key) -> Result<Option<Charge>, WriteError> {
        self.write(debt, Change::Held(key)).map(|()| None)
    }

    fn settled(&self, settling: Settling<'_>) -> Result<(), WriteError> {
        let Settling { debt, readable, accepted, settlement, attempt, attempts_made, .. } = settling;
        let (reason, due) = match settlement {
            Settlement::Delivered => return self.write(debt, Change::Delivered(attempt)),
            Settlement::Dropped(reason) => return self.write(debt, Change::Dropped(reason, attempt)),
            Settlement::DeadLettered(reason, due) => (reason, due),
        };
        self.books.check_open()?;
        self.list(debt.trigger);
        let known = self.books.journal.find_within(debt.position.offset, debt.trigger, SEARCHED_FOR_LETTER);
        let mut attempts = known.attempts;
        attempts.extend(attempt.clone());
        let excess = attempts.len().saturating_sub(ATTEMPTS_KEPT);
        attempts.drain(..excess);
        // What has no body cannot be sent anywhere.
        let due = due.filter(|_| readable);
        let letter = StoredLetter {
            trigger: ResourceName::clone(&self.trigger),
            offset: debt.position.offset,
            readable,
            reason,
            attempts,
            attempts_made,
            at: self.books.clock.now(),
            forwarding: due.map_or(Forwarding::Kept, |due| Forwarding::Waiting { attempts: 0, due }),
            redriven: None,
            accepted,
        };
        let note = |id, content| {
            self.books.note(debt.position.offset, debt.trigger, Change::DeadLettered(attempt, id, content))
        };
        self.books.letters.put(&letter, note).map(drop).ok_or_else(too_slow)
    }

    fn delivered(&self, all: Vec<Delivered>) -> Result<(), WriteError> {
        self.books.check_open()?;
        all.iter().for_each(|one| self.list(one.debt.trigger));
        let change = |one: Delivered| (one.debt, Change::Delivered(Some(one.attempt)));
        let noted = self.books.journal.note_together(all.into_iter().map(change));
        self.books.mark();
        noted.then_some(()).ok_or_else(too_slow)
    }

    fn passed_over(
        &self,
        _partition: u16,
        trigger: TriggerNumber,
        reason: DropReason,
        untaken: u64,
        next: Offset,
    ) -> Result<(), WriteError> {
        self.books.check_open()?;
        self.list(trigger);
        let change = Change::PassedOver { reason, untaken, next };
        self.books.note(next, trigger, change).map(drop).ok_or_else(too_slow)
    }

    fn unsaid(&self, trigger: TriggerNumber) {
        // First, so that whoever the mark wakes finds it.
        self.list(trigger);
        self.books.mark();
    }

    fn changed(&self, trigger: TriggerNumber) {
        self.list(trigger);
    }

    fn written_down(&self) {
        self.listed.store(false, Ordering::Relaxed);
    }

    fn attempts(&self, debt: Debt) -> Vec<Attempt> {
        self.books.journal.find(debt.position.offset, debt.trigger).attempts
    }

    fn keeps_bodies_in_memory(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{OnceLock, Weak};

    use super::*;
    use crate::embedded::disk::simulated::SimulatedDisk;
    use crate::ledger::{AttemptOutcome, Ledger};

    const TRIGGER: TriggerNumber = TriggerNumber(3);

    /// Looks, at each mark, who is among those that changed: as whoever flushes may at that moment.
    #[derive(Debug, Default)]
    struct Looking {
        books: OnceLock<Weak<Books>>,
        found: Mutex<Vec<Vec<TriggerNumber>>>,
    }

    impl Alarm for Looking {
        fn something_waits(&self) {
            let books = self.books.get().and_then(Weak::upgrade).expect("they are in use");
            self.found.lock().push(books.changed.lock().clone());
        }
    }

    #[test]
    fn a_trigger_is_among_those_that_changed_before_anything_is_marked_for_it() {
        let looking = Arc::new(Looking::default());
        let books = Arc::new(Books::new(
            Arc::new(SimulatedDisk::new()),
            PathBuf::from("log"),
            Clock::system(),
            Poison::new(),
            Arc::clone(&looking) as Arc<dyn Alarm>,
        ));
        looking.books.set(Arc::downgrade(&books)).expect("it is set once");
        let name = Arc::new(ResourceName::new("shop", "t"));
        let ledger = Ledger::new(0, TRIGGER, Arc::new(TriggerBooks::new(name, Arc::clone(&books))));
        let written_down = || {
            books.take_changed();
            books.unmark();
            ledger.changed(|| ());
        };
        for offset in 0..3 {
            ledger.matched(offset);
            ledger.take_unreadable(offset);
        }
        assert_eq!(books.take_changed(), [TRIGGER], "once, however often it changed");
        assert!(!books.unmark(), "what was taken is nothing that must be on the disk soon");
        let attempt = Attempt {
            number: 1,
            started: Timestamp(1),
            ended: Timestamp(1),
            outcome: AttemptOutcome::Delivered { status: Some(200) },
        };
        let steps: [&dyn Fn(); 6] = [
            &|| ledger.started(0),
            &|| ledger.cut(0),
            &|| ledger.start_batch(&[0, 1]),
            &|| assert_eq!(ledger.attempted(0, attempt.clone()), 1),
            &|| ledger.delivered(vec![(1, attempt.clone())]).expect("the books are open"),
            &|| assert_eq!(ledger.drop_all(DropReason::Operator, 3), Ok(2)),
        ];
        for step in steps {
            written_down();
            step();
        }
        assert_eq!(*looking.found.lock(), vec![vec![TRIGGER]; steps.len()]);
    }
}
