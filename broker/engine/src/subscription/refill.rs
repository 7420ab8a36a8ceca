//! Refilling the window: with what is due, with what was in hand when the process ended, and with what the trigger is owed in
//! the partitions in which it lags.

use std::sync::atomic::Ordering;

use waypost_log::{Ledger, Offset, Owed, Position, ReadError, ReadLimit, Timestamp};

use super::window::Item;
use super::{READ_RETRY, Subscription};

/// How much is read at once when a subscription catches up.
const CATCH_UP_BYTES: usize = 1024 * 1024;

/// How long a subscription waits while match lists are recorded again.
const RESTORE_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

impl Subscription {
    /// Takes what is due and, in the partitions that lag, what is owed. One worker does it at a time.
    pub(super) async fn refill(&self) {
        let refilling = Refilling(self);
        if self.lock().recovering {
            self.read_unread().await;
            if self.lock().recovering {
                return;
            }
        }
        self.take_due().await;
        // From another partition each time, so that one that always fills the window does not starve the others.
        let (before, first) =
            self.ledgers.split_at(self.turn.fetch_add(1, Ordering::Relaxed) % self.ledgers.len());
        for ledger in first.iter().chain(before) {
            self.catch_up(ledger).await;
            self.review(&mut self.lock(), ledger);
        }
        drop(refilling);
    }

    async fn take_due(&self) {
        // One time for both looks: what falls due between two would be seen by neither.
        let now = self.context.clock.now();
        self.lock().look_for_due = false;
        for ledger in &self.ledgers {
            let mut window = self.lock();
            self.open(&mut window, ledger);
            let room = window.room_for_due();
            let due = ledger.due(now, room);
            window.places[usize::from(ledger.partition())].crowded = !ledger.has_room();
            // There may be more than fits; also where nothing fitted.
            window.look_for_due |= due.len() >= room;
            for due in due {
                match due.entry {
                    Some(entry) => self.push(&mut window, Item { entry, key: due.key }),
                    None => {
                        window
                            .unread
                            .push_back(Position { partition: ledger.partition(), offset: due.offset });
                    }
                }
            }
        }
        self.set_alarm_beyond(now);
        self.read_unread().await;
    }

    /// Reads the records of deliveries that are in the ledger's window and not in memory: those whose wait is over
    /// where the schedule keeps no bodies, and at the start those that were in flight when the process ended.
    async fn read_unread(&self) {
        loop {
            let next = {
                let mut window = self.lock();
                let next = window.unread.front().copied();
                if next.is_none() && std::mem::replace(&mut window.recovering, false) {
                    // What is held behind it can be told now.
                    window.look_for_due = true;
                }
                next
            };
            let Some(position) = next else { return };
            let ledger = &self.ledgers[usize::from(position.partition)];
            let read = self.log.fetch(position).await;
            let mut window = self.lock();
            if let Err(error @ ReadError::Failed { .. }) = &read {
                drop(window);
                return self.read_again_later(error);
            }
            window.unread.pop_front();
            match read {
                Ok(entry) => {
                    let admitted = self.admit(&mut window, ledger, entry);
                    drop(window);
                    if let Err(error) = admitted {
                        return self.not_written(&error);
                    }
                }
                Err(error) => {
                    drop(window);
                    self.give_up_unreadable(ledger, position.offset, &error);
                    if self.lock().halt.any() {
                        // It could not be written down, and waits among the others until it can.
                        return;
                    }
                }
            }
        }
    }

