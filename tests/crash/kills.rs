//! `kill -9` under load, again and again on the same data, at random moments and at chosen writes; and a kill at every
//! write of a small script, each on fresh data.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use crate::broker::{Broker, Home, Start, Started, pause, trigger};
use crate::chance::Chance;
use crate::failure::{Failure, ensure};
use crate::load::{Book, Producers};
use crate::manifests::{self, Trigger};
use crate::strace::{self, Injection};
use crate::subscriber::Subscriber;
use crate::wire::Connection;
use crate::{note, report};

const PRODUCERS: usize = 4;
const REST: Duration = Duration::from_millis(2);
/// The longest that a process runs under load before it is killed at a random moment.
const LONGEST: u64 = 600;
/// How long is waited for the write at which a process is to be killed.
const AIM_TIMEOUT: Duration = Duration::from_secs(5);
/// The smallest limit makes the smallest segments, so that many begin.
const SMALL_SEGMENTS: [&str; 2] = ["--log-limit", "16MiB"];

/// Arguments of `kills`.
#[derive(Debug, Args)]
pub(crate) struct Kills {
    /// How often the process is killed.
    #[arg(long, default_value_t = 20)]
    count: u32,
    /// How many of these kills are aimed at the begin of segments and at commits of the checkpoint; needs strace.
    #[arg(long, default_value_t = 0)]
    aimed: u32,
    /// What decides the random moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Every second event is first refused by `failing`, every third by `waiting`.
fn refuses_some(path: &str, number: u64, attempt: u16) -> u16 {
    match path {
        "/failing" if number.is_multiple_of(2) && attempt <= 2 => 503,
        "/waiting" if number.is_multiple_of(3) && attempt <= 1 => 500,
        _ => 202,
    }
}

const PATHS: [&str; 3] = ["/healthy", "/failing", "/waiting"];

fn three_triggers(subscriber: &Subscriber) -> String {
    let one = |name, path, delivery| Trigger { name, url: subscriber.url(path), delivery, paused: false };
    manifests::broker(&[
        one("healthy", "/healthy", manifests::quick()),
        one("failing", "/failing", manifests::quick()),
        one("waiting", "/waiting", manifests::slow()),
    ])
}

/// How many events of a trigger were given up because the process ended at their attempts, again and again, and this
/// was told.
fn suspected(home: &Home, name: &str) -> u64 {
    let trigger = format!("\"trigger\":\"default/{name}\"");
    home.log().lines().filter(|line| line.contains("\"E0415\"") && line.contains(&trigger)).count() as u64
}

/// Everything that was acknowledged came to every trigger as it was, and every ledger says so. Events of a trigger
/// that became dead letters because the kills were aimed at their attempts are given by `suspected`.
fn all_delivered(
    broker: &Broker,
    book: &Book,
    subscriber: &Subscriber,
    suspected: impl Fn(&str) -> u64,
) -> Result<(), Failure> {
    let status = broker.settled()?;
    broker.recount()?;
    subscriber.unchanged()?;
    let acknowledged = book.acknowledged();
    for path in PATHS {
        let missing = subscriber.missing(path, &acknowledged);
        let row = trigger(&status, &path[1..])?;
        let dead = row["deadLettered"].as_u64().unwrap_or_default();
        ensure(missing.len() as u64 <= dead && dead <= suspected(&path[1..]) || missing.is_empty(), || {
            format!("of {} acknowledged events {path} did not take {missing:?}: {row}", acknowledged.len())
        })?;
        let matched = row["matched"].as_u64().unwrap_or_default();
        ensure((acknowledged.len() as u64..=book.sent()).contains(&matched), || {
            format!("{} of {} events were acknowledged: {row}", acknowledged.len(), book.sent())
        })?;
        ensure(dead <= suspected(&path[1..]) && row["dropped"] == 0, || {
            format!("events were given up: {row}")
        })?;
    }
    Ok(())
}

/// Kills a broker under load again and again.
pub(crate) fn kills(arguments: &Kills, directory: &Path) -> Result<(), Failure> {
    let aimed = if arguments.aimed > 0 && !strace::is_there() {
        note("SKIPPED the aimed kills: there is no strace, or it may not attach");
        0
    } else {
        arguments.aimed.min(arguments.count)
    };
    let subscriber = Subscriber::start(refuses_some)?;
    let home = Home::new(directory, &three_triggers(&subscriber))?;
    let (book, start) = (Arc::new(Book::default()), Start::with(&SMALL_SEGMENTS));
    let mut chance = Chance::new(arguments.seed);
    let mut missed = 0;
    for number in 0..arguments.count {
        let mut broker = Broker::start(&home, &start)?;
        broker.status()?;
        broker.recount()?;
        let producers = Producers::start(PRODUCERS, REST, &book, broker.ingress);
        // Spread evenly, whatever their share.
        if number * aimed / arguments.count != (number + 1) * aimed / arguments.count {
            let injection = aim(&mut chance, &home);
            let injected = injection.attach_to_process(broker.id())?;
            let since = Instant::now();
            while broker.ended()?.is_none() && since.elapsed() < AIM_TIMEOUT {
                pause(Duration::from_millis(5));
            }
            if broker.ended()?.is_none() {
                missed += 1;
            }
            broker.signal(rustix::process::Signal::KILL);
            broker.wait_for_end()?;
            drop(injected);
        } else {
            pause(Duration::from_millis(chance.below(LONGEST)));
            broker.kill()?;
        }
        producers.stop();
    }
    ensure(missed * 2 <= aimed, || format!("{missed} of {aimed} aimed kills met no such write"))?;
    let broker = Broker::start(&home, &start)?;
    // A kill at the write that comes before each attempt at the same event is what an event that ends the process
    // looks like.
    let suspected = |name: &str| if aimed > 0 { suspected(&home, name) } else { 0 };
    all_delivered(&broker, &book, &subscriber, suspected)?;
    let given_up: u64 = PATHS.iter().map(|path| suspected(&path[1..])).sum();
    broker.stop()?;
    no_panic(&home)?;
    report(&format!(
        "{} kills, {} of them aimed: {} events were sent, {} acknowledged, none of these lost, and \
         {given_up} dead letters because the kills were aimed at their attempts\n",
        arguments.count,
        aimed - missed,
        book.sent(),
        book.acknowledged().len()
    ))
}

/// The begin of a segment, or a write or sync of the checkpoint.
fn aim(chance: &mut Chance, home: &Home) -> Injection {
    let checkpoint = home.data().join("checkpoint.redb");
    match chance.below(6) {
        0 | 1 => Injection::kill("fallocate", 1 + chance.below(4) as u32),
        2 => Injection::kill("unlink", 1 + chance.below(4) as u32),
        3 => Injection::kill("fdatasync", 1 + chance.below(60) as u32),
        4 => Injection::kill("fdatasync", 1 + chance.below(8) as u32).at(&checkpoint),
        _ => Injection::kill("pwrite64", 1 + chance.below(40) as u32).at(&checkpoint),
    }
}

/// No process panicked.
pub(crate) fn no_panic(home: &Home) -> Result<(), Failure> {
    ensure(!home.log().contains("panicked"), || format!("a panic:\n{}", home.last_lines()))
}

/// Arguments of `writes`.
#[derive(Debug, Args)]
pub(crate) struct Writes {
    /// Only some of the writes: the first, and then ever fewer.
    #[arg(long)]
    short: bool,
}

/// The system calls that change files.
const CALLS: [&str; 7] = ["pwrite64", "fdatasync", "fsync", "fallocate", "ftruncate", "unlink", "mkdir"];
/// The threads that write while events come in.
const THREADS: [&str; 3] = ["log-write-0", "log-write-1", "log-flush"];
/// The events of the script.
const EVENTS: u64 = 8;

/// Kills a broker at every write of a small script, each time on fresh data.
pub(crate) fn writes(arguments: &Writes, directory: &Path) -> Result<(), Failure> {
    if !strace::is_there() {
        return report("SKIPPED kills at every write: there is no strace, or it may not attach\n");
    }
    let mut killed = 0;
    for thread in [None].into_iter().chain(THREADS.map(Some)) {
        for call in CALLS {
            let mut number = 1;
            loop {
                let path = directory.join(format!("{}-{call}-{number}", thread.unwrap_or("start")));
                if !script(&path, thread, &Injection::kill(call, number)).map_err(|failure| {
                    Failure::Broken(format!("killed at {call} {number} of {thread:?}: {failure}"))
                })? {
                    break;
                }
                drop(std::fs::remove_dir_all(&path));
                killed += 1;
                number += if arguments.short { number.div_ceil(2) + 1 } else { 1 };
            }
            note(&format!("{}: {call}: {} writes", thread.unwrap_or("from the start"), number - 1));
        }
    }
    report(&format!("{killed} kills, each at another write and on fresh data: nothing was lost\n"))
}

/// Plays the script under an injection, and then looks at what is left. Whether the process was killed.
fn script(directory: &Path, thread: Option<&str>, injection: &Injection) -> Result<bool, Failure> {
    let subscriber = Subscriber::start(refuses_some)?;
    let home = Home::new(directory, &three_triggers(&subscriber))?;
    let book = Book::default();
    let mut start = Start::with(&SMALL_SEGMENTS);
    if thread.is_none() {
        start.under = injection.command();
    }
    let killed = match Broker::try_start(&home, &start)? {
        Started::Ended(_) => true,
        Started::Ready(mut broker) => {
            let injected = match thread {
                Some(name) => Some(injection.attach_to_thread(thread_of(&broker, name)?)?),
                None => None,
            };
            play(&mut broker, &book)?;
            broker.signal(rustix::process::Signal::TERM);
            let ended = broker.wait_for_end()?;
            drop(injected);
            !ended.success()
        }
    };
    let broker = Broker::start(&home, &Start::with(&SMALL_SEGMENTS))?;
    all_delivered(&broker, &book, &subscriber, |_| 0)?;
    broker.stop()?;
    no_panic(&home)?;
    Ok(killed)
}

/// Sends the events of the script and waits until they are settled, unless the process ends before.
fn play(broker: &mut Broker, book: &Book) -> Result<(), Failure> {
    let Ok(mut connection) = Connection::open(broker.ingress) else { return Ok(()) };
    for _ in 0..EVENTS {
        if !book.send(&mut connection, broker.ingress) {
            return Ok(());
        }
    }
    let since = Instant::now();
    // Long enough for the attempt that waits in the schedule.
    while since.elapsed() < Duration::from_millis(1_500) && broker.ended()?.is_none() {
        pause(Duration::from_millis(10));
    }
    Ok(())
}

/// The id of a thread by its name.
fn thread_of(broker: &Broker, name: &str) -> Result<u32, Failure> {
    let tasks = Path::new("/proc").join(broker.id().to_string()).join("task");
    let entries = std::fs::read_dir(&tasks).map_err(Failure::io("reading the threads of waypost"))?;
    let found = entries.flatten().find(|entry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|known| known.trim() == name)
    });
    let id = found.and_then(|entry| entry.file_name().to_str()?.parse().ok());
    id.ok_or_else(|| Failure::Broken(format!("waypost has no thread {name}")))
}
