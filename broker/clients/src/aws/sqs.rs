//! The calls of SQS that a consumer needs, by its JSON protocol.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Arn, AwsClient, AwsRequest};
use crate::problem::{Problem, ProblemKind};

/// The most messages in one call.
pub const MOST_MESSAGES: usize = 10;

/// How long SQS may hold a call that receives until a message comes.
const LONG_POLL: Duration = Duration::from_secs(20);

/// How long any other call may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// The visibility time-out of a queue that does not tell it.
const DEFAULT_VISIBILITY: Duration = Duration::from_secs(30);

/// A queue that was found.
#[derive(Debug)]
pub struct Queue {
    client: Arc<AwsClient>,
    url: String,
    arn: String,
    visibility: Duration,
}

/// A message as SQS gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    /// The id of the message: the same whenever it is received.
    pub message_id: String,
    /// What deletes this receipt of it.
    pub receipt_handle: String,
    /// The text.
    #[serde(default)]
    pub body: Option<String>,
    /// What SQS knows about the message, such as `ApproximateReceiveCount`.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// What the sender said about it.
    #[serde(default)]
    pub message_attributes: BTreeMap<String, MessageAttribute>,
    /// The checksum of the body.
    #[serde(default, rename = "MD5OfBody")]
    pub md5_of_body: Option<String>,
    /// The checksum of the attributes.
    #[serde(default, rename = "MD5OfMessageAttributes")]
    pub md5_of_message_attributes: Option<String>,
}

/// What the sender said about a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MessageAttribute {
    /// `String`, `Number` or `Binary`, with a label of the sender behind a dot.
    pub data_type: String,
    /// The text, where it is one.
    #[serde(default)]
    pub string_value: Option<String>,
    /// The bytes in base64, where it is some.
    #[serde(default)]
    pub binary_value: Option<String>,
}

/// How a queue is named in the settings: by its URL, its ARN or its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueName<'n> {
    /// `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`
    Url(&'n str),
    /// `arn:aws:sqs:REGION:ACCOUNT:NAME`
    Arn(Arn<'n>),
    /// A name in the own account.
    Name(&'n str),
}

impl<'n> QueueName<'n> {
    /// Reads how a queue is named; none where that is no name of a queue.
    pub fn parse(text: &'n str) -> Option<Self> {
        if text.starts_with("http://") || text.starts_with("https://") {
            let (_, name) = text.rsplit_once('/')?;
            return is_name(name).then_some(Self::Url(text));
        }
        if text.starts_with("arn:") {
            let arn = Arn::parse(text).filter(|arn| arn.service == "sqs" && is_name(arn.resource))?;
            return Some(Self::Arn(arn));
        }
        is_name(text).then_some(Self::Name(text))
    }

    /// The region that the name tells.
    pub fn region(&self) -> Option<&'n str> {
        match self {
            Self::Arn(arn) => Some(arn.region).filter(|region| !region.is_empty()),
            // `https://sqs.REGION.amazonaws.com/...`
            Self::Url(url) => {
                let (_, rest) = url.split_once("://sqs.")?;
                let (host, _) = rest.split_once('/')?;
                host.split_once(".amazonaws.").map(|(region, _)| region)
            }
            Self::Name(_) => None,
        }
    }

    /// Whether the queue keeps the order of each group.
    pub fn is_fifo(&self) -> bool {
        let (Self::Url(name) | Self::Name(name)) = self else {
            return matches!(self, Self::Arn(arn) if arn.resource.ends_with(".fifo"));
        };
        name.ends_with(".fifo")
    }
}

fn is_name(name: &str) -> bool {
    let plain = name.strip_suffix(".fifo").unwrap_or(name);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !plain.is_empty() && name.len() <= 80 && plain.bytes().all(named)
}

/// What became of one entry of a call with several.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FailedEntry {
    id: String,
    #[serde(default)]
    sender_fault: bool,
    #[serde(default)]
    code: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entries {
    #[serde(default)]
    failed: Vec<FailedEntry>,
}

/// The receipts of which a call with several left something to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// May work when tried again.
    pub to_retry: Vec<String>,
    /// Will not work, with the codes that SQS gave.
    pub refused: Vec<(String, String)>,
}

