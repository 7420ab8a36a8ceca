//! The outcome journal of a log: appended in memory, flushed in frames, and found by debt without a scan, since
//! each run of frames is known by the range of offsets that it tells of, and by a mark for each delivery.
//!
//! ```text
//! frame of notes: last sequence u64 | lowest u64 | highest u64; then notes
//! footer:         the same of all
//!                 | blocks: (at u64 | end u64 | lowest u64 | highest u64 | count u32 | mark u16 × count) × n
//!                 | at u64 | magic u32 | CRC32C u32
//! ```
//!
//! Before there were marks a block ended with `highest`, and the footer was of another kind; that is read too.
//!
//! A file that is full ends with a footer, so that a start reads no more than that of it. Files are opened for each
//! use.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::file::{File, Summary};
pub(super) use self::notes::Notes;
use self::told::{Sought, Told};
use crate::embedded::codec::{Corrupt, Put, Reader};
use crate::embedded::disk::{Disk, Opening};
use crate::embedded::frame::{
    FILE_HEADER, FileHeader, FileKind, FrameHead, FrameReader, Scanned, Step, put_trailer, read_footer, scan,
};
use crate::embedded::note::{self, Change, Note};
use crate::ledger::{ATTEMPTS_KEPT, Attempt, Debt, OutcomeState};
use crate::log::TriggerNumber;
use crate::record::Offset;

mod file;
mod notes;
mod told;

const NOTES: u32 = 1;
const FOOTER_WITHOUT_MARKS: u32 = 2;
const FOOTER: u32 = 3;
/// A file that is longer gets a successor.
const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// The most bytes of notes that wait for the disk.
const WAITING_BYTES: usize = 64 * 1024 * 1024;
/// The frames that are read and kept together, in bytes, unless one is larger.
const BLOCK_BYTES: u64 = 16 * 1024;
/// The blocks that are kept: deliveries that end beside each other were often tried beside each other before.
const CACHED: usize = 64;

/// The journal.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The place of the next change.
    sequence: u64,
    fresh: Notes,
    leaving: Arc<Notes>,
    files: VecDeque<File>,
    next_file: u64,
    cache: VecDeque<(BlockKey, Arc<Vec<u8>>)>,
}

/// The number of a file, and where a block begins and ends in it.
type BlockKey = (u64, u64, u64);

/// What is known of one debt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) settled: Option<OutcomeState>,
    /// The last attempts, the newest last.
    pub(super) attempts: Vec<Attempt>,
}

/// The journal's files as they were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) torn: Vec<String>,
    pub(super) damage: Vec<String>,
    pub(super) bytes: u64,
}

enum Piece {
    Held(Arc<Vec<u8>>),
    Stored(BlockKey, u64),
}

