use serde_json::Value;
use waypost_core::Class;

use super::*;

fn config(more: &Value) -> ElasticsearchConfig {
    let mut settings = json!({"urls": ["http://a:9200"], "index": "orders"});
    let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) else { unreachable!() };
    all.extend(more.clone());
    serde_json::from_value(settings).unwrap()
}

fn event() -> Event {
    Event::builder("1", "/s", "placed")
        .time("2026-11-22T05:00:00Z")
        .data_content_type("application/json")
        .data("{\"id\": \"A\",\r\n \"n\": 1.50}")
        .build()
        .unwrap()
}

fn written(config: &ElasticsearchConfig, event: &Event) -> (Value, String) {
    let lines = config.write(event, Timestamp::UNIX_EPOCH).unwrap();
    let text = std::str::from_utf8(&lines).unwrap();
    let (action, document) = text.strip_suffix('\n').unwrap().split_once('\n').unwrap();
    assert!(!document.contains(['\n', '\r']), "{document}");
    (serde_json::from_str(action).unwrap(), document.to_owned())
}

#[test]
fn the_whole_event_is_the_document_under_an_id_of_source_and_id() {
    let (action, document) = written(&config(&json!({})), &event());
    assert_eq!(action, json!({"index": {"_index": "orders", "_id": "/s 1"}}));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!((&document["type"], &document["data"]["id"]), (&json!("placed"), &json!("A")));
    assert_eq!(document.get(TIMESTAMP), None);
}

#[test]
fn data_alone_is_kept_byte_for_byte_on_one_line() {
    let data = config(&json!({"document": "data"}));
    assert_eq!(written(&data, &event()).1, "{\"id\": \"A\",   \"n\": 1.50}");
    for other in ["[1]", "3", "", "{", "{} {}"] {
        let event = Event::builder("1", "/s", "t").data(other).build().unwrap();
        let error = data.write(&event, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!((error.class, error.code), (Class::Permanent, codes::SINK_REFUSED), "{other}");
    }
}

#[test]
fn a_data_stream_is_created_into_with_a_timestamp() {
    let stream = config(&json!({"dataStream": true, "document": "data"}));
    let (action, document) = written(&stream, &event());
    assert_eq!(action, json!({"create": {"_index": "orders", "_id": "/s 1"}}));
    assert_eq!(document, "{\"@timestamp\":\"2026-11-22T05:00:00Z\",\"id\": \"A\",   \"n\": 1.50}");
    for (data, expected) in [
        ("{}", r#"{"@timestamp":"1970-01-01T00:00:00Z"}"#),
        (" {\n}", r#"{"@timestamp":"1970-01-01T00:00:00Z"}"#),
        (r#"{"@timestamp":1}"#, r#"{"@timestamp":1}"#),
        (r#"{"\u0040timestamp":1}"#, r#"{"\u0040timestamp":1}"#),
    ] {
        let event = Event::builder("1", "/s", "t").data(data).build().unwrap();
        assert_eq!(written(&stream, &event).1, expected);
    }
    let whole = config(&json!({"dataStream": true}));
    let document: Value = serde_json::from_str(&written(&whole, &event()).1).unwrap();
    assert_eq!((&document[TIMESTAMP], &document["id"]), (&json!("2026-11-22T05:00:00Z"), &json!("1")));
}

#[test]
fn names_come_from_templates_and_what_the_event_lacks_is_permanent() {
    let config = config(&json!({
        "index": "orders-${time:%Y.%m.%d}", "id": "${$.id}", "routing": "${type}", "operation": "create",
    }));
    let (action, _) = written(&config, &event());
    assert_eq!(action, json!({"create": {"_index": "orders-2026.11.22", "_id": "A", "routing": "placed"}}));
    let lacks = Event::builder("1", "/s", "t").build().unwrap();
    let error = config.write(&lacks, Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!((error.class, error.code), (Class::Permanent, codes::TEMPLATE_NOT_RENDERED));
}

#[test]
fn ids_are_short_and_different_for_different_events() {
    let id = |source: &str, id: &str| id_of(&Event::builder(id, source, "t").build().unwrap());
    let long = "x".repeat(600);
    let ids = [id("/s", "1"), id("/s", "1 2"), id("/s", &long), id(&format!("/{long}"), "1"), id("/s2", "1")];
    assert!(ids.iter().all(|id| id.len() <= MAX_ID_BYTES), "{ids:?}");
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(id("/s", &long), id("/s", &long));
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    for (settings, path) in [
        (json!({"urls": []}), "urls"),
        (json!({"index": ""}), "index"),
        (json!({"index": "Orders"}), "index"),
        (json!({"index": "a*"}), "index"),
        (json!({"index": "_a"}), "index"),
        (json!({"dataStream": true, "operation": "index"}), "operation"),
        (json!({"pipeline": ""}), "pipeline"),
        (json!({"tls": {"key": {"value": "x"}}}), "tls"),
    ] {
        let problems = config(&settings).validate();
        assert_eq!(problems.len(), 1, "{settings}: {problems:?}");
        assert_eq!(problems[0].path, path, "{settings}");
    }
    assert!(config(&json!({"index": "Logs-${type}"})).validate().is_empty());
    let unknown = json!({"urls": ["http://a"], "index": "a", "auth": {"token": {"value": "x"}}});
    assert!(serde_json::from_value::<ElasticsearchConfig>(unknown).is_err());
}
