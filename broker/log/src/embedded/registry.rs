//! Which triggers a log knows, and their ledgers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use waypost_core::manifest::ResourceName;

use crate::embedded::books::{Books, TriggerBooks};
use crate::embedded::log::PARTITION;
use crate::ledger::Ledger;
use crate::log::TriggerNumber;
use crate::record::Offset;

/// The numbers of triggers and their ledgers. A number is given once and never again.
pub(super) struct Registry {
    books: Arc<Books>,
    names: Mutex<Names>,
    ledgers: RwLock<HashMap<TriggerNumber, Arc<Ledger>>>,
}

#[derive(Default)]
struct Names {
    next: u32,
    numbers: HashMap<Arc<ResourceName>, TriggerNumber>,
    names: HashMap<TriggerNumber, Arc<ResourceName>>,
    /// Named or forgotten since this was last written down.
    fresh: Vec<TriggerNumber>,
}

/// A name that is to be written down, or to be taken out.
pub(super) type FreshName = (TriggerNumber, Option<Arc<ResourceName>>);

impl Registry {
    pub(super) fn new(books: Arc<Books>) -> Self {
        Self { books, names: Mutex::default(), ledgers: RwLock::default() }
    }

    /// The number of a trigger, a new one where it has none.
    pub(super) fn number(&self, name: &ResourceName) -> TriggerNumber {
        let mut names = self.names.lock();
        if let Some(number) = names.numbers.get(name) {
            return *number;
        }
        let number = TriggerNumber(names.next);
        names.enter(number, Arc::new(name.clone()));
        names.fresh.push(number);
        self.books.mark();
        number
    }

    /// Enters a name that was written down before.
    pub(super) fn restore(&self, number: TriggerNumber, name: ResourceName) {
        self.names.lock().enter(number, Arc::new(name));
    }

    /// Gives out numbers from `next` on only.
    pub(super) fn go_on_at(&self, next: u32) {
        let mut names = self.names.lock();
        names.next = names.next.max(next);
    }

    pub(super) fn next(&self) -> u32 {
        self.names.lock().next
    }

    pub(super) fn triggers(&self) -> Vec<(TriggerNumber, ResourceName)> {
        let names = self.names.lock();
        let mut all: Vec<_> =
            names.names.iter().map(|(number, name)| (*number, ResourceName::clone(name))).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all
    }

    /// The names to write down. Whoever takes them writes them.
    pub(super) fn fresh_names(&self) -> Vec<FreshName> {
        let mut names = self.names.lock();
        let fresh = std::mem::take(&mut names.fresh);
        fresh.into_iter().map(|number| (number, names.names.get(&number).cloned())).collect()
    }

    /// The ledger of a trigger; one that nobody fills where the number is not assigned.
    pub(super) fn ledger(&self, trigger: TriggerNumber) -> Arc<Ledger> {
        if let Some(ledger) = self.find(trigger) {
            return ledger;
        }
        // Held to the end, so that a trigger that is forgotten meanwhile does not get a ledger after that.
        let names = self.names.lock();
        let name = names.names.get(&trigger).cloned();
        let assigned = name.is_some();
        let name = name.unwrap_or_else(|| Arc::new(ResourceName::new("", "")));
        let journal = TriggerBooks::new(name, Arc::clone(&self.books));
        let ledger = Arc::new(Ledger::new(PARTITION, trigger, Arc::new(journal)));
        if assigned {
            return Arc::clone(self.ledgers.write().entry(trigger).or_insert(ledger));
        }
        ledger
    }

    /// The ledger of a trigger that has a number, made where it does not exist.
    pub(super) fn assigned(&self, trigger: TriggerNumber) -> Option<Arc<Ledger>> {
        self.find(trigger).or_else(|| {
            let known = self.names.lock().names.contains_key(&trigger);
            known.then(|| self.ledger(trigger))
        })
    }

    /// The ledger of a trigger, where it has one.
    pub(super) fn find(&self, trigger: TriggerNumber) -> Option<Arc<Ledger>> {
        self.ledgers.read().get(&trigger).cloned()
    }

    /// The oldest offset that must stay readable for some trigger.
    pub(super) fn floor(&self) -> Option<Offset> {
        self.ledgers.read().values().filter_map(|ledger| ledger.floor()).min()
    }

    /// All ledgers there are.
    pub(super) fn ledgers(&self) -> Vec<Arc<Ledger>> {
        self.ledgers.read().values().cloned().collect()
    }

    /// Takes a trigger's number and ledger away.
    pub(super) fn forget(&self, trigger: TriggerNumber) {
        let mut names = self.names.lock();
        let Some(name) = names.names.remove(&trigger) else { return };
        names.numbers.remove(&name);
        names.fresh.push(trigger);
        if let Some(ledger) = self.ledgers.write().remove(&trigger) {
            ledger.clear();
        }
        self.books.mark();
    }
}

impl Names {
    fn enter(&mut self, number: TriggerNumber, name: Arc<ResourceName>) {
        self.next = self.next.max(number.0 + 1);
        self.names.insert(number, Arc::clone(&name));
        self.numbers.insert(name, number);
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}
