//! `waypost` in a directory of its own, started, killed and asked.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use waypost_tests::binary;

use crate::failure::{Failure, ensure};
use crate::wire;

/// How long anything may take that should come by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often is looked whether it has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits. This program has no runtime whose threads it could block.
#[expect(clippy::disallowed_methods)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until a condition gives a value. None after [`PATIENCE`].
pub(crate) fn wait<T>(
    mut condition: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        pause(LOOK_EVERY);
    }
    Ok(None)
}

/// The directory of a broker: its manifests, its data and its log.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// Makes the directory, with these manifests.
    pub(crate) fn new(path: &Path, manifests: &str) -> Result<Self, Failure> {
        let home = Self(path.to_owned());
        fs::create_dir_all(home.0.join("manifests")).map_err(Failure::io("making a directory"))?;
        home.write(manifests)?;
        Ok(home)
    }

    /// Replaces the manifests.
    pub(crate) fn write(&self, manifests: &str) -> Result<(), Failure> {
        let scratch = self.0.join("scratch");
        fs::write(&scratch, manifests).map_err(Failure::io("writing manifests"))?;
        fs::rename(scratch, self.0.join("manifests/manifests.yaml")).map_err(Failure::io("writing manifests"))
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Everything that all processes logged here.
    pub(crate) fn log(&self) -> String {
        fs::read(self.0.join("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The last lines of the log, for people.
    pub(crate) fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// `waypost log verify` on the data: whether all is sound, and what it printed.
    pub(crate) fn verify(&self) -> Result<(bool, String), Failure> {
        let output = Command::new(binary::path())
            .args(["log", "verify", "-o", "json", "--data-dir"])
            .arg(self.data())
            .output()
            .map_err(Failure::io("starting waypost log verify"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }
}

/// What a broker is started with beside its home.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start {
    /// Arguments after those that are always given.
    pub(crate) arguments: Vec<String>,
    /// Environment variables.
    pub(crate) environment: Vec<(String, String)>,
    /// A command that starts it in its own process, such as `strace -D`.
    pub(crate) under: Vec<OsString>,
}

impl Start {
    /// With these arguments.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(ToString::to_string).collect(), ..Self::default() }
    }
}

/// How a start ended.
#[derive(Debug)]
pub(crate) enum Started {
    /// It takes events.
    Ready(Broker),
    /// The process has ended.
    Ended(ExitStatus),
}

/// A running broker. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    home: Home,
    /// Where events go in.
    pub(crate) ingress: SocketAddr,
    /// Where the admin API is.
    pub(crate) admin: SocketAddr,
}

impl Broker {
    /// Starts a broker, which must become ready.
    pub(crate) fn start(home: &Home, start: &Start) -> Result<Self, Failure> {
        match Self::try_start(home, start)? {
            Started::Ready(broker) => Ok(broker),
            Started::Ended(status) => {
                Err(Failure::Broken(format!("waypost ended with {status}:\n{}", home.last_lines())))
            }
        }
    }

    /// Starts a broker, which may end.
    pub(crate) fn try_start(home: &Home, start: &Start) -> Result<Started, Failure> {
        let opening = || Failure::io("opening the log");
        let mut log = File::options().create(true).append(true).open(home.0.join("log")).map_err(opening())?;
        writeln!(log, "--- start").map_err(opening())?;
        let before = log.metadata().map_err(opening())?.len() as usize;
        let mut line: Vec<OsString> = start.under.clone();
        line.push(binary::path().into());
        let child = Command::new(&line[0])
            .args(&line[1..])
            .arg("run")
            .arg("-f")
            .arg(home.0.join("manifests"))
            .arg("--data-dir")
            .arg(home.data())
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(&start.arguments)
            .envs(start.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(Failure::io(format!("starting {line:?}")))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut broker = Self { child, home: home.clone(), ingress: nowhere, admin: nowhere };
        let ready = wait(|| {
            if let Some((ingress, admin)) = addresses(&home.log()[before..]) {
                (broker.ingress, broker.admin) = (ingress, admin);
                return Ok(Some(None));
            }
            Ok(broker.ended()?.map(Some))
        })?;
        match ready {
            Some(None) => Ok(Started::Ready(broker)),
            Some(Some(status)) => Ok(Started::Ended(status)),
            None => Err(Failure::Broken(format!("waypost does not become ready:\n{}", home.last_lines()))),
        }
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that has ended does not get it.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // An error says that it is gone, which the next wait sees.
        if let Some(id) = id {
            let _ = kill_process(id, signal);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        self.child.try_wait().map_err(Failure::io("waiting for waypost"))
    }

    /// Waits for its end.
    pub(crate) fn wait_for_end(&mut self) -> Result<ExitStatus, Failure> {
        let home = self.home.clone();
        wait(|| self.ended())?
            .ok_or_else(|| Failure::Broken(format!("waypost does not end:\n{}", home.last_lines())))
    }

    /// Kills it as a loss of the process does.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        self.signal(Signal::KILL);
        self.wait_for_end().map(drop)
    }

    /// Stops it as an operator does; it must end well.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM);
        let status = self.wait_for_end()?;
        ensure(status.success(), || format!("waypost stopped with {status}:\n{}", self.home.last_lines()))
    }

    /// The status. The equation of the ledger is checked in each one.
    pub(crate) fn status(&self) -> Result<Value, Failure> {
        let answer =
            wire::call(self.admin, "GET", "/api/v1/status").map_err(Failure::io("asking for the status"))?;
        let status = answer.json();
        let triggers = status["triggers"].as_array();
        let triggers =
            triggers.ok_or_else(|| Failure::Broken(format!("a status without triggers: {answer:?}")))?;
        for trigger in triggers {
            let [matched, delivered, dead, dropped, pending] =
                ["matched", "delivered", "deadLettered", "dropped", "pending"]
                    .map(|name| trigger[name].as_u64().unwrap_or(u64::MAX / 8));
            ensure(matched == delivered + dead + dropped + pending, || {
                format!("the ledger does not add up: {trigger}")
            })?;
        }
        Ok(status)
    }

    /// Counts anew what is pending; no count may have been wrong.
    pub(crate) fn recount(&self) -> Result<(), Failure> {
        let answer = wire::call(self.admin, "POST", "/api/v1/recount").map_err(Failure::io("recounting"))?;
        let lines = answer.json();
        let lines =
            lines.as_array().ok_or_else(|| Failure::Broken(format!("no recount: {answer:?}")))?.clone();
        for line in &lines {
            ensure(line["differed"] == false, || format!("a recount differed: {line}"))?;
        }
        self.status().map(drop)
    }

    /// Waits until nothing is pending, and returns the status.
    pub(crate) fn settled(&self) -> Result<Value, Failure> {
        let mut last = Value::Null;
        let settled = wait(|| {
            last = self.status()?;
            let open = |row: &Value| ["pending", "lagEvents"].iter().any(|name| row[name] != 0);
            let rows = last["triggers"].as_array().map_or(&[][..], Vec::as_slice);
            Ok((!rows.iter().any(open)).then(|| last.clone()))
        })?;
        settled.ok_or_else(|| {
            Failure::Broken(format!("deliveries are not settled: {last}\n{}", self.home.last_lines()))
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The addresses that a broker which is ready logs.
fn addresses(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let address = |field: &str| line[field].as_str()?.parse().ok();
        Some((address("ingress")?, address("admin")?))
    })
}

/// The status row of a trigger.
pub(crate) fn trigger<'a>(status: &'a Value, name: &str) -> Result<&'a Value, Failure> {
    let rows = status["triggers"].as_array().map_or(&[][..], Vec::as_slice);
    let found = rows.iter().find(|row| row["name"] == name);
    found.ok_or_else(|| Failure::Broken(format!("no trigger {name} in the status: {status}")))
}
