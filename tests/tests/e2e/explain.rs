//! Why an event was matched or not, and what became of it: by the manifests alone, and by a running broker.

use serde_json::{Value, json};
use waypost_tests::binary::{Finished, run, run_in};
use waypost_tests::client::event;
use waypost_tests::eventually;
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::Subscriber;

use crate::manifests::{broker, default_broker, file, native_trigger, only, retry, trigger};

const INGRESS: &str = "/default/default";
const FILE: &str = "manifests.yaml";

fn gold() -> Value {
    json!({"filters": [{"exact": {"type": "order", "tier": "gold"}}]})
}

/// The line of a trigger.
fn line<'e>(explained: &'e Value, name: &str) -> &'e Value {
    let triggers = explained["triggers"].as_array().unwrap_or_else(|| panic!("{explained:#}"));
    triggers.iter().find(|trigger| trigger["name"] == name).unwrap_or_else(|| panic!("{explained:#}"))
}

fn names(explained: &Value) -> Vec<&str> {
    explained["triggers"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn manifests_are_explained_without_a_broker() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let triggers = [
        trigger("orders", "http://localhost/", only("order")),
        trigger("gold", "http://localhost/", gold()),
        trigger("other", "http://localhost/", json!({"filters": [{"exact": {"type": "x", "tier": "y"}}]})),
    ];
    write("good.yaml", &default_broker(&triggers));
    let one = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "order", "data": {"a": 1}});
    write("event.json", &one.to_string());
    write("batch.json", &json!([one]).to_string());
    write("invalid.json", "{\"specversion\": \"1.0\"}");
    let explain = async |arguments: &[&str], input: &str| -> Finished {
        run_in(directory.path(), &[&["explain"], arguments].concat(), input.as_bytes()).await
    };

    let told = explain(&["-f", "good.yaml", "--event", "event.json", "-o", "json"], "").await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let told = told.json();
    assert_eq!(names(&told), ["orders", "gold", "other"], "{told:#}");
    assert_eq!((&told["event"]["id"], &told["event"]["data"]), (&json!("1"), &json!({"a": 1})));
    assert_eq!(
        (&line(&told, "orders")["matched"], &line(&told, "orders")["reason"]),
        (&json!(true), &Value::Null)
    );
    let miss = line(&told, "gold");
    assert_eq!((&miss["matched"], &miss["deliveries"]), (&json!(false), &json!([])));
    assert_eq!(miss["reason"], "the event has no attribute `tier`");
    assert_eq!(miss["clauses"][0]["expected"], "gold", "{miss:#}");

    let text = explain(&["-f", "good.yaml", "--event", "-"], &one.to_string()).await;
    assert_eq!(text.code, Some(0), "{text:?}");
    assert!(text.stdout.contains("1 of 3 triggers match"), "{}", text.stdout);
    assert!(text.stdout.contains("the event has no attribute `tier`"), "{}", text.stdout);
    let full = explain(&["-f", "good.yaml", "--event", "event.json", "--trigger", "default/gold"], "").await;
    assert!(full.stdout.contains("expected gold") && !full.stdout.contains("orders"), "{}", full.stdout);

    for (input, code) in [("batch.json", "E0616"), ("invalid.json", "E0602"), ("absent.json", "E0709")] {
        let refused = explain(&["-f", "good.yaml", "--event", input], "").await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(&format!("error[{code}]")), "{refused:?}");
    }
    let both = explain(&["-f", "-", "--event", "-"], "").await;
    assert!(both.code == Some(1) && both.stderr.contains("stdin"), "{both:?}");
    assert_eq!(explain(&["-f", "good.yaml"], "").await.code, Some(2));

    let broken = trigger("broken", "http://localhost/", json!({"filters": [{"cesql": "type ="}]}));
    write("bad.yaml", &file(&[broken]));
    let told =
        explain(&["-f", "good.yaml", "-f", "bad.yaml", "--event", "event.json", "-o", "json"], "").await;
    assert_eq!(told.code, Some(1), "{told:?}");
    let told = told.json();
    assert_eq!(names(&told), ["orders", "gold", "other", "broken"]);
    assert_eq!(line(&told, "broken")["problem"]["code"], "E0216", "{told:#}");
}

/// What the API tells of an event by its id.
async fn by_id(waypost: &Waypost, id: &str, more: &str) -> Value {
    let path = format!("/api/v1/explain?namespace=default&broker=default&source=%2Ftests&id={id}{more}");
    let answer = waypost.admin_get(&path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The delivery of an event to a trigger, which matches it.
fn delivery<'e>(explained: &'e Value, trigger: &str) -> &'e Value {
    let row = line(explained, trigger);
    assert_eq!((&row["matched"], &row["reason"]), (&json!(true), &Value::Null), "{row:#}");
    &row["deliveries"][0]
}

