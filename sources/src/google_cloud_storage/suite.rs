use serde_json::json;

use super::*;

fn config(more: &serde_json::Value) -> GoogleCloudStorageConfig {
    let mut settings = json!({"subscription": "projects/p/subscriptions/s"});
    let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) else { unreachable!() };
    all.extend(more.clone());
    serde_json::from_value(settings).unwrap()
}

/// A notification as Google documents it.
fn notification(kind: &str, more: &[(&str, &str)], data: &str) -> PubsubMessage {
    let own = [
        ("notificationConfig", "projects/_/buckets/photos/notificationConfigs/1"),
        ("eventType", kind),
        ("eventTime", "2026-11-22T06:00:00.123456Z"),
        ("payloadFormat", "JSON_API_V1"),
        ("bucketId", "photos"),
        ("objectId", "new/cat.jpg"),
        ("objectGeneration", "1700000000000001"),
    ];
    PubsubMessage {
        data: data.as_bytes().to_vec(),
        attributes: own
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        message_id: "17".to_owned(),
        publish_time: None,
        ordering_key: String::new(),
    }
}

fn event(more: &serde_json::Value, message: &PubsubMessage) -> Option<Event> {
    event_of(&config(more), &ResourceName::new("shop", "in"), message)
}

#[test]
fn each_kind_has_its_type_and_each_change_its_id() {
    let base = "photos/new/cat.jpg/1700000000000001";
    let object = r#"{"name": "new/cat.jpg", "metageneration": "3"}"#;
    for (kind, event_type, id) in [
        ("OBJECT_FINALIZE", "objectfinalize", format!("{base}/OBJECT_FINALIZE")),
        ("OBJECT_DELETE", "objectdelete", format!("{base}/OBJECT_DELETE")),
        ("OBJECT_ARCHIVE", "objectarchive", format!("{base}/OBJECT_ARCHIVE")),
        ("OBJECT_METADATA_UPDATE", "objectmetadataupdate", format!("{base}/OBJECT_METADATA_UPDATE/3")),
        ("OBJECT_NEW_KIND", "notification", format!("{base}/OBJECT_NEW_KIND")),
    ] {
        let event = event(&json!({}), &notification(kind, &[("overwroteGeneration", "5")], object)).unwrap();
        assert_eq!(event.event_type(), format!("com.google.cloud.storage.{event_type}"));
        assert_eq!((event.id(), event.source()), (id.as_str(), "gs://photos"));
        assert_eq!(
            (event.subject(), event.time()),
            (Some("new/cat.jpg"), Some("2026-11-22T06:00:00.123456Z"))
        );
        assert_eq!(event.data_bytes(), Some(object.as_bytes()));
        assert_eq!(event.data_content_type(), Some("application/json"));
        let attribute = |name| event.attribute(name).map(|value| value.text);
        assert_eq!(attribute("gcsoverwrotegeneration"), Some("5"));
        assert_eq!(attribute("gcspayloadformat"), Some("JSON_API_V1"));
    }
    // Without the payload only the message tells updates of metadata apart.
    let event = event(&json!({}), &notification("OBJECT_METADATA_UPDATE", &[], "")).unwrap();
    assert_eq!((event.id(), event.data_bytes()), (&*format!("{base}/OBJECT_METADATA_UPDATE/17"), None));
}

#[test]
fn what_the_settings_leave_out_is_left_out() {
    let message = notification("OBJECT_FINALIZE", &[], "{}");
    for (more, taken) in [
        (json!({"bucket": "photos"}), true),
        (json!({"bucket": "films"}), false),
        (json!({"eventTypes": ["OBJECT_DELETE", "OBJECT_FINALIZE"]}), true),
        (json!({"eventTypes": ["OBJECT_DELETE"]}), false),
        (json!({"objectNamePrefix": "new/"}), true),
        (json!({"objectNamePrefix": "old/"}), false),
    ] {
        assert_eq!(event(&more, &message).is_some(), taken, "{more}");
    }
}

#[test]
fn what_is_no_notification_is_an_event_all_the_same() {
    let message =
        PubsubMessage { data: b"x".to_vec(), message_id: "17".to_owned(), ..PubsubMessage::default() };
    let told = event(&json!({"bucket": "photos"}), &message).unwrap();
    assert_eq!((told.id(), told.event_type()), ("17", "com.google.cloud.storage.notification"));
    assert_eq!(told.attribute("gcsfault").map(|value| value.text), Some("E0601"));
    assert_eq!((told.data_bytes(), told.data_content_type()), (Some(&b"x"[..]), None));
    let nameless = PubsubMessage::default();
    assert!(!event(&json!({}), &nameless).unwrap().id().is_empty());
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    for (more, path) in [
        (json!({"subscription": "photos"}), "subscription"),
        (json!({"eventTypes": ["finalize"]}), "eventTypes[0]"),
        (json!({"topic": "photos"}), "topic"),
    ] {
        let problems = config(&more).validate();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, [path], "{more}");
    }
}
