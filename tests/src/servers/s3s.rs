//! s3s-fs, which speaks the protocol of S3 over a folder and checks signatures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{free_ports, installed};

/// The id of the key that it takes.
pub const KEY_ID: &str = "AKIDEXAMPLE";

/// The secret of the key that it takes.
pub const KEY: &str = "example-secret";

/// How long it may take to start on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A running s3s-fs.
#[derive(Debug)]
pub struct S3s {
    folder: PathBuf,
    data: TempDir,
    port: u16,
    child: Child,
}

impl S3s {
    /// Starts one without buckets; none where it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Option<Self> {
        let folder = installed("s3s")?;
        let data = tempfile::tempdir().expect("the machine has room for a directory");
        let [port] = free_ports();
        let child = spawn(&folder, data.path(), port);
        let started = Self { folder, data, port, child };
        started.wait_until_ready().await;
        Some(started)
    }

    /// Where it is: a URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Creates a bucket.
    ///
    /// # Panics
    /// If that fails.
    pub async fn create(&self, bucket: &str) {
        self.curl(&["-X", "PUT"], &format!("/{bucket}")).await;
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
        self.child = spawn(&self.folder, self.data.path(), self.port);
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&self) {
        let begun = tokio::time::Instant::now();
        while self.try_curl(&[], "/").await.is_err() {
            assert!(begun.elapsed() < START_PATIENCE, "s3s-fs does not get ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The headers and the body of an object, as curl got them.
    ///
    /// # Panics
    /// If there is none.
    pub async fn get(&self, bucket: &str, path: &str) -> (String, Vec<u8>) {
        let whole = self.curl(&["-i"], &format!("/{bucket}/{path}")).await;
        let end = whole.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8_lossy(&whole[..end]).to_lowercase();
        (head, whole[end + 4..].to_vec())
    }

    async fn curl(&self, arguments: &[&str], path: &str) -> Vec<u8> {
        self.try_curl(arguments, path).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// curl signs by itself.
    async fn try_curl(&self, arguments: &[&str], path: &str) -> Result<Vec<u8>, String> {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--fail",
                "--path-as-is",
                "--max-time",
                "20",
                "--aws-sigv4",
                "aws:amz:us-east-1:s3",
            ])
            .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "-u", &format!("{KEY_ID}:{KEY}")])
            .args(arguments)
            .arg(format!("{}{path}", self.endpoint()))
            .output()
            .await
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// All objects of a bucket by key, as they lie in its folder.
    ///
    /// # Panics
    /// If the folder cannot be read.
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        let root = self.data.path().join(bucket);
        let (mut objects, mut folders) = (BTreeMap::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("the folder is ours") {
                let path = entry.expect("the folder is ours").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path.strip_prefix(&root).expect("it lies below").to_string_lossy().into_owned();
                    objects.insert(key, std::fs::read(&path).expect("the file is ours"));
                }
            }
        }
        // What it notes about them lies beside them.
        objects.retain(|key, _| !key.rsplit('/').next().is_some_and(|name| name.starts_with('.')));
        objects
    }
}

fn spawn(folder: &Path, data: &Path, port: u16) -> Child {
    Command::new(folder.join("bin/s3s-fs"))
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--access-key", KEY_ID, "--secret-key", KEY])
        .arg(data)
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary was installed")
}
