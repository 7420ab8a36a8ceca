use std::net::SocketAddr;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use waypost_clients::http::PoolOptions;
use waypost_core::Class;
use waypost_core::event::SpecVersion;
use waypost_core::event::http::{
    BATCH_JSON, DecodeOptions, Decoded, binary_head, decode, encode_batch, encode_binary,
};

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

type Heard = (HeaderMap, Vec<u8>);

/// Answers the requests of one connection in order, then stays silent.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Heard>>>,
    _task: JoinSet<()>,
}

impl Server {
    async fn answering(answers: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let answers: Vec<Vec<u8>> = answers.into_iter().map(Into::into).collect();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            for answer in answers {
                let request = request(&mut stream).await;
                heard.lock().push(request);
                stream.write_all(&answer).await.expect("written");
            }
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        });
        Self { address, requests, _task: task }
    }

    fn subscriber(&self, change: impl FnOnce(&mut HttpOptions)) -> HttpSubscriber {
        let mut options = HttpOptions {
            namespace: "default".to_owned(),
            format: Format::Binary,
            timeout: Duration::from_secs(20),
            strict_replies: false,
            max_reply_bytes: 1024,
        };
        change(&mut options);
        let pool = Arc::new(Pool::new(PoolOptions::default()));
        HttpSubscriber::new(&pool, &destination(format!("http://{}/in", self.address)), options)
            .expect("a URL")
    }

    fn request(&self) -> Heard {
        self.requests.lock().last().expect("a request").clone()
    }
}

async fn request(stream: &mut TcpStream) -> Heard {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.expect("a request"));
    }
    let head = String::from_utf8(bytes).expect("ASCII");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /in HTTP/1.1"));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let length = headers.get("content-length").map_or("0", |length| length.to_str().expect("digits"));
    let mut body = vec![0; length.parse().expect("a length")];
    stream.read_exact(&mut body).await.expect("the body");
    (headers, body)
}

fn destination(url: String) -> HttpDestination {
    HttpDestination { url, ca_certificates: None, audience: None }
}

fn event() -> Event {
    let builder = Event::builder("1", "/shop", "order").json_data(&b"{\"n\": 1.0}"[..]);
    builder.attribute("comexample", "ä %").build().expect("valid")
}

fn outgoing(event: &Event) -> Outgoing<'_> {
    Outgoing { event, head: None, passed_headers: &[], want_reply: true, now: NOW }
}

/// An answer with a status line, headers and a body whose length is told.
fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// A reply with `event` in binary mode.
fn binary_reply(event: &Event) -> Vec<u8> {
    let mut headers = HeaderMap::new();
    encode_binary(event, &mut headers);
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().expect("ASCII")));
    answer("200 OK", &lines.collect::<String>(), event.data_bytes().unwrap_or_default())
}

async fn delivered(answer: impl Into<Vec<u8>>, change: impl FnOnce(&mut HttpOptions)) -> Answer {
    let server = Server::answering([answer]).await;
    let event = event();
    server.subscriber(change).lane().deliver(&outgoing(&event)).await
}

async fn failure(answer: impl Into<Vec<u8>>) -> DeliveryError {
    match delivered(answer, |_| {}).await {
        Answer::Failed(error) => error,
        other => panic!("{other:?}"),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("ASCII")).collect()
}

const ACCEPTED: &str = "202 Accepted";

#[tokio::test]
async fn an_event_goes_out_in_binary_mode_on_one_connection() {
    // Of the headers of an answer nothing is left in the next request.
    let server = Server::answering(vec![answer(ACCEPTED, "x-left: 1\r\nset-cookie: a=b\r\n", ""); 3]).await;
    let mut lane = server.subscriber(|_| {}).lane();
    let (event, expected) = (event(), Answer::Delivered { status: Some(202), body_ignored: false });
    let head = binary_head(&event);
    for head in [None, Some(&head), None] {
        assert_eq!(lane.deliver(&Outgoing { head, ..outgoing(&event) }).await, expected);
        let (headers, body) = server.request();
        assert_eq!(decode(&headers, &body, &DecodeOptions::default()), Ok(Decoded::Event(event.clone())));
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "ce-comexample",
                "ce-id",
                "ce-source",
                "ce-specversion",
                "ce-type",
                "content-length",
                "content-type",
                "host",
                "kn-namespace",
                "prefer",
                "user-agent"
            ]
        );
        assert_eq!(headers.len(), names.len(), "no header stands twice");
        assert_eq!(header(&headers, "host"), [server.address.to_string()]);
        assert_eq!(header(&headers, "prefer"), ["reply"]);
        assert_eq!(header(&headers, "kn-namespace"), ["default"]);
        assert_eq!(header(&headers, "user-agent"), [concat!("waypost/", env!("CARGO_PKG_VERSION"))]);
    }
    assert_eq!(server.requests.lock().len(), 3);
}

