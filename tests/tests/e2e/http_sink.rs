//! The HTTP sink: what it sends, who it says that it is, and what it makes of the answers.
#![allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of each argument")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use waypost_tests::client::{batch, event};
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Received, Subscriber, answer};
use waypost_tests::tls::TlsFront;
use waypost_tests::{eventually, outage};

use crate::manifests::{default_broker, retry, sink, sink_ref, trigger_to};

const INGRESS: &str = "/default/default";

fn sending(settings: Value, more: Value) -> String {
    default_broker(&[trigger_to("all", sink_ref("out"), more), sink("out", json!({"http": settings}))])
}

async fn not_ready(waypost: &Waypost, kind: &str, name: &str, code: &str) {
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let row = waypost.resource(kind, name).await;
            if row["ready"] == false && row["reason"] == code {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if told.await.is_err() {
        panic!("not told within ten seconds: {}", waypost.resource(kind, name).await);
    }
}

async fn delivered(waypost: &Waypost, wanted: u64) {
    eventually("the events to be delivered", async || {
        (count(&waypost.trigger("all").await, "delivered") == wanted).then_some(())
    })
    .await;
}

async fn accept(waypost: &Waypost, id: &str) {
    let json = [("content-type", "application/json")];
    waypost.accept(event(INGRESS, id, "t", &json, r#"{"order": {"id": "A 1"}}"#)).await;
}

#[tokio::test]
async fn a_request_is_made_of_the_event_and_signed() {
    let server = Subscriber::accepting().await;
    let settings = json!({
        "url": server.url("/api?key=1"), "method": "PUT", "path": "orders/${$.order.id}", "format": "data",
        "headers": {"X-Type": "${type}"},
        "auth": {"basic": {"username": {"value": "u"}, "password": {"value": "p"}}},
        "signature": {"hmac": {"secret": {"value": "key"}, "header": "X-Signature", "prefix": "sha256="}},
    });
    let waypost = Waypost::start(&sending(settings, json!({}))).await;
    accept(&waypost, "1").await;
    let request = &server.wait_for(1).await[0];
    assert_eq!((&request.method, request.path.as_str()), (&Method::PUT, "/api/orders/A%201?key=1"));
    assert_eq!((request.header("x-type"), request.header("authorization")), ("t", "Basic dTpw"));
    assert_eq!(request.header("content-type"), "application/json");
    assert!(request.attribute_names().is_empty(), "{request:?}");
    // Made by `openssl dgst -sha256 -hmac key`.
    assert_eq!(
        request.header("x-signature"),
        "sha256=54d7ed0511f79304c6b53cd3597f321e80c01604b8ec86eade18a0dea14395ee"
    );
    waypost.stop().await;
}

#[tokio::test]
async fn a_token_is_fetched_once_renewed_when_it_is_refused_and_not_to_be_had_with_wrong_credentials() {
    let valid = Arc::new(AtomicUsize::new(1));
    let (now_valid, fetched) = (Arc::clone(&valid), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&fetched);
    let server = Subscriber::new(move |request| {
        if request.path == "/token" {
            if request.header("authorization") != "Basic aWQ6c2VjcmV0" {
                let body = r#"{"error": "invalid_client"}"#;
                return Behaviour::Answer(answer(401, &[("content-type", "application/json")], body));
            }
            counted.fetch_add(1, Ordering::Relaxed);
            let token = format!("token-{}", now_valid.load(Ordering::Relaxed));
            let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
            return Behaviour::Answer(answer(200, &[("content-type", "application/json")], body.to_string()));
        }
        let wanted = format!("Bearer token-{}", now_valid.load(Ordering::Relaxed));
        if request.header("authorization") == wanted { 200 } else { 401 }.into()
    })
    .await;
    let setup = Setup::empty();
    let secret = setup.directory().join("secret");
    std::fs::write(&secret, "wrong\n").unwrap();
    let oauth2 = json!({
        "tokenUrl": server.url("/token"), "clientId": {"value": "id"}, "clientSecret": {"file": secret},
        "scopes": ["a", "b"],
    });
    let manifests = sending(json!({"url": server.url("/"), "auth": {"oauth2": oauth2}}), json!({}));
    let waypost = setup.file("manifests.yaml", &manifests).allow("E0423").start().await;
    not_ready(&waypost, "Sink", "out", "E0423").await;
    accept(&waypost, "held").await;
    not_ready(&waypost, "Trigger", "all", "E0423").await;
    std::fs::write(&secret, "secret\n").unwrap();
    delivered(&waypost, 1).await;
    let before = fetched.load(Ordering::Relaxed);
    for id in ["1", "2", "3"] {
        accept(&waypost, id).await;
    }
    delivered(&waypost, 4).await;
    assert!(fetched.load(Ordering::Relaxed) <= before + 1, "a token is kept");
    // Taken back before its end: nothing fails for that.
    valid.store(2, Ordering::Relaxed);
    accept(&waypost, "4").await;
    delivered(&waypost, 5).await;
    let requests = server.received();
    let form = requests.iter().find(|request| request.path == "/token").unwrap();
    assert_eq!(form.body, "grant_type=client_credentials&scope=a+b");
    let row = waypost.trigger("all").await;
    assert_eq!(count(&row, "deadLettered"), 0, "{row}");
    let log: String = waypost.log().iter().map(Value::to_string).collect();
    assert!(!log.contains("token-1") && !log.contains("wrong"), "a secret in the log");
    waypost.stop().await;
}

#[tokio::test]
async fn an_identity_token_of_google_cloud_is_made_for_the_service() {
    let server = Subscriber::new(|request| match request.path.as_str() {
        "/computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Fa.run.app&format=full" => {
            // A token that ends in 2100.
            Behaviour::Answer(answer(200, &[], "e30.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln"))
        }
        _ if request.header("authorization") == "Bearer e30.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln" => 200.into(),
        _ => 403.into(),
    })
    .await;
    let settings =
        json!({"url": server.url("/run"), "auth": {"googleIdentity": {"audience": "https://a.run.app"}}});
    let setup = Setup::new(&sending(settings, json!({})));
    let waypost =
        setup.environment("GCE_METADATA_HOST", server.url("").trim_start_matches("http://")).start().await;
    accept(&waypost, "1").await;
    accept(&waypost, "2").await;
    delivered(&waypost, 2).await;
    let asked: Vec<_> =
        server.received().into_iter().filter(|request| request.method == Method::GET).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].header("metadata-flavor"), "Google");
    waypost.stop().await;
}

#[tokio::test]
async fn nothing_is_sent_before_the_handshake_and_410_stops_the_trigger_until_the_next() {
    let (open, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_open, is_gone) = (Arc::clone(&open), Arc::clone(&gone));
    let server = Subscriber::new(move |request| {
        if request.method != Method::OPTIONS {
            return if is_gone.load(Ordering::Relaxed) { 410 } else { 200 }.into();
        }
        if !is_open.load(Ordering::Relaxed) {
            return 405.into();
        }
        let origin = request.header("webhook-request-origin").to_owned();
        let granted = [("webhook-allowed-origin", origin.as_str()), ("webhook-allowed-rate", "1200")];
        Behaviour::Answer(answer(200, &granted, ""))
    })
    .await;
    let settings =
        json!({"url": server.url("/hook"), "handshake": {"origin": "events.example.com", "rate": 6000}});
    let setup = Setup::new(&sending(settings, json!({}))).allow("E0423").allow("E0424");
    let waypost = setup.start().await;
    not_ready(&waypost, "Sink", "out", "E0423").await;
    accept(&waypost, "1").await;
    not_ready(&waypost, "Trigger", "all", "E0423").await;
    assert!(server.received().iter().all(|request| request.method == Method::OPTIONS));
    assert_eq!(server.received()[0].header("webhook-request-rate"), "6000");
    open.store(true, Ordering::Relaxed);
    delivered(&waypost, 1).await;
    // Twenty a second: the requests of ten events are at least 450 ms apart from first to last.
    let begun = tokio::time::Instant::now();
    for number in 0..10 {
        accept(&waypost, &format!("rate-{number}")).await;
    }
    delivered(&waypost, 11).await;
    assert!(begun.elapsed() >= Duration::from_millis(450), "faster than was granted");
    open.store(false, Ordering::Relaxed);
    gone.store(true, Ordering::Relaxed);
    accept(&waypost, "stopped").await;
    eventually("the trigger to stop", async || {
        (waypost.resource("Trigger", "all").await["ready"] == false).then_some(())
    })
    .await;
    gone.store(false, Ordering::Relaxed);
    open.store(true, Ordering::Relaxed);
    delivered(&waypost, 12).await;
    let row = waypost.trigger("all").await;
    assert_eq!(count(&row, "deadLettered"), 0, "{row}");
    waypost.stop().await;
}

#[tokio::test]
async fn what_a_server_refuses_is_told_apart() {
    let server = Subscriber::new(|request| match (request.id().as_str(), request.attempt) {
        ("moved", _) => Behaviour::Answer(answer(302, &[("location", "/elsewhere")], "")),
        ("gone", _) => 410.into(),
        ("forbidden", _) => 403.into(),
        ("busy", 1) => Behaviour::Answer(answer(429, &[("retry-after", "1")], "")),
        ("failed", 1) => 500.into(),
        _ => 204.into(),
    })
    .await;
    let manifests = sending(json!({"url": server.url("/")}), json!({"delivery": retry(3)}));
    let waypost = Waypost::start(&manifests).await;
    for id in ["moved", "gone", "forbidden", "busy", "failed", "fine"] {
        accept(&waypost, id).await;
    }
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (3, 3), "{row}");
    assert!(server.received().iter().all(|request| request.path == "/"), "a redirect was followed");
    waypost.stop().await;
}

