//! Events at a constant rate, each for one of some number of triggers, whose subscribers are all behind one host and port
//! that refuses connections. Delivery is what a trigger has that says nothing about it: ten retries with exponential
//! backoff from 0.2 s, so that none is given up within a minute.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use serde::Serialize;

use super::Settings;
use super::manifests::manifests;
use super::pair::Column;
use crate::failure::Failure;
use crate::generate::Generated;
use crate::measure::progress;
use crate::procfs;
use crate::stage::{Generator, INGRESS_PATH, Load, Log, Stage, Waypost};

/// The metric that counts attempts without success.
const FAILED_ATTEMPTS: &str = "waypost_attempts_failed_total";

/// One round.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Down {
    pub(super) generated: Generated,
    /// CPU time of the broker from the first event to the last answer.
    pub(super) cpu_microseconds: u64,
    /// How many deliveries were attempted meanwhile, all in vain.
    pub(super) attempts: u64,
    pub(super) peak_kibibytes: u64,
    /// The part (0 to 1) of the machine's CPU time that went to anything else meanwhile.
    pub(super) others_share: f64,
}

impl Down {
    pub(super) fn cpu_microseconds_per_event(&self) -> f64 {
        self.cpu_microseconds as f64 / self.generated.accepted as f64
    }

    fn accepted_per_second(&self) -> f64 {
        self.generated.accepted as f64 / self.generated.seconds
    }
}

pub(super) const COLUMNS: [Column<Down>; 8] = [
    Column { heading: "host down: accepted/s", decimals: 0, figure: Down::accepted_per_second },
    Column {
        heading: "refused",
        decimals: 0,
        figure: |down| down.generated.refused.values().sum::<u64>() as f64,
    },
    Column { heading: "unanswered", decimals: 0, figure: |down| down.generated.unanswered as f64 },
    Column { heading: "attempts", decimals: 0, figure: |down| down.attempts as f64 },
    Column { heading: "CPU s", decimals: 1, figure: |down| down.cpu_microseconds as f64 / 1e6 },
    Column { heading: "CPU us per event", decimals: 1, figure: Down::cpu_microseconds_per_event },
    Column { heading: "peak MiB", decimals: 0, figure: |down| down.peak_kibibytes as f64 / 1024.0 },
    Column { heading: "% CPU of others", decimals: 0, figure: |down| down.others_share * 100.0 },
];

/// A host and port that refuse connections: bound, so that it is nobody else's, but never listened on.
struct Refusing {
    _socket: OwnedFd,
    address: SocketAddr,
}

impl Refusing {
    fn new() -> Result<Self, Failure> {
        let failed = || Failure::os("binding a port that refuses connections");
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).map_err(failed())?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(failed())?;
        let address = getsockname(&socket).map_err(failed())?;
        let address = address.try_into().map_err(failed())?;
        Ok(Self { _socket: socket, address })
    }
}

pub(super) fn down(stage: &Stage, triggers: u32, settings: Settings) -> Result<Down, Failure> {
    let host = Refusing::new()?;
    let text = manifests(triggers, |number| format!("http://{}/{number}", host.address));
    let waypost = Waypost::start(stage, Log::Durable, &text)?;
    drop(text);
    let (cpu_before, machine_before) = (waypost.cpu_microseconds()?, procfs::machine()?);
    let load = Load {
        seconds: settings.down_seconds,
        rate: Some(settings.down_rate),
        run: 1,
        types: Some(triggers),
    };
    let connections = u64::from(stage.connections);
    let generated = Generator::start(stage, waypost.ingress, INGRESS_PATH, load, connections)?.ended()?;
    let cpu_microseconds = waypost.cpu_microseconds()? - cpu_before;
    let machine = procfs::machine()?.since(machine_before);
    if generated.accepted == 0 {
        let detail = format!("refused {:?}, unanswered {}", generated.refused, generated.unanswered);
        return Err(Failure::NothingAccepted { case: format!("{triggers} triggers, host down"), detail });
    }
    waypost.wrote(generated.accepted)?;
    let others = machine.busy as f64 - (cpu_microseconds + generated.cpu_microseconds) as f64;
    let down = Down {
        others_share: (others / machine.total.max(1) as f64).max(0.0),
        attempts: waypost.metric(FAILED_ATTEMPTS)?,
        peak_kibibytes: waypost.resident_peak_kibibytes()?,
        generated,
        cpu_microseconds,
    };
    progress(&format!(
        "{triggers} triggers behind a host that is down: {:.0} events/s accepted, {} attempts, {:.1} s of CPU",
        down.accepted_per_second(),
        down.attempts,
        down.cpu_microseconds as f64 / 1e6
    ));
    Ok(down)
}
