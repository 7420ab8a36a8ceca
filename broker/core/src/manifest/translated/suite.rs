//! Kinds of others as their users write them, and what becomes of them.

use serde_json::{Value as Json, json};

use super::super::{ManifestFile, Severity, Spec};

fn read(api_version: &str, kind: &str, spec: &str) -> ManifestFile {
    let text = format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: n, namespace: shop}}\nspec: {spec}\n"
    );
    ManifestFile::read("a.yaml", text.as_bytes())
}

/// The type, the settings, and the fields that are warned of.
fn translated(api_version: &str, kind: &str, spec: &str) -> (String, Json, Vec<String>) {
    let file = read(api_version, kind, spec);
    let resource = &file.resources[0];
    let component = match &resource.spec {
        Some(Spec::Source(spec)) => &spec.component,
        Some(Spec::Sink(component)) => component,
        other => panic!("{other:?} {:?}", resource.problems),
    };
    let [(type_name, settings)] = component.candidates.as_slice() else { panic!("{component:?}") };
    let warnings = resource.problems.iter().map(|problem| {
        assert_eq!(problem.severity, Severity::Warning, "{problem}");
        problem.path.clone()
    });
    (type_name.clone(), settings.to_json(), warnings.collect())
}

fn errors(api_version: &str, kind: &str, spec: &str) -> Vec<(&'static str, String)> {
    let file = read(api_version, kind, spec);
    let errors = file.resources[0].problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| (problem.code.id(), problem.path.clone())).collect()
}

const SINK: &str = "sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: default}}";
const TM_SOURCES: &str = "sources.triggermesh.io/v1alpha1";
const TM_TARGETS: &str = "targets.triggermesh.io/v1alpha1";

#[test]
fn a_webhook_source_takes_every_request_as_its_adapter_does() {
    let spec = format!(
        "{{eventType: com.example.hook, basicAuthUsername: ann, basicAuthPassword: {{valueFromSecret: {{name: s, key: k}}}}, \
         corsAllowOrigin: 'https://a.example', eventExtensionAttributes: {{from: [path, queries]}}, \
         ceOverrides: {{extensions: {{team: 'a${{b}}'}}}}, adapterOverrides: {{public: true}}, {SINK}}}"
    );
    let (name, settings, warnings) = translated(TM_SOURCES, "WebhookSource", &spec);
    assert_eq!(name, "webhook");
    let secret = json!({"secretKeyRef": {"name": "s", "key": "k"}});
    let expected = json!({
        "eventSource": "shop.n",
        "methods": ["POST", "PUT", "PATCH", "GET", "DELETE"],
        "answerStatus": 204,
        "allowOrigin": "https://a.example",
        "verify": {"basic": [{"username": {"value": "ann"}, "password": secret}]},
        "requestExtensions": ["path", "queries"],
        "eventExtensions": {"team": "a$${b}"},
        "eventType": "com.example.hook",
    });
    assert_eq!((settings, warnings), (expected, vec!["spec.adapterOverrides".to_owned()]));
    let (_, settings, _) =
        translated(TM_SOURCES, "WebhookSource", &format!("{{eventType: t, eventSource: /s, {SINK}}}"));
    assert_eq!((&settings["eventSource"], &settings["verify"]), (&json!("/s"), &Json::Null));
    for (spec, path) in [
        (format!("{{{SINK}}}"), "spec.eventType"),
        ("{eventType: t}".to_owned(), "spec.sink"),
        (format!("{{eventType: t, basicAuthUsername: ann, {SINK}}}"), "spec.basicAuthPassword"),
        (format!("{{eventType: t, basicAuthPassword: {{value: x}}, {SINK}}}"), "spec.basicAuthUsername"),
    ] {
        assert_eq!(errors(TM_SOURCES, "WebhookSource", &spec), [("E0108", path.to_owned())]);
    }
}

