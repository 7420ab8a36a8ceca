//! `googlePubSub`: pulls the messages of a subscription of Google Cloud Pub/Sub.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use waypost_clients::google::{GoogleAuth, GoogleConnection, Subscriber};
use waypost_core::manifest::{FieldProblem, ResourceName};
use waypost_core::sink::ComponentContext;
use waypost_core::source::{Emitter, Source, SourceConfig, SourceError};

mod message;
pub(crate) mod reading;

use self::reading::Upstream;

/// Pulls the messages of a subscription of Google Cloud Pub/Sub.
///
/// Messages that carry a CloudEvent, in binary mode (attributes `ce-NAME` and `Content-Type`) or in structured mode, become
/// that event. Any other message becomes an event of the type `eventType` with the id of the message, its data, its time
/// as `time`, and `pubsubmsgNAME` for each of its attributes, of which `Content-Type` becomes `datacontenttype`. So does a
/// message that claims to be a CloudEvent and is none, with the code of its fault as `pubsubfault`. An ordering key is
/// added as `partitionkey` where the event has none.
///
/// A message is acknowledged only after its event is in the broker's log; while that takes long, its acknowledgement
/// deadline is extended. The account needs `pubsub.subscriptions.consume`, and `pubsub.subscriptions.get` for the
/// deadline to be known.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GooglePubSubConfig {
    /// The subscription: `projects/PROJECT/subscriptions/NAME`.
    subscription: String,
    /// The topic, as `projects/PROJECT/topics/NAME`: where it is given, the subscription is created where it is not there,
    /// with ordering.
    topic: Option<String>,
    /// Who we are to Google. Without it the file that `GOOGLE_APPLICATION_CREDENTIALS` names, or the account that the
    /// machine runs as; nobody where there is an `endpoint`.
    auth: Option<GoogleAuth>,
    /// Another address than `https://pubsub.googleapis.com`, such as that of an emulator; `PUBSUB_EMULATOR_HOST` has the
    /// same effect.
    endpoint: Option<String>,
    /// What of a plain message becomes the data; `data` unless said otherwise.
    #[serde(default)]
    payload: PubSubPayload,
    /// The `type` of events that are made of plain messages.
    #[serde(default = "default_event_type")]
    event_type: String,
    /// The `source` of events that are made of plain messages, a URI-reference;
    /// `/apis/waypost.dev/v1alpha1/namespaces/NAMESPACE/sources/NAME` where none is given.
    event_source: Option<String>,
}

/// What of a plain message becomes the data of its event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum PubSubPayload {
    /// Its data.
    #[default]
    Data,
    /// All of it as JSON, with the members `ID`, `Data` (in base64), `Attributes`, `PublishTime`, `DeliveryAttempt` and
    /// `OrderingKey`. Then messages that carry a CloudEvent are taken for plain ones too.
    Message,
}

fn default_event_type() -> String {
    "dev.waypost.googlepubsub.message".to_owned()
}

/// What is wrong with the name of a subscription or topic, `projects/PROJECT/COLLECTION/NAME`.
pub(crate) fn name_problem(field: &str, name: &str, collection: &str) -> Option<FieldProblem> {
    let parts: Vec<_> = name.split('/').collect();
    let plain = |part: &str| {
        !part.is_empty()
            && part.len() <= 255
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+%:".contains(&byte))
    };
    let right = matches!(*parts.as_slice(), ["projects", project, of, name]
        if of == collection && plain(project) && plain(name));
    let message = format!("it is no name: write it as `projects/PROJECT/{collection}/NAME`");
    (!right).then(|| FieldProblem { path: field.to_owned(), message })
}

impl GooglePubSubConfig {
    fn connection(&self) -> GoogleConnection<'_> {
        GoogleConnection { endpoint: self.endpoint.as_deref(), auth: self.auth.as_ref() }
    }
}

impl SourceConfig for GooglePubSubConfig {
    const TYPE: &'static str = "googlePubSub";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        problems.extend(name_problem("subscription", &self.subscription, "subscriptions"));
        problems.extend(self.topic.as_ref().and_then(|topic| name_problem("topic", topic, "topics")));
        for (field, given) in
            [("eventType", Some(&self.event_type)), ("eventSource", self.event_source.as_ref())]
        {
            if given.is_some_and(String::is_empty) {
                let message = "it is empty: write it, or remove the field".to_owned();
                problems.push(FieldProblem { path: field.to_owned(), message });
            }
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Box<dyn Source>, SourceError> {
        let subscriber = self.connection().subscriber(&context, &self.subscription)?;
        Ok(Box::new(GooglePubSub { config: Arc::new(self.clone()), name: context.name, subscriber }))
    }
}

#[derive(Debug)]
struct GooglePubSub {
    config: Arc<GooglePubSubConfig>,
    name: ResourceName,
    subscriber: Subscriber,
}

#[async_trait]
impl Source for GooglePubSub {
    async fn check(&self) -> Result<(), SourceError> {
        Ok(reading::check(&self.subscriber, self.config.topic.as_deref()).await?)
    }

    async fn run(self: Box<Self>, emitter: Emitter, shutdown: CancellationToken) -> Result<(), SourceError> {
        let upstream = Upstream {
            subscriber: &self.subscriber,
            topic: self.config.topic.as_deref(),
            event_of: &|message| Some(message::event_of(&self.config, &self.name, &message)),
        };
        reading::run(&upstream, &emitter, &shutdown).await
    }
}

#[cfg(test)]
mod suite;
