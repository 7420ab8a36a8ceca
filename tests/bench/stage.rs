//! The processes of a measurement: started, spoken to and ended here.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::failure::Failure;
use crate::generate::Generated;
use crate::procfs;
use crate::request::DATA_BYTES;
use crate::tally::Received;

/// The path that takes events of the broker in [`manifests`].
pub(crate) const INGRESS_PATH: &str = "/bench/default";
/// How long a start may take before it counts as failed.
const START_LIMIT_SECONDS: u64 = 60;
/// How often it is asked whether the broker is ready: the precision of start-up times.
const READY_INTERVAL: Duration = Duration::from_micros(500);
/// How often it is asked whether all deliveries have come.
const DELIVERY_INTERVAL: Duration = Duration::from_millis(20);
/// How long no delivery may come before the rest counts as lost.
const DELIVERY_LIMIT_SECONDS: u64 = 20;
/// How much of a log is shown.
const LOG_TAIL_BYTES: usize = 2_000;
/// The size of a block in what `stat` tells.
const BLOCK_BYTES: u64 = 512;

/// Where a broker keeps its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Log {
    Memory,
    Durable,
}

impl Log {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
        }
    }
}

/// What all parts of a measurement need to start processes.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The binary that is measured.
    pub(crate) waypost: PathBuf,
    /// This binary.
    pub(crate) bench: PathBuf,
    /// Data directories go here, each broker's into one of its own.
    pub(crate) scratch: PathBuf,
    pub(crate) connections: u16,
    /// Whether generator and subscriber are scheduled as batch work.
    pub(crate) batch: bool,
}

impl Stage {
    /// Runs this binary beside the broker. As batch work it does not interrupt the broker whenever a byte comes for it:
    /// it stands for other machines, which never do.
    fn beside(&self) -> Command {
        if !self.batch {
            return Command::new(&self.bench);
        }
        let mut command = Command::new("chrt");
        command.args(["--batch", "0"]).arg(&self.bench);
        command
    }
}

/// Whether processes can be started as batch work.
pub(crate) fn can_batch() -> bool {
    Command::new("chrt").args(["--batch", "0", "true"]).status().is_ok_and(|status| status.success())
}

/// How to generate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) seconds: f64,
    /// Events per second; as fast as possible without it.
    pub(crate) rate: Option<f64>,
    /// The number of the run, new for each in one broker.
    pub(crate) run: u32,
    /// How many types of events come in turn; all events have one without it.
    pub(crate) types: Option<u32>,
}

/// A child that is ended with its owner.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.spawn().map(Self).map_err(Failure::io(format!("starting {name}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A subscriber in a process of its own.
#[derive(Debug)]
pub(crate) struct Subscriber {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Subscriber {
    /// Starts one that answers as the arguments say.
    pub(crate) fn start(stage: &Stage, arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = stage.beside();
        command.arg("subscribe").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let input = process.0.stdin.take().expect("the input is piped");
        let mut output = BufReader::new(process.0.stdout.take().expect("the output is piped"));
        let first: serde_json::Value = read_line("the subscriber", &mut output)?;
        let address = first["listening"].as_str().and_then(|address| address.parse().ok());
        let address =
            address.ok_or_else(|| Failure::Protocol { what: "the subscriber", detail: first.to_string() })?;
        Ok(Self { process, input, output, address })
    }

    fn ask<T: DeserializeOwned>(&mut self, command: &str) -> Result<T, Failure> {
        writeln!(self.input, "{command}").map_err(Failure::io("asking the subscriber"))?;
        read_line("the subscriber", &mut self.output)
    }

    /// Takes connections from now on, where it was started as one that is away.
    pub(crate) fn listen(&mut self) -> Result<(), Failure> {
        self.ask::<bool>("listen").map(drop)
    }

    /// Forgets what came, and counts the events of this run from now on.
    pub(crate) fn reset(&mut self, run: u32) -> Result<(), Failure> {
        self.ask::<bool>(&format!("reset {run}")).map(drop)
    }

