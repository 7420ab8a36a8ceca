//! The contract of a log backend.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use smallvec::SmallVec;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::commit::Commit;
use crate::dead_letter::DeadLetters;
use crate::error::{AppendError, ReadError, WriteError};
use crate::ledger::{Ledger, Outcome, Recount};
use crate::record::{Batch, Entry, Offset, Position};

/// One broker's log.
///
/// All methods may be called from several tasks at once, but each partition has one shared reader, and only
/// that reader calls [`Matches::record_matches`] with [`Scope::All`] for it.
///
/// Every future may be dropped before it is ready: a read has no effect, and what a dropped write, trim or close
/// was to do has happened or has not.
///
/// A partition is named by a number below [`Records::partitions`]; naming another is a mistake of the caller and
/// panics. Methods that take a [`Position`] answer for any.
pub trait Log: Records + Matches + Ledgers {}

impl<T: Records + Matches + Ledgers> Log for T {}

/// Records: appended in batches, read in order.
#[async_trait]
pub trait Records: Send + Sync + fmt::Debug + 'static {
    /// What a resolved [`Commit`] means.
    fn durability(&self) -> Durability;

    /// The number of partitions, at least 1 and fixed for the life of the log.
    fn partitions(&self) -> u16;

    /// Takes a batch. It is one commit in one partition: no reader ever sees a part of it, and its records
    /// stand in order at consecutive offsets. Batches that are taken one after the other in the same partition
    /// commit in that order. An empty batch commits at once.
    ///
    /// The batch counts as accepted only when the commit resolves. Dropping the commit does not undo it.
    fn append(&self, mut batch: Batch) -> Result<Commit, AppendError> {
        self.offer(&mut batch)
    }

    /// The same for who offers a batch again when it is refused: nothing is then taken out of it. What is taken leaves an
    /// empty batch behind.
    fn offer(&self, batch: &mut Batch) -> Result<Commit, AppendError>;

    /// The oldest offset that can be read and the first that is not committed yet.
    fn bounds(&self, partition: u16) -> Bounds;

    /// About how many bytes of the log the records from `offset` on take, those that it still holds.
    fn bytes_from(&self, partition: u16, offset: Offset) -> u64;

    /// Waits until a record with an offset of at least `offset` is committed, or the log closes. Cancel-safe.
    async fn wait_for(&self, partition: u16, offset: Offset);

    /// Reads committed records in order, starting at `from`: none at the end of the log, at least one
    /// otherwise, whatever the limit.
    async fn read(
        &self,
        partition: u16,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Arc<Entry>>, ReadError>;

    /// Reads one record that is in the log or parked.
    async fn fetch(&self, position: Position) -> Result<Arc<Entry>, ReadError>;

    /// The positions of the records with this `source` and `id`, the newest first.
    async fn find(&self, source: &str, id: &str, limit: usize) -> Result<Vec<Position>, ReadError>;

    /// The first offset whose record arrived at `arrived` or later; the end of the log where none has.
    async fn first_since(&self, partition: u16, arrived: Timestamp) -> Result<Offset, ReadError>;

    /// The newest checkpoint of a source that was committed with a batch.
    fn checkpoint(&self, source: &ResourceName) -> Option<Bytes>;

    /// How much room the log takes, and what holds it.
    fn usage(&self) -> Usage;

    /// Gives up what is both past the retention and owed to nobody. The owner calls it every now and then.
    async fn trim(&self);

    /// Takes no more batches, resolves those that were taken, and writes everything out.
    async fn close(&self);
}

/// Plans and match lists.
#[async_trait]
pub trait Matches: Send + Sync {
    /// The plans in force since the oldest readable position, oldest first. Empty before the first.
    fn plans(&self) -> Vec<PlanRecord>;

    /// Makes a plan durable. It must be recorded before any match under its version (P5).
    async fn record_plan(&self, plan: PlanRecord) -> Result<(), WriteError>;

    /// The first offset that the shared reader has not examined.
    fn matched(&self, partition: u16) -> Offset;

    /// Records what the reader found: the matches become debts of their triggers, in order, and for
    /// [`Scope::All`] the examined range ends at `batch.to`. What was recorded before is passed over, so a batch may
    /// be repeated. Passed over is also a match of a trigger that has no number, or whose ledger has gone beyond it.
    ///
    /// With [`Scope::Restored`] a range of [`Matches::lost_matches`] is told again: from its start on, in order, in as
    /// many batches as it takes.
    ///
    /// Refused, without any effect, are a batch under a plan that was not recorded; one that leaves a gap after
    /// what was examined or goes beyond the end; and for [`Scope::Trigger`] one beyond what was examined.
    fn record_matches(&self, batch: &MatchBatch) -> Result<(), WriteError>;

    /// The examined ranges whose match lists are lost or damaged, in order. The reader matches them again under the
    /// plan that was in force there and records what it finds with [`Scope::Restored`]; until then
    /// [`Matches::owed`] ends before them, and answers [`ReadError::MatchesLost`] at them. To be asked after the
    /// opening, and after each such answer.
    fn lost_matches(&self, partition: u16) -> Vec<Range<Offset>>;

