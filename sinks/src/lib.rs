//! The sink components: where events go. One file each, one line in [`SINKS`].

use waypost_core::sink::SinkType;

mod elasticsearch;
mod file;
mod json_lines;
#[cfg(feature = "kafka")]
mod kafka;
mod stdout;

pub use elasticsearch::ElasticsearchConfig;
pub use file::FileConfig;
#[cfg(feature = "kafka")]
pub use kafka::KafkaConfig;
pub use stdout::StdoutConfig;

/// What the `spec` of a `kind: Sink` may hold, by key.
pub const SINKS: &[SinkType] = &[
    SinkType::of::<ElasticsearchConfig>(),
    SinkType::of::<FileConfig>(),
    #[cfg(feature = "kafka")]
    SinkType::of::<KafkaConfig>(),
    SinkType::of::<StdoutConfig>(),
];
