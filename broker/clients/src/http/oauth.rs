//! OAuth 2.0 client credentials (RFC 6749, section 4.4): a token that is fetched once and renewed before it expires.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use waypost_core::manifest::FieldProblem;
use waypost_core::secret::{SecretValue, Sensitive};
use waypost_core::sink::ComponentContext;

use super::settings::{HttpTls, authorization, secret};
use super::site::Site;
use super::target::Target;
use crate::problem::{Problem, ProblemKind};

/// The most bytes of an answer of the token endpoint.
const ANSWER_LIMIT: usize = 64 * 1024;

/// How long the token endpoint may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a token is used that says nothing of its end.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// The longest that a token is used, whatever it says.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How long before its end a token is renewed; a fifth of its life where that is shorter.
const MARGIN: Duration = Duration::from_secs(60);

/// OAuth 2.0 client credentials: a token is fetched with them, used as a bearer, and renewed before it expires.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OAuth2Credentials {
    /// Where tokens are fetched.
    token_url: String,
    /// The id of the client.
    client_id: SecretValue,
    /// The secret of the client.
    client_secret: SecretValue,
    /// The scopes to ask for.
    #[serde(default)]
    scopes: Vec<String>,
    /// The audience to ask for, where the server wants one.
    audience: Option<String>,
    /// Whether id and secret go in the body of the request, for servers that do not take them as basic authentication.
    #[serde(default)]
    credentials_in_body: bool,
    /// TLS to the token endpoint.
    tls: Option<HttpTls>,
}

impl OAuth2Credentials {
    /// What is wrong with the settings, whatever the server says to them.
    pub fn problems(&self, path: &str) -> Vec<FieldProblem> {
        let tls = self.tls.as_ref().map(|tls| tls.problems(&format!("{path}.tls"))).unwrap_or_default();
        let url = Target::parse(&self.token_url, None).err();
        let url =
            url.map(|error| FieldProblem { path: format!("{path}.tokenUrl"), message: error.to_string() });
        tls.into_iter().chain(url).collect()
    }

    /// Prepares the fetching of tokens. Nothing is fetched yet.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where a secret is not there, or URL or certificates cannot be used.
    pub fn open(&self, context: &ComponentContext) -> Result<OAuth2, Problem> {
        let site = Site::new(HttpTls::target(self.tls.as_ref(), &self.token_url, context)?);
        let (id, password) = (secret(&self.client_id, context)?, secret(&self.client_secret, context)?);
        let mut form = vec![("grant_type", "client_credentials".to_owned())];
        if !self.scopes.is_empty() {
            form.push(("scope", self.scopes.join(" ")));
        }
        form.extend(self.audience.iter().map(|audience| ("audience", audience.clone())));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if self.credentials_in_body {
            form.push(("client_id", id.expose().to_owned()));
            form.push(("client_secret", password.expose().to_owned()));
        } else {
            // Encoded before they are joined (RFC 6749, section 2.3.1).
            let joined = format!("{}:{}", encoded(id.expose()), encoded(password.expose()));
            headers.insert(AUTHORIZATION, authorization("Basic", &STANDARD.encode(joined))?);
        }
        let form: Vec<_> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        Ok(OAuth2 { site, headers, form: form.join("&").into(), token: Mutex::new(None) })
    }
}

/// Fetches tokens, and keeps the last one.
pub struct OAuth2 {
    site: Site,
    headers: HeaderMap,
    form: Bytes,
    /// Held while a token is fetched, so that all who need one wait for the same.
    token: Mutex<Option<Token>>,
}

