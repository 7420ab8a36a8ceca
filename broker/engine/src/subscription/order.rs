//! Keeps the events of a key in order: only the lowest that is not settled may be attempted, as the ledger says.
//!
//! Those behind it wait in the window as long as there is room and the key is not closed by a retry; else they are held
//! in the ledger's schedule, so that a key that goes on and a key without events find room in the window.

use std::sync::Arc;

use waypost_log::{Entry, Key, Ledger, Offset, Opened, Position, Turn, WriteError};

use super::Subscription;
use super::window::{Item, Window};

impl Subscription {
    /// Takes a match into the window, or behind another of its key.
    ///
    /// # Errors
    /// It was taken, and could not be moved to the schedule: it waits in the window for now.
    pub(super) fn take(
        &self,
        window: &mut Window,
        ledger: &Ledger,
        entry: &Arc<Entry>,
    ) -> Result<(), WriteError> {
        let Some(key) = window.key_of(entry) else {
            if ledger.take(entry) {
                self.push_fresh(window, Item { entry: Arc::clone(entry), key: None });
            }
            return Ok(());
        };
        let item = || Item { entry: Arc::clone(entry), key: Some(key) };
        match ledger.take_in_order(entry, key) {
            None => Ok(()),
            Some(Turn::Now) => {
                self.push_fresh(window, item());
                Ok(())
            }
            Some(Turn::Later) => self.put_behind(window, ledger, key, item()),
        }
    }

    /// Puts what was read and is in the ledger's window into ours. What was settled meanwhile is let go.
    pub(super) fn admit(
        &self,
        window: &mut Window,
        ledger: &Ledger,
        entry: Arc<Entry>,
    ) -> Result<(), WriteError> {
        match ledger.turn(entry.position.offset, window.key_of(&entry)) {
            None => Ok(()),
            Some((Turn::Later, Some(key))) => {
                // It is to be in order only now, and cannot go out with what is ahead of it.
                ledger
                    .batch_of(entry.position.offset)
                    .into_iter()
                    .for_each(|(batch, _)| ledger.unbind(batch));
                self.put_behind(window, ledger, key, Item { entry, key: Some(key) })
            }
            Some((_, key)) => {
                self.push(window, Item { entry, key });
                Ok(())
            }
        }
    }

    fn put_behind(
        &self,
        window: &mut Window,
        ledger: &Ledger,
        key: Key,
        item: Item,
    ) -> Result<(), WriteError> {
        let held = if window.has_room_behind() && !ledger.is_closed(key) {
            None
        } else {
            Some(ledger.hold(&item.entry))
        };
        match held {
            Some(Ok(())) => Ok(()),
            refused => {
                self.account(window, &item);
                let position = item.entry.position;
                window.behind.insert((position.partition, key, position.offset), item);
                refused.unwrap_or(Ok(()))
            }
        }
    }

    /// The first of a key waits for its next attempt: those behind it leave the window.
    pub(super) fn close(&self, ledger: &Ledger, key: Key) {
        let partition = ledger.partition();
        let mut window = self.lock();
        let behind = window.behind.range((partition, key, 0)..=(partition, key, Offset::MAX));
        let behind: Vec<Offset> = behind.map(|((_, _, offset), _)| *offset).collect();
        let mut refused = None;
        for offset in behind {
            let at = (partition, key, offset);
            let Some(item) = window.behind.get(&at) else { continue };
            if let Err(error) = ledger.hold(&item.entry) {
                refused = Some(error);
                break;
            }
            if let Some(item) = window.behind.remove(&at) {
                self.discount(&mut window, &item);
            }
        }
        drop(window);
        if let Some(error) = refused {
            self.not_written(&error);
        }
    }

    /// What nothing of its key is ahead of any more comes to the others that are ready.
    pub(super) fn open(&self, window: &mut Window, ledger: &Ledger) {
        self.review(window, ledger);
        if window.recovering {
            return;
        }
        let partition = ledger.partition();
        for opened in ledger.opened(window.room().max(1)) {
            match opened {
                // Else it stands among them already.
                Opened::Window(key, offset) => {
                    window.ready.extend(window.behind.remove(&(partition, key, offset)));
                }
                Opened::Held(due) => match due.entry {
                    Some(entry) => self.push(window, Item { entry, key: due.key }),
                    None => window.unread.push_back(Position { partition, offset: due.offset }),
                },
            }
        }
        window.look_for_due |= ledger.has_opened();
        // Whatever left the schedule may have made room for more.
        if let Some(place) = window.places.get_mut(usize::from(partition)) {
            place.crowded &= !ledger.has_room();
        }
    }
}
