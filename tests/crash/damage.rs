//! Damage: a flipped bit or a page of zeros at sampled places of every file of a data directory. A start must refuse,
//! or tell, or it is harmless.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use waypost_tests::binary;

use crate::broker::{Broker, Home, Start, Started, pause, trigger, wait};
use crate::chance::Chance;
use crate::failure::{Failure, ensure};
use crate::load::{Book, Producers};
use crate::manifests::{self, Trigger};
use crate::subscriber::Subscriber;
use crate::wire::{self, Connection};
use crate::{event, kills, note, report};

const PRODUCERS: usize = 4;
const PAGE: usize = 4096;
/// The events that are stored, so that there are several segments.
const EVENTS: usize = 1_500;

/// Arguments of `damage`.
#[derive(Debug, Args)]
pub(crate) struct Damage {
    /// How many places are damaged in each file, one at a time.
    #[arg(long, default_value_t = 10)]
    places: u64,
    /// The most places in all; every file has its turn before any has a second one.
    #[arg(long)]
    most: Option<usize>,
    /// What decides the places.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What is damaged.
#[derive(Debug)]
struct Place {
    file: PathBuf,
    at: u64,
    page: bool,
}

/// How a damaged directory was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    Harmless,
    Refused,
    Told,
}

fn triggers(subscriber: &Subscriber, paused: bool) -> String {
    let one = |name, path, paused| Trigger {
        name,
        url: subscriber.url(path),
        delivery: manifests::quick(),
        paused,
    };
    let dead = Trigger {
        name: "dead",
        url: subscriber.url("/dead"),
        delivery: serde_json::json!({"retry": 0}),
        paused: false,
    };
    manifests::broker(&[one("done", "/done", false), one("owed", "/owed", paused), dead])
}

/// Damages copies of a data directory, and starts on them.
pub(crate) fn damage(arguments: &Damage, directory: &Path) -> Result<(), Failure> {
    let book = Arc::new(Book::default());
    let sound = store(directory, &book)?;
    let mut chance = Chance::new(arguments.seed);
    let files = files_below(&sound.data())?;
    let mut met = [0; 3];
    let mut tried = 0;
    for round in 0..arguments.places {
        for file in &files {
            if arguments.most.is_some_and(|most| tried >= most) {
                break;
            }
            let Some(place) = place_in(&sound, file, &mut chance, round % 2 == 1)? else { continue };
            let path = directory.join(tried.to_string());
            tried += 1;
            let found = start_on(&path, &sound, &place, &book)
                .map_err(|failure| Failure::Broken(format!("{place:?}: {failure}")))?;
            note(&format!("{place:?}: {found:?}"));
            met[found as usize] += 1;
            drop(fs::remove_dir_all(path));
        }
    }
    let [harmless, refused, told] = met;
    report(&format!(
        "{tried} damaged places: {refused} starts were refused, {told} told of it, for {harmless} it was harmless\n"
    ))
}