#[test]
fn a_cloud_events_source_passes_events_on() {
    let spec = format!(
        "{{path: /in, credentials: {{basicAuths: [{{username: ann, password: {{value: p}}}}]}}, \
         rateLimiter: {{requestsPerSecond: 100}}, {SINK}}}"
    );
    let (name, settings, warnings) = translated(TM_SOURCES, "CloudEventsSource", &spec);
    let expected = json!({
        "body": "cloudEvents",
        "path": "/in",
        "verify": {"basic": [{"username": {"value": "ann"}, "password": {"value": "p"}}]},
        "requestsPerSecond": 100,
    });
    assert_eq!((&*name, settings, warnings.len()), ("webhook", expected, 0));
    let (_, settings, _) = translated(TM_SOURCES, "CloudEventsSource", &format!("{{{SINK}}}"));
    assert_eq!(settings, json!({"body": "cloudEvents"}));
    let spec = format!("{{credentials: {{basicAuths: [{{username: ann}}]}}, {SINK}}}");
    let path = "spec.credentials.basicAuths[0].password".to_owned();
    assert_eq!(errors(TM_SOURCES, "CloudEventsSource", &spec), [("E0108", path)]);
}

#[test]
fn a_kafka_source_of_knative_keeps_its_names() {
    let key = |key: &str| json!({"secretKeyRef": {"name": "k", "key": key}});
    let spec = format!(
        "{{bootstrapServers: ['k:9092'], topics: [a, b], consumerGroup: g, consumers: 4, ordering: ordered, net: {{sasl: \
         {{enable: true, user: {{secretKeyRef: {{name: k, key: user}}}}, password: {{secretKeyRef: {{name: k, key: \
         password}}}}, type: {{secretKeyRef: {{name: k, key: type}}}}}}, tls: {{enable: true, caCert: {{secretKeyRef: \
         {{name: k, key: ca, optional: true}}}}, cert: {{}}, key: {{}}}}}}, {SINK}}}"
    );
    for version in ["sources.knative.dev/v1", "sources.knative.dev/v1beta1"] {
        let (name, settings, warnings) = translated(version, "KafkaSource", &spec);
        let expected = json!({
            "bootstrapServers": ["k:9092"],
            "topics": ["a", "b"],
            "consumerGroup": "g",
            "initialOffset": "latest",
            "eventSource": "/apis/v1/namespaces/shop/kafkasources/n",
            "recordNaming": "knative",
            "sasl": {"username": key("user"), "password": key("password"), "mechanismFrom": key("type")},
            "tls": {"ca": key("ca")},
        });
        assert_eq!((&*name, settings), ("kafka", expected));
        assert_eq!(warnings, ["spec.consumers", "spec.ordering"]);
    }
    let spec = format!(
        "{{bootstrapServers: ['k:9092'], topics: [a], initialOffset: earliest, net: {{sasl: {{}}, tls: {{}}}}, {SINK}}}"
    );
    let (_, settings, warnings) = translated("sources.knative.dev/v1", "KafkaSource", &spec);
    assert_eq!(
        (&settings["initialOffset"], &settings["sasl"], &settings["tls"]),
        (&json!("earliest"), &Json::Null, &Json::Null)
    );
    assert!(warnings.is_empty());
}

#[test]
fn a_kafka_sink_of_knative_names_its_secret() {
    let spec = "{topic: t, bootstrapServers: ['k:9092'], numPartitions: 3, replicationFactor: 1, auth: {secret: {ref: {name: s}}}}";
    let (name, settings, warnings) = translated("eventing.knative.dev/v1alpha1", "KafkaSink", spec);
    let expected = json!({
        "bootstrapServers": ["k:9092"], "format": "structured", "secretRef": {"name": "s"}, "topic": "t",
    });
    assert_eq!((&*name, settings), ("kafka", expected));
    assert_eq!(warnings, ["spec.numPartitions", "spec.replicationFactor"]);
    let spec = "{topic: t, bootstrapServers: ['k:9092'], contentMode: binary}";
    assert_eq!(translated("eventing.knative.dev/v1alpha1", "KafkaSink", spec).1["format"], "binary");
    assert_eq!(
        errors("eventing.knative.dev/v1alpha1", "KafkaSink", "{}"),
        [("E0108", "spec.topic".to_owned())]
    );
}

