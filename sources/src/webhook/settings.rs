//! What the settings of a `webhook` say, and how they become what is used for each request.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_clients::{Problem, ProblemKind};
use waypost_core::duration::IsoDuration;
use waypost_core::manifest::FieldProblem;
use waypost_core::secret::{SecretValue, Sensitive};
use waypost_core::sink::ComponentContext;
use waypost_core::template::RequestTemplate;

use super::verify::{Key, OwnScheme, Scheme, Verifier};

/// The most secrets of one source: two while they are renewed, a few where senders have one each.
const MOST_SECRETS: usize = 16;

/// How far the signed time may be from now unless set otherwise.
const DEFAULT_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Takes what others post to `/NAMESPACE/sources/NAME`, and answers once the event is in the broker's log.
///
/// The body becomes the data of an event, byte for byte. What `verify` names decides whose requests are taken, and how
/// their events are called unless `eventType` and the others say so:
///
/// | `verify` | `type` | `source` | `subject` | `id` |
/// |---|---|---|---|---|
/// | `github` | `com.github.EVENT.ACTION`, `com.github.EVENT` | `repository.url` of the body, or of its organization | none | `X-GitHub-Delivery` |
/// | `gitlab` | `com.gitlab.KIND` | `repository.homepage` or `project.web_url` of the body | none | `Idempotency-Key`, `X-Gitlab-Event-UUID` |
/// | `stripe` | `com.stripe.TYPE` | `https://api.stripe.com`, with the account where there is one | `data.object.id` | `id` of the body |
/// | `slack` | `com.slack.TYPE` of the event; `com.slack.COMMAND` or `com.slack.TYPE` of a command or an action | `/slack/TEAM` | `event.channel` | `event_id`, `trigger_id` |
/// | `standardWebhooks` | `type` of the body | that of all others | none | `webhook-id` |
/// | all others | `dev.waypost.webhook.request` | `/apis/waypost.dev/v1alpha1/namespaces/NAMESPACE/sources/NAME` | none | a new one for each request |
///
/// What is refused: 401 without or with a wrong signature (`E0306`) or with one that is too old (`E0307`), 422 where a
/// template finds nothing (`E0308`), 413, 429, 503 and 507 as for events that are posted to a broker. Slack's
/// `url_verification` is answered, and makes no event. `PUT`, `GET` and others are taken where `methods` names them.
///
/// Secrets in files and in the environment are read again every two seconds: list the new one beside the old one while
/// the sender changes over.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookConfig {
    /// Whose requests are taken. Without it, those of everyone who can reach the URL.
    pub(super) verify: Option<Verification>,
    /// Takes requests at this path below the URL only, such as `/orders`; at all of them where none is given.
    pub(super) path: Option<String>,
    /// The methods that are taken; `POST` where none are given.
    #[serde(default)]
    pub(super) methods: Vec<WebhookMethod>,
    /// What the body of a request is; `data` unless said otherwise.
    #[serde(default)]
    pub(super) body: WebhookBody,
    /// The `id` of the events. One that the sender repeats when it sends again makes the repeat recognisable.
    pub(super) event_id: Option<RequestTemplate>,
    /// The `type` of the events.
    pub(super) event_type: Option<RequestTemplate>,
    /// The `source` of the events, a URI-reference.
    pub(super) event_source: Option<RequestTemplate>,
    /// The `subject` of the events.
    pub(super) event_subject: Option<RequestTemplate>,
    /// Extension attributes by name (a-z and 0-9). One whose template finds nothing is left out.
    #[serde(default)]
    pub(super) event_extensions: BTreeMap<String, RequestTemplate>,
    /// Parts of the request that become extension attributes: `path`, `method`, `host`, `qNAME` for the parameters of the
    /// query and `hNAME` for the headers, with the a-z and 0-9 of their names, cut to 20 characters. Of two that are
    /// called the same the first is kept. `Authorization` and cookies are left out.
    #[serde(default)]
    pub(super) request_extensions: Vec<RequestPart>,
    /// The status of the answer to what was taken; 202 where none is given.
    #[schemars(range(min = 200, max = 299))]
    pub(super) answer_status: Option<u16>,
    /// The origin whose pages may post (`Access-Control-Allow-Origin`), or `*`.
    pub(super) allow_origin: Option<String>,
    /// The most requests in a second; what is beyond is answered with 429.
    #[schemars(range(min = 1))]
    pub(super) requests_per_second: Option<u32>,
}

/// A method that a source can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum WebhookMethod {
    /// Sends something.
    Post,
    /// Puts something in its place.
    Put,
    /// Changes something.
    Patch,
    /// Asks: the event has no data.
    Get,
    /// Removes something.
    Delete,
}

impl WebhookMethod {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Get => Method::GET,
            Self::Delete => Method::DELETE,
        }
    }
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum WebhookBody {
    /// The data of an event.
    #[default]
    Data,
    /// CloudEvents, in any content mode: they are taken as they are, and the templates have no effect.
    CloudEvents,
}

