//! How long it takes to explain events of a log, wherever they stand in it.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::chance::Chance;
use crate::failure::{Failure, ensure};
use crate::wire::Connection;

/// How an event is asked for.
const WAYS: [&str; 2] = ["by position", "by source and id"];

/// How long explanations took, of one way to ask for them.
pub(crate) struct Explained {
    pub(crate) way: &'static str,
    /// In the order in which they were asked for; never empty.
    taken: Vec<Duration>,
}

impl Explained {
    pub(crate) fn longest(&self) -> Duration {
        self.taken.iter().copied().max().unwrap_or_default()
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbered: Vec<_> = (1..).zip(&self.taken).map(|(number, taken)| (taken, number)).collect();
        numbered.sort_unstable();
        write!(
            f,
            "{} explained {}: median {:.1?}, longest",
            self.taken.len(),
            self.way,
            numbered[numbered.len() / 2].0
        )?;
        // Whether it was the first, for which all may have to come from the disk, tells why.
        numbered
            .iter()
            .rev()
            .take(3)
            .try_for_each(|(taken, number)| write!(f, " {taken:.1?} (number {number})"))
    }
}

/// Asks for events by position and by source and id, half of the times each. Each answer must tell of the event that was
/// asked for, and that the trigger `all` has it.
pub(crate) fn explained(admin: SocketAddr, events: u64, times: u64) -> Result<Vec<Explained>, Failure> {
    let mut connection = Connection::open(admin).map_err(Failure::io("connecting"))?;
    let mut chance = Chance::new(events);
    let mut all: Vec<_> = WAYS.map(|way| Explained { way, taken: Vec::new() }).into();
    for (of_way, _) in [0, 1].into_iter().cycle().zip(0..times) {
        let number = chance.below(events);
        // One request at a time filled the log, so that an event stands at its number.
        let record = match of_way {
            0 => format!("position=0:{number}"),
            _ => format!("source=%2Fcrash&id={number}"),
        };
        let request = format!(
            "GET /api/v1/explain?broker=default&{record} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 0\r\n\r\n"
        );
        let asking = Instant::now();
        let answer = connection.send(request.as_bytes()).map_err(Failure::io("asking for an explanation"))?;
        all[of_way].taken.push(asking.elapsed());
        let told = answer.json();
        let trigger = &told["triggers"][0];
        let right = told["event"]["id"].as_str().and_then(|id| id.parse().ok()) == Some(number)
            && trigger["matched"] == true
            && trigger["deliveries"][0]["state"] == "delivered";
        ensure(right, || format!("event {number} by {record} is told wrongly: {told:#}"))?;
    }
    all.retain(|way| !way.taken.is_empty());
    Ok(all)
}
