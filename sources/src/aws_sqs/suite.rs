use serde_json::{Value, json};
use waypost_clients::aws::sqs::{Message, MessageAttribute};
use waypost_core::Event;

use super::message::events_of;
use super::*;

const ARN: &str = "arn:aws:sqs:eu-west-1:123456789012:orders";

#[allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of the argument")]
fn config(settings: Value) -> AwsSqsConfig {
    let mut all = json!({"queue": "orders"});
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn message(body: &str) -> Message {
    let text = |value: &str| MessageAttribute {
        data_type: "String".to_owned(),
        string_value: Some(value.to_owned()),
        binary_value: None,
    };
    let binary = MessageAttribute {
        data_type: "Binary".to_owned(),
        string_value: None,
        binary_value: Some("AA==".to_owned()),
    };
    Message {
        message_id: "m-1".to_owned(),
        receipt_handle: "r-1".to_owned(),
        body: Some(body.to_owned()),
        attributes: [
            ("ApproximateReceiveCount", "2"),
            ("SentTimestamp", "1700000000123"),
            ("MessageGroupId", "g"),
            ("SequenceNumber", "18849496460467696128"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        message_attributes: [("Trace-Id", text("t 1")), ("raw", binary)]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        md5_of_body: Some("md5".to_owned()),
        md5_of_message_attributes: None,
    }
}

fn attribute(event: &Event, name: &str) -> Option<String> {
    event.attribute(name).map(|value| value.text.to_owned())
}

fn data(event: &Event) -> &str {
    std::str::from_utf8(event.data_bytes().unwrap_or_default()).unwrap()
}

#[test]
fn a_plain_message_is_an_event_with_its_body_byte_for_byte() {
    let body = r#"{"n": 12345678901234567890.10, "a" : 1}"#;
    let events = events_of(&config(json!({})), ARN, &message(body));
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.id(), event.source(), event.event_type()), ("m-1", ARN, "com.amazon.sqs.message"));
    assert_eq!((data(event), event.data_content_type()), (body, Some("application/json")));
    for (name, value) in [
        ("sqsreceivecount", Some("2")),
        ("time", Some("2023-11-14T22:13:20.123Z")),
        ("partitionkey", Some("g")),
        ("sqssequencenumber", Some("18849496460467696128")),
        ("sqsmsgtraceid", Some("t 1")),
        ("sqsmsgraw", None),
        ("sqsfault", None),
    ] {
        assert_eq!(attribute(event, name).as_deref(), value, "{name}");
    }
    let events = events_of(&config(json!({"eventType": "t", "eventSource": "/s"})), ARN, &message("plain"));
    assert_eq!((events[0].source(), events[0].event_type()), ("/s", "t"));
    assert_eq!((data(&events[0]), events[0].data_content_type()), ("plain", Some("text/plain")));
}

#[test]
fn the_message_of_the_sdk_holds_a_body_of_json_as_it_is() {
    let config = config(json!({"data": "message"}));
    let events = events_of(&config, ARN, &message(r#"{"n":1.10}"#));
    assert!(data(&events[0]).starts_with(r#"{"Body":{"n":1.10},"#), "{}", data(&events[0]));
    let told: Value = serde_json::from_str(data(&events[0])).unwrap();
    assert_eq!(told["MessageId"], "m-1");
    assert_eq!(told["ReceiptHandle"], "r-1");
    assert_eq!(told["Attributes"]["ApproximateReceiveCount"], "2");
    assert_eq!(told["MessageAttributes"]["Trace-Id"]["StringValue"], "t 1");
    assert_eq!(told["MessageAttributes"]["raw"]["BinaryValue"], "AA==");
    assert_eq!(told["MD5OfBody"], "md5");
    let events = events_of(&config, ARN, &message("a \"text\""));
    assert_eq!(serde_json::from_str::<Value>(data(&events[0])).unwrap()["Body"], "a \"text\"");
}

fn s3_record(key: &str, sequencer: Option<&str>) -> Value {
    json!({
        "eventName": "ObjectCreated:Put", "eventTime": "2024-01-02T03:04:05.678Z",
        "s3": {
            "bucket": {"name": "b", "arn": "arn:aws:s3:::b"},
            "object": {"key": key, "size": 3, "sequencer": sequencer},
        },
    })
}

#[test]
fn each_record_of_s3_is_an_event_also_within_an_envelope_of_sns() {
    let records = json!({"Records": [s3_record("a+b%2F%C3%BC.txt", Some("0055")), s3_record("c", None)]});
    let envelope = json!({
        "Type": "Notification", "MessageId": "sns-1", "TopicArn": "arn:aws:sns:eu-west-1:1:t",
        "Message": records.to_string(),
    });
    for (unwrap, body) in [(json!(["s3"]), records.to_string()), (json!(["sns", "s3"]), envelope.to_string())]
    {
        let events = events_of(&config(json!({"unwrap": unwrap})), ARN, &message(&body));
        let ids: Vec<_> = events.iter().map(Event::id).collect();
        assert_eq!(ids, ["b/a+b%2F%C3%BC.txt/0055/ObjectCreated:Put", "m-1/1"]);
        assert_eq!(
            (events[0].source(), events[0].event_type()),
            ("arn:aws:s3:::b", "com.amazon.s3.objectcreated")
        );
        assert_eq!(attribute(&events[0], "subject").as_deref(), Some("a b/ü.txt"));
        assert_eq!(serde_json::from_str::<Value>(data(&events[1])).unwrap(), s3_record("c", None));
    }
}

#[test]
fn the_test_of_s3_an_envelope_and_an_event_of_event_bridge_are_events() {
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}).to_string();
    let events = events_of(&config(json!({"unwrap": ["s3"]})), ARN, &message(&test));
    assert_eq!((events[0].source(), events[0].event_type()), ("arn:aws:s3:::b", "com.amazon.s3.testevent"));
    let envelope = json!({
        "MessageId": "sns-1", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "Subject": "s", "Message": "hello",
        "Timestamp": "2024-01-02T03:04:05.678Z", "MessageAttributes": {"Kind": {"Type": "String", "Value": "k"}},
    });
    let events = events_of(&config(json!({"unwrap": ["sns"]})), ARN, &message(&envelope.to_string()));
    assert_eq!(
        (events[0].id(), events[0].source(), data(&events[0])),
        ("sns-1", "arn:aws:sns:eu-west-1:1:t", "hello")
    );
    assert_eq!(attribute(&events[0], "snsmsgkind").as_deref(), Some("k"));
    let bridged = json!({
        "id": "eb-1", "source": "aws.ec2", "detail-type": "State", "time": "2024-01-02T03:04:05Z",
        "resources": ["arn:aws:ec2:x"], "detail": {"state": "running"},
    });
    let events = events_of(&config(json!({"unwrap": ["eventBridge"]})), ARN, &message(&bridged.to_string()));
    assert_eq!((events[0].id(), events[0].event_type()), ("eb-1", "com.amazon.events.event"));
    assert_eq!(attribute(&events[0], "awseventssource").as_deref(), Some("aws.ec2"));
    assert_eq!(attribute(&events[0], "subject").as_deref(), Some("arn:aws:ec2:x"));
}

#[test]
fn what_is_not_what_it_should_be_is_an_event_that_says_so() {
    for (unwrap, body) in [
        (json!(["s3"]), "no json"),
        (json!(["s3"]), "{}"),
        (json!(["s3"]), r#"{"Records": [{}]}"#),
        (json!(["sns"]), r#"{"Message": 1}"#),
        (json!(["eventBridge"]), r#"{"source": "a"}"#),
    ] {
        let events = events_of(&config(json!({"unwrap": unwrap})), ARN, &message(body));
        assert_eq!((events.len(), data(&events[0])), (1, body));
        assert!(attribute(&events[0], "sqsfault").is_some(), "{body}");
    }
    // A notification without records is told as it is.
    let events = events_of(&config(json!({"unwrap": ["s3"]})), ARN, &message(r#"{"Records": []}"#));
    assert_eq!((events.len(), events[0].id()), (1, "m-1"));
    // What breaks a rule of events is left out.
    let mut poison = message("x");
    poison.message_attributes.get_mut("Trace-Id").unwrap().string_value = Some("a\u{0}b".to_owned());
    let events = events_of(&config(json!({})), ARN, &poison);
    assert_eq!((events[0].id(), data(&events[0])), ("m-1", "x"));
    poison.message_id = "\u{1}".to_owned();
    assert_eq!(data(&events_of(&config(json!({})), ARN, &poison)[0]), "x");
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    for (settings, path) in [
        (json!({"queue": "a b"}), "queue"),
        (json!({"receivers": 0}), "receivers"),
        (json!({"visibilityTimeoutSeconds": 0}), "visibilityTimeoutSeconds"),
        (json!({"visibilityTimeoutSeconds": 43_201}), "visibilityTimeoutSeconds"),
        (json!({"unwrap": ["s3", "sns"]}), "unwrap"),
        (json!({"eventType": ""}), "eventType"),
        (json!({"endpoint": "nowhere"}), "endpoint"),
    ] {
        let problems = config(settings).validate();
        assert_eq!(problems.iter().map(|problem| &*problem.path).collect::<Vec<_>>(), [path]);
    }
    assert_eq!(config(json!({"unwrap": ["sns", "s3"]})).validate(), []);
}