#[test]
fn the_kafka_kinds_of_triggermesh_become_native_ones() {
    let auth = "auth: {saslEnable: true, tlsEnable: true, securityMechanism: SCRAM-SHA-512, username: ann, password: {value: p}, \
                tls: {ca: {valueFromSecret: {name: s, key: ca}}, clientCert: {value: c}, clientKey: {value: k}}}";
    let sasl =
        json!({"mechanism": "SCRAM-SHA-512", "username": {"value": "ann"}, "password": {"value": "p"}});
    let tls = json!({
        "ca": {"secretKeyRef": {"name": "s", "key": "ca"}}, "certificate": {"value": "c"}, "key": {"value": "k"},
    });
    let spec = format!("{{bootstrapServers: ['k:9092'], topic: a, groupID: g, {auth}, {SINK}}}");
    let (name, settings, warnings) = translated(TM_SOURCES, "KafkaSource", &spec);
    let expected = json!({
        "bootstrapServers": ["k:9092"], "consumerGroup": "g", "topics": ["a"], "initialOffset": "latest",
        "eventType": "io.triggermesh.kafka.event", "recordNaming": "triggerMesh", "sasl": sasl, "tls": tls,
    });
    assert_eq!((&*name, settings, warnings.len()), ("kafka", expected, 0));

    let spec = format!("{{bootstrapServers: ['k:9092'], topic: a, topicPartitions: 1, {auth}}}");
    let (name, settings, warnings) = translated(TM_TARGETS, "KafkaTarget", &spec);
    let expected = json!({
        "bootstrapServers": ["k:9092"], "format": "structured", "key": "${id}", "sasl": sasl, "tls": tls, "topic": "a",
    });
    assert_eq!((&*name, settings, warnings), ("kafka", expected, vec!["spec.topicPartitions".to_owned()]));
    let spec =
        "{bootstrapServers: ['k:9092'], topic: a, discardCloudEventContext: true, auth: {saslEnable: false}}";
    let (_, settings, _) = translated(TM_TARGETS, "KafkaTarget", spec);
    assert_eq!((&settings["format"], &settings["sasl"]), (&json!("data"), &Json::Null));
}

#[test]
fn what_cannot_be_honoured_is_told_by_name_and_leaves_the_kind_known() {
    let of = |auth: &str| format!("{{bootstrapServers: ['k:9092'], topic: a, auth: {auth}}}");
    for (auth, path) in [
        ("{saslEnable: true, kerberos: {realm: R}, username: u, password: {value: p}}", "spec.auth.kerberos"),
        ("{saslEnable: true, securityMechanism: GSSAPI}", "spec.auth.securityMechanism"),
        ("{saslEnable: false, tlsEnable: true, tls: {skipVerify: true}}", "spec.auth.tls.skipVerify"),
    ] {
        assert_eq!(errors(TM_TARGETS, "KafkaTarget", &of(auth)), [("E0112", path.to_owned())], "{auth}");
    }
    let harmless = of("{saslEnable: false, tlsEnable: false, tls: {skipVerify: true}}");
    assert_eq!(errors(TM_TARGETS, "KafkaTarget", &harmless), []);
}

