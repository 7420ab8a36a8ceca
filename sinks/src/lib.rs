//! The sink components: where events go. One file each, one line in [`SINKS`].

use waypost_core::sink::SinkType;

mod stdout;

pub use stdout::StdoutConfig;

/// What the `spec` of a `kind: Sink` may hold, by key.
pub const SINKS: &[SinkType] = &[SinkType::of::<StdoutConfig>()];
