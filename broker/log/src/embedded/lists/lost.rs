//! Match lists that are lost: found at the start or when they are read, and recorded again by whoever can match.
//!
//! What is lost is lost for a segment as a whole: where something is missing, nobody knows what else it told of. The
//! lists that can still be read stay, and are told once more by those that are restored.

use std::io;
use std::ops::Range;

use super::stored::{Summary, scan_stored};
use super::{Lists, path_of};
use crate::embedded::disk::Opening;
use crate::embedded::rows::Accepted;
use crate::record::Offset;

/// Lists that are lost and not restored.
#[derive(Debug, Clone)]
pub(in crate::embedded) struct Lost {
    /// The records that are to be examined again.
    pub(in crate::embedded) range: Range<Offset>,
    /// File, place and kind of the damage.
    pub(in crate::embedded) reason: String,
}

/// Lists that are passed over from now on: the sentences in which they were told of, and their ranges.
pub(in crate::embedded) type Passed = (Vec<String>, Vec<(Offset, Offset)>);

/// The ranges that a file tells of for all triggers.
#[derive(Debug, Default)]
pub(super) struct Coverage(Vec<Range<Offset>>);

impl Coverage {
    pub(super) fn add(&mut self, frame: &Summary) {
        self.0.push(frame.all_from..frame.matched);
        self.0.push(frame.restored.0..frame.restored.1);
    }

    /// The first offset of a range that is neither in it nor accepted as lost.
    fn first_missing(&self, range: Range<Offset>, accepted: &Accepted) -> Option<Offset> {
        let mut told: Vec<(Offset, Offset)> = self.0.iter().map(|range| (range.start, range.end)).collect();
        told.extend(accepted.lost.iter().chain(&accepted.lists).copied());
        told.sort_unstable();
        let mut at = range.start;
        for (from, to) in told {
            if from <= at {
                at = at.max(to);
            }
        }
        (at < range.end).then_some(at)
    }
}

impl Lists {
    /// Looks which lists are missing in the segments, given by base and end, at the start; those below `start` are
    /// of no use. What an operator accepted is not missed.
    pub(in crate::embedded) fn find_lost(
        &mut self,
        segments: &[(Offset, Offset)],
        start: Offset,
        accepted: &Accepted,
    ) -> Vec<String> {
        let mut told = Vec::new();
        for (base, end) in segments {
            let range = (*base).max(start)..(*end).min(self.matched);
            if range.is_empty() {
                continue;
            }
            let path = path_of(&self.directory, *base);
            let of_segment = self.segments.entry(*base).or_default();
            let missing = of_segment.coverage.first_missing(range.clone(), accepted);
            let damage = of_segment.damage.take();
            let Some(missing) = missing else { continue };
            let length = of_segment.stored.as_ref().map_or(0, |stored| stored.length);
            let reason = damage.unwrap_or_else(|| {
                let to = range.end;
                format!(
                    "{} is corrupt at byte {length}: the lists of records {missing}..{to} are missing",
                    path.display()
                )
            });
            told.push(reason.clone());
            of_segment.lost = Some(Lost { range, reason });
        }
        told
    }

    /// The lists of a segment cannot be read: from now on they are lost. False where that was known.
    pub(in crate::embedded) fn lose(&mut self, base: Offset, range: Range<Offset>, reason: &str) -> bool {
        let range = range.start..range.end.min(self.matched);
        let of_segment = self.segments.entry(base).or_default();
        if of_segment.lost.is_some() || range.is_empty() {
            return false;
        }
        // What cannot be read is not read again.
        if let Some(stored) = &mut of_segment.stored {
            stored.blocks.clear();
            stored.sealed = false;
        }
        of_segment.lost = Some(Lost { range, reason: reason.to_owned() });
        true
    }

    /// What is lost, in order.
    pub(in crate::embedded) fn lost(&self) -> Vec<Range<Offset>> {
        self.segments
            .values()
            .filter_map(|of_segment| of_segment.lost.as_ref())
            .map(|lost| lost.range.clone())
            .collect()
    }

    /// What is lost, in sentences.
    pub(in crate::embedded) fn lost_sentences(&self) -> Vec<String> {
        self.segments
            .values()
            .filter_map(|of_segment| of_segment.lost.as_ref())
            .map(|lost| lost.reason.clone())
            .collect()
    }

    /// What is lost in the segment that an offset lies in, with its base.
    pub(in crate::embedded) fn lost_around(&self, offset: Offset) -> Option<(Offset, &Lost)> {
        let (base, of_segment) = self.segments.range(..=offset).next_back()?;
        of_segment.lost.as_ref().map(|lost| (*base, lost))
    }

    /// The lists of a segment are recorded again up to `to`.
    pub(in crate::embedded) fn restored(&mut self, base: Offset, to: Offset) {
        let Some(of_segment) = self.segments.get_mut(&base) else { return };
        if let Some(lost) = &mut of_segment.lost {
            lost.range.start = lost.range.start.max(to);
            if lost.range.is_empty() {
                of_segment.lost = None;
            }
        }
    }

    /// Goes on with the lists that can be read. Returns the sentences in which the others are told of, and their ranges.
    /// It reads all files, and must not run while one is written.
    pub(in crate::embedded) fn accept_damage(&mut self) -> io::Result<Passed> {
        let (mut sentences, mut ranges) = (Vec::new(), Vec::new());
        self.cache.clear();
        for (base, of_segment) in &mut self.segments {
            if let Some(stored) = &mut of_segment.stored {
                let path = path_of(&self.directory, *base);
                let file = self.disk.open(&path, Opening::Existing)?;
                let read = scan_stored(&*file, stored.generation, u64::MAX, &mut |_| {})?;
                let gaps = read.gaps.iter().chain(&read.torn);
                sentences.extend(gaps.map(|gap| super::told(&path, gap)));
                stored.blocks = read.stored.blocks;
            }
            if let Some(Lost { range, reason }) = of_segment.lost.take() {
                sentences.push(reason);
                ranges.push((range.start, range.end));
            }
        }
        Ok((sentences, ranges))
    }
}
