//! A running broker, as a user runs it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::client::{self, Answer};
use crate::ledger::{count, ledger_holds};
use crate::{PATIENCE, binary, eventually};

/// What a broker is started with.
#[derive(Debug)]
pub struct Setup {
    directory: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    allowed: Vec<String>,
    token: Option<String>,
    unread: bool,
    memory: bool,
    open_files: Option<usize>,
}

impl Setup {
    /// A fresh directory without manifests.
    ///
    /// # Panics
    /// If no directory can be made.
    pub fn empty() -> Self {
        let directory = tempfile::tempdir().expect("the machine has room for a directory");
        std::fs::create_dir(directory.path().join("manifests")).expect("the directory is ours");
        Self {
            directory,
            arguments: Vec::new(),
            environment: Vec::new(),
            allowed: Vec::new(),
            token: None,
            unread: false,
            memory: false,
            open_files: None,
        }
    }

    /// A fresh directory with one file of manifests, `manifests.yaml`.
    pub fn new(manifests: &str) -> Self {
        Self::empty().file("manifests.yaml", manifests)
    }

    /// Adds a file of manifests.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.manifests().join(name), text).expect("the directory is ours");
        self
    }

    /// Adds arguments after those of the harness.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the token of the admin API, and sends it with the requests of the harness.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self.environment("WAYPOST_ADMIN_TOKEN", token)
    }

    /// Allows warnings and errors in the log that hold this text.
    #[must_use]
    pub fn allow(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Closes the other end of the standard output, as a pipe whose reader went away.
    #[must_use]
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Keeps all logs in memory. Otherwise they are on disk, where [`Waypost::restart`] finds them.
    #[must_use]
    pub fn memory(mut self) -> Self {
        self.memory = true;
        self
    }

    /// Allows it so many open files.
    #[must_use]
    pub fn open_files(mut self, count: usize) -> Self {
        self.open_files = Some(count);
        self
    }

    /// The directory that `-f` names.
    pub fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    /// The directory of everything that belongs to this broker.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the broker and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start(self) -> Waypost {
        let mut child = self
            .command()
            .arg("run")
            .arg("-f")
            .arg(self.manifests())
            .arg("--data-dir")
            .arg(self.directory.path().join("data"))
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--log-format", "json"])
            .args(if self.memory { &["--log", "memory"][..] } else { &[] })
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary that was just built can be started");
        let mut tasks = JoinSet::new();
        let output = child.stdout.take().expect("the output is piped");
        let stdout = if self.unread { Lines::default() } else { collect(output, &mut tasks) };
        let log = collect(child.stderr.take().expect("the log is piped"), &mut tasks);
        let mut waypost = Waypost {
            setup: self,
            child,
            ingress: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            stdout,
            log,
            stopped: false,
            _tasks: tasks,
        };
        waypost.find_addresses().await;
        eventually("readiness", async || (waypost.admin_get("/readyz").await.status == 200).then_some(()))
            .await;
        waypost
    }

    /// The binary, by a shell that sets a limit where there is one.
    fn command(&self) -> Command {
        let Some(open_files) = self.open_files else { return Command::new(binary::path()) };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {open_files} && exec \"$0\" \"$@\"")]).arg(binary::path());
        command
    }
}

/// Lines that a task goes on collecting.
type Lines = Arc<Mutex<Vec<String>>>;

fn collect(output: impl AsyncRead + Unpin + Send + 'static, tasks: &mut JoinSet<()>) -> Lines {
    let lines = Lines::default();
    let collected = Arc::clone(&lines);
    tasks.spawn(async move {
        let mut output = BufReader::new(output).lines();
        while let Ok(Some(line)) = output.next_line().await {
            collected.lock().push(line);
        }
    });
    lines
}

/// A running broker. A test ends it with [`stop`](Self::stop); one that fails kills it.
#[derive(Debug)]
pub struct Waypost {
    setup: Setup,
    child: Child,
    /// Where events go in.
    pub ingress: SocketAddr,
    /// Where the admin API is.
    pub admin: SocketAddr,
    stdout: Lines,
    log: Lines,
    stopped: bool,
    _tasks: JoinSet<()>,
}

impl Waypost {
    /// Starts a broker with these manifests.
    pub async fn start(manifests: &str) -> Self {
        Setup::new(manifests).start().await
    }

