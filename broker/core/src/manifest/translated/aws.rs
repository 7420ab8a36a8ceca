//! TriggerMesh's AWSSQSSource and AWSS3Target.

use std::time::Duration;

use super::super::document::{Node, Value};
use super::super::reader::Reader;
use super::{Foreign, Settings, list, map, text};
use crate::codes;

/// The longest that SQS keeps a message from others, in seconds.
const MOST_VISIBILITY: u64 = 43_200;

/// The type of events whose data alone the adapter of AWSS3Target writes.
const PUT: &str = "io.triggermesh.awss3.object.put";

/// The data is the whole message, as the SDK of the adapter has it; what `messageProcessor` names is taken out of the body.
pub(super) fn sqs_source(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let arn = own.required(reader, "arn", "write the ARN of the queue");
    let mut settings = vec![("data".to_owned(), text("message", own.mark))];
    if let Some(node) = own.get("messageProcessor") {
        let path = own.path.field("messageProcessor");
        let wrapping = match reader.text(node, &path)? {
            "default" => None,
            "s3" => Some("s3"),
            "eventbridge" => Some("eventBridge"),
            other => {
                let message = format!("`{path}` cannot be `{other}`");
                let help = "write `default`, `s3` or `eventbridge`";
                reader.error(codes::FIELD_VALUE, node.mark, &path, message, help);
                return None;
            }
        };
        let unwrap = wrapping.map(|name| list(vec![text(name, node.mark)], node.mark));
        settings.extend(unwrap.map(|unwrap| ("unwrap".to_owned(), unwrap)));
    }
    let visibility = own.map(reader, "receiveOptions", |reader, own| {
        let node = own.get("visibilityTimeout")?;
        let path = own.path.field("visibilityTimeout");
        let seconds = go_duration(reader.text(node, &path)?).map(|duration| duration.as_secs());
        let Some(seconds) = seconds.filter(|seconds| (1..=MOST_VISIBILITY).contains(seconds)) else {
            let message = format!("`{path}` is no duration from 1s to 12h");
            let help = "write it as in `90s` or `1h30m`";
            reader.error(codes::FIELD_VALUE, node.mark, &path, message, help);
            return None;
        };
        Some(Node { value: Value::Number(seconds.into()), mark: node.mark })
    });
    settings.extend(visibility.map(|seconds| ("visibilityTimeoutSeconds".to_owned(), seconds)));
    let endpoint = own.map(reader, "endpoint", |_, own| own.get("url").cloned());
    settings.extend(endpoint.map(|url| ("endpoint".to_owned(), url)));
    settings.extend(identity(reader, own));
    settings.push(("queue".to_owned(), arn?.clone()));
    Some(settings)
}

/// The key is the subject. An event without one gets a key of its own: by the adapter's, of type, source and time, two
/// events of one instant overwrite each other.
pub(super) fn s3_target(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let data_alone = own.is_true(reader, "discardCloudEventContext");
    let word = |name: &str, value: &str| (name.to_owned(), text(value, own.mark));
    let mut settings = vec![
        word("key", "${subject}"),
        word("withoutKey", "defaultKey"),
        word("content", if data_alone { "data" } else { "structured" }),
        ("dataTypes".to_owned(), list(vec![text(PUT, own.mark)], own.mark)),
    ];
    settings.extend(identity(reader, own));
    let node = own.required(reader, "arn", "write the ARN of the bucket")?;
    let path = own.path.field("arn");
    let arn = reader.text(node, &path)?;
    let Some(bucket) = bucket_of(arn) else {
        let message = format!("`{path}` is no ARN of a bucket: `{arn}`");
        let help = "write it as in `arn:aws:s3:::my-bucket`";
        reader.error(codes::FIELD_VALUE, node.mark, &path, message, help);
        return None;
    };
    settings.push(("bucket".to_owned(), text(bucket, node.mark)));
    Some(settings)
}

/// The bucket of `arn:aws:s3:::BUCKET`; what follows a slash says nothing.
fn bucket_of(arn: &str) -> Option<&str> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let ["arn", _, "s3", _, _, resource] = parts.as_slice() else { return None };
    resource.split('/').next().filter(|bucket| !bucket.is_empty())
}

/// Keys, and the role to assume with them. A role of a service account is given to the process, not named here.
fn identity(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Settings {
    let settings = own.map(reader, "auth", |reader, own| {
        for name in ["iamRole", "iam"] {
            let help = "give the process that role, by the service account that it runs as: it is then used";
            own.without_effect(reader, name, help);
        }
        own.map(reader, "credentials", |reader, own| {
            let mut keys = Settings::new();
            for (theirs, ours) in [
                ("accessKeyID", "accessKeyId"),
                ("secretAccessKey", "secretAccessKey"),
                ("sessionToken", "sessionToken"),
            ] {
                // A secret that names nothing is none, as in the adapter.
                let says = |node: &&Node| !matches!(&node.value, Value::Map(map) if map.is_empty());
                if let Some(node) = own.get(theirs).filter(says) {
                    keys.extend(own.secret_of(reader, node, theirs).map(|secret| (ours.to_owned(), secret)));
                }
            }
            let mut settings = Settings::new();
            if !keys.is_empty() {
                settings.push(("credentials".to_owned(), map(keys, own.mark)));
            }
            if let Some(role) = own.get("assumeIamRole") {
                let arn = vec![("arn".to_owned(), role.clone())];
                settings.push(("assumeRole".to_owned(), map(arn, role.mark)));
            }
            Some(settings)
        })
    });
    settings.unwrap_or_default()
}

/// A duration as Go writes it, in hours, minutes and seconds: `90s`, `1h30m`. None where it is none, or finer than that.
fn go_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let of_unit = match unit {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(of_unit)?)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}