impl Left {
    fn of(handles: &[String], failed: Vec<FailedEntry>) -> Self {
        let mut left = Self::default();
        for entry in failed {
            let Some(handle) = entry.id.parse::<usize>().ok().and_then(|index| handles.get(index)) else {
                continue;
            };
            if entry.sender_fault {
                left.refused.push((handle.clone(), entry.code));
            } else {
                left.to_retry.push(handle.clone());
            }
        }
        left
    }
}

/// Finds a queue, its ARN and its visibility time-out, and changes nothing.
///
/// # Errors
/// Why there is none for us: [`ProblemKind::Absent`] where SQS has no such queue.
pub async fn find(client: Arc<AwsClient>, name: QueueName<'_>) -> Result<Queue, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Found {
        queue_url: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Attributes {
        #[serde(default)]
        attributes: BTreeMap<String, String>,
    }
    let url = match name {
        QueueName::Url(url) => url.to_owned(),
        QueueName::Name(name) => {
            call::<Found>(&client, "GetQueueUrl", &json!({"QueueName": name}), PATIENCE).await?.queue_url
        }
        QueueName::Arn(arn) => {
            let mut asked = json!({"QueueName": arn.resource});
            if !arn.account.is_empty() {
                asked["QueueOwnerAWSAccountId"] = arn.account.into();
            }
            call::<Found>(&client, "GetQueueUrl", &asked, PATIENCE).await?.queue_url
        }
    };
    let asked = json!({"QueueUrl": url, "AttributeNames": ["QueueArn", "VisibilityTimeout"]});
    let told = match call::<Attributes>(&client, "GetQueueAttributes", &asked, PATIENCE).await {
        Ok(told) => told.attributes,
        // One may be allowed to receive and not to look.
        Err(problem)
            if problem.kind == ProblemKind::Unauthorized && problem.detail.contains("AccessDenied") =>
        {
            BTreeMap::new()
        }
        Err(problem) => return Err(problem),
    };
    let visibility = told.get("VisibilityTimeout").and_then(|seconds| seconds.parse().ok());
    let arn = match told.get("QueueArn") {
        Some(arn) => arn.clone(),
        None => arn_of(&url, &client.place().await?.region),
    };
    let visibility = visibility.map_or(DEFAULT_VISIBILITY, Duration::from_secs);
    Ok(Queue { client, url, arn, visibility })
}

/// The ARN of the queue with this URL.
fn arn_of(url: &str, region: &str) -> String {
    let mut parts = url.rsplit('/');
    let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("arn:aws:sqs:{region}:{account}:{name}")
}

impl Queue {
    /// The ARN of the queue.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// How long the queue keeps a message that was received from others.
    pub fn visibility(&self) -> Duration {
        self.visibility
    }

    /// Receives up to ten messages, and waits up to 20 seconds for the first. `visibility` is for how long they are kept
    /// from others, where it is not as the queue says.
    ///
    /// Dropped, it may have received messages, which come again once their time is over.
    pub async fn receive(&self, visibility: Option<Duration>) -> Result<Vec<Message>, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Received {
            #[serde(default)]
            messages: Option<Vec<Message>>,
        }
        let mut asked = json!({
            "QueueUrl": self.url,
            "MaxNumberOfMessages": MOST_MESSAGES,
            "WaitTimeSeconds": LONG_POLL.as_secs(),
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        });
        if let Some(visibility) = visibility {
            asked["VisibilityTimeout"] = visibility.as_secs().into();
        }
        let received: Received = call(&self.client, "ReceiveMessage", &asked, LONG_POLL + PATIENCE).await?;
        Ok(received.messages.unwrap_or_default())
    }

    /// Deletes up to ten messages by their receipts, and says of which that is still to be done.
    pub async fn delete(&self, handles: &[String]) -> Result<Left, Problem> {
        self.each(handles, "DeleteMessageBatch", |_| {}).await
    }

    /// Keeps up to ten messages from others for so long from now, and says for which that did not work.
    pub async fn extend(&self, handles: &[String], visibility: Duration) -> Result<Left, Problem> {
        self.each(handles, "ChangeMessageVisibilityBatch", |entry| {
            entry["VisibilityTimeout"] = visibility.as_secs().into();
        })
        .await
    }

    async fn each(
        &self,
        handles: &[String],
        action: &str,
        more: impl Fn(&mut Value),
    ) -> Result<Left, Problem> {
        let entries: Vec<_> = handles
            .iter()
            .enumerate()
            .map(|(index, handle)| {
                let mut entry = json!({"Id": index.to_string(), "ReceiptHandle": handle});
                more(&mut entry);
                entry
            })
            .collect();
        let asked = json!({"QueueUrl": self.url, "Entries": entries});
        let told: Entries = call(&self.client, action, &asked, PATIENCE).await?;
        Ok(Left::of(handles, told.failed))
    }
}

