//! TriggerMesh's targets as native Sinks: a pure function for each kind. The events that their adapters answer with are not
//! sent: what became of an event is told by the trigger.

use super::super::Component;
use super::super::document::{Map, Node, Value};
use super::super::reader::{Path, Reader};
use super::super::{Mark, kind::Class};
use super::{Settings, plain};
use crate::codes;

/// The group and version of TriggerMesh's targets.
pub(in crate::manifest) const TARGETS: &str = "targets.triggermesh.io/v1alpha1";

/// The kinds that are read.
pub(in crate::manifest) const READ: [(&str, &str, Class); 3] = [
    (TARGETS, "CloudEventsTarget", Class::Target),
    (TARGETS, "ElasticsearchTarget", Class::Target),
    (TARGETS, "HTTPTarget", Class::Target),
];

/// Whether the kind becomes a native Sink.
pub fn is_target(api_version: &str, kind: &str) -> bool {
    READ.iter().any(|(known, name, _)| *known == api_version && *name == kind)
}

/// Reads the spec of one of the kinds.
pub(in crate::manifest) fn target(
    reader: &mut Reader<'_>,
    own: (&Map, Mark),
    path: &Path<'_>,
    kind: &str,
) -> Option<Component> {
    let (type_name, settings) = match kind {
        "CloudEventsTarget" => ("http", cloud_events(reader, own, path)?),
        "HTTPTarget" => ("http", http(reader, own, path)?),
        _ => ("elasticsearch", elasticsearch(reader, own, path)?),
    };
    let node = Node { value: Value::Map(Map::of(settings)), mark: own.1 };
    Some(Component { candidates: vec![(type_name.to_owned(), node)], mark: own.1, flat: true })
}

/// Nothing is dropped in silence: a field that has no counterpart is named.
fn tell_of_others(reader: &mut Reader<'_>, map: &Map, path: &Path<'_>, known: &[&str]) {
    for (name, node) in map.iter().filter(|(name, _)| !known.contains(name)) {
        let path = path.field(name);
        let message = format!("`{path}` has no effect here");
        let help =
            "leave it out to silence this; no result is sent, and the trigger tells what became of an event";
        reader.warning(codes::FIELD_NOT_SUPPORTED, node.mark, &path, message, help);
    }
}

/// A map of settings as one setting.
fn map_of(name: &str, settings: Settings, mark: Mark) -> (String, Node) {
    plain(name, Value::Map(Map::of(settings)), mark)
}

/// Text that is written out where a native setting takes a secret.
fn as_secret(name: &str, text: &str, mark: Mark) -> (String, Node) {
    map_of(name, vec![plain("value", Value::String(text.to_owned()), mark)], mark)
}

/// A secret in one of TriggerMesh's spellings: `secretKeyRef`, or `value` and `valueFromSecret`.
fn secret(reader: &mut Reader<'_>, node: &Node, path: &Path<'_>, name: &str) -> Option<(String, Node)> {
    let map = reader.map(node, path)?;
    let found = ["secretKeyRef", "valueFromSecret", "value"]
        .into_iter()
        .find_map(|form| map.get(form).filter(|node| node.value != Value::Null).map(|node| (form, node)));
    let Some((form, value)) = found else {
        let message = format!("`{path}` names no secret");
        let help = "write `secretKeyRef` with `name` and `key`";
        reader.error(codes::FIELD_MISSING, node.mark, path, message, help);
        return None;
    };
    let form = if form == "value" { form } else { "secretKeyRef" };
    Some(map_of(name, vec![(form.to_owned(), value.clone())], node.mark))
}

/// The text of an optional field, and its place.
fn text<'n>(reader: &mut Reader<'_>, map: &'n Map, path: &Path<'_>, name: &str) -> Option<(&'n str, Mark)> {
    let node = map.get(name).filter(|node| node.value != Value::Null)?;
    reader.string(node, &path.field(name)).filter(|text| !text.is_empty()).map(|text| (text, node.mark))
}

