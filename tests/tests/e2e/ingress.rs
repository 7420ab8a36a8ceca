//! What the ingress answers: the table of codes, and what comes over a bare socket.

use std::time::Duration;

use http::Method;
use serde_json::json;
use waypost_tests::client::{Connection, Raw, batch, event, request, structured};
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::{Behaviour, Subscriber, answer};

use crate::manifests::{broker, default_broker, file, native_broker, trigger};

const INGRESS: &str = "/default/default";

async fn with_no_trigger() -> Waypost {
    Waypost::start(&file(&[broker("default", json!({}))])).await
}

#[tokio::test]
async fn an_event_is_accepted_with_an_empty_202_also_with_a_slash_and_a_query() {
    let waypost = with_no_trigger().await;
    for path in
        [INGRESS, "/default/default/", "/default/default?a=b", "/default/default/?a=/b", "/d%65fault/default"]
    {
        waypost.accept(event(path, "1", "t", &[], "")).await;
    }
    waypost.accept(batch(INGRESS, "[]")).await;
    waypost.stop().await;
}

#[tokio::test]
async fn producers_that_insist_get_a_200() {
    let waypost = Waypost::start(&file(&[native_broker("default", json!({"acceptedStatus": 200}))])).await;
    assert_eq!(waypost.send(event(INGRESS, "1", "t", &[], "")).await.status, 200);
    waypost.stop().await;
}

#[tokio::test]
async fn an_event_that_breaks_a_rule_is_refused_with_the_rule() {
    let waypost = with_no_trigger().await;
    let complete = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    for missing in complete {
        let headers: Vec<_> = complete.into_iter().filter(|header| *header != missing).collect();
        let problem = waypost.send(request(Method::POST, INGRESS, &headers, "")).await.problem(400);
        let name = missing.0.strip_prefix("ce-").unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(name), "{problem}");
    }
    for (name, value, code) in [
        ("ce-specversion", "19.0", "E0608"),
        ("ce-specversion", "9000.1", "E0608"),
        ("ce-id", "", "E0603"),
        ("ce-type", "", "E0603"),
        ("ce-source", "", "E0603"),
        ("ce-source", "a%20b", "E0609"),
        ("ce-subject", "", "E0603"),
        ("ce-time", "2018-04-05T18:31Z", "E0610"),
        ("ce-dataschema", "relative", "E0611"),
        ("ce-my_extension", "x", "E0604"),
        ("ce-my-extension", "x", "E0604"),
        ("ce-data", "x", "E0604"),
        ("ce-bad", "%C0%A0", "E0617"),
        ("content-type", "xyz", "E0612"),
    ] {
        let mut headers: Vec<_> = complete.into_iter().filter(|(known, _)| *known != name).collect();
        headers.push((name, value));
        let problem = waypost.send(request(Method::POST, INGRESS, &headers, "")).await.problem(400);
        assert_eq!(problem["code"], code, "{name}: {value}: {problem}");
    }
    let twice = [&complete[..], &[("ce-id", "2")]].concat();
    assert_eq!(waypost.send(request(Method::POST, INGRESS, &twice, "")).await.problem(400)["code"], "E0605");
    let none = request(Method::POST, INGRESS, &[("content-type", "application/json")], "{}");
    assert_eq!(waypost.send(none).await.problem(400)["code"], "E0601");
    assert_eq!(waypost.send(structured(INGRESS, "{\"id\":")).await.problem(400)["code"], "E0615");
    waypost.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_allowed_is_405() {
    let waypost = with_no_trigger().await;
    for path in
        ["/", "/default", "/default/absent", "/absent/default", "/default/default/x", "/default/sinks/absent"]
    {
        waypost.send(event(path, "1", "t", &[], "")).await.problem(404);
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = waypost.send(request(method, INGRESS, &[], "")).await;
        answer.problem(405);
        assert_eq!(answer.header("allow").replace(' ', ""), "POST,OPTIONS", "{answer:?}");
    }
    let answer = waypost.send(request(Method::HEAD, INGRESS, &[], "")).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (405, 0));
    waypost.stop().await;
}