#[tokio::test]
async fn an_event_without_data_has_neither_content_type_nor_body() {
    let server = Server::answering([answer(ACCEPTED, "", "")]).await;
    let bare = Event::builder("1", "/shop", "order").build().expect("valid");
    server.subscriber(|_| {}).lane().deliver(&outgoing(&bare)).await;
    let (headers, body) = server.request();
    assert!(body.is_empty() && !headers.contains_key("content-type"));
    assert_eq!(header(&headers, "content-length"), ["0"]);
}

#[tokio::test]
async fn json_is_sent_where_it_is_asked_for_or_binary_mode_would_be_misread() {
    let nested = Event::builder("1", "/shop", "order").data_content_type(STRUCTURED_JSON).data(&b"{}"[..]);
    let nested = nested.build().expect("valid");
    for (event, format) in [(event(), Format::Json), (nested, Format::Binary)] {
        let server = Server::answering([answer(ACCEPTED, "", "")]).await;
        let mut lane = server.subscriber(|options| options.format = format).lane();
        let head = binary_head(&event);
        lane.deliver(&Outgoing { head: Some(&head), ..outgoing(&event) }).await;
        let (headers, body) = server.request();
        assert_eq!(header(&headers, "content-type"), [STRUCTURED_JSON]);
        assert!(!headers.contains_key("ce-id"));
        assert_eq!(decode(&headers, &body, &DecodeOptions::default()), Ok(Decoded::Event(event.clone())));
    }
}

