//! Giving up what nobody is owed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::embedded::batch::park;
use crate::embedded::checkpoint::{Kind, Row};
use crate::embedded::log::{BrokerLog, Parked, Retention};
use crate::embedded::segment::Segment;
use crate::embedded::store::{Flusher, Trouble};
use crate::record::Offset;

/// The segments that are given up in one go, while nothing else is flushed.
const SEGMENTS_AT_ONCE: usize = 4;
/// The bytes of records that go into the parked store in one commit, unless one is larger.
const PARKED_AT_ONCE: usize = 4 * 1024 * 1024;
/// To look for parked records that nobody needs visits every trigger. Where that takes as long as this, there are many.
const LONG_LOOK: Duration = Duration::from_millis(5);
/// How many times as long as a long look passes until the next.
const PARKED_REST: u32 = 20;

/// What of the records that were given up was needed at a moment.
#[derive(Debug)]
pub(in crate::embedded) struct StillNeeded {
    /// What had been given up by then.
    below: Offset,
    offsets: BTreeSet<Offset>,
}

impl BrokerLog {
    /// What is kept from the next trim on.
    pub(in crate::embedded) fn set_retention(&self, retention: Retention) {
        *self.retention.lock() = retention;
    }

    /// Whether there is anything that a trim might give up. Cheap, since it is asked of every idle log.
    pub(super) fn may_trim(&self) -> bool {
        let sealed = self.segments.read().first().is_some_and(|live| live.segment.sealed());
        sealed || !self.parked.lock().is_empty()
    }

    /// Gives up what is past the retention and owed to nobody.
    pub(super) fn trim_now(&self) {
        let now = self.shared.clock.now();
        let retention = *self.retention.lock();
        let size: u64 = self.segments.read().iter().map(|live| live.segment.length()).sum();
        let mut left = size;
        let past = |segment: &Segment| {
            let old = now.since(segment.newest()) >= retention.age || left > retention.size;
            left = left.saturating_sub(segment.length());
            old
        };
        self.release(past);
        self.forget_parked();
        self.trim_plans();
    }

    /// The bytes of segments that nobody is owed.
    pub(crate) fn reclaimable(&self) -> u64 {
        let floor = self.floor();
        let segments = self.segments.read();
        let free = segments.iter().take_while(|live| live.segment.end() <= floor);
        free.map(|live| live.bytes.load(Ordering::Relaxed)).sum()
    }

    /// The bytes of the limit that segments and parked records take.
    pub(in crate::embedded) fn bodies(&self) -> u64 {
        let segments = self.segments.read();
        let segments: u64 = segments.iter().map(|live| live.bytes.load(Ordering::Relaxed)).sum();
        segments + self.parked.lock().values().map(|parked| parked.bytes).sum::<u64>()
    }

    /// Gives up so many bytes of what nobody is owed, or all there is, the open segment with it. `writing` says that the
    /// caller is this log's writer.
    pub(crate) fn release_under_pressure(&self, bytes: u64, writing: bool) {
        let guard = if writing { None } else { self.writing.try_lock() };
        if writing || guard.is_some() {
            let last = self.segments.read().last().map(|live| Arc::clone(&live.segment));
            if let Some(last) = last.filter(|last| last.end() > last.base() && last.end() <= self.floor())
                && let Err(error) = self.seal(&last)
            {
                let reason = format!("{} cannot be sealed: {error}", last.path().display());
                self.shared.poison.set(&reason);
            }
        }
        drop(guard);
        let mut going = 0;
        self.release(|segment| {
            let more = going < bytes;
            going += segment.length();
            more
        });
    }

    /// The oldest offset that someone needs in the log.
    fn floor(&self) -> Offset {
        // First: what is matched from now on lies behind that, and what was matched before is in its ledger by now. The
        // lists are not held meanwhile, since every trigger is visited.
        let matched = self.lists.lock().matched();
        self.registry.floor().unwrap_or(Offset::MAX).min(matched)
    }

    /// Gives up the oldest segments as far as they are sealed, owed to nobody, and `past` says so.
    fn release(&self, mut past: impl FnMut(&Segment) -> bool) {
        let mut going: Vec<Arc<Segment>> = {
            let segments = self.segments.read();
            let segments = segments.iter().map(|live| &live.segment);
            segments.take_while(|segment| segment.sealed() && past(segment)).cloned().collect()
        };
        if going.is_empty() {
            return;
        }
        // Only now, since that looks at every trigger.
        let floor = self.floor();
        going.truncate(going.partition_point(|segment| segment.end() <= floor));
        for some in going.chunks(SEGMENTS_AT_ONCE) {
            let to = some.last().map_or(0, |last| last.end());
            // What fails poisons the store, which is where everyone sees it.
            if !matches!(self.shared.exclusively(|flusher| self.give_up(flusher, some, to)), Ok(true)) {
                return;
            }
        }
    }

