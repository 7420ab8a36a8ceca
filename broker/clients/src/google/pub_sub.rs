//! Pub/Sub over gRPC: the calls of a subscriber, and their messages as `google.pubsub.v1` has them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::credentials::Credentials;
use super::{ANSWER_PATIENCE, classify};
use crate::problem::{Problem, ProblemKind};

/// How long a pull may wait at Google for a message, with what the way takes.
const PULL_PATIENCE: Duration = Duration::from_secs(100);

/// A call, and the field of its request that names the subscription, by which Google routes it.
#[derive(Debug, Clone, Copy)]
struct Call {
    path: &'static str,
    routed_by: &'static str,
}

const GET_SUBSCRIPTION: Call =
    Call { path: "/google.pubsub.v1.Subscriber/GetSubscription", routed_by: "subscription" };
const CREATE_SUBSCRIPTION: Call =
    Call { path: "/google.pubsub.v1.Subscriber/CreateSubscription", routed_by: "name" };
const PULL: Call = Call { path: "/google.pubsub.v1.Subscriber/Pull", routed_by: "subscription" };
const ACKNOWLEDGE: Call =
    Call { path: "/google.pubsub.v1.Subscriber/Acknowledge", routed_by: "subscription" };
const MODIFY_ACK_DEADLINE: Call =
    Call { path: "/google.pubsub.v1.Subscriber/ModifyAckDeadline", routed_by: "subscription" };
const TEST_PERMISSIONS: Call =
    Call { path: "/google.iam.v1.IAMPolicy/TestIamPermissions", routed_by: "resource" };

/// The permission to pull and acknowledge.
const CONSUME: &str = "pubsub.subscriptions.consume";

/// The most bytes of an answer: Google's are below 20 MB.
const MOST_ANSWER: usize = 32 * 1024 * 1024;

/// The most acknowledgement ids of one call, which keeps it below Google's 512 KiB.
const MOST_IDS: usize = 1_000;

