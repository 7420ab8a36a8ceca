//! TriggerMesh's ElasticsearchTarget.

use super::super::reader::Reader;
use super::{Foreign, Settings, as_secret, literal, map, text, tls};

/// The index stands for itself, as a template would not.
pub(super) fn target(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let index = own.required(reader, "indexName", "name the index");
    let data_alone = own.is_true(reader, "discardCloudEventContext");
    let connection = own.required(reader, "connection", "write the addresses of the cluster");
    let connection = connection.and_then(|_| own.map(reader, "connection", connection_settings));
    let document = if data_alone { "data" } else { "event" };
    let mut settings = connection?;
    settings.push(("index".to_owned(), literal(index?)));
    settings.push(("document".to_owned(), text(document, own.mark)));
    Some(settings)
}

fn connection_settings(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Option<Settings> {
    let urls = own.required(reader, "addresses", "write the URL of each node");
    let mut settings = tls(reader, own, "caCert");
    settings.extend(auth(reader, own));
    settings.push(("urls".to_owned(), urls?.clone()));
    Some(settings)
}

/// A key wins over a user, as in the adapter.
fn auth(reader: &mut Reader<'_>, own: &Foreign<'_>) -> Settings {
    let key = own.secret(reader, "apiKey");
    let user = own.said(reader, "username");
    let password = own.secret(reader, "password");
    let auth = match (key, user) {
        (Some(key), _) => vec![("apiKey".to_owned(), key)],
        (None, Some(user)) => {
            let password = password.unwrap_or_else(|| as_secret(&text("", user.mark)));
            let basic = vec![("username".to_owned(), as_secret(user)), ("password".to_owned(), password)];
            vec![("basic".to_owned(), map(basic, user.mark))]
        }
        (None, None) => return Settings::new(),
    };
    vec![("auth".to_owned(), map(auth, own.mark))]
}