#[test]
fn the_sources_of_google_cloud_name_subscription_and_topic() {
    let key = "serviceAccountKey: {valueFromSecret: {name: s, key: k}}";
    let auth = json!({"serviceAccountKey": {"secretKeyRef": {"name": "s", "key": "k"}}});
    let spec = format!(
        "{{topic: projects/p/topics/t, subscriptionID: mine, {key}, adapterOverrides: {{public: true}}, {SINK}}}"
    );
    let (name, settings, warnings) = translated(TM_SOURCES, "GoogleCloudPubSubSource", &spec);
    let expected = json!({
        "auth": auth, "topic": "projects/p/topics/t", "subscription": "projects/p/subscriptions/mine",
        "payload": "message", "eventType": "com.google.cloud.pubsub.message", "eventSource": "projects/p/topics/t",
    });
    assert_eq!((&*name, settings), ("googlePubSub", expected));
    assert_eq!(warnings, ["spec.adapterOverrides"]);
    let spec = format!("{{topic: projects/p/topics/t, auth: {{{key}, gcpServiceAccount: a@p.iam}}, {SINK}}}");
    let (_, settings, warnings) = translated(TM_SOURCES, "GoogleCloudPubSubSource", &spec);
    assert_eq!(settings["subscription"], "projects/p/subscriptions/waypost-shop-n");
    assert_eq!((&settings["auth"], warnings), (&auth, vec!["spec.auth.gcpServiceAccount".to_owned()]));
    let spec = format!(
        "{{bucket: photos, pubsub: {{topic: projects/p/topics/t}}, eventTypes: [OBJECT_FINALIZE], {key}, {SINK}}}"
    );
    let (name, settings, warnings) = translated(TM_SOURCES, "GoogleCloudStorageSource", &spec);
    let expected = json!({
        "auth": auth, "topic": "projects/p/topics/t", "subscription": "projects/p/subscriptions/waypost-shop-n",
        "bucket": "photos", "eventTypes": ["OBJECT_FINALIZE"],
    });
    assert_eq!((&*name, settings, warnings.len()), ("googleCloudStorage", expected, 0));
    let storage = |more: &str| errors(TM_SOURCES, "GoogleCloudStorageSource", &format!("{{{more}, {SINK}}}"));
    assert_eq!(storage("bucket: b, pubsub: {project: p}"), [("E0112", "spec.pubsub.project".to_owned())]);
    assert_eq!(storage("bucket: b"), [("E0108", "spec.pubsub".to_owned())]);
    assert_eq!(storage("pubsub: {topic: projects/p/topics/t}"), [("E0108", "spec.bucket".to_owned())]);
    let missing = errors(TM_SOURCES, "GoogleCloudPubSubSource", &format!("{{{SINK}}}"));
    assert_eq!(missing, [("E0108", "spec.topic".to_owned())]);
}

fn aws_auth() -> String {
    "auth: {credentials: {accessKeyID: {valueFromSecret: {name: aws, key: id}}, secretAccessKey: {value: s}, \
     sessionToken: {}, assumeIamRole: 'arn:aws:iam::1:role/r'}}"
        .to_owned()
}

fn aws_identity() -> Json {
    json!({
        "credentials": {
            "accessKeyId": {"secretKeyRef": {"name": "aws", "key": "id"}},
            "secretAccessKey": {"value": "s"},
        },
        "assumeRole": {"arn": "arn:aws:iam::1:role/r"},
    })
}

fn with(mut settings: Json, more: Json) -> Json {
    let Json::Object(more) = more else { panic!("{more}") };
    settings.as_object_mut().unwrap().extend(more);
    settings
}

