//! Loads one log as the engine does, without it and without HTTP, and says what a record costs: appended, committed,
//! matched by one trigger, taken and settled. What a whole process costs is measured by `tests/bench`.
//!
//! ```text
//! cargo run --release -p waypost-log --example log_load -- DIRECTORY TASKS SECONDS
//! ```

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::task::JoinSet;
use waypost_core::Event;
use waypost_core::manifest::ResourceName;
use waypost_log::embedded::{EmbeddedOptions, EmbeddedStore, Retention};
use waypost_log::{
    Attempt, AttemptOutcome, Batch, Clock, Entry, Log, MatchBatch, Metadata, PlanRecord, PlanVersion,
    ReadLimit, Record, Scope, Settlement, Timestamp, TriggerNumber,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The reads that wait to be settled.
const HANDED_OVER: usize = 1024;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.as_slice() {
        [directory, tasks, seconds] => {
            runtime.block_on(append(Path::new(directory), tasks.parse()?, seconds.parse()?))
        }
        _ => Err("see the head of the example".into()),
    }
}

fn store(directory: &Path) -> Result<Arc<EmbeddedStore>, Failure> {
    let limit = Some(64 * 1024 * 1024 * 1024);
    Ok(EmbeddedStore::open(EmbeddedOptions { limit, ..EmbeddedOptions::new(directory) }, Clock::system())?)
}

fn open_log(store: &EmbeddedStore, name: &str) -> Result<Arc<dyn Log>, Failure> {
    let retention = Retention { age: Duration::MAX, size: u64::MAX };
    Ok(store.open_log(&ResourceName::new("load", name), retention)?)
}

async fn trigger(log: &dyn Log) -> Result<TriggerNumber, Failure> {
    let name = ResourceName::new("load", "trigger");
    let number = log.trigger(&name);
    if log.plans().is_empty() {
        let effective = vec![log.bounds(0).end];
        let (triggers, body) = (vec![(number, name)], "plan".into());
        log.record_plan(PlanRecord { version: PlanVersion(1), effective, triggers, body }).await?;
    }
    Ok(number)
}

fn record(number: u64) -> Result<Record, Failure> {
    let event = Event::builder(number.to_string(), "/load", "load.type").data(vec![b'x'; 1024]).build()?;
    Ok(Record { metadata: Metadata::default(), event })
}

fn matches(trigger: TriggerNumber, from: u64, to: u64) -> MatchBatch {
    let matches = (from..to).map(|offset| (offset, SmallVec::from_slice(&[trigger]))).collect();
    MatchBatch { partition: 0, from, to, version: PlanVersion(1), scope: Scope::All, matches }
}

async fn append(directory: &Path, tasks: u64, seconds: u64) -> Result<(), Failure> {
    let store = store(directory)?;
    let log = open_log(&store, "broker")?;
    let number = trigger(&*log).await?;
    let (appended, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let before = Cost::now()?;
    let started = Instant::now();
    let mut producers = JoinSet::new();
    for task in 0..tasks {
        let (log, appended, stop) = (Arc::clone(&log), Arc::clone(&appended), Arc::clone(&stop));
        producers.spawn(async move {
            let mut next = task << 40;
            while !stop.load(Ordering::Relaxed) {
                log.append(Batch::of([record(next)?]))?.await?;
                appended.fetch_add(1, Ordering::Relaxed);
                next += 1;
            }
            Ok::<_, Failure>(())
        });
    }
    let (hand_over, mut offered) = tokio::sync::mpsc::channel::<Vec<Arc<Entry>>>(HANDED_OVER);
    let reader = Arc::clone(&log);
    let mut consumers = JoinSet::new();
    consumers.spawn(async move {
        loop {
            let from = reader.matched(0);
            reader.wait_for(0, from).await;
            let entries = reader.read(0, from, ReadLimit { records: 256, bytes: usize::MAX }).await?;
            let Some(last) = entries.last() else { return Ok::<_, Failure>(()) };
            reader.record_matches(&matches(number, from, last.position.offset + 1))?;
            hand_over.send(entries).await?;
        }
    });
    let ledger = log.ledger(0, number);
    consumers.spawn(async move {
        while let Some(entries) = offered.recv().await {
            for entry in entries.iter().filter(|entry| ledger.take(entry)) {
                ledger.settle(entry.position.offset, Settlement::Delivered, Some(delivered()))?;
            }
        }
        Ok::<_, Failure>(())
    });
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (records, elapsed, cost) = (appended.load(Ordering::Relaxed), started.elapsed(), before.until_now()?);
    stop.store(true, Ordering::Relaxed);
    while let Some(producer) = producers.join_next().await {
        producer??;
    }
    println!(
        "{tasks} tasks: {:.0} records/s, {:.2} us CPU and {:.3} voluntary switches a record, {:.1} KiB written a record",
        records as f64 / elapsed.as_secs_f64(),
        cost.cpu.as_secs_f64() * 1e6 / records as f64,
        cost.switches as f64 / records as f64,
        cost.written as f64 / 1024.0 / records as f64,
    );
    for (name, cpu) in &cost.threads {
        println!("  {name:<18} {:.2} us a record", cpu.as_secs_f64() * 1e6 / records as f64);
    }
    while log.matched(0) < log.bounds(0).end || log.ledger(0, number).counts().pending > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await;
    while let Some(consumer) = consumers.join_next().await {
        consumer??;
    }
    println!("counts after close: {:?}", log.ledger(0, number).counts());
    Ok(())
}

fn delivered() -> Attempt {
    let outcome = AttemptOutcome::Delivered { status: Some(202) };
    Attempt { number: 1, started: Timestamp(1), ended: Timestamp(2), outcome }
}

/// What the process has used so far.
struct Cost {
    cpu: Duration,
    switches: u64,
    written: u64,
    threads: BTreeMap<String, Duration>,
}

impl Cost {
    fn now() -> Result<Self, Failure> {
        let mut cost = Self { cpu: Duration::ZERO, switches: 0, written: 0, threads: BTreeMap::new() };
        for thread in fs::read_dir("/proc/self/task")? {
            let thread = thread?.path();
            let name = fs::read_to_string(thread.join("comm"))?.trim().to_owned();
            let nanoseconds = fs::read_to_string(thread.join("schedstat"))?;
            let nanoseconds = nanoseconds.split(' ').next().unwrap_or("0").parse()?;
            *cost.threads.entry(name).or_default() += Duration::from_nanos(nanoseconds);
            cost.switches += field(&fs::read_to_string(thread.join("status"))?, "voluntary_ctxt_switches")?;
        }
        cost.cpu = cost.threads.values().sum();
        cost.written = field(&fs::read_to_string("/proc/self/io")?, "write_bytes")?;
        Ok(cost)
    }

    fn until_now(&self) -> Result<Self, Failure> {
        let mut now = Self::now()?;
        for (name, cpu) in &mut now.threads {
            *cpu = cpu.saturating_sub(self.threads.get(name).copied().unwrap_or_default());
        }
        now.cpu = now.cpu.saturating_sub(self.cpu);
        now.switches = now.switches.saturating_sub(self.switches);
        now.written -= self.written;
        Ok(now)
    }
}

fn field(text: &str, name: &str) -> Result<u64, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("the field is missing")?;
    Ok(number.parse()?)
}
