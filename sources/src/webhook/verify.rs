//! Whether a request is from whom it should be: signatures, tokens and passwords, compared in constant time.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit as _};
use http::header::{AUTHORIZATION, HeaderName};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use waypost_core::receive::Posted;
use waypost_core::secret::Sensitive;
use waypost_core::template::RequestTemplate;

use super::settings::{Encoding, HashAlgorithm};

/// The most signatures of one request that are looked at: a sender that rotates its secrets sends two.
const MOST_SIGNATURES: usize = 16;

/// How requests prove who they are from.
#[derive(Debug)]
pub(super) enum Verifier {
    /// Not at all.
    Anyone,
    /// By a signature over the body and more.
    Signature { scheme: Scheme, secrets: Vec<Key>, tolerance: Duration },
    /// By a secret in a header of its own.
    Token { header: HeaderName, tokens: Vec<Sensitive> },
    /// By a secret in `Authorization: Bearer`.
    Bearer(Vec<Sensitive>),
    /// By name and password.
    Basic(Vec<(String, Sensitive)>),
}

/// A secret as the key of a signature.
#[derive(Clone)]
pub(super) struct Key(pub(super) Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a signature stands, and over what it is made.
#[derive(Debug)]
pub(super) enum Scheme {
    Github,
    Stripe,
    Slack,
    StandardWebhooks,
    Own(OwnScheme),
}

/// A scheme that the settings describe.
#[derive(Debug)]
pub(super) struct OwnScheme {
    pub(super) header: HeaderName,
    pub(super) prefix: String,
    pub(super) algorithm: HashAlgorithm,
    pub(super) encoding: Encoding,
    pub(super) before: Option<RequestTemplate>,
    pub(super) timestamp: Option<HeaderName>,
}

/// Why a request is not taken. It says nothing about secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unverified {
    #[error(
        "the request has no header `{0}`, by which it would prove who it is from: set the secret at the sender"
    )]
    Missing(HeaderName),
    #[error("the header `{0}` is not of the form that its sender documents")]
    Malformed(HeaderName),
    #[error(
        "the header `{0}` does not fit: the secret of the sender is another, or the request was changed on its way"
    )]
    Wrong(HeaderName),
    #[error(
        "the request was signed {0} s from now, more than the source allows: send it again, and check the clocks"
    )]
    Expired(u64),
}

impl Verifier {
    /// Holds a request to what it must prove. `now` is in seconds since 1970.
    pub(super) fn verify(&self, posted: &Posted, now: u64) -> Result<(), Unverified> {
        match self {
            Self::Anyone => Ok(()),
            Self::Signature { scheme, secrets, tolerance } => {
                let signed = scheme.read(posted)?;
                if !secrets.iter().fold(false, |known, secret| known | signed.fits(secret, &posted.body)) {
                    return Err(Unverified::Wrong(signed.header));
                }
                match signed.at.map(|at| at.abs_diff(now)) {
                    Some(apart) if apart > tolerance.as_secs() => Err(Unverified::Expired(apart)),
                    _ => Ok(()),
                }
            }
            Self::Token { header, tokens } => {
                let given = text(posted, header)?;
                known(tokens.iter().map(|token| same(token.expose(), given)), header)
            }
            Self::Bearer(tokens) => {
                let given = authorization(posted, "bearer")?;
                known(tokens.iter().map(|token| same(token.expose(), given)), &AUTHORIZATION)
            }
            Self::Basic(users) => {
                let malformed = || Unverified::Malformed(AUTHORIZATION);
                let given = authorization(posted, "basic")?;
                let given = STANDARD.decode(given).map_err(|_| malformed())?;
                let given = String::from_utf8(given).map_err(|_| malformed())?;
                let (name, password) = given.split_once(':').ok_or_else(malformed)?;
                let fits = |user: &(String, Sensitive)| same(&user.0, name) & same(user.1.expose(), password);
                known(users.iter().map(fits), &AUTHORIZATION)
            }
        }
    }

    /// What `WWW-Authenticate` tells whoever is refused.
    pub(super) fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Anyone | Self::Signature { .. } | Self::Token { .. } => None,
            Self::Bearer(_) => Some("Bearer"),
            Self::Basic(_) => Some("Basic realm=\"waypost\", charset=\"UTF-8\""),
        }
    }
}

/// All are looked at, so that the time tells nothing about which one fits.
fn known(fits: impl Iterator<Item = bool>, header: &HeaderName) -> Result<(), Unverified> {
    if fits.fold(false, |known, fits| known | fits) { Ok(()) } else { Err(Unverified::Wrong(header.clone())) }
}

/// Whether two texts are the same, in a time that tells nothing about where they differ nor how long the secret is.
fn same(secret: &str, given: &str) -> bool {
    use sha2::Digest as _;
    let (secret, given) = (Sha256::digest(secret.as_bytes()), Sha256::digest(given.as_bytes()));
    secret.as_slice().ct_eq(given.as_slice()).into()
}

fn text<'p>(posted: &'p Posted, header: &HeaderName) -> Result<&'p str, Unverified> {
    let Some(value) = posted.headers.get(header) else { return Err(Unverified::Missing(header.clone())) };
    value.to_str().map_err(|_| Unverified::Malformed(header.clone()))
}

fn authorization<'p>(posted: &'p Posted, scheme: &str) -> Result<&'p str, Unverified> {
    let malformed = || Unverified::Malformed(AUTHORIZATION);
    let (given, value) = text(posted, &AUTHORIZATION)?.split_once(' ').ok_or_else(malformed)?;
    if given.eq_ignore_ascii_case(scheme) { Ok(value.trim()) } else { Err(malformed()) }
}

