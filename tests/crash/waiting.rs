//! Very many deliveries that wait for their next attempt: what they cost in memory, how long a start on them takes after a
//! kill, and that none is forgotten and none made early.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use parking_lot::Mutex;
use serde_json::json;

use crate::backlog::{fill, peak, resident};
use crate::broker::{Broker, Home, Start, pause, trigger};
use crate::failure::{Failure, ensure};
use crate::kills::no_panic;
use crate::manifests::{self, Trigger};
use crate::subscriber::Subscriber;
use crate::{note, report};

/// How many triggers share them: each may have 100,000 that wait.
const TRIGGERS: u64 = 10;
/// How long no attempt may come although some are owed.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Arguments of `waiting`.
#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// How many deliveries wait; at most a million.
    #[arg(long, default_value_t = 1_000_000)]
    deliveries: u64,
    /// How long each waits, in seconds: longer than all first attempts take together.
    #[arg(long, default_value_t = 300)]
    wait: u64,
    /// The longest that a start may take, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    start: u64,
    /// The most memory that may be resident while all of them wait, and until they are delivered, in MB.
    #[arg(long, default_value_t = 200)]
    memory: u64,
}

/// When each delivery was attempted for the first time, and the first that was attempted again too early.
#[derive(Debug, Default)]
struct Seen {
    first: HashMap<(String, u64), Instant>,
    early: Option<(String, u64, Duration)>,
}

/// Has the first attempt of every delivery fail, kills the broker, and waits for the second ones.
pub(crate) fn waiting(arguments: &Waiting, directory: &Path) -> Result<(), Failure> {
    let wait = Duration::from_secs(arguments.wait);
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let noted = Arc::clone(&seen);
    let subscriber = Subscriber::start(move |path, number, attempt| {
        let mut seen = noted.lock();
        if attempt == 1 {
            seen.first.insert((path.to_owned(), number), Instant::now());
            return 500;
        }
        let waited = seen.first.get(&(path.to_owned(), number)).map(Instant::elapsed).unwrap_or_default();
        if waited < wait {
            seen.early.get_or_insert((path.to_owned(), number, waited));
        }
        202
    })?;
    let delay = format!("PT{}S", arguments.wait);
    let delivery =
        json!({"retry": 3, "backoffPolicy": "constant", "backoffDelay": delay, "backoffMax": "PT24H"});
    let names: Vec<String> = (0..TRIGGERS).map(|number| format!("t{number}")).collect();
    let triggers: Vec<_> = names
        .iter()
        .map(|name| Trigger {
            name,
            url: subscriber.url(&format!("/{name}")),
            delivery: delivery.clone(),
            paused: false,
        })
        .collect();
    let home = Home::new(directory, &manifests::broker(&triggers))?;
    let broker = Broker::start(&home, &Start::default())?;
    let filling = Instant::now();
    let each = arguments.deliveries / TRIGGERS;
    fill(&broker, each)?;
    until(&subscriber, each * TRIGGERS)?;
    let filled = filling.elapsed();
    ensure(filled < wait, || format!("the first attempts took {filled:?}, longer than --wait"))?;
    // The last outcomes reach the journal and the checkpoint.
    pause(Duration::from_secs(2));
    let (coming, before) = (peak(&broker)?, resident(&broker)? / 1_000_000);
    broker.kill()?;

    let starting = Instant::now();
    let broker = Broker::start(&home, &Start::default())?;
    let started = starting.elapsed();
    broker.recount()?;
    let after = peak(&broker)?;
    note(&format!(
        "filled in {filled:.1?}, {before} MB then, {coming} MB at most; started in {started:.1?}, {after} MB; waiting"
    ));
    let repeated = subscriber.requests() - each * TRIGGERS;
    pause(wait.saturating_sub(filling.elapsed()));
    until(&subscriber, 2 * each * TRIGGERS + repeated)?;
    let status = broker.settled()?;
    let highest = peak(&broker)?;
    for name in &names {
        let row = trigger(&status, name)?;
        ensure(row["delivered"] == each && row["matched"] == each, || format!("some are missing: {row}"))?;
    }
    let early = seen.lock().early.clone();
    ensure(early.is_none(), || format!("attempted again too early: {early:?}"))?;
    broker.stop()?;
    no_panic(&home)?;
    report(&format!(
        "{} deliveries wait: {before} MB resident, at most {coming} MB while they came; started after a kill in {} ms ({after} MB), \
         at most {highest} MB until all were delivered; none was forgotten and none made early\n",
        each * TRIGGERS,
        started.as_millis()
    ))?;
    ensure(started.as_millis() <= u128::from(arguments.start), || "the start takes too long".to_owned())?;
    ensure(before.max(highest) <= arguments.memory, || "it takes too much memory".to_owned())
}

/// Waits until so many requests came.
fn until(subscriber: &Subscriber, wanted: u64) -> Result<(), Failure> {
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let came = subscriber.requests();
        if came >= wanted {
            return Ok(());
        }
        if came > before {
            (before, since) = (came, Instant::now());
        }
        ensure(since.elapsed() < STANDSTILL, || format!("{came} of {wanted} attempts came, and no more"))?;
        pause(Duration::from_millis(20));
    }
}
