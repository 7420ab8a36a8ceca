//! Reading: from the ring where the record is new, from the segments where it is not, from the checkpoint where it
//! is parked.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::clock::Timestamp;
use crate::embedded::batch::StoredRecord;
use crate::embedded::checkpoint::Kind;
use crate::embedded::codec::Reader;
use crate::embedded::ids;
use crate::embedded::lists::{Held, Lists, Piece, offsets_of};
use crate::embedded::log::{BrokerLog, PARTITION};
use crate::embedded::segment::{Damage, Segment};
use crate::error::ReadError;
use crate::log::{Owed, ReadLimit, TriggerNumber};
use crate::record::{Entry, Offset, Position};

/// The records that are looked at in one go.
const RECORDS_AT_ONCE: usize = 4096;
/// The matches among which those of one trigger are sought without leaving the runtime.
const MATCHES_IN_PLACE: usize = 16 * 1024;
/// The buffers for reading that are kept.
const BUFFERS_KEPT: usize = 4;
/// A buffer that grew beyond this is not kept. One frame of the usual size fits.
const BUFFER_KEPT: usize = 4 * 1024 * 1024;
/// The threads that search the segments of a log for an id, at most: each may wait for the disk.
const SEARCHERS: usize = 8;
/// The segments for which one thread is enough.
const SEGMENTS_PER_SEARCHER: usize = 16;

