use waypost_core::manifest::{ResourceName, Secrets};

use super::*;

fn context() -> ComponentContext {
    ComponentContext { name: ResourceName::new("default", "x"), secrets: Secrets::default() }
}

fn connection<'c>(region: Option<&'c str>, endpoint: Option<&'c str>) -> AwsConnection<'c> {
    AwsConnection { region, endpoint, credentials: None, assume_role: None, tls: None }
}

fn keys() -> AwsCredentials {
    AwsCredentials {
        access_key_id: SecretValue::Value("AKIDEXAMPLE".to_owned()),
        secret_access_key: SecretValue::Value("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
        session_token: None,
    }
}

#[test]
fn each_failure_has_its_meaning() {
    use ProblemKind::{Absent, Overloaded, Refused, Settings, Unauthorized, Unavailable};
    let json = |code: &str| format!(r#"{{"__type": "com.amazonaws.sqs#{code}", "message": "why"}}"#);
    let xml = |code: &str| {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>why</Message></Error>")
    };
    for (service, status, body, kind) in [
        (AwsService::Sqs, 400, json("QueueDoesNotExist"), Absent),
        (AwsService::Sqs, 400, json("AccessDeniedException"), Unauthorized),
        (AwsService::Sqs, 403, json("InvalidClientTokenId"), Unauthorized),
        (AwsService::Sqs, 400, json("UnrecognizedClientException"), Unauthorized),
        (AwsService::Sqs, 400, json("ExpiredTokenException"), Unauthorized),
        (AwsService::Sqs, 400, json("ThrottlingException"), Overloaded),
        (AwsService::Sqs, 403, json("OverLimit"), Overloaded),
        (AwsService::Sqs, 400, json("UnsupportedOperation"), Settings),
        (AwsService::Sqs, 500, json("InternalFailure"), Unavailable),
        (AwsService::Sqs, 400, json("SomethingNew"), Refused),
        (AwsService::S3, 404, xml("NoSuchBucket"), Absent),
        (AwsService::S3, 403, xml("SignatureDoesNotMatch"), Unauthorized),
        (AwsService::S3, 403, xml("InvalidAccessKeyId"), Unauthorized),
        (AwsService::S3, 403, xml("RequestTimeTooSkewed"), Unauthorized),
        (AwsService::S3, 503, xml("SlowDown"), Overloaded),
        (AwsService::S3, 400, xml("RequestTimeout"), Unavailable),
        (AwsService::S3, 409, xml("OperationAborted"), Unavailable),
        (AwsService::S3, 409, xml("ConditionalRequestConflict"), Unavailable),
        (AwsService::S3, 400, xml("AuthorizationHeaderMalformed"), Settings),
        (AwsService::S3, 301, xml("PermanentRedirect"), Settings),
        (AwsService::S3, 400, xml("KeyTooLongError"), Refused),
        (AwsService::S3, 400, xml("EntityTooLarge"), Refused),
        (AwsService::S3, 403, String::new(), Unauthorized),
        (AwsService::S3, 404, String::new(), Absent),
        (AwsService::S3, 429, String::new(), Overloaded),
        (AwsService::S3, 502, "<html>".to_owned(), Unavailable),
        (AwsService::S3, 413, String::new(), Refused),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let problem = classify(service, status, &HeaderMap::new(), body.as_bytes());
        assert_eq!(problem.kind, kind, "{service:?} {status} {body}: {problem}");
        assert!(!problem.detail.ends_with('.'), "{problem}");
    }
}

#[test]
fn the_older_name_of_an_error_does_too() {
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("x-amzn-query-error"),
        HeaderValue::from_static("AWS.SimpleQueueService.NonExistentQueue;Sender"),
    )]);
    let problem = classify(AwsService::Sqs, StatusCode::BAD_REQUEST, &headers, b"{}");
    assert_eq!(problem.kind, ProblemKind::Absent, "{problem}");
}

#[test]
fn settings_are_checked_without_asking_anyone() {
    assert_eq!(connection(Some("eu-central-1"), Some("http://localhost:9324")).problems(), []);
    for (region, endpoint, path) in [
        (Some("EU Central"), None, "region"),
        (Some(""), None, "region"),
        (None, Some("localhost:9324"), "endpoint"),
        (None, Some("ftp://localhost"), "endpoint"),
        (None, Some("http://localhost/?a=b"), "endpoint"),
    ] {
        let problems = connection(region, endpoint).problems();
        assert_eq!(problems.iter().map(|problem| &*problem.path).collect::<Vec<_>>(), [path]);
    }
    let role = AwsRole { arn: "role/x".to_owned(), external_id: None, session_name: None };
    let connection = AwsConnection { assume_role: Some(&role), ..connection(None, None) };
    assert_eq!(connection.problems()[0].path, "assumeRole.arn");
}

#[test]
fn authorities_that_are_none_are_told_and_secrets_are_not_shown() {
    let tls = AwsTls { ca: Some(SecretValue::Value("no certificate".to_owned())) };
    let keys = keys();
    let with_ca = AwsConnection { tls: Some(&tls), ..connection(Some("us-east-1"), None) };
    let problem = with_ca.client(AwsService::Sqs, &context()).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Settings);
    let with_keys = AwsConnection { credentials: Some(&keys), ..connection(Some("us-east-1"), None) };
    let client = with_keys.client(AwsService::Sqs, &context()).unwrap();
    assert!(!format!("{client:?}").contains("wJalr"));
}

#[tokio::test]
async fn the_place_is_that_of_the_region_or_of_the_endpoint() {
    let keys = keys();
    for (region, endpoint, expected, is_aws) in [
        ("eu-central-1", None, "https://sqs.eu-central-1.amazonaws.com", true),
        ("cn-north-1", None, "https://sqs.cn-north-1.amazonaws.com.cn", true),
        ("us-east-1", Some("http://localhost:9324/"), "http://localhost:9324", false),
    ] {
        let connection = AwsConnection { credentials: Some(&keys), ..connection(Some(region), endpoint) };
        let client = connection.client(AwsService::Sqs, &context()).unwrap();
        let place = client.place().await.unwrap();
        assert_eq!((&*place.region, &*place.endpoint, place.is_aws), (region, expected, is_aws));
    }
}

#[tokio::test]
async fn another_region_of_aws_is_gone_to() {
    let keys = keys();
    let connection = AwsConnection { credentials: Some(&keys), ..connection(Some("us-east-1"), None) };
    let client = connection.client(AwsService::S3, &context()).unwrap();
    assert_eq!(client.place().await.unwrap().endpoint, "https://s3.us-east-1.amazonaws.com");
    client.move_to("eu-central-1");
    let place = client.place().await.unwrap();
    assert_eq!((&*place.region, &*place.endpoint), ("eu-central-1", "https://s3.eu-central-1.amazonaws.com"));
}

#[tokio::test]
async fn nobody_there_may_pass() {
    let keys = keys();
    let connection = AwsConnection {
        credentials: Some(&keys),
        ..connection(Some("us-east-1"), Some("http://127.0.0.1:1"))
    };
    let client = connection.client(AwsService::S3, &context()).unwrap();
    let problem = s3::Bucket::new(client, "orders".to_owned(), None).probe().await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Unavailable, "{problem}");
}
