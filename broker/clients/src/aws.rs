//! AWS, and what speaks its protocols (ElasticMQ, MinIO, Ceph, LocalStack): who we are, where a service is, signed
//! requests, and what failures mean.
//!
//! Credentials, their chain and the signature are AWS's own crates; a request is written by the file of its service
//! ([`sqs`], [`s3`]), which needs a handful of calls of the hundreds that the generated clients bring.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{HttpConnector as _, HttpConnectorSettings};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};
use waypost_core::manifest::FieldProblem;
use waypost_core::secret::SecretValue;
use waypost_core::sink::ComponentContext;

pub use self::arn::Arn;
use self::classify::classify;
use crate::problem::{Problem, ProblemKind};

mod arn;
mod classify;
pub mod s3;
pub mod sqs;

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long finding out who and where we are may take: it asks the machine's own services, or STS.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(8);

/// Credentials that last no longer than this are renewed before they are used.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// The largest answer that is read, in bytes: ten messages of SQS at their largest are a tenth of it.
const MOST_ANSWER: usize = 32 * 1024 * 1024;

/// Keys of AWS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsCredentials {
    /// The id of the access key.
    access_key_id: SecretValue,
    /// The secret of the access key.
    secret_access_key: SecretValue,
    /// The token of temporary keys.
    session_token: Option<SecretValue>,
}

/// A role that is assumed by STS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsRole {
    /// The ARN of the role, as in `arn:aws:iam::123456789012:role/waypost`.
    arn: String,
    /// What the owner of the role wants to be told, where it does.
    external_id: Option<SecretValue>,
    /// The name of the session in the owner's log; `waypost` where none is given.
    session_name: Option<String>,
}

/// TLS to AWS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsTls {
    /// The certificate authorities to trust instead of those of the system, as PEM.
    ca: Option<SecretValue>,
}

/// How to reach a service of AWS: what the settings of a source or sink say.
#[derive(Debug, Clone, Copy)]
pub struct AwsConnection<'c> {
    /// The region; that of the environment where none is given.
    pub region: Option<&'c str>,
    /// The URL of the service; that of the environment, or AWS itself, where none is given.
    pub endpoint: Option<&'c str>,
    /// Keys; those that the environment, a profile or the machine gives where there are none.
    pub credentials: Option<&'c AwsCredentials>,
    /// The role that is assumed with them.
    pub assume_role: Option<&'c AwsRole>,
    /// TLS, where the system's authorities do not do.
    pub tls: Option<&'c AwsTls>,
}

impl AwsConnection<'_> {
    /// What is wrong with the settings, whatever AWS says to them.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: &str| {
            problems.push(FieldProblem { path: path.to_owned(), message: message.to_owned() });
        };
        let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.region.is_some_and(|region| region.is_empty() || !region.bytes().all(named)) {
            problem("region", "it is no region: write one as in `eu-central-1`");
        }
        if self.endpoint.is_some_and(|endpoint| parse_endpoint(endpoint).is_none()) {
            problem("endpoint", "it is no URL of a service: write one as in `http://localhost:9324`");
        }
        if let Some(role) = self.assume_role
            && Arn::parse(&role.arn).is_none()
        {
            problem(
                "assumeRole.arn",
                "it is no ARN: write one as in `arn:aws:iam::123456789012:role/waypost`",
            );
        }
        problems
    }

    /// A client of a service. Reads the secrets, and waits for nothing: who and where we are is found out at the first
    /// request.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where a secret is not there or the authorities are unreadable.
    pub fn client(&self, service: AwsService, context: &ComponentContext) -> Result<AwsClient, Problem> {
        let secret = |value: &SecretValue| {
            let resolved = value.resolve(&context.name.namespace, &context.secrets);
            resolved.map_err(|error| Problem::new(ProblemKind::Settings, error.to_string()))
        };
        let keys = match self.credentials {
            Some(keys) => {
                let token = keys.session_token.as_ref().map(&secret).transpose()?;
                let (id, key) = (secret(&keys.access_key_id)?, secret(&keys.secret_access_key)?);
                let token = token.map(|token| token.expose().to_owned());
                Some(Credentials::new(id.expose(), key.expose(), token, None, "settings"))
            }
            None => None,
        };
        let role = match self.assume_role {
            Some(role) => {
                let external_id = role.external_id.as_ref().map(&secret).transpose()?;
                Some(Role {
                    arn: role.arn.clone(),
                    external_id: external_id.map(|id| id.expose().to_owned()),
                    session_name: role.session_name.clone().unwrap_or_else(|| "waypost".to_owned()),
                })
            }
            None => None,
        };
        let ca = self.tls.and_then(|tls| tls.ca.as_ref()).map(&secret).transpose()?;
        let trust = match &ca {
            Some(ca) => {
                check_authorities(ca.expose())?;
                TrustStore::empty().with_pem_certificate(ca.expose())
            }
            None => TrustStore::default(),
        };
        let tls = TlsContext::builder().with_trust_store(trust).build();
        let tls = tls.map_err(|error| Problem::new(ProblemKind::Settings, format!("`tls`: {error}")))?;
        Ok(AwsClient {
            service,
            settings: Settings {
                region: self.region.map(str::to_owned),
                endpoint: self.endpoint.map(str::to_owned),
                keys,
                role,
                tls,
            },
            opened: OnceCell::new(),
            moved: parking_lot::Mutex::default(),
        })
    }
}