/// Whether an optional field is true.
fn is_set(reader: &mut Reader<'_>, map: &Map, path: &Path<'_>, name: &str) -> Option<Mark> {
    let node = map.get(name).filter(|node| node.value != Value::Null)?;
    reader.boolean(node, &path.field(name)).filter(|set| *set).map(|_| node.mark)
}

/// TLS from the fields for an authority and for none. The authority wins, as in the adapters.
fn tls(ca: Option<(&str, Mark)>, skip_verify: Option<Mark>) -> Option<(String, Node)> {
    match (ca, skip_verify) {
        (Some((pem, mark)), _) => Some(map_of("tls", vec![as_secret("ca", pem, mark)], mark)),
        (None, Some(mark)) => {
            Some(map_of("tls", vec![plain("insecureSkipVerify", Value::Bool(true), mark)], mark))
        }
        (None, None) => None,
    }
}

fn elasticsearch(reader: &mut Reader<'_>, own: (&Map, Mark), path: &Path<'_>) -> Option<Settings> {
    let help = "write the addresses of the cluster";
    let connection = reader.required(own, path, "connection", help, |reader, node, path| {
        let map = reader.map(node, path)?;
        connection(reader, (map, node.mark), path)
    });
    let index = reader.required(own, path, "indexName", "name the index", |reader, node, path| {
        // It stands for itself, as a template would not.
        let name = reader.text(node, path)?.replace("${", "$${");
        Some(plain("index", Value::String(name), node.mark))
    });
    let discard = is_set(reader, own.0, path, "discardCloudEventContext");
    let document = if discard.is_some() { "data" } else { "event" };
    tell_of_others(reader, own.0, path, &["connection", "indexName", "discardCloudEventContext"]);
    let mut settings = connection?;
    settings.push(index?);
    settings.push(plain("document", Value::String(document.to_owned()), discard.unwrap_or(own.1)));
    Some(settings)
}

fn connection(reader: &mut Reader<'_>, own: (&Map, Mark), path: &Path<'_>) -> Option<Settings> {
    let (map, mark) = own;
    let help = "write the URL of each node";
    let urls = reader.required(own, path, "addresses", help, |reader, node, path| {
        reader.list(node, path)?;
        Some(("urls".to_owned(), node.clone()))
    })?;
    let mut settings = vec![urls];
    let ca = text(reader, map, path, "caCert");
    let skip = is_set(reader, map, path, "skipVerify");
    settings.extend(tls(ca, skip));
    let given = |name: &str| map.get(name).filter(|node| node.value != Value::Null);
    // A key wins over a user, as in the adapter.
    if let Some(node) = given("apiKey") {
        let key = secret(reader, node, &path.field("apiKey"), "apiKey")?;
        settings.push(map_of("auth", vec![key], mark));
    } else if let Some((username, at)) = text(reader, map, path, "username") {
        let password = match given("password") {
            Some(node) => secret(reader, node, &path.field("password"), "password")?,
            None => as_secret("password", "", at),
        };
        let basic = map_of("basic", vec![as_secret("username", username, at), password], at);
        settings.push(map_of("auth", vec![basic], at));
    }
    let known = ["addresses", "caCert", "skipVerify", "username", "password", "apiKey"];
    tell_of_others(reader, map, path, &known);
    Some(settings)
}

/// The type of events that describe a request.
const HTTP_REQUEST: &str = "io.triggermesh.http.request";

