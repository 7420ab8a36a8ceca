//! Reading records out of a segment.

use std::io;
use std::iter::Peekable;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::embedded::batch::{self, Item};
use crate::embedded::codec::Corrupt;
use crate::embedded::frame::{FILE_HEADER, FrameHead, FrameReader, Step};
use crate::embedded::segment::{INDEX_EVERY, RECORDS, Segment};
use crate::error::ReadError;
use crate::record::{Entry, Offset, Position};

/// What is read at once where only single records are wanted.
const PIECE: usize = INDEX_EVERY as usize;

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// File, place and kind of the damage.
    pub(crate) reason: String,
}

impl Damage {
    /// The error of whoever asked for the record.
    pub(crate) fn at(self, position: Position) -> ReadError {
        ReadError::Corrupt { position, reason: self.reason }
    }
}

/// Where looking for the next wanted record ends.
enum Place {
    /// The frame that holds it.
    Frame(FrameHead),
    /// The records up to this offset are not there.
    Missing(Offset, Corrupt),
}

impl Segment {
    /// Reads the wanted records, in increasing order, and hands each to `visit` until it says stop. What is not in
    /// this segment any more stays in `wanted`. `buffer` is used for reading.
    pub(crate) fn visit<I: Iterator<Item = Offset>>(
        &self,
        buffer: &mut Vec<u8>,
        partition: u16,
        wanted: &mut Peekable<I>,
        visit: impl FnMut(Offset, Result<Arc<Entry>, Damage>) -> bool,
    ) -> io::Result<()> {
        let (end, length) = {
            let state = self.state.read();
            (state.end, state.length)
        };
        let file = self.file()?;
        let mut reader = FrameReader::new(&*file, self.generation, FILE_HEADER as u64, length);
        if wanted.size_hint().1 == Some(1) {
            reader = reader.in_pieces_of(PIECE);
        }
        reader = reader.into(std::mem::take(buffer));
        let visited = self.visit_with(&mut reader, end, partition, wanted, visit);
        *buffer = reader.into_buffer();
        visited
    }

    fn visit_with<I: Iterator<Item = Offset>>(
        &self,
        reader: &mut FrameReader<'_>,
        end: Offset,
        partition: u16,
        wanted: &mut Peekable<I>,
        mut visit: impl FnMut(Offset, Result<Arc<Entry>, Damage>) -> bool,
    ) -> io::Result<()> {
        while let Some(offset) = wanted.peek().copied().filter(|offset| *offset < end) {
            let at = self.point_before(offset);
            if at > reader.position() {
                reader.seek(at);
            }
            let (limit, reason) = match find(reader, offset, end)? {
                Place::Missing(to, reason) => (to, reason),
                Place::Frame(head) => {
                    let limit = head.first + u64::from(head.count);
                    match reader.next()? {
                        Step::Frame { at, body, .. } => {
                            for item in batch::items(body) {
                                let Ok(Item::Record(record)) = item else { continue };
                                if wanted.next_if_eq(&record.offset).is_none() {
                                    continue;
                                }
                                let entry = record.entry(partition).map(Arc::new);
                                let entry = entry.map_err(|corrupt| self.damage(at, corrupt));
                                if !visit(record.offset, entry) {
                                    return Ok(());
                                }
                            }
                            (limit, Corrupt("a record is not in its frame"))
                        }
                        Step::Bad(reason) => {
                            reader.skip(&head);
                            (limit, reason)
                        }
                        Step::End => (limit, Corrupt("a frame is gone")),
                    }
                }
            };
            let at = reader.position();
            while let Some(offset) = wanted.next_if(|offset| *offset < limit) {
                if !visit(offset, Err(self.damage(at, reason))) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The first offset whose record arrived at `arrived` or later.
    pub(crate) fn first_since(&self, arrived: Timestamp) -> io::Result<Offset> {
        let (from, end) = {
            let state = self.state.read();
            let before = state.index.partition_point(|point| point.arrived < arrived);
            let from = before.checked_sub(1).map_or(self.base, |index| state.index[index].offset);
            (from, state.end)
        };
        let mut found = end;
        self.visit(&mut Vec::new(), 0, &mut (from..end).peekable(), |offset, entry| {
            if entry.is_ok_and(|entry| entry.arrived >= arrived) {
                found = offset;
            }
            found == end
        })?;
        Ok(found)
    }

    /// Where the last indexed frame begins that does not begin after the offset.
    fn point_before(&self, offset: Offset) -> u64 {
        let state = self.state.read();
        let index = state.index.partition_point(|point| point.offset <= offset);
        index.checked_sub(1).map_or(FILE_HEADER as u64, |index| state.index[index].at)
    }

    fn damage(&self, at: u64, corrupt: Corrupt) -> Damage {
        Damage { reason: format!("{} is corrupt at byte {at}: {corrupt}", self.path.display()) }
    }
}

/// Goes on to the frame that should hold `offset`.
fn find(reader: &mut FrameReader<'_>, offset: Offset, end: Offset) -> io::Result<Place> {
    loop {
        let reason = match reader.peek()? {
            Some(Ok(head)) if head.kind == RECORDS => {
                if head.first > offset {
                    return Ok(Place::Missing(head.first, Corrupt("a frame is missing")));
                }
                if head.first + u64::from(head.count) > offset {
                    return Ok(Place::Frame(head));
                }
                reader.skip(&head);
                continue;
            }
            Some(Ok(_)) | None => Corrupt("frames are missing"),
            Some(Err(reason)) => reason,
        };
        match reader.find_later(0)? {
            Some(later) => reader.seek(later),
            None => return Ok(Place::Missing(end, reason)),
        }
    }
}
