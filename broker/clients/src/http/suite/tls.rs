use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use waypost_core::codes;

use super::super::*;
use super::plain::request;
use super::server::{ACCEPTED, Server, Step, say};

/// A certificate of a server, and that of its authority.
pub(super) struct Identity {
    pub(super) pem: String,
    acceptor: TlsAcceptor,
}

impl Identity {
    pub(super) fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("a usable certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { pem: made.cert.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    async fn serve(&self, scripts: Vec<Vec<Step>>) -> Server {
        Server::start(scripts, Some(self.acceptor.clone())).await
    }
}

fn script() -> Vec<Vec<Step>> {
    vec![vec![Step::Take, say(ACCEPTED), Step::Take, say(ACCEPTED), Step::Hold]]
}

async fn post(url: &str, pem: &str) -> Result<Arc<Pool>, SendError> {
    let pool = Arc::new(Pool::new(PoolOptions::default()));
    let target = Target::parse(url, Some(pem)).expect("a target");
    for _ in 0..2 {
        let mut lane = pool.lane(&target);
        lane.send(request(&target, "hello")).await?.read(0).await?;
    }
    Ok(pool)
}

#[tokio::test]
async fn https_with_an_own_authority_speaks_http_1_and_keeps_its_connection() {
    let identity = Identity::new(&["localhost", "127.0.0.1"]);
    for host in ["localhost", "127.0.0.1"] {
        let server = identity.serve(script()).await;
        let url = format!("https://{host}:{}/", server.address.port());
        let pool = post(&url, &identity.pem).await.expect("trusted");
        assert_eq!((server.connections(), server.requests().len(), pool.idle_count()), (1, 2, 1), "{host}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_names_the_remedy() {
    let (theirs, ours) = (Identity::new(&["localhost"]), Identity::new(&["localhost"]));
    let server = theirs.serve(script()).await;
    let url = format!("https://localhost:{}/", server.address.port());
    let failure = classify(&post(&url, &ours.pem).await.expect_err("another authority"));
    assert_eq!(failure.code, codes::SUBSCRIBER_NOT_TRUSTED);
    assert!(failure.congested);
    assert!(server.requests().is_empty());

    let server = theirs.serve(script()).await;
    let url = format!("https://127.0.0.1:{}/", server.address.port());
    let failure = classify(&post(&url, &theirs.pem).await.expect_err("another name"));
    assert!(failure.detail.contains("another name"), "{failure}");
}

#[tokio::test]
async fn a_port_without_tls_is_told() {
    let identity = Identity::new(&["localhost"]);
    let server = Server::plain([vec![say("HTTP/1.1 400 Bad Request\r\n\r\n"), Step::Hold]]).await;
    let url = format!("https://localhost:{}/", server.address.port());
    let failure = classify(&post(&url, &identity.pem).await.expect_err("no TLS"));
    assert_eq!(failure.code, codes::SUBSCRIBER_NOT_TRUSTED);
    assert!(failure.detail.contains("does not speak TLS"), "{failure}");
}
