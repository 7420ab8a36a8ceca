//! Identity tokens of Google Cloud, for Cloud Run, Cloud Functions and what stands behind Identity-Aware Proxy: made by the
//! metadata server of the machine, for one audience.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::timeout;
use waypost_core::secret::{SecretValue, Sensitive};
use waypost_core::sink::ComponentContext;

use super::settings::{authorization, secret};
use super::site::Site;
use super::target::Target;
use crate::problem::{Problem, ProblemKind};

/// The variable that names another metadata server, as Google's own libraries read it: `HOST` or `HOST:PORT`.
const METADATA_HOST: &str = "GCE_METADATA_HOST";

/// The metadata server of every machine of Google Cloud.
const DEFAULT_HOST: &str = "metadata.google.internal";

/// The most bytes of a token.
const ANSWER_LIMIT: usize = 64 * 1024;

/// How long the metadata server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long before its end a token is renewed.
const MARGIN: Duration = Duration::from_secs(300);

/// An identity token of Google Cloud for one audience, made by the metadata server of the machine, and renewed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoogleIdentityCredentials {
    /// Whom the token is for; the URL of the Cloud Run service where nothing is said.
    audience: Option<String>,
}

impl GoogleIdentityCredentials {
    /// Prepares the fetching of tokens for this URL. Nothing is fetched yet.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where the metadata server that the environment names cannot be one.
    pub fn open(&self, url: &str, context: &ComponentContext) -> Result<GoogleIdentity, Problem> {
        let host = secret(&SecretValue::Env(METADATA_HOST.to_owned()), context).ok();
        let host = host.as_ref().map(Sensitive::expose).filter(|host| !host.is_empty());
        let audience = self.audience.clone().unwrap_or_else(|| origin(url));
        let endpoint = format!(
            "http://{}/computeMetadata/v1/instance/service-accounts/default/identity?audience={}&format=full",
            host.unwrap_or(DEFAULT_HOST),
            in_query(&audience)
        );
        let target = Target::parse(&endpoint, None)
            .map_err(|error| Problem::new(ProblemKind::Settings, format!("`{METADATA_HOST}`: {error}")))?;
        Ok(GoogleIdentity { site: Site::new(target), token: Mutex::new(None) })
    }
}

/// Fetches identity tokens, and keeps the last one.
pub struct GoogleIdentity {
    site: Site,
    /// Held while a token is fetched, so that all who need one wait for the same.
    token: Mutex<Option<(HeaderValue, SystemTime)>>,
}

impl GoogleIdentity {
    /// The value of `Authorization`, with a token that is good for a while yet. `spoiled` is one that was refused: it is
    /// not given again.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why no token is to be had.
    pub async fn authorization(&self, spoiled: Option<&HeaderValue>) -> Result<HeaderValue, Problem> {
        let mut kept = self.token.lock().await;
        if let Some((token, until)) = &*kept
            && *until > SystemTime::now()
            && spoiled != Some(token)
        {
            return Ok(token.clone());
        }
        let token = self.fetch().await?;
        let until = expiry(&token).unwrap_or_else(SystemTime::now);
        let value = authorization("Bearer", &token)?;
        *kept = Some((value.clone(), until.checked_sub(MARGIN).unwrap_or(UNIX_EPOCH)));
        Ok(value)
    }

    async fn fetch(&self) -> Result<String, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));
        let uri = self.site.target().uri().clone();
        let call = self.site.call(Method::GET, uri, headers, Bytes::new(), ANSWER_LIMIT);
        let unavailable = |why: String| {
            let detail = format!(
                "no identity token could be fetched: {why}; this needs a machine of Google Cloud with a service account"
            );
            Problem::new(ProblemKind::Unavailable, detail)
        };
        let answer = match timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unavailable(self.site.problem(&error).detail)),
            Err(_) => return Err(unavailable(format!("no answer within {PATIENCE:?}"))),
        };
        let status = answer.status.as_u16();
        match status {
            200 => {}
            408 | 429 | 500.. => return Err(unavailable(format!("the metadata server answered {status}"))),
            _ => {
                let detail = format!(
                    "the metadata server answered {status}: give the machine a service account that may call the service"
                );
                return Err(Problem::new(ProblemKind::Unauthorized, detail));
            }
        }
        let token = std::str::from_utf8(&answer.body).unwrap_or_default().trim();
        if token.split('.').count() != 3 {
            let detail = format!("what answers is no metadata server; check `{METADATA_HOST}`");
            return Err(Problem::new(ProblemKind::Settings, detail));
        }
        Ok(token.to_owned())
    }
}

impl std::fmt::Debug for GoogleIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GoogleIdentity").field("site", &self.site).finish_non_exhaustive()
    }
}

/// When a token ends, as it says itself. Nothing is believed for it: the service checks it.
fn expiry(token: &str) -> Option<SystemTime> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let payload: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(payload["exp"].as_u64()?))
}

/// Scheme and authority of a URL: what Cloud Run takes as audience.
fn origin(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    url[..end].to_owned()
}

fn in_query(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let encode = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_ends_and_the_audience_is_the_service() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"aud": "x", "exp": 1700000000}"#);
        let ends = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(expiry(&format!("e30.{payload}.c2ln")), Some(ends));
        assert_eq!((expiry("a.b"), expiry("")), (None, None));
        for (url, expected) in [
            ("https://a.run.app/x?y", "https://a.run.app"),
            ("https://a.run.app", "https://a.run.app"),
            ("https://a.run.app:8443?y", "https://a.run.app:8443"),
        ] {
            assert_eq!(origin(url), expected);
        }
        assert_eq!(in_query("https://a.run.app"), "https%3A%2F%2Fa.run.app");
    }
}
