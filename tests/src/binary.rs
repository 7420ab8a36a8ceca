//! The binary under test: built once, found by what cargo says about it, and run to its end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::PATIENCE;

/// The top of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the checkout")
}

/// The path of `waypost`: what the environment variable `WAYPOST_TEST_BINARY` names, such as a binary that was built
/// for release; else it is built in the profile of the tests at the first call.
///
/// # Panics
/// If it cannot be built.
pub fn path() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("WAYPOST_TEST_BINARY").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // As `cargo test --workspace` builds: another choice of packages has other features, and is built from the ground up.
    cargo.args(["build", "--workspace", "--bin", "waypost", "--test", "e2e"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // What cargo says of the package of the tests is taken for a change by build scripts that read it, such as that of
    // `ring`: half of all would be compiled anew, each time.
    let told = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"].iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        cargo.env_remove(name);
    }
    let output = cargo
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo, which runs the tests, can be started");
    assert!(output.status.success(), "waypost cannot be built: see the messages of the compiler above");
    let lines = output.stdout.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == "waypost")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable that it built")
}

/// What a command left behind when it ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; absent where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// The standard output as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The text of both outputs holds no trace of a panic.
    ///
    /// # Panics
    /// If it does.
    pub fn no_panic(&self) {
        for text in [&self.stdout, &self.stderr] {
            assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{self:?}");
        }
    }
}

/// Runs `waypost` with these arguments, in this directory, until it ends, and feeds it `input`.
///
/// # Panics
/// If it does not end within [`PATIENCE`], or if it panics.
pub async fn run_in(directory: &Path, arguments: &[&str], input: &[u8]) -> Finished {
    let mut child = tokio::process::Command::new(path())
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary that was just built can be started");
    let mut stdin = child.stdin.take().expect("the input is piped");
    // A command that does not read its input may be gone before all is written.
    drop(stdin.write_all(input).await);
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("waypost {arguments:?} does not end"))
        .expect("the outputs of a child can be read");
    let finished = Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    finished.no_panic();
    finished
}

/// As [`run_in`], in the top of the checkout and with an empty input.
pub async fn run(arguments: &[&str]) -> Finished {
    run_in(root(), arguments, b"").await
}
