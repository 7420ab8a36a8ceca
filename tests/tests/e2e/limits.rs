//! How large an event may be: at least 64 KiB in any shape, and not without end.

use http::Method;
use serde_json::json;
use waypost_tests::client::{Connection, Raw, batch, event, request};
use waypost_tests::process::{Setup, Waypost};
use waypost_tests::subscriber::Subscriber;

use crate::manifests::{broker, default_broker, file, trigger};

const INGRESS: &str = "/default/default";
const KIB: usize = 1024;

#[tokio::test]
async fn an_event_of_64_kib_passes_in_one_attribute_in_many_and_in_data_over_both_versions_of_http() {
    let subscriber = Subscriber::accepting().await;
    let triggers = [
        trigger("binary", &subscriber.url("/binary"), json!({})),
        trigger("json", &subscriber.url("/json"), json!({"delivery": {"format": "json"}})),
    ];
    let waypost = Waypost::start(&default_broker(&triggers)).await;
    let long = "x".repeat(60 * KIB);
    let names: Vec<_> = (0..200).map(|number| format!("ce-extension{number}")).collect();
    let value = "y".repeat(300);
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let data = "z".repeat(64 * KIB);
    let mut expected = 0;
    for mut connection in [Connection::http1(waypost.ingress).await, Connection::h2c(waypost.ingress).await] {
        for (id, headers, data) in [
            ("one", &[("ce-long", long.as_str())][..], ""),
            ("many", &many, ""),
            ("data", &[("content-type", "text/plain")], data.as_str()),
        ] {
            let answer = connection.send(event(INGRESS, id, "t", headers, data.to_owned())).await;
            assert_eq!(answer.status, 202, "{id}: {answer:?}");
            let received = subscriber.wait_for(expected + 2).await;
            for received in &received[expected..] {
                for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("ce-")) {
                    let attribute = name.strip_prefix("ce-").unwrap();
                    match received.path.as_str() {
                        "/binary" => assert_eq!(received.header(name), *value),
                        _ => assert_eq!(received.json()[attribute], *value),
                    }
                }
                match received.path.as_str() {
                    "/binary" => assert_eq!(received.body, data),
                    _ => assert_eq!(received.json()["data"].as_str().unwrap_or_default(), data),
                }
            }
            expected += 2;
        }
    }
    let status = waypost.settled().await;
    assert!(status["triggers"].as_array().unwrap().iter().all(|row| row["delivered"] == 6), "{status}");
    waypost.stop().await;
}

#[tokio::test]
async fn an_event_over_the_limit_is_413_whether_its_length_is_announced_or_not() {
    let setup = Setup::new(&file(&[broker("default", json!({}))])).arguments(&[
        "--max-event-bytes",
        "100000",
        "--max-request-bytes",
        "300000",
    ]);
    let waypost = setup.start().await;
    waypost.accept(event(INGRESS, "1", "t", &[], vec![b'x'; 90_000])).await;
    waypost.send(event(INGRESS, "1", "t", &[], vec![b'x'; 110_000])).await.problem(413);

    let mut socket = Raw::connect(waypost.ingress).await;
    socket
        .write(
            "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n\
             transfer-encoding: chunked\r\n\r\n",
        )
        .await;
    for _ in 0..11 {
        socket.write(format!("2710\r\n{}\r\n", "x".repeat(10_000))).await;
    }
    assert!(socket.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 413 "));

    // A batch has a limit of its own, and each of its events the limit of an event.
    let one = |bytes: usize| json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": "x".repeat(bytes)});
    let fits = json!([one(90_000), one(90_000), one(90_000)]).to_string();
    waypost.accept(batch(INGRESS, fits)).await;
    waypost.send(batch(INGRESS, json!([one(1), one(110_000)]).to_string())).await.problem(413);
    waypost.send(batch(INGRESS, json!(vec![one(90_000); 4]).to_string())).await.problem(413);
    waypost.stop().await;
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    let waypost = Waypost::start(&file(&[broker("default", json!({}))])).await;
    let names: Vec<_> = (0..700).map(|number| format!("x-header{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let mut connection = Connection::http1(waypost.ingress).await;
    let answer = connection.send(request(Method::POST, INGRESS, &headers, "")).await;
    assert_eq!(answer.status, 431, "{answer:?}");

    let mut socket = Raw::connect(waypost.ingress).await;
    socket.write("POST /default/default HTTP/1.1\r\nhost: x\r\n").await;
    socket.write(format!("x-endless: {}", "x".repeat(2 * 1024 * KIB)).as_bytes()[..600 * KIB].to_vec()).await;
    assert!(socket.read_to_end().await.starts_with("HTTP/1.1 431 "));
    waypost.stop().await;
}
