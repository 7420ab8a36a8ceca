//! An item of the window while a worker holds it.

use std::sync::Arc;

use waypost_log::{Entry, Key};

use super::super::window::Item;
use crate::subscription::Subscription;

/// An item that a worker holds. Dropped before it is [done](Self::done), it goes back to the window.
pub(super) struct InHand<'a> {
    subscription: &'a Subscription,
    item: Option<Item>,
    /// Whether it goes back behind all others, and not to the front.
    pub(super) to_the_back: bool,
}

impl<'a> InHand<'a> {
    pub(super) fn new(subscription: &'a Subscription, item: Item) -> Self {
        Self { subscription, item: Some(item), to_the_back: false }
    }
}

impl InHand<'_> {
    /// What the item stands for.
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.item.as_ref().expect("the item is held until `done` or the drop").entry
    }

    /// The key under which it stays in order, where it does.
    pub(super) fn key(&self) -> Option<Key> {
        self.item.as_ref().and_then(|item| item.key)
    }

    /// The ledger knows what became of the item: it leaves the window.
    pub(super) fn done(mut self) {
        let Some(item) = self.item.take() else { return };
        let mut window = self.subscription.lock();
        window.in_hand -= 1;
        self.subscription.discount(&mut window, &item);
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            let mut window = self.subscription.lock();
            window.in_hand -= 1;
            self.subscription.put(&mut window, item, !self.to_the_back);
        }
    }
}
