//! TLS by rustls for clients that take a configuration of it: whose certificates are believed, and what we show.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::problem::{Problem, ProblemKind};

/// The certificate that we show, and its key, as PEM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'p> {
    /// The certificate, with those that lead to its authority.
    pub(crate) certificate: &'p str,
    /// Its key.
    pub(crate) key: &'p str,
}

/// The configuration of a client. `authorities` is PEM; without it those of the platform are believed.
///
/// # Errors
/// [`ProblemKind::Settings`] where something of it cannot be read.
pub(crate) async fn client_config(
    authorities: Option<&str>,
    identity: Option<Identity<'_>>,
) -> Result<ClientConfig, Problem> {
    let roots = match authorities {
        Some(pem) => own_roots(pem)?,
        None => platform_roots().await?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let certificates = certificates_of(identity.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .map_err(|error| unreadable("key", &error.to_string()))?;
    builder
        .with_client_auth_cert(certificates, key)
        .map_err(|error| unreadable("certificate", &error.to_string()))
}

fn unreadable(field: &str, reason: &str) -> Problem {
    Problem::new(
        ProblemKind::Settings,
        format!("the `{field}` of `tls` cannot be used ({reason}): give it in PEM form"),
    )
}

fn certificates_of(pem: &str, field: &str) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|error| unreadable(field, &error.to_string()))?;
    if certificates.is_empty() { Err(unreadable(field, "it holds none")) } else { Ok(certificates) }
}

fn own_roots(pem: &str) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(pem, "ca")? {
        roots.add(certificate).map_err(|error| unreadable("ca", &error.to_string()))?;
    }
    Ok(roots)
}

async fn platform_roots() -> Result<RootCertStore, Problem> {
    let none = |reason: String| {
        let detail = format!("the platform's certificate authorities cannot be read ({reason}): give a `ca`");
        Problem::new(ProblemKind::Settings, detail)
    };
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| none(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let reason =
            loaded.errors.first().map_or_else(|| "none is installed".to_owned(), ToString::to_string);
        return Err(none(reason));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_read_is_a_fault_of_the_settings_with_its_field() {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, private) = (key.cert.pem(), key.signing_key.serialize_pem());
        let identity = |certificate, key| Some(Identity { certificate, key });
        assert!(client_config(Some(&certificate), identity(&certificate, &private)).await.is_ok());
        for (authorities, identity, field) in [
            ("", None, "`ca`"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None, "`ca`"),
            (&*certificate, identity("", &private), "`certificate`"),
            (&*certificate, identity(&certificate, "none"), "`key`"),
        ] {
            let problem = client_config(Some(authorities), identity).await.unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Settings);
            assert!(problem.detail.contains(field), "{problem}");
        }
    }
}