fn outcomes(delivery: &Value) -> Vec<(&str, &Value, &Value)> {
    let attempts = delivery["attempts"].as_array().unwrap_or_else(|| panic!("{delivery:#}"));
    assert!(attempts.iter().all(|attempt| attempt["at"].as_str().is_some_and(|at| at.ends_with('Z'))));
    attempts.iter().map(|row| (row["outcome"].as_str().unwrap(), &row["code"], &row["status"])).collect()
}

/// What became of the first event of `a_running_broker_tells_what_became_of_an_event`, whenever it is asked.
fn check_first(told: &Value) {
    assert_eq!((&told["position"], &told["positions"]), (&json!("0:0"), &json!(["0:0"])), "{told:#}");
    assert_eq!((&told["event"]["id"], &told["event"]["data"]), (&json!("first"), &json!({"a": 1})));
    let delivered = delivery(told, "all");
    assert_eq!(delivered["state"], "delivered");
    assert_eq!(outcomes(delivered), [("delivered", &Value::Null, &json!(200))]);
    let flaky = delivery(told, "flaky");
    assert_eq!(flaky["state"], "delivered");
    assert_eq!(
        outcomes(flaky),
        [("failed", &json!("E0401"), &json!(503)), ("delivered", &Value::Null, &json!(200))]
    );
    let dead = delivery(told, "dead");
    assert_eq!(dead["state"], "deadLettered");
    assert_eq!(outcomes(dead), [("failed", &json!("E0402"), &json!(400))]);
    assert!(dead["reason"].as_str().unwrap().contains("400"), "{dead}");
    let paused = delivery(told, "paused");
    assert_eq!((&paused["state"], &paused["place"]), (&json!("pending"), &json!("untaken")), "{paused}");
    assert!(paused["reason"].as_str().unwrap().contains("paused"), "{paused}");
    let gold = line(told, "gold");
    assert_eq!((&gold["matched"], &gold["deliveries"]), (&json!(false), &json!([])), "{gold:#}");
    assert_eq!(gold["reason"], "the event has no attribute `tier`");
}

