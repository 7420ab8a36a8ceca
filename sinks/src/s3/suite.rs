use std::io::Read as _;

use serde_json::{Value, json};

use super::*;

#[allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of the argument")]
fn config(settings: Value) -> S3Config {
    let mut all = json!({"bucket": "events"});
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn event(id: &str) -> Event {
    let builder = Event::builder(id, "/shop/a", "order.placed").subject("é 1").attribute("k", "v");
    builder.data_content_type("application/json").json_data(r#"{"n": 1}"#).build().unwrap()
}

fn object(config: &S3Config, events: &[Event]) -> Object {
    Object::of(config, config.key_of(&events[0]).unwrap(), events).unwrap()
}

fn header<'o>(object: &'o Object, name: &str) -> Option<&'o str> {
    let (_, value) = object.headers.iter().find(|(known, _)| known == name)?;
    Some(value.to_str().unwrap())
}

#[test]
fn keys_of_different_events_differ() {
    let plain = config(json!({}));
    assert_eq!(plain.key_of(&event("a/b")).unwrap(), "order.placed/%2Fshop%2Fa/a%2Fb");
    let named = config(json!({"key": "${type}/${$.n}/${id}.json"}));
    assert_eq!(named.key_of(&event("7")).unwrap(), "order.placed/1/7.json");
    let lacking = json!({"key": "${nothing}"});
    assert_eq!(config(lacking).key_of(&event("7")).unwrap_err().code, codes::TEMPLATE_NOT_RENDERED);
    let otherwise = config(json!({"key": "${nothing}", "withoutKey": "defaultKey"}));
    assert_eq!(otherwise.key_of(&event("7")).unwrap(), "order.placed/%2Fshop%2Fa/7");
}

#[test]
fn an_object_holds_what_is_asked_for() {
    let structured = object(&config(json!({})), &[event("1")]);
    assert_eq!(header(&structured, "content-type"), Some("application/cloudevents+json; charset=utf-8"));
    let read: Value = serde_json::from_slice(&structured.body).unwrap();
    assert_eq!((&read["id"], &read["data"]["n"], &read["k"]), (&json!("1"), &json!(1), &json!("v")));
    let binary = object(&config(json!({"content": "binary"})), &[event("1")]);
    assert_eq!(
        (&*binary.body, header(&binary, "content-type")),
        (&br#"{"n": 1}"#[..], Some("application/json"))
    );
    assert_eq!(header(&binary, "x-amz-meta-ce-subject"), Some("%C3%A9%201"));
    assert_eq!(header(&binary, "x-amz-meta-ce-k"), Some("v"));
    for settings in [json!({"content": "data"}), json!({"dataTypes": ["order.placed"]})] {
        let data = object(&config(settings), &[event("1")]);
        assert_eq!(&*data.body, br#"{"n": 1}"#);
        assert_eq!(header(&data, "x-amz-meta-ce-id"), None);
    }
}

#[test]
fn settings_become_headers() {
    let config = config(json!({
        "metadata": {"Kind": "${type}", "topic": "${subject}"}, "storageClass": "STANDARD_IA", "contentType": "text/x",
        "encryption": {"algorithm": "aws:kms", "keyId": "k-1"}, "overwrite": false,
    }));
    assert_eq!(config.validate(), []);
    let object = object(&config, &[event("1")]);
    for (name, expected) in [
        ("x-amz-meta-kind", "order.placed"),
        ("x-amz-meta-topic", "%C3%A9 1"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "k-1"),
        ("content-type", "text/x"),
        ("if-none-match", "*"),
        ("x-amz-meta-waypost-events", &object.written_by),
    ] {
        assert_eq!(header(&object, name), Some(expected), "{name}");
    }
}

#[test]
fn a_batch_is_named_by_its_events_and_holds_them_as_lines() {
    for (compression, suffix) in [("none", "jsonl"), ("gzip", "jsonl.gz"), ("zstd", "jsonl.zst")] {
        let config = config(json!({"key": "a/", "batch": {"compression": compression}}));
        assert_eq!(config.validate(), []);
        let events = [event("1"), event("2")];
        let made = object(&config, &events);
        assert_eq!(made.key, format!("a/{}.{suffix}", made.written_by));
        assert_eq!(made.key, object(&config, &events).key);
        assert_ne!(made.key, object(&config, &events[..1]).key);
        let mut text = String::new();
        match compression {
            "gzip" => drop(flate2::read::GzDecoder::new(&*made.body).read_to_string(&mut text).unwrap()),
            "zstd" => text = String::from_utf8(zstd::decode_all(&*made.body).unwrap()).unwrap(),
            _ => text = String::from_utf8(made.body.to_vec()).unwrap(),
        }
        let ids: Vec<_> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
        assert_eq!(ids, ["1", "2"]);
    }
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    for (settings, path) in [
        (json!({"bucket": "a/b"}), "bucket"),
        (json!({"key": ""}), "key"),
        (json!({"key": "always-the-same"}), "key"),
        (json!({"metadata": {"a b": "x"}}), "metadata"),
        (json!({"storageClass": ""}), "storageClass"),
        (json!({"contentType": "a\nb"}), "contentType"),
        (json!({"encryption": {"algorithm": "AES256", "keyId": "k"}}), "encryption.keyId"),
        (json!({"batch": {"maxEvents": 0}}), "batch.maxEvents"),
        (json!({"batch": {"lingerSeconds": 3_601}}), "batch.lingerSeconds"),
        (json!({"batch": {}, "content": "data"}), "content"),
        (json!({"batch": {}, "dataTypes": ["t"]}), "dataTypes"),
    ] {
        let problems = config(settings).validate();
        let paths: Vec<_> = problems.iter().map(|problem| &*problem.path).collect();
        assert!(paths.contains(&path) && paths.iter().all(|given| *given == path), "{problems:?}");
    }
}