#[tokio::test]
async fn an_unknown_event_format_is_415_but_travels_inside_a_complete_binary_event() {
    let waypost = with_no_trigger().await;
    let avro = ("content-type", "application/cloudevents+avro");
    waypost.send(request(Method::POST, INGRESS, &[avro], "x")).await.problem(415);
    waypost.accept(event(INGRESS, "1", "t", &[avro], "x")).await;
    let charset = ("content-type", "application/cloudevents+json; charset=utf-16");
    waypost.send(request(Method::POST, INGRESS, &[charset], "{}")).await.problem(415);
    waypost.stop().await;
}

#[tokio::test]
async fn options_answers_the_handshake_of_web_hooks() {
    let waypost = with_no_trigger().await;
    let asked = [("webhook-request-origin", "producer.example.com"), ("webhook-request-rate", "120")];
    let answer = waypost.send(request(Method::OPTIONS, INGRESS, &asked, "")).await;
    assert_eq!(answer.status, 200);
    assert!(matches!(answer.header("webhook-allowed-origin"), "producer.example.com" | "*"), "{answer:?}");
    assert!(matches!(answer.header("webhook-allowed-rate"), "120" | "*"), "{answer:?}");
    assert!(answer.header("allow").contains("POST"), "{answer:?}");
    waypost.stop().await;
}

#[tokio::test]
async fn hops_are_taken_from_the_event_and_spent_ones_are_refused() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    for hops in ["5", "2", "nonsense"] {
        waypost.accept(event(INGRESS, hops, "t", &[("ce-knativebrokerttl", hops)], "")).await;
    }
    // As in Knative, one hop is taken on the way in.
    for hops in ["1", "0", "-1"] {
        waypost.send(event(INGRESS, hops, "t", &[("ce-knativebrokerttl", hops)], "")).await.problem(400);
    }
    let received = subscriber.wait_for(3).await;
    assert!(
        received.iter().all(|received| !received.headers.contains_key("ce-knativebrokerttl")),
        "{received:?}"
    );
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    let one = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
    let problem =
        waypost.send(batch(INGRESS, json!([one("1"), one("2"), one("")]).to_string())).await.problem(400);
    assert_eq!(problem["index"], 2);
    waypost.accept(batch(INGRESS, json!([one("a"), one("b"), one("c")]).to_string())).await;
    let status = waypost.settled().await;
    assert_eq!(status["triggers"][0]["matched"], 3);
    let mut ids: Vec<_> = subscriber.received().iter().map(|received| received.id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "c"]);
    waypost.stop().await;
}

#[tokio::test]
async fn when_the_ingest_budget_is_spent_producers_are_told_to_come_back() {
    let setup = Setup::new(&file(&[broker("default", json!({}))])).arguments(&["--ingest-budget", "100000"]);
    let waypost = setup.start().await;
    // A producer that announces 90,000 bytes and stands still holds that share of the budget.
    let mut slow = Raw::connect(waypost.ingress).await;
    let head = "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n\
                content-length: 90000\r\nexpect: 100-continue\r\n\r\n";
    slow.write(head).await;
    slow.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
    slow.write(vec![b'x'; 40_000]).await;
    let refused = waypost.send(event(INGRESS, "2", "t", &[], vec![b'x'; 60_000])).await;
    refused.problem(429);
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{refused:?}");
    slow.write(vec![b'x'; 50_000]).await;
    assert!(slow.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 202 "));
    // What was held is given back.
    waypost.accept(event(INGRESS, "3", "t", &[], vec![b'x'; 60_000])).await;
    waypost.stop().await;
}

#[tokio::test]
async fn when_the_log_is_full_producers_are_told_until_there_is_room() {
    let subscriber = Subscriber::new(|_| Behaviour::Held(answer(200, &[], ""))).await;
    let setup = Setup::new(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))]));
    let waypost = setup.memory().arguments(&["--memory-log-limit", "1MiB"]).start().await;
    let send =
        async |id: u32| waypost.send(event(INGRESS, &id.to_string(), "t", &[], vec![b'x'; 200_000])).await;
    let mut accepted = 0;
    let refused = loop {
        let answer = send(accepted).await;
        if answer.status != 202 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 20, "more is taken than there is room for");
    };
    assert_eq!(refused.problem(507)["code"], "E0501");
    assert!(accepted >= 4, "{accepted}");
    subscriber.release();
    waypost.settled().await;
    waypost_tests::eventually("room", async || (send(100).await.status == 202).then_some(())).await;
    waypost.settled().await;
    let mut ids: Vec<_> = subscriber.received().iter().map(|received| received.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len() as u32, accepted + 1, "what was accepted is delivered, and nothing else");
    waypost.stop().await;
}