    /// What came since the last reset.
    pub(crate) fn received(&mut self) -> Result<Received, Failure> {
        self.ask("report")
    }

    /// Waits until as many distinct deliveries have come as the accepted events make.
    fn all_delivered(&mut self, case: &str, accepted: u64, fan_out: u64) -> Result<Received, Failure> {
        let expected = accepted * fan_out;
        let (mut delivered, mut progress) = (0, clock::now());
        loop {
            let count = self.ask::<u64>("count")?;
            if count >= expected {
                break;
            }
            if count > delivered {
                (delivered, progress) = (count, clock::now());
            } else if clock::now() > progress + DELIVERY_LIMIT_SECONDS * SECOND {
                let case = case.to_owned();
                let seconds = DELIVERY_LIMIT_SECONDS;
                return Err(Failure::Lost { case, accepted, expected, delivered, seconds });
            }
            clock::pause(DELIVERY_INTERVAL);
        }
        self.received()
    }

    fn cpu_microseconds(&self) -> Result<u64, Failure> {
        procfs::cpu_microseconds(self.process.0.id())
    }
}

/// A generator in a process of its own.
#[derive(Debug)]
pub(crate) struct Generator {
    _process: Process,
    output: BufReader<ChildStdout>,
}

impl Generator {
    pub(crate) fn start(
        stage: &Stage,
        to: SocketAddr,
        path: &str,
        load: Load,
        connections: u64,
    ) -> Result<Self, Failure> {
        let mut command = stage.beside();
        command
            .arg("generate")
            .args(["--to", &to.to_string(), "--path", path])
            .args(["--seconds", &load.seconds.to_string(), "--run", &load.run.to_string()])
            .args(["--connections", &connections.to_string()])
            .stdout(Stdio::piped());
        if let Some(rate) = load.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        if let Some(types) = load.types {
            command.args(["--types", &types.to_string()]);
        }
        let mut process = Process::spawn(&mut command)?;
        let output = BufReader::new(process.0.stdout.take().expect("the output is piped"));
        Ok(Self { _process: process, output })
    }