    /// Reads the match list of a trigger in the examined range, from `from` on, in order: from the ledger's
    /// [`Ledger::next`] on, that is what it is owed and has not taken. A limit of records counts as 1 at least, and less
    /// may come than the limit allows though there is more: [`Owed::next`] tells where to go on. Where the log no longer
    /// has records at `from`, it goes on with the oldest it has: what was trimmed was owed to nobody.
    async fn owed(
        &self,
        partition: u16,
        trigger: TriggerNumber,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Owed, ReadError>;
}

/// Triggers, their ledgers and their dead letters.
#[async_trait]
pub trait Ledgers: Send + Sync {
    /// The number under which match lists tell of a trigger: assigned at the first call, durable with the first
    /// plan that names it, and never given to another trigger, also when this one is forgotten.
    fn trigger(&self, name: &ResourceName) -> TriggerNumber;

    /// Every trigger that ever had a number and was not forgotten.
    fn triggers(&self) -> Vec<(TriggerNumber, ResourceName)>;

    /// The ledger of a trigger in a partition. Of a number that was not assigned: an empty ledger.
    fn ledger(&self, partition: u16, trigger: TriggerNumber) -> Arc<Ledger>;

    /// Counts what is pending anew, from the match lists, the window and the schedule, and corrects the ledger
    /// where it differed. Meanwhile appends to the partition may have to wait.
    fn recount(&self, partition: u16, trigger: TriggerNumber) -> Recount;

    /// What became of the record at `position` for a trigger, as far as the log still knows. None where it knows of
    /// no match: the record does not match the trigger, is not examined yet, or is long gone.
    fn outcomes(&self, position: Position, trigger: TriggerNumber) -> Option<Outcome>;

    /// Drops everything that a trigger is owed, its counters and its number; its dead letters stay.
    fn forget(&self, trigger: TriggerNumber);

    /// Whether the process before this one ended without closing the log: then every delivery with an attempt that
    /// the checkpoint knew to be open counts one crash more ([`Ledger::crashes`]).
    fn ended_uncleanly(&self) -> bool;

    /// Makes what the ledgers say now durable: windows and started attempts ([`Ledger::started`]) with it, which
    /// nothing else waits for. An event that makes the process die at once is only counted where its attempt was
    /// started, then secured, then made; so whoever delivers does that for a while where the log
    /// [`Ledgers::ended_uncleanly`]. Those who ask at the same time share one write.
    async fn secure(&self) -> Result<(), WriteError>;

    /// The epoch under which this process holds the ledgers of the partition.
    fn epoch(&self, partition: u16) -> Epoch;

    /// The store of dead letters.
    fn dead_letters(&self) -> Arc<dyn DeadLetters>;
}

/// What a resolved commit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The batch is in this process's memory, and is lost with it.
    Memory,
    /// The batch was synced to this machine's disk.
    Synced,
    /// A quorum of other machines has the batch.
    Replicated,
}

/// The number of a trigger in its broker's match lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TriggerNumber(pub u32);

/// The number of a plan: each has a higher one than those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanVersion(pub u64);

/// Grows with every change of the holder of a partition, so that a former holder can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// The readable range of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest readable offset.
    pub start: Offset,
    /// The first offset that is not committed.
    pub end: Offset,
}

/// How much to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// The most records.
    pub records: usize,
    /// The most bytes of events; one larger event is still read, alone.
    pub bytes: usize,
}

/// The triggers that match a range of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchBatch {
    /// The partition.
    pub partition: u16,
    /// The first offset that was examined.
    pub from: Offset,
    /// The offset after the last that was examined.
    pub to: Offset,
    /// The plan under which it was examined.
    pub version: PlanVersion,
    /// Whose matches these are.
    pub scope: Scope,
    /// For each record with a match, in order of offsets, the triggers.
    pub matches: Vec<(Offset, SmallVec<[TriggerNumber; 4]>)>,
}

/// Whose matches a batch tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All triggers of the broker, each record for the first time.
    All,
    /// All triggers, again: the lists of [`Matches::lost_matches`]. A trigger that started in the past is among them
    /// where its range reaches here. What a ledger has settled is not owed again, and counters stay as they were.
    Restored,
    /// One trigger that starts in the past: records that were examined before are examined for it alone.
    Trigger(TriggerNumber),
}

/// A plan as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRecord {
    /// Its version.
    pub version: PlanVersion,
    /// For each partition the first offset that it decides.
    pub effective: Vec<Offset>,
    /// The triggers under it with their numbers, so that a number is durable before a match list names it.
    pub triggers: Vec<(TriggerNumber, ResourceName)>,
    /// What is needed to match under it again, opaque to the log.
    pub body: Bytes,
}

/// What a trigger is owed in a range.
#[derive(Debug, Clone)]
pub struct Owed {
    /// The entries, in order.
    pub entries: Vec<Arc<Entry>>,
    /// Records that are owed and cannot be read, with the reason.
    pub unreadable: Vec<(Offset, ReadError)>,
    /// Where to go on: every match below has been returned.
    pub next: Offset,
}

/// How much room a log takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// Bytes allowed.
    pub limit: u64,
    /// The trigger whose oldest debt keeps the most from being trimmed.
    pub held_by: Option<TriggerNumber>,
}
