//! The short forms of what `waypost-crash` does to the process: a test of its own for each, as CI has it. The long
//! forms, and those that need root or strace, are commands: see `docs/testing.md`.

use std::process::Command;

use waypost_tests::binary;

/// Runs a command of `waypost-crash` in its short form.
pub(crate) fn crash(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_waypost-crash"))
        .args(arguments)
        .env("WAYPOST_TEST_BINARY", binary::path())
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "waypost-crash {arguments:?}: {said}");
    assert!(!said.contains("SKIPPED"), "{said}");
}

#[test]
fn nothing_acknowledged_is_lost_over_twenty_kills_under_load() {
    crash(&["kills", "--count", "20"]);
}

#[test]
fn damage_is_refused_told_or_harmless() {
    crash(&["damage", "--places", "1", "--most", "12"]);
}
