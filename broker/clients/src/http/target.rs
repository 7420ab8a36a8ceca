//! Where to send, parsed and prepared once.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::{HeaderValue, Uri};
use rustls_pki_types::ServerName;
use waypost_core::{Code, codes};

use super::tls::{OwnRootsError, OwnTls, TlsOptions};

/// An absolute `http` or `https` URL with what is needed to connect to it. A clone is one reference count.
#[derive(Clone)]
pub struct Target {
    parsed: Arc<Parsed>,
}

struct Parsed {
    url: String,
    uri: Uri,
    host_header: HeaderValue,
    authority: Authority,
}

/// What two targets must have in common to share a connection.
#[derive(Clone)]
pub(super) struct Authority {
    /// A name or an address, without the brackets of IPv6.
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) security: Security,
}

/// How the other side proves who it is.
#[derive(Clone)]
pub(super) enum Security {
    /// `http`
    Plain,
    /// `https`: a certificate for this name, issued by one of these.
    Tls { name: ServerName<'static>, trust: Trust },
}

/// Whose certificates are believed.
#[derive(Clone)]
pub(super) enum Trust {
    /// The certificate authorities of the platform.
    Platform,
    /// As the manifest wants it.
    Own(OwnTls),
}

impl Target {
    /// Reads a URL. `ca_certificates` (PEM) are trusted instead of the platform's; for an `http` URL they are checked
    /// and otherwise ignored.
    ///
    /// # Errors
    /// [`TargetError`] says what is wrong with the URL or with the certificates.
    pub fn parse(url: &str, ca_certificates: Option<&str>) -> Result<Self, TargetError> {
        Self::new(url, ca_certificates.map(OwnTls::trusting).transpose()?)
    }

    /// Reads a URL to which TLS is spoken by these options; for an `http` URL they are checked and otherwise ignored.
    /// Reads the platform's authorities from the disk where the options name none.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub fn with_tls(url: &str, options: &TlsOptions<'_>) -> Result<Self, TargetError> {
        Self::new(url, Some(OwnTls::new(options)?))
    }

    fn new(url: &str, own: Option<OwnTls>) -> Result<Self, TargetError> {
        let refuse = |reason| TargetError::Url { url: without_userinfo(url), reason };
        let uri: Uri = url.parse().map_err(|_| refuse(UrlFault::Syntax))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse(UrlFault::Scheme)),
        };
        let given = uri.authority().ok_or_else(|| refuse(UrlFault::Host))?;
        if given.as_str().contains('@') {
            return Err(refuse(UrlFault::UserInfo));
        }
        let host = given.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(refuse(UrlFault::Host));
        }
        let port = match given.as_str().strip_prefix(given.host()) {
            None | Some("" | ":") => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(_) => given.port_u16().filter(|port| *port > 0).ok_or_else(|| refuse(UrlFault::Port))?,
        };
        let security = if tls {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| refuse(UrlFault::Host))?;
            Security::Tls { name, trust: own.map_or(Trust::Platform, Trust::Own) }
        } else {
            Security::Plain
        };
        let host_header = HeaderValue::from_str(given.as_str()).map_err(|_| refuse(UrlFault::Host))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // `http://host?query` has no path of its own.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let path = path.parse().map_err(|_| refuse(UrlFault::Syntax))?;
        let authority = Authority { host: Arc::from(host.to_ascii_lowercase()), port, security };
        Ok(Self { parsed: Arc::new(Parsed { url: url.to_owned(), uri: path, host_header, authority }) })
    }

    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.parsed.url
    }

    /// The target of a request line: path and query.
    pub fn uri(&self) -> &Uri {
        &self.parsed.uri
    }

    /// The value of `Host`.
    pub fn host_header(&self) -> &HeaderValue {
        &self.parsed.host_header
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.parsed.authority
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.parsed.url).finish()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parsed.url)
    }
}

impl Authority {
    fn trust_key(&self) -> Option<&str> {
        match &self.security {
            Security::Plain => None,
            Security::Tls { trust: Trust::Platform, .. } => Some(""),
            Security::Tls { trust: Trust::Own(own), .. } => Some(own.made_of()),
        }
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port && self.host == other.host && self.trust_key() == other.trust_key()
    }
}

impl Eq for Authority {}

impl Hash for Authority {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.host.hash(state);
        self.port.hash(state);
        // Whole certificates are compared, and need not be hashed.
        self.trust_key().map(str::len).hash(state);
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The URL as far as an error may repeat it: never a password.
fn without_userinfo(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => url.to_owned(),
    }
}