struct Token {
    authorization: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl OAuth2 {
    /// The value of `Authorization`, with a token that is good for a while yet. `spoiled` is one that was refused: it is
    /// not given again.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why no token is to be had.
    pub async fn authorization(&self, spoiled: Option<&HeaderValue>) -> Result<HeaderValue, Problem> {
        let mut kept = self.token.lock().await;
        if let Some(token) = &*kept
            && token.until > Instant::now()
            && spoiled != Some(&token.authorization)
        {
            return Ok(token.authorization.clone());
        }
        let token = self.fetch().await?;
        let authorization = token.authorization.clone();
        *kept = Some(token);
        Ok(authorization)
    }

    async fn fetch(&self) -> Result<Token, Problem> {
        let asked = Instant::now();
        let uri = self.site.target().uri().clone();
        let call = self.site.call(Method::POST, uri, self.headers.clone(), self.form.clone(), ANSWER_LIMIT);
        let answer = match timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let problem = self.site.problem(&error);
                let detail = format!("no token could be fetched: {}", problem.detail);
                return Err(Problem::new(problem.kind, detail));
            }
            Err(_) => {
                let detail = format!("the token endpoint gave no answer within {PATIENCE:?}");
                return Err(Problem::new(ProblemKind::Unavailable, detail));
            }
        };
        let status = answer.status.as_u16();
        match status {
            200..300 => {}
            408 | 429 | 500.. => {
                let detail = format!("the token endpoint answered {status}");
                return Err(Problem::new(ProblemKind::Unavailable, detail));
            }
            _ => {
                let detail = format!(
                    "the token endpoint answered {status}{}; check the client's id, secret and scopes, and `tokenUrl`",
                    reason(&answer.body)
                );
                return Err(Problem::new(ProblemKind::Unauthorized, detail));
            }
        }
        let read: Result<TokenAnswer, _> = serde_json::from_slice(&answer.body);
        let Ok(read) = read else {
            let detail = "what the token endpoint answers is no token; check `tokenUrl`";
            return Err(Problem::new(ProblemKind::Settings, detail));
        };
        // Some servers write the number as text.
        let seconds = read.expires_in.and_then(|value| match value {
            serde_json::Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        });
        let lifetime = seconds.map_or(DEFAULT_LIFETIME, Duration::from_secs).min(LONGEST_LIFETIME);
        let token = Sensitive::from(read.access_token);
        Ok(Token {
            authorization: authorization("Bearer", token.expose())?,
            until: asked + lifetime.saturating_sub(MARGIN.min(lifetime / 5)),
        })
    }
}

impl std::fmt::Debug for OAuth2 {
    // Without headers and form, which hold the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OAuth2").field("site", &self.site).finish_non_exhaustive()
    }
}

/// The code of an error as RFC 6749 defines it: nothing else of the body is repeated.
fn reason(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let known = |code: &&str| code.len() < 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    body["error"].as_str().filter(known).map(|code| format!(" ({code})")).unwrap_or_default()
}

/// A text as forms have it.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*');
    let encode = |byte| match byte {
        b' ' => "+".to_owned(),
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_core::manifest::{ResourceName, Secrets};

    use super::*;

    fn open(more: &serde_json::Value) -> OAuth2 {
        let mut settings = json!({
            "tokenUrl": "http://localhost:1/token", "clientId": {"value": "a b"}, "clientSecret": {"value": "s:&"},
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let credentials: OAuth2Credentials = serde_json::from_value(settings).unwrap();
        assert!(credentials.problems("auth.oauth2").is_empty());
        let context =
            ComponentContext { name: ResourceName::new("default", "out"), secrets: Secrets::default() };
        credentials.open(&context).unwrap()
    }

    #[test]
    fn the_request_is_that_of_the_norm() {
        let basic = open(&json!({"scopes": ["a", "b/c"], "audience": "x"}));
        assert_eq!(&basic.form[..], b"grant_type=client_credentials&scope=a+b%2Fc&audience=x");
        let expected = format!("Basic {}", STANDARD.encode("a+b:s%3A%26"));
        assert_eq!(basic.headers[AUTHORIZATION], expected);
        let body = open(&json!({"credentialsInBody": true}));
        assert!(body.headers.get(AUTHORIZATION).is_none());
        assert_eq!(&body.form[..], b"grant_type=client_credentials&client_id=a+b&client_secret=s%3A%26");
        assert!(!format!("{body:?}").contains("s%3A"));
    }

    #[test]
    fn only_codes_are_repeated_of_an_error() {
        assert_eq!(reason(br#"{"error": "invalid_client"}"#), " (invalid_client)");
        assert_eq!(reason(br#"{"error": "secret: X"}"#), "");
        assert_eq!(reason(b"<html>"), "");
    }
}
