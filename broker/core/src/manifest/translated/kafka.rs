//! Knative's KafkaSource and KafkaSink, TriggerMesh's KafkaSource and KafkaTarget.

use super::super::document::{Node, Value};
use super::super::reader::Reader;
use super::{Foreign, Settings, as_secret, list, literal, map, text};
use crate::codes;

/// Takes fields over under the names that ours have.
fn take(own: &Foreign<'_>, settings: &mut Settings, names: &[(&'static str, &str)]) {
    for (theirs, ours) in names {
        settings.extend(own.get(theirs).map(|node| ((*ours).to_owned(), node.clone())));
    }
}

/// Knative's consumer group is of Kafka alone, so that without a name it is made of the resource, as ours is.
pub(super) fn knative_source(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let mut settings = Settings::new();
    take(
        own,
        &mut settings,
        &[("bootstrapServers", "bootstrapServers"), ("topics", "topics"), ("consumerGroup", "consumerGroup")],
    );
    let offset = own.get("initialOffset").cloned();
    settings.push(("initialOffset".to_owned(), offset.unwrap_or_else(|| text("latest", own.mark))));
    let source = format!("/apis/v1/namespaces/{}/kafkasources/{}", own.namespace, own.name);
    settings.push(("eventSource".to_owned(), text(source, own.mark)));
    settings.push(("recordNaming".to_owned(), text("knative", own.mark)));
    own.map(reader, "net", |reader, own| {
        own.map(reader, "sasl", |reader, own| {
            if !own.is_true(reader, "enable") {
                own.known.borrow_mut().extend(["user", "password", "type"]);
                return None;
            }
            let mut secret = |name: &'static str| own.secret(reader, name);
            let mechanism = secret("type");
            let sasl =
                vec![("username".to_owned(), secret("user")?), ("password".to_owned(), secret("password")?)];
            settings.push(("sasl".to_owned(), map(with_mechanism(sasl, mechanism, own), own.mark)));
            for name in ["tokenProvider", "roleARN"] {
                own.cannot(reader, name, "only names and passwords are");
            }
            Some(())
        });
        own.map(reader, "tls", |reader, own| {
            if !own.is_true(reader, "enable") {
                own.known.borrow_mut().extend(["cert", "key", "caCert"]);
                return None;
            }
            let mut tls = Settings::new();
            for (theirs, ours) in [("caCert", "ca"), ("cert", "certificate"), ("key", "key")] {
                tls.extend(referred(own, reader, theirs).map(|secret| (ours.to_owned(), secret)));
            }
            settings.push(("tls".to_owned(), map(tls, own.mark)));
            Some(())
        });
        Some(())
    });
    own.without_effect(
        reader,
        "consumers",
        "each process reads with one consumer: start more processes to share the work",
    );
    own.without_effect(
        reader,
        "delivery",
        "the Trigger or destination that takes the events decides how they are delivered",
    );
    own.without_effect(
        reader,
        "ordering",
        "events of a key stay in order under `ordering: key` of a Trigger",
    );
    Some(settings)
}

/// A secret whose map may be empty, as `kubectl` and examples write one that is not used.
fn referred(own: &Foreign<'_>, reader: &mut Reader<'_>, name: &'static str) -> Option<Node> {
    match &own.get(name)?.value {
        Value::Map(fields) if fields.is_empty() => None,
        _ => own.secret(reader, name),
    }
}

fn with_mechanism(mut sasl: Settings, mechanism: Option<Node>, own: &Foreign<'_>) -> Settings {
    match mechanism {
        // The name of the mechanism may lie in a Secret too.
        Some(mechanism) => sasl.push(("mechanismFrom".to_owned(), mechanism)),
        None => sasl.push(("mechanism".to_owned(), text("PLAIN", own.mark))),
    }
    sasl
}

/// Topics are not created; contentMode is `structured` where nothing is said.
pub(super) fn knative_sink(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let topic = own.required(reader, "topic", "write the topic");
    let mut settings = Settings::new();
    take(own, &mut settings, &[("bootstrapServers", "bootstrapServers")]);
    let mode = own.get("contentMode").cloned();
    settings.push(("format".to_owned(), mode.unwrap_or_else(|| text("structured", own.mark))));
    own.map(reader, "auth", |reader, own| {
        own.map(reader, "secret", |reader, own| {
            own.map(reader, "ref", |reader, own| {
                let name = own.required(reader, "name", "write the name of the Secret")?;
                let reference = vec![("name".to_owned(), name.clone())];
                settings.push(("secretRef".to_owned(), map(reference, own.mark)));
                Some(())
            })
        })
    });
    topics_are_there(reader, own, ["numPartitions", "replicationFactor"]);
    settings.push(("topic".to_owned(), literal(topic?)));
    Some(settings)
}

