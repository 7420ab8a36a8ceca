use serde_json::{Value, json};
use waypost_core::Class;
use waypost_core::manifest::{ResourceName, Secrets};

use super::*;

fn config(more: &Value) -> HttpConfig {
    let mut settings = json!({"url": "http://localhost:1/hook?k=1"});
    let (Some(all), Some(more)) = (settings.as_object_mut(), more.as_object()) else { unreachable!() };
    all.extend(more.clone());
    serde_json::from_value(settings).unwrap()
}

fn context() -> ComponentContext {
    ComponentContext { name: ResourceName::new("default", "out"), secrets: Secrets::default() }
}

fn event() -> Event {
    Event::builder("1", "/s", "placed")
        .data_content_type("application/json")
        .attribute("statefulid", "S")
        .data(r#"{"id": "A"}"#)
        .build()
        .unwrap()
}

fn written(config: &HttpConfig, event: &Event) -> Result<Written, DeliveryError> {
    config.write(event, &Site::new(Target::parse(&config.url, None).unwrap()))
}

#[test]
fn an_event_is_written_in_each_format() {
    let binary = written(&config(&json!({})), &event()).unwrap();
    assert_eq!(
        (&binary.headers["ce-id"], binary.uri.to_string()),
        (&"1".parse().unwrap(), "/hook?k=1".into())
    );
    assert_eq!(&binary.body[..], br#"{"id": "A"}"#);
    let structured = written(&config(&json!({"format": "structured"})), &event()).unwrap();
    assert_eq!(waypost_core::event::json::decode(&structured.body).unwrap(), event());
    let data = written(&config(&json!({"format": "data"})), &event()).unwrap();
    assert_eq!((data.headers.len(), &data.body[..]), (1, &br#"{"id": "A"}"#[..]));
    assert_eq!(data.headers["content-type"], "application/json");
}

#[test]
fn path_and_headers_come_from_templates_and_win_over_those_of_the_event() {
    let headers = json!({"X-Order": "${$.id}", "Content-Type": "text/plain"});
    let config = config(&json!({"path": "orders/${$.id}", "headers": headers}));
    let request = written(&config, &event()).unwrap();
    assert_eq!(request.uri, "/hook/orders/A?k=1");
    assert_eq!(
        (&request.headers["x-order"], &request.headers["content-type"]),
        (&HeaderValue::from_static("A"), &HeaderValue::from_static("text/plain"))
    );
    for data in [r#"{"id": "a\nb"}"#, r#"{"no": 1}"#] {
        let event = Event::builder("1", "/s", "t").data_content_type("application/json").data(data).build();
        let error = written(&config, &event.unwrap()).unwrap_err();
        assert_eq!((error.class, error.code), (Class::Permanent, codes::TEMPLATE_NOT_RENDERED), "{data}");
    }
}

#[test]
fn an_event_may_describe_its_request() {
    let config = config(&json!({
        "format": "data", "requestEvents": "io.triggermesh.http.request", "headers": {"X-A": "1", "X-B": "1"},
    }));
    let describing = |data: &str| {
        Event::builder("1", "/s", "io.triggermesh.http.request").data(data.to_owned()).build().unwrap()
    };
    let data = r#"{"query_string": "q=x&k=2", "path_suffix": "a/b", "headers": {"X-B": "2", "Host": "evil"}, "body": {"n": 1.0}}"#;
    let request = written(&config, &describing(data)).unwrap();
    assert_eq!(
        (request.uri.to_string(), &request.body[..]),
        ("/hook/a/b?k=1&q=x".into(), &b"{\"n\": 1.0}"[..])
    );
    assert_eq!(
        (&request.headers["x-a"], &request.headers["x-b"]),
        (&HeaderValue::from_static("1"), &HeaderValue::from_static("2"))
    );
    assert!(request.headers.get("host").is_none());
    assert_eq!(written(&config, &event()).unwrap().body, event().data().unwrap());
    for data in ["[]", "", r#"{"path_suffix": "../x"}"#, r#"{"headers": {"a b": ""}}"#] {
        let error = written(&config, &describing(data)).unwrap_err();
        assert_eq!((error.class, error.code), (Class::Permanent, codes::SINK_REFUSED), "{data}");
    }
}

#[test]
fn each_status_has_its_class() {
    use ProblemKind::{Absent, Overloaded, Refused, Unauthorized, Unavailable};
    for (status, plain, with_all) in [
        (301, Refused, Refused),
        (400, Refused, Refused),
        (401, Refused, Unauthorized),
        (403, Refused, Unauthorized),
        (404, Unavailable, Unavailable),
        (408, Unavailable, Unavailable),
        (409, Unavailable, Unavailable),
        (410, Refused, Absent),
        (422, Refused, Refused),
        (429, Overloaded, Overloaded),
        (500, Unavailable, Unavailable),
        (503, Overloaded, Overloaded),
        (504, Unavailable, Unavailable),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(classify(status, false, false).kind, plain, "{status}");
        let problem = classify(status, true, true);
        assert_eq!(problem.kind, with_all, "{status}");
        assert!(problem.detail.contains(status.as_str()) && !problem.detail.ends_with('.'), "{problem}");
    }
}

async fn outcome(
    replies: Value,
    headers: &[(&'static str, &'static str)],
    body: &str,
) -> Result<Outcome, DeliveryError> {
    let config = config(&json!({"replies": replies, "requestEvents": "x"}));
    let sink = HttpSink {
        site: Site::new(Target::parse(&config.url, None).unwrap()),
        method: config.method().unwrap(),
        handshake: None,
        credentials: Credentials::None,
        signer: None,
        config,
    };
    let headers =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let body = Bytes::copy_from_slice(body.as_bytes());
    let answer = Answered { status: StatusCode::OK, headers: headers.collect(), body, is_cut: false };
    sink.outcome(&event(), &answer)
}

#[tokio::test]
async fn answers_become_replies_where_they_are_asked_for() {
    let binary = [("ce-specversion", "1.0"), ("ce-id", "r"), ("ce-source", "/r"), ("ce-type", "answer")];
    assert_eq!(outcome(json!("none"), &binary, "x").await, Ok(Outcome::Delivered));
    assert_eq!(outcome(json!("events"), &[], "x").await, Ok(Outcome::Delivered));
    let Ok(Outcome::Replied(events)) = outcome(json!("events"), &binary, "x").await else {
        panic!("a reply")
    };
    assert_eq!((events.len(), events[0].id()), (1, "r"));
    let malformed = outcome(json!("events"), &binary[..1], "x").await.unwrap_err();
    assert_eq!((malformed.class, malformed.code), (Class::Retryable, codes::REPLY_MALFORMED));
    let wrapped = json!({"answer": {"type": "answer"}});
    let json = [("content-type", "application/json")];
    let Ok(Outcome::Replied(events)) = outcome(wrapped, &json, "{}").await else { panic!("a reply") };
    let reply = &events[0];
    assert_eq!(
        (reply.id(), reply.source(), reply.event_type()),
        ("1-reply", "http://localhost:1/hook?k=1", "answer")
    );
    assert_eq!((reply.data_content_type(), reply.data_bytes()), (Some("application/json"), Some(&b"{}"[..])));
    assert_eq!(reply.attribute("statefulid").unwrap().text, "S");
}

#[tokio::test]
async fn settings_that_cannot_work_are_told_by_field() {
    for (settings, path) in [
        (json!({"url": "localhost"}), "url"),
        (json!({"url": "http://user:secret@host/"}), "url"),
        (json!({"method": "A B"}), "method"),
        (json!({"method": "CONNECT"}), "method"),
        (json!({"headers": {"a b": ""}}), "headers.a b"),
        (json!({"headers": {"Host": "x"}}), "headers.Host"),
        (
            json!({"headers": {"Authorization": "x"}, "auth": {"bearer": {"token": {"value": "x"}}}}),
            "headers.Authorization",
        ),
        (json!({"handshake": {"origin": ""}}), "handshake.origin"),
        (json!({"replies": {"answer": {"type": ""}}}), "replies.answer"),
        (json!({"tls": {"key": {"value": "x"}}}), "tls"),
        (
            json!({"auth": {"oauth2": {"tokenUrl": "x", "clientId": {"value": "x"}, "clientSecret": {"value": "x"}}}}),
            "auth.oauth2.tokenUrl",
        ),
    ] {
        let problems = config(&settings).validate();
        assert_eq!(problems.len(), 1, "{settings}: {problems:?}");
        assert_eq!(problems[0].path, path, "{settings}");
    }
    let absent = config(&json!({"auth": {"bearer": {"token": {"env": "NONE"}}}}));
    let error = SinkConfig::build(&absent, context()).await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::Misconfigured, codes::SINK_MISCONFIGURED));
    let secret = config(&json!({"auth": {"bearer": {"token": {"value": "hunter2"}}}}));
    let sink = SinkConfig::build(&secret, context()).await.unwrap();
    assert!(!format!("{sink:?}").contains("hunter2"));
}
