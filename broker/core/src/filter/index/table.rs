//! Buckets by key, in pages that are shared between versions of an index: a change copies one page and the way to it.

use std::sync::Arc;

use super::access::{Chosen, Key, Kind};
use super::condition::Condition;
use super::entries::{CHUNK, Check, Entries, Entry};
use super::literals::Literals;
use super::{NameId, Placing};

/// Pages in a group. A version has its own list of groups.
const GROUP_BITS: u32 = 6;

/// The pages double when they hold more buckets than this on average.
const BUCKETS_PER_PAGE: usize = 4;

/// How often a bucket with many entries is split by one more key.
const MAX_SPLITS: usize = 3;

/// Buckets by the hash of their key. Read far more often than changed, so that it is one piece of memory.
type Page = Arc<[(u64, Arc<Bucket>)]>;
type Group = Arc<[Page]>;

/// Triggers by what has to be true for them to match.
#[derive(Debug, Clone)]
pub(super) struct Table {
    groups: Vec<Group>,
    /// The pages are two to this power.
    bits: u32,
    buckets: usize,
    /// What is looked up, by the number of the name.
    pub(super) fields: Vec<Arc<Field>>,
    /// How many buckets ask for a place in the data, by the number of the path.
    pub(super) data: Vec<u32>,
    pub(super) data_buckets: usize,
    /// Entries without a key.
    pub(super) always: Entries,
}

/// What is looked up for an attribute: how many buckets of each kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    pub(super) equal: u32,
    pub(super) present: u32,
    /// By length.
    pub(super) starts: Vec<(u32, u32)>,
    pub(super) ends: Vec<(u32, u32)>,
    pub(super) literals: Literals,
}

/// The entries of a key.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    key: Key,
    pub(super) entries: Entries,
    /// Entries that have another key besides, once there are many.
    pub(super) split: Option<Box<Table>>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            groups: vec![[Page::default()].into()],
            bits: 0,
            buckets: 0,
            fields: Vec::new(),
            data: Vec::new(),
            data_buckets: 0,
            always: Entries::default(),
        }
    }
}

impl Table {
    fn place(&self, hash: u64) -> (usize, usize) {
        let page = hash.checked_shr(u64::BITS - self.bits).unwrap_or(0) as usize;
        (page >> GROUP_BITS, page & ((1 << GROUP_BITS) - 1))
    }

    /// Calls back with each bucket whose key has this hash: at most one, but for chance. Whether the key is the one that
    /// was meant is still to be asked.
    #[inline]
    pub(super) fn each_with<'t>(&'t self, hash: u64, mut each: impl FnMut(&'t Bucket)) {
        let (group, page) = self.place(hash);
        for (other, bucket) in &*self.groups[group][page] {
            if *other == hash {
                each(bucket);
            }
        }
    }

    fn find(&self, hash: u64, key: &Key) -> Option<&Bucket> {
        let mut found = None;
        self.each_with(hash, |bucket| {
            if bucket.key == *key {
                found = Some(bucket);
            }
        });
        found
    }

    /// Adds a trigger under keys that cover the condition, or for every event where there are none.
    pub(super) fn add(&mut self, slot: u32, check: &Check, placing: &mut Placing<'_>, splits: usize) {
        let Some(keys) = check.condition.cover(&|key| placing.mentions(key)) else {
            self.always.push(placing.entry(slot, check, check.condition.clone()));
            return;
        };
        // Alternatives of many keys share what remains, rather than have it each.
        let shared = keys.len().saturating_mul(check.condition.leaves()) > CHUNK;
        let shared = shared.then(|| placing.entry(slot, check, check.condition.clone()));
        for Chosen { key, decides } in &keys {
            let entry = match &shared {
                _ if *decides => placing.entry(slot, check, Condition::Always),
                Some(shared) => shared.clone(),
                None => placing.entry(slot, check, check.condition.given(key)),
            };
            self.bucket_mut(placing.hash(key), key).add(entry, placing, splits);
        }
    }