    /// Waits until it has ended.
    pub(crate) fn ended(mut self) -> Result<Generated, Failure> {
        read_line("the generator", &mut self.output)
    }
}

fn read_line<T: DeserializeOwned>(
    what: &'static str,
    output: &mut BufReader<ChildStdout>,
) -> Result<T, Failure> {
    let mut line = String::new();
    output.read_line(&mut line).map_err(Failure::io(format!("reading what {what} says")))?;
    serde_json::from_str(&line)
        .map_err(|error| Failure::Protocol { what, detail: format!("{error}: {line:?}") })
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Waypost {
    process: Process,
    directory: PathBuf,
    log: Log,
    pub(crate) ingress: SocketAddr,
    admin: SocketAddr,
    /// From the start of the process until it said that it was ready.
    pub(crate) started_in: Duration,
}

impl Waypost {
    /// Starts a broker on a fresh directory and waits until it is ready.
    pub(crate) fn start(stage: &Stage, log: Log, manifests: &str) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("waypost-").tempdir_in(&stage.scratch);
        let directory = directory.map_err(Failure::io("making a directory"))?.keep();
        let file = directory.join("manifests.yaml");
        std::fs::write(&file, manifests).map_err(Failure::io("writing the manifests"))?;
        Self::start_in(&stage.waypost, directory, log)
    }

    fn start_in(binary: &Path, directory: PathBuf, log: Log) -> Result<Self, Failure> {
        let (ingress, admin) = (free_address()?, free_address()?);
        let text = File::create(directory.join("log.txt")).map_err(Failure::io("making a log file"))?;
        let mut command = Command::new(binary);
        command
            .arg("run")
            .arg("-f")
            .arg(directory.join("manifests.yaml"))
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--listen", &ingress.to_string(), "--admin-listen", &admin.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(text);
        if log == Log::Memory {
            command.args(["--log", "memory"]);
        }
        let start = clock::now();
        let process = Process::spawn(&mut command)?;
        let mut waypost = Self { process, directory, log, ingress, admin, started_in: Duration::ZERO };
        waypost.ready(start)?;
        Ok(waypost)
    }

    fn ready(&mut self, start: u64) -> Result<(), Failure> {
        while !is_ready(self.admin) {
            let ended = self.process.0.try_wait().map_err(Failure::io("waiting for waypost"))?;
            if ended.is_some() || clock::now() > start + START_LIMIT_SECONDS * SECOND {
                let log = self.log_tail();
                return Err(Failure::NotReady { seconds: (clock::now() - start) / SECOND, log });
            }
            clock::pause(READY_INTERVAL);
        }
        self.started_in = Duration::from_nanos(clock::now() - start);
        Ok(())
    }

    /// Gives the broker other manifests, which it takes over by itself a little later.
    pub(crate) fn rewrite(&self, manifests: &str) -> Result<(), Failure> {
        let file = self.directory.join("manifests.yaml");
        std::fs::write(file, manifests).map_err(Failure::io("writing the manifests"))
    }

    /// Kills the broker in the middle of its work and starts it again on the same data.
    pub(crate) fn kill_and_start_again(&mut self, stage: &Stage) -> Result<(), Failure> {
        self.process.0.kill().map_err(Failure::io("killing waypost"))?;
        self.process.0.wait().map_err(Failure::io("waiting for waypost"))?;
        self.start_again(stage)
    }

    /// Stops the broker as an operator does. Tells how long that took.
    pub(crate) fn stop(&mut self) -> Result<Duration, Failure> {
        let start = clock::now();
        let id = i32::try_from(self.process.0.id()).ok().and_then(Pid::from_raw);
        let id = id.expect("the process was started, so that it has an id");
        kill_process(id, Signal::TERM).map_err(Failure::os("stopping waypost"))?;
        let status = self.process.0.wait().map_err(Failure::io("waiting for waypost"))?;
        if !status.success() {
            let log = self.log_tail();
            return Err(Failure::NotStopped { status: status.to_string(), log });
        }
        Ok(Duration::from_nanos(clock::now() - start))
    }

    /// Starts it again on the same data, after it has ended.
    pub(crate) fn start_again(&mut self, stage: &Stage) -> Result<(), Failure> {
        // The old value keeps nothing that would remove the directory from under the new one.
        let directory = std::mem::take(&mut self.directory);
        *self = Self::start_in(&stage.waypost, directory, self.log)?;
        Ok(())
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(self.directory.join("log.txt")).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    /// The sum of a metric over all its labels; 0 where it has none yet.
    pub(crate) fn metric(&self, name: &str) -> Result<u64, Failure> {
        let doing = || Failure::io("asking for metrics");
        let mut stream = TcpStream::connect(self.admin).map_err(doing())?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).map_err(doing())?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).map_err(doing())?;
        Ok(sum_of_metric(&String::from_utf8_lossy(&text), name))
    }

    pub(crate) fn cpu_microseconds(&self) -> Result<u64, Failure> {
        procfs::cpu_microseconds(self.process.0.id())
    }

    pub(crate) fn resident_peak_kibibytes(&self) -> Result<u64, Failure> {
        procfs::resident_peak_kibibytes(self.process.0.id())
    }

    pub(crate) fn resident_kibibytes(&self) -> Result<u64, Failure> {
        procfs::resident_kibibytes(self.process.0.id())
    }

