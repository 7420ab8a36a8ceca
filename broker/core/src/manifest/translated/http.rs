//! TriggerMesh's HTTPTarget and CloudEventsTarget.

use super::super::document::{Node, Value};
use super::super::reader::Reader;
use super::{Foreign, Settings, as_secret, literal, map, text, tls};

/// The type of events that describe a request.
pub(super) const HTTP_REQUEST: &str = "io.triggermesh.http.request";

/// The data is sent alone, and the response comes back as an event.
pub(super) fn http_target(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let url = own.required(reader, "endpoint", "write the URL");
    let method = own.required(reader, "method", "write the method, such as `POST`");
    let response = own.required(reader, "response", "write the `eventType` of replies");
    let answer = response.and_then(|_| {
        own.map(reader, "response", |reader, own| {
            let source = own.said(reader, "eventSource");
            let event_type = own.required(reader, "eventType", "write the type of replies")?;
            let mut answer = vec![("type".to_owned(), event_type.clone())];
            answer.extend(source.map(|source| ("source".to_owned(), source.clone())));
            Some(map(answer, own.mark))
        })
    });
    let mut settings = vec![
        ("format".to_owned(), text("data", own.mark)),
        ("requestEvents".to_owned(), text(HTTP_REQUEST, own.mark)),
    ];
    if let Some(node) = own.get("headers") {
        let path = own.path.field("headers");
        let headers = reader.map(node, &path)?;
        // They stand for themselves, as templates would not.
        let headers = headers.iter().filter_map(|(name, node)| {
            reader.string(node, &path.field(name))?;
            Some((name.to_owned(), literal(node)))
        });
        settings.push(("headers".to_owned(), map(headers.collect(), node.mark)));
    }
    settings.extend(tls(reader, own, "caCertificate"));
    settings.extend(http_auth(reader, own));
    settings.push(("url".to_owned(), url?.clone()));
    settings.push(("method".to_owned(), method?.clone()));
    settings.push(("replies".to_owned(), map(vec![("answer".to_owned(), answer?)], own.mark)));
    Some(settings)
}

/// A client of an authorisation server wins over a user, as in the adapter.
fn http_auth(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Settings {
    let empty = || as_secret(&text("", own.mark));
    let client = own.said(reader, "oauthClientID");
    let client_secret = secret_that_names(reader, own, "oauthClientSecret");
    let (token_url, scopes) = (own.get("oauthTokenURL"), own.get("oauthScopes"));
    let user = own.said(reader, "basicAuthUsername");
    let password = secret_that_names(reader, own, "basicAuthPassword");
    let auth = match (client, user, password) {
        (Some(client), _, _) => {
            let mut settings = vec![
                ("clientId".to_owned(), as_secret(client)),
                ("clientSecret".to_owned(), client_secret.unwrap_or_else(empty)),
                ("tokenUrl".to_owned(), token_url.cloned().unwrap_or_else(|| text("", client.mark))),
            ];
            settings.extend(scopes.map(|scopes| ("scopes".to_owned(), scopes.clone())));
            ("oauth2".to_owned(), map(settings, client.mark))
        }
        (None, None, None) => return Settings::new(),
        (None, user, password) => {
            let basic = vec![
                ("username".to_owned(), user.map_or_else(empty, as_secret)),
                ("password".to_owned(), password.unwrap_or_else(empty)),
            ];
            ("basic".to_owned(), map(basic, own.mark))
        }
    };
    vec![("auth".to_owned(), map(vec![auth], own.mark))]
}

/// A secret that names nothing is none, as in the adapter.
fn secret_that_names(reader: &mut Reader<'_>, own: &Foreign<'_>, name: &'static str) -> Option<Node> {
    let node = own.get(name)?;
    let says = !matches!(&node.value, Value::Map(map) if map.is_empty());
    says.then(|| own.secret_of(reader, node, name)).flatten()
}

/// Events are passed on as they are; the path stands for itself, as a template would not.
pub(super) fn cloud_events_target(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let url = own.required(reader, "endpoint", "write the URL");
    let mut settings = Settings::new();
    settings.extend(own.said(reader, "path").map(|path| ("path".to_owned(), literal(path))));
    let auth = own.map(reader, "credentials", |reader, own| {
        own.map(reader, "basicAuth", |reader, own| {
            let user = own.said(reader, "username");
            own.required(reader, "password", "write the password");
            let password = own.secret(reader, "password")?;
            let basic = vec![("username".to_owned(), as_secret(user?)), ("password".to_owned(), password)];
            Some(map(vec![("basic".to_owned(), map(basic, own.mark))], own.mark))
        })
    });
    settings.extend(auth.map(|auth| ("auth".to_owned(), auth)));
    settings.push(("url".to_owned(), url?.clone()));
    Some(settings)
}
