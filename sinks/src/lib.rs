//! The sink components: where events go. One file each, one line in [`SINKS`].

use waypost_core::sink::SinkType;

mod elasticsearch;
mod file;
mod http;
mod json_lines;
#[cfg(feature = "kafka")]
mod kafka;
mod nats;
#[cfg(feature = "aws")]
mod s3;
mod stdout;

pub use self::http::HttpConfig;
pub use elasticsearch::ElasticsearchConfig;
pub use file::FileConfig;
#[cfg(feature = "kafka")]
pub use kafka::KafkaConfig;
pub use nats::NatsConfig;
#[cfg(feature = "aws")]
pub use s3::S3Config;
pub use stdout::StdoutConfig;

/// What the `spec` of a `kind: Sink` may hold, by key.
pub const SINKS: &[SinkType] = &[
    SinkType::of::<ElasticsearchConfig>(),
    SinkType::of::<FileConfig>(),
    SinkType::of::<HttpConfig>(),
    #[cfg(feature = "kafka")]
    SinkType::of::<KafkaConfig>(),
    SinkType::of::<NatsConfig>(),
    #[cfg(feature = "aws")]
    SinkType::of::<S3Config>(),
    SinkType::of::<StdoutConfig>(),
];
