//! Deliveries: the matrix of Knative's conformance tests, what is retried, and what one subscriber does to another.

use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::client::event;
use waypost_tests::ledger::count;
use waypost_tests::process::Waypost;
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};

use crate::manifests::{broker, default_broker, file, native_trigger, retry, trigger};

const INGRESS: &str = "/default/default";

/// One trigger of a row of the matrix: its delivery, and how many of its first attempts fail.
struct Row {
    delivery: Option<Value>,
    failures: usize,
    /// The attempts that are made, and where the event ends.
    attempts: usize,
    ends: &'static str,
}

/// Runs one row: a broker with this delivery, and triggers `t1` and `t2`.
async fn matrix(broker_delivery: Option<fn(&Subscriber) -> Value>, rows: [fn(&Subscriber) -> Row; 2]) {
    // The scripts need the failures, and the rows need the URL of the subscriber for their dead-letter sinks.
    let failures = std::sync::Arc::new(parking_lot::Mutex::new([0usize; 2]));
    let script = std::sync::Arc::clone(&failures);
    let subscriber = Subscriber::new(move |received| match received.path.as_str() {
        "/t1" if received.attempt <= script.lock()[0] => 500.into(),
        "/t2" if received.attempt <= script.lock()[1] => 500.into(),
        _ => 200.into(),
    })
    .await;
    let rows = rows.map(|row| row(&subscriber));
    *failures.lock() = [rows[0].failures, rows[1].failures];
    let spec = broker_delivery.map_or(json!({}), |delivery| json!({"delivery": delivery(&subscriber)}));
    let mut documents = vec![broker("default", spec)];
    for (name, row) in ["t1", "t2"].iter().zip(&rows) {
        let more = row.delivery.as_ref().map_or(json!({}), |delivery| json!({"delivery": delivery}));
        documents.push(trigger(name, &subscriber.url(&format!("/{name}")), more));
    }
    let waypost = Waypost::start(&file(&documents)).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "data")).await;
    waypost.settled().await;
    waypost_tests::eventually("the dead letters to be forwarded", async || {
        let letters = rows.iter().filter(|row| row.ends.ends_with("dlq")).count();
        let received = subscriber.received();
        (received.iter().filter(|received| received.path.ends_with("dlq")).count() >= letters).then_some(())
    })
    .await;
    for (name, row) in ["t1", "t2"].iter().zip(&rows) {
        let received = subscriber.received();
        let attempts = received.iter().filter(|received| received.path == format!("/{name}")).count();
        assert_eq!(attempts, row.attempts, "attempts of {name}");
        let status = waypost.trigger(name).await;
        let settled = if row.ends == "delivered" { "delivered" } else { "deadLettered" };
        assert_eq!(count(&status, settled), 1, "{status}");
    }
    let mut dead: Vec<_> = subscriber.received().into_iter().map(|received| received.path).collect();
    dead.retain(|path| path.ends_with("dlq"));
    dead.sort_unstable();
    let mut expected: Vec<_> =
        rows.iter().map(|row| row.ends.to_owned()).filter(|ends| ends.ends_with("dlq")).collect();
    expected.sort_unstable();
    assert_eq!(dead, expected);
    waypost.stop().await;
}

/// Delivery settings with a dead-letter sink at a path of the subscriber.
fn with_sink(subscriber: &Subscriber, retries: u32, path: &str) -> Value {
    let mut delivery = retry(retries);
    delivery["deadLetterSink"] = json!({"uri": subscriber.url(path)});
    delivery
}

#[tokio::test]
async fn matrix_1_nothing_set_and_nothing_fails() {
    let row = |_: &Subscriber| Row { delivery: None, failures: 0, attempts: 1, ends: "delivered" };
    matrix(None, [row, row]).await;
}

#[tokio::test]
async fn matrix_2_the_broker_s_retries_and_its_dead_letter_sink() {
    matrix(
        Some(|subscriber| with_sink(subscriber, 3, "/broker-dlq")),
        [
            |_| Row { delivery: None, failures: 3, attempts: 4, ends: "delivered" },
            |_| Row { delivery: None, failures: 4, attempts: 4, ends: "/broker-dlq" },
        ],
    )
    .await;
}

#[tokio::test]
async fn matrix_3_the_trigger_s_retries_where_the_broker_has_none() {
    matrix(
        Some(|_| retry(0)),
        [
            |subscriber| Row {
                delivery: Some(with_sink(subscriber, 3, "/t1-dlq")),
                failures: 3,
                attempts: 4,
                ends: "delivered",
            },
            // Nowhere to send it: it stays in the built-in store.
            |_| Row { delivery: Some(retry(1)), failures: 2, attempts: 2, ends: "stored" },
        ],
    )
    .await;
}

