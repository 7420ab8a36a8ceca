//! `kill -9` of a broker whose trigger keeps the order of 100 keys, while its subscriber fails at random: per key the
//! subscriber must see no event before the one ahead of it was settled, and none may be missing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use serde_json::json;

use crate::broker::{Broker, Home, Start, pause, trigger};
use crate::chance::Chance;
use crate::event::KEYS;
use crate::failure::{Failure, ensure};
use crate::kills::no_panic;
use crate::load::{Book, Producers};
use crate::manifests::{self, Trigger};
use crate::report;
use crate::subscriber::Subscriber;

/// How long the producer waits after each answer. There is one, so that the order of the log is that of the numbers.
const REST: Duration = Duration::from_micros(200);
/// How often the process is killed in the short form.
const SHORT: u32 = 6;

/// Arguments of `order`.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// How often the process is killed, about every second.
    #[arg(long, default_value_t = 60)]
    count: u32,
    /// Only a few kills, soon after one another.
    #[arg(long)]
    short: bool,
    /// What decides the random moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// An answer that depends on nothing but the event and the attempt: some fail a few times, few are refused for good.
fn fickle(number: u64, attempt: u16) -> u16 {
    let chance = Chance::new(number * 31 + u64::from(attempt)).below(20);
    match chance {
        _ if number % 97 == 13 => 400,
        0..3 if attempt < 6 => 503,
        3..6 if attempt < 6 => 500,
        6 if attempt < 6 => 429,
        _ => 202,
    }
}

/// What came, in the order in which it came: the number and the answer.
type Answers = Arc<Mutex<Vec<(u64, u16)>>>;

/// Kills a broker under load again and again, and looks at the order.
pub(crate) fn order(arguments: &Order, directory: &Path) -> Result<(), Failure> {
    let answers = Answers::default();
    let noted = Arc::clone(&answers);
    let subscriber = Subscriber::start(move |_, number, attempt| {
        let status = fickle(number, attempt);
        noted.lock().push((number, status));
        status
    })?;
    let delivery = json!({
        "ordering": "key", "retry": 100_000, "backoffPolicy": "constant", "backoffDelay": "PT0.05S", "maxInFlight": 32
    });
    let ordered = Trigger { name: "ordered", url: subscriber.url("/ordered"), delivery, paused: false };
    let home = Home::new(directory, &manifests::broker(&[ordered]))?;
    let (book, start) = (Arc::new(Book::default()), Start::default());
    let mut chance = Chance::new(arguments.seed);
    let (count, longest) = if arguments.short { (SHORT, 500) } else { (arguments.count, 1_000) };
    for _ in 0..count {
        let broker = Broker::start(&home, &start)?;
        broker.recount()?;
        let producers = Producers::start(1, REST, &book, broker.ingress);
        pause(Duration::from_millis(longest / 2 + chance.below(longest)));
        broker.kill()?;
        producers.stop();
    }
    let broker = Broker::start(&home, &start)?;
    let status = broker.settled()?;
    broker.recount()?;
    subscriber.unchanged()?;
    let answers = answers.lock();
    let acknowledged = book.acknowledged();
    let missing: Vec<_> = subscriber
        .missing("/ordered", &acknowledged)
        .into_iter()
        .filter(|number| number % 97 != 13)
        .collect();
    ensure(missing.is_empty(), || format!("of {} events {missing:?} are missing", acknowledged.len()))?;
    let row = trigger(&status, "ordered")?;
    let refused = answers.iter().filter(|(_, status)| *status == 400).map(|(number, _)| number);
    let refused = refused.collect::<std::collections::BTreeSet<_>>().len() as u64;
    ensure(row["deadLettered"].as_u64() == Some(refused) && row["dropped"] == 0, || {
        format!("{refused} events were refused for good: {row}")
    })?;
    in_order(&answers)?;
    broker.stop()?;
    no_panic(&home)?;
    report(&format!(
        "{count} kills: {} events of {KEYS} keys in {} attempts, each first attempted after the one ahead of it was \
         settled; none of {} acknowledged is missing\n",
        row["matched"],
        answers.len(),
        acknowledged.len()
    ))
}

/// No event of a key came before the one ahead of it had been answered for good. Repeats stand outside the order.
fn in_order(answers: &[(u64, u16)]) -> Result<(), Failure> {
    let mut first: BTreeMap<u64, usize> = BTreeMap::new();
    let mut settled: BTreeMap<u64, usize> = BTreeMap::new();
    for (index, (number, status)) in answers.iter().enumerate() {
        first.entry(*number).or_insert(index);
        if matches!(status, 200..300 | 400) {
            settled.entry(*number).or_insert(index);
        }
    }
    let mut ahead: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, index) in &first {
        if let Some(before) = ahead.insert(number % KEYS, *number) {
            ensure(settled.get(&before).is_some_and(|settled| settled < index), || {
                format!("event {number} was attempted before event {before} of its key was settled")
            })?;
        }
    }
    Ok(())
}
