//! What a log is at the start: checkpoint, then match lists and journal on top of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use waypost_core::manifest::ResourceName;

use crate::clock::Timestamp;
use crate::embedded::OpenError;
use crate::embedded::batch::StoredRecord;
use crate::embedded::books::{Alarm, Books};
use crate::embedded::checkpoint::{CheckpointError, Kind};
use crate::embedded::codec::{Corrupt, Reader};
use crate::embedded::lists::{Chunk, Lists};
use crate::embedded::log::{BrokerLog, Live, PARTITION, Parked, Retention, Sources};
use crate::embedded::note::{Change, Note, StoredLetter, take_name};
use crate::embedded::registry::Registry;
use crate::embedded::rows::{self, Accepted, LogRow};
use crate::embedded::segment::{Recovered, Segment, path_of};
use crate::embedded::store::Shared;
use crate::ledger::{Counted, Snapshot};
use crate::log::{Scope, TriggerNumber};
use crate::record::{Checkpoint, Offset};

/// What the segments hold.
#[derive(Default)]
struct Segments {
    live: Vec<Live>,
    checkpoints: Vec<Checkpoint>,
    damage: Vec<String>,
    bytes: u64,
    /// The bases of segments whose header is damaged, so that none of their records can be read.
    headless: Vec<Offset>,
    /// The end of the log at least.
    end: Offset,
}

/// What happened after the checkpoint.
#[derive(Default)]
struct Since {
    /// For each trigger the places and offsets of its matches.
    matches: HashMap<TriggerNumber, Vec<(u64, Offset)>>,
    notes: Vec<Note>,
    /// The place of the next change.
    next: u64,
}

