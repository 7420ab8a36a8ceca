//! Stand-ins for Google Cloud: Pub/Sub by Google's in-memory fake, and Cloud Storage by fake-gcs-server.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{free_ports, installed};
use crate::client;

/// The project of all topics and subscriptions.
pub const PROJECT: &str = "waypost";

/// How long a server may take to start on a busy machine, and a client for what it does.
const PATIENCE: Duration = Duration::from_secs(40);

/// A running Pub/Sub.
#[derive(Debug)]
pub struct PubSub {
    folder: PathBuf,
    port: u16,
    control: u16,
    child: Child,
}

impl PubSub {
    /// Starts one without topics; none where it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Option<Self> {
        let folder = installed("google")?;
        let [port, control] = free_ports();
        let child = spawn(&folder, "pubsub-fake", &[&port.to_string(), &control.to_string()], &[]);
        let pub_sub = Self { folder, port, control, child };
        pub_sub.wait_until_ready().await;
        Some(pub_sub)
    }

    async fn wait_until_ready(&self) {
        for port in [self.port, self.control] {
            listening(port).await;
        }
    }

    /// Its address for `endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it. What it held is gone, as it is in memory.
    ///
    /// # Panics
    /// If it cannot be ended.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("the process is ours");
    }

    /// Starts it again on the same ports, without topics.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_again(&mut self) {
        let ports = [self.port.to_string(), self.control.to_string()];
        self.child = spawn(&self.folder, "pubsub-fake", &[&ports[0], &ports[1]], &[]);
        self.wait_until_ready().await;
    }

    /// Makes a topic.
    ///
    /// # Panics
    /// If that fails.
    pub async fn topic(&self, name: &str) {
        self.done(&["topic", PROJECT, name], "").await;
    }

    /// Makes a subscription with ordering and an ack deadline of ten seconds.
    ///
    /// # Panics
    /// If that fails.
    pub async fn subscription(&self, name: &str, topic: &str) {
        self.done(&["subscription", PROJECT, name, topic, "10"], "").await;
    }

    /// Publishes messages, each as [`message`] makes it.
    ///
    /// # Panics
    /// If that fails.
    pub async fn publish(&self, topic: &str, messages: impl IntoIterator<Item = Value>) {
        let lines: String = messages.into_iter().map(|message| format!("{message}\n")).collect();
        self.done(&["publish", PROJECT, topic], &lines).await;
    }

    /// How many messages there are, and how many of them are acknowledged: `messages`, `acknowledged` and `deliveries`.
    ///
    /// # Panics
    /// If that cannot be told.
    pub async fn state(&self) -> Value {
        client::get(([127, 0, 0, 1], self.control).into(), "/").await.json()
    }

    /// Refuses whoever pulls, or no longer.
    ///
    /// # Panics
    /// If that fails.
    pub async fn deny(&self, deny: bool) {
        let path = if deny { "/deny" } else { "/allow" };
        let request = Request::put(path).header("host", "control").body(Bytes::new());
        let request = request.expect("method, path and a header are a request");
        let answer = client::send(([127, 0, 0, 1], self.control).into(), request).await;
        assert_eq!(answer.status, 200);
    }

    async fn done(&self, arguments: &[&str], input: &str) {
        let mut child = Command::new(self.folder.join("bin/google-tool"))
            .args(arguments)
            .env("PUBSUB_EMULATOR_HOST", format!("127.0.0.1:{}", self.port))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the tool is installed");
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
    }
}

/// A running Cloud Storage, in memory, that tells a topic what happens to its objects.
#[derive(Debug)]
pub struct CloudStorage {
    port: u16,
    _child: Child,
}

impl CloudStorage {
    /// Starts one whose notifications go to a topic, which must be there; none where it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(pub_sub: &PubSub, topic: &str) -> Option<Self> {
        let folder = installed("google")?;
        let [port] = free_ports();
        let host = format!("127.0.0.1:{}", pub_sub.port);
        let arguments = ["-port", &port.to_string(), "-project", PROJECT, "-topic", topic];
        let child = spawn(&folder, "gcs-fake", &arguments, &[("PUBSUB_EMULATOR_HOST", &host)]);
        listening(port).await;
        Some(Self { port, _child: child })
    }

    /// Sends a request of the JSON API, and returns its answer where that is a success.
    ///
    /// # Panics
    /// If it is none.
    pub async fn request(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Bytes {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("127.0.0.1:{}", self.port))
            .header("content-type", "application/json")
            .body(body.into())
            .expect("method, path and headers are a request");
        let answer = client::send(([127, 0, 0, 1], self.port).into(), request).await;
        assert!((200..300).contains(&answer.status.as_u16()), "{method} {path}: {answer:?}");
        answer.body
    }
}

/// A message for [`PubSub::publish`].
pub fn message(data: &[u8], attributes: &[(&str, &str)], ordering_key: &str) -> Value {
    let attributes: serde_json::Map<_, _> =
        attributes.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({"data": STANDARD.encode(data), "attributes": attributes, "orderingKey": ordering_key})
}

fn spawn(folder: &std::path::Path, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    Command::new(folder.join("bin").join(program))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the server is installed")
}

async fn listening(port: u16) {
    let connect = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, connect).await.unwrap_or_else(|_| panic!("nobody listens at {port}"));
}
