//! Loads the embedded log as the engine does, and says what it costs.
//!
//! ```text
//! cargo run --release -p waypost-log --example log_load -- append DIRECTORY TASKS SECONDS
//! cargo run --release -p waypost-log --example log_load -- fill DIRECTORY RECORDS
//! cargo run --release -p waypost-log --example log_load -- open DIRECTORY
//! cargo run --release -p waypost-log --example log_load -- drain DIRECTORY
//! cargo run --release -p waypost-log --example log_load -- idle DIRECTORY LOGS SECONDS
//! ```
//!
//! `append` measures a record's way: appended, committed, matched by one trigger, taken and settled. `fill` leaves
//! records of 1 KiB of which nothing is taken, and ends without closing; `open` says what a start on that costs, and
//! `drain` delivers all of it. `idle` opens many logs and does nothing.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
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

type Failure = Box<dyn Error + Send + Sync>;

const PAGE: ReadLimit = ReadLimit { records: 256, bytes: 1024 * 1024 };
/// The records of a batch of `fill`.
const BATCH: u64 = 64;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.as_slice() {
        ["append", directory, tasks, seconds] => {
            runtime.block_on(append(Path::new(directory), tasks.parse()?, seconds.parse()?))
        }
        ["fill", directory, records] => runtime.block_on(fill(Path::new(directory), records.parse()?)),
        ["open", directory] => open(Path::new(directory)).map(drop),
        ["drain", directory] => runtime.block_on(drain(Path::new(directory))),
        ["idle", directory, logs, seconds] => {
            runtime.block_on(idle(Path::new(directory), logs.parse()?, seconds.parse()?))
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
    let (hand_over, mut offered) = tokio::sync::mpsc::unbounded_channel::<Vec<Arc<Entry>>>();
    let reader = Arc::clone(&log);
    let reading = tokio::spawn(async move {
        loop {
            let from = reader.matched(0);
            reader.wait_for(0, from).await;
            let entries = reader.read(0, from, ReadLimit { records: 256, bytes: usize::MAX }).await?;
            let Some(last) = entries.last() else { return Ok::<_, Failure>(()) };
            reader.record_matches(&matches(number, from, last.position.offset + 1))?;
            let _ = hand_over.send(entries);
        }
    });
    let ledger = log.ledger(0, number);
    let settling = tokio::spawn(async move {
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
    reading.await??;
    settling.await??;
    println!("counts after close: {:?}", log.ledger(0, number).counts());
    Ok(())
}

fn delivered() -> Attempt {
    let outcome = AttemptOutcome::Delivered { status: Some(202) };
    Attempt { number: 1, started: Timestamp(1), ended: Timestamp(2), outcome }
}

async fn fill(directory: &Path, records: u64) -> Result<(), Failure> {
    let store = store(directory)?;
    let log = open_log(&store, "broker")?;
    let number = trigger(&*log).await?;
    let mut next = log.bounds(0).end;
    while next < records {
        let mut commits = Vec::new();
        for from in (next..records.min(next + 64 * BATCH)).step_by(BATCH as usize) {
            let all: Result<Vec<_>, _> = (from..records.min(from + BATCH)).map(record).collect();
            commits.push(log.append(Batch::of(all?))?);
        }
        for commit in commits {
            commit.await?;
        }
        let end = log.bounds(0).end;
        log.record_matches(&matches(number, next, end))?;
        next = end;
    }
    // Long enough for what waits to be written; then as a process that is killed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("{next} records, {} MiB on disk", disk_usage(directory)? / 1024 / 1024);
    std::process::exit(0);
}

fn open(directory: &Path) -> Result<(Arc<EmbeddedStore>, Arc<dyn Log>), Failure> {
    let started = Instant::now();
    let store = store(directory)?;
    let opened = started.elapsed();
    let log = open_log(&store, "broker")?;
    println!(
        "store {opened:?}, log {:?}: {:?}, {} MiB resident, {} MiB at most",
        started.elapsed().saturating_sub(opened),
        log.bounds(0),
        memory("VmRSS")? / 1024,
        memory("VmHWM")? / 1024
    );
    Ok((store, log))
}

async fn drain(directory: &Path) -> Result<(), Failure> {
    let (store, log) = open(directory)?;
    let number = trigger(&*log).await?;
    let ledger = log.ledger(0, number);
    let (before, started) = (Cost::now()?, Instant::now());
    let mut delivered_records = 0_u64;
    loop {
        let owed = log.owed(0, number, ledger.next(), PAGE).await?;
        if owed.entries.is_empty() {
            break;
        }
        for entry in owed.entries.iter().filter(|entry| ledger.take(entry)) {
            ledger.settle(entry.position.offset, Settlement::Delivered, Some(delivered()))?;
            delivered_records += 1;
            if delivered_records % 2_000_000 == 0 {
                println!("{delivered_records} delivered, {} MiB resident", memory("VmRSS")? / 1024);
            }
        }
    }
    let (elapsed, cost) = (started.elapsed(), before.until_now()?);
    println!(
        "{delivered_records} delivered in {elapsed:?}, {:.2} us CPU each; {} MiB resident, {} MiB at most; {:?}",
        cost.cpu.as_secs_f64() * 1e6 / delivered_records.max(1) as f64,
        memory("VmRSS")? / 1024,
        memory("VmHWM")? / 1024,
        ledger.counts()
    );
    store.close().await;
    Ok(())
}

async fn idle(directory: &Path, logs: u64, seconds: u64) -> Result<(), Failure> {
    let store = store(directory)?;
    let mut all = Vec::new();
    for index in 0..logs {
        let log = open_log(&store, &format!("broker-{index}"))?;
        let number = trigger(&*log).await?;
        log.append(Batch::of([record(index)?]))?.await?;
        log.record_matches(&matches(number, 0, 1))?;
        let ledger = log.ledger(0, number);
        for entry in log.owed(0, number, ledger.next(), PAGE).await?.entries {
            ledger.take(&entry);
            ledger.settle(entry.position.offset, Settlement::Delivered, Some(delivered()))?;
        }
        all.push(log);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = Cost::now()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cost = before.until_now()?;
    println!(
        "{logs} idle logs: {} MiB on disk, {} MiB resident; in {seconds} s {:?} CPU, {} bytes written",
        disk_usage(directory)? / 1024 / 1024,
        memory("VmRSS")? / 1024,
        cost.cpu,
        cost.written
    );
    store.close().await;
    Ok(())
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

fn memory(what: &str) -> Result<u64, Failure> {
    field(&fs::read_to_string("/proc/self/status")?, what)
}

fn field(text: &str, name: &str) -> Result<u64, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("the field is missing")?;
    Ok(number.parse()?)
}

/// The bytes that a directory takes on the disk.
fn disk_usage(directory: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += entry.metadata()?.blocks() * 512;
        if entry.file_type()?.is_dir() {
            bytes += disk_usage(&entry.path())?;
        }
    }
    Ok(bytes)
}
