//! One measurement of the matcher: one thread, events that are decoded already.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use waypost_core::Event;
use waypost_core::filter::index::{Index, Scratch};
use waypost_core::filter::{Candidate, Filter};

use super::mix::{self, Mix};

/// How many changes are made while events are matched.
const CHANGES: usize = 500;

/// They begin when so many events were matched.
const UNDER_WAY: u64 = 20_000;

/// What one number of triggers came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trial {
    pub(crate) mix: String,
    pub(crate) triggers: usize,
    pub(crate) matches_per_event: f64,
    /// Events in a second of one thread's CPU time; the rounds.
    pub(crate) events_per_second: Vec<f64>,
    /// The same with the reference evaluator, each filter after the other.
    pub(crate) naive_events_per_second: f64,
    pub(crate) build_milliseconds: f64,
    /// Resident memory that the index takes; none where it is too small to be told. See [`bytes_per_trigger`].
    pub(crate) bytes_per_trigger: Option<f64>,
    /// Of changes to one trigger, published while another thread matches: a copy of the index, changed.
    pub(crate) change_microseconds: Change,
    /// What the other thread matched meanwhile, in a second of its CPU time.
    pub(crate) events_per_second_beside_changes: f64,
}

/// How long one change takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) highest: f64,
}

/// So many copies of an index tell what one takes; what they take is counted in pages.
const COPIES: usize = 3;

/// How long the reference evaluator is measured.
const NAIVE_SECONDS: f64 = 0.5;

/// Measures so many triggers.
pub(crate) fn trial(mix: Mix, triggers: usize, rounds: usize, seconds: f64) -> Trial {
    let filters = mix::filters(triggers, mix).expect("the filters of the mix are valid");
    let events = mix::events(triggers);
    let start = Instant::now();
    let index = build(&filters);
    let built = start.elapsed();
    let mut scratch = Scratch::default();
    let matches: usize = events.iter().map(|event| indexed(&index, event, &mut scratch)).sum();
    let mut run = || rate(&events, seconds, |event| indexed(&index, event, &mut scratch));
    let events_per_second = (0..rounds).map(|_| run()).collect();
    let naive_events_per_second = rate(&events, seconds.min(NAIVE_SECONDS), |event| naive(&filters, event));
    let (change_microseconds, events_per_second_beside_changes) = changes(index, &filters, &events);
    Trial {
        mix: mix.name().to_owned(),
        triggers,
        matches_per_event: matches as f64 / events.len() as f64,
        events_per_second,
        naive_events_per_second,
        build_milliseconds: built.as_secs_f64() * 1e3,
        bytes_per_trigger: None,
        change_microseconds,
        events_per_second_beside_changes,
    }
}

fn build(filters: &[Filter]) -> Index {
    Index::build((0..).zip(filters))
}

/// The resident memory that an index of so many triggers takes, for each of them. To be asked in a process that has
/// freed nothing before: what was freed would be used again, and not be seen.
pub(crate) fn bytes_per_trigger(mix: Mix, triggers: usize) -> f64 {
    let filters = mix::filters(triggers, mix).expect("the filters of the mix are valid");
    // The first one uses what making the filters has freed.
    let first = build(&filters);
    let before = resident();
    let copies: Vec<_> = (0..COPIES).map(|_| build(&filters)).collect();
    let grown = resident().saturating_sub(before);
    black_box(&first);
    grown as f64 / (black_box(copies).len() * triggers) as f64
}

fn indexed(index: &Index, event: &Event, scratch: &mut Scratch) -> usize {
    index.matches(&Candidate::new(event), scratch);
    scratch.matched().len()
}

fn naive(filters: &[Filter], event: &Event) -> usize {
    let candidate = Candidate::new(event);
    filters.iter().filter(|filter| filter.matches(&candidate) == Ok(true)).count()
}

/// Events in a second of this thread's CPU time, in turns over all of them.
fn rate(events: &[Event], seconds: f64, mut one: impl FnMut(&Event) -> usize) -> f64 {
    let start = cpu();
    let mut done = 0_u64;
    for event in events.iter().cycle() {
        black_box(one(black_box(event)));
        done += 1;
        // A look at the clock costs as much as a match; the naive evaluator is slow enough to look each time.
        if (done.is_multiple_of(256) || done < 16) && (cpu() - start).as_secs_f64() >= seconds {
            break;
        }
    }
    done as f64 / (cpu() - start).as_secs_f64()
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Changes one trigger after the other while another thread matches.
fn changes(index: Index, filters: &[Filter], events: &[Event]) -> (Change, f64) {
    let current = Mutex::new(Some(Arc::new(index)));
    let mut times = Vec::with_capacity(CHANGES);
    let mut beside = 0.0;
    let under_way = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let matching = scope.spawn(|| {
            let mut scratch = Scratch::default();
            let start = cpu();
            let mut done = 0_u64;
            for event in events.iter().cycle() {
                let Some(index) = current.lock().clone() else { break };
                black_box(indexed(&index, event, &mut scratch));
                done += 1;
                if done == UNDER_WAY {
                    under_way.store(true, Ordering::Release);
                }
            }
            done as f64 / (cpu() - start).as_secs_f64()
        });
        while !under_way.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let step = (filters.len() / CHANGES).max(1);
        for change in 0..CHANGES {
            let place = (change * step) % filters.len();
            let (slot, filter) = (u32::try_from(place).unwrap_or(u32::MAX), &filters[place]);
            let Some(before) = current.lock().clone() else { break };
            let start = Instant::now();
            let mut next = Index::clone(&before);
            next.remove(slot, filter);
            let removed = start.elapsed();
            *current.lock() = Some(Arc::new(next.clone()));
            let start = Instant::now();
            let mut next = next.clone();
            next.insert(slot, filter);
            let inserted = start.elapsed();
            *current.lock() = Some(Arc::new(next));
            times.extend([removed, inserted].map(|time| time.as_secs_f64() * 1e6));
        }
        *current.lock() = None;
        beside = matching.join().unwrap_or(0.0);
    });
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    (Change { median: at(0.5), p99: at(0.99), highest: at(1.0) }, beside)
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    crate::procfs::resident_kibibytes(std::process::id()).map_or(0, |kibibytes| kibibytes * 1024)
}
