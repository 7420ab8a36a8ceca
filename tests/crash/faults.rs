//! Storage that fails, and storage that is full.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use crate::broker::{Broker, Home, Start, pause, wait};
use crate::failure::{Failure, ensure};
use crate::load::{Book, Producers};
use crate::manifests::{self, Trigger};
use crate::power::{self, Mount};
use crate::strace::{self, Injection};
use crate::subscriber::Subscriber;
use crate::{kills, note, report};

const PRODUCERS: usize = 4;
const REST: Duration = Duration::from_millis(2);
/// Small segments, so that many begin.
const LIMIT: [&str; 2] = ["--log-limit", "16MiB"];

/// Arguments of `faults`.
#[derive(Debug, Args)]
pub(crate) struct Faults {
    /// Only the first moments of each fault.
    #[arg(long)]
    short: bool,
}

/// What a process may do when its storage fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// It must end, and say why.
    End,
    /// It must refuse events, and take them again afterwards.
    Refuse,
    /// Either.
    EndOrRefuse,
}

/// The calls that fail, how, and what may come of it.
const FAULTS: [(&str, &str, May); 6] = [
    ("fdatasync", "EIO", May::End),
    ("pwrite64", "EIO", May::End),
    ("fallocate", "EIO", May::End),
    ("fallocate", "ENOSPC", May::Refuse),
    // Room was promised before, so that a file system which says this is broken in another way.
    ("pwrite64", "ENOSPC", May::EndOrRefuse),
    ("fdatasync", "ENOSPC", May::EndOrRefuse),
];

/// Has system calls fail in a process under load.
pub(crate) fn faults(arguments: &Faults, directory: &Path) -> Result<(), Failure> {
    if !strace::is_there() {
        return report("SKIPPED failing writes and syncs: there is no strace, or it may not attach\n");
    }
    let moments: &[u32] = if arguments.short { &[1, 9] } else { &[1, 2, 3, 5, 9, 17, 33] };
    for (call, error, may) in FAULTS {
        for from in moments {
            let name = format!("{call}-{error}-{from}");
            let came = fault(&directory.join(&name), &Injection::fail(call, error, *from), may)
                .map_err(|failure| Failure::Broken(format!("{name}: {failure}")))?;
            note(&format!("{call} fails with {error} from call {from} on: {came}"));
        }
    }
    report(&format!("{} faults: nothing acknowledged was lost\n", FAULTS.len() * moments.len()))
}

fn one_trigger(subscriber: &Subscriber) -> String {
    let (url, delivery) = (subscriber.url("/all"), manifests::quick());
    manifests::broker(&[Trigger { name: "all", url, delivery, paused: false }])
}

fn fault(directory: &Path, injection: &Injection, may: May) -> Result<&'static str, Failure> {
    let subscriber = Subscriber::start(|_, _, _| 202)?;
    let home = Home::new(directory, &one_trigger(&subscriber))?;
    let (book, start) = (Arc::new(Book::default()), Start::with(&LIMIT));
    let mut broker = Broker::start(&home, &start)?;
    let producers = Producers::start(PRODUCERS, REST, &book, broker.ingress);
    let injected = injection.attach_to_process(broker.id())?;
    let refused = || book.refused().keys().any(|(status, _)| *status == 507);
    let ended = wait(|| {
        let ended = broker.ended()?;
        Ok((ended.is_some() || refused()).then_some(ended))
    })?;
    let ended = ended.ok_or_else(|| Failure::Broken(format!("nothing came of it: {:?}", book.refused())))?;
    let came = if ended.is_none() && may != May::End {
        // Deliveries need no room, and go on.
        delivered(&broker, &book, &subscriber)?;
        injected.end(&broker)?;
        takes_events_again(&book)?;
        producers.stop();
        broker.stop()?;
        "it refused events, and takes them again"
    } else {
        let status = broker.wait_for_end()?;
        producers.stop();
        ensure(may != May::Refuse, || format!("it should not end:\n{}", home.last_lines()))?;
        ensure(status.code().is_some_and(|code| code != 0), || format!("it ended with {status}"))?;
        ensure(home.log().contains("E0503"), || format!("it does not say why:\n{}", home.last_lines()))?;
        drop(injected);
        "it ended and said why"
    };
    let coded =
        book.refused().keys().all(|(status, code)| matches!(status, 429 | 503 | 507) && code != "no code");
    ensure(coded, || format!("other refusals: {:?}", book.refused()))?;
    all_delivered_after(&home, &start, &book, &subscriber)?;
    Ok(came)
}

