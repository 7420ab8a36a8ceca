//! TriggerMesh's GoogleCloudPubSubSource and GoogleCloudStorageSource.
//!
//! Their controllers make subscriptions and notifications; ours makes the subscription of a topic that is there.

use super::super::document::{Node, Value};
use super::super::reader::Reader;
use super::{Foreign, Settings, map, text};

/// Every message is wrapped, and all of it is the data, as the adapter has it.
pub(super) fn pub_sub_source(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let help = "write the topic as `projects/PROJECT/topics/NAME`";
    let topic = own.required(reader, "topic", help)?;
    let mut settings = credentials(reader, own);
    settings.push(("topic".to_owned(), topic.clone()));
    settings.push(("subscription".to_owned(), subscription(own, topic, own.get("subscriptionID"))));
    settings.push(("payload".to_owned(), text("message", own.mark)));
    settings.push(("eventType".to_owned(), text("com.google.cloud.pubsub.message", own.mark)));
    settings.push(("eventSource".to_owned(), topic.clone()));
    Some(settings)
}

/// The topic must get the notifications of the bucket already.
pub(super) fn storage_source(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let bucket = own.required(reader, "bucket", "name the bucket");
    let help = "write `topic` below it: the topic that gets the notifications of the bucket";
    own.required(reader, "pubsub", help)?;
    let topic = own.map(reader, "pubsub", |reader, own| {
        let topic = own.get("topic").cloned();
        if topic.is_none() {
            let help = "name the `topic` that gets the notifications of the bucket: none is made";
            match own.get("project") {
                Some(_) => own.cannot(reader, "project", help),
                None => reader.missing(own.mark, &own.path.field("topic"), help),
            }
        } else {
            own.without_effect(reader, "project", "the topic names its project");
        }
        topic
    })?;
    let mut settings = credentials(reader, own);
    settings.push(("topic".to_owned(), topic.clone()));
    settings.push(("subscription".to_owned(), subscription(own, &topic, None)));
    settings.push(("bucket".to_owned(), bucket?.clone()));
    settings.extend(own.get("eventTypes").map(|kinds| ("eventTypes".to_owned(), kinds.clone())));
    settings
        .extend(own.get("objectNamePrefix").map(|prefix| ("objectNamePrefix".to_owned(), prefix.clone())));
    Some(settings)
}

/// The subscription with this id, or one of our own, in the project of the topic.
fn subscription(own: &Foreign<'_>, topic: &Node, id: Option<&Node>) -> Node {
    let project = match &topic.value {
        Value::String(topic) => topic.split('/').nth(1).unwrap_or_default(),
        _ => "",
    };
    let named = id.and_then(|id| match &id.value {
        Value::String(text) => Some((text.clone(), id.mark)),
        _ => None,
    });
    let (id, mark) = named.unwrap_or_else(|| (format!("waypost-{}-{}", own.namespace, own.name), own.mark));
    text(format!("projects/{project}/subscriptions/{id}"), mark)
}

/// The key of the service account: `serviceAccountKey`, or below `auth` in later versions.
fn credentials(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Settings {
    let before = own.get("serviceAccountKey").map(|_| own.secret(reader, "serviceAccountKey"));
    let key = before.flatten().or_else(|| {
        own.map(reader, "auth", |reader, own| {
            for name in ["gcpServiceAccount", "kubernetesServiceAccount"] {
                let help = "without a key it is the account that the machine runs as";
                own.without_effect(reader, name, help);
            }
            own.get("serviceAccountKey")?;
            own.secret(reader, "serviceAccountKey")
        })
    });
    let auth = key.map(|key| {
        let mark = key.mark;
        ("auth".to_owned(), map(vec![("serviceAccountKey".to_owned(), key)], mark))
    });
    auth.into_iter().collect()
}
