//! OpenSearch with its security plugin, one node.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};

use super::{free_ports, installed};

/// The user who may do everything.
pub const USER: &str = "admin";

/// The password of [`USER`], as the installer sets it.
pub const PASSWORD: &str = "Wp-Strong#Passw0rd-7";

/// How long a node may take to start on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// The user that the node runs as where the tests run as root, which it refuses to be: `nobody`.
const NOBODY: u32 = 65_534;

/// One at a time: each is a Java machine.
static TURN: Mutex<()> = Mutex::const_new(());

/// A running node, asked by `curl`.
#[derive(Debug)]
pub struct OpenSearch {
    folder: TempDir,
    port: u16,
    certificate: String,
    child: Child,
    _turn: MutexGuard<'static, ()>,
}

impl OpenSearch {
    /// Starts a node without indexes; none where it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Option<Self> {
        let installed = installed("opensearch")?;
        let turn = TURN.lock().await;
        let folder = tempfile::tempdir().expect("the machine has room for a directory");
        let [port, transport] = free_ports();
        copy(&installed.join("node"), folder.path()).await;
        let certificate = configure(&folder.path().join("node/config"), port, transport);
        give_to_nobody(folder.path());
        let child = spawn(folder.path()).await;
        let mut node = Self { folder, port, certificate, child, _turn: turn };
        node.wait_until_ready().await;
        Some(node)
    }

    /// Where it listens, with TLS.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Its certificate, as PEM: its own authority.
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

    /// Starts it again on the same port and data.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_again(&mut self) {
        self.child = spawn(self.folder.path()).await;
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&mut self) {
        let begun = tokio::time::Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("OpenSearch ended with {status}: {}", self.log());
            }
            let health = self.try_ask("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s", "").await;
            match health {
                Ok((200, health)) if health["timed_out"] == false => return,
                other => assert!(
                    begun.elapsed() < START_PATIENCE,
                    "OpenSearch does not get ready: {other:?} {}",
                    self.log()
                ),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Asks for something as [`USER`], and returns what is answered.
    ///
    /// # Panics
    /// If that fails.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        match self.try_ask(method, path, body).await {
            Ok((200..300, answer)) => answer,
            other => panic!("{method} {path}: {other:?}"),
        }
    }

    /// All documents of an index, as they were found by a search.
    ///
    /// # Panics
    /// If they cannot be read.
    pub async fn documents(&self, index: &str) -> Vec<Value> {
        self.ask("POST", &format!("/{index}/_refresh"), "").await;
        let found = self.ask("GET", &format!("/{index}/_search?size=10000"), "").await;
        found["hits"]["hits"].as_array().cloned().unwrap_or_default()
    }

    /// The status and the body, by a client that knows nothing of ours.
    async fn try_ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, Value), String> {
        let mut child = Command::new("curl")
            .args(["-sS", "-X", method, "--max-time", "30", "--data-binary", "@-"])
            .args(["-H", "content-type: application/json", "-w", "\n%{http_code}"])
            .arg("--cacert")
            .arg(self.folder.path().join("certificate.pem"))
            .args(["-u", &format!("{USER}:{PASSWORD}")])
            .arg(format!("{}{path}", self.url()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().expect("the input is piped");
        // A server that is not there does not read it.
        drop(stdin.write_all(body.as_bytes()).await);
        drop(stdin);
        let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').ok_or("curl says nothing")?;
        match status.parse() {
            Ok(0) | Err(_) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Ok(status) => Ok((status, serde_json::from_str(body).unwrap_or_else(|_| body.into()))),
        }
    }
}

/// Gives the node files of its own, linked where that can be: the user that it runs as may not see the installed ones.
async fn copy(node: &Path, folder: &Path) {
    for option in ["-al", "-a"] {
        let copied = Command::new("cp").arg(option).arg(node).arg(folder).output().await;
        if copied.expect("every machine has cp").status.success() {
            return;
        }
        drop(std::fs::remove_dir_all(folder.join("node")));
    }
    panic!("{} cannot be copied to {}", node.display(), folder.display());
}

/// Writes ports and certificate into the node's own settings, and returns the certificate.
fn configure(config: &Path, port: u16, transport: u16) -> String {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("the names are names");
    let certificate = cert.pem();
    let installed = std::fs::read_to_string(config.join("opensearch.yml")).expect("the installer wrote it");
    let kept: String = installed
        .lines()
        .filter(|line| !line.starts_with("plugins.security.ssl.http.pem"))
        .filter(|line| !line.starts_with("plugins.security.audit"))
        .map(|line| format!("{line}\n"))
        .collect();
    let own = format!(
        "plugins.security.ssl.http.pemcert_filepath: http.pem\n\
         plugins.security.ssl.http.pemkey_filepath: http-key.pem\n\
         plugins.security.ssl.http.pemtrustedcas_filepath: http.pem\n\
         plugins.security.audit.type: noop\n\
         discovery.type: single-node\n\
         network.host: 127.0.0.1\n\
         http.port: {port}\n\
         transport.port: {transport}\n"
    );
    // Files of its own: those that are there may be links to the installed ones.
    let write = |name: &str, text: &str| {
        let path = config.join(name);
        drop(std::fs::remove_file(&path));
        std::fs::write(path, text).expect("the directory is ours");
    };
    write("opensearch.yml", &format!("{kept}{own}"));
    write("http.pem", &certificate);
    write("http-key.pem", &signing_key.serialize_pem());
    let folder = config.parent().and_then(Path::parent).expect("it lies in the folder of the node");
    std::fs::write(folder.join("certificate.pem"), &certificate).expect("the directory is ours");
    certificate
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives what the node writes to the user that it runs as.
fn give_to_nobody(folder: &Path) {
    let node = folder.join("node");
    for name in ["data", "logs", "tmp"] {
        std::fs::create_dir_all(node.join(name)).expect("the directory is ours");
    }
    if is_root() {
        let own = ["data", "logs", "tmp", "config"].map(|name| node.join(name));
        let files = ["opensearch.yml", "http.pem", "http-key.pem"].map(|name| node.join("config").join(name));
        for path in [folder.to_owned()].iter().chain(&own).chain(&files) {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
        }
    }
}

async fn spawn(folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("the directory is ours");
    let errors = log.try_clone().expect("a file can be had twice");
    let mut node = Command::new(folder.join("node/bin/opensearch"));
    node.current_dir(folder.join("node"))
        .env("OPENSEARCH_JAVA_HOME", java_home().await)
        .env("OPENSEARCH_TMPDIR", folder.join("node/tmp"))
        .env("OPENSEARCH_JAVA_OPTS", "-Xms256m -Xmx256m -XX:TieredStopAtLevel=1")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true);
    if is_root() {
        node.uid(NOBODY).gid(NOBODY);
    }
    node.spawn().expect("the node is installed")
}

/// The folder of the Java that is on the path.
async fn java_home() -> PathBuf {
    let told = Command::new("sh").args(["-c", "readlink -f \"$(command -v java)\""]).output().await;
    let told = told.expect("there is a java, since OpenSearch could be installed").stdout;
    let java = PathBuf::from(String::from_utf8_lossy(&told).trim());
    java.parent().and_then(Path::parent).expect("it lies in the folder bin of its home").to_owned()
}
