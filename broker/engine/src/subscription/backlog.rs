//! Keeps a trigger within its `maxBacklog`.

use waypost_core::codes;
use waypost_core::delivery::{MaxBacklog, WhenExceeded};
use waypost_log::{
    DeadLetterReason, DropReason, Ledger, Offset, Owed, Position, ReadError, ReadLimit, Settlement,
};

use super::Subscription;
use super::window::Window;

/// The most events that are given up in one go, so that the ledger and its journal keep up.
const AT_ONCE: usize = 65_536;

/// How much of what is not taken yet is looked at together.
const PAGE: ReadLimit = ReadLimit { records: 512, bytes: 1024 * 1024 };

impl Subscription {
    /// Whether there is anything for [`Self::limit_backlog`] to do: also where a limit that is gone was exceeded.
    pub(crate) fn limits_backlog(&self) -> bool {
        self.delivering.load().policy.max_backlog.is_some() || self.lock().backlog_exceeded.is_some()
    }

    /// Does what the trigger's `maxBacklog` asks for, where it is owed more. To be called every now and then.
    pub(crate) async fn limit_backlog(&self) {
        let limit = self.delivering.load().policy.max_backlog;
        let mut exceeded = None;
        if let Some(limit) = limit.filter(|_| !self.is_detached()) {
            for ledger in &self.ledgers {
                match self.limit_one(ledger, &limit).await {
                    Ok(told) => exceeded = exceeded.or(told),
                    // Deliveries go on: whoever needs the record meets the error too, and acts on it.
                    Err(error) => tracing::warn!(
                        trigger = %self.name, broker = %self.broker, code = error.code().id(), %error,
                        "how much the trigger is owed cannot be told now"
                    ),
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
                let given_up =
                    self.give_up_below(ledger, within, &Settlement::Dropped(DropReason::Backlog)).await?;
                self.tell_given_up(given_up);
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
                let given_up =
                    self.give_up_below(ledger, within, &Settlement::DeadLettered(reason, forward)).await?;
                self.tell_given_up(given_up);
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

    /// Gives up what is owed below an offset, the oldest first, but for what is with the subscriber. Returns how much was
    /// given up: as much as may be at once, where there is more.
    pub(super) async fn give_up_below(
        &self,
        ledger: &Ledger,
        within: Offset,
        settlement: &Settlement,
    ) -> Result<usize, ReadError> {
        let mut given_up = self.give_up_taken(ledger, within, settlement);
        while given_up < AT_ONCE && ledger.untaken() > 0 && ledger.next() < within {
            let owed = self.log.owed(ledger.partition(), self.number, ledger.next(), PAGE).await?;
            let page = self.give_up_page(ledger, within, owed, settlement);
            if page == 0 {
                break;
            }
            given_up += page;
        }
        Ok(given_up)
    }

    fn tell_given_up(&self, given_up: usize) {
        if given_up > 0 {
            tracing::warn!(
                trigger = %self.name, broker = %self.broker, given_up,
                "the trigger was owed more than its maxBacklog allows; the oldest events are given up"
            );
        }
    }

    /// Gives up what is below an offset of a page that is not taken yet. What cannot be read comes in its place among
    /// the others: no match may be left out.
    fn give_up_page(&self, ledger: &Ledger, within: Offset, owed: Owed, settlement: &Settlement) -> usize {
        let unreadable = owed.unreadable.into_iter().map(|(offset, error)| (offset, Err(error)));
        let readable = owed.entries.into_iter().map(|entry| (entry.position.offset, Ok(entry)));
        let mut page: Vec<_> = readable.chain(unreadable).filter(|(offset, _)| *offset < within).collect();
        page.sort_by_key(|(offset, _)| *offset);
        let count = page.len();
        let mut lost = Vec::new();
        // Under the lock, so that no worker takes some of them meanwhile and attempts them.
        let mut window = self.lock();
        for (offset, read) in page {
            match read {
                Ok(entry) if ledger.take(&entry) => {
                    self.give_up_or_keep(&mut window, ledger, offset, settlement);
                }
                Err(error) if ledger.take_unreadable(offset) => lost.push((offset, error)),
                _ => {}
            }
        }
        drop(window);
        for (offset, error) in lost {
            self.give_up_unreadable(ledger, offset, &error);
        }
        count
    }

    /// Gives up what was taken: what waits for its next attempt, and what waits in the window.
    fn give_up_taken(&self, ledger: &Ledger, within: Offset, settlement: &Settlement) -> usize {
        let partition = ledger.partition();
        let mut window = self.lock();
        let waiting = ledger.waiting_below(within, AT_ONCE);
        let ready = self.withdraw(&mut window, partition, |offset| offset < within);
        for offset in &waiting {
            self.settle_given_up(ledger, *offset, settlement);
        }
        for offset in &ready {
            self.give_up_or_keep(&mut window, ledger, *offset, settlement);
        }
        self.open(&mut window, ledger);
        self.kick(&mut window);
        waiting.len() + ready.len()
    }

    /// Gives up what was taken and is not in the window. Where that cannot be written down it comes into it.
    fn give_up_or_keep(&self, window: &mut Window, ledger: &Ledger, offset: Offset, settlement: &Settlement) {
        if !self.settle_given_up(ledger, offset, settlement) {
            window.unread.push_back(Position { partition: ledger.partition(), offset });
        }
    }

    fn settle_given_up(&self, ledger: &Ledger, offset: Offset, settlement: &Settlement) -> bool {
        let settled = ledger.settle(offset, settlement.clone(), None);
        if let Err(error) = &settled {
            // It stays pending, and is given up when the ledger can be written again.
            tracing::error!(
                trigger = %self.name, broker = %self.broker, offset, code = error.code().id(), %error,
                "what the trigger is owed too much cannot be given up"
            );
        }
        settled.is_ok()
    }
}