    /// Reads a page of what the trigger is owed in a partition, and ends the lag where nothing is left.
    async fn catch_up(&self, ledger: &Ledger) {
        let partition = usize::from(ledger.partition());
        let (limit, from, offered) = {
            let mut window = self.lock();
            window.places[partition].crowded = !ledger.has_room();
            if !window.places[partition].lagging || window.places[partition].crowded {
                return;
            }
            let left = self.context.windows.part().saturating_sub(window.bytes);
            let limit = ReadLimit { records: window.room(), bytes: CATCH_UP_BYTES.min(left).max(1) };
            let (next, untaken) = (ledger.next(), ledger.untaken());
            let place = &mut window.places[partition];
            (limit, place.read_to.max(next), place.offered.first(next, untaken, limit.records))
        };
        if limit.records == 0 {
            return;
        }
        let owed = match offered {
            Some(offered) => self.read_offered(ledger.partition(), &offered, limit).await,
            None => self.log.owed(ledger.partition(), self.number, from, limit).await,
        };
        match owed {
            Ok(owed) => self.take_page(ledger, owed),
            Err(error) => self.read_again_later(&error),
        }
    }

    /// Reads matches that were offered, as far as the limit goes.
    async fn read_offered(
        &self,
        partition: u16,
        offered: &[Offset],
        limit: ReadLimit,
    ) -> Result<Owed, ReadError> {
        let mut owed = Owed { entries: Vec::new(), unreadable: Vec::new(), next: 0 };
        let mut bytes = 0;
        for &offset in offered {
            match self.log.fetch(Position { partition, offset }).await {
                Ok(entry) => {
                    bytes += entry.size();
                    owed.entries.push(entry);
                }
                Err(error @ ReadError::Failed { .. }) => return Err(error),
                Err(error) => owed.unreadable.push((offset, error)),
            }
            owed.next = offset + 1;
            if bytes >= limit.bytes {
                break;
            }
        }
        Ok(owed)
    }

    /// Takes what was read, in order: offsets that cannot be read among the others.
    fn take_page(&self, ledger: &Ledger, owed: Owed) {
        let partition = usize::from(ledger.partition());
        let mut unreadable = owed.unreadable.into_iter().peekable();
        let mut given_up = Vec::new();
        let mut refused = None;
        let mut window = self.lock();
        window.places[partition].read_to = owed.next;
        for entry in owed.entries {
            while let Some((offset, error)) =
                unreadable.next_if(|(offset, _)| *offset < entry.position.offset)
            {
                given_up.extend(ledger.take_unreadable(offset).then_some((offset, error)));
            }
            refused = self.take(&mut window, ledger, &entry).err().or(refused);
        }
        for (offset, error) in unreadable {
            given_up.extend(ledger.take_unreadable(offset).then_some((offset, error)));
        }
        // The reader records a match before it offers it, and offers under this lock: when nothing is untaken
        // now, every later match will be offered.
        if ledger.untaken() == 0 {
            window.places[partition].lagging = false;
        }
        drop(window);
        for (offset, error) in given_up {
            self.give_up_unreadable(ledger, offset, &error);
        }
        if let Some(error) = refused {
            self.not_written(&error);
        }
    }

    fn read_again_later(&self, error: &ReadError) {
        let pause = if let ReadError::MatchesLost { .. } = error {
            // They are being recorded again, and whoever does it has said so.
            RESTORE_PAUSE
        } else {
            tracing::warn!(
                trigger = %self.name, broker = %self.broker, code = error.code().id(), %error,
                "what the trigger is owed cannot be read; trying again in {READ_RETRY:?}"
            );
            READ_RETRY
        };
        self.wait_for_log(pause);
    }

    /// Sets the alarm for what is due later than `now`; what is due by then is being looked for.
    pub(super) fn set_alarm_beyond(&self, now: Timestamp) {
        let due = self.ledgers.iter().filter_map(|ledger| ledger.next_due()).min();
        if let Some(due) = due.filter(|due| *due > now) {
            self.wake_at(due);
        }
    }
}

/// Marks that a worker refills the window, until it has, also when it panics.
struct Refilling<'a>(&'a Subscription);

impl Drop for Refilling<'_> {
    fn drop(&mut self) {
        let mut window = self.0.lock();
        window.refilling = false;
        self.0.kick(&mut window);
    }
}
