//! Knative's Sequence and Parallel, as their users have them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waypost_tests::client::event;
use waypost_tests::eventually;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Received, Subscriber, answer, reply};

use crate::manifests::{broker, file, only, retry, trigger};

fn flow(kind: &str, name: &str, spec: Value) -> Value {
    let mut manifest =
        json!({"apiVersion": "flows.knative.dev/v1", "kind": kind, "metadata": {"name": name}});
    manifest["spec"] = spec;
    manifest
}

/// Answers as the path says, behind the name of the case: `/CASE/add/x` answers with `x` behind the data.
fn scripted(received: &Received) -> Behaviour {
    let data = String::from_utf8_lossy(&received.body).into_owned();
    let mut parts = received.path.split('/').skip(2);
    let (what, with) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (id, kind) = (received.id(), received.header("ce-type").to_owned());
    let tries: usize = with.parse().unwrap_or(0);
    match what {
        "add" => reply(&id, &kind, &[], data + with),
        // The reply of a filter may be another event than the one that it was asked about.
        "type" => reply(&id, with, &[], data),
        "only" if data == with => reply(&id, &kind, &[], data),
        "accepted" => {
            let head = [("ce-specversion", "1.0"), ("ce-id", &id), ("ce-source", "/r"), ("ce-type", "t")];
            Behaviour::Answer(answer(202, &head, data))
        }
        "two" => {
            let batch = json!([
                {"specversion": "1.0", "id": "a", "source": "/r", "type": "t", "datacontenttype": "text/plain", "data": "a"},
                {"specversion": "1.0", "id": "b", "source": "/r", "type": "t", "datacontenttype": "text/plain", "data": "b"},
            ]);
            let head = [("content-type", "application/cloudevents-batch+json")];
            Behaviour::Answer(answer(200, &head, batch.to_string()))
        }
        "text" => Behaviour::Answer(answer(200, &[("content-type", "text/plain")], "done")),
        "fails" if received.attempt <= tries => 503.into(),
        "fails" => reply(&id, &kind, &[], data + "f"),
        "refuses" => 400.into(),
        "away" => 503.into(),
        "broken" => Behaviour::Answer(answer(200, &[("ce-specversion", "1.0")], "")),
        "extension" => reply(&id, &kind, &[("ce-extra", with)], data + received.header("ce-extra")),
        _ => 200.into(),
    }
}

/// What a part is, written shortly: the path on the subscriber, and a delivery.
fn to(subscriber: &Subscriber, case: &str, path: &str) -> Value {
    match path.strip_prefix('@') {
        // `@Kind/name`: something of this process.
        Some(reference) => {
            let (kind, name) = reference.split_once('/').unwrap();
            let group = match kind {
                "Sequence" | "Parallel" => "flows.knative.dev/v1",
                "Transformation" => "waypost.dev/v1alpha1",
                _ => "eventing.knative.dev/v1",
            };
            json!({"ref": {"apiVersion": group, "kind": kind, "name": name}})
        }
        None => json!({"uri": subscriber.url(&format!("/{case}/{path}"))}),
    }
}

fn step(subscriber: &Subscriber, case: &str, path: &str) -> Value {
    let mut step = to(subscriber, case, path);
    step["delivery"] = retry(2);
    step["delivery"]["deadLetterSink"] = to(subscriber, case, "dead");
    step
}

/// The requests of each case but those to its parts, as `PATH DATA`, sorted.
fn arrived(subscriber: &Subscriber, case: &str) -> Vec<String> {
    let prefix = format!("/{case}/");
    let ends = ["end", "own", "dead", "filtered", "other"];
    let mut arrived: Vec<_> = subscriber
        .received()
        .iter()
        .filter_map(|received| {
            let path = received.path.strip_prefix(&prefix)?;
            let data = String::from_utf8_lossy(&received.body).into_owned();
            ends.contains(&path).then(|| format!("{path} {data}"))
        })
        .collect();
    arrived.sort();
    arrived
}

