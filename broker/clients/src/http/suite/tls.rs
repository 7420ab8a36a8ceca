use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
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

    /// A server that wants a certificate which these authorities issued.
    fn asking(names: &[&str], authorities: &str) -> Self {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authorities.as_bytes()).expect("PEM"))
            .expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a usable certificate");
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

#[tokio::test]
async fn a_certificate_is_shown_where_the_server_wants_one_and_its_refusal_is_told() {
    let ours = rcgen::generate_simple_self_signed(vec!["waypost".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).expect("a certificate");
    let server = Identity::asking(&["localhost"], &ours.cert.pem());
    let call = async |identity: Option<(&str, &str)>, authorities: Option<&str>| {
        let running = server.serve(script()).await;
        let url = format!("https://localhost:{}/", running.address.port());
        let options = TlsOptions { authorities, identity, accept_any: authorities.is_none() };
        let site = Site::new(Target::with_tls(&url, &options).expect("a target"));
        let uri = site.target().uri().clone();
        let answer = site.call(Method::POST, uri, HeaderMap::new(), Bytes::from_static(b"x"), 100).await;
        answer.map(|answer| answer.status.as_u16()).map_err(|error| site.problem(&error))
    };
    let (certificate, key) = (ours.cert.pem(), ours.signing_key.serialize_pem());
    let identity = Some((certificate.as_str(), key.as_str()));
    assert_eq!(call(identity, Some(&server.pem)).await.expect("trusted"), 202);
    // Whoever accepts any certificate shows its own all the same.
    assert_eq!(call(identity, None).await.expect("accepted"), 202);
    let (certificate, key) = (other.cert.pem(), other.signing_key.serialize_pem());
    for identity in [None, Some((certificate.as_str(), key.as_str()))] {
        let problem = call(identity, Some(&server.pem)).await.expect_err("refused");
        assert_eq!(problem.kind, crate::ProblemKind::Unauthorized, "{problem}");
        assert!(problem.detail.contains("certificate"), "{problem}");
    }
    let problem = call(identity, Some(&ours.cert.pem())).await.expect_err("not trusted");
    assert_eq!(problem.kind, crate::ProblemKind::Unauthorized, "{problem}");
    assert!(problem.detail.contains("`tls.ca`"), "{problem}");
}
