//! Apache Kafka, one node.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{free_ports, installed};

/// The user of the listener with SASL and TLS.
pub const USER: &str = "alice";

/// The password of [`USER`], by SCRAM-SHA-512 and by PLAIN.
pub const PASSWORD: &str = "alice-secret";

/// How long a Kafka may take to start on a busy machine, and a client for what it does.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Two at a time: each is a Java machine, and mostly waited for.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A running Kafka.
#[derive(Debug)]
pub struct Kafka {
    folder: PathBuf,
    data: TempDir,
    ports: [u16; 4],
    certificate: String,
    client: (String, String),
    child: Child,
    _turn: SemaphorePermit<'static>,
}

impl Kafka {
    /// Starts a Kafka without topics; none where it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Option<Self> {
        let folder = installed("kafka")?;
        let turn = TURNS.acquire().await.expect("it is never closed");
        let data = tempfile::tempdir().expect("the machine has room for a directory");
        let ports = free_ports();
        let (certificate, client) = write_certificates(data.path());
        std::fs::write(data.path().join("kafka.properties"), properties(data.path(), ports))
            .expect("the directory is ours");
        let mut format = java(&folder, data.path());
        format.args(["kafka.tools.StorageTool", "format", "-t", "monIW5J8QHyQS84ox3abCw"]);
        format.args(["-c", "kafka.properties", "--add-scram"]);
        format.arg(format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"));
        format.arg("--add-scram");
        format.arg(format!("SCRAM-SHA-256=[name={USER},password={PASSWORD}]"));
        let formatted = format.output().await.expect("there is a java, since Kafka could be installed");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let child = spawn(&folder, data.path());
        let mut kafka = Self { folder, data, ports, certificate, client, child, _turn: turn };
        kafka.wait_until_ready().await;
        Some(kafka)
    }