fn http(reader: &mut Reader<'_>, own: (&Map, Mark), path: &Path<'_>) -> Option<Settings> {
    let (map, mark) = own;
    let taken = |name: &'static str| {
        move |_: &mut Reader<'_>, node: &Node, _: &Path<'_>| Some((name.to_owned(), node.clone()))
    };
    let url = reader.required(own, path, "endpoint", "write the URL", taken("url"));
    let method = reader.required(own, path, "method", "write the method, such as `POST`", taken("method"));
    let replies =
        reader.required(own, path, "response", "write the `eventType` of replies", |reader, node, path| {
            let response = reader.map(node, path)?;
            let help = "write the type of replies";
            let mut answer =
                vec![reader.required((response, node.mark), path, "eventType", help, taken("type"))?];
            answer.extend(
                text(reader, response, path, "eventSource")
                    .map(|(source, mark)| plain("source", Value::String(source.to_owned()), mark)),
            );
            tell_of_others(reader, response, path, &["eventType", "eventSource"]);
            Some(map_of("replies", vec![map_of("answer", answer, node.mark)], node.mark))
        });
    let mut settings = vec![url?, method?, replies?];
    settings.push(plain("format", Value::String("data".to_owned()), mark));
    settings.push(plain("requestEvents", Value::String(HTTP_REQUEST.to_owned()), mark));
    let headers = reader.optional(map, path, "headers", |reader, node, path| {
        let headers = reader.map(node, path)?;
        let headers = headers.iter().filter_map(|(name, node)| {
            // It stands for itself, as a template would not.
            let value = reader.string(node, &path.field(name))?.replace("${", "$${");
            Some(plain(name, Value::String(value), node.mark))
        });
        Some(map_of("headers", headers.collect(), node.mark))
    });
    settings.extend(headers);
    let ca = text(reader, map, path, "caCertificate");
    let skip = is_set(reader, map, path, "skipVerify");
    settings.extend(tls(ca, skip));
    settings.extend(http_auth(reader, own, path)?);
    let known = [
        "endpoint",
        "method",
        "response",
        "headers",
        "caCertificate",
        "skipVerify",
        "basicAuthUsername",
        "basicAuthPassword",
        "oauthClientID",
        "oauthClientSecret",
        "oauthTokenURL",
        "oauthScopes",
    ];
    tell_of_others(reader, map, path, &known);
    Some(settings)
}

fn http_auth(
    reader: &mut Reader<'_>,
    (map, mark): (&Map, Mark),
    path: &Path<'_>,
) -> Option<Option<(String, Node)>> {
    let given = |reader: &mut Reader<'_>, field: &str, name: &str| {
        // A secret that names nothing is none, as in the adapter.
        let node = map.get(field).filter(|node| match &node.value {
            Value::Map(map) => map.iter().next().is_some(),
            value => *value != Value::Null,
        });
        node.map(|node| secret(reader, node, &path.field(field), name))
            .map_or(Some(None), |read| read.map(Some))
    };
    let client_secret = given(reader, "oauthClientSecret", "clientSecret")?;
    let password = given(reader, "basicAuthPassword", "password")?;
    if let Some((id, at)) = text(reader, map, path, "oauthClientID") {
        let mut oauth = vec![as_secret("clientId", id, at)];
        oauth.push(client_secret.unwrap_or_else(|| as_secret("clientSecret", "", at)));
        let (url, url_mark) = text(reader, map, path, "oauthTokenURL").unwrap_or(("", at));
        oauth.push(plain("tokenUrl", Value::String(url.to_owned()), url_mark));
        oauth.extend(
            map.get("oauthScopes")
                .filter(|node| node.value != Value::Null)
                .map(|node| ("scopes".to_owned(), node.clone())),
        );
        return Some(Some(map_of("auth", vec![map_of("oauth2", oauth, at)], at)));
    }
    let username = text(reader, map, path, "basicAuthUsername");
    if username.is_none() && password.is_none() {
        return Some(None);
    }
    let (username, at) = username.unwrap_or(("", mark));
    let password = password.unwrap_or_else(|| as_secret("password", "", at));
    let basic = map_of("basic", vec![as_secret("username", username, at), password], at);
    Some(Some(map_of("auth", vec![basic], at)))
}

