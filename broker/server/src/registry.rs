//! The component types of this build.

use waypost_engine::plan::Registry;

/// Every source, sink and transformation type.
pub(crate) const REGISTRY: Registry = Registry {
    sources: waypost_sources::SOURCES,
    sinks: waypost_sinks::SINKS,
    transformations: waypost_transformations::TRANSFORMATIONS,
};