fn check_authorities(pem: &str) -> Result<(), Problem> {
    let unusable = |detail: String| Problem::new(ProblemKind::Settings, format!("`tls.ca`: {detail}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("it holds no certificate".to_owned())) } else { Ok(()) }
}

/// A service of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AwsService {
    /// Simple Queue Service.
    Sqs,
    /// Simple Storage Service.
    S3,
}

impl AwsService {
    /// The name in host names and signatures.
    fn name(self) -> &'static str {
        match self {
            Self::Sqs => "sqs",
            Self::S3 => "s3",
        }
    }

    /// The environment variable that says where this service alone is.
    fn endpoint_variable(self) -> &'static str {
        match self {
            Self::Sqs => "AWS_ENDPOINT_URL_SQS",
            Self::S3 => "AWS_ENDPOINT_URL_S3",
        }
    }
}

/// A client of one service: finds out who and where we are, signs requests, and says what failures mean.
pub struct AwsClient {
    service: AwsService,
    settings: Settings,
    opened: OnceCell<Opened>,
    /// Where AWS said that we should go.
    moved: parking_lot::Mutex<Option<AwsPlace>>,
}

struct Settings {
    region: Option<String>,
    endpoint: Option<String>,
    keys: Option<Credentials>,
    role: Option<Role>,
    tls: TlsContext,
}

struct Role {
    arn: String,
    external_id: Option<String>,
    session_name: String,
}

struct Opened {
    place: AwsPlace,
    provider: SharedCredentialsProvider,
    credentials: Mutex<Option<Credentials>>,
    connector: Connector,
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsPlace {
    /// The region.
    pub region: String,
    /// The URL of the service, without a slash at its end.
    pub endpoint: String,
    /// Whether it is AWS itself, which knows a bucket by the name of the host.
    pub is_aws: bool,
}

impl AwsPlace {
    fn of_aws(service: AwsService, region: &str, fips: bool) -> Self {
        let (service, suffix) = (service.name(), domain_of(region));
        let fips = if fips { "-fips" } else { "" };
        let endpoint = format!("https://{service}{fips}.{region}.{suffix}");
        Self { region: region.to_owned(), endpoint, is_aws: true }
    }
}

/// A request to a service.
#[derive(Debug)]
pub(crate) struct AwsRequest {
    pub(crate) method: Method,
    /// The whole URL, encoded.
    pub(crate) url: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// How long the answer may take.
    pub(crate) patience: Duration,
}

/// What a service answered.
#[derive(Debug)]
pub(crate) struct AwsAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl fmt::Debug for AwsClient {
    // Without the settings, which hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsClient").field("service", &self.service).finish_non_exhaustive()
    }
}

impl AwsClient {
    /// Where the service is.
    ///
    /// # Errors
    /// Where no region is known.
    pub async fn place(&self) -> Result<AwsPlace, Problem> {
        let opened = self.opened().await?;
        let moved = self.moved.lock().clone();
        Ok(moved.unwrap_or_else(|| opened.place.clone()))
    }

    /// Goes to another region of AWS from now on; an endpoint that was set stays.
    pub(crate) fn move_to(&self, region: &str) {
        *self.moved.lock() = Some(AwsPlace::of_aws(self.service, region, false));
    }