async fn call<A: DeserializeOwned>(
    client: &AwsClient,
    action: &str,
    asked: &Value,
    patience: Duration,
) -> Result<A, Problem> {
    let target = HeaderValue::from_str(&format!("AmazonSQS.{action}")).expect("an action is a word");
    let request = AwsRequest {
        method: Method::POST,
        url: format!("{}/", client.place().await?.endpoint),
        headers: vec![
            (http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0")),
            (HeaderName::from_static("x-amz-target"), target),
        ],
        body: Bytes::from(asked.to_string()),
        patience,
    };
    let answer = client.send(request).await?;
    // Some actions answer with nothing at all.
    let body: &[u8] = if answer.body.is_empty() { b"{}" } else { &answer.body };
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            ProblemKind::Unavailable,
            format!("{action} is answered with what is no answer of SQS ({error}); check `endpoint`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_url_arn_or_name() {
        for (text, region, fifo) in [
            ("orders", None, false),
            ("orders.fifo", None, true),
            ("arn:aws:sqs:eu-west-1:123456789012:orders", Some("eu-west-1"), false),
            ("arn:aws:sqs:eu-west-1:123456789012:orders.fifo", Some("eu-west-1"), true),
            ("https://sqs.us-east-2.amazonaws.com/123456789012/orders", Some("us-east-2"), false),
            ("http://localhost:9324/000000000000/orders.fifo", None, true),
        ] {
            let name = QueueName::parse(text).unwrap();
            assert_eq!((name.region(), name.is_fifo()), (region, fifo), "{text}");
        }
        for text in ["", "a b", "arn:aws:sns:eu-west-1:1:orders", "https://host/", ".fifo", &"q".repeat(81)] {
            assert_eq!(QueueName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_answer_with_several_results_leaves_what_may_work() {
        let told = json!({
            "Successful": [{"Id": "1"}],
            "Failed": [
                {"Id": "0", "SenderFault": false, "Code": "InternalError"},
                {"Id": "2", "SenderFault": true, "Code": "ReceiptHandleIsInvalid", "Message": "x"},
                {"Id": "nonsense", "SenderFault": false, "Code": "x"},
            ],
        });
        let entries: Entries = serde_json::from_value(told).unwrap();
        let handles = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let left = Left::of(&handles, entries.failed);
        let refused = vec![("c".to_owned(), "ReceiptHandleIsInvalid".to_owned())];
        assert_eq!(left, Left { to_retry: vec!["a".to_owned()], refused });
    }

    #[test]
    fn a_message_is_read_with_and_without_its_optional_parts() {
        let bare: Message = serde_json::from_value(json!({"MessageId": "m", "ReceiptHandle": "r"})).unwrap();
        assert_eq!((bare.body, bare.attributes.len()), (None, 0));
        let full: Message = serde_json::from_value(json!({
            "MessageId": "m", "ReceiptHandle": "r", "Body": "b", "MD5OfBody": "x", "NewField": 1,
            "Attributes": {"ApproximateReceiveCount": "2"},
            "MessageAttributes": {"k": {"DataType": "String", "StringValue": "v"}},
        }))
        .unwrap();
        assert_eq!(full.message_attributes["k"].string_value.as_deref(), Some("v"));
        assert_eq!(full.attributes["ApproximateReceiveCount"], "2");
    }

    #[test]
    fn the_arn_of_a_url_is_of_its_account_and_name() {
        let arn = arn_of("http://localhost:9324/000000000000/orders", "elasticmq");
        assert_eq!(arn, "arn:aws:sqs:elasticmq:000000000000:orders");
    }
}
