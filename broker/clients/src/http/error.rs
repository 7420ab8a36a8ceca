//! What can go wrong between a request and its answer, and what it means for a delivery.

use std::io;
use std::time::Duration;

use rustls::CertificateError;
use waypost_core::error::{DeliveryError, is_out_of_files};
use waypost_core::{Code, codes};

use super::tls::{self, NoPlatformRoots};

/// Why no answer came, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The name of the host has no address, or the name servers did not answer.
    #[error("the host name `{host}` could not be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// None of the addresses took a connection.
    #[error("no connection to {authority} could be made")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the last address said.
        source: io::Error,
    },
    /// As many connections are open as may be, and none ended in time. Nothing was sent.
    #[error("no connection to {authority} was made: as many are open as may be")]
    Crowded {
        /// Host and port.
        authority: String,
    },
    /// The connection, its handshake included, took longer than a connection may.
    #[error("no connection to {authority} could be made within {limit:?}")]
    ConnectTimeout {
        /// Host and port.
        authority: String,
        /// The limit.
        limit: Duration,
    },
    /// The other side could not prove who it is, or does not speak TLS.
    #[error("no trusted connection to {authority} could be made")]
    Tls {
        /// Host and port.
        authority: String,
        /// What the handshake failed for.
        source: io::Error,
    },
    /// The platform has no certificate authorities to trust.
    #[error("the certificate authorities of the platform could not be read")]
    PlatformRoots {
        /// Why.
        source: NoPlatformRoots,
    },
    /// The connection broke before the answer was complete. The request may have been received.
    #[error("the connection broke before the answer was complete")]
    Broken {
        /// What was seen.
        source: hyper::Error,
    },
    /// What came is not an answer by HTTP/1.1. The request may have been received.
    #[error("the answer is not valid HTTP/1.1")]
    NotHttp {
        /// What was seen.
        source: hyper::Error,
    },
    /// The whole attempt took longer than it may. The request may have been received.
    #[error("no complete answer came within {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
}

impl SendError {
    pub(super) fn of_exchange(source: hyper::Error) -> Self {
        if source.is_parse() { Self::NotHttp { source } } else { Self::Broken { source } }
    }

    pub(super) fn of_handshake(authority: String, source: io::Error) -> Self {
        match tls::fault(&source) {
            Some(_) => Self::Tls { authority, source },
            None => Self::Connect { authority, source },
        }
    }

    /// What went wrong and what to do, in a sentence without a full stop. `authorities` is the setting that names
    /// authorities to trust.
    pub fn sentence(&self, authorities: &str) -> String {
        let advice = match self {
            Self::Broken { source } if tls::refuses_identity(source) => {
                "it does not take the certificate that it is shown, or wants one".to_owned()
            }
            _ => self.advice().replace("`CACerts`", authorities),
        };
        format!("{self}: {advice}")
    }

    /// Whether one side does not trust the other, which does not pass by itself.
    pub fn is_distrust(&self) -> bool {
        match self {
            Self::Tls { .. } => true,
            Self::Broken { source } => tls::refuses_identity(source),
            _ => false,
        }
    }

    /// Whether no connection was made, so that certainly nothing was received.
    pub fn is_unconnected(&self) -> bool {
        matches!(
            self,
            Self::Resolve { .. } | Self::Connect { .. } | Self::Crowded { .. } | Self::ConnectTimeout { .. }
        )
    }

    fn code(&self) -> Code {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Crowded { .. } | Self::Broken { .. } => {
                codes::SUBSCRIBER_UNREACHABLE
            }
            Self::ConnectTimeout { .. } | Self::Timeout { .. } => codes::SUBSCRIBER_TIMEOUT,
            Self::Tls { .. } | Self::PlatformRoots { .. } => codes::SUBSCRIBER_NOT_TRUSTED,
            Self::NotHttp { .. } => codes::SUBSCRIBER_NOT_HTTP,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Resolve { source, .. } => format!("{source}; check the name in the URL"),
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                "nothing listens there; check host and port, and whether it is running".to_owned()
            }
            Self::Connect { source, .. } if is_out_of_files(source) => {
                format!("{source}; raise the limit of open files of this process")
            }
            Self::Connect { source, .. } => source.to_string(),
            Self::Crowded { .. } => "raise the limit of open files of this process".to_owned(),
            Self::ConnectTimeout { .. } => "check host, port and network policies".to_owned(),
            Self::Tls { source, .. } => tls_advice(source),
            Self::PlatformRoots { source } => format!("{source}; install them, or give `CACerts`"),
            Self::Broken { source } => innermost(source),
            Self::NotHttp { source } => {
                format!("{}; check that the URL's port speaks HTTP", innermost(source))
            }
            Self::Timeout { .. } => "raise `timeout`, or answer sooner".to_owned(),
        }
    }
}

