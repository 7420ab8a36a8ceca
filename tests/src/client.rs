//! Clients of the ingress and of the admin API: HTTP/1.1, HTTP/2 without TLS, and a bare socket.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::PATIENCE;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// A header as text; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("our headers are ASCII"))
    }

    /// Checks that the answer is a problem as the design wants one, and returns it.
    ///
    /// # Panics
    /// If it is not.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "detail", "code"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {problem}");
        }
        problem
    }
}

/// A connection that can send any number of requests, one after the other.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    authority: String,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects for HTTP/1.1.
    ///
    /// # Panics
    /// If nobody listens.
    pub async fn http1(address: SocketAddr) -> Self {
        let (sender, connection) = hyper::client::conn::http1::handshake(open(address).await)
            .await
            .expect("a fresh connection takes a handshake");
        let mut tasks = JoinSet::new();
        // How a connection ends shows in the request that it ends.
        tasks.spawn(async move { drop(connection.await) });
        Self { sender: Sender::Http1(sender), authority: address.to_string(), _tasks: tasks }
    }

    /// Connects for HTTP/2 without TLS and without an upgrade.
    ///
    /// # Panics
    /// If nobody listens.
    pub async fn h2c(address: SocketAddr) -> Self {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(open(address).await)
            .await
            .expect("a fresh connection takes a handshake");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        Self { sender: Sender::Http2(sender), authority: address.to_string(), _tasks: tasks }
    }

    /// Sends a request whose URI is a path, and waits for the whole answer.
    ///
    /// # Errors
    /// If the connection breaks before the answer is whole.
    pub async fn try_send(&mut self, request: Request<Bytes>) -> Result<Answer, hyper::Error> {
        let (mut parts, body) = request.into_parts();
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                let host = self.authority.parse().expect("an address is a header value");
                parts.headers.entry(http::header::HOST).or_insert(host);
                sender.ready().await?;
                sender.send_request(Request::from_parts(parts, Full::new(body))).await?
            }
            Sender::Http2(sender) => {
                let uri = format!("http://{}{}", self.authority, parts.uri);
                parts.uri = uri.parse().expect("an address and a path are a URI");
                sender.ready().await?;
                sender.send_request(Request::from_parts(parts, Full::new(body))).await?
            }
        };
        whole(response).await
    }

    /// As [`try_send`](Self::try_send).
    ///
    /// # Panics
    /// If the connection breaks, or no answer comes.
    pub async fn send(&mut self, request: Request<Bytes>) -> Answer {
        let line = format!("{} {}", request.method(), request.uri());
        match tokio::time::timeout(PATIENCE, self.try_send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => panic!("{line}: {error:?}"),
            Err(_) => panic!("{line}: no answer"),
        }
    }
}

async fn open(address: SocketAddr) -> TokioIo<TcpStream> {
    TokioIo::new(TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}")))
}

async fn whole(response: Response<hyper::body::Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
}

/// Sends one request over a connection of its own.
pub async fn send(address: SocketAddr, request: Request<Bytes>) -> Answer {
    Connection::http1(address).await.send(request).await
}

/// Gets a path.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, request(Method::GET, path, &[], "")).await
}

/// A request from its parts.
///
/// # Panics
/// If one of them is not allowed in HTTP.
pub fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Bytes> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).expect("the test gives parts that HTTP allows")
}

/// A POST in binary mode: an event of this id and type from `/tests`, with further headers.
pub fn event(
    path: &str,
    id: &str,
    event_type: &str,
    headers: &[(&str, &str)],
    data: impl Into<Bytes>,
) -> Request<Bytes> {
    let attributes =
        [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/tests"), ("ce-type", event_type)];
    request(Method::POST, path, &[&attributes[..], headers].concat(), data)
}

/// A POST of one structured event.
pub fn structured(path: &str, json: impl Into<Bytes>) -> Request<Bytes> {
    request(Method::POST, path, &[("content-type", "application/cloudevents+json")], json)
}

/// A POST of a batch.
pub fn batch(path: &str, json: impl Into<Bytes>) -> Request<Bytes> {
    request(Method::POST, path, &[("content-type", "application/cloudevents-batch+json")], json)
}

/// A bare connection, for what no HTTP client would send.
#[derive(Debug)]
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// If nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    /// Writes these bytes.
    ///
    /// # Panics
    /// If the other side is gone.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the other side still reads");
    }

    /// Reads until `end` stands in what was read.
    ///
    /// # Panics
    /// If the connection ends before.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let reading = async {
            loop {
                if String::from_utf8_lossy(&text).contains(end) {
                    return String::from_utf8_lossy(&text).into_owned();
                }
                let read = self.0.read_buf(&mut text).await.expect("the connection is not reset");
                assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&text));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {end:?} comes"))
    }

    /// Reads until the other side closes, however it does that.
    ///
    /// # Panics
    /// If it does not.
    pub async fn read_to_end(&mut self) -> String {
        let mut text = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut text)).await;
        // A reset is an end, too: what came before it counts.
        drop(read.expect("the other side closes the connection"));
        String::from_utf8_lossy(&text).into_owned()
    }
}