async fn arrive(waypost: &Waypost, subscriber: &Subscriber, expected: &BTreeMap<String, Vec<String>>) {
    eventually("all that should arrive", async || {
        let all = expected.iter().all(|(case, expected)| arrived(subscriber, case).len() >= expected.len());
        all.then_some(())
    })
    .await;
    waypost.settled().await;
    for (case, expected) in expected {
        assert_eq!(arrived(subscriber, case), *expected, "{case}");
    }
}

/// The steps of a Sequence, its reply, and what arrives for the data `0`.
type SequenceCase = (&'static [&'static str], Option<&'static str>, &'static [&'static str]);

const SEQUENCES: [SequenceCase; 25] = [
    (&["add/a"], Some("end"), &["end 0a"]),
    (&["add/a", "add/b"], Some("end"), &["end 0ab"]),
    (&["add/a", "add/b", "add/c", "add/d", "add/e"], Some("end"), &["end 0abcde"]),
    // Without a reply the answers of the last step are dropped.
    (&["add/a"], None, &[]),
    (&["add/a", "end"], None, &["end 0a"]),
    // A step that answers without an event ends the way of that event.
    (&["nothing", "end"], None, &[]),
    (&["add/a", "nothing"], Some("end"), &[]),
    (&["text", "end"], None, &[]),
    (&["only/1", "end"], None, &[]),
    (&["only/0", "end"], None, &["end 0"]),
    // An event with 202 is an answer as well.
    (&["accepted", "end"], None, &["end 0"]),
    // All events of a batch go on.
    (&["two", "add/x"], Some("end"), &["end ax", "end bx"]),
    (&["two", "two"], Some("end"), &["end a", "end a", "end b", "end b"]),
    // Each step has a delivery of its own.
    (&["fails/2", "add/a"], Some("end"), &["end 0fa"]),
    (&["add/a", "fails/1", "fails/2"], Some("end"), &["end 0aff"]),
    (&["refuses", "end"], None, &["dead 0"]),
    (&["add/a", "refuses", "end"], Some("end"), &["dead 0a"]),
    (&["add/a", "away", "end"], None, &["dead 0a"]),
    (&["broken", "end"], None, &["dead 0"]),
    // A reply that is away does not have the last step called again.
    (&["add/a"], Some("away"), &["dead 0a"]),
    // Attributes go on as the step answered them.
    (&["extension/x", "extension/y"], Some("end"), &["end 0x"]),
    // Everything that has an address can be a step, and the reply.
    (&["@Transformation/upper", "add/a"], Some("end"), &["end \"X\"a"]),
    (&["add/a", "@Sequence/shared"], Some("end"), &[]),
    (&["add/a"], Some("@Sequence/shared"), &[]),
    (&["add/a"], Some("@Broker/default"), &[]),
];

#[tokio::test]
async fn sequences_do_what_knatives_do() {
    let subscriber = Subscriber::new(scripted).await;
    let upper = json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Transformation", "metadata": {"name": "upper"},
        "spec": {"jq": {"query": "\"X\""}}});
    let shared =
        json!({"steps": [to(&subscriber, "shared", "add/s")], "reply": to(&subscriber, "shared", "end")});
    let mut documents = vec![
        broker("default", json!({})),
        upper,
        flow("Sequence", "shared", shared),
        trigger("broker", &subscriber.url("/broker/end"), json!({})),
    ];
    let mut expected = BTreeMap::new();
    for (index, (steps, reply, ends)) in SEQUENCES.iter().enumerate() {
        let case = format!("s{index}");
        let steps: Vec<_> = steps.iter().map(|path| step(&subscriber, &case, path)).collect();
        let mut spec = json!({"steps": steps,
            "channelTemplate": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}});
        if let Some(path) = reply {
            spec["reply"] = to(&subscriber, &case, path);
        }
        documents.push(flow("Sequence", &case, spec));
        expected.insert(case, ends.iter().map(|end| (*end).to_owned()).collect());
    }
    expected.insert("shared".to_owned(), vec!["end 0as".to_owned(); 2]);
    expected.insert("broker".to_owned(), vec!["end 0a".to_owned()]);
    let waypost = Setup::new(&file(&documents)).memory().start().await;
    for index in 0..SEQUENCES.len() {
        waypost.accept(event(&format!("/default/sequences/s{index}"), "1", "t", &[], "0")).await;
    }
    arrive(&waypost, &subscriber, &expected).await;
    // The step before a reply that is away was called once.
    let asked = subscriber.received().into_iter().filter(|received| received.path == "/s19/add/a");
    assert_eq!(asked.count(), 1);
    let status = waypost.resource("Sequence", "s1").await;
    assert_eq!((&status["ready"], &status["apiVersion"]), (&json!(true), &json!("flows.knative.dev/v1")));
    // Each step is a trigger with counters, dead letters and explanations of its own.
    assert_eq!(count(&waypost.trigger("sequence:s16:1").await, "deadLettered"), 1);
    assert_eq!(count(&waypost.trigger("sequence:s16:2").await, "matched"), 0);
    let explained =
        waypost.admin_get("/api/v1/explain?broker=sequence:s16:1&source=/reply&id=1").await.json();
    assert_eq!(explained["triggers"][0]["deliveries"][0]["state"], "deadLettered", "{explained:#}");
    let unknown = waypost.send(event("/default/sequences/none", "1", "t", &[], "")).await.problem(404);
    assert!(unknown["detail"].as_str().unwrap().contains("no sequence `none`"), "{unknown}");
    waypost.stop().await;
}

