//! The outcome journal of a log: appended in memory, flushed in frames, and found by debt without a scan, since
//! each frame is known by the range of offsets that it tells of.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::embedded::codec::Put;
use crate::embedded::disk::{Disk, DiskFile, Opening};
use crate::embedded::frame::{
    FILE_HEADER, FileHeader, FileKind, FrameHead, FrameReader, Scanned, Step, scan,
};
use crate::embedded::note::{self, Change, Note};
use crate::ledger::{ATTEMPTS_KEPT, Attempt, OutcomeState};
use crate::log::TriggerNumber;
use crate::record::Offset;

const NOTES: u32 = 1;
/// A file that is longer gets a successor.
const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// The most bytes of notes that wait for the disk.
const WAITING_BYTES: usize = 64 * 1024 * 1024;
/// The decoded frames that are kept.
const CACHED: usize = 8;
/// About what a note takes without its attempt or letter.
const NOTE_BYTES: usize = 96;

/// The journal.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The place of the next change.
    sequence: u64,
    fresh: Vec<Note>,
    fresh_bytes: usize,
    leaving: Arc<Vec<Note>>,
    files: VecDeque<File>,
    next_file: u64,
    cache: VecDeque<(FrameKey, Arc<Vec<Note>>)>,
}

/// The number of a file, and where a frame begins in it.
type FrameKey = (u64, u64);

#[derive(Debug)]
struct File {
    number: u64,
    stored: Arc<dyn DiskFile>,
    generation: u64,
    length: u64,
    next_number: u64,
    frames: Vec<Frame>,
    /// The place of the last change in it.
    last: u64,
    /// The highest offset that it tells of.
    highest: Offset,
}

/// A frame, and the offsets whose outcomes it tells of.
#[derive(Debug, Clone, Copy)]
struct Frame {
    at: u64,
    lowest: Offset,
    highest: Offset,
}

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
    Held(Arc<Vec<Note>>),
    Stored { key: FrameKey, file: Arc<dyn DiskFile>, generation: u64, end: u64 },
}