impl BrokerLog {
    /// Does something that may wait for the disk, off the runtime.
    async fn off_runtime<T: Send + 'static>(
        &self,
        action: impl FnOnce(&Self) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let failed = |reason: &str| ReadError::Failed { reason: reason.to_owned() };
        let Some(log) = self.me.upgrade() else { return Err(failed("the log is gone")) };
        let done = tokio::task::spawn_blocking(move || action(&log)).await;
        done.unwrap_or_else(|_| Err(failed("reading failed unexpectedly")))
    }

    pub(super) async fn read_from(
        &self,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Arc<Entry>>, ReadError> {
        let (start, end) = (self.start(), self.end());
        if from < start {
            return Err(ReadError::Trimmed { start });
        }
        if from > end {
            return Err(ReadError::Beyond { position: self.position(from) });
        }
        if from == end {
            return Ok(Vec::new());
        }
        // What the ring holds beyond `end` is not shown yet.
        let there = usize::try_from(end - from).unwrap_or(usize::MAX);
        let records = limit.records.clamp(1, RECORDS_AT_ONCE).min(there);
        let limit = ReadLimit { records, ..limit };
        let held = self.tail.range(from, limit.records);
        if !held.is_empty() {
            let mut room = Room::new(limit);
            return Ok(held.into_iter().take_while(|entry| room.take(entry.size())).collect());
        }
        self.off_runtime(move |log| log.read_stored(from, end, limit)).await
    }

    /// Reads in order from the segments. Damage that an operator accepted is passed over.
    fn read_stored(&self, from: Offset, end: Offset, limit: ReadLimit) -> Result<Vec<Arc<Entry>>, ReadError> {
        let accepted = self.accepted.read().clone();
        let mut passed = None;
        let mut room = Room::new(limit);
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let mut damaged = None;
        self.visit(from..end, |offset, entry| match entry {
            Ok(entry) => {
                let fits = room.take(entry.size());
                if fits {
                    entries.push(entry);
                }
                fits
            }
            Err(_) if accepted.has(offset) => {
                passed = Some(offset + 1);
                true
            }
            Err(_) if offset < self.start() => {
                damaged = Some(ReadError::Trimmed { start: self.start() });
                false
            }
            Err(damage) => {
                self.note_damage(&damage.reason);
                damaged = Some(damage.at(self.position(offset)));
                false
            }
        })?;
        match damaged {
            // What comes before it stands; the next read meets it first.
            Some(error) if entries.is_empty() => Err(error),
            None if entries.is_empty() => {
                // All that is left is lost, and accepted: nobody can examine it.
                let start = passed.unwrap_or(end);
                self.lists.lock().examined(start);
                Err(ReadError::Trimmed { start })
            }
            _ => Ok(entries),
        }
    }

    /// Hands the wanted records, which come in increasing order, to `visit`, until it says stop.
    pub(super) fn visit(
        &self,
        wanted: impl IntoIterator<Item = Offset>,
        mut visit: impl FnMut(Offset, Result<Arc<Entry>, Damage>) -> bool,
    ) -> Result<(), ReadError> {
        let mut wanted = wanted.into_iter().peekable();
        let mut going = true;
        if wanted.peek().is_none() {
            return Ok(());
        }
        self.read_behind.store(true, Ordering::Relaxed);
        let mut buffer = self.shared.buffers.lock().pop().unwrap_or_default();
        while let Some(offset) = wanted.peek().copied().filter(|_| going) {
            let Some(segment) = self.segment_of(offset) else {
                wanted.next();
                let reason = format!("{} is corrupt: no segment holds the record", self.directory.display());
                going = visit(offset, Err(Damage { reason }));
                continue;
            };
            segment
                .visit(&mut buffer, PARTITION, &mut wanted, |offset, entry| {
                    going = visit(offset, entry);
                    going
                })
                .map_err(|error| ReadError::Failed {
                    reason: format!("{} cannot be read: {error}", segment.path().display()),
                })?;
        }
        let mut buffers = self.shared.buffers.lock();
        if buffers.len() < BUFFERS_KEPT && buffer.capacity() <= BUFFER_KEPT {
            buffers.push(buffer);
        }
        Ok(())
    }

    fn segment_of(&self, offset: Offset) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let index = segments.partition_point(|live| live.segment.base() <= offset);
        let segment = &segments[index.checked_sub(1)?].segment;
        (offset < segment.end()).then(|| Arc::clone(segment))
    }

    pub(super) async fn fetch_one(&self, offset: Offset) -> Result<Arc<Entry>, ReadError> {
        if offset >= self.end() {
            return Err(ReadError::Beyond { position: self.position(offset) });
        }
        if let Some(entry) = self.tail.get(offset).filter(|_| offset >= self.start()) {
            return Ok(entry);
        }
        self.off_runtime(move |log| log.fetch_stored(offset)).await
    }

    pub(super) fn fetch_stored(&self, offset: Offset) -> Result<Arc<Entry>, ReadError> {
        let found = self.fetch_now(offset);
        // What is trimmed meanwhile is not damaged: it is parked by then, or gone.
        if found.is_err() && offset < self.start() { self.fetch_now(offset) } else { found }
    }

    fn fetch_now(&self, offset: Offset) -> Result<Arc<Entry>, ReadError> {
        if self.parked.lock().contains_key(&offset) {
            return self.fetch_parked(offset);
        }
        let start = self.start();
        if offset < start {
            return Err(ReadError::Trimmed { start });
        }
        let mut found = Err(ReadError::Beyond { position: self.position(offset) });
        self.visit([offset], |offset, entry| {
            found = entry.map_err(|damage| self.damage_at(offset, damage));
            false
        })?;
        found
    }

    fn fetch_parked(&self, offset: Offset) -> Result<Arc<Entry>, ReadError> {
        let position = self.position(offset);
        let stored = self.shared.checkpoint.get(&self.name, Kind::Parked, offset);
        let stored = stored.map_err(|error| ReadError::Corrupt { position, reason: error.to_string() })?;
        let Some(stored) = stored else { return Err(ReadError::Trimmed { start: self.start() }) };
        let entry = StoredRecord::read(Reader(&stored)).and_then(|record| record.entry(PARTITION));
        entry.map(Arc::new).map_err(|corrupt| ReadError::Corrupt { position, reason: corrupt.to_string() })
    }

    pub(super) async fn find_all(
        &self,
        source: &str,
        id: &str,
        limit: usize,
    ) -> Result<Vec<Position>, ReadError> {
        let (source, id) = (source.to_owned(), id.to_owned());
        self.off_runtime(move |log| {
            let hash = ids::hash(&source, &id);
            let mut found = Vec::new();
            for offset in log.candidates(hash)? {
                if found.len() == limit {
                    return Ok(found);
                }
                found.extend(log.position_of(offset, &source, &id));
            }
            // What is parked is older than all segments.
            let start = log.start();
            let parked: Vec<Offset> = {
                let parked = log.parked.lock();
                let alike = parked.range(..start).rev().filter(|(_, parked)| parked.hash == hash);
                alike.map(|(offset, _)| *offset).collect()
            };
            found.extend(parked.into_iter().filter_map(|offset| log.position_of(offset, &source, &id)));
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    /// The records of all segments that may have a source and an id with this hash, the newest first.
    fn candidates(&self, hash: u64) -> Result<Vec<Offset>, ReadError> {
        let segments: Vec<_> = self.segments.read().iter().map(|live| Arc::clone(&live.segment)).collect();
        let next = AtomicUsize::new(0);
        let search = || {
            let mut found = Vec::new();
            while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
                found.extend(segment.candidates(hash).map_err(|error| ReadError::Failed {
                    reason: format!("{} cannot be searched: {error}", segment.path().display()),
                })?);
            }
            Ok(found)
        };
        let mut found = thread::scope(|scope| {
            let helpers = (segments.len() / SEGMENTS_PER_SEARCHER).min(SEARCHERS - 1);
            let helper = |_| thread::Builder::new().name("search".to_owned()).spawn_scoped(scope, search);
            // Where the system has no thread left, those that there are do it.
            let helpers: Vec<_> = (0..helpers).map_while(|number| helper(number).ok()).collect();
            let mut found: Vec<Offset> = search()?;
            for helper in helpers {
                found.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic))?);
            }
            Ok(found)
        })?;
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// The position of a record where it has this source and id. What cannot be read is told of where it is read.
    fn position_of(&self, offset: Offset, source: &str, id: &str) -> Option<Position> {
        let entry = self.fetch_stored(offset).ok()?;
        (entry.event.id() == id && entry.event.source() == source).then_some(entry.position)
    }

    pub(super) async fn first_arrived(&self, arrived: Timestamp) -> Result<Offset, ReadError> {
        self.off_runtime(move |log| {
            let segments: Vec<_> = log.segments.read().iter().map(|live| Arc::clone(&live.segment)).collect();
            for segment in segments {
                if segment.newest() >= arrived && segment.end() > segment.base() {
                    let found = segment.first_since(arrived).map_err(|error| ReadError::Failed {
                        reason: format!("{} cannot be searched: {error}", segment.path().display()),
                    })?;
                    if found < segment.end() {
                        return Ok(found);
                    }
                }
            }
            Ok(log.end())
        })
        .await
    }

    pub(super) async fn owed_from(
        &self,
        trigger: TriggerNumber,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Owed, ReadError> {
        if self.registry.assigned(trigger).is_none() {
            let next = from.max(self.lists.lock().matched());
            return Ok(Owed { entries: Vec::new(), unreadable: Vec::new(), next });
        }
        if let Some(owed) = self.owed_held(trigger, from, limit) {
            return Ok(owed);
        }
        self.off_runtime(move |log| log.owed_stored(trigger, from, limit)).await
    }

    /// What is owed, where the first of it is in memory with its lists, and found soon: it may be less than all that fits.
    fn owed_held(&self, trigger: TriggerNumber, from: Offset, limit: ReadLimit) -> Option<Owed> {
        let from = from.max(self.start());
        let (pieces, matched) = {
            let lists = self.lists.lock();
            if from >= lists.matched() {
                return Some(Owed { entries: Vec::new(), unreadable: Vec::new(), next: from });
            }
            // Where the record at `from` is on the disk, so is mostly what is owed: not to look for it twice.
            if lost_at(&lists, from).is_some() || self.tail.get(from).is_none() {
                return None;
            }
            (lists.pieces(from, self.segment_end(from)), lists.matched())
        };
        let here = |piece| match piece {
            Piece::Here(held) => Some(held),
            Piece::Stored { .. } => None,
        };
        let held: Vec<Held> = pieces.pieces.into_iter().map(here).collect::<Option<_>>()?;
        if held.iter().map(Held::matches).sum::<usize>() > MATCHES_IN_PLACE {
            return None;
        }
        let records = limit.records.max(1);
        let (offsets, to) = offsets_of(&held, trigger, from..pieces.to.min(matched), records);
        let mut room = Room::new(ReadLimit { records, ..limit });
        let mut entries = self.tail.first_of(&offsets);
        entries.truncate(entries.iter().take_while(|entry| room.take(entry.size())).count());
        let last = entries.last()?.position.offset;
        let next = if entries.len() == offsets.len() { to } else { last + 1 };
        Some(Owed { entries, unreadable: Vec::new(), next })
    }

    fn owed_stored(&self, trigger: TriggerNumber, from: Offset, limit: ReadLimit) -> Result<Owed, ReadError> {
        let mut owed = Owed { entries: Vec::new(), unreadable: Vec::new(), next: from.max(self.start()) };
        let first = owed.next;
        let mut room = Room::new(ReadLimit { records: limit.records.max(1), ..limit });
        loop {
            let next = owed.next;
            let (pieces, matched) = {
                let lists = self.lists.lock();
                if next >= lists.matched() {
                    return Ok(owed);
                }
                if let Some(lost) = lost_at(&lists, next) {
                    // What comes before it stands; the next read meets it first.
                    return if next > first { Ok(owed) } else { Err(lost) };
                }
                (lists.pieces(next, self.segment_end(next)), lists.matched())
            };
            let to = pieces.to.min(matched);
            let mut lists: Vec<Held> = Vec::new();
            let mut unreadable = false;
            for piece in pieces.pieces {
                let key = piece.key();
                let Ok(read) = piece.read().map_err(|reason| self.lose_matches(next, &reason)) else {
                    // It is told in the next turn.
                    unreadable = true;
                    break;
                };
                if let (Some(key), Held::Block(block)) = (key, &read) {
                    self.lists.lock().keep(key, Arc::clone(block));
                }
                lists.push(read);
            }
            if unreadable {
                continue;
            }
            // One more than there is room for, so that it is told where the next read begins.
            let most = room.left.records.saturating_add(1);
            let (offsets, to) = offsets_of(&lists, trigger, next..to, most);
            if !self.take_owed(&offsets, &mut room, &mut owed)? {
                return Ok(owed);
            }
            owed.next = to;
        }
    }

    /// Notes that a record is damaged, unless it was trimmed meanwhile or an operator accepted that.
    fn damage_at(&self, offset: Offset, damage: Damage) -> ReadError {
        if offset >= self.start() && !self.accepted.read().has(offset) {
            self.note_damage(&damage.reason);
        }
        damage.at(self.position(offset))
    }

    /// Reads what is owed as far as there is room: false where there is none left.
    fn take_owed(&self, offsets: &[Offset], room: &mut Room, owed: &mut Owed) -> Result<bool, ReadError> {
        let mut rest = offsets;
        while let [offset, others @ ..] = rest {
            let Some(entry) = self.tail.get(*offset) else { break };
            if !room.take(entry.size()) {
                owed.next = *offset;
                return Ok(false);
            }
            owed.entries.push(entry);
            rest = others;
        }
        let mut fits = true;
        self.visit(rest.iter().copied(), |offset, entry| {
            fits = room.take(entry.as_ref().map_or(0, |entry| entry.size()));
            match entry {
                _ if !fits => owed.next = offset,
                Ok(entry) => owed.entries.push(entry),
                Err(damage) => owed.unreadable.push((offset, self.damage_at(offset, damage))),
            }
            fits
        })?;
        Ok(fits)
    }
}

/// Why the match lists from an offset on cannot be told.
fn lost_at(lists: &Lists, offset: Offset) -> Option<ReadError> {
    let (_, lost) = lists.lost_around(offset).filter(|(_, lost)| offset < lost.range.end)?;
    let (from, to) = (lost.range.start.max(offset), lost.range.end);
    Some(ReadError::MatchesLost { from, to, reason: lost.reason.clone() })
}

/// What still fits into an answer; the first always does.
struct Room {
    left: ReadLimit,
    first: bool,
}

impl Room {
    fn new(limit: ReadLimit) -> Self {
        Self { left: limit, first: true }
    }

    fn take(&mut self, bytes: usize) -> bool {
        if !self.first && (self.left.records == 0 || bytes > self.left.bytes) {
            return false;
        }
        self.first = false;
        self.left.records = self.left.records.saturating_sub(1);
        self.left.bytes = self.left.bytes.saturating_sub(bytes);
        true
    }
}
