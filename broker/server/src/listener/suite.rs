//! Real sockets on this machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::*;

/// No test waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 8,
    head_timeout: Duration::from_secs(60),
    idle_timeout: Duration::from_secs(60),
};

/// Answers with the number of headers and of body bytes, once it may.
#[derive(Clone)]
struct Counting {
    gate: Arc<Semaphore>,
    entered: Arc<Semaphore>,
}

impl Counting {
    fn open() -> Self {
        Self { gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), entered: Arc::new(Semaphore::new(0)) }
    }

    fn closed() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..Self::open() }
    }
}

impl Handle for Counting {
    type Body = Full<Bytes>;

    async fn handle(&self, request: Request<Incoming>) -> Response<Self::Body> {
        self.entered.add_permits(1);
        let bytes: usize = request.headers().values().map(HeaderValue::len).sum();
        let count = request.headers().len();
        let body = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
        self.gate.acquire().await.unwrap().forget();
        Response::new(Full::from(format!("{count} {bytes} {body}")))
    }
}

async fn start(handler: Counting, limits: ConnectionLimits) -> (Server, SocketAddr) {
    let bound = Bound::take("127.0.0.1:0", "tests", "--none").await.unwrap();
    let address = bound.address();
    (Server::start(bound, handler, limits), address)
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

fn request(headers: impl IntoIterator<Item = (String, String)>) -> Request<Full<Bytes>> {
    let mut request = Request::post("http://test/").body(Full::from("12345")).unwrap();
    for (name, value) in headers {
        let (name, value) = (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        request.headers_mut().insert(name, value);
    }
    request
}

async fn over_http1(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    answer(sender.send_request(request).await?).await
}

async fn over_http2(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    answer(sender.send_request(request).await?).await
}

async fn answer(response: Response<Incoming>) -> hyper::Result<(StatusCode, String)> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

#[tokio::test]
async fn large_heads_pass_over_both_protocols() {
    let (server, address) = start(Counting::open(), LIMITS).await;
    let one_large = || [("ce-large".to_owned(), "%20".repeat(64 * 1024))];
    let many = || (0..500).map(|number| (format!("ce-a{number}"), "v".repeat(330)));
    for (status, body) in [
        patiently(over_http1(address, request(one_large()))).await.unwrap(),
        patiently(over_http2(address, request(one_large()))).await.unwrap(),
        patiently(over_http1(address, request(many()))).await.unwrap(),
        patiently(over_http2(address, request(many()))).await.unwrap(),
    ] {
        assert_eq!(status, StatusCode::OK);
        assert!(body.ends_with(" 5"), "{body}");
        let bytes: usize = body.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(bytes >= 165_000, "{body}");
    }
    patiently(server.stop()).await;
}

#[tokio::test]
async fn a_head_beyond_its_limits_is_refused_and_the_next_served() {
    let (server, address) = start(Counting::open(), LIMITS).await;
    let many = (0..700).map(|number| (format!("x-{number}"), String::new()));
    let (status, _) = patiently(over_http1(address, request(many))).await.unwrap();
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let large = [("x".to_owned(), "v".repeat(600 * 1024))];
    // The refusal may come while the request is still being written, and then be lost.
    if let Ok((status, _)) = patiently(over_http1(address, request(large))).await {
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let (status, _) = patiently(over_http1(address, request([]))).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    patiently(server.stop()).await;
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_serves_late_connections() {
    let handler = Counting::closed();
    let (server, address) = start(handler.clone(), LIMITS).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    handler.gate.add_permits(1);
    let mut first = [0; 12];
    patiently(idle.read_exact(&mut first)).await.unwrap();
    let mut requests = JoinSet::new();
    requests.spawn(over_http1(address, request([])));
    requests.spawn(over_http2(address, request([])));
    patiently(handler.entered.acquire_many(3)).await.unwrap().forget();
    let draining = async {
        patiently(server.drain()).await;
        server.connections()
    };
    let during = async {
        // The idle connection ends at once, although it may be kept alive.
        let mut rest = Vec::new();
        patiently(idle.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(server.connections(), 2);
        let late = over_http1(address, request([]));
        let opening = async {
            patiently(handler.entered.acquire()).await.unwrap().forget();
            handler.gate.add_permits(3);
        };
        let (late, ()) = tokio::join!(patiently(late), opening);
        assert_eq!(late.unwrap().0, StatusCode::OK);
    };
    let (left, ()) = tokio::join!(draining, during);
    assert_eq!(left, 0);
    while let Some(finished) = patiently(requests.join_next()).await {
        assert_eq!(finished.unwrap().unwrap().0, StatusCode::OK);
    }
    patiently(server.stop()).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_connection_that_does_nothing_is_closed() {
    let short = Duration::from_millis(20);
    for (head_timeout, idle_timeout, start_of_head) in [
        (short, PATIENCE * 2, "POST / HTTP/1.1\r\nho"),
        (short, PATIENCE * 2, ""),
        (PATIENCE * 2, short, "POST / HT"),
    ] {
        let (server, address) =
            start(Counting::open(), ConnectionLimits { head_timeout, idle_timeout, ..LIMITS }).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(start_of_head.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // How it is closed does not matter, that it is does.
        let _ = patiently(client.read_to_end(&mut rest)).await;
        patiently(server.stop()).await;
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let (server, address) = start(Counting::open(), ConnectionLimits { connections: 1, ..LIMITS }).await;
    let first = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(first)).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let served = sender.send_request(Request::post("/").body(Empty::new()).unwrap());
    patiently(served).await.unwrap().into_body().collect().await.unwrap();
    let mut second = JoinSet::new();
    second.spawn(over_http1(address, request([])));
    // The first connection still works, and the second one is served once it has gone.
    let served = sender.send_request(Request::post("/").body(Empty::new()).unwrap());
    patiently(served).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(server.connections(), 1);
    drop(sender);
    driver.shutdown().await;
    let (status, _) = patiently(second.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(status, StatusCode::OK);
    patiently(server.stop()).await;
}

#[tokio::test]
async fn an_address_is_taken_once() {
    let (server, address) = start(Counting::open(), LIMITS).await;
    let taken = Bound::take(&address.to_string(), "events", "--listen").await.unwrap_err();
    assert_eq!(taken.code(), codes::ADDRESS_IN_USE);
    let sentence = taken.to_string();
    assert!(sentence.contains(&address.to_string()) && sentence.contains("--listen"), "{sentence}");
    for wrong in ["nowhere", "127.0.0.1", "127.0.0.1:99999", "192.0.2.1:80", ""] {
        let unusable = Bound::take(wrong, "events", "--listen").await.unwrap_err();
        assert_eq!(unusable.code(), codes::ADDRESS_UNUSABLE, "{wrong}");
    }
    patiently(server.stop()).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (server, address) = start(Counting::open(), LIMITS).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let requests = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na\
                    POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab\
                    POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
    client.write_all(requests.as_bytes()).await.unwrap();
    // A client may close its side before it is answered.
    client.shutdown().await.unwrap();
    let mut answers = String::new();
    patiently(client.read_to_string(&mut answers)).await.unwrap();
    let order: Vec<usize> = ["2 2 1", "2 2 2", "3 7 3"].map(|answer| answers.find(answer).unwrap()).to_vec();
    assert!(order.is_sorted(), "{answers}");
    patiently(server.stop()).await;
}
