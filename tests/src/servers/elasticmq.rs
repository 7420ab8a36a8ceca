//! ElasticMQ, which speaks the protocol of SQS. It checks no credentials.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{free_ports, installed};
use crate::client::{Answer, Connection, request};

/// How long an ElasticMQ may take to start on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running ElasticMQ.
#[derive(Debug)]
pub struct ElasticMq {
    folder: PathBuf,
    data: TempDir,
    port: u16,
    child: Child,
}

impl ElasticMq {
    /// Starts one without queues; none where it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Option<Self> {
        let folder = installed("elasticmq")?;
        let data = tempfile::tempdir().expect("the machine has room for a directory");
        let [port] = free_ports();
        std::fs::write(data.path().join("elasticmq.conf"), configuration(port))
            .expect("the directory is ours");
        let child = spawn(&folder, data.path());
        let mut started = Self { folder, data, port, child };
        started.wait_until_ready().await;
        Some(started)
    }

    /// Where it is: a URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops it. Its queues and messages stay.
    ///
    /// # Panics
    /// If it cannot be stopped.
    pub async fn stop(&mut self) {
        let id = self.child.id().expect("it runs").to_string();
        let stopped = Command::new("kill").args(["-TERM", &id]).status().await;
        assert!(stopped.is_ok_and(|status| status.success()), "the process is ours");
        self.child.wait().await.expect("the process is ours");
    }

    /// Starts it again on the same port and data.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.folder, self.data.path());
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&mut self) {
        let begun = tokio::time::Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("ElasticMQ ended with {status}: {}", self.log());
            }
            if tokio::net::TcpStream::connect(self.address()).await.is_ok()
                && self.try_call("ListQueues", json!({})).await.status == StatusCode::OK
            {
                return;
            }
            assert!(begun.elapsed() < START_PATIENCE, "ElasticMQ does not get ready: {}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    async fn try_call(&self, action: &str, asked: Value) -> Answer {
        call_over(&mut Connection::http1(self.address()).await, action, &asked).await
    }

    /// Calls an action of SQS.
    ///
    /// # Panics
    /// If it fails.
    pub async fn call(&self, action: &str, asked: Value) -> Value {
        let answer = self.try_call(action, asked).await;
        assert_eq!(answer.status, StatusCode::OK, "{action}: {answer:?}");
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// Creates a queue, and returns its URL.
    pub async fn create(&self, name: &str, attributes: Value) -> String {
        let created = self.call("CreateQueue", json!({"QueueName": name, "Attributes": attributes})).await;
        created["QueueUrl"].as_str().expect("a queue has a URL").to_owned()
    }

    /// Sends messages, each an entry of `SendMessageBatch` without its id.
    ///
    /// # Panics
    /// If one is not taken.
    pub async fn send(&self, url: &str, entries: &[Value]) {
        let mut connection = Connection::http1(self.address()).await;
        for entries in entries.chunks(10) {
            let entries: Vec<_> = entries
                .iter()
                .enumerate()
                .map(|(index, entry)| {
                    let mut entry = entry.clone();
                    entry["Id"] = index.to_string().into();
                    entry
                })
                .collect();
            let asked = json!({"QueueUrl": url, "Entries": entries});
            let answer = call_over(&mut connection, "SendMessageBatch", &asked).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let failed = answer.json()["Failed"].as_array().map_or(0, Vec::len);
            assert_eq!(failed, 0, "{answer:?}");
        }
    }

    /// How many messages a queue holds, those that someone has received included.
    pub async fn held(&self, url: &str) -> u64 {
        let told = self.call("GetQueueAttributes", json!({"QueueUrl": url, "AttributeNames": ["All"]})).await;
        let number = |name: &str| {
            let text = told["Attributes"][name].as_str().unwrap_or("0");
            text.parse::<u64>().expect("a number of messages")
        };
        number("ApproximateNumberOfMessages")
            + number("ApproximateNumberOfMessagesNotVisible")
            + number("ApproximateNumberOfMessagesDelayed")
    }
}

async fn call_over(connection: &mut Connection, action: &str, asked: &Value) -> Answer {
    let target = format!("AmazonSQS.{action}");
    let headers = [
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-target", &*target),
        // Nobody checks it, and somebody has to say which region it is.
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=x/20250101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=x",
        ),
    ];
    connection.send(request(Method::POST, "/", &headers, asked.to_string())).await
}

fn configuration(port: u16) -> String {
    format!(
        "include classpath(\"application.conf\")\n\
         node-address {{ protocol = http, host = 127.0.0.1, port = {port}, context-path = \"\" }}\n\
         rest-sqs {{ enabled = true, bind-hostname = \"127.0.0.1\", bind-port = {port}, sqs-limits = strict }}\n\
         rest-stats {{ enabled = false }}\n\
         generate-node-address = false\n\
         queues-storage {{ enabled = true, path = \"./queues.conf\" }}\n\
         messages-storage {{ enabled = true, uri = \"jdbc:h2:./messages;AUTO_SERVER=FALSE\", driver-class = \"org.h2.Driver\" }}\n"
    )
}

fn spawn(folder: &Path, data: &Path) -> Child {
    let log = std::fs::File::create(data.join("log")).expect("the directory is ours");
    let errors = log.try_clone().expect("a file can be had twice");
    Command::new("java")
        .args([
            "-Xmx160m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dconfig.file=elasticmq.conf",
            "-cp",
        ])
        .arg(folder.join("libs/*"))
        .arg("org.elasticmq.server.Main")
        .current_dir(data)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .expect("there is a java, since ElasticMQ could be installed")
}