#[test]
fn a_source_of_sqs_gives_the_whole_message_as_its_adapter_does() {
    for (processor, unwrap) in
        [("null", None), ("default", None), ("s3", Some("s3")), ("eventbridge", Some("eventBridge"))]
    {
        let spec = format!(
            "{{arn: 'arn:aws:sqs:eu-west-1:1:q', messageProcessor: {processor}, endpoint: {{url: 'http://a:9324'}}, \
             receiveOptions: {{visibilityTimeout: 1h1m5s}}, {}, adapterOverrides: {{}}, {SINK}}}",
            aws_auth()
        );
        let (name, settings, warnings) = translated(TM_SOURCES, "AWSSQSSource", &spec);
        let mut expected = json!({
            "queue": "arn:aws:sqs:eu-west-1:1:q", "data": "message", "endpoint": "http://a:9324",
            "visibilityTimeoutSeconds": 3665,
        });
        if let Some(unwrap) = unwrap {
            expected = with(expected, json!({"unwrap": [unwrap]}));
        }
        assert_eq!((&*name, settings), ("awsSqs", with(expected, aws_identity())));
        assert_eq!(warnings, ["spec.adapterOverrides"]);
    }
    let arn = "arn: 'arn:aws:sqs:eu-west-1:1:q'";
    for (spec, error) in [
        (format!("{{{SINK}}}"), ("E0108", "spec.arn")),
        (format!("{{{arn}, messageProcessor: sns, {SINK}}}"), ("E0111", "spec.messageProcessor")),
        (
            format!("{{{arn}, receiveOptions: {{visibilityTimeout: PT1M}}, {SINK}}}"),
            ("E0111", "spec.receiveOptions.visibilityTimeout"),
        ),
        (
            format!("{{{arn}, receiveOptions: {{visibilityTimeout: 13h}}, {SINK}}}"),
            ("E0111", "spec.receiveOptions.visibilityTimeout"),
        ),
    ] {
        assert_eq!(errors(TM_SOURCES, "AWSSQSSource", &spec), [(error.0, error.1.to_owned())], "{spec}");
    }
}

#[test]
fn a_target_of_s3_is_keyed_by_the_subject() {
    for (discard, content) in [("true", "data"), ("false", "structured"), ("null", "structured")] {
        let spec = format!(
            "{{arn: 'arn:aws:s3:::my-bucket/x', discardCloudEventContext: {discard}, {}}}",
            aws_auth()
        );
        let (name, settings, warnings) = translated(TM_TARGETS, "AWSS3Target", &spec);
        let expected = json!({
            "key": "${subject}", "withoutKey": "defaultKey", "content": content,
            "dataTypes": ["io.triggermesh.awss3.object.put"], "bucket": "my-bucket",
        });
        assert_eq!((&*name, settings, warnings.len()), ("s3", with(expected, aws_identity()), 0));
    }
    for (arn, code) in [("my-bucket", "E0111"), ("'arn:aws:sqs:eu-west-1:1:q'", "E0111"), ("null", "E0108")] {
        let told = errors(TM_TARGETS, "AWSS3Target", &format!("{{arn: {arn}}}"));
        assert_eq!(told, [(code, "spec.arn".to_owned())]);
    }
    let spec = "{arn: 'arn:aws:s3:::b', adapterOverrides: {public: true}, auth: {iam: {roleArn: r}}}";
    let (_, _, warnings) = translated(TM_TARGETS, "AWSS3Target", spec);
    assert_eq!(warnings, ["spec.auth.iam", "spec.adapterOverrides"]);
}

fn translated_target(kind: &str, spec: &Json) -> (String, Json, Vec<String>) {
    translated(TM_TARGETS, kind, &spec.to_string())
}

#[test]
fn an_elasticsearch_target_becomes_a_sink() {
    let reference = json!({"secretKeyRef": {"name": "elastic", "key": "password"}});
    let (name, settings, warnings) = translated_target(
        "ElasticsearchTarget",
        &json!({
            "connection": {
                "addresses": ["https://a:9200"], "caCert": "PEM", "skipVerify": false, "username": "u",
                "password": reference,
            },
            "indexName": "orders", "discardCloudEventContext": true,
            "eventOptions": {"payloadPolicy": "always"}, "adapterOverrides": {"public": true},
        }),
    );
    let expected = json!({
        "urls": ["https://a:9200"], "tls": {"ca": {"value": "PEM"}},
        "auth": {"basic": {"username": {"value": "u"}, "password": reference}},
        "index": "orders", "document": "data",
    });
    assert_eq!((&*name, settings), ("elasticsearch", expected));
    assert_eq!(warnings, ["spec.eventOptions", "spec.adapterOverrides"]);
    // The key wins over the user.
    let (_, settings, warnings) = translated_target(
        "ElasticsearchTarget",
        &json!({
            "connection": {
                "addresses": ["http://a:9200"], "skipVerify": true, "username": "u", "password": reference,
                "apiKey": reference,
            },
            "indexName": "a${b",
        }),
    );
    let expected = json!({
        "urls": ["http://a:9200"], "tls": {"insecureSkipVerify": true}, "auth": {"apiKey": reference},
        "index": "a$${b", "document": "event",
    });
    assert_eq!((settings, warnings.len()), (expected, 0));
}