impl Journal {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        Self { directory, disk, state: Mutex::default() }
    }

    /// Notes a change and returns its place. None where too much waits for the disk.
    pub(super) fn note(&self, offset: Offset, trigger: TriggerNumber, change: Change) -> Option<u64> {
        let mut state = self.state.lock();
        if state.fresh.bytes.len() + state.leaving.bytes.len() > WAITING_BYTES {
            return None;
        }
        let sequence = state.sequence;
        state.sequence += 1;
        state.fresh.push(&Note { sequence, offset, trigger, change });
        Some(sequence)
    }

    /// Notes changes that are written in one frame, so that all of them are found again or none. False where too much
    /// waits for the disk.
    pub(super) fn note_together(&self, changes: impl IntoIterator<Item = (Debt, Change)>) -> bool {
        let mut state = self.state.lock();
        if state.fresh.bytes.len() + state.leaving.bytes.len() > WAITING_BYTES {
            return false;
        }
        for (debt, change) in changes {
            let sequence = state.sequence;
            state.sequence += 1;
            state.fresh.push(&Note { sequence, offset: debt.position.offset, trigger: debt.trigger, change });
        }
        true
    }

    /// The place of the next change.
    pub(super) fn sequence(&self) -> u64 {
        self.state.lock().sequence
    }

    /// Takes a place for a change that is written elsewhere.
    pub(super) fn take_place(&self) -> u64 {
        let mut state = self.state.lock();
        state.sequence += 1;
        state.sequence - 1
    }

    /// Goes on behind what is known to be taken.
    pub(super) fn go_on_at(&self, sequence: u64) {
        let mut state = self.state.lock();
        state.sequence = state.sequence.max(sequence);
    }

    /// Takes out what is to be written by [`Journal::write`].
    pub(super) fn leave(&self) -> Option<Arc<Notes>> {
        let mut state = self.state.lock();
        if state.fresh.count == 0 && state.leaving.count == 0 {
            return None;
        }
        // About as much comes until the next time.
        let room = Vec::with_capacity(state.fresh.bytes.len());
        let fresh = std::mem::replace(&mut state.fresh, Notes { bytes: room, ..Notes::default() });
        // Behind what there was no room for before.
        state.leaving =
            Arc::new(if state.leaving.count == 0 { fresh } else { state.leaving.followed_by(&fresh) });
        Some(Arc::clone(&state.leaving))
    }

    /// Writes notes and makes them durable. Only one may write at a time. Returns the bytes that the files grew by.
    pub(super) fn write(&self, notes: &Notes) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(notes.bytes.len() + 256);
        let (mut file, new) = {
            let state = self.state.lock();
            match state.files.back().filter(|file| !file.sealed && file.length < FILE_BYTES) {
                Some(file) => (file.without_blocks(), false),
                None => {
                    let number = state.next_file;
                    let header = FileHeader::new(number);
                    bytes.put(&header.encode(FileKind::Outcomes));
                    (File::new(number, header.generation), true)
                }
            }
        };
        let start = file.length;
        let at = start + bytes.len() as u64;
        let (number, place) = ((NOTES, file.next_number), (notes.first, notes.count));
        let size = FrameHead::encode(&mut bytes, file.generation, number, place, |into| {
            Summary::new(notes.last, &notes.told).encode(into);
            into.put(&notes.bytes);
        });
        let end = at + size as u64;
        file.next_number += 1;
        if end >= FILE_BYTES {
            let mut whole = file.without_blocks();
            if let Some(known) = self.state.lock().files.back().filter(|_| !new) {
                whole.blocks.clone_from(&known.blocks);
            }
            whole.add(notes.last, &notes.told, at, end);
            let (number, place) = ((FOOTER, file.next_number), (notes.first, 0));
            FrameHead::encode(&mut bytes, file.generation, number, place, |into| {
                whole.encode_footer(into);
                put_trailer(into, end);
            });
            file.next_number += 1;
            file.sealed = true;
        }
        // It may have been made before, when there was no room for more.
        let how = if new { Opening::Either } else { Opening::Writing };
        let stored = self.disk.open(&path_of(&self.directory, file.number), how)?;
        stored.write_at(&bytes, start)?;
        stored.sync()?;
        if new {
            self.disk.sync_directory(&self.directory)?;
        }
        let mut state = self.state.lock();
        if new {
            state.next_file = file.number + 1;
            state.files.push_back(File::new(file.number, file.generation));
        }
        if let Some(known) = state.files.back_mut() {
            known.length = start + bytes.len() as u64;
            (known.next_number, known.sealed) = (file.next_number, file.sealed);
            known.add(notes.last, &notes.told, at, end);
        }
        state.leaving = Arc::default();
        Ok(bytes.len() as u64)
    }

    /// What is known of a debt.
    pub(super) fn find(&self, offset: Offset, trigger: TriggerNumber) -> Known {
        self.find_within(offset, trigger, u64::MAX)
    }

    /// What is known of a debt from what waits for the disk and from the newest notes there, as far as no more than
    /// `most` bytes are read for it: where many deliveries are tried again and again, every block may tell of any.
    pub(super) fn find_within(&self, offset: Offset, trigger: TriggerNumber, most: u64) -> Known {
        let mut known = Known::default();
        let sought = Sought::new(offset, trigger);
        let (mut pieces, leaving, fresh) = self.pieces(sought);
        let mut read = 0_u64;
        let newest = pieces.iter().rev().take_while(|piece| {
            read = read.saturating_add(piece.bytes());
            read <= most
        });
        let older = pieces.len() - newest.count();
        for piece in pieces.drain(older..) {
            let read = match piece {
                Piece::Held(notes) => Ok(notes),
                Piece::Stored(key, generation) => self.read(key, generation),
            };
            let learned = read.and_then(|notes| {
                note::about(&notes, offset, trigger, |change| known.learn(change)).map_err(|e| e.to_string())
            });
            if let Err(reason) = learned {
                let directory = self.directory.display().to_string();
                tracing::error!(
                    directory,
                    reason,
                    "the outcome journal is corrupt: what became of some deliveries cannot be told"
                );
            }
        }
        // What was never on the disk is intact.
        let _ = leaving.about(sought, |change| known.learn(change));
        fresh.into_iter().for_each(|change| known.learn(change));
        let excess = known.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        known.attempts.drain(..excess);
        known
    }

    /// Where notes on a debt may be: on the disk, on their way there, and those that only wait. All at one moment, so
    /// that none is missed while it goes from here to there.
    fn pieces(&self, sought: Sought) -> (Vec<Piece>, Arc<Notes>, Vec<Change>) {
        let state = self.state.lock();
        let mut pieces = Vec::new();
        for file in state.files.iter().filter(|file| file.summary.tells_of(sought.offset)) {
            for block in file.blocks.iter().filter(|block| block.told.may_tell_of(sought)) {
                let key = (file.number, block.at, block.end);
                let cached = state.cache.iter().find(|(cached, _)| *cached == key);
                pieces.push(match cached {
                    Some((_, notes)) => Piece::Held(Arc::clone(notes)),
                    None => Piece::Stored(key, file.generation),
                });
            }
        }
        let mut fresh = Vec::new();
        let _ = state.fresh.about(sought, |change| fresh.push(change));
        (pieces, Arc::clone(&state.leaving), fresh)
    }

    /// The notes of a block.
    fn read(&self, key: BlockKey, generation: u64) -> Result<Arc<Vec<u8>>, String> {
        let (number, at, end) = key;
        let path = path_of(&self.directory, number);
        let unreadable = |error: io::Error| format!("{} cannot be read: {error}", path.display());
        let file = self.disk.open(&path, Opening::Existing).map_err(unreadable)?;
        let mut reader = FrameReader::new(&*file, generation, at, end);
        let mut notes = Vec::new();
        while reader.position() < end {
            let at = reader.position();
            let corrupt = |reason: Corrupt| format!("{} is corrupt at byte {at}: {reason}", path.display());
            match reader.next().map_err(unreadable)? {
                Step::Frame { body, .. } => {
                    let mut body = Reader(body);
                    Summary::decode(&mut body).map_err(corrupt)?;
                    notes.put(body.0);
                }
                Step::End => return Err(corrupt(Corrupt("a frame is gone"))),
                Step::Bad(reason) => return Err(corrupt(reason)),
            }
        }
        let notes = Arc::new(notes);
        let mut state = self.state.lock();
        if state.cache.len() == CACHED {
            state.cache.pop_front();
        }
        state.cache.push_back((key, Arc::clone(&notes)));
        Ok(notes)
    }

    /// Removes the files that speak only of what lies below `start` and that a checkpoint covers up to `covered`.
    /// Returns the bytes that go. The directory need not be synced: what comes back is only history.
    pub(super) fn trim(&self, start: Offset, covered: u64) -> io::Result<u64> {
        let mut bytes = 0;
        loop {
            let file = {
                let mut state = self.state.lock();
                let old = |file: &File| file.summary.highest < start && file.summary.last < covered;
                if state.files.len() < 2 || !state.files.front().is_some_and(old) {
                    return Ok(bytes);
                }
                state.files.pop_front()
            };
            let Some(file) = file else { return Ok(bytes) };
            bytes += file.length;
            self.disk.remove(&path_of(&self.directory, file.number))?;
        }
    }

    /// Takes in the files as they are found at the start, and hands each note with a place from `covered` on to
    /// `visit`, in order.
    pub(super) fn recover(&self, covered: u64, visit: &mut dyn FnMut(Note)) -> io::Result<Found> {
        let mut found = Found::default();
        let mut numbers: Vec<u64> = Vec::new();
        for name in self.disk.list(&self.directory)? {
            numbers.extend(name.strip_suffix(".outcomes").and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let mut state = self.state.lock();
        let last = numbers.last().copied();
        for number in numbers {
            state.next_file = number + 1;
            let newest = last == Some(number);
            if let Some(file) = self.recover_file(number, newest, covered, visit, &mut found)? {
                found.bytes += file.length;
                if file.next_number > 0 {
                    state.sequence = state.sequence.max(file.summary.last + 1);
                }
                state.files.push_back(file);
            }
        }
        Ok(found)
    }

    fn recover_file(
        &self,
        number: u64,
        newest: bool,
        covered: u64,
        visit: &mut dyn FnMut(Note),
        found: &mut Found,
    ) -> io::Result<Option<File>> {
        let path = path_of(&self.directory, number);
        let stored = self.disk.open(&path, Opening::Existing)?;
        let mut header = [0; FILE_HEADER];
        stored.read_at(&mut header, 0)?;
        let length = stored.length()?;
        let Ok(FileHeader { generation, .. }) = FileHeader::decode(&header, FileKind::Outcomes) else {
            // The power may go while the newest is made; those before it were durable when it was.
            let cut_off = newest && header.iter().all(|byte| *byte == 0);
            if length <= FILE_HEADER as u64 || cut_off {
                self.disk.remove(&path)?;
            } else {
                found
                    .damage
                    .push(format!("{} is corrupt at byte 0: the file header is damaged", path.display()));
            }
            return Ok(None);
        };
        let footer = read_footer(&*stored, generation, FOOTER_WITHOUT_MARKS..=FOOTER, |head, body| {
            let file = File { length, next_number: head.number + 1, ..File::new(number, generation) };
            file.with_footer(body, if head.kind == FOOTER { Told::decode } else { Told::decode_range })
        })?;
        if let Some(file) = footer.filter(|file| file.summary.last < covered) {
            return Ok(Some(file));
        }
        let mut file = File::new(number, generation);
        let scanned = scan(&*stored, generation, FILE_HEADER as u64, 0, |at, head, body| {
            file.sealed = (FOOTER_WITHOUT_MARKS..=FOOTER).contains(&head.kind);
            if head.kind != NOTES {
                return Ok(());
            }
            let mut reader = Reader(body);
            let summary = Summary::decode(&mut reader)?;
            if summary.last >= covered {
                let notes = note::decode_all(reader.0)?;
                notes.into_iter().filter(|note| note.sequence >= covered).for_each(&mut *visit);
            }
            let mut told = Told::default();
            note::outcomes(reader.0, |offset, trigger| told.add(offset, trigger))?;
            file.add(summary.last, &told, at, at + head.size());
            Ok(())
        })?;
        let Scanned { end, next_number, gaps, torn } = scanned;
        let place =
            |gap: &crate::embedded::frame::Gap| format!("bytes {}..{}: {}", gap.from, gap.to, gap.reason);
        found
            .damage
            .extend(gaps.iter().map(|gap| format!("{} is corrupt at {}", path.display(), place(gap))));
        if let Some(gap) = torn {
            file.sealed = false;
            stored.set_length(end)?;
            stored.sync()?;
            found.torn.push(format!("{} at {}", path.display(), place(&gap)));
        }
        (file.length, file.next_number) = (end, next_number);
        Ok(Some(file))
    }
}

impl Piece {
    fn bytes(&self) -> u64 {
        match self {
            Self::Held(notes) => notes.len() as u64,
            Self::Stored((_, at, end), _) => end - at,
        }
    }
}

impl Known {
    fn learn(&mut self, change: Change) {
        let (state, attempt) = match change {
            Change::Attempted(attempt) => (None, Some(attempt)),
            Change::Delivered(attempt) => (Some(OutcomeState::Delivered), attempt),
            Change::Dropped(reason, attempt) => (Some(OutcomeState::Dropped(reason)), attempt),
            Change::DeadLettered(attempt, ..) => (Some(OutcomeState::DeadLettered), attempt),
            _ => return,
        };
        self.settled = self.settled.or(state);
        self.attempts.extend(attempt);
    }
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.outcomes"))
}

#[cfg(test)]
mod suite;
