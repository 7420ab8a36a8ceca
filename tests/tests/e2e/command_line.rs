//! The commands, as people and programs use them.

use serde_json::{Value, json};
use waypost_tests::binary::{root, run, run_in};
use waypost_tests::client::event;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::Subscriber;

use crate::manifests::{broker, default_broker, file, native_broker, trigger};

const INGRESS: &str = "/default/default";

#[tokio::test]
async fn send_makes_an_event_from_flags() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    let url = format!("http://{}{INGRESS}", waypost.ingress);
    for mode in ["binary", "structured"] {
        let arguments = [
            "send",
            &url,
            "--mode",
            mode,
            "--type",
            "t",
            "--id",
            mode,
            "--source",
            "/cli",
            "--subject",
            "s",
            "--time",
            "2020-01-01T00:00:00+02:00",
            "--datacontenttype",
            "application/json",
            "--data",
            "{\"a\": 1.0}",
            "-e",
            "tier=gold",
        ];
        let sent = run(&arguments).await;
        assert_eq!(sent.code, Some(0), "{sent:?}");
    }
    let received = subscriber.wait_for(2).await;
    for received in received {
        for (name, value) in [
            ("ce-source", "/cli"),
            ("ce-type", "t"),
            ("ce-subject", "s"),
            ("ce-time", "2020-01-01T00:00:00+02:00"),
            ("ce-tier", "gold"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(received.header(name), value, "{received:?}");
        }
        assert_eq!(received.body, "{\"a\": 1.0}");
    }
    // The least that says something: the rest is filled in.
    assert_eq!(run(&["send", &url, "--type", "t"]).await.code, Some(0));
    let received = subscriber.wait_for(3).await;
    assert!(!received[2].header("ce-id").is_empty() && !received[2].header("ce-source").is_empty());
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn send_passes_on_what_the_input_holds_and_tells_what_the_broker_says() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    let url = format!("http://{}{INGRESS}", waypost.ingress);
    let one = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
    for input in [one("1"), json!([one("2"), one("3")])] {
        let sent = run_in(root(), &["send", &url, "-o", "json"], input.to_string().as_bytes()).await;
        assert_eq!((sent.code, &sent.json()["status"]), (Some(0), &json!(202)), "{sent:?}");
    }
    assert_eq!(subscriber.wait_for(3).await.len(), 3);

    let refused = run_in(root(), &["send", &url], one("").to_string().as_bytes()).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("E0603") || refused.stderr.contains("E0603"), "{refused:?}");
    for bad in ["http://127.0.0.1:1/", "nonsense", "ftp://127.0.0.1/"] {
        let failed = run(&["send", bad, "--type", "t"]).await;
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(failed.stderr.contains("error[E07"), "{failed:?}");
    }
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_log_in_memory_shows_in_the_status() {
    let native = native_broker("asked", json!({"log": "memory"}));
    let waypost = Setup::new(&file(&[native, broker("default", json!({}))])).start().await;
    let status = waypost.status().await;
    let kind = |name: &str| {
        let logs = status["logs"].as_array().unwrap();
        logs.iter().find(|log| log["name"] == name).unwrap()["kind"].clone()
    };
    assert_eq!((kind("asked"), kind("default")), (json!("memory"), json!("embedded")));
    waypost.stop().await;
    let waypost = Setup::new(&default_broker(&[])).memory().start().await;
    let table = run(&["status", "--admin", &format!("http://{}", waypost.admin)]).await;
    assert!(table.stdout.contains("kept in memory only"), "{}", table.stdout);
    waypost.stop().await;
}

#[tokio::test]
async fn status_is_a_table_for_people_and_json_for_programs() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[
        trigger("first", &subscriber.url("/"), json!({})),
        trigger("second", &subscriber.url("/"), json!({})),
    ]))
    .await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    let admin = format!("http://{}", waypost.admin);
    let table = run(&["status", "--admin", &admin]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    for text in ["first", "second", "Broker", "embedded"] {
        assert!(table.stdout.contains(text), "{text:?} is not in {}", table.stdout);
    }
    let status = run(&["status", "--admin", &admin, "-o", "json"]).await.json();
    waypost_tests::ledger::ledger_holds(&status);
    for member in ["version", "plan", "resources", "triggers"] {
        assert!(!status[member].is_null(), "{status:#}");
    }
    let page = run(&["status", "--admin", &admin, "-o", "json", "--limit", "1", "--after", "default/first"])
        .await
        .json();
    let names: Vec<_> = page["triggers"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, [&json!("second")]);
    let one =
        run(&["status", "--admin", &admin, "-o", "json", "-n", "default", "--trigger", "first"]).await.json();
    assert_eq!(one["triggers"].as_array().unwrap().len(), 1);
    assert_eq!(run(&["status", "--admin", &admin, "--recount"]).await.code, Some(0));

    let failed = run(&["status", "--admin", "http://127.0.0.1:1"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("error[E07"), "{failed:?}");
    waypost.stop().await;
}

#[tokio::test]
async fn the_schema_takes_our_examples_apart_field_by_field() {
    let schema = run(&["schema"]).await;
    assert_eq!(schema.code, Some(0));
    let text = schema.json().to_string();
    for word in ["schedule", "stdout", "interval", "strictReplies", "maxInFlight"] {
        assert!(text.contains(word), "{word} is not in the schema");
    }
}

#[tokio::test]
async fn completions_help_and_version_are_there() {
    for shell in ["bash", "zsh", "fish"] {
        let completions = run(&["completions", shell]).await;
        assert!(completions.code == Some(0) && completions.stdout.contains("waypost"), "{completions:?}");
    }
    let help = run(&["--help"]).await;
    for command in ["run", "check", "send", "status", "schema", "completions"] {
        assert!(help.stdout.contains(command), "{}", help.stdout);
    }
    assert!(run(&["--version"]).await.stdout.contains(env!("CARGO_PKG_VERSION")));
    assert!(run(&["run", "--help"]).await.stdout.contains("WAYPOST_LISTEN"));
}

#[tokio::test]
async fn the_admin_listener_answers_health_metrics_and_problems() {
    let waypost = Waypost::start(&file(&[broker("default", json!({}))])).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(waypost.admin_get(path).await.status, 200);
    }
    let metrics = waypost.admin_get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("# TYPE ") && text.contains("# HELP "), "{text}");
    waypost.admin_get("/nowhere").await.problem(404);
    waypost.admin_post("/api/v1/status").await.problem(405);
    waypost.admin_get("/api/v1/status?limit=nonsense").await.problem(400);
    waypost.stop().await;
}

#[tokio::test]
async fn every_flag_of_run_is_an_environment_variable_too() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.yaml");
    std::fs::write(&good, file(&[broker("default", json!({}))])).unwrap();
    let output = tokio::process::Command::new(waypost_tests::binary::path())
        .arg("check")
        .env("WAYPOST_FILE", &good)
        .env("WAYPOST_OUTPUT", "json")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), json!([]));
}
