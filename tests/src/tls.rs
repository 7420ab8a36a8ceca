//! TLS in front of a server that has none.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A listener on a free port that speaks TLS and passes on what is said. It ends when it is dropped.
#[derive(Debug)]
pub struct TlsFront {
    port: u16,
    certificate: String,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    /// Stands before a server: `host:port`, with a URL's scheme or without.
    ///
    /// # Panics
    /// If the machine has no port left.
    pub async fn before(server: &str) -> Self {
        let (certificate, config) = identity();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the machine has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let behind: Arc<str> = server.trim_start_matches("http://").trim_end_matches('/').into();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(acceptor.clone(), client, Arc::clone(&behind)));
            }
        });
        Self { port, certificate, _tasks: tasks }
    }

    /// Where it is: a URL, of the name that its certificate is for.
    pub fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Its certificate, as PEM: its own authority.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate like its own, as PEM, which is not.
    pub fn strange_certificate() -> String {
        identity().0
    }
}

fn identity() -> (String, ServerConfig) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("the name is a valid one");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("it was just made");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("the key is that of the certificate");
    (cert.pem(), config)
}

/// What ends a connection is seen by both sides, and nothing more can be done about it.
async fn pass(acceptor: TlsAcceptor, client: TcpStream, behind: Arc<str>) {
    let Ok(mut client) = acceptor.accept(client).await else { return };
    let Ok(mut server) = TcpStream::connect(&*behind).await else { return };
    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