/// The branches of a Parallel (filter, subscriber, reply), its reply, and what arrives for the data `0`.
type Branch = (Option<&'static str>, &'static str, Option<&'static str>);
type ParallelCase = (&'static [Branch], Option<&'static str>, &'static [&'static str]);

const PARALLELS: [ParallelCase; 24] = [
    (&[(None, "end", None)], None, &["end 0"]),
    (&[(None, "add/a", None)], Some("end"), &["end 0a"]),
    (&[(None, "add/a", None)], None, &[]),
    (&[(None, "add/a", None), (None, "add/b", None)], Some("end"), &["end 0a", "end 0b"]),
    (&[(None, "add/a", None); 5], Some("end"), &["end 0a"; 5]),
    // A branch's own reply is asked before that of the Parallel.
    (&[(None, "add/a", Some("own"))], Some("end"), &["own 0a"]),
    (&[(None, "add/a", Some("own")), (None, "add/b", None)], Some("end"), &["end 0b", "own 0a"]),
    (&[(None, "add/a", Some("own")), (None, "add/b", None)], None, &["own 0a"]),
    // The branch goes on with what its filter answers, and ends where that is nothing.
    (&[(Some("only/0"), "add/a", None)], Some("end"), &["end 0a"]),
    (&[(Some("only/1"), "end", None)], None, &[]),
    (&[(Some("nothing"), "end", None)], None, &[]),
    (&[(Some("text"), "end", None)], None, &[]),
    (&[(Some("add/f"), "add/a", None)], Some("end"), &["end 0fa"]),
    (&[(Some("two"), "add/x", None)], Some("end"), &["end ax", "end bx"]),
    (&[(Some("accepted"), "end", None)], None, &["end 0"]),
    // One branch says nothing of another.
    (&[(Some("only/0"), "add/a", None), (Some("only/1"), "add/b", None)], Some("end"), &["end 0a"]),
    (&[(Some("only/1"), "end", None), (Some("only/2"), "end", None)], None, &[]),
    (&[(None, "refuses", None), (None, "end", None)], None, &["dead 0", "end 0"]),
    (&[(None, "away", None), (None, "end", None)], None, &["dead 0", "end 0"]),
    (&[(None, "fails/2", None)], Some("end"), &["end 0f"]),
    // `delivery` is the subscriber's: what a filter refuses is kept, and no dead letter of the branch's sink.
    (&[(Some("refuses"), "end", None)], None, &[]),
    (&[(Some("fails/2"), "end", None)], None, &["end 0f"]),
    (&[(Some("@Transformation/upper"), "end", None)], None, &["end \"X\""]),
    (&[(None, "@Sequence/shared", None), (None, "add/b", Some("@Broker/default"))], Some("end"), &[]),
];

