//! What a user can get wrong: each gives one clear error with its code and its place, exit code 1, and no panic.

use serde_json::{Value, json};
use tempfile::TempDir;
use waypost_tests::binary::{Finished, run, run_in};
use waypost_tests::client::event;
use waypost_tests::process::{Setup, Waypost};

use crate::manifests::{broker, file, trigger};

/// A directory with one file of manifests.
fn with_file(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bad.yaml"), text).unwrap();
    directory
}

/// Checks that `check` finds exactly this problem, and that `run` refuses to start over it.
async fn refused(text: &str, code: &str, line: u64, path: &str, hint: &str) {
    let directory = with_file(text);
    let checked = run_in(directory.path(), &["check", "-f", "bad.yaml", "-o", "json"], b"").await;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let problems = checked.json();
    let [problem] = problems.as_array().unwrap().as_slice() else { panic!("not one problem: {problems:#}") };
    assert_eq!((&problem["code"], &problem["severity"]), (&json!(code), &json!("error")), "{problem:#}");
    assert_eq!((&problem["file"], &problem["line"]), (&json!("bad.yaml"), &json!(line)), "{problem:#}");
    assert_eq!(problem["path"], path, "{problem:#}");
    assert!(problem["column"].as_u64().is_some_and(|column| column > 0), "{problem:#}");
    let sentences = format!("{} {}", problem["message"], problem["help"]);
    assert!(sentences.contains(hint), "{hint:?} is not in {problem:#}");

    for arguments in [&["check", "-f", "bad.yaml"][..], &["run", "-f", "bad.yaml", "--log", "memory"]] {
        let told = run_in(directory.path(), arguments, b"").await;
        assert_eq!(told.code, Some(1), "{told:?}");
        let text = format!("{}{}", told.stdout, told.stderr);
        assert!(text.contains(code) && text.contains(&format!("bad.yaml:{line}")), "{told:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_yaml() {
    let text = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: [default\nspec: {}\n";
    let directory = with_file(text);
    let checked = run_in(directory.path(), &["check", "-f", "bad.yaml", "-o", "json"], b"").await;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let problem = &checked.json()[0];
    assert_eq!((&problem["code"], &problem["file"]), (&json!("E0101"), &json!("bad.yaml")));
    assert!(problem["line"].as_u64().is_some_and(|line| (4..=6).contains(&line)), "{problem:#}");
    let started = run_in(directory.path(), &["run", "-f", "bad.yaml", "--log", "memory"], b"").await;
    assert_eq!(started.code, Some(1), "{started:?}");
}

#[tokio::test]
async fn an_unknown_kind() {
    let text = "apiVersion: eventing.knative.dev/v1\nkind: broker\nmetadata:\n  name: default\n";
    refused(text, "E0105", 2, "kind", "Broker").await;
}

#[tokio::test]
async fn an_unknown_api_version() {
    let text = "apiVersion: waypost.dev/v7\nkind: Broker\nmetadata:\n  name: default\n";
    refused(text, "E0104", 1, "apiVersion", "waypost.dev/v1alpha1").await;
}

#[tokio::test]
async fn an_unknown_field_of_a_native_kind() {
    let text = "apiVersion: waypost.dev/v1alpha1\nkind: Broker\nmetadata:\n  name: default\nspec:\n  strictReplys: true\n";
    refused(text, "E0109", 6, "spec.strictReplys", "strictReplies").await;
}

#[tokio::test]
async fn an_unknown_field_of_a_component() {
    let text = "apiVersion: waypost.dev/v1alpha1\nkind: Sink\nmetadata:\n  name: s\nspec:\n  stdout:\n    colour: true\n";
    refused(text, "E0214", 7, "spec.stdout.colour", "colour").await;
}

#[tokio::test]
async fn an_unknown_component() {
    let text = "apiVersion: waypost.dev/v1alpha1\nkind: Sink\nmetadata:\n  name: s\nspec:\n  stdot: {}\n";
    refused(text, "E0213", 6, "spec.stdot", "stdout").await;
}

#[tokio::test]
async fn a_dangling_reference() {
    let text = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\n---\n\
                apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: t}\nspec:\n  broker: default\n  subscriber:\n    \
                ref:\n      apiVersion: waypost.dev/v1alpha1\n      kind: Sink\n      name: absent\n";
    refused(text, "E0203", 11, "spec.subscriber.ref", "absent").await;
}

#[tokio::test]
async fn a_service_without_a_url() {
    let text = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\n---\n\
                apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: t}\nspec:\n  broker: default\n  subscriber:\n    \
                ref: {apiVersion: v1, kind: Service, name: hello}\n";
    refused(text, "E0209", 11, "spec.subscriber.ref", "waypost.dev/url").await;
}

#[tokio::test]
async fn a_duplicate_name() {
    let text = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: default\n---\n\
                apiVersion: waypost.dev/v1alpha1\nkind: Broker\nmetadata:\n  name: default\n";
    refused(text, "E0202", 9, "metadata.name", "bad.yaml:").await;
}

/// A trigger whose `spec.filters` or `spec.filter` starts in line 10.
fn with_filter(filter: &str) -> String {
    format!(
        "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {{name: default}}\n---\n\
         apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {{name: t}}\nspec:\n  broker: default\n  {filter}\n  \
         subscriber: {{uri: 'http://127.0.0.1:1/'}}\n"
    )
}

#[tokio::test]
async fn an_attribute_name_in_a_filter_that_no_attribute_has() {
    for name in ["SOURCE", "souRce", "my_name", "my-name", "'123'", "'a b'", "ü", "'a.b'"] {
        let text = with_filter(&format!("filters:\n    - exact:\n        {name}: x"));
        let name = name.trim_matches('\'');
        let path = match name.contains('.') {
            true => format!("spec.filters[0].exact[{name}]"),
            false => format!("spec.filters[0].exact.{name}"),
        };
        refused(&text, "E0204", 12, &path, "lower-case").await;
    }
    refused(
        &with_filter("filter: {attributes: {TYPE: x}}"),
        "E0204",
        10,
        "spec.filter.attributes.TYPE",
        "lower-case",
    )
    .await;
}

#[tokio::test]
async fn a_filter_dialect_that_is_not_known_or_given_twice_or_not_at_all() {
    for (filter, path) in [
        ("[{regex: {type: x}}]", "spec.filters[0].regex"),
        ("[{exact: {type: x}, prefix: {type: x}}]", "spec.filters[0]"),
        ("[{}]", "spec.filters[0]"),
        ("[{exact: {type: ''}}]", "spec.filters[0].exact.type"),
        ("[{any: []}]", "spec.filters[0].any"),
    ] {
        refused(&with_filter(&format!("filters: {filter}")), "E0204", 10, path, "").await;
    }
}

#[tokio::test]
async fn an_expression_that_cannot_be_read() {
    refused(
        &with_filter("filters: [{cesql: \"type = 'x\"}]"),
        "E0216",
        10,
        "spec.filters[0].cesql",
        "column 8",
    )
    .await;
}

#[tokio::test]
async fn a_broken_duration() {
    let text = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\nspec:\n  delivery:\n    retry: 3\n    \
                backoffPolicy: linear\n    backoffDelay: 10s\n";
    refused(text, "E0114", 8, "spec.delivery.backoffDelay", "PT10S").await;
    let text = "apiVersion: waypost.dev/v1alpha1\nkind: Source\nmetadata: {name: s}\nspec:\n  schedule:\n    interval: 1s\n    \
                event: {type: t}\n  sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: default}}\n---\n\
                apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\n";
    refused(text, "E0214", 6, "spec.schedule.interval", "PT1S").await;
}

#[tokio::test]
async fn a_wrong_url() {
    for url in ["ftp://example.com/", "http://", "/relative", "http://exa mple.com/", "127.0.0.1:8080"] {
        let text = with_filter("").replace("http://127.0.0.1:1/", url);
        refused(&text, "E0210", 11, "spec.subscriber.uri", "http").await;
    }
}

#[tokio::test]
async fn all_problems_are_told_at_once() {
    let documents = [
        broker("default", json!({"delivery": {"retry": -1}})),
        trigger("t", "nowhere", json!({"filters": [{"exact": {"BAD": "x"}}]})),
        json!({"apiVersion": "v9", "kind": "Thing", "metadata": {"name": "x"}}),
    ];
    let directory = with_file(&file(&documents));
    let checked = run_in(directory.path(), &["check", "-f", "bad.yaml", "-o", "json"], b"").await;
    let problems = checked.json();
    let lines: Vec<_> =
        problems.as_array().unwrap().iter().map(|problem| problem["line"].as_u64().unwrap()).collect();
    assert!(lines.len() >= 4 && lines.is_sorted(), "{problems:#}");
}

#[tokio::test]
async fn good_manifests_have_an_empty_list_and_exit_code_0() {
    let directory = with_file(&file(&[broker("default", json!({}))]));
    let checked = run_in(directory.path(), &["check", "-f", "bad.yaml", "-o", "json"], b"").await;
    assert_eq!((checked.code, checked.json()), (Some(0), json!([])));
    // A warning alone is no failure.
    let directory = with_file("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n");
    let checked = run_in(directory.path(), &["check", "-f", "bad.yaml", "-o", "json"], b"").await;
    assert_eq!((checked.code, &checked.json()[0]["severity"]), (Some(0), &json!("warning")), "{checked:?}");
}

#[tokio::test]
async fn a_file_that_is_not_there() {
    // Where no process was before: one that finds what it knew of a file goes on with it.
    let directory = tempfile::tempdir().unwrap();
    for command in ["check", "run"] {
        let arguments = [command, "-f", "/nonexistent/manifests.yaml"];
        let finished = run_in(directory.path(), &arguments, b"").await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let text = format!("{}{}", finished.stdout, finished.stderr);
        assert!(text.contains("/nonexistent/manifests.yaml") && text.contains("error[E0"), "{finished:?}");
    }
}

/// Starts a second broker beside a running one, with these arguments, which must fail.
async fn fails_beside(waypost: &Waypost, arguments: &[&str]) -> Finished {
    let manifests = waypost.directory().join("manifests");
    let mut all = vec!["run", "-f", manifests.to_str().unwrap()];
    all.extend(arguments);
    let finished = run_in(waypost.directory(), &all, b"").await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    finished
}

async fn running() -> Waypost {
    Waypost::start(&file(&[broker("default", json!({}))])).await
}

#[tokio::test]
async fn a_port_that_is_in_use() {
    let waypost = running().await;
    let (ingress, admin) = (waypost.ingress.to_string(), waypost.admin.to_string());
    for (arguments, address) in [
        (["--listen", ingress.as_str(), "--admin-listen", "127.0.0.1:0"], &ingress),
        (["--listen", "127.0.0.1:0", "--admin-listen", admin.as_str()], &admin),
    ] {
        let finished = fails_beside(&waypost, &[&["--log", "memory"][..], &arguments].concat()).await;
        assert!(finished.stderr.contains("E0701") && finished.stderr.contains(address), "{finished:?}");
    }
    // The one that runs is untouched.
    waypost.accept(event("/default/default", "1", "t", &[], "")).await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_port_that_another_process_would_share() {
    let waypost = running().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let arguments = ["--log", "memory", "--admin-listen", "127.0.0.1:0", "--listen", &address];
    let finished = fails_beside(&waypost, &arguments).await;
    assert!(finished.stderr.contains("E0701") && finished.stderr.contains(&address), "{finished:?}");
    waypost.stop().await;
}

#[tokio::test]
async fn an_address_that_is_none() {
    let waypost = running().await;
    for address in ["nonsense", "127.0.0.1:99999", "203.0.113.7:80"] {
        let finished = fails_beside(&waypost, &["--log", "memory", "--listen", address]).await;
        assert!(finished.stderr.contains("E0702") && finished.stderr.contains(address), "{finished:?}");
    }
    waypost.stop().await;
}

#[tokio::test]
async fn a_data_directory_that_another_process_uses() {
    let waypost = Setup::new(&file(&[broker("default", json!({}))])).start().await;
    let data = waypost.directory().join("data");
    let arguments =
        ["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let finished = fails_beside(&waypost, &arguments).await;
    assert!(
        finished.stderr.contains("E0703") && finished.stderr.contains(data.to_str().unwrap()),
        "{finished:?}"
    );
    waypost.stop().await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written() {
    let waypost = running().await;
    // Even root cannot make a directory below a file.
    let data = waypost.directory().join("manifests/manifests.yaml/data");
    let arguments =
        ["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let finished = fails_beside(&waypost, &arguments).await;
    assert!(
        finished.stderr.contains("E0704") && finished.stderr.contains("another data directory"),
        "{finished:?}"
    );
    waypost.stop().await;
}

#[tokio::test]
async fn an_admin_listener_outside_loopback_wants_a_token() {
    let waypost = running().await;
    let open = ["--log", "memory", "--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"];
    let finished = fails_beside(&waypost, &open).await;
    assert!(finished.stderr.contains("E0705"), "{finished:?}");
    waypost.stop().await;

    let waypost = Setup::new(&file(&[broker("default", json!({}))])).token("secret").start().await;
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some("secret"), 200)] {
        let headers: Vec<_> = token.map(|token| format!("Bearer {token}")).into_iter().collect();
        let headers: Vec<_> = headers.iter().map(|value| ("authorization", value.as_str())).collect();
        let request = waypost_tests::client::request(http::Method::GET, "/api/v1/status", &headers, "");
        assert_eq!(waypost_tests::client::send(waypost.admin, request).await.status, status, "{token:?}");
    }
    assert!(waypost.log().iter().map(Value::to_string).all(|line| !line.contains("secret")));
    waypost.stop().await;
}

#[tokio::test]
async fn wrong_usage_has_exit_code_2() {
    for arguments in
        [&["run"][..], &["check", "--nonsense"], &["nonsense"], &["run", "-f", "x", "--log", "tape"]]
    {
        let finished = run(arguments).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains("error:"), "{finished:?}");
    }
}
