//! An HTTP server that plays a subscriber: it answers as the test wants and notes what it was sent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::PATIENCE;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// Which request with this event it is, counted from 1.
    pub attempt: usize,
    /// The connection that it came over, counted from 1.
    pub connection: usize,
    /// When it came.
    pub at: Instant,
}

impl Received {
    /// A header as text; empty where it is not there.
    ///
    /// # Panics
    /// If it is not ASCII, which no header of ours is.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("our headers are ASCII"))
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The id of the event, in binary or structured mode.
    pub fn id(&self) -> String {
        if self.header("content-type").starts_with("application/cloudevents") {
            let event: Value = serde_json::from_slice(&self.body).unwrap_or_default();
            return event["id"].as_str().unwrap_or_default().to_owned();
        }
        self.header("ce-id").to_owned()
    }

    /// The names of the attributes that came as headers, sorted.
    pub fn attribute_names(&self) -> Vec<&str> {
        let mut names: Vec<_> =
            self.headers.keys().filter_map(|name| name.as_str().strip_prefix("ce-")).collect();
        names.sort_unstable();
        names
    }
}

/// What the subscriber does with a request.
#[derive(Debug)]
pub enum Behaviour {
    /// Answers.
    Answer(Response<Bytes>),
    /// Answers later.
    Later(Duration, Response<Bytes>),
    /// Answers once the test calls [`Subscriber::release`].
    Held(Response<Bytes>),
    /// Never answers.
    Hang,
    /// Closes the connection without an answer.
    Close,
}

impl From<u16> for Behaviour {
    /// Answers with this status and no body.
    fn from(status: u16) -> Self {
        Self::Answer(answer(status, &[], ""))
    }
}

/// An answer from its parts.
///
/// # Panics
/// If one of them is not allowed in HTTP.
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Bytes> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).expect("the test gives parts that HTTP allows")
}

/// A reply: an event of this id and type, in binary mode.
pub fn reply(id: &str, event_type: &str, headers: &[(&str, &str)], data: impl Into<Bytes>) -> Behaviour {
    let attributes =
        [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/reply"), ("ce-type", event_type)];
    Behaviour::Answer(answer(200, &[&attributes[..], headers].concat(), data))
}

/// A running subscriber. It ends when it is dropped.
#[derive(Debug)]
pub struct Subscriber {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

type Script = dyn Fn(&Received) -> Behaviour + Send + Sync;

struct Shared {
    script: Box<Script>,
    close_after_answer: bool,
    noted: Mutex<Noted>,
    count: watch::Sender<usize>,
    closed: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Noted {
    received: Vec<Received>,
    attempts: HashMap<(String, String), usize>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("noted", &*self.noted.lock()).finish_non_exhaustive()
    }
}

impl Subscriber {
    /// Answers 200 to everything.
    pub async fn accepting() -> Self {
        Self::new(|_| 200.into()).await
    }

    /// Does with each request what `script` says.
    pub async fn new(script: impl Fn(&Received) -> Behaviour + Send + Sync + 'static) -> Self {
        Self::start(Box::new(script), false).await
    }

    /// As [`new`](Self::new), and closes each connection after its first answer without a word about it.
    pub async fn closing(script: impl Fn(&Received) -> Behaviour + Send + Sync + 'static) -> Self {
        Self::start(Box::new(script), true).await
    }

    /// As [`accepting`](Self::accepting), where another subscriber was until it was dropped.
    ///
    /// # Panics
    /// If someone else listens there meanwhile.
    pub async fn accepting_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port was free a moment ago");
        Self::listen(listener, Box::new(|_| 200.into()), false)
    }

    async fn start(script: Box<Script>, close_after_answer: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
        Self::listen(listener, script, close_after_answer)
    }

    fn listen(listener: TcpListener, script: Box<Script>, close_after_answer: bool) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            script,
            close_after_answer,
            noted: Mutex::default(),
            count: watch::Sender::new(0),
            closed: watch::Sender::new(0),
            released: watch::Sender::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path on this subscriber.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Lets all [held](Behaviour::Held) answers go, now and from now on.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Everything that came so far, in the order in which it came.
    pub fn received(&self) -> Vec<Received> {
        self.shared.noted.lock().received.clone()
    }

    /// The most requests that came within less than `time`. Where each is answered that [late](Behaviour::Later), no more were
    /// under way at a time.
    pub fn most_within(&self, time: Duration) -> usize {
        let received = self.received();
        let within =
            |first: &Received| received.partition_point(|one| one.at.duration_since(first.at) < time);
        received.iter().enumerate().map(|(before, first)| within(first) - before).max().unwrap_or_default()
    }

    /// How many requests came so far.
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Waits until at least `count` requests came, and returns all.
    ///
    /// # Panics
    /// If they do not come.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut received = self.shared.count.subscribe();
        let waited = tokio::time::timeout(PATIENCE, received.wait_for(|now| *now >= count)).await;
        if waited.is_err() {
            panic!("{count} requests should have come; what came: {:#?}", self.received());
        }
        self.received()
    }

    /// Waits until at least `count` connections have ended.
    ///
    /// # Panics
    /// If they do not end.
    pub async fn wait_for_closed(&self, count: usize) {
        let mut closed = self.shared.closed.subscribe();
        let waited = tokio::time::timeout(PATIENCE, closed.wait_for(|now| *now >= count)).await;
        assert!(waited.is_ok(), "{count} connections should have ended");
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        number += 1;
        connections.spawn(serve(stream, number, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    let answered = Notify::new();
    let service = service_fn(|request| async {
        let answer = respond(request, number, &shared).await;
        answered.notify_one();
        answer
    });
    let mut serving = pin!(
        hyper::server::conn::http1::Builder::new()
            .max_headers(1024)
            .max_buf_size(1024 * 1024)
            .serve_connection(TokioIo::new(stream), service)
    );
    let closing = async {
        answered.notified().await;
        // By now the answer is on its way, so that nothing in it tells of the end.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // A peer that goes away is one of the things that the tests are about.
    tokio::select! {
        ended = serving.as_mut() => drop(ended),
        () = closing, if shared.close_after_answer => {
            serving.as_mut().graceful_shutdown();
            drop(serving.await);
        }
    }
    shared.closed.send_modify(|closed| *closed += 1);
}

/// Ends a connection without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the script closes the connection")
    }
}

impl std::error::Error for Closed {}

async fn respond(
    request: hyper::Request<hyper::body::Incoming>,
    connection: usize,
    shared: &Shared,
) -> Result<Response<Full<Bytes>>, Closed> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let received = {
        let (method, headers) = (parts.method, parts.headers);
        let mut noted = shared.noted.lock();
        // Under the lock, so that their order is that of their times.
        let at = Instant::now();
        let mut received = Received { method, path, headers, body, attempt: 0, connection, at };
        let attempt = noted.attempts.entry((received.path.clone(), received.id())).or_default();
        *attempt += 1;
        received.attempt = *attempt;
        noted.received.push(received.clone());
        shared.count.send_replace(noted.received.len());
        received
    };
    let answer = match (shared.script)(&received) {
        Behaviour::Answer(answer) => answer,
        Behaviour::Later(wait, answer) => {
            tokio::time::sleep(wait).await;
            answer
        }
        Behaviour::Held(answer) => {
            let mut released = shared.released.subscribe();
            released.wait_for(|released| *released).await.map_err(|_| Closed)?;
            answer
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Close => return Err(Closed),
    };
    Ok(answer.map(Full::new))
}
