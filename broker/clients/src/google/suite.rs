use std::collections::HashMap;

use tonic::Status;
use waypost_core::manifest::{ResourceName, Secrets};

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
