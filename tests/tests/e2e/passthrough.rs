//! Promise P6: what goes in comes out, byte for byte, from any mode to any mode.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use serde_json::json;
use waypost_tests::client::{batch, request, structured};
use waypost_tests::process::Waypost;
use waypost_tests::subscriber::{Received, Subscriber};

use crate::manifests::{default_broker, trigger};

const INGRESS: &str = "/default/default";

/// JSON that a parser would change: large numbers, the order of members, white space, escapes, repeated members.
const JSON: &str =
    "{ \"z\" : 12345678901234567890123.10,\n\t\"a\":[1e3, 1.0,-0],\r\n\"A\\u00e9\":\"\\/\" , \"z\":null}";

/// Attributes whose text could be normalised and must not be, as a header and as text.
const ATTRIBUTES: &[(&str, &str, &str)] = &[
    ("id", "a%20b%22%25", "a b\"%"),
    ("source", "../rel?x=1#Fragment", "../rel?x=1#Fragment"),
    ("type", "t", "t"),
    ("time", "2018-04-05T03:56:24.1234567890+01:30", "2018-04-05T03:56:24.1234567890+01:30"),
    ("dataschema", "http://EXAMPLE.com:80/%257e", "http://EXAMPLE.com:80/%7e"),
    ("subject", "Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
    ("unknownextension", "00012", "00012"),
    ("averyveryverylongextensionname", "TRUE", "TRUE"),
];

/// The event of [`ATTRIBUTES`] in JSON, with this data.
fn in_json(data: &str) -> String {
    let attributes: Vec<_> =
        ATTRIBUTES.iter().map(|(name, _, text)| format!("{}:{}", json!(name), json!(text))).collect();
    format!(
        "{{\"specversion\":\"1.0\",\"datacontenttype\":\"application/json\", {},\"data\":{data} }}",
        attributes.join(", ")
    )
}

fn in_headers(body: impl Into<Bytes>) -> Request<Bytes> {
    let names: Vec<_> = ATTRIBUTES.iter().map(|(name, ..)| format!("ce-{name}")).collect();
    let values = ATTRIBUTES.iter().map(|(_, header, _)| *header);
    let mut headers: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
    headers.extend([("ce-specversion", "1.0"), ("content-type", "application/json")]);
    request(Method::POST, INGRESS, &headers, body)
}

/// A broker with one trigger that delivers in binary mode, and one in structured mode.
async fn both_ways(subscriber: &Subscriber) -> Waypost {
    let triggers = [
        trigger("binary", &subscriber.url("/binary"), json!({})),
        trigger("json", &subscriber.url("/json"), json!({"delivery": {"format": "json"}})),
    ];
    Waypost::start(&default_broker(&triggers)).await
}

/// What came in binary and in structured mode for one event.
async fn one_of_each(subscriber: &Subscriber, before: usize) -> (Received, Received) {
    let received = subscriber.wait_for(before + 2).await;
    let at = |path: &str| received[before..].iter().find(|received| received.path == path).unwrap().clone();
    (at("/binary"), at("/json"))
}

#[tokio::test]
async fn json_data_and_attributes_pass_unchanged_from_any_mode_to_any_mode() {
    let subscriber = Subscriber::accepting().await;
    let waypost = both_ways(&subscriber).await;
    let requests = [
        in_headers(JSON),
        structured(INGRESS, in_json(JSON)),
        batch(INGRESS, format!("[{}]", in_json(JSON))),
    ];
    for (number, request) in requests.into_iter().enumerate() {
        waypost.accept(request).await;
        let (binary, structured) = one_of_each(&subscriber, number * 2).await;

        assert_eq!(binary.body, JSON);
        assert_eq!(binary.header("content-type"), "application/json");
        for (name, header, _) in ATTRIBUTES {
            assert_eq!(binary.header(&format!("ce-{name}")), *header, "request {number}");
        }
        assert_eq!(binary.attribute_names().len(), ATTRIBUTES.len() + 1, "{binary:?}");

        assert_eq!(structured.header("content-type"), "application/cloudevents+json");
        let text = std::str::from_utf8(&structured.body).unwrap();
        assert!(text.contains(&format!("\"data\":{JSON}")), "request {number}: {text}");
        let event = structured.json();
        for (name, _, text) in ATTRIBUTES {
            assert_eq!(event[name], *text, "request {number}: {event}");
        }
        assert_eq!(event.as_object().unwrap().len(), ATTRIBUTES.len() + 3, "{event}");
        assert_eq!(structured.attribute_names(), [""; 0]);
    }
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn binary_data_passes_unchanged_with_and_without_a_content_type() {
    let subscriber = Subscriber::accepting().await;
    let waypost = both_ways(&subscriber).await;
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let attributes = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    for (number, content_type) in [Some("application/octet-stream"), None].into_iter().enumerate() {
        let mut headers = attributes.to_vec();
        headers.extend(content_type.map(|content_type| ("content-type", content_type)));
        waypost.accept(request(Method::POST, INGRESS, &headers, bytes.clone())).await;
        let (binary, structured) = one_of_each(&subscriber, number * 2).await;
        assert_eq!(binary.body, bytes);
        assert_eq!(binary.header("content-type"), content_type.unwrap_or_default());
        assert_eq!(structured.json()["data_base64"], STANDARD.encode(&bytes));
        assert_eq!(structured.json().get("datacontenttype"), content_type.map(|text| json!(text)).as_ref());
    }
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn no_data_empty_data_and_null_are_three_things() {
    let subscriber = Subscriber::accepting().await;
    let waypost = both_ways(&subscriber).await;
    for (number, (member, body, content_type)) in [
        ("", "", ""),
        (r#","data":null"#, "null", "application/json"),
        (r#","datacontenttype":"text/plain","data":"""#, "", "text/plain"),
    ]
    .into_iter()
    .enumerate()
    {
        let event = format!(r#"{{"specversion":"1.0","id":"{number}","source":"/s","type":"t"{member}}}"#);
        waypost.accept(structured(INGRESS, event.clone())).await;
        let (binary, structured) = one_of_each(&subscriber, number * 2).await;
        assert_eq!(
            (binary.body.as_ref(), binary.header("content-type")),
            (body.as_bytes(), content_type),
            "{event}"
        );
        let delivered = structured.json();
        let sent: serde_json::Value = serde_json::from_str(&event).unwrap();
        assert_eq!(delivered.get("data"), sent.get("data"), "{delivered}");
        assert_eq!(delivered.get("data_base64"), None, "{delivered}");
    }
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn version_0_3_stays_version_0_3() {
    let subscriber = Subscriber::accepting().await;
    let waypost = both_ways(&subscriber).await;
    let headers = [
        ("ce-specversion", "0.3"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-schemaurl", "http://example.com/schema"),
        ("content-type", "application/json"),
    ];
    waypost.accept(request(Method::POST, INGRESS, &headers, "[1]")).await;
    let (binary, structured) = one_of_each(&subscriber, 0).await;
    for (name, value) in headers {
        assert_eq!(binary.header(name), value);
    }
    assert_eq!(binary.body, "[1]");
    let event = structured.json();
    assert_eq!(
        (&event["specversion"], &event["schemaurl"]),
        (&json!("0.3"), &json!("http://example.com/schema"))
    );
    assert_eq!(event["data"], json!([1]));
    waypost.settled().await;
    waypost.stop().await;
}

#[tokio::test]
async fn headers_of_the_request_that_are_passed_on_and_those_that_are_not() {
    let subscriber = Subscriber::accepting().await;
    let waypost =
        Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/a/b?c=d"), json!({}))])).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let passed =
        [("x-request-id", "r-1"), ("knative-anything", "yes"), ("traceparent", trace), ("tracestate", "a=b")];
    let kept = [
        ("knative-activator-num-retries", "3"),
        ("authorization", "Bearer secret"),
        ("cookie", "c"),
        ("x-own", "o"),
    ];
    let headers = [&passed[..], &kept[..]].concat();
    waypost.accept(waypost_tests::client::event(INGRESS, "1", "t", &headers, "")).await;
    let received = &subscriber.wait_for(1).await[0];
    for (name, value) in passed {
        assert_eq!(received.header(name), value, "{name}");
    }
    for (name, _) in kept {
        assert_eq!(received.header(name), "", "{name}");
    }
    assert_eq!((received.header("prefer"), received.header("kn-namespace")), ("reply", "default"));
    assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/a/b?c=d"));
    waypost.settled().await;
    waypost.stop().await;
}
