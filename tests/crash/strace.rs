//! Faults from outside: strace makes system calls of a process fail, or kills it at one.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Broker, wait};
use crate::failure::{Failure, ensure};

/// Whether strace is there and may attach.
pub(crate) fn is_there() -> bool {
    let tried =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// What is injected: an expression of strace, such as `fdatasync:error=EIO:when=3+`. Calls are counted for each thread
/// by itself.
#[derive(Debug, Clone)]
pub(crate) struct Injection {
    expression: String,
    path: Option<OsString>,
}

impl Injection {
    /// Kills the process before the call of this number.
    pub(crate) fn kill(call: &str, number: u32) -> Self {
        Self { expression: format!("{call}:signal=KILL:when={number}"), path: None }
    }

    /// Has all calls from this number on fail.
    pub(crate) fn fail(call: &str, error: &str, from: u32) -> Self {
        Self { expression: format!("{call}:error={error}:when={from}+"), path: None }
    }

    /// Only for calls at this file.
    pub(crate) fn at(mut self, path: &Path) -> Self {
        self.path = Some(path.into());
        self
    }

    fn arguments(&self) -> Vec<OsString> {
        let call = self.expression.split(':').next().unwrap_or_default();
        let mut arguments: Vec<OsString> = ["-o", "/dev/null", "-e"].map(OsString::from).to_vec();
        arguments.push(format!("trace={call}").into());
        arguments.extend(["-e".into(), format!("inject={}", self.expression).into()]);
        if let Some(path) = &self.path {
            arguments.extend(["-P".into(), path.clone()]);
        }
        arguments
    }

    /// The command that starts a process under this injection, as which it then runs.
    pub(crate) fn command(&self) -> Vec<OsString> {
        [vec!["strace".into(), "-D".into(), "-f".into(), "-qq".into()], self.arguments()].concat()
    }

    /// Injects into a running process with all its threads.
    pub(crate) fn attach_to_process(&self, process: u32) -> Result<Injected, Failure> {
        self.attach(process, &["-f"])
    }

    /// Injects into one thread of a running process.
    pub(crate) fn attach_to_thread(&self, thread: u32) -> Result<Injected, Failure> {
        self.attach(thread, &[])
    }

    fn attach(&self, id: u32, flags: &[&str]) -> Result<Injected, Failure> {
        let mut child = Command::new("strace")
            .args(flags)
            .args(["-p", &id.to_string()])
            .args(self.arguments())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::io("starting strace"))?;
        let mut said = String::new();
        if let Some(output) = child.stderr.take() {
            let mut output = BufReader::new(output);
            output.read_line(&mut said).map_err(Failure::io("reading what strace says"))?;
            // It says more for each new thread, and must not wait for a reader.
            std::thread::spawn(move || drop(output.read_to_end(&mut Vec::new())));
        }
        let injected = Injected(child);
        ensure(said.contains("attached"), || format!("strace does not attach: {said}"))?;
        Ok(injected)
    }
}

/// An injection into a running process. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Injected(Child);

impl Injected {
    /// Ends while the broker goes on. It is stopped meanwhile, so that none of its threads is within a call: one that is left
    /// in the middle of a call that was to fail gets an error that no file system gives (ENOSYS).
    pub(crate) fn end(self, broker: &Broker) -> Result<(), Failure> {
        broker.signal(Signal::STOP);
        let mut looks = 0;
        let stopped = wait(|| {
            // For a moment a thread stands still at each call as well, until strace has it go on.
            looks = if all_stopped(broker.id())? { looks + 1 } else { 0 };
            Ok((looks >= STANDS_STILL).then_some(()))
        })?;
        drop(self);
        broker.signal(Signal::CONT);
        stopped
            .ok_or_else(|| Failure::Broken("the broker does not stop for strace to let go of it".to_owned()))
    }
}

/// Looks in a row at which all threads are stopped before they are taken to stay so.
const STANDS_STILL: u32 = 5;

/// Whether all threads of a process are stopped, by a signal or by strace.
fn all_stopped(process: u32) -> Result<bool, Failure> {
    let threads =
        std::fs::read_dir(format!("/proc/{process}/task")).map_err(Failure::io("listing threads"))?;
    for thread in threads {
        let path = thread.map_err(Failure::io("listing threads"))?.path().join("stat");
        // One that has ended meanwhile needs no stop.
        let Ok(stat) = std::fs::read_to_string(path) else { continue };
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 't' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for Injected {
    fn drop(&mut self) {
        // Where it has ended, the process that it looked at has, and nothing is left to detach.
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process(id, Signal::TERM);
        }
        drop(self.0.wait());
    }
}
