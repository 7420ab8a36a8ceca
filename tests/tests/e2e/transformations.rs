//! Transformations: in triggers, at their own address, and as TriggerMesh writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use waypost_tests::binary::{Finished, run_in};
use waypost_tests::client::event;
use waypost_tests::eventually;
use waypost_tests::ledger::count;
use waypost_tests::process::Waypost;
use waypost_tests::subscriber::{Received, Subscriber};

use crate::manifests::{default_broker, native_trigger, retry};

const INGRESS: &str = "/default/default";

fn transformation(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Transformation", "metadata": {"name": name}, "spec": spec})
}

fn fields(list: &str, operation: &str, key: &str, value: &str) -> Value {
    json!({"fields": {list: [{"operation": operation, "paths": [{"key": key, "value": value}]}]}})
}

fn split(path: &str) -> Value {
    json!({"jsonpath": {"split": {"path": path}}})
}

fn posted(path: &str, id: &str, data: &str) -> http::Request<bytes::Bytes> {
    event(path, id, "order", &[("content-type", "application/json")], data.to_owned())
}

fn bodies(received: &[Received]) -> Vec<String> {
    received.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect()
}

#[tokio::test]
async fn a_trigger_sends_what_its_transformations_make_and_counts_the_rest() {
    let subscriber = Subscriber::accepting().await;
    let chain = json!([{"name": "slim"}, split("$.items")]);
    let documents = [
        transformation("slim", &fields("data", "delete", "secret", "")),
        native_trigger("parts", &subscriber.url("/"), json!({"transformations": chain})),
        native_trigger(
            "strict",
            &subscriber.url("/strict"),
            json!({
                "transformations": [fields("data", "parse", "text", "json")], "delivery": retry(3),
            }),
        ),
        native_trigger(
            "lax",
            &subscriber.url("/lax"),
            json!({
                "transformations": [{"fields": {"data": [{"operation": "parse", "paths": [{"key": "text", "value": "json"}]}]},
                    "onError": "drop"}],
            }),
        ),
    ];
    let waypost = Waypost::start(&default_broker(&documents)).await;
    waypost.accept(posted(INGRESS, "1", r#"{"secret":1,"items":[9007199254740993,"b"]}"#)).await;
    waypost.accept(posted(INGRESS, "2", r#"{"items":[]}"#)).await;
    waypost.settled().await;
    let parts: Vec<Received> =
        subscriber.received().into_iter().filter(|received| received.path == "/").collect();
    assert_eq!(bodies(&parts), ["9007199254740993", "\"b\""]);
    assert_eq!((parts[0].id(), parts[1].header("ce-splitparentid")), ("1-0".to_owned(), "1"));
    let row = waypost.trigger("parts").await;
    assert_eq!((count(&row, "matched"), count(&row, "delivered"), count(&row, "dropped")), (2, 1, 1));
    let row = waypost.trigger("strict").await;
    assert_eq!((count(&row, "matched"), count(&row, "deadLettered")), (2, 2));
    let row = waypost.trigger("lax").await;
    assert_eq!((count(&row, "matched"), count(&row, "dropped")), (2, 2));
    assert_eq!(parts.len(), subscriber.received().len(), "nothing of the others was sent");
    let explained = waypost.admin_get("/api/v1/explain?broker=default&position=0:0").await.json();
    let line = |name: &str| {
        let triggers = explained["triggers"].as_array().unwrap();
        triggers.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{explained:#}")).clone()
    };
    let steps = line("parts")["transformations"]["steps"].clone();
    assert_eq!(
        steps[0]["events"][0]["data"],
        json!({"items": [9_007_199_254_740_993_u64, "b"]}),
        "{steps:#}"
    );
    assert_eq!(steps[1]["events"].as_array().unwrap().len(), 2);
    let failed = line("strict")["transformations"]["failed"].clone();
    assert_eq!((&failed["code"], &failed["path"]), (&json!("E0410"), &json!("data.text")), "{failed:#}");
    let reason = &line("strict")["deliveries"][0]["reason"];
    assert!(reason.as_str().unwrap().contains("transformations[0] (fields)"), "{reason}");
    assert_eq!(line("lax")["deliveries"][0]["droppedBy"], "failed");
    waypost.stop().await;
}

#[tokio::test]
async fn accepted_outputs_are_not_sent_again() {
    // The second of three fails twice.
    let subscriber = Subscriber::new(|received| match (received.id().as_str(), received.attempt) {
        ("1-1", 1 | 2) => 503.into(),
        _ => 200.into(),
    })
    .await;
    let spec = json!({"transformations": [split("$")], "delivery": retry(5)});
    let waypost = Waypost::start(&default_broker(&[native_trigger("t", &subscriber.url("/"), spec)])).await;
    waypost.accept(posted(INGRESS, "1", "[1,2,3]")).await;
    waypost.settled().await;
    let ids: Vec<String> = subscriber.received().iter().map(Received::id).collect();
    assert_eq!(ids, ["1-0", "1-1", "1-1", "1-1", "1-2"]);
    assert_eq!(count(&waypost.trigger("t").await, "delivered"), 1);
    waypost.stop().await;
}

#[tokio::test]
async fn accepted_outputs_survive_a_kill_and_a_redrive_sends_the_others() {
    let mended = Arc::new(AtomicBool::new(false));
    let looks = Arc::clone(&mended);
    // The second output of one event is away for a while, and that of another is refused.
    let subscriber = Subscriber::new(move |received| match received.id().as_str() {
        "1-1" if !looks.load(Ordering::SeqCst) => 503.into(),
        "2-1" if !looks.load(Ordering::SeqCst) => 422.into(),
        _ => 200.into(),
    })
    .await;
    let spec = json!({
        "transformations": [split("$")],
        "delivery": {"retry": 1000, "backoffPolicy": "constant", "backoffDelay": "PT0.2S"},
    });
    let mut waypost =
        Waypost::start(&default_broker(&[native_trigger("t", &subscriber.url("/"), spec)])).await;
    let ids =
        |subscriber: &Subscriber| -> Vec<String> { subscriber.received().iter().map(Received::id).collect() };
    waypost.accept(posted(INGRESS, "1", "[1,2,3]")).await;
    waypost.accept(posted(INGRESS, "2", "[1,2,3]")).await;
    for _ in 0..2 {
        let tried = ids(&subscriber).iter().filter(|id| *id == "1-1").count();
        eventually("another attempt, and the dead letter", async || {
            let more = ids(&subscriber).iter().filter(|id| *id == "1-1").count() > tried;
            (more && count(&waypost.trigger("t").await, "deadLettered") == 1).then_some(())
        })
        .await;
        // What happened shortly before a kill may be done again.
        tokio::time::sleep(Duration::from_millis(500)).await;
        waypost = waypost.kill(|setup| setup).await;
    }
    let letters = waypost.admin_get("/api/v1/dead-letters").await.json();
    let id = letters[0]["id"].as_str().unwrap();
    let shown = waypost.admin_get(&format!("/api/v1/dead-letters/{id}")).await.json();
    assert_eq!((&shown["event"]["id"], &shown["outputs"]["accepted"]), (&json!("2"), &json!(1)), "{shown:#}");
    let owed: Vec<_> =
        shown["outputs"]["owed"].as_array().unwrap().iter().map(|event| &event["id"]).collect();
    assert_eq!(owed, ["2-1", "2-2"], "{shown:#}");
    mended.store(true, Ordering::SeqCst);
    waypost.settled().await;
    let admin = format!("http://{}", waypost.admin);
    let redriven = waypost_tests::binary::run(&["dlq", "redrive", "--admin", &admin]).await;
    assert_eq!(redriven.code, Some(0), "{redriven:?}");
    let all = ids(&subscriber);
    for id in ["1-0", "1-2", "2-0", "2-2"] {
        assert_eq!(all.iter().filter(|sent| *sent == id).count(), 1, "{id}: {all:?}");
    }
    assert_eq!(all.iter().filter(|sent| *sent == "2-1").count(), 2, "{all:?}");
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn programs_without_an_end_are_dead_letters_and_the_broker_goes_on() {
    let subscriber = Subscriber::accepting().await;
    let bad = [
        ("endless", json!({"jq": {"query": "last(repeat(1))"}}), "stopped"),
        (
            "greedy",
            json!({"jq": {"query": "def grow: . + . | grow; \"0123456789abcdef\" | grow"}}),
            "stopped",
        ),
        ("many", json!({"jq": {"query": "range(1000000)"}}), "1000 outputs"),
    ];
    let mut documents: Vec<Value> = bad
        .iter()
        .flat_map(|(name, step, _)| {
            let only = json!([{"exact": {"type": "order"}}]);
            let spec = json!({"transformations": [step], "delivery": retry(3), "filters": only});
            [native_trigger(name, &subscriber.url("/bad"), spec), transformation(name, step)]
        })
        .collect();
    documents.push(native_trigger("good", &subscriber.url("/good"), json!({})));
    let waypost = Waypost::start(&default_broker(&documents)).await;
    waypost.accept(posted(INGRESS, "1", "{}")).await;
    waypost.settled().await;
    for (name, _, reason) in &bad {
        assert_eq!(count(&waypost.trigger(name).await, "deadLettered"), 1, "{name}");
        let letters = waypost.admin_get(&format!("/api/v1/dead-letters?trigger=default/{name}")).await.json();
        let told = letters[0]["reason"].as_str().unwrap();
        assert_eq!(letters[0]["code"], "E0901", "{letters:#}");
        assert!(told.contains("transformations[0] (jq)") && told.contains(reason), "{name}: {told}");
        let answer = waypost.send(posted(&format!("/default/transformations/{name}"), "1", "{}")).await;
        assert_eq!(answer.problem(422)["code"], "E0901", "{name}");
    }
    waypost.accept(event(INGRESS, "2", "other", &[], "")).await;
    waypost.settled().await;
    let paths: Vec<_> = subscriber.received().into_iter().map(|received| received.path).collect();
    assert_eq!(paths, ["/good", "/good"]);
    waypost.stop().await;
}

#[tokio::test]
async fn a_transformation_has_an_address() {
    let subscriber = Subscriber::accepting().await;
    let mut forwarding = fields("context", "add", "type", "sent");
    forwarding["sink"] = json!({"uri": subscriber.url("/sink")});
    let documents = [
        transformation("replying", &fields("context", "add", "type", "new")),
        transformation("splitting", &split("$.items")),
        transformation("forwarding", &forwarding),
    ];
    let waypost = Waypost::start(&default_broker(&documents)).await;
    let post = async |name: &str, data: &str| {
        waypost.send(posted(&format!("/default/transformations/{name}"), "1", data)).await
    };
    let one = post("replying", "{ \"a\": 1.0 }").await;
    assert_eq!(
        (one.status, one.header("ce-type"), &one.body[..]),
        (StatusCode::OK, "new", &b"{ \"a\": 1.0 }"[..])
    );
    let several = post("splitting", r#"{"items":[1,2]}"#).await;
    assert_eq!(several.status, StatusCode::OK);
    assert_eq!(several.json()[1]["id"], "1-1");
    assert_eq!(post("splitting", "{}").await.status, StatusCode::NO_CONTENT);
    let failed = post("splitting", "{").await.problem(422);
    assert_eq!(failed["code"], "E0410", "{failed:#}");
    assert_eq!(post("forwarding", "{}").await.status, StatusCode::ACCEPTED);
    let sent = subscriber.wait_for(1).await;
    assert_eq!((sent[0].path.as_str(), sent[0].header("ce-type")), ("/sink", "sent"));
    waypost.stop().await;
}

/// The kinds of TriggerMesh as their users have them.
const TRIGGERMESH: &str = "
---
apiVersion: flow.triggermesh.io/v1alpha1
kind: Transformation
metadata:
  name: rename
spec:
  context:
  - operation: add
    paths:
    - key: type
      value: renamed.$kind
  data:
  - operation: store
    paths:
    - key: $kind
      value: kind
  - operation: shift
    paths:
    - key: old:new
  - operation: parse
    paths:
    - key: nothing
      value: json
---
apiVersion: routing.triggermesh.io/v1alpha1
kind: Splitter
metadata:
  name: split
spec:
  path: items
  ceContext:
    type: part
    source: /split
    extensions:
      k: v
";

#[tokio::test]
async fn triggermesh_kinds_load_unmodified() {
    let waypost = Waypost::start(&format!("{}{TRIGGERMESH}", default_broker(&[]))).await;
    let post = async |name: &str, data: &str| {
        waypost.send(posted(&format!("/default/transformations/{name}"), "1", data)).await
    };
    let renamed = post("rename", r#"{"kind":"x","old":1}"#).await;
    assert_eq!(renamed.header("ce-type"), "renamed.x");
    assert_eq!(renamed.body, r#"{"kind":"x","new":1}"#);
    let parts = post("split", r#"{"items":[1,{"a":2}]}"#).await.json();
    assert_eq!(
        (&parts[1]["id"], &parts[1]["source"], &parts[1]["k"]),
        (&json!("1-1"), &json!("/split"), &json!("v"))
    );
    assert_eq!(parts[1]["data"], json!({"a": 2}));
    assert!(parts[1].get("subject").is_none(), "{parts:#}");
    let resource = waypost.resource("Splitter", "split").await;
    assert_eq!(
        (&resource["apiVersion"], &resource["ready"]),
        (&json!("routing.triggermesh.io/v1alpha1"), &json!(true))
    );
    waypost.stop().await;
}

#[tokio::test]
async fn tests_of_users_compare_what_comes_out() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("manifests.yaml", &default_broker(&[transformation("t", &fields("data", "add", "a", "x"))]));
    let test = |events: &Value| {
        json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Test", "metadata": {"name": "golden"}, "spec": {
            "event": {"type": "order", "source": "/s", "data": {"b": [1, 2]}},
            "emits": [{"transformation": "t", "events": events}],
        }})
        .to_string()
    };
    let run = async || -> Finished { run_in(directory.path(), &["test", "-f", "."], b"").await };
    write("golden.test.yaml", &test(&json!([{"type": "order", "data": {"a": "x", "b": [1, 2]}}])));
    let passed = run().await;
    assert_eq!(
        (passed.code, &*passed.stdout),
        (Some(0), "ok      default/golden\n1 test passed\n"),
        "{passed:?}"
    );
    write("golden.test.yaml", &test(&json!([{"type": "order", "data": {"a": "y", "b": [1]}}])));
    let failed = run().await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let expected =
        "    events[0].data.a: expected \"y\", is \"x\"\n    events[0].data.b[1]: expected nothing, is 2\n";
    assert!(failed.stdout.contains(expected), "{}", failed.stdout);
    write("golden.test.yaml", &test(&json!([])).replace("\"t\"", "\"u\""));
    let unknown = run().await;
    assert!(unknown.code == Some(1) && unknown.stdout.contains("E0203"), "{unknown:?}");
}
