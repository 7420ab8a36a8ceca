//! What settings of components say about a server that speaks HTTP: TLS and credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::manifest::FieldProblem;
use waypost_core::secret::{SecretValue, Sensitive};
use waypost_core::sink::ComponentContext;

use super::target::{Target, TargetError};
use super::tls::TlsOptions;
use crate::problem::{Problem, ProblemKind};

/// TLS to a server. Without it the certificate authorities of the system are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpTls {
    /// The certificate authorities to trust instead of those of the system, as PEM.
    ca: Option<SecretValue>,
    /// The certificate that we show, as PEM, with those that lead to its authority. Needs `key`.
    certificate: Option<SecretValue>,
    /// The key of the certificate, as PEM. Needs `certificate`.
    key: Option<SecretValue>,
    /// Whether the server need not prove who it is. Not for production: whoever stands between reads and changes
    /// everything, credentials too.
    #[serde(default)]
    insecure_skip_verify: bool,
}

/// A name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicCredentials {
    /// The name.
    pub username: SecretValue,
    /// The password.
    pub password: SecretValue,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenCredentials {
    /// The token.
    pub token: SecretValue,
}

impl HttpTls {
    /// Whether we show a certificate, and so say who we are.
    pub fn shows_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// What is wrong with the settings, whatever the server says to them.
    pub fn problems(&self, path: &str) -> Vec<FieldProblem> {
        let problem = |message: &str| FieldProblem { path: path.to_owned(), message: message.to_owned() };
        let mut problems = Vec::new();
        if self.certificate.is_some() != self.key.is_some() {
            problems.push(problem("`certificate` and `key` go together: give both, or none"));
        }
        if self.insecure_skip_verify && self.ca.is_some() {
            problems.push(problem(
                "`ca` has no meaning beside `insecureSkipVerify`: keep one of them, best `ca`",
            ));
        }
        problems
    }

    /// A URL to which TLS is spoken by these settings, or by the system's where there are none.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where a secret is not there, or URL or certificates cannot be used.
    pub fn target(tls: Option<&Self>, url: &str, context: &ComponentContext) -> Result<Target, Problem> {
        let unusable = |error: TargetError| Problem::new(ProblemKind::Settings, error.to_string());
        let Some(tls) = tls else { return Target::parse(url, None).map_err(unusable) };
        let resolve =
            |value: &Option<SecretValue>| value.as_ref().map(|value| secret(value, context)).transpose();
        let (ca, certificate, key) = (resolve(&tls.ca)?, resolve(&tls.certificate)?, resolve(&tls.key)?);
        let options = TlsOptions {
            authorities: ca.as_ref().map(Sensitive::expose),
            identity: certificate
                .as_ref()
                .zip(key.as_ref())
                .map(|(certificate, key)| (certificate.expose(), key.expose())),
            accept_any: tls.insecure_skip_verify,
        };
        Target::with_tls(url, &options).map_err(unusable)
    }
}

/// Finds a secret that settings name.
///
/// # Errors
/// [`ProblemKind::Settings`] where it is not there.
pub fn secret(value: &SecretValue, context: &ComponentContext) -> Result<Sensitive, Problem> {
    let resolved = value.resolve(&context.name.namespace, &context.secrets);
    resolved.map_err(|error| Problem::new(ProblemKind::Settings, error.to_string()))
}

impl BasicCredentials {
    /// The value of `Authorization`, marked as sensitive.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where a secret is not there.
    pub fn authorization(&self, context: &ComponentContext) -> Result<HeaderValue, Problem> {
        let username = secret(&self.username, context)?;
        if username.expose().contains(':') {
            let detail = "the user name holds a colon, which basic authentication cannot say; correct it";
            return Err(Problem::new(ProblemKind::Settings, detail));
        }
        basic_authorization(username.expose(), secret(&self.password, context)?.expose())
    }
}

/// The value of `Authorization` for a name without a colon and a password, marked as sensitive.
///
/// # Errors
/// None in practice: base64 is always a header.
pub fn basic_authorization(username: &str, password: &str) -> Result<HeaderValue, Problem> {
    authorization("Basic", &STANDARD.encode(format!("{username}:{password}")))
}

impl TokenCredentials {
    /// The value of `Authorization` under this scheme, marked as sensitive.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where the token is not there, or cannot be sent.
    pub fn authorization(&self, scheme: &str, context: &ComponentContext) -> Result<HeaderValue, Problem> {
        authorization(scheme, secret(&self.token, context)?.expose().trim())
    }
}

pub(super) fn authorization(scheme: &str, credentials: &str) -> Result<HeaderValue, Problem> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {credentials}")).map_err(|_| {
        let detail = "the token has characters that no header can hold; look for line breaks within it";
        Problem::new(ProblemKind::Settings, detail)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_core::manifest::{ResourceName, Secrets};

    use super::*;

    fn context() -> ComponentContext {
        ComponentContext { name: ResourceName::new("default", "out"), secrets: Secrets::default() }
    }

    fn tls(settings: serde_json::Value) -> HttpTls {
        serde_json::from_value(settings).unwrap()
    }

    #[test]
    fn what_contradicts_itself_is_told() {
        for (settings, problems) in [
            (json!({}), 0),
            (json!({"certificate": {"value": "x"}}), 1),
            (json!({"key": {"value": "x"}}), 1),
            (json!({"certificate": {"value": "x"}, "key": {"value": "y"}}), 0),
            (json!({"ca": {"value": "x"}, "insecureSkipVerify": true}), 1),
        ] {
            assert_eq!(tls(settings.clone()).problems("tls").len(), problems, "{settings}");
        }
    }

    #[test]
    fn certificates_that_cannot_be_used_are_settings() {
        for settings in [
            json!({"ca": {"value": "nonsense"}}),
            json!({"ca": {"env": "NONE"}}),
            json!({"insecureSkipVerify": true, "certificate": {"value": "x"}, "key": {"value": "y"}}),
        ] {
            let problem = HttpTls::target(Some(&tls(settings)), "https://a", &context()).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Settings, "{problem}");
        }
        let any = tls(json!({"insecureSkipVerify": true}));
        HttpTls::target(Some(&any), "https://a", &context()).unwrap();
    }

    #[test]
    fn credentials_are_headers_that_are_not_shown() {
        let basic: BasicCredentials = serde_json::from_value(
            json!({"username": {"value": "Aladdin"}, "password": {"value": "open sesame"}}),
        )
        .unwrap();
        // The example of RFC 7617.
        let header = basic.authorization(&context()).unwrap();
        assert_eq!(header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(header.is_sensitive());
        let bearer = |token: &str| {
            let token: TokenCredentials = serde_json::from_value(json!({"token": {"value": token}})).unwrap();
            token.authorization("Bearer", &context())
        };
        assert_eq!(bearer("abc\n").unwrap(), "Bearer abc");
        assert_eq!(bearer("a\nb").unwrap_err().kind, ProblemKind::Settings);
    }
}
