//! One event as the index looks at it.

use smallvec::SmallVec;

use super::access::{Kind, scalar_bytes};
use super::condition::{Condition, Leaf, Text, Value};
use super::entries::{Check, Entries, Entry};
use super::scratch::{DataScratch, Scratch};
use super::table::{Bucket, Field, Table};
use super::{Index, NameId};
use crate::filter::Candidate;
use crate::filter::jsonpath::scalar::Scalar;

/// How many attributes of an event are looked at without an allocation.
const ATTRIBUTES: usize = 16;

/// How much is found without an allocation.
const HITS: usize = 16;

/// A bucket whose key has the hash of this one.
struct Hit<'i, 'h> {
    bucket: &'i Bucket,
    kind: Kind,
    field: u32,
    value: &'h [u8],
}

/// An event, and what was found out about it.
pub(super) struct View<'i, 'v> {
    index: &'i Index,
    candidate: &'v Candidate<'v>,
    scratch: &'v mut Scratch,
    /// Those that filters ask about.
    attributes: SmallVec<[(NameId, &'v [u8]); ATTRIBUTES]>,
    longest: usize,
    data: Data<'v>,
    /// Triggers that were found under a key, with what remains to be decided.
    unchecked: SmallVec<[(u32, &'i Check); HITS]>,
    /// Triggers that only the reference evaluator can decide.
    undecided: SmallVec<[(u32, &'i Check); 16]>,
}

#[derive(Clone, Copy)]
enum Data<'v> {
    NotLookedAt,
    None,
    Text(&'v str),
}

impl<'i, 'v> View<'i, 'v> {
    pub(super) fn new(index: &'i Index, candidate: &'v Candidate<'v>, scratch: &'v mut Scratch) -> Self {
        let event = candidate.event();
        let mut attributes = SmallVec::new();
        let mut longest = 0;
        for (name, text) in event.attribute_bytes() {
            longest = longest.max(text.len());
            if let Some(name) = index.names.find(name) {
                attributes.push((name, text));
            }
        }
        if let Some(name) = index.names.find(b"specversion") {
            attributes.push((name, event.spec_version().as_str().as_bytes()));
        }
        Self {
            index,
            candidate,
            scratch,
            attributes,
            longest,
            data: Data::NotLookedAt,
            unchecked: SmallVec::new(),
            undecided: SmallVec::new(),
        }
    }

    /// Finds all triggers that match.
    pub(super) fn decide(mut self) {
        let index = self.index;
        self.look_up(&index.table);
        self.check();
        self.ask_reference();
        self.scratch.matched.sort_unstable();
        self.scratch.matched.dedup();
    }

    fn look_up(&mut self, table: &'i Table) {
        self.take(&table.always);
        // In three steps, each with reads of memory that do not wait for one another: pages, buckets, checks.
        let mut hits: SmallVec<[Hit<'i, '_>; HITS]> = SmallVec::new();
        let mut literals = std::mem::take(&mut self.scratch.literals);
        for (name, text) in &self.attributes {
            if let Some(field) = table.field(*name) {
                self.index.look_up_attribute(table, field, (*name, text), &mut literals, &mut hits);
            }
        }
        self.scratch.literals = literals;
        for hit in hits {
            if hit.bucket.has_key(hit.kind, hit.field, hit.value) {
                self.open(hit.bucket);
            }
        }
        if table.data_buckets > 0 {
            self.look_up_data(table);
        }
    }

    fn look_up_data(&mut self, table: &'i Table) {
        let Some(text) = self.text() else { return };
        let mut buffer = self.scratch.data.take_text();
        let mut place = 0;
        while let Some(path) = self.scratch.data.path(place) {
            place += 1;
            if table.data.get(path as usize).is_none_or(|buckets| *buckets == 0) {
                continue;
            }
            let Some(found) = self.index.paths.found(path, &self.scratch.data) else { continue };
            let scalar = DataScratch::scalar(found, text, &mut buffer);
            if let Scalar::Text(text) = scalar {
                self.look_up_value(table, Kind::DataText, path, text.as_bytes());
            } else if let Some((kind, bytes)) = scalar_bytes(scalar) {
                self.look_up_value(table, kind, path, &bytes);
            }
        }
        self.scratch.data.put_text(buffer);
    }

    fn look_up_value(&mut self, table: &'i Table, kind: Kind, path: u32, value: &[u8]) {
        table.each_with(self.index.hash(kind, path, value), |bucket| {
            if bucket.has_key(kind, path, value) {
                self.open(bucket);
            }
        });
    }

    fn open(&mut self, bucket: &'i Bucket) {
        self.take(&bucket.entries);
        if let Some(split) = &bucket.split {
            self.look_up(split);
        }
    }

    #[inline]
    fn take(&mut self, entries: &'i Entries) {
        for Entry { slot, check } in entries.iter() {
            match check {
                None => self.scratch.matched.push(*slot),
                Some(check) => self.unchecked.push((*slot, check)),
            }
        }
    }

    /// Decides what was found under a key, as far as conditions do.
    fn check(&mut self) {
        let unchecked = std::mem::take(&mut self.unchecked);
        for (slot, check) in unchecked {
            if !self.holds(&check.condition) {
                continue;
            }
            match &check.reference {
                Some(reference) if reference.is_needed(self.longest) => self.undecided.push((slot, check)),
                _ => self.scratch.matched.push(slot),
            }
        }
    }

    fn holds(&mut self, condition: &Condition) -> bool {
        match condition {
            Condition::Always => true,
            Condition::Never => false,
            Condition::Leaf(Leaf::Attribute(name, asked)) => {
                let known = self.attributes.iter().find(|(known, _)| known == name);
                known.is_some_and(|(_, text)| match asked {
                    Text::Present => true,
                    Text::Equal(value) => **text == *value.as_bytes(),
                    Text::Starts(value) => text.starts_with(value.as_bytes()),
                    Text::Ends(value) => text.ends_with(value.as_bytes()),
                    // Texts of events are UTF-8, which is only checked again here.
                    Text::Fits(pattern) => std::str::from_utf8(text).is_ok_and(|text| pattern.matches(text)),
                })
            }
            Condition::Leaf(Leaf::Data(path, asked)) => self.data_holds(*path, asked),
            Condition::Not(part) => !self.holds(part),
            Condition::All(parts) => parts.iter().all(|part| self.holds(part)),
            Condition::Any(parts) => parts.iter().any(|part| self.holds(part)),
        }
    }

    fn data_holds(&mut self, path: u32, asked: &Value) -> bool {
        let Some(text) = self.text() else { return false };
        let found = self.index.paths.found(path, &self.scratch.data);
        match asked {
            Value::Exists => found.is_some(),
            Value::Filled => found.is_some_and(|found| found.filled),
            Value::Compare(comparison, literal) => {
                let mut buffer = self.scratch.data.take_text();
                let scalar = found.map(|found| DataScratch::scalar(found, text, &mut buffer));
                let holds = comparison.holds(scalar, literal);
                self.scratch.data.put_text(buffer);
                holds
            }
        }
    }

    /// The data, with all its places found; none where it is not JSON.
    #[inline]
    fn text(&mut self) -> Option<&'v str> {
        if let Data::NotLookedAt = self.data {
            let text = self.candidate.json_text().ok();
            let read = text.filter(|text| self.index.paths.find_all(text, &mut self.scratch.data).is_ok());
            self.data = read.map_or(Data::None, Data::Text);
        }
        match self.data {
            Data::Text(text) => Some(text),
            Data::NotLookedAt | Data::None => None,
        }
    }

    /// Asks the filters that no condition decides, each once, with steps of its own.
    fn ask_reference(&mut self) {
        if self.undecided.is_empty() {
            return;
        }
        self.undecided.sort_unstable_by_key(|(slot, _)| *slot);
        self.undecided.dedup_by_key(|(slot, _)| *slot);
        for (slot, check) in &self.undecided {
            let Some(reference) = &check.reference else { continue };
            let Ok(matches) = reference.filter.matches(self.candidate) else {
                self.scratch.over_budget.push(*slot);
                continue;
            };
            self.scratch.within_budget.push(*slot);
            if matches {
                self.scratch.matched.push(*slot);
            }
        }
    }
}

impl Index {
    /// Finds the buckets that an attribute may lead to.
    #[inline]
    fn look_up_attribute<'i: 'h, 'h>(
        &self,
        table: &'i Table,
        field: &'i Field,
        (name, text): (NameId, &'h [u8]),
        literals: &mut Vec<u32>,
        hits: &mut SmallVec<[Hit<'i, 'h>; HITS]>,
    ) {
        let mut look_up = |kind, value: &'h [u8]| {
            let hash = self.hash(kind, name, value);
            table.each_with(hash, |bucket| hits.push(Hit { bucket, kind, field: name, value }));
        };
        if field.equal > 0 {
            look_up(Kind::Equal, text);
        }
        for (length, _) in &field.starts {
            let Some(start) = text.get(..*length as usize) else { break };
            look_up(Kind::Starts, start);
        }
        for (length, _) in &field.ends {
            let Some(from) = text.len().checked_sub(*length as usize) else { break };
            look_up(Kind::Ends, &text[from..]);
        }
        if field.present > 0 {
            look_up(Kind::Present, &[]);
        }
        if !field.literals.is_empty() {
            field.literals.each_in(text, literals, |literal| look_up(Kind::Holds, literal));
        }
    }
}