/// A message of Pub/Sub.
#[derive(Clone, PartialEq, Message)]
pub struct PubsubMessage {
    /// The data.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
    /// The attributes.
    #[prost(map = "string, string", tag = "2")]
    pub attributes: HashMap<String, String>,
    /// The id, unique within the topic.
    #[prost(string, tag = "3")]
    pub message_id: String,
    /// When the topic got it.
    #[prost(message, optional, tag = "4")]
    pub publish_time: Option<Time>,
    /// The ordering key; empty where there is none.
    #[prost(string, tag = "5")]
    pub ordering_key: String,
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Time {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds beside them.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A message with what acknowledges it.
#[derive(Clone, PartialEq, Message)]
pub struct ReceivedMessage {
    /// What acknowledges this delivery of the message.
    #[prost(string, tag = "1")]
    pub ack_id: String,
    /// The message.
    #[prost(message, optional, tag = "2")]
    pub message: Option<PubsubMessage>,
    /// Which attempt this is; 0 where the subscription does not count.
    #[prost(int32, tag = "3")]
    pub delivery_attempt: i32,
}

/// A subscription, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
pub struct Subscription {
    /// `projects/PROJECT/subscriptions/NAME`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `projects/PROJECT/topics/NAME`.
    #[prost(string, tag = "2")]
    pub topic: String,
    /// How long a message is left to whoever pulled it, in seconds.
    #[prost(int32, tag = "5")]
    pub ack_deadline_seconds: i32,
    /// Whether messages of one key come in their order.
    #[prost(bool, tag = "10")]
    pub enable_message_ordering: bool,
}

#[derive(Clone, PartialEq, Message)]
struct GetSubscriptionRequest {
    #[prost(string, tag = "1")]
    subscription: String,
}

#[derive(Clone, PartialEq, Message)]
struct PullRequest {
    #[prost(string, tag = "1")]
    subscription: String,
    #[prost(bool, tag = "2")]
    return_immediately: bool,
    #[prost(int32, tag = "3")]
    max_messages: i32,
}

#[derive(Clone, PartialEq, Message)]
struct PullResponse {
    #[prost(message, repeated, tag = "1")]
    received_messages: Vec<ReceivedMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AcknowledgeRequest {
    #[prost(string, tag = "1")]
    subscription: String,
    #[prost(string, repeated, tag = "2")]
    ack_ids: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ModifyAckDeadlineRequest {
    #[prost(string, tag = "1")]
    subscription: String,
    #[prost(int32, tag = "3")]
    ack_deadline_seconds: i32,
    #[prost(string, repeated, tag = "4")]
    ack_ids: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// `google.iam.v1.TestIamPermissionsRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TestPermissionsRequest {
    #[prost(string, tag = "1")]
    pub(super) resource: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) permissions: Vec<String>,
}

/// `google.iam.v1.TestIamPermissionsResponse`: those of the permissions that we have.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TestPermissionsResponse {
    #[prost(string, repeated, tag = "1")]
    pub(super) permissions: Vec<String>,
}

/// A subscriber of one subscription. Cheap to clone; the connection is made by the first call, and again when it is lost.
#[derive(Debug, Clone)]
pub struct Subscriber {
    channel: Channel,
    credentials: Arc<Credentials>,
    subscription: String,
}

impl Subscriber {
    pub(super) fn new(endpoint: &str, credentials: Credentials, subscription: &str) -> Result<Self, Problem> {
        let wrong = |error: tonic::transport::Error| {
            Problem::new(ProblemKind::Settings, format!("`{endpoint}` cannot be reached: {error}"))
        };
        let mut channel = Endpoint::from_shared(endpoint.to_owned())
            .map_err(wrong)?
            .connect_timeout(ANSWER_PATIENCE)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(ANSWER_PATIENCE)
            .tcp_nodelay(true);
        if endpoint.starts_with("https://") {
            channel = channel.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(wrong)?;
        }
        let credentials = Arc::new(credentials);
        Ok(Self { channel: channel.connect_lazy(), credentials, subscription: subscription.to_owned() })
    }

    /// The subscription: `projects/PROJECT/subscriptions/NAME`.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// Looks at the subscription. None where we may not look, which who may consume need not.
    ///
    /// # Errors
    /// Why it cannot be consumed.
    pub async fn find(&self) -> Result<Option<Subscription>, Problem> {
        let request = GetSubscriptionRequest { subscription: self.subscription.clone() };
        match self.call(GET_SUBSCRIPTION, request, ANSWER_PATIENCE).await {
            Ok(found) => Ok(Some(found)),
            Err(Failure::Answer(status)) if status.code() == Code::PermissionDenied => Ok(None),
            Err(failure) => Err(failure.problem()),
        }
    }

    /// Asks whether we may pull and acknowledge messages of the subscription, which takes none. Emulators do not know, and
    /// let everybody.
    ///
    /// # Errors
    /// That we may not, or why that cannot be told.
    pub async fn check_rights(&self) -> Result<(), Problem> {
        let request = TestPermissionsRequest {
            resource: self.subscription.clone(),
            permissions: vec![CONSUME.to_owned()],
        };
        match self.call::<_, TestPermissionsResponse>(TEST_PERMISSIONS, request, ANSWER_PATIENCE).await {
            Ok(ours) if ours.permissions.iter().any(|ours| ours == CONSUME) => Ok(()),
            Ok(_) => Err(Problem::new(
                ProblemKind::Unauthorized,
                format!("Google: the account lacks `{CONSUME}`; give it the role `roles/pubsub.subscriber`"),
            )),
            Err(Failure::Answer(status)) if status.code() == Code::Unimplemented => Ok(()),
            Err(failure) => Err(failure.problem()),
        }
    }

    /// Makes the subscription, of a topic and with ordering. One that was made meanwhile will do.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub async fn create(&self, topic: &str, ack_deadline: Duration) -> Result<(), Problem> {
        let request = Subscription {
            name: self.subscription.clone(),
            topic: topic.to_owned(),
            ack_deadline_seconds: seconds(ack_deadline),
            enable_message_ordering: true,
        };
        match self.call::<_, Subscription>(CREATE_SUBSCRIPTION, request, ANSWER_PATIENCE).await {
            Ok(_) => Ok(()),
            Err(Failure::Answer(status)) if status.code() == Code::AlreadyExists => Ok(()),
            Err(failure) => Err(failure.problem()),
        }
    }

    /// Takes up to so many messages. Without `wait` it answers at once. A call that is given up may have taken some,
    /// which come again when their deadline has passed.
    ///
    /// # Errors
    /// Why there are none to be had. That nothing came while it waited is no error.
    pub async fn pull(&self, most: usize, wait: bool) -> Result<Vec<ReceivedMessage>, Problem> {
        let request = PullRequest {
            subscription: self.subscription.clone(),
            return_immediately: !wait,
            max_messages: i32::try_from(most).unwrap_or(i32::MAX),
        };
        let patience = if wait { PULL_PATIENCE } else { ANSWER_PATIENCE };
        match self.call::<_, PullResponse>(PULL, request, patience).await {
            Ok(response) => Ok(response.received_messages),
            Err(Failure::Answer(status)) if wait && status.code() == Code::DeadlineExceeded => Ok(Vec::new()),
            Err(failure) => Err(failure.problem()),
        }
    }

    /// Acknowledges messages.
    ///
    /// # Errors
    /// Why some may not be acknowledged: these come again.
    pub async fn acknowledge(&self, ack_ids: &[String]) -> Result<(), Problem> {
        for ack_ids in ack_ids.chunks(MOST_IDS) {
            let request =
                AcknowledgeRequest { subscription: self.subscription.clone(), ack_ids: ack_ids.to_vec() };
            self.call::<_, Empty>(ACKNOWLEDGE, request, ANSWER_PATIENCE).await.map_err(Failure::problem)?;
        }
        Ok(())
    }

    /// Leaves messages to us for this long from now; nothing gives them back at once.
    ///
    /// # Errors
    /// Why some may come again earlier.
    pub async fn extend(&self, ack_ids: &[String], deadline: Duration) -> Result<(), Problem> {
        for ack_ids in ack_ids.chunks(MOST_IDS) {
            let request = ModifyAckDeadlineRequest {
                subscription: self.subscription.clone(),
                ack_deadline_seconds: seconds(deadline),
                ack_ids: ack_ids.to_vec(),
            };
            self.call::<_, Empty>(MODIFY_ACK_DEADLINE, request, ANSWER_PATIENCE)
                .await
                .map_err(Failure::problem)?;
        }
        Ok(())
    }

    async fn call<Q, A>(&self, call: Call, request: Q, patience: Duration) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(request);
        if let Some(token) = self.credentials.token().await.map_err(Failure::Token)? {
            let value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| {
                Failure::Token(Problem::new(
                    ProblemKind::Unauthorized,
                    "Google: the token is no text of a header",
                ))
            })?;
            request.metadata_mut().insert("authorization", value);
        }
        let route = format!("{}={}", call.routed_by, self.subscription.replace('/', "%2F"));
        if let Ok(route) = MetadataValue::try_from(route) {
            request.metadata_mut().insert("x-goog-request-params", route);
        }
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(MOST_ANSWER);
        let asked = async {
            client.ready().await.map_err(|error| Status::from_error(error.into()))?;
            client.unary(request, PathAndQuery::from_static(call.path), ProstCodec::<Q, A>::new()).await
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure::Answer(Box::new(status))),
            Err(_) => Err(Failure::Answer(Box::new(Status::deadline_exceeded("there is no answer")))),
        }
    }
}

/// Why a call gave no answer that could be used.
enum Failure {
    Token(Problem),
    Answer(Box<Status>),
}

impl Failure {
    fn problem(self) -> Problem {
        match self {
            Self::Token(problem) => problem,
            Self::Answer(status) => classify(&status),
        }
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
