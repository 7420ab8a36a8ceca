//! Requests over real sockets to a real engine with its log in memory.

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use waypost_core::manifest::{ManifestFile, Manifests};
use waypost_engine::{EngineOptions, Limits, StatusQuery};

use super::*;
use crate::listener::{Bound, ConnectionLimits, Server};
use crate::registry::REGISTRY;

const PATIENCE: Duration = Duration::from_secs(30);
const LIMITS: RequestLimits =
    RequestLimits { event_bytes: 100_000, request_bytes: 200_000, body_timeout: Duration::from_secs(60) };
const BUDGET: usize = 300_000;

const MANIFESTS: &[u8] = b"
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec:
  broker: default
  subscriber: {uri: 'http://127.0.0.1:9/'}
";

struct Running {
    engine: Engine,
    ingress: Ingress,
    server: Server,
    address: std::net::SocketAddr,
}

impl Running {
    async fn start(limits: RequestLimits) -> Self {
        let clock = Clock::system();
        let engine_limits = Limits { ingest_budget_bytes: BUDGET, ..Limits::default() };
        let engine = Engine::new(EngineOptions {
            clock: clock.clone(),
            limits: engine_limits,
            store: None,
            detached_retention: waypost_engine::DEFAULT_DETACHED_RETENTION,
        });
        let ingress = Ingress::new(engine.clone(), clock, limits);
        let bound = Bound::take("127.0.0.1:0", "tests", "--none").await.unwrap();
        let address = bound.address();
        let connections =
            ConnectionLimits { connections: 16, head_timeout: PATIENCE, idle_timeout: PATIENCE };
        let server = Server::start(bound, ingress.clone(), connections);
        Self { engine, ingress, server, address }
    }

