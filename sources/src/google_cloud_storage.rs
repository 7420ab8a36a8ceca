//! `googleCloudStorage`: what happens to the objects of a bucket, by its notifications in a subscription of Pub/Sub.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use waypost_clients::google::{GoogleAuth, GoogleConnection, PubsubMessage, Subscriber};
use waypost_core::event::{AttributeValue, instant};
use waypost_core::manifest::{FieldProblem, ResourceName};
use waypost_core::sink::ComponentContext;
use waypost_core::source::{Emitter, Source, SourceConfig, SourceError};
use waypost_core::{Event, codes};

use crate::google_pub_sub::name_problem;
use crate::google_pub_sub::reading::{self, Upstream};

/// Emits an event for each thing that happens to an object of a bucket of Google Cloud Storage.
///
/// The bucket sends its notifications to a topic of Pub/Sub (`gcloud storage buckets notifications create gs://BUCKET
/// --topic=TOPIC`), and this source reads a subscription of that topic. Its types are
/// `com.google.cloud.storage.objectfinalize`, `.objectmetadataupdate`, `.objectdelete` and `.objectarchive`, and
/// `com.google.cloud.storage.notification` for any other. The `source` is `gs://BUCKET`, the `subject` the name of the
/// object, the `time` that of the change, and the data what the notification holds: with the payload format
/// `JSON_API_V1` the object's metadata. The id is made of bucket, object, generation and kind, with the metageneration for
/// an update of the metadata, so that a notification that comes twice is recognised. The attributes of the notification
/// are `gcsbucketid`, `gcsobjectid`, `gcsobjectgeneration` and so on.
///
/// A message that is no notification becomes an event of the type `com.google.cloud.storage.notification` with
/// `gcsfault`. Messages are acknowledged only after their event is in the broker's log.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoogleCloudStorageConfig {
    /// The subscription: `projects/PROJECT/subscriptions/NAME`.
    subscription: String,
    /// The topic of the notifications, as `projects/PROJECT/topics/NAME`: where it is given, the subscription is created
    /// where it is not there.
    topic: Option<String>,
    /// Who we are to Google. Without it the file that `GOOGLE_APPLICATION_CREDENTIALS` names, or the account that the
    /// machine runs as; nobody where there is an `endpoint`.
    auth: Option<GoogleAuth>,
    /// Another address of Pub/Sub than `https://pubsub.googleapis.com`, such as that of an emulator;
    /// `PUBSUB_EMULATOR_HOST` has the same effect.
    endpoint: Option<String>,
    /// Takes notifications of this bucket only. Others are acknowledged and left out.
    bucket: Option<String>,
    /// Takes these kinds only, such as `OBJECT_FINALIZE`; all where none is given.
    #[serde(default)]
    event_types: Vec<String>,
    /// Takes objects only whose names begin with this.
    object_name_prefix: Option<String>,
}

impl GoogleCloudStorageConfig {
    fn connection(&self) -> GoogleConnection<'_> {
        GoogleConnection { endpoint: self.endpoint.as_deref(), auth: self.auth.as_ref() }
    }

    /// Whether the settings leave a notification out.
    fn leaves_out(&self, notification: &Notification<'_>) -> bool {
        let other_bucket = self.bucket.as_deref().is_some_and(|bucket| bucket != notification.bucket);
        let other_kind =
            !self.event_types.is_empty() && !self.event_types.iter().any(|kind| kind == notification.kind);
        let prefix = self.object_name_prefix.as_deref();
        other_bucket || other_kind || prefix.is_some_and(|prefix| !notification.object.starts_with(prefix))
    }
}

impl SourceConfig for GoogleCloudStorageConfig {
    const TYPE: &'static str = "googleCloudStorage";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        problems.extend(name_problem("subscription", &self.subscription, "subscriptions"));
        problems.extend(self.topic.as_ref().and_then(|topic| name_problem("topic", topic, "topics")));
        for (index, kind) in self.event_types.iter().enumerate() {
            if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
                let message = "it is no kind of notification: write it as `OBJECT_FINALIZE`".to_owned();
                problems.push(FieldProblem { path: format!("eventTypes[{index}]"), message });
            }
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Box<dyn Source>, SourceError> {
        let subscriber = self.connection().subscriber(&context, &self.subscription)?;
        Ok(Box::new(GoogleCloudStorage { config: Arc::new(self.clone()), name: context.name, subscriber }))
    }
}

#[derive(Debug)]
struct GoogleCloudStorage {
    config: Arc<GoogleCloudStorageConfig>,
    name: ResourceName,
    subscriber: Subscriber,
}

