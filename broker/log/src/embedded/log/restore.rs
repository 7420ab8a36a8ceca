//! Match lists that are lost, and recorded again.

use parking_lot::MutexGuard;

use crate::embedded::lists::{Chunk, Lists};
use crate::embedded::log::{BrokerLog, PARTITION};
use crate::error::WriteError;
use crate::log::{Ledgers, MatchBatch, TriggerNumber};
use crate::record::Offset;

impl BrokerLog {
    /// Records lists of a range whose lists are lost. Ledgers keep their counts: once nothing is lost any more they are
    /// compared with the lists.
    pub(super) fn restore_matches(
        &self,
        mut lists: MutexGuard<'_, Lists>,
        batch: &MatchBatch,
    ) -> Result<(), WriteError> {
        let lost = lists.lost_around(batch.from).map(|(base, lost)| (base, lost.range.clone()));
        let Some((base, range)) = lost.filter(|(_, lost)| batch.from <= lost.start && batch.to <= lost.end)
        else {
            let reason =
                format!("the match lists of {}..{} are not lost, or not from there", batch.from, batch.to);
            return Err(WriteError::Failed { reason });
        };
        if batch.to <= range.start {
            return Ok(());
        }
        let place = self.books.journal.take_place();
        let mut chunk = Chunk::new(place, batch.version, batch.scope, range.start, batch.to);
        let first = batch.matches.partition_point(|(offset, _)| *offset < range.start);
        for (offset, triggers) in &batch.matches[first..] {
            let mut triggers = triggers.clone();
            triggers.sort_unstable();
            triggers.dedup();
            triggers.retain(|trigger| self.still_listed(*trigger, *offset));
            chunk.push(*offset, triggers);
        }
        lists.add(base, chunk);
        lists.restored(base, batch.to);
        let complete = lists.lost().is_empty();
        drop(lists);
        if complete {
            for (trigger, _) in self.triggers() {
                self.recount(PARTITION, trigger);
            }
            tracing::info!(log = %self.name.name, "all match lists are restored");
        }
        self.books.mark();
        Ok(())
    }

    /// Whether a match belongs into a restored list: not where it was settled and the ledger has not passed it, for
    /// then it would be owed again.
    fn still_listed(&self, trigger: TriggerNumber, offset: Offset) -> bool {
        self.registry.assigned(trigger).is_some_and(|ledger| {
            offset < ledger.next() || self.books.journal.find(offset, trigger).settled.is_none()
        })
    }

    /// Match lists around an offset cannot be read: they are lost from now on.
    pub(super) fn lose_matches(&self, offset: Offset, reason: &str) {
        let Some(base) = self.segment_base(offset) else { return };
        let range = base.max(self.start())..self.segment_end(offset);
        if self.lists.lock().lose(base, range, reason) {
            tracing::error!(log = %self.name.name, damage = reason, "match lists are corrupt; they are matched again");
        }
    }
}
