//! What an operator may do to what a trigger is owed: skip one event, or move the trigger on.

use std::sync::atomic::Ordering;

use waypost_core::{Code, codes};
use waypost_log::{
    DropReason, Ledger, Offset, Position, ReadError, ReadLimit, Settled, Settlement, Timestamp, WriteError,
};

use super::Subscription;

/// Where a trigger is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// To a position; other partitions stay where they are.
    Position(Position),
    /// To the first event that arrived at this time or later.
    Time(Timestamp),
    /// Behind everything that is in the log now.
    End,
}

/// Why an event cannot be skipped, or a trigger not be moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    /// No trigger of the name runs.
    #[error("no trigger of that name runs here: see `waypost status`")]
    TriggerUnknown,
    /// The trigger is not owed what stands at the position.
    #[error(
        "the trigger is not owed the event at {0}: it never matched, or it is settled; `waypost explain` tells which"
    )]
    NotPending(Position),
    /// The trigger has not come to the event.
    #[error(
        "the trigger has not come to the event at {at} yet, its oldest event that is not taken is at {oldest}: skip that \
         one, or move the trigger with `waypost trigger seek`"
    )]
    NotTaken {
        /// The position that was asked for.
        at: Position,
        /// The only position among those not taken that can be skipped.
        oldest: Position,
    },
    /// The trigger is beyond the place already.
    #[error(
        "the trigger is at {at} already and does not go back to {to}: send old events again with a Replay"
    )]
    Backwards {
        /// Where it is.
        at: Position,
        /// Where it should have gone.
        to: Position,
    },
    /// The log has no such partition.
    #[error("the log of the broker has no partition {0}")]
    PartitionUnknown(u16),
    /// The process ends, or the order met a defect, which the log tells of.
    #[error("the order did not come to its end: see `waypost status` for what became of it, and ask again")]
    Stopping,
    /// What the trigger is owed cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What became of it cannot be written down.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl OperateError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::TriggerUnknown => codes::ADMIN_RESOURCE_UNKNOWN,
            Self::NotPending(_) => codes::EVENT_NOT_PENDING,
            Self::NotTaken { .. } => codes::EVENT_NOT_TAKEN,
            Self::Backwards { .. } => codes::SEEK_BACKWARDS,
            Self::PartitionUnknown(_) => codes::LOG_BEYOND_END,
            Self::Stopping => codes::ADMIN_NOT_READY,
            Self::Read(error) => error.code(),
            Self::Write(error) => error.code(),
        }
    }
}

const BY_OPERATOR: Settlement = Settlement::Dropped(DropReason::Operator);

impl Subscription {
    /// Drops one event that the trigger is owed. An attempt at it that is under way goes on, and counts for nothing.
    pub(crate) async fn skip(&self, at: Position) -> Result<(), OperateError> {
        let ledger = self.ledger(at.partition)?;
        let settled = {
            let mut window = self.lock();
            let settled = ledger.settle(at.offset, BY_OPERATOR, None)?;
            self.withdraw(&mut window, at.partition, |offset| offset == at.offset);
            self.open(&mut window, ledger);
            self.kick(&mut window);
            settled
        };
        if settled == Settled::Already {
            self.skip_untaken(ledger, at).await?;
        }
        tracing::warn!(trigger = %self.name, position = %at, "an operator dropped the event");
        Ok(())
    }

    /// Drops the oldest event that was not taken, where it is the one at the position.
    async fn skip_untaken(&self, ledger: &Ledger, at: Position) -> Result<(), OperateError> {
        if at.offset < ledger.next() || ledger.untaken() == 0 {
            return Err(OperateError::NotPending(at));
        }
        let one = ReadLimit { records: 1, bytes: 1 };
        let owed = self.log.owed(at.partition, self.number, ledger.next(), one).await?;
        let entry = owed
            .entries
            .into_iter()
            .next()
            .filter(|entry| owed.unreadable.is_empty() && entry.position <= at);
        let Some(entry) = entry else { return Err(OperateError::NotPending(at)) };
        if entry.position != at {
            return Err(OperateError::NotTaken { at, oldest: entry.position });
        }
        let mut window = self.lock();
        let taken = ledger.take(&entry);
        let settled = ledger.settle(at.offset, BY_OPERATOR, None);
        if taken && settled.is_err() {
            window.unread.push_back(at);
        }
        // It came into the window meanwhile, where it did.
        self.withdraw(&mut window, at.partition, |offset| offset == at.offset && settled.is_ok());
        self.open(&mut window, ledger);
        self.kick(&mut window);
        if settled? == Settled::Already { Err(OperateError::NotPending(at)) } else { Ok(()) }
    }

    /// Moves the trigger on: all that it is owed before the place is dropped. Returns how much that was. What is with the
    /// subscriber goes on, and is dropped where that attempt fails.
    pub(crate) async fn seek(&self, to: SeekTo) -> Result<u64, OperateError> {
        let mut places: Vec<(&Ledger, Offset)> = Vec::new();
        match to {
            SeekTo::Position(at) => places.push((self.ledger(at.partition)?, at.offset)),
            SeekTo::Time(time) => {
                for ledger in &self.ledgers {
                    places.push((ledger, self.log.first_since(ledger.partition(), time).await?));
                }
            }
            SeekTo::End => {
                places.extend(
                    self.ledgers.iter().map(|ledger| (&**ledger, self.log.matched(ledger.partition()))),
                );
            }
        }
        for (ledger, offset) in &places {
            let at = ledger.oldest().unwrap_or(ledger.next());
            // At a time, some partitions may be further on than others.
            if *offset < at && !matches!(to, SeekTo::End) && places.len() == 1 {
                let position = |offset| Position { partition: ledger.partition(), offset };
                return Err(OperateError::Backwards { at: position(at), to: position(*offset) });
            }
        }
        let mut dropped = 0;
        for (ledger, offset) in places {
            // No further than what is matched: what will match later is not known to be owed.
            let offset = offset.min(self.log.matched(ledger.partition()));
            if let Some(sought) = self.sought.get(usize::from(ledger.partition())) {
                sought.fetch_max(offset, Ordering::Relaxed);
            }
            loop {
                let given_up = self.give_up_below(ledger, offset, &BY_OPERATOR).await?;
                dropped += given_up as u64;
                if given_up == 0 {
                    break;
                }
            }
            let mut window = self.lock();
            self.open(&mut window, ledger);
            self.kick(&mut window);
        }
        tracing::warn!(trigger = %self.name, ?to, dropped, "an operator moved the trigger on");
        Ok(dropped)
    }

    fn ledger(&self, partition: u16) -> Result<&Ledger, OperateError> {
        let ledger = self.ledgers.get(usize::from(partition));
        ledger.map(|ledger| &**ledger).ok_or(OperateError::PartitionUnknown(partition))
    }
}
