//! URLs of destinations.

use iri_string::types::{UriAbsoluteStr, UriReferenceStr, UriStr};

/// Why a text is no URL that events can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It does not follow RFC 3986.
    #[error("`{0}` is not a URL")]
    Syntax(String),
    /// It has no scheme, or one that events cannot be sent by.
    #[error("`{0}` is not an absolute `http` or `https` URL")]
    Scheme(String),
    /// It names no host.
    #[error("`{0}` names no host")]
    Host(String),
    /// It holds a user name or a password, which logs and the status would show.
    #[error("the URL holds credentials, which logs and the status would show")]
    Credentials,
}

/// Checks that events can be sent to the URL: `http` or `https`, a host, no credentials.
pub fn check_url(text: &str) -> Result<(), InvalidUrl> {
    let shown = || text.chars().take(200).collect::<String>();
    let Ok(uri) = UriStr::new(text) else {
        return Err(match UriReferenceStr::new(text) {
            Ok(_) => InvalidUrl::Scheme(shown()),
            Err(_) => InvalidUrl::Syntax(shown()),
        });
    };
    if !["http", "https"].iter().any(|scheme| uri.scheme_str().eq_ignore_ascii_case(scheme)) {
        return Err(InvalidUrl::Scheme(shown()));
    }
    let Some(authority) = uri.authority_components() else { return Err(InvalidUrl::Host(shown())) };
    if authority.userinfo().is_some() {
        return Err(InvalidUrl::Credentials);
    }
    if authority.host().is_empty() {
        return Err(InvalidUrl::Host(shown()));
    }
    // RFC 3986 takes any digits for a port.
    if authority.port().is_some_and(|port| !port.is_empty() && port.parse::<u16>().is_err()) {
        return Err(InvalidUrl::Syntax(shown()));
    }
    // The client's own reading is narrower in places.
    text.parse::<http::Uri>().map_err(|_| InvalidUrl::Syntax(shown()))?;
    Ok(())
}

/// Resolves a relative reference against a URL (RFC 3986, section 5.2).
pub fn resolve_relative(base: &str, relative: &str) -> Result<String, InvalidUrl> {
    let shown = |text: &str| text.chars().take(200).collect::<String>();
    let without_fragment = base.split('#').next().unwrap_or(base);
    let base = UriAbsoluteStr::new(without_fragment).map_err(|_| InvalidUrl::Syntax(shown(base)))?;
    let relative = UriReferenceStr::new(relative).map_err(|_| InvalidUrl::Syntax(shown(relative)))?;
    let resolved = relative.resolve_against(base).to_string();
    check_url(&resolved)?;
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_events_can_be_sent_to() {
        for url in [
            "http://localhost",
            "http://localhost:8080/a/b?c=d",
            "HTTPS://example.com",
            "http://[::1]:9000/",
            "http://10.0.0.1/x#part",
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn refuses_the_rest_with_a_reason() {
        for (url, hint) in [
            ("", "absolute"),
            ("/events", "absolute"),
            ("localhost:8080", "absolute"),
            ("ftp://example.com", "absolute"),
            ("mailto:a@b", "absolute"),
            ("http:///path", "no host"),
            ("http:path", "no host"),
            ("http://exa mple.com", "not a URL"),
            ("http://example.com:port", "not a URL"),
            ("http://example.com:99999", "not a URL"),
            ("http://user:hunter2@example.com", "credentials"),
        ] {
            let reason = check_url(url).expect_err(url).to_string();
            assert!(reason.contains(hint), "{url}: {reason}");
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn resolves_as_the_norm_says() {
        for (base, relative, expected) in [
            ("http://a/b/c?q", "/x", "http://a/x"),
            ("http://a/b/c", "x", "http://a/b/x"),
            ("http://a/b/c#f", "../x?y=1", "http://a/x?y=1"),
            ("http://a", "x", "http://a/x"),
            ("http://a:81/b", "", "http://a:81/b"),
        ] {
            assert_eq!(resolve_relative(base, relative).as_deref(), Ok(expected), "{base} {relative}");
        }
        assert!(resolve_relative("http://a", "ftp://x").is_err());
        assert!(resolve_relative("http://a", "x y").is_err());
    }
}