#[tokio::test]
async fn matrix_4_a_trigger_has_its_own_retries_or_the_broker_s() {
    matrix(
        Some(|subscriber| with_sink(subscriber, 1, "/broker-dlq")),
        [
            |subscriber| Row {
                delivery: Some(with_sink(subscriber, 3, "/t1-dlq")),
                failures: 3,
                attempts: 4,
                ends: "delivered",
            },
            |_| Row { delivery: None, failures: 2, attempts: 2, ends: "/broker-dlq" },
        ],
    )
    .await;
}

#[tokio::test]
async fn matrix_5_each_dead_letter_goes_to_the_sink_of_its_own_delivery() {
    matrix(
        Some(|subscriber| with_sink(subscriber, 1, "/broker-dlq")),
        [
            |subscriber| Row {
                delivery: Some(with_sink(subscriber, 3, "/t1-dlq")),
                failures: 4,
                attempts: 4,
                ends: "/t1-dlq",
            },
            |_| Row { delivery: None, failures: 2, attempts: 2, ends: "/broker-dlq" },
        ],
    )
    .await;
}

#[tokio::test]
async fn a_delivery_replaces_the_broker_s_as_a_whole_but_for_the_dead_letter_sink() {
    matrix(
        Some(|subscriber| with_sink(subscriber, 5, "/broker-dlq")),
        [
            // Its own delivery names neither retries nor a sink: no retries, and the broker's sink.
            |_| Row {
                delivery: Some(json!({"timeout": "PT10S"})),
                failures: 1,
                attempts: 1,
                ends: "/broker-dlq",
            },
            |_| Row { delivery: None, failures: 5, attempts: 6, ends: "delivered" },
        ],
    )
    .await;
}

#[tokio::test]
async fn a_broker_that_names_only_a_dead_letter_sink_has_no_retries() {
    matrix(
        Some(|subscriber| json!({"deadLetterSink": {"uri": subscriber.url("/broker-dlq")}})),
        [
            |_| Row { delivery: None, failures: 1, attempts: 1, ends: "/broker-dlq" },
            |_| Row { delivery: None, failures: 0, attempts: 1, ends: "delivered" },
        ],
    )
    .await;
}