    /// What the data directory takes on the disk.
    pub(crate) fn disk_bytes(&self) -> Result<u64, Failure> {
        let mut bytes = 0;
        let mut directories = vec![self.directory.join("data")];
        while let Some(directory) = directories.pop() {
            let entries = match std::fs::read_dir(&directory) {
                // In memory mode there is none.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.map_err(Failure::io("reading the data directory"))?,
            };
            for entry in entries {
                let entry = entry.map_err(Failure::io("reading the data directory"))?;
                // A file may be removed while this looks.
                let Ok(metadata) = entry.metadata() else { continue };
                bytes += metadata.blocks() * BLOCK_BYTES;
                if metadata.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        Ok(bytes)
    }

    /// Fails where a broker that is meant to be durable has not written what it accepted.
    pub(crate) fn wrote(&self, accepted: u64) -> Result<(), Failure> {
        if self.log == Log::Durable && self.disk_bytes()? < accepted * DATA_BYTES as u64 {
            return Err(Failure::NotDurable);
        }
        Ok(())
    }
}

impl Drop for Waypost {
    fn drop(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        if !self.directory.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    let mut answer = [0; 12];
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b" 200")
}

/// The sum of the samples with this name.
fn sum_of_metric(text: &str, name: &str) -> u64 {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    samples.sum::<f64>() as u64
}

/// An address that nobody listens on. Another process might take it first, but hardly will.
fn free_address() -> Result<SocketAddr, Failure> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failure::io("looking for a free port"))?;
    listener.local_addr().map_err(Failure::io("looking for a free port"))
}

/// A broker with a trigger that matches everything for each of the subscribers' URLs.
pub(crate) fn manifests(subscribers: &[String]) -> String {
    let mut text = String::from(
        "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {namespace: bench, name: default}\n",
    );
    for (number, url) in subscribers.iter().enumerate() {
        text.push_str(&format!(
            "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\n\
             metadata: {{namespace: bench, name: trigger-{number}}}\n\
             spec: {{broker: default, subscriber: {{uri: '{url}'}}}}\n"
        ));
    }
    text
}

/// A generator's target and the subscriber behind it.
#[derive(Debug)]
pub(crate) struct Scene {
    name: String,
    subscriber: Subscriber,
    pub(crate) waypost: Option<Waypost>,
    fan_out: u64,
}

/// CPU time of each process for one event, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CpuPerEvent {
    pub(crate) generator: f64,
    /// 0 where the generator sends straight to the subscriber.
    pub(crate) waypost: f64,
    pub(crate) subscriber: f64,
}

/// What one run through a scene gave. Every accepted event was delivered to every trigger.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    pub(crate) generated: Generated,
    pub(crate) received: Received,
    /// From the first delivery to the last.
    pub(crate) deliveries_per_second: f64,
    pub(crate) cpu_per_event: CpuPerEvent,
    /// The most memory that the broker ever had, in KiB; 0 without one.
    pub(crate) peak_kibibytes: u64,
    /// The part (0 to 1) of the machine's CPU time that went to anything else meanwhile: a disturbed run has much.
    pub(crate) others_share: f64,
}

impl Scene {
    /// The generator straight into the subscriber.
    pub(crate) fn raw(stage: &Stage) -> Result<Self, Failure> {
        let subscriber = Subscriber::start(stage, &[])?;
        Ok(Self { name: "raw".to_owned(), subscriber, waypost: None, fan_out: 1 })
    }

    /// A broker with this many triggers that match everything, all with one subscriber, and with further triggers for
    /// these URLs.
    pub(crate) fn broker(stage: &Stage, log: Log, fan_out: u32, others: &[String]) -> Result<Self, Failure> {
        let subscriber = Subscriber::start(stage, &[])?;
        let urls = (0..fan_out).map(|trigger| format!("http://{}/{trigger}", subscriber.address));
        let urls: Vec<_> = urls.chain(others.iter().cloned()).collect();
        let waypost = Some(Waypost::start(stage, log, &manifests(&urls))?);
        let name = format!("{}, fan-out {fan_out}", log.name());
        Ok(Self { name, subscriber, waypost, fan_out: u64::from(fan_out) })
    }