fn topics_are_there(reader: &mut Reader<'_>, own: &Foreign<'_>, fields: [&'static str; 2]) {
    for name in fields {
        own.without_effect(reader, name, "topics are never created: create it with Kafka's own tools");
    }
}

/// Its adapter takes the key as the id and loses what it cannot send; here the id is the place of the record.
pub(super) fn triggermesh_source(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let mut settings = Settings::new();
    take(
        own,
        &mut settings,
        &[("bootstrapServers", "bootstrapServers"), ("groupID", "consumerGroup"), ("topics", "topics")],
    );
    if let Some(topic) = own.get("topic") {
        settings.retain(|(name, _)| name != "topics");
        settings.push(("topics".to_owned(), list(vec![topic.clone()], topic.mark)));
    }
    settings.push(("initialOffset".to_owned(), text("latest", own.mark)));
    settings.push(("eventType".to_owned(), text("io.triggermesh.kafka.event", own.mark)));
    settings.push(("recordNaming".to_owned(), text("triggerMesh", own.mark)));
    authentication(reader, own, &mut settings);
    Some(settings)
}

/// Its adapter takes the id of the event as the key.
pub(super) fn triggermesh_target(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let topic = own.required(reader, "topic", "write the topic");
    let mut settings = Settings::new();
    take(own, &mut settings, &[("bootstrapServers", "bootstrapServers")]);
    let format = if own.is_true(reader, "discardCloudEventContext") { "data" } else { "structured" };
    settings.push(("format".to_owned(), text(format, own.mark)));
    settings.push(("key".to_owned(), text("${id}", own.mark)));
    authentication(reader, own, &mut settings);
    topics_are_there(reader, own, ["topicPartitions", "topicReplicationFactor"]);
    settings.push(("topic".to_owned(), literal(topic?)));
    Some(settings)
}

/// `auth` of both kinds of TriggerMesh.
fn authentication(reader: &mut Reader<'_>, own: &Foreign<'_>, settings: &mut Settings) {
    own.map(reader, "auth", |reader, own| {
        own.cannot(reader, "kerberos", "use SCRAM-SHA-512 or PLAIN over TLS, or certificates");
        let mechanism = own.get("securityMechanism");
        if let Some(Value::String(name)) = mechanism.map(|node| &node.value)
            && name == "GSSAPI"
        {
            own.cannot(
                reader,
                "securityMechanism",
                "Kerberos is not spoken: use SCRAM-SHA-512 or PLAIN over TLS",
            );
            return None;
        }
        let (user, password) = (own.get("username"), own.secret(reader, "password"));
        if own.is_true(reader, "saslEnable") {
            let mut sasl = Settings::new();
            let named = mechanism.cloned();
            sasl.push(("mechanism".to_owned(), named.unwrap_or_else(|| text("PLAIN", own.mark))));
            sasl.extend(user.map(|user| ("username".to_owned(), as_secret(user))));
            sasl.extend(password.map(|password| ("password".to_owned(), password)));
            settings.push(("sasl".to_owned(), map(sasl, own.mark)));
        }
        let mut tls = Settings::new();
        let mut skips = None;
        own.map(reader, "tls", |reader, own| {
            for (theirs, ours) in [("ca", "ca"), ("clientCert", "certificate"), ("clientKey", "key")] {
                tls.extend(referred(own, reader, theirs).map(|secret| (ours.to_owned(), secret)));
            }
            if own.is_true(reader, "skipVerify") {
                skips =
                    own.get("skipVerify").map(|node| (node.mark, own.path.field("skipVerify").to_string()));
            }
            Some(())
        });
        if own.is_true(reader, "tlsEnable") {
            if let Some((mark, path)) = skips {
                let message = format!("`{path}` cannot be honoured by this version");
                let help = "give the authority that signed the certificates of the brokers as `ca`";
                let tls = own.path.field("tls");
                reader.error(codes::FIELD_NOT_SUPPORTED, mark, &tls.field("skipVerify"), message, help);
            }
            settings.push(("tls".to_owned(), map(tls, own.mark)));
        }
        Some(())
    });
}
