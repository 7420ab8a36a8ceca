//! The filters of many triggers, asked together.
//!
//! Each filter is compiled to a condition on single attributes and single places in the data, and put under keys of
//! which one must be true of an event for the filter to match: an attribute that equals, starts with, ends with or
//! holds something, or is there; a place in the data that equals something. Of conditions that must all hold the one is
//! chosen that the fewest filters mention; alternatives are put under a key each. An event is looked up by what it has,
//! and what remains of a condition is checked for what was found. A part that no condition expresses (an expression, a
//! query beyond single places) is decided by the reference evaluator, [`Filter::matches`], once a condition that it
//! implies holds. The answer is always that of the reference.
//!
//! An [`Index`] is a value: a clone is cheap and shares nearly all of its memory, so that readers go on with the version
//! that they have while the next one is made.

mod access;
mod condition;
mod entries;
mod literals;
mod mentions;
mod names;
mod paths;
mod scratch;
mod table;
mod view;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use self::access::{Key, Kind};
use self::condition::{Compiled, Compiler, Condition, Reference};
use self::entries::{ByReference, Check, Checks, Entry};
use self::mentions::Mentions;
use self::names::{NameId, Names};
use self::paths::Paths;
pub use self::scratch::Scratch;
use self::table::Table;
use self::view::View;
use super::{Candidate, Filter};

/// Fewer changes than this never make it worth while to build an index anew.
const FEW_CHANGES: usize = 1_024;

/// Filters by slot, a number that the caller gives to each.
#[derive(Clone, Default)]
pub struct Index {
    names: Names,
    paths: Paths,
    table: Table,
    mentions: Mentions,
    checks: Checks,
    hasher: foldhash::quality::RandomState,
    filters: usize,
    changes: usize,
}

impl Index {
    /// Builds the index of all these filters. Slots are distinct.
    pub fn build<'f>(filters: impl Iterator<Item = (u32, &'f Filter)> + Clone) -> Self {
        let mut index = Self::default();
        // First what all of them mention, so that each is put where the fewest others are.
        for (_, filter) in filters.clone() {
            let compiled = index.compile(filter);
            index.mention(&compiled);
        }
        for (slot, filter) in filters {
            let compiled = index.compile(filter);
            index.put(slot, filter, compiled);
        }
        index.table.seal();
        index
    }

    /// Adds a filter under a slot that is free. Copies what it changes: time in proportion to the number of its clauses,
    /// to that of the names and paths that all filters together ask about, and to the square root of the number of
    /// filters; now and then, as the index doubles, to that number itself.
    pub fn insert(&mut self, slot: u32, filter: &Filter) {
        let compiled = self.compile(filter);
        self.mention(&compiled);
        self.put(slot, filter, compiled);
        self.table.seal();
        self.changes += 1;
    }

    /// Removes the filter of a slot, which must be the one that it was added with. Takes as long as
    /// [`Index::insert`]. What only it asked about (a name, a path, a literal of a pattern) is still looked for until the
    /// index is built anew; see [`Index::is_worn`].
    pub fn remove(&mut self, slot: u32, filter: &Filter) {
        let compiled = self.compile(filter);
        let Self { table, hasher, mentions, checks, .. } = self;
        table.remove(slot, &compiled.condition, &mut Placing { hasher, mentions, checks });
        compiled.condition.each_key(&mut |key| self.mentions.remove(hash(&self.hasher, &key)));
        self.filters -= 1;
        self.changes += 1;
    }

    /// How many filters there are.
    pub fn len(&self) -> usize {
        self.filters
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.filters == 0
    }

    /// Whether so much changed since the index was built that building it anew costs no more than the changes did.
    pub fn is_worn(&self) -> bool {
        self.changes > FEW_CHANGES.max(self.filters)
    }

    /// Finds the slots whose filters match the event: [`Scratch::matched`], and [`Scratch::over_budget`]. Looks at the
    /// data only where a filter that could match asks about it, and goes through it once for all single places.
    pub fn matches(&self, candidate: &Candidate<'_>, scratch: &mut Scratch) {
        scratch.begin();
        // Looking at an event takes its time too.
        if !self.is_empty() {
            View::new(self, candidate, scratch).decide();
        }
    }

    fn compile(&mut self, filter: &Filter) -> Compiled {
        Compiler::compile(&mut self.names, &mut self.paths, filter)
    }

    fn mention(&mut self, compiled: &Compiled) {
        compiled.condition.each_key(&mut |key| self.mentions.add(hash(&self.hasher, &key)));
    }

    fn put(&mut self, slot: u32, filter: &Filter, compiled: Compiled) {
        let reference = match compiled.reference {
            Reference::Never => None,
            Reference::Always => Some(None),
            Reference::LongTexts(weight) => Some(Some(weight)),
        };
        let reference =
            reference.map(|unless_short| Arc::new(ByReference { filter: filter.clone(), unless_short }));
        let check = Check { condition: compiled.condition, reference };
        let Self { table, hasher, mentions, checks, .. } = self;
        table.add(slot, &check, &mut Placing { hasher, mentions, checks }, 0);
        self.filters += 1;
    }

    #[inline]
    fn hash(&self, kind: Kind, field: u32, value: &[u8]) -> u64 {
        hash_parts(&self.hasher, kind, field, value)
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("filters", &self.filters)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

/// What a table is changed with.
struct Placing<'p> {
    hasher: &'p foldhash::quality::RandomState,
    mentions: &'p Mentions,
    checks: &'p mut Checks,
}

impl Placing<'_> {
    fn hash(&self, key: &Key) -> u64 {
        hash(self.hasher, key)
    }

    /// How many filters mention the key.
    fn mentions(&self, key: &Key) -> u64 {
        self.mentions.of(self.hash(key))
    }

    /// The entry of a trigger of which so much remains to be decided.
    fn entry(&mut self, slot: u32, check: &Check, remains: Condition) -> Entry {
        let decided = remains == Condition::Always && check.reference.is_none();
        let remaining = Check { condition: remains, reference: check.reference.clone() };
        Entry { slot, check: (!decided).then(|| self.checks.share(remaining)) }
    }
}

fn hash(hasher: &foldhash::quality::RandomState, key: &Key) -> u64 {
    hash_parts(hasher, key.kind, key.field, &key.value)
}

#[inline]
fn hash_parts(hasher: &foldhash::quality::RandomState, kind: Kind, field: u32, value: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u64(u64::from(field) << 8 | kind as u64);
    hasher.write(value);
    hasher.finish()
}

#[cfg(test)]
mod suite;
