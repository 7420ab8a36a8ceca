//! Keeps a trigger within its `maxBacklog`.

use std::collections::HashSet;

use waypost_core::codes;
use waypost_core::delivery::{MaxBacklog, WhenExceeded};
use waypost_log::{DeadLetterReason, DropReason, Ledger, Offset, Position, ReadError, ReadLimit, Settlement};

use super::Subscription;

/// The most events that are given up in one go, so that the ledger and its journal keep up.
const AT_ONCE: usize = 65_536;

/// How much of what is not taken yet is looked at together.
const PAGE: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024 };

impl Subscription {
    /// Does what the trigger's `maxBacklog` asks for, where it is owed more. To be called every now and then.
    pub(crate) async fn limit_backlog(&self) {
        let limit = self.delivering.load().policy.max_backlog;
        let mut exceeded = None;
        if let Some(limit) = limit.filter(|_| !self.is_detached()) {
            for ledger in &self.ledgers {
                match self.limit_one(ledger, &limit).await {
                    Ok(told) => exceeded = exceeded.or(told),
                    Err(error) => self.read_again_later(&error),
                }
            }
        }
        self.lock().backlog_exceeded = exceeded;
    }

    /// Why the broker should refuse events for the trigger's sake.
    pub(crate) fn refuses(&self) -> Option<String> {
        self.lock().backlog_exceeded.clone()
    }

    async fn limit_one(&self, ledger: &Ledger, limit: &MaxBacklog) -> Result<Option<String>, ReadError> {
        let Some(oldest) = ledger.oldest() else { return Ok(None) };
        let within = self.first_within(ledger.partition(), oldest, limit).await?;
        if oldest >= within {
            return Ok(None);
        }
        let bytes = self.log.bytes_from(ledger.partition(), oldest);
        let told = format!(
            "the trigger {} is owed more than its maxBacklog allows: {bytes} bytes of the log from its oldest event on",
            self.name
        );
        match limit.when_exceeded {
            WhenExceeded::Refuse => return Ok(Some(told)),
            WhenExceeded::Drop => {
                self.give_up_below(ledger, within, &Settlement::Dropped(DropReason::Backlog)).await?;
            }
            WhenExceeded::DeadLetter => {
                let delivering = self.delivering();
                let reason = DeadLetterReason {
                    code: codes::BACKLOG_EXCEEDED,
                    detail: format!("backlog: {told}"),
                    destination: delivering.subscriber.destination(),
                    status: None,
                    body_excerpt: None,
                };
                let forward = delivering.dead_letter_sink.is_some().then(|| self.context.clock.now());
                self.give_up_below(ledger, within, &Settlement::DeadLettered(reason, forward)).await?;
                self.forwarder.kick();
            }
        }
        Ok(None)
    }

    /// The first offset of a partition that the limit allows to be owed; `oldest` is the oldest that is.
    async fn first_within(
        &self,
        partition: u16,
        oldest: Offset,
        limit: &MaxBacklog,
    ) -> Result<Offset, ReadError> {
        let bounds = self.log.bounds(partition);
        let mut within = 0;
        if let Some(age) = limit.age {
            let since = self.context.clock.now().before(age);
            if oldest < bounds.start {
                // It waits outside of the log, where only its own arrival tells.
                let entry = self.log.fetch(Position { partition, offset: oldest }).await?;
                within = if entry.arrived < since { oldest + 1 } else { 0 };
            } else {
                within = self.log.first_since(partition, since).await?;
            }
        }
        if let Some(size) = limit.size
            && self.log.bytes_from(partition, bounds.start) > size
        {
            let (mut low, mut high) = (bounds.start, bounds.end);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.log.bytes_from(partition, middle) > size {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            within = within.max(low);
        }
        Ok(within)
    }

    /// Gives up what is owed below an offset, the oldest first, but for what is with the subscriber.
    async fn give_up_below(
        &self,
        ledger: &Ledger,
        within: Offset,
        settlement: &Settlement,
    ) -> Result<(), ReadError> {
        let mut given_up = self.give_up_taken(ledger, within, settlement);
        while given_up < AT_ONCE && ledger.untaken() > 0 && ledger.next() < within {
            let owed = self.log.owed(ledger.partition(), self.number, ledger.next(), PAGE).await?;
            let offsets = owed.entries.iter().map(|entry| entry.position.offset);
            let below: HashSet<Offset> = offsets.filter(|offset| *offset < within).collect();
            if below.is_empty() {
                break;
            }
            // Under the lock, so that no worker takes some of them meanwhile and attempts them.
            let window = self.lock();
            for entry in owed.entries.iter().filter(|entry| below.contains(&entry.position.offset)) {
                if ledger.take(entry) {
                    self.settle_given_up(ledger, entry.position.offset, settlement);
                }
            }
            drop(window);
            given_up += below.len();
        }
        if given_up > 0 {
            tracing::warn!(
                trigger = %self.name, broker = %self.broker, given_up,
                "the trigger was owed more than its maxBacklog allows; the oldest events are given up"
            );
        }
        Ok(())
    }

    /// Gives up what was taken: what waits for its next attempt, and what waits in the window.
    fn give_up_taken(&self, ledger: &Ledger, within: Offset, settlement: &Settlement) -> usize {
        let partition = ledger.partition();
        let mut window = self.lock();
        let in_use = !window.is_empty();
        let mut offsets = ledger.waiting_below(within, AT_ONCE);
        let mut freed = 0;
        window.ready.retain(|item| {
            let position = item.entry.position;
            let goes = position.partition == partition && position.offset < within;
            if goes {
                offsets.push(position.offset);
                freed += item.entry.size();
            }
            !goes
        });
        window.bytes = window.bytes.saturating_sub(freed);
        for offset in &offsets {
            self.settle_given_up(ledger, *offset, settlement);
        }
        if in_use && window.is_empty() {
            self.context.windows.used(false);
        }
        offsets.len()
    }

    fn settle_given_up(&self, ledger: &Ledger, offset: Offset, settlement: &Settlement) {
        if let Err(error) = ledger.settle(offset, settlement.clone(), None) {
            // It stays pending, and is given up when the ledger can be written again.
            tracing::error!(
                trigger = %self.name, broker = %self.broker, offset, code = error.code().id(), %error,
                "what the trigger is owed too much cannot be given up"
            );
        }
    }
}
