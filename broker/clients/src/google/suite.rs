use std::collections::HashMap;
use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Status;
use waypost_core::manifest::{ResourceName, Secrets};

use super::pub_sub::{TestPermissionsRequest, TestPermissionsResponse};
use super::*;

#[test]
fn each_failure_has_its_meaning() {
    for (code, kind) in [
        (Code::Unauthenticated, ProblemKind::Unauthorized),
        (Code::PermissionDenied, ProblemKind::Unauthorized),
        (Code::NotFound, ProblemKind::Absent),
        (Code::InvalidArgument, ProblemKind::Settings),
        (Code::FailedPrecondition, ProblemKind::Settings),
        (Code::Unimplemented, ProblemKind::Settings),
        (Code::ResourceExhausted, ProblemKind::Overloaded),
        (Code::Unavailable, ProblemKind::Unavailable),
        (Code::DeadlineExceeded, ProblemKind::Unavailable),
        (Code::Internal, ProblemKind::Unavailable),
        (Code::Unknown, ProblemKind::Unavailable),
        (Code::Cancelled, ProblemKind::Unavailable),
    ] {
        let problem = classify(&Status::new(code, "no"));
        assert_eq!(problem.kind, kind, "{code:?}");
        assert!(problem.detail.starts_with("Google: no ("), "{problem}");
    }
}

#[test]
fn addresses_that_are_none_are_told() {
    let problems = |endpoint| GoogleConnection { endpoint: Some(endpoint), auth: None }.problems().len();
    for right in ["http://127.0.0.1:8085", "https://europe-west1-pubsub.googleapis.com"] {
        assert_eq!(problems(right), 0, "{right}");
    }
    for wrong in ["", "127.0.0.1:8085", "http://", "http://a/b", "ftp://a"] {
        assert_eq!(problems(wrong), 1, "{wrong}");
    }
}

#[tokio::test]
async fn who_nobody_is_named_for_is_the_machine_and_at_an_emulator_nobody() {
    let name = ResourceName::new("shop", "in");
    let context = ComponentContext { name, secrets: Secrets::new(HashMap::new(), HashMap::new()) };
    let subscriber = |endpoint| {
        let connection = GoogleConnection { endpoint, auth: None };
        connection.subscriber(&context, "projects/p/subscriptions/s").unwrap()
    };
    assert!(format!("{:?}", subscriber(None)).contains("the machine"));
    assert!(format!("{:?}", subscriber(Some("http://127.0.0.1:1"))).contains("none"));
    let problem = subscriber(Some("http://127.0.0.1:1")).find().await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Unavailable, "{problem}");
    let absent = GoogleAuth::ServiceAccountKey(SecretValue::Env("NONE".to_owned()));
    let connection = GoogleConnection { endpoint: None, auth: Some(&absent) };
    let problem = connection.subscriber(&context, "projects/p/subscriptions/s").unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Settings);
}

/// Google as far as rights go: it lets nobody look at the subscription, and says `tested` about permissions.
async fn google_saying(tested: Result<Vec<String>, Code>) -> (Subscriber, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request| answer(request, tested.clone()));
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // The client goes in the end.
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
    let name = ResourceName::new("shop", "in");
    let context = ComponentContext { name, secrets: Secrets::new(HashMap::new(), HashMap::new()) };
    let connection = GoogleConnection { endpoint: Some(&endpoint), auth: None };
    (connection.subscriber(&context, "projects/p/subscriptions/s").unwrap(), serving)
}

type GrpcBody = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    tested: Result<Vec<String>, Code>,
) -> Result<Response<GrpcBody>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (code, message) = match head.uri.path() {
        "/google.iam.v1.IAMPolicy/TestIamPermissions" => {
            let asked = TestPermissionsRequest::decode(&body[5..]).unwrap();
            assert_eq!(asked.resource, "projects/p/subscriptions/s");
            assert_eq!(asked.permissions, ["pubsub.subscriptions.consume"]);
            assert_eq!(head.headers["x-goog-request-params"], "resource=projects%2Fp%2Fsubscriptions%2Fs");
            match tested {
                Ok(permissions) => (Code::Ok, TestPermissionsResponse { permissions }.encode_to_vec()),
                Err(code) => (code, Vec::new()),
            }
        }
        _ => (Code::PermissionDenied, Vec::new()),
    };
    // A message of gRPC: not compressed, and its length.
    let mut data = BytesMut::new();
    if code == Code::Ok {
        data.extend_from_slice(&[0]);
        data.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        data.extend_from_slice(&message);
    }
    let status = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from(i32::from(code)),
    )]);
    let body = Full::new(data.freeze()).with_trailers(std::future::ready(Some(Ok(status)))).boxed();
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

#[tokio::test]
async fn who_may_not_consume_is_told_before_the_first_pull() {
    let consume = || "pubsub.subscriptions.consume".to_owned();
    let (may, _serving) = google_saying(Ok(vec![consume()])).await;
    assert_eq!(may.find().await.unwrap(), None, "who may only consume may not look");
    assert_eq!(may.check_rights().await, Ok(()));

    let (may_not, _serving) = google_saying(Ok(Vec::new())).await;
    let problem = may_not.check_rights().await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Unauthorized);
    assert!(problem.detail.contains("roles/pubsub.subscriber"), "{problem}");

    let (emulator, _serving) = google_saying(Err(Code::Unimplemented)).await;
    assert_eq!(emulator.check_rights().await, Ok(()), "an emulator does not know");

    let (away, _serving) = google_saying(Err(Code::Unavailable)).await;
    assert_eq!(away.check_rights().await.unwrap_err().kind, ProblemKind::Unavailable);
}
