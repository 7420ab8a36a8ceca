//! The webhook source, sent to as its senders do. Signatures are made by Perl, which a build needs anyway.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use waypost_tests::client::request;
use waypost_tests::eventually;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Received, Subscriber};

use crate::manifests::{default_broker, native_trigger, trigger};

fn source(name: &str, settings: &Value) -> Value {
    let sink = json!({"ref": {"apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "name": "default"}});
    json!({
        "apiVersion": "waypost.dev/v1alpha1",
        "kind": "Source",
        "metadata": {"name": name},
        "spec": {"webhook": settings, "sink": sink},
    })
}

/// HMAC-SHA256 in hexadecimal digits, by another implementation than ours.
fn sign(secret: &str, text: &str) -> String {
    let program = "print hmac_sha256_hex($ARGV[1], $ARGV[0])";
    let signed =
        Command::new("perl").args(["-MDigest::SHA=hmac_sha256_hex", "-e", program, secret, text]).output();
    String::from_utf8(signed.expect("there is a perl").stdout).expect("digits")
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

async fn post(
    waypost: &Waypost,
    name: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> waypost_tests::client::Answer {
    let path = format!("/default/sources/{name}");
    waypost.send(request(Method::POST, &path, headers, body.to_owned())).await
}

async fn ready(waypost: &Waypost, kind: &str, name: &str) {
    eventually("the source to be ready", async || {
        (waypost.resource(kind, name).await["ready"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_signed_becomes_an_event_and_all_else_is_refused() {
    let subscriber = Subscriber::accepting().await;
    let secret = |name: &str| json!({"verify": {name: {"secrets": [{"value": "s3cret"}]}}});
    let manifests = default_broker(&[
        trigger("all", &subscriber.url("/"), json!({})),
        source("github", &secret("github")),
        source("slack", &secret("slack")),
        source("open", &json!({"methods": ["POST", "PUT"], "allowOrigin": "https://shop.example"})),
        json!({
            "apiVersion": "waypost.dev/v1alpha1", "kind": "Source", "metadata": {"name": "tick"},
            "spec": {"schedule": {"interval": "P7D", "event": {"type": "tick"}}, "sink": {"ref": {
                "apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "name": "default",
            }}},
        }),
    ]);
    let waypost = Setup::new(&manifests).arguments(&["--max-event-bytes", "131072"]).start().await;
    for name in ["github", "slack", "open"] {
        ready(&waypost, "Source", name).await;
    }
    let body = r#"{"action": "opened",  "repository": {"url": "https://api.github.com/repos/a/b"}}"#;
    let signature = format!("sha256={}", sign("s3cret", body));
    let headers = [
        ("x-github-event", "issues"),
        ("x-github-delivery", "72d3162e"),
        ("content-type", "application/json"),
        ("x-hub-signature-256", signature.as_str()),
    ];
    assert_eq!(post(&waypost, "github", &headers, body).await.status, StatusCode::ACCEPTED);
    let received = subscriber.wait_for(1).await;
    assert_eq!(received[0].body, body, "byte for byte");
    let attributes = ["ce-id", "ce-type", "ce-source"].map(|name| received[0].header(name).to_owned());
    assert_eq!(attributes, ["72d3162e", "com.github.issues.opened", "https://api.github.com/repos/a/b"]);
    assert_eq!(received[0].header("x-hub-signature-256"), "", "what proves the sender goes no further");

    let changed = body.replace("opened", "closed");
    assert_eq!(post(&waypost, "github", &headers, &changed).await.problem(401)["code"], "E0306");
    assert_eq!(post(&waypost, "github", &headers[..3], body).await.problem(401)["code"], "E0306");

    let challenge = r#"{"type": "url_verification", "challenge": "3eZbrw1a"}"#;
    let slack = async |at: u64| {
        let at = at.to_string();
        let signature = format!("v0={}", sign("s3cret", &format!("v0:{at}:{challenge}")));
        let headers = [("x-slack-request-timestamp", at.as_str()), ("x-slack-signature", signature.as_str())];
        post(&waypost, "slack", &headers, challenge).await
    };
    let answer = slack(now()).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"3eZbrw1a"[..]));
    assert_eq!(slack(now() - 600).await.problem(401)["code"], "E0307");

    let open = "/default/sources/open";
    let put = waypost.send(request(Method::PUT, &format!("{open}/a/b?c=d"), &[], "x")).await;
    assert_eq!(
        (put.status, put.header("access-control-allow-origin")),
        (StatusCode::ACCEPTED, "https://shop.example")
    );
    let get = waypost.send(request(Method::GET, open, &[], "")).await;
    assert_eq!(
        (get.problem(405)["code"].as_str(), get.header("allow")),
        (Some("E0651"), "POST, PUT, OPTIONS")
    );
    let options = waypost.send(request(Method::OPTIONS, open, &[], "")).await;
    assert_eq!(options.header("access-control-allow-methods"), "POST, PUT");
    let large = "x".repeat(140_000);
    assert_eq!(post(&waypost, "open", &[], &large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        post(&waypost, "open", &[("content-encoding", "gzip")], "x").await.problem(415)["code"],
        "E0658"
    );
    assert_eq!(post(&waypost, "none", &[], "x").await.problem(404)["code"], "E0650");
    assert_eq!(post(&waypost, "tick", &[], "x").await.problem(404)["code"], "E0650");
    waypost.settled().await;
    let matched = count(&waypost.trigger("all").await, "matched");
    // What is due at the start of the week may have come meanwhile.
    let ticks = subscriber.received().iter().filter(|one| one.header("ce-type") == "tick").count();
    assert_eq!(matched as usize - ticks, 2, "what was refused is no event");
    waypost.stop().await;
}

#[tokio::test]
async fn a_secret_is_renewed_without_a_restart_while_both_are_good() {
    let subscriber = Subscriber::accepting().await;
    let setup = Setup::empty();
    let [old, new] = ["old", "new"].map(|name| setup.directory().join(name));
    let settings = json!({"verify": {"bearer": {"secrets": [{"file": old}, {"file": new}]}}});
    let manifests =
        default_broker(&[trigger("all", &subscriber.url("/"), json!({})), source("in", &settings)]);
    let waypost = setup.file("manifests.yaml", &manifests).allow("E0305").start().await;
    eventually("the missing secret to be told", async || {
        (waypost.resource("Source", "in").await["reason"] == "E0305").then_some(())
    })
    .await;
    let answer = post(&waypost, "in", &[("authorization", "Bearer one")], "x").await;
    assert_eq!((answer.problem(503)["code"].as_str(), answer.header("retry-after")), (Some("E0655"), "1"));
    std::fs::write(&old, "one\n").unwrap();
    std::fs::write(&new, "two\n").unwrap();
    ready(&waypost, "Source", "in").await;
    for token in ["Bearer one", "Bearer two"] {
        assert_eq!(post(&waypost, "in", &[("authorization", token)], "x").await.status, StatusCode::ACCEPTED);
    }
    let wrong = post(&waypost, "in", &[("authorization", "Bearer three")], "x").await;
    assert_eq!(
        (wrong.problem(401)["code"].as_str(), wrong.header("www-authenticate")),
        (Some("E0306"), "Bearer")
    );
    std::fs::write(&old, "three\n").unwrap();
    eventually("the new secret to be good", async || {
        let answer = post(&waypost, "in", &[("authorization", "Bearer three")], "x").await;
        (answer.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    assert_eq!(
        post(&waypost, "in", &[("authorization", "Bearer two")], "x").await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        post(&waypost, "in", &[("authorization", "Bearer one")], "x").await.status,
        StatusCode::UNAUTHORIZED
    );
    let log: String = waypost.log().iter().map(Value::to_string).collect();
    assert!(!log.contains("three") && !log.contains("two"), "a secret in the log");
    waypost.stop().await;
}

/// Sends each number until it is taken, as senders do, and returns what was not taken at first.
async fn send_until_taken(waypost: &Waypost, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let id = number.to_string();
        let answer = post(waypost, "in", &[("x-id", &id)], &id).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
}

#[tokio::test]
async fn all_that_was_taken_arrives_though_waypost_is_killed() {
    let subscriber = Subscriber::accepting().await;
    let settings = json!({"eventId": "${header.x-id}"});
    let manifests =
        default_broker(&[trigger("all", &subscriber.url("/"), json!({})), source("in", &settings)]);
    let waypost = Setup::new(&manifests).start().await;
    ready(&waypost, "Source", "in").await;
    send_until_taken(&waypost, 0..500).await;
    let waypost = waypost.kill(|setup| setup).await;
    ready(&waypost, "Source", "in").await;
    send_until_taken(&waypost, 500..1_000).await;
    eventually("all to arrive", async || {
        let ids: HashSet<_> = subscriber.received().iter().map(Received::id).collect();
        (ids.len() == 1_000).then_some(())
    })
    .await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_full_is_told_to_the_sender() {
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let subscriber =
        Subscriber::new(move |_| if opened.load(Ordering::Relaxed) { 200 } else { 503 }.into()).await;
    let delivery = json!({"delivery": {
        "retry": 1000, "backoffPolicy": "constant", "backoffDelay": "PT0.5S", "maxBacklog": {"size": "16KiB"},
    }});
    let manifests =
        default_broker(&[native_trigger("all", &subscriber.url("/"), delivery), source("in", &json!({}))]);
    let waypost = Setup::new(&manifests).start().await;
    ready(&waypost, "Source", "in").await;
    let body = "x".repeat(1_000);
    let mut taken = 0;
    let full = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let answer = post(&waypost, "in", &[], &body).await;
            if answer.status != StatusCode::ACCEPTED {
                return answer;
            }
            taken += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(full.await.expect("it gets full").problem(507)["code"], "E0510");
    open.store(true, Ordering::Relaxed);
    eventually("room", async || {
        let answer = post(&waypost, "in", &[], &body).await;
        (answer.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    eventually("all to be delivered", async || {
        (count(&waypost.trigger("all").await, "delivered") == taken + 1).then_some(())
    })
    .await;
    waypost.stop().await;
}

#[tokio::test]
async fn the_kinds_of_triggermesh_take_what_their_adapters_took() {
    let subscriber = Subscriber::accepting().await;
    let sink = json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default"}});
    let foreign = |kind: &str, name: &str, mut spec: Value| {
        spec["sink"] = sink.clone();
        json!({
            "apiVersion": "sources.triggermesh.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        })
    };
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "sesame"}});
    let password = json!({"valueFromSecret": {"name": "s", "key": "p"}});
    let manifests = default_broker(&[
        secret,
        foreign(
            "WebhookSource",
            "hook",
            json!({
                "eventType": "com.example.hook", "basicAuthUsername": "ann", "basicAuthPassword": password,
                "eventExtensionAttributes": {"from": ["path", "method", "queries"]},
            }),
        ),
        foreign(
            "CloudEventsSource",
            "events",
            json!({
                "path": "/in", "credentials": {"basicAuths": [{"username": "ann", "password": password}]},
            }),
        ),
        trigger("all", &subscriber.url("/"), json!({})),
    ]);
    let waypost = Setup::new(&manifests).start().await;
    ready(&waypost, "WebhookSource", "hook").await;
    ready(&waypost, "CloudEventsSource", "events").await;
    // ann:sesame
    let authorization = ("authorization", "Basic YW5uOnNlc2FtZQ==");
    let headers = [authorization, ("content-type", "text/plain")];
    let path = "/default/sources/hook/orders?tenant=t1";
    let answer = waypost.send(request(Method::PUT, path, &headers, "hello")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    let received = subscriber.wait_for(1).await;
    let names = ["ce-type", "ce-source", "ce-path", "ce-method", "ce-qtenant", "content-type"];
    let expected = ["com.example.hook", "default.hook", "/orders", "PUT", "t1", "text/plain"];
    assert_eq!(names.map(|name| received[0].header(name)), expected);
    assert_eq!(received[0].body, "hello");
    assert_eq!(post(&waypost, "hook", &[], "x").await.problem(401)["code"], "E0306");

    let event = [
        authorization,
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/far"),
        ("ce-type", "far.event"),
        ("ce-custom", "c"),
    ];
    assert_eq!(post(&waypost, "events/in", &event, "data").await.status, StatusCode::ACCEPTED);
    let received = subscriber.wait_for(2).await;
    let names = ["ce-id", "ce-source", "ce-type", "ce-custom"].map(|name| received[1].header(name));
    assert_eq!(names, ["7", "/far", "far.event", "c"]);
    assert_eq!(post(&waypost, "events", &event, "data").await.problem(404)["code"], "E0650");
    assert_eq!(post(&waypost, "events/in", &event[1..], "data").await.problem(401)["code"], "E0306");
    waypost.stop().await;
}