    /// Gives up the oldest segments. False where they must stay for now.
    fn give_up(&self, flusher: &Flusher<'_>, going: &[Arc<Segment>], to: Offset) -> Result<bool, Trouble> {
        if self.books.closed() {
            // The log may be deleted by now: nothing is written about it any more.
            return Ok(false);
        }
        // From here on no match is added below, so that the floor cannot fall below it any more.
        let before = self.given_up.fetch_max(to, Ordering::AcqRel);
        if self.floor() < to {
            self.given_up.store(before, Ordering::Release);
            return Ok(false);
        }
        // What became of everything in it must be known without it.
        flusher.flush(true)?;
        if !self.park_needed(flusher, self.start()..to)? {
            self.given_up.store(before, Ordering::Release);
            return Ok(false);
        }
        self.start.fetch_max(to, Ordering::AcqRel);
        flusher.commit(&[self.row()])?;

        let disk = &*self.shared.disk;
        let failed = |error: std::io::Error| {
            format!("a segment in {} cannot be removed: {error}", self.directory.display())
        };
        for segment in going {
            let live = {
                let mut segments = self.segments.write();
                let index = segments.iter().position(|live| Arc::ptr_eq(&live.segment, segment));
                index.map(|index| segments.remove(index))
            };
            let bytes = live.map_or(0, |live| live.bytes.load(Ordering::Relaxed));
            let lists = self.lists.lock().remove(segment.base()).map_err(failed)?;
            segment.remove().map_err(failed)?;
            self.shared.give_back(bytes + lists);
        }
        let covered = self.covered.load(Ordering::Relaxed);
        let bytes = self.books.journal.trim(to, covered).map_err(failed)?;
        self.shared.give_back(bytes);
        disk.sync_directory(&self.directory).map_err(failed)?;
        Ok(true)
    }

    /// Puts the records in a range that someone needs into the parked store. False where they cannot be read now.
    fn park_needed(&self, flusher: &Flusher<'_>, range: Range<Offset>) -> Result<bool, Trouble> {
        let needed = {
            let (mut needed, parked) = (self.needed_outside(range), self.parked.lock());
            needed.retain(|offset| !parked.contains_key(offset));
            needed
        };
        let mut next = 0;
        while needed.range(next..).next().is_some() {
            let (mut rows, mut parked, mut bytes) = (Vec::new(), Vec::new(), 0);
            let read = self.visit(needed.range(next..).copied(), |offset, entry| {
                next = offset + 1;
                // What is damaged cannot be saved; whoever wants it is told so.
                if let Ok(entry) = entry {
                    let stored = park(&entry);
                    bytes += stored.len();
                    parked.push((offset, Parked::of(&entry, &stored)));
                    rows.push(Row::put(&self.name, Kind::Parked, offset, &stored));
                }
                bytes < PARKED_AT_ONCE
            });
            if let Err(error) = read {
                // Not damage: too many files are open, say. Their segment stays until they can be read.
                tracing::warn!(log = %self.name.name, %error, "a segment cannot be given up yet");
                return Ok(false);
            }
            flusher.commit(&rows)?;
            self.shared.take(parked.iter().map(|(_, parked)| parked.bytes).sum());
            self.parked.lock().extend(parked);
        }
        Ok(true)
    }

    /// The records in a range that someone needs although the log does not hold them.
    fn needed_outside(&self, range: Range<Offset>) -> BTreeSet<Offset> {
        // Letters after ledgers: what is given up meanwhile goes from here to there.
        let mut needed = BTreeSet::new();
        for ledger in self.registry.ledgers() {
            needed.extend(ledger.kept_outside(range.clone()));
        }
        needed.extend(self.books.letters.offsets(range));
        needed
    }

    /// Forgets the parked records that nobody needs any more, unless it was looked for them a moment ago.
    fn forget_parked(&self) {
        let begun = Instant::now();
        let resting = self.parked_rest_until.lock().is_some_and(|until| begun < until);
        if resting || self.parked.lock().is_empty() {
            return;
        }
        let needed = self.still_needed();
        let looked = begun.elapsed();
        *self.parked_rest_until.lock() = (looked >= LONG_LOOK).then(|| begun + looked * PARKED_REST);
        self.forget_parked_but(&needed);
    }

    /// What is needed of all that was given up so far.
    pub(in crate::embedded) fn still_needed(&self) -> StillNeeded {
        let below = self.start();
        StillNeeded { below, offsets: self.needed_outside(0..below) }
    }

    /// Forgets the other parked records. Whoever gives up segments meanwhile parks what is needed of them, of which
    /// nothing was known when it was looked what is needed: that stays.
    pub(in crate::embedded) fn forget_parked_but(&self, needed: &StillNeeded) {
        let gone: Vec<(Offset, u64)> = {
            let parked = self.parked.lock();
            parked
                .range(..needed.below)
                .filter(|(offset, _)| !needed.offsets.contains(offset))
                .map(|(offset, parked)| (*offset, parked.bytes))
                .collect()
        };
        let rows: Vec<Row> =
            gone.iter().map(|(offset, _)| Row::remove(&self.name, Kind::Parked, *offset)).collect();
        // After what settled them, for until then a crash would want them again.
        let removed = self.shared.exclusively(|flusher| {
            if self.books.closed() {
                return Ok(false);
            }
            flusher.flush(true)?;
            flusher.commit(&rows).map(|()| true)
        });
        if matches!(removed, Ok(true)) {
            let mut parked = self.parked.lock();
            for (offset, bytes) in gone {
                parked.remove(&offset);
                self.shared.give_back(bytes);
            }
        }
    }

    /// Forgets the plans under which nothing readable was or will be matched.
    fn trim_plans(&self) {
        let start = self.start();
        let useless: Vec<_> = {
            let mut plans = self.plans.lock();
            let superseded =
                plans.iter().skip(1).take_while(|next| next.effective.iter().all(|from| *from <= start));
            let count = superseded.count();
            plans.drain(..count).collect()
        };
        if useless.is_empty() {
            return;
        }
        let rows: Vec<Row> =
            useless.iter().map(|plan| Row::remove(&self.name, Kind::Plan, plan.version.0)).collect();
        // What fails poisons the store, which is where everyone sees it.
        let _ = self.shared.exclusively(|flusher| match self.books.closed() {
            true => Ok(()),
            false => flusher.commit(&rows),
        });
    }
}