/// What a failure to get an answer means for a delivery: it may pass, and fewer attempts at a time should be made
/// until it does. Certificates are no exception, since they are renewed while events wait.
pub fn classify(error: &SendError) -> DeliveryError {
    let is_ours = match error {
        SendError::Connect { source, .. } | SendError::Resolve { source, .. } => is_out_of_files(source),
        SendError::Crowded { .. } => true,
        _ => false,
    };
    if is_ours {
        // Says nothing of the subscriber, so no attempt is spent for it.
        return DeliveryError::misconfigured(error.code(), format!("{error}: {}", error.advice()));
    }
    DeliveryError::retryable(error.code(), format!("{error}: {}", error.advice())).congested()
}

fn tls_advice(error: &io::Error) -> String {
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    let advice = match tls::fault(error) {
        // A bad signature is that of an authority which was made anew under its old name.
        Some(InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "its certificate is issued by an authority that is not trusted; name that authority in `CACerts`"
        }
        Some(InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "its certificate has expired; renew it"
        }
        Some(InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => "its certificate is not valid yet; check the clocks",
        Some(InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            "its certificate is made out for another name; use that name in the URL, or change the certificate"
        }
        Some(InvalidMessage(_)) => "it does not speak TLS; check the port, or use `http://`",
        _ => return innermost(error),
    };
    advice.to_owned()
}

/// What the innermost cause says: the layers above only say that something failed.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    // Chains of causes are short; the limit only rules out an endless one.
    for _ in 0..MAX_CAUSES {
        match error.source() {
            Some(source) => error = source,
            None => break,
        }
    }
    error.to_string()
}

const MAX_CAUSES: usize = 16;

#[cfg(test)]
mod tests {
    use waypost_core::Class;

    use super::*;

    fn refused() -> io::Error {
        io::Error::from(io::ErrorKind::ConnectionRefused)
    }

    fn tls(error: rustls::Error) -> SendError {
        SendError::of_handshake("a:443".to_owned(), io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn every_failure_may_pass_and_tells_what_to_do() {
        let authority = || "a:80".to_owned();
        let limit = Duration::from_secs(10);
        for (error, code, words) in [
            (
                SendError::Resolve { host: "a".into(), source: io::Error::other("no such host") },
                codes::SUBSCRIBER_UNREACHABLE,
                "check the name",
            ),
            (
                SendError::Connect { authority: authority(), source: refused() },
                codes::SUBSCRIBER_UNREACHABLE,
                "nothing listens there",
            ),
            (
                SendError::of_handshake(authority(), io::Error::from(io::ErrorKind::ConnectionReset)),
                codes::SUBSCRIBER_UNREACHABLE,
                "connection reset",
            ),
            (
                SendError::ConnectTimeout { authority: authority(), limit },
                codes::SUBSCRIBER_TIMEOUT,
                "within 10s",
            ),
            (SendError::Timeout { limit }, codes::SUBSCRIBER_TIMEOUT, "raise `timeout`"),
            (
                tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)),
                codes::SUBSCRIBER_NOT_TRUSTED,
                "`CACerts`",
            ),
            (
                tls(rustls::Error::InvalidCertificate(CertificateError::BadSignature)),
                codes::SUBSCRIBER_NOT_TRUSTED,
                "`CACerts`",
            ),
            (
                tls(rustls::Error::InvalidCertificate(CertificateError::Expired)),
                codes::SUBSCRIBER_NOT_TRUSTED,
                "expired",
            ),
            (
                tls(rustls::Error::InvalidCertificate(CertificateError::NotValidYet)),
                codes::SUBSCRIBER_NOT_TRUSTED,
                "clocks",
            ),
            (
                tls(rustls::Error::InvalidCertificate(CertificateError::NotValidForName)),
                codes::SUBSCRIBER_NOT_TRUSTED,
                "another name",
            ),
            (
                tls(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)),
                codes::SUBSCRIBER_NOT_TRUSTED,
                "does not speak TLS",
            ),
        ] {
            let failure = classify(&error);
            assert_eq!(failure.class, Class::Retryable, "{failure}");
            assert!(failure.congested, "{failure}");
            assert_eq!(failure.code, code, "{failure}");
            assert!(failure.detail.contains(words), "{failure}");
            assert!(!failure.detail.ends_with('.'), "{failure}");
            assert_eq!(failure.status, None);
        }
    }
}
