//! The rule of who may depend on whom (docs/architecture.md).

use std::process::Command;

use serde_json::Value;
use waypost_tests::binary::root;

/// Each package and those of ours that it may use. What is not here is forbidden.
const ALLOWED: &[(&str, &[&str])] = &[
    ("waypost-core", &[]),
    ("waypost-clients", &["waypost-core"]),
    ("waypost-log", &["waypost-core", "waypost-clients"]),
    ("waypost-engine", &["waypost-core", "waypost-clients", "waypost-log"]),
    ("waypost-sources", &["waypost-core", "waypost-clients"]),
    ("waypost-sinks", &["waypost-core", "waypost-clients"]),
    ("waypost-transformations", &["waypost-core"]),
    (
        "waypost",
        &[
            "waypost-core",
            "waypost-clients",
            "waypost-log",
            "waypost-engine",
            "waypost-sources",
            "waypost-sinks",
            "waypost-transformations",
        ],
    ),
    ("waypost-tests", &["waypost-core", "waypost-sources", "waypost-sinks", "waypost-transformations"]),
];

#[test]
fn packages_use_each_other_in_one_direction_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: Vec<_> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut expected: Vec<_> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let mut found = names.clone();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "the packages of the workspace");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let allowed = ALLOWED.iter().find(|(known, _)| *known == name).unwrap().1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            // A package may use itself with other features for its own tests.
            let itself = used == name && dependency["kind"] == "dev";
            assert!(
                !names.contains(&used) || itself || allowed.contains(&used),
                "{name} must not use {used}"
            );
        }
    }
}