fn cloud_events(reader: &mut Reader<'_>, own: (&Map, Mark), path: &Path<'_>) -> Option<Settings> {
    let (map, _) = own;
    let mut settings =
        vec![reader.required(own, path, "endpoint", "write the URL", |reader, node, path| {
            let endpoint = reader.text(node, path)?;
            Some(plain("url", Value::String(endpoint.to_owned()), node.mark))
        })?];
    if let Some((suffix, mark)) = text(reader, map, path, "path") {
        // It stands for itself, as a template would not.
        settings.push(plain("path", Value::String(suffix.replace("${", "$${")), mark));
    }
    let auth = reader.optional(map, path, "credentials", |reader, node, path| {
        let credentials = reader.map(node, path)?;
        tell_of_others(reader, credentials, path, &["basicAuth"]);
        let basic = reader.optional(credentials, path, "basicAuth", |reader, node, path| {
            let basic = reader.map(node, path)?;
            let (username, at) = text(reader, basic, path, "username")?;
            let help = "write the password";
            let password =
                reader.required((basic, node.mark), path, "password", help, |reader, node, path| {
                    secret(reader, node, path, "password")
                })?;
            Some(map_of("basic", vec![as_secret("username", username, at), password], node.mark))
        })?;
        Some(map_of("auth", vec![basic], node.mark))
    });
    settings.extend(auth);
    tell_of_others(reader, map, path, &["endpoint", "path", "credentials"]);
    Some(settings)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::super::{ManifestFile, Severity, Spec};
    use super::*;

    fn read(kind: &str, spec: &Json) -> ManifestFile {
        let text = json!({
            "apiVersion": TARGETS, "kind": kind, "metadata": {"name": "t"}, "spec": spec,
        });
        ManifestFile::read("a.yaml", text.to_string().as_bytes())
    }

    fn translated(kind: &str, spec: &Json) -> (String, Json, Vec<String>) {
        let file = read(kind, spec);
        let resource = &file.resources[0];
        let Some(Spec::Sink(component)) = &resource.spec else { panic!("{file:?}") };
        assert_eq!(&*resource.id.kind, kind);
        let [(type_name, settings)] = component.candidates.as_slice() else { panic!("{component:?}") };
        let warnings = resource.problems.iter().map(|problem| {
            assert_eq!(problem.severity, Severity::Warning, "{problem}");
            problem.path.clone()
        });
        (type_name.clone(), settings.to_json(), warnings.collect())
    }

    #[test]
    fn an_elasticsearch_target_becomes_a_sink() {
        let reference = json!({"secretKeyRef": {"name": "elastic", "key": "password"}});
        let (name, settings, warnings) = translated(
            "ElasticsearchTarget",
            &json!({
                "connection": {
                    "addresses": ["https://a:9200"], "caCert": "PEM", "skipVerify": false, "username": "u",
                    "password": reference,
                },
                "indexName": "orders", "discardCloudEventContext": true,
                "eventOptions": {"payloadPolicy": "always"}, "adapterOverrides": {"public": true},
            }),
        );
        let expected = json!({
            "urls": ["https://a:9200"], "tls": {"ca": {"value": "PEM"}},
            "auth": {"basic": {"username": {"value": "u"}, "password": reference}},
            "index": "orders", "document": "data",
        });
        assert_eq!((&*name, settings), ("elasticsearch", expected));
        assert_eq!(warnings, ["spec.eventOptions", "spec.adapterOverrides"]);
        // The key wins over the user.
        let (_, settings, warnings) = translated(
            "ElasticsearchTarget",
            &json!({
                "connection": {
                    "addresses": ["http://a:9200"], "skipVerify": true, "username": "u", "password": reference,
                    "apiKey": reference,
                },
                "indexName": "a${b",
            }),
        );
        let expected = json!({
            "urls": ["http://a:9200"], "tls": {"insecureSkipVerify": true}, "auth": {"apiKey": reference},
            "index": "a$${b", "document": "event",
        });
        assert_eq!((settings, warnings.len()), (expected, 0));
    }

    #[test]
    fn an_http_target_becomes_a_sink() {
        let reference = json!({"secretKeyRef": {"name": "s", "key": "k"}});
        let (name, settings, warnings) = translated(
            "HTTPTarget",
            &json!({
                "endpoint": "https://a/b", "method": "GET", "response": {"eventType": "t", "eventSource": "s"},
                "headers": {"X-A": "${x"}, "skipVerify": true, "caCertificate": "PEM",
                "basicAuthUsername": "u", "basicAuthPassword": reference, "adapterOverrides": {},
            }),
        );
        let expected = json!({
            "url": "https://a/b", "method": "GET", "replies": {"answer": {"type": "t", "source": "s"}},
            "format": "data", "requestEvents": HTTP_REQUEST, "headers": {"X-A": "$${x"},
            "tls": {"ca": {"value": "PEM"}},
            "auth": {"basic": {"username": {"value": "u"}, "password": reference}},
        });
        assert_eq!((&*name, settings), ("http", expected));
        assert_eq!(warnings, ["spec.adapterOverrides"]);
        let (_, settings, _) = translated(
            "HTTPTarget",
            &json!({
                "endpoint": "https://a", "method": "POST", "response": {"eventType": "t"}, "basicAuthPassword": {},
                "oauthClientID": "id", "oauthClientSecret": reference, "oauthTokenURL": "https://t/token",
                "oauthScopes": ["a"],
            }),
        );
        let expected = json!({"oauth2": {
            "clientId": {"value": "id"}, "clientSecret": reference, "tokenUrl": "https://t/token", "scopes": ["a"],
        }});
        assert_eq!(settings["auth"], expected);
        let none = json!({"endpoint": "https://a", "method": "POST", "response": {"eventType": "t"}});
        assert_eq!(translated("HTTPTarget", &none).1.get("auth"), None);
    }

    #[test]
    fn a_cloud_events_target_becomes_a_sink() {
        let password = json!({"valueFromSecret": {"name": "s", "key": "k"}});
        let (name, settings, warnings) = translated(
            "CloudEventsTarget",
            &json!({
                "endpoint": "https://a", "path": "/events",
                "credentials": {"basicAuth": {"username": "u", "password": password}},
            }),
        );
        let reference = json!({"secretKeyRef": {"name": "s", "key": "k"}});
        let expected = json!({
            "url": "https://a", "path": "/events",
            "auth": {"basic": {"username": {"value": "u"}, "password": reference}},
        });
        assert_eq!((&*name, settings, warnings.len()), ("http", expected, 0));
    }

    #[test]
    fn what_cannot_be_translated_is_told_with_its_place() {
        for (kind, spec, code, path) in [
            ("ElasticsearchTarget", json!({"indexName": "a"}), "E0108", "spec.connection"),
            ("ElasticsearchTarget", json!({"connection": {"addresses": []}}), "E0108", "spec.indexName"),
            (
                "HTTPTarget",
                json!({"method": "GET", "response": {"eventType": "t"}}),
                "E0108",
                "spec.endpoint",
            ),
            (
                "HTTPTarget",
                json!({"endpoint": "http://a", "method": "GET", "response": {}}),
                "E0108",
                "spec.response.eventType",
            ),
            ("CloudEventsTarget", json!({}), "E0108", "spec.endpoint"),
            (
                "ElasticsearchTarget",
                json!({"connection": {"addresses": [], "apiKey": {}}, "indexName": "a"}),
                "E0108",
                "spec.connection.apiKey",
            ),
        ] {
            let file = read(kind, &spec);
            let problem = &file.resources[0].problems[0];
            assert_eq!((problem.code.id(), &*problem.path), (code, path), "{problem}");
        }
    }
}
