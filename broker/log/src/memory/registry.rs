//! Which triggers there are, and their ledgers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use waypost_core::manifest::ResourceName;

use crate::ledger::Ledger;
use crate::log::TriggerNumber;
use crate::memory::books::{Books, TriggerBooks};
use crate::record::Offset;

/// The numbers of triggers and their ledgers. A number is an index, given once and never again.
pub(super) struct Registry {
    books: Arc<Books>,
    names: Mutex<Names>,
    /// For each partition the ledgers by number; made when first needed.
    ledgers: Vec<RwLock<Vec<Option<Arc<Ledger>>>>>,
}

#[derive(Default)]
struct Names {
    numbers: HashMap<Arc<ResourceName>, TriggerNumber>,
    names: Vec<Option<Arc<ResourceName>>>,
}

impl Registry {
    pub(super) fn new(partitions: u16, books: Arc<Books>) -> Self {
        let ledgers = (0..partitions).map(|_| RwLock::default()).collect();
        Self { books, names: Mutex::default(), ledgers }
    }

    /// The number of a trigger, a new one where it has none.
    pub(super) fn number(&self, name: &ResourceName) -> TriggerNumber {
        let mut names = self.names.lock();
        if let Some(number) = names.numbers.get(name) {
            return *number;
        }
        let next = u32::try_from(names.names.len()).expect("a log has had fewer than 2^32 triggers");
        let name = Arc::new(name.clone());
        names.names.push(Some(Arc::clone(&name)));
        names.numbers.insert(name, TriggerNumber(next));
        TriggerNumber(next)
    }

    pub(super) fn triggers(&self) -> Vec<(TriggerNumber, ResourceName)> {
        let names = self.names.lock();
        let known = |(number, name): (u32, &Option<Arc<ResourceName>>)| {
            name.as_ref().map(|name| (TriggerNumber(number), ResourceName::clone(name)))
        };
        (0..).zip(&names.names).filter_map(known).collect()
    }

    /// The ledgers of a partition, as they are.
    pub(super) fn of(&self, partition: u16) -> PartitionLedgers<'_> {
        PartitionLedgers(self.ledgers[usize::from(partition)].read())
    }

    /// The ledger of a trigger; one that nobody fills where the number is not assigned.
    pub(super) fn ledger(&self, partition: u16, trigger: TriggerNumber) -> Arc<Ledger> {
        if let Some(ledger) = self.of(partition).get(trigger) {
            return ledger;
        }
        // Held to the end, so that a trigger that is forgotten meanwhile does not get a ledger after that.
        let names = self.names.lock();
        let index = trigger.0 as usize;
        let name = names.names.get(index).cloned().flatten();
        let assigned = name.is_some();
        let name = name.unwrap_or_else(|| Arc::new(ResourceName::new("", "")));
        let journal = TriggerBooks::new(name, Arc::clone(&self.books));
        let ledger = Arc::new(Ledger::new(partition, trigger, Arc::new(journal)));
        if !assigned {
            return ledger;
        }
        let mut ledgers = self.ledgers[usize::from(partition)].write();
        if ledgers.len() <= index {
            ledgers.resize(index + 1, None);
        }
        Arc::clone(ledgers[index].get_or_insert(ledger))
    }

    /// Makes the ledgers that a match list needs and that do not exist yet.
    pub(super) fn prepare(&self, partition: u16, triggers: impl Iterator<Item = TriggerNumber>) {
        let missing: Vec<TriggerNumber> = {
            let ledgers = self.of(partition);
            triggers.filter(|trigger| !ledgers.knows(*trigger)).collect()
        };
        for trigger in missing {
            self.ledger(partition, trigger);
        }
    }

    /// Takes a trigger's number and ledgers away.
    pub(super) fn forget(&self, trigger: TriggerNumber) {
        let index = trigger.0 as usize;
        let mut names = self.names.lock();
        let Some(name) = names.names.get_mut(index).and_then(Option::take) else { return };
        names.numbers.remove(&name);
        for ledgers in &self.ledgers {
            let ledger = ledgers.write().get_mut(index).and_then(Option::take);
            if let Some(ledger) = ledger {
                ledger.clear();
            }
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

/// The ledgers of one partition, held against change.
pub(super) struct PartitionLedgers<'a>(RwLockReadGuard<'a, Vec<Option<Arc<Ledger>>>>);

impl PartitionLedgers<'_> {
    pub(super) fn get(&self, trigger: TriggerNumber) -> Option<Arc<Ledger>> {
        self.find(trigger).cloned()
    }

    pub(super) fn knows(&self, trigger: TriggerNumber) -> bool {
        self.find(trigger).is_some()
    }

    /// Whether the trigger, which matches the record, needs it.
    pub(super) fn holds(&self, trigger: TriggerNumber, offset: Offset) -> bool {
        self.find(trigger).is_some_and(|ledger| ledger.holds(offset))
    }

    /// Makes a match a debt. False where the trigger is gone or has passed it.
    pub(super) fn matched(&self, trigger: TriggerNumber, offset: Offset) -> bool {
        self.find(trigger).is_some_and(|ledger| ledger.matched(offset))
    }

    fn find(&self, trigger: TriggerNumber) -> Option<&Arc<Ledger>> {
        self.0.get(trigger.0 as usize)?.as_ref()
    }
}