    async fn ready(limits: RequestLimits) -> Self {
        let running = Self::start(limits).await;
        let manifests = Manifests { files: vec![ManifestFile::read("test.yaml", MANIFESTS)] };
        let plan = waypost_engine::plan::plan(&manifests, &REGISTRY, None, 1);
        assert_eq!(plan.problems, []);
        running.engine.apply(plan, 1).await;
        running.ingress.open();
        running
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answered {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answered { status: head.status, headers: head.headers, body }
    }

    async fn received(&self) -> u64 {
        self.engine.status(&StatusQuery::default()).await.logs[0].received
    }
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    /// The status, and the code of the problem.
    fn told(&self) -> (u16, String) {
        let code = if self.body.is_empty() {
            String::new()
        } else {
            assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
            let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
            assert_eq!(problem["status"], self.status.as_u16());
            problem["code"].as_str().unwrap().to_owned()
        };
        (self.status.as_u16(), code)
    }
}

fn post(path: &str) -> http::request::Builder {
    Request::builder().method(Method::POST).uri(path).header("host", "test")
}

fn binary(path: &str) -> http::request::Builder {
    post(path)
        .header("ce-specversion", "1.0")
        .header("ce-id", "1")
        .header("ce-source", "/test")
        .header("ce-type", "test")
}

fn with(builder: http::request::Builder, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    builder.body(Full::new(body.into())).unwrap()
}

fn batch(events: &[String]) -> Request<Full<Bytes>> {
    let builder = post("/default/default").header(CONTENT_TYPE, "application/cloudevents-batch+json");
    with(builder, format!("[{}]", events.join(",")))
}

fn document(id: &str, data: usize) -> String {
    let data = "d".repeat(data);
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/test","type":"test","data":"{data}"}}"#)
}

fn told(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn accepted_events_are_in_the_log() {
    let running = Running::ready(LIMITS).await;
    for (request, received) in [
        (with(binary("/default/default"), ""), 1),
        (with(binary("/default/default/?query=1"), vec![0; 90_000]), 2),
        (
            with(
                post("/%64efault/default").header(CONTENT_TYPE, "application/cloudevents+json"),
                document("1", 9),
            ),
            3,
        ),
        (batch(&[document("1", 9), document("2", 80_000), document("3", 80_000)]), 6),
        (batch(&[]), 6),
    ] {
        let answered = running.send(request).await;
        assert_eq!(answered.told(), told(202, ""));
        assert_eq!(running.received().await, received);
    }
    assert_eq!(running.engine.budget().used(), 0);
    assert!(running.ingress.metrics().contains("{code=\"202\"} 5"));
}

#[tokio::test]
async fn refusals_have_their_status_and_code() {
    let running = Running::ready(LIMITS).await;
    let get = |path: &str| with(Request::get(path).header("host", "test"), "");
    for (request, expected) in [
        (with(binary("/"), ""), told(404, "E0650")),
        (with(binary("/default/other"), vec![0; 150_000]), told(404, "E0650")),
        (with(binary("/default/sinks/other"), ""), told(404, "E0650")),
        (with(binary("/default/sources/other"), ""), told(404, "E0650")),
        (get("/default/default"), told(405, "E0651")),
        (with(post("/default/default"), "text"), told(400, "E0601")),
        (
            with(binary("/default/default").header(CONTENT_TYPE, "application/cloudevents+avro"), ""),
            told(202, ""),
        ),
        (
            with(post("/default/default").header(CONTENT_TYPE, "application/cloudevents+avro"), ""),
            told(415, "E0616"),
        ),
        (with(binary("/default/default").header("content-encoding", "gzip"), ""), told(415, "E0658")),
        (with(binary("/default/default"), vec![0; 100_001]), told(413, "E0652")),
        (with(binary("/default/default"), vec![0; 99_990]), told(413, "E0653")),
        (with(binary("/default/default").header("ce-knativebrokerttl", "1"), ""), told(400, "E0407")),
        (batch(&[document("1", 150_000)]), told(413, "E0653")),
        (batch(&[document("1", 250_000)]), told(413, "E0652")),
    ] {
        let shown = format!("{request:?}");
        let answered = running.send(request).await;
        assert_eq!(answered.told(), expected, "{:.300}", shown);
        assert_eq!(answered.headers.contains_key(ALLOW), answered.status == 405);
    }
    assert_eq!(running.received().await, 1);
    assert_eq!(running.engine.budget().used(), 0);
}

#[tokio::test]
async fn a_batch_is_taken_as_a_whole_or_not_at_all() {
    let running = Running::ready(LIMITS).await;
    for (second, expected) in [(document("", 1), "E0603"), (document("2", 110_000), "E0653")] {
        let answered = running.send(batch(&[document("1", 1), second])).await;
        let problem: serde_json::Value = serde_json::from_slice(&answered.body).unwrap();
        assert_eq!((problem["code"].as_str(), problem["index"].as_u64()), (Some(expected), Some(1)));
    }
    assert_eq!(running.received().await, 0);
}

#[tokio::test]
async fn producers_over_the_budget_are_told_to_come_back() {
    let running = Running::ready(LIMITS).await;
    let held = running.engine.budget().try_take(BUDGET - 10_000).unwrap();
    let answered = running.send(with(binary("/default/default"), vec![0; 50_000])).await;
    assert_eq!(answered.told(), told(429, "E0654"));
    assert_eq!(answered.headers[RETRY_AFTER], "1");
    // The announced length alone decides, and a chunked body that grows too large is refused on the way.
    let mut client = TcpStream::connect(running.address).await.unwrap();
    let head = "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\n\
                ce-type: t\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("7530\r\n{}\r\n", "c".repeat(30_000));
    client.write_all(format!("{head}{chunk}0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    drop(held);
    let answered = running.send(with(binary("/default/default"), vec![0; 50_000])).await;
    assert_eq!(answered.told(), told(202, ""));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let running = Running::ready(RequestLimits { body_timeout: Duration::from_millis(20), ..LIMITS }).await;
    let mut client = TcpStream::connect(running.address).await.unwrap();
    let head = "POST /default/default HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\n\
                ce-type: t\r\ncontent-length: 10\r\n\r\n12345";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(running.engine.budget().used(), 0);
    assert_eq!(running.received().await, 0);
}

#[tokio::test]
async fn a_closed_ingress_says_when_to_come_back() {
    let running = Running::start(LIMITS).await;
    let starting = running.send(with(binary("/default/default"), "")).await;
    assert_eq!(starting.told(), told(503, "E0655"));
    running.ingress.open();
    assert!(running.ingress.is_open());
    running.ingress.close();
    let closing = running.send(with(binary("/default/default"), "")).await;
    assert_eq!(closing.told(), told(503, "E0655"));
    assert_eq!(
        (&closing.headers[RETRY_AFTER], &closing.headers["connection"]),
        (&"1".parse().unwrap(), &"close".parse().unwrap())
    );
    running.server.stop().await;
}
