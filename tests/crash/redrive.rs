//! Dead letters by the thousands, and a kill in the middle of their redrive.

use std::path::Path;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use crate::backlog::{fill, resident};
use crate::broker::{Broker, Home, Start, pause, trigger};
use crate::failure::{Failure, ensure};
use crate::manifests::{self, Trigger};
use crate::subscriber::Subscriber;
use crate::{kills, note, report, wire};

/// How long the redrive may make no progress.
const STANDSTILL: std::time::Duration = std::time::Duration::from_secs(60);
/// How often is looked how far it is.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(5);

/// Arguments of `redrive`.
#[derive(Debug, Args)]
pub(crate) struct Redrive {
    /// How many dead letters there are.
    #[arg(long, default_value_t = 100_000)]
    count: u64,
    /// The most memory that a stored dead letter may take on average, in bytes; not looked at below 50,000 of them.
    #[arg(long, default_value_t = 1_000)]
    memory: u64,
}

/// Has every event become a dead letter, redrives all of them, and kills the broker half-way.
pub(crate) fn redrive(arguments: &Redrive, directory: &Path) -> Result<(), Failure> {
    let count = arguments.count;
    // What is sent again is taken.
    let subscriber = Subscriber::start(|_, _, attempt| if attempt == 1 { 400 } else { 202 })?;
    let (url, delivery) = (subscriber.url("/all"), json!({"retry": 0}));
    let manifests = manifests::broker(&[Trigger { name: "all", url, delivery, paused: false }]);
    let home = Home::new(directory, &manifests)?;
    let broker = Broker::start(&home, &Start::default())?;
    fill(&broker, count)?;
    let row = all_settled(&broker)?;
    ensure(row["deadLettered"] == count && row["deadLettersStored"] == count, || {
        format!("not every event is a dead letter: {row}")
    })?;
    // Once more from the disk: what was needed to fill the store is not what it takes.
    broker.stop()?;
    let broker = Broker::start(&home, &Start::default())?;
    let held = resident(&broker)?;
    let empty = resident_without(directory)?;

    let started = answer(&broker, "POST", "/api/v1/dead-letters/redrive")?;
    ensure(started["selected"] == count, || format!("not all were chosen: {started}"))?;
    wait_for_requests(&subscriber, count + count / 2)?;
    broker.kill()?;
    let at_the_kill = subscriber.requests() - count;

    let resuming = Instant::now();
    let broker = Broker::start(&home, &Start::default())?;
    let ended = ended(&broker, &started)?;
    let took = resuming.elapsed();
    let row = all_settled(&broker)?;
    let missing = subscriber.missing("/all", &(0..count).collect::<Vec<_>>());
    ensure(missing.is_empty(), || format!("{} of {count} were not delivered: {ended}", missing.len()))?;
    ensure(row["deadLettersStored"] == 0 && row["deadLettered"] == count, || {
        format!("the store is not empty, or a count fell: {row}")
    })?;
    ensure(ended["sent"] == count && ended["failed"] == 0, || format!("it counts something else: {ended}"))?;
    broker.recount()?;
    broker.stop()?;
    kills::no_panic(&home)?;
    let twice = subscriber.requests() - 2 * count;
    let each = held.saturating_sub(empty) / count.max(1);
    report(&format!(
        "{count} dead letters redriven, killed after {at_the_kill}: each was delivered, {twice} twice; the rest took \
         {:.1} s with the start; {each} bytes of memory for each that is stored ({held} against {empty} bytes)\n",
        took.as_secs_f64()
    ))?;
    ensure(count < 50_000 || each <= arguments.memory, || {
        "a stored dead letter takes too much memory".to_owned()
    })
}

/// The memory of a broker without any dead letter.
fn resident_without(directory: &Path) -> Result<u64, Failure> {
    let home = Home::new(&directory.join("empty"), &manifests::broker(&[]))?;
    let broker = Broker::start(&home, &Start::default())?;
    let empty = resident(&broker)?;
    broker.stop()?;
    Ok(empty)
}

fn all_settled(broker: &Broker) -> Result<Value, Failure> {
    let status = broker.settled()?;
    trigger(&status, "all").cloned()
}

fn answer(broker: &Broker, method: &str, path: &str) -> Result<Value, Failure> {
    let answer = wire::call(broker.admin, method, path).map_err(Failure::io(format!("calling {path}")))?;
    ensure(answer.status() == 200, || format!("{path} was answered with {answer:?}"))?;
    Ok(answer.json())
}

fn wait_for_requests(subscriber: &Subscriber, wanted: u64) -> Result<(), Failure> {
    let (mut before, mut since) = (0, Instant::now());
    while subscriber.requests() < wanted {
        if subscriber.requests() > before {
            (before, since) = (subscriber.requests(), Instant::now());
        }
        ensure(since.elapsed() < STANDSTILL, || format!("the redrive stands still after {before}"))?;
        pause(LOOK_EVERY);
    }
    Ok(())
}

/// Waits for the end of a redrive that an earlier process started.
fn ended(broker: &Broker, started: &Value) -> Result<Value, Failure> {
    let path = format!("/api/v1/redrives/{}", started["id"].as_str().unwrap_or_default());
    let (mut before, mut since, mut told) = (Value::Null, Instant::now(), Instant::now());
    loop {
        let redrive = answer(broker, "GET", &path)?;
        if redrive["endedAt"].is_string() {
            return Ok(redrive);
        }
        if redrive["left"] != before {
            (before, since) = (redrive["left"].clone(), Instant::now());
        }
        ensure(since.elapsed() < STANDSTILL, || format!("the redrive stands still: {redrive}"))?;
        if told.elapsed().as_secs() >= 10 {
            told = Instant::now();
            note(&format!("{before} are left"));
        }
        pause(LOOK_EVERY);
    }
}