#[tokio::test]
async fn a_producer_that_stands_still_is_cut_off() {
    let setup = Setup::new(&file(&[broker("default", json!({}))])).arguments(&[
        "--head-timeout",
        "100ms",
        "--body-timeout",
        "100ms",
        "--idle-timeout",
        "100ms",
    ]);
    let waypost = setup.start().await;
    let head = "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n";
    for (sent, answered) in [
        ("", ""),
        ("POST /def", ""),
        (head, ""),
        (&*format!("{head}content-length: 9\r\n\r\nhalf"), "HTTP/1.1 408 "),
    ] {
        let mut socket = Raw::connect(waypost.ingress).await;
        socket.write(sent).await;
        let answer = socket.read_to_end().await;
        assert!(answer.starts_with(answered) && !answer.starts_with("HTTP/1.1 2"), "{sent:?}: {answer}");
    }
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let waypost = with_no_trigger().await;
    let mut socket = Raw::connect(waypost.ingress).await;
    let one = |id: &str, connection: &str| {
        format!(
            "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: {id}\r\nce-source: /s\r\nce-type: t\r\n\
             connection: {connection}\r\ncontent-length: 2\r\n\r\n{{}}"
        )
    };
    socket.write([one("1", "keep-alive"), one("", "keep-alive"), one("3", "close")].concat()).await;
    let answers = socket.read_to_end().await;
    let codes: Vec<_> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(codes, ["202", "400", "202"], "{answers}");
    waypost.stop().await;
}

#[tokio::test]
async fn a_body_may_come_in_pieces_and_in_chunks() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    let mut socket = Raw::connect(waypost.ingress).await;
    let head = "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n";
    for piece in [head, "content-len", "gth: 5\r\n", "\r", "\n", "he", "llo"] {
        socket.write(piece).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(socket.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 202 "));
    for piece in
        [head, "transfer-encoding: chunked\r\n\r\n", "3\r\nhel", "\r\n2;ext=1\r\nlo\r\n", "0\r\n\r\n"]
    {
        socket.write(piece).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(socket.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 202 "));
    assert!(subscriber.wait_for(2).await.iter().all(|received| received.body == "hello"));
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn a_producer_that_leaves_in_the_middle_leaves_no_event_behind() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    for part in ["POST /default", "POST /default/default HTTP/1.1\r\nhost: x\r\nce-id: 1\r\n"] {
        Raw::connect(waypost.ingress).await.write(part).await;
    }
    let mut socket = Raw::connect(waypost.ingress).await;
    socket
        .write(
            "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n\
             content-length: 100\r\n\r\nhalf",
        )
        .await;
    drop(socket);
    waypost.accept(event(INGRESS, "whole", "t", &[], "")).await;
    let status = waypost.settled().await;
    assert_eq!(status["triggers"][0]["matched"], 1);
    assert_eq!(subscriber.received()[0].id(), "whole");
    waypost.stop().await;
}

#[tokio::test]
async fn what_is_no_http_ends_the_connection_and_nothing_else() {
    let waypost = with_no_trigger().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GARBAGE\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST /default/default HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /default/default HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /default/default HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /default/default HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame, and long enough to be read as one",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let mut socket = Raw::connect(waypost.ingress).await;
        socket.write(bytes).await;
        let answer = socket.read_to_end().await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    waypost.accept(event(INGRESS, "1", "t", &[], "")).await;
    waypost.stop().await;
}

#[tokio::test]
async fn one_connection_takes_many_events_over_both_versions_of_http() {
    let waypost = with_no_trigger().await;
    for mut connection in [Connection::http1(waypost.ingress).await, Connection::h2c(waypost.ingress).await] {
        for id in 0..50 {
            let answer = connection.send(event(INGRESS, &id.to_string(), "t", &[], "{}")).await;
            assert_eq!(answer.status, 202);
        }
        connection.send(event("/default/absent", "1", "t", &[], "{}")).await.problem(404);
        assert_eq!(connection.send(event(INGRESS, "last", "t", &[], "{}")).await.status, 202);
    }
    waypost.stop().await;
}
