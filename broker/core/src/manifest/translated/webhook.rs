//! TriggerMesh's WebhookSource and CloudEventsSource.

use super::super::document::Value;
use super::super::reader::Reader;
use super::{Foreign, Settings, as_secret, list, literal, map, text};

/// Every method, at every path: the adapter looks at neither.
const METHODS: [&str; 5] = ["POST", "PUT", "PATCH", "GET", "DELETE"];

/// The adapter answers 204; a missing or wrong password is 401 here, not 400.
pub(super) fn webhook_source(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let event_type = own.required(reader, "eventType", "write the type of the events");
    let source = match own.get("eventSource") {
        Some(node) => literal(node),
        None => text(format!("{}.{}", own.namespace, own.name), own.mark),
    };
    let methods = METHODS.iter().map(|method| text(*method, own.mark)).collect();
    let status = serde_json::Number::from(204);
    let mut settings = vec![
        ("eventSource".to_owned(), source),
        ("methods".to_owned(), list(methods, own.mark)),
        ("answerStatus".to_owned(), super::Node { value: Value::Number(status), mark: own.mark }),
    ];
    if let Some(origin) = own.get("corsAllowOrigin") {
        settings.push(("allowOrigin".to_owned(), origin.clone()));
    }
    let (user, password) = (own.get("basicAuthUsername"), own.secret(reader, "basicAuthPassword"));
    match (user, password) {
        (Some(user), Some(password)) => {
            let user = vec![("username".to_owned(), as_secret(user)), ("password".to_owned(), password)];
            let users = list(vec![map(user, own.mark)], own.mark);
            settings.push(("verify".to_owned(), map(vec![("basic".to_owned(), users)], own.mark)));
        }
        // The adapter asks for both or for nothing; to ask for nothing where a password was meant opens a door.
        (Some(_), None) => {
            reader.missing(own.mark, &own.path.field("basicAuthPassword"), "write the password too");
        }
        (None, Some(_)) => {
            reader.missing(own.mark, &own.path.field("basicAuthUsername"), "write the name too");
        }
        (None, None) => {}
    }
    own.map(reader, "eventExtensionAttributes", |_, own| {
        settings.extend(own.get("from").map(|from| ("requestExtensions".to_owned(), from.clone())));
        Some(())
    });
    overrides(reader, own, Some(&mut settings));
    settings.push(("eventType".to_owned(), literal(event_type?)));
    Some(settings)
}

/// Its events are taken as they are.
pub(super) fn cloud_events_source(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let mut settings = vec![("body".to_owned(), text("cloudEvents", own.mark))];
    settings.extend(own.get("path").map(|path| ("path".to_owned(), path.clone())));
    let credentials = own.map(reader, "credentials", |reader, own| {
        let node = own.get("basicAuths")?;
        let path = own.path.field("basicAuths");
        let mut users = Vec::new();
        for (index, item) in reader.list(node, &path)?.iter().enumerate() {
            let path = path.item(index);
            let user = reader.map(item, &path)?;
            let Some(name) = user.get("username") else {
                reader.missing(item.mark, &path.field("username"), "write the name");
                continue;
            };
            let Some(password) = user.get("password") else {
                reader.missing(item.mark, &path.field("password"), "write the password");
                continue;
            };
            users.push(map(
                vec![
                    ("username".to_owned(), as_secret(name)),
                    ("password".to_owned(), own.secret_of(reader, password, "basicAuths")?),
                ],
                item.mark,
            ));
        }
        Some((!users.is_empty()).then(|| list(users, node.mark)))
    });
    if let Some(users) = credentials.flatten() {
        settings.push(("verify".to_owned(), map(vec![("basic".to_owned(), users)], own.mark)));
    }
    own.map(reader, "rateLimiter", |_, own| {
        let most = own.get("requestsPerSecond")?;
        settings.push(("requestsPerSecond".to_owned(), most.clone()));
        Some(())
    });
    overrides(reader, own, None);
    Some(settings)
}

/// Attributes that every event of a source gets, where its native type can add some.
fn overrides(reader: &mut Reader<'_>, own: &Foreign<'_>, settings: Option<&mut Settings>) {
    let Some(settings) = settings else {
        let help = "add the attributes by a Transformation of type `fields`";
        own.without_effect(reader, "ceOverrides", help);
        return;
    };
    own.map(reader, "ceOverrides", |reader, own| {
        let node = own.get("extensions")?;
        let extensions = reader.map(node, &own.path.field("extensions"))?;
        let extensions = extensions.iter().map(|(name, value)| (name.to_owned(), literal(value))).collect();
        settings.push(("eventExtensions".to_owned(), map(extensions, node.mark)));
        Some(())
    });
}
