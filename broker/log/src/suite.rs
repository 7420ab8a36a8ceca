//! The conformance suite: the rules of the contract, each one function, for any backend.
//!
//! ```text
//! suite::all(&bench).await;
//! ```

mod dead_letters;
mod ledgers;
mod lifetime;
mod matches;
mod records;
mod stage;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{Clock, Timestamp};
use crate::log::Log;

pub use walk::{Step, walk};

/// Where the suite gets its logs from.
#[async_trait]
pub trait Bench: Send + Sync {
    /// A new, empty log.
    async fn open(&self, setup: Setup) -> Arc<dyn Log>;

    /// The log that was opened last, as a process finds it that starts again after that one was closed. None where
    /// nothing survives.
    async fn reopen(&self) -> Option<Arc<dyn Log>>;
}

/// What the suite asks of a log that is opened.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where it takes the time from.
    pub clock: Clock,
    /// Its size limit in bytes.
    pub limit: u64,
    /// The bytes that it keeps although nobody is owed them.
    pub history: u64,
    /// How long it keeps a record although nobody is owed it.
    pub retention: Duration,
}

/// A clock that the suite sets.
#[derive(Debug, Clone)]
struct Hands(Arc<AtomicI64>);

impl Hands {
    fn at(seconds: i64) -> Self {
        let hands = Self(Arc::default());
        hands.set(seconds);
        hands
    }

    fn set(&self, seconds: i64) {
        self.0.store(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::from_fn(move || hands.now())
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

const MEBIBYTE: u64 = 1024 * 1024;

impl Default for Setup {
    /// Room enough, and nothing is kept that nobody is owed.
    fn default() -> Self {
        Self {
            clock: Hands::at(1_000).clock(),
            limit: 64 * MEBIBYTE,
            history: 0,
            retention: Duration::from_secs(3_600),
        }
    }
}

/// Holds a backend to every rule.
pub async fn all(bench: &dyn Bench) {
    records::a_batch_is_one_commit(bench).await;
    records::no_part_of_a_batch_is_seen(bench).await;
    records::an_empty_batch_commits(bench).await;
    records::batches_stand_in_the_order_of_their_appends(bench).await;
    records::reading_keeps_to_its_limits(bench).await;
    records::batches_of_all_sizes_come_back_whole(bench).await;
    records::what_is_not_there_cannot_be_read(bench).await;
    records::waiting_ends_with_the_record(bench).await;
    records::no_waiter_is_forgotten(bench).await;
    records::arrival_never_runs_backwards(bench).await;
    records::records_are_found_by_source_and_id(bench).await;
    records::records_are_found_by_arrival(bench).await;
    records::a_checkpoint_comes_with_its_batch(bench).await;
    records::metadata_comes_back_unchanged(bench).await;

    matches::a_plan_comes_before_its_matches(bench).await;
    matches::each_record_is_examined_once_and_in_order(bench).await;
    matches::owed_is_told_in_pages(bench).await;
    matches::a_trigger_that_lags_loses_nothing(bench).await;
    matches::a_trigger_may_start_in_the_past(bench).await;
    matches::a_trigger_starts_where_it_begins(bench).await;
    matches::numbers_stay_with_their_triggers(bench).await;
    matches::a_forgotten_trigger_is_owed_nothing(bench).await;

    ledgers::a_debt_is_taken_once_and_settled_once(bench).await;
    ledgers::the_oldest_debt_is_told_wherever_it_stands(bench).await;
    ledgers::what_cannot_be_read_can_be_settled(bench).await;
    ledgers::attempts_are_counted_and_kept(bench).await;
    ledgers::the_schedule_gives_back_what_is_due_in_order(bench).await;
    ledgers::a_key_is_worked_off_in_order(bench).await;
    ledgers::what_waits_does_not_hold_the_log(bench).await;
    ledgers::dropping_all_settles_all(bench).await;
    ledgers::a_recount_finds_what_the_ledger_says(bench).await;
    ledgers::each_outcome_is_told(bench).await;
    ledgers::a_clean_end_is_no_crash(bench).await;
    ledgers::a_batch_keeps_its_bounds_and_is_settled_in_one_step(bench).await;

    dead_letters::settling_puts_a_dead_letter_in(bench).await;
    dead_letters::dead_letters_are_listed_in_pages(bench).await;
    dead_letters::forwarding_is_due_in_order(bench).await;
    dead_letters::a_dead_letter_outlives_its_record_and_its_trigger(bench).await;
    dead_letters::dead_letters_are_selected(bench).await;
    dead_letters::a_dead_letter_that_fails_again_stays(bench).await;
    dead_letters::accepted_outputs_are_noted_until_the_debt_is_settled(bench).await;
    dead_letters::one_sends_a_dead_letter_at_a_time(bench).await;

    lifetime::only_what_nobody_is_owed_is_trimmed(bench).await;
    lifetime::records_are_kept_as_long_as_the_history_allows(bench).await;
    lifetime::a_full_log_goes_on_when_there_is_room(bench).await;
    lifetime::the_reserve_is_for_replies(bench).await;
    lifetime::a_closed_log_takes_nothing(bench).await;
    lifetime::what_was_written_is_there_again(bench).await;

    for seed in 1..=20 {
        walk(bench, &walk::random_steps(seed, 300)).await;
    }
}