impl Journal {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, state: Mutex::default() }
    }

    /// Notes a change and returns its place. None where too much waits for the disk.
    pub(super) fn note(&self, offset: Offset, trigger: TriggerNumber, change: Change) -> Option<u64> {
        let mut state = self.state.lock();
        if state.fresh_bytes > WAITING_BYTES {
            return None;
        }
        let sequence = state.sequence;
        state.sequence += 1;
        state.fresh_bytes += NOTE_BYTES + heap_size(&change);
        state.fresh.push(Note { sequence, offset, trigger, change });
        Some(sequence)
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
    pub(super) fn leave(&self) -> Option<Arc<Vec<Note>>> {
        let mut state = self.state.lock();
        if state.fresh.is_empty() {
            return None;
        }
        state.leaving = Arc::new(std::mem::take(&mut state.fresh));
        state.fresh_bytes = 0;
        Some(Arc::clone(&state.leaving))
    }

    /// Writes notes and makes them durable. Only one may write at a time. Returns the bytes that the files grew by.
    pub(super) fn write(&self, disk: &dyn Disk, notes: &[Note]) -> io::Result<u64> {
        let (Some(first), Some(last)) = (notes.first(), notes.last()) else { return Ok(0) };
        let mut bytes = Vec::new();
        let (file, generation, at, number, new) = {
            let mut state = self.state.lock();
            match state.files.back().filter(|file| file.length < FILE_BYTES) {
                Some(file) => {
                    (Arc::clone(&file.stored), file.generation, file.length, file.next_number, None)
                }
                None => {
                    let number = state.next_file;
                    state.next_file += 1;
                    drop(state);
                    let header = FileHeader::new(number);
                    bytes.put(&header.encode(FileKind::Outcomes));
                    let file = disk.open(&path_of(&self.directory, number), Opening::New)?;
                    (file, header.generation, 0, 0, Some(number))
                }
            }
        };
        let frame_at = at + bytes.len() as u64;
        let count = u32::try_from(notes.len()).unwrap_or(u32::MAX);
        FrameHead::encode(&mut bytes, generation, (NOTES, number), (first.sequence, count), |into| {
            for note in notes {
                note.encode(into);
            }
        });
        file.write_at(&bytes, at)?;
        file.sync()?;
        if new.is_some() {
            disk.sync_directory(&self.directory)?;
        }
        let mut state = self.state.lock();
        if let Some(number) = new {
            state.files.push_back(File {
                number,
                stored: file,
                generation,
                length: 0,
                next_number: 0,
                frames: Vec::new(),
                last: 0,
                highest: 0,
            });
        }
        if let Some(file) = state.files.back_mut() {
            file.length = at + bytes.len() as u64;
            file.next_number += 1;
            file.last = last.sequence;
            file.add_frame(frame_at, notes);
        }
        state.leaving = Arc::default();
        Ok(bytes.len() as u64)
    }

    /// What is known of a debt.
    pub(super) fn find(&self, offset: Offset, trigger: TriggerNumber) -> Known {
        let mut known = Known::default();
        let (pieces, fresh) = self.pieces(offset, trigger);
        for piece in pieces {
            let notes = match piece {
                Piece::Held(notes) => notes,
                Piece::Stored { key, file, generation, end } => match self.read(key, &*file, generation, end)
                {
                    Some(notes) => notes,
                    None => continue,
                },
            };
            notes.iter().for_each(|note| known.learn(note, offset, trigger));
        }
        fresh.iter().for_each(|note| known.learn(note, offset, trigger));
        let excess = known.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        known.attempts.drain(..excess);
        known
    }

    /// Where notes on a debt may be: on the disk or on their way there, and those that only wait. All at one moment,
    /// so that none is missed while it goes from here to there.
    fn pieces(&self, offset: Offset, trigger: TriggerNumber) -> (Vec<Piece>, Vec<Note>) {
        let state = self.state.lock();
        let mut pieces = Vec::new();
        for file in &state.files {
            for frame in file.frames.iter().filter(|frame| (frame.lowest..=frame.highest).contains(&offset)) {
                let key = (file.number, frame.at);
                let cached = state.cache.iter().find(|(cached, _)| *cached == key);
                pieces.push(match cached {
                    Some((_, notes)) => Piece::Held(Arc::clone(notes)),
                    None => Piece::Stored {
                        key,
                        file: Arc::clone(&file.stored),
                        generation: file.generation,
                        end: file.length,
                    },
                });
            }
        }
        pieces.push(Piece::Held(Arc::clone(&state.leaving)));
        let fresh = state.fresh.iter().filter(|note| note.offset == offset && note.trigger == trigger);
        (pieces, fresh.cloned().collect())
    }

    fn read(&self, key: FrameKey, file: &dyn DiskFile, generation: u64, end: u64) -> Option<Arc<Vec<Note>>> {
        let mut reader = FrameReader::new(file, generation, key.1, end).in_pieces_of(32 * 1024);
        let notes = match reader.next() {
            Ok(Step::Frame { body, .. }) => note::decode_all(body).map_err(|corrupt| corrupt.to_string()),
            Ok(Step::End) => Err("a frame is gone".to_owned()),
            Ok(Step::Bad(corrupt)) => Err(corrupt.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let file = path_of(&self.directory, key.0);
        let notes = notes
            .inspect_err(|reason| {
                tracing::error!(file = %file.display(), at = key.1, reason, "the outcome journal is corrupt: what became of some deliveries cannot be told");
            })
            .ok()
            .map(Arc::new)?;
        let mut state = self.state.lock();
        if state.cache.len() == CACHED {
            state.cache.pop_front();
        }
        state.cache.push_back((key, Arc::clone(&notes)));
        Some(notes)
    }

    /// Removes the files that speak only of what lies below `start` and that a checkpoint covers up to `covered`.
    /// Returns the bytes that go. The directory need not be synced: what comes back is only history.
    pub(super) fn trim(&self, disk: &dyn Disk, start: Offset, covered: u64) -> io::Result<u64> {
        let mut bytes = 0;
        loop {
            let file = {
                let mut state = self.state.lock();
                let old = |file: &File| file.highest < start && file.last < covered;
                if state.files.len() < 2 || !state.files.front().is_some_and(old) {
                    return Ok(bytes);
                }
                state.files.pop_front()
            };
            let Some(file) = file else { return Ok(bytes) };
            bytes += file.length;
            disk.remove(&path_of(&self.directory, file.number))?;
        }
    }

    /// Takes in the files as they are found at the start, and hands each note to `visit`, in order.
    pub(super) fn recover(&self, disk: &dyn Disk, visit: &mut dyn FnMut(Note)) -> io::Result<Found> {
        let mut found = Found::default();
        let mut numbers: Vec<u64> = Vec::new();
        for name in disk.list(&self.directory)? {
            numbers.extend(name.strip_suffix(".outcomes").and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let mut state = self.state.lock();
        for number in numbers {
            state.next_file = number + 1;
            let path = path_of(&self.directory, number);
            let stored = disk.open(&path, Opening::Existing)?;
            let mut header = [0; FILE_HEADER];
            stored.read_at(&mut header, 0)?;
            let length = stored.length()?;
            let Ok(header) = FileHeader::decode(&header, FileKind::Outcomes) else {
                if length <= FILE_HEADER as u64 || header.iter().all(|byte| *byte == 0) {
                    disk.remove(&path)?;
                } else {
                    found
                        .damage
                        .push(format!("{} is corrupt at byte 0: the file header is damaged", path.display()));
                }
                continue;
            };
            let mut file = File {
                number,
                stored,
                generation: header.generation,
                length: 0,
                next_number: 0,
                frames: Vec::new(),
                last: 0,
                highest: 0,
            };
            let stored = Arc::clone(&file.stored);
            let Scanned { end, next_number, gaps, torn } =
                scan(&*stored, header.generation, FILE_HEADER as u64, 0, |at, _, body| {
                    let notes = note::decode_all(body)?;
                    file.last = notes.last().map_or(file.last, |note| note.sequence);
                    file.add_frame(at, &notes);
                    notes.into_iter().for_each(&mut *visit);
                    Ok(())
                })?;
            for gap in gaps {
                found.damage.push(format!(
                    "{} is corrupt at bytes {}..{}: {}",
                    path.display(),
                    gap.from,
                    gap.to,
                    gap.reason
                ));
            }
            if let Some(gap) = torn {
                stored.set_length(end)?;
                stored.sync()?;
                found.torn.push(format!(
                    "{} at bytes {}..{}: {}",
                    path.display(),
                    gap.from,
                    gap.to,
                    gap.reason
                ));
            }
            file.length = end;
            file.next_number = next_number;
            found.bytes += end;
            state.sequence = state.sequence.max(file.last + 1);
            state.files.push_back(file);
        }
        Ok(found)
    }
}

impl File {
    fn add_frame(&mut self, at: u64, notes: &[Note]) {
        let offsets = || notes.iter().filter(|note| note.tells_of_outcome()).map(|note| note.offset);
        if let (Some(lowest), Some(highest)) = (offsets().min(), offsets().max()) {
            self.frames.push(Frame { at, lowest, highest });
            self.highest = self.highest.max(highest);
        }
    }
}

impl Known {
    fn learn(&mut self, note: &Note, offset: Offset, trigger: TriggerNumber) {
        if note.offset != offset || note.trigger != trigger {
            return;
        }
        let (state, attempt) = match &note.change {
            Change::Attempted(attempt) => (None, Some(attempt)),
            Change::Delivered(attempt) => (Some(OutcomeState::Delivered), attempt.as_ref()),
            Change::Dropped(reason, attempt) => (Some(OutcomeState::Dropped(*reason)), attempt.as_ref()),
            Change::DeadLettered(attempt, ..) => (Some(OutcomeState::DeadLettered), attempt.as_ref()),
            _ => return,
        };
        self.settled = self.settled.or(state);
        self.attempts.extend(attempt.cloned());
    }
}

fn heap_size(change: &Change) -> usize {
    match change {
        Change::Attempted(attempt) => attempt.heap_size(),
        Change::Delivered(attempt) | Change::Dropped(_, attempt) => {
            attempt.as_ref().map_or(0, Attempt::heap_size)
        }
        Change::DeadLettered(attempt, _, letter) => {
            letter.len() + attempt.as_ref().map_or(0, Attempt::heap_size)
        }
        Change::LetterChanged(_, letter) => letter.len(),
        _ => 0,
    }
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.outcomes"))
}