    /// Removes a trigger from wherever [`Table::add`] may have put it.
    pub(super) fn remove(&mut self, slot: u32, condition: &Condition, placing: &mut Placing<'_>) {
        if self.always.holds(slot) {
            self.always.remove(slot);
        }
        let mut keys = Vec::new();
        condition.each_key(&mut |key| keys.push(key));
        for key in keys {
            let hash = placing.hash(&key);
            if !self.find(hash, &key).is_some_and(|bucket| bucket.holds(slot)) {
                continue;
            }
            let bucket = self.bucket_mut(hash, &key);
            bucket.remove(slot, condition, placing);
            if bucket.is_empty() {
                self.drop_bucket(hash, &key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.buckets == 0 && self.always.is_empty() && self.data_buckets == 0
    }

    /// Ends a series of changes.
    pub(super) fn seal(&mut self) {
        for field in &mut self.fields {
            if field.literals.are_too_many() {
                Arc::make_mut(field).literals.seal();
            }
        }
    }

    fn bucket_mut(&mut self, hash: u64, key: &Key) -> &mut Bucket {
        let known = self.find(hash, key).is_some();
        if !known {
            self.buckets += 1;
            if self.buckets > BUCKETS_PER_PAGE << self.bits {
                self.double();
            }
            self.count(key, true);
        }
        let (group, page) = self.place(hash);
        let page = &mut Arc::make_mut(&mut self.groups[group])[page];
        if !known {
            let bucket = Bucket { key: key.clone(), entries: Entries::default(), split: None };
            *page = page.iter().cloned().chain([(hash, Arc::new(bucket))]).collect();
        }
        let place = page.iter().position(|(other, bucket)| *other == hash && bucket.key == *key);
        let place = place.expect("the bucket is there, or was added just now");
        Arc::make_mut(&mut Arc::make_mut(page)[place].1)
    }

    fn drop_bucket(&mut self, hash: u64, key: &Key) {
        let (group, page) = self.place(hash);
        let page = &mut Arc::make_mut(&mut self.groups[group])[page];
        *page = page.iter().filter(|(other, bucket)| *other != hash || bucket.key != *key).cloned().collect();
        self.buckets -= 1;
        self.count(key, false);
    }

    /// Doubles the pages. Each change pays for one bucket of it on average.
    fn double(&mut self) {
        let bits = self.bits + 1;
        let mut pages: Vec<Vec<(u64, Arc<Bucket>)>> = vec![Vec::new(); 1 << bits];
        for group in std::mem::take(&mut self.groups) {
            for (hash, bucket) in group.iter().flat_map(|page| page.iter()) {
                let place = hash.checked_shr(u64::BITS - bits).unwrap_or(0) as usize;
                pages[place].push((*hash, Arc::clone(bucket)));
            }
        }
        let mut pages = pages.into_iter().map(Page::from).peekable();
        while pages.peek().is_some() {
            self.groups.push(pages.by_ref().take(1 << GROUP_BITS).collect());
        }
        self.bits = bits;
    }

    /// Counts a bucket that comes or goes.
    fn count(&mut self, key: &Key, comes: bool) {
        let change = |count: &mut u32| *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        let place = key.field as usize;
        if matches!(key.kind, Kind::DataText | Kind::DataScalar) {
            if self.data.len() <= place {
                self.data.resize(place + 1, 0);
            }
            change(&mut self.data[place]);
            self.data_buckets = if comes { self.data_buckets + 1 } else { self.data_buckets - 1 };
            return;
        }
        if self.fields.len() <= place {
            self.fields.resize_with(place + 1, Arc::default);
        }
        let field = Arc::make_mut(&mut self.fields[place]);
        match key.kind {
            Kind::Equal => change(&mut field.equal),
            Kind::Present => change(&mut field.present),
            Kind::Starts => count_length(&mut field.starts, key.value.len(), comes),
            Kind::Ends => count_length(&mut field.ends, key.value.len(), comes),
            Kind::Holds if comes => field.literals.add(&key.value),
            Kind::Holds => field.literals.remove(&key.value),
            Kind::DataText | Kind::DataScalar => {}
        }
    }

    /// What is looked up for a name.
    #[inline]
    pub(super) fn field(&self, name: NameId) -> Option<&Field> {
        self.fields.get(name as usize).map(|field| &**field)
    }
}

fn count_length(lengths: &mut Vec<(u32, u32)>, length: usize, comes: bool) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    match lengths.binary_search_by_key(&length, |(length, _)| *length) {
        Ok(place) if comes => lengths[place].1 += 1,
        Ok(place) if lengths[place].1 > 1 => lengths[place].1 -= 1,
        Ok(place) => drop(lengths.remove(place)),
        Err(place) if comes => lengths.insert(place, (length, 1)),
        Err(_) => {}
    }
}

impl Bucket {
    /// Whether this is its key.
    #[inline]
    pub(super) fn has_key(&self, kind: Kind, field: u32, value: &[u8]) -> bool {
        self.key.kind == kind && self.key.field == field && self.key.value.as_slice() == value
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.split.is_none()
    }

    fn holds(&self, slot: u32) -> bool {
        // A split cannot say so without its keys; it is searched.
        self.split.is_some() || self.entries.holds(slot)
    }

    fn add(&mut self, entry: Entry, placing: &mut Placing<'_>, splits: usize) {
        if splits == MAX_SPLITS {
            return self.entries.push(entry);
        }
        if self.split.is_none() && self.entries.len() >= CHUNK && entry.has_key(placing) {
            self.split = Some(Box::default());
            for known in self.entries.take() {
                self.add_to_split(known, placing, splits);
            }
        }
        self.add_to_split(entry, placing, splits);
    }

    fn add_to_split(&mut self, entry: Entry, placing: &mut Placing<'_>, splits: usize) {
        let keyed = entry.has_key(placing);
        match (&mut self.split, &entry.check) {
            (Some(split), Some(check)) if keyed => {
                split.add(entry.slot, check, placing, splits + 1);
                split.seal();
            }
            _ => self.entries.push(entry),
        }
    }

    fn remove(&mut self, slot: u32, condition: &Condition, placing: &mut Placing<'_>) {
        self.entries.remove(slot);
        if let Some(split) = &mut self.split {
            split.remove(slot, condition, placing);
            if split.buckets == 0 && split.always.is_empty() {
                self.split = None;
            }
        }
    }
}

impl Entry {
    fn has_key(&self, placing: &Placing<'_>) -> bool {
        self.check.as_ref().is_some_and(|check| {
            check.condition.cover(&|key| placing.mentions(key)).is_some_and(|keys| !keys.is_empty())
        })
    }
}
