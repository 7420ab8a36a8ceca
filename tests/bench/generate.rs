//! The generator: one thread, plain sockets, one request under way per connection.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use clap::Args;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::retry_on_intr;
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::connection::{Connection, Received};
use crate::failure::Failure;
use crate::histogram::{Histogram, Quantiles};
use crate::request::Request;
use crate::{procfs, tally};

/// How long a connection does not send after an answer that is no success.
const REST_NANOSECONDS: u64 = 5_000_000;
/// How long answers may take after the last request.
const LAST_ANSWERS_NANOSECONDS: u64 = 10 * SECOND;
/// The most answers that one poll brings.
const POLL_EVENTS: usize = 256;

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The server that takes the events.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,

    /// The path of the requests.
    #[arg(long, default_value = "/0")]
    path: String,

    /// The number of connections; each has one request under way.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,

    /// How long it sends.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// Events per second, sent at their time whether or not earlier ones were answered (as long as there is a free
    /// connection); without it each connection sends as soon as it has an answer.
    #[arg(long)]
    rate: Option<f64>,

    /// The number of the run, which is part of the events' ids.
    #[arg(long, default_value_t = 0)]
    run: u32,

    /// Give the events this many types in turn; without it all have one.
    #[arg(long)]
    types: Option<u32>,
}

/// What the generator tells when it has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Generated {
    /// Answers of 2xx.
    pub(crate) accepted: u64,
    /// Other answers, by code.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Requests without an answer, and events that were due but never sent.
    pub(crate) unanswered: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// CPU time of this process, user and system.
    pub(crate) cpu_microseconds: u64,
    /// From the time at which an event was due to be sent until the answer was there.
    pub(crate) acknowledged: Quantiles,
}

/// When the next event is due.
#[derive(Debug)]
enum Pace {
    /// As soon as a connection is free.
    Closed,
    /// At its time, in nanoseconds from one to the next.
    Open { interval: f64 },
}

#[derive(Debug)]
struct Generator {
    to: SocketAddr,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// When the event that is under way on each connection was due.
    due: Vec<u64>,
    idle: Vec<usize>,
    /// Connections that wait after a refusal, and until when; the first has the shortest wait left.
    resting: VecDeque<(u64, usize)>,
    request: Request,
    pace: Pace,
    run: u32,
    start: u64,
    end: u64,
    sent: u32,
    under_way: usize,
    accepted: u64,
    refused: BTreeMap<u16, u64>,
    unanswered: u64,
    latency: Histogram,
}

/// Sends until the time is over, and prints [`Generated`].
pub(crate) fn generate(arguments: &Generate) -> Result<(), Failure> {
    // The kernel may delay timeouts by this much to save wake-ups: too much for a constant rate.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))
        .map_err(Failure::os("setting the timer"))?;
    let mut generator = Generator::new(arguments)?;
    generator.send_all()?;
    let told = generator.ended()?;
    let line = serde_json::to_string(&told).expect("numbers can be written as JSON");
    crate::print(&format!("{line}\n"))
}