#[tokio::test]
async fn only_known_headers_of_the_producer_are_passed_on() {
    let server = Server::answering([answer(ACCEPTED, "", "")]).await;
    let passed: Vec<(Bytes, Bytes)> = [
        ("X-Request-Id", "r1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=b"),
        ("Knative-Thing", "k"),
        ("Knative-Activator-Num-Retries", "3"),
        ("ce-id", "forged"),
        ("content-type", "text/forged"),
        ("content-length", "99999"),
        ("host", "forged"),
        ("transfer-encoding", "chunked"),
        ("authorization", "secret"),
        ("bad name", "x"),
        ("knative-bad", "a\r\nb: c"),
    ]
    .map(|(name, value)| (Bytes::from(name), Bytes::from(value)))
    .to_vec();
    let event = event();
    let outgoing = Outgoing { passed_headers: &passed, ..outgoing(&event) };
    server.subscriber(|_| {}).lane().deliver(&outgoing).await;
    let (headers, body) = server.request();
    assert_eq!(header(&headers, "x-request-id"), ["r1"]);
    assert_eq!(header(&headers, "tracestate"), ["a=b"]);
    assert_eq!(header(&headers, "knative-thing"), ["k"]);
    assert_eq!(header(&headers, "traceparent").len(), 1);
    for name in ["knative-activator-num-retries", "authorization", "transfer-encoding", "knative-bad", "b"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(header(&headers, "ce-id"), ["1"]);
    assert_eq!(decode(&headers, &body, &DecodeOptions::default()), Ok(Decoded::Event(event.clone())));
}

#[tokio::test]
async fn an_event_in_the_answer_is_a_reply_in_any_mode_under_any_2xx() {
    let (one, two) = (event(), Event::builder("2", "/shop", "paid").build().expect("valid"));
    let old = one.to_builder().spec_version(SpecVersion::V03).build().expect("valid");
    let json = |content_type: &str, body: Bytes| {
        answer("202 Accepted", &format!("content-type: {content_type}; charset=utf-8\r\n"), body)
    };
    let two_of_them = vec![one.clone(), two.clone()];
    for (answer, expected, status) in [
        (binary_reply(&one), vec![one.clone()], 200),
        (binary_reply(&two), vec![two.clone()], 200),
        (binary_reply(&old), vec![old.clone()], 200),
        (json(STRUCTURED_JSON, encode_structured(&one)), vec![one.clone()], 202),
        (json(BATCH_JSON, encode_batch(&two_of_them)), two_of_them.clone(), 202),
    ] {
        let answered = delivered(answer, |options| options.strict_replies = true).await;
        assert_eq!(answered, Answer::Replied { status: Some(status), events: expected });
    }
    let none = delivered(json(BATCH_JSON, Bytes::from_static(b"[]")), |_| {}).await;
    assert_eq!(none, Answer::Delivered { status: Some(202), body_ignored: false });
}

#[tokio::test]
async fn a_reply_that_nobody_wants_is_not_read() {
    let server = Server::answering([answer("200 OK", "ce-specversion: 1.0\r\n", "broken")]).await;
    let event = event();
    let unwanted = Outgoing { want_reply: false, ..outgoing(&event) };
    let answered = server.subscriber(|options| options.strict_replies = true).lane().deliver(&unwanted).await;
    assert_eq!(answered, Answer::Delivered { status: Some(200), body_ignored: true });
    assert!(!server.request().0.contains_key("prefer"));
}

#[tokio::test]
async fn a_plain_body_is_ignored_unless_the_broker_is_strict() {
    let plain = || answer("200 OK", "content-type: text/html\r\n", "<html>");
    let answered = delivered(plain(), |_| {}).await;
    assert_eq!(answered, Answer::Delivered { status: Some(200), body_ignored: true });
    let Answer::Failed(error) = delivered(plain(), |options| options.strict_replies = true).await else {
        panic!("a strict broker takes no plain body")
    };
    assert_eq!(
        (error.code, error.class, error.status),
        (codes::REPLY_NOT_AN_EVENT, Class::Retryable, Some(200))
    );
    assert_eq!(error.body_excerpt.as_deref(), Some(&b"<html>"[..]));
    let empty = delivered(answer("204 No Content", "", ""), |options| options.strict_replies = true).await;
    assert_eq!(empty, Answer::Delivered { status: Some(204), body_ignored: false });
}

#[tokio::test]
async fn a_malformed_reply_is_a_failed_delivery_that_may_pass() {
    for answer in [
        answer("200 OK", "ce-specversion: 1.0\r\nce-id: 1\r\n", ""),
        answer("200 OK", "content-type: application/cloudevents+json\r\n", "{\"id\": "),
        answer("200 OK", "content-type: application/cloudevents+json\r\n", ""),
        answer("200 OK", "content-type: application/cloudevents-batch+json\r\n", "[{}]"),
        answer("200 OK", "content-type: application/cloudevents+avro\r\n", "x"),
    ] {
        let error = failure(answer).await;
        assert_eq!(
            (error.code, error.class, error.status),
            (codes::REPLY_MALFORMED, Class::Retryable, Some(200))
        );
        assert!(!error.congested);
    }
}

#[tokio::test]
async fn a_reply_over_the_limit_is_permanent() {
    let sized = |bytes: usize| {
        Event::builder("1", "/shop", "order").data_content_type("text/plain").data(vec![b'x'; bytes]).build()
    };
    let large = sized(2000).expect("valid");
    let structured = "content-type: application/cloudevents+json\r\n";
    let huge = answer("200 OK", structured, encode_structured(&sized(20_000).expect("valid")));
    let batch = vec![sized(10).expect("valid"), large.clone()];
    let batch =
        answer("200 OK", "content-type: application/cloudevents-batch+json\r\n", encode_batch(&batch));
    for answer in [binary_reply(&large), answer("200 OK", structured, encode_structured(&large)), huge, batch]
    {
        let error = failure(answer).await;
        assert_eq!(
            (error.code, error.class, error.status),
            (codes::REPLY_TOO_LARGE, Class::Permanent, Some(200))
        );
    }
    let fitting = sized(900).expect("valid");
    let answered = delivered(binary_reply(&fitting), |_| {}).await;
    assert_eq!(answered, Answer::Replied { status: Some(200), events: vec![fitting] });
}

#[tokio::test]
async fn a_refusal_tells_status_body_and_wait() {
    let error = failure(answer("503 Service Unavailable", "retry-after: 7\r\n", "<html>\n")).await;
    assert_eq!((error.code, error.class), (codes::SUBSCRIBER_STATUS_RETRYABLE, Class::Retryable));
    assert_eq!((error.status, error.congested), (Some(503), true));
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(error.body_excerpt.as_deref(), Some(&b"<html>\n"[..]));

    let error = failure(answer("429 Slow Down", "retry-after: Tue, 14 Nov 2023 22:15:20 GMT\r\n", "")).await;
    assert_eq!((error.retry_after, error.body_excerpt), (Some(Duration::from_secs(120)), None));

    let error = failure(answer("500 Oh", "retry-after: 7\r\n", "x".repeat(10_000))).await;
    assert_eq!((error.retry_after, error.congested), (None, false));
    assert_eq!(error.body_excerpt.map(|body| body.len()), Some(waypost_core::error::BODY_EXCERPT_LIMIT));

    let error = failure(answer("422 Unprocessable", "ce-specversion: 1.0\r\n", "no")).await;
    assert_eq!((error.code, error.class), (codes::SUBSCRIBER_STATUS_PERMANENT, Class::Permanent));

    let error = failure(answer("302 Found", "location: /other\r\n", "")).await;
    assert_eq!((error.class, error.status), (Class::Permanent, Some(302)));
    assert!(error.detail.contains("not followed"), "{error}");

    let error = failure("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n").await;
    assert_eq!((error.class, error.status), (Class::Permanent, Some(101)));
}

#[tokio::test]
async fn a_refusal_stands_although_its_body_never_ends() {
    let error = failure("HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\nabc").await;
    assert_eq!((error.class, error.status, error.body_excerpt), (Class::Permanent, Some(400), None));
}

#[tokio::test]
async fn no_answer_in_time_is_a_timeout_and_the_lane_goes_on() {
    for beginning in [
        "",
        "HTTP/1.1 200 OK\r\nce-spec",
        "HTTP/1.1 200 OK\r\nce-specversion: 1.0\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let limit = Duration::from_millis(50);
        let Answer::Failed(error) = delivered(beginning, |options| options.timeout = limit).await else {
            panic!("an answer to {beginning:?}")
        };
        assert_eq!((error.code, error.class), (codes::SUBSCRIBER_TIMEOUT, Class::Retryable), "{beginning:?}");
        assert!(error.congested && error.status.is_none());
    }
}

#[tokio::test]
async fn a_timer_is_set_anew_for_each_attempt() {
    let server = Server::answering(vec![answer(ACCEPTED, "", ""); 2]).await;
    let limit = Duration::from_millis(400);
    let mut lane = server.subscriber(|options| options.timeout = limit).lane();
    let event = event();
    for _ in 0..2 {
        let answered = lane.deliver(&outgoing(&event)).await;
        assert_eq!(answered, Answer::Delivered { status: Some(202), body_ignored: false });
        // By the second attempt the first one's time is up.
        tokio::time::sleep(limit).await;
    }
    let Answer::Failed(error) = lane.deliver(&outgoing(&event)).await else {
        panic!("an answer from a silent server")
    };
    assert_eq!(error.code, codes::SUBSCRIBER_TIMEOUT);
}

#[tokio::test]
async fn a_subscriber_that_is_away_is_congestion() {
    let unused =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let server = Server::answering([""]).await;
    let subscriber = server.subscriber(|_| {});
    let options = subscriber.terms.options.clone();
    let away = HttpSubscriber::new(&subscriber.pool, &destination(format!("http://{unused}")), options);
    let event = event();
    let Answer::Failed(error) = away.expect("a URL").lane().deliver(&outgoing(&event)).await else {
        panic!("an answer from nobody")
    };
    assert_eq!((error.code, error.class), (codes::SUBSCRIBER_UNREACHABLE, Class::Retryable));
    assert!(error.congested && error.status.is_none());
}

#[tokio::test]
async fn a_destination_that_cannot_be_sent_to_is_a_misconfiguration() {
    let server = Server::answering([""]).await;
    let working = server.subscriber(|_| {});
    assert_eq!(working.destination(), format!("http://{}/in", server.address));
    let make = |destination: HttpDestination| {
        HttpSubscriber::new(&working.pool, &destination, working.terms.options.clone())
    };
    let error = make(destination("ftp://example.com".to_owned())).expect_err("no HTTP");
    assert_eq!((error.code, error.class), (codes::URL_INVALID, Class::Misconfigured));
    let certificates = Some("nonsense".to_owned());
    let untrusted = HttpDestination { ca_certificates: certificates, ..destination("https://a".to_owned()) };
    let error = make(untrusted).expect_err("no certificates");
    assert_eq!((error.code, error.class), (codes::CERTIFICATES_INVALID, Class::Misconfigured));
}

proptest! {
    #[test]
    fn no_passed_header_makes_it_panic(name in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(name) = passed_name(&name) {
            let name = name.as_str();
            prop_assert!(!name.starts_with("ce-") && name != "host" && !name.starts_with("content-"));
        }
    }
}

#[test]
fn a_length_that_is_still_in_use_is_not_written_over() {
    let mut lengths = Lengths::default();
    let held: Vec<_> = (0..100).map(|length| lengths.of(length * 12)).collect();
    for (length, text) in held.iter().enumerate() {
        assert_eq!(*text, (length * 12).to_string());
    }
    drop(held);
    for length in [0, 1_234, usize::MAX] {
        assert_eq!(lengths.of(length), length.to_string());
    }
}