/// Sends events with the ids of these numbers, in requests of many.
async fn accept_many(waypost: &Waypost, numbers: std::ops::Range<usize>) {
    for start in numbers.clone().step_by(500) {
        let events: Vec<_> = (start..(start + 500).min(numbers.end))
            .map(
                |number| json!({"specversion": "1.0", "id": number.to_string(), "source": "/s", "type": "t"}),
            )
            .collect();
        waypost.accept(batch(INGRESS, Value::from(events).to_string())).await;
    }
}

async fn all_delivered(waypost: &Waypost, wanted: u64) {
    for name in ["all", "knative"] {
        let waited = tokio::time::timeout(Duration::from_secs(90), async {
            while count(&waypost.trigger(name).await, "delivered") < wanted {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let row = if waited.await.is_ok() { waypost.trigger(name).await } else { waypost.status().await };
        assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (wanted, 0), "{row:#}");
    }
}

#[tokio::test]
async fn ten_thousand_events_all_arrive_at_a_server_and_a_knative_service_that_go_away_while_waypost_is_killed()
 {
    let servers = [Subscriber::accepting().await, Subscriber::accepting().await];
    let service = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": "orders", "annotations": {"waypost.dev/url": servers[1].url("/")}},
    });
    let of_service =
        json!({"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "orders"}});
    let settings = json!({"url": servers[0].url("/"), "auth": {"bearer": {"token": {"value": "t"}}}});
    let manifests = default_broker(&[
        trigger_to("all", sink_ref("out"), json!({})),
        sink("out", json!({"http": settings})),
        service,
        trigger_to("knative", of_service, json!({})),
    ]);
    let waypost = Setup::new(&manifests).allow("E0420").start().await;
    accept_many(&waypost, 0..2_000).await;
    all_delivered(&waypost, 2_000).await;
    let addresses = servers.each_ref().map(Subscriber::address);
    let before = servers.each_ref().map(|server| ids(&server.received()));
    drop(servers);
    accept_many(&waypost, 2_000..10_000).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waypost = waypost.kill(|setup| setup).await;
    outage(Duration::from_secs(2)).await;
    let servers =
        [Subscriber::accepting_at(addresses[0]).await, Subscriber::accepting_at(addresses[1]).await];
    // Nobody is asked meanwhile: the servers and whoever asks share a thread, and a request that is slow to follow its
    // connection is cut off.
    let come = tokio::time::timeout(Duration::from_secs(90), async {
        while servers.iter().any(|server| server.count() < 8_000) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(come.await.is_ok(), "{:?} came", servers.each_ref().map(Subscriber::count));
    all_delivered(&waypost, 10_000).await;
    for (server, before) in servers.iter().zip(before) {
        let after = ids(&server.received());
        assert_eq!(before.union(&after).count(), 10_000);
    }
    waypost.stop().await;
}

fn ids(received: &[Received]) -> HashSet<String> {
    received.iter().map(Received::id).collect()
}

#[tokio::test]
async fn kinds_of_triggermesh_are_sinks_and_their_answers_are_events() {
    let server = Subscriber::new(|request| match request.path.as_str() {
        "/api/orders?k=1" => {
            Behaviour::Answer(answer(200, &[("content-type", "application/json")], r#"{"answer": 1}"#))
        }
        _ => 200.into(),
    })
    .await;
    let target = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "targets.triggermesh.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        })
    };
    let to = |kind: &str, name: &str| json!({"ref": {"apiVersion": "targets.triggermesh.io/v1alpha1", "kind": kind, "name": name}});
    let only = |event_type: &str| json!({"filter": {"attributes": {"type": event_type}}});
    let waypost = Waypost::start(&default_broker(&[
        trigger_to("call", to("HTTPTarget", "call"), only("io.triggermesh.http.request")),
        trigger_to("pass", to("CloudEventsTarget", "pass"), only("answered")),
        target(
            "HTTPTarget",
            "call",
            json!({
                "endpoint": server.url("/api?k=1"), "method": "POST",
                "response": {"eventType": "answered", "eventSource": "/api"}, "headers": {"X-A": "a"},
            }),
        ),
        target("CloudEventsTarget", "pass", json!({"endpoint": server.url(""), "path": "/events"})),
    ]))
    .await;
    let request = r#"{"path_suffix": "orders", "body": {"n": 1}}"#;
    let json = [("content-type", "application/json")];
    waypost.accept(event(INGRESS, "1", "io.triggermesh.http.request", &json, request)).await;
    let requests = server.wait_for(2).await;
    assert_eq!((requests[0].json(), requests[0].header("x-a")), (json!({"n": 1}), "a"));
    let reply = &requests[1];
    assert_eq!(
        (reply.path.as_str(), reply.header("ce-type"), reply.header("ce-source")),
        ("/events", "answered", "/api")
    );
    assert_eq!(reply.json(), json!({"answer": 1}));
    for (kind, name) in [("HTTPTarget", "call"), ("CloudEventsTarget", "pass")] {
        assert_eq!(waypost.resource(kind, name).await["ready"], true, "{kind}");
    }
    waypost.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_and_its_authority_mends_it_without_a_restart() {
    let server = Subscriber::accepting().await;
    let front = TlsFront::before(&server.address().to_string()).await;
    let setup = Setup::empty();
    let authority = setup.directory().join("authority.pem");
    std::fs::write(&authority, TlsFront::strange_certificate()).unwrap();
    let manifests = sending(
        json!({"url": format!("{}/orders", front.endpoint()), "tls": {"ca": {"file": authority}}}),
        json!({}),
    );
    let waypost = setup.file("manifests.yaml", &manifests).allow("E0423").start().await;
    not_ready(&waypost, "Sink", "out", "E0423").await;
    accept(&waypost, "1").await;
    eventually("the trigger to pause", async || {
        (waypost.resource("Trigger", "all").await["ready"] == false).then_some(())
    })
    .await;
    assert_eq!(count(&waypost.trigger("all").await, "deadLettered"), 0);
    std::fs::write(&authority, front.certificate()).unwrap();
    delivered(&waypost, 1).await;
    assert_eq!(server.count(), 1);
    waypost.stop().await;
}