impl Generator {
    fn new(arguments: &Generate) -> Result<Self, Failure> {
        let connections = usize::from(arguments.connections);
        let mut generator = Self {
            to: arguments.to,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Failure::os("making a poll"))?,
            connections: Vec::with_capacity(connections),
            due: vec![0; connections],
            idle: (0..connections).rev().collect(),
            resting: VecDeque::with_capacity(connections),
            request: Request::new(arguments.to, &arguments.path, arguments.types),
            pace: arguments.rate.map_or(Pace::Closed, |rate| Pace::Open { interval: SECOND as f64 / rate }),
            run: arguments.run,
            start: 0,
            end: 0,
            sent: 0,
            under_way: 0,
            accepted: 0,
            refused: BTreeMap::new(),
            unanswered: 0,
            latency: Histogram::new(),
        };
        for index in 0..connections {
            let connection = generator.connect(index)?;
            generator.connections.push(connection);
        }
        generator.start = clock::now();
        generator.end = generator.start + (arguments.seconds * SECOND as f64) as u64;
        Ok(generator)
    }

    fn connect(&self, index: usize) -> Result<Connection, Failure> {
        let connection =
            Connection::open(self.to).map_err(Failure::io(format!("connecting to {}", self.to)))?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, &connection, EventData::new_u64(index as u64), flags)
            .map_err(Failure::os("polling a connection"))?;
        Ok(connection)
    }

    fn send_all(&mut self) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(POLL_EVENTS);
        loop {
            let now = clock::now();
            self.dispatch(now)?;
            let more = self.next_due(now).is_some();
            if (!more && self.under_way == 0) || now > self.end + LAST_ANSWERS_NANOSECONDS {
                return Ok(());
            }
            events.clear();
            retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&self.timeout(now))))
                .map_err(Failure::os("polling the connections"))?;
            for event in &events {
                self.answer(event.data.u64() as usize)?;
            }
        }
    }

    /// When the next event is to be sent; none once the time is over.
    fn next_due(&self, now: u64) -> Option<u64> {
        let due = match self.pace {
            Pace::Closed => now,
            Pace::Open { interval } => self.start + (f64::from(self.sent) * interval) as u64,
        };
        (due < self.end).then_some(due)
    }

    /// Sends what is due, as long as there are free connections.
    fn dispatch(&mut self, now: u64) -> Result<(), Failure> {
        while let Some((_, index)) = self.resting.pop_front_if(|(until, _)| *until <= now) {
            self.idle.push(index);
        }
        while !self.idle.is_empty()
            && let Some(due) = self.next_due(now)
            && due <= now
            && let Some(index) = self.idle.pop()
        {
            let bytes = self.request.event(tally::number(self.run, self.sent), due);
            self.connections[index].send(bytes).map_err(Failure::io("sending an event"))?;
            self.due[index] = due;
            self.sent += 1;
            self.under_way += 1;
        }
        Ok(())
    }

    /// How long there is nothing to do but to wait for answers.
    fn timeout(&self, now: u64) -> Timespec {
        let resting = self.resting.front().map(|(until, _)| *until);
        let due = if self.idle.is_empty() { None } else { self.next_due(now) };
        let last = self.end + LAST_ANSWERS_NANOSECONDS;
        let wait = [resting, due].into_iter().flatten().min().unwrap_or(last).saturating_sub(now);
        Timespec { tv_sec: (wait / SECOND).cast_signed(), tv_nsec: (wait % SECOND).cast_signed() }
    }

    fn answer(&mut self, index: usize) -> Result<(), Failure> {
        let received = self.connections[index].receive().map_err(Failure::io("reading an answer"))?;
        let status = match received {
            Received::Nothing => return Ok(()),
            Received::Message(message) => message.status(),
            Received::Closed => return self.closed(index),
        };
        let now = clock::now();
        self.under_way -= 1;
        if (200..300).contains(&status) {
            self.accepted += 1;
            self.latency.record(now.saturating_sub(self.due[index]));
            self.due[index] = 0;
            self.idle.push(index);
        } else {
            *self.refused.entry(status).or_default() += 1;
            self.due[index] = 0;
            self.resting.push_back((now + REST_NANOSECONDS, index));
        }
        self.dispatch(now)
    }

    /// A server may close a connection between requests, and does so after some refusals.
    fn closed(&mut self, index: usize) -> Result<(), Failure> {
        let was_under_way = self.due[index] != 0;
        // The old one is replaced first, so that its descriptor leaves the poll.
        self.connections[index] = self.connect(index)?;
        if was_under_way {
            self.unanswered += 1;
            self.under_way -= 1;
            self.due[index] = 0;
            self.resting.push_back((clock::now() + REST_NANOSECONDS, index));
        }
        Ok(())
    }

    fn ended(self) -> Result<Generated, Failure> {
        let never_sent = match self.pace {
            Pace::Closed => 0,
            Pace::Open { interval } => {
                let planned = ((self.end - self.start) as f64 / interval).ceil() as u64;
                planned.saturating_sub(u64::from(self.sent))
            }
        };
        Ok(Generated {
            accepted: self.accepted,
            refused: self.refused,
            unanswered: self.unanswered + self.under_way as u64 + never_sent,
            seconds: (clock::now() - self.start) as f64 / SECOND as f64,
            cpu_microseconds: procfs::cpu_microseconds(std::process::id())?,
            acknowledged: self.latency.quantiles(),
        })
    }
}
