use waypost_core::manifest::Secrets;

use super::*;

fn answer(status: u16, code: u64) -> jetstream::Error {
    serde_json::from_value(serde_json::json!({"code": status, "err_code": code, "description": "no"}))
        .unwrap()
}

#[test]
fn each_failure_has_its_meaning() {
    type Failure = Box<dyn StdError>;
    let connect = |kind| -> Failure { Box::new(async_nats::ConnectError::new(kind)) };
    let said = |text: &str| -> Failure {
        Box::new(async_nats::ConnectError::with_source(
            ConnectErrorKind::Io,
            std::io::Error::other(text.to_owned()),
        ))
    };
    let untrusted = || -> Failure {
        let error = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        Box::new(async_nats::ConnectError::with_source(ConnectErrorKind::Io, error))
    };
    let publish = |kind| -> Failure { Box::new(async_nats::PublishError::new(kind)) };
    let to_stream = |kind| -> Failure { Box::new(jetstream::context::PublishError::new(kind)) };
    let stored = |status, code| -> Failure {
        let kind = StreamPublishErrorKind::Other;
        Box::new(jetstream::context::PublishError::with_source(kind, answer(status, code)))
    };
    let consumer = |kind| -> Failure { Box::new(jetstream::stream::ConsumerError::new(kind)) };
    let stream = |kind| -> Failure { Box::new(jetstream::context::GetStreamError::new(kind)) };
    let named = |kind| -> Failure { Box::new(jetstream::context::GetStreamByNameError::new(kind)) };
    let asked = |kind| -> Failure {
        let error = jetstream::context::RequestError::new(kind);
        Box::new(jetstream::context::GetStreamError::with_source(GetStreamErrorKind::Request, error))
    };
    for (failure, kind) in [
        (connect(ConnectErrorKind::Io), ProblemKind::Unavailable),
        (connect(ConnectErrorKind::Dns), ProblemKind::Unavailable),
        (connect(ConnectErrorKind::TimedOut), ProblemKind::Unavailable),
        (connect(ConnectErrorKind::AuthorizationViolation), ProblemKind::Unauthorized),
        (connect(ConnectErrorKind::Authentication), ProblemKind::Unauthorized),
        (connect(ConnectErrorKind::Tls), ProblemKind::Unauthorized),
        (said("User Authentication Expired"), ProblemKind::Unauthorized),
        (said("connection reset by peer"), ProblemKind::Unavailable),
        (untrusted(), ProblemKind::Unauthorized),
        (publish(PublishErrorKind::MaxPayloadExceeded), ProblemKind::Refused),
        (publish(PublishErrorKind::Send), ProblemKind::Unavailable),
        (to_stream(StreamPublishErrorKind::StreamNotFound), ProblemKind::Absent),
        (to_stream(StreamPublishErrorKind::MaxPayloadExceeded), ProblemKind::Refused),
        (to_stream(StreamPublishErrorKind::MaxAckPending), ProblemKind::Overloaded),
        (to_stream(StreamPublishErrorKind::TimedOut), ProblemKind::Unavailable),
        // The message is larger than the stream takes; the stream is full; the stream is sealed.
        (stored(400, 10_054), ProblemKind::Refused),
        (stored(503, 10_077), ProblemKind::Unavailable),
        (stored(400, 10_109), ProblemKind::Settings),
        (stored(429, 10_000), ProblemKind::Overloaded),
        (stored(403, 10_000), ProblemKind::Unauthorized),
        (stream(GetStreamErrorKind::JetStream(answer(404, 10_059))), ProblemKind::Absent),
        (stream(GetStreamErrorKind::JetStream(answer(503, 10_076))), ProblemKind::Absent),
        (stream(GetStreamErrorKind::JetStream(answer(503, 10_008))), ProblemKind::Unavailable),
        (asked(RequestErrorKind::NoResponders), ProblemKind::Absent),
        (asked(RequestErrorKind::TimedOut), ProblemKind::Unavailable),
        (named(GetStreamByNameErrorKind::NotFound), ProblemKind::Absent),
        (consumer(ConsumerErrorKind::InvalidConsumerType), ProblemKind::Settings),
        (consumer(ConsumerErrorKind::JetStream(answer(404, 10_014))), ProblemKind::Absent),
        (consumer(ConsumerErrorKind::TimedOut), ProblemKind::Unavailable),
    ] {
        assert_eq!(classify(&*failure, None).kind, kind, "{failure:?}");
    }
}

#[test]
fn who_is_refused_gets_no_answer_and_a_clear_answer_means_itself() {
    let timed_out = jetstream::context::PublishError::new(StreamPublishErrorKind::TimedOut);
    let problem = classify(&timed_out, Some("Permissions Violation for Publish to \"orders\""));
    assert_eq!(problem.kind, ProblemKind::Unauthorized);
    assert!(problem.detail.contains("\"orders\""), "{problem}");
    let large = jetstream::context::PublishError::new(StreamPublishErrorKind::MaxPayloadExceeded);
    assert_eq!(classify(&large, Some("Authorization Violation")).kind, ProblemKind::Refused);
}

#[test]
fn a_connection_stands_until_it_is_lost_and_again_when_it_is_back() {
    let heard = Heard::default();
    let kind = |heard: &Heard| heard.standing.borrow().as_ref().map(|problem| problem.kind);
    assert_eq!(kind(&heard), None);
    heard.hear(&Event::Disconnected);
    assert_eq!(kind(&heard), Some(ProblemKind::Unavailable));
    heard.hear(&Event::ClientError(ClientError::Other("IO error".to_owned())));
    assert_eq!(kind(&heard), Some(ProblemKind::Unavailable));
    heard.hear(&Event::ClientError(ClientError::Other("authorization violation".to_owned())));
    assert_eq!(kind(&heard), Some(ProblemKind::Unauthorized));
    heard.hear(&Event::Connected);
    assert_eq!(kind(&heard), None);
    let violation = "Permissions Violation for Publish to \"orders\"".to_owned();
    heard.hear(&Event::ServerError(ServerError::Other(violation)));
    assert_eq!(kind(&heard), None);
    assert!(heard.refusal(|text| text.contains("\"orders\"")).is_some());
    assert!(heard.refusal(|text| text.contains("\"order\"")).is_none());
}

#[tokio::test]
async fn secrets_that_are_not_there_or_not_what_they_should_be_are_faults_of_the_settings() {
    let servers = ["nats://127.0.0.1:1".to_owned()];
    let context = ComponentContext { name: ResourceName::new("shop", "in"), secrets: Secrets::default() };
    let absent = NatsAuth::Token(SecretValue::Env("NONE".to_owned()));
    let connection = NatsConnection { servers: &servers, auth: Some(&absent), tls: None };
    assert_eq!(connection.access(&context).await.unwrap_err().kind, ProblemKind::Settings);
    let wrong = NatsAuth::Credentials(SecretValue::Value("none".to_owned()));
    let connection = NatsConnection { servers: &servers, auth: Some(&wrong), tls: None };
    let access = connection.access(&context).await.unwrap();
    let problem = access.connect().await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Settings);
    assert!(problem.detail.contains("credentials"), "{problem}");
}
