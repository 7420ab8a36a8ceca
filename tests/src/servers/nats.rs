//! NATS with JetStream, one node.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::{free_ports, installed};

/// How long a NATS may take to start on a busy machine, and a client for what it does.
const PATIENCE: Duration = Duration::from_secs(40);

/// A running NATS.
#[derive(Debug)]
pub struct Nats {
    folder: PathBuf,
    data: TempDir,
    port: u16,
    certificate: String,
    child: Child,
}

impl Nats {
    /// Starts a NATS without streams that takes anyone; none where it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// Starts one with more lines of configuration. `$FOLDER` in them is its data folder, in which `server.pem` and
    /// `server.key` are the certificate and key for TLS.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_with(configuration: &str) -> Option<Self> {
        let folder = installed("nats")?;
        let data = tempfile::tempdir().expect("the machine has room for a directory");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("the names are names");
        let certificate = cert.pem();
        std::fs::write(data.path().join("server.pem"), &certificate).expect("the directory is ours");
        std::fs::write(data.path().join("server.key"), signing_key.serialize_pem())
            .expect("the directory is ours");
        let [port] = free_ports();
        write_configuration(&data, port, configuration);
        let child = spawn(&folder, &data);
        let mut nats = Self { folder, data, port, certificate, child };
        nats.wait_until_ready().await;
        Some(nats)
    }

    /// The URL, without credentials.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The certificate for TLS, as PEM: its own authority.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The folder of its data and configuration.
    pub fn folder(&self) -> &std::path::Path {
        self.data.path()
    }

    /// Ends it as a loss of the process does. Its data stays.
    ///
    /// # Panics
    /// If it cannot be ended.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("the process is ours");
    }

    /// Starts it again on the same port and data.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.folder, &self.data);
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&mut self) {
        let begun = tokio::time::Instant::now();
        loop {
            // It speaks first, with or without TLS.
            if let Ok(stream) = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await {
                let mut line = String::new();
                let read = BufReader::new(stream).read_line(&mut line).await;
                if read.is_ok() && line.starts_with("INFO ") {
                    return;
                }
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("NATS ended with {status}: {}", self.log());
            }
            assert!(begun.elapsed() < PATIENCE, "NATS does not get ready: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Makes a stream.
    ///
    /// # Panics
    /// If that fails.
    pub async fn stream(&self, name: &str, subjects: &[&str]) {
        self.done(&[&["stream", name], subjects].concat(), "").await;
    }

    /// Publishes messages, each as [`message`] makes it, to streams.
    ///
    /// # Panics
    /// If that fails.
    pub async fn send(&self, messages: impl IntoIterator<Item = Value>) {
        self.done(&["send"], &lines(messages)).await;
    }

    /// Publishes messages without streams.
    ///
    /// # Panics
    /// If that fails.
    pub async fn publish(&self, messages: impl IntoIterator<Item = Value>) {
        self.done(&["publish"], &lines(messages)).await;
    }

    /// All messages of a stream.
    ///
    /// # Panics
    /// If they cannot be read.
    pub async fn read(&self, stream: &str) -> Vec<Message> {
        self.done(&["read", stream], "").await.lines().map(Message::of).collect()
    }

    /// How a consumer stands: `acknowledged`, `last`, `redelivered` and `deliveries`.
    ///
    /// # Panics
    /// If that cannot be told.
    pub async fn state(&self, stream: &str, consumer: &str) -> Value {
        let line = self.done(&["state", stream, consumer], "").await;
        serde_json::from_str(&line).expect("our own tool prints JSON")
    }

    /// Listens to a subject until so many messages have come, which the one task returns. The server knows of it.
    ///
    /// # Panics
    /// If it cannot be listened to.
    pub async fn listen(&self, subject: &str, count: usize) -> JoinSet<Vec<Message>> {
        let mut child =
            self.tool(&["listen", subject, &count.to_string()]).spawn().expect("the tool is installed");
        let mut output = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        let first = output.next_line().await.expect("the output is text");
        assert_eq!(first.as_deref(), Some("listening"));
        let mut listener = JoinSet::new();
        listener.spawn(async move {
            let mut messages = Vec::new();
            while let Ok(Some(line)) = output.next_line().await {
                messages.push(Message::of(&line));
            }
            drop(child);
            messages
        });
        listener
    }

    /// Runs the client of the tests, which is NATS' own, and returns what it prints.
    ///
    /// # Panics
    /// If that fails.
    pub async fn done(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self.tool(arguments).spawn().expect("the tool is installed");
        let mut stdin = child.stdin.take().expect("the input is piped");
        let input = input.to_owned();
        let write = async move {
            // A command that fails does not read its input.
            drop(stdin.write_all(input.as_bytes()).await);
        };
        let ran =
            tokio::time::timeout(PATIENCE, async { tokio::join!(write, child.wait_with_output()) }).await;
        let ((), output) = ran.unwrap_or_else(|_| panic!("{arguments:?} does not end"));
        let output = output.expect("the process is ours");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn tool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join("bin/nats-tool"));
        command
            .arg(self.url())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// A message that NATS gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The subject.
    pub subject: String,
    /// The payload.
    pub data: Vec<u8>,
    /// The headers, with their names as they were sent.
    pub headers: Vec<(String, String)>,
}

impl Message {
    fn of(line: &str) -> Self {
        let told: Value = serde_json::from_str(line).expect("our own tool prints JSON");
        let data = told["data"].as_str().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            subject: text(&told["subject"]),
            data: STANDARD.decode(data).expect("our own tool prints base64"),
            headers: told["headers"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|header| (text(&header[0]), text(&header[1])))
                .collect(),
        }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// A message for [`Nats::send`].
pub fn message(subject: &str, data: &[u8], headers: &[(&str, &str)]) -> Value {
    let headers: Vec<_> = headers.iter().map(|(name, value)| json!([name, value])).collect();
    json!({"subject": subject, "data": STANDARD.encode(data), "headers": headers})
}

fn lines(messages: impl IntoIterator<Item = Value>) -> String {
    messages.into_iter().map(|message| format!("{message}\n")).collect()
}

fn write_configuration(data: &TempDir, port: u16, more: &str) {
    let folder = data.path().display().to_string();
    let more = more.replace("$FOLDER", &folder);
    // Under an operator it would need an account of the system beside.
    let streams = if more.contains("operator:") {
        String::new()
    } else {
        format!("jetstream {{ store_dir: \"{folder}/store\", max_mem: 64M, max_file: 1G }}")
    };
    let all = format!("listen: \"127.0.0.1:{port}\"\n{streams}\n{more}\n");
    std::fs::write(data.path().join("nats.conf"), all).expect("the directory is ours");
}

fn spawn(folder: &std::path::Path, data: &TempDir) -> Child {
    let log = std::fs::File::create(data.path().join("log")).expect("the directory is ours");
    Command::new(folder.join("bin/nats-server"))
        .args(["-c", "nats.conf"])
        .current_dir(data.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the server is installed")
}