    async fn find_addresses(&mut self) {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let lines = self.log();
                let address = |field: &str| lines.iter().find_map(|line| line[field].as_str()?.parse().ok());
                if let (Some(ingress), Some(admin)) = (address("ingress"), address("admin")) {
                    return Ok((ingress, admin));
                }
                if let Ok(Some(status)) = self.child.try_wait() {
                    return Err(status);
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        match found.await {
            Ok(Ok((ingress, admin))) => (self.ingress, self.admin) = (ingress, admin),
            Ok(Err(status)) => panic!("waypost ended with {status}: {:#?}", self.log.lock()),
            Err(_) => panic!("waypost does not say where it listens: {:#?}", self.log.lock()),
        }
    }

    /// Sends a request to the ingress over a connection of its own.
    pub async fn send(&self, request: Request<Bytes>) -> Answer {
        client::send(self.ingress, request).await
    }

    /// Sends an event and checks that it is accepted: 202 with an empty body.
    ///
    /// # Panics
    /// If it is not.
    pub async fn accept(&self, request: Request<Bytes>) {
        let answer = self.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (202, &b""[..]), "{answer:?}");
    }

    /// Gets a path of the admin API.
    pub async fn admin_get(&self, path: &str) -> Answer {
        self.admin_send(Method::GET, path).await
    }

    /// Posts to a path of the admin API.
    pub async fn admin_post(&self, path: &str) -> Answer {
        self.admin_send(Method::POST, path).await
    }

    async fn admin_send(&self, method: Method, path: &str) -> Answer {
        let bearer = self.setup.token.as_ref().map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        client::send(self.admin, client::request(method, path, &headers, "")).await
    }

    /// The status. Promise P2 is checked in each one.
    ///
    /// # Panics
    /// If the ledger of any trigger does not add up.
    pub async fn status(&self) -> Value {
        let answer = self.admin_get("/api/v1/status").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let status = answer.json();
        ledger_holds(&status);
        status
    }

    /// The status of one trigger of the namespace `default`.
    ///
    /// # Panics
    /// If it is not in the status.
    pub async fn trigger(&self, name: &str) -> Value {
        let status = self.status().await;
        find(&status["triggers"], |row| row["namespace"] == "default" && row["name"] == name)
    }

    /// The row of one resource of the namespace `default` in the status.
    ///
    /// # Panics
    /// If it is not in the status.
    pub async fn resource(&self, kind: &str, name: &str) -> Value {
        let status = self.status().await;
        let wanted =
            |row: &Value| row["namespace"] == "default" && row["kind"] == kind && row["name"] == name;
        find(&status["resources"], wanted)
    }

    /// Waits until every trigger that delivers has examined all there is and has nothing pending, and returns the
    /// status.
    pub async fn settled(&self) -> Value {
        eventually("all deliveries to be settled", async || {
            let status = self.status().await;
            let rows = status["triggers"].as_array().expect("the ledger was checked");
            // One with an error delivers as its last valid version does.
            let keeps_running = |row: &Value| {
                let of_trigger = |resource: &Value| {
                    resource["kind"] == "Trigger"
                        && resource["namespace"] == row["namespace"]
                        && resource["name"] == row["name"]
                };
                find(&status["resources"], of_trigger)["message"]
                    .as_str()
                    .is_some_and(|message| message.contains("stays in force"))
            };
            let delivers = |row: &Value| row["ready"] == true || keeps_running(row);
            let settled =
                |row: &Value| !delivers(row) || count(row, "pending") + count(row, "lagEvents") == 0;
            rows.iter().all(settled).then(|| status.clone())
        })
        .await
    }

    /// Writes a file of manifests, as an editor does, and waits until the broker has applied it.
    ///
    /// # Panics
    /// If it cannot be written, or is not applied.
    pub async fn write(&self, name: &str, text: &str) {
        let before = self.plan_version().await;
        let scratch = self.setup.directory.path().join("scratch");
        std::fs::write(&scratch, text).expect("the directory is ours");
        std::fs::rename(scratch, self.setup.manifests().join(name)).expect("the directory is ours");
        self.applied_after(before).await;
    }

    /// Removes a file of manifests and waits until the broker has applied that.
    ///
    /// # Panics
    /// If it is not there, or its end is not applied.
    pub async fn remove(&self, name: &str) {
        let before = self.plan_version().await;
        std::fs::remove_file(self.setup.manifests().join(name)).expect("the file was written before");
        self.applied_after(before).await;
    }