    /// A broker with one trigger, and another that keeps what it is owed while the subscriber at `held` is away.
    pub(crate) fn beside_one_that_holds(stage: &Stage, log: Log, held: &str) -> Result<Self, Failure> {
        let subscriber = Subscriber::start(stage, &[])?;
        let mut text = manifests(&[format!("http://{}/0", subscriber.address)]);
        text.push_str(&format!(
            "---\napiVersion: waypost.dev/v1alpha1\nkind: Trigger\n\
             metadata: {{namespace: bench, name: holds}}\n\
             spec: {{broker: default, subscriber: {{uri: '{held}'}}, delivery: {{holdWhenDown: true}}}}\n"
        ));
        let waypost = Some(Waypost::start(stage, log, &text)?);
        Ok(Self { name: format!("{}, beside one that holds", log.name()), subscriber, waypost, fan_out: 1 })
    }

    /// A broker with the manifests that are made for this subscriber: each event must match one of their triggers.
    pub(crate) fn of(
        stage: &Stage,
        name: &str,
        manifests: impl FnOnce(SocketAddr) -> String,
    ) -> Result<Self, Failure> {
        let subscriber = Subscriber::start(stage, &[])?;
        let waypost = Some(Waypost::start(stage, Log::Durable, &manifests(subscriber.address))?);
        Ok(Self { name: name.to_owned(), subscriber, waypost, fan_out: 1 })
    }

    /// Generates, and waits until everything that was accepted is delivered.
    pub(crate) fn run(&mut self, stage: &Stage, load: Load) -> Result<Run, Failure> {
        self.subscriber.reset(load.run)?;
        let subscriber_before = self.subscriber.cpu_microseconds()?;
        let waypost_before = self.waypost_cpu()?;
        let machine_before = procfs::machine()?;
        let (to, path) = self
            .waypost
            .as_ref()
            .map_or((self.subscriber.address, "/0"), |waypost| (waypost.ingress, INGRESS_PATH));
        // As many deliveries are asked for at a time with every fan-out: what is measured is how fast they are made, not
        // how fast a backlog grows beside them.
        let connections = u64::from(stage.connections).div_ceil(self.fan_out);
        let generated = Generator::start(stage, to, path, load, connections)?.ended()?;
        if generated.accepted == 0 {
            let detail = format!("refused {:?}, unanswered {}", generated.refused, generated.unanswered);
            return Err(Failure::NothingAccepted { case: self.name.clone(), detail });
        }
        let received = self.subscriber.all_delivered(&self.name, generated.accepted, self.fan_out)?;
        let each = |after: u64, before: u64| (after - before) as f64 / generated.accepted as f64;
        let cpu_per_event = CpuPerEvent {
            generator: each(generated.cpu_microseconds, 0),
            waypost: each(self.waypost_cpu()?, waypost_before),
            subscriber: each(self.subscriber.cpu_microseconds()?, subscriber_before),
        };
        let machine = procfs::machine()?.since(machine_before);
        let ours = cpu_per_event.generator + cpu_per_event.waypost + cpu_per_event.subscriber;
        let others = machine.busy as f64 - ours * generated.accepted as f64;
        let others_share = (others / machine.total.max(1) as f64).max(0.0);
        let peak_kibibytes = match &self.waypost {
            Some(waypost) => {
                waypost.wrote(generated.accepted)?;
                waypost.resident_peak_kibibytes()?
            }
            None => 0,
        };
        let span = (received.last - received.first).max(1) as f64 / SECOND as f64;
        let deliveries_per_second = received.distinct as f64 / span;
        Ok(Run { generated, received, deliveries_per_second, cpu_per_event, peak_kibibytes, others_share })
    }

    fn waypost_cpu(&self) -> Result<u64, Failure> {
        self.waypost.as_ref().map_or(Ok(0), Waypost::cpu_microseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# TYPE a counter\na_total{x=\"1 2\"} 3.0\na_total{x=\"2\"} 4\na_total_more 9\n";
        assert_eq!(sum_of_metric(text, "a_total"), 7);
        assert_eq!(sum_of_metric("a_total 5\r\n", "a_total"), 5);
        assert_eq!(sum_of_metric(text, "b_total"), 0);
    }
}
