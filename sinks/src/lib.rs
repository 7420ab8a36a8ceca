//! The sink components: where events go. One file each, one line in [`SINKS`].

use waypost_core::sink::SinkType;

mod elasticsearch;
mod file;
mod http;
mod json_lines;
#[cfg(feature = "kafka")]
mod kafka;
mod nats;
mod stdout;

pub use self::http::HttpConfig;
pub use elasticsearch::ElasticsearchConfig;
pub use file::FileConfig;
#[cfg(feature = "kafka")]
pub use kafka::KafkaConfig;
pub use nats::NatsConfig;
pub use stdout::StdoutConfig;

/// What the `spec` of a `kind: Sink` may hold, by key.
pub const SINKS: &[SinkType] = &[
    SinkType::of::<ElasticsearchConfig>(),
    SinkType::of::<FileConfig>(),
    SinkType::of::<HttpConfig>(),
    #[cfg(feature = "kafka")]
    SinkType::of::<KafkaConfig>(),
    SinkType::of::<NatsConfig>(),
    SinkType::of::<StdoutConfig>(),
];
