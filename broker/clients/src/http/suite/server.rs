//! A server that answers each connection by a script, byte by byte.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// One step of a connection's script.
#[derive(Clone)]
pub(super) enum Step {
    /// Reads one whole request.
    Take,
    /// Writes these bytes.
    Say(Vec<u8>),
    /// Waits until the test goes on.
    Wait(Arc<Notify>),
    /// Keeps the connection open until the other side closes it.
    Hold,
    /// Closes at once, with a reset where input is unread.
    Reset,
}

pub(super) fn say(text: impl AsRef<[u8]>) -> Step {
    Step::Say(text.as_ref().to_vec())
}

pub(super) const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

/// Plays one script per connection, in order; further connections are closed at once.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    closed: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn plain(scripts: impl IntoIterator<Item = Vec<Step>>) -> Self {
        Self::start(scripts, None).await
    }

    pub(super) async fn start(
        scripts: impl IntoIterator<Item = Vec<Step>>,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut scripts: VecDeque<Vec<Step>> = scripts.into_iter().collect();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let (count, heard, over) = (Arc::clone(&connections), Arc::clone(&requests), Arc::clone(&closed));
        tasks.spawn(async move {
            let mut playing = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                count.fetch_add(1, Ordering::SeqCst);
                let (script, heard, over, tls) = (
                    scripts.pop_front().unwrap_or_default(),
                    Arc::clone(&heard),
                    Arc::clone(&over),
                    tls.clone(),
                );
                playing.spawn(async move {
                    match tls {
                        None => play(stream, script, &heard).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                play(stream, script, &heard).await;
                            }
                        }
                    }
                    over.notify_one();
                });
            }
        });
        Self { address, connections, requests, closed, _tasks: tasks }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }

    /// Returns once a connection has played to its end.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }
}

async fn play(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Vec<Step>,
    heard: &Mutex<Vec<String>>,
) {
    for step in script {
        match step {
            Step::Take => match request(&mut stream).await {
                Some(request) => heard.lock().push(request),
                None => return,
            },
            Step::Say(bytes) => {
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Step::Wait(notify) => notify.notified().await,
            Step::Hold => {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                return;
            }
            Step::Reset => return,
        }
    }
    let _ = stream.shutdown().await;
}

/// Reads the head of a request and a body of the announced length.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes).expect("an ASCII head");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8(body).expect("a text body"))
}
