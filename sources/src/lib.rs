//! The source components: where events come from. One file each, one line in [`SOURCES`].

use waypost_core::source::SourceType;

#[cfg(feature = "aws")]
mod aws_sqs;
mod google_cloud_storage;
mod google_pub_sub;
#[cfg(feature = "kafka")]
mod kafka;
mod nats;
mod schedule;
mod webhook;

#[cfg(feature = "aws")]
pub use aws_sqs::AwsSqsConfig;
pub use google_cloud_storage::GoogleCloudStorageConfig;
pub use google_pub_sub::GooglePubSubConfig;
#[cfg(feature = "kafka")]
pub use kafka::KafkaConfig;
pub use nats::NatsConfig;
pub use schedule::ScheduleConfig;
pub use webhook::WebhookConfig;

/// What the `spec` of a `kind: Source` may hold, by key.
pub const SOURCES: &[SourceType] = &[
    #[cfg(feature = "aws")]
    SourceType::of::<AwsSqsConfig>(),
    SourceType::of::<GoogleCloudStorageConfig>(),
    SourceType::of::<GooglePubSubConfig>(),
    #[cfg(feature = "kafka")]
    SourceType::of::<KafkaConfig>(),
    SourceType::of::<NatsConfig>(),
    SourceType::of::<ScheduleConfig>(),
    SourceType::of::<WebhookConfig>(),
];
