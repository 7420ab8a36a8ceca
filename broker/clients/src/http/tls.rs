//! TLS by rustls: whose certificates are believed.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::sync::OnceCell;

/// How TLS is spoken to one server, where that differs from what the platform says.
#[derive(Clone, Copy, Default)]
pub struct TlsOptions<'o> {
    /// The authorities to trust instead of the platform's, as PEM.
    pub authorities: Option<&'o str>,
    /// The certificate that is shown, with those that lead to its authority, and its key, as PEM.
    pub identity: Option<(&'o str, &'o str)>,
    /// Whether any certificate will do: then nobody proves who he is.
    pub accept_any: bool,
}

impl fmt::Debug for TlsOptions<'_> {
    // Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions").field("accept_any", &self.accept_any).finish_non_exhaustive()
    }
}

/// TLS as a manifest wants it, ready to be used.
#[derive(Clone)]
pub(super) struct OwnTls {
    /// What it was made of: connections are shared where this is the same.
    made_of: Arc<str>,
    config: Arc<ClientConfig>,
}

impl OwnTls {
    /// Trusts every certificate of a PEM text.
    pub(super) fn trusting(pem: &str) -> Result<Self, OwnRootsError> {
        Ok(Self { made_of: Arc::from(pem), config: config(own_roots(pem)?) })
    }

    /// Reads the platform's authorities from the disk where the options name none.
    pub(super) fn new(options: &TlsOptions<'_>) -> Result<Self, OwnRootsError> {
        let roots = match options.authorities {
            Some(pem) => own_roots(pem)?,
            None if options.accept_any => RootCertStore::empty(),
            None => platform_roots().map_err(|error| OwnRootsError::Platform(error.to_string()))?,
        };
        let builder = builder().with_root_certificates(roots);
        let unusable = |error: &dyn fmt::Display| OwnRootsError::Identity(error.to_string());
        let mut config = match options.identity {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
                let chain = chain.map_err(|error| unusable(&error))?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))?
            }
        };
        if options.accept_any {
            config.dangerous().set_certificate_verifier(Arc::new(AnyCertificate(provider())));
        }
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        let (certificates, key) = options.identity.unwrap_or_default();
        let authorities = options.authorities.unwrap_or_default();
        let made_of = format!("{authorities}\0{certificates}\0{key}\0{}", options.accept_any);
        Ok(Self { made_of: made_of.into(), config: Arc::new(config) })
    }

    pub(super) fn made_of(&self) -> &str {
        &self.made_of
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

fn own_roots(pem: &str) -> Result<RootCertStore, OwnRootsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| OwnRootsError::Unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| OwnRootsError::Unreadable(error.to_string()))?;
    }
    if roots.is_empty() { Err(OwnRootsError::None) } else { Ok(roots) }
}

impl fmt::Debug for OwnTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnTls")
    }
}

/// Believes whoever answers. What it signs is checked all the same, so that nobody speaks for it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
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
    /// The certificate that is to be shown, or its key, cannot be used.
    #[error(
        "the client certificate or its key cannot be used ({0}): give both in PEM form, the key unencrypted"
    )]
    Identity(String),
    /// The authorities of the platform cannot be read.
    #[error("the certificate authorities of the platform cannot be read ({0}): install them, or name one")]
    Platform(String),
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
    let loaded = tokio::task::spawn_blocking(platform_roots).await;
    loaded.map_err(|error| NoPlatformRoots(error.to_string()))?.map(config)
}

fn platform_roots() -> Result<RootCertStore, NoPlatformRoots> {
    let loaded = rustls_native_certs::load_native_certs();
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
    Ok(roots)
}

const HTTP_1_1: &[u8] = b"http/1.1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config = builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Arc::new(config)
}

/// What a handshake failed for, where TLS itself and not the connection was the reason.
pub(super) fn fault(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Whether a connection was ended because the other side does not take the certificate that it was shown, or wants one:
/// with TLS 1.3 this is told only after the handshake.
pub(super) fn refuses_identity(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::AlertDescription as Alert;
    let Some(rustls::Error::AlertReceived(alert)) =
        error.downcast_ref::<io::Error>().and_then(fault).or_else(|| error.downcast_ref())
    else {
        return error.source().is_some_and(refuses_identity);
    };
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
    )
}