    /// Sends a request and waits for the whole answer. An answer that is no success is a problem. Cancel-safe in that a
    /// request may have been received.
    pub(crate) async fn send(&self, request: AwsRequest) -> Result<AwsAnswer, Problem> {
        let answer = self.send_raw(request).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.problem_of(&answer)) }
    }

    /// As [`AwsClient::send`], with every answer that came.
    pub(crate) async fn send_raw(&self, request: AwsRequest) -> Result<AwsAnswer, Problem> {
        let opened = self.opened().await?;
        let credentials = opened.credentials().await?;
        let patience = request.patience;
        let place = self.place().await?;
        let request = self.signed(request, credentials, &place)?;
        let called = async {
            let response =
                opened.connector.call(request).await.map_err(|error| not_sent(&error, &place.endpoint))?;
            let status = StatusCode::from_u16(response.status().as_u16())
                .map_err(|_| unreadable("an impossible status"))?;
            let headers = response.headers();
            let headers = headers
                .iter()
                .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?)))
                .collect();
            let body = whole(response.into_body()).await?;
            Ok(AwsAnswer { status, headers, body })
        };
        let answered = tokio::time::timeout(patience, called).await;
        answered.unwrap_or_else(|_| {
            let detail = format!("{} does not answer in time", place.endpoint);
            Err(Problem::new(ProblemKind::Unavailable, detail))
        })
    }

    /// What an answer that is no success means.
    pub(crate) fn problem_of(&self, answer: &AwsAnswer) -> Problem {
        classify(self.service, answer.status, &answer.headers, &answer.body)
    }

    async fn opened(&self) -> Result<&Opened, Problem> {
        let opening = self.opened.get_or_try_init(|| self.open());
        tokio::time::timeout(IDENTITY_PATIENCE, opening).await.unwrap_or_else(|_| {
            let detail = "finding out which AWS credentials there are takes too long; give `credentials`";
            Err(Problem::new(ProblemKind::Unavailable, detail))
        })
    }

    async fn open(&self) -> Result<Opened, Problem> {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
        let http = http.tls_context(self.settings.tls.clone()).build_https();
        let mut loader: ConfigLoader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
        if let Some(region) = &self.settings.region {
            loader = loader.region(Region::new(region.clone()));
        } else if self.service == AwsService::S3 {
            // The machine need not be asked: S3 tells everybody where a bucket is.
            let named = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
            let named = named.or_else(ProfileFileRegionProvider::new());
            loader = loader.region(named.or_else(Region::from_static("us-east-1")));
        }
        if let Some(keys) = &self.settings.keys {
            loader = loader.credentials_provider(keys.clone());
        }
        let config = loader.load().await;
        let place = self.place_of(&config)?;
        let provider = config.credentials_provider().ok_or_else(no_credentials)?;
        let provider = match &self.settings.role {
            Some(role) => {
                let region = Region::new(place.region.clone());
                let mut builder = AssumeRoleProvider::builder(&role.arn).session_name(&role.session_name);
                if let Some(id) = &role.external_id {
                    builder = builder.external_id(id);
                }
                let builder = builder.configure(&config).region(region);
                SharedCredentialsProvider::new(builder.build_from_provider(provider).await)
            }
            None => provider,
        };
        let limits = HttpConnectorSettings::builder().connect_timeout(CONNECT_PATIENCE).build();
        let connector = Connector::builder()
            .connector_settings(limits)
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(self.settings.tls.clone())
            .build();
        Ok(Opened { place, provider, credentials: Mutex::new(None), connector })
    }

    fn place_of(&self, config: &SdkConfig) -> Result<AwsPlace, Problem> {
        let own = std::env::var(self.service.endpoint_variable()).ok().filter(|url| !url.is_empty());
        let endpoint = self.settings.endpoint.clone().or(own).or(config.endpoint_url().map(str::to_owned));
        let Some(region) = config.region().map(|region| region.as_ref().to_owned()) else {
            let detail = "no AWS region is known: give `region`, or set AWS_REGION";
            return Err(Problem::new(ProblemKind::Settings, detail));
        };
        match endpoint {
            Some(url) => match parse_endpoint(&url) {
                Some(endpoint) => Ok(AwsPlace { region, endpoint, is_aws: false }),
                None => {
                    let detail =
                        format!("`{url}` is no URL of a service: correct `endpoint` or AWS_ENDPOINT_URL");
                    Err(Problem::new(ProblemKind::Settings, detail))
                }
            },
            None => Ok(AwsPlace::of_aws(self.service, &region, config.use_fips() == Some(true))),
        }
    }

    fn signed(
        &self,
        request: AwsRequest,
        credentials: Credentials,
        place: &AwsPlace,
    ) -> Result<aws_smithy_runtime_api::client::orchestrator::HttpRequest, Problem> {
        let unsigned = |error: &dyn Error| {
            Problem::new(ProblemKind::Settings, format!("the request cannot be signed: {error}"))
        };
        let AwsRequest { method, url, headers, body, .. } = request;
        let mut settings = SigningSettings::default();
        if self.service == AwsService::S3 {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&place.region)
            .name(self.service.name())
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| unsigned(&error))?;
        let texts: Result<Vec<_>, _> =
            headers.iter().map(|(name, value)| value.to_str().map(|value| (name.as_str(), value))).collect();
        let texts = texts.map_err(|error| unsigned(&error))?;
        let signable =
            SignableRequest::new(method.as_str(), &url, texts.into_iter(), SignableBody::Bytes(&body))
                .map_err(|error| unsigned(&error))?;
        let (instructions, _) =
            sign(signable, &params.into()).map_err(|error| unsigned(&error))?.into_parts();
        let mut signed = Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            signed = signed.header(name, value);
        }
        let mut signed = signed.body(SdkBody::from(body)).map_err(|error| unsigned(&error))?;
        instructions.apply_to_request_http1x(&mut signed);
        signed.try_into().map_err(|error| unsigned(&error))
    }
}