    /// Where it listens without any security: `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Where it listens with TLS, and asks for [`USER`] by SCRAM or PLAIN.
    pub fn secure_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2])
    }

    /// Where it listens with TLS, and asks for [`client_certificate`](Self::client_certificate).
    pub fn certified_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[3])
    }

    /// The certificate of the one client that it knows, and its key, as PEM.
    pub fn client_certificate(&self) -> (String, String) {
        self.client.clone()
    }

    /// The certificate of the secure listener, as PEM: its own authority.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Ends it as a loss of the process does. Its data stays.
    ///
    /// # Panics
    /// If it cannot be ended.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("the process is ours");
    }

    /// Starts it again on the same ports and data.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.folder, self.data.path());
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&mut self) {
        let probe = format!("probe-{}", self.child.id().expect("it was just started"));
        // Kafka's own client waits for a Kafka that is not there yet.
        let begun = tokio::time::Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("Kafka ended with {status}: {}", self.log());
            }
            let Err(complaint) = self.tool(&["create", &probe, "1"], "").await else { return };
            assert!(begun.elapsed() < START_PATIENCE, "Kafka does not get ready: {complaint} {}", self.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Creates a topic.
    ///
    /// # Panics
    /// If that fails.
    pub async fn create(&self, topic: &str, partitions: u32) {
        self.done(&["create", topic, &partitions.to_string()], "").await;
    }

    /// Sends records, each as [`record`] makes it.
    ///
    /// # Panics
    /// If that fails.
    pub async fn send(&self, topic: &str, records: impl IntoIterator<Item = Value>) {
        let lines: String = records.into_iter().map(|record| format!("{record}\n")).collect();
        self.done(&["send", topic], &lines).await;
    }

    /// All records of a topic.
    ///
    /// # Panics
    /// If they cannot be read.
    pub async fn read(&self, topic: &str) -> Vec<Record> {
        let lines = self.done(&["read", topic], "").await;
        lines.lines().map(Record::of).collect()
    }

    /// How many records of a topic a group has committed, and how many there are.
    ///
    /// # Panics
    /// If that cannot be told.
    pub async fn committed(&self, group: &str, topic: &str) -> (u64, u64) {
        let line = self.done(&["group", group, topic], "").await;
        let told: Value = serde_json::from_str(&line).expect("our own tool prints JSON");
        let number = |name: &str| told[name].as_u64().expect("our own tool prints numbers");
        (number("committed"), number("end"))
    }

    async fn done(&self, arguments: &[&str], input: &str) -> String {
        match self.tool(arguments, input).await {
            Ok(output) => output,
            Err(complaint) => panic!("{arguments:?}: {complaint}"),
        }
    }

    /// Runs the client of the tests, which is Kafka's own.
    async fn tool(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new("java")
            .args([
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            ])
            .arg("-cp")
            .arg(format!("{0}/tool:{0}/libs/*", self.folder.display()))
            .args(["KafkaTool", &self.address()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().expect("the input is piped");
        let input = input.to_owned();
        let write = async move {
            // A command that fails does not read its input.
            drop(stdin.write_all(input.as_bytes()).await);
        };
        let ((), output) =
            tokio::time::timeout(START_PATIENCE, async { tokio::join!(write, child.wait_with_output()) })
                .await
                .map_err(|_| "it does not end".to_owned())?;
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// A record that Kafka gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The partition.
    pub partition: u64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    fn of(line: &str) -> Self {
        let told: Value = serde_json::from_str(line).expect("our own tool prints JSON");
        let bytes = |value: &Value| {
            value.as_str().map(|text| STANDARD.decode(text).expect("our own tool prints base64"))
        };
        let headers = told["headers"].as_array().into_iter().flatten();
        Self {
            partition: told["partition"].as_u64().expect("a record has a partition"),
            key: bytes(&told["key"]),
            value: bytes(&told["value"]),
            headers: headers
                .map(|header| (header[0].as_str().unwrap_or_default().to_owned(), bytes(&header[1])))
                .collect(),
        }
    }

    /// The text of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(given, _)| given == name)?;
        Some(String::from_utf8_lossy(value.as_ref()?).into_owned())
    }
}

/// A record for [`Kafka::send`].
pub fn record(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> Value {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| STANDARD.encode(bytes));
    let headers: Vec<_> = headers.iter().map(|(name, value)| json!([name, text(*value)])).collect();
    json!({"key": text(key), "value": text(value), "headers": headers})
}

fn java(folder: &Path, data: &Path) -> Command {
    let mut java = Command::new("java");
    java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
        .arg(folder.join("libs/*"))
        .current_dir(data)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    java
}

fn spawn(folder: &Path, data: &Path) -> Child {
    let log = std::fs::File::create(data.join("log")).expect("the directory is ours");
    let errors = log.try_clone().expect("a file can be had twice");
    java(folder, data)
        .args(["kafka.Kafka", "kafka.properties"])
        .stdout(log)
        .stderr(errors)
        .spawn()
        .expect("there is a java, since Kafka could be installed")
}

/// Writes the key and certificate of the secure listeners and the certificate of a client that is trusted, and returns
/// both certificates, the latter with its key.
fn write_certificates(data: &Path) -> (String, (String, String)) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("the names are names");
    let certificate = cert.pem();
    // The key first, as PKCS #8.
    std::fs::write(data.join("server.pem"), format!("{}{certificate}", signing_key.serialize_pem()))
        .expect("the directory is ours");
    let client = generate_simple_self_signed(["client".to_owned()]).expect("the name is a name");
    let client = (client.cert.pem(), client.signing_key.serialize_pem());
    std::fs::write(data.join("client.pem"), &client.0).expect("the directory is ours");
    (certificate, client)
}

fn properties(data: &Path, [plain, controller, secure, certified]: [u16; 4]) -> String {
    let jaas = "org.apache.kafka.common.security";
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SASL_SSL://127.0.0.1:{secure},\
         SSL://127.0.0.1:{certified}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure},SSL://127.0.0.1:{certified}\n\
         inter.broker.listener.name=PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.location={data}/server.pem\n\
         listener.name.ssl.ssl.client.auth=required\n\
         listener.name.ssl.ssl.truststore.type=PEM\n\
         listener.name.ssl.ssl.truststore.location={data}/client.pem\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.sasl_ssl.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required \
         user_{USER}=\"{PASSWORD}\";\n\
         listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={jaas}.scram.ScramLoginModule required;\n\
         listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={jaas}.scram.ScramLoginModule required;\n\
         log.dirs={data}/data\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         auto.create.topics.enable=false\n\
         log.cleaner.dedupe.buffer.size=4194304\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.num.partitions=4\n\
         broker.session.timeout.ms=2000\n\
         broker.heartbeat.interval.ms=500\n",
        data = data.display()
    )
}
