//! A destination that is away while very many events arrive, with `holdWhenDown` and without.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::backlog::{fill, peak};
use crate::broker::{Broker, Home, Start, pause, trigger};
use crate::failure::{Failure, ensure};
use crate::manifests::{self, Trigger};
use crate::subscriber::Subscriber;
use crate::{kills, note, report, wire};

/// How long deliveries may make no progress: longer than the longest pause between two probes.
const STANDSTILL: Duration = Duration::from_secs(180);
/// How long each of the first requests takes when the destination is back, so that those at once are seen.
const SLOW: Duration = Duration::from_millis(2);
/// So many are the first.
const FIRST: u64 = 500;
/// A window that has doubled so often is wider than any.
const WIDEST: u64 = 20;
/// The most requests that may come to the destination while it is away and held.
const PROBES: u64 = 1_000;
/// The dead letters whose attempts are looked at.
const LOOKED_AT: u64 = 1_000;

/// Arguments of `away`.
#[derive(Debug, Args)]
pub(crate) struct Away {
    /// How many events arrive meanwhile.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
}

/// What came to the held path.
#[derive(Debug, Default)]
struct Held {
    back: AtomicBool,
    /// Requests while it was away.
    probes: AtomicU64,
    at_once: AtomicU64,
    taken: AtomicU64,
    /// How far the requests at once were above the window that those taken before have opened.
    herd: AtomicU64,
}

impl Held {
    fn answer(&self) -> u16 {
        if !self.back.load(Ordering::SeqCst) {
            self.probes.fetch_add(1, Ordering::SeqCst);
            return 503;
        }
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        let taken = self.taken.load(Ordering::SeqCst);
        // The window begins at one and doubles with each answer.
        let window = 1_u64 << taken.min(WIDEST);
        self.herd.fetch_max(at_once.saturating_sub(window), Ordering::SeqCst);
        if taken < FIRST {
            pause(SLOW);
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        202
    }
}

/// Has events arrive for a destination that is away, brings it back, and looks that each trigger did what it says.
pub(crate) fn away(arguments: &Away, directory: &Path) -> Result<(), Failure> {
    let events = arguments.events;
    let held = Arc::new(Held::default());
    let answers = Arc::clone(&held);
    let subscriber = Subscriber::start(move |path, _, _| match path {
        "/held" => answers.answer(),
        "/lost" => 503,
        _ => 202,
    })?;
    let quick = |more: Value| {
        let mut delivery = json!({"retry": 1, "backoffPolicy": "constant", "backoffDelay": "PT0.1S"});
        if let (Some(into), Value::Object(more)) = (delivery.as_object_mut(), more) {
            into.extend(more);
        }
        delivery
    };
    let row =
        |name, delivery| Trigger { name, url: subscriber.url(&format!("/{name}")), delivery, paused: false };
    let triggers = [
        row("held", quick(json!({"holdWhenDown": true}))),
        row("lost", quick(json!({}))),
        row("well", quick(json!({}))),
    ];
    let home = Home::new(directory, &manifests::broker(&triggers))?;
    let broker = Broker::start(&home, &Start::default())?;
    let filling = Instant::now();
    fill(&broker, events)?;
    let filled = filling.elapsed();
    settled(&broker, "well", "delivered", events)?;
    settled(&broker, "lost", "deadLettersStored", events)?;
    let (probes, memory) = (held.probes.load(Ordering::SeqCst), peak(&broker)?);
    ensure(probes <= PROBES, || format!("{probes} requests came to a destination that is away"))?;
    let complete = each_has_its_attempts(&broker, events)?;

    held.back.store(true, Ordering::SeqCst);
    let draining = Instant::now();
    settled(&broker, "held", "delivered", events)?;
    let drained = draining.elapsed();
    let herd = held.herd.load(Ordering::SeqCst);
    ensure(herd == 0, || format!("{herd} more requests at once than the answers before have made room for"))?;
    let missing = subscriber.missing("/held", &(0..events).collect::<Vec<_>>());
    ensure(missing.is_empty(), || format!("{} of {events} were not delivered", missing.len()))?;
    broker.recount()?;
    broker.stop()?;
    kills::no_panic(&home)?;
    report(&format!(
        "{events} events for a destination that was away: taken in {:.1} s at {memory} MB resident, {probes} requests \
         meanwhile; back, all were delivered in {:.1} s, never more at once than twice as many with each answer; without \
         holdWhenDown each is a dead letter with the number of its attempts and the last of them, {complete} of {} that \
         were looked at with all of them\n",
        filled.as_secs_f64(),
        drained.as_secs_f64(),
        LOOKED_AT.min(events)
    ))
}

/// Waits until a trigger has so many events in this state.
fn settled(broker: &Broker, name: &str, state: &str, wanted: u64) -> Result<(), Failure> {
    let (mut before, mut since, mut told) = (0, Instant::now(), Instant::now());
    loop {
        let status = broker.status()?;
        let row = trigger(&status, name)?;
        let count = row[state].as_u64().unwrap_or_default();
        if count >= wanted {
            return Ok(());
        }
        if count > before {
            (before, since) = (count, Instant::now());
        }
        ensure(since.elapsed() < STANDSTILL, || format!("{name} stands still at {count} {state}: {row}"))?;
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            note(&format!("{name}: {count} {state}, at most {} MB resident", peak(broker)?));
        }
        pause(Duration::from_millis(200));
    }
}

/// Looks at some dead letters from all over the store: each has its event, the number of its attempts, and the last of
/// them. Returns how many have all of them.
fn each_has_its_attempts(broker: &Broker, events: u64) -> Result<u64, Failure> {
    let mut complete = 0;
    for number in 0..LOOKED_AT.min(events) {
        let id = 1 + number * (events / LOOKED_AT.min(events));
        let path = format!("/api/v1/dead-letters/default.default.{id}");
        let answer =
            wire::call(broker.admin, "GET", &path).map_err(Failure::io("asking for a dead letter"))?;
        let letter = answer.json();
        let attempts = letter["attempts"].as_array().map_or(&[][..], Vec::as_slice);
        let last = attempts.last().is_some_and(|last| last["number"] == 2 && last["status"] == 503);
        ensure(letter["attemptsMade"] == 2 && last && letter["event"]["id"].is_string(), || {
            format!("dead letter {id} has not its event, or not its last attempt: {letter:#}")
        })?;
        complete += u64::from(attempts.len() == 2);
    }
    Ok(complete)
}