/// Waits until what is not paused is settled.
async fn settled_but_for_paused(waypost: &Waypost) {
    eventually("all but the paused trigger to be settled", async || {
        let status = waypost.status().await;
        let open = |row: &Value| row["paused"] == false && (row["pending"] != 0 || row["lagEvents"] != 0);
        (!status["triggers"].as_array().unwrap().iter().any(open)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_running_broker_tells_what_became_of_an_event() {
    let subscriber = Subscriber::new(|received| match (received.path.as_str(), received.attempt) {
        ("/flaky", 1) => 503.into(),
        ("/dead", _) => 400.into(),
        _ => 200.into(),
    })
    .await;
    let one = |name: &str, more: Value| trigger(name, &subscriber.url(&format!("/{name}")), more);
    let paused = native_trigger("paused", &subscriber.url("/paused"), json!({"paused": true}));
    let set = |gold: Value, more: &[Value]| {
        let first = [
            one("all", json!({})),
            one("flaky", json!({"delivery": retry(3)})),
            one("dead", json!({})),
            one("gold", gold),
            paused.clone(),
        ];
        default_broker(&[&first[..], more].concat())
    };
    let waypost = Setup::new(&set(gold(), &[])).start().await;
    let json_data = [("content-type", "application/json")];
    waypost.accept(event(INGRESS, "first", "order", &json_data, "{\"a\": 1}")).await;
    let past = [("ce-expirytime", "2020-01-01T00:00:00Z")];
    waypost.accept(event(INGRESS, "expired", "order", &past, "")).await;
    settled_but_for_paused(&waypost).await;

    let told = by_id(&waypost, "first", "").await;
    check_first(&told);
    assert_eq!(told["plan"], told["presentPlan"], "{told:#}");
    assert_eq!((&told["matched"], &told["notMatched"], &told["leftOut"]), (&json!(4), &json!(1), &json!(0)));
    let expired = by_id(&waypost, "expired", "").await;
    let dropped = delivery(&expired, "all");
    assert_eq!(
        (&dropped["state"], &dropped["droppedBy"]),
        (&json!("dropped"), &json!("expired")),
        "{dropped}"
    );
    let page = by_id(&waypost, "first", "&limit=1&after=default%2Fall").await;
    assert_eq!((names(&page), &page["leftOut"]), (vec!["dead"], &json!(4)));
    assert_eq!(names(&by_id(&waypost, "first", "&trigger=default%2Fgold").await), ["gold"]);

    // An event is told under the triggers of its time.
    waypost.write(FILE, &set(only("order"), &[one("new", json!({}))])).await;
    waypost.accept(event(INGRESS, "first", "order", &[], "")).await;
    settled_but_for_paused(&waypost).await;
    let newest = by_id(&waypost, "first", "").await;
    assert_eq!((&newest["position"], &newest["positions"]), (&json!("0:2"), &json!(["0:2", "0:0"])));
    assert_eq!(delivery(&newest, "gold")["state"], "delivered");
    assert_eq!(delivery(&newest, "new")["state"], "delivered");
    let at = "/api/v1/explain?broker=default&position=0:0";
    let old = waypost.admin_get(at).await.json();
    let differs = |told: &Value| {
        assert_ne!(told["plan"], told["presentPlan"], "{told:#}");
        let note = line(told, "gold")["note"].as_str().unwrap();
        assert!(note.contains("would match"), "{note}");
        let new = line(told, "new");
        assert!(new["reason"].as_str().unwrap().contains("newer than the event"), "{new:#}");
        assert!(new["reason"].as_str().unwrap().contains("0:2"), "{new:#}");
    };
    differs(&old);
    let mut first = old.clone();
    first["positions"] = json!(["0:0"]);
    check_first(&first);

    // As people see it.
    let admin = format!("http://{}", waypost.admin);
    let asked = ["explain", "--admin", &admin, "--broker", "default/default"];
    let table = run(&[&asked[..], &["--position", "0:0"]].concat()).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    for text in [
        "also at 0:2",
        "dead letter after 1 attempt",
        "after 2 attempts",
        "is paused",
        "note on default/gold",
    ] {
        assert!(table.stdout.contains(text), "{text:?} is not in {}", table.stdout);
    }
    let full = run(&[&asked[..], &["--position", "0:0", "--trigger", "default/flaky"]].concat()).await;
    assert!(full.stdout.contains("attempt 1 at ") && full.stdout.contains("E0401"), "{}", full.stdout);
    let one = ["--source", "/tests", "--id", "first", "--trigger", "flaky", "-o", "json"];
    let told = run(&[&asked[..], &one].concat()).await.json();
    assert_eq!((names(&told), &told["position"]), (vec!["flaky"], &json!("0:2")));

    // A later process tells the same.
    let waypost = waypost.restart(|setup| setup).await;
    differs(&waypost.admin_get(at).await.json());
    let waypost = waypost.kill(|setup| setup).await;
    let mut told = waypost.admin_get(at).await.json();
    differs(&told);
    told["positions"] = json!(["0:0"]);
    check_first(&told);
    waypost.stop().await;
}

#[tokio::test]
async fn what_cannot_be_told_is_a_problem_that_says_why() {
    let waypost = Setup::new(&file(&[broker("default", json!({}))])).memory().start().await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    for (query, status, code) in [
        ("broker=default&source=%2Ftests&id=2", 404, "E0809"),
        ("broker=default&position=0:7", 404, "E0505"),
        ("broker=default&position=9:0", 404, "E0505"),
        ("broker=absent&position=0:0", 404, "E0807"),
        ("broker=default&position=first", 400, "E0804"),
        ("broker=default&id=1", 400, "E0804"),
        ("position=0:0", 400, "E0804"),
        ("broker=default&position=0:0&after=default%2Fx", 400, "E0804"),
        ("broker=default&position=0:0&nonsense=1", 400, "E0804"),
    ] {
        let problem = waypost.admin_get(&format!("/api/v1/explain?{query}")).await.problem(status);
        assert_eq!(problem["code"], code, "{query}: {problem}");
    }
    let admin = format!("http://{}", waypost.admin);
    let failed =
        run(&["explain", "--admin", &admin, "--broker", "default/default", "--position", "0:7"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("error[E0505]"), "{failed:?}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_broker_in_memory_and_a_start_in_the_past_are_told_too() {
    let subscriber = Subscriber::accepting().await;
    let early = trigger("early", &subscriber.url("/early"), only("a"));
    for memory in [false, true] {
        let setup = Setup::new(&default_broker(std::slice::from_ref(&early)));
        let waypost = if memory { setup.memory() } else { setup }.start().await;
        for (id, event_type) in [("1", "a"), ("2", "b")] {
            waypost.accept(event(INGRESS, id, event_type, &[], "")).await;
        }
        waypost.settled().await;
        let past = json!({"startFrom": "earliest", "filters": [{"exact": {"type": "b"}}]});
        let late = native_trigger("late", &subscriber.url("/late"), past);
        waypost.write(FILE, &default_broker(&[early.clone(), late])).await;
        waypost.settled().await;
        eventually("the past to be delivered", async || {
            (waypost.trigger("late").await["delivered"] == 1).then_some(())
        })
        .await;
        let first = by_id(&waypost, "1", "").await;
        assert_eq!(delivery(&first, "early")["state"], "delivered");
        let late = line(&first, "late");
        assert_eq!(
            (&late["matched"], &late["reason"]),
            (&json!(false), &json!("`type` is `a`, which is not `b`"))
        );
        let second = by_id(&waypost, "2", "").await;
        assert_eq!(line(&second, "early")["matched"], false);
        assert_eq!(delivery(&second, "late")["state"], "delivered", "{second:#}");
        assert!(line(&second, "late")["plan"].as_u64() > second["plan"].as_u64(), "{second:#}");
        waypost.stop().await;
    }
}