impl Opened {
    /// Credentials that last for a while, renewed where need be.
    async fn credentials(&self) -> Result<Credentials, Problem> {
        let mut known = self.credentials.lock().await;
        let lasting = |credentials: &&Credentials| match credentials.expiry() {
            Some(expiry) => expiry > SystemTime::now() + RENEW_BEFORE,
            None => true,
        };
        if let Some(credentials) = known.as_ref().filter(lasting) {
            return Ok(credentials.clone());
        }
        let provided = tokio::time::timeout(IDENTITY_PATIENCE, self.provider.provide_credentials()).await;
        let problem = match provided {
            Ok(Ok(credentials)) => {
                *known = Some(credentials.clone());
                return Ok(credentials);
            }
            Ok(Err(error)) => not_provided(&error),
            Err(_) => Problem::new(ProblemKind::Unavailable, "AWS gives no credentials in time"),
        };
        // What is about to end does as long as it lasts.
        match known.as_ref().filter(|known| known.expiry().is_some_and(|expiry| expiry > SystemTime::now())) {
            Some(credentials) => Ok(credentials.clone()),
            None => Err(problem),
        }
    }
}

fn no_credentials() -> Problem {
    let detail = "no AWS credentials are found: give `credentials`, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                  give the machine a role";
    Problem::new(ProblemKind::Unauthorized, detail)
}

/// Why there are no credentials.
fn not_provided(error: &CredentialsError) -> Problem {
    let told = chain(error);
    match error {
        CredentialsError::CredentialsNotLoaded(_) => no_credentials(),
        CredentialsError::ProviderTimedOut(_) => {
            Problem::new(ProblemKind::Unavailable, format!("AWS gives no credentials in time: {told}"))
        }
        CredentialsError::InvalidConfiguration(_) => {
            Problem::new(ProblemKind::Settings, format!("the AWS configuration cannot be used: {told}"))
        }
        error => {
            let away = sources(error).any(|source| {
                source
                    .downcast_ref::<ConnectorError>()
                    .is_some_and(|error| error.is_io() || error.is_timeout())
            });
            let kind = if away { ProblemKind::Unavailable } else { ProblemKind::Unauthorized };
            Problem::new(kind, format!("AWS gives no credentials: {told}; check the keys and `assumeRole`"))
        }
    }
}

/// Why a request was not answered.
fn not_sent(error: &ConnectorError, endpoint: &str) -> Problem {
    let distrust = sources(error)
        .filter_map(|source| source.downcast_ref::<rustls::Error>())
        .find(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    match distrust {
        Some(why) => Problem::new(
            ProblemKind::Unauthorized,
            format!("the certificate of {endpoint} is not trusted: {why}; check `tls.ca`"),
        ),
        None => Problem::new(
            ProblemKind::Unavailable,
            format!(
                "{endpoint} cannot be reached: {}; check `endpoint`, and that the service runs",
                chain(error)
            ),
        ),
    }
}

/// An error and those behind it. What an I/O error was made of is looked at too, which its own `source` passes over: a
/// refusal by TLS lies in two of them.
fn sources<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| {
        let error = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(payload) => Some(payload as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// What an error and those behind it say, each once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    for error in sources(error) {
        let text = error.to_string();
        if !told.iter().any(|known| known.contains(&text)) {
            told.push(text);
        }
    }
    told.join(": ")
}

fn unreadable(what: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable, format!("the answer is unreadable: {what}"))
}

/// Reads a body that is not larger than an answer may be.
async fn whole(body: SdkBody) -> Result<Bytes, Problem> {
    let mut stream = ByteStream::new(body);
    let mut read = BytesMut::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|error| unreadable(&chain(&error)))?;
        if read.len() + part.len() > MOST_ANSWER {
            return Err(unreadable("it is too large"));
        }
        read.extend_from_slice(&part);
    }
    Ok(read.freeze())
}

/// A URL of a service without the slash at its end; none where it is no such URL.
fn parse_endpoint(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    (web && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none())
        .then(|| url.trim_end_matches('/').to_owned())
}

/// The domain of the part of AWS that a region belongs to.
fn domain_of(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else if region.starts_with("us-isob-") {
        "sc2s.sgov.gov"
    } else if region.starts_with("us-iso-") {
        "c2s.ic.gov"
    } else if region.starts_with("eusc-") {
        "amazonaws.eu"
    } else {
        "amazonaws.com"
    }
}

#[cfg(test)]
mod suite;
