//! The source components: where events come from. One file each, one line in [`SOURCES`].

use waypost_core::source::SourceType;

#[cfg(feature = "aws")]
mod aws_sqs;
#[cfg(feature = "kafka")]
mod kafka;
mod schedule;
mod webhook;

#[cfg(feature = "aws")]
pub use aws_sqs::AwsSqsConfig;
#[cfg(feature = "kafka")]
pub use kafka::KafkaConfig;
pub use schedule::ScheduleConfig;
pub use webhook::WebhookConfig;

/// What the `spec` of a `kind: Source` may hold, by key.
pub const SOURCES: &[SourceType] = &[
    #[cfg(feature = "aws")]
    SourceType::of::<AwsSqsConfig>(),
    #[cfg(feature = "kafka")]
    SourceType::of::<KafkaConfig>(),
    SourceType::of::<ScheduleConfig>(),
    SourceType::of::<WebhookConfig>(),
];