#[test]
fn an_http_target_becomes_a_sink() {
    let reference = json!({"secretKeyRef": {"name": "s", "key": "k"}});
    let (name, settings, warnings) = translated_target(
        "HTTPTarget",
        &json!({
            "endpoint": "https://a/b", "method": "GET", "response": {"eventType": "t", "eventSource": "s"},
            "headers": {"X-A": "${x"}, "skipVerify": true, "caCertificate": "PEM",
            "basicAuthUsername": "u", "basicAuthPassword": reference, "adapterOverrides": {},
        }),
    );
    let expected = json!({
        "url": "https://a/b", "method": "GET", "replies": {"answer": {"type": "t", "source": "s"}},
        "format": "data", "requestEvents": "io.triggermesh.http.request", "headers": {"X-A": "$${x"},
        "tls": {"ca": {"value": "PEM"}},
        "auth": {"basic": {"username": {"value": "u"}, "password": reference}},
    });
    assert_eq!((&*name, settings), ("http", expected));
    assert_eq!(warnings, ["spec.adapterOverrides"]);
    let (_, settings, _) = translated_target(
        "HTTPTarget",
        &json!({
            "endpoint": "https://a", "method": "POST", "response": {"eventType": "t"}, "basicAuthPassword": {},
            "oauthClientID": "id", "oauthClientSecret": reference, "oauthTokenURL": "https://t/token",
            "oauthScopes": ["a"],
        }),
    );
    let expected = json!({"oauth2": {
        "clientId": {"value": "id"}, "clientSecret": reference, "tokenUrl": "https://t/token", "scopes": ["a"],
    }});
    assert_eq!(settings["auth"], expected);
    let none = json!({"endpoint": "https://a", "method": "POST", "response": {"eventType": "t"}});
    assert_eq!(translated_target("HTTPTarget", &none).1.get("auth"), None);
}

#[test]
fn a_cloud_events_target_becomes_a_sink() {
    let password = json!({"valueFromSecret": {"name": "s", "key": "k"}});
    let (name, settings, warnings) = translated_target(
        "CloudEventsTarget",
        &json!({
            "endpoint": "https://a", "path": "/events",
            "credentials": {"basicAuth": {"username": "u", "password": password}},
        }),
    );
    let reference = json!({"secretKeyRef": {"name": "s", "key": "k"}});
    let expected = json!({
        "url": "https://a", "path": "/events",
        "auth": {"basic": {"username": {"value": "u"}, "password": reference}},
    });
    assert_eq!((&*name, settings, warnings.len()), ("http", expected, 0));
}

#[test]
fn what_cannot_be_translated_is_told_with_its_place() {
    for (kind, spec, code, path) in [
        ("ElasticsearchTarget", json!({"indexName": "a"}), "E0108", "spec.connection"),
        ("ElasticsearchTarget", json!({"connection": {"addresses": []}}), "E0108", "spec.indexName"),
        ("HTTPTarget", json!({"method": "GET", "response": {"eventType": "t"}}), "E0108", "spec.endpoint"),
        (
            "HTTPTarget",
            json!({"endpoint": "http://a", "method": "GET", "response": {}}),
            "E0108",
            "spec.response.eventType",
        ),
        ("CloudEventsTarget", json!({}), "E0108", "spec.endpoint"),
        (
            "ElasticsearchTarget",
            json!({"connection": {"addresses": [], "apiKey": {}}, "indexName": "a"}),
            "E0108",
            "spec.connection.apiKey",
        ),
    ] {
        let file = read(TM_TARGETS, kind, &spec.to_string());
        let problem = &file.resources[0].problems[0];
        assert_eq!((problem.code.id(), &*problem.path), (code, path), "{problem}");
    }
}
