//! Signatures over the body of a request, by which the other side knows that it is ours and as we sent it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};
use waypost_clients::http::secret;
use waypost_clients::{Problem, ProblemKind};
use waypost_core::Event;
use waypost_core::manifest::FieldProblem;
use waypost_core::secret::SecretValue;
use waypost_core::sink::ComponentContext;

/// What a secret of Standard Webhooks begins with.
const PREFIX: &str = "whsec_";

/// How requests are signed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum HttpSignature {
    /// A header with the HMAC of the body.
    Hmac(HmacSignature),
    /// By Standard Webhooks 1.0: the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    StandardWebhooks(StandardWebhooks),
}

/// A header with the HMAC of the body.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HmacSignature {
    /// The secret that both sides know, byte for byte.
    secret: SecretValue,
    /// The header, such as `X-Hub-Signature-256`.
    header: String,
    /// What stands before the HMAC in the header, such as `sha256=`.
    #[serde(default)]
    prefix: String,
    /// The hash; `sha256` where nothing is said.
    #[serde(default)]
    hash: HmacHash,
    /// How the HMAC is written; `hex` where nothing is said.
    #[serde(default)]
    encoding: HmacEncoding,
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum HmacHash {
    /// SHA-256
    #[default]
    Sha256,
    /// SHA-512
    Sha512,
}

/// How an HMAC is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum HmacEncoding {
    /// Digits and small letters.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
}

/// Signatures by Standard Webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StandardWebhooks {
    /// The secrets, each in base64, with or without `whsec_` before it. There is a signature for each, so that the other side
    /// can go from one to the next.
    secrets: Vec<SecretValue>,
}

/// Signs requests.
pub(super) enum Signer {
    Hmac { key: Vec<u8>, header: HeaderName, terms: HmacSignature },
    StandardWebhooks { keys: Vec<Vec<u8>> },
}

impl std::fmt::Debug for Signer {
    // Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl HttpSignature {
    pub(super) fn problems(&self, path: &str) -> Vec<FieldProblem> {
        let problem = |field: &str, message: &str| {
            vec![FieldProblem { path: format!("{path}.{field}"), message: message.to_owned() }]
        };
        match self {
            Self::Hmac(terms) if HeaderName::from_bytes(terms.header.as_bytes()).is_err() => {
                problem("hmac.header", "it is no name of a header")
            }
            Self::Hmac(terms) if HeaderValue::from_str(&terms.prefix).is_err() => {
                problem("hmac.prefix", "it has characters that no header can hold")
            }
            Self::StandardWebhooks(terms) if terms.secrets.is_empty() => {
                problem("standardWebhooks.secrets", "there is none: name at least one")
            }
            Self::Hmac(_) | Self::StandardWebhooks(_) => Vec::new(),
        }
    }

    pub(super) fn open(&self, context: &ComponentContext) -> Result<Signer, Problem> {
        let unusable = |detail: &str| Problem::new(ProblemKind::Settings, detail);
        match self {
            Self::Hmac(terms) => {
                let key = secret(&terms.secret, context)?.expose().as_bytes().to_vec();
                if key.is_empty() {
                    return Err(unusable("the secret for signatures is empty; write one"));
                }
                let header = HeaderName::from_bytes(terms.header.as_bytes())
                    .map_err(|_| unusable("`signature.hmac.header` is no name of a header"))?;
                Ok(Signer::Hmac { key, header, terms: terms.clone() })
            }
            Self::StandardWebhooks(terms) => {
                let keys = terms.secrets.iter().map(|value| {
                    let text = secret(value, context)?;
                    let text = text.expose().trim();
                    let key = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text));
                    key.ok().filter(|key| !key.is_empty()).ok_or_else(|| {
                        unusable("a secret for signatures is no base64; give it as it was made, `whsec_...`")
                    })
                });
                Ok(Signer::StandardWebhooks { keys: keys.collect::<Result<_, _>>()? })
            }
        }
    }
}

impl Signer {
    /// Adds the headers that sign a request.
    pub(super) fn sign(&self, headers: &mut HeaderMap, event: &Event, body: &[u8], now: Timestamp) {
        // What is made here is always text that a header can hold.
        let mut put = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        match self {
            Self::Hmac { key, header, terms } => {
                let mac = match terms.hash {
                    HmacHash::Sha256 => sha256(key, &[body]),
                    HmacHash::Sha512 => {
                        let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("an HMAC takes any key");
                        mac.update(body);
                        mac.finalize().into_bytes().to_vec()
                    }
                };
                let written = match terms.encoding {
                    HmacEncoding::Hex => mac.iter().map(|byte| format!("{byte:02x}")).collect(),
                    HmacEncoding::Base64 => STANDARD.encode(mac),
                };
                put(header.clone(), format!("{}{written}", terms.prefix));
            }
            Self::StandardWebhooks { keys } => {
                let id = message_id(event);
                let seconds = now.as_second().to_string();
                let signed = keys.iter().map(|key| {
                    let parts = [id.as_bytes(), b".", seconds.as_bytes(), b".", body];
                    format!("v1,{}", STANDARD.encode(sha256(key, &parts)))
                });
                let signed = signed.collect::<Vec<_>>().join(" ");
                put(HeaderName::from_static("webhook-id"), id);
                put(HeaderName::from_static("webhook-timestamp"), seconds);
                put(HeaderName::from_static("webhook-signature"), signed);
            }
        }
    }
}