/// Waits until everything acknowledged so far was delivered.
fn delivered(broker: &Broker, book: &Book, subscriber: &Subscriber) -> Result<(), Failure> {
    let acknowledged = book.acknowledged();
    let mut missing = Vec::new();
    let all = wait(|| {
        missing = subscriber.missing("/all", &acknowledged);
        Ok(missing.is_empty().then_some(()))
    })?;
    let status = broker.status()?;
    all.ok_or_else(|| Failure::Broken(format!("deliveries do not go on: {missing:?}, {status}")))
}

/// Waits until the producers are heard again.
fn takes_events_again(book: &Book) -> Result<(), Failure> {
    let before = book.acknowledged().len();
    let again = wait(|| Ok((book.acknowledged().len() > before).then_some(())))?;
    again.ok_or_else(|| Failure::Broken(format!("no event is taken again: {:?}", book.refused())))
}

/// Starts again on healthy storage: everything acknowledged arrives, as it was.
fn all_delivered_after(
    home: &Home,
    start: &Start,
    book: &Book,
    subscriber: &Subscriber,
) -> Result<(), Failure> {
    let broker = Broker::start(home, start)?;
    broker.settled()?;
    broker.recount()?;
    broker.stop()?;
    subscriber.unchanged()?;
    kills::no_panic(home)?;
    let missing = subscriber.missing("/all", &book.acknowledged());
    ensure(missing.is_empty(), || format!("acknowledged and lost: {missing:?}"))
}

/// Arguments of `full`.
#[derive(Debug, Args)]
pub(crate) struct Full {
    /// Fill a file system of 64 MiB in memory, which needs root, and not the limit of 16 MiB that the broker is given.
    #[arg(long)]
    file_system: bool,
}

/// Fills the storage while a subscriber is away: events are refused, and taken again when it is back.
pub(crate) fn full(arguments: &Full, directory: &Path) -> Result<(), Failure> {
    if arguments.file_system && !power::may_mount() {
        return report("SKIPPED the full file system: it needs root and mount\n");
    }
    let back = Arc::new(AtomicBool::new(false));
    let is_back = Arc::clone(&back);
    let subscriber = Subscriber::start(move |path, _, _| match path {
        "/all" if !is_back.load(Ordering::Relaxed) => 503,
        _ => 202,
    })?;
    let one =
        |name, path| Trigger { name, url: subscriber.url(path), delivery: manifests::quick(), paused: false };
    let home = Home::new(directory, &manifests::broker(&[one("all", "/all"), one("other", "/other")]))?;
    let (mount, start) = if arguments.file_system {
        let mount = Mount::new(&["-t", "tmpfs", "-o", "size=64m", "tmpfs"], &home.data())?;
        (Some(mount), Start::with(&["--log-limit", "1GiB"]))
    } else {
        (None, Start::with(&LIMIT))
    };
    let book = Arc::new(Book::default());
    let mut broker = Broker::start(&home, &start)?;
    // Once more after a kill of a process that is full.
    for round in 0..2 {
        let producers = Producers::start(PRODUCERS, Duration::ZERO, &book, broker.ingress);
        let since = refusals(&book);
        let refused = wait(|| Ok((refusals(&book) > since).then_some(())))?;
        let codes: Vec<_> = book.refused().into_keys().collect();
        ensure(refused.is_some(), || "nothing is ever refused".to_owned())?;
        let full = |(status, code): &(u16, String)| *status == 507 && code == "E0501";
        ensure(codes.iter().all(full), || format!("other refusals than 507 E0501: {codes:?}"))?;
        pause(Duration::from_millis(500));
        producers.stop();
        let others = book.acknowledged();
        let reached = wait(|| Ok(subscriber.missing("/other", &others).is_empty().then_some(())))?;
        ensure(reached.is_some(), || {
            "another trigger waits for the one whose subscriber is away".to_owned()
        })?;
        ensure(broker.status()?.to_string().contains("default/all"), || {
            "nobody says who holds the log".to_owned()
        })?;
        if round == 0 {
            broker.kill()?;
            broker = Broker::start(&home, &start)?;
        }
    }
    back.store(true, Ordering::Relaxed);
    delivered(&broker, &book, &subscriber)?;
    let producers = Producers::start(PRODUCERS, REST, &book, broker.ingress);
    takes_events_again(&book)?;
    producers.stop();
    broker.stop()?;
    all_delivered_after(&home, &start, &book, &subscriber)?;
    drop(mount);
    report(&format!(
        "full storage: {} events were acknowledged and all delivered, {} were refused\n",
        book.acknowledged().len(),
        refusals(&book)
    ))
}

fn refusals(book: &Book) -> u64 {
    book.refused().values().sum()
}
