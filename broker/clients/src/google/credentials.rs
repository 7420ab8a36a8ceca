//! Tokens: signed by the key of a service account, or asked of the machine that we run on.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::ANSWER_PATIENCE;
use crate::http::{Pool, PoolOptions, Target};
use crate::problem::{Problem, ProblemKind};

/// Whom a token that we sign ourselves is made out for: the service itself, which takes it without an exchange.
const AUDIENCE: &str = "https://pubsub.googleapis.com/";

/// How long a token holds that we sign ourselves, which is the most that Google takes.
const TOKEN_HOLDS: Duration = Duration::from_secs(3_600);

/// A token is renewed this long before its end.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// Where the machine answers for the account that it runs as.
const MACHINE: &str =
    "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";

/// The most bytes of the machine's answer.
const MOST_ANSWER: usize = 64 * 1024;

/// Who we are to Google.
pub(super) struct Credentials {
    origin: Origin,
    token: Mutex<Option<Token>>,
}

enum Origin {
    None,
    Key(Box<Key>),
    Machine(String),
}

struct Key {
    account: String,
    id: String,
    pair: RsaKeyPair,
}

#[derive(Clone)]
struct Token {
    text: Arc<str>,
    renew: Instant,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.origin {
            Origin::None => "none",
            Origin::Key(_) => "the key of a service account",
            Origin::Machine(_) => "the machine",
        })
    }
}

impl Credentials {
    fn new(origin: Origin) -> Self {
        Self { origin, token: Mutex::new(None) }
    }

    /// Nobody.
    pub(super) fn none() -> Self {
        Self::new(Origin::None)
    }

    /// The account that the machine runs as, by its metadata server.
    pub(super) fn of_machine() -> Self {
        Self::new(Origin::Machine(MACHINE.to_owned()))
    }

    /// The service account of a key in JSON.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where it is none; nothing of it is quoted.
    pub(super) fn of_key(json: &str) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct File {
            r#type: Option<String>,
            client_email: String,
            private_key: String,
            #[serde(default)]
            private_key_id: String,
        }
        let wrong = || {
            let detail = "the `serviceAccountKey` cannot be used: give the JSON of a key of type `service_account` with \
                          its `client_email` and `private_key`";
            Problem::new(ProblemKind::Settings, detail)
        };
        let file: File = serde_json::from_str(json).map_err(|_| wrong())?;
        if file.r#type.is_some_and(|name| name != "service_account") {
            return Err(wrong());
        }
        let key = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes()).map_err(|_| wrong())?;
        let pair = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| wrong())?;
        Ok(Self::new(Origin::Key(Box::new(Key {
            account: file.client_email,
            id: file.private_key_id,
            pair,
        }))))
    }

    /// A token that holds for minutes to come; none where nobody is asked for.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn token(&self) -> Result<Option<Arc<str>>, Problem> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.renew) {
            return Ok(Some(Arc::clone(&token.text)));
        }
        let new = match &self.origin {
            Origin::None => return Ok(None),
            Origin::Key(key) => key.sign()?,
            Origin::Machine(url) => ask(url).await?,
        };
        let text = Arc::clone(&new.text);
        *token = Some(new);
        Ok(Some(text))
    }
}

impl Key {
    fn sign(&self) -> Result<Token, Problem> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": self.id});
        let claims = serde_json::json!({
            "iss": self.account, "sub": self.account, "aud": AUDIENCE, "iat": now, "exp": now + TOKEN_HOLDS.as_secs(),
        });
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).map_err(
            |_| {
                Problem::new(
                    ProblemKind::Unavailable,
                    "Google: the machine has no random numbers to sign with",
                )
            },
        )?;
        let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        Ok(Token { text: text.into(), renew: Instant::now() + TOKEN_HOLDS - RENEWED_BEFORE })
    }
}

/// Asks the machine for the token of its account.
async fn ask(url: &str) -> Result<Token, Problem> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: String,
        expires_in: u64,
    }
    let none = |reason: String| {
        let detail = format!(
            "Google: this machine names no account ({reason}): give a `serviceAccountKey` under `auth`, or run where \
             Google's metadata server is"
        );
        Problem::new(ProblemKind::Unauthorized, detail)
    };
    let target = Target::parse(url, None).map_err(|error| none(error.to_string()))?;
    let pool = Arc::new(Pool::new(PoolOptions::default()));
    let mut lane = pool.lane(&target);
    let request = Request::get(target.uri().clone())
        .header("host", target.host_header())
        .header("metadata-flavor", "Google")
        .body(Full::<Bytes>::default())
        .map_err(|error| none(error.to_string()))?;
    let asked = async {
        let received = lane.send(request).await.map_err(|error| error.to_string())?;
        let status = received.status();
        let (_, body) = received.read(MOST_ANSWER).await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        serde_json::from_slice::<Answer>(&body.bytes).map_err(|_| "it answers something else".to_owned())
    };
    let answer = tokio::time::timeout(ANSWER_PATIENCE, asked).await;
    let answer = answer.unwrap_or_else(|_| Err("it does not answer".to_owned())).map_err(none)?;
    let holds = Duration::from_secs(answer.expires_in);
    Ok(Token {
        text: answer.access_token.into(),
        renew: Instant::now() + holds.saturating_sub(RENEWED_BEFORE),
    })
}

#[cfg(test)]
mod suite;