impl BrokerLog {
    /// Opens a log as the last process left it, or makes a new one.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        name: &ResourceName,
        directory: &Path,
        retention: Retention,
    ) -> Result<Arc<Self>, OpenError> {
        let failed = |error: std::io::Error| OpenError::of(directory, &error);
        let disk = &*shared.disk;
        disk.create_directory(directory).map_err(failed)?;
        let row = load_row(shared, name)?;
        let mut since = Since::default();
        let listed = open_lists(shared, directory, &row, &mut since)?;
        // What was matched had been synced, so that what is missing below is no write that was cut off.
        let proven = row.synced.max(listed.lists.matched());
        let mut segments = open_segments(shared, directory, &row, proven)?;
        segments.bytes += listed.bytes;
        let mut lists = listed.lists;
        segments.find_missing(row.start, directory, &row.accepted);
        let last = segments.live.last().map_or(row.start, |live| live.segment.end());
        let end = last.max(proven).max(segments.end);
        if last < proven {
            let reason = format!("{} is corrupt: records {last}..{proven} are missing", directory.display());
            segments.damage.push(reason);
            if let Some(live) = segments.live.last() {
                live.segment.quarantine();
            }
        }
        // Where the first segment is lost, those who are owed its records are told so.
        let start = if segments.live.is_empty() && segments.headless.is_empty() { end } else { row.start };

        let alarm = Arc::clone(&shared.work) as Arc<dyn Alarm>;
        let books = Books::new(
            Arc::clone(&shared.disk),
            directory.to_owned(),
            shared.clock.clone(),
            shared.poison.clone(),
            alarm,
        );
        let books = Arc::new(books);
        let registry = Registry::new(Arc::clone(&books));
        lists.examined(row.matched.max(start).min(end));
        let found =
            books.journal.recover(row.sequence, &mut |note| since.notes.push(note)).map_err(failed)?;
        found.torn.iter().for_each(|torn| told_torn("outcomes", Some(torn)));
        segments.damage.extend(found.damage);
        segments.bytes += found.bytes;
        segments.damage.retain(|damage| !row.accepted.told.contains(damage));
        let ends =
            segments.live.iter().map(|live| (live.segment.base(), live.segment.end())).collect::<Vec<_>>();
        for damage in lists.find_lost(&ends, start, &row.accepted) {
            tracing::error!(log = %name.name, damage, "match lists are corrupt; they are matched again");
        }
        for damage in &segments.damage {
            tracing::error!(log = %name.name, damage, "the log is corrupt");
        }
        books.journal.go_on_at(row.sequence.max(since.next));

        let matched = lists.matched();
        let Segments { live, checkpoints, damage, bytes, .. } = segments;
        let log = Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: Weak::clone(me),
            name: name.clone(),
            directory: directory.to_owned(),
            shared: Arc::clone(shared),
            retention: Mutex::new(retention),
            epoch: row.epoch + 1,
            queue: Mutex::default(),
            writing: Mutex::default(),
            segments: RwLock::new(live),
            tail: Arc::default(),
            start: AtomicU64::new(start),
            end: AtomicU64::new(end),
            read_behind: AtomicBool::new(false),
            given_up: AtomicU64::new(start),
            accepted: RwLock::new(row.accepted.clone()),
            damage: Mutex::new(damage),
            grown: Notify::new(),
            lists: Mutex::new(lists),
            books,
            registry,
            plans: Mutex::default(),
            sources: Mutex::new(Sources::default()),
            parked: Mutex::new(BTreeMap::new()),
            parked_rest_until: Mutex::new(None),
            covered: AtomicU64::new(row.sequence),
            captured_synced: AtomicU64::new(row.synced),
            flushed_matched: AtomicU64::new(matched),
            behind: AtomicBool::new(true),
            ended_uncleanly: !row.closed && row.epoch > 0,
            all_written: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
        });
        shared.take(bytes);
        let failed = |reason| OpenError::Failed { path: directory.to_owned(), reason };
        // Before anything is attempted again: what crashes the process once more must be known to.
        if log.restore(&row, checkpoints, since)? {
            shared.commit_of(&log).map_err(failed)?;
        } else if row.closed {
            // From here on an end of the process is unclean, however soon it comes. Where there is no room it waits for
            // some; what fails otherwise poisons the store, which is where everyone sees it.
            let _ = shared.commit_of(&log);
        }
        // The new epoch is written with the first change.
        log.books.mark();
        Ok(log)
    }

    /// Puts in what the checkpoint has, and what happened since. Returns whether a delivery has crashed once more.
    fn restore(
        &self,
        row: &LogRow,
        checkpoints: Vec<Checkpoint>,
        mut since: Since,
    ) -> Result<bool, OpenError> {
        let checkpoint = &self.shared.checkpoint;
        let corrupt = |corrupt: Corrupt| checkpoint.corrupt(corrupt);
        self.registry.go_on_at(row.next_trigger);
        checkpoint.load(&self.name, Kind::Name, |number, content| {
            let name = take_name(&mut Reader(content)).map_err(corrupt)?;
            self.registry.restore(trigger_of(number), name);
            Ok(())
        })?;
        checkpoint.load(&self.name, Kind::Plan, |_, content| {
            self.plans.lock().push(rows::decode_plan(content).map_err(corrupt)?);
            Ok(())
        })?;
        self.books.letters.go_on_at(row.next_letter);
        checkpoint.load(&self.name, Kind::Letter, |id, content| {
            let letter = StoredLetter::decode(content).map_err(corrupt)?;
            self.books.letters.restore(crate::DeadLetterId(id), &letter);
            Ok(())
        })?;
        checkpoint.load(&self.name, Kind::Parked, |offset, content| {
            let record = StoredRecord::read(Reader(content)).and_then(|record| record.entry(PARTITION));
            self.parked.lock().insert(offset, Parked::of(&record.map_err(corrupt)?, content));
            self.shared.take(content.len() as u64);
            Ok(())
        })?;
        checkpoint.load(&self.name, Kind::Source, |_, content| {
            let Checkpoint { source, value } = rows::decode_source(content).map_err(corrupt)?;
            self.sources.lock().all.insert(source, value);
            Ok(())
        })?;
        checkpoints.into_iter().for_each(|checkpoint| self.sources.lock().put(checkpoint));

        let mut ledgers: HashMap<TriggerNumber, (u64, Snapshot)> = HashMap::new();
        checkpoint.load(&self.name, Kind::Ledger, |number, content| {
            ledgers.insert(trigger_of(number), rows::decode_ledger(content).map_err(corrupt)?);
            Ok(())
        })?;
        checkpoint.load(&self.name, Kind::Schedule, |_, content| {
            let (trigger, waiting) = rows::decode_page(content).map_err(corrupt)?;
            if let Some((_, snapshot)) = ledgers.get_mut(&trigger) {
                snapshot.schedule.extend(waiting);
            }
            Ok(())
        })?;
        self.replay_letters(&since.notes).map_err(corrupt)?;
        let mut notes: HashMap<TriggerNumber, Vec<Note>> = HashMap::new();
        for note in since.notes {
            notes.entry(note.trigger).or_default().push(note);
        }
        let mut crashed = false;
        for (trigger, _) in self.registry.triggers() {
            let stored = ledgers.remove(&trigger);
            let (matches, notes) = (since.matches.remove(&trigger), notes.remove(&trigger));
            let idle = |(_, ledger): &(u64, Snapshot)| ledger.window.is_empty() && ledger.schedule.is_empty();
            let unchanged = matches.is_none() && notes.is_none() && stored.as_ref().is_some_and(idle);
            let (covered, mut snapshot) = stored.unwrap_or_default();
            let mut fresh = matches.unwrap_or_default();
            fresh.retain(|(place, _)| *place >= covered);
            let mut notes = notes.unwrap_or_default();
            notes.retain(|note| note.sequence >= covered);
            let mut untaken = self.untaken(trigger, &snapshot, &fresh, &notes);
            fresh.iter().for_each(|(_, offset)| snapshot.matched(*offset));
            for note in &notes {
                self.replay(&mut snapshot, note, untaken.as_mut());
            }
            crashed |= snapshot.process_ended(row.closed);
            let ledger = self.registry.ledger(trigger);
            ledger.restore(snapshot);
            // Of a hundred thousand triggers hardly any is other than its row says.
            if !unchanged {
                ledger.write_down();
            }
        }
        Ok(crashed)
    }

    fn replay_letters(&self, notes: &[Note]) -> Result<(), Corrupt> {
        let letters = &self.books.letters;
        for note in notes {
            match &note.change {
                Change::DeadLettered(_, id, content) | Change::LetterChanged(id, content) => {
                    letters.replay(*id, &StoredLetter::decode(content)?);
                }
                Change::LetterRemoved(id) => {
                    letters.remove(*id, || Some(note.sequence));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The matches that a ledger has not taken and the notes may tell of, in order. They are looked up once, for there may
    /// be a million notes: `fresh`, the matches since the ledger was written down, are all there are where it had none
    /// before. None where match lists are lost: then each note sees for itself what is known.
    fn untaken(
        &self,
        trigger: TriggerNumber,
        ledger: &Snapshot,
        fresh: &[(u64, Offset)],
        notes: &[Note],
    ) -> Option<VecDeque<Offset>> {
        let lists = self.lists.lock();
        if !lists.lost().is_empty() {
            return None;
        }
        if ledger.untaken == 0 {
            let mut all: Vec<Offset> = fresh.iter().map(|(_, offset)| *offset).collect();
            all.sort_unstable();
            return Some(all.into());
        }
        let told = notes.iter().filter(|note| is_about_a_debt(&note.change)).map(|note| note.offset + 1);
        let from = ledger.next.max(self.start());
        let listed = self.listed(&lists, trigger, from..told.max().unwrap_or(0).max(from));
        listed.ok().map(VecDeque::from)
    }

    /// Applies a change to a ledger that does not have it.
    fn replay(&self, ledger: &mut Snapshot, note: &Note, untaken: Option<&mut VecDeque<Offset>>) {
        let offset = note.offset;
        if is_about_a_debt(&note.change) && ledger.lags(offset) {
            let range = ledger.next.max(self.start())..offset + 1;
            let listed = match untaken {
                Some(untaken) => {
                    let taken = untaken.partition_point(|at| *at < range.end);
                    Ok(untaken.drain(..taken).filter(|at| range.contains(at)).collect())
                }
                None => self.listed(&self.lists.lock(), note.trigger, range),
            };
            let Ok(listed) = listed else {
                // Who matches what was taken is not known until it is restored: only that this one was settled.
                match &note.change {
                    Change::Delivered(_) => ledger.settled_unlisted(Counted::Delivered),
                    Change::Dropped(reason, _) => ledger.settled_unlisted(Counted::Dropped(*reason)),
                    Change::DeadLettered(..) => ledger.settled_unlisted(Counted::DeadLettered),
                    _ => {}
                }
                return;
            };
            ledger.taken(offset, listed);
        }
        match &note.change {
            Change::Attempted(_) => ledger.attempted(offset),
            Change::Accepted(outputs) => ledger.accept(offset, *outputs),
            Change::Waiting { due, attempts, key } => ledger.waiting(offset, *due, *attempts, *key),
            Change::Held(key) => ledger.held(offset, *key),
            Change::Delivered(_) => ledger.settled(offset, Counted::Delivered),
            Change::Dropped(reason, _) => ledger.settled(offset, Counted::Dropped(*reason)),
            Change::DeadLettered(..) => ledger.settled(offset, Counted::DeadLettered),
            Change::PassedOver { reason, untaken, next } => ledger.passed_over(*reason, *untaken, *next),
            Change::LetterChanged(..) | Change::LetterRemoved(_) => {}
        }
    }
}

impl Since {
    fn learn(&mut self, chunk: &Chunk) {
        if chunk.scope == Scope::Restored {
            // Its matches count already.
            return;
        }
        for (offset, triggers) in chunk.iter() {
            for trigger in triggers {
                self.matches.entry(*trigger).or_default().push((chunk.sequence, offset));
            }
        }
    }
}

fn is_about_a_debt(change: &Change) -> bool {
    change.tells_of_outcome()
        || matches!(change, Change::Waiting { .. } | Change::Held(_) | Change::Accepted(_))
}

fn trigger_of(number: u64) -> TriggerNumber {
    TriggerNumber(u32::try_from(number).unwrap_or(u32::MAX))
}

fn load_row(shared: &Shared, name: &ResourceName) -> Result<LogRow, OpenError> {
    let stored = shared.checkpoint.get(name, Kind::Log, 0)?;
    let row = stored.map(|stored| LogRow::decode(&stored)).transpose();
    row.map(Option::unwrap_or_default).map_err(|corrupt| shared.checkpoint.corrupt(corrupt).into())
}

fn told_torn(what: &str, torn: Option<&str>) {
    if let Some(torn) = torn {
        tracing::warn!(what, torn, "a torn tail was cut: nothing in it was acknowledged");
    }
}

/// The match lists that were found.
struct Listed {
    lists: Lists,
    bytes: u64,
}

/// Opens the match lists, and removes those of segments that are gone.
fn open_lists(
    shared: &Shared,
    directory: &Path,
    row: &LogRow,
    since: &mut Since,
) -> Result<Listed, OpenError> {
    let disk = &*shared.disk;
    let failed = |error: std::io::Error| OpenError::of(directory, &error);
    let names = disk.list(directory).map_err(failed)?;
    let mut found = Listed { lists: Lists::new(Arc::clone(&shared.disk), directory.to_owned(), 0), bytes: 0 };
    if !row.accepted.told.is_empty() {
        found.lists.read_whole();
    }
    for base in names.iter().filter_map(|name| name.strip_suffix(".matches")) {
        let Ok(number) = base.parse::<Offset>() else { continue };
        if number < row.start && !names.contains(&format!("{base}.log")) {
            disk.remove(&directory.join(format!("{base}.matches"))).map_err(failed)?;
            continue;
        }
        let mut visit = |chunk: &Chunk| since.learn(chunk);
        let of_segment = found.lists.recover(number, row.sequence, &mut visit).map_err(failed)?;
        since.next = since.next.max(of_segment.last.map_or(0, |last| last + 1));
        told_torn("matches", of_segment.torn.as_deref());
        found.bytes += of_segment.length;
    }
    Ok(found)
}

/// Opens the segments, oldest first, and removes those that were given up.
fn open_segments(
    shared: &Shared,
    directory: &Path,
    row: &LogRow,
    proven: Offset,
) -> Result<Segments, OpenError> {
    let disk = &*shared.disk;
    let failed = |error: std::io::Error| OpenError::of(directory, &error);
    let mut bases: Vec<Offset> = Vec::new();
    for name in disk.list(directory).map_err(failed)? {
        bases.extend(name.strip_suffix(".log").and_then(|base| base.parse::<Offset>().ok()));
    }
    bases.sort_unstable();
    let mut found = Segments::default();
    for (index, base) in bases.iter().enumerate() {
        let next = bases.get(index + 1).copied();
        let path = path_of(directory, *base);
        if next.is_some_and(|next| next <= row.start) {
            for extension in ["ids", "matches", "log"] {
                disk.remove(&path.with_extension(extension)).map_err(failed)?;
            }
            continue;
        }
        if let Some(segment) = Segment::open_sealed(&shared.disk, &path).map_err(failed)? {
            if segment.end() >= row.synced {
                // The checkpoint does not know yet how far sources had read; a frame may tell of nothing else.
                if let Ok(recovered) = Segment::recover(&shared.disk, &path).map_err(failed)? {
                    found.checkpoints.extend(recovered.checkpoints);
                }
            }
            found.add(segment);
            continue;
        }
        match Segment::recover(&shared.disk, &path).map_err(failed)? {
            Ok(recovered) => found.add_open(recovered, next, proven).map_err(failed)?,
            Err(_)
                if next.is_none()
                    && proven <= *base
                    && Segment::is_unused(disk, &path).map_err(failed)? =>
            {
                // The power went while it was made: nothing of it was ever acknowledged.
                disk.remove(&path).map_err(failed)?;
            }
            Err(corrupt) => {
                found.damage.push(format!("{} is corrupt at byte 0: {corrupt}", path.display()));
                // How many records it held is not known; its place is not used again.
                found.end = found.end.max(base + 1);
                found.headless.push(*base);
            }
        }
    }
    Ok(found)
}

impl Segments {
    /// Tells which records no segment holds, from `start` on, where nothing else tells of it.
    fn find_missing(&mut self, start: Offset, directory: &Path, accepted: &Accepted) {
        let mut expected = start;
        for live in &self.live {
            let (from, base) = (expected, live.segment.base());
            expected = expected.max(live.segment.end());
            let known = self.headless.iter().any(|headless| (from..base).contains(headless));
            if from < base && !known && !(accepted.has(from) && accepted.has(base - 1)) {
                let directory = directory.display();
                self.damage.push(format!("{directory} is corrupt: records {from}..{base} are missing"));
            }
        }
    }

    fn add(&mut self, segment: Segment) {
        // Arrival times go on where they were, also in a segment that holds no record yet.
        segment.follow(self.live.last().map_or(Timestamp(i64::MIN), |live| live.segment.newest()));
        let bytes = segment.length();
        self.bytes += bytes;
        self.live.push(Live { segment: Arc::new(segment), bytes: AtomicU64::new(bytes) });
    }

    /// Adds a segment without a valid footer. What is torn is cut, what is damaged stays as it is.
    fn add_open(
        &mut self,
        recovered: Recovered,
        next: Option<Offset>,
        proven: Offset,
    ) -> std::io::Result<()> {
        let Recovered { segment, checkpoints, torn, gaps } = recovered;
        self.checkpoints.extend(checkpoints);
        let file = segment.path().display().to_string();
        let before = self.damage.len();
        for gap in gaps {
            self.damage.push(format!("{file} is corrupt at bytes {}..{}: {}", gap.from, gap.to, gap.reason));
        }
        let must_end = next.unwrap_or(proven);
        match torn {
            Some(gap) if next.is_some() || segment.end() < must_end => self
                .damage
                .push(format!("{file} is corrupt at bytes {}..{}: {}", gap.from, gap.to, gap.reason)),
            Some(gap) => {
                let torn = format!("{file} at bytes {}..{}: {}", gap.from, gap.to, gap.reason);
                told_torn("segment", Some(&torn));
                if self.damage.len() == before {
                    segment.cut()?;
                }
            }
            None if segment.end() < must_end => {
                self.damage
                    .push(format!("{file} is corrupt: records {}..{must_end} are missing", segment.end()));
            }
            None if next.is_some() => {
                tracing::warn!(file, "the footer of a sealed segment is corrupt; all its records are intact");
            }
            None => {}
        }
        if self.damage.len() > before || next.is_some() {
            segment.quarantine();
        }
        self.add(segment);
        Ok(())
    }
}

impl From<CheckpointError> for OpenError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Corrupt { file, reason } => Self::Corrupt { file, reason },
            CheckpointError::Failed { file, reason } => Self::Failed { path: file, reason },
        }
    }
}
