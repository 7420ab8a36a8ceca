//! Which records repeat an earlier one, where their broker wants to know.
//!
//! Whether a record is a repeat depends on the log alone: it is one where an earlier record with its source and id
//! arrived at most the window before it, and is among as many records before it as the rule looks back. So everyone
//! who matches a record, now or once more, comes to the same answer. Records that a delivery caused are neither
//! repeats nor repeated.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use waypost_core::manifest::Deduplication;
use waypost_log::{Entry, Log, Offset, Position, ReadError, ReadLimit, Timestamp};

use crate::matching::recorded::{self, UnreadableRecord};

/// How much is read at once to learn what came before.
const CHUNK: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024 };

/// So many records with the source and the id of one are looked at, the newest first.
const ALIKE: usize = 4_096;

/// Judges the records of a partition in their order. It remembers a hash of each that may be repeated: 48 bytes at most.
struct Repeats {
    log: Arc<dyn Log>,
    partition: u16,
    rule: Deduplication,
    hashes: std::hash::RandomState,
    /// The newest record with each hash.
    recent: HashMap<u64, Offset>,
    /// The same in their order, with those that newer ones have replaced.
    order: VecDeque<Seen>,
    /// The first offset that was not judged.
    next: Offset,
}

/// Judges the records of a partition in pages, each after the one before where that is so.
pub(crate) struct Judge {
    log: Arc<dyn Log>,
    repeats: Option<Repeats>,
}

impl Judge {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self { log, repeats: None }
    }

    /// The offsets of those entries that are repeats, in order. Entries may come again. Not cancel-safe towards later calls:
    /// after one that was dropped, what came before is read anew.
    pub(crate) async fn repeats(
        &mut self,
        rule: Option<Deduplication>,
        entries: &[Arc<Entry>],
    ) -> Result<Vec<Offset>, ReadError> {
        let mut found = Vec::new();
        // Made anew after an error: it may have seen some of the entries.
        let known = self.repeats.take();
        let (Some(rule), Some(first)) = (rule, entries.first()) else { return Ok(found) };
        let mut repeats = match known {
            Some(repeats) if repeats.goes_on_at(first.position, rule) => repeats,
            _ => Repeats::before(Arc::clone(&self.log), rule, first).await?,
        };
        for entry in entries {
            if repeats.judge(entry).await?.is_some() {
                found.push(entry.position.offset);
            }
        }
        self.repeats = Some(repeats);
        Ok(found)
    }
}

/// Judges pages of records once more by the rules of the plans that decided about them: those that are recorded when
/// it is made.
pub(crate) struct LaterJudge {
    judge: Judge,
    /// For each plan, oldest first, what it decides from where on in each partition.
    rules: Vec<(Vec<Offset>, Option<Deduplication>)>,
}

impl LaterJudge {
    /// # Errors
    /// A recorded plan cannot be read.
    pub(crate) fn new(log: Arc<dyn Log>) -> Result<Self, UnreadableRecord> {
        let mut rules = Vec::new();
        for plan in log.plans() {
            let rule = recorded::deduplication(&plan)?;
            rules.push((plan.effective, rule));
        }
        Ok(Self { judge: Judge::new(log), rules })
    }

    /// As [`Judge::repeats`].
    pub(crate) async fn repeats(&mut self, entries: &[Arc<Entry>]) -> Result<Vec<Offset>, ReadError> {
        let Self { judge, rules } = self;
        // Which plan decided about a record, counted from the oldest.
        let plan_of = |entry: &Entry| {
            let Position { partition, offset } = entry.position;
            rules.partition_point(|(from, _)| from[usize::from(partition)] <= offset).checked_sub(1)
        };
        let mut found = Vec::new();
        for page in entries.chunk_by(|one, next| plan_of(one) == plan_of(next)) {
            let rule = plan_of(&page[0]).and_then(|plan| rules[plan].1);
            found.extend(judge.repeats(rule, page).await?);
        }
        Ok(found)
    }
}

struct Seen {
    offset: Offset,
    hash: u64,
    arrived: Timestamp,
}

