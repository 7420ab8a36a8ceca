//! What event a request becomes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HOST, HeaderName};
use jiff::Timestamp;
use serde_json::Value;
use waypost_core::event::EventBuilder;
use waypost_core::event::http::{DecodeOptions, Decoded, decode};
use waypost_core::manifest::ResourceName;
use waypost_core::receive::{Posted, Refusal};
use waypost_core::template::RequestTemplate;
use waypost_core::{Event, codes};

use super::settings::{RequestPart, Verification, WebhookBody, WebhookConfig};

/// The longest name of an attribute that is made of a name in the request, as TriggerMesh has it.
const LONGEST_NAME: usize = 20;

/// How the events of a source are called: for each attribute the templates that are tried, in their order.
#[derive(Debug)]
pub(super) struct Naming {
    id: Attempts,
    event_type: Attempts,
    source: Attempts,
    subject: Attempts,
}

#[derive(Debug)]
struct Attempts {
    templates: Vec<RequestTemplate>,
    /// Whether they are the user's own, so that finding nothing is an error.
    asked: bool,
}

impl Attempts {
    fn new(asked: Option<&RequestTemplate>, of_sender: &[&str]) -> Self {
        match asked {
            Some(template) => Self { templates: vec![template.clone()], asked: true },
            None => {
                let parsed = of_sender.iter().filter_map(|text| RequestTemplate::parse(text).ok());
                Self { templates: parsed.collect(), asked: false }
            }
        }
    }

    /// What the first template that finds something says.
    fn render(&self, posted: &Posted, attribute: &str) -> Result<Option<String>, Refusal> {
        let mut missing = None;
        for template in &self.templates {
            match template.render(posted) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Ok(Some(text)),
                Err(unrendered) => missing = Some(unrendered),
            }
        }
        match missing {
            Some(missing) if self.asked => {
                Err(unprocessable(format!("no `{attribute}` can be made: {missing}")))
            }
            _ => Ok(None),
        }
    }
}

/// The templates of a sender.
#[derive(Debug, Default)]
struct OfSender {
    id: &'static [&'static str],
    event_type: &'static [&'static str],
    source: &'static [&'static str],
    subject: &'static [&'static str],
}

fn of_sender(verification: Option<&Verification>) -> OfSender {
    match verification {
        // As the CloudEvents adapters for GitHub and GitLab have it.
        Some(Verification::Github(_)) => OfSender {
            id: &["${header.x-github-delivery}"],
            event_type: &[
                "com.github.${header.x-github-event}.${$.action}",
                "com.github.${header.x-github-event}",
            ],
            source: &["${$.repository.url}", "${$.organization.url}", "${$.sender.url}"],
            subject: &[],
        },
        Some(Verification::Gitlab(_)) => OfSender {
            id: &["${header.idempotency-key}", "${header.x-gitlab-event-uuid}"],
            event_type: &["com.gitlab.${$.object_kind}", "com.gitlab.${$.event_name}"],
            source: &["${$.repository.homepage}", "${$.project.web_url}", "${header.x-gitlab-instance}"],
            subject: &[],
        },
        Some(Verification::Stripe(_)) => OfSender {
            id: &["${$.id}"],
            event_type: &["com.stripe.${$.type}"],
            source: &["https://api.stripe.com/${$.account}", "https://api.stripe.com"],
            subject: &["${$.data.object.id}"],
        },
        Some(Verification::Slack(_)) => OfSender {
            id: &["${$.event_id}", "${$.trigger_id}"],
            event_type: &["com.slack.${$.event.type}", "com.slack${$.command}", "com.slack.${$.type}"],
            source: &["/slack/${$.team_id}", "/slack/${$.team.id}"],
            subject: &["${$.event.channel}", "${$.channel_id}"],
        },
        Some(Verification::StandardWebhooks(_)) => {
            OfSender { id: &["${header.webhook-id}"], event_type: &["${$.type}"], ..OfSender::default() }
        }
        None | Some(Verification::Hmac(_) | Verification::Basic(_) | Verification::Bearer(_)) => {
            OfSender::default()
        }
    }
}

impl Naming {
    pub(super) fn new(config: &WebhookConfig) -> Self {
        let own = of_sender(config.verify.as_ref());
        Self {
            id: Attempts::new(config.event_id.as_ref(), own.id),
            event_type: Attempts::new(config.event_type.as_ref(), own.event_type),
            source: Attempts::new(config.event_source.as_ref(), own.source),
            subject: Attempts::new(config.event_subject.as_ref(), own.subject),
        }
    }
}

/// The CloudEvents that a request carries.
///
/// # Errors
/// [`Refusal`] as ingress has it.
pub(super) fn carried(posted: &Posted) -> Result<Vec<Event>, Refusal> {
    match decode(&posted.headers, &posted.body, &DecodeOptions::default()) {
        Ok(Decoded::Event(event)) => Ok(vec![event]),
        Ok(Decoded::Batch(events)) => Ok(events),
        Err(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
            Err(Refusal::new(status, error.code, error.detail))
        }
    }
}

