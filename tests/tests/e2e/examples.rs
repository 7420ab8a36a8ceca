//! The examples and the commands of the README: what a newcomer types works.

use serde_json::Value;
use waypost_tests::binary::{root, run};
use waypost_tests::client::event;
use waypost_tests::ledger::count;
use waypost_tests::process::Setup;

#[tokio::test]
async fn every_example_is_without_problems() {
    let mut checked = 0;
    for entry in std::fs::read_dir(root().join("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".event.json") {
            continue;
        }
        if let Some(tested) = name.strip_suffix(".test.yaml") {
            let manifests = path.with_file_name(format!("{tested}.yaml"));
            let arguments = ["test", "-f", manifests.to_str().unwrap(), "-f", path.to_str().unwrap()];
            let finished = run(&arguments).await;
            assert_eq!(finished.code, Some(0), "{finished:?}");
            continue;
        }
        let finished = run(&["check", "-f", path.to_str().unwrap(), "-o", "json"]).await;
        assert_eq!(
            (finished.code, finished.json()),
            (Some(0), Value::Array(Vec::new())),
            "{}",
            path.display()
        );
        checked += 1;
    }
    assert!(checked >= 3, "{checked} examples");
}

fn quickstart() -> String {
    std::fs::read_to_string(root().join("deploy/examples/quickstart.yaml")).unwrap()
}

#[tokio::test]
async fn the_quickstart_prints_a_heartbeat_and_the_event_that_is_sent_to_it() {
    let waypost = Setup::new(&quickstart()).start().await;
    waypost_tests::eventually("a heartbeat", async || {
        waypost.stdout().contains("com.example.heartbeat  →  default/heartbeat-console").then_some(())
    })
    .await;
    let order = event(
        "/default/default",
        "4711",
        "com.example.order.placed",
        &[("content-type", "application/json")],
        "{}",
    );
    waypost.accept(order).await;
    waypost_tests::eventually("the order", async || {
        waypost.stdout().contains("com.example.order.placed  →  default/order-console").then_some(())
    })
    .await;
    let status = waypost.status().await;
    let resources = status["resources"].as_array().unwrap();
    assert_eq!(resources.len(), 6, "{status:#}");
    assert!(resources.iter().all(|row| row["ready"] == true), "{status:#}");
    assert_eq!(count(&waypost.trigger("orders").await, "delivered"), 1);
    assert!(count(&waypost.trigger("heartbeats").await, "delivered") >= 1);
    waypost.stop().await;
}

/// The lines of the `sh` blocks of the README, with those that end in a backslash joined.
fn readme_commands() -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = readme.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines =
        blocks.flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect()
}

#[tokio::test]
async fn the_commands_of_the_readme_work() {
    let commands = readme_commands();
    assert_eq!(commands[0], "cargo run --release -- run -f deploy/examples/quickstart.yaml", "{commands:#?}");
    assert!(commands.contains(&"cargo test --workspace".to_owned()), "{commands:#?}");
    let waypost = Setup::new(&quickstart()).start().await;
    let (mut asked, mut curled) = (0, 0);
    for command in &commands[1..] {
        // These build, and what they do is what the other tests do.
        if command.starts_with("cargo test")
            || command.starts_with("cargo build")
            || command.starts_with("cargo bench")
        {
            continue;
        }
        let binary = waypost_tests::binary::path().to_str().unwrap();
        let line = command
            .replace("cargo run --release --", binary)
            .replace("target/release/waypost", binary)
            .replace("127.0.0.1:8080", &waypost.ingress.to_string())
            .replace("127.0.0.1:8081", &waypost.admin.to_string());
        if line.starts_with("curl ") {
            if std::process::Command::new("curl").arg("--version").output().is_err() {
                continue;
            }
            curled += 1;
        }
        asked += 1;
        let output = tokio::process::Command::new("sh")
            .args(["-c", &line])
            .env("WAYPOST_ADMIN", format!("http://{}", waypost.admin))
            .current_dir(root())
            .output();
        let output = tokio::time::timeout(waypost_tests::PATIENCE, output).await.expect(command).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}: {output:?}");
        assert!(!line.starts_with("curl -i") || text.contains("202 Accepted"), "{command}: {text}");
    }
    assert!(asked >= 3, "{commands:#?}");
    if curled > 0 {
        waypost_tests::eventually("the order of the README", async || {
            (count(&waypost.trigger("orders").await, "delivered") >= curled).then_some(())
        })
        .await;
    }
    waypost.stop().await;
}

#[test]
fn what_the_readme_points_to_is_there() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let mut files = links.filter(|target| !target.starts_with('#') && !target.contains("://")).peekable();
    assert!(files.peek().is_some());
    for link in files {
        let file = link.split_once('#').map_or(link, |(file, _)| file);
        assert!(root().join(file).exists(), "{link}");
    }
    let names = readme.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::"));
    let mut named = 0;
    for (module, test) in names {
        let source = std::fs::read_to_string(root().join(format!("tests/tests/e2e/{module}.rs"))).unwrap();
        assert!(source.contains(&format!("fn {test}()")), "{module}::{test}");
        named += 1;
    }
    assert!(named >= 5, "{named} tests are named");
}
