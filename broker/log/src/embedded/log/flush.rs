//! What is written out every now and then: match lists, the journal, and the rows of the checkpoint.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::embedded::checkpoint::{Kind, Row};
use crate::embedded::ids;
use crate::embedded::log::BrokerLog;
use crate::embedded::rows::{self, LogRow};
use crate::embedded::store::Trouble;
use crate::record::{Checkpoint, Offset};

impl BrokerLog {
    /// Whether something changed since this was last asked.
    pub(crate) fn take_change(&self) -> bool {
        let changed = self.books.unmark();
        if changed {
            self.behind.store(true, Ordering::Relaxed);
        }
        changed
    }

    /// Something could not be flushed and must be.
    pub(crate) fn flush_again(&self) {
        self.books.mark();
    }

    /// Whether the checkpoint lacks something.
    pub(crate) fn behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    /// The row of the log as a whole.
    pub(super) fn row(&self) -> Row {
        let row = LogRow {
            epoch: self.epoch,
            sequence: self.covered.load(Ordering::Relaxed),
            start: self.start(),
            synced: self.captured_synced.load(Ordering::Relaxed),
            matched: self.flushed_matched.load(Ordering::Relaxed),
            next_trigger: self.registry.next(),
            next_letter: self.books.letters.next(),
            closed: self.all_written.load(Ordering::Relaxed),
            accepted: self.accepted.read().clone(),
        };
        Row::put(&self.name, Kind::Log, 0, &row.encode())
    }

    /// The rows of what changed. They may be committed once [`BrokerLog::flush`] has returned, and must be.
    pub(crate) fn capture(&self) -> Vec<Row> {
        // First, so that what comes while the rest is read is found in the journal.
        self.covered.store(self.books.journal.sequence(), Ordering::Relaxed);
        let mut rows = self.name_rows();
        // Whoever has taken a place for matches below that tells of them before the lists are free again; everyone else
        // does so before the note.
        drop(self.lists.lock());
        for trigger in self.books.take_changed() {
            let Some(ledger) = self.registry.find(trigger) else { continue };
            // Under the lock, so that no match list is half counted.
            let lists = self.lists.lock();
            let (changed, covered) = ledger.changed(|| self.books.journal.sequence());
            drop(lists);
            let number = u64::from(trigger.0);
            let content = rows::encode_ledger(covered, &changed.ledger);
            rows.push(Row::put(&self.name, Kind::Ledger, number, &content));
            rows.extend(changed.pages.into_iter().map(|(page, waiting)| {
                if waiting.is_empty() {
                    return Row::remove_page(&self.name, Kind::Schedule, number, page);
                }
                let content = rows::encode_page(trigger, &waiting);
                Row::put_page(&self.name, Kind::Schedule, number, page, &content)
            }));
        }
        for (id, content) in self.books.letters.leave() {
            rows.push(match content {
                Some(content) => Row::put(&self.name, Kind::Letter, id.0, &content),
                None => Row::remove(&self.name, Kind::Letter, id.0),
            });
        }
        // Before the sources: those of what is shown meanwhile are written once more.
        self.captured_synced.store(self.end(), Ordering::Relaxed);
        let mut sources = self.sources.lock();
        for source in std::mem::take(&mut sources.fresh) {
            let Some(value) = sources.all.get(&source).cloned() else { continue };
            let number = ids::hash(&source.namespace, &source.name);
            let content = rows::encode_source(&Checkpoint { source, value });
            rows.push(Row::put(&self.name, Kind::Source, number, &content));
        }
        drop(sources);
        self.flushed_matched.store(self.lists.lock().matched(), Ordering::Relaxed);
        rows.push(self.row());
        rows
    }

    /// The rows of names that are new or gone.
    pub(super) fn name_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (number, name) in self.registry.fresh_names() {
            let key = u64::from(number.0);
            match name {
                Some(name) => {
                    let mut content = Vec::new();
                    crate::embedded::note::put_name(&mut content, &name);
                    rows.push(Row::put(&self.name, Kind::Name, key, &content));
                }
                None => {
                    rows.push(Row::remove(&self.name, Kind::Name, key));
                    rows.push(Row::remove(&self.name, Kind::Ledger, key));
                    rows.push(Row::remove_pages(&self.name, Kind::Schedule, key));
                }
            }
        }
        rows
    }

    /// What was captured is committed.
    pub(crate) fn captured(&self) {
        self.books.letters.left();
        self.behind.store(false, Ordering::Relaxed);
    }

    /// Writes match lists and journal and makes them durable: the lists first, so that whatever the journal tells
    /// of was matched.
    /// What finds no room stays in memory, and is written the next time.
    pub(crate) fn flush(&self) -> Result<(), Trouble> {
        let failed = |what: &str, error: &io::Error| {
            let directory = self.directory.display();
            Trouble::of(format!("{what} in {directory} cannot be written or synced: {error}"), error)
        };
        self.shared.checkpoint.make_room(&[])?;
        // The names before anything that may tell of them: a number whose name is lost would be given again.
        let names = self.name_rows();
        if !names.is_empty() {
            self.shared.checkpoint.commit(&names).map_err(|error| error.to_string())?;
        }
        let notes = self.books.journal.leave();
        let sealed = self.sealed_ends();
        let leaving = self.lists.lock().leave(|base| sealed.get(&base).copied());
        let disk = &*self.shared.disk;
        for leaving in leaving {
            let written =
                leaving.write(disk, &self.directory).map_err(|error| failed("a match list", &error))?;
            if written.made {
                // At once: the next list may find no room, and this one is not new then.
                disk.sync_directory(&self.directory).map_err(|error| failed("a match list", &error))?;
            }
            self.shared.take(written.bytes);
            self.lists.lock().left(written);
        }
        let mut segments: Vec<_> =
            self.segments.read().iter().map(|live| Arc::clone(&live.segment)).collect();
        segments.retain(|segment| segment.store_ids());
        // Those who keep up read from the ring. The memory of what was written is better used again for what comes next: it
        // is warm, where other memory may have to be fetched first, from the host of a virtual machine even.
        if !segments.is_empty() && !self.read_behind.swap(false, Ordering::Relaxed) {
            segments.iter().for_each(|segment| segment.forget());
        }
        if let Some(notes) = notes {
            let bytes =
                self.books.journal.write(&notes).map_err(|error| failed("the outcome journal", &error))?;
            self.shared.take(bytes);
        }
        Ok(())
    }

    /// The ends of the sealed segments, by their bases.
    fn sealed_ends(&self) -> HashMap<Offset, Offset> {
        let segments = self.segments.read();
        let sealed = segments.iter().map(|live| &live.segment).filter(|segment| segment.sealed());
        sealed.map(|segment| (segment.base(), segment.end())).collect()
    }
}