#[tokio::test]
async fn parallels_do_what_knatives_do() {
    let subscriber = Subscriber::new(scripted).await;
    let upper = json!({"apiVersion": "waypost.dev/v1alpha1", "kind": "Transformation", "metadata": {"name": "upper"},
        "spec": {"jq": {"query": "\"X\""}}});
    let shared = json!({"steps": [to(&subscriber, "shared", "end")]});
    let mut documents = vec![
        broker("default", json!({})),
        upper,
        flow("Sequence", "shared", shared),
        trigger("broker", &subscriber.url("/broker/end"), json!({})),
    ];
    let mut expected = BTreeMap::new();
    for (index, (branches, reply, ends)) in PARALLELS.iter().enumerate() {
        let case = format!("p{index}");
        let branch = |(filter, path, reply): &Branch| {
            let mut delivery = retry(2);
            delivery["deadLetterSink"] = to(&subscriber, &case, "dead");
            let mut branch = json!({"subscriber": to(&subscriber, &case, path), "delivery": delivery});
            for (field, path) in [("filter", filter), ("reply", reply)] {
                if let Some(path) = path {
                    branch[field] = to(&subscriber, &case, path);
                }
            }
            branch
        };
        let mut spec = json!({"branches": branches.iter().map(branch).collect::<Vec<_>>()});
        if let Some(path) = reply {
            spec["reply"] = to(&subscriber, &case, path);
        }
        documents.push(flow("Parallel", &case, spec));
        expected.insert(case, ends.iter().map(|end| (*end).to_owned()).collect());
    }
    expected.insert("shared".to_owned(), vec!["end 0".to_owned()]);
    expected.insert("broker".to_owned(), vec!["end 0b".to_owned()]);
    let waypost = Setup::new(&file(&documents)).memory().start().await;
    for index in 0..PARALLELS.len() {
        waypost.accept(event(&format!("/default/parallels/p{index}"), "1", "t", &[], "0")).await;
    }
    arrive(&waypost, &subscriber, &expected).await;
    assert_eq!(waypost.resource("Parallel", "p0").await["ready"], true);
    let row = waypost.trigger("parallel:p20:0:filter").await;
    assert_eq!((count(&row, "deadLettered"), count(&row, "deadLettersStored")), (1, 1), "{row}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_kill_between_the_steps_loses_nothing() {
    const EVENTS: usize = 90;
    let subscriber = Subscriber::new(scripted).await;
    let step = |path: &str| json!({"uri": subscriber.url(&format!("/k/{path}")), "delivery": retry(10)});
    let spec = json!({"steps": [step("add/a"), step("add/b"), step("add/c")], "reply": step("end")});
    let mut parallel = spec.clone();
    parallel["branches"] = json!([{
        "filter": {"uri": subscriber.url("/k/add/f")}, "subscriber": {"uri": subscriber.url("/k/add/g")},
        "reply": {"ref": {"apiVersion": "flows.knative.dev/v1", "kind": "Sequence", "name": "s"}},
    }]);
    parallel["steps"].take();
    parallel["reply"].take();
    let manifests = file(&[flow("Sequence", "s", spec), flow("Parallel", "p", parallel)]);
    let mut waypost = Setup::new(&manifests).start().await;
    let posting = EVENTS / 3;
    for part in 0..3 {
        for id in part * posting..(part + 1) * posting {
            waypost.accept(event("/default/parallels/p", &id.to_string(), "t", &[], id.to_string())).await;
        }
        if part < 2 {
            subscriber.wait_for((part + 1) * posting).await;
            waypost = waypost.kill(|setup| setup).await;
        }
    }
    let ends = || {
        let received = subscriber.received();
        received.into_iter().filter(|received| received.path == "/k/end").collect::<Vec<_>>()
    };
    eventually("every event to arrive", async || {
        let ids: std::collections::BTreeSet<_> = ends().iter().map(Received::id).collect();
        (ids.len() == EVENTS).then_some(())
    })
    .await;
    for received in ends() {
        assert_eq!(received.body, format!("{}fgabc", received.id()), "each step once, and in order");
    }
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_flow_that_changes_keeps_what_waits() {
    let subscriber = Subscriber::new(scripted).await;
    let step = |path: &str| json!({"uri": subscriber.url(&format!("/k/{path}"))});
    let down = json!({"uri": "http://127.0.0.1:9/", "delivery": {"retry": 1000, "backoffPolicy": "linear", "backoffDelay": "PT0.1S"}});
    let manifests = |steps: Value| file(&[flow("Sequence", "s", json!({"steps": steps}))]);
    let waypost = Setup::new(&manifests(json!([step("add/a"), down.clone()]))).start().await;
    waypost.accept(event("/default/sequences/s", "1", "t", &[], "0")).await;
    subscriber.wait_for(1).await;
    eventually("the second step to be owed it", async || {
        (count(&waypost.trigger("sequence:s:1").await, "pending") == 1).then_some(())
    })
    .await;
    // The step goes, and comes back after a restart.
    let waypost =
        waypost.restart(|setup| setup.file("manifests.yaml", &manifests(json!([step("nothing")])))).await;
    let row = waypost.resource("Broker", "sequence:s:1").await;
    assert_eq!(row["reason"], "Detached", "{row}");
    let version = waypost.plan_version().await;
    waypost.write("manifests.yaml", &manifests(json!([step("nothing"), step("end")]))).await;
    waypost.applied_after(version).await;
    subscriber.wait_for(2).await;
    assert_eq!(arrived(&subscriber, "k"), ["end 0a"]);
    waypost.settled().await;
    let resources = waypost.status().await["resources"].clone();
    assert!(!resources.to_string().contains("Detached"), "{resources:#}");
    // Without a manifest it has no address.
    let version = waypost.plan_version().await;
    let other = file(&[broker("default", json!({})), trigger("t", &subscriber.url("/t"), only("t"))]);
    waypost.write("manifests.yaml", &other).await;
    waypost.applied_after(version).await;
    waypost.send(event("/default/sequences/s", "1", "t", &[], "")).await.problem(404);
    assert_eq!(waypost.resource("Sequence", "s").await["reason"], "Detached");
    waypost.stop().await;
}

#[tokio::test]
async fn references_of_flows_are_checked() {
    let to = |kind: &str, name: &str| json!({"ref": {"apiVersion": "flows.knative.dev/v1", "kind": kind, "name": name}});
    let documents = [
        flow("Sequence", "first", json!({"steps": [to("Sequence", "secnd")]})),
        flow(
            "Sequence",
            "second",
            json!({"steps": [{"uri": "http://x/"}], "reply": to("Parallel", "third")}),
        ),
        flow("Parallel", "third", json!({"branches": [{"subscriber": to("Sequence", "first")}]})),
    ];
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), file(&documents)).unwrap();
    let checked =
        waypost_tests::binary::run_in(directory.path(), &["check", "-f", ".", "-o", "json"], b"").await;
    let problems: Value = serde_json::from_str(&checked.stdout).unwrap();
    let told: Vec<_> =
        problems.as_array().unwrap().iter().map(|problem| (&problem["code"], &problem["path"])).collect();
    let expected = [
        (&json!("E0203"), &json!("spec.steps[0].ref")),
        (&json!("E0206"), &json!("spec.reply.ref")),
        (&json!("E0206"), &json!("spec.branches[0].subscriber.ref")),
    ];
    assert_eq!(told, expected, "{problems:#}");
    assert!(problems[0]["help"].as_str().unwrap().contains("`second`"), "{problems:#}");
}