/// A part of a request that becomes extension attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum RequestPart {
    /// What follows the URL of the source.
    Path,
    /// The method.
    Method,
    /// The host that was asked for.
    Host,
    /// The parameters of the query.
    Queries,
    /// The headers. `Ce-Id` and `Ce-Subject` are the id and the subject of the event.
    Headers,
}

/// Whose requests are taken.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Verification {
    /// GitHub: `X-Hub-Signature-256`.
    Github(SharedSecrets),
    /// GitLab: `X-Gitlab-Token`, or `webhook-signature` where there are signing tokens.
    Gitlab(GitlabSecrets),
    /// Stripe: `Stripe-Signature`.
    Stripe(SigningSecrets),
    /// Slack: `X-Slack-Signature` and `X-Slack-Request-Timestamp`.
    Slack(SigningSecrets),
    /// Senders that follow Standard Webhooks: `webhook-signature`, `webhook-id` and `webhook-timestamp`, with secrets as
    /// `whsec_BASE64`.
    StandardWebhooks(SigningSecrets),
    /// Any sender that signs the body with HMAC.
    Hmac(HmacSignature),
    /// Name and password, one of several.
    Basic(Vec<BasicUser>),
    /// A token in `Authorization: Bearer`.
    Bearer(SharedSecrets),
}

/// Secrets that the sender knows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SharedSecrets {
    /// The secrets; each of them is good.
    secrets: Vec<SecretValue>,
}

/// What GitLab was told: secret tokens or signing tokens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GitlabSecrets {
    /// The secret tokens, which GitLab sends as they are; each of them is good.
    #[serde(default)]
    secrets: Vec<SecretValue>,
    /// The signing tokens, `whsec_BASE64`, by which GitLab signs the body and the time; each of them is good. Better than
    /// `secrets`, and instead of them.
    #[serde(default)]
    signing_tokens: Vec<SecretValue>,
    /// How far the signed time may be from now; `PT5M` where none is given.
    tolerance: Option<IsoDuration>,
}

/// Secrets by which the sender signs, with the time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SigningSecrets {
    /// The secrets; each of them is good.
    secrets: Vec<SecretValue>,
    /// How far the signed time may be from now; `PT5M` where none is given. What is repeated later than that is refused.
    tolerance: Option<IsoDuration>,
}

/// A signature over the body that the settings describe.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HmacSignature {
    /// The secrets; each of them is good.
    secrets: Vec<SecretValue>,
    /// The header that holds the signature.
    header: String,
    /// What stands before the signature in the header, such as `sha256=`.
    #[serde(default)]
    prefix: String,
    /// The hash; `sha256` unless said otherwise.
    #[serde(default)]
    algorithm: HashAlgorithm,
    /// How the signature is written; `hex` unless said otherwise.
    #[serde(default)]
    encoding: Encoding,
    /// What is signed before the body, such as `${header.x-timestamp}.`; nothing where none is given.
    before: Option<RequestTemplate>,
    /// The header with the time at which was signed, in seconds since 1970. It must stand in `before`, or a replay could
    /// change it.
    timestamp_header: Option<String>,
    /// How far that time may be from now; `PT5M` where none is given.
    tolerance: Option<IsoDuration>,
}

/// A hash function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum HashAlgorithm {
    /// SHA-256
    #[default]
    Sha256,
    /// SHA-512
    Sha512,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Encoding {
    /// Two digits for each byte.
    #[default]
    Hex,
    /// Base64, with or without `=` at its end.
    Base64,
}

/// A name with its password.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BasicUser {
    /// The name.
    username: SecretValue,
    /// The password.
    password: SecretValue,
}