    /// The version of the plan that runs.
    ///
    /// # Panics
    /// If the status does not tell it.
    pub async fn plan_version(&self) -> u64 {
        let status = self.status().await;
        status["plan"]["version"].as_u64().unwrap_or_else(|| panic!("no plan version: {status}"))
    }

    /// Waits for a plan that is newer than this one.
    pub async fn applied_after(&self, version: u64) {
        eventually("the manifests to be applied", async || {
            (self.plan_version().await > version).then_some(())
        })
        .await;
    }

    /// Everything on the standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().join("\n")
    }

    /// The log so far, line by line.
    ///
    /// # Panics
    /// If a line is not JSON.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.log.lock();
        let parse = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("the log is no JSON ({error}): {line}"))
        };
        lines.iter().map(parse).collect()
    }

    /// The process id.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the broker still runs")
    }

    /// The directory of everything that belongs to this broker.
    pub fn directory(&self) -> &Path {
        self.setup.directory()
    }

    /// Sends a signal by its name, such as `TERM`.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.id());
        let sent = std::process::Command::new("sh").args(["-c", &line]).status().expect("there is a shell");
        assert!(sent.success(), "{line}");
    }

    /// Allows it so many open files from now on; what it has open stays open. Returns how many it was allowed.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn limit_open_files(&self, count: u64) -> u64 {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a process has a number");
        // Its highest is ours, which it was started with.
        let new = Rlimit { current: Some(count), maximum: getrlimit(Resource::Nofile).maximum };
        let before = prlimit(Some(pid), Resource::Nofile, new).expect("the child is ours");
        before.current.unwrap_or(u64::MAX)
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        self.stopped = true;
        status
            .unwrap_or_else(|_| panic!("waypost does not end: {:#?}", self.log.lock()))
            .expect("the child is ours")
    }

    /// Ends the broker as an operator does, and checks that it ended well: exit code 0, and no warning in the log that
    /// the test did not allow.
    ///
    /// # Panics
    /// If it did not.
    pub async fn stop(mut self) {
        let status = self.status().await;
        ledger_holds(&status);
        self.signal("TERM");
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{:#?}", self.log.lock());
        self.quiet();
    }

    /// Ends the broker as [`stop`](Self::stop) does, lets `between` change what it finds, and starts it again.
    ///
    /// # Panics
    /// If it does not end well, or does not become ready again.
    pub async fn restart(mut self, between: impl FnOnce(Setup) -> Setup) -> Self {
        let status = self.status().await;
        ledger_holds(&status);
        self.signal("TERM");
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{:#?}", self.log.lock());
        self.quiet();
        self.again(between).await
    }

    /// Ends the broker as a loss of the process does, and starts it again. Where that fell into a write, the log may say so.
    ///
    /// # Panics
    /// If it does not become ready again.
    pub async fn kill(mut self, between: impl FnOnce(Setup) -> Setup) -> Self {
        self.signal("KILL");
        self.ended().await;
        self.quiet();
        self.again(|setup| between(setup).allow("a torn tail was cut")).await
    }

    async fn again(mut self, between: impl FnOnce(Setup) -> Setup) -> Self {
        let setup = std::mem::replace(&mut self.setup, Setup::empty());
        drop(self);
        between(setup).start().await
    }

    /// The log holds no warning that the test did not allow.
    ///
    /// # Panics
    /// If it does.
    pub fn quiet(&self) {
        for line in self.log() {
            let text = line.to_string();
            let level = line["level"].as_str().unwrap_or_default();
            let allowed = self.setup.allowed.iter().any(|allowed| text.contains(allowed));
            assert!(allowed || !matches!(level, "WARN" | "ERROR"), "an unexpected line in the log: {text}");
        }
    }
}

impl Drop for Waypost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.lock().join("\n");
            // libtest shows this beside the panic.
            #[expect(clippy::print_stderr)]
            {
                eprintln!("--- log of waypost ---\n{log}\n--- standard output ---\n{}", self.stdout());
            }
        } else {
            assert!(self.stopped, "the test ends without having stopped its broker");
        }
    }
}

fn find(rows: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = rows.as_array().and_then(|rows| rows.iter().find(|row| wanted(row)));
    found.unwrap_or_else(|| panic!("not in the status: {rows}")).clone()
}
