//! The official test data of CloudEvents, through the ingress.

use bytes::Bytes;
use serde_json::{Value, json};
use waypost_tests::binary::root;
use waypost_tests::client::{self, Raw};
use waypost_tests::process::Waypost;
use waypost_tests::subscriber::Subscriber;

use crate::manifests::{default_broker, trigger};

const INGRESS: &str = "/default/default";

/// The cases of one of the four files of the JSON format.
fn cases(file: &str) -> Vec<Value> {
    let path = root().join("tests/conformance/json-format").join(file);
    let text = std::fs::read(path).unwrap();
    let document: Value = serde_json::from_slice(&text).unwrap();
    document["tests"].as_array().unwrap().clone()
}

/// The event without what says nothing: an attribute that is null is not set.
fn without_nulls(event: &Value) -> String {
    let members = event.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
    let mut members: Vec<_> = members.collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    format!("{members:?}")
}

#[test]
fn the_official_data_is_whole() {
    let count = ["valid-events.json", "invalid-events.json", "valid-batches.json", "invalid-batches.json"]
        .map(|file| cases(file).len());
    assert_eq!(count, [10, 25, 5, 3]);
}

#[tokio::test]
async fn json_format_valid_cases_are_accepted_and_delivered_as_they_are() {
    let subscriber = Subscriber::accepting().await;
    let delivery = json!({"delivery": {"format": "json"}});
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), delivery)])).await;
    let mut expected = Vec::new();
    for case in cases("valid-events.json") {
        waypost.accept(client::structured(INGRESS, case["event"].to_string())).await;
        waypost.accept(client::batch(INGRESS, json!([case["event"]]).to_string())).await;
        expected.extend([without_nulls(&case["event"]), without_nulls(&case["event"])]);
    }
    for case in cases("valid-batches.json") {
        waypost.accept(client::batch(INGRESS, case["batch"].to_string())).await;
        expected.extend(case["batch"].as_array().unwrap().iter().map(without_nulls));
    }
    waypost.settled().await;
    let mut received: Vec<_> =
        subscriber.received().iter().map(|request| without_nulls_or_implied(&request.json())).collect();
    received.sort_unstable();
    expected.sort_unstable();
    assert_eq!(received, expected);
    waypost.stop().await;
}

/// As [`without_nulls`], of what is delivered: it must not hold any null in the first place.
fn without_nulls_or_implied(event: &Value) -> String {
    assert!(
        event.as_object().unwrap().iter().all(|(name, value)| name == "data" || !value.is_null()),
        "{event}"
    );
    without_nulls(event)
}

#[tokio::test]
async fn json_format_invalid_cases_are_refused_with_a_reason() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    let valid = &cases("valid-events.json")[0]["event"];
    for case in cases("invalid-events.json") {
        let id = &case["id"];
        let problem = waypost.send(client::structured(INGRESS, case["event"].to_string())).await.problem(400);
        assert!(problem["code"].as_str().unwrap().starts_with("E06"), "{id}: {problem}");
        // In a batch the place of the fault is told, and nothing of the batch is taken.
        let batch = json!([valid, case["event"]]).to_string();
        let problem = waypost.send(client::batch(INGRESS, batch)).await.problem(400);
        assert_eq!(problem["index"], 1, "{id}: {problem}");
    }
    for case in cases("invalid-batches.json") {
        waypost.send(client::batch(INGRESS, case["batch"].to_string())).await.problem(400);
    }
    let status = waypost.settled().await;
    assert_eq!(status["triggers"][0]["matched"], 0);
    assert_eq!(subscriber.received().len(), 0);
    waypost.stop().await;
}

/// One run of a scenario outline: the request as it goes over the wire, and what must come of it.
#[derive(Debug)]
struct Scenario {
    request: String,
    attributes: Vec<(String, String)>,
    data: Value,
}

/// Reads the scenarios of a feature file, one per row of examples.
fn scenarios(text: &str) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for outline in text.split("Scenario Outline:").skip(1) {
        let documents: Vec<_> = outline.split("\"\"\"").skip(1).step_by(2).map(unindented).collect();
        let [request, data] = documents.try_into().unwrap();
        let (steps, examples) = outline.split_once("Examples:").unwrap();
        let rows = |text: &str| -> Vec<Vec<String>> {
            let rows = text.lines().map(str::trim).filter(|line| line.starts_with('|'));
            rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
                .collect()
        };
        for example in rows(examples).into_iter().skip(1) {
            let fill = |text: &str| text.replace("<contentType>", &example[0]);
            let attributes =
                rows(steps).into_iter().skip(1).map(|row| (row[0].clone(), fill(&row[1]))).collect();
            let data = serde_json::from_str(&data).unwrap();
            scenarios.push(Scenario { request: fill(&request), attributes, data });
        }
    }
    scenarios
}

/// A block of text without the indentation of its first line.
fn unindented(block: &str) -> String {
    let block = block.strip_prefix('\n').unwrap();
    let indentation = block.len() - block.trim_start_matches(' ').len();
    let lines: Vec<_> = block.trim_end_matches(' ').trim_end_matches('\n').lines().collect();
    lines.iter().map(|line| line.get(indentation..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The request with the line ends of HTTP, to our broker instead of `/someresource`.
fn on_the_wire(request: &str) -> Bytes {
    let (head, body) = request.split_once("\n\n").unwrap();
    let head = head.replace("/someresource", INGRESS).replace('\n', "\r\n");
    Bytes::from(format!("{head}\r\n\r\n{body}"))
}

#[tokio::test]
async fn the_http_feature_file_holds() {
    let subscriber = Subscriber::accepting().await;
    let waypost = Waypost::start(&default_broker(&[trigger("all", &subscriber.url("/"), json!({}))])).await;
    let path = root().join("tests/conformance/features/http-protocol-binding.feature");
    let scenarios = scenarios(&std::fs::read_to_string(path).unwrap());
    assert_eq!(scenarios.len(), 4);
    for (number, scenario) in scenarios.iter().enumerate() {
        let mut socket = Raw::connect(waypost.ingress).await;
        socket.write(on_the_wire(&scenario.request)).await;
        let answer = socket.read_until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{scenario:?}: {answer}");

        let received = &subscriber.wait_for(number + 1).await[number];
        let mut attributes: Vec<_> = received.attribute_names().iter().map(ToString::to_string).collect();
        attributes.push("datacontenttype".to_owned());
        assert_eq!(attributes.len(), scenario.attributes.len(), "{received:?}");
        for (name, value) in &scenario.attributes {
            let header =
                if name == "datacontenttype" { "content-type".to_owned() } else { format!("ce-{name}") };
            assert_eq!(received.header(&header), value, "{name} of {received:?}");
        }
        assert_eq!(received.json(), scenario.data);
    }
    waypost.settled().await;
    waypost.stop().await;
}