/// A place that cannot be sent to, whatever happens.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The URL cannot be used.
    #[error("the URL `{url}` {reason}")]
    Url {
        /// The URL, without credentials.
        url: String,
        /// What is wrong with it.
        reason: UrlFault,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] OwnRootsError),
}

impl TargetError {
    /// The stable code of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Url { .. } => codes::URL_INVALID,
            Self::Certificates(_) => codes::CERTIFICATES_INVALID,
        }
    }
}

/// What makes a URL unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// It is not a URL.
    #[error(
        "is not a valid URL: write it like `http://host:port/path`, percent-encode spaces and non-ASCII letters"
    )]
    Syntax,
    /// Its scheme is another one.
    #[error("must begin with `http://` or `https://`")]
    Scheme,
    /// It has no host, or one that is no name.
    #[error("has no valid host: write it like `http://host:port/path`")]
    Host,
    /// Its port is no port.
    #[error("has no valid port: write a number from 1 to 65535, or leave the port out")]
    Port,
    /// It holds credentials.
    #[error(
        "holds a user name or password: take it out, since URLs are shown in the status and in dead letters"
    )]
    UserInfo,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(url: &str) -> UrlFault {
        match Target::parse(url, None) {
            Err(TargetError::Url { reason, .. }) => reason,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn a_target_has_its_request_line_and_host_ready() {
        for (url, host, port, path, header) in [
            ("http://example.com", "example.com", 80, "/", "example.com"),
            ("https://Example.COM/", "example.com", 443, "/", "Example.COM"),
            ("http://example.com:8080/a/b?c=d", "example.com", 8080, "/a/b?c=d", "example.com:8080"),
            ("http://example.com:/a", "example.com", 80, "/a", "example.com:"),
            ("http://example.com?c=d", "example.com", 80, "/?c=d", "example.com"),
            ("http://[::1]:81/x", "::1", 81, "/x", "[::1]:81"),
            ("https://[::1]", "::1", 443, "/", "[::1]"),
            ("http://127.0.0.1:1/#fragment", "127.0.0.1", 1, "/", "127.0.0.1:1"),
        ] {
            let target = Target::parse(url, None).expect(url);
            assert_eq!(&*target.authority().host, host, "{url}");
            assert_eq!(target.authority().port, port, "{url}");
            assert_eq!(target.uri().to_string(), path, "{url}");
            assert_eq!(target.host_header(), header, "{url}");
            assert_eq!(target.as_str(), url);
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused() {
        assert_eq!(fault("nonsense url"), UrlFault::Syntax);
        assert_eq!(fault("http://exa mple"), UrlFault::Syntax);
        assert_eq!(fault("http://exämple"), UrlFault::Syntax);
        assert_eq!(fault(""), UrlFault::Syntax);
        assert_eq!(fault("/path"), UrlFault::Scheme);
        assert_eq!(fault("example.com"), UrlFault::Scheme);
        assert_eq!(fault("ftp://example.com"), UrlFault::Scheme);
        assert_eq!(fault("http://example.com:0/"), UrlFault::Port);
        assert_eq!(fault("http://example.com:65536/"), UrlFault::Port);
        assert_eq!(fault("http://user:secret@example.com/"), UrlFault::UserInfo);
        assert!(matches!(Target::parse("http://:80/", None), Err(TargetError::Url { .. })));
        assert!(matches!(Target::parse("http:///x", None), Err(TargetError::Url { .. })));
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        for url in
            ["http://user:secret@example.com/", "ftp://user:secret@host?x", "http://a@user:secret@h ost/"]
        {
            let error = Target::parse(url, None).expect_err(url);
            assert!(!error.to_string().contains("secret"), "{error}");
            assert_eq!(error.code(), codes::URL_INVALID);
        }
    }

    #[test]
    fn certificates_are_checked_even_where_they_are_not_used() {
        for url in ["http://example.com", "https://example.com"] {
            for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
                let error = Target::parse(url, Some(pem)).expect_err(pem);
                assert_eq!(error.code(), codes::CERTIFICATES_INVALID, "{error}");
            }
        }
    }

    #[test]
    fn connections_are_shared_by_authority_and_trust() {
        let authority = |url: &str| Target::parse(url, None).expect(url).authority().clone();
        assert!(authority("http://a/x") == authority("http://A:80/y"));
        assert!(authority("http://a") != authority("https://a:80"));
        assert!(authority("http://a") != authority("http://a:81"));
        assert!(authority("http://a") != authority("http://b"));
    }
}