impl Repeats {
    /// Makes ready to judge `first` and what follows it: reads what came before, as far as the rule looks back. What
    /// is damaged there counts as if it had never come.
    async fn before(log: Arc<dyn Log>, rule: Deduplication, first: &Entry) -> Result<Self, ReadError> {
        let Position { partition, offset: end } = first.position;
        let since = log.first_since(partition, first.arrived.before(rule.window)).await?;
        let mut repeats = Self {
            rule,
            partition,
            hashes: std::hash::RandomState::new(),
            recent: HashMap::new(),
            order: VecDeque::new(),
            next: since.max(end.saturating_sub(rule.events)),
            log,
        };
        while repeats.next < end {
            match repeats.log.read(partition, repeats.next, CHUNK).await {
                Ok(entries) if entries.is_empty() => break,
                Ok(entries) => {
                    entries
                        .iter()
                        .filter(|entry| entry.position.offset < end)
                        .for_each(|entry| repeats.remember(entry));
                    let last = entries.last().map_or(end, |entry| entry.position.offset + 1);
                    repeats.next = last.min(end);
                }
                Err(ReadError::Trimmed { start }) => repeats.next = start.max(repeats.next + 1),
                Err(ReadError::Corrupt { position, .. }) => {
                    repeats.next = position.offset.max(repeats.next) + 1;
                }
                Err(error) => return Err(error),
            }
            tokio::task::consume_budget().await;
        }
        repeats.next = end;
        Ok(repeats)
    }

    /// Whether what is judged next is the record at `at`, by this rule.
    fn goes_on_at(&self, at: Position, rule: Deduplication) -> bool {
        (self.partition, self.next) == (at.partition, at.offset) && self.rule == rule
    }

    /// The newest record that this one repeats, if it repeats one. After an error the record may be judged again, by a
    /// judge that is made anew.
    async fn judge(&mut self, entry: &Entry) -> Result<Option<Position>, ReadError> {
        self.forget(entry);
        let repeated = match self.recent.get(&self.hash(entry)) {
            _ if entry.metadata.cause.is_some() => None,
            None => None,
            Some(suspect) => {
                let position = Position { offset: *suspect, ..entry.position };
                match self.log.fetch(position).await {
                    Ok(earlier) if is_repeated(self.rule, &earlier, entry) => Some(position),
                    // Another one with this hash, or one that cannot be read: those before it decide.
                    Ok(_) | Err(ReadError::Trimmed { .. } | ReadError::Corrupt { .. }) => {
                        repeated_by(&*self.log, self.rule, entry).await?
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.remember(entry);
        self.next = entry.position.offset + 1;
        Ok(repeated)
    }

    fn hash(&self, entry: &Entry) -> u64 {
        self.hashes.hash_one((entry.event.source(), entry.event.id()))
    }

    fn remember(&mut self, entry: &Entry) {
        if entry.metadata.cause.is_some() {
            return;
        }
        let (offset, hash) = (entry.position.offset, self.hash(entry));
        self.recent.insert(hash, offset);
        self.order.push_back(Seen { offset, hash, arrived: entry.arrived });
    }

    /// Forgets what neither `entry` nor a later record can repeat.
    fn forget(&mut self, entry: &Entry) {
        let since = entry.arrived.before(self.rule.window);
        let from = entry.position.offset.saturating_sub(self.rule.events);
        while let Some(oldest) = self.order.front()
            && (oldest.arrived < since || oldest.offset < from)
        {
            if self.recent.get(&oldest.hash) == Some(&oldest.offset) {
                self.recent.remove(&oldest.hash);
            }
            self.order.pop_front();
        }
    }
}

/// The newest record that `entry` repeats, found by its source and id. Reads from the disk.
pub(crate) async fn repeated_by(
    log: &dyn Log,
    rule: Deduplication,
    entry: &Entry,
) -> Result<Option<Position>, ReadError> {
    if entry.metadata.cause.is_some() {
        return Ok(None);
    }
    for position in log.find(entry.event.source(), entry.event.id(), ALIKE).await? {
        if position.partition != entry.position.partition || position.offset >= entry.position.offset {
            continue;
        }
        match log.fetch(position).await {
            Ok(earlier) if is_repeated(rule, &earlier, entry) => return Ok(Some(position)),
            Ok(_) | Err(ReadError::Trimmed { .. } | ReadError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn is_repeated(rule: Deduplication, earlier: &Entry, entry: &Entry) -> bool {
    earlier.metadata.cause.is_none()
        && earlier.event.id() == entry.event.id()
        && earlier.event.source() == entry.event.source()
        && earlier.arrived >= entry.arrived.before(rule.window)
        && earlier.position.offset >= entry.position.offset.saturating_sub(rule.events)
}
