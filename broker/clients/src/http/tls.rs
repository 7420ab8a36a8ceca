//! TLS by rustls: whose certificates are believed.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::OnceCell;

/// Certificate authorities that a manifest names, ready to be used.
#[derive(Clone)]
pub(super) struct OwnRoots {
    pem: Arc<str>,
    config: Arc<ClientConfig>,
}

impl OwnRoots {
    /// Reads every certificate of a PEM text.
    pub(super) fn parse(pem: &str) -> Result<Self, OwnRootsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| OwnRootsError::Unreadable(error.to_string()))?;
            roots.add(certificate).map_err(|error| OwnRootsError::Unreadable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(OwnRootsError::None);
        }
        Ok(Self { pem: Arc::from(pem), config: config(roots) })
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl fmt::Debug for OwnRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnRoots")
    }
}

/// Certificates of a manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnRootsError {
    /// The text is not PEM, or holds something that is no certificate.
    #[error("the CA certificates cannot be read ({0}): give one or more certificates in PEM form")]
    Unreadable(String),
    /// The text holds no certificate.
    #[error(
        "the CA certificates hold none: give one or more blocks that begin with `-----BEGIN CERTIFICATE-----`"
    )]
    None,
}

/// The certificate authorities of the platform, read at the first `https` connection.
#[derive(Default)]
pub(super) struct PlatformRoots {
    config: OnceCell<Arc<ClientConfig>>,
}

impl PlatformRoots {
    /// Reads the platform's certificates, once and off the threads of the runtime. A failure is not remembered.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, NoPlatformRoots> {
        self.config.get_or_try_init(load).await.cloned()
    }
}

/// The platform's certificate authorities could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoPlatformRoots(String);

async fn load() -> Result<Arc<ClientConfig>, NoPlatformRoots> {
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| NoPlatformRoots(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let detail =
            loaded.errors.first().map_or_else(|| "none is installed".to_owned(), ToString::to_string);
        return Err(NoPlatformRoots(detail));
    }
    if let Some(error) = loaded.errors.first() {
        tracing::warn!(%error, added, "some certificate authorities of the platform could not be read");
    }
    Ok(config(roots))
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// What a handshake failed for, where TLS itself and not the connection was the reason.
pub(super) fn fault(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}
