//! A backlog of millions of events: how long a start takes, and how much memory it costs to drain.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;

use crate::broker::{Broker, Home, Start, pause, trigger};
use crate::explained::explained;
use crate::failure::{Failure, ensure};
use crate::manifests::{self, Trigger};
use crate::subscriber::Subscriber;
use crate::wire::Connection;
use crate::{event, kills, note, report};

/// The events of a request.
const BATCH: u64 = 500;
/// The bytes of data in an event.
const DATA: usize = 1024;
/// How long the backlog may make no progress.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Arguments of `backlog`.
#[derive(Debug, Args)]
pub(crate) struct Backlog {
    /// How many events wait; ten million take about 11 GB.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// An environment variable of the broker, NAME=VALUE, such as one of its allocator. May be given several times.
    #[arg(long)]
    environment: Vec<String>,
    /// The longest that a start may take, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    start: u64,
    /// How many events are explained at the end, half of them by position and half by source and id.
    #[arg(long, default_value_t = 0)]
    explain: u64,
    /// The longest that one explanation may take, in milliseconds.
    #[arg(long, default_value_t = 50)]
    explain_within: u64,
    /// The most memory that may be resident while the backlog drains, in MB.
    #[arg(long, default_value_t = 200)]
    memory: u64,
}

/// Lets a backlog grow, starts on it, and drains it.
pub(crate) fn backlog(arguments: &Backlog, directory: &Path) -> Result<(), Failure> {
    let subscriber = Subscriber::start(|_, _, _| 202)?;
    let manifests = |paused| {
        let (url, delivery) = (subscriber.url("/all"), manifests::quick());
        manifests::broker(&[Trigger { name: "all", url, delivery, paused }])
    };
    let home = Home::new(directory, &manifests(true))?;
    let mut start = Start::default();
    for variable in &arguments.environment {
        let (name, value) = variable
            .split_once('=')
            .ok_or_else(|| Failure::Broken(format!("{variable:?} is no NAME=VALUE")))?;
        start.environment.push((name.to_owned(), value.to_owned()));
    }
    let broker = Broker::start(&home, &start)?;
    let filling = Instant::now();
    fill(&broker, arguments.events)?;
    let filled = filling.elapsed();
    let while_filling = peak(&broker)?;
    broker.stop()?;

    home.write(&manifests(false))?;
    let starting = Instant::now();
    let broker = Broker::start(&home, &start)?;
    let started = starting.elapsed();
    let draining = Instant::now();
    drain(&broker, &subscriber, arguments.events)?;
    let drained = draining.elapsed();
    let resident = peak(&broker)?;
    let status = broker.settled()?;
    broker.recount()?;
    let row = trigger(&status, "all")?;
    ensure(row["matched"] == arguments.events && row["delivered"] == arguments.events, || {
        format!("not all was delivered: {row}")
    })?;
    let explained = explained(broker.admin, arguments.events, arguments.explain)?;
    broker.stop()?;
    kills::no_panic(&home)?;
    report(&format!(
        "{} events: filled in {:.1} s (at most {while_filling} MB resident), started in {} ms, drained in {:.1} s, at \
         most {resident} MB resident\n",
        arguments.events,
        filled.as_secs_f64(),
        started.as_millis(),
        drained.as_secs_f64()
    ))?;
    for of_way in explained {
        report(&format!("{of_way}\n"))?;
        ensure(of_way.longest().as_millis() <= u128::from(arguments.explain_within), || {
            "an explanation takes too long".to_owned()
        })?;
    }
    ensure(started.as_millis() <= u128::from(arguments.start), || "the start takes too long".to_owned())?;
    ensure(resident <= arguments.memory, || "it takes too much memory".to_owned())
}

/// Sends so many events in batches.
pub(crate) fn fill(broker: &Broker, events: u64) -> Result<(), Failure> {
    let filler = "x".repeat(DATA);
    let mut connection = Connection::open(broker.ingress).map_err(Failure::io("connecting"))?;
    let mut next = 0;
    while next < events {
        let end = events.min(next + BATCH);
        let request = event::batch(broker.ingress, next..end, &filler);
        let answer = connection.send(&request).map_err(Failure::io("sending a batch"))?;
        match answer.status() {
            202 => next = end,
            429 => pause(Duration::from_millis(10)),
            status => return Err(Failure::Broken(format!("a batch was answered with {status}: {answer:?}"))),
        }
    }
    Ok(())
}

fn drain(broker: &Broker, subscriber: &Subscriber, events: u64) -> Result<(), Failure> {
    let (mut before, mut since, mut told) = (0, Instant::now(), Instant::now());
    loop {
        let taken = subscriber.requests();
        if taken >= events {
            return Ok(());
        }
        if taken > before {
            (before, since) = (taken, Instant::now());
        }
        ensure(since.elapsed() < STANDSTILL, || format!("deliveries stand still after {taken}"))?;
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            note(&format!("{taken} delivered, at most {} MB resident", peak(broker)?));
        }
        pause(Duration::from_millis(20));
    }
}

/// The most memory that was resident so far, in MB.
pub(crate) fn peak(broker: &Broker) -> Result<u64, Failure> {
    memory(broker, "VmHWM:").map(|bytes| bytes / 1_000_000)
}

/// The memory that is resident, in bytes.
pub(crate) fn resident(broker: &Broker) -> Result<u64, Failure> {
    memory(broker, "VmRSS:")
}

fn memory(broker: &Broker, name: &str) -> Result<u64, Failure> {
    let path = format!("/proc/{}/status", broker.id());
    let status = std::fs::read_to_string(path).map_err(Failure::io("reading the memory of waypost"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kibibytes =
        kibibytes.ok_or_else(|| Failure::Broken("the memory of waypost is not told".to_owned()))?;
    Ok(kibibytes * 1024)
}