#[tokio::test]
async fn which_answers_are_tried_again() {
    let subscriber = Subscriber::new(|received| {
        let status: u16 = received.path.trim_start_matches('/').parse().unwrap();
        match received.attempt {
            1 => Behaviour::Answer(answer(status, &[("location", "/elsewhere")], "")),
            _ => 200.into(),
        }
    })
    .await;
    let retried = [404, 408, 409, 429, 500, 501, 502, 503, 504, 507, 599];
    let permanent = [
        300, 301, 302, 304, 307, 308, 400, 401, 402, 403, 405, 406, 410, 411, 412, 413, 414, 415, 418, 422,
        431,
    ];
    let done = [200, 201, 202, 203, 204, 206, 299];
    let all = retried.iter().chain(&permanent).chain(&done);
    let triggers: Vec<_> = all
        .map(|status| {
            let url = subscriber.url(&format!("/{status}"));
            trigger(&format!("s{status}"), &url, json!({"delivery": retry(1)}))
        })
        .collect();
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    let status = waypost.settled().await;
    for (statuses, attempts, ends) in
        [(&retried[..], 2, "delivered"), (&permanent, 1, "deadLettered"), (&done, 1, "delivered")]
    {
        for code in statuses {
            let path = format!("/{code}");
            assert_eq!(subscriber.received().iter().filter(|r| r.path == path).count(), attempts, "{code}");
            let name = format!("s{code}");
            let row = status["triggers"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
            assert_eq!(row[ends], 1, "{row}");
        }
    }
    waypost.stop().await;
}

#[tokio::test]
async fn connections_that_break_and_answers_that_do_not_come_are_tried_again() {
    let subscriber = Subscriber::new(|received| match (received.path.as_str(), received.attempt) {
        (_, 3) => 200.into(),
        ("/close", _) => Behaviour::Close,
        _ => Behaviour::Hang,
    })
    .await;
    let mut delivery = retry(3);
    delivery["timeout"] = json!("PT0.2S");
    let triggers = ["close", "hang"]
        .map(|name| trigger(name, &subscriber.url(&format!("/{name}")), json!({"delivery": delivery})));
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.settled().await;
    for name in ["close", "hang"] {
        assert_eq!(count(&waypost.trigger(name).await, "delivered"), 1);
    }
    assert_eq!(subscriber.received().len(), 6);
    waypost.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_appears_later_gets_what_waited_for_it() {
    // A port that was free a moment ago: nobody listens there yet.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut delivery = retry(1000);
    delivery["backoffDelay"] = json!("PT0.001S");
    let more = json!({"delivery": delivery});
    let waypost =
        Waypost::start(&default_broker(&[trigger("late", &format!("http://{address}/"), more)])).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost_tests::eventually("the event to be pending", async || {
        (count(&waypost.trigger("late").await, "pending") == 1).then_some(())
    })
    .await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let (mut socket, _) =
        tokio::time::timeout(waypost_tests::PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut head = [0; 4096];
    let read = tokio::io::AsyncReadExt::read(&mut socket, &mut head).await.unwrap();
    assert!(head[..read].starts_with(b"POST / HTTP/1.1\r\n"));
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    waypost.settled().await;
    assert_eq!(count(&waypost.trigger("late").await, "delivered"), 1);
    waypost.stop().await;
}

#[tokio::test]
async fn retry_after_is_kept_to_in_both_its_forms_unless_it_is_turned_off() {
    // Whatever the clocks say, an attempt that waits for an hour is not made while this test runs.
    let subscriber = Subscriber::new(|received| match (received.attempt, received.path.as_str()) {
        (1, "/date") => {
            Behaviour::Answer(answer(503, &[("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT")], ""))
        }
        (1, _) => Behaviour::Answer(answer(429, &[("retry-after", "3600")], "")),
        _ => 200.into(),
    })
    .await;
    let mut off = retry(3);
    off["retryAfterMax"] = json!("PT0S");
    let mut short = retry(3);
    short["retryAfterMax"] = json!("PT0.1S");
    let triggers = [("seconds", retry(3)), ("date", retry(3)), ("off", off), ("short", short)].map(
        |(name, delivery)| trigger(name, &subscriber.url(&format!("/{name}")), json!({"delivery": delivery})),
    );
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    for name in ["off", "short"] {
        waypost_tests::eventually("the delivery", async || {
            (count(&waypost.trigger(name).await, "delivered") == 1).then_some(())
        })
        .await;
    }
    for name in ["seconds", "date"] {
        let row = waypost.trigger(name).await;
        assert_eq!((count(&row, "pending"), count(&row, "inFlight")), (1, 0), "{row}");
    }
    assert_eq!(subscriber.received().len(), 6);
    waypost.stop().await;
}

#[tokio::test]
async fn one_slow_subscriber_delays_nobody_else() {
    let subscriber = Subscriber::new(|received| match received.path.as_str() {
        "/stuck" => Behaviour::Held(answer(200, &[], "")),
        _ => 200.into(),
    })
    .await;
    let triggers =
        ["stuck", "quick"].map(|name| trigger(name, &subscriber.url(&format!("/{name}")), json!({})));
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    for id in 0..200 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    waypost_tests::eventually("all deliveries of the quick trigger", async || {
        (count(&waypost.trigger("quick").await, "delivered") == 200).then_some(())
    })
    .await;
    let stuck = waypost.trigger("stuck").await;
    assert_eq!((count(&stuck, "delivered"), count(&stuck, "pending")), (0, 200), "{stuck}");
    subscriber.release();
    waypost.settled().await;
    assert_eq!(count(&waypost.trigger("stuck").await, "delivered"), 200);
    waypost.stop().await;
}

#[tokio::test]
async fn connections_are_kept_and_one_that_the_subscriber_closed_costs_no_attempt() {
    let keeping = Subscriber::accepting().await;
    let closing = Subscriber::closing(|_| 200.into()).await;
    let triggers = [
        trigger("keeping", &keeping.url("/"), json!({})),
        // Without retries, an attempt that failed would be a dead letter.
        trigger("closing", &closing.url("/"), json!({"delivery": {"retry": 0}})),
    ];
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    for id in 1..=5 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "{}")).await;
        waypost.settled().await;
        // An event that meets the end of its connection on the way would be an attempt: nobody knows what became of it.
        closing.wait_for_closed(id).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count(&waypost.trigger("closing").await, "delivered"), 5);
    let received = keeping.received();
    assert!(received.iter().all(|received| received.connection == 1), "{received:#?}");
    waypost.stop().await;
}

