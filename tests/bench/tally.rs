//! What a subscriber has received.

use serde::{Deserialize, Serialize};

use crate::histogram::{Histogram, Quantiles};

/// The most triggers that one subscriber tells apart.
const MAX_TRIGGERS: usize = 64;
/// The most events of one run.
const MAX_EVENTS: u64 = 1 << 28;
/// A number of an event is the number of its run above these bits, and the place within it below.
const PLACE_BITS: u32 = 32;

/// The number of an event: unique as long as no run is measured twice.
pub(crate) fn number(run: u32, place: u32) -> u64 {
    u64::from(run) << PLACE_BITS | u64::from(place)
}

/// Which events of one run came, and when.
#[derive(Debug)]
pub(crate) struct Tally {
    run: u32,
    triggers: Vec<Seen>,
    requests: u64,
    /// Requests that are none of this run: late ones of another, or no events of the generator at all.
    foreign: u64,
    duplicates: u64,
    distinct: u64,
    first: u64,
    last: u64,
    latency: Histogram,
}

/// The events that one trigger has delivered, by their place in the run.
#[derive(Debug, Default)]
struct Seen {
    words: Vec<u64>,
    distinct: u64,
}

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, place: u64) -> bool {
        let word = (place / 64) as usize;
        if word >= self.words.len() {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let bit = 1 << (place % 64);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.distinct += u64::from(new);
        new
    }
}

/// What a subscriber tells of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Received {
    pub(crate) requests: u64,
    pub(crate) distinct: u64,
    /// Distinct events, by trigger.
    pub(crate) by_trigger: Vec<u64>,
    pub(crate) duplicates: u64,
    pub(crate) foreign: u64,
    /// The clock at the first and at the last event of the run.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// From the time at which an event was due to be sent until the subscriber had it.
    pub(crate) latency: Quantiles,
}

impl Tally {
    pub(crate) fn new(run: u32) -> Self {
        Self {
            run,
            triggers: Vec::new(),
            requests: 0,
            foreign: 0,
            duplicates: 0,
            distinct: 0,
            first: 0,
            last: 0,
            latency: Histogram::new(),
        }
    }

    /// Distinct deliveries of this run so far.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct
    }

    /// Notes an event that came for a trigger; none if its data could not be read.
    pub(crate) fn note(&mut self, trigger: usize, event: Option<(u64, u64)>, now: u64) {
        self.requests += 1;
        let place = event.and_then(|(number, sent)| {
            let place = number & ((1 << PLACE_BITS) - 1);
            let ours = number >> PLACE_BITS == u64::from(self.run) && place < MAX_EVENTS;
            (ours && trigger < MAX_TRIGGERS).then_some((place, sent))
        });
        let Some((place, sent)) = place else {
            self.foreign += 1;
            return;
        };
        if trigger >= self.triggers.len() {
            self.triggers.resize_with(trigger + 1, Seen::default);
        }
        if !self.triggers[trigger].insert(place) {
            self.duplicates += 1;
            return;
        }
        if self.distinct == 0 {
            self.first = now;
        }
        self.distinct += 1;
        self.last = now;
        self.latency.record(now.saturating_sub(sent));
    }

    pub(crate) fn received(&self) -> Received {
        Received {
            requests: self.requests,
            distinct: self.distinct,
            by_trigger: self.triggers.iter().map(|seen| seen.distinct).collect(),
            duplicates: self.duplicates,
            foreign: self.foreign,
            first: self.first,
            last: self.last,
            latency: self.latency.quantiles(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_once_for_each_trigger_of_its_run() {
        let mut tally = Tally::new(2);
        tally.note(0, Some((number(2, 0), 10)), 20);
        tally.note(0, Some((number(2, 0), 10)), 30);
        tally.note(1, Some((number(2, 0), 10)), 40);
        tally.note(0, Some((number(2, 1_000), 10)), 50);
        tally.note(0, Some((number(1, 5), 10)), 60);
        tally.note(0, None, 70);
        let received = tally.received();
        assert_eq!(received.by_trigger, [2, 1]);
        assert_eq!((received.requests, received.distinct), (6, 3));
        assert_eq!((received.duplicates, received.foreign), (1, 2));
        assert_eq!((received.first, received.last), (20, 50));
        assert_eq!(received.latency.count, 3);
    }
}