#[async_trait]
impl Source for GoogleCloudStorage {
    async fn check(&self) -> Result<(), SourceError> {
        Ok(reading::check(&self.subscriber, self.config.topic.as_deref()).await?)
    }

    async fn run(self: Box<Self>, emitter: Emitter, shutdown: CancellationToken) -> Result<(), SourceError> {
        let upstream = Upstream {
            subscriber: &self.subscriber,
            topic: self.config.topic.as_deref(),
            event_of: &|message| event_of(&self.config, &self.name, &message),
        };
        reading::run(&upstream, &emitter, &shutdown).await
    }
}

/// What a message says that is a notification.
struct Notification<'m> {
    bucket: &'m str,
    object: &'m str,
    generation: &'m str,
    kind: &'m str,
}

impl<'m> Notification<'m> {
    fn of(message: &'m PubsubMessage) -> Option<Self> {
        let text = |name: &str| message.attributes.get(name).map(String::as_str);
        Some(Self {
            bucket: text("bucketId")?,
            object: text("objectId")?,
            generation: text("objectGeneration")?,
            kind: text("eventType")?,
        })
    }

    fn event_type(&self) -> &'static str {
        match self.kind {
            "OBJECT_FINALIZE" => "com.google.cloud.storage.objectfinalize",
            "OBJECT_METADATA_UPDATE" => "com.google.cloud.storage.objectmetadataupdate",
            "OBJECT_DELETE" => "com.google.cloud.storage.objectdelete",
            "OBJECT_ARCHIVE" => "com.google.cloud.storage.objectarchive",
            _ => "com.google.cloud.storage.notification",
        }
    }

    /// The same for the same change. Metadata change within a generation.
    fn id(&self, message: &PubsubMessage) -> String {
        #[derive(Deserialize)]
        struct Object {
            metageneration: Option<String>,
        }
        let base = format!("{}/{}/{}/{}", self.bucket, self.object, self.generation, self.kind);
        if self.kind != "OBJECT_METADATA_UPDATE" {
            return base;
        }
        let object = serde_json::from_slice::<Object>(&message.data).ok();
        let number = object.and_then(|object| object.metageneration);
        format!("{base}/{}", number.as_deref().unwrap_or(&message.message_id))
    }
}

/// The event that a message becomes; none where the settings leave it out.
fn event_of(
    config: &GoogleCloudStorageConfig,
    name: &ResourceName,
    message: &PubsubMessage,
) -> Option<Event> {
    let notification = Notification::of(message);
    if notification.as_ref().is_some_and(|notification| config.leaves_out(notification)) {
        return None;
    }
    let event = notification.and_then(|notification| told(&notification, message));
    Some(event.unwrap_or_else(|| unknown(name, message)))
}

fn told(notification: &Notification<'_>, message: &PubsubMessage) -> Option<Event> {
    let source = format!("gs://{}", notification.bucket);
    let mut builder = Event::builder(notification.id(message), source, notification.event_type())
        .subject(notification.object.to_owned());
    let time = message.attributes.get("eventTime").filter(|time| instant(time).is_ok());
    if let Some(time) = time {
        builder = builder.time(time.clone());
    }
    let mut attributes: Vec<_> = message.attributes.iter().collect();
    attributes.sort_unstable();
    for (name, value) in attributes {
        let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let value = if value.contains(char::is_control) {
            AttributeValue::binary(value.as_bytes())
        } else {
            AttributeValue::from(value.clone())
        };
        builder = builder.attribute(format!("gcs{}", letters.to_ascii_lowercase()), value);
    }
    with_data(builder, message).build().ok()
}

/// What is no notification, with the data as it is.
fn unknown(name: &ResourceName, message: &PubsubMessage) -> Event {
    let ResourceName { namespace, name } = name;
    let source = format!("/apis/waypost.dev/v1alpha1/namespaces/{namespace}/sources/{name}");
    let named = |id: String| {
        let builder = Event::builder(id, source.clone(), "com.google.cloud.storage.notification")
            .attribute("gcsfault", codes::NOT_AN_EVENT.id().to_owned());
        with_data(builder, message).build()
    };
    named(message.message_id.clone())
        .or_else(|_| named(uuid::Uuid::now_v7().to_string()))
        .expect("an id, the name of a resource and a constant type are an event")
}

fn with_data(
    builder: waypost_core::event::EventBuilder,
    message: &PubsubMessage,
) -> waypost_core::event::EventBuilder {
    if message.data.is_empty() {
        return builder;
    }
    let json = serde_json::from_slice::<serde::de::IgnoredAny>(&message.data).is_ok();
    let builder = if json { builder.data_content_type("application/json") } else { builder };
    builder.data(message.data.clone())
}

#[cfg(test)]
mod suite;