#[tokio::test]
async fn no_more_calls_are_in_flight_than_the_trigger_allows() {
    let subscriber = Subscriber::new(|received| match received.id().starts_with("warm") {
        true => 200.into(),
        false => Behaviour::Held(answer(200, &[], "")),
    })
    .await;
    let more = json!({"delivery": {"maxInFlight": 3}});
    let documents = [broker("default", json!({})), native_trigger("narrow", &subscriber.url("/"), more)];
    let waypost = Waypost::start(&file(&documents)).await;
    // The congestion window opens with the first answers.
    for id in 0..8 {
        waypost.accept(event(INGRESS, &format!("warm{id}"), "t", &[], "")).await;
    }
    waypost.settled().await;
    for id in 0..20 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    let received = subscriber.wait_for(8 + 3).await;
    assert_eq!(received.len(), 8 + 3);
    waypost_tests::eventually("three calls in flight", async || {
        (count(&waypost.trigger("narrow").await, "inFlight") == 3).then_some(())
    })
    .await;
    assert_eq!(subscriber.received().len(), 8 + 3);
    subscriber.release();
    waypost.settled().await;
    assert_eq!(subscriber.received().len(), 28);
    waypost.stop().await;
}

#[tokio::test]
async fn what_has_expired_or_is_older_than_its_deadline_is_dropped_and_counted() {
    let subscriber = Subscriber::new(|received| match received.path.as_str() {
        "/deadline" => 500.into(),
        _ => 200.into(),
    })
    .await;
    let mut delivery = retry(1000);
    delivery["deadline"] = json!("PT0.3S");
    let triggers = [
        trigger("all", &subscriber.url("/all"), json!({})),
        native_trigger("deadline", &subscriber.url("/deadline"), json!({"delivery": delivery})),
    ];
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    waypost.accept(event(INGRESS, "1", "t", &[("ce-expirytime", "2020-01-01T00:00:00Z")], "")).await;
    waypost.accept(event(INGRESS, "2", "t", &[("ce-expirytime", "2100-01-01T00:00:00Z")], "")).await;
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "dropped"), count(&row, "delivered")), (1, 1), "{row}");
    let row = waypost.trigger("deadline").await;
    assert_eq!((count(&row, "dropped"), count(&row, "deadLettered")), (2, 0), "{row}");
    waypost.stop().await;
}

#[tokio::test]
async fn the_same_id_from_two_sources_and_a_repeat_are_all_delivered() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    for source in ["/a", "/b", "/b"] {
        let event = json!({"specversion": "1.0", "id": "1", "source": source, "type": "t"});
        waypost.accept(waypost_tests::client::structured(INGRESS, event.to_string())).await;
    }
    waypost.settled().await;
    assert_eq!(subscriber.received().len(), 3);
    waypost.stop().await;
}

#[tokio::test]
async fn a_recount_finds_what_the_counters_say() {
    let subscriber = Subscriber::new(|_| Behaviour::Held(answer(200, &[], ""))).await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    for id in 0..20 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], "")).await;
    }
    subscriber.wait_for(1).await;
    let answer = waypost.admin_post("/api/v1/recount").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for line in answer.json().as_array().unwrap() {
        assert_eq!(line["before"], line["after"], "{line}");
    }
    assert_eq!(count(&waypost.trigger("all").await, "pending"), 20);
    subscriber.release();
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn failures_in_a_pattern_are_retried_until_each_event_has_arrived_once() {
    // Of a long row of calls those with a Fibonacci number fail; of another each event's first five.
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(1));
    let subscriber = Subscriber::new(move |received| match received.path.as_str() {
        "/fibonacci" => {
            let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (mut low, mut high) = (1, 2);
            while high <= call {
                (low, high) = (high, low + high);
            }
            if low == call { 500.into() } else { 200.into() }
        }
        _ if received.attempt <= 5 => 503.into(),
        _ => 200.into(),
    })
    .await;
    let with = |name: &str| {
        let delivery = json!({"retry": 5, "backoffPolicy": "linear", "backoffDelay": "PT0.05S"});
        trigger(name, &subscriber.url(&format!("/{name}")), json!({"delivery": delivery}))
    };
    let waypost = Waypost::start(&default_broker(&[with("fibonacci"), with("first-five")])).await;
    for id in 0..20 {
        waypost.accept(event(INGRESS, &id.to_string(), "t", &[], vec![b'x'; 36_864])).await;
    }
    waypost.settled().await;
    for name in ["fibonacci", "first-five"] {
        let status = waypost.trigger(name).await;
        assert_eq!((count(&status, "delivered"), count(&status, "deadLettered")), (20, 0), "{status}");
    }
    let of = |path: &str| subscriber.received().iter().filter(|received| received.path == path).count();
    assert_eq!(of("/first-five"), 20 * 6);
    assert!(of("/fibonacci") > 20, "nothing failed");
    waypost.stop().await;
}
