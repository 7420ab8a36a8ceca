//! TriggerMesh's AWSS3Target.
//!
//! An event without a subject gets a key of its own: by type, source and time, as in the adapter, two events of one instant
//! overwrite each other.

use super::super::super::Mark;
use super::super::super::document::{Map, Node, Value};
use super::super::super::reader::{Path, Reader};
use super::{Settings, is_set, map_of, plain, secret, tell_of_others, text};
use crate::codes;

/// The type of events whose data alone the adapter writes.
const PUT: &str = "io.triggermesh.awss3.object.put";

/// The settings of the native sink `s3`.
pub(super) fn s3(reader: &mut Reader<'_>, own: (&Map, Mark), path: &Path<'_>) -> Option<Settings> {
    let (map, mark) = own;
    let word = |name: &str, text: &str| plain(name, Value::String(text.to_owned()), mark);
    let discard = is_set(reader, map, path, "discardCloudEventContext");
    let put = Node { value: Value::String(PUT.to_owned()), mark };
    let mut settings = vec![
        word("key", "${subject}"),
        word("withoutKey", "defaultKey"),
        word("content", if discard.is_some() { "data" } else { "structured" }),
        plain("dataTypes", Value::List(vec![put]), mark),
    ];
    let identity = reader.optional(map, path, "auth", |reader, node, path| {
        let auth = reader.map(node, path)?;
        Some(identity(reader, auth, path))
    });
    settings.extend(identity.into_iter().flatten());
    tell_of_others(reader, map, path, &["arn", "auth", "discardCloudEventContext"]);
    let bucket = reader.required(own, path, "arn", "write the ARN of the bucket", |reader, node, path| {
        let arn = reader.text(node, path)?;
        let bucket = bucket_of(arn);
        if bucket.is_none() {
            let message = format!("`{path}` is no ARN of a bucket: `{arn}`");
            let help = "write it as in `arn:aws:s3:::my-bucket`";
            reader.error(codes::FIELD_VALUE, node.mark, path, message, help);
        }
        Some(plain("bucket", Value::String(bucket?.to_owned()), node.mark))
    });
    settings.push(bucket?);
    Some(settings)
}

/// The bucket of `arn:aws:s3:::BUCKET`; what follows a slash says nothing.
fn bucket_of(arn: &str) -> Option<&str> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let ["arn", _, "s3", _, _, resource] = parts.as_slice() else { return None };
    resource.split('/').next().filter(|bucket| !bucket.is_empty())
}

/// Keys, and the role to assume with them. A role of a service account is given to the process, not named here.
fn identity(reader: &mut Reader<'_>, auth: &Map, path: &Path<'_>) -> Settings {
    for name in ["iamRole", "iam"] {
        if let Some(node) = auth.get(name).filter(|node| node.value != Value::Null) {
            let path = path.field(name);
            let message = format!("`{path}` has no effect here");
            let help = "give the process that role, by the service account that it runs as: it is then used";
            reader.warning(codes::FIELD_NOT_SUPPORTED, node.mark, &path, message, help);
        }
    }
    tell_of_others(reader, auth, path, &["credentials", "iamRole", "iam"]);
    let settings = reader.optional(auth, path, "credentials", |reader, node, path| {
        let credentials = reader.map(node, path)?;
        let mut keys = Settings::new();
        for (theirs, ours) in [
            ("accessKeyID", "accessKeyId"),
            ("secretAccessKey", "secretAccessKey"),
            ("sessionToken", "sessionToken"),
        ] {
            // A secret that names nothing is none, as in the adapter.
            let says = |node: &&Node| !matches!(&node.value, Value::Map(map) if map.is_empty());
            let given = credentials.get(theirs).filter(|node| node.value != Value::Null).filter(says);
            if let Some(node) = given {
                keys.extend(secret(reader, node, &path.field(theirs), ours));
            }
        }
        let mut settings = Settings::new();
        if !keys.is_empty() {
            settings.push(map_of("credentials", keys, node.mark));
        }
        if let Some((role, at)) = text(reader, credentials, path, "assumeIamRole") {
            let arn = plain("arn", Value::String(role.to_owned()), at);
            settings.push(map_of("assumeRole", vec![arn], at));
        }
        let known = ["accessKeyID", "secretAccessKey", "sessionToken", "assumeIamRole"];
        tell_of_others(reader, credentials, path, &known);
        Some(settings)
    });
    settings.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::super::super::{ManifestFile, Severity, Spec};
    use super::super::TARGETS;

    fn read(spec: &Json) -> ManifestFile {
        let manifest = json!({
            "apiVersion": TARGETS, "kind": "AWSS3Target", "metadata": {"name": "t"}, "spec": spec,
        });
        ManifestFile::read("a.yaml", manifest.to_string().as_bytes())
    }

    fn told(spec: &Json, severity: Severity) -> Vec<String> {
        let file = read(spec);
        let problems = file.resources[0].problems.iter();
        problems.filter(|problem| problem.severity == severity).map(|problem| problem.path.clone()).collect()
    }

    #[test]
    fn a_target_becomes_ours() {
        for (discard, content) in
            [(json!(true), "data"), (json!(false), "structured"), (json!(null), "structured")]
        {
            let auth = json!({"credentials": {
                "accessKeyID": {"valueFromSecret": {"name": "aws", "key": "id"}},
                "secretAccessKey": {"value": "s"}, "sessionToken": {},
                "assumeIamRole": "arn:aws:iam::1:role/r",
            }});
            let spec =
                json!({"arn": "arn:aws:s3:::my-bucket/x", "discardCloudEventContext": discard, "auth": auth});
            let file = read(&spec);
            let Some(Spec::Sink(component)) = &file.resources[0].spec else { panic!("{file:?}") };
            let [(name, settings)] = component.candidates.as_slice() else { panic!("{component:?}") };
            let expected = json!({
                "key": "${subject}", "withoutKey": "defaultKey", "content": content,
                "dataTypes": ["io.triggermesh.awss3.object.put"], "bucket": "my-bucket",
                "credentials": {
                    "accessKeyId": {"secretKeyRef": {"name": "aws", "key": "id"}},
                    "secretAccessKey": {"value": "s"},
                },
                "assumeRole": {"arn": "arn:aws:iam::1:role/r"},
            });
            assert_eq!((&**name, settings.to_json()), ("s3", expected));
            assert_eq!(file.resources[0].problems, []);
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_told_by_name() {
        for arn in [json!("my-bucket"), json!("arn:aws:sqs:eu-west-1:1:q"), json!(null)] {
            assert_eq!(told(&json!({"arn": arn}), Severity::Error), ["spec.arn"]);
        }
        let spec = json!({
            "arn": "arn:aws:s3:::b", "adapterOverrides": {"public": true}, "auth": {"iam": {"roleArn": "r"}},
        });
        assert_eq!(told(&spec, Severity::Warning), ["spec.auth.iam", "spec.adapterOverrides"]);
    }
}