impl Verification {
    /// What is wrong with the settings, with paths below `verify`.
    pub(super) fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: &str| {
            problems.push(FieldProblem { path: path.to_owned(), message: message.to_owned() });
        };
        let (path, count) = match self {
            Self::Github(shared) => ("github.secrets", shared.secrets.len()),
            Self::Gitlab(gitlab) => ("gitlab.secrets", gitlab.secrets.len() + gitlab.signing_tokens.len()),
            Self::Stripe(signing) => ("stripe.secrets", signing.secrets.len()),
            Self::Slack(signing) => ("slack.secrets", signing.secrets.len()),
            Self::StandardWebhooks(signing) => ("standardWebhooks.secrets", signing.secrets.len()),
            Self::Hmac(own) => ("hmac.secrets", own.secrets.len()),
            Self::Basic(users) => ("basic", users.len()),
            Self::Bearer(shared) => ("bearer.secrets", shared.secrets.len()),
        };
        if count == 0 {
            problem(path, "there is none, so that nobody could send: name at least one");
        } else if count > MOST_SECRETS {
            problem(path, "there are more than 16: declare a source for each sender");
        }
        if let Self::Gitlab(gitlab) = self {
            if !gitlab.secrets.is_empty() && !gitlab.signing_tokens.is_empty() {
                problem(
                    "gitlab.secrets",
                    "a token that is sent proves less than a signature: name `signingTokens` alone",
                );
            }
            if gitlab.tolerance.is_some() && gitlab.signing_tokens.is_empty() {
                problem("gitlab.tolerance", "it says nothing without `signingTokens`");
            }
        }
        if let Self::Hmac(own) = self {
            if own.header.parse::<HeaderName>().is_err() {
                problem("hmac.header", "it is no name of a header");
            }
            match own.timestamp_header.as_deref().map(str::parse::<HeaderName>) {
                Some(Err(_)) => problem("hmac.timestampHeader", "it is no name of a header"),
                Some(Ok(name)) if !own.before.as_ref().is_some_and(|before| before.names_header(&name)) => {
                    problem(
                        "hmac.timestampHeader",
                        "the time is not signed, so that whoever repeats a request could change it: name the header in \
                     `before` as the sender signs it",
                    );
                }
                None if own.tolerance.is_some() => {
                    problem("hmac.tolerance", "it says nothing without a `timestampHeader`");
                }
                _ => {}
            }
        }
        problems
    }

    /// Reads the secrets.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where one is not there.
    pub(super) fn verifier(&self, context: &ComponentContext) -> Result<Verifier, Problem> {
        let settings = |detail: String| Problem::new(ProblemKind::Settings, detail);
        let secret = |value: &SecretValue| -> Result<Sensitive, Problem> {
            let resolved = value.resolve(&context.name.namespace, &context.secrets);
            let secret = resolved.map_err(|error| settings(error.to_string()))?;
            // Whoever knows nothing knows an empty secret.
            if secret.expose().is_empty() {
                Err(settings(format!("the secret ({value:?}) is empty")))
            } else {
                Ok(secret)
            }
        };
        let all = |values: &[SecretValue]| values.iter().map(secret).collect::<Result<Vec<_>, _>>();
        let keys = |values: &[SecretValue]| -> Result<Vec<Key>, Problem> {
            Ok(all(values)?.iter().map(|secret| Key(secret.expose().as_bytes().to_vec())).collect())
        };
        let tolerance =
            |given: &Option<IsoDuration>| given.as_ref().map_or(DEFAULT_TOLERANCE, |given| given.0);
        let timed = |scheme, signing: &SigningSecrets| -> Result<Verifier, Problem> {
            let secrets = keys(&signing.secrets)?;
            Ok(Verifier::Signature { scheme, secrets, tolerance: tolerance(&signing.tolerance) })
        };
        let standard = |values: &[SecretValue], given: &Option<IsoDuration>| -> Result<Verifier, Problem> {
            let decoded = all(values)?.iter().map(standard_key).collect::<Option<Vec<_>>>();
            let secrets = decoded.ok_or_else(|| {
                settings("a secret of Standard Webhooks is `whsec_` with base64 behind it".to_owned())
            })?;
            let scheme = Scheme::StandardWebhooks;
            Ok(Verifier::Signature { scheme, secrets, tolerance: tolerance(given) })
        };
        match self {
            Self::Github(shared) => {
                let secrets = keys(&shared.secrets)?;
                Ok(Verifier::Signature { scheme: Scheme::Github, secrets, tolerance: DEFAULT_TOLERANCE })
            }
            Self::Gitlab(gitlab) if gitlab.signing_tokens.is_empty() => {
                let header = HeaderName::from_static("x-gitlab-token");
                Ok(Verifier::Token { header, tokens: all(&gitlab.secrets)? })
            }
            Self::Gitlab(gitlab) => standard(&gitlab.signing_tokens, &gitlab.tolerance),
            Self::Stripe(signing) => timed(Scheme::Stripe, signing),
            Self::Slack(signing) => timed(Scheme::Slack, signing),
            Self::StandardWebhooks(signing) => standard(&signing.secrets, &signing.tolerance),
            Self::Hmac(own) => {
                let name = |name: &str| {
                    name.parse::<HeaderName>()
                        .map_err(|_| settings(format!("`{name}` is no name of a header")))
                };
                let scheme = OwnScheme {
                    header: name(&own.header)?,
                    prefix: own.prefix.clone(),
                    algorithm: own.algorithm,
                    encoding: own.encoding,
                    before: own.before.clone(),
                    timestamp: own.timestamp_header.as_deref().map(name).transpose()?,
                };
                let (secrets, tolerance) = (keys(&own.secrets)?, tolerance(&own.tolerance));
                Ok(Verifier::Signature { scheme: Scheme::Own(scheme), secrets, tolerance })
            }
            Self::Basic(users) => {
                let user = |user: &BasicUser| {
                    Ok((secret(&user.username)?.expose().to_owned(), secret(&user.password)?))
                };
                Ok(Verifier::Basic(users.iter().map(user).collect::<Result<_, Problem>>()?))
            }
            Self::Bearer(shared) => Ok(Verifier::Bearer(all(&shared.secrets)?)),
        }
    }
}

fn standard_key(secret: &Sensitive) -> Option<Key> {
    let text = secret.expose();
    let base64 = text.strip_prefix("whsec_").unwrap_or(text);
    STANDARD_NO_PAD.decode(base64.trim_end_matches('=')).ok().filter(|key| !key.is_empty()).map(Key)
}
