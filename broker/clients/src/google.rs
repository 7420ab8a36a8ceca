//! Google Cloud: who we are, Pub/Sub, and what failures mean.

mod credentials;
mod pub_sub;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tonic::Code;
use waypost_core::manifest::FieldProblem;
use waypost_core::secret::SecretValue;
use waypost_core::sink::ComponentContext;

use self::credentials::Credentials;
pub use self::pub_sub::{PubsubMessage, ReceivedMessage, Subscriber, Subscription};
use crate::problem::{Problem, ProblemKind};

/// How long Google may take for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Where Pub/Sub is, where nothing else is said.
const PUB_SUB: &str = "https://pubsub.googleapis.com";

/// Who we are to Google.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum GoogleAuth {
    /// The key of a service account, in JSON as Google gives it out.
    ServiceAccountKey(SecretValue),
}

/// How to reach Pub/Sub: what the settings of a source say.
#[derive(Debug, Clone, Copy)]
pub struct GoogleConnection<'c> {
    /// Another address than Google's, as that of an emulator.
    pub endpoint: Option<&'c str>,
    /// Who we are; ambient where nothing is said.
    pub auth: Option<&'c GoogleAuth>,
}

impl GoogleConnection<'_> {
    /// What is wrong with the settings, whatever Google says to them.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let wrong = self.endpoint.filter(|endpoint| {
            let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '@', ' ']))
        });
        let message = "it is no address: write it as `http://HOST:PORT`, or `https://HOST:PORT`";
        wrong
            .map(|_| FieldProblem { path: "endpoint".to_owned(), message: message.to_owned() })
            .into_iter()
            .collect()
    }

    /// A client of a subscription, with its secrets. Waits for no server.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where a secret is not there or cannot be used.
    pub fn subscriber(&self, context: &ComponentContext, subscription: &str) -> Result<Subscriber, Problem> {
        let secret = |value: &SecretValue| value.resolve(&context.name.namespace, &context.secrets);
        let emulator = secret(&SecretValue::Env("PUBSUB_EMULATOR_HOST".to_owned())).ok();
        let endpoint = match (self.endpoint, &emulator) {
            (Some(endpoint), _) => endpoint.to_owned(),
            (None, Some(host)) => format!("http://{}", host.expose()),
            (None, None) => PUB_SUB.to_owned(),
        };
        let settings = |error: String| Problem::new(ProblemKind::Settings, error);
        let credentials = match self.auth {
            Some(GoogleAuth::ServiceAccountKey(key)) => {
                let key = secret(key).map_err(|error| settings(error.to_string()))?;
                Credentials::of_key(key.expose())?
            }
            // An emulator asks for nobody.
            None if endpoint != PUB_SUB => Credentials::none(),
            None => match secret(&SecretValue::Env("GOOGLE_APPLICATION_CREDENTIALS".to_owned())) {
                Ok(path) => {
                    let key = secret(&SecretValue::File(path.expose().to_owned()));
                    Credentials::of_key(key.map_err(|error| settings(error.to_string()))?.expose())?
                }
                Err(_) => Credentials::of_machine(),
            },
        };
        Subscriber::new(&endpoint, credentials, subscription)
    }
}

/// What an answer that is a failure means.
fn classify(status: &tonic::Status) -> Problem {
    let kind = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => ProblemKind::Unauthorized,
        Code::NotFound => ProblemKind::Absent,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented => {
            ProblemKind::Settings
        }
        Code::ResourceExhausted => ProblemKind::Overloaded,
        _ => ProblemKind::Unavailable,
    };
    let advice = match kind {
        ProblemKind::Unauthorized => "; check `auth`, and that the account may consume the subscription",
        ProblemKind::Absent => "; create it, correct its name, or give its `topic` to have it created",
        ProblemKind::Unavailable => "; check `endpoint`, and that Google can be reached",
        ProblemKind::Settings | ProblemKind::Overloaded | ProblemKind::Refused => "",
    };
    Problem::new(kind, format!("Google: {} ({:?}){advice}", told(status), status.code()))
}

/// The words of an answer, with those of its last reason where it has one of its own.
fn told(status: &tonic::Status) -> String {
    let mut reason = std::error::Error::source(status);
    while let Some(next) = reason.and_then(std::error::Error::source) {
        reason = Some(next);
    }
    match reason {
        Some(reason) => format!("{}: {reason}", status.message()),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod suite;