fn sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// The same for every attempt at an event, and different for different events: without a dot, which separates.
fn message_id(event: &Event) -> String {
    let digest = Sha256::digest(format!("{}\0{}", event.source(), event.id()).as_bytes());
    format!("msg_{}", URL_SAFE_NO_PAD.encode(&digest[..24]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_core::manifest::{ResourceName, Secrets};

    use super::*;

    fn signed(settings: serde_json::Value, body: &[u8], seconds: i64) -> HeaderMap {
        let signature: HttpSignature = serde_json::from_value(settings).unwrap();
        assert!(signature.problems("signature").is_empty());
        let context =
            ComponentContext { name: ResourceName::new("default", "out"), secrets: Secrets::default() };
        let event = Event::builder("1", "/s", "t").build().unwrap();
        let mut headers = HeaderMap::new();
        let now = Timestamp::from_second(seconds).unwrap();
        signature.open(&context).unwrap().sign(&mut headers, &event, body, now);
        headers
    }

    #[test]
    fn an_hmac_is_that_of_githubs_documentation() {
        let settings = json!({"hmac": {
            "secret": {"value": "It's a Secret to Everybody"}, "header": "X-Hub-Signature-256", "prefix": "sha256=",
        }});
        assert_eq!(
            signed(settings, b"Hello, World!", 0)["x-hub-signature-256"],
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn an_hmac_of_sha_512_is_that_of_rfc_4231() {
        let settings = json!({"hmac": {
            "secret": {"value": "Jefe"}, "header": "x-signature", "hash": "sha512", "encoding": "base64",
        }});
        let expected = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
                        caeab1a34d4a6b4b636e070a38bce737";
        let bytes: Vec<u8> =
            (0..64).map(|at| u8::from_str_radix(&expected[2 * at..2 * at + 2], 16).unwrap()).collect();
        assert_eq!(
            signed(settings, b"what do ya want for nothing?", 0)["x-signature"],
            STANDARD.encode(bytes)
        );
    }

    #[test]
    fn standard_webhooks_sign_id_time_and_body_with_each_secret() {
        let secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"];
        let values: Vec<_> = secrets.iter().map(|secret| json!({"value": secret})).collect();
        let headers = signed(json!({"standardWebhooks": {"secrets": values}}), b"{\"a\": 1}", 1_614_265_330);
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        // Made by openssl 3.0. The id: printf '/s\0001' | openssl dgst -sha256 -binary | head -c 24 | basenc --base64url
        assert_eq!(headers["webhook-id"], "msg_-DZ-ytzQSsDg32BECmEATXSJX_FDIbFs");
        // The signatures, where KEY is a secret without `whsec_`, decoded: printf '%s.1614265330.{"a": 1}' ID |
        // openssl dgst -sha256 -mac HMAC -macopt hexkey:KEY -binary | base64
        assert_eq!(
            headers["webhook-signature"],
            "v1,KS99e6Oe3BFNBXJbypuLMyf437iP/F1TnSMvNcGN8EQ= v1,edz5tVrX/Xi/iPs6CbEzdDmAhzfuNVirMVa8yo1tlnM="
        );
    }

    #[test]
    fn what_cannot_sign_is_told() {
        for settings in [
            json!({"hmac": {"secret": {"value": "x"}, "header": "a b"}}),
            json!({"hmac": {"secret": {"value": "x"}, "header": "a", "prefix": "\n"}}),
            json!({"standardWebhooks": {"secrets": []}}),
        ] {
            let signature: HttpSignature = serde_json::from_value(settings.clone()).unwrap();
            assert_eq!(signature.problems("signature").len(), 1, "{settings}");
        }
        let context =
            ComponentContext { name: ResourceName::new("default", "out"), secrets: Secrets::default() };
        for settings in [
            json!({"hmac": {"secret": {"value": ""}, "header": "a"}}),
            json!({"standardWebhooks": {"secrets": [{"value": "whsec_?"}]}}),
        ] {
            let signature: HttpSignature = serde_json::from_value(settings).unwrap();
            assert_eq!(signature.open(&context).unwrap_err().kind, ProblemKind::Settings);
        }
    }
}