/// Makes a data directory with events that were delivered, that are owed and that are dead letters.
fn store(directory: &Path, book: &Arc<Book>) -> Result<Home, Failure> {
    let subscriber = Subscriber::start(|path, number, _| match path {
        "/dead" if number.is_multiple_of(50) => 400,
        _ => 202,
    })?;
    let home = Home::new(&directory.join("sound"), &triggers(&subscriber, true))?;
    let broker = Broker::start(&home, &Start::default())?;
    let producers = Producers::start(PRODUCERS, Duration::ZERO, book, broker.ingress);
    let stored = wait(|| Ok((book.acknowledged().len() >= EVENTS).then_some(())))?;
    producers.stop();
    ensure(stored.is_some(), || format!("only {} events were stored", book.acknowledged().len()))?;
    let done = wait(|| {
        let status = broker.status()?;
        Ok((trigger(&status, "done")?["pending"] == 0 && trigger(&status, "dead")?["pending"] == 0)
            .then_some(()))
    })?;
    ensure(done.is_some(), || "what is stored does not come to rest".to_owned())?;
    // After a clean stop everything is proven to be synced: nothing may pass for a torn tail.
    broker.stop()?;
    let (sound, said) = home.verify()?;
    ensure(sound, || format!("waypost log verify finds damage where there is none: {said}"))?;
    Ok(home)
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(Failure::io("reading the data directory"))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A place in a file that a change changes; none in one that is empty.
fn place_in(sound: &Home, file: &Path, chance: &mut Chance, page: bool) -> Result<Option<Place>, Failure> {
    let bytes = fs::read(file).map_err(Failure::io("reading a file"))?;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
    if used == 0 {
        return Ok(None);
    }
    let at = chance.below(used);
    let at = if page { at / PAGE as u64 * PAGE as u64 } else { at };
    let changes = bytes[at as usize..].iter().take(PAGE).any(|byte| *byte != 0);
    let file = file.strip_prefix(sound.data()).unwrap_or(file).to_owned();
    Ok((!page || changes).then_some(Place { file, at, page }))
}

fn start_on(directory: &Path, sound: &Home, place: &Place, book: &Book) -> Result<Met, Failure> {
    let subscriber = Subscriber::start(|_, _, _| 202)?;
    let home = Home::new(directory, &triggers(&subscriber, false))?;
    let copied = Command::new("cp").arg("-a").arg(sound.data()).arg(home.data()).status();
    ensure(copied.is_ok_and(|status| status.success()), || "the data cannot be copied".to_owned())?;
    harm(&home, place)?;
    let (verified_sound, verified) = home.verify()?;
    let started = Broker::try_start(&home, &Start::default())?;
    kills::no_panic(&home)?;
    let agree = |told: bool| {
        ensure(told != verified_sound, || {
            format!("waypost log verify says otherwise than the start: {verified}\n{}", home.last_lines())
        })
    };
    let broker = match started {
        Started::Ended(status) => {
            let log = home.log();
            let name =
                place.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            ensure(status.code().is_some_and(|code| code != 0), || format!("it ended with {status}: {log}"))?;
            // A version that is changed to another number is one that is not known.
            let clear = (log.contains("corrupt") && log.contains(&name)) || name == "VERSION";
            ensure(clear, || format!("the refusal does not tell what is corrupt: {log}"))?;
            agree(true)?;
            return Ok(Met::Refused);
        }
        Started::Ready(broker) => broker,
    };
    let acknowledged = book.acknowledged();
    let told = told_or_delivered(&broker, &home, &subscriber, &acknowledged)?;
    subscriber.unchanged()?;
    kills::no_panic(&home)?;
    let missing = subscriber.missing("/owed", &acknowledged);
    ensure(told || missing.is_empty(), || format!("owed events are missing in silence: {missing:?}"))?;
    if told {
        agree(true)?;
        accept(&broker)?;
    } else {
        // What could be mended is told in the log.
        ensure(verified_sound || home.log().contains("corrupt"), || {
            format!("only waypost log verify tells of damage: {verified}")
        })?;
    }
    broker.settled()?;
    broker.stop()?;
    subscriber.unchanged()?;
    kills::no_panic(&home)?;
    Ok(if told { Met::Told } else { Met::Harmless })
}

/// Waits until the damage is told or all that is owed has come. Whether it is told.
fn told_or_delivered(
    broker: &Broker,
    home: &Home,
    subscriber: &Subscriber,
    acknowledged: &[u64],
) -> Result<bool, Failure> {
    let mut last = Value::Null;
    let came = wait(|| {
        last = broker.status()?;
        if not_ready(&last).is_some_and(|message| message.contains("corrupt")) {
            return Ok(Some(true));
        }
        let open = trigger(&last, "owed")?["pending"] != 0 || trigger(&last, "owed")?["lagEvents"] != 0;
        Ok((!open && subscriber.missing("/owed", acknowledged).is_empty()).then_some(false))
    })?;
    came.ok_or_else(|| {
        let missing = subscriber.missing("/owed", acknowledged);
        Failure::Broken(format!("neither told nor delivered: {missing:?} {last}\n{}", home.last_lines()))
    })
}

/// What the status says of the broker, where it is not ready.
fn not_ready(status: &Value) -> Option<String> {
    let resources = status["resources"].as_array()?;
    let broker = resources.iter().find(|row| row["kind"] == "Broker" && row["ready"] == false)?;
    Some(broker["message"].to_string())
}

/// The broker refuses events until an operator accepts the damage.
fn accept(broker: &Broker) -> Result<(), Failure> {
    let post = |number| {
        let mut connection = Connection::open(broker.ingress).map_err(Failure::io("connecting"))?;
        connection.send(&event::request(broker.ingress, number)).map_err(Failure::io("sending an event"))
    };
    // Numbers that no other event has.
    let refused = post(EVENTS as u64 * 10)?;
    ensure(refused.status() == 503, || format!("a damaged broker answers {refused:?}"))?;
    let output = Command::new(binary::path())
        .args(["log", "accept-damage", "default/default", "--admin"])
        .arg(format!("http://{}", broker.admin))
        .output()
        .map_err(Failure::io("starting waypost log accept-damage"))?;
    ensure(output.status.success(), || format!("the damage cannot be accepted: {output:?}"))?;
    let taken = wait(|| {
        pause(Duration::from_millis(20));
        Ok((post(EVENTS as u64 * 10 + 1)?.status() == 202).then_some(()))
    })?;
    ensure(taken.is_some(), || "no event is taken after the damage was accepted".to_owned())?;
    wire::call(broker.admin, "GET", "/readyz").map(drop).map_err(Failure::io("asking for readiness"))
}

fn harm(home: &Home, place: &Place) -> Result<(), Failure> {
    let harming = || Failure::io("damaging a file");
    let path = home.data().join(&place.file);
    let file = fs::File::options().read(true).write(true).open(path).map_err(harming())?;
    if place.page {
        let length = file.metadata().map_err(harming())?.len();
        let zeros = vec![0; (length - place.at).min(PAGE as u64) as usize];
        return file.write_all_at(&zeros, place.at).map_err(harming());
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, place.at).map_err(harming())?;
    file.write_all_at(&[byte[0] ^ (1 << (place.at % 8))], place.at).map_err(harming())
}