/// The event whose data is the body of a request.
///
/// # Errors
/// [`Refusal`] where a template that the settings name finds nothing, or what it finds makes no valid event.
pub(super) fn wrapped(
    config: &WebhookConfig,
    naming: &Naming,
    name: &ResourceName,
    posted: &Posted,
    now: u64,
) -> Result<Event, Refusal> {
    debug_assert!(config.body == WebhookBody::Data, "events that are carried are taken as they are");
    let parts = |part: RequestPart| config.request_extensions.contains(&part);
    let from_headers = |name: &'static str| {
        let header = posted.header(&HeaderName::from_static(name)).filter(|_| parts(RequestPart::Headers));
        header.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let id = match naming.id.render(posted, "id")?.or_else(|| from_headers("ce-id")) {
        Some(id) => id,
        None => uuid::Uuid::now_v7().to_string(),
    };
    let default_source =
        || format!("/apis/waypost.dev/v1alpha1/namespaces/{}/sources/{}", name.namespace, name.name);
    let event_type = naming.event_type.render(posted, "type")?;
    let event_type = event_type.map(|text| text.replace("com.slack/", "com.slack."));
    let builder = Event::builder(
        id,
        naming.source.render(posted, "source")?.unwrap_or_else(default_source),
        event_type.unwrap_or_else(|| "dev.waypost.webhook.request".to_owned()),
    );
    let time = i64::try_from(now).ok().and_then(|now| Timestamp::from_second(now).ok()).unwrap_or_default();
    let mut builder = builder.time(time.to_string());
    if let Some(subject) = naming.subject.render(posted, "subject")?.or_else(|| from_headers("ce-subject")) {
        builder = builder.subject(subject);
    }
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (name, template) in &config.event_extensions {
        if let Ok(value) = template.render(posted)
            && taken.insert(name.clone())
        {
            builder = builder.attribute(name.clone(), value);
        }
    }
    for (name, value) in request_parts(config, posted) {
        if !value.chars().any(char::is_control) && taken.insert(name.clone()) {
            builder = builder.attribute(name, value.into_owned());
        }
    }
    build(builder, posted)
        .map_err(|invalid| unprocessable(format!("the request makes no valid event: {invalid}")))
}

fn build(builder: EventBuilder, posted: &Posted) -> Result<Event, waypost_core::event::InvalidEvent> {
    if posted.body.is_empty() {
        return builder.build();
    }
    let content_type = posted.header(&CONTENT_TYPE).map(str::to_owned);
    let plain = builder.data(posted.body.clone());
    // A content type that is none, or data that is not what it says, is no reason to lose what came.
    match content_type {
        Some(content_type) => {
            plain.clone().data_content_type(content_type).build().or_else(|_| plain.build())
        }
        None => plain.build(),
    }
}

/// The parts of a request that are asked for, as attributes.
fn request_parts<'p>(config: &WebhookConfig, posted: &'p Posted) -> Vec<(String, Cow<'p, str>)> {
    let mut parts = Vec::new();
    for part in &config.request_extensions {
        match part {
            RequestPart::Path => {
                let path = if posted.path.is_empty() { "/" } else { &posted.path };
                parts.push(("path".to_owned(), Cow::Borrowed(path)));
            }
            RequestPart::Method => parts.push(("method".to_owned(), Cow::Borrowed(posted.method.as_str()))),
            RequestPart::Host => {
                parts.extend(posted.header(&HOST).map(|host| ("host".to_owned(), Cow::Borrowed(host))));
            }
            RequestPart::Queries => {
                parts.extend(posted.queries().map(|(name, value)| (attribute_name('q', &name), value)));
            }
            RequestPart::Headers => {
                let hidden = ["authorization", "cookie", "proxy-authorization", "ce-id", "ce-subject"];
                for name in posted.headers.keys().filter(|name| !hidden.contains(&name.as_str())) {
                    if let Some(value) = posted.header(name) {
                        parts.push((attribute_name('h', name.as_str()), Cow::Borrowed(value)));
                    }
                }
            }
        }
    }
    parts
}

fn attribute_name(first: char, name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase());
    std::iter::once(first).chain(letters).take(LONGEST_NAME).collect()
}

/// The answer that Slack asks for when it is told the URL.
pub(super) fn slack_challenge(posted: &Posted) -> Option<&str> {
    let body = posted.json()?;
    let asks = body.get("type").and_then(Value::as_str) == Some("url_verification");
    body.get("challenge").and_then(Value::as_str).filter(|_| asks)
}

fn unprocessable(detail: String) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, codes::REQUEST_NOT_AN_EVENT, detail)
}
