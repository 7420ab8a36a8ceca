use waypost_core::manifest::Secrets;

use super::*;

fn failed(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::MessageProduction(code)
}

#[test]
fn each_failure_has_its_meaning() {
    use RDKafkaErrorCode as Code;
    for (code, kind) in [
        (Code::MessageTimedOut, ProblemKind::Unavailable),
        (Code::BrokerTransportFailure, ProblemKind::Unavailable),
        (Code::AllBrokersDown, ProblemKind::Unavailable),
        (Code::NotEnoughReplicas, ProblemKind::Unavailable),
        (Code::LeaderNotAvailable, ProblemKind::Unavailable),
        (Code::QueueFull, ProblemKind::Overloaded),
        (Code::ThrottlingQuotaExceeded, ProblemKind::Overloaded),
        (Code::Authentication, ProblemKind::Unauthorized),
        (Code::SSL, ProblemKind::Unauthorized),
        (Code::TopicAuthorizationFailed, ProblemKind::Unauthorized),
        (Code::UnknownTopic, ProblemKind::Absent),
        (Code::UnknownTopicOrPartition, ProblemKind::Absent),
        (Code::InvalidTopic, ProblemKind::Absent),
        (Code::MessageSizeTooLarge, ProblemKind::Refused),
        (Code::PolicyViolation, ProblemKind::Refused),
        (Code::Fatal, ProblemKind::Settings),
    ] {
        assert_eq!(classify(&failed(code), None).kind, kind, "{code:?}");
    }
    let unusable = KafkaError::ClientCreation("no".to_owned());
    assert_eq!(classify(&unusable, None).kind, ProblemKind::Settings);
}

#[test]
fn a_time_out_means_what_the_client_told_before_and_a_clear_answer_means_itself() {
    use RDKafkaErrorCode as Code;
    let refused = Some((Code::Authentication, "SASL authentication error: no"));
    let problem = classify(&failed(Code::MessageTimedOut), refused);
    assert_eq!(problem.kind, ProblemKind::Unauthorized);
    assert!(problem.detail.contains("SASL authentication error: no"), "{problem}");
    assert_eq!(classify(&failed(Code::MessageSizeTooLarge), refused).kind, ProblemKind::Refused);
    let away = Some((Code::BrokerTransportFailure, "Connection refused"));
    assert_eq!(classify(&failed(Code::MessageTimedOut), away).kind, ProblemKind::Unavailable);
}

#[test]
fn the_context_keeps_the_reason_until_something_works() {
    let context = KafkaContext::new(ResourceName::new("shop", "orders"));
    context.error(KafkaError::Global(RDKafkaErrorCode::Authentication), "no such user");
    context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
    let timed_out = failed(RDKafkaErrorCode::MessageTimedOut);
    assert_eq!(context.problem(&timed_out).kind, ProblemKind::Unauthorized);
    context.works();
    assert_eq!(context.problem(&timed_out).kind, ProblemKind::Unavailable);
}

#[test]
fn what_is_wrong_with_a_topic_that_the_event_named_is_refused() {
    use RDKafkaErrorCode as Code;
    let context = KafkaContext::new(ResourceName::new("shop", "orders"));
    for (code, kind) in [
        (Code::UnknownTopic, ProblemKind::Refused),
        (Code::InvalidTopic, ProblemKind::Refused),
        (Code::TopicAuthorizationFailed, ProblemKind::Refused),
        (Code::Authentication, ProblemKind::Unauthorized),
        (Code::MessageTimedOut, ProblemKind::Unavailable),
    ] {
        assert_eq!(context.problem_of_event(&failed(code)).kind, kind, "{code:?}");
    }
}

fn connection<'c>(
    servers: &'c [String],
    sasl: Option<&'c KafkaSasl>,
    tls: Option<&'c KafkaTls>,
) -> KafkaConnection<'c> {
    KafkaConnection { bootstrap_servers: servers, sasl, tls, secret_ref: None }
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    let paths = |servers: &[&str], tls: Option<&KafkaTls>| {
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let problems = connection(&servers, None, tls).problems();
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(&["a:9092", "[::1]:9092"], None), Vec::<String>::new());
    assert_eq!(paths(&[], None), ["bootstrapServers"]);
    for wrong in ["a", "a:", ":9092", "a:0", "a:9092,b:9092", "kafka://a:9092"] {
        assert_eq!(paths(&["a:1", wrong], None), ["bootstrapServers[1]"], "{wrong}");
    }
    let half = KafkaTls { key: Some(SecretValue::Value("k".to_owned())), ..KafkaTls::default() };
    assert_eq!(paths(&["a:1"], Some(&half)), ["tls"]);
}

#[test]
fn the_protocol_follows_from_what_is_given_and_secrets_are_found() {
    let servers = ["a:1".to_owned(), "b:2".to_owned()];
    let context = ComponentContext { name: ResourceName::new("shop", "orders"), secrets: Secrets::default() };
    let value = |text: &str| SecretValue::Value(text.to_owned());
    let sasl = KafkaSasl {
        mechanism: Some(KafkaSaslMechanism::ScramSha512),
        mechanism_from: None,
        username: value("alice"),
        password: value("pass"),
    };
    let tls = KafkaTls::default();
    for (sasl, tls, protocol) in [
        (None, None, "plaintext"),
        (None, Some(&tls), "ssl"),
        (Some(&sasl), None, "sasl_plaintext"),
        (Some(&sasl), Some(&tls), "sasl_ssl"),
    ] {
        let config = connection(&servers, sasl, tls).client_config(&context).unwrap();
        assert_eq!(config.get("security.protocol"), Some(protocol));
        assert_eq!(config.get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(config.get("sasl.password"), sasl.map(|_| "pass"));
    }
    let absent = KafkaSasl { password: SecretValue::Env("NONE".to_owned()), ..sasl };
    let problem = connection(&servers, Some(&absent), None).client_config(&context).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Settings);
}