/// The signatures of a request, and what they are made over.
struct Signed {
    header: HeaderName,
    algorithm: HashAlgorithm,
    signatures: Vec<Vec<u8>>,
    /// What is signed before the body.
    before: Vec<u8>,
    /// When it was signed, in seconds since 1970, where that is signed too.
    at: Option<u64>,
}

impl Signed {
    fn fits(&self, secret: &Key, body: &[u8]) -> bool {
        match self.algorithm {
            HashAlgorithm::Sha256 => self.fits_by(Hmac::<Sha256>::new_from_slice(&secret.0).ok(), body),
            HashAlgorithm::Sha512 => self.fits_by(Hmac::<Sha512>::new_from_slice(&secret.0).ok(), body),
        }
    }

    fn fits_by<M: hmac::Mac>(&self, mac: Option<M>, body: &[u8]) -> bool {
        let Some(mut mac) = mac else { return false };
        mac.update(&self.before);
        mac.update(body);
        let made = mac.finalize().into_bytes();
        let fits = |signature: &Vec<u8>| bool::from(made.as_slice().ct_eq(signature));
        self.signatures.iter().fold(false, |known, signature| known | fits(signature))
    }
}

impl Scheme {
    fn read(&self, posted: &Posted) -> Result<Signed, Unverified> {
        match self {
            Self::Github => {
                let header = HeaderName::from_static("x-hub-signature-256");
                let malformed = || Unverified::Malformed(header.clone());
                let signature = text(posted, &header)?.strip_prefix("sha256=").and_then(unhex);
                let signatures = vec![signature.ok_or_else(malformed)?];
                Ok(Signed {
                    header,
                    algorithm: HashAlgorithm::Sha256,
                    signatures,
                    before: Vec::new(),
                    at: None,
                })
            }
            Self::Stripe => stripe(posted),
            Self::Slack => {
                let header = HeaderName::from_static("x-slack-signature");
                let timestamp = HeaderName::from_static("x-slack-request-timestamp");
                let malformed = || Unverified::Malformed(header.clone());
                let signature = text(posted, &header)?.strip_prefix("v0=").and_then(unhex);
                let signatures = vec![signature.ok_or_else(malformed)?];
                let (time, at) = time(posted, &timestamp)?;
                let before = format!("v0:{time}:").into_bytes();
                Ok(Signed { header, algorithm: HashAlgorithm::Sha256, signatures, before, at: Some(at) })
            }
            Self::StandardWebhooks => standard(posted),
            Self::Own(own) => own.read(posted),
        }
    }
}

/// `Stripe-Signature: t=SECONDS,v1=HEX,v1=HEX`; elements of other versions are passed over.
fn stripe(posted: &Posted) -> Result<Signed, Unverified> {
    let header = HeaderName::from_static("stripe-signature");
    let malformed = || Unverified::Malformed(header.clone());
    let mut time = None;
    let mut signatures = Vec::new();
    for element in text(posted, &header)?.split(',').take(MOST_SIGNATURES) {
        match element.trim().split_once('=') {
            Some(("t", value)) if time.is_none() => time = Some(value),
            Some(("v1", value)) => signatures.push(unhex(value).ok_or_else(malformed)?),
            _ => {}
        }
    }
    let time = time.filter(|_| !signatures.is_empty()).ok_or_else(malformed)?;
    let at = seconds(time).ok_or_else(malformed)?;
    let before = format!("{time}.").into_bytes();
    Ok(Signed { header, algorithm: HashAlgorithm::Sha256, signatures, before, at: Some(at) })
}

/// `webhook-signature: v1,BASE64 v1,BASE64`; those of other versions are passed over.
fn standard(posted: &Posted) -> Result<Signed, Unverified> {
    let header = HeaderName::from_static("webhook-signature");
    let malformed = || Unverified::Malformed(header.clone());
    let list = text(posted, &header)?.split(' ').take(MOST_SIGNATURES);
    let versions = list.filter_map(|signature| signature.strip_prefix("v1,"));
    let signatures: Option<Vec<_>> = versions.map(|signature| STANDARD.decode(signature).ok()).collect();
    let signatures = signatures.filter(|signatures| !signatures.is_empty()).ok_or_else(malformed)?;
    let id = text(posted, &HeaderName::from_static("webhook-id"))?;
    let (time, at) = time(posted, &HeaderName::from_static("webhook-timestamp"))?;
    let before = format!("{id}.{time}.").into_bytes();
    Ok(Signed { header, algorithm: HashAlgorithm::Sha256, signatures, before, at: Some(at) })
}

impl OwnScheme {
    fn read(&self, posted: &Posted) -> Result<Signed, Unverified> {
        let malformed = || Unverified::Malformed(self.header.clone());
        let value = text(posted, &self.header)?.strip_prefix(self.prefix.as_str()).ok_or_else(malformed)?;
        let signature = match self.encoding {
            Encoding::Hex => unhex(value),
            Encoding::Base64 => STANDARD_NO_PAD.decode(value.trim_end_matches('=')).ok(),
        };
        let at = self.timestamp.as_ref().map(|header| time(posted, header)).transpose()?.map(|(_, at)| at);
        let before = self.before.as_ref().map(|before| before.render(posted)).transpose();
        Ok(Signed {
            header: self.header.clone(),
            algorithm: self.algorithm,
            signatures: vec![signature.ok_or_else(malformed)?],
            before: before.map_err(|_| malformed())?.unwrap_or_default().into_bytes(),
            at,
        })
    }
}

fn time<'p>(posted: &'p Posted, header: &HeaderName) -> Result<(&'p str, u64), Unverified> {
    let value = text(posted, header)?;
    seconds(value).map(|at| (value, at)).ok_or_else(|| Unverified::Malformed(header.clone()))
}

/// Digits only: a sign or a space would be signed as it is written, and is documented nowhere.
fn seconds(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
