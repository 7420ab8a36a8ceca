//! What is taken, what is refused, and what events are called.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::HeaderName;
use proptest::prelude::*;
use serde_json::{Value, json};
use waypost_core::Event;
use waypost_core::manifest::{ResourceName, Secrets};

use super::*;

/// The names of headers and their values.
type Headers<'h> = [(&'h str, &'h str)];

fn context() -> ComponentContext {
    let secrets = Secrets::new(HashMap::new(), HashMap::new());
    ComponentContext { name: ResourceName::new("shop", "hooks"), secrets }
}

async fn receiver(settings: Value) -> Arc<dyn Receive> {
    let config: WebhookConfig = serde_json::from_value(settings).expect("settings");
    assert_eq!(config.validate(), []);
    config.build(context()).await.expect("built").receiver().expect("takes requests")
}

fn posted(path: &str, query: &str, headers: &Headers<'_>, body: &str) -> Posted {
    let headers = headers.iter().map(|(name, value)| {
        (HeaderName::try_from(*name).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    });
    Posted::new(
        Method::POST,
        path.to_owned(),
        query.to_owned(),
        headers.collect(),
        Bytes::copy_from_slice(body.as_bytes()),
    )
}

fn secrets(name: &str, secrets: &[&str]) -> Value {
    let secrets: Vec<_> = secrets.iter().map(|secret| json!({"value": secret})).collect();
    json!({"verify": {name: {"secrets": secrets}}})
}

/// A request that a sender documents or that another implementation of its scheme has signed.
struct Vector {
    settings: Value,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
    at: u64,
    /// The headers without which nothing is proved.
    proofs: Vec<&'static str>,
    timed: bool,
}

const SLACK_BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
    channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
    response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
    trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";

fn vectors() -> Vec<Vector> {
    let own = json!({"verify": {"hmac": {
        "secrets": [{"value": "s"}], "header": "x-sign", "prefix": "v=", "algorithm": "sha512", "encoding": "base64",
        "before": "${header.x-time}:${method}:", "timestampHeader": "X-Time",
    }}});
    vec![
        // The example of GitHub's documentation.
        Vector {
            settings: secrets("github", &["other", "It's a Secret to Everybody"]),
            headers: vec![(
                "x-hub-signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            )],
            body: "Hello, World!",
            at: 0,
            proofs: vec!["x-hub-signature-256"],
            timed: false,
        },
        // The example of Slack's documentation.
        Vector {
            settings: secrets("slack", &["8f742231b10e8888abcd99yyyzzz85a5", "other"]),
            headers: vec![
                ("content-type", "application/x-www-form-urlencoded"),
                ("x-slack-request-timestamp", "1531420618"),
                ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
            ],
            body: SLACK_BODY,
            at: 1_531_420_618,
            proofs: vec!["x-slack-signature", "x-slack-request-timestamp"],
            timed: true,
        },
        // The example of the specification of Standard Webhooks.
        Vector {
            settings: secrets("standardWebhooks", &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]),
            headers: vec![
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", "v2,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ],
            body: r#"{"test": 2432232314}"#,
            at: 1_614_265_330,
            proofs: vec!["webhook-id", "webhook-timestamp", "webhook-signature"],
            timed: true,
        },
        // GitLab signs by a signing token as Standard Webhooks has it. Made by openssl 3.0:
        // printf '%s.1614265330.%s' ID BODY | openssl dgst -sha256 -mac HMAC -macopt hexkey:KEY -binary | base64
        // where KEY is what follows `whsec_`, decoded.
        Vector {
            settings: json!({"verify": {"gitlab": {"signingTokens": [
                {"value": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
                {"value": "whsec_Z2l0bGFiLXNpZ25pbmctdG9rZW4tMDEyMzQ1Njc4OWE="},
            ]}}}),
            headers: vec![
                ("webhook-id", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", "v1,tOOL9nHMFl9ZciWZeTJl5Zgt4pG4dtb07A5mzkZaEKc="),
            ],
            body: r#"{"object_kind":"push","checkout_sha":"da1560886d4f094c3e6c9ef40349f7d38b5d27d7"}"#,
            at: 1_614_265_330,
            proofs: vec!["webhook-id", "webhook-timestamp", "webhook-signature"],
            timed: true,
        },
        // As Stripe documents it, with the new secret of two while it is renewed. Made by openssl 3.0:
        // printf '1614265330.%s' BODY | openssl dgst -sha256 -hmac whsec_next
        Vector {
            settings: secrets("stripe", &["whsec_next"]),
            headers: vec![(
                "stripe-signature",
                "t=1614265330,v1=a0e702b9833a194c0d5cd3a21e162537db13f4f07c8fb73fddd4febf824b6239,\
                 v1=4c9f5817734324c827b088e99fc18eac4c068f82c7427c45969c5e11bb5e2fec",
            )],
            body: r#"{"id":"evt_1","type":"charge.succeeded","data":{"object":{"id":"ch_1"}}}"#,
            at: 1_614_265_330,
            proofs: vec!["stripe-signature"],
            timed: true,
        },
        // Made by Python's hmac as Stripe documents it, and by openssl.
        Vector {
            settings: secrets("stripe", &["whsec_test"]),
            headers: vec![(
                "stripe-signature",
                "t=1614265330,v1=a0e702b9833a194c0d5cd3a21e162537db13f4f07c8fb73fddd4febf824b6239,v0=00",
            )],
            body: r#"{"id":"evt_1","type":"charge.succeeded","data":{"object":{"id":"ch_1"}}}"#,
            at: 1_614_265_330,
            proofs: vec!["stripe-signature"],
            timed: true,
        },
        // Made by Python's hmac, and by openssl: printf '1614265330:POST:hello' | openssl dgst -sha512 -hmac s -binary | base64
        Vector {
            settings: own,
            headers: vec![
                ("x-time", "1614265330"),
                (
                    "x-sign",
                    "v=HVRB66xte9wU5EAp6yKZeCA/Wy52EHzJxxAcBhNEvhyszngVm0YuNxFWSY+bOu3t5n73atBIg+o2MzQSeaXqUg==",
                ),
            ],
            body: "hello",
            at: 1_614_265_330,
            proofs: vec!["x-time", "x-sign"],
            timed: true,
        },
        Vector {
            settings: secrets("gitlab", &["old", "geheim"]),
            headers: vec![("x-gitlab-token", "geheim"), ("x-gitlab-event", "Push Hook")],
            body: "{}",
            at: 0,
            proofs: vec!["x-gitlab-token"],
            timed: false,
        },
        Vector {
            settings: secrets("bearer", &["t0k3n"]),
            headers: vec![("authorization", "bearer t0k3n")],
            body: "{}",
            at: 0,
            proofs: vec!["authorization"],
            timed: false,
        },
        Vector {
            settings: json!({"verify": {"basic": [
                {"username": {"value": "a"}, "password": {"value": "b"}},
                {"username": {"value": "Aladdin"}, "password": {"value": "open:sesame"}},
            ]}}),
            headers: vec![("authorization", "Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ==")],
            body: "{}",
            at: 0,
            proofs: vec!["authorization"],
            timed: false,
        },
    ]
}

fn refused(receiver: &dyn Receive, posted: &Posted, now: u64) -> (u16, &'static str) {
    let refusal = receiver.receive(posted, now).expect_err("refused");
    (refusal.status.as_u16(), refusal.code.id())
}

#[tokio::test]
async fn documented_signatures_are_good() {
    for vector in vectors() {
        let receiver = receiver(vector.settings.clone()).await;
        for at in [vector.at, vector.at + 299] {
            let request = posted("", "", &vector.headers, vector.body);
            let received = receiver
                .receive(&request, at)
                .unwrap_or_else(|refusal| panic!("{}: {refusal:?}", vector.settings));
            assert_eq!((received.events.len(), received.status.as_u16()), (1, 202), "{}", vector.settings);
            assert_eq!(received.events[0].data_bytes(), Some(vector.body.as_bytes()));
        }
    }
}

#[tokio::test]
async fn what_proves_nothing_is_refused_with_a_code() {
    for vector in vectors() {
        let receiver = receiver(vector.settings.clone()).await;
        for proof in &vector.proofs {
            let without: Vec<_> = vector.headers.iter().copied().filter(|(name, _)| name != proof).collect();
            let request = posted("", "", &without, vector.body);
            assert_eq!(
                refused(&*receiver, &request, vector.at),
                (401, "E0306"),
                "{} without {proof}",
                vector.settings
            );
        }
        if vector.timed {
            let request = posted("", "", &vector.headers, vector.body);
            for at in [vector.at + 301, vector.at - 301] {
                assert_eq!(refused(&*receiver, &request, at), (401, "E0307"), "{}", vector.settings);
            }
            let mut body = vector.body.as_bytes().to_vec();
            body[0] ^= 1;
            let changed = String::from_utf8(body).expect("still text");
            let request = posted("", "", &vector.headers, &changed);
            assert_eq!(refused(&*receiver, &request, vector.at), (401, "E0306"), "{}", vector.settings);
        }
        for given in
            ["", "x", "sha256=", "v0=zz", "t=1,v1=", "Basic", "v1,", "Bearer", "Basic !", "v0=a", "t=,v1=00"]
        {
            let headers: Vec<_> = vector
                .headers
                .iter()
                .map(|(name, value)| (*name, if vector.proofs.last() == Some(name) { given } else { *value }))
                .collect();
            let request = posted("", "", &headers, vector.body);
            assert_eq!(
                refused(&*receiver, &request, vector.at),
                (401, "E0306"),
                "{} {given}",
                vector.settings
            );
        }
    }
}

/// A signature with one bit of it flipped, as it stands in a header.
fn flipped(mac: &[u8], bit: usize) -> Vec<u8> {
    let mut mac = mac.to_vec();
    mac[bit / 8] ^= 1 << (bit % 8);
    mac
}

proptest! {
    #[test]
    fn one_bit_that_is_flipped_in_the_signature_is_refused(bit in 0_usize..256) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for vector in vectors() {
            // Where the good signature stands in the header, behind what, and how it is written.
            let (header, before, hex) = match *vector.proofs.last().expect("a proof") {
                "x-hub-signature-256" => ("x-hub-signature-256", "sha256=", true),
                "x-slack-request-timestamp" => ("x-slack-signature", "v0=", true),
                "stripe-signature" => ("stripe-signature", "t=1614265330,v1=", true),
                "webhook-signature" => ("webhook-signature", "v1,", false),
                "x-sign" => ("x-sign", "v=", false),
                _ => continue,
            };
            let value = vector.headers.iter().find(|(name, _)| *name == header).expect("it is there").1;
            let written = value.rsplit(['=', ',']).find(|part| part.len() > 40).expect("a signature");
            let written = written.trim_end_matches('=');
            let mac: Vec<u8> = if hex {
                let byte = |at| u8::from_str_radix(&written[at..at + 2], 16).expect("digits");
                (0..written.len()).step_by(2).map(byte).collect()
            } else {
                STANDARD_NO_PAD.decode(written).expect("base64")
            };
            let write = |mac: &[u8]| {
                let text = if hex {
                    mac.iter().map(|byte| format!("{byte:02x}")).collect()
                } else {
                    STANDARD.encode(mac)
                };
                format!("{before}{text}")
            };
            let receiver = runtime.block_on(receiver(vector.settings.clone()));
            let with = |value: &str| {
                let put = |pair: &(&'static str, &'static str)| {
                    (pair.0, if pair.0 == header { value.to_owned() } else { pair.1.to_owned() })
                };
                let headers: Vec<_> = vector.headers.iter().map(put).collect();
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                receiver.receive(&posted("", "", &headers, vector.body), vector.at)
            };
            prop_assert!(with(&write(&mac)).is_ok(), "{}", vector.settings);
            let refused = with(&write(&flipped(&mac, bit))).expect_err("refused");
            prop_assert_eq!(refused.code.id(), "E0306");
        }
    }
}

async fn event_of(settings: Value, headers: &Headers<'_>, body: &str) -> Event {
    let mut settings = settings;
    // How events are called does not depend on the secret, only on who sends.
    let verify = settings["verify"].as_object().expect("a sender").keys().next().expect("a sender").clone();
    settings["verify"] = json!({verify: {"secrets": [{"value": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}]}});
    let config: WebhookConfig = serde_json::from_value(settings).expect("settings");
    let naming = Naming::new(&config);
    event::wrapped(&config, &naming, &context().name, &posted("/a", "b=c", headers, body), 1_614_265_330)
        .expect("an event")
}

fn called(event: &Event) -> [String; 4] {
    ["id", "type", "source", "subject"]
        .map(|name| event.attribute(name).map(|value| value.text.to_owned()).unwrap_or_default())
}

#[tokio::test]
async fn events_are_called_as_their_senders_call_them() {
    let json_type = ("content-type", "application/json");
    let github = [json_type, ("x-github-event", "issues"), ("x-github-delivery", "72d3162e")];
    let repository = r#""repository": {"url": "https://api.github.com/repos/a/b"}"#;
    let event =
        event_of(secrets("github", &[]), &github, &format!(r#"{{"action": "opened", {repository}}}"#)).await;
    assert_eq!(
        called(&event),
        ["72d3162e", "com.github.issues.opened", "https://api.github.com/repos/a/b", ""]
    );
    assert_eq!(event.attribute("time").map(|time| time.text), Some("2021-02-25T15:02:10Z"));
    let event = event_of(secrets("github", &[]), &github, &format!("{{{repository}}}")).await;
    assert_eq!(called(&event)[1], "com.github.issues");

    let gitlab = [json_type, ("x-gitlab-event", "Push Hook"), ("x-gitlab-event-uuid", "13792a34")];
    let body = r#"{"object_kind": "push", "repository": {"homepage": "https://gitlab.example/a"}}"#;
    let event = event_of(secrets("gitlab", &[]), &gitlab, body).await;
    assert_eq!(called(&event), ["13792a34", "com.gitlab.push", "https://gitlab.example/a", ""]);

    let body = r#"{"id":"evt_1","type":"charge.succeeded","data":{"object":{"id":"ch_1"}}}"#;
    let event = event_of(secrets("stripe", &[]), &[json_type], body).await;
    assert_eq!(called(&event), ["evt_1", "com.stripe.charge.succeeded", "https://api.stripe.com", "ch_1"]);

    let body = r#"{"type": "event_callback", "event_id": "Ev1", "team_id": "T1", "event": {"type": "message", "channel": "C1"}}"#;
    let event = event_of(secrets("slack", &[]), &[json_type], body).await;
    assert_eq!(called(&event), ["Ev1", "com.slack.message", "/slack/T1", "C1"]);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let event = event_of(secrets("slack", &[]), &form, SLACK_BODY).await;
    let id = "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    assert_eq!(called(&event), [id, "com.slack.webhook-collect", "/slack/T1DC2JH3J", "G8PSS9T3V"]);

    let headers = [json_type, ("webhook-id", "msg_1")];
    let event = event_of(secrets("standardWebhooks", &[]), &headers, r#"{"type": "user.created"}"#).await;
    let source = "/apis/waypost.dev/v1alpha1/namespaces/shop/sources/hooks";
    assert_eq!(called(&event), ["msg_1", "user.created", source, ""]);
    let event = event_of(secrets("bearer", &[]), &[("content-type", "no media type")], "\u{1}").await;
    assert_eq!(called(&event)[1..], ["dev.waypost.webhook.request", source, ""]);
    assert_eq!(event.data_content_type(), None);
}

#[tokio::test]
async fn templates_call_events_and_what_they_do_not_find_is_refused() {
    let settings = json!({
        "eventId": "${header.x-id}", "eventType": "com.shop.${path.0}", "eventSource": "/shop/${query.tenant|none}",
        "eventSubject": "${$.order}", "eventExtensions": {"tenant": "${query.tenant}", "region": "${header.x-region}"},
    });
    let receiver = receiver(settings).await;
    let request = posted("/orders", "tenant=t1", &[("x-id", "7")], r#"{"order": 12}"#);
    let events = receiver.receive(&request, 0).expect("taken").events;
    assert_eq!(called(&events[0]), ["7", "com.shop.orders", "/shop/t1", "12"]);
    assert_eq!(events[0].attribute("tenant").map(|value| value.text), Some("t1"));
    assert_eq!(events[0].attribute("region"), None);
    for (path, header, body) in
        [("", "x-id", r#"{"order": 12}"#), ("/orders", "x-no", "{}"), ("/orders", "x-id", "[")]
    {
        let request = posted(path, "", &[(header, "7")], body);
        assert_eq!(refused(&*receiver, &request, 0), (422, "E0308"), "{path} {header} {body}");
    }
}

#[tokio::test]
async fn parts_of_the_request_become_attributes() {
    let settings =
        json!({"requestExtensions": ["path", "method", "host", "queries", "headers"], "answerStatus": 204});
    let receiver = receiver(settings).await;
    let headers = [
        ("host", "example.com"),
        ("ce-id", "9"),
        ("ce-subject", "s"),
        ("x-very-long-name-of-a-header", "1"),
        ("x-very-long-name-of-another", "2"),
        ("authorization", "Bearer secret"),
    ];
    let received = receiver.receive(&posted("/a/b", "X-y=1&z=2", &headers, ""), 0).expect("taken");
    assert_eq!(received.status.as_u16(), 204);
    let event = &received.events[0];
    assert_eq!((called(event)[0].as_str(), called(event)[3].as_str(), event.data_bytes()), ("9", "s", None));
    for (name, value) in [
        ("path", Some("/a/b")),
        ("method", Some("POST")),
        ("host", Some("example.com")),
        ("qxy", Some("1")),
        ("qz", Some("2")),
        ("hxverylongnameofahea", Some("1")),
        ("hxverylongnameofanot", Some("2")),
        ("hauthorization", None),
    ] {
        assert_eq!(event.attribute(name).map(|value| value.text), value, "{name}");
    }
}

#[tokio::test]
async fn events_that_come_as_events_are_taken_as_they_are() {
    let receiver = receiver(json!({"body": "cloudEvents", "path": "/in", "requestsPerSecond": 2})).await;
    let batch = r#"[{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, {"specversion": "1.0", "id": "2", "source": "/s", "type": "t"}]"#;
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let received = receiver.receive(&posted("/in", "", &headers, batch), 5).expect("taken");
    assert_eq!(received.events.len(), 2);
    assert_eq!(refused(&*receiver, &posted("/in", "", &[], "x"), 5), (400, "E0601"));
    let request = posted("/in/", "", &headers, batch);
    assert_eq!(refused(&*receiver, &request, 5), (429, "E0309"));
    assert!(receiver.receive(&request, 6).is_ok());
    assert_eq!(refused(&*receiver, &posted("", "", &headers, batch), 6), (404, "E0650"));
}

#[tokio::test]
async fn the_challenge_of_slack_is_answered_once_it_is_signed() {
    let body = r#"{"token": "x", "challenge": "3eZbrw1a", "type": "url_verification"}"#;
    let receiver = receiver(secrets("slack", &["s"])).await;
    let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(b"s").expect("a key");
    hmac::Mac::update(&mut mac, format!("v0:1000:{body}").as_bytes());
    let signature: String =
        hmac::Mac::finalize(mac).into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = format!("v0={signature}");
    let headers = [("x-slack-signature", signature.as_str()), ("x-slack-request-timestamp", "1000")];
    let received = receiver.receive(&posted("", "", &headers, body), 1_000).expect("taken");
    assert!(received.events.is_empty());
    assert_eq!(
        (received.status.as_u16(), received.body.expect("a body").1.as_ref()),
        (200, &b"3eZbrw1a"[..])
    );
    assert_eq!(refused(&*receiver, &posted("", "", &headers[1..], body), 1_000), (401, "E0306"));
}

#[test]
fn settings_that_cannot_work_are_told() {
    for (settings, path) in [
        (secrets("github", &[]), "verify.github.secrets"),
        (json!({"verify": {"gitlab": {}}}), "verify.gitlab.secrets"),
        (
            json!({"verify": {"gitlab": {"secrets": [{"value": "s"}], "signingTokens": [{"value": "whsec_AA=="}]}}}),
            "verify.gitlab.secrets",
        ),
        (
            json!({"verify": {"gitlab": {"secrets": [{"value": "s"}], "tolerance": "PT1M"}}}),
            "verify.gitlab.tolerance",
        ),
        (json!({"verify": {"basic": []}}), "verify.basic"),
        (json!({"verify": {"hmac": {"secrets": [{"value": "s"}], "header": "a b"}}}), "verify.hmac.header"),
        (
            json!({"verify": {"hmac": {"secrets": [{"value": "s"}], "header": "x", "timestampHeader": "x-time"}}}),
            "verify.hmac.timestampHeader",
        ),
        (
            json!({"verify": {"hmac": {"secrets": [{"value": "s"}], "header": "x", "tolerance": "PT1M"}}}),
            "verify.hmac.tolerance",
        ),
        (json!({"path": "x"}), "path"),
        (json!({"answerStatus": 500}), "answerStatus"),
        (json!({"requestsPerSecond": 0}), "requestsPerSecond"),
        (json!({"eventExtensions": {"Bad": "x"}}), "eventExtensions.Bad"),
        (json!({"eventExtensions": {"id": "x"}}), "eventExtensions.id"),
        (json!({"body": "cloudEvents", "eventType": "x"}), "eventType"),
    ] {
        let config: WebhookConfig = serde_json::from_value(settings.clone()).expect("settings");
        let paths: Vec<_> = config.validate().into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, [path], "{settings}");
    }
}

#[tokio::test]
async fn a_secret_that_is_missing_empty_or_of_the_wrong_form_is_a_fault_of_the_settings() {
    for secret in [json!({"value": ""}), json!({"env": "NONE"}), json!({"value": "whsec_!"})] {
        let settings = json!({"verify": {"standardWebhooks": {"secrets": [secret]}}});
        let config: WebhookConfig = serde_json::from_value(settings).expect("settings");
        let error = config.build(context()).await.expect_err("no secret");
        assert_eq!(error.code.id(), "E0305");
    }
}
